"""What `plot` drew, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unoic_cli.metrics import title
from unoic_cli.plots.kinds.classes import METRICS as OF_CLASSES
from unoic_cli.report.common import facts

if TYPE_CHECKING:
    from unoic_cli.plots.command import PlotResult
    from unoic_cli.report.layout import Facts


def render_plot(result: PlotResult) -> Facts:
    """Two columns: what, and what was drawn.

    Parameters
    ----------
    result : PlotResult
        As returned by `unoic_cli.plot`.
    """
    size = f"{result.width:g} x {result.height:g} inches"
    return facts([("plot", result.kind), ("written", f"{result.output} ({size})"), *_drawn(result.to_dict())])


def _drawn(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for run in content["runs"]:
        interval = run["interval"]
        good = "" if interval is None else f", as good within one SE from {interval[0]:g} to {interval[1]:g}"
        yield run["name"] or "run", f"lambda = {run['lambda']:g}{good}"
    if content["metrics"]:
        named = OF_CLASSES.__getitem__ if content["kind"] == "classes" else title
        yield "metrics", ", ".join(map(named, content["metrics"]))
    if "source_prior" in content:
        yield "source prior", content["source_prior"]
    if content["lambdas"]:
        yield "lambdas", ", ".join(f"{lam:g}" for lam in content["lambdas"])
