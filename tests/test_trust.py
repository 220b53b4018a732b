"""Warnings before harm, gains with intervals, offsets that are fitted, probabilities: what a search says of itself."""

from __future__ import annotations

import json

import h5py
import naive
import numpy as np
import pytest

import unoic_cli
from unoic_cli import calibrate, evaluate, search_lambda
from unoic_cli.errors import DataError, UsageError
from unoic_cli.searches.warnings import flips_differ
from unoic_cli.tallies.margins import EDGES

K = 5


def made(seed=0, n=1500, carried=True, shift=0.0, prior=None):
    """Scores of a classifier trained on a long tail, and labels that are nearly balanced."""
    rng = np.random.default_rng(seed)
    prior = 0.5 ** np.arange(K) if prior is None else np.asarray(prior)
    prior = prior / prior.sum()
    centres = np.random.default_rng(99).normal(size=(K, 6))
    y = rng.integers(0, K, n)
    x = centres[y] + rng.normal(size=(n, 6)) * 1.1 + shift
    z = x @ centres.T - (centres**2).sum(1) / 2 + (np.log(prior) if carried else 0)
    return z.astype(np.float32), y, prior


def write(path, z, y, prior, **more):
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"], file["class_counts"] = z, y.astype("i4"), np.round(prior * 10000)
        for name, value in more.items():
            file[name] = value
    return str(path)


def codes(result):
    return [one["code"] for one in result.warnings]


def test_logits_without_the_prior_are_told():
    z, y, prior = made(carried=False)
    assert "W3" in codes(search_lambda(z, y, source_prior=prior))
    z, y, prior = made()
    assert "W3" not in codes(search_lambda(z, y, source_prior=prior))


def test_few_rows_of_a_class_and_gains_by_chance_are_told():
    z, y, prior = made(n=400)
    some = (y != 2) | (np.cumsum(y == 2) <= 3)
    result = search_lambda(z[some], y[some], source_prior=prior)
    found = next(one for one in result.warnings if one["code"] == "W4")
    assert found["classes"] == [2] and "class 2" in found["text"]


def test_the_price_is_told_and_forbidden():
    rng = np.random.default_rng(3)
    z, y, prior = made(n=3000)
    kept = rng.random(y.size) < prior[y] / prior.max()  # labels as rare as in training: accuracy must fall
    result = search_lambda(z[kept], y[kept], source_prior=prior)
    price = next(one for one in result.warnings if one["code"] == "W5")
    assert price["acc"]["interval"][1] < 0 and "acc>=base" in price["text"]
    bound = search_lambda(z[kept], y[kept], source_prior=prior, subject_to="acc>=base")
    assert bound.best["acc"] >= bound.baseline["acc"] and "acc" not in str(bound.warnings)


def test_tuning_on_all_splits_is_told(tmp_path):
    z, y, prior = made(n=200)
    path = write(tmp_path / "a.h5", z, y, prior, split=[b"val", b"test"] * 100)
    assert "splits" in codes(search_lambda(path))
    assert "splits" not in codes(search_lambda(path, split="val"))


def test_other_data_whose_margins_differ_is_told(tmp_path):
    """Of another class mix alone nothing is said: margins are weighted to it."""
    z, y, prior = made(n=3000)
    calibrate(write(tmp_path / "val.h5", z, y, prior), output=str(tmp_path / "o.h5"))
    tuned = str(tmp_path / "o.calibration.json")
    z, y, _ = made(seed=5, n=6000)
    kept = np.random.default_rng(0).random(y.size) < prior[y] / prior.max()
    shifted = write(tmp_path / "shifted.h5", z[kept], y[kept], prior)
    blurred = write(tmp_path / "blurred.h5", 0.6 * z[kept], y[kept], prior)
    out = {"output": str(tmp_path / "x.h5"), "force": True}
    assert codes(evaluate(shifted, calibration=tuned)) == codes(calibrate(shifted, calibration=tuned, **out)) == []
    for result in (evaluate(blurred, calibration=tuned), calibrate(blurred, calibration=tuned, **out)):
        (told,) = [one for one in result.warnings if one["code"] == "W2"]
        assert told["ks"] > 0.1 and "class mix of this data" in told["text"]
    mix = (np.bincount(y[kept], minlength=K) / kept.sum()).tolist()
    for factor, expected in ((1.0, []), (0.6, ["W2"])):
        path = tmp_path / f"unlabelled{factor}.h5"
        with h5py.File(path, "w") as file:
            file["logits"] = factor * z[kept]
        assert codes(calibrate(str(path), calibration=tuned, **out)) == []  # of a mix that nobody tells
        assert codes(calibrate(str(path), calibration=tuned, target_prior=mix, **out)) == expected
    with pytest.raises(DataError, match="W2"):
        evaluate(blurred, calibration=tuned, strict=True)


def test_margins_are_compared_in_bins_as_weighted_samples_are(tmp_path):
    z, y, prior = made(n=900)
    found = search_lambda(write(tmp_path / "val.h5", z, y, prior)).calibration
    other, labels, _ = made(seed=3, n=700)
    other = other * np.float32(0.5)
    mix, pi = (np.bincount(one, minlength=K) / one.size for one in (labels, y))
    s = naive.slopes(prior, np.ones(K))
    ours, theirs = (np.sort(one + found.lam * s, axis=1) for one in (z, other))
    ours, theirs = ((one[:, -1] - one[:, -2]) for one in (ours, theirs))
    bins = [np.searchsorted(EDGES, one).astype(float) for one in (ours, theirs)]
    told = next(one for one in evaluate(other, labels, calibration=found).warnings if one["code"] == "W2")
    weights = (mix / pi)[y]
    assert told["ks"] == pytest.approx(naive.weighted_ks(bins[0], weights, bins[1]), abs=1e-9)
    sure = weights.sum() ** 2 / (weights**2).sum()
    assert told["n_eff"] == pytest.approx(sure * 700 / (sure + 700), rel=1e-9)
    assert told["ks"] <= naive.weighted_ks(ours, weights, theirs)


def test_margins_of_every_form_and_split(tmp_path, run):
    """Fused scores, images and shards: what is remembered and what is seen are the same."""
    rng = np.random.default_rng(2)
    z, y, prior = made(n=40 * 12)
    y = y.reshape(40, 3, 4)
    for name, noise in (("a", 0.1), ("b", 0.4)):
        one = (z + rng.normal(size=z.shape) * noise).astype("f4").reshape(40, 12, K).transpose(0, 2, 1)
        write(tmp_path / f"{name}.h5", one.reshape(40, K, 3, 4), y, prior)
        write(tmp_path / f"{name}.blurred.h5", 0.3 * one.reshape(40, K, 3, 4), y, prior)
    for how in ("noisy-or", "product"):
        c = tmp_path / f"{how}.json"
        pair = [f"{name}={tmp_path / name}.h5" for name in "ab"]
        assert run("search-lambda", *pair, "--fusion", how, "--cluster", "unit", "-o", c)[0] == 0
        margins = np.array([sum(one) for one in json.loads(c.read_text())["tuning"]["margins"]])
        assert margins.tolist() == np.bincount(y.ravel(), minlength=K).tolist()
        blurred = [f"{name}={tmp_path / name}.blurred.h5" for name in "ab"]
        for inputs, expected in ((pair, []), (blurred, ["W2"])):
            whole = run("evaluate", *inputs, "-c", c, "--cluster", "unit")
            seen = [one["code"] for one in json.loads(whole[1])["warnings"] if one["code"] == "W2"]
            assert (whole[0], seen) == (0, expected)
            states = [tmp_path / f"{i}.u" for i in (1, 2)]
            for i, state in enumerate(states, 1):
                given = "--shard", f"{i}/2", "--state", state, "--force"
                assert run("evaluate", *inputs, "-c", c, "--cluster", "unit", *given)[0] == 0
            assert run("merge", *states, "-o", tmp_path / "all.u", "--force")[0] == 0
            assert run("report", tmp_path / "all.u")[1] == whole[1]


def test_margins_that_cannot_be_are_refused(tmp_path):
    z, y, prior = made(n=200)
    stored = search_lambda(z, y, source_prior=prior).calibration.to_dict()
    margins = stored["tuning"]["margins"]
    for wrong in (margins[:-1], [[1], *margins[1:]], [[-1, *margins[0][1:]], *margins[1:]], [[0] * 40, *margins[1:]]):
        path = tmp_path / "c.json"
        path.write_text(json.dumps({**stored, "tuning": {**stored["tuning"], "margins": wrong}}))
        with pytest.raises(DataError, match="margins"):
            evaluate(z, y, calibration=str(path))


def test_other_data_that_changes_more_is_told(tmp_path):
    z, y, prior = made()
    path = write(tmp_path / "val.h5", z, y, prior)
    found = search_lambda(path).calibration
    assert found.tuning is not None and found.tuning.counts == tuple(np.bincount(y).tolist())
    same = calibrate(write(tmp_path / "same.h5", *made(1)), calibration=found, output=str(tmp_path / "o.h5"))
    assert codes(same) == []
    other = write(tmp_path / "other.h5", 12 * made(1)[0], y, prior)  # surer by far: lambda hardly changes anything
    told = calibrate(other, calibration=found, output=str(tmp_path / "p.h5"))
    assert codes(told) == ["W1", "W2"] and told.warnings[0]["here"] < told.warnings[0]["tuned"] / 2
    with pytest.raises(DataError, match="W1"):
        calibrate(other, calibration=found, output=str(tmp_path / "q.h5"), strict=True)
    assert not (tmp_path / "q.h5").exists()
    assert evaluate(str(tmp_path / "same.h5"), calibration=found).warnings == []
    assert [one["code"] for one in evaluate(other, calibration=found).warnings] == ["W1", "W2"]
    with pytest.raises(DataError, match="W1"):
        evaluate(other, calibration=found, strict=True)


def test_strict_writes_nothing(tmp_path, run):
    z, y, prior = made(carried=False)
    path, out = write(tmp_path / "a.h5", z, y, prior), tmp_path / "c.json"
    code, shown, err = run("search-lambda", path, "-o", out, "--strict")
    assert code == 65 and not shown and not out.exists()
    assert err.splitlines()[-1].startswith(f"unoic: error: {path}: W3: ")


def test_flips_are_compared_by_ratio_size_and_chance():
    assert flips_differ((10, 1000), (100, 1000))
    assert not flips_differ((10, 1000), (19, 1000))
    assert not flips_differ((0, 1000), (4, 1000))
    assert not flips_differ((0, 0), (400, 1000))
    assert not flips_differ((1, 10), (3, 10))


def test_probabilities_of_calibrate_are_those_of_the_joint_fit(tmp_path):
    z, y, prior = made(n=4000)
    path = write(tmp_path / "val.h5", 3 * z, y, prior)
    result = calibrate(path, output=str(tmp_path / "o.h5"))
    searched = search_lambda(path)
    a = searched.choice["a"]
    assert result.calibration.temperature == pytest.approx(1 / a) and 0.2 < a < 0.5
    assert result.calibration.lam == pytest.approx(a * searched.lam)
    assert result.population == "posterior for the target prior uniform"
    before, after = (
        evaluate(where, metrics="nll,ece", **how).overall.values
        for where, how in ((path, {"lam": searched.lam}), (str(tmp_path / "o.h5"), {}))
    )
    assert after["nll"] < before["nll"] and after["ece"] < before["ece"] / 2
    with h5py.File(tmp_path / "o.h5") as file:
        assert np.array_equal(file["predictions"][:], (3 * z + searched.lam * -np.log(prior * K)).argmax(1))


def test_offsets_are_fitted_beside_lambda(tmp_path):
    z, y, prior = made(n=3000)
    z += np.array([0, 1.2, -0.8, 0.5, 0], dtype=np.float32)  # what no single lambda can mend
    path = write(tmp_path / "val.h5", z, y, prior)
    result = search_lambda(path, offsets="fit")
    assert result.offsets is not None
    assert result.offsets.best["macc"] > result.best["macc"] + 0.005
    offsets = np.array(result.calibration.modalities[0].offsets)
    s = -np.log(K) - np.log(np.round(prior * 10000) / np.round(prior * 10000).sum())
    hits = (z.astype(float) + offsets + result.lam * s).argmax(1) == y
    assert result.offsets.best["acc"] == pytest.approx(hits.mean(), abs=1e-12)
    assert evaluate(path, calibration=result.calibration).overall.values["acc"] == result.offsets.best["acc"]
    gain = result.offsets.gain["macc"]
    assert gain.low < gain.gain < gain.high
    with pytest.raises(UsageError, match="beside --lambda"):
        search_lambda(path, offsets="fit", lam=1)
    few = (y != 3) | (np.cumsum(y == 3) <= 19)
    with pytest.raises(DataError, match="19 labelled units of class 3"):
        search_lambda(z[few], y[few], source_prior=prior, offsets="fit")
    fitted = calibrate(path, offsets="fit", output=str(tmp_path / "o.h5"))
    assert "offsets" in str(fitted.after_is) and fitted.calibration.modalities[0].offsets is not None


@pytest.mark.parametrize("metric", ["macc", "miou", "acc", "gmean", "recall[4]", "top2"])
def test_threads_files_and_layouts_choose_the_same(tmp_path, metric):
    z, y, prior = made(n=1200)
    whole = write(tmp_path / "a.h5", z, y, prior)
    parts = [write(tmp_path / f"p{i}.h5", z[i * 400 :][:400], y[i * 400 :][:400], prior) for i in range(3)]
    expected = search_lambda(whole, metric=metric, threads=1).to_dict()
    for given, threads in ((whole, 3), (parts, 2)):
        found = search_lambda(given, metric=metric, threads=threads).to_dict()
        for key in ("lambda", "choice", "gain", "warnings", "best"):
            assert json.dumps(found[key]) == json.dumps(expected[key]), key
    in_memory = search_lambda(z, y, source_prior=np.round(prior * 10000), metric=metric)
    assert in_memory.lam == expected["lambda"] and in_memory.gain["acc"].to_dict() == expected["gain"]["acc"]


def test_shards_choose_the_same(tmp_path, run):
    z, y, prior = made(n=1200)
    path = write(tmp_path / "a.h5", z, y, prior)
    states = [tmp_path / f"{i}.u" for i in (1, 2, 3)]
    for i, state in enumerate(states, 1):
        assert run("search-lambda", path, "--shard", f"{i}/3", "--state", state)[0] == 0
    assert run("merge", *states, "-o", tmp_path / "all.u")[0] == 0
    code, shown, err = run("report", tmp_path / "all.u")
    assert code == 0, err
    assert shown == run("search-lambda", path)[1]


def test_large_data_keeps_a_sample_and_agrees_with_all_of_it(monkeypatch):
    z, y, prior = made(n=40_000)
    exact = search_lambda(z, y, source_prior=prior, metric="miou")
    assert exact.choice["kept"] == exact.choice["of"] == 40_000
    monkeypatch.setattr("unoic_cli.tallies.kept.MOST_BYTES", 1 << 17)
    sampled = search_lambda(z, y, source_prior=prior, metric="miou")
    assert 3000 < sampled.choice["kept"] < 7000 and sampled.choice["of"] == 40_000
    assert sampled.lam == pytest.approx(exact.lam, abs=0.15)
    for name, one in sampled.gain.items():
        assert one.gain == pytest.approx(exact.gain[name].gain, abs=0.01)
        assert one.se == pytest.approx(exact.gain[name].se, rel=0.25)


def test_images_are_clusters():
    rng = np.random.default_rng(5)
    z, y, prior = made(n=60 * 36)
    images = rng.permutation(60)
    z = z.reshape(60, 36, K)[images].transpose(0, 2, 1).reshape(60, K, 6, 6)
    y = y.reshape(60, 36)[images].reshape(60, 6, 6)
    alike = np.repeat(np.repeat(z[:, :, :3, :3], 2, 2), 2, 3), np.repeat(np.repeat(y[:, :3, :3], 2, 1), 2, 2)
    by_image = search_lambda(*alike, source_prior=prior)
    by_unit = search_lambda(*alike, source_prior=prior, cluster="unit")
    assert by_image.choice["clusters"] == "image" and by_unit.choice["clusters"] == "unit"
    assert by_image.gain["macc"].se > 1.5 * by_unit.gain["macc"].se


@pytest.mark.parametrize(
    ("z", "y", "prior"),
    [
        (np.array([[1.5, 0.0]]), [0], [0.9, 0.1]),  # one row
        (np.array([[1.0, 0.0], [0.2, 0.1]]), [1, 1], [0.9, 0.1]),  # one class
        (np.zeros((40, 3)), [0, 1] * 20, [0.8, 0.1, 0.1]),  # scores that say nothing
        (50 * np.eye(4)[[0, 1, 2, 3] * 10], [0, 1, 2, 3] * 10, [0.7, 0.1, 0.1, 0.1]),  # separable
        (np.random.default_rng(0).normal(size=(6, 30)), [0, 1, 2, 3, 4, 5], np.ones(30) + np.arange(30)),  # n < K
        (np.array([[0.0, -np.inf, 1], [0, 1, -np.inf]] * 9), [2, 0] * 9, [0.5, 0.2, 0.3]),  # impossible classes
        (np.full((4, 2), 1e30) * [1, -1], [0, 1, 0, 1], [0.9, 0.1]),  # weights that overflow
    ],
)
@pytest.mark.parametrize("metric", ["macc", "f1", "mcc"])
def test_poor_data_gives_a_finite_answer(z, y, prior, metric):
    if metric == "mcc" and len(set(y)) < 2:
        pytest.skip("it is 0 / 0 everywhere")
    result = search_lambda(np.asarray(z, dtype=np.float32), y, source_prior=prior, metric=metric)
    assert np.isfinite(result.lam)
    for one in result.gain.values():
        assert np.isfinite([one.gain, one.low, one.high]).all() and one.low <= one.gain <= one.high
    json.dumps(result.to_dict(), allow_nan=False)


def test_rules_and_clusters_that_make_no_sense_are_refused():
    z, y, prior = made(n=60)
    for how in ({"choose": "worst"}, {"choose": "best", "method": "paper"}, {"choose": "paper", "method": "grid"}):
        with pytest.raises(UsageError):
            search_lambda(z, y, source_prior=prior, **how)
    for cluster in ("image", "group", "pixel"):
        with pytest.raises((UsageError, DataError)):
            search_lambda(z, y, source_prior=prior, cluster=cluster)
    assert unoic_cli.search_lambda(z, y, source_prior=prior, choose="paper").choice["rule"] == "paper"
