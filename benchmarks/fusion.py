"""Fusion of two modalities: the search against plain numpy, and `fuse` against a copy of the same bytes.

    python benchmarks/fusion.py [--pixels 23] [--runs 3] [--folder /tmp]

Search: 21 lambdas, K = 14, float16. numpy's peer is straightforward: per lambda, softmax of each modality's
z + lambda s, noisy-or, argmax, bincount; in memory, whole arrays (and in blocks that fit a cache). Ours:
`search_lambda` end to end from two contiguous HDF5 files (page cache warm).
fuse: wall time from two files to one of log-probabilities, against a plain copy: reading all bytes of the inputs and
writing as many as the output has, with fsync in both. Two threads. Each ratio is the median over paired runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time

import h5py
import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from data import frequencies, make

import unoic_cli

N_CLASSES = 14
LAMS = np.arange(21) / 10


def save_pair(folder: str, n: int, block: int = 1 << 20) -> dict[str, str]:
    """Two modalities of the same n units: the second is the first's logits with noise of its own."""
    paths = {name: os.path.join(folder, f"unoic-{os.getpid()}-{name}.h5") for name in ("rgb", "depth")}
    block = min(block, n)
    for name, path in paths.items():
        with h5py.File(path, "w") as file:
            scores = file.create_dataset("logits", (n, N_CLASSES), "float16")
            labels = file.create_dataset("labels", (n,), "uint8")
            file["source_prior"] = frequencies(N_CLASSES)
            for i in range(n // block):
                z, y = make(block, N_CLASSES, "float32", seed=i)
                if name == "depth":
                    rng = np.random.default_rng(1000 + i)
                    z = 0.7 * z + 2.5 * rng.standard_normal(z.shape, dtype=np.float32)
                scores[i * block : (i + 1) * block] = z.astype(np.float16)
                labels[i * block : (i + 1) * block] = y
    return paths


def softmax(z: np.ndarray) -> np.ndarray:
    """Softmax of rows."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def numpy_search(scores: list[np.ndarray], y: np.ndarray, s: np.ndarray, block: int) -> np.ndarray:
    """Confusion counts of noisy-or at every lambda, block by block of units."""
    table = np.zeros((LAMS.size, N_CLASSES * N_CLASSES), np.int64)
    for first in range(0, y.size, block):
        own = [z[first : first + block].astype(np.float32) for z in scores]
        label = y[first : first + block].astype(np.int64) * N_CLASSES
        for g, lam in enumerate(LAMS.astype(np.float32)):
            missed = np.ones((), np.float32)
            for z in own:
                missed = missed * (1 - softmax(z + lam * s))
            table[g] += np.bincount(label + (1 - missed).argmax(axis=1), minlength=table.shape[1])
    return table


def copy_bytes(sources: list[str], out: str, size: int, chunk: int = 2 << 20) -> None:
    """Read all bytes of the sources with two threads, and write `size` bytes, fsynced."""
    data = np.random.default_rng(0).integers(0, 256, chunk, dtype=np.uint8).tobytes()
    file = os.open(out, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)

    def half(part: int) -> None:
        buffer = bytearray(chunk)
        for path in sources:
            handle = os.open(path, os.O_RDONLY)
            length = os.path.getsize(path)
            for offset in range(part * chunk, length, 2 * chunk):
                os.preadv(handle, [buffer], offset)
            os.close(handle)
        for offset in range(part * chunk, size, 2 * chunk):
            os.pwrite(file, data[: min(chunk, size - offset)], offset)

    threads = [threading.Thread(target=half, args=(part,)) for part in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.fsync(file)
    os.close(file)


def seconds(function: object, *args: object, **kwargs: object) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    function(*args, **kwargs)  # type: ignore[operator]  # benchmarks are not type-checked strictly
    return time.perf_counter() - begin


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=23, help="log2 of the number of units")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    chosen = parser.parse_args()
    n = 1 << chosen.pixels
    paths = save_pair(chosen.folder, n)
    out = os.path.join(chosen.folder, f"unoic-{os.getpid()}-fused.h5")
    try:
        few = 1 << 20
        scores = []
        for name in ("depth", "rgb"):
            with h5py.File(paths[name]) as file:
                scores.append(file["logits"][:few])
                y = file["labels"][:few]
        s = -np.log(frequencies(N_CLASSES)).astype(np.float32)
        search = {"range": "0:2:0.1", "threads": 2}
        for fusion in ("noisy-or", "average", "max", "product"):
            unoic_cli.search_lambda(paths, fusion=fusion, **search)
            ours = [seconds(unoic_cli.search_lambda, paths, fusion=fusion, **search) for _ in range(chosen.runs)]
            line = f"search, {fusion:9s} {1e9 * statistics.median(ours) / n:7.1f} ns per pixel for 21 lambdas"
            if fusion == "noisy-or":
                for name, block in (("numpy", few), ("numpy in blocks", 1 << 14)):
                    peers = [seconds(numpy_search, scores, y, s, block) / few for _ in ours]
                    ratios = [peer / (own / n) for peer, own in zip(peers, ours, strict=True)]
                    line += f"; {name} {1e9 * statistics.median(peers):7.1f}: {statistics.median(ratios):.0f} times"
            print(line, flush=True)
        for fusion, lam in (("noisy-or", None), ("noisy-or", 1.0), ("product", None), ("product", 1.0)):
            for emit in ("log-probs", "probs"):
                options = {"output": out, "fusion": fusion, "emit": emit, "lam": lam, "force": True, "threads": 2}
                unoic_cli.fuse(paths, **options)
                size = os.path.getsize(out)
                pairs = []
                for _ in range(chosen.runs):
                    plain = seconds(copy_bytes, list(paths.values()), out, size)
                    pairs.append((seconds(unoic_cli.fuse, paths, **options), plain))
                own, plain = (1e9 * statistics.median(column) / n for column in zip(*pairs, strict=True))
                print(
                    f"fuse, {fusion:9s} {emit:9s} lambda {lam or 0:g} {own:7.1f} ns per pixel; copy {plain:7.1f};"
                    f" ratio {statistics.median(a / b for a, b in pairs):.2f}",
                    flush=True,
                )
    finally:
        for path in (*paths.values(), out):
            if os.path.exists(path):
                os.unlink(path)


if __name__ == "__main__":
    main()
