"""What `convert` wrote, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from unoic_cli.tasks.convert import ConvertResult


def render_convert(result: ConvertResult) -> Table:
    """Two columns: what, and its value.

    Parameters
    ----------
    result : ConvertResult
        As returned by `unoic_cli.tasks.convert.convert`; its notes are shown elsewhere.
    """
    size = f"{result.n_samples:,} samples, {result.n_classes:,} classes"
    if result.image_shape:
        size += f", images of {result.image_shape[0]} x {result.image_shape[1]}"
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "output": result.output,
        "from": result.input,
        "scores": f"{result.kind}, {result.encoding} (by {result.kind_from})",
        "size": size,
        "also kept": ", ".join(result.fields) or "nothing",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))  # Text: brackets of a file's name are no markup
    return table
