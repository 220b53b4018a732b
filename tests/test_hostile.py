"""Files made to do harm: more memory than they are worth, waits without end, code, and words that a terminal obeys."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import pickle
import re
import resource
import subprocess
import sys
import zipfile
import zlib

import forked
import fuzz
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from said import BESIDE

from unoic_cli import errors, formats
from unoic_cli.formats import columns
from unoic_cli.formats.watched import WatchedFile
from unoic_cli.kernels import jit
from unoic_cli.resolve import inputs
from unoic_cli.storage import whole

USAGE, DATA, NO_INPUT, STORAGE = 2, 65, 66, 74
N, K = 12, 3
LOGITS = np.random.default_rng(0).normal(size=(N, K)).astype("f4")
LABELS = np.arange(N) % K
NASTY = "a\x1b[2Jb\x07c\x9bd\x7fe\u202ef"
MOST = 2 << 30


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bounded():
    """No more than two gigabytes besides what is there already: an allocation beyond it fails the test."""
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def make(path="x.h5", **arrays):
    with h5py.File(path, "w") as file:
        for name, values in ({"logits": LOGITS, "labels": LABELS} | arrays).items():
            if isinstance(values, dict):
                file.create_dataset(name, **values)
            elif values is not None:
                file[name] = values
    return path


def sparse(path, size, start=b""):
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)
    return path


# ------------------------------------------------------------------------------------------------
# memory


GIGABYTES = 6 << 30
SMALL_FILES = (
    "evaluate x.h5 -c {}",
    "evaluate x.h5 -l 1 --source-prior {}",
    "search-lambda x.h5 --target-prior {}",
    "evaluate x.h5 -l 1 --delta {}",
    "fit-delta x.h5 --statistics {} --write-delta o.h5",
    "evaluate @{}",
    "report {}",
    "merge {} -o all.unoic",
    "evaluate x.h5 --checkpoint {} --resume",
    "evaluate x.h5 --shard 1/2 --state s.unoic --after {}",
)


@pytest.mark.parametrize("line", SMALL_FILES)
def test_a_small_file_of_six_gigabytes(refuse, bounded, line):
    make()
    start = b"unoic state 1\n" if "unoic" in line or "report" in line or "resume" in line else b"{"
    message = refuse(DATA, *line.format(sparse("huge.json", GIGABYTES, start)).split())
    assert "6,442,450,944 bytes" in message


HUGE = 1 << 27


def claim(path, name, kind, shape):
    """A dataset whose bytes have a place in the file, and take none on the disk."""
    with h5py.File(path, "a") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)


def text_of(size):
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(size)
    return kind


@pytest.mark.parametrize(
    ("name", "kind", "shape", "found"),
    [
        ("source_counts", h5py.h5t.IEEE_F32LE, (HUGE,), "shape (134217728,); expected (3,)"),
        ("source_prior", h5py.h5t.IEEE_F32LE, (HUGE,), "shape (134217728,); expected (3,)"),
        ("class_names", text_of(1), (HUGE,), "shape (134217728,); expected (3,)"),
        ("class_names", text_of(HUGE), (K,), "texts of 134,217,728 bytes each; expected at most 4,096"),
        ("split", text_of(HUGE), (N,), "texts of 134,217,728 bytes each; expected at most 4,096"),
        ("group", text_of(HUGE), (N,), "texts of 134,217,728 bytes each; expected at most 4,096"),
        ("sample_id", text_of(HUGE), (N,), "texts of 134,217,728 bytes each; expected at most 4,096"),
    ],
)
def test_sizes_in_hdf5_that_the_schema_cannot_need(refuse, bounded, name, kind, shape, found):
    claim(make(), name, kind, shape)
    for command in ("evaluate", "info"):
        assert refuse(DATA, command, "x.h5").startswith(f"x.h5:{name}: {found}")


def compressed(value, n, dtype):
    """A dataset of `n` equal entries that takes little room."""
    return {"data": np.full(n, value, dtype), "compression": "gzip", "chunks": (n,)}


def test_vectors_of_many_entries_are_not_read(refuse, bounded):
    for name in ("source_counts", "source_prior"):
        make(**{name: compressed(1, 1 << 22, "u1")})
        assert f"x.h5:{name}: shape (4194304,); expected (3,)" in refuse(DATA, "info", "x.h5")
    make(class_names=compressed(b"a", 1 << 20, "S1"))
    assert "expected (3,): one name per class" in refuse(DATA, "info", "x.h5")


def test_a_text_attribute_of_a_gigabyte(refuse, bounded):
    make()
    with h5py.File("x.h5", "a") as file:
        file.attrs["note"] = "x" * (1 << 17)
    data = bytearray(pathlib.Path("x.h5").read_bytes())
    at = data.index(b"GCOL")
    data[at + 8 : at + 16] = (1 << 30).to_bytes(8, "little")
    with open("x.h5", "wb") as file:
        file.write(data)
        file.truncate(at + (1 << 30))
    assert "text of 1,073,741,824 bytes in one piece" in refuse(DATA, "info", "x.h5")


def test_too_many_classes(refuse, bounded):
    with h5py.File("many.h5", "w") as file:
        file["predictions"], file["labels"] = LABELS.astype("u4"), LABELS.astype("u4")
        file["predictions"].attrs["n_classes"] = 1 << 30
    for command in ("evaluate", "info", "prior"):
        assert "1,073,741,824 classes (K); expected at most 1,048,576" in refuse(DATA, command, "many.h5")
    table = pa.table({"predictions": LABELS.astype("u4")}).replace_schema_metadata({"unoic.n_classes": str(1 << 30)})
    pq.write_table(table, "many.parquet")
    assert "1,073,741,824 classes" in refuse(DATA, "info", "many.parquet")
    claim("wide.h5", "logits", h5py.h5t.IEEE_F32LE, (1, 1 << 28))
    assert "268,435,456 classes (K)" in refuse(DATA, "info", "wide.h5")


def deflated(size):
    """So many zeros, deflated piece by piece."""
    engine = zlib.compressobj(9)
    piece = bytes(1 << 20)
    return b"".join([*(engine.compress(piece) for _ in range(size >> 20)), engine.flush()])


@pytest.fixture(scope="session")
def bomb():
    return deflated(1 << 29)


@pytest.mark.parametrize("name", ["logits", "labels", "source_counts"])
@pytest.mark.parametrize("rows", [2000, N])
def test_a_chunk_that_inflates_to_more_than_it_holds(refuse, bounded, bomb, name, rows):
    arrays = {"logits": np.resize(LOGITS, (rows, K)), "labels": np.resize(LABELS, rows), "source_counts": np.ones(K)}
    values = arrays[name]
    make(**{**arrays, name: {"data": values, "chunks": values.shape, "compression": "gzip"}})
    with h5py.File("x.h5", "a") as file:
        file[name].id.write_direct_chunk((0,) * values.ndim, bomb)
    assert refuse(DATA, "evaluate", "x.h5", "-l", "1").startswith(f"x.h5:{name}: ")


def test_a_chunk_far_larger_than_the_data(refuse, bounded):
    values = {"shape": (N,), "maxshape": (None,), "chunks": (1 << 28,), "dtype": "i1", "compression": "gzip"}
    make(labels=values)
    with h5py.File("x.h5", "a") as file:
        file["labels"].id.write_direct_chunk((0,), deflated(1 << 28))
    assert "a chunk of 268,435,456 bytes for 12 bytes of data" in refuse(DATA, "evaluate", "x.h5")


def test_a_dictionary_of_long_texts(refuse, bounded):
    names = pa.DictionaryArray.from_arrays(pa.array(np.arange(50)), pa.array(["x" * (1 << 20)] * 50))
    rows = np.resize(LOGITS, (50, K))
    table = pa.table({"logits": list(rows), "labels": np.resize(LABELS, 50), "group": names})
    pq.write_table(table, "x.parquet", compression="zstd", dictionary_pagesize_limit=1 << 30)
    assert "row group 0" in refuse(DATA, "evaluate", "x.parquet", "--by", "group")
    pq.write_table(table.append_column("other", pa.array(range(50))), "x.parquet", compression="zstd")
    assert "a text of 1,048,576 bytes" in refuse(DATA, "evaluate", "x.parquet", "--by", "group")


def test_arrays_in_an_npz_that_inflate(refuse, bounded, bomb):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 29,)})
    for name in ("source_counts", "class_names"):
        with zipfile.ZipFile("x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for key, values in (("logits", LOGITS), ("labels", LABELS)):
                with archive.open(f"{key}.npy", "w") as file:
                    np.lib.format.write_array(file, values)
            with archive.open(f"{name}.npy", "w") as file:
                file.write(header.getvalue())
                for _ in range(64):
                    file.write(bytes(1 << 20))
        assert f"x.npz:{name}: " in refuse(DATA, "convert", "x.npz", "o.h5")


def test_an_npz_of_many_members(refuse):
    with zipfile.ZipFile("x.npz", "w") as archive:
        one = io.BytesIO()
        np.save(one, np.zeros(3, "f4"))
        for i in range(3000):
            archive.writestr(f"m{i}.npy", one.getvalue())
    assert "no scores among" in refuse(DATA, "convert", "x.npz", "o.h5")


def resealed(path, change):
    """A state with another header, and the checksum of that."""
    data = pathlib.Path(path).read_bytes()
    start = data.index(b"\n") + 1
    size = int.from_bytes(data[start : start + 8], "little")
    header, arrays = json.loads(data[start + 8 : start + 8 + size]), data[start + 8 + size : -32]
    arrays = change(header, arrays)
    text = json.dumps(header).encode()
    content = data[:start] + len(text).to_bytes(8, "little") + text + arrays
    pathlib.Path("bad.unoic").write_bytes(content + hashlib.blake2b(content, digest_size=32).digest())


def first_array(value):
    if isinstance(value, dict) and "array" in value:
        return value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(first_array, items)), None)


@pytest.mark.parametrize("shape", [[1 << 40], [1 << 28], [-1, 1 << 61], [1] * 70])
def test_arrays_of_a_state_beyond_measure(run, refuse, bounded, bomb, shape):
    make()
    assert run("evaluate", "x.h5", "--state", "s.unoic")[0] == 0

    def change(header, arrays):
        entry = first_array(header["passes"])
        rest = arrays[entry["array"] :]
        entry.update(shape=shape, array=len(bomb))
        return bomb + rest

    resealed("s.unoic", change)
    for line in (("report", "bad.unoic"), ("merge", "bad.unoic", "-o", "all.unoic")):
        assert "make no sense" in refuse(DATA, *line)


def test_lists_of_a_million_lines(refuse, monkeypatch):
    make()
    monkeypatch.setattr(inputs, "MOST_NAMES", 500)
    pathlib.Path("files.txt").write_text("x.h5\n" * 501)
    assert "files.txt: more than 500 inputs" in refuse(DATA, "evaluate", "@files.txt")
    pathlib.Path("files.txt").write_text("x.h5\n" * 500)
    monkeypatch.setattr("unoic_cli.formats.describe", None)  # no file is opened
    assert "the same data as x.h5" in refuse(USAGE, "evaluate", "@files.txt")


# ------------------------------------------------------------------------------------------------
# waits without end


OTHERS = ["evaluate {}", "info {}", "evaluate x.h5 -l 1 --source-prior {}", "convert x.npy o.h5 --labels {}"]


@pytest.mark.parametrize("line", [*SMALL_FILES, *OTHERS])
def test_devices_and_pipes_are_not_waited_for(run, line):
    make()
    np.save("x.npy", np.zeros((4, 3), "f4"))
    os.mkfifo("pipe")
    for name in ("pipe", "/dev/zero", "/dev/random", "/proc/kmsg"):
        code, out, err = run(*line.format(name).split())
        lines = [text for text in err.splitlines() if not text.startswith(BESIDE)]
        assert (code in (DATA, NO_INPUT), out, len(lines)) == (True, "", 1), (name, err)
    assert not pathlib.Path("o.h5").exists()


def test_what_the_shell_hands_over_is_read(run):
    make()
    read, write = os.pipe()
    os.write(write, b"[5, 3, 1]")
    os.close(write)
    code, _, err = run("evaluate", "x.h5", "-l", "1", "--source-prior", f"/dev/fd/{read}")
    os.close(read)
    assert code == 0, err
    with pytest.raises(errors.NoInputError, match="a device or a pipe"):
        whole.read_whole("/dev/null", "expected a prior")


def damaged_heap(path="x.h5"):
    """A heap of text with a free object of no size, over which libhdf5 would loop for ever."""
    data = bytearray(pathlib.Path(path).read_bytes())
    for found in re.finditer(b"GCOL", bytes(data)):
        at = found.start() + 16
        data[at : at + 2], data[at + 8 : at + 16] = bytes(2), bytes(8)
    pathlib.Path(path).write_bytes(data)


def test_places_beyond_any_file(tmp_path):
    make()
    with open("x.h5", "rb", buffering=0) as file:
        watched = WatchedFile("x.h5", file)
        watched.seek(1 << 63)
        buffer = bytearray(b"abcd")
        assert (watched.readinto(buffer), buffer) == (0, bytes(4))
        watched.seek(0)
        with pytest.raises(errors.DataError, match="bytes of metadata in one piece"):
            watched.readinto(bytearray((64 << 20) + 1))


def test_rows_that_a_file_does_not_have(monkeypatch):
    pq.write_table(pa.table({"logits": list(LOGITS), "labels": LABELS}), "x.parquet")
    source = formats.describe("x.parquet")
    reader = formats.open_reader(source)
    monkeypatch.setattr(formats, "open_reader", lambda _: reader)
    monkeypatch.setattr(reader, "_batches", lambda *_: iter(()))
    with pytest.raises(errors.DataError, match="rows 0 to 11 are missing"):
        formats.first_block(source, N, frozenset({"scores"}))
    monkeypatch.setattr(reader, "blocks", lambda *_: iter(()))
    with pytest.raises(errors.DataError, match="no row where the file tells of some"):
        formats.first_block(source, 1, frozenset({"scores"}))


@pytest.mark.parametrize("name", ["class_names", "split", "group", "sample_id", "attribute"])
def test_a_damaged_heap_of_text_ends(refuse, name):
    make()
    with h5py.File("x.h5", "a") as file:
        if name == "attribute":
            file.attrs["note"] = "text"
        else:
            file.create_dataset(name, data=["a"] * (K if name == "class_names" else N), dtype=h5py.string_dtype())
    damaged_heap()
    line = ("convert", "x.h5", "o.h5") if name == "sample_id" else ("info", "x.h5")
    assert "a damaged heap of text" in refuse(DATA, *line)


# ------------------------------------------------------------------------------------------------
# code


def test_a_kernel_cache_of_others_is_not_used(tmp_path):
    safe = tmp_path / "a" / "b"
    assert jit.why_unsafe(safe) is None
    jit._make_own(safe)
    assert [path.stat().st_mode & 0o777 for path in (safe, safe.parent)] == [0o700, 0o700]
    safe.chmod(0o770)
    assert "others may write to" in jit.why_unsafe(safe)
    safe.chmod(0o1777)
    assert "others may write to" in jit.why_unsafe(safe)  # sticky is enough for what leads there only
    safe.chmod(0o700)
    safe.parent.chmod(0o777)
    assert "others may write to" in jit.why_unsafe(safe)
    safe.parent.chmod(0o1777)
    assert jit.why_unsafe(safe) is None
    os.symlink(safe, tmp_path / "link")
    assert jit.why_unsafe(tmp_path / "link") is None
    safe.parent.chmod(0o777)
    assert "others may write to" in jit.why_unsafe(tmp_path / "link")
    safe.parent.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(safe, 12345, -1)
        assert "another user" in jit.why_unsafe(safe)


def test_a_cached_kernel_is_a_file_of_ours(tmp_path):
    path = tmp_path / "kernel.bin"
    path.write_bytes(b"code")
    assert jit._own_content(path) == b"code"
    os.symlink(path, tmp_path / "link.bin")
    with pytest.raises(OSError, match="symbolic"):
        jit._own_content(tmp_path / "link.bin")
    path.chmod(0o664)
    with pytest.raises(PermissionError):
        jit._own_content(path)


class _Harm:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("harm"),)


@pytest.mark.skipif(jit.JIT_DISABLED, reason="nothing is compiled")
def test_code_in_a_cache_of_others_is_not_run(tmp_path):
    cache = tmp_path / "cache"
    script = (
        "import numpy as np; from unoic_cli.kernels import jit, octets;"
        "octets.fletcher32(np.zeros(4, 'u1')); print(jit.refusal)"
    )
    environment = {**os.environ, "UNOIC_CACHE_DIR": str(cache), "UNOIC_KERNELS": "compiled"}

    def ask():
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    assert ask() == "None\n"
    payload = pickle.dumps(_Harm())
    files = list(cache.rglob("*.bin"))
    assert files
    for path in files:
        path.write_bytes(hashlib.sha256(payload).digest() + payload)
    cache.chmod(0o777)
    assert f"others may write to {cache}" in ask()
    assert not pathlib.Path("harm").exists()


# ------------------------------------------------------------------------------------------------
# words


def obeyed(text):
    """Characters that a terminal would not print but do something about."""
    return [c for c in text if not c.isprintable() and c not in "\n\t"]


def test_names_in_files_reach_no_terminal_as_they_are(run):
    make()
    with h5py.File("x.h5", "a") as file:
        for name in ("split", "group"):
            file.create_dataset(name, data=[NASTY] * N, dtype=h5py.string_dtype())
        file.attrs["note"] = NASTY
        file.attrs[NASTY] = "key"
    for form in ("table", "json", "tsv"):
        for line in (["info", "x.h5"], ["evaluate", "x.h5", "--by", "group"]):
            code, out, err = run(*line, "--format", form)
            assert code == 0, err
            assert not obeyed(out + err)
            assert "[2Jb" in out
    for form in ("table", "json", "tsv", "markdown", "latex"):
        code, out, err = run("compare", "x.h5", "--by", "group", "--method", "none", "--format", form)
        assert not obeyed(out + err)


def test_the_origin_of_a_prior_is_printed_only(run, answer):
    make()
    answer("search-lambda", "x.h5", "-o", "c.json")
    content = json.loads(pathlib.Path("c.json").read_text())
    content["modalities"][0]["source_prior"]["origin"] = NASTY
    pathlib.Path("c.json").write_text(json.dumps(content))
    for form in ("table", "json", "tsv"):
        code, out, err = run("calibrate", "x.h5", "-c", "c.json", "-o", "o.h5", "--force", "--format", form)
        assert code == 0, err
        assert not obeyed(out + err)


def test_messages_are_printable_and_short(refuse):
    make(split=np.array([b"\xff\x1b[2J"] * N))
    line = refuse(DATA, "evaluate", "x.h5", "--split", "a")
    assert not obeyed(line)
    pathlib.Path("c.json").write_text(json.dumps({"format": "unoic calibration", "version": "x" * 10**6}))
    assert len(refuse(DATA, "evaluate", "x.h5", "-c", "c.json")) < 4100
    pathlib.Path("files.txt").write_text("y" * 10**6)
    assert len(refuse(NO_INPUT, "evaluate", "@files.txt")) < 4100
    line = refuse(NO_INPUT, "evaluate", "a\x9b\x7f\u202eb.h5")
    assert not obeyed(line)


@pytest.mark.parametrize(("line", "code"), [("evaluate x.h5 2>/dev/full", 0), ("evaluate y.h5 2>/dev/full", NO_INPUT)])
def test_a_full_stderr_changes_no_exit_code(line, code):
    make()
    shown = subprocess.run(f"{forked.command()} {line}", shell=True, stdout=subprocess.PIPE, text=True, check=False)
    assert (shown.returncode, bool(shown.stdout)) == (code, code == 0)


def test_a_full_stdout_is_an_error_of_storage():
    make()
    shown = subprocess.run(
        f"{forked.command()} info x.h5 >/dev/full",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (shown.returncode, shown.stderr.count("\n")) == (STORAGE, 1)


def test_a_signalling_nan_brings_no_warning(refuse):
    scores = LOGITS.copy()
    scores.view("u4")[5, 1] = 0x7FA00000
    make(logits=scores)
    for line in (["evaluate", "x.h5"], ["calibrate", "x.h5", "-l", "1", "-o", "o.h5"], ["fit-delta", "x.h5"]):
        assert "x.h5:logits" in refuse(DATA, *line)


# ------------------------------------------------------------------------------------------------
# headers


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1" + "0" * 4000 + ",), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': " + "(" * 3000,
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }",
        "{'descr': '<f8', 'fortran_order': 1, 'shape': (12,), }",
        "{'descr': '<f8', 'shape': (12,), }",
        "{'descr': None, 'fortran_order': False, 'shape': (12,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-12,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': '\\x1b', }",
        '"""',
        "[" * 60_000,
    ],
)
def test_headers_of_npy_files(refuse, header):
    make()
    text = header.encode() + b"\n"
    data = b"\x93NUMPY\x02\0" + len(text).to_bytes(4, "little") + text + bytes(96)
    pathlib.Path("d.npy").write_bytes(data)
    assert len(refuse(DATA, "evaluate", "x.h5", "-l", "1", "--delta", "d.npy")) < 1000
    refuse(DATA, "convert", "d.npy", "o.h5")


def test_headers_that_others_write(answer):
    make()
    for text in (
        "{'descr': '<f8', 'fortran_order': False, 'shape': (12L,), }",
        "{'shape': (12,), 'fortran_order': False, 'descr': '<f8'}   \n",
        '{"descr": "<f8", "fortran_order": False, "shape": (12,)}\n',
    ):
        data = b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode() + np.ones(12).tobytes()
        pathlib.Path("d.npy").write_bytes(data)
        assert answer("evaluate", "x.h5", "-l", "1", "--source-prior", "5,3,1", "--delta", "d.npy")["n"] == N


# ------------------------------------------------------------------------------------------------
# mutants


def test_some_mutants(tmp_path):
    codes, faults = fuzz.fuzz(300, 3, tmp_path / "kept", most=60, limit=100)
    assert not faults
    assert sum(codes.values()) == 60


def test_lengths_that_no_text_has(refuse):
    with h5py.File("x.h5", "w") as file:
        file["logits"], file["labels"] = np.zeros((4, 3), "f4"), np.zeros(4, int)
        texts = file.create_dataset("group", (4,), h5py.string_dtype())
        texts[:] = ["a", "b", "a", "b"]
        at = texts.id.get_offset()
    with open("x.h5", "r+b") as file:
        file.seek(at + 16)
        file.write((3 << 30).to_bytes(4, "little"))
    assert "x.h5:group: a text of 3,221,225,472 bytes" in refuse(DATA, "evaluate", "x.h5", "--by", "group")


@pytest.mark.parametrize("values", [pa.array(["a", "b"]), pa.array([5, 6])])
@pytest.mark.parametrize("code", [2, -1])
def test_entries_that_a_dictionary_lacks(values, code):
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, code], pa.int8()), values, safe=False)
    with pytest.raises(errors.DataError, match="x:group: an entry that its dictionary lacks"):
        columns._check_codes("x:group", array)
    columns._check_codes("x:group", array.slice(0, 2))


def test_types_of_npy_files_that_no_array_has(refuse):
    make()
    np.save("d.npy", np.ones(12))
    content = pathlib.Path("d.npy").read_bytes()
    for word in (b",f8", b"f8,", b"<f\xff", b"(9,"):
        pathlib.Path("d.npy").write_bytes(content.replace(b"<f8", word))
        assert "d.npy" in refuse(DATA, "evaluate", "x.h5", "--lambda", "1", "--delta", "d.npy")
