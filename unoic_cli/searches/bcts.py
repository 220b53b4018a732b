"""BCTS-MAP: one factor for all scores and an offset for each class, fitted to labelled rows with priors on both.

The scores of class k become a z_k + c_k. They are those of a posterior for the target prior, so labelled rows that
are distributed as pi have the likelihood softmax(a z + c + log pi - log P_t). The factor is drawn to 1, the offsets to
the slopes s = log P_t - log P_s (or any multiple of them), the stronger the smaller tau is::

    a ~ N(1, 1),  c ~ N(s, tau^2 I + s s')

Negative logarithms of all this are convex in (a, c), so Newton's method finds the minimum; of several tau the one of
the largest evidence is taken, in Laplace's approximation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from unoic_cli.brief import brief
from unoic_cli.searches.joint import LEAST, Sums, log_softmax, newton

Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.integer]

TAUS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5)
"""Spreads of the offsets about the slopes that are compared."""


@dataclass(frozen=True)
class OffsetsFit:
    """What `fit_offsets` found.

    Attributes
    ----------
    a : float
        Factor of the scores.
    c : (K,) float64
        Offsets of the classes; a number that all share changes nothing.
    hessian : (K + 1, K + 1) float64
        Second derivatives of the objective with regard to (a, c_1 ... c_K): the inverse of their covariance.
    log_evidence : float
        Logarithm of the labels' probability under this tau, in Laplace's approximation.
    tau : float
        Spread of the offsets about the slopes.
    """

    a: float
    c: Floats
    hessian: Floats
    log_evidence: float
    tau: float

    __repr__ = brief

    @property
    def centred(self) -> Floats:
        """The offsets with a mean of zero, (K,)."""
        return np.asarray(self.c - self.c.mean())

    @property
    def at_bound(self) -> bool:
        """Whether the factor would be smaller still if it might: the scores say nothing, or the contrary."""
        return self.a < 1.001 * LEAST

    def scores(self, z: Floats) -> Floats:
        """Scores a z + c, c centred, of row-max-subtracted z, (N, K)."""
        return np.asarray(self.a * z + self.centred)


def cluster_sums(rows: Floats, clusters: Labels) -> Floats:
    """Sums of the rows of each cluster, (C, K), in the order of the clusters' numbers.

    Examples
    --------
    >>> cluster_sums(np.array([[1.0], [2.0], [4.0]]), np.array([3, 1, 3])).tolist()
    [[2.0], [5.0]]
    """
    order = np.argsort(clusters, kind="stable")
    edges = np.flatnonzero(np.diff(clusters[order], prepend=clusters[order[:1]] - 1))
    return np.asarray(np.add.reduceat(rows[order], edges, axis=0))


class _Objective:
    """Minus the logarithm of likelihood and priors of theta = (a, c_1 ... c_K), and its derivatives."""

    def __init__(self, z: Floats, y: Labels, shift: Floats, s: Floats, tau: float) -> None:
        self.shift, self.s = shift, s
        self.y, self.rows = y, np.arange(len(y))
        self.impossible = ~np.isfinite(z)
        self.z = np.where(self.impossible, 0.0, z)
        self.covariance = tau**2 * np.eye(s.size) + np.outer(s, s)
        # the inverse by Sherman and Morrison, exact where s is large and tau small
        self.precision = (np.eye(s.size) - np.outer(s, s) / (tau**2 + s @ s)) / tau**2
        counts = np.bincount(y, minlength=s.size)
        self.observed = np.concatenate([[self.z[self.rows, y].sum()], counts])

    def log_posterior(self, theta: Floats) -> Floats:
        scores = theta[0] * self.z + (theta[1:] + self.shift)
        scores[self.impossible] = -np.inf
        return log_softmax(scores)

    def sums(self, theta: Floats) -> Sums:
        """The value, gradient (K + 1,) and Hessian (K + 1, K + 1)."""
        away, logs = theta[1:] - self.s, self.log_posterior(theta)
        prior = 0.5 * (theta[0] - 1) ** 2 + 0.5 * away @ self.precision @ away
        p = np.exp(logs)
        weighted = p * self.z
        mean, sums = weighted.sum(axis=1), p.sum(axis=0)
        gradient = np.concatenate([[mean.sum()], sums]) - self.observed
        gradient += np.concatenate([[theta[0] - 1], self.precision @ away])
        hessian = np.empty((theta.size, theta.size))
        hessian[0, 0] = 1 + (weighted * self.z).sum() - mean @ mean
        hessian[0, 1:] = hessian[1:, 0] = weighted.sum(axis=0) - mean @ p
        hessian[1:, 1:] = np.diag(sums) - p.T @ p + self.precision
        return Sums(float(prior - logs[self.rows, self.y].sum()), gradient, hessian)

    def log_evidence(self, found: Sums) -> float:
        """Laplace: powers of 2 pi of the priors and of the integral cancel."""
        log_det = float(np.linalg.slogdet(self.covariance)[1] + np.linalg.slogdet(found.hessian)[1])
        return -found.cost - log_det / 2


def fit_offsets(
    z: Floats, y: Labels, pi: Floats, s: Floats, target: Floats, taus: Sequence[float] = TAUS
) -> OffsetsFit:
    """Fit a factor of the scores and an offset for each class; tau is the one of the largest evidence.

    Parameters
    ----------
    z : (N, K) float64
        Scores with a row maximum of 0; -inf where a class is impossible, never at a label.
    y : (N,) integers
        Labels in [0, K).
    pi : (K,) float64
        Shares of the classes among these rows, all positive: see `unoic_cli.searches.joint.mix_of`.
    s : (K,) float64
        Slopes log P_t - log P_s, where the offsets are expected.
    target : (K,) float64
        P_t: the fitted scores are those of a posterior for it.
    taus : sequence of float
        Spreads to compare.

    Returns
    -------
    OffsetsFit

    Examples
    --------
    >>> z = np.array([[0.0, -1.5], [0.0, -0.3], [0.0, -1.1], [-0.7, 0.0]])
    >>> prior = np.full(2, 0.5)
    >>> fit = fit_offsets(z, np.array([0, 0, 1, 1]), prior, np.zeros(2), prior)
    >>> round(fit.a, 4), fit.centred.round(4).tolist(), fit.tau
    (0.8904, [-0.0043, 0.0043], 0.1)
    """
    fits = []
    theta = np.concatenate([[1.0], s])
    for tau in sorted(taus):
        objective = _Objective(z, y, np.log(pi) - np.log(target), s, tau)
        theta, found = newton(objective, theta)
        fits.append(OffsetsFit(float(theta[0]), theta[1:], found.hessian, objective.log_evidence(found), tau))
    return max(fits, key=lambda fit: fit.log_evidence)


def clustered_covariance(
    fit: OffsetsFit, z: Floats, y: Labels, pi: Floats, s: Floats, target: Floats, clusters: Labels
) -> Floats:
    """Covariance of (a, c) where rows of one cluster are not independent, (K + 1, K + 1).

    The inverse Hessian on both sides of what gradients of the clusters, and the priors, vary; the other arguments are
    those of the fit.
    """
    objective = _Objective(z, y, np.log(pi) - np.log(target), s, fit.tau)
    residual = np.exp(objective.log_posterior(np.concatenate([[fit.a], fit.c])))
    residual[objective.rows, y] -= 1
    by_row = np.column_stack([(residual * objective.z).sum(axis=1), residual])
    sums = cluster_sums(by_row, clusters)
    middle = sums.T @ sums
    middle[0, 0] += 1
    middle[1:, 1:] += objective.precision
    inverse = np.linalg.inv(fit.hessian)
    return np.asarray(inverse @ middle @ inverse)
