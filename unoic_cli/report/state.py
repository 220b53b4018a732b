"""How a state file is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.report.common import facts
from unoic_cli.report.layout import Facts

if TYPE_CHECKING:
    from unoic_cli.api.stored import StateResult


def render_state(result: StateResult) -> Facts:
    """What was counted, and where it is."""
    rows = [("state", result.path), ("of", result.command)]
    if result.shard is not None:
        rows.append(("shard", f"{result.shard[0]} of {result.shard[1]}"))
    rows.append(("rows", f"{result.counted:,} of {result.total:,}"))
    if result.missing is not None:
        rows.append(("missing", result.missing))
    return facts([*rows, ("passes", str(result.passes))])
