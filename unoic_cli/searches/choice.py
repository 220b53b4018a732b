"""Which lambda of a curve to take, and what it is subject to."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from unoic_cli.errors import UsageError
from unoic_cli.metrics import Exact, Metric, find

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

CLASS = r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]"
"""A class in brackets, whose name may hold brackets, too."""
_TERM = re.compile(
    rf"\s*(\w[\w-]*(?:\s*{CLASS})?)\s*(>=|<=|>|<)\s*(base\s*(?:([+-])\s*([\d.eE+-]+%?))?|[\d.eE+-]+%?)\s*"
)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_REQUIRED = re.compile(rf"\s*(gain\.)?(\w[\w-]*(?:\s*{CLASS})?)(?:\.(low|high))?(\s*(?:>=|<=|>|<).*)", re.DOTALL)
_JOINT = re.compile(rf"((?:{CLASS}|[^,\[])+?)(?:\s+and\s+|,|$)")
_EXPECTED = "expected comparisons like miou>=0.8, acc>=base-0.005 or recall[CLASS]>=0.5, joined by and"
_REQUIRE = "expected comparisons like macc>=0.7, acc>=base-0.005, gain.macc>0 or gain.macc.low>0, joined by and"
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


def settled(values: NDArray[np.float64], near: float, exactly: Callable[[int], Exact | None]) -> NDArray[np.float64]:
    """Values of which the best are told apart by integers.

    Parameters
    ----------
    values : (G,) float64
        Rounded; -inf where there is none.
    near : float
        Values that differ by less may be equal.
    exactly : callable
        The fraction behind a point's value.

    Returns
    -------
    (G,) float64
        The same, but those near the best are equal where their fractions are, and in the order of these.

    Examples
    --------
    >>> import numpy as np
    >>> parts = [Fraction(1, 3), Fraction(3, 10), Fraction(3, 9)]
    >>> rough = np.array([1 / 3, 0.3, np.nextafter(1 / 3, 1)])
    >>> settled(rough, 1e-14, lambda i: parts[i]).tolist()
    [0.3333333333333333, 0.3, 0.3333333333333333]
    """
    import numpy as np

    top = values.max(initial=-np.inf)
    if not np.isfinite(top):
        return values
    places = np.flatnonzero(values >= top - near).tolist()
    fractions = [exactly(i) for i in places]
    rounded: dict[Exact | None, float] = {None: -np.inf}
    above = np.inf
    for fraction in sorted({one for one in fractions if one is not None}, reverse=True):
        above = min(float(fraction), float(np.nextafter(above, -np.inf)))  # one float for one fraction
        rounded[fraction] = above
    found = values.copy()
    found[places] = [rounded[fraction] for fraction in fractions]
    return found


def run_of(values: NDArray[np.float64], index: int) -> Plateau:
    """The run of equal values around a point, which is the one to take."""
    first = last = index
    while first > 0 and values[first - 1] == values[index]:
        first -= 1
    while last + 1 < values.size and values[last + 1] == values[index]:
        last += 1
    return Plateau(first, last, index, float(values[index]))


def best_plateau(values: NDArray[np.float64], lams: NDArray[np.float64]) -> Plateau:
    """The run of most points with the largest value; of equally wide ones that nearest to 0, of two such the lower.

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

    metric: Metric
    comparison: str
    relative: bool
    value: float

    def holds(
        self, values: NDArray[np.float64], base: Exact | None, near: NDArray[np.float64],
        exactly: Callable[[int], Exact | None],
    ) -> NDArray[np.bool_]:  # fmt: skip
        """Where on a curve of the metric the comparison holds; where a value is near the bound, fractions decide."""
        import numpy as np

        compare = _COMPARE[self.comparison]
        if self.relative and base is None:
            return np.zeros(values.shape, dtype=np.bool_)
        bound = Fraction(repr(self.value)) + (base if self.relative and base is not None else Fraction(0))
        holds: NDArray[np.bool_] = compare(values, float(bound))
        for i in np.flatnonzero(np.abs(values - float(bound)) <= near).tolist():
            value = exactly(i)
            holds[i] = value is not None and compare(value, bound)
        return holds

    @property
    def allows(self) -> float:
        """How far the metric may be worse than it is, where the comparison says that."""
        return max(0.0, -self.value if self.metric.HIGHER else self.value) if self.relative else 0.0

    def __str__(self) -> str:
        bound = f"{self.value:g}" if not self.relative else f"base{self.value:+g}" if self.value else "base"
        return f"{self.metric.name}{self.comparison}{bound}"


def parse_constraints(
    text: str, n_classes: int = 0, class_names: Sequence[str] | None = None
) -> tuple[Constraint, ...]:
    """Comparisons joined by ``and``, or by commas.

    Parameters
    ----------
    text : str
    n_classes, class_names
        See `unoic_cli.metrics.find`.

    Raises
    ------
    UsageError
        It does not read as comparisons, or names an unknown metric, or class.

    Examples
    --------
    >>> [str(c) for c in parse_constraints("miou>=0.8 and acc >= base - 0.005")]
    ['miou>=0.8', 'acc>=base-0.005']
    >>> [str(c) for c in parse_constraints("acc>=base-0.5% and miou>=61.3%")]
    ['acc>=base-0.005', 'miou>=0.613']
    >>> [str(c) for c in parse_constraints("recall[car, red]>=0.8, IoU[1]>base", 2, ("car, red", "car and bus"))]
    ['recall[car, red]>=0.8', 'iou[car and bus]>base']
    """
    return tuple(_constraint(part, n_classes, class_names) for part in _parts(text.strip()))


@dataclass(frozen=True)
class Requirement:
    """What a result must show: a comparison of a metric, of its gain, or of an end of the gain's interval.

    Attributes
    ----------
    constraint : Constraint
    of : {"value", "gain", "low", "high"}
    """

    constraint: Constraint
    of: str = "value"

    @property
    def metric(self) -> Metric:
        """What is compared."""
        return self.constraint.metric

    @property
    def name(self) -> str:
        """What it is called: ``macc``, ``gain.macc``, ``gain.macc.low``."""
        name = self.metric.name
        return {"value": name, "gain": f"gain.{name}"}.get(self.of, f"gain.{name}.{self.of}")

    def __str__(self) -> str:
        return self.name + str(self.constraint).removeprefix(self.metric.name)

    def meets(self, value: float | None, base: float | None = None) -> Met:
        """Whether a value (None: there is none) meets it; base is that of the scores as they are."""
        one = self.constraint
        missing = value is None or math.isnan(value) or (one.relative and (base is None or math.isnan(base)))
        if value is None or missing:
            return Met(str(self), self.name, None, False)
        bound = one.value + (base if one.relative and base is not None else 0.0)
        near = abs(value - bound) <= 1e-12 * max(1.0, abs(bound))  # equal but for the rounding of decimals
        return Met(
            str(self), self.name, value, ("=" in one.comparison) if near else _COMPARE[one.comparison](value, bound)
        )


@dataclass(frozen=True)
class Met:
    """What came of a requirement.

    Attributes
    ----------
    term, name : str
        ``gain.macc>0``, and what it compares: ``gain.macc``.
    value : float or None
        None where there is none.
    holds : bool
    """

    term: str
    name: str
    value: float | None
    holds: bool

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"term": self.term, "value": self.value, "holds": self.holds}


def parse_requirements(
    text: str, n_classes: int = 0, class_names: Sequence[str] | None = None
) -> tuple[Requirement, ...]:
    """Requirements joined by ``and``, or by commas.

    Parameters
    ----------
    text : str
    n_classes, class_names
        See `unoic_cli.metrics.find`.

    Raises
    ------
    UsageError
        It does not read as comparisons, or names an unknown metric, or class.

    Examples
    --------
    >>> [str(one) for one in parse_requirements("mAcc>=0.7 and gain.macc>0, gain.miou.low >= -0.01")]
    ['macc>=0.7', 'gain.macc>0', 'gain.miou.low>=-0.01']
    """
    return tuple(_requirement(part, n_classes, class_names) for part in _parts(text.strip()))


def _requirement(part: str, n_classes: int, class_names: Sequence[str] | None) -> Requirement:
    match = _REQUIRED.fullmatch(part)
    if not match:
        expected = _REQUIRE if re.search("[<>]", part) else f"{_REQUIRE}, and quoted for the shell"
        raise UsageError("--require", f"{part!r}", expected)
    gain, name, end, rest = match.groups()
    one = _constraint(name + rest, n_classes, class_names, "--require", _REQUIRE)
    if end and not gain:
        raise UsageError("--require", f"{part.strip()!r}", f"expected gain.{name}.{end}, an end of the gain's interval")
    if gain and one.relative:
        raise UsageError("--require", f"{part.strip()!r}", "expected a number: a gain is over base already")
    if one.metric.recipe is not None and end:
        found = f"{one.metric.name}, whose gain has no interval"
        raise UsageError("--require", found, f"expected gain.{name}, or a metric of predictions")
    return Requirement(one, end or ("gain" if gain else "value"))


def _parts(text: str) -> list[str]:
    """Comparisons as they are written; what does not read as some is one part."""
    found = _JOINT.findall(text)
    return found if found and not _JOINT.sub("", text) and not text.endswith(",") else [text]


def _number(text: str, metric: Metric) -> float:
    """A bound as it is typed: of metrics that tables show in percent also in percent."""
    if not text.endswith("%"):
        return float(text)
    if not metric.PERCENT:
        raise ValueError
    return float(Decimal(text.removesuffix("%")) / 100)


def _constraint(
    part: str, n_classes: int, class_names: Sequence[str] | None, option: str = "--subject-to",
    expected: str = _EXPECTED,
) -> Constraint:  # fmt: skip
    match = _TERM.fullmatch(part)
    if not match:
        raise UsageError(option, f"{part!r}", expected if re.search("[<>]", part) else _UNQUOTED)
    name, comparison, bound, sign, offset = match.groups()
    metric = find(name, option, n_classes, class_names)
    relative = bound.startswith("base")
    try:
        value = _number(f"{sign or ''}{offset or 0}" if relative else bound, metric)
        if not math.isfinite(value):
            raise ValueError
    except (ValueError, ArithmeticError):
        raise UsageError(
            option, f"the bound {bound!r}", "expected a number, base, or base plus or minus a number"
        ) from None
    return Constraint(metric, comparison, relative, value)
