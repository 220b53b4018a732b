"""Temperature scaling: likelihood and calibration error against plain numpy, T, and the calibration that carries it."""

from __future__ import annotations

import itertools
import json
import math
import pathlib
from dataclasses import replace

import h5py
import naive
import numba
import numpy as np
import pytest
from driven import open_dataset, sweep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from said import BESIDE

import unoic_cli
from unoic_cli import cli
from unoic_cli.calibrations.calibration import Calibration, Modality
from unoic_cli.calibrations.delta import DeltaStatistics
from unoic_cli.calibrations.prior import Prior
from unoic_cli.commands.fit_temperature import RANGE, TOLERANCE, interpolate
from unoic_cli.data.dataset import Span
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import arrays
from unoic_cli.kernels import likelihood
from unoic_cli.kernels.constants import FLUSH, STEP
from unoic_cli.kernels.jit import JIT_DISABLED
from unoic_cli.tallies import likelihood as tallies
from unoic_cli.tallies.likelihood import ConfidenceTally, Likelihood, LikelihoodTally

DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
USAGE, NO_DATA, NO_INPUT, CANNOT_CREATE = 2, 65, 66, 73

several = settings(
    max_examples=10 if JIT_DISABLED else 40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


# ---------------------------------------------------------------- the reference


def reference(z, labels, beta):
    """NLL, its first and second derivative in beta, confidence and hit of each labelled row. z: delta * z, (N, K)."""
    kept = labels >= 0
    z, labels = z[kept], labels[kept]
    rows = np.arange(len(labels))
    shifted = beta * (z - z.max(axis=1, keepdims=True))
    with np.errstate(invalid="ignore"):
        p = naive.softmax(beta * z)
    nll = np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, labels]
    finite = np.where(np.isfinite(z), z, 0.0)
    mean = (p * finite).sum(axis=1)
    variance = (p * (finite - mean[:, np.newaxis]) ** 2).sum(axis=1)
    return nll.mean(), (mean - z[rows, labels]).mean(), variance.mean(), p.max(axis=1), z.argmax(axis=1) == labels


def reference_ece(confidence, hit, n_bins):
    total = 0.0
    for i in range(n_bins):
        inside = (confidence > i / n_bins) & (confidence <= (i + 1) / n_bins)
        if inside.any():
            total += inside.sum() * abs(hit[inside].mean() - confidence[inside].mean())
    return total / len(hit)


def reference_temperature(z, labels):
    """Bisection of the derivative, which rises with beta."""
    low, high = 1 / RANGE[1], 1 / RANGE[0]
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if reference(z, labels, middle)[1] <= 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def draw(seed, n, n_classes, *, image=(), scale=4.0, noise=3.0, dtype="float32"):
    """Scores (N, ..., K) that tell something about the labels, some of which are ignored."""
    rng = np.random.default_rng(seed)
    z = (scale * rng.normal(size=(n, *image, n_classes))).astype(dtype)
    labels = (z + noise * rng.normal(size=z.shape)).argmax(axis=-1).astype(np.int16)
    labels[rng.random(labels.shape) < 0.1] = -1
    labels.flat[0] = 0
    return z, labels


def fit_alone(*given, **options):
    return unoic_cli.fit_temperature(*given, alone=True, **options)


def source_of(z, labels, layout="rows", **more):
    if layout == "planes":
        z = np.moveaxis(z, -1, 1)
    return arrays.describe(z, labels, class_axis=1 if z.ndim == 2 or layout == "planes" else -1, **more)


def flat(z, labels, delta=1.0):
    """What the reference takes: (N, K) float64 and (N,)."""
    z = np.asarray(delta, np.float64)[..., np.newaxis] * z.astype(np.float64)
    return z.reshape(-1, z.shape[-1]), labels.ravel()


def run(tally, *sources, spans=None, n_threads=1):
    sweep(open_dataset(sources), [tally], spans=spans, n_threads=n_threads)
    return tally


# ---------------------------------------------------------------- kernels


@pytest.mark.kernel
@several
@given(
    st.integers(0, 99),
    st.integers(1, 12),
    st.integers(2, 20),
    st.sampled_from(["float16", "float32", "float64"]),
    st.sampled_from([(), (2, 3)]),
    st.sampled_from(["rows", "planes"]),
    st.sampled_from(["none", "scalar", "unit"]),
    st.sampled_from([0.01, 1.0, 40.0]),
)
def test_sums_are_those_of_plain_numpy(seed, n, n_classes, dtype, image, layout, how, scale):
    z, labels = draw(seed, n, n_classes, image=image, dtype=dtype, scale=scale, noise=scale)
    delta = {"none": None, "scalar": 0.7, "unit": np.random.default_rng(seed).uniform(0, 2, labels.shape)}[how]
    source = source_of(z, labels, layout, delta=delta)
    betas, n_bins = [0.02, 0.3, 1.0, 7.0], 5
    tally = run(LikelihoodTally(n_classes, betas, n_bins=n_bins, n_measured=4), source)
    confidence = run(ConfidenceTally(n_classes, betas, n_bins), source)
    rows, truth = flat(z, labels, 1.0 if delta is None else delta)
    assert confidence.n == (truth >= 0).sum()
    assert confidence.n_ignored == (truth < 0).sum()
    for point in tally.curve():
        nll, slope, curvature, _, _ = reference(rows, truth, point.beta)
        size = 1 + np.abs(rows).max()
        assert point.nll == pytest.approx(nll, rel=1e-10, abs=1e-11 * size)
        assert point.slope == pytest.approx(slope, rel=1e-9, abs=1e-10 * size / point.beta)
        assert point.curvature == pytest.approx(curvature, rel=1e-9, abs=1e-10 * size / point.beta**2)
    for i, beta in enumerate(betas):
        nll, _, _, probability, hit = reference(rows, truth, beta)
        edges = np.abs(probability * n_bins - np.rint(probability * n_bins)).min()
        assert confidence.nll(i) == pytest.approx(nll, rel=1e-10, abs=1e-11 * size)
        assert confidence.accuracy() == tally.accuracy(i) == hit.mean()
        if edges > 1e-12 or (probability == 1).any():  # on an edge, the last bit chooses the bin
            expected = pytest.approx(reference_ece(probability, hit, n_bins), abs=1e-10)
            assert confidence.ece(i) == expected
            assert tally.ece(i) == expected


@pytest.mark.kernel
@several
@given(
    st.integers(0, 99),
    st.integers(1, 12),
    st.integers(2, 9),
    st.sampled_from(["float16", "float64"]),
    st.sampled_from(["rows", "planes"]),
    st.sampled_from([1.0, 40.0]),
)
def test_points_are_those_of_plain_numpy(seed, n, n_classes, dtype, layout, scale):
    """delta * z + bias, with classes that are masked: likelihood by class, Brier score, confidence."""
    rng = np.random.default_rng(seed)
    z, labels = draw(seed, n, n_classes, image=(2, 3), dtype=dtype, scale=scale, noise=scale)
    biases = rng.normal(size=(3, n_classes)) * [[0], [3], [3]]
    biases[2, rng.integers(n_classes)] = -np.inf
    tally = ConfidenceTally(n_classes, [1.0], 5, biases, strict=False)
    arrays = run(tally, source_of(z, labels, layout, delta=0.7)).arrays()
    rows, truth = flat(z, labels, 0.7)
    rows, truth = rows[truth >= 0], truth[truth >= 0]
    onehot = np.eye(n_classes)[truth]
    assert arrays["support"].tolist() == [[onehot.sum(axis=0).tolist()]]
    for i, bias in enumerate(biases):
        p = naive.softmax(rows + bias)
        with np.errstate(divide="ignore"):
            nll = -np.log(p[onehot > 0])
        far = np.isinf(nll) | (nll > 600)  # the formula underflows; the kernel does not, unless a class is masked
        hidden = np.isneginf(bias[truth])
        assert arrays["zeros"][0, i].tolist() == np.bincount(truth[hidden], minlength=n_classes).tolist()
        sums = tallies.gap_sums(arrays["away"][0, i]) + tallies.whole(arrays["logs"][0, i])
        for k in range(n_classes):
            if not far[truth == k].any():
                assert sums[k] / 2**40 == pytest.approx(nll[truth == k].sum(), abs=1e-9)
        square = ((p - onehot) ** 2).sum()
        assert tallies.whole(arrays["squares"][0, i]) / 2**40 == pytest.approx(square, abs=1e-9)
        assert arrays["counted"][0, i].sum() == len(rows)
        assert arrays["hits"][0, i].sum() == ((rows + bias).argmax(axis=1) == truth).sum()
        assert tallies.whole(arrays["confidences"][0, i]).sum() / 2**40 == pytest.approx(p.max(axis=1).sum(), abs=1e-9)


@pytest.mark.kernel
def test_biases_of_any_size():
    """Slopes of a lambda that leaves nothing of the scores: a gap beyond every tier is a probability of zero."""
    z, labels = np.array([[1, 0], [1, 0], [0, 2]], "f4"), np.array([0, 1, 1])
    tally = run(ConfidenceTally(2, [1.0], 4, np.array([[0, 1e300], [0, 1e38]]), strict=False), source_of(z, labels))
    arrays = tally.arrays()
    assert arrays["zeros"][0].tolist() == [[1, 0], [0, 0]]
    assert tallies.gap_sums(arrays["away"][0, 1]).tolist() == [pytest.approx(1e38 * 2**40, rel=1e-9), 0]


@pytest.mark.kernel
def test_zero_probabilities_count_as_nothing_unless_they_are_the_truth():
    probs = np.array([[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 1]])
    found = run(LikelihoodTally(3, [0.5, 1, 2]), source_of(probs, np.array([0, 1, 2]), kind="probs")).curve()
    with np.errstate(divide="ignore"):
        z = np.log(probs)
    for point in found:
        assert tuple(point)[1:4] == pytest.approx(reference(z, np.array([0, 1, 2]), point.beta)[:3], abs=1e-11)
    for tally in (LikelihoodTally(3, [1.0]), ConfidenceTally(3, [1.0], 15)):
        with pytest.raises(DataError, match=r"<array>:probs: a zero probability of the true class at row 1; expected"):
            run(tally, source_of(probs, np.array([0, 0, 0]), kind="probs"))


@pytest.mark.kernel
@pytest.mark.parametrize(("dtype", "largest"), [("float16", 65504.0), ("float32", 3.4e38), ("float64", 3.4e38)])
def test_huge_scores(dtype, largest):
    z = np.array([[largest, -largest], [largest, -largest], [3, 1], [0, 600], [-largest, 0]], dtype)
    labels = np.array([0, 1, 0, 0, 1])
    betas = [2.0**-7, 1.0, 2.0**7]
    found = run(LikelihoodTally(2, betas), source_of(z, labels)).curve()
    measured = run(ConfidenceTally(2, betas, 15), source_of(z, labels))
    for i, point in enumerate(found):
        nll, slope, *_ = reference(z.astype(np.float64), labels, point.beta)
        assert (point.nll, point.slope) == pytest.approx((nll, slope), rel=1e-9)
        assert measured.nll(i) == pytest.approx(point.nll, rel=1e-12)


@pytest.mark.kernel
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("tally", [LikelihoodTally(3, [1.0]), ConfidenceTally(3, [1.0], 4)])
@pytest.mark.parametrize("layout", ["rows", "planes"])
def test_scores_that_may_not_be_there(bad, tally, layout):
    z, labels = draw(0, 5, 3, image=(2, 2), dtype="float64")
    z[3, 1, 0, 2] = bad
    labels[3, 1, 0] = 1
    with pytest.raises(DataError, match=r"sample 3, pixel \(1, 0\)"):
        run(tally.fresh(), source_of(np.where(z == -np.inf, -1e39, z), labels, layout))
    labels[3, 1, 0] = -1  # such a unit takes no part, whatever its scores are
    dirty = run(tally.fresh(), source_of(z, labels, layout))
    z[3, 1, 0, 2] = 0
    clean = run(tally.fresh(), source_of(z, labels, layout))
    assert [str(value) for value in dirty.counters().values()] == [str(value) for value in clean.counters().values()]


@pytest.mark.kernel
def test_confidences_on_the_edges_of_bins_belong_to_the_lower_bin():
    tally = run(ConfidenceTally(4, [1.0], 4), source_of(np.zeros((2, 4), "f4"), np.array([0, 1])))
    assert tally.counts(0) == [2, 0, 0, 0]
    assert (tally.nll(0), tally.ece(0), tally.accuracy()) == (pytest.approx(math.log(4), abs=1e-12), 0.25, 0.5)
    sure = run(ConfidenceTally(2, [1.0], 4), source_of(np.array([[900, 0], [0, 900]], "f4"), np.array([0, 0])))
    assert (sure.counts(0), sure.ece(0)) == ([0, 0, 0, 2], 0.5)


@numba.njit
def tier_of(value):
    return likelihood.tier_of(value)


def test_tiers_hold_gaps_of_every_size():
    for value in [0.0, 1e-9, 0.3, 511.999, 512.0, 131008.0, 3e7, 3.4e7, 1e20, 6.8e38]:
        tier, units = tier_of(value)
        assert int(units) * 2.0 ** (STEP * tier) / 2**40 == pytest.approx(value, rel=2**-33, abs=2**-40)
        assert units <= 2**49


@pytest.mark.kernel
def test_lanes_are_emptied_before_they_overflow():
    z, labels = draw(1, 600, 3)
    biases = np.random.default_rng(0).normal(size=(2, 3))
    tally = LikelihoodTally(3, [0.5, 1.0], biases, np.array([0.0, 0.5, 1.0]))
    whole = run(tally.fresh(), source_of(z, labels))
    assert 8 * FLUSH < 600 * 60
    many = run(tally.fresh(), source_of(np.tile(z, (60, 1)), np.tile(labels, 60)))
    assert many.curve() == whole.curve()


# ---------------------------------------------------------------- the temperature


def test_the_cubic_of_a_cubic_is_exact():
    def slope(u):
        return (u - 0.3) * (u * u + u + 1)

    def rise(u):
        return (u * u + u + 1) + (u - 0.3) * (2 * u + 1)

    ends = [Likelihood(math.exp(u), 0.0, slope(u), rise(u) / math.exp(u)) for u in (-0.4, 0.9)]
    assert math.log(interpolate(*ends)) == pytest.approx(0.3, abs=1e-12)


@several
@given(
    st.integers(0, 999),
    st.integers(30, 200),
    st.integers(2, 12),
    st.sampled_from([0.2, 1.0, 6.0, 50.0]),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_the_temperature_is_that_of_bisection(seed, n, n_classes, scale, dtype):
    z, labels = draw(seed, n, n_classes, scale=scale, noise=scale, dtype=dtype)
    found = fit_alone(z, labels, source_prior="uniform")
    rows, truth = flat(z, labels)
    expected = reference_temperature(rows, truth)
    if found.at_bound:
        assert found.temperature == {"lower": RANGE[0], "upper": RANGE[1]}[found.at_bound]
        assert expected == pytest.approx(found.temperature, rel=1e-9)
    else:
        assert found.temperature == pytest.approx(expected, rel=TOLERANCE)
    assert found.reads <= 5
    for beta, nll, ece in (
        (1.0, found.nll_before, found.ece_before),
        (1 / found.temperature, found.nll_after, found.ece_after),
    ):
        wanted, _, _, probability, hit = reference(rows, truth, beta)
        assert nll == pytest.approx(wanted, rel=1e-9)
        assert ece == pytest.approx(reference_ece(probability, hit, 15), abs=1e-9)
        assert found.acc == hit.mean()
    assert found.nll_after <= found.nll_before * (1 + 1e-12)


def test_delta_counts_and_all_kinds_are_taken():
    z, labels = draw(3, 300, 5)
    delta = np.random.default_rng(0).uniform(0.2, 1.5, 300)
    rows, truth = flat(z, labels, delta)
    found = fit_alone(source_of(z, labels, delta=delta), source_prior="uniform")
    assert found.temperature == pytest.approx(reference_temperature(rows, truth), rel=TOLERANCE)
    plain = fit_alone(z, labels)
    p = naive.softmax(z)
    for kind, scores in (("probs", p), ("log_probs", np.log(p))):
        same = fit_alone(source_of(scores, labels, kind=kind))
        assert same.temperature == pytest.approx(plain.temperature, rel=2 * TOLERANCE)
        assert same.nll_after == pytest.approx(plain.nll_after, rel=1e-9)


def test_classes_that_are_separated_take_the_lowest_temperature():
    z = np.array([[2, 0, 0], [0, 1, 0], [0, 0, 3]], "f4")
    found = fit_alone(z, [0, 1, 2])
    assert (found.temperature, found.at_bound, found.acc) == (RANGE[0], "lower", 1.0)
    assert found.nll_after < 1e-12
    assert any("as good as separated" in note for note in found.notes)


def test_scores_that_say_nothing_take_the_highest_temperature():
    found = fit_alone(np.array([[2, 0], [0, 1]], "f4"), [1, 0])
    assert (found.temperature, found.at_bound, found.acc) == (RANGE[1], "upper", 0.0)
    assert any("hardly tell the classes apart" in note for note in found.notes)


@pytest.mark.parametrize("z", [np.zeros((3, 4), "f4"), 1e30 * np.eye(3, dtype="f4")])
def test_a_likelihood_that_does_not_change_leaves_the_scores_alone(z):
    found = fit_alone(z, [0, 1, 2])
    assert (found.temperature, found.at_bound, found.nll_after) == (1.0, None, found.nll_before)
    assert any("the same at every temperature" in note for note in found.notes)


def test_outliers_beyond_all_measure_cost_some_reads_only():
    z, labels = draw(4, 400, 3, scale=2.0, noise=2.0)
    labels[:] = np.where(labels < 0, 0, labels)
    z[0], labels[0] = (5000, 0, 0), 1
    found = fit_alone(z, labels)
    assert found.temperature == pytest.approx(reference_temperature(*flat(z, labels)), rel=TOLERANCE)
    assert found.reads <= 8


# ---------------------------------------------------------------- law 2: the split of the work never shows


def write(path, z, labels, **more):
    with h5py.File(path, "w") as file:
        for name, values in {"logits": z, "labels": labels, **more}.items():
            file[name] = values
        if np.shape(z)[:-1] == np.shape(labels) and np.ndim(z) == 4:
            file["logits"].attrs["class_axis"] = -1
    return str(path)


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """What the command prints for some files, apart from their names."""
    monkeypatch.chdir(tmp_path)

    def runner(*args):
        assert cli.run(["fit-temperature", *map(str, args), "--alone", "--source-prior", "4,3,2,1"]) == 0
        found = json.loads(capsys.readouterr().out)
        del found["files"], found["calibration"]["provenance"]["files"]
        return json.dumps(found)

    return runner


def test_threads_files_layouts_and_chunks_never_change_a_byte(shown):
    z, labels = draw(7, 90, 4, image=(20, 30))
    delta = np.random.default_rng(1).uniform(0.5, 1.5, labels.shape)
    planes = np.ascontiguousarray(np.moveaxis(z, -1, 1))
    whole = shown(write("rows.h5", z, labels, delta=delta))
    assert shown("rows.h5", "--threads", 1) == shown("rows.h5", "--threads", 4) == whole
    assert shown(write("planes.h5", planes, labels, delta=delta), "--threads", 3) == whole
    parts = [
        write(f"{i}.h5", planes[a:b], labels[a:b], delta=delta[a:b]) for i, (a, b) in enumerate([(0, 13), (13, 90)])
    ]
    assert shown(*parts, "--threads", 2) == shown(*parts[::-1]) == whole
    with h5py.File("chunks.h5", "w") as file:
        file.create_dataset("logits", data=planes, chunks=(7, 4, 11, 13), compression="gzip")
        file["labels"], file["delta"] = labels, delta
    assert shown("chunks.h5") == whole


@several
@given(st.integers(0, 99), st.lists(st.integers(1, 63), max_size=6), st.integers(1, 4))
def test_spans_and_threads_never_change_a_sum(seed, edges, n_threads):
    z, labels = draw(seed, 9, 3, image=(2, 4))
    source = source_of(z, labels, "planes")
    at = sorted({0, source.n_units, *(source.n_units * edge // 64 for edge in edges)})
    spans = [Span(source, a, b) for a, b in itertools.pairwise(at)]
    tally = LikelihoodTally(3, [0.3, 1.0], np.array([[0, 0, 0], [0, 1, -1.0]]), np.array([0.0, 2.0, -1.0]))
    assert (
        run(tally.fresh(), source, spans=spans, n_threads=n_threads).curve()
        == run(tally.fresh(), source_of(z, labels)).curve()
    )


def test_a_split_equals_choosing_its_samples_beforehand():
    z, labels = draw(8, 200, 4)
    split = np.array(["val", "test"], object)[np.random.default_rng(0).integers(0, 2, 200)]
    kept = split == "val"
    one = fit_alone(source_of(z, labels, split=split), split="val").to_dict()
    other = fit_alone(z[kept], labels[kept]).to_dict()
    for key in ("temperature", "n", "n_ignored", "nll", "ece", "acc", "reads"):
        assert one[key] == other[key]


# ---------------------------------------------------------------- the calibration


def calibration(lam=0.8, temperature=1.3, weights=(6, 2, 1, 1), **more):
    source = Prior.from_weights(weights, "test", counts=True)
    return Calibration(lam, Prior.uniform(len(weights)), (Modality(None, source, temperature, **more),))


@pytest.mark.parametrize("lam", [0.8, -0.3, 1.7])
def test_the_lambda_that_belongs_to_the_temperature_keeps_every_prediction(lam):
    z, labels = draw(9, 3000, 4)
    given = calibration(lam)
    found = fit_alone(z, labels, calibration=given)
    made = found.calibration
    assert made.lam * made.temperature == pytest.approx(lam * 1.3, rel=1e-14)
    assert made.temperature == found.temperature != 1.3
    before, after = (unoic_cli.evaluate(z, labels, calibration=c, confusion=True) for c in (given, made))
    assert np.array_equal(before.confusion, after.confusion)
    assert not np.array_equal(before.confusion, unoic_cli.evaluate(z, labels, confusion=True).confusion)
    assert replace(made, lam=lam, modalities=given.modalities, provenance={}) == given
    told = [note for note in found.notes if "converted" in note]
    assert len(told) == 1
    assert f"{lam:.7g}" in told[0]
    assert f"{made.lam:.7g}" in told[0]
    assert found.to_dict()["lambda"] == {"before": lam, "after": made.lam}


def test_the_temperature_does_not_depend_on_the_calibration():
    z, labels = draw(10, 500, 4)
    found = {
        fit_alone(z, labels, calibration=c).temperature
        for c in (None, calibration(), calibration(0.0, 7.0), calibration(weights=(1, 1, 1, 0)))
    }
    assert len(found) == 1


def test_without_a_calibration_lambda_is_zero_and_priors_are_found_as_elsewhere():
    z, labels = draw(11, 500, 4)
    found = fit_alone(source_of(z, labels, source_counts=(4, 3, 2, 1)), target_prior="1,1,1,2")
    made = found.calibration
    assert (made.lam, found.lam_before) == (0.0, None)
    assert made.source_prior.counts == (4, 3, 2, 1)
    assert made.target_prior.counts == (1, 1, 1, 2)
    assert any(f"search-lambda --temperature {found.temperature:.7g}" in note for note in found.notes)
    fallback = fit_alone(z, labels)
    assert any("label frequencies of" in note for note in fallback.notes)
    posterior = fit_alone(z, labels, source_prior="mean-posterior")
    rows = naive.softmax(z / posterior.temperature)
    assert posterior.calibration.source_prior.values == pytest.approx(rows.mean(axis=0), abs=1e-9)


def test_a_calibration_that_leaves_the_stored_delta_alone_is_fitted_so():
    z, labels = draw(12, 500, 4)
    delta = np.random.default_rng(0).uniform(0.2, 1.5, 500)
    source = source_of(z, labels, delta=delta)
    plain = fit_alone(z, labels, calibration=calibration())
    assert fit_alone(source, calibration=calibration(stored_delta=False)).nll_after == plain.nll_after
    assert fit_alone(source, calibration=calibration()).nll_after != plain.nll_after


def test_the_file_that_is_written_is_read_by_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    z, labels = draw(13, 400, 4)
    write("x.h5", z, labels, source_counts=[4, 3, 2, 1])
    assert cli.run(["fit-temperature", "x.h5", "--alone", "-o", "cal.json", "--format", "table"]) == 0
    table = capsys.readouterr()
    assert "NLL" in table.out
    assert "search-lambda --temperature" in table.err
    first = Calibration.load("cal.json")
    assert cli.run(["search-lambda", "x.h5", "--temperature", repr(first.temperature), "-o", "lam.json"]) == 0
    assert cli.run(["fit-temperature", "x.h5", "--alone", "-c", "lam.json", "-o", "both.json"]) == 0
    capsys.readouterr()
    both, lam = Calibration.load("both.json"), Calibration.load("lam.json")
    assert both.temperature == first.temperature == lam.temperature
    assert both.lam == pytest.approx(lam.lam, rel=1e-15)
    assert both.provenance["previous"] == lam.provenance
    assert cli.run(["evaluate", "x.h5", "-c", "both.json"]) == 0
    assert json.loads(capsys.readouterr().out)["temperature"] == first.temperature
    assert cli.run(["fit-temperature", "x.h5", "--alone", "--format", "tsv", "--bins", "4"]) == 0
    shown = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert shown["temperature"] == repr(first.temperature)
    assert shown["ece.bins"] == "4"


# ---------------------------------------------------------------- bad input


@pytest.fixture
def refuse(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def runner(code, *args):
        before = {path.name: path.read_bytes() for path in pathlib.Path().iterdir()}
        got = cli.run(["fit-temperature", *map(str, args)])
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if not line.startswith(BESIDE)]
        assert (got, out, len(lines)) == (code, "", 1), err
        assert lines[0].startswith("unoic: error: ")
        assert "; expected" in lines[0]
        assert {path.name: path.read_bytes() for path in pathlib.Path().iterdir()} == before
        return lines[0].removeprefix("unoic: error: ")

    return runner


def test_files_without_what_is_needed(refuse):
    z, labels = draw(0, 6, 3)
    assert "no such file" in refuse(NO_INPUT, "x.h5")
    write("x.h5", z, np.full(6, 255))
    assert "no labelled unit (6 ignored)" in refuse(NO_DATA, "x.h5", "--source-prior", "uniform")
    assert "no labelled unit" in refuse(NO_DATA, "x.h5")
    with h5py.File("y.h5", "w") as file:
        file["logits"] = z
    assert "no labels" in refuse(NO_DATA, "y.h5")
    with h5py.File("p.h5", "w") as file:
        file["predictions"], file["labels"] = np.zeros(6, "u1"), labels
        file["predictions"].attrs["n_classes"] = 3
        file["source_counts"] = [1, 2, 3]
    assert "p.h5: predictions without scores" in refuse(NO_DATA, "p.h5")
    with pytest.raises(DataError, match="predictions without scores"):
        fit_alone(arrays.describe(np.zeros(6, "u1"), labels, kind="predictions", n_classes=3))
    z[4, 1] = np.nan
    assert "row 4, class 1" in refuse(NO_DATA, write("x.h5", z, labels))
    probs = np.full((6, 3), 0.5, "f4")
    probs[5] = (0, 1, 0)
    with h5py.File("q.h5", "w") as file:
        file["probs"], file["labels"] = probs, np.zeros(6, int)
    assert "q.h5:probs: a zero probability of the true class at row 5" in refuse(NO_DATA, "q.h5")


def test_options_that_make_no_sense(refuse):
    write("x.h5", *draw(0, 60, 4))
    pathlib.Path("c.json").write_text(json.dumps(calibration().to_dict()))
    assert "--bins" in refuse(USAGE, "x.h5", "--bins", 0)
    assert "--bins" in refuse(USAGE, "x.h5", "--bins", 10**9)
    assert "--unseen" in refuse(USAGE, "x.h5", "--unseen", "hide")
    assert "--force without --output" in refuse(USAGE, "x.h5", "--force")
    for option, value in (("--source-prior", "uniform"), ("--target-prior", "uniform"), ("--unseen", "mask")):
        assert f"{option} beside --calibration" in refuse(USAGE, "x.h5", "-c", "c.json", option, value)
    assert "a prior of 3 classes" in refuse(NO_DATA, "x.h5", "--source-prior", "1,2,3")
    assert "zero for class 3" in refuse(NO_DATA, "x.h5", "--source-prior", "1,2,3,0", "--unseen", "error")
    assert "also an input" in refuse(CANNOT_CREATE, "x.h5", "-o", "x.h5", "--force")
    assert "also an input" in refuse(CANNOT_CREATE, "x.h5", "-c", "c.json", "-o", "c.json", "--force")
    assert "the file exists" in refuse(CANNOT_CREATE, "x.h5", "-o", "c.json")
    assert "does not exist" in refuse(CANNOT_CREATE, "x.h5", "-o", "no/c.json")


def test_calibrations_that_cannot_take_a_temperature(refuse):
    write("x.h5", *draw(0, 60, 4))
    one = calibration()
    pathlib.Path("other.json").write_text("{}")
    assert "JSON of another kind" in refuse(NO_DATA, "x.h5", "-c", "other.json")
    pathlib.Path("three.json").write_text(json.dumps(calibration(weights=(1, 2, 3)).to_dict()))
    assert "4 classes; expected 3" in refuse(NO_DATA, "x.h5", "-c", "three.json")
    pair = tuple(replace(one.modalities[0], name=name) for name in ("a", "b"))
    fused = replace(one, modalities=pair, fusion="average")
    pathlib.Path("fused.json").write_text(json.dumps(fused.to_dict()))
    assert "fused.json: a fused calibration (2 modalities); expected one of a single" in refuse(
        USAGE, "x.h5", "-c", "fused.json"
    )
    with pytest.raises(UsageError, match="delta statistics"):
        fit_alone("x.h5", calibration=calibration(delta=DeltaStatistics(0.4, 0.1)))


def test_rebalanced_scores_are_refused(refuse, capfd):
    z, labels = draw(0, 60, 4)
    write("x.h5", z, labels, source_counts=[4, 3, 2, 1])
    assert cli.run(["calibrate", "x.h5", "-o", "done.h5"]) == 0
    pathlib.Path("c.json").write_text(json.dumps(calibration().to_dict()))
    capfd.readouterr()
    assert "rebalanced already" in refuse(NO_DATA, "done.h5")
    assert "rebalanced already" in refuse(NO_DATA, "done.h5", "-c", "c.json")


# ---------------------------------------------------------------- real logits

# file, network: T (a grid of about 6 %), then NLL and ECE (percent) at 1 and at T, on test
FIGURES = {
    ("cifar100_resnet20", "logits"): (1.42, 1.252, 1.142, 10.55, 2.16),
    ("cifar100_vgg19_bn", "logits"): (2.13, 1.758, 1.114, 18.88, 3.97),
    ("dermamnist_4nets", "logits_ViT_Base"): (2.25, 0.498, 0.307, 7.65, 2.22),
}


@pytest.mark.skipif(not DATA.exists(), reason="the real logits are not here")
@pytest.mark.parametrize(("name", "key"), FIGURES)
def test_figures_of_published_networks(name, key):
    with np.load(DATA / f"{name}.npz") as stored:
        z, labels, split = stored[key], stored["labels"], stored["split"]
    temperature, *expected = FIGURES[name, key]
    val = fit_alone(unoic_cli.from_arrays(z, labels, split=split), split="val", source_prior="uniform")
    assert val.reads == 3
    assert val.temperature == pytest.approx(temperature, rel=0.03)
    kept = split == "val"
    best = reference_temperature(z[kept].astype(np.float64), labels[kept])
    assert val.temperature == pytest.approx(best, rel=TOLERANCE)
    test, labels = z[split == "test"].astype(np.float64), labels[split == "test"]
    before = fit_alone(test, labels, source_prior="uniform")
    after = fit_alone(test / val.temperature, labels, source_prior="uniform")
    assert (before.nll_before, after.nll_before) == pytest.approx(expected[:2], abs=0.002)
    assert 100 * before.ece_before == pytest.approx(expected[2], abs=0.006)
    assert 100 * after.ece_before == pytest.approx(expected[3], abs=0.15)  # the grid's T is another


# ---------------------------------------------------------------- exact zeros


@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_a_floor_gives_true_classes_of_probability_zero_a_likelihood(tmp_path, kind):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 200)
    z = rng.normal(size=(200, 3)) + 2 * np.eye(3)[labels]
    probs = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    probs[4, labels[4]] = 0
    with np.errstate(divide="ignore"):
        stored = probs if kind == "probs" else np.log(probs)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file[kind], file["labels"] = stored, labels
    path = str(tmp_path / "x.h5")
    with pytest.raises(DataError, match="--floor"):
        fit_alone(path, source_prior="uniform")
    found = fit_alone(path, source_prior="uniform", floor=1e-6)
    logs = np.log(np.maximum(probs, 1e-6))

    def nll(t):
        scaled = logs / t
        top = scaled.max(axis=1, keepdims=True)
        sums = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
        return (sums - scaled[np.arange(200), labels]).mean()

    assert found.nll_before == pytest.approx(nll(1), abs=1e-9)
    assert found.nll_after == pytest.approx(nll(found.temperature), abs=1e-9)
    assert found.nll_after <= min(nll(found.temperature * f) for f in (0.99, 1.01)) + 1e-12
    assert found.to_dict()["floor"] == 1e-6
    for floor in (0, 0.5, -1, float("nan")):
        with pytest.raises(UsageError, match="--floor"):
            fit_alone(path, source_prior="uniform", floor=floor)
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file["logits"], file["labels"] = z, labels
    with pytest.raises(UsageError, match="holds logits"):
        fit_alone(str(tmp_path / "z.h5"), source_prior="uniform", floor=1e-6)
