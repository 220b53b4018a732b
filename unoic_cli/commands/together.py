"""Temperature and lambda in one likelihood, at the labelled units' own mix: what `fit-temperature` minimises.

    J = sum_i -log softmax(a z + lambda s + log pi - log Pt)_y + (a - 1)**2 / 2 + (lambda - 1)**2 / 2

with a = 1 / T, s = log Pt - log Ps, and pi the mix of the labels, each class counted half a unit more. Scores of
classes that are left out (`Slopes.masked`) take no part, nor do the units of their labels.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.calibrations.prior import log_prior
from unoic_cli.calibrations.view import View
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.steps import Steps, count
from unoic_cli.errors import DataError
from unoic_cli.resolve.common import count_labels, no_labels
from unoic_cli.searches.descent import Bounds, Place, Vector, descend, solve
from unoic_cli.searches.joint import LEAST
from unoic_cli.tallies.likelihood import Likelihood, LikelihoodTally

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST = ((1.0, 1.0), (0.3, 0.5), (0.6, 0.6), (1.8, 2.0), (4.0, 4.4))
"""Places (a, lambda) of the first read: about a factor of two apart, and not on one line; real networks lie between."""
REACH = 30.0
"""Log-odds by which lambda changes between two reads at most."""


class Measured(NamedTuple):
    """Figures of a posterior on the labelled units.

    Attributes
    ----------
    nll, ece, acc : float
    """

    nll: float
    ece: float
    acc: float


@dataclass(frozen=True)
class Line:
    """Along which a and lambda change together: scores a * (z + v), lambda = mu * a.

    Attributes
    ----------
    mu : float
    feature : (K,) float64
        v; zero where the scores hold it already.
    start : float
        a before the fit.
    """

    mu: float
    feature: NDArray[np.float64]
    start: float


@dataclass
class Joint:
    """The likelihood of (a, lambda) as a function of one or two numbers, and where it was measured.

    Attributes
    ----------
    shift : (K,) float64
        log pi - log Pt.
    slopes, masked : (K,) float64, bool
        s, and classes that are left out.
    line : Line or None
        Only a is free, on this line.
    held : bool
        Only a is free, at lambda 0: the priors say nothing of lambda.
    """

    shift: NDArray[np.float64]
    slopes: NDArray[np.float64]
    masked: NDArray[np.bool_]
    line: Line | None = None
    held: bool = False
    measured: dict[Vector, Measured] = field(default_factory=dict)
    raw: Measured | None = None
    reads: int = 0
    n: int = 0
    n_ignored: int = 0
    n_left_out: int = 0
    flat: bool = False

    @property
    def feature(self) -> NDArray[np.float64]:
        """Of whose factor derivatives are taken."""
        if self.line is not None:
            return self.line.feature
        return np.zeros_like(self.slopes) if self.held else self.slopes

    @property
    def start(self) -> Vector:
        """Where the fit is compared with: the calibration that was given, or T = 1 and lambda = 1."""
        if self.line is not None:
            return (self.line.start,)
        return (1.0,) if self.held else FIRST[0]

    def first(self) -> list[Vector]:
        """Places of the first read, the start first."""
        if self.line is None and not self.held:
            return list(FIRST)
        start = max(self.start[0], LEAST)
        return list(dict.fromkeys((max(start * factor, LEAST),) for factor in (1.0, 0.25, 0.5, 2.0, 4.0)))

    def lam(self, at: Vector) -> float:
        """Lambda at a place."""
        return at[1] if len(at) == 2 else 0.0 if self.line is None else self.line.mu * at[0]

    def bias(self, at: Vector) -> NDArray[np.float64]:
        """What is added to the scores at a place, (K,)."""
        return self.feature * at[-1] + self.shift

    def bounds(self, tolerance: float) -> Bounds:
        """Where the minimum is looked for."""
        spread = float(np.ptp(self.slopes[~self.masked]))
        return Bounds(LEAST, math.inf if spread == 0 else REACH / spread, tolerance)

    def place(self, at: Vector, found: Likelihood) -> Place:
        """The penalised sum over all units, its slope and its Hessian."""
        n, (a, lam) = self.n, (at[0], self.lam(at))
        value = n * found.nll + (a - 1.0) ** 2 / 2 + (lam - 1.0) ** 2 / 2
        by_a, by_lam, cross = n * found.slope, n * found.tilt, n * found.cross
        more_a, more_lam = n * found.curvature, n * found.bend
        if len(at) == 2:
            both = (by_a + (a - 1.0), by_lam + (lam - 1.0))
            return Place(at, value, both, ((more_a + 1.0, cross), (cross, more_lam + 1.0)))
        mu = 0.0 if self.line is None else self.line.mu
        slope = (by_a + by_lam + (a - 1.0) + mu * (lam - 1.0),)
        return Place(at, value, slope, ((more_a + 2.0 * cross + more_lam + 1.0 + mu * mu,),))

    def look(self, data: DataSet, view: View, bins: int, asked: list[Vector]) -> Steps[list[Place]]:
        """Read the data once, for some places; the first is measured, too."""
        first = self.reads == 0
        extra = [self.start] if first and self.start != asked[0] else []
        places = [*extra, *asked]
        betas, biases = [at[0] for at in places], [self.bias(at) for at in places]
        if first:
            betas, biases = [1.0, *betas], [np.zeros_like(self.shift), *biases]
        n_measured = 1 + int(first) + len(extra)
        tally = LikelihoodTally(data.n_classes, betas, np.array(biases), self.feature, self.masked, bins, n_measured)
        yield from count(data, [tally], view=view)
        self.reads += 1
        self._keep(data, tally, places, first)
        skipped = int(first) + len(extra)
        return [self.place(at, tally.at(skipped + j)) for j, at in enumerate(asked)]

    def _keep(self, data: DataSet, tally: LikelihoodTally, places: list[Vector], first: bool) -> None:
        self.n, self.n_ignored, self.n_left_out = tally.n, tally.n_ignored, tally.n_left_out
        if self.n == 0:
            raise DataError(data.name, "no labelled unit of a class that can be predicted", "expected some")
        found = [Measured(tally.at(j).nll, tally.ece(j), tally.accuracy(j)) for j in range(len(tally.counted))]
        if first:
            self.raw, *found = found
            one = tally.at(0)
            self.flat = one.slope == one.curvature == 0.0
        self.measured.update(zip(places, found, strict=False))


def joint(data: DataSet, base: Calibration, line: Line | None) -> Steps[Joint]:
    """What is to be minimised, from the labels' counts.

    Raises
    ------
    DataError
        There is no label.
    """
    labels = yield from count_labels(data, shared=True)
    counts = labels.counts.astype(np.float64)
    if not counts.any():
        raise no_labels(data, labels.n_ignored)
    slopes = base.slopes()
    shift = np.log(counts + 0.5) - log_prior(base.target_prior, base.unseen)
    shift = np.where(slopes.masked, 0.0, shift)
    return Joint(shift, slopes.values, slopes.masked, line, line is None and slopes.faint)


def minimum(one: Joint, data: DataSet, view: View, bins: int, tolerance: float) -> Generator[Any, Any, Place]:
    """The minimum, measured."""

    def look(asked: list[Vector]) -> Generator[Any, Any, list[Place]]:
        return (yield from one.look(data, view, bins, asked))

    best = yield from descend(one.first(), one.bounds(tolerance), look)
    if best.at not in one.measured:
        yield from look([best.at])
    return best


def errors(best: Place, bounds: Bounds) -> tuple[float | None, ...]:
    """Standard errors of what is free, by the curvature; None of a number that is at its bound."""
    if best.at[0] <= bounds.least:
        return (None, *(1.0 / math.sqrt(best.hessian[1][1]) for _ in best.at[1:]))
    units = [tuple(float(i == j) for j in range(len(best.at))) for i in range(len(best.at))]
    return tuple(math.sqrt(solve(best.hessian, unit)[i]) for i, unit in enumerate(units))
