"""Sixteen scores at a time: the vector operations that the row kernels are made of.

Each operation is written once as LLVM vector instructions (legal on any processor: LLVM splits the
vectors as the hardware needs) and once as plain Python, which runs when numba's JIT is off and says
what the instructions mean. A *row* is a unit's K scores in a float32 tile, padded to whole vectors;
``bias`` and ``slope`` tables are padded the same way, and padding lanes carry -inf in a bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from unoic_cli.kernels import groups
from unoic_cli.kernels.constants import LANES as LANES
from unoic_cli.kernels.constants import SEGMENT as SEGMENT
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


def load(context: Any, builder: Any, sig: Any, args: Any, i: int, offset: Any, element: Any) -> Any:
    """Sixteen elements at an offset of array argument i."""
    value = builder.load(pointer_to(context, builder, sig, args, i, offset, element))
    value.align = element.width // 8 if isinstance(element, ir.IntType) else 8 if element is F64 else 4
    return value


def store(context: Any, builder: Any, sig: Any, args: Any, i: int, offset: Any, element: Any, value: Any) -> None:
    """Sixteen elements to an offset of array argument i."""
    target = pointer_to(context, builder, sig, args, i, offset, element)
    builder.store(value, target).align = (
        element.width // 8 if isinstance(element, ir.IntType) else 8 if element is F64 else 4
    )


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


def mask_of(builder: Any, condition: Any) -> Any:
    """A lane-wise condition as the low sixteen bits of an int64."""
    return builder.zext(builder.bitcast(condition, ir.IntType(LANES)), I64)


def _any(builder: Any, condition: Any) -> Any:
    """Whether a lane-wise condition holds somewhere."""
    return builder.icmp_unsigned("!=", builder.bitcast(condition, ir.IntType(LANES)), ir.Constant(ir.IntType(LANES), 0))


def _reduce(builder: Any, name: str, vector: Any) -> Any:
    """Sixteen integers of 32 bits to one."""
    kind = ir.FunctionType(I32, [vector_of(I32)])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.{name}.v16i32")
    return builder.call(function, [vector])


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """A * b + c, with one rounding or two: whichever is faster."""
    kind = ir.FunctionType(vector_of(F32), [vector_of(F32)] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32"), [a, b, c])


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
        return builder.bitcast(_reduce(builder, "umax", builder.load(highest)), F32)

    return types.float32(tile, types.int64), codegen


def _plain_magnitude(tile: Any, n_vectors: int) -> Any:
    bits = (tile[: n_vectors * LANES].view(np.uint32) & np.uint32(0x7FFFFFFF)).max(initial=0)
    return np.asarray(bits, dtype=np.uint32).view(np.float32)[()]


magnitude = operation(_type_magnitude, _plain_magnitude)
"""magnitude(tile, n_vectors): the largest magnitude in a tile; inf or NaN as soon as one score is."""


# ---------------------------------------------------------------- one row of scores


AHEAD = 2048
"""Scores of a row are asked for so many before they are needed."""


def _segments(n_vectors: int) -> int:
    return -(-n_vectors // SEGMENT)


@contextmanager
def _segment(builder: Any, n_vectors: Any, backward: bool = False) -> Iterator[tuple[Any, Any, Any]]:
    """A loop over the segments of a row: which, its first vector, and how many it has."""
    size, one = ir.Constant(I64, SEGMENT), ir.Constant(I64, 1)
    n_segments = builder.udiv(builder.add(n_vectors, ir.Constant(I64, SEGMENT - 1)), size)
    with cgutils.for_range(builder, n_segments) as loop:
        segment = builder.sub(builder.sub(n_segments, one), loop.index) if backward else loop.index
        first = builder.mul(segment, size)
        rest = builder.sub(n_vectors, first)
        yield segment, first, builder.select(builder.icmp_signed("<", rest, size), rest, size)


def _slots(builder: Any, *values: Any) -> list[Any]:
    """Variables with these values, set anew wherever this stands."""
    slots = [cgutils.alloca_once(builder, value.type) for value in values]
    for slot, value in zip(slots, values, strict=True):
        builder.store(value, slot)
    return slots


def _raise(builder: Any, slot: Any, value: Any) -> None:
    builder.store(greater(builder, value, builder.load(slot)), slot)


def _peak(builder: Any, p: Any, segment: Any, end: int) -> Any:
    """Offset of the peaks of a segment at one end of the lattice, those of the row from p on."""
    return builder.add(p, builder.add(builder.mul(segment, ir.Constant(I64, 2 * LANES)), ir.Constant(I64, end * LANES)))


def _prefetch(builder: Any, pointer: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [pointer, *(ir.Constant(I32, value) for value in (0, 3, 1))])


def _row_ends(stored: Any, convert: Callable[..., Any]) -> Callable[..., Any]:
    def typing(
        typingctx: Any, raw: Any, i: Any, n_classes: Any, factor: Any, tile: Any, o: Any, bias0: Any, bias1: Any,
        peaks: Any, p: Any,
    ) -> Any:  # fmt: skip
        whole, real = types.int64, types.float32
        sig = types.UniTuple(real, 3)(raw, whole, whole, real, tile, whole, bias0, bias1, peaks, whole)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lowest = constant_of(F32, float("-inf"))
            factor, last = splat(builder, F32, args[3]), builder.sub(args[2], ir.Constant(I64, LANES))
            largest, *tops = _slots(builder, constant_of(I32, 0), lowest, lowest)
            n_vectors = builder.udiv(builder.add(args[2], ir.Constant(I64, LANES - 1)), ir.Constant(I64, LANES))
            with _segment(builder, n_vectors) as (segment, first, size):
                here = _slots(builder, lowest, lowest)
                with cgutils.for_range(builder, size) as loop:
                    k = builder.mul(builder.add(first, loop.index), ir.Constant(I64, LANES))
                    k = builder.select(builder.icmp_signed("<", k, last), k, last)
                    source = builder.add(args[1], k)
                    ahead = pointer_to(
                        context, builder, sig, args, 0, builder.add(source, ir.Constant(I64, AHEAD)), stored
                    )
                    _prefetch(builder, builder.bitcast(ahead, ir.IntType(8).as_pointer()))
                    values = builder.load(pointer_to(context, builder, sig, args, 0, source, stored))
                    values.align = 1
                    values = builder.fmul(convert(context, builder, values), factor)
                    store(context, builder, sig, args, 4, builder.add(args[5], k), F32, values)
                    size_of = builder.and_(builder.bitcast(values, vector_of(I32)), constant_of(I32, 0x7FFFFFFF))
                    old = builder.load(largest)
                    builder.store(builder.select(builder.icmp_signed(">", size_of, old), size_of, old), largest)
                    for i in range(2):
                        _raise(builder, here[i], builder.fadd(values, load(context, builder, sig, args, 6 + i, k, F32)))
                for i in range(2):
                    peak = builder.load(here[i])
                    store(context, builder, sig, args, 8, _peak(builder, args[9], segment, i), F32, peak)
                    _raise(builder, tops[i], peak)
            found = builder.bitcast(_reduce(builder, "umax", builder.load(largest)), F32)
            return context.make_tuple(
                builder, sig.return_type, [found, *(_largest(builder, builder.load(top)) for top in tops)]
            )

        return sig, codegen

    return typing


def _plain_row_ends(convert: Callable[..., Any]) -> Callable[..., Any]:
    def plain(
        raw: Any, i: int, n_classes: int, factor: float, tile: Any, o: int, bias0: Any, bias1: Any, peaks: Any, p: int
    ) -> tuple[Any, Any, Any]:
        row, peaks = tile[o:], peaks[p:]
        with np.errstate(all="ignore"):
            row[:n_classes] = convert(raw[i : i + n_classes]) * np.float32(factor)
        largest = np.abs(row[:n_classes]).view(np.int32).max().view(np.float32)
        starts = np.minimum(np.arange(0, n_classes, LANES), n_classes - LANES)
        for segment in range(_segments(starts.size)):
            classes = starts[segment * SEGMENT :][:SEGMENT, None] + np.arange(LANES)
            for i, bias in enumerate((bias0, bias1)):
                moved = row[classes] + bias[classes]
                peaks[(2 * segment + i) * LANES :][:LANES] = np.where(np.isnan(moved), -np.inf, moved).max(0)
        tops = peaks[: 2 * _segments(starts.size) * LANES].reshape(-1, 2, LANES).max((0, 2))
        return largest, tops[0], tops[1]

    return plain


row_ends_half = operation(_row_ends(I16, half_to_float), _plain_row_ends(plain_half))
"""row_ends_half(raw, i, n_classes, factor, tile, o, bias0, bias1, peaks, p): the K >= 16 scores raw[i:], float16 bits,
times factor, to row[:K], row = tile[o:]. Of row + bias0 and of row + bias1 the peaks of each segment go to
peaks[p + 2 * LANES * segment :]. Returns the largest magnitude (inf or NaN as soon as one score is) and the largest
value at both ends; NaN is never the largest. All that is read lies inside the row: the last vector overlaps the one
before it."""
row_ends_bfloat16 = operation(_row_ends(I16, bfloat16_to_float), _plain_row_ends(plain_bfloat16))
"""The same from bfloat16 bits."""
row_ends_float32 = operation(_row_ends(F32, same), _plain_row_ends(lambda values: values))
"""The same from float32."""
row_ends_float64 = operation(_row_ends(F64, narrow), _plain_row_ends(lambda values: values.astype(np.float32)))
"""The same from float64, rounded to nearest."""


def _type_leaders(
    typingctx: Any,
    tile: Any,
    o: Any,
    n_vectors: Any,
    bias0: Any,
    bias1: Any,
    peaks: Any,
    p: Any,
    floor0: Any,
    floor1: Any,
) -> Any:
    whole, real = types.int64, types.float32
    sig = types.UniTuple(whole, 4)(tile, whole, whole, bias0, bias1, peaks, whole, real, real)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        floors = [splat(builder, F32, args[i]) for i in (7, 8)]
        first = _slots(builder, *[constant_of(I32, 0x7FFFFFFF)] * 2)
        count = _slots(builder, *[constant_of(I32, 0)] * 2)
        lanes = ir.Constant(vector_of(I32), list(range(LANES)))
        with _segment(builder, args[2], backward=True) as (segment, start, size):  # so the first one comes last
            last = builder.sub(builder.add(start, size), ir.Constant(I64, 1))
            peaks = (
                load(context, builder, sig, args, 5, _peak(builder, args[6], segment, end), F32) for end in range(2)
            )
            near = (builder.fcmp_ordered(">=", peak, floor) for peak, floor in zip(peaks, floors, strict=True))
            with builder.if_then(_any(builder, builder.or_(*near))), cgutils.for_range(builder, size) as loop:
                offset = builder.mul(builder.sub(last, loop.index), ir.Constant(I64, LANES))
                values = load(context, builder, sig, args, 0, builder.add(args[1], offset), F32)
                k = builder.add(lanes, splat(builder, I32, builder.trunc(offset, I32)))
                for end in range(2):
                    moved = builder.fadd(values, load(context, builder, sig, args, 3 + end, offset, F32))
                    above = builder.fcmp_ordered(">=", moved, floors[end])
                    builder.store(builder.select(above, k, builder.load(first[end])), first[end])
                    more = builder.sub(builder.load(count[end]), builder.sext(above, vector_of(I32)))
                    builder.store(more, count[end])
        slots = [
            (name, slot)
            for pair in zip(first, count, strict=True)
            for name, slot in zip(("umin", "add"), pair, strict=True)
        ]
        numbers = [builder.zext(_reduce(builder, name, builder.load(slot)), I64) for name, slot in slots]
        return context.make_tuple(builder, sig.return_type, numbers)

    return sig, codegen


def _plain_leaders(
    tile: Any, o: int, n_vectors: int, bias0: Any, bias1: Any, peaks: Any, p: int, floor0: float, floor1: float
) -> tuple[int, int, int, int]:
    row, width, found = tile[o:], n_vectors * LANES, []
    for bias, floor in ((bias0, floor0), (bias1, floor1)):
        above = np.flatnonzero(row[:width] + bias[:width] >= np.float32(floor))
        found += [int(above[0]) if above.size else 0x7FFFFFFF, above.size]
    return found[0], found[1], found[2], found[3]


leaders = operation(_type_leaders, _plain_leaders)
"""leaders(tile, o, n_vectors, bias0, bias1, peaks, p, floor0, floor1): of the row tile[o:], the first class with
row + bias0 >= floor0 and how many there are; the same of bias1 and floor1. The peaks at p are those of `row_ends`."""


def _above(
    context: Any, builder: Any, sig: Any, args: Any, i: int, j: int, o: Any, b: Any, lam: Any, threshold: Any
) -> Any:
    """Which of sixteen lines, scores of argument i and slopes of argument j, reach a threshold at lambda."""
    values = load(context, builder, sig, args, i, o, F32)
    slope = load(context, builder, sig, args, j, b, F32)
    return builder.fcmp_ordered(">=", multiply_add(builder, slope, lam, values), threshold)


def _type_above_line(
    typingctx: Any, tile: Any, o: Any, n_vectors: Any, slope: Any, lam: Any, floor: Any, peaks: Any, p: Any, share: Any,
    margin: Any, segments: Any,
) -> Any:  # fmt: skip
    whole, real = types.int64, types.float32
    sig = types.UniTuple(whole, 2)(tile, whole, whole, slope, real, real, peaks, whole, real, real, segments)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lam, floor, share, margin = (splat(builder, F32, args[i]) for i in (4, 5, 8, 9))
        least = builder.fsub(floor, margin)
        count, n_segments = _slots(builder, constant_of(I32, 0), ir.Constant(I64, 0))
        with _segment(builder, args[2]) as (segment, start, size):
            left, right = (
                load(context, builder, sig, args, 6, _peak(builder, args[7], segment, end), F32) for end in range(2)
            )
            bound = builder.fadd(left, builder.fmul(share, builder.fsub(right, left)))
            with builder.if_then(_any(builder, builder.fcmp_unordered(">=", bound, least))):
                place = builder.load(n_segments)
                data = context.make_array(sig.args[10])(context, builder, args[10]).data
                builder.store(builder.trunc(segment, I32), builder.gep(data, [place]))
                builder.store(builder.add(place, ir.Constant(I64, 1)), n_segments)
                with cgutils.for_range(builder, size) as loop:
                    offset = builder.mul(builder.add(start, loop.index), ir.Constant(I64, LANES))
                    above = _above(context, builder, sig, args, 0, 3, builder.add(args[1], offset), offset, lam, floor)
                    builder.store(builder.sub(builder.load(count), builder.sext(above, vector_of(I32))), count)
        reached = builder.zext(_reduce(builder, "add", builder.load(count)), I64)
        return context.make_tuple(builder, sig.return_type, [reached, builder.load(n_segments)])

    return sig, codegen


def _plain_above_line(
    tile: Any, o: int, n_vectors: int, slope: Any, lam: float, floor: float, peaks: Any, p: int, share: float,
    margin: float, segments: Any,
) -> tuple[int, int]:  # fmt: skip
    width, n_segments = n_vectors * LANES, _segments(n_vectors)
    row = tile[o:]
    left, right = peaks[p:][: 2 * n_segments * LANES].reshape(-1, 2, LANES).swapaxes(0, 1)
    with np.errstate(invalid="ignore"):
        bound = left + np.float32(share) * (right - left)
        chosen = np.flatnonzero((~(bound < np.float32(floor) - np.float32(margin))).any(1))
        above = row[:width] + np.float32(lam) * slope[:width] >= np.float32(floor)
    segments[: chosen.size] = chosen
    return int(above[np.isin(np.arange(width) // (SEGMENT * LANES), chosen)].sum()), chosen.size


above_line = operation(_type_above_line, _plain_above_line)
"""above_line(tile, o, n_vectors, slope, lam, floor, peaks, p, share, margin, segments): how many classes of the row
tile[o:] reach `floor` at lambda, and in how many segments they may be; these go to segments (int32). `share` says where
lambda is between both ends: a segment's best line is convex, so it is below the chord of its peaks (and `margin`)."""


def _type_lanes_above_line(typingctx: Any, tile: Any, o: Any, slope: Any, b: Any, at: Any, threshold: Any) -> Any:
    sig = types.int64(tile, types.int64, slope, types.int64, types.float32, types.float32)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lam, threshold = (splat(builder, F32, args[i]) for i in (4, 5))
        return mask_of(builder, _above(context, builder, sig, args, 0, 2, args[1], args[3], lam, threshold))

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
        with cgutils.for_range_slice(builder, ir.Constant(I64, 0), args[2], ir.Constant(I64, 64), I64) as (place, _):
            _prefetch(builder, builder.gep(first, [place]))
        return context.get_dummy_value()

    return sig, codegen


fetch = operation(_type_fetch, lambda array, i, n_bytes: None)
"""fetch(array, i, n_bytes): ask for n_bytes from array[i] on to be brought near; they need not exist."""
