"""What the data looks like, counted beside all else; `unoic_cli.tallies.findings` says what it means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from unoic_cli.data.batch import Batch, Part
from unoic_cli.data.sampling import ALL_ROWS, steps
from unoic_cli.formats.block import IGNORED_LABELS, Source
from unoic_cli.kernels import look_at_rows
from unoic_cli.kernels.constants import FIRST_EQUAL, N_COUNTED
from unoic_cli.tallies.kept import places_of
from unoic_cli.tallies.tally import Counters, Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-2
"""How far the probabilities of a row may sum from 1: softmaxes made in bfloat16 are that far, whatever holds them."""

_NONE = np.empty(0, dtype=np.int32)
_NOTHING = [0] * FIRST_EQUAL + [-1] * (N_COUNTED - FIRST_EQUAL)

FIRSTS = ("first_equal", "first_sum", "first_outside", "first_masked")
COUNTS = ("rows", "equal", "inside", "one", "closer", "exp_one", "labelled", "as_is", "down", "up", "masked")
_LOWEST = {"float16": 0xFC00, "bfloat16": 0xFF80, "float32": -np.inf, "float64": -np.inf}
"""-inf as it is stored."""


def log_tolerance(n_classes: int) -> float:
    """How far exponentials of a row may sum from 1: rounding log p moves that by up to the entropy times its own."""
    return TOLERANCE * (1 + math.log(n_classes))


_Glass: TypeAlias = tuple[int, int, bool, Any, tuple[float, float]]
"""How a source is looked at: see `steps`; whether it holds bfloat16; the largest probability, as it stores that, and
how far probabilities, and exponentials of log-probabilities, may sum from 1 (-1: not of interest)."""


def _glass(source: Source, raw: NDArray[Any]) -> _Glass:
    brain = source.encoding == "bfloat16"
    in_logs = log_tolerance(source.n_classes) if source.kind == "log_probs" else -1.0
    return (*steps(source), brain, _limit(raw, brain, TOLERANCE), (TOLERANCE, in_logs))


class RowsSeen:
    """What the rows of one source look like.

    Attributes
    ----------
    counts : dict of str to int
        By the names of `COUNTS`: see `unoic_cli.kernels.constants`.
    firsts : dict of str to dict of str to int
        For each of `FIRSTS`, the place of the first such row (as text) and what was found there, in 2**-20: the sum of
        the row, or the first value that is not inside [0, 1].
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.firsts: dict[str, dict[str, int]] = {name: {} for name in FIRSTS}
        self._glass: _Glass | None = None

    def first(self, name: str) -> tuple[int, float] | None:
        """Place and value of the first row of a sort."""
        if not self.firsts[name]:
            return None
        place, value = min((int(place), value) for place, value in self.firsts[name].items())
        return place, value / 2**20

    def look(self, part: Part, labels: NDArray[np.int32] | None, own: NDArray[np.int64] | None = None) -> None:
        """Look at rows of a part of the source, with their labels; `own` are their places, if these do not follow."""
        block, source = part.block, part.source
        raw = block.scores
        assert raw is not None
        if source.n_classes < 2:  # one column, of which two classes are made
            return
        if self._glass is None:
            self._glass = _glass(source, raw)
        every, closer, brain, limit, tolerances = self._glass
        if own is not None:
            units = np.argsort(own, kind="stable")
            places = own[units]
        elif part.units is None:
            places = np.arange(-(-block.start // every) * every, block.stop, every)
            units = places - block.start
        else:
            places = block.start + part.units
            units = np.flatnonzero(places % every == 0)
            places = places[units]
        if source.passing:
            units, places = units[places < ALL_ROWS], places[places < ALL_ROWS]
        if units.size == 0:
            return
        found = np.array(_NOTHING)
        look_at_rows(
            raw.reshape(-1), brain, raw.shape[2] if raw.ndim == 3 else 0, units, places,
            _NONE if labels is None else labels, source.n_classes, limit, source.n_classes == 2, tolerances, closer,
            found,
        )  # fmt: skip
        masked = _masked(raw, units, source)
        counted = [*found[:FIRST_EQUAL].tolist(), masked.size]
        firsts = [*found[FIRST_EQUAL:].tolist(), int(places[masked[0]]) if masked.size else -1]
        for name, n in zip(COUNTS, counted, strict=True):
            self.counts[name] += n
        for name, place in zip(FIRSTS, firsts, strict=True):
            if place >= 0 and not any(int(known) < place for known in self.firsts[name]):
                row = _row(raw, brain, int(units[np.searchsorted(places, place)]))
                self.firsts[name] = {str(place): _fixed(_telling(name, row))}

    def compare(self, predictions: NDArray[np.int32], labels: NDArray[np.int32]) -> None:
        """Count predictions, stored without scores, that agree with labels."""
        kept = labels >= 0
        found = {0: "as_is", -1: "down", 1: "up"}
        self.counts["labelled"] += int(kept.sum())
        for shift, name in found.items():
            self.counts[name] += int(((predictions == labels + shift) & kept).sum())

    def counters(self) -> Counters:
        """What was seen so far."""
        return {"counts": self.counts, "firsts": self.firsts}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what was seen elsewhere; of the first rows, the first is kept."""
        self.counts = {name: n + counters["counts"][name] for name, n in self.counts.items()}
        for name in FIRSTS:
            self.firsts[name] |= counters["firsts"][name]
            if len(self.firsts[name]) > 1:
                first = min(self.firsts[name], key=int)
                self.firsts[name] = {first: self.firsts[name][first]}


def _limit(raw: NDArray[Any], brain: bool, tolerance: float) -> Any:
    """The largest probability, rounding allowed for, as `raw` stores it."""
    if raw.dtype != np.uint16:
        return raw.dtype.type(1 + tolerance)
    if brain:
        return np.uint16(int(np.float32(1 + tolerance).view(np.uint32)) >> 16)
    return np.float16(1 + tolerance).view(np.uint16)


def _row(raw: NDArray[Any], brain: bool, unit: int) -> NDArray[np.float64]:
    """The scores of a row of a block, (K,)."""
    if raw.ndim == 3:
        image, pixel = divmod(unit, raw.shape[2])
        row = raw[image, :, pixel]
    else:
        row = raw[unit]
    if row.dtype == np.uint16:
        row = (row.astype(np.uint32) << 16).view(np.float32) if brain else row.view(np.float16)
    return row.astype(np.float64)


def _masked(raw: NDArray[Any], units: NDArray[np.int64], source: Source) -> NDArray[np.int64]:
    """Which of some rows of logits hold -inf, beside others."""
    lowest = _LOWEST[source.encoding]
    if source.kind != "logits" or not units.size:
        return np.empty(0, dtype=np.int64)
    if raw.ndim == 3:
        image, pixel = np.divmod(units, raw.shape[2])
        low = raw[image, :, pixel] == lowest
    else:
        low = raw[units] == lowest
    return np.flatnonzero(low.any(axis=1) & ~low.all(axis=1))  # of no class at all, a row is refused


def _telling(name: str, row: NDArray[np.float64]) -> float:
    """What to say of a row: its sum, its value, or the first of its values that is no probability."""
    if name == "first_sum":
        return float(row.sum())
    if name == "first_masked":
        return 0.0
    if name == "first_equal":
        return float(row[0])
    return float(row[int((~((row >= 0) & (row <= 1 + TOLERANCE))).argmax())])


def _fixed(value: float) -> int:
    """A number in 2**-20, as far as that can be said."""
    return round(value * 2**20) if abs(value) < 2**40 else (1 << 62 if value > 0 else -(1 << 62))


class LabelsSeen:
    """Whether the first and the last class occur among the labels at all: 1 or 0, whoever adds up.

    Of two classes it is also counted how many labels there are, and how many of them are ignored. Of `wanted` labels it
    is told which were met.
    """

    def __init__(self, n_classes: int, wanted: Sequence[int] = ()) -> None:
        self.n_classes = n_classes
        self.wanted, self.met = tuple(wanted), set[int]()
        self.has_first = self.has_last = 0
        self.n = self.ignored = 0

    def look(self, labels: NDArray[np.int32]) -> None:
        """Look at labels as long as there is something to find out."""
        if self.n_classes == 2:
            self.n += labels.size
            # `info` looks at labels as they are stored
            self.ignored += int(((labels < 0) | (labels == IGNORED_LABELS[0])).sum())
        if not self.has_first:
            self.has_first = int((labels == 0).any())
        if not self.has_last:
            self.has_last = int((labels == self.n_classes - 1).any())

    def search(self, stored: NDArray[Any]) -> None:
        """Look for the wanted labels among labels as they are stored."""
        for value in self.wanted:
            if value not in self.met and (stored == value).any():
                self.met.add(value)

    def counters(self) -> Counters:
        """What was seen so far."""
        seen: Counters = {"has_first": self.has_first, "has_last": self.has_last, "n": self.n, "ignored": self.ignored}
        return seen | ({"met": {str(value): 1 for value in sorted(self.met)}} if self.wanted else {})

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Take over what was seen elsewhere."""
        self.met |= set(map(int, counters.get("met", ())))
        self.has_first = min(1, self.has_first + counters["has_first"])
        self.has_last = min(1, self.has_last + counters["has_last"])
        self.n += counters["n"]
        self.ignored += counters["ignored"]


class EvidenceTally(Tally):
    """What rows and labels look like, of sources that are named.

    Parameters
    ----------
    n_classes : int
        K.
    names : sequence of str
        Sources whose rows are looked at.
    wanted : sequence of int
        Labels that are looked for.

    Attributes
    ----------
    rows : dict of str to RowsSeen
        By the name of the source.
    labels : LabelsSeen
    """

    needs = frozenset({"scores"})

    def __init__(self, n_classes: int, names: Sequence[str] = (), wanted: Sequence[int] = ()) -> None:
        self.names = frozenset(names)
        self.rows: dict[str, RowsSeen] = {}
        self.labels = LabelsSeen(n_classes, wanted)

    def recipe(self) -> Callable[[], EvidenceTally]:
        """What makes an empty tally like this one."""
        return partial(EvidenceTally, self.labels.n_classes, tuple(sorted(self.names)), self.labels.wanted)

    def update(self, batch: Batch) -> None:
        """Look at a batch; labels tell of the modality that has them."""
        for part in batch.parts:
            if part.source.name in self.names and part.block.scores is not None:
                self._seen(part.source).look(part, batch.labels if part is batch.part else None)
        if batch.predictions is not None and batch.labels is not None:
            self._seen(batch.part.source).compare(batch.predictions, batch.labels)
        if batch.labels is not None:
            self.labels.look(batch.labels)
            if self.labels.wanted and batch.part.block.labels is not None:
                self.labels.search(batch.part.block.labels)

    def _seen(self, source: Source) -> RowsSeen:
        seen = self.rows.get(source.name)
        if seen is None:
            seen = self.rows[source.name] = RowsSeen()
        return seen

    def counters(self) -> Counters:
        """What was seen so far."""
        rows = {name: seen.counters() for name, seen in sorted(self.rows.items())}
        return {"rows": rows, "labels": self.labels.counters()}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what a tally like this one saw elsewhere."""
        for name, seen in counters["rows"].items():
            self.rows.setdefault(name, RowsSeen()).absorb(seen)
        self.labels.absorb(counters["labels"])


class PassingEvidence(EvidenceTally):
    """What the first rows of a part look like that passes by; its labels are told by what else is counted.

    Parameters
    ----------
    n_classes : int
        K.
    name : str
        The part.
    before : int or (N,) int64
        Units of the part that came before the batches; or the place of each sample of the batch.
    """

    def __init__(self, n_classes: int, name: str = "", before: int | NDArray[np.int64] = 0) -> None:
        super().__init__(n_classes, [name])
        self.name, self.before = name, before

    def recipe(self) -> Callable[[], PassingEvidence]:
        """What makes an empty tally like this one."""
        return partial(PassingEvidence, self.labels.n_classes, self.name, self.before)

    def update(self, batch: Batch) -> None:
        """Look at a batch."""
        part, own = batch.part, None
        if isinstance(self.before, int):
            block = replace(part.block, start=part.block.start + self.before, stop=part.block.stop + self.before)
            part = replace(part, block=block)
            first = block.start
        else:
            own = places_of(self.before, part)
            first = int(own.min())
        if first < ALL_ROWS:
            seen = self.rows.setdefault(self.name, RowsSeen())
            seen.look(replace(part, source=replace(part.source, passing="in order")), batch.labels, own)
