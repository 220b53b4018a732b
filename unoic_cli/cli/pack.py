"""``unoic pack``."""

from __future__ import annotations

from typing import Annotated

import typer

from unoic_cli.cli.common import (
    AllowExternalOption,
    ForceOption,
    FormatOption,
    QuietOption,
    ThreadsOption,
    Told,
    check_format,
    note,
    show,
)


def pack(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Logits file: FILE.h5, FILE.h5::GROUP, FILE.parquet.")],
    out: Annotated[str, typer.Argument(metavar="OUTPUT", help="FILE.h5 or FILE.parquet; the suffix names the format.")],
    codec: Annotated[
        str | None,
        typer.Option(
            "--codec", metavar="CODEC", help="Chunks, compressed by gzip or zstd, or none. Default: no chunks."
        ),
    ] = None,
    chunk: Annotated[
        str | None, typer.Option("--chunk", metavar="SIZE", help="Bytes of a chunk, like 2M. Default: about 1.5M.")
    ] = None,
    dtype: Annotated[
        str,
        typer.Option("--dtype", metavar="TYPE", help="Round scores to float16, bfloat16 or float32; or keep them."),
    ] = "keep",
    layout: Annotated[
        str,
        typer.Option("--layout", metavar="LAYOUT", help="Of images: rows (N, H, W, K), planes (N, K, H, W), or keep."),
    ] = "keep",
    checksums: Annotated[
        bool | None,
        typer.Option(
            "--checksums/--no-checksums",
            help="Of the scores, compared when they are read. Default: of chunks and of Parquet; contiguous arrays "
            "have none, and become chunks for their sake.",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration", "-c", metavar="FILE", help="Also count what rounding changes under this calibration."
        ),
    ] = None,
    force: ForceOption = False,
    allow_external: AllowExternalOption = False,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    format: FormatOption = None,
) -> None:
    """Rewrite a logits file in the form that is read fastest: contiguous HDF5.

    Everything is kept: labels, delta, text, priors, names, provenance. With --codec or --chunk the
    scores are stored in chunks that any thread can read; with --dtype they are rounded, and
    the decisions which that changes are counted.

    Example: unoic pack val.h5 val.packed.h5 --dtype float16 --calibration calibration.json
    """
    from unoic_cli.report.pack import render_pack
    from unoic_cli.tasks import pack as task

    check_format(format)
    with Told(quiet) as told:
        result = task.pack(
            source,
            out,
            codec=codec,
            chunk=chunk,
            dtype=dtype,
            layout=layout,
            checksums=checksums,
            calibration=calibration,
            force=force,
            allow_external=allow_external,
            threads=threads,
            progress=told.line,
        )
    for text in [] if quiet else result.notes:
        note(text)
    show(result, format, render_pack)
