"""What a fusion operator is to the kernels: a type whose methods they call, chosen when they are compiled.

`Operator` has what most share. A type of its own, made of these, says how one expert after the other is joined: three
times, in float32 for what is clear (`narrow`), in float64 for what is not (`weigh`), and to be written (`blend`).

`unoic_cli.kernels.joining` compiles all that stands here and in `unoic_cli.fusions`, with its own form of a name where
it has one. `unoic_cli.kernels.plain` calls it as it is, `weigh` and `blend` for many units at once: these and what they
call take whatever is of one unit in arrays, too.
"""

from __future__ import annotations

import math
from math import exp, log1p
from typing import Any, NamedTuple

import numpy as np

from unoic_cli.kernels.constants import LANES
from unoic_cli.kernels.groups import add_posterior, finish, first_lane, least, shift, soften64, tilt

TINY = 1e-25
"""Products of float32 below this are not trusted."""
TINY_SHARE = 1e-15
"""The same of posteriors: what float32 takes for nothing may be so much of what lambda leaves of the rest."""
FAINT = 1e-250
"""Products of float64 below this are taken as sums of logarithms instead."""


_logarithm = np.frompyfunc(lambda x: math.log(x) if x > 0.0 else -math.inf, 1, 1)
_log1p = np.frompyfunc(lambda x: log1p(x) if x > -1.0 else -math.inf, 1, 1)
_exponential = np.frompyfunc(exp, 1, 1)


class Group(NamedTuple):
    """Sixteen units of M experts.

    Attributes
    ----------
    scores : float64
        delta * z of class k and unit i of expert m, at ``o + m * step + 16 * k + i``.
    o, step : int
    factors : float64, or (0,)
        What the slopes of unit i of expert m are multiplied by, at ``f + m * f_step + i``; empty for 1.
    f, f_step : int
    slopes : (M * K,) float64
        s_k of each expert, its share of lambda included.
    n_experts, n_classes : int
        M and K.
    """

    scores: Any
    o: int
    step: int
    factors: Any
    f: int
    f_step: int
    slopes: Any
    n_experts: int
    n_classes: int


class Scratch(NamedTuple):
    """One thread's memory for a group of sixteen units."""

    e: Any
    p: Any
    sums: Any
    q: Any
    sums64: Any
    e64: Any
    u: Any
    bias: Any
    row: Any
    rows: Any
    times: Any
    ends: Any
    tops: Any
    queue: Any
    queue_factors: Any
    units: Any


def make_scratch(n_experts: int, n_classes: int) -> Scratch:
    """Scratch for M experts and K classes."""
    size = n_classes * LANES
    return Scratch(
        e=np.zeros(n_experts * size, np.float32),
        p=np.zeros(2 * size, np.float32),
        sums=np.zeros(4 * LANES, np.float32),
        q=np.zeros(size, np.float32),
        sums64=np.zeros(2 * LANES),
        e64=np.zeros(size),
        u=np.zeros(size),
        bias=np.zeros(n_classes),
        row=np.zeros(3 * n_classes),
        rows=np.zeros(LANES * (n_classes + LANES), np.float32),
        times=np.ones(LANES),
        ends=np.zeros(2 * n_experts * n_classes),
        tops=np.zeros(2 * LANES, np.int32),
        queue=np.zeros(n_experts * size),
        queue_factors=np.ones(n_experts * LANES),
        units=np.zeros(LANES, np.int64),
    )


def group_of(experts: Group, g: int) -> Group:
    """Group g of all that `experts`, the first, begins."""
    return Group(
        experts.scores, g * experts.n_classes * LANES, experts.step, experts.factors, g * LANES, experts.f_step,
        experts.slopes, experts.n_experts, experts.n_classes,
    )  # fmt: skip


def tilted(group: Group, m: int, lane: int, lam: float, out: Any) -> Any:
    """One expert's scores at a lambda, less their maximum, into out (K,).

    Returns (class of the maximum, sum of the exponentials of all others).
    """
    times = group.factors[group.f + m * group.f_step + lane] if group.factors.size else 1.0
    o, s = group.o + m * group.step + lane, m * group.n_classes
    top, best = -1, -np.inf
    for k in range(group.n_classes):
        value = group.scores[o + k * LANES]
        if value > -np.inf:
            value += times * (lam * group.slopes[s + k])
        out[k] = value
        if value > best:
            top, best = k, value
    rest = 0.0
    for k in range(group.n_classes):
        out[k] -= best
        if k != top:
            rest += exp(out[k])
    return top, rest


def add_logs(a: float, b: float) -> float:
    """Log of the sum of two numbers, given their logarithms."""
    if a == -np.inf or b == -np.inf:
        return max(a, b)
    return max(a, b) + log1p(exp(min(a, b) - max(a, b)))


def exponential(x: Any) -> Any:
    """exp(x), as the C library rounds it."""
    return np.asarray(_exponential(x), dtype=np.float64)


def chosen(condition: Any, a: Any, b: Any) -> Any:
    """The one or the other."""
    return np.where(condition, a, b)


def misses(row: Any, n_classes: int, top: Any, rest: Any, in_logs: bool) -> None:
    """What `tilted` left in row (K,) to 1 - P, or its logarithm; that of the largest class is the sum of the others."""
    total, leads = 1.0 + rest, row[:n_classes] == 0.0
    shares = exponential(row[:n_classes])
    if not in_logs:
        row[:n_classes] = np.where(leads, rest, total - shares) / total
        return
    others = np.where(np.arange(n_classes).reshape(-1, *[1] * np.ndim(top)) == top, -np.inf, row[:n_classes])
    best = others.max(axis=0)
    with np.errstate(invalid="ignore"):
        away = np.where(best > -np.inf, others - best, -np.inf)
        logarithm = best + _logarithm(np.cumsum(exponential(away), axis=0)[-1]) - _logarithm(total)
    row[:n_classes] = np.where(leads, logarithm, _log1p(np.where(leads, 0.0, -shares / total)))


def compare(
    operator: Any, n_experts: int, n_classes: int, tables: Any, g: int, n_points: int, near: Any, winners: Any, w: int,
    scratch: Scratch,
) -> int:  # fmt: skip
    """What an operator guesses when it joins one expert after the other: see `Operator.guess`."""
    doubt = 0
    for m in range(n_experts):
        table = (m * n_points + g) * n_classes
        doubt |= tilt(scratch.e, m * n_classes * LANES, n_classes, tables, table, scratch.p, 0, scratch.sums, 0)
        operator.narrow(m, n_classes, scratch)
    return doubt | least(scratch.q, 0, n_classes, near, np.float32(operator.tiny(n_classes)), winners, w)


class Operator(NamedTuple):
    """How the posteriors of M experts become one.

    Attributes
    ----------
    weights : (M,) float64
        For those that weigh their experts.
    """

    weights: Any

    def is_quick(self) -> bool:
        """Whether `guess` decides anything."""
        return True

    def guess(
        self, n_experts: int, n_classes: int, tables: Any, g: int, n_points: int, near: Any, winners: Any, w: int,
        scratch: Scratch,
    ) -> int:  # fmt: skip
        """The decisions of sixteen units at lambda g by float32, into winners[w:w+16].

        Parameters
        ----------
        n_experts, n_classes
        tables : (M * G * K,) float32
            exp(lambda * s) up to a factor per expert and lambda.
        g, n_points : int
            Which of G lambdas.
        near : float32
            Relative doubt of the comparison.
        winners, w
        scratch : Scratch
            ``e`` holds exp(delta * z), up to a factor, of each expert.

        Returns
        -------
        int
            The lanes that are in doubt.
        """
        return int(compare(self, n_experts, n_classes, tables, g, n_points, near, winners, w, scratch))

    def tiny(self, n_classes: int) -> float:
        """Values of `narrow` that are not further apart are in doubt."""
        return TINY_SHARE * max(1.0, n_classes / 1000)

    def narrow(self, m: int, n_classes: int, scratch: Scratch) -> None:
        """Join expert m of sixteen units, ``p`` and ``sums`` as `tilt` leaves them, into ``q``: the least wins."""
        raise NotImplementedError

    def weigh(self, m: int, n_classes: int, top: int, rest: float, in_logs: bool, row: Any) -> None:
        """Join expert m of one unit, row[:K], `top` and `rest` as `tilted` leaves them, into row[K:3 K].

        The least row[K + k] wins, less row[2 K + k], which is known without rounding.
        """
        raise NotImplementedError

    def is_faint(self, best: Any) -> Any:
        """Whether the winner's value is too small to be trusted, and is to be found again `in_logs`."""
        return best < FAINT

    def excludes(self, m: int) -> bool:
        """Whether expert m alone rules a class out."""
        return False

    def blend(self, m: int, n_classes: int, scratch: Scratch) -> None:
        """Join the posterior of expert m of sixteen units, ``e64`` and ``sums64`` as `soften64` leaves them, to ``u``.

        In sums of positive terms only.
        """
        raise NotImplementedError

    def join_logs(self, m: int, value: float, before: float) -> float:
        """Join the log of a probability of expert m, all of which are far too small to be added as they are."""
        return float(add_logs(value, before))

    def fuse(self, group: Group, lam: float, in_logs: bool, scratch: Scratch) -> None:
        """The fused posterior of a group into ``u``."""
        n_classes = group.n_classes
        for m in range(group.n_experts):
            for k in range(n_classes):
                scratch.bias[k] = lam * group.slopes[m * n_classes + k]
            times, f = scratch.times, 0
            if group.factors.size:
                times, f = group.factors, group.f + m * group.f_step
            soften64(
                group.scores, group.o + m * group.step, n_classes, scratch.bias, 0, times, f, scratch.e64, 0,
                scratch.sums64, 0,
            )  # fmt: skip
            self.blend(m, n_classes, scratch)
        u, sums = scratch.u, scratch.sums64
        faint = finish(u, 0, n_classes, in_logs, sums, 0)
        while faint and in_logs:
            lane = first_lane(faint)
            faint &= faint - 1
            for k in range(n_classes):
                if u[k * LANES + lane] < -600.0:
                    u[k * LANES + lane] = self.faint_log(group, lane, k, lam, scratch.row) - sums[lane]

    def faint_log(self, group: Group, lane: int, k: int, lam: float, row: Any) -> float:
        """Log of the fused P(k), before it is normalised, where the probability itself is below float64's range."""
        result = -np.inf
        for m in range(group.n_experts):
            _, rest = tilted(group, m, lane, lam, row)
            result = self.join_logs(m, row[k] - log1p(rest), result)
        return result


class Pool(Operator):
    """P(k) ~ prod_m P_m(k) ** w_m: one line for each class, the weighted sum of the experts' scores."""

    __slots__ = ()

    def is_quick(self) -> bool:
        """Every unit is decided in float64."""
        return False

    def narrow(self, m: int, n_classes: int, scratch: Scratch) -> None:
        """Nothing."""

    def weigh(self, m: int, n_classes: int, top: int, rest: float, in_logs: bool, row: Any) -> None:
        """Subtract w_m times the scores; an expert without weight has no say, whatever it masks."""
        if self.weights[m] != 0.0:
            for k in range(n_classes):
                row[n_classes + k] -= self.weights[m] * row[k]

    def is_faint(self, best: Any) -> Any:
        """They are logarithms already."""
        return False

    def excludes(self, m: int) -> bool:
        """An expert that has weight does."""
        return bool(self.weights[m] != 0.0)

    def blend(self, m: int, n_classes: int, scratch: Scratch) -> None:
        """The one posterior there is."""
        add_posterior(scratch.e64, 0, n_classes, scratch.sums64, 0, 1.0, True, scratch.u, 0)

    def fuse(self, group: Group, lam: float, in_logs: bool, scratch: Scratch) -> None:
        """The softmax of the weighted sum."""
        n_classes = group.n_classes
        self.pool(group, lam, scratch.u)
        scratch.bias[:] = 0.0
        soften64(scratch.u, 0, n_classes, scratch.bias, 0, scratch.times, 0, scratch.e64, 0, scratch.sums64, 0)
        if in_logs:
            shift(scratch.u, 0, n_classes, scratch.u, 0, scratch.sums64, 0)
        else:
            self.blend(0, n_classes, scratch)

    def pool(self, group: Group, lam: float, out: Any) -> None:
        """The weighted sum of the experts' tilted scores of a group."""
        for j in range(group.n_classes * LANES):
            out[j] = 0.0
        for m in range(group.n_experts):
            weight = self.weights[m]
            if weight != 0.0:
                for k in range(group.n_classes):
                    bias, o = lam * group.slopes[m * group.n_classes + k], group.o + m * group.step + k * LANES
                    for i in range(LANES):
                        times = group.factors[group.f + m * group.f_step + i] if group.factors.size else 1.0
                        out[k * LANES + i] += weight * (group.scores[o + i] + times * bias)
