"""npz, npy, safetensors and CSV as outputs: other libraries read what was meant, and every bit comes back."""

from __future__ import annotations

import json
import pathlib

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli import cli, formats
from unoic_cli.formats import plain_writer
from unoic_cli.formats.block import LogitBlock, OutputSpec

RNG = np.random.default_rng(5)
Z, Y = RNG.normal(size=(300, 4)).astype("f4"), RNG.integers(0, 4, 300)
IMAGES, MASKS = RNG.normal(size=(5, 3, 4, 6)).astype("f4"), RNG.integers(0, 3, (5, 4, 6)).astype("u1")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd):
    def runner(*args, code=0):
        assert cli.run([str(arg) for arg in args]) == code, capfd.readouterr().err
        out, err = capfd.readouterr()
        return (json.loads(out) if out.startswith("{") else out, err) if code == 0 else err

    return runner


def store(name="x.h5", **arrays):
    with h5py.File(name, "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return name


def rows():
    return store(
        logits=Z, labels=Y, source_counts=[9, 3, 2, 1], class_names=["a", "b", "c", "d"],
        split=np.array(["val", "tést"] * 150, object), group=np.array([f"g{i % 7}" for i in range(300)], object),
        sample_id=np.arange(300), delta=np.linspace(0.5, 1, 300),
    )  # fmt: skip


def test_numpy_reads_the_npz(run):
    run("convert", rows(), "o.npz")
    with np.load("o.npz") as found:
        assert found["logits"].dtype == np.float32 and (found["logits"] == Z).all()
        assert (found["labels"] == Y).all() and found["split"].tolist() == ["val", "tést"] * 150
        assert found["group"][8] == "g1" and (found["sample_id"] == np.arange(300)).all()
        assert found["class_names"].tolist() == list("abcd") and found["source_counts"].tolist() == [9, 3, 2, 1]
        np.testing.assert_array_equal(found["delta"], np.linspace(0.5, 1, 300))


@pytest.mark.parametrize("long", [300, 500, 5000])
def test_archives_of_any_size(run, monkeypatch, long):
    """Sizes and places that 32 bits cannot hold are told in 64: here, all above a few bytes."""
    monkeypatch.setattr(plain_writer, "_LONG", long)
    packed = plain_writer.struct.pack

    def widened(form, *values):  # what is at the limit is told as all ones
        return packed(form, *(0xFFFFFFFF if value == long and "I" in form else value for value in values))

    monkeypatch.setattr(plain_writer.struct, "pack", widened)
    run("convert", rows(), "o.npz")
    with np.load("o.npz") as found:
        assert (found["logits"] == Z).all() and (found["labels"] == Y).all()


@pytest.mark.parametrize("layout", ["planes", "rows"])
def test_images(run, layout):
    logits = IMAGES if layout == "planes" else np.moveaxis(IMAGES, 1, -1)
    with h5py.File("x.h5", "w") as file:
        file["logits"], file["labels"] = logits, MASKS
        file["logits"].attrs["class_axis"] = 1 if layout == "planes" else -1
    wanted = run("evaluate", "x.h5")[0]["acc"]
    for name in ("o.npz", "o.safetensors"):
        run("convert", "x.h5", name)
        assert run("evaluate", name)[0]["acc"] == wanted
        run("convert", name, "back.h5", "--force")
        with h5py.File("back.h5") as back:
            assert (back["logits"][...] == logits).all() and (back["labels"][...] == MASKS).all()
    if layout == "rows":
        assert "which npy cannot say" in run("convert", "x.h5", "o.npy", code=2)
    else:
        run("convert", "x.h5", "o.npy")
        assert (np.load("o.npy") == IMAGES).all()
    assert "images, which lines cannot say" in run("convert", "x.h5", "o.csv", code=2)
    assert not pathlib.Path("o.csv").exists()


def test_the_library_reads_safetensors(run):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    _, err = run("convert", rows(), "o.safetensors")
    assert "holds no group, sample_id, split: left out" in err
    found = load_file("o.safetensors")
    assert (found["logits"] == Z).all() and (found["labels"] == Y).all()
    assert run("info", "o.safetensors")[0]["files"][0]["class_names"] == list("abcd")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    st.sampled_from(["o.csv", "o.tsv", "o.npz", "o.safetensors"]),
    st.integers(0, 2**32 - 1),
)
def test_every_bit_comes_back(encoding, name, seed):
    """Whatever the bits of the scores, as long as they are numbers."""
    if encoding == "bfloat16" and name == "o.npz":
        return
    rng = np.random.default_rng(seed)
    size = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}[encoding]
    bits = rng.integers(0, 1 << 8 * size, (20, 3), dtype=f"u{size}")
    exponent = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}[encoding]
    bits[(bits & exponent) == exponent] = 0
    spec = OutputSpec(20, 3, (), "logits", encoding, "rows", dtypes={"labels": "int64"})
    pathlib.Path(name).unlink(missing_ok=True)
    writer = formats.create(name, spec)
    scores = bits if size == 2 else bits.view(f"f{size}")
    for start, stop in ((0, 7), (7, 20)):
        writer.write(LogitBlock(start, stop, scores=scores[start:stop], labels=np.arange(start, stop) % 3))
    writer.commit()
    source = formats.describe(name)
    (block,) = source.open().blocks(0, 20, frozenset({"scores", "labels"}))
    assert (block.labels == np.arange(20) % 3).all()
    if name.endswith("sv"):
        wide = formats.single.wide(scores, encoding)
        assert block.scores.tobytes() == (wide + 0.0 * (wide == 0)).tobytes() or (block.scores == wide).all()
    else:
        assert block.scores.tobytes() == scores.tobytes()


def test_rounding_is_counted(run):
    close = Z.copy()
    close[:40, 1] = close[:40].max(1) + 1e-6  # a class above the others that float16 cannot tell from them
    store("c.h5", logits=close, labels=Y)
    half = close.astype("f2")
    wanted = int((half.argmax(1) != close.argmax(1)).sum())
    assert wanted > 5
    for name in ("o.npz", "o.h5", "o.safetensors"):
        found, _ = run("convert", "c.h5", name, "--dtype", "float16")
        assert found["changed"] == wanted and found["encoding"] == "float16"
    assert (np.load("o.npz")["logits"] == half).all()
    assert run("convert", "c.h5", "o2.npz")[0]["changed"] is None
    assert run("convert", "o.npz", "o3.npz", "--dtype", "float32")[0]["changed"] is None
    assert "--dtype: 'int8'; expected one of" in run("convert", "c.h5", "o4.npz", "--dtype", "int8", code=2)
    store("big.h5", logits=close * 1e6, labels=Y)
    assert "expected values in the range of float16" in run(
        "convert", "big.h5", "o5.npz", "--dtype", "float16", code=65
    )
    assert "numpy has no type for" in run("convert", "c.h5", "o6.npz", "--dtype", "bfloat16", code=2)
    assert not list(pathlib.Path().glob("*o[56]*"))


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "csv", "npy"])
def test_calibrated_scores_in_every_form(run, suffix):
    run("calibrate", rows(), "--lambda", "1", "-o", "o.h5")
    run("calibrate", "x.h5", "--lambda", "1", "-o", f"o.{suffix}")
    labels = () if suffix != "npy" else ("--labels", "x.h5::labels", "--kind", "log_probs")
    got, wanted = run("evaluate", f"o.{suffix}", *labels)[0], run("evaluate", "o.h5")[0]
    assert [got[key] for key in ("acc", "macc", "miou", "n")] == [wanted[key] for key in ("acc", "macc", "miou", "n")]


def test_predictions_alone(run):
    run("calibrate", rows(), "--lambda", "1", "--emit", "predictions", "-o", "o.npz")
    run("calibrate", "x.h5", "--lambda", "1", "--emit", "predictions", "-o", "o.h5")
    assert run("evaluate", "o.npz")[0]["acc"] == run("evaluate", "o.h5")[0]["acc"]
    with np.load("o.npz") as found:
        assert found["n_classes"] == 4 and found["predictions"].shape == (300,)


def test_threads_and_blocks_give_the_same_bytes(monkeypatch):
    rows()
    found = set()
    for threads, size in ((1, 1 << 20), (3, 200), (2, 1000)):
        monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", size)
        unoic_cli.calibrate("x.h5", lam=1.0, output="o.npz", threads=threads, force=True)
        found.add(pathlib.Path("o.npz").read_bytes())
    assert len(found) == 1
