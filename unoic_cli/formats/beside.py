"""What is known of a source from outside its file: labels of another file, and what its name says of all samples."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli import storage
from unoic_cli.errors import DataError, NoInputError, UsageError
from unoic_cli.formats import boxes, names, schema
from unoic_cli.formats.block import LogitBlock, Reader, Source

if TYPE_CHECKING:
    from unoic_cli.storage.spool import Held

_EXPECTED = "expected a file of labels"


@dataclass(frozen=True)
class LabelFile:
    """Labels that lie in another file than the scores.

    Attributes
    ----------
    name : str
        As it was typed, for messages.
    path : str
    stamp : tuple or None
        The file's state when it was described.
    member : str
        The array in it.
    entry : Entry
    offset : int or None
        Of the first label, where they lie in one piece.
    """

    name: str
    path: str
    stamp: Any
    member: str
    entry: boxes.Entry
    offset: int | None

    @property
    def where(self) -> str:
        """``FILE:ARRAY``, for messages."""
        return f"{self.name}:{self.member}" if self.member not in self.name else self.name

    def open(self) -> OpenLabels:
        """A reader, for one thread."""
        return OpenLabels(self)


class OpenLabels:
    """Reads runs of labels."""

    def __init__(self, labels: LabelFile) -> None:
        self._labels = labels
        self._held: Held | None = None
        self._file: storage.File | None = None
        if labels.offset is None:
            self._held = boxes.unpacked(labels.path, labels.stamp, labels.member)
        else:
            self._file = storage.open_file(labels.name, labels.path, labels.stamp, _EXPECTED)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Labels [start, stop)."""
        stored = self._labels.entry.dtype
        out = np.empty(stop - start, np.dtype(np.uint8) if stored.kind == "b" else stored)
        file: Any = self._file if self._held is None else self._held.file
        begin = self._labels.offset or 0
        schema.pread_into(self._labels.where, file, out, begin + start * out.itemsize)
        return out if out.dtype.isnative else out.astype(schema.native(out.dtype))

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            storage.close_file(self._file)
            self._file = None


def find(spec: str, key: str | None, name: str) -> LabelFile:
    """The labels of an input: of a file, of the file of a folder that is called as the input, or of ``{stem}``.

    Parameters
    ----------
    spec : str
        ``FILE``, ``FILE::ARRAY``, ``FOLDER`` or a name with ``{stem}`` in it.
    key : str or None
        The array (or column) that holds them.
    name : str
        The input.

    Raises
    ------
    NoInputError
        There is no such file.
    DataError
        It holds no labels, or several that could be meant.
    """
    spec = _placed(spec, name)
    path, group = storage.split_name(spec)
    storage.refuse_remote(path, "file of labels")
    if not os.path.lexists(path):
        raise NoInputError(spec, "no such file", _EXPECTED)
    stamp = storage.local_stamp(path)
    box = boxes.open_box(path)
    there = {one: names.Facts(entry.shape, entry.dtype) for one, entry in box.entries.items()}
    key = group.strip("/") or key
    if key is None and len(there) == 1:
        key = next(iter(there))
    integers = [facts.shape for facts in there.values()]
    chosen = names.choose_labels(spec, there, integers, names.Asked(labels_key=key), "")
    if chosen.name is None:
        listed = ", ".join([f"{one}{facts}" for one, facts in list(there.items())[:12]] + list(box.passed_by[:12]))
        raise DataError(spec, f"no labels among {listed or 'nothing'}", "expected --labels FILE::NAME, of integers")
    entry = box.entries[chosen.name]
    where = f"{spec}:{chosen.name}"
    if entry.dtype.kind == "f":
        expected = "expected integers (whole numbers? store labels.astype(int))"
        raise DataError(where, f"{entry.dtype.name} values", expected)
    boxes.check(where, entry.dtype)
    schema.check_integers(where, entry.dtype)
    return LabelFile(spec, os.path.abspath(path), stamp, chosen.name, entry, box.place(chosen.name).offset)


def _placed(spec: str, name: str) -> str:
    """The name of the labels' file for an input."""
    from unoic_cli import formats

    stem, _ = formats.stem_of(name)
    if "{stem}" in spec:
        return spec.replace("{stem}", stem)
    if not os.path.isdir(spec):
        return spec
    found = glob.glob(os.path.join(glob.escape(spec), glob.escape(stem) + ".*"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise NoInputError(spec, f"no file {stem}.* in the folder", f"expected the labels of {storage.shown(name)}")
    listed = ", ".join(sorted(map(os.path.basename, found)))
    raise UsageError(spec, f"{len(found)} files {stem}.* ({listed})", "expected one of that name, or a pattern {stem}")


def joined(source: Source, labels: LabelFile | None) -> Source:
    """A source with the labels of another file, and with what has one value for all samples.

    Raises
    ------
    DataError
        The labels are not those of these scores.
    """
    fields = source.fields | set(source.constants)
    if labels is None:
        return replace(source, fields=fields) if fields != source.fields else source
    shape = labels.entry.shape
    size = schema.ScoreShape(source.n_samples, source.n_classes, source.image_shape, source.layout)
    whole = (source.volume, source.image_shape) if source.n_samples == 1 else ()
    if shape not in whole:
        schema.check_labels(labels.where, shape, labels.entry.dtype, size)
    schema.check_holds(labels.where, labels.entry.dtype, size.known_classes)
    _check_ids(source, labels)
    notes = (*source.notes, f"labels are read from {labels.where}")
    return replace(source, fields=fields | {"labels"}, labels_from=labels, notes=notes)


def _check_ids(source: Source, labels: LabelFile) -> None:
    """Refuse labels whose samples have other ids than the scores, or the same in another order."""
    if "sample_id" not in source.fields:
        return
    theirs = boxes.open_box(labels.path).ids()
    if theirs is None:
        return
    from unoic_cli import formats

    at = 0
    with contextlib.closing(formats.open_reader(source)) as reader:
        for start, stop in formats.spans(source, 1 << 20):
            for block in reader.blocks(start, stop, frozenset({"sample_id"})):
                assert block.sample_id is not None
                first = block.start // source.pixels
                for mine in block.sample_id[max(0, at - first) :].tolist():
                    other = next(theirs, None)
                    if _as_text(mine) != _as_text(other):
                        raise DataError(f"{labels.name}:sample_id", f"{other} at sample {at}", f"expected {mine}")
                    at += 1


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class JoinedReader:
    """Adds to the blocks of a reader what lies elsewhere.

    Parameters
    ----------
    source : Source
        With `constants` or `labels_from`.
    reader : Reader
        Of what lies in the file.
    """

    def __init__(self, source: Source, reader: Reader) -> None:
        self._source = source
        self._reader = reader
        self._labels: OpenLabels | None = None

    def blocks(self, start: int, stop: int, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """Units [start, stop); see `unoic_cli.formats.block.Reader`."""
        source = self._source
        elsewhere = set(source.constants) | ({"labels"} if source.labels_from else set())
        inner = fields - elsewhere
        if inner or not fields:
            found = self._reader.blocks(start, stop, inner)
        else:
            pieces = schema.pieces(start, stop, source.pixels, source.layout)
            found = (LogitBlock(first, last) for first, last in pieces)
        for block in found:
            for name in fields & set(source.constants):
                first, last = schema.samples_of(block.start, block.stop, source.pixels)
                setattr(block, name, np.full(last - first, source.constants[name], dtype=object))
            if source.labels_from and "labels" in fields:
                self._labels = self._labels or source.labels_from.open()
                block.labels = self._labels.read(block.start, block.stop)
            yield block

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()
        if self._labels is not None:
            self._labels.close()


def as_stored(source: Source) -> Source:
    """The source as its own file tells of it."""
    fields = source.fields - set(source.constants) - ({"labels"} if source.labels_from else set())
    return replace(source, constants={}, labels_from=None, fields=fields)
