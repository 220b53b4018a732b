"""The lambda path: hits and predictions of every class at every lattice lambda, from one visit of each unit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from unoic_cli.data.batch import Batch, InvalidScoreError
from unoic_cli.kernels import count_path_columns, count_path_wide
from unoic_cli.kernels.constants import COLUMN_CLASSES
from unoic_cli.kernels.lines import COPIES, Lines, add_up, make_workspace
from unoic_cli.tallies.counts import Counts
from unoic_cli.tallies.tally import Counters, Tally, added

_FLUSH = 1 << 30
"""Units after which the table of changes is emptied: its 32-bit numbers must not overflow."""

_ONE = np.empty(0, dtype=np.int32)
"""Tables of the units where there is one table."""


class PathTally(Tally):
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
        self._changes = np.zeros((n_tables, lines.lams.size + COPIES, lines.n_classes, 2), dtype=np.int32)
        self._support = np.zeros(n_tables * COPIES * lines.n_classes, dtype=np.int64)
        self._pending = 0
        self._hits, self._predicted = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        self._taken = np.zeros((n_tables, lines.n_classes), dtype=np.int64)
        self._work = make_workspace(lines.n_classes)

    def recipe(self) -> partial[PathTally]:
        """What makes an empty tally like this one."""
        return partial(PathTally, self.lines, self.n_tables)

    def update(self, batch: Batch) -> None:
        """Count a batch; raises `InvalidScoreError` at the first invalid unit."""
        scores = batch.scores
        assert scores is not None and batch.labels is not None
        if self._pending + batch.n_units > _FLUSH:
            self._flush()
        self._pending += batch.n_units
        tables = batch.tables if self.n_tables > 1 else _ONE
        wide = not scores.pixels and scores.n_classes > COLUMN_CLASSES
        bad = (count_path_wide if wide else count_path_columns)(
            scores.raw, scores.brain, scores.allow_zero, scores.delta, batch.labels, tables, self.lines, scores.exact,
            self._changes.reshape(-1), self._support, self._work, scores.pixels or None,
        )  # fmt: skip
        if bad >= 0:
            raise InvalidScoreError(bad)

    def _flush(self) -> None:
        if not self._pending:
            return
        hits, predicted = add_up(self._changes)
        self._hits += hits
        self._predicted += predicted
        self._changes[:] = 0
        self._pending = 0

    def counters(self) -> Counters:
        """What was counted so far."""
        self._flush()
        support = self._support.reshape(self.n_tables, COPIES, -1).sum(axis=1)
        return {"hits": self._hits, "predicted": self._predicted, "support": self._taken + support}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what a tally like this one counted elsewhere."""
        self._hits = added(self._hits, counters["hits"])
        self._predicted = added(self._predicted, counters["predicted"])
        self._taken = added(self._taken, counters["support"])

    def counts(self) -> Counts:
        """Counts of shape (F, G, K), and (F, 1, K) for the support."""
        found = self.counters()
        return Counts(found["hits"], found["predicted"], found["support"][:, None])
