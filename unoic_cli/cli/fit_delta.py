"""``unoic fit-delta``."""

import os
from typing import TYPE_CHECKING, Annotated, Any

from unoic_cli.cli.common import show
from unoic_cli.cli.program import Argument, counting
from unoic_cli.options import Option
from unoic_cli.tasks.options import FileOptions, ForceOption, SplitOptions

if TYPE_CHECKING:
    from unoic_cli.uncertainty import DeltaStatistics


class FitDeltaOptions(SplitOptions, FileOptions, total=False):
    """Options of `fit_delta`."""

    output: Annotated[
        str | os.PathLike[str] | None, Option("--output -o", "FILE", "Write the statistics (JSON).", says="where")
    ]
    origin: Annotated[
        str,
        Option(
            "--from",
            "ORIGIN",
            "Where uncertainty comes from: scores (entropy of their softmax), or mc-dropout: FILES then hold "
            "stochastic passes, (N, S, K) or (N, S, K, H, W), in HDF5 (FILE::DATASET, by default passes), npy or npz.",
            default="scores",
        ),
    ]
    kind: Annotated[str | None, Option("--kind", "KIND", "Passes are logits (default), log_probs or probs.")]
    measure: Annotated[
        str | None,
        Option(
            "--measure",
            "MEASURE",
            "Of passes: predictive-entropy (of their mean; default), or mutual-information (what it exceeds their "
            "mean entropy by).",
        ),
    ]
    delta_power: Annotated[
        float | None,
        Option("--delta-power", "P", "delta = (mu / (max(0, H - mu - sigma) + mu)) ** P. Default: 1."),
    ]
    modality: Annotated[str | None, Option("--modality", "NAME", "Name of the modality, as NAME=FILE.")]
    write_delta: Annotated[
        str | os.PathLike[str] | None,
        Option("--write-delta", "OUT.h5", "Write delta and uncertainty (N,) of the samples to HDF5.", says="where"),
    ]
    statistics: Annotated[
        "DeltaStatistics | str | os.PathLike[str] | None",
        Option("--statistics", "FILE", "Fit nothing: --write-delta the factors that these statistics give."),
    ]
    force: ForceOption


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
