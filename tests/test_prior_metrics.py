"""Priors, lattices, metrics and the calibrated posterior against the printed numbers; the kernels' cache on disk."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from fractions import Fraction

import naive
import numpy as np
import pytest
from driven import read_prior_file, sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import compute, compute_all

from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.lattice import Lattice
from unoic_cli.calibrations.prior import UNSEEN, Prior, make_slopes, parse_list
from unoic_cli.calibrations.rule import Rule
from unoic_cli.calibrations.view import View
from unoic_cli.data.batch import Batch, choose_split
from unoic_cli.errors import DataError, NoInputError, UsageError
from unoic_cli.formats import arrays
from unoic_cli.formats.block import LogitBlock
from unoic_cli.kernels.jit import JIT_DISABLED
from unoic_cli.kernels.lines import make_lines, make_point, make_workspace
from unoic_cli.kernels.operator import Pool
from unoic_cli.metrics import ABSENT, NAMES, Counts
from unoic_cli.tallies.path import PathTally
from unoic_cli.tallies.points import predict

repeatable = settings(max_examples=60, deadline=None, derandomize=True)


def close(found, expected, atol=6e-7):
    np.testing.assert_allclose(found, np.broadcast_to(expected, np.shape(found)), rtol=0, atol=atol)


def prior(*weights, counts=False):
    return Prior.from_weights(weights, "test", counts=counts)


def posterior(z, slopes, lam, *, delta=(), logs=False, masked=None):
    """What `calibrate` writes of float64 scores (T, K)."""
    z = np.atleast_2d(np.asarray(z, np.float64))
    slopes, masked = np.asarray(slopes, np.float64), np.zeros(z.shape[1], bool) if masked is None else masked
    block = LogitBlock(0, len(z), z, delta=np.array(delta, np.float64) if len(delta) else None)
    part = choose_split(block, arrays.describe(z), None)
    raw = Batch(len(z), None, None, None, 0, np.zeros(len(z), np.int32), part, (part,))
    batch = View().apply(raw)
    out, predictions = np.empty(z.size), np.empty(len(z), np.int32)
    predict(batch, make_point(slopes, masked, lam), predictions, make_workspace(z.shape[1]))
    Fuser(Rule(Pool, np.ones(1), slopes[None], masked[None]), [lam]).write(batch, logs, out, 0, predictions)
    out = out.reshape(z.shape)
    assert np.array_equal(out.argmax(axis=1), predictions)
    return out


# ---------------------------------------------------------------- priors as people write them


@pytest.mark.parametrize(
    ("text", "values", "counts"),
    [
        ("3,1", (0.75, 0.25), (3, 1)),
        (" 3 , 1 ", (0.75, 0.25), (3, 1)),
        ("0.7,0.2,0.1", (0.7, 0.2, 0.1), None),
        ("1,0", (1, 0), None),
        ("0.5,1.5", (0.25, 0.75), None),
        ("1e3,3e3", (0.25, 0.75), (1000, 3000)),
        ("1,1", (0.5, 0.5), (1, 1)),
    ],
)
def test_a_comma_list_is_a_prior(text, values, counts):
    found = parse_list(text, "--source-prior")
    close(found.values, values, 1e-15)
    assert found.counts == counts
    assert found.origin == "--source-prior"


@pytest.mark.parametrize("text", ["uniform", "labels", "prior.json", "3", "", "a,b", "1,", "1;2"])
def test_what_is_not_a_list_is_left_to_others(text):
    assert parse_list(text, "--source-prior") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,-1", "-1 for class 1"),
        ("nan,1", "nan for class 0"),
        ("1,2,inf", "inf for class 2"),
        ("1e999,2", "inf for class 0"),
        ("0,0", "a prior that is zero for every class"),
        ("1e308,1e308", "a sum that leaves float64's range"),
    ],
)
def test_a_list_that_is_no_prior_is_refused(text, found):
    with pytest.raises(DataError) as error:
        parse_list(text, "--target-prior")
    assert str(error.value).startswith(f"--target-prior: {found}; expected")


@pytest.mark.parametrize(
    ("name", "text", "names", "values"),
    [
        ("list.json", "[3, 1]", None, (0.75, 0.25)),
        ("probabilities.json", " [0.75, 0.25]\n", None, (0.75, 0.25)),
        ("counts.json", '{"counts": [3, 1], "note": "x"}', None, (0.75, 0.25)),
        ("source_counts.json", '{"source_counts": {"cat": 3, "dog": 1}}', ("cat", "dog"), (0.75, 0.25)),
        ("prior.json", '{"prior": [0.75, 0.25]}', None, (0.75, 0.25)),
        ("names.json", '{"dog": 1, "cat": 3}', ("cat", "dog"), (0.75, 0.25)),
        ("indices.json", '{"1": 1, "0": 3}', ("cat", "dog"), (0.75, 0.25)),
        ("lines.csv", "3\n1\n", None, (0.75, 0.25)),
        ("header.csv", "count\n3\n1\n", None, (0.75, 0.25)),
        ("one_line.csv", "0.5,0.25,0.25\n", None, (0.5, 0.25, 0.25)),
        ("pairs.csv", "class,count\ndog,1\ncat,3\n", ("cat", "dog"), (0.75, 0.25)),
        ("no_header.csv", "1,1\n0,3\n", None, (0.75, 0.25)),
        ("blank.csv", "\nclass,count\n\n0, 3\n1, 1\n\n", None, (0.75, 0.25)),
        ("pairs.tsv", "dog\t1\ncat\t3\n", ("cat", "dog"), (0.75, 0.25)),
        ("one_line.tsv", "3\t1", None, (0.75, 0.25)),
        ("quoted.csv", '"a, b",1\n"c",3\n', ("c", "a, b"), (0.75, 0.25)),
        ("bom.csv", "\ufeff3\n1\n", None, (0.75, 0.25)),
        ("bom.json", "\ufeff[3, 1]", None, (0.75, 0.25)),
        ("windows.csv", "class,count\r\ncat,3\r\ndog,1\r\n", ("cat", "dog"), (0.75, 0.25)),
        ("wide.csv", "elk,cat,dog\n100,600,300\n", ("cat", "dog", "elk"), (0.6, 0.3, 0.1)),
        ("wide.tsv", "elk\tcat\tdog\n100\t600\t300\n", ("cat", "dog", "elk"), (0.6, 0.3, 0.1)),
        ("wide_two.csv", "dog,cat\n1,3\n", ("cat", "dog"), (0.75, 0.25)),
        ("wide_label.csv", "class,elk,cat,dog\ncount,100,600,300\n", ("cat", "dog", "elk"), (0.6, 0.3, 0.1)),
        ("wide_indices.csv", "2,0,1\n100,600,300\n", ("cat", "dog", "elk"), (0.6, 0.3, 0.1)),
        ("wide_indices_two.csv", "1,0\n1,3\n", None, (0.75, 0.25)),
        ("turned.csv", "count,class\n1,dog\n3,cat\n", ("cat", "dog"), (0.75, 0.25)),
        ("turned_indices.csv", "count,class\n3,0\n1,1\n", None, (0.75, 0.25)),
        ("turned_bare.csv", "1,dog\n3,cat\n", ("cat", "dog"), (0.75, 0.25)),
        ("classes.json", '{"classes": ["dog", "cat"], "counts": [1, 3]}', ("cat", "dog"), (0.75, 0.25)),
    ],
)
def test_prior_files(tmp_path, name, text, names, values):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    found = read_prior_file(str(path), names)
    assert found.values == values
    assert found.origin == str(path)
    assert (found.counts is None) == (name in ("probabilities.json", "prior.json", "one_line.csv"))


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("empty.csv", " \n\n", "an empty file"),
        ("commas.csv", ",\n,,\n", "lines of different lengths"),
        ("header.csv", "class,count\n", "lines of different lengths"),
        ("ragged.csv", "1\n2,3\n", "lines of different lengths"),
        ("wide.csv", "1,2,3\n4,5,6\n", "3 columns"),
        ("words.csv", "1\nx\n", "entries that are not numbers"),
        ("twice.csv", "a,1\na,2\n", "the class 'a' twice"),
        ("names.csv", "a,1\nb,2\n", "classes a, b"),
        ("broken.json", "[1, 2", "broken JSON (line 1)"),
        ("nested.json", "[[1], [2]]", "entries that are not numbers"),
        ("null.json", "[1, null]", "entries that are not numbers"),
        ("huge.json", "[1, 1" + "0" * 400 + "]", "entries that are not numbers"),
        ("digits.json", "[1" + "0" * 5000 + ", 1]", "JSON beyond any prior"),
        ("deep.json", "[" * 100_000, "JSON beyond any prior"),
        ("nan.json", "[NaN, 1]", "nan for class 0"),
        ("negative.json", "[-1, 2]", "-1 for class 0"),
        ("none.json", "[]", "a prior that is zero for every class"),
        ("long.csv", "9" * 200_000, "text that is not a table"),
        ("names.json", '{"cat": 1, "cow": 2}', "classes cat, cow"),
        ("twice.json", '{"cat": 1, "dog": 2, "cat": 3}', "the class 'cat' twice"),
        ("few.json", '{"class_names": ["cat"], "counts": [1, 2]}', "2 weights for 1 names"),
        ("others.json", '{"classes": ["cat", "cow"], "counts": [1, 2]}', "classes cat, cow"),
        ("wide_names.csv", "cat,cow\n1,2\n", "classes cat, cow"),
        ("wide_twice.csv", "cat,cat,dog\n1,2,3\n", "the class 'cat' twice"),
    ],
)
def test_files_that_hold_no_prior_are_refused_in_one_line(tmp_path, name, text, found):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_prior_file(str(path), ("cat", "dog"))
    message = str(error.value)
    assert message.startswith(f"{path}: {found}")
    assert "; expected" in message
    assert "\n" not in message
    assert len(message) < 400


def test_prior_files_that_cannot_be_read(tmp_path):
    with pytest.raises(NoInputError, match="no such file"):
        read_prior_file(str(tmp_path / "none.json"))
    with pytest.raises(NoInputError, match="a folder"):
        read_prior_file(str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\x89HDF\r\n\x1a\n\xff\xfe")
    with pytest.raises(DataError, match="no text"):
        read_prior_file(str(tmp_path / "binary"))


def test_a_prior_must_have_as_many_classes_as_the_scores():
    prior(1, 2).check_length(2, "--source-prior")
    with pytest.raises(DataError, match=r"--source-prior: a prior of 2 classes \(test\); expected 3"):
        prior(1, 2).check_length(3, "--source-prior")
    assert Prior.uniform(4).values == (0.25,) * 4


# ---------------------------------------------------------------- slopes

WEIGHTS = st.lists(st.integers(1, 10**6), min_size=2, max_size=12)


@repeatable
@given(WEIGHTS, st.data())
def test_slopes_are_the_difference_of_the_logs(source, data):
    target = data.draw(st.lists(st.integers(1, 1000), min_size=len(source), max_size=len(source)))
    for unseen in UNSEEN:
        found = make_slopes(prior(*source, counts=True), prior(*target, counts=True), unseen)
        close(found.values, naive.slopes(source, target), 1e-13)
        assert not found.masked.any()
        assert found.flat == (np.ptp(found.values) <= 1e-12)


@repeatable
@given(WEIGHTS, st.integers(1, 10**6))
def test_scaling_a_prior_changes_no_bit_and_equal_priors_are_the_identity(weights, factor):
    target = Prior.uniform(len(weights))
    once = make_slopes(prior(*weights), target)
    many = make_slopes(prior(*(weight * factor for weight in weights)), target)
    assert once.values.tolist() == many.values.tolist()
    same = make_slopes(prior(*weights), prior(*(weight * factor for weight in weights)))
    assert same.flat
    assert not same.values.any()


def test_classes_without_a_prior():
    one, uniform = prior(6, 2, 0, counts=True), Prior.uniform(3)
    masked = make_slopes(one, uniform, "mask")
    assert masked.masked.tolist() == [False, False, True]
    close(masked.values, (math.log(1 / 3 / 0.75), math.log(1 / 3 / 0.25), 0), 1e-15)
    close(make_slopes(one, uniform, "floor").values, naive.slopes((6, 2, 2), (1, 1, 1)), 1e-15)
    close(make_slopes(one, uniform, "smooth").values, naive.slopes((7, 3, 1), (1, 1, 1)), 1e-15)
    close(make_slopes(prior(6, 2, 1), prior(0.5, 0.0, 0.5), "floor").values, naive.slopes((6, 2, 1), (1, 1, 1)), 1e-15)
    with pytest.raises(DataError, match=r"--source-prior: a prior of zero for class 2 \(test\); expected positive"):
        make_slopes(one, uniform, "error")
    with pytest.raises(DataError, match="--target-prior: a prior of zero for class 0, 1 "):
        make_slopes(uniform, prior(0, 0, 1), "error")
    with pytest.raises(UsageError, match="--target-prior: --unseen smooth, but the prior"):
        make_slopes(uniform, prior(0, 0, 1), "smooth")
    with pytest.raises(DataError, match="every class has a zero source or target prior"):
        make_slopes(prior(1, 0), prior(0, 1))
    assert make_slopes(prior(1, 0), Prior.uniform(2)).flat  # one class is left


@pytest.mark.parametrize("unseen", ["mask", "floor", "smooth"])
def test_an_unseen_class_does_not_jump_at_lambda_zero(unseen):
    """P_s = (1, 0), posterior (.4, .6): the authors' code leaps from class 1 to (1, 0) at the first lambda above 0."""
    slopes = make_slopes(prior(1, 0, counts=True), Prior.uniform(2), unseen)
    at = [posterior(np.log([0.4, 0.6]), slopes.values, lam, masked=slopes.masked) for lam in (-1e-9, 0.0, 1e-9)]
    close(at[0], at[1], 1e-8)
    close(at[2], at[1], 1e-8)
    close(at[1], (1, 0) if unseen == "mask" else (0.4, 0.6))


# ---------------------------------------------------------------- laws 4 and 5, and the printed numbers


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (0, (0.7, 0.2, 0.1)),
        (0.5, (0.522879, 0.279491, 0.197630)),
        (1, (1 / 3, 1 / 3, 1 / 3)),
        (1.3, (0.235350, 0.342716, 0.421933)),
        (2, (0.086957, 0.304348, 0.608696)),
    ],
)
def test_rebalancing_to_a_uniform_target(lam, expected):
    slopes = make_slopes(prior(0.7, 0.2, 0.1), Prior.uniform(3)).values
    close(posterior(np.log([0.7, 0.2, 0.1]), slopes, lam), expected)
    close(np.exp(posterior(np.log([0.7, 0.2, 0.1]), slopes, lam, logs=True)), expected)


@pytest.mark.kernel
def test_at_lambda_one_the_source_prior_becomes_the_target_prior():
    slopes = make_slopes(prior(7, 2, 1), prior(0.5, 0.25, 0.25)).values
    close(posterior(np.log([0.7, 0.2, 0.1]), slopes, 1.0), (0.5, 0.25, 0.25))


@pytest.mark.kernel
@pytest.mark.parametrize(("gap", "lam"), [(104.0, 1.5), (88.0, 2.1)])
def test_confident_logits_stay_finite_and_right(gap, lam):
    slopes = make_slopes(prior(9, 1), Prior.uniform(2)).values
    logs = posterior([0.0, gap], slopes, lam, logs=True)
    odds = -gap - lam * math.log(9)
    close(logs, (odds, 0.0), 1e-12)
    found = posterior([0.0, gap], slopes, lam)
    assert found[0, 1] == 1
    assert found[0, 0] == pytest.approx(math.exp(odds), rel=1e-12)


@pytest.mark.kernel
def test_a_flattened_row_is_rebalanced_after_it_is_flattened():
    slopes = make_slopes(prior(0.9, 0.09, 0.01), Prior.uniform(3)).values
    close(posterior([[3.0, 1.0, 0.0]], slopes, 0.4, delta=[0.0]), (0.1046, 0.2627, 0.6327), 6e-5)


rows = st.lists(st.floats(-20, 20), min_size=4, max_size=4)
positive = st.lists(st.floats(0.01, 1), min_size=4, max_size=4)


@pytest.mark.kernel
@repeatable
@given(rows, positive, positive, st.floats(-2, 4))
def test_odds_of_eq_8(z, source, target, lam):
    slopes = make_slopes(prior(*source), prior(*target)).values
    before, after = naive.softmax(z), posterior(z, slopes, lam)[0]
    for a, b in ((0, 1), (2, 3), (3, 0)):
        expected = before[a] / before[b] * (source[b] / source[a]) ** lam * (target[a] / target[b]) ** lam
        assert after[a] / after[b] == pytest.approx(expected, rel=1e-9)


@pytest.mark.kernel
@repeatable
@given(st.lists(st.integers(-40, 40), min_size=4, max_size=4), positive, st.floats(-2, 4), st.permutations(range(4)))
def test_identities(quarters, source, lam, order):
    z = np.array(quarters) / 4
    slopes = make_slopes(prior(*source), Prior.uniform(4)).values
    found = posterior(z, slopes, lam)
    close(posterior(z, slopes, 0.0), naive.softmax(z), 1e-15)
    assert posterior(z, slopes, 0.0).argmax() == z.argmax()
    none = make_slopes(prior(*source), prior(*source)).values
    assert np.array_equal(posterior(z, none, lam), posterior(z, none, 0.0))
    close(posterior(z + 8.0, slopes, lam), found, 1e-13)
    close(posterior(z[list(order)], slopes[list(order)], lam), found[:, list(order)], 1e-13)


@pytest.mark.kernel
def test_a_curve_that_is_not_concave():
    """P_s = (.9, .1), uniform target: class 1 wins iff lambda > (z0 - z1) / ln 9."""
    from driven import open_dataset

    from unoic_cli.formats import arrays

    thresholds = np.array([0.25, 1.55, 0.55, 0.65, 3.0])
    truth = np.array([1, 1, 0, 0, 0])
    slopes = make_slopes(prior(0.9, 0.1), Prior.uniform(2)).values
    z = np.stack([thresholds * (slopes[1] - slopes[0]), np.zeros(5)], axis=1)
    lattice = Lattice.parse("0:4:0.01")
    tally = PathTally(make_lines(slopes, np.zeros(2, bool), lattice.values()))
    sweep(open_dataset([arrays.describe(z, truth)]), [tally])
    accuracy = compute(tally.counts(), "acc")[0]
    for low, high, value in (
        (0, 25, 0.6),
        (26, 55, 0.8),
        (56, 65, 0.6),
        (66, 155, 0.4),
        (156, 300, 0.6),
        (301, 400, 0.4),
    ):
        inner = accuracy[low + 1 : high]  # on a threshold itself, the last bit of z decides
        assert (inner == value).all(), (low, high, inner)
    assert 26 <= accuracy.argmax() <= 55


# ---------------------------------------------------------------- metrics

TRUTH, PREDICTION = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 2, 1, 1, 1, 2]


def counts_of(truth, prediction, n_classes):
    return Counts(*naive.counts(truth, prediction, n_classes))


def test_metrics_of_eight_samples():
    counts = counts_of(TRUTH, PREDICTION, 3)
    close([compute(counts, name) for name in ("acc", "macc", "miou")], (0.625, 0.625, 0.366667))
    close(compute(counts, "miou", "truth-only"), 0.55)
    counts = counts_of([*TRUTH[:-1], -1], PREDICTION, 3)
    close([compute(counts, name) for name in ("acc", "macc", "miou")], (0.714286, 0.75, 0.416667))


@repeatable
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4)), max_size=30), st.sampled_from(ABSENT))
def test_metrics_equal_naive(pairs, absent):
    truth, prediction = [t for t, _ in pairs], [p for _, p in pairs]
    raw = naive.counts(truth, prediction, 5)
    found, expected = compute_all(Counts(*raw), absent), naive.metrics(*raw, absent=absent)
    assert set(found) == set(NAMES) == set(expected)
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-14, equal_nan=True)


@pytest.mark.parametrize("absent", ABSENT)
def test_metrics_of_many_points_at_once(absent):
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 3, 50)
    raw = [naive.counts(truth, rng.integers(0, 4, 50), 4) for _ in range(6)]
    hits, predicted, support = (np.stack([one[i] for one in raw]).reshape(2, 3, 4) for i in range(3))
    counts = Counts(hits, predicted, support[:, :1])
    for name in NAMES:
        found = compute(counts, name, absent)
        assert found.shape == (2, 3)
        for f in range(2):
            for g in range(3):
                assert found[f, g] == pytest.approx(naive.metrics(*raw[3 * f + g], absent=absent)[name], rel=1e-14)
    part = Counts(hits[0], predicted[0], support[0, 0])[1:]
    assert compute(part, "acc").tolist() == compute(counts, "acc")[0, 1:].tolist()


def test_metrics_of_nothing():
    nothing = Counts(*(np.zeros(3, np.int64) for _ in range(3)))
    for absent in ABSENT:
        found = compute_all(nothing, absent)
        assert math.isnan(found["acc"])
        for name in ("macc", "miou", "f1"):
            assert math.isnan(found[name]) == (absent != "zero")


# ---------------------------------------------------------------- lattices


def test_lattice_points_are_exact_decimals():
    lattice = Lattice.parse("0:2", "0.01")
    assert lattice.values().tolist() == [float(f"{i / 100:.2f}") for i in range(201)]
    assert lattice.stop == 2
    assert Lattice.parse("0:1", "0.3").values().tolist() == [0.0, 0.3, 0.6, 0.9]
    assert Lattice.parse("0:1").size == 101
    assert Lattice.parse("-.5:.5:.25").values().tolist() == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert Lattice.parse(" 0 : 2e0 : 5e-1 ").size == 5
    assert Lattice.parse("0:1:0.00001").size == 100_001
    assert str(Lattice.parse("-1:1:0.5")) == "-1:1:0.5"
    assert Lattice.parse("0:1:0.50", "0.5").size == 3


@pytest.mark.parametrize(("text", "lam"), [("0.4:0.4", 0.4), ("0:0", 0.0), ("-1:-1", -1.0), ("1e-30:1.0e-30", 1e-30)])
def test_a_range_of_one_lambda(text, lam):
    for lattice in (Lattice.parse(text), Lattice.single(lam)):
        assert lattice.values().tolist() == [lam]
        assert (lattice.index(lam), lattice.index(lam + 0.5), lattice.index(np.nan)) == (0, None, None)
        assert lattice.extended() is None
    assert str(Lattice.parse("0.4:0.40")) == "0.4:0.4"


def test_every_lattice_point_is_found_again():
    lattice = Lattice.parse("-1:2:0.01")
    values = lattice.values()
    assert [lattice.index(lam) for lam in values] == list(range(lattice.size))
    assert [lattice.index(float(lam)) for lam in values] == list(range(lattice.size))
    for lam in (-1.01, 2.01, 0.005, 0.1 + 0.2, math.nan, math.inf, -math.inf, 1e300):
        assert lattice.index(lam) is None
    assert lattice.index(-0.0) == 100


def test_a_lattice_doubles_its_upper_end_up_to_a_bound():
    lattice = Lattice.parse("-1:2:0.5")
    doubled = lattice.extended()
    assert doubled.values()[: lattice.size].tolist() == lattice.values().tolist()
    assert (doubled.start, doubled.stop, doubled.step) == (-1, 4, Fraction(1, 2))
    ends = []
    while lattice is not None:
        ends.append(lattice.stop)
        lattice = lattice.extended()
    assert ends == [2, 4, 8, 16]
    assert Lattice.parse("-2:0:0.5").extended() is None


@pytest.mark.parametrize(
    ("text", "step", "message"),
    [
        ("0", None, "--range: '0'; expected A:B"),
        ("0:1:2:3", None, "--range: '0:1:2:3'; expected A:B"),
        ("0:x", None, "--range: 'x'; expected finite decimal numbers"),
        (":1", None, "--range: ''; expected finite decimal numbers"),
        ("0:inf", None, "--range: 'inf'; expected finite"),
        ("nan:1", None, "--range: 'nan'; expected finite"),
        ("0:1e400", None, "--range: '1e400'; expected decimal numbers up to"),
        ("0:1e999999999", None, "--range: '1e999999999'; expected decimal numbers up to"),
        ("1e-999999999:1", None, "--range: '1e-999999999'; expected decimal numbers up to"),
        ("0:10000000", "100", "--range: 0:10000000; expected lambdas between"),
        ("1:1", "0.1", "--step: a step in 1:1, a range of one lambda; expected 1:1 alone"),
        ("0.4:0.40:0.1", None, "--range: a step in 0.4:0.40:0.1, a range of one lambda; expected 0.4:0.40 alone"),
        ("2:1", None, "--range: the reversed range 2:1; expected"),
        ("0:1", "0", "--step: 0; expected a positive step"),
        ("0:1", "-0.1", "--step: -0.1; expected a positive step"),
        ("0:1:-0.1", None, "--range: the step -0.1; expected a positive step"),
        ("0:1:x", None, "--range: 'x'; expected"),
        ("0:1", "x", "--step: 'x'; expected"),
        ("0:1", "2", "--step: a step wider than the range 0:1; expected at least two points"),
        ("0:2", "0.00001", "--step: 200001 lattice points; expected at most 100001"),
        ("1:1.00000000000000001", "0.00000000000000001", "--step: 1e-17; expected at least 1e-12"),
        ("0:1:0.5", "0.25", "--step: 0.25, but --range names the step 0.5; expected one step"),
    ],
)
def test_lattices_that_make_no_sense(text, step, message):
    with pytest.raises(UsageError) as error:
        Lattice.parse(text, step)
    assert str(error.value).startswith(message)


@repeatable
@given(st.integers(-3000, 3000), st.integers(1, 500), st.integers(1, 60))
def test_values_ascend_and_keep_their_distance(start, step, count):
    a, b, width = Fraction(start, 1000), Fraction(start + step * count, 1000), Fraction(step, 1000)
    lattice = Lattice.parse(f"{float(a)}:{float(b)}", str(float(width)))
    values = lattice.values()
    assert lattice.size == count + 1
    assert values[0] == float(a)
    assert values[-1] == float(b)
    close(np.diff(values), float(width), 1e-14)


# ---------------------------------------------------------------- the kernels' cache on disk

COUNT = """
import json, sys
import numpy as np
from unoic_cli import compiling
from unoic_cli.kernels import points
compiling.listen(lambda text: sys.stderr.write(f"{text}; {compiling.active()}\\n"))
table = np.zeros(4, np.int64)
points.count_confusion(np.array([0, 1, 1, -1], np.int32), np.array([0, 0, 1, 1], np.int32), 2, table)
assert not compiling.active()
print(json.dumps(table.tolist()))
"""


def run_kernel(cache, said="compiling the kernels of this command, once for this processor (10 to 20 s), kept in"):
    """Run a kernel; what is said before it is compiled must begin like this."""
    environment = {**os.environ, "UNOIC_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" if said is None else (done.stderr.startswith(said) and done.stderr.endswith("; True\n"))
    assert done.stderr.count("\n") == (said is not None)
    assert json.loads(done.stdout) == [1, 0, 1, 1]


def cached(folder):
    return sorted(folder.glob("kernels-*/count_confusion-*.bin"))


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_a_damaged_cache_only_costs_time(tmp_path):
    run_kernel(tmp_path)
    (file,) = cached(tmp_path)
    whole = file.read_bytes()
    before = file.stat().st_mtime_ns
    run_kernel(tmp_path, said=None)
    assert file.stat().st_mtime_ns == before  # it was used, not made again
    for damaged in (whole[: len(whole) // 2], b"", whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        file.write_bytes(damaged)
        run_kernel(tmp_path)
        healed = file.read_bytes()
        assert len(healed) > len(damaged) or healed != damaged
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name]  # no temporary file is left


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path):
    (tmp_path / "file").write_text("in the way")
    run_kernel(tmp_path / "file" / "cache", "compiling kernels for this processor (10 to 20 s); no folder")
    folder = tmp_path / "cache"
    run_kernel(folder)
    (file,) = cached(folder)
    file.unlink()
    file.mkdir()  # a folder where the file should be
    run_kernel(folder)
