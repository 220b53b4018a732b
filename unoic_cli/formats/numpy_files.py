"""Arrays of ``.npy`` and ``.npz`` files as streams: no pickles, and no member loaded whole.

Only conversion reads these files; they carry no schema of their own.
"""

from __future__ import annotations

import contextlib
import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unoic_cli import witness
from unoic_cli.errors import DataError, NoInputError, UsageError
from unoic_cli.formats import schema, storage

_CORRUPT = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(ValueError, TypeError, KeyError, OverflowError, RuntimeError, SyntaxError, tokenize.TokenError),
)
"""What zipfile, its codecs and numpy's header parser raise on damaged bytes."""


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def members(path: str) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Names, shapes and dtypes of the arrays in a file.

    Parameters
    ----------
    path : str
        A ``.npz`` file, or a ``.npy`` file, whose one member is named by the file's stem.

    Raises
    ------
    NoInputError
        The file is missing or not readable.
    DataError
        It is truncated or corrupt, or a member holds pickled objects.
    """
    found = {}
    for name in _names(path):
        with _stream(path, name) as file:
            header = _header(f"{path}:{name}", file)
            found[name] = (header.shape, header.dtype)
    return found


def read(path: str, member: str) -> NDArray[Any]:
    """Read a whole member; meant for small arrays.

    Parameters
    ----------
    path, member : str
        As listed by `members`.
    """
    where = f"{path}:{member}"
    with _stream(path, member) as file:
        header = _header(where, file)
        data = _exactly(where, file, math.prod(header.shape) * header.dtype.itemsize)
        _check_end(where, file)
    flat = np.frombuffer(data, header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


class PlainRows:
    """A npy file whose entries of the first axis are read at their places, any of them, in any order.

    Parameters
    ----------
    path : str
    name : str
        The file as messages show it.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy dtype

    Raises
    ------
    NoInputError, DataError
        The file cannot be read, or is damaged.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path, self._name, (member,) = path, name, _names(path)
        where = name  # there is only one array
        with _stream(path, member) as file:
            self._stamp = witness.state_of(os.fstat(file.fileno()))
            header = _header(where, file)
            self._begin = file.tell()
        self.shape, self.dtype = header.shape, header.dtype
        size = math.prod(header.shape) * header.dtype.itemsize
        if self._stamp[1] < self._begin + size:
            raise DataError(where, f"truncated ({self._stamp[1]:,} bytes)", f"expected {self._begin + size:,}")
        # entries of a Fortran-ordered array are scattered over all of it
        self._whole = read(path, member) if header.fortran and len(header.shape) > 1 else None

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Entries [start, stop) of the first axis; of a single number, that one.

        Raises
        ------
        DataError, StorageError
            The file is another now, or cannot be read.
        """
        if self._whole is not None:
            return self._whole[start:stop]
        shape = (stop - start, *self.shape[1:]) if self.shape else ()
        array = np.empty(shape, self.dtype)
        file = storage.open_file(self._name, self._path, self._stamp, "expected a npy file")
        try:
            row = math.prod(self.shape[1:]) * self.dtype.itemsize
            schema.pread_into(self._name, file, array, self._begin + start * row)
        finally:
            storage.close_file(file)
        return array


def rows(path: str, member: str, target_bytes: int) -> Iterator[NDArray[Any]]:
    """Blocks of entries of the first axis, about `target_bytes` each.

    Parameters
    ----------
    path, member : str
        As listed by `members`.
    target_bytes : int
        Size of one block; a block holds at least one entry. A Fortran-ordered
        member is loaded whole, as its rows are scattered over all of it.

    Yields
    ------
    ndarray
        C-ordered, in the stored dtype.
    """
    where = f"{path}:{member}"
    with _stream(path, member) as file:
        header = _header(where, file)
        if not header.shape:
            raise DataError(where, "a single number", "expected an array with rows")
        row_bytes = math.prod(header.shape[1:]) * header.dtype.itemsize
        step = max(1, target_bytes // max(1, row_bytes))
        if not (header.fortran and len(header.shape) > 1):
            for start in range(0, header.shape[0], step):
                count = min(step, header.shape[0] - start)
                data = _exactly(where, file, count * row_bytes)
                if start + count == header.shape[0]:
                    _check_end(where, file)
                yield np.frombuffer(data, header.dtype).reshape(count, *header.shape[1:])
            return
    whole = read(path, member)
    for start in range(0, len(whole), step):
        yield np.ascontiguousarray(whole[start : start + step])


def _names(path: str) -> list[str]:
    if not _is_zip(path):
        return [os.path.splitext(os.path.basename(path))[0]]
    with _corrupt(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _is_zip(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"PK"
    except OSError as error:
        raise NoInputError(path, f"cannot be opened ({error.strerror})", "expected a npy or npz file") from None


@contextlib.contextmanager
def _corrupt(where: str) -> Iterator[None]:
    """Turn whatever a broken file raises into one `DataError`."""
    try:
        yield
    except _CORRUPT as error:
        raise DataError(where, f"truncated or corrupt ({error})", "expected an intact npy or npz file") from error


@contextlib.contextmanager
def _stream(path: str, member: str) -> Iterator[IO[bytes]]:
    names = _names(path)
    if member not in names:
        raise UsageError(f"{path}:{member}", "no such member", f"expected one of {', '.join(names)}")
    with contextlib.ExitStack() as stack:
        with _corrupt(path):
            if _is_zip(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                file = stack.enter_context(archive.open(member + ".npy"))
            else:
                file = stack.enter_context(open(path, "rb"))
        yield file


def _header(where: str, file: IO[bytes]) -> _Header:
    with _corrupt(where):
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            header = _Header(*np.lib.format.read_array_header_1_0(file))
        else:
            header = _Header(*np.lib.format.read_array_header_2_0(file))
    if header.dtype.hasobject:
        raise DataError(where, "a pickled (object) array", "expected numbers or fixed-length text")
    if header.dtype.kind == "V":
        raise DataError(where, "a structured array", "expected numbers or fixed-length text")
    if any(extent < 0 for extent in header.shape):
        raise DataError(where, f"shape {header.shape}", "expected an intact npy or npz file")
    return header


def _exactly(where: str, file: IO[bytes], size: int) -> bytearray:
    """Read `size` bytes, or raise."""
    data = bytearray()
    with _corrupt(where):
        while len(data) < size:
            piece = file.read(min(size - len(data), 1 << 24))
            if not piece:
                raise EOFError(f"{size - len(data):,} bytes are missing")
            data += piece
    return data


def _check_end(where: str, file: IO[bytes]) -> None:
    """Touch the end of the stream: a zip member's checksum is compared only there."""
    with _corrupt(where):
        file.read(1)
