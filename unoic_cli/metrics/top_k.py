"""Top-k accuracy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from unoic_cli.errors import UsageError
from unoic_cli.metrics.metric import Counted, Decider, Exact, Metric, Recipe, Rules

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.kernels.lines import Lines
    from unoic_cli.tallies.top_k import TopKTally

_NAME = re.compile(r"top([1-9][0-9]{0,8})(?:acc|accuracy)?")


@dataclass(frozen=True)
class TopHits:
    """Hits among the k best classes."""

    k: int
    on_path: ClassVar[bool] = True
    any_scores: ClassVar[bool] = False

    def along(self, lines: Lines, n_tables: int) -> TopKTally:
        """Every lattice point."""
        from unoic_cli.tallies.top_k import TopKTally

        return TopKTally([lines], self.k, n_tables)

    def at(self, decider: Decider, lams: Sequence[float], n_tables: int) -> TopKTally:
        """Single lambdas."""
        from unoic_cli.tallies.top_k import TopKTally

        return TopKTally([decider.point(lam) for lam in lams], self.k, n_tables)

    def arrays(self, tally: Any) -> dict[str, NDArray[np.int64]]:
        """The hits, (F, G)."""
        return {"hits": tally.hits()}


class TopK(Metric):
    """The share of units whose label is among the k classes of the largest scores.

    Parameters
    ----------
    k : int
    """

    NAME, TITLE = "topN", "topN"
    HELP = "Accuracy among the N best classes: top5, or another N."
    HITS_ALONE = True

    def __init__(self, k: int) -> None:
        self.k = k

    @property
    def name(self) -> str:
        """``top5``."""
        return f"top{self.k}"

    title = name

    @property
    def recipe(self) -> Recipe:
        """Hits among the k best."""
        return TopHits(self.k)

    @property
    def among(self) -> int:
        """N."""
        return self.k

    @classmethod
    def called(cls, folded: str) -> Metric | None:
        """``top5``, ``top-5``, ``top 5 accuracy`` ..."""
        match = _NAME.fullmatch(folded)
        return cls(int(match[1])) if match else None

    def check(self, option: str, n_classes: int) -> None:
        """Refuse a k that no unit can miss."""
        if self.k >= n_classes:
            found = f"{self.name} with {n_classes} classes, which is always 1"
            raise UsageError(option, found, f"expected N < {n_classes}")

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """NaN of nothing."""
        import numpy as np

        hits, n = counted.beside[self.recipe]["hits"], int(counted.counts.support.sum())
        return np.asarray(hits / n if n else np.full(hits.shape, np.nan))

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """None of nothing."""
        n = int(counted.counts.support.sum())
        return Fraction(int(counted.beside[self.recipe]["hits"]), n) if n else None

    def moved(self, here: Counted, there: Counted) -> int:
        """Units that are among the best at one of two points alone, net."""
        return abs(int(here.beside[self.recipe]["hits"]) - int(there.beside[self.recipe]["hits"]))
