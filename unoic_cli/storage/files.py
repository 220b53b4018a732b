"""Files that are read: local ones by their descriptors, remote ones as objects; none may change meanwhile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from unoic_cli.errors import NoInputError
from unoic_cli.storage import witness
from unoic_cli.storage.objects import RemoteFile
from unoic_cli.urls import is_remote

File = int | RemoteFile
"""An open file: a descriptor, or a remote object."""


def open_file(name: str, path: str, stamp: Any, expected: str) -> File:
    """Open a file again that was described before.

    Raises
    ------
    NoInputError
        It cannot be opened.
    DataError
        It is not what it was when `stamp` was taken.
    """
    file: File
    if is_remote(path):
        file = RemoteFile(path)
        now: Any = file.stamp
    else:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NoInputError(name, f"cannot be opened ({error.strerror})", expected) from None
        now = local_stamp(path)
    if now != stamp:
        close_file(file)
        raise witness.changed(name, "object" if is_remote(path) else "file")
    return file


def check_stamp(name: str, path: str, stamp: Any) -> None:
    """Refuse an object that is not what it was when `stamp` was taken."""
    close_file(open_file(name, path, stamp, ""))


def close_file(file: File) -> None:
    """Close what `open_file` gave."""
    if isinstance(file, int):
        witness.let_go(file)
    else:
        file.close()


def local_stamp(path: str) -> tuple[int, int, int] | None:
    """Identify a file's state, so that stored offsets are never used on another file."""
    try:
        status = os.stat(path)
    except OSError:
        return None  # opening it will say why
    return witness.state_of(status)


@contextlib.contextmanager
def described(path: str) -> Iterator[tuple[Any, Any, int]]:
    """What h5py and pyarrow open, the file's stamp, and its size (-1 when that is for opening to say)."""
    if not is_remote(path):
        stamp = local_stamp(path)
        yield path, stamp, -1 if stamp is None else stamp[1]
        return
    remote = RemoteFile(path)
    try:
        yield remote.as_file(), remote.stamp, remote.size
    finally:
        remote.close()


def first_bytes(path: str) -> tuple[bytes, int]:
    """The first bytes of a remote object, enough to know a format by, and its size."""
    remote = RemoteFile(path)
    try:
        return bytes(remote.read(0, min(remote.size, 4096))), remote.size
    finally:
        remote.close()
