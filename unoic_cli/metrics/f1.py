"""Macro F1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.metrics.metric import ClassMean, Weights, share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.tallies.counts import Counts


class MacroF1(ClassMean):
    """Mean over classes of 2 TP_k / (units of class k + predictions of class k)."""

    NAME, TITLE, RATIO = "f1", "F1", "f1"
    ALIASES = (
        "macro f1", "f1 macro", "mF1", "mean f1", "f1 score", "macro f1 score", "mDice", "mean dice", "dice",
    )  # fmt: skip
    HELP = "Macro F1 (mean Dice)."

    def ratios(self, counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Twice TP over units of the class and predictions of it."""
        return 2 * counts.hits, counts.support + counts.predicted

    def slopes(self, counts: Counts) -> Weights:
        """2 / D of a hit, F1 / D of a prediction, D the denominator."""
        over, under = self.ratios(counts)
        return Weights(share(2.0, under), share(share(over, under), under))
