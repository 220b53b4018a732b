"""`search_lambda`: the whole lambda curve from one read, and the lambda to take."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.calibrations.lattice import COARSE_STEP, DEFAULT_RANGE, DEFAULT_STEP, Lattice
from unoic_cli.commands import paged
from unoic_cli.commands.along import Along, image_tables
from unoic_cli.commands.class_offsets import FittedOffsets, add_offsets, asks_for_fit, check_fit
from unoic_cli.commands.harm import tell_harm, tell_splits
from unoic_cli.commands.paired import met_by
from unoic_cli.commands.problem import Complement, Problem
from unoic_cli.commands.sampled import Gain
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.folds import Folding
from unoic_cli.data.steps import Steps, write_bytes, write_json, write_text
from unoic_cli.errors import DataError, UsageError
from unoic_cli.frames import Framed
from unoic_cli.metrics import ABSENT_RULES, NAMES, Absent, Counts, Metric, title
from unoic_cli.options import Option, filled, given_flags
from unoic_cli.resolve.asked import (
    Asked,
    ask,
    check_countable,
    clusters_of,
    tell_absent,
    tell_averaged,
    tell_infinite,
    with_training,
)
from unoic_cli.resolve.common import (
    Inputs,
    Notes,
    check_output,
    files_among,
    no_labels,
    open_inputs,
    output_path,
    page_name,
    provenance,
    tell_labels,
    tell_predictions,
)
from unoic_cli.resolve.decider import Decider, make_decider
from unoic_cli.resolve.modalities import Resolved, at_lambda, resolve
from unoic_cli.resolve.options import (
    AbsentOption,
    CalibrationOptions,
    ClusterOption,
    DataOptions,
    ForceOption,
    MethodOptions,
    MetricsOption,
    PageOption,
    RequireOption,
    ScoreOptions,
    ShotsOption,
    StrictOption,
)
from unoic_cli.resolve.tables import IMAGE, make_tables
from unoic_cli.searches import METHODS, Curve, Found
from unoic_cli.searches import method as find_method
from unoic_cli.searches.anchored import Choice
from unoic_cli.searches.choice import Constraint, Met, Plateau, best_plateau, run_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


NAME = "search-lambda"
MOST_FOLDS = 1000
MOST_CELLS = 1 << 21
"""Lambdas times classes at which probabilities are counted: each takes 300 bytes of a thread."""
CHOOSE = ("anchored", "best", "paper")
HITS_RANGE, PRECISION_RANGE = "0:6", "-1:6"
"""Lambdas that the anchored rule looks at: below 0, too, where wrong predictions are told apart."""
FEW = 2
"""Units by which a curve may rise without telling anything: chance moves more."""


@dataclass(frozen=True)
class Folds:
    """Cross-validated choice of lambda: tuned on k - 1 folds, tested on the one held out.

    Attributes
    ----------
    k, seed : int
    unit : str
        ``samples`` (stratified by label) or ``images`` (never divided).
    lams : tuple of float
        The lambda tuned without each fold.
    tested, baseline : tuple of dict
        Metrics of each fold at its lambda, and of the scores as they are.
    pooled_before, pooled_after : Counts
        Per-class counts of all folds as they are, and each unit predicted with the lambda tuned without it.
    masked : tuple of dict or None
        Metrics of each fold at lambda = 0 with masked classes, where these change anything.
    """

    k: int
    seed: int
    unit: str
    lams: tuple[float, ...]
    tested: tuple[dict[str, float], ...]
    baseline: tuple[dict[str, float], ...]
    pooled_before: Counts
    pooled_after: Counts
    masked: tuple[dict[str, float], ...] | None = None

    __repr__ = brief
    _repr_html_ = in_html

    def to_dict(self, optimistic: dict[str, float]) -> dict[str, Any]:
        """For JSON; `optimistic` is what tuning and testing on the same data gives."""

        def summary(folds: Sequence[dict[str, float]]) -> dict[str, Any]:
            columns = {name: [fold[name] for fold in folds] for name in folds[0]}
            return {
                name: {"mean": _mean(values), "std": _std(values), "values": values} for name, values in columns.items()
            }

        return {
            "k": self.k,
            "seed": self.seed,
            "unit": self.unit,
            "protocol": "lambda tuned on k-1 folds, tested on the fold held out",
            "ddof": 1,
            "lambda": {"mean": _mean(self.lams), "std": _std(self.lams), "values": list(self.lams)},
            "held_out": summary(self.tested),
            "baseline": summary(self.baseline),
            **({} if self.masked is None else {"masked": summary(self.masked)}),
            "optimistic": {"note": "tuned and tested on the same data", **optimistic},
        }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _std(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class SearchResult(Framed):
    """What `search_lambda` found. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    lam : float
        The chosen lambda; where modalities have their own, the factor of all of them.
    plateau : tuple of float
        First and last lambda of the run of equal values that `lam` is chosen from: its middle lattice point, or 0 where
        no lambda is better than 0, or the priors say nothing.
    metric : str
        What was maximised (or minimised, as less of it is better).
    calibration : Calibration
        Ready for `calibrate` and `evaluate`.
    n, n_ignored, n_classes : int
        Labelled units, ignored ones, and K.
    baseline, rebalanced, best : dict
        Metrics of the scores as they are (nothing rebalanced, no class masked), at lambda 1, and at the chosen one.
    lams : (G,) float64
        The lambdas of the curve.
    curve : dict of str to (G,) float64
        Metrics at every lambda, but for those that are measured at single ones alone.
    counts : Counts
        Per-class counts (G, K) behind the curve.
    plain : Counts or None
        Those of the scores as they are, (K,).
    folds : Folds or None
        The cross-validated figures.
    notes : tuple of str
        What was worth saying on the way.
    gain : dict of str to Gain
        Of the chosen lambda over the scores as they are, with 95 % intervals, for each metric from counts.
    choice : dict
        How lambda was chosen: rule, the lambdas that are as good, the anchor and the fit behind it, the best lambda.
    warnings : list of dict
        What may do harm: code, text and figures.
    linear : bool
        Scores are lines in lambda.
    offsets : FittedOffsets or None
        With ``offsets="fit"``.
    details : dict
        Method, evaluations, reads, constraints and options; ``given``: the option that named lambda, where nothing
        was searched.
    groups : dict or None
        For each condition: metrics as it is and at the chosen lambda, and the lambda that would serve it best.
    modalities : dict or None
        For each modality, with `per_modality`: its own lambda, and metrics of that modality alone before and after.
    masked : dict or None
        Metrics at lambda 0 with masked classes (prior zero, ``unseen="mask"``), where these change anything.
    metrics : tuple of str
        What tables show.
    met : tuple of Met
        What came of the requirements.
    """

    lam: float
    plateau: tuple[float, float]
    metric: str
    calibration: Calibration
    n: int
    n_ignored: int
    n_classes: int
    baseline: dict[str, float]
    rebalanced: dict[str, float]
    best: dict[str, float]
    lams: NDArray[np.float64]
    curve: dict[str, NDArray[np.float64]]
    counts: Counts
    folds: Folds | None
    notes: tuple[str, ...]
    gain: dict[str, Gain] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    linear: bool = field(default=True, repr=False)
    offsets: FittedOffsets | None = None
    details: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] | None = None
    modalities: dict[str, dict[str, Any]] | None = None
    masked: dict[str, float] | None = None
    metrics: tuple[str, ...] = NAMES
    met: tuple[Met, ...] = ()
    plain: Counts | None = field(default=None, repr=False)

    __repr__ = brief
    _repr_html_ = in_html

    @property
    def own_lambdas(self) -> bool:
        """Whether modalities have lambdas of their own, of which `lam` is a common factor."""
        return any(modality.share != 1.0 for modality in self.calibration.modalities)

    def glance(self) -> dict[str, list[Any]]:
        """What notebooks show: metrics as it is, rebalanced, and at the chosen lambda."""
        settings = {"lambda 0 (as it is)": self.baseline, "lambda 1": self.rebalanced}
        settings[f"lambda {self.lam:g} (chosen)"] = self.best
        return {"": list(settings), **{name: [one.get(name) for one in settings.values()] for name in self.metrics}}

    def _columns(self) -> dict[str, Any]:
        """The curve: a row for each lambda, with its metrics."""
        curve = {name: _numbers(values) for name, values in self.curve.items()}
        return {"lambda": self.lams.tolist(), **curve}

    def chosen(self) -> dict[str, Any]:
        """For JSON: how lambda was chosen, and what it gains."""
        return {"choice": self.choice, "gain": {name: one.to_dict() for name, one in self.gain.items()}}

    def counted(self, lam: float | None = None) -> dict[str, Any] | None:
        """For JSON: what is predicted of each class as the scores are, and at a lambda (the chosen one).

        None where the curve has no such lambda.
        """
        at = np.flatnonzero(self.lams == (self.lam if lam is None else lam))
        if not at.size:
            return None
        counts = Counts(self.counts.hits[at[0]], self.counts.predicted[at[0]], self.counts.support)
        return counts.told(self.plain)

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        return {
            "lambda": self.lam,
            "plateau": list(self.plateau),
            "metric": self.metric,
            "n": self.n,
            "n_ignored": self.n_ignored,
            "n_classes": self.n_classes,
            "source_prior": self.calibration.source_prior.to_dict(),
            "target_prior": self.calibration.target_prior.to_dict(),
            "baseline": self.baseline,
            **({} if self.masked is None else {"masked": self.masked}),
            "rebalanced": self.rebalanced,
            "best": self.best,
            **({} if self.offsets is None else {"offsets": self.offsets.to_dict()}),
            **self.chosen(),
            "curve": {"lambda": self.lams.tolist(), **{name: _numbers(v) for name, v in self.curve.items()}},
            "counts": self.counted(),
            "folds": None if self.folds is None else self.folds.to_dict(self.best),
            "groups": self.groups,
            "modalities": self.modalities,
            "required": [one.to_dict() for one in self.met],
            **self.details,
            "notes": list(self.notes),
            "warnings": self.warnings,
            "calibration": self.calibration.to_dict(),
        }


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _infeasible(problem: Problem, curve: Curve, folds: Sequence[int] | None) -> DataError:
    """No lambda meets the constraints: show how close each comes."""
    parts = []
    for constraint in problem.asked.constraints:
        values = problem.values(curve, constraint.metric, folds)
        if np.isnan(values).all():
            parts.append(f"{constraint.metric.name} has no value here")
            continue
        reach = np.nanmax(values) if ">" in constraint.comparison else np.nanmin(values)
        lam = curve.lams[int(np.nanargmax(values == reach))]
        parts.append(
            f"{constraint.metric.name} reaches {reach:.6g} (at lambda {lam:g}){_bound_of(problem, constraint, folds)}"
        )
    wanted = " and ".join(map(str, problem.asked.constraints))
    if folds is not None:
        wanted += f" on folds {', '.join(map(str, folds))}"
    return DataError(
        "--subject-to",
        f"no lambda in [{curve.lams[0]:g}, {curve.lams[-1]:g}] meets {wanted}",
        f"best reachable: {', '.join(parts)}",
    )


def _bound_of(problem: Problem, constraint: Constraint, folds: Sequence[int] | None) -> str:
    """What a bound means, where that is not what is written."""
    if not constraint.relative:
        above = constraint.value > 1 and ">" in constraint.comparison and constraint.metric.PERCENT
        return f"; metrics are fractions: {constraint.value / 100:g} for {constraint.value:g} %" if above else ""
    assert problem.base is not None
    base = problem.values(problem.base, constraint.metric, folds)[0]
    return f", and base, the scores as they are, is {base:.6g}"


def _choose(problem: Problem, found: Found, folds: Sequence[int] | None = None) -> Plateau:
    values = problem.objective(found.curve, folds)
    if not found.curve.counts.support.any():
        assert problem.units is not None
        raise no_labels(problem.data, problem.units.n_ignored)
    if not np.isfinite(values).any():
        if not np.isfinite(problem.values(found.curve, problem.goal, folds)).any():
            none = f"{problem.goal.name}, which has no finite value at any lambda that was looked at"
            raise DataError("--metric", none, "expected units that it is for, and no label of probability zero")
        raise _infeasible(problem, found.curve, folds)
    if found.choice is not None:
        chosen = found.choice if folds is None else int(np.argmax(values))
        return Plateau(chosen, chosen, chosen, float(values[chosen]))
    return best_plateau(values, found.curve.lams)


def _anchored(problem: Problem, found: Found, folds: Sequence[int] | None = None) -> Plateau:
    """The best plateau; but lambda stays 0 where no other is better, or the priors hold no information about it."""
    best = _choose(problem, found, folds)
    zero = np.flatnonzero(found.curve.lams == 0.0)
    if not zero.size:
        return best
    values, place = problem.objective(found.curve, folds), int(zero[0])
    nothing_gained = found.choice is None and values[place] == best.value
    stays = np.isfinite(values[place]) and (problem.slopes.faint or nothing_gained)
    return run_of(values, place) if stays else best


def _by_anchor(problem: Problem, found: Found) -> bool:
    """Whether lambda is chosen by the anchored one-SE rule: Algorithm 2 chooses by itself, and so do faint slopes."""
    return problem.anchored and found.choice is None and not problem.slopes.faint


def _pick(problem: Problem, found: Found, folds: Sequence[int] | None = None) -> Plateau:
    """The point to take, and the run of equal values around it."""
    if not _by_anchor(problem, found):
        return _anchored(problem, found, folds)
    _choose(problem, found, folds)  # refuses what cannot be chosen from
    return run_of(problem.objective(found.curve, folds), _choice(problem, found, folds).index)


def _choice(problem: Problem, found: Found, folds: Sequence[int] | None = None) -> Choice:
    """By the anchored one-SE rule."""
    sampled = problem.along(found.curve.lams)
    assert sampled is not None
    values = problem.objective(found.curve, folds)
    return sampled.choose(problem.goal, found.curve.pooled(folds), values, folds)


def _search(
    problem: Problem, lattice: Lattice, name: str, explicit: bool, notes: Notes
) -> Steps[tuple[Found, Plateau, int]]:
    """Search, and let a default range grow while the best value sits on its upper end. Returns reads, too."""
    search = find_method(name)
    found = yield from search(problem, lattice)
    plateau = _choose(problem, found)
    reads = found.reads
    if found.choice is not None:
        if not np.isfinite(plateau.value):
            raise _infeasible(problem, found.curve.take([found.choice]), None)
        if explicit and found.curve.lams[-1] > float(lattice.stop):
            notes.add(f"Algorithm 2 moves its upper end: it looked beyond the range {lattice}")
        return found, _pick(problem, found), reads
    grows = not explicit and not problem.slopes.faint
    while grows and plateau.last == lattice.size - 1 and plateau.first > 0:
        wider = lattice.extended()
        if wider is None:
            break
        more = yield from search(problem, wider)
        reads += more.reads
        better = _choose(problem, more)
        if not better.value > plateau.value:
            break
        notes.add(f"the best value sat on the end of the range {lattice}: extended to {wider}")
        found, plateau, lattice = more, better, wider
    picked = _pick(problem, found)
    told = plateau if _by_anchor(problem, found) else picked
    if not (problem.goal.HIGHER and told.value >= 1 - 1e-12):  # no metric is more
        _tell_ends(told, lattice, notes)
    return found, picked, reads


def _tell_ends(best: Plateau, lattice: Lattice, notes: Notes) -> None:
    """Say that the range may be too narrow."""
    if best.first == 0 and best.last == lattice.size - 1:
        return
    upper, lower = best.last == lattice.size - 1, best.first == 0 and lattice.start != 0
    ends = [name for name, touched in (("upper", upper), ("lower", lower)) if touched]
    if ends:
        notes.add(
            f"the best value touches the {' and '.join(ends)} end of the range {lattice}: "
            "a wider --range may find a better one"
        )


def _tuned(
    problem: Problem, found: Found, search: Callable[[Complement, Lattice], Steps[Found]], lattice: Lattice,
    folds: Sequence[int], kept: dict[float, Curve],
) -> Steps[tuple[Curve, int]]:  # fmt: skip
    """A curve, and the place on it that these folds alone lead to."""
    if found.choice is None:
        return found.curve, _pick(problem, found, folds).middle
    own = yield from search(Complement(problem, tuple(folds), kept), lattice)
    values = problem.objective(own.curve, folds)
    assert own.choice is not None
    if not np.isfinite(values[own.choice]):
        raise _infeasible(problem, own.curve, folds)
    zero = int(np.flatnonzero(own.curve.lams == 0.0)[0])
    return own.curve, zero if problem.slopes.faint and np.isfinite(values[zero]) else own.choice


def _tune(problem: Problem, found: Found, lattice: Lattice, method: str) -> Steps[tuple[list[tuple[Curve, int]], int]]:
    """What all folds but one lead to, for each; strategies that do not look everywhere read on: how often, too."""
    k = 0 if problem.folds is None else problem.folds.n_folds
    search, support = find_method(method), found.curve.counts.support
    kept = {} if found.choice is None else {
        float(lam): found.curve.take([i]) for i, lam in enumerate(found.curve.lams)
    }  # fmt: skip
    counted, tuned = len(kept), []
    for fold in range(k):
        others = [i for i in range(k) if i != fold]
        if not support[fold].any() or not support[others].any():
            raise DataError(
                problem.data.name,
                f"fold {fold} of {k} or its complement has no labelled unit",
                "expected labelled units in each fold, and outside it",
            )
        tuned.append((yield from _tuned(problem, found, search, lattice, others, kept)))
    return tuned, len(kept) - counted


def _tested(problem: Problem, tuned: Sequence[tuple[Curve, int]]) -> Folds | None:
    """Each fold at what the others lead to."""
    if problem.folds is None:
        return None
    assert problem.base is not None
    points = [(fold, curve.take([index])) for fold, (curve, index) in enumerate(tuned)]
    after = [curve.pooled([fold]).counts for fold, curve in points]
    masked = [problem.masked([fold]) for fold, _ in points]
    before = problem.base.pooled().counts
    return Folds(
        k=problem.folds.n_folds,
        seed=problem.folds.seed,
        unit="images" if problem.data.has_images else "samples",
        lams=tuple(float(curve.lams[0]) for _, curve in points),
        tested=tuple(problem.metrics(curve, 0, [fold]) for fold, curve in points),
        baseline=tuple(problem.metrics(problem.base, 0, [fold]) for fold, _ in points),
        pooled_before=before[0],
        pooled_after=Counts(
            np.sum([c.hits[0] for c in after], 0),
            np.sum([c.predicted[0] for c in after], 0),
            np.sum([c.support[0] for c in after], 0),
        ),
        masked=tuple(one for one in masked if one is not None) or None,
    )


_CHOOSING = ("range", "step", "method", "choose", "subject_to", "folds", "seed", "per_modality")
"""Options that say how lambda is chosen."""


def _check_choosing(chosen: SearchOptions, several: bool) -> None:
    """Refuse options that say how lambda is chosen where it is given, or without what they are for."""
    for option in [] if chosen["lam"] is None else given_flags(SearchOptions, chosen, _CHOOSING):
        raise UsageError(option, f"{option} beside --lambda", "expected one of them: with --lambda nothing is chosen")
    if chosen["seed"] is not None and chosen["folds"] is None:
        raise UsageError("--seed", "a seed without folds", "expected --folds, which it is for")
    if chosen["by"] is not None and chosen["folds"] is not None:
        raise UsageError("--by", "--by beside --folds", "expected one of them")
    if chosen["per_modality"] and not several:
        raise UsageError("--per-modality", "one modality", "expected inputs like rgb=FILE depth=FILE")


def _check_single(chosen: SearchOptions, lattice: str) -> None:
    """Refuse options that tune lambda, beside a range of one."""
    for option in given_flags(SearchOptions, chosen, ("folds", "per_modality", "choose")):
        raise UsageError(option, f"{option} beside --range {lattice}", "expected a range to choose lambda in")


def _check_outputs(chosen: SearchOptions, data: DataSet) -> Steps[tuple[str | None, str | None, str | None]]:
    """Where the calibration, the curve and the page are written, if that can be done."""
    places = {"--output": output_path(chosen["output"]), "--curve": output_path(chosen["curve_output"])}
    places["--page"] = page_name(chosen["page"], "--page")
    if chosen["force"] and not any(path is not None for path in places.values()):
        found = "--force without --output, --curve or --page"
        raise UsageError("--force", found, "expected an output that it may replace")
    priors = (chosen["source_prior"], chosen["target_prior"])
    named = files_among(*priors, chosen["calibration"], chosen["delta"], chosen["offsets"])
    taken: dict[str, str] = {}
    for option, path in places.items():
        if path is not None:
            other = taken.setdefault(os.path.realpath(path), option)
            if other != option:
                raise UsageError(option, f"{path}, which is {other} too", "expected two names")
            inputs = (*(source.name for source in data.all_sources), *named)
            yield from check_output(path, force=chosen["force"], inputs=inputs)
    return places["--output"], places["--curve"], places["--page"]


def _lattice(
    given: str | Sequence[float] | None, step: str | float | None, method: str | None, choose: str, goal: Metric
) -> Lattice:
    """The lambdas to look at; Algorithm 2 has a step of its own."""
    default = COARSE_STEP if method is not None and method.startswith("paper") else DEFAULT_STEP
    wide = choose == "anchored" and goal.has_errors
    usual = (HITS_RANGE if goal.HITS_ALONE else PRECISION_RANGE) if wide else DEFAULT_RANGE
    return Lattice.parse(usual if given is None else given, None if step is None else str(step), default)


def _rule(choose: str | None, method: str | None) -> tuple[str, str | None]:
    """How lambda is chosen, and the method that goes with it."""
    by_paper = method is not None and method.startswith("paper")
    if choose is not None and choose not in CHOOSE:
        raise UsageError("--choose", f"{choose!r}", f"expected one of {', '.join(CHOOSE)}")
    if choose is None:
        return ("paper" if by_paper else "anchored"), method
    if choose == "paper":
        if method is not None and not by_paper:
            raise UsageError("--choose", f"paper beside --method {method}", "expected one of them")
        return choose, method or "paper"
    if by_paper:
        raise UsageError("--choose", f"{choose} beside --method {method}", "expected one of them")
    return choose, method


def _anchors(rule: str, lattice: Lattice, asked: Asked) -> bool:
    """Whether the anchored rule chooses: of metrics of probabilities, no standard error is known."""
    assert asked.goal is not None
    return rule == "anchored" and lattice.size > 1 and asked.goal.has_errors


def _check_options(method: str | None, folds: int | None) -> None:
    """Refuse options that make no sense."""
    if method is not None and method not in METHODS:
        raise UsageError("--method", f"{method!r}", f"expected one of {', '.join(METHODS)}")
    if folds is not None and folds < 2:
        raise UsageError("--folds", str(folds), "expected at least 2")
    if folds is not None and folds > MOST_FOLDS:
        raise UsageError("--folds", str(folds), f"expected at most {MOST_FOLDS}")


SubjectToOption: TypeAlias = Annotated[
    str | None,
    Option(
        "--subject-to",
        "TEXT",
        "Constraints joined by and, such as 'recall[melanoma]>=0.8 and acc>=base-0.005'; base is the value of the "
        "scores as they are.",
    ),
]


class CurveOptions(CalibrationOptions, ScoreOptions, DataOptions, total=False):
    """Which curve is counted, and how lambda is chosen of it."""

    metric: Annotated[
        str,
        Option(
            "--metric",
            "METRIC",
            "What to maximise: macc (mean class, or balanced, accuracy), acc, miou, f1 (macro), topN (top5), or "
            "another of --metrics; what is better when it is less (nll, ece) is minimised, by grid.",
            default="macc",
            values=("<metric>",),
        ),
    ]
    range: Annotated[
        str | Sequence[float] | None,
        Option(
            "--range",
            "A:B[:STEP]",
            "Lambdas to look at; A:A is one. Default: 0:6, or -1:6 for metrics that tell wrong predictions apart, or "
            "classes (0:2 for --choose best and metrics of scores), grown to 16 at most while the best value sits on "
            "its upper end.",
            takes="(A, B), (A, B, STEP) or str",
        ),
    ]
    step: Annotated[
        str | float | None, Option("--step", "STEP", "Lattice step. Default: 0.01; 0.1 for paper.", rare=True)
    ]
    method: Annotated[
        str | None,
        Option(
            "--method",
            "METHOD",
            "path (exact, one read for all lambdas; the default where scores are lines in lambda), grid (each "
            "lambda plainly, in one read; the default for noisy-or, average and max), paper (Algorithm 2, repaired), "
            "paper-printed (Algorithm 2 by its text).",
            values=("path", "grid", "paper", "paper-printed"),
        ),
    ]
    choose: Annotated[
        str | None,
        Option(
            "--choose",
            "RULE",
            "anchored (of the lambdas as good as the best within one standard error, the one nearest to what the "
            "probabilities say; the default), best (the middle of the widest best run), or paper (Algorithm 2).",
            values=("anchored", "best", "paper"),
        ),
    ]
    cluster: ClusterOption
    subject_to: SubjectToOption
    metrics: MetricsOption
    shots: ShotsOption
    by: Annotated[
        str | None,
        Option(
            "--by", "WHAT", "Also report each group (the files' group field), or each file.", values=("group", "file")
        ),
    ]
    per_modality: Annotated[
        bool, Option("--per-modality", None, "First find each modality's own lambda, then one factor of all of them.")
    ]
    absent: AbsentOption
    strict: StrictOption


class SearchOptions(CurveOptions, total=False):
    """Options of `search_lambda`."""

    lam: Annotated[
        Any,
        Option(
            "--lambda -l",
            "L",
            "Search nothing: measure this lambda, and write its calibration (-o); rgb=0.3,depth=0.6 for each modality.",
            many=True,
            takes="number, str or mapping by modality",
        ),
    ]
    require: RequireOption
    folds: Annotated[
        int | None, Option("--folds", "K", "Cross-validate too: tune on K-1 folds, test on the one held out.")
    ]
    seed: Annotated[int | None, Option("--seed", "N", "Of the folds. Default: 0.")]
    output: Annotated[
        str | os.PathLike[str] | None,
        Option("--output -o", "FILE", "Write the calibration (JSON) for --calibration.", says="where"),
    ]
    curve_output: Annotated[
        str | os.PathLike[str] | None, Option("--curve", "FILE", "Write the curve as TSV.", says="where")
    ]
    page: PageOption
    force: ForceOption


def search_lambda(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[SearchOptions],
) -> Steps[SearchResult]:
    """Find the lambda of Eq. 7 that serves a metric best on labelled data.

    Parameters
    ----------
    inputs : path, sequence of paths, (N, K), (N, K, H, W) array, or mapping of these by modality
        Logits files (``FILE`` or ``FILE::GROUP``; several are one data set), or scores in memory; of several
        modalities ``NAME=FILE``, or a mapping.
    labels : (N,) or (N, H, W) integers, optional
        With scores in memory.
    **options : Unpack[SearchOptions]
        See `SearchOptions`.

    Returns
    -------
    SearchResult

    Raises
    ------
    UnoicError
        Bad input, constraints that no lambda meets, or an output that cannot be written.

    Notes
    -----
    With ``method="path"`` the counts at every lattice point equal those of float64
    ``argmax(delta * z + lambda * s)`` with ties to the lowest class, and take one read of the data.

    Examples
    --------
    >>> from unoic_cli import search_lambda
    >>> import numpy as np
    >>> scores = np.array([[2.0, 1.5], [2.0, 0.0], [1.0, 0.0], [0.2, 1.0]], dtype=np.float32)
    >>> result = search_lambda(scores, [1, 0, 0, 1], source_prior=[3, 1])
    >>> result.baseline["macc"], result.best["macc"], round(result.lam, 2)
    (0.75, 1.0, 0.65)
    """
    result, _ = yield from searched(inputs, labels, options)
    return result


def searched(
    inputs: Inputs, labels: ArrayLike | None, options: Mapping[str, Any], *, keep: bool = False,
    why: str = "to search lambda",
) -> Steps[tuple[SearchResult, Along | None]]:  # fmt: skip
    """What `search_lambda` finds and, where it is to be kept or shown on a page, what was counted at every lambda.

    `why` is what labels are needed for.
    """
    chosen = filled(SearchOptions, options)
    notes, lam, folds, subject_to = Notes(chosen["tell"]), chosen["lam"], chosen["folds"], chosen["subject_to"]
    method, explicit = chosen["method"], chosen["range"] is not None
    page_name(chosen["page"], "--page")
    data = yield from open_inputs(inputs, labels, chosen, notes)
    _check_options(method, folds)
    asked = ask(
        chosen["metrics"], data, chosen["absent"], chosen["shots"], metric=chosen["metric"], subject_to=subject_to,
        require=chosen["require"],
    )  # fmt: skip
    for one in asked.required:
        if one.of != "value" and not one.metric.has_errors:
            found = f"{one}, a gain that no search knows without its optimism"
            raise UsageError("--require", found, "expected that of a metric of predictions, or unoic evaluate")
    _check_choosing(chosen, several=bool(data.beside))
    rule, method = _rule(chosen["choose"], method)
    assert asked.goal is not None
    if chosen["choose"] == "anchored" and not asked.goal.has_errors:
        found = f"anchored for {asked.goal.name}, whose standard error is not known"
        raise UsageError("--choose", found, "expected best, or a metric of predictions")
    lattice = _lattice(chosen["range"], chosen["step"], method, rule, asked.goal)
    clusters = clusters_of(chosen["cluster"], data)
    if lattice.size == 1:
        _check_single(chosen, str(lattice))
    output, curve_output, page = yield from _check_outputs(chosen, data)
    data.require_scores()
    data.require("labels", why)
    wanted = filled(MethodOptions, chosen)
    if wanted["calibration"] is not None:
        wanted["lam"] = None
    fits_offsets = asks_for_fit(chosen)
    if fits_offsets:
        wanted["offsets"] = None
        _check_fits_offsets(chosen)
    resolved = yield from resolve(wanted, data, chosen, notes, lam=1.0)
    assert resolved is not None
    if lam is not None:
        resolved = replace(resolved, calibration=(yield from at_lambda(resolved.calibration, lam, "--lambda")))
        lattice = Lattice.single(resolved.calibration.lam)
    asked = with_training(asked, data, resolved.calibration)
    if keep and chosen["by"] == IMAGE:
        tables = image_tables(data, asked, lattice, notes)
    else:
        tables = yield from make_tables(data, chosen["by"], (IMAGE,) if keep else ())
    apart = None
    if chosen["per_modality"]:
        apart_by = clusters if rule == "anchored" else None
        resolved, apart = yield from _search_apart(resolved, data, asked, lattice, explicit, chosen, apart_by)
        if not any(modality.share for modality in resolved.calibration.modalities):
            notes.add("each modality alone is served best by lambda = 0: there is nothing to refine")
    ready = yield from make_decider(resolved.calibration, data, resolved.factors)
    method = _check_method(method, ready, asked, data, lattice)
    folding = Folding(folds, chosen["seed"] or 0) if folds else None
    problem = Problem(
        data, ready, asked, folding, chosen, tables, clusters=clusters, anchored=_anchors(rule, lattice, asked)
    )
    given = "--lambda" if lam is not None else "--range" if lattice.size == 1 else None
    if given is None:
        tell_splits(data, notes)
    if fits_offsets:
        check_fit(problem)
    result, curve = yield from _solve(problem, lattice, method, explicit, notes, subject_to, apart, given)
    if fits_offsets:
        result = yield from with_offsets(result, problem, resolved, notes)
    notes.settle(chosen["strict"], data.name)
    if output is not None:
        yield from write_json(output, result.calibration.to_dict())
    if curve_output is not None:
        yield from write_text(curve_output, curve_tsv(result))
    along = Along.of_curve(problem, curve) if keep or page is not None else None
    if page is not None and along is not None:
        tab = paged.of_search(result.to_dict(), along, result.calibration, about_lambda(result))
        yield from write_bytes(page, paged.page([tab], paged.command_line(NAME, inputs, SearchOptions, chosen)))
    return result, along


def _check_fits_offsets(chosen: SearchOptions) -> None:
    """Refuse options that say nothing of offsets that are fitted."""
    for option in given_flags(SearchOptions, chosen, ("lam", "calibration", "subject_to", "by", "per_modality")):
        raise UsageError("--offsets", f"fit beside {option}", "expected one of them")


def with_offsets(result: SearchResult, problem: Problem, resolved: Resolved, notes: Notes) -> Steps[SearchResult]:
    """The result with offsets fitted beside its lambda."""
    index = int(np.flatnonzero(result.lams == result.lam)[0])
    made, offsets = yield from add_offsets(problem, resolved, result.lams, index, result.calibration, notes)
    return replace(result, calibration=made, offsets=offsets, notes=tuple(notes.texts), warnings=notes.told())


def search_prepared(
    data: DataSet, resolved: Resolved, metric: str, folds: int, absent: Absent, options: DataOptions, notes: Notes,
    fits_offsets: bool = False,
) -> Steps[SearchResult]:  # fmt: skip
    """The default search, cross-validated, for options that are resolved already."""
    asked = with_training(ask(None, data, absent, metric=metric), data, resolved.calibration)
    assert asked.goal is not None
    lattice = _lattice(None, None, None, "anchored", asked.goal)
    ready = yield from make_decider(resolved.calibration, data, resolved.factors)
    method = _check_method(None, ready, asked, data, lattice)
    clusters = clusters_of(None, data)
    problem = Problem(
        data, ready, asked, Folding(folds, 0), options, clusters=clusters, anchored=_anchors("anchored", lattice, asked)
    )
    tell_splits(data, notes)
    if fits_offsets:
        check_fit(problem)
    result, _ = yield from _solve(problem, lattice, method, False, notes, None, None, None)
    return (yield from with_offsets(result, problem, resolved, notes)) if fits_offsets else result


def _solve(
    problem: Problem, lattice: Lattice, method: str, explicit: bool, notes: Notes, subject_to: str | None,
    apart: dict[str, dict[str, Any]] | None, given: str | None,
) -> Steps[tuple[SearchResult, Curve]]:  # fmt: skip
    """Search, choose, and put the result together; beside it the curve of all tables."""
    found, plateau, reads = yield from _search(problem, lattice, method, explicit, notes)
    for text in found.notes:
        notes.add(text)
    _tell_choice(problem, found, plateau, notes)
    if given is None:
        tell_harm(problem, found.curve, plateau.middle, notes)
    tuned, more = yield from _tune(problem, found, lattice, method)
    own = _own_places(problem, found, plateau.middle)
    lams = [*(curve.lams[i] for curve, i in tuned), *found.curve.lams[[plateau.middle, *own.values()]]]
    reads += more + (yield from problem.measure(list(map(float, lams))))
    folds = _tested(problem, tuned)
    result = _result(problem, found, plateau, notes, reads, method, subject_to, apart, given, folds, own)
    return result, found.curve


def _check_method(method: str | None, ready: Decider, asked: Asked, data: DataSet, lattice: Lattice) -> str:
    """The search to use: what was asked for, if the fusion and the metrics allow it."""
    check_countable(asked, data, ready)
    if not ready.linear:
        if method == "path":
            raise UsageError("--method", f"path with {ready.how}", "expected grid, paper or paper-printed")
        return method or "grid"
    singly = [one for one in asked.deciding if one.recipe is not None and not one.recipe.on_path]
    if singly and method == "path":
        found = f"path with {singly[0].name}, which is measured at single lambdas"
        raise UsageError("--method", found, "expected grid, paper or paper-printed")
    if singly and lattice.size * data.n_classes > MOST_CELLS:
        found = f"{singly[0].name} at {lattice.size:,} lambdas of {data.n_classes:,} classes"
        raise UsageError("--metric", found, "expected fewer lambdas (--range, --step), or a metric of predictions")
    return method or ("grid" if singly else "path")


def _search_apart(
    resolved: Resolved,
    data: DataSet,
    asked: Asked,
    lattice: Lattice,
    explicit: bool,
    options: DataOptions,
    clusters: str | None,
) -> Steps[tuple[Resolved, dict[str, dict[str, Any]]]]:
    """Each modality's own lambda by the exact path, as its share of the common one."""
    calibration = resolved.calibration
    modalities, found = [], {}
    for place, modality in enumerate(calibration.modalities):
        alone = replace(calibration, modalities=(replace(modality, share=1.0),), fusion=None, weights=None)
        ready = yield from make_decider(alone, data, resolved.factors, [place])
        anchored = clusters is not None and _anchors("anchored", lattice, asked)
        problem = Problem(data, ready, asked, None, options, clusters=clusters, anchored=anchored)
        method = _check_method(None, ready, asked, data, lattice)
        searched, plateau, _ = yield from _search(problem, lattice, method, explicit, Notes())
        assert problem.base is not None and modality.name is not None
        lam = float(searched.curve.lams[plateau.middle])
        yield from problem.measure([lam])
        modalities.append(replace(modality, share=lam))
        found[modality.name] = {
            "lambda": lam,
            "baseline": problem.metrics(problem.base, 0),
            **_apart(problem.masked()),
            "best": problem.metrics(searched.curve, plateau.middle),
        }
    shared = replace(calibration, lam=1.0, modalities=tuple(modalities))
    return replace(resolved, calibration=shared), found


def _apart(masked: dict[str, float] | None) -> dict[str, Any]:
    """What masking changes by itself, where it changes anything."""
    return {} if masked is None else {"masked": masked}


def _tell_choice(problem: Problem, found: Found, plateau: Plateau, notes: Notes) -> None:
    """Say what the curve does not tell, and what the choice costs."""
    curve, index, slopes = found.curve, plateau.middle, problem.slopes
    lam, n = float(curve.lams[index]), int(curve.counts.support.sum())
    anchored, values = _by_anchor(problem, found), problem.objective(curve)
    where = f": {lam:g} is nearest to what the probabilities say" if anchored else ""
    stays = ": it stays 0" if lam == 0 else where
    moved = problem.moved(curve, index)
    if slopes.flat or curve.lams.size == 1:
        pass  # that is said, or asked for
    elif plateau.first == 0 and plateau.last == curve.lams.size - 1:
        notes.add(f"the metric is the same at every lambda of the range, and tells nothing about lambda{stays}")
    elif slopes.faint and lam == 0:
        notes.add("priors that are nearly equal tell nothing about lambda: it stays 0")
    elif lam == 0 and found.choice is None and values[index] == values.max():
        notes.add("no lambda of the range is better than 0: it stays 0")
    elif lam == 0 and anchored:
        near = "nearest to what the probabilities say"
        notes.add(f"lambda 0 is as good as the best within one standard error, and {near}: it stays 0")
    elif moved is not None and 0 < moved <= FEW:
        which = f"value at lambda {lam:g}" if anchored else "best value"
        notes.add(
            f"the {which} differs from that at lambda 0 by {moved} of {n:,} units (net, class by class): "
            "so little tells next to nothing about lambda"
        )
    assert problem.base is not None
    goal = problem.goal
    mine, plain = problem.exactly(curve, goal)(index), problem.exactly(problem.base, goal)(0)
    worse = mine is not None and plain is not None and (mine < plain if goal.HIGHER else mine > plain)
    if mine is not None and plain is not None and worse and curve.lams.size > 1:
        how = "lower" if goal.HIGHER else "higher"
        notes.add(
            f"{goal.name} at lambda {lam:g} is {how} than that of the scores as they are "
            f"({float(mine):.4f} instead of {float(plain):.4f})"
        )
    counts = curve.pooled().counts
    tell_predictions(counts.predicted[index], counts.support[0], slopes.masked, lam, problem.data, notes)
    tell_labels(problem.base.pooled().at(0).counts, problem.data, notes)
    before, after = problem.base.pooled().at(0).counts, curve.pooled().at(index).counts
    tell_absent(before, after, problem.asked, problem.data, notes)
    tell_averaged(before, after, problem.asked, problem.data, notes)


def _result(
    problem: Problem, found: Found, plateau: Plateau, notes: Notes, reads: int, method: str,
    subject_to: str | None, apart: dict[str, dict[str, Any]] | None, given: str | None, folds: Folds | None,
    own: dict[int, int],
) -> SearchResult:  # fmt: skip
    """Put the result together."""
    curve, data, used, index = found.curve, problem.data, problem.decider.calibration, plateau.middle
    assert problem.base is not None and problem.anchors is not None and problem.units is not None
    lam, masked = float(curve.lams[index]), problem.masked()
    n = int(curve.counts.support.sum())
    more: dict[str, Any] = {
        "method": method,
        "given": given,
        "evaluations": found.evaluations,
        "reads": reads,
        "range": [float(curve.lams[0]), float(curve.lams[-1])],
        "subject_to": subject_to,
        "temperature": used.temperature if not data.beside else {m.name: m.temperature for m in used.modalities},
        "fusion": used.fusion,
        "order": used.order,
        "unseen": used.unseen,
        **problem.decider.masked_classes(),
        "absent": problem.asked.rules.absent,
        "absent_rule": ABSENT_RULES[problem.asked.rules.absent],
    }
    origin = provenance(data, problem.options, metric=problem.goal.name, **more, n=n)
    calibration = replace(used, lam=lam, provenance=origin, tuning=problem.tuning(curve, index))
    best, baseline = problem.metrics(curve, index), problem.metrics(problem.base, 0)
    gain = problem.gains(curve, index)
    tell_infinite(best, notes)
    return SearchResult(
        lam=lam,
        plateau=(float(curve.lams[plateau.first]), float(curve.lams[plateau.last])),
        metric=problem.goal.name,
        calibration=calibration,
        n=n,
        n_ignored=problem.units.n_ignored,
        n_classes=data.n_classes,
        baseline={"lambda": 0.0, **baseline},
        rebalanced={"lambda": 1.0, **problem.metrics(problem.anchors, 1)},
        best={"lambda": lam, **best},
        lams=curve.lams,
        curve=problem.curves(curve),
        counts=curve.pooled().counts,
        plain=problem.base.pooled().at(0).counts,
        folds=folds,
        notes=tuple(notes.texts),
        details={
            "files": origin["files"],
            "split": problem.options["split"],
            "ignore_index": list(problem.options["ignore_index"]),
            **more,
        },
        groups=None if problem.conditions is None else _by_condition(problem, found, index, own),
        modalities=apart,
        masked=None if masked is None else {"lambda": 0.0, **masked},
        metrics=problem.asked.names,
        gain=gain,
        met=met_by(problem.asked.required, best, baseline, gain),
        warnings=notes.told(),
        linear=problem.decider.linear,
        choice=_about_choice(problem, found, index, given),
    )


def _about_choice(problem: Problem, found: Found, index: int, given: str | None) -> dict[str, Any]:
    """How lambda was chosen, for JSON."""
    lams, sampled = found.curve.lams, problem.along(found.curve.lams)
    if sampled is None or given is not None:
        return {"rule": "given"} if given is not None else {}
    kept = {"clusters": problem.clusters, "kept": sampled.kept.n, "of": sampled.kept.seen}
    joint = sampled.joint
    fit = None if joint is None else {"a": joint.a, "fit": joint.lam, "se_fit": joint.se_lam, "mu": joint.mu}
    if not _by_anchor(problem, found):
        rule = "paper" if found.choice is not None else "stays" if problem.slopes.faint else "best"
        return {"rule": rule, **kept, **(fit or {})}
    choice = _choice(problem, found)
    ends = [float(lams[choice.first]), float(lams[choice.last])]
    places = {"anchor": float(lams[choice.anchor]), "best": float(lams[choice.best]), "interval": ends}
    return {"rule": "anchored", **places, "se": choice.se, **kept, **(fit or {})}


def _own_places(problem: Problem, found: Found, index: int) -> dict[int, int]:
    """Where on the curve each condition that has labels would be served best."""
    if problem.conditions is None:
        return {}
    places = {}
    for i in np.flatnonzero(found.curve.counts.support.any(axis=(1, 2))).tolist():
        reached = np.isfinite(problem.objective(found.curve, [i])).any()
        places[i] = _pick(problem, found, [i]).middle if reached else index
    return places


def _by_condition(problem: Problem, found: Found, index: int, places: dict[int, int]) -> dict[str, dict[str, Any]]:
    """What each condition has of the chosen lambda, and which would serve it best."""
    assert problem.conditions is not None and problem.base is not None
    curve = found.curve
    return {
        problem.conditions.names[i]: {
            "n": int(curve.counts.support[i].sum()),
            "baseline": problem.metrics(problem.base, 0, [i]),
            **_apart(problem.masked([i])),
            "best": problem.metrics(curve, index, [i]),
            "own_lambda": float(curve.lams[own]),
            "own_best": problem.metrics(curve, own, [i]),
        }
        for i, own in places.items()
    }


def about_lambda(result: SearchResult) -> str:
    """Which lambda was chosen, and why."""
    given, own, name = result.details.get("given"), result.own_lambdas, title(result.metric)
    lam = f"each modality's own, times {result.lam:g}" if own else f"{result.lam:g}"
    if given is not None:
        return f"{'for each modality' if own else lam}, as given ({given}): nothing was searched"
    choice = result.choice
    if choice.get("rule") == "anchored":
        low, high = choice["interval"]
        sure = "as good as any within one standard error" if result.metric in result.gain else "the best"
        good = f"{lam}: {_among(result)}{sure} ({low:g} to {high:g}) for {name}"
        return f"{good}, nearest to what the probabilities say ({choice['anchor']:g})"
    return f"{lam}, {_among(result)}{_why(result, name)}"


def _among(result: SearchResult) -> str:
    """Of which lambdas it is one, where constraints leave some out."""
    subject_to = result.details.get("subject_to")
    return f"of those with {subject_to}, " if subject_to else ""


def _why(result: SearchResult, name: str) -> str:
    """Why another rule than the anchored one takes its lambda."""
    if result.choice.get("rule") == "paper":
        return f"where Algorithm 2 ends for {name}"
    if result.choice.get("rule") == "stays":
        return "as the priors are nearly equal"
    low, high = result.plateau
    where = "none is better" if result.lam == 0 else "the middle of the best values"
    return f"{where} for {name} (equal from {low:g} to {high:g})"


def curve_tsv(result: SearchResult) -> str:
    """The curve as tab-separated values with a header line."""
    names = list(result.curve)
    lines = ["\t".join(["lambda", *names])]
    for i, lam in enumerate(result.lams.tolist()):
        lines.append("\t".join([repr(lam), *(repr(float(result.curve[name][i])) for name in names)]))
    return "\n".join(lines) + "\n"
