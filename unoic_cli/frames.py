"""Tables for Python: columns as a DataFrame of pandas, or of polars."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from unoic_cli.calls import ArgumentError
from unoic_cli.errors import UsageError

LIBRARIES = ("pandas", "polars")
"""In the order in which they are looked for."""


class Framed:
    """A result with a table."""

    def _columns(self) -> Mapping[str, Sequence[Any]]:
        """The columns of the table."""
        raise NotImplementedError

    def to_dataframe(self, library: str | None = None) -> Any:
        """The result as a DataFrame.

        `search_lambda` has a row for each lambda, `evaluate` and `prior` for each class, `compare` for each method.

        Parameters
        ----------
        library : {"pandas", "polars"}, optional
            By default pandas, or polars where that alone is installed.

        Raises
        ------
        UnoicError
            It is not installed.
        """
        return frame(self._columns(), library)


def frame(columns: Mapping[str, Sequence[Any]], library: str | None = None) -> Any:
    """A DataFrame of columns of one length: of text, whole numbers or floats, which may have None in it.

    Parameters
    ----------
    columns : mapping of str to sequence
    library : {"pandas", "polars"}, optional
        By default pandas, or polars where that alone is installed.

    Raises
    ------
    UnoicError
        Neither is installed, or not the one that was asked for.

    Examples
    --------
    >>> frame({"class": [0, 1], "recall": [0.5, None]}, "arrow")
    Traceback (most recent call last):
    ...
    unoic_cli.calls.ArgumentError: library: 'arrow'; expected pandas or polars
    """
    if library is not None and library not in LIBRARIES:
        raise ArgumentError("library", f"{library!r:.60}", f"expected {' or '.join(LIBRARIES)}")
    found = _found((library,) if library else LIBRARIES)
    if found.__name__ == "polars":
        types = {str: found.String, int: found.Int64, float: found.Float64}
        return found.DataFrame([found.Series(name, list(of), types[_type(of)]) for name, of in columns.items()])
    return found.DataFrame({name: _array(of) for name, of in columns.items()})


def _found(names: Sequence[str]) -> Any:
    """The first library that there is."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    missing = f"{names[0]}, which is not installed" if len(names) == 1 else "neither pandas nor polars is installed"
    raise UsageError("to_dataframe", missing, f"expected it to be installed: pip install {names[0]}")


def _type(values: Sequence[Any]) -> type:
    """What a column holds: text, whole numbers, or floats where one is a float or missing."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, str) for value in known):
        return str
    return int if len(known) == len(values) and all(isinstance(value, int) for value in known) else float


def _array(values: Sequence[Any]) -> Any:
    """A column of pandas: NaN where a number is missing."""
    import numpy as np

    kind = _type(values)
    if kind is str:
        return list(values)
    return np.array([np.nan if value is None else value for value in values], np.int64 if kind is int else np.float64)
