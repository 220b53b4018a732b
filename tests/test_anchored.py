"""The anchored one-SE rule: against its oracle, and for every split."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unoic_cli import search_lambda
from unoic_cli.metrics import Counted, Counts, Rules, find
from unoic_cli.searches.anchored import Errors, labels_among

Z = np.array([
    [2, 0.5, -1], [1.5, 1.2, 0], [3, 0.2, 0.1], [0.9, 0.7, -0.5], [2.2, -0.3, 0.4], [1.1, 0.3, 0.9], [1.4, 1, -0.2],
    [0.6, 1.3, 0.1], [1.8, 1.6, 0.2], [1, 0.2, 0.8], [0.9, -0.4, 1.5], [1.7, 0.1, 0.6],
])  # fmt: skip
Y = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
PS = (0.7, 0.2, 0.1)


@pytest.mark.parametrize(
    ("metric", "anchor", "best", "lam", "before", "after"),
    [
        ("macc", 0.50, 0.74, 0.58, 0.555556, 0.833333),
        ("miou", 0.26, 0.74, 0.22, 0.422222, 0.5),
        ("f1", None, None, 0.22, 0.583333, 0.666667),
    ],
)
def test_the_oracle(metric, anchor, best, lam, before, after):
    result = search_lambda(Z, Y, source_prior=PS, metric=metric, range="0:6:0.02")
    assert result.lam == pytest.approx(lam, abs=1e-12)
    assert result.baseline[metric] == pytest.approx(before, abs=5e-7)
    assert result.best[metric] == pytest.approx(after, abs=5e-7)
    choice = result.choice
    assert (choice["a"], choice["fit"], choice["se_fit"]) == pytest.approx((1.816615, 0.914094, 0.446375), abs=6e-7)
    if anchor is not None:
        assert (choice["anchor"], choice["best"]) == pytest.approx((anchor, best), abs=1e-12)


def test_the_gain_of_the_oracle():
    gain = search_lambda(Z, Y, source_prior=PS, range="0:6:0.02").gain["macc"]
    assert gain.se == pytest.approx(0.173916, abs=6e-7)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), k=st.integers(2, 7), among=st.integers(1, 6))
def test_labels_among_the_best_are_those_that_sorting_finds(seed, n, k, among):
    rng = np.random.default_rng(seed)
    z, s = rng.integers(-4, 5, (n, k)).astype(float), rng.integers(-3, 4, (n, k)).astype(float)
    z[rng.random((n, k)) < 0.1] = -np.inf
    labels, lams = rng.integers(0, k, n), np.arange(-2, 3, 0.5)
    found = labels_among(z, labels, s, lams, among)
    for g, lam in enumerate(lams):
        order = np.argsort(-(z + lam * s), axis=1, kind="stable")
        rank = (order == labels[:, None]).argmax(axis=1)
        assert found[g].tolist() == ((rank < among) & np.isfinite(z[np.arange(n), labels])).tolist()


def world(n=600, k=6):
    rng = np.random.default_rng(4)
    prior = 0.6 ** np.arange(k) / (0.6 ** np.arange(k)).sum()
    y = rng.integers(0, k, n)
    return (rng.normal(size=(n, k)) + 1.2 * np.eye(k)[y] + np.log(prior)).astype(np.float32), y, prior


def test_ranks_are_chosen_by_the_same_rule():
    """The share of labels among the best two is a mean of units: its standard error is that of such a mean."""
    z, y, prior = world()
    result = search_lambda(z, y, source_prior=prior, metric="top2", metrics="top1,top2,acc")
    curve, at = result.curve["top2"], [int(np.abs(result.lams - x).argmin()) for x in (result.lam, 0.0)]
    slopes = np.log(1 / 6) - np.log(prior)

    def hits(lam):
        order = np.argsort(-(z + lam * slopes), axis=1, kind="stable")
        return (order[:, :2] == y[:, None]).any(axis=1).astype(float)

    best = int(np.abs(result.lams - result.choice["best"]).argmin())
    d, n = hits(result.lam) - hits(result.lams[best]), len(y)
    se = np.sqrt(sum((y == c).sum() * d[y == c].var() for c in range(6))) / n
    assert result.choice["se"] == pytest.approx(se, abs=1e-9)
    assert curve[at[0]] >= curve[best] - se - 1e-12 and result.choice["rule"] == "anchored"
    assert abs(result.lam - result.choice["anchor"]) <= abs(result.lams[best] - result.choice["anchor"])
    assert curve[at[0]] > curve[at[1]] and result.gain["top2"].low > 0
    assert result.gain["top1"].to_dict() == result.gain["acc"].to_dict()


# ---------------------------------------------------------------- a sample with a unit of a class, or none


def sampled(labels, keep, n_classes, clusters):
    """Kept units as `Errors` takes them."""
    order = np.argsort(labels[keep], kind="stable")
    names = np.unique(clusters[keep], return_inverse=True)[1]
    return SimpleNamespace(
        n=int(keep.sum()), n_classes=n_classes, labels=labels[keep], share=keep.mean(), by_label=(order, names[order])
    )


@pytest.mark.parametrize("name", ["acc", "macc", "miou", "f1", "specificity"])
@pytest.mark.parametrize(("k", "size", "share"), [(1500, 3, 0.125), (300, 20, 0.125), (1000, 6, 0.5), (400, None, 0.1)])
def test_a_sample_with_few_units_of_each_class_is_as_unsure_as_the_data(name, k, size, share):
    """Classes of which one unit was kept, or none, had no variance: intervals were up to five times too narrow."""
    rng = np.random.default_rng(k)
    labels = np.repeat(np.arange(k), np.full(k, size) if size else rng.integers(1, 60, k))
    n, metric, alone = labels.size, find(name, "--metric"), np.arange(labels.size)
    before = np.where(rng.random(n) < rng.random(k)[labels] * 0.6 + 0.2, labels, rng.integers(0, k, n))
    after = np.where(rng.random(n) < 0.15, labels, np.where(rng.random(n) < 0.05, rng.integers(0, k, n), before))
    there, here = (
        Counted(Counts(*(np.bincount(one, minlength=k) for one in (labels[labels == who], who, labels))))
        for who in (before, after)
    )

    def error(keep, clusters=alone):
        errors = Errors(metric, Rules(), sampled(labels, keep, k, clusters), here.counts.support)
        return errors.of(after[keep], here, before[keep], there, 1)

    whole, kept = np.ones(n, dtype=bool), [rng.random(n) < share for _ in range(12)]
    found = np.sqrt(np.mean([error(keep) ** 2 for keep in kept]))
    assert 0.85 * error(whole) < found < 1.2 * error(whole)
    blocks = alone % 50  # in clusters, the units of a class that are alone have a mean to be compared with, too
    found = np.sqrt(np.mean([error(keep, blocks) ** 2 for keep in kept]))
    assert 0.75 * error(whole, blocks) < found < 1.7 * error(whole, blocks)  # the larger of two estimates


def test_a_single_unit_of_a_class_borrows_what_others_differ_by():
    """One such unit in all the sample: there is nobody like it to compare it with."""
    labels = np.repeat([0, 1], [40, 10])
    before = np.where(np.arange(50) % 3, labels, 1 - labels)
    after = np.where(np.arange(50) % 4, labels, 1 - labels)
    there, here = (
        Counted(Counts(*(np.bincount(one, minlength=2) for one in (labels[labels == who], who, labels))))
        for who in (before, after)
    )
    keep = np.arange(50) <= 40  # one of class 1
    errors = Errors(find("macc", "--metric"), Rules(), sampled(labels, keep, 2, np.arange(50)), here.counts.support)
    found = errors.of(after[keep], here, before[keep], there, 1)
    d = ((after == labels) * 1.0 - (before == labels))[:40]
    wanted = np.sqrt(d.var(ddof=1) / 4 / 40 + d.var(ddof=1) / 4 / 10)
    assert found == pytest.approx(wanted, rel=0.02)
