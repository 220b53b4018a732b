"""Algorithm 2 of the UNO-IC paper (NeurIPS 2020) by its text, on integer indices.

Lambda is an index times the step, since the text compares lambdas as if they were indices (``H == L + 1``) and leaves
the grid at ``(L + H) / 2``. All else is the text's: 0 where the first step is worse; H grows by five steps; M is
compared with both neighbours, and where neither case fits, ties among them, the search goes up. Where the first loop
would never end (no value is worse than that at lambda = 0) it stops at the bound, and lambda is 0 if nothing seen is
better. So the result may be worse than another lambda that was evaluated, and than lambda = 0; then it says so.
"""

from __future__ import annotations

from unoic_cli.calibrations.lattice import Lattice
from unoic_cli.searches import Asking, Found, Problem
from unoic_cli.searches.paper import SEVERAL_PEAKS, Visited

GROWTH = 5
"""Steps by which the upper end moves."""


def search(problem: Problem, lattice: Lattice) -> Asking[Found]:
    """Follow the text.

    Raises
    ------
    UsageError
        The range does not begin at 0, where Algorithm 2 starts.
    """
    visited = Visited(problem, lattice, "paper-printed")
    notes = []
    first, zero = (yield from visited.value(1)), (yield from visited.value(0))
    if first < zero:
        choice = 0
    else:
        high = visited.end
        while (yield from visited.value(high)) >= zero and high < visited.bound:
            high = min(high + GROWTH, visited.bound)
        choice = yield from _find(visited, 0, high)
        if (yield from visited.value(high)) >= zero:
            end = f"{float(high * lattice.step):g}"
            notes.append(f"Algorithm 2 as printed never ends here: no value is worse than at lambda 0 up to {end}")
            choice = choice if max(visited.values.values()) > zero else 0
    seen = visited.values
    better = max(sorted(seen), key=lambda index: seen[index])
    if seen[better] > seen[choice]:
        said = [f"{float(index * lattice.step):g}" for index in (choice, better)]
        worse = ", and so is lambda 0" if seen[choice] < zero and better else ""
        notes.append(f"Algorithm 2 as printed ends at lambda {said[0]}, but {said[1]}, which it saw, is better{worse}")
    elif visited.several_peaks():
        notes.append(SEVERAL_PEAKS)
    return visited.found(choice, tuple(notes))


def _find(visited: Visited, low: int, high: int) -> Asking[int]:
    """FindMaxLambda: the halving of the text, without its recursion."""
    while high - low > 1:
        middle = (low + high) // 2
        here = yield from visited.value(middle)
        above = yield from visited.value(middle + 1)
        below = yield from visited.value(middle - 1)
        if here > above and here > below:
            return middle
        if here > above and here < below:
            high = middle - 1
        else:
            low = middle + 1
    return low if low == high or (yield from visited.value(low)) >= (yield from visited.value(high)) else high
