"""``unoic prior``."""

from typing import Any

from unoic_cli.cli.common import show
from unoic_cli.cli.program import MODALITIES, counting
from unoic_cli.commands.prior import PriorOptions

HELP = """With --estimate, the class frequencies of FILES without their labels (docs/target.md).

Example: unoic prior train.h5 -o prior.json

Example: unoic prior --estimate target.h5 --labelled val.h5 -o target.json"""


@counting(PriorOptions, MODALITIES, help=HELP)
def prior(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.report.prior import prior_tsv, render_prior

    show(result, format, render_prior, prior_tsv)
