"""How often each class is predicted by the scores as they are, of units that need no label."""

from __future__ import annotations

from functools import partial

import numpy as np

from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.rule import Rule
from unoic_cli.data.batch import Batch
from unoic_cli.kernels.lines import make_point, make_workspace
from unoic_cli.tallies.points import predict
from unoic_cli.tallies.tally import Tally


class DecisionTally(Tally):
    """Counts of decisions at lambda 0; scores that are not valid are found.

    Parameters
    ----------
    n_classes : int
        K.
    rule : Rule or None
        Of fusions whose scores are no lines in lambda.
    labelled : bool
        There are labels: units whose label is ignored may have scores that are none, and are then left out.

    Attributes
    ----------
    counts : (K,) int64
    """

    COUNTED = ("counts",)

    def __init__(self, n_classes: int, rule: Rule | None = None, labelled: bool = False) -> None:
        self.counts = np.zeros(n_classes, dtype=np.int64)
        self.rule, self.labelled = rule, labelled
        self.needs = frozenset({"scores", "labels"} if labelled else {"scores"})
        self._lines = make_point(np.zeros(n_classes), np.zeros(n_classes, dtype=np.bool_), 0.0)
        self._work = make_workspace(n_classes)
        self._fuser: Fuser | None = None

    def recipe(self) -> partial[DecisionTally]:
        """What makes an empty tally like this one."""
        return partial(DecisionTally, self.counts.size, self.rule, self.labelled)

    def update(self, batch: Batch) -> None:
        """Count a batch; raises `InvalidScoreError` at the first invalid unit."""
        out = np.empty(batch.n_units, dtype=np.int32)
        if self.rule is None:
            predict(batch, self._lines, out, self._work)
        else:
            self._fuser = self._fuser or Fuser(self.rule, [0.0])
            self._fuser.predict(batch, out)
        kept = out if batch.blank is None else out[~batch.blank]
        self.counts += np.bincount(kept, minlength=self.counts.size)
