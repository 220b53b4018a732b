"""A metric against lambda, drawn with characters: axes, the choice, and the lambdas that are as good."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from unoic_cli.report.layout import Said

ROWS = 8
WIDEST = 72
"""Columns between the axis and the right end."""
TICKS = 7
"""At most, whatever the width."""
_DRAWN = {False: " ▀▄█│┤─┬└━▲", True: " '.:|+-+`=^"}
"""Nothing, upper half, lower half, both; axis, its tick, floor, its tick, corner; range, choice. By whether ASCII."""


@dataclass(frozen=True)
class Drawn:
    """A curve with axes.

    Attributes
    ----------
    lams : sequence of float
        Rising.
    values : sequence of float
        At each; NaN is not drawn.
    labels : tuple of str
        Of the lowest and of the highest value.
    choice : float
    interval : tuple of float
        First and last lambda that are as good.
    meaning : str
        Of the interval, where it is one.
    """

    lams: Sequence[float]
    values: Sequence[float]
    labels: tuple[str, str]
    choice: float
    interval: tuple[float, float]
    meaning: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rows from the highest value down, the axis of lambda, its marks, and what these are."""
        plain = options.ascii_only
        drawn = _DRAWN[plain]
        room = max(map(len, self.labels))
        width = max(16, min(WIDEST, options.max_width - room - 2))
        for row, cells in enumerate(self._rows(width, plain)):
            label = self.labels[1] if not row else self.labels[0] if row == ROWS - 1 else ""
            side = drawn[5] if label else drawn[4]
            line = Text(f"{label:>{room}} {side}", no_wrap=True, overflow="ignore").append(cells, style="cyan")
            line.rstrip()
            yield line
        ticks = {self._place(tick, width): f"{tick:g}" for tick in ticks_of(self.lams[0], self.lams[-1])}
        floor = "".join(drawn[7] if place in ticks else drawn[6] for place in range(width))
        yield Text(f"{' ' * room} {drawn[8]}{floor}", no_wrap=True, overflow="ignore")
        yield self._marks(width, room + 2, drawn)
        yield Text(_below(ticks, room + 2, options.max_width), no_wrap=True, overflow="ignore")
        low, high = self.interval
        beside = f"; {drawn[9]} {low:g} to {high:g}: {self.meaning}" if low < high else ""
        yield Said(f"{drawn[10]} lambda {self.choice:g}{beside}", "green")

    def _place(self, lam: float, width: int) -> int:
        """The column of a lambda."""
        return round((lam - self.lams[0]) / (self.lams[-1] - self.lams[0]) * (width - 1))

    def _rows(self, width: int, plain: bool) -> Iterator[str]:
        """Characters of each row: of each column from the least to the largest of its values."""
        finite = [value for value in self.values if math.isfinite(value)]
        low, high = min(finite), max(finite)
        halves = 2 * ROWS - 1
        scale = halves / (high - low) if high > low else 0.0
        ends: dict[int, tuple[int, int]] = {}
        for lam, value in zip(self.lams, self.values, strict=True):
            if math.isfinite(value):
                place, level = self._place(lam, width), round((value - low) * scale)
                least, most = ends.get(place, (level, level))
                ends[place] = min(least, level), max(most, level)
        for row in range(ROWS - 1, -1, -1):
            bits = [
                sum(1 << half for half in (0, 1) if least <= 2 * row + 1 - half <= most)
                for least, most in (ends.get(place, (halves + 1, -1)) for place in range(width))
            ]
            yield "".join(_DRAWN[plain][bit] for bit in bits)

    def _marks(self, width: int, indent: int, drawn: str) -> Text:
        """The range that is as good, and the choice in it."""
        first, last = (self._place(min(max(end, self.lams[0]), self.lams[-1]), width) for end in self.interval)
        marks = [drawn[9] if first <= place <= last else " " for place in range(width)]
        marks[self._place(min(max(self.choice, self.lams[0]), self.lams[-1]), width)] = drawn[10]
        text = Text(" " * indent, no_wrap=True, overflow="ignore").append("".join(marks).rstrip(), style="bold green")
        text.rstrip()
        return text


def ticks_of(low: float, high: float) -> list[float]:
    """Round numbers between two ends, `TICKS` at most.

    Examples
    --------
    >>> ticks_of(0.0, 6.0), ticks_of(-1.0, 1.5), ticks_of(0.0, 0.04)
    ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5], [0.0, 0.01, 0.02, 0.03, 0.04])
    """
    power = math.floor(math.log10((high - low) / TICKS))
    step = next(
        size
        for size in (10.0**power * factor for factor in (1, 2, 5, 10))
        if math.floor(high / size + 1e-9) - math.ceil(low / size - 1e-9) < TICKS
    )
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _below(ticks: dict[int, str], indent: int, most: int) -> str:
    """Numbers, each in the middle below its tick as far as there is room."""
    line = ""
    for place, label in ticks.items():
        start = max(0, min(indent + place - len(label) // 2, most - len(label)))
        line += " " * max(1 if line else 0, start - len(line)) + label
    return line
