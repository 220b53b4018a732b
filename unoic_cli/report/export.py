"""What `export` made, for a terminal and as TSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.commands.onnx_model import in_words
from unoic_cli.report.common import facts

if TYPE_CHECKING:
    from unoic_cli.commands.export import ExportResult
    from unoic_cli.report.layout import Facts

_KINDS = {"logits": "logits", "probs": "probabilities", "log_probs": "log-probabilities"}


def render_export(result: ExportResult) -> Facts:
    """Two columns: the scale, and the bias of each class.

    Parameters
    ----------
    result : ExportResult
        As returned by `unoic_cli.export`.
    """
    rows = [] if result.output is None else [("written", result.output)]
    if result.model is not None:
        made = result.model
        axis = f", classes on axis {made.class_axis}"
        rows += [("output", f"{made.output} {in_words(made.shape)}{axis}: {_KINDS[made.kind]}"), ("done", made.did)]
    rows += [("lambda", f"{result.lam:g}, temperature {result.temperature:g}"), ("scale", f"{result.scale:.9g}")]
    rows += [(f"bias, {name}", f"{value:.9g}") for name, value in zip(_names(result), result.bias, strict=True)]
    return facts(rows)


def export_tsv(result: ExportResult) -> str:
    """A line for each class: number, name, scale and bias."""
    lines = ["class\tname\tscale\tbias"]
    for k, (name, value) in enumerate(zip(_names(result), result.bias, strict=True)):
        lines.append(f"{k}\t{name}\t{result.scale!r}\t{value!r}")
    return "\n".join(lines) + "\n"


def _names(result: ExportResult) -> list[str]:
    return [str(k) if result.class_names is None else result.class_names[k] for k in range(len(result.bias))]
