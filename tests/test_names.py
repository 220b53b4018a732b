"""What arrays are called, which axis holds what, one column for two classes, scores that need care: in every format."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import unoic_cli
from unoic_cli.errors import DataError

USAGE, DATA = 2, 65
RNG = np.random.default_rng(5)
N, K = 60, 3
LABELS = RNG.integers(0, K, N)
LOGITS = (RNG.normal(size=(N, K)) + 1.5 * np.eye(K)[LABELS]).astype(np.float32)
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
BINARY = RNG.integers(0, 2, N)
ONE = (RNG.normal(size=N) + BINARY * 2 - 1).astype(np.float32)
SIGMOID = (1 / (1 + np.exp(-ONE))).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path, **arrays):
    """A file of arrays in the format of its suffix."""
    if path.endswith(".h5"):
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
        return path
    table = pa.table({name: list(v) if np.ndim(v) == 2 else v for name, v in arrays.items()})
    if path.endswith(".parquet"):
        pq.write_table(table, path)
    else:
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return path


FILES = ("x.h5", "x.parquet", "x.arrows")


def hits(result):
    return [row["hits"] for row in result["per_class"]]


def of(scores, labels, k=K):
    """Hits by plain numpy."""
    predicted = scores.argmax(axis=1)
    return [int(((labels == c) & (predicted == c)).sum()) for c in range(k)]


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize(
    ("scores", "values"),
    [
        ("logit", LOGITS),
        ("outputs", LOGITS),
        ("keras_predictions", PROBS),
        ("log_softmax", np.log(PROBS)),
        ("logits_rgb", LOGITS),
        ("predictions", PROBS),
    ],
)
@pytest.mark.parametrize("labels", ["targets", "masks"])
def test_names_of_the_table_are_understood_and_said(run, path, scores, values, labels):
    code, out, err = run("evaluate", write(path, **{scores: values, labels: LABELS}), "--format", "tsv")
    assert code == 0
    assert f"unoic: note: {path}: labels are read from {labels}\n" in err
    found = [int(line.split("\t")[4]) for line in out.splitlines()[1:]]
    assert found == of(LOGITS, LABELS)


@pytest.mark.parametrize("path", FILES[1:])
@pytest.mark.parametrize(("stem", "values"), [("logit", LOGITS), ("prob", PROBS), ("score", PROBS)])
def test_numbered_columns_go_by_the_name_before_the_number(answer, path, stem, values):
    columns = {f"{stem}_{k}": values[:, k] for k in range(K)}
    assert hits(answer("evaluate", write(path, **columns, target=LABELS))) == of(LOGITS, LABELS)
    plain = answer("evaluate", write(path, **columns, target=LABELS), "--logits-key", stem)
    assert hits(plain) == of(LOGITS, LABELS)


@pytest.mark.parametrize("path", FILES)
def test_keys_name_any_array(answer, refuse, run, path):
    write(path, a=LOGITS, b=LABELS, logits=np.zeros((N, K)), labels=np.zeros(N, int))
    keys = ("--logits-key", "a", "--labels-key", "b")
    assert hits(answer("evaluate", path, *keys)) == of(LOGITS, LABELS)
    found = answer("search-lambda", path, *keys, "-o", "c.json")
    assert found["files"] == [path]
    assert answer("prior", path, *keys)["counts"] == np.bincount(LABELS, minlength=K).tolist()
    assert answer("info", path, *keys)["files"][0]["labels"]["counts"] == np.bincount(LABELS).tolist()
    answer("calibrate", path, *keys, "-c", "c.json", "-o", "o.h5")
    assert "a.z" not in refuse(DATA, "evaluate", path, "--logits-key", "z")
    assert "no such array for --labels-key" in refuse(DATA, "evaluate", path, "--labels-key", "z")
    answer("convert", path, "o2.h5", *keys)
    assert hits(answer("evaluate", "o2.h5")) == of(LOGITS, LABELS)


def test_keys_belong_to_states(answer, run):
    write("x.h5", a=LOGITS, b=LABELS)
    keys = ("--logits-key", "a", "--labels-key", "b")
    for i in (1, 2):
        answer("evaluate", "x.h5", *keys, "--shard", f"{i}/2", "--state", f"s{i}.state")
    answer("merge", "s1.state", "s2.state", "-o", "all.state")
    assert run("report", "all.state")[1] == run("evaluate", "x.h5", *keys)[1]


@pytest.mark.parametrize("path", FILES)
def test_labels_under_an_unknown_name_are_mentioned(refuse, run, path):
    write(path, logits=LOGITS, truth=LABELS)
    assert "truth" in refuse(DATA, "evaluate", path)
    code, _, err = run("calibrate", path, "--lambda", "1", "--source-prior", "3,2,1", "-o", "o.h5")
    assert code == 0
    assert "no labels by name; truth" in err
    assert "--labels-key" in err


@pytest.mark.parametrize("path", FILES)
def test_two_that_could_be_meant_are_refused(refuse, path):
    assert "2 candidates (target, y)" in refuse(DATA, "evaluate", write(path, logits=LOGITS, target=LABELS, y=LABELS))
    assert "2 candidates" in refuse(DATA, "evaluate", write(path, outputs=LOGITS, softmax=PROBS, y=LABELS))
    assert "2 candidates (labels, y)" in refuse(DATA, "evaluate", write(path, logits=LOGITS, labels=LABELS, y=LABELS))


@pytest.mark.parametrize("path", FILES)
def test_values_that_may_be_either_are_refused(refuse, path):
    assert "may be logits or probabilities" in refuse(DATA, "evaluate", write(path, outputs=PROBS * 0.9, y=LABELS))
    assert "whole number" in refuse(DATA, "evaluate", write(path, y_pred=LABELS.astype("f4"), y=BINARY))


# ------------------------------------------------------------------------------------------------
# one column


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize(
    ("name", "values"),
    [("logits", ONE), ("probs", SIGMOID), ("log_probs", np.log(SIGMOID)), ("y_pred", SIGMOID), ("scores", ONE)],
)
@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_one_column_is_read_as_two_classes(answer, run, path, name, values, shape):
    write(path, **{name: values.reshape(shape)}, y=BINARY.astype(bool))
    two = np.stack([np.zeros(N), ONE], axis=1)
    code, _, err = run("evaluate", path)
    assert code == 0
    assert "one score of each unit, read as" in err
    assert hits(answer("evaluate", path)) == of(two, BINARY, 2)
    rebalanced = answer("evaluate", path, "--lambda", "1", "--source-prior", "9,1")
    assert hits(rebalanced) == of(two + np.log([1, 9]), BINARY, 2)
    answer("convert", path, "two.h5")
    with h5py.File("two.h5") as file:
        kind = next(known for known in ("logits", "probs", "log_probs") if known in file)
        assert file[kind].shape == (N, 2)
    assert hits(answer("evaluate", "two.h5")) == of(two, BINARY, 2)


def test_one_column_of_images_and_arrays():
    z = RNG.normal(size=(2, 4, 5)).astype(np.float32)
    labels = (z + RNG.normal(size=z.shape) > 0).astype(int)
    wanted = float(((z > 0) == labels).mean())
    for scores in (z, z[:, None], z[..., None]):
        axis = -1 if scores.shape[-1] == 1 else None
        source = unoic_cli.from_arrays(scores, labels, class_axis=axis)
        assert source.n_classes == 2
        assert unoic_cli.evaluate(source).overall.values["acc"] == pytest.approx(wanted)
        with h5py.File("i.h5", "w") as file:
            file["logits"], file["masks"] = scores, labels
            if axis:
                file["logits"].attrs["class_axis"] = axis
        assert unoic_cli.evaluate("i.h5").overall.values["acc"] == pytest.approx(wanted)


def test_one_column_beside_two_in_a_fusion(answer):
    two = np.stack([np.zeros(N, np.float32), ONE], axis=1)
    write("one.h5", logits=ONE, labels=BINARY)
    write("two.h5", logits=two)
    write("both.h5", logits=two, labels=BINARY)
    for lam in ("0", "1"):
        options = ("--lambda", lam, "--source-prior", "3,1")
        mixed = answer("evaluate", "a=one.h5", "b=two.h5", *options)
        plain = answer("evaluate", "a=both.h5", "b=two.h5", *options)
        assert mixed["per_class"] == plain["per_class"]


def test_half_precision_columns(answer):
    for dtype in (np.float16, np.float64):
        write("x.h5", probs=SIGMOID.astype(dtype), labels=BINARY)
        wanted = of(np.stack([1 - SIGMOID.astype(dtype), SIGMOID.astype(dtype)], axis=1), BINARY, 2)
        assert hits(answer("evaluate", "x.h5")) == wanted


# ------------------------------------------------------------------------------------------------
# axes


def test_the_class_axis_is_settled_or_asked_for(answer, refuse):
    scores = RNG.normal(size=(2, 4, 5, 3)).astype(np.float32)
    labels = RNG.integers(0, 3, (2, 4, 5))
    wanted = of(scores.reshape(-1, 3), labels.ravel())
    assert hits(answer("evaluate", write("x.h5", logits=scores, labels=labels))) == wanted
    write("bare.h5", logits=scores)
    options = ("--lambda", "1", "--source-prior", "3,2,1", "-o", "o.h5", "--force")
    assert "--class-axis" in refuse(DATA, "calibrate", "bare.h5", *options)
    assert answer("calibrate", "bare.h5", *options, "--class-axis", "-1")["n_written"] == 40
    assert (
        answer("calibrate", write("named.h5", logits=scores, class_names=["a", "b", "c"]), *options)["n_written"] == 40
    )
    with pytest.raises(DataError, match="which axis holds the classes"):
        unoic_cli.from_arrays(scores)
    assert unoic_cli.from_arrays(scores, class_axis=-1).n_classes == 3
    assert "no images" in refuse(USAGE, "evaluate", write("rows.h5", logits=LOGITS, labels=LABELS), "--class-axis", "1")


@pytest.mark.parametrize("path", FILES)
def test_scores_that_look_transposed(refuse, run, path):
    write(path, logits=np.zeros((4, 100), np.float32))
    code, _, err = run("calibrate", path, "--lambda", "0", "--source-prior", "uniform", "-o", "o.h5")
    assert code == 0
    assert "100 classes of 4 samples: are the scores transposed?" in err
    write("x.h5", logits=LOGITS.T, labels=LABELS)
    assert "look transposed" in refuse(DATA, "evaluate", "x.h5")


@pytest.mark.parametrize("place", ["group", "scores"])
@pytest.mark.parametrize("name", ["source_counts", "train_counts", "class_counts"])
def test_counts_as_attributes_and_by_other_names(answer, refuse, place, name):
    write("x.h5", logits=LOGITS, labels=LABELS)
    wanted = answer("evaluate", "x.h5", "--lambda", "1", "--source-prior", "9,5,1")
    with h5py.File("x.h5", "r+") as file:
        (file if place == "group" else file["logits"]).attrs[name] = [9, 5, 1]
    assert answer("evaluate", "x.h5", "--lambda", "1")["per_class"] == wanted["per_class"]
    with h5py.File("x.h5", "r+") as file:
        file["source_counts"] = [9, 5, 2]
    assert "expected one of them" in refuse(DATA, "evaluate", "x.h5", "--lambda", "1")


# ------------------------------------------------------------------------------------------------
# parts without samples, and scores that need care


@pytest.mark.parametrize("path", FILES)
def test_a_part_without_samples_is_left_out(run, answer, refuse, path):
    write(path, logits=LOGITS, label=LABELS)
    empty = "empty." + path.partition(".")[2]
    if empty.endswith(".h5"):
        write(empty, logits=np.zeros((0, K), np.float32), label=np.zeros(0, int))
    else:
        write(empty, **{f"logits_{k}": np.zeros(0, np.float32) for k in range(K)}, label=np.zeros(0, int))
    wanted = answer("evaluate", path)["per_class"]
    for files in ((path, empty), (empty, path)):
        code, _, err = run("evaluate", *files)
        assert code == 0
        assert f"no samples (N = 0) in {empty}: left out" in err
        assert answer("evaluate", *files)["per_class"] == wanted
    assert "N = 0" in refuse(DATA, "evaluate", empty)


def spoiled(labels):
    """Scores that are none where the label is ignored."""
    scores = LOGITS.copy()
    bad = np.flatnonzero(labels == 255)
    scores[bad[0]], scores[bad[1], 1], scores[bad[2], 2], scores[bad[3]] = np.nan, np.inf, -np.inf, -np.inf
    return scores


@pytest.mark.parametrize("path", FILES)
def test_scores_of_ignored_units_may_be_anything(answer, run, path):
    labels = LABELS.copy()
    labels[::7] = 255
    write("clean.h5", logits=LOGITS, label=labels)
    write(path, logits=spoiled(labels), label=labels)
    options = ("--source-prior", "9,5,1")
    assert run("evaluate", path)[2].count("whose label is ignored: such units take no part") == 1
    for command in (("evaluate", "--lambda", "1"), ("search-lambda",), ("fit-temperature",)):
        name, *more = command
        wanted, found = (answer(name, file, *more, *options) for file in ("clean.h5", path))
        for key in ("per_class", "chosen", "curve", "temperature", "nll"):
            assert wanted.get(key) == found.get(key), (name, key)
    answer("calibrate", path, "--lambda", "1", *options, "-o", "o.h5")
    answer("calibrate", "clean.h5", "--lambda", "1", *options, "-o", "oc.h5")
    with h5py.File("o.h5") as file, h5py.File("oc.h5") as clean:
        blank = np.isnan(file["log_probs"][()]).all(axis=1)
        assert (blank <= (labels == 255)).all()
        assert blank.sum() == 3  # -inf beside finite scores is a mask
        kept = labels != 255
        assert (file["log_probs"][()][kept] == clean["log_probs"][()][kept]).all()
        assert (file["predictions"][()][blank] == 255).all()
    assert answer("evaluate", "o.h5")["per_class"] == answer("evaluate", "oc.h5")["per_class"]


def test_ignored_units_of_images_groups_and_fusion(answer):
    labels = RNG.integers(0, K, (2, 6, 5))
    labels[:, 2:4] = 255
    scores = RNG.normal(size=(2, K, 6, 5)).astype(np.float16)
    dirty = scores.copy()
    dirty[0, 1, 2, 3], dirty[1, :, 3, 0] = np.nan, np.inf
    write("clean.h5", logits=scores, labels=labels)
    write("x.h5", logits=dirty, labels=labels)
    write("beside.h5", logits=dirty.transpose(0, 2, 3, 1), labels=labels)
    for files in (("{}",), ("a={}", "b=beside.h5")):
        wanted = [name.format("clean.h5") for name in files]
        if len(files) > 1:
            write("side.h5", logits=scores.transpose(0, 2, 3, 1), labels=labels)
            wanted[1] = "b=side.h5"
        found = [name.format("x.h5") for name in files]
        options = ("--lambda", "0.5", "--source-prior", "9,5,1")
        assert answer("evaluate", *found, *options)["per_class"] == answer("evaluate", *wanted, *options)["per_class"]


def test_bad_scores_of_units_that_count_are_refused(refuse):
    labels = LABELS.copy()
    labels[0] = 255
    scores = LOGITS.copy()
    scores[0], scores[9, 1] = np.nan, np.nan
    assert "nan at row 9, class 1" in refuse(DATA, "evaluate", write("x.h5", logits=scores, labels=labels))
    scores[9] = -np.inf
    assert "row 9" in refuse(DATA, "evaluate", write("x.h5", logits=scores, labels=labels))


@pytest.mark.parametrize("path", FILES)
def test_masks_among_logits(run, answer, path):
    scores = LOGITS.copy()
    scores[4, 0], scores[5, 1:] = -np.inf, -np.inf
    write(path, logits=scores, label=LABELS)
    low = np.where(np.isinf(scores), -1e30, scores).astype(np.float32)
    write("low.h5", logits=low, labels=LABELS)
    assert run("evaluate", path)[2].count("read as a class that the unit cannot have") == 1
    for command in (("evaluate", "--lambda", "2"), ("search-lambda",)):
        name, *more = command
        wanted, found = (answer(name, file, *more, "--source-prior", "9,5,1") for file in ("low.h5", path))
        assert wanted.get("per_class") == found.get("per_class")
        assert wanted.get("curve") == found.get("curve")
    answer("calibrate", path, "--lambda", "1", "--source-prior", "9,5,1", "-o", "o.h5")
    with h5py.File("o.h5") as file:
        assert (np.isinf(file["log_probs"][()]) == np.isinf(scores)).all()


@pytest.mark.parametrize("block", [512, 1024, 4096, 1 << 16])
@pytest.mark.parametrize("chunks", [None, (20, K)])
def test_user_blocks_of_any_size(answer, block, chunks):
    with h5py.File("x.h5", "w", userblock_size=block) as file:
        file.create_dataset("logits", data=LOGITS, chunks=chunks)
        file.create_dataset("labels", data=LABELS, chunks=None if chunks is None else chunks[:1])
    with open("x.h5", "r+b") as file:
        file.write(b"#!/bin/sh\n")
    assert hits(answer("evaluate", "x.h5")) == of(LOGITS, LABELS)


def test_predictions_of_any_integers(answer, refuse):
    predicted = LOGITS.argmax(axis=1)
    labels = LABELS.copy()
    labels[3] = 255
    for dtype in (np.int64, np.int8, np.uint16):
        values = predicted.astype(dtype)
        values[3] = -1 if np.dtype(dtype).kind == "i" else 255
        write("x.h5", predictions=values, labels=labels)
        with h5py.File("x.h5", "r+") as file:
            file["predictions"].attrs["n_classes"] = K
        kept = labels != 255
        assert hits(answer("evaluate", "x.h5")) == of(LOGITS[kept], labels[kept])
    values[3], labels[3] = 7, 0
    write("x.h5", predictions=values, labels=labels)
    with h5py.File("x.h5", "r+") as file:
        file["predictions"].attrs["n_classes"] = K
    assert "prediction 7 at row 3" in refuse(DATA, "evaluate", "x.h5")


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_convert_and_pack_leave_alone_what_takes_no_part(run, answer, tmp_path, kind):
    labels = LABELS.astype(np.int64)
    scores = LOGITS.copy() if kind == "logits" else np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    wanted = scores[2:].copy()
    labels[0], labels[1] = 255, -1
    scores[0], scores[1, 1] = np.nan, np.inf
    np.savez("x.npz", logits=scores, labels=labels)
    code, _, err = run("convert", "x.npz", "x.h5")
    assert (code, err.count("whose label is ignored: such units take no part")) == (0, 1)
    assert answer("info", "x.h5")["files"][0]["kind"] == kind
    changed = answer("pack", "x.h5", "half.h5", "--dtype", "float16")["changed"]
    np.savez("clean.npz", logits=wanted, labels=labels[2:])
    answer("convert", "clean.npz", "clean.h5")
    assert [entry["n_changed"] for entry in changed] == [
        entry["n_changed"] for entry in answer("pack", "clean.h5", "less.h5", "--dtype", "float16")["changed"]
    ]
    for name in ("x.h5", "half.h5"):
        with h5py.File(name) as file:
            assert np.isnan(file[kind][0]).all() and np.isposinf(file[kind][1, 1])
    assert answer("evaluate", "x.h5")["acc"] == answer("evaluate", "clean.h5")["acc"]
    scores[3, 0] = np.nan
    np.savez("x.npz", logits=scores, labels=labels)
    assert "NaN at row 3" in run("convert", "x.npz", "y.h5")[2]


# ------------------------------------------------------------------------------------------------ names of the classes

NAMED = ["dog", "rider", "car"]


def name_notes(run, *args, code=0):
    """Notes of a command that speak of names of classes."""
    got, _, err = run(*args)
    assert got == code, err
    return [line.removeprefix("unoic: note: ") for line in err.splitlines() if "have names in" in line]


def said(one, other):
    return [f"the classes (dog, rider, car) have names in {one}, and none in {other}: taken by position"]


@pytest.fixture
def sides():
    write("plain.h5", logits=LOGITS, labels=LABELS)
    write("named.h5", logits=LOGITS + 1, labels=LABELS, class_names=NAMED)


def test_priors_that_alone_have_names_are_said_to_go_by_position(run, answer, refuse, sides):
    answer("prior", "named.h5", "-o", "n.json")
    answer("prior", "plain.h5", "-o", "p.json")
    with open("list.json", "w") as file:
        json.dump({"class_names": NAMED, "counts": [10, 50, 200]}, file)
    with open("numbers.json", "w") as file:
        json.dump([10, 50, 200], file)
    with open("dict.json", "w") as file:
        json.dump(dict(zip(NAMED, [10, 50, 200], strict=True)), file)
    for option in ("--source-prior", "--target-prior"):
        for prior in ("n.json", "list.json", "named.h5"):
            where = f"labels of {prior}" if prior.endswith("h5") else prior
            assert name_notes(run, "evaluate", "plain.h5", "-l", 1, option, prior) == said(where, "plain.h5")
            assert name_notes(run, "evaluate", "named.h5", "-l", 1, option, prior) == []
        for prior in ("p.json", "plain.h5"):
            where = f"labels of {prior}" if prior.endswith("h5") else prior
            assert name_notes(run, "evaluate", "named.h5", "-l", 1, option, prior) == said("named.h5", where)
            assert name_notes(run, "evaluate", "plain.h5", "-l", 1, option, prior) == []
        for prior in ("numbers.json", "10,50,200", "uniform"):
            assert name_notes(run, "evaluate", "named.h5", "-l", 1, option, prior) == []
        assert "no class_names" in refuse(DATA, "evaluate", "plain.h5", "-l", 1, option, "dict.json")
    with open("other.json", "w") as file:
        json.dump({"class_names": ["dog", "rider", "cow"], "counts": [10, 50, 200]}, file)
    assert "classes dog, rider, cow" in refuse(DATA, "evaluate", "named.h5", "-l", 1, "--source-prior", "other.json")
    answer("evaluate", "plain.h5", "-l", 1, "--source-prior", "list.json", "--state", "x.state")
    assert name_notes(run, "report", "x.state") == said("list.json", "plain.h5")


def test_names_that_are_indices_put_the_weights_in_order(answer, run, sides):
    with open("i.json", "w") as file:
        json.dump({"class_names": ["2", "0", "1"], "counts": [3, 1, 2]}, file)
    wanted = answer("evaluate", "plain.h5", "-l", 1, "--source-prior", "1,2,3")
    for path in ("plain.h5", "named.h5"):
        assert hits(answer("evaluate", path, "-l", 1, "--source-prior", "i.json")) == hits(wanted)
        assert name_notes(run, "evaluate", path, "-l", 1, "--source-prior", "i.json") == []


def test_calibrations_and_data_of_which_one_has_names(run, answer, sides):
    answer("search-lambda", "named.h5", "--source-prior", "3,2,1", "-o", "n.json")
    answer("search-lambda", "plain.h5", "--source-prior", "3,2,1", "-o", "p.json")
    for command in ("evaluate", "compare", "fit-temperature", "calibrate"):
        option = "-m" if command == "compare" else "-c"
        more = ("-o", "o.h5", "--force") if command == "calibrate" else ()
        for path, same, other, places in (
            ("plain.h5", "p.json", "n.json", ("n.json", "plain.h5")),
            ("named.h5", "n.json", "p.json", ("named.h5", "p.json")),
        ):
            assert name_notes(run, command, path, option, other, *more) == said(*places)
            assert name_notes(run, command, path, option, same, *more) == []


def test_files_and_modalities_of_which_one_has_names(run, answer, sides):
    for inputs in (["named.h5", "plain.h5"], ["a=named.h5", "b=plain.h5"], ["b=named.h5", "a=plain.h5"]):
        assert name_notes(run, "evaluate", *inputs) == said("named.h5", "plain.h5")
    write("more.h5", logits=LOGITS + 2, labels=LABELS)
    inputs = ["plain.h5", "named.h5", "more.h5"]
    assert name_notes(run, "evaluate", *inputs) == said("named.h5", "plain.h5 and 1 more")
    for i in (1, 2):
        answer("evaluate", *inputs, "--shard", f"{i}/2", "--state", f"s{i}.state")
    answer("merge", "s1.state", "s2.state", "-o", "all.state")
    assert name_notes(run, "report", "all.state") == said("named.h5", "plain.h5 and 1 more")
    with open("turned.json", "w") as file:
        json.dump({"class_names": NAMED[::-1], "counts": [1, 2, 3]}, file)  # names of one modality are those of all
    both = ("a=plain.h5", "b=named.h5", "-l", "1")
    for option in ("--source-prior", "--target-prior"):
        assert hits(answer("evaluate", *both, option, "turned.json")) == hits(
            answer("evaluate", *both, option, "3,2,1")
        )
        assert name_notes(run, "evaluate", *both, option, "turned.json") == said("named.h5", "plain.h5")
    write("indices.h5", logits=LOGITS + 3, labels=LABELS, class_names=["0", "1", "2"])
    assert name_notes(run, "evaluate", "plain.h5", "indices.h5") == []


def test_names_that_contradict_each_other_are_refused_beside_data_without_any(tmp_path, monkeypatch):
    """FAULT: what is taken by position was not compared with what else is: a prior was read in the other order."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(120, 3)).astype("f4"), rng.integers(0, 3, 120)
    forth, back = ["cat", "dog", "cow"], ["cow", "dog", "cat"]
    for name, names in (("forth", forth), ("back", back), ("bare", None)):
        with h5py.File(f"{name}.h5", "w") as file:
            file["logits"], file["labels"], file["source_counts"] = z, y, [9, 4, 2]
            if names is not None:
                file["class_names"] = np.array(names, "S")
        if names is not None:
            unoic_cli.search_lambda(f"{name}.h5", output=f"{name}.json")
            with open(f"{name}.prior.json", "w") as file:
                json.dump({"class_names": names, "counts": [9, 4, 2]}, file)
    calls = [
        lambda: unoic_cli.calibrate("bare.h5", calibration="forth.json", target_prior="back.prior.json", output="o.h5"),
        lambda: unoic_cli.search_lambda("bare.h5", source_prior="forth.prior.json", target_prior="back.prior.json"),
        lambda: unoic_cli.compare("bare.h5", methods={"a": "forth.json", "b": "back.json"}),
        lambda: unoic_cli.prior("back.h5", estimate=True, labelled="bare.h5", calibration="forth.json"),
    ]
    for call in calls:
        with pytest.raises(DataError, match="the same class names in another order"):
            call()
    unoic_cli.calibrate("bare.h5", calibration="forth.json", target_prior="forth.prior.json", output="o.h5")
