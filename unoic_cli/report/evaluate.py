"""What `evaluate` counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from unoic_cli.commands.images import WORST
from unoic_cli.metrics import ABSENT_RULES
from unoic_cli.metrics import title as title_of
from unoic_cli.report.common import (
    add_gains,
    cell,
    colour,
    facts,
    metric_grid,
    metric_table,
    percent,
    signed,
    units,
    value_of,
)
from unoic_cli.report.layout import Grid, Said
from unoic_cli.report.sheet import Column, Sheet, of_gains, of_metrics

if TYPE_CHECKING:
    from unoic_cli.commands.evaluate import EvaluateResult
    from unoic_cli.commands.images import Images
    from unoic_cli.commands.paired import Change, Difference, McNemar

MOST_CHANGES = 10
MOST_CLASSES = 40
"""Classes in the terminal table; of more, those of lowest recall."""


def render_evaluate(result: EvaluateResult) -> RenderableType:
    """Metrics over all, per group and per class."""
    about = [
        ("data", f"{result.overall.n:,} labelled, {result.overall.n_ignored:,} ignored"),
        ("lambda", f"{result.lam:g}" + (f", temperature {result.temperature:g}" if result.temperature != 1 else "")),
        *([] if result.absent == "reference" else [("absent classes", ABSENT_RULES[result.absent])]),
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
    if result.difference is not None:
        about.append(("decided otherwise", _moved(result.overall.n, result.difference)))
        about.append(("accuracy", _mcnemar(result.difference.mcnemar)))
    if result.met:
        about.append(("required", ", ".join(f"{one.term} {'holds' if one.holds else 'fails'}" for one in result.met)))
    parts: list[RenderableType] = [facts(about), Text(), _metrics(result), Text(), _classes(result)]
    if result.difference is not None and result.difference.changes:
        parts += [Text(), _changes(result, result.difference.changes)]
    if result.images is not None:
        parts += [Text(), *_images(result.images)]
    if result.confusion is not None:
        parts += [Text(), _confusion(result)]
    return Group(*parts)


def _metrics(result: EvaluateResult) -> RenderableType:
    """Of all, before and after, with the difference and its interval; and of each group."""
    rows = [("all", result.overall.values)]
    if result.groups is not None:
        rows += [(name, group.values) for name, group in result.groups.items()]
    if result.difference is None or result.before is None:
        return metric_table(rows, result.metrics, units(result.metrics), 0)
    table = metric_grid([("as it is", result.before.values), ("after", result.overall.values)], result.metrics)
    add_gains(table, result.metrics, result.difference.gain, "difference")
    for label, values in rows[1:]:
        table.add_row(label, *(value_of(name, values.get(name)) for name in result.metrics))
    return Group(Said(units(result.metrics)), table)


def evaluate_sheet(result: EvaluateResult) -> list[Sheet] | None:
    """Metrics: as it is, after, the difference with its interval, each group; then the classes. Nothing by images."""
    if result.images is not None:
        return None
    rows = [("all" if result.before is None else "after", result.overall.values)]
    rows = rows if result.before is None else [("as it is", result.before.values), *rows]
    more = [] if result.difference is None else of_gains(result.difference.gain, result.metrics, "difference")
    groups = [] if result.groups is None else [(name, group.values) for name, group in result.groups.items()]
    labelled = f"{result.overall.n:,} labelled"
    return [of_metrics([*rows, *more, *groups], result.metrics, labelled, len(rows)), _of_classes(result)]


def evaluate_flat(result: EvaluateResult) -> Sheet | None:
    """The same as one table: what a row is of (all, a group, a class) has a column. Nothing by images."""
    made = evaluate_sheet(result)
    if made is None:
        return None
    total, classes = made
    n_groups = len(result.groups or {})
    n_metrics, n_ratios = len(total.columns) - 1, len(classes.columns) - 1
    own = [Column("class f1" if one.head == "F1" else one.head.lower()) for one in classes.columns[1:]]
    of = ["all"] * (len(total.rows) - n_groups) + ["group"] * n_groups
    rows = [(row[0], what, *row[1:], *[None] * n_ratios) for what, row in zip(of, total.rows, strict=True)]
    rows += [(row[0], "class", *[None] * n_metrics, *row[1:]) for row in classes.rows]
    return Sheet((total.columns[0], Column("of"), *total.columns[1:], *own), tuple(rows))


def _of_classes(result: EvaluateResult) -> Sheet:
    """Each class, its recall before where there is one."""
    heads = ("recall", "precision", "iou", "f1")
    before = None if result.before is None else result.before.per_class(result.class_names)
    columns = [Column("class"), Column("support"), *([Column("recall as it is", percent=True)] if before else [])]
    columns += [Column({"iou": "IoU", "f1": "F1"}.get(name, name), percent=True) for name in heads]
    rows = []
    for i, row in enumerate(result.overall.per_class(result.class_names)):
        own = [before[i]["recall"]] if before else []
        rows.append((row["name"] or str(row["class"]), row["support"], *own, *(row[name] for name in heads)))
    return Sheet(tuple(columns), tuple(rows), about="of each class")


def _moved(n: int, difference: Difference) -> str:
    return f"{difference.moved:,} of {n:,} ({percent(difference.moved / n if n else None)} %) than as it is"


def _mcnemar(found: McNemar) -> str:
    """McNemar's test in words."""
    tests = {"binomial": "McNemar, exact", "chi-squared": "McNemar", "clusters": "by clusters"}
    p = "unknown" if found.p is None else f"{found.p:.2g}" if found.p >= 1e-4 else "below 0.0001"
    return f"{found.gained:,} right after alone, {found.lost:,} right before alone; p {p} ({tests[found.test]})"


def _changes(result: EvaluateResult, changes: Sequence[Change]) -> RenderableType:
    """The classes whose recall changes most."""
    table = Grid()
    table.add_column("class")
    for head in ("support", "before", "after", "change", "95 % from", "to"):
        table.add_column(head, justify="right")
    for one in changes[:MOST_CHANGES]:
        name = str(one.k) if result.class_names is None else result.class_names[one.k]
        ends = (signed("acc", end) for end in (one.change.gain, one.change.low, one.change.high))
        row = (name, f"{one.support:,}", percent(one.before), percent(one.after), *ends)
        table.add_row(*row, styles=["", "", "", "", *[colour(one.change)] * 3])
    some = (
        f"the {MOST_CHANGES} of {len(changes)} classes whose recall changes most"
        if len(changes) > MOST_CHANGES
        else None
    )
    return Group(Said(f"{some or 'classes whose recall changes, the largest change first'}; percent"), table)


def _images(images: Images) -> list[RenderableType]:
    """The spread over images, and the worst of them."""
    table = Grid()
    table.add_column("")
    for name in images.metrics:
        table.add_column(title_of(name), justify="right")
    found = [images.summary(name) for name in images.metrics]
    quartiles = [one["quartiles"] or [None] * 5 for one in found]
    rows = [("mean", [one["mean"] for one in found])]
    rows += [
        (label, [one[i] for one in quartiles]) for i, label in enumerate(("least", "25 %", "median", "75 %", "most"))
    ]
    for label, values in rows:
        table.add_row(label, *(value_of(name, value) for name, value in zip(images.metrics, values, strict=True)))
    gains = [images.gain(name) for name in images.metrics]
    known = [gain for gain in gains if gain is not None]
    if len(known) == len(gains):
        pairs = list(zip(images.metrics, known, strict=True))
        styles = ["", *map(colour, known)]
        for label, ends in (
            ("mean gain", [(name, one.gain) for name, one in pairs]),
            ("95 % from", [(name, one.low) for name, one in pairs]),
            ("to", [(name, one.high) for name, one in pairs]),
        ):
            table.add_row(label, *(signed(*end) for end in ends), styles=styles)
    worst = images.worst()
    bottom = Grid()
    bottom.add_column("image")
    bottom.add_column("pixels", justify="right")
    for name in images.metrics:
        bottom.add_column(title_of(name), justify="right")
    for i in worst:
        own = (value_of(name, float(images.values[name][i])) for name in images.metrics)
        bottom.add_row(images.name(i), f"{images.n[i]:,}", *own)
    empty = f" ({images.n_empty:,} more have no label)" if images.n_empty else ""
    above = f"each of {len(images.files):,} images by itself{empty}; {units(images.metrics)}"
    below = f"the {len(worst)} images of lowest {title_of(images.by)}; {units(images.metrics)}"
    return [Group(Said(above), table), Text(), Group(Said(below), bottom), *_losers(images)]


def _losers(images: Images) -> list[RenderableType]:
    """The images that are worse than they were."""
    found, name = images.losers(), images.by
    if not found or images.before is None:
        return []
    table = Grid()
    table.add_column("image")
    for head in ("pixels", "before", "after", "change"):
        table.add_column(head, justify="right")
    for i in found:
        before, after = float(images.before[name][i]), float(images.values[name][i])
        figures = value_of(name, before), value_of(name, after), signed(name, after - before)
        table.add_row(images.name(i), f"{images.n[i]:,}", *figures, styles=["", "", "", "", "red"])
    said = f"the {len(found)} images whose {title_of(name)} falls{' most' if len(found) == WORST else ''}"
    return [Text(), Group(Said(f"{said}; {units([name])}"), table)]


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
    for name in ("support", "predicted", "recall %", "precision %", "IoU %", "F1 %"):
        table.add_column(name, justify="right")
    for row in rows:
        ratios = (percent(row[name]) for name in ("recall", "precision", "iou", "f1"))
        support = "ignored" if row.get("ignored") else f"{row['support']:,}"
        table.add_row(row["name"] or str(row["class"]), support, f"{row['predicted']:,}", *ratios)
    return table if title is None else Group(Said(title), table)


def _confusion(result: EvaluateResult) -> RenderableType:
    assert result.confusion is not None
    n_classes = len(result.confusion)
    if n_classes > MOST_CLASSES:
        return Said(f"confusion matrix of {n_classes:,} classes: --format json", "")
    names = result.class_names or [str(k) for k in range(n_classes)]
    table = Grid()
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for name, row in zip(names, result.confusion.tolist(), strict=True):
        table.add_row(name, *(f"{count:,}" for count in row))
    return Group(Said("confusion, rows = truth"), table)


def evaluate_tsv(result: EvaluateResult) -> str:
    """A row for each class, or for each group or image where they are asked for, after a header line."""
    if result.images is not None:
        return _images_tsv(result.images)
    if result.groups is not None:
        lines = ["\t".join(["group", "n", "n_ignored", *result.overall.values])]
        for name, group in {"(all)": result.overall, **result.groups}.items():
            lines.append("\t".join([cell(name), str(group.n), str(group.n_ignored), *map(repr, group.values.values())]))
        return "\n".join(lines) + "\n"
    rows = result.overall.per_class(result.class_names)
    lines = ["\t".join(rows[0])]
    lines += ["\t".join("" if value is None else cell(str(value)) for value in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def _images_tsv(images: Images) -> str:
    ids = ["sample_id"] if images.ids is not None else []
    lines = ["\t".join(["file", "index", *ids, "n", *images.values])]
    for i, file in enumerate(images.files):
        name = [] if images.ids is None else [cell(images.ids[i])]
        values = (repr(float(one[i])) for one in images.values.values())
        lines.append("\t".join([cell(file), str(images.indices[i]), *name, str(images.n[i]), *values]))
    return "\n".join(lines) + "\n"
