"""Sixteen units at a time, class-major, as plain numpy: what each vector operation of the fusion kernels means.

A *group* is sixteen units: K vectors of sixteen lanes, class after class. These run where kernels are not compiled,
then with any number of lanes in the operations that write posteriors, which have the bits of the compiled ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from unoic_cli.kernels.constants import LANES

LOWEST_EXP32 = -87.0
"""Below, float32 exponentials are zero: no denormal numbers, which are slow and coarse."""
LOWEST_EXP64 = -708.0
"""The same for float64."""

MAGIC32, MAGIC64 = 1.5 * 2.0**23, 1.5 * 2.0**52
LN2_HIGH, LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6
LOG2_E = 1.4426950408889634
EXP = tuple(1.0 / math.factorial(power) for power in range(12))
LOG = tuple(2.0 / odd for odd in range(1, 20, 2))


def bits_of(condition: Any) -> int:
    """The lanes where a condition holds, as bits."""
    return int(sum(1 << i for i, on in enumerate(condition.tolist()) if on))


def first_lane(mask: int) -> int:
    """Index of the lowest bit that is set; 64 when none is."""
    return (int(mask) & -int(mask)).bit_length() - 1 if mask else 64


def _group(array: Any, o: int, n_classes: int, lanes: int = LANES) -> Any:
    return array[o : o + n_classes * lanes].reshape(n_classes, lanes)


# ---------------------------------------------------------------- one rounding


def _halves(a: Any) -> tuple[Any, Any]:
    """A number as the sum of two of 26 bits."""
    moved = a * 134217729.0  # 2**27 + 1
    high = moved - (moved - a)
    return high, a - high


def fused(a: Any, b: Any, c: Any) -> Any:
    """A * b + c with one rounding, as the processor's instruction: what the two operations lose is added."""
    with np.errstate(invalid="ignore", over="ignore"):
        product = a * b
        (a1, a2), (b1, b2) = _halves(a), _halves(b)
        lost = ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2
        total = product + c
        part = total - product
        better = total + (((product - (total - part)) + (c - part)) + lost)
        return np.where(np.isfinite(better), better, total)


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    value = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = fused(value, x, coefficient)
    return value


def exp64(x: Any) -> Any:
    """exp(x) for x <= 0: x = n ln 2 + r, a Taylor polynomial of r (relative error 1e-13), 2**n by its bits."""
    kept = np.where(x > LOWEST_EXP64, x, LOWEST_EXP64)
    shifted = kept * LOG2_E + MAGIC64
    n = shifted - MAGIC64
    r = fused(n, -LN2_LOW, kept - n * LN2_HIGH)  # that product is exact
    bits = _horner(EXP, r).view(np.int64) + (shifted.view(np.int64) << 52)
    return np.where(x >= LOWEST_EXP64, bits.view(np.float64), 0.0)


def log64(x: Any) -> Any:
    """log(x) of normal float64 x > 0: exponent and mantissa, and the series of 2 atanh (relative error 1e-15)."""
    bits = np.asarray(x, dtype=np.float64).view(np.int64)
    m = ((bits & ((1 << 52) - 1)) | (1023 << 52)).view(np.float64)
    large = m > math.sqrt(2)
    m, e = np.where(large, m * 0.5, m), (bits >> 52) - 1023 + large
    s = (m - 1.0) / (m + 1.0)
    return fused(e.astype(np.float64), math.log(2), _horner(LOG, s * s) * s)


# ---------------------------------------------------------------- decisions in float32


def _exp32(x: Any) -> Any:
    lowest = np.float32(LOWEST_EXP32)
    return np.where(x >= lowest, np.exp(np.maximum(x, lowest)), np.float32(0))


def soften(scores: Any, o: int, n_classes: int, out: Any, p: int) -> None:
    """Exp(scores - their maximum) of a float64 group, as float32."""
    values = _group(scores, o, n_classes)
    _group(out, p, n_classes)[:] = _exp32((values - values.max(0)).astype(np.float32))


def tilt(e: Any, o: int, n_classes: int, table: Any, t: int, out: Any, p: int, sums: Any, q: int) -> int:
    """Times the K factors table[t:], into out.

    The sixteen largest, and the sixteen sums of all others, accurate however small, go to sums[q:]. Returns the lanes
    without a sizeable entry.
    """
    values = _group(e, o, n_classes) * table[t : t + n_classes, None]
    _group(out, p, n_classes)[:] = values
    top, rest = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    for value in values:
        rest += np.minimum(value, top)
        top = np.maximum(value, top)
    sums[q : q + LANES], sums[q + LANES : q + 2 * LANES] = top, rest
    return bits_of(top < np.float32(1e-20))


def miss(p: Any, o: int, n_classes: int, sums: Any, s: int, q: Any, u: int, first: bool, least: bool) -> None:
    """Z (1 - P) of one expert, multiplied into q (or stored there, `first`).

    1 - P of its largest class is the sum of the others. With `least`, q becomes the smaller of q and 1 - P.
    """
    values, out = _group(p, o, n_classes), _group(q, u, n_classes)
    top, rest = sums[s : s + LANES], sums[s + LANES : s + 2 * LANES]
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.where(values == top, rest, top + rest - values) * (1 / (top + rest) if least else np.float32(1))
    out[:] = missed if first else (np.minimum(missed, out) if least else missed * out)


def share(p: Any, o: int, n_classes: int, sums: Any, s: int, weight: Any, q: Any, u: int, first: bool) -> None:
    """Subtract weight * P of one expert from q (0 at the first)."""
    out = _group(q, u, n_classes)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.float32(weight) / (sums[s : s + LANES] + sums[s + LANES : s + 2 * LANES])
        out[:] = (0 if first else out) - _group(p, o, n_classes) * scale


def least(q: Any, u: int, n_classes: int, margin: Any, tiny: Any, winners: Any, w: int) -> int:
    """The class of the smallest q, into winners[w:w+16] (int32).

    Returns the lanes where the second is not ahead by `margin` times the larger magnitude, and `tiny`.
    """
    values = _group(q, u, n_classes)
    winners[w : w + LANES] = values.argmin(0)
    ordered = np.sort(values, axis=0)
    with np.errstate(invalid="ignore"):
        needed = np.maximum(np.abs(ordered[0]), np.abs(ordered[1])) * np.float32(margin) + np.float32(tiny)
        return bits_of(~(ordered[1] - ordered[0] > needed))


def pair(p: Any, o: int, q: int, n_classes: int, sums: Any, margin: Any, tiny: Any, winners: Any, w: int) -> int:
    """Noisy-or of two in one go: `miss` of both, and `least` of the product.

    They are at p[o:] and p[q:], their sums one after the other.
    """
    joint = np.ones((n_classes, LANES), np.float32)
    for m, place in enumerate((o, q)):
        values = _group(p, place, n_classes)
        top, rest = sums[2 * m * LANES : (2 * m + 2) * LANES].reshape(2, LANES)
        joint *= np.where(values == top, rest, top + rest - values)
    return least(joint.reshape(-1), 0, n_classes, margin, tiny, winners, w)


def ends(scores: Any, o: int, n_classes: int, bias: Any, b: int, factors: Any, f: int, tops: Any, t: int) -> int:
    """An expert's largest class at both ends of a lattice, into tops[t:t+16] (int32).

    Its biases there are bias[b:] and bias[b + n_classes:]. Returns the lanes where it is not the same, or not by far.
    """
    values, winners, doubt = _group(scores, o, n_classes), [], np.zeros(LANES, bool)
    for end in range(2):
        slopes = bias[b + end * n_classes : b + (end + 1) * n_classes, None]
        tilted = values + slopes * factors[f : f + LANES]
        winners.append(tilted.argmax(0))
        ordered = np.sort(tilted, axis=0)
        with np.errstate(invalid="ignore"):
            doubt |= ~(ordered[-1] - ordered[-2] > 1e-9 * (np.abs(ordered[-1]) + 1))
    tops[t : t + LANES] = winners[0]
    return bits_of(doubt | (winners[0] != winners[1]))


def differ(a: Any, o: int, b: Any, p: int) -> int:
    """The lanes where the int32 vectors a[o:o+16] and b[p:p+16] differ."""
    return bits_of(a[o : o + LANES] != b[p : p + LANES])


# ---------------------------------------------------------------- between rows and groups


def to_group(tile: Any, o: int, width: int, n_classes: int, factors: Any, f: int, out: Any, p: int) -> None:
    """Sixteen float32 rows, `width` apart, class-major to out[p:] as float64, times the units' factors.

    Of the first sixteen scores (or n_classes, if less).
    """
    kept = min(n_classes, LANES)
    rows = np.stack([tile[o + i * width : o + i * width + LANES] for i in range(LANES)]).astype(np.float64)
    _group(out, p, kept)[:] = rows.T[:kept] * factors[f : f + LANES]


def lift(tile: Any, o: int, factors: Any, f: int, out: Any, p: int) -> None:
    """Sixteen float32 scores as float64, times the units' factors."""
    out[p : p + LANES] = tile[o : o + LANES].astype(np.float64) * factors[f : f + LANES]


def to_rows(group: Any, o: int, n_classes: int, out: Any, p: int, width: int) -> None:
    """The first sixteen classes of a float64 group to sixteen float32 rows, `width` apart and written in order.

    Of less than sixteen classes, zeros follow.
    """
    kept = min(n_classes, LANES)
    columns = np.zeros((LANES, LANES), np.float32)
    with np.errstate(under="ignore"):
        columns[:kept] = _group(group, o, kept)
    for i in range(LANES):
        out[p + i * width : p + i * width + LANES] = columns[:, i]


# ---------------------------------------------------------------- the posterior of a group, in float64


def soften64(
    scores: Any, o: int, n_classes: int, bias: Any, b: int, factors: Any, f: int, out: Any, p: int, sums: Any, s: int
) -> None:
    """exp(scores + factor * bias - maximum) of a float64 group, into out.

    The sums of all but the largest (which is 1) go to sums[s:], and the maxima after them.
    """
    lanes = sums.size // 2
    values = fused(bias[b : b + n_classes, None], factors[f : f + lanes], _group(scores, o, n_classes, lanes))
    best = values.max(axis=0)
    found = _group(out, p, n_classes, lanes)
    found[:] = exp64(values - best)
    largest = np.maximum.accumulate(found, axis=0)
    smaller = np.minimum(found[1:], largest[:-1])
    sums[s : s + lanes], sums[s + lanes : s + 2 * lanes] = np.cumsum(np.vstack([0.0 * best, smaller]), axis=0)[-1], best


def _adding(join: Callable[..., Any]) -> Callable[..., None]:
    def joined(e: Any, o: int, n_classes: int, sums: Any, s: int, weight: float, first: bool, out: Any, p: int) -> None:
        lanes = sums.size // 2
        rest, value, joint = sums[s : s + lanes], _group(e, o, n_classes, lanes), _group(out, p, n_classes, lanes)
        total = 1.0 + rest
        missed = np.where(value == 1.0, rest, total - value) * (1.0 / total)
        joint[:] = join(np.zeros_like(joint) if first else joint.copy(), value * (1.0 / total), missed, weight)

    return joined


add_posterior = _adding(lambda old, share, missed, weight: old + weight * share)
"""add_posterior(e, o, n_classes, sums, s, weight, first, out, p): join one expert's posterior, e and sums as `soften64`
leaves them, to what is fused so far, u, in sums of positive terms only: u + weight P (0 + weight P at the `first`)."""
unite_posterior = _adding(lambda old, share, missed, weight: old * missed + share)
"""unite_posterior: the same, u (1 - P) + P."""
larger_posterior = _adding(lambda old, share, missed, weight: np.maximum(share, old))
"""larger_posterior: the same, the larger of u and P."""


def finish(u: Any, o: int, n_classes: int, in_logs: bool, sums: Any, s: int) -> int:
    """Normalise a float64 group; with `in_logs` to logarithms, and the log of each unit's sum into sums[s:].

    Returns the lanes with an entry below 1e-280, whose logarithm is not to be trusted.
    """
    lanes = sums.size // 2
    values = _group(u, o, n_classes, lanes)
    total, faint = np.cumsum(values, axis=0)[-1], bits_of(values.min(0) < 1e-280)
    if in_logs:
        sums[s : s + lanes] = log64(total)
        values[:] = log64(values) - sums[s : s + lanes]
    else:
        values *= 1.0 / total
    return faint


def shift(u: Any, o: int, n_classes: int, scores: Any, p: int, sums: Any, s: int) -> None:
    """Log-probabilities of one softmax, scores - maximum - log(1 + rest), with the sums of `soften64`."""
    lanes = sums.size // 2
    best, below = sums[s + lanes : s + 2 * lanes], log64(1.0 + sums[s : s + lanes])
    _group(u, o, n_classes, lanes)[:] = _group(scores, p, n_classes, lanes) - best - below


def first_largest(u: Any, o: int, n_classes: int, narrow: bool, winners: Any, w: int) -> int:
    """The lanes whose first largest value, rounded to float32 where `narrow`, is not that in winners[w:w+16]."""
    values = _group(u, o, n_classes)
    with np.errstate(under="ignore"):
        values = values.astype(np.float32) if narrow else values
    return bits_of(values.argmax(0) != winners[w : w + LANES])
