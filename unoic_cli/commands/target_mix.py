"""`prior --estimate`: the class mix of unlabelled data, from labelled data of the same network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.brief import brief
from unoic_cli.calibrations.prior import Prior
from unoic_cli.commands.sampled import Sampled
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.facts import know
from unoic_cli.data.steps import Pass, Steps, count_each
from unoic_cli.errors import DataError, UsageError, other_names
from unoic_cli.metrics import find
from unoic_cli.options import filled
from unoic_cli.resolve.asked import ask
from unoic_cli.resolve.common import (
    Notes,
    check_names_agree,
    class_list,
    no_labels,
    places_of,
    refuse_calibrated,
    tell_names,
)
from unoic_cli.resolve.decider import Decider, make_decider
from unoic_cli.resolve.modalities import match_modalities, resolve
from unoic_cli.resolve.options import DataOptions, MethodOptions
from unoic_cli.searches import Curve
from unoic_cli.searches.target import NO_LABEL_SHIFT, NO_SHIFT, STRENGTH, Estimate, Rows, estimate
from unoic_cli.tallies.decisions import DecisionTally
from unoic_cli.tallies.kept import Kept, KeptTally
from unoic_cli.tallies.labels import LabelTally
from unoic_cli.tallies.margins import margins

SCORES = ("calibration", "source_prior", "fusion", "weights", "delta", "delta_power")
"""Options that say how scores are made."""
HIGHEST = 6.0
STEPS = {True: 0.02, False: 0.1}
"""Of the lattice on which decisions are chosen for margins: of scores that are lines in lambda, and of others."""
FEW_CLUSTERS = 5
"""Images for each class: of fewer, their covariance is not known well."""


@dataclass(frozen=True)
class Estimated:
    """An estimate, and what it was made from.

    Attributes
    ----------
    found : Estimate
    mu : float
        Decisions whose margins are compared are those of z + mu s.
    counts : tuple of int
        (K,) labels.
    predicted : tuple of int
        (K,): how often each class is predicted of the unlabelled units, by the scores as they are.
    n_labelled, n_ignored, n_target : int
        Units.
    kept_labelled, kept_target : int
        Units that the estimate was made from.
    labelled_files : tuple of str
    """

    found: Estimate
    mu: float
    counts: tuple[int, ...]
    predicted: tuple[int, ...]
    n_labelled: int
    n_ignored: int
    n_target: int
    kept_labelled: int
    kept_target: int
    labelled_files: tuple[str, ...]

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = self.found
        fit, test, far, between = found.fit, found.test, found.distance, found.interval
        return {
            "adopted": found.reason is None,
            "reason": found.reason,
            "how": found.how,
            "estimate": found.mix.q.tolist(),
            "pi": found.pi.tolist(),
            "interval": {
                "middle": between.middle.tolist(),
                "lower": between.lower.tolist() if between.full else None,
                "upper": between.upper.tolist() if between.full else None,
                "sd": between.sd.tolist() if between.full else None,
            },
            "test": {"t2": test.t2, "df": test.df, "p": test.p, "rest": test.rest},
            "margins": {"mu": self.mu, "ks": far.ks, "n_eff": far.n_eff, "differ": far.fires},
            "fit": {
                "a": fit.a, "tau": fit.tau, "c": fit.centred.tolist(), "log_evidence": fit.log_evidence,
            },
            "iteration": {"steps": found.mix.steps, "converged": found.mix.converged},
            "predicted": list(self.predicted),
            "labels": list(self.counts),
            "n_labelled": self.n_labelled,
            "n_ignored": self.n_ignored,
            "n_target": self.n_target,
            "kept": {"labelled": self.kept_labelled, "target": self.kept_target},
            "labelled_files": list(self.labelled_files),
        }  # fmt: skip


def estimate_mix(
    labelled: DataSet, target: DataSet, how: str, wanted: Mapping[str, Any], options: DataOptions, notes: Notes
) -> Steps[Estimated]:
    """Estimate the mix of `target`, whose labels are not looked at.

    Parameters
    ----------
    labelled, target : DataSet
    how : {"map-em", "em", "bbse"}
    wanted : mapping
        What there is of `MethodOptions`: how scores are made and fused, and the source prior.
    options, notes

    Raises
    ------
    DataError
        Data that does not go together, or too little of it.
    """
    yield from _check(labelled, target, notes)
    ours, theirs = yield from _methods(labelled, target, wanted, options, notes)
    samples = [KeptTally.of(labelled, ours.view), KeptTally.of(target, theirs.view, labelled=False)]
    labels, decisions = LabelTally(labelled.n_classes), [_decisions(labelled, ours), _decisions(target, theirs)]
    yield from count_each(
        [
            Pass(labelled, [samples[0], decisions[0], labels], view=ours.view),
            Pass(target, [samples[1], decisions[1]], view=theirs.view),
        ]
    )
    kept, rest = samples[0].kept(), samples[1].kept()
    z, x = _scores(kept, ours), _scores(rest, theirs)
    _check_enough(kept, z, labels, labelled)
    _check_target(x, target)
    mu = _decided(kept, ours, labelled)
    rows = [
        Rows(one, margins(_scores(sample, decider, mu)), _clusters(sample))
        for one, sample, decider in ((z, kept, ours), (x, rest, theirs))
    ]
    found = estimate(rows[0], kept.labels, rows[1], _slopes(ours), how)
    _tell(found, kept, rest, rows, labels.counts, labelled, target, notes)
    return Estimated(
        found, mu, tuple(labels.counts.tolist()), tuple(decisions[1].counts.tolist()), int(labels.counts.sum()),
        labels.n_ignored, rest.seen, kept.n, rest.n, tuple(source.name for source in labelled.all_sources),
    )  # fmt: skip


def _check(labelled: DataSet, target: DataSet, notes: Notes) -> Steps[None]:
    """Refuse data that does not go together."""
    for data in (labelled, target):
        data.require_scores()
        for member in data.modalities:
            refuse_calibrated(member)
    labelled.require("labels", "to estimate a mix of other data (--labelled)")
    if (yield from know("the mix is of other data", lambda: _overlap(labelled, target))):
        raise UsageError(
            "--labelled", f"{labelled.name}, whose mix is to be estimated", "expected other data, labelled"
        )
    if labelled.n_classes != target.n_classes:
        raise DataError(
            target.name, f"{target.n_classes} classes", f"expected {labelled.n_classes}, as {labelled.name} has"
        )
    ours, theirs = labelled.class_names, target.class_names
    if ours and theirs and ours != theirs:
        raise DataError(f"{target.name}:class_names", other_names(theirs, ours), f"expected those of {labelled.name}")
    tell_names(labelled.name, ours, target.name, theirs, notes)


def _overlap(labelled: DataSet, target: DataSet) -> bool:
    """Whether labelled data holds some of what the mix is estimated of."""
    ours, theirs = (
        places_of([source for source in data.all_sources if source.format != "arrays"]) for data in (labelled, target)
    )
    return bool(ours & theirs) and (labelled.split is None or target.split in (None, labelled.split))


def _methods(
    labelled: DataSet, target: DataSet, wanted: Mapping[str, Any], options: DataOptions, notes: Notes
) -> Steps[tuple[Decider, Decider]]:
    """How scores of both are made: as the options say, nothing masked, with slopes to the uniform prior."""
    resolved = yield from resolve(filled(MethodOptions, wanted), labelled, options, notes, lam=1.0, tell=False)
    assert resolved is not None
    if resolved.factors:
        expected = "expected statistics (unoic fit-delta), fit, or what the files store"
        raise UsageError("--delta", "factors of the samples of one file, with two", expected)
    check_names_agree(("--calibration", resolved.calibration.class_names), (target.name, target.class_names))
    uniform = Prior.uniform(labelled.n_classes)
    made = replace(resolved.calibration, target_prior=uniform, unseen="floor", order="flatten-first")
    where = labelled.name if wanted["calibration"] is None else "--calibration"
    match_modalities(made, target, where)
    ours = yield from make_decider(made, labelled, {})
    theirs = yield from make_decider(made, target, {})
    return ours, theirs


def _decisions(data: DataSet, decider: Decider) -> DecisionTally:
    """Counts decisions where nothing is rebalanced; no class is masked in any case."""
    return DecisionTally(data.n_classes, None if decider.rule is None else decider.rule.as_is, data.has("labels"))


def _slopes(decider: Decider) -> NDArray[np.float64]:
    """Where offsets are expected, (K,): of fusions that are no lines, in the middle of those of the modalities."""
    if decider.rule is None:
        return decider.slopes.values
    weights = decider.rule.weights / decider.rule.weights.sum()
    return np.asarray(weights @ decider.rule.slopes)


def _scores(kept: Kept, decider: Decider, mu: float = 0.0) -> NDArray[np.float64]:
    """Scores of the units kept, rebalanced by mu, with a row maximum of 0, (n, K)."""
    if decider.rule is not None:
        scores = kept.posterior(decider.rule, mu)
    else:
        scores = kept.scores[:, 0].astype(np.float64) + mu * decider.slopes.values
    return np.asarray(scores - scores.max(axis=1, keepdims=True, initial=-np.inf)) if kept.n else scores


def _clusters(kept: Kept) -> NDArray[np.int64] | None:
    """Clusters of the units kept, where some have more than one."""
    return kept.clusters if np.unique(kept.clusters).size < kept.n else None


def _check_enough(kept: Kept, z: NDArray[np.float64], labels: LabelTally, data: DataSet) -> None:
    """Refuse labelled data from which no mix can be told."""
    n, n_classes = int(labels.counts.sum()), data.n_classes
    if n == 0:
        raise no_labels(data, labels.n_ignored)
    if kept.n < n_classes:
        of = "" if kept.complete else f" kept of {n:,}"
        found = f"{kept.n:,} labelled {'unit' if kept.n == 1 else 'units'}{of} for {n_classes:,} classes"
        raise DataError(data.name, found, "expected at least one for each class")
    if np.unique(kept.labels).size == 1:
        found = f"all {n:,} labels are {class_list([int(kept.labels[0])], data)}"
        raise DataError(data.name, found, "expected labels of two classes or more")
    _check_differ(z, data)
    own = z[np.arange(kept.n), kept.labels]
    if not np.isfinite(own).all():
        lost = int((~np.isfinite(own)).sum())
        found = f"{lost:,} labelled {'unit' if lost == 1 else 'units'} whose own class has probability zero"
        raise DataError(data.name, found, "expected positive probabilities, or logits")


def _check_target(x: NDArray[np.float64], data: DataSet) -> None:
    if len(x) < 2:
        raise DataError(
            data.name, f"{len(x)} {'unit' if len(x) == 1 else 'units'}", "expected two or more, to estimate a mix"
        )
    _check_differ(x, data)


def _check_differ(z: NDArray[np.float64], data: DataSet) -> None:
    if (z == z[0]).all():
        raise DataError(data.name, "the same scores for every unit", "expected scores that tell classes apart")


def _decided(kept: Kept, decider: Decider, data: DataSet) -> float:
    """The mu of the anchored rule for the mean class accuracy."""
    step = STEPS[decider.linear]
    lams = np.asarray(np.arange(round(HIGHEST / step) + 1) * step, np.float64)
    goal = find("macc", "--metric", data.n_classes, data.class_names)
    sampled = Sampled(kept, decider, ask(None, data, "reference", metric="macc"), lams, "anchored")
    tables = np.zeros(kept.n, dtype=np.int32)
    counts = sampled.trail.counts(kept.labels, lams.size, data.n_classes, tables, 1)
    counted = Curve(lams, counts).pooled()
    values = goal.values(counted, sampled.asked.rules)
    return float(lams[sampled.choose(goal, counted, np.asarray(values, np.float64), None).index])


def _tell(
    found: Estimate, kept: Kept, rest: Kept, rows: list[Rows], counts: NDArray[np.int64], labelled: DataSet,
    target: DataSet, notes: Notes,
) -> None:  # fmt: skip
    """Say what was decided, and what makes it less sure than it looks."""
    far, p = found.distance, found.test.p
    gap = f"the margins of {target.name} are not those of the labelled units (KS {far.ks:.3f})"
    if found.reason == NO_SHIFT:
        notes.add(f"{NO_SHIFT} (p = {p:.3g}): the prior is that of the labelled units")
        if far.fires:
            notes.add(f"{gap}, though no shift was found: it may be another domain")
    elif found.reason == NO_LABEL_SHIFT:
        notes.add(f"{NO_LABEL_SHIFT}: {gap}, weighted to the estimate; it is not adopted, and the prior is theirs")
    for sample, data in ((kept, labelled), (rest, target)):
        if not sample.complete:
            notes.add(f"{data.name}: a sample of {sample.n:,} of {sample.seen:,} units")
    absent = np.flatnonzero(counts == 0).tolist()
    if absent:
        noun = "class" if len(absent) == 1 else "classes"
        notes.add(
            f"{len(absent)} {noun} without a labelled unit: their estimates rest on the source prior, and on where the "
            f"other classes lie: {class_list(absent, labelled)}"
        )
    _tell_fit(found, rows, labelled, target, notes)


def _tell_fit(found: Estimate, rows: list[Rows], labelled: DataSet, target: DataSet, notes: Notes) -> None:
    if found.fit.at_bound:
        notes.add(
            f"the scores say nothing about the labels of {labelled.name}, or the contrary: their factor is "
            f"{found.fit.a:.3g}"
        )
    elif found.separated:
        notes.add(
            f"the fitted scores put every labelled unit into its class: their factor, {found.fit.a:.4g}, is bounded by "
            "its prior alone"
        )
    if not found.mix.converged:
        notes.add(f"the estimate had not settled after {found.mix.steps:,} steps")
    between, q = found.interval, found.mix.q
    if between.full and found.how == "map-em" and ((q < between.lower) | (between.upper < q)).any():
        notes.add(
            f"some estimates lie outside their intervals, which have hardly a prior: theirs counts the mix of "
            f"{labelled.name} as {STRENGTH:g} of the units of {target.name}, beside them"
        )
    if not between.full:
        notes.add(f"the units of {target.name} are too few, or too alike, for intervals")
    zeros = np.flatnonzero(found.mix.q == 0).tolist()
    if zeros:
        notes.add(
            f"the estimate has no share for {class_list(zeros, labelled)}: as a target prior, it is never predicted"
        )
    for one, data in zip(rows, (labelled, target), strict=True):
        if one.clusters is not None:
            n = np.unique(one.clusters).size
            if n < FEW_CLUSTERS * data.n_classes:
                notes.add(
                    f"{data.name}: pixels of an image are not independent, and from {n:,} images the test and the "
                    "intervals are rough"
                )
