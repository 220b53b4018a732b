"""Geometric mean of the recalls."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from unoic_cli.metrics.metric import Counted, Exact, Metric, Rules, Weights, averaged
from unoic_cli.metrics.root import Root

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class GeometricMean(Metric):
    """(prod_k TP_k / n_k)^(1/C) over the C classes that are averaged: zero as soon as one class is never found."""

    NAME, TITLE = "gmean", "G-mean"
    ALIASES = ("geometric mean", "geometric mean score", "g mean score", "GM")
    HELP = "G-mean: the geometric mean of the classes' recalls."
    HITS_ALONE = True

    def values(self, counted: Counted, rules: Rules) -> NDArray[np.float64]:
        """By way of logarithms, which do not underflow."""
        import numpy as np

        hits, support = counted.counts.hits, counted.counts.support
        of = averaged(counted.counts, rules, predicted=False)
        found = np.broadcast_to(hits, of.shape) > 0
        logs = np.log(np.divide(hits, support, out=np.ones(of.shape), where=of & found))
        n = of.sum(axis=-1)
        mean = np.divide(logs.cumsum(axis=-1)[..., -1], n, out=np.full(n.shape, np.nan), where=n > 0)
        return np.where((of & ~found).any(axis=-1), 0.0, np.exp(mean))

    def exact(self, counted: Counted, rules: Rules) -> Exact | None:
        """The root of a product of fractions."""
        counts, of = counted.counts, averaged(counted.counts, rules, predicted=False)
        n = int(of.sum())
        if not n:
            return None
        over, under = math.prod(counts.hits[of].tolist()), math.prod(counts.support[of].tolist())
        return Root(Fraction(over, under) if over else Fraction(0), n)

    def weights(self, counted: Counted, rules: Rules) -> Weights:
        """G / (C TP_k) of a hit; NaN where a class is never found, and one hit changes all."""
        import numpy as np

        hits = counted.counts.hits
        of = averaged(counted.counts, rules, predicted=False)
        value = np.asarray(self.values(counted, rules))
        each = np.where(value > 0, value, np.nan) / np.maximum(of.sum(axis=-1), 1)
        return Weights(np.where(of, each[..., None] / np.maximum(hits, 1), 0.0), np.zeros(hits.shape))
