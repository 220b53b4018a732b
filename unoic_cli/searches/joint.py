"""Temperature and lambda in one likelihood: the joint fit to labelled units that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAST = 0.01
"""The scale of the scores stays above this: divided by more than a hundred, they are as good as none."""
STEPS = 100
CLOSE = 1e-14
"""Of the Newton decrement, for each nat of the cost, at which the fit ends."""
FIRST = 4096
"""Of more rows than twice as many, so many are fitted first, to begin near the end."""
DIGITS = 9
"""Of the fitted numbers: they are known far better than the data tells them."""
_PIECE = 1 << 15
"""Scores at a time."""


@dataclass(frozen=True)
class Joint:
    """(a, lambda) of softmax(a * z + lambda * s + log pi - log P_t), pi the mix of the labelled units.

    Attributes
    ----------
    a, lam : float
        The scale of the scores (1 / temperature), and lambda. Decisions depend on ``mu = lam / a`` alone.
    se_a, se_lam, se_mu : float
        Standard errors, by the Hessian.
    n : int
        Units that took part.
    posterior : (n, K) float64
        Of these units, at their own mix.
    """

    a: float
    lam: float
    se_a: float
    se_lam: float
    se_mu: float
    n: int
    posterior: NDArray[np.float64]

    @property
    def mu(self) -> float:
        """What decisions depend on."""
        return self.lam / self.a


def to_digits(value: float, n: int = 12) -> float:
    """A number to n significant digits: what processors and libraries add in other orders is the same then.

    Examples
    --------
    >>> to_digits(0.1 + 0.2), to_digits(2 / 3, 3)
    (0.3, 0.667)
    """
    return float(f"{value:.{n}g}")


def log_softmax(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the softmax of each row; -inf stays -inf."""
    import numpy as np

    shifted = rows - rows.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def mix_of(labels: NDArray[Any], n_classes: int) -> NDArray[np.float64]:
    """pi_k = (n_k + 1/2) / (n + K/2), (K,)."""
    import numpy as np

    counts = np.bincount(labels, minlength=n_classes) + 0.5
    return np.asarray(counts / counts.sum())


def fit(
    z: NDArray[np.float64], labels: NDArray[Any], slopes: NDArray[np.float64], target: NDArray[np.float64],
    start: tuple[float, float] = (1.0, 1.0),
) -> Joint:  # fmt: skip
    """The minimum of the negative log-likelihood + (a - 1)**2 / 2 + (lambda - 1)**2 / 2, by damped Newton steps.

    Parameters
    ----------
    z : (n, K) float64
        The largest of each row subtracted. -inf: a class that the unit cannot have (its own is finite).
    labels : (n,) integers
    slopes : (K,) float64
        s_k = log P_t - log P_s.
    target : (K,) float64
        P_t, positive.
    start : tuple of float
        Where it begins: the problem is convex, and the minimum does not depend on it.

    Notes
    -----
    The two ridges keep both parameters finite where classes are separable, and at 1 where the data says nothing.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.log(np.array([[9.0, 1.0]] * 40)) - np.log(9.0)
    >>> found = fit(z, np.array([0] * 30 + [1] * 10), np.array([-0.5, 0.5]), np.array([0.5, 0.5]))
    >>> 0 < found.a < 1.5
    True
    """
    import numpy as np

    offset = np.log(mix_of(labels, z.shape[1])) - np.log(target)
    at = np.array(start, dtype=np.float64)
    if len(labels) > 2 * FIRST:
        some = slice(None, None, len(labels) // FIRST)
        at = newton(_Problem(z[some], labels[some], slopes, offset), at)[0]
    problem = _Problem(z, labels, slopes, offset)
    at, sums = newton(problem, at)
    covariance = np.linalg.inv(sums.hessian)
    slope = np.array([-at[1] / at[0] ** 2, 1 / at[0]])
    se_a, se_lam, se_mu = (float(x**0.5) for x in (covariance[0, 0], covariance[1, 1], slope @ covariance @ slope))
    a, lam, *errors = (to_digits(float(value), DIGITS) for value in (at[0], at[1], se_a, se_lam, se_mu))
    return Joint(a, lam, errors[0], errors[1], errors[2], len(labels), problem.posterior(at))


def scale_costs(z: NDArray[np.float64], labels: NDArray[Any], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cost of `fit` at its minimum for each of several sets of scores of the same units, where no slope is known.

    Parameters
    ----------
    z : (P, n, K) float64
        Finite; the largest of each row subtracted.
    labels : (n,) integers
    target : (K,) float64
        P_t, positive.

    Returns
    -------
    (P,) float64

    Notes
    -----
    Damped Newton steps in the scale alone, for all sets at once.

    Examples
    --------
    >>> import numpy as np
    >>> sure = np.log(np.array([[0.9, 0.1], [0.2, 0.8]])) - np.log([[0.9], [0.8]])
    >>> costs = scale_costs(np.stack([0.1 * sure, sure, 2 * sure]), np.array([0, 1]), np.full(2, 0.5))
    >>> [round(cost, 2) for cost in costs.tolist()]
    [1.2, 0.25, 0.06]
    """
    import numpy as np

    offset = np.log(mix_of(labels, z.shape[2])) - np.log(target)
    own = z[:, np.arange(len(labels)), labels].sum(axis=1)
    rest = float(offset[labels].sum())

    def sums(z: Any, own: Any, a: Any) -> tuple[Any, Any, Any]:
        scores = a[:, None, None] * z + offset
        top = scores.max(axis=2, keepdims=True)
        weights = np.exp(scores - top)
        total = weights.sum(axis=2)
        cost = (np.log(total) + top[:, :, 0]).sum(axis=1) - a * own - rest + (a - 1) ** 2 / 2
        weights *= z
        mean = weights.sum(axis=2) / total
        square = np.einsum("pnk,pnk->pn", weights, z) / total
        return cost, mean.sum(axis=1) - own + (a - 1), (square - mean**2).sum(axis=1) + 1.0

    a = np.ones(len(z))
    cost, slope, curvature = sums(z, own, a)
    length, going = np.ones(len(z)), np.arange(len(z))
    for _ in range(STEPS):
        step = -slope[going] / curvature[going]
        decrement = -slope[going] * step
        left = (decrement >= CLOSE * np.maximum(1.0, np.abs(cost[going]))) & (length[going] > 1e-10)
        going, step, decrement = going[left], step[left], decrement[left]
        if not going.size:
            break
        there = np.maximum(a[going] + length[going] * step, LEAST)
        found = sums(z[going], own[going], there)
        better = found[0] <= cost[going] - 1e-4 * length[going] * np.where(there > LEAST, decrement, 0.0)
        moved = better & (there != a[going])
        for known, new in zip((cost, slope, curvature, a), (*found, there), strict=True):
            known[going[moved]] = new[moved]
        length[going] = np.where(moved, 1.0, length[going] / 2)
    return np.asarray(cost)


class Sums(NamedTuple):
    """The cost at a place, and its derivatives."""

    cost: float
    gradient: NDArray[np.float64]
    hessian: NDArray[np.float64]


class Summed(Protocol):
    """What is minimised."""

    def sums(self, at: Any) -> Sums:
        """The function and its derivatives at a place."""
        ...


class _Problem:
    """Labelled rows, in pieces that stay in cache."""

    def __init__(self, z: Any, labels: Any, slopes: Any, offset: Any) -> None:
        import numpy as np

        self.z, self.labels, self.slopes, self.offset = z, labels, slopes, offset
        size = max(1, _PIECE // z.shape[1])
        self.pieces = [slice(first, first + size) for first in range(0, len(labels), size)]
        self.finite = bool(np.isfinite(z).all())
        rows = np.arange(len(labels))
        self.own = np.array([z[rows, labels].sum(), slopes[labels].sum()])
        self.rest = float(offset[labels].sum())

    def scores(self, at: Any, piece: slice) -> Any:
        return at[0] * self.z[piece] + (at[1] * self.slopes + self.offset)

    def posterior(self, at: Any) -> Any:
        import numpy as np

        return np.concatenate([np.exp(log_softmax(self.scores(at, piece))) for piece in self.pieces])

    def sums(self, at: Any) -> Sums:
        import numpy as np

        logs, gradient, hessian = 0.0, np.zeros(2), np.zeros((2, 2))
        for piece in self.pieces:
            scores = self.scores(at, piece)
            top = scores.max(axis=1, keepdims=True)
            weights = np.exp(scores - top)
            total = weights.sum(axis=1)
            logs += float(np.log(total).sum() + top.sum())
            z = self.z[piece] if self.finite else np.where(np.isfinite(self.z[piece]), self.z[piece], 0.0)
            weighted = weights * z
            means = np.stack([weighted.sum(axis=1), weights @ self.slopes]) / total
            squares = weighted @ self.slopes / total, weights @ self.slopes**2 / total
            zz, zs, ss = (weighted * z).sum(axis=1) @ (1 / total), *(float(one.sum()) for one in squares)
            gradient += means.sum(axis=1)
            hessian += np.array([[zz, zs], [zs, ss]]) - means @ means.T
        cost = logs - float(at @ self.own) - self.rest + float(((at - 1) ** 2).sum()) / 2
        return Sums(cost, gradient - self.own + (at - 1), hessian + np.eye(2))


def newton(problem: Summed, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], Sums]:
    """The minimum of a convex function by damped Newton steps from a place, whose first number stays above `LEAST`."""
    import numpy as np

    here = problem.sums(at)
    for _ in range(STEPS):
        step = -np.linalg.solve(here.hessian, here.gradient)
        decrement, length = float(-here.gradient @ step), 1.0
        if decrement < CLOSE * max(1.0, abs(here.cost)):
            at = at + step if at[0] + step[0] > LEAST else at  # one more squares what is left
            return at, problem.sums(at)
        while length > 1e-10:
            there = at + length * step
            if there[0] > LEAST:
                found = problem.sums(there)
                if found.cost <= here.cost - 1e-4 * length * decrement:
                    break
            length /= 2
        if length <= 1e-10:
            break
        at, here = there, found
    return at, here
