"""A block is valid until the next one is asked for: whoever keeps it longer must own it."""

from __future__ import annotations

import itertools
import json
import pathlib

import naive
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_modalities import COUNTS, OTHER, world, write

from unoic_cli import formats
from unoic_cli.data.reader import gather

DEFAULTS = formats.open_reader


class PoisonedReader:
    """Hands over few units at a time, in memory that is spoilt when the next block is asked for."""

    def __init__(self, source, step):
        self.inner, self.step, self.asked = DEFAULTS(source), step, 0

    def blocks(self, start, stop, fields):
        for first in range(start, stop, self.step):
            for block in self.inner.blocks(first, min(stop, first + self.step), fields):
                lent = block.own()
                self.asked += 1
                yield lent
                for array in vars(lent).values():
                    if isinstance(array, np.ndarray):
                        array[...] = "spoilt" if array.dtype.kind in "OSU" else 77

    def close(self):
        self.inner.close()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def poison(monkeypatch):
    """From now on, readers hand over `step` units at a time and spoil what they lent; returns the readers."""
    readers = []

    def start(step):
        def open_reader(source):
            readers.append(PoisonedReader(source, step))
            return readers[-1]

        monkeypatch.setattr(formats, "open_reader", open_reader)
        return readers

    return start


FILES = {
    "parquet": ("rgb.parquet", "depth.parquet", ()),
    "images": ("rgb.h5", "depth.rows.h5", (4, 5)),
    "mixed": ("rgb.rows.h5", "depth.parquet", (4, 5)),
    "stream": ("rgb.arrows", "depth.h5", ()),
}
FUSED = ["rgb=R", "depth=D"]
COMMANDS = {
    "evaluate": ["R", "-l", "1"],
    "evaluate fused": [*FUSED, "-l", "1", "--by", "group"],
    "evaluate split": [*FUSED, "-l", "1", "--split", "val"],
    "evaluate fit": [*FUSED, "-l", "1", "--delta", "rgb=fit"],
    "evaluate entropy": [*FUSED, "-l", "1", "--delta", "rgb=entropy.json", "--order", "rebalance-first"],
    "search-lambda": ["R", "--folds", "2"],
    "search-lambda fused": [*FUSED, "--folds", "2", "--method", "grid", "--range", "0:1:0.25"],
    "search-lambda product": [*FUSED, "--fusion", "product", "--metric", "top2", "--range", "0:1"],
    "search-lambda each": [*FUSED, "--per-modality"],
    "fit-temperature": ["R", "-o", "t.json"],
    "fit-delta": ["rgb=R", "-o", "s.json"],
    "prior": ["R"],
    "info": ["R"],
    "compare": [*FUSED, "--by", "group", "-m", "rgb", "-m", "average", "-m", "noisy-or"],
    "calibrate": ["R", "-l", "1", "-o", "o.h5"],
    "calibrate parquet": ["R", "-l", "1", "-o", "o.parquet"],
    "calibrate fused": [*FUSED, "-l", "1", "-o", "o.h5", "--delta", "rgb=entropy.json"],
    "fuse": [*FUSED, "-o", "o.parquet"],
    "convert": ["R", "o.h5"],
    "convert parquet": ["R", "o.parquet"],
    "pack": ["R", "o.h5"],
    "pack gzip": ["R", "o.h5", "--codec", "gzip"],
    "pack half": ["R", "o.h5", "--dtype", "float16", "--codec", "zstd"],
    "pack parquet": ["R", "o.parquet"],
}


def make(kind):
    """Two modalities of one scene: labels, delta, split, group and ids in both."""
    *paths, image = FILES[kind]
    zs, labels = world(3, n=12, image=image)
    ids = {"split": ["val", "val", "test"] * 4, "group": ["day", "night"] * 6, "sample_id": np.arange(12) + 100}
    delta = np.linspace(0.5, 1.5, 12 * int(np.prod(image))).reshape(12, *image)
    for path, z, counts in zip(paths, zs, (COUNTS, OTHER), strict=True):
        name = path.replace(".arrows", ".parquet")
        write(name, z, labels, source_counts=counts, delta=delta, **ids)
        if name != path:
            to_stream(name, path)
    return paths, zs, labels, delta


def to_stream(given, wanted):
    """An Arrow stream of small record batches."""
    table = pq.read_table(given)
    with pa.ipc.new_stream(wanted, table.schema) as stream:
        for batch in table.to_batches(max_chunksize=5):
            stream.write_batch(batch)


def outputs():
    return {path.name: path.read_bytes() for path in sorted(pathlib.Path().glob("[ost].*"))}


def stable(found):
    """Figures without those of the clock."""
    for entry in found.get("files", []) if isinstance(found, dict) else []:
        if isinstance(entry, dict):
            entry.pop("read", None)
    return json.dumps(found)


def said_and_written(answer, paths, title, words):
    """The JSON of a command and the bytes of what it wrote."""
    names = {"R": paths[0], "rgb=R": f"rgb={paths[0]}", "depth=D": f"depth={paths[1]}"}
    args = [names.get(word, word) for word in words]
    for path in pathlib.Path().glob("[ost].*"):
        path.unlink()
    return stable(answer(title.split()[0], *args)), outputs()


@pytest.mark.parametrize("kind", FILES)
def test_no_command_uses_a_block_after_it_asked_for_the_next(kind, answer, poison):
    paths, *_ = make(kind)
    answer("fit-delta", f"rgb={paths[0]}", "-o", "entropy.json")
    wanted = {title: said_and_written(answer, paths, title, words) for title, words in COMMANDS.items()}
    readers = poison(3)
    for title, words in COMMANDS.items():
        readers.clear()
        assert said_and_written(answer, paths, title, words) == wanted[title], title
        assert max(reader.asked for reader in readers) > 2, title


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(("sizes", "step"), [((60,), 1000), ((60, 180), 1000), ((100, 7), 2), ((1, 1000), 4)])
def test_fused_counts_equal_numpy_however_blocks_are_cut(kind, sizes, step, answer, poison, monkeypatch):
    paths, zs, labels, delta = make(kind)
    monkeypatch.setattr("unoic_cli.formats.parquet._BATCH_BYTES", sizes[0])
    monkeypatch.setattr("unoic_cli.formats.arrow._BLOCK_BYTES", sizes[-1])
    if step < 1000:
        poison(step)
    priors = [np.array(counts) / sum(counts) for counts in (COUNTS, OTHER)]
    flat = [np.moveaxis(z, 1, -1).reshape(-1, 3).astype(float) for z in zs]
    parts = [
        naive.posterior(z, naive.slopes(prior, [1 / 3] * 3), 1.0, delta.ravel())
        for z, prior in zip(flat, priors, strict=True)
    ]
    hits = np.mean(naive.noisy_or(parts).argmax(axis=1) == labels.ravel())
    found = answer("evaluate", f"rgb={paths[0]}", f"depth={paths[1]}", "-l", "1")
    assert found["acc"] == pytest.approx(hits, abs=1e-12)


def test_gather_owns_what_it_keeps(poison):
    make("parquet")
    source = formats.describe("rgb.parquet")
    wanted = next(DEFAULTS(source).blocks(0, 12, source.fields | {"scores"}))
    poison(5)
    for start, stop in itertools.combinations(range(13), 2):
        block = gather(formats.open_reader(source).blocks(start, stop, source.fields | {"scores"}), source, stop)
        assert (block.start, block.stop) == (start, stop)
        for name in ("scores", "labels", "delta", "split", "group", "sample_id"):
            np.testing.assert_array_equal(getattr(block, name), getattr(wanted, name)[start:stop])
