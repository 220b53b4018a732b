"""Sixteen units at a time, class-major: rows of scores turned into columns, and the lambda path of sixteen units.

A tile is (K, stride) float32, class after class; the scores of sixteen units in one class are one vector. As in
`unoic_cli.kernels.simd`, each operation is written as LLVM vector instructions and as plain Python. Nothing branches
on the data: which units change their winner is hard to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import overload

from unoic_cli.kernels.jit import NO_COUNTING
from unoic_cli.kernels.lines import COPIES, ROUNDS
from unoic_cli.kernels.simd import (
    F32,
    F64,
    I16,
    I32,
    I64,
    LANES,
    bfloat16_to_float,
    bits_of,
    constant_of,
    greater,
    half_to_float,
    load,
    mask_of,
    multiply_add,
    narrow,
    operation,
    plain_bfloat16,
    plain_half,
    pointer_to,
    same,
    splat,
    store,
    swap_blocks,
    vector_of,
)

WORDS = 2 * LANES
"""16-bit words of a vector."""

MARGIN0, MARGIN1, FIRST, INVERSE_STEP, BEYOND, Z_ERROR, S_ERROR, STEEPEST2, FAR, LEAST_RISE, TAG_ERROR = range(11)
"""Places in the ``limits`` of the operations on columns; see there."""


# ---------------------------------------------------------------- rows -> columns


def _shuffled(builder: Any, a: Any, b: Any, lanes: Any) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def _turn_words(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose sixteen vectors of sixteen 16-bit words: as pairs of words first, within 128-bit lanes."""
    wide = vector_of(I32)
    joined = [_shuffled(builder, rows[i], rows[i + 4], range(32)) for i in (0, 1, 2, 3, 8, 9, 10, 11)]
    pairs = [builder.bitcast(both, wide) for both in joined]
    quarters = []
    for first in (0, 4):
        a, b, c, d = pairs[first : first + 4]
        low = [4 * lane + i for lane in range(4) for i in (0, LANES, 1, LANES + 1)]
        high = [i + 2 for i in low]
        (ab, AB), (cd, CD) = ([_shuffled(builder, x, y, mask) for mask in (low, high)] for x, y in ((a, b), (c, d)))
        even = [4 * lane + i for lane in range(4) for i in (0, 1, LANES, LANES + 1)]
        odd = [i + 2 for i in even]
        quarters.append([_shuffled(builder, x, y, mask) for x, y in ((ab, cd), (AB, CD)) for mask in (even, odd)])
    columns = []
    for half in (0, 1):  # 128-bit lanes 0 and 2 hold pairs 0 to 3, lanes 1 and 3 pairs 4 to 7
        for t, s in zip(*quarters, strict=True):
            block = [4 * half + i for i in range(4)]
            mask = [i + offset for offset in (0, 8, LANES, LANES + 8) for i in block]
            words = builder.bitcast(_shuffled(builder, t, s, mask), ir.VectorType(I16, 2 * LANES))
            columns += [_shuffled(builder, words, words, range(place, 2 * LANES, 2)) for place in (0, 1)]
    return columns


def _turn(stored: Any, convert: Callable[..., Any], held: Any = F32) -> Callable[..., Any]:
    def typing(typingctx: Any, raw: Any, i: Any, step: Any, n_columns: Any, out: Any, o: Any, stride: Any) -> Any:
        whole = types.int64

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            rows = []
            for row in range(LANES):
                offset = builder.add(args[1], builder.mul(args[2], ir.Constant(I64, row)))
                values = builder.load(pointer_to(context, builder, sig, args, 0, offset, stored))
                values.align = 1
                rows.append(values if stored is I16 else convert(context, builder, values))
            turned = _turn_words(builder, rows) if stored is I16 else swap_blocks(builder, rows)
            for k, column in enumerate(turned):
                with builder.if_then(builder.icmp_signed(">", args[3], ir.Constant(I64, k))):
                    value = convert(context, builder, column) if stored is I16 else column
                    place = builder.add(args[5], builder.mul(args[6], ir.Constant(I64, k)))
                    builder.store(value, pointer_to(context, builder, sig, args, 4, place, held)).align = 2
            return context.get_dummy_value()

        return types.void(raw, whole, whole, whole, out, whole, whole), codegen

    return typing


def _plain_turn(convert: Callable[..., Any]) -> Callable[..., Any]:
    def plain(raw: Any, i: int, step: int, n_columns: int, out: Any, o: int, stride: int) -> None:
        for k in range(min(n_columns, LANES)):
            with np.errstate(over="ignore"):
                out[o + k * stride : o + k * stride + LANES] = convert(raw[i + k : i + k + LANES * step : step][:LANES])

    return plain


turn_half = operation(_turn(I16, half_to_float), _plain_turn(plain_half))
"""turn_half(raw, i, step, n_columns, out, o, stride): sixteen rows of float16 bits, `step` apart from raw[i], of which
the first sixteen scores (or n_columns, if less) become columns out[o + k * stride :]; whole vectors are read."""
turn_bfloat16 = operation(_turn(I16, bfloat16_to_float), _plain_turn(plain_bfloat16))
"""The same from bfloat16 bits."""
turn_float32 = operation(_turn(F32, same), _plain_turn(lambda values: values))
"""The same from float32."""
turn_float64 = operation(_turn(F64, narrow), _plain_turn(lambda values: values.astype(np.float32)))
"""The same from float64, rounded to nearest."""

turn_words = operation(_turn(I16, same, I16), _plain_turn(lambda values: values))
"""The same of any sixteen-bit words, as they are."""


def turn(raw: Any, brain: bool, i: int, step: int, n_columns: int, out: Any, o: int, stride: int) -> None:
    """Sixteen rows to columns, whatever is stored."""
    if raw.dtype == np.uint16:
        (turn_bfloat16 if brain else turn_half)(raw, i, step, n_columns, out, o, stride)
    else:
        (turn_float32 if raw.dtype == np.float32 else turn_float64)(raw, i, step, n_columns, out, o, stride)


@overload(turn, strict=False, jit_options=NO_COUNTING)
def _overload_turn(raw: Any, brain: Any, i: Any, step: Any, n_columns: Any, out: Any, o: Any, stride: Any) -> Any:
    if raw.dtype == types.uint16:

        def from_bits(raw: Any, brain: Any, i: Any, step: Any, n_columns: Any, out: Any, o: Any, stride: Any) -> None:
            if brain:
                turn_bfloat16(raw, i, step, n_columns, out, o, stride)
            else:
                turn_half(raw, i, step, n_columns, out, o, stride)

        return from_bits
    if raw.dtype == types.float32:
        return lambda raw, brain, i, step, n_columns, out, o, stride: turn_float32(
            raw, i, step, n_columns, out, o, stride
        )
    return lambda raw, brain, i, step, n_columns, out, o, stride: turn_float64(raw, i, step, n_columns, out, o, stride)


# ---------------------------------------------------------------- the winners of sixteen units


class _Tracked:
    """The best of the classes so far, and what is kept of it, in registers."""

    def __init__(self, builder: Any, kinds: tuple[str, ...]) -> None:
        self._builder = builder
        lowest = constant_of(F32, float("-inf"))
        start = {"best": lowest, "second": lowest, "winner": constant_of(I32, 0)}
        zero = constant_of(F32, 0.0)
        self._slots = {kind: cgutils.alloca_once_value(builder, start.get(kind, zero)) for kind in kinds}
        for kind, slot in self._slots.items():
            builder.store(start.get(kind, zero), slot)

    def __getitem__(self, kind: str) -> Any:
        return self._builder.load(self._slots[kind])

    def see_tagged(self, tagged: Any) -> None:
        """A class more, its index in the last bits of its value."""
        builder, best = self._builder, self["best"]
        loser = builder.select(builder.fcmp_ordered(">", best, tagged), tagged, best)
        builder.store(greater(builder, loser, self["second"]), self._slots["second"])
        builder.store(greater(builder, tagged, best), self._slots["best"])

    def see(self, moved: Any, **kept: Any) -> None:
        """A class more: its value, and what to keep where it leads; the first of equal ones leads."""
        builder, best = self._builder, self["best"]
        ahead = builder.fcmp_ordered(">", moved, best)
        if "second" in self._slots:
            loser = builder.select(ahead, best, moved)
            builder.store(greater(builder, loser, self["second"]), self._slots["second"])
        builder.store(builder.select(ahead, moved, best), self._slots["best"])
        for kind, value in kept.items():
            builder.store(builder.select(ahead, value, self[kind]), self._slots[kind])


@contextmanager
def _classes(builder: Any, n_classes: Any) -> Iterator[tuple[Any, Any]]:
    """A loop over classes: the loop, and its index in sixteen lanes."""
    slot = cgutils.alloca_once_value(builder, constant_of(I32, 0))
    builder.store(constant_of(I32, 0), slot)
    with cgutils.for_range(builder, n_classes) as loop:
        k = builder.load(slot)
        yield loop, k
        builder.store(builder.add(k, constant_of(I32, 1)), slot)


def _look_up(context: Any, builder: Any, table: Any, index: Any) -> Any:
    """table[index & 15] for sixteen entries and sixteen indices: one instruction where the processor has it."""
    if "+avx512f" in str(context.codegen().magic_tuple()[2]):
        kind = ir.FunctionType(vector_of(F32), [vector_of(F32), vector_of(I32)])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.sf.512")
        return builder.call(function, [table, index])
    low = builder.and_(index, constant_of(I32, LANES - 1))
    found = constant_of(F32, 0.0)
    for lane in range(LANES):
        entry = splat(builder, F32, builder.extract_element(table, ir.Constant(I32, lane)))
        found = builder.select(builder.icmp_signed("==", low, constant_of(I32, lane)), entry, found)
    return found


def _element(context: Any, builder: Any, sig: Any, args: Any, i: int, offset: Any) -> Any:
    data = context.make_array(sig.args[i])(context, builder, args[i]).data
    return builder.load(builder.gep(data, [offset]))


def _uncertain(builder: Any, tracked: _Tracked, margin: Any) -> Any:
    lead = builder.fsub(tracked["best"], tracked["second"])
    return builder.fcmp_unordered("<=", lead, margin)


def _type_point_columns(
    typingctx: Any, tile: Any, o: Any, n_classes: Any, stride: Any, bias: Any, exact: Any, margin: Any, starts: Any
) -> Any:
    whole = types.int64
    sig = types.void(tile, whole, whole, whole, bias, types.boolean, types.float32, starts)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def look(tracked: _Tracked, moves: bool) -> None:
            with _classes(builder, args[2]) as (loop, k):
                offset = builder.add(args[1], builder.mul(loop.index, args[3]))
                value = load(context, builder, sig, args, 0, offset, F32)
                if moves:
                    value = builder.fadd(
                        value, splat(builder, F32, _element(context, builder, sig, args, 4, loop.index))
                    )
                tracked.see(value, winner=k)

        with builder.if_else(builder.trunc(args[5], ir.IntType(1))) as (sure, close):
            with sure:
                tracked = _Tracked(builder, ("best", "winner"))
                look(tracked, False)
                store(context, builder, sig, args, 7, args[1], I32, tracked["winner"])
            with close:
                tracked = _Tracked(builder, ("best", "winner", "second"))
                look(tracked, True)
                doubt = builder.sext(_uncertain(builder, tracked, splat(builder, F32, args[6])), vector_of(I32))
                store(context, builder, sig, args, 7, args[1], I32, builder.xor(tracked["winner"], doubt))
        return context.get_dummy_value()

    return sig, codegen


def _columns(tile: Any, o: int, n_classes: int, stride: int) -> Any:
    return np.stack([tile[o + k * stride : o + k * stride + LANES] for k in range(n_classes)])


def _plain_ends(moved: Any, margin: Any) -> tuple[Any, Any]:
    ordered = np.sort(moved, axis=0)
    with np.errstate(invalid="ignore"):
        return moved.argmax(0), ~(ordered[-1] - ordered[-2] > margin)


def _plain_point_columns(
    tile: Any, o: int, n_classes: int, stride: int, bias: Any, exact: bool, margin: float, starts: Any
) -> None:
    values = _columns(tile, o, n_classes, stride)
    if exact:
        starts[o : o + LANES] = values.argmax(0)
        return
    winner, doubt = _plain_ends(values + bias[:n_classes, None], np.float32(margin))
    starts[o : o + LANES] = np.where(doubt, ~winner, winner)


point_columns = operation(_type_point_columns, _plain_point_columns)
"""point_columns(tile, o, n_classes, stride, bias, exact, margin, starts): the lowest class with the best tile + bias of
units o to o+15 into starts[o:o+16] (int32; its complement where its lead is not above `margin`). `exact`: bias is zero,
and the first of equal scores is the winner, without doubt."""


def _type_first_words(
    typingctx: Any, words: Any, o: Any, n_classes: Any, stride: Any, infinity: Any, starts: Any
) -> Any:
    whole = types.int64
    sig = types.boolean(words, whole, whole, whole, whole, starts)
    kind = ir.VectorType(I16, WORDS)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def all_of(value: int) -> Any:
            return ir.Constant(kind, [value] * WORDS)

        slots = {}
        for name, value in (("best", -0x8000), ("least", 0x7FFF), ("winner", 0), ("k", 0)):
            slots[name] = cgutils.alloca_once(builder, kind)
            builder.store(all_of(value), slots[name])
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        with cgutils.for_range(builder, args[2]) as loop:
            offset = builder.add(args[1], builder.mul(loop.index, args[3]))
            bits = builder.load(builder.bitcast(builder.gep(data, [offset]), kind.as_pointer()))
            bits.align = 2
            sign = builder.ashr(bits, all_of(15))
            size = builder.and_(bits, all_of(0x7FFF))
            value = builder.sub(builder.xor(size, sign), sign)
            best, least, k = (builder.load(slots[name]) for name in ("best", "least", "k"))
            ahead = builder.icmp_signed(">", value, best)
            builder.store(builder.select(ahead, k, builder.load(slots["winner"])), slots["winner"])
            builder.store(builder.select(ahead, value, best), slots["best"])
            builder.store(builder.select(builder.icmp_signed("<", value, least), value, least), slots["least"])
            builder.store(builder.add(k, all_of(1)), slots["k"])
        winner = builder.zext(builder.load(slots["winner"]), ir.VectorType(I32, WORDS))
        target = context.make_array(sig.args[5])(context, builder, args[5]).data
        target = builder.bitcast(builder.gep(target, [args[1]]), winner.type.as_pointer())
        builder.store(winner, target).align = 4
        infinity = builder.trunc(args[4], I16)
        outside = []
        for name, compared, edge in (("best", ">=", infinity), ("least", "<=", builder.neg(infinity))):
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), edge, ir.Constant(I32, 0))
            edges = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, WORDS), [0] * WORDS))
            outside.append(builder.icmp_signed(compared, builder.load(slots[name]), edges))
        return builder.icmp_unsigned(
            "!=", builder.bitcast(builder.or_(*outside), ir.IntType(WORDS)), ir.Constant(ir.IntType(WORDS), 0)
        )

    return sig, codegen


def _plain_first_words(words: Any, o: int, n_classes: int, stride: int, infinity: int, starts: Any) -> bool:
    bits = np.stack([words[o + k * stride : o + k * stride + WORDS] for k in range(n_classes)]).view(np.int16)
    sign = bits >> 15
    values = (bits & 0x7FFF ^ sign) - sign
    starts[o : o + WORDS] = values.argmax(0)
    return bool((np.abs(values) >= infinity).any())


first_words = operation(_type_first_words, _plain_first_words)
"""first_words(words, o, n_classes, stride, infinity, starts): the first class with the largest score of units o to o+31
to starts[o:o+32] (int32). The scores of class k are words[o + k * stride :], bits of float16 or bfloat16: in order, as
signed magnitudes. Returns whether one of them is not finite: of the magnitude `infinity` or above."""


# ---------------------------------------------------------------- the path of sixteen units


def _type_end_columns(
    typingctx: Any, tile: Any, o: Any, n_classes: Any, stride: Any, bias0: Any, bias1: Any, exact: Any, limits: Any,
    starts: Any, ends: Any, best0: Any, best1: Any,
) -> Any:  # fmt: skip
    whole = types.int64
    sig = types.void(
        tile, whole, whole, whole, bias0, bias1, types.boolean, limits, starts, ends, best0, best1
    )  # fmt: skip

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        o, n_classes, stride = args[1:4]

        def element(i: int, offset: Any) -> Any:
            return splat(builder, F32, _element(context, builder, sig, args, i, offset))

        def limit(place: int) -> Any:
            return element(7, ir.Constant(I64, place))

        def tag(value: Any, k: Any) -> Any:
            kept = builder.and_(builder.bitcast(value, vector_of(I32)), builder.not_(tags))
            return builder.bitcast(builder.or_(kept, k), vector_of(F32))

        zeros = builder.ctlz(builder.sub(n_classes, ir.Constant(I64, 1)), ir.Constant(ir.IntType(1), 0))
        tags = splat(builder, I32, builder.trunc(builder.lshr(ir.Constant(I64, -1), zeros), I32))
        kinds = ("best", "winner", "second")
        with builder.if_else(builder.trunc(args[6], ir.IntType(1))) as (sure, close):
            for branch, moves in ((sure, False), (close, True)):
                with branch:
                    left, right = _Tracked(builder, kinds if moves else kinds[:2]), _Tracked(builder, kinds[::2])
                    with _classes(builder, n_classes) as (loop, k):
                        offset = builder.add(o, builder.mul(loop.index, stride))
                        value = load(context, builder, sig, args, 0, offset, F32)
                        left.see(builder.fadd(value, element(4, loop.index)) if moves else value, winner=k)
                        right.see_tagged(tag(builder.fadd(value, element(5, loop.index)), k))
                    doubt = _uncertain(builder, right, limit(MARGIN1))
                    if moves:
                        doubt = builder.or_(doubt, _uncertain(builder, left, limit(MARGIN0)))
                    best, last = left["best"], right["best"]
                    winner = builder.xor(left["winner"], builder.sext(doubt, vector_of(I32)))
                    store(context, builder, sig, args, 8, o, I32, winner)
                    end = builder.and_(builder.bitcast(last, vector_of(I32)), tags)
                    store(context, builder, sig, args, 9, o, I32, end)
                    store(context, builder, sig, args, 10, o, F32, best)
                    store(context, builder, sig, args, 11, o, F32, last)
        return context.get_dummy_value()

    return sig, codegen


def _tags(n_classes: int) -> Any:
    return np.int32((1 << (n_classes - 1).bit_length()) - 1)


def _plain_end_columns(
    tile: Any, o: int, n_classes: int, stride: int, bias0: Any, bias1: Any, exact: bool, limits: Any, starts: Any,
    ends: Any, best0: Any, best1: Any,
) -> None:  # fmt: skip
    values, units, tags = _columns(tile, o, n_classes, stride), slice(o, o + LANES), _tags(n_classes)
    moved = values + bias1[:n_classes, None]
    tagged = ((moved.view(np.int32) & ~tags) | np.arange(n_classes, dtype=np.int32)[:, None]).view(np.float32)
    tagged = np.where(np.isnan(tagged), np.float32(-np.inf), tagged)  # a tag in -inf makes it NaN, which never leads
    _, doubt = _plain_ends(tagged, limits[MARGIN1])
    best1[units] = tagged.max(0)
    ends[units] = best1[units].view(np.int32) & tags
    left = values
    if not exact:
        left = values + bias0[:n_classes, None]
        doubt |= _plain_ends(left, limits[MARGIN0])[1]
    best0[units] = left.max(0)
    starts[units] = np.where(doubt, ~left.argmax(0), left.argmax(0))


end_columns = operation(_type_end_columns, _plain_end_columns)
"""end_columns(tile, o, n_classes, stride, bias0, bias1, exact, limits, starts, ends, best0, best1): for units o to o+15
the lowest class with the best tile + bias0 into starts (~c where a lead at either end is not above its margin) and the
value into best0; that with the best tile + bias1 into ends and best1, whose last bits, the class, are not the value's.
`exact`: bias0 is zero, and the first of equal scores is the winner there, without doubt."""


def _magnitude(builder: Any, x: Any) -> Any:
    bits = builder.and_(builder.bitcast(x, vector_of(I32)), constant_of(I32, 0x7FFFFFFF))
    return builder.bitcast(bits, vector_of(F32))


class _Kink:
    """Where the lines of c and e cross, with a bound of the error; `extra` is one of the difference of their scores.

    Attributes
    ----------
    lam : its lambda
    floor : what another class must reach there to matter
    g : the last lattice point before it
    rises, clear : whether e is steeper, and whether the place is certain, too
    """

    def __init__(
        self, builder: Any, limit: Callable[[int], Any], z0: Any, s0: Any, z1: Any, s1: Any, extra: Any
    ) -> None:
        one = constant_of(F32, 1.0)
        gap, rise = builder.fsub(z0, z1), builder.fsub(s1, s0)
        inverse = builder.fdiv(one, rise)
        self.lam = builder.fmul(gap, inverse)
        size = _magnitude(builder, self.lam)
        error = builder.fadd(limit(Z_ERROR), builder.fmul(_magnitude(builder, gap), constant_of(F32, 2.0**-22)))
        if extra is not None:
            error = builder.fadd(error, extra)
        error = builder.fmul(builder.fadd(error, builder.fmul(size, limit(S_ERROR))), inverse)
        height = builder.fadd(z0, builder.fmul(self.lam, s0))
        self.floor = builder.fsub(height, builder.fadd(limit(MARGIN1), builder.fmul(error, limit(STEEPEST2))))
        place = builder.fmul(builder.fsub(self.lam, limit(FIRST)), limit(INVERSE_STEP))
        place = greater(builder, place, constant_of(F32, 0.0))
        place = builder.select(builder.fcmp_ordered("<", place, limit(BEYOND)), place, limit(BEYOND))
        slack = builder.fadd(error, builder.fmul(size, constant_of(F32, 2.0**-21)))
        slack = builder.fmul(builder.fadd(slack, limit(FAR)), limit(INVERSE_STEP))
        self.g = builder.fptosi(place, vector_of(I32))
        rest = builder.fsub(place, builder.sitofp(self.g, vector_of(F32)))
        early = builder.icmp_signed("==", self.g, constant_of(I32, 0))
        clear = builder.or_(builder.fcmp_ordered(">", rest, slack), early)
        clear = builder.and_(clear, builder.fcmp_ordered("<", rest, builder.fsub(one, slack)))
        self.rises = builder.fcmp_ordered(">", rise, limit(LEAST_RISE))
        self.clear = builder.and_(clear, self.rises)


def _plain_kink(limits: Any, z0: Any, s0: Any, z1: Any, s1: Any, extra: Any) -> tuple[Any, Any, Any, Any, Any]:
    with np.errstate(all="ignore"):
        gap, rise = z0 - z1, s1 - s0
        inverse = np.float32(1) / rise
        lam = gap * inverse
        error = (limits[Z_ERROR] + np.abs(gap) * np.float32(2.0**-22) + extra + np.abs(lam) * limits[S_ERROR]) * inverse
        floor = z0 + lam * s0 - (limits[MARGIN1] + error * limits[STEEPEST2])
        place = (lam - limits[FIRST]) * limits[INVERSE_STEP]
        place = np.where(place > 0, place, np.float32(0))
        place = np.where(place < limits[BEYOND], place, limits[BEYOND])
        slack = (error + np.abs(lam) * np.float32(2.0**-21) + limits[FAR]) * limits[INVERSE_STEP]
        g = place.astype(np.int32)
        rest = place - g.astype(np.float32)
        rises = rise > limits[LEAST_RISE]
        return lam, floor, g, ((rest > slack) | (g == 0)) & (rest < 1 - slack) & rises, rises


def _type_kinks(
    typingctx: Any, o: Any, n_vectors: Any, bias0: Any, bias1: Any, slope: Any, limits: Any, starts: Any, ends: Any,
    lams: Any, floors: Any, points: Any,
) -> Any:  # fmt: skip
    whole = types.int64
    sig = types.void(whole, whole, bias0, bias1, slope, limits, starts, ends, lams, floors, points)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def limit(place: int) -> Any:
            return splat(builder, F32, _element(context, builder, sig, args, 5, ir.Constant(I64, place)))

        start = load(context, builder, sig, args, 6, args[0], I32)
        c = builder.xor(start, builder.ashr(start, constant_of(I32, 31)))
        e = load(context, builder, sig, args, 7, args[0], I32)
        best0 = load(context, builder, sig, args, 8, args[0], F32)
        best1 = load(context, builder, sig, args, 9, args[0], F32)
        first = [
            _look_up(context, builder, load(context, builder, sig, args, table, ir.Constant(I64, 0), F32), winner)
            for table, winner in ((4, c), (2, c), (4, e), (3, e))
        ]
        found = [cgutils.alloca_once_value(builder, value) for value in first]
        for slot, value in zip(found, first, strict=True):
            builder.store(value, slot)
        with cgutils.for_range_slice(builder, ir.Constant(I64, 1), args[1], ir.Constant(I64, 1), I64) as (vector, _):
            offset = builder.mul(vector, ir.Constant(I64, LANES))
            here = splat(builder, I32, builder.trunc(vector, I32))
            for slot, (table, winner) in zip(found, ((4, c), (2, c), (4, e), (3, e)), strict=True):
                entries = load(context, builder, sig, args, table, offset, F32)
                inside = builder.icmp_signed("==", builder.lshr(winner, constant_of(I32, 4)), here)
                value = builder.select(inside, _look_up(context, builder, entries, winner), builder.load(slot))
                builder.store(value, slot)
        s0, b0, s1, b1 = (builder.load(slot) for slot in found)
        z0, z1 = builder.fsub(best0, b0), builder.fsub(best1, b1)
        both = builder.fadd(_magnitude(builder, best0), _magnitude(builder, best1))
        kink = _Kink(builder, limit, z0, s0, z1, s1, builder.fmul(both, limit(TAG_ERROR)))
        clear = builder.and_(kink.clear, builder.icmp_signed(">=", start, constant_of(I32, 0)))
        store(context, builder, sig, args, 8, args[0], F32, kink.lam)
        store(context, builder, sig, args, 9, args[0], F32, kink.floor)
        store(context, builder, sig, args, 10, args[0], I32, builder.select(clear, kink.g, constant_of(I32, -1)))
        return context.get_dummy_value()

    return sig, codegen


def _plain_kinks(
    o: int, n_vectors: int, bias0: Any, bias1: Any, slope: Any, limits: Any, starts: Any, ends: Any, lams: Any,
    floors: Any, points: Any,
) -> None:  # fmt: skip
    units = slice(o, o + LANES)
    start, e = starts[units], ends[units]
    c = start ^ (start >> 31)
    best0, best1 = lams[units].copy(), floors[units].copy()
    extra = (np.abs(best0) + np.abs(best1)) * limits[TAG_ERROR]
    with np.errstate(all="ignore"):
        z0, z1 = best0 - bias0[c], best1 - bias1[e]
    lams[units], floors[units], g, clear, _ = _plain_kink(limits, z0, slope[c], z1, slope[e], extra)
    points[units] = np.where(clear & (start >= 0), g, -1)


kinks = operation(_type_kinks, _plain_kinks)
"""kinks(o, n_vectors, bias0, bias1, slope, limits, starts, ends, lams, floors, points): where the lines of c and e of
units o to o+15 cross. Takes best0 and best1 from `lams` and `floors`, and leaves there the lambda, and what another
class must reach there to matter; into points the last lattice point before it, or -1 where that is uncertain."""


def _compress(context: Any, builder: Any, sig: Any, args: Any, i: int, offset: Any, value: Any, chosen: Any) -> None:
    """The chosen lanes to consecutive places; what follows them is overwritten, too."""
    kind = ir.FunctionType(vector_of(I32), [vector_of(I32), ir.VectorType(ir.IntType(1), LANES), vector_of(I32)])
    name = f"llvm.experimental.vector.compress.v{LANES}i32"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    packed = builder.call(function, [value, chosen, ir.Constant(vector_of(I32), ir.Undefined)])
    store(context, builder, sig, args, i, offset, I32, packed)


def _type_change_columns(
    typingctx: Any, tile: Any, o: Any, n_classes: Any, stride: Any, slope: Any, lams: Any, floors: Any, points: Any,
    labels: Any, starts: Any, ends: Any, slots: Any, old: Any, new: Any, who: Any, n_events: Any, todo: Any,
    n_todo: Any,
) -> Any:  # fmt: skip
    whole = types.int64
    sig = types.UniTuple(whole, 2)(
        tile, whole, whole, whole, slope, lams, floors, points, labels, starts, ends, slots, old, new, who, whole, todo,
        whole,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        o, n_classes, stride = args[1:4]
        lam = load(context, builder, sig, args, 5, o, F32)
        floor = load(context, builder, sig, args, 6, o, F32)
        g = load(context, builder, sig, args, 7, o, I32)
        labels = load(context, builder, sig, args, 8, o, I32)
        start = load(context, builder, sig, args, 9, o, I32)
        e = load(context, builder, sig, args, 10, o, I32)
        classes = splat(builder, I32, builder.trunc(n_classes, I32))
        reached = cgutils.alloca_once_value(builder, constant_of(I32, 0))
        builder.store(classes, reached)
        with cgutils.for_range(builder, n_classes) as loop:
            value = load(context, builder, sig, args, 0, builder.add(o, builder.mul(loop.index, stride)), F32)
            line = splat(builder, F32, _element(context, builder, sig, args, 4, loop.index))
            above = multiply_add(builder, lam, line, builder.fsub(value, floor))
            below = builder.lshr(builder.bitcast(above, vector_of(I32)), constant_of(I32, 31))
            builder.store(builder.sub(builder.load(reached), below), reached)
        zero = constant_of(I32, 0)
        sure = builder.icmp_signed(">=", start, zero)
        active = builder.icmp_signed(">=", labels, zero)
        unsettled = builder.and_(active, builder.icmp_signed("!=", start, e))
        done = builder.icmp_signed("<=", builder.load(reached), constant_of(I32, 2))
        done = builder.and_(done, builder.icmp_signed(">=", g, zero))
        changed = builder.and_(unsettled, done)
        left_over = builder.and_(unsettled, builder.not_(done))
        more = splat(builder, I32, builder.trunc(builder.add(n_classes, ir.Constant(I64, 1)), I32))
        row = builder.select(active, labels, classes)
        slot = builder.add(builder.mul(row, more), builder.select(sure, start, classes))
        slot = builder.add(slot, builder.mul(_copies(), builder.mul(more, more)))
        store(context, builder, sig, args, 11, o, I32, slot)
        base = builder.mul(builder.add(g, constant_of(I32, COPIES)), classes)
        for i, winner in ((12, start), (13, e)):
            hit = builder.zext(builder.icmp_signed("==", winner, labels), vector_of(I32))
            word = builder.or_(builder.shl(builder.add(base, winner), constant_of(I32, 1)), hit)
            _compress(context, builder, sig, args, i, args[15], word, changed)
        units = ir.Constant(vector_of(I32), list(range(LANES)))
        units = builder.add(units, splat(builder, I32, builder.trunc(o, I32)))
        _compress(context, builder, sig, args, 14, args[15], units, changed)
        _compress(context, builder, sig, args, 16, args[17], units, left_over)
        numbers = [
            builder.add(count, builder.ctpop(mask_of(builder, lanes)))
            for count, lanes in ((args[15], changed), (args[17], left_over))
        ]
        return context.make_tuple(builder, sig.return_type, numbers)

    return sig, codegen


def _plain_change_columns(
    tile: Any, o: int, n_classes: int, stride: int, slope: Any, lams: Any, floors: Any, points: Any, labels: Any,
    starts: Any, ends: Any, slots: Any, old: Any, new: Any, who: Any, n_events: int, todo: Any, n_todo: int,
) -> tuple[int, int]:  # fmt: skip
    units = slice(o, o + LANES)
    own, start, e, g = labels[units], starts[units], ends[units], points[units]
    with np.errstate(all="ignore"):
        above = lams[units] * slope[:n_classes, None] + (_columns(tile, o, n_classes, stride) - floors[units])
    active = own >= 0
    unsettled = active & (start != e)
    done = (n_classes - np.signbit(above).sum(0) <= 2) & (g >= 0)
    changed, left = unsettled & done, unsettled & ~done
    slots[units] = _plain_slots(own, np.where(start >= 0, start, n_classes), n_classes)
    after, lanes = n_events + int(changed.sum()), o + np.arange(LANES)
    for out, winner in ((old, start), (new, e)):
        out[n_events:after] = ((((g + COPIES) * n_classes + winner) << 1) | (winner == own))[changed]
    who[n_events:after] = lanes[changed]
    todo[n_todo : n_todo + int(left.sum())] = lanes[left]
    return after, n_todo + int(left.sum())


change_columns = operation(_type_change_columns, _plain_change_columns)
"""change_columns(tile, o, n_classes, stride, slope, lams, floors, points, labels, starts, ends, slots, old, new, who,
n_events, todo, n_todo): what is to be counted of units o to o+15, after `kinks`. Where c hands over to e directly, at a
certain place, the places of both in the table of changes, and the unit, go to old, new and who from n_events on; the
other labelled units with different or uncertain ends go to todo. `slots` as in `pair_columns`.
Returns the new n_events and n_todo."""


def _type_pair_columns(typingctx: Any, labels: Any, starts: Any, o: Any, n_classes: Any, slots: Any) -> Any:
    sig = types.void(labels, starts, types.int64, types.int64, slots)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zero = constant_of(I32, 0)
        own, start = (load(context, builder, sig, args, i, args[2], I32) for i in range(2))
        classes = splat(builder, I32, builder.trunc(args[3], I32))
        more = builder.add(classes, constant_of(I32, 1))
        row, c = (builder.select(builder.icmp_signed(">=", x, zero), x, classes) for x in (own, start))
        slot = builder.add(builder.add(builder.mul(row, more), c), builder.mul(_copies(), builder.mul(more, more)))
        store(context, builder, sig, args, 4, args[2], I32, slot)
        return context.get_dummy_value()

    return sig, codegen


def _copies() -> Any:
    return ir.Constant(vector_of(I32), [lane % COPIES for lane in range(LANES)])


def _plain_slots(labels: Any, c: Any, n_classes: int) -> Any:
    copies = np.arange(LANES) % COPIES * (n_classes + 1) ** 2
    return copies + np.where(labels >= 0, labels, n_classes) * (n_classes + 1) + np.where(c >= 0, c, n_classes)


def _plain_pair_columns(labels: Any, starts: Any, o: int, n_classes: int, slots: Any) -> None:
    units = slice(o, o + LANES)
    slots[units] = _plain_slots(labels[units], starts[units], n_classes)


pair_columns = operation(_type_pair_columns, _plain_pair_columns)
"""pair_columns(labels, starts, o, n_classes, slots): where units o to o+15 are counted in the table of pairs:
label * (K + 1) + c, with K for an ignored label or an uncertain c; successive units in different copies."""


def _type_take(typingctx: Any, source: Any, i: Any, out: Any, o: Any) -> Any:
    sig = types.void(source, types.int64, out, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        element = ir.IntType(sig.args[0].dtype.bitwidth)
        value = builder.load(pointer_to(context, builder, sig, args, 0, args[1], element))
        value.align = 2
        builder.store(value, pointer_to(context, builder, sig, args, 2, args[3], element)).align = 2
        return context.get_dummy_value()

    return sig, codegen


def _plain_take(source: Any, i: int, out: Any, o: int) -> None:
    out[o : o + LANES] = source[i : i + LANES]


take = operation(_type_take, _plain_take)
"""take(source, i, out, o): source[i:i+16] to out[o:o+16], integers of one type."""


# ---------------------------------------------------------------- more than one change


WINNER, TARGET, LAST_WINNER, FATE, LABEL, SINCE, AGE = range(7)
"""Rows of sixteen in ``whole`` of `walk_columns`; ``real`` has score and slope of the winner, the target, the last."""
ACTIVE, ARRIVED, LOST = 0, 1, 2
"""What has become of a unit that walks."""


def _type_walk_columns(
    typingctx: Any, tile: Any, n_classes: Any, slope: Any, limits: Any, whole: Any, real: Any, old: Any, new: Any,
    who: Any,
) -> Any:  # fmt: skip
    number = types.int64
    sig = types.UniTuple(number, 2)(tile, number, slope, limits, whole, real, old, new, who)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        n_classes = args[1]

        def limit(place: int) -> Any:
            return splat(builder, F32, _element(context, builder, sig, args, 3, ir.Constant(I64, place)))

        def state(i: int, place: int, element: Any) -> Any:
            return load(context, builder, sig, args, i, ir.Constant(I64, place * LANES), element)

        def keep(i: int, place: int, value: Any, element: Any) -> None:
            store(context, builder, sig, args, i, ir.Constant(I64, place * LANES), element, value)

        none, one = ir.Constant(I64, 0), constant_of(I32, 1)
        w, t, e, fate, label, since, age = (state(4, i, I32) for i in range(7))
        zw, sw, zt, st, ze, se = (state(5, i, F32) for i in range(6))
        kink = _Kink(builder, limit, zw, sw, zt, st, None)
        tracked, reached = _Tracked(builder, ("best", "winner", "z", "s")), cgutils.alloca_once(builder, vector_of(I32))
        builder.store(constant_of(I32, 0), reached)
        with _classes(builder, n_classes) as (loop, k):
            value = load(context, builder, sig, args, 0, builder.mul(loop.index, ir.Constant(I64, LANES)), F32)
            line = splat(builder, F32, _element(context, builder, sig, args, 2, loop.index))
            there = multiply_add(builder, kink.lam, line, value)
            above = builder.zext(builder.fcmp_ordered(">=", there, kink.floor), vector_of(I32))
            builder.store(builder.add(builder.load(reached), above), reached)
            tracked.see(there, winner=k, z=value, s=line)
        m, zm, sm = (tracked[kind] for kind in ("winner", "z", "s"))
        active = builder.icmp_signed("==", fate, constant_of(I32, ACTIVE))
        alone = builder.icmp_signed("<=", builder.load(reached), constant_of(I32, 2))
        steps = builder.and_(builder.and_(active, alone), kink.clear)
        between = builder.and_(builder.icmp_signed("!=", m, w), builder.icmp_signed("!=", m, t))
        nearer = builder.and_(builder.and_(active, builder.not_(alone)), builder.and_(between, kink.rises))
        nearer = builder.and_(nearer, builder.icmp_signed("<", age, constant_of(I32, ROUNDS)))

        early, late = (_Kink(builder, limit, *ends, None) for ends in ((zw, sw, zm, sm), (zm, sm, zt, st)))
        over = builder.and_(nearer, builder.icmp_signed("==", builder.load(reached), constant_of(I32, 3)))
        over = builder.and_(over, builder.and_(early.clear, late.clear))
        over = builder.and_(over, builder.icmp_signed("<=", early.g, late.g))
        nearer = builder.and_(nearer, builder.not_(over))
        steps = builder.or_(steps, over)
        lost = builder.and_(active, builder.not_(builder.or_(steps, nearer)))

        classes = splat(builder, I32, builder.trunc(n_classes, I32))
        lanes = ir.Constant(vector_of(I32), list(range(LANES)))
        g = builder.select(over, late.g, kink.g)
        for first, place, before, after, chosen in (
            (none, builder.select(over, early.g, kink.g), w, builder.select(over, m, t), steps),
            (builder.ctpop(mask_of(builder, steps)), g, m, t, over),
        ):
            base = builder.mul(builder.add(place, constant_of(I32, COPIES)), classes)
            for i, winner in ((6, before), (7, after)):
                hit = builder.zext(builder.icmp_signed("==", winner, label), vector_of(I32))
                word = builder.or_(builder.shl(builder.add(base, winner), constant_of(I32, 1)), hit)
                _compress(context, builder, sig, args, i, first, word, chosen)
            _compress(context, builder, sig, args, 8, first, lanes, chosen)

        arrived = builder.and_(steps, builder.icmp_signed("==", t, e))
        fate = builder.select(arrived, constant_of(I32, ARRIVED), fate)
        fate = builder.select(lost, constant_of(I32, LOST), fate)
        for i, place, element, stay, step, near in (
            (4, WINNER, I32, w, t, w), (4, TARGET, I32, t, e, m), (4, FATE, I32, fate, fate, fate),
            (4, SINCE, I32, since, builder.add(g, one), since),
            (4, AGE, I32, age, constant_of(I32, 0), builder.add(age, one)),
            (5, 0, F32, zw, zt, zw), (5, 1, F32, sw, st, sw), (5, 2, F32, zt, ze, zm), (5, 3, F32, st, se, sm),
        ):  # fmt: skip
            keep(i, place, builder.select(steps, step, builder.select(nearer, near, stay)), element)
        still = builder.icmp_signed("==", fate, constant_of(I32, ACTIVE))
        events = builder.add(*(builder.ctpop(mask_of(builder, chosen)) for chosen in (steps, over)))
        numbers = [events, mask_of(builder, still)]
        return context.make_tuple(builder, sig.return_type, numbers)

    return sig, codegen


def _plain_walk_columns(
    tile: Any, n_classes: int, slope: Any, limits: Any, whole: Any, real: Any, old: Any, new: Any, who: Any
) -> tuple[int, int]:
    w, t, e, fate, label, since, age = whole[: 7 * LANES].reshape(7, LANES)
    zw, sw, zt, st, ze, se = real[: 6 * LANES].reshape(6, LANES)
    values, lanes = _columns(tile, 0, n_classes, LANES), np.arange(LANES)
    none = np.float32(0)
    lam, floor, g, clear, rises = _plain_kink(limits, zw, sw, zt, st, none)
    with np.errstate(all="ignore"):
        there = lam * slope[:n_classes, None] + values
        reached = (there >= floor).sum(0)
        m = np.where(np.isnan(there), -np.inf, there).argmax(0)
    zm, sm = values[m, lanes], slope[m]
    active = fate == ACTIVE
    steps = active & (reached <= 2) & clear
    nearer = active & (reached > 2) & (m != w) & (m != t) & rises & (age < ROUNDS)
    _, _, early, early_clear, _ = _plain_kink(limits, zw, sw, zm, sm, none)
    _, _, late, late_clear, _ = _plain_kink(limits, zm, sm, zt, st, none)
    over = nearer & (reached == 3) & early_clear & late_clear & (early <= late)
    nearer, steps = nearer & ~over, steps | over
    lost = active & ~steps & ~nearer
    n_events = 0
    for place, before, after, chosen in (
        (np.where(over, early, g), w, np.where(over, m, t), steps),
        (late, m, t, over),
    ):
        last = n_events + int(chosen.sum())
        for out, winner in ((old, before), (new, after)):
            out[n_events:last] = ((((place + COPIES) * n_classes + winner) << 1) | (winner == label))[chosen]
        who[n_events:last] = lanes[chosen]
        n_events = last
    since[steps] = np.where(over, late, g)[steps] + 1
    age[steps], age[nearer] = 0, age[nearer] + 1
    fate[steps & (t == e)] = ARRIVED
    fate[lost] = LOST
    for held, other in ((w, t), (zw, zt), (sw, st), (t, e), (zt, ze), (st, se)):
        held[steps] = other[steps]
    for held, other in ((t, m), (zt, zm), (st, sm)):
        held[nearer] = other[nearer]
    return n_events, bits_of(fate == ACTIVE)


walk_columns = operation(_type_walk_columns, _plain_walk_columns)
"""walk_columns(tile, n_classes, slope, limits, whole, real, old, new, who): a step for each of sixteen units, of a
(K, 16) tile, on the way from winner w to the last one, e. If no class but w and t reaches where their lines cross, w
hands over to t there: to old, new and who (the lane) as in `change_columns`; then t is the winner, and the next to look
at is e. If there is one class more, m, w hands over to m and m to t. Else the class that is best there is looked at
next. Returns the number of events, and bits of the units under way."""
