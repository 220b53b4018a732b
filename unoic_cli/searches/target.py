"""The class mix of unlabelled data, from scores that labelled data has made a posterior.

Labels move, and what a class looks like stays: then the mix q of unlabelled rows maximises their likelihood, and
expectation maximisation finds it. Data that breaks this assumption (another domain) has a best q, too, and it is
worthless; and where nothing moved, an estimate only adds noise. So an estimate is adopted when a test of the mean
posteriors says that something moved, and when labelled rows, weighted to the estimate, look like the unlabelled ones.

Scores L are those of a posterior for the uniform prior, as `unoic_cli.searches.bcts` makes them: the posterior under a
mix q is r_i(q) = softmax(L_i + log q). They may be -inf for some classes of a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unoic_cli.brief import brief
from unoic_cli.searches.bcts import (
    Floats,
    Labels,
    OffsetsFit,
    cluster_sums,
    clustered_covariance,
    fit_offsets,
)
from unoic_cli.searches.joint import log_softmax, mix_of

SIGNIFICANCE = 1e-3
"""A mean posterior that differs with no smaller p is no shift."""

STRENGTH = 0.1
"""The mix of the labelled rows counts as this share of the unlabelled rows, beside them."""

LEVEL = 1.96
"""Standard deviations to either side of the middle of an interval."""

MOST_KS, MOST_SCALED_KS = 0.1, 1.8
"""Margins that are further apart than both allow are those of another domain."""

RANK = 1e-9
"""Eigenvalues below this share of the largest are zero."""

_CLOSE = 1e-8
_MOST_STEPS = 20_000


class MeanTest(NamedTuple):
    """Whether mean posteriors differ.

    Attributes
    ----------
    t2 : float
        Squared distance of the means over its covariance.
    df : int
        Directions in which posteriors vary.
    p : float
        Chance of so large a distance where there is no shift.
    rest : int or None
        Of clusters: their degrees of freedom, by which T2 is that of Hotelling; None: rows are many.
    """

    t2: float
    df: int
    p: float
    rest: int | None = None


class Interval(NamedTuple):
    """Where the mix lies, with 95 % confidence, class by class.

    Attributes
    ----------
    middle, sd, lower, upper : (K,) float64
    full : bool
        The posteriors vary in all directions; else the intervals leave out what these rows cannot tell.
    """

    middle: Floats
    sd: Floats
    lower: Floats
    upper: Floats
    full: bool


class Distance(NamedTuple):
    """How far two distributions are apart.

    Attributes
    ----------
    ks : float
        Kolmogorov and Smirnov: the largest difference of the distribution functions.
    n_eff : float
        Rows that this is sure of: of both samples, those that weigh much.
    """

    ks: float
    n_eff: float

    @property
    def fires(self) -> bool:
        """Whether it is more than a label shift leaves."""
        return self.ks > MOST_KS and self.ks * math.sqrt(self.n_eff) > MOST_SCALED_KS


@dataclass(frozen=True)
class Mix:
    """A mix that was estimated.

    Attributes
    ----------
    q : (K,) float64
    steps : int
        Steps of the iteration.
    converged : bool
    """

    q: Floats
    steps: int = 0
    converged: bool = True

    __repr__ = brief


def chi_square_tail(x: float, df: int) -> float:
    """Chance that a chi-square of `df` degrees of freedom exceeds x.

    Examples
    --------
    >>> round(chi_square_tail(3.841459, 1), 6), round(chi_square_tail(5.376956, 2), 6), chi_square_tail(0, 3)
    (0.05, 0.067984, 1.0)
    """
    if df < 1 or x <= 0:
        return 1.0
    half, odd = x / 2, df % 2  # a finite sum of Poisson terms, at halves where df is odd
    powers = [odd / 2 + i for i in range(df // 2)]
    terms = (math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers)
    return min(1.0, math.fsum(terms) + (math.erfc(math.sqrt(half)) if odd else 0.0))


def f_tail(x: float, df: float, rest: float) -> float:
    """Chance that a variance ratio of `df` and `rest` degrees of freedom exceeds x.

    Examples
    --------
    >>> round(f_tail(4.964603, 1, 10), 6), round(f_tail(2.5, 13, 10), 6), f_tail(0, 3, 3)
    (0.05, 0.076463, 1.0)
    """
    if x <= 0:
        return 1.0
    a, b, at = rest / 2, df / 2, rest / (rest + df * x)
    if at > (a + 1) / (a + b + 2):  # where the fraction converges slowly, that of the other end does not
        return 1 - _beta_share(b, a, 1 - at)
    return _beta_share(a, b, at)


def _beta_share(a: float, b: float, x: float) -> float:
    """The incomplete beta function I_x(a, b), as a continued fraction by Lentz's method."""
    tiny, front = 1e-300, math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    up, down = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    found = down
    for m in range(1, 1000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            down = 1 / (1 + term * down or tiny)
            up = 1 + term / up or tiny
            found *= up * down
        if abs(up * down - 1) < 1e-14:
            break
    return math.exp(front + a * math.log(x) + b * math.log1p(-x)) * found / a


def responsibilities(scores: Floats, q: Floats) -> Floats:
    """r_i(q) = softmax(L_i + log q), (N, K); a share of zero is impossible.

    Examples
    --------
    >>> responsibilities(np.zeros((1, 2)), np.array([0.25, 0.75])).round(6).tolist()
    [[0.25, 0.75]]
    """
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(log_softmax(scores + np.log(q))))


def _eigen(matrix: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues that are not zero, and their vectors as columns."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > RANK * max(values[-1], np.finfo(np.float64).tiny)
    return values[kept], vectors[:, kept]


def mean_covariance(r: Floats, clusters: Labels | None = None) -> Floats:
    """Covariance of the mean of the rows of r (N, K), of which those of one cluster are not independent, (K, K).

    Examples
    --------
    >>> rows = np.array([[0.0], [0.0], [1.0], [1.0]])
    >>> mean_covariance(rows).tolist(), mean_covariance(rows, np.array([7, 7, 9, 9])).tolist()
    ([[0.0625]], [[0.125]])
    """
    away = r - r.mean(axis=0)
    if clusters is not None:
        away = cluster_sums(away, clusters)
    return np.asarray(away.T @ away / len(r) ** 2)


def mean_test(
    target: Floats, labelled: Floats, clusters: tuple[Labels | None, Labels | None] = (None, None)
) -> MeanTest:
    """Test whether the mean of the rows of `target` (M, K) is that of the rows of `labelled` (N, K).

    `clusters` says of either which of its rows are not independent; T2 is then taken for that of Hotelling, as a
    covariance from few clusters is not known well (of rows there are many, and it has the tail of chi-square).

    Examples
    --------
    >>> few, many = np.array([[0.2, 0.8], [0.4, 0.6]]), np.array([[0.6, 0.4], [0.8, 0.2]])
    >>> test = mean_test(few, many)
    >>> round(test.t2, 6), test.df, round(test.p, 6)
    (16.0, 1, 6.3e-05)
    """
    gap = target.mean(axis=0) - labelled.mean(axis=0)
    values, vectors = _eigen(mean_covariance(target, clusters[0]) + mean_covariance(labelled, clusters[1]))
    t2, df = float(((vectors.T @ gap) ** 2 / values).sum()), values.size
    if clusters[0] is None and clusters[1] is None:
        return MeanTest(t2, df, chi_square_tail(t2, df))
    ours, theirs = (
        len(r) if own is None else np.unique(own).size for r, own in zip((target, labelled), clusters, strict=True)
    )
    rest = ours + theirs - 2
    left = rest - df + 1
    return MeanTest(t2, df, f_tail(t2 * left / (rest * df), df, left) if left > 0 else 1.0, rest)


def pseudo_counts(pi: Floats, n_rows: int) -> Floats:
    """The alpha of `map_em`, 1 + .1 m pi, (K,)."""
    return np.asarray(1 + STRENGTH * n_rows * pi)


def map_em(scores: Floats, pi: Floats, alpha: Floats, *, most_steps: int = _MOST_STEPS) -> Mix:
    """The mix of greatest likelihood under a Dirichlet prior, by expectation maximisation from pi.

    Parameters
    ----------
    scores : (M, K) float64
        L.
    pi : (K,) float64
        Where to begin.
    alpha : (K,) float64
        Of the prior, all at least 1: (sum_i r_i(q) + alpha - 1) / (m + sum(alpha - 1)) is a step. Ones: plain EM.
    most_steps : int
        Steps that are made at most; it ends as soon as one changes the shares by less than 1e-8 in all.

    Examples
    --------
    >>> scores = np.log([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    >>> map_em(scores, np.full(2, 0.5), np.ones(2)).q.round(4).tolist()
    [0.77, 0.23]
    """
    likelihood = np.exp(scores - scores.max(axis=1, keepdims=True))
    extra, q = alpha - 1, pi
    for step in range(most_steps):
        q, last = q * (likelihood.T @ (1 / (likelihood @ q))) + extra, q
        q = q / q.sum()
        if np.abs(q - last).sum() < _CLOSE:
            return Mix(q, step + 1)
    return Mix(q, most_steps, converged=False)


def objective(scores: Floats, q: Floats, alpha: Floats) -> float:
    """What `map_em` maximises: sum_i log sum_k q_k exp(L_ik) + sum_k (alpha_k - 1) log q_k."""
    top = scores.max(axis=1)
    likelihood = np.exp(scores - top[:, None]) @ q
    drawn = alpha > 1
    return float((np.log(likelihood) + top).sum() + (alpha[drawn] - 1) @ np.log(q[drawn]))


def bbse(labelled: Labels, y: Labels, target: Labels, n_classes: int) -> Mix:
    """The mix that explains how often each class is predicted, given what is predicted for each class.

    Parameters
    ----------
    labelled, target : integers
        Predictions of labelled and of unlabelled rows.
    y : integers
        Labels.
    n_classes : int

    Notes
    -----
    Black box shift estimation (Lipton, Wang, Smola 2018). Shares that come out negative are taken as zero; a class
    without a labelled row has none.

    Examples
    --------
    >>> y = np.array([0, 0, 0, 1, 1])
    >>> bbse(np.array([0, 0, 1, 1, 1]), y, np.array([0, 0, 1, 1]), 2).q.round(4).tolist()
    [0.75, 0.25]
    """
    joint = np.zeros((n_classes, n_classes))
    np.add.at(joint, (labelled, y), 1)
    per_class = joint / np.maximum(joint.sum(axis=0), 1)
    seen = np.bincount(target, minlength=n_classes) / target.size
    shares = np.maximum(np.linalg.lstsq(per_class, seen, rcond=None)[0], 0)
    return Mix(shares / shares.sum()) if shares.sum() > 0 else Mix(seen)


def interval(
    x: Floats, fit: OffsetsFit, pi: Floats, covariance: Floats | None, clusters: Labels | None = None
) -> Interval:
    """95 % intervals of the mix of unlabelled rows: for the rows that were drawn, and for those that calibrated them.

    Parameters
    ----------
    x : (M, K) float64
        Unlabelled scores with a row maximum of 0.
    fit : OffsetsFit
        Of the labelled rows.
    pi : (K,) float64
    covariance : (K + 1, K + 1) float64 or None
        Of (a, c): the inverse of the Hessian, or `bcts.clustered_covariance`. None leaves out that the fit is
        uncertain, too.
    clusters : (M,) integers, optional
        Rows of one cluster are not independent.

    Notes
    -----
    At q1, of `map_em` with alpha 1.5, where no share is at a bound: with C the covariance of r(q1), D = diag q1 - q1
    q1', and R the derivative of its mean with regard to (a, c), the covariance of q1 is D C+ (C/m + R H^-1 R') C+ D,
    where C/m is the covariance of the mean, `mean_covariance`.
    """
    scores = fit.scores(x)
    q = map_em(scores, pi, np.full(pi.size, 1.5)).q
    r = responsibilities(scores, q)
    values, vectors = _eigen(len(r) * mean_covariance(r))
    inverse = (vectors / values) @ vectors.T
    spread = np.diag(q) - np.outer(q, q)
    within = mean_covariance(r, clusters)
    if covariance is not None:
        moved = _moved(np.where(np.isfinite(x), x, 0.0), r)
        within = within + moved @ covariance @ moved.T
    factor = spread @ inverse
    sd = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", factor, within, factor, optimize=True), 0))
    lower, upper = np.clip(q - LEVEL * sd, 0, 1), np.clip(q + LEVEL * sd, 0, 1)
    return Interval(q, sd, lower, upper, values.size == pi.size - 1)


def _moved(x: Floats, r: Floats) -> Floats:
    """Derivative of the mean posterior with regard to a and c, (K, K + 1)."""
    by_factor = (r * (x - (r * x).sum(axis=1, keepdims=True))).mean(axis=0)
    return np.column_stack([by_factor, np.diag(r.mean(axis=0)) - r.T @ r / len(r)])


def distance(sample: Floats, weights: Floats, other: Floats) -> Distance:
    """How far a weighted sample (N,) is from another one (M,).

    Examples
    --------
    >>> found = distance(np.array([1.0, 2.0]), np.array([3.0, 1.0]), np.array([1.5, 2.0, 3.0]))
    >>> found.ks, round(found.n_eff, 6)
    (0.75, 1.043478)
    """
    order = np.argsort(sample, kind="stable")
    up_to = np.concatenate([[0.0], np.cumsum(weights[order]) / weights.sum()])
    places = np.concatenate([sample, other])
    ours = up_to[np.searchsorted(sample[order], places, side="right")]
    theirs = np.searchsorted(np.sort(other), places, side="right") / other.size
    n = float(weights.sum() ** 2 / (weights**2).sum())
    return Distance(float(np.abs(ours - theirs).max()), n * other.size / (n + other.size))


def binned_distance(tuned: Floats, mix: Floats, here: Floats, independent: tuple[float, float]) -> Distance:
    """The same of samples in bins, the first weighted to a mix of classes.

    Parameters
    ----------
    tuned : (K, B) counts
        Of each class.
    mix : (K,) float64
        Shares of the classes in the other sample; those that were never tuned on are left out.
    here : (B,) counts
    independent : (float, float)
        Units of either for each unit that is counted.

    Examples
    --------
    >>> tuned, mix, here = np.array([[4.0, 0], [0, 4.0]]), np.array([0.75, 0.25]), np.array([2.0, 2.0])
    >>> found = binned_distance(tuned, mix, here, (1.0, 1.0))
    >>> found.ks, round(found.n_eff, 6)
    (0.25, 2.461538)
    """
    n = tuned.sum(axis=1)
    weights = np.divide(mix, n, out=np.zeros(n.size), where=n > 0)
    ours = (weights @ tuned).cumsum()
    theirs = here.cumsum() / here.sum()
    sure = (weights @ n) ** 2 / (weights**2 @ n) * independent[0], here.sum() * independent[1]
    return Distance(float(np.abs(ours / ours[-1] - theirs).max()), float(sure[0] * sure[1] / (sure[0] + sure[1])))


@dataclass(frozen=True)
class Rows:
    """Rows that are looked at.

    Attributes
    ----------
    z : (N, K) float64
        Scores with a row maximum of 0; -inf where a class is impossible.
    margins : (N,) float64
        How far the decision of each is from any other: see `unoic_cli.tallies.margins`.
    clusters : (N,) integers or None
        Rows of one cluster are not independent; None: all are.
    """

    z: Floats
    margins: Floats
    clusters: Labels | None = None


@dataclass(frozen=True)
class Estimate:
    """What labelled rows and unlabelled ones say of the unlabelled ones' mix.

    Attributes
    ----------
    how : str
        What estimated it: a member of `HOW`.
    mix : Mix
        The estimate, whether it is adopted or not.
    prior : (K,) float64
        What is adopted: the estimate, or pi.
    pi : (K,) float64
        The mix of the labelled rows.
    reason : str or None
        Why the estimate is not adopted.
    fit : OffsetsFit
    test : MeanTest
    distance : Distance
        Of the margins of labelled rows, weighted to the estimate where there is a shift, from the unlabelled ones'.
    interval : Interval
    separated : bool
        The fitted scores put every labelled row into its class.
    """

    how: str
    mix: Mix
    prior: Floats
    pi: Floats
    reason: str | None
    fit: OffsetsFit
    test: MeanTest
    distance: Distance
    interval: Interval
    separated: bool

    __repr__ = brief


HOW = ("map-em", "em", "bbse")
"""What estimates a mix."""
NO_SHIFT, NO_LABEL_SHIFT = "no shift found", "not a label shift"


def estimate(labelled: Rows, y: Labels, target: Rows, s: Floats, how: str = "map-em") -> Estimate:
    """Estimate the mix of unlabelled rows, and decide whether to adopt it.

    Parameters
    ----------
    labelled : Rows
    y : (N,) integers
        Their labels.
    target : Rows
        The unlabelled ones.
    s : (K,) float64
        Slopes from the source prior to the uniform one: where the offsets are expected.
    how : {"map-em", "em", "bbse"}

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y, t = rng.integers(0, 2, 400), (rng.random(400) < 0.9).astype(int)
    >>> z, x = (rng.normal(size=(400, 2)) + 3 * np.eye(2)[k] for k in (y, t))
    >>> from unoic_cli.tallies.margins import margins
    >>> rows = [Rows(one - one.max(axis=1, keepdims=True), margins(one)) for one in (z, x)]
    >>> found = estimate(rows[0], y, rows[1], np.zeros(2))
    >>> found.prior.round(2).tolist(), found.reason, found.test.p < 1e-9
    ([0.12, 0.88], None, True)
    """
    n_classes = s.size
    uniform, pi = np.full(n_classes, 1 / n_classes), mix_of(y, n_classes)
    fit = fit_offsets(labelled.z, y, pi, s, uniform)
    ours, theirs = fit.scores(labelled.z), fit.scores(target.z)
    test = mean_test(responsibilities(theirs, pi), responsibilities(ours, pi), (target.clusters, labelled.clusters))
    mix = _mix(how, labelled, y, target, theirs, pi)
    shifted = test.p < SIGNIFICANCE
    weights = (mix.q / pi)[y] if shifted else np.ones(len(y))
    apart = distance(labelled.margins, weights, target.margins)
    reason = NO_SHIFT if not shifted else NO_LABEL_SHIFT if apart.fires else None
    covariance = np.asarray(np.linalg.inv(fit.hessian), np.float64)
    if labelled.clusters is not None:
        covariance = clustered_covariance(fit, labelled.z, y, pi, s, uniform, labelled.clusters)
    return Estimate(
        how, mix, pi if reason else mix.q, pi, reason, fit, test, apart,
        interval(target.z, fit, pi, covariance, target.clusters), bool((ours.argmax(axis=1) == y).all()),
    )  # fmt: skip


def _mix(how: str, labelled: Rows, y: Labels, target: Rows, scores: Floats, pi: Floats) -> Mix:
    if how == "bbse":
        return bbse(labelled.z.argmax(axis=1), y, target.z.argmax(axis=1), pi.size)
    alpha = pseudo_counts(pi, len(scores)) if how == "map-em" else np.ones(pi.size)
    return map_em(scores, pi, alpha)
