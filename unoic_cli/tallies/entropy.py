"""Mean and spread over samples of the softmax entropy, in fixed point so that any split of the data gives the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calibrations.delta import FIXED_POINT, DeltaStatistics, Measure, Per, mean_of_sums
from unoic_cli.data.batch import Batch, InvalidScoreError
from unoic_cli.kernels import entropy_of_units
from unoic_cli.kernels.lines import make_workspace
from unoic_cli.tallies.tally import Counters, Tally

_SHIFT = FIXED_POINT.bit_length() - 1
_PIECE = 1 << 16
_HALF = 23  # entropies are below 2**44 units: products of their halves, summed over a piece, stay below 2**63
_LOW = (1 << _HALF) - 1


class Moments:
    """Count, sum, sum of squares and maximum of whole numbers of 2**-40 nats, exactly.

    Attributes
    ----------
    n, total, squares, largest : int
        Python integers: nothing overflows.
    """

    def __init__(self) -> None:
        self.n = self.total = self.squares = self.largest = 0

    def count(self, values: NDArray[np.int64]) -> None:
        """Take samples in, (S,); none is negative, or 2**44 or more."""
        self.n += values.size
        self.largest = max(self.largest, int(values.max(initial=0)))
        for start in range(0, values.size, _PIECE):
            piece = values[start : start + _PIECE]
            high, low = piece >> _HALF, piece & _LOW
            self.total += (int(high.sum()) << _HALF) + int(low.sum())
            middle = int(high @ low) << (_HALF + 1)
            self.squares += (int(high @ high) << 2 * _HALF) + middle + int(low @ low)

    def add(self, n: int, total: int, squares: int, largest: int) -> None:
        """Take over what was counted elsewhere."""
        self.n, self.total, self.squares = self.n + n, self.total + total, self.squares + squares
        self.largest = max(self.largest, largest)

    def mean(self) -> float:
        """In nats, rounded once."""
        return float(Fraction(self.total, self.n << _SHIFT))

    def deviation(self) -> float:
        """Population standard deviation in nats."""
        root = math.isqrt((self.n * self.squares - self.total**2) << 128)
        return float(Fraction(root, self.n << (64 + _SHIFT)))

    def statistics(
        self, power: float, modality: str | None, measure: Measure, provenance: dict[str, Any], per: Per = "sample"
    ) -> DeltaStatistics:
        """As delta statistics."""
        most = float(Fraction(self.largest, 1 << _SHIFT))
        return DeltaStatistics(self.mean(), self.deviation(), power, measure, self.n, modality, provenance, per, most)


class EntropyTally(Tally):
    """Mean and standard deviation of H, the mean entropy of a sample's pixels; a stored delta is not applied.

    Parameters
    ----------
    n_classes : int
        K.
    sizes : mapping of str to int, optional
        Keep H of every sample (units of 2**-40 nats): the number of samples of each source, by its name.
    into : mapping of str to (N,) int64, optional
        Put H there instead, where it is too much for memory; this is no counter.
    per_pixel : bool
        H is of each pixel by itself.

    Attributes
    ----------
    moments : Moments
        Of the samples that were seen whole.
    partial : dict
        (source name, sample, its pixels) -> (sum of entropies, pixels seen) of those that were not.
    """

    needs = frozenset({"scores"})

    def __init__(
        self,
        n_classes: int,
        sizes: Mapping[str, int] | None = None,
        into: Mapping[str, NDArray[np.int64]] | None = None,
        per_pixel: bool = False,
    ) -> None:
        self.n_classes, self.sizes, self.into, self.per_pixel = n_classes, sizes, into, per_pixel
        self.moments = Moments()
        self.partial: dict[tuple[str, int, int], tuple[int, int]] = {}
        self._pieces: list[tuple[str, NDArray[np.int64], NDArray[np.int64]]] = []
        self._work = make_workspace(n_classes)
        self._units = np.empty(0, dtype=np.int64)

    def recipe(self) -> partial[EntropyTally]:
        """What makes an empty tally like this one; it puts H where this one does."""
        return partial(EntropyTally, self.n_classes, self.sizes, self.into, self.per_pixel)

    def update(self, batch: Batch) -> None:
        """Count a batch; raises `InvalidScoreError` at the first invalid unit."""
        scores = batch.scores
        assert scores is not None
        if self._units.size < batch.n_units:
            self._units = np.empty(batch.n_units, dtype=np.int64)
        units = self._units[: batch.n_units]
        bad = entropy_of_units(
            scores.raw, scores.brain, scores.allow_zero, scores.pixels, batch.n_units, scores.n_classes, units,
            self._work,
        )  # fmt: skip
        if bad >= 0:
            raise InvalidScoreError(bad)
        part = batch.part
        source, samples = part.source, part.samples
        if self.per_pixel:
            self.moments.count(units)
            return
        if source.pixels == 1:
            self._fold(source.name, samples, units)
            return
        edges = np.minimum((samples + 1) * source.pixels, part.block.stop)
        sizes = edges - np.maximum(samples * source.pixels, part.block.start)
        starts = np.cumsum(sizes) - sizes
        high = np.add.reduceat(units >> _HALF, starts)
        low = np.add.reduceat(units & _LOW, starts)
        whole = sizes == source.pixels
        if source.pixels > _PIECE:
            whole[:] = False  # such a sum may not fit
        self._fold(source.name, samples[whole], mean_of_sums((high[whole] << _HALF) + low[whole], source.pixels))
        for i in np.flatnonzero(~whole).tolist():
            self._join(
                (source.name, int(samples[i]), source.pixels), (int(high[i]) << _HALF) + int(low[i]), int(sizes[i])
            )

    def _fold(self, name: str, samples: NDArray[np.int64], values: NDArray[np.int64]) -> None:
        self.moments.count(values)
        if self.into is not None:
            self.into[name][samples] = values
        elif self.sizes is not None:
            self._pieces.append((name, samples.astype(np.int32), values.copy()))

    def _join(self, key: tuple[str, int, int], total: int, seen: int) -> None:
        """Add to a sample's sum; fold it when it is whole."""
        before = self.partial.pop(key, (0, 0))
        total, seen = total + before[0], seen + before[1]
        if seen < key[2]:
            self.partial[key] = total, seen
        else:
            value = (2 * total + seen) // (2 * seen)  # `mean_of_sums`, where a sum may not fit
            self._fold(key[0], np.array([key[1]]), np.array([value], dtype=np.int64))

    def kept(self, name: str) -> NDArray[np.int64]:
        """H of every sample of a source, (N,); -1 for those that were not counted."""
        assert self.sizes is not None
        found = np.full(self.sizes[name], -1, dtype=np.int64)
        for piece, samples, values in self._pieces:
            if piece == name:
                found[samples] = values
        return found

    def counters(self) -> Counters:
        """What was counted so far; of samples that were not, H + 1 is 0."""
        assert self.into is None
        moments = self.moments
        return {
            "moments": [moments.n, moments.total, moments.squares],
            "largest": {str(moments.largest): 1},  # a name for each part of the data, so that parts can be added
            "partial": {
                f"{sample} {pixels} {name}": list(sums) for (name, sample, pixels), sums in self.partial.items()
            },
            "kept": {name: self.kept(name) + 1 for name in self.sizes or ()},
        }

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what a tally like this one counted elsewhere."""
        n, total, squares = counters["moments"]
        self.moments.add(n, total, squares, max(map(int, counters["largest"])))
        for name, values in counters["kept"].items():
            samples = np.flatnonzero(values)
            self._pieces.append((name, samples, values[samples] - 1))
        for key, (total, seen) in counters["partial"].items():
            sample, pixels, name = key.split(" ", 2)
            self._join((name, int(sample), int(pixels)), total, seen)

    def add(self, other: EntropyTally) -> None:
        """Take over what another thread counted."""
        moments = other.moments
        self.moments.add(moments.n, moments.total, moments.squares, moments.largest)
        self._pieces += other._pieces
        for key, (total, seen) in other.partial.items():
            self._join(key, total, seen)

    def statistics(
        self, power: float, modality: str | None, measure: Measure, provenance: dict[str, Any]
    ) -> DeltaStatistics:
        """Delta statistics of everything counted; every sample was seen whole."""
        assert not self.partial
        return self.moments.statistics(power, modality, measure, provenance)
