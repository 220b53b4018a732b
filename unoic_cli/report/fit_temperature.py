"""What `fit-temperature` found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from unoic_cli.report.common import facts, percent
from unoic_cli.report.layout import Grid

if TYPE_CHECKING:
    from unoic_cli.commands.fit_temperature import FitTemperatureResult


def render_fit_temperature(result: FitTemperatureResult) -> Group:
    """The temperature, and the likelihood and calibration error before and after."""
    found = f"{result.temperature:.7g}"
    precision = (
        "an end of the range" if result.at_bound else f"to a relative {result.tolerance:g}, in {result.reads} reads"
    )
    about = [
        ("temperature", f"{found} ({precision})"),
        ("lambda", _lambda(result)),
        ("data", f"{result.n:,} labelled, {result.n_ignored:,} ignored, {result.n_classes:,} classes"),
        ("source prior", result.calibration.source_prior.origin),
        ("target prior", result.calibration.target_prior.origin),
    ]
    table = Grid()
    table.add_column("")
    for name in ("NLL", "ECE %", "acc %"):
        table.add_column(name, justify="right")
    table.add_row("T = 1", f"{result.nll_before:.6g}", percent(result.ece_before), percent(result.acc))
    table.add_row(f"T = {found}", f"{result.nll_after:.6g}", percent(result.ece_after), percent(result.acc))
    title = f"fitted and measured on the same data, {result.bins} bins"
    return Group(facts(about), Text(), Text(title, style="italic"), table)


def _lambda(result: FitTemperatureResult) -> str:
    lam = f"{result.calibration.lam:.7g}"
    return lam if result.lam_before is None else f"{lam} (was {result.lam_before:.7g})"
