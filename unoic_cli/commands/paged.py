"""What a page shows of results: the data behind `unoic_cli.pages`, one tab for each run."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.calibrations.prior import Prior
from unoic_cli.commands.along import Along
from unoic_cli.metrics import ABSENT_RULES, Counts, Metric, OfClass, Rules, in_percent, is_better, title
from unoic_cli.metrics.acc import Accuracy
from unoic_cli.metrics.metric import ClassMean
from unoic_cli.metrics.shots import Few, Many, Medium, Shots
from unoic_cli.options import is_given, options_of
from unoic_cli.pages.document import document
from unoic_cli.urls import scrub_all
from unoic_cli.version import __version__

MOST_CONFUSED = 200
"""Pairs of classes that are listed."""
MOST_MATRIX = 40
"""Classes up to which the whole matrix is shown."""
SHOTS = (Many, Medium, Few)
"""In the order of the page."""


def page(tabs: Sequence[dict[str, Any]], command: str | None) -> bytes:
    """The file of some tabs; `command` is the line that repeats it."""
    return document(
        _name([one["name"] for one in tabs]), {"unoic": __version__, "command": command, "tabs": list(tabs)}
    )


def told_apart(tabs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tabs, with a number where an earlier one has the same name.

    Examples
    --------
    >>> [one["name"] for one in told_apart([{"name": "a.h5"}, {"name": "b.h5"}, {"name": "a.h5"}])]
    ['a.h5', 'b.h5', 'a.h5 (2)']
    """
    made: list[dict[str, Any]] = []
    for one in tabs:
        taken, name, i = {other["name"] for other in made}, one["name"], 2
        while name in taken:
            name, i = f"{one['name']} ({i})", i + 1
        made.append({**one, "name": name})
    return made


def shares_of(calibration: Calibration) -> list[list[Any]] | None:
    """Each modality's name and its share, where lambda is a factor of these; else None."""
    shares = [[one.name, one.share] for one in calibration.modalities]
    return shares if any(share != 1.0 for _, share in shares) else None


def lambda_of(calibration: Calibration) -> str:
    """The lambda of a calibration, in words: where modalities have their own, each of them."""
    shares = shares_of(calibration)
    if shares is None:
        return f"{calibration.lam:g}"
    return f"{', '.join(f'{name} {calibration.lam * share:g}' for name, share in shares)} (factor {calibration.lam:g})"


def tab(
    name: str, along: Along, lam: float, *, class_names: Sequence[str] | None, shown: Sequence[str], n_ignored: int,
    shares: list[list[Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A run along lambda.

    Parameters
    ----------
    name : str
        Of the run.
    along : Along
    lam : float
        The lambda that is chosen, or the point of the curve next to it.
    class_names : sequence of str or None
    shown : sequence of str
        Metrics that tables show.
    n_ignored : int
        Units.
    shares : list of (str, float), optional
        What lambda is a factor of, for each modality.
    """
    listed = [one for one in along.metrics if one.name in shown or one.name in along.values]
    alone = [one.title for one in along.metrics if one not in listed]
    return {
        "name": name,
        "n": int(along.base.support.sum()),
        "n_ignored": n_ignored,
        "lams": along.lams,
        "n_classes": int(along.base.support.size),
        "class_names": None if class_names is None else list(class_names),
        "counts": _counts(along.counts),
        "base": _counts(along.base),
        "against": along.against,
        "metrics": [_metric(one, along, one.name in shown) for one in listed],
        "alone": alone,
        "shares": shares,
        "given": None,
        "tuned": False,
        "searched": None,
        "shots": None if along.training is None else _shots(along.rules, along.training),
        "ignored": list(along.rules.ignored),
        "absent": along.rules.absent,
        "absent_rule": ABSENT_RULES[along.rules.absent],
        "chosen": along.place(lam),
        "lambda": lam,
        "groups": None if along.tables is None else [
            {"name": one, "counts": _counts(here), "base": _counts(plain)}
            for one, (here, plain) in along.tables.items()
        ],
        "clusters": along.clusters,
        "kept": along.kept,
        "of": along.of,
    }  # fmt: skip


def _counts(counts: Counts) -> dict[str, NDArray[np.int64]]:
    support = counts.support.reshape(-1, counts.support.shape[-1])[0]
    return {"hits": counts.hits, "predicted": counts.predicted, "support": support}


def _metric(metric: Metric, along: Along, shown: bool) -> dict[str, Any]:
    """A metric: how it follows from counts, or its values; and what it is of the scores as they are."""
    name = metric.name
    how = _formula(metric)
    if how is None and name in along.values:
        how = {"values": along.values[name]}
    ends = {"low": along.low[name], "high": along.high[name]} if name in along.low else {}
    return {
        "name": name,
        "title": metric.title,
        "help": metric.HELP,
        "percent": metric.PERCENT,
        "higher": metric.HIGHER,
        "shown": shown,
        "base": along.baseline.get(name),
        **(how or {}),
        **ends,
    }


def _formula(metric: Metric) -> dict[str, Any] | None:
    """How a metric follows from counts, where the page can work it out to the last bit."""
    if isinstance(metric, Accuracy):
        return {"ratio": "acc"}
    if isinstance(metric, OfClass):
        return {"ratio": metric.mean.RATIO, "of": metric.k}
    if isinstance(metric, ClassMean):
        among = next((i for i, one in enumerate(SHOTS) if isinstance(metric, one)), None)
        if isinstance(metric, Shots) == (among is not None):
            return {"ratio": metric.RATIO, "among": among}
    return None


def _shots(rules: Rules, training: Sequence[float]) -> dict[str, Any]:
    """Which classes have many, some and few training samples."""
    samples, bounds = np.array(training, dtype=np.float64), rules.shots
    of = np.zeros(samples.size, dtype=np.int64)
    for i, one in enumerate(SHOTS):
        of[one.within(samples, *bounds)] = i
    few, many = bounds
    names = [f"many: more than {many}", f"medium: {few} to {many}", f"few: fewer than {few}"]
    return {"of": of, "names": names, "samples": samples}


def of_search(
    said: Mapping[str, Any], along: Along, used: Calibration, chosen: str, given: str | None = None
) -> dict[str, Any]:
    """The tab of a search.

    Parameters
    ----------
    said : mapping
        Its JSON.
    along : Along
    used : Calibration
        What the page begins with.
    chosen : str
        Which lambda that is and why, in words.
    given : str, optional
        Where this lambda is from, in words, if the search has not chosen it.
    """
    calibration, choice = said["calibration"], said["choice"]
    made = tab(
        _called(said), along, used.lam, class_names=calibration["class_names"], shares=shares_of(used),
        shown=[one.name for one in along.metrics if one.name in along.values], n_ignored=said["n_ignored"],
    )  # fmt: skip
    anchored = choice.get("rule") == "anchored"
    return {
        **made,
        "goal": said["metric"],
        "given": given,
        "tuned": given is None and said["given"] is None and bool(said["gain"]),
        "anchor": along.place(choice["anchor"]) if anchored else None,
        "best": along.place(choice["best"]) if anchored else None,
        "interval": [along.place(end) for end in choice["interval"]] if anchored else None,
        "constraints": _bounds(along),
        "ruled_out": along.ruled_out,
        "facts": [["lambda", chosen], *_of_search(said, given), *_facts(said)],
        "at": None,
        "warnings": said["warnings"],
        "notes": said["notes"],
    }


def of_evaluate(
    said: Mapping[str, Any], along: Along, class_names: Sequence[str] | None, shares: list[list[Any]] | None
) -> dict[str, Any]:
    """The tab of a data set that was measured at one lambda; `said` is the JSON of `evaluate`."""
    applied = said["before"] is not None
    lam = f"{said['lambda']:g}" if applied else "none: the scores are taken as they are"
    return {
        **tab(
            _called(said), along, said["lambda"], class_names=class_names, shares=shares,
            shown=[one.name for one in along.metrics], n_ignored=said["n_ignored"],
        ),
        **_UNCHOSEN,
        "facts": [["lambda", lam], *_facts(said)],
        "at": evaluated(said),
        "images": images([] if said["images"] is None else [said["images"]]),
        "warnings": said["warnings"],
        "notes": said["notes"],
    }  # fmt: skip


def of_method(
    said: Mapping[str, Any], i: int, along: Along, class_names: Sequence[str] | None, n_ignored: int
) -> dict[str, Any]:  # fmt: skip
    """The tab of a method; `said` is the JSON of `compare`."""
    method = said["methods"][i]
    return {
        **tab(
            method["name"], along, float(along.lams[0]), class_names=class_names, shown=said["metrics"],
            n_ignored=n_ignored,
        ),
        **_UNCHOSEN,
        "facts": [["method", method["about"]], *_facts(said)],
        "at": None,
        "average": {"average": method["average"], "differences": method["differences"]},
        "warnings": [one for one in said["warnings"] if one.get("method", method["name"]) == method["name"]],
        "notes": said["notes"],
    }  # fmt: skip


_UNCHOSEN: dict[str, Any] = {
    "goal": None,
    "anchor": None,
    "best": None,
    "interval": None,
    "constraints": [],
    "ruled_out": None,
}


def evaluated(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of one lambda alone, from the JSON of `evaluate`."""
    kept = ("lambda", "n", "mcnemar", "moved", "gain", "clusters", "reliability")
    matrix = said["confusion"]
    return {
        **{name: said[name] for name in kept},
        "titles": {name: _titled(name) for name in said["gain"] or ()},
        "values": {name: [said["before"][name], said[name]] for name in said["gain"] or ()},
        "confusion": confused(None if matrix is None else np.array(matrix, dtype=np.int64)),
    }


def images(found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Metrics of images at every lambda, or at one, each as the JSON of `evaluate` has them."""
    if not found:
        return None
    listed = {(one["file"], one["index"]): one for here in found for one in (*here["worst"], *here["losers"])}
    places = {key: i for i, key in enumerate(listed)}
    worst, losers = (
        _table(found, key, lambda one: places[one["file"], one["index"]], -1) for key in ("worst", "losers")
    )
    first, files = found[0], {file for file, _ in listed}
    return {
        "points": len(found),
        **{name: first[name] for name in ("n", "n_empty", "worst_by")},
        "metrics": [{**_titled(name), "name": name, **_of_images(found, name)} for name in first["metrics"]],
        "listed": [
            [f"{file if len(files) > 1 else ''} {one.get('sample_id', i)}".strip(), one["n"]]
            for (file, i), one in listed.items()
        ],
        "worst": worst,
        "losers": {
            "images": losers,
            "before": _table(found, "losers", itemgetter("before"), math.nan),
            "now": _table(found, "losers", itemgetter(first["worst_by"]), math.nan),
            "change": _table(found, "losers", itemgetter("change"), math.nan),
        },
    }


def _table(
    found: Sequence[Mapping[str, Any]], key: str, of: Callable[[Mapping[str, Any]], Any], nothing: Any
) -> NDArray[Any]:  # fmt: skip
    """Of each point what there is of the images in a list, a row as long as the longest list."""
    made = np.full((len(found), max(len(here[key]) for here in found)), nothing)
    for row, here in zip(made, found, strict=True):
        row[: len(here[key])] = [of(one) for one in here[key]]
    return made


def _of_images(found: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """A metric of the images, and of the worst ones."""
    every = [here["metrics"][name] for here in found]
    quartiles = np.array([one["quartiles"] or [math.nan] * 5 for one in every])
    made = {
        "n": np.array([one["n"] for one in every]),
        "mean": np.array([_known(one["mean"]) for one in every]),
        "quartiles": quartiles,
        "worst": _table(found, "worst", lambda one: _known(one[name]), math.nan),
    }
    if "before" not in every[0]:
        return {**made, "before": None}
    ends = np.array([one["interval"] or [math.nan] * 2 for one in every])
    gains = np.array([_known(one["gain"]) for one in every])
    return {**made, "before": every[0]["before"]["mean"], "gain": gains, "low": ends[:, 0], "high": ends[:, 1]}


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _titled(name: str) -> dict[str, Any]:
    """How a metric is shown."""
    return {"title": title(name), "percent": in_percent(name), "higher": is_better(name, 1.0, 0.0)}


def _called(said: Mapping[str, Any]) -> str:
    """The name of a tab: the files, and the split of them."""
    name, split = _name(said["files"]), said["split"]
    return name if split is None else f"{name} ({split})"


def _name(files: Sequence[str]) -> str:
    return " and ".join(files) if len(files) < 3 else f"{files[0]} and {len(files) - 1} more"


def _of_search(said: Mapping[str, Any], given: str | None) -> list[list[str]]:
    """What there is to say of a search, and of its calibration; of a lambda that it has not chosen, only what holds."""
    calibration, choice = said["calibration"], said["choice"]
    other = "" if given is None else " of the search"
    rows = [] if not choice else [[f"metric{other}", title(said["metric"])], [f"method{other}", said["method"]]]
    if "a" in choice:
        rows.append(
            ["joint fit", f"a = {choice['a']:.4g}, lambda = {choice['fit']:.4g}, lambda / a = {choice['mu']:.4g}"]
        )
    for name, gain in said["gain"].items():
        if gain["gain"] is not None:
            rows.append([_gained(title(name), said, given), _gain(name, gain["gain"], gain["interval"])])
    if said["subject_to"]:
        rows.append(["subject to" if given is None else "the search is subject to", said["subject_to"]])
    for one in calibration["modalities"]:
        which = "" if one["name"] is None else f" of {one['name']}"
        rows.append([f"source prior{which}", _prior(one["source_prior"])])
        if one["temperature"] != 1.0:
            rows.append([f"temperature{which}", f"{one['temperature']:g}"])
        if one["share"] != 1.0:
            rows.append([f"share of lambda{which}", f"{one['share']:g}"])
    if said.get("offsets"):
        rows.append(["offsets", "the calibration has fitted offsets, too; what is shown along lambda is without them"])
    return [*rows, ["target prior", _prior(calibration["target_prior"])]]


def _gained(called: str, said: Mapping[str, Any], given: str | None) -> str:
    """Of which lambda a gain is, and how it is known."""
    if said["given"] is not None:
        return f"gain in {called}"
    if given is None:
        return f"gain in {called}, cross-fitted"
    word = "factor" if any(one["share"] != 1.0 for one in said["calibration"]["modalities"]) else "lambda"
    return f"gain in {called} of {word} {said['lambda']:g}, searched for here, cross-fitted"


def _prior(said: Mapping[str, Any]) -> str:
    return Prior(tuple(said["values"]), said["origin"]).told


def _gain(name: str, gain: float, interval: Sequence[float] | None) -> str:
    """A gain with its interval, as tables have it.

    Examples
    --------
    >>> _gain("macc", 0.04378, (0.0349, 0.0527)), _gain("nll", -0.2, None)
    ('+4.38 [+3.49, +5.27] points of percent', '-0.2000')
    """
    percent = in_percent(name)
    texts = [f"{100 * x:+.2f}" if percent else f"{x:+.4f}" for x in (gain, *(interval or ()))]
    ends = f" [{texts[1]}, {texts[2]}]" if interval else ""
    return f"{texts[0]}{ends}" + (" points of percent" if percent else "")


def _facts(said: Mapping[str, Any]) -> list[list[str]]:
    """Files and options."""
    rows: list[list[Any]] = [
        ["fusion", said.get("fusion")],
        ["files", ", ".join(said["files"])],
        ["split", said["split"]],
    ]
    if said["ignore_index"]:
        rows.append(["ignored labels", ", ".join(map(str, said["ignore_index"]))])
    return [[name, text] for name, text in rows if text] + [["absent classes", said["absent_rule"]]]


def _bounds(along: Along) -> list[dict[str, Any]]:
    """Constraints, with what they compare with."""
    return [
        {
            "metric": one.metric.name,
            "text": str(one),
            "above": ">" in one.comparison,
            "bound": one.value + (along.baseline[one.metric.name] if one.relative else 0.0),
        }
        for one in along.constraints
    ]


def confused(matrix: NDArray[np.int64] | None) -> dict[str, Any] | None:
    """A confusion matrix: of a few classes the whole, of any the pairs that are confused most."""
    if matrix is None:
        return None
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    flat = off.reshape(-1)
    some = np.flatnonzero(flat)
    order = some[np.lexsort((some, -flat[some]))][:MOST_CONFUSED]
    k = len(matrix)
    pairs = [[int(i // k), int(i % k), int(flat[i])] for i in order]
    support = matrix.sum(axis=1)
    return {
        "pairs": pairs,
        "n": int(some.size),
        "support": support,
        "matrix": matrix if k <= MOST_MATRIX else None,
    }


def command_line(name: str, inputs: Any, kind: type, given: Mapping[str, Any]) -> str | None:
    """The line that repeats a command; None where it was given what no line can say.

    Examples
    --------
    >>> from unoic_cli.resolve.options import DataOptions
    >>> command_line("page", ["val set.h5"], DataOptions, {"split": "val", "ignore_index": (3,), "threads": None})
    "unoic page 'val set.h5' --split val --ignore-index 3"
    """
    items = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    if not isinstance(items, (list, tuple)) or not all(isinstance(one, (str, os.PathLike)) for one in items):
        return None
    words = ["unoic", name, *map(os.fspath, items)]
    for key, one in options_of(kind).items():
        value = given.get(key, one.default)
        if not one.option.flags or not is_given(value) or value == one.default or key in _OF_RUNS:
            continue
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if part is True:
                words.append(one.option.flag)
            elif isinstance(part, (str, int, float, os.PathLike)):
                words += [one.option.flag, os.fspath(part) if isinstance(part, os.PathLike) else str(part)]
            else:
                return None
    return shlex.join(scrub_all(words))


_OF_RUNS = ("threads", "memory", "force")
"""Options that change nothing of a page."""
