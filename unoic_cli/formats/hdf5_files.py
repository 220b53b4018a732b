"""HDF5 files as they are opened: through a watch where they are not trusted, and links are policed."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import h5py

from unoic_cli.errors import DataError, UnoicError
from unoic_cli.formats import chunks, elsewhere, names, schema
from unoic_cli.formats.block import FIELDS, SCORE_KINDS
from unoic_cli.formats.watched import MOST_PIECE, WatchedFile, lock_shared

EXPECTED_SCORES = f"expected a dataset named {', '.join(SCORE_KINDS)}, or predictions"
MOST_MEMBERS = 500
"""Members of a group that are looked at."""
_WHAT = "an HDF5 file"


class InputFile(h5py.File):  # type: ignore[misc]  # h5py has no types
    """A file that is only read: whatever the system says when it is closed, all that was wanted of it is there."""

    def __init__(self, there: Any) -> None:
        super().__init__(there, "r", locking="best-effort")

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError, RuntimeError):
            super().close()


@contextlib.contextmanager
def opened(name: str, there: Any, *, watched: bool, most: int | None = MOST_PIECE) -> Iterator[Any]:
    """Open a path, or a file object, for a while.

    Parameters
    ----------
    name : str
        For messages.
    there : str or file object
    watched : bool
        Let the library see no more than a `WatchedFile` shows; not where it must find other files beside this one.
    most : int, optional
        Bytes that the library may ask for at once.
    """
    with contextlib.ExitStack() as stack:
        if watched:
            there = stack.enter_context(_watch(name, there, most))
        yield stack.enter_context(_open(name, there))


def _watch(name: str, there: Any, most: int | None) -> WatchedFile:
    """A file, or a path that is opened and locked against writers as the library does it."""
    if not isinstance(there, str):
        return WatchedFile(name, there, most=most)
    with schema.opening(name, _WHAT):
        file = open(there, "rb", buffering=0)  # noqa: SIM115  # closed with what reads it
        try:
            lock_shared(file.fileno())
            return WatchedFile(name, file, there, most=most)
        except BaseException:
            file.close()
            raise


def _open(name: str, there: Any) -> Any:
    """Open a path, or a file object."""
    with schema.opening(name, _WHAT):
        return InputFile(there)


class Place:
    """The group that is described, and the only way to get at its members: links are policed here."""

    def __init__(self, name: str, file: Any, group: str, allow_external: bool, size: int = 0) -> None:
        self.name = name
        self.file = file
        self.size = size
        self.allow_external = allow_external
        self.chosen = ""
        found = self.follow(group, name)
        if isinstance(found, h5py.Dataset):
            group, _, last = group.rstrip("/").rpartition("/")
            if last != "predictions" and not names.is_scores(last) and names.kind_of(last) is None:
                raise DataError(name, "a dataset", f"expected a group, or {EXPECTED_SCORES.removeprefix('expected ')}")
            self.chosen, group = last, group or "/"
            found = self.follow(group, name)
        if found is None:
            raise DataError(name, f"no group {group}", f"expected one of: {listing(file)}")
        self.path = group.rstrip("/")
        self.group = found

    def where(self, member: str) -> str:
        """``FILE:DATASET`` for messages."""
        return f"{self.name}:{member}"

    def members(self) -> dict[str, names.Facts]:
        """Shapes and types of the group's datasets, as far as they can be reached; of no more than `MOST_MEMBERS`."""
        found = {}
        for name in itertools.islice(self.group, MOST_MEMBERS):
            one = None
            with contextlib.suppress(UnoicError, KeyError, OSError, RuntimeError, TypeError, ValueError):
                one = self.follow(f"{self.path}/{name}", name)
            if isinstance(one, h5py.Dataset):
                with contextlib.suppress(OSError, RuntimeError, TypeError, ValueError):
                    found[name] = names.Facts(tuple(one.shape or ()), one.dtype)
            elif not isinstance(one, h5py.Group) or name in (*FIELDS, *SCORE_KINDS, "predictions"):
                found[name] = names.Facts((), None)  # what is wrong with it is said if it is wanted
        return found

    def dataset(self, member: str, *, is_array: bool = False) -> Any:
        """Return a dataset of the group, fit to be read, or None; `is_array` if its chunks may be read here."""
        found = self.follow(f"{self.path}/{member}", self.where(member))
        if found is None:
            return None
        if not isinstance(found, h5py.Dataset):
            raise DataError(self.where(member), "not a dataset", "expected a dataset")
        layout = self.layout(found) if is_array else None
        _check_storage(self.where(member), found, self.allow_external, layout)
        return found

    def layout(self, dataset: Any) -> chunks.Layout | None:
        """How an array is stored, if its chunks can be read without the library."""
        if h5py.h5o.get_info(dataset.id).fileno != h5py.h5o.get_info(self.file.id).fileno:
            return None  # reached through an external link: offsets count in another file
        if self.file.userblock_size and not os.path.isfile(self.file.filename):
            return None  # where offsets begin is found out by a look at the file
        return chunks.layout(dataset) if dataset.shape else None

    def follow(self, path: str, where: str) -> Any:
        """Walk to an object link by link, as h5py would follow an external one unasked."""
        if self.allow_external:
            return self.file.get(path)
        node, steps, budget = self.file["/"], [step for step in path.split("/") if step], 100
        while steps:
            step = steps.pop(0)
            if not isinstance(node, h5py.Group) or node.get(step, getlink=True) is None:
                return None
            link = node.get(step, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise _external(where, f"a link to another file ({link.filename})")
            if isinstance(link, h5py.SoftLink):
                budget -= 1
                if not budget:
                    raise DataError(where, "soft links in a circle", "expected a dataset")
                steps = [part for part in link.path.split("/") if part not in ("", ".")] + steps
                node = self.file["/"] if link.path.startswith("/") else node
            else:
                node = node[step]
        return node


def _external(where: str, found: str) -> DataError:
    return DataError(where, found, "expected data in the file itself (--allow-external reads other files)")


def damaged(where: str, found: str = "cannot be read as HDF5") -> contextlib.AbstractContextManager[None]:
    """Turn what the library raises on a damaged file into one error of ours."""
    return schema.damaged(where, found, "expected an intact HDF5 file")


def listing(group: Any) -> str:
    """Names of the members of a group, the first of them."""
    known = sorted(group)
    return ", ".join(known[:20]) + (", ..." if len(known) > 20 else "") if known else "nothing"


def _check_storage(where: str, dataset: Any, allow_external: bool, layout: chunks.Layout | None) -> None:
    """Refuse what lies elsewhere, what was never written, what cannot be decoded, and what would fill the memory."""
    plist = dataset.id.get_create_plist()
    external = plist.get_external_count() > 0
    virtual = plist.get_layout() == h5py.h5d.VIRTUAL
    if (external or virtual) and not allow_external:
        raise _external(where, "a virtual dataset" if virtual else "data stored in another file")
    if dataset.shape is None:
        raise DataError(where, "an empty (null) dataset", "expected data")
    for index in range(plist.get_nfilters()):
        code, _, _, label = plist.get_filter(index)
        if layout is None and not h5py.h5z.filter_avail(code):
            found = f"compressed with filter {code} ({label.decode(errors='replace')}), which is not installed here"
            raise DataError(where, found, "expected gzip, zstd, lzf or none")
    elsewhere.check_present(where, dataset)
    if layout is None and dataset.chunks is not None:
        chunks.check_sizes(where, dataset)
