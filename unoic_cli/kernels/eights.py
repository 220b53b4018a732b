"""Eight float64 at a time: stored scores of eight units, exponentials and logarithms, class-major.

Every step is one IEEE operation of a lane of its own, so that a unit has the same bits in any layout, at any place,
and without the JIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from unoic_cli.kernels.constants import EXP, LN2_HIGH, LN2_LOW, LOG, LOG2_E, MAGIC, ROOT_HALF_BITS
from unoic_cli.kernels.simd import has_half_hardware, operation, plain_bfloat16, plain_half

WIDTH = 8
"""Units at a time: (K, 8) float64 fit the memory of a workspace's tile at any K."""

F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)

_TWO_52_BITS = 0x4330000000000000


def vector(element: Any) -> Any:
    """Eight lanes of an element type."""
    return ir.VectorType(element, WIDTH)


def constant(element: Any, value: Any) -> Any:
    """The same value in eight lanes."""
    return ir.Constant(vector(element), [value] * WIDTH)


def splat(builder: Any, element: Any, scalar: Any) -> Any:
    """A scalar in all eight lanes."""
    undefined = ir.Constant(vector(element), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, undefined, constant(I32, 0))


def data_of(context: Any, builder: Any, sig: Any, args: Any, i: int) -> Any:
    """The data of array argument i."""
    return context.make_array(sig.args[i])(context, builder, args[i]).data


def lanes(builder: Any, data: Any, offset: Any, element: Any) -> Any:
    """Pointer to eight elements, counted in whole elements of its own type."""
    own = builder.bitcast(data, element.as_pointer())
    return builder.bitcast(builder.gep(own, [offset]), vector(element).as_pointer())


def load_row(builder: Any, data: Any, row: Any, element: Any) -> Any:
    """Row `row` of rows of eight elements."""
    values = builder.load(lanes(builder, data, builder.mul(row, ir.Constant(I64, WIDTH)), element))
    values.align = 8
    return values


def store_row(builder: Any, data: Any, row: Any, element: Any, values: Any) -> None:
    """Write row `row` of rows of eight elements."""
    builder.store(values, lanes(builder, data, builder.mul(row, ir.Constant(I64, WIDTH)), element)).align = 8


# ---------------------------------------------------------------- eight stored scores of one class to float64


def _half_to_double(context: Any, builder: Any, bits: Any) -> Any:
    if has_half_hardware(context):
        floats = builder.fpext(builder.bitcast(bits, vector(F16)), vector(F32))
        return builder.fpext(floats, vector(F64))
    wide = builder.zext(bits, vector(I32))
    sign = builder.shl(builder.and_(wide, constant(I32, 0x8000)), constant(I32, 16))
    magnitude = builder.and_(wide, constant(I32, 0x7FFF))
    shifted = builder.bitcast(builder.shl(magnitude, constant(I32, 13)), vector(F32))
    scaled = builder.bitcast(builder.fmul(shifted, constant(F32, 2.0**112)), vector(I32))
    special = builder.icmp_unsigned(">=", magnitude, constant(I32, 0x7C00))
    infinite = builder.select(special, constant(I32, 0x7F800000), constant(I32, 0))
    floats = builder.bitcast(builder.or_(builder.or_(scaled, infinite), sign), vector(F32))
    return builder.fpext(floats, vector(F64))


def _to_double(context: Any, builder: Any, stored: Any, values: Any, brain: Any) -> Any:
    if stored == types.float64:
        return values
    if stored == types.float32:
        return builder.fpext(values, vector(F64))
    halves = _half_to_double(context, builder, values)
    bits = builder.shl(builder.zext(values, vector(I32)), constant(I32, 16))
    brains = builder.fpext(builder.bitcast(bits, vector(F32)), vector(F64))
    return builder.select(brain, brains, halves)


def _element(stored: Any) -> Any:
    return {types.float64: F64, types.float32: F32}.get(stored, I16)


def _type_fetch(typingctx: Any, raw: Any, brain: Any, i: Any, tile: Any, k: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = builder.load(lanes(builder, data_of(context, builder, sig, args, 0), args[2], _element(raw.dtype)))
        values.align = 1
        wide = _to_double(context, builder, raw.dtype, values, args[1])
        offset = builder.mul(args[4], ir.Constant(I64, WIDTH))
        builder.store(wide, lanes(builder, data_of(context, builder, sig, args, 3), offset, F64)).align = 8
        return context.get_dummy_value()

    return types.void(raw, types.boolean, types.int64, tile, types.int64), codegen


def _type_gather(typingctx: Any, raw: Any, brain: Any, i: Any, step: Any, n: Any, tile: Any, k: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element = _element(raw.dtype)
        data = builder.bitcast(data_of(context, builder, sig, args, 0), element.as_pointer())
        last = builder.sub(args[4], ir.Constant(I64, 1))
        values = ir.Constant(vector(element), ir.Undefined)
        for lane in range(WIDTH):
            number = ir.Constant(I64, lane)
            number = builder.select(builder.icmp_signed("<", number, last), number, last)
            at = builder.add(args[2], builder.mul(number, args[3]))
            values = builder.insert_element(values, builder.load(builder.gep(data, [at])), ir.Constant(I32, lane))
        wide = _to_double(context, builder, raw.dtype, values, args[1])
        offset = builder.mul(args[6], ir.Constant(I64, WIDTH))
        builder.store(wide, lanes(builder, data_of(context, builder, sig, args, 5), offset, F64)).align = 8
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


# ---------------------------------------------------------------- exponentials and logarithms


def _polynomial(builder: Any, coefficients: Sequence[float], x: Any) -> Any:
    """Horner, as `_plain_polynomial`."""
    value = constant(F64, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = builder.fadd(builder.fmul(value, x), constant(F64, coefficient))
    return value


def exp(builder: Any, x: Any) -> Any:
    """exp(x) for x in [`LEAST`, 700]; `plain._exp_series`."""
    moved = builder.fadd(builder.fmul(x, constant(F64, LOG2_E)), constant(F64, MAGIC))
    whole = builder.fsub(moved, constant(F64, MAGIC))
    rest = builder.fsub(x, builder.fmul(whole, constant(F64, LN2_HIGH)))
    rest = builder.fsub(rest, builder.fmul(whole, constant(F64, LN2_LOW)))
    exponent = builder.add(builder.bitcast(moved, vector(I64)), constant(I64, 1023))
    scale = builder.bitcast(builder.shl(exponent, constant(I64, 52)), vector(F64))
    squared = builder.fmul(rest, rest)
    odd = builder.fmul(_polynomial(builder, EXP[1::2], squared), rest)
    return builder.fmul(builder.fadd(_polynomial(builder, EXP[::2], squared), odd), scale)


def log(builder: Any, x: Any) -> Any:
    """log(x) for x >= 1; `plain._log_series`."""
    bits = builder.bitcast(x, vector(I64))
    exponent = builder.lshr(builder.sub(bits, constant(I64, ROOT_HALF_BITS)), constant(I64, 52))
    mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, constant(I64, 52))), vector(F64))
    one = constant(F64, 1.0)
    f = builder.fdiv(builder.fsub(mantissa, one), builder.fadd(mantissa, one))
    series = builder.fmul(_polynomial(builder, LOG, builder.fmul(f, f)), f)
    power = builder.bitcast(builder.or_(exponent, constant(I64, _TWO_52_BITS)), vector(F64))
    power = builder.fsub(power, constant(F64, 2.0**52))
    return builder.fadd(builder.fmul(power, constant(F64, LN2_HIGH + LN2_LOW)), series)


# ---------------------------------------------------------------- single lanes


def _type_word(typingctx: Any, tile: Any, i: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = builder.bitcast(data_of(context, builder, sig, args, 0), I64.as_pointer())
        return builder.load(builder.gep(data, [args[1]]))

    return types.int64(tile, types.int64), codegen


word = operation(_type_word, lambda tile, i: tile.view(np.int64)[i])
"""word(tile, i): the i-th eight bytes of a tile as an integer."""
