"""Plain counts at given lambdas: `evaluate`, the `grid` search, and lambdas off the lattice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from unoic_cli.batch import Batch, InvalidScoreError
from unoic_cli.counters import Tally
from unoic_cli.kernels.lines import Lines, Workspace, make_workspace
from unoic_cli.kernels.points import count_confusion, count_predictions, predict_planes, predict_rows
from unoic_cli.metrics import Counts


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
    common = (scores.raw, scores.brain, scores.allow_zero, scores.delta, lines, scores.exact, out, work)
    bad = predict_planes(*common, batch.n_units // scores.pixels) if scores.pixels else predict_rows(*common)
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
        out = np.empty(batch.n_units, dtype=np.int32) if last is None else last
        for i, lines in enumerate(self.points):
            predict(batch, lines, out, self._work)
            count_predictions(
                batch.labels, out, batch.tables, n_classes, self._hits[i], self._predicted[i], self._support[i]
            )
            if self.confusion is not None:
                count_confusion(batch.labels, out, n_classes, self.confusion[i])

    def counts(self) -> Counts:
        """Counts of shape (F, P, K), and (F, 1, K) for the support."""
        shape = (len(self.points), self.n_tables, -1)
        hits, predicted, support = (
            array.reshape(shape).swapaxes(0, 1) for array in (self._hits, self._predicted, self._support)
        )
        return Counts(hits, predicted, support[:, :1])
