"""Two methods on the same units: what one gains over the other, how sure that is, and which classes it changes.

Intervals take nothing from the choice of a method: they hold on data that it was not tuned on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.brief import brief, in_html
from unoic_cli.commands.sampled import Gain
from unoic_cli.metrics import Counted, Metric
from unoic_cli.resolve.asked import Asked
from unoic_cli.resolve.common import Notes
from unoic_cli.searches import Curve
from unoic_cli.searches.anchored import Errors
from unoic_cli.searches.choice import Met, Requirement
from unoic_cli.tallies.kept import Decided
from unoic_cli.tallies.ways import WaysTally

FEW = 20
"""Clusters below which their spread is not known well."""
EXACT = 25
"""Discordant units below which McNemar's test is exact."""


@dataclass(frozen=True)
class McNemar:
    """Whether two methods have the same share of units right.

    Attributes
    ----------
    lost, gained : int
        Units that only the first has right, and only the other.
    p : float or None
        Of a difference this large, or larger, by chance; None where it cannot be told.
    test : {"binomial", "chi-squared", "clusters"}
        The exact test, the one with continuity correction, or, where units are not independent, that of the difference
        over its standard error by clusters.
    """

    lost: int
    gained: int
    p: float | None
    test: str

    @classmethod
    def of(cls, lost: int, gained: int) -> McNemar:
        """Of independent units.

        Examples
        --------
        >>> McNemar.of(1, 7).p, round(McNemar.of(10, 30).p, 6)
        (0.0703125, 0.002663)
        """
        n, least = lost + gained, min(lost, gained)
        if n < EXACT:
            p = min(1.0, 2 * sum(math.comb(n, i) for i in range(least + 1)) / 2**n)
            return cls(lost, gained, p, "binomial")
        statistic = max(0, abs(gained - lost) - 1) ** 2 / n
        return cls(lost, gained, math.erfc(math.sqrt(statistic / 2)), "chi-squared")

    @classmethod
    def by_clusters(cls, lost: int, gained: int, gain: Gain) -> McNemar:
        """Of units in clusters, by the gain of accuracy."""
        p = math.erfc(abs(gain.gain) / gain.se / math.sqrt(2)) if math.isfinite(gain.se) and gain.se > 0 else None
        return cls(lost, gained, 1.0 if lost == gained == 0 else p, "clusters")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"lost": self.lost, "gained": self.gained, "p": self.p, "test": self.test}


@dataclass(frozen=True)
class Change:
    """A class whose recall changes.

    Attributes
    ----------
    k, support : int
        The class, and its units.
    lost, gained : int
        Units of it that only the first method has right, and only the other.
    before, after : float
        Recall.
    change : Gain
        With its interval.
    """

    k: int
    support: int
    lost: int
    gained: int
    before: float
    after: float
    change: Gain

    __repr__ = brief

    def to_dict(self, class_names: Sequence[str] | None) -> dict[str, Any]:
        """For JSON."""
        return {
            "class": self.k,
            "name": class_names[self.k] if class_names else None,
            "support": self.support,
            "before": self.before,
            "after": self.after,
            **self.change.to_dict(),
            "lost": self.lost,
            "gained": self.gained,
        }


@dataclass(frozen=True)
class Difference:
    """What a method changes.

    Attributes
    ----------
    gain : dict of str to Gain
        Of each metric; without an interval where it is none of predictions.
    mcnemar : McNemar
    moved : int
        Labelled units that are decided otherwise.
    changes : tuple of Change
        Classes whose recall changes, the largest change first.
    """

    gain: dict[str, Gain]
    mcnemar: McNemar
    moved: int
    changes: tuple[Change, ...]

    __repr__ = brief
    _repr_html_ = in_html

    def to_dict(self, class_names: Sequence[str] | None) -> dict[str, Any]:
        """For JSON."""
        return {
            "gain": {name: one.to_dict() for name, one in self.gain.items()},
            "mcnemar": self.mcnemar.to_dict(),
            "moved": self.moved,
            "changes": [one.to_dict(class_names) for one in self.changes],
        }


@dataclass
class Pairs:
    """What one read has counted of several methods.

    Parameters
    ----------
    tally : WaysTally
    curves : sequence of Curve
        Of each method: one point.
    asked : Asked
    """

    tally: WaysTally
    curves: Sequence[Curve]
    asked: Asked
    _parts: dict[int | None, Decided] = field(default_factory=dict, repr=False)

    @property
    def first(self) -> int:
        """The method that the others are compared with."""
        return self.tally.ways.first

    def counted(self, i: int, table: int | None = None) -> Counted:
        """Counts of a method in one table, or in all."""
        return self.curves[i].pooled(None if table is None else [table]).at(0)

    def kept(self, table: int | None = None) -> Decided:
        """The units kept."""
        if table not in self._parts:
            assert self.tally.keeper is not None
            whole = self._parts.setdefault(None, self.tally.keeper.kept())
            self._parts[table] = whole if table is None else whole.take(whole.tables == table)
        return self._parts[table]

    def difference(self, i: int, table: int | None = None) -> Difference:
        """What a method changes, in one table, or in all."""
        gain = {metric.name: self.gain(metric, i, table) for metric in self.asked.metrics}
        tables = slice(None) if table is None else slice(table, table + 1)
        pairs = [part[tables].sum(axis=0) for part in self.tally.discordant(i)]
        lost, gained = (int(part.sum()) for part in pairs)
        alone = self._alone(self.kept(table))
        mcnemar = McNemar.of(lost, gained) if alone else McNemar.by_clusters(lost, gained, gain["acc"])
        return Difference(gain, mcnemar, int(self.tally.moved[i, tables].sum()), self._changes(i, table, pairs))

    def gain(self, metric: Metric, i: int, table: int | None = None) -> Gain:
        """Of a metric; with an interval where it is one of predictions, and two units (or clusters) were seen."""
        before, after = self.counted(self.first, table), self.counted(i, table)
        theirs, ours = (float(metric.values(one, self.asked.rules)) for one in (before, after))
        kept = self.kept(table)
        if metric.recipe is not None or not math.isfinite(ours - theirs) or np.unique(kept.clusters).size < 2:
            return Gain(ours - theirs)
        errors = Errors(metric, self.asked.rules, kept, after.counts.support)
        se = errors.surely(kept.decisions[:, i], after, kept.decisions[:, self.first], before)
        return Gain.around(ours - theirs, se)

    @cached_property
    def n_clusters(self) -> int:
        """Units, or clusters of them, that were kept."""
        return int(np.unique(self.kept().clusters).size)

    def tell_few(self, clusters: str, notes: Notes) -> None:
        """Say that intervals from a few units, or clusters, are too narrow."""
        n = self.n_clusters
        if n < FEW:
            notes.add(f"{n} {clusters}{'' if n == 1 else 's'}: 95 % intervals from so few are too narrow, or missing")

    def average(self, metric: Metric, i: int, tables: Sequence[int]) -> Gain:
        """Of the plain mean of a metric over tables."""
        parts = [gain for gain in (self.gain(metric, i, table) for table in tables) if not math.isnan(gain.gain)]
        gain = sum(part.gain for part in parts) / len(parts) if parts else math.nan
        if not parts or not all(math.isfinite(part.se) for part in parts):
            return Gain(gain)
        se = math.sqrt(sum(part.se**2 for part in parts)) / len(parts)
        return Gain.around(gain, self._across(metric, i, tables, se))

    def _across(self, metric: Metric, i: int, tables: Sequence[int], apart: float) -> float:
        """The standard error of a mean over tables, also where these have clusters in common."""
        clusters = [np.unique(self.kept(table).clusters) for table in tables]
        if np.unique(np.concatenate(clusters)).size == sum(one.size for one in clusters):
            return apart
        found, names, alone = [], [], 0.0
        for table in tables:
            before, after, kept = self.counted(self.first, table), self.counted(i, table), self.kept(table)
            errors = Errors(metric, self.asked.rules, kept, after.counts.support)
            here, there = (metric.weights(one, self.asked.rules) for one in (after, before))
            if here is None or there is None:
                return math.nan  # no formula, and tables that are not independent
            d = errors.influence(kept.decisions[:, i], here)
            d -= errors.influence(kept.decisions[:, self.first], there)
            centred, well, rare = errors.within(d / len(tables), here.hit, 1)
            alone += float(well.sum() + rare)
            found.append(centred)
            names.append(kept.clusters[errors.order])
        sums = np.bincount(np.unique(np.concatenate(names), return_inverse=True)[1], weights=np.concatenate(found))
        share, by_chance = self.kept().share, float((np.concatenate(found) ** 2).sum())
        wide = max(0.0, float((sums**2).sum()) - (1 - share) * by_chance) / share**2
        return math.sqrt(max(alone, wide * sums.size / (sums.size - 1))) if sums.size > 1 else math.nan

    @staticmethod
    def _alone(kept: Decided) -> bool:
        """Whether each unit is independent of the others."""
        return np.unique(kept.clusters).size == kept.n

    def _changes(self, i: int, table: int | None, pairs: Sequence[NDArray[np.int64]]) -> tuple[Change, ...]:
        """Classes whose recall changes, the largest change first."""
        before, after = self.counted(self.first, table).counts, self.counted(i, table).counts
        (lost, gained), support = pairs, after.support
        places = np.flatnonzero((lost != gained) & (support > 0))
        if not places.size:
            return ()
        change = np.divide(gained - lost, support, out=np.zeros(support.size), where=support > 0)
        se = self._errors(i, table, change, lost + gained, support)
        order = places[np.lexsort((places, -np.abs(change[places])))]
        return tuple(
            Change(
                k, int(support[k]), int(lost[k]), int(gained[k]), int(before.hits[k]) / int(support[k]),
                int(after.hits[k]) / int(support[k]), Gain.around(float(change[k]), float(se[k])),
            )
            for k in order.tolist()
        )  # fmt: skip

    def _errors(
        self, i: int, table: int | None, change: NDArray[np.float64], moved: NDArray[np.int64], n: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Standard errors of the recalls' changes, (K,); NaN of a class of one unit, or in one cluster."""
        variance: NDArray[np.float64] = np.divide(
            moved - n * change**2, n - 1.0, out=np.full(n.size, np.nan), where=n > 1
        )
        se: NDArray[np.float64] = np.sqrt(np.divide(variance.clip(0), n, out=np.full(n.size, np.nan), where=n > 0))
        se = np.where(n > 1, np.maximum(se, np.sqrt(0.5) / (n + 2)), np.nan)  # units that move alike tell little
        kept = self.kept(table)
        if self._alone(kept):
            return se
        right = kept.decisions == kept.labels[:, None]
        d = right[:, i].astype(np.float64) - right[:, self.first]
        return np.where(np.isnan(se), np.nan, np.maximum(se, _by_clusters(kept, d, n)))


def _by_clusters(kept: Decided, d: NDArray[np.float64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard errors of the mean of d in every class, (K,), whose units lie in clusters; NaN where one has all."""
    k = n.size
    own, sums = np.bincount(kept.labels, minlength=k), np.bincount(kept.labels, weights=d, minlength=k)
    centred = d - np.divide(sums, own, out=np.zeros(k), where=own > 0)[kept.labels]
    clusters = np.unique(kept.clusters, return_inverse=True)[1].astype(np.int64)
    cells, places = np.unique(clusters * k + kept.labels, return_inverse=True)
    squares = np.bincount(cells % k, weights=np.bincount(places, weights=centred) ** 2, minlength=k)
    met = np.bincount(cells % k, minlength=k)
    share = np.divide(own, n, out=np.ones(k), where=n > 0)
    by_chance = (1 - share) * np.bincount(kept.labels, weights=centred**2, minlength=k)
    scale = np.divide(met, met - 1.0, out=np.full(k, np.nan), where=met > 1)
    variance: NDArray[np.float64] = (squares - by_chance).clip(0) * scale
    return np.asarray(np.divide(np.sqrt(variance), own, out=np.full(k, np.nan), where=own > 0))


def met_by(
    required: Sequence[Requirement], values: Mapping[str, float], before: Mapping[str, float] | None,
    gain: Mapping[str, Gain] | None,
) -> tuple[Met, ...]:  # fmt: skip
    """What comes of requirements, given metrics, those of the scores as they are, and gains over these."""
    met = []
    for one in required:
        name = one.metric.name
        found = None if gain is None else gain.get(name)
        known = {"value": values.get(name)}
        if found is not None:
            known |= {"gain": found.gain, "low": found.low, "high": found.high}
        met.append(one.meets(known.get(one.of), None if before is None else before.get(name)))
    return tuple(met)
