"""Table 3's last lines: the whole curve from one read, beside Algorithm 2 and a plain grid on the same file.

    python experiments/timing.py

Seconds and peak memory of processes of their own, the best of three (of the long grid, one); kernels are compiled
before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tables import RUNS, markdown

GRID = """
import sys, h5py, numpy as np
with h5py.File(sys.argv[1]) as file:
    z, y, n = file["logits"][()].astype(np.float32), file["labels"][()], file["source_counts"][()]
s = -np.log(n / n.sum()).astype(np.float32)
best = max(((z + lam * s).argmax(1) == y).mean() for lam in np.arange(int(sys.argv[2])) * float(sys.argv[3]))
print(best)
"""


def measure(command: list[str], times: int) -> tuple[float, float]:
    """Seconds and MB of the best of some runs."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)} failed")
        found.append((time.perf_counter() - started, usage.ru_maxrss / 1e3))
    return min(found)


def main() -> None:
    """Measure and print."""
    file = str(RUNS / "blank" / "ce.val.h5")
    unoic = str(Path(sys.executable).with_name("unoic"))
    search = [unoic, "search-lambda", file, "--metric", "acc", "--choose", "best", "-q"]
    ways = {
        "one read, 201 lambdas (0:2:0.01)": [*search, "--range", "0:2:0.01"],
        "one read, 21 lambdas (0:2:0.1)": [*search, "--range", "0:2:0.1"],
        "Algorithm 2, repaired (0:2:0.1)": [*search[:-3], "-q", "--method", "paper"],
        "Algorithm 2, as printed": [*search[:-3], "-q", "--method", "paper-printed"],
        "numpy, 21 lambdas, all in memory": [sys.executable, "-c", GRID, file, "21", "0.1"],
        "numpy, 201 lambdas, all in memory": [sys.executable, "-c", GRID, file, "201", "0.01"],
    }
    rows = []
    for title, command in ways.items():
        seconds, memory = measure(command, 1 if "201" in command else 3)
        rows.append([title, f"{seconds:.1f}", f"{memory:,.0f}"])
        print(title, f"{seconds:.1f} s, {memory:,.0f} MB", file=sys.stderr, flush=True)
    print(markdown(["", "seconds", "MB"], rows))


if __name__ == "__main__":
    main()
