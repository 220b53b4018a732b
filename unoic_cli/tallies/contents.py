"""What a source holds, as it is stored: values, labels, names, factors. Nothing is refused here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unoic_cli.data.batch import Batch, choose_split, ignored_units, stored_batch
from unoic_cli.formats.block import Encoding, Source
from unoic_cli.tallies.evidence import TOLERANCE, EvidenceTally, log_tolerance
from unoic_cli.tallies.tally import Counters, Tally, added

Look: TypeAlias = Literal["probabilities", "log-probabilities", "logits", "nothing finite"]
MOST_NAMES = 1000
"""Distinct split names, group names or labels outside [0, K) that are counted one by one: the first in order."""


class FirstUnit(NamedTuple):
    """The first unit of its sort: where it is, and the value (or the sum of the row) found there."""

    unit: int
    value: float


class Extremes:
    """The smallest and the largest of some numbers.

    Attributes
    ----------
    minimum, maximum : float
        ``inf`` and ``-inf`` when there are none.
    """

    def __init__(self) -> None:
        self.minimum, self.maximum = math.inf, -math.inf

    def update(self, low: float, high: float) -> None:
        """Take a range in."""
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)

    @property
    def known(self) -> bool:
        """Whether there was a number."""
        return self.minimum <= self.maximum

    def counters(self) -> Counters:
        """Tables of one number each: those of several parts lie side by side, and the outermost is taken."""
        return {"low": {self.minimum.hex(): 1}, "high": {self.maximum.hex(): 1}} if self.known else {}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Take in what was seen elsewhere."""
        for name in ("low", "high"):
            for text in counters.get(name, {}):
                value = float.fromhex(text)
                self.update(*((value, self.maximum) if name == "low" else (self.minimum, value)))


class ScoreValues:
    """What scores look like, gathered block by block; NaN takes part in nothing but its own count.

    Parameters
    ----------
    encoding : str
        How a score is stored.
    n_classes : int
        K.

    Attributes
    ----------
    sorts : dict of str to int
        Values that are ``nan``, ``+inf`` and ``-inf``.
    range : Extremes
        Of the finite values.
    first : dict of str to FirstUnit
        First unit with ``nan``, ``+inf``, ``-inf``, a value ``outside`` [0, 1], a ``positive`` value; where there is
        none outside, first row whose values do not ``sum`` to 1, and where there is none that is positive, whose
        exponentials do not (``exp_sum``).

    Examples
    --------
    >>> values = ScoreValues("float32", 2)
    >>> values.update(np.array([[0.25, 0.75], [1.0, 0.0]], np.float32), lambda i: i)
    >>> values.look
    'probabilities'
    >>> values.update(np.array([[0.25, 0.5]], np.float32), lambda i: 2 + i)
    >>> values.look, values.first["sum"]
    ('logits', FirstUnit(unit=2, value=0.75))
    """

    def __init__(self, encoding: Encoding, n_classes: int) -> None:
        self.sorts = dict.fromkeys(("nan", "+inf", "-inf"), 0)
        self.range = Extremes()
        self._first: dict[str, FirstUnit] = {}
        self._log_tolerance = log_tolerance(n_classes)
        self._brain = encoding == "bfloat16"

    @property
    def first(self) -> dict[str, FirstUnit]:
        """See the class."""
        moot = {sum_ for sum_, other in (("sum", "outside"), ("exp_sum", "positive")) if other in self._first}
        return {name: first for name, first in self._first.items() if name not in moot}

    @property
    def look(self) -> Look:
        """What the values look like."""
        if not self.range.known:
            return "nothing finite"
        if not self._first.keys() & {"outside", "sum"}:
            return "probabilities"
        if not self._first.keys() & {"positive", "exp_sum"}:
            return "log-probabilities"
        return "logits"

    def update(self, scores: NDArray[Any], unit_of: Callable[[int], int]) -> None:
        """Add scores as blocks hold them, (T, K) or (B, K, P); `unit_of` numbers their units."""
        if scores.size == 0:
            return
        values = as_floats(scores, self._brain)
        with np.errstate(invalid="ignore"):
            low, high = float(values.min()), float(values.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                low, high = self._not_finite(values, unit_of)
            self.range.update(low, high)
            self._check_probs(values, unit_of)
            self._check_log_probs(values, unit_of)

    def _not_finite(self, values: NDArray[Any], unit_of: Callable[[int], int]) -> tuple[float, float]:
        """Count what is not finite; return the range of the rest."""
        for name, wrong in (("nan", np.isnan(values)), ("+inf", values == np.inf), ("-inf", values == -np.inf)):
            self.sorts[name] += int(wrong.sum())
            self._remember(name, wrong, values, unit_of)
        finite = values[np.isfinite(values)]
        return (float(finite.min()), float(finite.max())) if finite.size else (math.inf, -math.inf)

    def _check_probs(self, values: NDArray[Any], unit_of: Callable[[int], int]) -> None:
        self._remember("outside", (values < 0) | (values > 1 + TOLERANCE), values, unit_of)
        if not self._first.keys() & {"outside", "sum"}:
            sums = values.sum(axis=1, dtype=np.float64, keepdims=True)
            self._remember("sum", np.abs(sums - 1) > TOLERANCE, sums, unit_of)

    def _check_log_probs(self, values: NDArray[Any], unit_of: Callable[[int], int]) -> None:
        self._remember("positive", values > self._log_tolerance, values, unit_of)
        if not self._first.keys() & {"positive", "exp_sum"}:
            sums = np.exp(values).sum(axis=1, dtype=np.float64, keepdims=True)
            self._remember("exp_sum", np.abs(sums - 1) > self._log_tolerance, sums, unit_of)

    def _remember(
        self, name: str, wrong: NDArray[np.bool_], values: NDArray[Any], unit_of: Callable[[int], int]
    ) -> None:
        """Keep the first unit that is `wrong`; axis 1 is that of the classes, or of length 1."""
        if name in self._first or not wrong.any():
            return
        width = wrong.shape[1]
        flags = np.moveaxis(wrong, 1, -1).reshape(-1, width)
        unit = int(flags.any(axis=1).argmax())
        value = np.moveaxis(values, 1, -1).reshape(-1, width)[unit, flags[unit].argmax()]
        self._first[name] = FirstUnit(unit_of(unit), float(value))

    def counters(self) -> Counters:
        """What was seen so far: a table for each first unit, so that those of several parts lie side by side."""
        firsts = {name: {f"{first.unit} {first.value.hex()}": 1} for name, first in self._first.items()}
        return {"sorts": self.sorts, "range": self.range.counters(), "firsts": firsts}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Take in what was seen elsewhere; of the first units, the first is kept."""
        self.sorts = added(self.sorts, counters["sorts"])
        self.range.absorb(counters["range"])
        for name, table in counters["firsts"].items():
            seen = [FirstUnit(int(unit), float.fromhex(value)) for unit, value in map(str.split, table)]
            known = [self._first[name]] if name in self._first else []
            self._first[name] = min([*known, *seen], key=lambda one: one.unit)


def as_floats(scores: NDArray[Any], brain: bool) -> NDArray[Any]:
    """Bits of 16-bit floats as float32; anything else as it is."""
    if scores.dtype != np.uint16:
        return scores
    if brain:
        return (scores.astype(np.uint32) << 16).view(np.float32)
    return scores.view(np.float16).astype(np.float32)


class Names:
    """How often each name (or number) occurs; of very many, the first `MOST_NAMES` in order, and all others together.

    Examples
    --------
    >>> names = Names()
    >>> names.update(["b", "a", "b"])
    >>> names.sorted(), names.n_more
    ({'a': 1, 'b': 2}, 0)
    """

    def __init__(self) -> None:
        self.counts: Counter[Any] = Counter()
        self.total = 0

    def update(self, names: Iterable[Any]) -> None:
        """Count each of `names`."""
        self._take(Counter(names))

    def _take(self, counts: Counter[Any]) -> None:
        """Add counts. A name that is dropped has enough others before it, and stays dropped."""
        self.counts += counts
        self.total += counts.total()
        if len(self.counts) > 2 * MOST_NAMES:
            self.counts = Counter(self.sorted())

    def sorted(self) -> dict[Any, int]:
        """The counts, in the order of the names."""
        return dict(sorted(self.counts.items())[:MOST_NAMES])

    @property
    def n_more(self) -> int:
        """Entries of all other names."""
        return self.total - sum(self.sorted().values())

    def counters(self) -> Counters:
        """What was counted so far, under text; numbers have a sign."""
        named = {f"{name:+d}" if isinstance(name, int) else f"={name}": n for name, n in self.sorted().items()}
        return {"names": named, "total": self.total}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Take in what was counted elsewhere."""
        named = counters["names"].items()
        self._take(Counter({text[1:] if text[0] == "=" else int(text): n for text, n in named}))
        self.total += counters["total"] - sum(counters["names"].values())


class ClassCounts:
    """How often each class occurs among labels (or predictions), and which values are no class.

    Attributes
    ----------
    counts : (K,) int64
        Values in [0, K).
    outside : Names
        Values outside, with their counts.
    dtypes : dict of str to int
        Types of the values, as they are read.

    Examples
    --------
    >>> labels = ClassCounts(3)
    >>> labels.update(np.array([0, 2, 2, 255], np.uint8))
    >>> labels.counts.tolist(), labels.outside.sorted(), labels.dtype
    ([1, 0, 2], {255: 1}, 'uint8')
    """

    def __init__(self, n_classes: int) -> None:
        self.counts = np.zeros(n_classes, np.int64)
        self.outside = Names()
        self.dtypes: dict[str, int] = {}

    @property
    def dtype(self) -> str:
        """The type of the values; empty where there are none."""
        return next(iter(self.dtypes), "")

    def update(self, labels: NDArray[Any]) -> None:
        """Count (T,) integers of any type."""
        self.dtypes[labels.dtype.name] = 1
        inside = (labels >= 0) & (labels < self.counts.size)
        self.counts += np.bincount(labels[inside].astype(np.int64), minlength=self.counts.size)
        if not inside.all():
            self.outside.update(labels[~inside].tolist())

    def counters(self) -> Counters:
        """What was counted so far."""
        return {"counts": self.counts, "outside": self.outside.counters(), "dtypes": self.dtypes}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Take in what was counted elsewhere."""
        self.counts = self.counts + counters["counts"]
        self.outside.absorb(counters["outside"])
        self.dtypes |= dict.fromkeys(counters["dtypes"], 1)


class Factors:
    """Range of delta, and how many factors cannot be used."""

    def __init__(self) -> None:
        self.range = Extremes()
        self.n_invalid = 0

    def update(self, delta: NDArray[np.float64]) -> None:
        """Look at factors."""
        valid = delta[np.isfinite(delta)]
        if valid.size:
            self.range.update(float(valid.min()), float(valid.max()))
        self.n_invalid += int(delta.size - valid.size + (valid < 0).sum())

    def counters(self) -> Counters:
        """What was seen so far."""
        return {"range": self.range.counters(), "invalid": self.n_invalid}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Take in what was seen elsewhere."""
        self.range.absorb(counters["range"])
        self.n_invalid += counters["invalid"]


class _Parts(Tally):
    """A tally that is made of others."""

    PARTS: tuple[str, ...]

    def counters(self) -> Counters:
        """What was seen so far."""
        return {name: getattr(self, name).counters() for name in self.PARTS}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Take in what was seen elsewhere."""
        for name in self.PARTS:
            getattr(self, name).absorb(counters[name])


class CopyTally(_Parts):
    """What is worth knowing of a source that is copied: its labels, and whether it looks right.

    Parameters
    ----------
    source : Source
    """

    PARTS = ("labels", "evidence")
    needs = frozenset({"scores", "labels"})

    def __init__(self, source: Source) -> None:
        self.source = source
        self.labels = ClassCounts(source.n_classes)
        self.evidence = EvidenceTally(source.n_classes, [source.name])

    def recipe(self) -> partial[CopyTally]:
        """What makes an empty tally like this one."""
        return partial(CopyTally, self.source)

    def update(self, batch: Batch) -> None:
        """Look at a batch as it is stored."""
        if batch.part.block.labels is not None:
            self.labels.update(batch.part.block.labels)
        self.evidence.update(batch)


class ContentsTally(_Parts):
    """Everything that one read of a source gathers.

    Parameters
    ----------
    source : Source
    split : str or None
        Look only at these samples; `splits` counts all.
    """

    PARTS = ("scores", "labels", "predictions", "delta", "splits", "groups", "evidence")

    def __init__(self, source: Source, split: str | None = None) -> None:
        self.source, self.split = source, split
        self.needs = (source.fields | {"scores"}) - {"sample_id"}
        self.scores = ScoreValues(source.encoding, source.n_classes)
        self.labels, self.predictions = ClassCounts(source.n_classes), ClassCounts(source.n_classes)
        self.delta = Factors()
        self.splits, self.groups = Names(), Names()
        self.evidence = EvidenceTally(source.n_classes, [source.name])

    def recipe(self) -> partial[ContentsTally]:
        """What makes an empty tally like this one."""
        return partial(ContentsTally, self.source, self.split)

    def update(self, batch: Batch) -> None:
        """Look at a batch as it is stored."""
        block = batch.part.block
        # an image that was cut is counted by the block that has its first pixel
        begun = int(block.start % self.source.pixels > 0)
        if block.split is not None:
            self.splits.update(block.split[begun:].tolist())
        part = choose_split(block, self.source, self.split)
        self.evidence.update(stored_batch(part))
        if part.block.group is not None:
            self.groups.update(part.block.group[part.samples * self.source.pixels >= block.start].tolist())
        if part.block.scores is not None:
            self.scores.update(part.block.scores, part.unit_of)
        for values, counts in ((part.block.labels, self.labels), (part.block.predictions, self.predictions)):
            if values is not None:
                counts.update(values)
        if part.block.delta is not None and (not part.scalar_delta or self.source.n_units == 1):
            self.delta.update(part.block.delta)


_TELLING = 4096
"""Scores of a volume that tell along which axis probabilities sum to 1."""
_POINT = 1 << 30
"""Their sums are integers in this unit."""


class KindTally(Tally):
    """What scores look like where nothing says what they are.

    Parameters
    ----------
    source : Source

    Attributes
    ----------
    values : ScoreValues
        Of the units that take part.
    blank : FirstUnit or None
        The first unit whose label is ignored and whose scores are none, and its largest score.
    """

    needs = frozenset({"scores", "labels"})

    def __init__(self, source: Source) -> None:
        self.source = source
        self.values = ScoreValues(source.encoding, source.n_classes)
        self.blank: FirstUnit | None = None
        self.sums = np.zeros(min(_TELLING, source.pixels * source.n_classes) if source.image_shape else 1, np.int64)

    def recipe(self) -> partial[KindTally]:
        """What makes an empty tally like this one."""
        return partial(KindTally, self.source)

    def update(self, batch: Batch) -> None:
        """Look at a batch as it is stored."""
        block, source = batch.part.block, self.source
        scores, brain = block.scores, source.encoding == "bfloat16"
        assert scores is not None
        if source.image_shape and not scores.size % (source.pixels * source.n_classes):  # else a part of an image
            each = as_floats(scores.reshape(-1, source.pixels * source.n_classes)[:, : self.sums.size], brain)
            near = np.clip(np.nan_to_num(each, nan=4), -4, 4).astype(np.float64)
            self.sums += np.rint(near * _POINT).astype(np.int64).sum(axis=0)
        ignored = ignored_units(block.labels, source.n_classes)
        flat = scores if scores.ndim == 2 else np.moveaxis(scores, 1, 2).reshape(-1, source.n_classes)
        blank = ignored[~np.isfinite(as_floats(flat[ignored], brain)).all(axis=1)]
        if not blank.size:
            self.values.update(scores, lambda unit: block.start + unit)
            return
        if self.blank is None:
            self.blank = FirstUnit(block.start + int(blank[0]), float(as_floats(flat[blank[:1]], brain).max()))
        kept = np.delete(np.arange(block.stop - block.start), blank)
        self.values.update(flat[kept], lambda unit: block.start + int(kept[unit]))

    @property
    def sums_over_samples(self) -> bool:
        """Whether scores sum to 1 over the samples."""
        return bool((np.abs(self.sums / _POINT - 1) <= TOLERANCE).all())

    def counters(self) -> Counters:
        """What was seen so far."""
        blank = {} if self.blank is None else {f"{self.blank.unit} {self.blank.value.hex()}": 1}
        return {"values": self.values.counters(), "sums": self.sums, "blank": blank}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Take in what was seen elsewhere."""
        self.values.absorb(counters["values"])
        self.sums = self.sums + counters["sums"]
        seen = [FirstUnit(int(unit), float.fromhex(value)) for unit, value in map(str.split, counters["blank"])]
        known = [] if self.blank is None else [self.blank]
        self.blank = min([*known, *seen], key=lambda one: one.unit, default=None)
