"""Negative log-likelihood, its gradient and its Hessian at several places; confidence in bins. In fixed point.

With the gaps d_k = max(delta * z) - delta * z_k >= 0 of a unit of class y, x_k = a d_k, features v_k and biases b_k,

    theta_k = b_k - x_k,   S = sum_k exp(theta_k - max theta),   p_k = exp(theta_k - max theta) / S
    NLL = x_y - b_y + (max theta + log S)

whose derivatives by log a and by the factor of v follow from the means, variances and covariance of x and v under p.
So only d_y can be large, and it is the same at every place: all else is bounded by the biases and log K. Eight units
go at a time (`unoic_cli.kernels.eights`).
"""

from __future__ import annotations

from math import ceil, exp, inf
from math import log as scalar_log
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from unoic_cli.kernels import eights, plain
from unoic_cli.kernels.constants import (
    COVARIANCE,
    FIXED_POINT,
    FLUSH,
    GAP_END,
    GONE,
    HALF,
    LEAST,
    LOG_SUM,
    MAGIC,
    MAGIC_BITS,
    MEAN_V,
    MEAN_X,
    N_MOMENTS,
    STEP,
    VAR_V,
    VAR_X,
)
from unoic_cli.kernels.eights import F64, I64, WIDTH, constant, data_of, fetch, gather, load_row, splat, store_row, word
from unoic_cli.kernels.jit import inlined, kernel
from unoic_cli.kernels.simd import operation
from unoic_cli.kernels.tile import bad_score, factor, score64, unit_source

_TIER_END, _TIER_FACTOR = 2.0**9, 2.0**STEP
_FAR = 80.0
_FLOAT32_END = 3.4028235677973366e38  # rounds to infinity in float32


@inlined
def find_gaps(
    raw: Any, brain: bool, allow_zero: bool, source: int, step: int, delta: Any, bias: Any, unit: int, label: int,
    n_classes: int, gaps: Any,
) -> Any:  # fmt: skip
    """Gaps of a unit's classes of positive probability, in the order of the classes, into `gaps`.

    `bias` (K,), or empty, is added to delta * z. Returns (how many, winner, gap of the label); no winner (-1) when the
    unit is not valid, and an infinite gap of a label of probability zero.
    """
    top, winner = -np.inf, -1
    for k in range(n_classes):
        z = score64(raw, brain, source + k * step, delta, unit)
        if z <= -_FLOAT32_END and allow_zero:
            z = -np.inf
        if bad_score(z, allow_zero) or z >= _FLOAT32_END or -_FLOAT32_END >= z > -np.inf:
            return 0, -1, 0.0
        if bias.size:
            z += bias[k]
        gaps[k] = z
        if z > top:
            top, winner = z, k
    own = top - gaps[label] if winner >= 0 and label >= 0 else 0.0
    n = 0
    for k in range(n_classes):
        z = gaps[k]
        if z > -np.inf:
            gaps[n] = top - z
            n += 1
    return n, winner, own


@inlined
def tier_of(gap: float) -> Any:
    """The tier of a gap, and the gap in its units."""
    tier, end, scale = 0, _TIER_END, FIXED_POINT
    while gap >= end:
        tier, end, scale = tier + 1, end * _TIER_FACTOR, scale / _TIER_FACTOR
    return tier, np.int64(gap * scale + 0.5)


@inlined
def add_halves(value: int, sums: Any, place: int) -> None:
    """Add an integer >= 0 to the sum at a place, which is kept in two parts."""
    sums[2 * place] += value & ((1 << HALF) - 1)
    sums[2 * place + 1] += value >> HALF


@inlined
def fixed(value: float) -> Any:
    """A number >= 0 in units of 2**-40."""
    return np.int64(value * FIXED_POINT + 0.5)


@inlined
def bin_of(confidence: float, n_bins: int) -> int:
    """Which bin (i / M, (i + 1) / M] holds a confidence."""
    return int(min(max(ceil(confidence * n_bins) - 1, 0), n_bins - 1))


def _type_gaps(typingctx: Any, tile: Any, n_classes: Any, hidden: Any, allow_zero: Any) -> Any:
    return types.int64(tile, types.int64, hidden, types.boolean), _build_gaps


def _build_gaps(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    data, hidden = (data_of(context, builder, sig, args, i) for i in (0, 2))
    zeros_allowed = splat(builder, ir.IntType(1), args[3])
    factors = load_row(builder, data, args[1], F64)
    lowest = constant(F64, -inf)
    top = cgutils.alloca_once_value(builder, lowest)
    wrong = cgutils.alloca_once_value(builder, constant(ir.IntType(1), 0))
    with cgutils.for_range(builder, args[1]) as loop:
        z = builder.fmul(load_row(builder, data, loop.index, F64), factors)
        below = builder.fcmp_ordered("<=", z, constant(F64, -_FLOAT32_END))
        above = builder.fcmp_unordered(">=", z, constant(F64, _FLOAT32_END))
        bad = builder.or_(above, builder.and_(below, builder.not_(zeros_allowed)))
        builder.store(builder.or_(builder.load(wrong), bad), wrong)
        z = builder.select(below, lowest, z)
        z = builder.fsub(z, splat(builder, F64, builder.load(builder.gep(hidden, [loop.index]))))
        store_row(builder, data, loop.index, F64, z)
        old = builder.load(top)
        builder.store(builder.select(builder.fcmp_ordered(">", z, old), z, old), top)
    best = builder.load(top)
    with cgutils.for_range(builder, args[1]) as loop:
        gap = builder.fsub(best, load_row(builder, data, loop.index, F64))
        near = builder.fcmp_ordered("<", gap, constant(F64, GONE))
        store_row(builder, data, loop.index, F64, builder.select(near, gap, constant(F64, GONE)))
    bad = builder.or_(builder.load(wrong), builder.fcmp_ordered("==", best, lowest))
    return builder.zext(builder.bitcast(bad, ir.IntType(WIDTH)), I64)


def _plain_gaps(tile: Any, n_classes: int, hidden: Any, allow_zero: bool) -> int:
    rows = tile[: (n_classes + 1) * WIDTH].reshape(n_classes + 1, WIDTH)
    with np.errstate(invalid="ignore", over="ignore"):
        bad = plain.make_gaps((rows[:-1] * rows[-1]).T, hidden, allow_zero)
    rows[:-1] = bad[0].T
    return int((bad[1] << np.arange(WIDTH)).sum())


make_gaps = operation(_type_gaps, _plain_gaps)
"""make_gaps(tile, n_classes, hidden, allow_zero): stored scores of eight units, in rows 0 .. K - 1 of a tile, become
gaps; their factors are in row K, and `hidden` (K,) is inf for classes that are left out, else 0. Bit i of the result
is set when unit i is not valid."""


def _type_moments(
    typingctx: Any, tile: Any, n_classes: Any, points: Any, j: Any, biases: Any, feature: Any, keep: Any, sums: Any
) -> Any:
    return types.void(tile, types.int64, points, types.int64, biases, feature, keep, sums), _build_moments


def _build_moments(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    n, j = args[1], args[3]
    tile, points, biases, feature, keep, sums = (data_of(context, builder, sig, args, i) for i in (0, 2, 4, 5, 6, 7))

    def at(data: Any, place: Any) -> Any:
        return splat(builder, F64, builder.load(builder.gep(data, [place])))

    def point(i: int) -> Any:
        return at(points, builder.add(builder.mul(j, ir.Constant(I64, 3)), ir.Constant(I64, i)))

    def fixed(value: Any, scale: Any) -> Any:
        moved = builder.fadd(builder.fmul(value, scale), constant(F64, MAGIC))
        return builder.sub(builder.bitcast(moved, eights.vector(I64)), constant(I64, MAGIC_BITS))

    def spare(k: Any) -> Any:
        return builder.add(k, builder.add(n, ir.Constant(I64, 3)))

    a, first_bias = point(0), builder.mul(j, n)
    top = cgutils.alloca_once_value(builder, constant(F64, -inf))
    winner = cgutils.alloca_once_value(builder, constant(I64, 0))
    with cgutils.for_range(builder, n) as loop:
        bias = at(biases, builder.add(first_bias, loop.index))
        theta = builder.fsub(bias, builder.fmul(a, load_row(builder, tile, loop.index, F64)))
        store_row(builder, tile, spare(loop.index), F64, theta)
        old = builder.load(top)
        larger = builder.fcmp_ordered(">", theta, old)
        builder.store(builder.select(larger, theta, old), top)
        builder.store(builder.select(larger, splat(builder, I64, loop.index), builder.load(winner)), winner)
    best = builder.load(top)
    total, x1, x2, v1, v2, xv = (cgutils.alloca_once_value(builder, constant(F64, 0.0)) for _ in range(6))

    def add(place: Any, value: Any) -> None:
        builder.store(builder.fadd(builder.load(place), value), place)

    with cgutils.for_range(builder, n) as loop:
        below = builder.fsub(load_row(builder, tile, spare(loop.index), F64), best)
        near = builder.fcmp_ordered(">", below, constant(F64, LEAST))
        weight = eights.exp(builder, builder.select(near, below, constant(F64, LEAST)))
        store_row(builder, tile, spare(loop.index), F64, builder.select(near, weight, constant(F64, 0.0)))
    with cgutils.for_range(builder, n) as loop:
        v, weight = at(feature, loop.index), load_row(builder, tile, spare(loop.index), F64)
        x = builder.fmul(a, load_row(builder, tile, loop.index, F64))
        heavy, seen = builder.fmul(weight, x), builder.fmul(weight, v)
        add(total, weight)
        add(x1, heavy)
        add(x2, builder.fmul(heavy, x))
        add(v1, seen)
        add(v2, builder.fmul(seen, v))
        add(xv, builder.fmul(heavy, v))
    s = builder.load(total)
    share = builder.fdiv(constant(F64, 1.0), s)
    mean_x, mean_v = (builder.fmul(builder.load(one), share) for one in (x1, v1))

    def spread(products: Any, one: Any, other: Any) -> Any:
        return builder.fsub(builder.fmul(builder.load(products), share), builder.fmul(one, other))

    scale, squared, unit = point(1), point(2), constant(F64, FIXED_POINT)
    found = {
        LOG_SUM: fixed(builder.fadd(best, eights.log(builder, s)), scale),
        MEAN_X: fixed(mean_x, scale),
        MEAN_V: fixed(mean_v, unit),
        VAR_X: fixed(spread(x2, mean_x, mean_x), squared),
        COVARIANCE: fixed(spread(xv, mean_x, mean_v), scale),
        VAR_V: fixed(spread(v2, mean_v, mean_v), unit),
    }
    kept, first = load_row(builder, keep, ir.Constant(I64, 0), I64), builder.mul(j, ir.Constant(I64, N_MOMENTS))
    for i, values in found.items():
        row = builder.add(first, ir.Constant(I64, i))
        store_row(builder, sums, row, I64, builder.add(load_row(builder, sums, row, I64), builder.and_(values, kept)))
    store_row(builder, tile, builder.add(n, ir.Constant(I64, 1)), F64, share)
    store_row(builder, tile, builder.add(n, ir.Constant(I64, 2)), I64, builder.load(winner))
    return context.get_dummy_value()


def _plain_moments(
    tile: Any, n_classes: int, points: Any, j: int, biases: Any, feature: Any, keep: Any, sums: Any
) -> None:
    rows = tile[: (n_classes + 3) * WIDTH].reshape(n_classes + 3, WIDTH)
    bias = biases[j * n_classes : (j + 1) * n_classes]
    seen = plain.moments(rows[:n_classes].T, points[3 * j : 3 * j + 3], bias, feature)
    first = j * N_MOMENTS * WIDTH
    sums[first : first + N_MOMENTS * WIDTH].reshape(N_MOMENTS, WIDTH)[...] += np.array(seen.sums) & keep
    rows[n_classes + 1], rows.view(np.int64)[n_classes + 2] = seen.confidence, seen.winner


add_moments = operation(_type_moments, _plain_moments)
"""add_moments(tile, n_classes, points, j, biases, feature, keep, sums): what eight units say at place j, in fixed
point, added to rows of `sums` where the lanes of `keep` are -1, not 0; their largest probability to row K + 1 of
the tile, and the class that has it, as an integer, to row K + 2."""


@inlined
def flush(lanes: Any, sums: Any) -> None:
    """Add rows of eight integers to sums that are kept in two parts, the lower one below 2**24, and empty them."""
    for i in range(lanes.size // WIDTH):
        for lane in range(i * WIDTH, (i + 1) * WIDTH):
            add_halves(lanes[lane], sums, i)
            lanes[lane] = 0
        sums[2 * i + 1] += sums[2 * i] >> HALF
        sums[2 * i] &= (1 << HALF) - 1


@kernel
def sum_likelihood(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, delta: Any, labels: Any, n_classes: int, points: Any,
    biases: Any, feature: Any, hidden: Any, n_bins: int, tile: Any, keep: Any, lanes: Any, away: Any, sums: Any,
    counts: Any, hits: Any, confidences: Any,
) -> int:  # fmt: skip
    """Likelihood and its derivatives at places (a_j, b_j), and the largest probability against accuracy there.

    Parameters
    ----------
    raw, brain, allow_zero, pixels, delta
        As in `unoic_cli.kernels.posterior.sum_posterior`.
    labels : (T,) int32
        Units with a negative label are only checked.
    n_classes : int
        K.
    points : (J * 3,) float64
        a_j > 0; the scale of numbers whose size is that of x; the scale of its squares.
    biases : (J * K,) float64
        b_j, finite.
    feature : (K,) float64
        v, in [0, 1].
    hidden : (K,) float64
        inf for classes that are left out, which no label may be; else 0.
    n_bins : int
        M: bin i holds confidences in (i / M, (i + 1) / M].
    tile, keep, lanes : ((2 * K + 3) * 8,) float64, (8,) int64, (J * N_MOMENTS * 8,) int64
        Scratch; the last is zero, and left so unless a unit is refused.
    away : (N_TIERS * 2,) int64
        Sums of the label's gap, in two parts and in the units of each tier; added to in place, as are all that follow.
    sums : (J * N_MOMENTS * 2,) int64
        In two parts, in units of the scales, and of 2**-40 for what is of v alone.
    counts, hits : (B * M,) int64
        Units, and units whose most probable class is the label, by confidence, at the first B places.
    confidences : (B * M * 2,) int64
        Sums of the confidence, in two parts, in units of 2**-40.

    Returns
    -------
    int
        -1; or the first unit whose scores are not valid; or -2 - u when the label of unit u has probability zero.
    """
    n_units, n_points = labels.size, points.size // 3
    run = pixels if pixels else n_units
    across, step = (1, pixels) if pixels else (n_classes, 1)
    since = 0
    for begin in range(0, n_units, max(run, 1)):
        for first in range(begin, begin + run, WIDTH):
            n = min(WIDTH, begin + run - first)
            source, _ = unit_source(first, n_classes, pixels)
            for k in range(n_classes):
                if across == 1 and n == WIDTH:
                    fetch(raw, brain, source + k * step, tile, k)
                else:
                    gather(raw, brain, source + k * step, across, n, tile, k)
            for i in range(WIDTH):
                tile[n_classes * WIDTH + i] = factor(delta, first + min(i, n - 1)) if delta.size else 1.0
            bad = make_gaps(tile, n_classes, hidden, allow_zero)
            for i in range(WIDTH):
                keep[i] = 0
                if i < n:
                    if (bad >> i) & 1:
                        return first + i
                    label = labels[first + i]
                    if label >= 0:
                        keep[i] = -1
                        own = tile[label * WIDTH + i]
                        if not own < GAP_END:
                            return -2 - (first + i)
                        tier, value = tier_of(own)
                        add_halves(value, away, tier)
            for j in range(n_points):
                add_moments(tile, n_classes, points, j, biases, feature, keep, lanes)
                if j * n_bins < counts.size:
                    for i in range(n):
                        if keep[i]:
                            confidence = tile[(n_classes + 1) * WIDTH + i]
                            place = j * n_bins + bin_of(confidence, n_bins)
                            counts[place] += 1
                            hits[place] += np.int64(word(tile, (n_classes + 2) * WIDTH + i) == labels[first + i])
                            add_halves(fixed(confidence), confidences, place)
            since += 1
            if since == FLUSH:
                flush(lanes, sums)
                since = 0
    flush(lanes, sums)
    return -1


@kernel
def sum_confidence(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, delta: Any, labels: Any, tables: Any, n_classes: int,
    bias: Any, betas: Any, n_bins: int, strict: bool, gaps: Any, support: Any, zeros: Any, away: Any, logs: Any,
    squares: Any, counts: Any, hits: Any, confidences: Any,
) -> int:  # fmt: skip
    """Likelihood, Brier score and top-1 confidence of softmax(beta * (delta * z + bias)) at some betas.

    Parameters
    ----------
    raw, brain, allow_zero, pixels, delta
        As in `unoic_cli.kernels.posterior.sum_posterior`.
    labels : (T,) int32
        Units with a negative label are only checked.
    tables : (T,) int32
        Which of F tables each unit is counted in.
    n_classes : int
        K.
    bias : (K,) or (0,) float64
        lambda * s, and -inf of masked classes; empty for none.
    betas : (B,) float64
        Positive.
    n_bins : int
        M: bin i holds confidences in (i / M, (i + 1) / M].
    strict : bool
        Whether a label of probability zero ends it.
    gaps : (K,) float64
        Scratch.
    support : (F * K,) or (0,) int64
        Units of each class, added to in place, as are all that follow; empty where they are counted already.
    zeros : (F * K,) int64
        Those whose own class has probability zero: they have no likelihood.
    away : (N_TIERS * F * K * 2,) int64
        Sums of the label's gap by class, in two parts and in the units of each tier.
    logs : (B * F * K * 2,) int64
        Sums of log S by class, in two parts, in units of 2**-40 (as all that follow).
    squares : (B * F * 2,) int64
        Sums of sum_k (p_k - [k = label])**2, in two parts.
    counts, hits : (B * F * M,) int64
        Units, and units whose class of the largest score is the label, by confidence.
    confidences : (B * F * M * 2,) int64
        Sums of the confidence, in two parts.

    Returns
    -------
    int
        -1; or the first unit whose scores are not valid; or, if `strict`, -2 - u when the label of unit u has
        probability zero.
    """
    cells = zeros.size
    n_tables = cells // n_classes
    for unit in range(labels.size):
        label = labels[unit]
        source, step = unit_source(unit, n_classes, pixels)
        n, winner, own = find_gaps(raw, brain, allow_zero, source, step, delta, bias, unit, label, n_classes, gaps)
        if winner < 0:
            return unit
        if label < 0:
            continue
        if strict and not own < np.inf:
            return -2 - unit
        table = np.int64(tables[unit])
        cell = table * n_classes + label
        if support.size:
            support[cell] += 1
        seen = own < GAP_END
        if seen:
            tier, value = tier_of(own)
            add_halves(value, away, tier * cells + cell)
        else:
            zeros[cell] += 1
        for i in range(betas.size):
            total, square = 0.0, 0.0
            for k in range(n):
                x = betas[i] * gaps[k]
                if x < _FAR:
                    weight = exp(-x)
                    total += weight
                    square += weight * weight
            confidence = 1.0 / total
            x = betas[i] * own
            truth = exp(-x) / total if x < _FAR else 0.0
            place = (i * n_tables + table) * n_bins + bin_of(confidence, n_bins)
            if seen:
                add_halves(fixed(scalar_log(total)), logs, i * cells + cell)
            add_halves(fixed(max(square / total / total - 2.0 * truth + 1.0, 0.0)), squares, i * n_tables + table)
            counts[place] += 1
            hits[place] += np.int64(winner == label)
            add_halves(fixed(confidence), confidences, place)
    return -1
