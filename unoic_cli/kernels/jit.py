"""The one place where numba is configured: the `kernel` decorator and its cache on disk.

Compiled kernels are kept per user, per processor and per version of these sources. numba's own
cache would follow a broken file into a crash and fails where its folder cannot be written; this
one checks a digest before it trusts a file, and whatever goes wrong only costs the compilation.

A compiled kernel is code, and the digest that lies beside it proves nothing about who wrote it. So a folder is used
only if it is ours alone: `refusal` says what is wrong with another, and kernels are then compiled for each process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import platform
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching, registry

from unoic_cli import compiling

F = TypeVar("F", bound=Callable[..., Any])

NO_COUNTING = {"nogil": True, "error_model": "numpy", "_nrt": False}
"""Options of every kernel. Without numba's runtime no array can be allocated in a kernel (scratch is passed in),
and in return no reference is counted: those atomic operations took a third of the time."""

NO_WRAPPERS = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of what only kernels call: compiling ways in from Python and from C took a fifth of the time."""

NOT_COMPILED = ("__init__.py", "octets.py", "plain.py")
"""Sources of this folder of which nothing is compiled."""

JIT_DISABLED = bool(numba.config.DISABLE_JIT)


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``UNOIC_CACHE_DIR``, else ``$XDG_CACHE_HOME/unoic`` or ``~/.cache/unoic``.

    A subfolder names the sources (kernels, and the fusions that they call), so that a kernel never outlives a change of
    a function that it inlines, and the processor, whose kernels are of no use to another.
    """
    named = os.environ.get("UNOIC_CACHE_DIR")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unoic"
    digest = hashlib.sha256(f"{numba.__version__} {sys.version} {platform.machine()} {_target()}".encode())
    for folder in ("kernels", "fusions"):
        for source in sorted((Path(__file__).parents[1] / folder).glob("*.py")):
            if source.name not in NOT_COMPILED:
                digest.update(source.read_bytes())
    return base / f"kernels-{digest.hexdigest()[:16]}"


def _target() -> tuple[str, str, str]:
    """What kernels are compiled for: system, processor, and its features."""
    return cast("tuple[str, str, str]", registry.cpu_target.target_context.codegen().magic_tuple())


def processor() -> tuple[str, set[str]]:
    """The processor that kernels are compiled for, and its features."""
    _, name, features = _target()
    return name, {feature.removeprefix("+") for feature in features.split(",") if feature.startswith("+")}


def trouble() -> str | None:
    """Why nothing can be compiled; None where a small function is, and works."""
    if JIT_DISABLED:
        return "NUMBA_DISABLE_JIT is set"
    try:
        found = numba.njit(**NO_COUNTING)(lambda n: n + 1)(1)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None if found == 2 else f"1 + 1 = {found}"


def why_unsafe(folder: Path) -> str | None:
    """Who else could put files into a folder, or replace it; None if nobody can.

    It and what leads to it must belong to us or to the system, and be written by nobody else, but for folders like
    ``/tmp`` whose entries belong to whoever made them. What is not there yet is made by us.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    str or None
    """
    given = Path(os.path.abspath(folder))
    ours = (os.geteuid(), 0)
    for place in dict.fromkeys(
        [*reversed([given, *given.parents]), *reversed([real := given.resolve(), *real.parents])]
    ):
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            continue
        loose = bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) and not stat.S_ISLNK(status.st_mode)
        if status.st_uid not in ours or (place == real and status.st_uid != ours[0]):
            return f"{place} belongs to another user"
        if loose and (place == real or not status.st_mode & stat.S_ISVTX):
            return f"others may write to {place}"
    return None


class _Cache(caching.FunctionCache):  # type: ignore[misc]  # numba is untyped
    """One file per compiled signature, named by its key: no index to race for, a digest against damage."""

    def __init__(self, function: Callable[..., Any], folder: Path | None) -> None:
        self._py_func = function
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._folder = folder
        self._cache_path = str(folder or "")  # where numba's statistics look
        self._enabled = True

    def _path(self, sig: Any, codegen: Any) -> Path:
        if self._folder is None:
            raise FileNotFoundError
        key = f"{self._name} {self._index_key(sig, codegen)!r}"
        return self._folder / f"{self._py_func.__name__}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.bin"

    def holds(self, sig: Any, codegen: Any) -> bool:
        """Whether the compiled form of a signature is kept."""
        return self._folder is not None and self._path(sig, codegen).is_file()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with contextlib.suppress(Exception):
            target_context.refresh()
            content = _own_content(self._path(sig, target_context.codegen()))
            digest, data = content[:32], content[32:]
            if hashlib.sha256(data).digest() == digest:
                payload = pickle.loads(data)
                return caching.CompileResultCacheImpl.rebuild(None, target_context, payload)
        compiling.begin(_keeper())
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        compiling.end()
        with contextlib.suppress(Exception):
            if not caching.CompileResultCacheImpl.check_cachable(None, data):
                return
            path = self._path(sig, data.codegen)
            payload = caching.dumps(caching.CompileResultCacheImpl.reduce(None, data))
            assert self._folder is not None
            _make_own(self._folder)
            handle, temporary = tempfile.mkstemp(dir=self._folder)
            try:
                with open(handle, "wb") as file:
                    file.write(hashlib.sha256(payload).digest() + payload)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise


def _keeper() -> str | None:
    """The folder that will keep what is compiled, for people; None if none can."""
    if FOLDER is None:
        return None
    try:
        _make_own(FOLDER)
    except OSError:
        return None
    if not os.access(FOLDER, os.W_OK | os.X_OK):
        return None
    base, home = str(FOLDER.parent), os.path.expanduser("~")
    return "~" + base.removeprefix(home) if base.startswith(home + os.sep) else base


def _own_content(path: Path) -> bytes:
    """The bytes of a file of ours, that nobody else may write."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or others:
            raise PermissionError
        return file.read()


def _make_own(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for us alone."""
    for place in reversed([folder, *folder.parents]):
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)


refusal: str | None = None
"""Why compiled kernels are not kept, if the folder for them is not ours alone."""

FOLDER: Path | None = None
"""That of this process."""
with contextlib.suppress(OSError, RuntimeError):  # no home, unreadable sources: compile every time
    _named = cache_folder()
    refusal = why_unsafe(_named)
    FOLDER = _named if refusal is None else None


def is_kept(function: Any, types: tuple[Any, ...]) -> bool:
    """Whether what is compiled of a kernel, for arguments of these types, is kept."""
    return function._cache.holds(types, function.targetctx.codegen())


def kernel(function: F) -> F:
    """Compile a function that releases the GIL, divides as numpy does, and is cached on disk.

    With ``NUMBA_DISABLE_JIT=1`` the function stays plain Python.
    """
    compiled: Any = numba.njit(**NO_COUNTING, no_cfunc_wrapper=True)(function)
    if not JIT_DISABLED:
        compiled._cache = _Cache(function, FOLDER)
    return cast(F, compiled)


def inlined(function: F) -> F:
    """Compile a function that kernels call and LLVM is asked to inline; never called from Python."""
    return cast(F, numba.njit(**NO_COUNTING, **NO_WRAPPERS, forceinline=True)(function))


def stage(function: F) -> F:
    """Compile a step that kernels call per tile: not forced inline, so that it gets registers of its own.

    Never called from Python.
    """
    return cast(F, numba.njit(**NO_COUNTING, **NO_WRAPPERS)(function))
