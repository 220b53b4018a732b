"""info explains calibrations, statistics, priors, states, layers and models; what is damaged is one line."""

from __future__ import annotations

import contextlib
import io
import json
import math
import pathlib
import shlex
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import unoic_cli
from unoic_cli import Calibration
from unoic_cli.calibrations.calibration import Modality
from unoic_cli.calibrations.delta import DeltaStatistics
from unoic_cli.calibrations.prior import Prior
from unoic_cli.errors import DataError, NoInputError, UnoicError
from unoic_cli.report.info import render_info
from unoic_cli.storage import protobuf

ROOT = pathlib.Path(__file__).resolve().parents[1]
D, S = "sample_data/digits_lt", "sample_data/streets"
NAMES = ("cat", "dog", "cow", "elk", "bee", "ant", "fly", "owl")


@pytest.fixture(autouse=True)
def sample(tmp_path, monkeypatch):
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    monkeypatch.chdir(tmp_path)


def made(counts=(80, 40, 20, 10, 5, 2, 1, 1), lam=0.5, names=NAMES, **more):
    prior = Prior.from_weights([float(one) for one in counts], "given", counts=True)
    target = Prior.from_weights([1.0] * len(counts), "uniform", counts=False)
    return Calibration(lam, target, (Modality(None, prior, **more),), class_names=names)


def seen(name, **options):
    result = unoic_cli.info(name, **options)
    assert not result.files and len(result.explained) == 1
    console = Console(width=200, file=io.StringIO())
    console.print(render_info(result))
    return result.explained[0], console.file.getvalue()


def save(content, path="x.json"):
    pathlib.Path(path).write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_calibration(answer):
    found = answer("search-lambda", f"{D}/val.h5", "-o", "c.json")
    told, shown = seen("c.json")
    assert (told.what, told.n_classes, told.name) == ("calibration", 10, "c.json")
    assert told.says["lambda"] == found["lambda"] and told.says["calibration"] == found["calibration"]
    layer = unoic_cli.export("c.json")
    assert told.says["shifts"] == {"": list(layer.bias)}
    for text in (f"{D}/val.h5", "macc", "unoic 0.1.0", "imbalance 113 : 1", "350 labelled units", "beyond the target"):
        assert text in shown
    order = np.argsort(layer.bias)
    assert f"{order[-1]} {layer.bias[order[-1]]:+.3g}" in shown and f"{order[0]} {layer.bias[order[0]]:+.3g}" in shown
    for line in told.next:
        words = shlex.split(line.replace("test.h5", f"{D}/test.h5"))[1:]
        assert answer(*words)["schema"].startswith(f"unoic.{words[0]}/")


@pytest.mark.parametrize("command", ["search-lambda", "fit-temperature", "calibrate"])
def test_results_that_hold_a_calibration(answer, command):
    found = answer(command, f"{D}/val.h5", *(["-o", "o.h5"] if command == "calibrate" else []))
    told, shown = seen(save(found))
    assert told.says["calibration"] == found["calibration"]
    assert f"a calibration, in a result of unoic {command}" in shown


@pytest.mark.parametrize(
    ("lam", "said"),
    [
        (0.0, "0: nothing is rebalanced"),
        (0.25, "0.25: this share of the way from the source prior to the target prior"),
        (1.0, "1: the whole of the way"),
        (2.5, "2.5: beyond the target prior: this many times the way"),
        (-1.0, "-1: away from the target prior"),
    ],
)
def test_what_lambda_means(lam, said):
    made(lam=lam).save("c.json")
    assert said in seen("c.json")[1]


def test_of_each_class():
    """The classes that are raised and lowered most, offsets included; those that are never predicted."""
    offsets = tuple(range(8))
    calibration = made((80, 40, 20, 10, 5, 2, 0, 0), offsets=offsets, temperature=2.0)
    calibration.save("c.json")
    told, shown = seen("c.json")
    shifts = 0.5 * np.log(1 / 6 / (np.array([80, 40, 20, 10, 5, 2]) / 157)) + offsets[:6]
    known = calibration.slopes().values[:6] * 0.5 + offsets[:6]
    np.testing.assert_allclose(np.diff(known), np.diff(shifts))
    assert told.says["shifts"][""] == [*known, None, None]
    assert f"ant {known[5]:+.3g}, bee {known[4]:+.3g}" in shown and f"cat {known[0]:+.3g}" in shown
    assert "2 classes are never predicted" in shown and "temperature" in shown and "z / T + these" in shown
    assert "imbalance 40 : 1, 2 of prior 0" in shown


def test_many_classes_are_cut():
    names = tuple(f"class {k}" for k in range(1000))
    made(range(1, 1001), names=names).save("c.json")
    told, shown = seen("c.json")
    assert (
        len(told.says["shifts"][""]) == 1000 and len(shown) < 3000 and "class 0 +" in shown and "class 999 -" in shown
    )
    assert len(repr(told).splitlines()) <= 5


def test_several_networks(answer):
    inputs = [f"{name}={S}/{name}/val.h5" for name in ("rgb", "depth")]
    answer("search-lambda", *inputs, "--delta", "fit", "--per-modality", "-o", "c.json")
    told, shown = seen("c.json")
    assert set(told.says["shifts"]) == {"rgb", "depth"} and "noisy-or of depth, rgb" in shown
    assert "rgb, delta" in shown and "of each sample by its entropy: 1 up to" in shown and "depth, lambda" in shown
    assert not any("export" in line for line in told.next)
    line = told.next[0]
    for name in ("rgb", "depth"):
        line = line.replace(f"{name}.h5", f"{S}/{name}/test.h5")
    assert answer(*shlex.split(line)[1:])["n"] > 0


def test_statistics(answer):
    answer("fit-delta", f"rgb={S}/rgb/val.h5", "-o", "d.json")
    told, shown = seen("d.json")
    stored = DeltaStatistics.load("d.json")
    assert told.what == "delta statistics" and told.says == {"statistics": stored.to_dict(), "least": stored.least}
    assert f"1 up to {stored.mu + stored.sigma:.4g} nats" in shown and f"{stored.least:.4g} at the largest" in shown
    for line, name in zip(told.next, ("val", "test"), strict=True):
        assert answer(*shlex.split(line.replace(f"rgb={name}.h5", f"rgb={S}/rgb/{name}.h5"))[1:])
    printed = answer("fit-delta", f"{D}/val.h5")
    assert "in a result of unoic fit-delta" in seen(save(printed))[1]


def test_priors(answer):
    answer("prior", f"{D}/test.h5", "-o", "p.json")
    told, shown = seen("p.json")
    assert told.what == "prior" and told.n_classes == 10 and sum(told.says["counts"]) > 0
    assert f"{D}/test.h5" in shown and "class counts" in shown
    for line in told.next:
        words = shlex.split(line.replace("val.h5", f"{D}/val.h5").replace("test.h5", f"{D}/test.h5"))[1:]
        assert answer(*words)["n"] > 0
    answer("prior", "--estimate", f"{D}/test.h5", "--labelled", f"{D}/val.h5", "-o", "e.json")
    told, shown = seen("e.json")
    assert "by map-em, " in shown and "--target-prior e.json" in told.next[0] and told.says["counts"] is None


@pytest.mark.parametrize(
    ("path", "text", "names", "prior"),
    [
        ("a.json", "[3, 1]", None, (0.75, 0.25)),
        ("a.json", '{"0": 3, "1": 1}', None, (0.75, 0.25)),
        ("a.json", '{"cat": 3, "dog": 1}', ("cat", "dog"), (0.75, 0.25)),
        ("a.json", '{"counts": [3, 1], "class_names": ["cat", "dog"]}', ("cat", "dog"), (0.75, 0.25)),
        ("a.json", "\ufeff[0.75, 0.25]", None, (0.75, 0.25)),
        ("a.csv", "class,count\ncat,3\ndog,1\n", ("cat", "dog"), (0.75, 0.25)),
        ("a.tsv", "cat\t3\ndog\t1\n", ("cat", "dog"), (0.75, 0.25)),
        ("a.csv", "count,class\n3,cat\n1,dog\n", ("cat", "dog"), (0.75, 0.25)),
        ("a.csv", "cat,dog\n3,1\n", ("cat", "dog"), (0.75, 0.25)),
        ("a.txt", "3\n1\n", None, (0.75, 0.25)),
    ],
)
def test_priors_as_people_write_them(path, text, names, prior):
    told, _ = seen(save(text, path))
    assert (told.class_names, tuple(told.says["prior"]), told.n_classes) == (names, prior, 2)


def test_a_table_of_scores_stays_one():
    save("logits_0,logits_1,label\n1.5,2,0\n0.5,-1,1\n", "x.csv")
    result = unoic_cli.info("x.csv")
    assert result.files[0].kind == "logits" and not result.explained


def test_states(answer):
    shards = [f"{i}.unoic" for i in (1, 2)]
    for i, path in enumerate(shards, 1):
        answer("evaluate", f"{D}/val.h5", "--shard", f"{i}/2", "--state", path)
    told, shown = seen("1.unoic")
    assert told.what == "state" and told.says["shard"] == [1, 2] and told.says["command"] == "evaluate"
    assert "175 of 350" in shown and "1 of 2" in shown and "unoic merge" in told.next[0]
    answer("merge", *shards, "-o", "all.unoic")
    told, shown = seen("all.unoic")
    assert told.next == ("unoic report all.unoic",) and "350 of 350" in shown and f"{D}/val.h5" in shown
    assert answer("report", "all.unoic")["n"] == 350


def test_layers(answer):
    calibration = made((80, 40, 20, 10, 5, 2, 1, 0), temperature=2.0)
    layer = unoic_cli.export(calibration)
    for form in ("npz", "json", "safetensors"):
        unoic_cli.export(calibration, bias=f"layer.{form}")
        told, shown = seen(f"layer.{form}")
        assert told.what == "layer" and told.says["scale"] == 0.5 and told.n_classes == 8
        assert told.says["bias"] == [None if value == -math.inf else value for value in layer.bias]
        assert "temperature 2" in shown and "1 class is never predicted" in shown and "scale * bias" in shown
        assert ("fly" in shown) == (form == "json") == ("0.5: this share" in shown)


def test_a_model(answer):
    onnx = pytest.importorskip("onnx", reason="pip install 'unoic[onnx]'")
    from onnx import TensorProto, helper, numpy_helper

    weights = {"w": np.zeros((3, 8), "f4"), "c": np.zeros(8, "f4")}
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "c"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="here")
    onnx.save(model, "m.onnx")
    told, shown = seen("m.onnx")
    assert told.what == "model" and told.n_classes == 8 and told.says["calibration"] is None
    assert told.says["opset"] == 17 and told.says["ir_version"] == 8 and told.says["n_nodes"] == 2
    assert told.says["weight_bytes"] == 4 * 32 and told.says["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": ["N", 3]}
    ]
    assert "an ONNX model by here" in shown and "y (N, 8) float32, by Softmax" in shown
    made().save("calibration.json")
    assert answer(*shlex.split(told.next[0])[1:])["output"] == "m.calibrated.onnx"
    told, shown = seen("m.calibrated.onnx")
    assert told.says["calibration"] == made().to_dict() and told.says["calibrated"] == "y" and told.class_names == NAMES
    assert "output y, by unoic export" in shown and "0.5: this share of the way" in shown
    external = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(model, "e.onnx", **external)
    assert "in weights.bin, too" in seen("e.onnx")[1]


def test_models_are_not_read_whole(monkeypatch):
    """What a model weighs is stepped over."""
    onnx = pytest.importorskip("onnx", reason="pip install 'unoic[onnx]'")
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1000])],
        [numpy_helper.from_array(np.zeros((1000, 1000), "f4"), "w")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph), "m.onnx")
    read = []
    pread = protobuf.os.pread
    monkeypatch.setattr(protobuf.os, "pread", lambda file, size, at: read.append(size) or pread(file, size, at))
    assert seen("m.onnx")[0].says["weight_bytes"] == 4_000_000
    assert sum(read) < 10_000


def test_scores_and_others_together(answer):
    made().save("c.json")
    found = answer("info", f"{D}/val.h5", "c.json", f"{D}/test.h5")
    assert [one["name"] for one in found["files"]] == [f"{D}/val.h5", f"{D}/test.h5"]
    assert [one["what"] for one in found["explained"]] == ["calibration"]
    assert set(found["explained"][0]) == {
        "name", "what", "n_bytes", "n_classes", "class_names", "about", "says", "next",
    }  # fmt: skip
    assert found["explained"][0]["n_bytes"] == pathlib.Path("c.json").stat().st_size


def test_a_stored_run_explains_the_same(answer):
    made().save("c.json")
    answer("info", f"{D}/val.h5", "--state", "v.unoic")
    inputs = (f"{D}/val.h5", "c.json", "v.unoic")
    answer("info", *inputs, "--state", "i.unoic")
    stored, direct = answer("report", "i.unoic"), answer("info", *inputs)
    assert stored["explained"] == direct["explained"] and len(direct["explained"]) == 2


def tensors(header, data=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


BAD_TENSOR = {"dtype": "F64", "shape": [3], "data_offsets": [0, 8]}
DAMAGED = {
    "an object": ("x.json", '{"a": {}}', "x.json: JSON of another kind ("),
    "text": ("x.json", '["a"]', "JSON of another kind (entries that are not numbers); expected a calibration"),
    "deep": ("x.json", "[" * 100_000, "JSON that is damaged"),
    "cut": ("x.json", '{"format": "unoic cal', "JSON that is damaged"),
    "another version": ("x.json", '{"schema": "unoic.prior/9"}', "schema unoic.prior/9; expected unoic.prior/1"),
    "a result": ("x.json", '{"schema": "unoic.evaluate/1", "n": 3}', "a result of unoic evaluate; expected"),
    "calibration": ("x.json", '{"format": "unoic calibration", "version": 9}', "calibration version 9"),
    "statistics": ("x.json", '{"format": "unoic delta statistics", "version": 1}', "damaged delta statistics"),
    "layer": ("x.json", '{"scale": 1, "bias": ["a"]}', "a damaged layer"),
    "large": ("x.json", json.dumps({"scale": 10**400, "bias": [1]}), "a damaged layer"),
    "negative": ("x.json", "[3, -1]", "-1 for class 1"),
    "no text": ("x.json", b"{\xff\xfe}", "no text (it is not UTF-8)"),
    "state": ("x.unoic", b"unoic state 1\n" + bytes(100), "a damaged state file"),
    "old state": ("x.unoic", b"unoic state 0\n" + bytes(100), "of another format version"),
    "safetensors": ("x.safetensors", b"\xff" * 20, "no message"),
    "other tensors": ("x.safetensors", tensors({"weight": BAD_TENSOR}, bytes(8)), "x.safetensors:weight"),
    "short tensors": ("x.safetensors", tensors({"scale": BAD_TENSOR, "bias": BAD_TENSOR}, bytes(8)), "inside the file"),
    "model": ("x.onnx", b"no model", "damaged, or a file of another kind"),
    "empty model": ("x.onnx", b"", "damaged, or a file of another kind (no graph with outputs)"),
    "archive": ("x.npz", b"PK\3\4 no archive", "truncated or corrupt"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_damaged_is_one_line(refuse, case):
    path, content, said = DAMAGED[case]
    pathlib.Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said in refuse(65, "info", path)


def test_an_archive_of_other_things(refuse):
    np.savez("x.npz", scale=1.0, bias=np.zeros(3), logits=np.zeros((2, 3)))
    assert unoic_cli.info("x.npz").files[0].kind == "logits"
    np.savez("x.npz", scale=np.zeros(2), bias=np.zeros(3))
    assert "no scores among scale (2,)" in refuse(65, "info", "x.npz")
    np.savez("x.npz", scale=np.array("a"), bias=np.zeros(3))
    assert "a damaged layer" in refuse(65, "info", "x.npz")


def test_files_that_are_not_there(refuse):
    assert refuse(66, "info", "none.json").startswith("none.json: no such file")
    pathlib.Path("folder.json").mkdir()
    with pytest.raises(NoInputError):
        unoic_cli.info("folder.json")


def test_what_files_say_is_text(run):
    """Provenance may be anything; names may hold anything."""
    names = tuple(f"\x1b[31m{name}\u202e" for name in NAMES)
    odd = [
        {}, {"files": 3, "metric": [], "unoic": {}, "split": 1}, {"files": [["a"], None]},
        {"files": ["\x1b[2J"] * 9, "split": "\n", "metric": "\x07"},
    ]  # fmt: skip
    for provenance in odd:
        replace(made(names=names), provenance=provenance).save("c.json")
        code, out, _ = run("info", "c.json", "--format", "table")
        assert code == 0 and "\x1b" not in out and "\u202e" not in out and "\x07" not in out
        assert json.loads(run("info", "c.json")[1])["explained"][0]["class_names"] == list(names)


def test_small_files_stay_small(refuse):
    with open("x.json", "wb") as file:
        file.write(b"[")
        file.truncate(65 << 20)
    assert "bytes; expected a calibration" in refuse(65, "info", "x.json")


@pytest.mark.parametrize("form", ["json", "npz", "safetensors", "onnx", "unoic"])
def test_changed_bytes(form, answer):
    """An explanation, or one line."""
    path = f"x.{form}"
    if form == "onnx":
        onnx = pytest.importorskip("onnx", reason="pip install 'unoic[onnx]'")
        from onnx import TensorProto, helper

        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 8]) for name in "xy"]
        onnx.save(
            helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", *[[v] for v in values])),
            path,
        )
    elif form == "unoic":
        answer("evaluate", f"{D}/val.h5", "--state", path)
    elif form == "json":
        made().save(path)
    else:
        unoic_cli.export(made(), bias=path)
    whole, rng, right = pathlib.Path(path).read_bytes(), np.random.default_rng(0), 0
    for i in range(120):
        content = bytearray(whole[: i * len(whole) // 60] if i < 60 else whole)
        for _ in range(0 if i < 60 else 2):
            content[rng.integers(len(whole))] = rng.integers(256)
        pathlib.Path(path).write_bytes(content)
        with contextlib.suppress(UnoicError):
            unoic_cli.info(path)
            right += 1
    assert right < 120


def test_a_wire_that_does_not_end(monkeypatch):
    pathlib.Path("x.onnx").write_bytes(b"\x08\x01" * 1000)
    monkeypatch.setattr(protobuf, "MOST_FIELDS", 100)
    with pytest.raises(DataError, match="more fields than any such file needs"):
        unoic_cli.info("x.onnx")
    pathlib.Path("x.onnx").write_bytes(b"\x12\x50" + bytes(0x50))
    monkeypatch.setattr(protobuf, "MOST_TEXT", 10)
    with pytest.raises(DataError, match="more text than any such file needs"):
        unoic_cli.info("x.onnx")
