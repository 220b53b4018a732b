"""Predictions at one lambda, and the counts of predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from unoic_cli.kernels.columns import WORDS, first_words, pair_columns, point_columns, take, turn_words
from unoic_cli.kernels.jit import NO_COUNTING, inlined, kernel, stage
from unoic_cli.kernels.lines import COPIES, Lines, Workspace
from unoic_cli.kernels.path import MARGIN, add_pairs, copy_labels, ends_of_rows, fetch_ahead, pad_rows, read_rows
from unoic_cli.kernels.simd import LANES, add_at, at, put
from unoic_cli.kernels.tile import (
    after_units,
    all_allowed,
    allowed,
    check_planes,
    columns_per_tile,
    fill_tile,
    mask_columns,
    score64,
    unit_source,
)

FLOAT16_INFINITY, BFLOAT16_INFINITY = 0x7C00, 0x7F80


@inlined
def winner_of_unit(raw: Any, brain: bool, source: int, step: int, delta: Any, unit: int, lines: Lines) -> int:
    """float64 argmax of delta * z + lambda * s over the classes that may be predicted, lowest index on ties."""
    best = -1
    top = 0.0
    for k in range(lines.n_classes):
        if allowed(lines, k):
            score = score64(raw, brain, source + k * step, delta, unit) + lines.lams[0] * lines.slope[k]
            if best < 0 or score > top:
                best, top = k, score
    return best


@inlined
def decide(n: int, raw: Any, brain: bool, pixels: int | None, delta: Any, unit: int, lines: Lines, starts: Any) -> None:
    """Replace the tile's uncertain winners by those of float64."""
    for i in range(n):
        if at(starts, i) < 0:
            source, step = unit_source(unit + i, lines.n_classes, pixels)
            put(starts, i, winner_of_unit(raw, brain, source, step, delta, unit + i, lines))


@inlined
def winners_of_columns(
    n: int, stride: int, raw: Any, ahead: int, pixels: int | None, margin: float, lines: Lines, exact: bool,
    work: Workspace,
) -> None:  # fmt: skip
    """Winners of a class-major tile to ``work.starts``; ~c where they are uncertain."""
    mask_columns(work.tile, n, stride, lines)
    for i in range(0, n, LANES):
        fetch_ahead(raw, ahead, pixels, i, LANES, lines.n_classes)
        point_columns(work.tile, i, lines.n_classes, stride, lines.bias0, exact, np.float32(margin), work.starts)


@stage
def fill_words(raw: Any, first: int, n: int, n_classes: int, words: Any, stride: int) -> None:
    """16-bit scores of n units of a `rows` block, from raw[first] on, to a class-major (K, stride) tile as they are."""
    n_vectors = (n_classes + LANES - 1) // LANES
    for i in range(0, n, LANES):
        source = first + i * n_classes
        if i + LANES <= n and source + (LANES - 1) * n_classes + n_vectors * LANES <= raw.size:
            for v in range(n_vectors):
                k = v * LANES
                turn_words(raw, source + k, n_classes, n_classes - k, words, k * stride + i, stride)
        else:
            for k in range(n_classes):
                for t in range(LANES):
                    words[k * stride + i + t] = raw[source + t * n_classes + k] if i + t < n else 0


@stage
def fill_word_planes(raw: Any, source: int, n: int, n_classes: int, pixels: int, words: Any, stride: int) -> None:
    """The same of n pixels of an image, the first at raw[source].

    Class by class: where planes are a power of two apart, all classes would compete for the same places in the cache.
    """
    whole = n // LANES * LANES
    for k in range(n_classes):
        for t in range(0, whole, LANES):
            take(raw, source + k * pixels + t, words, k * stride + t)
        for t in range(whole, stride):
            words[k * stride + t] = raw[source + k * pixels + t] if t < n else 0


@inlined
def word_stride(n: int) -> int:
    """Units of a tile of words, padding included."""
    return (n + WORDS - 1) // WORDS * WORDS


@stage
def first_of_words(
    raw: Any, brain: bool, unit: int, n: int, pixels: int | None, n_classes: int, work: Workspace
) -> bool:
    """Winners of n units of a block of 16-bit scores, as they are; False where one of the scores is not finite."""
    source, _ = unit_source(unit, n_classes, pixels)
    if pixels is None:
        fill_words(raw, source, n, n_classes, work.words, word_stride(n))
    else:
        fill_word_planes(raw, source, n, n_classes, pixels, work.words, word_stride(n))
    ahead, infinity = after_units(unit, n, n_classes, pixels), BFLOAT16_INFINITY if brain else FLOAT16_INFINITY
    for i in range(0, n, WORDS):
        fetch_ahead(raw, ahead, pixels, i, WORDS, n_classes)
        if first_words(work.words, i, n_classes, word_stride(n), infinity, work.starts):
            return False
    return True


@inlined
def winners_of_words(
    raw: Any, brain: bool, unit: int, n: int, pixels: int | None, lines: Lines, exact: bool, work: Workspace
) -> bool:
    """As `words_win`, of 16-bit scores."""
    if not exact or not all_allowed(lines):
        return False
    return bool(first_of_words(raw, brain, unit, n, pixels, lines.n_classes, work))


def words_win(
    raw: Any, brain: bool, unit: int, n: int, pixels: int | None, lines: Lines, exact: bool, work: Workspace
) -> bool:
    """Whether winners follow from 16-bit scores as they are, without lambda, delta or masks; they are found then."""
    return raw.dtype == np.uint16 and winners_of_words(raw, brain, unit, n, pixels, lines, exact, work)


@overload(words_win, strict=False, jit_options=NO_COUNTING)
def _overload_words_win(
    raw: Any, brain: Any, unit: Any, n: Any, pixels: Any, lines: Any, exact: Any, work: Any
) -> Callable[..., Any]:
    if raw.dtype != types.uint16:
        return lambda raw, brain, unit, n, pixels, lines, exact, work: False
    return lambda raw, brain, unit, n, pixels, lines, exact, work: winners_of_words(
        raw, brain, unit, n, pixels, lines, exact, work
    )


@inlined
def winners_of_tile(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, unit: int, n: int, pixels: int | None, lines: Lines,
    exact: bool, work: Workspace,
) -> int:  # fmt: skip
    """Winners of n units, `unit` and the next, to ``work.starts``; -1, or the first unit that is not valid."""
    n_classes, tile = lines.n_classes, work.tile
    exact_start = exact and lines.lams[0] == 0.0
    if words_win(raw, brain, unit, n, pixels, lines, exact_start, work):
        return -1
    stride = (n + LANES - 1) // LANES * LANES
    fill_tile(raw, brain, unit, n, n_classes, pixels, delta, tile, stride)
    largest, bad = check_planes(tile, n, stride, lines, allow_zero)
    if bad >= 0:
        return unit + bad
    margin, ahead = MARGIN * (largest + lines.reach), after_units(unit, n, n_classes, pixels)
    winners_of_columns(n, stride, raw, ahead, pixels, margin, lines, exact_start, work)
    if not exact_start:
        decide(n, raw, brain, pixels, delta, unit, lines, work.starts)
    return -1


@inlined
def winners_of_wide(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, first: int, n: int, lines: Lines, exact: bool, work: Workspace
) -> int:
    """The same of n rows of more than `COLUMN_CLASSES` classes."""
    largest, bad = read_rows(raw, brain, allow_zero, first, n, delta, lines, work)
    if bad >= 0:
        return bad
    exact_start = exact and lines.lams[0] == 0.0
    margin = 0.0 if exact_start else MARGIN * (largest + lines.reach)
    ends_of_rows(n, exact_start, margin, margin, lines, work)
    decide(n, raw, brain, None, delta, first, lines, work.starts)
    return -1


@inlined
def copy_winners(n: int, starts: Any, out: Any, place: int) -> None:
    """Winners of a tile to out[place:]."""
    for i in range(n):
        put(out, place + i, at(starts, i))


@kernel
def predict_columns(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, lines: Lines, exact: bool, out: Any, work: Workspace,
    pixels: int | None,
) -> int:  # fmt: skip
    """Predictions of a block at the only lambda of `lines`: of planes, or of rows of at most `COLUMN_CLASSES` classes.

    Parameters
    ----------
    raw, brain, allow_zero, delta, exact, work, pixels
        As in `unoic_cli.kernels.path.count_path_columns`.
    lines : Lines
        Made with one lattice point; its two ends may be the same.
    out : (T,) int32
        float64 argmax of delta * z + lambda * s, lowest index on ties.

    Returns
    -------
    int
        -1, or the first unit whose scores are not valid.
    """
    run = out.size if pixels is None else pixels
    per_tile = columns_per_tile(lines.n_classes, work)
    for image in range(out.size // max(run, 1)):
        for first in range(0, run, per_tile):
            n, unit = min(per_tile, run - first), image * run + first
            bad = winners_of_tile(raw, brain, allow_zero, delta, unit, n, pixels, lines, exact, work)
            if bad >= 0:
                return bad
            copy_winners(n, work.starts, out, unit)
    return -1


@kernel
def predict_wide(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, lines: Lines, exact: bool, out: Any, work: Workspace,
    pixels: int | None,
) -> int:  # fmt: skip
    """The same of rows of more classes."""
    pad_rows(work.n_rows, lines.n_classes, work.tile)
    for first in range(0, out.size, work.n_rows):
        n = min(work.n_rows, out.size - first)
        bad = winners_of_wide(raw, brain, allow_zero, delta, first, n, lines, exact, work)
        if bad >= 0:
            return bad
        copy_winners(n, work.starts, out, first)
    return -1


@inlined
def count_pairs(labels: Any, base: int, n: int, n_classes: int, work: Workspace) -> None:
    """Count the tile's pairs of label and winner in ``work.joint``."""
    copy_labels(labels, base, n, work.labels)
    for i in range(0, n, LANES):
        pair_columns(work.labels, work.starts, i, n_classes, work.slots)
    add_pairs(n, work.slots, work.joint)


@stage
def empty_pairs(n_classes: int, hits: Any, predicted: Any, support: Any, confusion: Any, joint: Any) -> None:
    """Move pairs of label and prediction to the counts."""
    side = n_classes + 1
    for copy in range(COPIES):
        for label in range(n_classes):
            for c in range(n_classes):
                number = at(joint, (copy * side + label) * side + c)
                add_at(support, label, number)
                add_at(predicted, c, number)
                add_at(hits, label, number if label == c else 0)
                if confusion.size:
                    add_at(confusion, label * n_classes + c, number)
    for place in range(joint.size):
        put(joint, place, 0)


@kernel
def count_point_columns(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, lines: Lines, exact: bool, labels: Any, hits: Any,
    predicted: Any, support: Any, confusion: Any, work: Workspace, pixels: int | None,
) -> int:  # fmt: skip
    """Count a block of at most `JOINT_CLASSES` classes in one table, without writing predictions.

    Parameters
    ----------
    raw, brain, allow_zero, delta, lines, exact, work, pixels
        As in `predict_columns`.
    labels : (T,) int32
        Negative labels are not counted.
    hits, predicted, support : (K,) int64
        As in `count_predictions`.
    confusion : (K * K,) or (0,) int64
        As in `count_confusion`, if there is one.

    Returns
    -------
    int
        -1, or the first unit whose scores are not valid.
    """
    run = labels.size if pixels is None else pixels
    per_tile = columns_per_tile(lines.n_classes, work)
    bad = -1
    for image in range(labels.size // max(run, 1)):
        for first in range(0, run, per_tile):
            n, unit = min(per_tile, run - first), image * run + first
            bad = winners_of_tile(raw, brain, allow_zero, delta, unit, n, pixels, lines, exact, work)
            if bad >= 0:
                break
            count_pairs(labels, unit, n, lines.n_classes, work)
        if bad >= 0:
            break
    empty_pairs(lines.n_classes, hits, predicted, support, confusion, work.joint)
    return bad


@kernel
def count_predictions(
    labels: Any, predictions: Any, folds: Any, n_classes: int, hits: Any, predicted: Any, support: Any
) -> None:
    """Add labelled units to per-class counts.

    Parameters
    ----------
    labels, predictions : (T,) int32
        Negative labels are not counted.
    folds : (T,) int32
        Which table a unit is counted in.
    n_classes : int
        K.
    hits, predicted, support : (F * K,) int64
        Added to in place: units with label = prediction = k, with prediction k, with label k.
    """
    for i in range(labels.size):
        label, prediction = at(labels, i), at(predictions, i)
        if label >= 0:
            table = at(folds, i) * n_classes
            add_at(support, table + label, 1)
            add_at(predicted, table + prediction, 1)
            add_at(hits, table + label, np.int64(label == prediction))


@kernel
def count_confusion(labels: Any, predictions: Any, n_classes: int, confusion: Any) -> None:
    """Add labelled units to the confusion matrix (K * K,) int64, rows = truth."""
    for i in range(labels.size):
        label = at(labels, i)
        if label >= 0:
            add_at(confusion, label * n_classes + at(predictions, i), 1)
