"""Fusion of modalities: the numbers of the method, decisions against naive.py, written posteriors against decimals."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal, localcontext

import h5py
import naive
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli.calibrations.delta import DeltaStatistics
from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.rule import Rule
from unoic_cli.calibrations.view import Look, View
from unoic_cli.data.batch import Batch, choose_split
from unoic_cli.formats.block import LogitBlock, Source
from unoic_cli.fusions import FUSIONS, fusion, resolve_weights
from unoic_cli.kernels.jit import JIT_DISABLED
from unoic_cli.tallies.fused import FusedTally

LINEAR = tuple(name for name in FUSIONS if fusion(name).LINEAR)
ORDERS = ("flatten-first", "rebalance-first")
NAMES = ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j")
quiet = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def logs(p):
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(p, np.float64))


def source(scores, labels=None, kind="logits", **more):
    return unoic_cli.from_arrays(np.asarray(scores), labels, kind=kind, **more)


def named(*scores, labels=None, kind="logits", deltas=None, **more):
    """Modalities a, b, c ... in memory; the labels belong to the first."""
    deltas = [None] * len(scores) if deltas is None else deltas
    return {
        NAMES[m]: source(z, labels if m == 0 else None, kind, delta=d, name=NAMES[m], **more)
        for m, (z, d) in enumerate(zip(scores, deltas, strict=True))
    }


def written(path, key="probs"):
    with h5py.File(path) as file:
        return file[key][()], file["predictions"][()]


def fused(modalities, key="probs", output="fused.h5", **options):
    """What `fuse` writes: (N, K), and predictions (N,)."""
    unoic_cli.fuse(modalities, output=output, emit=key.replace("_", "-"), force=True, **options)
    return written(output, key)


def counts_of(result):
    counts = result.overall.counts
    return [counts.hits.tolist(), counts.predicted.tolist(), counts.support.tolist(), result.overall.n_ignored]


# ------------------------------------------------------------------------------------------------
# the numbers of the method


def test_delta_of_an_entropy():
    H = [0.3, 0.5, 0.51, 0.6, 0.9, 1.7]
    expected = [1, 1, 0.975610, 0.8, 0.5, 0.25]
    assert DeltaStatistics(0.4, 0.1).delta(H).tolist() == pytest.approx(expected, abs=5e-7)
    assert DeltaStatistics(0.4, 0.1).delta(H).tolist() == pytest.approx(naive.entropy_delta(H, 0.4, 0.1), abs=1e-15)
    squared = DeltaStatistics(0.4, 0.1).with_power(2.0)
    assert squared.delta(H).tolist() == pytest.approx(np.square(expected), abs=1e-6)


@pytest.mark.parametrize(
    "how, expected", [("noisy-or", 0.435897), ("average", 0.4), ("product", 0.272727), ("max", 3 / 7)]
)
def test_two_experts(how, expected):
    given_ = named(logs([[0.6, 0.4]]), logs([[0.2, 0.8]]))
    values, predictions = fused(given_, fusion=how)
    assert values[0].tolist() == pytest.approx([expected, 1 - expected], abs=5e-7)
    assert predictions.tolist() == [1]
    in_logs, _ = fused(given_, "log_probs", fusion=how)
    assert np.exp(in_logs[0]).tolist() == pytest.approx(values[0].tolist(), rel=1e-12)


def test_noisy_or_is_not_the_average():
    ps = [np.array([[0.45, 0.55, 0.0]]), np.array([[0.45, 0.33, 0.22]])]
    given_ = named(*ps, kind="probs")
    values, predictions = fused(given_, fusion="noisy-or")
    assert values[0].tolist() == pytest.approx(naive.noisy_or(ps)[0].tolist(), rel=1e-12)
    assert (values[0] * (0.6975 + 0.6985 + 0.22)).tolist() == pytest.approx([0.6975, 0.6985, 0.22], rel=1e-12)
    assert predictions.tolist() == [1]
    values, predictions = fused(given_, fusion="average")
    assert values[0].tolist() == pytest.approx([0.45, 0.44, 0.11], rel=1e-12)
    assert predictions.tolist() == [0]


@pytest.mark.parametrize("n, expected", [(2, 0.838983), (3, 0.786614), (10, 0.605576)])
def test_experts_that_agree(n, expected):
    ps = [np.array([[0.9, 0.1]])] * n
    values, predictions = fused(named(*ps, kind="probs"), fusion="noisy-or")
    assert values[0].tolist() == pytest.approx([expected, 1 - expected], abs=5e-7)
    assert predictions.tolist() == [0]
    for how in ("average", "max", "log-linear"):
        values, _ = fused(named(*ps, kind="probs"), fusion=how)
        assert values[0].tolist() == pytest.approx([0.9, 0.1], rel=1e-12)


def test_bayes_divides_the_prior_that_each_expert_assumes():
    ps, priors = [np.array([[0.6, 0.4]]), np.array([[0.2, 0.8]])], {"a": [0.7, 0.3], "b": [0.9, 0.1]}
    for target in ([0.5, 0.5], [0.2, 0.8]):
        for lam in (0.0, 0.3, 1.0, 1.7):
            values, _ = fused(
                named(*ps, kind="probs"), fusion="bayes", lam=lam, source_prior=priors, target_prior=target
            )
            pairs = zip(ps, priors.values(), strict=True)
            experts = [naive.posterior(logs(p), naive.slopes(prior, target), lam) for p, prior in pairs]
            assumed = [naive.assumed_prior(prior, target, lam) for prior in priors.values()]
            assert values == pytest.approx(naive.bayes(experts, assumed), rel=1e-12)
    even, _ = fused(named(*ps, kind="probs"), fusion="bayes", source_prior=[0.5, 0.5])
    assert even == pytest.approx(naive.product(ps), rel=1e-12)


@pytest.mark.parametrize("n_experts", [2, 3])
def test_bayes_is_right_for_sensors_that_are_independent_given_the_class(n_experts):
    """Three classes, sensors that see one of six things each, posteriors by Bayes' rule from each one's own prior."""
    rng = np.random.default_rng(n_experts)
    k, n, truth = 3, 3000, np.array([0.8, 0.15, 0.05])
    likelihoods = rng.dirichlet(np.ones(6) * 2, (n_experts, k))  # p(x_m | k)
    labels = rng.choice(k, n, p=truth)
    seen = [np.array([rng.choice(6, p=one[y]) for y in labels]) for one in likelihoods]
    joint = np.prod([one[:, x].T for one, x in zip(likelihoods, seen, strict=True)], axis=0)

    def experts(priors):
        pairs = zip(likelihoods, seen, priors, strict=True)
        return named(*(naive.normalised(one[:, x].T * prior) for one, x, prior in pairs), labels=labels, kind="probs")

    values, winners = fused(experts([truth] * n_experts), fusion="bayes", source_prior=truth)
    assert values == pytest.approx(naive.normalised(joint * truth), rel=1e-9)
    assert winners.tolist() == naive.normalised(joint * truth).argmax(1).tolist()
    other, _ = fused(experts([truth] * n_experts), fusion="product")
    assert np.abs(other - values).max() > 0.1  # the product counts the prior once for each sensor
    priors = rng.dirichlet(np.ones(k) * 3, n_experts)
    named_priors = dict(zip(NAMES, priors.tolist(), strict=False))
    for target in (truth, np.ones(k) / k):
        values, _ = fused(experts(priors), fusion="bayes", lam=1, source_prior=named_priors, target_prior=target)
        assert values == pytest.approx(naive.normalised(joint * target), rel=1e-9)
    result = unoic_cli.search_lambda(experts([truth] * n_experts), fusion="bayes", source_prior=truth, range="0:1")
    for g in (0, 50, 100):
        best = (joint * naive.assumed_prior(truth, np.ones(k), result.lams[g])).argmax(1)
        assert result.counts.predicted[g].tolist() == np.bincount(best, minlength=k).tolist()


def test_bayes_needs_source_priors_without_lambda(refuse):
    """Even where nothing is rebalanced; a target prior has no effect there."""
    (first, second), labels = world()
    for name, z in (("a", first), ("b", second)):
        store(f"{name}.h5", z, labels)
    given_ = ["fuse", "a=a.h5", "b=b.h5", "-o", "o.h5", "--fusion"]
    assert refuse(2, *given_, "bayes", "--target-prior", "uniform").startswith("--target-prior: --target-prior without")
    assert refuse(2, *given_, "product", "--source-prior", "uniform").startswith("--source-prior: --source-prior with")
    by_priors, _ = fused({"a": "a.h5", "b": "b.h5"}, fusion="bayes", source_prior=COUNTS)
    compared = unoic_cli.compare(["a=a.h5", "b=b.h5"], methods=["bayes", "bayes@0"])
    assert compared.rows[0].average == compared.rows[1].average
    expected = naive.bayes([naive.softmax(first), naive.softmax(second)], [naive.normalised(COUNTS)] * 2)
    assert by_priors == pytest.approx(expected, rel=1e-6)


def test_one_expert_is_the_identity():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 5)) * 4
    for how in (None, *FUSIONS):
        values, predictions = fused(named(z), fusion=how)
        assert values == pytest.approx(naive.softmax(z), rel=1e-12)
        assert predictions.tolist() == z.argmax(1).tolist()


RGB, DEPTH, UNIFORM, PRIOR = (0.64, 0.32, 0.04), (0.25, 0.25, 0.5), (1 / 3,) * 3, (0.8, 0.1, 0.1)
FLAT = [0.510958, 0.361302, 0.127740]
CALIBRATED = [[0.269752, 0.539504, 0.190744], [0.105427, 0.298191, 0.596382]]


def test_algorithm_1_end_to_end():
    delta = DeltaStatistics(0.4, 0.1).delta([0.9, 0.3])
    assert delta.tolist() == pytest.approx([0.5, 1.0], abs=1e-12)
    rgb = source(logs([RGB]), [1], delta=delta[:1])
    depth = source(logs([DEPTH]), delta=delta[1:])
    values, _ = fused({"rgb": rgb})
    assert values[0].tolist() == pytest.approx(FLAT, abs=5e-7)
    for modality, expected in zip((rgb, depth), CALIBRATED, strict=True):
        values, _ = fused({"rgb": modality}, lam=0.5, source_prior=PRIOR)
        assert values[0].tolist() == pytest.approx(expected, abs=1e-6)
    values, predictions = fused({"rgb": rgb, "depth": depth}, lam=0.5, source_prior=PRIOR)
    assert values[0].tolist() == pytest.approx([0.204334, 0.398850, 0.396817], abs=5e-7)
    assert predictions.tolist() == [1]
    assert unoic_cli.evaluate({"rgb": rgb, "depth": depth}, lam=0.5, source_prior=PRIOR).overall.values["acc"] == 1
    ps = [naive.flatten([p], [d]) for p, d in ((RGB, 0.5), (DEPTH, 1.0))]
    ps = [naive.posterior(np.log(p), naive.slopes(PRIOR, UNIFORM), 0.5) for p in ps]
    assert values == pytest.approx(naive.noisy_or(ps), rel=1e-12)


def test_a_delta_of_zero_and_the_order():
    z = logs([[0.2, 0.3, 0.5]])
    given_ = {"rgb": source(z, [2], delta=[0.0])}
    values, predictions = fused(given_, lam=0.4, source_prior=[0.9, 0.09, 0.01], order="flatten-first")
    assert values[0].tolist() == pytest.approx([0.1046, 0.2627, 0.6327], abs=5e-5)
    assert predictions.tolist() == [2]
    values, _ = fused(given_, lam=0.4, source_prior=[0.9, 0.09, 0.01], order="rebalance-first")
    assert values[0].tolist() == pytest.approx([1 / 3] * 3, rel=1e-6)
    for how in FUSIONS:
        two = named(z, z, labels=[2], deltas=[[0.0], [0.0]])
        values, predictions = fused(two, fusion=how, lam=0.4, source_prior=[0.9, 0.09, 0.01], order=ORDERS[1])
        assert values[0].tolist() == pytest.approx([1 / 3] * 3, rel=1e-6)
        assert predictions.tolist() == [0]


def test_a_delta_of_zero_of_one_modality_is_a_tie():
    """With rebalance-first, delta * (z + lambda * s) is 0 for every class at delta = 0: the lowest class."""
    z = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 9.0, 0.0]])
    more = {"lam": 1.0, "source_prior": [0.5, 0.3, 0.2], "order": "rebalance-first"}
    for modalities in (source(z, [0, 0, 0], delta=np.zeros(3)), {"a": source(z, [0, 0, 0], delta=np.zeros(3))}):
        assert unoic_cli.evaluate(modalities, **more).overall.counts.predicted.tolist() == [3, 0, 0]
        unoic_cli.calibrate(modalities, output="x.h5", force=True, **more)
        assert written("x.h5", "log_probs")[1].tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------------------------
# beyond what float32, and float64, can tell from certainty


@pytest.mark.parametrize("how", FUSIONS)
def test_huge_scores(how):
    for gap, lam in ((104.0, 1.5), (88.0, 2.1)):
        z = np.array([[0.0, gap]])
        prior = [0.1, 0.9]
        for dtype in (np.float32, np.float64):
            two = named(z.astype(dtype), z.astype(dtype))
            values, predictions = fused(two, "log_probs", fusion=how, lam=lam, source_prior=prior)
            line = z[0] + lam * naive.slopes(prior, [1, 1])
            log_p = line - np.logaddexp.reduce(line)
            odds = np.subtract(*np.log(naive.assumed_prior(prior, [1, 1], lam)))
            expected = {
                "noisy-or": log_p[0] + math.log(2), "product": 2 * log_p[0], "average": log_p[0], "max": log_p[0],
                "log-linear": log_p[0], "bayes": 2 * log_p[0] - odds,
            }[how]  # fmt: skip
            assert np.isfinite(values).all()
            assert predictions.tolist() == [1]
            assert values[0, 0] == pytest.approx(expected, rel=1e-6)
            assert values[0, 1] == pytest.approx(0, abs=1e-30)


@pytest.mark.parametrize("how", ["noisy-or", "max"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_certain_experts_that_disagree(how, dtype):
    """The larger log-odds decide, not the lower index."""
    gaps = [60, 200, 800, 5000]
    pairs = [(a, b) for a in gaps for b in gaps if a != b] + [(g, g + 1) for g in gaps] + [(g + 1, g) for g in gaps]
    first = np.array([[a, 0, 0] for a, _ in pairs], dtype)
    second = np.array([[0, b, 0] for _, b in pairs], dtype)
    expected = [0 if a > b else 1 for a, b in pairs]
    for lam in (0.0, 0.7):
        for one, other, wanted in ((first, second, expected), (second, first, expected)):
            _, predictions = fused(named(one, other), fusion=how, lam=lam, source_prior=[0.4, 0.4, 0.2])
            assert predictions.tolist() == wanted
    _, predictions = fused(named(first, second), "log_probs", fusion=how)
    assert predictions.tolist() == expected
    result = unoic_cli.evaluate(named(first, second, labels=np.array(expected)), fusion=how)
    assert result.overall.values["acc"] == 1


@pytest.mark.parametrize("how", ["noisy-or", "max"])
@pytest.mark.parametrize("k", [2, 3])
def test_certainty_that_the_tilt_leaves(how, k):
    """What lies more than 87 below an expert's largest score still counts where lambda lifts it.

    Expert a: a gap of 95, of which lambda takes 40; expert b: a gap around 55, for another class.
    """
    gaps = np.arange(50.0, 60.0, 0.25)
    gaps = gaps[gaps != 55]
    first, second = np.full((gaps.size, k), -1e4), np.full((gaps.size, k), -1e4)
    first[:, :2], second[:, 0], second[:, 1] = (95.0, 0.0), 0.0, gaps
    ratio = math.exp(4.0)
    prior = {"a": [ratio, *[1.0] * (k - 1)], "b": [1.0] * k}
    _, predictions = fused(named(first, second), fusion=how, lam=10, source_prior=prior)
    assert predictions.tolist() == (gaps > 55).astype(int).tolist()


def test_a_masked_class_beside_steep_slopes():
    """Whatever the table of a masked class would hold: no overflow, no warning."""
    z, labels = np.zeros((4, 3)), np.ones(4, int)
    given_ = named(z, z, labels=labels)
    for how in FUSIONS:
        result = unoic_cli.evaluate(given_, fusion=how, lam=1000, source_prior=[1, 3, 0], target_prior=[0, 1, 9])
        assert result.overall.values["acc"] == 1


# ------------------------------------------------------------------------------------------------
# what is written, against decimals

DIGITS = 60


def digits_of(lines):
    """Enough for 1 - P of a P that differs from 1 by what lies furthest below the best: lines end at 0."""
    return DIGITS + math.ceil(-float(min(map(min, lines))) / math.log(10))


def exact_fused(lines, how, weights, log_priors):
    """Fused probabilities as printed, in decimals: lines, and logs of the priors they assume, (M, K) of Decimal."""
    ps = []
    for line in lines:
        e = [value.exp() for value in line]
        total = sum(e)
        ps.append([value / total for value in e])
    result = []
    for k in range(len(lines[0])):
        column = [p[k] for p in ps]
        if how == "noisy-or":
            missed = Decimal(1)
            for p in column:
                missed *= 1 - p
            result.append(1 - missed)
        elif how == "average":
            result.append(sum(w * p for w, p in zip(weights, column, strict=True)))
        elif how == "max":
            result.append(max(column))
        else:
            value = sum(w * p.ln() for w, p in zip(weights, column, strict=True))
            if how == "bayes":
                value -= sum(log_prior[k] for log_prior in log_priors) * (len(lines) - 1) / len(lines)
            result.append(value.exp())
    total = sum(result)
    return [value / total for value in result]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("how", FUSIONS)
@pytest.mark.parametrize("n_experts", [1, 2, 3, 5])
def test_written_posteriors_against_decimals(how, order, n_experts):
    rng = np.random.default_rng(len(how) * 10 + n_experts)
    n, k = 5, 4
    scale = np.array([1.0, 20.0, 90.0, 300.0, 600.0])
    zs = [rng.uniform(0, 1, (n, k)) * scale[:, None] for _ in range(n_experts)]
    zs[0][:, 0], zs[0][:, 1] = 0.0, scale  # the whole gap
    deltas = [rng.uniform(0.2, 1.0, n) for _ in range(n_experts)]
    deltas[0][:] = 1.0
    priors = {NAMES[m]: list(rng.dirichlet(np.ones(k)) + 0.01) for m in range(n_experts)}
    weights = None
    if how in ("average", "log-linear") and n_experts > 1:
        weights = list(rng.integers(1, 5, n_experts).astype(float))
    with localcontext() as context:
        context.prec = DIGITS
        shares = weights or resolve_weights(how, None, n_experts)
        total = sum(Decimal(w) for w in shares) if fusion(how).default_weights(1) else 1
        shares = [Decimal(w) / total for w in shares]
        slopes = []
        for m in range(n_experts):
            prior = [Decimal(p) / sum(map(Decimal, priors[NAMES[m]])) for p in priors[NAMES[m]]]
            slopes.append([(1 / (k * p)).ln() for p in prior])
    for lam in (0.0, 0.7, 3.0):
        options = {"fusion": how, "order": order, "weights": weights}
        options |= {"lam": lam, "source_prior": priors}
        values, _ = fused(named(*zs, deltas=deltas), **options)
        in_logs, _ = fused(named(*zs, deltas=deltas), "log_probs", **options)
        assert values.dtype == in_logs.dtype == np.float64
        with localcontext() as context:
            for i in range(n):
                context.prec = DIGITS
                lines, assumed = [], []
                for m in range(n_experts):
                    d, late = Decimal(deltas[m][i]), Decimal(deltas[m][i]) if order == ORDERS[1] else Decimal(1)
                    line = [d * Decimal(zs[m][i, c]) + late * Decimal(lam) * slopes[m][c] for c in range(k)]
                    lines.append([value - max(line) for value in line])
                    assumed.append([late * (Decimal(lam) - 1) * slope for slope in slopes[m]])  # log P_s is -slope here
                context.prec = digits_of(lines) if how == "noisy-or" else DIGITS
                expected = exact_fused(lines, how, shares, assumed)
                for c in range(k):
                    if expected[c] > Decimal("1e-300"):
                        assert abs(Decimal(values[i, c]) / expected[c] - 1) < Decimal("1e-6"), (lam, i, c)
                    logarithm = float(expected[c].ln())
                    assert in_logs[i, c] == pytest.approx(logarithm, rel=1e-6, abs=1e-9 if logarithm > -1e-3 else 0)


# ------------------------------------------------------------------------------------------------
# decisions against naive.py


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
class Expert:
    """One modality's scores (T, K), and how it is looked at."""

    values: np.ndarray
    slopes: np.ndarray
    masked: np.ndarray
    encoding: str = "float32"
    kind: str = "logits"
    layout: str = "rows"
    delta: np.ndarray = field(default_factory=lambda: np.empty(0))
    temperature: float = 1.0

    def part(self):
        n_units, n_classes = self.values.shape
        raw, _ = encode(self.values, self.encoding)
        shape = ()
        if self.layout == "planes":
            raw = np.ascontiguousarray(raw.T).reshape(1, n_classes, n_units)
            shape = (1, n_units)
        made = Source(
            name="memory",
            format="arrays",
            n_samples=1 if shape else n_units,
            n_classes=n_classes,
            image_shape=shape,
            kind=self.kind,
            encoding=self.encoding,
            layout=self.layout,
            fields=frozenset(),
        )
        delta = self.delta if self.delta.size else None
        return choose_split(LogitBlock(0, n_units, raw, delta=delta), made, None)

    def log_posterior(self, lam, order, shifted=False):
        """(T, K) float64, -inf where masked; `shifted` keeps what huge scores swallow of lambda * s."""
        _, z = encode(self.values, self.encoding)
        z = logs(z) if self.kind == "probs" else z
        if shifted:
            z = z - np.where(self.masked, -np.inf, z).max(1, keepdims=True)
        delta = self.delta if self.delta.size else np.ones(1)
        late = delta[:, None] if order == "rebalance-first" else 1.0
        line = (delta / self.temperature)[:, None] * z + late * (lam * self.slopes)
        line = np.where(self.masked, -np.inf, line)
        line = line - line.max(1, keepdims=True)
        with np.errstate(divide="ignore"):
            return line - np.log(np.exp(line).sum(1, keepdims=True))


def log_missed(log_p):
    """log(1 - P), each from the sum of the others."""
    with np.errstate(divide="ignore"):
        rest = [np.logaddexp.reduce(np.delete(log_p, k, 1), axis=1) for k in range(log_p.shape[1])]
    return np.stack(rest, 1)


def naive_values(log_ps, how, weights):
    """(T, K): the largest value wins; and how far apart values must be to be told apart."""
    if how in ("noisy-or", "max"):
        missed = np.stack([log_missed(p) for p in log_ps])
        return -(missed.sum(0) if how == "noisy-or" else missed.min(0))
    if how == "average":
        return sum(w * np.exp(p) for w, p in zip(weights, log_ps, strict=True))
    return sum(np.where(w, w * p, 0.0) if w else 0.0 * np.exp(p) for w, p in zip(weights, log_ps, strict=True))


def clear_winners(values):
    """The naive decision, and where it stands out by more than 1e-9 of the values."""
    order = np.argsort(-values, axis=1, kind="stable")
    best, other = (np.take_along_axis(values, order[:, [i]], 1)[:, 0] for i in (0, 1))
    with np.errstate(invalid="ignore"):
        sizes = np.maximum(np.abs(np.where(np.isinf(other), 0.0, other)), np.abs(np.where(np.isinf(best), 0.0, best)))
        return order[:, 0], best - other > 1e-9 * sizes


def decide(experts, how, weights, order, lams):
    """Decisions (G, T) by the kernels, as a tally makes them."""
    parts = [expert.part() for expert in experts]
    view = View(tuple(Look(expert.temperature) for expert in experts), order == "rebalance-first")
    n_units = len(experts[0].values)
    labels = np.zeros(n_units, np.int32)
    batch = Batch(n_units, None, None, labels, 0, np.zeros(n_units, np.int32), parts[0], tuple(parts))
    rule = Rule(
        fusion(how).OPERATOR, np.array(weights), np.stack([e.slopes for e in experts]),
        np.stack([e.masked for e in experts]),
    )  # fmt: skip
    made = view.apply(batch)
    fuser = Fuser(rule, lams)
    found = np.zeros((len(lams), n_units), np.int64)
    for piece in fuser.pieces(made):
        winners = fuser.decide(made, piece).reshape(-1)[: len(lams) * piece.n_groups * 16].reshape(len(lams), -1)
        found[:, piece.first : piece.first + piece.n] = winners[:, : piece.n]
    tally = FusedTally(rule, lams)
    tally.update(made)
    k = len(experts[0].slopes)
    assert tally.counts().predicted[0].tolist() == [np.bincount(row, minlength=k).tolist() for row in found]
    return found


def check_decisions(experts, how, weights, order, lams):
    found = decide(experts, how, weights, order, lams)
    checked = 0
    for g, lam in enumerate(lams):
        log_ps = [expert.log_posterior(lam, order) for expert in experts]
        winners, clear = clear_winners(naive_values(log_ps, how, weights))
        again = [expert.log_posterior(lam, order, shifted=True) for expert in experts]
        others, sure = clear_winners(naive_values(again, how, weights))
        clear &= sure & (winners == others)
        wrong = np.flatnonzero(clear & (winners != found[g]))
        assert not wrong.size, (lam, wrong[:3], winners[wrong[:3]], found[g][wrong[:3]])
        if how == "noisy-or":
            assert (naive.noisy_or_winner(log_ps) == winners)[clear].all()
        checked += int(clear.sum())
    return checked


def random_expert(rng, n, k, encoding, kind, layout, size, delta, temperature, masked, quantised):
    values = rng.normal(size=(n, k)) * rng.choice([0.1, 1.0, 8.0, 60.0], (n, 1))
    if quantised:
        values = np.round(values * 2) / 2
    if size:
        values = values / 30 * (min(size, 6e4) if encoding == "float16" else size)
    if kind != "logits":
        values = naive.softmax(np.clip(values, -700, 700))
        values[rng.random((n, k)) < 0.2] = 0.0
        values[np.arange(n), rng.integers(0, k, n)] += 0.3
        values = logs(values) if kind == "log_probs" else values
        if masked is not None:  # something that may be predicted
            keep = int(np.flatnonzero(~masked)[0])
            values[:, keep] = -0.5 if kind == "log_probs" else 0.6
    slopes = rng.normal(size=k) * 2
    factors = np.empty(0)
    if delta is not None:
        factors = rng.uniform(0.2, 1.0, n) if delta == "unit" else np.full(n, rng.uniform(0.2, 1.3))
    if masked is None:
        masked = np.zeros(k, bool)
    return Expert(values, np.where(masked, 0.0, slopes), masked, encoding, kind, layout, factors, temperature)


LATTICE = (-0.5, 0.0, 0.13, 0.5, 1.0, 1.7, 4.0, 30.0)


@quiet
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 99999),
    k=st.integers(2, 40),
    n_experts=st.integers(1, 4),
    how=st.sampled_from(list(FUSIONS)),
    order=st.sampled_from(ORDERS),
    layout=st.sampled_from(["rows", "planes"]),
    delta=st.sampled_from([None, "unit", "same"]),
    size=st.sampled_from([None, None, 1e3, 6e4, 1e30]),
    masks=st.booleans(),
    quantised=st.booleans(),
)
def test_decisions_are_those_of_float64(seed, k, n_experts, how, order, layout, delta, size, masks, quantised):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 70))
    experts = []
    for m in range(n_experts):
        encoding = str(rng.choice(["float16", "bfloat16", "float32", "float64"]))
        kind = str(rng.choice(["logits", "logits", "log_probs", "probs"])) if size is None else "logits"
        kind = "logits" if how in LINEAR and n_experts > 1 else kind  # disjoint supports have a test of their own
        masked = None
        if masks and m == 0:
            masked = np.zeros(k, bool)
            masked[rng.choice(k, rng.integers(1, k), replace=False)] = True
        temperature = float(rng.choice([1.0, 0.5, 2.0]))
        experts.append(random_expert(rng, n, k, encoding, kind, layout, size, delta, temperature, masked, quantised))
    weights = resolve_weights(how, None, n_experts)
    if how in ("average", "log-linear"):
        least = 1 if masks else 0  # a mask of an expert without weight has a test of its own
        weights = resolve_weights(how, [*rng.integers(least, 4, n_experts - 1).tolist(), 2], n_experts)
    check_decisions(experts, how, weights, order, rng.permutation(LATTICE).tolist() if seed % 2 else LATTICE)


@pytest.mark.kernel
@quiet
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("how", FUSIONS)
def test_decisions_of_a_few(how, order):
    """Small enough to run without compilation."""
    rng = np.random.default_rng(7)
    n, k = (6, 4) if JIT_DISABLED else (40, 9)
    checked = 0
    for encoding, layout, delta in (
        ("float32", "rows", None),
        ("bfloat16", "planes", "unit"),
        ("float64", "rows", "same"),
    ):
        experts = [
            random_expert(rng, n, k, encoding, "logits", layout, None, delta, 1.0, masked, False)
            for masked in (None, np.arange(k) == 1)
        ]
        checked += check_decisions(experts, how, resolve_weights(how, None, 2), order, (0.0, 2.0, 0.6))
    assert checked > n * 6


@pytest.mark.parametrize(
    ("method", "kernels"), [("grid", "plain"), ("grid", "compiled"), ("paper", "plain"), ("paper-printed", "plain")]
)
@pytest.mark.parametrize("how", FUSIONS)
def test_the_range_of_a_search_does_not_change_what_a_lambda_is_worth(how, method, kernels, monkeypatch):
    """Lambda 0 and 1 are counted beside it, wherever they lie."""
    monkeypatch.setenv("UNOIC_KERNELS", kernels)
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 5, 300)
    given_ = named(*(rng.normal(size=(300, 5)) * 2 + 2 * np.eye(5)[labels] for _ in range(2)), labels=labels)
    options = {"fusion": how, "source_prior": [0.5, 0.3, 0.1, 0.07, 0.03]}
    lattices = [{"range": text} for text in ("1.2:3.2:0.4", "-0.7:0.9:0.4", "0:2:0.4", "-2:-0.8:0.4", "0.4:0.4")]
    for one in lattices if method == "grid" else [{}]:
        found = unoic_cli.search_lambda(given_, method=method, **options, **one)
        told = [(0.0, found.baseline), (1.0, found.rebalanced), (found.lam, found.best)]
        for lam, hits, predicted in zip(found.lams, found.counts.hits, found.counts.predicted, strict=True):
            alone = unoic_cli.evaluate(given_, lam=float(lam), **options).overall.counts
            assert alone.hits.tolist() == hits.tolist() and alone.predicted.tolist() == predicted.tolist(), lam
        for lam, metrics in told:
            measured = unoic_cli.evaluate(given_, lam=lam, **options).overall.values
            assert {name: metrics[name] for name in measured} == measured, lam


@pytest.mark.kernel
@pytest.mark.parametrize("how", FUSIONS)
def test_the_lowest_class_wins_ties(how):
    """Experts of the same quantised scores and no slopes: the fused values of equal scores are equal."""
    rng = np.random.default_rng(3)
    n, k = (20, 5) if JIT_DISABLED else (300, 5)
    values = rng.integers(0, 3, (n, k)) * 0.5
    for n_experts in (1, 2, 3):
        for scale in (1.0, 300.0, 1e4):
            experts = [Expert(values * scale, np.zeros(k), np.zeros(k, bool))] * n_experts
            found = decide(experts, how, resolve_weights(how, None, n_experts), ORDERS[0], [0.0, 1.0])
            assert found.tolist() == [values.argmax(1).tolist()] * 2


@pytest.mark.kernel
@pytest.mark.parametrize("how", ["noisy-or", "max"])
def test_certain_experts_by_the_kernel(how):
    gaps = [60.0, 800.0, 5000.0]
    pairs = [(a, b) for a in gaps for b in gaps if a != b]
    plain, free = np.zeros(2), np.zeros(2, bool)
    first = Expert(np.array([[a, 0] for a, _ in pairs]), plain, free)
    second = Expert(np.array([[0, b] for _, b in pairs]), plain, free)
    found = decide([first, second], how, (1.0, 1.0), ORDERS[0], [0.0])
    assert found[0].tolist() == [0 if a > b else 1 for a, b in pairs]


@pytest.mark.kernel
@pytest.mark.parametrize("how", FUSIONS)
@pytest.mark.parametrize("layout", ["rows", "planes"])
def test_the_posterior_written_has_the_decision_first(how, layout):
    """Whatever float32 rounds away: the first of the largest entries written is the decision."""
    rng = np.random.default_rng(11)
    n, k = (18, 4) if JIT_DISABLED else (200, 6)
    values = np.round(rng.normal(size=(n, k)), 1) + rng.integers(0, 2, (n, k)) * 1e-9
    experts = [
        Expert(values, np.zeros(k), np.zeros(k, bool), "float64", layout=layout),
        Expert(values[:, ::-1].copy() * 9, np.zeros(k), np.zeros(k, bool), "float64", layout=layout),
    ]
    parts = [expert.part() for expert in experts]
    batch = Batch(n, None, None, None, 0, np.zeros(n, np.int32), parts[0], tuple(parts))
    made = View((Look(), Look())).apply(batch)
    rule = Rule(fusion(how).OPERATOR, np.array(resolve_weights(how, None, 2)), np.zeros((2, k)), np.zeros((2, k), bool))
    fuser = Fuser(rule, [0.0])
    predictions = np.zeros(n, np.int32)
    fuser.predict(made, predictions)
    for in_logs in (False, True):
        out = np.zeros(n * k, np.float32)
        fuser.write(made, in_logs, out, n if layout == "planes" else 0, predictions)
        rows = out.reshape(1, k, n)[0].T if layout == "planes" else out.reshape(n, k)
        assert rows.argmax(1).tolist() == predictions.tolist()
        total = np.exp(rows.astype(float)).sum(1) if in_logs else rows.astype(float).sum(1)
        assert total == pytest.approx(1, abs=1e-5)


# ------------------------------------------------------------------------------------------------
# faults found


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("how", LINEAR)
def test_experts_that_leave_no_class_in_common(how, order):
    """Refused by the kernel as well: a winner of -1 would be counted outside of the counters."""
    first, second = logs([[0.5, 0.5, 0.0]] * 20), logs([[0.0, 0.0, 1.0]] * 20)
    deltas = [np.full(20, 0.5)] * 2
    given_ = named(first, second, labels=np.zeros(20, int), kind="log_probs", deltas=deltas)
    with pytest.raises(unoic_cli.UnoicError, match="no class of positive probability"):
        fuse_safely(given_, fusion=how, order=order, lam=1.0, source_prior=[0.5, 0.3, 0.2])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("how", LINEAR)
def test_priors_that_leave_no_class_in_common(how, order):
    """The same by priors of zero."""
    z = np.zeros((20, 3))
    given_ = named(z, z, labels=np.zeros(20, int), deltas=[np.full(20, 0.5)] * 2)
    with pytest.raises(unoic_cli.UnoicError, match="no class that every modality may predict"):
        fuse_safely(given_, fusion=how, order=order, lam=1.0, source_prior={"a": "1,1,0", "b": "0,0,1"})


def fuse_safely(modalities, **options):
    """Fail before memory is overwritten: -1 is no class."""
    original = Fuser.decide

    def checked(self, batch, piece):
        winners = original(self, batch, piece)
        assert winners[: piece.n].min() >= 0, "a unit without a winner"
        return winners

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fuser, "decide", checked)
        return unoic_cli.evaluate(modalities, **options)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("how", ["average", "log-linear"])
def test_a_modality_without_weight_has_no_say(how, order):
    """A class that it masks is no 0 * -inf."""
    (first, second), labels = world()
    options = {"fusion": how, "order": order, "lam": 0.5}
    deltas = [np.full(len(labels), 0.5)] * 2
    prior = {"a": [0, 1, 1, 1], "b": COUNTS}
    given_ = named(first, second, labels=labels, deltas=deltas)
    both = unoic_cli.evaluate(given_, weights=[0, 1], source_prior=prior, **options)
    alone = source(second, labels, delta=deltas[1], name="alone")
    assert counts_of(both) == counts_of(unoic_cli.evaluate({"b": alone}, order=order, lam=0.5, source_prior=COUNTS))
    values, predictions = fused(given_, weights=[0, 1], source_prior=prior, **options)
    expected, winners = fused({"b": alone}, order=order, lam=0.5, source_prior=COUNTS)
    assert values == pytest.approx(expected, rel=1e-6)
    assert predictions.tolist() == winners.tolist()


@pytest.mark.parametrize("how", FUSIONS)
def test_an_infinite_logit_beside_log_probabilities(how):
    """-inf is a mask, whatever lies beside: the log of a probability of zero."""
    z = np.random.default_rng(0).normal(size=(5, 3))
    z[3, 0] = -np.inf
    labels, beside = np.zeros(5, int), source(logs(np.full((5, 3), 1 / 3)), kind="log_probs", name="b")
    normal = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    found, wanted = (
        unoic_cli.evaluate({"a": one, "b": beside}, fusion=how)
        for one in (source(z, labels, name="a"), source(normal, labels, name="a", kind="log_probs"))
    )
    assert counts_of(found) == counts_of(wanted)


@pytest.mark.parametrize("how", FUSIONS)
def test_experts_that_share_a_class(how):
    """Zeros of one expert veto a class for the linear fusions only."""
    first, second = logs([[0.7, 0.2, 0.1]]), logs([[0.0, 0.4, 0.6]])
    deltas = [np.array([0.5]), np.array([0.9])]
    for order in ORDERS:
        given_ = named(first, second, labels=[0], kind="log_probs", deltas=deltas)
        options = {"fusion": how, "order": order, "lam": 0.3, "source_prior": [0.5, 0.3, 0.2]}
        values, predictions = fused(given_, **options)
        assert (values[0, 0] == 0) == (how in LINEAR)
        assert values[0].sum() == pytest.approx(1)
        assert predictions[0] == values[0].argmax()
        assert unoic_cli.evaluate(given_, **options).overall.counts.predicted[predictions[0]] == 1


# ------------------------------------------------------------------------------------------------
# modalities and single files


def world(seed=0, n=120, k=4, n_experts=2, image=(), dtype="f4"):
    """Scores of each modality (N, K, ...) and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, size=(n, *image), p=np.array([6.0] + [4.0 / (k - 1)] * (k - 1)) / 10)
    zs = []
    for m in range(n_experts):
        z = rng.normal(size=(n, *image, k)) * (1 + m) + 1.2 * np.eye(k)[labels]
        z[..., m % k] += 0.8
        zs.append(np.moveaxis(z, -1, 1).astype(dtype))
    return zs, labels


COUNTS = [60, 20, 15, 5]


@pytest.mark.parametrize("how", [None, *FUSIONS])
@pytest.mark.parametrize("order", [None, *ORDERS])
def test_one_modality_is_the_file(how, order):
    (z,), labels = world(n_experts=1)
    rng = np.random.default_rng(1)
    delta = rng.uniform(0.3, 1.2, len(z)) if order else None
    plain = source(z, labels, delta=delta, source_counts=COUNTS)
    one = {"rgb": source(z, labels, delta=delta, source_counts=COUNTS)}
    for key, options in (("log_probs", {"lam": 0.7}), ("probs", {"lam": 1.3, "temperature": 1.7})):
        ours = unoic_cli.evaluate(one, confusion=True, fusion=how, order=order, **options)
        theirs = unoic_cli.evaluate(plain, confusion=True, order=order, **options)
        assert counts_of(ours) == counts_of(theirs)
        assert np.array_equal(ours.confusion, theirs.confusion)
        emit = key.replace("_", "-")
        unoic_cli.calibrate(one, output="a.h5", emit=emit, force=True, fusion=how, order=order, **options)
        unoic_cli.calibrate(plain, output="b.h5", emit=emit, force=True, order=order, **options)
        for a, b in zip(written("a.h5", key), written("b.h5", key), strict=True):
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
    for metric in ("macc",) if order == "rebalance-first" else ("macc", "top2"):
        ours = unoic_cli.search_lambda(one, folds=3, metric=metric, fusion=how, order=order)
        theirs = unoic_cli.search_lambda(plain, folds=3, metric=metric, order=order)
        assert (ours.lam, ours.plateau, ours.folds.lams) == (theirs.lam, theirs.plateau, theirs.folds.lams)
        assert ours.counts.hits.tobytes() == theirs.counts.hits.tobytes()
        assert ours.counts.predicted.tobytes() == theirs.counts.predicted.tobytes()
        assert [values.tobytes() for values in ours.curve.values()] == [v.tobytes() for v in theirs.curve.values()]


@pytest.mark.parametrize("how", FUSIONS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_order_of_modalities_changes_nothing(how, dtype):
    zs, labels = world(n_experts=3, dtype=dtype)
    deltas = [np.random.default_rng(m).uniform(0.4, 1, len(labels)) for m in range(3)]
    options = {"fusion": how, "lam": 0.6, "source_prior": COUNTS}
    results = []
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        given_ = {NAMES[m]: source(zs[m], labels, delta=deltas[m], name=NAMES[m]) for m in order}
        values, predictions = fused(given_, "log_probs", **options)
        found = unoic_cli.search_lambda(given_, fusion=how, source_prior=COUNTS)
        evaluated = counts_of(unoic_cli.evaluate(given_, **options))
        results.append((values.tobytes(), predictions.tobytes(), evaluated, found.lam, found.counts.hits.tolist()))
    assert results[1:] == results[:1] * 2


@pytest.mark.parametrize("how", FUSIONS)
def test_the_names_of_modalities_change_next_to_nothing(how):
    zs, labels = world(n_experts=3)
    options = {"fusion": how, "lam": 0.6, "source_prior": COUNTS}
    seen = []
    for order in ([0, 1, 2], [2, 0, 1]):
        given_ = {NAMES[i]: source(zs[m], labels, name=NAMES[m]) for i, m in enumerate(order)}
        seen.append((*fused(given_, **options), counts_of(unoic_cli.evaluate(given_, **options))))
    assert seen[0][0] == pytest.approx(seen[1][0], rel=1e-6)
    assert seen[0][1].tolist() == seen[1][1].tolist()
    assert seen[0][2] == seen[1][2]


@pytest.mark.parametrize("n_experts", [2, 3])
def test_linear_fusions_sum_scores(n_experts):
    zs, labels = world(n_experts=n_experts, dtype="f8")
    zs = [np.round(z * 64) / 64 for z in zs]  # sums are exact
    summed = sum(zs)
    given_ = named(*zs, labels=labels)
    for metric in ("macc", "top2"):
        both = unoic_cli.search_lambda(given_, fusion="product", source_prior=COUNTS, metric=metric, range="0:2")
        # each expert has its share of the prior: lambda * M of the sum
        alone = unoic_cli.search_lambda(
            summed, labels, source_prior=COUNTS, metric=metric, range=f"0:{2 * n_experts}", step=0.01 * n_experts
        )
        assert both.counts.hits.tolist() == alone.counts.hits.tolist()
        assert both.curve[metric].tolist() == alone.curve[metric].tolist()
    weights = [0.5] * n_experts
    mean = unoic_cli.evaluate(given_, fusion="log-linear", weights=weights, source_prior=COUNTS, lam=0.8)
    halved = unoic_cli.evaluate(summed, labels, temperature=n_experts, source_prior=COUNTS, lam=0.8)
    assert counts_of(mean) == counts_of(halved)


@pytest.mark.parametrize("order, delta", [(None, None), *((o, d) for o in ORDERS for d in ("stored", "fit"))])
@pytest.mark.parametrize("how", FUSIONS)
def test_the_curve_is_what_evaluate_gives(how, order, delta):
    """Every other lambda, the even ones for one fusion and the odd ones for the next."""
    zs, labels = world(3)
    rng = np.random.default_rng(2)
    deltas = [rng.uniform(0.2, 1.0, len(labels)), None] if delta == "stored" else None
    given_ = named(*zs, labels=labels, deltas=deltas)
    options = {"fusion": how, "source_prior": {"a": COUNTS, "b": [1, 2, 3, 4]}}
    options |= {"temperature": {"a": 1.5, "b": 0.7}}
    if delta is not None:
        options["order"] = order
    if delta == "fit":
        options["delta"] = "fit"
    found = unoic_cli.search_lambda(given_, range="-0.5:1.5", step=0.25, **options)
    for method in ("grid", "paper"):
        more = {} if method == "paper" else {"range": "-0.5:1.5", "step": 0.25}
        other = unoic_cli.search_lambda(given_, method=method, **options, **more)
        if method == "grid":
            assert other.counts.hits.tolist() == found.counts.hits.tolist()
            assert other.counts.predicted.tolist() == found.counts.predicted.tolist()
    for g in range(FUSIONS.index(how) % 2, len(found.lams), 2):
        one = unoic_cli.evaluate(given_, lam=float(found.lams[g]), **options)
        assert one.overall.counts.hits.tolist() == found.counts.hits[g].tolist()
        assert one.overall.counts.predicted.tolist() == found.counts.predicted[g].tolist()
        assert one.overall.values["macc"] == found.curve["macc"][g]
    tuned = unoic_cli.evaluate(given_, calibration=found.calibration)
    assert tuned.overall.values["macc"] == found.best["macc"]


@pytest.mark.parametrize("how", FUSIONS)
def test_lambda_of_each_modality(how):
    zs, labels = world(5)
    given_ = named(*zs, labels=labels)
    prior = {"a": COUNTS, "b": [1, 2, 3, 4]}
    own = unoic_cli.evaluate(given_, lam="a=0.3,b=0.9", source_prior=prior, fusion=how)
    assert counts_of(own) == counts_of(
        unoic_cli.evaluate(given_, lam={"b": 0.9, "a": 0.3}, source_prior=prior, fusion=how)
    )
    log_ps = []
    for z, lam, counts in zip(zs, (0.3, 0.9), prior.values(), strict=True):
        log_ps.append(logs(naive.posterior(z, naive.slopes(counts, [1] * 4), lam)))
        if how == "bayes":
            log_ps[-1] = log_ps[-1] - np.log(naive.assumed_prior(counts, [1] * 4, lam)) / 2
    winners, clear = clear_winners(naive_values(log_ps, how, resolve_weights(how, None, 2)))
    assert clear.all()
    assert own.overall.counts.predicted.tolist() == np.bincount(winners, minlength=4).tolist()
    found = unoic_cli.search_lambda(given_, per_modality=True, source_prior=prior, fusion=how)
    for name, z, counts in zip("ab", zs, prior.values(), strict=True):
        alone = unoic_cli.search_lambda(z, labels, source_prior=counts)
        assert found.modalities[name]["lambda"] == alone.lam
        assert {k: v for k, v in alone.best.items() if k != "lambda"} == found.modalities[name]["best"]
    shares = {name: found.lam * found.modalities[name]["lambda"] for name in "ab"}
    again = unoic_cli.evaluate(given_, lam=shares, source_prior=prior, fusion=how)
    assert again.overall.values["macc"] == found.best["macc"]


# ------------------------------------------------------------------------------------------------
# law 3: fuse, or calibrate, then evaluate


def store(path, z, labels=None, form="h5", layout="planes", **more):
    """An HDF5 or Parquet file of scores (N, K, ...)."""
    last = np.moveaxis(z, 1, -1)
    if form == "parquet":
        rows = np.ascontiguousarray(last).reshape(-1, z.shape[1])
        columns = {"logits": pa.FixedSizeListArray.from_arrays(rows.ravel(), rows.shape[1])}
        if labels is not None:
            columns["label"] = labels.ravel()
        image = z.shape[2:]
        metadata = {"unoic.image_shape": str(list(image))} if image else {}
        metadata |= {"unoic.source_counts": str(list(map(int, more["source_counts"])))} if more else {}
        pq.write_table(pa.table(columns, metadata=metadata), path, row_group_size=37)
        return path
    with h5py.File(path, "w") as file:
        rows = z.ndim > 2 and layout == "rows"
        file["logits"] = last if rows else z
        if z.ndim > 2:
            file["logits"].attrs["class_axis"] = -1 if rows else 1
        if labels is not None:
            file["labels"] = labels
        for name, values in more.items():
            file[name] = values
    return path


@pytest.mark.parametrize(
    "turn, layout, form",
    [(0, "flat", "h5"), (1, "rows", "h5"), (2, "planes", "h5"), (3, "flat", "parquet"), (4, "rows", "parquet")],
)
@pytest.mark.parametrize("how", FUSIONS)
def test_fuse_then_evaluate(how, turn, layout, form):
    image = () if layout == "flat" else (5, 7)
    zs, labels = world(1, n=14 if image else 90, image=image, dtype="f2" if form == "h5" else "f4")
    zs[0] = np.round(zs[0], 1)
    labels[1] = 255
    files = [store(f"{n}.{form}", z, labels, form, layout, source_counts=COUNTS) for n, z in zip("ab", zs, strict=True)]
    given_ = [f"{n}={path}" for n, path in zip("ab", files, strict=True)]
    found = unoic_cli.search_lambda(given_, fusion=how, delta="fit", order="rebalance-first", output="c.json")
    direct = unoic_cli.evaluate(given_, calibration="c.json", confusion=True)
    assert direct.overall.values["macc"] == found.best["macc"]
    plain = unoic_cli.evaluate(given_, fusion=how, confusion=True)
    for i, emit in enumerate(("log-probs", "probs", "predictions"), FUSIONS.index(how) + turn):
        outs = ("out.h5", "out.parquet")[:: (-1) ** i]
        for task, out in zip((unoic_cli.calibrate, unoic_cli.fuse), outs, strict=True):
            made = task(given_, output=out, calibration="c.json", emit=emit, force=True)
            seen = unoic_cli.evaluate(out, confusion=True)
            assert counts_of(seen) == counts_of(direct)
            assert np.array_equal(seen.confusion, direct.confusion)
            assert made.after.counts.hits.tolist() == direct.overall.counts.hits.tolist()
        unoic_cli.fuse(given_, output=outs[0], fusion=how, emit=emit, force=True)
        seen = unoic_cli.evaluate(outs[0], confusion=True)
        assert counts_of(seen) == counts_of(plain)
        assert np.array_equal(seen.confusion, plain.confusion)


@pytest.mark.parametrize("how", ["noisy-or", "max", "average"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("emit", ["probs", "log-probs", "predictions"])
def test_decisions_that_written_values_hardly_show(how, dtype, emit):
    """Probabilities one step of float64 apart may have the same logarithm, which is what `evaluate` compares."""
    n = 7
    scores = np.zeros((n, 8, n), dtype)
    for m in range(n):  # experts that are each certain of another class, the last one most of all
        scores[m, :, m] = np.arange(40.0, 44.0, 0.5) + 0.5 * m
    given_ = named(*scores, labels=np.full(8, n - 1))
    unoic_cli.fuse(given_, output="out.h5", emit=emit, fusion=how)
    assert unoic_cli.evaluate(given_, fusion=how).overall.values["acc"] == 1
    assert unoic_cli.evaluate("out.h5").overall.values["acc"] == 1


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 9999),
    how=st.sampled_from(list(FUSIONS)),
    order=st.sampled_from([None, *ORDERS]),
    image=st.sampled_from([(), (3, 4)]),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    lam=st.sampled_from([0.0, 0.4, 1.3, -0.7, 25.0, {"a": 0.2, "b": 1.1, "c": 0.0}]),
    temperature=st.sampled_from([None, 2.5, {"b": 0.3}]),
    emit=st.sampled_from(["log-probs", "probs", "predictions"]),
    scale=st.sampled_from([0.01, 1.0, 40.0, 3000.0]),
    target=st.sampled_from([None, "1,0,2,1"]),
    quantised=st.booleans(),
)
def test_fuse_anything_then_evaluate(seed, how, order, image, dtype, lam, temperature, emit, scale, target, quantised):
    rng = np.random.default_rng(seed)
    zs, labels = world(seed, n=int(rng.integers(2, 25)), image=image, n_experts=3, dtype="f8")
    zs = [np.round(z * 2) / 2 if quantised else z for z in zs]
    zs = [np.clip(z * scale, -6e4, 6e4).astype(dtype) for z in zs]
    shapes = [(), (len(labels),), labels.shape]
    deltas = [rng.uniform(0.1, 1.4, shapes[m]) for m in range(3)] if order else None
    given_ = named(*zs, labels=labels, deltas=deltas, class_axis=1)
    options = {"fusion": how, "order": order, "lam": lam, "temperature": temperature, "target_prior": target}
    options["source_prior"] = {"a": COUNTS, "b": [1, 2, 3, 4], "c": [1, 1, 1, 9]}
    direct = unoic_cli.evaluate(given_, confusion=True, **options)
    made = unoic_cli.fuse(given_, output="out.h5", emit=emit, force=True, **options)
    seen = unoic_cli.evaluate("out.h5", confusion=True)
    assert counts_of(seen) == counts_of(direct)
    assert np.array_equal(seen.confusion, direct.confusion)
    unmasked = {**options, "lam": 0.0, "target_prior": None, "temperature": None}
    assert made.before.counts.hits.tolist() == unoic_cli.evaluate(given_, **unmasked).overall.counts.hits.tolist()
    if emit != "predictions":
        values, _ = written("out.h5", emit.replace("-", "_"))
        values = np.exp(values.astype(float)) if emit == "log-probs" else values.astype(float)
        assert values.sum(1) == pytest.approx(1, abs=1e-5)
