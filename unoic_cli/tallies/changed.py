"""The rows whose decision changes from one method to another: all are counted, those that change most are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.rule import Rule
from unoic_cli.data.batch import Batch, Scores
from unoic_cli.tallies.shown import Deciding
from unoic_cli.tallies.tally import Counters, added
from unoic_cli.tallies.ways import Way

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNTS = ("n", "changed", "now_right", "now_wrong", "both_wrong", "changed_unlabelled")
"""Rows; labelled ones that are decided otherwise, which are right, wrong, and as wrong as before; and those without."""


class ChangedRow(NamedTuple):
    """A row whose decision changes, from class b before to class a after.

    Attributes
    ----------
    log_odds : float
        How far it moved past the tie, in nats: log(P(a) / P(b)) after, which is below 0 before. Infinite where b has
        no probability any more.
    place : int
        Among the rows of all files, from 0.
    file : str
    row : int
        In this file, from 0.
    sample_id : str or None
    label : int
        -1 where there is none.
    before, after : int
        Classes.
    p_before_of_before, p_before_of_after, p_after_of_before, p_after_of_after : float
        Probabilities before and after, of the class before and of the class after.
    """

    log_odds: float
    place: int
    file: str
    row: int
    sample_id: str | None
    label: int
    before: int
    after: int
    p_before_of_before: float
    p_before_of_after: float
    p_after_of_before: float
    p_after_of_after: float

    @property
    def order(self) -> tuple[float, int]:
        """The row that changes most first; equals in the order of the data."""
        return -self.log_odds, self.place


@dataclass(frozen=True)
class Posterior:
    """What the probabilities of a method are made of.

    Attributes
    ----------
    rule : Rule
    lam : float
    joint : bool
        Of a single sum of scores, not of those of each modality.
    """

    rule: Rule
    lam: float
    joint: bool

    def logs(self, batch: Batch, entries: NDArray[np.int64], decided: NDArray[np.int32]) -> NDArray[np.float64]:
        """Log-probabilities of some entries of a batch, (n, K); `decided` is the largest of each."""
        whole = (batch.scores,) if self.joint else batch.modalities
        some = tuple(_taken(one, entries) for one in whole if one is not None)
        part = replace(batch, n_units=entries.size, scores=some[0], modalities=some)
        out = np.empty(entries.size * self.rule.n_classes)
        if entries.size:
            Fuser(self.rule, [self.lam]).write(part, True, out, 0, decided)
        return out.reshape(entries.size, self.rule.n_classes)


def _taken(scores: Scores, entries: NDArray[np.int64]) -> Scores:
    """Scores of some units, as rows."""
    if scores.pixels:
        image, pixel = np.divmod(entries, scores.pixels)
        rows = scores.raw.reshape(-1, scores.n_classes, scores.pixels)[image, :, pixel]
    else:
        rows = scores.raw.reshape(-1, scores.n_classes)[entries]
    delta, slope = (one[entries] if one.size > 1 else one for one in (scores.delta, scores.slope_factor))
    raw = np.ascontiguousarray(rows).reshape(-1)
    return replace(scores, raw=raw, delta=delta, slope_factor=slope, n_units=entries.size, pixels=0)


class RowTally(Deciding):
    """Counts the rows whose decision changes from the first method to the last, and keeps those that change most.

    Parameters
    ----------
    ways, before
        As of `Deciding`: two methods.
    posteriors : sequence of Posterior
        Of both.
    most : int
        Rows that are kept.
    fields : frozenset of str
        Of labels and sample_id those that there are.

    Attributes
    ----------
    counts : dict of str to int
        By `COUNTS`.
    rows : list of ChangedRow
        In order.
    """

    def __init__(
        self, ways: Sequence[Way], before: Mapping[str, tuple[int, int]], posteriors: Sequence[Posterior], most: int,
        fields: frozenset[str],
    ) -> None:  # fmt: skip
        super().__init__(ways, before, fields)
        self.posteriors, self.most, self.fields = tuple(posteriors), most, fields
        self.counts = dict.fromkeys(COUNTS, 0)
        self.rows: list[ChangedRow] = []

    def recipe(self) -> partial[RowTally]:
        """What makes an empty tally like this one."""
        return partial(RowTally, self.ways, self.before, self.posteriors, self.most, self.fields)

    def update(self, batch: Batch) -> None:
        """Count a batch, and keep what is to be kept of it."""
        labels, made, (before, after) = self.look(batch)
        changed = before != after
        if batch.blank is not None:  # nothing is known of such a row
            changed &= ~batch.blank
        entries = np.flatnonzero(changed)
        truth, was, now = labels[entries], before[entries], after[entries]
        told, right, wrong = truth >= 0, now == truth, was == truth
        found = (batch.n_units, told.sum(), right.sum(), wrong.sum(), (told & ~right & ~wrong).sum(), (~told).sum())
        self.counts = added(self.counts, dict(zip(COUNTS, map(int, found), strict=True)))
        if entries.size:
            self._keep(batch, made, entries, truth, was, now)

    def _keep(
        self, batch: Batch, made: Sequence[Batch], entries: NDArray[np.int64], truth: NDArray[np.int32],
        was: NDArray[np.int32], now: NDArray[np.int32],
    ) -> None:  # fmt: skip
        """Keep those of the changed entries that change most."""
        every = np.arange(entries.size)
        late = self.posteriors[1].logs(made[1], entries, now)
        past = late[every, now] - late[every, was]
        if len(self.rows) == self.most:
            every = every[past >= self.rows[-1].log_odds]
        every = every[np.lexsort((every, -past[every]))[: self.most]]
        early = self.posteriors[0].logs(made[0], entries[every], was[every])
        part, first = batch.part, self.before[batch.part.source.name][0]
        ids = part.block.sample_id
        kept = []
        for i, one in zip(every.tolist(), early, strict=True):
            row = part.unit_of(int(entries[i]))
            a, b = int(was[i]), int(now[i])
            logs = (float(one[a]), float(one[b]), float(late[i, a]), float(late[i, b]))
            sample = None if ids is None else str(ids[entries[i]])
            named = (first + row, part.source.name, row, sample, int(truth[i]), a, b)
            kept.append(ChangedRow(float(past[i]), *named, *map(math.exp, logs)))
        self._take(kept)

    def _take(self, rows: Sequence[ChangedRow]) -> None:
        self.rows = sorted([*self.rows, *rows], key=lambda one: one.order)[: self.most]

    def counters(self) -> Counters:
        """What was counted, and kept, so far."""
        return {"counts": self.counts, "rows": {json.dumps(row): 1 for row in self.rows}}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what a tally like this one counted elsewhere."""
        self.counts = added(self.counts, dict(counters["counts"]))
        self._take([ChangedRow(*json.loads(text)) for text in counters["rows"]])

    def add(self, other: RowTally) -> None:
        """Take over what another thread counted."""
        self.counts = added(self.counts, other.counts)
        self._take(other.rows)
