"""The way results, notes and progress are shown."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from unoic_cli import compiling
from unoic_cli.errors import UnmetError, UsageError, Warned, one_line, printable
from unoic_cli.schemas import marked
from unoic_cli.urls import scrub

if TYPE_CHECKING:
    from rich.console import RenderableType

    from unoic_cli.report.sheet import Sheet
    from unoic_cli.searches.choice import Met

SHEETS = ("csv", "latex")
"""Forms of a table with a number in each cell."""
_MEASURED = 0.1
"""Seconds after which the speed of a stream is told."""
_SILENCE = 30.0
"""Seconds between lines of progress where there is no terminal."""


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


TYPED: list[str] = []
"""The words of the command line that runs, after the program's name."""


def on_a_terminal() -> bool:
    """Whether somebody reads both the result and what is said beside it."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def silence(stream: Any) -> None:
    """Send a stream that cannot be written to nowhere, so that Python does not fail at it once more in the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def note(text: str) -> None:
    """Say something on stderr that is not a result."""
    say(f"unoic: {'warning' if isinstance(text, Warned) else 'note'}: {one_line(scrub(text))}")


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
    if format not in ("table", "json", "tsv", *SHEETS, *more):
        known = ", ".join(("table", "json", "tsv", *more, "csv"))
        raise UsageError("--format", f"{format!r}", f"expected {known} or latex")
    return format


def show(
    result: Result,
    format: str | None,
    table: Callable[[Any], RenderableType],
    tsv: Callable[[Any], str] | None = None,
    sheet: Callable[[Any], Sheet | Sequence[Sheet] | None] | None = None,
    flat: Callable[[Any], Sheet | None] | None = None,
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
    sheet : callable, optional
        Makes the table of CSV and LaTeX, or several for LaTeX; by default, and where it makes none, it is what the
        tab-separated form has.
    flat : callable, optional
        Makes the one table of CSV, where `sheet` makes several.
    **more : callable
        Make other forms, by their names.
    """
    chosen = check_format(format, tuple(more))
    if chosen == "table":
        from unoic_cli.report.terminal import print_table

        print_table(table(result))
    elif chosen == "json":
        print(json.dumps(_plain(marked(result)), indent=1).replace("\x7f", "\\u007f"))
    else:
        make = flat if chosen == "csv" and flat is not None else sheet
        made = make(result) if make is not None and chosen in SHEETS else None
        lines = more[chosen](result) if chosen in more else "" if made else tsv(result) if tsv else _listed(result)
        if chosen in SHEETS:
            from unoic_cli.report import sheet as sheets

            made = made or sheets.of_tsv(lines, headed=tsv is not None)
            every = [made] if isinstance(made, sheets.Sheet) else made
            lines = sheets.sheet_csv(every[0]) if chosen == "csv" else "\n".join(map(sheets.sheet_latex, every))
        print(printable(lines, keep="\t\n"), end="")


def check_met(met: Sequence[Met]) -> None:
    """Refuse a result, when it is shown, that is not as required.

    Raises
    ------
    UnmetError
        What does not hold, and what it is instead.
    """
    lacking = [one for one in met if not one.holds]
    if lacking:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()  # the result comes first
        said = dict.fromkeys(
            f"{one.name} is {'unknown' if one.value is None else f'{one.value:.6g}'}" for one in lacking
        )
        raise UnmetError("--require", ", ".join(said), f"expected {' and '.join(one.term for one in lacking)}")


def _plain(value: Any) -> Any:
    """Without NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _listed(result: Result) -> str:
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
        rate = f", {size(int(done / seconds))}/s" if seconds >= _MEASURED else ""
        text = f"{share:4.0%}, {size(done)} of {size(total)}{rate}{left}"
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
        """What hears of notes and of progress, by the names of the options."""
        return {"tell": self.texts.append, "progress": self.line}
