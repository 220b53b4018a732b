"""``unoic prior``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unoic_cli.cli.common import (
    DATA,
    RUN,
    FilesArgument,
    ForceOption,
    FormatOption,
    check_format,
    count,
    shared,
    show,
)


@shared(DATA, RUN)
def prior(
    files: FilesArgument,
    given: dict[str, Any],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Also write the result as JSON.")
    ] = None,
    force: ForceOption = False,
    format: FormatOption = None,
) -> None:
    """Count the labels of logits files; --source-prior and --target-prior read the result.

    Example: unoic prior train.h5 -o prior.json
    """
    check_format(format)
    count("prior", files, given, present, format, output=output, force=force)


def present(result: Any, format: str | None) -> None:
    """Show a result."""
    from unoic_cli.report.prior import prior_tsv, render_prior

    show(result, format, render_prior, prior_tsv)
