"""``unoic compare``."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

from unoic_cli.cli.common import show
from unoic_cli.cli.program import MODALITIES, counting
from unoic_cli.fusions import FUSIONS, listed
from unoic_cli.options import Option
from unoic_cli.tasks.options import AbsentOption, DataOptions, DeltaOptions, ShotsOption


class CompareOptions(DeltaOptions, DataOptions, total=False):
    """Options of `compare`."""

    methods: Annotated[
        Sequence[str] | Mapping[str, Any] | None,
        Option(
            "--method -m",
            "[TITLE=]METHOD",
            f"The file of a calibration; {listed(FUSIONS)} (plain fusion); uno "
            "(noisy-or with --delta); or a modality's name (that network alone). METHOD@0.4: the same at lambda 0.4 of "
            "every modality (METHOD@rgb=0.3,depth=0.6 for each). Repeatable. Default: each modality, average and "
            "noisy-or.",
            many=True,
        ),
    ]
    by: Annotated[
        str | None,
        Option("--by", "WHAT", "A column for each file, or each group (the files' group field)."),
    ]
    metrics: Annotated[
        str | Sequence[str],
        Option("--metrics", "LIST", "What a cell shows; as unoic evaluate has it.", default="miou,macc"),
    ]
    shots: ShotsOption
    absent: AbsentOption


class ShownOptions(TypedDict, total=False):
    """How a comparison is shown."""

    format: Annotated[
        str | None,
        Option(
            "--format",
            "FORMAT",
            "table, json, tsv, markdown or latex. Default: table on a terminal, json in a pipe.",
            says="how",
        ),
    ]


HELP = """Example: unoic compare rgb=rgb/fog.h5 rgb=rgb/rain.h5 depth=depth/fog.h5 depth=depth/rain.h5 --by file
-m average -m UNO-IC=unoic.json -m UNO-IC-.4=unoic.json@0.4
"""


@counting(CompareOptions, MODALITIES, shown=ShownOptions, forms=("markdown", "latex"), help=HELP)
def compare(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.report.compare import compare_latex, compare_markdown, compare_tsv, render_compare

    show(result, format, render_compare, compare_tsv, markdown=compare_markdown, latex=compare_latex)
