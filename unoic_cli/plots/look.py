"""How pictures look, and how one becomes bytes: the same ones every time.

Nothing here imports matplotlib before something is drawn, and nothing uses its state of the whole process (pyplot).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from unoic_cli.drawing.page import SIZES
from unoic_cli.errors import UsageError, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FLATTER = {"column": 1.0, "page": 0.66}
"""How much of its height over its width a picture keeps."""
_ROW = 0.145
"""Inches of a row of a legend."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of Okabe and Ito: told apart by the colour-blind, too."""
STYLES: tuple[Any, ...] = ("-", (0, (6, 1.5, 1.5, 1.5)), (0, (1.2, 1.2)), (0, (8, 2)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = "osD^vPX"
HATCHES = ("////", "\\\\\\\\", "....", "xxxx", "----", "||||", "oooo")
MOST_LINES = len(COLOURS) * len(STYLES)
"""Lines that differ in colour or style."""
GREY = "0.45"
SMALL = 7
"""Points, of what stands beside the data; 8 elsewhere."""
_LONGEST = 40
_LOOK: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "hatch.linewidth": 0.4,
    "hatch.color": "0.6",
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.hashsalt": "unoic",
    "text.parse_math": False,
}
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"Creator": "unoic", "Producer": None, "CreationDate": None},
    "svg": {"Creator": "unoic", "Date": None},
    "png": {"Software": "unoic"},
}


class Style(NamedTuple):
    """What tells a line from others, in colour and without."""

    colour: str
    line: Any
    marker: str


def style(i: int) -> Style:
    """Of the i-th line."""
    return Style(COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)], MARKERS[i % len(MARKERS)])


def library() -> Any:
    """Matplotlib.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError:
        expected = "expected it to be installed: pip install 'unoic[plot]'"
        raise UsageError("plot", "matplotlib, which is not installed", expected) from None
    return matplotlib


@contextlib.contextmanager
def look() -> Iterator[None]:
    """Matplotlib with settings of ours, and none of a user's, for a while."""
    mpl = library()
    with mpl.rc_context(), _quiet():
        known = dict.items(mpl.rcParamsDefault)
        mpl.rcParams.update({key: value for key, value in known if not key.startswith("backend")} | _LOOK)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of characters that a font lacks, or of what a later release will do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def new_figure(size: str, ratio: float, panels: int = 1) -> tuple[Figure, Any]:
    """An empty figure within `look`, and its axes.

    Parameters
    ----------
    size : {"column", "page"}
    ratio : float
        Height over width, of a column and without a legend; `add_legend` makes room for itself.
    panels : int
        Axes beside one another; one is returned as it is.
    """
    width = SIZES[size]
    height = round(width * ratio * _FLATTER[size], 2)
    figure = library().figure.Figure(figsize=(width, height), layout="constrained")
    figure.unoic_height = height  # so that it is known as one of ours
    return figure, figure.subplots(1, panels)


@contextlib.contextmanager
def drawing(ax: Any, ratio: float, panels: int = 1) -> Iterator[Any]:
    """The axes to draw into: those given, as they look, or new ones.

    Text is plain while it is drawn: a dollar sign in a name begins no formula.
    """
    if ax is None:
        with look():
            yield new_figure("page", ratio, panels)[1]
        return
    with library().rc_context({"text.parse_math": False}):
        yield ax


def to_bytes(figure: Figure, form: str) -> bytes:
    """A figure as a file of a form; the same figure gives the same bytes."""
    content = io.BytesIO()
    figure.savefig(content, format=form, metadata=_METADATA[form])
    return content.getvalue()


def label_of(text: str) -> str:
    r"""A name from a file as one line that can be drawn, and is not too long.

    Examples
    --------
    >>> label_of("a$b$\nc"), len(label_of("x" * 100))
    ('a$b$ c', 40)
    """
    line = one_line(re.sub(r"\s+", " ", text))
    return shortened(line, _LONGEST)


def grow(ax: Axes, inches: float) -> None:
    """Give a figure of ours another height, without its legend."""
    figure: Any = ax.get_figure(root=True)
    if hasattr(figure, "unoic_height"):
        figure.unoic_height = round(inches, 2)
        figure.set_figheight(figure.unoic_height)


def plain_ticks(axis: Any) -> None:
    """Labels of an axis that are names from files: a dollar sign begins no formula."""
    for text in axis.get_ticklabels():
        text.set_parse_math(False)


def shortened(name: str, most: int) -> str:
    """A name of at most so many letters.

    Examples
    --------
    >>> shortened("a long name", 6)
    'a lon…'
    """
    return name if len(name) <= most else name[: most - 1] + "…"


def distinct(names: Sequence[str], most: int) -> list[str]:
    """Names of at most so many letters, with their number where two would be the same.

    Examples
    --------
    >>> distinct(["a long name", "a long one", "other"], 6)
    ['a… [0]', 'a… [1]', 'other']
    """
    short = [shortened(name, most) for name in names]
    met = Counter(short)
    tags = [f" [{i}]" if met[one] > 1 else "" for i, one in enumerate(short)]
    return [
        f"{shortened(name, max(2, most - len(tag)))}{tag}" if tag else one
        for name, one, tag in zip(names, short, tags, strict=True)
    ]


def add_legend(
    ax: Axes, handles: Sequence[Any], below: float = 0.38, foot: float = 0.0, *, across: bool = False
) -> None:
    """A legend below the axes, where it hides nothing; a figure of ours grows with it.

    Parameters
    ----------
    ax : Axes
    handles : sequence of Artist
        Each with its label.
    below : float
        Inches from the axes, where their own labels are.
    foot : float
        Where that begins, in heights of the axes: what belongs to them may lie below.
    across : bool, optional
        In the middle of a figure of ours, not of the axes, which long names at their side may leave narrow.
    """
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    figure: Any = ax.get_figure(root=True)
    inches = figure.dpi_scale_trans
    ours = hasattr(figure, "unoic_height")
    middle = blended_transform_factory(figure.transFigure, ax.transAxes) if across and ours else ax.transAxes
    columns = columns_of([str(one.get_label()) for one in handles], ax.bbox.transformed(inches.inverted()).width)
    found = ax.legend(
        handles=list(handles), ncols=columns, loc="upper center", bbox_to_anchor=(0.5, foot), borderaxespad=0,
        bbox_transform=middle + ScaledTranslation(0, -below, inches), columnspacing=1.2, handletextpad=0.6,
        labelspacing=0.35,
    )  # fmt: skip
    for text in found.get_texts():
        text.set_parse_math(False)
    if ours:
        rows = -(-len(handles) // columns)
        figure.set_figheight(max(figure.get_figheight(), round(figure.unoic_height + _ROW * rows, 2)))


def columns_of(labels: Sequence[str], width: float) -> int:
    """How many columns a legend has, so that it is hardly wider than the axes.

    Parameters
    ----------
    labels : sequence of str
    width : float
        Of the axes, in inches.

    Examples
    --------
    >>> columns_of(["mIoU", "mAcc"], 2.6), columns_of(["a rather long label of a single run"] * 2, 2.6)
    (2, 1)
    """
    each = [0.46 + 0.048 * len(label) for label in labels]
    for columns in reversed(range(2, len(each) + 1)):
        rows, more = divmod(len(each), columns)  # the first columns are longer by one
        starts = [i * rows + min(i, more) for i in range(columns + 1)]
        if sum(max(each[a:b]) for a, b in itertools.pairwise(starts)) <= 1.2 * width:
            return columns
    return 1


def few_ticks(ax: Axes) -> None:
    """Round numbers along the lower axis, none too near to another."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
