"""``unoic evaluate``."""

from collections.abc import Mapping
from typing import Any

from unoic_cli.cli.common import SHEETS, check_met, check_quoted, show
from unoic_cli.cli.program import MODALITIES, counting
from unoic_cli.commands.evaluate import EvaluateOptions
from unoic_cli.errors import UsageError


def check(given: Mapping[str, Any], form: str) -> None:
    """Refuse what tab-separated values have no place for, and what the shell took apart."""
    check_quoted("--require", given["require"])
    if form in ("tsv", *SHEETS) and given["confusion"]:
        found = f"--confusion with --format {form}, which has no matrix"
        raise UsageError("--confusion", found, "expected table or json")


HELP = "Example: unoic evaluate test.h5 --calibration calibration.json"


@counting(EvaluateOptions, MODALITIES, check=check, help=HELP)
def evaluate(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.report.evaluate import evaluate_flat, evaluate_sheet, evaluate_tsv, render_evaluate

    show(result, format, render_evaluate, evaluate_tsv, evaluate_sheet, evaluate_flat)
    check_met(result.met)
