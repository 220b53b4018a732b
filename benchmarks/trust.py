"""Which lambda holds on data that nobody has seen: rules for choosing it, on published logits or on generated ones.

    python benchmarks/trust.py [FILE.npz ...] [--repeats 20] [--metrics macc,miou,f1] [--generated 4]

Each file holds `logits` (N, K) (or `logits_NAME` of several networks), `labels`, `split` (val and test), and
`train_counts` where they are known (else the source prior is the label mix of val, or the mean posterior there of a
language model). lambda is tuned on val, or on 100, 300 or 1,000 of its rows, as often as asked, and measured on test.
Printed for each rule: regret (the best lambda of test minus what the rule gives), the gain over lambda 0, the worst
run, and the share of runs that lose more than 0.3 points; then log-loss and calibration error of what `calibrate`
writes; then how often 95 % intervals hold.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unoic_cli import search_lambda

SIZES = (100, 300, 1000, None)
RULES = ("lambda 0", "lambda 1", "best", "paper", "anchored", "offsets")
RULE = {"best": "best", "paper": "paper", "anchored": "anchored", "offsets": "anchored"}
LOSS = -0.3


@dataclass
class Network:
    """Saved scores of one network."""

    name: str
    z: np.ndarray
    y: np.ndarray
    val: np.ndarray
    test: np.ndarray
    prior: np.ndarray


def softmax(z: np.ndarray) -> np.ndarray:
    """Of each row."""
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def published(path: str) -> Iterator[Network]:
    """The networks of a file."""
    with np.load(path, allow_pickle=False) as file:
        y, split = file["labels"].astype(int), file["split"].astype(str)
        for key in (name for name in file.files if name.startswith("logits")):
            z = file[key].astype(np.float64)
            val, test = ((split == part) & (y >= 0) for part in ("val", "test"))
            if not (val.sum() > 50 and test.sum() > 50):
                continue
            if "train_counts" in file.files:
                prior = file["train_counts"].astype(float)
            elif "gpt2" in path:  # never trained on these classes: its own mix is what there is
                prior = softmax(z[val]).mean(0)
            else:
                prior = np.bincount(y[val], minlength=z.shape[1]).astype(float)
            prior = np.maximum(prior, 1e-9)
            stem = path.rsplit("/", 1)[-1].removesuffix(".npz")
            yield Network(stem + key.removeprefix("logits"), z, y, val, test, prior / prior.sum())


def generated(seed: int) -> Network:
    """A long-tailed problem whose logits carry the training prior, over- or underconfident, and noisy."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(4, 20)), 12_000
    prior = 0.6 ** np.arange(k) + 0.002
    prior /= prior.sum()
    centres = rng.normal(size=(k, 8)) * rng.uniform(0.6, 1.2)
    balanced = np.full(k, 1 / k)
    y = rng.choice(k, n, p=0.5 * prior + 0.5 * balanced)
    x = centres[y] + rng.normal(size=(n, 8))
    logs = x @ centres.T - (centres**2).sum(1) / 2 + np.log(prior)
    z = rng.uniform(0.5, 3) * (logs + rng.normal(size=k) * 0.3 * rng.random())
    first = np.arange(n) < n // 3
    return Network(f"generated {seed} (K={k})", z, y, first, ~first, prior)


def values(metric: str, z: np.ndarray, y: np.ndarray, s: np.ndarray, lams: np.ndarray) -> np.ndarray:
    """The metric at each lambda, in percent."""
    k, found = z.shape[1], []
    support = np.bincount(y, minlength=k)
    on = support > 0
    for lam in lams:
        p = (z + lam * s).argmax(1)
        hits, predicted = np.bincount(y[p == y], minlength=k), np.bincount(p, minlength=k)
        under = {"macc": support, "miou": support + predicted - hits, "f1": (support + predicted) / 2}[metric]
        found.append(100 * (hits[on] / under[on]).mean())
    return np.array(found)


def chosen(rule: str, metric: str, z: np.ndarray, y: np.ndarray, prior: np.ndarray) -> tuple[float, np.ndarray]:
    """The lambda, and the offsets, that a rule takes; offsets are fitted where each class has the 20 rows they need."""
    none = np.zeros(z.shape[1])
    if rule.startswith("lambda"):
        return float(rule.split()[1]), none
    if rule == "offsets" and np.bincount(y, minlength=z.shape[1]).min() >= 20:
        found = search_lambda(z, y, source_prior=prior, metric=metric, offsets="fit").calibration
        return found.lam, np.array(found.modalities[0].offsets)
    return search_lambda(z, y, source_prior=prior, metric=metric, choose=RULE[rule]).lam, none


def subsamples(network: Network, size: int | None, repeats: int) -> Iterator[np.ndarray]:
    """Rows of val, in which every class that val has is met."""
    rows = np.flatnonzero(network.val)
    if size is None or size >= rows.size:
        if size is None:
            yield rows
        return
    rng = np.random.default_rng(size)
    for _ in range(repeats):
        yield rng.choice(rows, size, replace=False)


def regrets(networks: list[Network], metrics: list[str], repeats: int) -> None:
    """The table of rules."""
    for metric in metrics:
        low = 0.0 if metric == "macc" else -1.0
        lams = np.arange(low, 6.001, 0.05)
        found: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
        for network in networks:
            s = -np.log(len(network.prior)) - np.log(network.prior)
            z, y = network.z[network.test], network.y[network.test]
            best, zero = values(metric, z, y, s, lams).max(), values(metric, z, y, s, np.zeros(1))[0]
            for size in SIZES:
                for rows in subsamples(network, size, repeats):
                    for rule in RULES:
                        lam, offsets = chosen(rule, metric, network.z[rows], network.y[rows], network.prior)
                        value = values(metric, z + offsets, y, s, np.array([lam]))[0]
                        found[rule].append((max(best, value) - value, value - zero))
        print(f"{metric}: regret / gain / worst / % of runs below {LOSS}, {len(found['best'])} runs")
        for rule, pairs in found.items():
            regret, gain = np.array(pairs).T
            lost = 100 * (gain < LOSS).mean()
            print(f"  {rule:9s} {regret.mean():6.2f} {gain.mean():6.2f} {gain.min():7.2f} {lost:5.1f}")


def probabilities(networks: list[Network]) -> None:
    """Log-loss and calibration error on test, for the uniform target, of what is fitted on val."""
    print("test NLL / ECE %, classes weighted equally: as it is | lambda alone | joint fit")
    for network in networks:
        s = -np.log(len(network.prior)) - np.log(network.prior)
        rows = np.flatnonzero(network.val)
        result = search_lambda(network.z[rows], network.y[rows], source_prior=network.prior)
        a, mu = result.choice.get("a", 1.0), result.lam
        z, y = network.z[network.test], network.y[network.test]
        weights = (1 / np.maximum(np.bincount(y, minlength=z.shape[1]), 1))[y]
        weights /= weights.sum()
        said = []
        for scores in (z, z + mu * s, a * z + a * mu * s):
            p = softmax(scores)
            nll = -(weights * np.log(np.maximum(p[np.arange(len(y)), y], 1e-300))).sum()
            top, right = p.max(1), p.argmax(1) == y
            bins = np.minimum((top * 15).astype(int), 14)
            ece = sum(abs((weights * (right - top))[bins == b].sum()) for b in range(15))
            said.append(f"{nll:6.3f} {100 * ece:5.1f}")
        print(f"  {network.name:28s} {' | '.join(said)}   a {a:.3f}, mu {mu:.2f}")


def coverage(repeats: int) -> None:
    """How often the 95 % interval of the gain holds its true value, on generated data."""
    print("coverage of 95 % intervals of the gain, % (n = 300, 1000, 3000)")
    for metric in ("macc", "miou", "f1"):
        said = []
        for n in (300, 1000, 3000):
            inside = total = 0
            for seed in range(repeats):
                network = generated(seed % 10)
                rng = np.random.default_rng(1000 + seed)
                rows = rng.choice(len(network.y), n, replace=False)
                found = search_lambda(network.z[rows], network.y[rows], source_prior=network.prior, metric=metric)
                s = -np.log(len(network.prior)) - np.log(network.prior)
                at = values(metric, network.z, network.y, s, np.array([0.0, found.lam]))
                truth = (at[1] - at[0]) / 100
                gain = found.gain[metric]
                inside += gain.low <= truth <= gain.high
                total += 1
            said.append(f"{100 * inside / total:.1f}")
        print(f"  {metric:5s} {', '.join(said)}")


def images(seed: int, n: int) -> Network:
    """Images of 16 pixels whose scores are off by what the pixels of an image share."""
    rng = np.random.default_rng(seed)
    k = 5
    prior = 0.5 ** np.arange(k) / (0.5 ** np.arange(k)).sum()
    y = np.where(rng.random((n, 16)) < 0.7, rng.integers(0, k, (n, 1)), rng.integers(0, k, (n, 16)))
    shared = rng.normal(size=(n, 1, k)) * 1.5
    z = 1.5 * np.eye(k)[y] + rng.normal(size=(n, 16, k)) + shared + np.log(prior)
    every = np.ones(n * 16, dtype=bool)
    return Network("images", z.reshape(-1, k), y.reshape(-1), every, every, prior)


def coverage_of_clusters(repeats: int) -> None:
    """The same where pixels of an image are not independent."""
    print("the same of images of 16 pixels, % (40, 120, 400 images), and as if pixels were independent")
    world = images(0, 20_000)
    s = -np.log(5) - np.log(world.prior)
    for metric in ("macc", "miou", "f1"):
        said: dict[str, list[str]] = {"image": [], "unit": []}
        for n in (40, 120, 400):
            inside = {"image": 0, "unit": 0}
            for seed in range(repeats):
                one = images(1000 + seed, n)
                z, y = one.z.reshape(n, 4, 4, 5).transpose(0, 3, 1, 2), one.y.reshape(n, 4, 4)
                for cluster in inside:
                    found = search_lambda(z, y, source_prior=one.prior, metric=metric, cluster=cluster)
                    at = values(metric, world.z, world.y, s, np.array([0.0, found.lam]))
                    gain = found.gain[metric]
                    inside[cluster] += gain.low <= (at[1] - at[0]) / 100 <= gain.high
            for cluster, count in inside.items():
                said[cluster].append(f"{100 * count / repeats:.1f}")
        print(f"  {metric:5s} {', '.join(said['image'])}   ({', '.join(said['unit'])})")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--metrics", default="macc,miou,f1")
    parser.add_argument("--generated", type=int, default=4)
    parser.add_argument("--coverage", type=int, default=0, help="simulations for each n")
    given = parser.parse_args()
    networks = [network for path in given.files for network in published(path)]
    networks = networks or [generated(seed) for seed in range(given.generated)]
    for network in networks:
        print(f"{network.name}: K = {len(network.prior)}, {network.val.sum()} val, {network.test.sum()} test")
    regrets(networks, given.metrics.split(","), given.repeats)
    probabilities(networks)
    if given.coverage:
        coverage(given.coverage)
        coverage_of_clusters(given.coverage)


if __name__ == "__main__":
    main()
