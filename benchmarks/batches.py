"""How long `LambdaPath` takes for a batch of one image, as ratios in the same run.

    python benchmarks/batches.py [--height 1024] [--width 2048] [--classes 19] [--range 0:6] [--runs 9]

Peers: reading the same bytes into memory (`np.fromfile`, page cache warm), and, where torch and torchmetrics are
installed, MulticlassJaccardIndex of z + lambda s for ONE lambda, on as many threads of torch. Ours counts every lambda
of the range, 0.01 apart. The first update of an object also looks at what may be wrong with the scores, and begins the
sample that standard errors are taken from; those after it are what a loop waits for. Each ratio is the median over
paired runs, without compilation; processor times are what is left of them on a busy host.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from data import frequencies, make

from unoic_cli import LambdaPath
from unoic_cli.machine import available_threads

PEERS = ("torch", "torchmetrics")
LAM = 0.5


def seconds(work: Callable[[], Any], busy: list[float]) -> float:
    """Wall time of a call; its processor time goes to a list."""
    begin, used = time.perf_counter(), time.process_time()
    work()
    busy.append(time.process_time() - used)
    return time.perf_counter() - begin


def image(height: int, width: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch (1, K, H, W) of float32 logits, and its labels."""
    z, y = make(height * width, n_classes, "float32")
    return np.ascontiguousarray(z.reshape(1, height, width, n_classes).transpose(0, 3, 1, 2)), y.reshape(
        1, height, width
    )


def one_lambda(
    z: np.ndarray, y: np.ndarray, s: np.ndarray, threads: int
) -> tuple[Callable[[], Any], Callable[[], float]]:
    """What updates torchmetrics' mean IoU at one lambda, and what it says then."""
    import torch
    from torchmetrics.classification import MulticlassJaccardIndex

    torch.set_num_threads(threads)
    metric = MulticlassJaccardIndex(s.size, average="none", ignore_index=255)
    scores, labels = torch.from_numpy(z), torch.from_numpy(y.astype(np.int64))
    slopes = torch.from_numpy((LAM * s).astype(z.dtype)).reshape(1, -1, 1, 1)
    return lambda: metric.update(scores + slopes, labels), lambda: metric.compute().numpy()


def compare(dtype: str, z: np.ndarray, y: np.ndarray, prior: np.ndarray, chosen: argparse.Namespace) -> None:
    """Print the lines of one type of scores."""
    threads = min(2, available_threads())
    path = os.path.join(chosen.folder, f"unoic-benchmark-{os.getpid()}.bin")
    torch_here = not missing()
    step, iou = one_lambda(z, y, -np.log(prior), threads) if torch_here else (None, None)
    try:
        z.tofile(path)
        LambdaPath(prior.size, source_prior=prior, threads=threads, range=chosen.range).update(z, y)  # compiles
        first, later, read, theirs = list[float](), list[float](), list[float](), list[float]()
        busy = [list[float]() for _ in range(4)]
        for _ in range(chosen.runs):
            one = LambdaPath(prior.size, source_prior=prior, threads=threads, range=chosen.range)
            read.append(seconds(lambda: np.fromfile(path, z.dtype), busy[0]))
            first.append(seconds(partial(one.update, z, y), busy[1]))
            later.append(seconds(partial(one.update, z, y), busy[2]))
            if step is not None:
                theirs.append(seconds(step, busy[3]))
    finally:
        if os.path.exists(path):
            os.unlink(path)
    found = one.compute()

    def ratio(ours: list[float], others: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(ours, others, strict=True))

    print(
        f"{dtype} {z.nbytes / 1e6:5.0f} MB  read {statistics.median(read):.4f} s  "
        f"update {statistics.median(later):.4f} s ({ratio(later, read):.2f} of reading)  "
        f"first update {statistics.median(first):.4f} s ({ratio(first, read):.2f} of reading)",
        flush=True,
    )
    cpu = [min(one) for one in busy if one]
    print(
        f"        least processor time: read {cpu[0]:.4f} s, update {cpu[2]:.4f} s ({cpu[2] / threads / cpu[0]:.2f} of "
        f"reading on {threads} idle threads), first update {cpu[1]:.4f} s ({cpu[1] / threads / cpu[0]:.2f})",
        flush=True,
    )
    if iou is not None:
        place = int(np.flatnonzero(found.lams == LAM)[0])
        hits, predicted = found.counts.hits[place], found.counts.predicted[place]
        ours = hits / (found.counts.support[0] + predicted - hits)
        far = float(np.abs(ours - iou()).max())
        print(
            f"        torchmetrics, one lambda {statistics.median(theirs):.4f} s; {found.lams.size} lambdas are "
            f"{ratio(later, theirs):.2f} of it ({found.lams.size * statistics.median(theirs):.0f} s for as many); its "
            f"IoUs differ by {far:.1g} at most",
            flush=True,
        )


def missing() -> list[str]:
    """Peers that are not installed."""
    return [name for name in PEERS if importlib.util.find_spec(name) is None]


def main() -> None:
    """Run both types of scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--range", default="0:6")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    chosen = parser.parse_args()
    size = f"{chosen.width} x {chosen.height}, K={chosen.classes}, lambdas {chosen.range}"
    print(f"{min(2, available_threads())} threads, numpy {np.__version__}; {size}")
    if missing():
        print(f"without torchmetrics' part: {' and '.join(missing())} missing (pip install torch torchmetrics)")
    z, y = image(chosen.height, chosen.width, chosen.classes)
    for dtype in ("float32", "float16"):
        compare(dtype, z.astype(dtype), y, frequencies(chosen.classes), chosen)


if __name__ == "__main__":
    main()
