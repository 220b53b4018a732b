"""`plot`: a picture of results, as a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Unpack, cast

from unoic_cli import formats
from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calls import public
from unoic_cli.drawing.page import check_size, form_of
from unoic_cli.errors import UsageError
from unoic_cli.options import filled, given_flags, is_given, options_of
from unoic_cli.plots import KINDS, find_kind
from unoic_cli.plots.look import library, look, new_figure, to_bytes
from unoic_cli.plots.options import PlotOptions
from unoic_cli.storage.output import together, write_bytes

_COMMON = ("output", "size", "force", "tell")


@dataclass(frozen=True)
class PlotResult:
    """What was drawn. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    kind : str
    output : str
        The file written.
    form : {"pdf", "svg", "png"}
    width, height : float
        In inches.
    drawn : dict
        What is in the picture: ``runs``, ``metrics``, ``lambdas``, and what else its kind has to say.
    """

    kind: str
    output: str
    form: str
    width: float
    height: float
    drawn: dict[str, Any] = field(default_factory=dict)

    __repr__ = brief
    _repr_html_ = in_html

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        nothing: dict[str, Any] = {"runs": [], "metrics": [], "lambdas": []}
        about = {"kind": self.kind, "output": self.output, "form": self.form}
        return {**about, "width": self.width, "height": self.height, **nothing, **self.drawn}


@public
def plot(kind: str, inputs: Any = (), **options: Unpack[PlotOptions]) -> PlotResult:
    """Draw a picture and write it as PDF, SVG or PNG; the same inputs give the same bytes.

    Functions that draw into axes of yours are `unoic_cli.plots.curve` and its like.

    Parameters
    ----------
    kind : {"boundary", "classes", "confusion", "curve", "odds", "reliability", "tradeoff"}
        What is drawn.
    inputs : path, result, or several of these
        What it is drawn from; of ``curve`` and ``tradeoff`` results of `search_lambda`, a mapping names them; of
        ``classes`` one of these or of `evaluate`, of ``confusion`` and ``reliability`` one of `evaluate`.
    **options : Unpack[PlotOptions]
        See `PlotOptions`.

    Returns
    -------
    PlotResult

    Raises
    ------
    UnoicError
        Inputs that the kind does not draw, options that it does not take, an output that exists or cannot be written,
        or no matplotlib.

    Examples
    --------
    >>> from unoic_cli import plot
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = plot("odds", output=os.path.join(folder, "odds.svg"), lam=[0.5, 1, 2])
    ...     made.form, made.width, os.path.getsize(made.output) > 0
    ('svg', 3.3, True)
    """
    chosen = filled(PlotOptions, options)
    module = find_kind(kind)
    form = _check(module, kind, chosen)
    library()  # before anything is read
    with together(chosen["tell"]):
        return _plot(module, kind, _listed(inputs), chosen, form)


def _listed(inputs: Any) -> Any:
    return [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs


def _plot(module: ModuleType, name: str, inputs: Any, chosen: PlotOptions, form: str) -> PlotResult:
    output = os.fspath(cast("str | os.PathLike[str]", chosen["output"]))
    files = [one for one in inputs if isinstance(one, str)] if isinstance(inputs, (list, tuple)) else []
    formats.check_output(output, force=chosen["force"], inputs=tuple(files))
    content = module.load(inputs, chosen)
    with look():
        figure, axes = new_figure(chosen["size"], module.RATIO, module.PANELS)
        drawn = module.draw(content, axes, chosen)
        made = to_bytes(figure, form)
    write_bytes(output, made)
    width, height = (float(inches) for inches in figure.get_size_inches())
    return PlotResult(name, output, form, width, height, drawn)


def _check(module: ModuleType, name: str, chosen: PlotOptions) -> str:
    """The form of the output; refuses options that mean nothing here."""
    known = [one for one in options_of(PlotOptions) if one not in (*_COMMON, *module.OPTIONS)]
    for flag in given_flags(PlotOptions, cast(Mapping[str, Any], chosen), known):
        takes = [options_of(PlotOptions)[one].option.flag for one in module.OPTIONS]
        expected = f"expected none but {', '.join(takes)}" if takes else "expected none: it has no options of its own"
        raise UsageError(flag, f"{flag} of a plot of {name}", expected)
    check_size(chosen["size"])
    if not is_given(chosen["output"]):
        raise UsageError("--output", "no name for the picture", "expected FILE.pdf, FILE.svg or FILE.png")
    return form_of(os.fspath(cast(str, chosen["output"])))


def kinds_in_words() -> str:
    """Each kind with what it is, for the help.

    Examples
    --------
    >>> "curve: metrics against lambda" in kinds_in_words()
    True
    """
    return "; ".join(f"{name}: {find_kind(name).ABOUT}" for name in KINDS)
