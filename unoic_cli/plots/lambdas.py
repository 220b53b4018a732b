"""Lambdas as they are typed, and which of a curve a picture shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calibrations.calibration import check_lambda
from unoic_cli.errors import UsageError
from unoic_cli.plots.results import SearchRun

MOST_LAMBDAS = 20
USUAL = (0.0, 2.0)
"""What is shown where nobody asks, if the curve reaches so far."""


def number(value: Any, option: str) -> float:
    """A finite number that was typed, or given.

    Raises
    ------
    UsageError
        It is none.

    Examples
    --------
    >>> number("0.5", "--lambda")
    0.5
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(option, f"{value!r}", "expected a number") from None
    if not math.isfinite(found):
        raise UsageError(option, f"{value}", "expected a finite number")
    return found


def lambdas(given: Any, default: Sequence[float]) -> tuple[float, ...]:
    """Lambdas that were asked for, each once, in order.

    Raises
    ------
    UsageError
        One is no number, or there are too many to be told apart.

    Examples
    --------
    >>> lambdas(["1", "0.5", "1"], [0]), lambdas(None, [0])
    ((0.5, 1.0), (0.0,))
    """
    asked = [given] if isinstance(given, (str, int, float)) else given
    found = sorted({number(one, "--lambda") for one in (default if asked is None or not len(asked) else asked)})
    for one in found:
        check_lambda(one, "--lambda")
    if len(found) > MOST_LAMBDAS:
        raise UsageError("--lambda", f"{len(found)} lambdas", f"expected {MOST_LAMBDAS} at most, to be told apart")
    return tuple(found)


def shown_range(runs: Iterable[SearchRun], given: Any) -> tuple[float, float]:
    """First and last lambda that a picture shows.

    Parameters
    ----------
    runs : iterable of SearchRun
    given : str, (float, float) or None
        ``A:B``. By default 0:2 and the chosen lambdas with those that are as good, as far as the curves go.

    Raises
    ------
    UsageError
        No range, or one without two lambdas of each curve.
    """
    runs = list(runs)
    ends = _usual(runs) if given is None else _parsed(given)
    for run in runs:
        if inside(run, ends).sum() < 2:
            found = f"{ends[0]:g}:{ends[1]:g}, where the curve of {run.where} has no two lambdas"
            raise UsageError("--range", found, f"expected some of {run.lams[0]:g}:{run.lams[-1]:g}")
    return ends


def inside(run: SearchRun, ends: tuple[float, float]) -> NDArray[np.bool_]:
    """Which lambdas of a curve, (G,), are in a range."""
    return np.asarray((run.lams >= ends[0]) & (run.lams <= ends[1]))


def _usual(runs: Sequence[SearchRun]) -> tuple[float, float]:
    wanted = [*USUAL, *(lam for run in runs for lam in (run.lam, *(run.interval or ())))]
    low, high = min(run.lams[0] for run in runs), max(run.lams[-1] for run in runs)
    ends = max(float(low), min(wanted)), min(float(high), max(wanted))
    whole = any(inside(run, ends).sum() < 2 for run in runs)
    return (float(low), float(high)) if whole else ends


def _parsed(given: Any) -> tuple[float, float]:
    parts = given.split(":") if isinstance(given, str) else given
    if not isinstance(parts, (list, tuple)) or len(parts) != 2:
        raise UsageError("--range", f"{given!r}", "expected two lambdas: A:B")
    first, last = (number(part, "--range") for part in parts)
    if first >= last:
        raise UsageError("--range", f"{first:g}:{last:g}", "expected the lower lambda first")
    return first, last
