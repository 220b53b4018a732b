"""delta from a file of its own: HDF5 ``FILE[::DATASET]`` or npy, read piece by piece."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.batch import Part, check_delta, where_is
from unoic_cli.dataset import DataSet
from unoic_cli.errors import DataError, NoInputError
from unoic_cli.formats import detect, split_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXPECTED = "expected a scalar, one factor for each sample, or one for each pixel"


class FactorFile:
    """Factors of a modality's samples, aligned by position.

    Parameters
    ----------
    name : str
        ``FILE``, ``FILE::DATASET`` (HDF5; ``delta`` by default) or a npy file.
    data : DataSet
        The modality that they belong to.

    Raises
    ------
    NoInputError, DataError
        The file cannot be read, or the array's shape is another.
    """

    def __init__(self, name: str, data: DataSet) -> None:
        self._lock = threading.Lock()
        path, group = split_name(name)
        kind = detect(path)
        self.where = name
        if kind == "hdf5":
            self._array = self._open_hdf5(path, group.strip("/") or "delta")
        elif kind == "npy" and group == "/":
            self._array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            raise DataError(
                name, f"a {kind} file", "expected delta statistics (JSON), an HDF5 or a npy file of factors"
            )
        self._starts: dict[str, int] = {}
        n_samples = 0
        for source in data.sources:
            self._starts[source.name] = n_samples
            n_samples += source.n_samples
        shapes = {source.image_shape for source in data.sources}
        shape = tuple(self._array.shape)
        allowed = [(), (n_samples,), *((n_samples, *s) for s in shapes if len(shapes) == 1)]
        if shape not in allowed:
            raise DataError(name, f"an array of shape {shape}", f"{_EXPECTED}: {' or '.join(map(str, allowed))}")
        if self._array.dtype.kind not in "fiu":
            raise DataError(name, f"{self._array.dtype} values", "expected numbers")

    def _open_hdf5(self, path: str, dataset: str) -> Any:
        import h5py

        try:
            self._file = h5py.File(path, "r")
        except OSError:
            raise NoInputError(path, "cannot be opened as HDF5", "expected a file of factors") from None
        found = self._file.get(dataset, getlink=True)
        array = self._file[dataset] if isinstance(found, h5py.HardLink) else None
        if not isinstance(array, h5py.Dataset) or array.is_virtual or array.external:
            self.where = f"{path}::{dataset}"
            raise DataError(self.where, "no such dataset", "expected FILE::DATASET of the factors")
        return array

    def of(self, part: Part) -> NDArray[np.float64]:
        """Checked factors of the units of a part, (T,) or (1,)."""
        source = part.source
        start = self._starts[source.name]
        with self._lock:
            if not self._array.shape:
                values = np.asarray(self._array[()], dtype=np.float64).reshape(1)
            else:
                first, last = int(part.samples[0]), int(part.samples[-1]) + 1
                values = np.asarray(self._array[start + first : start + last], dtype=np.float64)
        if not self._array.shape:
            check_delta(values, self.where, lambda _: "the scalar")
            return values
        if values.ndim == 1:
            factors = part.per_unit(values[part.samples - part.samples[0]])
        else:
            flat = values.reshape(len(values), -1)
            units = np.arange(part.block.stop - part.block.start) if part.units is None else part.units
            samples, pixels = np.divmod(part.block.start + units, source.pixels)
            factors = flat[samples - part.samples[0], pixels]
        check_delta(factors, self.where, lambda i: where_is(source, part.unit_of(i)))
        return factors
