"""How a state file is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from unoic_cli.tasks.runs import StateResult


def render_state(result: StateResult) -> Table:
    """What was counted, and where it is."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("state", result.path)
    table.add_row("of", result.command)
    if result.shard is not None:
        table.add_row("shard", f"{result.shard[0]} of {result.shard[1]}")
    table.add_row("rows", f"{result.counted:,} of {result.total:,}")
    if result.missing is not None:
        table.add_row("missing", result.missing)
    table.add_row("passes", str(result.passes))
    return table
