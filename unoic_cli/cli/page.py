"""``unoic page``."""

from typing import Any

from unoic_cli.cli.common import Told, check_format, check_quoted, show
from unoic_cli.cli.program import Argument, QuietOptions, command
from unoic_cli.commands.page import PageOptions
from unoic_cli.errors import UsageError
from unoic_cli.resolve.inputs import is_named

HELP = """A slider moves lambda, and with it, exactly, all that it changes: metrics with intervals, each class, groups
or images, the curve, and one metric against another; at the chosen lambda also confusion and reliability. The file
asks for nothing else.

Example: unoic page val.h5 test.h5 -o page.html
"""

VAL = Argument(
    "files",
    "VAL [TEST]",
    "VAL: labelled logits that lambda is chosen on, a file of any format (in HDF5 also FILE::GROUP), a folder, a "
    "pattern in quotes ('val/*.h5'), @LIST (one a line), or a s3://, gs://, abfs:// or https:// name; several files "
    "are one data set. TEST: as --test. Instead of both NAME=FILE for each modality of the same samples, or states of "
    "searches (--state), TITLE=STATE, whose page has what a state knows.",
)


@command(PageOptions, VAL, help=HELP, after=(QuietOptions,))
def page(files: list[str], format: str | None, quiet: bool, **given: Any) -> None:
    """Write it, and show what it has."""
    from unoic_cli.api import page as api
    from unoic_cli.report.page import render_page

    check_format(format)
    check_quoted("--subject-to", given["subject_to"])
    if len(files) > 1 and not any(map(is_named, files)) and api.states(files) is None:
        files, given["test"] = _apart(files, given["test"])
    with Told(quiet) as told:
        made = api.page(files, **given, **told.arguments())
    show(made, format, render_page)


def _apart(files: list[str], test: Any) -> tuple[list[str], list[str]]:
    """What lambda is chosen on, and the test set.

    Raises
    ------
    UsageError
        More files than the two, or a test set beside ``--test``.
    """
    first, second, *more = files
    if more:
        expected = "expected VAL and TEST: files that are one set as a pattern in quotes or @LIST"
        raise UsageError(more[0], "a third file", expected)
    if test:
        raise UsageError("--test", f"a test set beside {second}", "expected one of them")
    return [first], [second]
