"""``unoic search-lambda``."""

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from unoic_cli.cli.common import check_format, check_quoted, show
from unoic_cli.cli.program import MODALITIES, counting
from unoic_cli.errors import UsageError
from unoic_cli.options import Option
from unoic_cli.tasks.options import (
    AbsentOption,
    CalibrationOptions,
    DataOptions,
    ForceOption,
    MetricsOption,
    ScoreOptions,
    ShotsOption,
)


class SearchOptions(CalibrationOptions, ScoreOptions, DataOptions, total=False):
    """Options of `search_lambda`."""

    lam: Annotated[
        Any,
        Option(
            "--lambda -l",
            "L",
            "Search nothing: measure this lambda, and write its calibration (-o); rgb=0.3,depth=0.6 for each modality.",
            many=True,
        ),
    ]
    metric: Annotated[
        str,
        Option(
            "--metric",
            "METRIC",
            "What to maximise: macc (mean class, or balanced, accuracy), acc, miou, f1 (macro), topN (top5), or "
            "another of --metrics; what is better when it is less (nll, ece) is minimised, by grid.",
            default="macc",
        ),
    ]
    range: Annotated[
        str | Sequence[float] | None,
        Option(
            "--range",
            "A:B[:STEP]",
            "Lambdas to look at; A:A is one. Default: 0:2, grown to 16 at most while the best value sits on its "
            "upper end.",
        ),
    ]
    step: Annotated[str | float | None, Option("--step", "STEP", "Lattice step. Default: 0.01; 0.1 for paper.")]
    method: Annotated[
        str | None,
        Option(
            "--method",
            "METHOD",
            "path (exact, one read for all lambdas; the default where scores are lines in lambda), grid (each "
            "lambda plainly, in one read; the default for noisy-or, average and max), paper (Algorithm 2, repaired), "
            "paper-printed (Algorithm 2 by its text).",
        ),
    ]
    subject_to: Annotated[
        str | None,
        Option(
            "--subject-to",
            "TEXT",
            "Constraints joined by and, such as 'recall[melanoma]>=0.8 and acc>=base-0.005'; base is the value of the "
            "scores as they are.",
        ),
    ]
    metrics: MetricsOption
    shots: ShotsOption
    folds: Annotated[
        int | None, Option("--folds", "K", "Cross-validate too: tune on K-1 folds, test on the one held out.")
    ]
    seed: Annotated[int | None, Option("--seed", "N", "Of the folds. Default: 0.")]
    by: Annotated[
        str | None,
        Option("--by", "WHAT", "Also report each group (the files' group field), or each file."),
    ]
    per_modality: Annotated[
        bool, Option("--per-modality", None, "First find each modality's own lambda, then one factor of all of them.")
    ]
    absent: AbsentOption
    output: Annotated[
        str | os.PathLike[str] | None,
        Option("--output -o", "FILE", "Write the calibration (JSON) for --calibration.", says="where"),
    ]
    curve_output: Annotated[
        str | os.PathLike[str] | None, Option("--curve", "FILE", "Write the curve as TSV.", says="where")
    ]
    force: ForceOption


def check(given: Mapping[str, Any], form: str) -> None:
    """Refuse what the curve alone does not show, and what the shell took apart."""
    check_quoted("--subject-to", given["subject_to"])
    if form == "tsv" and given["folds"] is not None:
        raise UsageError("--folds", "--folds with --format tsv, which is the curve alone", "expected table or json")


HELP = """Predictions are argmax(delta * z + lambda * s) with s = log target prior - log source prior; those of several
modalities are fused (--fusion). With --calibration, that file holds all but lambda. With --lambda, a lambda that is
known (from a paper, say) is measured and kept as a calibration.

Example: unoic search-lambda val.h5 --folds 3 -o calibration.json
"""


@counting(SearchOptions, MODALITIES, check=check, help=HELP)
def search_lambda(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.report.search import render_search
    from unoic_cli.tasks.search import curve_tsv

    if check_format(format) == "tsv" and result.folds is not None:
        raise UsageError("--format", "tsv, the curve alone, of a search with folds", "expected table or json")
    show(result, format, render_search, curve_tsv)
