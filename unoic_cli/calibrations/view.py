"""How the stored scores of one or several modalities become those that are counted: temperature, delta, and sums."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from unoic_cli.calibrations.delta import FIXED_POINT, DeltaStatistics, mean_of_sums
from unoic_cli.calibrations.offsets import Offsets
from unoic_cli.data.batch import Batch, InvalidScoreError, Part, Scores, make_scores, stored_delta
from unoic_cli.kernels import add_scaled, entropy_of_units
from unoic_cli.kernels.lines import make_lines, make_workspace
from unoic_cli.kernels.operator import make_scratch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.formats.block import Source


class FactorSource(Protocol):
    """Where the factors of a modality come from, when not from its own file."""

    def of(self, part: Part) -> NDArray[np.float64]:
        """Checked factors of the units of a part, (T,) or (1,)."""
        ...


@dataclass(frozen=True)
class SampleFactors:
    """One factor for each sample: of images too large to be seen at once, from a pass before.

    Attributes
    ----------
    sources : tuple of Source
    values : tuple of (N,) float64
        Of each source.
    """

    sources: tuple[Source, ...]
    values: tuple[NDArray[np.float64], ...]

    def of(self, part: Part) -> NDArray[np.float64]:
        """Factors of the units of a part."""
        place = next(i for i, source in enumerate(self.sources) if source is part.source)
        return part.per_unit(self.values[place][part.samples])


@dataclass(frozen=True)
class Look:
    """How one modality is looked at.

    Attributes
    ----------
    temperature : float
        Divides the scores.
    statistics : DeltaStatistics or None
        delta follows from the softmax entropy of each sample, or of each pixel.
    stored_delta : bool
        Without statistics: whether the delta of the file is applied.
    factors : FactorSource or None
        delta comes from there instead.
    floor : float or None
        Smaller probabilities are taken as this.
    offsets : tuple of float or None
        b_k, (K,): see `unoic_cli.calibrations.offsets`.
    """

    temperature: float = 1.0
    statistics: DeltaStatistics | None = None
    stored_delta: bool = True
    factors: FactorSource | None = None
    floor: float | None = None
    offsets: Offsets | None = None

    def delta(self, part: Part) -> NDArray[np.float64]:
        """Factors of the units of a part: (0,), (1,) or (T,)."""
        if self.factors is not None:
            return self.factors.of(part)
        if self.statistics is not None and self.statistics.per == "pixel":
            return self.statistics.delta(unit_entropies(part) / FIXED_POINT)
        if self.statistics is not None:
            return part.per_unit(self.statistics.delta(sample_entropies(part)))
        stored = stored_delta(part)  # checked, applied or not
        return stored if self.stored_delta else np.empty(0)

    @property
    def needs_samples(self) -> bool:
        """Whether whole samples must be seen at once."""
        return self.statistics is not None and self.statistics.per == "sample" and self.factors is None


def unit_entropies(part: Part) -> NDArray[np.int64]:
    """Softmax entropy of each unit of a part as stored, in units of 2**-40 nats.

    Raises
    ------
    InvalidScoreError
        At the first unit with an invalid score.
    """
    scores = make_scores(part, 1.0, np.empty(0))
    out = np.empty(scores.n_units, dtype=np.int64)
    work = make_workspace(scores.n_classes)
    bad = entropy_of_units(
        scores.raw, scores.brain, scores.allow_zero, scores.pixels, scores.n_units, scores.n_classes, out, work
    )
    if bad >= 0:
        raise InvalidScoreError(bad)
    return out


def sample_entropies(part: Part) -> NDArray[np.float64]:
    """Mean softmax entropy of each sample that a part holds whole, in nats, (S,)."""
    if "entropies" not in part.block.cache:
        pixels = part.source.pixels
        sums = unit_entropies(part)
        if pixels > 1:
            sums = sums.reshape(-1, pixels).sum(axis=1)
        part.block.cache["entropies"] = mean_of_sums(sums, pixels) / FIXED_POINT
    entropies: NDArray[np.float64] = part.block.cache["entropies"]
    return entropies


@dataclass(frozen=True)
class View:
    """How all modalities are looked at.

    Attributes
    ----------
    looks : tuple of Look
        In the order of the modalities.
    rebalance_first : bool
        delta * (z + lambda * s) instead of delta * z + lambda * s.
    weights : tuple of float or None
        The modalities' scores are summed with these, so that fused scores are lines in lambda; None: they stay apart.
    chosen : tuple of int or None
        Positions of the modalities that are looked at; None for all.
    """

    looks: tuple[Look, ...] = field(default=(Look(),))
    rebalance_first: bool = False
    weights: tuple[float, ...] | None = None
    chosen: tuple[int, ...] | None = None

    @property
    def needs_samples(self) -> bool:
        """Whether whole samples must be seen at once."""
        return any(look.needs_samples for look in self.looks)

    def apply(self, batch: Batch) -> Batch:
        """The batch with its scores made.

        Raises
        ------
        InvalidScoreError
            At a unit with an invalid score, where that is noticed here.
        """
        if batch.part.block.scores is None:
            return batch
        chosen = range(len(batch.parts)) if self.chosen is None else self.chosen
        parts = [batch.parts[m] for m in chosen]
        made, deltas = [], []
        for m, look, part in zip(chosen, self.looks, parts, strict=True):
            try:
                delta = look.delta(part)
            except InvalidScoreError as error:
                raise InvalidScoreError(error.unit, m) from None
            deltas.append(delta)
            more: dict[str, Any] = {"rebalance_first": self.rebalance_first, "floor": look.floor}
            made.append(make_scores(part, look.temperature, delta, offsets=look.offsets, **more))
        scores = None
        if len(made) == 1:
            scores = made[0]
        elif self.weights is not None:
            scores = _sum(made, self.weights)
        part = batch.part if self.chosen is None else parts[0]
        return replace(batch, scores=scores, part=part, modalities=tuple(made), deltas=tuple(deltas))


def _sum(modalities: list[Scores], weights: tuple[float, ...]) -> Scores:
    """Weighted sum of all modalities' scores in float64, class-major: as planes of one image.

    Raises
    ------
    InvalidScoreError
        At the first unit with an invalid score, of the first modality that has one.
    """
    first = modalities[0]
    n_units, n_classes = first.n_units, first.n_classes
    total = np.zeros(n_units * n_classes)
    scratch, work = make_scratch(1, n_classes), make_workspace(n_classes)
    lines = make_lines(np.zeros(n_classes), np.zeros(n_classes, dtype=bool), np.zeros(1))
    for m, (scores, weight) in enumerate(zip(modalities, weights, strict=True)):
        bad = add_scaled(
            scores.raw, scores.brain, scores.allow_zero, scores.raw.dtype == np.float64, scores.pixels, scores.delta,
            lines, n_units, weight, total, np.empty(0), scratch, work,
        )  # fmt: skip
        if bad >= 0:
            raise InvalidScoreError(bad, m)
    return Scores(
        raw=total,
        brain=False,
        allow_zero=any(scores.allow_zero for scores in modalities),
        exact=False,
        delta=np.empty(0),
        n_units=n_units,
        n_classes=n_classes,
        pixels=n_units,
        slope_factor=np.empty(0),
    )
