"""Sixteen units at a time, class-major: the vector operations that the fusion kernels are made of.

A *group* is sixteen units: K vectors of sixteen lanes, class after class. As in `unoic_cli.kernels.simd`, each
operation is written as LLVM vector instructions and as plain Python. Every lane is computed by itself, so a unit's
result does not depend on its neighbours.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from unoic_cli.kernels.simd import (
    _F32,
    _F64,
    _I32,
    _I64,
    LANES,
    _bits,
    _constant,
    _mask,
    _operation,
    _pointer,
    _splat,
    _vector,
)

LOWEST_EXP32 = -87.0
"""Below, float32 exponentials are zero: no denormal numbers, which are slow and coarse."""
LOWEST_EXP64 = -708.0
"""The same for float64."""

_MAGIC32, _MAGIC64 = 1.5 * 2.0**23, 1.5 * 2.0**52
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6
_LOG2_E = 1.4426950408889634


def _load(context: Any, builder: Any, sig: Any, args: Any, i: int, offset: Any, element: Any) -> Any:
    value = builder.load(_pointer(context, builder, sig, args, i, offset, element))
    value.align = 4 if element is _F32 or element is _I32 else 8
    return value


def _store(context: Any, builder: Any, sig: Any, args: Any, i: int, offset: Any, element: Any, value: Any) -> None:
    target = _pointer(context, builder, sig, args, i, offset, element)
    builder.store(value, target).align = 4 if element is _F32 or element is _I32 else 8


def _lanes(builder: Any, offset: Any, k: Any) -> Any:
    """Offset of the vector of class k."""
    return builder.add(offset, builder.mul(k, ir.Constant(_I64, LANES)))


def _greater(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _less(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _exp(builder: Any, x: Any, element: Any) -> Any:
    """exp(x) for x <= 0: x = n ln 2 + r, a Taylor polynomial of r (relative error 2e-7 or 1e-13), 2**n by its bits."""
    wide = element is _F64
    whole = _I64 if wide else _I32
    lowest = _constant(element, LOWEST_EXP64 if wide else LOWEST_EXP32)
    magic = _constant(element, _MAGIC64 if wide else _MAGIC32)
    kept = _greater(builder, x, lowest)
    shifted = builder.fadd(builder.fmul(kept, _constant(element, _LOG2_E)), magic)
    n = builder.fsub(shifted, magic)
    r = builder.fsub(kept, builder.fmul(n, _constant(element, _LN2_HIGH)))
    r = builder.fsub(r, builder.fmul(n, _constant(element, _LN2_LOW)))
    degree = 11 if wide else 7
    value = _constant(element, 1.0 / math.factorial(degree))
    for power in range(degree - 1, -1, -1):
        value = builder.fadd(builder.fmul(value, r), _constant(element, 1.0 / math.factorial(power)))
    bits = builder.shl(builder.bitcast(shifted, _vector(whole)), _constant(whole, 52 if wide else 23))
    value = builder.bitcast(builder.add(builder.bitcast(value, _vector(whole)), bits), _vector(element))
    return builder.select(builder.fcmp_ordered(">=", x, lowest), value, _constant(element, 0.0))


def _log(builder: Any, x: Any) -> Any:
    """log(x) of normal float64 x > 0: exponent and mantissa, and the series of 2 atanh (relative error 1e-15)."""
    bits = builder.bitcast(x, _vector(_I64))
    mantissa = builder.and_(bits, _constant(_I64, (1 << 52) - 1))
    m = builder.bitcast(builder.or_(mantissa, _constant(_I64, 1023 << 52)), _vector(_F64))
    e = builder.sub(builder.lshr(bits, _constant(_I64, 52)), _constant(_I64, 1023))
    large = builder.fcmp_ordered(">", m, _constant(_F64, math.sqrt(2)))
    m = builder.select(large, builder.fmul(m, _constant(_F64, 0.5)), m)
    e = builder.select(large, builder.add(e, _constant(_I64, 1)), e)
    s = builder.fdiv(builder.fsub(m, _constant(_F64, 1.0)), builder.fadd(m, _constant(_F64, 1.0)))
    z = builder.fmul(s, s)
    value = _constant(_F64, 2.0 / 19)
    for odd in range(17, 0, -2):
        value = builder.fadd(builder.fmul(value, z), _constant(_F64, 2.0 / odd))
    scaled = builder.fmul(builder.sitofp(e, _vector(_F64)), _constant(_F64, math.log(2)))
    return builder.fadd(scaled, builder.fmul(value, s))


def _plain_exp(x: Any) -> Any:
    lowest = LOWEST_EXP32 if x.dtype == np.float32 else LOWEST_EXP64
    return np.where(x >= lowest, np.exp(np.maximum(x, x.dtype.type(lowest))), x.dtype.type(0))


def _group(array: Any, o: int, n_classes: int) -> Any:
    return array[o : o + n_classes * LANES].reshape(n_classes, LANES)


# ---------------------------------------------------------------- softmax of a group, in float32


def _type_soften(typingctx: Any, scores: Any, o: Any, n_classes: Any, out: Any, p: Any) -> Any:
    sig = types.void(scores, types.int64, types.int64, out, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = cgutils.alloca_once_value(builder, _constant(_F64, float("-inf")))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), _F64)
            builder.store(_greater(builder, value, builder.load(top)), top)
        best = builder.load(top)
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), _F64)
            narrow = builder.fptrunc(builder.fsub(value, best), _vector(_F32))
            place = _lanes(builder, args[4], loop.index)
            _store(context, builder, sig, args, 3, place, _F32, _exp(builder, narrow, _F32))
        return context.get_dummy_value()

    return sig, codegen


def _plain_soften(scores: Any, o: int, n_classes: int, out: Any, p: int) -> None:
    values = _group(scores, o, n_classes)
    _group(out, p, n_classes)[:] = _plain_exp((values - values.max(0)).astype(np.float32))


soften = _operation(_type_soften, _plain_soften)
"""soften(scores, o, n_classes, out, p): exp(scores - their maximum) of a float64 group, as float32."""


def _type_tilt(
    typingctx: Any, e: Any, o: Any, n_classes: Any, table: Any, t: Any, out: Any, p: Any, sums: Any, q: Any
) -> Any:
    whole = types.int64
    sig = types.int64(e, whole, whole, table, whole, out, whole, sums, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = cgutils.alloca_once_value(builder, _constant(_F32, 0.0))
        rest = cgutils.alloca_once_value(builder, _constant(_F32, 0.0))
        table = context.make_array(sig.args[3])(context, builder, args[3]).data
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), _F32)
            factor = builder.load(builder.gep(table, [builder.add(args[4], loop.index)]))
            value = builder.fmul(value, _splat(builder, _F32, factor))
            _store(context, builder, sig, args, 5, _lanes(builder, args[6], loop.index), _F32, value)
            best = builder.load(top)
            ahead = builder.fcmp_ordered(">", value, best)
            loser = builder.select(ahead, best, value)
            builder.store(builder.fadd(builder.load(rest), loser), rest)
            builder.store(builder.select(ahead, value, best), top)
        _store(context, builder, sig, args, 7, args[8], _F32, builder.load(top))
        after = builder.add(args[8], ir.Constant(_I64, LANES))
        _store(context, builder, sig, args, 7, after, _F32, builder.load(rest))
        return _mask(builder, builder.fcmp_unordered("<", builder.load(top), _constant(_F32, 1e-20)))

    return sig, codegen


def _plain_tilt(e: Any, o: int, n_classes: int, table: Any, t: int, out: Any, p: int, sums: Any, q: int) -> int:
    values = _group(e, o, n_classes) * table[t : t + n_classes, None]
    _group(out, p, n_classes)[:] = values
    top, rest = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    for value in values:
        rest += np.minimum(value, top)
        top = np.maximum(value, top)
    sums[q : q + LANES], sums[q + LANES : q + 2 * LANES] = top, rest
    return _bits(top < np.float32(1e-20))


tilt = _operation(_type_tilt, _plain_tilt)
"""tilt(e, o, n_classes, table, t, out, p, sums, q): out = e times the K factors table[t:]; into sums[q:] the sixteen
largest and the sixteen sums of all others, accurate however small. Returns the lanes without a sizeable entry."""


def _type_miss(
    typingctx: Any, p: Any, o: Any, n_classes: Any, sums: Any, s: Any, q: Any, u: Any, first: Any, least: Any
) -> Any:
    whole = types.int64
    sig = types.void(p, whole, whole, sums, whole, q, whole, types.boolean, types.boolean)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = _load(context, builder, sig, args, 3, args[4], _F32)
        rest = _load(context, builder, sig, args, 3, builder.add(args[4], ir.Constant(_I64, LANES)), _F32)
        total = builder.fadd(top, rest)
        least, first = (builder.trunc(args[i], ir.IntType(1)) for i in (8, 7))
        inverse = builder.fdiv(_constant(_F32, 1.0), total)
        scale = builder.select(least, inverse, _constant(_F32, 1.0))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), _F32)
            missed = builder.select(builder.fcmp_ordered("==", value, top), rest, builder.fsub(total, value))
            missed = builder.fmul(missed, scale)
            place = _lanes(builder, args[6], loop.index)
            old = _load(context, builder, sig, args, 5, place, _F32)
            both = builder.select(least, _less(builder, missed, old), builder.fmul(missed, old))
            _store(context, builder, sig, args, 5, place, _F32, builder.select(first, missed, both))
        return context.get_dummy_value()

    return sig, codegen


def _plain_miss(p: Any, o: int, n_classes: int, sums: Any, s: int, q: Any, u: int, first: bool, least: bool) -> None:
    values, out = _group(p, o, n_classes), _group(q, u, n_classes)
    top, rest = sums[s : s + LANES], sums[s + LANES : s + 2 * LANES]
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.where(values == top, rest, top + rest - values) * (1 / (top + rest) if least else np.float32(1))
    out[:] = missed if first else (np.minimum(missed, out) if least else missed * out)


miss = _operation(_type_miss, _plain_miss)
"""miss(p, o, n_classes, sums, s, q, u, first, least): Z (1 - P) of one expert, 1 - P of its largest class as the sum of
the others; multiplied into q (or stored there, `first`). With `least`, q becomes the smaller of q and 1 - P."""


def _type_share(
    typingctx: Any, p: Any, o: Any, n_classes: Any, sums: Any, s: Any, weight: Any, q: Any, u: Any, first: Any
) -> Any:
    whole = types.int64
    sig = types.void(p, whole, whole, sums, whole, types.float32, q, whole, types.boolean)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = _load(context, builder, sig, args, 3, args[4], _F32)
        rest = _load(context, builder, sig, args, 3, builder.add(args[4], ir.Constant(_I64, LANES)), _F32)
        first = builder.trunc(args[8], ir.IntType(1))
        scale = builder.fdiv(_splat(builder, _F32, args[5]), builder.fadd(top, rest))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), _F32)
            place = _lanes(builder, args[7], loop.index)
            old = _load(context, builder, sig, args, 6, place, _F32)
            old = builder.select(first, _constant(_F32, 0.0), old)
            _store(context, builder, sig, args, 6, place, _F32, builder.fsub(old, builder.fmul(value, scale)))
        return context.get_dummy_value()

    return sig, codegen


def _plain_share(p: Any, o: int, n_classes: int, sums: Any, s: int, weight: float, q: Any, u: int, first: bool) -> None:
    out = _group(q, u, n_classes)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.float32(weight) / (sums[s : s + LANES] + sums[s + LANES : s + 2 * LANES])
        out[:] = (0 if first else out) - _group(p, o, n_classes) * scale


share = _operation(_type_share, _plain_share)
"""share(p, o, n_classes, sums, s, weight, q, u, first): subtract weight * P of one expert from q (0 at the first)."""


def _type_least(typingctx: Any, q: Any, u: Any, n_classes: Any, margin: Any, tiny: Any, winners: Any, w: Any) -> Any:
    whole, real = types.int64, types.float32
    sig = types.int64(q, whole, whole, real, real, winners, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        best = cgutils.alloca_once_value(builder, _constant(_F32, float("inf")))
        second = cgutils.alloca_once_value(builder, _constant(_F32, float("inf")))
        winner = cgutils.alloca_once_value(builder, _constant(_I32, 0))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), _F32)
            old = builder.load(best)
            ahead = builder.fcmp_ordered("<", value, old)
            loser = builder.select(ahead, old, value)
            builder.store(_less(builder, loser, builder.load(second)), second)
            builder.store(builder.select(ahead, value, old), best)
            k = _splat(builder, _I32, builder.trunc(loop.index, _I32))
            builder.store(builder.select(ahead, k, builder.load(winner)), winner)
        first, other = builder.load(best), builder.load(second)
        minus = _constant(_F32, 0.0)
        size = _greater(builder, builder.fsub(minus, first), builder.fsub(minus, other))
        size = _greater(builder, size, _greater(builder, first, other))
        needed = builder.fmul(size, _splat(builder, _F32, args[3]))
        needed = builder.fadd(needed, _splat(builder, _F32, args[4]))
        _store(context, builder, sig, args, 5, args[6], _I32, builder.load(winner))
        return _mask(builder, builder.fcmp_unordered("<=", builder.fsub(other, first), needed))

    return sig, codegen


def _plain_least(q: Any, u: int, n_classes: int, margin: float, tiny: float, winners: Any, w: int) -> int:
    values = _group(q, u, n_classes)
    winners[w : w + LANES] = values.argmin(0)
    ordered = np.sort(values, axis=0)
    with np.errstate(invalid="ignore"):
        needed = np.maximum(np.abs(ordered[0]), np.abs(ordered[1])) * np.float32(margin) + np.float32(tiny)
        return _bits(~(ordered[1] - ordered[0] > needed))


least = _operation(_type_least, _plain_least)
"""least(q, u, n_classes, margin, tiny, winners, w): the class of the smallest q into winners[w:w+16] (int32). Returns
the lanes where the second is not ahead by `margin` times the larger magnitude, and `tiny`."""


def _type_differ(typingctx: Any, a: Any, o: Any, b: Any, p: Any) -> Any:
    sig = types.int64(a, types.int64, b, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left = _load(context, builder, sig, args, 0, args[1], _I32)
        right = _load(context, builder, sig, args, 2, args[3], _I32)
        return _mask(builder, builder.icmp_signed("!=", left, right))

    return sig, codegen


differ = _operation(_type_differ, lambda a, o, b, p: _bits(a[o : o + LANES] != b[p : p + LANES]))
"""differ(a, o, b, p): the lanes where the int32 vectors a[o:o+16] and b[p:p+16] differ."""


# ---------------------------------------------------------------- exponentials and logarithms in float64


def _type_exps(typingctx: Any, x: Any, o: Any, out: Any, p: Any) -> Any:
    sig = types.void(x, types.int64, out, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = _load(context, builder, sig, args, 0, args[1], _F64)
        _store(context, builder, sig, args, 2, args[3], _F64, _exp(builder, value, _F64))
        return context.get_dummy_value()

    return sig, codegen


def _plain_exps(x: Any, o: int, out: Any, p: int) -> None:
    out[p : p + LANES] = _plain_exp(x[o : o + LANES])


exps = _operation(_type_exps, _plain_exps)
"""exps(x, o, out, p): exp of sixteen float64 values <= 0."""


def _type_logs(typingctx: Any, x: Any, o: Any, out: Any, p: Any) -> Any:
    sig = types.void(x, types.int64, out, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = _load(context, builder, sig, args, 0, args[1], _F64)
        _store(context, builder, sig, args, 2, args[3], _F64, _log(builder, value))
        return context.get_dummy_value()

    return sig, codegen


def _plain_logs(x: Any, o: int, out: Any, p: int) -> None:
    with np.errstate(divide="ignore"):
        out[p : p + LANES] = np.log(x[o : o + LANES])


logs = _operation(_type_logs, _plain_logs)
"""logs(x, o, out, p): log of sixteen normal float64 values > 0."""
