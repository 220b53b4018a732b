"""The search over compressed HDF5: chunks decoded here, against the same command with every chunk read by h5py.

    python benchmarks/codecs.py [--pixels 23] [--runs 5] [--folder /tmp]

K = 14, float16, (N, K) and (N, K, 512, 512), chunks of about 1.8 MB; warm page cache, without process start and
compilation. Each ratio is the median over paired runs. h5py reads zstd through the package hdf5plugin, if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator

import h5py
import numpy as np
import pyarrow

sys.path.insert(0, os.path.dirname(__file__))
from data import save

import unoic_cli
from unoic_cli.formats import chunks
from unoic_cli.machine import available_threads

with contextlib.suppress(ImportError):
    import hdf5plugin  # noqa: F401  # registers its filters

FILTERS = {"gzip": "shuffle + gzip 4", "zstd": "shuffle + zstd 3", "none": "no filter", "lzf": "shuffle + lzf"}


def rewrite(source: str, path: str, codec: str) -> None:
    """Copy a contiguous file into chunks of about 1.8 MB (whole images, or parts of one)."""
    with h5py.File(source) as old, h5py.File(path, "w") as new:
        scores = old["logits"]
        chunk = (1 << 16, 14) if scores.ndim == 2 else (1, 14, 128, 512)
        if codec == "zstd":
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk(chunk)
            plist.set_shuffle()
            plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
            space, kind = h5py.h5s.create_simple(scores.shape), h5py.h5t.IEEE_F16LE
            made = h5py.Dataset(h5py.h5d.create(new.id, b"logits", kind, space, plist))
            zstd = pyarrow.Codec("zstd", compression_level=3)
            for place in np.ndindex(*(n // c for n, c in zip(scores.shape, chunk, strict=True))):
                begin = tuple(p * c for p, c in zip(place, chunk, strict=True))
                part = scores[tuple(slice(b, b + c) for b, c in zip(begin, chunk, strict=True))]
                split = np.ascontiguousarray(part.reshape(-1).view(np.uint8).reshape(-1, 2).T)
                made.id.write_direct_chunk(begin, zstd.compress(split, asbytes=True))
        else:
            options = {"gzip": {"compression": "gzip", "shuffle": True}, "lzf": {"compression": "lzf", "shuffle": True}}
            made = new.create_dataset("logits", scores.shape, scores.dtype, chunks=chunk, **options.get(codec, {}))
            for begin in range(0, len(scores), chunk[0]):
                made[begin : begin + chunk[0]] = scores[begin : begin + chunk[0]]
        for name in ("labels", "source_prior"):
            new[name] = old[name][...]


@contextlib.contextmanager
def through_h5py() -> Iterator[None]:
    """Every chunk through the library."""
    chunks._use_library = True
    try:
        yield
    finally:
        chunks._use_library = False


def search(path: str, threads: int) -> tuple[float, float]:
    """Seconds of one search, and its lambda."""
    begin = time.perf_counter()
    found = unoic_cli.search_lambda(path, range="0:2", threads=threads)
    return time.perf_counter() - begin, found.lam


def main() -> None:
    """Print a line for each codec and layout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=23, help="log2 of the number of units")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--codecs", nargs="+", default=["gzip", "zstd", "none"], choices=FILTERS)
    chosen = parser.parse_args()
    threads = min(2, available_threads())
    n = 1 << chosen.pixels
    base = os.path.join(chosen.folder, f"unoic-codecs-{os.getpid()}")
    plain, path = f"{base}-plain.h5", f"{base}.h5"
    print(f"{threads} threads; {n * 28 / 1e9:.2f} GB of scores; ratio: h5py / ours")
    try:
        for image in (0, 512):
            save(plain, n, 14, "float16", image)
            for codec in chosen.codecs:
                rewrite(plain, path, codec)
                runs: dict[str, list[float]] = {"contiguous": [], "ours": [], "h5py": []}
                readable = codec != "zstd" or h5py.h5z.filter_avail(32015)
                expected = search(plain, threads)[1]
                for _ in range(chosen.runs):
                    runs["contiguous"].append(search(plain, threads)[0])
                    seconds, lam = search(path, threads)
                    runs["ours"].append(seconds)
                    assert lam == expected
                    if readable:
                        with through_h5py():
                            seconds, lam = search(path, threads)
                        runs["h5py"].append(seconds)
                        assert lam == expected
                ours = statistics.median(runs["ours"])
                line = f"{FILTERS[codec]:18s} {'planes' if image else 'rows':6s} contiguous"
                line += f" {statistics.median(runs['contiguous']):6.3f} s"
                line += f"  ours {ours:6.3f} s ({n * 28 / ours / 1e6:6.0f} MB/s)"
                if readable:
                    ratio = statistics.median(a / b for a, b in zip(runs["h5py"], runs["ours"], strict=True))
                    line += f"  h5py {statistics.median(runs['h5py']):6.3f} s  ratio {ratio:.2f}"
                else:
                    line += "  h5py: no zstd filter (pip install hdf5plugin)"
                print(line, flush=True)
    finally:
        for leftover in (plain, path):
            if os.path.exists(leftover):
                os.unlink(leftover)


if __name__ == "__main__":
    main()
