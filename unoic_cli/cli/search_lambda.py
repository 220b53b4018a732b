"""``unoic search-lambda``."""

from collections.abc import Mapping
from typing import Any

from unoic_cli.cli.common import check_format, check_met, check_quoted, show
from unoic_cli.cli.program import MODALITIES, counting
from unoic_cli.commands.search import SearchOptions
from unoic_cli.errors import UsageError


def check(given: Mapping[str, Any], form: str) -> None:
    """Refuse what the curve alone does not show, and what the shell took apart."""
    check_quoted("--subject-to", given["subject_to"])
    check_quoted("--require", given["require"])
    if form == "tsv" and given["folds"] is not None:
        raise UsageError("--folds", "--folds with --format tsv, which is the curve alone", "expected table or json")


HELP = """Predictions are argmax(delta * z + lambda * s) with s = log target prior - log source prior; those of several
modalities are fused (--fusion). With --calibration, that file holds all but lambda. With --lambda, a lambda that is
known (from a paper, say) is measured and kept as a calibration.

Example: unoic search-lambda val.h5 --folds 3 -o calibration.json
"""


@counting(SearchOptions, MODALITIES, check=check, help=HELP)
def search_lambda(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.commands.search import curve_tsv
    from unoic_cli.report.search import render_search

    if check_format(format) == "tsv" and result.folds is not None:
        raise UsageError("--format", "tsv, the curve alone, of a search with folds", "expected table or json")
    show(result, format, render_search, curve_tsv)
    check_met(result.met)
