"""Shards, state files, merges, checkpoints and Dask: a run gives the same bytes however it was cut or interrupted."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import forked
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from said import BESIDE_BYTES, without_notes

from unoic_cli import cli
from unoic_cli.runs import ledger, state
from unoic_cli.runs import threads as engine

USAGE, DATA, NO_INPUT, CANNOT_CREATE, INTERRUPTED = 2, 65, 66, 73, 75
K = 4
COUNTS = [50, 20, 8, 2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 96)
    monkeypatch.setattr("unoic_cli.data.dataset.WHOLE_BYTES", 4096)
    return tmp_path


@pytest.fixture
def unoic(capfdbinary):
    def runner(*args, code=0):
        got = cli.run([str(arg) for arg in args])
        out, err = capfdbinary.readouterr()
        assert got == code, err
        if code:
            lines = [line for line in err.splitlines() if not line.startswith(BESIDE_BYTES)]
            assert (out, len(lines)) == (b"", 1), err
            return lines[0].decode().removeprefix("unoic: error: ")
        return out

    return runner


def scores(rng, n, shape=()):
    labels = rng.choice(K, size=(n, *shape), p=np.array(COUNTS) / sum(COUNTS))
    z = rng.normal(size=(n, *shape, K)) * 1.5 + 2 * np.eye(K)[labels] + np.log(COUNTS)
    return z.astype("f2"), labels


def rows(path, n=37, seed=0, chunks=None, **more):
    z, y = scores(np.random.default_rng(seed), n)
    if str(path).endswith(".parquet"):
        table = pa.table({"logits": pa.FixedSizeListArray.from_arrays(z.ravel().astype("f4"), K), "labels": y})
        pq.write_table(table, path, row_group_size=5)
        return path
    with h5py.File(path, "w") as file:
        file.create_dataset("logits", data=z, chunks=chunks, compression=None if chunks is None else "gzip")
        file["labels"] = y
        for name, values in more.items():
            file[name] = values
    return path


def images(path, n=7, size=(3, 5), seed=0, shift=0.0, **more):
    z, y = scores(np.random.default_rng(seed), n, size)
    with h5py.File(path, "w") as file:
        file["logits"] = np.moveaxis(z, -1, 1) + np.random.default_rng(seed + 1).normal(size=(n, K, *size)) * shift
        file["logits"].attrs["class_axis"] = 1
        file["labels"] = y
        for name, values in more.items():
            file[name] = values
    return path


def groups(n):
    """Names that do not appear in their order."""
    return np.array([f"g{(7 - i) % 3}" for i in range(n)], "S")


def inputs():
    rows("a.h5", 23, 1, source_counts=COUNTS)
    rows("b.h5", 14, 2, chunks=(4, 3))
    rows("c.parquet", 17, 3)
    images("rgb.h5", 7, seed=4, group=groups(7))
    images("depth.h5", 7, seed=4, shift=1.0)


COMMANDS = [
    ("evaluate", "a.h5", "b.h5", "--confusion", "--by", "file"),
    ("evaluate", "rgb.h5", "--by", "group", "-l", "1"),
    ("evaluate", "rgb.h5", "--by", "image", "-l", "0.7", "--cluster", "group", "--metrics", "miou,gmean,ece"),
    ("evaluate", "c.parquet", "a.h5", "-l", "0.5", "--source-prior", "labels"),
    ("evaluate", "rgb=rgb.h5", "depth=depth.h5", "-l", "rgb=0.5,depth=1", "--fusion", "average"),
    ("prior", "a.h5", "c.parquet"),
    ("search-lambda", "a.h5", "b.h5", "--range", "0:2", "--folds", "3"),
    ("search-lambda", "rgb.h5", "--range", "0:1", "--folds", "2", "--by-default"),
    ("search-lambda", "b.h5", "--metric", "top2", "--range", "0:1"),
    ("search-lambda", "c.parquet", "--method", "grid", "--range", "0:1:0.1"),
    ("search-lambda", "rgb=rgb.h5", "depth=depth.h5", "--range", "0:1:0.25"),
    ("compare", "rgb=rgb.h5", "depth=depth.h5", "--by", "group"),
    ("fit-delta", "rgb.h5"),
    ("fit-delta", "a.h5", "c.parquet", "--modality", "x"),
]  # fmt: skip
COMMANDS = [tuple(word for word in command if word != "--by-default") for command in COMMANDS]


def names(args):
    return " ".join(args)


@pytest.mark.parametrize("command", COMMANDS, ids=names)
@pytest.mark.parametrize("n", [1, 3, 8])
def test_shards_merge_to_the_same_bytes(unoic, command, n):
    inputs()
    whole = unoic(*command)
    parts = []
    for i in range(1, n + 1):
        shown = json.loads(unoic(*command, "--shard", f"{i}/{n}", "--state", f"s{i}.unoic", "--threads", 1 + i % 2))
        assert shown["shard"] == f"{i}/{n}"
        parts.append(f"s{i}.unoic")
    random.Random(n).shuffle(parts)
    for name in ("a.h5", "b.h5", "c.parquet", "rgb.h5", "depth.h5"):  # a report needs no data
        os.rename(name, name + ".away")
    assert unoic("report", *parts) == whole
    assert unoic("merge", *parts) == whole
    half = len(parts) // 2
    if half:
        unoic("merge", *parts[:half], "-o", "low.unoic", "--partial")
        unoic("merge", "low.unoic", *parts[half:], "-o", "all.unoic")
        assert unoic("report", "all.unoic") == whole
        other = list(reversed(parts))
        unoic("merge", *other, "-o", "other.unoic")
        assert pathlib.Path("other.unoic").read_bytes() == pathlib.Path("all.unoic").read_bytes()


def test_the_state_of_a_whole_run_comes_beside_its_result(unoic):
    inputs()
    whole = unoic("evaluate", "a.h5")
    assert unoic("evaluate", "a.h5", "--state", "s.unoic") == whole
    assert unoic("report", "s.unoic") == whole
    assert unoic("evaluate", "a.h5", "--state", "s.unoic", code=CANNOT_CREATE).startswith("s.unoic: the file exists")
    unoic("evaluate", "a.h5", "--state", "s.unoic", "--force")


def test_reports_write_what_the_command_writes(unoic):
    inputs()
    whole = unoic("search-lambda", "a.h5", "--range", "0:2", "-o", "c.json", "--curve", "c.tsv")
    for i in (1, 2):
        unoic("search-lambda", "a.h5", "--range", "0:2", "--shard", f"{i}/2", "--state", f"s{i}.unoic", "-q")
    assert unoic("report", "s1.unoic", "s2.unoic", "-o", "d.json", "--curve", "d.tsv") == whole
    assert pathlib.Path("c.json").read_bytes() == pathlib.Path("d.json").read_bytes()
    assert pathlib.Path("c.tsv").read_bytes() == pathlib.Path("d.tsv").read_bytes()
    assert "--output" in unoic(
        "search-lambda", "a.h5", "--shard", "1/2", "--state", "x.unoic", "-o", "x.json", code=USAGE
    )
    unoic("evaluate", "a.h5", "--state", "e.unoic")
    assert unoic("report", "e.unoic", "-o", "x.json", code=USAGE).startswith(
        "--output: --output of a state of evaluate"
    )
    assert b"23 labelled" in unoic("report", "e.unoic", "--format", "table")


SEVERAL_PASSES = [
    ("search-lambda", "rgb=rgb.h5", "depth=depth.h5", "--per-modality", "--range", "0:1:0.25"),
    ("search-lambda", "grow.h5", "--source-prior", "5,4,3,3"),
    ("search-lambda", "a.h5", "--method", "paper"),
    ("fit-temperature", "a.h5"),
    ("evaluate", "rgb=rgb.h5", "depth=depth.h5", "--delta", "fit", "-l", "0.5"),
    ("evaluate", "c.parquet", "-l", "1", "--source-prior", "mean-posterior"),
]  # fmt: skip


@pytest.mark.parametrize("command", SEVERAL_PASSES, ids=names)
def test_shards_of_several_passes(unoic, capfdbinary, command):
    inputs()
    rows("grow.h5", 40, 9)
    whole = unoic(*command)
    after, rounds = [], 0
    while True:
        rounds += 1
        parts = [f"s{rounds}.{i}.unoic" for i in (1, 2)]
        for i, part in enumerate(parts, 1):
            unoic(*command, "--shard", f"{i}/2", "--state", part, *after)
        unoic("merge", *parts, "-o", f"all{rounds}.unoic")
        code = cli.run(["report", f"all{rounds}.unoic"])
        out, err = capfdbinary.readouterr()
        if code == 0:
            break
        assert (code, out) == (DATA, b"")
        assert f"--after all{rounds}.unoic" in err.decode()
        after = ["--after", f"all{rounds}.unoic"]
        assert rounds < 40
    assert out == whole


def test_a_partial_report_says_what_is_missing(unoic):
    inputs()
    unoic("evaluate", "a.h5", "--shard", "2/3", "--state", "s2.unoic")
    message = unoic("report", "s2.unoic", code=DATA)
    assert "15 of 23 rows (0 to 6, 15 to 22)" in message
    assert "--partial" in message
    shown = json.loads(unoic("report", "s2.unoic", "--partial"))
    assert shown["n"] == 8
    assert any("15 to 22" in note for note in shown["notes"])
    unoic("merge", "s2.unoic", "-o", "m.unoic", "--partial")
    assert "15 of 23" in unoic("report", "m.unoic", code=DATA)


def test_what_does_not_belong_together_is_refused(unoic):
    inputs()

    def part(name, *args):
        unoic("evaluate", *args, "--state", name, "--force")
        return name

    first = part("1.unoic", "a.h5", "--shard", "1/2")
    assert "rows 0 to 10, which 1.unoic has counted, too" in unoic("merge", first, first, code=DATA)
    wide = part("w.unoic", "a.h5", "--shard", "1/1")
    assert "rows 0 to 10" in unoic("merge", first, wide, code=DATA)
    other = part("2.unoic", "a.h5", "--shard", "2/2", "-l", "1")
    assert "another configuration: lam is" in unoic("merge", first, other, code=DATA)
    other = part("2.unoic", "b.h5", "--shard", "2/2")
    assert "another configuration: inputs is" in unoic("merge", first, other, code=DATA)
    unoic("prior", "a.h5", "--shard", "2/2", "--state", "p.unoic")
    assert "a state of prior; expected evaluate" in unoic("merge", first, "p.unoic", code=DATA)
    with h5py.File("a.h5", "r+") as file:
        file["logits"][20] = 0
    other = part("2.unoic", "a.h5", "--shard", "2/2")
    assert "counted from another input a.h5" in unoic("merge", first, other, code=DATA)
    assert unoic("merge", "a.h5", code=DATA).startswith("a.h5: a file of another kind")
    assert unoic("merge", "nothing.unoic", code=NO_INPUT).startswith("nothing.unoic: no such file")


def test_a_copy_of_the_input_is_the_same_input(unoic, capfdbinary):
    inputs()
    whole = unoic("evaluate", "a.h5")
    unoic("evaluate", "a.h5", "--shard", "1/2", "--state", "1.unoic")
    shutil.copy("a.h5", "copy.h5")
    os.replace("copy.h5", "a.h5")
    unoic("evaluate", "a.h5", "--shard", "2/2", "--state", "2.unoic")
    assert unoic("merge", "1.unoic", "2.unoic") == whole
    assert cli.run(["merge", "[12].unoic", "-o", "all.unoic"]) == 0
    assert b"unoic: note: a.h5 was written at different times for different shards" in capfdbinary.readouterr().err


def test_another_version_is_refused(unoic, monkeypatch):
    inputs()
    with monkeypatch.context() as patch:
        patch.setattr("unoic_cli.runs.state.__version__", "0.0.9")
        unoic("evaluate", "a.h5", "--state", "old.unoic")
    assert "a state of unoic 0.0.9" in unoic("report", "old.unoic", code=DATA)


def test_damaged_states_are_refused(unoic):
    inputs()
    unoic("search-lambda", "a.h5", "--range", "0:1", "--state", "s.unoic")
    content = pathlib.Path("s.unoic").read_bytes()
    rng = random.Random(0)
    for _ in range(60):
        broken = bytearray(content)
        place = rng.randrange(len(content))
        broken[place] ^= 1 << rng.randrange(8)
        pathlib.Path("t.unoic").write_bytes(broken)
        assert unoic("report", "t.unoic", code=DATA).startswith("t.unoic: ")
    for size in (0, 3, 14, 20, len(content) // 2, len(content) - 1):
        pathlib.Path("t.unoic").write_bytes(content[:size])
        assert unoic("merge", "t.unoic", "-o", "u.unoic", code=DATA).startswith("t.unoic: ")
    pathlib.Path("t.unoic").write_bytes(content + b"x")
    unoic("report", "t.unoic", code=DATA)
    assert not os.path.exists("u.unoic")


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (["--shard", "0/2", "--state", "s"], "--shard"),
        (["--shard", "3/2", "--state", "s"], "--shard"),
        (["--shard", "x", "--state", "s"], "--shard"),
        (["--shard", "auto", "--state", "s"], "--shard"),
        (["--shard", "1/2"], "--shard"),
        (["--after", "s"], "--after"),
        (["--every", "5s"], "--every"),
        (["--resume"], "--resume"),
        (["--checkpoint", "c", "--every", "never"], "--every"),
        (["--checkpoint", "c", "--every", "0"], "--every"),
        (["--engine", "spark"], "--engine"),
        (["--workers", "2"], "--workers"),
        (["--engine", "dask", "--scheduler", "a", "--workers", "2"], "--engine"),
        (["--engine", "dask", "--threads", "2"], "--threads"),
        (["--force"], "--force"),
        (["--memory", "much"], "--memory"),
        (["--memory", "1kB"], "--memory"),
    ],
    ids=names,
)
def test_options_without_sense(unoic, args, where, monkeypatch):
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    inputs()
    assert unoic("evaluate", "a.h5", *args, code=USAGE).startswith(f"{where}: ")
    assert not {"s", "c"} & set(os.listdir())


def test_slurm_arrays(unoic, monkeypatch):
    inputs()
    whole = unoic("evaluate", "a.h5")
    for task in (4, 7, 10):
        for name, value in {"ID": task, "MIN": 4, "MAX": 10, "COUNT": 3, "STEP": 3}.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        unoic("evaluate", "a.h5", "--shard", "auto", "--state", f"{task}.unoic")
    assert unoic("merge", "4.unoic", "7.unoic", "10.unoic") == whole


def test_bounded_buffers_change_nothing(unoic, monkeypatch):
    inputs()
    monkeypatch.setattr("unoic_cli.resolve.common._LEAST", 8)
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 1 << 20)
    for command in (COMMANDS[0], COMMANDS[3], COMMANDS[5]):
        assert unoic(*command, "--memory", "200B") == unoic(*command)


CODECS = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "gzip": {"compression": "gzip"},
    "gzip + shuffle": {"compression": "gzip", "shuffle": True},
    "gzip + shuffle + fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
}


WHOLE = {}
"""By shape: what a run says that is not cut."""


@pytest.mark.parametrize("shape", [(), (3, 5)])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_way_of_cutting_gives_the_same_bytes(unoic, monkeypatch, shape, data):
    """Threads, shards, layouts, chunks, codecs and spans."""
    n = 31 if not shape else 6
    z, y = scores(np.random.default_rng(0), n, shape)
    monkeypatch.setattr("unoic_cli.formats.chunks.SMALLEST", 1)
    command = ["search-lambda", "x.h5", "--range", "0:1", "--folds", "2"]

    def make(class_axis, chunks, more):
        with h5py.File("x.h5", "w") as file:
            values = z if class_axis == -1 else np.moveaxis(z, -1, 1)
            file.create_dataset("logits", data=values, **(more if chunks is None else {**more, "chunks": chunks}))
            file["logits"].attrs["class_axis"] = 1 if class_axis == 1 else len(shape) + 1
            file.create_dataset("labels", data=y, **more)
            file["source_counts"] = COUNTS

    if shape not in WHOLE:
        make(-1, None, {})
        WHOLE[shape] = unoic(*command, "--threads", 1)
    more = CODECS[data.draw(st.sampled_from(sorted(CODECS)), label="codec")]
    axis = data.draw(st.sampled_from([1, -1]), label="class axis")
    extents = z.shape if axis == -1 else np.moveaxis(z, -1, 1).shape
    chunks = tuple(data.draw(st.integers(1, extent)) for extent in extents) if more else None
    make(axis, chunks, more)
    if data.draw(st.booleans(), label="zstd"):
        unoic("pack", "x.h5", "y.h5", "--codec", "zstd", "--chunk", "4K", "--force", "-q")
        os.replace("y.h5", "x.h5")
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", data.draw(st.integers(1, 400), label="span"))
    n_shards = data.draw(st.integers(1, 4), label="shards")
    for i in range(n_shards):
        threads = data.draw(st.integers(1, 3), label="threads")
        shard = ["--shard", f"{i + 1}/{n_shards}", "--state", f"{i}.unoic", "--force"]
        unoic(*command, *shard, "--threads", threads)
    order = data.draw(st.permutations(range(n_shards)), label="order")
    assert unoic("merge", *(f"{i}.unoic" for i in order)) == WHOLE[shape]


# ---------------------------------------------------------------------------------------------- files in parts


@pytest.mark.parametrize("suffix", ["h5", "parquet"])
@pytest.mark.parametrize("n", [1, 3])
def test_parts_of_calibrated_files_are_the_whole(unoic, suffix, n):
    inputs()
    for command in (("calibrate", "a.h5", "b.h5"), ("calibrate", "rgb.h5"), ("fuse", "rgb=rgb.h5", "depth=depth.h5")):
        for path in pathlib.Path().glob(f"o*.{suffix}"):
            path.unlink()
        args = ["-l", "0.7", "--source-prior", "5,2,1,1"]
        unoic(*command, *args, "-o", f"o.{suffix}")
        parts = []
        for i in range(1, n + 1):
            unoic(*command, *args, "-o", f"o.{suffix}", "--shard", f"{i}/{n}")
            parts.append(f"o.{i:04}-of-{n:04}.{suffix}")
        whole, joined = json.loads(unoic("evaluate", f"o.{suffix}")), json.loads(unoic("evaluate", *parts))
        assert whole.pop("files") != joined.pop("files")
        assert whole == joined
        if suffix == "h5":
            values = [h5py.File(part)["log_probs"][...] for part in parts]
            assert np.array_equal(np.concatenate(values), h5py.File("o.h5")["log_probs"][...])


def test_parts_need_a_calibration(unoic):
    inputs()
    assert unoic("calibrate", "a.h5", "-o", "o.h5", "--shard", "1/2", code=USAGE).startswith("--shard: neither")
    message = unoic("calibrate", "a.h5", "-o", "o.h5", "--shard", "1/2", "-l", "1", "--delta", "fit", code=USAGE)
    assert message.startswith("--shard: a pass over all")
    message = unoic("calibrate", "a.h5", "-o", "o.h5", "--shard", "40/50", "-l", "1", code=0) and ""
    assert unoic("calibrate", "a.h5", "-o", "p.h5", "--shard", "1/50", "-l", "1", code=USAGE).startswith("--shard: no")
    assert not os.path.exists("o.h5")


# ---------------------------------------------------------------------------------------------- interruptions


KEPT = [
    ("search-lambda", "a.h5", "b.h5", "--range", "0:1", "--folds", "3"),
    ("search-lambda", "rgb=rgb.h5", "depth=depth.h5", "--per-modality", "--range", "0:1:0.5"),
    ("fit-delta", "rgb.h5"),
    ("fit-temperature", "a.h5"),
    ("evaluate", "rgb=rgb.h5", "depth=depth.h5", "--delta", "fit", "-l", "0.5"),
    ("calibrate", "a.h5", "b.h5", "-o", "o.h5"),
    ("calibrate", "rgb.h5", "-o", "o.h5", "-l", "1", "--source-prior", "4,3,2,1"),
    ("fuse", "rgb=rgb.h5", "depth=depth.h5", "-o", "o.h5"),
]  # fmt: skip


@pytest.fixture
def strike(monkeypatch):
    """Let a run be interrupted by a real signal after some spans; calls set after how many."""
    left = [10**9]
    begin = engine._Seat.__init__

    def struck(seat, queue, worker):
        run = worker.run

        def counted(index):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), random.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))
            if left[0] <= 0:
                time.sleep(0.02)
            run(index)

        worker.run = counted
        begin(seat, queue, worker)

    monkeypatch.setattr(engine._Seat, "__init__", struck)
    kept = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    }
    yield lambda spans: left.__setitem__(0, spans)
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("command", KEPT, ids=names)
def test_interrupted_again_and_again(unoic, strike, command, capfdbinary):
    inputs()
    whole = unoic(*command)
    written = pathlib.Path("o.h5").read_bytes() if "o.h5" in command else b""
    pathlib.Path("o.calibration.json").unlink(missing_ok=True)
    pathlib.Path("o.h5").unlink(missing_ok=True)
    stops = 0
    while True:
        strike(random.Random(stops).randrange(1, 4) + stops // 8)
        threads = str(1 + stops % 2)
        code = cli.run([*command, "--checkpoint", "c.unoic", "--resume", "--every", "0.000001s", "--threads", threads])
        out, err = capfdbinary.readouterr()
        if code == 0:
            break
        assert (code, out, err.count(b"\n")) == (INTERRUPTED, b"", 1)
        counted = any(one.done for one in state.load("c.unoic").passes)
        said = (
            "interrupted, and all that was counted is saved" if counted else "interrupted before anything was counted"
        )
        assert err.startswith(f"unoic: error: c.unoic: {said}; ".encode())
        assert not os.path.exists("o.h5")
        stops += 1
        assert stops < 300
    assert stops > 0
    assert out == whole
    assert not os.path.exists("c.unoic")
    if written:
        assert pathlib.Path("o.h5").read_bytes() == written
    assert not [name for name in os.listdir() if name.endswith(".tmp")]


def test_a_checkpoint_belongs_to_its_run(unoic, strike, capfdbinary):
    inputs()

    def stop(*args):
        strike(2)
        assert cli.run([*args, "--checkpoint", "c.unoic", "--every", "0.000001s", "--force"]) == INTERRUPTED
        strike(10**9)
        capfdbinary.readouterr()

    stop("evaluate", "a.h5", "-l", "1")
    assert unoic("evaluate", "a.h5", "--checkpoint", "c.unoic", code=CANNOT_CREATE).startswith(
        "c.unoic: the checkpoint"
    )
    again = ["--checkpoint", "c.unoic", "--resume"]
    assert "another configuration: lam" in unoic("evaluate", "a.h5", "-l", "0.5", *again, code=DATA)
    assert "a state of evaluate" in unoic("prior", "a.h5", *again, code=DATA)
    assert "shard" in unoic("evaluate", "a.h5", "-l", "1", *again, "--shard", "1/2", "--state", "s", code=DATA)
    with h5py.File("a.h5", "r+") as file:
        file["logits"][3] = 0
    assert unoic("evaluate", "a.h5", "-l", "1", *again, code=DATA).startswith(
        "a.h5: changed since the state was stored"
    )
    pathlib.Path("c.unoic").write_bytes(pathlib.Path("c.unoic").read_bytes()[:-1])
    assert unoic("evaluate", "a.h5", "-l", "1", *again, code=DATA).startswith("c.unoic: a damaged state file")
    pathlib.Path("c.unoic").unlink()
    unoic("evaluate", "a.h5", "-l", "1", *again)


def test_a_shard_can_be_resumed(unoic, strike, capfdbinary):
    inputs()
    whole = unoic("evaluate", "b.h5", "a.h5")
    for i in (1, 2):
        command = ["evaluate", "b.h5", "a.h5", "--shard", f"{i}/2", "--state", f"s{i}", "--checkpoint", "c", "--resume"]
        strike(2)
        assert cli.run(command) == INTERRUPTED
        strike(10**9)
        capfdbinary.readouterr()
        unoic(*command)
    assert unoic("merge", "s1", "s2") == whole


def test_what_a_resumed_output_may_replace(unoic, strike, capfdbinary):
    inputs()
    command = ["calibrate", "a.h5", "b.h5", "-l", "1", "--checkpoint", "c", "--every", "0.000001s"]
    strike(2)
    assert cli.run([*command, "-o", "o.h5"]) == INTERRUPTED
    strike(10**9)
    capfdbinary.readouterr()
    assert "the checkpoint is one of o.h5" in unoic(*command, "-o", "p.h5", "--resume", code=USAGE)
    pathlib.Path("o.h5").write_text("precious")
    assert unoic(*command, "-o", "o.h5", "--resume", code=CANNOT_CREATE).startswith("o.h5: the file exists")
    assert pathlib.Path("o.h5").read_text() == "precious"
    os.unlink("o.h5")
    unoic(*command, "-o", "o.h5", "--resume")
    assert not [name for name in os.listdir() if name.endswith(".tmp")]


def test_killed_when_the_output_had_two_names(unoic, strike, capfdbinary):
    """A new output gets its name as a link, and loses the other one then."""
    inputs()
    command = ["calibrate", "a.h5", "b.h5", "-l", "1", "-o", "o.h5"]
    unoic(*command)
    written = pathlib.Path("o.h5").read_bytes()
    os.unlink("o.h5")
    strike(4)
    assert cli.run([*command, "--checkpoint", "c", "--every", "0.000001s"]) == INTERRUPTED
    strike(10**9)
    capfdbinary.readouterr()
    (unfinished,) = [name for name in os.listdir() if name.endswith(".tmp")]
    os.link(unfinished, "o.h5")
    pathlib.Path(".c.abcdefgh.tmp").write_text("a checkpoint that was being written")
    unoic(*command, "--checkpoint", "c", "--resume")
    assert pathlib.Path("o.h5").read_bytes() == written
    assert not [name for name in os.listdir() if name.endswith(".tmp") or name == "c"]


def test_a_checkpoint_goes_with_the_output_that_it_speaks_of(unoic):
    inputs()
    with h5py.File("a.h5", "r+") as file:
        file["logits"][20, 1] = np.nan
    args = ["calibrate", "a.h5", "-l", "1", "-o", "o.h5", "--checkpoint", "c", "--every", "0.000001s"]
    assert "nan at row 20" in unoic(*args, code=DATA)
    assert not [name for name in os.listdir() if name.endswith(".tmp") or name in ("c", "o.h5")]


def test_states_and_their_after(unoic):
    inputs()
    unoic("evaluate", "a.h5", "--state", "all")
    shard = ["--shard", "1/2", "--after", "all"]
    assert "needs no further pass" in unoic("evaluate", "a.h5", *shard, "--state", "s", code=USAGE)
    assert "the file is an input" in unoic("evaluate", "a.h5", *shard, "--state", "all", "--force", code=CANNOT_CREATE)
    unoic("evaluate", "a.h5", "--shard", "1/2", "--state", "one")
    assert "11 to 22" in json.loads(unoic("merge", "one", "-o", "m", "--partial"))["missing"]
    assert unoic("merge", "one", "-o", "n", "--partial", "--format", "tsv").startswith(b"state\tn\n")


def test_parts_that_are_missing_are_told(unoic):
    inputs()
    for i in (1, 2):
        unoic("calibrate", "a.h5", "-l", "1", "-o", "o.h5", "--shard", f"{i}/3")
    notes = json.loads(unoic("evaluate", "o.0001-of-0003.h5", "o.0002-of-0003.h5"))["notes"]
    assert any("parts of a larger output, without 3/3" in note for note in notes)
    unoic("calibrate", "a.h5", "-l", "1", "-o", "o.h5", "--shard", "3/3")
    assert not json.loads(unoic("evaluate", "o.*-of-0003.h5"))["notes"]


def test_parquet_outputs_have_no_checkpoint(unoic):
    inputs()
    args = ["-l", "1", "-o", "o.parquet", "--checkpoint", "c"]
    assert unoic("calibrate", "a.h5", *args, code=USAGE).startswith("--checkpoint: a checkpoint of a Parquet output")
    assert not {"c", "o.parquet"} & set(os.listdir())


def launch(*args):
    return forked.Popen([sys.executable, "-m", "unoic_cli", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def written_once(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "large.h5"
    n, block = 1 << 21, 1 << 16
    z, y = scores(np.random.default_rng(0), block)
    with h5py.File(path, "w") as file:
        logits, labels = file.create_dataset("logits", (n, K), "f2"), file.create_dataset("labels", (n,), "u1")
        for at in range(0, n, block):
            logits[at : at + block], labels[at : at + block] = z, y
        file["source_counts"] = COUNTS
    return path


@pytest.fixture
def large(written_once):
    os.link(written_once, "large.h5")
    return "large.h5"


@pytest.mark.parametrize("command", [["search-lambda", "--range", "0:2"], ["calibrate", "-l", "1", "-o", "o.h5"]])
def test_killed_at_random_moments(large, command):
    args = [command[0], large, *command[1:]]
    process = launch(*args)
    whole, _ = process.communicate()
    began = time.monotonic()
    launch(*args, "--force" if "-o" in args else "-q").communicate()
    seconds = time.monotonic() - began
    written = pathlib.Path("o.h5").read_bytes() if "-o" in args else b""
    pathlib.Path("o.h5").unlink(missing_ok=True)
    rng, kills, rounds = random.Random(0), 0, 0
    while rounds < 2 or not kills:
        rounds += 1
        assert rounds < 9
        while True:
            process = launch(*args, "--checkpoint", "c.unoic", "--resume", "--every", "0.01s")
            try:
                out, err = process.communicate(timeout=seconds * (rng.uniform(0.2, 0.8) + 0.1 * kills))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
                if written and os.path.exists("o.h5") and not os.path.exists("c.unoic"):
                    break  # killed when all was done
                continue
            assert process.returncode == 0, err
            assert out == whole
            break
        if written:
            assert pathlib.Path("o.h5").read_bytes() == written
            pathlib.Path("o.h5").unlink()


@pytest.fixture(scope="module")
def both_together(written_once):
    """What a search says of the large file and of a copy of it."""
    shutil.copy(written_once, written_once.with_name("more.h5"))
    words = [sys.executable, "-m", "unoic_cli", "search-lambda", "large.h5", "more.h5", "--range", "0:2"]
    return forked.run(words, capture_output=True, cwd=written_once.parent, check=True).stdout


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_is_answered_with_a_checkpoint(large, both_together, written_once, sent):
    os.link(written_once.with_name("more.h5"), "more.h5")
    args = ["search-lambda", large, "more.h5", "--range", "0:2", "--threads", "1"]
    process = launch(*args, "--checkpoint", "c.unoic", "--every", "0.01s")
    while not os.path.exists("c.unoic"):
        assert process.poll() is None
        time.sleep(0.002)
    began = time.monotonic()
    process.send_signal(sent)
    out, err = process.communicate()
    err = without_notes(err)
    if process.returncode == 0:
        pytest.skip("the run ended before the signal")
    assert time.monotonic() - began < 2
    assert (process.returncode, out, err.count(b"\n")) == (INTERRUPTED, b"", 1)
    state.load("c.unoic")
    assert launch(*args, "--checkpoint", "c.unoic", "--resume").communicate()[0] == both_together


def test_an_input_that_changes_during_the_run(unoic, monkeypatch):
    inputs()
    begin = engine._Seat.__init__

    def meddle(seat, queue, worker):
        with open("a.h5", "ab") as file:
            file.write(b"x")
        begin(seat, queue, worker)

    monkeypatch.setattr(engine._Seat, "__init__", meddle)
    message = unoic("evaluate", "a.h5", "--state", "s", code=65)
    assert message.startswith("a.h5: the file changed while it was in use")
    assert not os.path.exists("s")


KERNELS = """
import numpy as np
from unoic_cli.kernels import octets, points
table = np.zeros(4, np.int64)
points.count_confusion(np.array([0, 1, 1, -1], np.int32), np.array([0, 0, 1, 1], np.int32), 2, table)
print(table.tolist(), octets.fletcher32(np.arange(9, dtype="u1")))
"""


def test_cold_starts_on_one_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNOIC_CACHE_DIR", str(tmp_path / "cache"))
    command = [sys.executable, "-c", KERNELS]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    ended = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * 3, ended
    assert {out for out, _ in ended} == {subprocess.check_output(command)}
    assert ended[0][0].startswith(b"[1, 0, 1, 1] ")


# ---------------------------------------------------------------------------------------------- ledgers


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.lists(st.integers(0, 40), max_size=6))
def test_gaps_and_joins(size, cuts):
    edges = sorted({0, size, *(cut for cut in cuts if cut < size)})
    extents = list(itertools.pairwise(edges))
    kept = extents[::2]
    missing = ledger.gaps(kept, size)
    assert ledger.joined([*kept, *missing]) == [(0, size)]
    assert sum(b - a for a, b in missing) == sum(b - a for a, b in extents[1::2])


# ---------------------------------------------------------------------------------------------- Dask


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", [*COMMANDS[:7], SEVERAL_PASSES[1], SEVERAL_PASSES[4]], ids=names)
def test_dask_gives_the_same_bytes(unoic, cluster, command, monkeypatch):
    inputs()
    rows("grow.h5", 40, 9)
    whole = unoic(*command)
    absolute = [str(pathlib.Path(word).resolve()) if word.endswith((".h5", ".parquet")) else word for word in command]
    monkeypatch.setattr("unoic_cli.runs.dask._TASK_BYTES", 500)
    if any("=" in word for word in command):
        absolute = list(command)  # the workers began in another folder: names like rgb=FILE stay as they are
        for name in ("rgb.h5", "depth.h5"):
            absolute = [word.replace(f"={name}", f"={pathlib.Path(name).resolve()}") for word in absolute]
    shown = unoic(*absolute, "--engine", "dask", "--scheduler", cluster.scheduler_address)
    assert shown.replace(str(pathlib.Path().resolve()).encode() + b"/", b"") == whole


@pytest.mark.filterwarnings("ignore")
def test_dask_reports_the_first_bad_row(unoic, cluster):
    z, y = scores(np.random.default_rng(0), 60)
    z[[31, 47]] = np.nan
    with h5py.File("bad.h5", "w") as file:
        file["logits"], file["labels"] = z, y
    path = pathlib.Path("bad.h5").resolve()
    plain = unoic("evaluate", path, code=DATA)
    assert unoic("evaluate", path, "--engine", "dask", "--scheduler", cluster.scheduler_address, code=DATA) == plain
    assert "row 31" in plain
