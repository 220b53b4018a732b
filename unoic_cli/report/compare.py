"""Methods against conditions, as a terminal table, tab-separated values, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from unoic_cli.commands.compare import ALL
from unoic_cli.commands.sampled import Gain
from unoic_cli.metrics import in_percent, is_better, title
from unoic_cli.report.common import cell, colour, facts, metric_table, units, value_of
from unoic_cli.report.layout import Grid, Said
from unoic_cli.report.sheet import Cell, Column, Sheet

if TYPE_CHECKING:
    from unoic_cli.commands.compare import CompareResult, Row

MOST_IN_A_CELL = 2
"""Metrics; more have tables of their own."""


def _columns(result: CompareResult) -> list[str]:
    """Conditions, and the average where there are several."""
    return [*result.conditions, *(["average"] if len(result.conditions) > 1 else [])]


def _values(row: Row, column: str) -> dict[str, float]:
    """A row's metrics under a condition, or on average."""
    return row.cells[column].values if column in row.cells else row.average


def _title(result: CompareResult) -> str:
    return " | ".join(title(name) for name in result.metrics)


def _best(result: CompareResult, column: str, name: str) -> float:
    best = math.nan
    for row in result.rows:
        value = _shown(name, _values(row, column)[name])
        best = value if math.isnan(best) or is_better(name, value, best) else best
    return best


def _shown(name: str, value: float) -> float:
    """A value as it is printed."""
    return round(100 * value, 2) if in_percent(name) else round(value, 4)


def _is_best(result: CompareResult, row: Row, column: str, name: str) -> bool:
    return len(result.rows) > 1 and _shown(name, _values(row, column)[name]) == _best(result, column, name)


def _texts(result: CompareResult, row: Row, column: str) -> list[str]:
    return [value_of(name, _values(row, column)[name]) for name in result.metrics]


def _grid(result: CompareResult, names: Sequence[str], columns: Sequence[str]) -> Grid:
    """A row for each method, a column for each condition, or the other way round; the best of a condition is bold."""
    table = Grid()
    table.add_column("")
    cells = [
        [
            (
                " | ".join(value_of(name, _values(row, column)[name]) for name in names),
                "|".join("bold" if _is_best(result, row, column, name) else "" for name in names),
            )
            for column in columns
        ]
        for row in result.rows
    ]
    heads, labels = list(columns), [row.name for row in result.rows]
    if _sideways(result):
        heads, labels, cells = labels, heads, [list(found) for found in zip(*cells, strict=True)]
    for head in heads:
        table.add_column(head, justify="right")
    for label, found in zip(labels, cells, strict=True):
        table.add_row(label, *(text for text, _ in found), styles=["", *(style for _, style in found)])
    return table


def render_compare(result: CompareResult) -> RenderableType:
    """A row for each method, a column for each condition; the other way round where there are more conditions.

    Of one condition each metric has a column; of several, two metrics share a cell, and more have tables of their own.
    """
    mean = "; average: the plain mean over the conditions" if len(result.conditions) > 1 else ""
    parts: list[RenderableType] = [facts((row.name, row.about) for row in result.rows)]
    if len(result.conditions) == 1:
        rows = [(row.name, _values(row, result.conditions[0])) for row in result.rows]
        of = "" if result.conditions == (ALL,) else f"{result.conditions[0]}, "
        parts += [Text(), metric_table(rows, result.metrics, f"{of}{units(result.metrics)}")]
    elif len(result.metrics) <= MOST_IN_A_CELL:
        above = f"{_title(result)}, {units(result.metrics)}{mean}"
        parts += [Text(), Said(above), _grid(result, result.metrics, _columns(result))]
    else:
        for name in result.metrics:
            parts += [Text(), Said(f"{title(name)}, {units([name])}{mean}"), _grid(result, [name], _columns(result))]
    for name in result.metrics if result.against is not None else ():
        parts += [Text(), Said(f"{title(name)}: difference to {result.against}{_kind(result, name)}")]
        parts.append(_differences(result, name))
    return Group(*parts)


def _sideways(result: CompareResult) -> bool:
    """Whether conditions are rows."""
    return len(result.conditions) > len(result.rows)


def _kind(result: CompareResult, name: str) -> str:
    """What differences are written in, and whether they have intervals."""
    gains = (row.gain(column, name) for row in result.rows for column in _columns(result))
    known = any(gain is not None and math.isfinite(gain.se) for gain in gains)
    return (", points of percent" if in_percent(name) else "") + (", with its 95 % interval" if known else "")


def _differences(result: CompareResult, name: str) -> RenderableType:
    """What each method gains over one of them, laid out like the table of values."""
    table = Grid()
    table.add_column("")
    rows, columns = [row for row in result.rows if row.differences is not None], _columns(result)
    gains = [[row.gain(column, name) or Gain(math.nan) for column in columns] for row in rows]
    heads, labels = columns, [row.name for row in rows]
    if _sideways(result):
        heads, labels, gains = labels, heads, [list(found) for found in zip(*gains, strict=True)]
    for head in heads:
        table.add_column(head, justify="right")
    for label, found in zip(labels, gains, strict=True):
        styles = ["", *(colour(gain, higher=is_better(name, 1, 0)) for gain in found)]
        table.add_row(label, *(gain.signed(name) for gain in found), styles=styles)
    return table


def compare_tsv(result: CompareResult) -> str:
    """A row for each method and condition, with every metric as a fraction, and the method's lambda."""
    names = list(result.rows[0].average)
    lines = ["\t".join(["method", "condition", "n", *names, "lambda"])]
    for row in result.rows:
        lam = _lambda(row)
        for column in _columns(result):
            n = row.cells[column].n if column in row.cells else sum(one.n for one in row.cells.values())
            values = _values(row, column)
            lines.append(
                "\t".join([cell(row.name), cell(column), str(n), *(repr(values[name]) for name in names), lam])
            )
    return "\n".join(lines) + "\n"


def _lambda(row: Row) -> str:
    """A number, or ``depth=0.6,rgb=0.3`` where modalities have their own."""
    if row.lam is not None:
        return repr(row.lam)
    return ",".join(f"{name}={lam!r}" for name, lam in row.lams.items())


def compare_markdown(result: CompareResult) -> str:
    """A Markdown table; the best of each column is bold."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell(text).replace("|", "\\|") for text in cells) + " |"

    def marked(row: Row, column: str) -> str:
        best = [_is_best(result, row, column, name) for name in result.metrics]
        texts = zip(_texts(result, row, column), best, strict=True)
        return " | ".join(f"**{text}**" if one else text for text, one in texts)

    lines = [line([_title(result), *_columns(result)]), "| --- |" + " ---: |" * len(_columns(result))]
    lines += [line([row.name, *(marked(row, column) for column in _columns(result))]) for row in result.rows]
    return "\n".join(lines) + "\n"


def compare_sheet(result: CompareResult) -> list[Sheet]:
    """A row for each method, a column for each metric under each condition; then differences, with their intervals."""
    shown = _places(result)
    several = len(result.conditions) > 1
    columns = [Column(name, name, column if several else "") for column, name in shown]
    rows: list[tuple[Cell, ...]] = [
        (row.name, *(_values(row, column)[name] for column, name in shown)) for row in result.rows
    ]
    average = "; average: the plain mean over the conditions" if several else ""
    about = f"{_title(result)}, {units(result.metrics)}{average}"
    made = [Sheet((Column("method"), *columns), tuple(rows), about=about)]
    if result.against is not None:
        found = [(row, [row.gain(column, name) for column, name in shown]) for row in result.rows]
        ends = [
            (f"{row.name}{label}", *(None if gain is None else getattr(gain, end) for gain in gains))
            for row, gains in found
            if row.differences is not None
            for label, end in (("", "gain"), (", 95 % from", "low"), (", 95 % to", "high"))
        ]
        made.append(Sheet((Column("method"), *columns), tuple(ends), 0, f"difference to {result.against}{average}"))
    return made


def compare_flat(result: CompareResult) -> Sheet:
    """The same as one table: beside each value what is gained, and the ends of its interval, where that is known."""
    several, against = len(result.conditions) > 1, result.against is not None
    columns, ends = [Column("method")], ("gain", "low", "high") if against else ()
    rows: list[list[Cell]] = [[row.name] for row in result.rows]
    for column, name in _places(result):
        above = column if several else ""
        columns += [Column(name, name, above), *(Column(f"{name} {end}", "", above) for end in ends)]
        for row, cells in zip(result.rows, rows, strict=True):
            gain = row.gain(column, name) if against else None
            cells += [_values(row, column)[name], *(None if gain is None else getattr(gain, end) for end in ends)]
    return Sheet(tuple(columns), tuple(map(tuple, rows)))


def _places(result: CompareResult) -> list[tuple[str, str]]:
    """Conditions and metrics, as columns have them."""
    return [(column, name) for column in _columns(result) for name in result.metrics]
