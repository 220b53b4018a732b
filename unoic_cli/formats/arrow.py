"""Logits as an Arrow IPC stream: in a file, or through a pipe (``-``); the columns are those of Parquet.

A stream from a pipe goes to a nameless temporary file first, so every command can read it as often, and from as many
threads, as it likes; nothing is counted before its end-of-stream marker has come. That marker is also how a writer
tells a stream that is complete from one whose producer failed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np

from unoic_cli import storage
from unoic_cli.errors import CannotCreateError, DataError, NoInputError, StorageError
from unoic_cli.formats import schema
from unoic_cli.formats.block import LogitBlock, OutputSpec, Reader, Writer
from unoic_cli.formats.names import Asked
from unoic_cli.formats.source import ColumnSource
from unoic_cli.storage import spool, witness
from unoic_cli.storage.whole import is_ready

STANDARD = "-"
"""The name of standard input, and of standard output."""

_CONTINUATION = b"\xff\xff\xff\xff"
_END = _CONTINUATION + b"\0\0\0\0"
_FILE_MAGIC = b"ARROW1"
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_SORTS = {_SCHEMA: "schema", _DICTIONARY: "dictionary", _BATCH: "record batch"}
_COPY_BYTES = 1 << 20
_BLOCK_BYTES = 6 << 20
_GROUP_BYTES = 4 << 20
_MOST_METADATA = 1 << 30
_EXPECTED = "expected an Arrow IPC stream"
_OTHERS = {b"\x89HDF\r\n\x1a\n": "an HDF5 file", b"PAR1": "a Parquet file", b"PK\x03\x04": "an npz file"}


@dataclass(frozen=True, repr=False, kw_only=True)
class Arrow(ColumnSource):
    """Scores in the columns of an Arrow stream, or of an Arrow file, which holds one.

    Attributes
    ----------
    held : spool.Held or None
        The file of a stream that came through a pipe.
    head, batches : tuple of _Message
        Where the schema and dictionaries, and where the record batches lie.
    size : int
        Bytes of the stream.
    """

    NAME = "arrow"
    TITLE = "an Arrow stream"
    SUFFIXES = (".arrows",)
    SIGNATURES = (_CONTINUATION, _FILE_MAGIC)
    WRITABLE = True
    REMOTE = False
    STREAM = True

    held: spool.Held | None
    head: tuple[_Message, ...]
    batches: tuple[_Message, ...]
    size: int

    @classmethod
    def describe(cls, name: str, path: str, group: str, *, allow_external: bool, asked: Asked) -> Arrow:
        """Find the scores, and where record batches lie; standard input is read to its end. See `FileSource.describe`.

        Raises
        ------
        StorageError
            There is no room for a stream from a pipe.
        """
        held, start, stamp = None, 0, None
        if path == STANDARD:
            held, start = _standard_input()
            file: int = held.file
        else:
            stamp = storage.local_stamp(path)
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise NoInputError(name, f"cannot be opened ({error.strerror})", _EXPECTED) from None
        try:
            place = path if held is not None else os.path.abspath(path)
            return _describe(name, file, start, asked, path=place, held=held, stamp=stamp)
        finally:
            if held is None:
                witness.let_go(file)

    @classmethod
    def create(cls, path: str, spec: OutputSpec, unfinished: str | None = None) -> Writer:
        """Start a file, or, for ``-``, a stream on standard output; see `FileSource.create`."""
        return ArrowWriter(path, spec)

    def open(self) -> Reader:
        """A reader, for one thread."""
        return ArrowReader(self)

    @property
    def n_bytes(self) -> int:
        """Bytes of the stream."""
        return self.size


# ------------------------------------------------------------------------------------------------
# describing


class _Message(NamedTuple):
    """Where one message of a stream lies, what it is, and its rows."""

    offset: int
    size: int
    sort: int
    rows: int


def _describe(name: str, file: int, start: int, asked: Asked, **more: Any) -> Arrow:
    from unoic_cli.formats import columns

    messages = list(_scan(name, file, start))
    batches = tuple(message for message in messages if message.sort == _BATCH)
    head = tuple(message for message in messages if message.sort != _BATCH)
    read = _Batches(name, file, head, batches)
    table = read.schema()

    def first(column: str) -> Any:
        place = next((i for i, batch in enumerate(batches) if batch.rows), None)
        return None if place is None else read.read(place).column(table.get_field_index(column))

    phrase = f"{len(batches)} record batch{'' if len(batches) == 1 else 'es'}"
    more |= {"head": head, "batches": batches, "rows": tuple(batch.rows for batch in batches)}
    with _damaged(name):
        return columns.describe(Arrow, name, table, phrase, first, asked, size=os.fstat(file).st_size - start, **more)


def _damaged(where: str) -> contextlib.AbstractContextManager[None]:
    """Turn what pyarrow raises on damaged bytes into one error of ours."""
    return schema.damaged(where, "a corrupt record batch or schema", _EXPECTED)


def _scan(name: str, file: int, start: int) -> Iterator[_Message]:
    """Every message up to the end-of-stream marker, which must come, and be the end."""
    size = os.fstat(file).st_size
    head = _pread(name, file, start, min(16, size - start))
    at = start + (8 if head.startswith(_FILE_MAGIC) else 0)
    if not head:
        found = "an empty stream (0 bytes)" if name == STANDARD else "an empty file (0 bytes)"
        raise DataError(name, found, _EXPECTED)
    first = True
    while True:
        prefix = _pread(name, file, at, min(8, size - at))
        if prefix == _END:
            break
        if first and not prefix.startswith(_CONTINUATION):
            _refuse_start(name, head)
        if len(prefix) < 8:
            _refuse_cut(name, at - start, missing_end=not prefix)
        length = int.from_bytes(prefix[4:], "little", signed=True)
        if not prefix.startswith(_CONTINUATION) or not 0 < length <= _MOST_METADATA:
            raise DataError(name, f"no message at byte {at - start:,}", _EXPECTED)
        if at + 8 + length > size:
            _refuse_cut(name, size - start)
        sort, rows, body = _facts(name, _pread(name, file, at + 8, length), at - start)
        if (sort == _SCHEMA) != first or sort not in _SORTS:
            raise DataError(name, f"a {_SORTS.get(sort, f'message of type {sort}')} at byte {at - start:,}", _EXPECTED)
        whole = 8 + length + body
        if at + whole > size:
            _refuse_cut(name, size - start)
        yield _Message(at, whole, sort, rows)
        at, first = at + whole, False
    if first:
        raise DataError(name, "a stream without a schema", _EXPECTED)
    if at + 8 < size and not (head.startswith(_FILE_MAGIC) and _pread(name, file, size - 6, 6) == _FILE_MAGIC):
        raise DataError(name, f"{size - at - 8:,} bytes after the end of the stream", "expected one stream and no more")


def _refuse_start(name: str, head: bytes) -> NoReturn:
    for signature, what in _OTHERS.items():
        if head.startswith(signature):
            raise DataError(name, what, f"{_EXPECTED} (name such a file instead)")
    raise DataError(name, "no Arrow IPC stream (unknown first bytes)", _EXPECTED)


def _refuse_cut(name: str, seen: int, *, missing_end: bool = False) -> NoReturn:
    found = f"the stream breaks off after {seen:,} bytes"
    found += ", without its end marker" if missing_end else ""
    raise DataError(name, found, "expected a complete stream: what wrote it may have failed")


def _facts(name: str, metadata: bytes, at: int) -> tuple[int, int, int]:
    """Sort, rows and size of the body of a message, by its flatbuffer (``format/Message.fbs`` of Arrow)."""
    try:
        (table,) = struct.unpack_from("<I", metadata, 0)
        sort_at, header_at, body_at = (_field(metadata, table, number) for number in (1, 2, 3))
        sort = metadata[sort_at] if sort_at else 0
        (body,) = struct.unpack_from("<q", metadata, body_at) if body_at else (0,)
        rows = 0
        if sort == _BATCH:
            header = header_at + struct.unpack_from("<I", metadata, header_at)[0]
            rows_at = _field(metadata, header, 0)
            (rows,) = struct.unpack_from("<q", metadata, rows_at) if rows_at else (0,)
    except (struct.error, IndexError):
        raise DataError(name, f"a damaged message at byte {at:,}", _EXPECTED) from None
    if body < 0 or rows < 0:
        raise DataError(name, f"a damaged message at byte {at:,}", _EXPECTED)
    return sort, rows, body


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies; 0 when it has its default."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    if vtable < 0:
        raise IndexError
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * number + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * number)
    return table + offset if offset else 0


def _pread(name: str, file: int, offset: int, size: int) -> bytes:
    try:
        data = os.pread(file, max(0, size), offset)
    except OSError as error:
        raise StorageError(name, f"reading failed ({error.strerror})", "expected readable data") from None
    if len(data) < size:
        raise StorageError(name, "the file ends too soon", "expected it to stay as it was")
    return data


# ------------------------------------------------------------------------------------------------
# standard input


def _standard_input() -> tuple[spool.Held, int]:
    """Standard input as a file that can be read at any place, and where the stream starts in it."""
    where = STANDARD
    try:
        file = sys.stdin.fileno()
        status = os.fstat(file)
    except (AttributeError, ValueError, OSError):
        raise NoInputError(where, "standard input is closed", f"{_EXPECTED} from a pipe") from None
    if os.isatty(file):
        raise NoInputError(where, "standard input is a terminal", f"{_EXPECTED} from a pipe")
    if stat.S_ISDIR(status.st_mode):
        raise NoInputError(where, "standard input is a folder", f"{_EXPECTED} from a pipe")
    if stat.S_ISREG(status.st_mode):
        return spool.Held(os.dup(file)), os.lseek(file, 0, os.SEEK_CUR)
    return _spool(where, file), 0


def _spool(where: str, file: int) -> spool.Held:
    """Copy a pipe to a nameless file in ``TMPDIR``; something else than a stream is refused at its first bytes."""
    held = spool.nameless("standard input")
    buffer = memoryview(bytearray(_COPY_BYTES))
    head = b""
    while True:
        try:
            count = os.readv(file, [buffer])
        except BlockingIOError:
            is_ready(file)
            continue
        except OSError as error:
            raise StorageError(where, f"reading failed ({error.strerror})", "expected a readable pipe") from None
        if not count:
            return held
        head += bytes(buffer[: max(0, 8 - len(head))]) if len(head) < 8 else b""
        if len(head) >= 8 and not head.startswith(Arrow.SIGNATURES):
            _refuse_start(where, head)
        spool.append(held, buffer[:count], "standard input")


# ------------------------------------------------------------------------------------------------
# reading


class _Batches:
    """Record batches of a stream, each read by itself: a short stream is made of it and what it needs."""

    def __init__(self, name: str, file: int, head: Sequence[_Message], batches: Sequence[_Message]) -> None:
        self._name = name
        self._file = file
        self._head, self._batches = head, batches
        self._known = b""
        self._known_until = -1

    def _prefix(self, offset: int) -> bytes:
        """The schema, and the dictionaries that come before an offset."""
        needed = [message for message in self._head if message.offset < offset]
        if len(needed) != self._known_until:
            self._known = b"".join(_pread(self._name, self._file, m.offset, m.size) for m in needed)
            self._known_until = len(needed)
        return self._known

    def schema(self) -> Any:
        """The schema alone."""
        import pyarrow as pa

        first = self._head[0]
        with _damaged(self._name):
            return pa.ipc.open_stream(_pread(self._name, self._file, first.offset, first.size) + _END).schema

    def read(self, index: int) -> Any:
        """One record batch, checked as far as it can be."""
        import pyarrow as pa

        batch = self._batches[index]
        prefix = self._prefix(batch.offset)
        data = np.empty(len(prefix) + batch.size + len(_END), np.uint8)
        data[: len(prefix)] = np.frombuffer(prefix, np.uint8)
        schema.pread_into(self._name, self._file, data[len(prefix) : -len(_END)], batch.offset)
        data[-len(_END) :] = np.frombuffer(_END, np.uint8)
        with _damaged(self._name):
            found = pa.ipc.open_stream(pa.py_buffer(data)).read_next_batch()
            found.validate(full=True)
            if found.num_rows != batch.rows:
                raise ValueError(f"{found.num_rows} rows where {batch.rows} were told")
        return found


class ArrowReader:
    """Reads record batches one by one."""

    def __init__(self, source: Arrow) -> None:
        from unoic_cli.formats import columns

        self._columns = columns.ColumnBlocks(source, _damaged)
        self._file: Any = -1
        if source.held is None:
            self._file = storage.open_file(source.name, source.path, source.stamp, _EXPECTED)
        self._held = source.held  # kept: the last who lets go of it closes the file
        file = self._file if self._held is None else self._held.file
        self._batches = _Batches(source.name, file, source.head, source.batches)
        self._edges = np.cumsum([0, *source.rows])

    def blocks(self, start: int, stop: int, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """Units [start, stop); see `unoic_cli.formats.block.Reader`."""
        step = self._columns.rows(_BLOCK_BYTES)
        for index, (begin, end) in enumerate(zip(self._edges[:-1].tolist(), self._edges[1:].tolist(), strict=True)):
            if begin >= stop or end <= start or begin == end:
                continue
            batch = self._batches.read(index)
            for first in range(max(start, begin), min(stop, end), step):
                last = min(first + step, stop, end)
                yield self._columns.block(batch.slice(first - begin, last - first), first, last, fields)

    def close(self) -> None:
        """Let go of the file."""
        if self._file != -1:
            storage.close_file(self._file)
            self._file = -1


# ------------------------------------------------------------------------------------------------
# writing


def check_standard_output() -> int:
    """The descriptor of standard output, if a stream can go there.

    Raises
    ------
    CannotCreateError
        It is a terminal, or closed.
    """
    where, expected = STANDARD, "expected a pipe (| unoic evaluate -) or a file (> OUT.arrows)"
    try:
        sys.stdout.flush()
        file = sys.stdout.fileno()
        os.fstat(file)
    except (AttributeError, ValueError, OSError):
        raise CannotCreateError(where, "standard output is closed", expected) from None
    if os.isatty(file):
        raise CannotCreateError(where, "standard output is a terminal", expected)
    return file


class ArrowWriter:
    """Writes blocks, in order, as record batches of about 4 MB of scores.

    A stream on standard output that is aborted lacks its end marker: readers refuse it.
    """

    ordered = True

    def __init__(self, path: str, spec: OutputSpec) -> None:
        from unoic_cli.formats import columns

        self._rows = columns.RowWriter(spec, _GROUP_BYTES)
        self._output: schema.TemporaryOutput | None = None
        if path == STANDARD:
            self._file = check_standard_output()
        else:
            self._output = schema.TemporaryOutput(path)
            self._file = self._output.file
        self._where = path
        self._begun = False

    def _write(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        while view:
            try:
                view = view[os.write(self._file, view[: 1 << 30]) :]
            except BlockingIOError:
                is_ready(self._file, to_write=True)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise schema.storage_error(self._where, error) from error

    def _store(self, table: Any) -> None:
        if table is None:
            return
        if not self._begun:  # not earlier: where the first block fails, nothing was written
            self._write(self._rows.schema.serialize())
            self._begun = True
        for batch in table.combine_chunks().to_batches(max_chunksize=self._rows.group_rows):
            self._write(batch.serialize())

    def write(self, block: LogitBlock) -> None:
        """Store the next block; see `unoic_cli.formats.block.Writer`."""
        self._store(self._rows.add(block))

    def commit(self) -> None:
        """Write what is left and the end marker; a file is then renamed onto its final name."""
        self._store(self._rows.rest())
        self._write(_END)
        if self._output is not None:
            self._output.commit()

    def abort(self) -> None:
        """Remove a file; leave a stream without its end."""
        if self._output is not None:
            self._output.abort()
