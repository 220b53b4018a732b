"""Worker threads that take spans in order, while the main thread waits and answers signals at once."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from unoic_cli.runs.ledger import Ledger


class Worker(Protocol):
    """One thread's part of the work."""

    def run(self, index: int) -> None:
        """Process the span of that index."""
        ...

    def close(self) -> None:
        """Let go of what the worker holds."""
        ...


W = TypeVar("W", bound=Worker)


class _Queue:
    """Span indices in order; the first failure (by index) wins and stops the rest."""

    def __init__(self, n_spans: int) -> None:
        self.n_spans = n_spans
        self.next = 0
        self.done: list[int] = []
        self.failure: tuple[int, BaseException] | None = None
        self.stopped = False
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()

    def take(self) -> int | None:
        with self.lock:
            if self.stopped or self.next >= self.n_spans:
                return None
            self.next += 1
            return self.next - 1

    def fail(self, index: int, error: BaseException) -> None:
        with self.lock:
            self.stopped = True
            if self.failure is None or index < self.failure[0]:
                self.failure = index, error


class _Seat:
    """One worker's thread: it holds its lock while it processes a span, so that others can look at it in between."""

    def __init__(self, queue: _Queue, worker: Worker) -> None:
        self.queue, self.worker = queue, worker
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        queue = self.queue
        try:
            while True:
                queue.gate.wait()  # a lock alone is not fair: a busy thread would take it again before others can
                with self.lock:
                    index = queue.take()
                    if index is None:
                        return
                    try:
                        self.worker.run(index)
                    except BaseException as error:  # handed to the main thread, which raises it
                        queue.fail(index, error)
                        return
                    queue.done.append(index)
        finally:
            self.ended.set()


class Watch(Protocol):
    """What happens while the main thread waits."""

    saves: bool
    """Whether `look` keeps what it sees; an interrupted run then does not wait long for its threads."""

    def progress(self, done: int) -> None:
        """Called now and then with the number of spans done."""
        ...

    def due(self) -> bool:
        """Whether the work should be looked at."""
        ...

    def look(self, workers: Sequence[Any], done: Sequence[int]) -> None:
        """Called between spans: what the workers hold is that of the spans `done`."""
        ...


class Teller:
    """A watch that tells how far the work has come, and knows when the run's ledger wants to be stored.

    Parameters
    ----------
    weights : iterable of int
        Bytes of each span.
    progress : callable or None
        Called with bytes done and bytes in all.
    ledger : Ledger, optional
        Of runs that keep one; a subclass puts into it what it sees.
    """

    def __init__(
        self, weights: Iterable[int], progress: Callable[[int, int], None] | None, ledger: Ledger | None = None
    ) -> None:
        self.bytes = list(itertools.accumulate(weights, initial=0))
        self.told, self.ledger = progress, ledger
        self.saves = ledger is not None and ledger.save is not None

    def progress(self, done: int) -> None:
        """Tell it; spans are done nearly in order."""
        if self.told is not None:
            self.told(self.bytes[done], self.bytes[-1])

    def due(self) -> bool:
        """Whether the ledger should be stored."""
        return self.ledger is not None and self.ledger.tick()

    def look(self, workers: Sequence[Any], done: Sequence[int]) -> None:
        """Nothing to be seen."""


PATIENCE = 1.2
"""Seconds that an interrupted run waits for spans to be finished before it does without them."""


def run(n_spans: int, make_worker: Callable[[], W], n_threads: int, watch: Watch | None = None) -> Sequence[W]:
    """Process spans 0 to n_spans - 1 and return the workers, closed.

    Parameters
    ----------
    n_spans : int
        How many spans there are; they are started in order.
    make_worker : callable
        Makes one worker for each thread.
    n_threads : int
        At most this many.
    watch : Watch, optional
        Told of progress; looks at the work when it is due, and when the run is interrupted.

    Raises
    ------
    BaseException
        What the failing span of the lowest index raised: all spans before it were processed, so the
        outcome does not depend on timing.
    """
    queue = _Queue(n_spans)
    workers = [make_worker() for _ in range(max(1, min(n_threads, n_spans)))]
    seats = [_Seat(queue, worker) for worker in workers]
    patience: float | None = None
    try:
        for seat in seats:
            seat.thread.start()
        for seat in seats:
            while not seat.ended.wait(0.1):
                if watch is not None:
                    watch.progress(len(queue.done))
                    if watch.due():
                        _look(watch, queue, seats)
        if watch is not None:
            watch.progress(len(queue.done))
    except KeyboardInterrupt:
        queue.stopped = True
        if watch is not None and watch.saves:
            patience = time.monotonic() + PATIENCE
            _look(watch, queue, seats, patience)
        raise
    finally:
        queue.stopped = True
        for seat in seats:  # not Thread.join: interrupted once, it may take a running thread for an ended one
            if seat.thread.ident is None or seat.ended.wait(
                None if patience is None else max(0.0, patience - time.monotonic())
            ):
                seat.worker.close()
    if queue.failure is not None:
        raise queue.failure[1]
    return workers


def _look(watch: Watch, queue: _Queue, seats: Sequence[_Seat], deadline: float | None = None) -> None:
    """Let `watch` look at the workers between spans; after the deadline, not at all."""
    held: list[_Seat] = []
    queue.gate.clear()
    try:
        for seat in seats:
            if not seat.lock.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic())):
                return
            held.append(seat)
        if queue.failure is None:
            watch.look([seat.worker for seat in seats], list(queue.done))
    finally:
        for seat in held:
            seat.lock.release()
        queue.gate.set()
