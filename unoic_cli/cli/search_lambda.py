"""``unoic search-lambda``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unoic_cli.cli.common import (
    DATA,
    METHOD,
    RUN,
    AbsentOption,
    ForceOption,
    FormatOption,
    ModalitiesArgument,
    check_format,
    check_quoted,
    count,
    shared,
    show,
)
from unoic_cli.errors import UsageError


@shared(METHOD, DATA, RUN, without=("lam",))
def search_lambda(
    files: ModalitiesArgument,
    given: dict[str, Any],
    lam: Annotated[
        list[str] | None,
        typer.Option(
            "--lambda",
            "-l",
            metavar="L",
            help="Search nothing: measure this lambda, and write its calibration (-o); rgb=0.3,depth=0.6 for each "
            "modality.",
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="METRIC",
            help="What to maximise: macc (mean class, or balanced, accuracy), acc, miou, f1 (macro), or topN (top5).",
        ),
    ] = "macc",
    range: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="A:B[:STEP]",
            help="Lambdas to look at; A:A is one. Default: 0:2, grown to 16 at most while the best value sits on its "
            "upper end.",
        ),
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", metavar="STEP", help="Lattice step. Default: 0.01; 0.1 for paper.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="METHOD",
            help="path (exact, one read for all lambdas; the default where scores are lines in lambda), grid (each "
            "lambda plainly, in one read; the default for noisy-or, average and max), paper (Algorithm 2, repaired), "
            "paper-printed (Algorithm 2 by its text).",
        ),
    ] = None,
    subject_to: Annotated[
        str | None,
        typer.Option(
            "--subject-to",
            metavar="TEXT",
            help="Constraints joined by and, such as 'miou>=0.8 and acc>=base-0.005'; base is the value of the scores "
            "as they are.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option("--folds", metavar="K", help="Cross-validate too: tune on K-1 folds, test on the one held out."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Of the folds. Default: 0.")] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="WHAT", help="Also report each group (the files' group field), or each file."),
    ] = None,
    per_modality: Annotated[
        bool,
        typer.Option("--per-modality", help="First find each modality's own lambda, then one factor of all of them."),
    ] = False,
    absent: AbsentOption = "reference",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the calibration (JSON) for --calibration."),
    ] = None,
    curve: Annotated[str | None, typer.Option("--curve", metavar="FILE", help="Write the curve as TSV.")] = None,
    force: ForceOption = False,
    format: FormatOption = None,
) -> None:
    """Find the rebalancing lambda that serves a metric best: the whole curve from one read of the data.

    Predictions are argmax(delta * z + lambda * s) with s = log target prior - log source prior; those of several
    modalities are fused (--fusion). With --calibration, that file holds all but lambda. With --lambda, a lambda that is
    known (from a paper, say) is measured and kept as a calibration.

    Example: unoic search-lambda val.h5 --folds 3 -o calibration.json
    """
    check_quoted("--subject-to", subject_to)
    if check_format(format) == "tsv" and folds is not None:
        raise UsageError("--folds", "--folds with --format tsv, which is the curve alone", "expected table or json")
    count(
        "search-lambda",
        files,
        given,
        present,
        format,
        lam=lam,
        metric=metric,
        range=range,
        step=step,
        method=method,
        subject_to=subject_to,
        folds=folds,
        seed=seed,
        by=by,
        per_modality=per_modality,
        absent=absent,
        output=output,
        curve_output=curve,
        force=force,
    )


def present(result: Any, format: str | None) -> None:
    """Show a result."""
    from unoic_cli.report.search import render_search
    from unoic_cli.tasks.search import curve_tsv

    if check_format(format) == "tsv" and result.folds is not None:
        raise UsageError("--format", "tsv, the curve alone, of a search with folds", "expected table or json")
    show(result, format, render_search, curve_tsv)
