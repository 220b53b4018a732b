"""Metrics: each by its formula in plain Python, exactly; their names, and the page that explains them."""

from __future__ import annotations

import json
import math
import pathlib
import re
from fractions import Fraction

import h5py
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli.errors import UsageError
from unoic_cli.metrics import ABSENT, Counted, Counts, Rules, find, known, rounding
from unoic_cli.metrics.classwise_ece import ClassProbabilities
from unoic_cli.metrics.metric import ClassMean, fold
from unoic_cli.metrics.probabilities import Probabilities
from unoic_cli.metrics.root import Root, root

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
COUNTED = [one.NAME for one in known() if one.RECIPE is None and one.NAME != "topN"]
"""Metrics of the counts of predictions."""
SCORED = [one.NAME for one in known() if isinstance(one.RECIPE, (Probabilities, ClassProbabilities))]
"""Metrics of probabilities."""
few = settings(max_examples=30, deadline=None)

TRUTH = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 0]
PREDICTED = [0, 0, 0, 1, 2, 1, 1, 0, 2, 3, 3, 3, 2, 0]
KNOWN = {
    "acc": 9 / 14,
    "macc": (4 / 6 + 2 / 3 + 1 / 2 + 2 / 3) / 4,
    "miou": (4 / 7 + 2 / 4 + 1 / 4 + 2 / 4) / 4,
    "f1": (8 / 11 + 4 / 6 + 2 / 5 + 4 / 6) / 4,
    "gmean": 0.6204032394013997,
    "kappa": 0.5070422535211268,
    "mcc": 0.5107539184552492,
    "fwiou": 0.49489795918367346,
    "macro-precision": 0.6166666666666667,
    "specificity": (7 / 8 + 10 / 11 + 10 / 12 + 10 / 11) / 4,
    "many": 2 / 3,
    "medium": (2 / 3 + 1 / 2) / 2,
    "few": 4 / 6,
}
"""Of `TRUTH` and `PREDICTED`, by hand, and by the functions of scikit-learn that the page names."""

POSTERIOR = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3], [0.25, 0.5, 0.25], [0.9, 0.05, 0.05]]
KNOWN_SCORED = {
    "nll": 1.0945341507385629,
    "brier": 0.606,
    "ece": (0.3 + 0.2 + 0.4 + 0.5 + 0.9) / 5,
    "balanced-nll": 1.0276363223754599,
    "classwise-ece": ((0.3 + 0.1 + 0.7 + 0.25 + 0.9) + (0.2 + 0.1 + 0.4 + 0.5 + 0.05) + (0.1 + 0.2 + 0.3 + 0.25 + 0.95))
    / 15,
}
"""Of `POSTERIOR` and the labels 0, 2, 0, 1, 2, by hand, and by scikit-learn."""


def table_of(truth, predicted, n_classes):
    """A confusion matrix of fractions, for formulas that then round nothing."""
    counts = naive.confusion(truth, predicted, n_classes)
    return [[Fraction(int(n)) for n in row] for row in counts]


def counted_of(truth, predicted, n_classes):
    return Counted(Counts(*naive.counts(truth, predicted, n_classes)))


def is_none(value):
    return value is None or value != value


def agree(metric, counted, rules, expected):
    """A value and its exact twin against a formula's."""
    value, exact = float(metric.values(counted, rules)), metric.exact(counted, rules)
    if is_none(expected):
        assert math.isnan(value)
        assert exact is None
        return
    assert value == pytest.approx(float(expected), abs=1e-13)
    assert abs(value - float(exact)) <= rounding(counted.counts.support.shape[-1], value)
    if isinstance(expected, Fraction | int):
        assert exact == Fraction(expected)
    else:
        assert float(exact) == pytest.approx(expected, abs=1e-13)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("name", COUNTED)
@few
@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4)), max_size=30),
    st.sampled_from(ABSENT),
    st.sets(st.integers(0, 4), max_size=3),
)
def test_metrics_of_counts_are_their_formulas(name, pairs, absent, ignored):
    truth, predicted = [-1 if t in ignored else t for t, _ in pairs], [p for _, p in pairs]
    rules = Rules(absent, tuple(sorted(ignored)), (500, 100, 20, 19, 60))
    expected = naive.METRICS[name](
        table_of(truth, predicted, 5), absent=absent, ignored=ignored, training=rules.training
    )
    agree(find(name, ""), counted_of(truth, predicted, 5), rules, expected)


@pytest.mark.parametrize("name", COUNTED)
def test_metrics_as_other_programs_have_them(name):
    assert float(find(name, "").values(counted_of(TRUTH, PREDICTED, 4), Rules(training=(1, 50, 50, 500)))) == (
        pytest.approx(KNOWN[name], abs=1e-12)
    )


@pytest.mark.parametrize("name", COUNTED)
def test_a_curve_has_the_values_of_its_points(name):
    rng = np.random.default_rng(0)
    hits = rng.integers(0, 5, (2, 7, 4))
    support, predicted = rng.integers(5, 9, (2, 1, 4)), hits + rng.integers(0, 5, (2, 7, 4))
    rules, metric = Rules(training=(5, 50, 500, 501)), find(name, "")
    values = metric.values(Counted(Counts(hits, predicted, support)), rules)
    assert values.shape == (2, 7)
    for f in range(2):
        curve = Counted(Counts(hits[f], predicted[f], support[f]))
        assert metric.values(curve, rules).tolist() == values[f].tolist()
        for g in range(7):
            assert float(metric.values(curve.at(g), rules)) == pytest.approx(values[f, g], abs=1e-15)
            assert float(metric.exact(curve.at(g), rules)) == pytest.approx(values[f, g], abs=1e-15)


RATIOS = [one for one in known() if issubclass(one, ClassMean) and "RATIO" in vars(one)]


@pytest.mark.parametrize("one", RATIOS, ids=lambda one: one.RATIO)
@few
@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3)), max_size=20), st.integers(0, 3))
def test_ratios_of_a_class(one, pairs, k):
    truth, predicted = [t for t, _ in pairs], [p for _, p in pairs]
    metric = find(f"{one.RATIO}[{k}]", "", 4)
    agree(metric, counted_of(truth, predicted, 4), Rules(), naive.ratio(table_of(truth, predicted, 4), k, one.RATIO))
    assert metric.exact(counted_of(truth, predicted, 4), Rules(ignored=(k,))) is None


# ---------------------------------------------------------------- standard errors


@pytest.mark.parametrize("name", [*COUNTED, "precision[0]", "recall[1]", "iou[0]", "f1[2]"])
@few
@given(st.lists(st.integers(1, 30), min_size=3, max_size=5), st.data())
def test_weights_are_the_derivatives(name, hits, data):
    """Standard errors rest on them: the slope of a hit, and that of a prediction with its sign changed."""
    k = len(hits)
    missed, wrong = (data.draw(st.lists(st.integers(0, 20), min_size=k, max_size=k)) for _ in range(2))
    missed[0] += max(0, sum(wrong) - sum(missed))  # as many labels as predictions
    wrong[0] += max(0, sum(missed) - sum(wrong))
    missed, wrong = [missed[0] + 1, *missed[1:]], [*wrong[:-1], wrong[-1] + 1]
    scale, step = 10**6, 1000
    hits = np.array(hits) * scale
    support, predicted = hits + np.array(missed) * scale, hits + np.array(wrong) * scale
    metric, rules = find(name, "", k), Rules(training=(200.0, 50.0, 5.0, 4.0, 200.0)[:k])

    def value(hits, predicted):
        return float(metric.values(Counted(Counts(hits, predicted, support)), rules))

    weights = metric.weights(Counted(Counts(hits, predicted, support)), rules)
    size = max(np.abs(weights.hit).max(), np.abs(weights.predicted).max())
    for j in range(k):
        one = np.where(np.arange(k) == j, step, 0)
        of_hit = (value(hits + one, predicted) - value(hits - one, predicted)) / (2 * step)
        of_prediction = (value(hits, predicted - one) - value(hits, predicted + one)) / (2 * step)
        assert weights.hit[j] == pytest.approx(of_hit, rel=1e-4, abs=1e-5 * size)
        assert weights.predicted[j] == pytest.approx(of_prediction, rel=1e-4, abs=1e-5 * size)


# ---------------------------------------------------------------- roots


@few
@given(st.integers(0, 10**40), st.integers(1, 9))
def test_roots_of_integers(n, degree):
    found = root(n, degree)
    assert found**degree <= n < (found + 1) ** degree


def test_roots_of_large_degree_are_found_at_once():
    n = 7**9000 + 1
    assert root(n, 9000) == 7
    assert float(Root(Fraction(3**9000, 10**9000), 9000)) == 0.3


fractions = st.fractions(-2, 2, max_denominator=50)


@few
@given(fractions, fractions, st.integers(1, 5), st.integers(1, 5))
def test_roots_are_ordered_as_numbers(a, b, m, n):
    def real(power, degree):
        return math.copysign(abs(float(power)) ** (1 / degree), power)

    ours, theirs = Root(a, m), Root(b, n)
    if abs(real(a, m) - real(b, n)) > 1e-9:
        assert (ours < theirs) == (real(a, m) < real(b, n))
        assert (ours >= theirs) == (real(a, m) > real(b, n))
    assert float(ours) == pytest.approx(real(a, m), abs=1e-15)
    assert (ours > b) == (Root(a, m) > Root(b, 1))
    assert ours == Root(a, m)
    assert hash(ours) == hash(Root(a**3, 3 * m))
    assert -Root(-a, m) == ours
    assert float(Fraction(1, 3) + ours) == pytest.approx(1 / 3 + real(a, m))
    assert Fraction(0) + ours is ours


def test_equal_roots_are_equal_in_any_form():
    assert Root(Fraction(4, 9), 2) == Fraction(2, 3) == Root(Fraction(8, 27), 3)
    assert len({Root(Fraction(4, 9), 2), Fraction(2, 3), Root(Fraction(1, 2), 2), Root(Fraction(1, 4), 4)}) == 2
    assert Root(Fraction(1, 4), 2) != "1/2"


# ---------------------------------------------------------------- names


def test_no_two_metrics_share_a_name():
    names = [fold(name) for one in known() for name in (one.NAME, *one.ALIASES)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("one", known(), ids=lambda one: one.NAME)
def test_every_metric_is_explained(one):
    """In one line, and by a row of the page: name, title, formula, range, absent classes, source."""
    assert re.fullmatch(r"\S.{8,90}\.", one.HELP)
    assert one.TITLE
    row = re.search(rf"^\| `{one.NAME}` \| {re.escape(one.TITLE)} \|(.*)\|$", PAGE, re.MULTILINE)
    assert row, "a row of docs/metrics.md"
    assert row[1].count(" | ") == 3
    assert all(f"`{alias}`" in PAGE for alias in one.ALIASES), "its other names"
    if issubclass(one, ClassMean) and "RATIO" in vars(one):
        assert f"`{one.RATIO}[CLASS]`" in PAGE


@pytest.mark.parametrize("one", [one for one in known() if one.NAME != "topN"], ids=lambda one: one.NAME)
def test_names_as_people_write_them(one):
    for name in (one.NAME, *one.ALIASES):
        for text in (name, name.upper(), name.replace(" ", "_"), name.replace(" ", "-"), name.replace(" ", "")):
            assert find(text, "--metric").name == one.NAME


def test_classes_by_name_and_by_number():
    names = ("a, b", "3", "x[y]", "dog")
    for text, k in (("a, b", 0), ("3", 1), ("x[y]", 2), ("dog", 3), ("0", 0), (" 2 ", 2)):
        metric = find(f"Recall[{text}]", "--metric", 4, names)
        assert (metric.name, metric.k) == (f"recall[{names[k]}]", k)
    assert find("jaccard[1]", "--metric", 2).name == "iou[1]"
    assert find("dice[1]", "--metric", 2) == find("f1[1]", "--metric", 2) != find("f1[0]", "--metric", 2)


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("macca", "the unknown metric 'macca'", "did you mean macc?"),
        ("nothing", "the unknown metric 'nothing'", "expected one of acc, macc, miou, f1, topN"),
        ("recall[4]", "the unknown class '4'", "expected a number below 4, or the name of one"),
        ("recall[-1]", "the unknown class '-1'", "expected a number below 4"),
        ("iou[birb]", "the unknown class 'birb'", "did you mean bird?"),
        ("acc[dog]", "acc of one class", "recall[CLASS], iou[CLASS], f1[CLASS]"),
    ],
)
def test_what_is_not_known_is_refused(name, found, expected):
    with pytest.raises(UsageError) as error:
        find(name, "--metric", 4, ("cat", "dog", "bird", "cow"))
    assert (error.value.where, error.value.found) == ("--metric", found)
    assert expected in error.value.expected


def test_metrics_are_values():
    assert find("mAcc", "") == find("macro recall", "")
    assert find("top5", "") != find("top6", "")
    assert len({find("top5", ""), find("top-5", ""), find("acc", "")}) == 2
    assert repr(find("top 5", "")) == "<metric top5: Accuracy among the N best classes: top5, or another N.>"


# ---------------------------------------------------------------- commands


K, SOURCE = 4, (900, 60, 19, 21)
LATTICE = [round(0.1 * i, 10) for i in range(21)]


def draw(n=300, seed=0):
    """Imbalanced labels, scores in steps that tie now and then, groups."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, n, p=[0.6, 0.2, 0.1, 0.1])
    scores = np.round(rng.normal(size=(n, K)) * 1.5 + 1.5 * np.eye(K)[labels], 1).astype("f4")
    return scores, labels, np.array(["day", "night"])[rng.integers(0, 2, n)]


@pytest.fixture
def data(tmp_path):
    scores, labels, groups = draw()
    path = str(tmp_path / "val.h5")
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"], file["source_counts"] = scores, labels, SOURCE
        file["group"] = groups.astype("S")
        file["class_names"] = np.array(["car", "bus, old", "bike", "tram"], "S")
    return path


def measured(names, scores, labels, lam, training=SOURCE):
    """Metrics of counts, from the formulas, at a lambda."""
    predicted = naive.predict(scores, naive.slopes(SOURCE, np.ones(K)), lam)
    table = table_of(labels, predicted, K)
    more = {"absent": "reference", "ignored": (), "training": training}
    return {name: float(naive.METRICS[name](table, **more)) for name in names}


def posteriors(scores, lam):
    """The posterior of every unit."""
    return naive.posterior(scores, naive.slopes(SOURCE, np.ones(K)), lam)


@pytest.mark.parametrize("name", SCORED)
def test_metrics_of_probabilities_as_other_programs_have_them(name):
    source = unoic_cli.from_arrays(np.array(POSTERIOR), [0, 2, 0, 1, 2], kind="probs")
    assert unoic_cli.evaluate(source, metrics=[name]).overall.values[name] == pytest.approx(
        KNOWN_SCORED[name], abs=1e-11
    )


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("lam", [0, 0.7])
def test_metrics_of_probabilities_are_their_formulas(name, lam, data, answer):
    scores, labels, groups = draw()
    found = answer("evaluate", data, "-l", lam, "--metrics", name, "--by", "group", "--threads", 2)
    p = posteriors(scores, lam)
    assert found[name] == pytest.approx(naive.SCORED[name](p, labels), abs=1e-10)
    for group in found["groups"]:
        some = groups == group["group"]
        assert group[name] == pytest.approx(naive.SCORED[name](p[some], labels[some]), abs=1e-10)


@pytest.mark.parametrize("name", SCORED)
def test_probabilities_are_a_goal_by_grid(name, data, answer):
    scores, labels, _ = draw()
    found = answer("search-lambda", data, "--metric", name, "--range", "0:2:0.1", "--folds", 2, "--choose", "best")
    curve = [naive.SCORED[name](posteriors(scores, lam), labels) for lam in LATTICE]
    assert found["curve"][name] == pytest.approx(curve, abs=1e-10)
    assert (found["method"], found["reads"]) == ("grid", 1)
    assert found["best"][name] == min(found["curve"][name])
    assert len(found["folds"]["held_out"][name]["values"]) == 2


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("fusion", ["noisy-or", "product"])
def test_fused_probabilities(name, fusion, answer, tmp_path):
    labels, modalities = draw()[1], {}
    for i, modality in enumerate(("depth", "rgb")):
        path = str(tmp_path / f"{modality}.h5")
        modalities[modality] = np.random.default_rng(i).normal(size=(300, K)).astype("f4") + 1.5 * np.eye(K)[labels]
        with h5py.File(path, "w") as file:
            file["logits"], file["labels"], file["source_counts"] = modalities[modality], labels, SOURCE
    p = [posteriors(np.asarray(scores, "f8"), 0.4) for scores in modalities.values()]
    expected = naive.SCORED[name](naive.noisy_or(p) if fusion == "noisy-or" else naive.product(p), labels)
    inputs = [f"{modality}={tmp_path / modality}.h5" for modality in modalities]
    found = answer("evaluate", *inputs, "-l", 0.4, "--fusion", fusion, "--metrics", name)
    assert found[name] == pytest.approx(expected, abs=1e-5 if name == "ece" else 1e-9)


def test_what_curves_do_not_have_is_measured_at_the_end(data, answer):
    """At lambda 0, 1, the chosen one, and those of folds and groups, in one more read."""
    scores, labels, groups = draw()
    listed = ",".join(SCORED)
    for more in (("--folds", 2), ("--by", "group"), ("-l", 0.4)):
        plain = answer("search-lambda", data, *(more if "-l" in more else (*more, "--range", "0:2:0.1")))
        found = answer(
            "search-lambda", data, *(more if "-l" in more else (*more, "--range", "0:2:0.1")), "--metrics", listed
        )
        assert (found["reads"], found["curve"], found["lambda"]) == (
            plain["reads"] + 1,
            plain["curve"],
            plain["lambda"],
        )
        for where, lam in (("baseline", 0), ("rebalanced", 1), ("best", found["lambda"])):
            for name in SCORED:
                expected = naive.SCORED[name](posteriors(scores, lam), labels)
                assert found[where][name] == pytest.approx(expected, abs=1e-10)
        for group, one in (found["groups"] or {}).items():
            some = groups == group
            expected = naive.SCORED[SCORED[0]](posteriors(scores, one["own_lambda"])[some], labels[some])
            assert one["own_best"][SCORED[0]] == pytest.approx(expected, abs=1e-10)
    assert answer("compare", data, "-m", data_calibration(data, answer), "--metrics", listed)["metrics"] == SCORED


def test_likelihood_is_that_of_fit_temperature(data, answer):
    fitted = answer("fit-temperature", data)
    found = answer("evaluate", data, "--metrics", "nll,ece")
    for name in ("nll", "ece"):
        assert found[name] == pytest.approx(fitted[name]["before"], abs=1e-11)


def test_a_label_of_probability_zero_has_no_likelihood(run, answer, tmp_path):
    scores, labels, _ = draw()
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"], file["source_counts"] = scores, labels, [900, 60, 0, 21]
    listed = ("--metrics", "nll,brier,balanced-nll")
    code, out, err = run("search-lambda", path, *listed)
    found = json.loads(out)
    assert code == 0
    assert "note: nll and balanced-nll: infinite, as the label of some unit has probability zero" in err
    assert (found["best"]["nll"], found["masked"]["balanced-nll"]) == (None, None)
    assert found["baseline"]["nll"] == pytest.approx(naive.nll(naive.softmax(scores), labels), abs=1e-10)
    some = labels != 2  # the masked class has no probability, and the others share it
    p = np.insert(naive.softmax(scores[:, [0, 1, 3]]), 2, 0, axis=1)
    assert found["masked"]["brier"] == pytest.approx(naive.brier(p, labels), abs=1e-10)
    assert naive.nll(p[some], labels[some]) < 10
    code, out, err = run("search-lambda", path, "--metric", "nll")
    assert (code, out) == (65, "")
    assert "--metric: nll, which has no finite value at any lambda that was looked at; expected units" in err


def test_probabilities_of_shards_are_those_of_the_whole(data, run, answer, tmp_path):
    args = ("-l", 0.3, "--metrics", "nll,brier,ece,balanced-nll,top3", "--by", "group")
    states = [str(tmp_path / f"{i}.unoic") for i in (1, 2, 3)]
    for i, state in enumerate(states, 1):
        assert run("evaluate", data, *args, "--shard", f"{i}/3", "--state", state)[0] == 0
    whole = run("evaluate", data, *args, "--state", tmp_path / "whole.unoic")
    answer("merge", *states[::-1], "-o", str(tmp_path / "all.unoic"))
    assert run("report", str(tmp_path / "all.unoic"))[1] == run("evaluate", data, *args)[1]
    assert whole[0] == 0


def test_where_probabilities_are_no_goal(data, refuse, tmp_path):
    said = "--method: path with nll, which is measured at single lambdas; expected grid, paper or paper-printed"
    assert said in refuse(2, "search-lambda", data, "--metric", "nll", "--method", "path")
    assert said in refuse(2, "search-lambda", data, "--subject-to", "nll<=base", "--method", "path")
    path = str(tmp_path / "p.h5")
    with h5py.File(path, "w") as file:
        file["predictions"], file["labels"] = [0, 1, 2], [0, 1, 1]
        file["predictions"].attrs["n_classes"] = 3
        file["class_names"] = np.array(["a", "b", "c"], "S")
    assert "--metrics: nll of a file of predictions; expected scores" in refuse(2, "evaluate", path, "--metrics", "nll")


def data_calibration(data, answer):
    path = data.replace("val.h5", "c.json")
    answer("search-lambda", data, "-l", 0.4, "-o", path)
    return path


def test_evaluate_measures_what_it_is_asked(data, answer, run):
    scores, labels, groups = draw()
    listed = [name for name in COUNTED if name not in ("acc", "f1")]
    found = answer("evaluate", data, "-l", 0.5, "--metrics", ",".join([*listed, "recall[bus, old]"]), "--by", "group")
    expected = measured(COUNTED, scores, labels, 0.5)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12)
    assert found["recall[bus, old]"] == found["per_class"][1]["recall"]
    for group in found["groups"]:
        some = measured(COUNTED, scores[groups == group["group"]], labels[groups == group["group"]], 0.5)
        assert {name: group[name] for name in COUNTED} == pytest.approx(some, nan_ok=True)
    code, out, _ = run("evaluate", data, "--metrics", "g-mean, MCC", "--format", "table")
    assert code == 0
    assert out.splitlines()[4].split()[:2] == ["G-mean", "MCC"]
    code, out, _ = run("evaluate", data, "--metrics", "gmean", "--by", "group", "--format", "tsv")
    assert out.splitlines()[0].split("\t") == ["group", "n", "n_ignored", "acc", "macc", "miou", "f1", "gmean"]


def test_bounds_of_shots_are_options(data, answer):
    scores, labels, _ = draw()
    recalls = [row["recall"] for row in answer("evaluate", data)["per_class"]]
    plain = answer("evaluate", data, "--metrics", "many,medium,few")
    assert [plain[name] for name in ("many", "medium", "few")] == [recalls[0], sum(recalls[1::2]) / 2, recalls[2]]
    other = answer("evaluate", data, "--metrics", "few", "--shots", "60:900")
    assert other["few"] == pytest.approx((recalls[2] + recalls[3]) / 2)
    result = unoic_cli.evaluate(scores, labels, lam=0, source_prior=SOURCE, metrics=["few", "many"], shots=(20, 900))
    assert (result.overall.values["few"], math.isnan(result.overall.values["many"])) == (recalls[2], True)


@pytest.mark.parametrize("name", [name for name in COUNTED if name not in ("acc", "macc", "miou", "f1")])
def test_any_metric_is_a_goal(name, data, answer):
    scores, labels, _ = draw()
    found = answer("search-lambda", data, "--metric", name, "--range", "0:2:0.1", "--folds", 2, "--choose", "best")
    curve = [measured([name], scores, labels, lam)[name] for lam in LATTICE]
    assert found["curve"][name] == pytest.approx(curve, abs=1e-12)
    assert (found["method"], found["metric"], found["reads"]) == ("path", name, 1)
    assert found["best"][name] == max(found["curve"][name])
    assert found["calibration"]["provenance"]["metric"] == name
    assert set(found["folds"]["held_out"]) == {"acc", "macc", "miou", "f1", name}


def test_a_class_is_a_goal_and_a_constraint(data, answer, run):
    found = answer("search-lambda", data, "--metric", "recall[bike]", "--range", "0:2:0.1")
    assert found["metric"] == "recall[bike]"
    assert found["best"]["recall[bike]"] == max(found["curve"]["recall[bike]"])
    bound = found["baseline"]["recall[bike]"] + 0.05
    text = f"sensitivity[bus, old]>=base-0.1, recall[2] >= {bound} and gmean>base-0.1"
    kept = answer("search-lambda", data, "--metric", "acc", "--range", "0:2:0.1", "--subject-to", text)
    curve = {name: np.array(values) for name, values in kept["curve"].items()}
    allowed = (curve["recall[bus, old]"] >= kept["baseline"]["recall[bus, old]"] - 0.1) & (
        (curve["recall[bike]"] >= bound) & (curve["gmean"] > kept["baseline"]["gmean"] - 0.1)
    )
    assert 0 < allowed.sum() < len(allowed)
    assert kept["best"]["acc"] == curve["acc"][allowed].max()
    code, out, err = run("search-lambda", data, "--subject-to", "recall[tram]>=0.99 and few<=0.01")
    assert (code, out) == (65, "")
    assert "recall[tram] reaches" in err


def test_roots_are_bounds_to_the_last_bit():
    """gmean of recalls 1 and 1/4 is 1/2, and not a bit less."""
    scores = np.array([[3, 0], [0, 3], [3, 0], [3, 0], [3, 0]], "f4")
    labels = [0, 1, 1, 1, 1]
    more = {"source_prior": [3, 1], "metric": "acc", "range": "0:0"}
    for text, holds in (("gmean>=0.5", True), ("gmean>0.5", False), ("gmean>=base", True), ("gmean>base-1e-300", True)):
        if holds:
            assert unoic_cli.search_lambda(scores, labels, subject_to=text, **more).best["gmean"] == 0.5
        else:
            with pytest.raises(unoic_cli.UnoicError, match=r"meets gmean>0\.5"):
                unoic_cli.search_lambda(scores, labels, subject_to=text, **more)


def test_compare_shows_what_it_is_asked(data, answer, run, tmp_path):
    made = answer("search-lambda", data, "-o", str(tmp_path / "c.json"), "--metrics", "few,mcc")
    line = ("compare", data, "-m", str(tmp_path / "c.json"), "-m", f"{tmp_path}/c.json@0")
    found = answer(*line, "--metrics", "few,MCC,miou")
    assert found["metrics"] == ["few", "mcc", "miou"]
    assert found["methods"][0]["average"]["few"] == made["best"]["few"]
    assert set(found["methods"][0]["average"]) == {"acc", "macc", "miou", "f1", "few", "mcc"}
    code, out, _ = run(*line, "--metrics", "few,MCC", "--format", "table")
    assert code == 0
    assert "percent (MCC: as it is)" in out
    assert f"c    {100 * made['best']['few']:.2f}  {made['best']['mcc']:.4f}" in out
    assert "**" in run(*line, "--metrics", "kappa", "--format", "markdown")[1]
    assert run(*line, "--metrics", "kappa", "--format", "tsv")[1].split("\n")[0].endswith("f1\tkappa\tlambda")


def test_metrics_of_shards_are_those_of_the_whole(data, run, answer, tmp_path):
    for command, args in (
        ("evaluate", ("-l", 0.3, "--metrics", "few,gmean,top2", "--by", "group")),
        ("search-lambda", ("--metric", "mcc", "--subject-to", "top2>=base-0.2, recall[0]>=0.1", "--by", "group")),
    ):
        states = [str(tmp_path / f"{command}{i}.unoic") for i in (1, 2)]
        for i, state in enumerate(states, 1):
            assert run(command, data, *args, "--shard", f"{i}/2", "--state", state)[0] == 0
        whole = run(command, data, *args)[1]
        answer("merge", *states, "-o", str(tmp_path / f"{command}.unoic"))
        assert run("report", str(tmp_path / f"{command}.unoic"))[1] == whole


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("evaluate", "--metrics", "acc,acc"), "--metrics: 'acc,acc'; expected each metric once"),
        (("evaluate", "--metrics", ""), "--metrics: ''; expected each metric once"),
        (("evaluate", "--metrics", "acc,recall[truck]"), "--metrics: the unknown class 'truck'"),
        (("evaluate", "--metrics", "top4"), "--metrics: top4 with 4 classes, which is always 1; expected N < 4"),
        (("evaluate", "--shots", "1:2"), "--shots: --shots without a metric that it is for; expected many, medium"),
        (("evaluate", "--metrics", "few", "--shots", "20"), "--shots: '20'; expected FEW:MANY training samples"),
        (("evaluate", "--metrics", "few", "--shots", "20:10"), "--shots: '20:10'; expected FEW:MANY"),
        (("search-lambda", "--metric", "recall"), "--metric: the unknown metric 'recall'"),
        (("search-lambda", "--subject-to", "recall[9]>=0"), "--subject-to: the unknown class '9'"),
        (("search-lambda", "--subject-to", "acc>=0.5, and miou>=0"), "--subject-to: ' and miou>=0'"),
        (("search-lambda", "--subject-to", "acc>=0.5,"), "--subject-to: "),
        (("compare", "-m", "c.json@0", "--metrics", "acc,kapa"), "--metrics: the unknown metric 'kapa'; did you mean"),
    ],
)  # fmt: skip
def test_what_is_refused(args, line, data, refuse):
    assert line in refuse(2, args[0], data, *args[1:])


def test_shots_need_training_counts(refuse, tmp_path):
    scores, labels, _ = draw(60)
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"] = scores, labels
    said = (
        "few without the numbers of training samples; expected source_counts in the file, or --source-prior with counts"
    )
    assert said in refuse(2, "evaluate", path, "--metrics", "few")
    assert said in refuse(2, "search-lambda", path, "--metric", "few")  # its own labels are no training counts
    assert said in refuse(2, "search-lambda", path, "--metric", "few", "--source-prior", "0.4,0.3,0.2,0.1")
    found = unoic_cli.search_lambda(path, metric="few", source_prior=list(SOURCE))
    assert json.loads(json.dumps(found.to_dict()))["metric"] == "few"


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("factor", [1, 1 << 33])
def test_one_point_of_many_units_is_as_a_curve_of_them(name, factor):
    """Sums of products of counts are integers of any size, with leading axes or without."""
    hits, predicted, support = (factor * np.array(row) for row in ([5, 3, 1], [7, 6, 2], [6, 5, 4]))
    metric, rules = find(name, "--metric"), Rules(training=(500.0, 50.0, 5.0))
    one = float(metric.values(Counted(Counts(hits, predicted, support)), rules))
    many = metric.values(Counted(Counts(hits[None], predicted[None], support)), rules)
    assert many.shape == (1,) and one == many[0] and 0 < one < 1
    assert metric.exact(Counted(Counts(hits, predicted, support)), rules) is not None
