"""Macro precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.metrics.metric import ClassMean, Weights, share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.tallies.counts import Counts


class MacroPrecision(ClassMean):
    """Mean over classes of TP_k / p_k; a class that is never predicted counts 0."""

    NAME, TITLE, RATIO = "macro-precision", "mPrec", "precision"
    ALIASES = ("precision macro", "precision", "mPrecision", "mean precision", "class-mean precision")
    RATIO_ALIASES = ("PPV", "positive predictive value", "user's accuracy")
    HELP = "Precision, averaged over classes."

    def ratios(self, counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """TP over predictions of the class."""
        return counts.hits, counts.predicted

    def slopes(self, counts: Counts) -> Weights:
        """1 / p_k of a hit, precision / p_k of a prediction."""
        ratio = share(*self.ratios(counts))
        return Weights(share(1.0, counts.predicted), share(ratio, counts.predicted))
