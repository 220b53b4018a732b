"""What `convert` wrote, for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from unoic_cli.report.common import facts
from unoic_cli.report.layout import Facts

if TYPE_CHECKING:
    from unoic_cli.commands.convert import ConvertResult


def render_convert(result: ConvertResult) -> Facts:
    """Two columns: what, and its value.

    Parameters
    ----------
    result : ConvertResult
        As returned by `unoic_cli.commands.convert.convert`; its notes are shown elsewhere.
    """
    size = f"{result.n_samples:,} samples, {result.n_classes:,} classes"
    if result.image_shape:
        size += f", images of {result.image_shape[0]} x {result.image_shape[1]}"
    changed = {}
    if result.changed is not None:
        n = result.n_samples * math.prod(result.image_shape)
        changed["rounding changes"] = f"{result.changed:,} of {n:,} decisions"
    rows = {
        "output": result.output,
        "from": result.input,
        "scores": f"{result.kind}, {result.encoding} (by {result.kind_from})",
        "size": size,
        "also kept": ", ".join(result.fields) or "nothing",
        **changed,
    }
    return facts(rows.items(), "bold")
