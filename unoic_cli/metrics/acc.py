"""Overall accuracy."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from unoic_cli.metrics.metric import Counted, Exact, Metric, Rules, Weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Accuracy(Metric):
    """sum_k TP_k / N: the share of units that are predicted right."""

    NAME, TITLE = "acc", "acc"
    ALIASES = ("accuracy", "overall accuracy", "OA", "pixel accuracy", "aAcc", "micro accuracy", "accuracy score")
    HELP = "Overall (pixel) accuracy."
    HITS_ALONE = True

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """NaN of nothing."""
        import numpy as np

        hits = counted.counts.hits
        n = np.broadcast_to(counted.counts.support, hits.shape).sum(axis=-1)
        return np.asarray(np.divide(hits.sum(axis=-1), n, out=np.full(n.shape, np.nan), where=n > 0))

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """None of nothing."""
        n = int(counted.counts.support.sum())
        return Fraction(int(counted.counts.hits.sum()), n) if n else None

    def weights(self, counted: Counted, rules: Rules) -> Weights:
        """1 / N of a hit."""
        import numpy as np

        hits, n = counted.counts.hits, counted.counts.support.sum(axis=-1, keepdims=True)
        return Weights(np.zeros(hits.shape) + 1.0 / np.maximum(n, 1), np.zeros(hits.shape))
