"""Two methods on the same units: differences, their intervals, McNemar's test, images and requirements."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import h5py
import naive
import numpy as np
import pytest
from rich.console import Console

from unoic_cli import Control, compare, evaluate, run, search_lambda
from unoic_cli.api.stored import report_states
from unoic_cli.commands.paired import McNemar
from unoic_cli.commands.sampled import Gain
from unoic_cli.errors import UsageError
from unoic_cli.report.common import colour
from unoic_cli.report.evaluate import render_evaluate
from unoic_cli.searches.choice import parse_requirements

PRIOR = [60, 25, 10, 5]
NAMES = ("acc", "macc", "miou", "f1")
Z = 1.959963984540054


def make(n=400, k=4, seed=0):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(k), np.arange(k), rng.integers(0, k, n - 2 * k)])
    z = rng.normal(size=(n, k)) + 1.2 * np.eye(k)[y] + np.log(PRIOR[:k])
    return z.astype("f4"), y


def decided(z, lam):
    return naive.predict(z, naive.slopes(PRIOR, np.ones(4)), lam)


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize(
    ("lost", "gained", "p", "test"),
    [
        (0, 0, 1.0, "binomial"),
        (1, 7, 2 * (1 + 8) / 2**8, "binomial"),
        (5, 15, 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 2**20, "binomial"),
        (12, 12, 1.0, "binomial"),
        (10, 30, math.erfc(math.sqrt(19**2 / 40 / 2)), "chi-squared"),
        (30, 10, math.erfc(math.sqrt(19**2 / 40 / 2)), "chi-squared"),
        (50, 50, 1.0, "chi-squared"),
    ],
)
def test_mcnemar_by_hand(lost, gained, p, test):
    found = McNemar.of(lost, gained)
    assert (found.p, found.test) == (pytest.approx(p, rel=1e-12), test)


@pytest.mark.kernel
@pytest.mark.parametrize("seed", range(3))
def test_gains_of_units_against_numpy(seed):
    z, y = make(300 + 50 * seed, seed=seed)
    result = evaluate(z, y, source_prior=PRIOR, lam=0.7)
    before, after = decided(z, 0.0), decided(z, 0.7)
    for way, found in ((before, result.before), (after, result.overall)):
        values = naive.metrics(*naive.counts(y, way, 4))
        assert {name: found.values[name] for name in NAMES} == pytest.approx(values, abs=1e-12)
    for name in NAMES:
        gain, se = result.difference.gain[name], naive.paired_error(y, before, after, 4, name)
        moved = result.overall.values[name] - result.before.values[name]
        assert (gain.gain, gain.se) == pytest.approx((moved, se), rel=1e-9)
        assert (gain.low, gain.high) == pytest.approx((moved - Z * se, moved + Z * se), rel=1e-9)
    test = result.difference.mcnemar
    assert test.lost == np.sum((before == y) & (after != y)) and test.gained == np.sum((before != y) & (after == y))
    assert test == McNemar.of(test.lost, test.gained)
    assert result.difference.moved == np.sum(before != after)


def test_classes_that_change_come_with_intervals_the_largest_first():
    z, y = make()
    result = evaluate(z, y, source_prior=PRIOR, lam=0.7)
    before, after = decided(z, 0.0), decided(z, 0.7)
    changes = result.difference.changes
    assert [abs(one.change.gain) for one in changes] == sorted((abs(one.change.gain) for one in changes), reverse=True)
    for one in changes:
        own = y == one.k
        recalls = [(way[own] == one.k).mean() for way in (before, after)]
        assert (one.before, one.after) == pytest.approx(recalls)
        assert one.change.gain == pytest.approx(recalls[1] - recalls[0])
        assert one.change.se == pytest.approx(naive.recall_error(y, before, after, one.k))
        assert one.gained - one.lost == round((recalls[1] - recalls[0]) * own.sum())
    assert {one.k for one in changes} == {
        k for k in range(4) if np.sum(before[y == k] == k) != np.sum(after[y == k] == k)
    }


def write(path, n, images=False, seed=0, ids=False, group=None):
    rng = np.random.default_rng(seed)
    shape = (n, 6, 5) if images else (n,)
    y = rng.integers(0, 4, shape)
    y.reshape(-1)[:8] = [0, 1, 2, 3] * 2
    shift = rng.normal(size=(n, 4)).repeat(30 if images else 1, axis=0)  # units of an image resemble each other
    z = (rng.normal(size=(y.size, 4)) + shift + 1.5 * np.eye(4)[y.reshape(-1)] + np.log(PRIOR)).astype("f4")
    stored = np.moveaxis(z.reshape(*shape, 4), -1, 1) if images else z
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"], file["source_counts"] = stored, y, PRIOR
        if ids:
            file["sample_id"] = [f"s{i}".encode() for i in range(n)]
        if group is not None:
            file["group"] = [name.encode() for name in group]
    return z, y.reshape(-1)


def test_images_are_clusters(tmp_path):
    z, y = write(tmp_path / "a.h5", 40, images=True)
    before, after = decided(z, 0.0), decided(z, 0.8)
    images = np.arange(y.size) // 30
    path = str(tmp_path / "a.h5")
    found, units = evaluate(path, lam=0.8), evaluate(path, lam=0.8, cluster="unit")
    assert (found.clusters, units.clusters) == ("image", "unit")
    for name in NAMES:
        wide = naive.clustered_error(y, before, after, 4, name, images)
        assert found.difference.gain[name].se == pytest.approx(wide, rel=1e-9)
        assert units.difference.gain[name].se == pytest.approx(naive.paired_error(y, before, after, 4, name), rel=1e-9)
    test, gain = found.difference.mcnemar, found.difference.gain["acc"]
    assert test.test == "clusters" and test.p == pytest.approx(math.erfc(abs(gain.gain) / gain.se / math.sqrt(2)))
    for one in found.difference.changes:
        d = ((after == one.k).astype(float) - (before == one.k)) * (y == one.k)
        d[y == one.k] -= d[y == one.k].mean()
        sums = [d[images == i].sum() for i in range(40) if (y[images == i] == one.k).any()]
        wide = math.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / np.sum(y == one.k)
        assert one.change.se == pytest.approx(max(wide, naive.recall_error(y, before, after, one.k)), rel=1e-9)


def test_groups_are_clusters_and_few_of_them_are_said(tmp_path):
    group = np.array(list("abcd"))[np.random.default_rng(1).integers(0, 4, 300)]
    z, y = write(tmp_path / "a.h5", 300, group=group)
    found = evaluate(str(tmp_path / "a.h5"), lam=0.8, cluster="group")
    for name in NAMES:
        wide = naive.clustered_error(y, decided(z, 0.0), decided(z, 0.8), 4, name, group)
        assert found.difference.gain[name].se == pytest.approx(wide, rel=1e-9)
    assert "4 groups: 95 % intervals from so few are too narrow, or missing" in found.notes
    one = evaluate(str(tmp_path / "a.h5"), lam=0.8, cluster="group", by="group")
    for gain in one.difference_by["a"].gain.values():
        assert math.isnan(gain.se) and gain.to_dict()["interval"] is None  # of a single cluster nothing is known


def test_what_is_exact_stays_so_where_a_sample_is_kept(tmp_path):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, 150_000)
    z = (rng.normal(size=(y.size, 4)) + 1.5 * np.eye(4)[y] + np.log(PRIOR)).astype("f4")
    result = evaluate(z, y, source_prior=PRIOR, lam=0.6)
    before, after = decided(z, 0.0), decided(z, 0.6)
    test = result.difference.mcnemar
    assert test.lost == np.sum((before == y) & (after != y)) and test.gained == np.sum((before != y) & (after == y))
    for name in NAMES:
        whole = naive.paired_error(y[:40_000], before[:40_000], after[:40_000], 4, name) * math.sqrt(40_000 / y.size)
        assert result.difference.gain[name].se == pytest.approx(whole, rel=0.05)
    for one in result.difference.changes:
        assert one.change.se == pytest.approx(naive.recall_error(y, before, after, one.k))


# ---------------------------------------------------------------- what is before


def test_before_is_the_scores_as_they_are_whatever_is_applied(tmp_path):
    z, y = write(tmp_path / "a.h5", 200)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["delta"] = np.where(np.arange(200) % 3, 1.0, 0.0)  # ties of all classes where it is 0
    result = evaluate(str(tmp_path / "a.h5"), lam=0.5, offsets=[0, 1, 0, 1], metrics="acc,nll")
    plain = evaluate(str(tmp_path / "a.h5"), delta="none", lam=0, metrics="acc,nll")
    assert result.before.values == pytest.approx(plain.overall.values)
    assert result.before.values["acc"] == np.mean(z.argmax(1) == y)
    assert result.before.values["nll"] == pytest.approx(naive.nll(naive.softmax(z), y))
    assert result.difference.gain["nll"].gain == result.overall.values["nll"] - result.before.values["nll"]
    assert result.difference.gain["nll"].to_dict()["interval"] is None


def test_nothing_applied_changes_nothing():
    z, y = make()
    found = evaluate(z, y).to_dict()
    assert [found[key] for key in ("before", "gain", "mcnemar", "moved", "changes", "clusters")] == [None] * 6
    same = evaluate(z, y, source_prior=PRIOR, lam=0).to_dict()
    assert same["gain"]["macc"] == {"gain": 0.0, "interval": [0.0, 0.0], "se": 0.0}
    assert (same["moved"], same["mcnemar"]["p"], same["changes"]) == (0, 1.0, [])


@pytest.mark.kernel
@pytest.mark.parametrize("fusion", ["noisy-or", "product", "bayes"])
def test_fused_modalities(fusion):
    (a, y), (b, _) = make(200, seed=1), make(200, seed=2)
    both = {"a": a, "b": b}
    after = evaluate(both, y, source_prior=PRIOR, lam=0.6, fusion=fusion)
    before = evaluate(both, y, source_prior=PRIOR, lam=0.0, fusion=fusion)
    assert after.before.values == before.overall.values
    table = compare(both, y, methods={"x": f"{fusion}@0", "y": f"{fusion}@0.6"}, metrics="macc")
    if fusion != "bayes":  # whose priors are those of the labels there
        return
    assert table.rows[1].differences["all"].mcnemar.test in ("binomial", "chi-squared")


def test_a_calibration_measured_on_its_own_data_is_said(tmp_path):
    write(tmp_path / "a.h5", 300)
    write(tmp_path / "b.h5", 300, seed=5)
    a, b, c = (str(tmp_path / name) for name in ("a.h5", "b.h5", "c.json"))
    search_lambda(a, output=c)
    said = f"the calibration was made with {a}: gains on data that it was tuned on are too large"
    assert said in evaluate(a, calibration=c).notes
    assert not any("tuned on" in note for note in evaluate(b, calibration=c).notes)
    found = search_lambda(a).calibration
    for split in (["val"], {}, 3):  # provenance is whatever a file says
        replace(found, provenance={**found.provenance, "split": split}).save(c)
        assert said in evaluate(a, calibration=c).notes
    search_lambda(a, lam=0.4, output=c, force=True)
    assert said not in evaluate(a, calibration=c).notes


# ---------------------------------------------------------------- images


def image_metrics(y, predictions, images):
    return [naive.metrics(*naive.counts(y[images == i], predictions[images == i], 4)) for i in np.unique(images)]


@pytest.mark.kernel
@pytest.mark.parametrize("ids", [False, True])
def test_images_by_themselves(tmp_path, ids):
    parts = [write(tmp_path / f"{i}.h5", 7 + i, images=True, seed=i, ids=ids) for i in range(2)]
    z, y = (np.concatenate([part[i] for part in parts]) for i in range(2))
    images = np.arange(y.size) // 30
    paths = [str(tmp_path / f"{i}.h5") for i in range(2)]
    result = evaluate(paths, lam=0.8, by="image")
    wanted, before = (image_metrics(y, decided(z, lam), images) for lam in (0.8, 0.0))
    found = result.images
    for name in NAMES:
        values = np.array([one[name] for one in wanted])
        moved = values - [one[name] for one in before]
        assert found.values[name] == pytest.approx(values)
        about = found.to_dict()["metrics"][name]
        assert about["mean"] == pytest.approx(values.mean())
        assert about["quartiles"] == pytest.approx(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
        assert (about["gain"], about["se"]) == pytest.approx((moved.mean(), moved.std(ddof=1) / math.sqrt(15)))
    order = np.argsort([one["miou"] for one in wanted], kind="stable")[:10]
    worst = result.to_dict()["images"]["worst"]
    assert [(one["file"], one["index"]) for one in worst] == [(paths[int(i > 6)], i - 7 * (i > 6)) for i in order]
    assert [one.get("sample_id") for one in worst] == [f"s{i - 7 * (i > 6)}" if ids else None for i in order]


def test_images_without_labels_and_of_a_split(tmp_path):
    write(tmp_path / "a.h5", 9, images=True)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["labels"][2] = -1
        file["split"] = [b"val" if i % 2 == 0 else b"test" for i in range(9)]
    found = evaluate(str(tmp_path / "a.h5"), by="image", split="val").to_dict()["images"]
    assert (found["n"], found["n_empty"]) == (4, 1)
    assert sorted(one["index"] for one in found["worst"]) == [0, 4, 6, 8]
    assert "before" not in found["metrics"]["miou"]


def test_worst_are_by_the_metric_that_is_shown(tmp_path):
    write(tmp_path / "a.h5", 30, images=True)
    found = evaluate(str(tmp_path / "a.h5"), by="image", metrics="recall[2],nll").to_dict()["images"]
    values = [one["recall[2]"] for one in found["worst"]]
    assert found["worst_by"] == "recall[2]" and values == sorted(values) and "nll" not in found["metrics"]


# ---------------------------------------------------------------- any split


@pytest.fixture
def small_spans(monkeypatch):
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 1 << 10)
    monkeypatch.setattr("unoic_cli.data.dataset.WHOLE_BYTES", 1 << 12)


@pytest.mark.parametrize("images", [False, True])
def test_shards_threads_and_spans_say_the_same(tmp_path, images, request, monkeypatch):
    write(tmp_path / "a.h5", 60 if images else 3000, images=images, ids=True)
    path, by = str(tmp_path / "a.h5"), {"by": "image"} if images else {}
    monkeypatch.setattr("unoic_cli.tallies.kept.MOST_UNITS", 500)
    options = {"lam": 0.7, "metrics": "acc,macc,gmean,ece", "require": "macc>=0.1 and gain.macc.low>0.9", **by}
    whole = json.dumps(evaluate(path, threads=1, **options).to_dict())
    search_lambda(path, lam=0.7, output=str(tmp_path / "c.json"))
    methods = [f"half={tmp_path / 'c.json'}@0.5", f"it={tmp_path / 'c.json'}"]
    rows = json.dumps(compare(path, methods=methods, threads=1).to_dict())
    request.getfixturevalue("small_spans")
    for threads in (1, 3):
        assert json.dumps(evaluate(path, threads=threads, **options).to_dict()) == whole
    states = [str(tmp_path / f"{i}.unoic") for i in (1, 2, 3)]
    for i, state in enumerate(states, 1):
        run("evaluate", path, control=Control(shard=f"{i}/3", state=state), **options)
        run("compare", path, control=Control(shard=f"{i}/3", state=f"{state}c"), methods=methods)
    assert json.dumps(report_states(states[::-1])[1].to_dict()) == whole
    assert json.dumps(report_states([f"{state}c" for state in states])[1].to_dict()) == rows


def test_pixels_of_large_images_are_counted_in_parts(tmp_path, small_spans):
    """Spans end within images: what is counted of one comes together."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, (3, 40, 30))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        z = rng.normal(size=(3, 40, 30, 4)) + np.eye(4)[y] + np.log(PRIOR)
        file["logits"], file["labels"], file["source_counts"] = z.astype("f4"), y, PRIOR
    found = evaluate(str(tmp_path / "a.h5"), lam=0.6, by="image").images
    assert found.n.tolist() == [1200] * 3
    wanted = image_metrics(y.reshape(-1), decided(z.astype("f4").reshape(-1, 4), 0.6), np.arange(3600) // 1200)
    assert found.values["miou"] == pytest.approx([one["miou"] for one in wanted])


# ---------------------------------------------------------------- compare


def test_rows_are_compared_with_the_first_or_another():
    z, y = make(500)
    made = {name: search_lambda(z, y, source_prior=PRIOR, lam=lam).calibration for name, lam in (("a", 0), ("b", 0.7))}
    table = compare(z, y, methods=made)
    assert table.against == "a" and table.rows[0].differences is None
    single = evaluate(z, y, source_prior=PRIOR, lam=0.7).difference
    found = table.rows[1].differences["all"]
    assert found.gain == single.gain and found.mcnemar == single.mcnemar and found.changes == single.changes
    average, own = table.rows[1].average_gain["macc"], single.gain["macc"]
    assert (average.gain, average.low, average.high, average.se) == pytest.approx(
        (own.gain, own.low, own.high, own.se), rel=1e-11
    )
    other = compare(z, y, methods=made, against="b")
    assert other.against == "b" and other.rows[1].differences is None
    back = other.rows[0].differences["all"]
    assert back.gain["miou"].gain == -found.gain["miou"].gain and back.gain["miou"].se == found.gain["miou"].se
    assert (back.mcnemar.lost, back.mcnemar.gained) == (found.mcnemar.gained, found.mcnemar.lost)


@pytest.mark.parametrize("by", ["file", "group"])
def test_averages_have_intervals(tmp_path, by):
    paths = [str(tmp_path / f"{i}.h5") for i in range(3)]
    parts = [write(path, 300, seed=i, group=[f"g{j % 7 if by == 'file' else i}" for j in range(300)])
             for i, path in enumerate(paths)]  # fmt: skip
    search_lambda(paths, lam=0.7, output=str(tmp_path / "c.json"))
    methods = [f"as={tmp_path / 'c.json'}@0", f"it={tmp_path / 'c.json'}"]
    row = compare(paths, methods=methods, by=by).rows[1]
    errors = [naive.paired_error(y, decided(z, 0), decided(z, 0.7), 4, "miou") for z, y in parts]
    assert [one.gain["miou"].se for one in row.differences.values()] == pytest.approx(errors)
    assert row.average_gain["miou"].se == pytest.approx(math.sqrt(np.square(errors).sum()) / 3)
    if by == "file":  # groups lie in all three files
        row = compare(paths, methods=methods, by=by, cluster="group").rows[1]
        d = []
        for z, y in parts:
            one = naive.influence(y, decided(z, 0.7), 4, "miou") - naive.influence(y, decided(z, 0), 4, "miou")
            for k in range(4):
                one[y == k] -= one[y == k].mean()
            d.append(one / 3)
        whole, groups = np.concatenate(d), np.tile(np.arange(300) % 7, 3)
        sums = [whole[groups == g].sum() for g in range(7)]
        wide = math.sqrt(7 / 6 * np.square(sums).sum())
        apart = math.sqrt(np.square(errors).sum()) / 3
        assert row.average_gain["miou"].se == pytest.approx(max(wide, apart))


# ---------------------------------------------------------------- reliability


@pytest.mark.kernel
def test_reliability_bins():
    z, y = make()
    found = evaluate(z, y, source_prior=PRIOR, lam=0.7, metrics="ece").reliability
    assert found["population"] == "the data's own mix of classes"
    for bins, lam in ((found["bins"], 0.7), (found["before"], 0.0)):
        p = naive.posterior(z, naive.slopes(PRIOR, np.ones(4)), lam)
        for one, (n, hits, sums) in zip(bins, naive.reliability(p, y), strict=True):
            assert one["count"] == n and one["to"] - one["from"] == pytest.approx(1 / 15)
            assert one["accuracy"] == (pytest.approx(hits / n) if n else None)
            assert one["confidence"] == (pytest.approx(sums / n) if n else None)
    assert evaluate(z, y).reliability is None
    assert evaluate(z, y, metrics="nll").reliability["before"] is None


# ---------------------------------------------------------------- requirements


def test_requirements_are_read():
    text = "mAcc>=0.7 and gain.macc>0, gain . recall[a.low] < 1 and gain.miou.low > -1e-2, acc >= base - 0.005"
    with pytest.raises(UsageError):
        parse_requirements(text, 2, ("a.low", "b"))
    text = text.replace("gain . ", "gain.")
    found = [str(one) for one in parse_requirements(text, 2, ("a.low", "b"))]
    assert found == ["macc>=0.7", "gain.macc>0", "gain.recall[a.low]<1", "gain.miou.low>-0.01", "acc>=base-0.005"]


@pytest.mark.parametrize(
    "text",
    ["macc", "macc>", "gain>0", "macc.low>0", "gain.macc.middle>0", "gain.macc>base", "what>0", "gain.nll.low>0",
     "macc>=0.7 or acc>0.1", "gain.macc>nan", ""],
)  # fmt: skip
def test_expressions_that_are_none_are_usage_errors(text):
    with pytest.raises(UsageError, match=r"^--require: "):
        parse_requirements(text)


@pytest.fixture
def file(tmp_path):
    write(tmp_path / "a.h5", 400)
    return str(tmp_path / "a.h5")


def test_what_does_not_hold_is_one_line_and_exit_code_1(run, file):
    code, out, err = run("evaluate", file, "-l", 0.7, "--require", "macc>=0.999 and gain.macc>0 and gain.macc.low>0.5")
    found = json.loads(out)
    assert [one["holds"] for one in found["required"]] == [False, True, False]
    assert (code, err.count("\n")) == (1, 1)
    values = f"macc is {found['macc']:.6g}, gain.macc.low is {found['gain']['macc']['interval'][0]:.6g}"
    assert err == f"unoic: error: --require: {values}; expected macc>=0.999 and gain.macc.low>0.5\n"


def test_what_holds_changes_nothing(answer, file):
    found = answer("evaluate", file, "-l", 0.7, "--require", "macc>=0.1, gain.macc>-1, acc>=base-1, nll<9")
    assert all(one["holds"] for one in found["required"]) and "nll" in found
    assert found["required"][3]["value"] == found["nll"]


def test_a_value_equal_to_the_bound_meets_it(run):
    requirement = parse_requirements("gain.acc>=0.1")[0]
    assert requirement.meets(0.7 - 0.6).holds and not parse_requirements("gain.acc>0.1")[0].meets(0.7 - 0.6).holds
    assert not requirement.meets(None).holds and not requirement.meets(math.nan).holds
    assert not parse_requirements("acc>=base")[0].meets(0.5, math.nan).holds


def test_search_and_report_require_too(run, file, tmp_path):
    code, out, err = run("search-lambda", file, "--require", "macc>0.99", "-o", tmp_path / "c.json")
    assert code == 1 and json.loads(out)["required"][0]["holds"] is False and (tmp_path / "c.json").exists()
    assert run("search-lambda", file, "--require", "gain.macc>-0.5 and macc>=base")[0] == 0
    state = tmp_path / "s.unoic"
    assert run("evaluate", file, "--require", "macc>0.99", "--shard", "1/1", "--state", state)[0] == 0
    code, out, err = run("report", state)
    assert code == 1 and json.loads(out)["schema"] == "unoic.evaluate/1" and err.startswith("unoic: error: --require: ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--require", "gain.macc>0"), "--require: gain.macc>0 where nothing is applied"),
        (("--require", "macc>=base"), "--require: macc>=base where nothing is applied"),
        (("--require", "macc"), "--require: 'macc', which compares nothing"),
        (("--require", "macc>=x"), "--require: 'macc>=x'; expected comparisons like macc>=0.7"),
        (("--cluster", "unit"), "--cluster: --cluster where nothing is applied"),
        (("-l", 1, "--cluster", "day"), "--cluster: 'day'; expected one of unit, image, group"),
        (("-l", 1, "--cluster", "image"), "--cluster: image, of data without images"),
        (("--by", "image"), "--by: image, of data without images"),
        (("--by", "day"), "--by: 'day'; expected group, file or image"),
    ],
)
def test_what_makes_no_sense_is_refused(refuse, file, args, said):
    assert refuse(2, "evaluate", file, *args).startswith(said)


def test_a_method_alone_is_compared_with_the_scores_as_they_are(answer, file, tmp_path):
    answer("search-lambda", file, "-l", 1, "-o", tmp_path / "c.json")
    said = answer("compare", file, "-m", tmp_path / "c.json")
    both = answer("compare", file, "-m", "as-is", "-m", tmp_path / "c.json")
    assert said == both and [one["name"] for one in said["methods"]] == ["as-is", "c"] and said["against"] == "as-is"
    measured = answer("evaluate", file, "-c", tmp_path / "c.json")
    assert said["methods"][1]["differences"]["average"]["macc"]["gain"] == measured["gain"]["macc"]["gain"]
    assert [one["name"] for one in answer("compare", file, "-m", f"as-is={tmp_path / 'c.json'}")["methods"]] == [
        "as-is"
    ]


def test_compare_refuses_what_has_no_effect(refuse, answer, file, tmp_path):
    answer("search-lambda", file, "-l", 1, "-o", tmp_path / "c.json")
    one, alone = ("-m", f"x={tmp_path / 'c.json'}"), ("-m", "as-is")
    assert refuse(2, "compare", file, *alone, "--against", "x").startswith("--against: --against of a single method")
    assert refuse(2, "compare", file, *alone, "--cluster", "unit").startswith("--cluster: --cluster of a single method")
    two = (*one, "-m", f"y={tmp_path / 'c.json'}@0")
    assert refuse(2, "compare", file, *two, "--against", "z") == "--against: 'z'; expected one of x, y"
    assert refuse(65, "compare", file, *two, "--cluster", "group").endswith("expected group to cluster by it")
    assert refuse(2, "search-lambda", file, "--require", "gain.nll<0").startswith("--require: gain.nll<0, a gain that")


# ---------------------------------------------------------------- on a terminal


def shown(result, **how):
    console = Console(force_terminal=True, width=120, color_system="standard", highlight=False, **how)
    with console.capture() as capture:
        console.print(render_evaluate(result))
    return capture.get()


def test_what_is_sure_is_coloured_unless_nobody_wants_that(monkeypatch):
    z, y = make(2000)
    result = evaluate(z, y, source_prior=PRIOR, lam=1)
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = shown(result)
    assert "\x1b[32m" in text and "\x1b[31m" in text
    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown(result)
    assert "\x1b[32m" not in plain and "\x1b[31m" not in plain and "difference" in plain
    assert [colour(Gain.around(g, 0.1)) for g in (1, -1, 0.1)] == ["green", "red", ""]
    assert colour(Gain.around(1, 0.1), higher=False) == "red" and colour(Gain(1.0)) == ""


def test_tables_show_before_after_and_the_worst(run, tmp_path):
    write(tmp_path / "a.h5", 30, images=True)
    code, out, _ = run("evaluate", tmp_path / "a.h5", "-l", 0.8, "--by", "image", "--format", "table")
    assert code == 0
    for words in ("as it is ", "all ", "difference ", "95 % from", "classes whose recall changes", "by clusters",
                  "each of 30 images by itself", "the 10 images of lowest mIoU"):  # fmt: skip
        assert words in out, words
    code, out, _ = run("evaluate", tmp_path / "a.h5", "--by", "image", "--format", "tsv")
    assert len(out.splitlines()) == 31 and out.startswith("file\tindex\tn\tacc\t")
