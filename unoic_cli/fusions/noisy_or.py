"""P(k) ~ 1 - prod_m (1 - P_m(k)): a class is likely when any expert finds it likely (Algorithm 1).

Normalised, it lowers the confidence of experts that agree: ten times (.9, .1) gives (.606, .394).
"""

from __future__ import annotations

from unoic_cli.kernels.fusion import NOISY_OR

NAME = "noisy-or"
ABOUT = "1 - prod (1 - P): any expert may speak up"
OPERATOR = NOISY_OR
LINEAR = False
NORMALISED = False


def default_weights(n: int) -> tuple[float, ...] | None:
    """None: experts are not weighed."""
    return None
