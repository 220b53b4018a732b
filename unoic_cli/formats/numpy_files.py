"""Arrays of ``.npy`` and ``.npz`` files: as streams, or at their places; no pickles, and no member loaded whole."""

from __future__ import annotations

import ast
import contextlib
import lzma
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unoic_cli import storage
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import boxes, schema
from unoic_cli.formats.boxes import Entry, Place
from unoic_cli.storage import witness
from unoic_cli.storage.whole import open_regular

_CORRUPT = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(ValueError, TypeError, KeyError, OverflowError, RuntimeError, IndexError, AttributeError),
)
"""What zipfile and its codecs raise on damaged bytes."""

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 1 << 16
_HEADER = re.compile(r"[\w\s'\"<>|=,:()\[\]{}.+-]*", re.ASCII)
"""What a header is made of: nothing that would be more than a literal."""
_NAME_AT = 26
"""Where the header of a member has the lengths of what follows it, in bytes behind its start."""
_PIECE = 1 << 20


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
        It is truncated or corrupt.
    """
    found = {}
    with _opened(path) as (names, open_member):
        for name in names:
            with corrupt(f"{path}:{name}"), open_member(name) as file:
                header = _header(f"{path}:{name}", file, wanted=False)
            found[name] = (header.shape, header.dtype)
    return found


class NumpyBox(boxes.Box):
    """The arrays of a npz file, or the one of a npy file, which is called as the file's stem."""

    CHECKSUMS = "crc32"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.entries = {name: Entry(*facts) for name, facts in members(path).items()}

    def place(self, member: str) -> Place:
        """See `unoic_cli.formats.boxes.Box`."""
        return place(self.path, member)

    def rows(self, member: str, target_bytes: int) -> Iterator[NDArray[Any]]:
        """See `unoic_cli.formats.boxes.Box`."""
        return rows(self.path, member, target_bytes)

    def read(self, member: str) -> NDArray[Any]:
        """See `unoic_cli.formats.boxes.Box`."""
        return read(self.path, member)


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


def place(path: str, member: str) -> Place:
    """Where an array lies in a file; all of its bytes are looked at once where they have a checksum.

    Raises
    ------
    DataError
        It is truncated or damaged, or no array of numbers or text.
    """
    where = f"{path}:{member}"
    with _stream(path, member) as file:
        header = _header(where, file)
        begin: int | None = file.tell()
        size = math.prod(header.shape) * header.dtype.itemsize
        if isinstance(file, zipfile.ZipExtFile):
            begin, whole = _in_archive(where, path, member, file.tell())
            if header.fortran and len(header.shape) > 1:
                return Place(None, "Fortran order")
            if begin is None:
                return Place(None, "compressed")
            _skip(where, file, size)
        else:
            whole = os.fstat(file.fileno()).st_size - file.tell()
        if whole < size:
            raise DataError(where, f"truncated ({whole:,} bytes)", f"expected {size:,}")
        if header.fortran and len(header.shape) > 1:
            return Place(None, "Fortran order")
    return Place(begin, "contiguous")


def _in_archive(where: str, path: str, member: str, header_bytes: int) -> tuple[int | None, int]:
    """Offset of a stored array in an archive (None if it is compressed), and its bytes."""
    with corrupt(where), _open(path) as file, zipfile.ZipFile(file) as archive:
        info = archive.getinfo(member + ".npy")
        begin = stored_at(file, info)
    return (None if begin is None else begin + header_bytes), info.file_size - header_bytes


def stored_at(file: IO[bytes], info: zipfile.ZipInfo) -> int | None:
    """Offset of what is stored in an archive as it is; None where it is compressed."""
    file.seek(info.header_offset + _NAME_AT)
    sizes = struct.unpack("<HH", file.read(4))
    return info.header_offset + _NAME_AT + 4 + sum(sizes) if info.compress_type == zipfile.ZIP_STORED else None


def _skip(where: str, file: IO[bytes], size: int) -> None:
    """Read to the end of an array, where its checksum is compared."""
    for done in range(0, size, _PIECE):
        _exactly(where, file, min(_PIECE, size - done))
    _check_end(where, file)


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
        self._path, self._name, where = path, name, name  # there is only one array
        with _opened(path) as (names, _):
            (member,) = names
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


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[dict[str, None], Callable[[str], IO[bytes]]]]:
    """Names of the arrays of a file, each once, and what opens one."""
    if not _is_zip(path):
        yield {os.path.splitext(os.path.basename(path))[0]: None}, lambda _: _open(path)
        return
    with contextlib.ExitStack() as stack:
        with corrupt(path):
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(_open(path))))
            members = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if len(members) > boxes.MOST_NAMES:
            raise DataError(path, f"{len(members):,} arrays", f"expected at most {boxes.MOST_NAMES:,}")
        yield dict.fromkeys(members), lambda name: archive.open(name + ".npy")


def _open(path: str) -> IO[bytes]:
    return open(open_regular(path, "expected a npy or npz file"), "rb")


def _is_zip(path: str) -> bool:
    with _open(path) as file:
        return file.read(2) == b"PK"


@contextlib.contextmanager
def corrupt(where: str, what: str = "npy or npz") -> Iterator[None]:
    """Turn whatever a broken file raises into one `DataError`."""
    try:
        yield
    except _CORRUPT as error:
        raise DataError(where, f"truncated or corrupt ({error})", f"expected an intact {what} file") from error


@contextlib.contextmanager
def _stream(path: str, member: str) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        names, open_member = stack.enter_context(_opened(path))
        if member not in names:
            raise UsageError(f"{path}:{member}", "no such member", f"expected one of {', '.join(names)}")
        with corrupt(path):
            file = stack.enter_context(open_member(member))
        yield file


def _header(where: str, file: IO[bytes], *, wanted: bool = True) -> _Header:
    """Shape, order and dtype of an array; the stream then stands at its first byte."""
    with corrupt(where):
        start = file.read(8)
        if len(start) < 8 or not start.startswith(_MAGIC) or start[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
            raise ValueError("the start of no npy file")
        size = int.from_bytes(file.read(2 if start[6] == 1 else 4), "little")
        text = file.read(size) if size <= _MOST_HEADER else b""
        if len(text) < size:
            raise ValueError("a header that is cut off, or longer than any")
        header = _parse_header(text.decode("utf-8"))
    if wanted:
        boxes.check(where, header.dtype)
    if any(extent < 0 for extent in header.shape):
        raise DataError(where, f"shape {header.shape}", "expected an intact npy or npz file")
    return header


def _parse_header(text: str) -> _Header:
    """The three entries of a header; ValueError or TypeError if they make no sense."""
    plain = re.sub(r"(\d)L\b", r"\1", text)  # Python 2 wrote its long integers so
    if not _HEADER.fullmatch(plain):
        raise ValueError("a header with characters that none has")
    try:
        entries = ast.literal_eval(plain.strip())
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError("a header that cannot be read") from None
    if not isinstance(entries, dict) or set(entries) != {"descr", "fortran_order", "shape"}:
        raise ValueError("a header of other entries than any has")
    shape, fortran = entries["shape"], entries["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(extent) is int for extent in shape) or type(fortran) is not bool:
        raise ValueError("a header without a shape, or an order")
    if not isinstance(entries["descr"], (str, list)):
        raise ValueError("a header without a type")
    try:
        dtype = np.dtype(entries["descr"])
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):  # numpy parses commas as Python
        raise ValueError("a header of a type that no array has") from None
    if math.prod(shape) * max(1, dtype.itemsize) >= 1 << 63 or len(shape) > 32:
        raise ValueError(f"a shape that no array has, {str(shape)[:60]}")
    return _Header(shape, fortran, dtype)


def _exactly(where: str, file: IO[bytes], size: int) -> bytearray:
    """Read `size` bytes, or raise."""
    data = bytearray()
    with corrupt(where):
        while len(data) < size:
            piece = file.read(min(size - len(data), 1 << 24))
            if not piece:
                raise EOFError(f"{size - len(data):,} bytes are missing")
            data += piece
    return data


def _check_end(where: str, file: IO[bytes]) -> None:
    """Touch the end of the stream: a zip member's checksum is compared only there."""
    with corrupt(where):
        file.read(1)
