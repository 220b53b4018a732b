"""Logits in HDF5: arrays that are contiguous, or chunked by known filters, go around the library; the rest through it.

libhdf5 runs under one global lock. A contiguous dataset is a run of bytes at a known offset, so
readers fetch it with ``preadv`` and writers store it with ``pwrite``, from any number of threads.
Chunks are read and decoded in `unoic_cli.formats.chunks`.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from unoic_cli.block import FIELDS, SCORE_KINDS, Encoding, Kind, LogitBlock, OutputSpec, Source
from unoic_cli.errors import DataError, NoInputError, UnoicError, UsageError
from unoic_cli.formats import chunks, elsewhere, names, schema, storage
from unoic_cli.formats.watched import MOST_PIECE, MOST_TEXT, WatchedFile, lock_shared

NAME = "hdf5"
SUFFIXES = (".h5", ".hdf5", ".hdf")

_FLOATS: dict[tuple[int, ...], Encoding] = {
    (15, 10, 5, 0, 10): "float16",
    (15, 7, 8, 0, 7): "bfloat16",
    (31, 23, 8, 0, 23): "float32",
    (63, 52, 11, 0, 52): "float64",
}
"""Encodings by where sign, exponent and mantissa lie: h5py shows a bfloat16 dataset as float32."""

_NOTHING = names.Asked()
_EXPECTED_SCORES = f"expected a dataset named {', '.join(SCORE_KINDS)}, or predictions"
_MOST_OTHERS = 100
"""Datasets that are named as not carried over, at most."""
_PER_CLASS = (*names.COUNTS, "source_prior", "class_names")
_TEXT_FIELDS = ("split", "group", "sample_id")

MOST_BYTES = 64 << 20
"""Scores that one span of a chunked dataset may hold, when the chunks are read here."""

_TINY = 1 << 16
_TEXTS = 16
"""Texts of variable length that are read at once: each may say that it is as long as a heap."""
_TEXT_BYTES = 16 << 20
"""Of texts of fixed length."""
_MOST_MEMBERS = 500
"""Members of a group that are looked at."""


def matches(head: bytes) -> bool:
    """Tell whether a file that starts like this is HDF5."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


# ------------------------------------------------------------------------------------------------
# describing


def describe(
    name: str, path: str, group: str, *, allow_external: bool = False, asked: names.Asked = _NOTHING
) -> Source:
    """Find the scores of a file and check everything that can be checked without reading them.

    Parameters
    ----------
    name : str
        The input as typed; messages start with it.
    path, group : str
        The file, and the group (or scores dataset) in it.
    allow_external : bool
        Follow external links, external storage and virtual datasets.
    asked : Asked
        What was said of names and axes.

    Returns
    -------
    Source

    Raises
    ------
    NoInputError
        The file is missing or not readable.
    DataError
        It is not an HDF5 file, or does not hold what the schema asks for.
    """
    if storage.is_remote(path) and allow_external:
        raise UsageError(name, "a remote file with --allow-external", "expected local files with it")
    with (
        storage.described(path) as (there, stamp, size),
        _opened(name, there, watched=not allow_external) as file,
        _hdf5_errors(name),
    ):
        place = _Place(name, file, group, allow_external, size)
        return _describe(place, path, stamp, asked)


@contextlib.contextmanager
def _hdf5_errors(where: str) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into one `DataError`."""
    try:
        yield
    except UnoicError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise DataError(where, f"cannot be read as HDF5 ({reason})", "expected an intact HDF5 file") from error


class InputFile(h5py.File):  # type: ignore[misc]  # h5py has no types
    """A file that is only read: whatever the system says when it is closed, all that was wanted of it is there."""

    def __init__(self, there: Any) -> None:
        super().__init__(there, "r", locking="best-effort")

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError, RuntimeError):
            super().close()


@contextlib.contextmanager
def _opened(name: str, there: Any, *, watched: bool, most: int | None = MOST_PIECE) -> Iterator[Any]:
    """Open a path, or a file object, for a while.

    Parameters
    ----------
    name : str
        For messages.
    there : str or file object
    watched : bool
        Let the library see no more than a `WatchedFile` shows; not where it must find other files beside this one.
    most : int, optional
        Bytes that the library may ask for at once.
    """
    with contextlib.ExitStack() as stack:
        if watched:
            there = stack.enter_context(_watch(name, there, most))
        yield stack.enter_context(_open(name, there))


def _watch(name: str, there: Any, most: int | None) -> WatchedFile:
    """A file, or a path that is opened and locked against writers as the library does it."""
    if not isinstance(there, str):
        return WatchedFile(name, there, most=most)
    with _open_errors(name):
        file = open(there, "rb", buffering=0)  # noqa: SIM115  # closed with what reads it
        try:
            lock_shared(file.fileno())
            return WatchedFile(name, file, there, most=most)
        except BaseException:
            file.close()
            raise


def _open(name: str, there: Any) -> Any:
    """Open a path, or a file object."""
    with _open_errors(name):
        return InputFile(there)


@contextlib.contextmanager
def _open_errors(name: str) -> Iterator[None]:
    """Turn what opening a file raises into one error of ours."""
    try:
        yield
    except UnoicError:
        raise
    except FileNotFoundError:
        raise NoInputError(name, "no such file", "expected an HDF5 file") from None
    except (PermissionError, IsADirectoryError, BlockingIOError) as error:
        raise NoInputError(name, f"cannot be opened ({error.strerror or error})", "expected an HDF5 file") from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise DataError(name, f"truncated or not HDF5 ({reason})", "expected an intact HDF5 file") from error


class _Place:
    """The group that is described, and the only way to get at its members: links are policed here."""

    def __init__(self, name: str, file: Any, group: str, allow_external: bool, size: int = 0) -> None:
        self.name = name
        self.file = file
        self.size = size
        self.allow_external = allow_external
        self.chosen = ""
        found = self.follow(group, name)
        if isinstance(found, h5py.Dataset):
            group, _, last = group.rstrip("/").rpartition("/")
            if last != "predictions" and not names.is_scores(last) and names.kind_of(last) is None:
                raise DataError(name, "a dataset", f"expected a group, or {_EXPECTED_SCORES.removeprefix('expected ')}")
            self.chosen, group = last, group or "/"
            found = self.follow(group, name)
        if found is None:
            raise DataError(name, f"no group {group}", f"expected one of: {_listing(file)}")
        self.path = group.rstrip("/")
        self.group = found

    def where(self, member: str) -> str:
        """``FILE:DATASET`` for messages."""
        return f"{self.name}:{member}"

    def members(self) -> dict[str, names.Facts]:
        """Shapes and types of the group's datasets, as far as they can be reached; of no more than `_MOST_MEMBERS`."""
        found = {}
        for name in itertools.islice(self.group, _MOST_MEMBERS):
            one = None
            with contextlib.suppress(UnoicError, KeyError, OSError, RuntimeError, TypeError, ValueError):
                one = self.follow(f"{self.path}/{name}", name)
            if isinstance(one, h5py.Dataset):
                with contextlib.suppress(OSError, RuntimeError, TypeError, ValueError):
                    found[name] = names.Facts(tuple(one.shape or ()), one.dtype)
            elif not isinstance(one, h5py.Group) or name in (*FIELDS, *SCORE_KINDS, "predictions"):
                found[name] = names.Facts((), None)  # what is wrong with it is said if it is wanted
        return found

    def dataset(self, member: str, *, is_array: bool = False) -> Any:
        """Return a dataset of the group, fit to be read, or None; `is_array` if its chunks may be read here."""
        found = self.follow(f"{self.path}/{member}", self.where(member))
        if found is None:
            return None
        if not isinstance(found, h5py.Dataset):
            raise DataError(self.where(member), "not a dataset", "expected a dataset")
        layout = self.layout(found) if is_array else None
        _check_storage(self.where(member), found, self.allow_external, layout)
        return found

    def layout(self, dataset: Any) -> chunks.Layout | None:
        """How an array is stored, if its chunks can be read without the library."""
        if h5py.h5o.get_info(dataset.id).fileno != h5py.h5o.get_info(self.file.id).fileno:
            return None  # reached through an external link: offsets count in another file
        if self.file.userblock_size and not os.path.isfile(self.file.filename):
            return None  # where offsets begin is found out by a look at the file
        return chunks.layout(dataset) if dataset.shape else None

    def follow(self, path: str, where: str) -> Any:
        """Walk to an object link by link, as h5py would follow an external one unasked."""
        if self.allow_external:
            return self.file.get(path)
        node, steps, budget = self.file["/"], [step for step in path.split("/") if step], 100
        while steps:
            step = steps.pop(0)
            if not isinstance(node, h5py.Group) or node.get(step, getlink=True) is None:
                return None
            link = node.get(step, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise _external(where, f"a link to another file ({link.filename})")
            if isinstance(link, h5py.SoftLink):
                budget -= 1
                if not budget:
                    raise DataError(where, "soft links in a circle", "expected a dataset")
                steps = [part for part in link.path.split("/") if part not in ("", ".")] + steps
                node = self.file["/"] if link.path.startswith("/") else node
            else:
                node = node[step]
        return node


def _external(where: str, found: str) -> DataError:
    return DataError(where, found, "expected data in the file itself (--allow-external reads other files)")


def _listing(group: Any) -> str:
    known = sorted(group)
    return ", ".join(known[:20]) + (", ..." if len(known) > 20 else "") if known else "nothing"


def _check_storage(where: str, dataset: Any, allow_external: bool, layout: chunks.Layout | None) -> None:
    """Refuse what lies elsewhere, what was never written, what cannot be decoded, and what would fill the memory."""
    plist = dataset.id.get_create_plist()
    external = plist.get_external_count() > 0
    virtual = plist.get_layout() == h5py.h5d.VIRTUAL
    if (external or virtual) and not allow_external:
        raise _external(where, "a virtual dataset" if virtual else "data stored in another file")
    if dataset.shape is None:
        raise DataError(where, "an empty (null) dataset", "expected data")
    for index in range(plist.get_nfilters()):
        code, _, _, label = plist.get_filter(index)
        if layout is None and not h5py.h5z.filter_avail(code):
            found = f"compressed with filter {code} ({label.decode(errors='replace')}), which is not installed here"
            raise DataError(where, found, "expected gzip, zstd, lzf or none")
    elsewhere.check_present(where, dataset)
    if layout is None and dataset.chunks is not None:
        chunks.check_sizes(where, dataset)


def _describe(place: _Place, path: str, stamp: Any, asked: names.Asked) -> Source:
    there = place.members()
    member, kind, notes = _find_scores(place, there, asked)
    dataset = place.dataset(member, is_array=True)
    if dataset is None:
        raise DataError(place.where(member), "a link that leads nowhere", "expected a dataset")
    labels, shape, encoding, more = _score_facts(place, there, member, kind, dataset, asked)
    arrays = {"scores": _array(place, member, dataset, shape, is_scores=kind != "predictions")}
    locator: dict[str, Any] = {
        "path": path if storage.is_remote(path) else os.path.abspath(path),
        "stamp": stamp,
        "allow_external": place.allow_external,
        "arrays": arrays,
        "chunks": tuple(dataset.chunks or ()),
        "stored_bytes": dataset.id.get_storage_size(),
        "checksums": _checksums(dataset),
        "undecided": kind is None,
    }
    members = {"scores": member, "labels": labels or "labels"}
    for field in FIELDS:
        found = place.dataset(members.get(field, field), is_array=field not in _TEXT_FIELDS)
        if found is not None:
            arrays[field] = _field(place, field, members.get(field, field), found, shape, locator)
    fields = frozenset(arrays) - {"scores"}
    locator["others"] = list(itertools.islice(_others(place, set(members.values())), _MOST_OTHERS))
    if kind != "predictions" and member != "predictions":
        _note_predictions(place, shape, locator)
    return Source(
        name=place.name,
        format=NAME,
        n_samples=shape.n_samples,
        n_classes=shape.n_classes,
        image_shape=shape.image_shape,
        kind=kind or "logits",
        encoding=encoding,
        layout=shape.layout,
        fields=fields,
        source_counts=_vector(place, names.COUNTS, shape.known_classes, dataset),
        source_prior=_vector(place, ("source_prior",), shape.known_classes, dataset),
        class_names=_class_names(place, shape.known_classes, dataset),
        storage=_storage(dataset),
        attributes=_attributes(place.group),
        locator=locator,
        members={role: name for role, name in members.items() if name != {"scores": kind}.get(role, role)},
        notes=(*notes, *more),
    )


def _others(place: _Place, used: set[str]) -> Iterator[str]:
    """Datasets of the group that are not read; links are not followed."""
    ours = {*used, *_PER_CLASS, "delta", *_TEXT_FIELDS, "predictions"}
    for name in place.group:
        if name not in ours and isinstance(place.group.get(name, getlink=True), h5py.HardLink):
            with contextlib.suppress(KeyError, OSError, RuntimeError):
                if place.group.get(name, getclass=True) is h5py.Dataset:
                    yield name


def _note_predictions(place: _Place, shape: schema.ScoreShape, locator: dict[str, Any]) -> None:
    """Say where predictions beside the scores lie; those that do not fit the scores are left alone."""
    with contextlib.suppress(DataError):
        dataset = place.dataset("predictions", is_array=True)
        units = (shape.n_samples, *shape.image_shape)
        if dataset is not None and dataset.dtype.kind in "iub" and tuple(dataset.shape) == units:
            schema.check_holds("predictions", dataset.dtype, shape.known_classes)
            locator["arrays"]["predictions"] = _array(place, "predictions", dataset, shape)
            locator["has_predictions"] = True


def _find_scores(
    place: _Place, there: dict[str, names.Facts], asked: names.Asked
) -> tuple[str, Kind | None, tuple[str, ...]]:
    """Member that holds the scores, what its name says they are, and what is worth saying of the choice."""
    if place.chosen and asked.logits_key is None:
        asked = replace(asked, logits_key=place.chosen)
    chosen = names.choose_scores(place.name, there, asked)
    integers = there.get("predictions") is not None and not names.are_floats(there["predictions"])
    if chosen.name == "predictions" and integers:
        return "predictions", "predictions", ()
    if chosen.name is not None:
        return chosen.name, chosen.kind, chosen.notes
    if "predictions" in there:
        return "predictions", "predictions", ()
    hint = _group_with_scores(place.group)
    expected = f"{_EXPECTED_SCORES}, or --logits-key NAME"
    if hint:
        expected = f"{_EXPECTED_SCORES}; try {storage.split_name(place.name)[0]}::{hint.lstrip('/')}"
    raise DataError(place.name, f"no scores among: {_listing(place.group)}", expected)


def _group_with_scores(group: Any, depth: int = 3) -> str:
    """Path of a subgroup that has scores, or an empty string; links are not followed."""
    for name in sorted(group)[:1000]:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        if not isinstance(group[name], h5py.Group):
            continue
        if any(names.is_scores(member) for member in itertools.islice(group[name], _MOST_MEMBERS)):
            return str(group[name].name)
        deeper = _group_with_scores(group[name], depth - 1) if depth else ""
        if deeper:
            return deeper
    return ""


def _score_facts(
    place: _Place, there: dict[str, names.Facts], member: str, kind: Kind | None, dataset: Any, asked: names.Asked
) -> tuple[str | None, schema.ScoreShape, Encoding, tuple[str, ...]]:
    """Member of the labels, the shape and encoding of the scores, and what to say of the way they were found."""
    where = place.where(member)
    if kind == "predictions":
        names.refuse(replace(asked, logits_key=None, labels_key=None), place.name, "holds predictions")
        n_classes = _int_attribute(where, dataset, "n_classes")
        if n_classes is None:
            raise DataError(where, "no attribute n_classes", "expected the number of classes K")
        schema.check_integers(where, dataset.dtype)
        schema.check_holds(where, dataset.dtype, n_classes)
        shape = schema.prediction_shape(where, dataset.shape, n_classes)
        units: list[tuple[int, ...]] = [(shape.n_samples, *shape.image_shape), (shape.n_samples, 1, *shape.image_shape)]
        chosen = names.choose_labels(place.name, there, units, asked, member)
        return chosen.name, shape, "float32", chosen.notes
    encoding = _encoding(dataset)
    if encoding is None:
        raise DataError(where, f"{dataset.dtype} values", f"expected {', '.join(schema.SCORE_DTYPES)}")
    stored = tuple(dataset.shape)
    chosen = names.choose_labels(place.name, there, names.unit_shapes(stored) if stored else [], asked, member)
    labels = there[chosen.name].shape if chosen.name is not None else None
    beside = [there[name].shape for name in ("delta", "predictions") if name in there and name != member]
    lengths = [there[name].shape[0] for name in _PER_CLASS if name in there and len(there[name].shape) == 1]
    stated = asked.class_axis
    if stated is not None and len(stored) != 4:
        names.refuse(names.Asked(class_axis=stated), place.name, "holds no images")
    if stated is None:
        stated = _int_attribute(where, dataset, "class_axis")
    if stated is None and labels is not None and labels not in names.unit_shapes(stored):
        stated = 1  # what is wrong with the labels is said below
    if len(stored) == 3 and labels in (stored, (stored[0], 1, *stored[1:])):
        stated = 0
    axis, notes = names.settle_axis(where, stored, stated, [labels or (), *beside], lengths)
    notes += names.check_turned(where, stored, labels, lengths)
    _check_stated(where, dataset, stored, axis)
    return chosen.name, schema.score_shape(where, stored, axis), encoding, (*chosen.notes, *notes)


def _check_stated(where: str, dataset: Any, shape: tuple[int, ...], axis: int) -> None:
    """Refuse an attribute n_classes that is another K than that of the shape."""
    stated = _int_attribute(where, dataset, "n_classes")
    if stated is not None and len(shape) in (2, 4) and -len(shape) <= axis < len(shape):
        n_classes = shape[axis]
        if stated != n_classes and (n_classes, stated) != (1, 2):
            raise DataError(where, f"attribute n_classes = {stated}", f"expected {n_classes}, as in {shape}")


def _encoding(dataset: Any) -> Encoding | None:
    if dataset.dtype.kind != "f":
        return None
    kind = dataset.id.get_type()
    encoding = _FLOATS.get(tuple(kind.get_fields()))
    if encoding is None or kind.get_size() != schema.score_dtype(encoding).itemsize:
        return None
    return encoding


def _int_attribute(where: str, dataset: Any, name: str) -> int | None:
    value = dataset.attrs.get(name)
    if value is None:
        return None
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "iu":
        raise DataError(where, f"attribute {name} = {value!r}", "expected an integer")
    return int(number.reshape(-1)[0])


def _array(
    place: _Place, member: str, dataset: Any, shape: schema.ScoreShape, *, is_scores: bool = False
) -> dict[str, Any]:
    """Say where a numeric array lies: its offset, or None when it must go through the library."""
    offset = dataset.id.get_offset()
    if h5py.h5o.get_info(dataset.id).fileno != h5py.h5o.get_info(place.file.id).fileno:
        offset = None  # reached through an external link: the offset counts in another file
    kind = dataset.id.get_type()
    size = kind.get_size()
    if isinstance(kind, h5py.h5t.TypeIntegerID) and kind.get_precision() != 8 * size:
        raise DataError(place.where(member), f"{kind.get_precision()}-bit integers", "expected whole bytes")
    if offset is not None:
        _check_extent(place, member, offset + dataset.size * size)
    half = dataset.dtype.kind == "f" and size == 2
    dtype = np.dtype(np.uint16) if half else dataset.dtype
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    big = kind.get_order() == h5py.h5t.ORDER_BE if half else dataset.dtype.byteorder == ">"
    return {
        "dataset": f"{place.path}/{member}",
        "offset": offset,
        "dtype": dtype.newbyteorder(">" if big else "<").str,
        "shape": tuple(dataset.shape),
        "image_axis": 2 if len(dataset.shape) == 4 and not (is_scores and shape.layout == "rows") else 1,
        "layout": place.layout(dataset),
    }


def _check_extent(place: _Place, member: str, end: int) -> None:
    if end > place.size:
        raise DataError(place.where(member), f"data up to byte {end:,} of {place.size:,}", "expected a complete file")


def _field(
    place: _Place, field: str, member: str, dataset: Any, shape: schema.ScoreShape, locator: dict[str, Any]
) -> Any:
    where = place.where(member)
    if field == "labels":
        schema.check_labels(where, dataset.shape, dataset.dtype, shape)
        return _array(place, member, dataset, shape)
    if field == "delta":
        return _delta(place, dataset, shape, locator)
    schema.check_per_sample(where, dataset.shape, shape.n_samples)
    schema.check_length(where, dataset.dtype)
    is_text = h5py.check_string_dtype(dataset.dtype) is not None
    if not is_text and (field != "sample_id" or dataset.dtype.kind not in "iu"):
        raise DataError(where, f"{dataset.dtype} values", "expected text")
    return {"dataset": f"{place.path}/{member}", "offset": None, "text": is_text}


def _delta(place: _Place, dataset: Any, shape: schema.ScoreShape, locator: dict[str, Any]) -> Any:
    where = place.where("delta")
    locator["delta"] = schema.check_delta(where, dataset.shape, dataset.dtype, shape)
    if dataset.dtype.kind == "f" and _encoding(dataset) in (None, "bfloat16"):
        raise DataError(where, "an unusual float type", "expected float16, float32 or float64")
    if locator["delta"] == "scalar":
        return {"value": float(dataset[()]), "offset": 0}
    entry = _array(place, "delta", dataset, shape)
    entry["dtype"] = np.dtype(entry["dtype"].replace("u2", "f2") if dataset.dtype.kind == "f" else entry["dtype"]).str
    return entry


def _vector(place: _Place, members: Sequence[str], n_classes: int, scores: Any) -> tuple[float, ...] | None:
    """(K,) numbers of a dataset, or of an attribute of the group or of the scores, of one of these names."""
    found = _stated(place, members, n_classes, scores)
    return None if found is None else schema.class_vector(*found, n_classes)


def _class_names(place: _Place, n_classes: int, scores: Any) -> tuple[str, ...] | None:
    found = _stated(place, ("class_names",), n_classes, scores)
    return None if found is None else schema.class_names(*found, n_classes)


def _stated(place: _Place, members: Sequence[str], n_classes: int, scores: Any) -> tuple[str, Any] | None:
    """Where a fact of the classes stands, and what is there: a dataset, or an attribute."""
    found = []
    for member in members:
        dataset = place.dataset(member)
        if dataset is not None:
            where = place.where(member)
            if member == "class_names":
                schema.check_names(where, dataset.shape, dataset.dtype, n_classes)
                found.append((where, _texts(where, dataset, 0, n_classes)))
            else:
                schema.check_vector(where, dataset.shape, dataset.dtype, n_classes)
                found.append((where, dataset[()]))
    for owner in (place.group, scores):
        found += [(place.where(f"attribute {name}"), owner.attrs[name]) for name in members if name in owner.attrs]
    if not found:
        return None
    first = np.asarray(found[0][1]).tolist()
    for where, values in found[1:]:
        if np.asarray(values).tolist() != first:
            raise DataError(where, f"something else than {found[0][0].rpartition(':')[2]}", "expected one of them")
    return found[0]


def _texts(where: str, dataset: Any, first: int, last: int) -> NDArray[Any]:
    """Entries of a column of text, (last - first,), a bounded number of bytes at a time."""
    kind = h5py.check_string_dtype(dataset.dtype)
    if kind is None:
        return np.asarray(dataset[first:last])
    step = _TEXTS if kind.length is None else max(1, _TEXT_BYTES // max(1, kind.length))
    pieces = [schema.text(where, dataset[at : min(at + step, last)]) for at in range(first, last, step)]
    return pieces[0] if len(pieces) == 1 else schema.text(where, np.concatenate(pieces))


def _checksums(dataset: Any) -> str:
    """What shows that a bit of the scores has changed."""
    plist = dataset.id.get_create_plist()
    codes = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())] if dataset.chunks else []
    if chunks.FLETCHER32 in codes:
        return "fletcher32"
    return "adler32" if chunks.DEFLATE in codes else "none"


def _storage(dataset: Any) -> str:
    if dataset.is_virtual:
        return "virtual"
    if dataset.external:
        return "external"
    if dataset.chunks is None:
        return "contiguous" if dataset.id.get_offset() is not None else "compact"
    phrase = f"chunked {dataset.chunks}"
    plist = dataset.id.get_create_plist()
    if plist.get_nfilters():
        filters = [plist.get_filter(index) for index in range(plist.get_nfilters())]
        short = {chunks.DEFLATE: "gzip", chunks.ZSTD: "zstd"}
        phrase += ", " + " + ".join(short.get(one[0], one[3].decode(errors="replace")) for one in filters)
    return phrase


def _attributes(group: Any) -> dict[str, str]:
    found, total = {}, 0
    for key in group.attrs:
        with contextlib.suppress(OSError, TypeError, ValueError, RuntimeError):
            value = group.attrs[key]
            if isinstance(value, str):
                found[str(key)] = value
                total += len(value)
        if total > MOST_PIECE:
            raise DataError(f"{group.file.filename}:{key}", f"{total:,} bytes of attributes", "expected short texts")
    return found


# ------------------------------------------------------------------------------------------------
# reading


def spans(source: Source, target_bytes: int) -> list[tuple[int, int]]:
    """Cut a source at chunks where there are any, at images where they fit, else inside images.

    Chunks that cut across many images are decoded again for each `MOST_BYTES` of scores they have a share in.
    """
    itemsize = np.dtype(source.locator["arrays"]["scores"]["dtype"]).itemsize
    unit_bytes = itemsize * (1 if source.kind == "predictions" else source.n_classes)
    stored = source.locator["chunks"]
    if not stored or source.locator["arrays"]["scores"]["layout"] is None:
        return schema.cut_spans(source.n_samples, source.pixels, unit_bytes, target_bytes, stored[0] if stored else 0)
    image_bytes = source.pixels * unit_bytes
    if stored[0] == 1 and source.pixels > 1 and image_bytes > target_bytes:
        height, width = source.image_shape
        rows = stored[source.locator["arrays"]["scores"]["image_axis"]]
        rows *= max(1, target_bytes // (rows * width * unit_bytes))
        edges = [*range(0, height, rows), height]
        return [
            (sample * source.pixels + a * width, sample * source.pixels + b * width)
            for sample in range(source.n_samples)
            for a, b in itertools.pairwise(edges)
        ]
    parts = -(-stored[0] * image_bytes // MOST_BYTES)
    return schema.cut_spans(source.n_samples, source.pixels, unit_bytes, target_bytes, -(-stored[0] // parts))


def read_path(source: Source) -> tuple[str, str]:
    """How scores are read (``contiguous``, ``chunks``, ``library``), and why that is slower than it could be, if so."""
    entry, chunk = source.locator["arrays"]["scores"], source.locator["chunks"]
    if not chunk:
        return ("contiguous" if entry["offset"] is not None else "library"), ""
    itemsize = np.dtype(entry["dtype"]).itemsize
    chunk_bytes = math.prod(chunk) * itemsize
    is_tiny = chunk_bytes < _TINY and source.locator["stored_bytes"] > chunk_bytes
    if entry["layout"] is None and is_tiny:
        return "library", f"chunks of {chunk_bytes:,} bytes cost more than they hold"
    if entry["layout"] is None:
        size = chunk_bytes > chunks.LARGEST
        what = f"chunks of {chunk_bytes >> 20} MB" if size else "chunks of this codec"
        return "library", f"{what} are decoded by the HDF5 library, one at a time"
    if source.kind != "predictions":
        band = chunk[0] * source.pixels * source.n_classes * itemsize
        if band > max(MOST_BYTES, chunk_bytes):
            return "chunks", "chunks hold small parts of many samples, and are decoded again for each few of these"
        if chunk[1 if source.layout == "planes" else -1] < source.n_classes:
            return "chunks", "chunks cut across the classes"
    if is_tiny:
        return "chunks", f"chunks of {chunk_bytes:,} bytes cost more than they hold"
    return "chunks", ""


def decoded_whole(source: Source) -> int:
    """Bytes of a chunk of scores, where it is so large that the library must decode it in one piece; else 0."""
    entry, chunk = source.locator["arrays"]["scores"], source.locator["chunks"]
    size = math.prod(chunk) * np.dtype(entry["dtype"]).itemsize if chunk else 0
    return size if entry["layout"] is None and size > chunks.LARGEST else 0


def open_reader(source: Source) -> Hdf5Reader:
    """Open a source for one thread."""
    return Hdf5Reader(source)


class Hdf5Reader:
    """Reads blocks of one source; libhdf5 is opened only when an array needs it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._arrays = source.locator["arrays"]
        self._buffers = schema.Buffers()
        self._library: Any = None
        self._closing = contextlib.ExitStack()
        self._datasets: dict[str, Any] = {}
        self._chunked: dict[str, chunks.ChunkReader] = {}
        expected = "expected an HDF5 file"
        self._file: storage.File = storage.open_file(
            source.name, source.locator["path"], source.locator["stamp"], expected
        )

    def blocks(self, start: int, stop: int, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """Units [start, stop); see `unoic_cli.block.Reader`."""
        for first, last in schema.pieces(start, stop, self._source.pixels, self._source.layout):
            block = LogitBlock(first, last)
            for name in fields:
                self._fill(block, name)
            yield block

    def close(self) -> None:
        """Let go of the file."""
        self._chunked.clear()
        self._datasets.clear()
        self._library = None
        self._closing.close()
        if self._file != -1:
            storage.close_file(self._file)
            self._file = -1

    def _fill(self, block: LogitBlock, name: str) -> None:
        start, stop = block.start, block.stop
        if name in _TEXT_FIELDS:
            setattr(block, name, self._text(name, start, stop))
        elif name == "delta":
            block.delta = self._delta(start, stop)
        elif name in ("labels", "predictions"):
            setattr(block, name, self._flat(name, start, stop))
        elif self._source.kind == "predictions":
            block.predictions = self._flat(name, start, stop)
        else:
            block.scores = self._scores(start, stop)

    def _where(self, name: str) -> str:
        return self._source.where(name)

    def _take(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        return self._buffers.take(name, shape, schema.native(self._arrays[name]["dtype"]))

    def _scores(self, start: int, stop: int) -> NDArray[Any]:
        source = self._source
        if source.layout == "rows":
            out = self._take("scores", (stop - start, source.n_classes))
            self._read_run("scores", start, stop, out)
        else:
            first, last = schema.samples_of(start, stop, source.pixels)
            out = self._take("scores", (last - first, source.n_classes, (stop - start) // (last - first)))
            if (stop - start) % source.pixels == 0:
                self._read_run("scores", start, stop, out)
            else:
                self._read_part(start, stop, out[0])
        return out.view(schema.score_dtype(source.encoding))

    def _flat(self, name: str, start: int, stop: int) -> NDArray[Any]:
        out = self._take(name, (stop - start,))
        self._read_run(name, start, stop, out)
        return out

    def _read_run(self, name: str, start: int, stop: int, out: NDArray[Any]) -> None:
        """Fill `out` with units that lie one behind the other in the file."""
        entry = self._arrays[name]
        if entry["offset"] is None:
            self._read_boxes(name, start, stop, out)
        else:
            unit_bytes = out.nbytes // (stop - start)
            schema.pread_into(self._where(name), self._file, out, entry["offset"] + start * unit_bytes)
        self._swap(entry, out)

    def _read_part(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Fill `out`, (K, P), with a part of one image: one strided run per class."""
        entry, pixels = self._arrays["scores"], self._source.pixels
        sample, pixel = divmod(start, pixels)
        if entry["offset"] is None:
            boxes = list(schema.boxes(start, stop, self._source.image_shape))
            if len(boxes) == 1:
                self._read_box("scores", boxes[0], out.reshape(-1))
                boxes = []
            at = 0
            for box in boxes:
                piece = self._read_box("scores", box).reshape(len(out), -1)
                out[:, at : at + piece.shape[1]] = piece
                at += piece.shape[1]
        else:
            for index, row in enumerate(out):
                at = ((sample * len(out) + index) * pixels + pixel) * out.itemsize
                schema.pread_into(self._where("scores"), self._file, row, entry["offset"] + at)
        self._swap(entry, out)

    def _read_boxes(self, name: str, start: int, stop: int, out: NDArray[Any]) -> None:
        flat, at = out.reshape(-1), 0
        image = self._source.image_shape if len(self._arrays[name]["shape"]) > 2 else ()
        for box in schema.boxes(start, stop, image):
            at += self._read_box(name, box, flat[at:]).size

    def _read_box(self, name: str, box: tuple[int, ...], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Read one hyperslab; file and memory have the same shape, else libhdf5 goes element by element."""
        entry = self._arrays[name]
        n0, n1, h0, h1, w0, w1 = box
        begin, count = [0] * len(entry["shape"]), list(entry["shape"])
        begin[0], count[0] = n0, n1 - n0
        if len(count) > 2:
            axis = entry["image_axis"]
            begin[axis : axis + 2], count[axis : axis + 2] = [h0, w0], [h1 - h0, w1 - w0]
        size = math.prod(count)
        out = np.empty(size, schema.native(entry["dtype"])) if out is None else out[:size]
        if entry["layout"] is None:
            self._read_slab(name, begin, count, out)
        else:
            self._chunk_reader(name).read(begin, count, out)
        return out

    def _read_slab(self, name: str, begin: Sequence[int], count: Sequence[int], out: NDArray[Any]) -> None:
        with self._read_errors(name):
            dataset = self._dataset(name).id
            space = dataset.get_space()
            space.select_hyperslab(tuple(begin), tuple(count))
            # the file's own type: no conversion, and bfloat16 passes as its bits
            dataset.read(h5py.h5s.create_simple(tuple(count)), space, out.reshape(count), dataset.get_type())

    def _chunk_reader(self, name: str) -> chunks.ChunkReader:
        if name in self._chunked:
            return self._chunked[name]
        entry, path, stamp = self._arrays[name], self._source.locator["path"], self._source.locator["stamp"]
        where, layout = self._where(name), entry["layout"]

        def make() -> chunks.ChunkMap:
            size = os.path.getsize(path) if isinstance(self._file, int) else self._file.size
            with self._opened() as file, _hdf5_errors(where):
                return chunks.make_map(where, file[entry["dataset"]], layout, size)

        found = chunks.shared_map((path, stamp, entry["dataset"]), make)

        def by_library(begin: Sequence[int], count: Sequence[int], out: NDArray[Any]) -> None:
            self._read_slab(name, begin, count, out)

        self._chunked[name] = chunks.ChunkReader(where, self._file, layout, found, by_library)
        return self._chunked[name]

    @staticmethod
    def _swap(entry: dict[str, Any], out: NDArray[Any]) -> None:
        if not np.dtype(entry["dtype"]).isnative:
            out.byteswap(inplace=True)

    def _delta(self, start: int, stop: int) -> NDArray[np.float64]:
        sort = self._source.locator["delta"]
        if sort == "scalar":
            return np.array([self._arrays["delta"]["value"]])
        if sort == "unit":
            return self._flat("delta", start, stop).astype(np.float64)
        pixels = self._source.pixels
        values = self._flat("delta", *schema.samples_of(start, stop, pixels)).astype(np.float64)
        return schema.per_unit(values, start, stop, pixels)

    def _text(self, name: str, start: int, stop: int) -> NDArray[Any]:
        first, last = schema.samples_of(start, stop, self._source.pixels)
        with self._read_errors(name):
            self._check_texts(name, first, last)
            values = _texts(self._where(name), self._dataset(name), first, last)
        return values if self._arrays[name]["text"] else values.astype(schema.native(values.dtype))

    def _check_texts(self, name: str, first: int, last: int) -> None:
        """Refuse lengths that no text has: the library makes room for whatever an entry says."""
        dataset = self._dataset(name)
        kind, offset = h5py.check_string_dtype(dataset.dtype), dataset.id.get_offset()
        if kind is None or kind.length is not None or offset is None or last <= first:
            return
        entries = np.empty((last - first, 4), dtype="<u4")  # length, place of the heap (8 bytes), number in it
        schema.pread_into(self._where(name), self._file, entries, offset + first * 16)
        longest = int(entries[:, 0].max())
        if longest > schema.LONGEST_TEXT and not dataset.file.userblock_size:
            most = f"expected at most {schema.LONGEST_TEXT:,}"
            raise DataError(self._where(name), f"a text of {longest:,} bytes", most)

    def _dataset(self, name: str) -> Any:
        if self._library is None:
            self._library = self._closing.enter_context(self._opened())
        if name not in self._datasets:
            self._datasets[name] = self._library[self._arrays[name]["dataset"]]
        return self._datasets[name]

    def _opened(self) -> contextlib.AbstractContextManager[Any]:
        """The file, opened by the library."""
        there = self._source.locator["path"] if isinstance(self._file, int) else self._file.as_file()
        return _opened(self._source.name, there, watched=not self._source.locator["allow_external"], most=None)

    @contextlib.contextmanager
    def _read_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except UnoicError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            reason = str(error).split("\n", maxsplit=1)[0]
            raise DataError(self._where(name), f"cannot be read ({reason})", "expected an intact file") from error


# ------------------------------------------------------------------------------------------------
# writing


def create(path: str, spec: OutputSpec, unfinished: str | None = None) -> Hdf5Writer:
    """Start an output file under a temporary name, or go on with one that a stopped process left.

    Raises
    ------
    CannotCreateError
        The folder is not writable.
    StorageError
        There is no room for the whole output.
    """
    return Hdf5Writer(path, spec, unfinished)


class _Skeleton(io.RawIOBase):
    """A file in memory that keeps only the metadata that libhdf5 writes, and where.

    The library never touches the disk: a full one can crash it, while our own writes just fail.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[int, bytes]] = []
        self.size = 0
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        """Where we are."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Set the size; nothing is stored for the gap."""
        self.size = self._at if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        """Keep a part."""
        part = bytes(data)
        self.parts.append((self._at, part))
        self._at += len(part)
        self.size = max(self.size, self._at)
        return len(part)

    def readinto(self, buffer: Any) -> int:
        """Give back what was written, later parts over earlier ones."""
        begin, end = self._at, self._at + len(buffer)
        out = bytearray(len(buffer))
        for at, part in self.parts:
            low, high = max(begin, at), min(end, at + len(part))
            if low < high:
                out[low - begin : high - begin] = part[low - at : high - at]
        buffer[:] = out
        self._at = end
        return len(out)

    def copy_to(self, output: schema.TemporaryOutput) -> None:
        """Write the metadata into the file itself."""
        for offset, part in self.parts:
            output.pwrite(part, offset)
        output.truncate(self.size)  # where nothing could be reserved


def write_columns(
    path: str, names: Sequence[str], n: int, attributes: Mapping[str, str], pieces: Iterable[Mapping[str, NDArray[Any]]]
) -> None:
    """Write float64 columns of n rows, piece by piece; all or nothing.

    Raises
    ------
    CannotCreateError, StorageError
        The file cannot be written.
    """
    skeleton, dtype = _Skeleton(), np.dtype("<f8")
    with h5py.File(skeleton, "w") as file:
        offsets = {name: _make(file, name, (n,), h5py.h5t.py_create(dtype)) for name in names}
        for name, text in attributes.items():
            file.attrs[name] = text
    output = schema.TemporaryOutput(path)
    try:
        output.reserve(0, skeleton.size)
        for piece in pieces:
            for name in names:
                data = np.ascontiguousarray(piece[name], dtype)
                output.pwrite(data, offsets[name])
                offsets[name] += data.nbytes
        skeleton.copy_to(output)
        output.commit()
    except BaseException:
        output.abort()
        raise


def _float_type(encoding: str) -> Any:
    if encoding != "bfloat16":
        return h5py.h5t.py_create(np.dtype(encoding).newbyteorder("<"))
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    kind.set_precision(16)
    kind.set_size(2)
    return kind


def _text_type(length: int) -> Any:
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(max(1, length))
    kind.set_cset(h5py.h5t.CSET_UTF8)
    kind.set_strpad(h5py.h5t.STR_NULLPAD)
    return kind


def _make(file: Any, name: str, shape: tuple[int, ...], kind: Any) -> int:
    """Make a contiguous dataset with a place in the file but no data; return its offset."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)  # the same content is the same bytes, whenever it is written
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)
    return int(dataset.get_offset())


class Hdf5Writer:
    """Writes blocks at the offsets of an allocated skeleton: any order, any thread."""

    ordered = False

    def __init__(self, path: str, spec: OutputSpec, unfinished: str | None = None) -> None:
        self._spec = spec
        self._pixels = math.prod(spec.image_shape)
        self._planes = spec.layout == "planes" and bool(spec.image_shape)
        self._offsets: dict[str, int] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._columns = {name: _column(spec, name) for name in _TEXT_FIELDS if name in spec.dtypes}
        self._lock = threading.Lock()
        self._written = 0
        self._skeleton = self._make_skeleton()
        with h5py.File(self._skeleton, "w") as file:
            self._build(path, file)
        self._output = schema.TemporaryOutput(path, unfinished)
        try:
            self._output.reserve(0, self._skeleton.size)
        except BaseException:
            self._output.abort()
            raise

    def _make_skeleton(self) -> Any:
        return _Skeleton()

    def _build(self, path: str, file: Any) -> None:
        spec = self._spec
        units = (spec.n_samples, *spec.image_shape)
        if spec.kind != "predictions":
            shape = (spec.n_samples, spec.n_classes, *spec.image_shape) if self._planes else (*units, spec.n_classes)
            self._make_scores(file, shape)
            if spec.image_shape:
                file[spec.kind].attrs["class_axis"] = 1 if self._planes else 3
        if spec.predictions or spec.kind == "predictions":
            self._add(file, "predictions", units, schema.prediction_dtype(spec.n_classes))
            file["predictions"].attrs["n_classes"] = spec.n_classes
        if "labels" in spec.dtypes:
            self._add(file, "labels", units, np.dtype(spec.dtypes["labels"]))
        if "delta" in spec.dtypes and spec.scalar_delta is None:
            shape = (spec.n_samples,) if spec.sample_delta else units
            self._add(file, "delta", shape, np.dtype(spec.dtypes["delta"]))
        self._small(path, file)

    def _make_scores(self, file: Any, shape: tuple[int, ...]) -> None:
        self._offsets["scores"] = _make(file, self._spec.kind, shape, _float_type(self._spec.encoding))

    def _small(self, path: str, file: Any) -> None:
        spec = self._spec
        if spec.scalar_delta is not None:
            file["delta"] = np.float64(spec.scalar_delta)
        for name in ("source_counts", "source_prior"):
            values = getattr(spec, name)
            if values is not None:
                file[name] = np.asarray(values, np.float64)
        if spec.class_names is not None:
            file.create_dataset("class_names", data=list(spec.class_names), dtype=h5py.string_dtype())
        file.attrs["unoic_schema"] = 1
        for key, value in spec.attributes.items():
            if key == "unoic_schema":
                continue
            try:
                if len(value) > MOST_TEXT:
                    raise ValueError
                file.attrs[key] = value
            except (OSError, RuntimeError, ValueError) as error:
                raise DataError(path, f"attribute {key} cannot be stored", "expected short text") from error

    def _add(self, file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._dtypes[name] = dtype.newbyteorder("<")
        self._offsets[name] = _make(file, name, shape, h5py.h5t.py_create(self._dtypes[name]))

    def write(self, block: LogitBlock) -> None:
        """Store a block; see `unoic_cli.block.Writer`."""
        if "scores" in self._offsets and block.scores is not None:
            self._write_scores(block.scores, block.start, block.stop)
        for name, dtype in self._dtypes.items():
            values = getattr(block, name)
            if values is not None:
                data, at = np.broadcast_to(values, (block.stop - block.start,)), block.start
                if name == "delta" and self._spec.sample_delta:  # that of the first pixel of each image
                    at = -(-block.start // self._pixels)
                    data = data[at * self._pixels - block.start :: self._pixels]
                self._output.pwrite(np.ascontiguousarray(data, dtype), self._offsets[name] + at * dtype.itemsize)
        first, _ = schema.samples_of(block.start, block.stop, self._pixels)
        with self._lock:
            self._written += block.stop - block.start
            for name, column in self._columns.items():
                values = getattr(block, name)
                if values is not None:
                    column.put(first, values)

    def _write_scores(self, scores: NDArray[Any], start: int, stop: int) -> None:
        spec = self._spec
        dtype = schema.score_dtype(spec.encoding).newbyteorder("<")
        if scores.dtype.kind == "f" and scores.dtype.itemsize == 2:
            scores = scores.view(np.uint16)
        if schema.native(scores.dtype) != schema.native(dtype):
            raise TypeError(f"a block of {scores.dtype} for {spec.encoding}")
        data = np.ascontiguousarray(scores, dtype)
        if not self._planes or (stop - start) % self._pixels == 0:
            unit_bytes = spec.n_classes * dtype.itemsize
            self._output.pwrite(data, self._offsets["scores"] + start * unit_bytes)
            return
        sample, pixel = divmod(start, self._pixels)
        for index, row in enumerate(data[0]):
            at = ((sample * spec.n_classes + index) * self._pixels + pixel) * dtype.itemsize
            self._output.pwrite(row, self._offsets["scores"] + at)

    @property
    def temporary(self) -> str:
        """The name of the unfinished file."""
        return self._output.temporary

    def flush(self) -> None:
        """Put on the disk what was written so far."""
        self._output.flush()

    def commit(self) -> None:
        """Add the text fields and the metadata, flush, and rename onto the final name."""
        units = self._spec.n_samples * self._pixels
        if self._written < units:
            raise ValueError(f"{self._written} of {units} units were written")
        texts = {name: column.encoded() for name, column in self._columns.items()}
        reserved = self._skeleton.size
        with h5py.File(self._skeleton, "r+") as file:
            for name, values in texts.items():
                is_text = values.dtype.kind == "S"
                kind = _text_type(values.dtype.itemsize) if is_text else h5py.h5t.py_create(values.dtype)
                self._offsets[name] = _make(file, name, values.shape, kind)
        self._output.reserve(reserved, self._skeleton.size)
        for name, values in texts.items():
            self._output.pwrite(values.view(np.uint8), self._offsets[name])
        self._skeleton.copy_to(self._output)
        self._output.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._output.abort()


class _Codes:
    """A text column of few distinct values: one small integer per sample."""

    def __init__(self, n_samples: int) -> None:
        self._codes = np.zeros(n_samples, np.int32)
        self._known: dict[str, int] = {"": 0}

    def put(self, first: int, values: NDArray[Any]) -> None:
        """Keep the values of consecutive samples."""
        codes = [self._known.setdefault(value, len(self._known)) for value in values.tolist()]
        self._codes[first : first + len(codes)] = codes

    def encoded(self) -> NDArray[Any]:
        """Fixed-length UTF-8."""
        return np.array([value.encode() for value in self._known])[self._codes]


class _Texts:
    """A text column of distinct values, as fixed-length UTF-8 that widens when it must."""

    def __init__(self, n_samples: int) -> None:
        self._values = np.zeros(n_samples, "S1")

    def put(self, first: int, values: NDArray[Any]) -> None:
        """Keep the values of consecutive samples."""
        encoded = np.array([value.encode() for value in schema.text("sample_id", values)])
        if encoded.dtype.itemsize > self._values.dtype.itemsize:
            self._values = self._values.astype(encoded.dtype)
        self._values[first : first + len(encoded)] = encoded

    def encoded(self) -> NDArray[Any]:
        """Fixed-length UTF-8."""
        return self._values


class _Integers:
    """A column of integers."""

    def __init__(self, n_samples: int, dtype: np.dtype[Any]) -> None:
        self._values = np.zeros(n_samples, dtype.newbyteorder("<"))

    def put(self, first: int, values: NDArray[Any]) -> None:
        """Keep the values of consecutive samples."""
        self._values[first : first + len(values)] = values

    def encoded(self) -> NDArray[Any]:
        """Little-endian integers."""
        return self._values


def _column(spec: OutputSpec, name: str) -> _Codes | _Texts | _Integers:
    if name != "sample_id":
        return _Codes(spec.n_samples)
    if spec.dtypes[name] in ("str", "object") or np.dtype(spec.dtypes[name]).kind not in "iu":
        return _Texts(spec.n_samples)
    return _Integers(spec.n_samples, np.dtype(spec.dtypes[name]))
