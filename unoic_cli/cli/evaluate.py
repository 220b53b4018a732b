"""``unoic evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from unoic_cli.cli.common import (
    AbsentOption,
    AllowExternalOption,
    FilesArgument,
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
from unoic_cli.errors import UsageError

CalibrationOption = Annotated[
    str | None, typer.Option("--calibration", "-c", metavar="FILE", help="Apply a calibration (JSON).")
]
LambdaOption = Annotated[
    float | None, typer.Option("--lambda", "-l", metavar="L", help="Apply this lambda, with the priors below.")
]


def evaluate(
    files: FilesArgument,
    calibration: CalibrationOption = None,
    lam: LambdaOption = None,
    source_prior: SourcePriorOption = None,
    target_prior: TargetPriorOption = None,
    unseen: UnseenOption = None,
    temperature: TemperatureOption = None,
    confusion: Annotated[bool, typer.Option("--confusion", help="Also the confusion matrix, rows = truth.")] = False,
    by: Annotated[
        str | None, typer.Option("--by", metavar="group", help="Also for each value of the files' group field.")
    ] = None,
    absent: AbsentOption = "reference",
    split: SplitOption = None,
    ignore_index: IgnoreIndexOption = None,
    allow_external: AllowExternalOption = False,
    threads: ThreadsOption = None,
    format: FormatOption = None,
) -> None:
    """Accuracy, mean class accuracy, mean IoU and F1 of logits files, as they are or calibrated, in one read.

    Example: unoic evaluate test.h5 --calibration calibration.json
    """
    from unoic_cli.report.evaluate import evaluate_tsv, render_evaluate
    from unoic_cli.tasks import evaluate as task

    if check_format(format) == "tsv" and confusion:
        raise UsageError("--confusion", "--confusion with --format tsv, which has no matrix", "expected table or json")
    with Told() as told:
        result = task.evaluate(
            files,
            calibration=calibration,
            lam=lam,
            temperature=temperature,
            source_prior=source_prior,
            target_prior=target_prior,
            unseen=unseen,  # type: ignore[arg-type]  # the task checks it
            confusion=confusion,
            by=by,
            absent=absent,  # type: ignore[arg-type]  # the task checks it
            split=split,
            ignore_index=ignore_index or (),
            allow_external=allow_external,
            threads=threads,
            **told.arguments(),
        )
    show(result, format, render_evaluate, evaluate_tsv)
