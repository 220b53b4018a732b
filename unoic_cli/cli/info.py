"""``unoic info``."""

from typing import Annotated, Any, TypedDict

from unoic_cli.cli.common import show
from unoic_cli.cli.program import FILES, counting
from unoic_cli.options import Option
from unoic_cli.tasks.options import (
    AllowExternalOption,
    ClassAxisOption,
    LabelsKeyOption,
    LogitsKeyOption,
    ThreadsOption,
)


class InfoOptions(TypedDict, total=False):
    """Options of `info`."""

    split: Annotated[str | None, Option("--split", "NAME", "Look only at samples of this split.")]
    allow_external: AllowExternalOption
    logits_key: LogitsKeyOption
    labels_key: LabelsKeyOption
    class_axis: ClassAxisOption
    threads: ThreadsOption


HELP = """Each file is read once. Labels out of range, NaN and infinities are counted, not refused.

Example: unoic info val.h5 test.parquet
"""


@counting(InfoOptions, FILES, help=HELP)
def info(result: Any, format: str | None) -> None:
    """Show a result."""
    from unoic_cli.report.info import render_info

    show(result, format, render_info)
