"""The anchored one-SE rule: of the lambdas that are as good as the best within one standard error, the likeliest.

What is as good is told by the exact curve and the paired standard error of each point against the best; what is
likeliest, by the joint fit of temperature and lambda to the labels. Standard errors, the fit and the anchor come from
the kept sample, which is all of the data where that is small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unoic_cli.metrics import Counted, Counts, Metric, Rules
from unoic_cli.searches.choice import best_plateau

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.kernels.lines import Lines
    from unoic_cli.tallies.kept import Kept

FIXED = 1 << 20
"""Probabilities are summed as integers: any metric of counts is worth the same when all are scaled."""
NEAR = 1e-12
REPEATS = 200
"""Bootstrap samples, where no formula is known."""
SEED = 0
MANY = 8192
"""Units from which on standard errors are looked at only where they can matter."""


class Trail:
    """Who is predicted of kept units at every point of a lattice.

    Parameters
    ----------
    start : (n,) integers
        At the first point.
    items, at, new : (C,) integers
        Changes: of which unit, from which point on, and to what; by ascending points.
    """

    def __init__(self, start: Any, items: Any, at: Any, new: Any) -> None:
        import numpy as np

        order = np.argsort(at, kind="stable")
        self.start, self.items, self.at, self.new = start, items[order], at[order], new[order]

    @classmethod
    def of_lines(cls, kept: Kept, lines: Lines) -> Trail:
        """Of scores that are lines in lambda."""
        import numpy as np

        from unoic_cli.kernels import plain

        if not kept.n:
            empty = np.zeros(0, dtype=np.int64)
            return cls(empty, empty, empty, empty)
        start, changes = plain.trail(kept.scores[:, 0].astype(np.float64), lines)
        items, at, _, new = (np.concatenate([one[i] for one in changes] or [start[:0]]) for i in range(4))
        return cls(start, items, at, new)

    @classmethod
    def of_points(cls, predict: Callable[[float], NDArray[np.int32]], lams: NDArray[np.float64]) -> Trail:
        """Of single lambdas, one after the other."""
        import numpy as np

        before = start = predict(float(lams[0])).astype(np.int64)
        found = []
        for i, lam in enumerate(lams.tolist()[1:], 1):
            after = predict(lam).astype(np.int64)
            items = np.flatnonzero(after != before)
            found.append((items, np.full(items.size, i), after[items]))
            before = after
        parts = (np.concatenate([start[:0], *(one[i] for one in found)]) for i in range(3))
        return cls(start, *parts)

    def predictions(self, point: int) -> NDArray[np.int64]:
        """At a point, (n,)."""
        import numpy as np

        found: NDArray[np.int64] = self.start.copy()
        stop = int(np.searchsorted(self.at, point, side="right"))
        found[self.items[:stop]] = self.new[:stop]  # of several changes of a unit the last one stays
        return found

    def counts(
        self, labels: NDArray[Any], n_points: int, n_classes: int, tables: NDArray[Any], n_tables: int
    ) -> Counts:
        """Hits and predictions along the lattice, (F, G, K), and the support (F, 1, K), by tables of the units."""
        import numpy as np

        hits, predicted = (np.zeros((n_tables, n_points + 1, n_classes), dtype=np.int64) for _ in range(2))
        units = np.arange(len(labels))
        moves = [(units, np.zeros(len(labels), dtype=np.int64), self.start, 1)]
        moves += [(self.items, self.at, self._old, -1), (self.items, self.at, self.new, 1)]
        for items, at, who, sign in moves:
            np.add.at(predicted, (tables[items], at, who), sign)
            hit = who == labels[items]
            np.add.at(hits, (tables[items][hit], at[hit], who[hit]), sign)
        support = np.zeros((n_tables, 1, n_classes), dtype=np.int64)
        np.add.at(support, (tables, np.zeros_like(tables), labels), 1)
        return Counts(hits.cumsum(axis=1)[:, :n_points], predicted.cumsum(axis=1)[:, :n_points], support)

    @cached_property
    def _old(self) -> NDArray[np.int64]:
        """What each change is from."""
        import numpy as np

        order = np.lexsort((self.at, self.items))
        items, new = self.items[order], self.new[order]
        first = np.ones(items.size, dtype=bool)
        first[1:] = items[1:] != items[:-1]
        old = np.empty_like(new)
        old[1:] = new[:-1]
        old[first] = self.start[items[first]]
        back: NDArray[np.int64] = np.empty_like(old)
        back[order] = old
        return back

    def expected(self, posterior: NDArray[np.float64], n_points: int) -> Counts:
        """The same of labels that are known by their probabilities, in units of 2**-20; one table, no axis for it."""
        import numpy as np

        shape = (n_points + 1, posterior.shape[1])
        hits, predicted = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        units = np.arange(len(posterior))
        np.add.at(hits, (0, self.start), posterior[units, self.start])
        np.add.at(predicted, (0, self.start), 1)
        for who, sign in ((self._old, -1), (self.new, 1)):
            np.add.at(hits, (self.at, who), sign * posterior[self.items, who])
            np.add.at(predicted, (self.at, who), sign)
        of_units = np.round(hits.cumsum(axis=0)[:n_points] * FIXED).clip(0).astype(np.int64)
        support = np.round(posterior.sum(axis=0) * FIXED).astype(np.int64)
        return Counts(of_units, predicted.cumsum(axis=0)[:n_points] * FIXED, support)


class Errors:
    """Paired standard errors of a metric's difference between two sets of predictions of kept units.

    Parameters
    ----------
    metric : Metric
    rules : Rules
    kept : Kept
    support : (K,) integers
        Units of each class in all of the data.
    alone : bool
        Every unit is a cluster of its own.
    """

    def __init__(self, metric: Metric, rules: Rules, kept: Kept, support: NDArray[np.int64]) -> None:
        import numpy as np

        self.metric, self.rules, self.kept = metric, rules, kept
        self.support = np.asarray(support).reshape(-1, kept.scores.shape[2])[0]
        self.labels = kept.labels
        self.own = np.bincount(kept.labels, minlength=self.support.size)
        _, self.cluster = np.unique(kept.clusters, return_inverse=True)
        self.alone = kept.n == 0 or int(self.cluster.max()) + 1 == kept.n

    def influence(self, predictions: NDArray[Any], counted: Counted) -> NDArray[np.float64] | None:
        """u_i of every kept unit, where predictions of all of the data were counted so; None: no formula."""
        import numpy as np

        weights = self.metric.weights(counted, self.rules)
        if weights is None:
            return None
        hits = np.where(predictions == self.labels, weights.hit[self.labels], 0.0)
        return np.asarray(hits - weights.predicted[predictions])

    def of(
        self, ours: NDArray[Any], here: Counted, theirs: NDArray[Any], there: Counted, ddof: int = 0
    ) -> float:  # fmt: skip
        """The standard error of the metric of ours minus that of theirs."""
        first = self.influence(ours, here)
        second = self.influence(theirs, there)
        if first is None or second is None:
            return self._bootstrap(ours, theirs)
        return self.spread(first - second, ddof)

    def spread(self, d: NDArray[np.float64], ddof: int = 0) -> float:
        """Square root of sum_y n_y var_y(d); of clusters, of the variance of their sums."""
        import numpy as np

        total, k = float(self.kept.n), len(self.support)
        if not total:
            return 0.0
        sums = np.bincount(self.labels, weights=d, minlength=k)
        means = np.divide(sums, self.own, out=np.zeros(k), where=self.own > 0)
        centred = d - means[self.labels]
        squares = np.bincount(self.labels, weights=centred**2, minlength=k)
        left = self.own - ddof
        scale = np.divide(self.support, left, out=np.zeros(k), where=left > 0)
        variance = float((squares * scale).sum())
        if not self.alone:
            variance = max(variance, self._of_clusters(centred))
        return float(np.sqrt(variance))

    def _of_clusters(self, centred: NDArray[np.float64]) -> float:
        """The variance of a sum over clusters, from the units of each that were kept."""
        import numpy as np

        share = self.kept.share
        sums = np.bincount(self.cluster, weights=centred) / share
        n = sums.size
        by_chance = (1 - share) / share**2 * float((centred**2).sum())
        return max(0.0, float((sums**2).sum()) - by_chance) * n / max(n - 1, 1)

    def _bootstrap(self, ours: NDArray[Any], theirs: NDArray[Any]) -> float:
        """By drawing units (or clusters) again, in cells of equal label and predictions."""
        import numpy as np

        if self.metric.recipe is not None or not self.kept.n:
            return 0.0
        k = len(self.support)
        cells, places = np.unique((self.labels * k + ours) * k + theirs, return_inverse=True)
        rng = np.random.default_rng(SEED)
        if self.alone:
            drawn = rng.multinomial(self.kept.n, np.bincount(places) / self.kept.n, REPEATS)
        else:
            n = int(self.cluster.max()) + 1
            of_cluster = np.zeros((n, cells.size), dtype=np.int64)
            np.add.at(of_cluster, (self.cluster, places), 1)
            drawn = rng.multinomial(n, np.full(n, 1 / n), REPEATS) @ of_cluster
        label, first, second = cells // (k * k), cells // k % k, cells % k
        differences = self._values(drawn, label, first, k) - self._values(drawn, label, second, k)
        finite = differences[np.isfinite(differences)]
        scale = np.sqrt(self.kept.share)
        return float(finite.std(ddof=1) * scale) if finite.size > 1 else 0.0

    def _values(self, drawn: Any, label: Any, who: Any, k: int) -> NDArray[np.float64]:
        import numpy as np

        one = np.eye(k, dtype=np.int64)
        support, predicted = drawn @ one[label], drawn @ one[who]
        hits = drawn @ (one[label] * (label == who)[:, None])
        return self.metric.values(Counted(Counts(hits, predicted, support)), self.rules)


@dataclass(frozen=True)
class Choice:
    """The point of a curve that the rule takes.

    Attributes
    ----------
    index, best, anchor : int
        The point taken, the middle of the best plateau, and the point nearest to what the probabilities say.
    first, last : int
        The first and the last point that is as good as the best within one standard error.
    se : float
        Of the difference between the point taken and the best.
    value : float
        The objective there.
    """

    index: int
    best: int
    anchor: int
    first: int
    last: int
    se: float
    value: float


def choose(
    values: NDArray[np.float64], lams: NDArray[np.float64], anchor: int, error: Callable[[int, int], float],
    unlikely: Callable[[int], float] | None = None,
) -> Choice:  # fmt: skip
    """Of the points within one standard error of the best, the one nearest to the anchor; of two, the lower.

    Parameters
    ----------
    values : (G,) float64
        The objective; -inf where constraints do not hold.
    lams : (G,) float64
    anchor : int
        A point.
    error : callable
        The standard error of the difference between two points.
    unlikely : callable, optional
        Of the best point, a difference beyond which no point can be within one standard error.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.array([0.5, 0.70, 0.71, 0.71, 0.71, 0.6])
    >>> choose(values, np.arange(6.0), 0, lambda i, j: 0.02)
    Choice(index=1, best=3, anchor=0, first=1, last=4, se=0.02, value=0.7)
    """
    import numpy as np

    best = best_plateau(values, lams)
    most = np.inf if unlikely is None else unlikely(best.middle)
    places = np.flatnonzero(values >= best.value - most).tolist()
    errors = {i: 0.0 if values[i] == best.value else error(i, best.middle) for i in places if values[i] > -np.inf}
    good = np.array([i for i, se in errors.items() if values[i] >= best.value - se - NEAR])
    index = int(good[np.abs(good - anchor).argmin()])
    return Choice(index, best.middle, anchor, int(good[0]), int(good[-1]), errors[index], float(values[index]))
