"""Confidence against accuracy: whether probabilities mean what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.errors import DataError
from unoic_cli.plots.look import GREY, SMALL, add_legend, drawing, style
from unoic_cli.plots.results import Result, integers, numbers_of, result_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from unoic_cli.plots.options import PlotOptions

ABOUT = "accuracy against confidence, and how many units have it"
INPUTS = "one result of evaluate with a metric of probabilities, as --metrics ece (--format json), or a state of it"
OPTIONS = ()
RATIO, PANELS = 0.95, 1
_SCHEMAS = {"EvaluateResult": "unoic evaluate with --metrics ece"}
_BELOW, _HIGH = 0.06, 0.24
"""Of the histogram: its distance from the curves, and its height, in heights of these."""


@dataclass(frozen=True)
class Bins:
    """Units by their largest probability.

    Attributes
    ----------
    name : str
    edges : (M + 1,) float64
    count : (M,) int64
    accuracy, confidence : (M,) float64
        NaN of an empty bin.
    """

    name: str
    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    confidence: NDArray[np.float64]

    @property
    def ece(self) -> float:
        """The mean over units of the distance between accuracy and confidence of their bin."""
        known = self.count > 0
        gaps = self.count[known] * np.abs(self.accuracy[known] - self.confidence[known])
        return math.fsum(gaps.tolist()) / int(self.count.sum())


def reliability(result: Any, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of units against their confidence, before and after where something was applied.

    Parameters
    ----------
    result : EvaluateResult, dict, or path
        Of `evaluate` with a metric of probabilities (``metrics=["ece"]``).
    ax : Axes, optional
        Where to draw; by default in a figure of its own, 6.9 inches wide.

    Returns
    -------
    Axes
        The lines are first, in percent; the histogram of the units is ``ax.child_axes[0]``.

    Raises
    ------
    UnoicError
        No such result, or one without probabilities.

    Examples
    --------
    >>> import unoic_cli
    >>> from unoic_cli import plots
    >>> ax = plots.reliability(unoic_cli.evaluate([[2.0, 1.5], [2.0, 0.0], [1.0, 3.0]], [1, 0, 1], metrics=["ece"]))
    >>> [line.get_label() for line in ax.lines][:1]
    ['ECE = 0.287']
    """
    found = _found(result_of(result, "reliability", _SCHEMAS))
    with drawing(ax, RATIO) as ax:
        _draw(ax, found)
    return ax


def load(inputs: Any, options: PlotOptions) -> tuple[Bins, ...]:
    """The bins of the result that was named."""
    return _found(result_of(inputs, "reliability", _SCHEMAS))


def draw(found: tuple[Bins, ...], ax: Axes, options: PlotOptions) -> dict[str, Any]:
    """Draw them, and say what was drawn."""
    _draw(ax, found)
    return {"ece": {one.name: one.ece for one in found}}


def _found(result: Result) -> tuple[Bins, ...]:
    content, where = result.content.get("reliability"), result.where
    if not isinstance(content, Mapping):
        expected = "expected one with a metric of probabilities: unoic evaluate FILE --metrics ece --format json"
        raise DataError(where, "a result without confidence", expected)
    after = _bins("after", content.get("bins"), where, "reliability.bins")
    if content.get("before") is None:
        return (after,)
    return _bins("before", content.get("before"), where, "reliability.before"), after


def _bins(name: str, rows: Any, where: str, what: str) -> Bins:
    if not isinstance(rows, (list, tuple)) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(where, f"{what}: no list of bins", "expected bins of confidence")
    columns = {one: [row.get(one) for row in rows] for one in ("from", "to", "count", "accuracy", "confidence")}
    count = integers(columns.pop("count"), where, f"{what}.count")
    known = {one: numbers_of(values, where, f"{what}.{one}") for one, values in columns.items()}
    edges = np.append(known["from"], known["to"][-1])
    rates = np.stack([known["accuracy"], known["confidence"]])
    rising = (np.diff(edges) > 0).all() and edges[0] >= 0 and edges[-1] <= 1  # NaN neither
    inside = ((rates >= 0) & (rates <= 1 + 1e-9)) | (count == 0)
    if not rising or not inside.all() or not count.any():
        raise DataError(where, f"{what}: bins that make no sense", "expected shares in rising bins, and some unit")
    return Bins(name, edges, count, *np.where(count > 0, rates, np.nan))


def _draw(ax: Axes, found: tuple[Bins, ...]) -> None:
    lines, several = [], len(found) > 1
    for i, one in enumerate(found):
        look, there = style(i if not several else 1 - i), one.count > 0
        label = f"{one.name}, ECE = {one.ece:.3g}" if several else f"ECE = {one.ece:.3g}"
        lines += ax.plot(
            100 * one.confidence[there], 100 * one.accuracy[there], color=look.colour, linestyle=look.line,
            marker=look.marker, markersize=4, markerfacecolor="white" if several and not i else look.colour,
            label=label, zorder=4, clip_on=False,
        )  # fmt: skip
    ax.plot([0, 100], [0, 100], color=GREY, linewidth=0.7, linestyle=(0, (4, 3)), zorder=1, label="calibrated")
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 100)
    ax.set_ylabel("accuracy (%)")
    ax.tick_params(axis="x", labelbottom=False)
    _histogram(ax, found)
    add_legend(ax, [*lines, ax.lines[len(lines)]], foot=-_BELOW - _HIGH)


def _histogram(ax: Axes, found: tuple[Bins, ...]) -> None:
    """How many units have which confidence, below the curves."""
    below = ax.inset_axes((0.0, -_BELOW - _HIGH, 1.0, _HIGH))
    several = len(found) > 1
    for i, one in enumerate(found):
        look = style(i if not several else 1 - i)
        filled = not several or i == 1
        how: dict[str, Any] = {"color": look.colour, "alpha": 0.45, "linewidth": 0}
        if not filled:
            how = {"edgecolor": look.colour, "linewidth": 1.0}
        below.stairs(one.count, 100 * one.edges, fill=filled, zorder=3 - filled, **how)
    most = max(int(one.count.max()) for one in found)
    below.set_xlim(0, 100)
    below.set_ylim(0, 1.05 * most)
    below.set_yticks([0, most], labels=["0", f"{most:,}"])
    below.set_xlabel("confidence (%)")
    below.set_ylabel("units", fontsize=SMALL)
    for side in ("top", "right"):
        below.spines[side].set_visible(False)
