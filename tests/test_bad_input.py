"""Law 7: whatever is wrong ends as one line on stderr and an exit code, with no output, no leftovers, no traceback."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import resource
import signal
import string
import subprocess
import sys
import time

import forked
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from said import BESIDE, without_notes

import unoic_cli
from unoic_cli import cli
from unoic_cli.formats import schema

USAGE, DATA, NO_INPUT, CANNOT_CREATE, STORAGE = 2, 65, 66, 73, 74
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(12, 3)).astype("f4")
LABELS = np.arange(12) % 3
LABEL_COMMANDS = ("evaluate", "search-lambda", "calibrate", "prior")
SCORE_COMMANDS = ("evaluate", "search-lambda", "calibrate")
ALL_COMMANDS = (*LABEL_COMMANDS, "info")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(path="x.h5", **arrays):
    with h5py.File(path, "w") as file:
        for name, values in ({"logits": LOGITS, "labels": LABELS} | arrays).items():
            if values is not None:
                file[name] = values
    return path


def snapshot():
    """Every file below the folder, with its bytes."""
    return {str(path): path.read_bytes() for path in pathlib.Path().rglob("*") if path.is_file()}


@pytest.fixture
def refuse(capfd):
    """Run a command that must fail; check law 7 and return its one line."""

    def runner(code, *args):
        before = snapshot()
        got = cli.run([str(arg) for arg in args])
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if not line.startswith(BESIDE)]
        assert (got, out, len(lines)) == (code, "", 1), err
        assert lines[0].startswith("unoic: error: ")
        assert ";" in lines[0]
        assert "Traceback" not in err
        assert snapshot() == before
        return lines[0].removeprefix("unoic: error: ")

    return runner


@pytest.fixture
def accept(capfd):
    def runner(*args):
        code = cli.run([str(arg) for arg in args])
        out, err = capfd.readouterr()
        assert code == 0, err
        return json.loads(out)

    return runner


# ------------------------------------------------------------------------------------------------
# files that are not what they should be


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_not_a_logits_file(refuse, name):
    good = pathlib.Path(make()).read_bytes()
    assert "no such file" in refuse(NO_INPUT, name, "missing.h5")
    assert "empty name" in refuse(NO_INPUT, name, "")
    pathlib.Path("nothing").mkdir()
    assert "a folder without logits files" in refuse(NO_INPUT, name, "nothing")
    pathlib.Path("empty.h5").touch()
    assert "empty file" in refuse(DATA, name, "empty.h5")
    pathlib.Path("text.h5").write_text("logits")
    assert "unknown first bytes" in refuse(DATA, name, "text.h5")
    for size in (9, 100, 700, len(good) - 1):
        pathlib.Path("cut.h5").write_bytes(good[:size])
        assert refuse(DATA, name, "cut.h5").startswith("cut.h5")
    np.savez("x.npz", names=np.array(["a", "b"]))
    assert "no scores among names" in refuse(DATA, name, "x.npz")
    pathlib.Path("cut.parquet").write_bytes(b"PAR1" + b"\0" * 50)
    refuse(DATA, name, "cut.parquet")
    assert "no such file" in refuse(NO_INPUT, name, "x.h5", "missing.h5")


def test_a_pipe_is_no_file(refuse):
    read, write = os.pipe()
    os.write(write, b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    os.close(write)
    assert "a device or a pipe" in refuse(NO_INPUT, "evaluate", f"/dev/fd/{read}")
    os.close(read)
    os.mkfifo("pipe.h5")  # nobody writes to it: opening it would wait for ever
    assert "a device or a pipe" in refuse(NO_INPUT, "info", "pipe.h5")


def test_the_same_file_twice(refuse):
    path = make()
    os.symlink(path, "other.h5")
    assert "the same data as" in refuse(USAGE, "evaluate", path, f"./{path}")
    assert "the same data as" in refuse(USAGE, "evaluate", path, "other.h5")


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_datasets(refuse, name):
    assert "no scores among: labels, other" in refuse(DATA, name, make(logits=None, other=LOGITS))
    make(logits=None, **{"val/logits": LOGITS, "val/labels": LABELS})
    assert "try x.h5::val" in refuse(DATA, name, "x.h5")
    assert "expected one of: labels, val" in refuse(DATA, name, "x.h5::test")
    assert "two candidates" in refuse(DATA, name, make(probs=LOGITS))
    for shape in ((12, 3, 2), (12, 3, 2, 2, 1), ()):
        assert "shape" in refuse(DATA, name, make(logits=np.zeros(shape, "f4")))
    assert "N = 0" in refuse(DATA, name, make(logits=LOGITS[:0], labels=LABELS[:0]))
    assert "int32" in refuse(DATA, name, make(logits=LOGITS.astype("i4")))
    assert "shape (11,)" in refuse(DATA, name, make(labels=LABELS[:11]))
    assert "integers" in refuse(DATA, name, make(labels=LABELS.astype("f4")))
    assert "group of a parquet" in refuse(USAGE, name, f"{parquet()}::a")


def parquet(path="x.parquet", rows=LOGITS, **columns):
    table = {"logits": pa.FixedSizeListArray.from_arrays(rows.ravel(), 3), "label": LABELS} | columns
    pq.write_table(pa.table({name: values for name, values in table.items() if values is not None}), path)
    return path


@pytest.mark.parametrize("name", LABEL_COMMANDS)
def test_nulls_in_parquet(refuse, name):
    assert "nulls" in refuse(DATA, name, parquet(label=pa.array([None, *LABELS[1:].tolist()])))
    if name != "prior":
        values = pa.array([None, *LOGITS.ravel()[1:].tolist()], pa.float32())
        assert "nulls" in refuse(DATA, name, parquet(logits=pa.FixedSizeListArray.from_arrays(values, 3)))
        ragged = pa.array([[1.0, 2.0, 3.0]] * 11 + [[1.0, 2.0]])
        assert "row 11" in refuse(DATA, name, parquet(logits=ragged))


@pytest.mark.parametrize("name", LABEL_COMMANDS)
@pytest.mark.parametrize("bad", [3, 7, -2, 254, -99])
def test_labels_out_of_range(refuse, name, bad, monkeypatch):
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 36)
    labels = LABELS.copy()
    labels[[4, 9, 11]] = bad
    for threads in (1, 2, 5):
        assert f"label {bad} at row 4" in refuse(DATA, name, make(labels=labels), "--threads", threads)
    if bad in (3, 7):
        assert f"label {bad} at row 4" in refuse(DATA, name, parquet(label=labels))
    images = np.tile(LABELS.reshape(3, 4)[:, None], (1, 2, 1))
    images[1, 1, 2] = bad
    make(logits=RNG.normal(size=(3, 3, 2, 4)).astype("f4"), labels=images)
    assert f"label {bad} at sample 1, pixel (1, 2)" in refuse(DATA, name, "x.h5")


@pytest.mark.parametrize("name", SCORE_COMMANDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_scores_that_are_not_finite(refuse, name, bad, dtype, monkeypatch):
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 36)
    logits = LOGITS.astype(dtype)
    logits[[5, 9], [1, 0]] = bad
    shown = "nan" if np.isnan(bad) else str(bad)
    for threads in (1, 2):
        assert f"x.h5:logits: {shown} at row 5, class 1" in refuse(
            DATA, name, make(logits=logits), "--threads", threads
        )
    images = np.moveaxis(logits.reshape(3, 2, 2, 3), -1, 1)
    make(logits=images, labels=LABELS.reshape(3, 2, 2))
    assert "at sample 1, pixel (0, 1), class 1" in refuse(DATA, name, "x.h5")
    make(logits=logits, split=np.array(["a", "b"] * 6, "S"))
    assert "at row 5" in refuse(DATA, name, "x.h5", "--split", "b")


@pytest.mark.parametrize("name", SCORE_COMMANDS)
def test_probabilities(refuse, name):
    probs = np.full((12, 3), 1 / 3)
    probs[7, 2] = -0.1
    assert "negative" in refuse(DATA, name, make(logits=None, probs=probs), "--source-prior", "uniform", *lam(name))
    probs[7] = 0
    assert "no class of positive probability at row 7" in refuse(DATA, name, make(logits=None, probs=probs))


def lam(name):
    return ["--lambda", "1"] if name != "search-lambda" else []


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_delta(refuse, bad):
    delta = np.ones(12)
    delta[3] = bad
    assert f"x.h5:delta: {bad} at row 3" in refuse(DATA, "evaluate", make(delta=delta))
    assert f"{bad} at the scalar" in refuse(DATA, "evaluate", make(delta=bad))
    assert "shape" in refuse(DATA, "evaluate", make(delta=np.ones(11)))


@pytest.mark.parametrize("name", LABEL_COMMANDS)
def test_no_labels(refuse, accept, name):
    code = USAGE if name == "calibrate" else DATA
    assert "no labels" in refuse(code, name, make(labels=None))
    make("y.h5")
    assert "no labels" in refuse(code, name, "y.h5", "x.h5")
    assert accept("info", "x.h5")["files"][0]["labels"] is None


@pytest.mark.parametrize("name", LABEL_COMMANDS)
@pytest.mark.parametrize("counts", [None, [5, 3, 1]])
def test_all_labels_ignored(refuse, name, counts):
    for value in (255, -1, -100):
        line = refuse(DATA, name, make(labels=np.full(12, value), source_counts=counts))
        assert "no labelled unit" in line
    make(source_counts=counts)
    refuse(DATA, name, "x.h5", *[f"--ignore-index={k}" for k in range(3)])
    if name == "search-lambda":
        for method in ("grid", "paper"):
            make(labels=np.full(12, 255), source_counts=counts)
            assert "no labelled unit" in refuse(DATA, name, "x.h5", "--method", method)


@pytest.mark.parametrize("name", ["evaluate", "search-lambda", "calibrate", "prior"])
def test_files_that_do_not_go_together(refuse, name):
    make("a.h5")
    make("b.h5", logits=np.zeros((12, 4), "f4"))
    assert refuse(DATA, name, "a.h5", "b.h5").startswith("b.h5: 4 classes")
    make("a.h5", class_names=["a", "b", "c"])
    make("b.h5", class_names=["a", "c", "b"])
    make("nameless.h5")
    assert "the same class names in another order" in refuse(DATA, name, "nameless.h5", "a.h5", "b.h5")
    assert "the same class names in another order" in refuse(DATA, name, "a.h5", "b.h5")
    make("a.h5", source_counts=[1, 2, 3])
    make("b.h5", source_counts=[1, 2, 4])
    assert "another prior" in refuse(DATA, name, "a.h5", "b.h5")
    make("b.h5", logits=None, predictions=LABELS.astype("u1"))
    with h5py.File("b.h5", "r+") as file:
        file["predictions"].attrs["n_classes"] = 3
    assert "predictions" in refuse(DATA, name, "a.h5", "b.h5")


def test_predictions_alone(refuse):
    make(logits=None, predictions=LABELS.astype("u1"))
    assert "n_classes" in refuse(DATA, "evaluate", "x.h5")
    with h5py.File("x.h5", "r+") as file:
        file["predictions"].attrs["n_classes"] = 2
        file["labels"][...] = 0
    assert "prediction 2 at row 2" in refuse(DATA, "evaluate", "x.h5")
    with h5py.File("x.h5", "r+") as file:
        file["predictions"].attrs["n_classes"] = 3
    assert "predictions without scores" in refuse(DATA, "search-lambda", "x.h5")
    assert "predictions without scores" in refuse(DATA, "calibrate", "x.h5")
    assert "predictions" in refuse(USAGE, "evaluate", "x.h5", "--lambda", "1")


def test_names_beat_positions(answer):
    """A prior by name has its weights where the names are, in every form."""
    make(class_names=["cat", "dog", "elk"])
    spoken = {
        "wide.csv": "elk,cat,dog\n100,600,300\n",
        "wide.tsv": "elk\tcat\tdog\n100\t600\t300\n",
        "long.csv": "class,count\nelk,100\ncat,600\ndog,300\n",
        "table.json": '{"elk": 100, "cat": 600, "dog": 300}',
        "lists.json": '{"class_names": ["elk", "cat", "dog"], "counts": [100, 600, 300]}',
    }
    for name, text in spoken.items():
        pathlib.Path(name).write_text(text)
    make("train.h5", labels=np.repeat([0, 1, 2], [1, 6, 3]), logits=LOGITS[:10],
         class_names=["elk", "cat", "dog"])  # fmt: skip
    wanted = answer("evaluate", "x.h5", "--lambda", "1", "--source-prior", "600,300,100")
    for prior in (*spoken, "train.h5"):
        found = answer("evaluate", "x.h5", "--lambda", "1", "--source-prior", prior)
        assert found["per_class"] == wanted["per_class"], prior
    by_position = answer("evaluate", "x.h5", "--lambda", "1", "--source-prior", "100,600,300")
    assert by_position["per_class"] != wanted["per_class"]


def test_delta_of_storage_that_was_never_written(refuse):
    make()
    with h5py.File("d.h5", "w") as file:
        file.create_dataset("delta", (len(LABELS),), "f4")
    assert "never written" in refuse(DATA, "evaluate", "x.h5", "--lambda", "0", "--delta", "d.h5")


def test_images_of_different_sizes(refuse):
    make("a.h5", logits=np.zeros((2, 3, 4, 4), "f4"), labels=np.zeros((2, 4, 4), "u1"))
    make("b.h5", logits=np.zeros((2, 3, 2, 4), "f4"), labels=np.zeros((2, 2, 4), "u1"))
    assert "different sizes" in refuse(DATA, "calibrate", "a.h5", "b.h5", "--lambda", "0", "-o", "o.h5")


def test_split_and_group(refuse):
    assert "no split" in refuse(DATA, "evaluate", make(), "--split", "val")
    assert "no group" in refuse(DATA, "evaluate", "x.h5", "--by", "group")
    make(split=np.array(["a", "b"] * 6, "S"))
    for name in LABEL_COMMANDS:
        assert "expected one of a (6), b (6)" in refuse(DATA, name, "x.h5", "--split", "val")
    assert "expected group" in refuse(USAGE, "evaluate", "x.h5", "--by", "split")


# ------------------------------------------------------------------------------------------------
# other files than the one named


def test_links_to_other_files(refuse, accept):
    make("other.h5")
    with h5py.File("link.h5", "w") as file:
        file["logits"] = h5py.ExternalLink("other.h5", "/logits")
        file["labels"] = LABELS
    with h5py.File("virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((12, 3), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "logits", (12, 3))
        file.create_virtual_dataset("logits", layout)
        file["labels"] = LABELS
    LOGITS.tofile("raw.bin")
    with h5py.File("storage.h5", "w") as file:
        file.create_dataset("logits", (12, 3), "f4", external=[("raw.bin", 0, LOGITS.nbytes)])
        file["labels"] = LABELS
    want = accept("evaluate", "other.h5")["per_class"]
    for name in ("link.h5", "virtual.h5", "storage.h5"):
        for command in ALL_COMMANDS:
            assert "--allow-external" in refuse(DATA, command, name)
        assert "--allow-external" in refuse(DATA, "convert", name, "o.h5")
        assert accept("evaluate", name, "--allow-external")["per_class"] == want
        assert accept("info", name, "--allow-external")["files"][0]["n_classes"] == 3
        accept("convert", name, f"{name}.parquet", "--allow-external")
    with h5py.File("labels.h5", "w") as file:
        file["logits"], file["labels"] = LOGITS, h5py.ExternalLink("other.h5", "/labels")
    assert "other.h5" in refuse(DATA, "evaluate", "labels.h5")
    assert "--allow-external" in refuse(DATA, "search-lambda", "other.h5", "--source-prior", "labels.h5")


def test_pickles(refuse):
    np.savez("x.npz", logits=LOGITS, labels=np.array([{}] * 12, dtype=object))
    assert "pickled" in refuse(DATA, "convert", "x.npz", "o.h5")
    np.save("x.npy", np.array([object()]), allow_pickle=True)
    assert "pickled" in refuse(DATA, "convert", "x.npy", "o.h5")


# ------------------------------------------------------------------------------------------------
# options


@pytest.mark.parametrize("option", ["--source-prior", "--target-prior"])
@pytest.mark.parametrize(
    ("prior", "found"),
    [
        ("1,2", "2 classes"),
        ("1,2,3,4", "4 classes"),
        ("1,-2,3", "-2 for class 1"),
        ("1,nan,3", "nan for class 1"),
        ("1,inf,3", "inf for class 1"),
        ("0,0,0", "zero for every class"),
        ("unifrom", "expected uniform"),
        ("missing.json", "no such file"),
        ("1,b,3", "'1,b,3'"),
        ("", "''"),
        (".", "a folder"),
        ("bad.json", "broken JSON"),
        ("short.json", "2 classes"),
        ("empty.csv", "empty file"),
        ("four.h5", "4 classes"),
        ("nolabels.h5", "no labels"),
    ],
)
def test_priors(refuse, option, prior, found):
    pathlib.Path("bad.json").write_text("[1, 2")
    pathlib.Path("short.json").write_text("[1, 2]")
    pathlib.Path("empty.csv").touch()
    make("four.h5", logits=np.zeros((12, 4), "f4"))
    make("nolabels.h5", labels=None)
    make()
    for command in (
        ["search-lambda"],
        ["evaluate", "--lambda", "1"],
        ["calibrate", "--lambda=1", "-o", "o.h5"],
        ["calibrate"],
    ):
        code = {"unifrom": USAGE, "1,b,3": USAGE, "": USAGE, "missing.json": NO_INPUT, ".": NO_INPUT}.get(prior, DATA)
        assert found in refuse(code, command[0], "x.h5", *command[1:], option, prior)


def test_no_prior(refuse):
    make(labels=None)
    assert "source_counts" in refuse(USAGE, "calibrate", "x.h5", "--lambda", "1")
    assert "no labels" in refuse(DATA, "calibrate", "x.h5", "--lambda", "1", "--source-prior", "labels")
    assert "shape" in refuse(DATA, "evaluate", make(source_counts=[1, 2]))
    assert "-2 for class 1" in refuse(DATA, "search-lambda", make(source_counts=[1, -2, 3]))
    assert "zero" in refuse(
        DATA, "evaluate", make(), "--lambda=1", "--source-prior", "1,0,0", "--target-prior", "0,1,1"
    )
    assert "class 2" in refuse(DATA, "search-lambda", "x.h5", "--source-prior", "1,1,0", "--unseen", "error")
    assert "not made of counts" in refuse(
        USAGE, "search-lambda", "x.h5", "--source-prior", "0.5,0.5,0", "--unseen", "smooth"
    )


USAGE_ERRORS = [
    "search-lambda x.h5 --range 1:1:1:1",
    "search-lambda x.h5 --range 2:1",
    "search-lambda x.h5 --range 1",
    "search-lambda x.h5 --range a:b",
    "search-lambda x.h5 --range 0:nan",
    "search-lambda x.h5 --range 0:inf",
    "search-lambda x.h5 --range=",
    "search-lambda x.h5 --range 0:2:0.1 --step 0.2",
    "search-lambda x.h5 --step 0",
    "search-lambda x.h5 --step -1",
    "search-lambda x.h5 --step 7",
    "search-lambda x.h5 --choose best --step 5",
    "search-lambda x.h5 --step 1e-9",
    "search-lambda x.h5 --metric accurate",
    "search-lambda x.h5 --metric top0",
    "search-lambda x.h5 --metric top3",
    "search-lambda x.h5 --metric top99999999999999999999999",
    "search-lambda x.h5 --method golden",
    "search-lambda x.h5 --method paper --range 1:2",
    "search-lambda x.h5 --subject-to accurate>=0.5",
    "search-lambda x.h5 --subject-to acc",
    "search-lambda x.h5 --subject-to acc>=",
    "search-lambda x.h5 --subject-to acc>=..",
    "search-lambda x.h5 --subject-to acc==1",
    "search-lambda x.h5 --subject-to=",
    "search-lambda x.h5 --subject-to top1>=0 --metric top3",
    "search-lambda x.h5 --folds 1",
    "search-lambda x.h5 --folds -3",
    "search-lambda x.h5 --folds 100000000",
    "search-lambda x.h5 --folds 2.5",
    "search-lambda x.h5 --seed 3",
    "search-lambda x.h5 --folds 3 --format tsv",
    "search-lambda x.h5 --force",
    "search-lambda x.h5 --temperature 0",
    "search-lambda x.h5 --temperature nan",
    "search-lambda x.h5 --temperature inf",
    "search-lambda x.h5 --temperature -1",
    "search-lambda x.h5 --absent never",
    "search-lambda x.h5 --unseen ignore",
    "search-lambda x.h5 --threads 0",
    "search-lambda x.h5 --threads -1",
    "search-lambda x.h5 --format xml",
    "search-lambda x.h5 -o same --curve same",
    "search-lambda x.h5 -o same --curve ./same",
    "search-lambda x.h5 -o=",
    "search-lambda",
    "search-lambda x.h5 --nothing",
    "nothing",
    "--nothing",
    "evaluate x.h5 --lambda nan",
    "evaluate x.h5 --lambda inf",
    "evaluate x.h5 --lambda 1e39",
    "evaluate x.h5 --lambda one",
    "evaluate x.h5 --calibration c.json --lambda 1",
    "evaluate x.h5 --calibration c.json --source-prior uniform",
    "evaluate x.h5 --calibration c.json --target-prior uniform",
    "evaluate x.h5 --calibration c.json --temperature 2",
    "evaluate x.h5 --calibration c.json --unseen mask",
    "evaluate x.h5 --source-prior uniform",
    "evaluate x.h5 --target-prior uniform",
    "evaluate x.h5 --temperature 2",
    "evaluate x.h5 --unseen floor",
    "evaluate x.h5 --lambda 1 --unseen never",
    "evaluate x.h5 --lambda 1 --temperature 0",
    "evaluate x.h5 --absent never",
    "evaluate x.h5 --confusion --format tsv",
    "evaluate x.h5 --force",
    "evaluate x.h5 --ignore-index a",
    "calibrate x.h5 --emit logits",
    "calibrate x.h5 --lambda 1 --metric acc",
    "calibrate x.h5 --calibration c.json --metric acc",
    "calibrate x.h5 --calibration c.json --lambda 1",
    "calibrate x.h5 --calibration c.json --temperature 2",
    "calibrate x.h5 --lambda 1 --absent never",
    "calibrate x.h5 --calibration c.json --absent never",
    "calibrate x.h5 --absent never",
    "calibrate x.h5 --lambda 1 --unseen never",
    "calibrate x.h5 --lambda nan",
    "calibrate x.h5 --metric accurate",
    "calibrate x.h5 --temperature 0",
    "calibrate x.h5 --lambda 1 -o o.xls",
    "calibrate x.h5 --lambda 1 -o o",
    "calibrate x.h5 --lambda 1 -o=",
    "prior x.h5 --force",
    "prior x.h5 -o=",
    "convert x.h5 o.txt",
    "convert x.h5 o.parquet --class-axis 1",
    "convert x.h5",
    "convert x.h5 o.parquet --kind predictions",
    "info x.h5 --format xml",
]


@pytest.mark.parametrize("line", USAGE_ERRORS)
def test_options_that_make_no_sense(refuse, line):
    make()
    write_calibration()
    refuse(
        USAGE,
        *[
            arg.removesuffix("=") + "=" if arg.endswith("=") and arg.startswith("--") else arg
            for arg in split_args(line)
        ],
    )


def split_args(line):
    """Words of a command line, where ``-o=`` stands for an empty value."""
    for word in line.split():
        if word == "-o=":
            yield from ("-o", "")
        else:
            yield word


def test_constraints_that_nothing_meets(refuse):
    make()
    line = refuse(DATA, "search-lambda", "x.h5", "--subject-to", "acc>=0.99 and miou>=base")
    assert "no lambda in [0, 6] meets acc>=0.99 and miou>=base" in line
    assert "best reachable: acc reaches 0." in line
    line = refuse(DATA, "search-lambda", "x.h5", "--subject-to", "acc<0", "--method", "paper")
    assert "best reachable: acc reaches" in line


def test_constraints_that_one_fold_does_not_meet(refuse):
    logits = np.zeros((6, 2), "f4")
    logits[:3, 0], logits[3:, 1] = [1, 1, -5], [1, 1, -5]
    make(logits=logits, labels=np.array([0, 0, 0, 1, 1, 1]), source_counts=[1, 1])
    line = refuse(DATA, "search-lambda", "x.h5", "--folds", "3", "--subject-to", "acc>=0.6")
    assert "on folds" in line


def test_too_few_samples_for_folds(refuse):
    assert "labelled units in each fold" in refuse(DATA, "search-lambda", make(), "--folds", "13")
    make("two.h5", logits=LOGITS[:2], labels=LABELS[:2])
    assert "labelled units in each fold" in refuse(DATA, "calibrate", "two.h5")


# ------------------------------------------------------------------------------------------------
# calibrations


def write_calibration(**changes):
    source = unoic_cli.search_lambda(LOGITS, LABELS).calibration.to_dict()
    pathlib.Path("c.json").write_text(json.dumps(source | changes))
    return source


def test_damaged_calibrations(refuse, accept):
    make()
    whole = write_calibration()
    accept("evaluate", "x.h5", "-c", "c.json")
    assert "no such file" in refuse(NO_INPUT, "evaluate", "x.h5", "-c", "missing.json")
    refuse(NO_INPUT, "evaluate", "x.h5", "-c", ".")
    refuse(NO_INPUT, "evaluate", "x.h5", "-c", "")
    for text in (
        "", "[", "{", "\x00", "null", "3", "[]", "{}", "[" * 100_000, '{"a":' + "9" * 5000 + "}", '{"calibration": {}}',
        '{"calibration": 3}', '{"format": "unoic calibration"}', '{"format": "unoic calibration", "version": 1}',
    ):  # fmt: skip
        pathlib.Path("c.json").write_text(text)
        for name in ("evaluate", "calibrate"):
            assert refuse(DATA, name, "x.h5", "-c", "c.json").startswith("c.json: ")
    pathlib.Path("c.json").write_bytes(b"\xff\xfe\x00")
    refuse(DATA, "evaluate", "x.h5", "-c", "c.json")
    refuse(DATA, "evaluate", "x.h5", "-c", "x.h5")
    (modality,) = whole["modalities"]
    prior = whole["target_prior"]
    for changes in (
        {"version": 2}, {"version": None}, {"lambda": None}, {"lambda": "x"}, {"lambda": 1e400}, {"lambda": 10**400},
        {"lambda": 1e9}, {"unseen": "never"}, {"unseen": []}, {"modalities": []}, {"modalities": [modality] * 2},
        {"modalities": 3}, {"modalities": [3]}, {"modalities": [modality | {"temperature": 0}]},
        {"modalities": [modality | {"temperature": [1]}]}, {"target_prior": None}, {"class_names": 3},
        {"class_names": "abc"}, {"class_names": ["a", "b"]}, {"class_names": [1, 2, 3]}, {"provenance": 3},
        {"target_prior": prior | {"values": [0.5, 0.5]}}, {"target_prior": prior | {"values": [0.5, 0.6, 0]}},
        {"target_prior": prior | {"values": [2, -1, 0]}}, {"target_prior": prior | {"values": []}},
        {"target_prior": prior | {"values": "abc"}}, {"target_prior": prior | {"values": {}}},
        {"target_prior": prior | {"counts": [1, 2]}}, {"target_prior": prior | {"counts": [1, 2, -3]}},
        {"target_prior": prior | {"counts": 3}},
    ):  # fmt: skip
        write_calibration(**changes)
        assert refuse(DATA, "evaluate", "x.h5", "-c", "c.json").startswith("c.json: "), changes


def test_calibrations_that_contradict_themselves(refuse, accept):
    make()
    whole = write_calibration()
    (modality,) = whole["modalities"]
    prior = modality["source_prior"]
    counts = [count * 2 for count in prior["counts"]]  # of the same frequencies
    for changes, found in (
        ({"lambda": whole["lambda"] + 1}, "of the modality, where lambda is"),
        ({"modalities": [modality | {"lambda": whole["lambda"] + 0.01}]}, "of the modality, where lambda is"),
        ({"modalities": [modality | {"lambda": "0.5"}]}, "of the modality, where lambda is"),
        ({"modalities": [modality | {"lambda": 10**400}]}, "of the modality, where lambda is"),
        ({"modalities": [modality | {"share": 3}]}, "share 3 for the only modality"),
        ({"modalities": [modality | {"source_prior": prior | {"counts": [counts[0] + 1, *counts[1:]]}}]}, "a count of"),
        ({"modalities": [modality | {"source_prior": prior | {"counts": [0, 0, 0]}}]}, "a count of 0 of 0"),
        ({"target_prior": whole["target_prior"] | {"counts": [1, 2, 3]}}, "a count of 1 of 6"),
    ):
        write_calibration(**changes)
        for name in ("evaluate", "calibrate"):
            assert found in refuse(DATA, name, "x.h5", "-c", "c.json")
    del modality["lambda"], modality["share"]
    for changes in (
        {"modalities": [modality]},
        {"modalities": [modality | {"lambda": whole["lambda"] * (1 + 1e-12), "share": 1 + 1e-12}]},
        {"modalities": [modality | {"source_prior": prior | {"counts": counts}}]},
    ):
        write_calibration(**changes)
        accept("evaluate", "x.h5", "-c", "c.json")


def test_calibration_of_other_classes(refuse):
    write_calibration()
    make("four.h5", logits=np.zeros((12, 4), "f4"))
    for name in ("evaluate", "calibrate"):
        assert "expected 3, as the calibration has" in refuse(DATA, name, "four.h5", "-c", "c.json")
    write_calibration(class_names=["a", "b", "c"])
    assert "class_names" in refuse(DATA, "evaluate", make(class_names=["b", "a", "c"]), "-c", "c.json")


# ------------------------------------------------------------------------------------------------
# outputs


WRITERS = {
    "calibrate-h5": (["calibrate", "x.h5", "--lambda", "1"], "-o", "o.h5"),
    "calibrate-parquet": (["calibrate", "x.h5", "--lambda", "1"], "-o", "o.parquet"),
    "search": (["search-lambda", "x.h5"], "-o", "o.json"),
    "curve": (["search-lambda", "x.h5"], "--curve", "o.tsv"),
    "prior": (["prior", "x.h5"], "-o", "o.json"),
    "convert-h5": (["convert", "x.h5"], None, "o.h5"),
    "convert-parquet": (["convert", "x.h5"], None, "o.parquet"),
}
writers = pytest.mark.parametrize(("args", "option", "output"), WRITERS.values(), ids=WRITERS)


def with_output(args, option, output, *more):
    return [*args, *([] if option is None else [option]), output, *more]


@writers
def test_outputs(refuse, args, option, output):
    make()
    pathlib.Path(output).write_text("old")
    assert "exists" in refuse(CANNOT_CREATE, *with_output(args, option, output))
    assert "does not exist" in refuse(CANNOT_CREATE, *with_output(args, option, f"none/{output}"))
    assert "does not exist" in refuse(CANNOT_CREATE, *with_output(args, option, f"x.h5/{output}"))
    folder = "d" + pathlib.Path(output).suffix
    os.mkdir(folder)
    assert "a folder" in refuse(CANNOT_CREATE, *with_output(args, option, folder, "--force"))
    pipe = "p" + pathlib.Path(output).suffix
    os.mkfifo(pipe)
    assert "pipe" in refuse(CANNOT_CREATE, *with_output(args, option, pipe, "--force"))
    for name in ("x.h5", "./x.h5", "link.h5"):
        if not os.path.exists(name):
            os.symlink("x.h5", name)
        assert "also an input" in refuse(CANNOT_CREATE, *with_output(args, option, name, "--force"))


def test_outputs_that_are_read_otherwise(refuse):
    make()
    write_calibration()
    pathlib.Path("p.json").write_text("[1, 2, 3]")
    line = "also an input"
    assert line in refuse(CANNOT_CREATE, "search-lambda", "x.h5", "--source-prior", "p.json", "-o", "p.json", "--force")
    assert line in refuse(
        CANNOT_CREATE, "search-lambda", "x.h5", "--target-prior", "p.json", "--curve", "p.json", "--force"
    )
    make("y.h5")
    assert line in refuse(
        CANNOT_CREATE, "calibrate", "x.h5", "--lambda=1", "--source-prior", "y.h5", "-o", "y.h5", "--force"
    )
    pathlib.Path("o.calibration.json").write_text("old")
    assert "o.calibration.json: the file exists" in refuse(CANNOT_CREATE, "calibrate", "x.h5", "-o", "o.h5")


@pytest.mark.parametrize(("args", "option", "output"), [case for case in WRITERS.values() if case[0][0] != "convert"])
def test_no_output_after_an_error(refuse, args, option, output):
    """The error comes half-way, after the output was begun."""
    labels = LABELS.copy()
    labels[11] = 9
    logits = LOGITS.copy()
    logits[11] = np.nan
    make(**({"logits": logits} if args[0] != "prior" else {"labels": labels}), source_counts=[1, 2, 3])
    refuse(DATA, *with_output(args, option, output))
    pathlib.Path(output).write_text("old")
    refuse(DATA, *with_output(args, option, output, "--force"))


CALLS = [
    (*case, call)
    for case in WRITERS.values()
    for call in ("fsync", "replace", "pwrite", *(["posix_fallocate"] if case[2].endswith(".h5") else []))
]


@pytest.mark.parametrize(("args", "option", "output", "call"), CALLS)
def test_disk_full(refuse, monkeypatch, args, option, output, call):
    make()
    pathlib.Path(output).write_text("old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_, **__):
        raise full

    monkeypatch.setattr(os, call, fail)
    line = refuse(STORAGE, *with_output(args, option, output, "--force"))
    assert "o space left on device" in line
    assert line.startswith(output)


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from unoic_cli.cli import main
sys.argv[1:] = sys.argv[2:]
main()
"""


@pytest.mark.parametrize("output", ["o.h5", "o.parquet"])
def test_file_size_limit(output):
    rng = np.random.default_rng(0)
    make(logits=rng.normal(size=(3000, 30)).astype("f4"), labels=rng.integers(0, 30, 3000))
    pathlib.Path(output).write_text("old")
    before = snapshot()
    args = ["calibrate", "x.h5", "--lambda", "1", "-o", output, "--force"]
    shown = forked.run([sys.executable, "-c", LIMITED, "20000", *args], capture_output=True, text=True, timeout=120)
    lines = [line for line in shown.stderr.splitlines() if not line.startswith(BESIDE)]
    assert (shown.returncode, shown.stdout, len(lines)) == (STORAGE, "", 1), shown.stderr
    assert lines[0].startswith(f"unoic: error: {output}: ")
    assert snapshot() == before


@pytest.mark.parametrize("size", [16, 200])
def test_really_full_disk(size, refuse):
    os.mkdir("full")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", "full"], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted")
    try:
        rng = np.random.default_rng(0)
        make(logits=rng.normal(size=(3000, 30)).astype("f4"), labels=rng.integers(0, 30, 3000))
        for output in ("full/o.h5", "full/o.parquet"):
            pathlib.Path(output).write_text("old")
            assert "no space left" in refuse(STORAGE, "calibrate", "x.h5", "--lambda", "1", "-o", output, "--force")
    finally:
        subprocess.run(["umount", "-l", "full"], check=True)


# ------------------------------------------------------------------------------------------------
# signals and streams


@pytest.fixture(scope="module")
def medium(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("medium") / "medium.h5")
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["logits"] = rng.normal(size=(300_000, 100)).astype("f2")
        file["labels"] = rng.integers(0, 100, 300_000).astype("u1")
        file["source_counts"] = np.arange(1, 101)
    return path


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("output", ["o.h5", "o.parquet"])
def test_interrupts(medium, sent, output):
    pathlib.Path(output).write_text("old")
    process = forked.Popen(
        [sys.executable, "-m", "unoic_cli", "calibrate", medium, "--lambda", "1", "-o", output, "--force",
         "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not [name for name in os.listdir() if name.endswith(".tmp")]:  # the output was begun
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(0.01)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    err = without_notes(err)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("unoic: error: interrupted; ")
    assert err.count("\n") == 1
    assert os.listdir() == [output]
    assert pathlib.Path(output).read_text() == "old"


IMPORTED = """
import os, signal, sys, time
from unoic_cli import signals
signal.signal(signal.SIGTERM, signals.interrupt)
try:
    import slow
    time.sleep(5)
except KeyboardInterrupt:
    print(slow.done)
"""
SLOW = "import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.05); done = 'whole'"


def test_an_import_is_not_interrupted():
    """A module in C that is cut short would print a traceback."""
    pathlib.Path("slow.py").write_text(SLOW)
    assert subprocess.check_output([sys.executable, "-c", IMPORTED], text=True, timeout=60) == "whole\n"


@pytest.mark.parametrize("begun", [0.15, 0.25, 0.35, 0.45])
def test_interrupted_while_it_starts(medium, begun):
    """Batch systems run a command again that ends with 75."""
    process = subprocess.Popen(
        [sys.executable, "-m", "unoic_cli", "search-lambda", medium, "--checkpoint", "run.unoic", "--resume"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(begun)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    err = without_notes(err)
    if process.returncode != -signal.SIGTERM:  # it had not even begun
        assert (process.returncode, out, err.count("\n")) == (75, "", 1)
        assert err.startswith("unoic: error: run.unoic: interrupted, and ")


SWALLOWED = """
import os, signal, time
from unoic_cli import signals
signals.listen()
class Object:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass
try:
    Object()
    time.sleep(10)
    print("lost")
except KeyboardInterrupt:
    print("heard")
"""


def test_a_signal_that_a_destructor_swallows_comes_again():
    shown = subprocess.run([sys.executable, "-c", SWALLOWED], capture_output=True, text=True, timeout=60, check=False)
    assert (shown.stdout, shown.stderr) == ("heard\n", "")


def unoic(*args, **options):
    return forked.run([sys.executable, "-m", "unoic_cli", *args], text=True, timeout=60, check=False, **options)


@pytest.mark.parametrize("args", [["search-lambda", "x.h5"], ["evaluate", "x.h5", "--format", "table"], ["--help"]])
def test_a_broken_pipe_is_silent(args):
    make()
    read, write = os.pipe()
    os.close(read)
    shown = unoic(*args, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (shown.returncode, [line for line in shown.stderr.splitlines() if not line.startswith(BESIDE)]) == (141, [])


def test_stdout_that_takes_nothing():
    make(source_counts=[1, 2, 3])
    with open("/dev/full", "w") as full:
        shown = unoic("search-lambda", "x.h5", stdout=full, stderr=subprocess.PIPE)
    lines = [line for line in shown.stderr.splitlines() if not line.startswith(BESIDE)]
    assert (shown.returncode, len(lines)) == (STORAGE, 1)
    shown = subprocess.run(
        f"{sys.executable} -m unoic_cli evaluate x.h5 >&-", shell=True, stderr=subprocess.PIPE, text=True, check=False
    )
    assert (shown.returncode, shown.stderr) == (
        STORAGE,
        "unoic: error: stdout: closed; expected a place for the result\n",
    )
    shown = subprocess.run(
        f"{sys.executable} -m unoic_cli evaluate x.h5 2>&-", shell=True, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (shown.returncode, json.loads(shown.stdout)["n"]) == (0, 12)
    shown = subprocess.run(
        f"{sys.executable} -m unoic_cli evaluate y.h5 2>&-", shell=True, stdout=subprocess.PIPE, text=True, check=False
    )
    assert (shown.returncode, shown.stdout) == (NO_INPUT, "")


def test_errors_stay_on_one_line(refuse):
    for name in ("a\nb.h5", "\x1b[31mred.h5", "tab\tx.h5"):
        line = refuse(NO_INPUT, "evaluate", name)
        assert "\x1b" not in line
        make(name, labels=np.full(12, 9))
        refuse(DATA, "evaluate", name)
    shown = unoic("evaluate", b"\xff.h5", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (shown.returncode, shown.stderr.count("\n")) == (NO_INPUT, 1)


def test_a_name_that_is_not_utf_8():
    make(b"\xff.h5".decode("utf-8", "surrogateescape"), source_counts=[1, 2, 3])
    for more in (["--format", "json"], ["--format", "table"], ["--format", "tsv"]):
        shown = unoic("info", b"\xff.h5", *more, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert (shown.returncode, shown.stderr) == (0, "")
    shown = unoic(
        "calibrate", b"\xff.h5", "--lambda", "1", "-o", "o.h5", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert (shown.returncode, shown.stderr) == (0, "")


def test_a_fault_of_the_program_is_one_line(refuse, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("unoic_cli.commands.evaluate.count", fail)
    make()
    assert "internal error: ZeroDivisionError" in refuse(70, "evaluate", "x.h5")
    monkeypatch.setattr("unoic_cli.commands.evaluate.count", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
    assert "out of memory" in refuse(STORAGE, "evaluate", "x.h5")
    monkeypatch.setattr("unoic_cli.commands.evaluate.count", fail)
    monkeypatch.setenv("UNOIC_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.run(["evaluate", "x.h5"])


# ------------------------------------------------------------------------------------------------
# fuzz

FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ends_well(capfd, *args):
    """Exit code in the list, JSON or one line, nothing else."""
    before = set(os.listdir())
    code = cli.run([str(arg) for arg in args])
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith(BESIDE)]
    if code == 0:
        assert (lines, type(json.loads(out))) == ([], dict)
        return
    assert (code in (USAGE, DATA, NO_INPUT, CANNOT_CREATE, STORAGE), out, len(lines)) == (True, "", 1), (code, err)
    assert set(os.listdir()) == before


@FUZZ
@given(data=st.data(), name=st.sampled_from(["x.h5", "x.parquet"]))
def test_damaged_bytes(capfd, data, name):
    make(split=np.array(["a", "b"] * 6, "S"), source_counts=[1.0, 2, 3], delta=0.5)
    parquet()
    content = bytearray(pathlib.Path(name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    pathlib.Path(f"bad-{name}").write_bytes(content)
    command = data.draw(st.sampled_from(["evaluate", "search-lambda", "calibrate", "info", "prior"]))
    more = ["--lambda", "1", "-o", "o.h5", "--force"] if command == "calibrate" else []
    ends_well(capfd, command, f"bad-{name}", *more)
    for path in ("o.h5", f"bad-{name}"):
        pathlib.Path(path).unlink(missing_ok=True)


FOOTERS = """
from unoic_cli import UnoicError, formats
whole = open("x.parquet", "rb").read()
start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
for i in range(start, len(whole) - 8):
    for value in (0, whole[i] ^ 2, whole[i] ^ 16):
        with open("bad.parquet", "wb") as file:
            file.write(whole[:i] + bytes([value]) + whole[i + 1 :])
        try:
            formats.describe("bad.parquet")
        except UnoicError:
            pass
print("all")
"""


def test_no_damaged_footer_kills_the_process():
    parquet()
    shown = forked.run([sys.executable, "-c", FOOTERS], capture_output=True, text=True, timeout=120, check=False)
    assert (shown.returncode, shown.stdout) == (0, "all\n"), shown.stderr[-500:]


WORDS = """
0 1 -1 0.5 1e-300 1e300 nan inf uniform labels mean-posterior 1,2,3 0,0,1 x.h5 c.json acc macc miou top1 top2 path grid
paper 0:1 -1:1:0.5 0:0.01:1e-8 mask smooth floor zero a group acc>=base probs predictions 2 ٣
"""
VALUES = st.one_of(
    st.sampled_from([*WORDS.split(), "", "macc<=0.9 and acc>0"]),
    st.text(string.printable, max_size=8),
)
PRIORS = "--source-prior --target-prior --unseen --temperature --absent --split --ignore-index --threads"
OPTIONS = {
    "search-lambda": f"--metric --range --step --method --subject-to --folds --seed {PRIORS}",
    "evaluate": f"--calibration --lambda --by {PRIORS}",
    "calibrate": f"--calibration --lambda --emit --metric {PRIORS}",
    "prior": "--split --ignore-index --threads",
}


@settings(FUZZ, max_examples=200)
@given(data=st.data(), name=st.sampled_from(list(OPTIONS)))
def test_any_options(capfd, data, name):
    make(split=np.array(["a", "b"] * 6, "S"), group=np.array(["g"] * 12, "S"), source_counts=[1.0, 2, 0])
    write_calibration()
    chosen = data.draw(st.lists(st.sampled_from(OPTIONS[name].split()), unique=True, max_size=4))
    args = [word for option in chosen for word in (option, data.draw(VALUES))]
    more = ["-o", "o.h5", "--force"] if name == "calibrate" else []
    ends_well(capfd, name, "x.h5", *args, *more)
    for path in ("o.h5", "o.calibration.json"):
        pathlib.Path(path).unlink(missing_ok=True)


@FUZZ
@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["counts", "prior", "values", "a", "0", "1", "2", "format", "calibration"]), inner
            )
        ),
        max_leaves=10,
    )
)
@example([1, 2, 10**400])
@example({"counts": {"0": 1, "1": 2, "2": None}})
def test_any_json(capfd, content):
    make()
    pathlib.Path("any.json").write_text(json.dumps(content))
    ends_well(capfd, "evaluate", "x.h5", "--calibration", "any.json")
    ends_well(capfd, "search-lambda", "x.h5", "--source-prior", "any.json")


@FUZZ
@given(text=st.text(st.sampled_from("01239.,-e\t\n\"' abcnif;"), max_size=30))
@example('"\n')
def test_any_table(capfd, text):
    make(class_names=["a", "b", "c"])
    pathlib.Path("any.csv").write_text(text)
    ends_well(capfd, "search-lambda", "x.h5", "--source-prior", "any.csv")


@settings(FUZZ, max_examples=60)
@given(
    shape=st.lists(st.integers(0, 4), max_size=5),
    dtype=st.sampled_from(["f2", "f4", "f8", "i4", "u1", "?", "c8", "S3", "f4,i4", ">f4", ">f2"]),
    labels=st.sampled_from(["i8", "u1", "f4", "S1", "?", ">i2", "u8"]),
    n=st.integers(0, 4),
)
def test_any_arrays(capfd, shape, dtype, labels, n):
    make(logits=np.zeros(shape, dtype), labels=np.zeros(n, labels))
    for name in ("info", "evaluate", "prior"):
        ends_well(capfd, name, "x.h5")


def test_limits_are_as_they_were():
    """Nothing above may leave a limit behind."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert schema.storage_error("x", OSError(errno.ENOSPC, "")).exit_code == STORAGE
