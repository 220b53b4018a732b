"""A format is the class of its sources: it describes, opens, cuts and (where it is writable) creates files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from unoic_cli.errors import DataError
from unoic_cli.formats import schema
from unoic_cli.formats.block import OutputSpec, Source, Writer
from unoic_cli.formats.names import Asked

if TYPE_CHECKING:
    from unoic_cli.formats.boxes import Box
    from unoic_cli.formats.chunks import Layout


@dataclass(frozen=True, repr=False, kw_only=True)
class FileSource(Source):
    """The scores of one file; each format is a class that says how these are found, read and written.

    Attributes
    ----------
    NAME, TITLE : str
        In the registry, and in messages.
    SUFFIXES : tuple of str
        Of its files; the first is what outputs get.
    SIGNATURES : tuple of bytes
        What its files begin with; without any, they are known by their suffixes.
    WRITABLE, GROUPS, REMOTE, STREAM, PLAIN : bool
        `create` makes such files; ``FILE::GROUP`` means something; remote files can be read; it is the format of
        standard input and output; it has no schema, so that conversion looks at all values for what they are.
    path : str
        The file: absolute, or as typed where it is remote.
    stamp : tuple or None
        The file's state when it was described.
    """

    NAME: ClassVar[str]
    TITLE: ClassVar[str]
    SUFFIXES: ClassVar[tuple[str, ...]]
    SIGNATURES: ClassVar[tuple[bytes, ...]] = ()
    WRITABLE: ClassVar[bool] = False
    GROUPS: ClassVar[bool] = False
    REMOTE: ClassVar[bool] = True
    STREAM: ClassVar[bool] = False
    PLAIN: ClassVar[bool] = False

    HOLDS: ClassVar[frozenset[str] | None] = None
    """What of a data set such a file can hold beside the scores; everything, where it is not said."""

    path: str
    stamp: Any = None

    @classmethod
    def matches(cls, starts: Sequence[bytes], name: str) -> bool:
        """Tell whether a file is of this format by what stands at its start (and behind any user block)."""
        if not cls.SIGNATURES:
            return name.lower().endswith(cls.SUFFIXES)
        return starts[0].startswith(cls.SIGNATURES)

    @classmethod
    def describe(cls, name: str, path: str, group: str, *, allow_external: bool, asked: Asked) -> FileSource:
        """Find the scores of a file, and check everything that can be checked without reading them.

        Parameters
        ----------
        name : str
            The input as shown; messages start with it.
        path, group : str
            The file, and the group in it where `GROUPS`.
        allow_external : bool
            Follow what a file says of others.
        asked : Asked
            What was said of names and axes.

        Raises
        ------
        NoInputError
            The file is missing or not readable.
        DataError
            It is damaged, or does not hold what the schema asks for.
        """
        raise NotImplementedError

    @classmethod
    def create(cls, path: str, spec: OutputSpec, unfinished: str | None = None) -> Writer:
        """Start an output file under a temporary name, or go on with one that a stopped process left.

        Raises
        ------
        CannotCreateError
            The folder is not writable.
        StorageError
            There is no room for the output.
        """
        raise NotImplementedError

    @classmethod
    def box(cls, path: str) -> Box:
        """The arrays of a file by their names, whatever they are.

        Raises
        ------
        NoInputError, DataError
            The file is not readable, or damaged.
        """
        raise DataError(path, f"a {cls.NAME} file", "expected labels in npy, npz, HDF5, Parquet, CSV or text")

    @classmethod
    def parts(cls, name: str, path: str, group: str, asked: Asked) -> list[str]:
        """What a file holds several data sets under, each of which ``FILE::PART`` describes; none where it is one."""
        return []

    @property
    def n_bytes(self) -> int:
        """Bytes of the file."""
        return os.path.getsize(self.path) if self.stamp is None else int(self.stamp[1])


@dataclass(frozen=True, repr=False, kw_only=True)
class ColumnSource(FileSource):
    """A row of the file is one unit; see `unoic_cli.formats.columns`.

    Attributes
    ----------
    columns : tuple of str
        Those of the scores.
    form : str
        ``wide`` (a column for each class), ``column`` or ``predictions``.
    places : dict of str to str
        Column of each field.
    rows : tuple of int
        Of each piece that is read by itself: row groups, record batches.
    """

    columns: tuple[str, ...]
    form: str
    places: dict[str, str]
    rows: tuple[int, ...] = ()

    def spans(self, target_bytes: int) -> list[tuple[int, int]]:
        """Pieces of the file, small ones taken together up to `target_bytes`."""
        size = schema.score_dtype(self.encoding).itemsize
        unit_bytes = 8 if self.kind == "predictions" else size * self.n_classes
        return schema.joined_spans(self.rows, unit_bytes, target_bytes)


@dataclass(frozen=True)
class Stored:
    """Where an array lies in a file.

    Attributes
    ----------
    dtype : str
        As numpy writes it; 16-bit floats as their bits.
    shape : tuple of int
    offset : int or None
        Of its first byte, where it lies in one piece.
    member : str
        What it is called in the file.
    image_axis : int
        The first axis of its images.
    layout : Layout or None
        How it is chunked, where its chunks can be read without the library.
    is_text : bool
    value : float or None
        Of a single number.
    """

    dtype: str = ""
    shape: tuple[int, ...] = ()
    offset: int | None = None
    member: str = ""
    image_axis: int = 1
    layout: Layout | None = None
    is_text: bool = False
    value: float | None = None


@dataclass(frozen=True, repr=False, kw_only=True)
class ArraySource(FileSource):
    """Scores and fields are arrays of the file.

    Attributes
    ----------
    arrays : dict of str to Stored
        By ``scores`` or the name of a field.
    delta : str
        Which sort of delta there is: ``scalar``, ``sample``, ``unit``; empty for none.
    """

    arrays: dict[str, Stored] = field(default_factory=dict)
    delta: str = ""

    @property
    def unit_bytes(self) -> int:
        """Stored bytes of a unit's scores."""
        import numpy as np

        return np.dtype(self.arrays["scores"].dtype).itemsize * (1 if self.kind == "predictions" else self.n_classes)

    def spans(self, target_bytes: int) -> list[tuple[int, int]]:
        """Whole images of about `target_bytes`, or pieces of one."""
        return schema.cut_spans(self.n_samples, self.pixels, self.unit_bytes, target_bytes)

    def delta_storage(self) -> tuple[bool, str]:
        """Whether delta is stored once per image, and as which dtype."""
        import numpy as np

        entry = self.arrays.get("delta", Stored())
        return self.delta == "sample", np.dtype(entry.dtype or "f8").name
