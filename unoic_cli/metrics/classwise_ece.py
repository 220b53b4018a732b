"""Expected calibration error of every class's probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from unoic_cli.metrics.metric import Counted, Decider, Exact, Rules
from unoic_cli.metrics.probabilities import ONE, OfProbabilities, bias_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.kernels.lines import Lines
    from unoic_cli.tallies.tally import Tally


@dataclass(frozen=True)
class ClassProbabilities:
    """Probabilities of all classes against the labels.

    Attributes
    ----------
    n_bins : int
        Equal-width bins of each.
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

        from unoic_cli.tallies.classwise import ClasswiseTally

        if not decider.linear:
            none = np.empty((len(lams), 0))
            return ClasswiseTally(decider.rule.n_classes, self.n_bins, none, decider.rule, lams, n_tables)
        biases = np.array([bias_of(decider.point(lam)) for lam in lams])
        return ClasswiseTally(biases.shape[1], self.n_bins, biases, None, lams, n_tables)

    def arrays(self, tally: Any) -> dict[str, NDArray[np.int64]]:
        """See `ClasswiseTally.arrays`."""
        return dict(tally.arrays())


class ClasswiseCalibrationError(OfProbabilities):
    """Mean over all K classes of the sum over bins of |units of the class - sum of its probability| / N."""

    NAME, TITLE = "classwise-ece", "cw-ECE"
    ALIASES = (
        "class-wise calibration error",
        "static calibration error",
        "SCE",
        "cw-ECE",
        "marginal calibration error",
    )
    HELP = "Calibration error of each class's probability, in 15 bins, averaged over classes."
    PERCENT = True
    RECIPE = ClassProbabilities()

    def sums(self, arrays: Any) -> Any:
        """Of what the bins of all classes are off."""
        import numpy as np

        from unoic_cli.tallies.likelihood import whole

        return np.abs(arrays["hits"].astype(object) * ONE - whole(arrays["sums"])).sum(axis=(-2, -1))

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """NaN of nothing."""
        import numpy as np

        return np.asarray(super().values(counted, rules) / counted.counts.hits.shape[-1])

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """None of nothing."""
        found = super().exact(counted, rules)
        return None if found is None else found / counted.counts.hits.shape[-1]
