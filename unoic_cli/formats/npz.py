"""Logits in npz and npy files: arrays with no schema of their own, found by their names.

Arrays are read where they lie. Those that are compressed, or in Fortran order, are unpacked to a nameless file first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from unoic_cli import storage
from unoic_cli.errors import DataError
from unoic_cli.formats import names, numpy_files, schema
from unoic_cli.formats.block import Encoding, Kind, Reader
from unoic_cli.formats.flat import TEXT_FIELDS, FlatReader
from unoic_cli.formats.names import Asked
from unoic_cli.formats.source import ArraySource, Stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.storage.spool import Held

_PER_CLASS = (*names.COUNTS, "source_prior", "class_names")


@dataclass(frozen=True, repr=False, kw_only=True)
class Npz(ArraySource):
    """Scores among the arrays of a npz file.

    Attributes
    ----------
    stamps : dict of str to tuple
        State of each file that holds one of the arrays, when it was described.
    """

    NAME = "npz"
    TITLE = "a npz file"
    SUFFIXES = (".npz",)
    SIGNATURES = (b"PK\x03\x04",)
    REMOTE = False
    PLAIN = True

    stamps: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def describe(cls, name: str, path: str, group: str, *, allow_external: bool, asked: Asked) -> Npz:
        """Find the scores by the names and shapes of the arrays; see `FileSource.describe`."""
        return _Found(cls, name, path, asked).source()

    def open(self) -> Reader:
        """A reader, for one thread."""
        return _NpzReader(self)

    def read_path(self) -> tuple[str, str]:
        """Where they lie, or unpacked."""
        if self.arrays["scores"].offset is not None:
            return "contiguous", ""
        return "unpacked", f"arrays that are {self.storage} are unpacked to a temporary file first"


@dataclass(frozen=True, repr=False, kw_only=True)
class Npy(Npz):
    """Scores that are all of a npy file."""

    NAME = "npy"
    TITLE = "a npy file"
    SUFFIXES = (".npy",)
    SIGNATURES = (b"\x93NUMPY",)


class _NpzReader(FlatReader):
    """Reads arrays where they lie, in this file or another, packed or not."""

    _source: Npz

    def __init__(self, source: Npz) -> None:
        self._unpacked: dict[str, Held] = {}
        self._others: dict[str, storage.File] = {}
        super().__init__(source)

    def close(self) -> None:
        """Let go of the files."""
        self._unpacked.clear()
        for file in self._others.values():
            storage.close_file(file)
        self._others.clear()
        super().close()

    def _where(self, name: str) -> str:
        entry = self._arrays[name]
        return f"{entry.path or self._source.name}:{entry.member}"

    def _pread(self, name: str, out: NDArray[Any], offset: int) -> None:
        schema.pread_into(self._where(name), self._file_of(name), out, offset)

    def _file_of(self, name: str) -> storage.File:
        path, source = self._arrays[name].path, self._source
        if name in self._unpacked:
            return self._unpacked[name].file
        if not path:
            return self._file
        if path not in self._others:
            self._others[path] = storage.open_file(path, path, source.stamps[path], f"expected {source.TITLE}")
        return self._others[path]

    def _read_run(self, name: str, start: int, stop: int, out: NDArray[Any]) -> None:
        self._unpack(name)
        super()._read_run(name, start, stop, out)

    def _read_part(self, start: int, stop: int, out: NDArray[Any]) -> None:
        self._unpack("scores")
        super()._read_part(start, stop, out)

    def _unpack(self, name: str) -> None:
        entry, source = self._arrays[name], self._source
        if entry.offset is None:
            path = entry.path or source.path
            self._unpacked[name] = numpy_files.unpacked(path, source.stamps[path], entry.member)
            self._arrays = {**self._arrays, name: replace(entry, offset=0)}

    def _text(self, name: str, first: int, last: int) -> NDArray[Any]:
        self._unpack(name)
        values = super()._text(name, first, last)
        return values.astype(str).astype(object) if values.dtype.kind in "iu" and name != "sample_id" else values


class _Found:
    """Which arrays of a file are what."""

    def __init__(self, kind_of_source: type[Npz], name: str, path: str, asked: Asked) -> None:
        self.made, self.name, self.path, self.asked = kind_of_source, name, path, asked
        self.stamps = {os.path.abspath(path): storage.local_stamp(path)}
        self.members = numpy_files.members(path)
        self.there = {name: names.Facts(*facts) for name, facts in self.members.items()}
        self.notes: list[str] = []
        self.places: dict[str, tuple[str, str]] = {}
        """Path and member of each field."""
        self.facts: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        """Shape and dtype of each of these."""
        self.scores, self.kind = self._choose_scores()
        self.where = f"{name}:{self.scores}"
        self._take("scores", path, self.scores)
        self.encoding = self._encoding()
        self._find_labels()
        self.shape = self._shape()
        if "labels" in self.places:
            self._check_labels(":".join(self.places["labels"]))
        self._find_delta()
        self._find_texts()

    def source(self) -> Npz:
        """What was found, and where it lies."""
        arrays = {role: self._stored(role) for role in self.places}
        return self.made(
            name=self.name,
            format=self.made.NAME,
            n_samples=self.shape.n_samples,
            n_classes=self.shape.n_classes,
            image_shape=self.shape.image_shape,
            kind=self.kind or "logits",
            encoding=self.encoding,
            layout=self.shape.layout,
            fields=frozenset(self.places) - {"scores"},
            source_counts=self._vector(self._counts()),
            source_prior=self._vector("source_prior"),
            class_names=self._class_names(),
            storage=numpy_files.place(*self.places["scores"]).how,
            members=self._names(),
            notes=tuple(self.notes),
            undecided=self.kind is None,
            others=self._others(),
            checksums="crc32" if self.made is Npz else "none",
            path=os.path.abspath(self.path),
            stamp=self.stamps[os.path.abspath(self.path)],
            arrays=arrays,
            delta=schema.sort_of_delta(self.facts["delta"][0], self.shape) if "delta" in arrays else "",
            stamps=self.stamps,
        )

    def _choose_scores(self) -> tuple[str, Kind | None]:
        """Name of the array that holds the scores, and what it says they are."""
        if self.made is Npy and self.asked.logits_key is None:
            only = next(iter(self.members))
            return only, names.kind_of(only)
        chosen = names.choose_scores(self.name, self.there, self.asked)
        self.notes += chosen.notes
        if chosen.name is None:
            expected = f"expected --logits-key NAME, or one of {', '.join(names.SCORES)} or logits_..."
            raise DataError(self.name, f"no scores among {_listing(self.there)}", expected)
        return chosen.name, chosen.kind

    def _shape(self) -> schema.ScoreShape:
        """Shape of the scores, by what lies beside them where they are images."""
        shape = self.facts["scores"][0]
        labels = self.facts["labels"][0] if "labels" in self.facts else None
        axis = self.asked.class_axis
        if axis is None and labels is not None and labels not in names.unit_shapes(shape or (0,)):
            axis = 1  # what is wrong with the labels is said where they are checked
        if len(shape) == 3 and labels in (shape, (shape[0], 1, *shape[1:])):
            axis = 0
        beside = [labels or (), *([self.members["delta"][0]] if "delta" in self.members else [])]
        lengths = [self.members[name][0][0] for name in _PER_CLASS if name in self.members and self.members[name][0]]
        axis, notes = names.settle_axis(self.where, shape, axis, beside, lengths)
        self.notes += [*notes, *names.check_turned(self.where, shape, labels, lengths)]
        return schema.score_shape(self.where, shape, axis)

    def _take(self, role: str, path: str, member: str) -> None:
        self.places[role] = (path, member)
        self.facts[role] = (self.members if path == self.path else numpy_files.members(path))[member]

    def _is_free(self, member: str) -> bool:
        return (self.path, member) not in self.places.values()

    def _encoding(self) -> Encoding:
        shape, dtype = self.facts["scores"]
        numpy_files.check(self.where, dtype)
        if dtype.kind in "iub":
            hint = "; class indices are stored as predictions" if len(shape) in (1, 3) else ""
            raise DataError(self.where, f"{dtype.name} values", f"expected floats{hint}")
        if dtype.name not in ("float16", "float32", "float64"):
            raise DataError(self.where, f"{dtype.name} values", "expected float16, float32 or float64")
        return cast("Encoding", dtype.name)

    def _find_labels(self) -> None:
        asked, shape, path = self.asked, self.facts["scores"][0], self.asked.labels_file
        there, units = self.there, names.unit_shapes(shape) if shape else []
        if path is not None:
            self.stamps[os.path.abspath(path)] = storage.local_stamp(path)
            there = {name: names.Facts(*facts) for name, facts in numpy_files.members(path).items()}
            if len(there) == 1 and asked.labels_key is None:
                asked = replace(asked, labels_key=next(iter(there)))
        chosen = names.choose_labels(path or self.name, there, units, asked, self.scores if path is None else "")
        self.notes += chosen.notes
        if chosen.name is not None:
            self._take("labels", path or self.path, chosen.name)
            numpy_files.check(f"{path or self.name}:{chosen.name}", self.facts["labels"][1])
        elif path is not None:
            raise DataError(path, f"no labels among {_listing(there)}", "expected --labels-key NAME")

    def _check_labels(self, where: str) -> None:
        shape, dtype = self.facts["labels"]
        scores = self.facts["scores"][0]
        wanted = (self.shape.n_samples, *self.shape.image_shape)
        if shape == scores and self.shape.n_classes > 1:
            raise DataError(
                where, f"shape {shape}, as of the scores", "expected class indices (one-hot? store its argmax)"
            )
        if dtype.kind == "f":
            raise DataError(
                where, f"{dtype.name} values", "expected integers (whole numbers? store labels.astype(int))"
            )
        if shape == scores[:-1] != wanted:
            raise DataError(
                where, f"shape {shape}", f"expected {wanted}; or --class-axis -1 for classes on the last axis"
            )
        schema.check_labels(where, shape, dtype, self.shape)

    def _find_delta(self) -> None:
        if "delta" in self.members and self._is_free("delta"):
            self._take("delta", self.path, "delta")
            schema.check_delta(f"{self.name}:delta", *self.facts["delta"], self.shape)

    def _find_texts(self) -> None:
        for name in TEXT_FIELDS:
            if name not in self.members or not self._is_free(name):
                continue
            where, (shape, dtype) = f"{self.name}:{name}", self.members[name]
            numpy_files.check(where, dtype)
            self._take(name, self.path, name)
            schema.check_per_sample(where, shape, self.shape.n_samples)
            schema.check_length(where, dtype)
            if dtype.kind not in "SUiu":
                raise DataError(where, f"{dtype.name} values", "expected text")
            if dtype.kind in "iu" and name != "sample_id":
                self.notes.append(f"{name}: integers, read as text")

    def _stored(self, role: str) -> Stored:
        """Where an array lies."""
        (path, member), (shape, dtype) = self.places[role], self.facts[role]
        other = "" if path == self.path else os.path.abspath(path)
        if role == "delta" and not shape:
            return Stored(value=float(numpy_files.read(path, member)), offset=0, member=member)
        if dtype.kind == "b" or (role == "scores" and dtype == np.float16):
            dtype = np.dtype(f"u{dtype.itemsize}").newbyteorder(dtype.byteorder)
        offset = numpy_files.place(path, member).offset
        return Stored(dtype.str, shape, offset, member, is_text=dtype.kind in "SU", path=other)

    def _names(self) -> dict[str, str]:
        found = {role: self.places[role][1] for role in ("scores", "labels") if role in self.places}
        return {role: name for role, name in found.items() if name != {"scores": self.kind}.get(role, role)}

    def _counts(self) -> str | None:
        return next((name for name in names.COUNTS if name in self.members and self._is_free(name)), None)

    def _others(self) -> tuple[str, ...]:
        """Arrays that are not read, and why not."""
        used = {member for path, member in self.places.values() if path == self.path}
        used |= {self._counts() or "", "source_prior", "class_names"}
        reasons = {name: numpy_files.unreadable(dtype) for name, (_, dtype) in self.members.items() if name not in used}
        return tuple(f"{name} ({reason})" if reason else name for name, reason in reasons.items())

    def _vector(self, member: str | None) -> tuple[float, ...] | None:
        if member is None or member not in self.members:
            return None
        where = f"{self.name}:{member}"
        schema.check_vector(where, *self.members[member], self.shape.known_classes)
        return schema.class_vector(where, numpy_files.read(self.path, member), self.shape.known_classes)

    def _class_names(self) -> tuple[str, ...] | None:
        if "class_names" not in self.members:
            return None
        where = f"{self.name}:class_names"
        schema.check_names(where, *self.members["class_names"], self.shape.known_classes)
        return schema.class_names(where, numpy_files.read(self.path, "class_names"), self.shape.known_classes)


def _listing(there: Mapping[str, names.Facts]) -> str:
    """Names, shapes and dtypes, as far as they fit on a line."""
    listed = [f"{name}{facts}" for name, facts in there.items()]
    return ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "") if listed else "nothing"
