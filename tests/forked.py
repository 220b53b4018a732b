"""Python processes that begin at once: forked from one that has loaded the program.

`Popen` and `run` take the place of those of `subprocess` for ``python -m MODULE`` and ``python -c CODE``, and `command`
gives shells the words for ``python -m unoic_cli``. Each process has an id, signals, files, a folder, an environment and
an exit code of its own. What is decided while Python starts, or modules are imported, needs a process that starts anew.
"""
# ruff: noqa: SIM115  # files are handed over, and closed elsewhere

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from subprocess import DEVNULL, PIPE, STDOUT, CalledProcessError, CompletedProcess, TimeoutExpired

LOADED = """
numpy h5py pyarrow pyarrow.parquet pyarrow.dataset pyarrow.fs pyarrow.ipc numba rich.console rich.table distributed
distributed.cli.dask_scheduler distributed.cli.dask_worker
"""


# ---------------------------------------------------------------- the process that forks


def serve(place):
    """Fork a process for whoever connects, until the process that started this one is gone."""
    import gc
    import select

    load()
    gc.freeze()
    while 0 not in select.select([place, 0], [], [])[0]:
        asked, _ = place.accept()
        if os.fork() == 0:
            place.close()
            keep(asked)
        asked.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def load():
    """Import what processes will use; that starts no threads but those of libraries which know how to fork."""
    import importlib
    import pkgutil

    import unoic_cli

    found = [module.name for module in pkgutil.walk_packages(unoic_cli.__path__, "unoic_cli.")]
    for name in [*(name for name in found if not name.endswith("__main__")), *LOADED.split()]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in unoic_cli.cli.COMMANDS:
        unoic_cli.cli.load(name)
    unoic_cli.compiling.told()  # as in the process of the tests: a cold cache changes nothing of what they look at


def keep(asked):
    """Start the process that was asked for, and tell how it ended."""
    head, files, _, _ = socket.recv_fds(asked, 8, 3)
    how = json.loads(read_whole(asked, int.from_bytes(head, "little")))
    child = os.fork()
    if child == 0:
        become(asked, files, **how)
    for file in (*files, 0, 1, 2):
        os.close(file)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        asked.sendall(code.to_bytes(4, "little", signed=True))
    os._exit(0)


def read_whole(given, size):
    content = b""
    while len(content) < size:
        piece = given.recv(size - len(content))
        if not piece:
            os._exit(1)
        content += piece
    return content


def become(asked, files, args, cwd, env, session):
    """Be the process that ``python ARGS`` is; its id is told when signals find it."""
    code = 1
    try:
        if session:
            os.setsid()
        for number, file in enumerate(files):
            os.dup2(file, number)
        for file in files:
            os.close(file)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        if any(name.startswith("DASK_") for name in env):
            import dask

            dask.config.refresh()
        asked.sendall(os.getpid().to_bytes(4, "little"))
        asked.close()
        code = act(*args)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if code == -signal.SIGINT:  # as Python ends that nobody keeps from it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(code)


def act(flag, what, *words):
    """Run a module or a text; the exit code."""
    import runpy
    import traceback

    sys.argv = [what if flag == "-m" else flag, *words]
    try:
        if flag == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException as error:
        traceback.print_exc()
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


# ---------------------------------------------------------------- those who ask it


@functools.cache
def server():
    """Start the process that forks, once; where it is asked. It ends with this one."""
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "s")
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(path)
        place.listen(64)
        number = place.fileno()
        process = subprocess.Popen(
            [sys.executable, __file__, str(number)], pass_fds=[number], stdin=PIPE, start_new_session=True
        )
    import atexit

    atexit.register(end, process, folder)
    return path


def end(process, folder):
    process.stdin.close()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def ask(path, files, args, cwd, env, session=False):
    """Have a process started; its id, and the socket that tells how it ends."""
    content = json.dumps({"args": args, "cwd": cwd, "env": env, "session": session}).encode()
    asked = socket.socket(socket.AF_UNIX)
    asked.connect(path)
    socket.send_fds(asked, [len(content).to_bytes(8, "little")], files)
    asked.sendall(content)
    number = int.from_bytes(asked.recv(4, socket.MSG_WAITALL), "little")
    assert number, "no process began"
    return number, asked


def command(*args):
    """The words of a shell for ``python ARGS``, by default those of the program."""
    return shlex.join([sys.executable, "-S", __file__, server(), *(args or ("-m", "unoic_cli"))])


def stand_in(path, *args):
    """Wait for a process as a shell does, hand signals on to it, and end as it does."""
    process, asked = ask(path, [0, 1, 2], args, os.getcwd(), dict(os.environ))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, lambda sent, _: os.kill(process, sent))
    for number in (0, 1, 2):
        os.close(number)
    code = int.from_bytes(asked.recv(4, socket.MSG_WAITALL), "little", signed=True)
    os._exit(code if code >= 0 else 128 - code)


class Popen:
    """As `subprocess.Popen`, as far as tests need it."""

    def __init__(
        self, args, *, stdin=None, stdout=None, stderr=None, cwd=None, env=None, text=False, start_new_session=False
    ):
        python, *self.args = map(os.fsdecode, args)
        assert python == sys.executable and self.args[0] in ("-m", "-c")
        self.returncode, self.text, self.said = None, text, {}
        files, opened = [], []
        for name, given in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            ours = None
            if given == PIPE:
                read, write = os.pipe()
                file, ours = (read, open(write, "wb")) if name == "stdin" else (write, open(read, "rb"))
                opened.append(file)
            elif given == DEVNULL:
                opened.append(file := os.open(os.devnull, os.O_RDWR))
            elif given == STDOUT:
                file = files[1]
            else:
                file = len(files) if given is None else given if isinstance(given, int) else given.fileno()
            files.append(file)
            setattr(self, name, ours)
        where, environment = os.path.abspath(cwd or "."), dict(os.environ if env is None else env)
        self.pid, self.asked = ask(server(), files, self.args, where, environment, start_new_session)
        for file in opened:
            os.close(file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                file.close()
        self.wait()

    def poll(self):
        with contextlib.suppress(TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            self.asked.settimeout(None if timeout is None else max(timeout, 1e-6))
            try:
                self.returncode = int.from_bytes(self.asked.recv(4, socket.MSG_WAITALL), "little", signed=True)
            except TimeoutError:
                raise TimeoutExpired(self.args, timeout) from None
            self.asked.close()
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, input=None, timeout=None):
        import selectors

        if self.stdin is not None and not self.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.write((input or "").encode() if self.text else input or b"")
                self.stdin.close()
        ends = None if timeout is None else time.monotonic() + timeout
        with selectors.DefaultSelector() as waiting:
            for file in (self.stdout, self.stderr):
                if file is not None and not file.closed:
                    waiting.register(file, selectors.EVENT_READ)
                    self.said.setdefault(file, b"")
            while waiting.get_map():
                left = None if ends is None else max(0, ends - time.monotonic())
                ready = waiting.select(left)
                if not ready and left == 0:
                    raise TimeoutExpired(self.args, timeout)
                for key, _ in ready:
                    piece = os.read(key.fd, 1 << 16)
                    self.said[key.fileobj] += piece
                    if not piece:
                        waiting.unregister(key.fileobj)
                        key.fileobj.close()
        self.wait(None if ends is None else max(0, ends - time.monotonic()))
        said = [None if file is None else self.said[file] for file in (self.stdout, self.stderr)]
        return tuple(None if one is None else one.decode() if self.text else one for one in said)


def run(args, *, input=None, capture_output=False, timeout=None, check=False, **how):
    """As `subprocess.run`."""
    how |= {"stdout": PIPE, "stderr": PIPE} if capture_output else {}
    how |= {} if input is None else {"stdin": PIPE}
    process = Popen(args, **how)
    try:
        out, err = process.communicate(input, timeout)
    except BaseException:
        process.kill()
        raise
    if check and process.returncode:
        raise CalledProcessError(process.returncode, args, out, err)
    return CompletedProcess(args, process.returncode, out, err)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(socket.socket(fileno=int(sys.argv[1])))
    else:
        stand_in(*sys.argv[1:])
