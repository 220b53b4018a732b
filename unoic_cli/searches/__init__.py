"""Search strategies for lambda: one file each; this registry is the only other place that knows their names.

A strategy is a generator ``search(problem, lattice)`` that returns a `Found`. It asks the problem for counts and
never sees the data; what the counts are counted from is not its business.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from unoic_cli.calibrations.lattice import Lattice
from unoic_cli.metrics import Counted, Counts, Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
Asking: TypeAlias = Generator[Any, Any, T]
"""Has to ask for reads of the data on its way to a T."""

METHODS = {"path": "path", "grid": "grid", "paper": "paper", "paper-printed": "paper_printed"}
"""Names of the strategies, and their modules."""


@dataclass(frozen=True)
class Curve:
    """Counts at some lambdas.

    Attributes
    ----------
    lams : (G,) float64
        Ascending.
    counts : Counts
        (F, G, K), per fold.
    beside : mapping of Recipe to dict of str to int64
        (F, G, ...): what other recipes counted there.
    """

    lams: NDArray[np.float64]
    counts: Counts
    beside: Mapping[Recipe, Mapping[str, NDArray[np.int64]]] = field(default_factory=dict)

    @classmethod
    def joined(cls, curves: Sequence[Curve]) -> Curve:
        """Curves of the same units, one behind the other."""
        import numpy as np

        beside = {
            recipe: {name: np.concatenate([curve.beside[recipe][name] for curve in curves], axis=1) for name in arrays}
            for recipe, arrays in curves[0].beside.items()
        }
        return cls(
            np.concatenate([curve.lams for curve in curves]),
            Counts(
                np.concatenate([curve.counts.hits for curve in curves], axis=1),
                np.concatenate([curve.counts.predicted for curve in curves], axis=1),
                curves[0].counts.support,
            ),
            beside,
        )

    def take(self, indices: Sequence[int]) -> Curve:
        """Some points of it."""
        at = list(indices)
        counts = Counts(self.counts.hits[:, at], self.counts.predicted[:, at], self.counts.support)
        beside = {recipe: {name: one[:, at] for name, one in arrays.items()} for recipe, arrays in self.beside.items()}
        return Curve(self.lams[at], counts, beside)

    def pooled(self, folds: Sequence[int] | None = None) -> Counted:
        """What was counted at its points, (G, ...), in some folds (all by default) together."""
        chosen = slice(None) if folds is None else list(folds)
        counts = (part[chosen].sum(0) for part in (self.counts.hits, self.counts.predicted, self.counts.support))
        beside = {
            recipe: {name: one[chosen].sum(0) for name, one in arrays.items()} for recipe, arrays in self.beside.items()
        }
        return Counted(Counts(*counts), beside)


def first_of_runs(arrays: Sequence[NDArray[Any]], changed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """For every point of a curve, (G,), the first of those before it at which all arrays, (G, ...), are the same.

    Parameters
    ----------
    arrays : sequence of (G, ...) arrays
    changed : (G,) bool, optional
        Points at which something else changes.

    Examples
    --------
    >>> import numpy as np
    >>> first_of_runs([np.array([3, 3, 4, 4, 4])]).tolist()
    [0, 0, 2, 2, 2]
    """
    import numpy as np

    found = np.zeros(len(arrays[0]), dtype=bool) if changed is None else changed.copy()
    found[:1] = True
    for array in arrays:
        found[1:] |= (array[1:] != array[:-1]).any(axis=tuple(range(1, array.ndim)))
    return np.asarray(np.flatnonzero(found)[np.cumsum(found) - 1])


@dataclass(frozen=True)
class Found:
    """What a search looked at.

    Attributes
    ----------
    curve : Curve
        Everything it evaluated.
    evaluations, reads : int
        Single-lambda evaluations made, and passes over the data.
    choice : int or None
        Of strategies that do not look everywhere: chosen index into the curve. None: its best plateau.
    notes : tuple of str
        What is worth saying.
    """

    curve: Curve
    evaluations: int
    reads: int
    choice: int | None = None
    notes: tuple[str, ...] = ()


class Problem(Protocol):
    """What a strategy may ask for."""

    def path(self, lattice: Lattice) -> Asking[Curve]:
        """Every lattice point from one read, by the lambda path."""
        ...

    def points(self, lams: Sequence[float]) -> Asking[Curve]:
        """These lambdas, evaluated plainly in one read."""
        ...

    def objective(self, curve: Curve) -> NDArray[np.float64]:
        """The value to maximise at every point of a curve, (G,); -inf where a constraint fails."""
        ...


def method(name: str) -> Callable[[Problem, Lattice], Asking[Found]]:
    """The strategy of that name."""
    module = importlib.import_module(f"unoic_cli.searches.{METHODS[name]}")
    search: Callable[[Problem, Lattice], Asking[Found]] = module.search
    return search
