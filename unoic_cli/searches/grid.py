"""All lattice lambdas, each evaluated plainly: slower, and a check on the path."""

from __future__ import annotations

from unoic_cli.calibrations.lattice import Lattice
from unoic_cli.searches import Asking, Found, Problem


def search(problem: Problem, lattice: Lattice) -> Asking[Found]:
    """Evaluate every lattice point (one read, one argmax for each)."""
    lams = lattice.values().tolist()
    return Found((yield from problem.points(lams)), evaluations=len(lams), reads=1)
