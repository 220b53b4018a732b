"""The lambda path: counts at every lattice lambda from one visit of each unit.

The class that wins as lambda grows is the upper envelope of K lines, so its slope never falls. Per unit:

1. The winners c and e at both ends of the lattice. If they agree, they agree everywhere between.
2. Else look at the *kink*, where the lines of c and e cross. A class that beats both anywhere beats
   both there (it is below c at the left end and below e at the right end, and all are lines), so the
   classes above the kink are all that can still matter. None: one change of winner, at the kink.
3. Else go on to the best class there, t, and look at the kink of c and t; where no class is above it, t is
   the winner, and the next kink is that of t and e.
4. Whatever float32 cannot settle with a margin to spare goes to `settle`: float64, on the few classes that
   are left, lattice point by lattice point where it is close.

Sixteen units take each step together, class-major, by the operations of `unoic_cli.kernels.columns`; rows of many
classes (`count_path_wide`) take them one by one.

Changes are counted: ``counts[fold, g, k, own]`` (laid out flat, int32) grows by 1 when the class starts to be predicted
at lattice point g, and falls when it stops; units whose label it is (own = 1) are counted apart from the others.
`add_up` makes hits and predictions of them. A table serves fewer than 2**31 units; the tally empties it in time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unoic_cli.kernels.columns import (
    ACTIVE,
    AGE,
    ARRIVED,
    BEYOND,
    FAR,
    FATE,
    FIRST,
    INVERSE_STEP,
    LABEL,
    LAST_WINNER,
    LEAST_RISE,
    LOST,
    MARGIN0,
    MARGIN1,
    S_ERROR,
    SINCE,
    STEEPEST2,
    TAG_ERROR,
    TARGET,
    WINNER,
    Z_ERROR,
    change_columns,
    end_columns,
    kinks,
    take,
    walk_columns,
)
from unoic_cli.kernels.constants import TINY
from unoic_cli.kernels.jit import inlined, kernel, stage
from unoic_cli.kernels.lines import COPIES, Lines, Workspace
from unoic_cli.kernels.simd import (
    LANES,
    add_at,
    at,
    fetch,
    first_lane,
    lanes_above,
    lanes_above_line,
    put,
    row_ends,
)
from unoic_cli.kernels.tile import (
    check_planes,
    check_rows,
    fill_columns,
    fill_planes,
    fill_rows,
    mask_columns,
    score64,
)

MARGIN = 2.0**-20
"""Relative float32 error that every float32 comparison allows for (its own is below 2**-22)."""
ALL_LANES = (1 << LANES) - 1


@inlined
def change(counts: Any, table: int, n_classes: int, g: int, old: int, new: int, label: int) -> None:
    """Record that the winner is `new` instead of `old` from lattice point g on; `table` is where the fold starts."""
    row = table + (COPIES - 1 + g) * n_classes
    add_at(counts, 2 * (row + old) + np.int64(old == label), -1)
    add_at(counts, 2 * (row + new) + np.int64(new == label), 1)


@inlined
def position(t: float, lines: Lines) -> float:
    """Where lambda = t lies on the lattice, in steps."""
    return (t - lines.lams[0]) * lines.inverse_step


@inlined
def lattice_point(t: float, error: float, lines: Lines) -> Any:
    """The lattice point from which on a line that crosses at t +- error leads; -1 when that is uncertain.

    Crossings before the lattice count from point 1 (point 0 has its own winner), those beyond it from point G:
    half a step beyond is as good as any, but on the last point, or a little beyond, is uncertain.
    """
    place = min(max(position(t, lines), 0.0), np.float64(lines.lams.size) - 0.5)
    slack = (error + lines.slack) * lines.inverse_step
    g = np.int64(place)
    rest = place - np.float64(g)
    clear = (rest > slack or g == 0) and rest < 1.0 - slack
    return g + 1 if clear else -1


@inlined
def winner_at(scores: Any, slopes: Any, n: int, lam: float) -> int:
    """Position of the best of n lines at lambda, in float64; the first on ties, as numpy's argmax."""
    best = 0
    top = scores[0] + lam * slopes[0]
    for i in range(1, n):
        score = scores[i] + lam * slopes[i]
        if score > top:
            top = score
            best = i
    return best


@inlined
def next_doubt(scores: Any, slopes: Any, n: int, g: int, w: int, lines: Lines) -> Any:
    """First lattice point after g where the winner w might lose, at float64's resolution; G when there is none."""
    size = lines.lams.size
    found = size
    for i in range(n):
        if i == w or scores[i] == -np.inf:
            continue
        gap = scores[w] - scores[i]
        steeper = slopes[i] - slopes[w]
        if gap == 0.0 and steeper == 0.0:
            continue  # equal at every lambda, bit for bit: the order settled it
        tiny = TINY * (abs(scores[w]) + abs(scores[i]) + lines.reach)
        if steeper > 0.0:
            place = position((gap - tiny) / steeper - lines.slack, lines)
            if place < np.float64(found):
                found = max(g + 1, np.int64(max(place, 0.0)))
        elif gap - lines.lams[min(g + 1, size - 1)] * steeper < tiny:
            found = min(found, g + 1)
    return found


@inlined
def settle(
    scores: Any, slopes: Any, classes: Any, n: int, lines: Lines, counts: Any, table: int, label: int, c: int,
    since: int,
) -> None:  # fmt: skip
    """The exact path of n candidate lines: equal to float64 argmax with lowest-index ties at every lattice point.

    `classes` ascends, so the first position on ties is the lowest class. `since`: the lattice point up to which all is
    certain, and from which on c is counted (it may have been overtaken before that point); -1 when there is none.
    """
    if since >= lines.lams.size:
        return
    w = winner_at(scores, slopes, n, lines.lams[max(since, 0)])
    if since < 0:
        add_at(counts, 2 * (table + at(classes, w)) + np.int64(classes[w] == label), 1)
    elif classes[w] != c:
        change(counts, table, lines.n_classes, since, c, classes[w], label)
    g = next_doubt(scores, slopes, n, max(since, 0), w, lines)
    while g < lines.lams.size:
        new = winner_at(scores, slopes, n, lines.lams[g])
        if new != w:
            change(counts, table, lines.n_classes, g, classes[w], classes[new], label)
            w = new
        g = next_doubt(scores, slopes, n, g, w, lines)


@inlined
def walk(
    scores: Any, slopes: Any, n: int, c: int, e: int, z_error: float, lines: Lines, winners: Any, points: Any
) -> int:
    """Steps from position c to position e of n candidate lines, each certain, or -1.

    Writes the new winner and the lattice point of each step; returns how many there are.
    """
    steps = 0
    w = c
    second = at(lines.lams, min(1, lines.lams.size - 1))
    while w != e:
        z, s = at(scores, w), at(slopes, w)
        nearest, runner_up = np.inf, np.inf
        best = -1
        for i in range(n):
            steeper = at(slopes, i) - s
            if steeper > 0.0:
                cross = (z - at(scores, i) - z_error) / steeper
                if cross < nearest:
                    nearest, runner_up = cross, nearest
                    best = i
                elif cross < runner_up:
                    runner_up = cross
            elif w == c:  # an exact start may lead by less than float64 resolves elsewhere
                lead = z - at(scores, i)
                if not lead - second * steeper > z_error and (lead != 0.0 or steeper != 0.0):
                    return -1
        if best < 0:
            return -1
        error = 2.0 * z_error / (at(slopes, best) - s)
        g = lattice_point(nearest, error, lines)
        if g < 0 or not nearest + error + 1e-12 * abs(nearest) < runner_up:
            return -1
        put(winners, steps, best)
        put(points, steps, g)
        steps += 1
        w = best
    return steps


@inlined
def crossing(tile: Any, o: int, a: int, b: int, lines: Lines) -> float:
    """The lambda where the lines of a and b cross, from the tile's scores."""
    return (np.float64(tile[o + a]) - np.float64(tile[o + b])) / (lines.slope[b] - lines.slope[a])


@inlined
def above_kink(tile: Any, o: int, v: int, c: int, e: int, lam: float, floor: float, lines: Lines) -> Any:
    """Bits of the classes of vector v, other than c and e, that reach `floor` at lambda = lam."""
    mask = lanes_above_line(tile, o + v * LANES, lines.slope32, v * LANES, np.float32(lam), np.float32(floor))
    mask &= at(lines.valid, v)
    mask &= ~(np.int64(c >> 4 == v) << (c & 15))
    return mask & ~(np.int64(e >> 4 == v) << (e & 15))


@inlined
def over_one(tile: Any, o: int, c: int, m: int, e: int, z_error: float, lines: Lines, work: Workspace) -> int:
    """Two changes, from c over m to e; -1 when the tile does not settle them."""
    rise, rest = at(lines.slope, m) - at(lines.slope, c), at(lines.slope, e) - at(lines.slope, m)
    if not (rise > 0.0 and rest > 0.0):
        return -1
    first_inverse, second_inverse = 1.0 / rise, 1.0 / rest
    z = np.float64(at(tile, o + m))
    first = (np.float64(at(tile, o + c)) - z) * first_inverse
    second = (z - np.float64(at(tile, o + e))) * second_inverse
    g1 = lattice_point(first, z_error * first_inverse, lines)
    g2 = lattice_point(second, z_error * second_inverse, lines)
    put(work.winners, 0, m)
    put(work.points, 0, g1)
    put(work.winners, 1, e)
    put(work.points, 1, g2)
    apart = first + z_error * first_inverse < second - z_error * second_inverse
    return 2 if apart and g1 >= 0 and g2 >= 0 else -1


@inlined
def resolve_row(tile: Any, o: int, c: int, e: int, z_error: float, margin: float, lines: Lines, work: Workspace) -> int:
    """Step 2 for one unit whose ends c and e are certain and different.

    Writes the path to ``work.winners`` (classes) and ``work.points`` (lattice points from which on they
    lead) and returns the number of changes; -1 when float32 and the tile do not settle it.
    """
    steeper = at(lines.slope, e) - at(lines.slope, c)
    if not steeper > 0.0:
        return -1
    inverse = 1.0 / steeper
    z = np.float64(at(tile, o + c))
    lam = (z - np.float64(at(tile, o + e))) * inverse
    error = z_error * inverse
    floor = z + lam * at(lines.slope, c) - margin - 2.0 * error * lines.steepest
    n = 2
    for v in range(lines.n_vectors):
        mask = above_kink(tile, o, v, c, e, lam, floor, lines)
        while mask:
            put(work.classes, n, v * LANES + first_lane(mask))
            n += 1
            mask &= mask - 1
    if n == 2:
        g = lattice_point(lam, error, lines)
        put(work.winners, 0, e)
        put(work.points, 0, g)
        return 1 if g >= 0 else -1
    if n == 3:
        return over_one(tile, o, c, at(work.classes, 2), e, z_error, lines, work)
    put(work.classes, 0, c)
    put(work.classes, 1, e)
    for i in range(n):
        k = at(work.classes, i)
        put(work.scores, i, np.float64(at(tile, o + k)))
        put(work.slopes, i, at(lines.slope, k))
    steps = walk(work.scores, work.slopes, n, 0, 1, z_error, lines, work.winners, work.points)
    for i in range(steps):
        put(work.winners, i, at(work.classes, at(work.winners, i)))
    return steps


@inlined
def candidates(tile: Any, o: int, c: int, e: int, z_error: float, margin: float, lines: Lines, out: Any) -> int:
    """Ascending classes that may lead somewhere: near the top at an end, or at the kink. Returns how many."""
    row = o
    top0, top1 = row_ends(tile, row, lines.n_vectors, lines.bias0, lines.bias1)
    steeper = lines.slope[e] - lines.slope[c]
    kink = c != e
    lam, floor = 0.0, 0.0
    if kink:
        if not steeper * 1e6 > lines.steepest:  # nearly parallel: the kink may lie anywhere
            n = 0
            for k in range(lines.n_classes):
                if (lines.valid[k // LANES] >> (k % LANES)) & 1:
                    out[n] = k
                    n += 1
            return n
        lam = crossing(tile, o, c, e, lines)
        floor = np.float64(tile[o + c]) + lam * lines.slope[c] - margin - 2.0 * z_error / steeper * lines.steepest
    n = 0
    for v in range(lines.n_vectors):
        part = row + v * LANES
        mask = lanes_above(tile, part, lines.bias0, v * LANES, np.float32(top0 - margin))
        mask |= lanes_above(tile, part, lines.bias1, v * LANES, np.float32(top1 - margin))
        if kink:
            mask |= lanes_above_line(tile, part, lines.slope32, v * LANES, np.float32(lam), np.float32(floor))
        mask &= lines.valid[v]
        while mask:
            out[n] = v * LANES + first_lane(mask)
            n += 1
            mask &= mask - 1
    return n


@stage
def ends_of_rows(
    tile: Any, n: int, doubt_start: int, margin0: float, margin1: float, lines: Lines, starts: Any, ends: Any
) -> None:
    """Step 1 for n rows of the tile: winners c at the start and e at the end; ~c where either is uncertain.

    An exact start passes ``doubt_start = 0`` and ``margin0 = 0``: equal scores then go to the lowest class,
    without doubt. Otherwise ``doubt_start = -1``.
    """
    below0, below1 = np.float32(margin0), np.float32(margin1)
    width = lines.n_vectors * LANES
    for i in range(n):
        top0, top1 = row_ends(tile, i * width, lines.n_vectors, lines.bias0, lines.bias1)
        floor0, floor1 = np.float32(top0 - below0), np.float32(top1 - below1)
        c, e = np.int64(-1), np.int64(-1)
        doubt = np.int64(0)
        for v in range(lines.n_vectors):
            part = v * LANES
            mask0 = lanes_above(tile, i * width + part, lines.bias0, part, floor0)
            mask1 = lanes_above(tile, i * width + part, lines.bias1, part, floor1)
            if mask0:
                doubt |= doubt_start & ((mask0 & (mask0 - 1)) | np.int64(c >= 0))
                c = c if c >= 0 else part + first_lane(mask0)
            if mask1:
                doubt |= (mask1 & (mask1 - 1)) | np.int64(e >= 0)
                e = e if e >= 0 else part + first_lane(mask1)
        put(starts, i, c ^ -np.int64(doubt != 0))
        put(ends, i, e)


@stage
def count_starts(
    labels: Any, folds: Any, base: int, n: int, starts: Any, lines: Lines, counts: Any, support: Any
) -> None:
    """Count the tile's labels, and certain winners at lattice point 0; folds[base] is that of its first unit."""
    n_classes = lines.n_classes
    table = (lines.lams.size + COPIES) * n_classes
    for i in range(n):
        label = at(labels, i)
        if label < 0:
            continue
        fold = at(folds, base + i) if folds.size else 0
        c = at(starts, i)
        turn = (i & (COPIES - 1)) * n_classes
        add_at(support, fold * (COPIES * n_classes) + turn + label, 1)
        sure = np.int64(c >= 0)
        add_at(counts, 2 * (fold * table + turn + (c & -sure)) + np.int64(c == label), sure)


@stage
def list_unsettled(labels: Any, n: int, starts: Any, ends: Any, todo: Any) -> int:
    """Labelled units whose ends differ or are uncertain; returns how many."""
    n_todo: Any = 0
    for i in range(n):
        put(todo, n_todo, i)
        n_todo += np.int64((at(labels, i) >= 0) & (at(starts, i) != at(ends, i)))
    return n_todo


@inlined
def set_limits(largest: float, z_error: float, lines: Lines, limits: Any) -> float:
    """What the operations on columns allow for, for a tile whose largest score is known; returns the margin.

    The last bits of values at the far end are replaced by their class: fewer bits are compared, and the margin there
    is larger. Errors of scores and slopes are doubled, as they are divided by a rise that may be half of what it seems.
    """
    bits = 0
    while (1 << bits) < lines.n_classes:
        bits += 1
    first, last = lines.lams[0], lines.lams[lines.lams.size - 1]
    margin = (MARGIN + 2.0 ** (bits - 22)) * (largest + lines.reach)
    put(limits, MARGIN0, np.float32(MARGIN * (largest + lines.reach)))
    put(limits, MARGIN1, np.float32(margin))
    put(limits, FIRST, np.float32(first))
    put(limits, INVERSE_STEP, np.float32(lines.inverse_step))
    put(limits, BEYOND, np.float32(lines.lams.size - 0.5))
    put(limits, Z_ERROR, np.float32(4.0 * z_error))
    put(limits, S_ERROR, np.float32(2.0**-21 * lines.steepest))
    put(limits, STEEPEST2, np.float32(2.0 * lines.steepest))
    put(limits, FAR, np.float32(2.0**-21 * max(abs(first), abs(last)) + lines.slack))
    put(limits, LEAST_RISE, np.float32(2.0**-19 * lines.steepest))
    put(limits, TAG_ERROR, np.float32(2.0 ** (bits - 22) + 2.0**-22))
    return margin


@inlined
def copy_labels(labels: Any, base: int, n: int, out: Any) -> None:
    """The tile's labels, ignored ones after them."""
    whole = n // LANES * LANES
    for i in range(0, whole, LANES):
        take(labels, base + i, out, i)
    for i in range(whole, (n + LANES - 1) // LANES * LANES):
        put(out, i, at(labels, base + i) if i < n else -1)


@inlined
def add_pairs(n: int, slots: Any, joint: Any) -> None:
    """Count n units at their places in the table of pairs."""
    for i in range(n):
        place = at(slots, i)
        put(joint, place, at(joint, place) + 1)


@inlined
def fetch_ahead(raw: Any, ahead: int, step: int, i: int, width: int, n_classes: int) -> None:
    """Ask for the scores of as many units as `width` says, which stand where units from i on do, a tile later."""
    if step:
        for k in range(n_classes):
            fetch(raw, ahead + k * step + i, width * raw.itemsize)
    else:
        fetch(raw, ahead + i * n_classes, width * n_classes * raw.itemsize)


@inlined
def path_of_columns(
    n: int, stride: int, raw: Any, ahead: int, step: int, labels: Any, folds: Any, base: int, lines: Lines,
    exact_start: bool, counts: Any, support: Any, work: Workspace,
) -> int:  # fmt: skip
    """Steps 1 and 2 for a class-major tile: count what is certain; returns how many units are left in ``work.todo``."""
    n_classes, tile, limits = lines.n_classes, work.tile, work.limits
    copy_labels(labels, base, n, work.labels)
    for i in range(0, n, LANES):
        fetch_ahead(raw, ahead, step, i, LANES, n_classes)
        end_columns(
            tile, i, n_classes, stride, lines.bias0, lines.bias1, exact_start, limits, work.starts, work.ends,
            work.best0, work.best1,
        )  # fmt: skip
    for i in range(0, n, LANES):
        kinks(
            i, lines.n_vectors, lines.bias0, lines.bias1, lines.slope32, limits, work.starts, work.ends, work.best0,
            work.best1, work.marks,
        )  # fmt: skip
    n_events, n_todo = 0, 0
    for i in range(0, n, LANES):
        n_events, n_todo = change_columns(
            tile, i, n_classes, stride, lines.slope32, work.best0, work.best1, work.marks, work.labels, work.starts,
            work.ends, work.slots, work.old, work.new, work.who, n_events, work.todo, n_todo,
        )  # fmt: skip
    if folds.size == 0 and work.joint.size:
        add_pairs(n, work.slots, work.joint)
    else:
        count_starts(work.labels, folds, base, n, work.starts, lines, counts, support)
    table = (lines.lams.size + COPIES) * n_classes
    for j in range(n_events):
        old, new = at(work.old, j), at(work.new, j)
        start = at(folds, base + at(work.who, j)) * table if folds.size else 0
        add_at(counts, 2 * start + old, -1)
        add_at(counts, 2 * start + new, 1)
    return n_todo


@stage
def empty_joint(n_classes: int, counts: Any, support: Any, joint: Any) -> None:
    """Move pairs of label and winner at lattice point 0 to `counts` and `support`, where these have one table."""
    if joint.size == 0:
        return
    side = n_classes + 1
    for copy in range(COPIES):
        for label in range(n_classes):
            for c in range(side):
                place = (copy * side + label) * side + c
                number = at(joint, place)
                add_at(support, label, number)
                if c < n_classes:
                    add_at(counts, 2 * c + np.int64(c == label), number)
    for place in range(joint.size):
        put(joint, place, 0)


@inlined
def settle_unit(
    tile: Any, o: int, raw: Any, brain: bool, source: int, step: int, delta: Any, unit: int, c: int, e: int,
    since: int, z_error: float, margin: float, lines: Lines, counts: Any, table: int, label: int, work: Workspace,
) -> None:  # fmt: skip
    """Step 4 for one unit whose winner at lattice point `since` is c."""
    n = candidates(tile, o, c, e, z_error, margin, lines, work.classes)
    for i in range(n):
        work.scores[i] = score64(raw, brain, source + work.classes[i] * step, delta, unit)
        work.slopes[i] = lines.slope[work.classes[i]]
    settle(work.scores, work.slopes, work.classes, n, lines, counts, table, label, c, since)


@inlined
def finish_unit(
    tile: Any, o: int, raw: Any, brain: bool, source: int, step: int, delta: Any, unit: int, c: int, e: int,
    z_error: float, margin: float, lines: Lines, counts: Any, table: int, label: int, work: Workspace,
) -> None:  # fmt: skip
    """Steps 2 and 3 for one unit: its float32 scores at tile[o], its stored ones at raw[source + k * step]."""
    steps = -1
    if c >= 0:
        steps = resolve_row(tile, o, c, e, z_error, margin, lines, work)
    if steps >= 0:
        for i in range(steps):
            new = at(work.winners, i)
            change(counts, table, lines.n_classes, at(work.points, i), c, new, label)
            c = new
        return
    since = 0 if c >= 0 else -1
    settle_unit(
        tile, o, raw, brain, source, step, delta, unit, max(c, ~c), e, since, z_error, margin, lines, counts, table,
        label, work,
    )  # fmt: skip


@stage
def walk_once(
    raw: Any, brain: bool, pixels: int, delta: Any, z_error: float, margin: float, lines: Lines, counts: Any,
    work: Workspace,
) -> int:  # fmt: skip
    """Steps 3 and 4: one step for each of the sixteen units in ``work.group``, and float64 for those that are lost.

    Returns bits of the lanes that are free then.
    """
    n_classes = lines.n_classes
    n_events, active = walk_columns(
        work.group, n_classes, lines.slope32, work.limits, work.whole, work.real, work.old, work.new, work.who
    )
    for j in range(n_events):
        old, new, start = at(work.old, j), at(work.new, j), at(work.tables, at(work.who, j))
        add_at(counts, 2 * start + old, -1)
        add_at(counts, 2 * start + new, 1)
    free = ALL_LANES & ~active
    ended: Any = free
    while ended:
        lane = first_lane(ended)
        ended &= ended - 1
        if at(work.whole, FATE * LANES + lane) == LOST:
            put(work.whole, FATE * LANES + lane, ARRIVED)
            for k in range(n_classes):
                put(work.row, k, at(work.group, k * LANES + lane))
            unit = at(work.units, lane)
            source, step = unit * n_classes, 1
            if pixels:
                source, step = (unit // pixels) * n_classes * pixels + unit % pixels, pixels
            settle_unit(
                work.row, 0, raw, brain, source, step, delta, unit,
                at(work.whole, WINNER * LANES + lane), at(work.whole, LAST_WINNER * LANES + lane),
                at(work.whole, SINCE * LANES + lane), z_error, margin, lines, counts, at(work.tables, lane),
                at(work.whole, LABEL * LANES + lane), work,
            )  # fmt: skip
    return free


@inlined
def enter(i: int, stride: int, unit: int, table: int, lane: int, lines: Lines, work: Workspace) -> None:
    """Unit i of the class-major tile to a lane of ``work.group``; lost at once if its ends are uncertain."""
    c, e = at(work.starts, i), at(work.ends, i)
    certain = c >= 0
    c ^= c >> 63
    for k in range(lines.n_classes):
        put(work.group, k * LANES + lane, at(work.tile, k * stride + i))
    put(work.units, lane, unit)
    put(work.tables, lane, table)
    put(work.whole, WINNER * LANES + lane, c)
    put(work.whole, TARGET * LANES + lane, e)
    put(work.whole, LAST_WINNER * LANES + lane, e)
    put(work.whole, FATE * LANES + lane, ACTIVE if certain else LOST)
    put(work.whole, LABEL * LANES + lane, at(work.labels, i))
    put(work.whole, SINCE * LANES + lane, 0 if certain else -1)
    put(work.whole, AGE * LANES + lane, 0)
    put(work.real, lane, at(work.tile, c * stride + i))
    put(work.real, LANES + lane, at(lines.slope32, c))
    for two in (2, 4):
        put(work.real, two * LANES + lane, at(work.tile, e * stride + i))
        put(work.real, (two + 1) * LANES + lane, at(lines.slope32, e))


@inlined
def walk_units(
    n_todo: int, stride: int, raw: Any, brain: bool, pixels: int, delta: Any, base: int, z_error: float, margin: float,
    folds: Any, lines: Lines, counts: Any, free: int, work: Workspace,
) -> int:  # fmt: skip
    """Step 3 for the units in ``work.todo``: each enters a free lane, and may still be there when the tile has gone.

    Returns bits of the lanes that are free.
    """
    table = (lines.lams.size + COPIES) * lines.n_classes
    for j in range(n_todo):
        i = at(work.todo, j)
        while free == 0:
            free = walk_once(raw, brain, pixels, delta, z_error, margin, lines, counts, work)
        lane = first_lane(free)
        free &= free - 1
        enter(i, stride, base + i, at(folds, base + i) * table if folds.size else 0, lane, lines, work)
    return free


@inlined
def clear_lanes(work: Workspace) -> int:
    """No unit walks; returns bits of the free lanes."""
    for lane in range(LANES):
        put(work.whole, FATE * LANES + lane, ARRIVED)
    return ALL_LANES


@stage
def finish_tile(
    n_todo: int, raw: Any, brain: bool, delta: Any, base: int, z_error: float, margin: float, folds: Any,
    lines: Lines, counts: Any, work: Workspace,
) -> None:  # fmt: skip
    """Steps 2 to 4 for the units of a tile of rows that ``work.todo`` lists."""
    n_classes = lines.n_classes
    table = (lines.lams.size + COPIES) * n_classes
    for j in range(n_todo):
        i = at(work.todo, j)
        unit = base + i
        finish_unit(
            work.tile, i * lines.n_vectors * LANES, raw, brain, unit * n_classes, 1, delta, unit, at(work.starts, i),
            at(work.ends, i), z_error, margin, lines, counts, at(folds, unit) * table if folds.size else 0,
            at(work.labels, i), work,
        )  # fmt: skip


@kernel
def count_path_rows(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, labels: Any, folds: Any, lines: Lines, exact: bool,
    counts: Any, support: Any, work: Workspace,
) -> int:  # fmt: skip
    """Add a `rows` block of at most `COLUMN_CLASSES` classes to the counts of the lambda path.

    Parameters
    ----------
    raw : (T * K,) uint16, float32 or float64
        Stored scores, class index fastest.
    brain : bool
        uint16 bits are bfloat16, not float16.
    allow_zero : bool
        -inf is the log of a zero probability and not an error.
    delta : (0,), (1,) or (T,) float64
        Factor of the scores.
    labels : (T,) int32
        In [0, K), or negative: not counted (its scores are checked all the same).
    folds : (T,) int32, or (0,)
        Which table of `counts` and `support` a unit is counted in; empty when there is one.
    lines : Lines
        Slopes and lattice (G points).
    exact : bool
        The tile holds the scores themselves, not rounded ones (stored in float32 or less, no delta).
    counts : (F * (G + 4) * K * 2,) int32
        Changes, added to in place. The first four rows of each fold are copies of lattice point 0,
        then come points 1 to G - 1, and a row for changes beyond the lattice.
    support : (F * 4 * K,) int64
        Units of each label in four copies, added to in place.
    work : Workspace
        Scratch of the calling thread.

    Returns
    -------
    int
        -1, or the first unit whose scores are not valid (nothing after its tile was counted).

    Notes
    -----
    O(T K) work for the ends, and O(K) for each unit whose ends differ.
    """
    n_classes, tile = lines.n_classes, work.tile
    per_tile = tile.size // n_classes // LANES * LANES
    exact_start = exact and lines.lams[0] == 0.0
    bad, free = -1, clear_lanes(work)
    largest, z_error, margin = 0.0, 0.0, 0.0
    for first in range(0, labels.size, per_tile):
        n = min(per_tile, labels.size - first)
        stride = (n + LANES - 1) // LANES * LANES
        fill_columns(raw, brain, first, n, n_classes, delta, tile, stride)
        here, bad = check_planes(tile, n, stride, lines, allow_zero)
        if bad >= 0:
            bad += first
            break
        largest = max(largest, np.float64(here))  # of all tiles so far: units wait for others
        z_error = TINY * (largest + lines.reach) + (0.0 if exact else MARGIN * largest)
        margin = set_limits(largest, z_error, lines, work.limits)
        mask_columns(tile, n, stride, lines)
        n_todo = path_of_columns(
            n, stride, raw, (first + n) * n_classes, 0, labels, folds, first, lines, exact_start, counts, support, work
        )
        free = walk_units(
            n_todo, stride, raw, brain, 0, delta, first, z_error, margin, folds, lines, counts, free, work
        )
    while free != ALL_LANES:
        free = walk_once(raw, brain, 0, delta, z_error, margin, lines, counts, work)
    empty_joint(n_classes, counts, support, work.joint)
    return bad


@kernel
def count_path_wide(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, labels: Any, folds: Any, lines: Lines, exact: bool,
    counts: Any, support: Any, work: Workspace,
) -> int:  # fmt: skip
    """Add a `rows` block of more than `COLUMN_CLASSES` classes to the counts of the lambda path, as `count_path_rows`.

    A tile of rows: each unit fills vectors by itself.
    """
    n_classes, tile = lines.n_classes, work.tile
    per_tile = tile.size // (lines.n_vectors * LANES)
    exact_start = exact and lines.lams[0] == 0.0
    for first in range(0, labels.size, per_tile):
        n = min(per_tile, labels.size - first)
        fill_rows(raw, brain, first, n, n_classes, delta, tile)
        largest, bad = check_rows(tile, n, lines, allow_zero)
        if bad >= 0:
            return first + bad
        margin = MARGIN * (largest + lines.reach)
        z_error = TINY * (largest + lines.reach) + (0.0 if exact else MARGIN * largest)
        doubt_start, margin0 = (0, 0.0) if exact_start else (-1, margin)
        ends_of_rows(tile, n, doubt_start, margin0, margin, lines, work.starts, work.ends)
        copy_labels(labels, first, n, work.labels)
        count_starts(work.labels, folds, first, n, work.starts, lines, counts, support)
        n_todo = list_unsettled(work.labels, n, work.starts, work.ends, work.todo)
        finish_tile(n_todo, raw, brain, delta, first, z_error, margin, folds, lines, counts, work)
    return -1


@kernel
def count_path_planes(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, labels: Any, folds: Any, lines: Lines, exact: bool,
    counts: Any, support: Any, work: Workspace, n_images: int,
) -> int:  # fmt: skip
    """Add a `planes` block (B, K, P), B = n_images, to the counts of the lambda path; as `count_path_rows` otherwise.

    The tile is class-major too: the ends are found sixteen pixels at a time, without a transposition;
    only the pixels whose winner changes are gathered into a row.
    """
    n_classes, tile = lines.n_classes, work.tile
    pixels = labels.size // n_images
    per_tile = max(tile.size // n_classes // LANES, 1) * LANES
    exact_start = exact and lines.lams[0] == 0.0
    bad, free = -1, clear_lanes(work)
    largest, z_error, margin = 0.0, 0.0, 0.0
    for image in range(n_images):
        for first in range(0, pixels, per_tile):
            n = min(per_tile, pixels - first)
            stride = (n + LANES - 1) // LANES * LANES
            base = image * pixels + first
            fill_planes(raw, brain, image, first, n, n_classes, pixels, delta, tile, stride)
            here, bad = check_planes(tile, n, stride, lines, allow_zero)
            if bad >= 0:
                bad += base
                break
            largest = max(largest, np.float64(here))
            z_error = TINY * (largest + lines.reach) + (0.0 if exact else MARGIN * largest)
            margin = set_limits(largest, z_error, lines, work.limits)
            mask_columns(tile, n, stride, lines)
            after = image * n_classes * pixels + first + n
            n_todo = path_of_columns(
                n, stride, raw, after, pixels, labels, folds, base, lines, exact_start, counts, support, work
            )
            free = walk_units(
                n_todo, stride, raw, brain, pixels, delta, base, z_error, margin, folds, lines, counts, free, work
            )
        if bad >= 0:
            break
    while free != ALL_LANES:
        free = walk_once(raw, brain, pixels, delta, z_error, margin, lines, counts, work)
    empty_joint(n_classes, counts, support, work.joint)
    return bad
