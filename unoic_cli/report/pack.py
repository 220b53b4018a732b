"""What `pack` wrote, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.report.common import facts
from unoic_cli.report.layout import Facts

if TYPE_CHECKING:
    from unoic_cli.commands.pack import PackResult


def render_pack(result: PackResult) -> Facts:
    """Two columns: what, and its value.

    Parameters
    ----------
    result : PackResult
        As returned by `unoic_cli.commands.pack.pack`; its notes are shown elsewhere.
    """
    size = f"{result.n_samples:,} samples, {result.n_classes:,} classes"
    if result.image_shape:
        size += f", images of {result.image_shape[0]} x {result.image_shape[1]}"
    scores = result.kind
    if result.encoding is not None:
        was = f" (was {result.encoding_from})" if result.encoding != result.encoding_from else ""
        scores += f", {result.encoding}{was}, {result.layout}"
    rows = [
        ("output", f"{result.output} ({result.n_bytes:,} bytes)"),
        ("from", f"{result.input} ({result.n_bytes_from:,} bytes)"),
        ("scores", scores),
        ("storage", f"{result.format}, {result.storage} (was {result.storage_from})"),
        ("size", size),
        ("also kept", ", ".join(result.fields) or "nothing"),
    ]
    for one in result.changed:
        where = f"at lambda {one.lam:g}{' of the calibration' if one.calibrated else ''}"
        rows.append(("changed", f"{one.n_changed:,} of {one.n_units:,} decisions {where}"))
    return facts(rows)
