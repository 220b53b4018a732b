"""What a search is asked about: counts of the data at some lambdas, and what they are worth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calibrations.calibration import Tuning
from unoic_cli.calibrations.lattice import Lattice
from unoic_cli.calibrations.prior import Slopes
from unoic_cli.calibrations.view import View
from unoic_cli.commands.sampled import Gain, Sampled
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.folds import Folding
from unoic_cli.data.steps import Steps, count
from unoic_cli.kernels.lines import make_lines
from unoic_cli.metrics import Exact, Metric, Recipe, rounding
from unoic_cli.resolve.asked import Arrays, Asked, Beside
from unoic_cli.resolve.decider import Decider, as_stored
from unoic_cli.resolve.options import DataOptions
from unoic_cli.resolve.tables import IMAGE, Tables
from unoic_cli.searches import Curve, first_of_runs
from unoic_cli.searches.choice import settled
from unoic_cli.tallies.kept import Kept, KeptTally, closed_up
from unoic_cli.tallies.margins import Decision
from unoic_cli.tallies.path import PathTally
from unoic_cli.tallies.units import UnitTally
from unoic_cli.tallies.viewed import ViewedTally


@dataclass
class Problem:
    """The data and what is asked of it: counts for the searches, values for the choice.

    Where `clusters` says what is independent ("unit", "image" or "group"), `sample` is kept at the first read; where
    lambda is chosen by the anchored rule, it is `anchored`.
    After the first read, `base` holds the scores as they are (one point; nothing is masked or rebalanced), and
    `anchors` the method at lambda 0 and 1.
    """

    data: DataSet
    decider: Decider
    asked: Asked
    folds: Folding | None
    options: DataOptions
    tables: Tables | None = None
    units: UnitTally | None = None
    base: Curve | None = None
    anchors: Curve | None = None
    late: dict[float, Arrays] = field(default_factory=dict)
    clusters: str | None = None
    anchored: bool = False
    sample: Kept | None = None
    _sampled: Sampled | None = field(default=None, repr=False)
    _gains: dict[Any, dict[str, Gain]] = field(default_factory=dict, repr=False)

    @property
    def goal(self) -> Metric:
        """What is maximised, or minimised."""
        assert self.asked.goal is not None
        return self.asked.goal

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """What curves are counted with: what decides, and what the path has for nothing."""
        deciding = self.asked.recipes(self.asked.deciding)
        return tuple(one for one in self.asked.recipes() if one.on_path or one in deciding)

    @property
    def n_tables(self) -> int:
        """Folds, or groups, or 1."""
        if self.folds is not None:
            return self.folds.n_folds
        return len(self.tables.names) if self.tables is not None else 1

    @property
    def conditions(self) -> Tables | None:
        """The tables that results report by themselves: images are too many, and too small to choose from."""
        return None if self.tables is None or self.tables.by == IMAGE else self.tables

    @property
    def slopes(self) -> Slopes:
        """Of the lines, where scores are lines."""
        return self.decider.slopes

    def _count(self, tallies: list[Any]) -> Steps[None]:
        units = UnitTally(1 if self.tables is None else self.n_tables)
        tables = {} if self.tables is None else self.tables.arguments()
        keeps = self.clusters is not None and self.sample is None
        kept = [KeptTally.of(self.data, self.decider.view, self.clusters)] if keeps else []
        yield from count(self.data, [units, *kept, *tallies], folds=self.folds, view=self.decider.view, **tables)
        self.units = units
        if kept:
            self.sample = closed_up(kept[0].kept(), self.data)

    def path(self, lattice: Lattice) -> Steps[Curve]:
        """Every lattice point from one read, by the lambda path, with lambda 0 and 1 where they are off it."""
        lams = lattice.values()
        lines = make_lines(self.slopes.values, self.slopes.masked, lams)
        path, more = PathTally(lines, self.n_tables), Beside.along(self.recipes, lines, self.n_tables)
        off = [lam for lam in (0.0, 1.0) if self.base is None and lattice.index(lam) is None]
        beside, plain = self._points(self.decider, off), self._plain()
        yield from self._count([path, *more.tallies.values(), *beside.tallies, *plain.tallies])
        curve = Curve(lams, path.counts(), more.arrays())
        if self.base is None:
            self._anchor(Curve.joined([curve, beside.curve()]) if off else curve, plain)
        return curve

    def points(self, lams: Sequence[float]) -> Steps[Curve]:
        """These lambdas (and, the first time, 0 and 1), evaluated plainly in one read."""
        wanted = list(lams)
        extra = [lam for lam in (0.0, 1.0) if self.base is None and lam not in wanted]
        points, plain = self._points(self.decider, wanted + extra), self._plain()
        yield from self._count(points.tallies + plain.tallies)
        curve = points.curve()
        if self.base is None:
            self._anchor(curve, plain)
        return curve.take(range(len(wanted)))

    def measure(self, lams: Sequence[float]) -> Steps[int]:
        """Count at some lambdas, and at 0 and 1, what curves are not counted with; returns reads."""
        assert self.base is not None
        late = [recipe for recipe in self.asked.recipes() if recipe not in self.recipes]
        if not late:
            return 0
        wanted, plain = sorted({0.0, 1.0, *lams}), as_stored(self.decider)
        beside = Beside.at(late, self.decider, wanted, self.n_tables)
        as_is = Beside.at(late if plain is not None else [], plain, [0.0], self.n_tables)
        views = [] if plain is None else [ViewedTally(plain.view, tally) for tally in as_is.tallies.values()]
        yield from self._count([*beside.tallies.values(), *views])
        arrays = beside.arrays()
        for i, lam in enumerate(wanted):
            self.late[lam] = {
                recipe: {name: one[:, [i]] for name, one in found.items()} for recipe, found in arrays.items()
            }
        self.base = replace(self.base, beside={**self.base.beside, **as_is.arrays()})
        return 1

    def _points(self, decider: Decider, lams: Sequence[float]) -> _Points:
        """Tallies that evaluate single lambdas."""
        if not lams:
            return _Points([], None, None)
        beside = Beside.at(self.recipes, decider, lams, self.n_tables)
        return _Points(list(lams), decider.tally(lams, self.n_tables), beside)

    def _plain(self) -> _Points:
        """Tallies of the scores as they are, where those of the method at lambda 0 do not tell."""
        of_scores = any(not one.on_path for one in self.recipes)
        plain = as_stored(self.decider) if of_scores else self.decider.plain
        if self.base is not None or plain is None:
            return _Points([], None, None)
        return replace(self._points(plain, [0.0]), view=plain.view)

    def _anchor(self, curve: Curve, plain: _Points) -> None:
        """Keep what every curve is compared with."""
        places = [int(np.flatnonzero(curve.lams == lam)[0]) for lam in (0.0, 1.0)]
        self.anchors = curve.take(places)
        self.base = plain.curve() if plain.lams else curve.take(places[:1])

    def values(self, curve: Curve, metric: Metric, folds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """A metric along a curve, (G,), over some folds (all by default)."""
        return metric.values(curve.pooled(folds), self.asked.rules)

    def exactly(
        self, curve: Curve, metric: Metric, folds: Sequence[int] | None = None
    ) -> Callable[[int], Exact | None]:
        """What gives the same metric at one point of the curve without any rounding."""
        counted = curve.pooled(folds)
        beside = counted.beside[metric.recipe].values() if metric.recipe else ()
        runs = first_of_runs([counted.counts.hits, counted.counts.predicted, *beside])

        @functools.cache
        def find(i: int) -> Exact | None:
            return metric.exact(counted.at(i), self.asked.rules)

        return lambda i: find(int(runs[i]))

    def metrics(self, curve: Curve, index: int, folds: Sequence[int] | None = None) -> dict[str, float]:
        """All metrics at one point."""
        one = curve.take([index])
        counted = replace(one, beside={**self.late.get(float(one.lams[0]), {}), **one.beside}).pooled(folds)
        return {metric.name: float(metric.values(counted, self.asked.rules)[0]) for metric in self.asked.metrics}

    def curves(self, curve: Curve) -> dict[str, NDArray[np.float64]]:
        """Metrics along a curve: those that it is counted with."""
        along = [one for one in self.asked.metrics if one.recipe is None or one.recipe in self.recipes]
        return {metric.name: self.values(curve, metric) for metric in along}

    def objective(self, curve: Curve, folds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """The metric (its opposite, if less is better) where every constraint holds, else -inf.

        Values that are equal as fractions are equal here, and the best are in the order of their fractions: no last bit
        of a sum decides.
        """
        values = self.values(curve, self.goal, folds) * (1.0 if self.goal.HIGHER else -1.0)
        values = np.where(np.isnan(values), -np.inf, values)
        for constraint in self.asked.constraints:
            assert self.base is not None
            bound, theirs = self.exactly(self.base, constraint.metric, folds)(0), constraint.metric
            measured = self.values(curve, theirs, folds)
            near = rounding(self.data.n_classes, measured)
            met = constraint.holds(measured, bound, near, self.exactly(curve, theirs, folds))
            values = np.where(met, values, -np.inf)
        top = float(values.max(initial=-np.inf))
        exactly = self.exactly(curve, self.goal, folds)
        return settled(
            values,
            float(rounding(self.data.n_classes, top)),
            exactly if self.goal.HIGHER else lambda i: None if (one := exactly(i)) is None else -one,
        )

    @property
    def rule(self) -> str:
        """How lambda is chosen of those on a curve."""
        return "fixed" if self.slopes.faint else "anchored" if self.anchored else "best"

    def along(self, lams: NDArray[np.float64]) -> Sampled | None:
        """The kept sample along a lattice."""
        if self.sample is None:
            return None
        if self._sampled is None or not np.array_equal(self._sampled.lams, lams):
            self._sampled = Sampled(self.sample, self.decider, self.asked, lams, self.rule)
        return self._sampled

    def gains(self, curve: Curve, index: int) -> dict[str, Gain]:
        """What a point of a curve gains over the scores as they are, for each metric from counts."""
        sampled = self.along(curve.lams)
        if sampled is None or self.base is None:
            return {}
        key = (float(curve.lams[index]), curve.lams.size)
        if key not in self._gains:
            before, after = self.base.pooled().at(0), curve.pooled().at(index)
            self._gains[key] = sampled.gains(self.goal, self.asked.metrics, index, before, after)
        return self._gains[key]

    def tuning(self, curve: Curve, index: int) -> Tuning | None:
        """What a calibration remembers of this data."""
        sampled = self.along(curve.lams)
        if sampled is None or not sampled.kept.n:
            return None
        flips = int((sampled.predict(0.0) != sampled.at(index)).sum())
        clusters = int(np.unique(sampled.kept.clusters).size)
        decision = decision_of(self.decider, float(curve.lams[index]))
        margins = tuple(_trimmed(row) for row in decision.binned(sampled.kept).tolist())
        return Tuning(sampled.kept.n, flips, clusters, tuple(map(int, self.support)), margins)

    @property
    def support(self) -> NDArray[np.int64]:
        """Labelled units of each class, (K,), after the first read."""
        assert self.base is not None
        return self.base.pooled().at(0).counts.support

    def masked(self, folds: Sequence[int] | None = None) -> dict[str, float] | None:
        """All metrics at lambda 0 with masked classes, where these change anything; else None."""
        assert self.base is not None and self.anchors is not None
        plain, masked = self.base.counts, self.anchors.counts
        same = np.array_equal(plain.hits[:, 0], masked.hits[:, 0])
        same = same and np.array_equal(plain.predicted[:, 0], masked.predicted[:, 0])
        return None if same or not self.decider.masks else self.metrics(self.anchors, 0, folds)

    def moved(self, curve: Curve, index: int) -> int | None:
        """How many units at least are predicted otherwise than at lambda 0, as far as the goal can tell."""
        assert self.anchors is not None
        return self.goal.moved(curve.pooled().at(index), self.anchors.pooled().at(0))


@dataclass(frozen=True)
class _Points:
    """Single lambdas, and what counts them: predictions in one tally, and what else is asked for."""

    lams: list[float]
    counts: Any
    beside: Beside | None
    view: View | None = None

    @property
    def tallies(self) -> list[Any]:
        """For a pass; those with a view of their own look at the data in their own way."""
        own = [self.counts, *self.beside.tallies.values()] if self.beside is not None else []
        return own if self.view is None else [ViewedTally(self.view, tally) for tally in own]

    def curve(self) -> Curve:
        """What was counted."""
        return Curve(np.array(self.lams), self.counts.counts(), {} if self.beside is None else self.beside.arrays())


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


def decision_of(decider: Decider, lam: float) -> Decision:
    """What margins of its decisions at a lambda are of."""
    one = decider.calibration.modalities[0] if len(decider.view.looks) == 1 else None
    scale = 1.0 if one is None or decider.rule is not None else one.temperature
    return Decision(decider.rule, decider.slopes.values, decider.slopes.masked, lam, scale)


def _trimmed(row: list[int]) -> tuple[int, ...]:
    """Without the zeros at its end."""
    n = len(row)
    while n and not row[n - 1]:
        n -= 1
    return tuple(row[:n])
