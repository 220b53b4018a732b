"""The lattice of lambda values: exact decimals, evenly spaced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING

from unoic_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_POINTS = 100_001
DEFAULT_RANGE = "0:2"
DEFAULT_STEP = "0.01"
COARSE_STEP = "0.1"
"""The default step of Algorithm 2, as the UNO-IC paper sets it."""
LARGEST = 1_000_000
"""The largest |lambda| of a lattice."""
FINEST = 10**12
"""Lambdas may be divided into so many steps: float64 tells lattice points apart with room to spare."""
WIDEST = Fraction(16)
"""How far the default range may grow."""


def _number(text: str, option: str) -> Fraction:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise UsageError(option, f"{text!r}", "expected finite decimal numbers") from None
    if not value.is_finite():
        raise UsageError(option, f"{text!r}", "expected finite decimal numbers")
    if value and not -300 < value.adjusted() < 300:  # nothing to compute with, and slow as a fraction
        raise UsageError(option, f"{text!r}", f"expected decimal numbers up to {LARGEST}")
    return Fraction(value)


def _range_text(given: str | Sequence[float]) -> str:
    """``A:B`` or ``A:B:STEP`` of what may be numbers."""
    if isinstance(given, str):
        return given
    if not isinstance(given, (list, tuple)) or len(given) not in (2, 3):
        raise UsageError("--range", f"{given!r}"[:60], "expected (A, B), (A, B, STEP), or text like A:B")
    return ":".join(str(part) for part in given)


@dataclass(frozen=True)
class Lattice:
    """Lambda values ``start + i * step`` for i in [0, size), each rounded once from the exact decimal.

    Examples
    --------
    >>> Lattice.parse("0:2", "0.01").size
    201
    >>> Lattice.parse("-1:1:0.5").values().tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    >>> Lattice.parse("0.4:0.4").values().tolist()
    [0.4]
    >>> Lattice.parse((-1, 1, 0.5)) == Lattice.parse("-1:1:0.5")
    True
    """

    start: Fraction
    step: Fraction
    size: int

    @classmethod
    def parse(
        cls, given: str | Sequence[float], step_text: str | None = None, default_step: str = DEFAULT_STEP
    ) -> Lattice:
        """From ``A:B`` and a step, or ``A:B:STEP``, or numbers; ``A:A`` is the one lambda A, and has no step.

        Raises
        ------
        UsageError
            Not numbers, an empty or reversed range, a step that is not positive or leaves too many points.
        """
        range_text = _range_text(given)
        parts, where = range_text.split(":"), "--step"
        if len(parts) == 3:
            if step_text is not None and _number(step_text, "--step") != _number(parts[2], "--range"):
                raise UsageError("--step", f"{step_text}, but --range names the step {parts[2]}", "expected one step")
            step_text, where = parts[2], "--range"
        elif len(parts) != 2:
            raise UsageError("--range", f"{range_text!r}", "expected A:B or A:B:STEP")
        start, stop = _number(parts[0], "--range"), _number(parts[1], "--range")
        step = _number(step_text if step_text is not None else default_step, where)
        told = f"{float(step):g}" if where == "--step" else f"the step {float(step):g}"
        if stop < start:
            raise UsageError("--range", f"the reversed range {range_text}", "expected A:B with A <= B")
        if step <= 0:
            raise UsageError(where, told, "expected a positive step")
        largest = max(abs(start), abs(stop))
        if largest > LARGEST:
            raise UsageError("--range", f"{range_text}", f"expected lambdas between -{LARGEST} and {LARGEST}")
        if stop == start:
            if step_text is not None:
                expected = f"expected {parts[0].strip()}:{parts[1].strip()} alone, or A:B with A < B"
                raise UsageError(where, f"a step in {range_text}, a range of one lambda", expected)
            return cls(start, step, 1)
        if step < largest / FINEST:
            expected = f"expected at least {float(largest / FINEST):g} in the range {range_text}"
            raise UsageError(where, told, expected)
        size = (stop - start) // step + 1
        if size > MOST_POINTS:
            raise UsageError(where, f"{size} lattice points", f"expected at most {MOST_POINTS}")
        if size < 2:
            raise UsageError(where, f"a step wider than the range {range_text}", "expected at least two points")
        return cls(start, step, int(size))

    @classmethod
    def single(cls, lam: float) -> Lattice:
        """The one lambda `lam`."""
        return cls(Fraction(lam), Fraction(COARSE_STEP), 1)

    def values(self) -> NDArray[np.float64]:
        """Lattice points, shape (size,), ascending."""
        import numpy as np

        a, b, under = self.start.numerator, self.step.numerator, self.start.denominator * self.step.denominator
        first, step = a * self.step.denominator, b * self.start.denominator
        return np.array([(first + i * step) / under for i in range(self.size)], dtype=np.float64)  # rounded once

    def index(self, lam: float) -> int | None:
        """The point that equals `lam`, or None."""
        if not math.isfinite(lam):
            return None
        if self.size == 1:
            return 0 if lam == float(self.start) else None
        place = (Fraction(repr(float(lam))) - self.start) / self.step
        return int(place) if place.denominator == 1 and 0 <= place < self.size else None

    @property
    def stop(self) -> Fraction:
        """The last point."""
        return self.start + (self.size - 1) * self.step

    def extended(self) -> Lattice | None:
        """The lattice with its upper end doubled; None at the bound."""
        if self.size == 1 or self.stop <= 0 or 2 * self.stop > WIDEST:
            return None
        return Lattice(self.start, self.step, int((2 * self.stop - self.start) // self.step) + 1)

    def __str__(self) -> str:
        ends = f"{float(self.start):g}:{float(self.stop):g}"
        return ends if self.size == 1 else f"{ends}:{float(self.step):g}"
