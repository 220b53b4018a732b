"""A tally that looks at the data in its own way: several methods count during one read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from unoic_cli.calibrations.view import View
from unoic_cli.data.batch import Batch
from unoic_cli.tallies.tally import Counters, Tally


class ViewedTally(Tally):
    """Another tally, given batches as a view makes them.

    Parameters
    ----------
    view : View
    tally : Tally
    """

    def __init__(self, view: View, tally: Tally) -> None:
        self.view, self.tally = view, tally
        self.needs = tally.needs

    def recipe(self) -> partial[ViewedTally]:
        """What makes an empty tally like this one."""
        return partial(_viewed, self.view, self.tally.recipe())

    def update(self, batch: Batch) -> None:
        """Count a batch whose scores are not made yet."""
        self.tally.update(self.view.apply(batch))

    def counters(self) -> Counters:
        """What was counted so far."""
        return self.tally.counters()

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what a tally like this one counted elsewhere."""
        self.tally.absorb(counters)


def _viewed(view: View, recipe: Callable[[], Tally]) -> ViewedTally:
    return ViewedTally(view, recipe())
