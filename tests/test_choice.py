"""Which lambda is chosen, what it is compared with, and which classes enter: masks, means and plateaus."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction

import h5py
import naive
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from measured import compute_all, exact

import unoic_cli
from unoic_cli.calibrations.prior import FAINT, Prior, make_slopes
from unoic_cli.commands.problem import Problem
from unoic_cli.errors import DataError
from unoic_cli.metrics import ABSENT, NAMES, Counts, find, rounding
from unoic_cli.options import filled
from unoic_cli.resolve.asked import ask
from unoic_cli.resolve.common import Notes, open_inputs
from unoic_cli.resolve.decider import make_decider
from unoic_cli.resolve.modalities import resolve
from unoic_cli.resolve.options import DataOptions, MethodOptions
from unoic_cli.runs.driver import drive
from unoic_cli.searches import METHODS, Curve
from unoic_cli.searches.choice import best_plateau, parse_constraints, settled

few = settings(max_examples=25, deadline=None)


def exactly(tp, predicted, support, absent="reference", ignored=()):
    """The metrics of `naive` as fractions; None where nothing can be averaged."""
    fractions = [np.array([Fraction(int(v)) for v in values], dtype=object) for values in (tp, predicted, support)]
    found = naive.metrics(*fractions, absent=absent, ignored=ignored)
    return {name: None if value != value else Fraction(value) for name, value in found.items()}


def metrics_of(labels, predictions, n_classes, ignored=(), absent="reference"):
    """All metrics of some predictions, where the units of ignored classes are left out."""
    labels = np.where(np.isin(labels, list(ignored)), -1, labels)
    return exactly(*naive.counts(labels, predictions, n_classes), absent, ignored)


def agree(found, expected):
    for name in NAMES:
        value = expected[name]
        assert found[name] == pytest.approx(math.nan if value is None else float(value), abs=1e-14, nan_ok=True), name


def problem_of(n_classes, metric, absent="reference", ignored=(), subject_to=None):
    """A problem whose data nobody looks at: curves are given to it."""
    options, notes = filled(DataOptions, {"ignore_index": ignored}), Notes()
    data = drive(open_inputs(np.zeros((2, n_classes), "f4"), [0, 1], options, notes))
    resolved = drive(resolve(filled(MethodOptions, {"source_prior": "uniform"}), data, options, notes, lam=1.0))
    decider = drive(make_decider(resolved.calibration, data, {}))
    asked = ask(None, data, absent, metric=metric, subject_to=subject_to)
    return Problem(data, decider, asked, None, options)


# ---------------------------------------------------------------- ignored classes


def test_an_ignored_class_is_in_no_mean(answer, tmp_path):
    """Truth 1 1 2 2 0 0, prediction 1 2 2 2 1 0, class 0 ignored: (1/2 + 2/3) / 2."""
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        file["logits"] = 5 * np.eye(3, dtype="f4")[[1, 2, 2, 2, 1, 0]]
        file["labels"] = [1, 1, 2, 2, 0, 0]
        file["source_counts"] = [5, 3, 2]
        file["group"] = np.array(["a"] * 6, "S")
    args = (path, "--ignore-index", 0)
    seen = answer("evaluate", *args, "--by", "group")
    expected = {"acc": 3 / 4, "macc": 3 / 4, "miou": 7 / 12, "f1": (2 / 3 + 4 / 5) / 2}
    assert {name: seen[name] for name in NAMES} == pytest.approx(expected)
    assert seen["groups"][0]["miou"] == pytest.approx(7 / 12)
    row = seen["per_class"][0]
    assert (row["ignored"], row["support"], row["recall"], row["iou"], row["f1"]) == (True, 0, None, None, None)
    assert [one["ignored"] for one in seen["per_class"]] == [True, False, False]
    found = answer("search-lambda", *args, "--metric", "miou", "--folds", 2)
    assert found["baseline"]["miou"] == pytest.approx(7 / 12)
    assert found["curve"]["miou"][0] == pytest.approx(7 / 12)
    by = answer("search-lambda", *args, "--metric", "f1", "--by", "group")
    assert by["groups"]["a"]["baseline"]["f1"] == pytest.approx(expected["f1"])
    made = answer("calibrate", *args, "--lambda", 0, "-o", str(tmp_path / "o.h5"))
    assert (made["before"]["miou"], made["after"]["miou"]) == pytest.approx((7 / 12, 7 / 12))
    plain = answer("search-lambda", *args, "--lambda", 0, "-o", str(tmp_path / "c.json"))
    assert plain["best"]["miou"] == pytest.approx(7 / 12)
    table = answer("compare", *args, "-m", f"it={tmp_path / 'c.json'}", "--metrics", "miou,f1")
    assert table["methods"][0]["average"]["miou"] == pytest.approx(7 / 12)
    assert answer("evaluate", *args, "--absent", "zero")["miou"] == pytest.approx(7 / 12)


def test_a_unit_predicted_as_an_ignored_class_is_wrong():
    scores = 5 * np.eye(3, dtype="f4")[[0, 1, 2]]
    seen = unoic_cli.evaluate(scores, [1, 1, 2], ignore_index=[0]).overall
    agree(seen.values, {"acc": Fraction(2, 3), "macc": Fraction(3, 4), "miou": Fraction(3, 4), "f1": Fraction(5, 6)})
    row = seen.per_class(None)[0]
    assert (row["predicted"], row["precision"]) == (1, None)


@few
@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4)), max_size=30),
    st.sampled_from(ABSENT),
    st.sets(st.integers(0, 4), max_size=5),
)
def test_metrics_with_ignored_classes_equal_naive(pairs, absent, ignored):
    truth, prediction = [-1 if t in ignored else t for t, _ in pairs], [p for _, p in pairs]
    raw = naive.counts(truth, prediction, 5)
    found, expected = compute_all(Counts(*raw), absent, sorted(ignored)), exactly(*raw, absent, ignored)
    agree(found, expected)
    assert {name: exact(Counts(*raw), name, absent, sorted(ignored)) for name in NAMES} == expected


def test_an_ignored_class_is_no_class_without_a_prior():
    """Label frequencies stand in for training counts: what is not measured was trained on all the same."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 60, p=[0.5, 0.3, 0.2])
    scores = rng.normal(size=(60, 3)) + np.eye(3)[labels]
    found = unoic_cli.search_lambda(scores, labels, ignore_index=[0])
    assert found.calibration.source_prior.counts == tuple(np.bincount(labels, minlength=3))
    assert not found.calibration.slopes().masked.any()


# ---------------------------------------------------------------- the baseline and masks


def test_labels_that_stand_in_for_counts_mask_nothing(tmp_path):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(40, 3)), np.ones(40, int)
    plain = unoic_cli.evaluate(scores, labels).overall.values["acc"]
    assert plain < 0.5
    for more in ({}, {"target_prior": "labels"}, {"source_prior": "labels"}, {"unseen": "mask"}):
        found = unoic_cli.search_lambda(scores, labels, folds=2, **more)
        assert found.baseline["acc"] == found.curve["acc"][0] == plain
        assert not found.calibration.slopes().masked.any()
        assert found.masked is None
        assert sum("raised by one" in note for note in found.notes) == 1
    made = unoic_cli.calibrate(scores, labels, output=str(tmp_path / "o.h5"))
    assert made.before.values["acc"] == plain


def test_a_class_absent_when_fitted_is_reached_on_other_data():
    scores, labels = np.eye(3)[[0, 0, 0, 1]] * 3, [0, 0, 0, 1]
    for target in (None, "labels"):
        found = unoic_cli.search_lambda(scores, labels, target_prior=target)
        for lam in (found.lam, 1.0):
            used = unoic_cli.Calibration.from_dict(
                json.loads(json.dumps(replace(found.calibration, lam=lam).to_dict())), "c.json"
            )
            seen = unoic_cli.evaluate(np.array([[0.0, 0, 9]]), [2], calibration=used)
            assert seen.overall.values["acc"] == 1.0
    slopes = make_slopes(Prior.from_weights([3, 1, 0], "labels", counts=True, estimated=True), Prior.uniform(3))
    assert slopes.values == pytest.approx(naive.slopes([4, 2, 1], [1, 1, 1]))
    floored = make_slopes(Prior.from_weights([0.8, 0.2, 0], "m", counts=False, estimated=True), Prior.uniform(3))
    assert floored.values == pytest.approx(naive.slopes([0.8, 0.2, 0.2], [1, 1, 1]))


def test_whose_labels_prove_that_a_class_is_absent(tmp_path):
    """The labels of another file as the source are those of the training data; the input's own are a sample."""
    for name in ("val.h5", "train.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["logits"], file["labels"] = np.eye(3, dtype="f4")[[0, 0, 1]], [0, 0, 1]
    val, train = str(tmp_path / "val.h5"), str(tmp_path / "train.h5")

    def masked(**more):
        return unoic_cli.search_lambda(val, **more).calibration.slopes().masked.tolist()

    assert masked(source_prior=train) == [False, False, True]
    (tmp_path / "other.h5").symlink_to(val)
    assert masked(source_prior=str(tmp_path / "other.h5")) == [False] * 3
    assert masked(source_prior=val) == masked(target_prior=train) == masked(source_prior="labels") == [False] * 3
    assert masked(source_prior=[2, 1, 0]) == masked(target_prior=[0.5, 0.5, 0]) == [False, False, True]


def test_a_loss_by_masking_is_no_gain(run, answer, tmp_path):
    """Training counts of zero, and 13 labels of that class all the same."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.integers(0, 3, 187), np.full(13, 3)])
    scores = (rng.normal(size=(200, 4)) + 1.7 * np.eye(4)[labels]).astype("f4")
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"], file["source_counts"] = scores, labels, [500, 300, 200, 0]
    plain = metrics_of(labels, scores.argmax(1), 4)
    hidden = metrics_of(labels, scores[:, :3].argmax(1), 4)
    found = answer("search-lambda", path, "--folds", 3)
    agree(found["baseline"], plain)
    agree(found["masked"], hidden)
    assert found["masked_classes"] == [3]
    assert all(found["curve"][name][0] == found["masked"][name] for name in NAMES)
    assert found["best"]["macc"] < found["baseline"]["macc"]
    assert any("lower than that of the scores as they are" in note for note in found["notes"])
    assert any("13 labelled units of classes that are never predicted" in note for note in found["notes"])
    assert np.mean(found["folds"]["baseline"]["acc"]["values"]) == pytest.approx(float(plain["acc"]), abs=0.01)
    code, out, err = run("search-lambda", path, "--subject-to", "macc>=base")
    assert (code, out) == (65, "")
    assert "meets macc>=base" in err
    code, out, _ = run("search-lambda", path, "--folds", 3, "--format", "table")
    assert "lambda 0, classes masked" in out
    for lam in (0, 0.5):
        made = answer("calibrate", path, "-l", lam, "-o", str(tmp_path / f"{lam}.h5"))
        agree(made["before"], plain)
        agree(made["masked"], hidden)
    fitted = answer("calibrate", path, "-o", str(tmp_path / "fit.h5"))
    agree(fitted["before"], plain)
    agree(answer("evaluate", path), plain)
    seen = answer("evaluate", path, "-l", 0)
    agree(seen, hidden)
    assert seen["masked_classes"] == [3]
    assert "never predicted" in run("evaluate", path, "-l", 0, "--format", "table")[1]
    assert answer("search-lambda", path, "--unseen", "floor", "--subject-to", "macc>=base")["best"]["macc"] >= 0


def small(rng, n, k, *, counts, ignored, dtype="f4"):
    """A few units: scores that often tie, imbalanced labels."""
    labels = rng.choice(k, n, p=rng.dirichlet(np.ones(k)))
    scores = np.round(rng.normal(size=(n, k)) * 2 + 1.5 * np.eye(k)[labels], 1).astype(dtype)
    prior = rng.integers(0 if counts else 1, 40, k)
    prior[0] += 5
    return scores, labels, prior, [0] if ignored else []


def oracle(scores, labels, prior, lams, metric, ignored, absent):
    """Baseline, masked baseline, exact values of the curve, all by naive."""
    k = scores.shape[1]
    masked = prior == 0
    slopes = np.where(masked, 0.0, naive.slopes(np.maximum(prior, 1) / prior.sum(), np.ones(k) / k))
    slopes = np.where(masked, 0.0, np.log(1 / k) - np.log(np.where(masked, 1, prior) / prior.sum()))

    def at(lam):
        values = naive.scores(scores, slopes, lam)
        values[:, masked] = -np.inf
        return metrics_of(labels, values.argmax(1), k, ignored, absent)

    plain = metrics_of(labels, scores.argmax(1), k, ignored, absent)
    values = [at(lam) for lam in lams]
    return plain, at(0.0), values, [value[metric] for value in values]


@pytest.mark.parametrize("how", ["path", "grid", "group", "image"])
@few
@given(
    seed=st.integers(0, 10**6), k=st.integers(2, 5), n=st.integers(3, 40), counts=st.booleans(), ignored=st.booleans(),
    metric=st.sampled_from(NAMES), absent=st.sampled_from(ABSENT),
)  # fmt: skip
def test_the_search_equals_naive(how, seed, k, n, counts, ignored, metric, absent):
    scores, labels, prior, left_out = small(np.random.default_rng(seed), n, k, counts=counts, ignored=ignored)
    assume(not np.isin(labels, left_out).all() and (prior > 0).sum() > 1)
    lams = np.round(np.arange(-10, 41) * 0.1, 1)
    plain, hidden, values, goal = oracle(scores, labels, prior, lams, metric, left_out, absent)
    more = {"method": "grid"} if how == "grid" else {}
    given_scores, given_labels = scores, labels
    if how == "image":
        given_scores, given_labels = scores.T[None, :, None, :], labels[None, None, :]
    source = unoic_cli.from_arrays(given_scores, given_labels, **({"group": ["g"] * n} if how == "group" else {}))
    if how == "group":
        more = {"by": "group"}
    found = unoic_cli.search_lambda(
        source, source_prior=prior.tolist(), metric=metric, absent=absent, range="-1:4", step="0.1",
        ignore_index=left_out, choose="best", **more,
    )  # fmt: skip
    agree(found.baseline, plain)
    if found.masked is None:
        agree(dict(zip(NAMES, (plain[name] for name in NAMES), strict=True)), hidden)
    else:
        agree(found.masked, hidden)
    faint = make_slopes(Prior.from_weights(prior.tolist(), "x", counts=True), Prior.uniform(k)).faint
    place = 10 if faint else naive.chosen(goal, lams)
    assert found.lam == lams[place], (found.lam, lams[place])
    agree(found.best, values[place])
    if how == "group":
        own = found.groups["g"]
        assert own["own_lambda"] == found.lam
        agree(own["baseline"], plain)


@few
@given(seed=st.integers(0, 10**6), k=st.integers(3, 6), n=st.integers(5, 40))
def test_the_baseline_of_top_k_and_folds_and_calibrate(tmp_path_factory, seed, k, n):
    scores, labels, prior, _ = small(np.random.default_rng(seed), n, k, counts=True, ignored=False)
    assume((prior > 0).sum() > 2)
    plain = metrics_of(labels, scores.argmax(1), k)
    found = unoic_cli.search_lambda(scores, labels, source_prior=prior.tolist(), metric="top2")
    assert found.baseline["top2"] == naive.top_k_hits(scores, labels, [0] * k, [0.0], 2)[0] / n
    agree(found.baseline, plain)
    path = str(tmp_path_factory.mktemp("o") / "o.h5")
    made = unoic_cli.calibrate(scores, labels, source_prior=prior.tolist(), lam=0.7, output=path)
    agree(made.before.values, plain)
    folds = unoic_cli.search_lambda(scores, labels, source_prior=prior.tolist(), folds=2).folds
    assert folds.pooled_before.hits.tolist() == naive.counts(labels, scores.argmax(1), k)[0].tolist()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "path"])
@pytest.mark.parametrize("fusion", ["noisy-or", "average", "product"])
def test_the_baseline_of_a_fusion_is_that_fusion_unmasked(tmp_path, name, fusion):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 60)
    both = {m: (rng.normal(size=(60, 3)) + np.eye(3)[labels]).astype("f4") for m in ("depth", "rgb")}
    plain = unoic_cli.evaluate(both, labels, fusion=fusion).overall.values
    found = unoic_cli.search_lambda(
        both, labels, source_prior={"rgb": [5, 3, 0], "depth": [5, 0, 2]} if fusion != "product" else [5, 3, 0],
        fusion=fusion, method=name, per_modality=True, range="0:2", step="0.5",
    )  # fmt: skip
    assert {key: found.baseline[key] for key in NAMES} == plain
    for modality, scores in both.items():
        agree(found.modalities[modality]["baseline"], metrics_of(labels, scores.argmax(1), 3))
    made = unoic_cli.fuse(
        both, labels, lam=0.0 if name == "grid" else 0.4, source_prior=[5, 3, 0], fusion=fusion,
        output=str(tmp_path / "o.h5"),
    )  # fmt: skip
    assert made.before.values == plain
    assert made.masked is not None


def test_a_delta_of_zero_does_not_hide_the_stored_scores(tmp_path):
    scores, labels = np.array([[0.0, 3], [0, 2], [4, 0]], "f4"), [1, 1, 0]
    source = unoic_cli.from_arrays(scores, labels, delta=np.array([0.0, 1, 1]), source_counts=[3, 1])
    assert unoic_cli.evaluate(source).overall.values["acc"] == 1.0
    found = unoic_cli.search_lambda(source)
    assert (found.baseline["acc"], found.curve["acc"][0]) == (1.0, pytest.approx(2 / 3))
    made = unoic_cli.calibrate(source, lam=0.0, output=str(tmp_path / "o.h5"))
    assert (made.before.values["acc"], made.after.values["acc"]) == (1.0, pytest.approx(2 / 3))


def test_shards_with_masks_give_the_whole_run(answer, run, tmp_path):
    rng = np.random.default_rng(1)
    path = str(tmp_path / "x.h5")
    labels = rng.integers(0, 4, 90)
    with h5py.File(path, "w") as file:
        file["logits"] = (rng.normal(size=(90, 4)) + np.eye(4)[labels]).astype("f4")
        file["labels"], file["source_counts"] = labels, [50, 30, 20, 0]
    args = (path, "--ignore-index", 1, "--folds", 3)
    whole = run("search-lambda", *args)
    for i in (1, 2):
        code, _, err = run("search-lambda", *args, "--shard", f"{i}/2", "--state", tmp_path / f"{i}.unoic")
        assert code == 0, err
    states = [str(tmp_path / f"{i}.unoic") for i in (1, 2)]
    merged = answer("merge", *states, "-o", str(tmp_path / "all.unoic"))
    if merged["passes"] == 1:  # labels first, for the folds: the second pass knows them
        for i in (1, 2):
            more = ("--after", str(tmp_path / "all.unoic"))
            run("search-lambda", *args, "--shard", f"{i}/2", "--state", tmp_path / f"{i}.unoic", *more, "--force")
        answer("merge", *states, "-o", str(tmp_path / "all.unoic"), "--force")
    assert run("report", str(tmp_path / "all.unoic"))[1] == whole[1]
    assert "masked" in json.loads(whole[1])["folds"]


# ---------------------------------------------------------------- plateaus


def equal_counts(metric, absent="reference"):
    """Two counts whose metric is the same fraction, and whose rounded values differ."""
    rng = np.random.default_rng(0)
    support = np.array([3, 6, 7, 14, 5, 10])
    seen = {}
    for _ in range(20000):
        hits = rng.integers(0, support + 1)
        predicted = hits + rng.integers(0, 4, 6)
        one = Counts(hits, predicted, support)
        fraction = exact(one, metric, absent)
        value = float(compute_all(one, absent)[metric])
        other = seen.setdefault(fraction, (one, value))
        if other[1] != value:
            return (other[0], one) if other[1] > value else (one, other[0])
    raise AssertionError("no such counts")


@pytest.mark.parametrize("metric", ["macc", "miou", "f1"])
def test_the_wider_of_two_equal_plateaus_wins_whatever_the_last_bit(metric):
    """[1.26, 1.30] tied exactly with [1.19, 1.20], and lost by the last bit of a sum."""
    large, small = equal_counts(metric)
    nothing = Counts(np.zeros(6, int), np.zeros(6, int), large.support)
    points = [nothing, large, large, nothing, small, small, small, small, small, nothing]
    lams = np.array([0.0, 1.19, 1.2, 1.21, 1.26, 1.27, 1.28, 1.29, 1.3, 1.31])

    def stacked(name):
        return np.stack([getattr(one, name) for one in points])[None]

    curve = Curve(lams, Counts(stacked("hits"), stacked("predicted"), large.support[None, None]))
    problem = problem_of(6, metric)
    rough = problem.values(curve, find(metric, ""))
    assert rough[1] > rough[4]
    assert rough[1] - rough[4] < rounding(6)
    values = problem.objective(curve)
    assert values[1] == values[4]
    assert best_plateau(values, lams).middle == 6
    problem = problem_of(6, metric, subject_to=f"{metric}>=base")
    problem.base = Curve(lams[:1], Counts(*(getattr(large, n)[None, None] for n in ("hits", "predicted", "support"))))
    assert np.isfinite(problem.objective(curve)).tolist() == [value > 0 for value in rough]
    problem.asked = replace(problem.asked, constraints=parse_constraints(f"{metric}>base"))
    assert not np.isfinite(problem.objective(curve)).any()


def test_values_that_differ_by_less_than_a_float_are_not_equal():
    parts = [Fraction(1, 3), Fraction(1, 3) + Fraction(1, 10**30), Fraction(1, 3)]
    values = settled(np.full(3, 1 / 3), 1e-14, lambda i: parts[i])
    assert values[1] > values[0] == values[2]


def test_constraints_are_decided_by_integers():
    """4 of 5 is .8, and not a bit less: macc of (4/5 + 4/5 + 4/5) / 3."""
    counts = Counts(*(np.array([[[4, 4, 4]]]) for _ in range(2)), np.array([[[5, 5, 5]]]))
    curve = Curve(np.array([0.5]), counts)
    for text, holds in (("macc>=0.8", True), ("macc>0.8", False), ("macc<=0.8", True), ("macc<0.8", False)):
        problem = problem_of(3, "acc", subject_to=text)
        problem.base = curve
        assert np.isfinite(problem.objective(curve)).tolist() == [holds], text


# ---------------------------------------------------------------- curves that tell nothing


@pytest.mark.parametrize("method", list(METHODS))
def test_equal_priors_stay_at_zero_in_folds_too(method):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(60, 3)).astype("f4"), np.arange(60) % 3
    found = unoic_cli.search_lambda(scores, labels, source_prior="uniform", method=method, folds=3)
    assert (found.lam, found.folds.lams) == (0.0, (0.0, 0.0, 0.0))
    assert any("are equal: lambda changes nothing" in note for note in found.notes)


@pytest.mark.parametrize("method", list(METHODS))
def test_slopes_near_zero_hold_no_information(method):
    """Ten rows that only a large lambda gets right: the priors say nothing about it."""
    scores = np.repeat(np.array([[1.0, 0], [0, 1], [0.3, 0]], "f4"), [500, 500, 10], axis=0)
    labels = np.repeat([0, 1, 1], [500, 500, 10])
    more = {"target_prior": "labels", "folds": 2, "method": method}
    found = unoic_cli.search_lambda(scores, labels, source_prior=[515, 495], **more)
    assert (found.lam, found.folds.lams) == (0.0, (0.0, 0.0))
    assert any("nearly equal" in note for note in found.notes)
    assert found.details["range"][1] <= 16
    assert unoic_cli.search_lambda(scores, labels, source_prior=[515, 495], range="1:3", method="grid").lam >= 1


def test_the_bound_of_slopes_that_say_nothing():
    edge = math.exp(FAINT)
    for ratio, faint in ((edge * (1 - 1e-9), True), (edge * (1 + 1e-9), False), (1.0, True)):
        slopes = make_slopes(Prior.from_weights([ratio, 1], "x", counts=False), Prior.uniform(2))
        assert (slopes.faint, slopes.flat) == (faint, ratio == 1.0)
    assert not make_slopes(Prior.from_weights([9, 1], "x", counts=True), Prior.uniform(2)).faint


def test_a_flat_curve_and_one_that_moves_a_unit_are_said():
    scores, labels = np.eye(2, dtype="f4")[[0, 0, 1, 1]] * 50, [0, 0, 1, 1]
    found = unoic_cli.search_lambda(scores, labels, source_prior=[3, 1], choose="best")
    assert found.lam == 0.0
    assert any("same at every lambda of the range" in note and "stays 0" in note for note in found.notes)
    found = unoic_cli.search_lambda(scores, labels, source_prior=[3, 1])
    assert found.lam == found.choice["anchor"] != 0.0
    said = f"tells nothing about lambda: {found.lam:g} is nearest to what the probabilities say"
    assert any("same at every lambda of the range" in note and note.endswith(said) for note in found.notes)
    assert not any("stays 0" in note for note in found.notes)
    scores = np.array([[50, 0]] * 20 + [[0, 50]] * 20 + [[1, 0]], "f4")
    labels = [0] * 20 + [1] * 21
    found = unoic_cli.search_lambda(scores, labels, source_prior=[3, 1], choose="best")
    assert found.lam > 0
    assert any("by 1 of 41 units" in note for note in found.notes)
    assert not any("same at every" in note for note in found.notes)
    scores[:, 1] += 1.5 * (np.arange(41) == 3)  # nothing to gain anywhere
    found = unoic_cli.search_lambda(scores, [0] * 20 + [1] * 20 + [0], source_prior=[3, 1], choose="best")
    assert found.lam == 0.0
    assert any("is better than 0: it stays 0" in note for note in found.notes)


def test_notes_of_the_anchored_rule_are_of_its_own_lambda():
    """Lambda 0 that is not the best, and another that no better value led to: each is said as it is."""
    scores = np.array([[50, 0]] * 20 + [[0, 50]] * 20 + [[1, 0]], "f4")
    found = unoic_cli.search_lambda(scores, [0] * 20 + [1] * 21, source_prior=[3, 1])
    told = [note for note in found.notes if "by 1 of 41 units" in note]
    assert bool(told) == (found.best["macc"] != found.baseline["macc"])
    assert all(note.startswith(f"the value at lambda {found.lam:g} differs from that at lambda 0") for note in told)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        labels = rng.choice(3, 60, p=[0.7, 0.2, 0.1])
        scores = rng.normal(size=(60, 3)) + np.eye(3)[labels] + np.log([0.7, 0.2, 0.1])
        found = unoic_cli.search_lambda(scores, labels, source_prior=[7, 2, 1], metric="acc", range="-2:2:0.5")
        top = max(found.curve["acc"])
        none = any("no lambda of the range is better than 0: it stays 0" in note for note in found.notes)
        good = any("lambda 0 is as good as the best within one standard error" in note for note in found.notes)
        assert none == (found.lam == 0 and found.best["acc"] == top)
        assert good == (found.lam == 0 and found.best["acc"] < top)
        assert found.choice["interval"][0] <= found.lam <= found.choice["interval"][1]


def test_a_single_predicted_class_is_said(tmp_path):
    """Labels that start at 1 while class 0 is the network's favourite: the search ends where one class is left."""
    scores = np.array([[2.0, 0, 1.9]] * 8 + [[0, 0, 1.9]] * 2, "f4")
    labels = [2] * 8 + [1] * 2
    found = unoic_cli.search_lambda(scores, labels, source_prior=[80, 19, 1], metric="acc")
    assert found.best["acc"] == 0.8
    assert any("all 10 units are predicted as a single class, 2, though the labels hold 2" in n for n in found.notes)
    given = {"source_prior": [80, 19, 1], "lam": 2.0}
    for result in (
        unoic_cli.evaluate(scores, labels, **given),
        unoic_cli.calibrate(scores, labels, output=str(tmp_path / "o.h5"), **given),
    ):
        assert any("single class" in note for note in result.notes)
    assert not any("single class" in note for note in unoic_cli.evaluate(scores, labels).notes)


def test_a_bound_that_is_no_number_is_refused():
    with pytest.raises(unoic_cli.UnoicError, match="the bound '1e999'"):
        parse_constraints("acc>=1e999")
    for wrong in ("kappa>=base-0.5%", "acc>=base-%", "acc>=5e%", "nll<=base+1%"):
        with pytest.raises(unoic_cli.UnoicError):
            parse_constraints(wrong)
    assert [one.value for one in parse_constraints("acc>=base-0.3% and miou>60% , recall[1]>=base-1.1%", 2)] == [
        -0.003, 0.6, -0.011,
    ]  # fmt: skip


def test_no_lambda_meets_a_bound_above_the_baseline():
    with pytest.raises(DataError, match="meets acc>base"):
        unoic_cli.search_lambda(np.eye(2, dtype="f4")[[0, 1]] * 50, [0, 1], source_prior=[3, 1], subject_to="acc>base")


def test_compare_says_what_a_method_masks():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 50)
    scores = rng.normal(size=(50, 3)) + np.eye(3)[labels]
    made = unoic_cli.search_lambda(scores, labels, source_prior=[5, 3, 0]).calibration
    table = unoic_cli.compare(scores, labels, methods={"it": replace(made, lam=0.0), "other": replace(made, lam=1.0)})
    assert [row.about for row in table.rows] == ["lambda 0, 1 class masked", "lambda 1, 1 class masked"]
    assert any("classes that are never predicted" in note for note in table.notes)
    cell = table.rows[0].cells["all"].values
    agree(cell, metrics_of(labels, scores[:, :2].argmax(1), 3))
