"""Predictions at one lambda, and the counts of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from unoic_cli.kernels.jit import inlined, kernel, stage
from unoic_cli.kernels.lines import Lines, Workspace
from unoic_cli.kernels.path import MARGIN, ends_of_rows
from unoic_cli.kernels.simd import LANES, add_at, at, planes_ends, put
from unoic_cli.kernels.tile import allowed, check_planes, check_rows, fill_planes, fill_rows, score64


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


@stage
def take_winners(
    n: int, raw: Any, brain: bool, source: int, unit_step: int, class_step: int, delta: Any, base: int, lines: Lines,
    starts: Any, out: Any,
) -> None:  # fmt: skip
    """The tile's certain winners to out[base:base+n]; float64 decides the others."""
    for i in range(n):
        c = at(starts, i)
        if c < 0:
            c = winner_of_unit(raw, brain, source + i * unit_step, class_step, delta, base + i, lines)
        put(out, base + i, c)


@kernel
def predict_rows(
    raw: Any, brain: bool, allow_zero: bool, delta: Any, lines: Lines, exact: bool, out: Any, work: Workspace
) -> int:
    """Predictions of a `rows` block at the only lambda of `lines`.

    Parameters
    ----------
    raw, brain, allow_zero, delta, exact, work
        As in `unoic_cli.kernels.path.count_path_rows`.
    lines : Lines
        Made with one lattice point; its two ends may be the same.
    out : (T,) int32
        float64 argmax of delta * z + lambda * s, lowest index on ties.

    Returns
    -------
    int
        -1, or the first unit whose scores are not valid.
    """
    n_classes, tile = lines.n_classes, work.tile
    per_tile = tile.size // (lines.n_vectors * LANES)
    exact_start = exact and lines.lams[0] == 0.0
    for first in range(0, out.size, per_tile):
        n = min(per_tile, out.size - first)
        fill_rows(raw, brain, first, n, n_classes, delta, tile)
        largest, bad = check_rows(tile, n, lines, allow_zero)
        if bad >= 0:
            return first + bad
        margin = 0.0 if exact_start else MARGIN * (largest + lines.reach)
        ends_of_rows(tile, n, -1, margin, margin, lines, work.starts, work.ends)
        take_winners(n, raw, brain, first * n_classes, n_classes, 1, delta, first, lines, work.starts, out)
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
    n_images: int,
) -> int:
    """Predictions of a `planes` block (B, K, P), B = n_images, at the only lambda of `lines`; as `predict_rows`."""
    n_classes, tile = lines.n_classes, work.tile
    pixels = out.size // n_images
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
            margin = np.float32(0.0 if exact_start else MARGIN * (largest + lines.reach))
            for i in range(0, n, LANES):
                planes_ends(
                    tile, i, n_classes, stride, lines.bias0, lines.bias1, margin, margin, work.starts, work.ends
                )
            source = image * n_classes * pixels + first
            take_winners(n, raw, brain, source, 1, pixels, delta, base, lines, work.starts, out)
    return -1


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
