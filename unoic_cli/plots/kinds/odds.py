"""The ratio of two source priors to the power of lambda: by how much rebalancing moves the odds of two classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.errors import DataError, UsageError
from unoic_cli.plots.lambdas import lambdas
from unoic_cli.plots.look import GREY, SMALL, Style, add_legend, drawing, label_of, shortened, style
from unoic_cli.plots.results import content_of, named_files
from unoic_cli.resolve import inputs as names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from unoic_cli.plots.options import PlotOptions

ABOUT = "the odds factor of two classes, (P_s(c_i) / P_s(c_gt))^lambda, against the ratio"
INPUTS = "none, or one calibration (or result of search-lambda): its lambda, and the ratios of its classes"
OPTIONS = ("lam", "reference", "log")
RATIO, PANELS = 0.62, 2
USUAL = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
FARTHEST = 5.0
"""The largest ratio drawn where no class has a larger one."""
_EXPECTED = "expected a calibration, or a result of unoic search-lambda"
MOST = 1e100
"""Odds that are drawn."""
_ROOM = 7.5
"""Points that must lie between the names of two classes."""
MOST_CHARACTERS = 14
"""Of such a name."""


@dataclass(frozen=True)
class Ratios:
    """What the axes show of a calibration.

    Attributes
    ----------
    lams : tuple of float
        Of its modalities.
    names : tuple of str
        Of the classes, as they are drawn.
    ratios : (K,) float64
        P_s of each over that of the reference.
    reference : str
        The class c_gt.
    """

    lams: tuple[float, ...]
    names: tuple[str, ...]
    ratios: Any
    reference: str


def odds(
    calibration: Any = None,
    ax: Axes | Sequence[Axes] | None = None,
    *,
    lams: float | Sequence[float] | None = None,
    reference: str | int | None = None,
    log: bool = False,
) -> Any:
    """Draw by how much lambda moves the odds of two classes, against the ratio of their source priors.

    Parameters
    ----------
    calibration : Calibration, SearchResult, dict or path, optional
        Its lambda is drawn wider, and the ratios of its classes to one of them are marked.
    ax : Axes, or two of them, optional
        Two have lambdas up to 1 and those above; by default in a figure of its own, 6.9 inches wide.
    lams : sequence of float, optional
        Lambdas drawn. By default 0.25 to 2 in steps of 0.25, or that of the calibration beside 0.5, 1, 1.5 and 2.
    reference : str or int, optional
        The class c_gt, by name or number; by default the middle one by frequency.
    log : bool
        Logarithmic axes: each lambda is the slope of a line.

    Returns
    -------
    Axes, or two of them
        As given; two where none are.

    Raises
    ------
    UnoicError
        No calibration, or a class that it does not have.

    Examples
    --------
    >>> from unoic_cli import plots
    >>> left, right = plots.odds(lams=[0.5, 1, 2])
    >>> [line.get_label() for line in left.lines], [line.get_label() for line in right.lines]
    (['λ = 0.5', 'λ = 1'], ['λ = 2'])
    """
    found = _ratios([] if calibration is None else [calibration], reference)
    wanted = _wanted(found, lams)
    given = ax if ax is None or not hasattr(ax, "plot") else [ax]
    with drawing(given, RATIO, PANELS) as axes:
        _draw(axes, found, wanted, log)
    return ax if hasattr(ax, "plot") else axes


def load(inputs: Any, options: PlotOptions) -> Ratios | None:
    """The calibration that was named, if one was."""
    return _ratios(list(inputs.values()) if isinstance(inputs, Mapping) else _as_list(inputs), options["reference"])


def _as_list(inputs: Any) -> list[Any]:
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


def draw(found: Ratios | None, axes: Any, options: PlotOptions) -> dict[str, Any]:
    """Draw it, and say what was drawn."""
    wanted = _wanted(found, options["lam"])
    _draw(axes, found, wanted, options["log"])
    marked = {} if found is None else {"reference": found.reference, "ratios": found.ratios.tolist()}
    return {"lambdas": list(wanted), **marked}


def _wanted(found: Ratios | None, given: Any) -> tuple[float, ...]:
    """Lambdas to draw, those of the calibration among them."""
    usual = USUAL if found is None else (0.5, 1.0, 1.5, 2.0)
    own = () if found is None else found.lams
    return tuple(sorted({*lambdas(given, usual), *own}))


def _ratios(inputs: Sequence[Any], reference: str | int | None) -> Ratios | None:
    if not inputs:
        if reference is not None:
            raise UsageError("--reference", "a class without a calibration", "expected one, which has its source prior")
        return None
    if len(inputs) > 1:
        raise UsageError("INPUTS", f"{len(inputs)} inputs of a plot of odds", "expected one calibration, or none")
    known = _calibration(inputs[0])
    if len({modality.source_prior.values for modality in known.modalities}) > 1:
        several = ", ".join(str(modality.name) for modality in known.modalities)
        expected = "expected a calibration of one network, or of several with one source prior"
        raise UsageError("INPUTS", f"a calibration of {several}, whose source priors differ", expected)
    priors = np.array(known.source_prior.values, dtype=np.float64)
    names = tuple(map(label_of, known.class_names or map(str, range(priors.size))))
    at = _reference(known, priors, reference)
    lams = tuple(sorted({known.lam * modality.share for modality in known.modalities}))
    return Ratios(lams, names, priors / priors[at], names[at])


def _calibration(one: Any) -> Calibration:
    found = getattr(one, "calibration", one)
    if isinstance(found, Calibration):
        return found
    if isinstance(found, (str, os.PathLike)):
        ((_, path),) = named_files([names.single(os.fspath(found), names.expanded([os.fspath(found)]))])
        return _read(content_of(path, _EXPECTED), path)
    return _read(dict(found) if isinstance(found, Mapping) else found, "calibration")


def _read(content: Any, where: str) -> Calibration:
    try:
        return Calibration.from_dict(content, where)
    except (ValueError, RecursionError):  # nested or numbered beyond reason
        raise DataError(where, "a damaged calibration", _EXPECTED) from None


def _reference(known: Calibration, priors: Any, given: str | int | None) -> int:
    """The class that others are compared with: the one that is named, or the middle one by frequency."""
    names = known.class_names or ()
    if given is None:
        there = np.flatnonzero(priors > 0)
        return int(there[np.argsort(priors[there], kind="stable")[(there.size - 1) // 2]])
    text = str(given)
    if text in names:
        found = names.index(text)
    elif text.isascii() and text.isdigit() and int(text[:9]) < priors.size:
        found = int(text)
    else:
        raise UsageError("--reference", f"{text!r}", f"expected a number below {priors.size}, or the name of a class")
    if priors[found] <= 0:
        raise DataError("--reference", f"{text!r}, a class of prior zero", "expected one that has been seen")
    return found


def _draw(axes: Any, found: Ratios | None, wanted: Sequence[float], log: bool) -> None:
    parts: list[Sequence[float]] = [wanted]
    if len(axes) == 2:
        parts = [[lam for lam in wanted if lam <= 1], [lam for lam in wanted if lam > 1]]
    x = _axis(found, log)
    _check(x, wanted)
    for ax, part in zip(axes, parts, strict=True):
        _panel(ax, x, found, part, log)
        if found is not None:
            _ticks(ax, found)
    axes[0].set_ylabel("$(P_s(c_i)\\,/\\,P_s(c_{gt}))^{\\lambda}$", parse_math=True)
    for ax, text in zip(axes, ("λ ≤ 1", "λ > 1") if len(axes) == 2 else ("",), strict=True):
        ax.text(0.04, 0.97 if found is None else 0.93, text, transform=ax.transAxes, ha="left", va="top")


def _check(x: Any, wanted: Sequence[float]) -> None:
    """Refuse lambdas at which the odds leave what can be drawn."""
    for lam in wanted:
        with np.errstate(all="ignore"):
            ends = np.array([x[0] or x[-1] / 25, x[-1]]) ** lam
        if not (np.isfinite(ends).all() and (ends > 1 / MOST).all() and (ends < MOST).all()):
            found = f"{lam:g}, which moves odds by more than {MOST:g} where priors differ by {x[-1]:g}"
            raise UsageError("--lambda", found, "expected one nearer to 0")


def _axis(found: Ratios | None, log: bool) -> Any:
    """Ratios at which curves are drawn."""
    known = np.ones(1) if found is None else found.ratios[found.ratios > 0]
    last = max(FARTHEST, 1.04 * float(known.max()))
    return np.geomspace(min(1 / last, float(known.min()) / 1.04), last, 401) if log else np.linspace(0, last, 401)


def _panel(ax: Axes, x: Any, found: Ratios | None, part: Sequence[float], log: bool) -> None:
    """The curves of some lambdas."""
    ax.set_xlim(x[0], x[-1])
    lines = [_line(ax, x, lam, style(i), found) for i, lam in enumerate(part)]
    if log:
        _logarithmic(ax)
    else:
        ax.set_ylim(0, 1.04 * max((_top(x, lam) for lam in part), default=1.0))
    ax.set_xlabel("$P_s(c_i)\\,/\\,P_s(c_{gt})$", parse_math=True)
    if lines:
        add_legend(ax, lines)


def _logarithmic(ax: Axes) -> None:
    """Both axes, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _line(ax: Axes, x: Any, lam: float, one: Style, found: Ratios | None) -> Any:
    """One curve; that of the calibration is wider."""
    own = found is not None and lam in found.lams
    with np.errstate(divide="ignore"):
        y = x**lam
    label = f"λ = {lam:.4g}" + (", chosen" if own else "")
    return ax.plot(x, y, color=one.colour, linestyle=one.line, linewidth=2.2 if own else 1.2, label=label)[0]


def _top(x: Any, lam: float) -> float:
    """How high an axis goes for a curve; one that falls has no end at 0."""
    return float(x[-1] ** lam if lam >= 0 else (x[-1] / 25) ** lam)


def _ticks(ax: Axes, found: Ratios) -> None:
    """Mark the ratios of the classes along the upper edge, with their names where there is room."""
    for name, ratio, named in zip(found.names, found.ratios.tolist(), _with_room(ax, found), strict=True):
        if ratio > 0:
            ax.plot([ratio], [1], marker=3, color=GREY, markersize=4, transform=ax.get_xaxis_transform(), clip_on=False)
        if named:
            how: dict[str, Any] = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
            ax.annotate(
                shortened(name, MOST_CHARACTERS), (ratio, 1), xytext=(0, 2), **how,
                rotation=90, ha="center", va="bottom", fontsize=SMALL - 1, color=GREY,
            )  # fmt: skip


def _with_room(ax: Axes, found: Ratios) -> list[bool]:
    """Which classes, (K,), are named: the reference, and those that are not too near to one that is."""
    with np.errstate(divide="ignore"):
        places = ax.get_xaxis_transform().transform([(ratio, 0) for ratio in found.ratios])[:, 0]
    figure: Any = ax.get_figure(root=True)
    apart = _ROOM * figure.dpi / 72
    named: list[int] = []
    for k in np.argsort(found.ratios != 1, kind="stable").tolist():
        if found.ratios[k] > 0 and all(abs(places[k] - places[other]) >= apart for other in named):
            named.append(k)
    return [k in named for k in range(len(found.names))]
