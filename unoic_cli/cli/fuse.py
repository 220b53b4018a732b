"""``unoic fuse``."""

import os
from typing import Annotated

from unoic_cli.cli.calibrate import EmitOption
from unoic_cli.cli.program import Argument, writing
from unoic_cli.options import Option
from unoic_cli.tasks.options import AbsentOption, DataOptions, ForceOption, MethodOptions


class FuseOptions(MethodOptions, DataOptions, total=False):
    """Options of `fuse`."""

    output: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "--output -o",
            "FILE",
            "HDF5, Parquet or Arrow stream (.arrows); - streams to stdout. Default: STEM.fused.SUFFIX here.",
            says="where",
        ),
    ]
    emit: EmitOption
    absent: AbsentOption
    force: ForceOption


MODALITIES = Argument("files", "NAME=FILE...", "The modalities, aligned row by row (repeat a name for several files).")


HELP = """Without --lambda or --calibration nothing is rebalanced. unoic calibrate takes the same inputs and fits
lambda.

Example: unoic fuse rgb=rgb.h5 depth=depth.h5 -o fused.h5 --fusion noisy-or
"""

fuse = writing("fuse", FuseOptions, MODALITIES, help=HELP)
