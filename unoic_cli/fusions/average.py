"""P(k) = sum_m w_m P_m(k): the mean of the experts' posteriors ("SoftAve")."""

from __future__ import annotations

from unoic_cli.kernels.fusion import AVERAGE

NAME = "average"
ABOUT = "the (weighted) mean of the posteriors"
OPERATOR = AVERAGE
LINEAR = False
NORMALISED = True


def default_weights(n: int) -> tuple[float, ...] | None:
    """1 / n each."""
    return (1.0 / n,) * n
