"""What commands share: options that mean the same everywhere, and the way results and notes are shown."""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, TypeVar, cast

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
ModalitiesArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES",
        help="Logits files (HDF5, also FILE::GROUP, or Parquet); several are one data set. NAME=FILE for each modality "
        "of the same samples, which are then fused.",
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


DATA: dict[str, Any] = {
    "split": SplitOption,
    "ignore_index": IgnoreIndexOption,
    "allow_external": AllowExternalOption,
    "threads": ThreadsOption,
}
"""Options of every command that reads logits files."""

METHOD: dict[str, Any] = {
    "calibration": Annotated[
        str | None, typer.Option("--calibration", "-c", metavar="FILE", help="Apply a calibration (JSON).")
    ],
    "lam": Annotated[
        list[str] | None,
        typer.Option(
            "--lambda",
            "-l",
            metavar="L",
            help="Apply this lambda, with the priors below; rgb=0.3,depth=0.6 for each modality.",
        ),
    ],
    "source_prior": Annotated[
        list[str] | None,
        typer.Option(
            "--source-prior",
            metavar="PRIOR",
            help="Class frequencies in training: uniform, labels, mean-posterior, a comma list, a JSON/CSV/TSV file, "
            "or a logits file whose labels are counted; NAME=PRIOR for a modality (repeatable). Default: what the "
            "file stores, else its labels.",
        ),
    ],
    "target_prior": TargetPriorOption,
    "unseen": UnseenOption,
    "temperature": Annotated[
        list[str] | None,
        typer.Option("--temperature", metavar="T", help="Divide the scores by T; rgb=1.5,depth=2 for each modality."),
    ],
    "delta": Annotated[
        list[str] | None,
        typer.Option(
            "--delta",
            metavar="SPEC",
            help="Factor of the scores: statistics written by fit-delta, fit (on this input), none, or a file of "
            "factors (FILE::DATASET, npy); NAME=SPEC for a modality (repeatable). Default: what the file stores.",
        ),
    ],
    "delta_power": Annotated[
        float | None, typer.Option("--delta-power", metavar="P", help="delta ** P, where delta comes from statistics.")
    ],
    "order": Annotated[
        str | None,
        typer.Option(
            "--order",
            metavar="ORDER",
            help="flatten-first, delta*z + lambda*s (default), or rebalance-first, delta*(z + lambda*s).",
        ),
    ],
    "fusion": Annotated[
        str | None,
        typer.Option(
            "--fusion",
            metavar="HOW",
            help="How modalities are fused: noisy-or (default), average, product, max or log-linear.",
        ),
    ],
    "weights": Annotated[
        list[str] | None,
        typer.Option(
            "--weights", metavar="W,...", help="Of the modalities, for average and log-linear: rgb=2,depth=1."
        ),
    ],
}
"""Options of `unoic_cli.tasks.modalities.Wanted`: how scores are flattened, rebalanced and fused."""

C = TypeVar("C", bound=Callable[..., Any])


def shared(*tables: dict[str, Any], without: tuple[str, ...] = ()) -> Callable[[C], C]:
    """Give a command options that it shares with others; it takes their values as the dictionary `given`."""
    options = {name: kind for table in tables for name, kind in table.items() if name not in without}

    def decorate(command: C) -> C:
        own = inspect.signature(command, eval_str=True)
        kept = [parameter for parameter in own.parameters.values() if parameter.name != "given"]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        more = [
            inspect.Parameter(name, kind, default=False if name == "allow_external" else None, annotation=annotation)
            for name, annotation in options.items()
        ]

        def with_given(**arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in options}
            given["ignore_index"] = given.get("ignore_index") or ()
            return command(**arguments, given=given)

        with_given.__doc__, with_given.__name__ = command.__doc__, command.__name__
        with_given.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *more)}
        with_given.__signature__ = own.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
        return cast(C, with_given)

    return decorate


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


def check_format(format: str | None, more: tuple[str, ...] = ()) -> str:
    """The output format: asked for, or by where stdout goes.

    Raises
    ------
    UsageError
        An unknown format.
    """
    if format is None:
        return "table" if sys.stdout.isatty() else "json"
    if format not in ("table", "json", "tsv", *more):
        raise UsageError("--format", f"{format!r}", f"expected {', '.join(('table', 'json', *more))} or tsv")
    return format


def show(
    result: Result,
    format: str | None,
    table: Callable[[Any], RenderableType],
    tsv: Callable[[Any], str] | None = None,
    **more: Callable[[Any], str],
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
    **more : callable
        Make other forms, by their names.
    """
    chosen = check_format(format, tuple(more))
    if chosen in more:
        print(more[chosen](result), end="")
        return
    if chosen == "table":
        from rich.console import Console

        width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160  # a file does not wrap
        Console(highlight=False, markup=False, emoji=False, width=width).print(table(result))
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
        self.texts: list[str] = []

    def __enter__(self) -> Told:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.line.clear()
        if kind is None:  # an error is one line, and nothing beside it
            for text in self.texts:
                note(text)

    def arguments(self) -> dict[str, Any]:
        """`tell` and `progress` of `unoic_cli.tasks.common.Options`."""
        return {"tell": self.texts.append, "progress": self.line}
