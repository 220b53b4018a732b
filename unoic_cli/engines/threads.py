"""Worker threads that take spans in order, while the main thread waits and answers signals at once."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar


class Worker(Protocol):
    """One thread's part of the work."""

    def run(self, index: int) -> None:
        """Process the span of that index."""
        ...

    def close(self) -> None:
        """Let go of what the worker holds."""
        ...


W = TypeVar("W", bound=Worker)


def available_threads() -> int:
    """Threads to use: the least of the CPU affinity, the cgroup's quota, and ``SLURM_CPUS_PER_TASK``."""
    counts = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            counts.append(math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm) > 0:
        counts.append(int(slurm))
    return max(1, min(counts))


class _Queue:
    """Span indices in order; the first failure (by index) wins and stops the rest."""

    def __init__(self, n_spans: int) -> None:
        self.n_spans = n_spans
        self.next = 0
        self.done = 0
        self.failure: tuple[int, BaseException] | None = None
        self.stopped = False
        self.lock = threading.Lock()

    def take(self) -> int | None:
        with self.lock:
            if self.stopped or self.next >= self.n_spans:
                return None
            self.next += 1
            return self.next - 1

    def finished(self) -> None:
        with self.lock:
            self.done += 1

    def fail(self, index: int, error: BaseException) -> None:
        with self.lock:
            self.stopped = True
            if self.failure is None or index < self.failure[0]:
                self.failure = index, error


def _work(queue: _Queue, worker: Worker, ended: threading.Event) -> None:
    try:
        while (index := queue.take()) is not None:
            try:
                worker.run(index)
            except BaseException as error:  # handed to the main thread, which raises it
                queue.fail(index, error)
                return
            queue.finished()
    finally:
        ended.set()


def run(
    n_spans: int, make_worker: Callable[[], W], n_threads: int, progress: Callable[[int], None] | None = None
) -> Sequence[W]:
    """Process spans 0 to n_spans - 1 and return the workers, closed.

    Parameters
    ----------
    n_spans : int
        How many spans there are; they are started in order.
    make_worker : callable
        Makes one worker for each thread.
    n_threads : int
        At most this many.
    progress : callable, optional
        Called by the main thread now and then with the number of spans done.

    Raises
    ------
    BaseException
        What the failing span of the lowest index raised: all spans before it were processed, so the
        outcome does not depend on timing.
    """
    queue = _Queue(n_spans)
    workers = [make_worker() for _ in range(max(1, min(n_threads, n_spans)))]
    started: list[threading.Event] = []
    try:
        for worker in workers:
            ended = threading.Event()
            threading.Thread(target=_work, args=(queue, worker, ended), daemon=True).start()
            started.append(ended)
        for ended in started:
            while not ended.wait(0.1):
                if progress is not None:
                    progress(queue.done)
        if progress is not None:
            progress(queue.done)
    finally:
        queue.stopped = True
        for ended in started:  # not Thread.join: interrupted once, it may take a running thread for an ended one
            ended.wait()
        for worker in workers:
            worker.close()
    if queue.failure is not None:
        raise queue.failure[1]
    return workers
