"""Arrow streams: files and pipes of them, each refusal, and pipelines of real processes."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import threading
import time
from tempfile import TemporaryFile
from types import SimpleNamespace

import forked
import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli import formats
from unoic_cli.errors import CannotCreateError, DataError, NoInputError, StorageError, UsageError
from unoic_cli.formats import arrow, schema
from unoic_cli.formats.block import LogitBlock, OutputSpec
from unoic_cli.storage import spool

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
USAGE, DATA, NO_INPUT, CANNOT_CREATE, STORAGE = 2, 65, 66, 73, 74
END = b"\xff\xff\xff\xff\0\0\0\0"
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def make(path="x.h5", n=60, k=4, image=()):
    with h5py.File(path, "w") as file:
        file["logits"] = RNG.normal(size=(n, k, *image)).astype("f4")
        file["labels"] = RNG.integers(0, k, (n, *image))
        file["source_counts"] = np.arange(k, 0, -1)
        file["split"] = ["a", "b"] * (n // 2)
    return path


def stream(batches, options=None, file=False, table=None):
    """Bytes of record batches as a stream, or as a file of them."""
    sink = pa.BufferOutputStream()
    make_writer = pa.ipc.new_file if file else pa.ipc.new_stream
    with make_writer(sink, table or batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def batch_of(scores, labels, split=None, **metadata):
    columns = {
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), scores.shape[1]),
        "label": pa.array(labels),
    }
    if split is not None:
        columns["split"] = split
    texts = {f"unoic.{key}": json.dumps(value) for key, value in metadata.items()}
    batch = pa.record_batch(columns)
    return batch.replace_schema_metadata(texts) if texts else batch


def store(data, path="x.arrows"):
    with open(path, "wb") as file:
        file.write(data)
    return path


def collect(source, target_bytes=1):
    wanted = source.fields | {"scores"}
    out = {name: [] for name in wanted}
    reader = formats.open_reader(source)
    for start, stop in formats.spans(source, target_bytes):
        for block in reader.blocks(start, stop, wanted):
            for name in wanted:
                values = getattr(block, name)
                per_sample = name in ("split", "group", "sample_id")
                out[name].append(
                    np.array(schema.per_unit(values, block.start, block.stop, source.pixels) if per_sample else values)
                )
    reader.close()
    return {name: np.concatenate(parts) for name, parts in out.items()}


# ------------------------------------------------------------------------------------------------
# files that hold a stream


@QUICK
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    dictionary=st.sampled_from(["none", "same", "replaced", "delta"]),
    compression=st.sampled_from([None, "lz4", "zstd"]),
    file=st.booleans(),
    block=st.integers(1, 200),
    target=st.integers(1, 300),
)
def test_blocks_equal_the_columns(sizes, dictionary, compression, file, block, target):
    rows = sum(sizes)
    scores, labels = RNG.normal(size=(rows, 3)).astype("f4"), RNG.integers(0, 3, rows)
    names = np.array([f"s{i // 4}" for i in range(rows)], dtype=object)
    batches, at = [], 0
    for size in sizes:
        part, seen = names[at : at + size].tolist(), names[: at + size].tolist()
        split = pa.array(part, pa.string())
        if dictionary == "same":
            split = split.cast(pa.string())
            codes = [int(name[1:]) for name in part]
            split = pa.DictionaryArray.from_arrays(
                pa.array(codes, pa.int32()), pa.array([f"s{i}" for i in range(20)], pa.string())
            )
        elif dictionary != "none":  # each batch knows the names so far: deltas, or a new dictionary each
            known = sorted(set(seen), key=lambda name: int(name[1:]))
            codes = [known.index(name) for name in part]
            split = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(known, pa.string()))
        batches.append(batch_of(scores[at : at + size], labels[at : at + size], split))
        at += size
    deltas = dictionary == "delta" or file  # a file takes no replacements
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=deltas)
    path = store(stream(batches, options, file))
    if not rows:
        with pytest.raises(DataError, match="N = 0"):
            formats.describe(path)
        return
    source = pickle.loads(pickle.dumps(formats.describe(path)))
    assert (source.format, source.n_samples, source.n_classes) == ("arrow", rows, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow, "_BLOCK_BYTES", block)
        found = collect(source, target)
    np.testing.assert_array_equal(found["scores"], scores)
    np.testing.assert_array_equal(found["labels"], labels)
    assert found["split"].tolist() == names.tolist()


def test_images_and_everything_else():
    scores = RNG.normal(size=(12, 2)).astype("f4")
    batch = batch_of(
        scores, RNG.integers(0, 2, 12), image_shape=[2, 3], source_counts=[3, 1], class_names=["a", "b"], made_by="me"
    )
    source = formats.describe(store(stream([batch.slice(0, 5), batch.slice(5)])))
    assert (source.n_samples, source.image_shape, source.storage) == (2, (2, 3), "2 record batches")
    assert (source.source_counts, source.class_names) == ((3.0, 1.0), ("a", "b"))
    assert source.attributes == {"made_by": '"me"'}
    with pytest.raises(UsageError, match="a group of a arrow file"):
        formats.describe("x.arrows::g")


@pytest.mark.parametrize("image", [(), (2, 3)])
@pytest.mark.parametrize("group_bytes", [1, 100, 1 << 20])
def test_written_streams_read_back(monkeypatch, image, group_bytes):
    monkeypatch.setattr(arrow, "_GROUP_BYTES", group_bytes)
    pixels = int(np.prod(image))
    dtypes = {"labels": "uint8", "split": "str", "delta": "float64"}
    spec = OutputSpec(5, 4, image, "probs", "float64", "planes" if image else "rows", predictions=True, dtypes=dtypes)
    scores, labels = RNG.random((5, pixels, 4)), RNG.integers(0, 4, 5 * pixels)
    splits = np.array(list("ababa"), object)
    writer = formats.create("out.arrows", spec)
    for first, last in ((0, 1), (1, 4), (4, 5)):
        start, stop = first * pixels, last * pixels
        piece = scores[first:last].transpose(0, 2, 1) if image else scores[first:last].reshape(-1, 4)
        block = LogitBlock(start, stop, scores=np.ascontiguousarray(piece), split=splits[first:last])
        block.labels = block.predictions = block.delta = labels[start:stop]
        writer.write(block)
    writer.commit()
    writer.abort()
    assert os.listdir() == ["out.arrows"]
    found = collect(formats.describe("out.arrows"))
    np.testing.assert_array_equal(found["scores"], scores.reshape(-1, 4))
    np.testing.assert_array_equal(found["labels"], labels)
    assert found["split"].tolist() == np.repeat(splits, pixels).tolist()
    table = pa.ipc.open_stream("out.arrows").read_all()
    assert table["predictions"].to_pylist() == labels.tolist()


def test_an_output_that_fails_leaves_nothing():
    writer = formats.create("out.arrows", OutputSpec(3, 4, (), "logits", "float32", "rows"))
    writer.write(LogitBlock(0, 2, scores=np.zeros((2, 4), np.float32)))
    with pytest.raises(ValueError, match="2 of 3 units"):
        writer.commit()
    writer.abort()
    assert os.listdir() == []


def test_every_cut_is_refused():
    whole = stream([batch_of(RNG.normal(size=(5, 2)), np.zeros(5, int))] * 2)
    assert whole.endswith(END)
    for size in range(len(whole)):
        with pytest.raises(DataError):
            formats.describe(store(whole[:size]))
    with pytest.raises(DataError, match="bytes after the end of the stream"):
        formats.describe(store(whole + b"\0"))
    with pytest.raises(DataError, match="bytes after the end of the stream"):
        formats.describe(store(whole + whole))


def test_damage_ends_as_an_error_or_as_other_numbers():
    whole = stream([batch_of(RNG.normal(size=(6, 2)), np.zeros(6, int), pa.array(["a"] * 6).dictionary_encode())] * 2)
    for _ in range(600):
        damaged = bytearray(whole)
        damaged[int(RNG.integers(len(whole)))] ^= 1 << int(RNG.integers(8))
        path = store(bytes(damaged))
        said = path
        try:
            collect(formats.describe(path))
        except (DataError, StorageError) as error:
            said = str(error)
        assert said.startswith(path)


def test_what_streams_may_not_hold():
    tensor = pa.BufferOutputStream()
    pa.ipc.write_tensor(pa.Tensor.from_numpy(np.zeros((2, 2))), tensor)
    head = stream([], table=pa.schema([("logits", pa.list_(pa.float32(), 2))]))
    cases = {
        head: "N = 0",
        END: "without a schema",
        head[:-8] + tensor.getvalue().to_pybytes() + END: "a message of type 4",
        head[:-8] + head: "a schema at byte",
        head[:-8] + b"\xff\xff\xff\xff\xff\xff\xff\x7f": "no message at byte",
        stream([pa.record_batch({"a": [1.0]})]): "no scores among the columns: a",
        stream([batch_of(np.zeros((2, 2)), pa.array([1, None]))]): ":label: 1 nulls",
    }
    for data, said in cases.items():
        with pytest.raises(DataError, match=said):
            collect(formats.describe(store(data)))


def test_a_file_that_changes_under_way():
    source = formats.describe(store(stream([batch_of(np.zeros((2, 2)), np.zeros(2, int))])))
    store(stream([batch_of(np.zeros((3, 2)), np.zeros(3, int))]))
    with pytest.raises(DataError, match="changed"):
        formats.open_reader(source)


# ------------------------------------------------------------------------------------------------
# standard input and output, in this process


@pytest.fixture
def piped(monkeypatch):
    """Make bytes come from a pipe on standard input."""
    opened = []

    def feed(data):
        read, write = os.pipe()
        opened.append(os.fdopen(read, "rb"))
        monkeypatch.setattr(sys, "stdin", opened[-1])

        def pump():
            with contextlib.suppress(BrokenPipeError), os.fdopen(write, "wb") as file:  # nobody may want it
                file.write(data)

        thread = threading.Thread(target=pump)
        thread.start()
        opened.append(thread)

    yield feed
    for thing in opened:
        thing.close() if hasattr(thing, "close") else thing.join()


def converted(name):
    """The bytes of a stream like a file."""
    unoic_cli.convert(name, "made.arrows", force=True)
    with open("made.arrows", "rb") as file:
        data = file.read()
    os.unlink("made.arrows")
    return data


COMMANDS = {
    "info": (),
    "prior": (),
    "evaluate": ("--by", "group"),
    "search-lambda": ("--folds", "3"),
    "calibrate": ("-o", "out.h5", "--force"),
    "fit-temperature": (),
    "fit-delta": ("--split", "a"),
    "compare": ("-m", "x=c.json"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_standard_input(run, piped, folder, command):
    with h5py.File(make(), "a") as file:
        file["group"] = ["u", "v"] * 30
    data = converted("x.h5")
    store(data)
    assert run("search-lambda", "x.h5", "-o", "c.json")[0] == 0
    more = COMMANDS[command]
    code, plain, said = run(command, "x.arrows", *more)
    assert code == 0, said
    piped(data)
    before = set(os.listdir())
    code, found, said = run(command, "-", *more)
    assert code == 0, said
    assert set(os.listdir()) == before
    if command != "info":
        assert re.sub(r'("|of )-"', r'\1x.arrows"', found) == plain


def test_a_stream_beside_other_modalities(run, piped):
    make("rgb.h5"), make("depth.h5")
    with h5py.File("rgb.h5") as a, h5py.File("depth.h5", "a") as b:
        b["labels"][...] = a["labels"][...]
    plain = run("evaluate", "rgb=rgb.h5", "depth=depth.h5")[1]
    piped(converted("depth.h5"))
    assert run("evaluate", "rgb=rgb.h5", "depth=-")[1].replace("depth=-", "depth=depth.h5") == plain


def test_the_source_of_a_stream_is_picklable(piped):
    piped(converted(make()))
    source = formats.describe("-")
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(collect(source)["scores"], collect(copy)["scores"])


def test_a_file_on_standard_input_is_read_in_place(monkeypatch):
    store(b"before" + converted(make()))
    with open("x.arrows", "rb") as file:
        os.lseek(file.fileno(), 6, os.SEEK_SET)
        monkeypatch.setattr(sys, "stdin", file)
        monkeypatch.setattr(arrow, "_spool", None)
        source = formats.describe("-")
    with h5py.File("x.h5") as file:
        np.testing.assert_array_equal(collect(source)["scores"], file["logits"][...])


def test_what_is_refused_on_standard_input(run, piped, monkeypatch):
    def refuse(code, *args):
        got, out, err = run(*args)
        assert (got, out, err.count("\n")) == (code, "", 1), err
        return err

    whole = converted(make())
    pipes = {
        b"": "an empty stream",
        b"hello": "no Arrow IPC stream",
        b"hello, this is no stream": "no Arrow IPC stream",
        pathlib.Path("x.h5").read_bytes(): "an HDF5 file; expected an Arrow IPC stream (name such a file instead)",
        whole[: len(whole) // 2]: "breaks off",
        whole[:-8]: "without its end marker",
        whole * 2: "after the end of the stream",
    }
    for data, said in pipes.items():
        if len(data) < 60_000:  # more would keep the writer waiting
            piped(data)
            assert said in refuse(DATA, "evaluate", "-")
    piped(whole)
    assert "standard input twice" in refuse(USAGE, "evaluate", "-", "-")
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in refuse(NO_INPUT, "evaluate", "-")
    with open(os.devnull) as null:
        monkeypatch.setattr(sys, "stdin", null)
        assert "an empty stream" in refuse(DATA, "evaluate", "-")
    master, slave = os.openpty()
    with os.fdopen(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        assert "standard input is a terminal" in refuse(NO_INPUT, "evaluate", "-")
    os.close(master)
    monkeypatch.setattr(spool, "tempfile", SimpleNamespace(gettempdir=lambda: "/none", TemporaryFile=TemporaryFile))
    piped(whole)
    assert "no temporary file for standard input" in refuse(STORAGE, "evaluate", "-")


def test_no_room_for_a_stream(piped, folder, monkeypatch, file_limit):
    piped(converted(make(n=200)))
    monkeypatch.setattr(spool, "tempfile", SimpleNamespace(gettempdir=lambda: folder, TemporaryFile=TemporaryFile))
    with file_limit(1000), pytest.raises(StorageError, match="expected room for the whole of standard input"):
        formats.describe("-")
    sys.stdin.read()


def test_options_that_mean_nothing_to_a_stream(run):
    make()
    given = ("calibrate", "x.h5", "--lambda", "1", "-o", "-")
    for more, said in ((("--force",), "--force with a stream"), (("--format", "json"), "--format with a stream")):
        code, out, err = run(*given, *more)
        assert (code, out) == (USAGE, "")
        assert said in err
    code, out, err = run("search-lambda", "x.h5", "-o", "-")
    assert (code, out) == (USAGE, "")
    assert not os.path.exists("-")


def test_standard_output_must_be_there(monkeypatch):
    spec = OutputSpec(3, 4, (), "logits", "float32", "rows")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with pytest.raises(CannotCreateError, match="standard output is a terminal"):
            formats.create("-", spec)
    os.close(master)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(CannotCreateError, match="standard output is closed"):
        formats.create("-", spec)
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(NoInputError, match="standard input"):
        formats.describe("-")


# ------------------------------------------------------------------------------------------------
# pipelines


def shell(line):
    """Run a pipeline; exit codes of its members, stdout and stderr."""
    script = f'unoic() {{ {forked.command()} "$@"; }}\n{line}\necho "${{PIPESTATUS[@]}}" >&2'
    done = subprocess.run(["bash", "-c", script], capture_output=True)
    said = done.stderr.decode().splitlines()
    return [int(code) for code in said[-1].split()], done.stdout, said[:-1]


def test_calibrate_into_evaluate():
    make(image=(5, 6), n=20)
    given = "x.h5 --lambda 0.7 --split a"
    codes, streamed, said = shell(f"unoic calibrate {given} -o - | unoic evaluate -")
    assert (codes, said[0]) == ([0, 0], "unoic: note: 300 rows written (log-probs), lambda = 0.7")
    codes, _, _ = shell(f"unoic calibrate {given} -o out.parquet; unoic evaluate out.parquet > plain.json")
    with open("plain.json") as file:
        assert {**json.loads(streamed), "files": ["out.parquet"]} == json.load(file)
    codes, same, said = shell(f"unoic calibrate {given} -o - > out.arrows; unoic calibrate {given} -o -")
    with open("out.arrows", "rb") as file:
        assert file.read() == same


def test_a_chain_of_fits():
    make()
    line = "unoic convert x.h5 - | unoic calibrate - -o - | unoic evaluate -"
    codes, streamed, said = shell(line)
    assert codes == [0, 0, 0]
    assert sum("rows written" in line for line in said) == 1
    assert not [name for name in os.listdir() if name.endswith(".json")]
    codes, _, _ = shell("unoic calibrate x.h5 -o out.h5; unoic evaluate out.h5 > plain.json")
    with open("plain.json") as file:
        assert {**json.loads(streamed), "files": ["out.h5"]} == json.load(file)
    codes, _, said = shell("unoic fuse a=x.h5 b=- -o - < <(unoic convert x.h5 -) > f.arrows; unoic info f.arrows")
    assert codes == [0]


def test_a_reader_that_goes_away():
    make(n=30_000, k=20)
    codes, out, said = shell("unoic calibrate x.h5 --lambda 1 -o - | head -c 100")
    assert (codes, len(out), said) == ([141, 0], 100, [])


def test_a_producer_that_fails():
    with h5py.File(make(n=200_000, k=20), "a") as file:
        file["logits"][199_999, 3] = np.nan
    codes, out, said = shell("unoic calibrate x.h5 --lambda 1 -o - | unoic evaluate -")
    assert (codes, out) == ([DATA, DATA], b"")
    said = [line for line in said if not re.match(r"unoic: \d+%", line)]  # where the machine is slow
    assert sorted(line.split(";")[0].partition(" bytes")[0][:40] for line in said) == sorted(
        ["unoic: error: x.h5:logits: nan at row 19", "unoic: error: -: the stream breaks off a"]
    )
    with h5py.File("x.h5", "a") as file:
        file["logits"][0, 3] = np.nan
    codes, out, said = shell("unoic calibrate x.h5 --lambda 1 -o - | unoic evaluate -")
    assert (codes, out) == ([DATA, DATA], b"")
    assert any("an empty stream" in line for line in said)


def test_a_full_disk_ends_a_stream():
    make(n=30_000, k=20)
    codes, _, said = shell("unoic calibrate x.h5 --lambda 1 -o - > /dev/full")
    assert codes == [STORAGE]
    assert len(said) == 1
    assert "no space left" in said[0]


def test_a_kill_leaves_no_spool(folder):
    make()
    process = forked.Popen([sys.executable, "-m", "unoic_cli", "evaluate", "-"], stdin=subprocess.PIPE)
    process.stdin.write(END[:4] + b"\x10\0\0\0" + bytes(1000))
    process.stdin.flush()
    time.sleep(2)
    process.kill()
    process.wait()
    process.stdin.close()
    assert os.listdir() == ["x.h5"]
