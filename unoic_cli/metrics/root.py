"""Roots of fractions that are compared without any rounding: geometric means, and what is divided by a root."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import total_ordering

BITS = 256
"""Of a root that is no fraction itself, where it has to be added to something."""


@total_ordering
@dataclass(frozen=True, eq=False)
class Root:
    """The real number of the sign of `power` whose absolute value, to the power of `degree`, is its absolute value.

    Attributes
    ----------
    power : Fraction
    degree : int

    Examples
    --------
    >>> Root(Fraction(1, 4), 2) == Fraction(1, 2), Root(Fraction(-1, 2), 2) < Fraction(-7, 10)
    (True, True)
    >>> float(Root(Fraction(1, 2), 2)) == 0.5**0.5
    True
    """

    power: Fraction
    degree: int

    def _beside(self, other: Root | Fraction) -> tuple[Fraction, Fraction]:
        """Two numbers in the order of this one and another."""
        theirs, degree = (other.power, other.degree) if isinstance(other, Root) else (other, 1)
        if degree == self.degree:
            return self.power, theirs
        return _raised(self.power, degree), _raised(theirs, self.degree)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Root, Fraction)):
            return NotImplemented
        ours, theirs = self._beside(other)
        return ours == theirs

    def __lt__(self, other: Root | Fraction) -> bool:
        ours, theirs = self._beside(other)
        return ours < theirs

    def __hash__(self) -> int:
        return hash(self.fraction(BITS))

    def __neg__(self) -> Root:
        return Root(-self.power, self.degree)

    def __radd__(self, other: Fraction) -> Root | Fraction:
        """The sum with a fraction: this itself where that is zero, else right to 2**-256."""
        return self.fraction(BITS) + other if other else self

    def __float__(self) -> float:
        return float(self.fraction(BITS))

    def fraction(self, bits: int) -> Fraction:
        """The fraction that it is, or the multiple of 2**-bits next to it towards zero."""
        sign, size = (-1 if self.power < 0 else 1), abs(self.power)
        over, under = root(size.numerator, self.degree), root(size.denominator, self.degree)
        if over**self.degree == size.numerator and under**self.degree == size.denominator:
            return sign * Fraction(over, under)
        scaled = (size.numerator << bits * self.degree) // size.denominator
        return sign * Fraction(root(scaled, self.degree), 1 << bits)


def _raised(value: Fraction, degree: int) -> Fraction:
    """The power of the absolute value, with the sign of the value."""
    return abs(value) ** degree * (-1 if value < 0 else 1)


def root(n: int, degree: int) -> int:
    """The largest integer whose power is at most n >= 0.

    Examples
    --------
    >>> root(26, 3), root(27, 3), root(10**300, 100)
    (2, 3, 1000)
    """
    if n < 2 or degree == 1:
        return n
    places, rest = divmod(math.log2(n) / degree, 1)
    shift = int(places)
    guess = (int(2.0**rest * (1 + 2.0**-30) * 2.0**52) << shift >> 52) + 1  # not below the root
    while True:  # Newton's steps fall until they are there
        better = ((degree - 1) * guess + n // guess ** (degree - 1)) // degree
        if better >= guess:
            return guess
        guess = better
