"""P(k) ~ max_m P_m(k): the most certain expert decides."""

from __future__ import annotations

from unoic_cli.kernels.fusion import MAXIMUM

NAME = "max"
ABOUT = "the largest posterior: the most certain expert decides"
OPERATOR = MAXIMUM
LINEAR = False
NORMALISED = False


def default_weights(n: int) -> tuple[float, ...] | None:
    """None: experts are not weighed."""
    return None
