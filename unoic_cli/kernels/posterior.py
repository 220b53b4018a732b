"""The calibrated posterior itself (Eq. 7): written out by `calibrate`, averaged for the mean-posterior prior."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np

from unoic_cli.kernels.jit import inlined, kernel
from unoic_cli.kernels.lines import Lines, Workspace
from unoic_cli.kernels.tile import allowed, bad_score, score64, stored

FIXED_POINT = 2.0**40
"""Scale of summed probabilities: integers, so that any order of summation gives the same bits."""


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


@inlined
def unit_source(unit: int, n_classes: int, pixels: int) -> Any:
    """Where a unit's scores begin in a block, and how far apart they lie (`pixels` = 0: a `rows` block)."""
    if pixels:
        return (unit // pixels) * n_classes * pixels + unit % pixels, pixels
    return unit * n_classes, 1


@kernel
def write_posterior(
    raw: Any, brain: bool, pixels: int, delta: Any, lines: Lines, logs: bool, lowest: Any,
    out: Any, predictions: Any, work: Workspace,
) -> None:  # fmt: skip
    """The posterior at the only lambda of `lines`, in the layout of the block, and its argmax.

    Parameters
    ----------
    raw, brain, delta, lines, work
        As in `unoic_cli.kernels.points.predict_rows`; the scores were checked there.
    pixels : int
        P of a `planes` block (B, K, P); 0 for a `rows` block.
    logs : bool
        Log-probabilities (nats) instead of probabilities.
    lowest : float
        -inf in the dtype of `out`.
    out : (T * K,) float32 or float64
        Written in place. Rounding may make classes equal to the winner; those of lower index are
        taken one step down, so that the first largest entry always is the float64 winner.
    predictions : (T,) int32
        float64 argmax, as `predict_rows` gives it.
    """
    n_classes, scores = lines.n_classes, work.scores
    for unit in range(predictions.size):
        source, step = unit_source(unit, n_classes, pixels)
        winner, total = shifted_scores(raw, brain, source, step, delta, unit, lines, scores)
        predictions[unit] = winner
        rest = log(total)
        for k in range(n_classes):
            out[source + k * step] = scores[k] - rest if logs else exp(scores[k]) / total
        best = out[source + winner * step]
        for k in range(winner):
            if out[source + k * step] >= best:
                out[source + k * step] = np.nextafter(best, lowest)


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
