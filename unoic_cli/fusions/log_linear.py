"""P(k) ~ prod_m P_m(k) ** w_m: the log-linear pool, a weighted geometric mean."""

from __future__ import annotations

from unoic_cli.kernels.operator import Pool

ABOUT = "the (weighted) geometric mean of the posteriors"
OPERATOR = Pool
LINEAR = True


def default_weights(n: int) -> tuple[float, ...] | None:
    """1 / n each."""
    return (1.0 / n,) * n
