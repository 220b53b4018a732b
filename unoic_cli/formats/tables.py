"""Columns of integers of Parquet and text files as arrays by their names: labels in files of their own."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unoic_cli.errors import DataError
from unoic_cli.formats import boxes, schema
from unoic_cli.formats.flat import TEXT_FIELDS
from unoic_cli.formats.plain import Plain
from unoic_cli.storage.whole import open_regular

_BLOCK = 1 << 20
_FIRST = 1 << 16
_ROWS = 1 << 12
"""Rows that are decoded at once: of images, few fit in memory."""


class _Table(boxes.Box):
    """Columns, read batch by batch."""

    EXPECTED = "expected an intact table"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        boxes.seen(open_regular(path, self.EXPECTED))

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        raise NotImplementedError

    def place(self, member: str) -> boxes.Place:
        """See `unoic_cli.formats.boxes.Box`."""
        return boxes.Place(None, "a column")

    def rows(self, member: str, target_bytes: int) -> Iterator[NDArray[Any]]:
        """See `unoic_cli.formats.boxes.Box`."""
        where, row = f"{self.path}:{member}", 0
        with schema.damaged(where, "a column that cannot be read", self.EXPECTED):
            for batch in self._batches([member]):
                column = batch.column(0)
                if pa.types.is_dictionary(column.type):
                    column = column.dictionary_decode()
                if column.null_count:
                    raise DataError(
                        where, f"{column.null_count} nulls behind row {row}", "expected a label in each row"
                    )
                row += len(column)
                yield column.to_numpy(zero_copy_only=False).astype(self.entries[member].dtype, copy=False)

    def read(self, member: str) -> NDArray[Any]:
        """See `unoic_cli.formats.boxes.Box`."""
        shape, dtype, _ = self.entries[member]
        return np.concatenate([np.empty(0, dtype), *self.rows(member, _BLOCK)]).reshape(shape)

    def ids(self) -> Iterator[Any] | None:
        """See `unoic_cli.formats.boxes.Box`; also texts."""
        known = {*self.entries, *(one.partition(" (")[0] for one in self.passed_by)}
        if "sample_id" not in known:
            return None
        return (one for batch in self._batches(["sample_id"]) for one in batch.column(0).to_pylist())

    def _enter(self, table: Any, rows: int) -> None:
        for field in table:
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
                self.passed_by.append(f"{field.name} ({kind})")
            else:
                self.entries[field.name] = boxes.Entry((rows,), np.dtype(kind.to_pandas_dtype()))


def tensor_shape(kind: Any) -> tuple[int, ...] | None:
    """Extents of the tensors of a column, where it is one of such."""
    if not isinstance(kind, pa.FixedShapeTensorType):
        return None
    if kind.permutation is not None and list(kind.permutation) != list(range(len(kind.shape))):
        return None
    return tuple(kind.shape)


def has_images(table: Any) -> bool:
    """Whether rows hold images: a column of tensors of three axes, of floats."""
    shapes = ((tensor_shape(field.type), field.type) for field in table)
    return any(
        shape is not None and len(shape) == 3 and pa.types.is_floating(kind.value_type) for shape, kind in shapes
    )


class ParquetBox(_Table):
    """Columns of a Parquet file: integers, tensors, and beside these text."""

    EXPECTED = "expected an intact Parquet file"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._texts: dict[str, NDArray[Any]] = {}
        with self._open() as file, schema.damaged(path, "a corrupt page or footer", self.EXPECTED):
            table, rows = file.schema_arrow, file.metadata.num_rows
            self._enter(table, rows)
            self.texts = {
                key.decode(errors="replace").removeprefix("unoic."): value.decode(errors="replace")
                for key, value in (table.metadata or {}).items()
                if key.startswith(b"unoic.")
            }
            for field in table:
                shape = tensor_shape(field.type)
                if shape is not None:
                    dtype = np.dtype(field.type.value_type.to_pandas_dtype())
                    self.entries[field.name] = boxes.Entry((rows, *shape), dtype)
                elif has_images(table) and field.name in TEXT_FIELDS and pa.types.is_string(field.type):
                    column = file.read([field.name]).column(0).to_pylist()
                    self._texts[field.name] = np.array(
                        schema.text(f"{path}:{field.name}", np.array(column, object)), "U"
                    )
                    self.entries[field.name] = boxes.Entry((rows,), self._texts[field.name].dtype)

    def rows(self, member: str, target_bytes: int) -> Iterator[NDArray[Any]]:
        """See `unoic_cli.formats.boxes.Box`."""
        if member in self._texts:
            yield self._texts[member]
        elif len(self.entries[member].shape) == 1:
            yield from super().rows(member, target_bytes)
        else:
            with schema.damaged(f"{self.path}:{member}", "a column that cannot be read", self.EXPECTED):
                for batch in self._batches([member]):
                    yield self._tensors(member, batch.column(0))

    def _tensors(self, member: str, column: Any) -> NDArray[Any]:
        (_, *shape), dtype, _ = self.entries[member]
        values = column.storage.flatten()
        if column.null_count or values.null_count or len(values) != len(column) * math.prod(shape):
            raise DataError(f"{self.path}:{member}", "nulls", "expected a tensor in each row")
        return np.ascontiguousarray(values.to_numpy(zero_copy_only=False).astype(dtype).reshape(-1, *shape))

    def class_names(self, where: str, n_classes: int) -> tuple[str, ...] | None:
        """Of the metadata of the file's schema."""
        return boxes.listed_names(where, self.texts, n_classes)

    def _open(self) -> Any:
        import pyarrow.parquet as pq

        with schema.opening(self.path, "a Parquet file"):
            return contextlib.closing(pq.ParquetFile(self.path, page_checksum_verification=True))

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        with self._open() as file:
            yield from file.iter_batches(_ROWS, columns=columns, use_threads=False)


@dataclass(frozen=True, repr=False, kw_only=True)
class ParquetImages(Plain):
    """Images in the rows of a Parquet file: tensors (K, H, W), and their labels (H, W)."""

    NAME = "parquet"
    TITLE = "a Parquet file"
    SUFFIXES = (".parquet", ".pq")

    @classmethod
    def box(cls, path: str) -> boxes.Box:
        """See `FileSource.box`."""
        return ParquetBox(path)


class TextBox(_Table):
    """Columns of a file of lines; without a line of names they are called by their numbers.

    Parameters
    ----------
    path : str
    """

    EXPECTED = "expected a line for each sample, in UTF-8"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        with open(path, "rb") as file:
            head = file.read(_FIRST)
        if not head:
            raise DataError(path, "an empty file (0 bytes)", self.EXPECTED)
        try:
            line = head.partition(b"\n")[0].decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(path, "a first line that is not UTF-8", self.EXPECTED) from None
        self._delimiter = "\t" if "\t" in line else ","
        try:
            fields = next(csv.reader([line.rstrip("\r")], delimiter=self._delimiter), [])
        except csv.Error as error:
            raise DataError(path, f"a first line that cannot be read ({error})", self.EXPECTED) from None
        self._names = None if fields and not all(map(_is_integer, fields)) else [str(i) for i in range(len(fields))]
        rows, table = 0, None
        with schema.damaged(path, "lines that cannot be read", self.EXPECTED):
            for batch in self._batches([]):
                table, rows = batch.schema, rows + batch.num_rows
        if table is not None:
            self._enter(table, rows)

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        from pyarrow import csv as arrow_csv

        with arrow_csv.open_csv(
            self.path,
            arrow_csv.ReadOptions(use_threads=False, column_names=self._names, block_size=_BLOCK),
            arrow_csv.ParseOptions(delimiter=self._delimiter),
            arrow_csv.ConvertOptions(include_columns=columns, null_values=[], strings_can_be_null=False),
        ) as batches:
            yield from batches


def _is_integer(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True
