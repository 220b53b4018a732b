"""``unoic convert``."""

from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from unoic_cli.cli.program import Argument, QuietOptions, command, copy
from unoic_cli.options import Option
from unoic_cli.tasks.options import (
    AllowExternalOption,
    ClassAxisOption,
    ForceOption,
    LabelsKeyOption,
    LogitsKeyOption,
    ThreadsOption,
    WriteOptions,
)

if TYPE_CHECKING:
    from unoic_cli.block import Kind


class ConvertOptions(TypedDict, total=False):
    """Options of `convert`."""

    logits_key: LogitsKeyOption
    labels_key: LabelsKeyOption
    labels: Annotated[str | None, Option("--labels", "FILE", "npy or npz file with the labels, if elsewhere.")]
    kind: Annotated[
        "Kind | None",
        Option("--kind", "KIND", "What the scores are: logits, log_probs or probs. Default: by all values."),
    ]
    class_axis: ClassAxisOption
    force: ForceOption
    allow_external: AllowExternalOption
    threads: ThreadsOption


HELP = """Scores keep every bit. Whether arrays hold logits or probabilities is decided once, from all
values, said in the output, and refused when in doubt.

Example: unoic convert val.npz val.h5 --logits-key logits_rgb
"""


@command(
    ConvertOptions,
    Argument("inputs", "INPUT", "FILE.npz, .npy, .h5 (or FILE.h5::GROUP), .parquet; - for stdin.", many=False),
    Argument("out", "OUTPUT", "FILE.h5, .parquet or .arrows; - for stdout.", many=False),
    after=(QuietOptions, WriteOptions),
    help=HELP,
)
def convert(inputs: str, out: str, format: str | None, **options: Any) -> None:
    """Convert, and show what was written."""
    from unoic_cli.report.convert import render_convert

    copy("convert", inputs, out, format, options, render_convert)
