"""``unoic plot``."""

from typing import Any

from unoic_cli.cli.common import Told, check_format, show
from unoic_cli.cli.program import Argument, QuietOptions, command
from unoic_cli.plots import KINDS
from unoic_cli.plots.command import kinds_in_words
from unoic_cli.plots.options import PlotOptions

KIND = Argument("kind", "KIND", "What to draw, see above.", many=False, values=KINDS)
INPUTS = Argument(
    "inputs",
    "[INPUTS]...",
    "What it is drawn from. NAME=FILE names a run of curve and tradeoff; also patterns, @LIST, and - (stdin).",
    needed=False,
)
HELP = f"""{kinds_in_words()}

Needs matplotlib: pip install 'unoic[plot]'. The same inputs give the same bytes.

Example: unoic plot curve run.json -o curve.pdf
"""


@command(PlotOptions, KIND, INPUTS, help=HELP, after=(QuietOptions,))
def plot(kind: str, inputs: Any, format: str | None, quiet: bool, **options: Any) -> None:
    """Draw, and show what was drawn."""
    from unoic_cli.plots import command as plots
    from unoic_cli.report.plot import render_plot

    check_format(format)
    with Told(quiet) as told:
        made = plots.plot(kind, inputs, tell=told.texts.append, **options)
    show(made, format, render_plot)
