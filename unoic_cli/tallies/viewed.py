"""A tally that looks at the data in its own way: several methods count during one read."""

from __future__ import annotations

from typing import Any

from unoic_cli.batch import Batch
from unoic_cli.view import View


class ViewedTally:
    """Another tally, given batches as a view makes them.

    Parameters
    ----------
    view : View
    tally : Tally
    """

    def __init__(self, view: View, tally: Any) -> None:
        self.view, self.tally = view, tally
        self.needs: frozenset[str] = tally.needs

    def fresh(self) -> ViewedTally:
        """An empty tally like this one."""
        return ViewedTally(self.view, self.tally.fresh())

    def update(self, batch: Batch) -> None:
        """Count a batch whose scores are not made yet."""
        self.tally.update(self.view.apply(batch))

    def add(self, other: ViewedTally) -> None:
        """Take over what another thread counted."""
        self.tally.add(other.tally)
