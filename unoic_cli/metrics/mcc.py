"""Matthews correlation coefficient."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from unoic_cli.metrics.metric import Counted, Exact, Metric, Rules, Weights, quotient, share, sum_of_products
from unoic_cli.metrics.root import Root

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Matthews(Metric):
    """R_K = (N sum_k TP_k - sum_k n_k p_k) / sqrt((N^2 - sum_k n_k^2) (N^2 - sum_k p_k^2)) of K classes."""

    NAME, TITLE = "mcc", "MCC"
    ALIASES = ("matthews", "matthews corrcoef", "matthews correlation coefficient", "phi coefficient", "R_K")
    HELP = "Matthews correlation coefficient (Gorodkin's R_K for K classes)."
    PERCENT = False

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """0 where all units are, or are predicted as, one class."""
        import numpy as np

        over, truth, predicted = _parts(counted)
        scale = np.sqrt(np.asarray(truth, dtype=np.float64)) * np.sqrt(np.asarray(predicted, dtype=np.float64))
        found = quotient(over, np.where(scale > 0, scale, 1.0))
        return np.where(counted.counts.support.sum(axis=-1) > 0, found, np.nan)

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """By sign and square."""
        over, truth, predicted = (int(part) for part in _parts(counted))
        if not counted.counts.support.any():
            return None
        return Root(Fraction(over * abs(over), truth * predicted or 1), 2)

    def weights(self, counted: Counted, rules: Rules) -> Weights:
        """N / S of a hit, (n_k - p_k A / B) / S of a prediction: A the covariance, B the predictions' variance."""
        import numpy as np

        counts = counted.counts
        over, truth, predicted = (np.asarray(part, dtype=np.float64)[..., None] for part in _parts(counted))
        scale = np.sqrt(truth) * np.sqrt(predicted)
        n = counts.support.sum(axis=-1, keepdims=True)
        of_prediction = counts.support - counts.predicted * share(over, predicted)
        return Weights(np.zeros(counts.hits.shape) + share(n, scale), share(of_prediction, scale))


def _parts(counted: Counted) -> tuple[Any, Any, Any]:
    """The covariance of truth and prediction, and the variance of each, times N^2."""
    counts = counted.counts
    n, hits = counts.support.sum(axis=-1).astype(object), counts.hits.sum(axis=-1).astype(object)
    truth, predicted, both = (
        sum_of_products(*pair)
        for pair in (
            (counts.support, counts.support),
            (counts.predicted, counts.predicted),
            (counts.support, counts.predicted),
        )
    )
    return n * hits - both, n * n - truth, n * n - predicted
