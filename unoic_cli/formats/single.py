"""One score of each unit as the two classes that it stands for, and what scores are whose name does not say it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from unoic_cli.errors import DataError
from unoic_cli.formats import schema
from unoic_cli.formats.block import Kind, LogitBlock, Reader, Source

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

LOOKED_AT = 4096
"""Units at the beginning whose values say what scores are, where no name does."""
_NEAR = 2e-3
_PERCENT = 0.5
"""How near to 100 percentages of a row sum up."""
_MEANING = {
    "logits": "as a logit: 0 and z",
    "probs": "as the probability of class 1: 1 - p and p",
    "log_probs": "as the log-probability of class 1: log(1 - exp(z)) and z",
}


class DoubtError(DataError):
    """Values may be of one kind or of another."""


def as_stored(source: Source) -> Source:
    """The source that the format itself reads: one column, in the encoding of the file."""
    assert source.stored_encoding is not None
    return replace(source, n_classes=1, encoding=source.stored_encoding, single=False)


def widened(source: Source) -> Source:
    """A source of one column as one of two classes; others as they are.

    Probabilities are made in float64, where 1 - p keeps its digits.
    """
    if source.n_classes != 1:
        return source
    encoding = source.encoding if source.kind == "logits" else "float64"
    return replace(
        source,
        n_classes=2,
        encoding=encoding,
        single=True,
        stored_encoding=source.encoding,
        notes=(*source.notes, meaning(source.kind)),
    )


def meaning(kind: Kind) -> str:
    """How one score of each unit is read, in words."""
    return f"one score of each unit, read {_MEANING[kind]}"


class TwoClasses:
    """Reads one column, and hands over two.

    Parameters
    ----------
    source : Source
        A `single` one.
    reader : Reader
        Of `as_stored` of it.
    """

    def __init__(self, source: Source, reader: Reader) -> None:
        self._source = source
        self._reader = reader
        self._buffers = schema.Buffers()

    def blocks(self, start: int, stop: int, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """Units [start, stop); see `unoic_cli.formats.block.Reader`."""
        for block in self._reader.blocks(start, stop, fields):
            if block.scores is not None:
                shape = (block.scores.shape[0], 2, *block.scores.shape[2:])
                out = self._buffers.take("two", shape, schema.score_dtype(self._source.encoding))
                fill(block.scores, as_stored(self._source).encoding, self._source.kind, out)
                block.scores = out
            yield block

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()


def fill(scores: NDArray[Any], encoding: str, kind: Kind, out: NDArray[Any]) -> None:
    """Two scores of each unit from the one that is stored, (T, 1) to (T, 2) or (B, 1, P) to (B, 2, P).

    Examples
    --------
    >>> out = np.empty((2, 2))
    >>> fill(np.float32([[0.25], [1]]), "float32", "probs", out)
    >>> out.tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    one = scores[:, 0]
    if kind == "logits":
        out[:, 0], out[:, 1] = 0, one
        return
    values = wide(one, encoding)
    out[:, 1] = values
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if kind == "probs":
            out[:, 0] = 1 - values
        else:  # near 0 and far below it by the form that keeps the digits
            near = values > -np.log(2)
            out[:, 0] = np.where(near, np.log(-np.expm1(values)), np.log1p(-np.exp(values)))


def wide(scores: NDArray[Any], encoding: str) -> NDArray[np.float64]:
    """Stored scores in float64."""
    if encoding == "bfloat16":
        scores = (scores.astype(np.uint32) << 16).view(np.float32)
    elif encoding == "float16":
        scores = np.ascontiguousarray(scores).view(np.float16)
    with np.errstate(invalid="ignore"):  # a NaN that signals
        return scores.astype(np.float64)


def decided(source: Source, reader: Reader, stop: int) -> Source:
    """A source whose name does not say what its scores are, by the values at its beginning; said in a note.

    Raises
    ------
    DataError
        They leave a doubt.
    """
    held = []
    for block in reader.blocks(0, stop, frozenset({"scores"})):
        assert block.scores is not None
        planes = block.scores.transpose(0, 2, 1) if block.scores.ndim == 3 else block.scores
        held.append(wide(planes, source.encoding).reshape(-1, source.n_classes))
    kind = kind_of_values(np.concatenate(held))
    if kind is None:
        found = (
            "values that may be logits or probabilities (or percentages)"
            if source.n_classes > 1
            else "one whole number of each unit"
        )
        raise DoubtError(source.where("scores"), found, "expected --kind, or a name that says what they are")
    said = f"{source.where('scores').rpartition(':')[2]} is read as {kind.replace('_', '-')}, as its first values look"
    return replace(source, kind=kind, undecided=False, notes=(*source.notes, said))


def kind_of_values(rows: NDArray[np.float64]) -> Kind | None:
    """What rows of scores can be, (T, K): values outside [0, 1] are none of probabilities; None where both could be.

    Examples
    --------
    >>> kind_of_values(np.array([[0.5, 0.5]])), kind_of_values(np.array([[1.5, 0.5]])), kind_of_values(np.zeros((1, 2)))
    ('probs', 'logits', None)
    """
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not rows.size:
        return "logits"
    if rows.shape[1] == 1 and bool((rows == np.round(rows)).all()):
        return None  # class indices, for one
    sums = rows.sum(axis=1)
    if rows.shape[1] > 1 and (rows >= 0).all() and bool((np.abs(sums - 100) < _PERCENT).all()):
        return None  # percentages, as it seems
    if (rows < 0).any() or (rows > 1).any():
        with np.errstate(over="ignore"):
            logs = rows.shape[1] > 1 and bool((np.abs(np.exp(rows).sum(axis=1) - 1) < _NEAR).all())
        return "log_probs" if logs else "logits"
    if rows.shape[1] == 1:
        return "probs"
    return "probs" if bool((np.abs(rows.sum(axis=1) - 1) < _NEAR).all()) else None
