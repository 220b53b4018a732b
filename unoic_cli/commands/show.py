"""`show`: segmentations as pictures, before and after (the paper's Figure 4); of rows, those that change most."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.commands.changed import DELIMITERS, MOST_ROWS, N_ROWS, changed_rows, for_json, table_of
from unoic_cli.commands.compare import describe, lambdas, make_deciders, titles_of
from unoic_cli.data.dataset import DataSet, Span, split_at
from unoic_cli.data.steps import Steps, count, write_bytes
from unoic_cli.drawing import panel
from unoic_cli.drawing.colours import IGNORED
from unoic_cli.drawing.page import check_size, form_of
from unoic_cli.drawing.panel import Key, Panel, Row
from unoic_cli.errors import DataError, UsageError
from unoic_cli.options import Option, filled, given_flags
from unoic_cli.resolve.common import Inputs, Notes, check_output, open_inputs, output_path, provenance
from unoic_cli.resolve.decider import Decider, as_stored, make_decider
from unoic_cli.resolve.modalities import resolve
from unoic_cli.resolve.options import DataOptions, DeltaOptions, ForceOption, MethodOptions
from unoic_cli.resolve.pictures import MOST_IMAGES, chosen_images, colours_of, in_split, shown_inputs
from unoic_cli.storage import split_name
from unoic_cli.tallies.changed import ChangedRow
from unoic_cli.tallies.kept import places_before
from unoic_cli.tallies.shown import FIRST, ChangeTally, ShownTally
from unoic_cli.tallies.ways import Way

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from unoic_cli.formats.pictures import Pictures

N_IMAGES = 6
"""Shown where nothing else is asked for."""
MOST_CLASSES = 30
"""In the legend."""
BEFORE, AFTER, ALONE = "before", "after", "prediction"
"""Titles of what is predicted where no methods are given."""


@dataclass(frozen=True)
class ShownImage:
    """One image, with what is predicted of it.

    Attributes
    ----------
    number : int
        Its place among the images of all files, from 0.
    sample_id, group : str or None
        As the files have them.
    truth : (H, W) int32
        Labels; -1 where there is none.
    predictions : dict of str to (H, W) int32
        By the titles of their columns.
    paired : bool
        The last prediction is compared with the first.
    """

    number: int
    sample_id: str | None
    group: str | None
    truth: NDArray[np.int32]
    predictions: dict[str, NDArray[np.int32]]
    paired: bool = True

    __repr__ = brief
    _repr_html_ = in_html

    @property
    def pixels(self) -> int:
        """Pixels, labelled or not."""
        return int(self.truth.size)

    @property
    def labelled(self) -> int:
        """Pixels that have a label."""
        return int(np.count_nonzero(self.truth >= 0))

    @property
    def changes(self) -> NDArray[np.uint8]:
        """What becomes of each pixel from the first prediction to the last, (H, W): see `unoic_cli.drawing.panel`."""
        first, *_, last = [*self.predictions.values()] * 2
        return panel.differences(self.truth, first, last)

    def counted(self) -> NDArray[np.int64]:
        """How many pixels are unchanged, now right, now wrong, changed and both wrong, and changed without a label."""
        return np.bincount(self.changes.reshape(-1), minlength=len(panel.CHANGES)).astype(np.int64)

    def accuracy(self, title: str) -> float | None:
        """The share of labelled pixels that a prediction has right; None where there is no label."""
        n, right = self.labelled, np.count_nonzero((self.truth >= 0) & (self.predictions[title] == self.truth))
        return right / n if n else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        _, right, wrong, other, unlabelled = self.counted().tolist()
        changes: dict[str, int | None] = {
            "changed": right + wrong + other, "now_right": right, "now_wrong": wrong, "both_wrong": other,
            "changed_unlabelled": unlabelled,
        }  # fmt: skip
        return {
            "number": self.number,
            "sample_id": self.sample_id,
            "group": self.group,
            "pixels": self.pixels,
            "labelled": self.labelled,
            **(changes if self.paired else dict.fromkeys(changes)),
            "accuracy": {title: self.accuracy(title) for title in self.predictions},
        }


@dataclass(frozen=True)
class ShowResult:
    """What `show` drew. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    output : str or None
        The picture, or the table of rows; None where none was asked for.
    columns : tuple of str
        Titles, from left to right; of rows, of the methods.
    images : tuple of ShownImage
        From top to bottom; none of rows.
    methods : dict of str to str
        What each column of predictions is, in words.
    lams : dict of str to dict
        The lambda of each modality, for each of these columns; "" stands for one without a name.
    class_names : tuple of str or None
        (K,).
    colours : (K, 3) uint8
    details : dict
        Files, split and options.
    notes : tuple of str
        What was worth saying on the way.
    rows : tuple of ChangedRow or None
        Of rows those that change most, in order.
    counts : dict of str to int or None
        Of rows: how many there are, how many change, and what becomes of them.
    """

    output: str | None
    columns: tuple[str, ...]
    images: tuple[ShownImage, ...]
    methods: dict[str, str]
    lams: dict[str, dict[str, float]]
    class_names: tuple[str, ...] | None
    colours: NDArray[np.uint8]
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    rows: tuple[ChangedRow, ...] | None = None
    counts: dict[str, int] | None = None

    __repr__ = brief
    _repr_html_ = in_html

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        return {
            "output": self.output,
            "columns": list(self.columns),
            "methods": self.methods,
            "lambdas": self.lams,
            "images": [image.to_dict() for image in self.images],
            "rows": None if self.counts is None else for_json(self.counts, self.rows or ()),
            **self.details,
            "notes": list(self.notes),
        }


class ShowOptions(MethodOptions, DataOptions, total=False):
    """Options of `show`."""

    output: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "--output -o", "FILE", "The picture: .png, .pdf or .svg; of rows the table: .csv or .tsv.", says="where"
        ),
    ]
    methods: Annotated[
        Sequence[str] | Mapping[str, Any] | None,
        Option(
            "--method -m",
            "[TITLE=]METHOD",
            "Instead of one calibration: a column for each method, as unoic compare has them. Repeatable.",
            many=True,
        ),
    ]
    images: Annotated[
        Any,
        Option(
            "--images",
            "LIST",
            "Which, and in which order: numbers (places in the files, one behind the other, from 0) or sample_ids, "
            "with commas.",
            takes="int, str, or sequence of these",
        ),
    ]
    most_changed: Annotated[
        int | None,
        Option(
            "--most-changed",
            "N",
            "The images of whose labelled pixels most change from the first to the last prediction (all pixels, where "
            "nothing is labelled). Default: 6; where nothing changes, the first 6. Of rows: those whose log-odds, of "
            "the class after to the class before, move farthest past 0. Default: 100.",
        ),
    ]
    input_images: Annotated[
        Any,
        Option(
            "--inputs",
            "[NAME=]IMAGES",
            "The images that the networks saw, in the order of the samples: an array in HDF5, npz (FILE::DATASET) or "
            "npy, a folder of PNG or JPEG files, or a pattern of these; NAME= of a modality (repeatable). Default: "
            "the dataset image beside the scores, if there is one.",
            many=True,
            takes="str, path, array or mapping of these by modality",
        ),
    ]
    palette: Annotated[
        Any,
        Option(
            "--palette",
            "FILE",
            'Colours of the classes: JSON {class: "#rrggbb" or [r, g, b]}, lines of name r g b, or cityscapes. '
            "Default: a palette for all eyes.",
            takes="str, path, (K, 3) array or mapping by class",
        ),
    ]
    size: Annotated[
        str,
        Option("--size", "SIZE", "page (6.9 inches wide) or column (3.3).", default="page", values=("page", "column")),
    ]
    force: ForceOption


def show(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[ShowOptions],
) -> Steps[ShowResult]:
    """Draw segmentations before and after a calibration, or by several methods: a row for each image.

    Of data without images: find the rows whose decision changes, and write those that change most as a table.

    Parameters
    ----------
    inputs : path, sequence of paths, (N, K, H, W) array, or mapping of these by modality
        Logits files of images or rows, labelled or not, or scores in memory; of several modalities ``NAME=FILE``, or a
        mapping.
    labels : (N, H, W) or (N,) integers, optional
        With scores in memory.
    **options : Unpack[ShowOptions]
        See `ShowOptions`.

    Returns
    -------
    ShowResult
        With the predictions of every image, or the rows, that are shown. Without an output nothing is written.

    Raises
    ------
    UnoicError
        Bad input, or options that contradict each other.

    Examples
    --------
    >>> from unoic_cli import show
    >>> import numpy as np
    >>> scores = np.log([[[[0.6, 0.6, 0.9]], [[0.4, 0.4, 0.1]]]])
    >>> shown = show(scores, [[[1, 0, 0]]], lam=1, source_prior=[3, 1])
    >>> shown.columns, shown.images[0].predictions["after"].tolist()
    (('truth', 'before', 'after', 'differences'), [[1, 1, 0]])
    >>> {name: shown.images[0].to_dict()[name] for name in ("changed", "now_right", "now_wrong")}
    {'changed': 2, 'now_right': 1, 'now_wrong': 1}
    >>> (row,) = show([[2.0, 1.5], [2.0, 0.0]], [1, 0], lam=1, source_prior=[3, 1]).rows
    >>> row.row, row.before, row.after, round(row.log_odds, 3)  # log(3) - (2 - 1.5)
    (0, 0, 1, 0.599)
    """
    chosen = filled(ShowOptions, options)
    notes, path = Notes(chosen["tell"]), output_path(chosen["output"])
    form = _check(chosen, path)
    data = yield from open_inputs(inputs, labels, chosen, notes)
    if not all(source.image_shape for source in data.sources):
        return (yield from _of_rows(chosen, data, path, form, notes))
    if form in DELIMITERS:
        expected = "expected a picture of them: .png, .pdf or .svg"
        raise UsageError("--output", f"{path!r}, a table, of images", expected)
    colours = yield from colours_of(chosen["palette"], data)
    seen = yield from shown_inputs(chosen["input_images"], data)
    if path is not None:
        read = (file for runs in seen.values() for _, one in runs for file in one.files)
        names = (*(split_name(source.name)[0] for source in data.all_sources), *read)
        yield from check_output(path, force=chosen["force"], inputs=names)
    ways = yield from _ways(chosen, data, notes)
    numbers = yield from _numbers(chosen, data, ways)
    images = yield from _kept(data, ways, numbers, chosen["methods"] is None)
    if chosen["most_changed"] is not None:
        images = tuple(sorted(images, key=lambda one: (-_moved(one, data), one.number)))
    changed = chosen["methods"] is None and len(ways) > 1
    drawn = _Drawn(data, seen, images, colours, changed, chosen["size"])
    if path is not None and form is not None:
        yield from write_bytes(path, panel.draw(drawn.made(), form, chosen["size"]))
    return ShowResult(
        path, drawn.columns, images, *_methods(ways), data.class_names, colours, _details(data, chosen),
        tuple(notes.texts),
    )  # fmt: skip


def _methods(ways: Mapping[str, Decider]) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """What each method is, in words, and its lambdas."""
    lams = {title: lambdas(one.calibration) if title != BEFORE else {} for title, one in ways.items()}
    return {title: _about(title, one) for title, one in ways.items()}, lams


def _details(data: DataSet, chosen: ShowOptions) -> dict[str, Any]:
    return {k: v for k, v in provenance(data, chosen).items() if k != "unoic"}


def _of_rows(
    chosen: ShowOptions, data: DataSet, path: str | None, form: str | None, notes: Notes
) -> Steps[ShowResult]:  # fmt: skip
    """What changes of data without images."""
    if form is not None and form not in DELIMITERS:
        expected = "expected those of images, (N, K, H, W) or (N, H, W, K); of rows a table: .csv or .tsv"
        raise DataError(data.name, "rows of scores, one for each sample", expected)
    sized = ["--size"] if chosen["size"] != "page" else []
    for option in (*given_flags(ShowOptions, chosen, ("images", "input_images", "palette")), *sized):
        raise UsageError(option, f"{option} of rows, which have no picture", "expected it of images")
    most = _checked_most(chosen["most_changed"], N_ROWS, MOST_ROWS)
    if path is not None:
        names = (split_name(source.name)[0] for source in data.all_sources)
        yield from check_output(path, force=chosen["force"], inputs=tuple(names))
    ways = yield from _ways(chosen, data, notes)
    if len(ways) < 2:
        expected = "expected --calibration, --lambda, or --method twice"
        raise UsageError("--output", "rows that change, where nothing changes", expected)
    if chosen["methods"] is None:  # probabilities are those of the scores as they are stored
        ways[BEFORE] = as_stored(ways[AFTER]) or ways[BEFORE]
    lams = [_lambda_of(title, one) for title, one in ways.items()]
    counts, rows = yield from changed_rows(data, list(ways.values()), _members(ways), lams, most)
    if path is not None and form is not None:
        yield from write_bytes(path, table_of(rows, data.class_names, form))
    return ShowResult(
        path, tuple(ways), (), *_methods(ways), data.class_names, np.empty((0, 3), dtype=np.uint8),
        _details(data, chosen), tuple(notes.texts), rows, counts,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------
# what was asked for


def _check(chosen: ShowOptions, path: str | None) -> str | None:
    """Refuse options that do not go together, and pictures that cannot be drawn; the form of the picture."""
    if chosen["methods"] is not None:
        others = [name for name in MethodOptions.__annotations__ if name not in DeltaOptions.__annotations__]
        for option in given_flags(MethodOptions, chosen, others):
            raise UsageError(option, f"{option} beside --method", "expected one of them: --method METHOD@LAMBDA")
    if chosen["most_changed"] is not None and chosen["images"] is not None:
        raise UsageError("--most-changed", "--most-changed beside --images", "expected one of them")
    check_size(chosen["size"])
    if path is None:
        return None
    suffix = os.path.splitext(path)[1].lower().removeprefix(".")
    if suffix in DELIMITERS:
        return suffix
    form = form_of(path)
    if importlib.util.find_spec("matplotlib") is None:
        expected = "expected it to be installed: pip install 'unoic[plot]'"
        raise UsageError("--output", "matplotlib, which is not installed", expected)
    return form


def _checked_most(given: int | None, usual: int, most: int) -> int:
    """How many are shown."""
    if given is not None and not 1 <= given <= most:
        raise UsageError("--most-changed", str(given), f"expected 1 to {most:,}")
    return usual if given is None else given


def _ways(chosen: ShowOptions, data: DataSet, notes: Notes) -> Steps[dict[str, Decider]]:
    """What is predicted, by the titles of the columns."""
    if chosen["methods"] is not None:
        data.require_scores()
        titles = yield from titles_of(chosen["methods"], data, chosen["delta"] is not None)
        ready = yield from make_deciders(titles, data, filled(DeltaOptions, chosen), chosen, notes)
        return dict(zip((title for title, _ in titles), ready, strict=True))
    applied = bool(given_flags(MethodOptions, chosen))
    if applied and data.sources[0].kind == "predictions":
        option = given_flags(MethodOptions, chosen)[0]
        raise UsageError(option, "a calibration for a file of predictions", "expected scores")
    resolved = yield from resolve(chosen, data, chosen, notes, lam=None if applied and data.modality is None else 0.0)
    assert resolved is not None
    after = yield from make_decider(resolved.calibration, data, resolved.factors)
    before = after.plain or replace(after, calibration=replace(after.calibration, lam=0.0))
    return {BEFORE: before, AFTER: after} if applied else {ALONE: before}


PLAIN = "the scores as they are"


def _about(title: str, decider: Decider) -> str:
    if title not in (BEFORE, ALONE):
        return describe(decider)
    fused = len(decider.calibration.modalities) > 1  # with their delta
    return describe(replace(decider, calibration=replace(decider.calibration, lam=0.0))) if fused else PLAIN


def _numbers(chosen: ShowOptions, data: DataSet, ways: Mapping[str, Decider]) -> Steps[list[int]]:
    """The images that are shown, in order."""
    there = yield from in_split(data)
    if chosen["images"] is not None:
        return (yield from chosen_images(chosen["images"], data, there))
    most = _checked_most(chosen["most_changed"], N_IMAGES, MOST_IMAGES)
    if len(ways) < 2:
        if chosen["most_changed"] is not None:
            raise UsageError("--most-changed", "--most-changed where nothing changes", "expected --calibration")
        return there[:most]
    if len(there) <= most:
        return there
    changes = ChangeTally(
        _members(ways), places_before(data), sum(source.n_samples for source in data.sources), _has_labels(data)
    )
    yield from count(data, [changes], raw=True, whole_samples=_whole(ways))
    return sorted(there, key=lambda number: (-changes.changed[number], number))[:most]


def _has_labels(data: DataSet) -> bool:
    return any("labels" in source.fields for source in data.sources)


def _whole(ways: Mapping[str, Decider]) -> bool:
    return any(one.view.needs_samples for one in ways.values())


def _members(ways: Mapping[str, Decider]) -> list[Way]:
    """What counts the decisions of each method."""
    return [Way(one.view, one.tally([_lambda_of(title, one)]).recipe()) for title, one in ways.items()]


def _lambda_of(title: str, decider: Decider) -> float:
    return 0.0 if title in (BEFORE, ALONE) else decider.calibration.lam


def _moved(image: ShownImage, data: DataSet) -> int:
    """Pixels that change, as they are counted to find the images that change most."""
    found = image.counted()
    return int(found[panel.RIGHT : panel.UNLABELLED].sum() if _has_labels(data) else found[panel.UNLABELLED])


# ------------------------------------------------------------------------------------------------
# what is kept


def _kept(
    data: DataSet, ways: Mapping[str, Decider], numbers: Sequence[int], alone: bool
) -> Steps[tuple[ShownImage, ...]]:  # fmt: skip
    """The images, from a read of no others."""
    tally = ShownTally(_members(ways), places_before(data), data.n_classes, numbers)
    spans = _spans(data, set(numbers), _whole(ways))
    yield from count(replace(data, evidence=None), [tally], raw=True, whole_samples=_whole(ways), spans=spans)
    texts = {number: (sample, group) for number, sample, group in map(json.loads, tally.names)}
    images = []
    for number in numbers:
        flat = tally.images[str(number)].astype(np.int32) - FIRST
        truth, *decided = flat.reshape(len(flat), *_shape(data, number))
        paired = len(ways) > 1
        images.append(ShownImage(number, *texts[number], truth, dict(zip(ways, decided, strict=True)), paired))
    return tuple(images)


def _shape(data: DataSet, number: int) -> tuple[int, ...]:
    """(H, W) of an image."""
    for source in data.sources:
        if number < source.n_samples:
            return source.image_shape
        number -= source.n_samples
    raise IndexError(number)


def _spans(data: DataSet, numbers: set[int], whole: bool) -> list[Span]:
    """Those parts of the spans of a data set that lie in some of its images."""
    edges: set[int] = set()
    inside: list[tuple[int, int]] = []
    units = first = 0
    for source in data.sources:
        for number in sorted(numbers):
            if first <= number < first + source.n_samples:
                start = units + (number - first) * source.pixels
                inside.append((start, start + source.pixels))
        units, first = units + source.n_units, first + source.n_samples
    for extent in inside:
        edges.update(extent)
    spans = split_at(data, data.spans(whole_samples=whole), edges)
    begins = sorted(inside)
    starts = np.array([start for start, _ in begins])
    kept = []
    for span, (start, _) in zip(spans, data.extents(spans), strict=True):
        place = int(np.searchsorted(starts, start, side="right")) - 1
        if place >= 0 and start < begins[place][1]:
            kept.append(span)
    return kept


# ------------------------------------------------------------------------------------------------
# what is drawn


@dataclass(frozen=True)
class _Drawn:
    """A picture of some images.

    Attributes
    ----------
    data : DataSet
    seen : dict of str or None to list of (int, Pictures)
        Images that were put in, of each modality.
    images : tuple of ShownImage
    colours : (K, 3) uint8
    changed : bool
        With the differences.
    size : str
    """

    data: DataSet
    seen: Mapping[str | None, Sequence[tuple[int, Pictures]]]
    images: tuple[ShownImage, ...]
    colours: NDArray[np.uint8]
    changed: bool
    size: str

    @property
    def labelled(self) -> bool:
        """Whether there is a truth to show."""
        return any(image.labelled for image in self.images)

    @property
    def columns(self) -> tuple[str, ...]:
        """Titles."""
        inputs = ["input" if name is None else name for name in self.seen]
        more = ["differences"] if self.changed else []
        return (*inputs, *(["truth"] if self.labelled else []), *self.images[0].predictions, *more)

    def made(self) -> Panel:
        """All that is drawn."""
        rows = tuple(Row(self._title(image), self._cells(image)) for image in self.images)
        return Panel(self.columns, rows, self._classes(), self._changes() if self.changed else ())

    def _title(self, image: ShownImage) -> str:
        """What an image is called, and how much of it is right."""
        parts = [image.sample_id or f"image {image.number}"]
        parts += [image.group] if image.group is not None else []
        scores = [image.accuracy(title) for title in image.predictions]
        known = [f"{100 * score:.1f}" for score in scores if score is not None]
        text = " · ".join(parts)
        return f"{text} · accuracy {' → '.join(known)} %" if known and (self.changed or len(known) == 1) else text

    def _cells(self, image: ShownImage) -> tuple[NDArray[np.uint8] | None, ...]:
        """As large as can be drawn: images may be far larger."""
        most = panel.most_across(len(self.columns), self.size)
        inputs = [self._input(runs, image.number, most) for runs in self.seen.values()]
        classes = [image.truth] if self.labelled else []
        shown = [panel.thinned(one, most) for one in (*classes, *image.predictions.values())]
        more = [panel.CHANGE_COLOURS[panel.thinned(image.changes, most)]] if self.changed else []
        return (*inputs, *(panel.coloured(one, self.colours) for one in shown), *more)

    def _input(
        self, runs: Sequence[tuple[int, Pictures]], number: int, most: int
    ) -> NDArray[np.uint8] | None:  # fmt: skip
        """The image that was put in, where there is one."""
        for first, one in runs:
            if first <= number < first + one.n:
                image = one.image(number - first)
                return panel.thinned(panel.grey(image) if image.ndim == 2 else image, most)
        return None

    def _classes(self) -> tuple[Key, ...]:
        """The classes that are shown; of very many, those of most pixels."""
        n, shown = self.data.n_classes, np.zeros(self.data.n_classes + 1, dtype=np.int64)
        for image in self.images:
            for one in (*([image.truth] if self.labelled else []), *image.predictions.values()):
                shown += np.bincount(np.where(one < 0, n, one).reshape(-1), minlength=n + 1)
        met = np.flatnonzero(shown[:n])
        most = sorted(met[np.argsort(-shown[met], kind="stable")][:MOST_CLASSES].tolist())
        names = self.data.class_names or [str(k) for k in range(n)]
        keys = [Key(names[k], tuple(self.colours[k].tolist())) for k in most]
        keys += [Key("no label", IGNORED)] if shown[n] else []
        left = len(met) - len(most)
        return (*keys, *([Key(f"and {left} rarer class{'es' * (left > 1)}")] if left else []))

    def _changes(self) -> tuple[Key, ...]:
        """What the colours of the differences mean, and how many pixels have them."""
        counts = np.sum([image.counted() for image in self.images], axis=0).tolist()
        n = sum(image.labelled for image in self.images)
        keys = [Key("differences:")]
        for code, (name, one) in enumerate(zip(panel.CHANGES, counts, strict=True)):
            share = f" ({100 * one / n:.1f} %)" if n and code != panel.UNLABELLED else ""
            text = name if code == panel.UNCHANGED else f"{name} {one:,}{share}"
            if one or code in (panel.RIGHT, panel.WRONG) * bool(n):
                keys.append(Key(text, tuple(panel.CHANGE_COLOURS[code].tolist())))
        return tuple(keys)
