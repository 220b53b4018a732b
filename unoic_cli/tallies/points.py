"""Plain counts at given lambdas: `evaluate`, the `grid` search, and lambdas off the lattice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from unoic_cli.data.batch import Batch, InvalidScoreError, Scores
from unoic_cli.kernels import count_confusion, count_point_columns, count_predictions, predict_columns, predict_wide
from unoic_cli.kernels.constants import COLUMN_CLASSES
from unoic_cli.kernels.lines import JOINT_CLASSES, Lines, Workspace, make_workspace
from unoic_cli.tallies.counts import Counts
from unoic_cli.tallies.tally import Tally


def predict(batch: Batch, lines: Lines, out: np.ndarray, work: Workspace) -> None:
    """Predictions of a batch at the only lambda of `lines` into out (T,) int32.

    Raises
    ------
    InvalidScoreError
        At the first unit whose scores are not valid.
    """
    if batch.predictions is not None:
        out[:] = batch.predictions
        return
    scores = batch.scores
    assert scores is not None
    wide = not scores.pixels and scores.n_classes > COLUMN_CLASSES
    bad = (predict_wide if wide else predict_columns)(
        scores.raw, scores.brain, scores.allow_zero, scores.delta, lines, scores.exact, out, work, scores.pixels or None
    )
    if bad >= 0:
        raise InvalidScoreError(bad)


class PointTally(Tally):
    """Counts at each of P lambdas, one evaluation each.

    Parameters
    ----------
    points : sequence of Lines
        One single-lambda table for each lambda.
    n_tables : int
        F: folds or groups (or 1).
    confusion : bool
        Also count confusion matrices (P, K, K), rows = truth.
    """

    needs = frozenset({"scores", "labels"})
    COUNTED = ("_hits", "_predicted", "_support", "confusion")

    def __init__(self, points: Sequence[Lines], n_tables: int = 1, *, confusion: bool = False) -> None:
        self.points = points
        self.n_tables = n_tables
        n_classes = points[0].n_classes
        self._hits = np.zeros((len(points), n_tables * n_classes), dtype=np.int64)
        self._predicted = np.zeros_like(self._hits)
        self._support = np.zeros_like(self._hits)
        self.confusion = np.zeros((len(points), n_classes * n_classes), dtype=np.int64) if confusion else None
        self._work = make_workspace(n_classes)

    def recipe(self) -> partial[PointTally]:
        """What makes an empty tally like this one."""
        return partial(PointTally, self.points, self.n_tables, confusion=self.confusion is not None)

    def update(self, batch: Batch, last: np.ndarray | None = None) -> None:
        """Count a batch, and keep its predictions at the last lambda in (T,) int32, if asked.

        Raises
        ------
        InvalidScoreError
            At the first unit whose scores are not valid.
        """
        assert batch.labels is not None
        n_classes = self.points[0].n_classes
        scores = batch.scores
        alone = last is None and self.n_tables == 1 and batch.predictions is None
        if alone and scores is not None and n_classes <= JOINT_CLASSES:
            self._update(batch, scores)
            return
        out = np.empty(batch.n_units, dtype=np.int32) if last is None else last
        for i, lines in enumerate(self.points):
            predict(batch, lines, out, self._work)
            count_predictions(
                batch.labels, out, batch.tables, n_classes, self._hits[i], self._predicted[i], self._support[i]
            )
            if self.confusion is not None:
                count_confusion(batch.labels, out, n_classes, self.confusion[i])

    def _update(self, batch: Batch, scores: Scores) -> None:
        """Count a batch where nothing but the counts of one table is wanted."""
        for i, lines in enumerate(self.points):
            confusion = np.empty(0, dtype=np.int64) if self.confusion is None else self.confusion[i]
            bad = count_point_columns(
                scores.raw, scores.brain, scores.allow_zero, scores.delta, lines, scores.exact, batch.labels,
                self._hits[i], self._predicted[i], self._support[i], confusion, self._work, scores.pixels or None,
            )  # fmt: skip
            if bad >= 0:
                raise InvalidScoreError(bad)

    def counts(self) -> Counts:
        """Counts of shape (F, P, K), and (F, 1, K) for the support."""
        shape = (len(self.points), self.n_tables, -1)
        hits, predicted, support = (
            array.reshape(shape).swapaxes(0, 1) for array in (self._hits, self._predicted, self._support)
        )
        return Counts(hits, predicted, support[:, :1])
