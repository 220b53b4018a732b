"""What a search is asked about: counts of the data at some lambdas, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.dataset import DataSet, Span
from unoic_cli.folds import FoldPlan
from unoic_cli.kernels.lines import Lines, make_lines
from unoic_cli.lattice import Lattice
from unoic_cli.metrics import NAMES, Absent, Counts, compute, top_of
from unoic_cli.priors import Slopes
from unoic_cli.searches import Curve
from unoic_cli.searches.choice import Constraint
from unoic_cli.sweep import sweep
from unoic_cli.tallies.path import PathTally
from unoic_cli.tallies.points import PointTally
from unoic_cli.tallies.top_k import TopKTally
from unoic_cli.tallies.units import UnitTally
from unoic_cli.tasks.common import Options
from unoic_cli.tasks.modalities import Method
from unoic_cli.tasks.tables import Tables


@dataclass
class Problem:
    """The data and what is asked of it: counts for the searches, values for the choice."""

    data: DataSet
    method: Method
    metric: str
    constraints: tuple[Constraint, ...]
    absent: Absent
    top: int | None
    spans: list[Span]
    folds: FoldPlan | None
    options: Options
    tables: Tables | None = None
    units: UnitTally | None = None
    base: Curve | None = None

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

    def _sweep(self, tallies: list[Any]) -> None:
        units = UnitTally(1 if self.tables is None else self.n_tables)
        sweep(
            self.data, [units, *tallies], spans=self.spans, folds=self.folds, view=self.method.view,
            n_threads=self.options.threads, progress=self.options.progress,
            **({} if self.tables is None else self.tables.arguments()),
        )  # fmt: skip
        self.units = units

    def path(self, lattice: Lattice) -> Curve:
        """Every lattice point from one read, by the lambda path, with lambda 0 and 1 where they are off it."""
        lams = lattice.values()
        lines = make_lines(self.slopes.values, self.slopes.masked, lams)
        path = PathTally(lines, self.n_tables)
        top = None if self.top is None else TopKTally(lines, self.top, self.n_tables)
        off = [lam for lam in (0.0, 1.0) if self.base is None and lattice.index(lam) is None]
        points = PointTally([self._point(lam) for lam in off], self.n_tables) if off else None
        off_top = [TopKTally(self._point(lam), self.top, self.n_tables) for lam in off if self.top is not None]
        self._sweep([tally for tally in (path, top, points, *off_top) if tally is not None])
        curve = Curve(lams, path.counts(), None if top is None else top.hits())
        if self.base is None:
            self.base = self._base(curve, lattice, points, off_top)
        return curve

    def points(self, lams: Sequence[float]) -> Curve:
        """These lambdas (and, the first time, 0 and 1), evaluated plainly in one read."""
        wanted = list(lams)
        extra = [lam for lam in (0.0, 1.0) if self.base is None and lam not in wanted]
        points = self.method.tally(wanted + extra, self.n_tables)
        tops = [TopKTally(self._point(lam), self.top, self.n_tables) for lam in wanted + extra if self.top is not None]
        self._sweep([points, *tops])
        hits = np.concatenate([tally.hits() for tally in tops], axis=1) if tops else None
        counts = points.counts()
        everything = np.array(wanted + extra)
        if self.base is None:
            places = [int(np.flatnonzero(everything == lam)[0]) for lam in (0.0, 1.0)]
            self.base = take(Curve(everything, counts, hits), places)
        return take(Curve(everything, counts, hits), list(range(len(wanted))))

    def _point(self, lam: float) -> Lines:
        return self.method.point(lam)

    def _base(self, curve: Curve, lattice: Lattice, points: PointTally | None, tops: list[TopKTally]) -> Curve:
        """Counts at lambda 0 and 1: from the curve where it holds them, else from their own evaluation."""
        parts = []
        others = 0
        for lam in (0.0, 1.0):
            place = lattice.index(lam)
            if place is not None:
                parts.append(take(curve, [place]))
                continue
            assert points is not None
            hits = tops[others].hits() if tops else None
            counts = points.counts()
            one = Counts(counts.hits[:, [others]], counts.predicted[:, [others]], counts.support)
            parts.append(Curve(np.array([lam]), one, hits))
            others += 1
        return Curve(
            np.array([0.0, 1.0]),
            Counts(
                np.concatenate([part.counts.hits for part in parts], axis=1),
                np.concatenate([part.counts.predicted for part in parts], axis=1),
                curve.counts.support,
            ),
            None
            if curve.top_hits is None
            else np.concatenate([p.top_hits for p in parts if p.top_hits is not None], 1),
        )

    def values(self, curve: Curve, name: str, folds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """A metric along a curve, (G,), over some folds (all by default)."""
        counts = pooled(curve.counts, folds)
        if top_of(name) is None:
            return compute(counts, name, self.absent)
        assert curve.top_hits is not None
        hits = curve.top_hits if folds is None else curve.top_hits[list(folds)]
        n = int(counts.support.sum())
        return hits.sum(axis=0) / n if n else np.full(curve.lams.size, np.nan)

    def metrics(self, curve: Curve, index: int, folds: Sequence[int] | None = None) -> dict[str, float]:
        """All metrics at one point."""
        names = [*NAMES, *([f"top{self.top}"] if self.top else [])]
        one = take(curve, [index])
        return {name: float(self.values(one, name, folds)[0]) for name in names}

    def objective(self, curve: Curve, folds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """The metric where every constraint holds, else -inf."""
        values = np.asarray(self.values(curve, self.metric, folds), dtype=np.float64)
        values = np.where(np.isnan(values), -np.inf, values)
        for constraint in self.constraints:
            assert self.base is not None
            base = float(self.values(self.base, constraint.metric, folds)[0])
            values = np.where(constraint.holds(self.values(curve, constraint.metric, folds), base), values, -np.inf)
        return values


def pooled(counts: Counts, folds: Sequence[int] | None = None) -> Counts:
    """Counts summed over folds (all by default): (F, G, K) to (G, K)."""
    chosen = slice(None) if folds is None else list(folds)
    return Counts(counts.hits[chosen].sum(0), counts.predicted[chosen].sum(0), counts.support[chosen].sum(0))


def take(curve: Curve, indices: list[int]) -> Curve:
    """Some points of a curve."""
    counts = Counts(curve.counts.hits[:, indices], curve.counts.predicted[:, indices], curve.counts.support)
    return Curve(curve.lams[indices], counts, None if curve.top_hits is None else curve.top_hits[:, indices])
