"""Peak memory of whole commands on a 1 GB and a 4 GB file (generated, then deleted).

python benchmarks/memory.py [--gigabytes 1 4] [--folder /tmp] [--only TEXT]

Modalities are two names of one file (a hard link), each as large as is said.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
from data import save

MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def peak(arguments: list[str]) -> tuple[float, float]:
    """Peak resident megabytes and seconds of one command, which must succeed."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "unoic_cli", *arguments]
    code, megabytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if code != "0":
        raise RuntimeError(f"{arguments} ended with {code}")
    return float(megabytes), time.perf_counter() - begin


def main() -> None:
    """Print a line for each file and command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--only", default="", help="commands whose label contains this")
    chosen = parser.parse_args()
    forms = [
        ("float16 rows, K=14", 14, "float16", 0),
        ("float16 planes, K=14", 14, "float16", 512),
        ("float32 rows, K=1000", 1000, "float32", 0),
    ]
    for name, n_classes, dtype, image in forms:
        for size in chosen.gigabytes:
            unit = n_classes * (2 if dtype == "float16" else 4)
            block = 1 << 18 if n_classes < 1000 else 1 << 13
            n = size * (1 << 30) // unit // block * block
            path = os.path.join(chosen.folder, f"unoic-memory-{os.getpid()}.h5")
            twin = os.path.join(chosen.folder, f"unoic-memory-{os.getpid()}-twin.h5")
            out = os.path.join(chosen.folder, f"unoic-memory-{os.getpid()}-out.h5")
            try:
                save(path, n, n_classes, dtype, image, repeat=True, block=block)
                os.link(path, twin)
                both = [f"rgb={path}", f"depth={twin}"]
                commands = {
                    "search-lambda": ["search-lambda", path],
                    "search-lambda --folds 3": ["search-lambda", path, "--folds", "3"],
                    "evaluate": ["evaluate", path, "--lambda", "1"],
                    "calibrate": ["calibrate", path, "--lambda", "1", "-o", out, "--force"],
                    "fit-delta": ["fit-delta", path],
                    "fit-temperature": ["fit-temperature", path],
                    "fused search, 21 lambdas": ["search-lambda", *both, "--range", "0:2:0.1"],
                    "fused evaluate, delta fit": ["evaluate", *both, "--delta", "fit"],
                    "fuse": ["fuse", *both, "-o", out, "--force"],
                }
                for label, arguments in commands.items():
                    if chosen.only not in label:
                        continue
                    megabytes, seconds = peak(arguments)
                    print(f"{name:22s} {size} GB  {label:26s} {megabytes:6.0f} MB  {seconds:6.1f} s", flush=True)
            finally:
                for leftover in (path, twin, out):
                    if os.path.exists(leftover):
                        os.unlink(leftover)


if __name__ == "__main__":
    main()
