"""What commands share: options that mean the same everywhere, and the way results and notes are shown."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, TypeVar, cast, get_args

import typer

from unoic_cli import compiling
from unoic_cli.errors import UsageError, one_line, printable
from unoic_cli.urls import scrub

if TYPE_CHECKING:
    from rich.console import RenderableType

FilesArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES",
        help="Logits files (HDF5, also FILE::GROUP, or Parquet); several are one data set. Also s3://, gs://, abfs:// "
        "and https:// names, patterns ('val/*.h5'), @LIST (one a line), and - (an Arrow stream on stdin).",
    ),
]
ModalitiesArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES",
        help="Logits files (HDF5, also FILE::GROUP, or Parquet); several are one data set. NAME=FILE for each modality "
        "of the same samples, which are then fused. Also s3://, gs://, abfs:// and https:// names, patterns "
        "('val/*.h5'), @LIST (one a line), and - (an Arrow stream on stdin).",
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
LogitsKeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--logits-key", metavar="NAME", help="Array (or column) with the scores, where names do not tell."),
]
LabelsKeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--labels-key", metavar="NAME", help="Array (or column) with the labels, where names do not tell."),
]
ClassAxisOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--class-axis",
        metavar="AXIS",
        help="Of 4-D scores: 1 for (N, K, H, W), -1 for (N, H, W, K), where the file does not tell.",
    ),
]
ThreadsOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="Worker threads. Default: what the machine gives this process."),
]
QuietOption: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
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
    "logits_key": LogitsKeyOption,
    "labels_key": LabelsKeyOption,
    "class_axis": ClassAxisOption,
    "threads": ThreadsOption,
    "memory": Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="Bound of the buffers, such as 256MB. Default: 64MB a thread."),
    ],
    "quiet": QuietOption,
}
"""Options of every command that reads logits files."""

RUN: dict[str, Any] = {
    "shard": Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Count the I-th of N parts (equal numbers of rows, whole images) into --state, for unoic merge; auto: "
            "the place of this task in its SLURM array.",
        ),
    ],
    "state": Annotated[
        str | None,
        typer.Option("--state", metavar="FILE", help="Write what was counted, for unoic merge and unoic report."),
    ],
    "after": Annotated[
        str | None,
        typer.Option("--after", metavar="FILE", help="Go on from the merged state of the pass before (with --shard)."),
    ],
    "checkpoint": Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="Save the work now and then, and when a signal ends it (exit code 75). Removed in the end.",
        ),
    ],
    "every": Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="How often --checkpoint saves. Default: 60s.")
    ],
    "resume": Annotated[bool, typer.Option("--resume", help="Go on from --checkpoint, if it is there.")],
    "engine": Annotated[
        str | None,
        typer.Option("--engine", metavar="NAME", help="Who counts: threads (default), or dask (unoic[dask])."),
    ],
    "scheduler": Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Of a running Dask cluster.")
    ],
    "scheduler_file": Annotated[
        str | None, typer.Option("--scheduler-file", metavar="FILE", help="Written by the scheduler of a Dask cluster.")
    ],
    "workers": Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Start a Dask cluster of N processes here.")
    ],
}
"""Options of `unoic_cli.tasks.runs.Control`: how a counting command is cut, kept and spread."""

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

_NO_OUTPUT = ("evaluate", "compare")
"""Counting commands that write nothing but state files."""
_SILENCE = 30.0
"""Seconds between lines of progress where there is no terminal."""

WRITE: dict[str, Any] = {
    "shard": Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Write the I-th of N parts (equal numbers of rows, whole images) to STEM.000I-of-000N.SUFFIX; auto: "
            "the place of this task in its SLURM array.",
        ),
    ],
    **{name: RUN[name] for name in ("checkpoint", "every", "resume")},
}
"""Options of commands that write a file as large as the data."""

C = TypeVar("C", bound=Callable[..., Any])


def shared(*tables: dict[str, Any], without: tuple[str, ...] = ()) -> Callable[[C], C]:
    """Give a command options that it shares with others; it takes their values as the dictionary `given`."""
    options = {name: kind for table in tables for name, kind in table.items() if name not in without}

    def decorate(command: C) -> C:
        own = inspect.signature(command, eval_str=True)
        kept = [parameter for parameter in own.parameters.values() if parameter.name != "given"]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        more = [
            inspect.Parameter(name, kind, default=_default(annotation), annotation=annotation)
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


def _default(annotation: Any) -> Any:
    return False if get_args(annotation)[0] is bool else None


class Result(Protocol):
    """What a task returns."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        ...


def say(text: str, end: str = "\n") -> None:
    """Write to stderr, if it takes anything: where it is full or closed, results and exit codes stay what they are."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        silence(sys.stderr)


def silence(stream: Any) -> None:
    """Send a stream that cannot be written to nowhere, so that Python does not fail at it once more in the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def note(text: str) -> None:
    """Say something on stderr that is not a result."""
    say(f"unoic: note: {one_line(scrub(text))}")


def redirected() -> str | None:
    """The file in this folder that the shell sends stdout to, if that is where it goes."""
    with contextlib.suppress(OSError):
        there = os.fstat(1)
        if stat.S_ISREG(there.st_mode):
            with os.scandir() as entries:
                return next((e.name for e in entries if os.path.samestat(e.stat(follow_symlinks=False), there)), None)
    return None


def check_quoted(option: str, text: str | None) -> None:
    """Refuse comparisons that have lost their sign to the shell: ``acc>=0.8`` writes a file named ``=0.8``.

    Raises
    ------
    UsageError
        Neither ``<`` nor ``>`` is left.
    """
    if text is None or "<" in text or ">" in text:
        return
    name = redirected()
    wrote = "" if name is None else f" (and stdout goes to the file {name!r}, which it made: remove it)"
    expected = f"expected comparisons in quotes, as the shell takes > for a redirection{wrote}: {option} 'acc>=0.8'"
    raise UsageError(option, f"{text!r}, which compares nothing", expected)


def is_stream(output: str | None, format: str | None) -> bool:
    """Whether the output is a stream on stdout, which leaves no place there for a result.

    Raises
    ------
    UsageError
        A form of the result is asked for, too.
    """
    if output == "-" and format is not None:
        raise UsageError("--format", "--format with a stream on stdout", "expected it where the output is a file")
    return output == "-"


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
    if chosen == "table":
        from unoic_cli.report.terminal import print_table

        print_table(table(result))
    elif chosen == "json":
        print(json.dumps(_plain(result.to_dict()), indent=1).replace("\x7f", "\\u007f"))
    else:
        lines = more[chosen](result) if chosen in more else tsv(result) if tsv else _names_and_values(result)
        print(printable(lines, keep="\t\n"), end="")


def _plain(value: Any) -> Any:
    """Without NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _names_and_values(result: Result) -> str:
    return "\n".join(_flat(result.to_dict())) + "\n"


def _flat(value: Any, prefix: str = "") -> list[str]:
    """Dotted names and values."""
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in _flat(item, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, (list, tuple)):
        return [line for i, item in enumerate(value) for line in _flat(item, f"{prefix}.{i}")]
    return ["\t".join(" ".join(text.split()) for text in (prefix, "" if value is None else str(value)))]


class ProgressLine:
    """How far the work has come, on stderr: a bar on a terminal, after a second; else a line every half a minute."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.started = self.said = time.monotonic()
        self.begun = 0.0
        self.total = self.last = 0
        self.shown = False

    def __call__(self, done: int, total: int) -> None:
        """Report bytes read, of how many."""
        now = time.monotonic()
        if total != self.total or done < self.last:  # another stream over the data
            self.total, self.begun = total, now
        self.last = done
        if self.quiet or now - self.started < 1:
            return
        terminal = sys.stderr.isatty()
        compiles = not done and compiling.active()  # said already, and a bar would stand at 0 %
        if not terminal and (compiles or now - self.said < _SILENCE):
            return
        self.said = now
        seconds = max(now - self.begun, 1e-9)
        share = done / total if total else 1.0
        left = f", {_duration(seconds / share - seconds)} left" if 0 < share < 1 else ""
        text = f"{share:4.0%}, {size(done)} of {size(total)}, {size(int(done / seconds))}/s{left}"
        if compiles:
            text = f"compiling kernels, {_duration(seconds)} so far"
        if terminal:
            say(f"\r\x1b[K[{'#' * int(30 * share):<30}] {text}", end="")
            self.shown = True
        else:
            say(f"unoic: {text.strip()}")

    def clear(self) -> None:
        """Remove the bar."""
        if self.shown:
            say("\r\x1b[K", end="")
            self.shown = False


def size(n: int) -> str:
    """Bytes in words.

    Examples
    --------
    >>> size(1500), size(29_000_000_000)
    ('1.5 kB', '29.0 GB')
    """
    value, unit = float(n), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 6000 else f"{whole // 3600} h {whole % 3600 // 60} min"


class Told:
    """Arguments that connect a task to stderr: use as ``with Told() as told: task(..., **told.arguments())``."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.line = ProgressLine(quiet)
        self.texts: list[str] = []

    def __enter__(self) -> Told:
        compiling.listen(self._compiling)
        return self

    def _compiling(self, text: str) -> None:
        """Say it at once: what comes next takes long, and looks as if nothing happened."""
        if not self.quiet:
            self.line.clear()
            note(text)
            sys.stderr.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.line.clear()
        compiling.listen(None)
        if kind is None and not self.quiet:  # an error is one line, and nothing beside it
            for text in self.texts:
                note(text)
            jit = sys.modules.get("unoic_cli.kernels.jit")
            if jit is not None and jit.refusal is not None:
                note(f"compiled kernels are not kept: {jit.refusal} (UNOIC_CACHE_DIR names another folder)")

    def arguments(self) -> dict[str, Any]:
        """`tell` and `progress` of `unoic_cli.tasks.common.Options`."""
        return {"tell": self.texts.append, "progress": self.line}


def write(command: str, files: Any, given: dict[str, Any], format: str | None, **arguments: Any) -> None:
    """Run a command that writes logits as its options say, and show the result, where stdout is free for it."""
    from unoic_cli.report.calibrate import render_calibrate
    from unoic_cli.tasks.runs import Control, run

    stream = is_stream(arguments["output"], format)
    control = Control(**{name: given.pop(name) for name in WRITE})
    with Told(given.pop("quiet")) as told:
        result = run(command, files, control=control, **arguments, **given, **told.arguments())
        if stream:
            rows = f"{result.n_units:,} rows written ({result.emit}), lambda = {result.calibration.lam:g}"
            told.texts.append(rows)
    if not stream:
        show(result, format, render_calibrate)


def count(
    command: str,
    files: Any,
    given: dict[str, Any],
    present: Callable[[Any, str | None], None],
    format: str | None,
    **arguments: Any,
) -> None:
    """Run a counting command as its options say, and show the result, or the state that it wrote.

    Parameters
    ----------
    command : str
    files : list of str
    given : dict
        Values of the shared options.
    present : callable
        Shows a result of the command.
    format : str or None
        As given on the command line.
    **arguments
        Of the command alone; ``force`` also speaks of state files.
    """
    from unoic_cli.report.state import render_state
    from unoic_cli.tasks.runs import Control, StateResult, run

    control = Control(**{name: given.pop(name) for name in RUN}, replace=arguments.get("force", False))
    if control.shard is not None:  # the result is a state, which has no forms of its own
        check_format(format)
    stored = control.state is not None or control.checkpoint is not None
    if command in _NO_OUTPUT and arguments.pop("force") and not stored:
        raise UsageError("--force", "--force without --state or --checkpoint", "expected a file that it may replace")
    if stored and not any(arguments.get(name) for name in ("output", "curve_output", "write_delta")):
        arguments.pop("force", None)
    with Told(given.pop("quiet")) as told:
        result = run(command, files, control=control, **arguments, **given, **told.arguments())
    if isinstance(result, StateResult):
        show(result, format, render_state)
    else:
        present(result, format)
