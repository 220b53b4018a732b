"""One thread's way from the scores of M experts to fused decisions and posteriors, in pieces that stay in cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.calibrations.rule import Rule
from unoic_cli.data.batch import Batch, InvalidScoreError, Scores
from unoic_cli.kernels import fill_planes64, fill_rows64, fused_winners, write_fused
from unoic_cli.kernels.constants import LANES
from unoic_cli.kernels.lines import make_lines, make_workspace
from unoic_cli.kernels.operator import Group, make_scratch
from unoic_cli.kernels.plain import hopeless

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIECE_BYTES = 2 << 20
"""What the pieces of a batch weigh, scores and decisions together: calls cost little, and the cache holds them."""


@dataclass(frozen=True)
class Piece:
    """Units first..first+n of a batch, laid out as groups of sixteen."""

    first: int
    n: int
    n_groups: int


class Fuser:
    """Fused decisions and posteriors of batches, at some lambdas.

    Parameters
    ----------
    rule : Rule
    lams : sequence of float
        G lambdas.
    """

    def __init__(self, rule: Rule, lams: Sequence[float] | NDArray[np.float64]) -> None:
        self.rule = rule
        self.lams = np.asarray(lams, dtype=np.float64)
        n_experts, n_classes = rule.slopes.shape
        unit = 8 * n_experts * n_classes + 4 * self.lams.size
        self.size = max(LANES, PIECE_BYTES // unit // LANES * LANES)
        self.scores = np.zeros(n_experts * n_classes * self.size)
        self.winners = np.zeros(self.lams.size * self.size, dtype=np.int32)
        self.operator = rule.operator(rule.weights)
        self.margin = n_experts * (2e-5 + 3e-7 * n_classes)
        self._scratch = make_scratch(n_experts, n_classes)
        self._work = make_workspace(n_classes)
        self._slopes = np.ascontiguousarray(rule.slopes).reshape(-1)
        self._lines = [make_lines(s, m, np.zeros(1)) for s, m in zip(rule.slopes, rule.masked, strict=True)]
        self._found = np.zeros(self.lams.size * LANES, dtype=np.int32)
        self._plain = np.zeros(0)
        self._times = np.ones(LANES)
        self._tables = self._make_tables(np.ones(n_experts))

    def _make_tables(self, factors: NDArray[np.float64]) -> NDArray[np.float32]:
        """exp(factor * lambda * s), the largest of each expert and lambda 1."""
        tilt = factors[:, None, None] * (self.lams[None, :, None] * self.rule.slopes[:, None, :])
        hidden = np.broadcast_to(self.rule.masked[:, None, :], tilt.shape)
        with np.errstate(under="ignore"):
            tilt = np.where(hidden, -np.inf, tilt)
            table = np.exp(tilt - tilt.max(axis=2, keepdims=True, initial=-1e300))
            return np.asarray(table, dtype=np.float32).reshape(-1)

    def pieces(self, batch: Batch) -> Iterator[Piece]:
        """Lay out the units of a batch, piece by piece.

        Raises
        ------
        InvalidScoreError
            At the first unit with an invalid score.
        """
        for first in range(0, batch.n_units, self.size):
            n = min(self.size, batch.n_units - first)
            groups = -(-n // LANES)
            self._check(batch, first, n, [self._fill(m, s, first, n, groups) for m, s in enumerate(batch.modalities)])
            yield Piece(first, n, groups)

    def _fill(self, m: int, scores: Scores, first: int, n: int, groups: int) -> int:
        common = (
            scores.raw, scores.brain, scores.allow_zero, scores.raw.dtype == np.float64,
            self.operator.is_quick(), scores.delta, self._lines[m], first, n, self.scores,
            m * groups * self.rule.n_classes * LANES, self._plain, self._times, self._work,
        )  # fmt: skip
        return int(fill_planes64(*common, scores.pixels) if scores.pixels else fill_rows64(*common))

    @staticmethod
    def _check(batch: Batch, first: int, n: int, bad: list[int]) -> None:
        found = [(unit, m) for m, unit in enumerate(bad) if unit >= 0]
        if found:
            unit, modality = min(found)
            raise InvalidScoreError(unit, modality)

    def _slope_factors(self, batch: Batch, piece: Piece) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Tables and per-unit factors of the slopes: no tables where the factors differ within the piece."""
        if not any(scores.slope_factor.size for scores in batch.modalities):
            return self._tables, self._plain
        width = piece.n_groups * LANES
        factors = np.ones((self.rule.n_experts, width))
        for m, scores in enumerate(batch.modalities):
            given = scores.slope_factor
            if given.size:
                factors[m, : piece.n] = given[piece.first : piece.first + piece.n] if given.size > 1 else given
                factors[m, piece.n :] = factors[m, piece.n - 1]
        tables = np.zeros(0, np.float32)
        if (factors == factors[:, :1]).all():
            tables = self._make_tables(factors[:, 0])
        return tables, factors.reshape(-1)

    def _experts(self, piece: Piece, factors: NDArray[np.float64]) -> Group:
        """The first group of a piece."""
        n_experts, n_classes = self.rule.slopes.shape
        units = piece.n_groups * LANES
        return Group(self.scores, 0, units * n_classes, factors, 0, units, self._slopes, n_experts, n_classes)

    def decide(self, batch: Batch, piece: Piece) -> NDArray[np.int32]:
        """Decisions of a piece, (G * 16 * groups,) int32 as `fused_winners` writes them; valid until the next piece.

        Raises
        ------
        InvalidScoreError
            At the first unit to whose every class some expert gives no probability.
        """
        tables, factors = self._slope_factors(batch, piece)
        experts = self._experts(piece, factors)
        bad = fused_winners(
            experts, piece.n_groups, self.lams, tables, self.operator, self.margin, self.winners,
            self._found, piece.n, self._scratch,
        )  # fmt: skip
        if bad >= 0:
            raise InvalidScoreError(piece.first + hopeless(experts, piece.n_groups, self.operator, piece.n))
        return self.winners

    def predict(
        self, batch: Batch, out: NDArray[np.int32], visit: Callable[[Fuser, Piece], None] | None = None
    ) -> None:
        """Decisions of a batch at the only lambda into out (T,); `visit` sees every piece while it is laid out."""
        for piece in self.pieces(batch):
            out[piece.first : piece.first + piece.n] = self.decide(batch, piece)[: piece.n]
            if visit is not None:
                visit(self, piece)

    def decisions(self, batch: Batch) -> NDArray[np.int32]:
        """Decisions of a batch at each of the lambdas, (G, T) int32."""
        out = np.empty((self.lams.size, batch.n_units), dtype=np.int32)
        for piece in self.pieces(batch):
            width = piece.n_groups * LANES
            found = self.decide(batch, piece)[: self.lams.size * width].reshape(-1, width)
            out[:, piece.first : piece.first + piece.n] = found[:, : piece.n]
        return out

    def write(self, batch: Batch, in_logs: bool, out: NDArray[Any], pixels: int, decisions: NDArray[np.int32]) -> None:
        """The fused posterior of a batch at the last lambda.

        Parameters
        ----------
        batch : Batch
        in_logs : bool
            Log-probabilities instead of probabilities.
        out : (T * K,) float32 or float64
            Written, in rows, or for ``pixels`` = P as (B, K, P).
        pixels : int
        decisions : (T,) int32
            What is decided: the first of the largest entries written.
        """
        for piece in self.pieces(batch):
            self.write_piece(batch, piece, in_logs, out, pixels, decisions)

    def log_posterior(self, batch: Batch) -> NDArray[np.float64]:
        """Logarithms of the fused posterior of a batch at the only lambda, (T, K)."""
        n_classes = self.rule.n_classes
        winners, out = np.empty(batch.n_units, dtype=np.int32), np.empty(batch.n_units * n_classes)
        self.predict(batch, winners, lambda fuser, piece: fuser.write_piece(batch, piece, True, out, 0, winners))
        return out.reshape(-1, n_classes)

    def write_piece(
        self, batch: Batch, piece: Piece, in_logs: bool, out: NDArray[Any], pixels: int, decisions: NDArray[np.int32]
    ) -> None:
        """The same of a piece that is laid out."""
        _, factors = self._slope_factors(batch, piece)
        self.winners[: piece.n] = decisions[piece.first : piece.first + piece.n]
        write_fused(
            self._experts(piece, factors), piece.n_groups, piece.n, self.lams[-1], self.operator, self.winners,
            in_logs, out.dtype.type(-np.inf), out, piece.first, pixels, self._scratch,
        )  # fmt: skip
