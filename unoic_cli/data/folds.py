"""Stratified, seeded folds that need no memory of the data: a unit's fold follows from its rank in its class.

The i-th unit of a class (in the order of the data) goes to a fold of the ``i // k``-th random
permutation of the k folds for that class, so folds hold equal numbers of every class to within
one, whatever way the data is read. Pixels of one image are alike, so images are never divided:
the rank is then that of the image, and folds are balanced in images, not in classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.data.batch import Part, check_labels
from unoic_cli.data.dataset import DataSet, Span, parts

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(*parts: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix integers to 64 pseudo-random bits (the finaliser of splitmix64, Steele et al., OOPSLA 2014)."""
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        state = (state ^ part) + _GOLDEN
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def fold_of(ranks: NDArray[np.int64], classes: NDArray[np.int64], n_folds: int, seed: int) -> NDArray[np.int32]:
    """Fold of each unit from its rank within its class.

    Parameters
    ----------
    ranks, classes : (T,) int64
        Rank in the order of the data, and class (or 0 for images).
    n_folds, seed : int
        k, and the seed of the permutations.

    Returns
    -------
    (T,) int32 in [0, k).

    Examples
    --------
    >>> folds = fold_of(np.arange(6), np.zeros(6, dtype=np.int64), 3, 0)
    >>> sorted(folds[:3].tolist()), sorted(folds[3:].tolist())
    ([0, 1, 2], [0, 1, 2])
    """
    rounds, place = ranks // n_folds, ranks % n_folds
    base = (np.uint64(seed % 2**64).reshape(1), classes.astype(np.uint64), rounds.astype(np.uint64))
    keys = np.stack([mix(*base, np.full(1, j, dtype=np.uint64)) for j in range(n_folds)])
    own = np.take_along_axis(keys, place[None, :], axis=0)[0]
    return np.asarray((keys < own).sum(axis=0), dtype=np.int32)


@dataclass(frozen=True)
class FoldPlan:
    """What a thread must know to give any span its folds.

    Attributes
    ----------
    n_folds, seed : int
    images : bool
        Images are assigned, not plain samples.
    offsets : list of (K,) int64
        Units of each class before each span; empty for images.
    image_ranks : dict of source position to (N,) int64
        Rank of each image in the data set (of the split); empty for plain samples.
    """

    n_folds: int
    seed: int
    images: bool = False
    offsets: list[NDArray[np.int64]] = field(default_factory=list)
    image_ranks: dict[int, NDArray[np.int64]] = field(default_factory=dict)


def _ranks_in_class(labels: NDArray[np.int32], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each unit among those of its label; `offsets` (K,) moves on by what the block holds."""
    order = np.argsort(labels, kind="stable")
    sorted_labels = labels[order]
    counts = np.bincount(labels, minlength=offsets.size)
    begins = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ranks = np.empty(labels.size, dtype=np.int64)
    ranks[order] = np.arange(labels.size) - begins[sorted_labels] + offsets[sorted_labels]
    offsets += counts
    return ranks


class FoldAssigner:
    """One thread's view of the plan: gives the blocks of a span their folds, in order."""

    def __init__(self, plan: FoldPlan, data: DataSet) -> None:
        self.plan = plan
        self._sources = {id(source): i for i, source in enumerate(data.sources)}
        self._offsets = np.zeros(0, dtype=np.int64)

    def begin(self, index: int) -> None:
        """Start a span."""
        if self.plan.offsets:
            self._offsets = self.plan.offsets[index].copy()

    def assign(self, labels: NDArray[np.int32], part: Part) -> NDArray[np.int32]:
        """Folds of a block's units, (T,) int32; 0 where a label is ignored and ranks are those in the class."""
        plan = self.plan
        if plan.image_ranks:
            ranks = plan.image_ranks[self._sources[id(part.source)]][part.sample_of_units()]
            return fold_of(ranks, np.zeros_like(ranks), plan.n_folds, plan.seed)
        folds = np.zeros(labels.size, dtype=np.int32)
        kept = labels >= 0
        classes = labels[kept].astype(np.int64)
        folds[kept] = fold_of(_ranks_in_class(labels[kept], self._offsets), classes, plan.n_folds, plan.seed)
        return folds


@dataclass
class Folding:
    """Units cut into folds: what is wished; the plan for some spans is made when they are first read.

    Attributes
    ----------
    n_folds, seed : int
    """

    n_folds: int
    seed: int
    _plans: dict[tuple[Any, ...], FoldPlan] = field(default_factory=dict, repr=False)

    def plan(self, data: DataSet, spans: Sequence[Span]) -> FoldPlan:
        """The plan of these spans."""
        key = tuple(data.extents(spans))
        if key not in self._plans:
            self._plans[key] = _plan(data, spans, self.n_folds, self.seed)
        return self._plans[key]


def _plan(data: DataSet, spans: Sequence[Span], n_folds: int, seed: int) -> FoldPlan:
    """Look at the labels once (not at the scores), and note how many units of each class precede each span."""
    plan = FoldPlan(n_folds, seed, data.has_images)
    if data.has_images:
        _rank_images(data, plan)
        return plan
    totals = np.zeros((len(spans) + 1, data.n_classes), dtype=np.int64)

    def count(some: Sequence[Span], place: Callable[[int], int]) -> None:
        for index, part in parts(data, some, "labels"):
            assert part.block.labels is not None
            labels, _ = check_labels(part.block.labels, data.n_classes, data.ignored, part.source, part.unit_of)
            totals[place(index)] += np.bincount(labels[labels >= 0], minlength=data.n_classes)

    if data.shard is not None:
        count(data.spans(window=(0, data.shard_units(*data.shard)[0])), lambda _: 0)
    count(spans, lambda index: index + 1)
    plan.offsets.extend(np.cumsum(totals, axis=0)[:-1])
    return plan


def _rank_images(data: DataSet, plan: FoldPlan) -> None:
    chosen = [np.full(source.n_samples, data.split is None) for source in data.sources]
    if data.split is not None:
        position = {id(source): i for i, source in enumerate(data.sources)}
        for _, part in parts(data, data.spans(window=(0, data.n_units)), "split"):
            chosen[position[id(part.source)]][part.samples] = True
    before = 0
    for i, kept in enumerate(chosen):
        plan.image_ranks[i] = before + np.cumsum(kept) - 1
        before += int(kept.sum())
