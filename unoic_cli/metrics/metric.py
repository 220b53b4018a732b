"""What a metric is: a name for what counters are worth. The files beside this one are the metrics, one each."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, get_args

from unoic_cli.errors import UsageError
from unoic_cli.metrics.root import Root
from unoic_cli.tallies.counts import Counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.kernels.lines import Lines
    from unoic_cli.tallies.tally import Tally

Exact: TypeAlias = "Fraction | Root"
"""A value without any rounding."""

Absent = Literal["reference", "truth-only", "zero"]
ABSENT: tuple[Absent, ...] = get_args(Absent)
ABSENT_RULES: dict[Absent, str] = {
    "reference": "classes absent from truth and prediction are left out; "
    "in miou and f1 a class that is only predicted counts 0",
    "truth-only": "only classes present in the truth are averaged",
    "zero": "every class is averaged; absent ones count 0 (in specificity 1)",
}
SHOTS = (20, 100)
"""Training samples: classes of fewer than the first are few-shot, of more than the second many-shot."""


@dataclass(frozen=True)
class Rules:
    """What metrics are told beside what was counted.

    Attributes
    ----------
    absent : {"reference", "truth-only", "zero"}
        Which classes are averaged; see `ABSENT_RULES`.
    ignored : tuple of int
        Classes in [0, K) whose units are left out (``--ignore-index``): they enter no mean. Units of other classes
        that are predicted as one of them are wrong all the same.
    training : tuple of float or None
        (K,) training samples of each class, where they are known.
    shots : tuple of int
        See `SHOTS`.
    """

    absent: Absent = "reference"
    ignored: tuple[int, ...] = ()
    training: tuple[float, ...] | None = None
    shots: tuple[int, int] = SHOTS


class Decider(Protocol):
    """How units are decided: a calibration made ready for data (`unoic_cli.resolve.decider.Decider`)."""

    @property
    def linear(self) -> bool:
        """Whether scores are lines in lambda."""
        ...

    @property
    def rule(self) -> Any:
        """The fusion, where they are not (`unoic_cli.calibrations.fuser.Rule`)."""
        ...

    def point(self, lam: float) -> Lines:
        """Kernel tables of one lambda."""
        ...


class Recipe(Protocol):
    """What is counted beside predictions. Equal recipes are counted once, for all metrics that need them."""

    @property
    def on_path(self) -> bool:
        """Whether `along` counts it; else it is counted at single lambdas."""
        ...

    @property
    def any_scores(self) -> bool:
        """Whether it can be counted where scores are no lines in lambda."""
        ...

    def along(self, lines: Lines, n_tables: int) -> Tally:
        """A tally of every lattice point from one visit."""
        ...

    def at(self, decider: Decider, lams: Sequence[float], n_tables: int) -> Tally:
        """A tally of single lambdas."""
        ...

    def arrays(self, tally: Any) -> dict[str, NDArray[np.int64]]:
        """What it counted, (F, G, ...) or (F, 1, ...) for F tables and G points."""
        ...


@dataclass(frozen=True)
class Counted:
    """What was counted at the points of a curve, for all tables together.

    Attributes
    ----------
    counts : Counts
        (..., K); the axes before the class are the points.
    beside : mapping of Recipe to dict of str to int64
        What other recipes counted, (G, ...).
    """

    counts: Counts
    beside: Mapping[Recipe, Mapping[str, NDArray[np.int64]]] = field(default_factory=dict)

    def at(self, i: Any) -> Counted:
        """One point of a curve of G, or some."""
        import numpy as np

        beside = {
            recipe: {name: array[np.minimum(i, len(array) - 1)] for name, array in arrays.items()}
            for recipe, arrays in self.beside.items()
        }
        support = self.counts.support.reshape(-1, self.counts.support.shape[-1])[0]
        return Counted(Counts(self.counts.hits[i], self.counts.predicted[i], support), beside)


class Weights(NamedTuple):
    """The derivatives of a metric: ``u_i = [p_i = y_i] hit[y_i] - predicted[p_i]`` for unit i of class y_i.

    Attributes
    ----------
    hit, predicted : (K,) float64
        Of a unit more of a class that is predicted right, and of one more that is predicted as it (subtracted).
    """

    hit: NDArray[np.float64]
    predicted: NDArray[np.float64]


class Metric:
    """A metric. A subclass in a file of its own is all that there is to add.

    Two metrics of one name are equal.
    """

    NAME: ClassVar[str]
    """On the command line and in JSON."""
    TITLE: ClassVar[str]
    """In tables: the field's spelling."""
    ALIASES: ClassVar[tuple[str, ...]] = ()
    """Otherwise: whatever the case, and with spaces, hyphens, underscores or nothing between words."""
    HELP: ClassVar[str]
    """In one line."""
    HIGHER: ClassVar[bool] = True
    """Whether more is better."""
    PERCENT: ClassVar[bool] = True
    """Whether tables show it in percent."""
    RECIPE: ClassVar[Recipe | None] = None
    """What it needs beside the counts of predictions, which every command has."""
    BY_TRAINING: ClassVar[bool] = False
    """Whether it must know how many samples of each class were trained on."""
    HITS_ALONE: ClassVar[bool] = False
    """Whether wrong predictions are all the same to it."""

    @property
    def name(self) -> str:
        """Its name, with what it is told."""
        return self.NAME

    @property
    def title(self) -> str:
        """Its title, with what it is told."""
        return self.TITLE

    @property
    def recipe(self) -> Recipe | None:
        """See `RECIPE`."""
        return self.RECIPE

    @property
    def among(self) -> int | None:
        """N of the share of units whose label is among the N best classes; None: it is no such metric."""
        return None

    @property
    def has_errors(self) -> bool:
        """Whether its standard errors are known: of metrics of what is decided, not of those of probabilities."""
        return self.recipe is None or self.among is not None

    @classmethod
    def called(cls, folded: str) -> Metric | None:
        """The metric of a name, `folded`; None for that of another one."""
        return cls() if folded in map(fold, (cls.NAME, *cls.ALIASES)) else None

    def check(self, option: str, n_classes: int) -> None:
        """Refuse data that it says nothing about.

        Raises
        ------
        UsageError
            Its value is always the same.
        """

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """The value at every position of the leading axes; NaN where there is none."""
        raise NotImplementedError

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """The value at one point without any rounding; None where there is none, or an infinite one."""
        raise NotImplementedError

    def moved(self, here: Counted, there: Counted) -> int | None:
        """How many units at least are predicted otherwise at another point, as far as it can tell; None: it cannot."""
        import numpy as np

        if self.recipe is not None:
            return None
        hits = int(np.abs(here.counts.hits - there.counts.hits).sum())
        if self.HITS_ALONE:
            return hits
        return max(hits, -(-int(np.abs(here.counts.predicted - there.counts.predicted).sum()) // 2))

    def weights(self, counted: Counted, rules: Rules) -> Weights | None:
        """What one unit more would change at a point: of a right prediction, and of any; None: no formula is known."""
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metric) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<metric {self.name}: {self.HELP}>"


class ClassMean(Metric):
    """A mean over classes of a ratio of counts, which each class has by itself, too: ``recall[3]``."""

    RATIO: ClassVar[str]
    """The ratio's name."""
    RATIO_ALIASES: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def ratio_called(cls, folded: str) -> bool:
        """Whether the ratio has a name."""
        return folded in map(fold, (cls.RATIO, *cls.RATIO_ALIASES, cls.NAME, *cls.ALIASES))

    def ratios(self, counts: Counts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numerators and denominators, (..., K); the denominator may be zero."""
        raise NotImplementedError

    def averaged(self, counts: Counts, rules: Rules) -> NDArray[np.bool_]:
        """The classes, (..., K), that enter the mean."""
        return averaged(counts, rules, predicted=True)

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """The mean at every position of the leading axes; NaN of nothing."""
        return class_mean(*self.ratios(counted.counts), self.averaged(counted.counts, rules))

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """The mean at one point, as a fraction."""
        return exact_mean(*self.ratios(counted.counts), self.averaged(counted.counts, rules))

    def slopes(self, counts: Counts) -> Weights | None:
        """The derivatives of each class's own ratio; None: no formula is known."""
        return None

    def weights(self, counted: Counted, rules: Rules) -> Weights | None:
        """Those of the ratios, over the classes that are averaged."""
        import numpy as np

        found, on = self.slopes(counted.counts), self.averaged(counted.counts, rules)
        if found is None:
            return None
        n = np.maximum(on.sum(axis=-1, keepdims=True), 1)
        return Weights(*(np.where(on, part, 0.0) / n for part in found))


class OfClass(Metric):
    """The ratio of one class.

    Parameters
    ----------
    mean : ClassMean
        Whose ratio it is.
    k : int
        The class.
    label : str
        What it is called.
    """

    HELP = "The ratio of one class."

    def __init__(self, mean: ClassMean, k: int, label: str) -> None:
        self.mean, self.k, self.label = mean, k, label

    @property
    def name(self) -> str:
        """``recall[melanoma]``."""
        return f"{self.mean.RATIO}[{self.label}]"

    title = name

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """NaN where the ratio has no denominator, and of an ignored class."""
        import numpy as np

        over, under = (np.broadcast_to(part, counted.counts.hits.shape) for part in self.mean.ratios(counted.counts))
        over, under = over[..., self.k], under[..., self.k]
        counts = (under > 0) & (self.k not in rules.ignored)
        return np.asarray(np.divide(over, under, out=np.full(over.shape, np.nan), where=counts))

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """None where the ratio has no denominator, and of an ignored class."""
        over, under = (part[..., self.k] for part in self.mean.ratios(counted.counts))
        return Fraction(int(over), int(under)) if under and self.k not in rules.ignored else None

    def weights(self, counted: Counted, rules: Rules) -> Weights | None:
        """Those of the one ratio."""
        import numpy as np

        found = self.mean.slopes(counted.counts)
        if found is None:
            return None
        on = np.arange(found.hit.shape[-1]) == self.k
        return Weights(*(np.where(on, part, 0.0) for part in found))


@functools.lru_cache(1024)
def fold(name: str) -> str:
    """A name without what people write differently.

    Examples
    --------
    >>> fold("Mean-IoU") == fold("mean_iou")
    True
    """
    return re.sub(r"[-_\s]+", "", name.casefold())


def rounding(n_classes: int, values: Any = 1.0) -> Any:
    """Two values that lie nearer than this may be equal: rounding alone can part them so far."""
    import numpy as np

    return 1e-15 * (n_classes + 8) * np.maximum(1.0, np.abs(values))


def averaged(counts: Counts, rules: Rules, *, predicted: bool) -> NDArray[np.bool_]:
    """The classes, (..., K), that a mean takes: if `predicted`, by ``reference`` also those that are only predicted."""
    import numpy as np

    present = np.broadcast_to(counts.support, counts.hits.shape) > 0
    asked = np.ones(present.shape[-1], dtype=bool)
    asked[list(rules.ignored)] = False
    if rules.absent == "zero":
        return np.broadcast_to(asked, present.shape)
    return (present | (counts.predicted > 0) if predicted and rules.absent == "reference" else present) & asked


def class_mean(numerator: Any, denominator: Any, counted: Any) -> NDArray[np.float64]:
    """Mean over classes of numerator / denominator where `counted`; NaN where no class counts."""
    import numpy as np

    ratio = np.divide(
        numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape), where=denominator > 0
    )
    # a running sum adds one class after another: a class that counts 0 or is left out cannot change the rounding
    total = np.cumsum(np.where(counted, ratio, 0.0), axis=-1)[..., -1]
    n = counted.sum(axis=-1)
    return np.asarray(np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0))


def exact_mean(numerator: Any, denominator: Any, counted: Any) -> Fraction | None:
    """The same of one point as a fraction; None where no class counts."""
    n = int(counted.sum())
    return exact_sum(numerator, denominator, counted) / n if n else None


def exact_sum(numerator: Any, denominator: Any, counted: Any) -> Fraction:
    """Sum over classes of numerator / denominator where `counted` and the denominator is positive."""
    import numpy as np

    own = counted & (denominator > 0)
    denominators, places = np.unique(denominator[own], return_inverse=True)
    sums = [0] * denominators.size
    for place, value in zip(places.tolist(), numerator[own].tolist(), strict=True):
        sums[place] += value
    return _added([Fraction(a, b) for a, b in zip(sums, denominators.tolist(), strict=True)])


def _added(terms: list[Fraction]) -> Fraction:
    """The sum of fractions, in halves: their denominators grow only at the end."""
    while len(terms) > 1:
        paired = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = [*paired, *terms[len(paired) * 2 :]]
    return terms[0] if terms else Fraction(0)


def share(over: Any, under: Any) -> NDArray[np.float64]:
    """Ratios of counts, 0 where there is no denominator."""
    import numpy as np

    wide = np.zeros(np.broadcast(over, under).shape)
    return np.asarray(np.divide(over, under, out=wide, where=np.asarray(under) > 0))


def sum_of_products(a: Any, b: Any) -> Any:
    """Sum over classes of the products of counts, as Python's integers, which do not overflow."""
    import numpy as np

    a, b = np.broadcast_arrays(a, b)
    small = int(max(a.sum(axis=-1).max(initial=0), b.sum(axis=-1).max(initial=0))) < 1 << 31
    # of objects the sum over a single axis is an integer, and no array
    return np.asarray(((a if small else a.astype(object)) * b).sum(axis=-1)).astype(object)


def quotient(over: Any, under: Any) -> NDArray[np.float64]:
    """Integers of any size, divided and rounded once; NaN where the denominator is zero."""
    import numpy as np

    over, under = np.broadcast_arrays(over, under)
    pairs = zip(over.ravel().tolist(), under.ravel().tolist(), strict=True)
    return np.array([a / b if b else np.nan for a, b in pairs]).reshape(over.shape)


def unknown_class(option: str, text: str, n_classes: int, names: Sequence[str] | None) -> UsageError:
    """The error for a class that there is not."""
    from unoic_cli.calls import nearest

    near = None if names is None else nearest(text, names)
    meant = "" if near is None else f"did you mean {near}? "
    named = " (the data does not name its classes: class_names would)" if names is None else ", or the name of one"
    return UsageError(option, f"the unknown class {text!r}", f"{meant}expected a number below {n_classes}{named}")
