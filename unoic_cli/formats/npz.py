"""npz and npy files: the arrays that numpy saves."""

from __future__ import annotations

from dataclasses import dataclass

from unoic_cli.formats import boxes, numpy_files
from unoic_cli.formats.block import OutputSpec, Writer
from unoic_cli.formats.plain import Plain


@dataclass(frozen=True, repr=False, kw_only=True)
class Npz(Plain):
    """Scores among the arrays of a npz file."""

    NAME = "npz"
    TITLE = "a npz file"
    SUFFIXES = (".npz",)
    SIGNATURES = (b"PK\x03\x04",)

    WRITABLE = True

    @classmethod
    def box(cls, path: str) -> boxes.Box:
        """See `FileSource.box`."""
        return numpy_files.NumpyBox(path)

    @classmethod
    def create(cls, path: str, spec: OutputSpec, unfinished: str | None = None) -> Writer:
        """Start a file; see `FileSource.create`."""
        from unoic_cli.formats import plain_writer

        return plain_writer.NpzWriter(path, spec, unfinished)


@dataclass(frozen=True, repr=False, kw_only=True)
class Npy(Npz):
    """Scores that are all of a npy file."""

    NAME = "npy"
    TITLE = "a npy file"
    SUFFIXES = (".npy",)
    SIGNATURES = (b"\x93NUMPY",)
    ALONE = True
    HOLDS = frozenset()

    @classmethod
    def create(cls, path: str, spec: OutputSpec, unfinished: str | None = None) -> Writer:
        """Start a file of the scores; see `FileSource.create`."""
        from unoic_cli.formats import plain_writer

        return plain_writer.NpyWriter(path, spec, unfinished)
