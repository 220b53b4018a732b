"""pack: nothing is lost, rounding is exact and its effect is counted, and outputs are complete or absent."""

from __future__ import annotations

import io
import json
import os

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import unoic_cli
from unoic_cli import formats, pack
from unoic_cli.cli import run
from unoic_cli.commands import pack as task
from unoic_cli.commands.pack import as_encoding
from unoic_cli.errors import CannotCreateError, DataError, StorageError, UsageError
from unoic_cli.formats import chunk_writer, chunks, hdf5_writer, schema
from unoic_cli.formats.block import LogitBlock, OutputSpec, Source
from unoic_cli.report.pack import render_pack

SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = ("split", "group", "sample_id")


def content(path):
    """Everything that a file holds, in units."""
    source = formats.describe(str(path))
    wanted = source.fields | {"scores"} | ({"predictions"} if source.has_predictions else set())
    found = {name: [] for name in wanted}
    reader = formats.open_reader(source)
    for start, stop in formats.spans(source, 1 << 20):
        for block in reader.blocks(start, stop, wanted):
            for name in wanted:
                values = (
                    block.predictions if source.kind == "predictions" and name == "scores" else getattr(block, name)
                )
                if name == "scores" and values.ndim == 3:
                    values = values.transpose(0, 2, 1).reshape(-1, source.n_classes)
                if name == "delta":
                    values = np.broadcast_to(values, (block.stop - block.start,))
                if name in TEXT:
                    values = schema.per_unit(values, block.start, block.stop, source.pixels)
                found[name].append(np.array(values))
    reader.close()
    return source, {name: np.concatenate(parts) for name, parts in found.items()}


def assert_same(one, other, scores=True):
    (first, a), (second, b) = one, other
    for name in ("kind", "n_samples", "n_classes", "image_shape", "class_names", "source_counts", "source_prior"):
        assert getattr(first, name) == getattr(second, name), name
    assert first.fields == second.fields and set(a) == set(b)
    assert first.attributes == {k: v for k, v in second.attributes.items() if k != "unoic_packed"}
    for name in a:
        if name != "scores" or scores:
            assert a[name].dtype == b[name].dtype or name in (*TEXT, "predictions"), name
            assert a[name].tolist() == b[name].tolist(), name
    if scores:
        assert a["scores"].tobytes() == b["scores"].tobytes()


def write(path, rng, n, k, image, layout, dtype, delta="unit", chunk=None, codec=None):
    shape = {"rows": (n, *image, k), "planes": (n, k, *image)}[layout]
    with h5py.File(path, "w") as file:
        group = file.create_group("g")
        options = {"chunks": chunk, "compression": codec, "shuffle": True} if chunk else {}
        group.create_dataset("logits", data=(3 * rng.normal(size=shape)).astype(dtype), **options)
        if image:
            group["logits"].attrs["class_axis"] = 1 if layout == "planes" else -1
        group["labels"] = rng.choice([0, 1, 255, -7], (n, *image)).astype("i2")
        if delta != "none":
            group["delta"] = rng.random({"unit": (n, *image), "sample": (n,), "scalar": ()}[delta]).astype("f4")
        group["split"], group["group"] = [f"s{i % 2}" for i in range(n)], [f"gé{i}" for i in range(n)]
        group["sample_id"] = np.arange(n) * 7
        group["predictions"] = rng.integers(0, k, (n, *image)).astype("u4")
        group["predictions"].attrs["n_classes"] = k
        group["class_names"], group["source_counts"] = [f"c{i}" for i in range(k)], np.arange(1, k + 1)
        group.attrs["made_by"] = "a test"
    return f"{path}::g"


@st.composite
def cases(draw):
    image = draw(st.sampled_from([(), (5, 7), (1, 9), (12, 3)]))
    n, k = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    layout = draw(st.sampled_from(["rows", "planes"])) if image else "rows"
    shape = {"rows": (n, *image, k), "planes": (n, k, *image)}[layout]
    return {
        "given": (n, k, image, layout, draw(st.sampled_from([">f2", "<f4", "<f8"]))),
        "delta": draw(st.sampled_from(["unit", "sample", "scalar", "none"])),
        "chunk": draw(st.one_of(st.none(), st.tuples(*(st.integers(1, e) for e in shape)))),
        "codec": draw(st.sampled_from([None, "none", "gzip", "zstd"])),
        "layout": draw(st.sampled_from(["keep", "rows", "planes"])) if image else "keep",
        "size": draw(st.sampled_from([40, 300, 5000])),
        "block": draw(st.sampled_from([60, 700, 1 << 20])),
        "slice": draw(st.sampled_from([1, 100, 1 << 20])),
        "threads": draw(st.sampled_from([1, 2])),
        "through": draw(st.sampled_from([None, "parquet"])),
    }


@SETTINGS
@given(case=cases(), seed=st.integers(0, 99))
def test_nothing_is_lost(tmp_path, monkeypatch, case, seed):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(task, "CHUNK_LIMITS", (1, 1 << 20))
    monkeypatch.setattr(task, "BLOCK_BYTES", case["block"])
    monkeypatch.setattr(task, "SLICE_BYTES", case["slice"])
    name = write(
        tmp_path / "a.h5", rng, *case["given"], case["delta"], case["chunk"], "gzip" if case["chunk"] else None
    )
    before = content(name)
    out = str(tmp_path / "b.h5")
    source = name
    if case["through"]:
        source = str(tmp_path / "a.parquet")
        pack(name, source, force=True)
    chunk = case["size"] if case["codec"] else None
    result = pack(
        source, out, codec=case["codec"], chunk=chunk, layout=case["layout"], threads=case["threads"], force=True
    )
    after = content(out)
    image = case["given"][2]
    if case["through"]:
        assert after[0].source_counts == before[0].source_counts
        for key in ("scores", "labels", "predictions"):
            assert after[1][key].tolist() == before[1][key].tolist()
    else:
        assert_same(before, after)
        assert after[0].layout == (case["given"][3] if case["layout"] == "keep" else case["layout"]) or not image
    assert (result.storage == "contiguous") == (case["codec"] is None)
    assert os.path.getsize(out) == result.n_bytes
    with h5py.File(out) as file:
        if case["delta"] == "sample" and not case["through"]:
            assert file["delta"].shape == (case["given"][0],)
        filters = {None: 0, "none": 1, "gzip": 3, "zstd": 3}  # a checksum is the last
        assert file["logits"].id.get_create_plist().get_nfilters() == filters[case["codec"]]
        if case["codec"] in ("gzip", "none"):  # the library reads it, too
            stored = file["logits"][...]
            rows = stored.reshape(len(stored), -1, after[0].n_classes)
            if after[0].layout == "planes":
                rows = stored.reshape(len(stored), after[0].n_classes, -1).transpose(0, 2, 1)
            assert rows.tobytes() == after[1]["scores"].tobytes()
    leftovers = {"a.h5", "b.h5"} | ({"a.parquet"} if case["through"] else set())
    assert set(os.listdir(tmp_path)) - {"a.parquet"} == leftovers - {"a.parquet"}


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_bytes_do_not_depend_on_threads(tmp_path, monkeypatch, codec):
    monkeypatch.setattr(task, "BLOCK_BYTES", 2000)
    name = write(tmp_path / "a.h5", np.random.default_rng(0), 300, 5, (), "rows", "f4")
    for threads in (1, 2):
        pack(name, tmp_path / f"{threads}.h5", codec=codec, chunk="4K", threads=threads)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()
    with h5py.File(tmp_path / "1.h5") as file:
        found = []
        file["logits"].id.chunk_iter(found.append)
    assert [info.byte_offset for info in found] == sorted(info.byte_offset for info in found)


def test_incompressible_chunks_are_not_compressed(tmp_path):
    values = np.random.default_rng(0).integers(0, 1 << 62, (3000, 4)).view("f8")
    values[~np.isfinite(values)] = 0
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["logits"] = values
    for codec in ("gzip", "zstd"):
        pack(tmp_path / "a.h5", tmp_path / "b.h5", codec=codec, chunk="8K", force=True)
        with h5py.File(tmp_path / "b.h5") as file:
            found = []
            file["logits"].id.chunk_iter(found.append)
            assert any(info.filter_mask == 2 for info in found)
            if codec == "gzip":
                assert file["logits"][...].tobytes() == values.tobytes()
        assert content(tmp_path / "b.h5")[1]["scores"].tobytes() == values.tobytes()


def test_predictions_alone(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("predictions", data=np.arange(20, dtype="u1") % 3, chunks=(7,)).attrs["n_classes"] = 3
        file["labels"] = np.zeros(20, "i4")
    for name in ("b.h5", "b.parquet"):
        result = pack(tmp_path / "a.h5", tmp_path / name)
        assert (result.kind, result.encoding, result.layout) == ("predictions", None, None)
        assert_same(content(tmp_path / "a.h5"), content(tmp_path / name))
        assert "predictions" in draw(result)
    for options in ({"codec": "gzip"}, {"chunk": "1M"}, {"dtype": "float16"}, {"layout": "rows"}):
        with pytest.raises(UsageError, match="holds predictions"):
            pack(tmp_path / "a.h5", tmp_path / "c.h5", **options)


def test_calibrated_files_keep_their_provenance(tmp_path):
    name = write(tmp_path / "a.h5", np.random.default_rng(0), 50, 3, (), "rows", "f4", "none")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["g/labels"][...] = np.arange(50) % 3
    unoic_cli.calibrate(name, lam=1.0, output=str(tmp_path / "c.h5"))
    pack(tmp_path / "c.h5", tmp_path / "p.h5", codec="zstd")
    assert_same(content(tmp_path / "c.h5"), content(tmp_path / "p.h5"))
    assert "unoic_calibration" in content(tmp_path / "p.h5")[0].attributes
    one, two = (unoic_cli.evaluate(str(tmp_path / f"{x}.h5")).overall.values for x in "cp")
    assert one == two


def draw(result):
    console = Console(width=160, file=io.StringIO())
    console.print(render_pack(result))
    return console.file.getvalue()


# ------------------------------------------------------------------------------------------------
# rounding


def source_of(encoding, k=4):
    return Source("x", "arrays", 1, k, (), "logits", encoding, "rows", frozenset())


def nearest_brain(value):
    """The bfloat16 next to a float64, ties to even, by exact search."""
    if np.isnan(value):
        return None
    bits = int(np.float32(value).view(np.uint32)) >> 16
    best = None
    for high in range(max(0, bits - 2), min(0xFFFF, bits + 3)):
        candidate = float(np.array(high << 16, np.uint32).view(np.float32))
        if not np.isfinite(candidate) or np.signbit(candidate) != np.signbit(value):
            continue
        key = abs(candidate - value), high & 1
        if best is None or key < best[0]:
            best = key, high
    return best[1]


@settings(max_examples=300, deadline=None)
@given(values=st.lists(st.floats(-3e38, 3e38, allow_nan=False), min_size=4, max_size=4), near=st.booleans())
def test_brain_floats_are_the_nearest(values, near):
    array = np.array([values])
    if near:  # next to the middle between two bfloat16
        array = (((array.astype("f4").view(np.uint32) >> 16) << 16) | 0x8000).view("f4").astype("f8")
        array[0, 1] = np.nextafter(array[0, 1], np.inf)
        array[0, 2] = np.nextafter(array[0, 2], -np.inf)
    got = as_encoding(array, source_of("float64"), "bfloat16")
    wanted = [nearest_brain(value) for value in array[0].tolist()]
    assert got[0].tolist() == wanted


def test_brain_floats_of_special_values():
    array = np.array([[np.nan, -np.nan, np.inf, -np.inf]])
    for dtype, encoding in (("f8", "float64"), ("f4", "float32")):
        made = as_encoding(array.astype(dtype), source_of(encoding), "bfloat16")
        back = (made.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(back, array.astype("f4"))


@pytest.mark.parametrize(("dtype", "value"), [("float16", 65520.0), ("float32", 1e39), ("bfloat16", 3.4e38)])
def test_overflow_is_refused(tmp_path, dtype, value):
    values = np.zeros((5, 3))
    values[3, 2] = value
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["logits"] = values
    with pytest.raises(DataError, match=r"a\.h5:logits: .* at row 3, class 2; expected values in the range of"):
        pack(tmp_path / "a.h5", tmp_path / "b.h5", dtype=dtype)
    assert os.listdir(tmp_path) == ["a.h5"]
    values[3, 2] = 65519.0 if dtype == "float16" else 1e38
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["logits"] = values
    pack(tmp_path / "a.h5", tmp_path / "b.h5", dtype=dtype)


def test_minus_infinity_stays(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["log_probs"] = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    assert pack(tmp_path / "a.h5", tmp_path / "b.h5", dtype="float16").changed[0].n_changed == 0
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["probs"] = np.array([[1e-12, 0.0], [0.5, 0.5]])
    with pytest.raises(DataError, match="no class that is left by float16 at row 0; expected a wider --dtype"):
        pack(tmp_path / "a.h5", tmp_path / "c.h5", dtype="float16")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["logits"] = np.array([[1.0, 0.0], [0.5, np.nan]])
    with pytest.raises(DataError, match="nan at row 1, class 1"):
        pack(tmp_path / "a.h5", tmp_path / "c.h5", dtype="float16")


def decisions(rows, delta, lam, slopes):
    return (delta[:, None] * rows + lam * slopes).argmax(1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("image", [(), (6, 11)])
@pytest.mark.parametrize("codec", [None, "gzip"])
def test_changes_are_counted(tmp_path, monkeypatch, dtype, image, codec):
    monkeypatch.setattr(task, "BLOCK_BYTES", 3000)
    monkeypatch.setattr(task, "SLICE_BYTES", 500)
    rng = np.random.default_rng(0)
    n, k = 60, 3
    scores = rng.normal(size=(n, k, *image)) * 1e-3 + 4
    scores[:, 1] = scores[:, 0] + rng.normal(size=(n, *image)) * (1e-9 if dtype == "float32" else 1e-3)
    delta = rng.uniform(0.5, 2, (n, *image))
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["logits"], file["delta"] = scores, delta
        file["labels"] = rng.integers(0, k, (n, *image))
        file["source_counts"] = [70, 20, 10]
    calibration = unoic_cli.search_lambda(str(path)).calibration.to_dict()
    calibration["lambda"] = calibration["modalities"][0]["lambda"] = 1e-3
    (tmp_path / "c.json").write_text(json.dumps(calibration))
    result = pack(path, tmp_path / "b.h5", dtype=dtype, calibration=str(tmp_path / "c.json"), codec=codec)
    rows = np.moveaxis(scores, 1, -1).reshape(-1, k)
    wide = np.moveaxis(
        as_encoding(scores.reshape(n, k, -1), source_of("float64", k), dtype).reshape(scores.shape), 1, -1
    )
    if dtype == "float32":
        wide = wide.astype("f8")
    elif dtype == "float16":
        wide = np.ascontiguousarray(wide).view("f2").astype("f8")
    else:
        wide = (wide.astype("u4") << 16).view("f4").astype("f8")
    wide, slopes = wide.reshape(-1, k), np.log(1 / 3) - np.log([0.7, 0.2, 0.1])
    for one, lam in zip(result.changed, (0.0, 1e-3), strict=True):
        wanted = decisions(rows, delta.ravel(), lam, slopes) != decisions(wide, delta.ravel(), lam, slopes)
        assert (one.lam, one.n_changed, one.n_units) == (lam, wanted.sum(), wanted.size)
    assert result.changed[0].n_changed
    written = content(tmp_path / "b.h5")
    assert written[0].encoding == dtype
    assert json.loads(written[0].attributes["unoic_packed"]) == {"dtype": ["float64", dtype]}
    assert "decisions at lambda 0.001 of the calibration" in draw(result)
    assert result.to_dict()["changed"][1]["lambda"] == 1e-3


@pytest.mark.parametrize("order", ["flatten-first", "rebalance-first"])
@pytest.mark.parametrize("most", [None, 50])
def test_delta_from_entropy_sees_whole_images(tmp_path, monkeypatch, order, most):
    from unoic_cli.data import dataset

    monkeypatch.setattr(task, "BLOCK_BYTES", 700)
    monkeypatch.setattr(task, "SLICE_BYTES", 200)
    if most is not None:
        monkeypatch.setattr(dataset, "WHOLE_BYTES", most)
        monkeypatch.setattr(dataset, "SPAN_BYTES", most)
    rng = np.random.default_rng(0)
    path, cal = tmp_path / "a.h5", tmp_path / "c.json"
    with h5py.File(path, "w") as file:
        file["logits"] = (rng.normal(size=(9, 3, 8, 9)) * 0.2 + 8).astype("f4")
        file["labels"] = rng.integers(0, 3, (9, 8, 9))
        file["source_counts"] = [70, 20, 10]
    found = unoic_cli.search_lambda(str(path), delta="fit", order=order)
    calibration = found.calibration.to_dict()
    calibration["lambda"] = calibration["modalities"][0]["lambda"] = 0.5
    cal.write_text(json.dumps(calibration))
    counts = set()
    for options in ({}, {"codec": "zstd", "chunk": "4K"}, {"layout": "rows"}):
        result = pack(path, tmp_path / "b.h5", dtype="bfloat16", calibration=str(cal), force=True, **options)
        counts.add(result.changed[1].n_changed)
    assert len(counts) == 1
    if most is None:
        one, two = tmp_path / "one.h5", tmp_path / "two.h5"
        for source, out in ((path, one), (tmp_path / "b.h5", two)):
            unoic_cli.calibrate(str(source), calibration=str(cal), emit="predictions", output=str(out))
        differ = content(one)[1]["scores"] != content(two)[1]["scores"]
        assert counts == {differ.sum()} != {0}


def test_nothing_changes_when_nothing_is_rounded(tmp_path):
    name = write(tmp_path / "a.h5", np.random.default_rng(0), 20, 3, (), "rows", "f2")
    assert pack(name, tmp_path / "b.h5", dtype="float32").changed == ()
    assert (
        content(tmp_path / "b.h5")[1]["scores"].tolist() == content(name)[1]["scores"].view("f2").astype("f4").tolist()
    )
    for dtype in ("float32", "float16", "keep"):
        with pytest.raises(UsageError, match="--calibration: nothing that is rounded"):
            pack(name, tmp_path / "c.h5", dtype=dtype, calibration="c.json")


# ------------------------------------------------------------------------------------------------
# refusals and failures


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("b.xls", {}, "unknown suffix"),
        ("b.parquet", {"codec": "gzip"}, "--codec: given"),
        ("b.parquet", {"chunk": "1M"}, "--chunk: given"),
        ("b.parquet", {"layout": "rows"}, "--layout: given"),
        ("b.h5", {"layout": "rows"}, "holds no images"),
        ("b.h5", {"codec": "lzf"}, "expected one of none, gzip, zstd"),
        ("b.h5", {"dtype": "float8"}, "expected one of keep, float16"),
        ("b.h5", {"layout": "turned"}, "expected one of keep, rows"),
        ("b.h5", {"chunk": "many"}, "expected a size such as 256MB or 2M"),
        ("b.h5", {"chunk": "1K"}, "expected 4K to 64M"),
        ("b.h5", {"chunk": "65M"}, "expected 4K to 64M"),
        ("b.h5", {"threads": 0}, "expected at least 1"),
    ],
)
def test_options_that_make_no_sense(tmp_path, out, options, message):
    name = write(tmp_path / "a.h5", np.random.default_rng(0), 20, 3, (), "rows", "f4")
    with pytest.raises(UsageError, match=message):
        pack(name, tmp_path / out, **options)
    assert os.listdir(tmp_path) == ["a.h5"]


def test_outputs_are_complete_or_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "SMALLEST", 0)
    name = write(tmp_path / "a.h5", np.random.default_rng(0), 400, 3, (), "rows", "f4", chunk=(10, 3), codec="gzip")
    (tmp_path / "b.h5").write_bytes(b"old")
    with pytest.raises(CannotCreateError):
        pack(name, tmp_path / "b.h5")
    with pytest.raises(CannotCreateError, match="also an input"):
        pack(name, tmp_path / "a.h5", force=True)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["g/logits"].id.write_direct_chunk((390, 0), b"damage")
    for options in ({}, {"codec": "gzip"}, {"codec": "zstd", "chunk": "4K"}):
        with pytest.raises(DataError, match=r"a\.h5::g:logits: cannot be read \(chunk at \(390, 0\)"):
            pack(name, tmp_path / "b.h5", force=True, threads=2, **options)
        assert (tmp_path / "b.h5").read_bytes() == b"old"
        assert sorted(os.listdir(tmp_path)) == ["a.h5", "b.h5"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(tmp_path):
    spec = OutputSpec(1000, 4, (), "logits", "float32", "rows")
    writer = chunk_writer.create(str(tmp_path / "a.h5"), spec, "gzip", (100, 4))
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._output.file)
    os.close(full)
    with pytest.raises(StorageError, match="no space left on device"):
        writer.write(LogitBlock(0, 100, scores=np.zeros((100, 4), np.float32)))
    writer.abort()
    writer.abort()
    assert os.listdir(tmp_path) == []


def test_blocks_off_the_chunks_are_a_mistake(tmp_path):
    spec = OutputSpec(1000, 4, (), "logits", "float32", "rows")
    writer = chunk_writer.create(str(tmp_path / "a.h5"), spec, "gzip", (100, 4))
    for start, stop in ((50, 100), (0, 150)):
        with pytest.raises(ValueError, match="for chunks of 100"):
            writer.write(LogitBlock(start, stop, scores=np.zeros((stop - start, 4), np.float32)))
    writer.abort()


def test_the_library_never_sees_the_scores(tmp_path):
    name = write(tmp_path / "a.h5", np.random.default_rng(0), 4000, 3, (), "rows", "f4")
    kept = []
    real = hdf5_writer.Skeleton.write

    def spy(self, data):
        kept.append(len(data))
        return real(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hdf5_writer.Skeleton, "write", spy)
        pack(name, tmp_path / "b.h5", codec="none", chunk="4K")
    with h5py.File(tmp_path / "b.h5") as file:
        assert file["logits"].chunks == (341, 3)
    assert 341 * 12 not in kept


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("a.h5", np.random.default_rng(0), 20, 3, (), "rows", "f4")
    assert run(["pack", "a.h5::g", "b.h5", "--codec", "zstd", "--dtype", "float16"]) == 0
    shown = capsys.readouterr()
    seen = json.loads(shown.out)
    assert seen["encoding"] == "float16" and seen["storage"].startswith("chunked (20, 3), shuffle + zstd + fletcher32")
    assert seen["changed"][0]["lambda"] == 0.0
    assert "labels outside" in shown.err and "predictions are kept" in shown.err
    assert run(["pack", "a.h5::g", "b.h5"]) == 73
    assert run(["pack", "a.h5::g", "c.h5", "--format", "table"]) == 0
    assert "contiguous" in capsys.readouterr().out
    assert run(["pack", "a.h5::g", "d.h5", "--format", "tsv"]) == 0
    assert "storage\tcontiguous" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- checksums


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize(
    ("out", "options", "checksums"),
    [
        ("o.h5", ["--checksums"], "fletcher32"),
        ("o.h5", ["--codec", "none"], "fletcher32"),
        ("o.h5", ["--codec", "gzip"], "fletcher32"),
        ("o.h5", ["--codec", "zstd", "--chunk", "8K"], "fletcher32"),
        ("o.parquet", [], "crc32"),
        ("o.h5", [], "none"),
        ("o.h5", ["--codec", "none", "--no-checksums"], "none"),
        ("o.h5", ["--codec", "gzip", "--no-checksums"], "adler32"),
        ("o.parquet", ["--no-checksums"], "none"),
        ("o.arrows", [], "none"),
    ],
)
def test_a_changed_bit_is_seen_where_there_are_checksums(tmp_path, monkeypatch, answer, run, out, options, checksums):
    monkeypatch.chdir(tmp_path)
    scores = np.random.default_rng(0).normal(size=(4000, 7)).astype("f4")
    with h5py.File("a.h5", "w") as file:
        file["logits"], file["labels"] = scores, np.arange(4000) % 7
    answer("pack", "a.h5", out, *options)
    assert answer("info", out)["files"][0]["checksums"] == checksums
    assert ("no" if checksums == "none" else checksums) + " checksums" in " ".join(
        run("info", out, "--format", "table")[1].split()
    )
    assert answer("evaluate", out)["macc"] == answer("evaluate", "a.h5")["macc"]
    if out.endswith(".h5") and "zstd" not in options:
        with h5py.File(out) as made:
            assert np.array_equal(made["logits"][:], scores)  # the library reads it, too
    seen = []
    for at in np.random.default_rng(1).integers(6000, 90_000, 12).tolist():
        flip(out, at)
        seen.append(run("evaluate", out)[0])
        flip(out, at)
    assert set(seen) <= {0, 65}
    if checksums in ("fletcher32", "crc32"):
        assert set(seen) == {65}
    elif checksums == "none":
        assert 0 in seen  # which is why `info` says so


def test_checksums_that_have_no_place(tmp_path, monkeypatch, refuse):
    monkeypatch.chdir(tmp_path)
    with h5py.File("a.h5", "w") as file:
        file["logits"] = np.zeros((4, 2), "f4")
    assert "have none" in refuse(2, "pack", "a.h5", "o.h5", "--no-checksums")
    assert "have none" in refuse(2, "pack", "a.h5", "o.arrows", "--checksums")
