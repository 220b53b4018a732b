"""Mean class accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from unoic_cli.metrics.metric import ClassMean, Rules, Weights, averaged, share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.tallies.counts import Counts


class MeanClassAccuracy(ClassMean):
    """Mean over classes of the recall TP_k / (units of class k)."""

    NAME, TITLE, RATIO = "macc", "mAcc", "recall"
    ALIASES: ClassVar[tuple[str, ...]] = (
        "mean class accuracy", "class-mean accuracy", "balanced accuracy", "balanced accuracy score", "balanced acc",
        "bacc", "macro accuracy", "macro recall", "recall macro", "mean recall", "UAR",
    )  # fmt: skip
    RATIO_ALIASES = ("sensitivity", "TPR", "true positive rate", "class accuracy")
    HELP = "Mean class (balanced) accuracy: the recall, averaged over classes."
    HITS_ALONE = True

    def ratios(self, counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """TP over units of the class."""
        return counts.hits, counts.support

    def averaged(self, counts: Counts, rules: Rules) -> NDArray[np.bool_]:
        """A class that is only predicted has no recall."""
        return averaged(counts, rules, predicted=False)

    def slopes(self, counts: Counts) -> Weights:
        """1 / (units of the class) of a hit."""
        hit = share(1.0, counts.support) + 0.0 * counts.hits
        return Weights(hit, 0.0 * hit)
