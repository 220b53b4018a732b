"""CSV and TSV files as they are written: a line for each sample, in order, every bit of a number kept."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unoic_cli.errors import UsageError
from unoic_cli.formats import schema, single
from unoic_cli.formats.block import LogitBlock, OutputSpec

_COLUMNS = ("labels", "delta", "predictions")


class CsvWriter:
    """Writes blocks as lines.

    Parameters
    ----------
    path : str
    spec : OutputSpec
    """

    ordered = True

    def __init__(self, path: str, spec: OutputSpec) -> None:
        if spec.image_shape:
            raise UsageError("OUTPUT", "images, which lines cannot say the size of", "expected HDF5, Parquet or npz")
        self._spec = spec
        self._delimiter = "\t" if path.lower().endswith(".tsv") else ","
        self._names = [name for name in ("sample_id", "split", "group") if name in spec.dtypes]
        self._scores = score_columns(spec)
        self._fields = [name for name in _COLUMNS if name in spec.dtypes]
        if spec.scalar_delta is not None:
            self._fields.append("delta")
        if spec.predictions or spec.kind == "predictions":
            self._fields.append("predictions")
        self._carried = None if spec.carried is None else spec.carried.rows()
        others = () if spec.carried is None else spec.carried.columns
        self._next = self._at = 0
        self._output = schema.TemporaryOutput(path)
        try:
            line = io.StringIO()
            csv.writer(line, delimiter=self._delimiter, lineterminator="\n").writerow(
                [*others, *self._names, *self._scores, *self._fields]
            )
            self._append(line.getvalue().encode())
        except BaseException:
            self.abort()
            raise

    def write(self, block: LogitBlock) -> None:
        """Store the next block; see `unoic_cli.formats.block.Writer`."""
        from pyarrow import csv as arrow_csv

        if block.start != self._next:
            raise ValueError(f"unit {block.start} where {self._next} comes next")
        self._next, rows = block.stop, block.stop - block.start
        columns: list[Any] = [] if self._carried is None else self._carried.take(rows)
        columns += [_text(getattr(block, name)) for name in self._names]
        if self._scores:
            assert block.scores is not None
            columns += [pa.array(column) for column in np.ascontiguousarray(self._wide(block.scores).T)]
        for name in self._fields:
            values: Any = self._spec.scalar_delta if name == "delta" and block.delta is None else getattr(block, name)
            columns.append(pa.array(np.ascontiguousarray(np.broadcast_to(values, (rows,)))))
        sink = pa.BufferOutputStream()
        table = pa.table(columns, names=[str(i) for i in range(len(columns))])
        options = arrow_csv.WriteOptions(include_header=False, delimiter=self._delimiter, quoting_style="needed")
        arrow_csv.write_csv(table, sink, options)
        self._append(sink.getvalue().to_pybytes())

    def _wide(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        return single.wide(scores, self._spec.encoding)

    def _append(self, data: bytes) -> None:
        self._output.pwrite(data, self._at)
        self._at += len(data)

    def commit(self) -> None:
        """Flush, and rename onto the final name."""
        if self._next < self._spec.n_samples:
            raise ValueError(f"{self._next} of {self._spec.n_samples} units were written")
        self._output.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._output.abort()


def score_columns(spec: OutputSpec) -> list[str]:
    """Names of the columns: of classes, where they have names that are read back as such, else numbers; or none."""
    if spec.kind == "predictions":
        return []
    names = spec.class_names
    word = {"logits": "logit", "probs": "prob", "log_probs": "logprob"}[spec.kind]
    if names is not None and len(set(names)) == len(names) and not any(_is_unlike(name) for name in names):
        return [f"{word}_{name}" for name in names]
    return [f"{spec.kind}_{k}" for k in range(spec.n_classes)]


def _is_unlike(name: str) -> bool:
    """Whether a name would be read back as something else: numbers, or spaces at its ends."""
    return not name or name != name.strip() or name.isdecimal() or "_" in name or "\n" in name


def _text(values: NDArray[Any]) -> Any:
    return pa.array(values.tolist())
