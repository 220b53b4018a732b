"""P(k) ~ 1 - prod_m (1 - P_m(k)): a class is likely when any expert finds it likely (Algorithm 1).

Normalised, it lowers the confidence of experts that agree: ten times (.9, .1) gives (.606, .394).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unoic_cli.kernels.constants import LANES
from unoic_cli.kernels.groups import miss, pair, tilt, unite_posterior
from unoic_cli.kernels.operator import TINY, Operator, Scratch, compare, misses

ABOUT = "1 - prod (1 - P): any expert may speak up"
LINEAR = False


def default_weights(n: int) -> tuple[float, ...] | None:
    """None: experts are not weighed."""
    return None


class NoisyOr(Operator):
    """Decided by the product of 1 - P alone, where 1 - P of an expert's largest class is the sum of its others.

    So two experts, each certain of another class, are told apart however certain they are (Algorithm 1 as printed
    loses them to rounding).
    """

    __slots__ = ()

    def guess(
        self, n_experts: int, n_classes: int, tables: Any, g: int, n_points: int, near: Any, winners: Any, w: int,
        scratch: Scratch,
    ) -> int:  # fmt: skip
        """Two experts in one go."""
        if n_experts != 2:
            return int(compare(self, n_experts, n_classes, tables, g, n_points, near, winners, w, scratch))
        size, e, p, sums = n_classes * LANES, scratch.e, scratch.p, scratch.sums
        doubt = tilt(e, 0, n_classes, tables, g * n_classes, p, 0, sums, 0)
        doubt |= tilt(e, size, n_classes, tables, (n_points + g) * n_classes, p, size, sums, 2 * LANES)
        return int(doubt | pair(p, 0, size, n_classes, sums, near, np.float32(TINY), winners, w))

    def tiny(self, n_classes: int) -> float:
        """Products underflow."""
        return TINY

    def narrow(self, m: int, n_classes: int, scratch: Scratch) -> None:
        """Times 1 - P."""
        miss(scratch.p, 0, n_classes, scratch.sums, 0, scratch.q, 0, m == 0, False)

    def weigh(self, m: int, n_classes: int, top: int, rest: float, in_logs: bool, row: Any) -> None:
        """Times 1 - P, or plus its logarithm."""
        misses(row, n_classes, top, rest, in_logs)
        for k in range(n_classes):
            if m == 0:
                row[n_classes + k] = row[k]
            elif in_logs:
                row[n_classes + k] += row[k]
            else:
                row[n_classes + k] *= row[k]

    def blend(self, m: int, n_classes: int, scratch: Scratch) -> None:
        """U (1 - P) + P."""
        unite_posterior(scratch.e64, 0, n_classes, scratch.sums64, 0, 1.0, m == 0, scratch.u, 0)


OPERATOR = NoisyOr
