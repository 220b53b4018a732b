"""`compare`: several methods under several conditions, from one read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import numpy as np

from unoic_cli.brief import brief, detached, in_html, short, table_html, wrapped
from unoic_cli.calibrations.calibration import ORDERS, Calibration, Modality
from unoic_cli.calibrations.prior import Prior
from unoic_cli.calibrations.view import FactorSource
from unoic_cli.commands import paged
from unoic_cli.commands.along import Along
from unoic_cli.commands.evaluate import Metrics
from unoic_cli.commands.harm import flattened_of, tell_flattened
from unoic_cli.commands.paired import Difference, Pairs
from unoic_cli.commands.sampled import Gain
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.facts import Facts, exists
from unoic_cli.data.steps import Steps, count, write_bytes
from unoic_cli.errors import DataError, UsageError
from unoic_cli.frames import Framed
from unoic_cli.fusions import FUSIONS, divides, listed, resolve_weights
from unoic_cli.metrics import ABSENT_RULES, Absent
from unoic_cli.options import Option, filled, given_flags
from unoic_cli.resolve.asked import (
    Asked,
    Beside,
    ask,
    check_countable,
    clusters_of,
    tell_averaged,
    tell_infinite,
    training_of,
    with_training,
)
from unoic_cli.resolve.common import (
    Inputs,
    Notes,
    check_calibration,
    check_names_agree,
    no_labels,
    open_inputs,
    page_name,
    page_path,
    provenance,
    refuse_calibrated,
    tell_predictions,
)
from unoic_cli.resolve.decider import Decider, make_decider
from unoic_cli.resolve.modalities import Resolved, at_lambda, load_calibration, names_of, resolve
from unoic_cli.resolve.options import (
    AbsentOption,
    ClusterOption,
    DataOptions,
    DeltaOptions,
    ForceOption,
    MethodOptions,
    PageOption,
    ShotsOption,
)
from unoic_cli.resolve.tables import make_tables
from unoic_cli.searches import Curve
from unoic_cli.tallies.kept import DecidedKeeper, places_before
from unoic_cli.tallies.units import UnitTally
from unoic_cli.tallies.viewed import ViewedTally
from unoic_cli.tallies.ways import Way, Ways, WaysTally

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

NAME = "compare"
UNO = "uno"
AS_IS = "as-is"
"""The one network without changes."""
_NUMBER = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_.-]*=)?[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
"""``0.4``, or ``rgb=0.4``: what may follow the ``@`` of a method."""
ALL = "all"
"""Name of the only condition, where nothing tells several apart."""
AVERAGE = "average"
"""Name of the last column: the plain mean over the conditions."""


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes
    ----------
    name : str
    about : str
        What it is: its modalities, fusion and lambda.
    lams : dict of str to float
        The lambda of each modality that it looks at; "" stands for one without a name.
    cells : dict of str to Metrics
        For each condition.
    average : dict of str to float
        Each metric, averaged over the conditions with equal weights.
    differences : dict of str to Difference or None
        For each condition, what it changes against another row; None of that row itself, or of a single one.
    average_gain : dict of str to Gain
        Of the averages.
    """

    name: str
    about: str
    lams: dict[str, float]
    cells: dict[str, Metrics]
    average: dict[str, float]
    differences: dict[str, Difference] | None = None
    average_gain: dict[str, Gain] = field(default_factory=dict)

    __repr__ = brief
    _repr_html_ = in_html

    def gain(self, column: str, name: str) -> Gain | None:
        """What it gains in a metric under a condition, or on average."""
        if self.differences is None:
            return None
        return self.differences[column].gain[name] if column in self.differences else self.average_gain[name]

    def about_differences(self, class_names: Sequence[str] | None) -> dict[str, Any] | None:
        """For JSON."""
        if self.differences is None:
            return None
        return {
            "conditions": {name: one.to_dict(class_names) for name, one in self.differences.items()},
            "average": {name: gain.to_dict() for name, gain in self.average_gain.items()},
        }

    @property
    def lam(self) -> float | None:
        """The lambda of all its modalities; None where they have their own."""
        found = set(self.lams.values())
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class CompareResult(Framed):
    """What `compare` counted. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    rows : tuple of Row
    conditions : tuple of str
        Columns, in order.
    metrics : tuple of str
        What a cell shows.
    absent : str
        The rule for absent classes.
    details : dict
        Files and options.
    notes : tuple of str
    against : str or None
        The row that differences are taken against; None where there is a single one.
    clusters : str or None
        What intervals take for independent.
    class_names : tuple of str or None
        (K,).
    """

    rows: tuple[Row, ...]
    conditions: tuple[str, ...]
    metrics: tuple[str, ...]
    absent: Absent
    details: dict[str, Any]
    notes: tuple[str, ...]
    against: str | None = None
    clusters: str | None = None
    class_names: tuple[str, ...] | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        averages = {row.name: {name: row.average[name] for name in self.metrics} for row in self.rows}
        return wrapped(f"CompareResult(conditions={short(self.conditions)}, averages={short(averages)})")

    def _repr_html_(self) -> str:
        return table_html(self.glance(), "CompareResult")

    def glance(self) -> dict[str, list[Any]]:
        """What notebooks show: the averages of each method."""
        averages = {name: [row.average[name] for row in self.rows] for name in self.metrics}
        return {"": [row.name for row in self.rows], "lambda": [row.lam for row in self.rows], **averages}

    def _columns(self) -> dict[str, Any]:
        """A row for each method: lambda, metrics averaged over the conditions, and those of each."""
        several = self.conditions if len(self.conditions) > 1 else ()
        cells = {
            f"{name} {condition}": [_known(row.cells[condition].values[name]) for row in self.rows]
            for condition in several
            for name in self.metrics
        }
        averages = {name: [_known(row.average[name]) for row in self.rows] for name in self.metrics}
        lams = [None if row.lam is None else float(row.lam) for row in self.rows]
        return {"method": [row.name for row in self.rows], "lambda": lams, **averages, **cells}

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        return {
            "conditions": list(self.conditions),
            "metrics": list(self.metrics),
            "methods": [
                {
                    "name": row.name,
                    "about": row.about,
                    "lambda": row.lam,
                    "lambdas": {name: lam for name, lam in row.lams.items() if name} or None,
                    "conditions": {name: metrics.to_dict() for name, metrics in row.cells.items()},
                    "average": row.average,
                    "differences": row.about_differences(self.class_names),
                }
                for row in self.rows
            ],
            "against": self.against,
            "clusters": self.clusters,
            "absent": self.absent,
            "absent_rule": ABSENT_RULES[self.absent],
            **self.details,
            "notes": list(self.notes),
            "warnings": self.warnings,
        }


class CompareOptions(DeltaOptions, DataOptions, total=False):
    """Options of `compare`."""

    methods: Annotated[
        Sequence[str] | Mapping[str, Any] | None,
        Option(
            "--method -m",
            "[TITLE=]METHOD",
            f"The file of a calibration; {listed(FUSIONS)} (plain fusion); uno "
            "(noisy-or with --delta); a modality's name (that network alone), or as-is where there is one network, "
            "which stands beside a method that is alone. METHOD@0.4: at lambda 0.4 of every modality "
            "(METHOD@rgb=0.3,depth=0.6 for each). Repeatable. Default: each modality, average and noisy-or.",
            many=True,
        ),
    ]
    by: Annotated[
        str | None,
        Option(
            "--by", "WHAT", "A column for each file, or each group (the files' group field).", values=("file", "group")
        ),
    ]
    against: Annotated[
        str | None, Option("--against", "TITLE", "The row that the others are compared with. Default: the first.")
    ]
    cluster: ClusterOption
    metrics: Annotated[
        str | Sequence[str],
        Option(
            "--metrics",
            "LIST",
            "What a cell shows; as unoic evaluate has it.",
            default="miou,macc",
            values=("<metrics>",),
        ),
    ]
    shots: ShotsOption
    absent: AbsentOption
    page: PageOption
    force: ForceOption


def compare(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[CompareOptions],
) -> Steps[CompareResult]:
    """Count what several methods predict under several conditions, in one read of the files.

    Parameters
    ----------
    inputs : path, sequence of paths, array, or mapping of these by modality
        Labelled logits files; of several modalities ``NAME=FILE``, or a mapping.
    labels : (N,) or (N, H, W) integers, optional
        With scores in memory.
    **options : Unpack[CompareOptions]
        See `CompareOptions`.

    Returns
    -------
    CompareResult

    Raises
    ------
    UnoicError
        Bad input, or methods that do not fit the modalities.

    Examples
    --------
    >>> from unoic_cli import compare
    >>> import numpy as np
    >>> rgb, depth = np.log([[0.6, 0.4], [0.3, 0.7]]), np.log([[0.2, 0.8], [0.4, 0.6]])
    >>> table = compare({"rgb": rgb, "depth": depth}, [1, 1], methods=["rgb", "average"], metrics="acc")
    >>> {row.name: row.average["acc"] for row in table.rows}
    {'rgb': 0.5, 'average': 1.0}
    """
    chosen = filled(CompareOptions, options)
    notes, by, absent, delta = Notes(chosen["tell"]), chosen["by"], chosen["absent"], chosen["delta"]
    page_name(chosen["page"], "--page")
    data = yield from open_inputs(inputs, labels, chosen, notes, by=by)
    asked = ask(chosen["metrics"], data, absent, chosen["shots"])
    data.require_scores()
    data.require("labels", "to compare")
    page = yield from page_path(chosen, data)
    tables = yield from make_tables(data, by)
    titles = _with_base((yield from titles_of(chosen["methods"], data, delta is not None)), data)
    first, clusters = _against(chosen, [title for title, _ in titles]), clusters_of(chosen["cluster"], data)
    ready = yield from make_deciders(titles, data, filled(DeltaOptions, chosen), chosen, notes)
    n_tables = len(tables.names) if tables else 1
    asked = with_training(asked, data, ready[0].calibration)
    for one in ready:
        check_countable(asked, data, one)
    members = tuple(Way(one.view, one.tally([one.calibration.lam], n_tables).recipe()) for one in ready)
    keep = None
    if len(members) > 1:
        keep = DecidedKeeper(data.n_classes, len(members), places_before(data), clusters).recipe()
    tally = WaysTally(Ways(members, first, data.n_classes, n_tables), keep)
    beside = [Beside.at(asked.recipes(), one, [one.calibration.lam], n_tables) for one in ready]
    tallies = [
        ViewedTally(one.view, more) for one, found in zip(ready, beside, strict=True) for more in found.tallies.values()
    ]
    flattened = [flattened_of(one) for one in ready]
    tallies += [ViewedTally(one.view, more) for one, more in zip(ready, flattened, strict=True) if more is not None]
    units = UnitTally(n_tables)
    whole = any(one.view.needs_samples for one in ready)
    given = {} if tables is None else tables.arguments()
    yield from count(data, [units, tally, *tallies], raw=True, whole_samples=whole, **given)
    names = tables.names if tables else (ALL,)
    curves = [
        Curve(np.array([one.calibration.lam]), counted.counts(), more.arrays())
        for one, counted, more in zip(ready, tally.tallies, beside, strict=True)
    ]
    pairs = Pairs(tally, curves, asked)
    spots = {name: i for i, name in enumerate(names) if curves[0].counts.support[i].any()}
    if not spots:
        raise no_labels(data, units.n_ignored)
    rows = []
    for i, ((title, _), one) in enumerate(zip(titles, ready, strict=True)):
        cells = {name: Metrics.of(pairs.counted(i, j), int(units.ignored[j]), asked) for name, j in spots.items()}
        average = {
            name: _mean([cell.values[name] for cell in cells.values()]) for name in cells[next(iter(cells))].values
        }
        counts = pairs.counted(i).counts
        tell_predictions(counts.predicted, counts.support, one.slopes.masked, one.calibration.lam, data, notes)
        tell_infinite(average, notes)
        tell_flattened(one, flattened[i], data, notes, title if len(ready) > 1 else "")
        differences, gains = None, {}
        if i != first:
            words = f"with {titles[first][0]}", f"with {title}"
            tell_averaged(pairs.counted(first).counts, counts, asked, data, notes, words)
            differences = {name: pairs.difference(i, j) for name, j in spots.items()}
            gains = {metric.name: pairs.average(metric, i, list(spots.values())) for metric in asked.metrics}
        rows.append(Row(title, describe(one), lambdas(one.calibration), cells, average, differences, gains))
    if keep is not None:
        pairs.tell_few(clusters, notes)
    about = {k: v for k, v in provenance(data, chosen).items() if k != "unoic"}
    several = len(rows) > 1
    result = CompareResult(
        tuple(rows), tuple(spots), asked.names, absent, {"by": by, **about}, tuple(notes.texts),
        rows[first].name if several else None, clusters if several else None, data.class_names,
        notes.told(),
    )  # fmt: skip
    if page is not None:
        told, training = result.to_dict(), training_of(data, ready[0].calibration)
        tabs = [
            paged.of_method(
                told, i, _shown(result, i, first, pairs, asked, training), data.class_names, units.n_ignored
            )
            for i in range(len(rows))
        ]
        yield from write_bytes(page, paged.page(tabs, paged.command_line(NAME, inputs, CompareOptions, chosen)))
    return result


def _shown(
    result: CompareResult, i: int, first: int, pairs: Pairs, asked: Asked, training: tuple[float, ...] | None
) -> Along:  # fmt: skip
    """A method, as a page has it: all conditions together, and each of them, beside what it is compared with."""
    row, other, rules = result.rows[i], result.rows[first], asked.rules
    here, there = pairs.counted(i), pairs.counted(first)
    values, baseline = ({m.name: float(m.values(one, rules)) for m in asked.metrics} for one in (here, there))
    gain = {} if i == first else {metric.name: pairs.gain(metric, i) for metric in asked.metrics}
    kept = pairs.kept() if len(result.rows) > 1 else None
    return Along.of_point(
        math.nan if row.lam is None else row.lam, here.counts, None if i == first else there.counts, asked, values,
        None if i == first else baseline, gain, clusters=result.clusters or "unit",
        tables={name: (cell.counts.alone(), other.cells[name].counts) for name, cell in row.cells.items()},
        kept=0 if kept is None else kept.n, of=0 if kept is None else kept.seen, training=training,
        against=None if i == first else other.name,
    )  # fmt: skip


def _against(chosen: CompareOptions, titles: Sequence[str]) -> int:
    """The place of the row that others are compared with."""
    title = chosen["against"]
    if len(titles) < 2:
        for option in given_flags(CompareOptions, chosen, ("against", "cluster")):
            raise UsageError(option, f"{option} of a single method", "expected two, or more")
    if title is None:
        return 0
    if title not in titles:
        raise UsageError("--against", f"{title!r}", f"expected one of {', '.join(titles)}")
    return list(titles).index(title)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else math.nan


def _with_base(titles: list[tuple[str, Any]], data: DataSet) -> list[tuple[str, Any]]:
    """The only method of one network, behind the scores as they are: alone it is compared with nothing."""
    (title, spec), *more = titles
    if more or data.beside or spec == AS_IS or title == AS_IS:
        return titles
    return [(AS_IS, AS_IS), *titles]


def titles_of(
    methods: Sequence[str] | Mapping[str, Any] | None, data: DataSet, with_delta: bool
) -> Facts[list[tuple[str, Any]]]:
    """Titles and what they stand for."""
    if methods is None:
        names = [name for name in names_of(data) if name is not None]
        if len(names) < 2:
            raise UsageError(
                "--method", "no method", f"expected --method TITLE=CALIBRATION (or {AS_IS}), or several modalities"
            )
        found: list[tuple[str, Any]] = [(name, name) for name in (*names, AVERAGE, "noisy-or")]
        return [*found, (UNO, UNO)] if with_delta else found
    if isinstance(methods, Mapping):
        found = list(methods.items())
    else:
        found = []
        known = {*(name for name in names_of(data) if name), *FUSIONS, UNO, AS_IS}
        for text in [methods] if isinstance(methods, str) else methods:
            found.append((yield from _titled(text, known)))
    titles = [title for title, _ in found]
    for title in titles:
        if titles.count(title) > 1:
            raise UsageError("--method", f"{title} twice", "expected a title of its own for each: TITLE=METHOD")
    if not found:
        raise UsageError("--method", "no method", "expected at least one")
    return found


def make_deciders(
    titles: Sequence[tuple[str, Any]], data: DataSet, flattened: DeltaOptions, options: DataOptions, notes: Notes
) -> Steps[list[Decider]]:
    """Methods, each with its title, made ready for a data set; `flattened` says how uno has its delta."""
    wanted = filled(MethodOptions, flattened)
    plain = []
    for _, spec in titles:
        plain.append((yield from _split_lambda(spec))[0] if isinstance(spec, str) else spec)
    for option in given_flags(DeltaOptions, flattened) if UNO not in plain else ():
        raise UsageError(option, f"{option} without the method {UNO}", f"expected it only for --method {UNO}")
    made = []
    for title, spec in titles:
        made.append((title, *(yield from _method(spec, data, wanted, options, notes))))
    check_names_agree(*((f"--method {title}", resolved.calibration.class_names) for title, resolved, _ in made))
    ready = []
    for _, resolved, places in made:
        ready.append((yield from make_decider(resolved.calibration, data, resolved.factors, places)))
    return ready


def _titled(text: str, known: Container[str]) -> Facts[tuple[str, str]]:
    """The title and the method of ``TITLE=METHOD`` or METHOD."""
    title, separator, spec = text.partition("=")
    method, lam = yield from _split_lambda(text)
    whole = not separator or "://" in title or (yield from exists(text))
    if whole or (lam is not None and (method in known or (yield from exists(method)))):
        spec, stem = text, os.path.splitext(os.path.basename(method))[0] if method.endswith(".json") else method
        title = stem if lam is None else f"{stem}@{lam}"
    if not title or not spec:
        raise UsageError("--method", f"{text!r}", "expected METHOD or TITLE=METHOD")
    for one in (spec, text) if spec not in known and not (yield from exists(spec)) else ():
        yield from _refuse_no_lambda(one, known)
    return title, spec


def _split_lambda(spec: str) -> Facts[tuple[str, str | None]]:
    """METHOD and LAMBDA of ``METHOD@LAMBDA``; a file of that very name comes first."""
    method, _, lam = spec.rpartition("@")
    if not method or (yield from exists(spec)) or not all(_NUMBER.fullmatch(part.strip()) for part in lam.split(",")):
        return spec, None
    return method, lam


def _refuse_no_lambda(spec: str, known: Container[str]) -> Facts[None]:
    """Refuse ``METHOD@TEXT``, where there is the method, and the text is no lambda."""
    method, _, text = spec.rpartition("@")
    lam = (yield from _split_lambda(spec))[1]
    if lam is None and not (yield from exists(spec)) and (method in known or (yield from exists(method))):
        found = f"{spec!r}, where {text!r} is no lambda"
        raise UsageError("--method", found, f"expected a number ({method}@0.4), or one for each modality (@rgb=0.4)")


def _method(
    spec: Any, data: DataSet, wanted: MethodOptions, options: DataOptions, notes: Notes
) -> Steps[tuple[Resolved, list[int]]]:
    """What a method's text stands for, and which modalities it looks at."""
    names = names_of(data)
    everything = list(range(len(names)))
    spec = getattr(spec, "calibration", spec)  # of a result
    if not isinstance(spec, (str, os.PathLike, Mapping, Calibration)):
        raise UsageError(
            "--method", f"a {type(spec).__name__}", "expected the file of a calibration, or the name of a method"
        )
    lam = None
    if isinstance(spec, str):
        spec, lam = yield from _split_lambda(spec)
        if spec in names:
            place = names.index(spec)
            return Resolved((yield from _plain(data, [place], None, lam, options, notes))), [place]
        if spec == AS_IS and not (yield from exists(spec)):
            if len(names) > 1 or lam is not None:
                what = f"{AS_IS} of several modalities" if len(names) > 1 else f"{AS_IS}@{lam}"
                raise UsageError("--method", what, f"expected {AS_IS} of one network, or the name of a modality")
            return Resolved((yield from _plain(data, [0], None, None, options, notes))), [0]
        if spec in FUSIONS or spec == UNO:
            if len(names) < 2:
                raise UsageError("--method", f"{spec} of one modality", "expected inputs like rgb=FILE depth=FILE")
            if spec == UNO:
                return (yield from _uno(data, {**wanted, "lam": lam}, options, notes)), everything
            return Resolved((yield from _plain(data, everything, spec, lam, options, notes))), everything
        if not spec.endswith(".json") and not (yield from exists(spec)):
            methods = [*(name for name in names if name), *FUSIONS, UNO, AS_IS]
            yield from _refuse_no_lambda(spec, methods)
            known = ", ".join(methods)
            raise UsageError(
                "--method",
                f"{spec!r}",
                f"expected the file of a calibration, or one of {known}; each also METHOD@LAMBDA",
            )
    loaded = yield from load_calibration(spec)
    if lam is not None:
        loaded = yield from at_lambda(loaded, lam, "--method")
    where = os.fspath(spec) if isinstance(spec, (str, os.PathLike)) else "--method"
    check_calibration(loaded, data, where, notes)
    if any(modality.given_factors for modality in loaded.modalities):
        found = "a calibration made with a file of factors"
        raise DataError(where, found, "expected delta from statistics, or stored in the files")
    own = [modality.name for modality in loaded.modalities]
    for member in data.modalities:
        if member.modality in own or len(own) == 1:
            refuse_calibrated(member)
    if len(own) == 1 and (own[0] is None or names == (None,)):
        if len(names) > 1:
            raise DataError(
                where, "a calibration of a modality without a name", f"expected one of {', '.join(map(str, names))}"
            )
        return Resolved(loaded), [0]
    missing = [str(name) for name in own if name not in names]
    if missing:
        expected = (
            f"expected only {', '.join(map(str, names))}" if names != (None,) else "expected inputs like rgb=FILE"
        )
        raise UsageError(where, f"a calibration of the modality {missing[0]}", expected)
    return Resolved(loaded), [names.index(name) for name in own]


def _plain(
    data: DataSet, places: Sequence[int], fused: str | None, lam: str | None, options: DataOptions, notes: Notes
) -> Steps[Calibration]:
    """Scores as they are, or rebalanced with a lambda; without delta."""
    uniform = Prior.uniform(data.n_classes)
    names = names_of(data)
    weights = None if fused is None else resolve_weights(fused, None, len(places))
    divided = fused is not None and divides(fused)
    if lam is None and not divided:
        modalities = tuple(Modality(names[i], uniform, stored_delta=False) for i in places)
        return Calibration(0.0, uniform, modalities, fused, weights)
    resolved = yield from resolve(filled(MethodOptions, {"lam": 1.0, "delta": "none"}), data, options, notes)
    assert resolved is not None
    modalities = tuple(resolved.calibration.modalities[i] for i in places)
    made = replace(resolved.calibration, modalities=modalities, fusion=fused, weights=weights)
    return (yield from at_lambda(made, 0.0 if lam is None else lam, "--method"))


def _uno(data: DataSet, wanted: MethodOptions, options: DataOptions, notes: Notes) -> Steps[Resolved]:
    """Noisy-or of flattened posteriors, without rebalancing or (UNO-IC) at a given lambda."""
    lam = wanted["lam"]
    plain: MethodOptions = {**wanted, "lam": None if lam is None else 1.0}
    resolved = yield from resolve(plain, data, options, notes, lam=0.0)
    assert resolved is not None
    if lam is not None:
        resolved = replace(resolved, calibration=(yield from at_lambda(resolved.calibration, lam, "--method")))
    factors: Mapping[str | None, FactorSource] = resolved.factors
    for modality, member in zip(resolved.calibration.modalities, data.modalities, strict=True):
        stored = modality.stored_delta and member.has("delta")
        if modality.delta is None and modality.name not in factors and not stored:
            expected = f"expected a delta of each: --delta {modality.name}=STATISTICS (unoic fit-delta)"
            raise UsageError("--method", f"{UNO}, and {modality.name} has no delta", expected)
    return resolved


def lambdas(calibration: Calibration) -> dict[str, float]:
    """The lambda of each modality, by name; one without a name is ``""``."""
    return {modality.name or "": modality.share * calibration.lam for modality in calibration.modalities}


def describe(decider: Decider) -> str:
    """A method in a few words."""
    calibration = decider.calibration
    names = [modality.name for modality in calibration.modalities if modality.name is not None]
    lams = lambdas(calibration)
    parts = [" + ".join(names)] if names else []
    if calibration.fusion is not None:
        parts.append(calibration.fusion)
    if any(modality.delta is not None for modality in calibration.modalities):
        parts.append("delta")
    if calibration.order != ORDERS[0]:
        parts.append(calibration.order)
    same = len(set(lams.values())) == 1
    each = (f"{lam:g}" if same else f"{name} {lam:g}" for name, lam in lams.items())
    parts.append("lambda " + ", ".join(dict.fromkeys(each)))
    masked = int(decider.slopes.masked.sum())
    if masked:
        parts.append(f"{masked} {'class' if masked == 1 else 'classes'} masked")
    return ", ".join(parts)
