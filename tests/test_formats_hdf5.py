"""HDF5: round trips over every layout and storage, and each refusal."""

from __future__ import annotations

import os
import pathlib
import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unoic_cli import formats
from unoic_cli.errors import CannotCreateError, DataError, NoInputError, StorageError
from unoic_cli.formats import schema
from unoic_cli.formats.block import LogitBlock, OutputSpec
from unoic_cli.formats.hdf5 import Hdf5
from unoic_cli.formats.names import Asked

ALL = frozenset({"scores", "labels", "delta", "split", "group", "sample_id"})
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def describe(path, group="/", **options):
    name = str(path) if group == "/" else f"{path}::{group}"
    return Hdf5.describe(name, str(path), group, **{"allow_external": False, "asked": Asked(), **options})


def collect(source, target_bytes=1 << 20, fields=None):
    """Every block of every span, copied, as arrays over units (scores as rows)."""
    wanted = (source.fields | {"scores"}) if fields is None else frozenset(fields)
    out = {name: [] for name in wanted}
    at = 0
    source = pickle.loads(pickle.dumps(source))
    reader = source.open()
    for start, stop in source.spans(target_bytes):
        assert start == at
        for block in reader.blocks(start, stop, wanted):
            assert block.start == at
            check_block(source, block)
            at = block.stop
            for name in wanted:
                out[name].append(np.array(per_unit(source, block, name)))
        assert at == stop
    assert at == source.n_units
    reader.close()
    return {name: np.concatenate(parts) for name, parts in out.items()}


def check_block(source, block):
    if source.layout == "planes" and source.pixels > 1:
        whole = block.start % source.pixels == 0 and block.stop % source.pixels == 0
        assert whole or block.start // source.pixels == (block.stop - 1) // source.pixels
    if block.scores is not None:
        assert block.scores.flags.c_contiguous
        assert block.scores.dtype.isnative
        assert block.scores.ctypes.data % 64 == 0


def per_unit(source, block, name):
    if name == "scores" and source.kind == "predictions":
        return block.predictions
    if name == "scores":
        if block.scores.ndim == 2:
            return block.scores
        return block.scores.transpose(0, 2, 1).reshape(-1, source.n_classes)
    values = getattr(block, name)
    if name == "delta":
        return np.broadcast_to(values, (block.stop - block.start,))
    if name in ("split", "group", "sample_id"):
        first, last = schema.samples_of(block.start, block.stop, source.pixels)
        assert len(values) == last - first
        return schema.per_unit(values, block.start, block.stop, source.pixels)
    return values


def bfloat16(order="<"):
    kind = (h5py.h5t.IEEE_F32LE if order == "<" else h5py.h5t.IEEE_F32BE).copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    kind.set_precision(16)
    kind.set_size(2)
    return kind


@st.composite
def cases(draw):
    n, k = draw(st.integers(1, 5)), draw(st.integers(2, 4))
    layout = draw(st.sampled_from(["rows", "planes", "last"]))
    image = () if layout == "rows" else (draw(st.integers(1, 5)), draw(st.integers(1, 30)))
    shape = {"rows": (n, k), "planes": (n, k, *image), "last": (n, *image, k)}[layout]
    chunks = draw(st.one_of(st.none(), st.tuples(*(st.integers(1, extent) for extent in shape))))
    return {
        "n": n,
        "k": k,
        "layout": layout,
        "image": image,
        "shape": shape,
        "chunks": chunks,
        "compression": draw(st.sampled_from([None, "gzip", "lzf"])) if chunks else None,
        "dtype": draw(st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])),
        "label_dtype": draw(st.sampled_from(["u1", "<i8", ">i4", "i1", ">u2"])),
        "label_one": draw(st.booleans()),
        "delta": draw(st.sampled_from(["scalar", "sample", "unit"])),
        "target": draw(st.integers(1, 3000)),
    }


@QUICK
@given(case=cases(), seed=st.integers(0, 99))
def test_blocks_equal_the_arrays(tmp_path, case, seed):
    rng = np.random.default_rng(seed)
    n, k, image = case["n"], case["k"], case["image"]
    scores = rng.normal(size=case["shape"]).astype(case["dtype"])
    labels = rng.integers(0, k, (n, *image)).astype(case["label_dtype"])
    delta = rng.random({"scalar": (), "sample": (n,), "unit": (n, *image)}[case["delta"]]).astype(case["dtype"])
    split = [f"s{index % 2}" for index in range(n)]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("logits", data=scores, chunks=case["chunks"], compression=case["compression"])
        if case["layout"] == "last":
            dataset.attrs["class_axis"] = -1
        shape = (n, 1, *image) if case["label_one"] else labels.shape
        chunked = {"chunks": True} if case["chunks"] else {}
        file.create_dataset("labels", data=labels.reshape(shape), **chunked)
        file.create_dataset("delta", data=delta, **(chunked if delta.ndim else {}))
        file["split"] = split
        file["sample_id"] = np.arange(n, dtype=">i4") * 10
    source = describe(tmp_path / "a.h5")
    assert (source.n_samples, source.n_classes, source.image_shape) == (n, k, image)
    assert source.layout == ("planes" if case["layout"] == "planes" else "rows")
    got = collect(source, case["target"])
    rows = scores.reshape(n, k, -1).transpose(0, 2, 1) if case["layout"] == "planes" else scores
    native = scores.dtype.newbyteorder("=")
    np.testing.assert_array_equal(got["scores"].view(native), rows.reshape(-1, k))
    np.testing.assert_array_equal(got["labels"], labels.ravel())
    assert got["labels"].dtype.isnative
    assert got["delta"].dtype == np.float64
    pixels = source.pixels
    wide = np.repeat(delta, pixels) if case["delta"] == "sample" else np.broadcast_to(delta.ravel(), (n * pixels,))
    np.testing.assert_array_equal(got["delta"], wide)
    assert got["split"].tolist() == np.repeat(split, pixels).tolist()
    np.testing.assert_array_equal(got["sample_id"], np.repeat(np.arange(n) * 10, pixels))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("chunks", [None, (2, 3)])
def test_bfloat16_passes_as_its_bits(tmp_path, order, chunks):
    bits = np.arange(15, dtype=np.uint16).reshape(5, 3) + 0x3F80
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if chunks:
            plist.set_chunk(chunks)
        space, kind = h5py.h5s.create_simple(bits.shape), bfloat16(order)
        dataset = h5py.h5d.create(file.id, b"logits", kind, space, plist)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, bits.astype(order + "u2").view(np.uint16), kind)
    source = describe(tmp_path / "a.h5")
    assert source.encoding == "bfloat16"
    np.testing.assert_array_equal(collect(source)["scores"], bits)


def test_any_range_of_units_can_be_asked_for(tmp_path):
    scores = np.arange(4 * 3 * 4 * 5, dtype=np.float32).reshape(4, 3, 4, 5)
    rows = scores.reshape(4, 3, 20).transpose(0, 2, 1).reshape(-1, 3)
    for chunks in (None, (2, 3, 3, 2)):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("logits", data=scores, chunks=chunks).attrs["class_axis"] = 1
        source = describe(tmp_path / "a.h5")
        reader = source.open()
        for start in range(0, 80, 7):
            for stop in range(start + 1, 81, 9):
                blocks = reader.blocks(start, stop, frozenset({"scores"}))
                got = np.concatenate([per_unit(source, block, "scores").copy() for block in blocks])
                np.testing.assert_array_equal(got, rows[start:stop])
        reader.close()


def test_contiguous_blocks_never_touch_the_library(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file["logits"] = np.arange(12.0).reshape(4, 3)
        file["labels"] = np.arange(4)
        file["delta"] = np.ones(4)
    source = describe(tmp_path / "a.h5")
    monkeypatch.setattr(h5py, "File", None)
    np.testing.assert_array_equal(collect(source)["scores"], np.arange(12.0).reshape(4, 3))


def test_scores_are_followed_by_zeros(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["logits"] = np.ones((5, 3), np.float32)
    reader = describe(tmp_path / "a.h5").open()
    for stop in (5, 2):
        (block,) = reader.blocks(0, stop, frozenset({"scores"}))
        after = np.frombuffer((np.ctypeslib.ctypes.c_char * 64).from_address(block.scores.ctypes.data + 12 * stop))
        assert not after.any()
    reader.close()


def test_spans_follow_chunks(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("logits", data=np.zeros((100, 4), np.float32), chunks=(10, 4))
    source = describe(tmp_path / "a.h5")
    assert source.storage == "chunked (10, 4)"
    assert source.spans(350) == [(start, start + 20) for start in range(0, 100, 20)]
    assert source.spans(1)[:2] == [(0, 10), (10, 20)]


def test_everything_else_is_described(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/log_probs"] = np.zeros((4, 2))
        file["g/class_names"] = ["road", "sky ☁"]
        file["g/source_counts"] = [3, 1]
        file["g/source_prior"] = [0.75, 0.25]
        file["g/group"] = np.array([b"a", b"b", b"a", b"b"])
        file["g"].attrs["made_by"] = "a network"
        file["g"].attrs["epoch"] = 3
    source = describe(tmp_path / "a.h5", "/g")
    assert source.kind == "log_probs"
    assert source.class_names == ("road", "sky ☁")
    assert (source.source_counts, source.source_prior) == ((3.0, 1.0), (0.75, 0.25))
    assert source.attributes == {"made_by": "a network"}
    assert source.storage == "contiguous"
    assert collect(source)["group"].tolist() == ["a", "b", "a", "b"]
    assert describe(tmp_path / "a.h5", "/g/log_probs").kind == "log_probs"
    assert formats.describe(f"{tmp_path}/a.h5::g").n_samples == 4


@pytest.mark.parametrize("shape", [(6,), (6, 1), (2, 3, 4), (2, 1, 3, 4)])
def test_predictions_alone_are_a_source(tmp_path, shape):
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) % 5
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("predictions", data=values, chunks=True).attrs["n_classes"] = 5
    source = describe(tmp_path / "a.h5")
    assert (source.kind, source.n_classes) == ("predictions", 5)
    np.testing.assert_array_equal(collect(source, 4)["scores"], values.ravel())


# ------------------------------------------------------------------------------------------------
# refusals

GOOD = {"logits": np.zeros((4, 3), np.float32)}
IMAGES = {"logits": np.zeros((2, 3, 4, 5), np.float32)}
REFUSED = {
    "two": ({**GOOD, "probs": np.zeros((4, 3))}, "", "two candidates (logits, probs)"),
    "none": ({"x": np.zeros((4, 3))}, "", "no scores among: x"),
    "nothing": ({}, "", "no scores among: nothing"),
    "a group": ({"logits/x": np.zeros(3)}, "logits", "not a dataset"),
    "rank 0": ({"logits": np.zeros(())}, "logits", "shape ()"),
    "rank 5": ({"logits": np.zeros((4, 3, 2, 2, 2))}, "logits", "shape (4, 3, 2, 2, 2)"),
    "turned": ({"logits": np.zeros((3, 4)), "labels": np.zeros(4, int)}, "logits", "look transposed"),
    "no axis": ({"logits": np.zeros((2, 4, 5, 3))}, "logits", "nothing that says which axis holds the classes"),
    "either axis": (
        {"logits": np.zeros((2, 3, 3, 3)), "labels": np.zeros((2, 3, 3), int), "source_counts": [1, 2, 3]},
        "logits",
        "nothing that says which axis holds the classes",
    ),
    "two aliases": ({"targets": np.zeros(4, int), "y": np.zeros(4, int), **GOOD}, "", "2 candidates (targets, y)"),
    "two scores": ({"outputs": np.zeros((4, 3)), "softmax": np.zeros((4, 3))}, "", "2 candidates (outputs, softmax)"),
    "rank 3": ({"logits": np.zeros((4, 3, 2))}, "logits", "shape (4, 3, 2)"),
    "integers": ({"logits": np.zeros((4, 3), int)}, "logits", "int64 values"),
    "no samples": ({"logits": np.zeros((0, 3))}, "logits", "N = 0"),
    "no pixels": ({"logits": np.zeros((4, 3, 0, 2))}, "logits", "zero size"),
    "labels short": ({**GOOD, "labels": np.zeros(2, int)}, "labels", "shape (2,)"),
    "labels float": ({**GOOD, "labels": np.zeros(4)}, "labels", "float64 values"),
    "labels text": ({**GOOD, "labels": np.array([b"a"] * 4)}, "labels", "text values"),
    "labels bool": ({**GOOD, "labels": np.zeros(4, bool)}, "labels", "true or false for 3 classes"),
    "labels too small": (
        {"logits": np.zeros((4, 300)), "labels": np.zeros(4, "u1")},
        "labels",
        "uint8, which ends at 255",
    ),
    "labels wrapped": (
        {"logits": np.zeros((4, 200)), "labels": np.zeros(4, "i1")},
        "labels",
        "int8, which ends at 127",
    ),
    "labels per image": ({**IMAGES, "labels": np.zeros(2, int)}, "labels", "shape (2,)"),
    "labels turned": ({**IMAGES, "labels": np.zeros((2, 5, 4), int)}, "labels", "shape (2, 5, 4)"),
    "delta": ({**GOOD, "delta": np.zeros(3)}, "delta", "shape (3,)"),
    "delta text": ({**GOOD, "delta": np.array([b"a"] * 4)}, "delta", "text values"),
    "counts": ({**GOOD, "source_counts": np.zeros(4)}, "source_counts", "shape (4,)"),
    "prior": ({**GOOD, "source_prior": np.zeros((1, 3))}, "source_prior", "shape (1, 3)"),
    "prior text": ({**GOOD, "source_prior": np.array([b"a"] * 3)}, "source_prior", "text values"),
    "names": ({**GOOD, "class_names": np.array([b"a"] * 4)}, "class_names", "shape (4,)"),
    "names ints": ({**GOOD, "class_names": np.arange(3)}, "class_names", "expected text"),
    "split ints": ({**GOOD, "split": np.arange(4)}, "split", "int64 values"),
    "split short": ({**GOOD, "split": np.array([b"a"])}, "split", "shape (1,)"),
    "id floats": ({**GOOD, "sample_id": np.zeros(4)}, "sample_id", "float64 values"),
    "predictions floats": ({"predictions": np.zeros(4)}, "predictions", "no attribute n_classes"),
    "predictions of what": ({"predictions": np.zeros(4, "u1")}, "predictions", "no attribute n_classes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    content, member, message = REFUSED[case]
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values
    with pytest.raises(DataError) as caught:
        describe(path)
    assert caught.value.where == (f"{path}:{member}" if member else str(path))
    assert message in str(caught.value)


def test_the_group_with_scores_is_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["epoch/3/logits"] = np.zeros((4, 3))
        file["other"] = np.zeros(3)
    with pytest.raises(DataError, match=r"try .*a\.h5::epoch/3"):
        describe(tmp_path / "a.h5")
    with pytest.raises(DataError, match="no group /nowhere"):
        describe(tmp_path / "a.h5", "/nowhere")
    with pytest.raises(DataError, match="a dataset; expected a group"):
        describe(tmp_path / "a.h5", "/other")


@pytest.mark.parametrize("axis", [2, 7, "x", [1, 2]])
def test_class_axis_must_make_sense(tmp_path, axis):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["logits"] = np.zeros((2, 3, 4, 5))
        file["logits"].attrs["class_axis"] = axis
    with pytest.raises(DataError, match="class_axis"):
        describe(tmp_path / "a.h5")


def test_text_that_is_not_utf8(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["logits"] = np.zeros((2, 3))
        file["split"] = np.array([b"ok", b"\xff"])
    with pytest.raises(DataError, match="not UTF-8"):
        collect(describe(tmp_path / "a.h5"))


def test_missing_and_damaged_files(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(NoInputError):
        describe(path)
    path.write_bytes(b"nothing of the sort" * 100)
    with pytest.raises(DataError):
        describe(path)
    with h5py.File(path, "w") as file:
        file["logits"] = np.zeros((400, 3))
    whole = path.read_bytes()
    for size in (9, 100, 600, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            describe(path)


def test_random_damage_ends_in_our_errors(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("logits", data=rng.random((40, 3)), chunks=(10, 3), compression="gzip")
        file["labels"] = np.arange(40)
        file["split"] = ["a"] * 40
    whole = (tmp_path / "a.h5").read_bytes()
    for index in range(150):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path = tmp_path / f"b{index}.h5"
        path.write_bytes(damaged)
        message = ""
        try:
            collect(describe(path))
        except (DataError, StorageError, NoInputError) as error:
            message = str(error)
        assert not message or message.startswith(str(path))
        path.unlink()


def test_a_corrupt_chunk(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("logits", data=np.random.rand(40, 3), chunks=(40, 3), fletcher32=True)
        offset = dataset.id.get_chunk_info(0).byte_offset
    with open(tmp_path / "a.h5", "r+b") as file:
        file.seek(offset + 8)
        file.write(b"\x07\x07")
    with pytest.raises(DataError, match=r"a\.h5:logits: cannot be read"):
        collect(describe(tmp_path / "a.h5"))


def test_other_files_are_read_only_when_allowed(tmp_path):
    scores = np.arange(12, dtype=np.float32).reshape(4, 3)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = scores
        file["g/logits"] = scores
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[...] = h5py.VirtualSource(tmp_path / "other.h5", "x", (4, 3))
    (tmp_path / "raw").write_bytes(scores.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link/logits"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        file["away"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/g")
        file["soft/logits"] = h5py.SoftLink("/link/logits")
        file["softer"] = h5py.SoftLink("away")
        file.create_group("virtual").create_virtual_dataset("logits", layout)
        file.create_group("raw").create_dataset(
            "logits", (4, 3), "f4", external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
        )
    for group in ("link", "away", "soft", "softer", "virtual", "raw"):
        with pytest.raises(DataError, match="expected data in the file itself"):
            describe(tmp_path / "a.h5", f"/{group}")
        source = describe(tmp_path / "a.h5", f"/{group}", allow_external=True)
        np.testing.assert_array_equal(collect(source)["scores"], scores)


def virtual(path, sources, shape):
    """A virtual dataset whose rows come of (file, dataset, first row, rows)."""
    layout = h5py.VirtualLayout(shape, "f4")
    at = 0
    for name, member, first, count, extent in sources:
        layout[at : at + count] = h5py.VirtualSource(name, member, (extent, shape[1]))[first : first + count]
        at += count
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("logits", layout)


@pytest.fixture
def pieces(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("s0.h5", "s1.h5"):
        with h5py.File(name, "w") as file:
            file["x"] = np.ones((4, 3), "f4")
    return tmp_path


def test_a_virtual_dataset_with_all_sources(pieces):
    virtual("a.h5", [("s0.h5", "x", 0, 4, 4), ("s1.h5", "x", 1, 2, 4)], (6, 3))
    source = describe(pieces / "a.h5", allow_external=True)
    assert (collect(source)["scores"] == 1).all()
    (pieces / "moved").mkdir()
    for name in ("a.h5", "s0.h5", "s1.h5"):  # sources are looked for beside the file, as the library does
        os.rename(name, f"moved/{name}")
    assert (collect(describe(pieces / "moved/a.h5", allow_external=True))["scores"] == 1).all()


def test_parts_of_a_virtual_dataset_that_are_nowhere_are_refused(pieces):
    whole = [("s0.h5", "x", 0, 4, 4), ("s1.h5", "x", 0, 4, 4)]
    virtual("a.h5", whole, (8, 3))
    virtual("gap.h5", whole, (9, 3))
    virtual("long.h5", [("s0.h5", "x", 0, 5, 5)], (5, 3))
    virtual("member.h5", [("s0.h5", "y", 0, 4, 4)], (4, 3))
    virtual("chain.h5", [("a.h5", "logits", 0, 8, 8)], (8, 3))

    def refused(name):
        with pytest.raises(DataError) as caught:
            describe(pieces / name, allow_external=True)
        return str(caught.value)

    assert "3 values of no source" in refused("gap.h5")
    assert "s0.h5:x has shape (4, 3), but (5, 3) is taken of it" in refused("long.h5")
    assert "s0.h5:y is not there" in refused("member.h5")
    os.remove("s1.h5")
    assert "its source s1.h5 is missing" in refused("a.h5")
    assert "its source s1.h5 is missing" in refused("chain.h5")
    with h5py.File("s1.h5", "w") as file:
        file.create_dataset("x", (4, 3), "f4")
    assert "source s1.h5:x): storage that was never written" in refused("a.h5")


def test_external_bytes_that_are_not_there_are_refused(pieces):
    with h5py.File("a.h5", "w") as file:
        file.create_dataset("logits", (4, 3), "f4", external=[("raw0", 0, 24), ("raw1", 8, 24)])
    (pieces / "raw0").write_bytes(bytes(24))
    with pytest.raises(DataError, match="its bytes lie in raw1, which is not there"):
        describe(pieces / "a.h5", allow_external=True)
    (pieces / "raw1").write_bytes(bytes(31))
    with pytest.raises(DataError, match="bytes up to 32 of raw1, which has 31"):
        describe(pieces / "a.h5", allow_external=True)
    (pieces / "raw1").write_bytes(bytes(32))
    assert describe(pieces / "a.h5", allow_external=True).n_samples == 4


def test_bool_labels_and_signed_predictions(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["logits"] = np.zeros((4, 2))
        file["labels"] = np.array([True, False, True, True])
        file["predictions"] = np.array([1, 0, 1, 1])
    source = describe(tmp_path / "a.h5")
    assert collect(source)["labels"].tolist() == [1, 0, 1, 1]
    assert source.has_predictions


def test_soft_links_inside_the_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/data"] = np.zeros((4, 3))
        file["g/logits"] = h5py.SoftLink("./data")
        file["logits"] = h5py.SoftLink("/g/logits")
        file["c/logits"] = h5py.SoftLink("/c/logits")
        file["d/logits"] = h5py.SoftLink("/nowhere")
    assert describe(tmp_path / "a.h5").n_samples == 4
    with pytest.raises(DataError, match="circle"):
        describe(tmp_path / "a.h5", "/c")
    with pytest.raises(DataError, match="leads nowhere"):
        describe(tmp_path / "a.h5", "/d")


def test_storage_that_was_never_written(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a/logits", (10, 3), "f4")
        file.create_dataset("b/logits", (10, 3), "f4", chunks=(4, 3))[:4] = 1
        file["c/logits"] = np.zeros((10, 3))
        file.create_dataset("c/labels", (10,), "i4")
    for group in "abc":
        with pytest.raises(DataError, match="never written"):
            describe(tmp_path / "a.h5", f"/{group}")


def test_a_file_that_changes_under_way(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["logits"] = np.zeros((400, 3))
    source = describe(path)
    reader = source.open()
    os.truncate(path, 3000)
    with pytest.raises(StorageError, match="ends too soon"):
        list(reader.blocks(0, 400, frozenset({"scores"})))
    reader.close()
    with pytest.raises(DataError, match="changed"):
        source.open()


# ------------------------------------------------------------------------------------------------
# writing


@st.composite
def outputs(draw):
    image = draw(st.sampled_from([(), (2, 3), (7, 19)]))
    return OutputSpec(
        n_samples=draw(st.integers(1, 5)),
        n_classes=draw(st.sampled_from([2, 3, 300])),
        image_shape=image,
        kind=draw(st.sampled_from(["logits", "log_probs", "probs"])),
        encoding=draw(st.sampled_from(["float16", "bfloat16", "float32", "float64"])),
        layout=draw(st.sampled_from(["rows", "planes"])) if image else "rows",
        predictions=draw(st.booleans()),
        dtypes={"labels": "int16", "delta": "float32", "split": "str", "group": "str", "sample_id": "str"},
        class_names=None,
        source_counts=draw(st.sampled_from([None, (1.0,)])),
        attributes={"made_by": "a test"},
    )


def block_of(spec, data, start, stop):
    pixels = int(np.prod(spec.image_shape))
    first, last = schema.samples_of(start, stop, pixels)
    rows = data["scores"][start:stop]
    if spec.layout == "planes":
        rows = np.ascontiguousarray(rows.reshape(last - first, -1, spec.n_classes).transpose(0, 2, 1))
    return LogitBlock(
        start,
        stop,
        scores=rows,
        predictions=data["predictions"][start:stop],
        labels=data["labels"][start:stop],
        delta=data["delta"][start:stop],
        **{name: data[name][first:last] for name in ("split", "group", "sample_id")},
    )


def content(spec, seed=0):
    rng = np.random.default_rng(seed)
    units = spec.n_samples * int(np.prod(spec.image_shape))
    shape = (units, spec.n_classes)
    wide = spec.encoding in ("float32", "float64")
    return {
        "scores": rng.random(shape).astype(spec.encoding) if wide else rng.integers(0, 0x7000, shape, np.uint16),
        "predictions": rng.integers(0, spec.n_classes, units).astype(np.uint32),
        "labels": rng.integers(-1, 2, units),
        "delta": rng.random(units).astype(np.float32).astype(np.float64),
        "split": np.array([("val", "tést")[index % 2] for index in range(spec.n_samples)], object),
        "group": np.array([f"g{index}" * index for index in range(spec.n_samples)], object),
        "sample_id": np.array([f"ïd{10**index}" for index in range(spec.n_samples)], object),
    }


@QUICK
@given(spec=outputs(), target=st.integers(1, 5000), seed=st.integers(0, 9))
def test_written_files_read_back(tmp_path, spec, target, seed):
    if spec.source_counts:
        spec = OutputSpec(**{**vars(spec), "source_counts": (2.0,) * spec.n_classes})
    data, path = content(spec, seed), str(tmp_path / "out.h5")
    pixels = int(np.prod(spec.image_shape))
    size = schema.score_dtype(spec.encoding).itemsize
    spans = schema.cut_spans(spec.n_samples, pixels, spec.n_classes * size, target)
    writer = Hdf5.create(path, spec)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda span: writer.write(block_of(spec, data, *span)), spans[::-1]))
    writer.commit()
    writer.abort()
    assert os.listdir(tmp_path) == ["out.h5"]
    source = formats.describe(path)
    assert (source.kind, source.encoding, source.layout) == (spec.kind, spec.encoding, spec.layout)
    assert source.source_counts == spec.source_counts
    assert source.attributes == spec.attributes
    got = collect(source)
    for name in ("scores", "labels", "delta"):
        np.testing.assert_array_equal(got[name], data[name])
    for name in ("split", "group", "sample_id"):
        assert got[name].tolist() == np.repeat(data[name], pixels).tolist()
    with h5py.File(path) as file:
        assert file.attrs["unoic_schema"] == 1
        assert ("predictions" in file) == spec.predictions
        if spec.predictions:
            assert file["predictions"].dtype == ("u2" if spec.n_classes > 256 else "u1")
            np.testing.assert_array_equal(file["predictions"][()].ravel(), data["predictions"])


def test_predictions_alone_are_written(tmp_path):
    spec = OutputSpec(3, 4, (2, 2), "predictions", "float32", "rows", dtypes={"sample_id": "int64"}, scalar_delta=0.5)
    writer = Hdf5.create(str(tmp_path / "a.h5"), spec)
    values = np.arange(12, dtype=np.uint8) % 4
    writer.write(LogitBlock(0, 12, predictions=values, sample_id=np.array([7, 8, 9])))
    writer.commit()
    source = describe(tmp_path / "a.h5")
    got = collect(source)
    assert source.kind == "predictions"
    np.testing.assert_array_equal(got["scores"], values)
    np.testing.assert_array_equal(got["delta"], [0.5] * 12)
    np.testing.assert_array_equal(got["sample_id"], np.repeat([7, 8, 9], 4))


SPEC = OutputSpec(1000, 4, (), "logits", "float32", "rows", dtypes={"split": "str"})


def test_incomplete_files_are_not_committed(tmp_path):
    writer = Hdf5.create(str(tmp_path / "a.h5"), SPEC)
    writer.write(LogitBlock(0, 10, scores=np.zeros((10, 4), np.float32)))
    with pytest.raises(ValueError, match="10 of 1000 units"):
        writer.commit()
    writer.abort()
    assert os.listdir(tmp_path) == []


def test_abort_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"old")
    writer = Hdf5.create(str(path), SPEC)
    writer.write(LogitBlock(0, 10, scores=np.zeros((10, 4), np.float32)))
    writer.abort()
    writer.abort()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.h5"]


def test_no_room_at_the_start(tmp_path, file_limit):
    (tmp_path / "a.h5").write_bytes(b"old")
    with file_limit(8000), pytest.raises(StorageError, match="larger than allowed"):
        Hdf5.create(str(tmp_path / "a.h5"), SPEC)
    assert os.listdir(tmp_path) == ["a.h5"]


def test_no_room_at_the_end(tmp_path, file_limit):
    (tmp_path / "a.h5").write_bytes(b"old")
    writer = Hdf5.create(str(tmp_path / "a.h5"), SPEC)
    split = np.array(["x" * 50] * 1000, object)
    writer.write(LogitBlock(0, 1000, scores=np.zeros((1000, 4), np.float32), split=split))
    with file_limit(30000), pytest.raises(StorageError, match="larger than allowed"):
        writer.commit()
    writer.abort()
    assert (tmp_path / "a.h5").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.h5"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_while_writing(tmp_path):
    writer = Hdf5.create(str(tmp_path / "a.h5"), SPEC)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._output.file)
    os.close(full)
    with pytest.raises(StorageError, match="no space left on device"):
        writer.write(LogitBlock(0, 10, scores=np.zeros((10, 4), np.float32)))
    writer.abort()
    assert os.listdir(tmp_path) == []


def test_no_such_folder(tmp_path):
    with pytest.raises(CannotCreateError):
        Hdf5.create(str(tmp_path / "nowhere" / "a.h5"), SPEC)


def test_blocks_of_the_wrong_width_are_a_mistake(tmp_path):
    writer = Hdf5.create(str(tmp_path / "a.h5"), SPEC)
    with pytest.raises(TypeError):
        writer.write(LogitBlock(0, 10, scores=np.zeros((10, 4))))
    writer.abort()


def test_readers_of_many_threads(tmp_path):
    scores = np.random.default_rng(0).random((200, 3))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("logits", data=scores, chunks=(10, 3), compression="gzip")
        file["split"] = ["a"] * 200
    source = describe(tmp_path / "a.h5")
    failures = []

    def work():
        got = collect(source, 300)
        if not np.array_equal(got["scores"], scores):
            failures.append(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_examples_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (pathlib.Path(__file__).parents[1] / "docs" / "schema.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for snippet in snippets:
        exec(snippet, {})
    written = sorted(os.listdir())
    assert len(written) == len(snippets)
    found = {name: formats.describe(name) for name in written}
    assert found["bfloat16.h5"].encoding == "bfloat16"
    assert found["images.h5"].fields == {"labels", "split"}
    assert found["rows.parquet"].source_counts == (500, 100, 50, 10, 5)
