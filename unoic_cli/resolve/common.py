"""What the tasks share: inputs and the options that mean the same everywhere."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from unoic_cli import formats
from unoic_cli.calibrations.calibration import Calibration, Modality
from unoic_cli.calibrations.prior import (
    Prior,
    PriorLike,
    parse_list,
    prior_from_numbers,
    prior_from_table,
    read_prior_file,
)
from unoic_cli.calibrations.view import Look, View
from unoic_cli.data.dataset import SPAN_BYTES, WHOLE_BYTES, DataSet, open_dataset, open_modalities
from unoic_cli.data.facts import know
from unoic_cli.data.steps import Steps, count, here
from unoic_cli.errors import DataError, NoInputError, UnoicError, UsageError, Warned, other_names
from unoic_cli.formats import FORMATS, STANDARD, detect, split_name, storage
from unoic_cli.formats.block import Kind, Source
from unoic_cli.formats.names import Asked, check_kind
from unoic_cli.formats.source import FileSource
from unoic_cli.machine import available_threads
from unoic_cli.metrics import title
from unoic_cli.resolve.inputs import NAME, expand, expanded, is_pattern, is_there
from unoic_cli.resolve.options import DataOptions
from unoic_cli.tallies.counts import Counts
from unoic_cli.tallies.findings import Evidence
from unoic_cli.tallies.labels import LabelTally
from unoic_cli.tallies.posterior import PosteriorTally
from unoic_cli.version import __version__

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Input: TypeAlias = "str | os.PathLike[str] | Source | ArrayLike"
Inputs: TypeAlias = "Input | Sequence[str | os.PathLike[str] | Source] | Mapping[str, Any]"
PRIOR_WORDS = ("uniform", "labels", "mean-posterior")
"""Priors that are no files."""
UNLIKE, SURE = 0.8, 4.0
"""Labels are met more rarely than by chance below this share of it, and by so many standard errors."""


@dataclass
class Notes:
    """Things worth saying that are not results; collected once each, and told as they come."""

    tell: Callable[[str], None] | None = None
    texts: list[str] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Say it, once."""
        text = storage.scrub(text)
        if text not in self.texts:
            self.texts.append(text)
            if self.tell is not None:
                self.tell(text)

    def warn(self, code: str, text: str, **figures: Any) -> None:
        """Say that harm may be done: what was found, what to do about it, and the figures behind it."""
        made = Warned(f"{code}: {storage.scrub(text)}", code, figures)
        if made not in self.warnings:
            self.warnings.append(made)
            if self.tell is not None:
                self.tell(made)

    def told(self) -> list[dict[str, Any]]:
        """The warnings, for JSON."""
        return [
            {"code": one.code, "text": str(one).removeprefix(f"{one.code}: "), **one.figures} for one in self.warnings
        ]

    def settle(self, strict: bool, where: str) -> None:
        """Refuse to go on after a warning, if that is wished.

        Raises
        ------
        DataError
            There was one.
        """
        if strict and self.warnings:
            raise DataError(where, str(self.warnings[0]), "expected no warning (--strict)")


def check_threads(threads: Any) -> None:
    """Refuse a number of threads that is none.

    Raises
    ------
    UsageError
        It is not at least 1.
    """
    if threads is not None and not (isinstance(threads, int) and threads >= 1):
        raise UsageError("--threads", str(threads), "expected at least 1")


def open_inputs(
    inputs: Inputs, labels: ArrayLike | None, options: DataOptions, notes: Notes, *, by: str | None = None,
    option: str = "--split",
) -> Steps[DataSet]:  # fmt: skip
    """Files, sources or arrays as one data set; inputs like ``NAME=FILE``, or a mapping, as modalities side by side.

    Patterns and lists stand for the files that they mean; see `unoic_cli.resolve.inputs`. What looks wrong about the
    data is said now, or when it is read (`unoic_cli.tallies.findings`); with ``by="file"``, of each file by itself.
    """
    check_threads(options["threads"])
    class_axis = options["class_axis"]
    if isinstance(labels, (str, os.PathLike)):
        options, labels = {**options, "labels_file": labels}, None
    common: dict[str, Any] = {
        "split": options["split"],
        "ignore_index": options["ignore_index"],
        "allow_external": options["allow_external"],
        "asked": asked_of(options),
    }
    inputs = yield from expand(inputs, common["asked"])
    named = inputs if isinstance(inputs, Mapping) else (yield from _named_inputs(inputs))
    _refuse_said([inputs] if named is None else named.values(), options)
    if named is not None:
        for name in named:
            if not isinstance(name, str) or NAME.fullmatch(f"{name}=x") is None:
                raise UsageError("FILES", f"the modality {name!r}", "expected a name like rgb: letters, digits, _ . -")
        given = {
            str(name): _sources(files, labels, f"<array {name}>", class_axis, options["kind"])
            for name, files in named.items()
        }
        data = yield from open_modalities(given, **common)
    else:
        data = yield from open_dataset(_sources(inputs, labels, "<array>", class_axis, options["kind"]), **common)
    _tell_external(data, options, notes)
    run = yield from here()
    if options["memory"] is not None:
        data = data.bounded(*_span_bytes(options["memory"], options))
    data = _in_shards(data, run.shard)
    for rows in run.lacking:
        notes.add(f"partial: {rows} are not counted")
    for member in data.modalities:
        member.care.tell = options["tell"]
    _tell_parts(data, notes)
    _tell_reading(data, notes)
    _tell_files(data.all_sources, notes)
    _tell_order(data, notes)
    if data.may_mix_splits:
        notes.add(f"the input has a split field; all of its samples are used (restrict with {option} NAME)")
    evidence = Evidence(notes.add)
    yield from evidence.begin(data, apart=by == "file")
    return replace(data, evidence=evidence)


def asked_of(options: Any, *, lenient: bool = False) -> Asked:
    """What was said of names, kinds and axes; `lenient` of another file than the inputs, which has its own labels."""
    kind, labels = options["kind"], options["labels_file"]
    if kind is not None:
        check_kind("--kind", kind)
    asked = Asked(options["logits_key"], options["labels_key"], options["class_axis"], lenient=lenient)
    return asked if lenient else replace(asked, kind=kind, labels_file=None if labels is None else os.fspath(labels))


def _tell_reading(data: DataSet, notes: Notes) -> None:
    """Say what was taken for what, once for all files of which it is true."""
    said: dict[str, list[str]] = {}
    for source in data.all_sources:
        for text in source.notes:
            said.setdefault(text, []).append(source.name)
    for text, names in said.items():
        notes.add(f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {text}")


def tell_names(one: str, names: Sequence[str] | None, other: str, others: Sequence[str] | None, notes: Notes) -> None:
    """Say that of two things that speak of the same classes only one has names for them; others check that names agree.

    Names that are the indices of the classes, in order, say no more than positions do.
    """
    if names and others:
        return
    if not names:
        one, names, other = other, others, one
    if names and list(names) != [str(k) for k in range(len(names))]:
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        notes.add(f"the classes ({listed}) have names in {one}, and none in {other}: taken by position")


def _tell_files(sources: Sequence[Source], notes: Notes) -> None:
    """Say that some files have names for the classes, and others none."""
    named = next((source for source in sources if source.class_names), None)
    without = [source.name for source in sources if not source.class_names]
    if named is not None and without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        tell_names(named.name, named.class_names, without[0] + more, None, notes)


def _tell_order(data: DataSet, notes: Notes) -> None:
    """Say that nothing but their order tells which samples of modalities in files belong together."""
    apart = [
        str(member.modality)
        for member in data.beside
        if not any(data.has(name) and member.has(name) for name in ("sample_id", "labels"))
        and any(isinstance(source, FileSource) for source in member.sources)
    ]
    if apart:
        notes.add(
            f"samples of {data.modality} and {', '.join(apart)} are put together by their order alone: neither "
            "sample_id nor labels are in both"
        )


def _tell_parts(data: DataSet, notes: Notes) -> None:
    """Say when parts that `calibrate --shard` wrote are not all here, or stand beside other files."""
    for member in data.modalities:
        given = [source.attributes.get("unoic_part") for source in member.sources]
        parts = [part for part in given if part is not None]
        wholes = {part.rpartition("/")[2] for part in parts}
        wanted = {f"{i + 1}/{n}" for n in wholes if n.isdigit() and int(n) <= 10**6 for i in range(int(n))}
        if parts and (set(parts) != wanted or len(wholes) > 1 or len(parts) < len(given)):
            lacking = sorted(wanted - set(parts))
            listed = ", ".join(lacking[:4]) + (" ..." if len(lacking) > 4 else "")
            found = f"without {listed}" if lacking else "beside other files"
            notes.add(f"{member.name}: parts of a larger output, {found}")


def parse_size(given: int | str, option: str) -> int:
    """Bytes of ``256MB`` (10**6), ``64M`` or ``64MiB`` (2**20), or a number.

    Examples
    --------
    >>> parse_size("1.5GB", "--memory"), parse_size("2M", "--chunk"), parse_size(4096, "--chunk")
    (1500000000, 2097152, 4096)
    """
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?)(I?B|)", str(given).strip().upper())
    if match is None:
        raise UsageError(option, f"{given!r}", "expected a size such as 256MB or 2M")
    return int(float(match[1]) * (1000 if match[3] == "B" else 1024) ** " KMGT".index(match[2] or " "))


def _span_bytes(memory: int | str, options: DataOptions) -> tuple[int, int]:
    """Bytes of scores that a thread takes at once, and of images that it may have to see whole."""
    threads = options["threads"] or available_threads()
    share = parse_size(memory, "--memory") // threads // _COPIES
    if share < _LEAST:
        expected = f"expected at least {math.ceil(_LEAST * _COPIES * threads / 1e6)}MB"
        raise UsageError("--memory", f"{memory} for {threads} threads", expected)
    return min(SPAN_BYTES, share), min(WHOLE_BYTES, share)


def _in_shards(data: DataSet, shard: tuple[int, int] | None) -> DataSet:
    """The data, cut where the run's shard begins and ends."""
    return replace(data, shard=shard, beside=tuple(replace(one, shard=shard) for one in data.beside))


def check_output(path: str, *, force: bool, inputs: tuple[str, ...] = (), words: Container[str] = ()) -> Steps[None]:
    """Refuse an output as `unoic_cli.formats.check_output` does; the run may replace what it has written itself."""
    run = yield from here()
    formats.check_output(path, force=force or run.wrote(path), inputs=inputs, words=words)


def page_path(chosen: Any, data: DataSet) -> Steps[str | None]:
    """Where the page of a command goes that writes nothing else, if that can be done; None where none is wanted."""
    page = page_name(chosen["page"], "--page")
    if page is None:
        if chosen["force"]:
            raise UsageError("--force", "--force without --page", "expected an output that it may replace")
        return None
    spoken = ("calibration", "source_prior", "target_prior", "delta", "offsets", "methods", "labels_file")
    read = files_among(*(chosen[name] for name in spoken if name in chosen))
    yield from check_output(page, force=chosen["force"], inputs=(*(one.name for one in data.all_sources), *read))
    return page


def _sources(
    inputs: Any, labels: ArrayLike | None, name: str, class_axis: int | None, kind: Kind | None
) -> list[str | Source]:
    """The inputs of one modality as names and sources."""
    if isinstance(inputs, (str, os.PathLike, Source)):
        inputs = [inputs]
    if isinstance(inputs, (list, tuple)) and all(isinstance(item, (str, os.PathLike, Source)) for item in inputs):
        if labels is not None:
            raise UsageError("labels", "labels beside files", "expected them in the files, or arrays as inputs")
        return [item if isinstance(item, Source) else os.fspath(item) for item in inputs]
    from unoic_cli.formats import arrays

    source = arrays.describe(inputs, labels, name=name, class_axis=class_axis, kind=kind or "logits")
    if kind is None and arrays.look_like_probabilities(source):
        one = "one value of each unit, all in [0, 1], as probabilities of class 1 are"
        found = one if source.single else "values in [0, 1] whose rows sum to 1"
        raise DataError(source.name, found, 'expected logits, or kind="probs"')
    return [source]


def _refuse_said(inputs: Iterable[Any], options: DataOptions) -> None:
    """Refuse an axis of classes, or a kind, where every input was described before."""
    items = [item for one in inputs for item in (one if isinstance(one, (list, tuple)) else [one])]
    for name, option in (("class_axis", "--class-axis"), ("kind", "--kind")):
        if options.get(name) is not None and items and all(isinstance(item, Source) for item in items):
            found = f"given, but {items[0].name} is described already"
            raise UsageError(option, found, f"expected from_arrays(scores, {name}=...)")


def _tell_external(data: DataSet, options: Mapping[str, Any], notes: Notes) -> None:
    """Say that ``--allow-external`` does nothing, where neither the inputs nor what else is read can have links."""
    others = ("labels_file", "source_prior", "target_prior", "delta", "offsets")
    sources = [source for source in data.all_sources if isinstance(source, FileSource)]
    if not options["allow_external"] or not sources or any(options.get(name) is not None for name in others):
        return
    if all(source.NAME != "hdf5" for source in sources):
        notes.add(f"--allow-external: {data.name} is no HDF5, which alone has external links")


PAGE_SUFFIXES = (".html", ".htm")
"""What the name of a page ends with."""
_COPIES = 4
"""A span's scores, and what is made of them while they are counted."""
_LEAST = 1 << 18


def _named_inputs(inputs: Any) -> Steps[dict[str, list[str]] | None]:
    """Inputs like ``rgb=FILE`` by modality; None when none has a name."""
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        return None
    matches = []
    for text in texts:
        matches.append(None if (yield from is_there(text)) else NAME.fullmatch(text))
    if not any(matches):
        return None
    named: dict[str, list[str]] = {}
    for text, match in zip(texts, matches, strict=True):
        if match is None:
            raise UsageError(
                storage.shown(text), "a file without a name beside named ones", "expected NAME=FILE for every file"
            )
        named.setdefault(match[1], []).append(match[2])
    return named


def output_path(path: str | os.PathLike[str] | None) -> str | None:
    """An output's name as text."""
    return None if path is None else os.fspath(path)


def page_name(path: str | os.PathLike[str] | None, option: str) -> str | None:
    """The name of a page as text; None where none is wanted.

    Raises
    ------
    UsageError
        It is not that of an HTML file.

    Examples
    --------
    >>> page_name("out/page.HTM", "--page")
    'out/page.HTM'
    """
    page = output_path(path)
    if page and not page.lower().endswith(PAGE_SUFFIXES):
        raise UsageError(option, f"{page!r}", f"expected a name that ends with {' or '.join(PAGE_SUFFIXES)}")
    return page


def described(name: str, *, allow_external: bool, asked: Asked | None = None) -> Steps[Source]:
    """The source of one file, looked at by itself; a run that goes on, or is repeated, finds it as it was."""
    data = yield from open_dataset([name], allow_external=allow_external, asked=asked)
    return data.sources[0]


def take_output(path: str, *, force: bool, inputs: tuple[str, ...]) -> Steps[str]:
    """The name of an output as large as the data, checked before anything is read: of a shard, that of its part.

    Raises
    ------
    UsageError
        An unknown suffix, a part of a stream, or another output than the run that is resumed had begun.
    CannotCreateError
        As `check_output`.
    """
    run = yield from here()
    if path == STANDARD:
        formats.check_stream(force=force)
        if run.shard is not None:
            raise UsageError("--shard", "a part of a stream", "expected a file for each part")
        return path
    formats.writable(path)
    if run.shard is not None:
        path = part_name(path, *run.shard)
    yield from check_output(path, force=force or _is_begun(path, run.begun), inputs=inputs)
    return path


def _is_begun(output: str, begun: Mapping[str, str]) -> bool:
    """Whether what has the name of the output is the unfinished file of the run that is resumed.

    Raises
    ------
    UsageError
        It had begun another output.
    """
    for other in begun:
        if other != output:
            raise UsageError("--output", f"{output}, and the checkpoint is one of {other}", f"expected {other}")
    name = begun.get(output, "")
    return os.path.exists(name) and os.path.exists(output) and os.path.samefile(output, name)  # it had both names


def part_name(path: str, i: int, n: int) -> str:
    """The name of the i-th of n parts of an output; in the order of their names they are in that of the data.

    Examples
    --------
    >>> part_name("out/test.calibrated.h5", 3, 12)
    'out/test.calibrated.0003-of-0012.h5'
    """
    stem, suffix = os.path.splitext(path)
    width = max(4, len(str(n)))
    return f"{stem}.{i:0{width}}-of-{n:0{width}}{suffix}"


def files_among(*specs: Any) -> tuple[str, ...]:
    """Those arguments that may name a file which an output must not replace, ``NAME=FILE`` too."""
    found: list[str] = []
    for spec in specs:
        if isinstance(spec, (str, os.PathLike)):
            text = os.fspath(spec)
            match = NAME.fullmatch(text)
            names = [text] if match is None or os.path.exists(text) else [text, match[2]]
            found += names
            with contextlib.suppress(UnoicError):  # where it matters, reading says what is wrong
                found += [one for name in names if is_pattern(name) for one in expanded(name)]
        elif isinstance(spec, Mapping):
            found += files_among(*spec.values())
        elif isinstance(spec, (list, tuple)):
            found += files_among(*(item for item in spec if isinstance(item, (str, os.PathLike))))
    return tuple(found)


def is_logits_file(name: str) -> Steps[bool]:
    """Whether a name is that of a logits file, by its first bytes."""
    path, group = split_name(name)
    if group != "/" or storage.is_remote(path):
        return True
    return (yield from know(f"kind {path}", lambda: _is_logits(path)))


def _is_logits(path: str) -> bool:
    if path == STANDARD or not os.path.isfile(path):
        return False
    try:
        return bool(FORMATS[detect(path)].SIGNATURES)  # lines of text are a prior
    except UnoicError:
        return False


def count_labels(data: DataSet, *, shared: bool = False) -> Steps[LabelTally]:
    """Label counts in one stream over the labels alone; `shared` by all shards where another pass follows."""
    tally = LabelTally(data.n_classes)
    yield from count(data, [tally], shared=shared)
    return tally


def _mean_posterior(data: DataSet, temperature: float) -> Steps[Prior]:
    tally = PosteriorTally(data.n_classes)
    yield from count(data, [tally], view=View((Look(temperature),)))
    return Prior.from_weights(tally.mean(), "mean-posterior", counts=False, estimated=True)


def no_labels(data: DataSet, n_ignored: int) -> DataError:
    """What is wrong with data whose labels are all ignored."""
    return DataError(data.name, f"no labelled unit ({n_ignored} ignored)", "expected labels")


def _labels_prior(data: DataSet, origin: str, option: str, *, estimated: bool = True) -> Steps[Prior]:
    """Label frequencies. ``--ignore-index`` says which classes are measured, not which there are: all are counted."""
    data.require("labels", f"for {option} labels")
    kept = frozenset(label for label in data.ignored if not 0 <= label < data.n_classes)
    tally = yield from count_labels(replace(data, ignored=kept), shared=True)
    counts = tally.counts.tolist()
    if sum(counts) == 0:
        raise DataError(data.name, "no labelled unit", f"expected labels for {option}")
    return Prior.from_weights(counts, origin, counts=True, estimated=estimated)


def resolve_prior(
    spec: PriorLike, data: DataSet, option: str, options: DataOptions, notes: Notes, *, temperature: float = 1.0
) -> Steps[Prior]:
    """One grammar for source and target priors.

    Parameters
    ----------
    spec : str, Prior, sequence of float, or mapping
        ``uniform``; a comma list; a JSON, CSV or TSV file; ``labels``; ``mean-posterior``; or a logits
        file, whose labels are counted. Numbers in the order of the classes, or by class name or index.
    data : DataSet
        The input that ``labels`` and ``mean-posterior`` speak of.
    option : str
        For messages.

    Raises
    ------
    UnoicError
        The prior cannot be read, or is not one of K classes.
    """
    if isinstance(spec, Prior):
        prior = spec
    elif isinstance(spec, Mapping):
        prior = prior_from_table(spec, data.class_names, option)
    elif spec is None or not isinstance(spec, str):
        prior = prior_from_numbers(spec, option)
    elif spec == "uniform":
        prior = Prior.uniform(data.n_classes)
    elif spec == "labels":
        prior = yield from _labels_prior(data, "labels", option)
    elif spec == "mean-posterior":
        prior = yield from _mean_posterior(data, temperature)
    else:
        prior = parse_list(spec, option) or (yield from _file_prior(spec, data, option, options, notes))
    prior.check_length(data.n_classes, option)
    if prior.class_names is not None:
        tell_names(prior.origin, prior.class_names, data.name, data.class_names, notes)
    return prior


def _file_prior(spec: str, data: DataSet, option: str, options: DataOptions, notes: Notes) -> Steps[Prior]:
    meant = is_pattern(spec) and not spec.startswith("[")  # a list in brackets is none of files
    names: list[str] = (yield from expand(spec)) if meant else [spec]
    if not (yield from is_logits_file(names[0])):
        try:
            return (yield from read_prior_file(spec, data.class_names))
        except NoInputError as error:
            if os.sep in spec or "." in spec or error.found != "no such file":
                raise
            known = "expected uniform, labels, mean-posterior, a comma list, or a file"
            raise UsageError(option, f"{spec!r}", known) from None
    other = yield from open_dataset(
        names,
        ignore_index=options["ignore_index"],
        allow_external=options["allow_external"],
        asked=asked_of(options, lenient=True),
    )
    _tell_files(other.sources, notes)
    # another file's labels are those of the training data; the input's own are a sample, whatever its name
    itself = yield from know(
        f"itself {storage.shown(spec)}", lambda: places_of(other.sources) <= places_of(data.all_sources)
    )
    estimated = option != "--source-prior" or itself
    prior = yield from _labels_prior(other, f"labels of {storage.shown(spec)}", option, estimated=estimated)
    assert prior.counts is not None
    if other.class_names and data.class_names and other.class_names != data.class_names:
        named = dict(zip(other.class_names, prior.counts, strict=True))
        return replace(prior_from_table(named, data.class_names, prior.origin), estimated=estimated)
    return replace(prior, class_names=other.class_names or ())


Named: TypeAlias = "tuple[str, Sequence[str] | None]"


def check_names_agree(first: Named, *others: Named) -> None:
    """Refuse class names that contradict each other, of what is taken by position because the data has no names.

    Parameters
    ----------
    first, *others : (str, tuple of str or None)
        What has names, and the names.

    Raises
    ------
    DataError
        Other names, or the same in another order.
    """
    known = [(where, tuple(names)) for where, names in (first, *others) if names]
    for where, names in known[1:]:
        if names != known[0][1]:
            raise DataError(f"{where}:class_names", other_names(names, known[0][1]), f"expected those of {known[0][0]}")


def places_of(sources: Sequence[Source]) -> set[str]:
    """Where sources lie: one file has many names."""
    paths = [split_name(source.name)[0] for source in sources]
    return {path if storage.is_remote(path) else os.path.realpath(path) for path in paths}


def refuse_calibrated(data: DataSet) -> None:
    """Refuse to rebalance what `calibrate` wrote: its scores are rebalanced already."""
    for source in data.sources:
        if "unoic_calibration" in source.attributes:
            raise DataError(
                source.name,
                "a file written by unoic calibrate, rebalanced already",
                "expected the original scores (or evaluate it as it is; a second rebalancing needs --source-prior)",
            )


def source_prior(
    spec: PriorLike, data: DataSet, options: DataOptions, notes: Notes, *, temperature: float = 1.0
) -> Steps[Prior]:
    """The source prior: as asked for, else what the file says, else its labels."""
    if spec is not None:
        return (yield from resolve_prior(spec, data, "--source-prior", options, notes, temperature=temperature))
    refuse_calibrated(data)
    stored = [
        Prior.from_weights(getattr(source, key), f"{key} of {source.name}", counts=counts)
        for key, counts in (("source_counts", True), ("source_prior", False))
        for source in data.sources
        if getattr(source, key)
    ]
    for other in stored[1:]:
        if max(abs(a - b) for a, b in zip(stored[0].values, other.values, strict=True)) > 1e-6:
            raise DataError(
                data.name, f"{stored[0].origin} and {other.origin} disagree", "expected one prior (or --source-prior)"
            )
    if stored:
        return stored[0]
    if not data.has("labels"):
        raise UsageError(
            "--source-prior",
            f"none given, and {data.name} has neither source_counts nor labels",
            "expected the class frequencies of the TRAINING data (a list, a file), or mean-posterior",
        )
    notes.add(
        f"source prior: the label frequencies of {data.name} (it stores no source_counts); "
        "if the network was trained on other frequencies, give them with --source-prior"
    )
    return (yield from _labels_prior(data, "labels", "--source-prior"))


def check_calibration(calibration: Calibration, data: DataSet, where: str, notes: Notes) -> None:
    """Refuse a calibration of other classes than the data's; say that only one of them names the classes."""
    calibration.check_fits(data.n_classes, data.class_names, data.name)
    name = "the calibration" if where.startswith("--") else where
    tell_names(name, calibration.class_names, data.name, data.class_names, notes)


def class_list(classes: Sequence[int], data: DataSet) -> str:
    """The names of some classes, or their numbers, as far as a message has room."""
    names = data.class_names or [str(k) for k in range(data.n_classes)]
    return ", ".join(names[k] for k in classes[:8]) + (" ..." if len(classes) > 8 else "")


def tell_slopes(calibration: Calibration, modality: Modality, data: DataSet, notes: Notes) -> None:
    """Say what the priors imply: classes that are never predicted, or a lambda without effect."""
    of = "" if modality.name is None else f" of {modality.name}"
    for prior in (modality.source_prior, calibration.target_prior):
        if prior.estimated and prior.zeros and calibration.unseen in ("mask", "smooth"):
            noun = "class" if len(prior.zeros) == 1 else "classes"
            how = "every count is raised by one" if prior.counts is not None else "the smallest prior stands in"
            notes.add(
                f"{len(prior.zeros)} {noun} without a unit in the prior from {prior.origin} "
                f"({class_list(prior.zeros, data)}): other data may have some, so nothing is masked, and {how}"
            )
    slopes = calibration.slopes_of(replace(modality, share=1.0))
    masked = np.flatnonzero(slopes.masked).tolist()
    if masked:
        noun = "class" if len(masked) == 1 else "classes"
        notes.add(
            f"{len(masked)} {noun} with a prior of zero{of}, never predicted (--unseen {calibration.unseen}): "
            f"{class_list(masked, data)}"
        )
    among = " among the classes that can be predicted" if masked else ""
    if slopes.flat:
        notes.add(
            f"source and target prior{of} are equal{among}: lambda changes nothing"
            f"{'' if modality.name is None else ' there'} "
            "(where predictions are lopsided all the same, try --source-prior mean-posterior)"
        )
    elif slopes.faint:
        spread = math.expm1(float(np.ptp(slopes.values[~slopes.masked])))
        notes.add(
            f"source and target prior{of} are nearly equal{among} (lambda 1 changes no odds by more than "
            f"{math.ceil(1000 * spread) / 10:g} %): they say nothing about lambda"
        )


def tell_predictions(
    predicted: NDArray[np.int64], support: NDArray[np.int64], masked: NDArray[np.bool_], lam: float, data: DataSet,
    notes: Notes,
) -> None:  # fmt: skip
    """Say what a method cannot get right: labels of classes that it never predicts, and all but one class."""
    lost = np.flatnonzero(masked & (support > 0)).tolist()
    if lost:
        n = int(support[lost].sum())
        notes.add(
            f"{n:,} labelled {'unit' if n == 1 else 'units'} of classes that are never predicted, as their prior is "
            f"zero (--unseen floor gives them one): {class_list(lost, data)}"
        )
    met = np.flatnonzero(predicted).tolist()
    if len(met) == 1 and np.count_nonzero(support) > 1 and lam != 0:
        notes.add(
            f"at lambda {lam:g} all {int(predicted.sum()):,} units are predicted as a single class, "
            f"{class_list(met, data)}, though the labels hold {np.count_nonzero(support):,}"
        )


def tell_labels(counts: Counts, data: DataSet, notes: Notes) -> None:
    """Warn (W7) of labels that the scores as they are, (K,), meet more rarely than by chance."""
    n, right = int(counts.support.sum()), int(counts.hits.sum())
    if not n:
        return
    accuracy, chance = right / n, float(counts.support @ counts.predicted) / n**2
    if accuracy < UNLIKE * chance and chance * n - right > SURE * math.sqrt(n * chance * (1 - chance)):
        notes.warn(
            "W7",
            f"the scores as they are meet {100 * accuracy:.2f} % of the labels, and by chance it would be "
            f"{100 * chance:.2f} %: are the classes of the labels in the order of the scores?",
            acc=accuracy,
            chance=chance,
        )


def tell_loss(
    before: Mapping[str, float], after: Mapping[str, float], n: int, lam: float, notes: Notes,
    high: float = math.nan,
) -> None:  # fmt: skip
    """Warn (W8) of a calibration with which accuracy is surely lower, and none of the usual metrics higher.

    `high` is the upper end of the interval of its change; without one, n units that are not paired tell what is sure.
    """
    usual = [name for name in ("acc", "macc", "miou", "f1") if name in before]
    shares = [one["acc"] for one in (before, after)]
    chance = math.sqrt(sum(share * (1 - share) for share in shares) / n) if n else math.inf
    surely = shares[0] - shares[1] > SURE * chance if math.isnan(high) else high < 0
    if not surely or any(after[name] > before[name] for name in usual):
        return
    said = ", ".join(f"{title(name)} {100 * before[name]:.2f} to {100 * after[name]:.2f} %" for name in usual)
    notes.warn(
        "W8",
        f"lambda {lam:g} does harm on this data: {said}; the scores as they are do better",
        **{name: {"before": before[name], "after": after[name]} for name in usual},
    )


def provenance(data: DataSet, options: DataOptions, **more: Any) -> dict[str, Any]:
    """Which program, files and options a result came from."""
    said = ("logits_key", "labels_key", "labels_file", "kind", "class_axis")
    named = {key: options[key] for key in said if options[key] is not None}  # type: ignore[literal-required]
    looked_at = {"split": options["split"], "ignore_index": list(options["ignore_index"]), **named}
    return {"unoic": __version__, "files": files_of(data), **looked_at, **more}


def files_of(data: DataSet) -> list[str]:
    """The inputs as they were named."""
    return [
        source.name if member.modality is None else f"{member.modality}={source.name}"
        for member in data.modalities
        for source in member.sources
    ]
