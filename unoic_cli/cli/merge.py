"""``unoic merge``."""

from __future__ import annotations

from typing import Annotated

import typer

from unoic_cli.cli.common import ForceOption, FormatOption, Told, check_format, show
from unoic_cli.cli.report import PartialOption, StatesArgument, tell_report
from unoic_cli.errors import UsageError


def merge(
    files: StatesArgument,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the merged state, and report nothing.")
    ] = None,
    partial: PartialOption = False,
    force: ForceOption = False,
    format: FormatOption = None,
) -> None:
    """Join the state files of a run's shards, in any order, and show the result of the whole.

    Example: unoic merge s*.unoic -o all.unoic
    """
    from unoic_cli.report.state import render_state
    from unoic_cli.tasks import runs

    if output is None:
        if force:
            raise UsageError("--force", "--force without --output", "expected an output that it may replace")
        tell_report(files, format, partial=partial)
        return
    check_format(format)
    with Told() as told:
        merged = runs.merge_states(files, output, partial=partial, force=force, tell=told.texts.append)
    show(merged, format, render_state)
