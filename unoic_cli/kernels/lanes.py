"""Sixteen units at a time, class-major: the vector operations that the fusion kernels are made of.

The operations of `unoic_cli.kernels.groups`, which says what they mean, written as LLVM vector instructions. Every
lane is computed by itself, so a unit's result does not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from unoic_cli.kernels import groups
from unoic_cli.kernels.simd import (
    F32,
    F64,
    I32,
    I64,
    LANES,
    constant_of,
    greater,
    load,
    mask_of,
    operation,
    splat,
    store,
    swap_blocks,
    vector_of,
)


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
    lowest = constant_of(element, groups.LOWEST_EXP64 if wide else groups.LOWEST_EXP32)
    magic = constant_of(element, groups.MAGIC64 if wide else groups.MAGIC32)
    kept = greater(builder, x, lowest)
    shifted = builder.fadd(builder.fmul(kept, constant_of(element, groups.LOG2_E)), magic)
    n = builder.fsub(shifted, magic)
    r = _fused(builder, n, constant_of(element, -groups.LN2_HIGH), kept, element)
    r = _fused(builder, n, constant_of(element, -groups.LN2_LOW), r, element)
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


# ---------------------------------------------------------------- softmax of a group, in float32


def _type_soften(typingctx: Any, scores: Any, o: Any, n_classes: Any, out: Any, p: Any) -> Any:
    sig = types.void(scores, types.int64, types.int64, out, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = cgutils.alloca_once_value(builder, constant_of(F64, float("-inf")))
        with cgutils.for_range(builder, args[2]) as loop:
            value = load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
            builder.store(greater(builder, value, builder.load(top)), top)
        best = builder.load(top)
        with cgutils.for_range(builder, args[2]) as loop:
            value = load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
            narrow = builder.fptrunc(builder.fsub(value, best), vector_of(F32))
            place = _lanes(builder, args[4], loop.index)
            store(context, builder, sig, args, 3, place, F32, _exp(builder, narrow, F32))
        return context.get_dummy_value()

    return sig, codegen


soften = operation(_type_soften, groups.soften)


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
            value = load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F32)
            factor = builder.load(builder.gep(table, [builder.add(args[4], loop.index)]))
            value = builder.fmul(value, splat(builder, F32, factor))
            store(context, builder, sig, args, 5, _lanes(builder, args[6], loop.index), F32, value)
            best = builder.load(top)
            ahead = builder.fcmp_ordered(">", value, best)
            loser = builder.select(ahead, best, value)
            builder.store(builder.fadd(builder.load(rest), loser), rest)
            builder.store(builder.select(ahead, value, best), top)
        store(context, builder, sig, args, 7, args[8], F32, builder.load(top))
        after = builder.add(args[8], ir.Constant(I64, LANES))
        store(context, builder, sig, args, 7, after, F32, builder.load(rest))
        return mask_of(builder, builder.fcmp_unordered("<", builder.load(top), constant_of(F32, 1e-20)))

    return sig, codegen


tilt = operation(_type_tilt, groups.tilt)


def _type_miss(
    typingctx: Any, p: Any, o: Any, n_classes: Any, sums: Any, s: Any, q: Any, u: Any, first: Any, least: Any
) -> Any:
    whole = types.int64
    sig = types.void(p, whole, whole, sums, whole, q, whole, types.boolean, types.boolean)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = load(context, builder, sig, args, 3, args[4], F32)
        rest = load(context, builder, sig, args, 3, builder.add(args[4], ir.Constant(I64, LANES)), F32)
        total = builder.fadd(top, rest)
        least, first = (builder.trunc(args[i], ir.IntType(1)) for i in (8, 7))
        inverse = builder.fdiv(constant_of(F32, 1.0), total)
        scale = builder.select(least, inverse, constant_of(F32, 1.0))
        with cgutils.for_range(builder, args[2]) as loop:
            value = load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F32)
            missed = builder.select(builder.fcmp_ordered("==", value, top), rest, builder.fsub(total, value))
            missed = builder.fmul(missed, scale)
            place = _lanes(builder, args[6], loop.index)
            old = load(context, builder, sig, args, 5, place, F32)
            both = builder.select(least, _less(builder, missed, old), builder.fmul(missed, old))
            store(context, builder, sig, args, 5, place, F32, builder.select(first, missed, both))
        return context.get_dummy_value()

    return sig, codegen


miss = operation(_type_miss, groups.miss)


def _type_share(
    typingctx: Any, p: Any, o: Any, n_classes: Any, sums: Any, s: Any, weight: Any, q: Any, u: Any, first: Any
) -> Any:
    whole = types.int64
    sig = types.void(p, whole, whole, sums, whole, types.float32, q, whole, types.boolean)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        top = load(context, builder, sig, args, 3, args[4], F32)
        rest = load(context, builder, sig, args, 3, builder.add(args[4], ir.Constant(I64, LANES)), F32)
        first = builder.trunc(args[8], ir.IntType(1))
        scale = builder.fdiv(splat(builder, F32, args[5]), builder.fadd(top, rest))
        with cgutils.for_range(builder, args[2]) as loop:
            value = load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F32)
            place = _lanes(builder, args[7], loop.index)
            old = load(context, builder, sig, args, 6, place, F32)
            old = builder.select(first, constant_of(F32, 0.0), old)
            store(context, builder, sig, args, 6, place, F32, builder.fsub(old, builder.fmul(value, scale)))
        return context.get_dummy_value()

    return sig, codegen


share = operation(_type_share, groups.share)


def _type_least(typingctx: Any, q: Any, u: Any, n_classes: Any, margin: Any, tiny: Any, winners: Any, w: Any) -> Any:
    whole, real = types.int64, types.float32
    sig = types.int64(q, whole, whole, real, real, winners, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        best = cgutils.alloca_once_value(builder, constant_of(F32, float("inf")))
        second = cgutils.alloca_once_value(builder, constant_of(F32, float("inf")))
        winner = cgutils.alloca_once_value(builder, constant_of(I32, 0))
        with cgutils.for_range(builder, args[2]) as loop:
            value = load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F32)
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
        store(context, builder, sig, args, 5, args[6], I32, builder.load(winner))
        return mask_of(builder, builder.fcmp_unordered("<=", builder.fsub(other, first), needed))

    return sig, codegen


least = operation(_type_least, groups.least)


def _type_pair(
    typingctx: Any, p: Any, o: Any, q: Any, n_classes: Any, sums: Any, margin: Any, tiny: Any, winners: Any, w: Any
) -> Any:
    whole, real = types.int64, types.float32
    sig = types.int64(p, whole, whole, whole, sums, real, real, winners, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        tops, rests, totals = [], [], []
        for m in range(2):
            tops.append(load(context, builder, sig, args, 4, ir.Constant(I64, 2 * m * LANES), F32))
            rests.append(load(context, builder, sig, args, 4, ir.Constant(I64, (2 * m + 1) * LANES), F32))
            totals.append(builder.fadd(tops[m], rests[m]))
        best = cgutils.alloca_once_value(builder, constant_of(F32, float("inf")))
        second = cgutils.alloca_once_value(builder, constant_of(F32, float("inf")))
        winner = cgutils.alloca_once_value(builder, constant_of(I32, 0))
        with cgutils.for_range(builder, args[3]) as loop:
            missed = []
            for m in range(2):
                value = load(context, builder, sig, args, 0, _lanes(builder, args[1 + m], loop.index), F32)
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
        store(context, builder, sig, args, 7, args[8], I32, builder.load(winner))
        return mask_of(builder, builder.fcmp_unordered("<=", builder.fsub(other, builder.load(best)), needed))

    return sig, codegen


pair = operation(_type_pair, groups.pair)


def _type_ends(
    typingctx: Any, scores: Any, o: Any, n_classes: Any, bias: Any, b: Any, factors: Any, f: Any, tops: Any, t: Any
) -> Any:
    whole = types.int64
    sig = types.int64(scores, whole, whole, bias, whole, factors, whole, tops, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bias = context.make_array(sig.args[3])(context, builder, args[3]).data
        times = load(context, builder, sig, args, 5, args[6], F64)
        lowest = constant_of(F64, float("-inf"))
        best = [cgutils.alloca_once_value(builder, lowest) for _ in range(2)]
        second = [cgutils.alloca_once_value(builder, lowest) for _ in range(2)]
        winner = [cgutils.alloca_once_value(builder, constant_of(I64, 0)) for _ in range(2)]
        with cgutils.for_range(builder, args[2]) as loop:
            value = load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
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
        store(context, builder, sig, args, 7, args[8], I32, narrow)
        return mask_of(builder, builder.or_(doubts[0], builder.or_(doubts[1], doubts[2])))

    return sig, codegen


ends = operation(_type_ends, groups.ends)


def _type_differ(typingctx: Any, a: Any, o: Any, b: Any, p: Any) -> Any:
    sig = types.int64(a, types.int64, b, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left = load(context, builder, sig, args, 0, args[1], I32)
        right = load(context, builder, sig, args, 2, args[3], I32)
        return mask_of(builder, builder.icmp_signed("!=", left, right))

    return sig, codegen


differ = operation(_type_differ, groups.differ)


# ---------------------------------------------------------------- between rows and groups


def _type_to_group(
    typingctx: Any, tile: Any, o: Any, width: Any, n_classes: Any, factors: Any, f: Any, out: Any, p: Any
) -> Any:
    whole = types.int64
    sig = types.void(tile, whole, whole, whole, factors, whole, out, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        times = load(context, builder, sig, args, 4, args[5], F64)
        rows = []
        for i in range(LANES):
            offset = builder.add(args[1], builder.mul(args[2], ir.Constant(I64, i)))
            rows.append(load(context, builder, sig, args, 0, offset, F32))
        for k, column in enumerate(swap_blocks(builder, rows)):
            with builder.if_then(builder.icmp_signed(">", args[3], ir.Constant(I64, k))):
                value = builder.fmul(builder.fpext(column, vector_of(F64)), times)
                place = builder.add(args[7], ir.Constant(I64, k * LANES))
                store(context, builder, sig, args, 6, place, F64, value)
        return context.get_dummy_value()

    return sig, codegen


to_group = operation(_type_to_group, groups.to_group)


def _type_lift(typingctx: Any, tile: Any, o: Any, factors: Any, f: Any, out: Any, p: Any) -> Any:
    sig = types.void(tile, types.int64, factors, types.int64, out, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.fpext(load(context, builder, sig, args, 0, args[1], F32), vector_of(F64))
        value = builder.fmul(value, load(context, builder, sig, args, 2, args[3], F64))
        store(context, builder, sig, args, 4, args[5], F64, value)
        return context.get_dummy_value()

    return sig, codegen


lift = operation(_type_lift, groups.lift)


def _type_to_rows(typingctx: Any, group: Any, o: Any, n_classes: Any, out: Any, p: Any, width: Any) -> Any:
    whole = types.int64
    sig = types.void(group, whole, whole, out, whole, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        slots = [cgutils.alloca_once_value(builder, constant_of(F32, 0.0)) for _ in range(LANES)]
        for k, slot in enumerate(slots):
            with builder.if_then(builder.icmp_signed(">", args[2], ir.Constant(I64, k))):
                offset = builder.add(args[1], ir.Constant(I64, k * LANES))
                value = builder.fptrunc(load(context, builder, sig, args, 0, offset, F64), vector_of(F32))
                builder.store(value, slot)
        for i, row in enumerate(swap_blocks(builder, [builder.load(slot) for slot in slots])):
            offset = builder.add(args[4], builder.mul(args[5], ir.Constant(I64, i)))
            store(context, builder, sig, args, 3, offset, F32, row)
        return context.get_dummy_value()

    return sig, codegen


to_rows = operation(_type_to_rows, groups.to_rows)


# ---------------------------------------------------------------- the posterior of a group, in float64


def _type_soften64(
    typingctx: Any, scores: Any, o: Any, n_classes: Any, bias: Any, b: Any, factors: Any, f: Any, out: Any, p: Any,
    sums: Any, s: Any,
) -> Any:  # fmt: skip
    whole = types.int64
    sig = types.void(scores, whole, whole, bias, whole, factors, whole, out, whole, sums, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bias = context.make_array(sig.args[3])(context, builder, args[3]).data
        times = load(context, builder, sig, args, 5, args[6], F64)
        top = cgutils.alloca_once_value(builder, constant_of(F64, float("-inf")))

        def tilted(k: Any) -> Any:
            value = load(context, builder, sig, args, 0, _lanes(builder, args[1], k), F64)
            slope = splat(builder, F64, builder.load(builder.gep(bias, [builder.add(args[4], k)])))
            return _fused(builder, slope, times, value, F64)

        with cgutils.for_range(builder, args[2]) as loop:
            builder.store(greater(builder, tilted(loop.index), builder.load(top)), top)
        best = builder.load(top)
        largest = cgutils.alloca_once_value(builder, constant_of(F64, 0.0))
        rest = cgutils.alloca_once_value(builder, constant_of(F64, 0.0))
        with cgutils.for_range(builder, args[2]) as loop:
            value = _exp(builder, builder.fsub(tilted(loop.index), best), F64)
            store(context, builder, sig, args, 7, _lanes(builder, args[8], loop.index), F64, value)
            old = builder.load(largest)
            ahead = builder.fcmp_ordered(">", value, old)
            builder.store(builder.fadd(builder.load(rest), builder.select(ahead, old, value)), rest)
            builder.store(builder.select(ahead, value, old), largest)
        for place, value in enumerate((builder.load(rest), best)):
            offset = builder.add(args[10], ir.Constant(I64, place * LANES))
            store(context, builder, sig, args, 9, offset, F64, value)
        return context.get_dummy_value()

    return sig, codegen


soften64 = operation(_type_soften64, groups.soften64)


def _adding(join: Callable[..., Any]) -> Callable[..., Any]:
    """Typing of an operation that joins posteriors: see `add_posterior`."""

    def typing(
        typingctx: Any, e: Any, o: Any, n_classes: Any, sums: Any, s: Any, weight: Any, first: Any, out: Any, p: Any
    ) -> Any:
        whole = types.int64
        sig = types.void(e, whole, whole, sums, whole, types.float64, types.boolean, out, whole)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            rest = load(context, builder, sig, args, 3, args[4], F64)
            one = constant_of(F64, 1.0)
            total = builder.fadd(one, rest)
            inverse = builder.fdiv(one, total)
            first = builder.trunc(args[6], ir.IntType(1))
            weight = splat(builder, F64, args[5])
            with cgutils.for_range(builder, args[2]) as loop:
                value = load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
                place = _lanes(builder, args[8], loop.index)
                share = builder.fmul(value, inverse)
                old = load(context, builder, sig, args, 7, place, F64)
                old = builder.select(first, constant_of(F64, 0.0), old)
                missed = builder.select(builder.fcmp_ordered("==", value, one), rest, builder.fsub(total, value))
                joint = join(builder, old, share, builder.fmul(missed, inverse), weight)
                store(context, builder, sig, args, 7, place, F64, joint)
            return context.get_dummy_value()

        return sig, codegen

    return typing


add_posterior = operation(
    _adding(lambda builder, old, share, missed, weight: builder.fadd(old, builder.fmul(weight, share))),
    groups.add_posterior,
)
unite_posterior = operation(
    _adding(lambda builder, old, share, missed, weight: builder.fadd(builder.fmul(old, missed), share)),
    groups.unite_posterior,
)
larger_posterior = operation(
    _adding(lambda builder, old, share, missed, weight: greater(builder, share, old)), groups.larger_posterior
)


def _type_finish(typingctx: Any, u: Any, o: Any, n_classes: Any, in_logs: Any, sums: Any, s: Any) -> Any:
    whole = types.int64
    sig = types.int64(u, whole, whole, types.boolean, sums, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        total = cgutils.alloca_once_value(builder, constant_of(F64, 0.0))
        least = cgutils.alloca_once_value(builder, constant_of(F64, 1.0))
        with cgutils.for_range(builder, args[2]) as loop:
            value = load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
            builder.store(builder.fadd(builder.load(total), value), total)
            builder.store(_less(builder, value, builder.load(least)), least)
        whole_sum = builder.load(total)
        faint = mask_of(builder, builder.fcmp_ordered("<", builder.load(least), constant_of(F64, 1e-280)))
        with builder.if_else(builder.trunc(args[3], ir.IntType(1))) as (logs, probabilities):
            with logs:
                below = _log(builder, whole_sum)
                store(context, builder, sig, args, 4, args[5], F64, below)
                with cgutils.for_range(builder, args[2]) as loop:
                    place = _lanes(builder, args[1], loop.index)
                    value = _log(builder, load(context, builder, sig, args, 0, place, F64))
                    store(context, builder, sig, args, 0, place, F64, builder.fsub(value, below))
            with probabilities:
                inverse = builder.fdiv(constant_of(F64, 1.0), whole_sum)
                with cgutils.for_range(builder, args[2]) as loop:
                    place = _lanes(builder, args[1], loop.index)
                    value = builder.fmul(load(context, builder, sig, args, 0, place, F64), inverse)
                    store(context, builder, sig, args, 0, place, F64, value)
        return faint

    return sig, codegen


finish = operation(_type_finish, groups.finish)


def _type_shift(typingctx: Any, u: Any, o: Any, n_classes: Any, scores: Any, p: Any, sums: Any, s: Any) -> Any:
    whole = types.int64
    sig = types.void(u, whole, whole, scores, whole, sums, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rest = load(context, builder, sig, args, 5, args[6], F64)
        best = load(context, builder, sig, args, 5, builder.add(args[6], ir.Constant(I64, LANES)), F64)
        below = _log(builder, builder.fadd(constant_of(F64, 1.0), rest))
        with cgutils.for_range(builder, args[2]) as loop:
            value = load(context, builder, sig, args, 3, _lanes(builder, args[4], loop.index), F64)
            place = _lanes(builder, args[1], loop.index)
            value = builder.fsub(builder.fsub(value, best), below)
            store(context, builder, sig, args, 0, place, F64, value)
        return context.get_dummy_value()

    return sig, codegen


shift = operation(_type_shift, groups.shift)


def _type_first_largest(typingctx: Any, u: Any, o: Any, n_classes: Any, narrow: Any, winners: Any, w: Any) -> Any:
    whole = types.int64
    sig = types.int64(u, whole, whole, types.boolean, winners, whole)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        best = cgutils.alloca_once_value(builder, constant_of(F64, float("-inf")))
        winner = cgutils.alloca_once_value(builder, constant_of(I32, 0))
        narrow = builder.trunc(args[3], ir.IntType(1))
        with cgutils.for_range(builder, args[2]) as loop:
            value = load(context, builder, sig, args, 0, _lanes(builder, args[1], loop.index), F64)
            rounded = builder.fpext(builder.fptrunc(value, vector_of(F32)), vector_of(F64))
            value = builder.select(narrow, rounded, value)
            old = builder.load(best)
            ahead = builder.fcmp_ordered(">", value, old)
            k = splat(builder, I32, builder.trunc(loop.index, I32))
            builder.store(builder.select(ahead, k, builder.load(winner)), winner)
            builder.store(builder.select(ahead, value, old), best)
        wanted = load(context, builder, sig, args, 4, args[5], I32)
        return mask_of(builder, builder.icmp_signed("!=", builder.load(winner), wanted))

    return sig, codegen


first_largest = operation(_type_first_largest, groups.first_largest)
