"""``unoic compare``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unoic_cli.cli.common import (
    DATA,
    METHOD,
    RUN,
    AbsentOption,
    ForceOption,
    ModalitiesArgument,
    check_format,
    count,
    shared,
    show,
)

DELTA = {name: METHOD[name] for name in ("delta", "delta_power")}


@shared(DELTA, DATA, RUN)
def compare(
    files: ModalitiesArgument,
    given: dict[str, Any],
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            metavar="[TITLE=]METHOD",
            help="The file of a calibration; average, noisy-or, product, max or log-linear (plain fusion); uno "
            "(noisy-or with --delta); or a modality's name (that network alone). METHOD@0.4: the same at lambda 0.4 of "
            "every modality (METHOD@rgb=0.3,depth=0.6 for each). Repeatable. Default: each modality, average and "
            "noisy-or.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="WHAT", help="A column for each file, or each group (the files' group field)."),
    ] = None,
    metrics: Annotated[
        str, typer.Option("--metrics", metavar="NAMES", help="What a cell shows: some of miou, macc, acc, f1.")
    ] = "miou,macc",
    absent: AbsentOption = "reference",
    force: ForceOption = False,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="table, json, tsv, markdown or latex. Default: table on a terminal, json in a pipe.",
        ),
    ] = None,
) -> None:
    """Compare methods under several conditions: one table, one read of each file.

    Example: unoic compare rgb=rgb/fog.h5 rgb=rgb/rain.h5 depth=depth/fog.h5 depth=depth/rain.h5 --by file
    -m average -m UNO-IC=unoic.json -m UNO-IC-.4=unoic.json@0.4
    """
    check_format(format, FORMATS)
    count(
        "compare",
        files,
        given,
        present,
        format,
        methods=method or None,
        by=by,
        metrics=metrics,
        absent=absent,
        force=force,
    )


FORMATS = ("markdown", "latex")
"""Forms of the result beside those of every command."""


def present(result: Any, format: str | None) -> None:
    """Show a result."""
    from unoic_cli.report.compare import compare_latex, compare_markdown, compare_tsv, render_compare

    show(result, format, render_compare, compare_tsv, markdown=compare_markdown, latex=compare_latex)
