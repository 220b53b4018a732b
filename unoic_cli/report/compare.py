"""Methods against conditions, as a terminal table, tab-separated values, Markdown and LaTeX."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from unoic_cli.commands.sampled import Gain
from unoic_cli.metrics import in_percent, is_better, title
from unoic_cli.report.common import cell, colour, facts, units, value_of
from unoic_cli.report.layout import Grid

if TYPE_CHECKING:
    from unoic_cli.commands.compare import CompareResult, Row


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


def _cells(result: CompareResult, row: Row, mark: str) -> list[str]:
    """Cells like ``61.20 | 70.35``; the best of a column is put into `mark` (a format string)."""
    cells = []
    for column in _columns(result):
        texts = []
        for name in result.metrics:
            value = _values(row, column)[name]
            best = len(result.rows) > 1 and _shown(name, value) == _best(result, column, name)
            texts.append(mark.format(value_of(name, value)) if best else value_of(name, value))
        cells.append(" | ".join(texts))
    return cells


def render_compare(result: CompareResult) -> RenderableType:
    """A row for each method, a column for each condition; the other way round where there are more conditions."""
    table = Grid()
    table.add_column("")
    sideways = _sideways(result)
    if sideways:
        for row in result.rows:
            table.add_column(row.name, justify="right")
        cells = [_cells(result, row, "{}") for row in result.rows]
        for column, *texts in zip(_columns(result), *cells, strict=True):
            table.add_row(column, *texts)
    else:
        for column in _columns(result):
            table.add_column(column, justify="right")
        for row in result.rows:
            table.add_row(row.name, *_cells(result, row, "{}"))
    above = f"{_title(result)}, {units(result.metrics)}"
    if len(result.conditions) > 1:
        above += "; average: the plain mean over the conditions"
    about = facts((row.name, row.about) for row in result.rows)
    parts: list[RenderableType] = [about, Text(), Text(above, style="italic"), table]
    for name in result.metrics if result.against is not None else ():
        parts += [Text(), Text(f"{title(name)}: difference to {result.against}{_kind(result, name)}", style="italic")]
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

    lines = [line([_title(result), *_columns(result)]), "| --- |" + " ---: |" * len(_columns(result))]
    lines += [line([row.name, *_cells(result, row, "**{}**")]) for row in result.rows]
    return "\n".join(lines) + "\n"


_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
_LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in cell(text))


def compare_latex(result: CompareResult) -> str:
    """A LaTeX tabular (packages: booktabs); the best of each column is bold."""
    columns = _columns(result)
    head = " & ".join(["", *map(_latex, columns)])
    lines = [
        f"% {_title(result)}, {units(result.metrics)}",
        rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
        r"\toprule",
        head + r" \\",
        r"\midrule",
    ]
    for row in result.rows:
        cells = [text.replace("|", "$|$") for text in _cells(result, row, r"\textbf{{{}}}")]
        lines.append(" & ".join([_latex(row.name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
