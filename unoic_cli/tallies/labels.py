"""How often each label occurs."""

from __future__ import annotations

import numpy as np

from unoic_cli.batch import Batch


class LabelTally:
    """Counts of labels.

    Attributes
    ----------
    counts : (K,) int64
        Units of each label.
    n_ignored : int
        Units whose label is ignored.
    """

    needs = frozenset({"labels"})

    def __init__(self, n_classes: int) -> None:
        self.counts = np.zeros(n_classes, dtype=np.int64)
        self.n_ignored = 0

    def fresh(self) -> LabelTally:
        """An empty tally like this one."""
        return LabelTally(self.counts.size)

    def update(self, batch: Batch) -> None:
        """Count a batch."""
        assert batch.labels is not None
        kept = batch.labels[batch.labels >= 0] if batch.n_ignored else batch.labels
        self.counts += np.bincount(kept, minlength=self.counts.size)
        self.n_ignored += batch.n_ignored

    def add(self, other: LabelTally) -> None:
        """Take over what another thread counted."""
        self.counts += other.counts
        self.n_ignored += other.n_ignored
