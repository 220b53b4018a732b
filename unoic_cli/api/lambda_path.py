"""`LambdaPath`: the lambda curve of a network's logits while it runs, batch by batch, with no file of them."""

from __future__ import annotations

import copy
import inspect
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Unpack, cast

import numpy as np

from unoic_cli import formats
from unoic_cli.calls import ArgumentError, as_array, check_names, described, plain_arguments, signature_of
from unoic_cli.commands.search import SearchResult, SubjectToOption, search_lambda
from unoic_cli.data.batch import check_labels
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.facts import Fact, driven
from unoic_cli.data.reader import BatchReader
from unoic_cli.data.steps import Here, Pass, Situation, Step
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import arrays
from unoic_cli.formats.block import Kind, Passing, Source
from unoic_cli.machine import available_threads
from unoic_cli.options import Option, filled, is_given, options_of
from unoic_cli.resolve.asked import ask
from unoic_cli.resolve.common import check_threads
from unoic_cli.resolve.options import (
    AbsentOption,
    IgnoreOptions,
    RequireOption,
    ShotsOption,
    TargetPriorOption,
    ThreadsOption,
    UnseenOption,
)
from unoic_cli.runs import batches, state
from unoic_cli.runs.driver import Run
from unoic_cli.runs.ledger import Counted, Ledger
from unoic_cli.runs.sweep import absorb_all, add_all
from unoic_cli.runs.sweep import count as count_pass
from unoic_cli.storage.output import together
from unoic_cli.tallies.evidence import PassingEvidence
from unoic_cli.tallies.kept import KeptTally, place_apart, renumbered
from unoic_cli.tallies.path import PathTally
from unoic_cli.urls import scrub

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.tallies.tally import Counters, Tally

_BATCH = "batch"
"""What messages call one."""
_LARGEST = 1e30
"""Scores below this are valid at any temperature."""
_SPARE = 8
"""A batch of so many times the bytes of all counters is worth counters of its own in each thread."""
_CELL = 24
"""Bytes of counters for a class at a lambda."""
_HERE = ("source_counts", "class_names", "kind", "threads")
"""Options that the command does not know."""


class PathOptions(IgnoreOptions, total=False):
    """Options of `LambdaPath`."""

    source_prior: Annotated[
        Any,
        Option(
            "--source-prior",
            "PRIOR",
            "Class frequencies, or counts, of the TRAINING data, which rebalancing divides out; it or source_counts is "
            "needed.",
            takes="(K,) array, mapping by class, Prior, path or str",
        ),
    ]
    source_counts: Annotated[
        Any,
        Option("", None, "The same, said as a file says it.", takes="(K,) array or mapping by class"),
    ]
    target_prior: TargetPriorOption
    unseen: UnseenOption
    temperature: Annotated[float | None, Option("--temperature", "T", "Divide the scores by T.")]
    class_names: Annotated[Sequence[str] | None, Option("", None, "Of the classes, (K,).", takes="sequence of str")]
    kind: Annotated[
        Kind, Option("", None, "What the scores are.", default="logits", takes='{"logits", "log_probs", "probs"}')
    ]
    metric: Annotated[
        str,
        Option(
            "--metric",
            "METRIC",
            "What to maximise: macc (mean class, or balanced, accuracy), acc, miou, f1 (macro), topN (top5), or "
            "another metric of predictions.",
            default="macc",
        ),
    ]
    range: Annotated[
        str | Sequence[float] | None,
        Option(
            "--range",
            "A:B[:STEP]",
            "Lambdas to look at. Default: 0:6, or -1:6 for metrics that tell wrong predictions apart, or classes (0:2 "
            "for best); it cannot grow.",
            takes="(A, B), (A, B, STEP) or str",
        ),
    ]
    step: Annotated[str | float | None, Option("--step", "STEP", "Lattice step. Default: 0.01.")]
    choose: Annotated[
        str | None,
        Option(
            "--choose",
            "RULE",
            "anchored (of the lambdas as good as the best within one standard error, the one nearest to what the "
            "probabilities say; the default), or best (the middle of the widest best run).",
        ),
    ]
    cluster: Annotated[
        str | None,
        Option("--cluster", "WHAT", "What is independent, for standard errors and intervals: unit, or image."),
    ]
    subject_to: SubjectToOption
    require: RequireOption
    metrics: Annotated[
        str | Sequence[str] | None,
        Option(
            "--metrics",
            "LIST",
            "What is measured beside acc, macc, miou and f1: metrics of predictions, such as gmean, kappa, mcc, top5, "
            "or of one class recall[NAME] (all: docs/metrics.md).",
        ),
    ]
    shots: ShotsOption
    absent: AbsentOption
    threads: ThreadsOption


_KNOWN = {"n_classes": "int", **{one.name: one.type for one in options_of(PathOptions).values()}}


@dataclass
class _Part:
    """Batches of one kind, one behind the other.

    Attributes
    ----------
    source : Source
        What they are.
    n_samples : int
        How many there have been.
    """

    source: Source
    n_samples: int = 0

    @property
    def n_units(self) -> int:
        return self.n_samples * self.source.pixels

    def named(self, name: str) -> Source:
        """As an input of the command."""
        return replace(self.source, name=name, n_samples=self.n_samples)


class LambdaPath:
    """Counts predictions at every lambda while a network runs: `search_lambda` without a file of its logits.

    Parameters
    ----------
    n_classes : int
        K.
    **options

    Attributes
    ----------
    n_units, n_samples : int
        What was counted, ignored labels included.

    Raises
    ------
    UnoicError
        Options that make no sense, or need another look at the data: other metrics than those of predictions, priors
        that are counted.

    Notes
    -----
    `compute` is what `search_lambda` finds on all batches behind one another, whatever they were, but for a range that
    would grow: where the best value sits on its end, a note says so. After a sum of several, whose units are more than
    the 65,536 (or 16 MB of scores) that standard errors are taken from, these come from other units than in one file,
    unless `update` was told the places of the samples.

    Examples
    --------
    >>> import numpy as np
    >>> from unoic_cli import LambdaPath
    >>> path = LambdaPath(2, source_prior=[3, 1])
    >>> for logits, labels in [([[2.0, 1.5], [2.0, 0.0]], [1, 0]), ([[1.0, 0.0], [0.2, 1.0]], [0, 1])]:
    ...     path.update(np.array(logits), labels)
    >>> found = path.compute()
    >>> found.baseline["macc"], found.best["macc"], round(found.lam, 2)
    (0.75, 1.0, 0.65)
    """

    def __init__(self, n_classes: int, **options: Unpack[PathOptions]) -> None:
        check_names("LambdaPath", options, _KNOWN)
        given = plain_arguments({"n_classes": n_classes, **options}, _KNOWN)
        self._begin(given.pop("n_classes"), given, {})

    def _begin(self, n_classes: int, given: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self.n_classes, self._facts = n_classes, dict(facts)
        self._options = {name: value for name, value in given.items() if is_given(value)}
        chosen = filled(PathOptions, self._options)
        check_threads(chosen["threads"])
        self._threads = chosen["threads"] or available_threads()
        self._arguments = {name: value for name, value in self._options.items() if name not in _HERE}
        self._stub = self._made_stub(chosen)
        self._check(chosen)
        self._prepare(self._stub)
        lams = self._path.lines.lams
        self._arguments.setdefault("range", f"{lams[0]:g}:{lams[-1]:g}")

    def _made_stub(self, chosen: PathOptions) -> Source:
        """What batches are, as far as that is known."""
        if self.n_classes < 2:
            raise ArgumentError("n_classes", str(self.n_classes), "expected two classes or more")
        if chosen["source_prior"] is None and chosen["source_counts"] is None:
            expected = "expected class frequencies of the TRAINING data, or source_counts: lambda weighs them"
            raise ArgumentError("source_prior", "none given", expected)
        if chosen["kind"] == "predictions":
            raise ArgumentError("kind", "'predictions', which have no scores", "expected logits, log_probs or probs")
        blank = np.zeros((1, self.n_classes), dtype=np.float32)
        names, counts = chosen["class_names"], chosen["source_counts"]
        told = {"class_names": names, "source_counts": counts, "kind": chosen["kind"]}
        return _passing(arrays.describe(blank, [0], name="LambdaPath", **told))

    def _check(self, chosen: PathOptions) -> None:
        """Refuse what needs another look at the data."""
        if chosen["choose"] == "paper":
            found = "paper, which looks at the data again and again"
            raise UsageError("--choose", found, "expected anchored or best")
        data = DataSet((self._stub,), None, frozenset(), 1)
        asked = ask(
            chosen["metrics"], data, chosen["absent"], chosen["shots"], metric=chosen["metric"],
            subject_to=chosen["subject_to"], require=chosen["require"],
        )  # fmt: skip
        for one in asked.metrics:
            if one.recipe is not None and not one.recipe.on_path:
                found = f"{one.name}, which is measured at single lambdas when one is chosen"
                raise UsageError("--metrics", found, "expected metrics of predictions, such as macc, miou, f1 or top5")

    def _prepare(self, stub: Source) -> None:
        """Ask the command what it would count, and begin with that; small files are read once."""
        ledger = Ledger("LambdaPath", facts=self._facts)

        def answer(step: Step) -> Any:
            match step:
                case Fact():
                    ledger.replay = scrub(step.name) in ledger.facts
                    return ledger.know(step)
                case Here():
                    return Situation(stored=True)
            return step

        step = driven(search_lambda([stub], **self._arguments), answer, (Pass,))
        if not isinstance(step, Pass) or not any(isinstance(one, PathTally) for one in step.tallies):
            found = "a prior that is counted (labels, mean-posterior, or a logits file)"
            raise UsageError("LambdaPath", found, "expected numbers, a table by class, or a file of them")
        self._view = step.view
        self._tallies: list[Tally] = [*step.tallies, PassingEvidence(self.n_classes)]
        self._parts: list[_Part] = []
        self._torn = ""

    @property
    def _path(self) -> PathTally:
        return next(one for one in self._tallies if isinstance(one, PathTally))

    @property
    def n_units(self) -> int:
        """Samples or pixels that were counted."""
        return sum(part.n_units for part in self._parts)

    @property
    def n_samples(self) -> int:
        """Samples that were counted."""
        return sum(part.n_samples for part in self._parts)

    def __repr__(self) -> str:
        return f"<LambdaPath of {self.n_classes} classes: {self.n_units:,} units>"

    # ------------------------------------------------------------------------------------------ batches

    def update(self, logits: Any, labels: Any, *, index: Any = None, class_axis: int = 1) -> None:
        """Count a batch.

        Parameters
        ----------
        logits : (N, K) or (N, K, H, W)
            Of numpy, torch, jax, tensorflow ...; of two classes also one score of each unit.
        labels : (N,) or (N, H, W) integers
            255 (of fewer than 256 classes), -1 and -100 are ignored, and `ignore_index`.
        index : (N,) integers, optional
            Places of the samples in the data set. With them nothing depends on who counts which samples, or when:
            results are those of a file of the whole data set, in its order.
        class_axis : int
            -1 for images (N, H, W, K).

        Raises
        ------
        UnoicError
            Scores or labels that do not fit: nothing of the batch is counted then.
        """
        self._check_whole()
        source = self._described(logits, labels, class_axis)
        if source is None:
            return
        places = None if index is None else _places(index, source)
        like = _passing(source, self._stub, "in order" if places is None else "by place")
        self._check_fits(like)
        if not self._parts:
            self._prepare(like)
        number = self._part_of(source)
        new = number == len(self._parts)
        part = _Part(like) if new else self._parts[number]
        data = DataSet((source,), None, frozenset(filled(PathOptions, self._options)["ignore_index"]), source.n_samples)
        for one in self._tallies:
            if isinstance(one, KeptTally):
                place = place_apart(number)
                one.before, one.samples = {_BATCH: (place + part.n_units, place + part.n_samples)}, places
            elif isinstance(one, PassingEvidence):
                one.name, one.before = str(number), part.n_units if places is None else places

        def done() -> None:
            part.n_samples += source.n_samples
            if new:
                self._parts.append(part)

        _undisturbed(lambda: self._count(data, source, done))

    def _described(self, logits: Any, labels: Any, class_axis: int) -> arrays.Arrays | None:
        """A batch as an input, None of one without samples; what does not fit is refused."""
        scores, truth = as_array(logits, "logits"), as_array(labels, "labels")
        if scores.shape[:1] == truth.shape[:1] == (0,):
            return None
        axis = class_axis if scores.ndim == 4 else None
        source = arrays.describe(scores, truth, kind=self._stub.kind, class_axis=axis, name=_BATCH)
        if source.n_classes != self.n_classes:
            raise DataError("logits", f"{source.n_classes} classes", f"expected {self.n_classes}")
        assert isinstance(source, arrays.Arrays)
        if not self._parts and self._stub.kind == "logits" and arrays.look_like_probabilities(source):
            found = "values in [0, 1] whose rows sum to 1"
            raise DataError("logits", found, 'expected logits, or LambdaPath(..., kind="probs")')
        return source

    def _check_fits(self, source: Source) -> None:
        """Refuse what cannot lie beside what was counted."""
        if not self._parts:
            return
        before = self._parts[0].source
        if bool(source.image_shape) != bool(before.image_shape):
            said = ("images", "rows") if source.image_shape else ("rows", "images")
            raise DataError("logits", f"{said[0]} of scores", f"expected {said[1]}, as before")
        if (source.encoding == "float64") != (before.encoding == "float64"):
            raise DataError("logits", f"{source.encoding} scores", f"expected {before.encoding}, as before")
        if source.passing != before.passing:
            said = ("an index", "none") if source.passing == "by place" else ("no index", "one")
            raise DataError("index", said[0], f"expected {said[1]}, as before")
        if source.passing == "by place" and source.image_shape != before.image_shape:
            expected = f"expected {before.image_shape}, as before: places are those of images of one size"
            raise DataError("logits", f"images of {source.image_shape}", expected)

    def _part_of(self, source: Source) -> int:
        """The part that a batch belongs to; a new one where images of this size, or scores of this type, are new."""
        for number, part in enumerate(self._parts):
            own = part.source
            if (own.image_shape, own.encoding, own.single) == (source.image_shape, source.encoding, source.single):
                return number
        return len(self._parts)

    def _count(self, data: DataSet, source: arrays.Arrays, done: Callable[[], None]) -> None:
        """Count a batch: all of it, or nothing."""
        scores = source.arrays["scores"]
        n_cells = self._path.lines.lams.size * self.n_classes
        if scores.nbytes < _SPARE * self._threads * _CELL * n_cells and _is_sound(source):
            check_labels(source.arrays["labels"].reshape(-1), self.n_classes, data.ignored, source, _itself)
            self._commit(lambda: self._count_here(data), done)
            return
        counted = [one.fresh() for one in self._tallies]
        for one in counted:
            if isinstance(one, KeptTally) and one.samples is None and source.n_units >> one.level > one.limit:
                units = np.empty(source.n_units, dtype=np.int32)
                check_labels(source.arrays["labels"].reshape(-1), self.n_classes, data.ignored, source, _itself, units)
                one.expect(one.before[_BATCH][0], units >= 0)  # few stay of what it would keep
        count_pass(Pass(data, counted, self._view), n_threads=self._threads)
        self._commit(lambda: add_all(self._tallies, counted), done)

    def _count_here(self, data: DataSet) -> None:
        """Count a batch that is known to be valid in this thread."""

        def look(batch: Any) -> None:
            for one in self._tallies:
                one.update(batch)

        fields: frozenset[str] = frozenset().union(*(one.needs for one in self._tallies))
        reader = BatchReader(data, fields, view=self._view)
        for place, span in enumerate(data.spans()):
            reader.batches(place, span, look)

    def _commit(self, add: Callable[[], None], done: Callable[[], None]) -> None:
        """Add to what was counted; what stops that half-way (no memory is left) leaves nothing to go on with."""
        self._torn = "an update that failed half-way"
        add()
        done()
        self._torn = ""

    def _check_whole(self) -> None:
        if self._torn:
            raise DataError("LambdaPath", self._torn, "expected reset()")

    def reset(self) -> None:
        """Forget all batches."""
        self._prepare(self._stub)

    # ------------------------------------------------------------------------------------------ results

    def compute(self) -> SearchResult:
        """What `search_lambda` finds on all batches.

        Returns
        -------
        SearchResult
            Its `lams`, `curve` and `counts` are the curve; recalls of all classes along it are ``found.counts.hits /
            found.counts.support``, (G, K).

        Raises
        ------
        UnoicError
            Nothing was counted, or what `search_lambda` refuses.
        """
        ledger = self._ledger("<array>", "<array {}>")
        ledger.replay = True
        found = Run(ledger).drive(search_lambda(ledger.arguments["inputs"], **self._arguments))
        return cast(SearchResult, found)

    def save(self, path: str | os.PathLike[str], *, name: str | None = None, force: bool = False) -> None:
        """Write a state file, which `unoic merge` joins with those of others and `unoic report` shows.

        Parameters
        ----------
        path : str or path
        name : str, optional
            What results call these batches, and by which they are told from those of others. Default: the name of the
            file, without its folder and suffix.
        force : bool
            Replace a file of that name.

        Raises
        ------
        UnoicError
            Nothing was counted, or the file cannot be written.
        """
        path = os.fspath(path)
        formats.check_output(path, force=force, option="path")
        name = os.path.splitext(os.path.basename(path))[0] if name is None else name
        if not name or not name.isprintable():
            raise ArgumentError("name", repr(name), "expected a printable name")
        ledger = self._ledger(name, name + ".{}")
        try:
            known = json.loads(json.dumps(self._arguments))
        except TypeError:
            expected = "expected numbers, text, or the name of a file, which a state can keep"
            raise UsageError("LambdaPath", "an object among the options", expected) from None
        ledger.arguments = {**known, "inputs": ledger.arguments["inputs"]}
        with together(None):
            state.save(ledger, path)

    def _ledger(self, one: str, several: str) -> Ledger:
        """What the command would have found out and counted, were the parts its inputs."""
        self._check_whole()
        if not self._parts:
            raise DataError("LambdaPath", "nothing was counted", "expected at least one update")
        parts, counters = self._parts, [tally.counters() for tally in self._tallies]
        names = [one] if len(parts) == 1 else [several.format(i + 1) for i in range(len(parts))]
        sources = [part.named(name) for part, name in zip(parts, names, strict=True)]
        path, rows = counters[self._tallies.index(self._path)], counters[-1]["rows"]
        units = next(found for found in counters if "n_units" in found)
        counters[-1] = {
            "rows": {name: rows[str(i)] for i, name in enumerate(names)},
            "labels": self._labels(path["support"][0], units["n_units"], int(units["ignored"].sum())),
        }
        size = sum(source.n_units for source in sources)
        facts = {**self._facts, **batches.facts_of(sources)}
        passes = [Counted(size, False, ([(0, size)], counters))]
        return Ledger("LambdaPath", "search-lambda", {"inputs": names}, facts, passes)

    def _labels(self, support: Any, n: int, ignored: int) -> dict[str, int]:
        """What `LabelsSeen` would have counted."""
        both = self.n_classes == 2
        return {
            "has_first": int(support[0] > 0), "has_last": int(support[-1] > 0),
            "n": n if both else 0, "ignored": ignored if both else 0,
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------ several

    def merge_state(self, others: LambdaPath | Iterable[LambdaPath]) -> None:
        """Add what others counted, of other batches; they lie behind these.

        Parameters
        ----------
        others : LambdaPath, or several

        Raises
        ------
        UnoicError
            Other options or classes: nothing is added then.
        """
        listed = [others] if isinstance(others, LambdaPath) else list(others)
        total = copy.deepcopy(self)
        for other in listed:
            if not isinstance(other, LambdaPath):
                raise ArgumentError("others", f"a {type(other).__name__}", "expected LambdaPath")
            if other is self:
                raise ArgumentError("others", "the same batches again", "expected others")
            total._absorb(other)
        self._tallies, self._parts, self._view = total._tallies, total._parts, total._view

    def __add__(self, other: LambdaPath) -> LambdaPath:
        if not isinstance(other, LambdaPath):
            return NotImplemented
        total = copy.deepcopy(self)
        if other is self:
            raise ArgumentError("+", "the same batches again", "expected others")
        total._absorb(other)
        return total

    def __radd__(self, other: Any) -> LambdaPath:
        return copy.deepcopy(self) if isinstance(other, int) and other == 0 else NotImplemented  # sum() begins with it

    def _absorb(self, other: LambdaPath) -> None:
        self._check_whole()
        other._check_whole()
        self._check_alike(other)
        if not other._parts:
            return
        if not self._parts:
            self._prepare(other._parts[0].source)
        self._take(other._parts, [one.counters() for one in other._tallies])

    def _take(self, parts: Iterable[_Part], counters: Iterable[Counters]) -> None:
        """Put parts that were counted elsewhere behind those that are here."""
        first, taken = len(self._parts), [replace(part) for part in parts]
        numbers = list(range(first, first + len(taken)))
        *counted, seen = counters
        by_place = bool(taken) and taken[0].source.passing == "by place"
        counted = [renumbered(one, numbers, by_place) if "kept" in one else one for one in counted]
        rows = {str(first + int(name)): found for name, found in seen["rows"].items()}
        absorb_all(self._tallies, [*counted, {**seen, "rows": rows}])
        self._parts = [*self._parts, *taken]

    def _check_alike(self, other: LambdaPath) -> None:
        ours, theirs = ({**one._options, "n_classes": one.n_classes} for one in (self, other))
        for name in sorted({*ours, *theirs} - {"threads"}):
            if ours.get(name) != theirs.get(name):
                raise UsageError("LambdaPath", f"another {name} in what is added", "expected the same options")
        for part in other._parts:
            self._check_fits(part.source)

    def __getstate__(self) -> dict[str, Any]:
        self._check_whole()
        counters = [one.counters() for one in self._tallies] if self._parts else []
        made = {"n_classes": self.n_classes, "options": self._options, "facts": self._facts}
        return {**made, "parts": self._parts, "counters": counters}

    def __setstate__(self, kept: Mapping[str, Any]) -> None:
        self._begin(kept["n_classes"], kept["options"], kept["facts"])
        if kept["parts"]:
            self._prepare(kept["parts"][0].source)
            self._take(kept["parts"], kept["counters"])


LambdaPath.__doc__ = described(inspect.getdoc(LambdaPath) or "", options_of(PathOptions))
LambdaPath.__init__.__signature__ = signature_of(LambdaPath.__init__)  # type: ignore[attr-defined]


def _places(index: Any, source: Source) -> NDArray[np.int64]:
    """Of the samples of a batch in the data set, checked."""
    found = as_array(index, "index")
    if found.dtype.kind not in "iu" or found.shape != (source.n_samples,):
        raise DataError("index", f"{found.dtype} {found.shape}", f"expected integers, ({source.n_samples},)")
    most = place_apart(1) // source.pixels
    if found.min() < 0 or found.max() >= most:
        raise DataError("index", f"{int(found.min())} to {int(found.max())}", f"expected places in [0, {most:,})")
    return found.astype(np.int64)


def _passing(source: Source, stub: Source | None = None, how: Passing = "in order") -> Source:
    """What a batch says of all like it."""
    known = source if stub is None else stub
    return Source(
        name=known.name, format="batches", n_samples=1, n_classes=source.n_classes, image_shape=source.image_shape,
        kind=source.kind, encoding=source.encoding, layout=source.layout, fields=frozenset({"labels"}),
        source_counts=known.source_counts, class_names=known.class_names, storage="in memory", single=source.single,
        notes=source.notes, passing=how,
    )  # fmt: skip


def _itself(i: int) -> int:
    return i


def _is_sound(source: arrays.Arrays) -> bool:
    """Whether no kernel can find anything wrong with the scores of a batch."""
    scores = source.arrays["scores"]
    least, most = float(scores.min()), float(scores.max())
    return (least > 0 if source.kind == "probs" else least >= -_LARGEST) and most <= _LARGEST


def _undisturbed(work: Callable[[], None]) -> None:
    """Do work that is done as a whole: an interrupt waits for its end."""
    failed: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised below
            failed.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, daemon=True).start()
    interrupt: KeyboardInterrupt | None = None
    while not ended.is_set():
        try:
            ended.wait()
        except KeyboardInterrupt as error:
            interrupt = error
    if failed:
        raise failed[0]
    if interrupt is not None:
        raise interrupt
