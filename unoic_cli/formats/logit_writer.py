"""Scores written while a network runs: batch after batch, of any framework, until there are no more."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from unoic_cli.brief import wrapped
from unoic_cli.calls import ArgumentError, as_array
from unoic_cli.errors import CannotCreateError, DataError
from unoic_cli.formats import schema
from unoic_cli.formats.block import IGNORED_LABELS
from unoic_cli.formats.names import check_kind
from unoic_cli.weights import are_probabilities

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

DTYPES = ("float16", "float32", "float64")
_PIECE = 8 << 20
_CHANGED = 1e-3
"""Of the decisions: rounding that changes more is spoken of."""


_OTHER_SUFFIXES = (".npz", ".npy", ".csv", ".tsv", ".parquet", ".pq", ".pt", ".pth", ".pkl", ".safetensors", ".arrows")
"""Of files of other formats, which this is none of."""


class LogitWriter:
    """Writes an HDF5 file that every command reads, while its length is not known yet: complete, or absent.

    Parameters
    ----------
    path : str or path
        Where the file goes when the writer is closed.
    class_names : sequence of str, optional
        (K,).
    source_counts, source_prior : (K,) numbers, optional
        Class counts, or frequencies, of the TRAINING data, which rebalancing divides out.
    kind : {"logits", "log_probs", "probs"}
        What the scores are.
    dtype : {"float16", "float32", "float64"}
        What they are stored as. `changed` counts the decisions that rounding to it changes.
    force : bool
        Replace a file of that name.

    Attributes
    ----------
    n_units : int
        Samples or pixels that were written.
    changed : int
        Those whose largest score is of another class after rounding.

    Raises
    ------
    UnoicError
        There is a file of that name, or it cannot be written; scores or labels that do not fit what came before.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> from unoic_cli import LogitWriter, evaluate
    >>> path = os.path.join(tempfile.mkdtemp(), "val.h5")
    >>> with LogitWriter(path, source_counts=[90, 10]) as writer:
    ...     for logits, labels in [([[2.0, 1.0]], [0]), ([[0.5, 1.0], [3.0, 0.0]], [1, 1])]:
    ...         writer.write(logits, labels)
    >>> writer.n_units, round(evaluate(path).overall.values["acc"], 6)
    (3, 0.666667)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        class_names: Sequence[str] | None = None,
        source_counts: ArrayLike | None = None,
        source_prior: ArrayLike | None = None,
        kind: str = "logits",
        dtype: str = "float16",
        force: bool = False,
    ) -> None:
        check_kind("kind", kind)
        if dtype not in DTYPES:
            raise ArgumentError("dtype", repr(dtype), f"expected {', '.join(DTYPES)}")
        self.path, self.kind, self.dtype = os.fspath(path), kind, np.dtype(dtype).newbyteorder("<")
        suffix = os.path.splitext(self.path)[1].lower()
        if suffix in _OTHER_SUFFIXES:
            raise ArgumentError("path", f"{self.path!r}", "expected the name of an HDF5 file, such as val.h5")
        if os.path.lexists(self.path) and not force:
            raise CannotCreateError(self.path, "exists already", "expected a new name, or force=True")
        given = {"source_counts": source_counts, "source_prior": source_prior}
        self._priors = {name: as_array(value, name) for name, value in given.items() if value is not None}
        self._names = None if class_names is None else [str(name) for name in class_names]
        self.n_samples = self.n_units = self.changed = self.n_classes = 0
        self.image_shape: tuple[int, ...] = ()
        self._fields: frozenset[str] = frozenset()
        self._texts: dict[str, list[Any]] = {}
        self._spools: dict[str, IO[bytes]] = {}
        self._runs: list[tuple[tuple[int, ...], int]] = []
        self._begin = 0
        self._closed = True
        self._output = schema.TemporaryOutput(self.path)
        self._closed = False

    def write(
        self,
        logits: Any,
        labels: Any = None,
        *,
        group: Any = None,
        sample_id: Any = None,
        delta: Any = None,
        class_axis: int = 1,
    ) -> None:
        """Write a batch.

        Parameters
        ----------
        logits : (N, K) or (N, K, H, W)
            Of numpy, torch, jax, tensorflow ... Images of another size than those before make a file in which each
            size is a part (``FILE::HxW``): every command reads them together, and `sample_id` has the number of each
            image unless it is given.
        labels : (N,) or (N, H, W) integers, optional
            255 (of fewer than 256 classes), -1 and -100 are ignored.
        group, sample_id : text, or (N,) texts or integers, optional
            Of each sample; a single `group` is that of all.
        delta : number, (N,) or (N, H, W), optional
            Factors of the scores.
        class_axis : int
            -1 for images (N, H, W, K).

        Raises
        ------
        UnoicError
            What does not fit: the file is not there then, unless the error is caught within the ``with``.
        """
        if self._closed:
            raise ArgumentError("write", "a writer that is closed", "expected an open one")
        scores = self._scores(logits, class_axis)
        units = (len(scores), *scores.shape[2:])
        given = {"labels": labels, "group": group, "sample_id": sample_id, "delta": delta}
        fields = frozenset(name for name, value in given.items() if value is not None)
        if self.n_classes == 0:
            if self.kind == "logits" and are_probabilities(scores):
                raise DataError("logits", "values in [0, 1] whose rows sum to 1", 'expected logits, or kind="probs"')
            self._start(scores, fields)
        self._check_alike(scores, fields)
        columns = {}
        if labels is not None:
            columns["labels"] = self._labels(labels, units)
        if delta is not None:
            columns["delta"] = _factors(delta, units)
        texts = {name: _text(given[name], name, len(scores)) for name in ("group", "sample_id") if name in fields}
        stored = self._rounded(scores)
        self._store(stored)
        for name, values in columns.items():
            self._spool(name, values)
        for name, text in texts.items():
            self._texts.setdefault(name, []).extend(text)
        self._runs.append((tuple(scores.shape[2:]), len(scores)))
        self.n_samples += len(scores)
        self.n_units += int(np.prod(units, dtype=np.int64))

    def close(self) -> None:
        """Put the file into its place.

        Raises
        ------
        UnoicError
            Nothing was written, or it cannot be.
        """
        if self._closed:
            return
        try:
            if self.n_units == 0:
                raise DataError(self.path, "nothing was written", "expected at least one sample")
            self._finish()
        except BaseException:
            self.abort()
            raise
        self._closed = True
        self._release()
        if self.changed > _CHANGED * self.n_units:
            share = 100 * self.changed / self.n_units
            text = f"{self.path}: rounding to {self.dtype.name} changes {share:.2g} % of the decisions; dtype='float32'"
            warnings.warn(text, stacklevel=3)

    def abort(self) -> None:
        """Leave no file."""
        if not self._closed:
            self._closed = True
            self._release()
            self._output.abort()

    def _release(self) -> None:
        for spool in self._spools.values():
            with contextlib.suppress(OSError):
                spool.close()

    def __repr__(self) -> str:
        done = "closed" if self._closed else "open"
        return wrapped(f"<LogitWriter {self.path}: {self.n_units:,} units of {self.n_classes} classes, {done}>")

    def __enter__(self) -> LogitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.abort()

    # --------------------------------------------------------------------------------------------

    def _scores(self, logits: Any, class_axis: int) -> NDArray[Any]:
        scores = as_array(logits, "logits")
        if scores.dtype.kind != "f":
            raise DataError("logits", f"{scores.dtype} values", "expected floats")
        if scores.ndim == 4 and class_axis % 4 != 1:
            scores = np.moveaxis(scores, class_axis, 1)
        if scores.ndim not in (2, 4) or scores.shape[1] < 2 or 0 in scores.shape[2:]:
            raise DataError("logits", f"shape {scores.shape}", "expected (N, K) or (N, K, H, W), two classes or more")
        bad = np.isnan(scores) | (scores == np.inf)
        if bad.any() or (self.kind == "logits" and np.isinf(scores).any()):
            first = int(np.flatnonzero((~np.isfinite(scores)).reshape(len(scores), -1).any(axis=1))[0])
            raise DataError("logits", f"NaN or infinite in row {first} of the batch", "expected finite scores")
        if self.kind == "probs" and (scores < 0).any():
            raise DataError("logits", "negative probabilities", "expected probs >= 0")
        return scores

    def _start(self, scores: NDArray[Any], fields: frozenset[str]) -> None:
        self.n_classes, self.image_shape, self._fields = scores.shape[1], tuple(scores.shape[2:]), fields
        for name, values in self._priors.items():
            if values.shape != (self.n_classes,):
                raise DataError(name, f"shape {values.shape}", f"expected ({self.n_classes},)")
        if self._names is not None and len(self._names) != self.n_classes:
            raise DataError("class_names", f"{len(self._names)} names", f"expected {self.n_classes}")
        self._begin = self._skeleton({self.image_shape: 1})[1][self.image_shape]["scores"]

    def _check_alike(self, scores: NDArray[Any], fields: frozenset[str]) -> None:
        if scores.shape[1] != self.n_classes:
            raise DataError("logits", f"{scores.shape[1]} classes", f"expected {self.n_classes}, as before")
        if (scores.ndim == 4) != bool(self.image_shape):
            expected = f"expected {'images' if self.image_shape else '(N, K)'}, as before"
            raise DataError("logits", f"shape {scores.shape}", expected)
        if fields != self._fields:
            found = ", ".join(sorted(fields)) or "none of labels, group, sample_id and delta"
            raise DataError("write", found, f"expected {', '.join(sorted(self._fields)) or 'logits alone'}, as before")

    def _labels(self, labels: Any, units: tuple[int, ...]) -> NDArray[Any]:
        found = as_array(labels, "labels")
        if found.dtype.kind not in "iu":
            raise DataError("labels", f"{found.dtype} values", "expected integers")
        if found.shape != units:
            more = ", class numbers and not one-hot" if found.ndim == len(units) + 1 else ""
            raise DataError("labels", f"shape {found.shape}", f"expected {units}{more}")
        found = found.astype(np.int64)
        small = self.n_classes <= 255
        ignored = np.isin(found, IGNORED_LABELS if small else IGNORED_LABELS[1:])
        wrong = ~ignored & ((found < 0) | (found >= self.n_classes))
        if wrong.any():
            raise DataError("labels", f"label {found[wrong][0]}", f"expected 0 to {self.n_classes - 1}, or ignored")
        return np.where(ignored, 255 if small else -1, found).astype("<u1" if small else "<i4")

    def _rounded(self, scores: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore", under="ignore"):
            stored = np.ascontiguousarray(scores, dtype=self.dtype)
        if np.dtype(scores.dtype).itemsize <= self.dtype.itemsize:
            return stored
        if (np.isinf(stored) & ~np.isinf(scores)).any():
            most = float(np.abs(scores[np.isfinite(scores)]).max())
            expected = "expected scores within its range, or dtype='float32'"
            raise DataError("logits", f"{most:g}, which is infinite as {self.dtype.name}", expected)
        self.changed += int((stored.argmax(axis=1) != scores.argmax(axis=1)).sum())
        return stored

    def _store(self, stored: NDArray[Any]) -> None:
        """Write scores to their place; from the second size of images on, which have none yet, to a spool."""
        if tuple(stored.shape[2:]) != self.image_shape and "scores" not in self._spools:
            done = self.n_units * self.n_classes * self.dtype.itemsize
            for at in range(0, done, _PIECE):
                piece = np.empty(min(_PIECE, done - at), np.uint8)
                schema.pread_into(self.path, self._output.file, piece, self._begin + at)
                self._spool("scores", piece)
        if "scores" in self._spools:
            self._spool("scores", stored)
        else:
            self._output.pwrite(stored, self._begin + self.n_units * self.n_classes * self.dtype.itemsize)

    def _spool(self, name: str, values: NDArray[Any]) -> None:
        if name not in self._spools:
            folder = os.path.dirname(self.path) or "."
            self._spools[name] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # until it is closed
        try:
            self._spools[name].write(np.ascontiguousarray(values).data)
        except OSError as error:
            raise schema.storage_error(self.path, error) from error

    def _skeleton(self, sizes: Mapping[tuple[int, ...], int]) -> tuple[Any, dict[tuple[int, ...], dict[str, int]]]:
        """The metadata of a file of so many samples of each size, and where its arrays lie."""
        import h5py

        from unoic_cli.formats import hdf5_writer

        skeleton, places = hdf5_writer.Skeleton(), {}
        with h5py.File(skeleton, "w") as file:
            file.attrs["unoic_schema"] = 1
            if len(sizes) > 1:
                file.attrs["unoic_parts"] = [_part_name(size) for size in sizes]
            for size, n in sizes.items():
                group = file if len(sizes) == 1 else file.create_group(_part_name(size))
                places[size] = self._lay_out(group, size, n)
                for name in self._texts:
                    self._put_text(group, name, size, alone=len(sizes) == 1)
        return skeleton, places

    def _lay_out(self, group: Any, size: tuple[int, ...], n: int) -> dict[str, int]:
        """Make the arrays of n samples of a size; where they lie."""
        import h5py

        from unoic_cli.formats import hdf5_writer

        units, offsets = (n, *size), dict[str, int]()
        shape = (n, self.n_classes, *size)
        offsets["scores"] = hdf5_writer.make(group, self.kind, shape, hdf5_writer.float_type(self.dtype.name))
        if size:
            group[self.kind].attrs["class_axis"] = 1
        for name, kind in self._numbers().items():
            offsets[name] = hdf5_writer.make(group, name, units, h5py.h5t.py_create(kind))
        for name, values in self._priors.items():
            group[name] = np.asarray(values, np.float64)
        if self._names is not None:
            group.create_dataset("class_names", data=self._names, dtype=h5py.string_dtype())
        return offsets

    def _numbers(self) -> dict[str, np.dtype[Any]]:
        """Types of what there is of each unit beside the scores."""
        kinds = {"labels": np.dtype("<u1" if self.n_classes <= 255 else "<i4"), "delta": np.dtype("<f8")}
        return {name: kind for name, kind in kinds.items() if name in self._fields}

    def _put_text(self, group: Any, name: str, size: tuple[int, ...], *, alone: bool) -> None:
        import h5py

        values = self._texts[name]
        if not alone:
            shapes = [shape for shape, count in self._runs for _ in range(count)]
            values = [value for value, shape in zip(values, shapes, strict=True) if shape == size]
        array = np.asarray(values)
        if array.dtype.kind in "iu":
            group[name] = array
        else:
            group.create_dataset(name, data=[str(value) for value in values], dtype=h5py.string_dtype())

    def _finish(self) -> None:
        sizes: dict[tuple[int, ...], int] = {}
        for size, n in self._runs:
            sizes[size] = sizes.get(size, 0) + n
        if len(sizes) > 1 and "sample_id" not in self._texts:
            self._texts["sample_id"] = list(range(self.n_samples))
        skeleton, places = self._skeleton(sizes)
        if len(sizes) == 1 and places[self.image_shape]["scores"] != self._begin:
            raise AssertionError("scores do not lie where they were written")
        unit_bytes = {"scores": self.n_classes * self.dtype.itemsize}
        unit_bytes |= {name: kind.itemsize for name, kind in self._numbers().items()}
        for name, spool in self._spools.items():
            spool.seek(0)
            for size, n in self._runs:
                left = n * math.prod(size) * unit_bytes[name]
                while left:
                    piece = spool.read(min(_PIECE, left))
                    self._output.pwrite(piece, places[size][name])
                    places[size][name] += len(piece)
                    left -= len(piece)
        skeleton.copy_to(self._output)
        self._output.commit()


def _part_name(size: tuple[int, ...]) -> str:
    """What the part of a file is called that holds the images of a size."""
    return "x".join(map(str, size))


def _factors(delta: Any, units: tuple[int, ...]) -> NDArray[np.float64]:
    """Of each unit."""
    found = as_array(delta, "delta").astype("<f8")
    if found.shape == units[:1]:
        found = found.reshape(-1, *[1] * (len(units) - 1))
    if found.shape not in ((), units) and found.ndim != len(units):
        raise DataError("delta", f"shape {found.shape}", f"expected a number, {units[:1]} or {units}")
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise DataError("delta", "a negative, infinite or NaN factor", "expected finite factors >= 0")
    return np.ascontiguousarray(np.broadcast_to(found, units))


def _text(values: Any, name: str, n: int) -> list[Any]:
    """Of each sample, text or integers."""
    if isinstance(values, str) or np.ndim(values) == 0:
        if name == "sample_id" and n != 1:
            raise DataError(name, "one for a batch", f"expected {n}")
        return [values] * n
    found = values if isinstance(values, (list, tuple)) else as_array(values, name).tolist()
    if len(found) != n:
        raise DataError(name, f"{len(found)} entries", f"expected {n}")
    return list(found)
