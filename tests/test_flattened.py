"""W6: a delta below all that its statistics were fitted on, said by every command that applies lambda beside it."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import naive
import numpy as np
import pytest

import unoic_cli
from unoic_cli import cli
from unoic_cli.calibrations.delta import DeltaStatistics
from unoic_cli.errors import DataError

K, H, W = 4, 3, 5
COUNTS = [1000, 100, 20, 5]


def images(n, scale, seed):
    """Class-last logits (n, K, H, W), of a scale each, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(K, size=(n, H, W))
    z = 2.0 * np.moveaxis(np.eye(K)[labels], -1, 1) + rng.normal(size=(n, K, H, W))
    return (np.broadcast_to(scale, n)[:, None, None, None] * z).astype(np.float32), labels


def write(path, z, labels):
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"], file["source_counts"] = z, labels, COUNTS
    return path


def entropy(z):
    """Mean over pixels, (n,)."""
    return naive.entropy(naive.softmax(np.moveaxis(z, 1, -1).astype(np.float64))).mean(axis=(1, 2))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Validation images of one sharpness, and new ones of which half are far less sure."""
    monkeypatch.chdir(tmp_path)
    val, new = images(20, 3.0, 1), images(10, [3.0] * 5 + [0.3] * 5, 2)
    write("val.h5", *val)
    write("new.h5", *new)
    unoic_cli.fit_delta("val.h5", output="delta.json")
    unoic_cli.search_lambda("val.h5", delta="delta.json", lam=0.5, output="c.json")
    return val, new


def w6(result):
    return [one for one in result.warnings if one["code"] == "W6"]


def expected(data):
    """By naive.py: the least delta of the validation images, the share of new ones far below it, and their delta."""
    (val, _), (new, _) = data
    own, there = entropy(val), entropy(new)
    mu, sigma = own.mean(), own.std()
    least = naive.entropy_delta(own.max(), mu, sigma)
    delta = naive.entropy_delta(there, mu, sigma)
    low = delta[delta < 0.75 * least]
    return least, low.size / delta.size, low.mean()


def test_figures_are_those_of_the_formulas(data):
    least, share, mean = expected(data)
    assert 0.3 < share < 0.7 and mean < 0.75 * least
    statistics = DeltaStatistics.load("delta.json")
    assert statistics.largest == pytest.approx(entropy(data[0][0]).max(), rel=1e-12)
    assert statistics.least == pytest.approx(least, rel=1e-12)
    found = [
        unoic_cli.evaluate("new.h5", calibration="c.json"),
        unoic_cli.evaluate("new.h5", calibration="c.json", threads=2, memory="3MB"),
        unoic_cli.calibrate("new.h5", calibration="c.json", output="o.h5"),
        unoic_cli.compare("new.h5", methods=["c.json"]),
    ]
    for result in found:
        (one,) = w6(result)
        figures = one["modalities"]["scores"]
        assert figures == w6(found[0])[0]["modalities"]["scores"]
        assert figures["share"] == share
        assert figures["least"] == pytest.approx(least, rel=1e-12)
        assert figures["delta"] == pytest.approx(mean, rel=1e-6)
        assert f"weighs like {0.5 / mean:.2g}" in one["text"]


def test_unlabelled_units_count_as_well(data):
    with h5py.File("new.h5", "a") as file:
        del file["labels"]
    assert w6(unoic_cli.calibrate("new.h5", calibration="c.json", output="o.h5"))


def test_a_file_of_one_delta_says_so_for_all(data):
    new, labels = data[1]
    write("flat.h5", new[5:], labels[5:])
    (one,) = w6(unoic_cli.evaluate("flat.h5", calibration="c.json"))
    assert one["modalities"]["scores"]["share"] == 1.0


def test_nothing_is_said_where_lambda_is_flattened_too_or_where_there_is_none(data):
    unoic_cli.search_lambda("val.h5", delta="delta.json", order="rebalance-first", lam=0.5, output="r.json")
    assert not w6(unoic_cli.evaluate("new.h5", calibration="r.json"))
    assert not w6(unoic_cli.compare("new.h5", methods=["c.json@0", "r.json"]))
    assert not w6(unoic_cli.evaluate("val.h5", calibration="c.json"))
    unoic_cli.search_lambda("val.h5", delta="delta.json", lam=0.5, target_prior=COUNTS, output="s.json")
    assert not w6(unoic_cli.evaluate("new.h5", calibration="s.json"))


def test_statistics_of_before_have_no_largest_and_say_nothing(data):
    content = json.loads(Path("c.json").read_text())
    assert content["modalities"][0]["delta"].pop("largest") > 0
    Path("old.json").write_text(json.dumps(content))
    assert not w6(unoic_cli.evaluate("new.h5", calibration="old.json"))
    content["modalities"][0]["delta"]["largest"] = -1
    Path("bad.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="largest -1"):
        unoic_cli.evaluate("new.h5", calibration="bad.json")


def test_pixels_have_a_least_delta_of_their_own(data):
    unoic_cli.fit_delta("val.h5", per_pixel=True, output="p.json")
    (val, _), (new, _) = data
    own = naive.entropy(naive.softmax(np.moveaxis(val, 1, -1).astype(np.float64)))
    statistics = DeltaStatistics.load("p.json")
    assert statistics.largest == pytest.approx(own.max(), rel=1e-12)
    unoic_cli.search_lambda("val.h5", delta="p.json", lam=0.5, output="pc.json")
    there = naive.entropy(naive.softmax(np.moveaxis(new, 1, -1).astype(np.float64)))
    low = naive.entropy_delta(there, own.mean(), own.std()) < 0.75 * statistics.least
    found = w6(unoic_cli.evaluate("new.h5", calibration="pc.json"))
    assert bool(found) == (low.mean() >= 0.05)
    if found:
        assert found[0]["modalities"]["scores"]["share"] == low.mean()


def test_shards_and_states_say_the_same(data, capfd):
    cli.run(["evaluate", "new.h5", "-c", "c.json"])
    whole = capfd.readouterr()
    assert "W6" in whole.err
    for i in (1, 2):
        assert cli.run(["evaluate", "new.h5", "-c", "c.json", "--shard", f"{i}/2", "--state", f"{i}.unoic"]) == 0
        assert cli.run(["fit-delta", "val.h5", "--shard", f"{i}/2", "--state", f"d{i}.unoic"]) == 0
    capfd.readouterr()
    assert cli.run(["merge", "1.unoic", "2.unoic"]) == 0
    assert capfd.readouterr().out == whole.out
    assert cli.run(["fit-delta", "val.h5"]) == 0
    once = capfd.readouterr().out
    assert cli.run(["merge", "d2.unoic", "d1.unoic"]) == 0
    assert capfd.readouterr().out == once


def test_strict_refuses(data, capfd):
    assert cli.run(["calibrate", "new.h5", "-c", "c.json", "--strict", "-o", "o.h5"]) == 65
    out, err = capfd.readouterr()
    assert out == "" and err.splitlines()[-1].startswith("unoic: error: new.h5: W6: delta falls below all")


def test_methods_are_named_and_modalities_apart(data, capfd):
    labels = data[1][1]
    write("sure.h5", np.repeat(images(10, 3.0, 3)[0][:5], 2, axis=0), labels)
    unoic_cli.fit_delta({"a": "val.h5"}, output="a.json")
    unoic_cli.fit_delta({"b": "val.h5"}, output="b.json")
    both = {"a": "val.h5", "b": "val2.h5"}
    write("val2.h5", *data[0])
    unoic_cli.search_lambda(both, delta={"a": "a.json", "b": "b.json"}, lam="a=0.5,b=0.2", output="ab.json")
    result = unoic_cli.compare(
        {"a": "sure.h5", "b": "new.h5"}, methods=["first=average", "ours=ab.json", "less=ab.json@0.1"]
    )
    found = w6(result)
    assert [one["method"] for one in found] == ["ours", "less"]
    assert all(set(one["modalities"]) == {"b"} for one in found)
    assert found[0]["text"].startswith("ours: delta falls") and "lambda 0.2 weighs" in found[0]["text"]
    (alone,) = w6(unoic_cli.evaluate({"a": "sure.h5", "b": "new.h5"}, calibration="ab.json"))
    assert alone["modalities"] == found[0]["modalities"] and "method" not in alone


def test_fused_scores_as_they_are_have_their_delta_and_evaluate_says_so(data):
    write("val2.h5", *data[0])
    both = {"a": "val.h5", "b": "val2.h5"}
    for name, file in both.items():
        unoic_cli.fit_delta({name: file}, output=f"{name}.json")
    delta = {name: f"{name}.json" for name in both}
    found = unoic_cli.evaluate(both, delta=delta, lam=0.2)
    assert "as it is: the fusion at lambda 0, with delta" in found.notes
    zero = unoic_cli.evaluate(both, delta=delta, lam=0.0)
    assert found.before.values == zero.overall.values
    assert not any(note.startswith("as it is") for note in unoic_cli.evaluate(both, lam=0.2).notes)
    assert not any(note.startswith("as it is") for note in unoic_cli.evaluate("val.h5", delta="a.json", lam=0.2).notes)


def test_statistics_of_pixels_are_refused_for_rows(data):
    unoic_cli.fit_delta("val.h5", per_pixel=True, output="p.json")
    rows = np.moveaxis(data[0][0], 1, -1).reshape(-1, K)
    write("rows.h5", rows, data[0][1].reshape(-1))
    with pytest.raises(DataError, match="rows, and delta statistics of pixels"):
        unoic_cli.evaluate("rows.h5", delta="p.json", lam=0.4)
