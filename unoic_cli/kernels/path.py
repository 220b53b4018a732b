"""The lambda path: counts at every lattice lambda from one visit of each unit.

The class that wins as lambda grows is the upper envelope of K lines, so its slope never falls. Per unit:

1. The winners c and e at both ends of the lattice. If they agree, they agree everywhere between.
2. Else look at the *kink*, where the lines of c and e cross. A class that beats both anywhere beats
   both there (it is below c at the left end and below e at the right end, and all are lines), so the
   classes above the kink are all that can still matter. None: one change of winner, at the kink.
   One: two changes, at its crossings with c and e.
3. Whatever float32 cannot settle with a margin to spare, and three or more changes, goes to
   `settle`: float64, on the few classes that are left, lattice point by lattice point where it is close.

Counts are packed: ``counts[fold, g, k]`` (laid out flat) grows by 1 when the class starts to be predicted at lattice
point g (falls when it stops), and by 2**32 more when k is the label, so one addition serves both.
`unpack` takes them apart. A table serves fewer than 2**31 units; the tally empties it in time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unoic_cli.kernels.jit import inlined, kernel, stage
from unoic_cli.kernels.lines import Lines, Workspace
from unoic_cli.kernels.simd import (
    LANES,
    add_at,
    at,
    ends_of_vector,
    first_lane,
    lanes_above,
    lanes_above_line,
    planes_ends,
    put,
    row_ends,
)
from unoic_cli.kernels.tile import check_planes, check_rows, fill_planes, fill_rows, score64

MARGIN = 2.0**-20
"""Relative float32 error that every float32 comparison allows for (its own is below 2**-22)."""
COPIES = 4
"""Successive units are counted in different copies of point 0: adding to one place again and again would stall."""
TINY = 2.0**-48
"""The same for comparisons of float64 scores."""


@inlined
def change(counts: Any, table: int, n_classes: int, g: int, old: int, new: int, label: int) -> None:
    """Record that the winner is `new` instead of `old` from lattice point g on; `table` is where the fold starts."""
    row = table + (COPIES - 1 + g) * n_classes
    add_at(counts, row + old, -1 - (np.int64(old == label) << 32))
    add_at(counts, row + new, 1 + (np.int64(new == label) << 32))


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
    scores: Any, slopes: Any, classes: Any, n: int, lines: Lines, counts: Any, table: int, label: int, started: bool
) -> None:
    """The exact path of n candidate lines: equal to float64 argmax with lowest-index ties at every lattice point.

    `classes` ascends, so the first position on ties is the lowest class. `started`: the winner at
    lattice point 0 was certain and is counted already.
    """
    w = winner_at(scores, slopes, n, lines.lams[0])
    if not started:
        add_at(counts, table + at(classes, w), 1 + (np.int64(classes[w] == label) << 32))
    g = next_doubt(scores, slopes, n, 0, w, lines)
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
    if lines.n_vectors == 1:
        for i in range(n):
            mask0, mask1 = ends_of_vector(tile, i * LANES, lines.bias0, lines.bias1, below0, below1)
            doubt = (mask0 & (mask0 - 1) & doubt_start) | (mask1 & (mask1 - 1))
            put(starts, i, first_lane(mask0) ^ -np.int64(doubt != 0))
            put(ends, i, first_lane(mask1))
        return
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
    labels: Any, folds: Any, first: int, n: int, starts: Any, ends: Any, lines: Lines,
    counts: Any, support: Any, todo: Any,
) -> int:  # fmt: skip
    """Count labels and certain winners at lattice point 0; list in `todo` the units that need more, return how many.

    No branch depends on the ends: which units need more is hard to predict.
    """
    n_classes = lines.n_classes
    table = (lines.lams.size + COPIES) * n_classes
    n_todo: Any = 0
    for i in range(n):
        label = at(labels, first + i)
        if label < 0:
            continue
        fold = at(folds, first + i)
        c, e = at(starts, i), at(ends, i)
        turn = (i & (COPIES - 1)) * n_classes
        add_at(support, fold * (COPIES * n_classes) + turn + label, 1)
        sure = -np.int64(c >= 0)
        add_at(counts, fold * table + turn + (c & sure), (1 + (np.int64(c == label) << 32)) & sure)
        put(todo, n_todo, i)
        n_todo += np.int64(c != e)
    return n_todo


@inlined
def gather_row(stride: int, i: int, n_classes: int, work: Workspace) -> None:
    """Pixel i of a class-major tile to ``work.row``."""
    for k in range(n_classes):
        put(work.row, k, at(work.tile, k * stride + i))


@stage
def hand_over(
    n_todo: int, stride: int, base: int, z_error: float, margin: float, labels: Any, folds: Any, lines: Lines,
    counts: Any, work: Workspace,
) -> int:  # fmt: skip
    """Step 2 where K <= 16, for the units that c hands over to e directly: most of them.

    Returns how many units are left in ``work.todo``. Which they are is hard to predict, so no branch depends on
    it: for those left, zeros are added.
    """
    n_classes = lines.n_classes
    table = (lines.lams.size + COPIES) * n_classes
    beyond = np.float64(lines.lams.size) - 0.5
    first_lam = at(lines.lams, 0)
    slack_by_inverse, slack_in_steps = z_error * lines.inverse_step, lines.slack * lines.inverse_step
    margin_by_inverse = 2.0 * z_error * lines.steepest
    n_left: Any = 0
    for j in range(n_todo):
        i = at(work.todo, j)
        tile, o = work.tile, i << 4
        if stride:
            gather_row(stride, i, n_classes, work)
            tile, o = work.row, 0
        c, e = at(work.starts, i), at(work.ends, i)
        certain = c >= 0
        c ^= c >> 63
        pair = (c << 4) + e
        inverse = at(lines.pair_inverse, pair)
        z = np.float64(at(tile, o + c))
        lam = (z - np.float64(at(tile, o + e))) * inverse
        floor = z + lam * at(lines.slope, c) - margin - margin_by_inverse * inverse
        others = lanes_above_line(tile, o, lines.slope32, 0, np.float32(lam), np.float32(floor))
        others &= at(lines.pair_others, pair)
        place = min(max((lam - first_lam) * lines.inverse_step, 0.0), beyond)  # as `lattice_point`
        slack = slack_by_inverse * inverse + slack_in_steps
        g = np.int64(place)
        rest = place - np.float64(g)
        clear = ((rest > slack) | (g == 0)) & (rest < 1.0 - slack)
        done = -np.int64(clear & certain & (others == 0) & (inverse > 0.0))
        label = at(labels, base + i)
        row = at(folds, base + i) * table + (COPIES + g) * n_classes
        add_at(counts, row + c, (-1 - (np.int64(c == label) << 32)) & done)
        add_at(counts, row + e, (1 + (np.int64(e == label) << 32)) & done)
        put(work.todo, n_left, i)
        n_left += 1 + done
    return n_left


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
    n = candidates(tile, o, max(c, ~c), e, z_error, margin, lines, work.classes)
    for i in range(n):
        work.scores[i] = score64(raw, brain, source + work.classes[i] * step, delta, unit)
        work.slopes[i] = lines.slope[work.classes[i]]
    settle(work.scores, work.slopes, work.classes, n, lines, counts, table, label, c >= 0)


@stage
def finish_tile(
    n_todo: int, stride: int, raw: Any, brain: bool, source: int, unit_step: int, class_step: int, delta: Any,
    base: int, z_error: float, margin: float, labels: Any, folds: Any, lines: Lines, counts: Any, work: Workspace,
) -> None:  # fmt: skip
    """Steps 2 and 3 for the units listed in ``work.todo``.

    `stride` is that of a class-major tile, whose pixels are gathered into a row first, or 0 for a tile
    of rows. Score k of unit i of the tile is stored at raw[source + i * unit_step + k * class_step].
    """
    n_classes = lines.n_classes
    table = (lines.lams.size + COPIES) * n_classes
    for j in range(n_todo):
        i = at(work.todo, j)
        tile, o = work.tile, i * lines.n_vectors * LANES
        if stride:
            gather_row(stride, i, n_classes, work)
            tile, o = work.row, 0
        finish_unit(
            tile, o, raw, brain, source + i * unit_step, class_step, delta, base + i,
            at(work.starts, i), at(work.ends, i), z_error,
            margin, lines, counts, at(folds, base + i) * table, at(labels, base + i), work,
        )  # fmt: skip


@kernel
def count_path_rows(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, labels: Any, folds: Any, lines: Lines, exact: bool,
    counts: Any, support: Any, work: Workspace,
) -> int:  # fmt: skip
    """Add a `rows` block to the counts of the lambda path.

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
    folds : (T,) int32
        Which table of `counts` and `support` a unit is counted in.
    lines : Lines
        Slopes and lattice (G points).
    exact : bool
        The tile holds the scores themselves, not rounded ones (stored in float32 or less, no delta).
    counts : (F * (G + 4) * K,) int64
        Packed changes, added to in place. The first four rows of each fold are copies of lattice point 0,
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
        n_todo = count_starts(labels, folds, first, n, work.starts, work.ends, lines, counts, support, work.todo)
        if lines.n_vectors == 1:
            n_todo = hand_over(n_todo, 0, first, z_error, margin, labels, folds, lines, counts, work)
        finish_tile(
            n_todo, 0, raw, brain, first * n_classes, n_classes, 1, delta, first,
            z_error, margin, labels, folds, lines, counts, work,
        )  # fmt: skip
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
    stride = max(tile.size // n_classes // LANES, 1) * LANES
    exact_start = exact and lines.lams[0] == 0.0
    for image in range(n_images):
        for first in range(0, pixels, stride):
            n = min(stride, pixels - first)
            base = image * pixels + first
            fill_planes(raw, brain, image, first, n, n_classes, pixels, delta, tile, stride)
            largest, bad = check_planes(tile, n, stride, lines, allow_zero)
            if bad >= 0:
                return base + bad
            margin = MARGIN * (largest + lines.reach)
            z_error = TINY * (largest + lines.reach) + (0.0 if exact else MARGIN * largest)
            margin0 = -1.0 if exact_start else margin
            for i in range(0, n, LANES):
                planes_ends(
                    tile, i, n_classes, stride, lines.bias0, lines.bias1, np.float32(margin0), np.float32(margin),
                    work.starts, work.ends,
                )  # fmt: skip
            n_todo = count_starts(labels, folds, base, n, work.starts, work.ends, lines, counts, support, work.todo)
            source = image * n_classes * pixels + first
            if lines.n_vectors == 1:
                n_todo = hand_over(n_todo, stride, base, z_error, margin, labels, folds, lines, counts, work)
            finish_tile(
                n_todo, stride, raw, brain, source, 1, pixels, delta, base,
                z_error, margin, labels, folds, lines, counts, work,
            )  # fmt: skip
    return -1


def unpack(counts: Any) -> Any:
    """Packed changes (F, G + 4, K) to (hits, predicted) at each lattice point, both (F, G, K) int64.

    Examples
    --------
    >>> import numpy as np
    >>> packed = np.zeros((1, 6, 2), dtype=np.int64)
    >>> packed[0, 0, 0], packed[0, 4] = 1 + (1 << 32), [-1 - (1 << 32), 1]
    >>> hits, predicted = unpack(packed)
    >>> hits.tolist(), predicted.tolist()
    ([[[1, 0], [0, 0]]], [[[1, 0], [0, 1]]])
    """
    n_points = counts.shape[1] - COPIES
    changes = counts[:, COPIES - 1 : COPIES - 1 + n_points].copy()
    changes[:, 0] += counts[:, : COPIES - 1].sum(axis=1)
    predicted = changes.astype(np.int32, casting="unsafe").astype(np.int64)
    changes -= predicted
    changes >>= 32
    return np.cumsum(changes, axis=1, out=changes), np.cumsum(predicted, axis=1, out=predicted)
