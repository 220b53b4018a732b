"""What `search-lambda` found."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from unoic_cli.commands.sampled import GAIN_FOLDS
from unoic_cli.metrics import title as title_of
from unoic_cli.report.common import about_calibration, facts, metric_table, sparkline, units, value_of

if TYPE_CHECKING:
    from unoic_cli.commands.search import Folds, SearchResult


def render_search(result: SearchResult) -> RenderableType:
    """The choice, metrics before and after, the folds, and the curve in one line."""
    names = list(result.metrics)
    lam = f"{result.lam:g}"
    title = title_of(result.metric)
    about = [
        _about_lambda(result, title),
        ("data", f"{result.n:,} labelled, {result.n_ignored:,} ignored, {result.n_classes:,} classes"),
        *about_calibration(result.calibration),
        *about_gain(result),
    ]
    if result.details.get("subject_to"):
        about.append(("subject to", result.details["subject_to"]))
    parts: list[RenderableType] = [
        facts(about),
        Text(),
        metric_table(_settings(result), names, _measured(result)),
    ]
    if result.modalities is not None:
        alone = []
        for name, found in result.modalities.items():
            alone += [
                (f"{name}, as it is", found["baseline"]),
                *_masked(f"{name}, lambda 0, masked", found.get("masked")),
            ]
            alone.append((f"{name}, lambda {found['lambda']:g}", found["best"]))
        parts += [
            Text(),
            metric_table(alone, names, f"each modality alone; fused, these lambdas are multiplied by {lam}"),
        ]
    if result.groups is not None:
        given = result.details.get("given") is not None
        parts += [Text(), _groups(result.groups, names, None if given else result.metric)]
    if result.folds is not None:
        parts += [Text(), _folds(result.folds, names)]
    values = result.curve[result.metric].tolist()
    finite = [value for value in values if value == value]
    if finite and len(values) > 1:
        reach = f"{value_of(result.metric, min(finite))} to {value_of(result.metric, max(finite))}"
        ends = f"{result.lams[0]:g} to {result.lams[-1]:g}: {reach}"
        gaps = [b - a for a, b in itertools.pairwise(result.lams.tolist())]
        parts += [Text(), Text(f"{title} over lambda {ends}")]
        if max(gaps) - min(gaps) <= 1e-9 * max(gaps):  # a search that looks where it likes has no even axis
            parts.append(Text(sparkline(values), style="cyan"))
    return Group(*parts)


def about_gain(result: SearchResult) -> list[tuple[str, str]]:
    """What the choice gains over the scores as they are: the metric that it is for first."""
    names = sorted(result.gain, key=lambda name: name != result.metric)
    said = ", ".join(f"{title_of(name)} {result.gain[name].signed(name)}" for name in names)
    if not said or result.details.get("given") is not None:
        return []
    rows = [("gain, 95 %", f"{said} (cross-fitted over {GAIN_FOLDS} folds; over the scores as they are)")]
    if result.offsets is not None:
        beside = ", ".join(f"{title_of(name)} {result.offsets.gain[name].signed(name)}" for name in names)
        rows.append(("with offsets", beside))
    return rows


def about_lambda(result: SearchResult) -> str:
    """Which lambda was chosen, and why."""
    return _about_lambda(result, title_of(result.metric))[1]


def _own(result: SearchResult) -> bool:
    """Whether modalities have lambdas of their own, of which the result's is a common factor."""
    return any(modality.share != 1.0 for modality in result.calibration.modalities)


def _about_lambda(result: SearchResult, title: str) -> tuple[str, str]:
    """Which lambda, and why."""
    given, own = result.details.get("given"), _own(result)
    lam = f"each modality's own, times {result.lam:g}" if own else f"{result.lam:g}"
    if given is not None:
        return "lambda", f"{'for each modality' if own else lam}, as given ({given}): nothing was searched"
    choice = result.choice
    if choice.get("rule") == "anchored":
        low, high = choice["interval"]
        sure = "as good as any within one standard error" if result.metric in result.gain else "the best"
        good = f"{lam}: {sure} ({low:g} to {high:g}) for {title}"
        return "lambda", f"{good}, nearest to what the probabilities say ({choice['anchor']:g})"
    return "lambda", f"{lam}, {_why(result, title)}"


def _why(result: SearchResult, title: str) -> str:
    """Why another rule than the anchored one takes its lambda."""
    if result.choice.get("rule") == "paper":
        return f"where Algorithm 2 ends for {title}"
    if result.choice.get("rule") == "stays":
        return "as the priors are nearly equal"
    low, high = result.plateau
    where = "none is better" if result.lam == 0 else "the middle of the best values"
    return f"{where} for {title} (equal from {low:g} to {high:g})"


def _settings(result: SearchResult) -> list[tuple[str, dict[str, float]]]:
    """Rows: as it is, fully rebalanced, and the chosen or given lambda."""
    given, own = result.details.get("given") is not None, _own(result)
    word, how = "factor" if own else "lambda", "given" if given else "chosen"
    rows = [("lambda 0 (as it is)", result.baseline), *_masked("lambda 0, classes masked", result.masked)]
    if not (given and own):
        rows.append((f"{word} 1 ({'own lambdas' if own else 'fully rebalanced'})", result.rebalanced))
    rows.append(("given lambdas" if given and own else f"{word} {result.lam:g} ({how})", result.best))
    return rows if result.offsets is None else [*rows, (f"{word} {result.lam:g}, offsets", result.offsets.best)]


def _masked(label: str, values: dict[str, float] | None) -> list[tuple[str, dict[str, float]]]:
    """A row of its own for what masking changes by itself."""
    return [] if values is None else [(label, values)]


def _measured(result: SearchResult) -> str:
    said = units(result.metrics)
    return said if result.details.get("given") else f"{said}, tuned and measured on the same data"


def _groups(groups: dict[str, dict[str, Any]], names: list[str], metric: str | None) -> RenderableType:
    """Each condition at the chosen lambda, and what its own would give; at a given one (no metric), just that."""
    rows = []
    for name, found in groups.items():
        rows.append((f"{name}, as it is", found["baseline"]))
        rows += _masked(f"{name}, lambda 0, masked", found.get("masked"))
        rows.append((f"{name}, {'given' if metric is None else 'chosen'}", found["best"]))
        if metric is not None:
            rows.append((f"{name}, own {found['own_lambda']:g}", found["own_best"]))
    if metric is None:
        return metric_table(rows, names, "each condition as it is, and at the given lambda")
    return metric_table(rows, names, f"each condition as it is, at the chosen lambda, and at the best for its {metric}")


def _folds(folds: Folds, names: list[str]) -> RenderableType:
    """Means over folds, with their standard deviations."""
    summary = folds.to_dict({})
    spread = summary["lambda"]
    rows = [
        ("as it is", {name: summary["baseline"][name]["mean"] for name in names}),
        ("held out, mean", {name: summary["held_out"][name]["mean"] for name in names}),
        ("held out, std", {name: summary["held_out"][name]["std"] for name in names}),
    ]
    lam = f"lambda {spread['mean']:.4g} ± {spread['std']:.2g}"
    if "masked" in summary:
        rows.insert(1, ("lambda 0, masked", {name: summary["masked"][name]["mean"] for name in names}))
    title = f"{folds.k} folds of {folds.unit}: {lam}, tested on the fold held out"
    return metric_table(rows, names, title)
