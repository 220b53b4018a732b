"""Top-k accuracy along the lambda path, by counting the classes above the label's line."""

from __future__ import annotations

from typing import Any

import numpy as np

from unoic_cli.kernels.constants import TINY
from unoic_cli.kernels.jit import inlined, kernel
from unoic_cli.kernels.lines import Lines, Workspace
from unoic_cli.kernels.path import position
from unoic_cli.kernels.tile import allowed, score64, unit_source


@inlined
def is_above(z: float, s: float, z_label: float, s_label: float, lam: float, first: bool) -> int:
    """1 when a class ranks before the label at lambda: a larger score, or an equal one and a lower index."""
    score, own = z + lam * s, z_label + lam * s_label
    return int(score > own or (score == own and first))


@kernel
def count_top_k(
    raw: Any, brain: bool, pixels: int, delta: Any, labels: Any, folds: Any, lines: Lines, top: int, moves: Any,
    hits: Any, work: Workspace,
) -> None:  # fmt: skip
    """Add a block to the top-k hits at every lattice lambda.

    Parameters
    ----------
    raw, brain, delta, labels, folds, lines, work
        As in `unoic_cli.kernels.path.count_path_columns`; the scores were checked there.
    pixels : int
        P of a `planes` block (B, K, P); 0 for a `rows` block.
    top : int
        k: a unit is a hit where fewer than k classes rank before its label.
    moves : (G,) int64
        Scratch, all zeros; left so.
    hits : (F * G,) int64
        Changes of the number of hits from lattice point g on, added to in place (their running sum is the count).

    Notes
    -----
    Each class crosses the label's line at most once; only the crossings inside the lattice cost more than
    two float64 comparisons. Close to a crossing, float64's own comparison decides, lattice point by lattice point.
    """
    n_classes = lines.n_classes
    size = lines.lams.size
    first_lam, last_lam = lines.lams[0], lines.lams[size - 1]
    for unit in range(labels.size):
        label = labels[unit]
        if label < 0:
            continue
        source, step = unit_source(unit, n_classes, pixels)
        row = folds[unit] * size
        if not allowed(lines, label):
            continue
        z_label, s_label = score64(raw, brain, source + label * step, delta, unit), lines.slope[label]
        rank, low, high = 0, size, 0
        for k in range(n_classes):
            if k == label or not allowed(lines, k):
                continue
            z, s, before = score64(raw, brain, source + k * step, delta, unit), lines.slope[k], k < label
            above = is_above(z, s, z_label, s_label, first_lam, before)
            after = is_above(z, s, z_label, s_label, last_lam, before)
            rank += above
            if z == -np.inf or z_label == -np.inf or (z == z_label and s == s_label):
                continue
            tiny = TINY * (abs(z) + abs(z_label) + lines.reach)
            clear = abs(z - z_label + first_lam * (s - s_label)) > tiny
            if above == after and clear and abs(z - z_label + last_lam * (s - s_label)) > tiny:
                continue
            begin, end = np.int64(1), np.int64(size)
            if s != s_label:  # any change lies at the crossing, give or take float64's resolution and a lattice point
                place = position((z_label - z) / (s - s_label), lines)
                around = 2.0 + tiny / abs(s - s_label) * lines.inverse_step
                begin = np.int64(min(max(place - around, 1.0), np.float64(size)))
                end = np.int64(min(max(place + around + 1.0, 1.0), np.float64(size)))
            for g in range(begin, end):
                now = is_above(z, s, z_label, s_label, lines.lams[g], before)
                if now != above:
                    moves[g] += now - above
                    low, high = min(low, g), max(high, g)
                    above = now
        hit = rank < top
        hits[row] += np.int64(hit)
        for g in range(low, high + 1):
            rank += moves[g]
            moves[g] = 0
            if (rank < top) != hit:
                hits[row + g] += -1 if hit else 1
                hit = rank < top
