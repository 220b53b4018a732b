"""P(k) ~ prod_m P_m(k) / P(k) ** (M - 1): right for sensors that are independent given the class.

The posterior of expert m is P_d(k|x) ~ p(x|k) P_s(k), with its own source prior P_s. Rebalanced by Eq. 7 it is

    P_m(k) ~ P_d(k|x) (P_t(k) / P_s(k)) ** lambda ~ p(x|k) pi_m(k),    pi_m(k) ~ P_s(k) ** (1 - lambda) P_t(k) ** lambda

so the prior that it assumes is pi_m: the source prior at lambda = 0, the target prior at lambda = 1. The fused
posterior under a prior pi is pi(k) prod_m p(x_m|k) ~ pi(k) prod_m P_m(k) / pi_m(k). As experts may have different
source priors and lambdas, pi is the geometric mean of theirs: what each assumes wherever they agree, as at lambda = 1.

    log P(k) = sum_m log P_m(k) - (M - 1) / M sum_m log pi_m(k)
             = sum_m [z_m(k) - (M - 1) / M log P_s,m(k) + lambda / M s_m(k)] + const

Each expert's scores remain lines in lambda. Where delta < 1 flattens them before they are rebalanced (the order of
Algorithm 1), the whole prior is divided out all the same; with rebalance-first it is flattened as the posterior is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.kernels.operator import Pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ABOUT = "the product over the prior that all share: right for sensors that are independent given the class"
OPERATOR = Pool
LINEAR = True


def default_weights(n: int) -> tuple[float, ...] | None:
    """None: weights are what log-linear is for."""
    return None


def divided(log_priors: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """-(M - 1) / M log P_s is added to each expert's scores, and 1 / M of their slopes is left."""
    n = len(log_priors)
    return -(n - 1) / n * log_priors, 1.0 / n
