"""What `fit-temperature` found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from unoic_cli.report.common import facts, percent
from unoic_cli.report.layout import Grid, Said
from unoic_cli.report.sheet import Sheet, of_metrics

if TYPE_CHECKING:
    from unoic_cli.commands.fit_temperature import FitTemperatureResult
    from unoic_cli.commands.together import Measured


def render_fit_temperature(result: FitTemperatureResult) -> Group:
    """T and lambda, and the likelihood and calibration error before and after."""
    found = f"{result.temperature:.7g}"
    precision = (
        "an end of the range" if result.at_bound else f"to a relative {result.tolerance:g}, in {result.reads} reads"
    )
    left_out = f", {result.n_left_out:,} left out" if result.n_left_out else ""
    about = [
        ("temperature", f"{found} ({precision})"),
        ("lambda", _lambda(result)),
        ("lambda * T", f"{result.lam * result.temperature:.7g} (what predictions depend on)"),
        ("data", f"{result.n:,} labelled{left_out}, {result.n_ignored:,} ignored, {result.n_classes:,} classes"),
        ("source prior", result.calibration.source_prior.told),
        ("target prior", result.calibration.target_prior.told),
    ]
    table = Grid()
    table.add_column("")
    for name in ("NLL", "ECE %", "acc %"):
        table.add_column(name, justify="right")
    for name, figures in _figures(result):
        table.add_row(name, f"{figures.nll:.6g}", percent(figures.ece), percent(figures.acc))
    return Group(facts(about), Text(), Said(_title(result)), table)


def _figures(result: FitTemperatureResult) -> list[tuple[str, Measured]]:
    """What is compared, by its name."""
    if result.given is None:
        return [("T = 1", result.before), (f"T = {result.temperature:.7g}", result.after)]
    converted = result.calibration.provenance.get("converted", {"temperature": 1.0})
    lam = result.lam_before if result.how == "along" else 0.0 if result.how == "held" else 1.0
    before, after = (
        f"T = {temperature:.7g}, lambda = {lam:.7g}"
        for temperature, lam in ((converted["temperature"], lam), (result.temperature, result.lam))
    )
    return [("as stored", result.before), (before, result.given), (after, result.after)]


def fit_temperature_sheet(result: FitTemperatureResult) -> Sheet:
    """Likelihood, calibration error and accuracy before and after."""
    rows = [(name, {"nll": one.nll, "ece": one.ece, "acc": one.acc}) for name, one in _figures(result)]
    return of_metrics(rows, ("nll", "ece", "acc"), _title(result))


def _title(result: FitTemperatureResult) -> str:
    mix = "" if result.given is None else "; posteriors for the labels' own mix, but for the first"
    return f"fitted and measured on the same data, {result.bins} bins{mix}"


def _lambda(result: FitTemperatureResult) -> str:
    lam = f"{result.lam:.7g}"
    if result.lam_before is not None:
        return f"{lam} (was {result.lam_before:.7g})"
    return lam if result.se_lam is None else f"{lam} (standard error {result.se_lam:.2g})"
