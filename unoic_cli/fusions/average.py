"""P(k) = sum_m w_m P_m(k): the mean of the experts' posteriors ("SoftAve")."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np

from unoic_cli.kernels.groups import add_posterior, share
from unoic_cli.kernels.operator import Operator, Scratch, add_logs, chosen, exponential

ABOUT = "the (weighted) mean of the posteriors"
LINEAR = False


def default_weights(n: int) -> tuple[float, ...] | None:
    """1 / n each."""
    return (1.0 / n,) * n


class Average(Operator):
    """Sums of posteriors; the experts' certainties are split off, so that 1 - 1e-20 is told from 1 - 1e-30."""

    __slots__ = ()

    def narrow(self, m: int, n_classes: int, scratch: Scratch) -> None:
        """-w P."""
        weight = np.float32(self.weights[m])
        share(scratch.p, 0, n_classes, scratch.sums, 0, weight, scratch.q, 0, m == 0)

    def weigh(self, m: int, n_classes: int, top: int, rest: float, in_logs: bool, row: np.ndarray) -> None:
        """-w P, of the largest class w (1 - P) and the certainty w."""
        total = 1.0 + rest
        for k in range(n_classes):
            leads = row[k] == 0.0
            row[n_classes + k] += self.weights[m] * chosen(leads, rest / total, -exponential(row[k]) / total)
            row[2 * n_classes + k] += chosen(leads, self.weights[m], 0.0)

    def is_faint(self, best: Any) -> Any:
        """No products are taken."""
        return False

    def blend(self, m: int, n_classes: int, scratch: Scratch) -> None:
        """U + w P."""
        add_posterior(scratch.e64, 0, n_classes, scratch.sums64, 0, self.weights[m], m == 0, scratch.u, 0)

    def join_logs(self, m: int, value: float, before: float) -> float:
        """The same in logarithms."""
        return float(add_logs(value + log(self.weights[m]) if self.weights[m] > 0.0 else -np.inf, before))


OPERATOR = Average
