"""Write docs/cli.md from the help of every command, and what TAB completes: ``python docs/make_cli.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from unoic_cli.cli import COMMANDS, completing, load

PATH = Path(__file__).with_name("cli.md")
STAMP = f"<!-- laid out by typer {'.'.join(version('typer').split('.')[:2])} -->"
"""Other versions of typer lay the help out differently."""

INTRODUCTION = """# The command line

Made from the help texts by `python docs/make_cli.py`; edit those instead.

Results go to stdout: a table on a terminal, JSON in a pipe, or what `--format` says. Notes and
errors go to stderr, an error as one line `unoic: error: FILE[:DATASET]: what was found; what was
expected`. Then nothing was printed on stdout, and outputs that exist are as they were.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the result is not as `--require` asks; it is shown, and what the command writes is written |
| 2 | options that make no sense, alone or together |
| 65 | a file does not hold what it should |
| 66 | an input is missing or cannot be opened |
| 70 | a fault of the program itself; `UNOIC_DEBUG=1` shows where |
| 73 | an output cannot be created where it was asked for, or exists already |
| 74 | reading or writing failed half-way: a full disk, for one |
| 75 | interrupted, and what was counted is saved (`--checkpoint`): the same command with `--resume` goes on |
| 130 | interrupted (Ctrl-C, or a signal from a batch system) |
| 141 | whoever read stdout went away |
"""


def help_of(*command: str) -> str:
    """All help of one command, 80 columns wide whatever terminal this runs in."""
    environment = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "LINES")}
    environment |= {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1", "TERM": "dumb"}
    shown = subprocess.run(
        [sys.executable, "-m", "unoic_cli", *command, "--help-all"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in shown.stdout.strip().splitlines())


def page() -> str:
    """The whole page."""
    parts = [f"{INTRODUCTION}\n{STAMP}\n", f"```text\n{help_of()}\n```\n"]
    parts += [f"## unoic {name}\n\n```text\n{help_of(name)}\n```\n" for name in COMMANDS]
    return "\n".join(parts)


if __name__ == "__main__":
    completing.PATH.write_text(completing.made({name: load(name) for name in COMMANDS}), encoding="utf-8")
    PATH.write_text(page(), encoding="utf-8")
