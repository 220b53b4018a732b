"""The anchored one-SE rule: of the lambdas that are as good as the best within one standard error, the likeliest.

What is as good is told by the exact curve and the paired standard error of each point against the best; what is
likeliest, by the joint fit of temperature and lambda to the labels. Standard errors, the fit and the anchor come from
the kept sample, which is all of the data where that is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unoic_cli.metrics import Counted, Counts, Metric, Rules, Weights
from unoic_cli.searches.choice import Plateau, best_plateau
from unoic_cli.searches.joint import to_digits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.kernels.lines import Lines
    from unoic_cli.tallies.kept import Kept, Units

FIXED = 1 << 20
"""Probabilities are summed as integers: any metric of counts is worth the same when all are scaled."""
NEAR = 1e-12
REPEATS = 200
"""Bootstrap samples, where no formula is known."""
SEED = 0
_AT_ONCE = 1 << 21
"""Units times lambdas, or classes, that are ranked at once."""
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
    def of_decisions(cls, decided: Iterable[NDArray[np.int32]]) -> Trail:
        """Of decisions at one point after the other: pieces, in order, (P, n) each."""
        import numpy as np

        start: Any = None
        found, point, before = [], 0, None
        for rows in decided:
            before = rows[:1] if before is None else before
            start = rows[0].astype(np.int64) if start is None else start
            at, items = np.nonzero(rows != np.concatenate([before, rows[:-1]]))
            found.append((items, at + point, rows[at, items].astype(np.int64)))
            point, before = point + len(rows), rows[-1:]
        return cls(start, *(np.concatenate([one[i] for one in found]) for i in range(3)))

    def several(self, points: NDArray[np.int64], chosen: NDArray[Any]) -> NDArray[np.int64]:
        """Of chosen units at some points, ascending, (M, n)."""
        import numpy as np

        found, now, done = [], self.start.copy(), 0
        for stop in np.searchsorted(self.at, points, side="right").tolist():
            now[self.items[done:stop]] = self.new[done:stop]  # of several changes of a unit the last one stays
            found.append(now[chosen])
            done = stop
        return np.stack(found)

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
        support[support.argmax()] += len(posterior) * FIXED - support.sum()  # all that is predicted, and no more
        return Counts(of_units, predicted.cumsum(axis=0)[:n_points] * FIXED, support)


def among_best(kept: Kept, lines: Lines, among: int) -> NDArray[np.int32]:
    """The label of each kept unit where it is among the best classes at a lambda, and else another class, (G, n)."""
    import numpy as np

    out = np.empty((lines.lams.size, kept.n), dtype=np.int32)
    size = max(1, _AT_ONCE // max(lines.lams.size, kept.n_classes))
    for first in range(0, kept.n, size):
        piece = slice(first, first + size)
        labels = kept.labels[piece].astype(np.int64)
        found = labels_among(
            kept.scores[piece, 0].astype(np.float64) + _masks(lines), labels,
            kept.factors[piece, :1] * lines.slope, lines.lams, among,
        )  # fmt: skip
        out[:, piece] = np.where(found, labels, (labels + 1) % kept.n_classes)
    return out


def _masks(lines: Lines) -> Any:
    import numpy as np

    return np.where(np.isneginf(lines.bias0[: lines.n_classes]), -np.inf, 0.0)


def labels_among(z: Any, labels: Any, slopes: Any, lams: Any, among: int) -> NDArray[np.bool_]:
    """Whether fewer than so many classes lie before the label, at every lambda: of equal scores the first class does.

    Parameters
    ----------
    z : (n, K) float64
        Scores at lambda 0; -inf: never chosen.
    labels : (n,) integers
    slopes : (n, K) float64
    lams : (G,) float64
        Ascending.
    among : int

    Returns
    -------
    (G, n) bool

    Examples
    --------
    >>> import numpy as np
    >>> z, slopes = np.array([[2.0, 1.0, 0.0]]), np.array([[-1.0, 0.0, 1.0]])
    >>> labels_among(z, np.array([2]), slopes, np.array([0.0, 0.5, 1.0, 1.5]), 1)[:, 0].tolist()
    [False, False, False, True]
    """
    import numpy as np

    n, k = z.shape
    rows = np.arange(n)
    own = z[rows, labels]
    known = np.isfinite(own)
    ahead = z - np.where(known, own, 0.0)[:, None]
    turn = slopes - slopes[rows, labels][:, None]
    earlier = np.arange(k) < labels[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -ahead / turn
    crossing = np.where(turn == 0.0, np.where((ahead > 0) | ((ahead == 0) & earlier), -np.inf, np.inf), crossing)
    low, high = np.searchsorted(lams, crossing, "left"), np.searchsorted(lams, crossing, "right")
    rises = turn >= 0.0
    place = np.where(rises == earlier, low, high)  # at the crossing itself the earlier class is ahead
    change = np.zeros((lams.size + 1, n), dtype=np.int32)
    others = np.arange(k) != labels[:, None]
    units, classes = np.nonzero(others & rises)
    np.add.at(change, (place[units, classes], units), 1)
    units, classes = np.nonzero(others & ~rises)
    np.add.at(change, (np.zeros_like(units), units), 1)
    np.add.at(change, (place[units, classes], units), -1)
    return np.asarray((change.cumsum(axis=0)[:-1] < among) & known)


class Errors:
    """Paired standard errors of a metric's difference between two sets of predictions of kept units.

    Parameters
    ----------
    metric : Metric
    rules : Rules
    kept : Units
    support : (K,) integers
        Units of each class in all of the data.
    """

    def __init__(self, metric: Metric, rules: Rules, kept: Units, support: NDArray[np.int64]) -> None:
        import numpy as np

        self.metric, self.rules, self.kept = metric, rules, kept
        self.support = np.asarray(support).reshape(-1, kept.n_classes)[0]
        self.order, self.cluster = kept.by_label
        self.labels = kept.labels[self.order].astype(np.int64)
        own = np.bincount(self.labels, minlength=self.support.size)
        present = np.flatnonzero(own)
        self.own, self.size = own[present], self.support[present]
        self.first = np.cumsum(self.own) - self.own
        rare = (own < 2) & (own < self.support)
        self.rare, self.well = np.flatnonzero(rare), present[~rare[present]]
        self._well, self._rare_units = ~rare[present], np.flatnonzero(rare[self.labels])
        self.n_clusters = int(self.cluster.max()) + 1 if kept.n else 0
        self.alone = self.n_clusters == kept.n
        self._against: tuple[Any, Any, NDArray[np.float64] | None] | None = None

    def _of_theirs(self, theirs: NDArray[Any], there: Counted) -> NDArray[np.float64] | None:
        """The influence of what others are compared with, which is the same for many; None without derivatives."""
        known = self._against
        if known is None or known[0] is not theirs or known[1] is not there:
            weights = self.metric.weights(there, self.rules)
            known = theirs, there, None if weights is None else self.influence(theirs, weights)
            self._against = known
        return known[2]

    def influence(self, predictions: NDArray[Any], weights: Weights) -> NDArray[np.float64]:
        """u_i of every kept unit, in the order of the labels, (..., n); weights are of the same points, (..., K)."""
        import numpy as np

        ours = predictions[..., self.order]
        hit = np.take(weights.hit, self.labels, axis=-1)
        if not weights.predicted.any():
            return np.where(ours == self.labels, hit, 0.0)
        return np.where(ours == self.labels, hit, 0.0) - np.take_along_axis(weights.predicted, ours, axis=-1)

    def of(
        self, ours: NDArray[Any], here: Counted, theirs: NDArray[Any], there: Counted, ddof: int = 0
    ) -> float:  # fmt: skip
        """The standard error of the metric of ours minus that of theirs, (n,) predictions that were counted so."""
        counts = Counts(here.counts.hits[None], here.counts.predicted[None], here.counts.support)
        return float(self.along(ours[None], Counted(counts), theirs, there, ddof)[0])

    def along(
        self, ours: NDArray[Any], here: Counted, theirs: NDArray[Any], there: Counted, ddof: int = 0
    ) -> NDArray[np.float64]:
        """The same of M points, (M, n) predictions, against one."""
        import numpy as np

        first, second = self.metric.weights(here, self.rules), self.metric.weights(there, self.rules)
        if first is None or second is None:
            return np.array([self._bootstrap(one, theirs) for one in ours])
        return self.spread(self.influence(ours, first) - self.influence(theirs, second), second.hit, ddof)

    def surely(self, ours: NDArray[Any], here: Counted, theirs: NDArray[Any], there: Counted) -> float:
        """As `of`, where some classes have few units: of each class no less is unknown than by the rule of succession.

        One unit or two that move alike have no variance, and tell little. c_y^2 / 2 is about the variance of the share
        of n_y units that are right, were one more right and one more wrong.
        """
        import numpy as np

        first, second = self.metric.weights(here, self.rules), self._of_theirs(theirs, there)
        if first is None or second is None:
            return self.of(ours, here, theirs, there, 1)
        d = self.influence(ours, first) - second
        if not d.any():
            return 0.0
        n = self.support.astype(np.float64)
        least = (first.hit * n / (n + 2.0)) ** 2 / 2
        return float(self.spread(d, first.hit, 1, least))

    def spread(
        self, d: NDArray[np.float64], hit: NDArray[np.float64], ddof: int = 0,
        least: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:  # fmt: skip
        """Square root of sum_y n_y var_y(d), d of (..., n); of clusters, of the variance of their sums.

        `least` is what each class, (K,), has at least; see `within` for `hit`.
        """
        import numpy as np

        if not self.kept.n:
            return np.zeros(d.shape[:-1])
        centred, well, rare = self.within(d, hit, ddof)
        if least is not None:
            well, rare = np.maximum(well, least[self.well]), np.maximum(rare, least[self.rare].sum())
        variance = well.sum(axis=-1) + rare
        if not self.alone:
            variance = np.maximum(variance, self._of_clusters(centred))
        return np.asarray(np.sqrt(variance))

    def within(
        self, d: NDArray[np.float64], hit: NDArray[np.float64], ddof: int = 0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """What units of one class differ by.

        Where a sample has one unit of a class at most, and the data more, its class alone tells nothing of it. Such
        units are compared with what the others like them add, each for its class's `hit`; and each stands for all of
        the units, and all of the classes, that could have been kept in its place (Horvitz and Thompson).

        Parameters
        ----------
        d : (..., n) float64
            What each kept unit adds, in the order of the labels.
        hit : (K,) float64
            What a right unit of each class adds; where that is not known, 1 / n_y is taken.
        ddof : int
            Of classes that are kept whole; of others it is 1.

        Returns
        -------
        centred : (..., n) float64
            d less the mean of its class.
        well : (..., P) float64
            n_y var_y(d) of the classes `well`.
        rare : (...) float64
            The sum of that over the classes `rare`.
        """
        import numpy as np

        means = np.add.reduceat(d, self.first, axis=-1) / self.own
        centred = d - np.repeat(means, self.own, axis=-1)
        squares = np.add.reduceat(centred**2, self.first, axis=-1)
        left = self.own - np.where(self.own < self.size, 1, ddof)
        own = squares * np.divide(self.size, left, out=np.zeros(left.size), where=left > 0)
        well = own[..., self._well]
        if not self.rare.size:
            return centred, well, np.zeros(d.shape[:-1])
        n = np.maximum(self.support, 1).astype(np.float64)
        scale = np.where(np.isfinite(hit) & (hit > 0), hit, 1 / n)
        some = self._rare_units
        if some.size < 2:  # too few: by what units of the other classes differ
            theirs = scale[self.labels[np.repeat(self._well, self.own)]]
            ratio = squares[..., self._well].sum(axis=-1) / max(float((theirs**2).sum()), 1e-300)
            degrees = max(int((self.own - 1)[self._well].sum()), 1) / max(theirs.size, 1)
            return centred, well, ratio / degrees * float((scale**2 * self.support)[self.rare].sum())
        theirs = scale[self.labels[some]]
        mean = (d[..., some] @ theirs) / float(theirs @ theirs)
        centred[..., some] = d[..., some] - mean[..., None] * theirs
        stands = (1 + self.support[self.labels[some]] * self.kept.share) / self.kept.share
        return centred, well, (centred[..., some] ** 2) @ stands * some.size / (some.size - 1)

    def _of_clusters(self, centred: NDArray[np.float64]) -> NDArray[np.float64]:
        """The variance of a sum over clusters, from the units of each that were kept."""
        import numpy as np

        share, n = self.kept.share, self.n_clusters
        rows = centred.reshape(-1, centred.shape[-1])
        sums = np.stack([np.bincount(self.cluster, weights=row, minlength=n) for row in rows]) / share
        by_chance = (1 - share) / share**2 * (rows**2).sum(axis=1)
        found = np.maximum(0.0, (sums**2).sum(axis=1) - by_chance) * n / max(n - 1, 1)
        return np.asarray(found.reshape(centred.shape[:-1]))

    def _bootstrap(self, ours: NDArray[Any], theirs: NDArray[Any]) -> float:
        """By drawing units (or clusters) again, in cells of equal label and predictions."""
        import numpy as np

        if self.metric.recipe is not None or not self.kept.n:
            return 0.0
        k, ours, theirs = self.support.size, ours[self.order], theirs[self.order]
        cells, places = np.unique((self.labels * k + ours) * k + theirs, return_inverse=True)
        rng = np.random.default_rng(SEED)
        if self.alone:
            drawn = rng.multinomial(self.kept.n, np.bincount(places) / self.kept.n, REPEATS)
        else:
            n = self.n_clusters
            of_cluster = np.zeros((n, cells.size), dtype=np.int64)
            np.add.at(of_cluster, (self.cluster, places), 1)
            drawn = rng.multinomial(n, np.full(n, 1 / n), REPEATS) @ of_cluster
        label, first, second = cells // (k * k), cells // k % k, cells % k
        differences = self._values(drawn, label, first, k) - self._values(drawn, label, second, k)
        finite = differences[np.isfinite(differences)]
        return float(finite.std(ddof=1) * np.sqrt(self.kept.share)) if finite.size > 1 else 0.0

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
    values: NDArray[np.float64], lams: NDArray[np.float64], anchor: int,
    errors: Callable[[NDArray[np.int64], int], NDArray[np.float64]], most: Callable[[int], float] | None = None,
) -> Choice:  # fmt: skip
    """Of the points within one standard error of the best, the one nearest to the anchor; of two, the lower.

    Parameters
    ----------
    values : (G,) float64
        The objective; -inf where constraints do not hold.
    lams : (G,) float64
    anchor : int
        A point.
    errors : callable
        The standard errors of the differences between some points and another.
    most : callable, optional
        Of the best point, a difference beyond which no point can be within one standard error.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.array([0.5, 0.70, 0.71, 0.71, 0.71, 0.6])
    >>> choose(values, np.arange(6.0), 0, lambda points, best: np.full(points.size, 0.02))
    Choice(index=1, best=3, anchor=0, first=1, last=4, se=0.02, value=0.7)
    """
    import numpy as np

    best = best_plateau(values, lams)
    places = _within_reach(values, best, most)
    se = _errors_at(places, values, best, errors)
    good = places[values[places] >= best.value - se - NEAR]
    index = int(good[np.abs(good - anchor).argmin()])
    own = to_digits(float(se[places == index][0]))
    return Choice(index, best.middle, anchor, int(good[0]), int(good[-1]), own, float(values[index]))


def nearest(
    values: NDArray[np.float64], lams: NDArray[np.float64], anchor: int,
    errors: Callable[[NDArray[np.int64], int], NDArray[np.float64]], most: Callable[[int], float] | None = None,
) -> int:  # fmt: skip
    """The point that `choose` takes, from errors of those alone that lie nearer to the anchor.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.array([0.5, 0.70, 0.71, 0.71, 0.71, 0.6])
    >>> nearest(values, np.arange(6.0), 0, lambda points, best: np.full(points.size, 0.02))
    1
    """
    import numpy as np

    best = best_plateau(values, lams)
    places = _within_reach(values, best, most)
    places = places[np.argsort(np.abs(places - anchor), kind="stable")]
    first, size = 0, 1
    while True:
        some = places[first : first + size]
        good = some[values[some] >= best.value - _errors_at(some, values, best, errors) - NEAR]
        if good.size:  # the best itself is at last
            return int(good[0])
        first, size = first + size, 4 * size


def _within_reach(
    values: NDArray[np.float64], best: Plateau, most: Callable[[int], float] | None
) -> NDArray[np.int64]:  # fmt: skip
    """Points that may be within one standard error of the best."""
    import numpy as np

    reach = np.inf if most is None else most(best.middle)
    return np.flatnonzero((values >= best.value - reach) & np.isfinite(values))


def _errors_at(places: Any, values: Any, best: Plateau, errors: Any) -> NDArray[np.float64]:
    import numpy as np

    return np.where(values[places] == best.value, 0.0, errors(places, best.middle))
