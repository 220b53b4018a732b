"""Conditions: the groups or files that counts are kept apart for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from unoic_cli.data.dataset import DataSet, text_counts
from unoic_cli.data.facts import Facts, know
from unoic_cli.errors import UsageError
from unoic_cli.formats import split_name, stem_of

BY = ("group", "file")
IMAGE = "image"
"""Each by itself: of a few commands."""


@dataclass(frozen=True)
class Tables:
    """Names of the conditions, and how units are told apart.

    Attributes
    ----------
    by : str
        ``group``: the files' ``group``; ``file``: each file (of every modality) is one condition; ``image``: each
        image.
    names : tuple of str
        The conditions, in order of appearance.
    keys : tuple of str
        Groups, or names of sources.
    first : tuple of int
        Of sources, the number of the first image.
    """

    by: str
    names: tuple[str, ...]
    keys: tuple[str, ...]
    first: tuple[int, ...] = ()

    @classmethod
    def of_images(cls, data: DataSet) -> Tables:
        """A table for each image, labelled or not, in the order of the data.

        Raises
        ------
        UsageError
            Units are no pixels.
        """
        check_images(data)
        sizes = [source.n_samples for source in data.sources]
        *first, n = accumulate(sizes, initial=0)
        return cls(IMAGE, tuple(map(str, range(n))), tuple(source.name for source in data.sources), tuple(first))

    def arguments(self) -> dict[str, Any]:
        """What a `unoic_cli.data.steps.Pass` is told."""
        if self.by == IMAGE:
            return {"images": dict(zip(self.keys, self.first, strict=True))}
        return {"groups" if self.by == "group" else "files": {key: i for i, key in enumerate(self.keys)}}


def check_images(data: DataSet) -> None:
    """Refuse ``--by image`` of data without images.

    Raises
    ------
    UsageError
        Units are no pixels.
    """
    if not data.has_images:
        raise UsageError("--by", f"{IMAGE}, of data without images", "expected group or file")


def make_tables(data: DataSet, by: str | None, more: tuple[str, ...] = ()) -> Facts[Tables | None]:
    """The conditions of a data set; None when they are not asked for. A command may know of `more` ways, for messages.

    Raises
    ------
    UnoicError
        An unknown way, files without groups, or modalities whose files do not correspond.
    """
    if by is None:
        return None
    if by not in BY:
        *first, last = (*BY, *more)
        elsewhere = " (each image: unoic evaluate and unoic page)" if by == IMAGE else ""
        raise UsageError("--by", f"{by!r}", f"expected {', '.join(first)} or {last}{elsewhere}")
    if by == "group":
        data.require("group", "for --by group")
        seen: Counter[str] = Counter()
        for source in data.sources:
            seen.update((yield from text_counts(source, "group")))
        return Tables(by, tuple(seen), tuple(seen))
    for member in data.beside:
        ours, theirs = ([source.n_samples for source in m.sources] for m in (data, member))
        if ours != theirs:
            found = f"{len(theirs)} files of {', '.join(map(str, theirs[:8]))} samples for {member.modality}"
            expected = f"expected {len(ours)} of {', '.join(map(str, ours[:8]))}, as for {data.modality}"
            raise UsageError("--by", found, expected)
    keys = tuple(source.name for source in data.sources)
    if len(set(keys)) < len(keys):
        raise UsageError("--by", f"two files of the name {keys[0]}", "expected a name for each")
    return Tables(by, (yield from _file_names(data)), keys)


def _file_names(data: DataSet) -> Facts[tuple[str, ...]]:
    """Names of the files; where modalities have others, those of all of them, in the order they were given."""
    named = {}
    for member in data.modalities:
        named[member.modality] = yield from short_names([source.name for source in member.sources])
    every = [named[name] for name in data.given or named]
    return tuple(" + ".join(dict.fromkeys(names)) for names in zip(*every, strict=True))


def short_names(names: Sequence[str]) -> Facts[tuple[str, ...]]:
    """File names without folder and suffix, if that tells them apart.

    Examples
    --------
    >>> from unoic_cli.data.facts import find_out
    >>> find_out(short_names(["rgb/fog.h5", "rgb/rain.h5"]))
    ('fog', 'rain')
    >>> find_out(short_names(["a/x.h5", "b/x.h5"]))
    ('a/x.h5', 'b/x.h5')
    """
    stems = []
    for name in names:
        stems.append((yield from know(f"stem {name}", partial(_stem, name))) if "::" in name else _stem(name))
    return tuple(stems) if len(set(stems)) == len(stems) else tuple(names)


def _stem(name: str) -> str:
    path, group = split_name(name)
    stem = stem_of(path)[0]
    return stem if group == "/" else f"{stem}:{group.strip('/')}"
