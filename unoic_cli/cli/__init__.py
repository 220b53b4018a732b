"""The command line: one file per command, and the one boundary where errors become a line and an exit code."""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from unoic_cli import signals
from unoic_cli.cli.common import TYPED, say, silence
from unoic_cli.cli.completing import VARIABLE, Words
from unoic_cli.cli.helping import HelpfulCommand, HelpfulGroup
from unoic_cli.cli.parser import hasten
from unoic_cli.errors import UnoicError, one_line
from unoic_cli.urls import scrub, secrets
from unoic_cli.version import __version__

COMMANDS = {
    "demo": "Run a first session on a sample that is installed with the program: search, calibrate, evaluate, page.",
    "info": "Show what logits files hold, whether it can be used, and which commands to run next.",
    "convert": "Write a logits file in another format: HDF5, Parquet, Arrow, npz, npy, CSV or safetensors.",
    "pack": "Rewrite a logits file in the form that is read fastest: contiguous HDF5.",
    "prior": "Count the labels of logits files; --source-prior and --target-prior read the result.",
    "fit-delta": "Fit the statistics that flatten the scores of uncertain samples: mean and spread of their entropy.",
    "fit-temperature": "Find the temperature T and the lambda of least negative log-likelihood on labelled data, "
    "in one fit.",
    "search-lambda": "Find the rebalancing lambda that serves a metric best: the whole curve from one read of "
    "the data.",
    "calibrate": "Write calibrated log-probabilities and predictions, and show what they change.",
    "fuse": "Fuse the logits of several networks that saw the same samples, and write log-probabilities "
    "and predictions.",
    "evaluate": "Accuracy, mean class accuracy, mean IoU and F1 of logits files, as they are or calibrated, "
    "in one read.",
    "compare": "Compare methods under several conditions: one table, one read of each file.",
    "show": "Draw segmentations before and after, beside the images and the truth.",
    "export": "Turn a calibration into the scale and the bias of the network's last layer.",
    "merge": "Join the state files of a run's shards, in any order, and show the result of the whole.",
    "report": "Show the result of a run from its state, without its data: the same bytes as the run without shards.",
    "page": "Write one HTML file: a slider moves lambda, and with it metrics, classes, groups and curves.",
    "plot": "Draw a picture for a paper, as PDF, SVG or PNG: metrics against lambda, and others.",
    "doctor": "Show what this installation is, has and may use; with --warm, compile all kernels first.",
}
"""What each command does, in the order of the help; all else is in its module, loaded when it runs."""
PANELS = {
    "convert": "Data",
    "pack": "Data",
    "prior": "Method",
    "fit-delta": "Method",
    "fit-temperature": "Method",
    "fuse": "Method",
    "show": "Output",
    "export": "Output",
    "page": "Output",
    "plot": "Output",
    "merge": "Large runs",
    "report": "Large runs",
}
"""Of the help, where that is not Main."""

_INTERRUPTED = "interrupted; outputs that were not finished are removed"
STOPPED = (74, 141)
"""Exit codes of runs that storage, or whoever reads the results, ended."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unoic {__version__}")
        raise typer.Exit()


def _main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Rebalance the saved logits of a network trained on imbalanced data, without retraining it.

    Example: unoic demo

    Example: unoic info val.h5

    Example: unoic search-lambda val.h5 -o calibration.json

    Example: unoic calibrate test.h5 -c calibration.json -o test.calibrated.h5

    Results go to stdout (a table on a terminal, JSON in a pipe), all else to stderr. Options of a command, with
    examples: unoic COMMAND --help. TAB completes them, and their values, after unoic --install-completion. A unit, in
    what commands say, is a sample, or a pixel where samples are images.
    """


@functools.cache
def parser() -> Any:
    """The parser of the command line, with every command; made once a process."""
    hasten()
    app = _typer(cls=_Commands)
    app.callback()(_main_options)
    for name, summary in COMMANDS.items():
        app.command(name, help=summary)(lambda: None)
    return typer.main.get_command(app)


@functools.cache
def load(name: str) -> Any:
    """A command as the parser has it, with its options."""
    module = name.replace("-", "_")
    function = getattr(importlib.import_module(f"unoic_cli.cli.{module}"), module)
    app = _typer(add_completion=False)
    app.command(name, cls=HelpfulCommand, help=f"{COMMANDS[name]}\n\n{function.__doc__}")(function)
    made: Any = typer.main.get_command(app)
    made.rare, made.values = function.rare, function.values
    return made


def _typer(**more: Any) -> typer.Typer:
    return typer.Typer(
        name="unoic",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **more,
    )


class _Commands(HelpfulGroup):
    """Commands that are listed by what they do, and loaded when they are run."""

    panels = PANELS
    rare = frozenset({"show_completion"})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and ctx.resilient_parsing:  # a shell completes a line
            return name, Words(name), rest
        return name, command if name is None else load(name), rest


def _fail(message: str, code: int, words: Sequence[str] = ()) -> int:
    message = scrub(message)
    for secret in secrets(words):  # names of objects that were taken apart on the way
        message = message.replace(secret, "...")
    say(f"unoic: error: {one_line(message)}")
    return code


def interrupted(args: list[str] | None) -> int:
    """End an interrupted run: with 75 if it keeps a checkpoint, which it had not come to yet."""
    if signals.finished():
        return _fail("interrupted when the outputs were complete; only the result was not shown", 130)
    words = sys.argv[1:] if args is None else args
    named = [after for word, after in itertools.pairwise(words) if word == "--checkpoint"]
    named += [word.partition("=")[2] for word in words if word.startswith("--checkpoint=")]
    if named and not os.path.exists(named[0]):
        return _fail(f"{named[0]}: interrupted, and there was nothing to save; the same command starts anew", 75)
    if named and "--resume" in words:
        return _fail(f"{named[0]}: interrupted, and it is as it was; the same command with --resume goes on", 75)
    return _fail(_INTERRUPTED, 130)


def run(args: list[str] | None = None) -> int:
    """Run a command line and return its exit code; every error ends as one line on stderr.

    Parameters
    ----------
    args : list of str, optional
        Without the program's name; by default those of this process.

    Returns
    -------
    int
        0; 1 a result that is not as required, 2 usage, 65 data, 66 no input, 70 a fault of the program, 73 cannot
        create, 74 storage, 130 interrupted, 141 broken pipe; 75 interrupted, and saved.
    """
    signals.begin()
    with warnings.catch_warnings():
        if not os.environ.get("UNOIC_DEBUG"):
            warnings.simplefilter("ignore")  # what libraries warn of, at places in their files, is no word of ours
        code = _run(args)
    if code in STOPPED:  # stdout may be full, too: Python would try once more to write what is left for it
        try:
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):
            silence(sys.stdout)
    return code


def _run(args: list[str] | None) -> int:
    """Run a command line; see `run`."""
    words = sys.argv[1:] if args is None else args
    TYPED[:] = words
    if sys.stderr is None:  # closed by the shell
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for the rest of the process
    if sys.stdout is None:
        return _fail("stdout: closed; expected a place for the result", 74)
    try:
        code: Any = parser().main(args=args, prog_name="unoic", standalone_mode=False)
        sys.stdout.flush()
    except UnoicError as error:
        return _fail(str(error), error.exit_code, words)
    except (BrokenPipeError, SystemExit) as ended:  # the parser ends so when it meets a broken pipe
        if isinstance(ended, SystemExit) and (not ended.code or VARIABLE in os.environ):
            return int(ended.code or 0)  # completion was shown or installed; fish asks by the exit code
        silence(sys.stdout)
        return 141
    except KeyboardInterrupt:
        return interrupted(args)
    except MemoryError:
        return _fail("out of memory; expected more, or smaller images", 74)
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}; expected storage that works", 74)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.ctx.get_help())  # type: ignore[attr-defined]  # the parser's copy of click has no public name
            return 0
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the parser's own usage errors
            where = getattr(getattr(error, "ctx", None), "command_path", "unoic")
            text = str(error.format_message()).strip().rstrip(".")
            return _fail(f"{where}: {text}; see {where} --help", 2, words)
        if os.environ.get("UNOIC_DEBUG"):
            raise
        return _fail(
            f"internal error: {type(error).__name__}: {error}; expected none: UNOIC_DEBUG=1 shows where", 70, words
        )
    if code == 130:
        return interrupted(args)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the ``unoic`` command, after `unoic_cli.__main__` has begun to listen to signals."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows a question mark
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries log is no part of one line
    try:
        code = run()
    except KeyboardInterrupt:  # before it began, or when it had ended
        code = interrupted(None)
    signals.ignore()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    # All is said, written and closed. What Python would do now may end with a signal: threads of a library that read
    # ahead, a file that this library cannot close, a signal that comes while a module is made from text.
    os._exit(code)
