"""The datasets of an HDF5 group as arrays by their names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.formats import boxes, hdf5_files
from unoic_cli.storage.whole import open_regular


class Hdf5Box(boxes.Box):
    """Datasets of the root and of its groups, these by their paths; links to other files are not followed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        boxes.seen(open_regular(path, "expected an HDF5 file"))
        with hdf5_files.opened(path, path, watched=True) as file, hdf5_files.damaged(path):
            for name in ("", *self._groups(file)):
                place = hdf5_files.Place(path, file, f"/{name}", False)
                for member, facts in place.members().items():
                    if facts.dtype is not None:
                        self.entries[f"{name}/{member}".lstrip("/")] = boxes.Entry(facts.shape, facts.dtype)

    def _groups(self, file: Any) -> list[str]:
        import h5py

        return [
            name
            for name in list(file)[: hdf5_files.MOST_MEMBERS]
            if isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Group)
        ]

    def place(self, member: str) -> boxes.Place:
        """See `unoic_cli.formats.boxes.Box`."""
        return boxes.Place(None, "in HDF5")

    def rows(self, member: str, target_bytes: int) -> Iterator[NDArray[Any]]:
        """See `unoic_cli.formats.boxes.Box`."""
        shape, dtype, _ = self.entries[member]
        group, _, name = member.rpartition("/")
        step = max(1, target_bytes // max(1, math.prod(shape[1:]) * dtype.itemsize))
        with hdf5_files.opened(self.path, self.path, watched=True) as file, hdf5_files.damaged(f"{self.path}:{member}"):
            dataset = hdf5_files.Place(self.path, file, f"/{group}", False).dataset(name)
            if not shape:
                yield np.asarray(dataset[()])
                return
            for start in range(0, shape[0], step):
                yield np.ascontiguousarray(dataset[start : start + step])

    def read(self, member: str) -> NDArray[Any]:
        """See `unoic_cli.formats.boxes.Box`."""
        (whole,) = self.rows(member, 1 << 62)
        return whole
