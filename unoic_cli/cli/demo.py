"""``unoic demo``."""

import os
import shlex
import sys

import typer

from unoic_cli.cli.program import command
from unoic_cli.commands.demo import DemoOptions

HELP = """Search, calibrate, evaluate and make a page, each command said and run exactly so, in a folder that is made
for it.
The sample is the logits of a small network trained on long-tailed Fashion-MNIST, 0.3 MB. It takes a few seconds.

Example: unoic demo
"""


@command(DemoOptions, help=HELP, before=())
def demo(output: str, force: bool) -> None:
    """Make the folder, and run what is for it."""
    from unoic_cli.api import demo as api
    from unoic_cli.cli import COMMANDS, run
    from unoic_cli.report.demo import ending, heading

    made = api.demo(output=output, force=force)
    form = [] if sys.stdout.isatty() else ["--format", "table"]
    print(f"$ cd {shlex.quote(made.folder)}", flush=True)
    before = os.getcwd()
    os.chdir(made.folder)
    try:
        for words in ([*one, *form] for one in made.commands if one[0] in COMMANDS):
            print(heading(words), flush=True)
            code = run(words)
            if code:
                raise typer.Exit(code)
            sys.stdout.flush()
    finally:
        os.chdir(before)
    print(ending(made), end="")
