"""A calibration made ready for a data set: how its scores are made, and how they decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unoic_cli.calibrations.calibration import Calibration, Modality
from unoic_cli.calibrations.delta import FIXED_POINT, DeltaStatistics
from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.prior import Slopes
from unoic_cli.calibrations.rule import Rule, as_fused, joint_slopes, rule_of
from unoic_cli.calibrations.view import FactorSource, Look, SampleFactors, View
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.facts import Facts, know
from unoic_cli.data.steps import Steps, count
from unoic_cli.errors import DataError
from unoic_cli.fusions import DEFAULT, fusion
from unoic_cli.kernels.lines import Lines, make_point
from unoic_cli.tallies.entropy import EntropyTally
from unoic_cli.tallies.fused import FusedTally
from unoic_cli.tallies.points import PointTally


@dataclass(frozen=True)
class Decider:
    """A calibration made ready for a data set: what is counted, and from what.

    Attributes
    ----------
    calibration : Calibration
    view : View
        How the scores are made.
    rule : Rule or None
        Of fusions whose scores are no lines in lambda; None where they are.
    slopes : Slopes
        Of the lines, where they are.
    plain : Decider or None
        The scores as they are: of one modality the stored ones alone, of several their fusion as it is asked for; no
        class is masked, and nothing rebalanced. None where that is this decider at lambda = 0.
    """

    calibration: Calibration
    view: View
    rule: Rule | None
    slopes: Slopes
    plain: Decider | None = None

    @property
    def linear(self) -> bool:
        """Whether scores are lines in lambda."""
        return self.rule is None

    @property
    def how(self) -> str:
        """What makes scores something else than lines, for messages."""
        what = self.calibration.fusion or f"{self.calibration.order} and a delta"
        return f"{what}, whose scores are no lines in lambda"

    @property
    def masks(self) -> bool:
        """Whether a class of some modality is masked."""
        return bool((self.slopes.masked if self.rule is None else self.rule.masked).any())

    def masked_classes(self) -> dict[str, list[int]]:
        """For JSON: the classes that are never predicted, where there are any."""
        masked = np.flatnonzero(self.slopes.masked).tolist()
        return {"masked_classes": masked} if masked else {}

    def point(self, lam: float) -> Lines:
        """Kernel tables of one lambda."""
        return make_point(self.slopes.values, self.slopes.masked, lam)

    def tally(self, lams: Sequence[float], n_tables: int = 1, *, confusion: bool = False) -> Any:
        """A tally that counts at these lambdas."""
        if self.rule is not None:
            return FusedTally(self.rule, lams, n_tables, confusion=confusion)
        return PointTally([self.point(lam) for lam in lams], n_tables, confusion=confusion)

    def writer(self, lam: float) -> Fuser:
        """What writes posteriors at a lambda."""
        calibration = self.calibration
        return Fuser(rule_of(as_fused(calibration)) if self.rule is None else self.rule, [lam])


def make_decider(
    calibration: Calibration,
    data: DataSet,
    factors: Mapping[str | None, FactorSource],
    chosen: Sequence[int] | None = None,
) -> Steps[Decider]:
    """Make a calibration ready for a data set.

    Parameters
    ----------
    calibration : Calibration
        Its modalities are those of the data, in the same order (or those of them that are `chosen`).
    data : DataSet
    factors : mapping of modality to FactorSource
        Where delta comes from, besides the calibration's statistics and the files.
    chosen : sequence of int, optional
        Positions of the calibration's modalities in the data.
    """
    members = [data.modalities[i] for i in (range(len(data.modalities)) if chosen is None else chosen)]
    looks: tuple[Look, ...] = ()
    lines = as_fused(calibration)
    for modality, member in zip(lines.modalities, members, strict=True):
        looks += ((yield from _look(modality, member, factors.get(member.modality), data)),)
    slopes = [lines.slopes_of(modality) for modality in lines.modalities]
    rebalance_first = calibration.order == "rebalance-first"
    flattened = rebalance_first and any(_flattens(look, member) for look, member in zip(looks, members, strict=True))
    places = None if chosen is None else tuple(chosen)
    if len(members) == 1 and not flattened:
        made = Decider(calibration, View(looks, rebalance_first, None, places), None, slopes[0])
        return replace(made, plain=_plain(made, members))
    linear = calibration.fusion is None or fusion(calibration.fusion).LINEAR
    joint = joint_slopes(lines)
    if linear and joint.masked.all():
        raise DataError("--source-prior", "no class that every modality may predict", "expected one")
    if not linear or flattened:
        rule = rule_of(lines)
        if len(members) == 1:  # of one, any is that one; this one need not settle every unit
            rule = replace(rule, operator=fusion(DEFAULT).OPERATOR)
        masked = np.logical_and.reduce([one.masked for one in slopes])
        flat, faint = all(one.flat for one in slopes), all(one.faint for one in slopes)
        spread = Slopes(np.zeros(data.n_classes), masked, flat, faint)
        made = Decider(calibration, View(looks, rebalance_first, None, places), rule, spread)
    else:
        weights = calibration.weights or (1.0,) * len(members)
        made = Decider(calibration, View(looks, rebalance_first, weights, places), None, joint)
    if len(members) > 1:
        return replace(made, plain=(yield from _plain_of_several(made, data, factors, chosen)))
    return replace(made, plain=_plain(made, members))


def _plain_of_several(
    decider: Decider, data: DataSet, factors: Mapping[str | None, FactorSource], chosen: Sequence[int] | None
) -> Steps[Decider | None]:
    """The fusion of the scores as they are, without temperatures and offsets, where `decider` at 0 is another one."""
    given = decider.calibration
    bare = tuple(replace(one, temperature=1.0, offsets=None) for one in given.modalities)
    if bare == given.modalities and not decider.masks:
        return None
    view, rule = decider.view, decider.rule
    if bare != given.modalities:
        other = yield from make_decider(replace(given, modalities=bare), data, factors, chosen)
        view, rule = other.view, other.rule
    return Decider(given, view, None if rule is None else rule.as_is, _no_slopes(decider))


def _no_slopes(decider: Decider) -> Slopes:
    zeros = np.zeros(decider.slopes.values.size)
    return Slopes.of(zeros, zeros > 0)


def _plain(decider: Decider, members: Sequence[DataSet]) -> Decider | None:
    """The scores as they are, where `decider` at lambda = 0 may predict something else."""
    nothing = _no_slopes(decider)
    # a delta of zero makes ties of scores that differ, and so may the rounding of float64 scores over a temperature
    look, exact = decider.view.looks[0], all(s.encoding != "float64" and s.kind != "probs" for s in members[0].sources)
    moved = look.offsets is not None or _flattens(look, members[0]) or (look.temperature != 1.0 and not exact)
    if not (decider.masks or moved):
        return None
    return Decider(decider.calibration, View((Look(stored_delta=False),), chosen=decider.view.chosen), None, nothing)


def as_stored(decider: Decider) -> Decider | None:
    """The scores as they are, for their probabilities: a temperature changes these, though no decision.

    None where that is the decider itself at lambda = 0.
    """
    looks = decider.view.looks
    if decider.plain is not None or len(looks) > 1 or looks[0].temperature == 1.0:
        return decider.plain
    nothing = _no_slopes(decider)
    return Decider(decider.calibration, View((Look(stored_delta=False),), chosen=decider.view.chosen), None, nothing)


def _flattens(look: Look, member: DataSet) -> bool:
    stored = look.stored_delta and any("delta" in source.fields for source in member.sources)
    return look.factors is not None or look.statistics is not None or stored


def _look(modality: Modality, member: DataSet, factors: FactorSource | None, data: DataSet) -> Steps[Look]:
    whole = modality.delta is not None and modality.delta.per == "sample"
    if modality.delta is not None and not whole and not member.has_images:
        raise DataError(member.name, "rows, and delta statistics of pixels", "expected statistics of samples")
    if factors is None and modality.delta is not None and whole and (yield from _cuts_images(member, data)):
        factors = yield from _factors_before(modality.delta, member)
    return Look(modality.temperature, modality.delta, modality.stored_delta, factors, offsets=modality.offsets)


def _cuts_images(member: DataSet, data: DataSet) -> Facts[bool]:
    """Whether spans have to cut images of a modality."""
    if not any(source.pixels > 1 for source in member.sources):
        return False

    def find() -> bool:
        spans = data.spans(whole_samples=True)
        return any(span.start % span.source.pixels or span.stop % span.source.pixels for span in spans)

    return (yield from know(f"cuts {member.name}", find))


def _factors_before(statistics: DeltaStatistics, member: DataSet) -> Steps[SampleFactors]:
    """Factors of images that are too large to be seen at once, from a pass over them."""
    factors = []
    for source in member.sources:
        alone = replace(member.alone(), sources=(source,), split=None, n_samples=source.n_samples, evidence=None)
        tally = EntropyTally(source.n_classes, {source.name: source.n_samples})
        yield from count(alone, [tally])
        factors.append(statistics.delta(tally.kept(source.name) / FIXED_POINT))
    return SampleFactors(member.sources, tuple(factors))
