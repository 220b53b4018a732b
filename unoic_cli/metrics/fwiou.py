"""Frequency weighted intersection over union."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.metrics.metric import Counted, Exact, Metric, Rules, Weights, exact_sum, share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FrequencyWeightedIoU(Metric):
    """sum_k (n_k / N) TP_k / (n_k + p_k - TP_k)."""

    NAME, TITLE = "fwiou", "fwIoU"
    ALIASES = ("frequency weighted IoU", "frequency weighted intersection over union", "FW IU", "weighted jaccard")
    HELP = "Intersection over union, weighted by the classes' frequencies."

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """NaN of nothing."""
        import numpy as np

        hits, predicted, support = counted.counts.hits, counted.counts.predicted, counted.counts.support
        union = support + predicted - hits
        ious = np.divide(hits, union, out=np.zeros(union.shape), where=union > 0)
        n = np.broadcast_to(support, hits.shape).sum(axis=-1)
        total = np.cumsum(support * ious, axis=-1)[..., -1]
        return np.asarray(np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0))

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """None of nothing."""
        hits, predicted, support = counted.counts.hits, counted.counts.predicted, counted.counts.support
        n = int(support.sum())
        weighted = support.astype(object) * hits
        return exact_sum(weighted, support + predicted - hits, support > 0) / n if n else None

    def weights(self, counted: Counted, rules: Rules) -> Weights:
        """n_k / N times those of the IoU."""
        hits, predicted, support = counted.counts.hits, counted.counts.predicted, counted.counts.support
        union = support + predicted - hits
        ratio, frequency = share(hits, union), share(support, support.sum(axis=-1, keepdims=True))
        return Weights(frequency * share(1.0 + ratio, union), frequency * share(ratio, union))
