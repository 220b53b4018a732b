"""Entropy of the softmax of each unit: the uncertainty from which delta is made.

With x_k = z_k - max z and S = sum_k exp(x_k), the entropy is log S - sum_k x_k exp(x_k) / S: two terms that are never
negative. Eight units go at a time, class-major, in float64; every step is one IEEE operation of a lane of its own,
so a unit's entropy has the same bits in any layout, at any place, and without the JIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from unoic_cli.kernels import plain
from unoic_cli.kernels.constants import (
    EXP,
    FIXED_POINT,
    LEAST,
    LN2_HIGH,
    LN2_LOW,
    LOG,
    LOG2_E,
    MAGIC,
    MAGIC_BITS,
    ROOT_HALF_BITS,
)
from unoic_cli.kernels.jit import inlined, kernel
from unoic_cli.kernels.lines import Workspace
from unoic_cli.kernels.posterior import unit_source
from unoic_cli.kernels.simd import first_lane, has_half_hardware, operation, plain_bfloat16, plain_half

WIDTH = 8
"""Units at a time: (K, 8) float64 fit the memory of a workspace's tile at any K."""

_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)

_TWO_52_BITS = 0x4330000000000000


def _vector(element: Any) -> Any:
    return ir.VectorType(element, WIDTH)


def _constant(element: Any, value: Any) -> Any:
    return ir.Constant(_vector(element), [value] * WIDTH)


def _data(context: Any, builder: Any, sig: Any, args: Any, i: int) -> Any:
    return context.make_array(sig.args[i])(context, builder, args[i]).data


def _lanes(builder: Any, data: Any, offset: Any, element: Any) -> Any:
    """Pointer to eight elements, counted in whole elements of its own type."""
    own = builder.bitcast(data, element.as_pointer())
    return builder.bitcast(builder.gep(own, [offset]), _vector(element).as_pointer())


# ---------------------------------------------------------------- eight stored scores of one class to float64


def _half_to_double(context: Any, builder: Any, bits: Any) -> Any:
    if has_half_hardware(context):
        floats = builder.fpext(builder.bitcast(bits, _vector(_F16)), _vector(_F32))
        return builder.fpext(floats, _vector(_F64))
    wide = builder.zext(bits, _vector(_I32))
    sign = builder.shl(builder.and_(wide, _constant(_I32, 0x8000)), _constant(_I32, 16))
    magnitude = builder.and_(wide, _constant(_I32, 0x7FFF))
    shifted = builder.bitcast(builder.shl(magnitude, _constant(_I32, 13)), _vector(_F32))
    scaled = builder.bitcast(builder.fmul(shifted, _constant(_F32, 2.0**112)), _vector(_I32))
    special = builder.icmp_unsigned(">=", magnitude, _constant(_I32, 0x7C00))
    infinite = builder.select(special, _constant(_I32, 0x7F800000), _constant(_I32, 0))
    floats = builder.bitcast(builder.or_(builder.or_(scaled, infinite), sign), _vector(_F32))
    return builder.fpext(floats, _vector(_F64))


def _to_double(context: Any, builder: Any, stored: Any, values: Any, brain: Any) -> Any:
    if stored == types.float64:
        return values
    if stored == types.float32:
        return builder.fpext(values, _vector(_F64))
    halves = _half_to_double(context, builder, values)
    bits = builder.shl(builder.zext(values, _vector(_I32)), _constant(_I32, 16))
    brains = builder.fpext(builder.bitcast(bits, _vector(_F32)), _vector(_F64))
    return builder.select(brain, brains, halves)


def _element(stored: Any) -> Any:
    return {types.float64: _F64, types.float32: _F32}.get(stored, _I16)


def _type_fetch(typingctx: Any, raw: Any, brain: Any, i: Any, tile: Any, k: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = builder.load(_lanes(builder, _data(context, builder, sig, args, 0), args[2], _element(raw.dtype)))
        values.align = 1
        wide = _to_double(context, builder, raw.dtype, values, args[1])
        offset = builder.mul(args[4], ir.Constant(_I64, WIDTH))
        builder.store(wide, _lanes(builder, _data(context, builder, sig, args, 3), offset, _F64)).align = 8
        return context.get_dummy_value()

    return types.void(raw, types.boolean, types.int64, tile, types.int64), codegen


def _type_gather(typingctx: Any, raw: Any, brain: Any, i: Any, step: Any, n: Any, tile: Any, k: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element = _element(raw.dtype)
        data = builder.bitcast(_data(context, builder, sig, args, 0), element.as_pointer())
        last = builder.sub(args[4], ir.Constant(_I64, 1))
        values = ir.Constant(_vector(element), ir.Undefined)
        for lane in range(WIDTH):
            number = ir.Constant(_I64, lane)
            number = builder.select(builder.icmp_signed("<", number, last), number, last)
            at = builder.add(args[2], builder.mul(number, args[3]))
            values = builder.insert_element(values, builder.load(builder.gep(data, [at])), ir.Constant(_I32, lane))
        wide = _to_double(context, builder, raw.dtype, values, args[1])
        offset = builder.mul(args[6], ir.Constant(_I64, WIDTH))
        builder.store(wide, _lanes(builder, _data(context, builder, sig, args, 5), offset, _F64)).align = 8
        return context.get_dummy_value()

    whole = types.int64
    return types.void(raw, types.boolean, whole, whole, whole, tile, whole), codegen


def _plain_gather(raw: Any, brain: bool, i: int, step: int, n: int, tile: Any, k: int) -> None:
    values = raw[i + np.minimum(np.arange(WIDTH), n - 1) * step]
    if raw.dtype == np.uint16:
        values = plain_bfloat16(values) if brain else plain_half(values)
    tile.view(np.float64)[k * WIDTH : (k + 1) * WIDTH] = values


fetch = operation(_type_fetch, lambda raw, brain, i, tile, k: _plain_gather(raw, brain, i, 1, WIDTH, tile, k))
"""fetch(raw, brain, i, tile, k): stored scores raw[i:i+8] to row k of a (K, 8) float64 tile (in float32 memory)."""
gather = operation(_type_gather, _plain_gather)
"""gather(raw, brain, i, step, n, tile, k): raw[i], raw[i+step] ... of n units; the last is repeated in lanes beyond."""


# ---------------------------------------------------------------- the entropy of eight units


def _polynomial(builder: Any, coefficients: Sequence[float], x: Any) -> Any:
    """Horner, as `_plain_polynomial`."""
    value = _constant(_F64, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = builder.fadd(builder.fmul(value, x), _constant(_F64, coefficient))
    return value


def _exp(builder: Any, x: Any) -> Any:
    moved = builder.fadd(builder.fmul(x, _constant(_F64, LOG2_E)), _constant(_F64, MAGIC))
    whole = builder.fsub(moved, _constant(_F64, MAGIC))
    rest = builder.fsub(x, builder.fmul(whole, _constant(_F64, LN2_HIGH)))
    rest = builder.fsub(rest, builder.fmul(whole, _constant(_F64, LN2_LOW)))
    exponent = builder.add(builder.bitcast(moved, _vector(_I64)), _constant(_I64, 1023))
    scale = builder.bitcast(builder.shl(exponent, _constant(_I64, 52)), _vector(_F64))
    squared = builder.fmul(rest, rest)
    odd = builder.fmul(_polynomial(builder, EXP[1::2], squared), rest)
    return builder.fmul(builder.fadd(_polynomial(builder, EXP[::2], squared), odd), scale)


def _log(builder: Any, x: Any) -> Any:
    bits = builder.bitcast(x, _vector(_I64))
    exponent = builder.lshr(builder.sub(bits, _constant(_I64, ROOT_HALF_BITS)), _constant(_I64, 52))
    mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, _constant(_I64, 52))), _vector(_F64))
    one = _constant(_F64, 1.0)
    f = builder.fdiv(builder.fsub(mantissa, one), builder.fadd(mantissa, one))
    series = builder.fmul(_polynomial(builder, LOG, builder.fmul(f, f)), f)
    power = builder.bitcast(builder.or_(exponent, _constant(_I64, _TWO_52_BITS)), _vector(_F64))
    power = builder.fsub(power, _constant(_F64, 2.0**52))
    return builder.fadd(builder.fmul(power, _constant(_F64, LN2_HIGH + LN2_LOW)), series)


def _type_entropies(typingctx: Any, tile: Any, n_classes: Any, allow_zero: Any) -> Any:
    return types.int64(tile, types.int64, types.boolean), _build_entropies


def _build_entropies(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    data = _data(context, builder, sig, args, 0)

    def load(k: Any) -> Any:
        values = builder.load(_lanes(builder, data, builder.mul(k, ir.Constant(_I64, WIDTH)), _F64))
        values.align = 8
        return values

    highest, lowest = ir.Constant(_F64, -inf), ir.Constant(_F64, -np.finfo(np.float64).max)
    limit = builder.select(args[2], highest, lowest)  # smaller scores may not be there
    undefined = ir.Constant(_vector(_F64), ir.Undefined)
    limits = builder.insert_element(undefined, limit, ir.Constant(_I32, 0))
    limits = builder.shuffle_vector(limits, undefined, _constant(_I32, 0))
    top = cgutils.alloca_once_value(builder, _constant(_F64, -inf))
    wrong = cgutils.alloca_once_value(builder, _constant(ir.IntType(1), 0))
    with cgutils.for_range(builder, args[1]) as loop:
        z, old = load(loop.index), builder.load(top)
        builder.store(builder.select(builder.fcmp_ordered(">", z, old), z, old), top)
        above = builder.fcmp_unordered(">=", z, _constant(_F64, inf))
        below = builder.fcmp_ordered("<", z, limits)
        builder.store(builder.or_(builder.load(wrong), builder.or_(above, below)), wrong)
    best = builder.load(top)
    total = cgutils.alloca_once_value(builder, _constant(_F64, 0.0))
    moment = cgutils.alloca_once_value(builder, _constant(_F64, 0.0))
    with cgutils.for_range(builder, args[1]) as loop:
        x = builder.fsub(load(loop.index), best)
        x = builder.select(builder.fcmp_ordered(">", x, _constant(_F64, LEAST)), x, _constant(_F64, LEAST))
        e = _exp(builder, x)
        builder.store(builder.fadd(builder.load(total), e), total)
        builder.store(builder.fadd(builder.load(moment), builder.fmul(e, x)), moment)
    s = builder.load(total)
    entropy = builder.fsub(_log(builder, s), builder.fdiv(builder.load(moment), s))
    scaled = builder.fadd(builder.fmul(entropy, _constant(_F64, FIXED_POINT)), _constant(_F64, MAGIC))
    units = builder.sub(builder.bitcast(scaled, _vector(_I64)), _constant(_I64, MAGIC_BITS))
    spare = builder.mul(args[1], ir.Constant(_I64, WIDTH))
    builder.store(units, _lanes(builder, data, spare, _I64)).align = 8
    empty = builder.fcmp_unordered("==", best, _constant(_F64, -inf))
    bad = builder.or_(builder.load(wrong), empty)
    return builder.zext(builder.bitcast(bad, ir.IntType(WIDTH)), _I64)


def _plain_entropies(tile: Any, n_classes: int, allow_zero: bool) -> int:
    z = tile.view(np.float64)[: n_classes * WIDTH].reshape(n_classes, WIDTH)
    spare = tile.view(np.int64)[n_classes * WIDTH : (n_classes + 1) * WIDTH]
    spare[:], bad = plain.entropies(z.T, allow_zero)
    return int((bad << np.arange(WIDTH)).sum())


entropies = operation(_type_entropies, _plain_entropies)
"""entropies(tile, n_classes, allow_zero): entropies of the eight units of a (K, 8) tile, in units of 2**-40 nats, to
its row K, as integers; bit i of the result is set when unit i is not valid."""


def _type_word(typingctx: Any, tile: Any, i: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = builder.bitcast(_data(context, builder, sig, args, 0), _I64.as_pointer())
        return builder.load(builder.gep(data, [args[1]]))

    return types.int64(tile, types.int64), codegen


word = operation(_type_word, lambda tile, i: tile.view(np.int64)[i])
"""word(tile, i): the i-th eight bytes of a tile as an integer."""


@inlined
def few_entropies(
    raw: Any, brain: bool, allow_zero: bool, source: int, across: int, step: int, n: int, n_classes: int, out: Any,
    unit: int, work: Workspace,
) -> Any:  # fmt: skip
    """Entropies of n <= 8 units, `across` apart, whose scores lie `step` apart; -1, or the first that is not valid."""
    for k in range(n_classes):
        if across == 1 and n == WIDTH:
            fetch(raw, brain, source + k * step, work.tile, k)
        else:
            gather(raw, brain, source + k * step, across, n, work.tile, k)
    bad = entropies(work.tile, n_classes, allow_zero) & ((1 << n) - 1)
    if bad:
        return unit + first_lane(bad)
    for i in range(n):
        out[unit + i] = word(work.tile, n_classes * WIDTH + i)
    return -1


@kernel
def entropy_of_units(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, n_units: int, n_classes: int, out: Any, work: Workspace
) -> int:
    """The softmax entropy of each unit's stored scores (no delta), in units of 2**-40 nats, rounded to nearest.

    Parameters
    ----------
    raw, brain, allow_zero
        Scores of a block, as in `unoic_cli.data.batch.Scores`.
    pixels : int
        P of a `planes` block (B, K, P); 0 for a `rows` block.
    n_units, n_classes : int
        T and K; every class counts, whatever its prior.
    out : (T,) int64
        Written up to the first unit that is not valid.
    work : Workspace
        Of K classes.

    Returns
    -------
    int
        -1, or the first unit whose scores are not valid.
    """
    run = pixels if pixels else n_units
    across, step = (1, pixels) if pixels else (n_classes, 1)
    for begin in range(0, n_units, max(run, 1)):
        for first in range(begin, begin + run, WIDTH):
            n = min(WIDTH, begin + run - first)
            source, _ = unit_source(first, n_classes, pixels)
            bad = few_entropies(raw, brain, allow_zero, source, across, step, n, n_classes, out, first, work)
            if bad >= 0:
                return bad
    return -1
