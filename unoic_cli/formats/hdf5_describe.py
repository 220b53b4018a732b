"""The scores of an HDF5 file and all that lies beside them, found without reading them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from unoic_cli import storage
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import chunks, hdf5_files, names, schema
from unoic_cli.formats.block import FIELDS, Encoding, Kind
from unoic_cli.formats.flat import TEXT_FIELDS
from unoic_cli.formats.hdf5 import Hdf5
from unoic_cli.formats.source import Stored
from unoic_cli.formats.watched import MOST_PIECE

_FLOATS: dict[tuple[int, ...], Encoding] = {
    (15, 10, 5, 0, 10): "float16",
    (15, 7, 8, 0, 7): "bfloat16",
    (31, 23, 8, 0, 23): "float32",
    (63, 52, 11, 0, 52): "float64",
}
"""Encodings by where sign, exponent and mantissa lie: h5py shows a bfloat16 dataset as float32."""

_NOTHING = names.Asked()
_MOST_OTHERS = 100
"""Datasets that are named as not carried over, at most."""
_PER_CLASS = (*names.COUNTS, "source_prior", "class_names")
_TEXTS = 16
"""Texts of variable length that are read at once: each may say that it is as long as a heap."""
_TEXT_BYTES = 16 << 20
"""Of texts of fixed length."""


def describe(name: str, path: str, group: str, *, allow_external: bool = False, asked: names.Asked = _NOTHING) -> Hdf5:
    """Find the scores of a file; see `unoic_cli.formats.source.FileSource.describe`."""
    if storage.is_remote(path) and allow_external:
        raise UsageError(name, "a remote file with --allow-external", "expected local files with it")
    with (
        storage.described(path) as (there, stamp, size),
        hdf5_files.opened(name, there, watched=not allow_external) as file,
        hdf5_files.damaged(name),
    ):
        place, split = _placed(name, file, group, allow_external, size, asked)
        return _describe(place, path, stamp, asked, split)


def parts(name: str, path: str, group: str, asked: names.Asked) -> list[str]:
    """What a group holds several data sets under; see `unoic_cli.formats.source.FileSource.parts`."""
    with hdf5_files.opened(name, path, watched=True) as file, hdf5_files.damaged(name):
        root = hdf5_files.Place(name, file, "/", False)
        if not isinstance(root.follow(group, name), h5py.Group):
            return []
        place = hdf5_files.Place(name, file, group, False)
        listed = place.group.attrs.get("unoic_parts")
        if listed is not None:
            return list(schema.text(f"{name}:unoic_parts", np.asarray(listed, object).reshape(-1)))
        return names.parts(place.members(), asked)


def _placed(
    name: str, file: Any, group: str, allow_external: bool, size: int, asked: names.Asked
) -> tuple[hdf5_files.Place, str]:
    """The group that is described, and the split whose arrays are meant, where names tell splits apart."""
    root = hdf5_files.Place(name, file, "/", allow_external, size)
    if root.follow(group, name) is None:  # the part of a group that only names tell apart
        above, _, split = group.rstrip("/").rpartition("/")
        if isinstance(root.follow(above or "/", name), h5py.Group):
            place = hdf5_files.Place(name, file, above or "/", allow_external, size)
            if split in names.parts(place.members(), asked):
                return place, split
    place = hdf5_files.Place(name, file, group, allow_external, size)
    splits = [] if place.chosen else names.parts(place.members(), asked)
    if len(splits) > 1:
        expected = f"expected {_part(name, splits[0])}"
        raise DataError(name, f"{len(splits)} parts ({', '.join(splits)})", expected)
    return place, splits[0] if splits else ""


def _part(name: str, part: str) -> str:
    """The name of a part of a file or of a group."""
    return f"{name.rstrip('/')}{'/' if storage.split_name(name)[1] != '/' else '::'}{part}"


def _describe(place: hdf5_files.Place, path: str, stamp: Any, asked: names.Asked, split: str) -> Hdf5:
    everything = place.members()
    real = names.of_split(everything, split) if split else {name: name for name in everything}
    there = {name: everything[stored] for name, stored in real.items()}
    called, kind, notes = _find_scores(place, there, asked)
    member = real.get(called, called)
    dataset = place.dataset(member, is_array=True)
    if dataset is None:
        raise DataError(place.where(member), "a link that leads nowhere", "expected a dataset")
    labels, shape, encoding, more = _score_facts(place, there, called, member, kind, dataset, asked)
    arrays = {"scores": _array(place, member, dataset, shape, is_scores=kind != "predictions")}
    members = {"scores": member, "labels": real.get(labels or "", labels or "labels")}
    for field in FIELDS:
        if field == "labels" and asked.beside is not None:
            continue
        stored = members.get(field) or real.get(field, field)
        found = place.dataset(stored, is_array=field not in TEXT_FIELDS)
        if found is not None:
            arrays[field] = _field(place, field, stored, found, shape)
    fields = frozenset(arrays) - {"scores"}
    others = tuple(itertools.islice(_others(place, set(members.values())), _MOST_OTHERS))
    has_predictions = kind != "predictions" and member != "predictions" and _add_predictions(place, shape, arrays)
    return Hdf5(
        name=place.name,
        format=Hdf5.NAME,
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
        members={role: name for role, name in members.items() if name != {"scores": kind}.get(role, role)},
        notes=(*notes, *more),
        undecided=kind is None,
        has_predictions=has_predictions,
        others=others,
        stored_bytes=dataset.id.get_storage_size(),
        checksums=_checksums(dataset),
        constants={"split": split} if split and "split" not in fields else {},
        path=path if storage.is_remote(path) else os.path.abspath(path),
        stamp=stamp,
        arrays=arrays,
        delta=schema.sort_of_delta(arrays["delta"].shape, shape) if "delta" in arrays else "",
        chunks=tuple(dataset.chunks or ()),
        allow_external=place.allow_external,
    )


def _others(place: hdf5_files.Place, used: set[str]) -> Iterator[str]:
    """Datasets of the group that are not read; links are not followed."""
    ours = {*used, *_PER_CLASS, "delta", *TEXT_FIELDS, "predictions"}
    for name in place.group:
        if name not in ours and isinstance(place.group.get(name, getlink=True), h5py.HardLink):
            with contextlib.suppress(KeyError, OSError, RuntimeError):
                if place.group.get(name, getclass=True) is h5py.Dataset:
                    yield name


def _add_predictions(place: hdf5_files.Place, shape: schema.ScoreShape, arrays: dict[str, Stored]) -> bool:
    """Whether usable predictions lie beside the scores; those that do not fit the scores are left alone."""
    with contextlib.suppress(DataError):
        dataset = place.dataset("predictions", is_array=True)
        units = (shape.n_samples, *shape.image_shape)
        if dataset is not None and dataset.dtype.kind in "iub" and tuple(dataset.shape) == units:
            schema.check_holds("predictions", dataset.dtype, shape.known_classes)
            arrays["predictions"] = _array(place, "predictions", dataset, shape)
            return True
    return False


def _find_scores(
    place: hdf5_files.Place, there: dict[str, names.Facts], asked: names.Asked
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
    expected = f"{hdf5_files.EXPECTED_SCORES}, or --logits-key NAME"
    if hint:
        expected = f"{hdf5_files.EXPECTED_SCORES}; try {storage.split_name(place.name)[0]}::{hint.lstrip('/')}"
    raise DataError(place.name, f"no scores among: {hdf5_files.listing(place.group)}", expected)


def _group_with_scores(group: Any, depth: int = 3) -> str:
    """Path of a subgroup that has scores, or an empty string; links are not followed."""
    for name in sorted(group)[:1000]:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        if not isinstance(group[name], h5py.Group):
            continue
        if any(names.is_scores(member) for member in itertools.islice(group[name], hdf5_files.MOST_MEMBERS)):
            return str(group[name].name)
        deeper = _group_with_scores(group[name], depth - 1) if depth else ""
        if deeper:
            return deeper
    return ""


def _score_facts(
    place: hdf5_files.Place,
    there: dict[str, names.Facts],
    called: str,
    member: str,
    kind: Kind | None,
    dataset: Any,
    asked: names.Asked,
) -> tuple[str | None, schema.ScoreShape, Encoding, tuple[str, ...]]:
    """Member of the labels, the shape and encoding of the scores, and what to say of the way they were found."""
    where = place.where(member)
    if kind == "predictions":
        names.refuse(
            replace(asked, logits_key=None, labels_key=None, labels_file=None), place.name, "holds predictions"
        )
        n_classes = _int_attribute(where, dataset, "n_classes")
        if n_classes is None:
            raise DataError(where, "no attribute n_classes", "expected the number of classes K")
        schema.check_integers(where, dataset.dtype)
        schema.check_holds(where, dataset.dtype, n_classes)
        shape = schema.prediction_shape(where, dataset.shape, n_classes)
        units: list[tuple[int, ...]] = [(shape.n_samples, *shape.image_shape), (shape.n_samples, 1, *shape.image_shape)]
        chosen = _choose_labels(place, there, units, asked, called)
        return chosen.name, shape, "float32", chosen.notes
    encoding = _encoding(dataset)
    if encoding is None:
        raise DataError(where, f"{dataset.dtype} values", f"expected {', '.join(schema.SCORE_DTYPES)}")
    stored = tuple(dataset.shape)
    chosen = _choose_labels(place, there, names.unit_shapes(stored) if stored else [], asked, called)
    labels = there[chosen.name].shape if chosen.name is not None else None
    labels = labels if asked.beside is None else asked.beside.shape
    beside = [there[name].shape for name in ("delta", "predictions") if name in there and name != called]
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


def _choose_labels(
    place: hdf5_files.Place,
    there: dict[str, names.Facts],
    units: Sequence[tuple[int, ...]],
    asked: names.Asked,
    scores: str,
) -> names.Chosen:
    """The member of the labels; none where they lie in another file."""
    if asked.beside is not None:
        return names.Chosen(None, None, ())
    return names.choose_labels(place.name, there, units, asked, scores)


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
    place: hdf5_files.Place, member: str, dataset: Any, shape: schema.ScoreShape, *, is_scores: bool = False
) -> Stored:
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
    return Stored(
        member=f"{place.path}/{member}",
        offset=offset,
        dtype=dtype.newbyteorder(">" if big else "<").str,
        shape=tuple(dataset.shape),
        image_axis=2 if len(dataset.shape) == 4 and not (is_scores and shape.layout == "rows") else 1,
        layout=place.layout(dataset),
    )


def _check_extent(place: hdf5_files.Place, member: str, end: int) -> None:
    if end > place.size:
        raise DataError(place.where(member), f"data up to byte {end:,} of {place.size:,}", "expected a complete file")


def _field(place: hdf5_files.Place, field: str, member: str, dataset: Any, shape: schema.ScoreShape) -> Stored:
    where = place.where(member)
    if field == "labels":
        schema.check_labels(where, dataset.shape, dataset.dtype, shape)
        return _array(place, member, dataset, shape)
    if field == "delta":
        return _delta(place, dataset, shape)
    schema.check_per_sample(where, dataset.shape, shape.n_samples)
    schema.check_length(where, dataset.dtype)
    is_text = h5py.check_string_dtype(dataset.dtype) is not None
    if not is_text and (field != "sample_id" or dataset.dtype.kind not in "iu"):
        raise DataError(where, f"{dataset.dtype} values", "expected text")
    return Stored(member=f"{place.path}/{member}", is_text=is_text)


def _delta(place: hdf5_files.Place, dataset: Any, shape: schema.ScoreShape) -> Stored:
    where = place.where("delta")
    sort = schema.check_delta(where, dataset.shape, dataset.dtype, shape)
    if dataset.dtype.kind == "f" and _encoding(dataset) in (None, "bfloat16"):
        raise DataError(where, "an unusual float type", "expected float16, float32 or float64")
    if sort == "scalar":
        return Stored(value=float(dataset[()]), offset=0)
    entry = _array(place, "delta", dataset, shape)
    dtype = entry.dtype.replace("u2", "f2") if dataset.dtype.kind == "f" else entry.dtype
    return replace(entry, dtype=np.dtype(dtype).str)


def _vector(place: hdf5_files.Place, members: Sequence[str], n_classes: int, scores: Any) -> tuple[float, ...] | None:
    """(K,) numbers of a dataset, or of an attribute of the group or of the scores, of one of these names."""
    found = _stated(place, members, n_classes, scores)
    return None if found is None else schema.class_vector(*found, n_classes)


def _class_names(place: hdf5_files.Place, n_classes: int, scores: Any) -> tuple[str, ...] | None:
    found = _stated(place, ("class_names",), n_classes, scores)
    return None if found is None else schema.class_names(*found, n_classes)


def _stated(place: hdf5_files.Place, members: Sequence[str], n_classes: int, scores: Any) -> tuple[str, Any] | None:
    """Where a fact of the classes stands, and what is there: a dataset, or an attribute."""
    found = []
    for member in members:
        dataset = place.dataset(member)
        if dataset is not None:
            where = place.where(member)
            if member == "class_names":
                schema.check_names(where, dataset.shape, dataset.dtype, n_classes)
                found.append((where, texts(where, dataset, 0, n_classes)))
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


def texts(where: str, dataset: Any, first: int, last: int) -> NDArray[Any]:
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
