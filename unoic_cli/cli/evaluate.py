"""``unoic evaluate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unoic_cli.cli.common import (
    DATA,
    METHOD,
    RUN,
    AbsentOption,
    ForceOption,
    FormatOption,
    ModalitiesArgument,
    check_format,
    count,
    shared,
    show,
)
from unoic_cli.errors import UsageError


@shared(METHOD, DATA, RUN)
def evaluate(
    files: ModalitiesArgument,
    given: dict[str, Any],
    confusion: Annotated[bool, typer.Option("--confusion", help="Also the confusion matrix, rows = truth.")] = False,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="WHAT", help="Also for each group (the files' group field), or for each file."),
    ] = None,
    absent: AbsentOption = "reference",
    force: ForceOption = False,
    format: FormatOption = None,
) -> None:
    """Accuracy, mean class accuracy, mean IoU and F1 of logits files, as they are or calibrated, in one read.

    Example: unoic evaluate test.h5 --calibration calibration.json
    """
    if check_format(format) == "tsv" and confusion:
        raise UsageError("--confusion", "--confusion with --format tsv, which has no matrix", "expected table or json")
    count(
        "evaluate",
        files,
        given,
        present,
        format,
        confusion=confusion,
        by=by,
        absent=absent,
        force=force,
    )


def present(result: Any, format: str | None) -> None:
    """Show a result."""
    from unoic_cli.report.evaluate import evaluate_tsv, render_evaluate

    show(result, format, render_evaluate, evaluate_tsv)
