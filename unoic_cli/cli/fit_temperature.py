"""``unoic fit-temperature``."""

import os
from typing import TYPE_CHECKING, Annotated, Any

from unoic_cli.cli.common import show
from unoic_cli.cli.program import FILES, counting
from unoic_cli.options import Option
from unoic_cli.tasks.options import DataOptions, ForceOption, TargetPriorOption, UnseenOption

if TYPE_CHECKING:
    from unoic_cli.calibration import Calibration
    from unoic_cli.tasks.common import PriorLike


class FitTemperatureOptions(DataOptions, total=False):
    """Options of `fit_temperature`."""

    output: Annotated[
        str | os.PathLike[str] | None, Option("--output -o", "FILE", "Write the calibration (JSON).", says="where")
    ]
    calibration: Annotated[
        "str | os.PathLike[str] | Calibration | None",
        Option(
            "--calibration -c",
            "FILE",
            "Give this calibration (JSON) the temperature, and convert its lambda so that predictions stay the "
            "same. Default: lambda 0 with the priors below.",
        ),
    ]
    bins: Annotated[int, Option("--bins", "N", "Equal-width bins of the expected calibration error.", default=15)]
    floor: Annotated[float | None, Option("--floor", "P", "Take probabilities below P as P (of probs and log_probs).")]
    source_prior: Annotated[
        "PriorLike",
        Option(
            "--source-prior",
            "PRIOR",
            "Class frequencies in training: uniform, labels, mean-posterior, a comma list, a JSON/CSV/TSV file, or a "
            "logits file whose labels are counted. Default: what the file stores, else its labels.",
        ),
    ]
    target_prior: TargetPriorOption
    unseen: UnseenOption
    force: ForceOption


HELP = "Example: unoic fit-temperature val.h5 -o calibration.json"


@counting(FitTemperatureOptions, FILES, help=HELP)
def fit_temperature(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.report.fit_temperature import render_fit_temperature

    show(result, format, render_fit_temperature)
