"""Scores in files that are arrays and their names, with no schema of their own: found by their names.

Arrays are read where they lie. Those that are compressed, in Fortran order, or views that are not contiguous, are
unpacked to a nameless file first.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, cast

import numpy as np

from unoic_cli import storage
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import boxes, names, schema
from unoic_cli.formats.block import Encoding, Kind, Reader
from unoic_cli.formats.flat import TEXT_FIELDS, FlatReader
from unoic_cli.formats.names import Asked
from unoic_cli.formats.source import ArraySource, Stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.storage.spool import Held

_PER_CLASS = (*names.COUNTS, "source_prior", "class_names")
_OURS = ("source_prior", "class_names", "class_axis", "n_classes", "unoic")
"""What an output has besides arrays of samples."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Plain(ArraySource):
    """Scores among the arrays of a file.

    Attributes
    ----------
    ALONE : bool
        Such a file holds one array, which has no name.
    """

    REMOTE = False
    PLAIN = True
    GROUPS = True
    ALONE: ClassVar[bool] = False

    @classmethod
    def describe(cls, name: str, path: str, group: str, *, allow_external: bool, asked: Asked) -> Self:
        """Find the scores by the names and shapes of the arrays; see `FileSource.describe`."""
        return _Found(cls, name, path, group.strip("/"), asked).source()

    @classmethod
    def parts(cls, name: str, path: str, group: str, asked: Asked) -> list[str]:
        """The splits that names tell apart; see `FileSource.parts`."""
        if group != "/" or cls.ALONE:
            return []
        return names.parts({name: facts_of(entry) for name, entry in cls.box(path).entries.items()}, asked)

    def open(self) -> Reader:
        """A reader, for one thread."""
        return _PlainReader(self)

    def read_path(self) -> tuple[str, str]:
        """Where they lie, or unpacked."""
        if self.arrays["scores"].offset is not None:
            return "contiguous", ""
        return "unpacked", f"arrays that are {self.storage} are unpacked to a temporary file first"


class _PlainReader(FlatReader):
    """Reads arrays where they lie, in this file or another, packed or not."""

    _source: Plain

    def __init__(self, source: Plain) -> None:
        self._unpacked: dict[str, Held] = {}
        super().__init__(source)

    def close(self) -> None:
        """Let go of the file."""
        self._unpacked.clear()
        super().close()

    def _where(self, name: str) -> str:
        return f"{self._source.name}:{self._arrays[name].member}"

    def _pread(self, name: str, out: NDArray[Any], offset: int) -> None:
        file = self._unpacked[name].file if name in self._unpacked else self._file
        schema.pread_into(self._where(name), file, out, offset)

    def _read_run(self, name: str, start: int, stop: int, out: NDArray[Any]) -> None:
        self._unpack(name)
        super()._read_run(name, start, stop, out)

    def _read_part(self, start: int, stop: int, out: NDArray[Any]) -> None:
        self._unpack("scores")
        super()._read_part(start, stop, out)

    def _unpack(self, name: str) -> None:
        entry, source = self._arrays[name], self._source
        if entry.offset is None:
            self._unpacked[name] = boxes.unpacked(source.path, source.stamp, entry.member)
            self._arrays = {**self._arrays, name: replace(entry, offset=0)}

    def _text(self, name: str, first: int, last: int) -> NDArray[Any]:
        self._unpack(name)
        values = super()._text(name, first, last)
        return values.astype(str).astype(object) if values.dtype.kind in "iu" and name != "sample_id" else values


Made = TypeVar("Made", bound=Plain)


def facts_of(entry: boxes.Entry) -> names.Facts:
    """What names are chosen by: bfloat16 is a float."""
    return names.Facts(entry.shape, np.dtype(np.float32) if entry.bfloat16 else entry.dtype)


class _Found(Generic[Made]):
    """Which arrays of a file are what; those of one split by what they are called in it."""

    def __init__(self, kind_of_source: type[Made], name: str, path: str, group: str, asked: Asked) -> None:
        self.made, self.name, self.path = kind_of_source, name, path
        self.stamp = storage.local_stamp(path)
        self.box = kind_of_source.box(path)
        everything = {name: facts_of(entry) for name, entry in self.box.entries.items()}
        self.real, self.asked, self.split = self._view(everything, group, asked)
        self.members = {name: self.box.entries[real] for name, real in self.real.items()}
        self.there = {name: facts_of(entry) for name, entry in self.members.items()}
        self.notes: list[str] = list(self.box.notes)
        self.places: dict[str, str] = {}
        """Member of each field."""
        self.lying: dict[str, boxes.Place] = {}
        """Where members lie: of an archive, to know it costs a read of the whole array."""
        self.facts: dict[str, boxes.Entry] = {}
        """What each of these is."""
        self.scores, self.kind = self._choose_scores()
        self.where = self._where(self.scores)
        self.volume: tuple[int, ...] = ()
        self._take("scores", self.scores)
        self.encoding = self._encoding()
        self._find_labels()
        self.shape = self._shape()
        if "labels" in self.places:
            self._check_labels(self._where(self.places["labels"]))
        self._find_delta()
        self._find_texts()
        self._find_predictions()

    def _view(self, there: Mapping[str, names.Facts], group: str, asked: Asked) -> tuple[dict[str, str], Asked, str]:
        """Members by what they are called, what was asked for, and the split that the group stands for."""
        if self.made.ALONE:
            if group:
                raise UsageError(self.name, f"a group of a {self.made.NAME} file", f"expected {self.path} alone")
            return {name: name for name in there}, asked, ""
        splits = names.parts(there, asked)
        if group and group in splits:
            return names.of_split(there, group), asked, group
        if group and (inside := names.under(there, group)) and names.below(there, asked):
            return inside, asked, ""
        if group and asked.logits_key is None and group in there:
            return {name: name for name in there}, replace(asked, logits_key=group), ""
        if group:
            known = ", ".join(splits or there)
            raise DataError(self.name, f"no part or array {group}", f"expected one of {known}")
        if len(splits) > 1:
            raise DataError(
                self.name, f"{len(splits)} parts ({', '.join(splits)})", f"expected {self.name}::{splits[0]}"
            )
        if splits:
            return names.of_split(there, splits[0]), asked, splits[0]
        below = names.below(there, asked)
        if len(below) > 1:
            listed = ", ".join(below[:8])
            raise DataError(self.name, f"{len(below)} candidates ({listed})", f"expected {self.name}::{below[0]}")
        if below:
            return names.under(there, below[0]), asked, ""
        return {name: name for name in there}, asked, ""

    def source(self) -> Made:
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
            volume=self.volume,
            layout=self.shape.layout,
            fields=frozenset(self.places) - {"scores", "predictions"},
            has_predictions="predictions" in self.places,
            source_counts=self._vector(self._counts()),
            source_prior=self._vector("source_prior"),
            class_names=self._class_names(),
            storage=self._place(self.scores).how,
            members=self._names(),
            notes=tuple(self.notes),
            undecided=self.kind is None,
            others=self._others(),
            checksums=self.box.CHECKSUMS,
            attributes=self._attributes(),
            constants={"split": self.split} if self.split and "split" not in self.places else {},
            path=os.path.abspath(self.path),
            stamp=self.stamp,
            arrays=arrays,
            delta=schema.sort_of_delta(self.facts["delta"].shape, self.shape) if "delta" in arrays else "",
        )

    def _where(self, member: str) -> str:
        """``FILE:ARRAY`` for messages."""
        return f"{self.name.partition('::')[0] if self.split else self.name}:{self.real[member]}"

    def _choose_scores(self) -> tuple[str, Kind | None]:
        """Name of the array that holds the scores, and what it says they are."""
        only = next(iter(self.members), "")
        if self.asked.logits_key is None and len(self.members) == 1 and (self.made.ALONE or self._is_float(only)):
            return only, names.kind_of(only)
        chosen = names.choose_scores(self.name, self.there, self.asked)
        self.notes += chosen.notes
        if chosen.name is None and self._are_predictions():
            return "predictions", "predictions"
        if chosen.name is None:
            expected = f"expected --logits-key NAME, or one of {', '.join(names.SCORES)} or logits_..."
            raise DataError(self.name, f"no scores among {_listing(self.there)}", expected)
        return chosen.name, chosen.kind

    def _are_predictions(self) -> bool:
        """Whether class indices are all that there is, and of how many classes they are is said."""
        found, told = (self.members.get(name) for name in ("predictions", "n_classes"))
        return found is not None and told is not None and found.dtype.kind in "iu" and told.shape == ()

    def _is_float(self, member: str) -> bool:
        return names.are_floats(self.there[member]) and len(self.there[member].shape) > 0

    def _shape(self) -> schema.ScoreShape:
        """Shape of the scores, by what lies beside them where they are images."""
        shape = self.facts["scores"].shape
        if self.kind == "predictions":
            n_classes = int(self.box.read(self.real["n_classes"]))
            schema.check_holds(self.where, self.facts["scores"].dtype, n_classes)
            return schema.prediction_shape(self.where, shape, n_classes)
        labels = self.facts["labels"].shape if "labels" in self.facts else None
        if self.asked.beside is not None:
            labels = self.asked.beside.shape
        axis = self.asked.class_axis
        if axis is not None and len(shape) not in (3, 4):
            names.refuse(names.Asked(class_axis=axis), self.where, "holds no images")
        if axis is None and self.members.get("class_axis", boxes.Entry((1,), np.dtype("i8"))).shape == ():
            axis = int(self.box.read(self.real["class_axis"]))
        if len(shape) == 3 and (axis == 0 or (axis is None and labels == shape[1:])):
            self.volume = shape[1:]
            return schema.volume_shape(self.where, (shape[0], 1, *shape[1:]))
        if len(shape) == 4 and axis in (None, 0) and (axis == 0 or self._is_volume(shape, labels)):
            self.volume = shape[1:]
            return schema.volume_shape(self.where, shape)
        if axis is None and labels is not None and labels not in names.unit_shapes(shape or (0,)):
            axis = 1  # what is wrong with the labels is said where they are checked
        if len(shape) == 3 and labels in (shape, (shape[0], 1, *shape[1:])):
            axis = 0
        beside = [labels or (), *([self.members["delta"][0]] if "delta" in self.members else [])]
        lengths = [self.members[name][0][0] for name in _PER_CLASS if name in self.members and self.members[name][0]]
        axis, notes = names.settle_axis(self.where, shape, axis, beside, lengths)
        self.notes += [*notes, *names.check_turned(self.where, shape, labels, lengths)]
        return schema.score_shape(self.where, shape, axis)

    def _is_volume(self, shape: tuple[int, ...], labels: tuple[int, ...] | None) -> bool:
        """Whether (K, Z, Y, X) scores are meant: their labels are (Z, Y, X), and nothing else would do.

        Of as many slices as classes both would: probabilities say by their sums along which axis the classes are.
        """
        if labels is not None and labels != shape[1:]:
            return False
        if labels is not None and labels not in names.unit_shapes(shape):
            return True
        if self.kind not in ("probs", "log_probs") or self.facts["scores"].bfloat16:
            if labels is not None:
                self.notes.append(
                    f"{shape} is read as (N, K, H, W), {shape[0]} images; --class-axis 0 reads one volume"
                )
            return False
        corners = []
        for block in self.box.rows(self.real[self.scores], 1 << 20):
            corner = block[..., :1, :64].astype(np.float64)
            corners.append(np.exp(corner) if self.kind == "log_probs" else corner)
            if len(corners) == 1 and _sums_to_one(corners[0], 1):
                return False  # of images the first one tells
        whole = np.concatenate(corners)
        return _sums_to_one(whole, 0) and not _sums_to_one(whole, 1)

    def _take(self, role: str, member: str) -> None:
        self.places[role] = member
        self.facts[role] = self.members[member]

    def _is_free(self, member: str) -> bool:
        return member not in self.places.values()

    def _encoding(self) -> Encoding:
        shape, dtype, bfloat16 = self.facts["scores"]
        if bfloat16:
            return "bfloat16"
        if self.kind == "predictions":
            return "float32"
        boxes.check(self.where, dtype)
        if dtype.kind in "iub":
            hint = "; class indices are stored as predictions" if len(shape) in (1, 3) else ""
            raise DataError(self.where, f"{dtype.name} values", f"expected floats{hint}")
        if dtype.name not in ("float16", "float32", "float64"):
            raise DataError(self.where, f"{dtype.name} values", "expected float16, float32 or float64")
        return cast("Encoding", dtype.name)

    def _find_labels(self) -> None:
        if self.asked.beside is not None:
            return
        shape = self.facts["scores"].shape
        units = names.unit_shapes(shape) if shape else []
        chosen = names.choose_labels(self.name, self.there, units, self.asked, self.scores)
        self.notes += chosen.notes
        if chosen.name is None and not chosen.notes:
            self.notes += [f"{path} lies beside it (--labels {path})" for path in _labels_beside(self.path)]
        if chosen.name is not None:
            self._take("labels", chosen.name)
            boxes.check(self._where(chosen.name), self.facts["labels"].dtype)

    def _check_labels(self, where: str) -> None:
        shape, dtype, _ = self.facts["labels"]
        scores = self.facts["scores"].shape
        wanted = (self.shape.n_samples, *self.shape.image_shape)
        if self.volume and shape == self.volume:
            schema.check_holds(where, dtype, self.shape.known_classes)
            schema.check_integers(where, dtype)
            return
        if shape == scores and self.kind != "predictions" and self.shape.n_classes > 1:
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
            self._take("delta", "delta")
            schema.check_delta(self._where("delta"), *self.facts["delta"][:2], self.shape)

    def _find_texts(self) -> None:
        for name in TEXT_FIELDS:
            if name not in self.members or not self._is_free(name):
                continue
            where, (shape, dtype, _) = self._where(name), self.members[name]
            boxes.check(where, dtype)
            self._take(name, name)
            schema.check_per_sample(where, shape, self.shape.n_samples)
            schema.check_length(where, dtype)
            if dtype.kind not in "SUiu":
                raise DataError(where, f"{dtype.name} values", "expected text")
            if dtype.kind in "iu" and name != "sample_id":
                self.notes.append(f"{name}: integers, read as text")

    def _find_predictions(self) -> None:
        """Usable predictions beside the scores; those that do not fit are left alone."""
        found = self.members.get("predictions")
        units = (self.shape.n_samples, *self.shape.image_shape)
        if found is None or self.scores == "predictions" or found.shape != units or found.dtype.kind not in "iu":
            return
        with contextlib.suppress(DataError):
            schema.check_holds("predictions", found.dtype, self.shape.known_classes)
            self._take("predictions", "predictions")

    def _stored(self, role: str) -> Stored:
        """Where an array lies."""
        called, (shape, dtype, _) = self.places[role], self.facts[role]
        member = self.real[called]
        if role == "delta" and not shape:
            return Stored(value=float(self.box.read(member)), offset=0, member=member)
        if dtype.kind == "b" or (role == "scores" and dtype.kind == "f" and dtype.itemsize == 2):
            dtype = np.dtype(f"u{dtype.itemsize}").newbyteorder(dtype.byteorder)
        return Stored(dtype.str, shape, self._place(called).offset, member, is_text=dtype.kind in "SU")

    def _place(self, called: str) -> boxes.Place:
        if called not in self.lying:
            self.lying[called] = self.box.place(self.real[called])
        return self.lying[called]

    def _names(self) -> dict[str, str]:
        found = {role: self.real[self.places[role]] for role in ("scores", "labels") if role in self.places}
        return {role: name for role, name in found.items() if name != {"scores": self.kind}.get(role, role)}

    def _attributes(self) -> dict[str, str]:
        """Provenance that an output of ours has."""
        text = self.box.texts.get("unoic", "")
        if not text and self.members.get("unoic", boxes.Entry((1,), np.dtype("i8"))).dtype.kind == "U":
            text = str(self.box.read(self.real["unoic"]))
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(text)
            if isinstance(found, dict):
                return {key: value for key, value in found.items() if isinstance(value, str)}
        return {}

    def _counts(self) -> str | None:
        return next((name for name in names.COUNTS if name in self.members and self._is_free(name)), None)

    def _others(self) -> tuple[str, ...]:
        """Arrays that are not read, and why not."""
        used = {*self.places.values(), self._counts() or "", *_OURS}
        reasons = {
            self.real[name]: boxes.unreadable(entry.dtype) for name, entry in self.members.items() if name not in used
        }
        return tuple(f"{name} ({reason})" if reason else name for name, reason in reasons.items())

    def _vector(self, member: str | None) -> tuple[float, ...] | None:
        if member is None or member not in self.members:
            return None
        where = self._where(member)
        schema.check_vector(where, *self.members[member][:2], self.shape.known_classes)
        return schema.class_vector(where, self.box.read(self.real[member]), self.shape.known_classes)

    def _class_names(self) -> tuple[str, ...] | None:
        if "class_names" in self.members:
            where = self._where("class_names")
            schema.check_names(where, *self.members["class_names"][:2], self.shape.known_classes)
            return schema.class_names(where, self.box.read(self.real["class_names"]), self.shape.known_classes)
        return self.box.class_names(f"{self.name}:class_names", self.shape.known_classes)


def _labels_beside(path: str) -> list[str]:
    """The file beside one of scores that is called as its labels would be."""
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    names_ = [*names.LABELS, *(f"{stem}_{label}" for label in names.LABELS)]
    bare = re.sub(r"[_-]?(logits?|probs?|scores?|preds?|outputs?)$", "", stem, flags=re.IGNORECASE)
    names_ += [f"{bare}_{label}" for label in names.LABELS if bare and bare != stem]
    found = [os.path.join(folder, f"{label}.npy") for label in names_]
    return [one for one in found if os.path.isfile(one) and not os.path.samefile(one, path)][:1]


def _sums_to_one(probs: NDArray[np.float64], axis: int) -> bool:
    return bool((np.abs(probs.sum(axis=axis) - 1) < 1e-2).all())


def _listing(there: Mapping[str, names.Facts]) -> str:
    """Names, shapes and dtypes, as far as they fit on a line."""
    listed = [f"{name}{facts}" for name, facts in there.items()]
    return ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "") if listed else "nothing"
