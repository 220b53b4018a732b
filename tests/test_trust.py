"""Warnings before harm, gains with intervals, offsets that are fitted, probabilities: what a search says of itself."""

from __future__ import annotations

import json

import h5py
import naive
import numpy as np
import pytest

import unoic_cli
from unoic_cli import calibrate, evaluate, search_lambda
from unoic_cli.commands.search import about_lambda
from unoic_cli.data.folds import mix
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


def test_gains_are_crossed_with_the_constraints_and_the_rule_that_chose():
    """FAULT: the folds chose as if there were no constraint, so a choice was praised for another lambda's gain."""
    z, y, prior = made(n=3000)
    for more in (
        {"subject_to": "recall[0]>=base-0.03"},
        {"subject_to": "top2>=base-0.05 and acc>=0.3", "metric": "f1"},
    ):
        free = search_lambda(z, y, source_prior=prior, metric=more.get("metric", "macc"))
        bound = search_lambda(z, y, source_prior=prior, metrics="macc,top2", **more)
        name = more.get("metric", "macc")
        apparent = bound.best[name] - bound.baseline[name]
        assert bound.lam < free.lam or "top2" in str(more)
        assert bound.gain[name].gain == pytest.approx(apparent, abs=0.02)
    few, labels = z[:150], y[:150]
    gains = {
        how: search_lambda(few, labels, source_prior=prior, choose=how, range="0:6").gain["macc"].gain
        for how in ("best", "anchored")
    }
    s = naive.slopes(prior, np.ones(K))
    lams = np.round(np.arange(601) * 0.01, 2)
    sampled = search_lambda(few, labels, source_prior=prior, choose="best", range="0:6")
    recall = np.stack([[((few + lam * s).argmax(1) == labels)] for lam in lams])[:, 0]
    folds = crossed_folds(labels)
    fair = np.zeros(labels.size)
    for fold in range(5):
        out = folds == fold
        curve = np.array([np.mean([hit[~out & (labels == c)].mean() for c in range(K)]) for hit in recall])
        best = np.flatnonzero(curve >= curve.max() - 1e-12)
        runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
        first, last = min(((int(r[0]), int(r[-1])) for r in runs), key=lambda r: (r[0] - r[1], lams[sum(r) // 2]))
        fair[out] = recall[(first + last) // 2][out]
    macc = np.mean([fair[labels == c].mean() for c in range(K)])
    assert gains["best"] == pytest.approx(macc - sampled.baseline["macc"], abs=1e-9)


def crossed_folds(labels):
    """The folds of gains: of each class by a hash of the place."""
    key = mix(np.arange(labels.size, dtype=np.uint64))
    order = np.lexsort((key, labels))
    sizes = np.bincount(labels, minlength=K)
    ranks = np.arange(labels.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    found = np.empty(labels.size, dtype=int)
    found[order] = (ranks + labels[order]) % 5
    return found


@pytest.mark.parametrize("metric", ["acc", "miou", "f1", "kappa", "recall[1]"])
def test_where_nothing_depends_on_lambda_it_is_what_the_probabilities_say(metric):
    z, y = (60 * np.eye(4)[[0, 1, 2, 3] * 10]).astype("f4"), np.array([0, 1, 2, 3] * 10)
    result = search_lambda(z, y, source_prior=[0.7, 0.1, 0.1, 0.1], metric=metric)
    assert result.lam == result.choice["anchor"] == 1.0


def test_a_class_that_is_only_predicted_makes_no_price():
    """FAULT: one cross-fitted unit predicted as a class without labels was called a loss of twenty points."""
    rng = np.random.default_rng(11)
    for seed in range(6):
        z, y, prior = made(seed=seed, n=300)
        some = y != 4
        result = search_lambda(z[some], y[some], source_prior=prior + rng.uniform(0, 0.02, K))
        for price in (one for one in result.warnings if one["code"] == "W5"):
            for name in ("miou", "f1", "acc", "macc"):
                assert name not in price or result.best[name] < result.baseline[name]


def test_a_temperature_is_no_sign_that_the_prior_is_missing():
    z, y, prior = made(n=2000)
    z = 2.5 * z
    assert codes(search_lambda(z, y, source_prior=prior)) == codes(
        search_lambda(z, y, source_prior=prior, temperature=0.4)
    )
    assert "W3" not in codes(search_lambda(z, y, source_prior=prior, temperature=2.5))


def test_what_is_written_is_called_a_posterior_where_it_is_one(tmp_path):
    z, y, prior = made(n=1500)
    path, out = write(tmp_path / "a.h5", z, y, prior), str(tmp_path / "o.h5")
    assert calibrate(path, output=out).population == "posterior for the target prior uniform"
    told = calibrate(path, output=out, force=True, metric="recall[4]")
    fit = told.fitted.choice
    assert abs(told.calibration.lam - fit["fit"]) > 2 * fit["se_fit"]
    assert told.population.startswith("none is fitted") and any("no posterior" in note for note in told.notes)
    assert told.to_dict()["choice"] == fit and told.to_dict()["gain"]["macc"]["gain"] == told.fitted.gain["macc"].gain
    weights = calibrate(path, output=out, force=True, target_prior=[0.2] * K)
    assert weights.population == "posterior for the target prior that was given"


def test_as_it_is_has_no_temperature(tmp_path):
    """FAULT: probabilities before were those of the scores over the calibration's temperature."""
    z, y, prior = made(n=900)
    path = write(tmp_path / "a.h5", 3 * z, y, prior)
    calibrate(path, output=str(tmp_path / "o.h5"))
    plain = evaluate(path, metrics="nll,brier,ece").overall.values
    for given in ({"calibration": str(tmp_path / "o.calibration.json")}, {"lam": 0.5, "temperature": 3.0}):
        found = evaluate(path, metrics="nll,brier,ece", **given)
        assert {name: found.before.values[name] for name in ("nll", "brier", "ece")} == {
            name: plain[name] for name in ("nll", "brier", "ece")
        }
    for more in ({"metric": "nll", "range": "0:2:0.5"}, {"metric": "macc"}):
        result = search_lambda(path, temperature=3.0, metrics="nll", **more)
        assert result.baseline["nll"] == plain["nll"]


@pytest.mark.parametrize("how", ["noisy-or", "product", "bayes"])
def test_as_they_are_fused_scores_have_no_temperatures_and_offsets(tmp_path, how):
    z, y, prior = made(n=400)
    other = made(seed=7, n=400)[0]
    pair = {"a": write(tmp_path / "a.h5", z, y, prior), "b": write(tmp_path / "b.h5", other, y, prior)}
    plain = evaluate(pair, fusion=how, lam=0.0, metrics="acc,nll,brier").overall.values
    given = {"temperature": {"a": 2.0, "b": 0.5}, "offsets": {"a": [0.5, 0, 0, 0, -1.0]}}
    calibration = search_lambda(pair, fusion=how, metrics="nll,brier", **given)
    found = evaluate(pair, calibration=calibration.calibration, metrics="acc,nll,brier").before.values
    for name in ("acc", "nll", "brier"):
        assert found[name] == plain[name] == calibration.baseline[name]
    gain = calibration.gain["acc"]  # the kept scores hold the temperatures: no interval, and none of other scores
    assert gain.gain == calibration.best["acc"] - plain["acc"] and gain.to_dict()["interval"] is None


def test_what_decides_nothing_otherwise_gains_nothing():
    z, y, _ = made(n=60)
    equal = search_lambda(z, y, source_prior=[0.2] * K)
    assert equal.gain["macc"].to_dict() == {"gain": 0.0, "interval": [0.0, 0.0], "se": 0.0}
    rng = np.random.default_rng(0)
    for seed in range(20):
        z, y, _ = made(seed=seed, n=40, carried=False)
        result = search_lambda(z, y, source_prior=rng.dirichlet(np.full(K, 3.0)))
        if result.lam == 0:
            assert all(one.gain == one.se == 0 for one in result.gain.values())


def test_margins_of_classes_that_were_not_tuned_on_are_left_out():
    z, y, prior = made(n=2000)
    tuned = search_lambda(z[y != 4], y[y != 4], source_prior=prior).calibration
    z, y, _ = made(seed=3, n=2000)
    assert "W2" in codes(evaluate(0.5 * z, y, calibration=tuned))
    assert "W2" not in codes(evaluate(z, y, calibration=tuned))


def test_the_target_that_was_tuned_is_what_flips_are_of(tmp_path):
    z, y, prior = made(n=1500)
    path = write(tmp_path / "a.h5", z, y, prior)
    search_lambda(path, output=str(tmp_path / "c.json"))
    out = {"calibration": str(tmp_path / "c.json"), "output": str(tmp_path / "o.h5"), "force": True}
    near = (0.9 * prior + 0.1 / K).tolist()  # hardly anything is decided otherwise for it
    assert codes(calibrate(path, target_prior=near, **out)) == []
    assert codes(evaluate(path, calibration=str(tmp_path / "c.json"), target_prior=near)) == []


def test_classes_of_a_unit_or_two_leave_gains_unsure():
    """FAULT: units that move alike have no variance, and an interval without width was called sure."""
    rows = [[2.0, 1.9, -9, -9]] * 2 + [[3.0, 0, -9, -9]] * 40 + [[-9, -9, 3.0, -9]] * 20 + [[-9, -9, -9, 2.0]]
    y = np.array([1] * 2 + [0] * 40 + [2] * 20 + [3])
    found = evaluate(np.array(rows, np.float32), y, lam=1.0, source_prior=[0.7, 0.25, 0.04, 0.01]).to_dict()
    gain, (row,) = found["gain"]["macc"], found["changes"]
    assert gain["gain"] == 0.25 and 0.05 < gain["interval"][0] < 0.2
    assert (row["class"], row["support"], row["gain"]) == (1, 2, 1.0) and row["interval"][0] < 0.8
    same = evaluate(np.array(rows[2:], np.float32), y[2:], lam=1.0, source_prior=[0.7, 0.25, 0.04, 0.01]).to_dict()
    assert same["gain"]["macc"]["interval"] == [0.0, 0.0]  # nothing is decided otherwise


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


def test_shards_are_as_strict_as_the_whole(tmp_path, run):
    """FAULT: a state forgot --strict, and its report wrote what the whole run refuses."""
    z, y, prior = made(n=60)
    path, c = write(tmp_path / "a.h5", z, y, prior), tmp_path / "c.json"
    whole = run("search-lambda", path, "--strict", "-o", c)
    assert whole[0] == 65 and not c.exists()
    states = [tmp_path / f"{i}.u" for i in (1, 2)]
    for i, state in enumerate(states, 1):
        assert run("search-lambda", path, "--strict", "--shard", f"{i}/2", "--state", state)[0] == 0
    assert run("merge", *states, "-o", tmp_path / "all.u")[0] == 0
    code, out, err = run("report", tmp_path / "all.u", "-o", c)
    assert (code, out, err.splitlines()[-1]) == (65, "", whole[2].splitlines()[-1]) and not c.exists()


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
        assert np.isfinite(one.gain) and np.isfinite([one.low, one.high, one.se]).all() == (len(y) > 1)
        assert len(y) < 2 or one.low <= one.gain <= one.high
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


def test_labels_in_another_order_are_told():
    z, y, prior = made()
    shifted = (y + 1) % K
    found = next(one for one in search_lambda(z, shifted, source_prior=prior).warnings if one["code"] == "W7")
    labels, predicted = np.bincount(shifted, minlength=K), np.bincount(z.argmax(1), minlength=K)
    assert found["acc"] == (z.argmax(1) == shifted).mean()
    assert found["chance"] == pytest.approx(labels @ predicted / len(y) ** 2) and found["acc"] < found["chance"]
    assert "W7" in codes(evaluate(z, shifted)) and "W7" in codes(evaluate(z, shifted, lam=1.0, source_prior=prior))
    assert "W7" not in codes(search_lambda(z, y, source_prior=prior)) + codes(evaluate(z, y))
    chance = np.random.default_rng(1).permutation(y)
    assert "W7" not in codes(evaluate(z, chance)), "labels that are merely unlike"
    with pytest.raises(DataError, match="W7"):
        evaluate(z, shifted, strict=True)


def test_classes_without_labels_are_named():
    z, y, prior = made()
    some = (y != 2) & (y != 4)
    (said,) = [text for text in search_lambda(z[some], y[some], source_prior=prior).notes if "no labelled" in text]
    assert said.startswith("no labelled units of class 2, 4: mean class accuracy is of the other 3; mIoU and F1 are,")
    assert "(2, 4), which count 0 (--absent truth-only leaves them out)" in said
    for absent, how in (
        ("truth-only", "means over classes are of the other 3;"),
        ("zero", "mean class accuracy, mIoU and F1 count them as 0;"),
    ):
        (said,) = [
            text
            for text in search_lambda(z[some], y[some], source_prior=prior, absent=absent).notes
            if "no labelled" in text
        ]
        assert said.startswith(f"no labelled units of class 2, 4: {how}"), said
    found = search_lambda(z[some], y[some], source_prior=prior, ignore_index=[2, 4])
    assert not any("no labelled units" in text for text in found.notes)
    assert not any("no labelled units" in text for text in search_lambda(z, y, source_prior=prior).notes)


@pytest.mark.parametrize("absent", ["reference", "truth-only", "zero"])
def test_means_over_other_classes_after_than_before_are_told(absent, tmp_path):
    """A class without labels counts 0 in mIoU and F1 as soon as it is predicted: the numbers are those of the means."""
    z = np.array([[3.0, 1, 0], [3, 2.5, 0], [1, 3, 0], [2, 0, 1.9]])
    y, prior = [0, 0, 1, 0], [8, 4, 1]
    how = {"lam": 1.0, "source_prior": prior, "absent": absent}
    results = [
        evaluate(z, y, **how),
        search_lambda(z, y, **how),
        unoic_cli.calibrate(z, y, **how),
    ]
    results.append(unoic_cli.compare(z, y, methods={"as-is": "as-is", "one": results[1]}, absent=absent))
    after = results[0].overall
    assert np.array_equal(after.counts.predicted > 0, [True] * 3) and after.counts.support[2] == 0
    ious = [row["iou"] for row in after.per_class(None)]
    assert after.values["miou"] == pytest.approx(sum(ious) / (2 if absent == "truth-only" else 3))
    words = [("before", "after")] * 3 + [("with as-is", "with one")]
    for result, (old, new) in zip(results, words, strict=True):
        told = [text for text in result.notes if text.startswith("mIoU and F1 average over")]
        assert len(told) == (absent == "reference"), result.notes
        for text in told:
            assert text.startswith(
                f"mIoU and F1 average over 2 classes {old} and 3 {new}: 1 more is predicted that has no labels (2)"
            )
    assert not any("average over" in text for text in evaluate(z, [0, 0, 1, 2], **how).notes)


def test_a_bound_that_does_not_hold_for_other_units_is_told():
    """By the cross-fitted change, whichever way a bound is said."""
    seen = set()
    for seed in range(4):
        z, y, prior = made(seed=seed, n=600)
        kept = np.random.default_rng(seed).random(600) < (prior / prior.max())[y]
        z, y = z[kept], y[kept]
        base = float((z.argmax(1) == y).mean())
        for text, bound in (("acc>=base-1%", -0.01), (f"acc>={base - 0.01!r}", -0.01), ("miou>=base-20%", -0.2)):
            found = search_lambda(z, y, source_prior=prior, subject_to=text)
            gain = found.gain["miou" if "miou" in text else "acc"].gain
            told = any("holds on this data; for units" in one for one in found.notes)
            assert told == (gain < bound), (text, gain, found.notes)
            seen.add(told)
            assert any("20 points of percent worse" in one for one in found.notes) == ("miou" in text)
            assert f": of those with {text}, " in about_lambda(found) or found.lam == 0
    assert seen == {True, False}


@pytest.mark.parametrize("lam", [99.0, -2.0])
def test_harm_on_this_data_is_told(lam, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    z, y, prior = made()
    found = evaluate(z, y, lam=lam, source_prior=prior)
    warned = next(one for one in found.warnings if one["code"] == "W8")
    assert warned["acc"] == {"before": found.before.values["acc"], "after": found.overall.values["acc"]}
    assert warned["acc"]["after"] < warned["acc"]["before"]
    assert "W8" in codes(unoic_cli.calibrate(z, y, lam=lam, source_prior=prior))
    with pytest.raises(DataError, match="W8"):
        evaluate(z, y, lam=lam, source_prior=prior, strict=True)
    best = search_lambda(z, y, source_prior=prior).lam
    for one in (0.0, best):  # what one metric pays for another with is no harm
        assert "W8" not in codes(evaluate(z, y, lam=one, source_prior=prior))
    lams = np.arange(best, 8, 0.25).tolist()
    told = ["W8" in codes(evaluate(z, y, lam=one, source_prior=prior)) for one in lams]
    for one, said in zip(lams, told, strict=True):
        found = evaluate(z, y, lam=one, source_prior=prior)
        falls = all(found.overall.values[name] <= found.before.values[name] for name in ("acc", "macc", "miou", "f1"))
        assert said == (falls and found.difference.gain["acc"].high < 0)
    assert not all(told) and any(told)
    few = evaluate(z[:12], y[:12], lam=lam, source_prior=prior)
    assert "W8" not in codes(few) and "12 units: 95 % intervals from so few are too narrow, or missing" in few.notes


def test_gains_of_means_that_count_a_class_without_labels():
    """What tuning takes from the gain is divided by the classes that the metric is divided by."""
    z, y, prior = made()
    keep = y != 0
    how = {"source_prior": prior, "range": "0:1:0.02"}
    found = {rule: search_lambda(z[keep], y[keep], absent=rule, **how) for rule in ("reference", "zero")}
    counts = found["reference"].counts
    assert (counts.predicted[:, 0] > 0).all(), "the class without labels is predicted at every lambda"
    for name in ("miou", "f1"):
        one, other = (found[rule].gain[name] for rule in ("reference", "zero"))
        assert (one.gain, one.low, one.high) == pytest.approx((other.gain, other.low, other.high), abs=1e-12)
    alone = search_lambda(z[y == 1], y[y == 1], source_prior=prior, absent="zero")  # mIoU is accuracy / K then
    assert alone.gain["miou"].gain == pytest.approx(alone.gain["acc"].gain / K, abs=1e-12)
