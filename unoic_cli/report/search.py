"""What `search-lambda` found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from unoic_cli.commands.sampled import GAIN_FOLDS
from unoic_cli.commands.search import about_lambda
from unoic_cli.metrics import in_percent
from unoic_cli.metrics import title as title_of
from unoic_cli.report.common import about_calibration, add_gains, facts, metric_table, units, value_of
from unoic_cli.report.curve import Drawn
from unoic_cli.report.layout import Grid, Said
from unoic_cli.report.sheet import Sheet, of_gains, of_metrics

if TYPE_CHECKING:
    from unoic_cli.commands.search import Folds, SearchResult


def render_search(result: SearchResult) -> RenderableType:
    """The choice, metrics before and after, what is gained, the folds, and the curve."""
    names = list(result.metrics)
    lam = f"{result.lam:g}"
    title = title_of(result.metric)
    about = [
        ("lambda", about_lambda(result)),
        ("data", f"{result.n:,} labelled, {result.n_ignored:,} ignored, {result.n_classes:,} classes"),
        *about_calibration(result.calibration),
    ]
    if result.details.get("subject_to"):
        about.append(("subject to", result.details["subject_to"]))
    parts: list[RenderableType] = [
        facts(about),
        Text(),
        metric_table(_settings(result), names, _measured(result)),
        *gain_table(result),
    ]
    if result.modalities is not None:
        alone = _alone(result.modalities)
        parts += [
            Text(),
            metric_table(alone, names, f"{units(names)}, each modality alone; fused, these lambdas times {lam}", 0),
        ]
    if result.groups is not None:
        given = result.details.get("given") is not None
        parts += [Text(), _groups(result.groups, names, None if given else result.metric)]
    if result.folds is not None:
        parts += [Text(), _folds(result.folds, names)]
    parts += _curve(result, title)
    return Group(*parts)


def _curve(result: SearchResult, title: str) -> list[RenderableType]:
    """The metric over lambda, with the choice and the lambdas that are as good."""
    points = [(lam, v) for lam, v in zip(result.lams.tolist(), result.curve[result.metric].tolist(), strict=True)]
    finite = [value for _, value in points if value == value]
    if not finite or len(points) < 2:
        return []
    given, own = result.details.get("given") is not None, result.own_lambdas
    if given:
        marks = result.lam, (result.lam, result.lam), ""
    elif result.choice.get("rule") == "anchored":
        low, high = result.choice["interval"]
        best = "the best that is allowed" if result.details.get("subject_to") else "the best"
        known = result.metric in result.gain
        marks = result.lam, (low, high), f"as good as {best} within one standard error" if known else best
    else:
        marks = result.lam, result.plateau, "equal values"
    labels = value_of(result.metric, min(finite)), value_of(result.metric, max(finite))
    what = "factor of the modalities' lambdas" if own else "lambda"
    unit = " (percent)" if in_percent(result.metric) else ""
    above = f"{title}{unit} over {what}, {result.lams[0]:g} to {result.lams[-1]:g}"
    points.sort()
    drawn = Drawn([lam for lam, _ in points], [value for _, value in points], labels, *marks)
    return [Text(), Said(above), drawn]


def gain_table(result: SearchResult) -> list[RenderableType]:
    """What the choice gains over the scores as they are: the metric that it is for first."""
    names = sorted(result.gain, key=lambda name: name != result.metric)
    if not names or result.details.get("given") is not None:
        return []
    table = Grid()
    table.add_column("")
    for name in names:
        table.add_column(title_of(name), justify="right")
    add_gains(table, names, result.gain, "gain")
    if result.offsets is not None:
        add_gains(table, names, result.offsets.gain, "gain with offsets")
    how = f"cross-fitted over {GAIN_FOLDS} folds (the figures to quote)"
    points = f"in points of {units(names)}, " if any(map(in_percent, names)) else ""
    above = f"gain over the scores as they are, {points}{how}"
    return [Text(), Said(above), table]


def _settings(result: SearchResult) -> list[tuple[str, dict[str, float]]]:
    """Rows: as it is, fully rebalanced, and the chosen or given lambda."""
    given, own = result.details.get("given") is not None, result.own_lambdas
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


def _alone(modalities: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, float]]]:
    """Each modality by itself, as it is and at its own lambda."""
    rows = []
    for name, found in modalities.items():
        rows.append((f"{name}, as it is", found["baseline"]))
        rows += _masked(f"{name}, lambda 0, masked", found.get("masked"))
        rows.append((f"{name}, lambda {found['lambda']:g}", found["best"]))
    return rows


def _of_groups(groups: dict[str, dict[str, Any]], chosen: bool) -> list[tuple[str, dict[str, float]]]:
    """Each condition as it is, at the lambda that was chosen or given, and at its own where it was chosen."""
    rows = []
    for name, found in groups.items():
        rows.append((f"{name}, as it is", found["baseline"]))
        rows += _masked(f"{name}, lambda 0, masked", found.get("masked"))
        rows.append((f"{name}, {'chosen' if chosen else 'given'}", found["best"]))
        if chosen:
            rows.append((f"{name}, own {found['own_lambda']:g}", found["own_best"]))
    return rows


def _groups(groups: dict[str, dict[str, Any]], names: list[str], metric: str | None) -> RenderableType:
    """Each condition at the chosen lambda, and what its own would give; at a given one (no metric), just that."""
    rows = _of_groups(groups, metric is not None)
    if metric is None:
        return metric_table(rows, names, f"{units(names)}, each condition as it is, and at the given lambda", 0)
    above = f"each condition as it is, at the chosen lambda, and at the best for its {title_of(metric)}"
    return metric_table(rows, names, f"{units(names)}, {above}", 0)


def _of_folds(folds: Folds, names: list[str]) -> list[tuple[str, dict[str, float]]]:
    """Means over folds, with their standard deviations."""
    summary = folds.to_dict({})
    rows = [("as it is, mean of folds", {name: summary["baseline"][name]["mean"] for name in names})]
    if "masked" in summary:
        rows.append(("lambda 0, masked", {name: summary["masked"][name]["mean"] for name in names}))
    rows.append(("held out, mean", {name: summary["held_out"][name]["mean"] for name in names}))
    rows.append(("held out, std", {name: summary["held_out"][name]["std"] for name in names}))
    return rows


def _folds(folds: Folds, names: list[str]) -> RenderableType:
    """What `_of_folds` says, and the lambdas of the folds."""
    rows, spread = _of_folds(folds, names), folds.to_dict({})["lambda"]
    lam = f"lambda {spread['mean']:.4g} ± {spread['std']:.2g}"
    title = f"{units(names)}, {folds.k} folds of {folds.unit}: {lam}, tested on the fold held out"
    return metric_table(rows, names, title, len(rows) - 1)


def gain_rows(result: SearchResult) -> list[tuple[str, dict[str, float]]]:
    """What the choice gains, and the ends of the interval; the same with offsets, where these are fitted."""
    rows = of_gains(result.gain, result.metrics, "gain", ", cross-fitted")
    if result.offsets is not None:
        rows += of_gains(result.offsets.gain, result.metrics, "gain", ", cross-fitted, with offsets")
    return rows


def search_sheet(result: SearchResult) -> Sheet:
    """A row for each setting, then for each modality, condition and the folds, as the terminal shows them."""
    rows = _settings(result)
    n, given = len(rows), result.details.get("given") is not None
    rows += [] if result.modalities is None else _alone(result.modalities)
    rows += [] if result.groups is None else _of_groups(result.groups, not given)
    rows += [] if result.folds is None else _of_folds(result.folds, list(result.metrics))
    if not given:
        rows += gain_rows(result)
    return of_metrics(rows, result.metrics, _measured(result), n)
