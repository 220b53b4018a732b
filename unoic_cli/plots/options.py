"""What `plot` may be told, each said once; a kind names those that it takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from unoic_cli.options import Option
from unoic_cli.resolve.options import ForceOption, TellOption


class PlotOptions(TypedDict, total=False):
    """Options of `plot`."""

    output: Annotated[
        str | os.PathLike[str] | None,
        Option("--output -o", "FILE", "The picture: its suffix, .pdf, .svg or .png, says the form.", says="where"),
    ]
    size: Annotated[
        str,
        Option(
            "--size",
            "SIZE",
            "Width: column (3.3 inches) or page (6.9 inches).",
            default="column",
            says="how",
            panel="Output",
            values=("column", "page"),
        ),
    ]
    metric: Annotated[
        Sequence[str],
        Option(
            "--metric",
            "METRIC",
            "Of curve: a metric of the results (repeatable). Default: what was searched for, and mean IoU beside mean "
            "class accuracy. Of classes: recall (default), precision, iou or f1.",
            default=(),
            many=True,
            values=("<metric>",),
        ),
    ]
    range: Annotated[
        str | Sequence[float] | None,
        Option(
            "--range",
            "A:B",
            "Of curve and tradeoff: lambdas to show. Default: 0:2, and all that are as good as the chosen one.",
            takes="(A, B) or str",
        ),
    ]
    x: Annotated[
        str | None,
        Option("--x", "METRIC", "Of tradeoff: the metric to the right. Default: miou.", values=("<metric>",)),
    ]
    y: Annotated[
        str | None, Option("--y", "METRIC", "Of tradeoff: the metric upwards. Default: macc.", values=("<metric>",))
    ]
    lam: Annotated[
        Any,
        Option(
            "--lambda -l",
            "L",
            "Of odds and boundary: a lambda to draw (repeatable). Default of boundary: 0, 0.5, 1 and 2. Of classes: "
            "another lambda than the chosen one, from a state.",
            many=True,
            takes="number, or sequence of number",
        ),
    ]
    sort: Annotated[
        str | None,
        Option(
            "--sort",
            "BY",
            "Of classes: training (those of most training data first; the default, where that is known), labels, or "
            "change.",
        ),
    ]
    most: Annotated[
        int | None,
        Option("--most", "N", "Of classes: show at most N, those that change most. Default: 40."),
    ]
    reference: Annotated[
        str | int | None,
        Option(
            "--reference",
            "CLASS",
            "Of odds: the class c_gt of the ratios that are marked, by name or number. Default: the middle one by "
            "frequency.",
        ),
    ]
    log: Annotated[bool, Option("--log", None, "Of odds: logarithmic axes, where each lambda is the slope of a line.")]
    points: Annotated[
        str | os.PathLike[str] | None,
        Option("--points", "FILE", "Of boundary: HDF5 or npz with points (N, 2) and labels (N,), drawn beneath."),
    ]
    source_prior: Annotated[
        Any,
        Option(
            "--source-prior",
            "PRIOR",
            "Of boundary: class frequencies in training, as of other commands. Default: what the file stores.",
            many=True,
            takes="str, path, Prior, (K,) array or mapping by class",
        ),
    ]
    force: ForceOption
    tell: TellOption
