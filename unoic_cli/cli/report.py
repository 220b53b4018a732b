"""``unoic report``."""

from __future__ import annotations

import importlib
from typing import Annotated, Any, TypeAlias

import typer

from unoic_cli.cli.common import ForceOption, Told, check_format

StatesArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="STATES", help="State files of one run (--state), patterns ('s*.unoic') or @LIST of them, in any order."
    ),
]
PartialOption: TypeAlias = Annotated[
    bool, typer.Option("--partial", help="Go on without the rows that no state file has, and say which.")
]


def report(
    files: StatesArgument,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="What the command writes: a calibration, statistics ..."),
    ] = None,
    curve: Annotated[
        str | None, typer.Option("--curve", metavar="FILE", help="Of search-lambda: write the curve as TSV.")
    ] = None,
    partial: PartialOption = False,
    force: ForceOption = False,
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="As of the command. Default: table on a terminal, else json."),
    ] = None,
) -> None:
    """Show the result of a run from its state, without its data: the same bytes as the run without shards.

    Example: unoic report all.unoic -o calibration.json
    """
    tell_report(files, format, partial=partial, output=output, curve_output=curve, force=force)


def tell_report(files: list[str], format: str | None, **wanted: Any) -> None:
    """Repeat a run from its state, and show its result as its own command does."""
    from unoic_cli import state
    from unoic_cli.tasks import inputs, runs

    first = state.load(inputs.expand(list(files))[0]).command
    module = importlib.import_module(f"unoic_cli.cli.{first.replace('-', '_') if first in runs.COUNTING else 'report'}")
    check_format(format, getattr(module, "FORMATS", ()))  # before anything is written, or said
    with Told() as told:
        _, result = runs.report_states(files, tell=told.texts.append, **wanted)
    with state.sensible(files[0]):  # what is shown is worked out late
        module.present(result, format)
