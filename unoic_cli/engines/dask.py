"""Dask: parts of a stream are described to the workers of a cluster, which read the data and send back counts.

Workers must have unoic of the same version, and see the inputs under the same names.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from unoic_cli import __version__
from unoic_cli.counters import Counters, Tally
from unoic_cli.engines.threads import Watch
from unoic_cli.errors import NoInputError, StorageError, UnoicError, UsageError

if TYPE_CHECKING:
    from unoic_cli.sweep import Stream

RETRIES = 5
"""How often a task is tried again when its worker is lost."""
_TASK_BYTES = 256 << 20
"""What a task reads, at most: about a second of work, so that losing a worker loses little."""
_PER_WORKER = 8
"""Tasks for each worker, at least, so that all end at about the same time."""
_CONNECT = 10.0


def count_part(packed: bytes, version: str) -> tuple[str, Any]:
    """Count a part of a stream, on a worker.

    Parameters
    ----------
    packed : bytes
        The pickled `unoic_cli.sweep.Stream`, with the part's spans alone.
    version : str
        Of the unoic that asks.

    Returns
    -------
    ("counted", counters of each tally), ("refused", error) or ("version", ours)
    """
    if version != __version__:
        return "version", __version__
    stream: Stream = pickle.loads(packed)
    try:
        return "counted", [tally.counters() for tally in stream.count(range(len(stream.spans)), 1)]
    except UnoicError as error:
        return "refused", error


class DaskEngine:
    """Counts streams on a cluster.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def count(self, stream: Stream, indices: Sequence[int], n_threads: int, watch: Watch) -> list[Tally]:
        """Count some of the spans; see `unoic_cli.sweep.Stream.count`.

        Raises
        ------
        UnoicError
            What the first part that failed found, or a cluster that is lost.
        """
        total = stream.tallies()
        parts = self._parts(stream, indices)
        done: list[int] = []
        futures = {
            self.client.submit(
                count_part, pickle.dumps(stream.part(part)), __version__, retries=RETRIES, pure=False
            ): part
            for part in parts
        }
        failed: tuple[int, UnoicError] | None = None
        waiting = set(futures)
        holder = _Held(total)
        try:
            while waiting:
                ended = {future for future in waiting if future.done()}
                for future in ended:
                    part = futures[future]
                    kind, found = self._result(future)
                    if kind == "version":
                        expected = f"expected {__version__}, as here"
                        raise UsageError("--engine", f"workers with unoic {found}", expected)
                    if kind == "refused":
                        failed = (part[0], found) if failed is None or part[0] < failed[0] else failed
                        continue
                    _absorb(total, found)
                    done += part
                waiting -= ended
                if failed is not None:  # only parts before it can still change which failure is the first
                    waiting = {future for future in waiting if futures[future][0] < failed[0]}
                watch.progress(len(done))
                if watch.due():
                    watch.look([holder], _places(indices, done))
                if not ended:
                    self._wait(waiting)
        except KeyboardInterrupt:
            watch.look([holder], _places(indices, done))
            raise
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self.client.cancel(list(futures))
        if failed is not None:
            raise failed[1]
        return total

    def _parts(self, stream: Stream, indices: Sequence[int]) -> list[list[int]]:
        """Runs of spans, one for each task."""
        weights = stream.weights()
        n_workers = max(1, len(self.client.scheduler_info()["workers"]))
        goal = min(_TASK_BYTES, max(1, sum(weights[i] for i in indices) // (n_workers * _PER_WORKER)))
        parts: list[list[int]] = []
        size = goal
        for index in indices:
            if size >= goal:
                parts.append([])
                size = 0
            parts[-1].append(index)
            size += weights[index]
        return parts

    def _wait(self, waiting: set[Any]) -> None:
        if not waiting:
            return
        time.sleep(0.05)
        if self.client.status not in ("running", "connecting"):
            raise StorageError("--scheduler", f"the connection is {self.client.status}", "expected a running cluster")

    @staticmethod
    def _result(future: Any) -> tuple[str, Any]:
        try:
            result: tuple[str, Any] = future.result()
        except UnoicError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            expected = (
                f"expected workers that have unoic {__version__} and stay (each part was tried {RETRIES + 1} times)"
            )
            raise StorageError("--engine", f"a part of the work failed on the cluster ({reason})", expected) from None
        return result


class _Held:
    """What was gathered so far, in the form of a worker."""

    def __init__(self, tallies: list[Tally]) -> None:
        self.tallies = tallies


def _places(indices: Sequence[int], done: Sequence[int]) -> list[int]:
    place = {index: at for at, index in enumerate(indices)}
    return [place[index] for index in done]


def _absorb(tallies: Sequence[Tally], counters: Sequence[Counters]) -> None:
    for tally, one in zip(tallies, counters, strict=True):
        tally.absorb(one)


def _security() -> Any:
    """TLS as distributed's own configuration has it (``distributed.comm.tls``)."""
    from distributed.security import Security

    make: Any = Security
    return make()


@contextlib.contextmanager
def connect(
    scheduler: str | None = None,
    scheduler_file: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
) -> Iterator[DaskEngine]:
    """A cluster: one that runs already, or one of processes on this machine.

    Parameters
    ----------
    scheduler : str, optional
        Its address, such as ``tcp://node7:8786`` or ``tls://node7:8786``.
    scheduler_file : str, optional
        What ``dask scheduler --scheduler-file`` wrote.
    workers : int, optional
        Start that many processes here, with one thread each.
    threads : int, optional
        Threads that were asked for: they have no meaning here.

    Raises
    ------
    UnoicError
        Dask is not installed, options that do not go together, or a cluster that does not answer.
    """
    if threads is not None:
        raise UsageError(
            "--threads", "--threads with --engine dask", "expected --workers, or the threads of its workers"
        )
    given = [value is not None for value in (scheduler, scheduler_file, workers)]
    if sum(given) > 1:
        raise UsageError("--engine", "several clusters", "expected one of --scheduler, --scheduler-file and --workers")
    if workers is not None and workers < 1:
        raise UsageError("--workers", str(workers), "expected at least 1")
    try:
        import distributed as library

        distributed: Any = library
    except ImportError:
        found = "dask without the package distributed"
        raise UsageError("--engine", found, "expected it to be installed: pip install 'unoic[dask]'") from None
    if scheduler_file is not None and not os.path.isfile(scheduler_file):
        raise NoInputError(scheduler_file, "no such file", "expected what dask scheduler --scheduler-file wrote")
    with contextlib.ExitStack() as stack:
        try:
            import dask

            # errors reach the user through results; the library's own log would repeat them on stderr
            stack.enter_context(dask.config.set({"distributed.logging": {"distributed": "critical"}}))
            if scheduler is None and scheduler_file is None:
                from unoic_cli.engines.threads import available_threads

                cluster = distributed.LocalCluster(
                    n_workers=workers or available_threads(), threads_per_worker=1, dashboard_address=None,
                    security=_security(),
                )  # fmt: skip
                stack.enter_context(cluster)
                client = distributed.Client(cluster, timeout=_CONNECT)
            elif scheduler_file is not None:
                client = distributed.Client(scheduler_file=scheduler_file, timeout=_CONNECT, set_as_default=False)
            else:
                client = distributed.Client(scheduler, timeout=_CONNECT, set_as_default=False)
            stack.enter_context(client)
        except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
            where = scheduler or scheduler_file or "--engine"
            reason = str(error).split("\n", maxsplit=1)[0] or type(error).__name__
            raise StorageError(
                where, f"no connection to the cluster ({reason})", "expected a running scheduler"
            ) from None
        yield DaskEngine(client)
