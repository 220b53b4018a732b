"""Negative log-likelihood, averaged over classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unoic_cli.metrics.metric import Counted, Exact, Rules, class_mean, exact_mean
from unoic_cli.metrics.probabilities import ONE, OfProbabilities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BalancedNLL(OfProbabilities):
    """Mean over the classes of the truth of the mean of -log P(label) over the units of the class."""

    NAME, TITLE = "balanced-nll", "balanced NLL"
    ALIASES = ("balanced log loss", "balanced cross entropy", "class-balanced NLL", "macro NLL", "mean class NLL")
    HELP = "Negative log-likelihood of each class, averaged over classes."

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """Infinite where a label has probability zero; NaN of nothing."""
        import numpy as np

        assert self.RECIPE is not None
        arrays = counted.beside[self.RECIPE]
        ratios = class_mean(*_ratios(arrays, np.float64), arrays["support"] > 0)
        return np.where(arrays["zeros"].any(axis=-1), np.inf, ratios)

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """None of nothing, and where it is infinite."""
        assert self.RECIPE is not None
        arrays = counted.beside[self.RECIPE]
        return None if arrays["zeros"].any() else exact_mean(*_ratios(arrays, object), arrays["support"] > 0)


def _ratios(arrays: Any, kind: Any) -> tuple[Any, Any]:
    """Sums of the negative log-likelihood by class, and the units of the class, in units of 2**-40."""
    from unoic_cli.tallies.likelihood import gap_sums, whole

    sums = gap_sums(arrays["away"], kind) + whole(arrays["logs"], kind)
    return sums, arrays["support"].astype(kind) * ONE
