"""The lambda path: counts at every lattice lambda from one visit of each unit.

The class that wins as lambda grows is the upper envelope of K lines, so its slope never falls. Per unit:

1. The winners c and e at both ends of the lattice. If they agree, they agree everywhere between.
2. Else look at the *kink*, where the lines of c and e cross. A class that beats both anywhere beats
   both there (it is below c at the left end and below e at the right end, and all are lines), so the
   classes above the kink are all that can still matter. None: one change of winner, at the kink.
   One: two changes, at its crossings with c and e.
3. Whatever float32 cannot settle with a margin to spare, and three or more changes, goes to
   `settle`: float64, on the few classes that are left, lattice point by lattice point where it is close.

Counts are packed: ``counts[fold, g, k]`` grows by 1 when the class starts to be predicted at lattice
point g (falls when it stops), and by 2**32 more when k is the label, so one addition serves both.
`unpack` takes them apart. A table serves fewer than 2**31 units; the tally empties it in time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unoic_cli.kernels.jit import inlined, kernel
from unoic_cli.kernels.lines import Lines
from unoic_cli.kernels.simd import LANES, first_lane, lanes_above, lanes_above_line, magnitude, planes_ends, row_ends
from unoic_cli.kernels.tile import check_row, fill_planes, fill_rows, score64

MARGIN = 2.0**-20
"""Relative float32 error that every float32 comparison allows for (its own is below 2**-22)."""
TINY = 2.0**-48
"""The same for comparisons of float64 scores."""


@inlined
def change(counts: Any, fold: int, g: int, old: int, new: int, label: int) -> None:
    """Record that the winner is `new` instead of `old` from lattice point g on."""
    counts[fold, g, old] -= 1 + (np.int64(old == label) << 32)
    counts[fold, g, new] += 1 + (np.int64(new == label) << 32)


@inlined
def lattice_above(t: float, lines: Lines) -> Any:
    """The first lattice point at or after t, as a float that may lie outside the lattice."""
    return np.ceil((t - lines.lams[0]) * lines.inverse_step)


@inlined
def lattice_point(t: float, error: float, lines: Lines) -> int:
    """The lattice point from which on a line that crosses at t +- error leads; -1 when that is uncertain."""
    slack = error + 1e-9 * (1.0 + abs(t))
    low = max(lattice_above(t - slack, lines), 1.0)
    high = max(lattice_above(t + slack, lines), 1.0)
    if low != high:
        return -1
    return int(min(low, np.float64(lines.lams.size)))


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
def next_doubt(scores: Any, slopes: Any, n: int, g: int, w: int, lines: Lines) -> int:
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
            at = lattice_above((gap - tiny) / steeper - 1e-9, lines) - 1e-3
            if at < found:
                found = min(found, max(g + 1, int(np.ceil(at))))
        elif gap - lines.lams[min(g + 1, size - 1)] * steeper < tiny:
            found = min(found, g + 1)
    return found


@inlined
def settle(scores: Any, slopes: Any, classes: Any, n: int, lines: Lines, counts: Any, fold: int, label: int) -> None:
    """The exact path of n candidate lines: equal to float64 argmax with lowest-index ties at every lattice point.

    `classes` ascends, so the first position on ties is the lowest class.
    """
    w = winner_at(scores, slopes, n, lines.lams[0])
    counts[fold, 0, classes[w]] += 1 + (np.int64(classes[w] == label) << 32)
    g = next_doubt(scores, slopes, n, 0, w, lines)
    while g < lines.lams.size:
        new = winner_at(scores, slopes, n, lines.lams[g])
        if new != w:
            change(counts, fold, g, classes[w], classes[new], label)
            w = new
        g = next_doubt(scores, slopes, n, g, w, lines)


@inlined
def crossing(tile: Any, o: int, a: int, b: int, lines: Lines) -> float:
    """The lambda where the lines of a and b cross, from the tile's scores."""
    return (np.float64(tile[o + a]) - np.float64(tile[o + b])) / (lines.slope[b] - lines.slope[a])


@inlined
def above_kink(tile: Any, o: int, v: int, c: int, e: int, at: float, floor: float, lines: Lines) -> Any:
    """Bits of the classes of vector v, other than c and e, that reach `floor` at lambda = at."""
    mask = lanes_above_line(tile, o + v * LANES, lines.slope32, v * LANES, np.float32(at), np.float32(floor))
    mask &= lines.valid[v]
    if c // LANES == v:
        mask &= ~(np.int64(1) << (c % LANES))
    if e // LANES == v:
        mask &= ~(np.int64(1) << (e % LANES))
    return mask


@inlined
def resolve_row(tile: Any, o: int, c: int, e: int, z_error: float, margin: float, lines: Lines) -> Any:
    """Steps 2 and 3 for one unit whose ends are c and e, both certain and different.

    Returns
    -------
    tuple of int
        (g1, m, g2): c leads until g1, m until g2, then e; m = -1 (and g2 = g1) when c hands over to e.
        g1 = -1 when float32 does not settle it.
    """
    steeper = lines.slope[e] - lines.slope[c]
    if not steeper > 0.0:
        return -1, -1, -1
    at = crossing(tile, o, c, e, lines)
    error = z_error / steeper
    floor = np.float64(tile[o + c]) + at * lines.slope[c] - margin - 2.0 * error * lines.steepest
    m = -1
    for v in range(lines.n_vectors):
        mask = above_kink(tile, o, v, c, e, at, floor, lines)
        if mask:
            if m >= 0 or (mask & (mask - 1)) != 0:
                return -1, -1, -1
            m = v * LANES + first_lane(mask)
    if m < 0:
        g = lattice_point(at, error, lines)
        return g, -1, g
    rise, rest = lines.slope[m] - lines.slope[c], lines.slope[e] - lines.slope[m]
    if not (rise > 0.0 and rest > 0.0):
        return -1, -1, -1
    first, second = crossing(tile, o, c, m, lines), crossing(tile, o, m, e, lines)
    first_error, second_error = z_error / rise, z_error / rest
    g1, g2 = lattice_point(first, first_error, lines), lattice_point(second, second_error, lines)
    if g1 < 0 or g2 < 0 or not first + first_error < second - second_error:
        return -1, -1, -1
    return g1, m, g2


@inlined
def record(counts: Any, fold: int, label: int, c: int, e: int, g1: int, m: int, g2: int) -> None:
    """Write down a path that `resolve_row` settled."""
    counts[fold, 0, c] += 1 + (np.int64(c == label) << 32)
    if m < 0:
        change(counts, fold, g1, c, e, label)
    else:
        change(counts, fold, g1, c, m, label)
        change(counts, fold, g2, m, e, label)


@inlined
def candidates(tile: Any, o: int, c: int, e: int, z_error: float, margin: float, lines: Lines, out: Any) -> int:
    """Ascending classes that may lead somewhere: near the top at an end, or at the kink. Returns how many."""
    row = o
    top0, top1 = row_ends(tile, row, lines.n_vectors, lines.bias0, lines.bias1)
    steeper = lines.slope[e] - lines.slope[c]
    kink = c != e
    at, floor = 0.0, 0.0
    if kink:
        if not steeper * 1e6 > lines.steepest:  # nearly parallel: the kink may lie anywhere
            n = 0
            for k in range(lines.n_classes):
                if (lines.valid[k // LANES] >> (k % LANES)) & 1:
                    out[n] = k
                    n += 1
            return n
        at = crossing(tile, o, c, e, lines)
        floor = np.float64(tile[o + c]) + at * lines.slope[c] - margin - 2.0 * z_error / steeper * lines.steepest
    n = 0
    for v in range(lines.n_vectors):
        part = row + v * LANES
        mask = lanes_above(tile, part, lines.bias0, v * LANES, np.float32(top0 - margin))
        mask |= lanes_above(tile, part, lines.bias1, v * LANES, np.float32(top1 - margin))
        if kink:
            mask |= lanes_above_line(tile, part, lines.slope32, v * LANES, np.float32(at), np.float32(floor))
        mask &= lines.valid[v]
        while mask:
            out[n] = v * LANES + first_lane(mask)
            n += 1
            mask &= mask - 1
    return n


@inlined
def winners_of_row(tile: Any, o: int, exact_start: bool, margin: float, lines: Lines) -> Any:
    """Winners at both ends, and whether they are certain: (c, e, certain)."""
    top0, top1 = row_ends(tile, o, lines.n_vectors, lines.bias0, lines.bias1)
    floor0 = top0 if exact_start else np.float32(top0 - margin)
    floor1 = np.float32(top1 - margin)
    if lines.n_vectors == 1:
        mask0 = lanes_above(tile, o, lines.bias0, 0, floor0)
        mask1 = lanes_above(tile, o, lines.bias1, 0, floor1)
        certain = (exact_start or (mask0 & (mask0 - 1)) == 0) and (mask1 & (mask1 - 1)) == 0
        return first_lane(mask0), first_lane(mask1), certain
    c, e = -1, -1
    certain = True
    for v in range(lines.n_vectors):
        mask0 = lanes_above(tile, o + v * LANES, lines.bias0, v * LANES, floor0)
        mask1 = lanes_above(tile, o + v * LANES, lines.bias1, v * LANES, floor1)
        if mask0:
            certain = certain and (exact_start or (c < 0 and (mask0 & (mask0 - 1)) == 0))
            c = v * LANES + first_lane(mask0) if c < 0 else c
        if mask1:
            certain = certain and e < 0 and (mask1 & (mask1 - 1)) == 0
            e = v * LANES + first_lane(mask1) if e < 0 else e
    return c, e, certain


@inlined
def exact_row(
    tile: Any, o: int, raw: Any, brain: bool, source: int, step: int, delta: Any, unit: int, c: int, e: int,
    z_error: float, margin: float, lines: Lines, counts: Any, fold: int, label: int, classes: Any, scores: Any, slopes: Any,
) -> None:  # fmt: skip
    """Settle one unit in float64: gather its candidates from the stored scores raw[source + k * step]."""
    n = candidates(tile, o, c, e, z_error, margin, lines, classes)
    for i in range(n):
        scores[i] = score64(raw, brain, source + classes[i] * step, delta, unit)
        slopes[i] = lines.slope[classes[i]]
    settle(scores, slopes, classes, n, lines, counts, fold, label)


@kernel
def count_path_rows(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, labels: Any, folds: Any, lines: Lines, exact: bool,
    counts: Any, support: Any, tile: Any,
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
    folds : (T,) uint8
        First index of `counts` and `support`.
    lines : Lines
        Slopes and lattice (G points).
    exact : bool
        The tile holds the scores themselves, not rounded ones (stored in float32 or less, no delta).
    counts : (F, G + 1, K) int64
        Packed changes, added to in place; row G takes changes beyond the lattice.
    support : (F, K) int64
        Units of each label, added to in place.
    tile : (W,) float32
        Scratch; W at least 16 * n_vectors.

    Returns
    -------
    int
        -1, or the first unit whose scores are not valid (nothing after its tile was counted).

    Notes
    -----
    O(T K) work for the ends, and O(K) for each unit whose ends differ.
    """
    n_classes = lines.n_classes
    width = lines.n_vectors * LANES
    per_tile = tile.size // width
    exact_start = exact and lines.lams[0] == 0.0
    todo = np.empty(per_tile, np.int32)
    starts = np.empty(per_tile, np.int32)
    ends = np.empty(per_tile, np.int32)
    classes = np.empty(n_classes, np.int64)
    scores = np.empty(n_classes, np.float64)
    slopes = np.empty(n_classes, np.float64)
    n_units = labels.size
    for first in range(0, n_units, per_tile):
        n = min(per_tile, n_units - first)
        fill_rows(raw, brain, first, n, n_classes, delta, tile)
        largest = magnitude(tile, n * lines.n_vectors)
        if not largest < np.inf:
            largest = np.float32(0.0)
            for i in range(n):
                one = check_row(tile, i * width, 1, n_classes, allow_zero)
                if one < 0:
                    return first + i
                largest = max(largest, one)
        margin = MARGIN * (largest + lines.reach)
        z_error = TINY * (largest + lines.reach) if exact else MARGIN * largest
        n_todo = 0
        for i in range(n):
            label = labels[first + i]
            if label < 0:
                continue
            c, e, certain = winners_of_row(tile, i * width, exact_start, margin, lines)
            fold = folds[first + i]
            support[fold, label] += 1
            if certain and c == e:
                counts[fold, 0, c] += 1 + (np.int64(c == label) << 32)
                continue
            todo[n_todo] = i
            starts[n_todo] = c if certain else ~c
            ends[n_todo] = e
            n_todo += 1
        for j in range(n_todo):
            i, c, e = np.int64(todo[j]), np.int64(starts[j]), np.int64(ends[j])
            unit = first + i
            label, fold = labels[unit], folds[unit]
            g1, m, g2 = -1, -1, -1
            if c >= 0:
                g1, m, g2 = resolve_row(tile, i * width, c, e, z_error, margin, lines)
            if g1 >= 0:
                record(counts, fold, label, c, e, g1, m, g2)
            else:
                exact_row(
                    tile, i * width, raw, brain, unit * n_classes, 1, delta, unit, c if c >= 0 else ~c, e,
                    z_error, margin, lines, counts, fold, label, classes, scores, slopes,
                )  # fmt: skip
    return -1


@kernel
def count_path_planes(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, labels: Any, folds: Any, lines: Lines, exact: bool,
    counts: Any, support: Any, tile: Any, n_images: int,
) -> int:  # fmt: skip
    """Add a `planes` block (B, K, P) to the counts of the lambda path; as `count_path_rows` otherwise.

    The tile is class-major too: the ends are found sixteen pixels at a time, without a transposition;
    only the pixels whose winner changes are gathered into a row. ``n_images`` is B; the tile has
    at least (K + 1) * 16 lanes.
    """
    n_classes = lines.n_classes
    n_units = labels.size
    pixels = n_units // n_images
    width = lines.n_vectors * LANES
    stride = max(tile.size // n_classes // LANES, 1) * LANES
    exact_start = exact and lines.lams[0] == 0.0
    winners = np.empty(2 * LANES, np.int32)
    gaps = np.empty(2 * LANES, np.float32)
    row = np.zeros(width, np.float32)
    todo = np.empty(stride, np.int32)
    starts = np.empty(stride, np.int32)
    ends = np.empty(stride, np.int32)
    classes = np.empty(n_classes, np.int64)
    scores = np.empty(n_classes, np.float64)
    slopes = np.empty(n_classes, np.float64)
    for image in range(n_images):
        for first in range(0, pixels, stride):
            n = min(stride, pixels - first)
            fill_planes(raw, brain, image, first, n, n_classes, pixels, delta, tile, stride)
            largest = np.float32(0.0)
            for k in range(n_classes):
                one = magnitude(tile[k * stride : k * stride + stride], (n + LANES - 1) // LANES)
                largest = one if not one < np.inf else max(largest, one)
                if not largest < np.inf:
                    break
            if not largest < np.inf:
                largest = np.float32(0.0)
                for i in range(n):
                    one = check_row(tile, i, stride, n_classes, allow_zero)
                    if one < 0:
                        return image * pixels + first + i
                    largest = max(largest, one)
            margin = MARGIN * (largest + lines.reach)
            z_error = TINY * (largest + lines.reach) if exact else MARGIN * largest
            base = image * pixels + first
            n_todo = 0
            for group in range(0, n, LANES):
                planes_ends(tile, group, n_classes, stride, lines.bias0, lines.bias1, winners, gaps)
                for lane in range(min(LANES, n - group)):
                    unit = base + group + lane
                    label = labels[unit]
                    if label < 0:
                        continue
                    c, e = winners[lane], winners[LANES + lane]
                    certain = (exact_start or gaps[lane] > margin) and gaps[LANES + lane] > margin
                    fold = folds[unit]
                    support[fold, label] += 1
                    if certain and c == e:
                        counts[fold, 0, c] += 1 + (np.int64(c == label) << 32)
                        continue
                    todo[n_todo] = group + lane
                    starts[n_todo] = c if certain else ~c
                    ends[n_todo] = e
                    n_todo += 1
            for j in range(n_todo):
                i, c, e = np.int64(todo[j]), np.int64(starts[j]), np.int64(ends[j])
                unit = base + i
                label, fold = labels[unit], folds[unit]
                for k in range(n_classes):
                    row[k] = tile[k * stride + i]
                g1, m, g2 = -1, -1, -1
                if c >= 0:
                    g1, m, g2 = resolve_row(row, 0, c, e, z_error, margin, lines)
                if g1 >= 0:
                    record(counts, fold, label, c, e, g1, m, g2)
                else:
                    exact_row(
                        row, 0, raw, brain, image * n_classes * pixels + first + i, pixels, delta, unit,
                        c if c >= 0 else ~c, e, z_error, margin, lines, counts, fold, label, classes, scores, slopes,
                    )  # fmt: skip
    return -1


def unpack(counts: Any) -> Any:
    """Packed changes (F, G + 1, K) to (hits, predicted) at each lattice point, both (F, G, K) int64."""
    low = counts.astype(np.int32, casting="unsafe").astype(np.int64)
    high = (counts - low) >> 32
    return np.cumsum(high[:, :-1], axis=1), np.cumsum(low[:, :-1], axis=1)
