"""How many units a lambda decides otherwise than lambda 0 does: no labels are needed."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.rule import Rule
from unoic_cli.data.batch import Batch
from unoic_cli.kernels.lines import Lines, make_workspace
from unoic_cli.tallies.points import predict
from unoic_cli.tallies.tally import Tally


class FlipTally(Tally):
    """Units, and those whose decision at lambda 0 is another one than a given one.

    Parameters
    ----------
    lines : Lines
        Of lambda 0, where scores are lines in lambda.
    rule : Rule or None
        The fusion, where they are not.

    Attributes
    ----------
    n, flips : int
    """

    needs = frozenset({"scores"})
    COUNTED = ("n", "flips")

    def __init__(self, lines: Lines, rule: Rule | None) -> None:
        self.lines, self.rule = lines, rule
        self.n = self.flips = 0
        self._work = make_workspace(lines.n_classes)
        self._fuser: Fuser | None = None

    def recipe(self) -> partial[FlipTally]:
        """What makes an empty tally like this one."""
        return partial(FlipTally, self.lines, self.rule)

    def look(self, batch: Batch, decided: NDArray[np.int32]) -> None:
        """Count a batch, (T,) decided; units whose label is ignored count as well, as others without a label do."""
        out = np.empty(batch.n_units, dtype=np.int32)
        if self.rule is None:
            predict(batch, self.lines, out, self._work)
        else:
            self._fuser = self._fuser or Fuser(self.rule, [0.0])
            self._fuser.predict(batch, out)
        differ = out != decided
        if batch.blank is not None:
            differ &= ~batch.blank
        self.n += batch.n_units
        self.flips += int(differ.sum())
