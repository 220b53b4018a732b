"""Warnings before harm: what a search, or a calibration on other data, must not pass over in silence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.commands.problem import Problem, decision_of
from unoic_cli.commands.sampled import Gain
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.steps import Steps
from unoic_cli.metrics import is_better
from unoic_cli.resolve.common import Notes
from unoic_cli.resolve.decider import Decider, make_decider
from unoic_cli.resolve.modalities import Resolved
from unoic_cli.searches import Curve
from unoic_cli.searches.target import binned_distance
from unoic_cli.searches.warnings import (
    FEW_ROWS,
    FLATTER,
    LEAST_FLATTENED,
    flips_differ,
    prior_is_not_carried,
)
from unoic_cli.tallies.flattened import FlattenedTally
from unoic_cli.tallies.flips import FlipTally
from unoic_cli.tallies.kept import KeptTally
from unoic_cli.tallies.margins import MarginKeeper

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMED = 3
MUCH = 0.1
"""What a constraint lets a metric lose, from which on that is said: 10 points of percent may be meant as 0.1."""
LEAST_KNOWN = 0.9
"""Of data without labels, in classes that were met when lambda was tuned, for its margins to be compared."""


def tell_splits(data: DataSet, notes: Notes) -> None:
    """Warn of tuning on all splits of a file."""
    if data.may_mix_splits:
        text = "lambda is tuned on all splits of the input, test samples among them: restrict it with --split val"
        notes.warn("splits", text)


def tell_harm(problem: Problem, curve: Curve, index: int, notes: Notes) -> None:
    """W3 to W5 of a search."""
    sampled = problem.along(curve.lams)
    if sampled is None or problem.slopes.flat:
        return
    lam, joint = float(curve.lams[index]), sampled.joint
    told = problem.decider.linear and not (problem.slopes.faint or _shared(problem))
    temperature = problem.decider.calibration.modalities[0].temperature
    if joint is not None and told and prior_is_not_carried(joint, temperature):
        figures = {"fit": joint.lam, "se": joint.se_lam, "mu": joint.mu}
        notes.warn(
            "W3",
            f"the logits do not seem to carry the source prior (the likelihood calls for lambda {joint.lam:.2f} +- "
            f"{joint.se_lam:.2f}, not 1), as after training with reweighted or balanced batches: do not take "
            "lambda = 1, and check --source-prior",
            **figures,
        )
    gains = problem.gains(curve, index)
    _tell_bounds(problem, gains, notes)
    _tell_little(problem, curve, gains, lam, notes)
    _tell_price(problem, curve, index, gains, notes)


def _shared(problem: Problem) -> bool:
    """Whether modalities have lambdas of their own: the common one is then a factor of them."""
    return any(modality.share != 1.0 for modality in problem.decider.calibration.modalities)


def _tell_bounds(problem: Problem, gains: dict[str, Gain], notes: Notes) -> None:
    """Constraints that hold on this data, and not for units that lambda was not chosen on; and what they allow."""
    assert problem.base is not None
    before = problem.base.pooled().at(0)
    for one in problem.asked.constraints:
        gain, metric = gains.get(one.metric.name), one.metric
        if metric.PERCENT and one.allows >= MUCH:
            notes.add(
                f"{one} lets {metric.title} be {100 * one.allows:g} points of percent worse than it is: bounds are "
                "fractions (0.005, or 0.5%, is half a point)"
            )
        if gain is None or not math.isfinite(gain.se):
            continue
        bound = one.value if one.relative else one.value - float(metric.values(before, problem.asked.rules))
        if gain.gain < bound if ">" in one.comparison else gain.gain > bound:
            notes.add(
                f"{one} holds on this data; for units that lambda is not chosen on {metric.title} changes by "
                f"{gain.signed(metric.name)} (cross-fitted): to be sure, ask for more"
            )


def _tell_little(problem: Problem, curve: Curve, gains: dict[str, Gain], lam: float, notes: Notes) -> None:
    """W4: the labels hardly say which lambda is best."""
    support = problem.support
    few = np.flatnonzero((support > 0) & (support < FEW_ROWS)).tolist()
    own = gains.get(problem.goal.name)
    unsure = own is not None and lam != 0.0 and not (own.gain > 2 * own.se or own.high < 0)
    if not (few or unsure):
        return
    why = []
    if unsure and own is not None:
        what = "is not told from chance" if math.isfinite(own.se) else "has no standard error here"
        why.append(f"the gain in {problem.goal.title} {what} ({own.signed(problem.goal.name)})")
    if few:
        names = problem.data.class_names
        said = ", ".join(str(k) if names is None else names[k] for k in few[:_NAMED])
        more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
        why.append(f"fewer than {FEW_ROWS} labelled units of class {said}{more}")
    sampled = problem.along(curve.lams)
    by_fit = sampled is not None and problem.rule == "anchored" and curve.lams[sampled.anchor(problem.goal)] == lam
    rests = "It rests on what the probabilities say; m" if by_fit else "M"
    notes.warn(
        "W4",
        f"{'little information about lambda' if unsure else 'little is known of some classes'}: {'; '.join(why)}. "
        f"{rests if unsure else 'M'}ore labels help",
        classes=few,
        **({} if own is None else {name: own.to_dict()[name] for name in ("gain", "se")}),
    )


def _tell_price(problem: Problem, curve: Curve, index: int, gains: dict[str, Gain], notes: Notes) -> None:
    """W5: metrics that are surely lower, and the classes that lose most."""
    goal = problem.goal.name
    constrained = {one.metric.name for one in problem.asked.constraints}
    assert problem.base is not None
    before, after = problem.base.pooled().at(0), curve.pooled().at(index)
    lost = [
        one
        for one in problem.asked.metrics
        if one.name in gains
        and one.name not in constrained
        and (gains[one.name].high < 0 if one.HIGHER else gains[one.name].low > 0)
        and is_better(
            one.name, float(one.values(before, problem.asked.rules)), float(one.values(after, problem.asked.rules))
        )
    ]
    if not lost:
        return
    said = ", ".join(f"{one.title} {gains[one.name].signed(one.name)}" for one in lost)
    bound = " and ".join(f"{one.name}{'>' if one.HIGHER else '<'}=base" for one in lost if one.name != goal)
    way_out = f"; search-lambda --subject-to '{bound}' forbids it" if bound else "; the scores as they are do better"
    which = f"{'factor' if _shared(problem) else 'lambda'} {curve.lams[index]:g}"
    notes.warn(
        "W5",
        f"the price of {which}, cross-fitted: {said}{_losers(problem, curve, index)}{way_out}",
        **{one.name: gains[one.name].to_dict() for one in lost},
    )


def _losers(problem: Problem, curve: Curve, index: int) -> str:
    """The classes whose recall falls most."""
    assert problem.base is not None
    before, after = problem.base.pooled().at(0).counts, curve.pooled().at(index).counts
    support = np.maximum(after.support, 1)
    change = (after.hits - before.hits) / support
    worst = [int(k) for k in np.argsort(change, kind="stable")[:_NAMED] if change[k] < 0]
    if not worst:
        return ""
    names = problem.data.class_names
    said = ", ".join(f"{k if names is None else names[k]} {100 * change[k]:+.1f}" for k in worst)
    return f" (recall falls most of class {said})"


def flips_of(decider: Decider) -> FlipTally | None:
    """What counts the decisions that lambda changes, where it is remembered how many it changed when it was tuned."""
    calibration = decider.calibration
    if calibration.tuning is None or calibration.lam == 0:
        return None
    return FlipTally(decider.point(0.0), decider.rule)


def tell_flips(calibration: Calibration, flips: int, n: int, data: DataSet, notes: Notes) -> None:
    """W1: lambda changes many more, or fewer, of n decisions here than where it was tuned."""
    tuning = calibration.tuning
    if tuning is None or not n or not tuning.n:
        return
    tuned = round(tuning.flips * tuning.clusters / tuning.n), tuning.clusters
    there, here = tuning.flips / tuning.n, flips / n
    clusters = min(n, data.n_samples) if data.has_images else n
    if not flips_differ(tuned, (round(here * clusters), clusters)):
        return
    notes.warn(
        "W1",
        f"lambda {calibration.lam:g} changes {100 * here:.2g} % of these decisions, and changed {100 * there:.2g} % of "
        "those that it was tuned on: this data may differ in more than its class mix; check it on labelled units",
        tuned=there,
        here=here,
    )


def tell_before(decider: Decider, notes: Notes) -> None:
    """Say that fused scores "as they are" have their delta: what lambda alone changes is measured against them."""
    looks = decider.view.looks
    if len(looks) > 1 and any(look.statistics is not None or look.factors is not None for look in looks):
        notes.add("as it is: the fusion at lambda 0, with delta")


def flattened_of(decider: Decider) -> FlattenedTally | None:
    """What counts the units that are flattened as none was where delta was fitted, if lambda then weighs more."""
    calibration, view = decider.calibration, decider.view
    if calibration.lam == 0 or view.rebalance_first or decider.slopes.flat:
        return None
    least = [None if look.statistics is None else look.statistics.least for look in view.looks]
    bounds = tuple(0.0 if one is None else FLATTER * one for one in least)
    return FlattenedTally(bounds) if any(bounds) else None


def tell_flattened(decider: Decider, seen: FlattenedTally | None, data: DataSet, notes: Notes, of: str = "") -> None:
    """W6: delta is below all that lambda was tuned with, and delta z + lambda s is decided by lambda s more than there.

    Parameters
    ----------
    of : str
        The method, where there are several.
    """
    if seen is None:
        return
    calibration, said, figures = decider.calibration, list[str](), dict[str, Any]()
    units = "pixels" if data.has_images else "samples"
    for m, (modality, look) in enumerate(zip(calibration.modalities, decider.view.looks, strict=True)):
        if seen.share(m) < LEAST_FLATTENED or look.statistics is None:
            continue
        lam, mean, least = modality.share * calibration.lam, seen.mean(m), look.statistics.least
        like = f"{lam / mean:.2g}" if mean else "infinity"
        said.append(
            f"{modality.name or 'the scores'}, {100 * seen.share(m):.0f} % of the {units}: delta {mean:.2f}, and where "
            f"it was fitted never below {least:.2f}, so that lambda {lam:.4g} weighs like {like}"
        )
        figures[modality.name or "scores"] = {"share": seen.share(m), "delta": mean, "least": least}
    if not said:
        return
    whose = f"{of}: " if of else ""
    notes.warn(
        "W6",
        f"{whose}delta falls below all that its statistics were fitted on ({'; '.join(said)}): rare classes may "
        "swallow the rest; check it on labelled units, take a smaller lambda, or search again with "
        "--order rebalance-first",
        **({"method": of} if of else {}),
        modalities=figures,
    )


def margins_of(
    decider: Decider, resolved: Resolved, data: DataSet, by: str | None = None
) -> Steps[MarginKeeper | None]:  # fmt: skip
    """What looks at the margins of this data's decisions, where it is remembered how they were when it was tuned."""
    if resolved.tuned is not None:
        decider = yield from make_decider(resolved.tuned, data, resolved.factors)
    calibration = decider.calibration
    if calibration.tuning is None or not calibration.tuning.margins:
        return None
    scores = KeptTally.of(data, decider.view, by, labelled=data.has("labels"))
    return MarginKeeper.like(scores, decision_of(decider, calibration.lam))


def tell_margins(
    resolved: Resolved, seen: MarginKeeper | None, mix: NDArray[np.float64], of: str, notes: Notes
) -> None:  # fmt: skip
    """W2: decisions here are nearer to others, or further from them, than another mix of classes (K,) can explain."""
    tuning = (resolved.tuned or resolved.calibration).tuning
    if seen is None or tuning is None:
        return
    tuned = tuning.binned()
    known = tuned.sum(axis=1) > 0
    counts, clusters = seen.binned(known)
    here = counts.astype(np.float64)
    if here.sum() < 2 or (not seen.labelled and mix[known].sum() < LEAST_KNOWN * mix.sum()) or not mix[known].any():
        return
    mix = np.where(known, mix, 0.0)
    far = binned_distance(tuned, mix / mix.sum(), here, (tuning.clusters / tuning.n, clusters / here.sum()))
    if not far.fires:
        return
    notes.warn(
        "W2",
        f"the margins of these decisions are not those of the data that lambda was tuned on, weighted to {of} (KS "
        f"{far.ks:.2f}): this data differs in more than its class mix; check lambda on labelled units of it",
        ks=far.ks,
        n_eff=far.n_eff,
    )
