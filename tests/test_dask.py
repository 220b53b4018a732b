"""Dask: real schedulers and workers on loopback, some of which die; the bytes are those of the threads."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time

import forked
import h5py
import numpy as np
import pytest
from said import without_notes

from unoic_cli import search_lambda
from unoic_cli.runs import state, sweep

pytest.importorskip("distributed")

DATA_ERROR, NO_INPUT, STORAGE, INTERRUPTED, USAGE = 65, 66, 74, 75, 2
K = 4
COUNTS = [50, 20, 8, 2]
PRELOAD = """
import os, time
from unoic_cli.runs import sweep
from unoic_cli.runs import dask

if not hasattr(sweep, "preloaded"):
    sweep.preloaded, count, opened = True, sweep.Stream.count, os.open

    def slow(*args):
        time.sleep(float(os.environ.get("SLOW", "0")))
        return count(*args)

    def blind(path, *args, **more):
        if str(path).endswith(os.environ["BLIND"]):
            raise FileNotFoundError(2, "No such file or directory", path)
        return opened(path, *args, **more)

    sweep.Stream.count = slow
    if "BLIND" in os.environ:
        os.open = blind
    dask.__version__ = os.environ.get("VERSION", dask.__version__)
"""


def rows(path, n, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.choice(K, size=n, p=np.array(COUNTS) / sum(COUNTS))
    z = rng.normal(size=(n, K)) * 1.5 + 2 * np.eye(K)[y] + np.log(COUNTS)
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"], file["source_counts"] = z.astype("f2"), y.astype("u1"), COUNTS
        file["group"] = np.array([b"a", b"b"])[np.arange(n) % 2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Inputs; large.h5 is many spans."""
    folder = tmp_path_factory.mktemp("dask")
    rows(folder / "a.h5", 900)
    rows(folder / "b.h5", 700, 1)
    rows(folder / "b2.h5", 900, 0)
    with h5py.File(folder / "b2.h5", "r+") as file:
        file["logits"][...] += np.random.default_rng(3).normal(size=(900, K))
    np.save(folder / "delta.npy", np.linspace(0.2, 1, 900))
    with h5py.File(folder / "delta.h5", "w") as file:
        file["d"] = np.linspace(0.2, 1, 900)
    with h5py.File(folder / "a.h5") as small, h5py.File(folder / "large.h5", "w") as file:
        n = 6 << 20
        logits, labels = file.create_dataset("logits", (n, K), "f2"), file.create_dataset("labels", (n,), "u1")
        for at in range(0, n, 1 << 20):
            logits[at : at + (1 << 20)] = np.resize(small["logits"][...], (1 << 20, K))
            labels[at : at + (1 << 20)] = np.resize(small["labels"][...], 1 << 20)
        file["source_counts"] = COUNTS
    (folder / "preload.py").write_text(PRELOAD)
    (folder / "elsewhere").mkdir()
    return folder


@pytest.fixture
def start(place):
    """Start a program in a folder of its own; all are killed in the end."""
    running = []

    def starter(*args, cwd="elsewhere", **environment):
        log = (place / "log").open("ab")
        process = forked.Popen(
            [sys.executable, "-m", *map(str, args)], cwd=place / cwd, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": python_path(), **environment},
        )  # fmt: skip
        running.append(process)
        log.close()
        return process

    yield starter
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def python_path():
    return os.pathsep.join(filter(None, [str(pathlib.Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def cluster(start, place):
    """Start a scheduler and workers: (address, scheduler, workers)."""

    def starter(*workers, scheme="tcp", **environment):
        port = free_port()
        address = f"{scheme}://127.0.0.1:{port}"
        scheduler = start("distributed.cli.dask_scheduler", "--host", address, "--no-dashboard", **environment)
        options = ["--nthreads", 1, "--no-nanny", "--no-dashboard", "--preload", place / "preload.py"]
        begun = [start("distributed.cli.dask_worker", address, *options, **{**environment, **more}) for more in workers]
        return address, scheduler, begun

    return starter


def run(place, *args, **environment):
    return forked.Popen(
        [sys.executable, "-m", "unoic_cli", *map(str, args)], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": python_path(), **environment},
    )  # fmt: skip


def output(place, *args, **environment):
    process = run(place, *args, **environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def failure(process, code, timeout=90):
    """Its one line on stderr."""
    out, err = process.communicate(timeout=timeout)
    err = without_notes(err)
    assert (process.returncode, out, err.count(b"\n")) == (code, b"", 1), err
    return err.decode().removeprefix("unoic: error: ")


LARGE = ("search-lambda", "large.h5", "--range", "0:2", "-q")


@pytest.fixture(scope="module")
def whole(place):
    return output(place, *LARGE)


COMMANDS = [
    ("evaluate", "a.h5", "b.h5", "--by", "group", "-l", "1"),
    ("search-lambda", "a.h5", "--folds", "3"),
    ("search-lambda", "x=a.h5", "y=b2.h5", "--range", "0:1:0.25"),
    ("evaluate", "a.h5", "--delta", "delta.h5::d", "-l", "0.5"),
    ("evaluate", "a.h5", "--delta", "delta.npy", "-l", "0.5"),
    ("evaluate", "x=a.h5", "y=b2.h5", "--delta", "fit", "-l", "0.5"),
    ("compare", "x=a.h5", "y=b2.h5", "--by", "group"),
    ("fit-delta", "a.h5"),
    ("fit-temperature", "a.h5"),
    ("prior", "a.h5", "b.h5"),
]  # fmt: skip


def test_every_command_gives_the_same_bytes(place, cluster):
    """Relative names lead to the same files from workers that began in another folder."""
    address, _, _ = cluster({}, {})
    for command in COMMANDS:
        assert output(place, *command, "--engine", "dask", "--scheduler", address) == output(place, *command), command


def test_processes_of_its_own_and_scheduler_files(place, start, whole):
    assert output(place, *LARGE, "--engine", "dask", "--workers", 2) == whole
    common = ["--no-dashboard", "--scheduler-file", place / "s.json"]
    start("distributed.cli.dask_scheduler", "--port", 0, "--host", "127.0.0.1", *common)
    start("distributed.cli.dask_worker", "--nthreads", 2, *common)
    deadline = time.monotonic() + 60
    while not (place / "s.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert output(place, *LARGE, "--engine", "dask", "--scheduler-file", "s.json") == whole
    for content in ("", "{}", "[]", "nonsense"):
        (place / "t.json").write_text(content)
        message = failure(run(place, *LARGE, "--engine", "dask", "--scheduler-file", "t.json"), DATA_ERROR)
        assert message.startswith("t.json: no address of a scheduler")
    message = failure(run(place, *LARGE, "--engine", "dask", "--scheduler-file", "none.json"), NO_INPUT)
    assert message.startswith("none.json: no such file")


def wait_for_checkpoint(process, path):
    """Wait until something is counted."""
    deadline = time.monotonic() + 60
    while not path.exists() or not state.load(str(path)).passes[0].done:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def kept(place):
    """A checkpoint that the run saves often: it is there as soon as parts are counted."""
    path = place / "c.unoic"
    path.unlink(missing_ok=True)
    return path


def test_a_worker_is_killed(place, cluster, whole, kept):
    address, _, workers = cluster({"SLOW": "0.3"}, {"SLOW": "0.3"})
    process = run(place, *LARGE, "--engine", "dask", "--scheduler", address, "--checkpoint", kept, "--every", "0.01s")
    wait_for_checkpoint(process, kept)
    workers[0].kill()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, whole, b"")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_the_run(place, cluster, whole, kept, sent):
    address, _, _ = cluster({"SLOW": "0.3"}, {"SLOW": "0.3"})
    dask = ["--engine", "dask", "--scheduler", address]
    process = run(place, *LARGE, *dask, "--checkpoint", kept, "--every", "0.01s")
    wait_for_checkpoint(process, kept)
    process.send_signal(sent)
    began = time.monotonic()
    assert failure(process, INTERRUPTED).startswith(f"{kept}: interrupted, and all that was counted is saved")
    assert time.monotonic() - began < 20
    assert 0 < sum(b - a for a, b in state.load(str(kept)).passes[0].done) < 6 << 20
    more = dask if sent == signal.SIGINT else ["--engine", "threads"]
    assert output(place, *LARGE, *more, "--checkpoint", kept, "--resume") == whole


def test_ctrl_c_on_a_terminal_reaches_no_worker(place, whole, kept):
    """A terminal sends it to all processes of the group; workers of our own stay silent, and end with the run."""
    dask = ["--engine", "dask", "--workers", 2]
    process = forked.Popen(
        [sys.executable, "-m", "unoic_cli", *LARGE, *map(str, dask), "--checkpoint", kept, "--every", "0.01s"],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "PYTHONPATH": python_path()},
    )  # fmt: skip
    wait_for_checkpoint(process, kept)
    os.killpg(process.pid, signal.SIGINT)
    assert failure(process, INTERRUPTED).startswith(f"{kept}: interrupted")
    assert output(place, *LARGE, *dask, "--checkpoint", kept, "--resume") == whole


def test_the_scheduler_dies(place, cluster, whole, kept):
    address, scheduler, _ = cluster({"SLOW": "0.3"}, {"SLOW": "0.3"})
    process = run(place, *LARGE, "--engine", "dask", "--scheduler", address, "--checkpoint", kept, "--every", "0.01s")
    wait_for_checkpoint(process, kept)
    scheduler.kill()
    began = time.monotonic()
    message = failure(process, STORAGE)
    assert time.monotonic() - began < 20
    assert message.startswith(f"{address}: the connection to the cluster is lost")
    assert output(place, *LARGE, "--checkpoint", kept, "--resume") == whole


@pytest.mark.parametrize("stopped", [False, True])
def test_a_scheduler_that_is_frozen(place, cluster, whole, kept, stopped):
    """A node that hangs keeps its connections: the run gives up after a while, and answers signals meanwhile."""
    address, scheduler, _ = cluster({"SLOW": "0.3"}, {"SLOW": "0.3"})
    silent = 300 if stopped else 2
    program = f"from unoic_cli.runs import dask; dask._SILENT, dask._ASK = {silent}, 0.5; "
    program += "from unoic_cli.cli import main; main()"
    words = [*LARGE, "--engine", "dask", "--scheduler", address, "--checkpoint", kept, "--every", "0.01s"]
    process = forked.Popen(
        [sys.executable, "-c", program, *map(str, words)], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": python_path()},
    )  # fmt: skip
    wait_for_checkpoint(process, kept)
    scheduler.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    if stopped:
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        message = failure(process, 75)
        assert "all that was counted is saved" in message
    else:
        assert failure(process, STORAGE).startswith(f"{address}: a scheduler that does not answer for 2 seconds")
    assert time.monotonic() - began < 30
    assert output(place, *LARGE, "--checkpoint", kept, "--resume") == whole


def test_workers_that_cannot_do_it(place, cluster):
    address, _, _ = cluster({"VERSION": "0.0.9"})
    message = failure(run(place, "evaluate", "a.h5", "--engine", "dask", "--scheduler", address), USAGE)
    assert message.startswith("--engine: workers with unoic 0.0.9; expected ")
    address, _, _ = cluster({"BLIND": "a.h5"})
    message = failure(run(place, "evaluate", "b.h5", "a.h5", "--engine", "dask", "--scheduler", address), NO_INPUT)
    assert message == "a.h5: cannot be opened (No such file or directory); expected an HDF5 file\n"


def test_no_workers_and_no_scheduler(place, cluster):
    address, _, _ = cluster()

    def sooner(setting, address):
        program = f"from unoic_cli.runs import dask; dask.{setting} = 2.0; from unoic_cli.cli import main; main()"
        return forked.Popen(
            [sys.executable, "-c", program, "evaluate", "a.h5", "--engine", "dask", "--scheduler", address], cwd=place,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": python_path()},
        )  # fmt: skip

    assert failure(sooner("_NO_WORKERS", address), STORAGE).startswith(f"{address}: no workers for 2 seconds")
    address = f"tcp://127.0.0.1:{free_port()}"
    for wrong in (address, "nonsense", "foo://127.0.0.1:1", "tcp://127.0.0.1:x"):
        message = failure(sooner("_CONNECT", wrong), STORAGE)
        assert message.startswith(f"{wrong}: no connection to the cluster")


def test_progress_shows(place, cluster):
    address, _, _ = cluster({"SLOW": "0.2"})
    program = "from unoic_cli.cli import common; common._SILENCE = 0.5; from unoic_cli.cli import main; main()"
    args = [arg for arg in LARGE if arg != "-q"]
    process = forked.Popen(
        [sys.executable, "-c", program, *args, "--engine", "dask", "--scheduler", address], cwd=place,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": python_path()},
    )  # fmt: skip
    _, err = process.communicate(timeout=90)
    lines = [line for line in err.decode().splitlines() if " MB, " in line]
    assert process.returncode == 0 and len(lines) > 1, err
    assert any(not line.startswith("unoic: 0%") for line in lines)


def test_tls(place, cluster):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=place, check=True, capture_output=True,
    )  # fmt: skip
    tls = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(place / "cert.pem")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(place / "cert.pem")
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(place / "key.pem")
    address, _, _ = cluster({}, scheme="tls", **tls)
    args = ["evaluate", "a.h5", "--engine", "dask", "--scheduler", address]
    assert output(place, *args, **tls) == output(place, "evaluate", "a.h5")
    began = time.monotonic()
    assert failure(run(place, *args), STORAGE).startswith(f"{address}: no connection to the cluster (TLS expects")
    assert time.monotonic() - began < 20
    plain = [word.replace("tls:", "tcp:") for word in args]
    assert failure(run(place, *plain), STORAGE).startswith("tcp://")


def test_tasks_are_small(tmp_path, monkeypatch):
    """What a worker is told holds no scores, whatever the size of the file."""
    path = tmp_path / "million.h5"
    with h5py.File(path, "w") as file:
        file["logits"] = np.zeros((10**6, K), "f4")
        file["labels"] = np.zeros(10**6, "u1")
    sizes, count = [], sweep.Stream.count

    def weigh(stream, *args):
        if "scores" in stream.fields:
            sizes.extend(len(pickle.dumps(stream.part([i]))) for i in range(len(stream.spans)))
        return count(stream, *args)

    monkeypatch.setattr(sweep.Stream, "count", weigh)
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 1 << 20)
    search_lambda(path, folds=3, source_prior=COUNTS)
    assert len(sizes) > 10
    assert max(sizes) < 1 << 14
