"""A sample of the units that is kept while the data streams by: all of them where they are few.

Which units are kept follows from their places in the data set alone, so any threads, shards and spans keep the same.
Units have levels: at level l every ``2**l``-th is left, with a phase of its own in each stratum of 512 neighbours (and
beyond level 9, some strata alone). All units of the lowest level that does not have too many are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.rule import Rule
from unoic_cli.data.batch import Batch, Part, Scores
from unoic_cli.data.folds import mix
from unoic_cli.kernels import plain
from unoic_cli.kernels.lines import Lines, make_workspace
from unoic_cli.tallies.points import predict
from unoic_cli.tallies.tally import Counters, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.calibrations.view import View
    from unoic_cli.data.dataset import DataSet

MOST_UNITS = 1 << 16
MOST_BYTES = 16 << 20
"""Of the scores that are kept."""
_LEVELS = 9
"""Strata have ``2**_LEVELS`` units."""
_APART = 40
"""Parts that are counted apart, so that nobody knows what lies before them, begin ``2**_APART`` places from another;
which of their units are kept does not depend on the number of the part."""
_WITHIN = (1 << _APART) - 1
_MOST_PIECES = 512
"""Pieces of a sample that are held one by one."""
U = TypeVar("U", bound="Units")
T = TypeVar("T", bound="Keeper")
Shapes: TypeAlias = "dict[str, tuple[Any, tuple[int, ...]]]"
BY = ("unit", "image", "group")
"""What does not depend on the others: each unit, all units of an image, or all of a group."""


@dataclass(frozen=True)
class Units:
    """Units that were kept, in the order of the data.

    Attributes
    ----------
    n_classes : int
        K.
    seen : int
        Units (with a label, where those are wanted) that were met.
    places : (n,) int64
        Of each unit kept in the data set.
    labels, tables : (n,) int32
        The label, or -1 where there are none; and which table (fold or group) it is counted in.
    clusters : (n,) int64
        Units of one cluster are not independent.
    """

    n_classes: int
    seen: int
    places: NDArray[np.int64]
    labels: NDArray[np.int32]
    tables: NDArray[np.int32]
    clusters: NDArray[np.int64]

    @property
    def n(self) -> int:
        """How many were kept."""
        return int(self.places.size)

    @property
    def share(self) -> float:
        """Kept units of those that were met; 1 where all were."""
        return self.n / self.seen if self.seen else 1.0

    @property
    def complete(self) -> bool:
        """Whether all units were kept."""
        return self.n == self.seen

    @cached_property
    def by_label(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The units in the order of their labels, and the clusters of these, from 0."""
        order = np.argsort(self.labels, kind="stable")
        if self.clusters is self.places:
            return order, order
        return order, np.unique(self.clusters[order], return_inverse=True)[1]

    def take(self: U, chosen: NDArray[Any]) -> U:
        """Some of them, by a mask or by positions; `seen` shrinks in proportion."""
        whole = ((one.name, getattr(self, one.name)) for one in fields(self))
        parts = {name: array[chosen] for name, array in whole if isinstance(array, np.ndarray)}
        if self.clusters is self.places:
            parts["clusters"] = parts["places"]
        n = int(parts["places"].size)
        changed: dict[str, Any] = {"seen": n if self.complete else round(n / max(self.share, 1e-300)), **parts}
        return replace(self, **changed)


@dataclass(frozen=True)
class Decided(Units):
    """With what several methods decide of each.

    Attributes
    ----------
    decisions : (n, M) int32
    """

    decisions: NDArray[np.int32]


@dataclass(frozen=True)
class Kept(Units):
    """With their scores.

    Attributes
    ----------
    scores : (n, M, K) float32 or float64
        delta * z, of each modality, or their linear combination (M = 1).
    factors : (n, M) float64
        Of lambda * s.
    """

    scores: NDArray[Any]
    factors: NDArray[np.float64]

    def batch(self) -> Batch:
        """The same as data, for kernels."""
        made = tuple(self._scores(m) for m in range(self.scores.shape[1]))
        alone = made[0] if len(made) == 1 else None
        ignored = int((self.labels < 0).sum())
        part: Any = None
        return Batch(self.n, alone, None, self.labels, ignored, self.tables, part, (), made)

    def _scores(self, m: int) -> Scores:
        raw = np.ascontiguousarray(self.scores[:, m]).reshape(-1)
        factors = self.factors[:, m]
        return Scores(
            raw=raw, brain=False, allow_zero=True, exact=raw.dtype == np.float32, delta=np.empty(0), n_units=self.n,
            n_classes=self.scores.shape[2], pixels=0,
            slope_factor=np.empty(0) if (factors == 1.0).all() else np.ascontiguousarray(factors),
        )  # fmt: skip

    def predict(self, lines: Lines) -> NDArray[np.int32]:
        """Decisions at the only lambda of some lines, (n,)."""
        out = np.empty(self.n, dtype=np.int32)
        if self.n:
            predict(self.batch(), lines, out, make_workspace(lines.n_classes))
        return out

    def predict_fused(self, rule: Rule, lams: Sequence[float] | NDArray[np.float64]) -> NDArray[np.int32]:
        """Decisions of a fusion at some lambdas, (G, n)."""
        return Fuser(rule, lams).decisions(self.batch()) if self.n else np.empty((len(lams), 0), dtype=np.int32)

    def posterior(self, rule: Rule, lam: float) -> NDArray[np.float64]:
        """Logarithms of the fused posterior at a lambda, (n, K)."""
        return Fuser(rule, [lam]).log_posterior(self.batch()) if self.n else np.empty((0, rule.n_classes))


def places_at(start: int, stop: int, level: int) -> NDArray[np.int64]:
    """Places in [start, stop) of a level, ascending.

    Examples
    --------
    >>> every, few = places_at(0, 2048, 0), places_at(0, 2048, 4)
    >>> every.size, few.size, bool(np.isin(places_at(0, 2048, 6), few).all())
    (2048, 128, True)
    """
    if level == 0 or stop <= start:
        return np.arange(start, stop, dtype=np.int64)
    strata = np.arange(start >> _LEVELS, ((stop - 1) >> _LEVELS) + 1, dtype=np.int64)
    phases = _phases(strata)
    inside = min(level, _LEVELS)
    if level > _LEVELS:
        left = (phases >> _LEVELS) & ((1 << (level - _LEVELS)) - 1) == 0
        strata, phases = strata[left], phases[left]
    first = (strata << _LEVELS) + (phases & ((1 << inside) - 1))
    found = (first[:, None] + np.arange(0, 1 << _LEVELS, 1 << inside)).reshape(-1)
    return np.asarray(found[(found >= start) & (found < stop)])


def _phases(strata: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of strata, by their places in their part."""
    return mix((strata & (_WITHIN >> _LEVELS)).astype(np.uint64)).astype(np.int64)


def of_level(places: NDArray[np.int64], level: int) -> NDArray[np.bool_]:
    """Which places are of a level.

    Examples
    --------
    >>> bool(of_level(places_at(5, 9000, 3), 3).all()), int(of_level(np.arange(512), 3).sum())
    (True, 64)
    """
    phases = _phases(places >> _LEVELS)
    found = ((places ^ phases) & ((1 << min(level, _LEVELS)) - 1)) == 0
    if level > _LEVELS:
        found &= (phases >> _LEVELS) & ((1 << (level - _LEVELS)) - 1) == 0
    return np.asarray(found)


def narrow(data: DataSet, view: View) -> bool:
    """Whether float32 holds all scores of a view of the data without rounding."""
    if len(view.looks) > 1:
        return False
    look = view.looks[0]
    plain_look = look.temperature == 1.0 and look.statistics is None and look.factors is None
    member = data.modalities[0 if view.chosen is None else view.chosen[0]]
    factors = look.stored_delta and any("delta" in source.fields for source in member.sources)
    exact = all(source.encoding != "float64" and source.kind != "probs" for source in member.sources)
    return plain_look and look.offsets is None and look.floor is None and not factors and exact


class Keeper(Tally):
    """Keeps a sample of the units; subclasses say what of each.

    Parameters
    ----------
    n_classes : int
        K.
    before : mapping of str to (int, int)
        Units, and samples, before each source of the data.
    by : {"unit", "image", "group"}
        What clusters are.
    labelled : bool
        Units without a label are not kept.
    limit : int
        Units.
    """

    def __init__(
        self, n_classes: int, before: Mapping[str, tuple[int, int]], by: str, labelled: bool, limit: int
    ) -> None:
        self.n_classes, self.before, self.by, self.labelled, self.limit = n_classes, dict(before), by, labelled, limit
        self.needs = frozenset({"scores", "labels"} if labelled else {"scores"}) | (
            {"group"} if by == "group" else set()
        )
        self.seen, self.level = 0, 0
        self.samples: NDArray[np.int64] | None = None
        """Places of the samples of the only source, where they do not lie one behind the other."""
        self._held: list[dict[str, NDArray[Any]]] = []
        self._size = 0

    def shapes(self, n: int) -> Shapes:
        """Types and shapes of what a subclass keeps of n units."""
        raise NotImplementedError

    def keep(self, batch: Batch, own: Callable[[NDArray[np.int64]], dict[str, NDArray[Any]]]) -> None:
        """Keep what is to be kept of a batch; `own` says it of entries of the batch, by names."""
        part = batch.part
        labels = batch.labels if self.labelled else None
        self.seen += batch.n_units if labels is None else batch.n_units - batch.n_ignored
        if self.samples is None:
            before = self.before[part.source.name][0]
            places = places_at(before + part.block.start, before + part.block.stop, self.level)
            entries = places - (before + part.block.start)
        else:
            places = places_of(self.samples, part)
            entries = np.flatnonzero(of_level(places, self.level))
            places = places[entries]
        if part.units is not None:
            spots = np.minimum(np.searchsorted(part.units, entries), max(part.units.size - 1, 0))
            there = part.units[spots] == entries if part.units.size else np.zeros(places.size, dtype=bool)
            places, entries = places[there], spots[there]
        if labels is not None:
            there = labels[entries] >= 0
            places, entries = places[there], entries[there]
        elif batch.blank is not None:  # nothing is known of such a unit
            self.seen -= int(batch.blank.sum())
            there = ~batch.blank[entries]
            places, entries = places[there], entries[there]
        while self._size + places.size > self.limit:  # before anything is taken of units that do not stay
            self._rise(self.level + 1)
            left = of_level(places, self.level)
            places, entries = places[left], entries[left]
        if places.size:
            self._hold(batch, places, entries, own(entries))

    def expect(self, start: int, labelled: NDArray[np.bool_]) -> None:
        """Rise at once to where units from a place on, of which some have a label, lead in any case."""
        n, level = int(labelled.sum()), max(self.level, 1)
        while n > self.limit and labelled[places_at(start, start + labelled.size, level) - start].sum() > self.limit:
            level += 1
        if n > self.limit and level > self.level:
            self._rise(level)

    def _hold(
        self, batch: Batch, places: NDArray[np.int64], entries: NDArray[np.int64], own: dict[str, NDArray[Any]]
    ) -> None:  # fmt: skip
        labels = np.full(places.size, -1) if batch.labels is None else batch.labels[entries]
        held: dict[str, NDArray[Any]] = {
            "places": places, "labels": labels.astype(np.int32), "tables": batch.tables[entries].astype(np.int32),
            "clusters": self._clusters(batch, places, entries), **own,
        }  # fmt: skip
        self._held.append(held)
        self._size += places.size
        self._prune()

    def _clusters(self, batch: Batch, places: NDArray[np.int64], entries: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.by == "unit":
            return places
        part = batch.part
        if self.by == "image":
            samples = part.sample_of_units(entries)
            return self.before[part.source.name][1] + samples if self.samples is None else self.samples[samples]
        names = part.per_unit(np.asarray(part.block.group), entries)
        unique, inverse = np.unique(names.astype(str), return_inverse=True)
        codes = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in unique.tolist()]
        return np.array([int.from_bytes(code, "little", signed=True) for code in codes], dtype=np.int64)[inverse]

    def _prune(self) -> None:
        """Rise by levels until what is left is not too much."""
        while self._size > self.limit:
            self._rise(self.level + 1)
        if len(self._held) > _MOST_PIECES:
            self._held = [self.joined()]

    def _rise(self, level: int) -> None:
        """Keep what is of a level alone."""
        self.level, self._held = level, _left(self._held, level)
        self._size = sum(held["places"].size for held in self._held)

    def _shapes(self, n: int) -> Shapes:
        common: Shapes = {
            "places": (np.int64, (n,)), "labels": (np.int32, (n,)), "tables": (np.int32, (n,)),
            "clusters": (np.int64, (n,)),
        }  # fmt: skip
        return {**common, **self.shapes(n)}

    def joined(self) -> dict[str, Any]:
        """All that is held, in the order of the data."""
        if not self._held:
            return {name: np.zeros(shape, dtype) for name, (dtype, shape) in self._shapes(0).items()}
        joined = {name: np.concatenate([held[name] for held in self._held]) for name in self._held[0]}
        order = np.argsort(joined["places"], kind="stable")
        return {name: array[order] for name, array in joined.items()}

    def sample(self) -> dict[str, Any]:
        """What `Units` have of it."""
        joined = self.joined()
        if self.by == "unit":
            joined["clusters"] = joined["places"]
        return {"n_classes": self.n_classes, "seen": self.seen, **joined}

    def add(self: T, other: T) -> None:
        """Take over what another thread kept."""
        self.seen += other.seen
        self._take(other.level, other._held)

    def _take(self, level: int, more: Sequence[dict[str, NDArray[Any]]]) -> None:
        """Hold what others did, of the higher level of both."""
        if level > self.level:
            self._rise(level)
        self._held += more if level == self.level else _left(more, self.level)
        self._size = sum(held["places"].size for held in self._held)
        self._prune()

    def counters(self) -> Counters:
        """What was kept so far, under the place of its first unit: what others kept has another."""
        joined = self.joined()
        self._held, self._size = ([joined] if joined["places"].size else []), joined["places"].size
        if not self._size:
            return {"seen": self.seen, "kept": {}}
        words = {name: _words(array) for name, array in joined.items()}
        return {"seen": self.seen, "kept": {str(int(joined["places"][0])): {"level": [self.level], **words}}}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what tallies like this one kept elsewhere."""
        self.seen += counters["seen"]
        for words in counters["kept"].values():
            self._take(int(words["level"][0]), [self._read(words)])

    def _read(self, words: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        shapes = self._shapes(len(words["places"]))
        return {name: _unwords(np.asarray(words[name]), *shape) for name, shape in shapes.items()}


class KeptTally(Keeper):
    """Keeps a sample of the units, with their scores.

    Parameters
    ----------
    n_classes : int
        K.
    n_parts : int
        M: modalities that are kept apart.
    narrow : bool
        float32 holds the scores (see `narrow`).
    before, by, labelled
        As of `Keeper`.
    most : int
        Units; fewer where their scores would take more than `MOST_BYTES`.
    level : int
        Units below it are not looked at: others have kept too many for them to stay.
    samples : (N,) int64, optional
        Places of the samples of the only source, where they do not lie one behind the other.
    """

    def __init__(
        self, n_classes: int, n_parts: int, narrow: bool, before: Mapping[str, tuple[int, int]], by: str = "unit",
        labelled: bool = True, most: int = MOST_UNITS, level: int = 0, samples: NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        self.n_parts, self.narrow, self.most = n_parts, narrow, most
        self.dtype = np.dtype(np.float32 if narrow else np.float64)
        limit = max(1, min(most, MOST_BYTES // (self.dtype.itemsize * n_parts * n_classes)))
        super().__init__(n_classes, before, by, labelled, limit)
        self.level, self.samples = level, samples

    @classmethod
    def of(cls, data: DataSet, view: View, by: str | None = None, *, labelled: bool = True) -> KeptTally:
        """For a view of a data set; images are clusters where there are some."""
        n_parts = len(view.looks) if view.weights is None else 1
        by = by or ("image" if data.has_images else "unit")
        return cls(data.n_classes, n_parts, narrow(data, view), places_before(data), by, labelled)

    def recipe(self) -> partial[KeptTally]:
        """What makes an empty tally like this one."""
        return partial(
            KeptTally, self.n_classes, self.n_parts, self.narrow, self.before, self.by, self.labelled, self.most,
            self.level, self.samples,
        )  # fmt: skip

    def shapes(self, n: int) -> Shapes:
        """Scores, and factors of lambda * s."""
        return {
            "scores": (self.dtype, (n, self.n_parts, self.n_classes)),
            "factors": (np.dtype(np.float64), (n, self.n_parts)),
        }

    def update(self, batch: Batch) -> None:
        """Keep what is to be kept of a batch."""
        self.keep(batch, lambda entries: self.scores_of(batch, entries))

    def scores_of(self, batch: Batch, entries: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Scores of entries of a batch, and factors of lambda * s."""
        made = batch.modalities if self.n_parts > 1 or batch.scores is None else (batch.scores,)
        scores = np.empty((entries.size, self.n_parts, self.n_classes), dtype=self.dtype)
        factors = np.ones((entries.size, self.n_parts))
        for m, one in enumerate(made):
            scores[:, m] = plain.flattened(one.raw, one.brain, one.pixels, one.delta, entries, self.n_classes)
            if one.slope_factor.size:
                factors[:, m] = one.slope_factor[entries] if one.slope_factor.size > 1 else one.slope_factor
        return {"scores": scores, "factors": factors}

    def kept(self) -> Kept:
        """The sample.

        Raises
        ------
        ValueError
            Scores that none of ours keeps came from elsewhere.
        """
        kept = Kept(**self.sample())
        scores = kept.scores
        if (
            np.isnan(scores).any()
            or (scores == np.inf).any()
            or (scores.max(axis=-1, initial=-np.inf) == -np.inf).any()
        ):
            raise ValueError("scores that are no numbers")
        if not np.isfinite(kept.factors).all():
            raise ValueError("factors that are no numbers")
        return kept


class DecidedKeeper(Keeper):
    """Keeps a sample of the units, with what several methods decide of each.

    Parameters
    ----------
    n_classes : int
        K.
    n_ways : int
        M.
    before, by
        As of `Keeper`.
    most : int, optional
        Units; `MOST_UNITS` by default.
    """

    def __init__(
        self, n_classes: int, n_ways: int, before: Mapping[str, tuple[int, int]], by: str, most: int | None = None
    ) -> None:
        self.n_ways = n_ways
        super().__init__(n_classes, before, by, True, MOST_UNITS if most is None else most)

    def recipe(self) -> partial[DecidedKeeper]:
        """What makes an empty tally like this one."""
        return partial(DecidedKeeper, self.n_classes, self.n_ways, self.before, self.by, self.limit)

    def shapes(self, n: int) -> Shapes:
        """Decisions."""
        return {"decisions": (np.dtype(np.int32), (n, self.n_ways))}

    def look(self, batch: Batch, decided: Sequence[NDArray[np.int32]]) -> None:
        """Keep what is to be kept of a batch, of which M methods have decided."""
        self.keep(batch, lambda entries: {"decisions": np.stack([one[entries] for one in decided], axis=1)})

    def kept(self) -> Decided:
        """The sample."""
        return Decided(**self.sample())


def places_of(samples: NDArray[np.int64], part: Part) -> NDArray[np.int64]:
    """Places of the units of a whole part, whose samples have these."""
    units, pixels = np.arange(part.block.start, part.block.stop), part.source.pixels
    return samples[units // pixels] * pixels + units % pixels


def place_apart(number: int) -> int:
    """Where the first unit, and the first sample, of a part that is counted apart have their place."""
    return number << _APART


def renumbered(counters: Mapping[str, Any], numbers: Sequence[int], by_place: bool = False) -> Counters:
    """What a `Keeper` kept of parts that are counted apart, where these have other numbers.

    Parameters
    ----------
    counters : mapping
        Of a `Keeper` whose clusters are units or images.
    numbers : sequence of int
        The new number of each part.
    by_place : bool
        Units have their places in the data: these stay, and pieces are told apart by the number.
    """
    if by_place:
        pieces = sorted(counters["kept"].items())
        return {**counters, "kept": {f"{min(numbers)}.{i}": words for i, (_, words) in enumerate(pieces)}}
    new, kept = np.array(numbers, dtype=np.int64), {}
    for words in counters["kept"].values():
        moved = dict(words)
        for name in ("places", "clusters"):
            own = np.asarray(words[name])
            moved[name] = (new[own >> _APART] << _APART) | (own & _WITHIN)
        kept[str(int(moved["places"][0]))] = moved
    return {**counters, "kept": kept}


def closed_up(kept: U, data: DataSet) -> U:
    """The sample with places as if parts that were counted apart lay one behind the other, as the sources do."""
    if not any(source.passing for source in data.sources):
        return kept
    sizes = np.array([(source.n_units, source.n_samples) for source in data.sources], dtype=np.int64)
    units, samples = (np.cumsum(sizes, axis=0) - sizes).T
    places = units[kept.places >> _APART] + (kept.places & _WITHIN)
    if kept.clusters is kept.places:
        return replace(kept, places=places, clusters=places)
    return replace(kept, places=places, clusters=samples[kept.clusters >> _APART] + (kept.clusters & _WITHIN))


def places_before(data: DataSet) -> dict[str, tuple[int, int]]:
    """Units, and samples, before each source of a data set, in its own modality."""
    before = {}
    for member in data.modalities:
        units = samples = 0
        for source in member.sources:
            before[source.name] = units, samples
            units, samples = units + source.n_units, samples + source.n_samples
    return before


def _left(held: Sequence[dict[str, NDArray[Any]]], level: int) -> list[dict[str, NDArray[Any]]]:
    """Of several pieces, what is of a level."""
    left = [_of_level(piece, level) for piece in held]
    return [piece for piece in left if piece["places"].size]


def _of_level(held: dict[str, NDArray[Any]], level: int) -> dict[str, NDArray[Any]]:
    """What is held of a level."""
    left = of_level(held["places"], level)
    return held if left.all() else {name: array[left] for name, array in held.items()}


def _words(array: NDArray[Any]) -> NDArray[np.int64]:
    """Any array as integers of 64 bits."""
    content = np.ascontiguousarray(array).tobytes()
    return np.frombuffer(content + bytes(-len(content) % 8), dtype="<i8").astype(np.int64)


def _unwords(words: NDArray[np.int64], dtype: Any, shape: Sequence[int]) -> NDArray[Any]:
    size = int(np.prod(shape))
    content = np.ascontiguousarray(words, dtype="<i8").tobytes()
    if not 0 <= len(content) - size * np.dtype(dtype).itemsize < 8:
        raise ValueError(f"{len(content)} bytes of {tuple(shape)} items")
    return np.frombuffer(content, dtype=dtype, count=size).reshape(shape).copy()
