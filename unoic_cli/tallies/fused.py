"""Counts of fused decisions at every lambda, where fused scores are no lines in lambda."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from unoic_cli.calibrations.fuser import Fuser, Piece
from unoic_cli.calibrations.rule import Rule
from unoic_cli.data.batch import Batch
from unoic_cli.kernels import count_confusion, count_winners
from unoic_cli.kernels.constants import LANES
from unoic_cli.tallies.counts import Counts
from unoic_cli.tallies.tally import Tally


class FusedTally(Tally):
    """Hits and predictions of every class at each of G lambdas.

    Parameters
    ----------
    rule : Rule
        How the experts are rebalanced and fused.
    lams : sequence of float
    n_tables : int
        F: folds or groups (or 1).
    confusion : bool
        Also count the confusion matrix, rows = truth; for a single lambda.
    """

    needs = frozenset({"scores", "labels"})
    COUNTED = ("_hits", "_predicted", "_support", "confusion")

    def __init__(self, rule: Rule, lams: Sequence[float], n_tables: int = 1, *, confusion: bool = False) -> None:
        self.rule, self.lams, self.n_tables = rule, tuple(lams), n_tables
        n_classes = rule.n_classes
        self._hits = np.zeros(n_tables * len(self.lams) * n_classes, dtype=np.int64)
        self._predicted = np.zeros_like(self._hits)
        self._support = np.zeros(n_tables * n_classes, dtype=np.int64)
        self.confusion = np.zeros((1, n_classes * n_classes), dtype=np.int64) if confusion else None
        self._fuser: Fuser | None = None

    def recipe(self) -> partial[FusedTally]:
        """What makes an empty tally like this one."""
        return partial(FusedTally, self.rule, self.lams, self.n_tables, confusion=self.confusion is not None)

    def update(
        self,
        batch: Batch,
        last: np.ndarray | None = None,
        visit: Callable[[Fuser, Piece], None] | None = None,
    ) -> None:
        """Count a batch, and keep its decisions at the last lambda in (T,) int32, if asked.

        `visit` is called with every piece while its scores are laid out.

        Raises
        ------
        InvalidScoreError
            At the first unit whose scores are not valid.
        """
        assert batch.labels is not None
        if self._fuser is None:
            self._fuser = Fuser(self.rule, self.lams)
        for piece in self._fuser.pieces(batch):
            winners = self._fuser.decide(batch, piece)
            count_winners(
                winners, piece.n_groups, piece.n, len(self.lams), batch.labels, batch.tables, piece.first,
                self.rule.n_classes, self._hits, self._predicted, self._support,
            )  # fmt: skip
            if last is not None:
                place = (len(self.lams) - 1) * piece.n_groups * LANES
                last[piece.first : piece.first + piece.n] = winners[place : place + piece.n]
            if self.confusion is not None:
                labels = batch.labels[piece.first : piece.first + piece.n]
                count_confusion(labels, winners[: piece.n], self.rule.n_classes, self.confusion[0])
            if visit is not None:
                visit(self._fuser, piece)

    def counts(self) -> Counts:
        """Counts of shape (F, G, K), and (F, 1, K) for the support."""
        shape = (self.n_tables, len(self.lams), self.rule.n_classes)
        hits, predicted = (np.cumsum(array.reshape(shape), axis=1) for array in (self._hits, self._predicted))
        return Counts(hits, predicted, self._support.reshape(self.n_tables, 1, -1))
