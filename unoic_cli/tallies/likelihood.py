"""Negative log-likelihood over temperatures, and calibration error, in fixed point: any split gives the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unoic_cli.batch import Batch, InvalidScoreError, where_is
from unoic_cli.counters import Tally, added
from unoic_cli.errors import DataError
from unoic_cli.kernels.likelihood import N_TIERS, PIECE, STEP, sum_confidence, sum_likelihood
from unoic_cli.kernels.posterior import FIXED_POINT

_ONE = int(FIXED_POINT)


class Likelihood(NamedTuple):
    """The mean negative log-likelihood at one beta = 1 / T.

    Attributes
    ----------
    beta : float
    nll : float
        Nats.
    slope, curvature : float
        Its first and second derivative in beta.
    """

    beta: float
    nll: float
    slope: float
    curvature: float


def _sum_pieces(batch: Batch, tiers: NDArray[np.int64], run: Callable[[int, int], int]) -> int:
    """Run a kernel over a batch, piece by piece; returns the sum of the labels' gaps in units of 2**-40."""
    total = 0
    for first in range(0, batch.n_units, PIECE):
        tiers[:] = 0
        bad = run(first, min(first + PIECE, batch.n_units))
        if bad >= 0:
            raise InvalidScoreError(bad)
        if bad < -1:
            source = batch.part.source
            found = f"a zero probability of the true class at {where_is(source, batch.part.unit_of(-2 - bad))}"
            expected = "expected a positive probability of the true class (its log-likelihood is infinite)"
            hint = "" if source.kind == "logits" else "; fit-temperature --floor 1e-12 takes smaller ones as that"
            raise DataError(source.scores_name, found, expected + hint)
        total += sum(int(part) << STEP * tier for tier, part in enumerate(tiers))
    return total


class LikelihoodTally(Tally):
    """NLL of softmax(beta * delta * z) and its derivatives at several betas, from one read.

    Parameters
    ----------
    n_classes : int
        K.
    betas : sequence of float
        B betas, positive.
    n_octaves : int
        D: also at ``beta * 2**i`` for i < D, which takes no further exponentials.

    Attributes
    ----------
    n, n_ignored : int
        Labelled units, and those whose label is ignored.
    """

    needs = frozenset({"scores", "labels"})
    COUNTED = ("n", "n_ignored", "_gap", "_sums")

    def __init__(self, n_classes: int, betas: Sequence[float], n_octaves: int = 1) -> None:
        self.n_classes, self.betas, self.n_octaves = n_classes, tuple(betas), n_octaves
        self.n = self.n_ignored = 0
        self._gap = 0  # Python integers: no sum overflows
        self._sums = [0] * (3 * len(self.betas) * n_octaves)
        self._array = np.array(self.betas)
        self._gaps, self._parts = np.zeros(n_classes), np.zeros(3 * n_octaves)
        self._tiers = np.zeros(N_TIERS, dtype=np.int64)

    def recipe(self) -> partial[LikelihoodTally]:
        """What makes an empty tally like this one."""
        return partial(LikelihoodTally, self.n_classes, self.betas, self.n_octaves)

    def update(self, batch: Batch) -> None:
        """Add a batch.

        Raises
        ------
        InvalidScoreError
            At the first invalid unit.
        DataError
            A true class of probability zero; the first such unit is named.
        """
        scores, labels = batch.scores, batch.labels
        assert scores is not None and labels is not None
        sums = np.zeros(len(self._sums), dtype=np.int64)

        def run(first: int, stop: int) -> int:
            sums[:] = 0
            bad = sum_likelihood(
                scores.raw, scores.brain, scores.allow_zero, scores.pixels, scores.delta, labels, first, stop,
                self.n_classes, self._array, self.n_octaves, self._gaps, self._parts, self._tiers, sums,
            )  # fmt: skip
            self._sums = added(self._sums, sums.tolist())
            return bad

        self._gap += _sum_pieces(batch, self._tiers, run)
        self.n += batch.n_units - batch.n_ignored
        self.n_ignored += batch.n_ignored

    def curve(self) -> list[Likelihood]:
        """Means at every beta, ascending."""
        n, gap = self.n * _ONE, self._gap / (self.n * _ONE)
        found = []
        for i, base in enumerate(self.betas):
            for j in range(self.n_octaves):
                place, beta = 3 * (i * self.n_octaves + j), base * 2.0**j
                log_sum, mean, variance = (self._sums[place + part] / n for part in range(3))
                found.append(Likelihood(beta, beta * gap + log_sum, gap - mean / beta, variance / beta / beta))
        return sorted(found)


class ConfidenceTally(Tally):
    """NLL, and top-1 confidence against accuracy in equal-width bins, at several betas.

    Parameters
    ----------
    n_classes : int
        K.
    betas : sequence of float
        B betas, positive.
    n_bins : int
        M: bin i holds confidences in (i / M, (i + 1) / M].

    Attributes
    ----------
    n, n_ignored : int
        Labelled units, and those whose label is ignored.
    """

    needs = frozenset({"scores", "labels"})
    COUNTED = ("n", "n_ignored", "_gap", "_logs", "_confidences", "_counts", "_hits")

    def __init__(self, n_classes: int, betas: Sequence[float], n_bins: int) -> None:
        self.n_classes, self.betas, self.n_bins = n_classes, tuple(betas), n_bins
        self.n = self.n_ignored = 0
        size = len(self.betas) * n_bins
        self._gap = 0
        self._logs, self._confidences = [0] * len(self.betas), [0] * size
        self._counts, self._hits = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        self._array, self._gaps = np.array(self.betas), np.zeros(n_classes)
        self._tiers = np.zeros(N_TIERS, dtype=np.int64)

    def recipe(self) -> partial[ConfidenceTally]:
        """What makes an empty tally like this one."""
        return partial(ConfidenceTally, self.n_classes, self.betas, self.n_bins)

    def update(self, batch: Batch) -> None:
        """Add a batch; raises as `LikelihoodTally.update`."""
        scores, labels = batch.scores, batch.labels
        assert scores is not None and labels is not None
        logs = np.zeros(len(self._logs), dtype=np.int64)
        confidences = np.zeros(len(self._confidences), dtype=np.int64)

        def run(first: int, stop: int) -> int:
            logs[:], confidences[:] = 0, 0
            bad = sum_confidence(
                scores.raw, scores.brain, scores.allow_zero, scores.pixels, scores.delta, labels, first, stop,
                self.n_classes, self._array, self.n_bins, self._gaps, self._tiers, logs, self._counts, self._hits,
                confidences,
            )  # fmt: skip
            self._logs, self._confidences = (
                added(self._logs, logs.tolist()),
                added(self._confidences, confidences.tolist()),
            )
            return bad

        self._gap += _sum_pieces(batch, self._tiers, run)
        self.n += batch.n_units - batch.n_ignored
        self.n_ignored += batch.n_ignored

    def nll(self, i: int) -> float:
        """Mean negative log-likelihood at beta i, nats."""
        n = self.n * _ONE
        return self.betas[i] * (self._gap / n) + self._logs[i] / n

    def accuracy(self) -> float:
        """Share of units whose largest score is the label's; the same at every beta."""
        return int(self._hits[: self.n_bins].sum()) / self.n

    def ece(self, i: int) -> float:
        """Expected calibration error at beta i: the mean over units of |accuracy - mean confidence| of their bin."""
        bins = slice(i * self.n_bins, (i + 1) * self.n_bins)
        pairs = zip(self._hits[bins].tolist(), self._confidences[bins], strict=True)
        gap: int = sum(abs(hits * _ONE - confidence) for hits, confidence in pairs)
        return gap / (self.n * _ONE)

    def counts(self, i: int) -> list[int]:
        """Units in each bin at beta i."""
        return [int(count) for count in self._counts[i * self.n_bins : (i + 1) * self.n_bins]]
