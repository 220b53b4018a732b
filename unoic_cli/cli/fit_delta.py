"""``unoic fit-delta``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unoic_cli.cli.common import (
    DATA,
    RUN,
    ForceOption,
    FormatOption,
    check_format,
    count,
    shared,
    show,
)


@shared(DATA, RUN, without=("ignore_index",))
def fit_delta(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]FILES",
            help="Logits files of one modality (HDF5, also FILE::GROUP, or Parquet); several are one data set. Labels "
            "are not needed. NAME is kept in the statistics. Remote names, patterns, @LIST and - as for unoic info.",
        ),
    ],
    given: dict[str, Any],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the statistics (JSON).")
    ] = None,
    origin: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="ORIGIN",
            help="Where uncertainty comes from: scores (entropy of their softmax), or mc-dropout: FILES then hold "
            "stochastic passes, (N, S, K) or (N, S, K, H, W), in HDF5 (FILE::DATASET, by default passes), npy or npz.",
        ),
    ] = "scores",
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Passes are logits (default), log_probs or probs.")
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            "--measure",
            metavar="MEASURE",
            help="Of passes: predictive-entropy (of their mean; default), or mutual-information (what it exceeds their "
            "mean entropy by).",
        ),
    ] = None,
    delta_power: Annotated[
        float | None,
        typer.Option(
            "--delta-power", metavar="P", help="delta = (mu / (max(0, H - mu - sigma) + mu)) ** P. Default: 1."
        ),
    ] = None,
    modality: Annotated[
        str | None, typer.Option("--modality", metavar="NAME", help="Name of the modality, as NAME=FILE.")
    ] = None,
    write_delta: Annotated[
        str | None,
        typer.Option(
            "--write-delta", metavar="OUT.h5", help="Write delta and uncertainty (N,) of the samples to HDF5."
        ),
    ] = None,
    statistics: Annotated[
        str | None,
        typer.Option(
            "--statistics", metavar="FILE", help="Fit nothing: --write-delta the factors that these statistics give."
        ),
    ] = None,
    force: ForceOption = False,
    format: FormatOption = None,
) -> None:
    """Fit the statistics that flatten the scores of uncertain samples: mean and spread of their entropy.

    Example: unoic fit-delta rgb=val.h5 -o rgb.delta.json
    """
    check_format(format)
    count(
        "fit-delta",
        files,
        given,
        present,
        format,
        origin=origin,
        kind=kind,
        measure=measure,
        delta_power=delta_power,
        modality=modality,
        statistics=statistics,
        output=output,
        write_delta=write_delta,
        force=force,
    )


def present(result: Any, format: str | None) -> None:
    """Show a result."""
    from unoic_cli.report.fit_delta import render_fit_delta

    show(result, format, render_fit_delta)
