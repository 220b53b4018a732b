"""What commands share: options that mean the same everywhere, and the way results and notes are shown."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias

import typer

from unoic_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

FilesArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES", help="Logits files (HDF5, also FILE::GROUP, or Parquet); several are one data set."
    ),
]
SplitOption: TypeAlias = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="Only the samples of this split.")
]
IgnoreIndexOption: TypeAlias = Annotated[
    list[int] | None,
    typer.Option(
        "--ignore-index",
        metavar="LABEL",
        help="Leave units with this label out (repeatable). 255, -1 and -100 outside the classes always are.",
    ),
]
SourcePriorOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--source-prior",
        metavar="PRIOR",
        help="Class frequencies in training: uniform, labels, mean-posterior, a comma list, a JSON/CSV/TSV file, or a "
        "logits file whose labels are counted. Default: what the file stores, else its labels.",
    ),
]
TargetPriorOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--target-prior", metavar="PRIOR", help="Class frequencies wanted; as --source-prior. Default: uniform."
    ),
]
UnseenOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--unseen",
        metavar="POLICY",
        help="Classes of prior zero: mask (never predicted), floor, smooth or error. Default: mask.",
    ),
]
TemperatureOption: TypeAlias = Annotated[
    float | None, typer.Option("--temperature", metavar="T", help="Divide the scores by T.")
]
AbsentOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--absent",
        metavar="RULE",
        help="Classes that are absent: reference (left out when in neither truth nor prediction), truth-only, or zero.",
    ),
]
ForceOption: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace outputs that exist.")]
AllowExternalOption: TypeAlias = Annotated[
    bool, typer.Option("--allow-external", help="Follow HDF5 external links, external storage and virtual datasets.")
]
ThreadsOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="Worker threads. Default: what the machine gives this process."),
]
FormatOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="table, json or tsv. Default: table on a terminal, json in a pipe."
    ),
]


class Result(Protocol):
    """What a task returns."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        ...


def one_line(text: str) -> str:
    """Text that stays on one line and sends no escape codes, whatever a file's name holds."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def note(text: str) -> None:
    """Say something on stderr that is not a result."""
    print(f"unoic: note: {one_line(text)}", file=sys.stderr)


def check_format(format: str | None) -> str:
    """The output format: asked for, or by where stdout goes.

    Raises
    ------
    UsageError
        An unknown format.
    """
    if format is None:
        return "table" if sys.stdout.isatty() else "json"
    if format not in ("table", "json", "tsv"):
        raise UsageError("--format", f"{format!r}", "expected table, json or tsv")
    return format


def show(
    result: Result,
    format: str | None,
    table: Callable[[Any], RenderableType],
    tsv: Callable[[Any], str] | None = None,
) -> None:
    """Print a result on stdout.

    Parameters
    ----------
    result : Result
    format : str or None
        As given on the command line.
    table : callable
        Makes the terminal form.
    tsv : callable, optional
        Makes the tab-separated form; by default names and values, one a line.
    """
    chosen = check_format(format)
    if chosen == "table":
        from rich.console import Console

        Console(highlight=False, markup=False, emoji=False).print(table(result))
    elif chosen == "json":
        print(json.dumps(_plain(result.to_dict()), indent=1))
    else:
        print(tsv(result) if tsv else "\n".join(_flat(result.to_dict())), end="" if tsv else "\n")


def _plain(value: Any) -> Any:
    """Without NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(value: Any, prefix: str = "") -> list[str]:
    """Dotted names and values."""
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in _flat(item, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, (list, tuple)):
        return [line for i, item in enumerate(value) for line in _flat(item, f"{prefix}.{i}")]
    text = "" if value is None else str(value).replace("\t", " ").replace("\n", " ")
    return [f"{prefix}\t{text}"]


class ProgressLine:
    """A bar on stderr for work that takes more than a second; nothing when stderr is not a terminal."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.shown = False

    def __call__(self, done: int, total: int) -> None:
        """Report spans done, of how many."""
        seconds = time.monotonic() - self.started
        if not sys.stderr.isatty() or seconds < 1:
            return
        share = done / total if total else 1.0
        left = f", {seconds / share - seconds:.0f} s left" if 0 < share < 1 else ""
        bar = "#" * int(30 * share)
        print(f"\r\x1b[K[{bar:<30}] {share:4.0%}{left}", end="", file=sys.stderr, flush=True)
        self.shown = True

    def clear(self) -> None:
        """Remove the bar."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self.shown = False


class Told:
    """Arguments that connect a task to stderr: use as ``with Told() as told: task(..., **told.arguments())``."""

    def __init__(self) -> None:
        self.line = ProgressLine()

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        self.line.clear()

    def _note(self, text: str) -> None:
        self.line.clear()
        note(text)

    def arguments(self) -> dict[str, Any]:
        """`tell` and `progress` of `unoic_cli.tasks.common.Options`."""
        return {"tell": self._note, "progress": self.line}
