"""Negative log-likelihood."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from unoic_cli.metrics.metric import Counted, Exact, Rules, quotient
from unoic_cli.metrics.probabilities import ONE, OfProbabilities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class NegativeLogLikelihood(OfProbabilities):
    """Mean over units of -log P(label), in nats; infinite where a label has probability zero."""

    NAME, TITLE = "nll", "NLL"
    ALIASES = ("negative log-likelihood", "log loss", "cross entropy", "cross entropy loss", "CE")
    HELP = "Negative log-likelihood (log loss) in nats."

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """The label's gap to the largest score, and the logarithm of the sum that this gap is one term of."""
        import numpy as np

        assert self.RECIPE is not None
        arrays = counted.beside[self.RECIPE]
        gap, log_sum = _sums(arrays)
        n = arrays["support"].sum(axis=-1).astype(object) * ONE
        return np.where(arrays["zeros"].any(axis=-1), np.inf, quotient(gap, n) + quotient(log_sum, n))

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """None of nothing, and where it is infinite."""
        assert self.RECIPE is not None
        arrays = counted.beside[self.RECIPE]
        n = int(arrays["support"].sum()) * ONE
        return Fraction(int(sum(_sums(arrays))), n) if n and not arrays["zeros"].any() else None


def _sums(arrays: Any) -> tuple[Any, Any]:
    from unoic_cli.tallies.likelihood import gap_sums, whole

    return gap_sums(arrays["away"].sum(axis=-3)), whole(arrays["logs"].sum(axis=-2))
