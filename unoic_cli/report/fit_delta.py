"""What `fit-delta` found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.report.common import facts, percent
from unoic_cli.report.layout import Facts

if TYPE_CHECKING:
    from unoic_cli.commands.fit_delta import FitDeltaResult


def render_fit_delta(result: FitDeltaResult) -> Facts:
    """Facts."""
    made = result.statistics
    rows = [("modality", made.modality)] if made.modality else []
    rows += [
        ("uncertainty", f"{made.measure} of {result.n:,} {made.per}s"),
        ("mean, std. dev.", f"{result.mu:.6g}, {result.sigma:.6g} nats"),
    ]
    if result.applied:
        rows.append(("statistics", f"mu {made.mu:.6g}, sigma {made.sigma:.6g} of {made.n:,} samples, as given"))
    rows.append(("delta", f"(mu / (max(0, H - mu - sigma) + mu)) ** {made.power:g}"))
    if result.delta is not None:
        low, mean, high = (result.delta[name] for name in ("min", "mean", "max"))
        rows.append(("of these samples", f"mean {mean:.4f}, from {low:.4f} to {high:.4f}"))
        rows.append(("below 1", f"{percent(result.delta['below_one'])} %"))
    return facts([(name, value) for name, value in rows if value])
