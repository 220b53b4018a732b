"""Mean intersection over union."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.metrics.metric import ClassMean, Weights, share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.tallies.counts import Counts


class MeanIoU(ClassMean):
    """Mean over classes of TP_k / (units of class k + predictions of class k - TP_k)."""

    NAME, TITLE, RATIO = "miou", "mIoU", "iou"
    ALIASES = (
        "mean IoU", "IoU", "macro IoU", "mean intersection over union", "jaccard", "jaccard macro", "macro jaccard",
        "jaccard index", "mean jaccard",
    )  # fmt: skip
    HELP = "Mean intersection over union (macro Jaccard)."

    def ratios(self, counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """TP over what is of the class or predicted as it."""
        return counts.hits, counts.support + counts.predicted - counts.hits

    def slopes(self, counts: Counts) -> Weights:
        """(1 + IoU) / D of a hit, IoU / D of a prediction, D the denominator."""
        over, under = self.ratios(counts)
        ratio = share(over, under)
        return Weights(share(1.0 + ratio, under), share(ratio, under))
