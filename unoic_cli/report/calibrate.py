"""What `calibrate` wrote and changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from unoic_cli.commands.search import about_lambda
from unoic_cli.metrics import NAMES
from unoic_cli.report.common import about_calibration, facts, metric_grid, percent, signed
from unoic_cli.report.layout import Grid, Said
from unoic_cli.report.search import gain_rows, gain_table
from unoic_cli.report.sheet import Sheet, of_metrics

if TYPE_CHECKING:
    from unoic_cli.commands.calibrate import CalibrateResult


def render_calibrate(result: CalibrateResult) -> RenderableType:
    """Where it went, metrics before and after, and the classes that changed most."""
    temperature = 1.0 if result.calibration.fusion else result.calibration.temperature
    written = f"{result.calibration.lam:g}" + (f", temperature {temperature:g}" if temperature != 1 else "")
    lam, as_well = written, []
    if result.fitted is not None:
        lam = about_lambda(result.fitted)
        if result.calibration.lam != result.fitted.lam:
            as_well = [("written as", f"lambda {written}: it decides as lambda {result.fitted.lam:g} does by itself")]
    about = [
        ("output", f"{result.output or 'arrays'} ({result.emit}, {result.n_units:,} rows)"),
        ("lambda", lam),
        *as_well,
        *about_calibration(result.calibration),
        *([] if result.population is None else [("probabilities", result.population)]),
    ]
    if result.calibration_output is not None:
        about.insert(1, ("calibration", result.calibration_output))
    parts: list[RenderableType] = [facts(about)]
    if result.before is not None and result.after is not None:
        rows = _settings(result)
        table = metric_grid(rows, NAMES)
        change = {name: result.after.values[name] - result.before.values[name] for name in NAMES}
        shades = (("green" if one > 0 else "red") if one else "" for one in change.values())
        table.add_row("change", *(signed(name, one) for name, one in change.items()), styles=["", *shades])
        parts += [Text(), Said(f"percent; after: {result.after_is}"), table]
        if result.fitted is not None:
            parts += gain_table(result.fitted)
        if result.gained or result.lost:
            parts += [Text(), Said("recall of the classes that gain and lose most, percent"), _changes(result)]
    return Group(*parts)


def _settings(result: CalibrateResult) -> list[tuple[str, dict[str, float]]]:
    """Before and after, and what masking changes by itself."""
    if result.before is None or result.after is None:
        return []
    masked = [] if result.masked is None else [("lambda 0, classes masked", result.masked.values)]
    return [("before (as it is)", result.before.values), *masked, ("after", result.after.values)]


def calibrate_sheet(result: CalibrateResult) -> Sheet | None:
    """Rows before, after, of the change, and of what a fitted lambda gains; nothing without labels."""
    rows, n = _settings(result), len(_settings(result))
    if result.before is None or result.after is None:
        return None
    rows.append(("change", {name: result.after.values[name] - result.before.values[name] for name in NAMES}))
    if result.fitted is not None:
        rows += gain_rows(result.fitted)
    return of_metrics(rows, NAMES, f"after: {result.after_is}", n)


def _changes(result: CalibrateResult) -> Grid:
    table = Grid()
    table.add_column("class")
    for head in ("support", "before", "after", "change"):
        table.add_column(head, justify="right")
    for style, rows in (("green", result.gained), ("red", result.lost)):
        for row in rows:
            figures = percent(row["before"]), percent(row["after"]), signed("acc", row["after"] - row["before"])
            table.add_row(
                str(row["name"] or row["class"]), f"{row['support']:,}", *figures, styles=["", "", "", "", style]
            )
    return table
