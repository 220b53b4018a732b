"""``unoic fit-temperature``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unoic_cli.cli.common import (
    DATA,
    RUN,
    FilesArgument,
    ForceOption,
    FormatOption,
    SourcePriorOption,
    TargetPriorOption,
    UnseenOption,
    check_format,
    count,
    shared,
    show,
)


@shared(DATA, RUN)
def fit_temperature(
    files: FilesArgument,
    given: dict[str, Any],
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
    floor: Annotated[
        float | None,
        typer.Option("--floor", metavar="P", help="Take probabilities below P as P (of probs and log_probs)."),
    ] = None,
    source_prior: SourcePriorOption = None,
    target_prior: TargetPriorOption = None,
    unseen: UnseenOption = None,
    force: ForceOption = False,
    format: FormatOption = None,
) -> None:
    """Find the temperature T that minimises the negative log-likelihood of softmax(delta * z / T) on labelled data.

    Example: unoic fit-temperature val.h5 -o calibration.json
    """
    check_format(format)
    count(
        "fit-temperature",
        files,
        given,
        present,
        format,
        output=output,
        calibration=calibration,
        bins=bins,
        floor=floor,
        source_prior=source_prior,
        target_prior=target_prior,
        unseen=unseen,
        force=force,
    )


def present(result: Any, format: str | None) -> None:
    """Show a result."""
    from unoic_cli.report.fit_temperature import render_fit_temperature

    show(result, format, render_fit_temperature)
