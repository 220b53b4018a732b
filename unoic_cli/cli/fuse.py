"""``unoic fuse``."""

from unoic_cli.cli.program import Argument, writing
from unoic_cli.commands.calibrate import FuseOptions

MODALITIES = Argument("files", "NAME=FILE...", "The modalities, aligned row by row (repeat a name for several files).")


HELP = """Without --lambda or --calibration nothing is rebalanced. unoic calibrate takes the same inputs and fits
lambda.

Example: unoic fuse rgb=rgb.h5 depth=depth.h5 -o fused.h5 --fusion noisy-or
"""

fuse = writing("fuse", FuseOptions, MODALITIES, help=HELP)
