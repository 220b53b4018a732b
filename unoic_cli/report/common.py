"""Pieces of terminal reports."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from unoic_cli.errors import printable
from unoic_cli.metrics import in_percent, is_better, title
from unoic_cli.report.layout import Facts, Grid, Said

if TYPE_CHECKING:
    from unoic_cli.calibrations.calibration import Calibration, Modality
    from unoic_cli.commands.sampled import Gain


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
    names = list(names)
    others = [title(name) for name in names if not in_percent(name)]
    if names and len(others) == len(names):
        return "as it is" if len(others) == 1 else "as they are"
    how = "as it is" if len(others) == 1 else "as they are"
    return f"percent ({', '.join(others)}: {how})" if others else "percent"


def facts(rows: Iterable[tuple[str, str]], style: str = "dim") -> Facts:
    """Two columns without lines: a name, and what there is to say."""
    return Facts(tuple(rows), style)


def about_calibration(calibration: Calibration) -> list[tuple[str, str]]:
    """Priors, and what is special to each modality, for `facts`."""
    first, *others = calibration.modalities
    if not others and first.name is None:
        rows = [("source prior", first.source_prior.told)]
        if first.delta is not None:
            rows.append(("delta", _delta(first)))
        if first.offsets is not None:
            rows.append(("offsets", _offsets(first)))
    else:
        rows = [("fusion", f"{calibration.fusion}" + _weights(calibration))] if calibration.fusion else []
        for modality in calibration.modalities:
            parts = [f"source prior {modality.source_prior.told}" if calibration.lam else "not rebalanced"]
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
    return [*rows, ("target prior", calibration.target_prior.told)] if calibration.lam or not others else rows


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


def metric_grid(
    rows: Sequence[tuple[str, dict[str, float]]], names: Sequence[str], compared: int | None = None
) -> Grid:
    """Metrics, one row for each setting; of the first `compared` rows (by default all) the best values are bold."""
    table = Grid()
    table.add_column("")
    for name in names:
        table.add_column(title(name), justify="right")
    texts = [[value_of(name, values.get(name)) for name in names] for _, values in rows]
    n = len(rows) if compared is None else compared
    best = [best_of(name, [values.get(name) for _, values in rows[:n]]) for name in names]
    for number, ((label, _), cells) in enumerate(zip(rows, texts, strict=True)):
        bold = ["bold" if number < n and text == top else "" for text, top in zip(cells, best, strict=True)]
        table.add_row(label, *cells, styles=["", *bold])
    return table


def best_of(name: str, values: Sequence[float | None]) -> str | None:
    """The best value of a metric as it is shown; None where nothing is compared."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if len(values) < 2 or not finite:
        return None
    return value_of(name, functools.reduce(lambda one, other: other if is_better(name, other, one) else one, finite))


def metric_table(
    rows: Sequence[tuple[str, dict[str, float]]],
    names: Sequence[str],
    above: str | None = None,
    compared: int | None = None,
) -> RenderableType:
    """`metric_grid` under a title that may be wider than the table."""
    table = metric_grid(rows, names, compared)
    return table if above is None else Group(Said(above), table)


def add_gains(table: Grid, names: Sequence[str], gains: Mapping[str, Gain], label: str) -> None:
    """Three rows: what is gained, and the ends of its interval where one is known."""
    known = [gains.get(name) for name in names]
    styles = [
        "",
        *(
            "" if one is None else colour(one, higher=is_better(name, 1, 0))
            for name, one in zip(names, known, strict=True)
        ),
    ]
    ends = [(label, [None if one is None else one.gain for one in known])]
    if any(one is not None and math.isfinite(one.se) for one in known):
        ends.append(("95 % from", [None if one is None else one.low for one in known]))
        ends.append(("to", [None if one is None else one.high for one in known]))
    for head, values in ends:
        table.add_row(head, *(signed(name, value) for name, value in zip(names, values, strict=True)), styles=styles)


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
