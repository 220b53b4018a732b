"""A block made ready for the tallies: labels checked, the split chosen, scores flat and with their factor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.errors import DataError
from unoic_cli.formats.block import IGNORED_LABELS, LogitBlock, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

DELTAS = (2.0**-126, 1e30)
"""Positive factors that float32 holds well enough to scale float32 scores."""

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Scores:
    """Scores as the kernels take them.

    Attributes
    ----------
    raw : (T * K,) uint16, float32 or float64
        In the order of the layout.
    brain : bool
        uint16 holds bfloat16 bits, not float16.
    allow_zero : bool
        -inf is the log of a zero probability.
    exact : bool
        float32 holds delta * z without rounding.
    delta : (0,), (1,) or (T,) float64
        Factor of the scores (temperature included); empty for 1.
    n_units, n_classes : int
        T and K.
    pixels : int
        P of a (B, K, P) `planes` block; 0 for `rows`.
    slope_factor : (0,), (1,) or (T,) float64
        Factor of lambda * s, where rebalancing comes before flattening; empty for 1.
    """

    raw: NDArray[Any]
    brain: bool
    allow_zero: bool
    exact: bool
    delta: NDArray[np.float64]
    n_units: int
    n_classes: int
    pixels: int
    slope_factor: NDArray[np.float64]

    def row(self, unit: int) -> NDArray[np.float64]:
        """One unit's stored scores, for messages."""
        if self.pixels:
            image, pixel = divmod(unit, self.pixels)
            values = self.raw.reshape(-1, self.n_classes, self.pixels)[image, :, pixel]
        else:
            values = self.raw[unit * self.n_classes : (unit + 1) * self.n_classes]
        if values.dtype != np.uint16:
            return values.astype(np.float64)
        if self.brain:
            return (values.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return np.ascontiguousarray(values).view(np.float16).astype(np.float64)


@dataclass(frozen=True)
class Batch:
    """What a tally is given at a time.

    Attributes
    ----------
    n_units : int
        T.
    scores : Scores or None
        None when no tally needs them.
    predictions : (T,) int32 or None
        Of a ``predictions`` file.
    labels : (T,) int32 or None
        In [0, K), or -1 where the label is ignored.
    n_ignored : int
        How many are.
    tables : (T,) int32
        Which table (fold or group) each unit is counted in; zeros when there is one.
    part : Part
        Where it came from, with the per-sample fields: labels, splits and groups are looked up there.
    parts : tuple of Part
        The same units of every modality, in the order of their names; `part` among them.
    modalities : tuple of Scores
        The scores of every modality; `scores` is the only one, or a linear combination of all.
    blank : (T,) bool or None
        Units whose label is ignored and whose scores are none: others stand in their place.
        None where there is no such unit.
    deltas : tuple of float64 arrays
        The factors, (0,), (1,) or (T,), that the scores of `modalities` were multiplied by.
    """

    n_units: int
    scores: Scores | None
    predictions: NDArray[np.int32] | None
    labels: NDArray[np.int32] | None
    n_ignored: int
    tables: NDArray[np.int32]
    part: Part
    parts: tuple[Part, ...] = ()
    modalities: tuple[Scores, ...] = ()
    blank: NDArray[np.bool_] | None = None
    deltas: tuple[NDArray[np.float64], ...] = ()


class CareError(DataError):
    """A score that is harmless, met by a stream that takes no care; it begins again, and takes care.

    Attributes
    ----------
    is_news : bool
        Nobody else says what was found.
    """

    def __init__(self, where: str, found: str, expected: str, *, is_news: bool = True) -> None:
        super().__init__(where, found, expected)
        self.is_news = is_news

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(CareError, is_news=self.is_news), (self.where, self.found, self.expected)


class InvalidScoreError(Exception):
    """A unit of a batch has a score that may not be there; carries its index, and which modality it is."""

    def __init__(self, unit: int, modality: int | None = None) -> None:
        super().__init__(unit, modality)
        self.unit = unit
        self.modality = modality


def where_is(source: Source, unit: int) -> str:
    """Where a unit of a source lies, for messages."""
    if not source.image_shape:
        return f"row {unit}"
    sample, pixel = divmod(unit, source.pixels)
    return f"sample {sample}, pixel {divmod(pixel, source.image_shape[-1])}"


def check_labels(
    labels: NDArray[Any], n_classes: int, ignored: frozenset[int], source: Source, unit_of: Callable[[int], int],
    out: NDArray[np.int32] | None = None,
) -> tuple[NDArray[np.int32], int]:  # fmt: skip
    """Labels as int32 with -1 for the ignored ones, and how many these are.

    Parameters
    ----------
    labels : (T,) any integer dtype
        As stored.
    n_classes : int
        K.
    ignored : frozenset of int
        ``--ignore-index`` values, ignored inside [0, K) too. Outside, `IGNORED_LABELS` always are.
    source, unit_of
        For the message: the source, and which of its units has ``labels[i]``.
    out : (T,) int32, optional
        Where to write them: new memory costs more than the check.

    Raises
    ------
    DataError
        Another value outside [0, K); the first such row is named.
    """
    out = np.empty(labels.size, dtype=np.int32) if out is None else out
    if labels.size == 0:
        return out, 0
    inside = int(labels.min()) >= 0 and int(labels.max()) < n_classes
    if inside and not any(0 <= value < n_classes for value in ignored):
        out[:] = labels
        return out, 0
    drop = np.zeros(labels.size, dtype=bool)
    known = np.iinfo(labels.dtype)
    for value in ignored:
        if known.min <= value <= known.max:
            drop |= labels == value
    outside = (labels < 0) | (labels >= n_classes)
    for value in IGNORED_LABELS:
        if known.min <= value <= known.max:
            drop |= outside & (labels == value)
    wrong = outside & ~drop
    if wrong.any():
        i = int(wrong.argmax())
        named = ", ".join(map(str, IGNORED_LABELS))
        start = " (the first class is 0)" if labels[i] == n_classes and not (labels == 0).any() else ""
        raise DataError(
            source.where("labels"),
            f"label {int(labels[i])} at {where_is(source, unit_of(i))}",
            f"expected labels in [0, {n_classes}){start}, or {named} to be ignored (others: --ignore-index)",
        )
    out[:] = np.where(drop, 0, labels)
    out[drop] = -1
    return out, int(drop.sum())


def ignored_units(labels: NDArray[Any] | None, n_classes: int) -> NDArray[np.int64]:
    """Entries of labels as stored that are ignored whatever the options, (I,).

    Examples
    --------
    >>> ignored_units(np.array([0, 255, 1, -1, 7]), 2)
    array([1, 3])
    """
    if labels is None:
        return np.empty(0, dtype=np.int64)
    outside = (labels < 0) | (labels >= n_classes)
    return np.flatnonzero(outside & np.isin(labels, IGNORED_LABELS))


def check_delta(delta: NDArray[Any], where: str, place: Callable[[int], str]) -> None:
    """Refuse factors that are negative, infinite or NaN; `place` says where entry i lies."""
    wrong = ~(np.isfinite(delta) & (delta >= 0))
    if wrong.any():
        i = int(wrong.argmax())
        raise DataError(where, f"{delta[i]} at {place(i)}", "expected finite factors, none negative")


def fill_blanks(part: Part, ignored: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put equal scores in place of those that are none, of units whose label is ignored.

    Parameters
    ----------
    part : Part
        Its scores are changed in place.
    ignored : (I,) int64
        Entries of the part whose label is ignored.

    Returns
    -------
    (B,) int64
        Those whose scores were none.
    """
    scores, kind = part.block.scores, part.source.kind
    if scores is None or not ignored.size:
        return ignored[:0]
    if scores.ndim == 3:
        image, pixel = np.divmod(ignored, scores.shape[2])
        rows = scores[image, :, pixel]
    else:
        rows = scores[ignored]
    values = _wide(rows, part.source.encoding == "bfloat16")
    with np.errstate(invalid="ignore"):
        invalid = ~(values <= _LARGEST) | ((values < -_LARGEST) & (values > -np.inf))
        invalid |= (values < 0) & (kind == "probs")
    wrong = invalid.any(axis=1) | (values == (0.0 if kind == "probs" else -np.inf)).all(axis=1)
    blank: NDArray[np.int64] = ignored[wrong]
    if blank.size:
        one = {np.dtype(np.uint16): 0x3F80 if part.source.encoding == "bfloat16" else 0x3C00}.get(scores.dtype, 1)
        value = one if kind == "probs" else 0
        if scores.ndim == 3:
            scores[image[wrong], :, pixel[wrong]] = value
        else:
            scores[blank] = value
    return blank


def stored_delta(part: Part) -> NDArray[np.float64]:
    """The delta stored in the file, (0,), (1,) or (T,), checked."""
    if part.block.delta is None:
        return np.empty(0)

    def place(i: int) -> str:
        return "the scalar" if part.scalar_delta else where_is(part.source, part.unit_of(i))

    check_delta(part.block.delta, f"{part.source.name}:delta", place)
    return part.block.delta


def make_scores(
    part: Part, temperature: float = 1.0, delta: NDArray[np.float64] | None = None, *, rebalance_first: bool = False,
    floor: float | None = None, offsets: Sequence[float] | None = None,
) -> Scores:  # fmt: skip
    """Scores of a block: probabilities become float64 logs, the temperature joins delta, and offsets are added.

    Parameters
    ----------
    part : Part
    temperature : float
        Divides the scores.
    delta : (0,), (1,) or (T,) float64, optional
        Factors, checked; by default those that the file stores.
    rebalance_first : bool
        delta multiplies lambda * s as well.
    floor : float, optional
        Smaller probabilities are taken as this, before all else.
    offsets : (K,) floats, optional
        b_k, which is added to delta * z / T, or multiplied by delta as lambda * s is: scores are float64 then.

    Raises
    ------
    DataError
        A stored delta that is negative, infinite or NaN.
    """
    block, source = part.block, part.source
    assert block.scores is not None
    raw = block.scores
    pixels = raw.shape[2] if raw.ndim == 3 else 0
    n_classes = raw.shape[1]
    n_units = raw.shape[0] * (pixels or 1)
    brain = source.encoding == "bfloat16"
    if source.kind == "probs":
        raw, brain = _log(raw, brain), False
    if floor is not None:
        raw, brain = np.maximum(_wide(raw, brain), np.log(floor)), False
    if delta is None:
        delta = stored_delta(part)
    slope_factor = delta if rebalance_first and not (delta == 1.0).all() else np.empty(0)
    if temperature != 1.0:
        delta = (delta if delta.size else np.ones(1)) / temperature
    if delta.size and (delta == 1.0).all():
        delta = np.empty(0)
    if offsets is not None or ((delta > 0) & ((delta < DELTAS[0]) | (delta > DELTAS[1]))).any():

        def per_unit(factors: NDArray[np.float64]) -> NDArray[np.float64]:
            return factors.reshape((raw.shape[0], 1, pixels) if pixels else (-1, 1)) if factors.size > 1 else factors

        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            raw = _wide(raw, brain) * per_unit(delta) if delta.size else _wide(raw, brain)
            if offsets is not None:
                bias = np.array(offsets).reshape((n_classes, 1) if pixels else (n_classes,))
                raw = raw + (per_unit(slope_factor) * bias if slope_factor.size else bias)
        delta, brain = np.empty(0), False
    return Scores(
        raw=raw.reshape(-1),
        brain=brain,
        allow_zero=part.masks or source.kind in ("log_probs", "probs"),
        exact=raw.dtype != np.float64 and not delta.size,
        delta=delta,
        n_units=n_units,
        n_classes=n_classes,
        pixels=pixels,
        slope_factor=slope_factor,
    )


def _wide(raw: NDArray[Any], brain: bool) -> NDArray[np.float64]:
    """Stored scores in float64."""
    if raw.dtype == np.uint16:
        raw = (raw.astype(np.uint32) << 16).view(np.float32) if brain else raw.view(np.float16)
    return raw.astype(np.float64)


def _log(raw: NDArray[Any], brain: bool) -> NDArray[np.float64]:
    """Log of stored probabilities in float64; NaN where they are negative."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(_wide(raw, brain))


@dataclass(frozen=True)
class Part:
    """The units of a block that belong to the chosen split.

    Attributes
    ----------
    block : LogitBlock
        Their arrays; `start` and `stop` stay those of the whole block.
    source : Source
    units : (T,) int64 or None
        Their positions in the whole block; None when all are kept.
    chosen : (S,) int64 or None
        Samples of the source that belong to the split; None when all that the block touches do.
    scalar_delta : bool
        ``block.delta`` is one factor for all units, not that of the only unit.
    masks : bool
        -inf among logits says that a unit cannot be of the class.
    """

    block: LogitBlock
    source: Source
    units: NDArray[np.int64] | None
    chosen: NDArray[np.int64] | None = None
    scalar_delta: bool = False
    masks: bool = False

    @property
    def samples(self) -> NDArray[np.int64]:
        """Sample of the source for each entry of the per-sample fields, (S,)."""
        if self.chosen is not None:
            return self.chosen
        return np.arange(self.block.start // self.source.pixels, -(-self.block.stop // self.source.pixels))

    def unit_of(self, i: int) -> int:
        """The unit of the source behind entry i."""
        return self.block.start + (i if self.units is None else int(self.units[i]))

    def sample_of_units(self, chosen: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """The source's sample of each unit kept, (T,), or of chosen entries of these."""
        entries = np.arange(self.block.stop - self.block.start) if chosen is None else chosen
        units = entries if self.units is None else self.units if chosen is None else self.units[chosen]
        return np.asarray((self.block.start + units) // self.source.pixels)

    def per_unit(self, values: NDArray[Any], chosen: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Repeat per-sample values (S,) for the units kept, or for chosen entries of these."""
        return np.asarray(values[np.searchsorted(self.samples, self.sample_of_units(chosen))])


def choose_split(block: LogitBlock, source: Source, split: str | None) -> Part:
    """The part of a block that belongs to a split (all of it for None)."""
    scalar = block.delta is not None and block.delta.size == 1 and (block.stop - block.start > 1 or source.n_units == 1)
    if split is None:
        return Part(block, source, None, None, scalar)
    assert block.split is not None
    chosen = np.asarray(block.split == split)
    if chosen.all():
        return Part(block, source, None, None, scalar)
    samples = np.arange(block.start // source.pixels, -(-block.stop // source.pixels))
    kept = chosen[np.arange(block.start, block.stop) // source.pixels - samples[0]]
    units = np.flatnonzero(kept)

    def of_units(array: NDArray[Any] | None) -> Any:
        return array if array is None or array.size < kept.size else array[units]

    scores = block.scores
    if scores is not None and scores.ndim == 3:
        scores = np.ascontiguousarray(scores[chosen])
    elif scores is not None:
        scores = scores[units]
    part = LogitBlock(
        start=block.start,
        stop=block.stop,
        scores=scores,
        predictions=of_units(block.predictions),
        labels=of_units(block.labels),
        delta=of_units(block.delta),
        split=block.split[chosen],
        group=None if block.group is None else block.group[chosen],
        sample_id=None if block.sample_id is None else block.sample_id[chosen],
    )
    return Part(part, source, units, samples[chosen], scalar)


def stored_batch(part: Part) -> Batch:
    """A batch of what is stored, with nothing checked and no scores made; labels that are no class count as ignored."""
    block, n_classes = part.block, part.source.n_classes
    labels, predictions = block.labels, block.predictions if block.scores is None else None
    if labels is not None:
        labels = np.where((labels >= 0) & (labels < n_classes), labels, -1).astype(np.int32)
    n_units = block.stop - block.start if part.units is None else part.units.size
    seen = None if predictions is None else predictions.astype(np.int64)
    n_ignored = 0 if labels is None else int((labels < 0).sum())
    return Batch(n_units, None, seen, labels, n_ignored, np.zeros(0, np.int32), part, (part,))  # type: ignore[arg-type]  # of any integers


def stored_field(array: NDArray[Any] | None, dtype: str | None) -> NDArray[Any] | None:
    """A field as the output holds it."""
    if array is None or dtype is None:
        return None
    if dtype == "str":
        return array if array.dtype.kind not in "iu" else array.astype(str).astype(object)
    return array.astype(dtype, copy=False)
