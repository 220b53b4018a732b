"""The mix of unlabelled data: the mathematics against printed numbers, naive.py and others' programs."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest

from unoic_cli.searches import bcts
from unoic_cli.searches import target as mixes
from unoic_cli.searches.joint import mix_of
from unoic_cli.tallies.margins import margins

Z = [
    (2, 0.5, -1), (1.5, 1.2, 0), (3, 0.2, 0.1), (0.9, 0.7, -0.5), (2.2, -0.3, 0.4), (1.1, 0.3, 0.9),
    (1.4, 1, -0.2), (0.6, 1.3, 0.1), (1.8, 1.6, 0.2), (1, 0.2, 0.8), (0.9, -0.4, 1.5), (1.7, 0.1, 0.6),
]  # fmt: skip
Y = np.array([0] * 6 + [1] * 3 + [2] * 3)
X = [
    (0.2, 1.1, 0), (0.5, 0.9, 0.4), (1.2, 0.1, 1), (0.1, 0.3, 1.6), (1.9, 0.4, -0.3), (0.4, 1.5, -0.1),
    (0.8, 0.6, 0.7), (0, 1.2, 0.5),
]  # fmt: skip
UNIFORM = np.full(3, 1 / 3)
S = np.log(UNIFORM) - np.log([0.7, 0.2, 0.1])


def topped(rows):
    rows = np.asarray(rows, np.float64)
    return rows - rows.max(axis=1, keepdims=True)


def printed(found, expected):
    """To the last of six digits."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=6e-7)


def fitted(**how):
    pi = mix_of(Y, 3)
    return bcts.fit_offsets(topped(Z), Y, pi, S, UNIFORM, **how), pi


def rows(z, clusters=None, s=0.0):
    return mixes.Rows(z, margins(z + s), clusters)


def world(seed, n=200, k=4, sharp=2.0):
    """Scores and labels of which the scores are a posterior, wrong by a factor and offsets."""
    rng = np.random.default_rng(seed)
    y = rng.choice(k, n, p=rng.dirichlet(np.full(k, 3)))
    return topped(rng.normal(size=(n, k)) + sharp * np.eye(k)[y] + rng.normal(size=k) / 2), y


# ---------------------------------------------------------------- the fit


def test_the_fit_has_the_printed_values():
    fit, pi = fitted(taus=[0.5])
    assert round(fit.a, 5) == 1.815 and round(fit.log_evidence, 5) == -8.99832
    np.testing.assert_allclose(fit.centred, [-0.97309, 0.17344, 0.79964], rtol=0, atol=5e-6)
    fit, pi = fitted()
    printed(pi, [0.481481, 0.259259, 0.259259])
    assert fit.tau == 0.1 and round(fit.log_evidence, 5) == -8.75288
    printed(fit.a, 1.816540)
    printed(fit.centred, [-0.974569, 0.170684, 0.803885])


@pytest.mark.parametrize("seed", range(20))
def test_the_fit_is_the_minimum_of_the_plain_cost(seed):
    z, y = world(seed, n=40, k=2 + seed % 4)
    k, rng = z.shape[1], np.random.default_rng(seed + 100)
    source, target = rng.dirichlet(np.full(k, 2)) * 0.9 + 0.1 / k, rng.dirichlet(np.full(k, 2)) * 0.9 + 0.1 / k
    s, pi, tau = np.log(target / source), naive.mix(y, k), bcts.TAUS[seed % 7]
    printed(mix_of(y, k), pi)
    fit = bcts.fit_offsets(z, y, pi, s, target, [tau])
    theta = np.concatenate([[fit.a], fit.c])

    def cost(at):
        return naive.bcts_cost(at, z, y, pi, s, target, tau)

    h, unit = 1e-4, np.eye(k + 1)
    slopes = [(cost(theta + h * e) - cost(theta - h * e)) / (2 * h) for e in unit]
    assert np.abs(slopes).max() < 1e-5
    second = [
        [(cost(theta + h * (e + f)) - cost(theta + h * (e - f)) - cost(theta - h * (e - f)) + cost(theta - h * (e + f)))
         / (4 * h * h) for e in unit] for f in unit
    ]  # fmt: skip
    np.testing.assert_allclose(fit.hessian, second, rtol=1e-4, atol=1e-4)
    printed(fit.log_evidence, naive.bcts_evidence(theta, fit.hessian, cost(theta), s, tau))


def test_the_fit_against_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    for seed in range(20):
        z, y = world(seed, n=50)
        s, uniform, pi = np.log([0.25 / 0.4, 0.25 / 0.3, 0.25 / 0.2, 0.25 / 0.1]), np.full(4, 0.25), naive.mix(y, 4)
        fit = bcts.fit_offsets(z, y, pi, s, uniform, [0.5])
        found = optimize.minimize(naive.bcts_cost, [1, *s], (z, y, pi, s, uniform, 0.5), tol=1e-10)
        np.testing.assert_allclose([fit.a, *fit.c], found.x, atol=2e-4)


def test_separable_rows_leave_the_factor_bounded():
    z, y = topped(100 * np.eye(3)[[0, 1, 2] * 10]), np.array([0, 1, 2] * 10)
    fit = bcts.fit_offsets(z / 100, y, mix_of(y, 3), S, UNIFORM)
    assert 1 < fit.a < 5 and np.isfinite(fit.c).all() and np.isfinite(fit.log_evidence)
    wrong = bcts.fit_offsets(z, (y + 1) % 3, mix_of(y, 3), S, UNIFORM)
    assert wrong.at_bound and wrong.a > bcts.LEAST


def test_impossible_classes_are_left_out():
    z, y = world(3)
    z[y != 1, 1] = -np.inf  # nobody else could be of class 1
    z = topped(z)
    pi, s, uniform = mix_of(y, 4), np.zeros(4), np.full(4, 0.25)
    fit, far = bcts.fit_offsets(z, y, pi, s, uniform), np.where(np.isfinite(z), z, -1e4)
    np.testing.assert_allclose(fit.a, bcts.fit_offsets(far, y, pi, s, uniform).a, rtol=1e-6)
    assert not mixes.responsibilities(fit.scores(z), pi)[y != 1, 1].any()


# ---------------------------------------------------------------- the estimate


def test_iteration_and_interval_have_the_printed_values():
    scores = topped([(0, 0.5, -1), (0.2, 0, 0.3), (-1, 0, 1), (1.5, 0, -0.5), (0, -0.4, 0.9)])
    pi, alpha = np.array([0.5, 0.3, 0.2]), np.array([1.25, 1.15, 1.1])
    printed(mixes.pseudo_counts(pi, 5), alpha)
    printed(mixes.map_em(scores, pi, alpha, most_steps=1).q, [0.486396, 0.261878, 0.251726])
    printed(mixes.map_em(scores, pi, alpha).q, [0.453736, 0.130612, 0.415652])
    printed(mixes.map_em(scores, pi, np.ones(3)).q, [0.496867, 0, 0.503133])
    as_they_are = bcts.OffsetsFit(1.0, np.zeros(3), np.eye(4), 0.0, 1.0)
    found = mixes.interval(scores, as_they_are, pi, None)
    printed(found.middle, [0.368593, 0.223964, 0.407443])
    printed(found.sd, [0.550016, 0.683339, 0.460825])


def test_the_chain_has_the_printed_values():
    fit, pi = fitted()
    scores, x = fit.scores(topped(X)), topped(X)
    ours, theirs = mixes.responsibilities(fit.scores(topped(Z)), pi), mixes.responsibilities(scores, pi)
    printed(theirs.mean(axis=0), [0.213066, 0.392800, 0.394134])
    printed(ours.mean(axis=0), [0.496663, 0.249078, 0.254259])
    test = mixes.mean_test(theirs, ours)
    printed([test.t2, test.p], [5.376956, 0.067984])
    assert test.df == 2
    alpha = mixes.pseudo_counts(pi, 8)
    printed(alpha, [1.385185, 1.207407, 1.207407])
    printed(mixes.map_em(scores, pi, alpha, most_steps=1).q, [0.237467, 0.380660, 0.381873])
    mix = mixes.map_em(scores, pi, alpha)
    printed(mix.q, [0.108747, 0.439808, 0.451445])
    printed(mixes.objective(scores, mix.q, alpha), -4.697400)
    printed(mixes.map_em(scores, pi, np.ones(3)).q, [0, 0.510009, 0.489991])
    alone = mixes.interval(x, fit, pi, None)
    printed(alone.middle, [0.115560, 0.437021, 0.447419])
    printed(alone.sd, [0.250768, 0.305437, 0.292346])
    both = mixes.interval(x, fit, pi, np.linalg.inv(fit.hessian))
    printed(both.sd, [0.298863, 0.312347, 0.348341])
    assert both.full and (both.lower >= 0).all() and (both.upper <= 1).all()
    whole = mixes.estimate(rows(topped(Z)), Y, rows(x), S)
    assert whole.reason == mixes.NO_SHIFT and (whole.prior == pi).all() and (whole.mix.q == mix.q).all()
    printed(whole.interval.sd, both.sd)


@pytest.mark.parametrize("seed", range(10))
def test_the_estimate_is_that_of_naive(seed):
    (z, y), (x, _) = world(seed), world(seed + 50, n=90)
    s = np.log([0.25 / 0.4, 0.25 / 0.3, 0.25 / 0.2, 0.25 / 0.1])
    found = mixes.estimate(rows(z, s=s), y, rows(x, s=s), s)
    scores, pi = found.fit.a * x + found.fit.centred, naive.mix(y, 4)
    ours = np.array([naive.softmax(row + np.log(pi)) for row in found.fit.a * z + found.fit.centred])
    theirs = np.array([naive.softmax(row + np.log(pi)) for row in scores])
    t2, df = naive.shift_test(theirs, ours)
    np.testing.assert_allclose(found.test.t2, t2, rtol=1e-6)
    assert found.test.df == df == 3
    q, alpha = pi, 1 + 0.1 * 90 * pi
    for _ in range(found.mix.steps):
        q = naive.em_step(scores, q, alpha)
    np.testing.assert_allclose(found.mix.q, q, atol=1e-9)
    assert np.abs(naive.em_step(scores, q, alpha) - q).sum() < 1e-8
    middle = found.interval.middle
    np.testing.assert_allclose(found.interval.sd, naive.mix_sd(scores, x, middle, found.fit.hessian), rtol=1e-6)
    weights = (found.mix.q / pi)[y] if found.test.p < 1e-3 else np.ones(len(y))
    ks = naive.weighted_ks(margins(z + s), weights, margins(x + s))
    np.testing.assert_allclose(found.distance.ks, ks, atol=1e-12)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 10, 99, 100])
def test_the_tail_of_chi_square(df):
    steps = np.linspace(0, 40 + 8 * df, 400_001)[1:]
    density = np.exp((df / 2 - 1) * np.log(steps) - steps / 2 - df / 2 * math.log(2) - math.lgamma(df / 2))
    for x in (1.0 + df / 2, float(df), 2.0 * df + 3):
        beyond = steps > x
        assert abs(mixes.chi_square_tail(x, df) - np.trapezoid(density[beyond], steps[beyond])) < 1e-4
    assert mixes.chi_square_tail(0, df) == 1 and mixes.chi_square_tail(1e5, df) == 0


@pytest.mark.parametrize(("df", "rest"), [(1, 1), (2, 5), (13, 10), (4, 300), (99, 7)])
def test_the_tail_of_variance_ratios(df, rest):
    rng = np.random.default_rng(0)
    drawn = (rng.chisquare(df, 400_000) / df) / (rng.chisquare(rest, 400_000) / rest)
    for x in (0.3, 1.0, 2.5):
        assert abs(mixes.f_tail(x, df, rest) - np.mean(drawn > x)) < 4e-3
    assert 0 <= mixes.f_tail(1e6, df, rest) < 2e-3


def test_few_clusters_find_no_shift_by_chance():
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        parts = [np.repeat(rng.dirichlet(np.full(6, 3), 8), 50, axis=0) for _ in range(2)]
        clusters = np.repeat(np.arange(8), 50)
        found.append(mixes.mean_test(*parts, (clusters, clusters)).p)
    assert min(found) > 1e-4 and 0.02 < np.mean(np.array(found) < 0.1) < 0.3


def test_rows_of_one_cluster_count_as_one():
    (z, y), (x, _) = world(1), world(2, n=60)
    s = np.zeros(4)
    alone = mixes.estimate(rows(z, s=s), y, rows(x, s=s), s)
    own = mixes.estimate(rows(z, np.arange(200)), y, rows(x, np.arange(60)), s)
    np.testing.assert_allclose(own.test.t2, alone.test.t2)
    assert (np.abs(np.log(own.interval.sd / alone.interval.sd)) < np.log(2)).all()
    many = mixes.estimate(
        rows(np.repeat(z, 5, axis=0), np.repeat(np.arange(200), 5)), np.repeat(y, 5),
        rows(np.repeat(x, 5, axis=0), np.repeat(np.arange(60), 5)), s,
    )  # fmt: skip
    few = mixes.estimate(rows(np.repeat(z, 5, axis=0)), np.repeat(y, 5), rows(np.repeat(x, 5, axis=0)), s)
    assert abs(many.test.t2 / alone.test.t2 - 1) < 0.1 and few.test.t2 / alone.test.t2 > 4
    assert (many.interval.sd > 1.5 * few.interval.sd).all()


def test_plain_em_is_that_of_quapy():
    emq = pytest.importorskip("quapy.method.aggregative").EMQ
    for seed in range(10):
        (z, y), (x, _) = world(seed), world(seed + 50, n=300)
        pi = naive.mix(y, 4)
        fit = bcts.fit_offsets(z, y, pi, np.zeros(4), np.full(4, 0.25))
        posterior = mixes.responsibilities(fit.scores(x), pi)
        theirs, _ = emq.EM(pi, posterior, epsilon=1e-6)
        np.testing.assert_allclose(mixes.map_em(fit.scores(x), pi, np.ones(4)).q, theirs, atol=1e-3)


def test_bbse_solves_the_confusion():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 3000)
    seen = np.where(rng.random(3000) < 0.7, y, rng.integers(0, 3, 3000))
    chosen = rng.choice(3000, 1000, p=np.array([0.1, 0.3, 0.6])[y] / np.array([0.1, 0.3, 0.6])[y].sum())
    shares = np.bincount(y[chosen], minlength=3) / 1000
    confusion = np.array([[np.mean(seen[y == k] == j) for k in range(3)] for j in range(3)])
    expected = np.linalg.solve(confusion, np.bincount(seen[chosen], minlength=3) / 1000)
    np.testing.assert_allclose(mixes.bbse(seen, y, seen[chosen], 3).q, expected, atol=1e-12)
    assert np.abs(expected - shares).sum() < 0.1


# ---------------------------------------------------------------- what it is worth


def test_intervals_cover_the_truth():
    rng, inside, n = np.random.default_rng(0), 0, 0
    for _ in range(60):
        truth = rng.dirichlet(np.full(3, 4))
        y, t = rng.choice(3, 500, p=[0.6, 0.3, 0.1]), rng.choice(3, 400, p=truth)
        z, x = (topped(1.3 * (rng.normal(size=(len(k), 3)) + 1.6 * np.eye(3)[k])) for k in (y, t))
        found = mixes.estimate(rows(z), y, rows(x), -np.log([0.6, 0.3, 0.1]) - math.log(3))
        inside += int(((found.interval.lower <= truth) & (truth <= found.interval.upper)).sum())
        n += 3
    assert 0.91 <= inside / n <= 0.99


def test_no_shift_is_adopted_rarely_and_a_shift_is_found():
    rng, adopted, errors = np.random.default_rng(1), 0, []
    mix = np.array([0.6, 0.3, 0.1])
    for i in range(40):
        truth = mix if i % 2 else mix[::-1]
        y, t = rng.choice(3, 400, p=mix), rng.choice(3, 300, p=truth)
        z, x = (topped(rng.normal(size=(len(k), 3)) + 1.6 * np.eye(3)[k]) for k in (y, t))
        found = mixes.estimate(rows(z), y, rows(x), np.zeros(3))
        if i % 2:
            adopted += found.reason is None
        else:
            assert found.reason is None
            errors.append(np.abs(found.prior - truth).sum())
    assert adopted <= 1 and np.mean(errors) < 0.2


def test_another_domain_is_no_label_shift():
    rng = np.random.default_rng(2)
    y, t = rng.choice(3, 800, p=[0.6, 0.3, 0.1]), rng.choice(3, 800, p=[0.1, 0.3, 0.6])
    z = topped(3 * rng.normal(size=(800, 3)) + 6 * np.eye(3)[y])
    x = topped(1.5 * rng.normal(size=(800, 3)) + 3 * np.eye(3)[t])  # the same classes, seen through fog
    found = mixes.estimate(rows(z), y, rows(x), np.zeros(3))
    assert found.reason == mixes.NO_LABEL_SHIFT and (found.prior == found.pi).all()
