"""What several methods decide of single images: how much of each changes, and all pixels of those that are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.data.batch import Batch, Part
from unoic_cli.tallies.tally import Counters, Tally, added
from unoic_cli.tallies.ways import Way, samples_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNSEEN, IGNORED, FIRST = 0, 1, 2
"""What a pixel holds that was not met yet, or has no label; classes begin at `FIRST`."""


class Deciding(Tally):
    """Decides every batch by several methods.

    Parameters
    ----------
    ways : sequence of Way
        M.
    before : mapping of str to (int, int)
        Units, and samples, before each source.
    fields : frozenset of str
        What it looks at beside the scores.
    """

    def __init__(self, ways: Sequence[Way], before: Mapping[str, tuple[int, int]], fields: frozenset[str]) -> None:
        self.ways, self.before = tuple(ways), dict(before)
        self._tallies = [way.recipe() for way in self.ways]
        self.needs = frozenset().union(*(tally.needs for tally in self._tallies)) | fields

    def decide(self, batch: Batch) -> tuple[NDArray[np.int32], list[NDArray[np.int32]]]:
        """Labels, -1 where there is none, and what each method decides, (T,) each.

        Raises
        ------
        InvalidScoreError
            At the first unit whose scores are not valid.
        """
        labels, _, decided = self.look(batch)
        return labels, decided

    def look(self, batch: Batch) -> tuple[NDArray[np.int32], list[Batch], list[NDArray[np.int32]]]:
        """As `decide`, with what each method makes of the batch."""
        if batch.labels is None:
            batch = replace(batch, labels=np.full(batch.n_units, -1, dtype=np.int32), n_ignored=batch.n_units)
        made, decided = [], []
        for way, tally in zip(self.ways, self._tallies, strict=True):
            out = np.empty(batch.n_units, dtype=np.int32)
            made.append(batch if way.view is None else way.view.apply(batch))
            tally.update(made[-1], out)
            decided.append(out)
        assert batch.labels is not None
        return batch.labels, made, decided

    def first(self, part: Part) -> int:
        """Samples before the source of a part."""
        return self.before[part.source.name][1]


class ChangeTally(Deciding):
    """Pixels of every image that the last method decides otherwise than the first.

    Parameters
    ----------
    ways, before
        As of `Deciding`.
    n_images : int
        S, of all sources.
    labelled : bool
        Pixels without a label are not counted.

    Attributes
    ----------
    changed : (S,) int64
    """

    COUNTED = ("changed",)

    def __init__(
        self, ways: Sequence[Way], before: Mapping[str, tuple[int, int]], n_images: int, labelled: bool
    ) -> None:
        super().__init__(ways, before, frozenset({"labels"} if labelled else ()))
        self.labelled = labelled
        self.changed = np.zeros(n_images, dtype=np.int64)

    def recipe(self) -> partial[ChangeTally]:
        """What makes an empty tally like this one."""
        return partial(ChangeTally, self.ways, self.before, self.changed.size, self.labelled)

    def update(self, batch: Batch) -> None:
        """Count a batch."""
        labels, decided = self.decide(batch)
        changed = decided[0] != decided[-1]
        if self.labelled:
            changed &= labels >= 0
        first = self.first(batch.part)
        for sample, start, stop in samples_of(batch.part):
            self.changed[first + sample] += np.count_nonzero(changed[start:stop])


class ShownTally(Deciding):
    """Keeps labels and decisions of some images.

    Parameters
    ----------
    ways, before
        As of `Deciding`.
    n_classes : int
        K.
    numbers : sequence of int
        The images, by their places in all sources.

    Attributes
    ----------
    images : dict of str to (1 + M, P) unsigned integers
        Of each image, by its number: `IGNORED` or `FIRST` + label, and of each method `FIRST` + class. As pixels that
        were not met are zero, parts of an image that were met elsewhere add.
    names : dict of str to int
        ``[number, sample_id, group]`` of each image as JSON, and how often parts of it were met.
    """

    def __init__(
        self, ways: Sequence[Way], before: Mapping[str, tuple[int, int]], n_classes: int, numbers: Sequence[int]
    ) -> None:
        super().__init__(ways, before, frozenset({"labels", "group", "sample_id"}))
        self.n_classes, self.numbers = n_classes, tuple(numbers)
        self.dtype = np.min_scalar_type(n_classes + FIRST)
        self.images: dict[str, NDArray[Any]] = {}
        self.names: dict[str, int] = {}

    def recipe(self) -> partial[ShownTally]:
        """What makes an empty tally like this one."""
        return partial(ShownTally, self.ways, self.before, self.n_classes, self.numbers)

    def update(self, batch: Batch) -> None:
        """Keep what is to be kept of a batch."""
        labels, decided = self.decide(batch)
        part, first = batch.part, self.first(batch.part)
        for place, (sample, start, stop) in enumerate(samples_of(part)):
            if first + sample in self.numbers:
                kept = self._image(part, first + sample, place)
                begin = part.unit_of(start) - sample * part.source.pixels
                for row, values in zip(kept, (labels, *decided), strict=True):
                    row[begin : begin + stop - start] = values[start:stop] + FIRST

    def _image(self, part: Part, number: int, place: int) -> NDArray[Any]:
        """What is kept of an image, of which a part is met now."""
        texts = [None if one is None else str(one[place]) for one in (part.block.sample_id, part.block.group)]
        name = json.dumps([number, *texts])
        self.names[name] = self.names.get(name, 0) + 1
        return self.images.setdefault(str(number), np.zeros((1 + len(self.ways), part.source.pixels), self.dtype))

    def counters(self) -> Counters:
        """What was kept so far."""
        return {"images": self.images, "names": self.names}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what a tally like this one kept elsewhere."""
        self.images = added(self.images, dict(counters["images"]))
        self.names = added(self.names, dict(counters["names"]))
