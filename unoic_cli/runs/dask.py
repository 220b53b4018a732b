"""Dask: parts of a stream are described to the workers of a cluster, which read the data and send back counts.

Workers must have unoic of the same version, and see the very inputs, on storage that they share, under their absolute
names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from unoic_cli.errors import DataError, NoInputError, StorageError, UnoicError, UsageError
from unoic_cli.machine import available_threads
from unoic_cli.runs.threads import Watch
from unoic_cli.tallies.tally import Counters, Tally, added
from unoic_cli.version import __version__

if TYPE_CHECKING:
    from unoic_cli.runs.sweep import Stream

T = TypeVar("T")

RETRIES = 2
"""How often a part is tried again that failed for a reason which is not ours. Parts of lost workers are, too, as often
as the scheduler's ``distributed.scheduler.allowed-failures`` says."""
_TASK_BYTES = 256 << 20
"""What a task reads, at most: about a second of work, so that losing a worker loses little."""
_PER_THREAD = 8
"""Tasks for each thread of the workers, at least, so that all end at about the same time."""
_CONNECT = 10.0
_NO_WORKERS = 60.0
"""Seconds that a run waits for a cluster which has no workers."""
_ASK = 10.0
"""Seconds for a question to the scheduler."""
_SILENT = 60.0
"""Seconds that a run goes on while the scheduler answers none of them."""
_PAUSE = 0.05
_LOGGERS = ("distributed", "tornado", "asyncio")


def count_part(packed: bytes, version: str) -> tuple[str, Any]:
    """Count a part of a stream, on a worker.

    Parameters
    ----------
    packed : bytes
        The pickled `unoic_cli.runs.sweep.Stream`, with the part's spans alone.
    version : str
        Of the unoic that asks.

    Returns
    -------
    ("counted", counters of each tally), ("refused", error) or ("version", ours)
    """
    if version != __version__:
        return "version", __version__
    try:
        stream: Stream = pickle.loads(packed)
        return "counted", [tally.counters() for tally in stream.count(range(len(stream.spans)), 1)]
    except UnoicError as error:
        return "refused", error


class DaskEngine:
    """Counts streams on a cluster.

    Parameters
    ----------
    client : distributed.Client
    where : str
        The cluster, for messages.
    expected : int
        Threads of workers that will be there, at least.
    """

    def __init__(self, client: Any, where: str = "--engine", expected: int = 1) -> None:
        self.client, self.where, self.expected = client, where, expected

    def count(self, stream: Stream, indices: Sequence[int], n_threads: int, watch: Watch) -> list[Tally]:
        """Count some of the spans; see `unoic_cli.runs.sweep.Stream.count`.

        Raises
        ------
        UnoicError
            What the first part that failed found, or a cluster that is lost.
        """
        gathered = _Gathered(stream)
        futures: dict[Any, list[int]] = {}
        try:
            for part in self._parts(stream, indices):
                packed = pickle.dumps(stream.part(part))
                futures[self._submit(packed)] = part
            self._gather(futures, gathered, indices, watch)
        except (KeyboardInterrupt, StorageError):
            watch.look([gathered], _places(indices, gathered.done))
            raise
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone
                if self.client.status == "running":
                    _within(_ASK, lambda: self.client.cancel(list(futures)))
        return gathered.tallies

    def _submit(self, packed: bytes) -> Any:
        try:
            return self.client.submit(count_part, packed, __version__, retries=RETRIES, pure=False)
        except Exception as error:
            raise self._lost(error) from None

    def _gather(self, futures: dict[Any, list[int]], gathered: _Gathered, indices: Sequence[int], watch: Watch) -> None:
        failed: tuple[int, UnoicError] | None = None
        waiting, patience = set(futures), _Patience(self.client)
        while waiting:
            answered = set()
            for future in [future for future in waiting if future.done()]:
                part = futures[future]
                found = self._result(future)
                if found is None:
                    continue
                answered.add(future)
                if isinstance(found, UnoicError):
                    failed = (part[0], found) if failed is None or part[0] < failed[0] else failed
                else:
                    gathered.add(found, part)
                    watch.progress(len(gathered.done))
                if watch.due():
                    watch.look([gathered], _places(indices, gathered.done))
            waiting -= answered
            if failed is not None:  # only parts before it can still change which failure is the first
                waiting = {future for future in waiting if futures[future][0] < failed[0]}
            watch.progress(len(gathered.done))
            if watch.due():
                watch.look([gathered], _places(indices, gathered.done))
            if waiting and not answered:
                time.sleep(_PAUSE)
                if self.client.status != "running":
                    raise self._lost(None)
                missing = patience.ends()
                if missing is not None:
                    raise StorageError(self.where, *missing)
        if failed is not None:
            raise failed[1]

    def _parts(self, stream: Stream, indices: Sequence[int]) -> list[list[int]]:
        """Runs of spans, one for each task."""
        weights = stream.weights()
        try:
            n_threads = max(self.expected, sum(_within(_SILENT, self.client.nthreads).values()))
        except Exception as error:
            raise self._lost(error) from None
        goal = min(_TASK_BYTES, max(1, sum(weights[i] for i in indices) // (n_threads * _PER_THREAD)))
        parts: list[list[int]] = []
        size = goal
        for index in indices:
            if size >= goal:
                parts.append([])
                size = 0
            parts[-1].append(index)
            size += weights[index]
        return parts

    def _result(self, future: Any) -> list[Counters] | UnoicError | None:
        """What came of a part: counters, or the error that it met; None where its worker is lost meanwhile."""
        try:
            if future.status == "error":
                raise future.exception(timeout=_ASK)
            kind, found = future.result(timeout=_ASK)
        except Exception as error:
            if self.client.status != "running" or future.cancelled():
                raise self._lost(error) from None
            if future.status != "error":
                return None
            reason = f"{type(error).__name__}: {error}"
            expected = f"expected workers that have unoic {__version__}, memory, and the inputs"
            raise StorageError("--engine", f"a part of the work failed on the cluster ({reason})", expected) from None
        if kind == "version":
            return UsageError("--engine", f"workers with unoic {found}", f"expected {__version__}, as here")
        result: list[Counters] | UnoicError = found
        return result

    def _lost(self, error: Exception | None) -> StorageError:
        reason = "" if error is None else f" ({type(error).__name__})"
        return StorageError(self.where, f"the connection to the cluster is lost{reason}", "expected one that stays")


class _Patience:
    """Whether a cluster has workers, or may still get some; and whether its scheduler answers."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.seen = self.answered = time.monotonic()
        self.asked = 0.0

    def ends(self) -> tuple[str, str] | None:
        """What was found and expected when the scheduler has not answered, or had no workers, for a while."""
        now = time.monotonic()
        if now - self.asked < 1:
            return None
        self.asked = now
        try:
            if _within(_ASK, self.client.nthreads):
                self.seen = now
            self.answered = time.monotonic()
        except TimeoutError:  # a node that hangs keeps its connections
            if time.monotonic() - self.answered < _SILENT:
                return None
            return f"a scheduler that does not answer for {_SILENT:.0f} seconds", "expected one that does"
        except Exception:  # a lost connection, which shows in the client's status
            return None
        if now - self.seen < _NO_WORKERS:
            return None
        return f"no workers for {_NO_WORKERS:.0f} seconds", "expected dask worker processes"


def _within(seconds: float, call: Callable[[], T]) -> T:
    """What a call of the library returns, which may wait for ever; its thread is left to itself then.

    Raises
    ------
    TimeoutError
        It takes longer. Signals are answered meanwhile.
    """
    found: list[T] = []
    failed: list[Exception] = []
    ended = threading.Event()

    def run() -> None:
        try:
            found.append(call())
        except Exception as error:  # handed to the thread that waits
            failed.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, daemon=True).start()
    if not ended.wait(seconds):
        raise TimeoutError
    if failed:
        raise failed[0]
    return found[0]


class _Gathered:
    """What was counted so far, in the form of a worker; a signal finds all of a part in it, or nothing."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._held: tuple[list[Counters], list[int]] = ([tally.counters() for tally in stream.tallies()], [])

    def add(self, counters: Sequence[Counters], part: Sequence[int]) -> None:
        """Take over the counters of a part."""
        ours, done = self._held
        self._held = [added(a, b) for a, b in zip(ours, counters, strict=True)], [*done, *part]

    @property
    def done(self) -> list[int]:
        """Indices of the spans that are counted."""
        return self._held[1]

    @property
    def tallies(self) -> list[Tally]:
        """Filled with what was counted."""
        tallies = self._stream.tallies()
        for tally, counters in zip(tallies, self._held[0], strict=True):
            tally.absorb(counters)
        return tallies


def _places(indices: Sequence[int], done: Sequence[int]) -> list[int]:
    place = {index: at for at, index in enumerate(indices)}
    return [place[index] for index in done]


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
    if scheduler_file is not None and not os.path.isfile(scheduler_file):
        raise NoInputError(scheduler_file, "no such file", "expected what dask scheduler --scheduler-file wrote")
    where = scheduler or scheduler_file or "--engine"
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # of other versions of Python or of libraries: ours is checked
        try:
            import distributed as library

            distributed: Any = library
        except ImportError:
            found = "dask without the package distributed"
            raise UsageError("--engine", found, "expected it to be installed: pip install 'unoic[dask]'") from None
        stack.enter_context(_silence())
        try:
            client = _client(distributed, stack, scheduler, scheduler_file, workers)
            stack.callback(_close, client)
        except DataError:
            raise
        except Exception as error:
            reason = str(error).split("\n", maxsplit=1)[0] or type(error).__name__
            found = f"no connection to the cluster ({reason})"
            raise StorageError(where, found, "expected a running scheduler") from None
        own = scheduler is None and scheduler_file is None
        yield DaskEngine(client, where, (workers or available_threads()) if own else 1)


def _close(client: Any) -> None:
    """Let go of a cluster, whether it answers or not."""
    with contextlib.suppress(Exception):
        _within(_ASK, client.close)


def _client(
    distributed: Any, stack: contextlib.ExitStack, scheduler: str | None, file: str | None, workers: int | None
) -> Any:
    """A client of a cluster that runs already, or of one that ends with the stack."""
    common: dict[str, Any] = {"timeout": _CONNECT, "set_as_default": False}
    if file is not None:
        try:
            with open(file, encoding="utf-8") as content:  # the library waits for a file that makes no sense
                scheduler = str(json.load(content)["address"])
        except (OSError, ValueError, LookupError, TypeError):
            expected = "expected what dask scheduler --scheduler-file wrote"
            raise DataError(file, "no address of a scheduler", expected) from None
    if scheduler is not None:
        _knock(distributed, scheduler)
        return distributed.Client(scheduler, **common)
    n = workers or available_threads()
    security = _security()
    cluster = distributed.LocalCluster(
        n_workers=0, processes=False, dashboard_address=None, security=security,
        protocol="tls://" if security.require_encryption else "tcp://",
    )  # fmt: skip
    stack.callback(cluster.close)
    stack.enter_context(_processes(cluster.scheduler_address, n))
    return distributed.Client(cluster.scheduler_address, security=security, **common)


@contextlib.contextmanager
def _processes(address: str, n: int) -> Iterator[None]:
    """Workers of our own, in a session of their own: Ctrl-C on a terminal is for this process alone."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--memory-limit", "0"]
    command += ["--no-nanny", "--no-dashboard", "--death-timeout", "60"]
    quiet = subprocess.DEVNULL
    running: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(n):
            running.append(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True))
        yield
    finally:
        for process in running:
            process.kill()  # what they count is worth nothing to others
        for process in running:
            process.wait()


def _knock(distributed: Any, address: str) -> None:
    """Ask whether a scheduler is there: a client that has failed to connect hangs when it is closed."""

    async def ask() -> str:
        arguments = _security().get_connection_args("client")
        async with distributed.rpc(address, timeout=_CONNECT, connection_args=arguments) as remote:
            return str((await asyncio.wait_for(remote.identity(), _CONNECT))["type"])

    found: list[Any] = []

    def run() -> None:
        try:
            found.append(asyncio.run(ask()))
        except BaseException as error:  # handed to the main thread
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    if found[0] != "Scheduler":
        raise ValueError(f"a {found[0].lower()} answers")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the library's own log off stderr: errors reach the user through results."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _LOGGERS]
    before = {name: logging.getLogger(name).disabled for name in names}
    for name in names:
        logging.getLogger(name).disabled = True
    yield
    for name, disabled in before.items():  # not after an error: what is left of the library may log it later
        logging.getLogger(name).disabled = disabled
