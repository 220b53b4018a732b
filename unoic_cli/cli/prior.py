"""``unoic prior``."""

import os
from typing import Annotated, Any

from unoic_cli.cli.common import show
from unoic_cli.cli.program import FILES, counting
from unoic_cli.options import Option
from unoic_cli.tasks.options import DataOptions, ForceOption


class PriorOptions(DataOptions, total=False):
    """Options of `prior`."""

    output: Annotated[
        str | os.PathLike[str] | None, Option("--output -o", "FILE", "Also write the result as JSON.", says="where")
    ]
    force: ForceOption


HELP = "Example: unoic prior train.h5 -o prior.json"


@counting(PriorOptions, FILES, help=HELP)
def prior(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.report.prior import prior_tsv, render_prior

    show(result, format, render_prior, prior_tsv)
