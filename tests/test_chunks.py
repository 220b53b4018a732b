"""Chunks that are decoded here: every pipeline, layout and type equals what libhdf5 reads; damage is one error."""

from __future__ import annotations

import ctypes
import glob
import itertools
import os
import pickle
import struct
import threading
import zlib

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unoic_cli import formats
from unoic_cli.errors import DataError, StorageError
from unoic_cli.formats import chunks, hdf5, hdf5_files
from unoic_cli.kernels.octets import fletcher32, shuffle, unshuffle

SETTINGS = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DEFLATE, SHUFFLE, FLETCHER, ZSTD = chunks.DEFLATE, chunks.SHUFFLE, chunks.FLETCHER32, chunks.ZSTD
PIPELINES = [
    (),
    (DEFLATE,),
    (SHUFFLE,),
    (FLETCHER,),
    (ZSTD,),
    (SHUFFLE, DEFLATE),
    (SHUFFLE, ZSTD),
    (DEFLATE, SHUFFLE),
    (SHUFFLE, DEFLATE, FLETCHER),
    (FLETCHER, SHUFFLE, DEFLATE),
    (SHUFFLE, FLETCHER, ZSTD),
    (ZSTD, SHUFFLE, FLETCHER),
    (FLETCHER, ZSTD),
    (DEFLATE, FLETCHER),
]
READABLE = [pipeline for pipeline in PIPELINES if ZSTD not in pipeline]


@pytest.fixture(autouse=True)
def _no_chunk_is_too_small(monkeypatch):
    monkeypatch.setattr(chunks, "SMALLEST", 0)


def plain_fletcher(data):
    """As written in the library's sources."""
    first = second = at = 0
    words = len(data) // 2
    while words:
        block = min(words, 360)
        words -= block
        for _ in range(block):
            first += data[at] << 8 | data[at + 1]
            second += first
            at += 2
        first, second = (first & 0xFFFF) + (first >> 16), (second & 0xFFFF) + (second >> 16)
    if len(data) % 2:
        first += data[at] << 8
        second += first
        first, second = (first & 0xFFFF) + (first >> 16), (second & 0xFFFF) + (second >> 16)
    first, second = (first & 0xFFFF) + (first >> 16), (second & 0xFFFF) + (second >> 16)
    return second << 16 | first


def plain_shuffle(data, width):
    count = len(data) // width
    if width < 2 or count < 2:
        return data
    head = np.frombuffer(data[: count * width], np.uint8).reshape(count, width).T.tobytes()
    return head + data[count * width :]


def encode(data, pipeline, width, mask=0):
    """What a chunk holds in the file."""
    for index, code in enumerate(pipeline):
        if mask >> index & 1:
            continue
        if code == SHUFFLE:
            data = plain_shuffle(data, width)
        elif code == DEFLATE:
            data = zlib.compress(data, 3)
        elif code == ZSTD:
            data = pa.Codec("zstd").compress(data, asbytes=True)
        else:
            data += struct.pack("<I", plain_fletcher(data))
    return data


def save(file, name, values, chunk, pipeline, kind=None, masks=None, mode=None):
    """Write a dataset chunk by chunk, filtered by the test's own encoders."""
    kind = h5py.h5t.py_create(values.dtype) if kind is None else kind
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(chunk)
    for code in pipeline:
        if code == SHUFFLE:
            plist.set_shuffle()
        elif code == DEFLATE:
            plist.set_deflate(3)
        elif code == FLETCHER:
            plist.set_fletcher32()
        else:
            plist.set_filter(ZSTD, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple(values.shape, (h5py.h5s.UNLIMITED, *values.shape[1:]) if mode == "growing" else None)
    made = h5py.h5d.create(file.id, name.encode(), kind, space, plist)
    for number, place in enumerate(np.ndindex(*(-(-n // c) for n, c in zip(values.shape, chunk, strict=True)))):
        begin = tuple(p * c for p, c in zip(place, chunk, strict=True))
        part = values[tuple(slice(b, b + c) for b, c in zip(begin, chunk, strict=True))]
        whole = np.zeros(chunk, values.dtype)
        whole[tuple(slice(0, n) for n in part.shape)] = part
        mask = 0 if masks is None else masks[number % len(masks)]
        made.write_direct_chunk(begin, encode(whole.tobytes(), pipeline, values.dtype.itemsize, mask), mask)
    return made


def read(path, name, source=None):
    """A field of a file as one array in units."""
    source = pickle.loads(pickle.dumps(source or formats.describe(str(path))))
    reader, parts = formats.open_reader(source), []
    for start, stop in formats.spans(source, 200):
        for block in reader.blocks(start, stop, frozenset({name})):
            values = getattr(block, name)
            if name == "scores" and values.ndim == 3:
                values = values.transpose(0, 2, 1).reshape(-1, source.n_classes)
            parts.append(np.array(values))
    reader.close()
    return np.concatenate(parts)


def as_units(values, layout):
    if layout == "planes":
        n, k = values.shape[:2]
        return values.reshape(n, k, -1).transpose(0, 2, 1).reshape(-1, k)
    return values.reshape(-1, values.shape[-1])


@st.composite
def cases(draw):
    n, k = draw(st.integers(1, 9)), draw(st.integers(2, 7))
    layout = draw(st.sampled_from(["rows", "planes", "last"]))
    image = () if layout == "rows" else (draw(st.integers(1, 5)), draw(st.integers(1, 6)))
    shape = {"rows": (n, k), "planes": (n, k, *image), "last": (n, *image, k)}[layout]
    label_shape = draw(st.sampled_from([(n, *image), (n, 1, *image)]))

    def chunk(extents):
        return tuple(draw(st.integers(1, extent)) for extent in extents)

    return {
        "layout": layout,
        "scores": (shape, chunk(shape), draw(st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "brain"]))),
        "labels": (
            label_shape,
            chunk(label_shape),
            draw(st.sampled_from(["u1", "i1", "<i2", ">u2", "<u4", ">i4", "<i8", ">i8", "<u8"])),
        ),
        "delta": ((n, *image), chunk((n, *image)), draw(st.sampled_from(["<f2", ">f4", "<f8", "<i4"]))),
        "pipelines": [draw(st.sampled_from(PIPELINES)) for _ in range(3)],
        "masks": draw(st.lists(st.integers(0, 7), min_size=1, max_size=3)),
        "user_block": draw(st.sampled_from([0, 512, 2048])),
        "mode": draw(st.sampled_from([None, "growing"])),
        "libver": draw(st.sampled_from(["earliest", "latest"])),
    }


@SETTINGS
@given(case=cases(), seed=st.integers(0, 99))
def test_every_pipeline_equals_the_arrays(tmp_path, monkeypatch, case, seed):
    rng, path = np.random.default_rng(seed), tmp_path / "a.h5"
    shape, chunk, dtype = case["scores"]
    brain = dtype == "brain"
    scores = rng.integers(0, 60000, shape).astype("<u2") if brain else rng.normal(size=shape).astype(dtype)
    labels = rng.integers(0, 2, case["labels"][0]).astype(case["labels"][2])
    delta = (4 * rng.random(case["delta"][0])).astype(case["delta"][2])
    with h5py.File(path, "w", userblock_size=case["user_block"], libver=case["libver"]) as file:
        kind = None
        if brain:
            kind = h5py.h5t.IEEE_F32LE.copy()
            kind.set_fields(15, 7, 8, 0, 7)
            kind.set_ebias(127)
            kind.set_precision(16)
            kind.set_size(2)
        one, two, three = case["pipelines"]
        rest = case["masks"], case["mode"]
        save(file, "logits", scores, chunk, one, kind, *rest)
        save(file, "labels", labels, case["labels"][1], two, None, *rest)
        save(file, "delta", delta, case["delta"][1], three, None, *rest)
        file["logits"].attrs["class_axis"] = -1 if case["layout"] == "last" else 1
    source = formats.describe(str(path))
    native = source.encoding if not brain else "uint16"
    found = {name: read(path, name, source) for name in ("scores", "labels", "delta")}
    np.testing.assert_array_equal(found["scores"].view(native), as_units(scores, case["layout"]))
    np.testing.assert_array_equal(found["labels"], labels.ravel())
    np.testing.assert_array_equal(found["delta"], delta.ravel())
    if not any(ZSTD in pipeline for pipeline in case["pipelines"]):
        monkeypatch.setattr(chunks, "_use_library", True)
        theirs = formats.describe(str(path))
        monkeypatch.setattr(chunks, "_use_library", False)
        assert theirs.arrays["scores"].layout is None
        for name, ours in found.items():
            assert read(path, name, theirs).tobytes() == ours.tobytes()


@pytest.mark.parametrize("pipeline", READABLE, ids=str)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_what_the_library_writes(tmp_path, pipeline, dtype):
    values = np.random.default_rng(0).normal(size=(301, 7)).astype(dtype)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((33, 5))
        add = {DEFLATE: lambda: plist.set_deflate(6), SHUFFLE: plist.set_shuffle, FLETCHER: plist.set_fletcher32}
        for code in pipeline:
            add[code]()
        space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype)
        h5py.Dataset(h5py.h5d.create(file.id, b"logits", kind, space, plist))[...] = values
    source = formats.describe(str(path))
    assert source.arrays["scores"].layout is not None
    assert read(path, "scores", source).tobytes() == values.tobytes()


def test_the_library_is_opened_once_for_the_map(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        save(file, "logits", np.ones((100, 3)), (7, 2), (SHUFFLE, DEFLATE))
    source = formats.describe(str(path))
    opened, real = [], hdf5_files._open
    monkeypatch.setattr(hdf5_files, "_open", lambda *given: opened.append(given) or real(*given))
    assert read(path, "scores", source).all() and read(path, "scores", source).all()
    assert len(opened) == 1


@pytest.mark.parametrize(
    "options", [{"compression": "lzf"}, {"scaleoffset": 4}, {"compression": "lzf", "shuffle": True}]
)
def test_other_filters_go_through_the_library(tmp_path, options):
    values = np.random.default_rng(0).integers(0, 50, (40, 6)).astype("f4")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("logits", data=values, chunks=(9, 4), **options)
        stored = made[...]
    source = formats.describe(str(path))
    assert source.arrays["scores"].layout is None
    np.testing.assert_array_equal(read(path, "scores", source).view("f4"), stored)


def test_an_old_library_reads_for_itself(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        save(file, "logits", np.ones((100, 3)), (7, 2), (SHUFFLE, DEFLATE))
    monkeypatch.setattr(chunks, "_LISTS_CHUNKS", False)
    source = formats.describe(str(path))
    assert source.arrays["scores"].layout is None
    assert read(path, "scores", source).all()


def test_huge_chunks_go_through_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "LARGEST", 100)
    for pipeline, ours in (((DEFLATE,), False), ((ZSTD,), True)):
        path = tmp_path / "a.h5"
        values = np.random.default_rng(0).normal(size=(50, 3))
        with h5py.File(path, "w") as file:
            save(file, "logits", values, (40, 3), pipeline)
        source = formats.describe(str(path))
        assert (source.arrays["scores"].layout is not None) == ours
        assert read(path, "scores", source).tobytes() == values.tobytes()


def test_zstd_of_text_needs_the_filter(tmp_path):
    path = tmp_path / "a.h5"
    if h5py.h5z.filter_avail(ZSTD):
        pytest.skip("the filter is installed here")
    with h5py.File(path, "w") as file:
        save(file, "logits", np.ones((10, 3)), (7, 2), (ZSTD,))
        save(file, "split", np.array([b"a"] * 10), (10,), (ZSTD,))
    with pytest.raises(DataError, match=r"a\.h5:split: compressed with filter 32015"):
        formats.describe(str(path))


def test_no_partly_used_chunk_is_decoded_twice(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        save(file, "logits", np.ones((100, 3), "f4"), (5, 3), (DEFLATE,))
        save(file, "labels", np.zeros(100, "i4"), (64,), (DEFLATE,))
    decoded, real = [], chunks.ChunkReader._decode
    monkeypatch.setattr(
        chunks.ChunkReader, "_decode", lambda self, number, out: decoded.append(number) or real(self, number, out)
    )
    read(path, "labels")
    assert decoded == [0, 1]


@pytest.mark.parametrize("most", [1, 700])
def test_kept_chunks_are_bounded(tmp_path, monkeypatch, most):
    monkeypatch.setattr(chunks, "KEPT", most)
    path = tmp_path / "a.h5"
    values = np.random.default_rng(0).normal(size=(6, 2, 9, 8)).astype("f4")
    with h5py.File(path, "w") as file:
        save(file, "logits", values, (6, 1, 3, 3), (SHUFFLE, DEFLATE))
        file["logits"].attrs["class_axis"] = 1
    source = formats.describe(str(path))
    reader = formats.open_reader(source)
    for start in range(0, 432, 37):
        (*blocks,) = (b.scores.copy() for b in reader.blocks(start, min(432, start + 37), frozenset({"scores"})))
        rows = np.concatenate([b.transpose(0, 2, 1).reshape(-1, 2) for b in blocks])
        np.testing.assert_array_equal(rows, as_units(values, "planes")[start : start + 37])
        kept = reader._chunked["scores"]._kept
        assert len(kept) <= max(1, most // 216)
    reader.close()


def test_spans_inside_images_follow_chunks(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        save(file, "logits", np.zeros((2, 3, 10, 4), "f4"), (1, 2, 3, 4), (DEFLATE,))
        file["logits"].attrs["class_axis"] = 1
    source = formats.describe(str(path))
    assert formats.spans(source, 3 * 3 * 4 * 4) == [(a, b) for i in (0, 40) for a, b in
                                                   itertools.pairwise([i, i + 12, i + 24, i + 36, i + 40])]  # fmt: skip
    assert formats.spans(source, 1 << 20) == [(0, 80)]


def test_bands_of_many_images_are_divided(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "MOST_BYTES", 2000)
    path = tmp_path / "a.h5"
    values = np.random.default_rng(0).normal(size=(10, 3, 10, 4)).astype("f4")
    with h5py.File(path, "w") as file:
        save(file, "logits", values, (10, 1, 3, 4), (DEFLATE,))
        file["logits"].attrs["class_axis"] = 1
    source = formats.describe(str(path))
    assert [stop - start for start, stop in formats.spans(source, 100)] == [160, 160, 80]
    assert read(path, "scores", source).tobytes() == as_units(values, "planes").tobytes()


def test_unfiltered_edges(tmp_path):
    """Files may say that chunks at the edge are stored as they are, which the map of chunks does not tell."""
    folder = os.path.dirname(h5py.__file__)
    found = glob.glob(os.path.join(folder, "..", "h5py.libs", "libhdf5-*"))
    if not found:
        pytest.skip("no library that comes with h5py")
    library = ctypes.CDLL(found[0])
    library.H5Pset_chunk_opts.argtypes = [ctypes.c_int64, ctypes.c_uint]
    for filters in (("deflate",), ("shuffle",), ("shuffle", "deflate")):
        path = tmp_path / "a.h5"
        values = np.arange(30 * 7, dtype="f4").reshape(30, 7)
        with h5py.File(path, "w", libver="latest") as file:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((8, 5))
            for name in filters:
                plist.set_shuffle() if name == "shuffle" else plist.set_deflate(4)
            assert library.H5Pset_chunk_opts(plist.id, 2) == 0
            space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype)
            h5py.Dataset(h5py.h5d.create(file.id, b"logits", kind, space, plist))[...] = values
        np.testing.assert_array_equal(read(path, "scores"), values)


# ------------------------------------------------------------------------------------------------
# damage


def places(path):
    with h5py.File(path) as file:
        found = []
        file["logits"].id.chunk_iter(found.append)
        return [(info.byte_offset, info.size) for info in found]


@pytest.mark.parametrize("pipeline", [p for p in PIPELINES if p], ids=str)
def test_flipped_bits(tmp_path, pipeline):
    values = np.random.default_rng(0).normal(size=(50, 3)).astype("f4")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        save(file, "logits", values, (20, 2), pipeline)
    whole, spots, rng = path.read_bytes(), places(path), np.random.default_rng(1)
    for _ in range(80):
        offset, size = spots[rng.integers(len(spots))]
        damaged = bytearray(whole)
        damaged[offset + rng.integers(size)] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        got, message = None, ""
        try:
            got = read(path, "scores")
        except DataError as error:
            message = str(error)
        if got is None:
            assert message.startswith(f"{path}:logits: cannot be read (chunk at (")
            assert "\n" not in message
            continue
        # without a checksum a value may differ, and shifts of the stream may change nothing
        if set(pipeline) & {DEFLATE, FLETCHER}:
            assert got.tobytes() == values.tobytes()


@pytest.mark.parametrize("pipeline", [p for p in PIPELINES if p], ids=str)
@pytest.mark.parametrize("lost", [1, 3, 40])
def test_chunks_of_the_wrong_size(tmp_path, pipeline, lost):
    path = tmp_path / "a.h5"
    for change in (lambda data: data[:-lost], lambda data: data[:3], lambda data: b""):
        with h5py.File(path, "w") as file:
            made = save(file, "logits", np.arange(60.0).reshape(20, 3), (20, 3), pipeline)
            stored = change(made.read_direct_chunk((0, 0))[1])
            if not stored:
                continue
            made.write_direct_chunk((0, 0), stored)
        with pytest.raises(DataError, match=r"a\.h5:logits: cannot be read \(chunk at \(0, 0\): "):
            read(path, "scores")


@pytest.mark.parametrize("code", [DEFLATE, ZSTD])
@pytest.mark.parametrize("size", [0, 471, 472, 479, 481, 488, 5_000_000])
def test_streams_of_the_wrong_length(tmp_path, code, size):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = save(file, "logits", np.arange(60.0).reshape(20, 3), (20, 3), (code,))
        made.write_direct_chunk((0, 0), encode(bytes(size), (code,), 8))
    with pytest.raises(DataError, match=r"chunk at \(0, 0\): "):
        read(path, "scores")


@pytest.mark.parametrize("code", [DEFLATE, ZSTD])
def test_large_chunks(tmp_path, code):
    path = tmp_path / "a.h5"
    for values in (np.zeros((1200, 1000)), np.random.default_rng(0).integers(0, 99, (1200, 1000)).astype("f8")):
        with h5py.File(path, "w") as file:
            made = save(file, "logits", values, (1200, 1000), (SHUFFLE, code))
            stored = made.read_direct_chunk((0, 0))[1]
        assert read(path, "scores").tobytes() == values.tobytes()
        for damaged in (stored[:-2], stored[: len(stored) // 2], stored[:-6] + b"abcdef"):
            with h5py.File(path, "a") as file:
                file["logits"].id.write_direct_chunk((0, 0), damaged)
            if code == DEFLATE or len(damaged) < len(stored):
                with pytest.raises(DataError, match=r"chunk at \(0, 0\): "):
                    read(path, "scores")


def test_truncated_files(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        save(file, "logits", np.random.default_rng(0).normal(size=(50, 30)), (7, 30), (DEFLATE,))
    whole = path.read_bytes()
    for size in range(len(whole) - 1, 0, -997):
        path.write_bytes(whole[:size])
        with pytest.raises((DataError, StorageError)):
            read(path, "scores")


def test_chunks_beyond_the_end(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = save(file, "logits", np.ones((50, 30)), (7, 30), (DEFLATE,))
        found = made.get_chunk_info(3)
    whole = path.read_bytes()
    pointer = whole.find(struct.pack("<Q", found.byte_offset))
    assert pointer > 0
    path.write_bytes(whole[:pointer] + struct.pack("<Q", len(whole) - 5) + whole[pointer + 8 :])
    with pytest.raises(DataError, match=r"a\.h5:logits: cannot be read \(the chunk at \(21, 0\) lies outside"):
        read(path, "scores")


# ------------------------------------------------------------------------------------------------
# threads, maps and kernels


def test_two_threads(tmp_path):
    path = tmp_path / "a.h5"
    values = np.random.default_rng(0).normal(size=(400, 5)).astype("f4")
    with h5py.File(path, "w") as file:
        save(file, "logits", values, (9, 4), (SHUFFLE, ZSTD, FLETCHER))
    source, failures = formats.describe(str(path)), []

    def work():
        for _ in range(5):
            if read(path, "scores", source).tobytes() != values.tobytes():
                failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_maps_are_few(monkeypatch):
    monkeypatch.setattr(chunks, "_maps", type(chunks._maps)())
    made = []
    for key in [*range(100), 99, 99]:
        chunks.shared_map(key, lambda key=key: made.append(key) or key)
    assert made == list(range(100))
    assert len(chunks._maps) == chunks._MOST_MAPS


def test_offsets_that_leave_the_user_block_out(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=1024) as file:
        save(file, "logits", np.random.default_rng(0).normal(size=(9, 3)), (9, 3), (DEFLATE,))
    with h5py.File(path) as file:
        found = file["logits"].id.get_chunk_info(0)
        assert chunks._missing_user_block(file["logits"], 0, 5, 1024) == 0
        dataset = h5py.Dataset(file["logits"].id)
        assert chunks._missing_user_block(dataset, found.byte_offset, found.size, 1024) == 0
        assert chunks._missing_user_block(dataset, found.byte_offset - 1024, found.size, 1024) == 1024


@pytest.mark.kernel
@SETTINGS
@given(data=st.binary(max_size=2000), width=st.integers(1, 9), far=st.booleans())
def test_bytes(data, width, far):
    data = data * 40 if far else data
    array = np.frombuffer(data, np.uint8)
    there, back = np.empty_like(array), np.empty_like(array)
    shuffle(array, width, there)
    assert there.tobytes() == plain_shuffle(data, width)
    unshuffle(there, width, back)
    assert back.tobytes() == data
    assert fletcher32(array) == plain_fletcher(data)


@pytest.mark.kernel
@pytest.mark.parametrize("byte", [0, 1, 255])
@pytest.mark.parametrize("size", [0, 1, 2, 719, 720, 721, 65535, 65536, 131_071])
def test_checksums_of_one_byte(byte, size):
    data = bytes([byte]) * size
    assert fletcher32(np.frombuffer(data, np.uint8)) == plain_fletcher(data)


def test_tiny_chunks_go_through_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "SMALLEST", 4096)
    path, values = tmp_path / "a.h5", np.random.default_rng(0).normal(size=(600, 3))
    for rows, pipeline, ours in ((170, (DEFLATE,), False), (171, (DEFLATE,), True), (9, (ZSTD,), True)):
        with h5py.File(path, "w") as file:
            save(file, "logits", values, (rows, 3), pipeline)
        source = formats.describe(str(path))
        assert (source.arrays["scores"].layout is not None) == ours
        assert read(path, "scores", source).tobytes() == values.tobytes()
