"""Fusion of M experts at many lambdas (Algorithm 1): decisions, counts, and the fused posterior.

Every expert's scores delta * z are first laid out as float64 *groups* of sixteen units, class-major (`fill_rows64`,
`fill_planes64`); what follows is the same for every storage layout. A softmax is taken once per expert and unit; at
each lambda it is multiplied by exp(lambda * s) and summed anew. Decisions are made in float32 with margins far above
its rounding; what is inside a margin is decided by `settle`, in float64.

Noisy-or is decided by the product of 1 - P alone, and 1 - P of an expert's largest class is the sum of its others: so
two experts, each certain of another class, are told apart however certain they are (Algorithm 1 as printed loses
them to rounding).
"""

from __future__ import annotations

from math import exp, log, log1p
from typing import Any, NamedTuple

import numpy as np

from unoic_cli.kernels.jit import inlined, kernel, stage
from unoic_cli.kernels.lanes import (
    blend,
    differ,
    ends,
    finish,
    first_largest,
    least,
    lift,
    miss,
    pair,
    share,
    shift,
    soften,
    soften64,
    tilt,
    to_group,
    to_rows,
)
from unoic_cli.kernels.lines import Lines, Workspace
from unoic_cli.kernels.posterior import unit_source
from unoic_cli.kernels.simd import LANES, add_at, at, first_lane
from unoic_cli.kernels.tile import allowed, check_planes, check_rows, factor, fill_planes, fill_rows, stored

NOISY_OR, AVERAGE, MAXIMUM, LOG_LINEAR = 0, 1, 2, 3
"""What P(k) is made of: 1 - prod (1 - P_m), sum w_m P_m, max P_m, and prod P_m ** w_m."""

TINY = 1e-25
"""Products of float32 below this are not trusted."""
TINY_SHARE = 1e-15
"""The same of posteriors: what float32 takes for nothing may be so much of what lambda leaves of the rest."""
HUGE = 1e6
"""Scores whose largest is beyond this are shifted by it: adding lambda * s would lose digits."""
_FAINT = 1e-250
"""Products of float64 below this are taken as sums of logarithms instead."""


class Scratch(NamedTuple):
    """One thread's memory for a group of sixteen units."""

    e: Any
    p: Any
    sums: Any
    q: Any
    sums64: Any
    e64: Any
    u: Any
    bias: Any
    row: Any
    rows: Any
    times: Any
    ends: Any
    tops: Any
    queue: Any
    queue_factors: Any
    units: Any


def make_scratch(n_experts: int, n_classes: int) -> Scratch:
    """Scratch for M experts and K classes."""
    size = n_classes * LANES
    return Scratch(
        e=np.zeros(n_experts * size, np.float32),
        p=np.zeros(2 * size, np.float32),
        sums=np.zeros(4 * LANES, np.float32),
        q=np.zeros(size, np.float32),
        sums64=np.zeros(2 * LANES),
        e64=np.zeros(size),
        u=np.zeros(size),
        bias=np.zeros(n_classes),
        row=np.zeros(3 * n_classes),
        rows=np.zeros(LANES * (n_classes + LANES), np.float32),
        times=np.ones(LANES),
        ends=np.zeros(2 * n_experts * n_classes),
        tops=np.zeros(2 * LANES, np.int32),
        queue=np.zeros(n_experts * size),
        queue_factors=np.ones(n_experts * LANES),
        units=np.zeros(LANES, np.int64),
    )


@kernel
def fill_rows64(
    raw: Any, brain: bool, allow_zero: bool, double: bool, shifted: bool, delta: Any, lines: Lines, first: int, n: int,
    out: Any, o: int, plain: Any, times: Any, work: Workspace,
) -> int:  # fmt: skip
    """Delta * z of units first..first+n of a `rows` block, as float64 groups from out[o]; -inf for masked classes.

    Parameters
    ----------
    raw, brain, allow_zero, delta, lines, work
        As in `unoic_cli.kernels.path.count_path_rows`.
    double : bool
        raw is float64, and wanted to the last bit.
    shifted : bool
        Huge scores are shifted, so that they do not swallow lambda * s.
    plain, times : (0,) and (16,) float64
        No factor, and scratch for sixteen.

    Returns
    -------
    int
        -1, or the first unit whose scores are not valid.
    """
    n_classes, tile = lines.n_classes, work.tile
    width = lines.n_vectors * LANES
    at_once = min(LANES, tile.size // width)
    for group in range((n + LANES - 1) // LANES):
        start = group * LANES
        size = min(LANES, n - start)
        base = o + group * n_classes * LANES
        for i in range(LANES):
            times[i] = factor(delta, first + start + min(i, size - 1)) if delta.size else 1.0
        largest = 0.0
        for begin in range(0, size, at_once):
            run = min(at_once, size - begin)
            unit = first + start + begin
            fill_rows(raw, brain, unit, run, n_classes, plain, tile)
            one, bad = check_rows(tile, run, lines, allow_zero)
            if bad >= 0:
                return unit + bad
            largest = max(largest, one * largest_of(times))
            if allow_zero:
                bad = flattened_zero(tile, run, width, 1, n_classes, times, begin)
                if bad >= 0:
                    return unit + bad
            if run == LANES and not double:
                for v in range(lines.n_vectors):
                    to_group(tile, v * LANES, width, n_classes - v * LANES, times, 0, out, base + v * LANES * LANES)
                continue
            for i in range(run):
                for k in range(n_classes):
                    z = stored(raw, brain, (unit + i) * n_classes + k) if double else np.float64(tile[i * width + k])
                    out[base + k * LANES + begin + i] = times[begin + i] * z
        clear_group(out, base, size, largest if shifted else 0.0, lines)
    return -1


@inlined
def largest_of(times: Any) -> float:
    """The largest of sixteen factors."""
    largest = 0.0
    for i in range(LANES):
        largest = max(largest, times[i])
    return largest


@stage
def flattened_zero(tile: Any, n: int, unit_step: int, class_step: int, n_classes: int, times: Any, first: int) -> int:
    """The first of n units with a zero probability under a factor of 0, or -1."""
    for i in range(n):
        if times[first + i] == 0.0:
            for k in range(n_classes):
                if tile[i * unit_step + k * class_step] == -np.inf:
                    return i
    return -1


@stage
def clear_group(out: Any, base: int, size: int, largest: float, lines: Lines) -> None:
    """Zero the lanes beyond `size`, take masked classes out, and shift units whose scores would swallow lambda * s.

    No score of the group is beyond `largest`.
    """
    if largest > 0.99 * HUGE:
        for i in range(size):
            top = -np.inf
            for k in range(lines.n_classes):
                if allowed(lines, k):
                    top = max(top, out[base + k * LANES + i])
            if abs(top) > HUGE and top > -np.inf:
                for k in range(lines.n_classes):
                    out[base + k * LANES + i] -= top
    for k in range(lines.n_classes):
        for i in range(size, LANES):
            out[base + k * LANES + i] = 0.0
        if not allowed(lines, k):
            for i in range(LANES):
                out[base + k * LANES + i] = -np.inf


@kernel
def fill_planes64(
    raw: Any, brain: bool, allow_zero: bool, double: bool, shifted: bool, delta: Any, lines: Lines, first: int, n: int,
    out: Any, o: int, plain: Any, times: Any, work: Workspace, pixels: int,
) -> int:  # fmt: skip
    """The same of a `planes` block (B, K, P), P = pixels."""
    n_classes, tile = lines.n_classes, work.tile
    stride = LANES
    for group in range((n + LANES - 1) // LANES):
        start = group * LANES
        size = min(LANES, n - start)
        base = o + group * n_classes * LANES
        done = 0
        largest = 0.0
        while done < size:
            unit = first + start + done
            image, pixel = unit // pixels, unit % pixels
            run = min(size - done, pixels - pixel)
            for i in range(LANES):
                times[i] = factor(delta, unit + min(i, run - 1)) if delta.size else 1.0
            fill_planes(raw, brain, image, pixel, run, n_classes, pixels, plain, tile, stride)
            one, bad = check_planes(tile, run, stride, lines, allow_zero)
            if bad >= 0:
                return unit + bad
            largest = max(largest, one * largest_of(times))
            if allow_zero:
                bad = flattened_zero(tile, run, 1, stride, n_classes, times, 0)
                if bad >= 0:
                    return unit + bad
            if run == LANES and not double:
                for k in range(n_classes):
                    lift(tile, k * stride, times, 0, out, base + k * LANES)
            else:
                for k in range(n_classes):
                    for i in range(run):
                        z = np.float64(tile[k * stride + i])
                        if double:
                            z = stored(raw, brain, (image * n_classes + k) * pixels + pixel + i)
                        out[base + k * LANES + done + i] = times[i] * z
            done += run
        clear_group(out, base, size, largest if shifted else 0.0, lines)
    return -1


@stage
def tilted(
    scores: Any, o: int, lane: int, n_classes: int, lam: float, slopes: Any, s: int, times: float, out: Any
) -> Any:
    """One expert's scores at a lambda, less their maximum, into out (K,).

    Returns (class of the maximum, sum of the exponentials of all others).
    """
    top, best = -1, -np.inf
    for k in range(n_classes):
        value = scores[o + k * LANES + lane]
        if value > -np.inf:
            value += times * (lam * slopes[s + k])
        out[k] = value
        if value > best:
            top, best = k, value
    rest = 0.0
    for k in range(n_classes):
        out[k] -= best
        if k != top:
            rest += exp(out[k])
    return top, rest


@stage
def log_rest(shifted: Any, top: int, n_classes: int) -> float:
    """Log of the sum of the exponentials of all classes but `top`, however small."""
    best = -np.inf
    for k in range(n_classes):
        if k != top and shifted[k] > best:
            best = shifted[k]
    if best == -np.inf:
        return -np.inf
    total = 0.0
    for k in range(n_classes):
        if k != top:
            total += exp(shifted[k] - best)
    return best + log(total)


@stage
def settle(
    scores: Any, o: int, step: int, lane: int, n_experts: int, n_classes: int, lam: float, slopes: Any, factors: Any,
    f: int, f_step: int, operator: int, weights: Any, row: Any,
) -> int:  # fmt: skip
    """The fused decision of one unit in float64; the lowest class on ties.

    Noisy-or and maximum compare 1 - P; average splits off the experts' certainties, so that 1 - 1e-20 is told
    from 1 - 1e-30.
    """
    winner = -1
    best = np.inf
    certain = 0.0
    faint = False
    for mode in range(2):  # products first; sums of logarithms where they underflow
        if mode == 1 and not faint:
            break
        for k in range(n_classes):
            row[n_classes + k] = 0.0 if operator != NOISY_OR or mode == 1 else 1.0
            row[2 * n_classes + k] = 0.0
        for m in range(n_experts):
            if operator == LOG_LINEAR and weights[m] == 0.0:
                continue
            times = factors[f + m * f_step + lane] if factors.size else 1.0
            top, rest = tilted(scores, o + m * step, lane, n_classes, lam, slopes, m * n_classes, times, row)
            total = 1.0 + rest
            logarithm = log_rest(row, top, n_classes) if mode == 1 else 0.0
            for k in range(n_classes):
                place = n_classes + k
                if operator == LOG_LINEAR:
                    row[place] -= weights[m] * row[k]
                elif operator == AVERAGE:
                    leads = row[k] == 0.0
                    row[place] += weights[m] * (rest / total if leads else -exp(row[k]) / total)
                    row[place + n_classes] += weights[m] if leads else 0.0
                elif mode == 1:
                    missed = logarithm - log(total) if row[k] == 0.0 else log1p(-exp(row[k]) / total)
                    if operator == NOISY_OR:
                        row[place] += missed
                    elif m == 0 or missed < row[place]:
                        row[place] = missed
                else:
                    missed = (rest if row[k] == 0.0 else total - exp(row[k])) / total
                    if operator == NOISY_OR:
                        row[place] *= missed
                    elif m == 0 or missed < row[place]:
                        row[place] = missed
        winner = -1
        for k in range(n_classes):
            possible = False
            for m in range(n_experts):
                value = scores[o + m * step + k * LANES + lane]
                possible = possible or value > -np.inf
                if operator == LOG_LINEAR and value == -np.inf and weights[m] != 0.0:
                    possible = False
                    break
            if not possible:
                continue
            value, sure = row[n_classes + k], row[2 * n_classes + k]
            if winner < 0 or (value - best) - (sure - certain) < 0.0:
                winner, best, certain = k, value, sure
        faint = operator in (NOISY_OR, MAXIMUM) and best < _FAINT
    return winner


@kernel
def fused_winners(
    scores: Any, n_groups: int, n_experts: int, n_classes: int, lams: Any, slopes: Any, tables: Any, factors: Any,
    operator: int, weights: Any, margin: float, winners: Any, found: Any, n: int, scratch: Scratch,
) -> int:  # fmt: skip
    """The fused decision of every unit at every lambda.

    Parameters
    ----------
    scores : (M * n_groups * K * 16,) float64
        delta * z as groups, one expert after another.
    lams : (G,) float64
    slopes : (M * K,) float64
        s_k of each expert, its share of lambda included.
    tables : (M * G * K,) float32, or (0,)
        exp(lambda * s) up to a factor per expert and lambda; empty where slopes differ from unit to unit, and
        everything is settled.
    factors : (M * n_groups * 16,) float64, or (0,)
        What the slopes of each unit are multiplied by; empty for 1.
    operator : int
    weights : (M,) float64
    margin : float
        Relative doubt of the float32 comparison.
    winners : (G * n_groups * 16,) int32
        Written: the winners of all units at the first lambda, then at the next.
    found : (G * 16,) int32
        Scratch.
    n : int
        Units; what else is in the last group decides nothing.

    Returns
    -------
    int
        -1, or the first unit without a class of positive probability.
    """
    step = n_groups * n_classes * LANES
    last = lams.size - 1
    for m in range(n_experts):
        for k in range(n_classes):
            slope = slopes[m * n_classes + k]
            scratch.ends[2 * m * n_classes + k] = lams[0] * slope
            scratch.ends[(2 * m + 1) * n_classes + k] = lams[last] * slope
    waiting = 0
    for group in range(n_groups):
        open_lanes = agreed(
            scores, group, step, n_groups, n_experts, n_classes, factors, scratch.ends, scratch.times, scratch.tops
        )
        for g in range(lams.size):
            w = (g * n_groups + group) * LANES
            for i in range(LANES):
                winners[w + i] = scratch.tops[i]
        valid = (1 << min(LANES, n - group * LANES)) - 1
        open_lanes &= valid
        if crowded(open_lanes):  # where many are open, all sixteen go at once
            factor_place = group * LANES if factors.size else 0
            lane = decide_group(
                scores, group * n_classes * LANES, step, valid, n_experts, n_classes, lams, slopes, tables, factors,
                factor_place, n_groups * LANES, operator, weights, margin, winners, group * LANES, n_groups * LANES,
                scratch,
            )  # fmt: skip
            if lane >= 0:
                return group * LANES + lane
            continue
        while open_lanes:
            lane = first_lane(open_lanes)
            open_lanes &= open_lanes - 1
            for m in range(n_experts):
                for k in range(n_classes):
                    place = (m * n_classes + k) * LANES
                    scratch.queue[place + waiting] = scores[group * n_classes * LANES + m * step + k * LANES + lane]
                if factors.size:
                    scratch.queue_factors[m * LANES + waiting] = factors[(m * n_groups + group) * LANES + lane]
            scratch.units[waiting] = group * LANES + lane
            waiting += 1
            if waiting == LANES:
                bad = decide_queue(
                    waiting, n_groups, n_experts, n_classes, lams, slopes, tables, factors.size > 0, operator, weights,
                    margin, winners, found, scratch,
                )  # fmt: skip
                if bad >= 0:
                    return bad
                waiting = 0
    return decide_queue(
        waiting, n_groups, n_experts, n_classes, lams, slopes, tables, factors.size > 0, operator, weights, margin,
        winners, found, scratch,
    )  # fmt: skip


@inlined
def crowded(lanes: int) -> bool:
    """Whether thirteen lanes or more are set."""
    for _ in range(12):
        lanes &= lanes - 1
    return lanes != 0


@stage
def agreed(
    scores: Any, group: int, step: int, n_groups: int, n_experts: int, n_classes: int, factors: Any, biases: Any,
    ones: Any, tops: Any,
) -> int:  # fmt: skip
    """The lanes of a group that are open; of the others the decision, at every lambda, into tops[:16].

    An expert that prefers the same class at both ends of the lattice does so everywhere between, as its scores are
    lines. And what all experts prefer, every operator does.
    """
    open_lanes = 0
    for m in range(n_experts):
        times, f = ones, 0
        if factors.size:
            times, f = factors, (m * n_groups + group) * LANES
        o = group * n_classes * LANES + m * step
        t = LANES if m else 0
        open_lanes |= ends(scores, o, n_classes, biases, 2 * m * n_classes, times, f, tops, t)
        if m:
            open_lanes |= differ(tops, 0, tops, LANES)
    return open_lanes


@stage
def decide_queue(
    waiting: int, n_groups: int, n_experts: int, n_classes: int, lams: Any, slopes: Any, tables: Any, flattened: bool,
    operator: int, weights: Any, margin: float, winners: Any, found: Any, scratch: Scratch,
) -> int:  # fmt: skip
    """Decide the units that wait, at every lambda: -1, or the first without a class of positive probability."""
    if waiting == 0:
        return -1
    factors = scratch.queue_factors if flattened else scratch.queue_factors[:0]
    lane = decide_group(
        scratch.queue, 0, n_classes * LANES, (1 << waiting) - 1, n_experts, n_classes, lams, slopes, tables, factors, 0,
        LANES, operator, weights, margin, found, 0, LANES, scratch,
    )  # fmt: skip
    if lane >= 0:
        return scratch.units[lane]
    for g in range(lams.size):
        for i in range(waiting):
            winners[g * n_groups * LANES + scratch.units[i]] = found[g * LANES + i]
    return -1


@stage
def decide_group(
    scores: Any, o: int, step: int, valid: int, n_experts: int, n_classes: int, lams: Any, slopes: Any, tables: Any,
    factors: Any, f: int, f_step: int, operator: int, weights: Any, margin: float, winners: Any, w: int, w_step: int,
    scratch: Scratch,
) -> int:  # fmt: skip
    """Decide sixteen units at every lambda, into winners[w + g * w_step:].

    Returns -1, or the first of the `valid` lanes without a class of positive probability.
    """
    size = n_classes * LANES
    quick = tables.size > 0 and operator != LOG_LINEAR
    tiny = np.float32(TINY if operator == NOISY_OR else TINY_SHARE * max(1.0, n_classes / 1000))
    near = np.float32(margin)
    if quick:
        for m in range(n_experts):
            soften(scores, o + m * step, n_classes, scratch.e, m * size)
    for g in range(lams.size):
        place = w + g * w_step
        doubt = (1 << LANES) - 1
        if quick and n_experts == 2 and operator == NOISY_OR:
            first = g * n_classes
            second = (lams.size + g) * n_classes
            doubt = tilt(scratch.e, 0, n_classes, tables, first, scratch.p, 0, scratch.sums, 0)
            doubt |= tilt(scratch.e, size, n_classes, tables, second, scratch.p, size, scratch.sums, 2 * LANES)
            doubt |= pair(scratch.p, 0, size, n_classes, scratch.sums, near, tiny, winners, place)
        elif quick:
            doubt = 0
            for m in range(n_experts):
                table = (m * lams.size + g) * n_classes
                doubt |= tilt(scratch.e, m * size, n_classes, tables, table, scratch.p, 0, scratch.sums, 0)
                if operator == AVERAGE:
                    share(scratch.p, 0, n_classes, scratch.sums, 0, np.float32(weights[m]), scratch.q, 0, m == 0)
                else:
                    miss(scratch.p, 0, n_classes, scratch.sums, 0, scratch.q, 0, m == 0, operator == MAXIMUM)
            doubt |= least(scratch.q, 0, n_classes, near, tiny, winners, place)
        doubt &= valid
        while doubt:
            lane = first_lane(doubt)
            doubt &= doubt - 1
            winner = settle(
                scores, o, step, lane, n_experts, n_classes, lams[g], slopes, factors, f, f_step, operator, weights,
                scratch.row,
            )  # fmt: skip
            if winner < 0:
                return lane
            winners[place + lane] = winner
    return -1


@kernel
def count_winners(
    winners: Any, n_groups: int, n: int, n_points: int, labels: Any, tables: Any, first: int, n_classes: int,
    hits: Any, predicted: Any, support: Any,
) -> None:  # fmt: skip
    """Add units first..first+n to counts along lambda, as changes: sum them over the points to get counts.

    Parameters
    ----------
    winners : (G * n_groups * 16,) int32
        As `fused_winners` wrote them.
    labels, tables : (T,) int32
        Of the whole batch; negative labels are not counted.
    hits, predicted : (F * G * K,) int64
        Added to.
    support : (F * K,) int64
        Added to.
    """
    for group in range(n_groups):
        size = min(LANES, n - group * LANES)
        for i in range(size):
            label, table = at(labels, first + group * LANES + i), at(tables, first + group * LANES + i)
            if label >= 0:
                winner = at(winners, group * LANES + i)
                place = table * n_points * n_classes
                add_at(support, table * n_classes + label, 1)
                add_at(predicted, place + winner, 1)
                add_at(hits, place + winner, np.int64(winner == label))
        for g in range(1, n_points):
            now, before = (g * n_groups + group) * LANES, ((g - 1) * n_groups + group) * LANES
            changed = differ(winners, now, winners, before) & ((1 << size) - 1)
            while changed:
                i = first_lane(changed)
                changed &= changed - 1
                label, table = at(labels, first + group * LANES + i), at(tables, first + group * LANES + i)
                if label >= 0:
                    winner, loser = at(winners, now + i), at(winners, before + i)
                    place = (table * n_points + g) * n_classes
                    add_at(predicted, place + winner, 1)
                    add_at(predicted, place + loser, -1)
                    add_at(hits, place + winner, np.int64(winner == label))
                    add_at(hits, place + loser, -np.int64(loser == label))


@stage
def faint_log(
    scores: Any, o: int, step: int, lane: int, k: int, n_experts: int, n_classes: int, lam: float, slopes: Any,
    factors: Any, f: int, f_step: int, operator: int, weights: Any, row: Any,
) -> float:  # fmt: skip
    """Log of the fused P(k), before it is normalised, where the probability itself is below float64's range."""
    result = -np.inf
    for m in range(n_experts):
        times = factors[f + m * f_step + lane] if factors.size else 1.0
        _, rest = tilted(scores, o + m * step, lane, n_classes, lam, slopes, m * n_classes, times, row)
        value = row[k] - log1p(rest)
        if operator == AVERAGE:
            value += log(weights[m]) if weights[m] > 0.0 else -np.inf
        if operator == MAXIMUM or result == -np.inf or value == -np.inf:
            result = value if value > result else result
        else:
            high, low = (value, result) if value > result else (result, value)
            result = high + log1p(exp(low - high))
    return result


@kernel
def write_fused(
    scores: Any, n_groups: int, n: int, n_experts: int, n_classes: int, lam: float, slopes: Any, factors: Any,
    operator: int, weights: Any, winners: Any, in_logs: bool, lowest: Any, out: Any, first: int, pixels: int,
    scratch: Scratch,
) -> None:  # fmt: skip
    """The fused posterior of n units, relative error below 1e-9 before it is rounded to the dtype of `out`.

    Parameters
    ----------
    scores, n_groups, n_experts, n_classes, slopes, factors, operator, weights
        As in `fused_winners`.
    lam : float
    winners : (n_groups * 16,) int32
        The decisions; of equal entries written, the first is the decision.
    in_logs : bool
        Log-probabilities (nats) instead of probabilities.
    lowest : float
        -inf in the dtype of `out`.
    out : (T * K,) float32 or float64
        Of the whole batch; units first..first+n are written.
    pixels : int
        P of a `planes` output (B, K, P); 0 for rows.
    """
    size = n_classes * LANES
    step = n_groups * size
    narrow = out.itemsize == 4
    u, e, sums, bias = scratch.u, scratch.e64, scratch.sums64, scratch.bias
    for group in range(n_groups):
        o = group * size
        if operator == LOG_LINEAR:  # one line per class: the weighted sum of the experts' scores
            pool(scores, o, step, group, n_groups, n_experts, n_classes, lam, slopes, factors, weights, u)
            bias[:] = 0.0
            soften64(u, 0, n_classes, bias, 0, scratch.times, 0, e, 0, sums, 0)
            if in_logs:
                shift(u, 0, n_classes, u, 0, sums, 0)
            else:
                blend(e, 0, n_classes, sums, 0, AVERAGE, 1.0, True, u, 0)
        else:
            for m in range(n_experts):
                for k in range(n_classes):
                    bias[k] = lam * slopes[m * n_classes + k]
                times, f = scratch.times, 0
                if factors.size:
                    times, f = factors, (m * n_groups + group) * LANES
                soften64(scores, o + m * step, n_classes, bias, 0, times, f, e, 0, sums, 0)
                blend(e, 0, n_classes, sums, 0, operator, weights[m], m == 0, u, 0)
            faint = finish(u, 0, n_classes, in_logs, sums, 0)
            while faint and in_logs:
                lane = first_lane(faint)
                faint &= faint - 1
                for k in range(n_classes):
                    if u[k * LANES + lane] < -600.0:
                        u[k * LANES + lane] = faint_log(
                            scores, o, step, lane, k, n_experts, n_classes, lam, slopes, factors, group * LANES,
                            n_groups * LANES, operator, weights, scratch.row,
                        ) - sums[lane]  # fmt: skip
        count = min(LANES, n - group * LANES)
        unit = first + group * LANES
        put_group(u, n_classes, count, narrow, out, unit, pixels, scratch.rows)
        wrong = first_largest(u, 0, n_classes, narrow, winners, group * LANES)
        slack = 0.0
        if not narrow and not in_logs:  # logarithms of neighbouring float64 may be equal
            wrong, slack = (1 << LANES) - 1, 1e-15
        wrong &= (1 << count) - 1
        while wrong:
            lane = first_lane(wrong)
            wrong &= wrong - 1
            source, stride = unit_source(unit + lane, n_classes, pixels)
            raise_winner(out, source, stride, n_classes, at(winners, group * LANES + lane), slack, lowest)


@stage
def pool(
    scores: Any, o: int, step: int, group: int, n_groups: int, n_experts: int, n_classes: int, lam: float, slopes: Any,
    factors: Any, weights: Any, out: Any,
) -> None:  # fmt: skip
    """The weighted sum of the experts' tilted scores of a group."""
    for j in range(n_classes * LANES):
        out[j] = 0.0
    for m in range(n_experts):
        weight = weights[m]
        if weight != 0.0:
            for k in range(n_classes):
                bias = lam * slopes[m * n_classes + k]
                for i in range(LANES):
                    times = factors[(m * n_groups + group) * LANES + i] if factors.size else 1.0
                    out[k * LANES + i] += weight * (scores[o + m * step + k * LANES + i] + times * bias)


@stage
def put_group(u: Any, n_classes: int, count: int, narrow: bool, out: Any, unit: int, pixels: int, rows: Any) -> None:
    """A float64 group to its place in the output."""
    if pixels or not narrow or count < LANES:
        for i in range(count):
            source, stride = unit_source(unit + i, n_classes, pixels)
            for k in range(n_classes):
                out[source + k * stride] = u[k * LANES + i]
        return
    for v in range((n_classes - 1) // LANES * LANES, -1, -LANES):  # what a row's end spills over is written later
        to_rows(u, v * LANES, n_classes - v, rows, v, n_classes)
    base = unit * n_classes
    for j in range(LANES * n_classes):
        out[base + j] = rows[j]


@stage
def raise_winner(out: Any, source: int, stride: int, n_classes: int, winner: int, slack: float, lowest: Any) -> None:
    """Let the first largest entry of a unit be its decision, by one step of rounding (or a relative `slack`)."""
    best = out[source + winner * stride]
    below = best - slack * best if slack > 0.0 else np.nextafter(best, lowest)
    for k in range(n_classes):
        if k < winner and out[source + k * stride] > below:
            out[source + k * stride] = below
        elif k > winner and out[source + k * stride] > best:
            out[source + k * stride] = best


@kernel
def add_scaled(
    raw: Any, brain: bool, allow_zero: bool, double: bool, pixels: int, delta: Any, lines: Lines, n_units: int,
    weight: float, out: Any, plain: Any, scratch: Scratch, work: Workspace,
) -> int:  # fmt: skip
    """Add weight * delta * z of every unit of a block to out (K, T) float64, class-major.

    Returns -1, or the first unit whose scores are not valid.
    """
    n_classes = lines.n_classes
    group, times = scratch.u, scratch.times
    for first in range(0, n_units, LANES):
        n = min(LANES, n_units - first)
        if pixels:
            bad = fill_planes64(
                raw, brain, allow_zero, double, False, delta, lines, first, n, group, 0, plain, times, work, pixels
            )
        else:
            bad = fill_rows64(
                raw, brain, allow_zero, double, False, delta, lines, first, n, group, 0, plain, times, work
            )
        if bad >= 0:
            return bad
        if weight == 0.0:  # checked all the same
            continue
        for k in range(n_classes):
            for i in range(n):
                out[k * n_units + first + i] += weight * group[k * LANES + i]
    return -1
