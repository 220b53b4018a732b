"""Columns of Parquet inputs that mean nothing here, carried over to a Parquet output row by row."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from unoic_cli.errors import DataError
from unoic_cli.formats import parquet, schema
from unoic_cli.formats.block import Source

_ROWS = 1 << 16
_SPLIT = "split"


@dataclass(frozen=True)
class Carried:
    """What is carried, and of which rows.

    Attributes
    ----------
    sources : tuple of Parquet
        One behind the other.
    columns : tuple of str
    split : str or None
        Only rows of this split.
    window : tuple of int
        Rows [start, stop) of all sources.
    """

    sources: tuple[parquet.Parquet, ...]
    columns: tuple[str, ...]
    split: str | None
    window: tuple[int, int]

    def fields(self) -> list[Any]:
        """What the output's schema has of them."""
        with _opened(self.sources[0]) as file:
            return [file.schema_arrow.field(name) for name in self.columns]

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
            with _opened(source) as file, schema.damaged(source.name, "a corrupt page", "expected an intact file"):
                for batch in file.iter_batches(_ROWS, columns=wanted, use_threads=False):
                    low, high = max(0, start - begin), min(batch.num_rows, stop - begin)
                    begin += batch.num_rows
                    if low >= high:
                        continue
                    table = pa.Table.from_batches([batch.slice(low, high - low)])
                    if column is not None:
                        table = table.filter(pa.compute.equal(table.column(column).cast(pa.string()), split))
                    yield table.select(names)


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
    known = [source for source in sources if isinstance(source, parquet.Parquet)]
    if len(known) < len(sources) or not known:
        return None
    kept: dict[str, Any] = {}
    for i, source in enumerate(known):
        with _opened(source) as file:
            there = {name: file.schema_arrow.field(name).type for name in source.others if name not in taken}
        kept = there if i == 0 else {name: kind for name, kind in kept.items() if there.get(name) == kind}
    return Carried(tuple(known), tuple(kept), split, window) if kept else None
