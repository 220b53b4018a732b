"""The same examples in every run (``UNOIC_FUZZ=1`` looks for new ones), and commands run in this process."""

from __future__ import annotations

import compileall
import contextlib
import fcntl
import json
import os
import pathlib
import resource
import signal
import sys
import time
import zlib

import pytest
from hypothesis import settings
from said import BESIDE

import unoic_cli
from unoic_cli import cli, compiling
from unoic_cli.cli import common

settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("UNOIC_FUZZ"):
    settings.load_profile("repeatable")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell's background job: commands would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
compiling.told()  # a cold cache changes nothing of what the tests look at; those of the note run processes of their own
common._SILENCE = 600.0  # nor does a machine with other things to do


def pytest_xdist_auto_num_workers():
    """One more than there are processors: tests of clusters and signals wait most of the time."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


BYTECODE = set()
"""Files that these tests made."""


def pytest_sessionstart(session):
    """Commands in processes of their own read bytecode, also where ``PYTHONDONTWRITEBYTECODE`` says to write none."""
    if sys.dont_write_bytecode and "PYTEST_XDIST_WORKER" not in os.environ:
        folder = pathlib.Path(unoic_cli.__file__).parent
        before = set(folder.rglob("*.pyc"))
        compileall.compile_dir(folder, quiet=2)
        BYTECODE.update(set(folder.rglob("*.pyc")) - before)


def pytest_sessionfinish(session):
    """None is left behind."""
    for path in BYTECODE:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in BYTECODE}:
        with contextlib.suppress(OSError):
            folder.rmdir()


class Compilations:
    """Locks between the workers: who needs a kernel that another one compiles waits for it, and loads it.

    What a test began and did not end (it was interrupted, or its kernel cannot be compiled) holds nobody up for longer
    than that test takes.
    """

    def __init__(self):
        self.file = None
        self.held = set()

    def open(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)

    def wait(self, place):
        """Until nobody else compiles it; not for ever, as whoever does may have been stopped in the middle of it."""
        end = time.monotonic() + MOST_SECONDS
        while time.monotonic() < end:
            try:
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except (BlockingIOError, PermissionError):
                time.sleep(0.02)
            except OSError:  # no locks here
                return
            else:
                self.held.add(place)
                return

    def release(self, *places):
        for place in places:
            with contextlib.suppress(OSError):
                fcntl.lockf(self.file, fcntl.LOCK_UN, 1, place)
            self.held.discard(place)


FORM = os.environ.get("UNOIC_KERNELS")
"""Of the kernels, in this whole run."""
MOST_SECONDS = 60.0
"""That a worker waits for a kernel of another one, before it compiles it itself."""
COMPILATIONS = Compilations()


@pytest.fixture(scope="session", autouse=True)
def kernels_are_compiled_once(tmp_path_factory):
    """A worker that needs a kernel which another one compiles waits for it, and loads it from the cache."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    from unoic_cli.kernels import jit

    load, save = jit._Cache.load_overload, jit._Cache.save_overload

    def place(cache, sig, codegen):
        return zlib.crc32(str(cache._path(sig, codegen)).encode())

    def load_overload(cache, sig, context):
        with contextlib.suppress(FileNotFoundError):
            COMPILATIONS.wait(place(cache, sig, context.codegen()))
        found = load(cache, sig, context)
        if found is not None:
            with contextlib.suppress(FileNotFoundError):
                COMPILATIONS.release(place(cache, sig, context.codegen()))
        return found

    def save_overload(cache, sig, data):
        save(cache, sig, data)
        with contextlib.suppress(FileNotFoundError):
            COMPILATIONS.release(place(cache, sig, data.codegen))

    COMPILATIONS.open(tmp_path_factory.getbasetemp().parent / "kernels.lock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jit._Cache, "load_overload", load_overload)
        patch.setattr(jit._Cache, "save_overload", save_overload)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """A kernel that is still not compiled holds up nobody else, and one that failed leaves no later test to numpy."""
    try:
        return (yield)
    finally:
        COMPILATIONS.release(*COMPILATIONS.held)
        if "unoic_cli.kernels" in sys.modules:
            kernel = sys.modules["unoic_cli.kernels"].Kernel
            kernel.fails, kernel.listener = False, None
        if os.environ.get("UNOIC_KERNELS") != FORM:
            os.environ.pop("UNOIC_KERNELS", None)
            os.environ.update({} if FORM is None else {"UNOIC_KERNELS": FORM})


@pytest.fixture(autouse=True)
def random_numbers_of_its_own(request):
    """A test draws the same numbers whatever ran before it in this worker."""
    rng = getattr(request.module, "RNG", None)
    if rng is not None:
        rng.bit_generator.state = type(rng.bit_generator)(zlib.crc32(request.node.nodeid.encode())).state


KERNELS = ["compiled"] if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") else ["compiled", "plain"]


@pytest.fixture(scope="module")
def kernels(request):
    """The form of the kernels that a test holds to the formulas."""
    return request.param


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Compiled kernels alone, or their plain twins alone, where a test is of both."""
    form = item.callspec.params.get("kernels") if hasattr(item, "callspec") else None
    with pytest.MonkeyPatch.context() as patch:
        if form is not None:
            patch.setenv("UNOIC_KERNELS", form)
        return (yield)


def pytest_generate_tests(metafunc):
    """What holds kernels to the formulas holds both forms of them; steps that a test compiles have one form."""
    marked = metafunc.definition.get_closest_marker
    if marked("kernel") is not None and marked("steps") is None:
        metafunc.fixturenames.append("kernels")
        metafunc.parametrize("kernels", KERNELS, indirect=True, scope="module")


def no_constant(name):
    raise AssertionError(f"{name} in JSON")


@pytest.fixture
def file_limit():
    """The context in which no file grows past ``size`` bytes: nor does the log of the tests, so it ends in the test."""

    @contextlib.contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def run(capfd):
    """Run in process; return exit code, stdout and stderr."""

    def runner(*args):
        code = cli.run([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return code, out, err

    return runner


@pytest.fixture
def answer(run):
    """Run a command that must succeed; return its JSON, parsed strictly."""

    def runner(*args):
        code, out, err = run(*args)
        assert code == 0, err
        assert all(line.startswith(BESIDE) for line in err.splitlines()), err
        return json.loads(out, parse_constant=no_constant)

    return runner


@pytest.fixture
def refuse(run):
    """Run a command that must fail with one line; return it."""

    def runner(code, *args):
        got, out, err = run(*args)
        lines = err.splitlines()
        assert (got, out, len(lines)) == (code, "", 1), err
        assert lines[0].startswith("unoic: error: ")
        assert ";" in lines[0]
        return lines[0].removeprefix("unoic: error: ")

    return runner
