"""From stored scores to a float32 tile that stays in cache, and to float64 for what float32 cannot settle.

``raw`` is always one flat array as a block holds it: uint16 bits (float16, or bfloat16 when
``brain`` is true), float32 or float64. ``delta`` is float64: empty (scores are used as they are),
one factor, or one per unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from unoic_cli.kernels.columns import turn
from unoic_cli.kernels.jit import NO_COUNTING, inlined, stage
from unoic_cli.kernels.lines import Lines, Workspace
from unoic_cli.kernels.simd import (
    LANES,
    at,
    magnitude,
    plain_bfloat16,
    plain_half,
    put,
    row_ends_bfloat16,
    row_ends_float32,
    row_ends_float64,
    row_ends_half,
    scale,
    widen_bfloat16,
    widen_float32,
    widen_float64,
    widen_half,
)


def widen(raw: Any, brain: bool, i: int, out: Any, o: int) -> None:
    """Sixteen stored scores raw[i:i+16] to float32 in out[o:o+16]."""
    if raw.dtype == np.uint16:
        (widen_bfloat16 if brain else widen_half)(raw, i, out, o)
    else:
        (widen_float32 if raw.dtype == np.float32 else widen_float64)(raw, i, out, o)


@overload(widen, strict=False, jit_options=NO_COUNTING)
def _overload_widen(raw: Any, brain: Any, i: Any, out: Any, o: Any) -> Callable[..., Any]:
    if raw.dtype == types.uint16:

        def from_bits(raw: Any, brain: Any, i: Any, out: Any, o: Any) -> None:
            if brain:
                widen_bfloat16(raw, i, out, o)
            else:
                widen_half(raw, i, out, o)

        return from_bits
    if raw.dtype == types.float32:
        return lambda raw, brain, i, out, o: widen_float32(raw, i, out, o)
    return lambda raw, brain, i, out, o: widen_float64(raw, i, out, o)


def row_ends(raw: Any, brain: bool, *rest: Any) -> Any:
    """`unoic_cli.kernels.simd.row_ends_half`, of whatever is stored."""
    if raw.dtype == np.uint16:
        return (row_ends_bfloat16 if brain else row_ends_half)(raw, *rest)
    return (row_ends_float32 if raw.dtype == np.float32 else row_ends_float64)(raw, *rest)


@overload(row_ends, strict=False, jit_options=NO_COUNTING)
def _overload_row_ends(raw: Any, brain: Any, *rest: Any) -> Callable[..., Any]:
    if raw.dtype == types.uint16:

        def from_bits(raw: Any, brain: Any, *rest: Any) -> Any:
            if brain:
                return row_ends_bfloat16(raw, *rest)
            return row_ends_half(raw, *rest)

        return from_bits
    if raw.dtype == types.float32:
        return lambda raw, brain, *rest: row_ends_float32(raw, *rest)
    return lambda raw, brain, *rest: row_ends_float64(raw, *rest)


def stored(raw: Any, brain: bool, i: int) -> Any:
    """One stored score, as float64 and exactly."""
    value = raw[i : i + 1]
    if raw.dtype == np.uint16:
        value = plain_bfloat16(value) if brain else plain_half(value)
    return np.float64(value[0])


@overload(stored, strict=False, jit_options=NO_COUNTING)
def _overload_stored(raw: Any, brain: Any, i: Any) -> Callable[..., Any]:
    if raw.dtype == types.uint16:

        def from_bits(raw: Any, brain: Any, i: Any) -> Any:
            bits = np.int64(raw[i])
            fraction, exponent, bias = 10, (bits >> 10) & 31, 15
            if brain:
                fraction, exponent, bias = 7, (bits >> 7) & 255, 127
            mantissa = np.float64(bits & ((1 << fraction) - 1))
            if exponent == 2 * bias + 1:
                value = np.inf if mantissa == 0 else np.nan
            elif exponent == 0:
                value = np.ldexp(mantissa, 1 - bias - fraction)
            else:
                value = np.ldexp(mantissa + (1 << fraction), exponent - bias - fraction)
            return -value if bits >> 15 else value

        return from_bits
    return lambda raw, brain, i: np.float64(raw[i])


@inlined
def factor(delta: Any, unit: int) -> Any:
    """The unit's delta; call only when `delta` is not empty."""
    return delta[unit] if delta.size > 1 else delta[0]


@inlined
def score64(raw: Any, brain: bool, i: int, delta: Any, unit: int) -> Any:
    """Delta * z in float64: the number that every decision goes back to."""
    z = stored(raw, brain, i)
    return factor(delta, unit) * z if delta.size else z


@inlined
def fill_rows(raw: Any, brain: bool, first: int, n: int, n_classes: int, delta: Any, tile: Any) -> None:
    """Units first..first+n of a `rows` block to the tile, each padded to whole vectors.

    Padding lanes hold leftovers of the next units: tables mask them as long as they are finite.
    """
    n_vectors = (n_classes + LANES - 1) // LANES
    width = n_vectors * LANES
    source = first * n_classes
    safe = min(n, max(0, (raw.size - width - source) // n_classes + 1))  # whole vectors stay inside raw
    if n_vectors == 1:
        for i in range(safe):
            widen(raw, brain, source + i * n_classes, tile, i * LANES)
    else:
        for i in range(safe):
            for v in range(n_vectors):
                widen(raw, brain, source + i * n_classes + v * LANES, tile, i * width + v * LANES)
    for i in range(safe, n):
        for k in range(n_classes):
            tile[i * width + k] = stored(raw, brain, source + i * n_classes + k)
        for k in range(n_classes, width):
            tile[i * width + k] = 0.0
    if delta.size:
        for i in range(n):
            for v in range(n_vectors):
                scale(tile, i * width + v * LANES, factor(delta, first + i))


@inlined
def unit_source(unit: int, n_classes: int, pixels: int | None) -> Any:
    """Where a unit's scores begin in a block, and how far apart they lie (`pixels` = 0 or None: a `rows` block)."""
    if pixels is None or pixels == 0:
        return unit * n_classes, 1
    return (unit // pixels) * n_classes * pixels + unit % pixels, pixels


@inlined
def after_units(unit: int, n: int, n_classes: int, pixels: int | None) -> Any:
    """Where the scores of what follows n units begin, `unit` and the next."""
    source, _ = unit_source(unit, n_classes, pixels)
    return source + n * n_classes if pixels is None else source + n


@stage
def fill_planes(
    raw: Any, brain: bool, source: int, n: int, n_classes: int, pixels: int, tile: Any, stride: int
) -> None:
    """N pixels of an image, the first at raw[source], to a class-major (K, stride) tile; pads with zeros."""
    whole = n - n % LANES
    for k in range(n_classes):
        place = source + k * pixels
        for t in range(0, whole, LANES):
            widen(raw, brain, place + t, tile, k * stride + t)
        for t in range(whole, n):
            tile[k * stride + t] = stored(raw, brain, place + t)
        for t in range(n, (n + LANES - 1) // LANES * LANES):
            tile[k * stride + t] = 0.0


@stage
def fill_columns(raw: Any, brain: bool, source: int, n: int, n_classes: int, tile: Any, stride: int) -> None:
    """The same of n units of a `rows` block."""
    n_vectors = (n_classes + LANES - 1) // LANES
    for i in range(0, n, LANES):
        place = source + i * n_classes
        if i + LANES <= n and place + (LANES - 1) * n_classes + n_vectors * LANES <= raw.size:
            for v in range(n_vectors):
                k = v * LANES
                turn(raw, brain, place + k, n_classes, n_classes - k, tile, k * stride + i, stride)
        else:
            last = min(LANES, n - i)
            for k in range(n_classes):
                for t in range(last):
                    tile[k * stride + i + t] = stored(raw, brain, place + t * n_classes + k)
                for t in range(last, LANES):
                    tile[k * stride + i + t] = 0.0


@stage
def flatten_columns(tile: Any, n: int, n_classes: int, stride: int, delta: Any, unit: int) -> None:
    """Columns times the factors of their units, of which `unit` is the first."""
    if delta.size == 1:
        times = np.float32(at(delta, 0))
        for k in range(n_classes):
            for t in range(n):
                put(tile, k * stride + t, at(tile, k * stride + t) * times)
    else:
        for k in range(n_classes):
            for t in range(n):
                put(tile, k * stride + t, at(tile, k * stride + t) * np.float32(at(delta, unit + t)))


@inlined
def fill_tile(
    raw: Any, brain: bool, unit: int, n: int, n_classes: int, pixels: int | None, delta: Any, tile: Any, stride: int
) -> None:
    """Delta * z of n units, `unit` and the next (of one image, where there are images), to a class-major tile."""
    source, _ = unit_source(unit, n_classes, pixels)
    if pixels is None:
        fill_columns(raw, brain, source, n, n_classes, tile, stride)
    else:
        fill_planes(raw, brain, source, n, n_classes, pixels, tile, stride)
    if delta.size:
        flatten_columns(tile, n, n_classes, stride, delta, unit)


@inlined
def columns_per_tile(n_classes: int, work: Workspace) -> int:
    """How many units a class-major tile takes."""
    return max(work.tile.size // n_classes // LANES, 1) * LANES


@inlined
def mask_columns(tile: Any, n: int, stride: int, lines: Lines) -> None:
    """Classes that may not be predicted get scores that never lead."""
    for k in range(lines.n_classes):
        if not allowed(lines, k):
            for t in range(n):
                tile[k * stride + t] = -np.inf


@inlined
def bad_score(z: float, allow_zero: bool) -> bool:
    """Whether a score may not be there: NaN, +inf, or (unless it is the log of a zero probability) -inf."""
    return not z < np.inf or (z == -np.inf and not allow_zero)


@inlined
def allowed(lines: Lines, k: int) -> bool:
    """Whether class k may be predicted."""
    return bool((lines.valid[k // LANES] >> (k % LANES)) & 1)


@inlined
def all_allowed(lines: Lines) -> bool:
    """Whether every class may be predicted."""
    every, rest = True, lines.n_classes
    for v in range(lines.n_vectors):
        every &= lines.valid[v] == (1 << min(rest, LANES)) - 1
        rest -= LANES
    return every


@inlined
def mask_row(tile: Any, o: int, lines: Lines) -> None:
    """Classes of the row tile[o:] that may not be predicted get scores that never lead."""
    for k in range(lines.n_classes):
        if not allowed(lines, k):
            tile[o + k] = -np.inf


@inlined
def check_row(tile: Any, o: int, step: int, lines: Lines, allow_zero: bool) -> Any:
    """The largest finite magnitude of one unit's scores tile[o + k * step]; -1 when the unit is not valid.

    A unit whose every class is masked or has probability zero is not: it has no winner.
    """
    largest = np.float32(0.0)
    possible = False
    for k in range(lines.n_classes):
        z = tile[o + k * step]
        if bad_score(z, allow_zero):
            return np.float32(-1.0)
        if z > -np.inf:
            largest = max(largest, abs(z))
            possible = possible or allowed(lines, k)
    return largest if possible else np.float32(-1.0)


@inlined
def clear_padding(tile: Any, n: int, n_classes: int) -> None:
    """Zero the padding of the last rows of a tile, which hold scores of units after it that nobody has checked."""
    width = (n_classes + LANES - 1) // LANES * LANES
    for i in range(max(0, n - LANES), n):
        for k in range(n_classes, width):
            tile[i * width + k] = 0.0


@inlined
def check_rows(tile: Any, n: int, lines: Any, allow_zero: bool) -> Any:
    """Check n rows of the tile: (largest finite magnitude, -1), or (anything, first row that is not valid).

    Looks at single scores only when one of them is not finite; padding that is not finite is then cleared.
    """
    largest = magnitude(tile, n * lines.n_vectors)
    if not largest < np.inf:
        largest = np.float32(0.0)
        for i in range(n):
            one = check_row(tile, i * lines.n_vectors * LANES, 1, lines, allow_zero)
            if one < 0:
                return largest, i
            largest = max(largest, one)
        clear_padding(tile, n, lines.n_classes)
    return largest, -1


@inlined
def check_planes(tile: Any, n: int, stride: int, lines: Any, allow_zero: bool) -> Any:
    """Check n pixels of a class-major (K, stride) tile, as `check_rows`."""
    largest = magnitude(tile, lines.n_classes * stride // LANES)
    if not largest < np.inf:
        largest = np.float32(0.0)
        for i in range(n):
            one = check_row(tile, i, stride, lines, allow_zero)
            if one < 0:
                return largest, i
            largest = max(largest, one)
    return largest, -1
