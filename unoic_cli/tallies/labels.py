"""How often each label occurs."""

from __future__ import annotations

from functools import partial

import numpy as np

from unoic_cli.data.batch import Batch
from unoic_cli.tallies.tally import Tally


class LabelTally(Tally):
    """Counts of labels.

    Attributes
    ----------
    counts : (K,) int64
        Units of each label.
    n_ignored : int
        Units whose label is ignored.
    """

    needs = frozenset({"labels"})
    COUNTED = ("counts", "n_ignored")

    def __init__(self, n_classes: int) -> None:
        self.counts = np.zeros(n_classes, dtype=np.int64)
        self.n_ignored = 0

    def recipe(self) -> partial[LabelTally]:
        """What makes an empty tally like this one."""
        return partial(LabelTally, self.counts.size)

    def update(self, batch: Batch) -> None:
        """Count a batch."""
        assert batch.labels is not None
        kept = batch.labels[batch.labels >= 0] if batch.n_ignored else batch.labels
        self.counts += np.bincount(kept, minlength=self.counts.size)
        self.n_ignored += batch.n_ignored
