"""How the experts of a calibration are rebalanced and fused, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np

from unoic_cli.calibrations.prior import Slopes, Unseen, log_prior
from unoic_cli.fusions import divides, fusion
from unoic_cli.kernels.operator import Operator, Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Fusible(Protocol):
    """What a calibration says of its fusion."""

    @property
    def modalities(self) -> tuple[Any, ...]:
        """Each with its source prior, share of lambda and offsets."""
        ...

    @property
    def fusion(self) -> str | None:
        """How several are fused."""
        ...

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Of the modalities."""
        ...

    @property
    def unseen(self) -> Unseen:
        """What happens to classes of prior zero."""
        ...

    def slopes_of(self, modality: Any) -> Slopes:
        """Of a modality, its share of lambda included."""
        ...


C = TypeVar("C", bound=Fusible)


@dataclass(frozen=True)
class Rule:
    """How M experts are rebalanced and fused.

    Attributes
    ----------
    operator : type of Operator
        See `unoic_cli.fusions`.
    weights : (M,) float64
    slopes : (M, K) float64
        s_k of each expert, its share of lambda included.
    masked : (M, K) bool
        Classes to which an expert gives no probability.
    """

    operator: type[Operator]
    weights: NDArray[np.float64]
    slopes: NDArray[np.float64]
    masked: NDArray[np.bool_]

    @property
    def as_is(self) -> Rule:
        """The same where nothing is rebalanced, and no class masked."""
        return replace(self, slopes=np.zeros_like(self.slopes), masked=np.zeros_like(self.masked))

    @property
    def n_experts(self) -> int:
        """M."""
        return int(self.slopes.shape[0])

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.slopes.shape[1])


def as_fused(calibration: C) -> C:
    """The calibration with what its fusion does to each modality: an offset of its own, and less of lambda."""
    if calibration.fusion is None or len(calibration.modalities) == 1 or not divides(calibration.fusion):
        return calibration
    known = [log_prior(modality.source_prior, calibration.unseen) for modality in calibration.modalities]
    biases, share = fusion(calibration.fusion).divided(np.stack(known))
    given = [np.zeros(len(biases[0])) if one.offsets is None else one.offsets for one in calibration.modalities]
    modalities = (
        replace(modality, share=modality.share * share, offsets=tuple((bias + own).tolist()))
        for modality, bias, own in zip(calibration.modalities, biases, given, strict=True)
    )
    return cast(C, replace(cast(Any, calibration), modalities=tuple(modalities)))


def rule_of(calibration: Fusible) -> Rule:
    """The fusion of a calibration `as_fused`, for the kernels; one modality is a log-linear pool of one."""
    slopes = [calibration.slopes_of(modality) for modality in calibration.modalities]
    n = len(calibration.modalities)
    operator = Pool if calibration.fusion is None else fusion(calibration.fusion).OPERATOR
    weights = calibration.weights or (1.0,) * n
    return Rule(
        operator,
        np.array(weights),
        np.stack([one.values for one in slopes]),
        np.stack([one.masked for one in slopes]),
    )


def joint_slopes(calibration: Fusible) -> Slopes:
    """Slopes of fused scores that are lines in lambda: the experts' weighted sum; and the classes that any masks."""
    slopes = [calibration.slopes_of(modality) for modality in calibration.modalities]
    weights = calibration.weights or (1.0,) * len(slopes)
    masked = np.logical_or.reduce([one.masked for weight, one in zip(weights, slopes, strict=True) if weight])
    if masked.all():
        return Slopes(np.zeros(masked.size), masked, True, True)
    values = sum((weight * one.values for weight, one in zip(weights, slopes, strict=True)), np.zeros(masked.size))
    return Slopes.of(values, masked)
