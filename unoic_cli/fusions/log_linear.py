"""P(k) ~ prod_m P_m(k) ** w_m: the log-linear pool, a weighted geometric mean."""

from __future__ import annotations

from unoic_cli.kernels.fusion import LOG_LINEAR

NAME = "log-linear"
ABOUT = "the (weighted) geometric mean of the posteriors"
OPERATOR = LOG_LINEAR
LINEAR = True
NORMALISED = True


def default_weights(n: int) -> tuple[float, ...] | None:
    """1 / n each."""
    return (1.0 / n,) * n
