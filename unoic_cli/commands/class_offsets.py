"""Offsets that are fitted: a bias of each class beside lambda, for data with enough labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.brief import brief
from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.commands.problem import Problem
from unoic_cli.commands.sampled import Gain, Sampled
from unoic_cli.data.steps import Steps, count
from unoic_cli.errors import DataError, UsageError
from unoic_cli.metrics import Counted
from unoic_cli.resolve.common import Notes, class_list
from unoic_cli.resolve.decider import make_decider
from unoic_cli.resolve.modalities import Resolved
from unoic_cli.searches import Curve
from unoic_cli.searches.bcts import OffsetsFit, fit_offsets
from unoic_cli.searches.joint import mix_of

FIT = "fit"
"""The word that asks for them."""
LEAST_ROWS = 20
"""Labelled units of each class: of fewer, offsets follow chance."""


@dataclass(frozen=True)
class FittedOffsets:
    """Offsets fitted beside lambda, and what they are worth.

    Attributes
    ----------
    fit : OffsetsFit
        BCTS-MAP: the factor and offsets of the likelihood.
    values : (K,) float64
        b_k of scores z + b + lambda * s: decisions are those of the mean of the fitted offsets and of lambda * s.
    best : dict
        Metrics with them.
    gain : dict of str to Gain
        Over the scores as they are, cross-fitted.
    crossed : Counted
        What was counted of the kept units, each predicted with what the other folds lead to.
    """

    fit: OffsetsFit
    values: NDArray[np.float64]
    best: dict[str, float]
    gain: dict[str, Gain]
    crossed: Counted

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tau": self.fit.tau,
            "a": self.fit.a,
            "fitted": self.fit.centred.tolist(),
            "offsets": self.values.tolist(),
            "best": self.best,
            "gain": {name: one.to_dict() for name, one in self.gain.items()},
        }


def asks_for_fit(chosen: Mapping[str, Any]) -> bool:
    """Whether offsets are to be fitted."""
    given = chosen["offsets"]
    one = given[0] if isinstance(given, (list, tuple)) and len(given) == 1 else given
    return isinstance(one, str) and one == FIT


def check_fit(problem: Problem) -> None:
    """Refuse what offsets cannot be fitted to.

    Raises
    ------
    UsageError, DataError
        Several modalities, scores that are no lines, masked classes; or a class of few labelled units.
    """
    if problem.data.beside or not problem.decider.linear:
        raise UsageError("--offsets", "fit, of several modalities or scores that are no lines", "expected one modality")
    if problem.decider.masks:
        raise UsageError("--offsets", "fit, beside classes that are never predicted", "expected --unseen floor")


def add_offsets(
    problem: Problem, resolved: Resolved, lams: NDArray[np.float64], index: int, calibration: Calibration, notes: Notes
) -> Steps[tuple[Calibration, FittedOffsets]]:
    """Fit offsets beside a chosen lambda; one more read counts what they are worth.

    Raises
    ------
    DataError
        A class of few labelled units.
    """
    support = problem.support
    few = np.flatnonzero(support < LEAST_ROWS)
    if few.size:
        found = f"{support[few[0]]} labelled units of class {class_list(few[:1].tolist(), problem.data)}"
        raise DataError(problem.data.name, found, f"expected at least {LEAST_ROWS} of each to fit offsets")
    sampled = problem.along(lams)
    assert sampled is not None
    mu = float(lams[index])
    fit, values = _fitted(sampled, mu, np.ones(sampled.kept.n, dtype=bool))
    given = calibration.modalities[0].offsets
    offsets = tuple((values if given is None else values + np.array(given)).tolist())
    made = replace(calibration, modalities=(replace(calibration.modalities[0], offsets=offsets),))
    ready = yield from make_decider(made, problem.data, resolved.factors)
    tally = ready.tally([made.lam])
    yield from count(problem.data, [tally], view=ready.view)
    after = Curve(np.array([made.lam]), tally.counts()).pooled().at(0)
    assert problem.base is not None
    before = problem.base.pooled().at(0)
    crossed = _crossed(problem, sampled, index)
    own = _decide(sampled, values, mu, slice(None)), sampled.plain.astype(np.int64)
    metrics = [one for one in problem.asked.metrics if one.recipe is None]
    gain = {one.name: sampled.worth(one, own, crossed, before, after) for one in metrics}
    best = {one.name: float(one.values(after, problem.asked.rules)) for one in metrics}
    notes.add(f"offsets fitted with tau {fit.tau:g}: decisions are of the mean of these and of lambda * s")
    return made, FittedOffsets(fit, values, best, gain, sampled.counted(crossed))


def _fitted(sampled: Sampled, mu: float, chosen: NDArray[np.bool_]) -> tuple[OffsetsFit, NDArray[np.float64]]:
    """BCTS-MAP of some units, and the offsets beside mu * s that average the two."""
    z = sampled.kept.scores[chosen, 0].astype(np.float64)
    labels = sampled.kept.labels[chosen]
    usable = np.isfinite(z[np.arange(len(z)), labels])
    z, labels = z[usable], labels[usable]
    z -= z.max(axis=1, keepdims=True)
    target = np.array(sampled.decider.calibration.target_prior.values)
    slopes = sampled.decider.slopes.values
    fit = fit_offsets(z, labels, mix_of(labels, z.shape[1]), slopes, target)
    values = (fit.centred / fit.a - mu * slopes) / 2
    return fit, np.asarray(values - values.mean())


def _decide(sampled: Sampled, offsets: NDArray[np.float64], mu: float, chosen: Any) -> NDArray[np.int64]:
    """Decisions of kept units with offsets beside mu * s."""
    scores = sampled.kept.scores[chosen, 0].astype(np.float64)
    return np.asarray((scores + offsets + mu * sampled.decider.slopes.values).argmax(axis=1))


def _crossed(problem: Problem, sampled: Sampled, index: int) -> NDArray[np.int64]:
    """Decisions of all kept units, each with the lambda and the offsets of the other folds."""
    found = np.empty(sampled.kept.n, dtype=np.int64)
    for fold, point in enumerate(sampled.fold_points(problem.goal, index)):
        out = sampled.folds == fold
        if not out.any() or out.all():
            found[out] = sampled.at(index)[out]
            continue
        mu = float(sampled.lams[point])
        found[out] = _decide(sampled, _fitted(sampled, mu, ~out)[1], mu, out)
    return found
