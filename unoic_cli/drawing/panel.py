"""Segmentations side by side: a row for each image, a column for each method, and what the colours mean.

Sizes are in inches of the printed page. Nothing of pyplot is used, and no setting outlives a call.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unoic_cli.drawing.colours import IGNORED
from unoic_cli.drawing.page import SIZES
from unoic_cli.errors import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNCHANGED, RIGHT, WRONG, OTHER, UNLABELLED = range(5)
"""What became of a pixel: see `differences`."""
CHANGES = ("unchanged", "now right", "now wrong", "changed, both wrong", "changed, no label")
CHANGE_COLOURS = np.array([(238, 238, 238), (0, 114, 178), (213, 94, 0), (40, 40, 40), (204, 121, 167)], dtype=np.uint8)
"""Of `CHANGES`: blue and orange are told apart by all eyes."""
_GAP, _SWATCH, _LINE = 0.04, 0.09, 0.135
_TITLE, _TEXT, _SMALLEST = 7.5, 6.5, 5.0
"""Sizes of letters, in points."""
_TALLEST = 2.0
"""Height of a row over the width of its images."""
_DPI, _MOST_DPI = 300, 600
_LONGEST = 64
"""Letters of a name in a legend."""
_STYLE = {"svg.hashsalt": "unoic", "pdf.fonttype": 42, "font.family": ["DejaVu Sans"]}
_METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


@dataclass(frozen=True)
class Row:
    """One image.

    Attributes
    ----------
    title : str
    cells : tuple of (H, W, 3) uint8 or None
        Of each column; None leaves it empty. Their sizes may differ.
    """

    title: str
    cells: tuple[NDArray[np.uint8] | None, ...]


@dataclass(frozen=True)
class Key:
    """What a colour means; without one, a word beside the others."""

    name: str
    colour: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Panel:
    """All that is drawn.

    Attributes
    ----------
    columns : tuple of str
        Titles.
    rows : tuple of Row
    classes, changes : tuple of Key
        Legends; that of the classes stands in columns.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    classes: tuple[Key, ...] = ()
    changes: tuple[Key, ...] = ()


def coloured(classes: NDArray[Any], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Classes as colours, (H, W) to (H, W, 3); what is below 0 has no label.

    Examples
    --------
    >>> coloured(np.array([[1, -1]]), np.array([[0, 0, 0], [9, 8, 7]], dtype=np.uint8)).tolist()
    [[[9, 8, 7], [201, 201, 201]]]
    """
    known = np.concatenate([colours, np.array([IGNORED], dtype=np.uint8)])
    return np.asarray(known[np.where(classes < 0, len(colours), classes)])


def differences(labels: NDArray[Any], before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.uint8]:
    """What became of each pixel, as places in `CHANGES`, (H, W); labels below 0 are none.

    Examples
    --------
    >>> differences(np.array([1, 1, 1, 1, -1]), np.array([1, 0, 1, 0, 0]), np.array([1, 1, 0, 2, 1])).tolist()
    [0, 1, 2, 3, 4]
    """
    became = np.where(after == labels, RIGHT, np.where(before == labels, WRONG, OTHER))
    became = np.where(labels < 0, UNLABELLED, became)
    return np.where(before == after, UNCHANGED, became).astype(np.uint8)


def grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Measurements as shades, (H, W) to (H, W, 3): from their 1st percentile, black, to their 99th, white.

    Logarithms of them, where all are positive and these percentiles are more than twenty times apart; what is not
    finite is drawn as what has no label is.

    Examples
    --------
    >>> grey(np.array([[0.0, 5.0, 10.0]]))[0, :, 0].tolist()
    [0, 128, 255]
    """
    wide = values.astype(np.float64)
    known = np.isfinite(wide)
    low, high = np.percentile(wide[known], (1, 99)) if known.any() else (0.0, 0.0)
    if known.any() and wide[known].min() > 0 and high > 20 * low:
        wide, low, high = np.log(np.where(known, wide, 1)), math.log(low), math.log(high)
    share = np.clip((np.where(known, wide, low) - low) / (high - low or 1), 0, 1)
    shades = np.rint(255 * share).astype(np.uint8)[..., None].repeat(3, axis=2)
    shades[~known] = IGNORED
    return np.asarray(shades)


def most_across(n_columns: int, size: str) -> int:
    """Pixels that an image may have from left to right: more than those could not be drawn."""
    return max(1, math.floor(_cell_of(n_columns, SIZES[size]) * _MOST_DPI + 1e-6))


def _cell_of(n_columns: int, width: float) -> float:
    return (width - _GAP * (n_columns + 1)) / n_columns


def thinned(pixels: NDArray[Any], most: int) -> NDArray[Any]:
    """An image of at most so many pixels from left to right: every pixel that is left is one of those it had.

    Examples
    --------
    >>> thinned(np.arange(24).reshape(4, 6), 3).tolist()
    [[7, 9, 11], [19, 21, 23]]
    """
    high, wide = pixels.shape[:2]
    if wide <= most:
        return pixels
    rows, columns = (((2 * np.arange(n) + 1) * m // (2 * n)) for n, m in ((max(1, round(high * most / wide)), high),
                                                                          (most, wide)))  # fmt: skip
    return np.asarray(pixels[rows[:, None], columns])


def draw_panel(axes: Any, pixels: NDArray[np.uint8], title: str = "", aspect: str = "equal") -> None:
    """Draw one image into axes of matplotlib: every pixel a square of its own colour, none blurred.

    Parameters
    ----------
    axes : matplotlib axes
    pixels : (H, W, 3) uint8
        Such as `coloured` makes of classes.
    title : str
        Text above it, taken as it is.
    aspect : {"equal", "auto"}
        Whether pixels stay squares, or fill the axes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from unoic_cli.drawing.colours import palette
    >>> axes = Figure().add_subplot()
    >>> draw_panel(axes, coloured(np.array([[0, 1], [2, -1]]), palette(3)), "truth")
    >>> axes.images[0].get_array().shape
    (2, 2, 3)
    """
    axes.imshow(pixels, interpolation="nearest", aspect=aspect)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(linewidth=0.3, color="0.35")
    if title:
        axes.set_title(printable(title), fontsize=_TITLE, parse_math=False)


def draw(panel: Panel, form: str, size: str = "page") -> bytes:
    """The picture as a file; the same bytes every time.

    Parameters
    ----------
    panel : Panel
    form : {"png", "pdf", "svg"}
    size : {"page", "column"}
        See `SIZES`.
    """
    import matplotlib.style

    file = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.style.context(["default", _STYLE]):
        warnings.simplefilter("ignore")  # letters that the font lacks are boxes
        sheet = _Sheet(panel, SIZES[size])
        sheet.draw()
        sheet.figure.savefig(file, format=form, dpi=sheet.dpi, metadata=_METADATA[form])
    return file.getvalue()


class _Place(NamedTuple):
    """Where an entry of a legend stands, and its text."""

    left: float
    line: int
    text: str
    points: float


def _across(n: int, wide: float, room: float) -> tuple[int, float]:
    """How many entries of a legend stand in a line, and how far from one another, so that lines are about equal."""
    lines = math.ceil(n / max(1, int(room / wide))) if n else 1
    across = max(1, math.ceil(n / lines))
    return across, min(room / across, 1.5 * wide)


class _Sheet:
    """Where everything is on the page, measured from the upper left corner."""

    def __init__(self, panel: Panel, width: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.panel, self.width = panel, width
        self.figure = Figure(figsize=(width, 1.0), dpi=_DPI)
        self.renderer: Any = FigureCanvasAgg(self.figure).get_renderer()  # type: ignore[no-untyped-call]
        n = len(panel.columns)
        self.cell = _cell_of(n, width)
        largest = max((cell.shape[1] for row in panel.rows for cell in row.cells if cell is not None), default=1)
        self.dpi = int(min(max(_DPI, math.ceil(largest / self.cell)), _MOST_DPI))
        self.cell = self._snapped(self.cell)
        self.top = _GAP

    def _snapped(self, inches: float) -> float:
        """Whole pixels of the picture."""
        return max(1, math.floor(inches * self.dpi + 1e-6)) / self.dpi

    def draw(self) -> None:
        """Draw all of it: first it is found out how high the page is."""
        heights = [self._height(row) for row in self.panel.rows]
        legends = [self._places(self.panel.classes, even=True), self._places(self.panel.changes, even=False)]
        lines = sum(1 + one[-1].line for one in legends if one)
        total = 2 * _GAP + _LINE + sum(_LINE + height + _GAP for height in heights) + (lines + 0.6) * _LINE
        self.height = math.ceil(total * self.dpi) / self.dpi
        self.figure.set_size_inches(self.width, self.height)
        for j, title in enumerate(self.panel.columns):
            self._title(self._left(j) + self.cell / 2, title)
        self.top += _LINE
        for row, height in zip(self.panel.rows, heights, strict=True):
            self._row(row, height)
        self.top += 0.3 * _LINE
        for keys, places in zip((self.panel.classes, self.panel.changes), legends, strict=True):
            self._legend(keys, places)

    def _left(self, j: int) -> float:
        return self._snapped(_GAP + j * (self.cell + _GAP))

    def _height(self, row: Row) -> float:
        """Of the images of a row: of the highest of them, if that is not too much."""
        shares = [cell.shape[0] / cell.shape[1] for cell in row.cells if cell is not None]
        return self._snapped(self.cell * min(max(shares, default=1.0), _TALLEST))

    def _row(self, row: Row, height: float) -> None:
        title = self._fitting(row.title, self.width - 2 * _GAP, _TEXT)
        self._text(_GAP, self.top + 0.72 * _LINE, title[0], fontsize=title[1], va="baseline")
        self.top = self._snapped(self.top + _LINE)
        for j, cell in enumerate(row.cells):
            if cell is not None:
                self._image(cell, self._left(j), height)
        self.top += height + _GAP

    def _image(self, pixels: NDArray[np.uint8], left: float, height: float) -> None:
        """An image as large as fits, in the middle of its cell."""
        share = pixels.shape[0] / pixels.shape[1]
        width = self._snapped(min(self.cell, height / share))
        high = self._snapped(min(height, width * share + 0.5 / self.dpi))
        left, top = left + self._snapped((self.cell - width) / 2 + 1 / self.dpi) - 1 / self.dpi, self.top
        top += max(0.0, self._snapped((height - high) / 2 + 1 / self.dpi) - 1 / self.dpi)
        box = left / self.width, 1 - (top + high) / self.height, width / self.width, high / self.height
        draw_panel(self.figure.add_axes(box), pixels, aspect="auto")

    def _title(self, middle: float, title: str) -> None:
        text, points = self._fitting(title, self.cell, _TITLE)
        self._text(middle, self.top + 0.75 * _LINE, text, fontsize=points, ha="center", va="baseline")

    def _text(self, left: float, top: float, text: str, **how: Any) -> Any:
        return self.figure.text(left / self.width, 1 - top / self.height, text, parse_math=False, **how)

    def _wide(self, text: str, points: float) -> float:
        """Width of a text."""
        made = self.figure.text(0, 0, text, fontsize=points, parse_math=False)
        found = made.get_window_extent(self.renderer).width / _DPI
        made.remove()
        return float(found)

    def _fitting(self, text: str, width: float, points: float) -> tuple[str, float]:
        """A text, and letters of which it fits; where even small ones do not, without its middle."""
        text = printable(text)
        wide = self._wide(text, points)
        if wide > width:
            points = max(_SMALLEST, points * width / wide)
        kept = len(text)
        while kept > 2 and self._wide(text, points) > width:
            kept -= max(1, kept // 16)
            half = kept // 2
            text = f"{text[:half].rstrip('…')}…{text[len(text) - half :].lstrip('…')}"
        return text, points

    def _places(self, keys: Sequence[Key], even: bool) -> list[_Place]:
        """Where the entries of a legend stand; `even` ones below one another."""
        room = self.width - 2 * _GAP
        texts = [self._fitting(key.name[:_LONGEST], room / 2 - 1.5 * _SWATCH - 3 * _GAP, _TEXT) for key in keys]
        if even and texts:
            smallest = min(points for _, points in texts)
            texts = [(text, smallest) for text, _ in texts]
        wide = [self._wide(*text) + (1.5 * _SWATCH if key.colour else 0) for text, key in zip(texts, keys, strict=True)]
        across, step = _across(len(keys), max(wide, default=0.0) + 2 * _GAP, room)
        places, left, line = [], 0.0, 0
        for i, (text, one) in enumerate(zip(texts, wide, strict=True)):
            if even:
                left, line = (i % across) * step, i // across
            elif left and left + one > room:
                left, line = 0.0, line + 1
            places.append(_Place(_GAP + left, line, *text))
            left += one + 3 * _GAP
        return places

    def _legend(self, keys: Sequence[Key], places: Sequence[_Place]) -> None:
        from matplotlib.patches import Rectangle

        for key, (left, line, name, points) in zip(keys, places, strict=True):
            base = self.top + (line + 0.75) * _LINE
            if key.colour is not None:
                corner = left / self.width, 1 - base / self.height
                extent = _SWATCH / self.width, _SWATCH / self.height
                colour = "#{:02x}{:02x}{:02x}".format(*key.colour)
                how: Any = {"facecolor": colour, "edgecolor": "0.35", "linewidth": 0.3}
                self.figure.add_artist(Rectangle(corner, *extent, transform=self.figure.transFigure, **how))
                left += 1.5 * _SWATCH
            self._text(left, base, name, fontsize=points, va="baseline")
        self.top += (1 + places[-1].line) * _LINE if places else 0
