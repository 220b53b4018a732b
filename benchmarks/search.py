"""How long the whole lambda curve takes, as ratios to numpy on the same data in the same run.

    python benchmarks/search.py [--pixels 23] [--runs 5] [--folder /tmp]

Peers: numpy in memory for ONE lambda (argmax(z + lambda s) and bincount of label * K + prediction), and the
repaired Algorithm 2 with that as its evaluation. Ours: `search_lambda` end to end from a contiguous
HDF5 file (page cache warm), without process start and compilation. Each ratio is the median over
paired runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time

import h5py
import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from data import frequencies, save

import unoic_cli
from unoic_cli.machine import available_threads


def numpy_one(z: np.ndarray, y: np.ndarray, s: np.ndarray, lam: float) -> np.ndarray:
    """Confusion counts at one lambda, in memory."""
    n_classes = s.size
    predictions = (z + np.float32(lam) * s).argmax(axis=1)
    return np.bincount(y.astype(np.int64) * n_classes + predictions, minlength=n_classes * n_classes)


def algorithm_2(z: np.ndarray, y: np.ndarray, s: np.ndarray) -> int:
    """Repaired Algorithm 2 with numpy; returns how often it evaluated."""
    n_classes, seen = s.size, {}

    def value(i: int) -> float:
        if i not in seen:
            confusion = numpy_one(z, y, s, i / 100).reshape(n_classes, n_classes)
            seen[i] = float((np.diag(confusion) / np.maximum(confusion.sum(1), 1)).mean())
        return seen[i]

    low, high = 0, 200
    while high < 1600 and value(high) >= value(0):
        low, high = (high if value(high) > value(low) else low), 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if value(middle) >= value(middle + 1) else (middle, high)
    return len(seen)


def seconds(function: object, *args: object, **kwargs: object) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    function(*args, **kwargs)  # type: ignore[operator]  # benchmarks are not type-checked strictly
    return time.perf_counter() - begin


def load(path: str) -> tuple[np.ndarray, np.ndarray]:
    """The file in memory as rows (n, K), for numpy."""
    with h5py.File(path) as file:
        z, y = file["logits"][...], file["labels"][...].reshape(-1)
    if z.ndim == 4:
        z = np.ascontiguousarray(z.transpose(0, 2, 3, 1)).reshape(-1, z.shape[1])
    return z, y


def compare(path: str, n_classes: int, runs: int, threads: int, name: str, paper: bool = False) -> None:
    """Print one line: ours, numpy for one lambda, and their ratio."""
    z, y = load(path)
    s = -np.log(frequencies(n_classes)).astype(np.float32)
    unoic_cli.search_lambda(path, range="0:2", threads=threads)
    ours, one = [], []
    for _ in range(runs):
        ours.append(seconds(unoic_cli.search_lambda, path, range="0:2", threads=threads))
        one.append(seconds(numpy_one, z, y, s, 0.5))
    ratio = statistics.median(a / b for a, b in zip(ours, one, strict=True))
    rate = y.size / statistics.median(ours) / 1e6
    line = (
        f"{name:34s} {y.size / 1e6:8.2f} M  ours {statistics.median(ours):7.4f} s ({rate:6.1f} M/s)"
        f"  numpy x1 {statistics.median(one):7.4f} s  ratio {ratio:6.3f} = 1/{1 / ratio:.1f}"
    )
    if paper:
        begin = time.perf_counter()
        evaluations = algorithm_2(z, y, s)
        line += (
            f"  Algorithm 2: {evaluations} evaluations, 1/{(time.perf_counter() - begin) / statistics.median(ours):.0f}"
        )
    print(line, flush=True)


def main() -> None:
    """Run every comparison of the search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=23, help="log2 of the number of units")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--only", default="", help="run comparisons whose name contains this")
    chosen = parser.parse_args()
    threads = min(2, available_threads())
    n = 1 << chosen.pixels
    print(f"{threads} threads, numpy {np.__version__}; 201 lambdas in [0, 2]; ratio: ours / numpy for one lambda")
    cases = [
        ("K=14 float16 rows (N, K)", n, 14, "float16", 0),
        ("K=14 float16 planes (N, K, H, W)", n, 14, "float16", 512),
        ("K=19 float16 rows (N, K)", n, 19, "float16", 0),
        ("K=14 float32 rows (N, K)", n >> 1, 14, "float32", 0),
        ("K=150 float32 rows", n >> 5, 150, "float32", 0),
        ("K=1000 float32 rows", n >> 7, 1000, "float32", 0),
        ("K=8142 float32 rows", n >> 9, 8142, "float32", 0),
    ]
    for name, size, n_classes, dtype, image in cases:
        if chosen.only not in name:
            continue
        path = os.path.join(chosen.folder, f"unoic-benchmark-{os.getpid()}.h5")
        try:
            save(path, size, n_classes, dtype, image)
            compare(
                path, n_classes, chosen.runs, threads, name, paper=n_classes == 14 and not image and dtype == "float16"
            )
        finally:
            if os.path.exists(path):
                os.unlink(path)


if __name__ == "__main__":
    main()
