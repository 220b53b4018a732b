"""Parquet: round trips over every layout of the scores, and each refusal."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unoic_cli import formats
from unoic_cli.errors import DataError, NoInputError, StorageError, UsageError
from unoic_cli.formats import schema
from unoic_cli.formats.block import LogitBlock, OutputSpec
from unoic_cli.formats.names import Asked
from unoic_cli.formats.parquet import Parquet

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FORMS = ["wide", "fixed", "list", "large_list", "binary", "tensor"]


def describe(path):
    return Parquet.describe(str(path), str(path), "/", allow_external=False, asked=Asked())


def collect(source, target_bytes=1, fields=None):
    """Every block of every span, copied, as arrays over units."""
    wanted = (source.fields | {"scores"}) if fields is None else frozenset(fields)
    out = {name: [] for name in wanted}
    at = 0
    source = pickle.loads(pickle.dumps(source))
    reader = source.open()
    for start, stop in source.spans(target_bytes):
        assert start == at
        for block in reader.blocks(start, stop, wanted):
            assert block.start == at
            at = block.stop
            for name in wanted:
                out[name].append(np.array(per_unit(source, block, name)))
        assert at == stop
    assert at == source.n_units
    reader.close()
    return {name: np.concatenate(parts) for name, parts in out.items()}


def per_unit(source, block, name):
    if name == "scores":
        return block.predictions if source.kind == "predictions" else block.scores
    values = getattr(block, name)
    if name in ("split", "group", "sample_id"):
        first, last = schema.samples_of(block.start, block.stop, source.pixels)
        assert len(values) == last - first
        return schema.per_unit(values, block.start, block.stop, source.pixels)
    return values


def score_columns(scores, form, kind="logits"):
    n, k = scores.shape
    if form == "wide":
        return {f"{kind}_{index}": pa.array(scores[:, index]) for index in range(k)}
    values = pa.array(scores.reshape(-1))
    offsets = np.arange(n + 1) * k
    made = {
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(values, k),
        "list": lambda: pa.ListArray.from_arrays(offsets.astype(np.int32), values),
        "large_list": lambda: pa.LargeListArray.from_arrays(offsets, values),
        "binary": lambda: pa.array([row.tobytes() for row in scores], pa.binary(k * scores.itemsize)),
        "tensor": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(scores),
    }
    return {kind: made[form]()}


def store(path, columns, row_group_size=None, **metadata):
    table = pa.table(columns)
    texts = {f"unoic.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    pq.write_table(
        table.replace_schema_metadata({**(table.schema.metadata or {}), **texts}),
        path,
        row_group_size=row_group_size,
        write_page_checksum=True,
    )


@st.composite
def cases(draw):
    image = draw(st.sampled_from([(), (2, 3), (1, 7)]))
    return {
        "n": draw(st.integers(1, 6)),
        "k": draw(st.integers(2, 12)),
        "image": image,
        "form": draw(st.sampled_from(FORMS)),
        "dtype": draw(st.sampled_from(["float16", "float32", "float64"])),
        "row_group": draw(st.integers(1, 20)),
        "batch": draw(st.integers(1, 300)),
        "target": draw(st.integers(1, 500)),
        "label": draw(st.sampled_from(["label", "labels"])),
        "text": draw(st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])),
    }


@QUICK
@given(case=cases(), seed=st.integers(0, 99))
def test_blocks_equal_the_columns(tmp_path, case, seed):
    if case["form"] == "tensor" and case["dtype"] == "float16":
        case["form"] = "fixed"
    rng = np.random.default_rng(seed)
    pixels = int(np.prod(case["image"]))
    rows = case["n"] * pixels
    scores = rng.normal(size=(rows, case["k"])).astype(case["dtype"])
    labels = rng.integers(-1, 5, rows).astype(np.int16)
    delta = rng.random(rows).astype(np.float32)
    split = np.repeat([f"s{index}" for index in range(case["n"])], pixels)
    columns = score_columns(scores, case["form"])
    columns |= {case["label"]: labels, "delta": delta, "split": pa.array(split.tolist()).cast(case["text"])}
    columns |= {"sample_id": np.repeat(np.arange(case["n"]), pixels)}
    store(tmp_path / "a.parquet", columns, case["row_group"], dtype=case["dtype"], image_shape=list(case["image"]))
    source = describe(tmp_path / "a.parquet")
    assert (source.n_samples, source.n_classes, source.image_shape) == (case["n"], case["k"], case["image"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unoic_cli.formats.parquet._BATCH_BYTES", case["batch"])
        got = collect(source, case["target"])
    np.testing.assert_array_equal(got["scores"].view(case["dtype"]), scores)
    np.testing.assert_array_equal(got["labels"], labels)
    np.testing.assert_array_equal(got["delta"], delta.astype(np.float64))
    assert got["split"].tolist() == split.tolist()
    np.testing.assert_array_equal(got["sample_id"], columns["sample_id"])


def test_any_range_of_units_can_be_asked_for(tmp_path):
    scores = np.arange(60, dtype=np.float32).reshape(20, 3)
    store(tmp_path / "a.parquet", score_columns(scores, "fixed"), 6)
    reader = describe(tmp_path / "a.parquet").open()
    for start in range(20):
        for stop in range(start + 1, 21):
            parts = [block.scores.copy() for block in reader.blocks(start, stop, frozenset({"scores"}))]
            np.testing.assert_array_equal(np.concatenate(parts), scores[start:stop])
    reader.close()


def test_bfloat16_travels_as_bytes(tmp_path):
    bits = np.arange(12, dtype=np.uint16).reshape(4, 3) + 0x3F80
    store(tmp_path / "a.parquet", score_columns(bits, "binary"), 3, dtype="bfloat16")
    source = describe(tmp_path / "a.parquet")
    assert source.encoding == "bfloat16"
    np.testing.assert_array_equal(collect(source)["scores"], bits)


def test_everything_else_is_described(tmp_path):
    columns = score_columns(np.zeros((4, 2), np.float32), "wide", "probs")
    options = {"class_names": ["a", "☁"], "source_counts": [3, 1], "source_prior": [0.75, 0.25], "made_by": "me"}
    store(tmp_path / "a.parquet", columns, 2, **options)
    source = formats.describe(str(tmp_path / "a.parquet"))
    assert (source.kind, source.layout, source.encoding) == ("probs", "rows", "float32")
    assert source.class_names == ("a", "☁")
    assert (source.source_counts, source.source_prior) == ((3.0, 1.0), (0.75, 0.25))
    assert source.attributes == {"made_by": "me"}
    assert source.storage == "2 row groups, snappy"
    assert source.spans(1) == [(0, 2), (2, 4)]
    assert source.spans(1000) == [(0, 4)]
    with pytest.raises(UsageError):
        formats.describe(f"{tmp_path}/a.parquet::g")


def test_predictions_alone_are_a_source(tmp_path):
    values = np.arange(10, dtype=np.uint8)
    store(tmp_path / "a.parquet", {"predictions": values}, 3, n_classes=10)
    source = describe(tmp_path / "a.parquet")
    assert (source.kind, source.n_classes) == ("predictions", 10)
    np.testing.assert_array_equal(collect(source)["scores"], values)


# ------------------------------------------------------------------------------------------------
# refusals

WIDE = score_columns(np.zeros((4, 3), np.float32), "wide")
BYTES = score_columns(np.zeros((4, 3), np.float32), "binary")
REFUSED = {
    "two": ({**WIDE, "probs": [[0.5]] * 4}, {}, "two candidates (logits_*, probs)"),
    "two forms": ({**WIDE, "logits": [[0.5]] * 4}, {}, "two candidates (logits, logits_*)"),
    "none": ({"a": [1.0], "b": [2.0]}, {}, "no scores among the columns: a, b"),
    "gap": ({"logits_0": [1.0], "logits_2": [1.0]}, {}, "no logits_1"),
    "mixed": ({"logits_0": [1.0], "logits_1": np.zeros(1, np.float32)}, {}, "columns of types double, float"),
    "integers": ({"logits_0": [1], "logits_1": [1]}, {}, "int64 values"),
    "text": ({"logits": ["a", "b"]}, {}, "a column of type string"),
    "list of ints": ({"logits": [[1, 2]]}, {}, "int64 values"),
    "two aliases": ({**WIDE, "target": [0] * 4, "y": [0] * 4}, {}, "2 candidates (target, y)"),
    "counts twice": (WIDE, {"source_counts": [1, 2, 3], "class_counts": [1, 2, 4]}, "2 candidates"),
    "no rows": ({"logits_0": np.zeros(0), "logits_1": np.zeros(0)}, {}, "N = 0"),
    "binary of what": (BYTES, {}, "dtype ''"),
    "binary width": (BYTES, {"dtype": "float64"}, "12 bytes per row"),
    "label twice": ({**WIDE, "label": [0] * 4, "labels": [0] * 4}, {}, "2 candidates (label, labels)"),
    "labels": ({**WIDE, "label": [0.5] * 4}, {}, ":label: double values"),
    "delta": ({**WIDE, "delta": ["a"] * 4}, {}, ":delta: string values"),
    "split": ({**WIDE, "split": [0] * 4}, {}, ":split: int64 values"),
    "sample_id": ({**WIDE, "sample_id": [0.5] * 4}, {}, ":sample_id: double values"),
    "image": (WIDE, {"image_shape": [3, 1]}, "[3, 1] for 4 rows"),
    "image rank": (WIDE, {"image_shape": [4]}, "expected [H, W]"),
    "image zero": (WIDE, {"image_shape": [0, 4]}, "expected [H, W]"),
    "counts": (WIDE, {"source_counts": [1, 2]}, "unoic.source_counts: shape (2,)"),
    "counts text": (WIDE, {"source_counts": ["a", "b", "c"]}, "text values"),
    "counts ragged": (WIDE, {"source_counts": [[1], 2, 3]}, "ragged"),
    "prior json": (WIDE, {"source_prior": "[1,"}, "expected JSON"),
    "names": (WIDE, {"class_names": ["a"]}, "unoic.class_names: shape (1,)"),
    "names ints": (WIDE, {"class_names": [1, 2, 3]}, "expected 3 names"),
    "predictions": ({"predictions": [1.0, 2.0]}, {"n_classes": 3}, "double values"),
    "small predictions": ({"predictions": np.zeros(2, np.int8)}, {"n_classes": 200}, "int8, which ends at 127"),
    "small labels": (
        {"logits": list(np.zeros((2, 300))), "label": np.zeros(2, np.uint8)},
        {},
        "uint8, which ends at 255",
    ),
    "small dictionary": (
        {"logits": list(np.zeros((2, 300))), "label": pa.array([0, 1], pa.int8()).dictionary_encode()},
        {},
        "int8, which ends at 127",
    ),
    "bool labels": ({"logits": list(np.zeros((2, 3))), "label": np.zeros(2, bool)}, {}, "true or false for 3 classes"),
    "tensor of planes": (
        {"logits": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 3, 4, 4)))},
        {},
        "nothing that says which axis holds the classes",
    ),
    "tensor of rows": (
        {"logits": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 2, 5)))},
        {},
        "tensors of shape (2, 5) in each row",
    ),
    "lists in lists": ({"logits": [[[0.0, 1.0], [1.0, 0.0]]] * 2}, {}, "lists in lists"),
    "fixed lists in lists": (
        {"logits": pa.array([[[0.0, 1.0], [1.0, 0.0]]] * 2, pa.list_(pa.list_(pa.float32(), 2), 2))},
        {},
        "lists in lists",
    ),
    "another K": ({"logits": list(np.zeros((2, 3)))}, {"n_classes": 4}, "unoic.n_classes: 4"),
    "of what": ({"predictions": np.zeros(2, np.uint8)}, {}, "unoic.n_classes: None"),
    "first null": ({"logits": pa.array([None, [1.0, 2.0]])}, {}, "a null at row 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    columns, metadata, message = REFUSED[case]
    path = tmp_path / "a.parquet"
    store(path, columns, **metadata)
    with pytest.raises(DataError) as caught:
        describe(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


NULLS = {
    "logits_1": {"logits_0": [1.0, 2.0], "logits_1": [1.0, None]},
    "logits": {"logits": [[1.0, 2.0], None]},
    "probs": {"probs": [[1.0, 2.0], [None, 2.0]]},
    "log_probs": {"log_probs": pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2))},
    "label": {**score_columns(np.zeros((2, 2)), "wide"), "label": [1, None]},
    "delta": {**score_columns(np.zeros((2, 2)), "wide"), "delta": [1.0, None]},
    "split": {**score_columns(np.zeros((2, 2)), "wide"), "split": pa.array(["a", None]).dictionary_encode()},
}


@pytest.mark.parametrize("column", NULLS)
def test_nulls_are_refused(tmp_path, column):
    store(tmp_path / "a.parquet", NULLS[column])
    with pytest.raises(DataError, match=rf"a\.parquet:{column}: .*null"):
        collect(describe(tmp_path / "a.parquet"))


def test_columns_of_the_same_name(tmp_path):
    pq.write_table(pa.table([[1.0], [2.0], [3.0]], names=["logits_0", "logits_1", "logits_1"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet:logits_1: two columns"):
        describe(tmp_path / "a.parquet")


def test_lists_of_another_length(tmp_path):
    store(tmp_path / "a.parquet", {"logits": [[1.0, 2.0]] * 5 + [[1.0]]}, 2)
    with pytest.raises(DataError, match=r"a\.parquet:logits: 1 scores at row 5; expected 2"):
        collect(describe(tmp_path / "a.parquet"))


def test_missing_and_damaged_files(tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(NoInputError):
        describe(path)
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError):
        describe(path)
    store(path, WIDE)
    whole = path.read_bytes()
    for size in (0, 3, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            describe(path)


def test_random_damage_is_never_silent(tmp_path):
    spec = OutputSpec(50, 4, (), "logits", "float32", "rows", dtypes={"labels": "int32"})
    rng = np.random.default_rng(0)
    scores = rng.random((50, 4)).astype(np.float32)
    path = tmp_path / "a.parquet"
    writer = Parquet.create(str(path), spec)
    writer.write(LogitBlock(0, 50, scores=scores, labels=np.arange(50)))
    writer.commit()
    whole = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        at = int(rng.integers(len(whole)))
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        message, got = "", {"scores": scores}
        try:
            got = collect(describe(path), fields={"scores"})
        except (DataError, NoInputError, StorageError) as error:
            message = str(error)
        assert not message or message.startswith(str(path))
        np.testing.assert_array_equal(got["scores"], scores)


def test_a_file_that_changes_under_way(tmp_path):
    store(tmp_path / "a.parquet", WIDE, 2)
    source = describe(tmp_path / "a.parquet")
    store(tmp_path / "a.parquet", WIDE, 3)
    with pytest.raises(DataError, match="changed"):
        source.open()


# ------------------------------------------------------------------------------------------------
# writing


@QUICK
@given(
    encoding=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    image=st.sampled_from([(), (2, 3)]),
    planes=st.booleans(),
    predictions=st.booleans(),
    scalar=st.booleans(),
    n=st.integers(1, 6),
    step=st.integers(1, 4),
    group_bytes=st.integers(1, 500),
)
def test_written_files_read_back(tmp_path, encoding, image, planes, predictions, scalar, n, step, group_bytes):
    rng = np.random.default_rng(n)
    pixels, k = int(np.prod(image)), 5
    spec = OutputSpec(
        n,
        k,
        image,
        "log_probs",
        encoding,
        "planes" if planes and image else "rows",
        predictions=predictions,
        dtypes={"labels": "uint8", "split": "str", "sample_id": "int32"} | ({} if scalar else {"delta": "float64"}),
        scalar_delta=0.5 if scalar else None,
        class_names=tuple("abcde"),
        source_prior=(0.2,) * 5,
        attributes={"made_by": "a test"},
    )
    bits = rng.integers(0, 0x7000, (n * pixels, k), np.uint16)
    scores = bits if encoding.endswith("16") else rng.random(bits.shape).astype(encoding)
    labels, delta = rng.integers(0, 5, n * pixels), rng.random(n * pixels)
    split = np.array([f"s{index % 2}" for index in range(n)], object)
    path = str(tmp_path / "a.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unoic_cli.formats.parquet._GROUP_BYTES", group_bytes)
        writer = Parquet.create(path, spec)
    for first in range(0, n, step):
        last = min(first + step, n)
        start, stop = first * pixels, last * pixels
        piece = scores[start:stop].copy()
        if spec.layout == "planes":
            piece = np.ascontiguousarray(piece.reshape(last - first, pixels, k).transpose(0, 2, 1))
        block = LogitBlock(start, stop, piece, labels=labels[start:stop], delta=delta[start:stop])
        block.predictions, block.split, block.sample_id = labels[start:stop], split[first:last], np.arange(first, last)
        writer.write(block)
        piece[...] = 0  # buffers are reused
    writer.commit()
    writer.abort()
    assert os.listdir(tmp_path) == ["a.parquet"]
    source = formats.describe(path)
    assert (source.kind, source.encoding, source.image_shape) == ("log_probs", encoding, image)
    assert (source.class_names, source.source_prior) == (spec.class_names, spec.source_prior)
    assert source.attributes == spec.attributes
    got = collect(source)
    np.testing.assert_array_equal(got["scores"], scores)
    np.testing.assert_array_equal(got["labels"], labels)
    np.testing.assert_array_equal(got["delta"], np.full(n * pixels, 0.5) if scalar else delta)
    assert got["split"].tolist() == np.repeat(split, pixels).tolist()
    np.testing.assert_array_equal(got["sample_id"], np.repeat(np.arange(n), pixels))
    if predictions:
        np.testing.assert_array_equal(pq.read_table(path)["predictions"], labels)


SPEC = OutputSpec(20000, 4, (), "logits", "float32", "rows")


def test_predictions_alone_are_written(tmp_path):
    spec = OutputSpec(3, 300, (), "predictions", "float32", "rows")
    writer = Parquet.create(str(tmp_path / "a.parquet"), spec)
    writer.write(LogitBlock(0, 3, predictions=np.array([0, 299, 7])))
    writer.commit()
    got = collect(describe(tmp_path / "a.parquet"))["scores"]
    assert got.dtype == np.uint16
    assert got.tolist() == [0, 299, 7]


def test_mistakes_of_the_caller(tmp_path):
    writer = Parquet.create(str(tmp_path / "a.parquet"), SPEC)
    with pytest.raises(ValueError, match="comes next"):
        writer.write(LogitBlock(1, 2, scores=np.zeros((1, 4), np.float32)))
    with pytest.raises(TypeError):
        writer.write(LogitBlock(0, 2, scores=np.zeros((2, 4))))
    writer.abort()
    writer.abort()
    assert os.listdir(tmp_path) == []


def test_incomplete_files_are_not_committed(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"old")
    writer = Parquet.create(str(tmp_path / "a.parquet"), SPEC)
    writer.write(LogitBlock(0, 2, scores=np.zeros((2, 4), np.float32)))
    with pytest.raises(ValueError, match="2 of 20000 units"):
        writer.commit()
    writer.abort()
    assert (tmp_path / "a.parquet").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_no_room(tmp_path, file_limit):
    (tmp_path / "a.parquet").write_bytes(b"old")
    writer = Parquet.create(str(tmp_path / "a.parquet"), SPEC)
    writer.write(LogitBlock(0, 20000, scores=np.random.rand(20000, 4).astype(np.float32)))
    with file_limit(30000), pytest.raises(StorageError, match="larger than allowed"):
        writer.commit()
    writer.abort()
    assert (tmp_path / "a.parquet").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.parquet"]
