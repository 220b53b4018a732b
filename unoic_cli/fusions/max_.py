"""P(k) ~ max_m P_m(k): the most certain expert decides."""

from __future__ import annotations

from typing import Any

import numpy as np

from unoic_cli.kernels.groups import larger_posterior, miss
from unoic_cli.kernels.operator import Operator, Scratch, misses

ABOUT = "the largest posterior: the most certain expert decides"
LINEAR = False


def default_weights(n: int) -> tuple[float, ...] | None:
    """None: experts are not weighed."""
    return None


class Maximum(Operator):
    """The least 1 - P of all experts."""

    __slots__ = ()

    def narrow(self, m: int, n_classes: int, scratch: Scratch) -> None:
        """The smaller 1 - P."""
        miss(scratch.p, 0, n_classes, scratch.sums, 0, scratch.q, 0, m == 0, True)

    def weigh(self, m: int, n_classes: int, top: int, rest: float, in_logs: bool, row: Any) -> None:
        """The smaller 1 - P."""
        misses(row, n_classes, top, rest, in_logs)
        for k in range(n_classes):
            row[n_classes + k] = row[k] if m == 0 else np.minimum(row[k], row[n_classes + k])

    def blend(self, m: int, n_classes: int, scratch: Scratch) -> None:
        """The larger P."""
        larger_posterior(scratch.e64, 0, n_classes, scratch.sums64, 0, 1.0, m == 0, scratch.u, 0)

    def join_logs(self, m: int, value: float, before: float) -> float:
        """The larger."""
        return max(value, before)


OPERATOR = Maximum
