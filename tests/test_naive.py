"""naive.py against numbers worked out by hand or by the authors' own code: the ground the suite stands on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import h5py
import naive
import numpy as np
import pyarrow.parquet as pq
import pytest

UNIFORM3 = (1 / 3, 1 / 3, 1 / 3)
SAMPLE = Path(__file__).parents[1] / "sample_data" / "digits_lt"
FASHION = SAMPLE.with_name("fashion_lt")


def close(actual, expected, atol=6e-7):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


# Rebalancing, Eq. 7


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (0, (0.7, 0.2, 0.1)),
        (0.5, (0.522879, 0.279491, 0.197630)),
        (1, UNIFORM3),
        (1.3, (0.235350, 0.342716, 0.421933)),
        (2, (0.086957, 0.304348, 0.608696)),
    ],
)
def test_rebalancing_to_a_uniform_target(lam, expected):
    prior = np.array([0.7, 0.2, 0.1])
    close(naive.posterior(np.log(prior), naive.slopes(prior, UNIFORM3), lam), expected)


def test_at_lambda_one_the_source_prior_becomes_the_target_prior():
    prior = np.array([0.7, 0.2, 0.1])
    close(naive.posterior(np.log(prior), naive.slopes(prior, (2, 1, 1)), 1), (0.5, 0.25, 0.25))


@pytest.mark.parametrize("prior", [(1, 0), (1, -1), (1, float("nan"))])
def test_a_prior_that_is_not_positive_has_no_slopes(prior):
    with pytest.raises(ValueError, match="prior"):
        naive.slopes(prior, (1, 1))


def test_odds_of_eq_8():
    rng = np.random.default_rng(0)
    z, source, target = rng.normal(size=4), rng.random(4) + 0.1, rng.random(4) + 0.1
    before, after = naive.softmax(z), naive.posterior(z, naive.slopes(source, target), 0.7)
    expected = before[1] / before[3] * (source[3] / source[1]) ** 0.7 * (target[1] / target[3]) ** 0.7
    assert after[1] / after[3] == pytest.approx(expected, rel=1e-12)


def test_delta_may_differ_per_row():
    z, s, delta = np.array([[1.0, 2, 4], [3, 1, 0]]), np.array([0.5, 0, -1]), np.array([0.25, 2])
    both = naive.posterior(z, s, 1.5, delta)
    for i in range(2):
        close(both[i], naive.posterior(z[i], s, 1.5, delta[i]), atol=0)


def test_half_precision_is_widened_and_ties_go_to_the_lowest_class():
    z = np.array([[1, 3, 3], [2, 2, 2], [0, 1, 2]], np.float16)
    assert naive.predict(z, np.zeros(3), 1.0).tolist() == [1, 0, 2]
    # 2048 + 0.5 is not a float16: the sum must be made in float64
    assert naive.predict(np.array([[2048, 2048]], np.float16), np.array([0, 0.5]), 1.0).tolist() == [1]


# Entropy-driven delta


@pytest.mark.parametrize(
    ("mu", "sigma", "H", "delta"),
    [
        (0.4, 0.1, 0.3, 1),
        (0.4, 0.1, 0.5, 1),
        (0.4, 0.1, 0.51, 0.975610),
        (0.4, 0.1, 0.6, 0.8),
        (0.4, 0.1, 0.9, 0.5),
        (0.4, 0.1, 1.7, 0.25),
        (0.0423135, 0.0240740, 0.1, 0.557300),
        (0, 0, 0, 1),
        (0, 0, 0.5, 0),
    ],
)
def test_entropy_delta(mu, sigma, H, delta):
    close(naive.entropy_delta(H, mu, sigma), delta, atol=1e-6)
    close(naive.entropy_delta([H, H], mu, sigma, power=2), [delta**2] * 2, atol=2e-6)


def test_entropy_is_in_nats_and_zero_for_a_certain_row():
    close(naive.entropy([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]]), [math.log(4), 0, math.log(2)], atol=1e-15)


# Fusion


def test_fusing_two_experts_that_disagree():
    experts = [(0.6, 0.4), (0.2, 0.8)]
    close(naive.noisy_or(experts), (0.435897, 0.564103))
    close(naive.average(experts), (0.4, 0.6))
    close(naive.product(experts), (0.272727, 0.727273))


def test_noisy_or_and_average_may_choose_different_classes():
    experts = [(0.45, 0.55, 0), (0.45, 0.33, 0.22)]
    close(naive.noisy_or(experts, normalise=False), (0.6975, 0.6985, 0.22))
    assert naive.noisy_or(experts).argmax() == 1
    close(naive.average(experts), (0.45, 0.44, 0.11))


@pytest.mark.parametrize("fusion", [naive.noisy_or, naive.average, naive.product])
def test_one_expert_alone_is_the_identity(fusion):
    close(fusion([(0.45, 0.33, 0.22)]), (0.45, 0.33, 0.22))


@pytest.mark.parametrize(("experts", "top"), [(2, 0.838983), (3, 0.786614), (10, 0.605576)])
def test_agreeing_experts_lose_confidence_in_a_normalised_noisy_or(experts, top):
    close(naive.noisy_or([(0.9, 0.1)] * experts), (top, 1 - top))


def test_algorithm_1_end_to_end():
    s = naive.slopes((0.8, 0.1, 0.1), UNIFORM3)
    softmaxes = {"rgb": (0.64, 0.32, 0.04), "depth": (0.25, 0.25, 0.5)}
    deltas = {"rgb": naive.entropy_delta(0.9, 0.4, 0.1), "depth": naive.entropy_delta(0.3, 0.4, 0.1)}
    flat = {name: naive.flatten(p, deltas[name]) for name, p in softmaxes.items()}
    calibrated = {name: naive.posterior(np.log(p), s, 0.5, deltas[name]) for name, p in softmaxes.items()}
    close(flat["rgb"], (0.510958, 0.361302, 0.127740))
    close(flat["depth"], softmaxes["depth"])
    close(calibrated["rgb"], (0.269752, 0.539504, 0.190744))
    close(calibrated["rgb"], naive.posterior(np.log(flat["rgb"]), s, 0.5))
    close(calibrated["depth"], (0.105427, 0.298191, 0.596382))
    fused = naive.noisy_or(list(calibrated.values()))
    close(fused, (0.204334, 0.398850, 0.396817))
    assert fused.argmax() == 1


# Metrics

TRUTH = [0, 0, 0, 0, 1, 1, 1, 1]
PREDICTION = [0, 0, 1, 2, 1, 1, 1, 2]


def measured(labels, predictions, absent="reference", n_classes=3):
    return naive.metrics(*naive.counts(labels, predictions, n_classes), absent=absent)


def test_counts_by_hand():
    tp, predicted, support = naive.counts(TRUTH, PREDICTION, 3)
    assert [a.tolist() for a in (tp, predicted, support)] == [[2, 3, 0], [2, 4, 2], [4, 4, 0]]
    assert naive.confusion(TRUTH, PREDICTION, 3).tolist() == [[2, 1, 1], [0, 3, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("absent", "macc", "miou", "f1"),
    [
        ("reference", 0.625, 0.366667, (4 / 6 + 6 / 8) / 3),
        ("truth-only", 0.625, 0.55, (4 / 6 + 6 / 8) / 2),
        ("zero", 1.25 / 3, 0.366667, (4 / 6 + 6 / 8) / 3),
    ],
)
def test_a_class_that_is_only_predicted(absent, macc, miou, f1):
    found = measured(TRUTH, PREDICTION, absent)
    close([found[name] for name in ("acc", "macc", "miou", "f1")], [0.625, macc, miou, f1])


def test_an_ignored_row_leaves_every_count():
    expected = {"acc": 0.714286, "macc": 0.75, "miou": 0.416667}
    found = measured([*TRUTH[:-1], -1], PREDICTION)
    close([found[name] for name in expected], list(expected.values()))
    by_value = naive.counts([*TRUTH[:-1], 255], PREDICTION, 3, ignore=255)
    assert [a.tolist() for a in by_value] == [[2, 3, 0], [2, 4, 1], [4, 3, 0]]


def test_a_class_in_neither_truth_nor_prediction_counts_only_under_zero():
    known, padded = measured(TRUTH, PREDICTION), measured(TRUTH, PREDICTION, n_classes=4)
    assert padded == known
    assert measured(TRUTH, PREDICTION, "zero", n_classes=4)["miou"] == pytest.approx(known["miou"] * 3 / 4)


def test_a_mean_of_nothing_is_nan():
    assert all(math.isnan(value) for value in measured([-1, -1], [0, 1]).values())
    with pytest.raises(ValueError, match="policy"):
        measured(TRUTH, PREDICTION, "drop")


# Numerics


@pytest.mark.parametrize(("gap", "lam"), [(104, 1.5), (88, 2.1)])
def test_wide_logit_gaps_stay_finite_and_right(gap, lam):
    s = naive.slopes((0.1, 0.9), (1, 1))
    p = naive.posterior((0, gap), s, lam)
    assert np.isfinite(p).all()
    assert math.log(p[0]) == pytest.approx(-(gap - lam * math.log(9)), rel=1e-12)
    with np.errstate(all="ignore"):  # the same formula on float32 probabilities is lost
        q = naive.softmax((0, gap)).astype(np.float32)
        r = q / np.array([0.1, 0.9], np.float32)
        assert np.isnan(q ** np.float32(1 - lam) * r ** np.float32(lam)).any()


def test_pitfall_unseen_class_dropped_in_probability_space_jumps_at_zero():
    """Why `slopes` refuses a zero prior: P^(1 - lambda) * R^lambda with R = 0 for an unseen class is not continuous."""
    p, r = np.array([0.4, 0.6]), np.array([1.0, 0.0])

    def rebalanced(lam):
        return naive.normalised(p ** (1 - lam) * r**lam)

    close(rebalanced(0), (0.4, 0.6))
    close(rebalanced(0.001), (1, 0))
    for floor in (1e-3, 1e-12):  # any positive prior in its place makes Eq. 7 continuous again
        near = naive.posterior(np.log(p), naive.slopes((1, floor), (1, 1)), 1e-9)
        close(near, (0.4, 0.6))


def test_order_of_flattening_and_rebalancing_at_a_dead_sensor():
    s, p = naive.slopes((0.9, 0.09, 0.01), UNIFORM3), np.array([0.2, 0.3, 0.5])
    close(naive.posterior(np.log(p), s, 0.4, delta=0), (0.1046, 0.2627, 0.6327), atol=6e-5)
    close(naive.flatten(naive.posterior(np.log(p), s, 0.4), 0), UNIFORM3)


@pytest.mark.parametrize("scale", [1, 2, 10])
def test_the_surer_of_two_certain_experts_wins_a_noisy_or(scale):
    surer, sure = 30.0 * scale, 25.0 * scale
    for winner, logits in ((0, [(surer, 0), (0, sure)]), (1, [(sure, 0), (0, surer)])):
        log_ps = [np.array(z) - np.logaddexp(*z) for z in logits]
        assert naive.noisy_or_winner(log_ps) == winner
        if scale == 1:  # float64 still holds 1 - P here
            assert naive.noisy_or(np.exp(log_ps)).argmax() == winner
        p32 = np.exp(log_ps).astype(np.float32)
        tie = 1 - np.prod(1 - p32, axis=0)
        assert tie[0] == tie[1]


def test_noisy_or_winner_is_the_noisy_or_arg_max():
    rng = np.random.default_rng(1)
    ps = [naive.softmax(rng.normal(size=(200, 5))) for _ in range(3)]
    assert (naive.noisy_or_winner(np.log(ps)) == naive.noisy_or(ps).argmax(axis=-1)).all()


# The curve over lambda

HILLS_S = naive.slopes((0.9, 0.1), (1, 1))
HILLS_Z = np.array([[t * math.log(9), 0] for t in (0.25, 1.55, 0.55, 0.65, 3.0)])
HILLS_LABELS = [1, 1, 0, 0, 0]


def hills(lam):
    return measured(HILLS_LABELS, naive.predict(HILLS_Z, HILLS_S, lam), n_classes=2)["acc"]


def test_a_curve_that_is_not_concave():
    lams = [0, 0.24, 0.26, 0.54, 0.56, 0.64, 0.66, 1.54, 1.56, 2.99, 3.01, 50]
    expected = [0.6, 0.6, 0.8, 0.8, 0.6, 0.6, 0.4, 0.4, 0.6, 0.6, 0.4, 0.4]
    tp, predicted, support = naive.curve(HILLS_Z, HILLS_LABELS, HILLS_S, lams)
    close([naive.metrics(t, p, support)["acc"] for t, p in zip(tp, predicted, strict=True)], expected)
    assert support.tolist() == [3, 2]
    assert (predicted.sum(axis=1) == 5).all()
    assert naive.top_k_hits(HILLS_Z, HILLS_LABELS, HILLS_S, lams, k=1).tolist() == tp.sum(axis=1).tolist()


def test_top_k_ranks_equal_scores_by_class():
    z = [[1.0, 2, 2, 0], [5, 5, 5, 5], [0, 0, 0, 9]]
    hits = [naive.top_k_hits(z, [2, 3, -1], np.zeros(4), [0.0], k).item() for k in (1, 2, 3, 4)]
    assert hits == [0, 1, 1, 2]


# Algorithm 2


def test_algorithm_2_misses_a_hill_but_is_never_below_lambda_zero():
    best, visited = naive.algorithm2(lambda i: hills(i * 0.1), 34, 200)
    # The bisection itself ends at lambda = 3.4, accuracy .4
    assert {33, 34} <= set(visited)
    assert visited[34] == pytest.approx(0.4)
    assert visited[best] == pytest.approx(0.6)
    assert best == 0
    assert hills(0.3) == pytest.approx(0.8)  # what a search that assumes concavity does not see


def test_algorithm_2_finds_the_top_and_not_the_index_beside_it():
    values = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.91, 0.91, 0.80, 0.70, 0.60, 0.50, 0.40]
    for start in range(1, len(values)):
        best, visited = naive.algorithm2(lambda i: values[i], start, len(values) - 1)
        assert visited[best] == 0.91
        assert best in (9, 10)


def test_algorithm_2_ends_on_a_constant_metric():
    best, visited = naive.algorithm2(lambda i: 0.5, 20, 1000)
    assert best == 0
    assert max(visited) == 1000


def test_algorithm_2_leaves_its_first_range():
    best, visited = naive.algorithm2(lambda i: 1 - abs(i - 21) / 100, 20, 1000)
    assert best == 21
    assert len(visited) < 20


@pytest.mark.parametrize("top", range(60))
@pytest.mark.parametrize("start", [1, 7, 20])
def test_algorithm_2_on_every_single_peak(top, start):
    assert naive.algorithm2(lambda i: -abs(i - top), start, 200)[0] == top


# The sample whose table stands in its README


def sample(split):
    with h5py.File(SAMPLE / f"{split}.h5") as f:
        return f["logits"][()], f["labels"][()], f["source_counts"][()]


def test_the_sample_reads_the_same_from_both_formats():
    for split in ("val", "test"):
        logits, labels, source_counts = sample(split)
        table = pq.read_table(SAMPLE / f"{split}.parquet")
        column = table["logits"].combine_chunks()
        assert (column.flatten().to_numpy().reshape(logits.shape) == logits).all()
        assert (table["label"].to_numpy() == labels).all()
        assert json.loads(table.schema.metadata[b"unoic.source_counts"]) == source_counts.tolist()
        assert json.loads(table.schema.metadata[b"unoic.class_names"]) == [str(k) for k in range(10)]


def test_the_sample_gives_the_figures_of_its_readme():
    lams = np.arange(201) * 0.01
    measures, rows = {}, {}
    for split in ("val", "test"):
        logits, labels, source_counts = sample(split)
        rows[split] = logits, labels
        tp, predicted, support = naive.curve(logits, labels, naive.slopes(source_counts, np.ones(10)), lams)
        measures[split] = [naive.metrics(t, p, support) for t, p in zip(tp, predicted, strict=True)]
    values = [m["macc"] for m in measures["val"]]
    best = np.flatnonzero(np.array(values) == max(values))
    plateau = max(np.split(best, np.flatnonzero(np.diff(best) > 1) + 1), key=len)
    top = int(plateau[0] + plateau[-1]) // 2
    logits, labels = rows["val"]
    slopes = naive.slopes(source_counts, np.ones(10))
    hit = [(logits.astype(float) + lam * slopes).argmax(1) == labels for lam in lams]

    def error(g):
        """Of the mean class accuracy at a lambda less that at the best: classes have 35 units each."""
        d = (hit[g].astype(float) - hit[top]) / 10 / 35
        return np.sqrt(sum(35 * d[labels == k].var() for k in range(10)))

    good = [g for g in range(201) if values[g] >= values[top] - error(g) - 1e-12]
    anchor = 105  # lambda / a of the joint fit, 1.0489
    tuned = min(good, key=lambda g: abs(g - anchor))
    readme = (SAMPLE / "README.md").read_text()
    for name, g in (("not rebalanced", 0), ("as the priors say", 100), ("tuned on `val`", tuned)):
        m = measures["test"][g]
        assert f"| {name} | {lams[g]:.2f} | {100 * m['acc']:.2f} | {100 * m['macc']:.2f} |" in readme


def test_the_larger_sample_gives_the_figures_of_both_pages():
    pages = [(path / "README.md").read_text() for path in (FASHION, FASHION.parents[1])]
    with h5py.File(FASHION / "test.h5") as f:
        logits, labels, source_counts = f["logits"][()], f["labels"][()], f["source_counts"][()]
    slopes = naive.slopes(source_counts, np.ones(10))
    for lam, row, line in (
        (0, "as it is | 0 |", "lambda 0: as it is |"),
        (1, "as the priors say | 1 |", "lambda 1: as the training counts say |"),
        (1.68, "chosen on `val` | 1.68 |", "lambda 1.68: found on the validation set |"),
    ):
        tp, predicted, support = naive.counts(labels, naive.predict(logits, slopes, lam), 10)
        m = naive.metrics(tp, predicted, support)
        assert f"| {row} {100 * m['acc']:.2f} | {100 * m['miou']:.2f} |" in pages[0]
        assert f"| {line} {100 * m['acc']:.2f} % | {100 * m['miou']:.2f} % |" in pages[1]
