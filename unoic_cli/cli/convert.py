"""``unoic convert``."""

from typing import Any

from unoic_cli.cli.program import Argument, QuietOptions, command, copy
from unoic_cli.commands.convert import ConvertOptions
from unoic_cli.resolve.options import (
    PartOptions,
)

HELP = """Scores keep every bit. Whether arrays hold logits or probabilities is decided once, from all
values, said in the output, and refused when in doubt.

Example: unoic convert val.npz val.h5 --logits-key logits_rgb
"""


@command(
    ConvertOptions,
    Argument("inputs", "INPUT", "Logits file of any format (FILE::GROUP, FILE::PART); - for stdin.", many=False),
    Argument("out", "OUTPUT", "FILE.h5, .parquet, .arrows, .npz, .npy, .csv, .safetensors; - for stdout.", many=False),
    after=(QuietOptions, PartOptions),
    help=HELP,
)
def convert(inputs: str, out: str, format: str | None, **options: Any) -> None:
    """Convert, and show what was written."""
    from unoic_cli.report.convert import render_convert

    copy("convert", inputs, out, format, options, render_convert)
