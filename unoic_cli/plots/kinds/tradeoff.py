"""One metric against another along lambda."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.errors import UsageError
from unoic_cli.plots.kinds.curve import axis_label, fade, scaled, told, violated
from unoic_cli.plots.labels import Labels
from unoic_cli.plots.lambdas import inside, shown_range
from unoic_cli.plots.look import GREY, HATCHES, Style, add_legend, drawing, few_ticks, style
from unoic_cli.plots.results import SearchRun, runs_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from unoic_cli.plots.options import PlotOptions
    from unoic_cli.searches.choice import Constraint

ABOUT = "one metric against another along lambda"
INPUTS = "results of search-lambda (--format json), or states of it"
OPTIONS = ("x", "y", "range")
RATIO, PANELS = 0.82, 1
_X, _Y = "miou", "macc"
_ARROW = 0.4
"""Where along its curve, as a share of the curve's length, an arrow says which way lambda grows."""


def tradeoff(
    result: Any,
    ax: Axes | None = None,
    *,
    x: str = _X,
    y: str = _Y,
    range: str | Sequence[float] | None = None,
) -> Axes:
    """Draw one metric against another along lambda.

    Lambda 0 is a circle, lambda 1 a square, the chosen one filled; arrows point to where lambda grows, and what
    constraints rule out is hatched, or pale where they are on a third metric.

    Parameters
    ----------
    result : SearchResult, its dict, path, or several of these
        See `unoic_cli.plots.results.runs_of`.
    ax : Axes, optional
        Where to draw; by default in a figure of its own, 6.9 inches wide.
    x, y : str
        Metrics of the curve.
    range : str or (float, float), optional
        First and last lambda drawn; by default 0 and 2, and as far as lambdas are as good as the chosen one.

    Returns
    -------
    Axes
        The lines of the runs are first; metrics in percent are in percent there.

    Raises
    ------
    UnoicError
        No result of a search, or metrics that it lacks.

    Examples
    --------
    >>> import unoic_cli
    >>> from unoic_cli import plots
    >>> scores = [[2.0, 1.5], [2.0, 0.0], [1.0, 3.0]]
    >>> found = unoic_cli.search_lambda(scores, [1, 0, 1], source_prior=[3, 1])
    >>> ax = plots.tradeoff({"CE": found}, x="acc")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('acc (%)', 'mAcc (%)')
    """
    runs = runs_of(result)
    pair, ends = _pair(runs, x, y), shown_range(runs, range)
    with drawing(ax, RATIO) as ax:
        _draw(ax, runs, pair, ends)
    return ax


def load(inputs: Any, options: PlotOptions) -> tuple[SearchRun, ...]:
    """The runs that were named."""
    return runs_of(inputs)


def draw(runs: tuple[SearchRun, ...], ax: Axes, options: PlotOptions) -> dict[str, Any]:
    """Draw them, and say what was drawn."""
    pair, ends = _pair(runs, options["x"] or _X, options["y"] or _Y), shown_range(runs, options["range"])
    _draw(ax, runs, pair, ends)
    return {"runs": [told(run) for run in runs], "metrics": list(pair), "range": list(ends)}


def _pair(runs: Sequence[SearchRun], x: str, y: str) -> tuple[str, str]:
    """The two metrics, which every curve has."""
    one, other = (_of_all(runs, name, option) for name, option in ((x, "--x"), (y, "--y")))
    if one == other:
        raise UsageError("--y", f"{y!r}, which is --x too", "expected another metric")
    return one, other


def _of_all(runs: Sequence[SearchRun], name: str, option: str) -> str:
    found = [run.named(name, option) for run in runs]
    return found[0]


def _draw(ax: Axes, runs: Sequence[SearchRun], pair: tuple[str, str], ends: tuple[float, float]) -> None:
    looks = [style(i) for i, _ in enumerate(runs)]
    lines = [_line(ax, run, pair, ends, one) for run, one in zip(runs, looks, strict=True)]
    ax.margins(0.1)
    ax.autoscale_view()
    ax.set_xlabel(axis_label(pair[:1]), parse_math=False)
    ax.set_ylabel(axis_label(pair[1:]), parse_math=False)
    few_ticks(ax)
    named = dict.fromkeys(violated(one) for run in runs for one in run.constraints)
    hatches = dict(zip(named, itertools.cycle(HATCHES), strict=False))
    ruled = [_ruled_out(ax, run, one, pair, ends, hatches[violated(one)]) for run in runs for one in run.constraints]
    by_label = {one.get_label(): one for one in ruled if one is not None}
    add_legend(ax, [*_handles(runs, looks, ends), *by_label.values()])
    places = [np.stack([line.get_xdata(), line.get_ydata()], axis=1) for line in lines]
    for place, one in zip(places, looks, strict=True):
        _arrow(ax, place, one)
    labels = Labels(ax, places)
    for run, one in zip(runs, looks, strict=True):
        _marks(ax, run, pair, ends, one, labels)


def _line(ax: Axes, run: SearchRun, pair: tuple[str, str], ends: tuple[float, float], one: Style) -> Any:
    shown = inside(run, ends)
    x, y = (scaled(name, run.curve[name][shown]) for name in pair)
    return ax.plot(x, y, color=one.colour, linestyle=one.line, label=run.name, zorder=3)[0]


def _handles(runs: Sequence[SearchRun], looks: Sequence[Style], ends: tuple[float, float]) -> list[Any]:
    """What the legend has: runs where there are several, the lambdas of the lines, and the marks."""
    shown = [run.lams[inside(run, ends)] for run in runs]
    span = f"λ from {min(one[0] for one in shown):.4g} to {max(one[-1] for one in shown):.4g}"
    line = {"color": looks[0].colour, "linestyle": looks[0].line} if len(runs) == 1 else {"linestyle": ""}
    known = zip(runs, looks, strict=True)
    several = [_handle(run.name, one.marker, color=one.colour, linestyle=one.line) for run, one in known]
    chosen = looks[0].marker if len(runs) == 1 else "D"
    hollow = {"markerfacecolor": "white", "linestyle": "", "color": GREY}
    marks = [_handle("λ = 0", "o", **hollow), _handle("λ = 1", "s", **hollow)]
    return [
        *several[len(runs) == 1 :],
        _handle(span, "", **line),
        *marks,
        _handle("chosen λ", chosen, linestyle="", color=GREY),
    ]


def _handle(label: str, marker: str, **more: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, marker=marker, markersize=5, **more)


def _marks(
    ax: Axes, run: SearchRun, pair: tuple[str, str], ends: tuple[float, float], one: Style, labels: Labels
) -> None:
    """Lambda 0, lambda 1 and the chosen one, and their values where there is room."""
    for lam, marker, fill in ((0.0, "o", "white"), (1.0, "s", "white"), (run.lam, one.marker, one.colour)):
        at = tuple(float(scaled(name, run.at(name, lam))) for name in pair)
        if ends[0] <= lam <= ends[1] and np.isfinite(at).all():
            edge = "white" if fill == one.colour else one.colour
            ax.plot(
                *([value] for value in at), marker=marker, markerfacecolor=fill, markeredgecolor=edge, markersize=6,
                linestyle="", zorder=4 + (fill == one.colour),
            )  # fmt: skip
    for lam in dict.fromkeys((run.lam, 0.0, 1.0)):
        at = tuple(float(scaled(name, run.at(name, lam))) for name in pair)
        if ends[0] <= lam <= ends[1] and np.isfinite(at).all():
            labels.add((at[0], at[1]), f"λ = {lam:.4g}", one.colour)


def _arrow(ax: Axes, place: NDArray[np.float64], one: Style) -> None:
    """Point along the curve, to where lambda grows."""
    there = ax.transData.transform(place[np.isfinite(place).all(axis=1)])
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(there, axis=0).T))]) if len(there) > 1 else np.zeros(1)
    if way[-1] <= 0:
        return
    ends = [[np.interp(share * way[-1], way, there[:, i]) for i in (0, 1)] for share in (_ARROW, _ARROW + 0.02)]
    tail, head = ax.transData.inverted().transform(ends)
    ax.annotate(
        "", tuple(head), xytext=tuple(tail), zorder=3.5,
        arrowprops={"arrowstyle": "-|>", "color": one.colour, "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def _ruled_out(
    ax: Axes, run: SearchRun, constraint: Constraint, pair: tuple[str, str], ends: tuple[float, float], hatch: str
) -> Any:  # fmt: skip
    """Hatch the side of a bound where a constraint does not hold; of a third metric, pale the curve there."""
    name, bound = constraint.metric.name, run.bound(constraint)
    if name not in pair:
        x, y = (scaled(one, run.curve[one]) for one in pair)
        return fade(ax, x, y, run.forbidden(constraint) & inside(run, ends), violated(constraint))
    if not np.isfinite(bound):
        return None
    along, (low, high) = (ax.axvspan, ax.get_xlim()) if name == pair[0] else (ax.axhspan, ax.get_ylim())
    place = float(scaled(name, bound))
    first, last = (min(low, place), place) if ">" in constraint.comparison else (place, max(high, place))
    if first < last and first < high and last > low:
        return along(
            max(first, low), min(last, high), facecolor="none", edgecolor="0.6", hatch=hatch, linewidth=0,
            label=violated(constraint),
        )  # fmt: skip
    return None
