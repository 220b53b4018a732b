"""HDF5 data that lies in other files: HDF5 fills with zeros what is not there, so all of it is looked for first."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import h5py

from unoic_cli.errors import DataError

_DEEPEST = 8
"""Virtual datasets of virtual datasets."""


def is_allocated(dataset: Any) -> bool:
    """Whether all of a dataset's storage was ever written."""
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() > 0)
    needed = math.prod(-(-extent // chunk) for extent, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return bool(dataset.id.get_num_chunks() >= needed)


def check_present(where: str, dataset: Any, depth: int = 0) -> None:
    """Refuse a dataset, parts of which would be read as its fill value because their bytes are nowhere.

    Parameters
    ----------
    where : str
        ``FILE:DATASET``, for messages.
    dataset : h5py.Dataset
        Of any layout; what it refers to in other files is opened.
    depth : int
        Virtual datasets that lead here.

    Raises
    ------
    DataError
        Storage was never written, a source is missing or too short, or no source is named for a part.
    """
    if not dataset.size:
        return
    plist = dataset.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL:
        _check_virtual(where, dataset, plist, depth)
    elif plist.get_external_count():
        _check_external(where, dataset, plist)
    elif not is_allocated(dataset):
        raise DataError(where, "storage that was never written (it would read as zeros)", "expected a complete file")


def _check_external(where: str, dataset: Any, plist: Any) -> None:
    left = dataset.size * dataset.id.get_type().get_size()
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX", "")
    origin = os.path.dirname(os.path.abspath(dataset.file.filename))
    for index in range(plist.get_external_count()):
        stored, offset, size = plist.get_external(index)
        name = os.fsdecode(stored)
        path = name if os.path.isabs(name) else os.path.join(prefix.replace("${ORIGIN}", origin), name)
        part = left if size == h5py.h5f.UNLIMITED else min(left, size)
        if not os.path.isfile(path):
            raise DataError(where, f"its bytes lie in {name}, which is not there", "expected that file beside it")
        there = os.path.getsize(path)
        if offset + part > there:
            found = f"bytes up to {offset + part:,} of {name}, which has {there:,} (the rest would read as zeros)"
            raise DataError(where, found, "expected all of the data")
        left -= part
    if left > 0:
        raise DataError(where, f"{left:,} bytes for which no file is named", "expected all of the data")


def _check_virtual(where: str, dataset: Any, plist: Any, depth: int) -> None:
    if depth >= _DEEPEST:
        raise DataError(where, f"virtual datasets in virtual datasets, {depth} deep", "expected data")
    covered = h5py.h5s.create_simple(dataset.shape)
    covered.select_none()
    for index in range(plist.get_virtual_count()):
        place = plist.get_virtual_vspace(index)
        name, member = plist.get_virtual_filename(index), plist.get_virtual_dsetname(index)
        wanted = plist.get_virtual_srcspace(index)
        if "%" in name or _is_unlimited(place) or _is_unlimited(wanted):
            expected = "expected sources of fixed names and sizes"
            raise DataError(where, f"a virtual dataset whose sources ({name}:{member}) may be any number", expected)
        points = dataset.size if place.get_select_type() == h5py.h5s.SEL_ALL else place.get_select_npoints()
        _check_source(where, dataset, name, member, (wanted, points), depth)
        _add(covered, place)
    missing = dataset.size - covered.get_select_npoints()
    if missing:
        expected = "expected a source for every part (the rest would read as zeros)"
        raise DataError(where, f"a virtual dataset with {missing:,} values of no source", expected)


def _is_unlimited(space: Any) -> bool:
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return False
    _, _, count, block = space.get_regular_hyperslab()
    return h5py.h5s.UNLIMITED in (*count, *block)


def _add(covered: Any, place: Any) -> None:
    """Add a selection to another."""
    kind = place.get_select_type()
    if kind == h5py.h5s.SEL_ALL:
        covered.select_all()
        return
    if kind != h5py.h5s.SEL_HYPERSLABS:
        return
    if place.is_regular_hyperslab():
        start, stride, count, block = place.get_regular_hyperslab()
        covered.select_hyperslab(start, count, stride, block, op=h5py.h5s.SELECT_OR)
        return
    for first, last in place.get_select_hyper_blocklist():
        size = tuple(int(b) - int(a) + 1 for a, b in zip(first, last, strict=True))
        covered.select_hyperslab(tuple(map(int, first)), (1,) * len(size), None, size, op=h5py.h5s.SELECT_OR)


def _check_source(where: str, dataset: Any, name: str, member: str, wanted: tuple[Any, int], depth: int) -> None:
    """Refuse a source that is not there, not a dataset, or smaller than what is taken of it."""
    said = f"{name}:{member.lstrip('/')}"
    with _source_file(dataset, name) as file:
        if file is None:
            found = f"its source {name} is missing or no HDF5 file (it would read as zeros)"
            raise DataError(where, found, "expected all sources of a virtual dataset")
        source = file.get(member)
        if not isinstance(source, h5py.Dataset):
            raise DataError(where, f"its source {said} is not there (it would read as zeros)", "expected a dataset")
        _check_reach(where, said, source, *wanted)
        check_present(f"{where} (source {said})", source, depth + 1)


def _check_reach(where: str, said: str, source: Any, wanted: Any, points: int) -> None:
    """Refuse a source that ends before the selection (or all of it, which is `points` values) does."""
    shape = tuple(source.shape or ())
    if wanted.get_select_type() == h5py.h5s.SEL_ALL:
        fits, needed = source.size == points, f"{points:,} values"
    else:
        last = tuple(map(int, wanted.get_select_bounds()[1]))
        fits = len(shape) == len(last) and all(a < b for a, b in zip(last, shape, strict=True))
        needed = str(tuple(a + 1 for a in last))
    if not fits:
        found = f"its source {said} has shape {shape}, but {needed} is taken of it (the rest would read as zeros)"
        raise DataError(where, found, "expected whole sources")


@contextlib.contextmanager
def _source_file(dataset: Any, name: str) -> Iterator[Any]:
    """The file of a source, looked for where the HDF5 library looks; None when it is nowhere."""
    if name == ".":
        yield dataset.file
        return
    for path in _places(name, dataset.file.filename):
        try:
            file = h5py.File(path, "r", locking="best-effort")
        except OSError:
            continue
        with file:
            yield file
        return
    yield None


def _places(name: str, main: str) -> list[str]:
    folder = os.path.dirname(os.path.abspath(main))
    real = os.path.dirname(os.path.realpath(main))
    prefixes = [prefix for prefix in os.environ.get("HDF5_VDS_PREFIX", "").split(":") if prefix]
    absolute = [name] if os.path.isabs(name) else []
    base = os.path.basename(name) if absolute else name
    origins = [prefix.replace("${ORIGIN}", folder) for prefix in prefixes]
    return [*absolute, *(os.path.join(one, base) for one in (*origins, folder, "", real))]
