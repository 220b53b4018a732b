"""Columns of Parquet and CSV inputs that mean nothing here, carried over to such an output row by row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from unoic_cli.errors import DataError
from unoic_cli.formats import csv, parquet, schema
from unoic_cli.formats.block import Source

_ROWS = 1 << 16
_SPLIT = "split"


@dataclass(frozen=True)
class Carried:
    """What is carried, and of which rows.

    Attributes
    ----------
    sources : tuple of Parquet, or of Csv
        One behind the other.
    columns : tuple of str
    split : str or None
        Only rows of this split.
    window : tuple of int
        Rows [start, stop) of all sources.
    """

    sources: tuple[parquet.Parquet, ...] | tuple[csv.Csv, ...]
    columns: tuple[str, ...]
    split: str | None
    window: tuple[int, int]

    def fields(self) -> list[Any]:
        """What the output's schema has of them."""
        there = _types(self.sources[0])
        return [pa.field(name, there[name]) for name in self.columns]

    def rows(self) -> CarriedRows:
        """A reader of them, in order."""
        return CarriedRows(self)


class CarriedRows:
    """Hands over rows, as many as are asked for."""

    def __init__(self, carried: Carried) -> None:
        self._carried = carried
        self._tables = self._read()
        self._held: Any = None

    def take(self, count: int) -> list[Any]:
        """The next rows, a column each."""
        parts, need = [], count
        while need:
            if self._held is None or not self._held.num_rows:
                self._held = next(self._tables, None)
                if self._held is None:
                    found = f"{count - need} rows of columns that are carried over, where {count} are written"
                    raise DataError(self._carried.sources[0].name, found, "expected a file that stays as it is")
            parts.append(self._held.slice(0, need))
            self._held = self._held.slice(parts[-1].num_rows)
            need -= parts[-1].num_rows
        table = pa.concat_tables(parts).combine_chunks()
        return [column.chunk(0) if column.num_chunks else column for column in table.columns]

    def _read(self) -> Iterator[Any]:
        begin, (start, stop) = 0, self._carried.window
        names, split = list(self._carried.columns), self._carried.split
        for source in self._carried.sources:
            column = source.places.get(_SPLIT) if split is not None else None
            wanted = [*names, *([column] if column is not None and column not in names else [])]
            for batch in _batches(source, wanted):
                low, high = max(0, start - begin), min(batch.num_rows, stop - begin)
                begin += batch.num_rows
                if low >= high:
                    continue
                table = pa.Table.from_batches([batch.slice(low, high - low)])
                if column is not None:
                    table = table.filter(pa.compute.equal(table.column(column).cast(pa.string()), split))
                yield table.select(names)


def _batches(source: parquet.Parquet | csv.Csv, wanted: list[str]) -> Iterator[Any]:
    """Columns of a file, some rows at a time; those of lines are text as it stands there."""
    if isinstance(source, csv.Csv):
        with contextlib.closing(csv.CsvReader(source)) as reader:
            yield from reader.texts(wanted)
        return
    with _opened(source) as file, schema.damaged(source.name, "a corrupt page", "expected an intact file"):
        yield from file.iter_batches(_ROWS, columns=wanted, use_threads=False)


def _types(source: parquet.Parquet | csv.Csv) -> dict[str, Any]:
    """Arrow's types of the columns that mean nothing here."""
    if isinstance(source, csv.Csv):
        return dict.fromkeys(source.others, pa.string())
    with _opened(source) as file:
        return {name: file.schema_arrow.field(name).type for name in source.others}


@contextlib.contextmanager
def _opened(source: parquet.Parquet) -> Iterator[Any]:
    from unoic_cli import storage

    with storage.described(source.path) as (there, _, _), contextlib.closing(parquet._open(source.name, there)) as file:
        yield file


def carried(
    sources: Sequence[Source], split: str | None, window: tuple[int, int], taken: Sequence[str]
) -> Carried | None:  # fmt: skip
    """What of some sources can be carried over: columns that all of them have, of one type; None if nothing can.

    Parameters
    ----------
    sources : sequence of Source
    split : str or None
    window : tuple of int
    taken : sequence of str
        Names that the output has itself.
    """
    known: Any = [source for source in sources if isinstance(source, (parquet.Parquet, csv.Csv))]
    if len(known) < len(sources) or len({type(source) for source in known}) != 1:
        return None
    kept: dict[str, Any] = {}
    for i, source in enumerate(known):
        there = {name: kind for name, kind in _types(source).items() if name not in taken}
        kept = there if i == 0 else {name: kind for name, kind in kept.items() if there.get(name) == kind}
    return Carried(tuple(known), tuple(kept), split, window) if kept else None
