"""``unoic calibrate``."""

from unoic_cli.cli.program import MODALITIES, writing
from unoic_cli.commands.calibrate import CalibrateOptions

HELP = """With neither --calibration nor --lambda, lambda is fitted on the labels of the input: what is
shown is then cross-fitted over 3 folds, and the calibration is written beside the output.

Example: unoic calibrate test.h5 --calibration calibration.json -o test.calibrated.h5
"""

calibrate = writing("calibrate", CalibrateOptions, MODALITIES, help=HELP)
