"""When a lambda may do harm: what is measured, and from where on it is said."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unoic_cli.searches.joint import Joint

SHARES = (0.5, 2.0)
"""Of the share of decisions that lambda changes, new data to the tuning data: within these nothing is said."""
LEAST_SHARE = 0.005
SURE = 3.0
"""Standard errors."""
FAR = 0.5
"""lambda may be so far from what the logits of a network trained without reweighting call for."""
FEW_ROWS = 5
FLATTER = 0.75
"""Of the smallest delta where it was fitted: units below this are flattened as none was there."""
LEAST_FLATTENED = 0.05
"""Of the units, for them to be spoken of."""


def flips_differ(tuned: tuple[int, int], found: tuple[int, int]) -> bool:
    """Whether lambda changes many more, or fewer, decisions than on the data that it was tuned on (W1).

    Parameters
    ----------
    tuned, found : (int, int)
        Units whose decision changes, and independent units, on the tuning data and on the new data.

    Notes
    -----
    The shares differ by more than a factor of two, the larger is above 0.5 %, and the two-proportion z is above 3.

    Examples
    --------
    >>> flips_differ((30, 1000), (300, 1000)), flips_differ((30, 1000), (45, 1000)), flips_differ((1, 9), (5, 9))
    (True, False, False)
    """
    (a, n), (b, m) = tuned, found
    if not (n and m):
        return False
    first, second = a / n, b / m
    high = max(first, second)
    if high <= LEAST_SHARE or (first > 0 and SHARES[0] <= second / first <= SHARES[1]):
        return False
    pooled = (a + b) / (n + m)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return spread > 0 and abs(first - second) / spread > SURE


def prior_is_not_carried(joint: Joint, temperature: float = 1.0) -> bool:
    """Whether the logits do not carry the training prior (W3): lambda = 1 is then no place to start from.

    Both the fitted lambda and ``mu = lambda / a``, of the scores before a temperature divides them, are further from 1
    than 0.5 and three standard errors.
    """
    far = ((joint.lam, joint.se_lam), (joint.mu * temperature, joint.se_mu * temperature))
    return all(abs(value - 1) > max(FAR, SURE * (se if math.isfinite(se) else 0.0)) for value, se in far)
