"""Negative log-likelihood, its slope and its curvature at several temperatures; confidence in bins. In fixed point.

With the gaps d_k = max(delta * z) - delta * z_k >= 0 of a unit of class y and beta = 1 / T,

    S = sum_k exp(-beta d_k),   NLL = beta d_y + log S,   dNLL / dbeta = d_y - E_p[d],   d2NLL / dbeta2 = Var_p[d]

so that only d_y can be large, and it is the same at every beta: log S and beta E_p[d] are at most log K.
"""

from __future__ import annotations

from math import ceil, exp, log
from typing import Any

import numpy as np

from unoic_cli.kernels.constants import FIXED_POINT, GAP_END, HALF, STEP
from unoic_cli.kernels.jit import inlined, kernel
from unoic_cli.kernels.posterior import unit_source
from unoic_cli.kernels.tile import bad_score, score64

_TIER_END, _TIER_FACTOR = 2.0**9, 2.0**STEP
_FAR, _NEGLIGIBLE = 80.0, 1e-35
_FLOAT32_END = 3.4028235677973366e38  # rounds to infinity in float32


@inlined
def find_gaps(
    raw: Any, brain: bool, allow_zero: bool, source: int, step: int, delta: Any, bias: Any, unit: int, label: int,
    n_classes: int, gaps: Any,
) -> Any:  # fmt: skip
    """Gaps of a unit's classes of positive probability, in the order of the classes, into `gaps`.

    `bias` (K,), or empty, is added to delta * z. Returns (how many, winner, gap of the label); no winner (-1) when the
    unit is not valid, and an infinite gap of a label of probability zero.
    """
    top, winner = -np.inf, -1
    for k in range(n_classes):
        z = score64(raw, brain, source + k * step, delta, unit)
        if z <= -_FLOAT32_END and allow_zero:
            z = -np.inf
        if bad_score(z, allow_zero) or z >= _FLOAT32_END or -_FLOAT32_END >= z > -np.inf:
            return 0, -1, 0.0
        if bias.size:
            z += bias[k]
        gaps[k] = z
        if z > top:
            top, winner = z, k
    own = top - gaps[label] if winner >= 0 and label >= 0 else 0.0
    n = 0
    for k in range(n_classes):
        z = gaps[k]
        if z > -np.inf:
            gaps[n] = top - z
            n += 1
    return n, winner, own


@inlined
def tier_of(gap: float) -> Any:
    """The tier of a gap, and the gap in its units."""
    tier, end, scale = 0, _TIER_END, FIXED_POINT
    while gap >= end:
        tier, end, scale = tier + 1, end * _TIER_FACTOR, scale / _TIER_FACTOR
    return tier, np.int64(gap * scale + 0.5)


@inlined
def add_gap(gap: float, tiers: Any) -> None:
    """Add a gap to the sums of its tier."""
    tier, value = tier_of(gap)
    tiers[tier] += value


@inlined
def add_halves(value: int, sums: Any, place: int) -> None:
    """Add an integer >= 0 to the sum at a place, which is kept in two parts."""
    sums[2 * place] += value & ((1 << HALF) - 1)
    sums[2 * place + 1] += value >> HALF


@inlined
def fixed(value: float) -> Any:
    """A number >= 0 in units of 2**-40."""
    return np.int64(value * FIXED_POINT + 0.5)


@inlined
def weigh(gaps: Any, n: int, beta: float, n_octaves: int, parts: Any) -> None:
    """Sums of w, x w and x**2 w into parts[3 j] and on: x = beta d, and w = exp(-x) to the power 2**j."""
    total, first, second = 0.0, 0.0, 0.0
    parts[: 3 * n_octaves] = 0.0
    for k in range(n):
        x = beta * gaps[k]
        if x < _FAR:
            weight = exp(-x)
            total += weight
            first += x * weight
            second += x * x * weight
            for j in range(1, n_octaves):
                weight *= weight
                if weight < _NEGLIGIBLE:
                    break
                parts[3 * j] += weight
                parts[3 * j + 1] += x * weight
                parts[3 * j + 2] += x * x * weight
    parts[0], parts[1], parts[2] = total, first, second


@inlined
def bin_of(confidence: float, n_bins: int) -> int:
    """Which bin (i / M, (i + 1) / M] holds a confidence."""
    return int(min(max(ceil(confidence * n_bins) - 1, 0), n_bins - 1))


@kernel
def sum_likelihood(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, delta: Any, labels: Any, first: int, stop: int,
    n_classes: int, betas: Any, n_octaves: int, gaps: Any, parts: Any, tiers: Any, sums: Any,
) -> int:  # fmt: skip
    """Likelihood of units first..stop at betas, 2 betas, 4 betas ...: each power of two costs a multiplication.

    Parameters
    ----------
    raw, brain, allow_zero, pixels, delta
        As in `unoic_cli.kernels.posterior.sum_posterior`.
    labels : (T,) int32
        Units with a negative label are only checked.
    first, stop : int
        At most `PIECE` units.
    n_classes : int
        K.
    betas : (B,) float64
        Positive.
    n_octaves : int
        D: also at ``beta * 2**i`` for i < D.
    gaps, parts : (K,), (3 * D,) float64
        Scratch.
    tiers : (N_TIERS,) int64
        Sums of the labels' gaps, in the units of each tier; added to in place, as is
    sums : (B * D * 3,) int64
        log S, beta E_p[d] and beta**2 Var_p[d], in units of 2**-40.

    Returns
    -------
    int
        -1; or the first unit whose scores are not valid; or -2 - u when the label of unit u has probability zero.
    """
    for unit in range(first, stop):
        label = labels[unit]
        source, step = unit_source(unit, n_classes, pixels)
        n, winner, own = find_gaps(
            raw, brain, allow_zero, source, step, delta, delta[:0], unit, label, n_classes, gaps
        )  # fmt: skip
        if winner < 0:
            return unit
        if label < 0:
            continue
        if not own < np.inf:
            return -2 - unit
        add_gap(own, tiers)
        for i in range(betas.size):
            weigh(gaps, n, betas[i], n_octaves, parts)
            power = 1.0
            for j in range(n_octaves):
                total = parts[3 * j]
                mean = power * (parts[3 * j + 1] / total)
                square = power * power * (parts[3 * j + 2] / total)
                place = 3 * (i * n_octaves + j)
                sums[place] += fixed(log(total))
                sums[place + 1] += fixed(mean)
                sums[place + 2] += fixed(max(square - mean * mean, 0.0))
                power *= 2.0
    return -1


@kernel
def sum_confidence(
    raw: Any, brain: bool, allow_zero: bool, pixels: int, delta: Any, labels: Any, tables: Any, n_classes: int,
    bias: Any, betas: Any, n_bins: int, strict: bool, gaps: Any, support: Any, zeros: Any, away: Any, logs: Any,
    squares: Any, counts: Any, hits: Any, confidences: Any,
) -> int:  # fmt: skip
    """Likelihood, Brier score and top-1 confidence of softmax(beta * (delta * z + bias)) at some betas.

    Parameters
    ----------
    raw, brain, allow_zero, pixels, delta
        As in `unoic_cli.kernels.posterior.sum_posterior`.
    labels : (T,) int32
        Units with a negative label are only checked.
    tables : (T,) int32
        Which of F tables each unit is counted in.
    n_classes : int
        K.
    bias : (K,) or (0,) float64
        lambda * s, and -inf of masked classes; empty for none.
    betas : (B,) float64
        Positive.
    n_bins : int
        M: bin i holds confidences in (i / M, (i + 1) / M].
    strict : bool
        Whether a label of probability zero ends it.
    gaps : (K,) float64
        Scratch.
    support : (F * K,) or (0,) int64
        Units of each class, added to in place, as are all that follow; empty where they are counted already.
    zeros : (F * K,) int64
        Those whose own class has probability zero: they have no likelihood.
    away : (N_TIERS * F * K * 2,) int64
        Sums of the label's gap by class, in two parts and in the units of each tier.
    logs : (B * F * K * 2,) int64
        Sums of log S by class, in two parts, in units of 2**-40 (as all that follow).
    squares : (B * F * 2,) int64
        Sums of sum_k (p_k - [k = label])**2, in two parts.
    counts, hits : (B * F * M,) int64
        Units, and units whose class of the largest score is the label, by confidence.
    confidences : (B * F * M * 2,) int64
        Sums of the confidence, in two parts.

    Returns
    -------
    int
        -1; or the first unit whose scores are not valid; or, if `strict`, -2 - u when the label of unit u has
        probability zero.
    """
    cells = zeros.size
    n_tables = cells // n_classes
    for unit in range(labels.size):
        label = labels[unit]
        source, step = unit_source(unit, n_classes, pixels)
        n, winner, own = find_gaps(raw, brain, allow_zero, source, step, delta, bias, unit, label, n_classes, gaps)
        if winner < 0:
            return unit
        if label < 0:
            continue
        if strict and not own < np.inf:
            return -2 - unit
        table = np.int64(tables[unit])
        cell = table * n_classes + label
        if support.size:
            support[cell] += 1
        seen = own < GAP_END
        if seen:
            tier, value = tier_of(own)
            add_halves(value, away, tier * cells + cell)
        else:
            zeros[cell] += 1
        for i in range(betas.size):
            total, square = 0.0, 0.0
            for k in range(n):
                x = betas[i] * gaps[k]
                if x < _FAR:
                    weight = exp(-x)
                    total += weight
                    square += weight * weight
            confidence = 1.0 / total
            x = betas[i] * own
            truth = exp(-x) / total if x < _FAR else 0.0
            place = (i * n_tables + table) * n_bins + bin_of(confidence, n_bins)
            if seen:
                add_halves(fixed(log(total)), logs, i * cells + cell)
            add_halves(fixed(max(square / total / total - 2.0 * truth + 1.0, 0.0)), squares, i * n_tables + table)
            counts[place] += 1
            hits[place] += np.int64(winner == label)
            add_halves(fixed(confidence), confidences, place)
    return -1
