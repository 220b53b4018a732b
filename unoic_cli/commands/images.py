"""Metrics of every image by itself: their mean, their spread, and the images that are worst."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.brief import brief, in_html
from unoic_cli.commands.sampled import Gain
from unoic_cli.data.dataset import DataSet
from unoic_cli.metrics import Counted, Counts, Metric, Rules
from unoic_cli.resolve.asked import Asked

WORST = 10


@dataclass(frozen=True)
class Images:
    """Metrics of images that have labelled pixels, in the order of the data.

    Attributes
    ----------
    files : tuple of str
        (S,) the file of each.
    indices : (S,) int64
        Its place in the file.
    ids : tuple of str or None
        (S,) its `sample_id`, where files have it.
    n : (S,) int64
        Labelled pixels.
    n_empty : int
        Images without any.
    values : dict of str to (S,) float64
        By metric; NaN where it has no value.
    before : dict of str to (S,) float64 or None
        The same of the scores as they are, where something was applied.
    metrics : tuple of str
        What tables show.
    by : str
        The metric that the worst images are worst by.
    """

    files: tuple[str, ...]
    indices: NDArray[np.int64]
    ids: tuple[str, ...] | None
    n: NDArray[np.int64]
    n_empty: int
    values: dict[str, NDArray[np.float64]]
    before: dict[str, NDArray[np.float64]] | None
    metrics: tuple[str, ...]
    by: str

    __repr__ = brief
    _repr_html_ = in_html

    def name(self, i: int) -> str:
        """What an image is called: its `sample_id`, or its file and place there."""
        return self.ids[i] if self.ids is not None else f"{self.files[i]}[{self.indices[i]}]"

    def summary(self, name: str, values: NDArray[np.float64] | None = None) -> dict[str, Any]:
        """Of a metric: images that have it, mean, and quartiles with both ends."""
        known = self.values[name] if values is None else values
        known = known[np.isfinite(known)]
        if not known.size:
            return {"n": 0, "mean": None, "quartiles": None}
        return {
            "n": int(known.size),
            "mean": float(known.mean()),
            "quartiles": [float(value) for value in np.quantile(known, (0, 0.25, 0.5, 0.75, 1))],
        }

    def gain(self, name: str) -> Gain | None:
        """Of the mean over images, which are independent."""
        if self.before is None:
            return None
        moved = self.values[name] - self.before[name]
        moved = moved[np.isfinite(moved)]
        if moved.size < 2:
            return Gain(float(moved.mean()) if moved.size else math.nan)
        return Gain.around(float(moved.mean()), float(moved.std(ddof=1)) / math.sqrt(moved.size))

    def worst(self) -> list[int]:
        """The images with the lowest values of `by`; of equal ones the first."""
        values = self.values[self.by]
        order = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")[:WORST]
        return [int(i) for i in order if not math.isnan(values[i])]

    def losers(self) -> list[int]:
        """The images whose `by` falls most, those that fall most first; of equal ones the first."""
        if self.before is None:
            return []
        change = self.values[self.by] - self.before[self.by]
        order = np.argsort(np.where(change < 0, change, np.inf), kind="stable")[:WORST]
        return [int(i) for i in order if change[i] < 0]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "n": len(self.files),
            "n_empty": self.n_empty,
            "metrics": {name: self._about(name) for name in self.values},
            "worst_by": self.by,
            "worst": [self._one(i) for i in self.worst()],
            "losers": [{**self._one(i), **self._fall(i)} for i in self.losers()],
        }

    def _fall(self, i: int) -> dict[str, float]:
        """What `by` was, and how it changes."""
        assert self.before is not None
        before = float(self.before[self.by][i])
        return {"before": before, "change": float(self.values[self.by][i]) - before}

    def _about(self, name: str) -> dict[str, Any]:
        gain = self.gain(name)
        if self.before is None or gain is None:
            return self.summary(name)
        return {**self.summary(name), "before": self.summary(name, self.before[name]), **gain.to_dict()}

    def _one(self, i: int) -> dict[str, Any]:
        values = {name: float(one[i]) if np.isfinite(one[i]) else None for name, one in self.values.items()}
        sample = {} if self.ids is None else {"sample_id": self.ids[i]}
        return {"file": self.files[i], "index": int(self.indices[i]), **sample, "n": int(self.n[i]), **values}


def along_lambda(here: Images, counts: Counts, metrics: Sequence[Metric], rules: Rules) -> list[Images]:
    """The same images at every lambda of a curve.

    Parameters
    ----------
    here : Images
        At some lambda.
    counts : Counts
        (S, G, K) of all images, those without labels too; (S, 1, K) support.
    metrics : sequence of Metric
        Those of `here` among others.
    rules : Rules
    """
    support = counts.support.reshape(len(counts.hits), -1, counts.hits.shape[-1])[:, 0]
    labelled = support.any(axis=1)
    hits, predicted, support = counts.hits[labelled], counts.predicted[labelled], support[labelled]
    known = [one for one in metrics if one.name in here.values]

    def at(g: int) -> Images:
        counted = Counted(Counts(hits[:, g], predicted[:, g], support))
        values = {one.name: np.asarray(one.values(counted, rules)) for one in known}
        return replace(here, values=values)

    return [at(g) for g in range(counts.hits.shape[1])]


def images_of(found: Mapping[str, NDArray[np.int64]], data: DataSet, asked: Asked, way: int, paired: bool) -> Images:
    """From what was counted of every image; see `WaysTally.images`.

    Parameters
    ----------
    found : mapping
    data : DataSet
    asked : Asked
    way : int
        The method that is reported.
    paired : bool
        The first method is what it is compared with.
    """
    parts = {int(key.partition(" ")[0]): key for key in found}
    order = sorted(parts)
    counts = np.stack([found[parts[place]] for place in order]) if order else np.zeros((0, 3 + 2 * way, data.n_classes))
    labelled = counts[:, 0].sum(axis=1) > 0
    places = np.array(order, dtype=np.int64)[labelled]
    edges = np.cumsum([0, *(source.n_samples for source in data.sources)])
    sources = np.searchsorted(edges, places, side="right") - 1
    ids = None
    if data.has("sample_id"):
        ids = tuple(parts[place].partition(" ")[2] for place in places.tolist())
    metrics = [metric for metric in asked.metrics if metric.recipe is None]

    def values(i: int) -> dict[str, NDArray[np.float64]]:
        kept = counts[labelled]
        counted = Counted(Counts(kept[:, 2 + 2 * i], kept[:, 1 + 2 * i], kept[:, 0]))
        return {metric.name: np.asarray(metric.values(counted, asked.rules)) for metric in metrics}

    return Images(
        files=tuple(data.sources[i].name for i in sources.tolist()),
        indices=places - edges[sources],
        ids=ids,
        n=counts[labelled, 0].sum(axis=1),
        n_empty=int((~labelled).sum()),
        values=values(way),
        before=values(0) if paired else None,
        metrics=tuple(metric.name for metric in asked.shown if metric.recipe is None) or ("miou",),
        by=_worst_by(asked.shown, metrics),
    )


def _worst_by(shown: Sequence[Metric], known: Sequence[Metric]) -> str:
    """MIoU where it is shown, else the first metric of predictions that is, else mIoU all the same."""
    names = [metric.name for metric in shown if metric in known]
    return "miou" if "miou" in names or not names else names[0]
