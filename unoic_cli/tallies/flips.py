"""How many units a lambda decides otherwise than lambda 0 does: no labels are needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from unoic_cli.calibrations.decider import Fuser, Rule
from unoic_cli.data.batch import Batch
from unoic_cli.kernels.lines import Lines, make_workspace
from unoic_cli.tallies.points import predict
from unoic_cli.tallies.tally import Tally


class FlipTally(Tally):
    """Units, and those whose decision changes between two settings.

    Parameters
    ----------
    lines : sequence of Lines
        Of both settings, where scores are lines in lambda.
    rule : Rule or None
        The fusion, where they are not.
    lams : sequence of float
        Both lambdas.

    Attributes
    ----------
    n, flips : int
    """

    needs = frozenset({"scores"})
    COUNTED = ("n", "flips")

    def __init__(self, lines: Sequence[Lines], rule: Rule | None, lams: Sequence[float]) -> None:
        self.lines, self.rule, self.lams = tuple(lines), rule, tuple(lams)
        self.n = self.flips = 0

    def recipe(self) -> partial[FlipTally]:
        """What makes an empty tally like this one."""
        return partial(FlipTally, self.lines, self.rule, self.lams)

    def update(self, batch: Batch) -> None:
        """Count a batch; units whose label is ignored count as well, as others without a label do."""
        first, second = (self._decide(batch, i) for i in range(2))
        differ = first != second
        if batch.blank is not None:
            differ &= ~batch.blank
        self.n += batch.n_units
        self.flips += int(differ.sum())

    def _decide(self, batch: Batch, i: int) -> np.ndarray:
        out = np.empty(batch.n_units, dtype=np.int32)
        if self.rule is None:
            predict(batch, self.lines[i], out, make_workspace(self.lines[i].n_classes))
        else:
            Fuser(self.rule, [self.lams[i]]).predict(batch, out)
        return out
