"""delta from a file of its own: HDF5 ``FILE[::DATASET]`` or npy, read piece by piece."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.data.batch import Part, check_delta, where_is
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.facts import Facts, know
from unoic_cli.errors import DataError, NoInputError
from unoic_cli.formats import detect, fingerprint_of, numpy_files, split_name, storage
from unoic_cli.storage import witness

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILES = "expected delta statistics (JSON), or factors (HDF5, npy)"
_EXPECTED = "expected a scalar, one factor for each sample, or one for each pixel"


class FactorFile:
    """Factors of a modality's samples, aligned by position.

    Parameters
    ----------
    name : str
        ``FILE``, ``FILE::DATASET`` (HDF5; ``delta`` by default) or a npy file.
    array : ndarray or None
        The factors themselves, instead.
    data : DataSet
        The modality that they belong to.

    Raises
    ------
    NoInputError, DataError
        The file cannot be read, or the array's shape is another.
    """

    def __init__(self, name: str, array: NDArray[Any] | None, data: DataSet) -> None:
        self._lock = threading.Lock()
        path, group = split_name(name)
        storage.refuse_remote(path, "file of factors")
        self.where = name
        self._path, self._dataset = os.path.abspath(path), group.strip("/") or "delta"
        self._array: NDArray[Any] | None = array
        self._rows: numpy_files.PlainRows | None = None
        self._stamp: Any = None
        self._data = data

    @classmethod
    def of_array(cls, array: NDArray[Any], data: DataSet, where: str) -> FactorFile:
        """Factors in memory."""
        made = cls(where, array, data)
        made._check(where, array.shape, array.dtype.str)
        return made

    @classmethod
    def named(cls, name: str, data: DataSet) -> Facts[FactorFile]:
        """Factors of a file."""
        made = cls(name, None, data)
        path, group = split_name(name)
        found = yield from know(f"factors {name}", lambda: made._look(name, path, group))
        made.where = found["where"]
        made._check(name, tuple(found["shape"]), found["dtype"])
        return made

    def _check(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        data = self._data
        n_samples = sum(source.n_samples for source in data.sources)
        shapes = {source.image_shape for source in data.sources}
        allowed = [(), (n_samples,), *((n_samples, *s) for s in shapes if len(shapes) == 1 and s)]
        self._scalar = shape == ()
        if shape not in allowed:
            said = f"{_EXPECTED}: {' or '.join(map(str, allowed))}"
            if data.split is not None:
                said += "; those of all samples, not of the split alone"
            raise DataError(name, f"an array of shape {shape}", said)
        if dtype.lstrip("<>|=")[0] not in "fiu":
            raise DataError(name, f"{np.dtype(dtype)} values", "expected numbers")

    def _look(self, name: str, path: str, group: str) -> dict[str, Any]:
        """Open the file, and say what it holds."""
        if not os.path.exists(path):
            raise NoInputError(name or "--delta", "no such file", _FILES)
        kind = detect(path)
        if kind == "hdf5":
            self.where, self._stamp = f"{path}::{self._dataset}", storage.local_stamp(path)
            with self._hdf5() as array:
                shape, dtype = tuple(array.shape), array.dtype
        elif kind == "npy" and group == "/":
            self._rows = numpy_files.PlainRows(self._path, path)
            shape, dtype = self._rows.shape, self._rows.dtype
        else:
            raise DataError(name, f"a {kind} file", _FILES)
        return {"shape": list(shape), "dtype": dtype.str, "where": self.where, "fingerprint": fingerprint_of(path)}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept, _lock=threading.Lock())

    @contextlib.contextmanager
    def _hdf5(self) -> Iterator[Any]:
        """The dataset, opened for a moment: nothing keeps the file from others."""
        import h5py

        from unoic_cli.formats import elsewhere, hdf5_files

        try:
            file = hdf5_files.InputFile(self._path)
        except OSError:
            raise NoInputError(self.where, "cannot be opened as HDF5", "expected a file of factors") from None
        with file:
            found = file.get(self._dataset, getlink=True)
            array = file[self._dataset] if isinstance(found, h5py.HardLink) else None
            if not isinstance(array, h5py.Dataset) or array.shape is None or array.is_virtual or array.external:
                raise DataError(self.where, "no such dataset", "expected FILE::DATASET of the factors")
            elsewhere.check_present(self.where, array)
            yield array

    def _read(self, rows: Any) -> NDArray[np.float64]:
        if self._array is not None:
            return np.asarray(self._array[rows], dtype=np.float64)
        if self._rows is not None:
            first, last = (0, 1) if rows == () else (rows.start, rows.stop)
            return np.asarray(self._rows.read(first, last), dtype=np.float64)
        if self._stamp is not None:
            witness.check(self.where, self._path, self._stamp)
        with self._lock, self._hdf5() as array:
            try:
                return np.asarray(array[rows], dtype=np.float64)
            except (OSError, ValueError) as error:
                raise DataError(self.where, f"cannot be read ({error})", "expected an intact file") from None

    def of(self, part: Part) -> NDArray[np.float64]:
        """Checked factors of the units of a part, (T,) or (1,)."""
        source = part.source
        if self._scalar:
            values = self._read(()).reshape(1)
            check_delta(values, self.where, lambda _: "the scalar")
            return values
        start = sum(s.n_samples for s in itertools.takewhile(lambda s: s is not source, self._data.sources))
        values = self._read(slice(start + int(part.samples[0]), start + int(part.samples[-1]) + 1))
        if values.ndim == 1:
            factors = part.per_unit(values[part.samples - part.samples[0]])
        else:
            flat = values.reshape(len(values), -1)
            units = np.arange(part.block.stop - part.block.start) if part.units is None else part.units
            samples, pixels = np.divmod(part.block.start + units, source.pixels)
            factors = flat[samples - part.samples[0], pixels]
        check_delta(factors, self.where, lambda i: where_is(source, part.unit_of(i)))
        return factors
