"""What looks wrong about the data is said by every command that reads it, and clean data is not accused."""

from __future__ import annotations

import glob
import json
import os
import pathlib

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unoic_cli import convert, evaluate, info
from unoic_cli.data import sampling
from unoic_cli.tallies import findings as evidence

RNG = np.random.default_rng(7)
N, K = 240, 4
LABELS = np.r_[RNG.integers(0, K, N - K), np.arange(K)]
LOGITS = RNG.normal(size=(N, K)).astype(np.float32)
LOGITS[np.arange(N), LABELS] += 2.5
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
SAMPLES = pathlib.Path(__file__).parent.parent / "sample_data"

COMMANDS = {
    "info": ["info", "{x}", "--format", "json"],
    "evaluate": ["evaluate", "{x}"],
    "evaluate-c": ["evaluate", "{x}", "--lambda", "1"],
    "search-lambda": ["search-lambda", "{x}", "--folds", "3"],
    "calibrate": ["calibrate", "{x}", "-o", "{out}"],
    "calibrate-l": ["calibrate", "{x}", "--lambda", "1", "-o", "{out}"],
    "fit-temperature": ["fit-temperature", "{x}"],
    "fit-delta": ["fit-delta", "{x}", "-o", "{json}"],
    "fuse": ["fuse", "a={x}", "b={clean}", "-o", "{out}"],
    "compare": ["compare", "a={x}", "b={clean}", "-m", "a", "-m", "b"],
    "pack": ["pack", "{x}", "{out}"],
    "convert": ["convert", "{x}", "{out}"],
}
WITHOUT_LABELS = {"fit-delta"}


@pytest.fixture
def save(tmp_path):
    def saver(name="x.h5", labels=LABELS, **arrays):
        path = str(tmp_path / name)
        if name.endswith(".parquet"):
            ((kind, scores),) = ((k, v) for k, v in arrays.items() if k in ("logits", "log_probs", "probs"))
            table = {f"{kind}_{k}": column for k, column in enumerate(scores.T)}
            table |= {"label": labels} | (
                {"sample_id": arrays["sample_id"].astype(str)} if "sample_id" in arrays else {}
            )
            pq.write_table(pa.table(table, metadata={"unoic.source_counts": "[400, 300, 200, 100]"}), path)
            return path
        with h5py.File(path, "w") as file:
            for key, values in {"source_counts": [400, 300, 200, 100], **arrays}.items():
                file[key] = values
            if labels is not None:
                file["labels"] = labels
        return path

    return saver


@pytest.fixture
def notes(run, save, tmp_path):
    """Notes of a command about a file that begins with its name."""

    def noted(command, path):
        clean = save("clean.h5", logits=LOGITS[: len(LABELS)], labels=None)
        places = {"x": path, "clean": clean, "out": tmp_path / f"out{len(command)}.h5", "json": tmp_path / "d.json"}
        code, out, err = run(*(arg.format(**places) for arg in COMMANDS[command]))
        assert code == 0, err
        said = [line.removeprefix("unoic: note: ") for line in err.splitlines() if "unoic: note: " in line]
        if command == "info":
            return [f"{path}:{text}" for text in json.loads(out)["files"][0]["warnings"]]
        return [text for text in said if text.startswith((f"{path}:", str(places["out"])))]

    return noted


UNFILLED = LOGITS.copy()
UNFILLED[100:150] = 0
MASKED = LOGITS.copy()
MASKED[[20, 30], (LABELS[[20, 30]] + 1) % K] = -np.inf
SIGMOIDS = 1 / (1 + np.exp(-LOGITS))
SHIFTED = np.where(LABELS == K - 1, 0, LABELS) + 1
SHIFTED_LOGITS = RNG.normal(size=(N, K)).astype(np.float32)
SHIFTED_LOGITS[np.arange(N), SHIFTED - 1] += 2.5
BACKGROUND_LOGITS = RNG.normal(size=(N, K)).astype(np.float32)
BACKGROUND_LOGITS[np.arange(N), SHIFTED] += 2.5
IDS = np.array([f"img{i}" for i in [*range(N - 7), *range(7)]], dtype="S8")
CASES = {
    "named-not-probs": ({"logits": PROBS}, "logits: named logits, but the values look like probabilities"),
    "named-not-probs-log": ({"log_probs": PROBS}, "log_probs: named log_probs, but the values look like probabilities"),
    "inside-unit": ({"logits": SIGMOIDS}, "logits: named logits, but all values lie in [0, 1]"),
    "named-probs": ({"probs": np.abs(LOGITS) + 1.5}, "probs: named probs, but the values look like logits"),
    "probs-sum": ({"probs": SIGMOIDS}, "probs: 240 of 240 rows do not sum to 1"),
    "log-probs-sum": ({"log_probs": LOGITS}, "log_probs: named log_probs, but the exponentials"),
    "half-probs": ({"probs": PROBS.astype(np.float16)}, "probs: float16 cannot hold a rare class"),
    "masked-logits": ({"logits": MASKED}, "logits: -inf at row 20 (as in 2 of 240 rows): read as a class that the"),
    "equal-scores": (
        {"logits": UNFILLED},
        "logits: 50 of 240 rows hold 4 equal scores, the first (0 each) at row 100",
    ),
    "repeated-ids": (
        {"logits": LOGITS, "sample_id": IDS},
        "sample_id: 7 of 240 samples have a sample_id that occurred before, the first at sample 233, as at sample 0",
    ),
    "shifted-labels": (
        {"logits": SHIFTED_LOGITS, "labels": SHIFTED},
        "label 0 never occurs, and of 240 rows looked at, predictions agree with label - 1 in",
    ),
    "shifted-labels-up": (
        {"logits": BACKGROUND_LOGITS, "labels": SHIFTED - 1},
        "label 3 never occurs, and of 240 rows looked at, predictions agree with label + 1 in",
    ),
}


def test_every_code_has_a_case():
    cases = {case.removesuffix("-log").removesuffix("-up") for case in CASES}
    assert cases | {"large-chunks", "minus-labels"} == set(evidence.CODES)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("rows", "is_said"), [(N, True), (50, False)])
def test_chunks_that_are_decoded_whole_are_said(notes, tmp_path, monkeypatch, command, rows, is_said):
    monkeypatch.setattr("unoic_cli.formats.chunks.LARGEST", 1000)
    monkeypatch.setattr("unoic_cli.formats.chunks.SMALLEST", 10)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("logits", data=LOGITS, chunks=(rows, K), compression="gzip")
        file["labels"] = LABELS
    assert ["logits: chunks of 0 MB are decoded whole" in text for text in notes(command, path)] == [True] * is_said


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", CASES)
def test_every_command_says_it(save, notes, case, command):
    arrays, said = CASES[case]
    found = notes(command, save(**arrays))
    if case.startswith("shifted") and command in WITHOUT_LABELS:
        assert found == []
        return
    assert [said in text for text in found] == [True], found


@pytest.mark.parametrize("case", [case for case in CASES if case != "half-probs"])
@pytest.mark.parametrize("kind", ["parquet", "float16", "float64", "planes", "last"])
def test_every_form_says_it(save, notes, case, kind):
    arrays, said = dict(CASES[case][0]), CASES[case][1]
    name = next(key for key in arrays if key in ("logits", "log_probs", "probs"))
    if kind in ("float16", "float64"):
        arrays[name] = arrays[name].astype(kind)
    elif kind != "parquet":
        arrays = {key: value for key, value in arrays.items() if key != "sample_id"} | {
            "labels": arrays.get("labels", LABELS).reshape(4, 6, 10)
        }
        images = arrays[name].reshape(4, 6, 10, K)
        arrays[name] = images if kind == "last" else np.ascontiguousarray(np.moveaxis(images, -1, 1))
        if case == "repeated-ids":
            arrays["sample_id"], said = np.array([5, 6, 5, 7]), "sample_id: 1 of 4 samples have"
        said = said.replace("row 100", "sample 1, pixel (4, 0)").replace("row 20", "sample 0, pixel (2, 0)")
    path = save("x.parquet" if kind == "parquet" else "x.h5", **arrays)
    if kind == "last":
        with h5py.File(path, "a") as file:
            file[name].attrs["class_axis"] = -1
    found = [text for text in notes("evaluate", path) if "float16 cannot hold" not in text]
    assert [said in text for text in found] == [True], found


def test_the_advice_mends_it(save, run, answer, tmp_path):
    for name, kind in (("x.h5", "probs"), ("x.parquet", "probs")):
        path = save(name, logits=PROBS)
        _, _, err = run("evaluate", path)
        command = err.strip().rpartition("if so: ")[2].split()
        assert command[:2] == ["unoic", "convert"] and command[-1] == kind
        answer(*command[1:])
        right = save("right.h5", logits=np.log(PROBS))
        mended, wanted = (answer("evaluate", path, "--lambda", "1") for path in (command[3], right))
        assert mended["per_class"] == wanted["per_class"]
        assert run("evaluate", command[3])[2] == ""


@pytest.mark.parametrize("shift", [False, True])
def test_shards_reports_and_resumes_say_the_same(save, run, tmp_path, shift):
    arrays = CASES["shifted-labels" if shift else "equal-scores"][0] | {"sample_id": IDS}
    path = save(**arrays)
    search = ("search-lambda", path, "--range", "0:2")  # which does not grow: one pass is all
    plain = run(*search)
    states = [str(tmp_path / f"{i}.unoic") for i in (1, 2, 3)]
    for i, state in enumerate(states, 1):
        assert run(*search, "--shard", f"{i}/3", "--state", state)[0] == 0
    for order in (states, states[::-1]):
        assert run("report", *order) == plain
    assert sum(f"note: {path}:" in line for line in plain[2].splitlines()) == 2
    for threads in (1, 3):
        assert run(*search, "--threads", threads) == plain
    checkpoint = ("--checkpoint", tmp_path / "c.unoic", "--resume")
    assert run(*search, *checkpoint) == plain


def test_several_files_are_one_note(save, notes, run, tmp_path):
    paths = [save(f"{i}.h5", logits=PROBS, sample_id=np.arange(N) + i * (N - 3)) for i in range(3)]
    _, _, err = run("evaluate", *paths)
    lines = err.splitlines()
    assert len(lines) == 2 and lines[1].endswith("(and so in 2 more files)")
    said = f"6 of 720 samples have a sample_id that occurred before, the first at sample 0 of {paths[1]}, as at sample"
    assert f"{said} {N - 3} of {paths[0]}" in lines[0]
    by_file = run("evaluate", *paths, "--by", "file")[2].splitlines()  # each is a data set of its own
    assert by_file == lines[1:]


def test_ids_of_the_split_alone(save, run):
    split = np.array(["val"] * (N - 7) + ["test"] * 7).astype("S")
    path = save(logits=LOGITS, sample_id=IDS, split=split)
    assert "sample_id" in run("evaluate", path)[2]
    assert run("evaluate", path, "--split", "val")[2] == ""


def test_more_ids_than_are_compared(save, monkeypatch):
    monkeypatch.setattr(evidence, "MOST_IDS", 100)
    ids = np.arange(N)
    ids[50], ids[150] = 3, 4
    told = evaluate(save(logits=LOGITS, sample_id=ids)).notes
    assert len(told) == 1 and "1 of the first 100 samples" in told[0]


def test_a_few_equal_rows_and_ties_of_two_classes_are_no_evidence(save):
    few = LOGITS.copy()
    few[:3] = 1
    assert evaluate(save(logits=few)).notes == ()
    few[:4] = 1
    assert "4 of 240 rows hold 4 equal scores, the first (1 each) at row 0" in evaluate(save(logits=few)).notes[0]
    ties = np.repeat(RNG.normal(size=(N, 1)), 2, 1).astype(np.float32)
    assert evaluate(ties, LABELS % 2).notes[1:] == ()
    zeros = np.where(np.arange(N)[:, None] < 9, 0, RNG.normal(size=(N, 2)))
    assert any("9 of 240 rows hold 2 equal scores" in note for note in evaluate(zeros, LABELS % 2).notes)


def test_labels_that_lack_a_class_by_right(save):
    kept = LABELS > 0
    assert evaluate(save(logits=LOGITS[kept], labels=LABELS[kept])).notes == ()
    kept = LABELS < K - 1
    assert evaluate(save(logits=LOGITS[kept], labels=LABELS[kept])).notes == ()
    mixed = np.random.default_rng(1).permutation(SHIFTED)
    assert evaluate(save(logits=SHIFTED_LOGITS, labels=mixed)).notes == ()


def test_shifted_labels_of_predictions(tmp_path, run):
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        file["predictions"] = (SHIFTED - 1).astype(np.uint8)
        file["predictions"].attrs["n_classes"] = K
        file["labels"] = SHIFTED
    assert "seem shifted by one: label 0 never occurs" in run("evaluate", path)[2]


@pytest.mark.parametrize("rows", ["all", "sampled"])
def test_counts_are_those_of_numpy_however_it_is_cut(save, monkeypatch, rows):
    if rows == "sampled":
        monkeypatch.setattr(sampling, "ALL_ROWS", 50)
        monkeypatch.setattr(sampling, "LEAST_ROWS", 70)
    scores = RNG.choice([0.125, 0.25, 0.5, 1.0], size=(N, K)).astype(np.float32)
    scores[RNG.random(N) < 0.3] = 0.25
    path = save(probs=scores + (RNG.random((N, 1)) < 0.1))
    looked_at = np.arange(0, N, 3 if rows == "sampled" else 1)
    with h5py.File(path) as file:
        values = file["probs"][:][looked_at].astype(float)
    outside = (values > 1.01).any(1)
    equal = (values == values[:, :1]).all(1)
    told = evaluate(path).notes
    assert told == evaluate(path, threads=3, memory="4MB").notes
    every = " looked at (every 3th)" if rows == "sampled" else ""
    text = f"{outside.sum()} of {len(looked_at)} rows{every} hold values outside [0, 1], the first "
    first = int(outside.argmax())
    assert text + f"{values[first][values[first] > 1.01][0]:.6g} at row {looked_at[first]};" in told[0]
    text = f"{equal.sum()} of {len(looked_at)} rows{every} hold 4 equal scores, the first "
    first = int(equal.argmax())
    assert text + f"({values[first, 0]:.6g} each) at row {looked_at[first]}:" in told[1]
    assert [f"{path}:{warning}" for warning in info([path]).files[0].warnings] == list(told)


def test_clean_data_is_not_accused(run):
    files = sorted(glob.glob(str(SAMPLES / "*" / "*.h5")) + glob.glob(str(SAMPLES / "*" / "*.parquet")))
    files += sorted(glob.glob(str(SAMPLES / "streets" / "*" / "*.h5")))
    assert len(files) > 10
    for file in info(files).files:
        assert file.findings == (), file.name
    for path in files[:6]:
        found = [note for note in evaluate(path).notes if note.startswith(path)]
        assert found == []


def test_findings_in_json(save):
    kept = info([save(logits=PROBS)]).to_dict()["files"][0]["findings"]
    assert [finding["code"] for finding in kept] == ["named-not-probs"]
    assert kept[0]["array"] == "logits" and kept[0]["said"].startswith("named logits")


def test_arrays_of_an_npz(tmp_path):
    np.savez(tmp_path / "x.npz", logits=UNFILLED, labels=LABELS, sample_id=IDS)
    told = convert(tmp_path / "x.npz", tmp_path / "x.h5").notes
    assert [note.partition(": ")[0].rpartition(":")[2] for note in told] == ["logits", "sample_id"]


def test_volumes_with_the_classes_first(tmp_path, refuse, answer):
    """(K, Z, Y, X), as probabilities of volumes are saved: slices never become classes."""
    scores = RNG.normal(size=(3, 6, 8, 9))
    probs = (np.exp(scores) / np.exp(scores).sum(0)).astype(np.float32)
    path, out = str(tmp_path / "x.npz"), str(tmp_path / "x.h5")
    np.savez(path, logits=scores.astype(np.float32))
    assert "numpy.moveaxis(scores, 0, 1)" in refuse(65, "convert", path, out)
    np.savez(path, probabilities=probs)  # they sum to 1 along the first axis, and along no other
    found = answer("convert", path, out)
    assert (found["n_samples"], found["n_classes"], found["image_shape"]) == (1, 3, [48, 9])
    os.remove(out)
    for options in (["--class-axis", "1"], ["--class-axis", "1", "--kind", "probs"], ["--class-axis", "-1"]):
        assert "sum to 1 along the first axis" in refuse(65, "convert", path, out, *options)
    labels = probs.argmax(0)
    np.savez(path, probabilities=probs[:, :3], labels=labels[:3])  # as many slices as classes: labels fit both
    assert "sum to 1 along the first axis" in refuse(65, "convert", path, out, "--class-axis", "1")
    assert answer("evaluate", path)["acc"] == 1  # by the axis along which they sum to 1
    np.savez(path, probabilities=np.moveaxis(probs[:, :3], 0, 1), labels=labels[:3])
    assert answer("evaluate", path)["acc"] == 1
    np.savez(path, probabilities=probs, labels=labels)  # labels of (Z, Y, X) say what the axes are
    answer("convert", path, out)
    assert answer("evaluate", out)["acc"] == answer("evaluate", path)["acc"] == 1
    os.remove(out)
    np.savez(path, probabilities=np.moveaxis(probs, 0, 1), labels=labels)
    answer("convert", path, out, "--class-axis", "1")
    assert answer("evaluate", out)["acc"] == 1


def test_labels_that_start_at_one_beyond_the_last_class(save, refuse):
    said = refuse(65, "evaluate", save(logits=LOGITS, labels=LABELS + 1))
    assert "expected labels in [0, 4) (the first class is 0)" in said


def test_labels_of_minus_one_and_one(save, run, answer):
    labels = np.where(LABELS < 2, -1, 1)
    scores = np.where(labels == 1, 1.0, -1.0) + RNG.normal(size=N)
    path = save("x.h5", labels=labels, logits=scores.reshape(-1, 1), source_counts=[3, 2])
    said = f"labels: no label that counts is 0, and {(labels < 0).sum()} of {N} are ignored"
    for command in (("evaluate",), ("search-lambda",), ("calibrate", "-l", "1", "-o", "o.h5", "--force"), ("info",)):
        code, out, err = run(command[0], path, *command[1:])
        assert code == 0 and said in out + err, command
    path = save("y.h5", labels=np.maximum(labels, 0), logits=scores, source_counts=[3, 2])
    assert "that counts is 0" not in run("evaluate", path)[2]
