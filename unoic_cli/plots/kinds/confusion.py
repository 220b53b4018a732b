"""Which classes are taken for which: the confusion matrix, each row of it as shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.errors import DataError
from unoic_cli.plots.kinds.classes import names_of
from unoic_cli.plots.look import GREY, SMALL, distinct, drawing, label_of, plain_ticks
from unoic_cli.plots.results import Result, integers, result_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from unoic_cli.plots.options import PlotOptions

ABOUT = "the confusion matrix; rows are the truth, and sum to 100 %"
INPUTS = "one result of evaluate --confusion (--format json), or a state of it"
OPTIONS = ()
RATIO, PANELS = 1.0, 1
NUMBERED = 20
"""Classes up to which there is a number in every cell."""
DOTS, MOST = 250, 1000
"""Rows up to which every cell is seen by itself; and classes, at most."""
_SCHEMAS = {"EvaluateResult": "unoic evaluate --confusion"}
_ROOM, _SMALLEST = 0.62, 4.0
"""Of the width of a figure what the matrix has; and letters, in points, below which nothing is written."""
_LETTERS = 4.2
"""Letters of a name for each inch of the figure."""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix.

    Attributes
    ----------
    counts : (K, K) int64
        Rows = truth.
    names : tuple of str
        (K,), as they are drawn.
    """

    counts: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def shares(self) -> NDArray[np.float64]:
        """Of each row, (K, K); NaN where a class has no label."""
        n = self.counts.sum(axis=1, keepdims=True)
        found = np.full(self.counts.shape, np.nan)
        np.divide(self.counts, n, out=found, where=n > 0)
        return found

    @property
    def side(self) -> int:
        """Rows, and columns, of cells that share a dot."""
        return -(-len(self.names) // DOTS)

    @property
    def dots(self) -> NDArray[np.float64]:
        """What is drawn: the shares, or the largest of the cells that share a dot."""
        shares, side = self.shares, self.side
        if side == 1:
            return shares
        starts = np.arange(0, len(shares), side)
        filled = np.where(np.isnan(shares), -1.0, shares)
        found = np.maximum.reduceat(np.maximum.reduceat(filled, starts, axis=0), starts, axis=1)
        return np.where(found < 0, np.nan, found)


def confusion(result: Any, ax: Axes | None = None) -> Axes:
    """Draw the confusion matrix, each row of it in percent.

    Parameters
    ----------
    result : EvaluateResult, dict, or path
        Of `evaluate` with ``confusion=True``, of at most 1,000 classes.
    ax : Axes, optional
        Where to draw; by default in a figure of its own, 6.9 inches wide.

    Returns
    -------
    Axes
        Its image has the shares, (K, K) in percent, masked where a class has no label (of more than 250 classes the
        largest of some neighbours); up to 20 classes, texts have them as whole numbers (``<1`` and ``>99`` next to 0
        and 100; no text is 0).

    Raises
    ------
    UnoicError
        No such result, one without the matrix, or too many classes.

    Examples
    --------
    >>> import unoic_cli
    >>> from unoic_cli import plots
    >>> ax = plots.confusion(unoic_cli.evaluate([[2.0, 1.5], [2.0, 0.0], [1.0, 3.0]], [1, 0, 1], confusion=True))
    >>> ax.images[0].get_array().tolist()
    [[100.0, 0.0], [50.0, 50.0]]
    """
    found = _found(result_of(result, "confusion", _SCHEMAS))
    with drawing(ax, RATIO) as ax:
        _draw(ax, found)
    return ax


def load(inputs: Any, options: PlotOptions) -> Matrix:
    """The matrix of the result that was named."""
    return _found(result_of(inputs, "confusion", _SCHEMAS))


def draw(found: Matrix, ax: Axes, options: PlotOptions) -> dict[str, Any]:
    """Draw it, and say what was drawn."""
    _draw(ax, found)
    return {"n_classes": len(found.names), "pooled": found.side}


def _found(result: Result) -> Matrix:
    rows, where = result.content.get("confusion"), result.where
    if rows is None:
        expected = "expected one that has it: unoic evaluate FILE --confusion --format json"
        raise DataError(where, "a result without a confusion matrix", expected)
    if not isinstance(rows, (list, tuple)) or not rows:
        raise DataError(where, "confusion: no rows", "expected K lists of K counts")
    if len(rows) > MOST:
        expected = f"expected {MOST:,} at most, whose cells can be seen"
        raise DataError(where, f"a confusion matrix of {len(rows):,} classes", expected)
    counts = np.stack([integers(row, where, f"confusion[{i}]", len(rows)) for i, row in enumerate(rows)])
    if int(counts.sum(axis=1, dtype=object).max()) >= 1 << 62:
        raise DataError(where, "confusion: counts beyond any data", "expected counts of units")
    return Matrix(counts, tuple(map(label_of, names_of(result.content, len(rows)))))


# ------------------------------------------------------------------------------------------------
# drawing


def _draw(ax: Axes, found: Matrix) -> None:
    import matplotlib as mpl
    from matplotlib.colors import PowerNorm

    n = len(found.names)
    shares = np.ma.masked_invalid(100 * found.dots)
    colours = mpl.colormaps["Blues"].with_extremes(bad="0.85")  # from light to dark, in grey too
    norm = PowerNorm(1.0 if n <= NUMBERED else 0.5, 0, 100)  # without numbers, small shares are to be seen
    end = len(shares) * found.side - 0.5  # the last dots may reach beyond the last class
    box = (-0.5, end, end, -0.5)
    image = ax.imshow(shares, cmap=colours, norm=norm, interpolation="nearest", aspect="equal", extent=box)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    if found.side > 1:
        text = f"a dot: the largest of {found.side} × {found.side} cells"
        ax.set_title(text, loc="left", fontsize=SMALL, color=GREY)
    for side in ("top", "right"):
        ax.spines[side].set_visible(True)
    unit = " (cells: % of the truth)" if n <= NUMBERED else ""  # the bar beside larger ones has it
    ax.set(xlabel=f"prediction{unit}", ylabel="truth")
    figure: Any = ax.get_figure(root=True)
    cell = 72 * _ROOM * figure.get_figwidth() / n
    _ticks(ax, found.names, cell, int(min(30.0, max(8.0, _LETTERS * figure.get_figwidth()))))
    if n <= NUMBERED:
        _numbers(ax, found, min(SMALL, max(_SMALLEST, 0.42 * cell)))
    else:
        bar = figure.colorbar(image, ax=ax, shrink=0.7, aspect=25, pad=0.02)
        bar.set_label("share of the truth (%)", fontsize=SMALL)
        bar.outline.set_linewidth(0.4)


def _ticks(ax: Axes, names: tuple[str, ...], cell: float, most: int) -> None:
    """Names of all classes where letters are large enough, else some of their numbers."""
    points = min(float(SMALL), 0.9 * cell)
    if points < _SMALLEST:
        from matplotlib.ticker import MaxNLocator

        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        return
    places, texts = range(len(names)), distinct(names, most)
    ax.set_xticks(places, labels=texts, rotation=90, fontsize=points)
    ax.set_yticks(places, labels=texts, fontsize=points)
    ax.tick_params(length=0 if len(names) > NUMBERED else 2)
    plain_ticks(ax.xaxis)
    plain_ticks(ax.yaxis)


def _numbers(ax: Axes, found: Matrix, points: float) -> None:
    """The share of every cell that is not 0."""
    shares = 100 * found.shares
    for i, j in np.argwhere(found.counts > 0).tolist():
        dark = "white" if shares[i, j] > 55 else "black"
        ax.text(j, i, in_words(shares[i, j]), ha="center", va="center", fontsize=points, color=dark)


def in_words(percent: float) -> str:
    """A share as a whole number that does not say 0 or 100 of what is not.

    Examples
    --------
    >>> [in_words(one) for one in (100.0, 99.6, 50.4, 0.2)]
    ['100', '>99', '50', '<1']
    """
    if percent < 0.5:
        return "<1"
    return ">99" if 99.5 <= percent < 100 else f"{percent:.0f}"
