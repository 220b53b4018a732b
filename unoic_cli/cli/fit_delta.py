"""``unoic fit-delta``."""

from __future__ import annotations

from typing import Annotated

import typer

from unoic_cli.cli.common import (
    AllowExternalOption,
    ForceOption,
    FormatOption,
    SplitOption,
    ThreadsOption,
    Told,
    check_format,
    show,
)


def fit_delta(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]FILES",
            help="Logits files of one modality (HDF5, also FILE::GROUP, or Parquet); several are one data set. Labels "
            "are not needed. NAME is kept in the statistics.",
        ),
    ],
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
    split: SplitOption = None,
    force: ForceOption = False,
    allow_external: AllowExternalOption = False,
    threads: ThreadsOption = None,
    format: FormatOption = None,
) -> None:
    """Fit the statistics that flatten the scores of uncertain samples: mean and spread of their entropy.

    Example: unoic fit-delta rgb=val.h5 -o rgb.delta.json
    """
    from unoic_cli.report.fit_delta import render_fit_delta
    from unoic_cli.tasks import fit_delta as task

    check_format(format)
    with Told() as told:
        result = task.fit_delta(
            files,
            origin=origin,
            kind=kind,
            measure=measure,
            delta_power=delta_power,
            modality=modality,
            statistics=statistics,
            output=output,
            write_delta=write_delta,
            force=force,
            split=split,
            allow_external=allow_external,
            threads=threads,
            **told.arguments(),
        )
    show(result, format, render_fit_delta)
