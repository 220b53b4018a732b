"""Entropy of the softmax of each unit: the uncertainty from which delta is made.

With x_k = z_k - max z and S = sum_k exp(x_k), the entropy is log S - sum_k x_k exp(x_k) / S: two terms that are never
negative. Eight units go at a time, class-major, in float64; every step is one IEEE operation of a lane of its own,
so a unit's entropy has the same bits in any layout, at any place, and without the JIT.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from unoic_cli.kernels import plain
from unoic_cli.kernels.constants import FIXED_POINT, LEAST, MAGIC, MAGIC_BITS
from unoic_cli.kernels.eights import (
    F64,
    I64,
    WIDTH,
    constant,
    data_of,
    exp,
    fetch,
    gather,
    load_row,
    log,
    splat,
    store_row,
    vector,
    word,
)
from unoic_cli.kernels.jit import inlined, kernel
from unoic_cli.kernels.lines import Workspace
from unoic_cli.kernels.simd import first_lane, operation
from unoic_cli.kernels.tile import unit_source


def _type_entropies(typingctx: Any, tile: Any, n_classes: Any, allow_zero: Any) -> Any:
    return types.int64(tile, types.int64, types.boolean), _build_entropies


def _build_entropies(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    data = data_of(context, builder, sig, args, 0)

    highest, lowest = ir.Constant(F64, -inf), ir.Constant(F64, -np.finfo(np.float64).max)
    limit = builder.select(args[2], highest, lowest)  # smaller scores may not be there
    limits = splat(builder, F64, limit)
    top = cgutils.alloca_once_value(builder, constant(F64, -inf))
    wrong = cgutils.alloca_once_value(builder, constant(ir.IntType(1), 0))
    with cgutils.for_range(builder, args[1]) as loop:
        z, old = load_row(builder, data, loop.index, F64), builder.load(top)
        builder.store(builder.select(builder.fcmp_ordered(">", z, old), z, old), top)
        above = builder.fcmp_unordered(">=", z, constant(F64, inf))
        below = builder.fcmp_ordered("<", z, limits)
        builder.store(builder.or_(builder.load(wrong), builder.or_(above, below)), wrong)
    best = builder.load(top)
    total = cgutils.alloca_once_value(builder, constant(F64, 0.0))
    moment = cgutils.alloca_once_value(builder, constant(F64, 0.0))
    with cgutils.for_range(builder, args[1]) as loop:
        x = builder.fsub(load_row(builder, data, loop.index, F64), best)
        x = builder.select(builder.fcmp_ordered(">", x, constant(F64, LEAST)), x, constant(F64, LEAST))
        e = exp(builder, x)
        builder.store(builder.fadd(builder.load(total), e), total)
        builder.store(builder.fadd(builder.load(moment), builder.fmul(e, x)), moment)
    s = builder.load(total)
    entropy = builder.fsub(log(builder, s), builder.fdiv(builder.load(moment), s))
    scaled = builder.fadd(builder.fmul(entropy, constant(F64, FIXED_POINT)), constant(F64, MAGIC))
    units = builder.sub(builder.bitcast(scaled, vector(I64)), constant(I64, MAGIC_BITS))
    store_row(builder, data, args[1], I64, units)
    empty = builder.fcmp_unordered("==", best, constant(F64, -inf))
    bad = builder.or_(builder.load(wrong), empty)
    return builder.zext(builder.bitcast(bad, ir.IntType(WIDTH)), I64)


def _plain_entropies(tile: Any, n_classes: int, allow_zero: bool) -> int:
    z = tile.view(np.float64)[: n_classes * WIDTH].reshape(n_classes, WIDTH)
    spare = tile.view(np.int64)[n_classes * WIDTH : (n_classes + 1) * WIDTH]
    spare[:], bad = plain.entropies(z.T, allow_zero)
    return int((bad << np.arange(WIDTH)).sum())


entropies = operation(_type_entropies, _plain_entropies)
"""entropies(tile, n_classes, allow_zero): entropies of the eight units of a (K, 8) tile, in units of 2**-40 nats, to
its row K, as integers; bit i of the result is set when unit i is not valid."""


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
