"""Boundaries of decisions in the plane of two features, at several lambdas."""

from __future__ import annotations

import contextvars
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli import formats
from unoic_cli.api.functions import command
from unoic_cli.calls import as_array
from unoic_cli.commands.calibrate import calibrate
from unoic_cli.errors import DataError, UsageError, Warned
from unoic_cli.formats.block import IGNORED_LABELS, Source
from unoic_cli.plots.arrays import read_arrays
from unoic_cli.plots.lambdas import lambdas
from unoic_cli.plots.look import COLOURS, MARKERS, MOST_LINES, add_legend, drawing, label_of, style
from unoic_cli.resolve import inputs as names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from unoic_cli.plots.options import PlotOptions

ABOUT = "boundaries of decisions in the plane, at several lambdas"
INPUTS = "one logits file (HDF5 or npz) of a grid, whose places are an array points (N, 2) in the same file"
OPTIONS = ("lam", "points", "source_prior")
RATIO, PANELS = 1.0, 1
USUAL = (0.0, 0.5, 1.0, 2.0)
_EXPECTED = "expected one logits file with points (N, 2): HDF5 or npz"
_LOWEST = -1e30
"""Instead of the log-probability of a class that is never predicted, so that differences exist."""


@dataclass(frozen=True)
class Plane:
    """What is known of each node of a grid.

    Attributes
    ----------
    x, y : (W,), (H,) float64
        Coordinates of the columns and rows, rising.
    lams : tuple of float
    scores : dict of float to (H, W, K) float64
        Calibrated log-probabilities by lambda.
    names : tuple of str
        Of the classes, as they are drawn.
    source_prior : str
        Where the source prior came from.
    points : (P, 2) float64 or None
        What is drawn beneath.
    labels : (P,) int64 or None
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    lams: tuple[float, ...]
    scores: dict[float, NDArray[np.float64]]
    names: tuple[str, ...]
    source_prior: str
    points: NDArray[np.float64] | None = None
    labels: NDArray[np.int64] | None = None


def boundary(
    grid: Any,
    ax: Axes | None = None,
    *,
    lams: float | Sequence[float] | None = None,
    points: Any = None,
    source_prior: Any = None,
) -> Axes:
    """Draw where decisions change in the plane of two features, at several lambdas.

    Parameters
    ----------
    grid : path
        A logits file (HDF5 or npz) with rows for the nodes of a grid, in any order, and their places: ``points``,
        (N, 2).
    ax : Axes, optional
        Where to draw; by default in a figure of its own, 6.9 inches wide.
    lams : sequence of float, optional
        By default 0, 0.5, 1 and 2.
    points : path, or (points, labels), optional
        What is drawn beneath: features (P, 2) and classes (P,), such as the training data.
    source_prior : str, path or (K,) array, optional
        Class frequencies in training; by default what the file stores.

    Returns
    -------
    Axes
        The boundary of each lambda is a line; its pieces are parted by NaN.

    Raises
    ------
    UnoicError
        Points that are no grid, scores of another shape, or none.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from unoic_cli import plots
    >>> x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "grid.npz")
    ...     np.savez(path, logits=np.stack([x, -x], axis=1), points=np.stack([x, y], axis=1))
    ...     ax = plots.boundary(path, lams=[0, 1], source_prior=[0.8, 0.2])
    >>> [round(float(np.nanmean(line.get_xdata())), 3) for line in ax.lines]  # x = lambda * log(0.8 / 0.2) / 2
    [0.0, 0.693]
    """
    plane = _plane(grid, lams, points, source_prior, None)
    with drawing(ax, RATIO) as ax:
        _draw(ax, plane)
    return ax


def load(inputs: Any, options: PlotOptions) -> Plane:
    """The grid that was named, with its log-probabilities at every lambda."""
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    if not isinstance(given, (list, tuple)) or len(given) != 1:
        found = f"{len(given)} inputs" if isinstance(given, (list, tuple)) else f"a {type(given).__name__}"
        raise UsageError("INPUTS", f"{found} of a plot of boundary", _EXPECTED)
    return _plane(given[0], options["lam"], options["points"], options["source_prior"], options["tell"])


def draw(plane: Plane, ax: Axes, options: PlotOptions) -> dict[str, Any]:
    """Draw it, and say what was drawn."""
    _draw(ax, plane)
    n_points = 0 if plane.points is None else len(plane.points)
    grid = [plane.x.size, plane.y.size]
    prior = plane.source_prior
    return {"lambdas": list(plane.lams), "source_prior": prior, "grid": grid, "n_points": n_points}


# ------------------------------------------------------------------------------------------------
# the grid and its decisions


def _plane(
    grid: Any, lams: Any, points: Any, source_prior: Any, tell: Callable[[str], None] | None
) -> Plane:  # fmt: skip
    wanted = lambdas(lams, USUAL)
    path = names.single(os.fspath(grid), names.expanded([os.fspath(grid)]))
    source = formats.describe(path)
    _check(source, path)
    x, y, order = regular(_points(path, source.n_samples), f"{path}:points")
    hear, scores, prior = _once(tell), {}, ""
    for lam in wanted:
        scores[lam], prior = _posterior(path, lam, source_prior, hear)
        scores[lam] = scores[lam][order]
    beneath, labels = (None, None) if points is None else _beneath(points, source.n_classes)
    known = source.class_names or map(str, range(source.n_classes))
    return Plane(x, y, wanted, scores, tuple(map(label_of, known)), prior, beneath, labels)


def _once(tell: Callable[[str], None] | None) -> Callable[[str], None]:
    """Passes warnings on, each once, as every lambda has the same; notes are about an output that nobody keeps."""
    said: set[str] = set()

    def hear(text: str) -> None:
        if tell is not None and isinstance(text, Warned) and text not in said:
            said.add(text)
            tell(text)

    return hear


def _check(source: Source, path: str) -> None:
    if source.kind == "predictions":
        raise DataError(path, "predictions", "expected scores: logits, log_probs or probs")
    if source.image_shape:
        shape = ", ".join(map(str, source.image_shape))
        raise DataError(path, f"images ({shape})", "expected rows (N, K), one for each node of a grid")
    if source.n_classes > MOST_LINES:
        raise DataError(path, f"{source.n_classes} classes", f"expected {MOST_LINES} at most, to be told apart")


def _points(path: str, n: int) -> NDArray[np.float64]:
    """Places of the nodes, (N, 2)."""
    found = read_arrays(path, ("points",))["points"]
    return checked_points(found, f"{path}:points", n)


def checked_points(found: NDArray[Any], where: str, n: int | None = None) -> NDArray[np.float64]:
    """Places in the plane, as floats.

    Raises
    ------
    DataError
        Another shape or type, or a number that is not finite.
    """
    expected = f"expected ({'P' if n is None else n}, 2) numbers"
    if found.ndim != 2 or found.shape[1] != 2 or (n is not None and found.shape[0] != n):
        raise DataError(where, f"shape {found.shape}", expected)
    if found.dtype.kind not in "fiu":
        raise DataError(where, f"dtype {found.dtype}", expected)
    plain = found.astype(np.float64)
    if not np.isfinite(plain).all():
        raise DataError(where, "a coordinate that is not finite", "expected finite numbers")
    return plain


def regular(
    points: NDArray[np.float64], where: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:  # fmt: skip
    """The axes of a grid, and where its nodes are among the points.

    Parameters
    ----------
    points : (N, 2) float64
        In any order.
    where : str
        For messages.

    Returns
    -------
    x, y : (W,), (H,) float64
    order : (H, W) int
        The row of each node.

    Raises
    ------
    DataError
        They are no grid.

    Examples
    --------
    >>> x, y, order = regular(np.array([[0.0, 1.0], [2.0, 1.0], [2.0, 5.0], [0.0, 5.0]]), "grid.h5:points")
    >>> x.tolist(), y.tolist(), order.tolist()
    ([0.0, 2.0], [1.0, 5.0], [[0, 1], [3, 2]])
    """
    (x, columns), (y, rows) = (_levels(points[:, i]) for i in (0, 1))
    order = np.full((y.size, x.size), -1) if x.size * y.size == len(points) else np.empty((0, 0), dtype=int)
    if order.size:
        order[rows, columns] = np.arange(len(points))
    if min(x.size, y.size) < 2 or not order.size or order.min() < 0:
        found = f"{len(points)} points at {x.size} x {y.size} different coordinates"
        raise DataError(where, found, "expected a grid: every x with every y, once, two of each at least")
    return x, y, order.astype(np.intp)


def _levels(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Coordinates that differ by more than rounding, and which of them each value is."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    near = 1e-6 * (ranked[-1] - ranked[0]) / max(1.0, np.sqrt(values.size))
    starts = np.concatenate([[True], np.diff(ranked) > near])
    which = np.empty(values.size, dtype=np.intp)
    which[order] = np.cumsum(starts) - 1
    return ranked[starts], which


def _posterior(
    path: str, lam: float, prior: Any, tell: Callable[[str], None]
) -> tuple[NDArray[np.float64], str]:  # fmt: skip
    """Calibrated log-probabilities (N, K), as `calibrate` writes them, and where the source prior came from."""
    given = {} if prior is None or (isinstance(prior, (list, tuple)) and not prior) else {"source_prior": prior}

    def written() -> tuple[NDArray[Any], str]:
        with tempfile.TemporaryDirectory() as folder:
            output = os.path.join(folder, "grid.h5")
            made = command(calibrate)(path, output=output, lam=lam, emit="log-probs", tell=tell, **given)
            return read_arrays(output, ("log_probs",))["log_probs"], made.calibration.source_prior.origin

    found, origin = contextvars.Context().run(
        written
    )  # in a context of its own, as it is no output that waits for others
    return np.maximum(found.astype(np.float64), _LOWEST), origin


def _beneath(given: Any, n_classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points and labels to draw, without those that are ignored."""
    if isinstance(given, (str, os.PathLike)):
        where = os.fspath(given)
        found = read_arrays(where, ("points", "labels"))
        points, labels = found["points"], found["labels"]
    else:
        where = "points"
        if not isinstance(given, (list, tuple)) or len(given) != 2:
            raise UsageError("points", f"a {type(given).__name__}", "expected a file, or (points, labels)")
        points, labels = (as_array(one, where) for one in given)
    places = checked_points(points, f"{where}:points")
    if labels.shape != places.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(f"{where}:labels", f"{labels.dtype} {labels.shape}", f"expected {len(places)} integers")
    kept = ~np.isin(labels, [one for one in IGNORED_LABELS if not 0 <= one < n_classes])
    wrong = labels[kept & ((labels < 0) | (labels >= n_classes))]
    if wrong.size:
        raise DataError(f"{where}:labels", f"class {wrong[0]}", f"expected classes below {n_classes}")
    return places[kept], labels[kept].astype(np.int64)


# ------------------------------------------------------------------------------------------------
# drawing


def _draw(ax: Axes, plane: Plane) -> None:
    shown = [] if plane.points is None else list(_scattered(ax, plane))
    lines = []
    for i, lam in enumerate(plane.lams):
        one = style(i)
        x, y = joined(edges(plane, lam))
        lines += ax.plot(x, y, color=one.colour, linestyle=one.line, linewidth=1.4, label=f"λ = {lam:.4g}", zorder=3)
    ax.set_xlim(plane.x[0], plane.x[-1])
    ax.set_ylim(plane.y[0], plane.y[-1])
    ax.set(xlabel="x₁", ylabel="x₂")
    wide, high = np.ptp(plane.x), np.ptp(plane.y)
    ax.set_aspect("equal" if 0.5 <= wide / high <= 2 else "auto")
    add_legend(ax, [*lines, *shown])


def _scattered(ax: Axes, plane: Plane) -> Iterator[Any]:
    """Points of each class, with a marker of its own; yields what stands for them in the legend."""
    assert plane.points is not None and plane.labels is not None
    rare = np.argsort(-np.bincount(plane.labels, minlength=len(plane.names)), kind="stable")
    for k in rare.tolist():  # the rarest last, above the others
        places = plane.points[plane.labels == k]
        if len(places):
            marker, colour = MARKERS[k % len(MARKERS)], COLOURS[-1 - k % len(COLOURS)]
            yield ax.scatter(
                places[:, 0], places[:, 1], s=9, alpha=0.55, linewidths=0, label=plane.names[k], marker=marker,
                color=colour, rasterized=len(places) > 2000,
            )  # fmt: skip


def edges(plane: Plane, lam: float) -> list[NDArray[np.float64]]:
    """Lines along which the decision changes, each once.

    Parameters
    ----------
    plane : Plane
    lam : float
        One of its lambdas.

    Returns
    -------
    list of (n, 2) float64
    """
    from contourpy import contour_generator

    scores = plane.scores[lam]
    found: list[NDArray[np.float64]] = []
    for one, other in _touching(scores.argmax(axis=2)):
        level = contour_generator(plane.x, plane.y, scores[..., one] - scores[..., other])
        third = np.delete(scores, [one, other], axis=2) - scores[..., [one]]
        lines: Any = level.lines(0.0)
        found += [piece for line in lines for piece in _below(plane, line, third)]
    return found


def _touching(decided: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Pairs of classes that are decided within one cell of the grid."""
    corners = [decided[:-1, :-1], decided[:-1, 1:], decided[1:, :-1], decided[1:, 1:]]
    pairs = [np.stack([a, b], axis=-1).reshape(-1, 2) for a, b in itertools.combinations(corners, 2)]
    known: NDArray[np.intp] = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    return [(one, other) for one, other in known.tolist() if one != other]


def joined(lines: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lines as one, whose pieces are parted by NaN.

    Examples
    --------
    >>> joined([np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([[4.0, 5.0]])])[0].tolist()
    [0.0, 2.0, nan, 4.0, nan]
    """
    parted = [np.concatenate([line, [[np.nan, np.nan]]]) for line in lines]
    whole = np.concatenate([np.empty((0, 2)), *parted])
    return whole[:, 0], whole[:, 1]


def _below(plane: Plane, line: NDArray[np.float64], others: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """The pieces of a line along which no other class, (H, W, L), is ahead; cut where one draws level."""
    values = _between(plane, line, others).max(axis=1, initial=_LOWEST)
    crossed = np.flatnonzero((values[1:] > 0) != (values[:-1] > 0))
    share = values[crossed] / (values[crossed] - values[crossed + 1])
    cuts = line[crossed] + share[:, None] * (line[crossed + 1] - line[crossed])
    cut, level = np.insert(line, crossed + 1, cuts, axis=0), np.insert(values, crossed + 1, 0.0)
    ends = np.flatnonzero(np.diff(np.concatenate([[False], level <= 0, [False]]).astype(np.int8)))
    yield from (cut[a:b] for a, b in zip(ends[::2], ends[1::2], strict=True) if b - a > 1)


def _between(plane: Plane, line: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the nodes, (H, W, L), at the points of a line, (n, 2): bilinear."""
    (i, u), (j, v) = (_place(axis, line[:, n]) for n, axis in ((0, plane.x), (1, plane.y)))
    low = (1 - u) * values[j, i] + u * values[j, i + 1]
    high = (1 - u) * values[j + 1, i] + u * values[j + 1, i + 1]
    return np.asarray((1 - v) * low + v * high)


def _place(axis: NDArray[np.float64], at: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The cell of an axis, and how far along it, (n, 1)."""
    cell = np.clip(np.searchsorted(axis, at, side="right") - 1, 0, axis.size - 2)
    return cell, np.clip((at - axis[cell]) / (axis[cell + 1] - axis[cell]), 0.0, 1.0)[:, None]
