"""What several methods decide of the same units: counts of each, what two of them decide otherwise, and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unoic_cli.data.batch import Batch, Part
from unoic_cli.kernels import count_predictions
from unoic_cli.tallies.kept import DecidedKeeper
from unoic_cli.tallies.tally import Counters, Tally, added

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.calibrations.view import View


class Way(NamedTuple):
    """One method.

    Attributes
    ----------
    view : View or None
        How it looks at the data; None: as the pass does.
    recipe : callable
        Makes what counts its decisions: a tally whose `update` keeps them in an array that it is given.
    """

    view: View | None
    recipe: Callable[[], Any]


class Ways(NamedTuple):
    """The methods, and how units are told apart.

    Attributes
    ----------
    members : tuple of Way
        M.
    first : int
        The one that the others are compared with.
    n_classes, n_tables : int
        K and F.
    """

    members: tuple[Way, ...]
    first: int
    n_classes: int
    n_tables: int


class WaysTally(Tally):
    """Counts the decisions of several methods at once.

    Parameters
    ----------
    ways : Ways
    keep : callable, optional
        Makes what keeps a sample of the units with their decisions.
    images : mapping of str to (int, int), optional
        Units, and samples, before each source: where counts of every image are wanted, too.

    Attributes
    ----------
    tallies : list of Tally
        Those of the methods.
    moved : (M, F) int64
        Labelled units that a method decides otherwise than the first.
    both : (M, F, K) int64
        Of each class units that the first and a method have right.
    images : dict of str to (1 + 2 * M, K) int64
        Of each image, by its number (and what the file calls it): its labels, and of each method predictions and hits.
    """

    def __init__(
        self, ways: Ways, keep: Callable[[], DecidedKeeper] | None = None,
        images: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        self.ways, self.make_keeper, self.before = ways, keep, images
        self.tallies = [way.recipe() for way in ways.members]
        self.keeper = None if keep is None else keep()
        self.moved = np.zeros((len(ways.members), ways.n_tables), dtype=np.int64)
        self.both = np.zeros((len(ways.members), ways.n_tables, ways.n_classes), dtype=np.int64)
        self.images: dict[str, NDArray[np.int64]] = {}
        self.needs = frozenset().union(*(tally.needs for tally in self.tallies)) | {"labels"}
        self.needs |= frozenset() if self.keeper is None else self.keeper.needs
        self.needs |= frozenset() if images is None else {"sample_id"}

    def recipe(self) -> partial[WaysTally]:
        """What makes an empty tally like this one."""
        return partial(WaysTally, self.ways, self.make_keeper, self.before)

    def update(self, batch: Batch) -> None:
        """Count a batch.

        Raises
        ------
        InvalidScoreError
            At the first unit whose scores are not valid.
        """
        assert batch.labels is not None
        decided = []
        for way, tally in zip(self.ways.members, self.tallies, strict=True):
            out = np.empty(batch.n_units, dtype=np.int32)
            tally.update(batch if way.view is None else way.view.apply(batch), out)
            decided.append(out)
        for i in range(len(decided)):
            if i != self.ways.first:
                self._pair(i, batch, batch.labels, decided[self.ways.first], decided[i])
        if self.keeper is not None:
            self.keeper.look(batch, decided)
        if self.before is not None:
            self._by_image(batch, batch.labels, decided)

    def _pair(self, i: int, batch: Batch, labels: Any, theirs: Any, ours: Any) -> None:
        """Units that are decided otherwise, and those that both have right."""
        moved = (theirs != ours) & (labels >= 0)
        if self.ways.n_tables == 1:
            self.moved[i] += np.count_nonzero(moved)
        else:
            self.moved[i] += np.bincount(batch.tables[moved], minlength=self.ways.n_tables)
        right = np.where(theirs == labels, labels, np.int32(-1))
        unused = np.zeros((2, self.both[i].size), dtype=np.int64)
        k = self.ways.n_classes
        count_predictions(right, ours, batch.tables, k, self.both[i].reshape(-1), unused[0], unused[1])

    def _by_image(self, batch: Batch, labels: Any, decided: Sequence[Any]) -> None:
        """Add to the counts of every image of a batch."""
        assert self.before is not None
        part, zeros = batch.part, np.zeros(batch.n_units, dtype=np.int32)
        ids = None if part.block.sample_id is None else np.asarray(part.block.sample_id).tolist()
        first = self.before[part.source.name][1]
        for place, (sample, start, stop) in enumerate(samples_of(part)):
            name = str(first + sample) + ("" if ids is None else f" {ids[place]}")
            counts = self.images.setdefault(name, np.zeros((1 + 2 * len(decided), self.ways.n_classes), np.int64))
            for i, one in enumerate(decided):
                support = np.zeros(self.ways.n_classes, dtype=np.int64) if i else counts[0]
                count_predictions(
                    labels[start:stop], one[start:stop], zeros[start:stop], self.ways.n_classes, counts[2 + 2 * i],
                    counts[1 + 2 * i], support,
                )  # fmt: skip

    def counters(self) -> Counters:
        """What was counted so far."""
        return {
            "ways": {str(i): tally.counters() for i, tally in enumerate(self.tallies)},
            "moved": self.moved,
            "both": self.both,
            "images": self.images,
            "kept": {} if self.keeper is None else self.keeper.counters(),
        }

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what a tally like this one counted elsewhere."""
        for i, tally in enumerate(self.tallies):
            tally.absorb(counters["ways"][str(i)])
        self.moved, self.both = added(self.moved, counters["moved"]), added(self.both, counters["both"])
        self.images = added(self.images, dict(counters["images"]))
        if self.keeper is not None:
            self.keeper.absorb(counters["kept"])

    def discordant(self, i: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each class units that the first alone has right, and that method i alone has right, (F, K) each."""
        theirs, ours = (self.tallies[place].counts().hits[:, 0] for place in (self.ways.first, i))
        return theirs - self.both[i], ours - self.both[i]


def samples_of(part: Part) -> list[tuple[int, int, int]]:
    """Samples of a part, and which of its units are theirs: [start, stop)."""
    if part.units is None:
        pixels, block = part.source.pixels, part.block
        edges = np.clip(np.append(part.samples, part.samples[-1] + 1) * pixels, block.start, block.stop) - block.start
    else:
        edges = np.searchsorted(part.sample_of_units(), np.append(part.samples, part.samples[-1] + 1))
    return list(zip(part.samples.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True))
