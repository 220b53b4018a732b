"""Top-k hits at every lattice lambda, by counting the classes above the label's line."""

from __future__ import annotations

from functools import partial

import numpy as np

from unoic_cli.batch import Batch
from unoic_cli.counters import Tally
from unoic_cli.kernels.lines import Lines, make_workspace
from unoic_cli.kernels.rank import count_top_k


class TopKTally(Tally):
    """Hits of the k best classes along the lambda path; its scores are checked by the path or point tally beside it.

    Parameters
    ----------
    lines : Lines
        Slopes and the lattice of G points.
    top : int
        k.
    n_tables : int
        F: folds (or 1).
    """

    needs = frozenset({"scores", "labels"})
    COUNTED = ("_changes",)

    def __init__(self, lines: Lines, top: int, n_tables: int = 1) -> None:
        self.lines = lines
        self.top = top
        self.n_tables = n_tables
        self._changes = np.zeros(n_tables * lines.lams.size, dtype=np.int64)
        self._moves = np.zeros(lines.lams.size, dtype=np.int64)
        self._work = make_workspace(lines.n_classes)

    def recipe(self) -> partial[TopKTally]:
        """What makes an empty tally like this one."""
        return partial(TopKTally, self.lines, self.top, self.n_tables)

    def update(self, batch: Batch) -> None:
        """Count a batch."""
        scores = batch.scores
        assert scores is not None and batch.labels is not None
        count_top_k(
            scores.raw, scores.brain, scores.pixels, scores.delta, batch.labels, batch.tables, self.lines, self.top,
            self._moves, self._changes, self._work,
        )  # fmt: skip

    def hits(self) -> np.ndarray:
        """Hits at each lattice point, (F, G) int64."""
        return np.cumsum(self._changes.reshape(self.n_tables, -1), axis=1)
