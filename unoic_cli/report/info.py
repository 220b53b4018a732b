"""What `info` found, for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from unoic_cli.report.common import facts
from unoic_cli.report.layout import Grid, Said
from unoic_cli.report.sheet import Cell, Column, Sheet

if TYPE_CHECKING:
    from unoic_cli.commands.explained import Explained
    from unoic_cli.commands.info import CountsInfo, FileInfo, InfoResult

MOST_CHARACTERS = 120
MOST_NAMES = 8
MOST_CLASSES = 40
"""Classes that are listed one by one; of more, the largest and the smallest."""


def render_info(result: InfoResult) -> RenderableType:
    """Facts, classes, warnings and next steps of each file, one below the other.

    Parameters
    ----------
    result : InfoResult
        As returned by `unoic_cli.commands.info.info`.
    """
    parts: list[RenderableType] = []
    for number, file in enumerate(result.files):
        if number:
            parts.append(Text())
        parts.extend(_file(file))
    for number, other in enumerate(result.explained, len(result.files)):
        if number:
            parts.append(Text())
        parts.extend(_explained(other))
    return Group(*parts)


class _Command:
    """A command line, broken as a shell allows it, so that it can be copied from a narrow terminal."""

    def __init__(self, line: str) -> None:
        self.line = line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Break before each option of a line that is too long."""
        line, text = self.line, f"  {self.line}"
        if len(text) > options.max_width and not {"'", '"'} & set(line):
            text = "  " + re.sub(r" (?=--?[a-z])", r" \\\n      ", line)
        yield Text(text, overflow="fold")


def _file(file: FileInfo) -> Iterator[RenderableType]:
    yield Said(file.name, "bold")
    yield facts(_facts(file))
    if file.labels is not None or file.predictions is not None or file.source_counts is not None:
        if file.n_classes > MOST_CLASSES:
            half = MOST_CLASSES // 2
            yield Said(f"the {half} most and the {half} least frequent of {file.n_classes:,} classes", "dim")
        yield _classes(file)
    for warning in file.warnings:
        yield Said(f"warning: {warning}", "yellow")
    yield from (Said(text, "") for text in file.advice)
    if file.next:
        yield Text("next:", style="bold")
        yield from map(_Command, file.next)


def _explained(other: Explained) -> Iterator[RenderableType]:
    yield Said(other.name, "bold")
    classes = [] if other.n_classes is None else [("classes", _classes_of(other))]
    head, *rest = other.about.items()
    yield facts([head, *classes, *rest])
    if other.next:
        yield Text("next:", style="bold")
        yield from map(_Command, other.next)


def _classes_of(other: Explained) -> str:
    names = other.class_names or ()
    names = () if names == tuple(map(str, range(len(names)))) else names
    listed = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
    return f"{other.n_classes:,}" + (f": {listed}" if names else "")


def _facts(file: FileInfo) -> Iterator[tuple[str, str]]:
    shape = ", ".join(map(str, file.shape))
    yield (
        "scores",
        f"{file.kind} ({shape}) {file.axes}" + (f", {file.encoding}, {file.layout}" if file.encoding else ""),
    )
    checked = "" if file.checksums is None else f", {'no' if file.checksums == 'none' else file.checksums} checksums"
    yield "storage", f"{file.format}, {file.storage}, {file.n_bytes:,} bytes{checked}"
    if file.read is not None:
        ways = {"chunks": "chunks, by any thread", "library": "the HDF5 library, one chunk at a time"}
        stored = "" if file.read.stored_mb_per_s is None else f", {file.read.stored_mb_per_s:,.0f} MB/s of the file"
        yield (
            "reading",
            f"{ways.get(file.read.path, file.read.path)}: {file.read.mb_per_s:,.0f} MB/s by each thread{stored}",
        )
    if file.image_shape:
        yield "units", f"{file.n_units:,} pixels in {file.n_samples:,} images"
    if file.split is not None:
        yield "only split", file.split
    yield from _value_facts(file)
    if file.labels is not None:
        yield from _count_facts("labels", file.labels)
    else:
        yield "labels", "none"
    if file.predictions is not None:
        yield from _count_facts("predictions", file.predictions)
    yield from _prior_facts(file)
    if file.splits:
        yield "splits", _counts(file.splits)
    if file.groups:
        yield "groups", _counts(file.groups)
    for name, value in file.attributes.items():
        yield (
            name,
            value if len(value) <= MOST_CHARACTERS else value[:MOST_CHARACTERS] + " ... (all of it: --format json)",
        )


def _value_facts(file: FileInfo) -> Iterator[tuple[str, str]]:
    if file.values is not None:
        bad = {"NaN": file.values.n_nan, "+inf": file.values.n_pos_inf, "-inf": file.values.n_neg_inf}
        listed = "".join(f", {count:,} {name}" for name, count in bad.items() if count)
        yield "values", f"{_range(file.values.minimum, file.values.maximum)}{listed}; they look like {file.values.look}"
    if file.delta is not None:
        yield "delta", f"{file.delta.form}, {_range(file.delta.minimum, file.delta.maximum)}"


def _prior_facts(file: FileInfo) -> Iterator[tuple[str, str]]:
    name = "source_counts" if file.source_counts is not None else "source_prior"
    if file.source_imbalance is not None:
        yield name, f"imbalance {file.source_imbalance:,.4g} : 1"
    elif file.source_counts is None and file.source_prior is None:
        yield "source prior", "not in the file"


def _range(minimum: float | None, maximum: float | None) -> str:
    return "nothing finite" if minimum is None or maximum is None else f"{minimum:.6g} to {maximum:.6g}"


def _count_facts(name: str, counted: CountsInfo) -> Iterator[tuple[str, str]]:
    text = f"{counted.dtype}, {sum(counted.counts):,} in {len(counted.counts) - counted.n_empty:,} classes"
    if counted.n_empty:
        text += f" ({counted.n_empty:,} never {'occurs' if counted.n_empty == 1 else 'occur'})"
    if counted.imbalance is not None:
        text += f", imbalance {counted.imbalance:,.4g} : 1"
    yield name, text
    if counted.ignored:
        yield "ignored", _counts(counted.ignored)
    if counted.n_outside:
        yield "out of range", _counts(counted.outside)


def _counts(counts: dict[str, int] | dict[int, int]) -> str:
    listed = [f"{name} ({count:,})" for name, count in list(counts.items())[:12]]
    return ", ".join(listed) + (", ..." if len(counts) > 12 else "")


def _classes(file: FileInfo) -> Grid:
    """Make a table of counts per class; of many classes, those at both ends of the distribution."""
    counted = file.labels or file.predictions
    weights = counted.counts if counted is not None else file.source_counts
    assert weights is not None
    shown = sorted(range(file.n_classes), key=lambda k: (-weights[k], k))
    if file.n_classes > MOST_CLASSES:
        half = MOST_CLASSES // 2
        shown = shown[:half] + shown[-half:]
    else:
        shown.sort()
    table = Grid()
    table.add_column("class", justify="right")
    if file.class_names is not None:
        table.add_column("name")
    if counted is not None:
        table.add_column("labels" if file.labels else "predictions", justify="right")
    if file.source_counts is not None:
        table.add_column("source", justify="right")
    for k in shown:
        cells = [str(k)]
        cells += [file.class_names[k]] if file.class_names is not None else []
        cells += [f"{counted.counts[k]:,}"] if counted is not None else []
        cells += [f"{file.source_counts[k]:,.10g}"] if file.source_counts is not None else []
        table.add_row(*cells)
    return table


def info_sheet(result: InfoResult) -> Sheet | None:
    """A row for each class of each logits file; nothing where there is none."""
    rows: list[tuple[Cell, ...]] = []
    for file in result.files:
        for k in range(file.n_classes):
            name = str(k) if file.class_names is None else file.class_names[k]
            source = None if file.source_counts is None else file.source_counts[k]
            counted = [None if one is None else one.counts[k] for one in (file.labels, file.predictions)]
            rows.append((file.name, k, name, *counted, source))
    heads = ("file", "class", "name", "labels", "predictions", "source")
    return Sheet(tuple(map(Column, heads)), tuple(rows), about="counts of each class") if rows else None
