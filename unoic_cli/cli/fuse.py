"""``unoic fuse``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unoic_cli.cli.calibrate import EmitOption
from unoic_cli.cli.common import (
    DATA,
    METHOD,
    WRITE,
    AbsentOption,
    ForceOption,
    FormatOption,
    check_format,
    shared,
    write,
)


@shared(METHOD, DATA, WRITE)
def fuse(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=FILE...", help="The modalities, aligned row by row (repeat a name for several files)."
        ),
    ],
    given: dict[str, Any],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="HDF5, Parquet or Arrow stream (.arrows); - streams to stdout. Default: STEM.fused.SUFFIX here.",
        ),
    ] = None,
    emit: EmitOption = "log-probs",
    absent: AbsentOption = "reference",
    force: ForceOption = False,
    format: FormatOption = None,
) -> None:
    """Fuse the logits of several networks that saw the same samples, and write log-probabilities and predictions.

    Without --lambda or --calibration nothing is rebalanced. unoic calibrate takes the same inputs and fits lambda.

    Example: unoic fuse rgb=rgb.h5 depth=depth.h5 -o fused.h5 --fusion noisy-or
    """
    check_format(format)
    write(
        "fuse",
        files,
        given,
        format,
        output=output,
        emit=emit,
        absent=absent,
        force=force,
    )
