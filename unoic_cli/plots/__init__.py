"""Pictures for papers: one file for each kind, in `kinds`.

Nothing here knows them by name, but what type checkers read; nothing but drawing imports matplotlib.

A module of `kinds` offers
    ABOUT, INPUTS: str               one line for people; what its inputs are
    OPTIONS: tuple of str            those of `unoic_cli.plots.options.PlotOptions` that mean something to it
    RATIO: float, PANELS: int        height over width, and how many axes lie beside one another
    load(inputs, options) -> content what it draws, found out before anything is drawn
    draw(content, ax, options)       draws it into the axes, and returns what was drawn, for JSON: some of ``runs``,
                                     ``metrics``, ``lambdas``, ``range`` ... (docs/results.md has all)
and a function of its own name, for Python: ``curve(result, ax=None, ...) -> ax``. It is `unoic_cli.plots.curve`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unoic_cli.calls import nearest
from unoic_cli.errors import UsageError
from unoic_cli.plots import kinds

if TYPE_CHECKING:
    from unoic_cli.plots.kinds.boundary import boundary as boundary
    from unoic_cli.plots.kinds.classes import classes as classes
    from unoic_cli.plots.kinds.confusion import confusion as confusion
    from unoic_cli.plots.kinds.curve import curve as curve
    from unoic_cli.plots.kinds.odds import odds as odds
    from unoic_cli.plots.kinds.reliability import reliability as reliability
    from unoic_cli.plots.kinds.tradeoff import tradeoff as tradeoff

KINDS = tuple(sorted(one.name for one in pkgutil.iter_modules(kinds.__path__)))
"""The names of all."""


def find_kind(name: str) -> ModuleType:
    """The module of a kind of plot.

    Raises
    ------
    UsageError
        An unknown name.
    """
    if name not in KINDS:
        near = nearest(name, KINDS)
        meant = "" if near is None else f"did you mean {near}? "
        raise UsageError("KIND", f"{name!r}", f"{meant}expected one of {', '.join(KINDS)}")
    return importlib.import_module(f"{kinds.__name__}.{name}")


def __getattr__(name: str) -> Any:
    if name in KINDS:
        return getattr(find_kind(name), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *KINDS})
