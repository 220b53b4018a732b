"""Fusion operators: one file each; this registry is the only other place that knows their names.

A module offers
    NAME, ABOUT: str
    OPERATOR: int                    its number in `unoic_cli.kernels.fusion`
    NORMALISED: bool                 given weights are divided by their sum
    LINEAR: bool                     fused scores are lines in a common lambda: the exact path serves them
    default_weights(n) -> (n,)       or None where weights have no effect
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from types import ModuleType

from unoic_cli.errors import UsageError

FUSIONS = {
    "noisy-or": "noisy_or",
    "average": "average",
    "product": "product",
    "max": "maximum",
    "log-linear": "log_linear",
}
"""Name -> module of `unoic_cli.fusions`."""
DEFAULT = "noisy-or"


def fusion(name: str, option: str = "--fusion") -> ModuleType:
    """The module of a fusion operator.

    Raises
    ------
    UsageError
        An unknown name.
    """
    if name not in FUSIONS:
        raise UsageError(option, f"{name!r}", f"expected one of {', '.join(FUSIONS)}")
    return importlib.import_module(f"{__name__}.{FUSIONS[name]}")


def resolve_weights(name: str, given: Sequence[float] | None, n: int, option: str = "--weights") -> tuple[float, ...]:
    """Weights of n modalities: as given, or those the operator takes by itself.

    Raises
    ------
    UsageError
        The operator takes none, or they are negative, infinite or all zero.

    Examples
    --------
    >>> resolve_weights("average", [3, 1], 2)
    (0.75, 0.25)
    >>> resolve_weights("product", None, 2)
    (1.0, 1.0)
    """
    module = fusion(name)
    default: tuple[float, ...] | None = module.default_weights(n)
    if given is None:
        return default or (1.0,) * n
    if default is None:
        raise UsageError(option, f"weights for {name}, which has none", "expected average or log-linear")
    if len(given) != n:
        raise UsageError(option, f"{len(given)} weights", f"expected {n}, one for each modality")
    if not all(math.isfinite(weight) and weight >= 0 for weight in given) or not max(given) > 0:
        raise UsageError(option, f"{', '.join(f'{w:g}' for w in given)}", "expected weights >= 0, one of them positive")
    if not module.NORMALISED:
        return tuple(float(weight) for weight in given)
    largest = max(given)
    total = math.fsum(weight / largest for weight in given)
    return tuple(weight / largest / total for weight in given)
