"""Arrays beside scores: coordinates, and what is drawn beneath them, from HDF5 or npz files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli import formats, storage
from unoic_cli.errors import DataError

MOST_BYTES = 64 << 20
"""Of an array that is drawn."""


def read_arrays(name: str, members: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Small arrays of an HDF5 file (``FILE`` or ``FILE::GROUP``), or of an npz file.

    Parameters
    ----------
    name : str
    members : sequence of str
        Their names.

    Raises
    ------
    UnoicError
        The file cannot be read, or is of another format; an array is missing, too large, or no array of numbers.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "x.npz")
    ...     np.savez(path, points=[[0.0, 1.0]])
    ...     read_arrays(path, ["points"])["points"].tolist()
    [[0.0, 1.0]]
    """
    path, group = storage.split_name(name)
    storage.refuse_remote(path, "file of arrays")
    form = formats.detect(name)
    if form == "hdf5":
        return _of_hdf5(name, path, group, members)
    if form == "npz":
        return {member: _of_npz(path, member) for member in members}
    raise DataError(name, f"a {form} file", f"expected {' and '.join(members)} in an HDF5 or npz file")


def _of_hdf5(name: str, path: str, group: str, members: Sequence[str]) -> dict[str, NDArray[Any]]:
    from unoic_cli.formats import hdf5_files

    with hdf5_files.damaged(name), hdf5_files.opened(name, path, watched=True) as file:
        place = hdf5_files.Place(name, file, group, allow_external=False)
        found = {}
        for member in members:
            dataset = place.dataset(member)
            if dataset is None:
                raise _missing(name, member, hdf5_files.listing(place.group))
            _check(f"{name}:{member}", dataset.shape, dataset.dtype)
            found[member] = np.asarray(dataset[()])
        return found


def _of_npz(path: str, member: str) -> NDArray[Any]:
    from unoic_cli.formats import numpy_files

    there = numpy_files.members(path)
    if member not in there:
        raise _missing(path, member, ", ".join(list(there)[:20]) or "nothing")
    _check(f"{path}:{member}", *there[member])
    return numpy_files.read(path, member)


def _missing(name: str, member: str, listed: str) -> DataError:
    shape = {"points": "points (N, 2)", "labels": "labels (N,)"}.get(member, member)
    return DataError(name, f"no array {member}", f"expected {shape} in the file; it has: {listed}")


def _check(where: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "fiu":
        raise DataError(where, f"dtype {dtype}", "expected an array of numbers")
    size = math.prod(shape) * dtype.itemsize
    if size > MOST_BYTES:
        raise DataError(where, f"{size:,} bytes", f"expected at most {MOST_BYTES >> 20} MB to be drawn")
