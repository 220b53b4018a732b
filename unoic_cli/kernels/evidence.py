"""What rows of scores look like: all equal, or probabilities; and whether winners and labels go together."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np

from unoic_cli.kernels.constants import (
    AS_IS,
    CLOSER,
    DOWN,
    EQUAL,
    EXP_ONE,
    FIRST_EQUAL,
    FIRST_OUTSIDE,
    FIRST_SUM,
    INSIDE,
    LABELLED,
    ONE,
    ROWS,
    UP,
)
from unoic_cli.kernels.jit import inlined, kernel
from unoic_cli.kernels.tile import stored, unit_source


@inlined
def _is_equal(raw: Any, source: int, step: int, n_classes: int, zeros: bool) -> bool:
    value = raw[source]
    if zeros and value != 0:
        return False
    k = 1
    while k < n_classes and raw[source + k * step] == value:
        k += 1
    return k == n_classes


@inlined
def _is_inside(raw: Any, source: int, step: int, n_classes: int, limit: Any) -> bool:
    k = 0
    while k < n_classes and raw[source + k * step] >= 0 and raw[source + k * step] <= limit:
        k += 1
    return k == n_classes


@inlined
def _look_closer(
    raw: Any, brain: bool, source: int, step: int, n_classes: int, label: Any, tolerance: float, counted: Any
) -> None:
    """The winner beside the label, and the sum of the exponentials."""
    winner, top, total = 0, -np.inf, 0.0
    for k in range(n_classes):
        z = stored(raw, brain, source + k * step)
        if tolerance >= 0:
            total += exp(z)
        if z > top:
            winner, top = k, z
    counted[CLOSER] += 1
    counted[EXP_ONE] += np.int64(abs(total - 1.0) <= tolerance)
    if label >= 0:
        counted[LABELLED] += 1
        counted[AS_IS] += np.int64(winner == label)
        counted[DOWN] += np.int64(winner == label - 1)
        counted[UP] += np.int64(winner == label + 1)


@kernel
def look_at_rows(
    raw: Any, brain: bool, pixels: int, units: Any, places: Any, labels: Any, n_classes: int, limit: Any, zeros: bool,
    tolerances: Any, closer: int, counted: Any,
) -> None:  # fmt: skip
    """Count some rows of a block by what they look like; a row is left as soon as it is known to be nothing special.

    Parameters
    ----------
    raw : (T * K,) uint16, float32 or float64
        Scores as stored, in the order of the layout.
    brain : bool
        uint16 holds bfloat16 bits, not float16.
    pixels : int
        P of a `planes` block (B, K, P); 0 for a `rows` block.
    units, places : (U,) int64
        The rows to look at, in the block and in their source.
    labels : (T,) int32, or (0,)
        Of all rows of the block; -1 where there is none.
    n_classes : int
        K.
    limit : scalar of the type of `raw`
        The largest probability, rounding allowed for; bits where `raw` holds bits.
    zeros : bool
        Of rows of equal scores, count those of zeros alone.
    tolerances : (float, float)
        How far probabilities, and exponentials of log-probabilities, may sum from 1; negative: not of interest.
    closer : int
        Rows whose place is a multiple of it are looked at more closely.
    counted : (13,) int64
        Added to in place, see `unoic_cli.kernels.constants`.
    """
    for i in range(units.size):
        source, step = unit_source(units[i], n_classes, pixels)
        counted[ROWS] += 1
        if places[i] % closer == 0:
            label = np.int64(labels[units[i]]) if labels.size else np.int64(-1)
            _look_closer(raw, brain, source, step, n_classes, label, tolerances[1], counted)
        if raw[source] == raw[source + step] and _is_equal(raw, source, step, n_classes, zeros):
            counted[EQUAL] += 1
            if counted[FIRST_EQUAL] < 0:
                counted[FIRST_EQUAL] = places[i]
        if not _is_inside(raw, source, step, n_classes, limit):
            if counted[FIRST_OUTSIDE] < 0:
                counted[FIRST_OUTSIDE] = places[i]
            continue
        counted[INSIDE] += 1
        total = 0.0
        for k in range(n_classes):
            total += stored(raw, brain, source + k * step)
        if abs(total - 1.0) <= tolerances[0]:
            counted[ONE] += 1
        elif counted[FIRST_SUM] < 0:
            counted[FIRST_SUM] = places[i]
