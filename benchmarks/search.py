"""How long the whole lambda curve takes, as ratios to numpy on the same data in the same run.

    python benchmarks/search.py [--pixels 23] [--runs 5] [--folder /tmp] [--only wide]

Peers: numpy in memory for ONE lambda (argmax(z + lambda s) and bincount of label * K + prediction), and the
repaired Algorithm 2 with that as its evaluation. Ours: `search_lambda` end to end from a contiguous
HDF5 file (page cache warm), without process start and compilation. Each ratio is the median over
paired runs.

The wide rows are counted in memory, without the file and what is found once a run, by one thread on each side, in
processor time (least of the runs); numpy adds and takes the argmax in pieces that stay in its cache, for ONE lambda.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import h5py
import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from data import frequencies, make, save

import unoic_cli
from unoic_cli.data.batch import Batch, choose_split, make_scores
from unoic_cli.formats.block import LogitBlock, Source
from unoic_cli.kernels.lines import make_lines
from unoic_cli.machine import available_threads
from unoic_cli.tallies.path import PathTally


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


def numpy_wide(z: np.ndarray, bias: np.ndarray, size: int) -> np.ndarray:
    """Predictions at one lambda, in pieces of `size` bytes."""
    step = max(1, size // (4 * z.shape[1]))
    moved, out = np.empty((step, z.shape[1]), np.float32), np.empty(len(z), np.intp)
    for i in range(0, len(z), step):
        part = moved[: len(z) - i]
        part[...] = z[i : i + step]
        part += bias
        part.argmax(axis=1, out=out[i : i + step])
    return out


def numpy_wide32(z: np.ndarray, bias: np.ndarray, size: int) -> np.ndarray:
    """The same of float32, which is added without a copy."""
    step = max(1, size // (4 * z.shape[1]))
    moved, out = np.empty((step, z.shape[1]), np.float32), np.empty(len(z), np.intp)
    for i in range(0, len(z), step):
        part = np.add(z[i : i + step], bias, out=moved[: len(z) - i])
        part.argmax(axis=1, out=out[i : i + step])
    return out


def compare_wide(n: int, n_classes: int, dtype: str, unsure: float, ratio: float, runs: int) -> None:
    """Print one line for the wide rows: ours for 201 lambdas, numpy for one, and their ratio."""
    z, y = make(n, n_classes, dtype, ratio=ratio, unsure=unsure)
    s = -np.log(frequencies(n_classes, ratio))
    order = np.random.default_rng(1).permutation(n_classes)  # classes are seldom sorted by how frequent they are
    z, s, y = np.ascontiguousarray(z[:, order]), s[order], np.argsort(order)[y].astype(np.int32)
    tally = PathTally(make_lines(s, np.zeros(n_classes, bool), np.linspace(0.0, 2.0, 201)))
    source = unoic_cli.from_arrays(z, y)
    step = max(1, (1 << 22) // (z.itemsize * n_classes))
    batches = [whole_batch(source, z[i : i + step], y[i : i + step]) for i in range(0, n, step)]
    peer = numpy_wide if dtype == "float16" else numpy_wide32
    bias = (0.5 * s).astype(np.float32)
    ours, one = [], []
    for _ in range(runs + 1):
        ours.append(processor_seconds(lambda: [tally.update(batch) for batch in batches]))
        one.append(min(processor_seconds(peer, z, bias, size) for size in (1 << 16, 1 << 18)))
    a, b = min(ours[1:]), min(one[1:])
    print(
        f"wide K={n_classes:<5d} {dtype} {100 * unsure:3.0f} % unsure  {n:7d} rows  ours {a / z.size * 1e9:6.3f} ns"
        f"  numpy x1 {b / z.size * 1e9:6.3f} ns a score  ratio {a / b:5.2f}",
        flush=True,
    )


def whole_batch(source: Source, z: np.ndarray, y: np.ndarray) -> Batch:
    """Rows in memory as the counters take them."""
    raw = z.view(np.uint16) if z.dtype == np.float16 else z
    part = choose_split(LogitBlock(0, len(z), raw, labels=y), source, None)
    return Batch(len(z), make_scores(part, 1.0), None, y, 0, np.zeros(len(z), np.int32), part)


def processor_seconds(function: Callable[..., object], *args: object) -> float:
    """Processor time of one call."""
    begin = time.process_time()
    function(*args)
    return time.process_time() - begin


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
    for n_classes in (150, 1000, 8142):
        for unsure, ratio in ((0.06, 500.0), (0.2, 500.0), (1.0, 1.3e4)):  # settled mostly; one to three kinks; harder
            for dtype in ("float32", "float16"):
                if chosen.only in f"wide K={n_classes} {dtype}":
                    compare_wide((n << 1) // n_classes, n_classes, dtype, unsure, ratio, max(chosen.runs, 5))


if __name__ == "__main__":
    main()
