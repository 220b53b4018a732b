"""npz and npy as inputs of every command: any order, packing and layout gives what the converted file gives."""

from __future__ import annotations

import json
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli import cli, formats
from unoic_cli.errors import DataError, StorageError, UsageError
from unoic_cli.formats import boxes, npz, schema
from unoic_cli.formats.names import Asked

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(90, 4)).astype("f4") * 2
LABELS = RNG.choice(4, 90, p=[0.6, 0.2, 0.15, 0.05])
IMAGES = RNG.normal(size=(5, 3, 6, 7)).astype("f2")
ROWS = {
    "logits": LOGITS,
    "labels": LABELS,
    "split": np.array(["val", "test", "b"] * 30),
    "group": np.array([3, 1, 2] * 30),
    "sample_id": np.arange(90),
    "delta": RNG.uniform(0.5, 1, 90),
    "source_counts": np.array([60, 20, 15, 5]),
    "class_names": np.array(list("wxyz")),
}
PLANES = {
    "probabilities": (np.exp(IMAGES.astype("f4")) / np.exp(IMAGES.astype("f4")).sum(1, keepdims=True)).astype("f4"),
    "y": RNG.integers(0, 3, (5, 6, 7)).astype("i2"),
    "delta": np.ones(5),
    "train_counts": np.array([5, 2, 1]),
}
SAVES = {"stored": np.savez, "packed": np.savez_compressed}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd):
    def runner(*args, code=0):
        assert cli.run([str(arg) for arg in args]) == code
        out, err = capfd.readouterr()
        return out if code == 0 else err

    return runner


def store(arrays, how="stored", order="C", name="x.npz"):
    SAVES[how](name, **{key: np.asarray(value, order=order) for key, value in arrays.items()})
    return name


COMMANDS = (
    ("evaluate",),
    ("evaluate", "--lambda", "0.7", "--target-prior", "uniform", "--threads", "2"),
    ("search-lambda", "--folds", "2"),
    ("fit-temperature",),
    ("prior",),
    ("compare", "-m", "c.json", "-m", "half=c.json@0.5"),
    ("fit-delta", "-o", "d.json", "--force"),
)


@pytest.mark.parametrize("how", SAVES)
@pytest.mark.parametrize(("arrays", "order"), [(ROWS, "C"), (ROWS, "F"), (PLANES, "C"), (PLANES, "F")])
def test_every_command_equals_the_converted_file(run, arrays, order, how):
    name = store(arrays, how, order)
    unoic_cli.convert(name, "x.h5")
    run("search-lambda", "x.h5", "-o", "c.json")
    for command in COMMANDS:
        outs = [json.loads(run(*command, name, "--format", "json")) for name in (name, "x.h5")]
        assert json.dumps(plain(outs[0])) == json.dumps(plain(outs[1])), command
    files = []
    for source in (name, "x.h5"):
        for command in (("calibrate", "--lambda", "0.5"), ("pack",)):
            out = ("-o", "out.h5") if command[0] == "calibrate" else ("out.h5",)
            run(*command, source, *out, "--force")
            found = formats.describe("out.h5")
            files.append([block(found, field) for field in ("scores", *sorted(found.fields - {"sample_id"}))])
    half = len(files) // 2
    for ours, theirs in zip(files[:half], files[half:], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def plain(found):
    """A result without what says which file it is of."""
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items() if key not in ("notes", "files", "created")}
    if isinstance(found, list):
        return [plain(one) for one in found]
    return found.replace("x.npz", "x.h5") if isinstance(found, str) else found


def block(source, field):
    reader = formats.open_reader(source)
    found = [np.array(getattr(one, field)) for one in reader.blocks(0, source.n_units, frozenset({field}))]
    reader.close()
    return np.concatenate(found)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    image=st.sampled_from([(), (3, 4)]),
    dtype=st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8"]),
    order=st.sampled_from("CF"),
    how=st.sampled_from(["stored", "packed", "npy"]),
    cut=st.tuples(st.integers(0, 71), st.integers(1, 72)),
)
def test_any_range_equals_the_arrays(tmp_path, image, dtype, order, how, cut):
    n = 72 if not image else 6
    logits = np.random.default_rng(1).normal(size=(n, 3, *image)).astype(dtype)
    name = str(tmp_path / ("x.npy" if how == "npy" else "x.npz"))
    if how == "npy":
        np.save(name, np.asarray(logits, order=order))
    else:
        store({"logits": logits}, how, order, name)
    boxes._unpacked.cache_clear()
    asked = Asked(class_axis=1, kind="logits") if image else Asked(kind="logits")
    source = pickle.loads(pickle.dumps(formats.describe(name, asked=asked)))
    start, stop = sorted({min(cut), max(cut[1], min(cut) + 1)})
    reader, found = formats.open_reader(source), []
    for one in reader.blocks(start, stop, frozenset({"scores"})):
        scores = one.scores.view(np.dtype(dtype).newbyteorder("=")) if dtype[1:] == "f2" else one.scores
        found.append(np.array(scores.transpose(0, 2, 1).reshape(-1, 3) if scores.ndim == 3 else scores))
    reader.close()
    units = logits if not image else logits.transpose(0, 2, 3, 1).reshape(-1, 3)
    np.testing.assert_array_equal(np.concatenate(found), units[start:stop])


def test_what_is_said(run):
    name = store(PLANES | {"embedding": np.zeros((5, 8)), "meta": np.array([{}], dtype=object)}, "packed")
    source = formats.describe(name)
    assert (source.kind, source.storage, source.where("labels")) == ("probs", "compressed", "x.npz:y")
    assert source.notes == ("labels are read from y",)
    assert source.others == ("embedding", "meta (a pickled (object) array)")
    assert source.checksums == "crc32"
    assert source.read_path() == ("unpacked", "arrays that are compressed are unpacked to a temporary file first")
    assert "npz" in run("info", name)
    assert formats.describe(store(ROWS)).read_path() == ("contiguous", "")


def test_npy_without_labels(run):
    np.save("val_logits.npy", LOGITS)
    np.save("truth.npy", LABELS)
    assert formats.describe("val_logits.npy").kind == "logits"
    run("calibrate", "val_logits.npy", "--lambda", "1", "--source-prior", "1,2,3,4", "-o", "out.h5")
    assert "no labels" in run("evaluate", "val_logits.npy", code=65)
    source = formats.describe("val_logits.npy", asked=Asked(labels_file="truth.npy"))
    np.testing.assert_array_equal(block(source, "labels"), LABELS)
    assert "a group of a npy file" in run("evaluate", "val_logits.npy::a", code=2)


def test_a_number_alone_and_no_array():
    np.save("x.npy", np.float32(3))
    with pytest.raises(DataError, match="shape"):
        formats.describe("x.npy")
    np.savez("x.npz")
    with pytest.raises(DataError, match=r"unknown first bytes|no scores among nothing"):
        formats.describe("x.npz")
    with pytest.raises(DataError, match="no part or array a; expected one of logits"):
        formats.describe(store(ROWS) + "::a")


@pytest.mark.parametrize("how", SAVES)
def test_damage_is_never_silent(how):
    name = store({"logits": LOGITS, "labels": LABELS}, how)
    whole = pathlib.Path(name).read_bytes()
    for at in RNG.integers(0, len(whole), 150).tolist():
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(RNG.integers(8))
        with open(name, "wb") as file:
            file.write(damaged)
        boxes._unpacked.cache_clear()
        try:
            source = formats.describe(name)
            scores = block(source, "scores")
        except (DataError, UsageError):
            continue
        np.testing.assert_array_equal(scores, LOGITS)


def test_a_file_that_is_cut_or_changes():
    np.save("x.npy", LOGITS)
    source = formats.describe("x.npy")
    os.truncate("x.npy", 500)
    with pytest.raises(DataError, match="changed while it was in use"):
        source.open()
    with pytest.raises(DataError, match=r"x\.npy.*truncated"):
        formats.describe("x.npy")


def test_another_process_unpacks_for_itself():
    source = formats.describe(store(ROWS, "packed"))
    with open("source.pkl", "wb") as file:
        pickle.dump(source, file)
    code = (
        "import pickle, sys; source = pickle.load(open('source.pkl', 'rb'))\n"
        "print(sum(float(b.scores.sum(dtype='f8')) for b in source.open().blocks(0, 90, frozenset({'scores'}))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(found) == float(LOGITS.sum(dtype="f8"))


def test_no_room_for_what_is_unpacked(monkeypatch):
    name = store(ROWS, "packed")
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    boxes._unpacked.cache_clear()
    with pytest.raises(StorageError, match=r"no temporary file for .*x\.npz:logits.*TMPDIR"):
        block(formats.describe(name), "scores")


def test_integers_are_texts_where_texts_are_meant():
    source = formats.describe(store(ROWS))
    assert "group: integers, read as text" in source.notes
    assert block(source, "group").tolist() == ["3", "1", "2"] * 30
    assert block(source, "sample_id").tolist() == list(range(90))
    assert isinstance(source, npz.Npz) and schema.native(source.arrays["scores"].dtype) == np.float32


def test_a_nan_that_signals_is_one_error(run):
    scores = LOGITS.copy()
    scores.view("u4")[7, 1] = 0x7F800001
    np.save("x.npy", scores)
    assert "nan at row 7" in run("calibrate", "x.npy", "--lambda", "1", "--source-prior", "1,2,3,4", code=65).lower()
