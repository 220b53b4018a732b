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
from unoic_cli.kernels.lines import COPIES, EVENTS, Lines, Workspace
from unoic_cli.kernels.simd import (
    LANES,
    SEGMENT,
    above_line,
    add_at,
    at,
    fetch,
    first_lane,
    lanes_above_line,
    leaders,
    put,
)
from unoic_cli.kernels.tile import (
    after_units,
    all_allowed,
    allowed,
    check_planes,
    check_row,
    columns_per_tile,
    factor,
    fill_tile,
    mask_columns,
    mask_row,
    row_ends,
    score64,
    unit_source,
)

MARGIN = 2.0**-20
"""Relative float32 error that every float32 comparison allows for (its own is below 2**-22)."""
ALL_LANES = (1 << LANES) - 1
NOWHERE = 1e30
"""Error of a kink that there is not."""


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
    steps, w = 0, c
    doubt = np.int64(0)
    second = at(lines.lams, min(1, lines.lams.size - 1))
    for i in range(n):  # an exact start may lead by less than float64 resolves elsewhere
        lead, steeper = at(scores, c) - at(scores, i), at(slopes, i) - at(slopes, c)
        near = not lead - second * steeper > z_error
        doubt |= np.int64((steeper <= 0.0) & near & ((lead != 0.0) | (steeper != 0.0)))
    while w != e:
        z, s = at(scores, w), at(slopes, w)
        nearest, runner_up = np.inf, np.inf
        best: Any = -1
        for i in range(n):  # without branches: which class comes next is hard to predict
            steeper = at(slopes, i) - s
            rises = steeper > 0.0
            cross = (z - at(scores, i) - z_error) / (steeper if rises else 1.0)
            cross = cross if rises else np.inf
            first = cross < nearest
            later = nearest if first else cross
            runner_up = later if later < runner_up else runner_up
            best = i if first else best
            nearest = cross if first else nearest
        if best < 0 or doubt:
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
def crossing(tile: Any, o: int, a: int, b: int, slope: Any) -> tuple[float, float]:
    """The lambda where the lines of a and b cross in the row tile[o:], and 1 / (the rise from a to b), or 0."""
    rise = at(slope, b) - at(slope, a)
    inverse = 1.0 / rise if rise > 0.0 else 0.0
    return (np.float64(at(tile, o + a)) - np.float64(at(tile, o + b))) * inverse, inverse


LAM, ERROR, FLOOR, SHARE = range(4)
"""What ``kinks`` keeps: lambda, its error, what other lines must reach there, and its place between both ends."""


@stage
def kinks_of_rows(n_todo: int, z_error: float, margin: float, lines: Lines, work: Workspace) -> None:
    """Step 2 for the rows that ``work.todo`` lists: the lattice point of the kink to ``work.marks``.

    -1 where that is not certain, or another class reaches it. Two loops, so that rows do not wait for one another.
    """
    tile, kinks, width = work.tile, work.kinks, lines.n_vectors * LANES
    for j in range(n_todo):
        i = at(work.todo, j)
        c, e = at(work.starts, i), at(work.ends, i)
        start = max(c, ~c)
        lam, inverse = crossing(tile, i * width, start, e, lines.slope)
        error = z_error * inverse if inverse > 0.0 else NOWHERE
        height = np.float64(at(tile, i * width + start)) + lam * at(lines.slope, start)
        put(kinks, 4 * j + LAM, lam)
        put(kinks, 4 * j + ERROR, error)
        put(kinks, 4 * j + FLOOR, height - margin - 2.0 * error * lines.steepest)
        put(kinks, 4 * j + SHARE, min(max((lam - lines.lams[0]) * lines.inverse_span, 0.0), 1.0))
        g = lattice_point(lam, error, lines) if error < NOWHERE else -1
        put(work.marks, j, g if c >= 0 else -1)
    for j in range(n_todo):
        n, _ = lines_above(j, at(work.todo, j), margin, lines, work)
        put(work.marks, j, at(work.marks, j) if n <= 2 else -1)


@inlined
def lines_above(j: int, i: int, margin: float, lines: Lines, work: Workspace) -> Any:
    """How many lines of row i reach kink j, and in how many segments (``work.segments``) they may be."""
    kinks, o = work.kinks, i * lines.n_vectors * LANES
    more = np.float32(margin + at(kinks, 4 * j + ERROR) * lines.steepest)
    return above_line(
        work.tile, o, lines.n_vectors, lines.slope32, np.float32(at(kinks, 4 * j + LAM)),
        np.float32(at(kinks, 4 * j + FLOOR)), work.peaks, i * work.n_peaks, np.float32(at(kinks, 4 * j + SHARE)), more,
        work.segments,
    )  # fmt: skip


@inlined
def resolve_row(j: int, i: int, c: int, e: int, z_error: float, margin: float, lines: Lines, work: Workspace) -> int:
    """Step 3 for the unit in row i of the tile, of kink j, whose ends c and e are certain and different.

    Writes the path to ``work.winners`` (classes) and ``work.points`` (lattice points from which on they
    lead) and returns the number of changes; -1 when float32 and the row do not settle it.
    """
    tile, o, classes = work.tile, i * lines.n_vectors * LANES, work.classes
    lam, floor = np.float32(at(work.kinks, 4 * j + LAM)), np.float32(at(work.kinks, 4 * j + FLOOR))
    if not at(work.kinks, 4 * j + ERROR) < NOWHERE:
        return -1
    _, n_segments = lines_above(j, i, margin, lines, work)
    n: Any = np.int64(2)
    put(classes, 0, c)
    put(classes, 1, e)
    for segment in range(n_segments):
        first = at(work.segments, segment) * SEGMENT
        for v in range(first, min(first + SEGMENT, lines.n_vectors)):
            part = v * LANES
            mask = lanes_above_line(tile, o + part, lines.slope32, part, lam, floor)
            while mask:
                k = part + first_lane(mask)
                put(classes, n, k)
                n += np.int64((k != c) & (k != e))
                mask &= mask - 1
    for m in range(n):
        k = at(classes, m)
        put(work.scores, m, np.float64(at(tile, o + k)))
        put(work.slopes, m, at(lines.slope, k))
    steps = walk(work.scores, work.slopes, n, 0, 1, z_error, lines, work.winners, work.points)
    for m in range(steps):
        put(work.winners, m, at(classes, at(work.winners, m)))
    return steps


@inlined
def candidates(c: int, e: int, z_error: float, margin: float, lines: Lines, work: Workspace) -> int:
    """Ascending classes that may lead somewhere: near the top at an end, or at the kink; all if nearly parallel.

    They go to ``work.classes``; returns how many.
    """
    row, n = work.row, 0
    top0, top1 = np.float32(-np.inf), np.float32(-np.inf)
    for k in range(lines.n_classes):
        top0, top1 = max(top0, row[k] + lines.bias0[k]), max(top1, row[k] + lines.bias1[k])
    floor0, floor1 = np.float32(top0 - margin), np.float32(top1 - margin)
    steeper = lines.slope[e] - lines.slope[c]
    every = c != e and not steeper * 1e6 > lines.steepest  # the kink may lie anywhere
    lam, floor = np.float32(0.0), np.float32(np.inf)
    if c != e and not every:
        there, inverse = crossing(row, 0, c, e, lines.slope)
        lam = np.float32(there)
        floor = np.float32(
            np.float64(row[c]) + there * lines.slope[c] - margin - 2.0 * z_error * inverse * lines.steepest
        )
    for k in range(lines.n_classes):
        z = row[k]
        near = every or z + lines.bias0[k] >= floor0 or z + lines.bias1[k] >= floor1
        if (near or z + lam * lines.slope32[k] >= floor) and allowed(lines, k):
            put(work.classes, n, k)
            n += 1
    return n


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
def fetch_ahead(raw: Any, ahead: int, pixels: int | None, i: int, width: int, n_classes: int) -> None:
    """Ask for the scores of as many units as `width` says, which stand where units from i on do, a tile later."""
    if pixels is None:
        fetch(raw, ahead + i * n_classes, width * n_classes * raw.itemsize)
    else:
        for k in range(n_classes):
            fetch(raw, ahead + k * pixels + i, width * raw.itemsize)


@inlined
def path_of_columns(
    n: int, stride: int, raw: Any, pixels: int | None, labels: Any, folds: Any, base: int, lines: Lines,
    exact_start: bool, counts: Any, support: Any, work: Workspace,
) -> int:  # fmt: skip
    """Steps 1 and 2 for a class-major tile: count what is certain; returns how many units are left in ``work.todo``."""
    n_classes, tile, limits = lines.n_classes, work.tile, work.limits
    ahead = after_units(base, n, n_classes, pixels)
    copy_labels(labels, base, n, work.labels)
    for i in range(0, n, LANES):
        fetch_ahead(raw, ahead, pixels, i, LANES, n_classes)
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
    raw: Any, brain: bool, source: int, step: int, delta: Any, unit: int, c: int, e: int, since: int, z_error: float,
    margin: float, lines: Lines, counts: Any, table: int, label: int, work: Workspace,
) -> None:  # fmt: skip
    """Step 4 for the unit in ``work.row``, stored at raw[source + k * step], whose winner at point `since` is c."""
    n = candidates(c, e, z_error, margin, lines, work)
    for i in range(n):
        work.scores[i] = score64(raw, brain, source + work.classes[i] * step, delta, unit)
        work.slopes[i] = lines.slope[work.classes[i]]
    settle(work.scores, work.slopes, work.classes, n, lines, counts, table, label, c, since)


@stage
def count_events(n: int, counts: Any, events: Any) -> int:
    """Count the changes on the list; returns the length it then has."""
    for j in range(n):
        event = at(events, j)
        add_at(counts, event ^ (event >> 63), 1 | (event >> 63))
    return 0


@inlined
def note_path(
    steps: int, c: int, label: int, table: int, n: int, n_classes: int, winners: Any, points: Any, events: Any
) -> int:
    """A unit's path to the list of changes, places where one is taken away as their complement; returns its length."""
    for i in range(steps):
        row, new = table + (COPIES - 1 + at(points, i)) * n_classes, at(winners, i)
        put(events, n, ~(2 * (row + c) + np.int64(c == label)))
        put(events, n + 1, 2 * (row + new) + np.int64(new == label))
        n += 2
        c = new
    return n


@inlined
def pad_rows(n_rows: int, n_classes: int, tile: Any) -> None:
    """What follows the K scores of a row never leads."""
    width = (n_classes + LANES - 1) // LANES * LANES
    for i in range(n_rows):
        for k in range(n_classes, width):
            put(tile, i * width + k, -np.inf)


@stage
def read_rows(
    raw: Any, brain: bool, allow_zero: bool, first: int, n: int, delta: Any, lines: Lines, work: Workspace
) -> tuple[Any, Any]:
    """Units first..first+n of a `rows` block to the tile, their best scores at both ends to best0 and best1.

    After `pad_rows`. Returns the largest finite magnitude and -1, or anything and the first unit that is not valid.
    """
    width, n_classes, largest = lines.n_vectors * LANES, lines.n_classes, np.float32(0.0)
    for i in range(n):
        times = np.float32(factor(delta, first + i)) if delta.size else np.float32(1.0)
        here, top0, top1 = row_ends(
            raw, brain, (first + i) * n_classes, n_classes, times, work.tile, i * width, lines.bias0, lines.bias1,
            work.peaks, i * work.n_peaks,
        )  # fmt: skip
        put(work.best0, i, top0)
        put(work.best1, i, top1)
        if not here < np.inf:
            here = check_row(work.tile, i * width, 1, lines, allow_zero)
            if here < 0.0:
                return largest, first + i
        largest = max(largest, here)
    return largest, -1


@stage
def ends_of_rows(n: int, exact_start: bool, margin0: float, margin1: float, lines: Lines, work: Workspace) -> None:
    """Step 1 for n rows of the tile: winners c at the start and e at the end; ~c where either is uncertain.

    With an exact start equal scores go to the lowest class there, without doubt.
    """
    width = lines.n_vectors * LANES
    for i in range(n):
        floor0, floor1 = np.float32(at(work.best0, i) - margin0), np.float32(at(work.best1, i) - margin1)
        c, n0, e, n1 = leaders(
            work.tile, i * width, lines.n_vectors, lines.bias0, lines.bias1, work.peaks, i * work.n_peaks, floor0,
            floor1,
        )  # fmt: skip
        doubt = ((n0 != 1) & (not exact_start)) | (n1 != 1)
        put(work.starts, i, c ^ -np.int64(doubt))
        put(work.ends, i, e)


@stage
def list_unsettled(labels: Any, n: int, starts: Any, ends: Any, todo: Any) -> int:
    """Labelled units whose ends differ or are uncertain; returns how many."""
    n_todo: Any = 0
    for i in range(n):
        put(todo, n_todo, i)
        n_todo += np.int64((at(labels, i) >= 0) & (at(starts, i) != at(ends, i)))
    return n_todo


@stage
def walk_once(
    raw: Any, brain: bool, pixels: int | None, delta: Any, z_error: float, margin: float, lines: Lines, counts: Any,
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
            source, step = unit_source(unit, n_classes, pixels)
            settle_unit(
                raw, brain, source, step, delta, unit,
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
    n_todo: int, stride: int, raw: Any, brain: bool, pixels: int | None, delta: Any, base: int, z_error: float,
    margin: float, folds: Any, lines: Lines, counts: Any, free: int, work: Workspace,
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


@kernel
def count_path_columns(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, labels: Any, folds: Any, lines: Lines, exact: bool,
    counts: Any, support: Any, work: Workspace, pixels: int | None,
) -> int:  # fmt: skip
    """Add a block to the counts of the lambda path: planes, or rows of at most `COLUMN_CLASSES` classes.

    The tile is class-major: rows are turned into columns, planes are columns already. Only units with more than one
    change of winner, or a doubtful one, are gathered.

    Parameters
    ----------
    raw : (T * K,) uint16, float32 or float64
        Stored scores, in the order of the layout.
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
    pixels : int or None
        P of a `planes` block (B, K, P); None for a `rows` block (T, K), for which another kernel is compiled.

    Returns
    -------
    int
        -1, or the first unit whose scores are not valid (nothing after its tile was counted).

    Notes
    -----
    O(T K) work for the ends, and O(K) for each unit whose ends differ.
    """
    n_classes, tile = lines.n_classes, work.tile
    run, per_tile = labels.size if pixels is None else pixels, columns_per_tile(lines.n_classes, work)
    exact_start = exact and lines.lams[0] == 0.0
    bad, free = -1, clear_lanes(work)
    largest, z_error, margin = 0.0, 0.0, 0.0
    for image in range(labels.size // max(run, 1)):
        for first in range(0, run, per_tile):
            n = min(per_tile, run - first)
            stride = (n + LANES - 1) // LANES * LANES
            unit = image * run + first
            fill_tile(raw, brain, unit, n, n_classes, pixels, delta, tile, stride)
            here, bad = check_planes(tile, n, stride, lines, allow_zero)
            if bad >= 0:
                bad += unit
                break
            largest = max(largest, np.float64(here))  # of all tiles so far: units wait for others
            z_error = TINY * (largest + lines.reach) + (0.0 if exact else MARGIN * largest)
            margin = set_limits(largest, z_error, lines, work.limits)
            mask_columns(tile, n, stride, lines)
            n_todo = path_of_columns(
                n, stride, raw, pixels, labels, folds, unit, lines, exact_start, counts, support, work
            )
            free = walk_units(
                n_todo, stride, raw, brain, pixels, delta, unit, z_error, margin, folds, lines, counts, free, work
            )
        if bad >= 0:
            break
    while free != ALL_LANES:
        free = walk_once(raw, brain, pixels, delta, z_error, margin, lines, counts, work)
    empty_joint(n_classes, counts, support, work.joint)
    return bad


@kernel
def count_path_wide(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, labels: Any, folds: Any, lines: Lines, exact: bool,
    counts: Any, support: Any, work: Workspace, pixels: int | None,
) -> int:  # fmt: skip
    """Add rows of more than `COLUMN_CLASSES` classes to the counts of the lambda path, as `count_path_columns`.

    A tile of rows: each unit fills vectors by itself. What is listed is counted when the list is full, so that places
    that are not in the cache are waited for together.
    """
    n_classes = lines.n_classes
    exact_start, whole = exact and lines.lams[0] == 0.0, all_allowed(lines)
    n_events: Any = np.int64(0)
    pad_rows(work.n_rows, n_classes, work.tile)
    for first in range(0, labels.size, work.n_rows):
        n = min(work.n_rows, labels.size - first)
        largest, bad = read_rows(raw, brain, allow_zero, first, n, delta, lines, work)
        if bad >= 0:
            return bad
        margin = MARGIN * (largest + lines.reach)
        z_error = TINY * (largest + lines.reach) + (0.0 if exact else MARGIN * largest)
        ends_of_rows(n, exact_start, 0.0 if exact_start else margin, margin, lines, work)
        copy_labels(labels, first, n, work.labels)
        count_starts(work.labels, folds, first, n, work.starts, lines, counts, support)
        if not whole:
            for i in range(n):
                mask_row(work.tile, i * lines.n_vectors * LANES, lines)
        n_todo = list_unsettled(work.labels, n, work.starts, work.ends, work.todo)
        kinks_of_rows(n_todo, z_error, margin, lines, work)
        for j in range(n_todo):
            i, g = at(work.todo, j), at(work.marks, j)
            label, c, e = at(work.labels, i), at(work.starts, i), at(work.ends, i)
            table = at(folds, first + i) * (lines.lams.size + COPIES) * n_classes if folds.size else 0
            put(work.winners, 0, e)
            put(work.points, 0, g)
            steps: Any = 1
            if g < 0:
                steps = resolve_row(j, i, c, e, z_error, margin, lines, work) if c >= 0 else -1
            if steps < 0:
                for k in range(n_classes):
                    put(work.row, k, at(work.tile, i * lines.n_vectors * LANES + k))
                settle_unit(
                    raw, brain, (first + i) * n_classes, 1, delta, first + i, max(c, ~c), e, 0 if c >= 0 else -1,
                    z_error, margin, lines, counts, table, label, work,
                )  # fmt: skip
            n_events = note_path(steps, c, label, table, n_events, n_classes, work.winners, work.points, work.events)
            if n_events > EVENTS:
                n_events = count_events(n_events, counts, work.events)
    count_events(n_events, counts, work.events)
    return -1
