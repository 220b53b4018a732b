"""The calibrated posterior (Eq. 7), averaged for the mean-posterior prior."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np

from unoic_cli.kernels.constants import FIXED_POINT
from unoic_cli.kernels.jit import inlined, kernel
from unoic_cli.kernels.lines import Lines, Workspace
from unoic_cli.kernels.tile import allowed, bad_score, score64, stored, unit_source


@inlined
def shifted_scores(
    raw: Any, brain: bool, source: int, step: int, delta: Any, unit: int, lines: Lines, scores: Any
) -> Any:
    """Delta * z + lambda * s minus its maximum into `scores` (-inf for masked classes).

    Returns (winner, sum of exponentials); winner -1 when no class has a positive probability.
    """
    winner, top = -1, -np.inf
    for k in range(lines.n_classes):
        scores[k] = -np.inf
        if allowed(lines, k):
            scores[k] = score64(raw, brain, source + k * step, delta, unit) + lines.lams[0] * lines.slope[k]
            if scores[k] > top:
                winner, top = k, scores[k]
    total = 0.0
    for k in range(lines.n_classes):
        scores[k] -= top
        total += exp(scores[k])
    return winner, total


@kernel
def sum_posterior(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, delta: Any, n_units: int, lines: Lines, sums: Any,
    work: Workspace,
) -> int:  # fmt: skip
    """Add each class's probability, in units of 2**-40, to sums (K,) int64; fewer than 2**22 units a call.

    Returns -1, or the first unit whose scores are not valid.
    """
    for unit in range(n_units):
        source, step = unit_source(unit, lines.n_classes, pixels)
        winner, total = shifted_scores(raw, brain, source, step, delta, unit, lines, work.scores)
        if winner < 0 or not total < np.inf:
            return unit
        for k in range(lines.n_classes):
            if work.scores[k] == -np.inf and bad_score(stored(raw, brain, source + k * step), allow_zero):
                return unit
        for k in range(lines.n_classes):
            sums[k] += np.int64(exp(work.scores[k]) / total * FIXED_POINT + 0.5)
    return -1
