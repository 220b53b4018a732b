"""What `calibrate` wrote and changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from unoic_cli.metrics import NAMES
from unoic_cli.report.common import about_calibration, facts, metric_table, percent
from unoic_cli.report.search import about_gain, about_lambda

if TYPE_CHECKING:
    from unoic_cli.commands.calibrate import CalibrateResult


def render_calibrate(result: CalibrateResult) -> RenderableType:
    """Where it went, metrics before and after, and the classes that changed most."""
    temperature = 1.0 if result.calibration.fusion else result.calibration.temperature
    about = [
        ("output", f"{result.output or 'arrays'} ({result.emit}, {result.n_units:,} rows)"),
        ("lambda", f"{result.calibration.lam:g}" + (f", temperature {temperature:g}" if temperature != 1 else "")),
        *about_calibration(result.calibration),
        *([] if result.population is None else [("probabilities", result.population)]),
        *([] if result.fitted is None else [("chosen", about_lambda(result.fitted)), *about_gain(result.fitted)]),
    ]
    if result.calibration_output is not None:
        about.insert(1, ("calibration", result.calibration_output))
    parts: list[RenderableType] = [facts(about)]
    if result.before is not None and result.after is not None:
        rows = [("before", result.before.values), ("after", result.after.values)]
        if result.masked is not None:
            rows.insert(1, ("lambda 0, classes masked", result.masked.values))
        parts += [Text(), metric_table(rows, NAMES, f"percent; after: {result.after_is}")]
        changes = [*_changes("gained", result.gained), *_changes("lost", result.lost)]
        if changes:
            parts += [Text(), facts(changes)]
    return Group(*parts)


def _changes(title: str, rows: tuple[dict[str, Any], ...]) -> list[tuple[str, str]]:
    return [
        (
            title if i == 0 else "",
            f"{row['name'] or row['class']}: recall {percent(row['before'], 1)} -> {percent(row['after'], 1)} "
            f"({row['support']:,} of this class)",
        )
        for i, row in enumerate(rows)
    ]
