"""How often each label occurs, and how many are ignored."""

from __future__ import annotations

import numpy as np

from unoic_cli.batch import Batch


class LabelTally:
    """Counts of labels per table (fold or group).

    Attributes
    ----------
    counts : (F, K) int64
    ignored : (F,) int64
        Units whose label is ignored, per table (only that of the first where there is one).
    n_units : int
        All units seen, labelled or not.
    """

    needs = frozenset({"labels"})

    def __init__(self, n_classes: int, n_tables: int = 1) -> None:
        self.counts = np.zeros((n_tables, n_classes), dtype=np.int64)
        self.ignored = np.zeros(n_tables, dtype=np.int64)
        self.n_units = 0

    @property
    def n_ignored(self) -> int:
        """Ignored units of all tables."""
        return int(self.ignored.sum())

    def fresh(self) -> LabelTally:
        """An empty tally like this one."""
        return LabelTally(self.counts.shape[1], self.counts.shape[0])

    def update(self, batch: Batch) -> None:
        """Count a batch."""
        self.n_units += batch.n_units
        if batch.labels is not None:
            n_tables, n_classes = self.counts.shape
            kept = batch.labels >= 0
            if batch.n_ignored:
                places = batch.tables[~kept] if n_tables > 1 else np.zeros(batch.n_ignored, dtype=np.int32)
                self.ignored += np.bincount(places, minlength=n_tables)
            places = batch.labels[kept].astype(np.int64)
            if n_tables > 1:
                places += batch.tables[kept] * np.int64(n_classes)
            self.counts += np.bincount(places, minlength=n_tables * n_classes).reshape(n_tables, n_classes)

    def add(self, other: LabelTally) -> None:
        """Take over what another thread counted."""
        self.counts += other.counts
        self.ignored += other.ignored
        self.n_units += other.n_units
