"""What `evaluate` counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from unoic_cli.report.common import cell, facts, metric_table, percent
from unoic_cli.report.layout import Grid

if TYPE_CHECKING:
    from unoic_cli.commands.evaluate import EvaluateResult

MOST_CLASSES = 40
"""Classes in the terminal table; of more, those of lowest recall."""


def render_evaluate(result: EvaluateResult) -> RenderableType:
    """Metrics over all, per group and per class."""
    about = [
        ("data", f"{result.overall.n:,} labelled, {result.overall.n_ignored:,} ignored"),
        ("lambda", f"{result.lam:g}" + (f", temperature {result.temperature:g}" if result.temperature != 1 else "")),
        ("absent classes", f"{result.absent}"),
    ]
    masked = result.details.get("masked_classes")
    if masked:
        about.append(("never predicted", f"{_names(result, masked)} (prior zero)"))
    if result.overall.ignored:
        about.append(("ignored classes", f"{_names(result, result.overall.ignored)} (in no mean)"))
    for name, modality in result.details.get("modalities", {}).items():
        delta = ", delta from statistics" if modality["delta"] else ""
        about.append((name, f"lambda {modality['lambda']:g}, temperature {modality['temperature']:g}{delta}"))
    if result.details.get("fusion"):
        weights = result.details.get("weights") or {}
        said = [result.details["fusion"], *(f"{name} {weight:.3g}" for name, weight in weights.items())]
        about.append(("fusion", ", ".join([*said, result.details["order"]])))
    rows = [("all", result.overall.values)]
    if result.groups is not None:
        rows += [(name, group.values) for name, group in result.groups.items()]
    parts: list[RenderableType] = [facts(about), Text(), metric_table(rows, result.metrics), Text(), _classes(result)]
    if result.confusion is not None:
        parts += [Text(), _confusion(result)]
    return Group(*parts)


def _names(result: EvaluateResult, classes: Sequence[int]) -> str:
    names = result.class_names
    named = [str(k) if names is None else names[k] for k in classes[:MOST_CLASSES]]
    return ", ".join(named) + (" ..." if len(classes) > MOST_CLASSES else "")


def _classes(result: EvaluateResult) -> RenderableType:
    rows = result.overall.per_class(result.class_names)
    title = None
    if len(rows) > MOST_CLASSES:
        title = f"the {MOST_CLASSES} classes of lowest recall (all of {len(rows)}: --format json)"
        rows = sorted(rows, key=lambda row: 2.0 if row["recall"] is None else row["recall"])[:MOST_CLASSES]
    table = Grid()
    table.add_column("class")
    for name in ("support", "predicted", "recall", "precision", "IoU", "F1"):
        table.add_column(name, justify="right")
    for row in rows:
        ratios = (percent(row[name]) for name in ("recall", "precision", "iou", "f1"))
        support = "ignored" if row.get("ignored") else f"{row['support']:,}"
        table.add_row(row["name"] or str(row["class"]), support, f"{row['predicted']:,}", *ratios)
    return table if title is None else Group(Text(title, style="italic"), table)


def _confusion(result: EvaluateResult) -> RenderableType:
    assert result.confusion is not None
    n_classes = len(result.confusion)
    if n_classes > MOST_CLASSES:
        return Text(f"confusion matrix of {n_classes} classes: --format json")
    names = result.class_names or [str(k) for k in range(n_classes)]
    table = Grid()
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for name, row in zip(names, result.confusion.tolist(), strict=True):
        table.add_row(name, *(f"{count:,}" for count in row))
    return Group(Text("confusion, rows = truth", style="italic"), table)


def evaluate_tsv(result: EvaluateResult) -> str:
    """A row for each class, or for each group when there are groups, after a header line."""
    if result.groups is not None:
        lines = ["\t".join(["group", "n", "n_ignored", *result.overall.values])]
        for name, group in {"(all)": result.overall, **result.groups}.items():
            lines.append("\t".join([cell(name), str(group.n), str(group.n_ignored), *map(repr, group.values.values())]))
        return "\n".join(lines) + "\n"
    rows = result.overall.per_class(result.class_names)
    lines = ["\t".join(rows[0])]
    lines += ["\t".join("" if value is None else cell(str(value)) for value in row.values()) for row in rows]
    return "\n".join(lines) + "\n"
