"""What rounding of scores does to decisions: counted beside the copying, in float64 before and after."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.view import Look, SampleFactors, View
from unoic_cli.data.batch import Batch, InvalidScoreError, Part, choose_split, fill_blanks, ignored_units, where_is
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.reader import invalid_score
from unoic_cli.data.steps import Steps
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats.block import Encoding, LogitBlock, Source
from unoic_cli.kernels.lines import Lines, make_point, make_workspace
from unoic_cli.options import filled
from unoic_cli.resolve.common import Notes
from unoic_cli.resolve.decider import Decider, make_decider
from unoic_cli.resolve.modalities import resolve
from unoic_cli.resolve.options import DataOptions, MethodOptions
from unoic_cli.tallies.points import predict
from unoic_cli.tallies.tally import Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray


DTYPES = ("keep", "float16", "bfloat16", "float32")
EXACT = {("float16", "float32"), ("bfloat16", "float32")}
"""Encodings of which the second holds all that the first does."""


def is_exact(stored: Encoding, wanted: Encoding) -> bool:
    """Whether scores of an encoding are the same in another."""
    return stored == wanted or (stored, wanted) in EXACT


def check_dtype(dtype: str) -> None:
    """Refuse a type that scores are not rounded to.

    Raises
    ------
    UsageError
        It is none.
    """
    if dtype not in DTYPES:
        raise UsageError("--dtype", f"{dtype!r}", f"expected one of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class Watch:
    """Which decisions are compared: those at lambda 0, and those of a calibration.

    Attributes
    ----------
    source, rounded : Source
        The input, and the same with the new encoding.
    decider : Decider or None
        Of the calibration.
    lams : tuple of float
    """

    source: Source
    rounded: Source
    decider: Decider | None
    lams: tuple[float, ...]

    @property
    def needs_samples(self) -> bool:
        """Whether whole samples must be seen at once."""
        return self.decider is not None and self.decider.view.needs_samples

    def counter(self, counts: list[int]) -> Counter:
        """One thread's counts."""
        return Counter(self, counts)


def make_watch(source: Source, encoding: Encoding, calibration: str | os.PathLike[str] | Any) -> Steps[Watch]:
    """Make ready to compare decisions on a source and on the same in another encoding.

    Raises
    ------
    UnoicError
        The calibration is not one, or does not go with the source.
    """
    rounded = replace(source, encoding=encoding)
    if calibration is None:
        return Watch(source, rounded, None, (0.0,))
    data = DataSet((source,), None, frozenset(), source.n_samples)
    wanted, plain = filled(MethodOptions, {"calibration": calibration}), filled(DataOptions, {})
    resolved = yield from resolve(wanted, data, plain, Notes())
    assert resolved is not None
    decider = yield from make_decider(resolved.calibration, data, resolved.factors)
    # images too large to be seen at once keep the delta they had
    looks = tuple(
        replace(look, factors=SampleFactors((source, rounded), look.factors.values * 2))
        if isinstance(look.factors, SampleFactors)
        else look
        for look in decider.view.looks
    )
    decider = replace(decider, view=replace(decider.view, looks=looks))
    return Watch(source, rounded, decider, (0.0, decider.calibration.lam))


class Counter:
    """How many decisions differ, at each lambda of a `Watch`."""

    def __init__(self, watch: Watch, counts: list[int]) -> None:
        self.watch, self.counts = watch, counts
        n_classes = watch.source.n_classes
        self._work = make_workspace(n_classes)
        plain = make_point(np.zeros(n_classes), np.zeros(n_classes, dtype=bool), 0.0)
        self._deciders: list[tuple[View, Lines | Fuser]] = [(View((Look(),)), plain)]
        if watch.decider is not None:
            lam = watch.decider.calibration.lam
            decide = watch.decider.point(lam) if watch.decider.linear else watch.decider.writer(lam)
            self._deciders.append((watch.decider.view, decide))

    def update(self, block: LogitBlock, scores: NDArray[Any], scalar_delta: float | None) -> None:
        """Compare a block with its rounded scores."""
        delta = np.array([scalar_delta]) if scalar_delta is not None else block.delta
        ignored = ignored_units(block.labels, self.watch.source.n_classes)
        if ignored.size:  # what they hold is filled in below, and stored as it is
            block, scores = block.own(), scores.copy()
        for i, (view, decide) in enumerate(self._deciders):
            before_block = replace(block, delta=delta, cache={})
            before = self._decisions(before_block, self.watch.source, view, decide, ignored)
            after_block = replace(block, scores=scores, delta=delta, cache={})
            after = self._decisions(after_block, self.watch.rounded, view, decide, ignored)
            self.counts[i] += int(np.count_nonzero(before != after))

    def _decisions(
        self, block: LogitBlock, source: Source, view: View, decide: Lines | Fuser, ignored: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        part = replace(choose_split(block, source, None), masks=True)
        fill_blanks(part, ignored)
        n_units = block.stop - block.start
        out = np.empty(n_units, dtype=np.int32)
        try:
            batch = view.apply(Batch(n_units, None, None, None, 0, np.zeros(0, np.int32), part, (part,)))
            if isinstance(decide, Fuser):
                decide.predict(batch, out)
            else:
                predict(batch, decide, out, self._work)
        except InvalidScoreError as error:
            raise self._invalid(part, error) from None
        return out

    def _invalid(self, part: Part, error: InvalidScoreError) -> DataError:
        if part.source is self.watch.source:
            return invalid_score((part,), error)
        place = where_is(part.source, part.unit_of(error.unit))
        found = f"no class that is left by {part.source.encoding} at {place}"
        return DataError(part.source.scores_name, found, "expected a wider --dtype")


class RoundingTally(Tally):
    """How many decisions rounding changed, at each lambda of a `Watch`."""

    COUNTED = ("changed",)
    needs: frozenset[str] = frozenset()

    def __init__(self, n_lams: int) -> None:
        self.changed = [0] * n_lams

    def recipe(self) -> partial[RoundingTally]:
        """What makes an empty tally like this one."""
        return partial(RoundingTally, len(self.changed))


# ------------------------------------------------------------------------------------------------
# types


def as_encoding(scores: NDArray[Any], source: Source, encoding: Encoding, start: int = 0) -> NDArray[Any]:
    """Scores of a block of `source`, rounded to nearest (ties to even), as blocks of another encoding hold them.

    Raises
    ------
    DataError
        A finite score leaves the range of the new type.
    """
    values = scores
    if scores.dtype == np.uint16:
        brain = source.encoding == "bfloat16"
        values = (scores.astype(np.uint32) << 16).view(np.float32) if brain else scores.view(np.float16)
    with np.errstate(over="ignore", invalid="ignore"):
        if encoding == "bfloat16":
            made, wide = _brain(values)
        else:
            wide = made = values.astype(encoding)
        lost = np.isinf(wide)
        if lost.any():
            lost &= np.isfinite(values)
    if lost.any():
        flat = np.moveaxis(lost, 1, -1).reshape(-1, source.n_classes)
        unit, k = np.argwhere(flat)[0]
        value = np.moveaxis(values, 1, -1).reshape(-1, source.n_classes)[unit, k]
        found = f"{value:.6g} at {where_is(source, start + int(unit))}, class {k}"
        raise DataError(source.scores_name, found, f"expected values in the range of {encoding}, or another --dtype")
    return made.view(np.uint16) if made.dtype == np.float16 else made


def _brain(values: NDArray[Any]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """bfloat16 bits of floats, and the same as float32."""
    single = values.astype(np.float32)
    bits = single.view(np.uint32).copy()
    if values.dtype == np.float64:  # what float32 rounded to the middle between two goes to its own side
        middle = (bits & 0xFFFF) == 0x8000
        bits[middle & (np.abs(values) > np.abs(single))] += 1
        bits[middle & (np.abs(values) < np.abs(single))] -= 1
    nan = np.isnan(single)
    high = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    made = np.where(nan, bits >> 16 | 0x40, high).astype(np.uint16)
    return made, (made.astype(np.uint32) << 16).view(np.float32)
