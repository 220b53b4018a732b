"""Top-k hits at every lattice lambda, by counting the classes above the label's line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from unoic_cli.data.batch import Batch
from unoic_cli.kernels import count_top_k
from unoic_cli.kernels.lines import Lines, make_workspace
from unoic_cli.tallies.tally import Tally


class TopKTally(Tally):
    """Hits of the k best classes along the lambda path; its scores are checked by the path or point tally beside it.

    Parameters
    ----------
    lines : sequence of Lines
        Slopes, each with a lattice: of G points in all.
    top : int
        k.
    n_tables : int
        F: folds (or 1).
    """

    needs = frozenset({"scores", "labels"})
    COUNTED = ("_changes",)

    def __init__(self, lines: Sequence[Lines], top: int, n_tables: int = 1) -> None:
        self.lines = lines
        self.top = top
        self.n_tables = n_tables
        sizes = [one.lams.size for one in lines]
        self._starts = n_tables * np.cumsum([0, *sizes])
        self._changes = np.zeros(n_tables * sum(sizes), dtype=np.int64)
        self._moves = np.zeros(max(sizes), dtype=np.int64)
        self._work = make_workspace(lines[0].n_classes)

    def recipe(self) -> partial[TopKTally]:
        """What makes an empty tally like this one."""
        return partial(TopKTally, self.lines, self.top, self.n_tables)

    def _parts(self) -> list[np.ndarray]:
        """The changes of each lattice."""
        return [self._changes[a:b] for a, b in pairwise(self._starts)]

    def update(self, batch: Batch) -> None:
        """Count a batch."""
        scores = batch.scores
        assert scores is not None and batch.labels is not None
        for lines, changes in zip(self.lines, self._parts(), strict=True):
            count_top_k(
                scores.raw, scores.brain, scores.pixels, scores.delta, batch.labels, batch.tables, lines, self.top,
                self._moves, changes, self._work,
            )  # fmt: skip

    def hits(self) -> np.ndarray:
        """Hits at each lattice point, (F, G) int64."""
        return np.concatenate(
            [np.cumsum(changes.reshape(self.n_tables, -1), axis=1) for changes in self._parts()], axis=1
        )
