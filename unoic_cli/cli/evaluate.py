"""``unoic evaluate``."""

from collections.abc import Mapping
from typing import Annotated, Any

from unoic_cli.cli.common import show
from unoic_cli.cli.program import MODALITIES, counting
from unoic_cli.errors import UsageError
from unoic_cli.options import Option
from unoic_cli.tasks.options import AbsentOption, DataOptions, MethodOptions, MetricsOption, ShotsOption


class EvaluateOptions(MethodOptions, DataOptions, total=False):
    """Options of `evaluate`."""

    confusion: Annotated[bool, Option("--confusion", None, "Also the confusion matrix, rows = truth.")]
    by: Annotated[
        str | None,
        Option("--by", "WHAT", "Also for each group (the files' group field), or for each file."),
    ]
    metrics: MetricsOption
    shots: ShotsOption
    absent: AbsentOption


def check(given: Mapping[str, Any], form: str) -> None:
    """Refuse what tab-separated values have no place for."""
    if form == "tsv" and given["confusion"]:
        raise UsageError("--confusion", "--confusion with --format tsv, which has no matrix", "expected table or json")


HELP = "Example: unoic evaluate test.h5 --calibration calibration.json"


@counting(EvaluateOptions, MODALITIES, check=check, help=HELP)
def evaluate(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.report.evaluate import evaluate_tsv, render_evaluate

    show(result, format, render_evaluate, evaluate_tsv)
