"""``unoic calibrate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unoic_cli.cli.common import (
    DATA,
    METHOD,
    WRITE,
    AbsentOption,
    ForceOption,
    FormatOption,
    ModalitiesArgument,
    check_format,
    shared,
    write,
)

EmitOption = Annotated[str, typer.Option("--emit", metavar="WHAT", help="log-probs, probs, or predictions alone.")]


@shared(METHOD, DATA, WRITE)
def calibrate(
    files: ModalitiesArgument,
    given: dict[str, Any],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="HDF5, Parquet or Arrow stream (.arrows); - streams to stdout. Default: STEM.calibrated.SUFFIX here.",
        ),
    ] = None,
    emit: EmitOption = "log-probs",
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="METRIC", help="What to maximise where lambda is fitted. Default: macc."),
    ] = None,
    absent: AbsentOption = "reference",
    force: ForceOption = False,
    format: FormatOption = None,
) -> None:
    """Write calibrated log-probabilities and predictions, and show what they change.

    With neither --calibration nor --lambda, lambda is fitted on the labels of the input: what is
    shown is then cross-fitted over 3 folds, and the calibration is written beside the output.

    Example: unoic calibrate test.h5 --calibration calibration.json -o test.calibrated.h5
    """
    check_format(format)
    write(
        "calibrate",
        files,
        given,
        format,
        output=output,
        emit=emit,
        metric=metric,
        absent=absent,
        force=force,
    )
