"""What most metrics are made of: how often each class was predicted, was the truth, and was both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unoic_cli.brief import brief, in_html

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Counts:
    """Per-class counts of labelled units. The last axis is the class; others (lattice points, folds) are kept.

    Attributes
    ----------
    hits, predicted : (..., K) int64
        Units with label = prediction = k, and with prediction k.
    support : (..., K) int64
        Units with label k; broadcasts against the others.
    """

    hits: NDArray[np.int64]
    predicted: NDArray[np.int64]
    support: NDArray[np.int64]

    __repr__ = brief
    _repr_html_ = in_html

    def __getitem__(self, index: Any) -> Counts:
        """Counts at some lattice points: indexes the axes before the class."""
        return Counts(self.hits[index], self.predicted[index], self.support)
