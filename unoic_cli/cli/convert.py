"""``unoic convert``."""

from __future__ import annotations

from typing import Annotated

import typer

from unoic_cli.cli.common import (
    AllowExternalOption,
    ClassAxisOption,
    ForceOption,
    FormatOption,
    LabelsKeyOption,
    LogitsKeyOption,
    check_format,
    is_stream,
    note,
    show,
)


def convert(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="FILE.npz, .npy, .h5 (or FILE.h5::GROUP), .parquet; - for stdin.")
    ],
    out: Annotated[str, typer.Argument(metavar="OUTPUT", help="FILE.h5, .parquet or .arrows; - for stdout.")],
    logits_key: LogitsKeyOption = None,
    labels_key: LabelsKeyOption = None,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="FILE", help="npy or npz file with the labels, if elsewhere.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", metavar="KIND", help="What the scores are: logits, log_probs or probs. Default: by all values."
        ),
    ] = None,
    class_axis: ClassAxisOption = None,
    force: ForceOption = False,
    allow_external: AllowExternalOption = False,
    format: FormatOption = None,
) -> None:
    """Make a logits file (HDF5 or Parquet) of numpy arrays, or of a logits file in the other format.

    Scores keep every bit. Whether arrays hold logits or probabilities is decided once, from all
    values, said in the output, and refused when in doubt.

    Example: unoic convert val.npz val.h5 --logits-key logits_rgb
    """
    from unoic_cli.report.convert import render_convert
    from unoic_cli.tasks import convert as task

    check_format(format)
    stream = is_stream(out, format)
    result = task.convert(
        source,
        out,
        logits_key=logits_key,
        labels_key=labels_key,
        kind=kind,  # type: ignore[arg-type]  # the task refuses other words
        class_axis=class_axis,
        labels=labels,
        force=force,
        allow_external=allow_external,
    )
    for text in result.notes:
        note(text)
    if not stream:
        show(result, format, render_convert)
