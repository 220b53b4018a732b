"""Fusion operators: one file each, named as the operator is (`max_` as max is taken); no other place knows their names.

A module offers
    ABOUT: str                       one line for people
    LINEAR: bool                     fused scores are lines in a common lambda: the exact path serves them
    OPERATOR: type                   what kernels do: see `unoic_cli.kernels.operator`
    default_weights(n) -> (n,)       weights, that sum to 1 as given ones then do; or None where experts are not weighed
and, where source priors are divided out,
    divided(log_priors) -> b, share  of log P_s (M, K): what is added to each expert's scores (M, K), and which share of
                                     their slopes is left
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Sequence
from types import ModuleType

from unoic_cli.errors import UsageError

DEFAULT = "noisy-or"
_FILES = {one.name.rstrip("_").replace("_", "-"): one.name for one in pkgutil.iter_modules(__path__)}
FUSIONS = tuple(sorted(_FILES, key=lambda name: name != DEFAULT))
"""The names of all, the default first."""


def listed(names: Sequence[str], last: str = "or") -> str:
    """Names for people.

    Examples
    --------
    >>> listed(["rgb", "depth", "lidar"])
    'rgb, depth or lidar'
    """
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def fusion(name: str, option: str = "--fusion") -> ModuleType:
    """The module of a fusion operator.

    Raises
    ------
    UsageError
        An unknown name.
    """
    if name not in FUSIONS:
        raise UsageError(option, f"{name!r}", f"expected one of {', '.join(FUSIONS)}")
    return importlib.import_module(f"{__name__}.{_FILES[name]}")


def divides(name: str) -> bool:
    """Whether source priors are divided out, so that they matter at lambda = 0, too."""
    return hasattr(fusion(name), "divided")


def resolve_weights(name: str, given: Sequence[float] | None, n: int, option: str = "--weights") -> tuple[float, ...]:
    """Weights of n modalities: as given, over their sum, or those the operator takes by itself.

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
    default: tuple[float, ...] | None = fusion(name).default_weights(n)
    if given is None:
        return default or (1.0,) * n
    if default is None:
        weighing = listed([other for other in FUSIONS if fusion(other).default_weights(n) is not None])
        raise UsageError(option, f"weights for {name}, which has none", f"expected {weighing}")
    if len(given) != n:
        raise UsageError(option, f"{len(given)} weights", f"expected {n}, one for each modality")
    if not all(math.isfinite(weight) and weight >= 0 for weight in given) or not max(given) > 0:
        raise UsageError(option, f"{', '.join(f'{w:g}' for w in given)}", "expected weights >= 0, one of them positive")
    largest = max(given)
    total = math.fsum(weight / largest for weight in given)
    return tuple(weight / largest / total for weight in given)
