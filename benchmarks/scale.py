"""How far the commands are from reading the bytes, and how they grow: ratios, each measured in one run.

    python benchmarks/scale.py [--pixels 25] [--to 28] [--runs 9] [--folder /tmp] [--only read threads growth peers]
    python benchmarks/scale.py --billion [--folder /tmp]

read      search and evaluate against reading the same bytes with two threads (os.preadv into reused 2 MB buffers)
threads   one thread against two
growth    nanoseconds per unit and peak memory of `search-lambda`, 2^22 units and more, each in a process of its own
peers     numpy, and torchmetrics where it is installed, on the same scores in memory, per lambda
--billion one billion units end to end: a 29 GB file, generated, searched and deleted

Data: K = 14, float16, rows (N, K) and planes (N, K, 512, 512), contiguous HDF5, one block again and again; the page
cache is warm unless said otherwise. Runs of one comparison alternate; figures are medians of ratios, and least times.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

sys.path.insert(0, os.path.dirname(__file__))
from data import frequencies, make

import unoic_cli
from unoic_cli.machine import available_threads

K = 14
IMAGE = 512
MEASURE = """
import sys, time
import unoic_cli
path, threads = sys.argv[1], int(sys.argv[2])
unoic_cli.search_lambda(sys.argv[3], range="0:2", threads=threads)
begin = time.perf_counter()
unoic_cli.search_lambda(path, range="0:2", threads=threads)
seconds = time.perf_counter() - begin
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # not the parent's
print(seconds, int(peak.split()[1]) / 1024)
"""


def save(path: str, n: int, image: int = 0) -> None:
    """Write n units: libhdf5 lays the file out, and one block is written again and again beside it."""
    block = min(n, IMAGE * IMAGE)
    z, y = make(block, K)
    shape: tuple[int, ...] = (n, K)
    if image:
        z, shape = np.ascontiguousarray(z.T), (n // image**2, K, image, image)
    with h5py.File(path, "w", libver="latest") as file:
        early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        places = []
        for name, kind, extent in (
            ("logits", h5py.h5t.IEEE_F16LE, shape),
            ("labels", h5py.h5t.STD_U8LE, (shape[0], *shape[2:])),
        ):
            space = h5py.h5s.create_simple(extent)
            places.append(h5py.h5d.create(file.id, name.encode(), kind, space, early).get_offset())
        file["source_prior"] = frequencies(K)
    handle = os.open(path, os.O_WRONLY)
    try:
        for i in range(-(-n // block)):
            rest = min(block, n - i * block)
            for array, place, size in ((z, places[0], z.nbytes // block), (y, places[1], 1)):
                data = memoryview(array.reshape(-1).view(np.uint8))[: rest * size]
                os.pwrite(handle, data, place + i * block * size)
    finally:
        os.close(handle)


def read(path: str, threads: int, size: int = 2 << 20) -> None:
    """Read a file into reused buffers, and do nothing."""
    handle, lock, after = os.open(path, os.O_RDONLY), threading.Lock(), [0]
    total = os.fstat(handle).st_size

    def work() -> None:
        buffer = memoryview(bytearray(size))
        while True:
            with lock:
                at = after[0]
                after[0] += size
            if at >= total:
                return
            os.preadv(handle, [buffer], at)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    os.close(handle)


def seconds(function: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - begin


class Run:
    """Alternating runs of several functions."""

    def __init__(self, runs: int, functions: dict[str, Callable[[], Any]]) -> None:
        for function in functions.values():
            function()
        self.times: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(runs):
            for name, function in functions.items():
                self.times[name].append(seconds(function))

    def least(self, name: str) -> float:
        """The shortest time."""
        return min(self.times[name])

    def ratio(self, a: str, b: str) -> float:
        """The median of a / b, run by run."""
        return statistics.median(x / y for x, y in zip(self.times[a], self.times[b], strict=True))


def search(path: str, threads: int) -> None:
    """201 lambdas."""
    unoic_cli.search_lambda(path, range="0:2", threads=threads)


def evaluate(path: str, threads: int) -> None:
    """Scores as they are."""
    unoic_cli.evaluate(path, threads=threads)


def against_reading(path: str, n: int, runs: int, name: str, parts: list[str]) -> None:
    """(a) and (b): commands against reading, one thread against two."""
    found = Run(
        runs,
        {
            "read1": lambda: read(path, 1),
            "read2": lambda: read(path, 2),
            "search1": lambda: search(path, 1),
            "search2": lambda: search(path, 2),
            "evaluate1": lambda: evaluate(path, 1),
            "evaluate2": lambda: evaluate(path, 2),
        },
    )
    if "read" in parts:
        size = os.path.getsize(path) / found.least("read2") / 1e9
        print(f"{name}, {n:,} units; reading with 2 threads: {found.least('read2') * 1e3:.0f} ms, {size:.1f} GB/s")
        for command in ("search", "evaluate"):
            least = found.least(f"{command}2")
            print(
                f"  {command:8s} 2 threads {least * 1e3:6.0f} ms, {least / n * 1e9:5.2f} ns a unit: "
                f"{found.ratio(f'{command}2', 'read2'):.2f} times as long as reading "
                f"(least against least {least / found.least('read2'):.2f})",
                flush=True,
            )
    if "threads" in parts:
        gains = ", ".join(f"{c} {found.ratio(f'{c}1', f'{c}2'):.2f}" for c in ("read", "search", "evaluate"))
        print(f"  1 thread takes so many times as long as 2: {gains}", flush=True)


def growth(folder: str, largest: int, threads: int) -> None:
    """(c): time per unit and peak memory, in processes of their own."""
    small = os.path.join(folder, f"unoic-scale-{os.getpid()}-small.h5")
    save(small, 1 << 16)
    command = [sys.executable, "-c", MEASURE, small, str(threads), small]
    try:
        subprocess.run(command, capture_output=True, check=True)  # compiling takes memory, too: not in what is measured
        for exponent in range(22, largest + 1, 2):
            path, n = os.path.join(folder, f"unoic-scale-{os.getpid()}-{exponent}.h5"), 1 << exponent
            try:
                save(path, n)
                read(path, 2)
                command[3] = path
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                taken, memory = float(output[0]), float(output[1])
                print(
                    f"  2^{exponent} units, {os.path.getsize(path) / 1e9:6.2f} GB: {taken:8.3f} s, "
                    f"{taken / n * 1e9:5.2f} ns a unit, peak {memory:.0f} MB",
                    flush=True,
                )
            finally:
                remove(path)
    finally:
        remove(small)


def peers(runs: int) -> None:
    """(d): numpy and torchmetrics in memory, per lambda, against ours in memory for 201 lambdas."""
    n = 1 << 20
    z, y = make(n, K)
    s = -np.log(frequencies(K)).astype(np.float32)
    prior = ",".join(map(repr, frequencies(K).tolist()))
    wide = z.astype(np.float32)

    def numpy_one() -> None:
        predictions = (wide + np.float32(0.5) * s).argmax(axis=1)
        np.bincount(y.astype(np.int64) * K + predictions, minlength=K * K)

    functions: dict[str, Callable[[], Any]] = {
        "ours": lambda: unoic_cli.search_lambda(z, y, source_prior=prior, range="0:2", threads=2),
        "numpy": numpy_one,
    }
    try:
        import torch
        from torchmetrics.classification import MulticlassConfusionMatrix
    except ImportError:
        print("  torchmetrics: not installed, left out")
    else:
        metric = MulticlassConfusionMatrix(K)
        scores, labels, slopes = torch.from_numpy(wide), torch.from_numpy(y.astype(np.int64)), torch.from_numpy(s)
        functions["torchmetrics"] = lambda: metric(scores + 0.5 * slopes, labels)
    found = Run(runs, functions)
    print(f"  ours, 201 lambdas in memory: {found.least('ours') / n * 1e9:.2f} ns a unit")
    for name in list(functions)[1:]:
        print(
            f"  {name}, one lambda: {found.least(name) / n * 1e9:.1f} ns a unit; for 201 lambdas "
            f"{201 * found.ratio(name, 'ours'):.0f} times as long as ours",
            flush=True,
        )


def billion(folder: str, threads: int) -> None:
    """(e): one billion units end to end."""
    path, n = os.path.join(folder, f"unoic-scale-{os.getpid()}-billion.h5"), 10**9
    try:
        print(f"  writing took {seconds(save, path, n):.0f} s", flush=True)
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
        for state in ("cold (dropped from the page cache)", "again (warm as far as memory holds it)"):
            taken, reading = seconds(search, path, threads), seconds(read, path, 2)
            print(
                f"  {state}: search {taken:.1f} s, {taken / n * 1e9:.2f} ns a unit; reading after it {reading:.1f} s",
                flush=True,
            )
    finally:
        remove(path)


def remove(path: str) -> None:
    """Delete a file, if it is there."""
    if os.path.exists(path):
        os.unlink(path)


def machine() -> str:
    """What this runs on."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (unoic_cli, np, h5py))
    return (
        f"{model}, {os.cpu_count()} cores ({available_threads()} given), Python {platform.python_version()}, {versions}"
    )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=25, help="log2 of the number of units of (read) and (threads)")
    parser.add_argument("--to", type=int, default=28, help="log2 of the largest number of units of (growth)")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--only", nargs="+", default=["read", "threads", "growth", "peers"])
    parser.add_argument("--billion", action="store_true")
    chosen = parser.parse_args()
    print(machine(), flush=True)
    if chosen.billion:
        billion(chosen.folder, 2)
        return
    if {"read", "threads"} & set(chosen.only):
        n = 1 << chosen.pixels
        for name, image in (("rows (N, K)", 0), ("planes (N, K, 512, 512)", IMAGE)):
            path = os.path.join(chosen.folder, f"unoic-scale-{os.getpid()}.h5")
            try:
                save(path, n, image)
                against_reading(path, n, chosen.runs, name, chosen.only)
            finally:
                remove(path)
    if "growth" in chosen.only:
        print("search-lambda, 201 lambdas, 2 threads, rows; peak memory is that of the process")
        growth(chosen.folder, chosen.to, 2)
    if "peers" in chosen.only:
        print("on 2^20 units in memory, float32 for the peers")
        peers(chosen.runs)


if __name__ == "__main__":
    main()
