"""``unoic prior``."""

from __future__ import annotations

from typing import Annotated

import typer

from unoic_cli.cli.common import (
    AllowExternalOption,
    FilesArgument,
    ForceOption,
    FormatOption,
    IgnoreIndexOption,
    SplitOption,
    ThreadsOption,
    Told,
    check_format,
    show,
)


def prior(
    files: FilesArgument,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Also write the result as JSON.")
    ] = None,
    split: SplitOption = None,
    ignore_index: IgnoreIndexOption = None,
    force: ForceOption = False,
    allow_external: AllowExternalOption = False,
    threads: ThreadsOption = None,
    format: FormatOption = None,
) -> None:
    """Count the labels of logits files; --source-prior and --target-prior read the result.

    Example: unoic prior train.h5 -o prior.json
    """
    from unoic_cli.report.prior import prior_tsv, render_prior
    from unoic_cli.tasks import prior as task

    check_format(format)
    with Told() as told:
        result = task.prior(
            files,
            output=output,
            force=force,
            split=split,
            ignore_index=ignore_index or (),
            allow_external=allow_external,
            threads=threads,
            **told.arguments(),
        )
    show(result, format, render_prior, prior_tsv)
