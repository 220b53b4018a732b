"""The lambda path: hits and predictions of every class at every lattice lambda, from one visit of each unit."""

from __future__ import annotations

import numpy as np

from unoic_cli.batch import Batch, InvalidScoreError
from unoic_cli.kernels.lines import Lines, make_workspace
from unoic_cli.kernels.path import COPIES, count_path_planes, count_path_rows, unpack
from unoic_cli.metrics import Counts

_FLUSH = 1 << 30
"""Units after which the packed table is emptied: its 32-bit halves must not overflow."""


class PathTally:
    """Exact counts along the lambda path.

    Parameters
    ----------
    lines : Lines
        Slopes of K classes and the lattice of G points.
    n_tables : int
        F: folds (or 1).
    """

    needs = frozenset({"scores", "labels"})

    def __init__(self, lines: Lines, n_tables: int = 1) -> None:
        self.lines = lines
        self.n_tables = n_tables
        shape = (n_tables, lines.lams.size, lines.n_classes)
        self._packed = np.zeros(n_tables * (lines.lams.size + COPIES) * lines.n_classes, dtype=np.int64)
        self._support = np.zeros(n_tables * COPIES * lines.n_classes, dtype=np.int64)
        self._pending = 0
        self._shape = shape
        self._counted: tuple[np.ndarray, np.ndarray] | None = None
        self._work = make_workspace(lines.n_classes)

    def fresh(self) -> PathTally:
        """An empty tally like this one."""
        return PathTally(self.lines, self.n_tables)

    def update(self, batch: Batch) -> None:
        """Count a batch; raises `InvalidScoreError` at the first invalid unit."""
        scores = batch.scores
        assert scores is not None and batch.labels is not None
        if self._pending + batch.n_units > _FLUSH:
            self._flush()
        self._pending += batch.n_units
        common = (
            scores.raw, scores.brain, scores.allow_zero, scores.delta, batch.labels, batch.tables, self.lines,
            scores.exact, self._packed, self._support, self._work,
        )  # fmt: skip
        images = (batch.n_units // scores.pixels,) if scores.pixels else ()
        bad = count_path_planes(*common, *images) if images else count_path_rows(*common)
        if bad >= 0:
            raise InvalidScoreError(bad)

    def _flush(self) -> None:
        n_tables, size, n_classes = self._shape
        hits, predicted = unpack(self._packed.reshape(n_tables, size + COPIES, n_classes))
        if self._counted is None:
            self._counted = hits, predicted
        else:
            self._counted[0][...] += hits
            self._counted[1][...] += predicted
        self._packed[:] = 0
        self._pending = 0

    def add(self, other: PathTally) -> None:
        """Take over what another thread counted."""
        if other._counted is not None or self._pending + other._pending > _FLUSH:
            self._flush()
            other._flush()
            assert self._counted is not None and other._counted is not None
            self._counted[0][...] += other._counted[0]
            self._counted[1][...] += other._counted[1]
        else:
            self._packed += other._packed
            self._pending += other._pending
        self._support += other._support

    def counts(self) -> Counts:
        """Counts of shape (F, G, K), and (F, 1, K) for the support."""
        self._flush()
        assert self._counted is not None
        hits, predicted = self._counted
        return Counts(hits, predicted, self._support.reshape(self.n_tables, COPIES, -1).sum(axis=1, keepdims=True))
