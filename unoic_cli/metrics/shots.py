"""Recall of classes with many, some and few training samples: what long-tail papers report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.metrics.macc import MeanClassAccuracy
from unoic_cli.metrics.metric import Rules, averaged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.tallies.counts import Counts


class Shots(MeanClassAccuracy):
    """Mean recall of the classes whose number of training samples lies within bounds."""

    BY_TRAINING = True

    @staticmethod
    def within(samples: NDArray[np.float64], low: int, high: int) -> NDArray[np.bool_]:
        """Which classes these are, (K,)."""
        raise NotImplementedError

    def averaged(self, counts: Counts, rules: Rules) -> NDArray[np.bool_]:
        """Those of `MeanClassAccuracy` that lie within."""
        import numpy as np

        return averaged(counts, rules, predicted=False) & self.within(np.array(rules.training), *rules.shots)


class Many(Shots):
    """Classes of more than 100 training samples."""

    NAME, TITLE = "many", "many"
    ALIASES = ("many shot", "many-shot accuracy", "head")
    HELP = "Recall, averaged over classes of many (> 100) training samples."

    @staticmethod
    def within(samples: NDArray[np.float64], low: int, high: int) -> NDArray[np.bool_]:
        """More than the upper bound."""
        return samples > high


class Medium(Shots):
    """Classes of 20 to 100 training samples."""

    NAME, TITLE = "medium", "medium"
    ALIASES = ("medium shot", "medium-shot accuracy", "median shot", "med")
    HELP = "Recall, averaged over classes of 20 to 100 training samples."

    @staticmethod
    def within(samples: NDArray[np.float64], low: int, high: int) -> NDArray[np.bool_]:
        """Neither fewer nor more."""
        return (samples >= low) & (samples <= high)


class Few(Shots):
    """Classes of fewer than 20 training samples."""

    NAME, TITLE = "few", "few"
    ALIASES = ("few shot", "few-shot accuracy", "tail")
    HELP = "Recall, averaged over classes of few (< 20) training samples."

    @staticmethod
    def within(samples: NDArray[np.float64], low: int, high: int) -> NDArray[np.bool_]:
        """Fewer than the lower bound."""
        return samples < low
