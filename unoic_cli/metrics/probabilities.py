"""What metrics of probabilities are counted from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from unoic_cli.metrics.metric import Counted, Decider, Exact, Metric, Recipe, Rules, quotient

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.kernels.lines import Lines
    from unoic_cli.tallies.tally import Tally

ONE = 1 << 40
"""1 in the fixed point of the sums."""


@dataclass(frozen=True)
class Probabilities:
    """Likelihood, Brier score and confidence of the calibrated posterior.

    Attributes
    ----------
    n_bins : int
        Equal-width bins of the confidence.
    """

    n_bins: int = 15
    on_path: ClassVar[bool] = False
    any_scores: ClassVar[bool] = True

    def along(self, lines: Lines, n_tables: int) -> Tally:
        """Exponentials know no path."""
        raise NotImplementedError

    def at(self, decider: Decider, lams: Sequence[float], n_tables: int) -> Tally:
        """Single lambdas."""
        import numpy as np

        from unoic_cli.tallies.likelihood import ConfidenceTally, FusedConfidenceTally

        if not decider.linear:
            return FusedConfidenceTally(decider.rule, lams, self.n_bins, n_tables)
        biases = np.array([bias_of(decider.point(lam)) for lam in lams])
        return ConfidenceTally(biases.shape[1], [1.0], self.n_bins, biases, n_tables, strict=False)

    def arrays(self, tally: Any) -> dict[str, NDArray[np.int64]]:
        """See `ConfidenceTally.arrays`."""
        return dict(tally.arrays())

    def bins(self, counted: Counted) -> list[dict[str, Any]]:
        """Reliability at one point: of the units whose largest probability lies in a bin, accuracy and its mean."""
        from unoic_cli.tallies.likelihood import whole

        arrays = counted.beside[self]
        found = zip(arrays["counted"].tolist(), arrays["hits"].tolist(), whole(arrays["confidences"]), strict=True)
        return [
            {
                "from": i / self.n_bins,
                "to": (i + 1) / self.n_bins,
                "count": n,
                "accuracy": hits / n if n else None,
                "confidence": int(sums) / (n * ONE) if n else None,
            }
            for i, (n, hits, sums) in enumerate(found)
        ]


def bias_of(lines: Lines) -> NDArray[np.float64]:
    """What is added to the scores: lambda * s; -inf where it is masked."""
    import numpy as np

    masked = np.isneginf(lines.bias0[: lines.n_classes])
    return np.where(masked, -np.inf, lines.lams[0] * lines.slope)


class OfProbabilities(Metric):
    """A mean over units of something in fixed point, less of which is better."""

    HIGHER = False
    PERCENT = False
    RECIPE: ClassVar[Recipe | None] = Probabilities()

    def sums(self, arrays: Any) -> Any:
        """Python's integers, in units of 2**-40: the sum at every point."""
        raise NotImplementedError

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """NaN of nothing."""
        assert self.RECIPE is not None
        arrays = counted.beside[self.RECIPE]
        return quotient(self.sums(arrays), arrays["support"].sum(axis=-1).astype(object) * ONE)

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """None of nothing."""
        assert self.RECIPE is not None
        arrays = counted.beside[self.RECIPE]
        n = int(arrays["support"].sum()) * ONE
        return Fraction(int(self.sums(arrays)), n) if n else None
