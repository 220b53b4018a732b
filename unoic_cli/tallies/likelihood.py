"""Negative log-likelihood over temperatures, and calibration error, in fixed point: any split gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.rule import Rule
from unoic_cli.data.batch import Batch, InvalidScoreError, Scores, where_is
from unoic_cli.errors import DataError
from unoic_cli.kernels import sum_confidence, sum_likelihood
from unoic_cli.kernels.constants import (
    COVARIANCE,
    FIXED_POINT,
    HALF,
    LOG_SUM,
    MEAN_V,
    MEAN_X,
    N_MOMENTS,
    N_TIERS,
    STEP,
    VAR_V,
    VAR_X,
)
from unoic_cli.tallies.tally import Tally

_ONE = int(FIXED_POINT)


class Likelihood(NamedTuple):
    """The mean negative log-likelihood of softmax(beta * delta * z + b + lambda * s) at one place, by its derivatives.

    Attributes
    ----------
    beta : float
        1 / T.
    nll : float
        Nats.
    slope, curvature : float
        Its first and second derivative in beta.
    tilt, bend, cross : float
        Its first and second derivative in lambda, and the mixed one; 0 where there is no s.
    """

    beta: float
    nll: float
    slope: float
    curvature: float
    tilt: float = 0.0
    bend: float = 0.0
    cross: float = 0.0


def _zero(batch: Batch, unit: int) -> DataError:
    """The error for a true class of probability zero."""
    source = batch.part.source
    found = f"a zero probability of the true class at {where_is(source, batch.part.unit_of(unit))}"
    expected = "expected a positive probability of the true class (its log-likelihood is infinite)"
    hint = "" if source.kind == "logits" else "; fit-temperature --floor 1e-12 takes smaller ones as that"
    return DataError(source.scores_name, found, expected + hint)


class LikelihoodTally(Tally):
    """NLL of softmax(beta * delta * z + b) and its derivatives at several places, and confidence, from one read.

    Parameters
    ----------
    n_classes : int
        K.
    betas : sequence of float
        beta at each of J places, positive.
    biases : (J, K) float64, optional
        b at each place; 0 by default.
    feature : (K,) float64, optional
        s: derivatives are those in its factor, too.
    masked : (K,) bool, optional
        Classes that are left out, with the units of their label.
    n_bins : int
        M: bin i holds confidences in (i / M, (i + 1) / M].
    n_measured : int
        Confidence is measured at the first so many places.

    Attributes
    ----------
    support : (K,) int64
        Units of each class.
    n_ignored, n_left_out : int
        Units whose label is ignored, and those of classes that are left out.
    """

    needs = frozenset({"scores", "labels"})
    COUNTED = ("support", "n_ignored", "n_left_out", "away", "sums", "counted", "hits", "confidences")

    def __init__(
        self, n_classes: int, betas: Sequence[float], biases: NDArray[np.float64] | None = None,
        feature: NDArray[np.float64] | None = None, masked: NDArray[np.bool_] | None = None, n_bins: int = 15,
        n_measured: int = 1,
    ) -> None:  # fmt: skip
        many = len(betas)
        self.n_classes, self.betas, self.n_bins = n_classes, tuple(betas), n_bins
        self.masked = np.zeros(n_classes, dtype=bool) if masked is None else masked
        self.biases = _shifted(np.zeros((many, n_classes)) if biases is None else biases, self.masked)
        self.feature = np.zeros(n_classes) if feature is None else feature
        self.n_ignored = self.n_left_out = 0
        self.support = np.zeros(n_classes, dtype=np.int64)
        self.away = np.zeros((N_TIERS, 2), dtype=np.int64)
        self.sums = np.zeros((many, N_MOMENTS, 2), dtype=np.int64)
        self.counted = np.zeros((min(n_measured, many), n_bins), dtype=np.int64)
        self.hits = np.zeros_like(self.counted)
        self.confidences = np.zeros((*self.counted.shape, 2), dtype=np.int64)
        self._units = [self._unit(bias) for bias in self.biases]
        self._points = np.array([(beta, *unit) for beta, unit in zip(self.betas, self._units, strict=True)]).reshape(-1)
        seen = self.feature[~self.masked]
        self._low, self._width = float(seen.min()), float(np.ptp(seen)) or 1.0
        self._scaled = np.where(self.masked, 0.0, (self.feature - self._low) / self._width)
        self._hidden = np.where(self.masked, np.inf, 0.0)
        self._scratch = (
            np.zeros((2 * n_classes + 3) * 8),
            np.zeros(8, dtype=np.int64),
            np.zeros(many * N_MOMENTS * 8, dtype=np.int64),
        )

    def _unit(self, bias: NDArray[np.float64]) -> tuple[float, float]:
        """Scales of numbers as large as x can be in the mean, and of their squares: they stay below 2**50."""
        size = float(np.ptp(bias[~self.masked])) + math.log(self.n_classes) + 2.0
        digits = math.ceil(math.log2(size))
        return 2.0 ** (50 - digits), 2.0 ** (50 - 2 * digits)

    def recipe(self) -> partial[LikelihoodTally]:
        """What makes an empty tally like this one."""
        return partial(
            LikelihoodTally, self.n_classes, self.betas, self.biases, self.feature, self.masked, self.n_bins,
            len(self.counted),
        )  # fmt: skip

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
        if self.masked.any():
            left_out = (labels >= 0) & self.masked[labels]
            labels = np.where(left_out, -1, labels).astype(np.int32)
            self.n_left_out += int(left_out.sum())
        flat = (array.reshape(-1) for array in (self.away, self.sums, self.counted, self.hits, self.confidences))
        bad = sum_likelihood(
            scores.raw, scores.brain, scores.allow_zero, scores.pixels, scores.delta, labels, self.n_classes,
            self._points, self.biases.reshape(-1), self._scaled, self._hidden, self.n_bins, *self._scratch, *flat,
        )  # fmt: skip
        if bad >= 0:
            raise InvalidScoreError(bad)
        if bad < -1:
            raise _zero(batch, -2 - bad)
        self.support += np.bincount(labels[labels >= 0], minlength=self.n_classes)
        self.n_ignored += batch.n_ignored

    @property
    def n(self) -> int:
        """Labelled units of classes that take part."""
        return int(self.support.sum())

    def at(self, j: int) -> Likelihood:
        """Means at place j."""
        n, beta, (unit, squared) = self.n, self.betas[j], self._units[j]
        one, width = float(FIXED_POINT), self._width
        scales = {LOG_SUM: unit, MEAN_X: unit, MEAN_V: one, VAR_X: squared, COVARIANCE: unit, VAR_V: one}
        mean = {i: int(whole(self.sums[j, i])) / n / scale for i, scale in scales.items()}
        gap = int(gap_sums(self.away)) / (n * _ONE)
        own, seen = (math.fsum((self.support * values).tolist()) / n for values in (self.biases[j], self._scaled))
        return Likelihood(
            beta,
            beta * gap + mean[LOG_SUM] - own,
            gap - mean[MEAN_X] / beta,
            mean[VAR_X] / beta / beta,
            (mean[MEAN_V] - seen) * width,
            mean[VAR_V] * width * width,
            -mean[COVARIANCE] / beta * width,
        )

    def curve(self) -> list[Likelihood]:
        """Means at every place, by beta."""
        return sorted(self.at(j) for j in range(len(self.betas)))

    def accuracy(self, j: int) -> float:
        """Share of units whose most probable class at place j is the label."""
        return int(self.hits[j].sum()) / self.n

    def ece(self, j: int) -> float:
        """Expected calibration error at place j."""
        return _ece(self.hits[j], self.confidences[j], self.n)


def _shifted(biases: NDArray[np.float64], masked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Biases of which the largest at each place is 0."""
    top = np.where(masked, -np.inf, biases).max(axis=1, keepdims=True)
    return np.where(masked, 0.0, biases - top)


def _ece(hits: NDArray[np.int64], confidences: NDArray[np.int64], n: int) -> float:
    """The mean over units of |accuracy - mean confidence| of their bin."""
    gap: int = sum(abs(hits.astype(object) * _ONE - whole(confidences)))
    return gap / (n * _ONE)


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
        return _ece(self.hits[0, i].sum(axis=0), self.confidences[0, i].sum(axis=0), self.n)

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
        empty = np.empty(0)
        for i, lam in enumerate(self.lams):
            logs = Fuser(self.rule, [lam]).log_posterior(batch).reshape(-1)
            self._add(batch, Scores(logs, False, True, False, empty, batch.n_units, self.n_classes, 0, empty), i)
        self.n_ignored += batch.n_ignored
