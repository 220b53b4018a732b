"""Algorithm 2 of the UNO-IC paper (NeurIPS 2020), repaired to integer indices and bounded.

As printed it compares lambda values as if they were indices, leaves the grid at (L + H) / 2, and may
never end. Here L, M and H are lattice indices: H doubles from the end of the range while the metric
there is no worse than at lambda = 0 (up to a bound); then the interval is halved towards the side that
rises. It presumes a unimodal curve; when what it saw was not, it says so. Never worse than lambda = 0.
"""

from __future__ import annotations

import numpy as np

from unoic_cli.errors import UsageError
from unoic_cli.lattice import WIDEST, Lattice
from unoic_cli.metrics import Counts
from unoic_cli.searches import Curve, Found, Problem


class _Visited:
    """Evaluated lattice points: one read of the data for each."""

    def __init__(self, problem: Problem, lattice: Lattice) -> None:
        self.problem, self.lattice = problem, lattice
        self.curves: dict[int, Curve] = {}
        self.values: dict[int, float] = {}

    def value(self, index: int) -> float:
        if index not in self.curves:
            curve = self.problem.points([float(index * self.lattice.step)])
            self.curves[index] = curve
            self.values[index] = float(self.problem.objective(curve)[0])
        return self.values[index]

    def joined(self) -> Curve:
        order = sorted(self.curves)
        curves = [self.curves[i] for i in order]
        top = [curve.top_hits for curve in curves]
        return Curve(
            np.concatenate([curve.lams for curve in curves]),
            Counts(
                np.concatenate([curve.counts.hits for curve in curves], axis=1),
                np.concatenate([curve.counts.predicted for curve in curves], axis=1),
                curves[0].counts.support,
            ),
            None if top[0] is None else np.concatenate([hits for hits in top if hits is not None], axis=1),
        )


def search(problem: Problem, lattice: Lattice) -> Found:
    """Bracket the maximum by doubling, then halve the bracket.

    Raises
    ------
    UsageError
        The range does not begin at 0, where Algorithm 2 starts.
    """
    if lattice.start != 0:
        raise UsageError(
            "--range", f"{lattice} with --method paper", "expected a range from 0, where Algorithm 2 starts"
        )
    visited = _Visited(problem, lattice)
    low, high = 0, lattice.size - 1  # the peak may lie below the first end, even if that beats lambda = 0: low stays
    bound = max(high, int(WIDEST / lattice.step))
    while high < bound and visited.value(high) >= visited.value(0):
        high = min(2 * high, bound)
    while high - low > 1:
        middle = (low + high) // 2
        if visited.value(middle) >= visited.value(middle + 1):
            high = middle
        else:
            low = middle
    for index in (0, low, high):
        visited.value(index)
    order = sorted(visited.values)
    values = np.array([visited.values[i] for i in order])
    choice = int(np.argmax(values))
    notes = []
    steps = np.sign(np.diff(values[np.isfinite(values)]))  # -inf: a constraint fails
    steps = steps[steps != 0]
    if (np.diff(steps) > 0).any():
        notes.append("Algorithm 2 presumes a curve with one peak; what it evaluated has more: prefer --method path")
    return Found(visited.joined(), len(order), len(order), choice, tuple(notes))
