"""Pieces of terminal reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from unoic_cli.errors import printable
from unoic_cli.metrics import in_percent, title
from unoic_cli.report.layout import Facts, Grid

if TYPE_CHECKING:
    from unoic_cli.calibrations.calibration import Calibration, Modality
    from unoic_cli.commands.sampled import Gain

_BARS = "▁▂▃▄▅▆▇█"


def cell(text: str) -> str:
    """Text for one cell of tab-separated values."""
    return printable(" ".join(text.split()))


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as a percentage; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def value_of(name: str, value: float | None) -> str:
    """A metric's value, as its kind is written."""
    return percent(value) if value is None or math.isnan(value) or in_percent(name) else f"{value:.4f}"


def units(names: Iterable[str]) -> str:
    """What metrics are shown in."""
    others = [title(name) for name in names if not in_percent(name)]
    how = "as it is" if len(others) == 1 else "as they are"
    return f"percent ({', '.join(others)}: {how})" if others else "percent"


def facts(rows: Iterable[tuple[str, str]], style: str = "dim") -> Facts:
    """Two columns without lines: a name, and what there is to say."""
    return Facts(tuple(rows), style)


def about_calibration(calibration: Calibration) -> list[tuple[str, str]]:
    """Priors, and what is special to each modality, for `facts`."""
    first, *others = calibration.modalities
    if not others and first.name is None:
        rows = [("source prior", first.source_prior.origin)]
        if first.delta is not None:
            rows.append(("delta", _delta(first)))
        if first.offsets is not None:
            rows.append(("offsets", _offsets(first)))
    else:
        rows = [("fusion", f"{calibration.fusion}" + _weights(calibration))] if calibration.fusion else []
        for modality in calibration.modalities:
            parts = [f"source prior {modality.source_prior.origin}" if calibration.lam else "not rebalanced"]
            if modality.share != 1.0:
                parts.insert(0, f"lambda {modality.share * calibration.lam:.6g}")
            if modality.temperature != 1.0:
                parts.append(f"temperature {modality.temperature:g}")
            if modality.delta is not None:
                parts.append(f"delta {_delta(modality)}")
            if modality.offsets is not None:
                parts.append(f"offsets {_offsets(modality)}")
            rows.append((str(modality.name), ", ".join(parts)))
    if calibration.order != "flatten-first":
        rows.append(("order", calibration.order))
    return [*rows, ("target prior", calibration.target_prior.origin)] if calibration.lam or not others else rows


def _delta(modality: Modality) -> str:
    assert modality.delta is not None
    made = modality.delta
    of = "of each pixel " if made.per == "pixel" else ""
    return f"{of}from mu {made.mu:.4g}, sigma {made.sigma:.4g}, power {made.power:g}"


def _offsets(modality: Modality) -> str:
    assert modality.offsets is not None
    return f"from {min(modality.offsets):.4g} to {max(modality.offsets):.4g}"


def _weights(calibration: Calibration) -> str:
    weights = calibration.weights or ()
    named = (f"{m.name} {weight:.3g}" for m, weight in zip(calibration.modalities, weights, strict=bool(weights)))
    return f", weights {', '.join(named)}" if len(set(weights)) > 1 else ""


def metric_table(
    rows: Sequence[tuple[str, dict[str, float]]], names: Sequence[str], above: str | None = None
) -> RenderableType:
    """Metrics, one row for each setting, under a title that may be wider than the table."""
    table = Grid()
    table.add_column("")
    for name in names:
        table.add_column(title(name), justify="right")
    for label, values in rows:
        table.add_row(label, *(value_of(name, values.get(name)) for name in names))
    return table if above is None else Group(Text(above, style="italic"), table)


def signed(name: str, value: float | None) -> str:
    """A difference of a metric, as its kind is written: in points of percent, or as it is."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{100 * value:+.2f}" if in_percent(name) else f"{value:+.4f}"


def colour(gain: Gain, *, higher: bool = True) -> str:
    """What is surely better is green, what is surely worse red."""
    if not gain.sure:
        return ""
    return "green" if (gain.low > 0) == higher else "red"


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """A curve as one line of block characters, from its smallest value to its largest."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    n = min(width, len(values))
    picked = [values[round(i * (len(values) - 1) / max(n - 1, 1))] for i in range(n)]
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[int((value - low) * scale + 0.5)] if math.isfinite(value) else " " for value in picked)
