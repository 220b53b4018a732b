"""What a search is asked about: counts of the data at some lambdas, and what they are worth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.dataset import DataSet
from unoic_cli.folds import Folding
from unoic_cli.kernels.lines import make_lines
from unoic_cli.lattice import Lattice
from unoic_cli.metrics import NAMES, Absent, Counts, compute, exact, rounding, top_of
from unoic_cli.priors import Slopes
from unoic_cli.searches import Curve
from unoic_cli.searches.choice import Constraint, settled
from unoic_cli.steps import Steps, count
from unoic_cli.tallies.path import PathTally
from unoic_cli.tallies.top_k import TopKTally
from unoic_cli.tallies.units import UnitTally
from unoic_cli.tallies.viewed import ViewedTally
from unoic_cli.tasks.common import Options
from unoic_cli.tasks.modalities import Method
from unoic_cli.tasks.tables import Tables
from unoic_cli.view import View


@dataclass
class Problem:
    """The data and what is asked of it: counts for the searches, values for the choice.

    After the first read, `base` holds the scores as they are (one point; nothing is masked or rebalanced), and
    `anchors` the method at lambda 0 and 1.
    """

    data: DataSet
    method: Method
    metric: str
    constraints: tuple[Constraint, ...]
    absent: Absent
    top: int | None
    folds: Folding | None
    options: Options
    tables: Tables | None = None
    units: UnitTally | None = None
    base: Curve | None = None
    anchors: Curve | None = None

    @property
    def n_tables(self) -> int:
        """Folds, or groups, or 1."""
        if self.folds is not None:
            return self.folds.n_folds
        return len(self.tables.names) if self.tables is not None else 1

    @property
    def slopes(self) -> Slopes:
        """Of the lines, where scores are lines."""
        return self.method.slopes

    def _count(self, tallies: list[Any]) -> Steps[None]:
        units = UnitTally(1 if self.tables is None else self.n_tables)
        tables = {} if self.tables is None else self.tables.arguments()
        yield from count(self.data, [units, *tallies], folds=self.folds, view=self.method.view, **tables)
        self.units = units

    def path(self, lattice: Lattice) -> Steps[Curve]:
        """Every lattice point from one read, by the lambda path, with lambda 0 and 1 where they are off it."""
        lams = lattice.values()
        lines = make_lines(self.slopes.values, self.slopes.masked, lams)
        path = PathTally(lines, self.n_tables)
        top = None if self.top is None else TopKTally([lines], self.top, self.n_tables)
        off = [lam for lam in (0.0, 1.0) if self.base is None and lattice.index(lam) is None]
        beside, plain = self._points(self.method, off), self._plain()
        yield from self._count([tally for tally in (path, top) if tally is not None] + beside.tallies + plain.tallies)
        curve = Curve(lams, path.counts(), None if top is None else top.hits())
        if self.base is None:
            self._anchor(Curve.joined([curve, beside.curve()]) if off else curve, plain)
        return curve

    def points(self, lams: Sequence[float]) -> Steps[Curve]:
        """These lambdas (and, the first time, 0 and 1), evaluated plainly in one read."""
        wanted = list(lams)
        extra = [lam for lam in (0.0, 1.0) if self.base is None and lam not in wanted]
        points, plain = self._points(self.method, wanted + extra), self._plain()
        yield from self._count(points.tallies + plain.tallies)
        curve = points.curve()
        if self.base is None:
            self._anchor(curve, plain)
        return take(curve, list(range(len(wanted))))

    def _points(self, method: Method, lams: Sequence[float]) -> _Points:
        """Tallies that evaluate single lambdas."""
        if not lams:
            return _Points([], None, [])
        tops = [] if self.top is None else [TopKTally([method.point(lam)], self.top, self.n_tables) for lam in lams]
        return _Points(list(lams), method.tally(lams, self.n_tables), tops)

    def _plain(self) -> _Points:
        """Tallies of the scores as they are, where those of the method at lambda 0 do not tell."""
        plain = self.method.plain
        if self.base is not None or plain is None:
            return _Points([], None, [])
        return replace(self._points(plain, [0.0]), view=plain.view)

    def _anchor(self, curve: Curve, plain: _Points) -> None:
        """Keep what every curve is compared with."""
        places = [int(np.flatnonzero(curve.lams == lam)[0]) for lam in (0.0, 1.0)]
        self.anchors = take(curve, places)
        self.base = plain.curve() if plain.lams else take(curve, places[:1])

    def values(self, curve: Curve, name: str, folds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """A metric along a curve, (G,), over some folds (all by default)."""
        counts = pooled(curve.counts, folds)
        if top_of(name) is None:
            return compute(counts, name, self.absent, self.data.ignored_classes)
        hits, n = self._top_hits(curve, folds), int(counts.support.sum())
        return hits / n if n else np.full(curve.lams.size, np.nan)

    def exactly(self, curve: Curve, name: str, folds: Sequence[int] | None = None) -> Callable[[int], Fraction | None]:
        """What gives the same metric at one point of the curve as a fraction of integers."""
        counts = pooled(curve.counts, folds)
        hits, n = None if top_of(name) is None else self._top_hits(curve, folds), int(counts.support.sum())
        runs = _runs(counts, hits)

        @functools.cache
        def find(i: int) -> Fraction | None:
            if hits is None:
                one = Counts(counts.hits[i], counts.predicted[i], counts.support[0])
                return exact(one, name, self.absent, self.data.ignored_classes)
            return Fraction(int(hits[i]), n) if n else None

        return lambda i: find(int(runs[i]))

    @staticmethod
    def _top_hits(curve: Curve, folds: Sequence[int] | None) -> NDArray[np.int64]:
        assert curve.top_hits is not None
        chosen = curve.top_hits if folds is None else curve.top_hits[list(folds)]
        return np.asarray(chosen.sum(axis=0))

    def metrics(self, curve: Curve, index: int, folds: Sequence[int] | None = None) -> dict[str, float]:
        """All metrics at one point."""
        names = [*NAMES, *([f"top{self.top}"] if self.top else [])]
        one = take(curve, [index])
        return {name: float(self.values(one, name, folds)[0]) for name in names}

    def objective(self, curve: Curve, folds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """The metric where every constraint holds, else -inf.

        Values that are equal as fractions are equal here, and the best are in the order of their fractions: no last bit
        of a sum decides.
        """
        values = np.asarray(self.values(curve, self.metric, folds), dtype=np.float64)
        values = np.where(np.isnan(values), -np.inf, values)
        near = rounding(self.data.n_classes)
        for constraint in self.constraints:
            assert self.base is not None
            bound = self.exactly(self.base, constraint.metric, folds)(0)
            met = constraint.holds(
                self.values(curve, constraint.metric, folds), bound, near, self.exactly(curve, constraint.metric, folds)
            )
            values = np.where(met, values, -np.inf)
        return settled(values, near, self.exactly(curve, self.metric, folds))

    def masked(self, folds: Sequence[int] | None = None) -> dict[str, float] | None:
        """All metrics at lambda 0 with masked classes, where these change anything; else None."""
        assert self.base is not None and self.anchors is not None
        plain, masked = self.base.counts, self.anchors.counts
        same = np.array_equal(plain.hits[:, 0], masked.hits[:, 0])
        same = same and np.array_equal(plain.predicted[:, 0], masked.predicted[:, 0])
        return None if same or not self.method.masks else self.metrics(self.anchors, 0, folds)

    def moved(self, curve: Curve, index: int) -> int:
        """How many units at least are predicted otherwise than at lambda 0, as far as the goal can tell."""
        assert self.anchors is not None
        if top_of(self.metric) is not None:
            here, there = self._top_hits(curve, None)[index], self._top_hits(self.anchors, None)[0]
            return int(abs(here - there))
        ours, theirs = pooled(curve.counts)[index], pooled(self.anchors.counts)[0]
        hits = int(np.abs(ours.hits - theirs.hits).sum())
        if self.metric in ("acc", "macc"):
            return hits
        return max(hits, -(-int(np.abs(ours.predicted - theirs.predicted).sum()) // 2))


@dataclass(frozen=True)
class _Points:
    """Single lambdas, and what counts them: in one tally, and one for each where top-k hits are asked for."""

    lams: list[float]
    counts: Any
    tops: list[TopKTally]
    view: View | None = None

    @property
    def tallies(self) -> list[Any]:
        """For a sweep; those with a view of their own look at the data in their own way."""
        own = [self.counts, *self.tops] if self.lams else []
        return own if self.view is None else [ViewedTally(self.view, tally) for tally in own]

    def curve(self) -> Curve:
        """What was counted."""
        hits = np.concatenate([tally.hits() for tally in self.tops], axis=1) if self.tops else None
        return Curve(np.array(self.lams), self.counts.counts(), hits)


def _runs(counts: Counts, top_hits: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """For every point of a curve, (G,), the first of those before it that have its very counts."""
    changed = np.ones(len(counts.hits), dtype=bool)
    changed[1:] = (counts.hits[1:] != counts.hits[:-1]).any(axis=1)
    changed[1:] |= (counts.predicted[1:] != counts.predicted[:-1]).any(axis=1)
    if top_hits is not None:
        changed[1:] |= top_hits[1:] != top_hits[:-1]
    return np.asarray(np.flatnonzero(changed)[np.cumsum(changed) - 1])


@dataclass(frozen=True)
class Complement:
    """A problem as its other folds see it, for strategies that look where values lead them.

    Attributes
    ----------
    problem : Problem
    folds : tuple of int
        Those that values are taken from.
    kept : dict of float to Curve
        Lambdas that were counted, of all folds, for any of them: they are not counted again.
    """

    problem: Problem
    folds: tuple[int, ...]
    kept: dict[float, Curve]

    def path(self, lattice: Lattice) -> Steps[Curve]:
        """As the problem's own."""
        return (yield from self.problem.path(lattice))

    def points(self, lams: Sequence[float]) -> Steps[Curve]:
        """One lambda, counted once for all folds."""
        (lam,) = lams
        if lam not in self.kept:
            self.kept[lam] = yield from self.problem.points([lam])
        return self.kept[lam]

    def objective(self, curve: Curve) -> NDArray[np.float64]:
        """The metric on these folds."""
        return self.problem.objective(curve, self.folds)


def pooled(counts: Counts, folds: Sequence[int] | None = None) -> Counts:
    """Counts summed over folds (all by default): (F, G, K) to (G, K)."""
    chosen = slice(None) if folds is None else list(folds)
    return Counts(counts.hits[chosen].sum(0), counts.predicted[chosen].sum(0), counts.support[chosen].sum(0))


def take(curve: Curve, indices: list[int]) -> Curve:
    """Some points of a curve."""
    counts = Counts(curve.counts.hits[:, indices], curve.counts.predicted[:, indices], curve.counts.support)
    return Curve(curve.lams[indices], counts, None if curve.top_hits is None else curve.top_hits[:, indices])
