"""``unoic calibrate``."""

import os
from typing import TYPE_CHECKING, Annotated, TypeAlias

from unoic_cli.cli.program import MODALITIES, writing
from unoic_cli.options import Option
from unoic_cli.tasks.options import AbsentOption, DataOptions, ForceOption, MethodOptions

if TYPE_CHECKING:
    from unoic_cli.tasks.calibrate import Emit

EmitOption: TypeAlias = Annotated[
    "Emit", Option("--emit", "WHAT", "log-probs, probs, or predictions alone.", default="log-probs")
]


class CalibrateOptions(MethodOptions, DataOptions, total=False):
    """Options of `calibrate`."""

    output: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "--output -o",
            "FILE",
            "HDF5, Parquet or Arrow stream (.arrows); - streams to stdout. Default: STEM.calibrated.SUFFIX here.",
            says="where",
        ),
    ]
    emit: EmitOption
    metric: Annotated[
        str | None, Option("--metric", "METRIC", "What to maximise where lambda is fitted. Default: macc.")
    ]
    absent: AbsentOption
    force: ForceOption


HELP = """With neither --calibration nor --lambda, lambda is fitted on the labels of the input: what is
shown is then cross-fitted over 3 folds, and the calibration is written beside the output.

Example: unoic calibrate test.h5 --calibration calibration.json -o test.calibrated.h5
"""

calibrate = writing("calibrate", CalibrateOptions, MODALITIES, help=HELP)
