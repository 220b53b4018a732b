"""``unoic report``."""

import importlib
from typing import Annotated, Any, TypedDict

from unoic_cli.api.stored import ReportOptions
from unoic_cli.cli.common import Told, check_format
from unoic_cli.cli.program import FORMS, PRESENT, Argument, QuietOptions, command
from unoic_cli.options import Option

STATES = Argument(
    "files", "STATES", "State files of one run (--state), patterns ('s*.unoic') or @LIST of them, in any order."
)


class ShownOptions(TypedDict, total=False):
    """How a report is shown."""

    format: Annotated[
        str | None,
        Option(
            "--format",
            "FORMAT",
            "As of the command. Default: table on a terminal, else json.",
            says="how",
            panel="Output",
            values=("table", "json", "tsv", "csv", "latex"),
        ),
    ]


HELP = "Example: unoic report all.unoic -o calibration.json"


@command(ReportOptions, STATES, before=(ShownOptions,), after=(QuietOptions,), help=HELP)
def report(files: list[str], format: str | None, quiet: bool, **options: Any) -> None:
    """Report, as the command itself shows it."""
    tell_report(files, format, quiet, **options)


def tell_report(files: list[str], format: str | None, quiet: bool, **wanted: Any) -> None:
    """Repeat a run from its state, and show its result as its own command does."""
    from unoic_cli.api import stored as runs
    from unoic_cli.resolve import inputs
    from unoic_cli.runs import state

    first = state.load(inputs.expanded(list(files))[0]).command
    if first in runs.COUNTING:
        importlib.import_module(f"unoic_cli.cli.{first.replace('-', '_')}")
    check_format(format, FORMS.get(first, ()))  # before anything is written, or said
    with Told(quiet) as told:
        _, result = runs.report_states(files, tell=told.texts.append, **wanted)
    with state.sensible(files[0]):  # what is shown is worked out late
        PRESENT[first](result, format)
