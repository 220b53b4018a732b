"""The method in plain float64 numpy, written from the paper's printed formulas: what the kernels are held to.

"Posterior Re-calibration for Imbalanced Datasets" (Tian et al., NeurIPS 2020) and, for delta and the noisy-or,
"UNO: Uncertainty-aware Noisy-Or Multimodal Fusion" (Tian et al., ICRA 2020). Slow, short, and free of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def slopes(source_prior: ArrayLike, target_prior: ArrayLike) -> Floats:
    """s_k = log P_t(k) - log P_s(k), the line's slope of class k in Eq. 7; counts do as priors. Shape (K,)."""
    source, target = np.asarray(source_prior, np.float64), np.asarray(target_prior, np.float64)
    if not (np.all(source > 0) and np.all(target > 0)):
        raise ValueError("a prior holds a zero, a negative or a NaN; every class needs a positive one")
    return np.asarray(np.log(target / target.sum()) - np.log(source / source.sum()), np.float64)


def scores(z: ArrayLike, s: ArrayLike, lam: float, delta: ArrayLike = 1.0, b: ArrayLike = 0.0) -> Floats:
    """delta * z + b + lambda * s, the logarithm of Eq. 7 before it is normalised (with offsets b, (K,)). Shape (N, K).

    delta scalar or (N,).
    """
    factor = np.asarray(delta, np.float64)[..., np.newaxis]
    moved = factor * np.asarray(z, np.float64) + np.asarray(b, np.float64)
    return np.asarray(moved + lam * np.asarray(s, np.float64), np.float64)


def scores_rebalanced_first(
    z: ArrayLike, s: ArrayLike, lam: float, delta: ArrayLike = 1.0, b: ArrayLike = 0.0, temperature: float = 1.0
) -> Floats:
    """delta * (z / T + b + lambda * s): the same when flattening comes last."""
    return np.asarray(delta, np.float64)[..., np.newaxis] * scores(z, s, lam, 1.0 / temperature, b)


def softmax(z: ArrayLike) -> Floats:
    """exp(z_k) / sum_j exp(z_j), each row shifted by its own maximum."""
    z = np.asarray(z, np.float64)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True), np.float64)


def posterior(z: ArrayLike, s: ArrayLike, lam: float, delta: ArrayLike = 1.0) -> Floats:
    """Eq. 7: P_f(k|x) proportional to P_d(k|x)^(delta) * (P_t(k) / P_s(k))^lambda. Shape (N, K)."""
    return softmax(scores(z, s, lam, delta))


def predict(z: ArrayLike, s: ArrayLike, lam: float, delta: ArrayLike = 1.0) -> Counts:
    """Arg max of Eq. 7, the lowest class on ties. Shape (N,)."""
    return np.asarray(np.argmax(scores(z, s, lam, delta), axis=-1), np.int64)


def counts(
    labels: ArrayLike, predictions: ArrayLike, n_classes: int, ignore: int | None = None
) -> tuple[Counts, Counts, Counts]:
    """True positives, predicted and support per class; rows labelled < 0 or `ignore` are in none of them. (K,) each."""
    table = confusion(labels, predictions, n_classes, ignore)
    return np.diagonal(table).copy(), np.asarray(table.sum(axis=0), np.int64), np.asarray(table.sum(axis=1), np.int64)


def confusion(labels: ArrayLike, predictions: ArrayLike, n_classes: int, ignore: int | None = None) -> Counts:
    """Rows of each true class (first axis) given each predicted class (second axis). Shape (K, K)."""
    table = np.zeros((n_classes, n_classes), np.int64)
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    kept = (labels >= 0) & (labels != (-1 if ignore is None else ignore))
    np.add.at(table, (labels[kept], predictions[kept]), 1)
    return table


def metrics(
    tp: ArrayLike, predicted: ArrayLike, support: ArrayLike, absent: str = "reference", ignored: Sequence[int] = ()
) -> dict[str, Any]:
    """Accuracy, mean class accuracy, mean IoU and macro F1; of counts as `Fraction` objects without any rounding.

    `absent` says which classes enter the means: ``reference`` those in the truth or the predictions (a class only
    predicted has IoU and F1 of 0), ``truth-only`` those in the truth, ``zero`` all, with 0 where nothing is defined.
    Mean class accuracy takes the classes in the truth, under ``zero`` all of them. `ignored` classes enter no mean. An
    empty mean is NaN.
    """
    if absent not in ("reference", "truth-only", "zero"):
        raise ValueError(f"unknown policy for absent classes: {absent}")
    recalls: list[Any] = []
    ious: list[Any] = []
    f1s: list[Any] = []
    for k, (t, p, n) in enumerate(np.stack([tp, predicted, support], axis=-1).tolist()):
        if k in ignored:
            continue
        if n > 0 or absent == "zero":
            recalls.append(t / n if n else 0)
        if n > 0 or absent == "zero" or (absent == "reference" and p > 0):
            ious.append(t / (n + p - t) if n + p else 0)
            f1s.append(2 * t / (n + p) if n + p else 0)
    return {
        "acc": np.sum(tp) / np.sum(support) if np.sum(support) else float("nan"),
        "macc": mean(recalls),
        "miou": mean(ious),
        "f1": mean(f1s),
    }


def ratio(table: Any, k: int, name: str) -> Any:
    """Recall, precision, IoU, F1 or specificity of class k of a confusion matrix (rows = truth); None of nothing."""
    tp, truth, predicted = table[k][k], sum(table[k]), sum(row[k] for row in table)
    others = [row for i, row in enumerate(table) if i != k]
    over, under = {
        "recall": (tp, truth),
        "precision": (tp, predicted),
        "iou": (tp, truth + predicted - tp),
        "f1": (2 * tp, truth + predicted),
        "specificity": (sum(n for row in others for j, n in enumerate(row) if j != k), sum(map(sum, others))),
    }[name]
    return over / under if under else None


def class_mean(table: Any, name: str, absent: str, ignored: Sequence[int] = ()) -> Any:
    """Mean over classes of `ratio`, 0 without a denominator; see `metrics` for `absent` and `ignored`."""
    kept = []
    for k in range(len(table)):
        truth, predicted = sum(table[k]) > 0, sum(row[k] for row in table) > 0
        seen = truth or (predicted and absent == "reference" and name != "recall") or absent == "zero"
        if seen and k not in ignored:
            kept.append(ratio(table, k, name) or 0)
    return mean(kept)


def gmean(table: Any, absent: str, ignored: Sequence[int]) -> float:
    """Geometric mean of the recalls of the classes in the truth, under ``zero`` of all (0 where one is absent)."""
    kept = [k for k in range(len(table)) if k not in ignored and (sum(table[k]) > 0 or absent == "zero")]
    return float(np.prod([float(ratio(table, k, "recall") or 0) for k in kept])) ** (1 / len(kept)) if kept else np.nan


def kappa(table: Any) -> Any:
    """Cohen's kappa, (p_o - p_e) / (1 - p_e)."""
    n = sum(map(sum, table))
    observed = sum(table[k][k] for k in range(len(table))) / n if n else 0
    chance = sum(sum(table[k]) * sum(row[k] for row in table) for k in range(len(table))) / n**2 if n else 1
    return (observed - chance) / (1 - chance) if chance != 1 else float("nan")


def mcc(table: Any) -> float:
    """R_K of Gorodkin: the correlation of the indicators of truth and prediction; 0 where one of them is constant."""
    table = np.array([[float(n) for n in row] for row in table])
    if not table.sum():
        return np.nan
    joint = table / table.sum()
    covariance = np.trace(joint) - joint.sum(axis=0) @ joint.sum(axis=1)
    variances = [1 - (joint.sum(axis=axis) ** 2).sum() for axis in (0, 1)]
    return float(covariance / np.sqrt(np.prod(variances))) if min(variances) > 1e-12 else 0.0


def fwiou(table: Any) -> Any:
    """IoU of each class of the truth, weighted by its share of the truth."""
    n = sum(map(sum, table))
    weighted = [sum(table[k]) * ratio(table, k, "iou") for k in range(len(table)) if sum(table[k])]
    return sum(weighted) / n if n else float("nan")


def shots(table: Any, absent: str, ignored: Sequence[int], training: Sequence[float], name: str) -> Any:
    """Mean recall of classes of > 100 (many), 20 to 100 (medium) or < 20 (few) training samples."""
    low, high = {"many": (101, np.inf), "medium": (20, 100), "few": (0, 19)}[name]
    others = [k for k, n in enumerate(training) if not low <= n <= high]
    return class_mean(table, "recall", absent, [*ignored, *others])


METRICS: dict[str, Callable[..., Any]] = {
    "acc": lambda t, **_: sum(t[k][k] for k in range(len(t))) / n if (n := sum(map(sum, t))) else float("nan"),
    "macc": lambda t, absent, ignored, **_: class_mean(t, "recall", absent, ignored),
    "miou": lambda t, absent, ignored, **_: class_mean(t, "iou", absent, ignored),
    "f1": lambda t, absent, ignored, **_: class_mean(t, "f1", absent, ignored),
    "gmean": lambda t, absent, ignored, **_: gmean(t, absent, ignored),
    "kappa": lambda t, **_: kappa(t),
    "mcc": lambda t, **_: mcc(t),
    "fwiou": lambda t, **_: fwiou(t),
    "macro-precision": lambda t, absent, ignored, **_: class_mean(t, "precision", absent, ignored),
    "specificity": lambda t, absent, ignored, **_: class_mean(t, "specificity", absent, ignored),
    "many": lambda t, absent, ignored, training: shots(t, absent, ignored, training, "many"),
    "medium": lambda t, absent, ignored, training: shots(t, absent, ignored, training, "medium"),
    "few": lambda t, absent, ignored, training: shots(t, absent, ignored, training, "few"),
}
"""Metrics of a confusion matrix (rows = truth) of integers or of `Fraction` objects."""


def nll(p: Floats, labels: Counts) -> float:
    """Mean of -log P(label)."""
    return float(-np.mean(np.log(p[np.arange(len(labels)), labels])))


def brier(p: Floats, labels: Counts) -> float:
    """Mean of the squared distance to the indicator of the label."""
    return float(np.mean(np.sum((p - np.eye(p.shape[1])[labels]) ** 2, axis=1)))


def ece(p: Floats, labels: Counts) -> float:
    """Mean over units of |accuracy - mean confidence| of their bin, (i / 15, (i + 1) / 15] of the confidence."""
    confidence, hit = p.max(axis=1), p.argmax(axis=1) == labels
    place = np.ceil(confidence * 15).astype(int)
    return float(sum(abs(np.sum(hit[place == i]) - np.sum(confidence[place == i])) for i in range(16)) / len(labels))


def classwise_ece(p: Floats, labels: Counts) -> float:
    """Mean over classes of `ece` of the class's own probability against the indicator of the label."""
    off = 0.0
    for k in range(p.shape[1]):
        place = np.maximum(np.ceil(p[:, k] * 15).astype(int) - 1, 0)
        off += sum(abs(np.sum(labels[place == i] == k) - np.sum(p[place == i, k])) for i in range(15))
    return float(off / len(labels) / p.shape[1])


def balanced_nll(p: Floats, labels: Counts) -> float:
    """Mean over the classes of the truth of the mean of -log P(label) over the units of the class."""
    return float(np.mean([nll(p[labels == k], labels[labels == k]) for k in np.unique(labels)]))


SCORED: dict[str, Callable[[Floats, Counts], float]] = {
    "nll": nll,
    "brier": brier,
    "ece": ece,
    "classwise-ece": classwise_ece,
    "balanced-nll": balanced_nll,
}
"""Metrics of posteriors, (N, K), and labels, (N,), none of them ignored."""


def influence(labels: Counts, predictions: Counts, n_classes: int, name: str) -> Floats:
    """What each unit adds to acc, macc, miou or f1 to first order (all classes present). Shape (N,)."""
    tp, p, n = (part.astype(np.float64) for part in counts(labels, predictions, n_classes))
    union, both = n + p - tp, n + p
    u = np.zeros(len(labels))
    for i, (y, q) in enumerate(zip(labels, predictions, strict=True)):
        hit = float(q == y)
        u[i] = {
            "acc": hit / len(labels),
            "macc": hit / n[y] / n_classes,
            "miou": (hit * (1 + tp[y] / union[y]) / union[y] - tp[q] / union[q] / union[q]) / n_classes,
            "f1": (hit * 2 / both[y] - 2 * tp[q] / both[q] / both[q]) / n_classes,
        }[name]
    return u


def paired_error(labels: Counts, before: Counts, after: Counts, n_classes: int, name: str) -> float:
    """sqrt(sum_y n_y var_y(d)), d the difference of `influence`, ddof 1: of independent units."""
    d = influence(labels, after, n_classes, name) - influence(labels, before, n_classes, name)
    return float(np.sqrt(sum(np.sum(labels == y) * np.var(d[labels == y], ddof=1) for y in range(n_classes))))


def clustered_error(
    labels: Counts, before: Counts, after: Counts, n_classes: int, name: str, clusters: ArrayLike
) -> float:
    """The same of units in C clusters: C / (C - 1) times the squares of their sums of d less its class's mean.

    Not less than that of independent units.
    """
    clusters = np.asarray(clusters)
    d = influence(labels, after, n_classes, name) - influence(labels, before, n_classes, name)
    for y in range(n_classes):
        d[labels == y] -= d[labels == y].mean()
    sums = [d[clusters == one].sum() for one in np.unique(clusters)]
    wide = float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(np.square(sums))))
    return max(wide, paired_error(labels, before, after, n_classes, name))


def recall_error(labels: Counts, before: Counts, after: Counts, k: int) -> float:
    """Of the change of class k's recall, of independent units."""
    own = labels == k
    d = (after[own] == k).astype(float) - (before[own] == k)
    return float(np.std(d, ddof=1) / np.sqrt(own.sum()))


def reliability(p: Floats, labels: Counts) -> list[tuple[int, int, float]]:
    """Units, hits and sum of confidences of each of 15 bins, (i / 15, (i + 1) / 15] of the confidence."""
    confidence, hit = p.max(axis=1), p.argmax(axis=1) == labels
    place = np.maximum(np.ceil(confidence * 15).astype(int) - 1, 0)
    return [
        (int(np.sum(place == i)), int(np.sum(hit[place == i])), float(np.sum(confidence[place == i])))
        for i in range(15)
    ]


def mean(values: Sequence[Any]) -> Any:
    """Sum over count, NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")


def chosen(values: Sequence[Any], lams: Sequence[float] | Floats) -> int:
    """The point to take of a curve of exact values (None: it is not allowed); 0 where no other is better.

    Of the runs of the best value the one of most points, then the one whose middle (the lower of two) is nearest to 0,
    then the first: its middle.
    """
    best = max(value for value in values if value is not None)
    zero = [i for i, lam in enumerate(lams) if lam == 0 and values[i] == best]
    if zero:
        return zero[0]
    runs: list[list[int]] = []
    for i, value in enumerate(values):
        if value != best:
            continue
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    middles = [(-len(run), abs(float(lams[run[(len(run) - 1) // 2]])), run[(len(run) - 1) // 2]) for run in runs]
    return min(middles)[2]


def curve(
    z: ArrayLike, labels: ArrayLike, s: ArrayLike, lams: Sequence[float] | Floats, delta: ArrayLike = 1.0
) -> tuple[Counts, Counts, Counts]:
    """True positives and predicted, (G, K) each, and support, (K,): one `predict` (Eq. 7) per lambda."""
    n_classes = np.asarray(s).size
    tp = np.zeros((len(lams), n_classes), np.int64)
    predicted = np.zeros_like(tp)
    support = np.zeros(n_classes, np.int64)
    for g, lam in enumerate(lams):
        tp[g], predicted[g], support = counts(labels, predict(z, s, float(lam), delta), n_classes)
    return tp, predicted, support


def top_k_hits(
    z: ArrayLike, labels: ArrayLike, s: ArrayLike, lams: Sequence[float] | Floats, k: int, delta: ArrayLike = 1.0
) -> Counts:
    """Rows whose label ranks below k at each lambda of Eq. 7; of equal scores the lower class ranks first. (G,)."""
    label = np.asarray(labels, np.int64)[:, np.newaxis]
    hits = np.zeros(len(lams), np.int64)
    for g, lam in enumerate(lams):
        score = scores(z, s, float(lam), delta)
        own = np.take_along_axis(score, np.maximum(label, 0), axis=1)
        ahead = (score > own) | ((score == own) & (np.arange(score.shape[1]) < label))
        hits[g] = np.sum((ahead.sum(axis=1) < k) & (label[:, 0] >= 0))
    return hits


def entropy(p: ArrayLike) -> Floats:
    """H = -sum_k p_k log p_k in nats, with 0 log 0 = 0. Shape (N,), or () for one row."""
    p = np.asarray(p, np.float64)
    return np.asarray(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1), np.float64)


def entropy_delta(H: ArrayLike, mu: float, sigma: float, power: float = 1) -> Floats:
    """UNO: delta = mu / (max(0, H - mu - sigma) + mu), to the given power; 1 at mu = 0 without excess entropy."""
    excess = np.maximum(0.0, np.asarray(H, np.float64) - mu - sigma)
    ratio = np.where(excess > 0, mu / np.where(excess > 0, excess + mu, 1.0), 1.0)
    return np.asarray(ratio**power, np.float64)


def normalised(p: ArrayLike) -> Floats:
    """Each row divided by its sum."""
    p = np.asarray(p, np.float64)
    return np.asarray(p / p.sum(axis=-1, keepdims=True), np.float64)


def flatten(p: ArrayLike, delta: ArrayLike) -> Floats:
    """P_k^delta, normalised: the first step of Algorithm 1; delta scalar or (N,)."""
    return normalised(np.asarray(p, np.float64) ** np.asarray(delta, np.float64)[..., np.newaxis])


def noisy_or(ps: Sequence[ArrayLike], normalise: bool = True) -> Floats:
    """Algorithm 1: 1 - prod_m (1 - P_m(k)), normalised unless told not to. Each (N, K) or (K,)."""
    missed = np.prod([1.0 - np.asarray(p, np.float64) for p in ps], axis=0)
    return normalised(1.0 - missed) if normalise else np.asarray(1.0 - missed, np.float64)


def noisy_or_winner(log_ps: Sequence[ArrayLike]) -> Counts:
    """Arg max of the noisy-or from log-probabilities: the least sum_m log(1 - P_m(k)), each 1 - P summed from the rest.

    The same class as `noisy_or`, but right where 1 - P is lost to rounding. Each (N, K) or (K,).
    """
    missed: Any = 0.0
    for log_p in log_ps:
        log_p = np.asarray(log_p, np.float64)
        others = [np.delete(log_p, k, axis=-1) for k in range(log_p.shape[-1])]
        missed = missed + np.stack([np.logaddexp.reduce(rest, axis=-1) for rest in others], axis=-1)
    return np.asarray(np.argmin(missed, axis=-1), np.int64)


def average(ps: Sequence[ArrayLike]) -> Floats:
    """Mean of the experts' posteriors."""
    return np.asarray(np.mean([np.asarray(p, np.float64) for p in ps], axis=0), np.float64)


def product(ps: Sequence[ArrayLike]) -> Floats:
    """Product of the experts' posteriors, normalised."""
    return normalised(np.prod([np.asarray(p, np.float64) for p in ps], axis=0))


def assumed_prior(source_prior: ArrayLike, target_prior: ArrayLike, lam: float) -> Floats:
    """The prior that Eq. 7's posterior assumes, as P_d assumes P_s: P_s^(1 - lambda) P_t^lambda, normalised. (K,)."""
    return normalised(normalised(source_prior) ** (1.0 - lam) * normalised(target_prior) ** lam)


def bayes(ps: Sequence[ArrayLike], priors: Sequence[ArrayLike]) -> Floats:
    """pi prod_m P_m / pi_m, normalised, with the experts' priors pi_m, (K,) each, and pi their geometric mean."""
    common = np.prod([np.asarray(pi, np.float64) ** (1.0 / len(priors)) for pi in priors], axis=0)
    ratios = [np.asarray(p, np.float64) / np.asarray(pi, np.float64) for p, pi in zip(ps, priors, strict=True)]
    return normalised(common * np.prod(ratios, axis=0))


def algorithm2(
    metric: Callable[[int], float], step_count_start: int, step_count_max: int
) -> tuple[int, dict[int, float]]:
    """Algorithm 2 on the indices i of the lattice lambda = i * step: the index returned, and every value it saw.

    The upper end doubles while it is no worse than lambda = 0, up to `step_count_max`; then the interval halves
    towards the larger of two neighbours. Repaired: indices in place of lambda values, a bounded first loop, and the
    best value seen (lowest index on ties) is returned, so never one below lambda = 0. Exact on unimodal curves only.
    """
    visited: dict[int, float] = {}

    def value(index: int) -> float:
        if index not in visited:
            visited[index] = metric(index)
        return visited[index]

    low, high = 0, min(max(step_count_start, 1), step_count_max)
    while value(high) >= value(0) and high < step_count_max:
        high = min(2 * high, step_count_max)
    while high > low + 1:
        middle = (low + high) // 2
        if value(middle) > value(middle + 1):
            high = middle
        else:
            low = middle
    return max(sorted(visited), key=lambda index: visited[index]), visited


def algorithm2_printed(metric: Callable[[int], float], high: int, most: int) -> int:
    """Algorithm 2 as printed, on indices (lambda = index * prec); its first loop ends at `most`."""
    if metric(1) < metric(0):
        return 0
    while metric(high) >= metric(0):
        if high == most:
            break
        high = min(high + 5, most)

    def find(low: int, high: int) -> int:
        if low == high:
            return low
        if high == low + 1:
            return low if metric(low) >= metric(high) else high
        middle = (low + high) // 2
        if metric(middle) > metric(middle + 1) and metric(middle) > metric(middle - 1):
            return middle
        if metric(middle) > metric(middle + 1) and metric(middle) < metric(middle - 1):
            return find(low, middle - 1)
        return find(middle + 1, high)

    return find(0, high)


def mix(labels: Counts, n_classes: int) -> Floats:
    """pi_k = (n_k + 1/2) / (n + K / 2). Shape (K,)."""
    raised = np.array([np.sum(labels == k) + 0.5 for k in range(n_classes)])
    return np.asarray(raised / raised.sum(), np.float64)


def bcts_cost(theta: Floats, z: ArrayLike, y: Counts, pi: Floats, s: Floats, target: Floats, tau: float) -> float:
    """Minus log likelihood and priors of (a, c): what BCTS-MAP minimises, up to constants that tau does not change."""
    a, c, k = theta[0], theta[1:], len(s)
    moved = a * np.asarray(z, np.float64) + c + np.log(pi) - np.log(target)
    covariance = tau**2 * np.eye(k) + np.outer(s, s)
    fit = -sum(float(np.log(softmax(row))[label]) for row, label in zip(moved, y, strict=True))
    away = c - s
    return float(fit + (a - 1) ** 2 / 2 + away @ np.linalg.solve(covariance, away) / 2)


def bcts_evidence(theta: Floats, hessian: Floats, cost: float, s: Floats, tau: float) -> float:
    """Laplace's approximation at the minimum: powers of 2 pi cancel."""
    covariance = tau**2 * np.eye(len(s)) + np.outer(s, s)
    return -cost - float(np.linalg.slogdet(covariance)[1]) / 2 - float(np.linalg.slogdet(hessian)[1]) / 2


def em_step(scores: ArrayLike, q: Floats, alpha: Floats) -> Floats:
    """q <- (sum_i r_i(q) + alpha - 1) / (m + sum(alpha - 1)), r_i(q) = softmax(L_i + log q). Shape (K,)."""
    r = [softmax(row + np.log(q)) for row in np.asarray(scores, np.float64)]
    return np.asarray((np.sum(r, axis=0) + alpha - 1) / (len(r) + np.sum(alpha - 1)), np.float64)


def shift_test(target: Floats, labelled: Floats) -> tuple[float, int]:
    """T2 = g' V^+ g of the gap g of two means and its covariance V, and the rank of V."""
    g = target.mean(axis=0) - labelled.mean(axis=0)
    v = np.cov(target.T, ddof=0) / len(target) + np.cov(labelled.T, ddof=0) / len(labelled)
    return float(g @ np.linalg.pinv(v, rcond=1e-9, hermitian=True) @ g), int(
        np.linalg.matrix_rank(v, tol=1e-9 * np.linalg.norm(v, 2))
    )


def mix_sd(scores: ArrayLike, x: Floats, q: Floats, hessian: Floats | None) -> Floats:
    """Standard deviations of MAP-EM's q: D C^+ (C/m + R H^-1 R') C^+ D. Shape (K,)."""
    r = np.array([softmax(row + np.log(q)) for row in np.asarray(scores, np.float64)])
    c, d = np.cov(r.T, ddof=0), np.diag(q) - np.outer(q, q)
    middle = c / len(r)
    if hessian is not None:
        by_a = np.mean([ri * (xi - ri @ xi) for ri, xi in zip(r, x, strict=True)], axis=0)
        by_c = np.mean([np.diag(ri) - np.outer(ri, ri) for ri in r], axis=0)
        jacobian = np.column_stack([by_a, by_c])
        middle = middle + jacobian @ np.linalg.inv(hessian) @ jacobian.T
    inverse = np.linalg.pinv(c, rcond=1e-9, hermitian=True)
    return np.asarray(np.sqrt(np.diag(d @ inverse @ middle @ inverse @ d)), np.float64)


def weighted_ks(sample: Floats, weights: Floats, other: Floats) -> float:
    """The largest difference of a weighted sample's distribution function and another's."""
    places = sorted({*sample.tolist(), *other.tolist()})
    share = weights / weights.sum()
    return max(abs(float(share[sample <= v].sum()) - float(np.mean(other <= v))) for v in places)


# ---------------------------------------------------------------- temperature and lambda in one likelihood


def joint(z: Floats, labels: Counts, s: Floats, target: Floats, a: float, lam: float) -> tuple[float, Floats, Floats]:
    """The penalised likelihood of a and lambda at the labels' own mix, its gradient and its Hessian.

    -sum log softmax(a z + lambda s + log pi - log P_t)_y + (a - 1)^2 / 2 + (lambda - 1)^2 / 2
    """
    rows = np.arange(len(labels))
    theta = a * z + lam * s + np.log(mix(labels, z.shape[1])) - np.log(target)
    theta = theta - theta.max(axis=1, keepdims=True)
    logs = theta - np.log(np.exp(theta).sum(axis=1, keepdims=True))
    p = np.exp(logs)
    features = np.stack([z, np.broadcast_to(s, z.shape)])
    means = (p * features).sum(axis=2)
    away = features - means[:, :, None]
    gradient = (means - features[:, rows, labels]).sum(axis=1) + np.array([a - 1, lam - 1])
    hessian = np.einsum("nk,ank,bnk->ab", p, away, away) + np.eye(2)
    value = -logs[rows, labels].sum() + ((a - 1) ** 2 + (lam - 1) ** 2) / 2
    return float(value), np.asarray(gradient), np.asarray(hessian)


def joint_fit(z: Floats, labels: Counts, s: Floats, target: Floats) -> tuple[Floats, Floats]:
    """(a, lambda) that minimise it, and their standard errors, by Newton steps that are halved until they gain."""
    z = z - z.max(axis=1, keepdims=True)
    at = np.ones(2)
    for _ in range(200):
        value, gradient, hessian = joint(z, labels, s, target, *at)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        if np.abs(step).max() < 1e-13 * np.abs(at).max():
            break
        while size > 1e-9 and not (
            (at - size * step)[0] > 0.01 and joint(z, labels, s, target, *(at - size * step))[0] <= value
        ):
            size /= 2
        at = at - size * step
    return at, np.sqrt(np.diag(np.linalg.inv(hessian)))
