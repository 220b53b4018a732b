"""Which lambda of a curve to take, and what it is subject to."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unoic_cli.errors import UsageError
from unoic_cli.metrics import metric_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TERM = re.compile(r"\s*(\w[\w-]*)\s*(>=|<=|>|<)\s*(base\s*(?:([+-])\s*([\d.eE+-]+))?|[\d.eE+-]+)\s*")
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_EXPECTED = "expected comparisons like miou>=0.8 or acc>=base-0.005, joined by and"
_UNQUOTED = f"{_EXPECTED}, and quoted for the shell: --subject-to 'acc>=0.8'"


@dataclass(frozen=True)
class Plateau:
    """A run of lattice points with the best value.

    Attributes
    ----------
    first, last, middle : int
        Indices; the middle one (the lower of two) is chosen.
    value : float
        The best value.
    """

    first: int
    last: int
    middle: int
    value: float


def best_plateau(values: NDArray[np.float64], lams: NDArray[np.float64]) -> Plateau:
    """The widest run of points with the largest value; of equally wide ones, that nearest to lambda = 0.

    Examples
    --------
    >>> import numpy as np
    >>> best_plateau(np.array([0.5, 0.7, 0.7, 0.7, 0.6]), np.arange(5.0))
    Plateau(first=1, last=3, middle=2, value=0.7)
    """
    import numpy as np

    top = np.nanmax(values)
    best = np.concatenate([[False], values == top, [False]])
    edges = np.flatnonzero(best[1:] != best[:-1])
    runs = [(int(first), int(stop) - 1) for first, stop in zip(edges[::2], edges[1::2], strict=True)]
    first, last = min(runs, key=lambda run: (run[0] - run[1], abs(lams[(run[0] + run[1]) // 2])))
    return Plateau(first, last, (first + last) // 2, float(top))


@dataclass(frozen=True)
class Constraint:
    """One comparison: ``metric >= value`` or ``metric >= base + value``."""

    metric: str
    comparison: str
    relative: bool
    value: float

    def holds(self, values: NDArray[np.float64], base: float) -> NDArray[np.bool_]:
        """Where on a curve of the metric the comparison holds."""
        holds: NDArray[np.bool_] = _COMPARE[self.comparison](values, base + self.value if self.relative else self.value)
        return holds

    def __str__(self) -> str:
        bound = f"{self.value:g}" if not self.relative else f"base{self.value:+g}" if self.value else "base"
        return f"{self.metric}{self.comparison}{bound}"


def parse_constraints(text: str) -> tuple[Constraint, ...]:
    """Comparisons joined by ``and``.

    Raises
    ------
    UsageError
        It does not read as comparisons, or names an unknown metric.

    Examples
    --------
    >>> [str(c) for c in parse_constraints("miou>=0.8 and acc >= base - 0.005")]
    ['miou>=0.8', 'acc>=base-0.005']
    """
    constraints = []
    for part in re.split(r"\s+and\s+", text.strip()):
        match = _TERM.fullmatch(part)
        if not match:
            raise UsageError("--subject-to", f"{part!r}", _EXPECTED if re.search("[<>]", part) else _UNQUOTED)
        name, comparison, bound, sign, offset = match.groups()
        name = metric_name(name, "--subject-to")
        relative = bound.startswith("base")
        try:
            value = float(f"{sign or ''}{offset or 0}") if relative else float(bound)
        except ValueError:
            raise UsageError(
                "--subject-to", f"the bound {bound!r}", "expected a number, base, or base plus or minus a number"
            ) from None
        constraints.append(Constraint(name, comparison, relative, value))
    return tuple(constraints)
