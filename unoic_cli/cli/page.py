"""``unoic page``."""

from typing import Any

from unoic_cli.cli.common import Told, check_format, check_quoted, show
from unoic_cli.cli.program import MODALITIES, QuietOptions, command
from unoic_cli.commands.page import PageOptions

HELP = """A slider moves lambda, and with it, exactly, all that it changes: metrics with intervals, each class, groups,
the curve, and one metric against another; at the chosen lambda also confusion and reliability. The file asks for
nothing else. FILES may be the state of a search (--state), whose page has what the state knows.

Example: unoic page val.h5 --test test.h5 -o page.html
"""


@command(PageOptions, MODALITIES, help=HELP, after=(QuietOptions,))
def page(files: list[str], format: str | None, quiet: bool, **given: Any) -> None:
    """Write it, and show what it has."""
    from unoic_cli.api import page as api
    from unoic_cli.report.page import render_page

    check_format(format)
    check_quoted("--subject-to", given["subject_to"])
    with Told(quiet) as told:
        made = api.page(files, **given, **told.arguments())
    show(made, format, render_page)
