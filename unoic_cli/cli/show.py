"""``unoic show``."""

from typing import Any

from unoic_cli.cli.common import Told, check_format
from unoic_cli.cli.common import show as print_result
from unoic_cli.cli.program import MODALITIES, QuietOptions, command
from unoic_cli.commands.show import ShowOptions
from unoic_cli.errors import UsageError

HELP = """A row for each image: the images themselves (--inputs), truth, before (scores as they are), after, and
differences. Needs matplotlib: pip install 'unoic[plot]'. Of rows: a table (.csv, .tsv) of those whose decision changes,
by the log-odds after of the class after to the class before, the largest first; they were below 0 before.

Example: unoic show rgb=rgb/rain.h5 depth=depth/rain.h5 -c unoic.json -o rain.png --inputs rgb=photos
"""


@command(ShowOptions, MODALITIES, help=HELP, after=(QuietOptions,))
def show(files: list[str], format: str | None, quiet: bool, **given: Any) -> None:
    """Draw, and show what was drawn."""
    from unoic_cli.api.functions import command as function
    from unoic_cli.commands import show as steps
    from unoic_cli.report.show import render_show, show_tsv

    check_format(format)
    if given["output"] is None:
        raise UsageError(
            "--output", "no file", "expected one for the picture: .png, .pdf or .svg; of rows .csv or .tsv"
        )
    with Told(quiet) as told:
        result = function(steps.show)(files, **given, **told.arguments())
    print_result(result, format, render_show, show_tsv)
