"""How fast this machine counts scores that are in memory, by numpy and by compiled kernels."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from unoic_cli import kernels
from unoic_cli.api.functions import command
from unoic_cli.api.warming import Form, is_kept
from unoic_cli.commands.doctor import Speed
from unoic_cli.commands.evaluate import evaluate

CLASSES = 10
UNITS = {kernels.PLAIN: 60_000, kernels.COMPILED: 600_000}
"""So that each takes a few hundredths of a second."""


def measure() -> Speed:
    """Count made-up scores: by numpy, and by compiled kernels if those are kept, as compiling takes seconds."""
    forced = kernels.forced()
    plain = None if forced == kernels.COMPILED else _rate(kernels.PLAIN)
    return Speed(plain, None if forced == kernels.PLAIN or not _are_kept() else _rate(kernels.COMPILED))


def _count(n_units: int) -> float:
    """Count scores of `CLASSES` classes (float32), as ``unoic evaluate`` does; MB/s of the best of three times."""
    rng = np.random.default_rng(0)
    scores, labels = rng.random((n_units, CLASSES), "f4"), rng.integers(0, CLASSES, n_units)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        command(evaluate)(scores, labels)
        best = min(best, time.perf_counter() - started)
    return scores.nbytes / 1e6 / best


def _rate(form: str) -> float | None:
    """What is measured with one form of the kernels; None where it fails."""
    with contextlib.suppress(Exception), _only(form):
        return float(f"{_count(UNITS[form]):.3g}")
    return None


@contextlib.contextmanager
def _only(form: str) -> Iterator[None]:
    """Have kernels of one form."""
    before = os.environ.get("UNOIC_KERNELS")
    os.environ["UNOIC_KERNELS"] = form
    try:
        yield
    finally:
        if before is None:
            del os.environ["UNOIC_KERNELS"]
        else:
            os.environ["UNOIC_KERNELS"] = before


def _are_kept() -> bool:
    """Whether all kernels that `_count` calls are compiled already."""
    found: list[Form] = []

    def hear(name: str, given: tuple[Any, ...]) -> None:
        function: Any = getattr(kernels, name).compiled()
        found.append(Form(name, tuple(map(function.typeof_pyval, given))))

    try:
        with kernels.overheard(hear):
            _count(64)
        return all(map(is_kept, found))
    except Exception:  # numba is missing, or nothing is compiled
        return False
