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

    def alone(self) -> Counts:
        """These of one point, as a curve of it."""
        return Counts(self.hits[None], self.predicted[None], self.support)

    def __getitem__(self, index: Any) -> Counts:
        """Counts at some lattice points: indexes the axes before the class."""
        return Counts(self.hits[index], self.predicted[index], self.support)

    def told(self, before: Counts | None = None) -> dict[str, Any]:
        """For JSON: what is predicted of each class, and what was before.

        Examples
        --------
        >>> import numpy as np
        >>> one = Counts(np.array([2, 0]), np.array([3, 1]), np.array([2, 2]))
        >>> one.told(Counts(np.array([1, 2]), np.array([1, 3]), one.support))["before"]
        {'predicted': [1, 3], 'hits': [1, 2]}
        """
        both = {"after": self} if before is None else {"before": before, "after": self}
        counted = {when: {"predicted": one.predicted.tolist(), "hits": one.hits.tolist()} for when, one in both.items()}
        return {"support": self.support.reshape(-1).tolist(), **counted}
