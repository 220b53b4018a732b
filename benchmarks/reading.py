"""Scores and labels of npz, CSV and wide Parquet: read here against numpy and pandas, in the same process.

``python benchmarks/reading.py [ROWS] [CLASSES]``; pandas is the peer of the tables, and needed for them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unoic_cli import formats
from unoic_cli.formats import boxes

ROUNDS = 5


def read(path):
    """All scores and labels, block by block, and a sum that shows that they were there."""
    source = formats.describe(path)
    total = 0
    with contextlib.closing(formats.open_reader(source)) as reader:
        for start, stop in formats.spans(source, 4 << 20):
            for block in reader.blocks(start, stop, frozenset({"scores", "labels"})):
                total += int(block.labels[0]) + block.scores.size
    return total


def numpy_npz(path):
    """As most people read it."""
    with np.load(path) as found:
        return found["logits"].size + int(found["labels"][0])


def frame(load):
    """A table of pandas, as one array and labels."""

    def reader(path):
        table = load(path)
        labels = table.pop("label").to_numpy()
        return table.to_numpy().size + int(labels[0])

    return reader


def best(function, path):
    """Least seconds of some rounds."""
    seconds = []
    for _ in range(ROUNDS):
        boxes._unpacked.cache_clear()
        begin = time.perf_counter()
        function(path)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def main(rows=500_000, classes=10):
    """Write the files, read them, and print the ratios."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(rows, classes)).astype("f4"), rng.integers(0, classes, rows)
    columns = {f"logits_{k}": logits[:, k] for k in range(classes)} | {"label": labels}
    peers = {"npz": numpy_npz, "packed npz": numpy_npz}
    try:
        import pandas

        peers |= {"parquet, wide": frame(pandas.read_parquet), "csv": frame(pandas.read_csv)}
    except ImportError:
        print("pandas is not installed: npz alone", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        np.savez("stored.npz", logits=logits, labels=labels)
        np.savez_compressed("packed.npz", logits=logits, labels=labels)
        pq.write_table(pa.table(columns), "wide.parquet", row_group_size=100_000)
        files = {"npz": "stored.npz", "packed npz": "packed.npz", "parquet, wide": "wide.parquet", "csv": "wide.csv"}
        if "csv" in peers:
            pandas.DataFrame(columns).to_csv("wide.csv", index=False)
        print(f"{rows:,} x {classes}, seconds (least of {ROUNDS}): here, peer, ratio")
        for name, peer in peers.items():
            ours, theirs = best(read, files[name]), best(peer, files[name])
            print(f"{name:14}{ours:9.3f}{theirs:9.3f}{ours / theirs:8.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
