"""convert: arrays to logits files, HDF5 to Parquet and back, bit for bit, and each refusal."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unoic_cli import convert, formats
from unoic_cli.commands import convert as task
from unoic_cli.errors import CannotCreateError, DataError, NoInputError, StorageError, UsageError
from unoic_cli.formats import boxes, numpy_files, plain, schema

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2])
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


@pytest.fixture
def save(tmp_path):
    def saver(**arrays):
        path = str(tmp_path / "x.npz")
        np.savez(path, **arrays)
        return path

    return saver


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out.h5")


def load(path):
    """Every field of a logits file, over units (per-sample fields repeated)."""
    source = formats.describe(path)
    wanted = source.fields | {"scores"} | ({"predictions"} if source.has_predictions else set())
    parts = {name: [] for name in wanted}
    reader = formats.open_reader(source)
    for start, stop in formats.spans(source, 64):
        for block in reader.blocks(start, stop, wanted):
            for name in wanted:
                values = getattr(block, "predictions" if source.kind == "predictions" and name == "scores" else name)
                if name == "scores" and values.ndim == 3:
                    values = values.transpose(0, 2, 1).reshape(-1, source.n_classes)
                elif name in ("split", "group", "sample_id"):
                    values = schema.per_unit(values, block.start, block.stop, source.pixels)
                elif name == "delta":
                    values = np.broadcast_to(values, (block.stop - block.start,))
                parts[name].append(np.array(values))
    reader.close()
    return source, {name: np.concatenate(arrays) for name, arrays in parts.items()}


def assert_same(first, second):
    (a, arrays), (b, others) = first, second
    for name in ("n_samples", "n_classes", "image_shape", "kind", "encoding", "fields", "class_names"):
        assert getattr(a, name) == getattr(b, name), name
    assert (a.source_counts, a.source_prior) == (b.source_counts, b.source_prior)
    assert arrays.keys() == others.keys()
    for name, values in arrays.items():
        assert values.dtype == others[name].dtype, name
        if values.dtype.kind == "f":
            values, others[name] = values.view(f"u{values.itemsize}"), others[name].view(f"u{values.itemsize}")
        np.testing.assert_array_equal(values, others[name], err_msg=name)


# ------------------------------------------------------------------------------------------------
# round trips


@st.composite
def arrays(draw):
    n, k = draw(st.integers(1, 7)), draw(st.integers(2, 4))
    image = draw(st.sampled_from([(), (2, 3), (1, 1), (5, 1)]))
    axis = draw(st.sampled_from([1, -1]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from(["<f2", "<f4", ">f4", "<f8"]))
    shape = (n, k, *image) if axis == 1 else (n, *image, k)
    found = {"logits": np.asarray(rng.normal(size=shape).astype(dtype), order=draw(st.sampled_from("CF")))}
    units = (n, *image)
    labels = rng.integers(0, k, units).astype(draw(st.sampled_from(["u1", "<i8", ">i4", "u8"])))
    optional = {
        "labels": labels[:, None] if draw(st.booleans()) else labels,
        "delta": draw(st.sampled_from([np.float64(0.5), rng.random(n), rng.random(units).astype(np.float32)])),
        "split": rng.choice(["val", "tést"], n),
        "group": rng.integers(0, 3, n),
        "sample_id": draw(st.sampled_from([np.arange(n), np.array([f"id{i}" for i in range(n)]).astype("S")])),
        "train_counts": rng.integers(1, 100, k),
        "source_prior": np.full(k, 1 / k),
        "class_names": np.array([f"c{i}" for i in range(k)]),
    }
    for name in draw(st.sets(st.sampled_from(sorted(optional)))):
        found[name] = optional[name]
    return found, axis


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_arrays=arrays(), block_bytes=st.sampled_from([1, 100, 1 << 20]))
def test_npz_to_hdf5_to_parquet_to_hdf5(tmp_path, monkeypatch, given_arrays, block_bytes):
    members, axis = given_arrays
    monkeypatch.setattr(task, "BLOCK_BYTES", block_bytes)
    npz, first, second, third = (str(tmp_path / name) for name in ("x.npz", "a.h5", "b.parquet", "c.h5"))
    np.savez(npz, **members)
    told = axis if members["logits"].ndim > 2 else None  # of rows it is refused
    result = convert(npz, first, class_axis=told, force=True, kind="logits")
    kept = {"source_counts" if name == "train_counts" else name for name in members} - {"logits"}
    assert set(result.fields) == kept
    assert result.dropped == ()
    source, stored = load(first)
    assert source.layout == ("planes" if axis == 1 and members["logits"].ndim == 4 else "rows")
    scores = np.moveaxis(members["logits"], axis, -1).reshape(-1, result.n_classes)
    native = np.ascontiguousarray(scores, scores.dtype.newbyteorder("="))
    np.testing.assert_array_equal(stored["scores"], native.view(np.uint16) if native.dtype.itemsize == 2 else native)
    if "labels" in members:
        np.testing.assert_array_equal(stored["labels"], members["labels"].reshape(-1))
        assert stored["labels"].dtype == members["labels"].dtype.newbyteorder("=")
    if "delta" in members:
        delta = members["delta"]
        if delta.ndim == 1:
            delta = np.repeat(delta, source.pixels)
        np.testing.assert_array_equal(stored["delta"], np.broadcast_to(delta.reshape(-1), source.n_units))
    if "group" in members:
        np.testing.assert_array_equal(stored["group"], np.repeat(members["group"].astype(str), source.pixels))
    convert(first, second, force=True)
    convert(second, third, force=True)
    assert_same(load(first), load(second))
    assert_same(load(first), load(third))
    assert formats.describe(third).attributes["converted_from"] == "x.npz:logits"


def test_planes_become_rows_in_parquet_and_stay_rows(tmp_path, save, out):
    images = RNG.normal(size=(2, 3, 4, 5)).astype(np.float16)
    convert(save(logits=images), out, class_axis=1)
    middle, back = str(tmp_path / "b.parquet"), str(tmp_path / "c.h5")
    convert(out, middle)
    assert formats.describe(middle).image_shape == (4, 5)
    convert(middle, back)
    with h5py.File(back) as file:
        assert file["logits"].attrs["class_axis"] == 3
        np.testing.assert_array_equal(file["logits"][()], images.transpose(0, 2, 3, 1))


def test_planes_stay_planes_between_hdf5_files(tmp_path, save, out):
    images = RNG.normal(size=(2, 3, 4, 5)).astype(np.float16)
    convert(save(logits=images), out, class_axis=1)
    convert(out, str(tmp_path / "c.h5"))
    with h5py.File(tmp_path / "c.h5") as file:
        np.testing.assert_array_equal(file["logits"][()], images)


@pytest.mark.parametrize("image", [(), (2, 3)])
def test_predictions_alone_and_beside_the_scores(tmp_path, image):
    values = RNG.integers(0, 3, (4, *image)).astype(np.uint8)
    for scores in (None, RNG.normal(size=(4, 3, *image)).astype(np.float32)):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["predictions"] = values
            file["predictions"].attrs["n_classes"] = 3
            file["labels"] = values
            if scores is not None:
                file["logits"] = scores
        middle, back = str(tmp_path / "b.parquet"), str(tmp_path / "c.h5")
        result = convert(str(tmp_path / "a.h5"), middle, force=True)
        assert result.kind == ("predictions" if scores is None else "logits")
        assert ("predictions" in result.fields) == (scores is not None)
        convert(middle, back, force=True)
        assert_same(load(str(tmp_path / "a.h5")), load(back))
        np.testing.assert_array_equal(pq.read_table(middle)["predictions"].to_numpy(), values.reshape(-1))


def test_predictions_that_do_not_fit_the_scores_are_left_alone_or_refused(tmp_path, out):
    path = str(tmp_path / "a.h5")
    for values in (np.zeros(4, np.float32), np.zeros(3, np.uint8)):
        with h5py.File(path, "w") as file:
            file["logits"] = np.zeros((4, 3), np.float32)
            file["predictions"] = values
        assert not formats.describe(path).has_predictions
    with h5py.File(path, "w") as file:
        file["logits"] = np.zeros((4, 3), np.float32)
        file["predictions"] = np.array([0, 1, 300, 0], np.uint16)
    with pytest.raises(DataError, match=r"predictions: 300 at row 2; expected classes in \[0, 3\)"):
        convert(path, out)
    assert not os.path.exists(out)


def test_predictions_of_units_without_a_label_may_be_anything(tmp_path, out):
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        file["logits"] = np.zeros((4, 3), np.float32)
        file["labels"] = [0, -100, 2, 255]
        file["predictions"] = [0, -1, 2, 255]
    convert(path, out)
    source, _ = load(out)
    assert source.has_predictions
    reader = formats.open_reader(source)
    assert next(reader.blocks(0, 4, frozenset({"predictions"}))).predictions.tolist() == [0, 255, 2, 255]
    reader.close()


def test_bfloat16_passes_through(tmp_path):
    bits = RNG.integers(0, 1 << 14, (5, 3)).astype(np.uint16)
    spec = formats.OutputSpec(5, 3, (), "logits", "bfloat16", "rows")
    writer = formats.create(str(tmp_path / "a.h5"), spec)
    writer.write(task.LogitBlock(0, 5, scores=bits))
    writer.commit()
    convert(str(tmp_path / "a.h5"), str(tmp_path / "b.parquet"))
    convert(str(tmp_path / "b.parquet"), str(tmp_path / "c.h5"))
    assert_same(load(str(tmp_path / "a.h5")), load(str(tmp_path / "c.h5")))
    assert load(str(tmp_path / "c.h5"))[1]["scores"].tolist() == bits.tolist()


# ------------------------------------------------------------------------------------------------
# which array is what


@pytest.mark.parametrize("name", ["logits", "outputs", "scores", "logits_rgb", "Logits"])
@pytest.mark.parametrize("labels", ["labels", "label", "targets", "target", "y", "y_true", "gt"])
def test_aliases(save, out, name, labels):
    result = convert(save(**{name: LOGITS, labels: LABELS, "meta": np.array("text")}), out)
    assert (result.kind, result.fields, result.dropped) == ("logits", ("labels",), ("meta",))
    assert result.input.endswith(f":{name}")
    assert result.notes == ("not used: meta",)
    assert result.to_dict()["n_classes"] == 3


def test_two_candidates(save, out):
    path = save(logits_a=LOGITS, logits_b=LOGITS, y=LABELS, labels=LABELS)
    with pytest.raises(DataError, match=r"2 candidates \(logits_a, logits_b\); expected --logits-key NAME"):
        convert(path, out)
    with pytest.raises(DataError, match=r"2 candidates \(y, labels\); expected --labels-key NAME"):
        convert(path, out, logits_key="logits_b")
    result = convert(path, out, logits_key="logits_b", labels_key="y")
    assert result.dropped == ("logits_a", "labels")


def test_absent_keys_list_what_is_there(save, out):
    path = save(logits=LOGITS, labels=LABELS)
    with pytest.raises(
        DataError, match=r"x\.npz:z: no such array for --logits-key; .* logits \(6, 3\) float32, labels"
    ):
        convert(path, out, logits_key="z")
    with pytest.raises(DataError, match=r"no such array for --labels-key"):
        convert(path, out, labels_key="z")
    with pytest.raises(
        DataError, match=r"no scores among a \(6, 3\) float32, b \(6, 3\) float32; expected --logits-key NAME"
    ):
        convert(save(a=LOGITS, b=LOGITS), out)


def test_objects_that_nobody_asked_for_are_skipped(save, out):
    path = save(logits=LOGITS, labels=LABELS, ids=np.array(["a", None] * 3, dtype=object))
    result = convert(path, out)
    assert result.fields == ("labels",)
    assert result.notes == ("not used: ids (a pickled (object) array)",)


@pytest.mark.parametrize(("name", "kind", "two"), [
    ("logits", "logits", [[0, -2.0], [0, 0.5]]), ("probs", "probs", [[0.75, 0.25], [0.5, 0.5]]),
])  # fmt: skip
@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_one_column_becomes_two(save, out, name, kind, two, shape):
    values = np.float32([row[1] for row in two]).reshape(shape)
    result = convert(save(**{name: values}, y=np.array([True, False])), out)
    assert (result.kind, result.n_classes) == (kind, 2)
    assert any(note.startswith("one score of each unit, read as") for note in result.notes)
    source, content = load(out)
    assert (source.kind, source.n_classes, source.single) == (kind, 2, False)
    assert content["scores"].tolist() == two
    assert content["labels"].tolist() == [1, 0]


def test_no_labels_is_said(save, out):
    result = convert(save(logits=LOGITS, classes=LABELS), out)
    assert any(note.startswith("no labels") for note in result.notes)
    assert result.dropped == ("classes",)
    assert "labels" in convert(save(logits=LOGITS, classes=LABELS), out, labels_key="classes", force=True).fields


def test_npy_with_labels_from_another_file(tmp_path, out):
    for name, values in (("anything.npy", LOGITS), ("truth.npy", LABELS)):
        np.save(tmp_path / name, values)
    np.savez(tmp_path / "many.npz", a=LABELS, b=LABELS)
    path = str(tmp_path / "anything.npy")
    assert convert(path, out).fields == ()
    result = convert(path, out, labels_file=str(tmp_path / "truth.npy"), force=True)
    assert result.fields == ("labels",)
    assert load(out)[1]["labels"].tolist() == LABELS.tolist()
    with pytest.raises(DataError, match="no labels among a"):
        convert(path, out, labels_file=str(tmp_path / "many.npz"), force=True)
    assert convert(path, out, labels_file=str(tmp_path / "many.npz"), labels_key="b", force=True).fields == ("labels",)
    with pytest.raises(NoInputError):
        convert(path, out, labels_file=str(tmp_path / "none.npy"), force=True)


def test_both_names_of_the_counts(save, out):
    result = convert(save(logits=LOGITS, source_counts=[3, 2, 1], train_counts=[1, 1, 1]), out)
    assert result.dropped == ("train_counts",)
    assert formats.describe(out).source_counts == (3, 2, 1)


# ------------------------------------------------------------------------------------------------
# what the scores are


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("name", ["logits", "probs", "pred_probs", "softmax", "probabilities", "scores"])
def test_probabilities_are_seen(save, out, name, dtype):
    result = convert(save(**{name: PROBS.astype(dtype), "y": LABELS}), out)
    assert result.kind == formats.describe(out).kind == "probs"
    assert "sums to 1" in result.kind_from
    assert any("float16" in note for note in result.notes) == (dtype == "f2")
    assert any("stored as probs" in note for note in result.notes) == (name == "logits")


def test_log_probs_by_name(save, out):
    values = np.log(PROBS)
    values[0] = [0, -np.inf, -np.inf]
    result = convert(save(log_probs=values), out)
    assert (result.kind, result.kind_from) == ("log_probs", "the name of the member")
    with pytest.raises(DataError, match=r"log_probs: 0.5 at row 1; expected logarithms"):
        convert(save(log_probs=np.array([[-1, -1], [0.5, -1]], np.float32)), out, force=True)
    result = convert(save(log_probs=np.full((2, 2), -9.0)), out, force=True)
    assert any("the exponentials of a row do not sum to 1" in note for note in result.notes)


def test_doubts_are_refused(save, out):
    halves = np.full((4, 3), 0.5, np.float32)
    with pytest.raises(DataError, match=r"but row 0 sums to 1.5; expected --kind probs or --kind logits"):
        convert(save(logits=halves), out)
    with pytest.raises(DataError, match=r"row 0 sums to 1\.5"):
        convert(save(softmax=halves), out)
    result = convert(save(logits=halves), out, kind="probs")
    assert result.kind_from == "--kind"
    assert any("4 of 4 rows do not sum to 1, the first (1.5) at row 0" in note for note in result.notes)
    assert convert(save(logits=halves), out, kind="logits", force=True).kind == "logits"


def test_names_and_declarations_that_the_values_contradict(save, out):
    with pytest.raises(DataError, match=r"softmax: .* at row 0; expected probabilities in \[0, 1\], as the name says"):
        convert(save(softmax=LOGITS), out)
    wrong = PROBS.copy()
    wrong[4, 1] = 1.5
    with pytest.raises(DataError, match=r"logits: 1.5 at row 4; expected probabilities in \[0, 1\]$"):
        convert(save(logits=wrong), out, kind="probs")
    result = convert(save(logits=PROBS), out, kind="logits")
    assert any("named logits, but the values look like probabilities" in note for note in result.notes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [None, "logits", "probs", "log_probs"])
def test_what_is_not_finite_is_refused_with_its_row(save, out, bad, kind):
    values = np.log(PROBS)
    values[3, 1] = bad
    if kind != "probs" and bad == -np.inf:
        result = convert(save(logits=values), out, kind=kind)
        assert result.kind == (kind or "logits")
        masked = "-inf at row 3: read as a class that the unit cannot have"
        assert any(masked in note for note in result.notes) == (result.kind == "logits")
        return
    with pytest.raises(DataError, match=rf"logits: {'NaN' if np.isnan(bad) else bad} at row 3; expected finite"):
        convert(save(logits=values), out, kind=kind)
    assert not os.path.exists(out)


def test_the_first_bad_pixel_is_named_in_both_layouts(save, out):
    images = np.zeros((2, 3, 4, 5), np.float32)
    images[1, 2, 3, 1] = np.nan
    images[1, 0, 3, 2] = np.nan
    with pytest.raises(DataError, match=r"NaN at sample 1, pixel \(3, 1\)"):
        convert(save(logits=images), out, kind="logits", class_axis=1)
    with pytest.raises(DataError, match=r"NaN at sample 1, pixel \(3, 1\)"):
        convert(save(logits=images.transpose(0, 2, 3, 1)), out, kind="logits", class_axis=-1)


def test_hdf5_scores_can_be_renamed(tmp_path, out):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["logits"] = PROBS
    assert convert(str(tmp_path / "a.h5"), out).kind == "logits"
    result = convert(str(tmp_path / "a.h5"), out, kind="probs", force=True)
    assert formats.describe(out).kind == result.kind == "probs"
    with pytest.raises(DataError, match="expected logarithms"):
        convert(str(tmp_path / "a.h5"), out, kind="log_probs", force=True)


# ------------------------------------------------------------------------------------------------
# shapes, dtypes and options


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((6, 3), np.int64), "int64 values; expected floats$"),
        (np.zeros(6, np.int64), "expected floats; class indices are stored as predictions"),
        (np.zeros((6, 3), bool), "bool values"),
        (np.zeros((6, 3), np.complex64), "complex64 values"),
        (np.zeros((6, 3), np.longdouble), "values; expected float16, float32 or float64"),
        (np.zeros((6, 3, 2), np.float32), r"shape \(6, 3, 2\)"),
        (np.zeros((0, 3), np.float32), "no samples"),
        (np.zeros((2, 4, 5, 3), np.float32), "nothing that says which axis holds the classes"),
        (np.array([{}] * 6, dtype=object), "a pickled"),
    ],
)
def test_wrong_scores(save, out, scores, message):
    with pytest.raises(DataError, match=message):
        convert(save(logits=scores), out)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:5], r"labels: shape \(5,\); expected \(6,\)"),
        (LABELS.astype(float), "whole numbers"),
        (np.eye(3)[LABELS], "one-hot"),
        (np.eye(3, dtype=int)[LABELS], "one-hot"),
        (LABELS == 1, "true or false for 3 classes"),
        (LABELS.astype(str), "text values; expected integers"),
    ],
)
def test_wrong_labels(save, out, labels, message):
    with pytest.raises(DataError, match=message):
        convert(save(logits=LOGITS, labels=labels), out)


def test_labels_that_are_fine(save, out):
    convert(save(logits=LOGITS, labels=LABELS[:, None]), out)
    assert load(out)[1]["labels"].tolist() == LABELS.tolist()
    convert(save(logits=LOGITS[:, :2], labels=LABELS == 1), out, force=True)
    assert load(out)[1]["labels"].tolist() == [0, 1, 0, 0, 1, 0]
    assert load(out)[1]["labels"].dtype == np.uint8
    result = convert(save(logits=LOGITS, labels=[0, -1, 9, 9, 1, 2]), out, force=True)
    assert "labels outside [0, 3): -1 (1 times), 9 (2 times)" in result.notes


def test_class_axis(save, out):
    images, labels = np.zeros((2, 4, 5, 3), np.float32), np.zeros((2, 4, 5), int)
    with pytest.raises(DataError, match=r"or --class-axis -1 for classes on the last axis"):
        convert(save(logits=images, labels=labels), out, class_axis=1)
    result = convert(save(logits=images, labels=labels), out, class_axis=-1, kind="logits")
    assert (result.n_classes, result.image_shape) == (3, (4, 5))
    result = convert(save(logits=images, labels=labels), out, kind="logits", force=True)
    assert (result.n_classes, result.image_shape) == (3, (4, 5))
    with pytest.raises(DataError, match="class_axis 2"):
        convert(save(logits=images), out, class_axis=2, force=True)


def test_wrong_fields(save, out):
    for name, values in {"split": ["a"], "source_counts": [1, 2], "class_names": ["a"], "delta": np.zeros(4)}.items():
        with pytest.raises(DataError, match=f"x.npz:{name}: shape"):
            convert(save(logits=LOGITS, **{name: values}), out)
    with pytest.raises(DataError, match="expected text"):
        convert(save(logits=LOGITS, split=np.zeros(6)), out)
    with pytest.raises(DataError, match="pickled"):
        convert(save(logits=LOGITS, split=np.array(["a"] * 6, dtype=object)), out)


def test_options_that_make_no_sense(tmp_path, save, out):
    path = save(logits=LOGITS)
    with pytest.raises(
        UsageError, match=r"--kind: .prob.; did you mean probs\? expected one of logits, log_probs, probs"
    ):
        convert(path, out, kind="prob")
    with pytest.raises(UsageError, match="unknown suffix"):
        convert(path, str(tmp_path / "out.xls"))
    convert(path, out)
    for options in ({"class_axis": 1},):
        with pytest.raises(UsageError, match=f"--{next(iter(options)).replace('_', '-')}: given, but"):
            convert(out, str(tmp_path / "b.h5"), **options)
    for options in ({"logits_key": "a"}, {"labels_key": "a"}):
        with pytest.raises(DataError, match=f"no such array for --{next(iter(options)).replace('_', '-')}"):
            convert(out, str(tmp_path / "b.h5"), **options)
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["predictions"] = np.zeros(3, np.uint8)
        file["predictions"].attrs["n_classes"] = 2
    with pytest.raises(UsageError, match="holds predictions"):
        convert(str(tmp_path / "p.h5"), str(tmp_path / "b.h5"), kind="probs")


# ------------------------------------------------------------------------------------------------
# the output


def test_outputs_that_cannot_be(tmp_path, save, out):
    path = save(logits=LOGITS, labels=LABELS)
    convert(path, out)
    with pytest.raises(CannotCreateError, match="--force"):
        convert(path, out)
    with pytest.raises(CannotCreateError, match="also an input"):
        convert(out, out, force=True)
    with pytest.raises(CannotCreateError, match="does not exist"):
        convert(path, str(tmp_path / "no" / "out.h5"))
    with pytest.raises(NoInputError):
        convert(str(tmp_path / "no.npz"), out)


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, StorageError("x", "disk full", "expected room")])
def test_all_or_nothing(tmp_path, save, monkeypatch, suffix, error):
    path, out = save(logits=LOGITS, labels=LABELS), str(tmp_path / f"out{suffix}")
    Path(out).write_bytes(b"old")
    flat = plain.FlatReader._flat

    def broken(self, name, start, stop):
        if name == "labels" and start:
            raise error
        return flat(self, name, start, stop)

    monkeypatch.setattr(task, "BLOCK_BYTES", 24)
    monkeypatch.setattr(plain.FlatReader, "_flat", broken)
    with pytest.raises(BaseException, match=r"disk full|^$"):
        convert(path, out, force=True)
    assert Path(out).read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == sorted([f"out{suffix}", "x.npz"])


@pytest.mark.parametrize("how", [np.savez, np.savez_compressed])
def test_a_member_is_never_loaded_whole(tmp_path, out, monkeypatch, how):
    monkeypatch.setattr(task, "BLOCK_BYTES", 24)
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 24)
    monkeypatch.setattr(boxes, "_PIECE", 30)
    rows, unpacked, sizes = numpy_files.rows, [], []
    pread = schema.pread_into

    def watched(path, member, target_bytes):
        for block in rows(path, member, target_bytes):
            unpacked.append(block.nbytes)
            yield block

    def read(where, file, array, offset):
        sizes.append(len(array))
        pread(where, file, array, offset)

    monkeypatch.setattr(numpy_files, "rows", watched)
    monkeypatch.setattr(schema, "pread_into", read)
    monkeypatch.setattr(numpy_files, "read", None)
    how(tmp_path / "x.npz", logits=LOGITS, labels=LABELS, split=["a"] * 6)
    convert(str(tmp_path / "x.npz"), out)
    assert set(sizes) <= {1, 2}
    assert all(size <= 30 for size in unpacked)


# ------------------------------------------------------------------------------------------------
# real files


@pytest.mark.skipif(not DATA.is_dir(), reason="the real logits are not here")
@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
def test_real_files(tmp_path, suffix):
    out = str(tmp_path / f"out{suffix}")
    result = convert(str(DATA / "agnews_gpt2.npz"), out)
    assert (result.kind, result.fields, result.dropped) == ("logits", ("labels", "split"), ("meta",))
    many = str(DATA / "dermamnist_4nets.npz")
    with pytest.raises(DataError, match=r"4 candidates .* expected --logits-key NAME"):
        convert(many, out, force=True)
    result = convert(many, out, logits_key="logits_ViT_Base", force=True)
    assert result.fields == ("class_names", "labels", "source_counts", "split")
    with np.load(many) as stored:
        np.testing.assert_array_equal(load(out)[1]["scores"], stored["logits_ViT_Base"])
        np.testing.assert_array_equal(load(out)[1]["split"], stored["split"])
