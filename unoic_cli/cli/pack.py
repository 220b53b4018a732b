"""``unoic pack``."""

from typing import Any

from unoic_cli.cli.program import Argument, QuietOptions, command, copy
from unoic_cli.commands.pack import PackOptions
from unoic_cli.resolve.options import PartOptions

HELP = """Everything is kept: labels, delta, text, priors, names, provenance. With --codec or --chunk the
scores are stored in chunks that any thread can read; with --dtype they are rounded, and
the decisions which that changes are counted.

Example: unoic pack val.h5 val.packed.h5 --dtype float16 --calibration calibration.json
"""


@command(
    PackOptions,
    Argument("inputs", "INPUT", "Logits file of any format (FILE::GROUP, FILE::PART).", many=False),
    Argument("out", "OUTPUT", "Its suffix names the format: .h5, .parquet, .npz ...", many=False),
    after=(QuietOptions, PartOptions),
    help=HELP,
)
def pack(inputs: str, out: str, format: str | None, **options: Any) -> None:
    """Pack, and show what was written."""
    from unoic_cli.report.pack import render_pack

    copy("pack", inputs, out, format, options, render_pack)
