"""Small files, read whole: one place says which, and how much of them is believed.

Priors, calibrations, statistics, lists and states are small. What is read whole must be a regular file of a bounded
size, or a pipe that the shell made (``<(...)``): a device, or a pipe without a writer, would be waited for without end.
"""

from __future__ import annotations

import os
import select
import stat

from unoic_cli.errors import DataError, NoInputError, StorageError
from unoic_cli.storage import witness

MOST_BYTES = 64 << 20
"""Of a small file, unless its reader says otherwise."""
PATIENCE = 60.0
"""Seconds without a byte from a pipe that the shell made."""

_HANDED = ("/dev/fd/", "/proc/self/fd/")
_PIECE = 1 << 20


def open_regular(path: str, expected: str, *, pipes: bool = False, watch: bool = True) -> int:
    """A descriptor of a regular file, without waiting for anything.

    Parameters
    ----------
    path, expected : str
    pipes : bool
        Also a pipe that the shell made.
    watch : bool
        The file must stay as it is until the command ends.

    Raises
    ------
    NoInputError
        The file is missing, cannot be opened, or is of another sort.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer opens at once
    except FileNotFoundError:
        raise NoInputError(path, "no such file", expected) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NoInputError(path, f"cannot be opened ({reason})", expected) from None
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode) and path.startswith(_HANDED)):
        if watch:
            witness.see(path, file)
        return file
    witness.let_go(file)
    raise NoInputError(path, "a folder" if stat.S_ISDIR(mode) else "a device or a pipe", expected)


def read_whole(path: str, expected: str, *, most: int = MOST_BYTES, watch: bool = True) -> bytes:
    """The content of a small file.

    Parameters
    ----------
    path : str
    expected : str
        What the file should be, for messages.
    most : int
        Bytes that such a file can need.
    watch : bool
        The file must stay as it is until the command ends.

    Raises
    ------
    NoInputError
        The file is missing, cannot be opened, or is no regular file.
    DataError
        It is larger than `most`.
    StorageError
        Reading failed half-way.

    Examples
    --------
    >>> read_whole("/dev/zero", "expected a calibration")
    Traceback (most recent call last):
    ...
    unoic_cli.errors.NoInputError: /dev/zero: a device or a pipe; expected a calibration
    """
    file = open_regular(path, expected, pipes=True, watch=watch)
    try:
        status = os.fstat(file)
        if status.st_size > most:
            raise _too_large(path, f"{status.st_size:,} bytes", most, expected)
        data = bytearray()
        while piece := _piece(path, expected, file, min(_PIECE, most + 1 - len(data))):
            data += piece
            if len(data) > most:
                raise _too_large(path, f"more than {most:,} bytes", most, expected)
        return bytes(data)
    finally:
        witness.let_go(file)


def is_ready(file: int, *, to_write: bool = False, seconds: float | None = None) -> bool:
    """Wait until a descriptor, whatever its number, can be read or written; False after some seconds without."""
    watch = select.poll()
    watch.register(file, select.POLLOUT if to_write else select.POLLIN)
    return bool(watch.poll(None if seconds is None else 1000 * seconds))


def _piece(path: str, expected: str, file: int, size: int) -> bytes:
    """The next bytes; none at the end."""
    if stat.S_ISFIFO(os.fstat(file).st_mode) and not is_ready(file, seconds=PATIENCE):
        raise NoInputError(path, f"a pipe that says nothing for {PATIENCE:.0f} s", expected)
    try:
        return os.read(file, size)
    except BlockingIOError:
        raise NoInputError(path, "a file that makes its readers wait", expected) from None
    except OSError as error:
        raise StorageError(path, f"reading failed ({error.strerror})", "expected readable data") from None


def _too_large(path: str, found: str, most: int, expected: str) -> DataError:
    return DataError(path, found, f"{expected}, which has at most {most >> 20} MB")
