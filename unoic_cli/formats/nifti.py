"""NIfTI volumes as arrays: labels of cases, as segmentation of medical images stores them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import boxes
from unoic_cli.storage.whole import open_regular

SUFFIXES = (".nii", ".nii.gz")
_MOST = 1 << 32
"""Voxels of a volume."""


class NiftiBox(boxes.Box):
    """The one volume of a file, with its axes as arrays of networks have them: (Z, Y, X).

    Parameters
    ----------
    path : str

    Raises
    ------
    UsageError
        nibabel is not installed.
    DataError
        The file is damaged, or no volume of whole numbers.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        boxes.seen(open_regular(path, "expected a NIfTI file"))
        image = self._open()
        self.entries["labels"] = boxes.Entry(tuple(int(n) for n in reversed(image.shape)), self._dtype(image))

    def _open(self) -> Any:
        try:
            import nibabel
        except ImportError:
            raise UsageError(self.path, "NIfTI without nibabel", "expected pip install 'unoic[nifti]'") from None
        try:
            image: Any = nibabel.load(self.path)
            if not 1 <= math.prod(image.shape) <= _MOST:
                raise ValueError(f"shape {image.shape}")
        except Exception as error:  # nibabel raises whatever a header makes of it
            reason = str(error).split("\n", maxsplit=1)[0]
            raise DataError(self.path, f"truncated or not NIfTI ({reason})", "expected an intact NIfTI file") from error
        return image

    def _dtype(self, image: Any) -> np.dtype[Any]:
        stored = np.dtype(image.get_data_dtype())
        slope, offset = image.dataobj.slope, image.dataobj.inter
        if (slope, offset) != (1, 0):
            raise DataError(self.path, f"values scaled by {slope:g} and {offset:g}", "expected labels as they are")
        return stored.newbyteorder("=") if stored.kind in "iu" else np.dtype(np.int16)

    def place(self, member: str) -> boxes.Place:
        """See `unoic_cli.formats.boxes.Box`."""
        return boxes.Place(None, "a volume")

    def rows(self, member: str, target_bytes: int) -> Iterator[NDArray[Any]]:
        """See `unoic_cli.formats.boxes.Box`."""
        yield self.read(member)

    def read(self, member: str) -> NDArray[Any]:
        """See `unoic_cli.formats.boxes.Box`; floats must be whole numbers."""
        image = self._open()
        try:
            values = np.asanyarray(image.dataobj)
        except Exception as error:  # as above
            reason = str(error).split("\n", maxsplit=1)[0]
            raise DataError(self.path, f"truncated or damaged ({reason})", "expected an intact NIfTI file") from error
        dtype = self.entries[member].dtype
        found = np.ascontiguousarray(values.T)
        if found.dtype.kind == "f":
            whole = np.isfinite(found) & (found == np.round(found)) & (np.abs(found) < np.iinfo(dtype).max)
            if not whole.all():
                raise DataError(self.path, f"{found[~whole][0]:g} among the labels", "expected whole numbers")
        return found.astype(dtype)
