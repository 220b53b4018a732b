"""``unoic merge``."""

from typing import Annotated, TypedDict

from unoic_cli.api.stored import MergeOptions
from unoic_cli.cli.common import Told, check_format, show
from unoic_cli.cli.program import QuietOptions, command
from unoic_cli.cli.report import STATES, tell_report
from unoic_cli.errors import UsageError
from unoic_cli.options import Option


class MergedOptions(TypedDict, total=False):
    """What the command makes of the states: a state, or a report."""

    output: Annotated[
        str | None, Option("--output -o", "FILE", "Write the merged state, and report nothing.", says="where")
    ]


class Options(MergedOptions, MergeOptions, total=False):
    """Options of the command."""


HELP = "Example: unoic merge s*.unoic -o all.unoic"


@command(Options, STATES, help=HELP, after=(QuietOptions,))
def merge(files: list[str], format: str | None, output: str | None, partial: bool, force: bool, quiet: bool) -> None:
    """Merge, and show the state or the result."""
    from unoic_cli.api import stored as runs
    from unoic_cli.report.state import render_state

    if output is None:
        if force:
            raise UsageError("--force", "--force without --output", "expected an output that it may replace")
        tell_report(files, format, quiet, partial=partial)
        return
    check_format(format)
    with Told(quiet) as told:
        merged = runs.merge_states(files, output, partial=partial, force=force, tell=told.texts.append)
    show(merged, format, render_state)
