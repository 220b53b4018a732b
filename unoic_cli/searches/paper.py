"""Algorithm 2 of the UNO-IC paper (NeurIPS 2020), repaired: what it presumes is checked, and it always ends.

L, M and H are lattice indices, where the text compares lambda values as if they were. H doubles from the end of the
range while the metric there is no worse than at lambda = 0, up to a bound (the text adds five steps, without one);
then the interval is halved towards the larger of two neighbours, the lower one where they are equal (the text compares
three, and goes up). There is no early end where the first step is worse than lambda = 0. The best value that was seen
is returned, so never one worse than lambda = 0. It presumes a curve with one peak; when what it saw has more, it says
so. `unoic_cli.searches.paper_printed` is the text as it stands.
"""

from __future__ import annotations

import numpy as np

from unoic_cli.calibrations.lattice import WIDEST, Lattice
from unoic_cli.errors import UsageError
from unoic_cli.searches import Asking, Curve, Found, Problem

SEVERAL_PEAKS = "Algorithm 2 presumes a curve with one peak; what it evaluated has more: prefer --method path"


class Visited:
    """Evaluated lattice points: one read of the data for each.

    Parameters
    ----------
    problem : Problem
    lattice : Lattice
        From 0, where Algorithm 2 starts.
    name : str
        The method's, for messages.

    Raises
    ------
    UsageError
        The lattice begins elsewhere, or has a single point.
    """

    def __init__(self, problem: Problem, lattice: Lattice, name: str) -> None:
        if lattice.start != 0 or lattice.size < 2:
            expected = "expected a range from 0 to more than 0, as Algorithm 2 has it"
            raise UsageError("--range", f"{lattice} with --method {name}", expected)
        self.problem, self.lattice = problem, lattice
        self.curves: dict[int, Curve] = {}
        self.values: dict[int, float] = {}
        self.end = lattice.size - 1
        self.bound = max(self.end, int(WIDEST / lattice.step))

    def value(self, index: int) -> Asking[float]:
        """The value to maximise at a lattice point; -inf where a constraint fails."""
        if index not in self.curves:
            curve = yield from self.problem.points([float(index * self.lattice.step)])
            self.curves[index] = curve
            self.values[index] = float(self.problem.objective(curve)[0])
        return self.values[index]

    def found(self, choice: int, notes: tuple[str, ...]) -> Found:
        """All that was evaluated, and the lattice point to take."""
        order = sorted(self.curves)
        return Found(Curve.joined([self.curves[i] for i in order]), len(order), len(order), order.index(choice), notes)

    def several_peaks(self) -> bool:
        """Whether the values seen rise again after they fell."""
        values = np.array([self.values[index] for index in sorted(self.values)])
        steps = np.sign(np.diff(values[np.isfinite(values)]))  # -inf: a constraint fails
        return bool((np.diff(steps[steps != 0]) > 0).any())


def search(problem: Problem, lattice: Lattice) -> Asking[Found]:
    """Bracket the maximum by doubling, then halve the bracket.

    Raises
    ------
    UsageError
        The range does not begin at 0, where Algorithm 2 starts.
    """
    visited = Visited(problem, lattice, "paper")
    low, high = 0, visited.end  # the peak may lie below the first end, even if that beats lambda = 0: low stays
    while high < visited.bound and (yield from visited.value(high)) >= (yield from visited.value(0)):
        high = min(2 * high, visited.bound)
    while high - low > 1:
        middle = (low + high) // 2
        if (yield from visited.value(middle)) >= (yield from visited.value(middle + 1)):
            high = middle
        else:
            low = middle
    for index in (0, low, high):
        yield from visited.value(index)
    best = max(sorted(visited.values), key=lambda index: visited.values[index])
    return visited.found(best, (SEVERAL_PEAKS,) if visited.several_peaks() else ())
