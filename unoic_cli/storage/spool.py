"""Nameless temporary files: what can be read once, or from its beginning only, becomes one that is read anywhere."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from typing import Any

from unoic_cli.errors import StorageError
from unoic_cli.storage import witness


class Held:
    """A descriptor of a file that has no name; readers in other processes open it by way of this one.

    Parameters
    ----------
    file : int
        Closed with the last reference to this.
    """

    def __init__(self, file: int) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (os.getpid(), self.file)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            witness.let_go(self.file)


def _reopen(process: int, file: int) -> Held:
    return Held(os.dup(file) if process == os.getpid() else os.open(f"/proc/{process}/fd/{file}", os.O_RDONLY))


def nameless(what: str) -> Held:
    """An empty file in ``TMPDIR``, for the whole of `what`.

    Raises
    ------
    StorageError
        None can be made.
    """
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as named:
            return Held(os.dup(named.fileno()))
    except OSError as error:
        found = f"no temporary file for {what} ({error.strerror})"
        raise StorageError(folder, found, "expected a folder that can be written to: TMPDIR names another") from None


def append(held: Held, data: Any, what: str) -> None:
    """Write behind what is there.

    Raises
    ------
    StorageError
        There is no room for the whole of `what`.
    """
    view = memoryview(data).cast("B")
    while view:
        try:
            view = view[os.write(held.file, view) :]
        except OSError as error:
            reason = "no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
            expected = f"expected room for the whole of {what}: TMPDIR names another folder"
            raise StorageError(tempfile.gettempdir(), f"{reason} for a stream", expected) from None
