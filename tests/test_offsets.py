"""Offsets of classes: in every kernel, layout, order and fusion as in naive.py, and in the files that hold them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import naive
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli.calibrations.calibration import Calibration

USAGE, DATA, NO_INPUT = 2, 65, 66
PRIOR, B = [5, 3, 2, 1], [0.5, -1.0, 0.0, 1.25]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def world(seed=0, n=60, k=4, image=(), dtype="f4"):
    """Scores (N, K, ...), in eighths, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, (n, *image))
    z = np.round((rng.normal(size=(n, *image, k)) * 2 + np.eye(k)[labels]) * 8) / 8
    return np.moveaxis(z, -1, 1).astype(dtype), labels


def flat(z):
    return np.moveaxis(np.asarray(z, np.float64), 1, -1).reshape(-1, np.shape(z)[1])


def write(path, z, labels=None, **more):
    with h5py.File(path, "w") as file:
        file["logits"] = z
        for name, values in {**({} if labels is None else {"labels": labels}), **more}.items():
            file[name] = values
    return path


def counts_of(result):
    counts = result.overall.counts
    return [counts.hits.tolist(), counts.predicted.tolist()]


def counted(labels, scores):
    k = scores.shape[1]
    return [one.tolist() for one in naive.counts(labels.ravel(), scores.argmax(1), k)[:2]]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 9999),
    k=st.sampled_from([2, 4, 17, 150]),
    image=st.sampled_from([(), (3, 5)]),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    order=st.sampled_from([None, "flatten-first", "rebalance-first"]),
    temperature=st.sampled_from([1.0, 2.0]),
    size=st.sampled_from([1.0, 30.0, 3000.0]),
)
def test_counts_are_those_of_float64(seed, k, image, dtype, order, temperature, size):
    rng = np.random.default_rng(seed)
    z, labels = world(seed, int(rng.integers(1, 40)), k, image, dtype)
    offsets = (np.round(rng.normal(size=k) * 8) / 8 * size).tolist()
    prior = rng.integers(1, 50, k).tolist()
    delta = rng.choice([0.25, 0.5, 1.0, 2.0], len(z)) if order else None
    given_ = unoic_cli.from_arrays(z, labels, delta=delta, class_axis=1)
    options = {"offsets": offsets, "source_prior": prior, "temperature": temperature, "order": order}
    s = naive.slopes(prior, [1] * k)
    factor = np.repeat(np.ones(len(z)) if delta is None else delta, max(1, int(np.prod(image))))

    def scores(lam):
        if order == "rebalance-first":
            return naive.scores_rebalanced_first(flat(z), s, lam, factor, offsets, temperature)
        return naive.scores(flat(z), s, lam, factor / temperature, offsets)

    assert counts_of(unoic_cli.evaluate(given_, lam=0.0, **options)) == counted(labels, scores(0.0))
    found = unoic_cli.search_lambda(given_, range="-1:2:0.25", **options)
    for g, lam in enumerate(found.lams):
        clear = np.ptp(np.sort(scores(lam), axis=1)[:, -2:], axis=1) > 1e-9 * size
        if order != "rebalance-first" or clear.all():
            assert [found.counts.hits[g].tolist(), found.counts.predicted[g].tolist()] == counted(labels, scores(lam))
        if g % 4 == seed % 4:
            one = unoic_cli.evaluate(given_, lam=float(lam), **options)
            assert one.overall.counts.predicted.tolist() == found.counts.predicted[g].tolist()
    made = unoic_cli.calibrate(given_, output="o.h5", emit="log-probs", force=True, lam=0.5, **options)
    assert counts_of(unoic_cli.evaluate("o.h5")) == counted(labels, scores(0.5))
    assert made.before.counts.predicted.tolist() == np.bincount(flat(z).argmax(1), minlength=k).tolist()
    with h5py.File("o.h5") as file:
        values = flat(file["log_probs"][()])
    assert np.exp(values) == pytest.approx(naive.softmax(scores(0.5)), abs=1e-6)


def test_the_label_is_ranked_with_offsets():
    z, labels = world(3, 200, 9)
    prior, offsets = list(range(1, 10)), np.linspace(-2, 2, 9)
    found = unoic_cli.search_lambda(z, labels, metric="top3", offsets=offsets, source_prior=prior, range="-1:2:0.25")
    moved = flat(z) + offsets
    hits = naive.top_k_hits(moved, labels, naive.slopes(prior, [1] * 9), found.lams, 3)
    assert found.curve["top3"].tolist() == (hits / 200).tolist()


@pytest.mark.parametrize("how", ["noisy-or", "average", "max", "product", "log-linear"])
@pytest.mark.parametrize("order", [None, "flatten-first", "rebalance-first"])
def test_each_modality_has_its_own(how, order):
    (first, labels), (second, _) = world(1), world(2)
    delta = np.random.default_rng(3).uniform(0.3, 1, len(labels)) if order else None
    given_ = {
        "a": unoic_cli.from_arrays(first, labels, delta=delta, name="a"),
        "b": unoic_cli.from_arrays(second, name="b"),
    }
    options = {"fusion": how, "order": order, "source_prior": PRIOR, "lam": 0.6, "offsets": {"a": B}}
    unoic_cli.fuse(given_, output="o.h5", emit="probs", **options)
    s, factor = naive.slopes(PRIOR, [1] * 4), np.ones(len(labels)) if delta is None else delta
    if order == "rebalance-first":
        scores = naive.scores_rebalanced_first(first, s, 0.6, factor, B)
    else:
        scores = naive.scores(first, s, 0.6, factor, B)
    ps = [naive.softmax(scores), naive.posterior(second, s, 0.6)]
    expected = {
        "noisy-or": naive.noisy_or, "average": naive.average, "product": naive.product,
        "max": lambda ps: naive.normalised(np.maximum(*ps)),
        "log-linear": lambda ps: naive.normalised(np.sqrt(ps[0] * ps[1])),
    }[how](ps)  # fmt: skip
    with h5py.File("o.h5") as file:
        assert file["probs"][()] == pytest.approx(expected, rel=1e-5, abs=1e-9)
    direct = unoic_cli.evaluate(given_, **options)
    assert counts_of(direct) == counts_of(unoic_cli.evaluate("o.h5")) == counted(labels, expected)


@pytest.mark.parametrize("order", [None, "flatten-first", "rebalance-first"])
def test_offsets_of_lambda_times_s_are_lambda(order):
    z, labels = world(5, 300, dtype="f8")
    delta = np.random.default_rng(3).uniform(0.3, 1, len(labels)) if order else None
    given_ = unoic_cli.from_arrays(z, labels, delta=delta)
    slopes = naive.slopes(PRIOR, [1] * 4)
    options = {"source_prior": PRIOR, "order": order}
    for lam in (-0.5, 0.7, 2.0):
        by_lambda = unoic_cli.evaluate(given_, lam=lam, **options)
        by_offsets = unoic_cli.evaluate(given_, lam=0, offsets=lam * slopes, **options)
        half = unoic_cli.evaluate(given_, lam=lam / 2, offsets=(lam / 2 * slopes).tolist(), **options)
        assert counts_of(by_lambda) == counts_of(by_offsets) == counts_of(half)


def test_a_number_that_all_share_changes_nothing():
    z, labels = world(5, 300)
    options = {"source_prior": PRIOR, "range": "0:2"}
    plain = unoic_cli.search_lambda(z, labels, **options)
    for offsets in ([0] * 4, [-7.5] * 4, [1000] * 4):
        found = unoic_cli.search_lambda(z, labels, offsets=offsets, **options)
        assert found.counts.hits.tolist() == plain.counts.hits.tolist()
    moved = unoic_cli.search_lambda(z, labels, offsets=B, **options)
    again = unoic_cli.search_lambda(z, labels, offsets=[b + 3 for b in B], **options)
    assert moved.counts.hits.tolist() == again.counts.hits.tolist() != plain.counts.hits.tolist()


def test_however_they_are_given():
    z, labels = world()
    names = np.array(["elk", "cat", "dog", "owl"], dtype=object)
    write("a.h5", z, labels, class_names=names, source_counts=PRIOR)
    table = dict(zip(names, B, strict=True))
    Path("list.json").write_text(json.dumps(B))
    Path("table.json").write_text(json.dumps(table))
    Path("t.csv").write_text("class,offset\n" + "".join(f"{name},{b}\n" for name, b in reversed(table.items())))
    Path("t.tsv").write_text("".join(f"{k}\t{b}\n" for k, b in enumerate(B)))
    forms = [
        B,
        tuple(B),
        np.array(B),
        "0.5,-1,0,1.25",
        table,
        dict(enumerate(B)),
        "list.json",
        "table.json",
        "t.csv",
        "t.tsv",
    ]
    expected = counts_of(unoic_cli.evaluate("a.h5", offsets=B, lam=0.4))
    for form in forms:
        assert counts_of(unoic_cli.evaluate("a.h5", offsets=form, lam=0.4)) == expected, form
        both = unoic_cli.evaluate(["rgb=a.h5"], offsets={"rgb": form}, lam=0.4)
        assert counts_of(both) == expected, form


def test_calibrations_keep_them(answer):
    z, labels = world()
    z += np.random.default_rng(1).normal(size=z.shape).astype("f4")  # no ties
    write("a.h5", z, labels, source_counts=PRIOR)
    given_ = ["--offsets", "0.5,-1,0,1.25", "--temperature", "2"]
    found = answer("search-lambda", "a.h5", *given_, "-o", "c.json")
    plain = answer("search-lambda", "a.h5", "-o", "plain.json")
    assert "offsets" not in Path("plain.json").read_text() and "offsets" not in json.dumps(plain)
    loaded = Calibration.load("c.json")
    assert loaded.modalities[0].offsets == tuple(B)
    assert Calibration.from_dict(json.loads(Path("c.json").read_text()), "c.json") == loaded
    seen = answer("evaluate", "a.h5", "-c", "c.json")
    assert seen["offsets"] == B and seen["macc"] == found["best"]["macc"]
    direct = answer("evaluate", "a.h5", *given_, "--lambda", loaded.lam)
    assert direct["per_class"] == seen["per_class"]
    answer("calibrate", "a.h5", "-c", "c.json", "-o", "o.h5")
    assert answer("evaluate", "o.h5")["per_class"] == seen["per_class"]
    answer("fit-temperature", "a.h5", "-c", "c.json", "-o", "t.json")
    fitted = Calibration.load("t.json")
    ratio = 2 / fitted.temperature
    assert fitted.modalities[0].offsets == pytest.approx([b * ratio for b in B], rel=1e-12)
    assert answer("evaluate", "a.h5", "-c", "t.json")["per_class"] == seen["per_class"]
    assert answer("evaluate", "a.h5", "-c", "c.json", "--threads", 3)["per_class"] == seen["per_class"]


def test_states_keep_them(answer):
    z, labels = world(n=400)
    write("a.h5", z, labels, source_counts=PRIOR)
    given_ = ["search-lambda", "a.h5", "--offsets", "0.5,-1,0,1.25", "--folds", "2"]
    whole = answer(*given_, "--curve", "w.tsv")
    for i in (1, 2):
        answer(*given_, "--shard", f"{i}/2", "--state", f"{i}.unoic")
    answer("merge", "1.unoic", "2.unoic", "-o", "all.unoic")
    merged = answer("report", "all.unoic")
    assert merged["best"] == whole["best"] and merged["curve"] == whole["curve"]


@pytest.mark.parametrize(
    "code, offsets, said",
    [
        (DATA, "1,2,3", "--offsets: 3 offsets; expected 4, one for each class"),
        (DATA, "1,2,3,inf", "--offsets: inf for class 3; expected finite numbers"),
        (DATA, "1,2,3,-2e6", "--offsets: -2e+06 for class 3; expected finite numbers"),
        (NO_INPUT, "1,2,x", "1,2,x: no such file; expected one number for each class"),
        (NO_INPUT, "no.json", "no.json: no such file; expected one number for each class"),
        (DATA, "bad.json", "bad.json: "),
        (DATA, "short.json", "short.json: 2 offsets; expected 4"),
        (USAGE, "ir=1,2,3,4", "--offsets: the unknown modality ir"),
    ],
)
def test_what_are_no_offsets(refuse, code, offsets, said):
    z, labels = world()
    write("a.h5", z, labels, source_counts=PRIOR)
    Path("bad.json").write_text('[1, 2, "x", 4]')
    Path("short.json").write_text("[1, 2]")
    for command in (["evaluate", "--lambda", "1"], ["search-lambda"]):
        assert refuse(code, command[0], "a.h5", *command[1:], "--offsets", offsets).startswith(said)


def test_offsets_without_effect_are_refused(refuse):
    z, labels = world()
    write("a.h5", z, labels, source_counts=PRIOR)
    unoic_cli.search_lambda("a.h5", output="c.json")
    line = refuse(USAGE, "evaluate", "a.h5", "--offsets", "1,2,3,4")
    assert line.startswith("--offsets: --offsets without --lambda")
    line = refuse(USAGE, "evaluate", "a.h5", "--offsets", "1,2,3,4", "-c", "c.json")
    assert line.startswith("--offsets: --offsets beside --calibration")
    content = json.loads(Path("c.json").read_text())
    for wrong in ([1, 2], "abc", [1, 2, 3, None], [0, 0, 0, 1e9], {"a": 1}):
        content["modalities"][0]["offsets"] = wrong
        Path("c.json").write_text(json.dumps(content))
        assert refuse(DATA, "evaluate", "a.h5", "-c", "c.json").startswith("c.json: ")
