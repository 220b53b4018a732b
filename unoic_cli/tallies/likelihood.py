"""Negative log-likelihood over temperatures, and calibration error, in fixed point: any split gives the same bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calibrations.decider import Fuser, Piece, Rule
from unoic_cli.data.batch import Batch, InvalidScoreError, Scores, where_is
from unoic_cli.errors import DataError
from unoic_cli.kernels import sum_confidence, sum_likelihood
from unoic_cli.kernels.constants import FIXED_POINT, HALF, N_TIERS, PIECE, STEP
from unoic_cli.tallies.tally import Tally, added

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


def _zero(batch: Batch, unit: int) -> DataError:
    """The error for a true class of probability zero."""
    source = batch.part.source
    found = f"a zero probability of the true class at {where_is(source, batch.part.unit_of(unit))}"
    expected = "expected a positive probability of the true class (its log-likelihood is infinite)"
    hint = "" if source.kind == "logits" else "; fit-temperature --floor 1e-12 takes smaller ones as that"
    return DataError(source.scores_name, found, expected + hint)


def _sum_pieces(batch: Batch, tiers: NDArray[np.int64], run: Callable[[int, int], Any]) -> int:
    """Run a kernel over a batch, piece by piece; returns the sum of the labels' gaps in units of 2**-40."""
    total = 0
    for first in range(0, batch.n_units, PIECE):
        tiers[:] = 0
        bad = run(first, min(first + PIECE, batch.n_units))
        if bad >= 0:
            raise InvalidScoreError(bad)
        if bad < -1:
            raise _zero(batch, -2 - bad)
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

        def run(first: int, stop: int) -> Any:
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


def whole(halves: NDArray[np.int64], kind: Any = object) -> Any:
    """Sums in two parts, (..., 2), as Python's integers, or rounded to another type."""
    wide = np.asarray(halves, dtype=kind)
    return wide[..., 1] * (1 << HALF) + wide[..., 0]


def gap_sums(away: NDArray[np.int64], kind: Any = object) -> Any:
    """Sums of gaps in units of 2**-40, of those of each tier, (..., N_TIERS, 2)."""
    total = whole(away[..., 0, :], kind)
    for tier in range(1, N_TIERS):
        if away[..., tier, :].any():
            total = total + whole(away[..., tier, :], kind) * np.asarray(1 << STEP * tier, dtype=kind)
    return total


class _Confidence(Tally):
    """Counters of F tables at P points and B betas.

    Attributes
    ----------
    n_ignored : int
        Units whose label is ignored.
    """

    needs = frozenset({"scores", "labels"})
    COUNTED = ("n_ignored", "support", "zeros", "away", "logs", "squares", "counted", "hits", "confidences")

    def __init__(
        self, n_classes: int, betas: Sequence[float], n_bins: int, biases: NDArray[np.float64] | None = None,
        n_tables: int = 1, *, strict: bool = True,
    ) -> None:  # fmt: skip
        self.n_classes, self.betas, self.n_bins, self.n_tables = n_classes, tuple(betas), n_bins, n_tables
        self.biases, self.strict = np.empty((1, 0)) if biases is None else biases, strict
        points, many = len(self.biases), len(self.betas)
        self.n_ignored = 0
        self.support = np.zeros((n_tables, n_classes), dtype=np.int64)
        self.zeros = np.zeros((points, n_tables, n_classes), dtype=np.int64)
        self.away = np.zeros((points, N_TIERS, n_tables, n_classes, 2), dtype=np.int64)
        self.logs = np.zeros((points, many, n_tables, n_classes, 2), dtype=np.int64)
        self.squares = np.zeros((points, many, n_tables, 2), dtype=np.int64)
        self.counted = np.zeros((points, many, n_tables, n_bins), dtype=np.int64)
        self.hits = np.zeros_like(self.counted)
        self.confidences = np.zeros((points, many, n_tables, n_bins, 2), dtype=np.int64)
        self._array, self._gaps = np.array(self.betas), np.zeros(n_classes)

    def _add(self, batch: Batch, scores: Scores, i: int) -> None:
        """Add scores of a batch to point i."""
        support = self.support.reshape(-1) if i == 0 else np.empty(0, dtype=np.int64)
        counters = (self.zeros, self.away, self.logs, self.squares, self.counted, self.hits, self.confidences)
        bad = sum_confidence(
            scores.raw, scores.brain, scores.allow_zero, scores.pixels, scores.delta, batch.labels, batch.tables,
            self.n_classes, self.biases[i], self._array, self.n_bins, self.strict, self._gaps, support,
            *(array[i].reshape(-1) for array in counters),
        )  # fmt: skip
        if bad >= 0:
            raise InvalidScoreError(bad)
        if bad < -1:
            raise _zero(batch, -2 - bad)

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """What was counted, with the tables first and the points (of the first beta) second: (F, P, ...)."""
        first = {name: getattr(self, name)[:, 0] for name in ("logs", "squares", "counted", "hits", "confidences")}
        found = {"zeros": self.zeros, "away": np.moveaxis(self.away, 1, 3), **first}
        return {"support": self.support[:, None], **{name: np.swapaxes(one, 0, 1) for name, one in found.items()}}

    @property
    def n(self) -> int:
        """Labelled units."""
        return int(self.support.sum())

    def nll(self, i: int) -> float:
        """Mean negative log-likelihood at beta i, nats."""
        n = self.n * _ONE
        gap, log_sum = gap_sums(self.away[0].sum(axis=(1, 2))), whole(self.logs[0, i].sum(axis=(0, 1)))
        return float(self.betas[i] * (int(gap) / n) + int(log_sum) / n)

    def accuracy(self) -> float:
        """Share of units whose largest score is the label's; the same at every beta."""
        return int(self.hits[0, 0].sum()) / self.n

    def ece(self, i: int) -> float:
        """Expected calibration error at beta i: the mean over units of |accuracy - mean confidence| of their bin."""
        sums = whole(self.confidences[0, i].sum(axis=0))
        gap: int = sum(abs(self.hits[0, i].sum(axis=0).astype(object) * _ONE - sums))
        return gap / (self.n * _ONE)

    def counts(self, i: int) -> list[int]:
        """Units in each bin at beta i."""
        return [int(count) for count in self.counted[0, i].sum(axis=0)]


class ConfidenceTally(_Confidence):
    """NLL, Brier score, and confidence against accuracy in equal-width bins, of softmax(beta * (delta * z + bias)).

    Parameters
    ----------
    n_classes : int
        K.
    betas : sequence of float
        B betas, positive.
    n_bins : int
        M: bin i holds confidences in (i / M, (i + 1) / M].
    biases : (P, K) float64, optional
        lambda * s at P lambdas, and -inf of masked classes. By default there are none, and P = 1.
    n_tables : int
        F: folds or groups (or 1).
    strict : bool
        A true class of probability zero is refused; else it is counted, and the likelihood is infinite.
    """

    def recipe(self) -> partial[ConfidenceTally]:
        """What makes an empty tally like this one."""
        biases = self.biases if self.biases.size else None
        return partial(
            ConfidenceTally, self.n_classes, self.betas, self.n_bins, biases, self.n_tables, strict=self.strict
        )

    def update(self, batch: Batch) -> None:
        """Add a batch.

        Raises
        ------
        InvalidScoreError
            At the first invalid unit.
        DataError
            If `strict`, a true class of probability zero.
        """
        assert batch.scores is not None
        for i in range(len(self.biases)):
            self._add(batch, batch.scores, i)
        self.n_ignored += batch.n_ignored


class FusedConfidenceTally(_Confidence):
    """The same of fused posteriors at some lambdas, where fused scores are no lines in lambda.

    Parameters
    ----------
    rule : Rule
        How the experts are rebalanced and fused.
    lams : sequence of float
        P lambdas.
    n_bins, n_tables
        As in `ConfidenceTally`.
    """

    def __init__(self, rule: Rule, lams: Sequence[float], n_bins: int, n_tables: int = 1) -> None:
        super().__init__(rule.n_classes, [1.0], n_bins, np.empty((len(lams), 0)), n_tables, strict=False)
        self.rule, self.lams = rule, tuple(lams)

    def recipe(self) -> partial[FusedConfidenceTally]:
        """What makes an empty tally like this one."""
        return partial(FusedConfidenceTally, self.rule, self.lams, self.n_bins, self.n_tables)

    def update(self, batch: Batch) -> None:
        """Add a batch; raises `InvalidScoreError` at the first invalid unit."""
        winners, logs = np.empty(batch.n_units, dtype=np.int32), np.empty(batch.n_units * self.n_classes)

        def write(fuser: Fuser, piece: Piece) -> None:
            fuser.write_piece(batch, piece, True, logs, 0, winners)

        empty = np.empty(0)
        scores = Scores(logs, False, True, False, empty, batch.n_units, self.n_classes, 0, empty)
        for i, lam in enumerate(self.lams):
            Fuser(self.rule, [lam]).predict(batch, winners, write)
            self._add(batch, scores, i)
        self.n_ignored += batch.n_ignored
