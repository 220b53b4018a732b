"""``unoic info``."""

from typing import Any

from unoic_cli.cli.common import show
from unoic_cli.cli.program import FILES, counting
from unoic_cli.commands.info import InfoOptions

HELP = """Each file is read once. Labels out of range, NaN and infinities are counted, not refused.
Calibrations, statistics of delta, priors, states, layers of unoic export and ONNX models are explained.

Example: unoic info val.h5 calibration.json
"""


@counting(InfoOptions, FILES, help=HELP)
def info(result: Any, format: str | None) -> None:
    """Show a result."""
    from unoic_cli.report.info import info_sheet, render_info

    show(result, format, render_info, sheet=info_sheet)
