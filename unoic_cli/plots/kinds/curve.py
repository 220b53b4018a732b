"""Metrics against lambda: the picture of a search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.errors import UsageError
from unoic_cli.metrics import in_percent, is_better, title
from unoic_cli.plots.lambdas import inside, shown_range
from unoic_cli.plots.look import GREY, HATCHES, SMALL, STYLES, Style, add_legend, drawing, few_ticks, label_of, style
from unoic_cli.plots.results import SearchRun, runs_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from unoic_cli.plots.options import PlotOptions
    from unoic_cli.searches.choice import Constraint

ABOUT = "metrics against lambda, of one search or several"
INPUTS = "results of search-lambda (--format json), or states of it"
OPTIONS = ("metric", "range")
RATIO, PANELS = 0.62, 1
_PAIR = ("miou", "macc")
AS_GOOD = "as good within one SE ({})"
"""Of the metric that was searched for."""
FEW_POINTS = 30
"""Of a curve: they are marked, as nothing is known of what lies between them."""
PALE = 0.35
_DASHES = (0, (4, 3))
_WIDE: dict[str, Any] = {"linewidth": 4.5, "alpha": 0.25, "solid_capstyle": "butt"}
_NEAR = 0.85
"""Inches between lambda 0 and 1 that their labels need."""


def curve(
    result: Any,
    ax: Axes | None = None,
    *,
    metrics: Sequence[str] | str | None = None,
    range: str | Sequence[float] | None = None,
) -> Axes:
    """Draw metrics against lambda.

    Of one run: the chosen lambda (a marker), the lambdas that are as good within one standard error (a band), where
    constraints do not hold (hatched), and the scores as they are (dashed). Of several: a line for each, thick where
    lambdas are as good, and pale where constraints do not hold.

    Parameters
    ----------
    result : SearchResult, its dict, path, or several of these
        See `unoic_cli.plots.results.runs_of`.
    ax : Axes, optional
        Where to draw; by default in a figure of its own, 6.9 inches wide.
    metrics : sequence of str, optional
        Of the curve. By default what was searched for, and mean IoU beside mean class accuracy.
    range : str or (float, float), optional
        First and last lambda shown; by default 0 and 2, and as far as lambdas are as good as the chosen one.

    Returns
    -------
    Axes
        The lines of the metrics are first, one run after the other; metrics in percent are in percent there.

    Raises
    ------
    UnoicError
        No result of a search, or metrics that it lacks or that have different units.

    Examples
    --------
    >>> import unoic_cli
    >>> from unoic_cli import plots
    >>> scores = [[2.0, 1.5], [2.0, 0.0], [1.0, 3.0]]
    >>> found = unoic_cli.search_lambda(scores, [1, 0, 1], source_prior=[3, 1])
    >>> ax = plots.curve(found, metrics=["acc"])
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('λ', 'acc (%)')
    """
    runs = runs_of(result)
    names, ends = metrics_of(runs, metrics), shown_range(runs, range)
    with drawing(ax, RATIO) as ax:
        _draw(ax, runs, names, ends)
    return ax


def load(inputs: Any, options: PlotOptions) -> tuple[SearchRun, ...]:
    """The runs that were named."""
    return runs_of(inputs)


def draw(runs: tuple[SearchRun, ...], ax: Axes, options: PlotOptions) -> dict[str, Any]:
    """Draw them, and say what was drawn."""
    names, ends = metrics_of(runs, options["metric"]), shown_range(runs, options["range"])
    _draw(ax, runs, names, ends)
    return {"runs": [told(run) for run in runs], "metrics": list(names), "range": list(ends)}


def told(run: SearchRun) -> dict[str, Any]:
    """A run for JSON."""
    interval = None if run.interval is None else list(run.interval)
    return {"name": run.name, "file": run.where, "lambda": run.lam, "interval": interval}


def metrics_of(runs: Sequence[SearchRun], asked: Sequence[str] | str | None) -> tuple[str, ...]:
    """The metrics to draw: those asked for, which every curve has, or what was searched for.

    Raises
    ------
    UsageError
        A curve lacks one; or they have no unit in common.
    """
    wanted = [asked] if isinstance(asked, str) else list(asked or _usual(runs))
    found = tuple(dict.fromkeys(name for one in wanted for name in {run.named(one): None for run in runs}))
    units = {in_percent(name) for name in found}
    if len(units) > 1:
        listed = ", ".join(map(title, found))
        raise UsageError("--metric", f"{listed}, which have no unit in common", "expected a plot of each unit")
    return found


def _usual(runs: Sequence[SearchRun]) -> list[str]:
    goal = runs[0].metric
    beside = [one for one in _PAIR if one in runs[0].curve and one != goal]
    return [goal, *beside] if len(runs) == 1 and goal in _PAIR else [goal]


def scaled(name: str, values: Any) -> Any:
    """Values in percent, where the metric is."""
    return 100 * values if in_percent(name) else values


def axis_label(names: Sequence[str]) -> str:
    """What an axis of these metrics is called.

    Examples
    --------
    >>> axis_label(["miou", "macc"]), axis_label(["ece"]), axis_label(["nll"])
    ('mIoU, mAcc (%)', 'ECE (%), less is better', 'NLL, less is better')
    """
    listed = ", ".join(label_of(title(name)) for name in names) + (" (%)" if in_percent(names[0]) else "")
    return f"{listed}, less is better" if not any(is_better(name, 1, 0) for name in names) else listed


def _draw(ax: Axes, runs: Sequence[SearchRun], names: Sequence[str], ends: tuple[float, float]) -> None:
    looks = {(i, name): _look(i, j, len(runs), len(names)) for i in _count(runs) for j, name in enumerate(names)}
    handles = [_line(ax, runs[i], name, one, _called(runs, names, i, name)) for (i, name), one in looks.items()]
    lines = list(handles)
    if len(runs) > 1 and len(names) > 1:
        handles = [*_of_runs(runs), *_of_metrics(names)]
    ax.set_xlim(*ends)
    ax.set_ylim(*_limits(runs, names, ends))
    ax.set_xlabel("λ")
    ax.set_ylabel(axis_label(names), parse_math=False)
    _mark_ends(ax, ends)
    for (i, name), one in looks.items():
        _bounds(ax, runs[i], name, one)
    more = _of_one(ax, runs[0], looks[0, names[0]]) if len(runs) == 1 else _of_several(ax, runs, looks, lines)
    few_ticks(ax)
    add_legend(ax, [*handles, *more, *_baselines(ax, runs, looks)])


def _count(runs: Sequence[SearchRun]) -> Sequence[int]:
    return tuple(index for index, _ in enumerate(runs))


def _look(run: int, metric: int, n_runs: int, n_metrics: int) -> Style:
    """Of one run a style for each metric; of several one for each run, or a colour for it and dashes for a metric."""
    if n_runs == 1:
        return style(metric)
    return style(run) if n_metrics == 1 else style(run)._replace(line=STYLES[metric % len(STYLES)])


def _called(runs: Sequence[SearchRun], names: Sequence[str], i: int, name: str) -> str:
    return label_of(title(name)) if len(runs) == 1 else _with_lambda(runs[i])


def _with_lambda(run: SearchRun) -> str:
    return f"{run.name} (λ = {run.lam:.4g}{', without offsets' if run.offsets else ''})"


def _line(ax: Axes, run: SearchRun, name: str, one: Style, label: str) -> Any:
    """The curve, and a marker at the chosen lambda."""
    y = scaled(name, run.curve[name])
    points: dict[str, Any] = {"marker": "o", "markersize": 2.5} if run.lams.size <= FEW_POINTS else {}
    line = ax.plot(run.lams, y, color=one.colour, linestyle=one.line, label=label, zorder=3, **points)[0]
    at = scaled(name, run.at(name, run.lam))
    ax.plot([run.lam], [at], linestyle="", zorder=4, **_marker(one))
    return line


def _marker(one: Style) -> dict[str, Any]:
    return {"marker": one.marker, "color": one.colour, "markersize": 5.5, "markeredgecolor": "white", "mew": 0.7}


def _of_runs(runs: Sequence[SearchRun]) -> list[Any]:
    """What stands for each run, where colours tell them apart."""
    from matplotlib.lines import Line2D

    looks = map(style, _count(runs))
    return [Line2D([], [], label=_with_lambda(run), **_marker(one)) for run, one in zip(runs, looks, strict=True)]


def _of_metrics(names: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    of = [STYLES[j % len(STYLES)] for j, _ in enumerate(names)]
    pairs = zip(names, of, strict=True)
    return [Line2D([], [], color=GREY, linestyle=line, label=label_of(title(name))) for name, line in pairs]


def _limits(runs: Sequence[SearchRun], names: Sequence[str], ends: tuple[float, float]) -> tuple[float, float]:
    """Of what is shown, with room for marks."""
    seen = [run.curve[name][inside(run, ends)] for run in runs for name in names]
    lines = [run.baseline.get(name, np.nan) for run in runs for name in names]
    bounds = [run.bound(one) for run in runs for one in run.constraints if one.metric.name in names]
    values = scaled(names[0], np.concatenate([*seen, lines]))
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = (high - low) or max(abs(high), 1.0) * 0.05
    near = [one for one in scaled(names[0], np.array(bounds)).tolist() if low - room < one < high + room]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.06 * (high - low or room), high + 0.1 * (high - low or room)


def _mark_ends(ax: Axes, ends: tuple[float, float]) -> None:
    """Lambda 0 and lambda 1, with their names where there is room for them."""
    figure: Any = ax.get_figure(root=True)
    inches = ax.bbox.width / figure.dpi
    room = inches / (ends[1] - ends[0]) >= _NEAR
    for at, name in ((0.0, "as it is"), (1.0, "rebalanced")):
        if ends[0] <= at <= ends[1]:
            ax.axvline(at, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
            if room:
                side: Any = "left" if at - ends[0] < 0.1 * (ends[1] - ends[0]) else "center"
                ax.annotate(
                    name, (at, 1), xycoords=ax.get_xaxis_transform(), xytext=(0, 2), textcoords="offset points",
                    ha=side, va="bottom", fontsize=SMALL, color=GREY,
                )  # fmt: skip


def _of_one(ax: Axes, run: SearchRun, one: Style) -> list[Any]:
    """The chosen lambda, the lambdas that are as good, and those that constraints rule out."""
    from matplotlib.lines import Line2D

    without = ", without offsets" if run.offsets else ""
    made: list[Any] = [Line2D([], [], linestyle="", label=f"chosen λ = {run.lam:.4g}{without}", **_marker(one))]
    if run.interval is not None:
        made.append(ax.axvspan(*run.interval, color="0.88", linewidth=0, zorder=0, label=_as_good([run])))
    hatched = zip(run.constraints, itertools.cycle(HATCHES), strict=False)
    return [*made, *(_ruled_out(ax, run, one, hatch) for one, hatch in hatched)]


def _ruled_out(ax: Axes, run: SearchRun, constraint: Constraint, hatch: str) -> Any:
    """Hatch where a constraint does not hold; returns what stands for that in the legend."""
    from matplotlib.patches import Patch

    how: dict[str, Any] = {"facecolor": "none", "edgecolor": "0.6", "hatch": hatch, "linewidth": 0}
    for first, last in _stretches(run.lams, run.forbidden(constraint)):
        ax.axvspan(first, last, zorder=0.5, **how)
    return Patch(label=violated(constraint), **how)


def violated(constraint: Constraint) -> str:
    """What a legend says of where a constraint does not hold."""
    return label_of(f"violates {constraint}".replace(">=", " ≥ ").replace("<=", " ≤ "))


def fade(ax: Axes, x: Any, y: Any, where: NDArray[np.bool_], label: str) -> Any:
    """Pale a line where a constraint does not hold; returns what stands for that in the legend, if there is any."""
    from matplotlib.lines import Line2D

    if not where.any():
        return None
    ax.plot(
        np.where(where, x, np.nan), np.where(where, y, np.nan), color="white", alpha=0.65, linewidth=1.6, zorder=3.2
    )
    return Line2D([], [], color="0.8", label=label)


def _stretches(lams: NDArray[np.float64], where: NDArray[np.bool_]) -> Iterator[tuple[float, float]]:
    """First and last lambda of each run of points, out to the middle between them and their neighbours."""
    edges = np.concatenate([lams[:1], (lams[1:] + lams[:-1]) / 2, lams[-1:]])
    changes = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(np.int8)))
    yield from zip(edges[changes[::2]].tolist(), edges[changes[1::2]].tolist(), strict=True)


def _bounds(ax: Axes, run: SearchRun, name: str, one: Style) -> None:
    """A line at the bound of each constraint on a metric that is shown."""
    for constraint in run.constraints:
        if constraint.metric.name == name and np.isfinite(run.bound(constraint)):
            ax.axhline(scaled(name, run.bound(constraint)), color=one.colour, linewidth=0.7, zorder=2)


def _of_several(
    ax: Axes, runs: Sequence[SearchRun], looks: dict[tuple[int, str], Style], lines: Sequence[Any]
) -> list[Any]:
    """Thicken each curve where its lambdas are as good as the best, and pale it where a constraint does not hold."""
    from matplotlib.lines import Line2D

    thick = [_thicken(ax, runs[i], name, one) for (i, name), one in looks.items()]
    made = [Line2D([], [], color=GREY, label=_as_good(runs), **_WIDE)] if any(thick) else []
    pale = [one for (i, _), line in zip(looks, lines, strict=True) for one in _faded(runs[i], line)]
    return [*made, *{one.get_label(): one for one in pale}.values()]


def _thicken(ax: Axes, run: SearchRun, name: str, one: Style) -> bool:
    """Where lambdas are as good as the best, if that is known."""
    if run.interval is None:
        return False
    good = inside(run, run.interval)
    ax.plot(run.lams[good], scaled(name, run.curve[name][good]), color=one.colour, zorder=2, **_WIDE)
    return True


def _faded(run: SearchRun, line: Any) -> list[Any]:
    """Pale a run's own line where its constraints do not hold: another that lies on it is seen as before."""
    from matplotlib.lines import Line2D

    ruled = [(one, run.forbidden(one)) for one in run.constraints]
    broken = [(one, where) for one, where in ruled if where.any()]
    if broken:
        allowed = ~np.logical_or.reduce([where for _, where in broken])
        line.set_alpha(PALE)
        ax, style_ = line.axes, {"color": line.get_color(), "linestyle": line.get_linestyle()}
        ax.plot(np.where(allowed, line.get_xdata(), np.nan), line.get_ydata(), zorder=3, **style_)
    return [Line2D([], [], color=GREY, alpha=PALE, label=violated(one)) for one, _ in broken]


def _as_good(runs: Sequence[SearchRun]) -> str:
    """What a legend says of lambdas that are as good."""
    goals = dict.fromkeys(label_of(title(run.metric)) for run in runs if run.interval is not None)
    return AS_GOOD.format(", ".join(goals) if len(goals) <= 2 else "of what each was searched for")


def _baselines(ax: Axes, runs: Sequence[SearchRun], looks: dict[tuple[int, str], Style]) -> list[Any]:
    """A dashed line at each metric of the scores as they are."""
    from matplotlib.lines import Line2D

    dashes: dict[str, Any] = {"linewidth": 0.7, "linestyle": _DASHES}
    known = [(runs[i].baseline[name], name, one) for (i, name), one in looks.items() if name in runs[i].baseline]
    for value, name, one in known:
        ax.axhline(scaled(name, value), color=one.colour, zorder=1.5, **dashes)
    return [Line2D([], [], color=GREY, label="scores as they are", **dashes)] if known else []
