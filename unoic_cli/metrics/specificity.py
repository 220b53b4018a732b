"""Mean specificity: of each class against all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.metrics.metric import ClassMean, Weights, share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.tallies.counts import Counts


class Specificity(ClassMean):
    """Mean over classes of TN_k / (N - n_k), TN_k = N - n_k - p_k + TP_k: units of other classes not taken for it."""

    NAME, TITLE, RATIO = "specificity", "mSpec", "specificity"
    ALIASES = (
        "specificity macro",
        "macro specificity",
        "mean specificity",
        "class-mean specificity",
        "specificity score",
    )
    RATIO_ALIASES = ("TNR", "true negative rate", "selectivity")
    HELP = "Specificity (each class against all others), averaged over classes."

    def ratios(self, counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """TN over the units of other classes."""
        others = counts.support.sum(axis=-1, keepdims=True) - counts.support
        return others - counts.predicted + counts.hits, others

    def slopes(self, counts: Counts) -> Weights:
        """1 / (N - n_k) of a hit, and as much of a prediction."""
        each = share(1.0, self.ratios(counts)[1]) + 0.0 * counts.hits
        return Weights(each, each)
