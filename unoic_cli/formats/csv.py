"""Logits in CSV and TSV files: a line for each unit, a column for each class, names in the first line.

A file of lines has no places to read from. So describing one reads it once, in pieces that end at the end of a line,
and keeps where each begins and how many rows it has; from then on pieces are read like row groups of Parquet.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import numpy as np

from unoic_cli import storage
from unoic_cli.errors import DataError
from unoic_cli.formats import names, schema
from unoic_cli.formats.block import LogitBlock, OutputSpec, Reader, Writer
from unoic_cli.formats.boxes import Box
from unoic_cli.formats.source import ColumnSource

PIECE_BYTES = 1 << 20
LONGEST_LINE = 16 << 20

_BOM = b"\xef\xbb\xbf"
_TEXTS = ("split", "group")
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp$")
_INDEX = "(index)"
"""A first column without a name, as pandas writes it."""


class _Piece(NamedTuple):
    """Lines that are read at once: where they lie, and how many rows they are."""

    offset: int
    size: int
    rows: int


@dataclass(frozen=True, repr=False, kw_only=True)
class Csv(ColumnSource):
    """Scores in the columns of a file of lines.

    Attributes
    ----------
    header : tuple of str
        Names of all columns.
    delimiter : str
    kinds : dict of str to str
        Type of each column that is read, as Arrow calls it.
    pieces : tuple of _Piece
    """

    NAME = "csv"
    TITLE = "a CSV or TSV file"
    SUFFIXES = (".csv", ".tsv")
    REMOTE = False
    WRITABLE = True
    HOLDS = frozenset({"labels", "delta", "predictions", "class_names", "split", "group", "sample_id"})

    header: tuple[str, ...]
    delimiter: str
    kinds: dict[str, str]
    pieces: tuple[_Piece, ...]

    @classmethod
    def matches(cls, starts: Sequence[bytes], name: str) -> bool:
        """By its suffix, also of an output that is not in its place yet."""
        return _suffix(name) in cls.SUFFIXES

    @classmethod
    def describe(cls, name: str, path: str, group: str, *, allow_external: bool, asked: names.Asked) -> Csv:
        """Find the scores by the names of the columns, and where lines begin; see `FileSource.describe`."""
        stamp = storage.local_stamp(path)
        file = storage.open_file(name, path, stamp, f"expected {cls.TITLE}")
        try:
            delimiter = _delimiter(path)
            return _describe(name, path, stamp, _Lines(name, file, delimiter), asked)
        finally:
            storage.close_file(file)

    @classmethod
    def box(cls, path: str) -> Box:
        """See `FileSource.box`."""
        from unoic_cli.formats.tables import TextBox

        return TextBox(path)

    @classmethod
    def create(cls, path: str, spec: OutputSpec, unfinished: str | None = None) -> Writer:
        """Start a file; see `FileSource.create`."""
        from unoic_cli.formats.csv_writer import CsvWriter

        return CsvWriter(path, spec)

    def open(self) -> Reader:
        """A reader, for one thread."""
        return CsvReader(self)

    def read_path(self) -> tuple[str, str]:
        """Pieces of text."""
        return "text", "numbers are parsed again in each read: unoic convert makes a file that is read far faster"


def _suffix(name: str) -> str:
    """The suffix of a file; of one that has a temporary name, that which it will have."""
    return os.path.splitext(_TEMPORARY.sub("", name.lower()))[1]


def _delimiter(path: str) -> str:
    """What stands between columns: tabs in TSV, else commas; semicolons or tabs where the first line has no comma."""
    if _suffix(path) == ".tsv":
        return "\t"
    with open(path, "rb") as file:
        line = file.readline(PIECE_BYTES)
    found = [one for one in (b",", b";", b"\t") if one in line]
    return found[0].decode() if found else ","


class _Lines:
    """The text of a file, and what pyarrow makes of pieces of it."""

    def __init__(self, name: str, file: Any, delimiter: str) -> None:
        self.name, self.file, self.delimiter = name, file, delimiter
        self.size = os.fstat(file).st_size
        self.header: tuple[str, ...] = ()

    def part(self, offset: int, size: int) -> bytes:
        """A part of the file."""
        data = np.empty(size, np.uint8)
        schema.pread_into(self.name, self.file, data, offset)
        return data.tobytes()

    def read_header(self) -> int:
        """Take the names of the columns from the first line; where the next begins."""
        head = self.part(0, min(self.size, PIECE_BYTES))
        line, _, _ = head.removeprefix(_BOM).partition(b"\n")
        if len(line) == PIECE_BYTES:
            raise DataError(self.name, f"a first line of more than {PIECE_BYTES:,} bytes", "expected names of columns")
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise DataError(self.name, "a first line that is not UTF-8", "expected names of columns") from None
        if "\0" in text:
            raise DataError(self.name, "a first line with zero bytes", "expected names of columns in UTF-8")
        try:
            columns = next(csv.reader([text.rstrip("\r")], delimiter=self.delimiter), [])
        except csv.Error as error:
            raise DataError(
                self.name, f"a first line that cannot be read ({error})", "expected names of columns"
            ) from None
        self.header = tuple(column.strip() for column in columns)
        return len(line) + 1 + (len(_BOM) if head.startswith(_BOM) else 0)

    def ends(self, begin: int) -> Iterator[tuple[int, int]]:
        """Parts of the file, (begin, end), that end at the end of a line which is in no quotes."""
        at = begin
        while at < self.size:
            end = self._end(at)
            yield at, end
            at = end

    def _end(self, begin: int) -> int:
        size = PIECE_BYTES
        while begin + size < self.size:
            text = self.part(begin, size)
            last = text.rfind(b"\n")
            if last >= 0 and b'"' not in text:
                return begin + last + 1
            data = np.frombuffer(text, np.uint8)
            outside = np.cumsum(data == ord('"')) % 2 == 0
            found = np.flatnonzero((data == ord("\n")) & outside)
            if found.size:
                return begin + int(found[-1]) + 1
            size *= 2
            if size > LONGEST_LINE:
                found_text = f"a line of more than {LONGEST_LINE >> 20} MB behind byte {begin:,}"
                raise DataError(self.name, found_text, "expected a line for each unit (is a quote missing?)")
        return self.size

    def table(self, data: bytes, kinds: dict[str, Any] | None, columns: Sequence[str] = ()) -> Any:
        """Rows of a piece as an Arrow table, of some columns and types, or of all as their values look."""
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        return arrow_csv.read_csv(
            pa.BufferReader(data),
            arrow_csv.ReadOptions(use_threads=False, column_names=list(self.header), block_size=len(data) + 1),
            arrow_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            arrow_csv.ConvertOptions(
                column_types=kinds, include_columns=list(columns), null_values=[], strings_can_be_null=False
            ),
        )

    def explain(self, data: bytes, row: int, numbers: Sequence[str]) -> None:
        """Raise what is wrong with the first bad row of a piece, of which the first is `row`."""
        places = [self.header.index(column) for column in numbers]
        lines = data.decode(errors="replace").splitlines(keepends=True)
        rows = (fields for fields in csv.reader(lines, delimiter=self.delimiter) if fields)
        for index, fields in enumerate(rows, row):
            if len(fields) != len(self.header):
                found = f"{len(fields)} fields at row {index}"
                raise DataError(self.name, found, f"expected {len(self.header)}, as the first line has")
            for column, place in zip(numbers, places, strict=True):
                if not _is_number(fields[place]):
                    raise DataError(f"{self.name}:{column}", f"{fields[place]!r} at row {index}", "expected a number")

    def refuse(self, error: Exception, data: bytes, row: int, numbers: Sequence[str]) -> NoReturn:
        """Say in our words why a piece cannot be read."""
        with contextlib.suppress(csv.Error):
            self.explain(data, row, numbers)
        reason = str(error).split("\n", maxsplit=1)[0]
        raise DataError(
            self.name, f"lines from row {row} on cannot be read ({reason})", "expected CSV in UTF-8"
        ) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


# ------------------------------------------------------------------------------------------------
# describing


def _describe(name: str, path: str, stamp: Any, lines: _Lines, asked: names.Asked) -> Csv:
    import pyarrow as pa

    from unoic_cli.formats import columns

    begin = lines.read_header()
    if lines.header[:1] == ("",) and len(lines.header) > 1:
        lines.header = (_INDEX, *lines.header[1:])
    if len(set(lines.header)) < len(lines.header) or "" in lines.header:
        twice = next(one for one in lines.header if not one or lines.header.count(one) > 1)
        raise DataError(f"{name}:{twice}", "two columns of this name, or one without", "expected names that differ")
    pieces = tuple(_count(lines, begin))
    kinds = _kinds(lines, pieces, asked)
    table = pa.schema([(column, kinds[column]) for column in lines.header])
    rows = tuple(piece.rows for piece in pieces)
    found = columns.describe(
        *(Csv, name, table, f"{len(pieces)} piece{'' if len(pieces) == 1 else 's'} of lines", lambda _: None, asked),
        path=os.path.abspath(path),
        stamp=stamp,
        rows=rows,
        pieces=pieces,
        kinds={},
        header=lines.header,
        delimiter=lines.delimiter,
    )
    used = (*found.columns, *found.places.values(), *(["predictions"] if found.has_predictions else []))
    return replace(
        found,
        kinds={column: str(kinds[column]) for column in used},
        notes=(*found.notes, *([f"not used: {', '.join(found.others)}"] if found.others else [])),
    )


def _count(lines: _Lines, begin: int) -> Iterator[_Piece]:
    """The pieces of a file, each with its number of rows."""
    import pyarrow as pa

    row = 0
    for start, stop in lines.ends(begin):
        data = lines.part(start, stop - start)
        if not data.strip():
            continue
        if plain := _plain_rows(data):
            yield _Piece(start, stop - start, plain)
            row += plain
            continue
        try:
            first = lines.header[:1]
            count = lines.table(data, {first[0]: pa.string()}, first).num_rows
        except (pa.ArrowException, ValueError) as error:
            lines.refuse(error, data, row, ())
        yield _Piece(start, stop - start, count)
        row += count


def _plain_rows(data: bytes) -> int:
    """Rows of lines none of which is empty, or has quotes; 0 of others, which must be parsed to be counted."""
    odd = b'"' in data or b"\n\n" in data or b"\n\r" in data or b"\r\r" in data or data[:1] in (b"\n", b"\r")
    if odd or data.count(b"\r") not in (0, data.count(b"\n")):
        return 0
    return data.count(b"\n") + (not data.endswith(b"\n"))


def _kinds(lines: _Lines, pieces: Sequence[_Piece], asked: names.Asked) -> dict[str, Any]:
    """Arrow's types of the columns: numbers and text where names say so, else as the first rows look."""
    import pyarrow as pa

    from unoic_cli.formats import columns

    kinds = dict.fromkeys(lines.header, pa.string())
    if pieces:
        data = lines.part(pieces[0].offset, pieces[0].size)
        try:
            seen = lines.table(data, None).schema
        except (pa.ArrowException, ValueError) as error:
            lines.refuse(error, data, 0, ())
        kinds |= {one.name: one.type for one in seen}
    table = pa.schema([(column, kinds[column]) for column in lines.header])
    by_name = columns.by_class(table) or columns.by_text(table, asked) or columns.listed(table, asked)
    for column in lines.header:
        stem = (names.stem(column) or (column,))[0].lower()
        if stem in names.SCORES or column == "delta" or column in by_name:
            kinds[column] = pa.float64()
        elif column in _TEXTS:
            kinds[column] = pa.string()
    return kinds


# ------------------------------------------------------------------------------------------------
# reading


class CsvReader:
    """Parses pieces one by one."""

    def __init__(self, source: Csv) -> None:
        from unoic_cli.formats import columns

        self._source = source
        self._columns = columns.ColumnBlocks(source, _damaged)
        self._file: Any = storage.open_file(source.name, source.path, source.stamp, f"expected {source.TITLE}")
        self._lines = _Lines(source.name, self._file, source.delimiter)
        self._lines.header = source.header
        self._edges = list(itertools.accumulate(source.rows, initial=0))

    def blocks(self, start: int, stop: int, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """Units [start, stop); see `unoic_cli.formats.block.Reader`."""
        for piece, begin, end in zip(self._source.pieces, self._edges, self._edges[1:], strict=False):
            if begin < stop and end > start:
                first, last = max(start, begin), min(stop, end)
                batch = self._batch(piece, begin, self._columns.columns(fields))
                yield self._columns.block(batch.slice(first - begin, last - first), first, last, fields)

    def texts(self, columns: Sequence[str]) -> Iterator[Any]:
        """Some columns as they stand there, a batch for each piece."""
        import pyarrow as pa

        kinds = dict.fromkeys(columns, pa.string())
        for piece, row in zip(self._source.pieces, self._edges, strict=False):
            yield self._read(piece, row, kinds)

    def close(self) -> None:
        """Let go of the file."""
        if self._file != -1:
            storage.close_file(self._file)
            self._file = -1

    def _batch(self, piece: _Piece, row: int, columns: Sequence[str]) -> Any:
        import pyarrow as pa

        return self._read(piece, row, {column: pa.type_for_alias(self._source.kinds[column]) for column in columns})

    def _read(self, piece: _Piece, row: int, kinds: dict[str, Any]) -> Any:
        import pyarrow as pa

        columns, data = list(kinds), self._lines.part(piece.offset, piece.size)
        try:
            table = self._lines.table(data, kinds, columns)
        except (pa.ArrowException, ValueError) as error:
            self._lines.refuse(error, data, row, [one for one in columns if kinds[one] != pa.string()])
        (batch,) = table.combine_chunks().to_batches()
        if batch.num_rows != piece.rows:
            found = f"{batch.num_rows} rows where {piece.rows} were counted"
            raise DataError(self._source.name, found, "expected a file that stays as it is")
        return batch


def _damaged(where: str) -> Any:
    return schema.damaged(where, "text that cannot be read", "expected CSV in UTF-8")
