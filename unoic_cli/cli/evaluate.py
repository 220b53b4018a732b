"""``unoic evaluate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unoic_cli.cli.common import (
    DATA,
    METHOD,
    AbsentOption,
    FormatOption,
    ModalitiesArgument,
    Told,
    check_format,
    shared,
    show,
)
from unoic_cli.errors import UsageError


@shared(METHOD, DATA)
def evaluate(
    files: ModalitiesArgument,
    given: dict[str, Any],
    confusion: Annotated[bool, typer.Option("--confusion", help="Also the confusion matrix, rows = truth.")] = False,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="WHAT", help="Also for each group (the files' group field), or for each file."),
    ] = None,
    absent: AbsentOption = "reference",
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
            confusion=confusion,
            by=by,
            absent=absent,  # type: ignore[arg-type]  # the task checks it
            **given,
            **told.arguments(),
        )
    show(result, format, render_evaluate, evaluate_tsv)
