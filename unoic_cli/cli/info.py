"""``unoic info``."""

from typing import Annotated, Any, TypedDict

from unoic_cli.cli.common import check_format, show
from unoic_cli.cli.program import FILES, command
from unoic_cli.options import Option
from unoic_cli.tasks.options import AllowExternalOption, ClassAxisOption, LabelsKeyOption, LogitsKeyOption


class InfoOptions(TypedDict, total=False):
    """Options of `info`."""

    split: Annotated[str | None, Option("--split", "NAME", "Look only at samples of this split.")]
    allow_external: AllowExternalOption
    logits_key: LogitsKeyOption
    labels_key: LabelsKeyOption
    class_axis: ClassAxisOption


HELP = """Each file is read once. Labels out of range, NaN and infinities are counted, not refused.

Example: unoic info val.h5 test.parquet
"""


@command(InfoOptions, FILES, help=HELP)
def info(files: list[str], format: str | None, **options: Any) -> None:
    """Look, and show what was seen."""
    import unoic_cli
    from unoic_cli.report.info import render_info

    check_format(format)
    show(unoic_cli.info(files, **options), format, render_info)
