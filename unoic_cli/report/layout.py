"""Tables that lose no digit, however narrow the terminal: numbers are never wrapped, cut or shortened.

What does not fit beside one another is stacked: a `Grid` repeats its labels before each part. Only words are folded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from unoic_cli.errors import printable

GAP = "  "
NARROWEST = 12
"""Cells that a column of words keeps."""
SHORTEST = 40
"""Cells that a name keeps, at least, where it would take more than two or three lines."""
_NUMBER = re.compile(r"[^\w\s]*\d[\d.,:eE+%-]*[^\w\s]*")


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken between words; a longer word is folded, unless it is a number.

    Examples
    --------
    >>> wrapped("lambda 0.4, as given", 12)
    ['lambda 0.4,', 'as given']
    >>> wrapped("n = 1,234,567 of abcdefghij", 8)
    ['n =', '1,234,567', 'of', 'abcdefgh', 'ij']
    """
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            joined = f"{line} {word}" if line else word
            if cell_len(joined) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
            *full, line = [word] if _NUMBER.fullmatch(word) or not word else chop_cells(word, max(1, width))
            lines += full
        lines.append(line)
    return lines


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Names of at most `most` cells: longer ones lose their middle, and stay different from all others.

    Examples
    --------
    >>> shortened(["a very long name", "short", "a very long game"], 9)
    ['a ver…ame', 'short', 'a v…ame-2']
    """
    made: dict[str, str] = {name: name for name in names if cell_len(name) <= most}
    taken = set(made)
    for name in dict.fromkeys(names):
        number, mark = 1, ""
        while name not in made:
            tail = _last(name, most // 3)
            short = f"{_first(name, most - 1 - cell_len(tail) - len(mark))}…{tail}{mark}"
            if short not in taken:
                made[name] = short
                taken.add(short)
            number += 1
            mark = f"-{number}"
    return [made[name] for name in names]


def _first(text: str, width: int) -> str:
    """As much of the beginning as has room."""
    return chop_cells(text, width)[0] if width > 1 else text[:1]


def _last(text: str, width: int) -> str:
    """As much of the end as has room."""
    return _first(text[::-1], width)[::-1]


def _line(text: str, style: str = "") -> Text:
    return Text(text.rstrip(), style=style, no_wrap=True, overflow="ignore")


@dataclass(frozen=True)
class Said:
    """A text on lines of its own.

    Attributes
    ----------
    text : str
    style : str
    """

    text: str
    style: str = "italic"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Words stay whole, and no line ends in a blank."""
        yield from (_line(line, self.style) for line in wrapped(printable(self.text, keep="\n"), options.max_width))


@dataclass(frozen=True)
class Facts:
    """Two columns without lines: a name, and what there is to say.

    Attributes
    ----------
    rows : tuple of (str, str)
    style : str
        Of the names.
    """

    rows: tuple[tuple[str, str], ...]
    style: str = "dim"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Names take a third of the width at most."""
        rows = [(printable(name), printable(value, keep="\n")) for name, value in self.rows]
        longest = max((cell_len(name) for name, _ in rows), default=0)
        width = min(longest, max(NARROWEST, options.max_width // 3))
        room = max(options.max_width - width - len(GAP), NARROWEST)
        for name, value in rows:
            names, values = wrapped(name, width), wrapped(value, room)
            for i in range(max(len(names), len(values))):
                head = _set(names[i] if i < len(names) else "", width, "left")
                text = Text(no_wrap=True, overflow="ignore").append(head, style=self.style).append(GAP)
                text.append(values[i] if i < len(values) else "")
                text.rstrip()
                yield text


@dataclass
class Grid:
    """Rows and columns without lines. Columns that are justified to the right hold numbers, which stay whole.

    Attributes
    ----------
    heads : list of str
    sides : list of {"left", "right"}
    rows : list of tuple of str
    styles : list of tuple of str
        Of the cells of each row; of a cell like ``61.20 | 70.35`` one for each part, between bars.
    """

    heads: list[str] = field(default_factory=list)
    sides: list[Literal["left", "right"]] = field(default_factory=list)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    styles: list[tuple[str, ...]] = field(default_factory=list)

    def add_column(self, head: str, *, justify: Literal["left", "right"] = "left") -> None:
        """Add a column of words (left) or of numbers (right). The first is a label, and all up to the last of words."""
        self.heads.append(printable(" ".join(head.split())))
        self.sides.append(justify)

    def add_row(self, *cells: str, styles: Sequence[str] = ()) -> None:
        """Add a cell for each column; `styles` are theirs, from the first on."""
        self.rows.append(tuple(printable(" ".join(cell.split())) for cell in cells))
        self.styles.append((*styles, *[""] * (len(cells) - len(styles))))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many columns as fit beside the labels, then the others below; names that are long there are shortened."""
        n_labels = len(self.sides) - self.sides[::-1].index("left") if "left" in self.sides else 1
        heads, rows = list(self.heads), self.rows
        cells = [max((cell_len(row[i]) for row in rows), default=0) for i in range(len(heads))]
        widths = [max(width, cell_len(head)) for width, head in zip(cells, heads, strict=True)]
        if sum(widths) + len(GAP) * (len(widths) - 1) > options.max_width:
            heads[n_labels:] = shortened(heads[n_labels:], SHORTEST)
            widths = [max(width, cell_len(head)) for width, head in zip(cells, heads, strict=True)]
            narrow = max(NARROWEST, options.max_width // 3)
            for i in range(n_labels):
                widths[i] = min(widths[i], narrow) if self.sides[i] == "left" else widths[i]
            room = options.max_width - sum(len(GAP) + width for width in widths[:n_labels])
            for i in range(n_labels, len(widths)):
                widths[i] = min(widths[i], max(cells[i], room))
            words = [i for i in range(n_labels) if self.sides[i] == "left"]
            short = {i: shortened([row[i] for row in rows], max(2 * widths[i], SHORTEST)) for i in words}
            rows = [
                tuple(short[i][j] if i in short else cell for i, cell in enumerate(row)) for j, row in enumerate(rows)
            ]
        for number, columns in enumerate(self._parts(widths, n_labels, options.max_width)):
            if number:
                yield Text()
            yield from self._drawn(columns, widths, [tuple(heads), *rows])

    def _parts(self, widths: list[int], n_labels: int, most: int) -> Iterator[list[int]]:
        """Columns that stand beside one another."""
        labels = list(range(n_labels))
        part, used = list(labels), sum(len(GAP) + width for width in widths[:n_labels])
        start = used
        for i in range(n_labels, len(widths)):
            if used + widths[i] > most and len(part) > n_labels:
                yield part
                part, used = list(labels), start
            part.append(i)
            used += widths[i] + len(GAP)
        yield part

    def _drawn(self, columns: list[int], widths: list[int], rows: Sequence[tuple[str, ...]]) -> Iterator[Text]:
        """Heads, which come first, and a line (or, of folded labels, several) for each row."""
        for number, row in enumerate(rows):
            folded = {i: wrapped(row[i], widths[i]) for i in columns}
            styles = self.styles[number - 1] if number else ("",) * len(row)
            for j in range(max(len(lines) for lines in folded.values())):
                texts = [_set(folded[i][j] if j < len(folded[i]) else "", widths[i], self.sides[i]) for i in columns]
                if not any(styles[i] for i in columns):
                    yield _line(GAP.join(texts), "bold" if not number else "")
                    continue
                line = Text(no_wrap=True, overflow="ignore")
                for place, i in enumerate(columns):
                    line.append(GAP if place else "")
                    for piece, style in _pieces(texts[place], styles[i]):
                        line.append(piece, style=style)
                line.rstrip()
                yield line


def _pieces(text: str, styles: str) -> Iterator[tuple[str, str]]:
    """Parts of a cell, each with its style; all of it with one, where it has one only."""
    parts, each = text.split(" | "), styles.split("|")
    if len(parts) != len(each):
        yield text, each[0]
        return
    for number, (part, style) in enumerate(zip(parts, each, strict=True)):
        bare = part.strip()
        before, after = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
        yield (" | " if number else "") + before, ""
        yield bare, style
        yield after, ""


def _set(text: str, width: int, side: str) -> str:
    """Text on one side of a column."""
    space = " " * (width - cell_len(text))
    return space + text if side == "right" else text + space
