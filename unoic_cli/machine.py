"""What the machine gives this process."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def _quotas() -> Iterator[float]:
    """CPUs' worth of time that each control group around this process may use."""
    with contextlib.suppress(OSError):
        lines = _OWN.read_text().splitlines()
        for _, kinds, path in (line.split(":", 2) for line in lines):
            if kinds not in ("", "cpu,cpuacct", "cpu"):
                continue
            here = _CGROUPS / kinds / path.lstrip("/")
            for folder in (here, *here.parents):
                with contextlib.suppress(OSError, ValueError):
                    if not kinds:
                        quota, period = (folder / "cpu.max").read_text().split()
                    else:
                        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                    if quota != "max" and int(quota) > 0:
                        yield int(quota) / int(period)
                if folder == _CGROUPS:
                    break


def available_threads() -> int:
    """Threads to use: the least of the CPU affinity, the control groups' quotas, and ``SLURM_CPUS_PER_TASK``."""
    return max(1, min(thread_bounds().values()))


def thread_bounds() -> dict[str, int]:
    """What bounds the threads of this process, and to how many.

    Examples
    --------
    >>> min(thread_bounds().values()) == available_threads()
    True
    """
    affinity = hasattr(os, "sched_getaffinity")
    bounds = {"CPU affinity": len(os.sched_getaffinity(0))} if affinity else {"CPUs": os.cpu_count() or 1}
    quotas = [math.ceil(quota) for quota in _quotas()]
    if quotas:
        bounds["control group"] = min(quotas)
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm) > 0:
        bounds["SLURM_CPUS_PER_TASK"] = int(slurm)
    return bounds
