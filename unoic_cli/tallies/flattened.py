"""How many units are flattened further than the data that delta was fitted on ever was."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from unoic_cli.data.batch import Batch
from unoic_cli.tallies.tally import Tally

_SCALE = 1 << 24
"""Deltas are summed as integers, in units of 1 / this."""


class FlattenedTally(Tally):
    """Units, those with a delta below a bound, and the sum of their deltas, for each modality.

    Parameters
    ----------
    bounds : tuple of float
        In the order of the view's modalities; 0 where nothing is to be counted.

    Attributes
    ----------
    n : int
    below, sums : (M,) int64
        Units below, and the sum of their deltas in fixed point.
    """

    needs = frozenset({"scores"})
    COUNTED = ("n", "below", "sums")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.n = bounds, 0
        self.below: NDArray[np.int64] = np.zeros(len(bounds), dtype=np.int64)
        self.sums: NDArray[np.int64] = np.zeros(len(bounds), dtype=np.int64)

    def recipe(self) -> partial[FlattenedTally]:
        """What makes an empty tally like this one."""
        return partial(FlattenedTally, self.bounds)

    def update(self, batch: Batch) -> None:
        """Count a batch."""
        self.n += batch.n_units
        for m, (bound, delta) in enumerate(zip(self.bounds, batch.deltas, strict=True)):
            low = delta[delta < bound]
            if low.size:
                times = batch.n_units if delta.size == 1 else 1
                self.below[m] += low.size * times
                self.sums[m] += int(np.rint(low * _SCALE).astype(np.int64).sum()) * times

    def share(self, m: int) -> float:
        """Of the units, those of a modality that are below its bound."""
        return int(self.below[m]) / self.n if self.n else 0.0

    def mean(self, m: int) -> float:
        """The mean delta of these."""
        return int(self.sums[m]) / (int(self.below[m]) * _SCALE)
