"""P(k) ~ prod_m P_m(k): experts that err independently, each with the same prior."""

from __future__ import annotations

from unoic_cli.kernels.fusion import LOG_LINEAR

NAME = "product"
ABOUT = "the product of the posteriors"
OPERATOR = LOG_LINEAR
LINEAR = True
NORMALISED = False


def default_weights(n: int) -> tuple[float, ...] | None:
    """None: weights are what log-linear is for."""
    return None
