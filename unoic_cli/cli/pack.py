"""``unoic pack``."""

import os
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from unoic_cli.cli.program import Argument, QuietOptions, command, copy
from unoic_cli.options import Option
from unoic_cli.tasks.options import AllowExternalOption, ForceOption, ThreadsOption, WriteOptions

if TYPE_CHECKING:
    from unoic_cli.calibration import Calibration


class PackOptions(TypedDict, total=False):
    """Options of `pack`."""

    codec: Annotated[
        str | None, Option("--codec", "CODEC", "Chunks, compressed by gzip or zstd, or none. Default: no chunks.")
    ]
    chunk: Annotated[str | int | None, Option("--chunk", "SIZE", "Bytes of a chunk, like 2M. Default: about 1.5M.")]
    dtype: Annotated[
        str,
        Option("--dtype", "TYPE", "Round scores to float16, bfloat16 or float32; or keep them.", default="keep"),
    ]
    layout: Annotated[
        str,
        Option("--layout", "LAYOUT", "Of images: rows (N, H, W, K), planes (N, K, H, W), or keep.", default="keep"),
    ]
    checksums: Annotated[
        bool | None,
        Option(
            "--checksums/--no-checksums",
            None,
            "Of the scores, compared when they are read. Default: of chunks and of Parquet; contiguous arrays "
            "have none, and become chunks for their sake.",
        ),
    ]
    calibration: Annotated[
        "str | os.PathLike[str] | Calibration | None",
        Option("--calibration -c", "FILE", "Also count what rounding changes under this calibration."),
    ]
    force: ForceOption
    allow_external: AllowExternalOption
    threads: ThreadsOption


HELP = """Everything is kept: labels, delta, text, priors, names, provenance. With --codec or --chunk the
scores are stored in chunks that any thread can read; with --dtype they are rounded, and
the decisions which that changes are counted.

Example: unoic pack val.h5 val.packed.h5 --dtype float16 --calibration calibration.json
"""


@command(
    PackOptions,
    Argument("inputs", "INPUT", "Logits file: FILE.h5, FILE.h5::GROUP, FILE.parquet.", many=False),
    Argument("out", "OUTPUT", "FILE.h5 or FILE.parquet; the suffix names the format.", many=False),
    after=(QuietOptions, WriteOptions),
    help=HELP,
)
def pack(inputs: str, out: str, format: str | None, **options: Any) -> None:
    """Pack, and show what was written."""
    from unoic_cli.report.pack import render_pack

    copy("pack", inputs, out, format, options, render_pack)
