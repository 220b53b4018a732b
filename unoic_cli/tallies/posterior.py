"""The mean predicted posterior, in fixed point so that any split of the data gives the same bits."""

from __future__ import annotations

from functools import partial

import numpy as np

from unoic_cli.data.batch import Batch, InvalidScoreError
from unoic_cli.kernels import sum_posterior
from unoic_cli.kernels.constants import FIXED_POINT
from unoic_cli.kernels.lines import make_lines, make_workspace
from unoic_cli.tallies.tally import Tally


class PosteriorTally(Tally):
    """Sum of softmax(delta * z) over units, as integers in units of 2**-40."""

    needs = frozenset({"scores"})
    COUNTED = ("sums", "n_units")

    def __init__(self, n_classes: int) -> None:
        self._lines = make_lines(np.zeros(n_classes), np.zeros(n_classes, dtype=bool), np.zeros(1))
        self.sums = [0] * n_classes  # Python integers: no sum overflows
        self.n_units = 0
        self._work = make_workspace(n_classes)

    def recipe(self) -> partial[PosteriorTally]:
        """What makes an empty tally like this one."""
        return partial(PosteriorTally, len(self.sums))

    def update(self, batch: Batch) -> None:
        """Add a batch; raises `InvalidScoreError` at the first invalid unit."""
        scores = batch.scores
        assert scores is not None
        sums = np.zeros(len(self.sums), dtype=np.int64)
        bad = sum_posterior(
            scores.raw, scores.brain, scores.allow_zero, scores.pixels, scores.delta, batch.n_units, self._lines, sums,
            self._work,
        )  # fmt: skip
        if bad >= 0:
            raise InvalidScoreError(bad)
        self.sums = [total + int(part) for total, part in zip(self.sums, sums, strict=True)]
        self.n_units += batch.n_units

    def mean(self) -> list[float]:
        """Mean posterior of the K classes."""
        return [total / FIXED_POINT / self.n_units for total in self.sums]
