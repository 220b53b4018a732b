"""Cohen's kappa."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from unoic_cli.metrics.metric import Counted, Exact, Metric, Rules, Weights, quotient, share, sum_of_products

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Kappa(Metric):
    """(p_o - p_e) / (1 - p_e), p_o the accuracy and p_e = sum_k n_k p_k / N^2 that of chance."""

    NAME, TITLE = "kappa", "kappa"
    ALIASES = ("Cohen's kappa", "Cohen kappa", "cohen kappa score")
    HELP = "Cohen's kappa: agreement beyond chance."
    PERCENT = False

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """Of integers, divided once: nothing cancels."""
        return quotient(*_parts(counted))

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """None where truth and predictions are one and the same class."""
        over, under = (int(part) for part in _parts(counted))
        return Fraction(over, under) if under else None

    def weights(self, counted: Counted, rules: Rules) -> Weights:
        """N / D of a hit, n_k (1 - kappa) / D of a prediction, D = N^2 - sum_k n_k p_k."""
        import numpy as np

        hits, support = counted.counts.hits, counted.counts.support
        over, under = (np.asarray(part, dtype=np.float64)[..., None] for part in _parts(counted))
        n = support.sum(axis=-1, keepdims=True)
        return Weights(np.zeros(hits.shape) + share(n, under), support * share(1.0 - share(over, under), under))


def _parts(counted: Counted) -> tuple[Any, Any]:
    """N sum_k TP_k - sum_k n_k p_k, and N^2 - sum_k n_k p_k."""
    counts = counted.counts
    n, hits = counts.support.sum(axis=-1).astype(object), counts.hits.sum(axis=-1).astype(object)
    chance = sum_of_products(counts.support, counts.predicted)
    return n * hits - chance, n * n - chance
