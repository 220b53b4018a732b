"""Temperature and lambda in one likelihood: sums, the minimum, what is written of it, and that no split shows."""

from __future__ import annotations

import itertools
import json
import math
import pathlib

import h5py
import naive
import numpy as np
import pytest
from driven import open_dataset, sweep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli import cli
from unoic_cli.calibrations.calibration import Calibration, Modality
from unoic_cli.calibrations.prior import Prior, make_slopes
from unoic_cli.commands.fit_temperature import TOLERANCE
from unoic_cli.data.dataset import Span
from unoic_cli.errors import DataError
from unoic_cli.formats import arrays
from unoic_cli.kernels.jit import JIT_DISABLED
from unoic_cli.searches import joint
from unoic_cli.searches.descent import Bounds, Place, descend, size, step
from unoic_cli.tallies.likelihood import LikelihoodTally

DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
several = settings(
    max_examples=8 if JIT_DISABLED else 25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)

TWELVE = np.array(
    [
        (2, 0.5, -1), (1.5, 1.2, 0), (3, 0.2, 0.1), (0.9, 0.7, -0.5), (2.2, -0.3, 0.4), (1.1, 0.3, 0.9),
        (1.4, 1, -0.2), (0.6, 1.3, 0.1), (1.8, 1.6, 0.2), (1, 0.2, 0.8), (0.9, -0.4, 1.5), (1.7, 0.1, 0.6),
    ]
)  # fmt: skip
LABELS = np.array([0] * 6 + [1] * 3 + [2] * 3)


def world(seed, n=300, n_classes=5, *, image=(), scale=1.0, dtype="float64", ignored=True):
    """Scores of a network that was trained on one mix, labels of another, and the prior of the first."""
    rng = np.random.default_rng(seed)
    prior, mix = rng.dirichlet(np.full(n_classes, 2.0), 2) + 0.02
    prior, mix = prior / prior.sum(), mix / mix.sum()
    labels = rng.choice(n_classes, (n, *image), p=mix)
    z = rng.normal(size=(n, *image, n_classes)) + 1.5 * np.eye(n_classes)[labels] + 0.8 * np.log(prior)
    labels = labels.astype(np.int16)
    if ignored:
        labels[rng.random(labels.shape) < 0.1] = -1
    labels.flat[:2] = 0, 1
    return (scale * z).astype(dtype), labels, prior


def kept(z, labels, delta=1.0):
    rows = (np.asarray(delta, np.float64)[..., None] * z.astype(np.float64)).reshape(-1, z.shape[-1])
    labels = labels.ravel().astype(np.int64)
    return rows[labels >= 0], labels[labels >= 0]


def slopes_of(prior):
    return np.log(1 / len(prior)) - np.log(prior / np.sum(prior))


def expected_of(z, labels, prior, delta=1.0):
    rows, truth = kept(z, labels, delta)
    n_classes = rows.shape[1]
    return naive.joint_fit(rows, truth, slopes_of(prior), np.full(n_classes, 1 / n_classes))


# ---------------------------------------------------------------- the minimum


def test_twelve_rows_to_the_last_digit():
    found = unoic_cli.fit_temperature(TWELVE, LABELS, source_prior=[0.7, 0.2, 0.1])
    assert (f"{found.a:.6f}", f"{found.lam:.6f}", f"{found.se_lam:.6f}") == ("1.816615", "0.914094", "0.446375")
    assert found.temperature == 1 / found.a
    assert found.calibration.temperature == found.temperature and found.calibration.lam == found.lam
    shown = found.to_dict()
    assert shown["mu"] == pytest.approx(found.lam / found.a, rel=1e-15)
    assert shown["se"] == {"a": found.se_a, "lambda": found.se_lam}
    assert "uniform" in shown["population"]["calibration"] and "own mix" in shown["population"]["after"]


@several
@given(
    st.integers(0, 999),
    st.integers(20, 300),
    st.integers(2, 12),
    st.sampled_from([0.05, 1.0, 6.0, 40.0]),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_the_minimum_is_that_of_plain_numpy(seed, n, n_classes, scale, dtype):
    z, labels, prior = world(seed, n, n_classes, scale=scale, dtype=dtype)
    found = unoic_cli.fit_temperature(z, labels, source_prior=prior.tolist())
    if found.how == "held":
        return
    (a, lam), errors = expected_of(z, labels, prior)
    if found.at_bound is None:
        assert found.a == pytest.approx(a, rel=TOLERANCE)
        assert found.lam == pytest.approx(lam, rel=TOLERANCE, abs=TOLERANCE)
        assert (found.se_a, found.se_lam) == pytest.approx(tuple(errors), rel=1e-4)
    rows, truth = kept(z, labels)
    mix = np.log(naive.mix(truth, n_classes) * n_classes)
    for figures, scores in (
        (found.before, rows),
        (found.given, rows + slopes_of(prior) + mix),
        (found.after, found.a * rows + found.lam * slopes_of(prior) + mix),
    ):
        p = naive.softmax(scores)
        assert figures.nll == pytest.approx(naive.nll(p, truth), rel=1e-9, abs=1e-10)
        assert figures.acc == (p.argmax(axis=1) == truth).mean()
        assert figures.ece == pytest.approx(naive.ece(p, truth), abs=1e-9)
    assert found.reads <= 8


def test_twenty_problems_against_scipy():
    optimize = pytest.importorskip("scipy.optimize")
    for seed in range(20):
        z, labels, prior = world(seed, 60 + 40 * seed, 2 + seed, scale=[0.3, 1, 4][seed % 3], ignored=False)
        problem = (*kept(z, labels), slopes_of(prior), np.full(len(prior), 1 / len(prior)))
        parts = [lambda x, i=i, problem=problem: naive.joint(*problem, *x)[i] for i in range(3)]
        best = optimize.minimize(
            parts[0], (1.0, 1.0), jac=parts[1], hess=parts[2], method="trust-exact", options={"gtol": 1e-9}
        )
        found = unoic_cli.fit_temperature(z, labels, source_prior=prior.tolist())
        assert (found.a, found.lam) == pytest.approx(tuple(best.x), rel=TOLERANCE, abs=TOLERANCE), seed


@pytest.mark.parametrize("seed", range(5))
def test_a_fit_in_memory_finds_the_same(seed):
    z, labels, prior = world(seed, 400, 6, ignored=False)
    found = unoic_cli.fit_temperature(z, labels, source_prior=prior.tolist())
    shifted = z - z.max(axis=1, keepdims=True)
    other = joint.fit(shifted, labels.astype(np.int64), slopes_of(prior), np.full(6, 1 / 6))
    assert (found.a, found.lam) == pytest.approx((other.a, other.lam), rel=TOLERANCE)
    assert (found.se_a, found.se_lam) == pytest.approx((other.se_a, other.se_lam), rel=1e-4)


def test_a_prior_mismatch_is_not_taken_for_overconfidence():
    """Scores that are calibrated for their own prior, where the labels are uniform."""
    rng = np.random.default_rng(0)
    prior = np.array([0.9, 0.08, 0.02])
    labels = rng.integers(0, 3, 20000)
    z = rng.normal(size=(20000, 3)) + np.eye(3)[labels] + np.log(prior)
    together = unoic_cli.fit_temperature(z, labels, source_prior=prior.tolist())
    alone = unoic_cli.fit_temperature(z, labels, source_prior=prior.tolist(), alone=True)
    assert together.temperature == pytest.approx(1, abs=0.05) and together.lam == pytest.approx(1, abs=0.05)
    assert alone.temperature > 1.5 and any("overconfidence" in note for note in alone.notes)
    assert together.nll_after < alone.nll_after
    assert together.ece_after < 0.01 < alone.ece_after


@pytest.mark.skipif(not DATA.exists(), reason="the real logits are not here")
@pytest.mark.parametrize(
    ("name", "together", "alone"),
    [("agnews_gpt2", 0.49, 1.35), ("sst2_gpt2", 0.39, 1.81), ("sst2_gpt2_4shot", 0.20, 2.77)],
)
def test_language_models_are_too_timid(name, together, alone):
    with np.load(DATA / f"{name}.npz") as stored:
        source = unoic_cli.from_arrays(stored["logits"], stored["labels"], split=stored["split"])
    options = {"split": "val", "source_prior": "mean-posterior"}
    assert unoic_cli.fit_temperature(source, **options).temperature == pytest.approx(together, abs=0.005)
    assert unoic_cli.fit_temperature(source, **options, alone=True).temperature == pytest.approx(alone, abs=0.005)


# ---------------------------------------------------------------- the sums


def run(tally, *sources, spans=None, n_threads=1):
    sweep(open_dataset(sources), [tally], spans=spans, n_threads=n_threads)
    return tally


def source_of(z, labels, layout="rows", **more):
    if layout == "planes":
        z = np.moveaxis(z, -1, 1)
    return arrays.describe(z, labels, class_axis=1 if z.ndim == 2 or layout == "planes" else -1, **more)


@pytest.mark.kernel
@several
@given(
    st.integers(0, 99),
    st.integers(1, 12),
    st.integers(3, 20),
    st.sampled_from(["float16", "float32", "float64"]),
    st.sampled_from([(), (2, 3)]),
    st.sampled_from(["rows", "planes"]),
    st.sampled_from([0.01, 1.0, 40.0]),
    st.booleans(),
)
def test_sums_are_those_of_plain_numpy(seed, n, n_classes, dtype, image, layout, scale, masks):
    z, labels, _ = world(seed, n + 1, n_classes, image=image, dtype=dtype, scale=scale)
    rng = np.random.default_rng(seed)
    delta = rng.uniform(0.1, 2, labels.shape) if seed % 2 else None
    masked = (np.arange(n_classes) == 2) & masks
    feature, betas = 3 * rng.normal(size=n_classes), [0.02, 1.0, 7.0]
    biases = rng.normal(size=(3, n_classes)) * [[0], [3], [30]]
    tally = run(LikelihoodTally(n_classes, betas, biases, feature, masked), source_of(z, labels, layout, delta=delta))
    rows, truth = kept(z, labels, 1.0 if delta is None else delta)
    assert tally.n_left_out == masked[truth].sum()
    rows, truth = rows[~masked[truth]], truth[~masked[truth]]
    assert tally.support.tolist() == np.bincount(truth, minlength=n_classes).tolist()
    seen = ~masked
    for j, beta in enumerate(betas):
        found = tally.at(j)
        theta = np.where(seen, beta * rows + biases[j], -np.inf)
        p = naive.softmax(theta)
        top = theta.max(axis=1)
        nll = (np.log(np.exp(theta - top[:, None]).sum(axis=1)) + top - theta[np.arange(len(truth)), truth]).mean()
        features = np.stack([rows, np.broadcast_to(feature, rows.shape)])
        means = (p * features).sum(axis=2)
        gradient = (means - features[:, np.arange(len(truth)), truth]).mean(axis=1)
        away = features - means[:, :, None]
        hessian = np.einsum("nk,ank,bnk->ab", p, away, away) / len(truth)
        large = 1 + np.abs(rows).max()
        assert found.nll == pytest.approx(nll, rel=1e-10, abs=1e-11 * large)
        assert (found.slope, found.tilt) == pytest.approx(tuple(gradient), rel=1e-8, abs=1e-10 * large / beta)
        wanted = (hessian[0, 0], hessian[0, 1], hessian[1, 1])
        assert (found.curvature, found.cross, found.bend) == pytest.approx(wanted, rel=1e-7, abs=1e-9 * large / beta**2)


# ---------------------------------------------------------------- no split shows


@several
@given(st.integers(0, 99), st.lists(st.integers(1, 63), max_size=6), st.integers(1, 4))
def test_spans_and_threads_never_change_a_sum(seed, edges, n_threads):
    z, labels, _ = world(seed, 9, 3, image=(2, 4), dtype="float32")
    source = source_of(z, labels, "planes")
    at = sorted({0, source.n_units, *(source.n_units * edge // 64 for edge in edges)})
    spans = [Span(source, a, b) for a, b in itertools.pairwise(at)]
    tally = LikelihoodTally(3, [0.3, 1.0], np.array([[0, 0, 0], [0, 1, -1.0]]), np.array([0.0, 2.0, -1.0]))
    some, whole = run(tally.fresh(), source, spans=spans, n_threads=n_threads), run(tally.fresh(), source)
    assert some.curve() == whole.curve()
    assert [some.ece(0), some.accuracy(0)] == [whole.ece(0), whole.accuracy(0)]


def write(path, z, labels, **more):
    with h5py.File(path, "w") as file:
        for name, values in {"logits": z, "labels": labels, **more}.items():
            file[name] = values
        if np.ndim(z) == 4 and np.shape(z)[:-1] == np.shape(labels):
            file["logits"].attrs["class_axis"] = -1
    return str(path)


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """What the command prints for some files, apart from their names."""
    monkeypatch.chdir(tmp_path)

    def runner(*args, command="fit-temperature"):
        assert cli.run([command, *map(str, args)]) == 0
        found = json.loads(capsys.readouterr().out)
        found.pop("files", None)
        if "calibration" in found:
            del found["calibration"]["provenance"]["files"]
        return json.dumps(found)

    return runner


PRIOR = ("--source-prior", "5,4,1,1")


def test_threads_files_layouts_and_chunks_never_change_a_byte(shown):
    z, labels, _ = world(7, 60, 4, image=(20, 30), dtype="float32")
    delta = np.random.default_rng(1).uniform(0.5, 1.5, labels.shape)
    planes = np.ascontiguousarray(np.moveaxis(z, -1, 1))
    whole = shown(write("rows.h5", z, labels, delta=delta), *PRIOR)
    assert shown("rows.h5", *PRIOR, "--threads", 4) == whole
    assert shown(write("planes.h5", planes, labels, delta=delta), *PRIOR, "--threads", 3) == whole
    parts = [
        write(f"{i}.h5", planes[a:b], labels[a:b], delta=delta[a:b]) for i, (a, b) in enumerate([(0, 13), (13, 60)])
    ]
    assert shown(*parts[::-1], *PRIOR) == whole
    with h5py.File("chunks.h5", "w") as file:
        file.create_dataset("logits", data=planes, chunks=(7, 4, 11, 13), compression="gzip")
        file["labels"], file["delta"] = labels, delta
    assert shown("chunks.h5", *PRIOR) == whole


def test_shards_report_what_one_run_does(shown, tmp_path, capsys):
    z, labels, _ = world(8, 300, 4)
    write("x.h5", z, labels)
    whole, after = shown("x.h5", *PRIOR), []
    for turn in range(9):
        states = [f"{turn}-{i}.unoic" for i in (1, 2, 3)]
        for i, state in enumerate(states):
            assert cli.run(["fit-temperature", "x.h5", *PRIOR, "--shard", f"{i + 1}/3", "--state", state, *after]) == 0
        assert cli.run(["merge", *states, "-o", f"{turn}.unoic"]) == 0
        capsys.readouterr()
        if cli.run(["report", f"{turn}.unoic"]) == 0:
            break
        capsys.readouterr()
        after = ["--after", f"{turn}.unoic"]
    found = json.loads(capsys.readouterr().out)
    del found["files"], found["calibration"]["provenance"]["files"]
    assert json.dumps(found) == whole
    assert turn + 1 == found["reads"]


# ---------------------------------------------------------------- a given calibration


def given_calibration(lam=0.8, temperature=1.3, prior=(6, 3, 2, 1), order="flatten-first", **more):
    source = Prior.from_weights(prior, "test", counts=True)
    modality = Modality(None, source, temperature, **more)
    return Calibration(lam, Prior.uniform(len(prior)), (modality,), order=order)


def along(z, labels, base, delta, a):
    """The penalised likelihood of a with lambda * T as it is."""
    one = base.modalities[0]
    s, mu = make_slopes(one.source_prior, base.target_prior).values, base.lam * one.temperature
    offsets = np.zeros(len(s)) if one.offsets is None else np.array(one.offsets)
    rows, truth = kept(z, labels, np.ones(labels.shape))
    factors = np.ones(len(rows)) if delta is None else delta.ravel()[labels.ravel() >= 0]
    added = mu * s + one.temperature * offsets
    scores = factors[:, None] * rows + (factors[:, None] if base.order == "rebalance-first" else 1) * added
    shift = np.log(naive.mix(truth, len(s))) - np.log(base.target_prior.values)
    nll = naive.nll(naive.softmax(a * scores + shift), truth)
    return len(truth) * nll + ((a - 1) ** 2 + (mu * a - 1) ** 2) / 2, nll


@pytest.mark.parametrize("order", ["flatten-first", "rebalance-first"])
@pytest.mark.parametrize("offsets", [None, (0.5, -1.0, 0.0, 0.5)])
@pytest.mark.parametrize("lam", [0.8, -0.3, 0.0])
def test_along_the_line_of_a_calibration_predictions_stay(order, offsets, lam):
    z, labels, _ = world(9, 2000, 4)
    delta = np.random.default_rng(0).uniform(0.3, 1.6, labels.shape)
    base = given_calibration(lam, order=order, offsets=offsets)
    source = source_of(z, labels, delta=delta)
    found = unoic_cli.fit_temperature(source, calibration=base)
    made = found.calibration
    assert made.lam * made.temperature == pytest.approx(lam * 1.3, rel=1e-14)
    value, nll = along(z, labels, base, delta, found.a)
    assert found.nll_after == pytest.approx(nll, rel=1e-9)
    assert found.given.nll == pytest.approx(along(z, labels, base, delta, 1 / 1.3)[1], rel=1e-9)
    assert value < min(along(z, labels, base, delta, found.a * factor)[0] for factor in (0.999, 1.001))
    before, after = (unoic_cli.evaluate(source, calibration=c, confusion=True) for c in (base, made))
    assert np.array_equal(before.confusion, after.confusion)
    assert found.how == "along"
    assert found.se_lam == pytest.approx(abs(lam * 1.3) * found.se_a, rel=1e-12)


def test_the_temperature_of_a_calibration_does_not_matter():
    z, labels, _ = world(10, 500, 4)
    one, other = (given_calibration(lam, t) for lam, t in ((0.8, 1.0), (0.2, 4.0)))
    found = [unoic_cli.fit_temperature(z, labels, calibration=c) for c in (one, other)]
    assert found[0].temperature == pytest.approx(found[1].temperature, rel=TOLERANCE)
    assert found[0].lam == pytest.approx(found[1].lam, rel=TOLERANCE)


# ---------------------------------------------------------------- what cannot be told


def test_priors_that_say_nothing_hold_lambda_at_zero():
    z, labels, _ = world(11, 500, 4)
    found = unoic_cli.fit_temperature(z, labels, source_prior=[100, 101, 100, 99])
    assert (found.how, found.lam, found.se_lam) == ("held", 0.0, None)
    assert any("held at 0" in note for note in found.notes)
    rows, truth = kept(z, labels)
    mix = np.log(naive.mix(truth, 4))
    values = [
        len(truth) * naive.nll(naive.softmax(a * rows + mix), truth) + (a - 1) ** 2 / 2
        for a in (found.a, found.a * 0.999, found.a * 1.001)
    ]
    assert values[0] == min(values)


def test_classes_that_are_separated_are_bounded_by_the_penalty():
    z = np.array([[2, 0, 0], [0, 1, 0], [0, 0, 3]] * 20, "f4")
    labels = np.array([0, 1, 2] * 20)
    found = unoic_cli.fit_temperature(z, labels, source_prior=[3, 2, 1])
    (a, lam), _ = naive.joint_fit(z.astype(float), labels, slopes_of([3, 2, 1]), np.full(3, 1 / 3))
    assert (found.a, found.lam) == pytest.approx((a, lam), rel=TOLERANCE)
    assert found.at_bound is None and found.after.acc == 1.0
    assert any("as good as separated" in note and "penalty" in note for note in found.notes)


def test_scores_that_say_the_contrary_end_at_the_bound():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    found = unoic_cli.fit_temperature(
        -5 * np.eye(3)[labels] + rng.normal(size=(400, 3)), labels, source_prior=[3, 2, 1]
    )
    assert (found.temperature, found.at_bound, found.se_a) == (100.0, "upper", None)
    assert found.se_lam is not None
    assert any("hardly tell the classes apart" in note for note in found.notes)


@pytest.mark.parametrize("z", [np.zeros((3, 4), "f4"), 1e30 * np.eye(3, dtype="f4")])
def test_a_likelihood_that_does_not_change_leaves_the_scores_alone(z):
    found = unoic_cli.fit_temperature(z, [0, 1, 2], source_prior=[*range(1, z.shape[1] + 1)])
    assert found.temperature == 1.0
    assert any("the same at every temperature" in note for note in found.notes)


def test_classes_that_are_never_predicted_take_no_part():
    z, labels, prior = world(12, 600, 4, ignored=False)
    given_prior = [*prior[:3].tolist(), 0.0]
    found = unoic_cli.fit_temperature(z, labels, source_prior=given_prior)
    some = labels != 3
    fewer = unoic_cli.fit_temperature(
        z[some][:, :3], labels[some], source_prior=prior[:3].tolist(), target_prior="uniform"
    )
    assert (found.a, found.lam) == pytest.approx((fewer.a, fewer.lam), rel=1e-9)
    assert (found.n, found.n_left_out) == (some.sum(), (~some).sum())
    assert any("left out of the fit" in note for note in found.notes)
    with pytest.raises(DataError, match="no labelled unit of a class that can be predicted"):
        unoic_cli.fit_temperature(z[~some], labels[~some], source_prior=given_prior)


@pytest.mark.parametrize(
    ("z", "labels"),
    [
        ([[1.5, 0.0]], [0]),
        ([[1.0, 0.0], [0.0, 2.0], [1.0, 0.5]], [0, 0, 0]),
        ([[1.0, 0.0, 2.0, 1.0, 0.0]] * 2, [0, 4]),
        ([[6e4, -6e4], [-6e4, 6e4], [6e4, -6e4]], [0, 1, 1]),
    ],
)
def test_few_rows_are_fitted_all_the_same(z, labels):
    prior = np.arange(1, len(z[0]) + 1.0)
    found = unoic_cli.fit_temperature(np.array(z), np.array(labels), source_prior=prior.tolist())
    if found.at_bound is None:
        (a, lam), _ = naive.joint_fit(
            np.array(z), np.array(labels), slopes_of(prior), np.full(len(prior), 1 / len(prior))
        )
        assert (found.a, found.lam) == pytest.approx((a, lam), rel=1e-5, abs=1e-5)
    assert all(math.isfinite(x) for x in (found.lam, found.nll_after, found.ece_after))


# ---------------------------------------------------------------- the descent by itself


def descended(value, first, bounds):
    """The minimum of a function that tells value, slope and Hessian, and the number of reads."""
    reads = []

    def look(asked):
        reads.append(asked)
        yield
        return [Place(at, *value(*at)) for at in asked]

    steps = descend(first, bounds, look)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, reads


@pytest.mark.parametrize("low", [0.02, 0.3, 1.0, 7.0, 300.0])
def test_descent_of_one_number(low):
    def value(x):
        return 50 * (x / low - math.log(x)), (50 / low - 50 / x,), ((50 / x / x,),)

    bounds = Bounds(0.01, 1.0, 1e-6)
    best, reads = descended(value, [(1.0,), (0.5,), (2.0,)], bounds)
    assert best.at[0] == pytest.approx(low, rel=1e-6)
    assert size(best, step(best, bounds)) <= 5e-7
    assert len(reads) <= 12
    assert all(at[0] >= 0.01 for asked in reads for at in asked)


def test_descent_ends_at_the_least():
    best, _ = descended(lambda x: (x, (1.0,), ((1e-3,),)), [(1.0,)], Bounds(0.01, 1.0, 1e-6))
    assert best.at == (0.01,)
