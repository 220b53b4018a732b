"""Sixteen scores at a time: the vector operations that the row kernels are made of.

Each operation is written once as LLVM vector instructions (legal on any processor: LLVM splits the
vectors as the hardware needs) and once as plain Python, which runs when numba's JIT is off and says
what the instructions mean. A *row* is a unit's K scores in a float32 tile, padded to whole vectors;
``bias`` and ``slope`` tables are padded the same way, and padding lanes carry -inf in a bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from unoic_cli.kernels import groups
from unoic_cli.kernels.constants import LANES as LANES
from unoic_cli.kernels.groups import bits_of as bits_of
from unoic_cli.kernels.jit import JIT_DISABLED

F16, F32, F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


def vector_of(element: Any) -> Any:
    """Sixteen lanes of an element type."""
    return ir.VectorType(element, LANES)


def constant_of(element: Any, value: Any) -> Any:
    """The same value in sixteen lanes."""
    return ir.Constant(vector_of(element), [value] * LANES)


def pointer_to(context: Any, builder: Any, sig: Any, args: Any, i: int, offset: Any, element: Any) -> Any:
    """Pointer to the sixteen elements at an offset of array argument i."""
    data = context.make_array(sig.args[i])(context, builder, args[i]).data
    return builder.bitcast(builder.gep(data, [offset]), vector_of(element).as_pointer())


def splat(builder: Any, element: Any, scalar: Any) -> Any:
    """A scalar in all sixteen lanes."""
    undefined = ir.Constant(vector_of(element), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, undefined, constant_of(I32, 0))


def _largest(builder: Any, vector: Any) -> Any:
    """Reduce sixteen floats to their maximum; no lane is NaN (callers check the tile first)."""
    name = "llvm.vector.reduce.fmax.v16f32"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(F32, [vector_of(F32)]), name)
    return builder.call(function, [vector], fastmath=("nnan", "nsz"))


def greater(builder: Any, a: Any, b: Any) -> Any:
    """The larger of each lane; b where they are not ordered."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def has_half_hardware(context: Any) -> bool:
    """Whether the processor converts halves itself; elsewhere `fpext half` needs a library that may be missing."""
    features = str(context.codegen().magic_tuple()[2])
    return "+f16c" in features or "+avx512fp16" in features


def half_to_float(context: Any, builder: Any, bits: Any) -> Any:
    """Sixteen float16 bit patterns to float32, exactly."""
    if has_half_hardware(context):
        return builder.fpext(builder.bitcast(bits, vector_of(F16)), vector_of(F32))
    wide = builder.zext(bits, vector_of(I32))
    sign = builder.shl(builder.and_(wide, constant_of(I32, 0x8000)), constant_of(I32, 16))
    magnitude = builder.and_(wide, constant_of(I32, 0x7FFF))
    shifted = builder.bitcast(builder.shl(magnitude, constant_of(I32, 13)), vector_of(F32))
    scaled = builder.bitcast(builder.fmul(shifted, constant_of(F32, 2.0**112)), vector_of(I32))
    special = builder.icmp_unsigned(">=", magnitude, constant_of(I32, 0x7C00))
    infinite = builder.select(special, constant_of(I32, 0x7F800000), constant_of(I32, 0))
    return builder.bitcast(builder.or_(builder.or_(scaled, infinite), sign), vector_of(F32))


def operation(typing: Callable[..., Any], plain: Callable[..., Any]) -> Any:
    """The compiled operation, or its plain Python twin when the JIT is off."""
    return plain if JIT_DISABLED else intrinsic(typing)


def swap_blocks(builder: Any, vectors: list[Any]) -> list[Any]:
    """Transpose sixteen vectors of sixteen lanes: swap off-diagonal blocks of 8, 4, 2, 1."""
    undefined_i32 = [ir.Constant(I32, 0)] * LANES
    for size in (8, 4, 2, 1):
        for i in range(LANES):
            if i & size:
                continue
            a, b = vectors[i], vectors[i + size]
            low, high = list(undefined_i32), list(undefined_i32)
            for lane in range(LANES):
                first = not lane & size
                low[lane] = ir.Constant(I32, lane if first else LANES + lane - size)
                high[lane] = ir.Constant(I32, lane + size if first else LANES + lane)
            masks = [ir.Constant(vector_of(I32), mask) for mask in (low, high)]
            vectors[i], vectors[i + size] = (builder.shuffle_vector(a, b, mask) for mask in masks)
    return vectors


# ---------------------------------------------------------------- widen: stored scores -> float32


def plain_half(bits: Any) -> Any:
    """float16 bit patterns as float32."""
    return bits.view(np.float16).astype(np.float32)


def plain_bfloat16(bits: Any) -> Any:
    """bfloat16 bit patterns as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _widen(stored: Any, convert: Callable[..., Any]) -> Callable[..., Any]:
    def typing(typingctx: Any, raw: Any, i: Any, out: Any, o: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            bits = builder.load(pointer_to(context, builder, sig, args, 0, args[1], stored))
            bits.align = 1
            target = pointer_to(context, builder, sig, args, 2, args[3], F32)
            builder.store(convert(context, builder, bits), target).align = 4
            return context.get_dummy_value()

        return types.void(raw, i, out, o), codegen

    return typing


def bfloat16_to_float(context: Any, builder: Any, bits: Any) -> Any:
    """Sixteen bfloat16 bit patterns to float32, exactly."""
    return builder.bitcast(builder.shl(builder.zext(bits, vector_of(I32)), constant_of(I32, 16)), vector_of(F32))


def same(context: Any, builder: Any, values: Any) -> Any:
    """Sixteen float32 as they are."""
    return values


def narrow(context: Any, builder: Any, values: Any) -> Any:
    """Sixteen float64 to float32, rounded to nearest."""
    return builder.fptrunc(values, vector_of(F32))


def _plain_widen(convert: Callable[..., Any]) -> Callable[..., Any]:
    def plain(raw: Any, i: int, out: Any, o: int) -> None:
        with np.errstate(over="ignore"):
            out[o : o + LANES] = convert(raw[i : i + LANES])

    return plain


widen_half = operation(_widen(I16, half_to_float), _plain_widen(plain_half))
"""widen_half(raw, i, out, o): raw[i:i+16], float16 bits, to out[o:o+16]."""
widen_bfloat16 = operation(_widen(I16, bfloat16_to_float), _plain_widen(plain_bfloat16))
"""The same from bfloat16 bits."""
widen_float32 = operation(_widen(F32, same), _plain_widen(lambda values: values))
"""The same from float32: a copy."""
widen_float64 = operation(_widen(F64, narrow), _plain_widen(lambda values: values.astype(np.float32)))
"""The same from float64, rounded to nearest."""


# ---------------------------------------------------------------- scale, and the largest magnitude


def _type_scale(typingctx: Any, out: Any, o: Any, factor: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = pointer_to(context, builder, sig, args, 0, args[1], F32)
        values = builder.load(pointer)
        values.align = 4
        builder.store(builder.fmul(values, splat(builder, F32, args[2])), pointer).align = 4
        return context.get_dummy_value()

    return types.void(out, o, types.float32), codegen


def _plain_scale(out: Any, o: int, factor: float) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        out[o : o + LANES] *= np.float32(factor)


scale = operation(_type_scale, _plain_scale)
"""scale(out, o, factor): out[o:o+16] *= factor, in float32."""


def _type_magnitude(typingctx: Any, tile: Any, n_vectors: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        highest = cgutils.alloca_once_value(builder, constant_of(I32, 0))
        with cgutils.for_range(builder, args[1]) as loop:
            offset = builder.mul(loop.index, ir.Constant(I64, LANES))
            values = builder.load(pointer_to(context, builder, sig, args, 0, offset, I32))
            values.align = 4
            values = builder.and_(values, constant_of(I32, 0x7FFFFFFF))
            best = builder.load(highest)
            builder.store(builder.select(builder.icmp_unsigned(">", values, best), values, best), highest)
        name = "llvm.vector.reduce.umax.v16i32"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, [vector_of(I32)]), name)
        return builder.bitcast(builder.call(function, [builder.load(highest)]), F32)

    return types.float32(tile, types.int64), codegen


def _plain_magnitude(tile: Any, n_vectors: int) -> Any:
    bits = (tile[: n_vectors * LANES].view(np.uint32) & np.uint32(0x7FFFFFFF)).max(initial=0)
    return np.asarray(bits, dtype=np.uint32).view(np.float32)[()]


magnitude = operation(_type_magnitude, _plain_magnitude)
"""magnitude(tile, n_vectors): the largest magnitude in a tile; inf or NaN as soon as one score is."""


# ---------------------------------------------------------------- one row of scores


def _type_row_ends(typingctx: Any, tile: Any, o: Any, n_vectors: Any, bias0: Any, bias1: Any) -> Any:
    sig = types.UniTuple(types.float32, 2)(tile, types.int64, types.int64, bias0, bias1)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        best = [cgutils.alloca_once_value(builder, constant_of(F32, float("-inf"))) for _ in range(2)]
        with cgutils.for_range(builder, args[2]) as loop:
            offset = builder.mul(loop.index, ir.Constant(I64, LANES))
            values = builder.load(pointer_to(context, builder, sig, args, 0, builder.add(args[1], offset), F32))
            values.align = 4
            for i in range(2):
                bias = builder.load(pointer_to(context, builder, sig, args, 3 + i, offset, F32))
                bias.align = 4
                builder.store(greater(builder, builder.fadd(values, bias), builder.load(best[i])), best[i])
        return context.make_tuple(builder, sig.return_type, [_largest(builder, builder.load(b)) for b in best])

    return sig, codegen


def _plain_row_ends(tile: Any, o: int, n_vectors: int, bias0: Any, bias1: Any) -> tuple[Any, Any]:
    row = tile[o : o + n_vectors * LANES]
    return (row + bias0).max(), (row + bias1).max()


row_ends = operation(_type_row_ends, _plain_row_ends)
"""row_ends(tile, o, n_vectors, bias0, bias1): the largest of row + bias0, and of row + bias1."""


def mask_of(builder: Any, condition: Any) -> Any:
    """A lane-wise condition as the low sixteen bits of an int64."""
    return builder.zext(builder.bitcast(condition, ir.IntType(LANES)), I64)


def _type_lanes_above(typingctx: Any, tile: Any, o: Any, bias: Any, b: Any, threshold: Any) -> Any:
    sig = types.int64(tile, types.int64, bias, types.int64, types.float32)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = builder.load(pointer_to(context, builder, sig, args, 0, args[1], F32))
        values.align = 4
        bias = builder.load(pointer_to(context, builder, sig, args, 2, args[3], F32))
        bias.align = 4
        threshold = splat(builder, F32, args[4])
        return mask_of(builder, builder.fcmp_ordered(">=", builder.fadd(values, bias), threshold))

    return sig, codegen


def _plain_lanes_above(tile: Any, o: int, bias: Any, b: int, threshold: float) -> int:
    return bits_of(tile[o : o + LANES] + bias[b : b + LANES] >= np.float32(threshold))


lanes_above = operation(_type_lanes_above, _plain_lanes_above)
"""lanes_above(tile, o, bias, b, threshold): bit i is set where tile[o+i] + bias[b+i] >= threshold."""


def _type_lanes_above_line(typingctx: Any, tile: Any, o: Any, slope: Any, b: Any, at: Any, threshold: Any) -> Any:
    sig = types.int64(tile, types.int64, slope, types.int64, types.float32, types.float32)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = builder.load(pointer_to(context, builder, sig, args, 0, args[1], F32))
        values.align = 4
        slope = builder.load(pointer_to(context, builder, sig, args, 2, args[3], F32))
        slope.align = 4
        moved = builder.fadd(values, builder.fmul(slope, splat(builder, F32, args[4])))
        return mask_of(builder, builder.fcmp_ordered(">=", moved, splat(builder, F32, args[5])))

    return sig, codegen


def _plain_lanes_above_line(tile: Any, o: int, slope: Any, b: int, at: float, threshold: float) -> int:
    moved = tile[o : o + LANES] + slope[b : b + LANES] * np.float32(at)
    return bits_of(moved >= np.float32(threshold))


lanes_above_line = operation(_type_lanes_above_line, _plain_lanes_above_line)
"""lanes_above_line(tile, o, slope, b, at, threshold): bit i is set where tile[o+i] + at * slope[b+i] >= threshold."""


# ---------------------------------------------------------------- bit masks


def _type_first_lane(typingctx: Any, mask: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), codegen


first_lane = operation(_type_first_lane, groups.first_lane)
"""first_lane(mask): index of the lowest bit that is set; 64 when none is."""


# ---------------------------------------------------------------- array elements without wrapping negative indices


def _element(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


def _type_at(typingctx: Any, array: Any, i: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.load(_element(context, builder, sig, args))
        return context.cast(builder, value, sig.args[0].dtype, sig.return_type)

    returned = array.dtype if isinstance(array.dtype, types.Float) else types.int64
    return returned(array, types.int64), codegen


at = operation(_type_at, lambda array, i: array[i])
"""at(array, i): array[i] of a one-dimensional array, i in range; integers come as int64."""


def _type_put(typingctx: Any, array: Any, i: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        stored = context.cast(builder, args[2], sig.args[2], sig.args[0].dtype)
        builder.store(stored, _element(context, builder, sig, args))
        return context.get_dummy_value()

    return types.void(array, types.int64, value), codegen


def _plain_put(array: Any, i: int, value: Any) -> None:
    array[i] = value


put = operation(_type_put, _plain_put)
"""put(array, i, value): array[i] = value of a one-dimensional array, i in range."""


def _type_add_at(typingctx: Any, array: Any, i: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _element(context, builder, sig, args)
        value = context.cast(builder, args[2], sig.args[2], sig.args[0].dtype)
        builder.store(builder.add(builder.load(pointer), value), pointer)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), codegen


def _plain_add_at(array: Any, i: int, value: int) -> None:
    array[i] += value


add_at = operation(_type_add_at, _plain_add_at)
"""add_at(array, i, value): array[i] += value of a one-dimensional array of integers, i in range."""


# ---------------------------------------------------------------- what will be read soon


def _type_fetch(typingctx: Any, array: Any, i: Any, n_bytes: Any) -> Any:
    sig = types.void(array, types.int64, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        first = builder.bitcast(_element(context, builder, sig, args), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        with cgutils.for_range_slice(builder, ir.Constant(I64, 0), args[2], ir.Constant(I64, 64), I64) as (place, _):
            hint = [ir.Constant(I32, value) for value in (0, 3, 1)]
            builder.call(function, [builder.gep(first, [place]), *hint])
        return context.get_dummy_value()

    return sig, codegen


fetch = operation(_type_fetch, lambda array, i, n_bytes: None)
"""fetch(array, i, n_bytes): ask for n_bytes from array[i] on to be brought near; they need not exist."""
