"""Images of the samples: arrays in HDF5, npy and npz files or in memory, and PNG or JPEG files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli import formats, storage
from unoic_cli.errors import DataError, NoInputError
from unoic_cli.formats import boxes, numpy_files, schema
from unoic_cli.storage import witness
from unoic_cli.storage.whole import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.formats.block import Source

NAME = "image"
"""Of the array that holds the images of the samples."""
SUFFIXES = (".png", ".jpg", ".jpeg")
EXPECTED = "expected images, (N, H, W, 3) or (N, H, W), in HDF5, npy or npz, or PNG and JPEG files"
_PLAIN = ("L", "I", "F", "I;16", "RGB")
"""Modes of Pillow that need no conversion."""
_SHAPE = "expected (N, H, W, 3), (N, 3, H, W) or (N, H, W)"


@dataclass(frozen=True)
class Pictures:
    """Images that are read one by one.

    Attributes
    ----------
    name : str
        For messages.
    n : int
        How many there are.
    read : callable
        The i-th as it is stored, from 0.
    files : tuple of str
        What is read.
    """

    name: str
    n: int
    read: Callable[[int], NDArray[Any]]
    files: tuple[str, ...] = ()

    def image(self, i: int) -> NDArray[Any]:
        """The i-th image: (H, W, 3) uint8, or (H, W) of numbers.

        Raises
        ------
        DataError, StorageError
            It cannot be read, or is none.
        """
        return _as_image(self.name, self.read(i))


def of_array(array: NDArray[Any], name: str) -> Pictures:
    """Images in memory.

    Raises
    ------
    DataError
        Another shape, or no numbers.

    Examples
    --------
    >>> of_array(np.zeros((2, 3, 4, 3)), "images").image(1).shape
    (3, 4, 3)
    """
    check(name, array.shape, array.dtype)
    return Pictures(name, len(array), lambda i: array[i])


def is_image(shape: Sequence[int] | None, dtype: np.dtype[Any]) -> bool:
    """Whether an array of a shape and type may be one of images."""
    coloured = shape is not None and len(shape) == 4 and (shape[3] in (1, 3) or shape[1] in (1, 3))
    return shape is not None and dtype.kind in "buif" and (coloured or len(shape) == 3)


def check(name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Refuse an array that is none of images."""
    if not is_image(shape, dtype):
        raise DataError(name, f"an array of shape {tuple(shape)}, {dtype}", _SHAPE)


def _as_image(name: str, stored: NDArray[Any]) -> NDArray[Any]:
    """An image as it is drawn; of one channel, as numbers."""
    if stored.ndim == 3 and stored.shape[2] not in (1, 3):
        stored = np.moveaxis(stored, 0, 2)
    if stored.ndim == 3 and stored.shape[2] == 1:
        stored = stored[..., 0]
    return stored if stored.ndim == 2 else _as_bytes(name, stored)


def _as_bytes(name: str, stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours in 0 ... 255: of floats up to 1, and of wider integers, the share of the largest."""
    if stored.dtype == np.uint8:
        return stored
    known = np.iinfo(stored.dtype).max if stored.dtype.kind in "iu" else 1
    low, high = (float(stored.min()), float(stored.max())) if stored.size else (0.0, 0.0)
    if stored.dtype.kind == "b" or (stored.dtype.kind == "f" and low >= 0 and high <= 1):
        largest = 1
    elif low >= 0 and high <= 255:
        largest = 255
    elif stored.dtype.kind == "u":
        largest = int(known)
    else:
        raise DataError(name, f"colours from {low:g} to {high:g}", "expected them in 0 ... 1, or in 0 ... 255")
    return np.rint(stored.astype(np.float64) * (255 / largest)).astype(np.uint8)


def of_files(files: Sequence[str], name: str) -> Pictures:
    """Images that are PNG or JPEG files of their own, in this order."""
    return Pictures(name, len(files), lambda i: _decoded(files[i]), tuple(files))


def _decoded(path: str) -> NDArray[Any]:
    """Colours as (H, W, 3), shades of grey and measurements as (H, W)."""
    from PIL import Image

    with os.fdopen(open_regular(path, EXPECTED), "rb") as file:
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                return np.asarray(image if image.mode in _PLAIN else image.convert("RGB"))
        except Exception as error:  # whatever a decoder raises on damaged bytes
            raise DataError(path, f"no image that can be read ({error})", "expected PNG or JPEG") from None


def opened(name: str, also: str | None = None) -> Pictures:
    """Images that are an array of a file.

    Parameters
    ----------
    name : str
        ``FILE``, or ``FILE::DATASET``.
    also : str, optional
        What else the array may be called, besides `NAME`, where none is named.

    Raises
    ------
    NoInputError, DataError
        Nothing is there, or no images.
    """
    path, member = storage.split_name(name)
    storage.refuse_remote(path, "file of images")
    if not os.path.exists(path):
        raise NoInputError(name, "no such file", EXPECTED)
    kind = formats.detect(path)
    if kind not in ("hdf5", "npz", "npy"):
        raise DataError(name, f"a {kind} file", EXPECTED)
    group, _, chosen = member.strip("/").rpartition("/") if kind == "hdf5" else ("", "", member.strip("/"))
    found = _listed(name, path, kind, group)
    fit = {key for key, one in found.items() if is_image(*one)}
    chosen = chosen or _choose(name, fit or (set(found) if len(found) == 1 else fit), also)
    if chosen not in found:
        raise DataError(name, f"no array {chosen}", f"expected one of {', '.join(sorted(found)[:20])}")
    return _opened(path, kind, group, chosen, *found[chosen])


def beside(source: Source) -> Pictures | None:
    """Images that lie beside the scores of a source, under `NAME`; None where there are none."""
    path, group = storage.split_name(source.name)
    if source.format not in ("hdf5", "npz") or storage.is_remote(path):
        return None
    found = _listed(source.name, path, source.format, group)
    if NAME not in found or not is_image(*found[NAME]):
        return None
    return _opened(path, source.format, group, NAME, *found[NAME])


def _choose(name: str, there: set[str], also: str | None) -> str:
    """The array that is meant where none is named."""
    if NAME in there or also in there:
        return NAME if NAME in there else str(also)
    if len(there) != 1:
        found = f"{len(there)} arrays that may be images" + (f" ({', '.join(sorted(there)[:8])})" if there else "")
        raise DataError(name, found, "expected FILE::DATASET of the images")
    return there.pop()


def _listed(name: str, path: str, kind: str, group: str) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shapes and types of the arrays of a file, or of a group of it."""
    if kind != "hdf5":
        return numpy_files.members(path)
    from unoic_cli.formats import hdf5_files

    with hdf5_files.opened(name, path, watched=True) as file, hdf5_files.damaged(name):
        place = hdf5_files.Place(name, file, group or "/", False)
        return {key: (one.shape, one.dtype) for key, one in place.members().items() if one.dtype is not None}


def _opened(
    path: str, kind: str, group: str, member: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Pictures:  # fmt: skip
    name = path if kind == "npy" else f"{path}::{group.strip('/')}/{member}".replace("::/", "::")
    check(name, shape, dtype)
    if kind == "hdf5":
        return Pictures(
            name, shape[0], partial(_from_hdf5, name, path, storage.local_stamp(path), group, member), (path,)
        )
    return Pictures(name, shape[0], _Rows(name, path, member, shape, dtype).read, (path,))


def _from_hdf5(name: str, path: str, stamp: Any, group: str, member: str, i: int) -> NDArray[Any]:
    """One image of a dataset; the file is opened for a moment only."""
    from unoic_cli.formats import hdf5_files

    witness.check(name, path, stamp)
    with hdf5_files.opened(name, path, watched=True) as file, hdf5_files.damaged(name):
        return np.asarray(hdf5_files.Place(path, file, group or "/", False).dataset(member)[i])


class _Rows:
    """Images of a npy or npz file, read at their places; packed ones are unpacked to a nameless file first."""

    def __init__(self, name: str, path: str, member: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.name, self.path, self.member, self.shape, self.dtype = name, path, member, shape, dtype
        self.stamp, self.offset = storage.local_stamp(path), numpy_files.place(path, member).offset

    def read(self, i: int) -> NDArray[Any]:
        """The i-th image."""
        out = np.empty(self.shape[1:], self.dtype)
        if self.offset is None:
            held = boxes.unpacked(self.path, self.stamp, self.member)
            schema.pread_into(self.name, held.file, out, i * out.nbytes)
            return out
        file = storage.open_file(self.name, self.path, self.stamp, EXPECTED)
        try:
            schema.pread_into(self.name, file, out, self.offset + i * out.nbytes)
        finally:
            storage.close_file(file)
        return out
