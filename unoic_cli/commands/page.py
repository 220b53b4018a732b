"""`page`: one HTML file in which a slider moves all that lambda changes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import numpy as np

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.commands import paged
from unoic_cli.commands.along import Along
from unoic_cli.commands.class_offsets import asks_for_fit
from unoic_cli.commands.evaluate import EvaluateResult, evaluate
from unoic_cli.commands.images import Images, along_lambda
from unoic_cli.commands.search import CurveOptions, SearchResult, about_lambda, searched
from unoic_cli.data.steps import Steps, write_bytes
from unoic_cli.errors import DataError, UsageError, Warned
from unoic_cli.formats import STANDARD
from unoic_cli.options import Option, filled
from unoic_cli.resolve.common import Inputs, Notes, check_output, files_among, page_name
from unoic_cli.resolve.inputs import is_named
from unoic_cli.resolve.modalities import at_lambda, load_calibration
from unoic_cli.resolve.options import DataOptions, ForceOption

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

NAME = "page"
MOST_CONFUSION = 1024
"""Classes up to which the confusion matrix is counted."""
_OF_CHOICE = ("W4", "W5")
"""Warnings of a search that are about the lambda that it takes."""
RELIABILITY = "ece"
"""What confidence is compared with accuracy for."""


@dataclass(frozen=True)
class PageResult:
    """What a page shows. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    output : str
        The file written.
    n_bytes : int
        Its size.
    tabs : tuple of dict
        For each run: name, units, classes, lambdas of the curve, the chosen one, and metrics.
    command : str or None
        The line that repeats it; None where it was given what no line can say.
    notes : tuple of str
        What was worth saying on the way.
    warnings : list of dict
        What may do harm: code, text and figures.
    """

    output: str
    n_bytes: int
    tabs: tuple[dict[str, Any], ...]
    command: str | None
    notes: tuple[str, ...] = ()
    warnings: tuple[dict[str, Any], ...] = ()

    __repr__ = brief
    _repr_html_ = in_html

    @classmethod
    def of(
        cls, output: str, content: bytes, tabs: list[dict[str, Any]], command: str | None, notes: Notes
    ) -> PageResult:
        """Of a page that is made."""
        return cls(output, len(content), tuple(map(_told, tabs)), command, tuple(notes.texts), tuple(notes.told()))

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        return {
            "output": self.output,
            "n_bytes": self.n_bytes,
            "tabs": list(self.tabs),
            "command": self.command,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def _told(tab: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": tab["name"],
        "n": tab["n"],
        "n_classes": tab["n_classes"],
        "n_lambdas": int(tab["lams"].size),
        "lambda": tab["lambda"],
        "shares": None if tab["shares"] is None else dict(tab["shares"]),
        "metrics": [one["name"] for one in tab["metrics"]],
    }


class PageOptions(CurveOptions, total=False):
    """Options of `page`."""

    output: Annotated[
        str | os.PathLike[str] | None, Option("--output -o", "FILE", "The page: one HTML file.", says="where")
    ]
    lam: Annotated[
        Any,
        Option(
            "--lambda -l",
            "L",
            "The lambda that the page begins with, instead of the one that is chosen; with --calibration also "
            "rgb=0.3,depth=0.6 for each modality.",
            many=True,
            takes="number, str or mapping by modality",
        ),
    ]
    test: Annotated[
        Any,
        Option(
            "--test",
            "FILE",
            "A labelled test set, which takes no part in the choice: a tab of its own (repeatable, as several are one "
            "data set; NAME=FILE for each modality).",
            many=True,
            takes="path, sequence of paths, source, or mapping of these by modality",
        ),
    ]
    by: Annotated[
        str | None,
        Option(
            "--by",
            "WHAT",
            "Also show each group (the files' group field), each file, or each image.",
            values=("group", "file", "image"),
        ),
    ]
    test_split: Annotated[
        str | None,
        Option(
            "--test-split",
            "NAME",
            "Only the samples of this split of the test set. Default: all of them.",
            values=("<split>",),
        ),
    ]
    force: ForceOption


def page(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[PageOptions],
) -> Steps[PageResult]:
    """Search, measure what is chosen, and write the page: see `unoic_cli.page`."""
    chosen = filled(PageOptions, options)
    output = checked_output(chosen)
    if asks_for_fit(chosen):
        fitted, expected = "fit, which moves all classes at every lambda", "expected --calibration with these offsets"
        raise UsageError("--offsets", fitted, expected)
    if chosen["test"] is None and chosen["test_split"] is not None:
        raise UsageError("--test-split", "--test-split without a test set", "expected one, as second file or as --test")
    _check_streams(inputs, chosen)
    spoken = (chosen["calibration"], chosen["source_prior"], chosen["target_prior"], chosen["delta"], chosen["offsets"])
    yield from check_output(output, force=chosen["force"], inputs=files_among(inputs, chosen["test"], *spoken))
    notes = Notes(chosen["tell"])
    calibration = None
    if chosen["calibration"] is not None:
        calibration = yield from load_calibration(chosen["calibration"])
        if chosen["lam"] is not None:
            calibration = yield from at_lambda(calibration, chosen["lam"], "--lambda")
    found, along = yield from _searched(inputs, labels, chosen, calibration, notes)
    used, why, given = yield from _used(calibration, found, chosen)
    here = used if calibration is not None else replace(used, provenance={})  # the page says where it was chosen
    measured = yield from _measured(inputs, labels, chosen, here, along, notes, chosen["split"])
    tabs = [_tab(found, measured, along, used, why, given)]
    if chosen["test"] is not None:
        tabs.append((yield from _of_test_set(_tested(chosen, used, found, notes, given), chosen)))
    tabs = paged.told_apart(tabs)
    command = _line(inputs, chosen)
    content = paged.page(tabs, command)
    yield from write_bytes(output, content)
    return PageResult.of(output, content, tabs, command, notes)


def checked_output(chosen: Mapping[str, Any]) -> str:
    """The name of the page.

    Raises
    ------
    UsageError
        There is none, or it is not that of an HTML file.
    """
    output = page_name(chosen["output"], "--output")
    if not output:
        raise UsageError("--output", "no file", "expected one for the page: -o FILE.html")
    return output


def _line(inputs: Any, chosen: PageOptions) -> str | None:
    """The line that repeats it; of files that are one set none, where they have no name in common."""
    several = isinstance(inputs, (list, tuple)) and len(inputs) > 1
    if several and not any(map(is_named, inputs)):
        return None
    return paged.command_line(NAME, inputs, PageOptions, chosen)


def _check_streams(inputs: Any, chosen: PageOptions) -> None:
    """Refuse standard input: the data is opened more than once."""
    for given in (inputs, chosen["test"]):
        items = given if isinstance(given, (list, tuple)) else [given]
        if any(isinstance(one, str) and one.rpartition("=")[2] == STANDARD for one in items):
            raise UsageError(STANDARD, "a stream, which is opened once", "expected files")


def hear(notes: Notes, of_choice: str = "") -> Any:
    """What takes notes and warnings of other commands; `of_choice` begins what is said of the lambda that one takes."""

    def hear(text: str) -> None:
        if isinstance(text, Warned):
            before = of_choice if text.code in _OF_CHOICE else ""
            notes.warn(text.code, before + str(text).removeprefix(f"{text.code}: "), **text.figures)
        else:
            notes.add(text)

    return hear


def _searched(
    inputs: Any, labels: Any, chosen: PageOptions, calibration: Calibration | None, notes: Notes
) -> Steps[tuple[SearchResult, Along]]:
    """The curve of the data that lambda is chosen on."""
    own = calibration is None and chosen["lam"] is None
    tell = hear(notes, "" if own else "of the lambda that the search on this data takes: ")
    given = {**filled(CurveOptions, chosen), "calibration": calibration, "tell": tell}
    found, along = yield from searched(inputs, labels, given, keep=True)
    assert along is not None
    return found, along


def _used(
    calibration: Calibration | None, found: SearchResult, chosen: PageOptions
) -> Steps[tuple[Calibration, str, str | None]]:
    """What the page begins with, and why; and where that lambda is from, if it is not of the search on this data."""
    if calibration is None and chosen["lam"] is None:
        return found.calibration, about_lambda(found), None
    searched_for = f"; searched for on this data: {about_lambda(found)}"
    given = "as given (--lambda)" if chosen["lam"] is not None else "as the calibration has it"
    if calibration is not None:
        return calibration, f"{paged.lambda_of(calibration)}, {given}{searched_for}", given
    used = yield from at_lambda(found.calibration, chosen["lam"], "--lambda")
    shares = [[one.share for one in each.modalities] for each in (used, found.calibration)]
    if shares[0] != shares[1]:
        expected = "expected one number, or --calibration beside it"
        raise UsageError("--lambda", "a lambda for each modality, in other proportions than the curve's", expected)
    return used, f"{paged.lambda_of(used)}, {given}{searched_for}", given


def _measured(
    inputs: Any, labels: Any, chosen: PageOptions, used: Calibration, along: Along, notes: Notes, split: str | None
) -> Steps[EvaluateResult]:
    """What is known of the chosen lambda alone."""
    names, counted = [one.name for one in along.metrics], len(used.target_prior.values) <= MOST_CONFUSION
    return (yield from evaluate(
        inputs, labels, **{
            **filled(DataOptions, chosen), "calibration": used, "by": chosen["by"], "cluster": chosen["cluster"],
            "metrics": names if RELIABILITY in names else [*names, RELIABILITY], "shots": _shots(chosen, along),
            "confusion": counted, "absent": chosen["absent"], "strict": chosen["strict"],
            "split": split, "tell": hear(notes), **_factors(chosen, used),
        },
    ))  # fmt: skip


def _shots(chosen: PageOptions, along: Along) -> Any:
    return chosen["shots"] if any(one.BY_TRAINING for one in along.metrics) else None


def _factors(chosen: PageOptions, used: Calibration) -> dict[str, Any]:
    """The factors of samples that a calibration is told anew."""
    if not any(one.given_factors for one in used.modalities):
        return {}
    return {"delta": chosen["delta"], "delta_power": chosen["delta_power"]}


def _tab(
    found: SearchResult, measured: EvaluateResult, along: Along, used: Calibration, why: str, given: str | None
) -> dict[str, Any]:
    """The tab of the data that lambda was chosen on."""
    images = _images(along, measured, used.lam)
    along = _with(along, measured, used.lam)
    said, result = measured.to_dict(), found.to_dict()
    told = said if given is not None else result
    made = paged.of_search({**result, "warnings": told["warnings"], "notes": told["notes"]}, along, used, why, given)
    more = [one for one in said["warnings"] if one not in made["warnings"]]
    notes = list(dict.fromkeys([*made["notes"], *said["notes"]]))
    if given is not None:
        made["searched"] = {
            "lambda": found.lam,
            "warnings": [one for one in result["warnings"] if one not in said["warnings"]],
            "notes": [one for one in result["notes"] if one not in said["notes"]],
        }
    return {
        **made, "at": paged.evaluated(said), "warnings": [*made["warnings"], *more], "notes": notes,
        "images": paged.images([one.to_dict() for one in images]),
    }  # fmt: skip


def _images(along: Along, measured: EvaluateResult, lam: float) -> list[Images]:
    """Of each lambda of the curve, and of the chosen one; as far as it is known, of that alone."""
    if measured.images is None:
        return []
    if along.by_image is None:
        return [measured.images]
    found = along_lambda(measured.images, along.by_image, along.metrics, along.rules)
    if not along.has(lam):
        found.insert(int(np.searchsorted(along.lams, lam)), measured.images)
    return found


def _with(along: Along, measured: EvaluateResult, lam: float) -> Along:
    """The curve with the chosen lambda as one of its points."""
    if along.has(lam) or measured.difference is None:
        return along
    tables = None if measured.groups is None else {name: one.counts for name, one in measured.groups.items()}
    return along.with_point(lam, measured.overall.counts, measured.overall.values, measured.difference.gain, tables)


def _of_test_set(steps: Steps[dict[str, Any]], chosen: PageOptions) -> Steps[dict[str, Any]]:
    """Errors of a test set name the data that it is compared with, where no calibration was given."""
    try:
        return (yield from steps)
    except (DataError, UsageError) as error:
        if chosen["calibration"] is not None:
            raise
        expected = error.expected
        for words in ("the calibration has", "of the calibration"):
            expected = expected.replace(words, words.replace("calibration", "data that lambda is searched on"))
        where = "--test" if error.where == "--calibration" else error.where
        raise type(error)(where, error.found, expected) from None


def _tested(
    chosen: PageOptions, used: Calibration, found: SearchResult, notes: Notes, given: str | None
) -> Steps[dict[str, Any]]:
    """The tab of the test set: nothing is chosen on it."""
    own = {**filled(DataOptions, chosen), "split": chosen["test_split"], "labels_file": None}
    here: PageOptions = {**chosen, **own}  # type: ignore[typeddict-item]
    told = {
        **filled(CurveOptions, here), "calibration": used, "range": _range(found.lams), "step": None, "choose": None,
        "method": None, "metric": found.metric, "subject_to": None, "strict": False, "tell": None,
        "per_modality": False, **_NO_SCORES,
        **_factors(chosen, used),
    }  # fmt: skip
    result, along = yield from searched(chosen["test"], None, told, keep=True, why="to evaluate the test set")
    assert along is not None
    measured = yield from _measured(chosen["test"], None, here, used, along, notes, chosen["test_split"])
    images = _images(along, measured, used.lam)
    along = _with(replace(along, constraints=(), ruled_out=None), measured, used.lam)
    said = {**result.to_dict(), "choice": {}, "gain": {}}
    given = given or "chosen on other data"
    made = paged.of_search(said, along, used, f"{paged.lambda_of(used)}, {given}", given)
    told_here = measured.to_dict()
    return {
        **made, "at": paged.evaluated(told_here), "warnings": told_here["warnings"], "notes": told_here["notes"],
        "images": paged.images([one.to_dict() for one in images]),
    }  # fmt: skip


def _range(lams: NDArray[np.float64]) -> str:
    """The lattice of a curve, as it is typed; of one whose points are uneven, its ends.

    Examples
    --------
    >>> _range(np.arange(0, 1.05, 0.05)), _range(np.array([0.0, 0.1, 1.0])), _range(np.array([0.5]))
    ('0:1:0.05', '0:1', '0.5:0.5')
    """
    ends, gaps = f"{lams[0]:.10g}:{lams[-1]:.10g}", np.diff(lams)
    even = gaps.size > 0 and bool(np.ptp(gaps) < 1e-9)
    return f"{ends}:{gaps[0]:.10g}" if even else ends


_NO_SCORES: dict[str, Any] = dict.fromkeys(
    ("source_prior", "unseen", "temperature", "offsets", "delta", "delta_power", "order", "fusion", "weights")
)
