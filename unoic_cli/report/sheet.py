"""Tables for papers and for programs: LaTeX and CSV of the same rows, every number in a cell of its own."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unoic_cli.errors import printable
from unoic_cli.metrics import in_percent, is_better, title
from unoic_cli.report.common import value_of

if TYPE_CHECKING:
    from unoic_cli.commands.sampled import Gain

Cell = str | int | float | None


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes
    ----------
    head : str
        For CSV, and for LaTeX where no metric is named.
    metric : str
        Its values are of this metric, as fractions.
    above : str
        What columns beside one another share: the condition that they are of.
    percent : bool
        Its values are fractions, and of no metric.
    """

    head: str
    metric: str = ""
    above: str = ""
    percent: bool = False


@dataclass(frozen=True)
class Sheet:
    """Rows of text and numbers.

    Attributes
    ----------
    columns : tuple of Column
    rows : tuple of tuple of (str, int, float or None)
    compared : int or None
        Of these first rows (None: of all) the best value of each metric is bold in LaTeX.
    about : str
        What it shows, in a comment of LaTeX.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    compared: int | None = None
    about: str = ""


def of_metrics(
    rows: Sequence[tuple[str, dict[str, float]]], names: Sequence[str], about: str = "", compared: int | None = None
) -> Sheet:
    """Metrics, a row for each setting."""
    columns = (Column("setting"), *(Column(name, name) for name in names))
    return Sheet(
        columns, tuple((label, *(values.get(name) for name in names)) for label, values in rows), compared, about
    )


def of_gains(
    gains: Mapping[str, Gain], names: Sequence[str], label: str, more: str = ""
) -> list[tuple[str, dict[str, float]]]:
    """Rows of what metrics gain, and of the ends of its interval; `more` tells them from other rows."""
    found = {name: gains[name] for name in names if name in gains}
    ends = (f"{label}{more}", "gain"), (f"95 % from{more}", "low"), (f"95 % to{more}", "high")
    return [(row, {name: getattr(one, end) for name, one in found.items()}) for row, end in ends] if found else []


def of_tsv(text: str, *, headed: bool) -> Sheet:
    r"""Tab-separated values as a table; without a head line they are names and values.

    Examples
    --------
    >>> of_tsv("class\tcount\na\t3\n", headed=True).rows
    (('a', 3),)
    """
    lines = [line.split("\t") for line in text.splitlines()]
    head, rows = (lines[0], lines[1:]) if headed else (["name", "value"], lines)
    return Sheet(tuple(map(Column, head)), tuple(tuple(map(_read, row)) for row in rows))


def _read(text: str) -> Cell:
    """Text, or the number that it is."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if str(value) == text:
            return value
    return text or None


def sheet_csv(sheet: Sheet) -> str:
    r"""Comma-separated values: fractions with all their digits, nothing where there is no value.

    Examples
    --------
    >>> print(sheet_csv(of_metrics([("as it is", {"acc": 0.1}), ("a, b", {"acc": float("nan")})], ["acc"])), end="")
    setting,acc
    as it is,0.1
    "a, b",
    """
    written = io.StringIO()
    made = csv.writer(written, lineterminator="\n")
    made.writerow(f"{one.above} {one.head}".strip() for one in sheet.columns)
    for row in sheet.rows:
        made.writerow(_plain(cell) for cell in row)
    return written.getvalue()


def _plain(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    return repr(float(cell)) if isinstance(cell, float) else printable(" ".join(str(cell).split()))


_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
_LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


def escaped(text: str) -> str:
    r"""Text as LaTeX shows it.

    Examples
    --------
    >>> print(escaped("50 % of a_b"))
    50 \% of a\_b
    """
    return "".join(_LATEX.get(c, c) for c in printable(" ".join(text.split())))


def sheet_latex(sheet: Sheet) -> str:
    r"""A LaTeX tabular (package booktabs); units stand in the heads, and the best of each metric is bold.

    Examples
    --------
    >>> print(sheet_latex(of_metrics([("as it is", {"acc": 0.1}), ("chosen", {"acc": 0.25})], ["acc"])), end="")
    % needs \usepackage{booktabs}
    \begin{tabular}{lr}
    \toprule
     & acc (\%) \\
    \midrule
    as it is & 10.00 \\
    chosen & \textbf{25.00} \\
    \bottomrule
    \end{tabular}
    """
    words = [
        not one.metric and any(isinstance(row[i], str) for row in sheet.rows) for i, one in enumerate(sheet.columns)
    ]
    lines = [f"% {printable(' '.join(sheet.about.split()))}"] if sheet.about else []
    lines += [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{''.join('l' if one else 'r' for one in words)}}}",
        r"\toprule",
        *_above(sheet),
        " & ".join(_head(one) for one in sheet.columns) + r" \\",
        r"\midrule",
    ]
    best = [_best(sheet, i) for i in range(len(sheet.columns))]
    for number, row in enumerate(sheet.rows):
        cells, among = [], sheet.compared is None or number < sheet.compared
        for i, (one, cell) in enumerate(zip(sheet.columns, row, strict=True)):
            text = _shown(one, cell)
            cells.append(rf"\textbf{{{text}}}" if among and best[i] is not None and text == best[i] else text)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _above(sheet: Sheet) -> list[str]:
    """A line of what columns share, with rules beneath."""
    if not any(one.above for one in sheet.columns):
        return []
    cells, rules, place = [], [], 1
    for above, group in itertools.groupby(one.above for one in sheet.columns):
        n = len(list(group))
        cells += [rf"\multicolumn{{{n}}}{{c}}{{{escaped(above)}}}"] if above else [""] * n
        rules += [rf"\cmidrule(lr){{{place}-{place + n - 1}}}"] if above else []
        place += n
    return [" & ".join(cells) + r" \\", " ".join(rules)]


def _head(one: Column) -> str:
    if not one.metric:
        return "" if one.head in ("setting", "method") else escaped(one.head + (" (%)" if one.percent else ""))
    return escaped(title(one.metric) + (" (%)" if in_percent(one.metric) else ""))


def _shown(one: Column, cell: Cell) -> str:
    if isinstance(cell, str):
        return escaped(cell)
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "--"
    if one.metric:
        return value_of(one.metric, float(cell)).replace("-", "$-$")
    if one.percent:
        return f"{100 * float(cell):.2f}".replace("-", "$-$")
    return (str(cell) if isinstance(cell, int) else f"{cell:.6g}").replace("-", "$-$")


def _best(sheet: Sheet, i: int) -> str | None:
    """The best value of a metric, as it is shown; None where nothing is compared."""
    metric = sheet.columns[i].metric
    rows = sheet.rows[: sheet.compared]
    values = [float(cell) for row in rows if isinstance(cell := row[i], (int, float)) and math.isfinite(cell)]
    if not metric or len(rows) < 2 or not values:
        return None
    found = values[0]
    for value in values[1:]:
        found = value if is_better(metric, value, found) else found
    return _shown(sheet.columns[i], found)
