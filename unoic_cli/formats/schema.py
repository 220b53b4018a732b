"""What every format shares: the rules of the logits schema, how sources are cut, and safe output files."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import math
import mmap
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unoic_cli.errors import DataError, NoInputError, StorageError, UnoicError
from unoic_cli.formats.block import Layout
from unoic_cli.storage import File
from unoic_cli.storage.output import TemporaryOutput as TemporaryOutput
from unoic_cli.storage.output import storage_error as storage_error

SCORE_DTYPES = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.float32, "float64": np.float64}
"""What a block holds for each encoding: 16-bit floats travel as their bits."""

SLACK = 64
"""Zeroed bytes after each array of a block, so that a kernel may load whole vector registers."""

LARGE = 8 << 20
"""Bytes from which on arrays that come and go are not left to the heap."""

_LAST_CHARACTER = 0x10FFFF
MOST_CLASSES = 1 << 20
"""K at most: tables and counters have a row for each class."""
LONGEST_TEXT = 4096
"""Bytes of one name: of a class, a split, a group or a sample."""
MOST_TEXT = 256 << 20
"""Bytes of different texts in one piece of a column."""

_MAX_IO = 1 << 30  # one system call moves less than 2 GiB

Boxes = Iterator[tuple[int, int, int, int, int, int]]


class ScoreShape(NamedTuple):
    """A checked shape of scores (or of predictions, which have no class axis)."""

    n_samples: int
    n_classes: int
    image_shape: tuple[int, ...]
    layout: Layout

    @property
    def pixels(self) -> int:
        """Units per sample."""
        return math.prod(self.image_shape)

    @property
    def known_classes(self) -> int:
        """K as labels and priors know it: one score of each unit stands for two classes."""
        return max(2, self.n_classes)


class EmptyError(DataError):
    """There are no samples."""


def score_dtype(encoding: str) -> np.dtype[Any]:
    """Return the native dtype in which a block holds scores of this encoding."""
    return np.dtype(SCORE_DTYPES[encoding])


def prediction_dtype(n_classes: int) -> np.dtype[Any]:
    """Return the smallest unsigned dtype that holds ``n_classes - 1``."""
    return np.min_scalar_type(n_classes - 1)


def native(dtype: np.dtype[Any] | str) -> np.dtype[Any]:
    """Return the same dtype in this machine's byte order."""
    return np.dtype(dtype).newbyteorder("=")


# ------------------------------------------------------------------------------------------------
# shapes and dtypes


def score_shape(where: str, shape: Sequence[int], class_axis: int = 1) -> ScoreShape:
    """Check the shape of scores.

    Parameters
    ----------
    where : str
        ``FILE:DATASET``, for messages.
    shape : sequence of int
        ``(N, K)``, ``(N, K, H, W)`` or, with `class_axis` last, ``(N, H, W, K)``; one score of each unit may also have
        the shape of the units, ``(N,)`` or ``(N, H, W)``.
    class_axis : int
        1 (or its negative twin), or the last axis; 0 where three axes are those of the units.

    Raises
    ------
    DataError
        The rank is neither 2 nor 4, the class axis is elsewhere, or an extent is too small.

    Examples
    --------
    >>> score_shape("val.h5:logits", (10, 3, 4, 5))
    ScoreShape(n_samples=10, n_classes=3, image_shape=(4, 5), layout='planes')
    """
    rank = len(shape)
    if rank == 1 or (rank == 3 and class_axis == 0):
        return _check_extents(where, ScoreShape(shape[0], 1, tuple(shape[1:]), "rows"))
    if rank == 3:
        expected = "expected (N, K), (N, K, H, W) or (N, H, W, K); one image is (1, K, H, W)"
        raise DataError(where, f"shape {tuple(shape)}", expected)
    if rank not in (2, 4):
        raise DataError(where, f"shape {tuple(shape)}", "expected (N, K), (N, K, H, W) or (N, H, W, K)")
    if not -rank <= class_axis < rank or class_axis % rank not in (1, rank - 1):
        raise DataError(where, f"class_axis {class_axis} of {rank} axes", f"expected 1 or {rank - 1} (the last)")
    if class_axis % rank == rank - 1:
        return _check_extents(where, ScoreShape(shape[0], shape[-1], tuple(shape[1:-1]), "rows"))
    return _check_extents(where, ScoreShape(shape[0], shape[1], tuple(shape[2:]), "planes"))


def volume_shape(where: str, shape: Sequence[int]) -> ScoreShape:
    """The shape of the scores of one volume, (K, Z, Y, X): an image of Z * Y rows, its slices one behind the other.

    One image, (K, H, W), is a volume of one slice.
    """
    classes, slices, rows, columns = shape
    return _check_extents(where, ScoreShape(1, classes, (slices * rows, columns), "planes"))


def prediction_shape(where: str, shape: Sequence[int], n_classes: int) -> ScoreShape:
    """Check the shape of a ``predictions`` source: ``(N,)``, ``(N, 1)``, ``(N, H, W)`` or ``(N, 1, H, W)``."""
    if len(shape) not in (1, 2, 3, 4) or (len(shape) in (2, 4) and shape[1] != 1):
        raise DataError(where, f"shape {tuple(shape)}", "expected (N,) or (N, H, W)")
    image_shape = tuple(shape[-2:]) if len(shape) > 2 else ()
    return _check_extents(where, ScoreShape(shape[0], n_classes, image_shape, "rows"), 2)


def _check_extents(where: str, shape: ScoreShape, least: int = 1) -> ScoreShape:
    if shape.n_samples == 0:
        raise EmptyError(where, "no samples (N = 0)", "expected at least one")
    if shape.n_classes < least:
        raise DataError(where, f"{shape.n_classes} class(es) (K = {shape.n_classes})", "expected two or more classes")
    if shape.n_classes > MOST_CLASSES:
        raise DataError(where, f"{shape.n_classes:,} classes (K)", f"expected at most {MOST_CLASSES:,}")
    if shape.pixels == 0:
        raise DataError(where, f"images of zero size {shape.image_shape}", "expected at least one pixel")
    return shape


CLASSES_FIRST = "scores turned by numpy.moveaxis(scores, 0, 1)"
"""What makes (Z, K, Y, X) of (K, Z, Y, X), the probabilities of volumes."""


def check_labels(where: str, shape: Sequence[int], dtype: np.dtype[Any], scores: ScoreShape) -> None:
    """Labels are integers of a type that can hold K - 1, one for each unit; a length-1 class axis is allowed."""
    check_integers(where, dtype)
    check_holds(where, dtype, scores.known_classes)
    n, image = scores.n_samples, scores.image_shape
    if tuple(shape) not in ((n, *image), (n, 1, *image)):
        expected = f"expected {(n, *image)} to match the scores"
        if image and tuple(shape) in ((scores.n_classes, *image), (1, scores.n_classes, *image)):
            expected += f" (or, where the classes come first, {CLASSES_FIRST})"
        raise DataError(where, f"shape {tuple(shape)}", expected)


def check_integers(where: str, dtype: np.dtype[Any]) -> None:
    """Refuse anything but integers, or true and false."""
    if dtype.kind not in "iub":
        raise DataError(where, f"{_dtype_name(dtype)} values", "expected integers")


def check_holds(where: str, dtype: np.dtype[Any], n_classes: int) -> None:
    """Refuse a type that cannot hold K - 1: larger classes were wrapped, or cut off, when it was written.

    Examples
    --------
    >>> check_holds("val.h5:labels", np.dtype("uint8"), 256)
    """
    largest = 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)
    if largest < n_classes - 1:
        name = "true or false" if dtype.kind == "b" else f"{dtype.name}, which ends at {largest},"
        expected = f"expected a type that holds class {n_classes - 1}: larger ones are lost or wrapped in this one"
        raise DataError(where, f"{name} for {n_classes} classes", expected)


def check_delta(where: str, shape: Sequence[int], dtype: np.dtype[Any], scores: ScoreShape) -> str:
    """Which sort of delta this is: ``scalar``, ``sample`` or ``unit``."""
    if dtype.kind not in "fiu":
        raise DataError(where, f"{_dtype_name(dtype)} values", "expected floats")
    if tuple(shape) not in _delta_sorts(scores):
        wanted = " or ".join(str(known) for known in _delta_sorts(scores))
        raise DataError(where, f"shape {tuple(shape)}", f"expected {wanted}")
    return sort_of_delta(shape, scores)


def _delta_sorts(scores: ScoreShape) -> dict[tuple[int, ...], str]:
    return {
        (): "scalar",
        (scores.n_samples, *scores.image_shape): "unit",
        (scores.n_samples,): "sample" if scores.image_shape else "unit",
    }


def sort_of_delta(shape: Sequence[int], scores: ScoreShape) -> str:
    """``scalar``, ``sample`` or ``unit``, of a delta that was checked."""
    return _delta_sorts(scores)[tuple(shape)]


def check_vector(where: str, shape: Sequence[int], dtype: np.dtype[Any], n_classes: int) -> None:
    """Refuse anything but (K,) numbers, before they are read."""
    if dtype.kind not in "fiu":
        raise DataError(where, f"{_dtype_name(dtype)} values", f"expected {n_classes} numbers")
    if tuple(shape) != (n_classes,):
        raise DataError(where, f"shape {tuple(shape)}", f"expected ({n_classes},): one number per class")


def check_names(where: str, shape: Sequence[int], dtype: np.dtype[Any], n_classes: int) -> None:
    """Refuse anything but (K,) texts of a bounded length, before they are read."""
    if tuple(shape) != (n_classes,):
        raise DataError(where, f"shape {tuple(shape)}", f"expected ({n_classes},): one name per class")
    check_length(where, dtype)


def check_length(where: str, dtype: np.dtype[Any]) -> None:
    """Refuse texts of a fixed length that no name has."""
    size = dtype.itemsize // (4 if dtype.kind == "U" else 1)
    if dtype.kind in "SUO" and size > LONGEST_TEXT:
        raise DataError(where, f"texts of {size:,} bytes each", f"expected at most {LONGEST_TEXT:,}")


def class_vector(where: str, values: Any, n_classes: int) -> tuple[float, ...]:
    """(K,) numbers of a prior or of counts."""
    array = np.asarray(values)
    check_vector(where, array.shape, array.dtype, n_classes)
    return tuple(float(value) for value in array)


def class_names(where: str, values: Any, n_classes: int) -> tuple[str, ...]:
    """(K,) names; control characters (tabs apart) are refused, as names go to terminals."""
    array = np.asarray(values)
    check_names(where, array.shape, array.dtype, n_classes)
    names = tuple(text(where, array))
    for k, name in enumerate(names):
        if any(unicodedata.category(letter) == "Cc" and letter != "\t" for letter in name):
            raise DataError(where, f"control characters in the name of class {k}", "expected printable names")
    return names


def check_per_sample(where: str, shape: Sequence[int], n_samples: int) -> None:
    """`split`, `group` and `sample_id` have one entry per sample."""
    if tuple(shape) != (n_samples,):
        raise DataError(where, f"shape {tuple(shape)}", f"expected ({n_samples},): one entry per sample")


def text(where: str, values: NDArray[Any]) -> NDArray[np.object_]:
    """Decode bytes or strings into an object array of str; equal ones become one.

    Raises
    ------
    DataError
        Something that is not text, not UTF-8, or longer than any name.

    Examples
    --------
    >>> text("val.h5:split", np.array([b"val", b"test"])).tolist()
    ['val', 'test']
    """
    result = np.empty(values.shape, dtype=object)
    known: dict[Any, str] = {}
    total = 0
    if values.dtype.kind == "U" and values.size:  # code points; Python's own types end in an error of the system
        points = np.ascontiguousarray(values).view(np.dtype("u4").newbyteorder(values.dtype.byteorder))
        if points.size and int(points.max()) > _LAST_CHARACTER:
            raise DataError(where, f"a character of number {int(points.max()):,}", "expected text")
    for index, value in enumerate(values.tolist()):
        if value not in known:
            known[value] = _decode(where, value)
            total += len(value)
            if total > MOST_TEXT:
                raise DataError(where, f"more than {MOST_TEXT:,} bytes of different texts", "expected short names")
        result[index] = known[value]
    return result


def _decode(where: str, value: Any) -> str:
    if not isinstance(value, (str, bytes)):
        raise DataError(where, f"{value!r}", "expected text")
    if len(value) > LONGEST_TEXT:
        raise DataError(where, f"a text of {len(value):,} bytes", f"expected at most {LONGEST_TEXT:,}")
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8")
        value.encode("utf-8")
        return value
    except UnicodeError:
        raise DataError(where, f"{value!r}, which is not UTF-8", "expected UTF-8 text") from None


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind in "SUOT" else dtype.name


# ------------------------------------------------------------------------------------------------
# cutting


def samples_of(start: int, stop: int, pixels: int) -> tuple[int, int]:
    """Count the samples that units [start, stop) touch.

    Examples
    --------
    >>> samples_of(5, 9, 4)
    (1, 3)
    """
    return start // pixels, -(-stop // pixels)


def per_unit(values: NDArray[Any], start: int, stop: int, pixels: int) -> NDArray[Any]:
    """Repeat one value per touched sample into one per unit."""
    if pixels == 1:
        return values
    first, last = samples_of(start, stop, pixels)
    edges = np.clip(np.arange(first, last + 1) * pixels, start, stop)
    return np.repeat(values, np.diff(edges))


def pieces(start: int, stop: int, pixels: int, layout: Layout) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) so that a `planes` block holds whole images or a part of one single image."""
    if layout == "rows" or pixels == 1:
        if start < stop:
            yield start, stop
        return
    while start < stop:
        whole = stop // pixels * pixels
        partial = start % pixels or whole <= start
        end = min(stop, (start // pixels + 1) * pixels) if partial else whole
        yield start, end
        start = end


def boxes(start: int, stop: int, image_shape: tuple[int, ...]) -> Boxes:
    """Cut units into hyperslabs ``(n0, n1, h0, h1, w0, w1)``, in order."""
    height, width = image_shape or (1, 1)
    pixels = height * width
    while start < stop:
        sample, pixel = divmod(start, pixels)
        row, column = divmod(pixel, width)
        end = min(stop - sample * pixels, pixels)
        if pixel == 0 and stop - start >= pixels:
            yield sample, stop // pixels, 0, height, 0, width
            start = stop // pixels * pixels
        elif column == 0 and end - pixel >= width:
            yield sample, sample + 1, row, end // width, 0, width
            start = sample * pixels + end // width * width
        else:
            limit = min(width, column + end - pixel)
            yield sample, sample + 1, row, row + 1, column, limit
            start += limit - column


def cut_spans(
    n_samples: int, pixels: int, unit_bytes: int, target_bytes: int, chunk_samples: int = 0
) -> list[tuple[int, int]]:
    """Cut a source into runs of units of about `target_bytes`.

    Parameters
    ----------
    n_samples, pixels : int
        Extent of the source.
    unit_bytes : int
        Stored bytes of one unit.
    target_bytes : int
        What one span should weigh.
    chunk_samples : int
        Chunk extent along the first axis, or 0. A span then holds whole chunks, however large,
        as each chunk would otherwise be decoded once for each span that touches it.

    Examples
    --------
    >>> cut_spans(10, 1, 8, 32)
    [(0, 4), (4, 8), (8, 10)]
    >>> cut_spans(2, 100, 8, 600)
    [(0, 64), (64, 100), (100, 164), (164, 200)]
    """
    image_bytes = pixels * unit_bytes
    grain = max(1, chunk_samples)
    if chunk_samples or pixels == 1 or image_bytes <= target_bytes:
        step = grain * max(1, target_bytes // (grain * image_bytes))
        return [(at * pixels, min(at + step, n_samples) * pixels) for at in range(0, n_samples, step)]
    count = -(-image_bytes // max(1, target_bytes))
    step = -(-pixels // (64 * count)) * 64  # whole cache lines of pixels in each plane
    return [
        (sample * pixels + at, sample * pixels + min(at + step, pixels))
        for sample in range(n_samples)
        for at in range(0, pixels, step)
    ]


def joined_spans(pieces: Sequence[int], unit_bytes: int, target_bytes: int) -> list[tuple[int, int]]:
    """Runs of units for pieces of so many rows, small ones taken together up to `target_bytes`.

    Examples
    --------
    >>> joined_spans([4, 0, 2, 9], 10, 60)
    [(0, 6), (6, 15)]
    """
    found: list[tuple[int, int]] = []
    at = 0
    for rows in pieces:
        if found and (at + rows - found[-1][0]) * unit_bytes <= target_bytes:
            found[-1] = (found[-1][0], at + rows)
        elif rows:
            found.append((at, at + rows))
        at += rows
    return found


# ------------------------------------------------------------------------------------------------
# what libraries raise

_RAISED = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError)
"""What h5py and pyarrow raise on files that are not what they say."""


@contextlib.contextmanager
def opening(name: str, what: str) -> Iterator[None]:
    """Turn what opening a file raises into one error of ours; `what` it should be, such as ``an HDF5 file``."""
    try:
        yield
    except UnoicError:
        raise
    except FileNotFoundError:
        raise NoInputError(name, "no such file", f"expected {what}") from None
    except (PermissionError, IsADirectoryError, BlockingIOError) as error:
        raise NoInputError(name, f"cannot be opened ({error.strerror or error})", f"expected {what}") from None
    except _RAISED as error:
        kind = what.split()[1]
        raise DataError(
            name, f"truncated or not {kind} ({_reason(error)})", f"expected an intact {kind} file"
        ) from error


@contextlib.contextmanager
def damaged(where: str, found: str, expected: str) -> Iterator[None]:
    """Turn what a library raises on damaged bytes into one error of ours; a disk that fails is no damage."""
    try:
        yield
    except UnoicError:
        raise
    except _RAISED as error:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise StorageError(where, f"reading failed ({_reason(error)})", "expected readable data") from error
        raise DataError(where, f"{found} ({_reason(error)})", expected) from error


def _reason(error: BaseException) -> str:
    return str(error).split("\n", maxsplit=1)[0]


# ------------------------------------------------------------------------------------------------
# memory and files


def room(size: int) -> NDArray[np.uint8]:
    """Memory for `size` bytes; much of it comes from the system, and goes back there as soon as nobody uses it.

    Among small arrays, large ones that come and go would leave a heap full of holes.
    """
    return np.empty(size, np.uint8) if size < LARGE else np.frombuffer(mmap.mmap(-1, size), np.uint8)


@functools.cache
def _trim() -> Callable[[int], Any]:
    try:
        found: Callable[[int], Any] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda pad: None
    return found


def give_back() -> None:
    """Return what the heap does not use to the system, where the C library can: after work on large pieces."""
    _trim()(0)


class Buffers:
    """Memory that a reader reuses from block to block: aligned, with `SLACK` zeroed bytes at the end."""

    def __init__(self) -> None:
        self._stores: dict[str, NDArray[np.uint8]] = {}

    def take(self, role: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Lend an array for `role`; whatever it held before is lost."""
        size = math.prod(shape) * dtype.itemsize
        store = self._stores.get(role)
        if store is None or store.size < size + SLACK:
            raw = room(size + 2 * SLACK)
            offset = -raw.ctypes.data % SLACK
            store = self._stores[role] = raw[offset : offset + size + SLACK]
        store[size : size + SLACK] = 0
        return store[:size].view(dtype).reshape(shape)


def pread_into(where: str, file: File, array: NDArray[Any], offset: int) -> None:
    """Fill a C-contiguous array from a file; a file that ends too soon is a `StorageError`."""
    if not isinstance(file, int):
        file.read_into(where, array, offset)
        return
    view = array.reshape(-1).view(np.uint8).data
    while view:
        try:
            count = os.preadv(file, [view[:_MAX_IO]], offset)
        except OSError as error:
            raise StorageError(where, f"reading failed ({error.strerror})", "expected readable data") from error
        if count == 0:
            raise StorageError(where, "the file ends too soon", f"expected {len(view):,} more bytes")
        view, offset = view[count:], offset + count
