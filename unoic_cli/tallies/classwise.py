"""Every class's probability against how often it is the label, in bins: sums in fixed point, exact in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.rule import Rule
from unoic_cli.data.batch import Batch
from unoic_cli.kernels import plain
from unoic_cli.kernels.constants import FIXED_POINT, HALF
from unoic_cli.tallies.tally import Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIECE = 1 << 12
"""Units whose sums float64 holds exactly: 2**12 of at most 2**40 each."""


class ClasswiseTally(Tally):
    """Probabilities of all classes at P settings; its scores are checked by the tally of predictions beside it.

    Parameters
    ----------
    n_classes : int
        K.
    n_bins : int
        M: bin i holds probabilities in (i / M, (i + 1) / M].
    biases : (P, K) float64
        lambda * s, and -inf of masked classes, where scores are lines in lambda; else (P, 0).
    rule : Rule or None
        The fusion, where they are not.
    lams : sequence of float
        P lambdas.
    n_tables : int
        F: folds or groups (or 1).
    """

    needs = frozenset({"scores", "labels"})
    COUNTED = ("support", "hits", "sums")

    def __init__(
        self, n_classes: int, n_bins: int, biases: NDArray[np.float64], rule: Rule | None, lams: Sequence[float],
        n_tables: int = 1,
    ) -> None:  # fmt: skip
        self.n_classes, self.n_bins, self.biases, self.rule = n_classes, n_bins, biases, rule
        self.lams, self.n_tables = tuple(lams), n_tables
        shape = (len(self.lams), n_tables, n_classes, n_bins)
        self.support = np.zeros((n_tables, n_classes), dtype=np.int64)
        self.hits = np.zeros(shape, dtype=np.int64)
        self.sums = np.zeros((*shape, 2), dtype=np.int64)

    def recipe(self) -> partial[ClasswiseTally]:
        """What makes an empty tally like this one."""
        parts = self.n_classes, self.n_bins, self.biases, self.rule, self.lams, self.n_tables
        return partial(ClasswiseTally, *parts)

    def update(self, batch: Batch) -> None:
        """Add a batch."""
        assert batch.labels is not None
        kept = np.flatnonzero(batch.labels >= 0)
        np.add.at(self.support, (batch.tables[kept], batch.labels[kept]), 1)
        for i in range(len(self.lams)):
            for units, p in self._posteriors(batch, kept, i):
                self._add(i, batch.labels[units], batch.tables[units].astype(np.int64), p)

    def _posteriors(
        self, batch: Batch, kept: NDArray[np.int64], i: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Labelled units, and their probabilities, (n, K), in pieces."""
        logs = None if self.rule is None else Fuser(self.rule, [self.lams[i]]).log_posterior(batch)
        for first in range(0, kept.size, PIECE):
            units = kept[first : first + PIECE]
            scores = self._scores(batch, units, i) if logs is None else logs[units]
            with np.errstate(under="ignore"):
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            yield units, weights / weights.sum(axis=1, keepdims=True)

    def _scores(self, batch: Batch, units: NDArray[np.int64], i: int) -> NDArray[np.float64]:
        """Delta * z + lambda * s."""
        scores = batch.scores
        assert scores is not None
        rows = plain.flattened(scores.raw, scores.brain, scores.pixels, scores.delta, units, self.n_classes)
        return np.asarray(rows + self.biases[i], dtype=np.float64)

    def _add(self, i: int, labels: NDArray[np.int32], tables: NDArray[np.int64], p: NDArray[np.float64]) -> None:
        """Add units to their bins."""
        bins = np.clip(np.ceil(p * self.n_bins).astype(np.int64) - 1, 0, self.n_bins - 1)
        cells = ((tables[:, None] * self.n_classes) + np.arange(self.n_classes)) * self.n_bins + bins
        fixed = np.rint(p * FIXED_POINT)
        found = np.bincount(cells.reshape(-1), weights=fixed.reshape(-1), minlength=self.hits[i].size).astype(np.int64)
        sums = self.sums[i].reshape(-1, 2)
        sums[:, 0] += found & ((1 << HALF) - 1)
        sums[:, 1] += found >> HALF
        own = cells[np.arange(labels.size), labels]
        self.hits[i] += np.bincount(own, minlength=self.hits[i].size).reshape(self.hits[i].shape)

    def arrays(self) -> dict[str, NDArray[np.int64]]:
        """What was counted, with the tables first and the points second: (F, P, ...)."""
        return {
            "support": self.support[:, None],
            "hits": np.swapaxes(self.hits, 0, 1),
            "sums": np.swapaxes(self.sums, 0, 1),
        }
