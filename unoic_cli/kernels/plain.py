"""Plain numpy twins of the compiled kernels: the same counts, bits and answers, and nothing to be compiled.

Each takes and returns what the kernel of its name does, whose documentation holds; scratch is left alone. Every unit
is decided in float64 by the numbers that compiled kernels go back to where float32 is in doubt. What those add, these
add in the same order, and exponentials and logarithms come from the same library or polynomial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unoic_cli.kernels import constants as c
from unoic_cli.kernels import groups
from unoic_cli.kernels.lines import COPIES, Lines
from unoic_cli.kernels.operator import Group, Operator, group_of

Floats: TypeAlias = NDArray[np.float64]
Whole: TypeAlias = NDArray[np.int64]

_PIECE = 1 << 16
"""Scores at a time: they stay in cache."""
_FAR = 80.0
_FLOAT32_END = 3.4028235677973366e38  # rounds to infinity in float32
_LARGEST_EXP = 709.782712893384

exp = np.frompyfunc(math.exp, 1, 1)
"""The C library's, as compiled kernels call it: numpy's own may round otherwise."""
log = np.frompyfunc(math.log, 1, 1)


# ---------------------------------------------------------------- scores of a block


def wide(raw: NDArray[Any], brain: bool) -> Floats:
    """Stored scores in float64, exactly."""
    if raw.dtype == np.uint16:
        raw = (raw.astype(np.uint32) << 16).view(np.float32) if brain else np.ascontiguousarray(raw).view(np.float16)
    return raw.astype(np.float64)


def rows_of(raw: NDArray[Any], units: Any, n_classes: int, pixels: int | None) -> NDArray[Any]:
    """Stored scores of some units (a slice, or their numbers) of a block, (n, K)."""
    if not pixels:
        return raw.reshape(-1, n_classes)[units]
    if isinstance(units, slice):
        units = np.arange(units.start, units.stop)
    image, pixel = np.divmod(units, pixels)
    return raw.reshape(-1, n_classes, pixels)[image, :, pixel]


def flattened(raw: NDArray[Any], brain: bool, pixels: int, delta: Floats, units: Any, n_classes: int) -> Floats:
    """Scores delta * z of some units of a block in float64, (n, K)."""
    rows = wide(rows_of(raw, units, n_classes, pixels), brain)
    return rows * _factors(delta, units) if delta.size else rows


def _pieces(n_units: int, n_classes: int, first: int = 0) -> Iterator[slice]:
    size = max(1, _PIECE // n_classes // c.LANES) * c.LANES
    for start in range(first, n_units, size):
        yield slice(start, min(start + size, n_units))


def _factors(delta: Floats, units: Any) -> Floats:
    """The factors of some units, (n, 1) or (1, 1)."""
    return np.asarray(delta[units] if delta.size > 1 else delta)[:, None]


def _allowed(lines: Lines) -> NDArray[np.bool_]:
    """Which classes may be predicted, (K,)."""
    bits = (lines.valid[:, None] >> np.arange(c.LANES)) & 1
    return np.asarray(bits.reshape(-1)[: lines.n_classes] == 1)


def _first(wrong: Any) -> int:
    """The first unit that is wrong, or -1."""
    return int(wrong.argmax()) if wrong.any() else -1


def _invalid(rows: Floats, factors: Floats | None, allowed: NDArray[np.bool_], allow_zero: bool) -> NDArray[np.bool_]:
    """Units with a score that may not be there, in float32, or without a class that they may have, (n,)."""
    narrow = rows.astype(np.float32)
    if factors is not None:
        narrow *= factors.astype(np.float32)
    if np.isfinite(narrow).all():
        return np.zeros(len(rows), dtype=bool)
    bad = ~(narrow < np.inf) | ((narrow == -np.inf) & (not allow_zero))
    return np.asarray(bad.any(axis=1) | ~((narrow > -np.inf) & allowed).any(axis=1))


def _checked(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, pixels: int | None, n_units: int, lines: Lines
) -> Iterator[tuple[slice, Floats, int]]:
    """Scores delta * z piece by piece, -inf for masked classes, and the first unit that is not valid, or -1."""
    allowed = _allowed(lines)
    for units in _pieces(n_units, lines.n_classes):
        rows = wide(rows_of(raw, units, lines.n_classes, pixels), brain)
        factors = _factors(delta, units) if delta.size else None
        bad = _first(_invalid(rows, factors, allowed, allow_zero))
        if factors is not None:
            rows *= factors
        if not allowed.all():
            rows[:, ~allowed] = -np.inf
        yield units, rows, bad if bad < 0 else units.start + bad


# ---------------------------------------------------------------- what changes along the lattice

Looks: TypeAlias = Callable[[Any, Any], tuple[NDArray[Any], NDArray[np.bool_]]]
"""Items and their lattice points to what is found there, and whether that is certain."""


def _changes(look: Looks, n_items: int, n_points: int) -> tuple[NDArray[Any], list[tuple[Any, Any, Any, Any]]]:
    """What is found at the first lattice point, and the changes: (items, points from which on, before, after).

    What is certain and the same at two lattice points is the same between, as all are lines; the rest is halved.
    """
    items = np.arange(n_items)
    low, high = np.zeros(n_items, dtype=np.int64), np.full(n_items, n_points - 1)
    start, sure = look(items, low)
    spans = [items, low, high, start, sure, *look(items, high)]
    changes = []
    while items.size:
        items, low, high, before, sure, after, sure_after = spans
        next_to = high - low < 2
        changed = next_to & (before != after)
        changes.append((items[changed], high[changed], before[changed], after[changed]))
        wide_open = ~next_to & ((before != after) | ~sure | ~sure_after)
        items, low, high, before, sure, after, sure_after = (part[wide_open] for part in spans)
        middle = (low + high) // 2
        found = look(items, middle)
        halves = (items, low, middle, before, sure, *found), (items, middle, high, *found, after, sure_after)
        spans = [np.concatenate(pair) for pair in zip(*halves, strict=True)]
    return start, changes


def _winners(rows: Floats, lines: Lines) -> Looks:
    """Who wins, the first on ties; it is certain where it leads by far all but classes that are equal everywhere."""
    largest = np.abs(np.where(rows > -np.inf, rows, 0.0)).max(axis=1)
    needed = c.TINY * (2.0 * largest + lines.reach)

    def look(items: Any, points: Any) -> tuple[Whole, NDArray[np.bool_]]:
        z = rows[items]
        scores = z + lines.lams[points][:, None] * lines.slope
        winners = scores.argmax(axis=1)
        place = np.arange(len(z)), winners
        top = scores[place]
        scores[(z == z[place][:, None]) & (lines.slope == lines.slope[winners][:, None])] = -np.inf
        with np.errstate(invalid="ignore"):
            return winners, top - scores.max(axis=1) > needed[items]

    return look


def trail(rows: Floats, lines: Lines) -> tuple[Whole, list[tuple[Any, Any, Any, Any]]]:
    """Who wins of each row of scores at the first lattice point, and the changes.

    These are rows, points from which on, who was, and who is. -inf is no score; masked classes are not predicted.
    """
    allowed = _allowed(lines)
    known = rows if allowed.all() else np.where(allowed, rows, -np.inf)
    return _changes(_winners(known, lines), len(rows), lines.lams.size)


def count_path_columns(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, labels: Any, folds: Any, lines: Lines, exact: bool,
    counts: Any, support: Any, work: Any, pixels: int | None,
) -> int:  # fmt: skip
    """See `unoic_cli.kernels.path.count_path_columns`."""
    n_classes, n_points = lines.n_classes, lines.lams.size
    table = (n_points + COPIES) * n_classes
    for units, rows, bad in _checked(raw, brain, allow_zero, delta, pixels, labels.size, lines):
        if bad >= 0:
            return bad
        kept = np.flatnonzero(labels[units] >= 0)
        own = labels[units][kept].astype(np.int64)
        fold = folds[units][kept].astype(np.int64) if folds.size else np.zeros_like(own)
        np.add.at(support, fold * (COPIES * n_classes) + own, 1)
        start, changes = _changes(_winners(rows[kept], lines), kept.size, n_points)
        moves = [(slice(None), np.zeros_like(own), start, 1)]
        moves += [(items, at, old, -1) for items, at, old, _ in changes]
        moves += [(items, at, new, 1) for items, at, _, new in changes]
        for items, at, winner, n in moves:
            place = fold[items] * table + (COPIES - 1 + at) * n_classes + winner
            np.add.at(counts, 2 * place + (winner == own[items]), n)
    return -1


count_path_wide = count_path_columns


def _above(rows: Floats, labels: Whole, lines: Lines, allowed: NDArray[np.bool_]) -> Looks:
    """Whether a class ranks before the label of a unit; an item is a unit and a class."""
    n_classes = lines.n_classes
    own = rows[np.arange(len(rows)), labels]
    fixed = (rows == -np.inf) | (own == -np.inf)[:, None] | ~allowed
    fixed |= (rows == own[:, None]) & (lines.slope == lines.slope[labels][:, None])

    def look(items: Any, points: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        unit, k = np.divmod(items, n_classes)
        label, lam = labels[unit], lines.lams[points]
        z, z_label = rows[unit, k], own[unit]
        score, mine = z + lam * lines.slope[k], z_label + lam * lines.slope[label]
        before = (score > mine) | ((score == mine) & (k < label))
        with np.errstate(invalid="ignore"):
            clear = np.abs(score - mine) > c.TINY * (np.abs(z) + np.abs(z_label) + lines.reach)
        return before & allowed[k] & (k != label), clear | fixed[unit, k]

    return look


def count_top_k(
    raw: Any, brain: bool, pixels: int, delta: Any, labels: Any, folds: Any, lines: Lines, top: int, moves: Any,
    hits: Any, work: Any,
) -> None:  # fmt: skip
    """See `unoic_cli.kernels.rank.count_top_k`."""
    n_points, allowed = lines.lams.size, _allowed(lines)
    for units, rows, _ in _checked(raw, brain, True, delta, pixels, labels.size, lines):
        own = labels[units].astype(np.int64)
        kept = np.flatnonzero((own >= 0) & allowed[own])
        if not kept.size:
            continue
        place = folds[units][kept].astype(np.int64) * n_points
        above, changes = _changes(_above(rows[kept], own[kept], lines, allowed), rows[kept].size, n_points)
        rank = above.reshape(kept.size, -1).sum(axis=1)
        np.add.at(hits, place, rank < top)
        unit, at, step = (
            np.concatenate(parts)
            for parts in zip(
                *[(items // lines.n_classes, points, np.where(new, 1, -1)) for items, points, _, new in changes],
                strict=True,
            )
        )
        _move_hits(unit, at, step, rank, top, place, hits)


def _move_hits(unit: Whole, at: Whole, step: Whole, rank: Whole, top: int, place: Whole, hits: Whole) -> None:
    """Add what changes of the ranks of units, at lattice points, make of hits."""
    order = np.lexsort((at, unit))
    unit, at, step = unit[order], at[order], step[order]
    moved = np.cumsum(step)
    begin = np.searchsorted(unit, unit)  # the first change of the same unit
    after = rank[unit] + moved - moved[begin] + step[begin]
    last = np.append((unit[1:] != unit[:-1]) | (at[1:] != at[:-1]), True)[: unit.size]
    unit, at, after = unit[last], at[last], after[last]
    before = np.where(np.append(True, unit[1:] != unit[:-1])[: unit.size], rank[unit], np.roll(after, 1))
    np.add.at(hits, place[unit] + at, (after < top).astype(np.int64) - (before < top))


# ---------------------------------------------------------------- one lambda


def predict_columns(
    raw: Any,
    brain: bool,
    allow_zero: bool,
    delta: Any,
    lines: Lines,
    exact: bool,
    out: Any,
    work: Any,
    pixels: int | None,
) -> int:
    """See `unoic_cli.kernels.points.predict_columns`."""
    for units, rows, bad in _checked(raw, brain, allow_zero, delta, pixels, out.size, lines):
        if bad >= 0:
            return bad
        out[units] = (rows + lines.lams[0] * lines.slope).argmax(axis=1)
    return -1


predict_wide = predict_columns


def count_point_columns(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, lines: Lines, exact: bool, labels: Any, hits: Any,
    predicted: Any, support: Any, confusion: Any, work: Any, pixels: int | None,
) -> int:  # fmt: skip
    """See `unoic_cli.kernels.points.count_point_columns`."""
    out = np.zeros(labels.size, dtype=np.int32)
    bad = predict_columns(raw, brain, allow_zero, delta, lines, exact, out, work, pixels)
    if bad < 0:
        count_predictions(labels, out, np.zeros_like(out), lines.n_classes, hits, predicted, support)
        if confusion.size:
            count_confusion(labels, out, lines.n_classes, confusion)
    return bad


def count_predictions(
    labels: Any, predictions: Any, folds: Any, n_classes: int, hits: Any, predicted: Any, support: Any
) -> None:
    """See `unoic_cli.kernels.points.count_predictions`."""
    kept = labels >= 0
    table = folds[: labels.size][kept].astype(np.int64) * n_classes
    own, found = labels[kept], predictions[: labels.size][kept]
    np.add.at(support, table + own, 1)
    np.add.at(predicted, table + found, 1)
    np.add.at(hits, (table + own)[own == found], 1)


def count_confusion(labels: Any, predictions: Any, n_classes: int, confusion: Any) -> None:
    """See `unoic_cli.kernels.points.count_confusion`."""
    kept = labels >= 0
    np.add.at(confusion, labels[kept].astype(np.int64) * n_classes + predictions[: labels.size][kept], 1)


# ---------------------------------------------------------------- sums in fixed point


def _fixed(values: Any) -> Whole:
    """Numbers >= 0 in units of 2**-40."""
    return np.asarray(np.asarray(values, dtype=np.float64) * c.FIXED_POINT + 0.5).astype(np.int64)


def _sum(values: Floats) -> Floats:
    """Sums of rows, one score after the other."""
    return np.asarray(np.cumsum(values, axis=1)[:, -1])


def _apply(function: Any, values: Floats) -> Floats:
    return np.asarray(function(values), dtype=np.float64)


def sum_posterior(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, delta: Any, n_units: int, lines: Lines, sums: Any, work: Any
) -> int:
    """See `unoic_cli.kernels.posterior.sum_posterior`."""
    allowed = _allowed(lines)
    for units in _pieces(n_units, lines.n_classes):
        rows = wide(rows_of(raw, units, lines.n_classes, pixels), brain)
        scores = rows * _factors(delta, units) if delta.size else rows.copy()
        scores = np.where(allowed, scores + lines.lams[0] * lines.slope, -np.inf)
        with np.errstate(invalid="ignore"):
            scores -= np.where(scores > -np.inf, scores, -np.inf).max(axis=1)[:, None]
        weights = _apply(exp, scores)
        total = _sum(weights)
        wrong = ~(rows < np.inf) | ((rows == -np.inf) & (not allow_zero))
        bad = _first(~(total < np.inf) | ((scores == -np.inf) & wrong).any(axis=1))
        if bad >= 0:
            return units.start + bad
        sums += _fixed(weights / total[:, None]).sum(axis=0)
    return -1


class _Gaps(NamedTuple):
    """Labelled units by the gaps between their largest score and the others; or what is `wrong`, else -1."""

    wrong: int
    away: Floats
    own: Floats
    right: NDArray[np.bool_]
    kept: Whole


def _gaps(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, delta: Any, bias: Any, units: slice, labels: Any,
    n_classes: int, strict: bool,
) -> _Gaps:  # fmt: skip
    """Gaps of all classes, and of the label; a label of probability zero is wrong if `strict`."""
    z = wide(rows_of(raw, units, n_classes, pixels), brain)
    if delta.size:
        z *= _factors(delta, units)
    if allow_zero:
        z[z <= -_FLOAT32_END] = -np.inf
    bad = ~(z < _FLOAT32_END) | ((z <= -_FLOAT32_END) & ~((z == -np.inf) & allow_zero))
    if bias.size:
        z += bias
    top, label = z.max(axis=1), labels[units].astype(np.int64)
    invalid = bad.any(axis=1) | (top == -np.inf)
    with np.errstate(invalid="ignore"):
        own = top - z[np.arange(len(z)), label]
        hopeless = (label >= 0) & ~(own < np.inf) & strict
        wrong = _first(invalid | hopeless)
        if wrong >= 0:
            wrong = units.start + wrong if invalid[wrong] else -2 - units.start - wrong
        kept = np.flatnonzero(label >= 0)
        return _Gaps(wrong, (top[:, None] - z)[kept], own[kept], (z.argmax(axis=1) == label)[kept], units.start + kept)


def _tiers(gaps: Floats) -> tuple[Whole, Whole]:
    """The tiers of gaps, and the gaps in their units."""
    tier = np.searchsorted(2.0 ** (9 + c.STEP * np.arange(c.N_TIERS)), gaps, side="right")
    return tier, (gaps * (c.FIXED_POINT / 2.0 ** (c.STEP * tier)) + 0.5).astype(np.int64)


def _add_halves(values: Whole, sums: Any, places: Whole) -> None:
    """Add integers >= 0 to sums that are kept in two parts."""
    np.add.at(sums, 2 * places, values & ((1 << c.HALF) - 1))
    np.add.at(sums, 2 * places + 1, values >> c.HALF)


def _softmax(x: Floats) -> Floats:
    """exp(-x); 0 where that is far away."""
    weights, near = np.zeros_like(x), x < _FAR
    weights[near] = exp(-x[near])
    return weights


def make_gaps(z: Floats, hidden: Floats, allow_zero: bool) -> tuple[Floats, NDArray[np.bool_]]:
    """Gaps of all classes, of scores (n, K), and which units are not valid."""
    below = z <= -_FLOAT32_END
    bad = (~(z < _FLOAT32_END) | (below & (not allow_zero))).any(axis=1)
    with np.errstate(invalid="ignore"):
        z = np.where(below, -np.inf, z) - hidden
        top = np.where(z > -np.inf, z, -np.inf).max(axis=1)
        gaps = top[:, None] - z
    return np.where(gaps < c.GONE, gaps, c.GONE), bad | (top == -np.inf)


class _Moments(NamedTuple):
    """The largest probability of units, its class, and what is summed, in fixed point."""

    confidence: Floats
    winner: Whole
    sums: list[Whole]


def moments(gaps: Floats, point: Floats, bias: Floats, feature: Floats) -> _Moments:
    """What units of gaps (n, K) say at a place: see `unoic_cli.kernels.likelihood.add_moments`."""
    a, scale, squared = point
    x = a * gaps
    theta = bias - x
    top = theta.max(axis=1)
    below = theta - top[:, None]
    near = below > c.LEAST
    weights = np.where(near, _exp_series(np.where(near, below, c.LEAST)), 0.0)
    heavy, seen = weights * x, weights * feature
    total, x1, v1 = np.ascontiguousarray(_sum(weights)), _sum(heavy), _sum(seen)
    x2, v2, xv = _sum(heavy * x), _sum(seen * feature), _sum(heavy * feature)
    share = 1.0 / total
    mean_x, mean_v = x1 * share, v1 * share
    found = (
        (top + _log_series(total), scale),
        (mean_x, scale),
        (mean_v, c.FIXED_POINT),
        (x2 * share - mean_x * mean_x, squared),
        (xv * share - mean_x * mean_v, scale),
        (v2 * share - mean_v * mean_v, c.FIXED_POINT),
    )
    sums = [np.asarray(values * unit + c.MAGIC).view(np.int64) - c.MAGIC_BITS for values, unit in found]
    return _Moments(share, theta.argmax(axis=1), sums)


def sum_likelihood(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, delta: Any, labels: Any, n_classes: int, points: Any,
    biases: Any, feature: Any, hidden: Any, n_bins: int, tile: Any, keep: Any, lanes: Any, away: Any, sums: Any,
    counts: Any, hits: Any, confidences: Any,
) -> int:  # fmt: skip
    """See `unoic_cli.kernels.likelihood.sum_likelihood`."""
    for units in _pieces(labels.size, n_classes):
        z = wide(rows_of(raw, units, n_classes, pixels), brain)
        if delta.size:
            with np.errstate(invalid="ignore"):
                z *= _factors(delta, units)
        gaps, bad = make_gaps(z, hidden, allow_zero)
        label = labels[units].astype(np.int64)
        own = gaps[np.arange(len(z)), label]
        wrong = _first(bad | ((label >= 0) & ~(own < c.GAP_END)))
        if wrong >= 0:
            return units.start + wrong if bad[wrong] else -2 - units.start - wrong
        kept = label >= 0
        gaps, label = gaps[kept], label[kept]
        tier, values = _tiers(own[kept])
        _add_halves(values, away, tier)
        for j, point in enumerate(points.reshape(-1, 3)):
            seen = moments(gaps, point, biases[j * n_classes : (j + 1) * n_classes], feature)
            place = np.repeat(j * c.N_MOMENTS + np.arange(c.N_MOMENTS), len(label))
            _add_halves(np.concatenate(seen.sums), sums, place)
            if j * n_bins >= counts.size:
                continue
            place = j * n_bins + np.clip(np.ceil(seen.confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
            np.add.at(counts, place, 1)
            np.add.at(hits, place, seen.winner == label)
            _add_halves(_fixed(seen.confidence), confidences, place)
        sums[1::2] += sums[::2] >> c.HALF
        sums[::2] &= (1 << c.HALF) - 1
    return -1


def sum_confidence(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, delta: Any, labels: Any, tables: Any, n_classes: int,
    bias: Any, betas: Any, n_bins: int, strict: bool, gaps: Any, support: Any, zeros: Any, away: Any, logs: Any,
    squares: Any, counts: Any, hits: Any, confidences: Any,
) -> int:  # fmt: skip
    """See `unoic_cli.kernels.likelihood.sum_confidence`."""
    n_tables = zeros.size // n_classes
    for units in _pieces(labels.size, n_classes):
        seen = _gaps(raw, brain, allow_zero, pixels, delta, bias, units, labels, n_classes, strict)
        if seen.wrong != -1:
            return seen.wrong
        table = tables[seen.kept].astype(np.int64)
        cell = table * n_classes + labels[seen.kept]
        if support.size:
            np.add.at(support, cell, 1)
        likely = seen.own < c.GAP_END
        tier, values = _tiers(seen.own[likely])
        _add_halves(values, away, tier * zeros.size + cell[likely])
        np.add.at(zeros, cell[~likely], 1)
        for i, beta in enumerate(betas):
            weights = _softmax(beta * seen.away)
            total = _sum(weights)
            confidence, truth = 1.0 / total, _softmax(beta * seen.own) / total
            square = np.maximum(_sum(weights * weights) / total / total - 2.0 * truth + 1.0, 0.0)
            place = i * n_tables + table
            _add_halves(_fixed(_apply(log, total[likely])), logs, i * zeros.size + cell[likely])
            _add_halves(_fixed(square), squares, place)
            place = place * n_bins + np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
            np.add.at(counts, place, 1)
            np.add.at(hits, place, seen.right)
            _add_halves(_fixed(confidence), confidences, place)
    return -1


# ---------------------------------------------------------------- entropy


def _polynomial(coefficients: tuple[float, ...], x: Floats) -> Floats:
    """Horner."""
    value = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


def _exp_series(x: Floats) -> Floats:
    moved = x * c.LOG2_E + c.MAGIC
    whole = moved - c.MAGIC
    rest = x - whole * c.LN2_HIGH
    rest = rest - whole * c.LN2_LOW
    scale = ((moved.view(np.int64) + 1023) << 52).view(np.float64)
    squared = rest * rest
    return np.asarray((_polynomial(c.EXP[::2], squared) + _polynomial(c.EXP[1::2], squared) * rest) * scale)


def _log_series(x: Floats) -> Floats:
    bits = x.view(np.int64)
    exponent = (bits - c.ROOT_HALF_BITS) >> 52
    mantissa = (bits - (exponent << 52)).view(np.float64)
    f = (mantissa - 1.0) / (mantissa + 1.0)
    return np.asarray(exponent.astype(np.float64) * (c.LN2_HIGH + c.LN2_LOW) + _polynomial(c.LOG, f * f) * f)


def entropies(z: Floats, allow_zero: bool) -> tuple[Whole, NDArray[np.bool_]]:
    """Entropies of the softmax of rows (n, K) in units of 2**-40 nats, and which rows are not valid."""
    bad = (~(z < np.inf) | ((z == -np.inf) & (not allow_zero))).any(axis=1)
    top = np.where(z > -np.inf, z, -np.inf).max(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        x = z - top[:, None]
        x = np.where(x > c.LEAST, x, c.LEAST)
    weights = _exp_series(x)
    total = np.ascontiguousarray(_sum(weights))
    entropy = _log_series(total) - _sum(weights * x) / total
    return (entropy * c.FIXED_POINT + c.MAGIC).view(np.int64) - c.MAGIC_BITS, bad | (top == -np.inf)


def entropy_of_units(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, n_units: int, n_classes: int, out: Any, work: Any
) -> int:
    """See `unoic_cli.kernels.entropy.entropy_of_units`."""
    for units in _pieces(n_units, n_classes):
        out[units], wrong = entropies(wide(rows_of(raw, units, n_classes, pixels), brain), allow_zero)
        if wrong.any():
            return units.start + _first(wrong)
    return -1


# ---------------------------------------------------------------- what rows look like


def _look_closer(
    raw: Any, brain: bool, pixels: int, units: Any, labels: Any, n_classes: int, tolerance: float, counted: Any
) -> None:
    z = wide(rows_of(raw, units, n_classes, pixels), brain)
    counted[c.CLOSER] += units.size
    if tolerance >= 0:
        small = z < _LARGEST_EXP
        total = _sum(np.where(small, _apply(exp, np.where(small, z, 0.0)), np.inf))
        counted[c.EXP_ONE] += (np.abs(total - 1.0) <= tolerance).sum()
    if labels.size:
        own = labels[units].astype(np.int64)
        shift = np.where(z > -np.inf, z, -np.inf).argmax(axis=1)[own >= 0] - own[own >= 0]
        counted[c.LABELLED] += shift.size
        for place, by in ((c.AS_IS, 0), (c.DOWN, -1), (c.UP, 1)):
            counted[place] += (shift == by).sum()


def look_at_rows(
    raw: Any, brain: bool, pixels: int, units: Any, places: Any, labels: Any, n_classes: int, limit: Any, zeros: bool,
    tolerances: Any, closer: int, counted: Any,
) -> None:  # fmt: skip
    """See `unoic_cli.kernels.evidence.look_at_rows`."""
    near = units[places % closer == 0]
    if near.size:
        _look_closer(raw, brain, pixels, near, labels, n_classes, tolerances[1], counted)
    for part in _pieces(units.size, n_classes):
        rows = rows_of(raw, units[part], n_classes, pixels)
        equal = (rows == rows[:, :1]).all(axis=1) & ((rows[:, 0] == 0) | (not zeros))
        inside = ((rows >= 0) & (rows <= limit)).all(axis=1)
        one = np.zeros_like(inside)
        one[inside] = np.abs(_sum(wide(rows[inside], brain)) - 1.0) <= tolerances[0]
        firsts = ((c.FIRST_EQUAL, equal), (c.FIRST_SUM, inside & ~one), (c.FIRST_OUTSIDE, ~inside))
        for place, found in firsts:
            if counted[place] < 0 and found.any():
                counted[place] = places[part][found.argmax()]
        for place, n in ((c.ROWS, len(rows)), (c.EQUAL, equal.sum()), (c.INSIDE, inside.sum()), (c.ONE, one.sum())):
            counted[place] += n


# ---------------------------------------------------------------- bytes of stored chunks


def join(source: Any, out: Any) -> None:
    """See `unoic_cli.kernels.octet_loops`; of elements of any width."""
    out.view(np.uint8).reshape(out.size, -1)[...] = source.reshape(-1, out.size).T


join_2 = join_4 = join_8 = join


def split(source: Any, width: int, out: Any) -> None:
    """See `unoic_cli.kernels.octet_loops`."""
    out.reshape(width, -1)[...] = source.reshape(-1, width).T


def add_words(data: Any, totals: Any) -> None:
    """See `unoic_cli.kernels.octet_loops`."""
    words = data[: data.size // 2 * 2].view(">u2").astype(np.int64)
    if data.size % 2:
        words = np.append(words, int(data[-1]) << 8)
    first = second = 0
    for start in range(0, words.size, c.CHECKED):
        part = words[start : start + c.CHECKED]
        second = (second + first * part.size + int(part @ np.arange(part.size, 0, -1))) % 65535
        first = (first + int(part.sum())) % 65535
    totals[:] = first, second, words.any()


# ---------------------------------------------------------------- fusion


def _fill(
    raw: Any, brain: bool, allow_zero: bool, shifted: bool, delta: Any, lines: Lines, first: int, n: int, out: Any,
    o: int, at_once: int, pixels: int,
) -> int:  # fmt: skip
    n_classes, allowed = lines.n_classes, _allowed(lines)
    units = np.arange(first, first + n)
    rows = wide(rows_of(raw, units, n_classes, pixels), brain)
    times = delta[units] if delta.size > 1 else np.broadcast_to(delta if delta.size else 1.0, n)
    invalid = _invalid(rows, None, allowed, allow_zero)
    flat = (times == 0.0) & (rows.astype(np.float32) == -np.inf).any(axis=1)
    if (invalid | flat).any():  # looked for group by group, in parts that lie in the tile or in an image
        i = units - first
        starts = (i % c.LANES % at_once == 0) | (units % pixels == 0 if pixels else False)
        looked_at = 2 * np.cumsum(starts) + ~invalid
        return first + int(np.where(invalid | flat, looked_at, 2 * n + 2).argmin())
    with np.errstate(invalid="ignore"):
        rows = rows * times[:, None]
    top = np.where(allowed, rows, -np.inf).max(axis=1)
    move = shifted & (np.abs(top) > c.HUGE) & (top > -np.inf)
    rows[move] -= top[move, None]
    rows[:, ~allowed] = -np.inf
    group = np.zeros((-(-n // c.LANES) * c.LANES, n_classes))
    group[:n], group[n:, ~allowed] = rows, -np.inf
    out[o : o + group.size] = group.reshape(-1, c.LANES, n_classes).transpose(0, 2, 1).reshape(-1)
    return -1


def fill_rows64(
    raw: Any, brain: bool, allow_zero: bool, double: bool, shifted: bool, delta: Any, lines: Lines, first: int, n: int,
    out: Any, o: int, plain: Any, times: Any, work: Any,
) -> int:  # fmt: skip
    """See `unoic_cli.kernels.fusion.fill_rows64`."""
    at_once = min(c.LANES, work.tile.size // (lines.n_vectors * c.LANES))
    return _fill(raw, brain, allow_zero, shifted, delta, lines, first, n, out, o, at_once, 0)


def fill_planes64(
    raw: Any, brain: bool, allow_zero: bool, double: bool, shifted: bool, delta: Any, lines: Lines, first: int, n: int,
    out: Any, o: int, plain: Any, times: Any, work: Any, pixels: int,
) -> int:  # fmt: skip
    """See `unoic_cli.kernels.fusion.fill_planes64`."""
    return _fill(raw, brain, allow_zero, shifted, delta, lines, first, n, out, o, c.LANES, pixels)


def _experts(experts: Group, n_groups: int, n: int) -> tuple[Floats, Floats]:
    """Scores (M, K, n), and factors of the slopes (M, n)."""
    shape = experts.n_experts, n_groups, experts.n_classes, c.LANES
    scores = experts.scores[: math.prod(shape)].reshape(shape).transpose(0, 2, 1, 3)
    factors = np.ones((experts.n_experts, n))
    if experts.factors.size:
        factors = experts.factors.reshape(experts.n_experts, -1)[:, :n]
    return scores.reshape(experts.n_experts, experts.n_classes, -1)[:, :, :n], factors


def _slopes(experts: Group, lam: float) -> Floats:
    """Lambda * s, (M, K, 1)."""
    return np.asarray(lam * experts.slopes.reshape(experts.n_experts, -1, 1))


def _agreed(scores: Floats, factors: Floats, experts: Group, lams: Any) -> tuple[Whole, NDArray[np.bool_]]:
    """The class that all experts prefer at the least and the largest lambda, and where there is none by far."""
    tops, closed = None, np.ones(scores.shape[2], dtype=bool)
    for lam in (np.min(lams), np.max(lams)):
        for z in scores + _slopes(experts, lam) * factors[:, None]:
            winners, second = z.argmax(axis=0), np.partition(z, -2, axis=0)[-2:] if len(z) > 1 else None
            tops = winners if tops is None else tops
            closed &= winners == tops
            if second is not None:
                with np.errstate(invalid="ignore"):
                    closed &= second[1] - second[0] > 1e-9 * (np.abs(second[1]) + 1)
    assert tops is not None
    return tops, ~closed


def _lead(
    scores: Floats, factors: Floats, slopes: Floats, possible: Any, operator: Operator, in_logs: bool
) -> tuple[Whole, Floats]:
    """The decision of units of scores (M, K, n) in float64, and its value."""
    n_experts, n_classes, n = scores.shape
    row = np.zeros((3 * n_classes, n))
    for m in range(n_experts):
        with np.errstate(invalid="ignore"):
            tilted = np.where(scores[m] > -np.inf, scores[m] + factors[m] * slopes[m], -np.inf)
        top = tilted.argmax(axis=0)
        row[:n_classes] = tilted - tilted.max(axis=0)
        weights = _apply(exp, row[:n_classes])
        weights[top, np.arange(n)] = 0.0
        operator.weigh(m, n_classes, top, np.cumsum(weights, axis=0)[-1], in_logs, row)
    winners, best, certain = np.full(n, -1), np.full(n, np.inf), np.zeros(n)
    for k in range(n_classes):
        value, sure = row[n_classes + k], row[2 * n_classes + k]
        with np.errstate(invalid="ignore"):
            ahead = possible[k] & ((winners < 0) | ((value - best) - (sure - certain) < 0.0))
        winners[ahead], best[ahead], certain[ahead] = k, value[ahead], sure[ahead]
    return winners, best


def _possible(scores: Floats, operator: Operator) -> NDArray[np.bool_]:
    """Which classes of which units may win, (K, n)."""
    given = scores > -np.inf
    able = given.any(axis=0)
    for m in range(len(scores)):
        if operator.excludes(m):
            able &= given[m]
    return np.asarray(able)


def hopeless(experts: Group, n_groups: int, operator: Operator, n: int) -> int:
    """The first of n units of which no class may win."""
    return _first(~_possible(_experts(experts, n_groups, n)[0], operator).any(axis=0))


def fused_winners(
    experts: Group, n_groups: int, lams: Any, tables: Any, operator: Operator, margin: float, winners: Any, found: Any,
    n: int, scratch: Any,
) -> int:  # fmt: skip
    """See `unoic_cli.kernels.fusion.fused_winners`; every unit that is open is decided in float64."""
    scores, factors = _experts(experts, n_groups, n)
    size = n_groups * c.LANES
    for units in _pieces(n, experts.n_classes * experts.n_experts):
        part, own = np.ascontiguousarray(scores[:, :, units]), factors[:, units]
        tops, undecided = _agreed(part, own, experts, lams)
        where = units.start + np.flatnonzero(undecided)
        part, own = part[:, :, undecided], own[:, undecided]
        possible = _possible(part, operator)
        if not possible.any(axis=0).all():
            return int(where[_first(~possible.any(axis=0))])
        for g, lam in enumerate(lams):
            winners[g * size + units.start : g * size + units.stop] = tops
            slopes = _slopes(experts, lam)
            decided, best = _lead(part, own, slopes, possible, operator, False)
            faint = np.broadcast_to(operator.is_faint(best), best.shape)
            if faint.any():
                decided[faint], _ = _lead(part[:, :, faint], own[:, faint], slopes, possible[:, faint], operator, True)
            winners[g * size + where] = decided
    return -1


def count_winners(
    winners: Any, n_groups: int, n: int, n_points: int, labels: Any, tables: Any, first: int, n_classes: int,
    hits: Any, predicted: Any, support: Any,
) -> None:  # fmt: skip
    """See `unoic_cli.kernels.fusion.count_winners`."""
    kept = np.flatnonzero(labels[first : first + n] >= 0)
    own, table = labels[first + kept].astype(np.int64), tables[first + kept].astype(np.int64)
    np.add.at(support, table * n_classes + own, 1)
    before = None
    for g in range(n_points):
        now = winners[g * n_groups * c.LANES :][kept]
        changed = slice(None) if before is None else now != before
        place = ((table * n_points + g) * n_classes)[changed]
        for found, by in ((now, 1), (before, -1)):
            if found is not None:
                np.add.at(predicted, place + found[changed], by)
                np.add.at(hits, place + found[changed], by * (found == own)[changed])
        before = now


class _Lanes(NamedTuple):
    """What operators know of a thread's memory when they blend posteriors, for any number of units."""

    e64: Floats
    sums64: Floats
    u: Floats


def _blended(scores: Floats, factors: Floats, bias: Floats, operator: Operator, in_logs: bool) -> tuple[_Lanes, int]:
    """The fused posterior, and bits of the units with an entry whose logarithm is not to be trusted."""
    n_experts, n_classes, n = scores.shape
    lanes = _Lanes(np.zeros(n_classes * n), np.zeros(2 * n), np.zeros(n_classes * n))
    e64, sums64, u = lanes
    if operator.is_quick():
        for m in range(n_experts):
            groups.soften64(scores[m].reshape(-1), 0, n_classes, bias[m, :, 0], 0, factors[m], 0, e64, 0, sums64, 0)
            operator.blend(m, n_classes, lanes)  # type: ignore[arg-type]  # of scratch, it needs these alone
        faint = groups.finish(u, 0, n_classes, in_logs, sums64, 0)
        return lanes, faint if in_logs else 0
    for m, weight in enumerate(operator.weights):
        if weight != 0.0:
            u += (weight * (scores[m] + factors[m] * bias[m])).reshape(-1)
    groups.soften64(u, 0, n_classes, np.zeros(n_classes), 0, np.ones(n), 0, e64, 0, sums64, 0)
    if in_logs:
        groups.shift(u, 0, n_classes, u, 0, sums64, 0)
    else:
        operator.blend(0, n_classes, lanes)  # type: ignore[arg-type]
    return lanes, 0


def _raise_winners(rows: NDArray[Any], winners: Any, lowest: Any, relative: bool) -> None:
    """Let the first largest entry of each row be its decision: see `unoic_cli.kernels.fusion.raise_winner`."""
    wrong = np.flatnonzero((rows.argmax(axis=1) != winners) | relative)
    part, k, winner = rows[wrong], np.arange(rows.shape[1]), winners[wrong][:, None]
    best = np.take_along_axis(part, winner, axis=1)
    below = best - 1e-15 * best if relative else np.nextafter(best, lowest)
    part = np.where((k < winner) & (part > below), below, part)
    rows[wrong] = np.where((k > winner) & (part > best), best, part)


def write_fused(
    experts: Group, n_groups: int, n: int, lam: float, operator: Operator, winners: Any, in_logs: bool, lowest: Any,
    out: Any, first: int, pixels: int, scratch: Any,
) -> None:  # fmt: skip
    """See `unoic_cli.kernels.fusion.write_fused`."""
    scores, factors = _experts(experts, n_groups, n)
    bias, n_classes = _slopes(experts, lam), experts.n_classes
    for units in _pieces(n, 8 * n_classes):
        part = np.ascontiguousarray(scores[:, :, units])
        lanes, faint = _blended(part, factors[:, units], bias, operator, in_logs)
        u = lanes.u.reshape(n_classes, -1)
        while faint:
            i = groups.first_lane(faint)
            faint &= faint - 1
            g, lane = divmod(units.start + i, c.LANES)
            for k in np.flatnonzero(u[:, i] < -600.0):
                u[k, i] = operator.faint_log(group_of(experts, g), lane, int(k), lam, scratch.row) - lanes.sums64[i]
        with np.errstate(under="ignore"):
            rows = u.T.astype(out.dtype)
        _raise_winners(rows, winners[units], lowest, out.dtype == np.float64 and not in_logs)
        if pixels:
            image, pixel = np.divmod(first + np.arange(units.start, units.stop), pixels)
            out.reshape(-1, n_classes, pixels)[image, :, pixel] = rows
        else:
            out.reshape(-1, n_classes)[first + units.start : first + units.stop] = rows


def add_scaled(
    raw: Any, brain: bool, allow_zero: bool, double: bool, pixels: int, delta: Any, lines: Lines, n_units: int,
    weight: float, out: Any, plain: Any, scratch: Any, work: Any,
) -> int:  # fmt: skip
    """See `unoic_cli.kernels.fusion.add_scaled`."""
    at_once = c.LANES if pixels else min(c.LANES, work.tile.size // (lines.n_vectors * c.LANES))
    for units in _pieces(n_units, lines.n_classes):
        n = units.stop - units.start
        group = np.zeros(-(-n // c.LANES) * c.LANES * lines.n_classes)
        bad = _fill(raw, brain, allow_zero, False, delta, lines, units.start, n, group, 0, at_once, pixels)
        if bad >= 0:
            return bad
        if weight != 0.0:  # checked all the same
            rows = group.reshape(-1, lines.n_classes, c.LANES).transpose(1, 0, 2).reshape(lines.n_classes, -1)
            out.reshape(-1, n_units)[:, units] += weight * rows[:, :n]
    return -1
