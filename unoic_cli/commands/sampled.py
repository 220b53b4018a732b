"""What the kept sample tells a search: which lambda is likely, how sure the curve is, and what a choice gains."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.data.folds import mix
from unoic_cli.kernels.lines import Lines, make_lines, make_point
from unoic_cli.metrics import Counted, Counts, Exact, Metric, Rules, in_percent, rounding
from unoic_cli.metrics.acc import Accuracy
from unoic_cli.metrics.metric import ClassMean
from unoic_cli.resolve.asked import Asked
from unoic_cli.resolve.decider import Decider
from unoic_cli.searches import Curve, first_of_runs
from unoic_cli.searches.anchored import MANY, Choice, Errors, Trail, among_best, choose, nearest
from unoic_cli.searches.choice import best_plateau
from unoic_cli.searches.joint import Joint, fit, scale_costs, to_digits
from unoic_cli.tallies.kept import Kept

GAIN_FOLDS = 5
REFITTED = 1 << 13
"""Units up to which each fold has an anchor of its own: of more, a fifth cannot move it."""
LOOKED_AT = 1 << 14
"""Units of a sample that are looked at along the whole lattice."""
FITTED = 1 << 12
"""Units that fusions which are no lines are fitted on, at `POINTS` lambdas."""
LONG = 10
"""Of expectations that are equal on more than a share of the lattice, the point nearest to the fit is taken."""
POINTS = 41
MOST_RUNGS = 4
"""Pieces of `_AT_ONCE` scores of what is fused at those lambdas that are kept for the fits of the folds."""
_AT_ONCE = 1 << 20
"""Predictions that standard errors are computed of at once, and fused scores."""
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Gain:
    """A metric's gain over the scores as they are, or over another method, with its 95 % interval.

    Attributes
    ----------
    gain : float
        Of a search cross-fitted: each unit is predicted with the lambda that the other folds lead to.
    low, high : float
        The interval; NaN where none is known.
    se : float
        The paired standard error.
    """

    gain: float
    low: float = math.nan
    high: float = math.nan
    se: float = math.nan

    @classmethod
    def around(cls, gain: float, se: float) -> Gain:
        """With the interval that a standard error makes."""
        return cls(gain, gain - Z95 * se, gain + Z95 * se, se)

    @property
    def sure(self) -> bool:
        """Whether the interval has no zero in it."""
        return self.low > 0 or self.high < 0

    def signed(self, name: str) -> str:
        """In the units of tables: ``+11.7 [6.7, 17.5]``; a dash where there is none.

        Examples
        --------
        >>> Gain(0.117, 0.067, 0.175, 0.02).signed("macc")
        '+11.7 [6.7, 17.5]'
        """
        scale, digits = (100, 1) if in_percent(name) else (1, 4)
        if not math.isfinite(self.gain):
            return "-"
        ends = f" [{scale * self.low:.{digits}f}, {scale * self.high:.{digits}f}]" if math.isfinite(self.se) else ""
        return f"{scale * self.gain:+.{digits}f}{ends}"

    def __post_init__(self) -> None:
        for name in ("low", "high", "se"):
            object.__setattr__(self, name, to_digits(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        known = math.isfinite(self.se)
        interval = [self.low, self.high] if known else None
        gain = self.gain if math.isfinite(self.gain) else None
        return {"gain": gain, "interval": interval, "se": self.se if known else None}


@dataclass
class Sampled:
    """The kept sample of a problem, along a lattice.

    Parameters
    ----------
    kept : Kept
    decider : Decider
    asked : Asked
    lams : (G,) float64
    rule : {"anchored", "best", "fixed"}
        How a lambda is chosen of them: fixed where no data could have changed it.
    """

    kept: Kept
    decider: Decider
    asked: Asked
    lams: NDArray[np.float64]
    rule: str
    _anchors: dict[Any, int] = field(default_factory=dict, repr=False, init=False)
    _choices: dict[Any, Choice] = field(default_factory=dict, repr=False, init=False)
    _ranked: dict[Metric, Sampled] = field(default_factory=dict, repr=False, init=False)
    _kept_rungs: dict[int, NDArray[np.float64]] = field(default_factory=dict, repr=False, init=False)

    def of(self, metric: Metric) -> Sampled:
        """What this metric is of: for metrics of ranks, whether labels are among the best classes."""
        if metric.among is None:
            return self
        if metric not in self._ranked:
            self._ranked[metric] = Ranked(self.kept, self.decider, self.asked, self.lams, self.rule, self, metric)
        return self._ranked[metric]

    @cached_property
    def few(self) -> Sampled:
        """The same of fewer units, where they are a sample anyway: for what looks at every point of the lattice."""
        if self.kept.complete or self.kept.n <= LOOKED_AT:
            return self
        return replace(self, kept=self.kept.take(np.arange(0, self.kept.n, -(-self.kept.n // LOOKED_AT))))

    @property
    def n_classes(self) -> int:
        """K."""
        return self.kept.n_classes

    @cached_property
    def several(self) -> bool:
        """Whether two units (or clusters) were kept: of fewer, nothing is known of how they differ."""
        return bool((self.kept.clusters != self.kept.clusters[:1]).any())

    @cached_property
    def trail(self) -> Trail:
        """Who is predicted of every kept unit along the lattice."""
        if self.decider.rule is None:
            slopes = self.decider.slopes
            return Trail.of_lines(self.kept, make_lines(slopes.values, slopes.masked, self.lams))
        pieces = (self.lams[first : first + POINTS] for first in range(0, self.lams.size, POINTS))
        return Trail.of_decisions(self.kept.predict_fused(self.decider.rule, lams) for lams in pieces)

    def predict(self, lam: float) -> NDArray[np.int32]:
        """Decisions of the kept units at a lambda, (n,)."""
        if self.decider.rule is None:
            return self.kept.predict(self.decider.point(lam))
        return np.asarray(self.kept.predict_fused(self.decider.rule, [lam])[0])

    @cached_property
    def plain(self) -> NDArray[np.int32]:
        """Decisions of the scores as they are, (n,): nothing is rebalanced, and no class masked."""
        if self.decider.rule is not None:
            return np.asarray(self.kept.predict_fused(self.decider.rule.as_is, [0.0])[0])
        return self._as_is.predict(self._untilted)

    @property
    def knows_plain(self) -> bool:
        """Whether the kept scores tell `plain`: those of several modalities hold temperatures and offsets of each."""
        looks, plain = self.decider.view.looks, self.decider.plain
        if len(looks) == 1 or plain is None:
            return True
        pairs = list(zip(looks, plain.view.looks, strict=True))
        alike = all(one.offsets == other.offsets for one, other in pairs)
        scales = {one.temperature / other.temperature for one, other in pairs}
        return alike and (scales == {1.0} or (self.decider.rule is None and len(scales) == 1))

    @property
    def _untilted(self) -> Lines:
        """Lines that add nothing."""
        zeros = np.zeros(self.n_classes)
        return make_point(zeros, zeros > 0, 0.0)

    @property
    def _as_is(self) -> Kept:
        """Without offsets: factors of a unit's scores change no decision."""
        kept, offsets = self.kept, self.decider.view.looks[0].offsets
        if offsets is not None and len(self.decider.view.looks) == 1:
            return replace(kept, scores=kept.scores.astype(np.float64) - np.array(offsets))
        return kept

    def predictions(self, points: NDArray[np.int64], chosen: NDArray[Any]) -> NDArray[np.int64]:
        """Of chosen units at some points, ascending, (M, n)."""
        if self.few is self:
            return self.trail.several(points, chosen)
        if self.decider.rule is not None:
            return self.kept.predict_fused(self.decider.rule, self.lams[points])[:, chosen].astype(np.int64)
        found = [self.predict(lam)[chosen] for lam in self.lams[points].tolist()]
        return np.asarray(np.stack(found), dtype=np.int64)

    def at(self, point: int) -> NDArray[np.int64]:
        """Of all kept units at a point."""
        return np.asarray(self.predictions(np.array([point]), np.arange(self.kept.n))[0])

    def mask(self, folds: Sequence[int] | None) -> NDArray[np.bool_]:
        """The units of some tables."""
        return np.isin(self.kept.tables, list(folds)) if folds is not None else np.ones(self.kept.n, dtype=bool)

    # ------------------------------------------------------------ the fit

    def fit(self, chosen: NDArray[np.bool_], start: tuple[float, float] = (1.0, 1.0)) -> tuple[Joint, Any] | None:
        """The joint fit to some units, and which these are; None where there is nothing to fit."""
        if self.decider.rule is not None:
            return self._fit_fused(chosen)
        slopes, target = self.decider.slopes, np.array(self.decider.calibration.target_prior.values)
        on = ~slopes.masked & (target > 0)
        if on.sum() < 2:
            return None
        own = self.kept.scores[np.arange(self.kept.n), 0, self.kept.labels]
        usable = chosen & on[self.kept.labels] & np.isfinite(own)
        if not usable.any():
            return None
        places = np.flatnonzero(on)
        z = self.kept.scores[usable, 0][:, places].astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        names = np.full(self.n_classes, -1)
        names[places] = np.arange(places.size)
        found = fit(z, names[self.kept.labels[usable]], slopes.values[places], target[places], start)
        posterior = np.zeros((found.n, self.n_classes))
        posterior[:, places] = found.posterior
        return replace(found, posterior=posterior), np.flatnonzero(usable)

    def _fit_fused(self, chosen: NDArray[np.bool_]) -> tuple[Joint, Any] | None:
        """Of a fusion that is no line in lambda: a scale of its log-posterior at each of some lambdas, and the best."""
        some, on = self._ladder
        own = chosen[some]
        if not own.any() or on.size < 2:
            return None
        target = np.array(self.decider.calibration.target_prior.values)[on]
        names = np.full(self.n_classes, -1)
        names[on] = np.arange(on.size)
        units = some[own]
        labels = names[self.kept.labels[units]]
        costs = np.concatenate([scale_costs(z[:, own], labels, target) for z in self._rungs()])
        lams = self._steps
        lam = float(lams[(costs + (lams - 1) ** 2 / 2).argmin()])
        found = fit(self._log_posterior(lam, units), labels, np.zeros(on.size), target)
        posterior = np.zeros((found.n, self.n_classes))
        posterior[:, on] = found.posterior
        # the scale is of what is fused: it moves no decision, so mu is lambda itself
        return replace(found, lam=lam * found.a, se_lam=float("nan"), se_mu=float("nan"), posterior=posterior), units

    @cached_property
    def _ladder(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Units that a fusion which is no line is fitted on, and the classes that it knows."""
        target = np.array(self.decider.calibration.target_prior.values)
        on = np.flatnonzero((target > 0) & ~self.decider.slopes.masked)
        some = np.arange(0, self.kept.n, max(1, self.kept.n // FITTED))
        return some[np.isin(self.kept.labels[some], on)], on

    @cached_property
    def _steps(self) -> NDArray[np.float64]:
        """The lambdas of that fit."""
        return np.asarray(self.lams[np.unique(np.linspace(0, self.lams.size - 1, POINTS).round().astype(int))])

    def _log_posterior(self, lam: float, units: NDArray[np.int64]) -> NDArray[np.float64]:
        """What is fused at a lambda, of chosen units; the largest of each row is 0."""
        assert self.decider.rule is not None
        z = np.maximum(self.kept.take(units).posterior(self.decider.rule, lam)[:, self._ladder[1]], -1e4)
        shifted: NDArray[np.float64] = z - z.max(axis=1, keepdims=True)
        return shifted

    def _rungs(self) -> Iterator[NDArray[np.float64]]:
        """The same at each of the lambdas, of all units that are fitted, several at a time: (P, n, K)."""
        some, on = self._ladder
        size = max(1, _AT_ONCE // max(some.size * on.size, 1))
        pieces = [self._steps[first : first + size] for first in range(0, self._steps.size, size)]
        for i, lams in enumerate(pieces):
            if i not in self._kept_rungs:
                z = np.stack([self._log_posterior(lam, some) for lam in lams.tolist()])
                if len(pieces) > MOST_RUNGS:
                    yield z
                    continue
                self._kept_rungs[i] = z
            yield self._kept_rungs[i]

    @cached_property
    def joint(self) -> Joint | None:
        """The joint fit to all kept units."""
        found = self._joint
        return None if found is None else found[0]

    @cached_property
    def _joint(self) -> tuple[Joint, Any] | None:
        if self.few is not self:
            return self.few._joint
        return self.fit(np.ones(self.kept.n, dtype=bool))

    # ------------------------------------------------------------ the choice

    def anchor(self, goal: Metric, chosen: NDArray[np.bool_] | None = None) -> int:
        """The lattice point nearest to what the probabilities say; chosen units alone are fitted."""
        if self.few is not self:
            return self.few.anchor(goal, None if chosen is None else chosen[:: -(-self.kept.n // LOOKED_AT)])
        found = self._joint
        if chosen is not None and not chosen.all() and found is not None:
            found = self.fit(chosen, (found[0].a, found[0].lam)) or found
        if found is None:
            return int(np.abs(self.lams).argmin())
        joint, units = found
        target = np.array(self.decider.calibration.target_prior.values)
        if (goal.name == "macc" and np.ptp(target) < 1e-12) or goal.recipe is not None:
            return int(np.abs(self.lams - joint.mu).argmin())
        trail = self.trail
        if units.size < self.kept.n:
            places = np.full(self.kept.n, -1)
            places[units] = np.arange(units.size)
            own = places[trail.items] >= 0
            trail = Trail(trail.start[units], places[trail.items[own]], trail.at[own], trail.new[own])
        counts = trail.expected(joint.posterior, self.lams.size)
        values = goal.values(Counted(counts), self.asked.rules) * (1.0 if goal.HIGHER else -1.0)
        if not np.isfinite(values).any():
            return int(np.abs(self.lams - joint.mu).argmin())
        values = np.where(np.isfinite(values), values, -np.inf)
        best = np.flatnonzero(values >= values.max() - 1e-12)
        if best.size > self.lams.size / LONG:  # they hardly depend on lambda
            return int(best[np.abs(self.lams[best] - joint.mu).argmin()])
        values[best] = values.max()
        return best_plateau(values, self.lams).middle

    def choose(
        self, goal: Metric, counted: Counted, values: NDArray[np.float64], folds: Sequence[int] | None
    ) -> Choice:
        """The anchored one-SE rule.

        Parameters
        ----------
        goal : Metric
        counted : Counted
            What was counted along the lattice, in these folds.
        values : (G,) float64
            The objective.
        folds : sequence of int or None
            Tables whose units count.
        """
        if goal.among is not None:
            return self.of(goal).choose(Accuracy(), counted, values, folds)
        mask = self.mask(folds)
        key = goal.name, None if folds is None else tuple(folds), values.tobytes()
        if key not in self._choices:
            kept = self.kept if mask.all() else self.kept.take(mask)
            errors = self._errors(goal, kept, mask, counted)
            self._choices[key] = choose(values, self.lams, self.anchor(goal, mask), *errors)
        return self._choices[key]

    def _errors(
        self, goal: Metric, kept: Kept, mask: NDArray[np.bool_], counted: Counted
    ) -> tuple[Callable[[Any, int], Any], Callable[[int], float]]:
        """Standard errors of chosen units for the rule: of some points against another, and what bounds all of them."""
        errors = Errors(goal, self.asked.rules, kept, counted.counts.support)
        chosen, runs = np.flatnonzero(mask), self.runs(counted)
        size = max(1, _AT_ONCE // max(kept.n, 1))

        def along(places: NDArray[np.int64], best: int) -> NDArray[np.float64]:
            points, back = np.unique(runs[places], return_inverse=True)  # what is the same at several, once
            theirs = self.predictions(np.array([best]), chosen)[0]
            pieces = (points[first : first + size] for first in range(0, points.size, size))
            found = [
                errors.along(self.predictions(some, chosen), counted.at(some), theirs, counted.at(best))
                for some in pieces
            ]
            return np.concatenate(found)[back]

        def most(best: int) -> float:
            weights = goal.weights(counted.at(best), self.asked.rules)
            if kept.n < MANY or weights is None:
                return float("inf")
            theirs = self.predictions(np.array([best]), chosen)[0]
            reach = 4 * float(errors.spread(errors.influence(theirs, weights), weights.hit)) + 0.01
            return reach if math.isfinite(reach) else math.inf

        return along, most

    def runs(self, counted: Counted) -> NDArray[np.int64]:
        """For every lattice point, the first of those before it at which all is the same."""
        changed = np.zeros(self.lams.size, dtype=bool)
        if self.few is self:
            changed[self.trail.at] = True
        return first_of_runs([counted.counts.hits, counted.counts.predicted], changed)

    # ------------------------------------------------------------ what it gains

    @cached_property
    def folds(self) -> NDArray[np.int64]:
        """The fold of every kept unit: stratified by class, by a hash of its place; clusters are never divided."""
        kept = self.kept
        clusters, cluster = np.unique(kept.clusters, return_inverse=True)
        alone = clusters.size == kept.n
        key = mix((kept.places if alone else clusters).astype(np.uint64))
        order = np.lexsort((key, kept.labels)) if alone else np.argsort(key, kind="stable")
        found = np.empty(order.size, dtype=np.int64)
        if alone:
            sizes = np.bincount(kept.labels, minlength=self.n_classes)
            ranks = np.arange(order.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            found[order] = (ranks + kept.labels[order]) % GAIN_FOLDS
            return found
        found[order] = np.arange(order.size) % GAIN_FOLDS
        return found[cluster]

    def crossed(self, points: Sequence[int]) -> NDArray[np.int64]:
        """Decisions of the kept units, (n,), of each fold at a point of its own."""
        found = np.empty(self.kept.n, dtype=np.int64)
        for fold, place in enumerate(points):
            out = self.folds == fold
            found[out] = self.at(place)[out]
        return found

    def fold_points(self, goal: Metric, index: int) -> list[int]:
        """The point that the units outside of each fold lead to; `index` where nothing can be chosen."""
        if goal.among is not None:
            return self.of(goal).fold_points(Accuracy(), index)
        known = all(one.metric.has_errors for one in self.asked.constraints)
        if goal.recipe is not None or self.lams.size == 1 or self.rule == "fixed" or not known:
            return [index] * GAIN_FOLDS
        found = []
        for fold in range(GAIN_FOLDS):
            out = self.folds == fold
            others = [i for i in range(GAIN_FOLDS) if i != fold]
            counted = self._by_fold.pooled(others)
            values = goal.values(counted, self.asked.rules) * (1.0 if goal.HIGHER else -1.0)
            values = np.where(np.isfinite(values) & self._allowed(others), values, -np.inf)
            place = index
            if out.any() and not out.all() and values.max() > -np.inf:
                place = self._without(goal, counted, values, out)
            found.append(place)
        return found

    @cached_property
    def _by_fold(self) -> Curve:
        """Counts of the kept units along the lattice, by folds."""
        counts = self.trail.counts(self.kept.labels, self.lams.size, self.n_classes, self.folds, GAIN_FOLDS)
        return Curve(self.lams, counts)

    def _allowed(self, folds: Sequence[int]) -> NDArray[np.bool_]:
        """Where the constraints hold in some folds, (G,)."""
        met, rules = np.ones(self.lams.size, dtype=bool), self.asked.rules
        inside = np.isin(self.folds, list(folds))
        for one in self.asked.constraints:
            view, metric = (self.base if isinstance(self, Ranked) else self).of(one.metric), one.metric
            metric = metric if metric.among is None else Accuracy()
            counted, plain = view._by_fold.pooled(folds), view.counted(view.plain.astype(np.int64), inside)
            met &= one.holds(
                values := metric.values(counted, rules), metric.exact(plain, rules), rounding(self.n_classes, values),
                functools.partial(_exactly, metric, counted, rules),
            )  # fmt: skip
        return met

    def _without(self, goal: Metric, counted: Counted, values: NDArray[np.float64], out: NDArray[np.bool_]) -> int:
        """What units outside a fold lead to."""
        values = np.where(values >= values.max() - 1e-12, values.max(), values)
        if self.rule == "best":
            return best_plateau(values, self.lams).middle
        anchor = self.anchor(goal, ~out) if self.kept.n <= REFITTED else self._own_anchor(goal)
        kept = self.kept.take(~out)
        return nearest(values, self.lams, anchor, *self._errors(goal, replace(kept, seen=kept.n), ~out, counted))

    def _own_anchor(self, goal: Metric) -> int:
        if goal not in self._anchors:
            self._anchors[goal] = self.anchor(goal)
        return self._anchors[goal]

    def gains(
        self, goal: Metric, metrics: Sequence[Metric], index: int, before: Counted, after: Counted
    ) -> dict[str, Gain]:
        """Of each metric of decisions, with intervals.

        Parameters
        ----------
        goal : Metric
            What lambda was chosen for.
        metrics : sequence of Metric
        index : int
            The point chosen.
        before, after : Counted
            All of the data as it is, and there.
        """
        if not self.kept.n:
            return {}
        if not self.knows_plain:
            rules = self.asked.rules
            return {
                one.name: Gain(float(one.values(after, rules)) - float(one.values(before, rules)))
                for one in metrics
                if one.has_errors and np.isfinite(one.values(after, rules))
            }
        points, known, gains = self.few.fold_points(goal, index), {}, {}
        for one in metrics:
            if not (one.has_errors and np.isfinite(one.values(after, self.asked.rules))):
                continue
            if one.among not in known:
                view = self.of(one)
                own, few = (view.at(index), view.plain.astype(np.int64)), view.few
                some = own if few is view else (few.at(index), few.plain.astype(np.int64))
                known[one.among] = view, own, (few.crossed(points), *some)
            view, own, crossed = known[one.among]
            gains[one.name] = view._gain(one, own, crossed, before, after, view.few)
        return gains

    def worth(self, metric: Metric, own: Any, crossed: NDArray[np.int64], before: Counted, after: Counted) -> Gain:
        """The gain of other predictions of all kept units: own, and as it is; and cross-fitted."""
        return self._gain(metric, own, (crossed, *own), before, after, self)

    def _gain(self, metric: Metric, own: Any, crossed: Any, before: Counted, after: Counted, few: Sampled) -> Gain:
        """From predictions there and as it is; and, of fewer units perhaps, cross-fitted, there and as it is."""
        rules = self.asked.rules
        apparent = float(metric.values(after, rules)) - float(metric.values(before, rules))
        metric = metric if metric.among is None else Accuracy()
        if not self.several:
            return Gain(apparent)
        if apparent == 0.0 and np.array_equal(own[0], own[1]):
            return Gain(0.0, 0.0, 0.0, 0.0)  # nothing is decided otherwise
        fair, chosen, plain = crossed
        # one unit predicted as a class that has none would change what is averaged
        same = replace(rules, absent="truth-only") if rules.absent == "reference" else rules
        values = [float(metric.values(few.counted(one), same)) for one in (chosen, fair)]
        gain = apparent - (values[0] - values[1]) * few.kept.share * _labelled(metric, after, same, rules)
        errors = Errors(metric, rules, self.kept, after.counts.support)
        se = errors.of(own[0], after, own[1], before, 1)
        if few is not self:
            errors = Errors(metric, rules, few.kept, after.counts.support)
        crossed_se = errors.of(fair, after, plain, before, 1)
        if not (math.isfinite(se) and math.isfinite(crossed_se)):
            return Gain(apparent)
        spread = max(se, crossed_se) ** 2 + self._prior_weight(metric, after) / 2
        half = Z95 * float(np.sqrt(spread))
        return Gain(gain, gain - half, gain + half, se)

    def counted(self, predictions: Any, chosen: NDArray[np.bool_] | None = None) -> Counted:
        """Counts of the kept units, (n,) predicted so, or of chosen ones."""
        labels, k = self.kept.labels, self.n_classes
        if chosen is not None:
            labels, predictions = labels[chosen], predictions[chosen]
        hits = np.bincount(labels[predictions == labels], minlength=k)
        return Counted(Counts(hits, np.bincount(predictions, minlength=k), np.bincount(labels, minlength=k)))

    def _prior_weight(self, metric: Metric, counted: Counted) -> float:
        """Sum of squares of what one unit more of each class could change: a class of few units is not known well."""
        weights = metric.weights(counted, self.asked.rules)
        if weights is None:
            return 0.0
        n = counted.counts.support
        return float(((weights.hit * n / (n + 2.0)) ** 2).sum())


@dataclass
class Ranked(Sampled):
    """The same of whether labels are among the best classes: what is "decided" is the label then, else another class.

    The share of such units is the accuracy of these decisions.

    Parameters
    ----------
    base : Sampled
    metric : Metric
        Of ranks.
    """

    base: Sampled
    metric: Metric

    def _ranked_at(self, kept: Kept, lines: Lines) -> NDArray[np.int32]:
        assert self.metric.among is not None
        return among_best(kept, lines, self.metric.among)

    @cached_property
    def few(self) -> Sampled:
        """Of fewer units."""
        few = self.base.few
        return self if few is self.base else few.of(self.metric)

    @cached_property
    def trail(self) -> Trail:
        """Along the lattice."""
        slopes = self.decider.slopes
        return Trail.of_decisions([self._ranked_at(self.kept, make_lines(slopes.values, slopes.masked, self.lams))])

    def predict(self, lam: float) -> NDArray[np.int32]:
        """At a lambda, (n,)."""
        return np.asarray(self._ranked_at(self.kept, self.decider.point(lam))[0])

    @cached_property
    def plain(self) -> NDArray[np.int32]:
        """Of the scores as they are."""
        return np.asarray(self._ranked_at(self._as_is, self._untilted)[0])

    def anchor(self, goal: Metric, chosen: NDArray[np.bool_] | None = None) -> int:
        """What the probabilities say is of the scores, not of ranks."""
        return self.base.anchor(self.metric, chosen)


def _labelled(metric: Metric, counted: Counted, same: Rules, rules: Rules) -> float:
    """By what a mean over the classes with labels is divided, of what the metric itself is divided by."""
    if not isinstance(metric, ClassMean):
        return 1.0
    these, all_ = (int(metric.averaged(counted.counts, one).sum()) for one in (same, rules))
    return these / all_ if all_ else 1.0


def _exactly(metric: Metric, counted: Counted, rules: Rules, i: int) -> Exact | None:
    """A metric at one point of a curve, without any rounding."""
    return metric.exact(counted.at(i), rules)
