"""What `show` drew, for a terminal and as tab-separated values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from unoic_cli.commands.changed import for_json
from unoic_cli.report.common import cell, facts, percent
from unoic_cli.report.layout import Grid

if TYPE_CHECKING:
    from unoic_cli.commands.show import ShowResult

_COUNTS = {"changed": "changed", "now_right": "now right", "now_wrong": "now wrong"}
_ROWS = {**_COUNTS, "n": "rows", "both_wrong": "changed, both wrong", "changed_unlabelled": "changed, no label"}


def render_show(result: ShowResult) -> RenderableType:
    """Where the picture is, and a row for each image.

    Parameters
    ----------
    result : ShowResult
        As returned by `unoic_cli.commands.show.show`; its notes are shown elsewhere.
    """
    about = [("output", str(result.output)), *result.methods.items()]
    if result.counts is not None:
        found = for_json(result.counts, result.rows or ())
        return facts([*about, *((_ROWS.get(name, name), f"{n:,}") for name, n in found.items())])
    table = Grid()
    table.add_column("image")
    table.add_column("group")
    for name in ("pixels", *_COUNTS.values(), *(f"acc {title}" for title in _titles(result))):
        table.add_column(name, justify="right")
    for one in (image.to_dict() for image in result.images):
        counts = [_number(one[name]) for name in ("pixels", *_COUNTS)]
        name = str(one["number"]) + ("" if one["sample_id"] is None else f" {one['sample_id']}")
        table.add_row(name, one["group"] or "-", *counts, *map(percent, one["accuracy"].values()))
    return Group(facts(about), table)


def _titles(result: ShowResult) -> list[str]:
    return list(result.methods)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def show_tsv(result: ShowResult) -> str:
    """A heading, and a line for each image; of rows one of what was counted."""
    if result.counts is not None:
        found = for_json(result.counts, result.rows or ())
        return "\t".join(found) + "\n" + "\t".join(map(str, found.values())) + "\n"
    plain = [name for name in result.images[0].to_dict() if name != "accuracy"]
    lines = [[*plain, *(f"accuracy {title}" for title in _titles(result))]]
    for one in (image.to_dict() for image in result.images):
        lines.append([_text(value) for value in (*(one[name] for name in plain), *one["accuracy"].values())])
    return "".join("\t".join(map(cell, line)) + "\n" for line in lines)


def _text(value: Any) -> str:
    return "" if value is None else str(value)
