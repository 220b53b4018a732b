"""``unoic fit-delta``."""

from typing import Any

from unoic_cli.cli.common import show
from unoic_cli.cli.program import Argument, counting
from unoic_cli.commands.fit_delta import FitDeltaOptions

SCORES = Argument(
    "files",
    "[NAME=]FILES",
    "Logits files of one modality, of any format (in HDF5 also FILE::GROUP); several are one data set. Labels "
    "are not needed. NAME is kept in the statistics. Remote names, patterns, @LIST and - as for unoic info.",
)


HELP = "Example: unoic fit-delta rgb=val.h5 -o rgb.delta.json"


@counting(FitDeltaOptions, SCORES, help=HELP)
def fit_delta(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.report.fit_delta import render_fit_delta

    show(result, format, render_fit_delta)
