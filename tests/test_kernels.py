"""The kernels, and all that lies between a block and a count, against naive.py: equal to the last count."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from fractions import Fraction

import naive
import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.lattice import Lattice
from unoic_cli.calibrations.rule import Rule
from unoic_cli.data.batch import Batch, InvalidScoreError, choose_split, make_scores
from unoic_cli.data.reader import invalid_score
from unoic_cli.errors import DataError
from unoic_cli.formats.block import LogitBlock, Source
from unoic_cli.kernels import simd, tile
from unoic_cli.kernels.constants import FIXED_POINT
from unoic_cli.kernels.jit import JIT_DISABLED, NO_COUNTING
from unoic_cli.kernels.lines import make_lines, make_point, make_workspace
from unoic_cli.kernels.operator import Pool
from unoic_cli.kernels.simd import LANES
from unoic_cli.tallies import path as path_tally
from unoic_cli.tallies.labels import LabelTally
from unoic_cli.tallies.path import PathTally
from unoic_cli.tallies.points import PointTally, predict
from unoic_cli.tallies.posterior import PosteriorTally
from unoic_cli.tallies.top_k import TopKTally

pytestmark = [pytest.mark.kernel, pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")]

ENCODINGS = ("float16", "bfloat16", "float32", "float64")
LAYOUTS = ("rows", "planes")
INF = float("inf")

few = settings(
    max_examples=15 if JIT_DISABLED else 60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


# ---------------------------------------------------------------- a problem, and what naive.py makes of it


def encode(values, encoding):
    """Any floats as a block stores them, and the float64 values that were stored."""
    with np.errstate(over="ignore", invalid="ignore"):
        if encoding == "float16":
            finite = np.where(np.isfinite(values), np.clip(values, -65504, 65504), values)
            stored = np.asarray(finite, np.float64).astype(np.float16)
            return stored.view(np.uint16), stored.astype(np.float64)
        if encoding == "bfloat16":
            bits = (np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
            return bits, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        stored = np.asarray(values).astype(encoding)
        return stored, stored.astype(np.float64)


@dataclass
class Problem:
    """Scores (T, K) in any dtype, kind and layout, with lines and lattice."""

    values: np.ndarray
    labels: np.ndarray
    slopes: np.ndarray
    lams: np.ndarray
    encoding: str = "float32"
    layout: str = "rows"
    kind: str = "logits"
    delta: np.ndarray = field(default_factory=lambda: np.empty(0))
    masked: np.ndarray | None = None
    tables: np.ndarray | None = None
    n_images: int = 1
    temperature: float = 1.0

    def __post_init__(self):
        n_units, n_classes = self.values.shape
        self.slopes = np.asarray(self.slopes, np.float64)
        self.lams = np.asarray(self.lams, np.float64)
        self.delta = np.atleast_1d(np.asarray(self.delta, np.float64))
        if self.masked is None:
            self.masked = np.zeros(n_classes, bool)
        self.tables = np.zeros(n_units, np.int32) if self.tables is None else np.asarray(self.tables, np.int32)
        self.n_tables = int(self.tables.max(initial=0)) + 1
        self.labels = np.asarray(self.labels, np.int32)
        if n_units % self.n_images:
            self.n_images = 1

    def batch(self):
        n_units, n_classes = self.values.shape
        raw, _ = encode(self.values, self.encoding)
        shape = ()
        if self.layout == "planes":
            pixels = n_units // self.n_images
            raw = np.ascontiguousarray(raw.reshape(self.n_images, pixels, n_classes).transpose(0, 2, 1))
            shape = (1, pixels)
        n_samples = self.n_images if shape else n_units
        source = Source(
            name="mem",
            format="arrays",
            n_samples=n_samples,
            n_classes=n_classes,
            image_shape=shape,
            kind=self.kind,
            encoding=self.encoding,
            layout=self.layout,
            fields=frozenset({"labels"}),
        )
        block = LogitBlock(0, n_units, raw, labels=self.labels, delta=self.delta if self.delta.size else None)
        part = choose_split(block, source, None)
        scores = make_scores(part, self.temperature)
        return Batch(n_units, scores, None, self.labels, int((self.labels < 0).sum()), self.tables, part)

    @property
    def z(self):
        """What naive.py is given: (T, K) float64."""
        _, stored = encode(self.values, self.encoding)
        if self.kind == "probs":
            with np.errstate(divide="ignore"):
                return np.log(stored)
        return stored

    @property
    def factor(self):
        delta = self.delta if self.delta.size else np.ones(1)
        delta = delta / self.temperature if self.temperature != 1 else delta
        return delta if delta.size > 1 else float(delta[0])

    @property
    def allowed(self):
        return np.flatnonzero(~self.masked)

    def lines(self):
        return make_lines(self.slopes, self.masked, self.lams)

    def predictions(self, lam):
        kept = self.allowed
        return kept[naive.predict(self.z[:, kept], self.slopes[kept], lam, self.factor)]

    def expected(self):
        """hits and predicted (F, G, K), support (F, 1, K)."""
        n_classes = self.slopes.size
        shape = (self.n_tables, self.lams.size, n_classes)
        hits, predicted = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        support = np.zeros((self.n_tables, 1, n_classes), np.int64)
        for g, lam in enumerate(self.lams):
            predictions = self.predictions(lam)
            for f in range(self.n_tables):
                own = self.tables == f
                hits[f, g], predicted[f, g], support[f, 0] = naive.counts(self.labels[own], predictions[own], n_classes)
        return hits, predicted, support

    def top_k(self, k):
        """(F, G) hits of the k best classes that are not masked; a masked label is no hit."""
        kept = self.allowed
        place = np.full(self.slopes.size + 1, -1)
        place[kept] = np.arange(kept.size)
        labels = place[self.labels]
        rows = []
        for f in range(self.n_tables):
            own = self.tables == f
            factor = self.factor[own] if np.ndim(self.factor) else self.factor
            rows.append(
                naive.top_k_hits(self.z[own][:, kept], labels[own], self.slopes[kept], self.lams, k, factor)
                if own.any()
                else np.zeros(self.lams.size, np.int64)
            )
        return np.stack(rows)


def describe_difference(problem, found, expected, what):
    where = np.argwhere(found != expected)
    return f"{what} differs at (table, point, class) {where[:5].tolist()} of {problem}"


def check_path(problem):
    tally = PathTally(problem.lines(), problem.n_tables)
    tally.update(problem.batch())
    counts = tally.counts()
    for what, found, expected in zip(
        ("hits", "predicted", "support"),
        (counts.hits, counts.predicted, counts.support),
        problem.expected(),
        strict=True,
    ):
        assert np.array_equal(found, expected), describe_difference(problem, found, expected, what)


def check_points(problem, most=3):
    lams = problem.lams[np.unique(np.linspace(0, problem.lams.size - 1, most).astype(int))]
    problem = replace(problem, lams=lams)
    points = [make_point(problem.slopes, problem.masked, lam) for lam in lams]
    tally = PointTally(points, problem.n_tables, confusion=True)
    tally.update(problem.batch())
    counts = tally.counts()
    hits, predicted, support = problem.expected()
    assert np.array_equal(counts.hits, hits), describe_difference(problem, counts.hits, hits, "hits")
    assert np.array_equal(counts.predicted, predicted)
    assert np.array_equal(counts.support, support)
    n_classes = problem.slopes.size
    for i, lam in enumerate(lams):
        table = naive.confusion(problem.labels, problem.predictions(lam), n_classes)
        assert np.array_equal(tally.confusion[i].reshape(n_classes, n_classes), table)


def check_top_k(problem, top):
    tally = TopKTally([problem.lines()], top, problem.n_tables)
    tally.update(problem.batch())
    expected = problem.top_k(top)
    assert np.array_equal(tally.hits(), expected), describe_difference(problem, tally.hits(), expected, f"top-{top}")


# ---------------------------------------------------------------- problems that are meant to hurt

NEAR = (0.0, 1e-16, -1e-16, 3e-16, 1e-15, 1e-13, -1e-12, 1e-10, 1e-8, 1e-6, -1e-6, 1e-4, 1e-3)
LATTICES = ("0:2:0.01", "0:1:0.125", "-1:1:0.05", "-2:-1:0.25", "0.5:3:0.5", "0:0.001:0.00001", "0:40:1", "-3:0:0.1")
POOLS = (
    (0.0, -0.0, 1.0, -1.0, 2.0, 0.5),
    (0.0, 1e-30, -1e-30, 1.0, 1e-45, 1e-17),
    (6e4, -6e4, 0.0, 65504.0, 59999.0, 1e-7),
    (1e30, -1e30, 0.0, 1.0, 9.99e29),
    (1e-40, 2e-40, 3e-45, 0.0, -1e-40),
    (6e-8, 1.2e-7, -6e-8, 0.0, 6.1e-5),
    (1.0, 1.0 + 2**-23, 1.0 + 2**-52, 1.0 - 2**-53, 1.0 + 1e-16, 1.0 + 2**-10),
    (3.14, 3.15, 3.1400001, 3.14000000000001, 2.0),
)


def lattice_of(name):
    return Lattice.parse(name).values()


def random_slopes(rng, n_classes):
    way = rng.integers(7)
    if way == 0:
        return np.full(n_classes, rng.choice([0.0, 1.0, -0.3]))
    if way == 1:
        return rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0, 2.0], n_classes)
    if way == 2:
        return rng.choice([0.3, -1.7, 2.5]) + rng.choice(NEAR, n_classes)
    if way == 3:
        return rng.choice([-1.0, 0.0, 0.7]) * rng.integers(0, 3, n_classes) + rng.choice(NEAR, n_classes)
    if way == 4:
        return np.log(1 / n_classes) - np.log(naive.normalised(rng.integers(1, 1000, n_classes)))
    if way == 5:
        return rng.normal(size=n_classes) * 10 ** rng.uniform(-12, 2)
    return -np.log(naive.normalised(np.exp(-6 * np.arange(n_classes) / n_classes)))


def random_scores(rng, n_units, slopes, lams):
    n_classes = slopes.size
    way = rng.integers(8)
    if way == 0:
        return rng.normal(size=(n_units, n_classes)) * 10 ** rng.uniform(-2, 1.5)
    if way in (1, 2):
        return rng.choice(POOLS[rng.integers(len(POOLS))], (n_units, n_classes))
    if way == 3:  # lines that meet on lattice points, as nearly as the dtype allows
        return rng.choice([0.0, 1.0, -7.0]) - rng.choice(lams, (n_units, 1)) * slopes
    if way == 4:
        return -rng.choice(lams, (n_units, n_classes)) * slopes + rng.choice(NEAR, (n_units, n_classes))
    if way == 5:  # lines that nearly touch an envelope
        at = np.linspace(lams[0], lams[-1], 7)[rng.integers(0, 7, (n_units, n_classes))]
        return -at * slopes + slopes**2 * rng.choice([0, 0.1]) + rng.choice(NEAR, (n_units, 1))
    if way == 6:
        return np.round(rng.normal(size=(n_units, n_classes)) * 4) / 4
    return rng.choice([1e-3, 1e-8, 1e-12, 1e-20]) * rng.integers(-3, 4, (n_units, n_classes))


def random_problem(rng, encoding, layout, n_classes=None, n_units=None, lattice=None):
    if n_classes is None:
        n_classes = int(rng.choice([2, 3, 5, 14, 15, 16, 17, 31, 33, 40]))
    if n_units is None:
        n_units = int(rng.choice([1, 2, 7, 16, 30, 41]))
    lams = lattice_of(rng.choice(LATTICES)) if lattice is None else lattice
    if rng.random() < 0.1:
        lams = lams[:1]
    slopes = random_slopes(rng, n_classes)
    values = random_scores(rng, n_units, slopes, lams)
    kind = rng.choice(["logits", "log_probs", "probs"], p=[0.7, 0.15, 0.15])
    masked = rng.random(n_classes) < rng.choice([0, 0, 0.2, 0.5])
    masked[rng.integers(n_classes)] = False
    delta = [np.empty(0), np.array([rng.choice([0.5, 0.7, 3.0, 1e-3])]), rng.choice([0.1, 1, 1.3, 1e-6, 2], n_units)]
    delta = delta[rng.choice(3, p=[0.5, 0.25, 0.25])]
    if kind == "probs":
        values = np.exp(np.clip(values, -60, 10))
    if kind != "logits":
        gone = rng.random(values.shape) < rng.choice([0, 0.2, 0.6])
        gone[np.arange(n_units), rng.choice(np.flatnonzero(~masked), n_units)] = False
        values = np.where(gone, 0.0 if kind == "probs" else -INF, values)
        if kind == "probs":  # what is left may still round to zero
            values[~gone] = np.maximum(values[~gone], 1e-4)
    labels = rng.integers(-1, n_classes, n_units)
    tables = rng.integers(0, rng.choice([1, 3]), n_units)
    images = int(rng.choice([1, 2, 3]))
    return Problem(values, labels, slopes, lams, encoding, layout, str(kind), delta, masked, tables, images)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_counts_are_those_of_float64_argmax_on_random_problems(encoding, layout):
    rng = np.random.default_rng([ENCODINGS.index(encoding), LAYOUTS.index(layout)])
    for _ in range(4 if JIT_DISABLED else 60):
        problem = random_problem(rng, encoding, layout)
        check_path(problem)
        check_points(problem)
        check_top_k(problem, int(rng.integers(1, 6)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_classes", [2, 16, 17, 64, 65, 100, 128, 129, 300])
def test_several_tiles_and_several_vectors(n_classes, layout):
    rng = np.random.default_rng(n_classes)
    sizes = (5, 18) if JIT_DISABLED else (270, 700, 4700 if n_classes == 2 else 530)
    for n_units in sizes:
        encoding = str(rng.choice(ENCODINGS))
        problem = random_problem(rng, encoding, layout, n_classes, n_units, np.linspace(0, 2, 9))
        check_path(problem)
        check_points(problem, 2)
        check_top_k(problem, 3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_realistic_scores_on_a_fine_lattice(layout):
    rng = np.random.default_rng(3)
    n_units, n_classes = (20, 6) if JIT_DISABLED else (400, 14)
    prior = naive.normalised(np.exp(-0.4 * np.arange(n_classes)))
    labels = rng.choice(n_classes, n_units, p=prior)
    values = rng.normal(size=(n_units, n_classes))
    values[np.arange(n_units), labels] += 2 + 2 * prior[labels]
    lams = lattice_of("-1:3:0.05" if JIT_DISABLED else "-1:3:0.002")
    slopes = naive.slopes(prior, np.ones(n_classes))
    check_path(Problem(values, labels, slopes, lams, "float16", layout, n_images=4))
    check_path(Problem(values, labels, slopes, lams, "float32", layout, delta=rng.random(n_units) + 0.5))


@st.composite
def problems(draw, encodings=("float32",), layouts=("rows",)):
    encoding, layout = draw(st.sampled_from(encodings)), draw(st.sampled_from(layouts))
    n_classes, n_units = draw(st.integers(2, 6) | st.sampled_from([15, 16, 17, 20])), draw(st.integers(1, 8))
    lams = lattice_of(draw(st.sampled_from(LATTICES)))
    base = st.sampled_from([0.0, 0.5, 1.0, -1.0, 3.0, math.log(0.3), 1e-3])
    slope = st.builds(lambda a, b: a + b, base, st.sampled_from(NEAR)) | st.floats(-4, 4)
    slopes = np.array(draw(st.lists(slope, min_size=n_classes, max_size=n_classes)))
    pool = draw(st.sampled_from(POOLS)) + tuple((-lams[draw(st.integers(0, lams.size - 1))] * slopes)[:4])
    score = st.sampled_from(pool) | st.floats(-20, 20, width=16)
    size = n_units * n_classes
    values = np.array(draw(st.lists(score, min_size=size, max_size=size))).reshape(n_units, n_classes)
    delta = draw(st.sampled_from([[], [0.5], [1 / 3], list(np.linspace(0, 2, n_units))]))
    masked = np.array(draw(st.lists(st.sampled_from([False, False, True]), min_size=n_classes, max_size=n_classes)))
    masked[draw(st.integers(0, n_classes - 1))] = False
    labels = draw(st.lists(st.integers(-1, n_classes - 1), min_size=n_units, max_size=n_units))
    return Problem(values, labels, slopes, lams, encoding, layout, delta=delta, masked=masked)


def small(values, slopes, lams, **options):
    values = np.atleast_2d(np.array(values, float))
    return Problem(values, np.arange(len(values)) % values.shape[1], np.array(slopes), np.array(lams), **options)


# float64 cannot tell 0 + s from 1e-30 + s, whatever class leads at lambda = 0
UNDER_RESOLUTION = small([0.0, 1e-30, -4.9], [0.5, 0.5, 3.0], np.linspace(0, 2, 21))
UNDER_RESOLUTION_TOO = small([0.0, 0.0, 1e-20, -4.9], [0.5, 0.5 - 1e-16, 0.5 - 2e-16, 3], np.linspace(0, 4, 41))
# a crossing that rounding smears over many lattice points
SMEARED = small([[0.0, 1.5e-14, -9], [1.5e-14, 0, 0]], [1 + 1.5e-14, 1, 2], np.linspace(0, 2, 2001))


@few
@example(UNDER_RESOLUTION)
@example(UNDER_RESOLUTION_TOO)
@example(SMEARED)
@example(replace(SMEARED, encoding="float64", delta=[0.5]))
@given(problems(ENCODINGS, LAYOUTS))
def test_path_of_any_problem(problem):
    check_path(problem)


@few
@example(UNDER_RESOLUTION)
@given(problems(ENCODINGS, LAYOUTS))
def test_points_of_any_problem(problem):
    check_points(problem)


@few
@example(SMEARED, 1)
@example(SMEARED, 2)
@example(replace(SMEARED, labels=np.array([1, 0])), 1)
@given(problems(ENCODINGS, LAYOUTS), st.integers(1, 20))
def test_top_k_of_any_problem(problem, top):
    check_top_k(problem, top)


@few
@given(problems(("float32", "float64"), LAYOUTS), st.integers(0, 40), st.integers(0, 40))
def test_lattice_points_where_a_threshold_falls_exactly(problem, a, b):
    """The crossings of every pair of neighbours put on lattice points, as nearly as the dtype allows."""
    z = problem.values.copy()
    for k in range(1, z.shape[1]):
        lam = problem.lams[(a + b * k) % problem.lams.size]
        z[:, k] = z[:, k - 1] + lam * (problem.slopes[k - 1] - problem.slopes[k])
    problem = replace(problem, values=z)
    check_path(problem)
    check_top_k(problem, 2)


def test_a_masked_class_leads_at_no_end():
    """Its -inf, with the class in its last bits, is no number: in neither form of the kernel may it be the largest."""
    slopes = np.zeros(15)
    slopes[8], slopes[10] = 0.5, -1
    values = np.repeat([[0.0] * 8 + [-0.3125, -0.3125, 0.1875] + [-0.8125] * 4], 4, axis=0)
    masked = np.arange(15) == 14
    for encoding in ("float16", "float32", "float64"):
        problem = Problem(
            values=values, labels=np.zeros(4, np.int32), slopes=slopes, lams=np.arange(9) / 8, encoding=encoding,
            layout="rows", kind="logits", delta=np.zeros(0), masked=masked, tables=np.zeros(4, np.int32), n_images=1,
            temperature=1.0,
        )  # fmt: skip
        check_path(problem)
        check_top_k(problem, 2)


def test_lattices_far_from_zero_and_very_fine_ones():
    rng = np.random.default_rng(8)
    n = 6 if JIT_DISABLED else 60
    for name in (
        "-1000:1000:50",
        "999:1000:0.05",
        "-100000:100000:8000",
        "0:0.00002:0.000001",
        "1:1.0000002:0.00000001",
    ):
        lams = lattice_of(name)
        slopes = rng.normal(size=5)
        values = -rng.choice(lams, (n, 1)) * slopes + rng.choice([0, 1e-9, 1e-3], (n, 5))
        for encoding in ("float32", "float64"):
            check_path(Problem(values, rng.integers(0, 5, n), slopes, lams, encoding))


def test_a_hundred_thousand_lattice_points():
    lattice = Lattice.parse("-0.5:0.5:0.00001")
    rng = np.random.default_rng(1)
    slopes = np.array([0.1, 1.0, -2.0])
    places = rng.choice(lattice.size, 5)
    lams = lattice.values()
    values = -lams[places][:, None] * slopes  # three lines through one lattice point
    problem = Problem(values, [0, 1, 2, 0, 1], slopes, lams, "float64")
    tally = PathTally(problem.lines())
    tally.update(problem.batch())
    counts = tally.counts()
    looked_at = np.unique(np.clip((places[:, None] + np.arange(-3, 4)).ravel(), 0, lattice.size - 1))
    hits, predicted, _ = replace(problem, lams=lams[looked_at]).expected()
    assert np.array_equal(counts.hits[0, looked_at], hits[0])
    assert np.array_equal(counts.predicted[0, looked_at], predicted[0])


@pytest.mark.parametrize("encoding", ["float32", "float64"])
@pytest.mark.parametrize("delta", [1e-42, 1e-310, 1e35, 1e300])
def test_factors_that_float32_cannot_hold(encoding, delta):
    scale = 1.0 / delta if 1e-38 < 1 / delta < 1e38 else (1e37 if delta < 1 else 1e-37)
    values = np.array([[1.0, 1.001, 0.5], [0.0, 0.7, 0.70001]]) * scale
    problem = small(values, [0.001, 0, 0.002], np.linspace(0, 2, 5), encoding=encoding, delta=[delta])
    if delta == 1e300 and encoding == "float32":
        with pytest.raises(InvalidScoreError):
            check_path(problem)
        return
    for layout in LAYOUTS:
        for factor in ([delta], [delta, 1.0]):
            problem = replace(problem, delta=np.array(factor), layout=layout)
            if np.abs(problem.z * np.reshape(problem.factor, (-1, 1))).max() < 3e38:
                check_path(problem)
                check_points(problem)


def test_temperature_divides_the_scores():
    rng = np.random.default_rng(2)
    problem = random_problem(rng, "float16", "rows", 5, 20, np.linspace(0, 2, 9))
    check_path(replace(problem, temperature=2.5))
    check_path(replace(problem, temperature=2.5, delta=np.full(20, 2.5)))  # both cancel
    check_path(replace(problem, temperature=0.3, delta=np.array([1.5])))


def test_emptying_the_table_of_changes_changes_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    problem = random_problem(rng, "float32", "rows", 5, 40, np.linspace(0, 2, 9))
    one = PathTally(problem.lines(), problem.n_tables)
    for _ in range(3):
        one.update(problem.batch())
    monkeypatch.setattr(path_tally, "_FLUSH", 50)
    two = PathTally(problem.lines(), problem.n_tables)
    parts = [two.fresh(), two.fresh()]
    for part, n in zip(parts, (1, 2), strict=True):
        for _ in range(n):
            part.update(problem.batch())
    for part in parts:
        two.add(part)
    hits, predicted, support = problem.expected()
    for counts in (one.counts(), two.counts()):
        assert np.array_equal(counts.hits, 3 * hits)
        assert np.array_equal(counts.predicted, 3 * predicted)
        assert np.array_equal(counts.support, 3 * support)


@few
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=30))
def test_label_counts(labels):
    tally = LabelTally(5)
    batch = small(np.zeros((len(labels), 5)), np.zeros(5), [0.0]).batch()
    batch = replace(batch, labels=np.array(labels, np.int32), n_ignored=labels.count(-1))
    tally.update(batch)
    part = tally.fresh()
    part.update(batch)
    tally.add(part)
    assert tally.counts.ravel().tolist() == [2 * labels.count(k) for k in range(5)]
    assert tally.n_ignored == 2 * labels.count(-1)


# ---------------------------------------------------------------- scores that may not be there


def first_bad(problem):
    """The unit that each kind of tally refuses."""
    found = []
    for tally in (
        PathTally(problem.lines()),
        PointTally([make_point(problem.slopes, problem.masked, problem.lams[0])]),
    ):
        with pytest.raises(InvalidScoreError) as error:
            tally.update(problem.batch())
        found.append(error.value.unit)
    assert len(set(found)) == 1
    return found[0], str(invalid_score((problem.batch().part,), InvalidScoreError(found[0])))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("value", [math.nan, INF, -INF])
def test_the_first_bad_unit_is_named(encoding, layout, value):
    n_units = 20 if JIT_DISABLED else 600
    values = np.zeros((n_units, 3))
    bad = n_units - 7
    values[bad, 1] = values[n_units - 1, 0] = value
    labels = np.full(n_units, -1)  # ignored units are checked all the same
    problem = Problem(values, labels, np.zeros(3), np.array([0.0, 1.0]), encoding, layout)
    unit, message = first_bad(problem)
    assert unit == bad
    assert f"{value} at " in message
    assert ", class 1; expected finite logits" in message
    tally = PosteriorTally(3)
    with pytest.raises(InvalidScoreError) as error:
        tally.update(problem.batch())
    assert error.value.unit == bad
    if value == -INF:
        check_path(replace(problem, kind="log_probs"))


@pytest.mark.parametrize("value", [math.nan, INF])
@pytest.mark.parametrize("n_classes", [2, 3, 4, 7, 15, 16, 17])
def test_a_bad_unit_just_behind_a_tile_leaves_the_others_and_the_memory_alone(n_classes, value):
    per_tile = make_workspace(n_classes).tile.size // n_classes // LANES * LANES
    if JIT_DISABLED and n_classes not in (4, 17):
        pytest.skip("slow without the JIT")
    for k in range(n_classes):
        values = np.zeros((per_tile + 3, n_classes))
        values[per_tile, k] = value
        problem = small(values, np.zeros(n_classes), [0.0])
        tally = PathTally(problem.lines())
        size, shape = tally._changes.size, tally._changes.shape
        guarded = np.zeros(size + 8192, np.int32)
        tally._changes = guarded[:size].reshape(shape)
        with pytest.raises(InvalidScoreError) as error:
            tally.update(problem.batch())
        assert error.value.unit == per_tile
        assert not guarded[size:].any()
        counted = 0 if os.environ.get("UNOIC_KERNELS") == "plain" else per_tile  # which looks at all before it counts
        assert tally._changes[0, 0, 0].sum() == counted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_unit_whose_only_positive_classes_are_masked_has_no_winner(layout):
    values = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    problem = small(values, [0, 1, 0], [0, 1], kind="probs", masked=np.array([False, True, False]), layout=layout)
    unit, message = first_bad(problem)
    assert unit == 1
    assert "no class of positive probability that may be predicted at" in message
    unit, message = first_bad(replace(problem, masked=np.zeros(3, bool)))
    assert unit == 2
    assert "no class of positive probability at" in message


def test_scores_beyond_float32_are_refused_and_said_so():
    unit, message = first_bad(small([[0.0, 1], [1e39, 0]], [0, 1], [0, 1], encoding="float64"))
    assert unit == 1
    assert "inf" not in message
    assert "scores that leave float32's range at row 1" in message
    unit, message = first_bad(small([[0.0, 1], [-INF, 1]], [0, 1], [0, 1], kind="log_probs", delta=[1.0, 0.0]))
    assert unit == 1
    assert "a zero probability under a delta of 0 at row 1" in message


@pytest.mark.parametrize("delta", [[-1.0], [1, math.nan], [INF, 1]])
def test_factors_that_may_not_be_there(delta):
    place = "the scalar" if len(delta) == 1 else f"row {0 if delta[0] == INF else 1}"
    with pytest.raises(DataError, match=f"mem:delta: .* at {place}; expected finite factors, none negative"):
        small([[0.0, 1], [1, 0]], [0, 1], [0, 1], delta=delta).batch()


def test_negative_probabilities_are_refused():
    unit, message = first_bad(small([[0.5, 0.5], [-0.25, 0.5]], [0, 1], [0, 1], kind="probs"))
    assert unit == 1
    assert "a negative or NaN probability at row 1, class 0; expected finite probs" in message


# ---------------------------------------------------------------- the posterior


def written(problem, lam, logs, dtype):
    batch = problem.batch()
    scores = batch.scores
    out = np.full(scores.raw.size, np.nan, dtype)
    predictions = np.empty(batch.n_units, np.int32)
    lines = make_point(problem.slopes, problem.masked, lam)
    predict(batch, lines, predictions, make_workspace(scores.n_classes))
    rule = Rule(Pool, np.ones(1), problem.slopes[None], problem.masked[None])
    Fuser(rule, [lam]).write(replace(batch, modalities=(scores,)), logs, out, scores.pixels, predictions)
    if scores.pixels:
        out = out.reshape(-1, scores.n_classes, scores.pixels).transpose(0, 2, 1).reshape(batch.n_units, -1)
    return out.reshape(batch.n_units, -1), predictions, lines, batch


def check_posterior(problem, lam, logs, dtype):
    out, predictions, lines, batch = written(problem, lam, logs, dtype)
    kept = problem.allowed
    winners = problem.predictions(lam)
    assert np.array_equal(predictions, winners)
    assert np.array_equal(out.argmax(axis=1), winners)
    again = np.empty_like(predictions)
    predict(batch, lines, again, make_workspace(problem.slopes.size))
    assert np.array_equal(again, winners)
    assert (out[:, problem.masked] == (-INF if logs else 0)).all()
    expected = naive.posterior(problem.z[:, kept], problem.slopes[kept], lam, problem.factor)
    ulp = np.finfo(dtype).eps
    with np.errstate(divide="ignore", over="ignore"):
        if logs:
            scored = naive.scores(problem.z[:, kept], problem.slopes[kept], lam, problem.factor)
            scored = scored - scored.max(axis=1, keepdims=True)
            expected = (scored - np.log(np.exp(scored).sum(axis=1, keepdims=True))).astype(dtype)
            np.testing.assert_allclose(out[:, kept], expected, rtol=1e-13 + 4 * ulp, atol=1e-13 + 4 * ulp)
        else:
            np.testing.assert_allclose(out[:, kept], expected, rtol=1e-12 + 4 * ulp, atol=np.finfo(dtype).tiny)


@few
@example(small([[6e4, 6e4 - 1e-3, 0], [1, 1, 1 + 1e-12]], [0, 0, 0], [0.0], encoding="float64"), 0.0, True, "float32")
@example(small([[1, 1, 1 + 1e-12]], [0, 0, 0], [0.0], encoding="float64"), 0.0, False, "float32")
@given(problems(ENCODINGS, LAYOUTS), st.sampled_from([0.0, 0.5, -1.0, 2.0]), st.booleans(), st.just("float32"))
def test_the_posterior_written_has_the_float64_winner(problem, lam, logs, dtype):
    check_posterior(problem, lam, logs, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("logs", [True, False])
def test_the_posterior_in_float64_and_of_probabilities(logs, layout):
    rng = np.random.default_rng(5)
    for _ in range(2 if JIT_DISABLED else 20):
        problem = random_problem(rng, "float32", layout)
        check_posterior(problem, float(rng.choice([0, 1, 0.37, -0.5])), logs, "float64")
        check_posterior(problem, float(rng.choice([0, 1, 0.37, -0.5])), logs, "float32")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_mean_posterior_is_an_exact_fraction(encoding, layout):
    rng = np.random.default_rng(6)
    values = rng.normal(size=(12, 5)) * 3
    problem = small(values, np.zeros(5), [0.0], encoding=encoding, layout=layout, delta=rng.random(12) + 0.5)
    tally = PosteriorTally(5)
    tally.update(problem.batch())
    softmax = naive.posterior(problem.z, np.zeros(5), 0.0, problem.factor)
    exact = [sum(Fraction(round(float(p) * FIXED_POINT)) for p in softmax[:, k]) for k in range(5)]
    assert all(abs(Fraction(found) - wanted) <= 12 for found, wanted in zip(tally.sums, exact, strict=True))
    np.testing.assert_allclose(tally.mean(), softmax.mean(axis=0), rtol=0, atol=2 / FIXED_POINT)
    parts = [tally.fresh() for _ in range(3)]
    for part, own in zip(parts, np.split(np.arange(12), [1, 7]), strict=True):
        part.update(replace(problem, values=values[own], labels=problem.labels[own], delta=problem.delta[own],
                            tables=problem.tables[own], n_images=1).batch())  # fmt: skip
    whole = tally.fresh()
    for part in reversed(parts):
        whole.add(part)
    assert whole.sums == tally.sums
    assert whole.n_units == 12


def test_equal_scores_share_the_mean_posterior():
    tally = PosteriorTally(4)
    tally.update(small(np.full((3, 4), 7.0), np.zeros(4), [0.0]).batch())
    assert tally.sums == [3 * 2**38] * 4
    tally = PosteriorTally(2)
    tally.update(small([[0.0, -INF]], np.zeros(2), [0.0], kind="log_probs").batch())
    assert tally.sums == [2**40, 0]


# ---------------------------------------------------------------- vector operations mean what their plain twins say

compiled = numba.njit(**NO_COUNTING)
HALVES = np.arange(65536, dtype=np.uint16)


def same_floats(found, expected):
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    good = ~np.isnan(expected)
    assert np.array_equal(np.signbit(found[good]), np.signbit(expected[good]))
    assert np.array_equal(found[good], expected[good])


@compiled
def widen_all(raw, brain, out):
    for i in range(0, raw.size, 16):
        tile.widen(raw, brain, i, out, i)


@compiled
def stored_all(raw, brain, out):
    for i in range(raw.size):
        out[i] = tile.stored(raw, brain, i)


@pytest.mark.steps
@pytest.mark.parametrize("brain", [False, True])
def test_every_half_and_every_bfloat16_is_widened_exactly(brain):
    bits = HALVES[:: 48 if JIT_DISABLED else 1][: 65536 // 16 * 16]
    bits = np.ascontiguousarray(bits[: bits.size // 16 * 16])
    expected = (bits.astype(np.uint32) << 16).view(np.float32) if brain else bits.view(np.float16).astype(np.float32)
    wide = np.empty(bits.size, np.float32)
    widen_all(bits, brain, wide)
    same_floats(wide, expected)
    exact = np.empty(bits.size)
    stored_all(bits, brain, exact)
    same_floats(exact, expected.astype(np.float64))


@pytest.mark.steps
@pytest.mark.skipif(JIT_DISABLED, reason="there is no code to generate")
def test_halves_are_widened_exactly_without_hardware_for_it(monkeypatch):
    monkeypatch.setattr(simd, "has_half_hardware", lambda context: False)
    by_hand = simd.intrinsic(simd._widen(simd.I16, simd.half_to_float))

    @compiled
    def widen_halves(raw, out):
        for i in range(0, raw.size, 16):
            by_hand(raw, i, out, i)

    out = np.empty(65536, np.float32)
    widen_halves(HALVES, out)
    same_floats(out, HALVES.view(np.float16).astype(np.float32))


@pytest.mark.steps
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wide_scores_are_widened(dtype):
    values = np.array([0.0, -0.0, 1.1, -1e-40, 1e-45, 3.4e38, -INF, INF, math.nan, 1 + 2**-24, 1e-50] * 16)[:32]
    values = values.astype(dtype)
    out = np.empty(32, np.float32)
    widen_all(values, False, out)
    same_floats(out, values.astype(np.float32))
    exact = np.empty(32)
    stored_all(values, False, exact)
    same_floats(exact, values.astype(np.float64))


@compiled
def run_scale(out, factor):
    simd.scale(out, 16, factor)


@compiled
def run_magnitude(values, n_vectors):
    return simd.magnitude(values, n_vectors)


@compiled
def run_above(row, slope, at, threshold):
    return simd.lanes_above_line(row, 16, slope, 16, at, threshold)


@compiled
def run_elements(array, whole):
    simd.put(array, 1, simd.at(array, 0))
    simd.add_at(whole, 2, simd.at(whole, 3) - 9)
    return simd.first_lane(simd.at(whole, 0)), simd.first_lane(np.int64(0))


def bits(lanes):
    return sum(1 << i for i, lane in enumerate(lanes) if lane)


@pytest.mark.steps
def test_scale_and_magnitude():
    values = np.random.default_rng(0).normal(size=48).astype(np.float32)
    scaled = values.copy()
    run_scale(scaled, np.float32(1.7))
    assert np.array_equal(scaled[16:32], values[16:32] * np.float32(1.7))
    assert np.array_equal(scaled[[0, 15, 32, 47]], values[[0, 15, 32, 47]])
    values[40] = -9.5
    assert run_magnitude(values, 3) == np.float32(9.5)
    assert run_magnitude(values, 2) == np.abs(values[:32]).max()
    assert run_magnitude(values, 0) == 0
    for bad in (math.nan, INF, -INF, -math.nan):
        values[17] = bad
        assert not run_magnitude(values, 3) < np.inf
    values[:] = -0.0
    values[3] = np.float32(-1e-45)
    assert run_magnitude(values, 3) == np.float32(1e-45)


@pytest.mark.steps
def test_lanes_above_a_line():
    rng = np.random.default_rng(1)
    for _ in range(20):
        row, slope = (np.round(rng.normal(size=48) * 2).astype(np.float32) / 4 for _ in range(2))
        above = run_above(row, slope, np.float32(0.5), np.float32(0.25))
        assert above == bits((row + np.float32(0.5) * slope)[16:32] >= 0.25)


@pytest.mark.steps
def test_elements_and_masks():
    array, whole = np.array([2.5, 0.0]), np.array([40, 0, 5, 7], np.int64)
    assert run_elements(array, whole) == (3, 64)
    assert array.tolist() == [2.5, 2.5]
    assert whole.tolist() == [40, 0, 3, 7]
