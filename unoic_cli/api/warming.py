"""Kernels compiled ahead: each that a command calls, once, for all types of its arguments, by several processes.

What is compiled follows from what the commands do: they run on a few made-up scores of every type and layout, while the
types of all arguments are listened to, which compiles nothing. Then processes take one kernel after another from
a queue, those that take longest first; so none is compiled twice, and the last ones are short.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unoic_cli import formats, kernels
from unoic_cli.api.stored import run
from unoic_cli.commands.doctor import Kernels, Warmed, about_kernels
from unoic_cli.errors import CannotCreateError, DataError, StorageError, UsageError, one_line
from unoic_cli.formats.block import Encoding, LogitBlock, OutputSpec
from unoic_cli.fusions import FUSIONS
from unoic_cli.machine import available_threads

MOST_PROCESSES = 16
"""Each takes up to half a gigabyte, and the longest kernel is about a tenth of the work."""

LONG = ("fused_winners", "count_path", "add_scaled", "count_point", "fill", "write_fused", "predict")
"""How names of kernels begin that take longer to compile than others, the longest first."""

KEPT, COMPILED, NOT_KEPT = "kept", "compiled", "not kept"
"""What a process answers: a kernel was there, or is now, or still is not; anything else is what went wrong."""

ENCODINGS: tuple[Encoding, ...] = ("float16", "float32", "float64")
"""bfloat16 is stored as float16 is."""
_SHAPES: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "rows": (24, 5, ()), "planes": (4, 5, (3, 4)), "wide": (24, 160, ()),
}  # fmt: skip
"""Samples, classes and images."""
_WORKER = "from unoic_cli.api.warming import work; work()"


class Form(NamedTuple):
    """A kernel, by its name, and the types of its arguments, as numba has them."""

    name: str
    types: tuple[Any, ...]


def warm(tell: Callable[[str], None] | None = None) -> Warmed:
    """Compile all kernels that commands call, as far as they are not kept already.

    Parameters
    ----------
    tell : callable, optional
        Hears what will be done before it begins.

    Returns
    -------
    Warmed

    Raises
    ------
    UsageError
        Kernels are to be plain, so nothing would use them.
    DataError
        numba is missing, or cannot compile a kernel.
    CannotCreateError
        No folder can keep what is compiled.
    StorageError
        It was compiled, and not kept.
    """
    started, about = time.monotonic(), about_kernels()
    folder = _check(about)
    wanted, n_processes = forms(), min(available_threads(), MOST_PROCESSES)
    missing = sum(not is_kept(form) for form in wanted)
    if tell is not None and missing:
        place = f"kept in {folder.parent}"
        tell(f"compiling {missing} kernels for this processor (about 2 CPU minutes for all {len(wanted)}), {place}")
    made = compile_all(wanted, n_processes)
    return Warmed(len(wanted), made, round(time.monotonic() - started, 1), n_processes)


def _check(about: Kernels) -> Path:
    """The folder that will keep kernels."""
    if kernels.forced() == kernels.PLAIN:
        raise UsageError("--warm", "--warm with UNOIC_KERNELS=plain", "expected kernels that are used")
    if about.trouble is not None:
        raise DataError("kernels", about.trouble, "expected numba that compiles")
    if about.refused is not None or about.cache is None:
        where = "kernels" if about.cache is None else about.cache
        found, expected = (
            about.refused or "no folder can keep them",
            "expected a folder of ours alone (UNOIC_CACHE_DIR)",
        )
        raise CannotCreateError(where, found, expected)
    return Path(about.cache)


# ---------------------------------------------------------------- processes


def compile_all(wanted: list[Form], n_processes: int) -> int:
    """Compile kernels in this many processes, each kernel in the first one that is free.

    Returns
    -------
    int
        How many were not kept before.

    Raises
    ------
    DataError, StorageError
        At the first that fails; all processes are ended then, as when this one is interrupted.
    """
    queue = deque(sorted(wanted, key=_place))
    children: list[subprocess.Popen[bytes]] = []
    with ThreadPoolExecutor(n_processes) as pool:
        try:
            serving = [pool.submit(_serve, queue, children) for _ in range(min(n_processes, len(wanted)))]
            return sum(done.result() for done in serving)
        except BaseException:
            queue.clear()
            for child in children:
                child.kill()
            raise


def _place(form: Form) -> int:
    """Where a kernel stands in the queue."""
    return next((i for i, name in enumerate(LONG) if form.name.startswith(name)), len(LONG))


def _serve(queue: deque[Form], children: list[subprocess.Popen[bytes]]) -> int:
    """Start a process, and give it kernels until there are none; how many it compiled."""
    pipe = subprocess.PIPE
    environment = {**os.environ, "UNOIC_KERNELS": kernels.COMPILED}
    command = [sys.executable, "-c", _WORKER]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment) as child:
        children.append(child)
        return sum(_ask(child, form) == COMPILED for form in _taken(queue))


def _taken(queue: deque[Form]) -> Iterator[Form]:
    with contextlib.suppress(IndexError):  # another thread took the last
        while True:
            yield queue.popleft()


def _ask(child: subprocess.Popen[bytes], form: Form) -> str:
    """Let a process compile a kernel: whether it had to."""
    assert child.stdin is not None and child.stdout is not None
    answer = ""
    try:
        child.stdin.write(base64.b64encode(pickle.dumps(form)) + b"\n")
        child.stdin.flush()
        answer = child.stdout.readline().decode().strip()
    except BrokenPipeError:
        pass
    if answer == NOT_KEPT:
        raise StorageError(f"kernels: {form.name}", "compiled, and not kept", "expected a disk that is not full")
    if answer not in (KEPT, COMPILED):
        found = answer or f"the process that compiled it ended with {child.wait()}"
        raise DataError(f"kernels: {form.name}", found, "expected a kernel that can be compiled, and memory for it")
    return answer


def work() -> None:
    """Compile the kernels that come on stdin, one a line, and answer each with a line."""
    for line in sys.stdin.buffer:
        print(_compiled(pickle.loads(base64.b64decode(line))), flush=True)


def is_kept(form: Form) -> bool:
    """Whether a kernel need not be compiled."""
    from unoic_cli.kernels import jit

    return jit.is_kept(getattr(kernels, form.name).compiled(), form.types)


def _compiled(form: Form) -> str:
    """Load a kernel, or compile it."""
    kept = is_kept(form)
    try:
        getattr(kernels, form.name).compiled().compile(form.types)
    except Exception as error:
        return one_line(f"{type(error).__name__}: {error}", 300)
    return KEPT if kept else COMPILED if is_kept(form) else NOT_KEPT


# ---------------------------------------------------------------- what commands call


def forms() -> list[Form]:
    """Kernels that commands call, each with the types of its arguments, in order of their first call."""
    found: dict[Form, None] = {}

    def hear(name: str, given: tuple[Any, ...]) -> None:
        function: Any = getattr(kernels, name).compiled()
        found.setdefault(Form(name, tuple(map(function.typeof_pyval, given))))

    with kernels.overheard(hear), tempfile.TemporaryDirectory() as folder:
        for command, inputs, options in _runs(folder):
            run(command, inputs, threads=1, **options)
        _bytes()
    return list(found)


_Run = tuple[str, Any, dict[str, Any]]


def _runs(folder: str) -> Iterator[_Run]:
    """Commands that call every kernel, with inputs and options."""
    for encoding in ENCODINGS:
        made = {shape: _made(os.path.join(folder, f"{shape}-{encoding}.h5"), shape, encoding) for shape in _SHAPES}
        other = _made(os.path.join(folder, f"other-{encoding}.h5"), "rows", encoding)
        for shape, path in made.items():
            yield from _alone(shape, path)
        yield from _fused({"a": made["rows"], "b": other}, os.path.join(folder, encoding))


def _alone(shape: str, path: str) -> Iterator[_Run]:
    """One modality."""
    yield "search-lambda", path, {"folds": 2}
    yield "evaluate", path, {}
    yield "evaluate", path, {"by": "file", "confusion": True}
    yield "calibrate", path, {"lam": 1.0, "output": f"{path}.out.h5"}
    if shape == "rows":
        yield "search-lambda", path, {"source_prior": "mean-posterior"}
        yield "evaluate", path, {"metrics": "top2,nll,ece,brier"}
        yield "fit-delta", path, {}
        yield "fit-temperature", path, {}


def _fused(both: dict[str, str], name: str) -> Iterator[_Run]:
    """Two modalities, by every operator; those that keep scores lines share one kernel."""
    for how in FUSIONS:
        yield "search-lambda", both, {"fusion": how, "range": "0:1:0.5"}
        yield "fuse", both, {"fusion": how, "output": f"{name}-{how}.h5"}


def _bytes() -> None:
    """Chunks of files, which come in memory that may be written to, and in such that may not."""
    from unoic_cli.kernels import octets

    for data in (np.zeros(64, np.uint8), np.frombuffer(bytes(64), np.uint8)):
        octets.fletcher32(data)
        for width in (2, 4, 8):
            out = np.empty(64, np.uint64).view(np.uint8)[:64]
            octets.shuffle(data, width, out)
            octets.unshuffle(data, width, out)


def _made(path: str, shape: str, encoding: Encoding) -> str:
    """A file of images, or of rows."""
    n, k, image = _SHAPES[shape]
    pixels = int(np.prod(image))
    scores = np.random.default_rng(0).normal(size=(n, k, pixels) if image else (n, k)).astype(encoding)
    spec = OutputSpec(
        n, k, image, "logits", encoding, "planes" if image else "rows",
        dtypes={"labels": "int64"}, source_counts=tuple(range(1, k + 1)),
    )  # fmt: skip
    writer = formats.create(path, spec)
    stored = scores.view(np.uint16) if encoding == "float16" else scores
    writer.write(LogitBlock(0, n * pixels, scores=stored, labels=np.arange(n * pixels) % 5))
    writer.commit()
    return path
