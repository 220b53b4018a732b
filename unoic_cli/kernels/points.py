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
    all_allowed,
    allowed,
    check_planes,
    fill_columns,
    fill_planes,
    mask_columns,
    score64,
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
def decide(
    n: int, raw: Any, brain: bool, source: int, unit_step: int, class_step: int, delta: Any, base: int, lines: Lines,
    starts: Any,
) -> None:  # fmt: skip
    """Replace the tile's uncertain winners by those of float64."""
    for i in range(n):
        if at(starts, i) < 0:
            put(starts, i, winner_of_unit(raw, brain, source + i * unit_step, class_step, delta, base + i, lines))


@inlined
def winners_of_columns(
    n: int, stride: int, raw: Any, ahead: int, step: int, margin: float, lines: Lines, exact: bool, work: Workspace
) -> None:
    """Winners of a class-major tile to ``work.starts``; ~c where they are uncertain."""
    mask_columns(work.tile, n, stride, lines)
    for i in range(0, n, LANES):
        fetch_ahead(raw, ahead, step, i, LANES, lines.n_classes)
        point_columns(work.tile, i, lines.n_classes, stride, lines.bias0, exact, np.float32(margin), work.starts)


@stage
def fill_words(raw: Any, first: int, n: int, n_classes: int, words: Any, stride: int) -> None:
    """16-bit scores of units first..first+n of a `rows` block to a class-major (K, stride) tile, as they are."""
    n_vectors = (n_classes + LANES - 1) // LANES
    for i in range(0, n, LANES):
        source = (first + i) * n_classes
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
def first_of_words(raw: Any, brain: bool, ahead: int, step: int, n: int, n_classes: int, work: Workspace) -> bool:
    """Winners of the tile of words; False where one of the scores is not finite."""
    infinity = BFLOAT16_INFINITY if brain else FLOAT16_INFINITY
    for i in range(0, n, WORDS):
        fetch_ahead(raw, ahead, step, i, WORDS, n_classes)
        if first_words(work.words, i, n_classes, word_stride(n), infinity, work.starts):
            return False
    return True


@inlined
def word_stride(n: int) -> int:
    """Units of a tile of words, padding included."""
    return (n + WORDS - 1) // WORDS * WORDS


@stage
def first_of_rows(raw: Any, brain: bool, first: int, n: int, n_classes: int, work: Workspace) -> bool:
    """Winners of n units of a `rows` block of 16-bit scores, as they are; False where one of them is not finite."""
    fill_words(raw, first, n, n_classes, work.words, word_stride(n))
    return bool(first_of_words(raw, brain, (first + n) * n_classes, 0, n, n_classes, work))


@stage
def first_of_planes(raw: Any, brain: bool, source: int, n: int, pixels: int, n_classes: int, work: Workspace) -> bool:
    """The same of n pixels of an image, the first at raw[source]."""
    fill_word_planes(raw, source, n, n_classes, pixels, work.words, word_stride(n))
    return bool(first_of_words(raw, brain, source + n, pixels, n, n_classes, work))


@inlined
def winners_of_words(
    raw: Any, brain: bool, image: int, first: int, n: int, pixels: int, lines: Lines, exact: bool, work: Workspace
) -> bool:
    """As `words_win`, of 16-bit scores."""
    n_classes = lines.n_classes
    if not exact or not all_allowed(lines):
        return False
    if pixels:
        return bool(first_of_planes(raw, brain, image * n_classes * pixels + first, n, pixels, n_classes, work))
    return bool(first_of_rows(raw, brain, first, n, n_classes, work))


def words_win(
    raw: Any, brain: bool, image: int, first: int, n: int, pixels: int, lines: Lines, exact: bool, work: Workspace
) -> bool:
    """Whether winners follow from 16-bit scores as they are, without lambda, delta or masks; they are found then."""
    return raw.dtype == np.uint16 and winners_of_words(raw, brain, image, first, n, pixels, lines, exact, work)


@overload(words_win, strict=False, jit_options=NO_COUNTING)
def _overload_words_win(
    raw: Any, brain: Any, image: Any, first: Any, n: Any, pixels: Any, lines: Any, exact: Any, work: Any
) -> Callable[..., Any]:
    if raw.dtype != types.uint16:
        return lambda raw, brain, image, first, n, pixels, lines, exact, work: False
    return lambda raw, brain, image, first, n, pixels, lines, exact, work: winners_of_words(
        raw, brain, image, first, n, pixels, lines, exact, work
    )


@inlined
def winners_of_rows(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, image: int, first: int, n: int, pixels: int, lines: Lines,
    exact: bool, work: Workspace,
) -> int:  # fmt: skip
    """Winners of n units of a `rows` block, from `first` on, to ``work.starts``; -1, or the first that is not valid."""
    n_classes, tile = lines.n_classes, work.tile
    exact_start = exact and lines.lams[0] == 0.0
    if words_win(raw, brain, image, first, n, 0, lines, exact_start, work):
        return -1
    stride = (n + LANES - 1) // LANES * LANES
    fill_columns(raw, brain, first, n, n_classes, delta, tile, stride)
    largest, bad = check_planes(tile, n, stride, lines, allow_zero)
    if bad >= 0:
        return first + bad
    margin, after = MARGIN * (largest + lines.reach), (first + n) * n_classes
    winners_of_columns(n, stride, raw, after, 0, margin, lines, exact_start, work)
    if not exact_start:
        decide(n, raw, brain, first * n_classes, n_classes, 1, delta, first, lines, work.starts)
    return -1


@inlined
def winners_of_wide(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, image: int, first: int, n: int, pixels: int, lines: Lines,
    exact: bool, work: Workspace,
) -> int:  # fmt: skip
    """The same of a `rows` block of more than `COLUMN_CLASSES` classes."""
    largest, bad = read_rows(raw, brain, allow_zero, first, n, delta, lines, work)
    if bad >= 0:
        return bad
    exact_start = exact and lines.lams[0] == 0.0
    margin = 0.0 if exact_start else MARGIN * (largest + lines.reach)
    ends_of_rows(n, exact_start, margin, margin, lines, work)
    decide(n, raw, brain, first * lines.n_classes, lines.n_classes, 1, delta, first, lines, work.starts)
    return -1


@inlined
def winners_of_planes(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, image: int, first: int, n: int, pixels: int, lines: Lines,
    exact: bool, work: Workspace,
) -> int:  # fmt: skip
    """The same of one image of a `planes` block."""
    n_classes, tile = lines.n_classes, work.tile
    exact_start = exact and lines.lams[0] == 0.0
    if words_win(raw, brain, image, first, n, pixels, lines, exact_start, work):
        return -1
    stride = (n + LANES - 1) // LANES * LANES
    base = image * pixels + first
    fill_planes(raw, brain, image, first, n, n_classes, pixels, delta, tile, stride)
    largest, bad = check_planes(tile, n, stride, lines, allow_zero)
    if bad >= 0:
        return base + bad
    margin, after = MARGIN * (largest + lines.reach), image * n_classes * pixels + first + n
    winners_of_columns(n, stride, raw, after, pixels, margin, lines, exact_start, work)
    if not exact_start:
        decide(n, raw, brain, image * n_classes * pixels + first, 1, pixels, delta, base, lines, work.starts)
    return -1


@inlined
def columns_per_tile(n_classes: int, work: Workspace) -> int:
    """How many units a class-major tile takes."""
    return max(work.tile.size // n_classes // LANES, 1) * LANES


@kernel
def predict_rows(
    raw: Any,
    brain: bool,
    allow_zero: bool,
    delta: Any,
    lines: Lines,
    exact: bool,
    out: Any,
    work: Workspace,
    pixels: int,
) -> int:
    """Predictions of a `rows` block of at most `COLUMN_CLASSES` classes at the only lambda of `lines`.

    Parameters
    ----------
    raw, brain, allow_zero, delta, exact, work
        As in `unoic_cli.kernels.path.count_path_rows`.
    lines : Lines
        Made with one lattice point; its two ends may be the same.
    out : (T,) int32
        float64 argmax of delta * z + lambda * s, lowest index on ties.
    pixels : int
        P of a `planes` block (B, K, P); 0 for a `rows` block.

    Returns
    -------
    int
        -1, or the first unit whose scores are not valid.
    """
    run = out.size
    per_tile = columns_per_tile(lines.n_classes, work)
    for image in range(out.size // max(run, 1)):
        for first in range(0, run, per_tile):
            n = min(per_tile, run - first)
            bad = winners_of_rows(raw, brain, allow_zero, delta, image, first, n, pixels, lines, exact, work)
            if bad >= 0:
                return bad
            for i in range(n):
                put(out, image * run + first + i, at(work.starts, i))
    return -1


@kernel
def predict_wide(
    raw: Any,
    brain: bool,
    allow_zero: bool,
    delta: Any,
    lines: Lines,
    exact: bool,
    out: Any,
    work: Workspace,
    pixels: int,
) -> int:
    """The same of a `rows` block of more classes."""
    run = out.size
    per_tile = work.n_rows
    pad_rows(work.n_rows, lines.n_classes, work.tile)
    for image in range(out.size // max(run, 1)):
        for first in range(0, run, per_tile):
            n = min(per_tile, run - first)
            bad = winners_of_wide(raw, brain, allow_zero, delta, image, first, n, pixels, lines, exact, work)
            if bad >= 0:
                return bad
            for i in range(n):
                put(out, image * run + first + i, at(work.starts, i))
    return -1


@kernel
def predict_planes(
    raw: Any,
    brain: bool,
    allow_zero: bool,
    delta: Any,
    lines: Lines,
    exact: bool,
    out: Any,
    work: Workspace,
    pixels: int,
) -> int:
    """The same of a `planes` block."""
    run = pixels
    per_tile = columns_per_tile(lines.n_classes, work)
    for image in range(out.size // max(run, 1)):
        for first in range(0, run, per_tile):
            n = min(per_tile, run - first)
            bad = winners_of_planes(raw, brain, allow_zero, delta, image, first, n, pixels, lines, exact, work)
            if bad >= 0:
                return bad
            for i in range(n):
                put(out, image * run + first + i, at(work.starts, i))
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
def count_point_rows(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, lines: Lines, exact: bool, labels: Any, hits: Any,
    predicted: Any, support: Any, confusion: Any, work: Workspace, pixels: int,
) -> int:  # fmt: skip
    """Count a `rows` block of at most `JOINT_CLASSES` classes in one table, without writing predictions.

    Parameters
    ----------
    raw, brain, allow_zero, delta, lines, exact, work, pixels
        As in `predict_rows`.
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
    run = labels.size
    per_tile = columns_per_tile(lines.n_classes, work)
    bad = -1
    for image in range(labels.size // max(run, 1)):
        for first in range(0, run, per_tile):
            n = min(per_tile, run - first)
            bad = winners_of_rows(raw, brain, allow_zero, delta, image, first, n, pixels, lines, exact, work)
            if bad >= 0:
                break
            count_pairs(labels, image * run + first, n, lines.n_classes, work)
        if bad >= 0:
            break
    empty_pairs(lines.n_classes, hits, predicted, support, confusion, work.joint)
    return bad


@kernel
def count_point_planes(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, lines: Lines, exact: bool, labels: Any, hits: Any,
    predicted: Any, support: Any, confusion: Any, work: Workspace, pixels: int,
) -> int:  # fmt: skip
    """The same of a `planes` block of at most `JOINT_CLASSES` classes."""
    run = pixels
    per_tile = columns_per_tile(lines.n_classes, work)
    bad = -1
    for image in range(labels.size // max(run, 1)):
        for first in range(0, run, per_tile):
            n = min(per_tile, run - first)
            bad = winners_of_planes(raw, brain, allow_zero, delta, image, first, n, pixels, lines, exact, work)
            if bad >= 0:
                break
            count_pairs(labels, image * run + first, n, lines.n_classes, work)
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
