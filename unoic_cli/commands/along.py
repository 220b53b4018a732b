"""What a search has counted at every lambda, and how sure its gains are there: what `unoic_cli.pages` shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calibrations.lattice import Lattice
from unoic_cli.commands.problem import Problem
from unoic_cli.commands.sampled import Gain
from unoic_cli.data.dataset import DataSet
from unoic_cli.metrics import Counts, Metric, Rules
from unoic_cli.resolve.asked import Asked, training_of
from unoic_cli.resolve.common import Notes
from unoic_cli.resolve.tables import Tables
from unoic_cli.searches import Curve
from unoic_cli.searches.anchored import Errors
from unoic_cli.searches.choice import Constraint

AS_IT_IS = "the scores as they are"
AT_ONCE = 1 << 20
"""Predictions that intervals are computed of at once."""
MOST_CELLS = 1 << 23
"""Conditions (or images) times lambdas times classes that are kept for each condition."""


@dataclass(frozen=True)
class Along:
    """Counts at every lambda, and the intervals of what it gains over the scores as they are.

    Attributes
    ----------
    lams : (G,) float64
    counts : Counts
        (G, K).
    base : Counts
        (K,), of the scores as they are.
    metrics : tuple of Metric
    rules : Rules
    values : dict of str to (G,) float64
        Metrics that are counted along the curve.
    baseline : dict of str to float
        All of them, of the scores as they are.
    low, high : dict of str to (G,) float64
        Ends of the 95 % intervals of gains, of metrics that have some; NaN where there is none.
    tables : dict of str to (Counts, Counts), or None
        For each condition its counts, (G, K), and those of the scores as they are, (K,); None where there is none, or
        they are too many.
    clusters : str
        What is independent.
    kept, of : int
        Units that intervals are from, and all.
    training : tuple of float or None
        (K,) training samples of each class, where they are known.
    constraints : tuple of Constraint
        What lambda is subject to.
    against : str or None
        What `base` is of; None where there is nothing to compare with.
    ruled_out : (G,) int64 or None
        1 where some constraint does not hold.
    by_image : Counts or None
        (S, G, K) of every image, where they were counted.
    """

    lams: NDArray[np.float64]
    counts: Counts
    base: Counts
    metrics: tuple[Metric, ...]
    rules: Rules
    values: dict[str, NDArray[np.float64]]
    baseline: Mapping[str, float]
    low: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    high: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    tables: dict[str, tuple[Counts, Counts]] | None = None
    clusters: str = "unit"
    kept: int = 0
    of: int = 0
    training: tuple[float, ...] | None = None
    constraints: tuple[Constraint, ...] = ()
    against: str | None = AS_IT_IS
    ruled_out: NDArray[np.int64] | None = None
    by_image: Counts | None = None

    @classmethod
    def of_curve(cls, problem: Problem, curve: Curve) -> Along:
        """Of a search that has ended."""
        assert problem.base is not None
        sampled = problem.along(curve.lams)
        low, high = _intervals(problem, curve)
        return cls(
            curve.lams, curve.pooled().counts, problem.base.pooled().at(0).counts, problem.asked.metrics,
            problem.asked.rules, problem.curves(curve), problem.metrics(problem.base, 0), low, high,
            _tables(problem, curve), problem.clusters or "unit", 0 if sampled is None else sampled.kept.n,
            0 if sampled is None else sampled.kept.seen, training_of(problem.data, problem.decider.calibration),
            problem.asked.constraints, ruled_out=_ruled_out(problem, curve),
            by_image=curve.counts if problem.tables is not None and problem.conditions is None else None,
        )  # fmt: skip

    @classmethod
    def of_point(
        cls, lam: float, here: Counts, base: Counts | None, asked: Asked, values: Mapping[str, float],
        baseline: Mapping[str, float] | None, gain: Mapping[str, Gain], **more: Any,
    ) -> Along:  # fmt: skip
        """Of one lambda alone; `base` and `baseline` are of what it is compared with."""
        surely = {name: one for name, one in gain.items() if math.isfinite(one.se)}
        return cls(
            np.array([lam]), here.alone(),
            here if base is None else base, asked.metrics, asked.rules,
            {name: np.array([value]) for name, value in values.items()}, values if baseline is None else baseline,
            {name: np.array([one.low]) for name, one in surely.items()},
            {name: np.array([one.high]) for name, one in surely.items()}, **more,
        )  # fmt: skip

    def place(self, lam: float) -> int:
        """The index of a lambda; of one between two points, that of the nearer one."""
        return int(np.abs(self.lams - lam).argmin())

    def has(self, lam: float) -> bool:
        """Whether a lambda is a point of the curve."""
        return bool((self.lams == lam).any())

    def _allows(self, values: Mapping[str, float]) -> bool:
        """Whether metrics at one lambda meet the constraints."""
        nowhere = np.full(1, -1.0)
        return all(
            bool(one.holds(np.array([values[name]]), self._base(name), nowhere, lambda i: None)[0])
            for one in self.constraints
            for name in [one.metric.name]
        )

    def _base(self, name: str) -> Fraction | None:
        value = self.baseline.get(name, math.nan)
        return Fraction(value) if math.isfinite(value) else None

    def with_point(
        self, lam: float, counts: Counts, values: Mapping[str, float], gain: Mapping[str, Gain],
        tables: Mapping[str, Counts] | None,
    ) -> Along:  # fmt: skip
        """The same with one lambda more, which is no point of it, and was measured by itself."""
        i = int(np.searchsorted(self.lams, lam))

        def added(array: NDArray[Any], value: Any) -> NDArray[Any]:
            return np.insert(array, i, value, axis=0)

        def both(there: Counts, here: Counts) -> Counts:
            return Counts(added(there.hits, here.hits), added(there.predicted, here.predicted), there.support)

        own = None
        if self.tables is not None and tables is not None:
            own = {name: (both(one, tables[name]), plain) for name, (one, plain) in self.tables.items()}
        known = {name: one for name, one in gain.items() if name in self.low}
        return replace(
            self, lams=added(self.lams, lam), counts=both(self.counts, counts),
            values={name: added(one, values[name]) for name, one in self.values.items()},
            low={name: added(one, known[name].low) for name, one in self.low.items()},
            high={name: added(one, known[name].high) for name, one in self.high.items()}, tables=own,
            ruled_out=None if self.ruled_out is None else added(self.ruled_out, not self._allows(values)),
        )  # fmt: skip


def image_tables(data: DataSet, asked: Asked, lattice: Lattice, notes: Notes) -> Tables | None:
    """A table for each image; None, and a note, where they would be too large, or hold more than predictions."""
    found = Tables.of_images(data)
    cells = len(found.names) * lattice.size * data.n_classes
    probabilities = [one.title for one in asked.metrics if one.recipe is not None]
    if cells <= MOST_CELLS and not probabilities:
        return found
    why = f"beside {', '.join(probabilities)}" if probabilities else f"{cells:,} counts would be needed"
    notes.add(f"each image by itself is shown at the lambda of the page alone ({why})")
    return None


def _ruled_out(problem: Problem, curve: Curve) -> NDArray[np.int64] | None:
    """Where constraints do not hold."""
    if not problem.asked.constraints:
        return None
    known = np.isfinite(problem.values(curve, problem.goal))
    return np.asarray(known & np.isneginf(problem.objective(curve)), dtype=np.int64)


def _tables(problem: Problem, curve: Curve) -> dict[str, tuple[Counts, Counts]] | None:
    """Of each condition that has labelled units."""
    if problem.conditions is None or curve.counts.hits.size > MOST_CELLS:
        return None
    assert problem.base is not None
    found = np.flatnonzero(curve.counts.support.any(axis=(1, 2))).tolist()
    return {
        problem.conditions.names[i]: (curve.pooled([i]).counts, problem.base.pooled([i]).at(0).counts) for i in found
    }


def _intervals(
    problem: Problem, curve: Curve
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:  # fmt: skip
    """Ends of the intervals that `evaluate` gives at each lambda, from the kept units."""
    assert problem.base is not None
    sampled, rules = problem.along(curve.lams), problem.asked.rules
    if sampled is None or not sampled.knows_plain or not sampled.several:
        return {}, {}
    before, after, kept = problem.base.pooled().at(0), curve.pooled(), sampled.kept
    known = [one for one in problem.asked.metrics if one.recipe is None and one.weights(before, rules) is not None]
    errors = [Errors(one, rules, kept, before.counts.support) for one in known]
    theirs = {one.name: float(one.values(before, rules)) for one in known}
    everyone = np.arange(kept.n)
    runs = sampled.runs(after) if sampled.few is sampled else np.arange(curve.lams.size)
    points, places = np.unique(runs, return_inverse=True)
    low, high = ({one.name: np.full(points.size, math.nan) for one in known} for _ in range(2))
    size = max(1, AT_ONCE // kept.n)
    for first in range(0, points.size, size):
        some = points[first : first + size]
        for i, decided in enumerate(sampled.predictions(some, everyone)):
            here = after.at(int(some[i]))
            for metric, one in zip(known, errors, strict=True):
                gain = float(metric.values(here, rules)) - theirs[metric.name]
                if math.isfinite(gain):
                    made = Gain.around(gain, one.surely(decided, here, sampled.plain, before))
                    low[metric.name][first + i], high[metric.name][first + i] = made.low, made.high
    return tuple({name: one[places] for name, one in ends.items()} for ends in (low, high))  # type: ignore[return-value]
