"""What a command measures: the metrics that were asked for, and what these must be told."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.data.dataset import DataSet
from unoic_cli.errors import UsageError
from unoic_cli.metrics import ABSENT, NAMES, SHOTS, Metric, Recipe, Rules, find
from unoic_cli.resolve.common import Notes, class_list
from unoic_cli.resolve.decider import Decider
from unoic_cli.searches.choice import (
    CLASS,
    Constraint,
    Requirement,
    parse_constraints,
    parse_requirements,
)
from unoic_cli.tallies.counts import Counts
from unoic_cli.tallies.kept import BY

Arrays: TypeAlias = "dict[Recipe, dict[str, NDArray[np.int64]]]"
_SHOTS = re.compile(r"([0-9]{1,9}):([0-9]{1,9})")


@dataclass(frozen=True)
class Asked:
    """Metrics, and what they are told.

    Attributes
    ----------
    shown : tuple of Metric
        What tables show.
    rules : Rules
    goal : Metric or None
        What is maximised, or minimised.
    constraints : tuple of Constraint
    required : tuple of Requirement
        What the result must show.
    """

    shown: tuple[Metric, ...]
    rules: Rules
    goal: Metric | None = None
    constraints: tuple[Constraint, ...] = ()
    required: tuple[Requirement, ...] = ()

    @property
    def deciding(self) -> tuple[Metric, ...]:
        """Those that a choice is made by."""
        goal = () if self.goal is None else (self.goal,)
        return tuple(dict.fromkeys([*goal, *(constraint.metric for constraint in self.constraints)]))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All that are measured: the usual ones, whatever is shown, and what decides."""
        usual = (find(name, "") for name in NAMES)
        return tuple(dict.fromkeys([*usual, *self.shown, *self.deciding, *(one.metric for one in self.required)]))

    @property
    def names(self) -> tuple[str, ...]:
        """Of what tables show: what was asked for, what decides, and what is required."""
        known = [*self.shown, *self.deciding, *(one.metric for one in self.required)]
        return tuple(metric.name for metric in dict.fromkeys(known))

    def recipes(self, metrics: Sequence[Metric] | None = None) -> tuple[Recipe, ...]:
        """What they need beside counts, each once."""
        chosen = self.metrics if metrics is None else metrics
        return tuple(dict.fromkeys(metric.recipe for metric in chosen if metric.recipe is not None))


@dataclass(frozen=True)
class Beside:
    """What is counted beside predictions at some lambdas.

    Attributes
    ----------
    tallies : dict of Recipe to Tally
    n_points : int
        G.
    """

    tallies: dict[Recipe, Any]
    n_points: int

    @classmethod
    def along(cls, recipes: Sequence[Recipe], lines: Any, n_tables: int) -> Beside:
        """By the path, at every lattice point."""
        return cls({recipe: recipe.along(lines, n_tables) for recipe in recipes}, lines.lams.size)

    @classmethod
    def at(cls, recipes: Sequence[Recipe], decider: Any, lams: Sequence[float], n_tables: int) -> Beside:
        """At single lambdas."""
        return cls({recipe: recipe.at(decider, lams, n_tables) for recipe in recipes}, len(lams))

    def arrays(self) -> Arrays:
        """What was counted, (F, G, ...)."""
        return {recipe: self._spread(recipe.arrays(tally)) for recipe, tally in self.tallies.items()}

    def _spread(self, arrays: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        return {
            name: np.broadcast_to(one, (one.shape[0], self.n_points, *one.shape[2:])) for name, one in arrays.items()
        }


def ask(
    metrics: str | Sequence[str] | None, data: DataSet, absent: str, shots: str | Sequence[int] | None = None, *,
    default: Sequence[str] = NAMES, metric: str | None = None, subject_to: str | None = None,
    require: str | None = None,
) -> Asked:  # fmt: skip
    """The metrics that options name, for a data set.

    Raises
    ------
    UsageError
        A metric, class or rule that there is not, or a metric twice.
    """
    if absent not in ABSENT:
        raise UsageError("--absent", f"{absent!r}", f"expected one of {', '.join(ABSENT)}")
    classes = data.n_classes, data.class_names
    shown = _listed(default if metrics is None else metrics, data)
    goal = None if metric is None else find(metric, "--metric", *classes)
    constraints = () if subject_to is None else parse_constraints(subject_to, *classes)
    required = () if require is None else parse_requirements(require, *classes)
    options = {**dict.fromkeys(shown, "--metrics"), **{one.metric: "--subject-to" for one in constraints}}
    options |= {one.metric: "--require" for one in required}
    for one, option in {**options, **({} if goal is None else {goal: "--metric"})}.items():
        one.check(option, data.n_classes)
    asked = Asked(shown, Rules(absent, data.ignored_classes, None, _shots(shots)), goal, constraints, required)
    if shots is not None and not any(metric.BY_TRAINING for metric in asked.metrics):
        raise UsageError("--shots", "--shots without a metric that it is for", "expected many, medium or few")
    return asked


def with_training(asked: Asked, data: DataSet, calibration: Calibration | None) -> Asked:
    """The same, told how many samples of each class were trained on, where a metric must know.

    Raises
    ------
    UsageError
        Nobody knows them.
    """
    names = [metric.name for metric in asked.metrics if metric.BY_TRAINING]
    if not names:
        return asked
    known = training_of(data, calibration)
    if known is None:
        expected = "expected source_counts in the file, or --source-prior with counts (and a lambda)"
        raise UsageError("--metrics", f"{names[0]} without the numbers of training samples", expected)
    return replace(asked, rules=replace(asked.rules, training=known))


def training_of(data: DataSet, calibration: Calibration | None) -> tuple[float, ...] | None:
    """How many samples of each class were trained on, (K,), where that is known."""
    priors = () if calibration is None else (modality.source_prior for modality in calibration.modalities)
    known = [prior.counts for prior in priors if prior.counts is not None and not prior.estimated]
    known += [source.source_counts for source in data.all_sources if source.source_counts]
    return tuple(known[0]) if known else None


def _listed(given: str | Sequence[str], data: DataSet) -> tuple[Metric, ...]:
    """Metrics of a list, or of a text with commas."""
    names = re.findall(rf"(?:{CLASS}|[^,\[])+", given) if isinstance(given, str) else list(given)
    found = tuple(find(str(name), "--metrics", data.n_classes, data.class_names) for name in names)
    if not found or len(set(found)) < len(found):
        raise UsageError("--metrics", f"{given!r}", "expected each metric once")
    return found


def _shots(given: str | Sequence[int] | None) -> tuple[int, int]:
    """Bounds of few-shot and many-shot classes."""
    if given is None:
        return SHOTS
    match = _SHOTS.fullmatch(given if isinstance(given, str) else ":".join(map(str, given)))
    if match is None or int(match[1]) > int(match[2]):
        raise UsageError("--shots", f"{given!r}", "expected FEW:MANY training samples, such as 20:100")
    return int(match[1]), int(match[2])


def clusters_of(given: str | None, data: DataSet) -> str:
    """What is independent of the rest, for standard errors and intervals.

    Raises
    ------
    UsageError
        What there is not.
    """
    if given is not None and given not in BY:
        raise UsageError("--cluster", f"{given!r}", f"expected one of {', '.join(BY)}")
    if given == "group":
        data.require("group", "to cluster by it")
    if given == "image" and not data.has_images:
        raise UsageError("--cluster", "image, of data without images", "expected unit or group")
    return given or ("image" if data.has_images else "unit")


def check_countable(asked: Asked, data: DataSet, decider: Decider) -> None:
    """Refuse metrics that the scores do not allow.

    Raises
    ------
    UsageError
        Predictions alone, or ranks where scores are no lines in lambda.
    """
    for metric in asked.metrics:
        if metric.recipe is None:
            continue
        option = "--metric" if metric in asked.deciding else "--metrics"
        if data.sources[0].kind == "predictions":
            raise UsageError(option, f"{metric.name} of a file of predictions", "expected scores")
        if not decider.linear and not metric.recipe.any_scores:
            raise UsageError(option, f"{metric.name} with {decider.how}", f"expected one of {', '.join(NAMES)}")


def tell_infinite(values: Mapping[str, float], notes: Notes) -> None:
    """Say why a likelihood is infinite."""
    names = [name for name, value in values.items() if math.isinf(value)]
    if names:
        why = "the label of some unit has probability zero (its class is masked, or its score is -inf)"
        notes.add(f"{' and '.join(names)}: infinite, as {why}")


def tell_absent(before: Counts, after: Counts, asked: Asked, data: DataSet, notes: Notes) -> None:
    """Say of which classes there is no label, and what they are worth in means; counts are (K,)."""
    absent = _absent(before, asked)
    if not absent:
        return
    one, n = len(absent) == 1, data.n_classes - len(absent) - len(asked.rules.ignored)
    if asked.rules.absent == "zero":
        how = f"mean class accuracy, mIoU and F1 count {'it' if one else 'them'} as 0"
    elif asked.rules.absent == "truth-only":
        how = f"means over classes are of the other {n:,}"
    else:
        met = [[k for k in absent if counts.predicted[k]] for counts in (before, after)]
        said = [f"{class_list(found, data) if found else 'none'}" for found in met]
        which = said[0] if met[0] == met[1] else f"{said[0]} before, {said[1]} after"
        how = (
            f"mean class accuracy is of the other {n:,}; mIoU and F1 are, too, but for those that are predicted "
            f"({which}), which count 0 (--absent truth-only leaves them out)"
        )
    notes.add(
        f"no labelled units of class {class_list(absent, data)}: {how}; no label tells what lambda does to "
        f"{'it' if one else 'these'}"
    )


def tell_averaged(
    before: Counts, after: Counts, asked: Asked, data: DataSet, notes: Notes,
    words: tuple[str, str] = ("before", "after"),
) -> None:  # fmt: skip
    """Say that mIoU and F1 are means over more classes after than before, or over fewer; counts are (K,)."""
    absent = _absent(before, asked)
    met = [{k for k in absent if counts.predicted[k]} for counts in (before, after)]
    if asked.rules.absent != "reference" or len(met[0]) == len(met[1]):
        return
    labelled = data.n_classes - len(absent) - len(asked.rules.ignored)
    n, m = (labelled + len(found) for found in met)
    many, told = abs(n - m), sorted(met[1] - met[0] if m > n else met[0] - met[1])
    which = f" ({class_list(told, data)})" if len(told) == many else ""
    notes.add(
        f"mIoU and F1 average over {n:,} {'class' if n == 1 else 'classes'} {words[0]} and {m:,} {words[1]}: {many:,} "
        f"{'more' if m > n else 'fewer'} {'is' if many == 1 else 'are'} predicted that "
        f"{'has' if many == 1 else 'have'} no labels{which}; such count 0 (--absent truth-only leaves them out)"
    )


def _absent(counts: Counts, asked: Asked) -> list[int]:
    """Classes that no label names, and that are not left out on purpose."""
    return [int(k) for k in np.flatnonzero(counts.support == 0) if int(k) not in asked.rules.ignored]
