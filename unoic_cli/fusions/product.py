"""P(k) ~ prod_m P_m(k): experts that err independently, each with the same prior."""

from __future__ import annotations

from unoic_cli.kernels.operator import Pool

ABOUT = "the product of the posteriors"
OPERATOR = Pool
LINEAR = True


def default_weights(n: int) -> tuple[float, ...] | None:
    """None: weights are what log-linear is for."""
    return None
