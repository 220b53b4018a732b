"""Metrics: each by its formula in plain Python, exactly; their names, and the page that explains them."""

from __future__ import annotations

import math
import pathlib
import re
from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unoic_cli.errors import UsageError
from unoic_cli.metrics import ABSENT, Counted, Counts, Rules, find, known, rounding
from unoic_cli.metrics.metric import ClassMean, fold
from unoic_cli.metrics.root import Root, root

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
COUNTED = [one.NAME for one in known() if one.RECIPE is None and one.NAME != "topN"]
"""Metrics of the counts of predictions."""
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
    "many": 2 / 3,
    "medium": (2 / 3 + 1 / 2) / 2,
    "few": 4 / 6,
}
"""Of `TRUTH` and `PREDICTED`, by hand, and by the functions of scikit-learn that the page names."""


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
        ("nothing", "the unknown metric 'nothing'", "expected one of acc, macc, miou, f1, "),
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
    assert repr(find("top 5", "")) == "<metric top5>"
