"""Logits in Parquet: a row of the file is one unit, in any of the layouts that people write."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unoic_cli import witness
from unoic_cli.block import FIELDS, SCORE_KINDS, LogitBlock, OutputSpec, Source
from unoic_cli.errors import DataError, NoInputError, StorageError, UnoicError
from unoic_cli.formats import columns, names, schema, storage

NAME = "parquet"
_NOTHING = names.Asked()
SUFFIXES = (".parquet", ".pq")

_BATCH_BYTES = 6 << 20
_GROUP_BYTES = 8 << 20
_OURS = (*FIELDS, "label", "predictions")
_ROOM = 16 << 20
"""Bytes of a row group besides those of its values."""


def matches(head: bytes) -> bool:
    """Tell whether a file that starts like this is Parquet."""
    return head.startswith(b"PAR1")


# ------------------------------------------------------------------------------------------------
# describing


def describe(
    name: str, path: str, group: str = "/", *, allow_external: bool = False, asked: names.Asked = _NOTHING
) -> Source:
    """Find the scores of a file by its schema and metadata.

    Parameters
    ----------
    name : str
        The input as typed; messages start with it.
    path : str
        The file.
    group : str
        Only HDF5 has groups.
    allow_external : bool
        A Parquet file never refers to another.
    asked : Asked
        What was said of the names of columns.

    Raises
    ------
    NoInputError
        The file is missing or not readable.
    DataError
        It is not a Parquet file, or does not hold what the schema asks for.
    """
    with storage.described(path) as (there, stamp, _), _open(name, there) as file, _parquet_errors(name):
        return _describe(name, path, stamp, file, asked)


@contextlib.contextmanager
def _parquet_errors(where: str) -> Iterator[None]:
    """Turn what pyarrow raises on a damaged file into one error of ours."""
    try:
        yield
    except UnoicError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise StorageError(where, f"reading failed ({reason})", "expected readable data") from error
        raise DataError(where, f"a corrupt page or footer ({reason})", "expected an intact Parquet file") from error


def _open(name: str, there: Any, texts: Sequence[str] = (), *, ahead: bool = False) -> Any:
    """Open a path, or the file of a remote object; `ahead` takes reads of the latter together, in other threads.

    Columns of `texts` come as dictionaries: each text once, however often it occurs.
    """
    options = {"page_checksum_verification": True, "read_dictionary": list(texts)}
    try:
        return pq.ParquetFile(there, pre_buffer=ahead, **options)
    except UnoicError:
        raise
    except FileNotFoundError:
        raise NoInputError(name, "no such file", "expected a Parquet file") from None
    except PermissionError:
        raise NoInputError(name, "permission denied", "expected a readable file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise DataError(name, f"truncated or not Parquet ({reason})", "expected an intact Parquet file") from error


def _describe(name: str, path: str, stamp: Any, file: Any, asked: names.Asked) -> Source:
    n_rows = file.metadata.num_rows

    def first(column: str) -> Any:
        batches = file.iter_batches(batch_size=1, columns=[column], use_threads=False)
        return next((batch.column(0) for batch in batches if batch.num_rows), None)

    locator = {
        "path": path if storage.is_remote(path) else os.path.abspath(path),
        "stamp": stamp,
        "group_rows": [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)],
    }
    source = columns.describe(name, NAME, file.schema_arrow, n_rows, "", first, locator, asked)
    _check_sizes(name, file, source.n_classes)
    source = replace(source, storage=_storage(file))  # which reads a column: before that, metadata may not be asked
    source.locator["checksums"] = None if storage.is_remote(path) or not n_rows else _checksums(path, file)
    return source


def _checksums(path: str, file: Any) -> str:
    """Whether a page has a checksum: field 4 of its header, behind its type and two sizes."""
    column = file.metadata.row_group(0).column(file.metadata.num_columns - 1)
    at = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    with open(path, "rb") as raw:
        raw.seek(max(0, at))
        head = raw.read(64)
    place = 0
    for _ in range(3):  # each a byte that says "the next field, an integer", and the integer
        place += 1
        while place < len(head) and head[place] & 0x80:
            place += 1
        place += 1
    return "crc32" if head[place : place + 1] == b"\x15" else "none"


def _check_sizes(name: str, file: Any, n_classes: int) -> None:
    """Refuse row groups with far more bytes than their rows can need, before texts are read.

    Only where all columns are ours: others may hold anything, and are not read.
    """
    width = 0
    for field in file.schema_arrow:
        kind = field.type
        if field.name not in _OURS and not field.name.startswith(SCORE_KINDS):
            return
        is_text = field.name in ("split", "group", "sample_id") and not pa.types.is_primitive(kind)
        width += schema.LONGEST_TEXT if is_text else 16 * n_classes
    for index in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(index)
        if group.total_byte_size > group.num_rows * width + _ROOM:
            found = f"{group.total_byte_size:,} bytes for {group.num_rows:,} rows (row group {index})"
            raise DataError(name, found, f"expected texts of at most {schema.LONGEST_TEXT:,} bytes")


def _storage(file: Any) -> str:
    metadata = file.metadata
    count = metadata.num_row_groups
    # where a footer is damaged, pyarrow's view of a column kills the process; reading the column raises instead
    next(file.iter_batches(1, row_groups=[0], columns=[file.schema_arrow.names[-1]], use_threads=False), None)
    codec = metadata.row_group(0).column(metadata.num_columns - 1).compression.lower()
    plural = "" if count == 1 else "s"
    return f"{count} row group{plural}" + ("" if codec == "uncompressed" else f", {codec}")


# ------------------------------------------------------------------------------------------------
# reading


def spans(source: Source, target_bytes: int) -> list[tuple[int, int]]:
    """Row groups, small ones taken together up to `target_bytes`."""
    size = schema.score_dtype(source.encoding).itemsize
    unit_bytes = 8 if source.kind == "predictions" else size * source.n_classes
    return columns.joined_spans(source.locator["group_rows"], unit_bytes, target_bytes)


def open_reader(source: Source) -> ParquetReader:
    """Open a source for one thread."""
    return ParquetReader(source)


class ParquetReader:
    """Decodes row groups batch by batch, so that a huge one does not fill the memory."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._columns = columns.ColumnBlocks(source, _parquet_errors)
        self._remote: Any = None
        self._file: Any = None
        path = source.locator["path"]
        try:
            if storage.is_remote(path):
                self._remote = storage.open_file(source.name, path, source.locator["stamp"], "expected a Parquet file")
            fields = source.locator["fields"]
            texts = [fields[name] for name in ("split", "group", "sample_id") if name in fields]
            there = path if self._remote is None else self._remote.as_file()
            self._file = _open(source.name, there, texts, ahead=self._remote is not None)
            metadata = self._file.metadata
            rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
            if rows != source.locator["group_rows"]:
                raise witness.changed(source.name)
        except BaseException:
            self.close()
            raise
        self._edges = np.concatenate([[0], np.cumsum(rows)])

    def blocks(self, start: int, stop: int, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """Units [start, stop); see `unoic_cli.block.Reader`."""
        groups = [
            index
            for index in range(len(self._edges) - 1)
            if self._edges[index] < stop and self._edges[index + 1] > max(start, self._edges[index])
        ]
        at = int(self._edges[groups[0]]) if groups else stop
        for batch in self._batches(groups, self._columns.columns(fields)):
            first, last = max(start, at), min(stop, at + batch.num_rows)
            if first < last:
                yield self._columns.block(batch.slice(first - at, last - first), first, last, fields)
            at += batch.num_rows
            if at >= stop:
                return
        if at < stop:
            found = f"rows {at:,} to {stop - 1:,} are missing"
            raise DataError(self._source.name, found, "expected as many rows as the footer tells of")

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
        if self._remote is not None:
            self._remote.close()

    def _batches(self, groups: list[int], names: list[str]) -> Iterator[Any]:
        rows = self._columns.rows(_BATCH_BYTES)
        batches = self._file.iter_batches(batch_size=rows, row_groups=groups, columns=names, use_threads=False)
        while True:
            with _parquet_errors(self._source.name):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


# ------------------------------------------------------------------------------------------------
# writing


def create(path: str, spec: OutputSpec) -> ParquetWriter:
    """Start an output file under a temporary name.

    Raises
    ------
    CannotCreateError
        The folder is not writable.
    StorageError
        Writing failed, of a full disk for one.
    """
    return ParquetWriter(path, spec)


class _Sink(io.RawIOBase):
    """What the library writes to: our own descriptor, whose errors are ours."""

    def __init__(self, output: schema.TemporaryOutput) -> None:
        super().__init__()
        self._output = output
        self._at = 0
        self.dead = False

    def writable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where we are."""
        return self._at

    def write(self, data: Any) -> int:
        """Write behind what is there; nothing of an output that is removed."""
        size = memoryview(data).nbytes
        if not self.dead:
            self._output.pwrite(data, self._at)
        self._at += size
        return size


class ParquetWriter:
    """Writes blocks, in order, into row groups of about 8 MB."""

    ordered = True

    def __init__(self, path: str, spec: OutputSpec) -> None:
        self._spec = spec
        self._rows = columns.RowWriter(spec, _GROUP_BYTES)
        self._output = schema.TemporaryOutput(path)
        self._sink: Any = None
        self._writer: Any = None
        try:
            self._open()
        except BaseException:
            self.abort()
            raise

    def _open(self) -> None:
        names = self._rows.schema.names
        repeated = [name for name in ("sample_id", "split", "group") if name in names]
        repeated += ["delta"] if self._spec.scalar_delta is not None else []
        self._sink = _Sink(self._output)
        self._writer = pq.ParquetWriter(
            self._sink,
            self._rows.schema,
            compression={name: "zstd" for name in names if name != self._spec.kind},  # scores hardly shrink
            use_dictionary=repeated or False,
            write_statistics=False,
            write_page_checksum=self._spec.checksums,
        )

    def write(self, block: LogitBlock) -> None:
        """Store the next block; see `unoic_cli.block.Writer`."""
        self._store(self._rows.add(block))

    def _store(self, table: Any) -> None:
        if table is not None:
            self._writer.write_table(table, row_group_size=self._rows.group_rows)

    def commit(self) -> None:
        """Write what is left and the footer, flush, and rename onto the final name."""
        self._store(self._rows.rest())
        self._writer.close()
        self._output.commit()

    def abort(self) -> None:
        """Remove what was written."""
        if self._sink is not None:
            self._sink.dead = True
        if self._writer is not None:
            with contextlib.suppress(Exception):  # it may find itself in any state
                self._writer.close()
        self._output.abort()
