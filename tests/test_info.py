"""info: what is counted equals numpy's own count, bad data is reported instead of refused, and next steps fit."""

from __future__ import annotations

import io
import json
import shlex

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from unoic_cli import convert, info, pack
from unoic_cli.commands import info as task
from unoic_cli.errors import DataError, NoInputError
from unoic_cli.formats import chunks, hdf5
from unoic_cli.report.info import render_info
from unoic_cli.tallies import contents

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 0, 0, 1, 0])
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


@pytest.fixture
def look(tmp_path):
    def looker(name="x.h5", **arrays):
        path = str(tmp_path / name)
        with h5py.File(path, "w") as file:
            for key, values in arrays.items():
                file[key] = values
        return info([path]).files[0]

    return looker


def draw(result):
    console = Console(width=160, file=io.StringIO())
    console.print(render_info(result))
    return console.file.getvalue()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 999),
    image=st.sampled_from([(), (3, 4), (1, 70)]),
    last=st.booleans(),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    parquet=st.booleans(),
    split=st.sampled_from([None, "val", "test"]),
    target=st.sampled_from([1, 300, 1 << 20]),
)
def test_counts_equal_numpy(tmp_path, monkeypatch, seed, image, last, dtype, parquet, split, target):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(2, 7)), int(rng.integers(2, 5))
    scores = rng.normal(size=(n, k, *image)).astype(dtype)
    bad = rng.random(scores.shape)
    scores[bad < 0.05], scores[bad > 0.95], scores[(bad > 0.5) & (bad < 0.53)] = np.nan, np.inf, -np.inf
    labels = rng.choice([0, 1, k - 1, -1, 255, 77], (n, *image)).astype(np.int16)
    delta = rng.choice([0.5, 2.0, -1.0, np.nan], (n, *image))
    splits = np.array(["val", "test"] + ["val"] * (n - 2))
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        file["logits"] = np.moveaxis(scores, 1, -1) if last else scores
        file["logits"].attrs["class_axis"] = -1 if last else 1
        file["labels"], file["delta"] = labels, delta
        file["split"], file["group"] = splits.astype("S"), np.array([f"g{i % 2}" for i in range(n)]).astype("S")
    if parquet:
        convert(path, str(tmp_path / "x.parquet"), force=True)
        path = str(tmp_path / "x.parquet")
    monkeypatch.setattr(task, "BLOCK_BYTES", target)
    seen = info([path], split=split).files[0]
    kept = np.ones(n, bool) if split is None else splits == split
    scores, labels, delta = scores[kept], labels[kept], delta[kept]
    assert seen.values.n_nan == np.isnan(scores).sum()
    assert (seen.values.n_pos_inf, seen.values.n_neg_inf) == ((scores == np.inf).sum(), (scores == -np.inf).sum())
    finite = scores[np.isfinite(scores)].astype(float)
    ends = (finite.min(initial=np.inf), finite.max(initial=-np.inf))
    assert (seen.values.minimum, seen.values.maximum) == ends
    assert seen.labels.counts == tuple(int((labels == c).sum()) for c in range(k))
    assert seen.labels.n_empty == sum((labels == c).sum() == 0 for c in range(k))
    assert seen.labels.ignored == {v: int((labels == v).sum()) for v in (-1, 255) if (labels == v).any()}
    assert seen.labels.n_outside == (labels == 77).sum()
    assert seen.splits == {"test": 1, "val": n - 1}
    assert seen.groups == {f"g{r}": c for r in (0, 1) if (c := int((np.arange(n)[kept] % 2 == r).sum()))}
    assert seen.delta.n_invalid == (~(delta >= 0)).sum()
    assert seen.axes == ("NK" if not image else "NHWC" if last or parquet else "NCHW")
    assert bool(np.isnan(scores).any()) == any("values are NaN, the first at" in warning for warning in seen.warnings)


def test_first_bad_unit_is_that_of_the_source(look, tmp_path):
    values = LOGITS.copy()
    values[[1, 4], 2] = np.nan
    assert any("NaN, the first at row 1;" in warning for warning in look(logits=values).warnings)
    splits = np.array(["a", "a", "a", "b", "b", "b"]).astype("S")
    path = str(tmp_path / "y.h5")
    with h5py.File(path, "w") as file:
        file["logits"], file["split"] = values, splits
    assert "NaN, the first at row 4;" in info([path], split="b").files[0].warnings[0]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_looks(look, dtype):
    assert look(probs=PROBS.astype(dtype)).values.look == "probabilities"
    assert look(log_probs=np.log(PROBS).astype(dtype)).values.look == "log-probabilities"
    assert look(logits=LOGITS.astype(dtype)).values.look == "logits"
    assert look(logits=np.full((2, 2), np.nan, dtype)).values.look == "nothing finite"


def test_wide_half_precision_rows_are_still_recognised(look):
    wide = RNG.normal(size=(5, 1000))
    probs = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
    assert look(probs=probs.astype(np.float16)).values.look == "probabilities"
    assert look(log_probs=np.log(probs).astype(np.float16)).values.look == "log-probabilities"


def test_log_probs_may_hold_minus_infinity(look):
    seen = look(log_probs=np.array([[0, -np.inf], [-np.inf, 0]], np.float32))
    assert (seen.values.look, seen.values.n_neg_inf, seen.warnings) == ("log-probabilities", 2, ())


def test_names_and_values_that_disagree(look):
    seen = look(logits=PROBS)
    assert "named logits, but the values look like probabilities" in seen.warnings[0]
    assert seen.warnings[0].endswith("x.probs.h5 --kind probs")
    assert "named probs, but the values look like logits" in look(probs=LOGITS).warnings[0]
    assert "do not sum to 1" in look(log_probs=LOGITS).warnings[0]
    assert look(logits=np.log(PROBS)).warnings == ()
    assert any("float16 cannot hold a rare class" in warning for warning in look(probs=PROBS.astype("f2")).warnings)


def test_labels_and_priors(look):
    seen = look(
        logits=LOGITS, labels=LABELS, source_counts=[90.0, 9, 0], class_names=np.array(["a", "b", "c"]).astype("S")
    )
    assert (seen.labels.counts, seen.labels.imbalance, seen.labels.n_empty) == ((4, 2, 0), 2.0, 1)
    assert (seen.source_imbalance, seen.class_names) == (10.0, ("a", "b", "c"))
    assert seen.labels.dtype == "int64"
    assert look(logits=LOGITS, source_prior=[0.5, 0.25, 0.25]).source_imbalance == 2


def test_labels_out_of_range_are_reported(look):
    seen = look(logits=LOGITS, labels=[0, 7, 7, 1, 255, 2])
    assert (seen.labels.outside, seen.labels.n_outside, seen.labels.ignored) == ({7: 2}, 2, {255: 1})
    assert "labels: 2 lie outside [0, 3): 7 (2 times)" in seen.warnings[0]
    assert any("--ignore-index 7" in line for line in seen.next)
    seen = look(logits=LOGITS, labels=np.full(6, 255, np.uint8))
    assert any("not one lies in" in warning for warning in seen.warnings)
    assert len(seen.next) == 1


def test_names_are_counted_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(contents, "MOST_NAMES", 2)
    labels = contents.ClassCounts(2)
    labels.update(np.array([0, 5, 6, 7, 8, 5, -3], np.int8))
    assert (labels.counts.tolist(), sum(labels.outside.counts.values()), labels.outside.n_more) == ([1, 0], 3, 3)
    assert contents.ClassCounts(2).counts.dtype == np.int64


def test_delta(look):
    assert look(logits=LOGITS, delta=0.5).delta == task.DeltaInfo("scalar", 0.5, 0.5, 0)
    assert look(logits=LOGITS, delta=np.arange(6.0)).delta == task.DeltaInfo("per unit", 0, 5, 0)
    seen = look(logits=LOGITS, delta=np.array([1, -1, np.nan, np.inf, 2, 2]))
    assert seen.delta == task.DeltaInfo("per unit", -1, 2, 3)
    assert any("3 factors are negative" in warning for warning in seen.warnings)


def test_predictions_only(tmp_path):
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        file["predictions"] = np.array([0, 1, 1, 5], np.uint8)
        file["predictions"].attrs["n_classes"] = 3
        file["labels"] = [0, 1, 2, 0]
    seen = info([path]).files[0]
    assert (seen.kind, seen.axes, seen.values, seen.encoding) == ("predictions", "N", None, None)
    assert (seen.predictions.counts, seen.predictions.n_outside) == ((1, 2, 0), 1)
    assert seen.next == (f"unoic evaluate {path}",)
    assert "predictions: 1 lie outside" in seen.warnings[0]


def test_storage_and_attributes(tmp_path):
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("logits", data=LOGITS, chunks=(2, 3), compression="gzip")
        file.attrs["unoic_command"] = "unoic calibrate"
    seen = info([path]).files[0]
    assert seen.storage == "chunked (2, 3), gzip"
    assert seen.attributes == {"unoic_command": "unoic calibrate"}
    assert seen.n_bytes == (tmp_path / "x.h5").stat().st_size
    assert (seen.shape, seen.layout, seen.n_units) == ((6, 3), "rows", 6)


def test_next(look, tmp_path):
    path, calibrated = str(tmp_path / "x.h5"), str(tmp_path / "x.calibrated.h5")
    counts = {"source_counts": [9, 3, 1]}
    seen = look(logits=LOGITS, labels=LABELS, **counts)
    assert seen.next == (f"unoic search-lambda {path}", f"unoic calibrate {path} -o {calibrated}")
    assert look(logits=LOGITS, **counts).next == (f"unoic calibrate {path} --lambda 1 -o {calibrated}",)
    assert look(logits=LOGITS, labels=LABELS).next == seen.next
    bare = look(logits=LOGITS).next
    assert bare == (f"unoic calibrate {path} --lambda 1 --source-prior mean-posterior -o {calibrated}",)
    assert "no labels and no counts" in look(logits=LOGITS).advice[0]
    balanced = look(logits=LOGITS, labels=[0, 1, 2, 0, 1, 2])
    assert all("--source-prior mean-posterior" in line for line in balanced.next)
    assert "too balanced" in balanced.advice[0]
    assert seen.advice == ()
    spaced = look(name="my file.h5", logits=LOGITS, labels=LABELS, **counts)
    assert shlex.split(spaced.next[1])[2::2] == [str(tmp_path / "my file.h5"), str(tmp_path / "my file.calibrated.h5")]


@pytest.mark.parametrize(
    ("splits", "tuning", "test"),
    [
        ("test,val,val", "val", "test"),
        ("b,a,a", "a", "b"),
        ("dev,train,dev", "dev", "train"),
        ("test,test,test", "test", ""),
    ],
)
def test_next_names_the_splits(tmp_path, splits, tuning, test):
    path, calibration = str(tmp_path / "x.h5"), str(tmp_path / "x.calibration.json")
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"], file["source_counts"] = LOGITS[:3], [0, 1, 0], [9, 3, 1]
        file["split"] = np.array(splits.split(",")).astype("S")
    lines = info([path]).files[0].next
    assert lines[0] == f"unoic search-lambda {path} --split {tuning} -o {calibration}"
    assert lines[1:-1] == ((f"unoic evaluate {path} --split {test} --calibration {calibration}",) if test else ())
    assert lines[-1].startswith(f"unoic calibrate {path} --calibration {calibration} -o ")
    chosen = info([path], split=tuning).files[0]
    assert (chosen.next[0], len(chosen.next), chosen.split) == (lines[0], 2, tuning)


def test_long_command_lines_can_be_copied(look):
    result = task.InfoResult((look(logits=LOGITS, labels=[0, 1, 2, 0, 1, 2]),))
    commands = draw(result).partition("next:\n")[2]
    for line in result.files[0].next:
        assert shlex.split(line) in [
            shlex.split(text) for text in commands.replace("\\\n", "").replace("\n  unoic", "\n\0unoic").split("\0")
        ]


def test_errors(tmp_path, look):
    with pytest.raises(NoInputError):
        info([str(tmp_path / "no.h5")])
    look(logits=LOGITS)
    path = str(tmp_path / "x.h5")
    with pytest.raises(DataError, match="no split, but --split val"):
        info([path], split="val")
    with h5py.File(path, "a") as file:
        file["split"] = np.array(["a", "b"] * 3).astype("S")
    with pytest.raises(DataError, match="no sample of split val; expected one of a, b"):
        info([path], split="val")
    np.savez(tmp_path / "x.npz", names=["a", "b"])
    with pytest.raises(DataError, match="no scores among names"):
        info([str(tmp_path / "x.npz")])


def test_json_and_terminal(tmp_path):
    names = []
    for name, k in (("[red]few.h5", 3), ("many.h5", 90)):
        names.append(str(tmp_path / name))
        with h5py.File(names[-1], "w") as file:
            file["logits"] = RNG.normal(size=(95, k)).astype(np.float16)
            file["labels"] = np.arange(95) % k
            file["source_counts"] = np.arange(k) + 1
            file["class_names"] = np.array([f"class {i}" for i in range(k)]).astype("S")
            file["split"], file["delta"] = np.array(["val", "[b]test"] * 47 + ["val"]).astype("S"), 0.5
    result = info(names)
    kept = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [file["n_classes"] for file in kept["files"]] == [3, 90]
    text = draw(result)
    for part in (
        "[red]few.h5",
        "class 2",
        "[b]test (47)",
        "the 20 most and the 20 least frequent of 90",
        "search-lambda",
    ):
        assert part in text


READ = {
    "contiguous": ({}, "contiguous", ""),
    "gzip": ({"chunks": (40, 8), "compression": "gzip"}, "chunks", ""),
    "lzf": (
        {"chunks": (40, 8), "compression": "lzf"},
        "library",
        "chunks of this codec are decoded by the HDF5 library",
    ),
    "across": ({"chunks": (40, 5)}, "chunks", "chunks cut across the classes"),
    "tiny": ({"chunks": (2, 8)}, "library", "chunks of 64 bytes cost more than they hold"),
}


@pytest.mark.parametrize("case", READ)
def test_how_fast_it_is_read(tmp_path, monkeypatch, case):
    options, path, slow = READ[case]
    monkeypatch.setattr(task, "_LARGE", 1)
    monkeypatch.setattr(task, "BLOCK_BYTES", 100)
    monkeypatch.setattr(hdf5, "_TINY", 100)
    monkeypatch.setattr(chunks, "SMALLEST", 100 if case == "tiny" else 0)
    name = str(tmp_path / "x.h5")
    with h5py.File(name, "w") as file:
        file.create_dataset("logits", data=RNG.normal(size=(80, 8)).astype("f4"), **options)
        file["labels"] = np.arange(80) % 8
    seen = info([name]).files[0]
    assert seen.read.path == path
    assert seen.read.mb_per_s > 0 and seen.read.stored_mb_per_s > 0
    assert slow in seen.read.slow and bool(slow) == bool(seen.read.slow)
    packed = f"unoic pack {shlex.quote(name)} {shlex.quote(str(tmp_path / 'x.packed.h5'))}"
    assert (packed in seen.next) == bool(slow)
    assert any("slow to read" in text for text in seen.advice) == bool(slow)
    assert "reading" in draw(info([name]))
    if slow:
        pack(name, str(tmp_path / "x.packed.h5"))
        assert not info([str(tmp_path / "x.packed.h5")]).files[0].read.slow


def test_small_parts_of_many_images_are_slow(tmp_path, monkeypatch):
    monkeypatch.setattr(task, "_LARGE", 1)
    monkeypatch.setattr(hdf5, "MOST_BYTES", 1000)
    monkeypatch.setattr(chunks, "SMALLEST", 0)
    name = str(tmp_path / "x.h5")
    with h5py.File(name, "w") as file:
        file.create_dataset("logits", data=RNG.normal(size=(9, 3, 8, 8)), chunks=(9, 3, 2, 2)).attrs["class_axis"] = 1
    assert "again for each" in info([name]).files[0].read.slow


def test_reading_of_other_forms(tmp_path):
    name = str(tmp_path / "x.h5")
    with h5py.File(name, "w") as file:
        file["logits"] = LOGITS
        file["p/predictions"] = np.zeros(3, "u1")
        file["p/predictions"].attrs["n_classes"] = 3
    convert(name, str(tmp_path / "x.parquet"))
    seen = info([str(tmp_path / "x.parquet")]).files[0].read
    assert (seen.path, seen.stored_mb_per_s) == ("row groups", None)
    assert info([f"{name}::p"]).files[0].read is None
