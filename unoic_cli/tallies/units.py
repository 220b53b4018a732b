"""How many units there are, and how many have an ignored label."""

from __future__ import annotations

from functools import partial

import numpy as np

from unoic_cli.data.batch import Batch
from unoic_cli.tallies.tally import Tally


class UnitTally(Tally):
    """Units seen, and ignored ones per table (fold or group).

    Attributes
    ----------
    n_units : int
        All units seen, labelled or not.
    ignored : (F,) int64
        Units whose label is ignored (all in the first place where there is one table).
    """

    needs = frozenset({"labels"})
    COUNTED = ("n_units", "ignored")

    def __init__(self, n_tables: int = 1) -> None:
        self.n_units = 0
        self.ignored = np.zeros(n_tables, dtype=np.int64)

    @property
    def n_ignored(self) -> int:
        """Ignored units of all tables."""
        return int(self.ignored.sum())

    def recipe(self) -> partial[UnitTally]:
        """What makes an empty tally like this one."""
        return partial(UnitTally, self.ignored.size)

    def update(self, batch: Batch) -> None:
        """Count a batch."""
        self.n_units += batch.n_units
        if batch.n_ignored and self.ignored.size > 1 and batch.labels is not None:
            self.ignored += np.bincount(batch.tables[batch.labels < 0], minlength=self.ignored.size)
        else:
            self.ignored[0] += batch.n_ignored
