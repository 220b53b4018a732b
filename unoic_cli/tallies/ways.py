"""What several methods decide of the same units: counts of each, what two of them decide otherwise, and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unoic_cli.data.batch import Batch
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
    pairs : (M, F, K, 2) int64
        Of each class units that the first alone has right, and that a method alone has right.
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
        self.pairs = np.zeros((len(ways.members), ways.n_tables, ways.n_classes, 2), dtype=np.int64)
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
        """Units that are decided otherwise."""
        units = np.flatnonzero((theirs != ours) & (labels >= 0))
        own, tables = labels[units], batch.tables[units]
        self.moved[i] += np.bincount(tables, minlength=self.ways.n_tables)
        for side, decided in enumerate((theirs[units], ours[units])):
            right = decided == own
            np.add.at(self.pairs[i, :, :, side], (tables[right], own[right]), 1)

    def _by_image(self, batch: Batch, labels: Any, decided: Sequence[Any]) -> None:
        """Add to the counts of every image of a batch."""
        assert self.before is not None
        part, k = batch.part, self.ways.n_classes
        samples, place = np.unique(part.sample_of_units(), return_inverse=True)
        kept = labels >= 0
        own, cells = labels[kept], place[kept].astype(np.int64) * k

        def table(who: Any) -> NDArray[np.int64]:
            return np.bincount(cells + who, minlength=samples.size * k).reshape(-1, k)

        found = [table(own)]
        for one in decided:
            right = one[kept] == own
            hits = np.bincount((cells + own)[right], minlength=samples.size * k).reshape(-1, k)
            found += [table(one[kept]), hits]
        names = None if part.block.sample_id is None else dict(zip(part.samples, part.block.sample_id, strict=True))
        first = self.before[part.source.name][1]
        for i, sample in enumerate(samples.tolist()):
            name = str(first + sample) + ("" if names is None else f" {names[sample]}")
            counts = np.stack([one[i] for one in found])
            self.images[name] = self.images[name] + counts if name in self.images else counts

    def counters(self) -> Counters:
        """What was counted so far."""
        return {
            "ways": {str(i): tally.counters() for i, tally in enumerate(self.tallies)},
            "moved": self.moved,
            "pairs": self.pairs,
            "images": self.images,
            "kept": {} if self.keeper is None else self.keeper.counters(),
        }

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what a tally like this one counted elsewhere."""
        for i, tally in enumerate(self.tallies):
            tally.absorb(counters["ways"][str(i)])
        self.moved, self.pairs = added(self.moved, counters["moved"]), added(self.pairs, counters["pairs"])
        self.images = added(self.images, dict(counters["images"]))
        if self.keeper is not None:
            self.keeper.absorb(counters["kept"])
