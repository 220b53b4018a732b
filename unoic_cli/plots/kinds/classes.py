"""What a calibration makes of each class: a dumbbell from before to after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.errors import DataError, UsageError
from unoic_cli.plots.lambdas import lambdas
from unoic_cli.plots.look import COLOURS, GREY, SMALL, add_legend, distinct, drawing, grow, label_of, plain_ticks
from unoic_cli.plots.results import Result, integers, number_of, numbers_of, result_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from unoic_cli.plots.options import PlotOptions

ABOUT = "recall (precision, IoU, F1) of each class, before and after"
INPUTS = "one result of search-lambda, or of evaluate with a calibration (--format json), or a state of it"
OPTIONS = ("metric", "lam", "sort", "most")
RATIO, PANELS = 0.62, 1
METRICS = {"recall": "recall", "precision": "precision", "iou": "IoU", "f1": "F1"}
"""And their names in the picture."""
SORTS = ("training", "labels", "change")
USUAL, MOST = 40, 120
"""Classes that are shown where nobody asks, and at most."""
_SCHEMAS = {"SearchResult": "unoic search-lambda", "EvaluateResult": "unoic evaluate with --calibration"}
_ROW, _FRAME = 0.135, 0.62
"""Inches of a class, and of all else but the legend."""
_LETTERS = 6.0
"""Letters of a name for each inch of the figure."""
_KINDS = (("higher", COLOURS[0], ">"), ("lower", COLOURS[1], "<"), ("as it was", GREY, "o"))


@dataclass(frozen=True)
class Classes:
    """What is known of each class.

    Attributes
    ----------
    where : str
        Where it came from, for messages.
    names : tuple of str
        (K,), as they are drawn.
    support : (K,) int64
        Labelled units.
    training : (K,) float64 or None
        Counts of the training data, or their shares.
    before, after : (K, 2) int64
        Units that are predicted as the class, and those of them whose label it is.
    lam : float
        What was applied.
    ignored : tuple of int
        Classes whose units are left out.
    """

    where: str
    names: tuple[str, ...]
    support: NDArray[np.int64]
    training: NDArray[np.float64] | None
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    lam: float
    ignored: tuple[int, ...] = ()

    def rates(self, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A metric before and after, (K,) each; NaN where there is none."""
        return self._rate(self.before, metric), self._rate(self.after, metric)

    def _rate(self, counted: NDArray[np.int64], metric: str) -> NDArray[np.float64]:
        predicted, hits = counted.T
        both = self.support + predicted
        top, bottom = {
            "recall": (hits, self.support),
            "precision": (hits, predicted),
            "iou": (hits, both - hits),
            "f1": (2 * hits, both),
        }[metric]
        found = np.full(hits.size, np.nan)
        np.divide(top, bottom, out=found, where=bottom > 0)
        found[[k for k in self.ignored if 0 <= k < found.size]] = np.nan
        return found


@dataclass(frozen=True)
class _Asked:
    """What is shown: the metric, the classes from top to bottom, and by what they are sorted."""

    metric: str
    order: NDArray[np.intp]
    sort: str


def classes(
    result: Any,
    ax: Axes | None = None,
    *,
    metric: str = "recall",
    lam: float | None = None,
    sort: str | None = None,
    most: int | None = None,
) -> Axes:
    """Draw a metric of each class before and after a calibration.

    Parameters
    ----------
    result : SearchResult, EvaluateResult, dict, or path
        Of a search: the scores as they are against the chosen lambda.
    ax : Axes, optional
        Where to draw; by default in a figure of its own, 6.9 inches wide and as high as there are classes.
    metric : {"recall", "precision", "iou", "f1"}
    lam : float, optional
        Instead of the chosen one: another of the curve of a search (a result in memory, or a state, knows them all).
    sort : {"training", "labels", "change"}, optional
        Classes of most training data first (by default, where that is known), of most labels, or that gain most.
    most : int, optional
        Of more classes than these those that change most are shown; by default 40.

    Returns
    -------
    Axes
        The first line has the values before, those after it the values after, of classes that are higher, lower, and as
        they were, in percent; classes are at 0, 1 ... from the top.

    Raises
    ------
    UnoicError
        No such result, or nothing was applied.

    Examples
    --------
    >>> import unoic_cli
    >>> from unoic_cli import plots
    >>> scores = [[2.0, 1.5], [2.0, 0.0], [1.0, 3.0]]
    >>> ax = plots.classes(unoic_cli.evaluate(scores, [1, 0, 1], lam=1, source_prior=[3, 1]))
    >>> [text.get_text() for text in ax.get_yticklabels()], ax.lines[0].get_xdata().tolist()
    (['1', '0'], [50.0, 100.0])
    """
    found = _found(result_of(result, "classes", _SCHEMAS), lam)
    asked = _asked(found, metric, sort, most)
    with drawing(ax, RATIO) as ax:
        _draw(ax, found, asked)
    return ax


def load(inputs: Any, options: PlotOptions) -> Classes:
    """The classes of the result that was named."""
    given = options["lam"]
    wanted = lambdas(given, ()) if given is not None and len(given) else ()
    if len(wanted) > 1:
        raise UsageError("--lambda", f"{len(wanted)} lambdas of a plot of classes", "expected one")
    return _found(result_of(inputs, "classes", _SCHEMAS), wanted[0] if wanted else None)


def draw(found: Classes, ax: Axes, options: PlotOptions) -> dict[str, Any]:
    """Draw them, and say what was drawn."""
    metrics = list(options["metric"]) or ["recall"]
    if len(metrics) > 1:
        raise UsageError("--metric", f"{len(metrics)} metrics of a plot of classes", "expected one")
    asked = _asked(found, metrics[0], options["sort"], options["most"])
    _draw(ax, found, asked)
    before, after = ([_known(one) for one in rates.tolist()] for rates in found.rates(asked.metric))
    shown = [{"class": k, "name": found.names[k], "before": before[k], "after": after[k]} for k in asked.order.tolist()]
    about = {"n_classes": len(found.names), "sort": asked.sort, "classes": shown}
    return {"metrics": [asked.metric], "lambdas": [0.0, found.lam], **about}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ------------------------------------------------------------------------------------------------
# what is known


def _found(result: Result, lam: float | None) -> Classes:
    content, where = result.content, result.where
    counts, lam = _counts(result, lam)
    if not isinstance(counts, Mapping) or not isinstance(counts.get("before"), Mapping):
        expected = "expected one of --calibration or --lambda: unoic evaluate FILE -c c.json --format json"
        raise DataError(where, "a result without before and after of each class", expected)
    support = integers(counts.get("support"), where, "counts.support")
    if not support.size:
        raise DataError(where, "counts of no class", "expected one at least")
    before, after = (_predicted(counts.get(one), where, f"counts.{one}", support) for one in ("before", "after"))
    names = tuple(map(label_of, names_of(content, support.size)))
    ignored = content.get("ignore_index")
    known = ignored if isinstance(ignored, (list, tuple)) else ()
    left_out = tuple(one for one in known if isinstance(one, int) and not isinstance(one, bool))
    return Classes(where, names, support, _training(content, where, support.size), before, after, lam, left_out)


def _counts(result: Result, lam: float | None) -> tuple[Any, float]:
    """Counts of each class before and after, and the lambda of these."""
    chosen = number_of(result.content.get("lambda"), result.where, "lambda")
    if lam is None or lam == chosen:
        return result.content.get("counts"), chosen
    lams = getattr(result.made, "lams", None)
    if lams is None:
        found = f"{lam:g}, where {result.where} has the classes at {chosen:g} alone"
        raise UsageError("--lambda", found, "expected a state of unoic search-lambda (--state), which has all")
    near = float(lams[np.abs(lams - lam).argmin()])
    if abs(near - lam) > 1e-9:
        raise UsageError(
            "--lambda", f"{lam:g}, which is no point of the curve", f"expected one of it, such as {near:g}"
        )
    return result.made.counted(near), near


def _predicted(content: Any, where: str, what: str, support: NDArray[np.int64]) -> NDArray[np.int64]:
    """(K, 2): predictions of each class, and those that are right."""
    parts = content if isinstance(content, Mapping) else {}
    both = [integers(parts.get(name), where, f"{what}.{name}", support.size) for name in ("predicted", "hits")]
    if (both[1] > np.minimum(both[0], support)).any():
        raise DataError(where, f"{what}: more hits than predictions or labels", "expected counts of one data set")
    return np.stack(both, axis=1)


def names_of(content: Mapping[str, Any], n_classes: int) -> list[str]:
    """Names of the classes, as a result has them; else their numbers."""
    rows, calibration = content.get("per_class"), content.get("calibration")
    found = [one.get("name") if isinstance(one, Mapping) else None for one in rows] if isinstance(rows, list) else None
    if found is None and isinstance(calibration, Mapping):
        found = calibration.get("class_names")
    told = isinstance(found, (list, tuple)) and len(found) == n_classes and all(isinstance(one, str) for one in found)
    return [str(one) for one in found] if told and found is not None else list(map(str, range(n_classes)))


def _training(content: Mapping[str, Any], where: str, n_classes: int) -> NDArray[np.float64] | None:
    """Class counts of the training data, or frequencies, where they are known."""
    prior = content.get("source_prior")
    if not isinstance(prior, Mapping):
        return None
    name = "values" if prior.get("counts") is None else "counts"
    found = numbers_of(prior.get(name), where, f"source_prior.{name}")
    if found.size != n_classes or not np.isfinite(found).all():
        raise DataError(where, f"source_prior.{name} of {found.size} classes", f"expected {n_classes} numbers")
    return found


def _asked(found: Classes, metric: str, sort: str | None, most: int | None) -> _Asked:
    if metric.lower() not in METRICS:
        raise UsageError("--metric", f"{metric!r} of each class", f"expected one of {', '.join(METRICS)}")
    by = ("labels" if found.training is None else "training") if sort is None else sort
    if by not in SORTS:
        raise UsageError("--sort", f"{by!r}", f"expected one of {', '.join(SORTS)}")
    if by == "training" and found.training is None:
        expected = "expected labels, change, or a result of unoic search-lambda"
        raise UsageError("--sort", f"training, which {found.where} does not know", expected)
    limit = USUAL if most is None else most
    if not 1 <= limit <= MOST:
        raise UsageError("--most", str(limit), f"expected 1 to {MOST}")
    before, after = found.rates(metric.lower())
    change = after - before
    kept = np.argsort(-np.where(np.isnan(change), -1.0, np.abs(change)), kind="stable")[:limit]
    kept = np.sort(kept)
    keys = {"labels": found.support, "training": found.training, "change": np.where(np.isnan(change), -2.0, change)}
    key = np.asarray(keys[by])[kept]
    return _Asked(metric.lower(), kept[np.argsort(-key, kind="stable")], by)


# ------------------------------------------------------------------------------------------------
# drawing


def _draw(ax: Axes, found: Classes, asked: _Asked) -> None:
    from matplotlib.lines import Line2D

    order, called = asked.order, METRICS[asked.metric]
    grow(ax, _FRAME + _ROW * (order.size + 1))
    before, after = (100 * one[order] for one in found.rates(asked.metric))
    rows = np.arange(order.size)
    ax.plot(before, rows, "o", markersize=4, markerfacecolor="white", markeredgecolor=GREY, mew=0.9, zorder=3)
    become = _become(before, after)
    for (word, colour, marker), where in zip(_KINDS, become, strict=True):
        ax.plot(after[where], rows[where], marker, markersize=4.5, color=colour, mew=0, zorder=4, label=word)
    for (_, colour, _), where in zip(_KINDS[:2], become, strict=False):
        ax.hlines(rows[where], before[where], after[where], color=colour, linewidth=1.4, zorder=2)
    ax.set_xlim(-2, 102)
    ax.set_ylim(order.size - 0.4, -0.6)
    ax.set_xlabel(f"{called} (%), λ = 0 → {found.lam:.4g}")
    ax.xaxis.grid(visible=True, color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)
    _names(ax, found, asked, rows)
    n = len(found.names)
    if order.size < n:
        text = f"{order.size} of {n:,} classes,\nwhose {called} changes most"
        ax.set_title(text, loc="left", fontsize=SMALL, color=GREY, pad=11)
    hollow = Line2D([], [], linestyle="", marker="o", markersize=4, markerfacecolor="white", color=GREY, label="before")
    made = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, mew=0, label=f"after, {word}")
        for (word, colour, marker), where in zip(_KINDS[:2], become, strict=False) if where.any()
    ]  # fmt: skip
    add_legend(ax, [hollow, *made], across=True)


def _become(before: NDArray[np.float64], after: NDArray[np.float64]) -> Sequence[NDArray[np.bool_]]:
    """Which classes are higher, lower, and as they were, or have no value before."""
    higher, lower = after > before, after < before
    return higher, lower, ~higher & ~lower


def _names(ax: Axes, found: Classes, asked: _Asked, rows: NDArray[np.intp]) -> None:
    """Names of the classes to the left, and how many units they have to the right."""
    figure: Any = ax.get_figure(root=True)
    most = int(min(40.0, max(10.0, _LETTERS * figure.get_figwidth())))
    names = distinct(found.names, most)
    ax.set_yticks(rows, labels=[names[k] for k in asked.order.tolist()])
    ax.tick_params(axis="y", length=0)
    plain_ticks(ax.yaxis)
    known = found.support if asked.sort == "labels" or found.training is None else found.training
    texts = [f"{one:,.0f}" if known.max() > 1 else f"{100 * one:.3g} %" for one in known[asked.order].tolist()]
    heading = "labels" if known is found.support else "training"
    how: dict[str, Any] = {"color": GREY, "fontsize": SMALL - 1, "transform": ax.get_yaxis_transform()}
    for row, text in zip(rows.tolist(), texts, strict=True):
        ax.text(1.02, row, text, ha="left", va="center", **how)
    ax.text(1.02, -0.75, heading, ha="left", va="bottom", **how)
