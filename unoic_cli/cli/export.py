"""``unoic export``."""

from typing import Any

from unoic_cli.cli.common import Told, check_format, show
from unoic_cli.cli.program import Argument, QuietOptions, command
from unoic_cli.commands.export import ExportOptions
from unoic_cli.errors import UsageError

CALIBRATION = Argument("calibration", "CALIBRATION", "A calibration of one network (JSON).", many=False)
HELP = """softmax(a z + bias) is the calibrated posterior: scale the last layer's weights and its bias by a = 1 / T,
then add the K numbers. Without --bias they are shown alone. With --onnx, the model that is written does it: in its
last layer where that serves nothing else, else with added nodes; before a softmax, where it ends with one.

Example: unoic export c.json --onnx model.onnx -o calibrated.onnx
"""


@command(ExportOptions, CALIBRATION, help=HELP, after=(QuietOptions,))
def export(calibration: str, format: str | None, quiet: bool, **given: Any) -> None:
    """Export, and show what was exported."""
    from unoic_cli.api.functions import command as function
    from unoic_cli.commands import export as steps
    from unoic_cli.report.export import export_tsv, render_export

    check_format(format)
    if given["torch"] and format is not None:
        raise UsageError("--format", "--format beside --torch", "expected one of them")
    with Told(quiet) as told:
        made = function(steps.export)(calibration, tell=told.texts.append, **given)
    if made.lines is not None:
        print(made.lines, end="")
    else:
        show(made, format, render_export, export_tsv)
