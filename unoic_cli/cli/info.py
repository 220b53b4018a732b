"""``unoic info``."""

from __future__ import annotations

from typing import Annotated

import typer

from unoic_cli.cli.common import (
    AllowExternalOption,
    ClassAxisOption,
    FilesArgument,
    FormatOption,
    LabelsKeyOption,
    LogitsKeyOption,
    check_format,
    show,
)


def info(
    files: FilesArgument,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Look only at samples of this split.")
    ] = None,
    allow_external: AllowExternalOption = False,
    logits_key: LogitsKeyOption = None,
    labels_key: LabelsKeyOption = None,
    class_axis: ClassAxisOption = None,
    format: FormatOption = None,
) -> None:
    """Show what logits files hold, whether it can be used, and which commands to run next.

    Each file is read once. Labels out of range, NaN and infinities are counted, not refused.

    Example: unoic info val.h5 test.parquet
    """
    from unoic_cli.report.info import render_info
    from unoic_cli.tasks import info as task

    check_format(format)
    show(
        task.info(
            files,
            split=split,
            allow_external=allow_external,
            logits_key=logits_key,
            labels_key=labels_key,
            class_axis=class_axis,
        ),
        format,
        render_info,
    )
