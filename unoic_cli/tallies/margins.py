"""How far decisions are from any other: the margins of a sample of the units, which need no labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unoic_cli.calibrations.calibration import N_BINS
from unoic_cli.tallies.kept import Keeper, Kept, KeptTally, Shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.calibrations.rule import Rule
    from unoic_cli.data.batch import Batch

EDGES = 2.0 ** (np.arange(N_BINS - 1) / 2 - 6)
"""Upper ends of the bins of margins, in nats, and beyond them one more: from 1/64 on, two for each doubling."""
MOST_MARGINS = 1 << 14


def margins(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best score of each row less the second best, (N,).

    Examples
    --------
    >>> margins(np.array([[0.0, 2.0, 1.5], [3.0, 0.0, 1.0]])).tolist()
    [0.5, 2.0]
    """
    top = np.partition(scores, scores.shape[1] - 2, axis=1)[:, -2:]
    return np.asarray(top.max(axis=1) - top.min(axis=1))


class Decision(NamedTuple):
    """What margins are of.

    Attributes
    ----------
    rule : Rule or None
        Of fusions whose scores are no lines in lambda.
    slopes : (K,) float64
    masked : (K,) bool
    lam : float
    scale : float
        Of the scores: of one modality its temperature, so that margins do not depend on it.
    """

    rule: Rule | None
    slopes: NDArray[np.float64]
    masked: NDArray[np.bool_]
    lam: float
    scale: float = 1.0

    def margins(self, kept: Kept) -> NDArray[np.float64]:
        """Of kept units, (n,)."""
        if not kept.n:
            return np.zeros(0)
        if self.rule is not None:
            return margins(kept.posterior(self.rule, self.lam))
        scores = kept.scores[:, 0].astype(np.float64) + self.lam * self.slopes * kept.factors[:, :1]
        scores[:, self.masked] = -np.inf
        return margins(scores) * self.scale

    def binned(self, kept: Kept) -> NDArray[np.int64]:
        """Units of each class by their margins, (K, 33)."""
        bins = np.searchsorted(EDGES, self.margins(kept))
        cells = np.bincount(kept.labels * (N_BINS) + bins, minlength=kept.n_classes * (N_BINS))
        return np.asarray(cells.reshape(kept.n_classes, -1))


class MarginKeeper(Keeper):
    """Keeps the margins of a sample of the units.

    Parameters
    ----------
    scores : callable
        Makes what keeps scores of the same data (`KeptTally.recipe`).
    decision : Decision
    before, by, labelled
        As of `Keeper`.
    """

    def __init__(
        self, scores: partial[KeptTally], decision: Decision, n_classes: int, before: Mapping[str, tuple[int, int]],
        by: str, labelled: bool,
    ) -> None:  # fmt: skip
        self.make, self.decision = scores, decision
        self._scores = scores()
        super().__init__(n_classes, before, by, labelled, MOST_MARGINS)

    @classmethod
    def like(cls, scores: KeptTally, decision: Decision) -> MarginKeeper:
        """Of the same units as what would keep their scores."""
        return cls(scores.recipe(), decision, scores.n_classes, scores.before, scores.by, scores.labelled)

    def recipe(self) -> partial[MarginKeeper]:
        """What makes an empty tally like this one."""
        return partial(
            MarginKeeper, self.make, self.decision, self.n_classes, self.before, self.by, self.labelled
        )  # fmt: skip

    def shapes(self, n: int) -> Shapes:
        """One margin each."""
        return {"margins": (np.dtype(np.float64), (n,))}

    def update(self, batch: Batch) -> None:
        """Keep what is to be kept of a batch."""

        def own(entries: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
            none, zeros = np.zeros(entries.size, dtype=np.int64), np.zeros(entries.size, dtype=np.int32)
            few = Kept(self.n_classes, entries.size, none, zeros, zeros, none, **self._scores.scores_of(batch, entries))
            return {"margins": self.decision.margins(few)}

        self.keep(batch, own)

    def binned(self, known: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
        """Units by their margins, (33,), and how many of them are independent; of labelled ones those of some classes.

        Parameters
        ----------
        known : (K,) bool
        """
        sample = self.sample()
        chosen = known[sample["labels"]] if self.labelled else np.ones(sample["margins"].size, dtype=bool)
        counts = np.bincount(np.searchsorted(EDGES, sample["margins"][chosen]), minlength=N_BINS)
        return np.asarray(counts), int(np.unique(np.asarray(sample["clusters"])[chosen]).size)
