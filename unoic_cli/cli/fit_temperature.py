"""``unoic fit-temperature``."""

from typing import Any

from unoic_cli.cli.common import show
from unoic_cli.cli.program import FILES, counting
from unoic_cli.commands.fit_temperature import FitTemperatureOptions

HELP = "Example: unoic fit-temperature val.h5 -o calibration.json"


@counting(FitTemperatureOptions, FILES, help=HELP)
def fit_temperature(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.report.fit_temperature import fit_temperature_sheet, render_fit_temperature

    show(result, format, render_fit_temperature, sheet=fit_temperature_sheet)
