"""Pieces of terminal reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

METRIC_TITLES = {"acc": "acc", "macc": "mAcc", "miou": "mIoU", "f1": "F1"}
_BARS = "▁▂▃▄▅▆▇█"


def cell(text: str) -> str:
    """Text for one cell of tab-separated values."""
    return " ".join(text.split())


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as a percentage; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Two columns without lines: a name, and what there is to say."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def metric_table(
    rows: Sequence[tuple[str, dict[str, float]]], names: Sequence[str], title: str | None = None
) -> RenderableType:
    """Metrics in percent, one row for each setting, under a title that may be wider than the table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in names:
        table.add_column(METRIC_TITLES.get(name, name), justify="right")
    for label, values in rows:
        table.add_row(label, *(percent(values.get(name)) for name in names))
    return table if title is None else Group(Text(title, style="italic"), table)


def sparkline(values: Sequence[float], width: int = 61) -> str:
    """A curve as one line of block characters, from its smallest value to its largest."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    n = min(width, len(values))
    picked = [values[round(i * (len(values) - 1) / max(n - 1, 1))] for i in range(n)]
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[int((value - low) * scale + 0.5)] if math.isfinite(value) else " " for value in picked)
