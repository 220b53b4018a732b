"""Operators of fusion, compiled: each method, and each function that it calls, by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import exp, log, log1p
from types import FunctionType
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload_method

from unoic_cli.kernels import groups, lanes, operator, simd
from unoic_cli.kernels.jit import JIT_DISABLED, NO_COUNTING, inlined, stage
from unoic_cli.kernels.operator import Operator, Pool


@stage
def log_rest(shifted: Any, top: int, n_classes: int) -> float:
    """Log of the sum of the exponentials of all classes but `top`, however small."""
    best = -np.inf
    for k in range(n_classes):
        if k != top and shifted[k] > best:
            best = shifted[k]
    if best == -np.inf:
        return -np.inf
    total = 0.0
    for k in range(n_classes):
        if k != top:
            total += exp(shifted[k] - best)
    return best + log(total)


@stage
def misses(row: Any, n_classes: int, top: int, rest: float, in_logs: bool) -> None:
    """What `tilted` left in row (K,) to 1 - P, or its logarithm; that of the largest class is the sum of the others."""
    total = 1.0 + rest
    if in_logs:
        logarithm = log_rest(row, top, n_classes)
        for k in range(n_classes):
            row[k] = logarithm - log(total) if row[k] == 0.0 else log1p(-exp(row[k]) / total)
    else:
        for k in range(n_classes):
            row[k] = (rest if row[k] == 0.0 else total - exp(row[k])) / total


@inlined
def exponential(x: float) -> float:
    """exp(x)."""
    return exp(x)


@inlined
def chosen(condition: bool, a: float, b: float) -> float:
    """The one or the other."""
    return a if condition else b


_FORMS: dict[str, Any] = {name: getattr(lanes, name) for name in vars(groups) if hasattr(lanes, name)}
_FORMS |= {"first_lane": simd.first_lane, "misses": misses, "exponential": exponential, "chosen": chosen}
"""What compiled code calls by a name."""


def _with_forms(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose names are those of `_FORMS`."""
    return FunctionType(function.__code__, {**function.__globals__, **_FORMS}, function.__name__)


def _compiled(function: Callable[..., Any], how: Callable[..., Any] = stage) -> Any:
    if not JIT_DISABLED:
        _FORMS[function.__name__] = how(_with_forms(function))
        return _FORMS[function.__name__]
    return function


group_of = _compiled(operator.group_of, inlined)
tilted = _compiled(operator.tilted)
add_logs = _compiled(operator.add_logs)
compare = _compiled(operator.compare)


def _let_kernels_call(name: str, example: Callable[..., Any]) -> None:
    """Let kernels call a method of an operator: that of its type."""

    def own(operator: Any, *given: Any) -> Callable[..., Any] | None:
        method = getattr(operator.instance_class, name, None)
        return None if method is None else _with_forms(method)

    own.__signature__ = inspect.signature(example)  # type: ignore[attr-defined]  # which arguments numba passes
    overload_method(types.BaseNamedTuple, name, strict=False, jit_options=NO_COUNTING)(own)


for _name, _method in {**vars(Operator), **vars(Pool)}.items():
    if inspect.isfunction(_method) and not _name.startswith("_"):
        _let_kernels_call(_name, _method)
