"""The command line: one file per command, and the one boundary where errors become a line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer

from unoic_cli import __version__
from unoic_cli.errors import UnoicError

COMMANDS = {
    "info": "info",
    "convert": "convert",
    "prior": "prior",
    "search-lambda": "search_lambda",
    "calibrate": "calibrate",
    "evaluate": "evaluate",
}
"""Command name -> module of `unoic_cli.cli` and function in it, in the order of the help."""


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

    Start with: unoic info FILE. Results go to stdout (a table on a terminal, JSON in a pipe), all else to stderr.
    """


def make_app() -> typer.Typer:
    """The typer application with every command."""
    app = typer.Typer(
        name="unoic",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_main_options)
    for name, module in COMMANDS.items():
        function = getattr(importlib.import_module(f"unoic_cli.cli.{module}"), module)
        app.command(name)(function)
    return app


def _fail(message: str, code: int) -> int:
    print(f"unoic: error: {message}", file=sys.stderr)
    return code


def run(args: list[str] | None = None) -> int:
    """Run a command line and return its exit code; every error ends as one line on stderr."""
    try:
        code: Any = typer.main.get_command(make_app()).main(args=args, prog_name="unoic", standalone_mode=False)
        sys.stdout.flush()
    except UnoicError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _fail("interrupted; no output was written", 130)
    except MemoryError:
        return _fail("out of memory; expected more, or smaller images", 74)
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}; expected storage that works", 74)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the parser's own usage errors
            where = getattr(getattr(error, "ctx", None), "command_path", "unoic")
            text = " ".join(str(error.format_message()).split()).rstrip(".")
            return _fail(f"{where}: {text}; see {where} --help", 2)
        raise
    if code == 130:
        return _fail("interrupted; no output was written", 130)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the ``unoic`` command."""
    sys.exit(run())
