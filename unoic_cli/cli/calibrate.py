"""``unoic calibrate``."""

from __future__ import annotations

from typing import Annotated

import typer

from unoic_cli.cli.common import (
    AbsentOption,
    AllowExternalOption,
    FilesArgument,
    ForceOption,
    FormatOption,
    IgnoreIndexOption,
    SourcePriorOption,
    SplitOption,
    TargetPriorOption,
    TemperatureOption,
    ThreadsOption,
    Told,
    UnseenOption,
    check_format,
    show,
)
from unoic_cli.cli.evaluate import CalibrationOption, LambdaOption


def calibrate(
    files: FilesArgument,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="HDF5 or Parquet. Default: STEM.calibrated.SUFFIX in this folder."
        ),
    ] = None,
    calibration: CalibrationOption = None,
    lam: LambdaOption = None,
    temperature: TemperatureOption = None,
    emit: Annotated[
        str, typer.Option("--emit", metavar="WHAT", help="log-probs, probs, or predictions alone.")
    ] = "log-probs",
    metric: Annotated[
        str | None,
        typer.Option("--metric", metavar="METRIC", help="What to maximise where lambda is fitted. Default: macc."),
    ] = None,
    source_prior: SourcePriorOption = None,
    target_prior: TargetPriorOption = None,
    unseen: UnseenOption = None,
    absent: AbsentOption = "reference",
    split: SplitOption = None,
    ignore_index: IgnoreIndexOption = None,
    force: ForceOption = False,
    allow_external: AllowExternalOption = False,
    threads: ThreadsOption = None,
    format: FormatOption = None,
) -> None:
    """Write calibrated log-probabilities and predictions, and show what they change.

    With neither --calibration nor --lambda, lambda is fitted on the labels of the input: what is
    shown is then cross-fitted over 3 folds, and the calibration is written beside the output.

    Example: unoic calibrate test.h5 --calibration calibration.json -o test.calibrated.h5
    """
    from unoic_cli.report.calibrate import render_calibrate
    from unoic_cli.tasks import calibrate as task

    check_format(format)
    with Told() as told:
        result = task.calibrate(
            files,
            output=output,
            calibration=calibration,
            lam=lam,
            temperature=temperature,
            emit=emit,  # type: ignore[arg-type]  # the task checks it
            metric=metric,
            source_prior=source_prior,
            target_prior=target_prior,
            unseen=unseen,  # type: ignore[arg-type]  # the task checks it
            absent=absent,  # type: ignore[arg-type]  # the task checks it
            force=force,
            split=split,
            ignore_index=ignore_index or (),
            allow_external=allow_external,
            threads=threads,
            **told.arguments(),
        )
    show(result, format, render_calibrate)
