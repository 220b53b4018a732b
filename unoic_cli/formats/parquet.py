"""Logits in Parquet: a row of the file is one unit, in any of the layouts that people write."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unoic_cli import storage
from unoic_cli.errors import DataError
from unoic_cli.formats import schema
from unoic_cli.formats.block import FIELDS, SCORE_KINDS, LogitBlock, OutputSpec, Reader, Writer
from unoic_cli.formats.boxes import Box
from unoic_cli.formats.names import Asked
from unoic_cli.formats.source import ColumnSource, FileSource
from unoic_cli.storage import witness

_BATCH_BYTES = 6 << 20
_GROUP_BYTES = 8 << 20
_OURS = (*FIELDS, "label", "predictions")
_ROOM = 16 << 20
"""Bytes of a row group besides those of its values."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Parquet(ColumnSource):
    """Scores in the columns of a Parquet file."""

    NAME = "parquet"
    TITLE = "a Parquet file"
    SUFFIXES = (".parquet", ".pq")
    SIGNATURES = (b"PAR1",)
    WRITABLE = True

    @classmethod
    def describe(cls, name: str, path: str, group: str, *, allow_external: bool, asked: Asked) -> FileSource:
        """Find the scores by the schema of a file, which never refers to another; see `FileSource.describe`."""
        with storage.described(path) as (there, stamp, _), _open(name, there) as file, _damaged(name):
            from unoic_cli.formats import tables

            if not storage.is_remote(path) and tables.has_images(file.schema_arrow):
                return tables.ParquetImages.describe(name, path, group, allow_external=allow_external, asked=asked)
            return _describe(name, path, stamp, file, asked)

    @classmethod
    def box(cls, path: str) -> Box:
        """See `FileSource.box`."""
        from unoic_cli.formats.tables import ParquetBox

        return ParquetBox(path)

    @classmethod
    def create(cls, path: str, spec: OutputSpec, unfinished: str | None = None) -> Writer:
        """Start a file; see `FileSource.create`."""
        return ParquetWriter(path, spec)

    def open(self) -> Reader:
        """A reader, for one thread."""
        return ParquetReader(self)

    def read_path(self) -> tuple[str, str]:
        """Row by row group."""
        return "row groups", ""


# ------------------------------------------------------------------------------------------------
# describing


def _damaged(where: str) -> contextlib.AbstractContextManager[None]:
    """Turn what pyarrow raises on a damaged file into one error of ours."""
    return schema.damaged(where, "a corrupt page or footer", "expected an intact Parquet file")


def _open(name: str, there: Any, texts: Sequence[str] = (), *, ahead: bool = False) -> Any:
    """Open a path, or the file of a remote object; `ahead` takes reads of the latter together, in other threads.

    Columns of `texts` come as dictionaries: each text once, however often it occurs.
    """
    import pyarrow.parquet as pq

    options = {"page_checksum_verification": True, "read_dictionary": list(texts)}
    with schema.opening(name, Parquet.TITLE):
        return pq.ParquetFile(there, pre_buffer=ahead, **options)


def _describe(name: str, path: str, stamp: Any, file: Any, asked: Asked) -> Parquet:
    from unoic_cli.formats import columns

    def first(column: str) -> Any:
        batches = file.iter_batches(batch_size=1, columns=[column], use_threads=False)
        return next((batch.column(0) for batch in batches if batch.num_rows), None)

    place = path if storage.is_remote(path) else os.path.abspath(path)
    rows = tuple(file.metadata.row_group(index).num_rows for index in range(file.num_row_groups))
    source = columns.describe(
        Parquet, name, file.schema_arrow, "", first, asked, rows=rows, path=place, stamp=stamp, checksums=None
    )
    _check_sizes(name, file, source.n_classes)
    source = replace(source, storage=_storage(file))  # which reads a column: before that, metadata may not be asked
    return source if storage.is_remote(path) else replace(source, checksums=_checksums(path, file))


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
    import pyarrow as pa

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


class ParquetReader:
    """Decodes row groups batch by batch, so that a huge one does not fill the memory."""

    def __init__(self, source: Parquet) -> None:
        from unoic_cli.formats import columns

        self._source = source
        self._columns = columns.ColumnBlocks(source, _damaged)
        self._remote: Any = None
        self._file: Any = None
        try:
            if storage.is_remote(source.path):
                expected = f"expected {source.TITLE}"
                self._remote = storage.open_file(source.name, source.path, source.stamp, expected)
            texts = [source.places[name] for name in ("split", "group", "sample_id") if name in source.places]
            there = source.path if self._remote is None else self._remote.as_file()
            self._file = _open(source.name, there, texts, ahead=self._remote is not None)
            metadata = self._file.metadata
            rows = tuple(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
            if rows != source.rows:
                raise witness.changed(source.name)
        except BaseException:
            self.close()
            raise
        self._edges = np.concatenate([[0], np.cumsum(rows)])

    def blocks(self, start: int, stop: int, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """Units [start, stop); see `unoic_cli.formats.block.Reader`."""
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
            with _damaged(self._source.name):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


# ------------------------------------------------------------------------------------------------
# writing


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
        from unoic_cli.formats import columns

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
        import pyarrow.parquet as pq

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
        """Store the next block; see `unoic_cli.formats.block.Writer`."""
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
