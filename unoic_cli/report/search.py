"""What `search-lambda` found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from unoic_cli.report.common import METRIC_TITLES, about_calibration, facts, metric_table, percent, sparkline

if TYPE_CHECKING:
    from unoic_cli.tasks.search import Folds, SearchResult


def render_search(result: SearchResult) -> RenderableType:
    """The choice, metrics before and after, the folds, and the curve in one line."""
    names = list(result.curve)
    lam = f"{result.lam:g}"
    rows = [
        ("lambda 0 (as it is)", result.baseline),
        ("lambda 1 (fully rebalanced)", result.rebalanced),
        (f"lambda {lam} (chosen)", result.best),
    ]
    title = METRIC_TITLES.get(result.metric, result.metric)
    low, high = result.plateau
    about = [
        ("lambda", f"{lam}, the middle of the best plateau [{low:g}, {high:g}] of {title}"),
        ("data", f"{result.n:,} labelled, {result.n_ignored:,} ignored, {result.n_classes:,} classes"),
        *about_calibration(result.calibration),
    ]
    if result.details.get("subject_to"):
        about.append(("subject to", result.details["subject_to"]))
    parts: list[RenderableType] = [
        facts(about),
        Text(),
        metric_table(rows, names, "percent, tuned and measured on the same data"),
    ]
    if result.modalities is not None:
        alone = []
        for name, found in result.modalities.items():
            alone += [(f"{name}, lambda 0", found["baseline"]), (f"{name}, lambda {found['lambda']:g}", found["best"])]
        parts += [
            Text(),
            metric_table(alone, names, f"each modality alone; fused, these lambdas are multiplied by {lam}"),
        ]
    if result.groups is not None:
        parts += [Text(), _groups(result.groups, names, result.metric)]
    if result.folds is not None:
        parts += [Text(), _folds(result.folds, names)]
    values = result.curve[result.metric].tolist()
    finite = [value for value in values if value == value]
    if finite:
        ends = f"{result.lams[0]:g} to {result.lams[-1]:g}: {percent(min(finite))} to {percent(max(finite))}"
        parts += [Text(), Text(f"{title} over lambda {ends}"), Text(sparkline(values), style="cyan")]
    return Group(*parts)


def _groups(groups: dict[str, dict[str, Any]], names: list[str], metric: str) -> RenderableType:
    """Each condition at the chosen lambda, and what its own would give."""
    rows = []
    for name, found in groups.items():
        rows.append((f"{name}, lambda 0", found["baseline"]))
        rows.append((f"{name}, chosen", found["best"]))
        rows.append((f"{name}, own {found['own_lambda']:g}", found["own_best"]))
    return metric_table(rows, names, f"each condition as it is, at the chosen lambda, and at the best for its {metric}")


def _folds(folds: Folds, names: list[str]) -> RenderableType:
    """Means over folds, with their standard deviations."""
    summary = folds.to_dict({})
    spread = summary["lambda"]
    rows = [
        ("lambda 0", {name: summary["baseline"][name]["mean"] for name in names}),
        ("held out, mean", {name: summary["held_out"][name]["mean"] for name in names}),
        ("held out, std", {name: summary["held_out"][name]["std"] for name in names}),
    ]
    lam = f"lambda {spread['mean']:.4g} ± {spread['std']:.2g} (ddof 1)"
    title = f"{folds.k} folds of {folds.unit}: {lam}, tested on the fold held out"
    return metric_table(rows, names, title)
