"""Words beside points, where they hide neither one another nor a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.plots.look import SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_GAP = 5.0
"""Points between a mark and its label."""
_WIDE, _HIGH = 0.6, 1.25
"""Of a character, in its size: a guess on the safe side."""


class Labels:
    """Puts labels where there is room; those without any are left out.

    Parameters
    ----------
    ax : Axes
        With its limits set.
    lines : sequence of (n, 2) float64
        What labels must not hide, in data coordinates.
    """

    def __init__(self, ax: Axes, lines: Sequence[NDArray[np.float64]]) -> None:
        self.ax = ax
        figure: Any = ax.get_figure(root=True)
        figure.draw_without_rendering()  # the layout decides where points are
        self.unit = figure.dpi / 72
        drawn = [_dense(ax.transData.transform(line)) for line in lines if len(line)]
        self.taken = np.concatenate([*drawn, np.empty((0, 2))])
        self.boxes: list[NDArray[np.float64]] = []

    def add(self, at: tuple[float, float], text: str, colour: str) -> bool:
        """Label a point; whether there was room."""
        from matplotlib.patheffects import withStroke

        place = np.asarray(self.ax.transData.transform(at))
        size = np.array([_WIDE * len(text), _HIGH]) * SMALL * self.unit
        for side in map(np.array, _SIDES):
            low = place + side * (_GAP * self.unit + size / 2) - size / 2
            box = np.stack([low, low + size])
            if self._free(box):
                self.boxes.append(box)
                self.ax.annotate(
                    text, at, xytext=(side[0] * _GAP, side[1] * _GAP), textcoords="offset points", fontsize=SMALL,
                    color=colour, zorder=6,
                    ha=("center", "left", "right")[side[0]], va=("center", "bottom", "top")[side[1]],
                    path_effects=[withStroke(linewidth=1.5, foreground="white")],
                )  # fmt: skip
                return True
        return False

    def _free(self, box: NDArray[np.float64]) -> bool:
        low, high = box
        frame = self.ax.bbox
        within = low[0] >= frame.x0 and low[1] >= frame.y0 and high[0] <= frame.x1 and high[1] <= frame.y1
        hides = ((self.taken > low) & (self.taken < high)).all(axis=1).any()
        crosses = any((low < other[1]).all() and (other[0] < high).all() for other in self.boxes)
        return bool(within and not hides and not crosses)


def _dense(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of a line, one for every few pixels."""
    line = line[np.isfinite(line).all(axis=1)]
    if len(line) < 2:
        return line
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at = np.linspace(0, way[-1], min(4000, 2 + int(way[-1] / 2)))
    return np.stack([np.interp(at, way, line[:, 0]), np.interp(at, way, line[:, 1])], axis=1)
