"""``unoic compare``."""

from typing import Annotated, Any, TypedDict

from unoic_cli.cli.common import show
from unoic_cli.cli.program import MODALITIES, counting
from unoic_cli.commands.compare import CompareOptions
from unoic_cli.options import Option


class ShownOptions(TypedDict, total=False):
    """How a comparison is shown."""

    format: Annotated[
        str | None,
        Option(
            "--format",
            "FORMAT",
            "table, json, tsv, csv, markdown or latex. Default: table on a terminal, json in a pipe.",
            says="how",
            panel="Output",
            values=("table", "json", "tsv", "csv", "markdown", "latex"),
        ),
    ]


HELP = """Example: unoic compare rgb=rgb/fog.h5 rgb=rgb/rain.h5 depth=depth/fog.h5 depth=depth/rain.h5 --by file
-m average -m UNO-IC=unoic.json -m UNO-IC-.4=unoic.json@0.4
"""


@counting(CompareOptions, MODALITIES, shown=ShownOptions, forms=("markdown",), help=HELP)
def compare(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.report.compare import (
        compare_flat,
        compare_markdown,
        compare_sheet,
        compare_tsv,
        render_compare,
    )

    show(result, format, render_compare, compare_tsv, compare_sheet, compare_flat, markdown=compare_markdown)
