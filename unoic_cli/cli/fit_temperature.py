"""``unoic fit-temperature``."""

from __future__ import annotations

from typing import Annotated

import typer

from unoic_cli.cli.common import (
    AllowExternalOption,
    FilesArgument,
    ForceOption,
    FormatOption,
    IgnoreIndexOption,
    SourcePriorOption,
    SplitOption,
    TargetPriorOption,
    ThreadsOption,
    Told,
    UnseenOption,
    check_format,
    show,
)


def fit_temperature(
    files: FilesArgument,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the calibration (JSON).")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            "-c",
            metavar="FILE",
            help="Give this calibration (JSON) the temperature, and convert its lambda so that predictions stay the "
            "same. Default: lambda 0 with the priors below.",
        ),
    ] = None,
    bins: Annotated[
        int, typer.Option("--bins", metavar="N", help="Equal-width bins of the expected calibration error.")
    ] = 15,
    source_prior: SourcePriorOption = None,
    target_prior: TargetPriorOption = None,
    unseen: UnseenOption = None,
    split: SplitOption = None,
    ignore_index: IgnoreIndexOption = None,
    force: ForceOption = False,
    allow_external: AllowExternalOption = False,
    threads: ThreadsOption = None,
    format: FormatOption = None,
) -> None:
    """Find the temperature T that minimises the negative log-likelihood of softmax(delta * z / T) on labelled data.

    Example: unoic fit-temperature val.h5 -o calibration.json
    """
    from unoic_cli.report.fit_temperature import render_fit_temperature
    from unoic_cli.tasks import fit_temperature as task

    check_format(format)
    with Told() as told:
        result = task.fit_temperature(
            files,
            output=output,
            calibration=calibration,
            bins=bins,
            source_prior=source_prior,
            target_prior=target_prior,
            unseen=unseen,  # type: ignore[arg-type]  # the task checks it
            force=force,
            split=split,
            ignore_index=ignore_index or (),
            allow_external=allow_external,
            threads=threads,
            **told.arguments(),
        )
    show(result, format, render_fit_temperature)
