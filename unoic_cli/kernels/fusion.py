"""Fusion of M experts at many lambdas (Algorithm 1): decisions, counts, and the fused posterior.

Every expert's scores delta * z are first laid out as float64 *groups* of sixteen units, class-major (`fill_rows64`,
`fill_planes64`); what follows is the same for every storage layout. A softmax is taken once per expert and unit; at
each lambda it is multiplied by exp(lambda * s) and summed anew. Decisions are made in float32 with margins far above
its rounding; what is inside a margin is decided by `settle`, in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unoic_cli.kernels.constants import HUGE
from unoic_cli.kernels.jit import inlined, kernel, stage
from unoic_cli.kernels.joining import group_of, tilted
from unoic_cli.kernels.lanes import differ, ends, first_largest, lift, soften, to_group, to_rows
from unoic_cli.kernels.lines import Lines, Workspace
from unoic_cli.kernels.operator import Group, Scratch
from unoic_cli.kernels.simd import LANES, add_at, at, first_lane
from unoic_cli.kernels.tile import (
    allowed,
    check_planes,
    check_rows,
    factor,
    fill_planes,
    fill_rows,
    stored,
    unit_source,
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
        As in `unoic_cli.kernels.path.count_path_columns`.
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
            run = min(size - done, pixels - unit % pixels)
            for i in range(LANES):
                times[i] = factor(delta, unit + min(i, run - 1)) if delta.size else 1.0
            source, _ = unit_source(unit, n_classes, pixels)
            fill_planes(raw, brain, source, run, n_classes, pixels, tile, stride)
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
                            z = stored(raw, brain, source + k * pixels + i)
                        out[base + k * LANES + done + i] = times[i] * z
            done += run
        clear_group(out, base, size, largest if shifted else 0.0, lines)
    return -1


@stage
def may_win(operator: Any, group: Group, lane: int, k: int) -> bool:
    """Whether an expert gives class k of a unit some probability, and none rules it out."""
    possible = False
    for m in range(group.n_experts):
        if group.scores[group.o + m * group.step + k * LANES + lane] > -np.inf:
            possible = True
        elif operator.excludes(m):
            return False
    return possible


@stage
def lead(operator: Any, group: Group, lane: int, lam: float, in_logs: bool, row: Any) -> Any:
    """The fused decision of one unit in float64, -1 where no class may win, and its value; the lowest class on ties."""
    n_classes = group.n_classes
    for k in range(2 * n_classes):
        row[n_classes + k] = 0.0
    for m in range(group.n_experts):
        top, rest = tilted(group, m, lane, lam, row)
        operator.weigh(m, n_classes, top, rest, in_logs, row)
    winner, best, certain = -1, np.inf, 0.0
    for k in range(n_classes):
        if may_win(operator, group, lane, k):
            value, sure = row[n_classes + k], row[2 * n_classes + k]
            if winner < 0 or (value - best) - (sure - certain) < 0.0:
                winner, best, certain = k, value, sure
    return winner, best


@stage
def settle(operator: Any, group: Group, lane: int, lam: float, row: Any) -> int:
    """The fused decision of one unit in float64; in sums of logarithms where what is fused is too small for it."""
    winner, best = lead(operator, group, lane, lam, False, row)
    if operator.is_faint(best):
        winner, best = lead(operator, group, lane, lam, True, row)
    return winner


@kernel
def fused_winners(
    experts: Group, n_groups: int, lams: Any, tables: Any, operator: Any, margin: float, winners: Any, found: Any,
    n: int, scratch: Scratch,
) -> int:  # fmt: skip
    """The fused decision of every unit at every lambda.

    Parameters
    ----------
    experts : Group
        The first group of units; the others follow.
    lams : (G,) float64
        In any order.
    tables : (M * G * K,) float32, or (0,)
        exp(lambda * s) up to a factor per expert and lambda; empty where slopes differ from unit to unit, and
        everything is settled.
    operator : Operator
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
    n_classes, least, most = experts.n_classes, lams[0], lams[0]
    for point in range(lams.size):
        least, most = min(least, lams[point]), max(most, lams[point])
    for m in range(experts.n_experts):
        for k in range(n_classes):
            slope = experts.slopes[m * n_classes + k]
            scratch.ends[2 * m * n_classes + k] = least * slope
            scratch.ends[(2 * m + 1) * n_classes + k] = most * slope
    waiting = 0
    for g in range(n_groups):
        group = group_of(experts, g)
        open_lanes = agreed(group, scratch)
        for point in range(lams.size):
            w = (point * n_groups + g) * LANES
            for i in range(LANES):
                winners[w + i] = scratch.tops[i]
        valid = (1 << min(LANES, n - g * LANES)) - 1
        open_lanes &= valid
        if crowded(open_lanes):  # where many are open, all sixteen go at once
            lane = decide_group(
                group, valid, lams, tables, operator, margin, winners, g * LANES, n_groups * LANES, scratch
            )
            if lane >= 0:
                return g * LANES + lane
            continue
        while open_lanes:
            lane = first_lane(open_lanes)
            open_lanes &= open_lanes - 1
            enqueue(group, lane, waiting, scratch)
            scratch.units[waiting] = g * LANES + lane
            waiting += 1
            if waiting == LANES:
                bad = decide_queue(waiting, experts, n_groups, lams, tables, operator, margin, winners, found, scratch)
                if bad >= 0:
                    return bad
                waiting = 0
    return decide_queue(waiting, experts, n_groups, lams, tables, operator, margin, winners, found, scratch)


@inlined
def crowded(lanes: int) -> bool:
    """Whether thirteen lanes or more are set."""
    for _ in range(12):
        lanes &= lanes - 1
    return lanes != 0


@stage
def agreed(group: Group, scratch: Scratch) -> int:
    """The lanes of a group that are open; of the others the decision, at every lambda, into ``tops[:16]``.

    An expert that prefers the same class at the least and at the largest lambda does so everywhere between, as its
    scores are lines. And what all experts prefer, every operator does.
    """
    open_lanes, tops = 0, scratch.tops
    for m in range(group.n_experts):
        times, f = scratch.times, 0
        if group.factors.size:
            times, f = group.factors, group.f + m * group.f_step
        o, t = group.o + m * group.step, LANES if m else 0
        open_lanes |= ends(
            group.scores, o, group.n_classes, scratch.ends, 2 * m * group.n_classes, times, f, tops, t
        )  # fmt: skip
        if m:
            open_lanes |= differ(tops, 0, tops, LANES)
    return open_lanes


@inlined
def enqueue(group: Group, lane: int, i: int, scratch: Scratch) -> None:
    """Put a unit into lane i of the units that wait."""
    for m in range(group.n_experts):
        for k in range(group.n_classes):
            place = (m * group.n_classes + k) * LANES + i
            scratch.queue[place] = group.scores[group.o + m * group.step + k * LANES + lane]
        if group.factors.size:
            scratch.queue_factors[m * LANES + i] = group.factors[group.f + m * group.f_step + lane]


@stage
def decide_queue(
    waiting: int, experts: Group, n_groups: int, lams: Any, tables: Any, operator: Any, margin: float, winners: Any,
    found: Any, scratch: Scratch,
) -> int:  # fmt: skip
    """Decide the units that wait, at every lambda: -1, or the first without a class of positive probability."""
    if waiting == 0:
        return -1
    factors = scratch.queue_factors if experts.factors.size else scratch.queue_factors[:0]
    group = Group(
        scratch.queue, 0, experts.n_classes * LANES, factors, 0, LANES, experts.slopes, experts.n_experts,
        experts.n_classes,
    )  # fmt: skip
    lane = decide_group(group, (1 << waiting) - 1, lams, tables, operator, margin, found, 0, LANES, scratch)
    if lane >= 0:
        return scratch.units[lane]
    for g in range(lams.size):
        for i in range(waiting):
            winners[g * n_groups * LANES + scratch.units[i]] = found[g * LANES + i]
    return -1


@stage
def decide_group(
    group: Group, valid: int, lams: Any, tables: Any, operator: Any, margin: float, winners: Any, w: int, w_step: int,
    scratch: Scratch,
) -> int:  # fmt: skip
    """Decide sixteen units at every lambda, into winners[w + g * w_step:].

    Returns -1, or the first of the `valid` lanes without a class of positive probability.
    """
    size = group.n_classes * LANES
    quick, near = tables.size > 0 and operator.is_quick(), np.float32(margin)
    if quick:
        for m in range(group.n_experts):
            soften(group.scores, group.o + m * group.step, group.n_classes, scratch.e, m * size)
    for g in range(lams.size):
        place = w + g * w_step
        doubt = valid
        if quick:
            doubt &= operator.guess(
                group.n_experts, group.n_classes, tables, g, lams.size, near, winners, place, scratch
            )  # fmt: skip
        while doubt:
            lane = first_lane(doubt)
            doubt &= doubt - 1
            winner = settle(operator, group, lane, lams[g], scratch.row)
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


@kernel
def write_fused(
    experts: Group, n_groups: int, n: int, lam: float, operator: Any, winners: Any, in_logs: bool, lowest: Any,
    out: Any, first: int, pixels: int, scratch: Scratch,
) -> None:  # fmt: skip
    """The fused posterior of n units, relative error below 1e-9 before it is rounded to the dtype of `out`.

    Parameters
    ----------
    experts, n_groups, operator
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
    n_classes, u = experts.n_classes, scratch.u
    narrow = out.itemsize == 4
    for group in range(n_groups):
        operator.fuse(group_of(experts, group), lam, in_logs, scratch)
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
