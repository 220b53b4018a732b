"""The minimum of a convex function of one or two numbers, of which a read of the data tells value, slope and Hessian.

Reads are dear and places are cheap: each read looks at several places, so that the next one knows how the Hessian
changes, too (its step then errs by the cube of the distance, Newton's by the square). What is asked for depends on
what was found alone, and all of that is arithmetic on floats in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Vector: TypeAlias = "tuple[float, ...]"
Matrix: TypeAlias = "tuple[tuple[float, ...], ...]"

FARTHEST = 8.0
"""A step divides the first number by this at most."""
FRACTIONS = (0.5, 0.25, 0.0625)
"""Shorter steps that are tried beside Newton's where that goes far."""
FAR, DOUBTFUL, NEAR = 0.3, 0.03, 1e-4
MOST_READS = 40


@dataclass(frozen=True)
class Place:
    """What is known at one place.

    Attributes
    ----------
    at : tuple of float
        One or two numbers.
    value : float
    slope : tuple of float
    hessian : tuple of tuple of float
        Positive definite.
    """

    at: Vector
    value: float
    slope: Vector
    hessian: Matrix


@dataclass(frozen=True)
class Bounds:
    """Where a minimum is looked for, and when it is found.

    Attributes
    ----------
    least : float
        The first number is no lower.
    reach : float
        The second changes by this at most between two reads.
    tolerance : float
        Of the first, as a share of it; of the second, as a share of its size where that is above 1.
    """

    least: float
    reach: float
    tolerance: float


def solve(matrix: Matrix, vector: Vector) -> Vector:
    """The x of ``matrix x = vector``, for one or two numbers.

    Examples
    --------
    >>> solve(((2.0, 1.0), (1.0, 3.0)), (4.0, 7.0))
    (1.0, 2.0)
    """
    if len(vector) == 1:
        return (vector[0] / matrix[0][0],)
    (a, b), (c, d) = matrix
    det = a * d - b * c
    return (d * vector[0] - b * vector[1]) / det, (a * vector[1] - c * vector[0]) / det


def times(matrix: Matrix, vector: Vector) -> Vector:
    """Matrix times vector."""
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def plus(a: Vector, b: Vector, factor: float = 1.0) -> Vector:
    """A + factor * b."""
    return tuple(x + factor * y for x, y in zip(a, b, strict=True))


def step(place: Place, bounds: Bounds) -> Vector:
    """Newton's step from a place; where it would leave the bounds, it ends at them, and is best along them."""
    whole = solve(place.hessian, tuple(-x for x in place.slope))
    return _inside(place, whole, bounds)


def _inside(place: Place, whole: Vector, bounds: Bounds) -> Vector:
    """A step, bounded."""
    at = place.at
    floor = max(bounds.least, at[0] / FARTHEST)
    if at[0] + whole[0] < floor:
        whole = (floor - at[0], *whole[1:])
        if len(at) == 2:
            hessian = place.hessian
            whole = (whole[0], -(place.slope[1] + hessian[0][1] * whole[0]) / hessian[1][1])
    if len(at) == 2 and abs(whole[1]) > bounds.reach:
        whole = tuple(x * (bounds.reach / abs(whole[1])) for x in whole)
    return whole


def is_done(place: Place, bounds: Bounds) -> bool:
    """Whether the minimum lies within half the tolerance, as far as Newton's step says."""
    return size(place, step(place, bounds)) <= bounds.tolerance / 2


def size(place: Place, way: Vector) -> float:
    """How far a step goes, in the terms of the tolerance."""
    sizes = (place.at[0], *(max(1.0, abs(x)) for x in place.at[1:]))
    return max(abs(x) / one for x, one in zip(way, sizes, strict=True))


def bent(place: Place, others: Sequence[Place], bounds: Bounds) -> Vector:
    """The step to where the slope is zero, if the Hessian changes as it does towards others nearby; else Newton's."""
    plain = step(place, bounds)
    change = _change(place, others)
    if change is None:
        return plain
    way = plain
    for _ in range(20):
        turned = change(way)
        half = tuple(
            tuple(h + t / 2 for h, t in zip(*rows, strict=True)) for rows in zip(place.hessian, turned, strict=True)
        )
        whole = tuple(
            tuple(h + t for h, t in zip(*rows, strict=True)) for rows in zip(place.hessian, turned, strict=True)
        )
        if not (_is_positive(half) and _is_positive(whole)):
            return plain
        more = solve(whole, tuple(-x for x in plus(place.slope, times(half, way))))
        way = plus(way, more)
        if size(place, way) > 2 * size(place, plain):
            return plain
    return _inside(place, way, bounds)


def _summed(a: Matrix, b: Matrix, factor: float) -> Matrix:
    return tuple(plus(x, y, factor) for x, y in zip(a, b, strict=True))


def _is_positive(matrix: Matrix) -> bool:
    if len(matrix) == 1:
        return matrix[0][0] > 0
    (a, b), (c, d) = matrix
    return a > 0 and a * d > b * c


def _change(place: Place, others: Sequence[Place]) -> Callable[[Vector], Matrix] | None:
    """How the Hessian changes with a step, by its differences to the nearest others that lie in as many directions."""

    def apart(other: Place) -> float:
        way = plus(other.at, place.at, -1.0)
        return sum(x * y for x, y in zip(way, times(place.hessian, way), strict=True))

    near = sorted((other for other in others if other.at != place.at), key=lambda other: (apart(other), other.at))
    ways = [plus(other.at, place.at, -1.0) for other in near]
    if len(place.at) == 1:
        chosen = [0] if near else []
    else:
        chosen = next(([i, j] for j in range(len(near)) for i in range(j) if _independent(place, ways[i], ways[j])), [])
    if not chosen:
        return None
    differences = [_summed(near[i].hessian, place.hessian, -1.0) for i in chosen]
    axes = tuple(zip(*(ways[i] for i in chosen), strict=True))

    def change(way: Vector) -> Matrix:
        total: Matrix = ((0.0,) * len(way),) * len(way)
        for part, difference in zip(solve(axes, way), differences, strict=True):
            total = _summed(total, difference, part)
        return total

    return change


def _independent(place: Place, a: Vector, b: Vector) -> bool:
    """Whether two ways point in directions that differ, as the function sees them."""
    over = sum(x * y for x, y in zip(a, times(place.hessian, b), strict=True))
    lengths = (sum(x * y for x, y in zip(one, times(place.hessian, one), strict=True)) for one in (a, b))
    return over * over < 0.9 * math.prod(lengths)


Looks: TypeAlias = "Callable[[list[Vector]], Generator[Any, Any, list[Place]]]"
"""What tells of some places; it may ask for a read of the data."""


def descend(first: Sequence[Vector], bounds: Bounds, look: Looks) -> Generator[Any, Any, Place]:
    """Look at places until one is the minimum, to the tolerance; returns it, or the best of `MOST_READS` reads.

    Parameters
    ----------
    first : sequence of (float, ...)
        Places of the first read.
    bounds : Bounds
    look : callable
        What is asked first of each later read is where the minimum should be.
    """
    known = yield from look(list(first))
    best, shrink = _best(known, bounds), 1.0
    for _ in range(MOST_READS):
        if is_done(best, bounds):
            break
        found = yield from look(_asked(best, known, bounds, shrink))
        known = known + found
        better = _best([best, *found], bounds)
        shrink = shrink / 32 if better is best else 1.0
        best = better
    return best


def _best(places: Sequence[Place], bounds: Bounds) -> Place:
    """The lowest; of those that are as low up to rounding, the one whose step is shortest."""
    low = min(place.value for place in places)
    level = [place for place in places if place.value <= low + 1e-11 * max(1.0, abs(low))]
    return min(level, key=lambda place: size(place, step(place, bounds)))


def _asked(best: Place, known: Sequence[Place], bounds: Bounds, shrink: float) -> list[Vector]:
    """Places of the next read: where the minimum should be, and around it; shorter steps where that is far."""
    plain, way = step(best, bounds), bent(best, known, bounds)
    if shrink < 1.0:
        return [_moved(best, plain, bounds, shrink * fraction) for fraction in (1.0, *FRACTIONS)]
    far = size(best, plain)
    places = [_moved(best, way, bounds)]
    if far > FAR:
        places += [_moved(best, plain, bounds, fraction) for fraction in FRACTIONS]
    if way != plain and far > DOUBTFUL:
        places.append(_moved(best, plain, bounds))
    if far > NEAR:
        places += _around(places[0], far, bounds)
    return list(dict.fromkeys(places))


def _moved(place: Place, way: Vector, bounds: Bounds, fraction: float = 1.0) -> Vector:
    """Where a step leads; on the bound where only rounding keeps it off."""
    first, *rest = plus(place.at, way, fraction)
    return (bounds.least if first < bounds.least * (1 + 1e-9) else first, *rest)


def _around(place: Vector, far: float, bounds: Bounds) -> list[Vector]:
    """Places beside one, in each direction, about as far as it may be wrong."""
    wrong = min(0.2, far * far)
    sizes = (max(place[0], bounds.least), *(max(1.0, abs(x)) for x in place[1:]))
    return [
        tuple(x + (wrong * one if i == j else 0.0) for j, (x, one) in enumerate(zip(place, sizes, strict=True)))
        for i in range(len(place))
    ]
