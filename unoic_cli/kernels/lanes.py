"""Sixteen units at a time, class-major: the vector operations that the fusion kernels are made of.

A *group* is sixteen units: K vectors of sixteen lanes, class after class. As in `unoic_cli.kernels.simd`, each
operation is written as LLVM vector instructions and as plain Python. Every lane is computed by itself, so a unit's
result does not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from unoic_cli.kernels.simd import (
    F32,
    F64,
    I32,
    I64,
    LANES,
    bits_of,
    constant_of,
    greater,
    mask_of,
    operation,
    pointer_to,
    splat,
    swap_blocks,
    vector_of,
)

LOWEST_EXP32 = -87.0
"""Below, float32 exponentials are zero: no denormal numbers, which are slow and coarse."""
LOWEST_EXP64 = -708.0
"""The same for float64."""

_MAGIC32, _MAGIC64 = 1.5 * 2.0**23, 1.5 * 2.0**52
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6
_LOG2_E = 1.4426950408889634


def _load(context: Any, builder: Any, sig: Any, args: Any, i: int, offset: Any, element: Any) -> Any:
    value = builder.load(pointer_to(context, builder, sig, args, i, offset, element))
    value.align = 4 if element is F32 or element is I32 else 8
    return value


def _store(context: Any, builder: Any, sig: Any, args: Any, i: int, offset: Any, element: Any, value: Any) -> None:
    target = pointer_to(context, builder, sig, args, i, offset, element)
    builder.store(value, target).align = 4 if element is F32 or element is I32 else 8


def _lanes(builder: Any, offset: Any, k: Any) -> Any:
    """Offset of the vector of class k."""
    return builder.add(offset, builder.mul(k, ir.Constant(I64, LANES)))


def _less(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _fused(builder: Any, a: Any, b: Any, c: Any, element: Any) -> Any:
    """Multiply and add, a * b + c, with one rounding: the same bits on every processor."""
    name = f"llvm.fma.v{LANES}f{64 if element is F64 else 32}"
    kind = ir.FunctionType(vector_of(element), [vector_of(element)] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _exp(builder: Any, x: Any, element: Any) -> Any:
    """exp(x) for x <= 0: x = n ln 2 + r, a Taylor polynomial of r (relative error 2e-7 or 1e-13), 2**n by its bits."""
    wide = element is F64
    whole = I64 if wide else I32
    lowest = constant_of(element, LOWEST_EXP64 if wide else LOWEST_EXP32)
    magic = constant_of(element, _MAGIC64 if wide else _MAGIC32)
    kept = greater(builder, x, lowest)
    shifted = builder.fadd(builder.fmul(kept, constant_of(element, _LOG2_E)), magic)
    n = builder.fsub(shifted, magic)
    r = _fused(builder, n, constant_of(element, -_LN2_HIGH), kept, element)
    r = _fused(builder, n, constant_of(element, -_LN2_LOW), r, element)
    degree = 11 if wide else 7
    value = constant_of(element, 1.0 / math.factorial(degree))
    for power in range(degree - 1, -1, -1):
        value = _fused(builder, value, r, constant_of(element, 1.0 / math.factorial(power)), element)
    bits = builder.shl(builder.bitcast(shifted, vector_of(whole)), constant_of(whole, 52 if wide else 23))
    value = builder.bitcast(builder.add(builder.bitcast(value, vector_of(whole)), bits), vector_of(element))
    return builder.select(builder.fcmp_ordered(">=", x, lowest), value, constant_of(element, 0.0))


def _log(builder: Any, x: Any) -> Any:
    """log(x) of normal float64 x > 0: exponent and mantissa, and the series of 2 atanh (relative error 1e-15)."""
    bits = builder.bitcast(x, vector_of(I64))
    mantissa = builder.and_(bits, constant_of(I64, (1 << 52) - 1))
    m = builder.bitcast(builder.or_(mantissa, constant_of(I64, 1023 << 52)), vector_of(F64))
    e = builder.sub(builder.lshr(bits, constant_of(I64, 52)), constant_of(I64, 1023))
    large = builder.fcmp_ordered(">", m, constant_of(F64, math.sqrt(2)))
    m = builder.select(large, builder.fmul(m, constant_of(F64, 0.5)), m)
    e = builder.select(large, builder.add(e, constant_of(I64, 1)), e)
    s = builder.fdiv(builder.fsub(m, constant_of(F64, 1.0)), builder.fadd(m, constant_of(F64, 1.0)))
    z = builder.fmul(s, s)
    value = constant_of(F64, 2.0 / 19)
    for odd in range(17, 0, -2):
        value = _fused(builder, value, z, constant_of(F64, 2.0 / odd), F64)
    whole = builder.sitofp(e, vector_of(F64))
    return _fused(builder, whole, constant_of(F64, math.log(2)), builder.fmul(value, s), F64)


def _plain_exp(x: Any) -> Any:
    lowest = LOWEST_EXP32 if x.dtype == np.float32 else LOWEST_EXP64
    return np.where(x >= lowest, np.exp(np.maximum(x, x.dtype.type(lowest))), x.dtype.type(0))


def _group(array: Any, o: int, n_classes: int) -> Any:
    return array[o : o + n_classes * LANES].reshape(n_classes, LANES)


# ---------------------------------------------------------------- softmax of a group, in float32


def _type_soften(typingctx: Any, scores: Any, o: Any, n_classes: Any, out: Any, p: Any) -> Any:
    sig = types.void(scores, types.int64, types.int64, out, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = cgutils.alloca_once_value(builder, constant_of(F64, float("-inf")))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
            builder.store(greater(builder, value, builder.load(top)), top)
        best = builder.load(top)
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
            narrow = builder.fptrunc(builder.fsub(value, best), vector_of(F32))
            place = _lanes(builder, args[4], loop.index)
            _store(context, builder, sig, args, 3, place, F32, _exp(builder, narrow, F32))
        return context.get_dummy_value()

    return sig, codegen


def _plain_soften(scores: Any, o: int, n_classes: int, out: Any, p: int) -> None:
    values = _group(scores, o, n_classes)
    _group(out, p, n_classes)[:] = _plain_exp((values - values.max(0)).astype(np.float32))


soften = operation(_type_soften, _plain_soften)
"""soften(scores, o, n_classes, out, p): exp(scores - their maximum) of a float64 group, as float32."""


def _type_tilt(
    typingctx: Any, e: Any, o: Any, n_classes: Any, table: Any, t: Any, out: Any, p: Any, sums: Any, q: Any
) -> Any:
    whole = types.int64
    sig = types.int64(e, whole, whole, table, whole, out, whole, sums, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = cgutils.alloca_once_value(builder, constant_of(F32, 0.0))
        rest = cgutils.alloca_once_value(builder, constant_of(F32, 0.0))
        table = context.make_array(sig.args[3])(context, builder, args[3]).data
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F32)
            factor = builder.load(builder.gep(table, [builder.add(args[4], loop.index)]))
            value = builder.fmul(value, splat(builder, F32, factor))
            _store(context, builder, sig, args, 5, _lanes(builder, args[6], loop.index), F32, value)
            best = builder.load(top)
            ahead = builder.fcmp_ordered(">", value, best)
            loser = builder.select(ahead, best, value)
            builder.store(builder.fadd(builder.load(rest), loser), rest)
            builder.store(builder.select(ahead, value, best), top)
        _store(context, builder, sig, args, 7, args[8], F32, builder.load(top))
        after = builder.add(args[8], ir.Constant(I64, LANES))
        _store(context, builder, sig, args, 7, after, F32, builder.load(rest))
        return mask_of(builder, builder.fcmp_unordered("<", builder.load(top), constant_of(F32, 1e-20)))

    return sig, codegen


def _plain_tilt(e: Any, o: int, n_classes: int, table: Any, t: int, out: Any, p: int, sums: Any, q: int) -> int:
    values = _group(e, o, n_classes) * table[t : t + n_classes, None]
    _group(out, p, n_classes)[:] = values
    top, rest = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    for value in values:
        rest += np.minimum(value, top)
        top = np.maximum(value, top)
    sums[q : q + LANES], sums[q + LANES : q + 2 * LANES] = top, rest
    return bits_of(top < np.float32(1e-20))


tilt = operation(_type_tilt, _plain_tilt)
"""tilt(e, o, n_classes, table, t, out, p, sums, q): out = e times the K factors table[t:]; into sums[q:] the sixteen
largest and the sixteen sums of all others, accurate however small. Returns the lanes without a sizeable entry."""


def _type_miss(
    typingctx: Any, p: Any, o: Any, n_classes: Any, sums: Any, s: Any, q: Any, u: Any, first: Any, least: Any
) -> Any:
    whole = types.int64
    sig = types.void(p, whole, whole, sums, whole, q, whole, types.boolean, types.boolean)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = _load(context, builder, sig, args, 3, args[4], F32)
        rest = _load(context, builder, sig, args, 3, builder.add(args[4], ir.Constant(I64, LANES)), F32)
        total = builder.fadd(top, rest)
        least, first = (builder.trunc(args[i], ir.IntType(1)) for i in (8, 7))
        inverse = builder.fdiv(constant_of(F32, 1.0), total)
        scale = builder.select(least, inverse, constant_of(F32, 1.0))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F32)
            missed = builder.select(builder.fcmp_ordered("==", value, top), rest, builder.fsub(total, value))
            missed = builder.fmul(missed, scale)
            place = _lanes(builder, args[6], loop.index)
            old = _load(context, builder, sig, args, 5, place, F32)
            both = builder.select(least, _less(builder, missed, old), builder.fmul(missed, old))
            _store(context, builder, sig, args, 5, place, F32, builder.select(first, missed, both))
        return context.get_dummy_value()

    return sig, codegen


def _plain_miss(p: Any, o: int, n_classes: int, sums: Any, s: int, q: Any, u: int, first: bool, least: bool) -> None:
    values, out = _group(p, o, n_classes), _group(q, u, n_classes)
    top, rest = sums[s : s + LANES], sums[s + LANES : s + 2 * LANES]
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.where(values == top, rest, top + rest - values) * (1 / (top + rest) if least else np.float32(1))
    out[:] = missed if first else (np.minimum(missed, out) if least else missed * out)


miss = operation(_type_miss, _plain_miss)
"""miss(p, o, n_classes, sums, s, q, u, first, least): Z (1 - P) of one expert, 1 - P of its largest class as the sum of
the others; multiplied into q (or stored there, `first`). With `least`, q becomes the smaller of q and 1 - P."""


def _type_share(
    typingctx: Any, p: Any, o: Any, n_classes: Any, sums: Any, s: Any, weight: Any, q: Any, u: Any, first: Any
) -> Any:
    whole = types.int64
    sig = types.void(p, whole, whole, sums, whole, types.float32, q, whole, types.boolean)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = _load(context, builder, sig, args, 3, args[4], F32)
        rest = _load(context, builder, sig, args, 3, builder.add(args[4], ir.Constant(I64, LANES)), F32)
        first = builder.trunc(args[8], ir.IntType(1))
        scale = builder.fdiv(splat(builder, F32, args[5]), builder.fadd(top, rest))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F32)
            place = _lanes(builder, args[7], loop.index)
            old = _load(context, builder, sig, args, 6, place, F32)
            old = builder.select(first, constant_of(F32, 0.0), old)
            _store(context, builder, sig, args, 6, place, F32, builder.fsub(old, builder.fmul(value, scale)))
        return context.get_dummy_value()

    return sig, codegen


def _plain_share(p: Any, o: int, n_classes: int, sums: Any, s: int, weight: float, q: Any, u: int, first: bool) -> None:
    out = _group(q, u, n_classes)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.float32(weight) / (sums[s : s + LANES] + sums[s + LANES : s + 2 * LANES])
        out[:] = (0 if first else out) - _group(p, o, n_classes) * scale


share = operation(_type_share, _plain_share)
"""share(p, o, n_classes, sums, s, weight, q, u, first): subtract weight * P of one expert from q (0 at the first)."""


def _type_least(typingctx: Any, q: Any, u: Any, n_classes: Any, margin: Any, tiny: Any, winners: Any, w: Any) -> Any:
    whole, real = types.int64, types.float32
    sig = types.int64(q, whole, whole, real, real, winners, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        best = cgutils.alloca_once_value(builder, constant_of(F32, float("inf")))
        second = cgutils.alloca_once_value(builder, constant_of(F32, float("inf")))
        winner = cgutils.alloca_once_value(builder, constant_of(I32, 0))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F32)
            old = builder.load(best)
            ahead = builder.fcmp_ordered("<", value, old)
            loser = builder.select(ahead, old, value)
            builder.store(_less(builder, loser, builder.load(second)), second)
            builder.store(builder.select(ahead, value, old), best)
            k = splat(builder, I32, builder.trunc(loop.index, I32))
            builder.store(builder.select(ahead, k, builder.load(winner)), winner)
        first, other = builder.load(best), builder.load(second)
        minus = constant_of(F32, 0.0)
        size = greater(builder, builder.fsub(minus, first), builder.fsub(minus, other))
        size = greater(builder, size, greater(builder, first, other))
        needed = builder.fmul(size, splat(builder, F32, args[3]))
        needed = builder.fadd(needed, splat(builder, F32, args[4]))
        _store(context, builder, sig, args, 5, args[6], I32, builder.load(winner))
        return mask_of(builder, builder.fcmp_unordered("<=", builder.fsub(other, first), needed))

    return sig, codegen


def _plain_least(q: Any, u: int, n_classes: int, margin: float, tiny: float, winners: Any, w: int) -> int:
    values = _group(q, u, n_classes)
    winners[w : w + LANES] = values.argmin(0)
    ordered = np.sort(values, axis=0)
    with np.errstate(invalid="ignore"):
        needed = np.maximum(np.abs(ordered[0]), np.abs(ordered[1])) * np.float32(margin) + np.float32(tiny)
        return bits_of(~(ordered[1] - ordered[0] > needed))


least = operation(_type_least, _plain_least)
"""least(q, u, n_classes, margin, tiny, winners, w): the class of the smallest q into winners[w:w+16] (int32). Returns
the lanes where the second is not ahead by `margin` times the larger magnitude, and `tiny`."""


def _type_pair(
    typingctx: Any, p: Any, o: Any, q: Any, n_classes: Any, sums: Any, margin: Any, tiny: Any, winners: Any, w: Any
) -> Any:
    whole, real = types.int64, types.float32
    sig = types.int64(p, whole, whole, whole, sums, real, real, winners, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tops, rests, totals = [], [], []
        for m in range(2):
            tops.append(_load(context, builder, sig, args, 4, ir.Constant(I64, 2 * m * LANES), F32))
            rests.append(_load(context, builder, sig, args, 4, ir.Constant(I64, (2 * m + 1) * LANES), F32))
            totals.append(builder.fadd(tops[m], rests[m]))
        best = cgutils.alloca_once_value(builder, constant_of(F32, float("inf")))
        second = cgutils.alloca_once_value(builder, constant_of(F32, float("inf")))
        winner = cgutils.alloca_once_value(builder, constant_of(I32, 0))
        with cgutils.for_range(builder, args[3]) as loop:
            missed = []
            for m in range(2):
                value = _load(context, builder, sig, args, 0, _lanes(builder, args[1 + m], loop.index), F32)
                own = builder.fcmp_ordered("==", value, tops[m])
                missed.append(builder.select(own, rests[m], builder.fsub(totals[m], value)))
            value = builder.fmul(missed[0], missed[1])
            old = builder.load(best)
            ahead = builder.fcmp_ordered("<", value, old)
            builder.store(_less(builder, builder.select(ahead, old, value), builder.load(second)), second)
            builder.store(builder.select(ahead, value, old), best)
            k = splat(builder, I32, builder.trunc(loop.index, I32))
            builder.store(builder.select(ahead, k, builder.load(winner)), winner)
        other = builder.load(second)
        needed = _fused(builder, other, splat(builder, F32, args[5]), splat(builder, F32, args[6]), F32)
        _store(context, builder, sig, args, 7, args[8], I32, builder.load(winner))
        return mask_of(builder, builder.fcmp_unordered("<=", builder.fsub(other, builder.load(best)), needed))

    return sig, codegen


def _plain_pair(
    p: Any, o: int, q: int, n_classes: int, sums: Any, margin: float, tiny: float, winners: Any, w: int
) -> int:
    joint = np.ones((n_classes, LANES), np.float32)
    for m, place in enumerate((o, q)):
        values = _group(p, place, n_classes)
        top, rest = sums[2 * m * LANES : (2 * m + 2) * LANES].reshape(2, LANES)
        joint *= np.where(values == top, rest, top + rest - values)
    return _plain_least(joint.reshape(-1), 0, n_classes, margin, tiny, winners, w)


pair = operation(_type_pair, _plain_pair)
"""pair(p, o, q, n_classes, sums, margin, tiny, winners, w): `miss` of two experts, at p[o:] and p[q:] with their
sums one after the other, and `least` of the product, in one go: noisy-or of two."""


def _type_ends(
    typingctx: Any, scores: Any, o: Any, n_classes: Any, bias: Any, b: Any, factors: Any, f: Any, tops: Any, t: Any
) -> Any:
    whole = types.int64
    sig = types.int64(scores, whole, whole, bias, whole, factors, whole, tops, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bias = context.make_array(sig.args[3])(context, builder, args[3]).data
        times = _load(context, builder, sig, args, 5, args[6], F64)
        lowest = constant_of(F64, float("-inf"))
        best = [cgutils.alloca_once_value(builder, lowest) for _ in range(2)]
        second = [cgutils.alloca_once_value(builder, lowest) for _ in range(2)]
        winner = [cgutils.alloca_once_value(builder, constant_of(I64, 0)) for _ in range(2)]
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
            k = splat(builder, I64, loop.index)
            for i in range(2):
                place = builder.add(builder.add(args[4], builder.mul(args[2], ir.Constant(I64, i))), loop.index)
                slope = splat(builder, F64, builder.load(builder.gep(bias, [place])))
                tilted = _fused(builder, slope, times, value, F64)
                old = builder.load(best[i])
                ahead = builder.fcmp_ordered(">", tilted, old)
                loser = builder.select(ahead, old, tilted)
                builder.store(greater(builder, loser, builder.load(second[i])), second[i])
                builder.store(builder.select(ahead, tilted, old), best[i])
                builder.store(builder.select(ahead, k, builder.load(winner[i])), winner[i])
        doubts = [builder.icmp_signed("!=", builder.load(winner[0]), builder.load(winner[1]))]
        for i in range(2):
            top = builder.load(best[i])
            size = greater(builder, top, builder.fsub(constant_of(F64, 0.0), top))
            needed = _fused(builder, size, constant_of(F64, 1e-9), constant_of(F64, 1e-9), F64)
            lead = builder.fsub(top, builder.load(second[i]))
            doubts.append(builder.fcmp_unordered("<=", lead, needed))
        narrow = builder.trunc(builder.load(winner[0]), vector_of(I32))
        _store(context, builder, sig, args, 7, args[8], I32, narrow)
        return mask_of(builder, builder.or_(doubts[0], builder.or_(doubts[1], doubts[2])))

    return sig, codegen


def _plain_ends(scores: Any, o: int, n_classes: int, bias: Any, b: int, factors: Any, f: int, tops: Any, t: int) -> int:
    values, winners, doubt = _group(scores, o, n_classes), [], np.zeros(LANES, bool)
    for end in range(2):
        slopes = bias[b + end * n_classes : b + (end + 1) * n_classes, None]
        tilted = values + slopes * factors[f : f + LANES]
        winners.append(tilted.argmax(0))
        ordered = np.sort(tilted, axis=0)
        with np.errstate(invalid="ignore"):
            doubt |= ~(ordered[-1] - ordered[-2] > 1e-9 * (np.abs(ordered[-1]) + 1))
    tops[t : t + LANES] = winners[0]
    return bits_of(doubt | (winners[0] != winners[1]))


ends = operation(_type_ends, _plain_ends)
"""ends(scores, o, n_classes, bias, b, factors, f, tops, t): an expert's largest class at both ends of a lattice,
with the biases bias[b:] and bias[b + n_classes:], into tops[t:t+16] (int32). Returns the lanes where it is not the
same, or not by far."""


def _type_differ(typingctx: Any, a: Any, o: Any, b: Any, p: Any) -> Any:
    sig = types.int64(a, types.int64, b, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left = _load(context, builder, sig, args, 0, args[1], I32)
        right = _load(context, builder, sig, args, 2, args[3], I32)
        return mask_of(builder, builder.icmp_signed("!=", left, right))

    return sig, codegen


differ = operation(_type_differ, lambda a, o, b, p: bits_of(a[o : o + LANES] != b[p : p + LANES]))
"""differ(a, o, b, p): the lanes where the int32 vectors a[o:o+16] and b[p:p+16] differ."""


# ---------------------------------------------------------------- between rows and groups


def _type_to_group(
    typingctx: Any, tile: Any, o: Any, width: Any, n_classes: Any, factors: Any, f: Any, out: Any, p: Any
) -> Any:
    whole = types.int64
    sig = types.void(tile, whole, whole, whole, factors, whole, out, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        times = _load(context, builder, sig, args, 4, args[5], F64)
        rows = []
        for i in range(LANES):
            offset = builder.add(args[1], builder.mul(args[2], ir.Constant(I64, i)))
            rows.append(_load(context, builder, sig, args, 0, offset, F32))
        for k, column in enumerate(swap_blocks(builder, rows)):
            with builder.if_then(builder.icmp_signed(">", args[3], ir.Constant(I64, k))):
                value = builder.fmul(builder.fpext(column, vector_of(F64)), times)
                place = builder.add(args[7], ir.Constant(I64, k * LANES))
                _store(context, builder, sig, args, 6, place, F64, value)
        return context.get_dummy_value()

    return sig, codegen


def _plain_to_group(tile: Any, o: int, width: int, n_classes: int, factors: Any, f: int, out: Any, p: int) -> None:
    kept = min(n_classes, LANES)
    rows = np.stack([tile[o + i * width : o + i * width + LANES] for i in range(LANES)]).astype(np.float64)
    _group(out, p, kept)[:] = rows.T[:kept] * factors[f : f + LANES]


to_group = operation(_type_to_group, _plain_to_group)
"""to_group(tile, o, width, n_classes, factors, f, out, p): sixteen float32 rows, `width` apart, of which the first
sixteen scores (or n_classes, if less) go class-major to out[p:] as float64, times the units' factors."""


def _type_lift(typingctx: Any, tile: Any, o: Any, factors: Any, f: Any, out: Any, p: Any) -> Any:
    sig = types.void(tile, types.int64, factors, types.int64, out, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.fpext(_load(context, builder, sig, args, 0, args[1], F32), vector_of(F64))
        value = builder.fmul(value, _load(context, builder, sig, args, 2, args[3], F64))
        _store(context, builder, sig, args, 4, args[5], F64, value)
        return context.get_dummy_value()

    return sig, codegen


def _plain_lift(tile: Any, o: int, factors: Any, f: int, out: Any, p: int) -> None:
    out[p : p + LANES] = tile[o : o + LANES].astype(np.float64) * factors[f : f + LANES]


lift = operation(_type_lift, _plain_lift)
"""lift(tile, o, factors, f, out, p): sixteen float32 scores as float64, times the units' factors."""


def _type_to_rows(typingctx: Any, group: Any, o: Any, n_classes: Any, out: Any, p: Any, width: Any) -> Any:
    whole = types.int64
    sig = types.void(group, whole, whole, out, whole, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        slots = [cgutils.alloca_once_value(builder, constant_of(F32, 0.0)) for _ in range(LANES)]
        for k, slot in enumerate(slots):
            with builder.if_then(builder.icmp_signed(">", args[2], ir.Constant(I64, k))):
                offset = builder.add(args[1], ir.Constant(I64, k * LANES))
                value = builder.fptrunc(_load(context, builder, sig, args, 0, offset, F64), vector_of(F32))
                builder.store(value, slot)
        for i, row in enumerate(swap_blocks(builder, [builder.load(slot) for slot in slots])):
            offset = builder.add(args[4], builder.mul(args[5], ir.Constant(I64, i)))
            _store(context, builder, sig, args, 3, offset, F32, row)
        return context.get_dummy_value()

    return sig, codegen


def _plain_to_rows(group: Any, o: int, n_classes: int, out: Any, p: int, width: int) -> None:
    kept = min(n_classes, LANES)
    columns = np.zeros((LANES, LANES), np.float32)
    with np.errstate(under="ignore"):
        columns[:kept] = _group(group, o, kept)
    for i in range(LANES):
        out[p + i * width : p + i * width + LANES] = columns[:, i]


to_rows = operation(_type_to_rows, _plain_to_rows)
"""to_rows(group, o, n_classes, out, p, width): the first sixteen classes (or n_classes, if less, and zeros) of a
float64 group to sixteen float32 rows, `width` apart and written in order."""


# ---------------------------------------------------------------- the posterior of a group, in float64


def _type_soften64(
    typingctx: Any, scores: Any, o: Any, n_classes: Any, bias: Any, b: Any, factors: Any, f: Any, out: Any, p: Any,
    sums: Any, s: Any,
) -> Any:  # fmt: skip
    whole = types.int64
    sig = types.void(scores, whole, whole, bias, whole, factors, whole, out, whole, sums, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bias = context.make_array(sig.args[3])(context, builder, args[3]).data
        times = _load(context, builder, sig, args, 5, args[6], F64)
        top = cgutils.alloca_once_value(builder, constant_of(F64, float("-inf")))

        def tilted(k: Any) -> Any:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], k), F64)
            slope = splat(builder, F64, builder.load(builder.gep(bias, [builder.add(args[4], k)])))
            return _fused(builder, slope, times, value, F64)

        with cgutils.for_range(builder, args[2]) as loop:
            builder.store(greater(builder, tilted(loop.index), builder.load(top)), top)
        best = builder.load(top)
        largest = cgutils.alloca_once_value(builder, constant_of(F64, 0.0))
        rest = cgutils.alloca_once_value(builder, constant_of(F64, 0.0))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _exp(builder, builder.fsub(tilted(loop.index), best), F64)
            _store(context, builder, sig, args, 7, _lanes(builder, args[8], loop.index), F64, value)
            old = builder.load(largest)
            ahead = builder.fcmp_ordered(">", value, old)
            builder.store(builder.fadd(builder.load(rest), builder.select(ahead, old, value)), rest)
            builder.store(builder.select(ahead, value, old), largest)
        for place, value in enumerate((builder.load(rest), best)):
            offset = builder.add(args[10], ir.Constant(I64, place * LANES))
            _store(context, builder, sig, args, 9, offset, F64, value)
        return context.get_dummy_value()

    return sig, codegen


def _plain_soften64(
    scores: Any, o: int, n_classes: int, bias: Any, b: int, factors: Any, f: int, out: Any, p: int, sums: Any, s: int
) -> None:
    values = _group(scores, o, n_classes) + bias[b : b + n_classes, None] * factors[f : f + LANES]
    best = values.max(0)
    largest, rest = np.zeros(LANES), np.zeros(LANES)
    for k, value in enumerate(_plain_exp(values - best)):
        out[p + k * LANES : p + (k + 1) * LANES] = value
        rest += np.minimum(value, largest)
        largest = np.maximum(value, largest)
    sums[s : s + LANES], sums[s + LANES : s + 2 * LANES] = rest, best


soften64 = operation(_type_soften64, _plain_soften64)
"""soften64(scores, o, n_classes, bias, b, factors, f, out, p, sums, s): out = exp(scores + factor * bias - maximum) of
a float64 group; into sums[s:] the sums of all but the largest (which is 1), and the maxima."""


def _adding(join: Callable[..., Any]) -> Callable[..., Any]:
    """Typing of an operation that joins posteriors: see `add_posterior`."""

    def typing(
        typingctx: Any, e: Any, o: Any, n_classes: Any, sums: Any, s: Any, weight: Any, first: Any, out: Any, p: Any
    ) -> Any:
        whole = types.int64
        sig = types.void(e, whole, whole, sums, whole, types.float64, types.boolean, out, whole)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            rest = _load(context, builder, sig, args, 3, args[4], F64)
            one = constant_of(F64, 1.0)
            total = builder.fadd(one, rest)
            inverse = builder.fdiv(one, total)
            first = builder.trunc(args[6], ir.IntType(1))
            weight = splat(builder, F64, args[5])
            with cgutils.for_range(builder, args[2]) as loop:
                value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
                place = _lanes(builder, args[8], loop.index)
                share = builder.fmul(value, inverse)
                old = _load(context, builder, sig, args, 7, place, F64)
                old = builder.select(first, constant_of(F64, 0.0), old)
                missed = builder.select(builder.fcmp_ordered("==", value, one), rest, builder.fsub(total, value))
                joint = join(builder, old, share, builder.fmul(missed, inverse), weight)
                _store(context, builder, sig, args, 7, place, F64, joint)
            return context.get_dummy_value()

        return sig, codegen

    return typing


def _plain_adding(join: Callable[..., Any]) -> Callable[..., None]:
    def plain(
        e: Any, o: int, n_classes: int, sums: Any, s: int, weight: float, first: bool, out: Any, p: int
    ) -> None:  # fmt: skip
        rest, value, joint = sums[s : s + LANES], _group(e, o, n_classes), _group(out, p, n_classes)
        total = 1.0 + rest
        missed = np.where(value == 1.0, rest, total - value) * (1.0 / total)
        joint[:] = join(np.zeros_like(joint) if first else joint.copy(), value * (1.0 / total), missed, weight)

    return plain


add_posterior = operation(
    _adding(lambda builder, old, share, missed, weight: builder.fadd(old, builder.fmul(weight, share))),
    _plain_adding(lambda old, share, missed, weight: old + weight * share),
)
"""add_posterior(e, o, n_classes, sums, s, weight, first, out, p): join one expert's posterior, e and sums as `soften64`
leaves them, to what is fused so far, u, in sums of positive terms only: u + weight P (0 + weight P at the `first`)."""
unite_posterior = operation(
    _adding(lambda builder, old, share, missed, weight: builder.fadd(builder.fmul(old, missed), share)),
    _plain_adding(lambda old, share, missed, weight: old * missed + share),
)
"""unite_posterior: the same, u (1 - P) + P."""
larger_posterior = operation(
    _adding(lambda builder, old, share, missed, weight: greater(builder, share, old)),
    _plain_adding(lambda old, share, missed, weight: np.maximum(share, old)),
)
"""larger_posterior: the same, the larger of u and P."""


def _type_finish(typingctx: Any, u: Any, o: Any, n_classes: Any, in_logs: Any, sums: Any, s: Any) -> Any:
    whole = types.int64
    sig = types.int64(u, whole, whole, types.boolean, sums, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = cgutils.alloca_once_value(builder, constant_of(F64, 0.0))
        least = cgutils.alloca_once_value(builder, constant_of(F64, 1.0))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
            builder.store(builder.fadd(builder.load(total), value), total)
            builder.store(_less(builder, value, builder.load(least)), least)
        whole_sum = builder.load(total)
        faint = mask_of(builder, builder.fcmp_ordered("<", builder.load(least), constant_of(F64, 1e-280)))
        with builder.if_else(builder.trunc(args[3], ir.IntType(1))) as (logs, probabilities):
            with logs:
                below = _log(builder, whole_sum)
                _store(context, builder, sig, args, 4, args[5], F64, below)
                with cgutils.for_range(builder, args[2]) as loop:
                    place = _lanes(builder, args[1], loop.index)
                    value = _log(builder, _load(context, builder, sig, args, 0, place, F64))
                    _store(context, builder, sig, args, 0, place, F64, builder.fsub(value, below))
            with probabilities:
                inverse = builder.fdiv(constant_of(F64, 1.0), whole_sum)
                with cgutils.for_range(builder, args[2]) as loop:
                    place = _lanes(builder, args[1], loop.index)
                    value = builder.fmul(_load(context, builder, sig, args, 0, place, F64), inverse)
                    _store(context, builder, sig, args, 0, place, F64, value)
        return faint

    return sig, codegen


def _plain_finish(u: Any, o: int, n_classes: int, in_logs: bool, sums: Any, s: int) -> int:
    values = _group(u, o, n_classes)
    total, faint = values.sum(0), bits_of(values.min(0) < 1e-280)
    if not in_logs:
        values *= 1.0 / total
        return faint
    with np.errstate(divide="ignore"):
        sums[s : s + LANES] = np.log(total)
        values[:] = np.log(values) - np.log(total)
    return faint


finish = operation(_type_finish, _plain_finish)
"""finish(u, o, n_classes, in_logs, sums, s): normalise a float64 group; with in_logs to logarithms, and the log of each
unit's sum into sums[s:]. Returns the lanes with an entry below 1e-280, whose logarithm is not to be trusted."""


def _type_shift(typingctx: Any, u: Any, o: Any, n_classes: Any, scores: Any, p: Any, sums: Any, s: Any) -> Any:
    whole = types.int64
    sig = types.void(u, whole, whole, scores, whole, sums, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rest = _load(context, builder, sig, args, 5, args[6], F64)
        best = _load(context, builder, sig, args, 5, builder.add(args[6], ir.Constant(I64, LANES)), F64)
        below = _log(builder, builder.fadd(constant_of(F64, 1.0), rest))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 3, _lanes(builder, args[4], loop.index), F64)
            place = _lanes(builder, args[1], loop.index)
            value = builder.fsub(builder.fsub(value, best), below)
            _store(context, builder, sig, args, 0, place, F64, value)
        return context.get_dummy_value()

    return sig, codegen


def _plain_shift(u: Any, o: int, n_classes: int, scores: Any, p: int, sums: Any, s: int) -> None:
    best, below = sums[s + LANES : s + 2 * LANES], np.log(1.0 + sums[s : s + LANES])
    _group(u, o, n_classes)[:] = _group(scores, p, n_classes) - best - below


shift = operation(_type_shift, _plain_shift)
"""shift(u, o, n_classes, scores, p, sums, s): u = scores - maximum - log(1 + rest) of a group, with the sums of
`soften64`: log-probabilities of one softmax."""


def _type_first_largest(typingctx: Any, u: Any, o: Any, n_classes: Any, narrow: Any, winners: Any, w: Any) -> Any:
    whole = types.int64
    sig = types.int64(u, whole, whole, types.boolean, winners, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        best = cgutils.alloca_once_value(builder, constant_of(F64, float("-inf")))
        winner = cgutils.alloca_once_value(builder, constant_of(I32, 0))
        narrow = builder.trunc(args[3], ir.IntType(1))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
            rounded = builder.fpext(builder.fptrunc(value, vector_of(F32)), vector_of(F64))
            value = builder.select(narrow, rounded, value)
            old = builder.load(best)
            ahead = builder.fcmp_ordered(">", value, old)
            k = splat(builder, I32, builder.trunc(loop.index, I32))
            builder.store(builder.select(ahead, k, builder.load(winner)), winner)
            builder.store(builder.select(ahead, value, old), best)
        wanted = _load(context, builder, sig, args, 4, args[5], I32)
        return mask_of(builder, builder.icmp_signed("!=", builder.load(winner), wanted))

    return sig, codegen


def _plain_first_largest(u: Any, o: int, n_classes: int, narrow: bool, winners: Any, w: int) -> int:
    values = _group(u, o, n_classes)
    with np.errstate(under="ignore"):
        values = values.astype(np.float32) if narrow else values
    return bits_of(values.argmax(0) != winners[w : w + LANES])


first_largest = operation(_type_first_largest, _plain_first_largest)
"""first_largest(u, o, n_classes, narrow, winners, w): the lanes whose first largest value, after rounding to float32
where `narrow`, is not the class in winners[w:w+16]."""
