"""All lattice lambdas from one read: the upper envelope of each unit's lines."""

from __future__ import annotations

from unoic_cli.lattice import Lattice
from unoic_cli.searches import Found, Problem


def search(problem: Problem, lattice: Lattice) -> Found:
    """Count along the lambda path."""
    return Found(problem.path(lattice), evaluations=0, reads=1)
