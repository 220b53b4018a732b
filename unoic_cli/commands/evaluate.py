"""`evaluate`: streaming accuracy, mean class accuracy, mean IoU and F1, as they are or after a calibration."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.commands import paged
from unoic_cli.commands.along import AS_IT_IS, Along
from unoic_cli.commands.harm import (
    flattened_of,
    margins_of,
    tell_before,
    tell_flattened,
    tell_flips,
    tell_margins,
)
from unoic_cli.commands.images import Images, images_of
from unoic_cli.commands.paired import FEW, Difference, Pairs, met_by
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.steps import Steps, count, write_bytes
from unoic_cli.errors import UsageError
from unoic_cli.frames import Framed
from unoic_cli.metrics import ABSENT_RULES, NAMES, Absent, Counted, Counts
from unoic_cli.metrics.probabilities import Probabilities
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
    files_of,
    no_labels,
    open_inputs,
    page_name,
    page_path,
    provenance,
    tell_labels,
    tell_loss,
    tell_predictions,
)
from unoic_cli.resolve.decider import Decider, as_stored, make_decider
from unoic_cli.resolve.modalities import describe_modalities, resolve
from unoic_cli.resolve.options import (
    AbsentOption,
    ClusterOption,
    DataOptions,
    ForceOption,
    MethodOptions,
    MetricsOption,
    PageOption,
    RequireOption,
    ShotsOption,
    StrictOption,
)
from unoic_cli.resolve.tables import IMAGE, Tables, check_images, make_tables
from unoic_cli.searches import Curve
from unoic_cli.searches.choice import Met
from unoic_cli.tallies.kept import DecidedKeeper, places_before
from unoic_cli.tallies.units import UnitTally
from unoic_cli.tallies.viewed import ViewedTally
from unoic_cli.tallies.ways import Way, Ways, WaysTally

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

NAME = "evaluate"
OWN_MIX = "the data's own mix of classes"
"""What probabilities are scored on."""


@dataclass(frozen=True)
class Metrics:
    """Metrics of one data set or group, and the per-class counts behind them.

    Attributes
    ----------
    n, n_ignored : int
        Labelled and ignored units.
    values : dict of str to float
        acc, macc, miou and f1, and what else was asked for; NaN where nothing can be averaged.
    counts : Counts
        (K,) hits, predicted and support.
    ignored : tuple of int
        Classes whose units are left out, and which enter no mean.
    """

    n: int
    n_ignored: int
    values: dict[str, float]
    counts: Counts
    ignored: tuple[int, ...] = ()

    __repr__ = brief
    _repr_html_ = in_html

    @classmethod
    def of(cls, counted: Counted, n_ignored: int, asked: Asked) -> Metrics:
        """From what was counted at one point."""
        values = {metric.name: float(metric.values(counted, asked.rules)) for metric in asked.metrics}
        counts = counted.counts
        return cls(int(counts.support.sum()), n_ignored, values, counts, asked.rules.ignored)

    def per_class(self, class_names: Sequence[str] | None) -> list[dict[str, Any]]:
        """A row for each class; ratios without a denominator, and those of an ignored class, are None."""
        rows: list[dict[str, Any]] = []
        for k, (hits, predicted, support) in enumerate(
            zip(self.counts.hits.tolist(), self.counts.predicted.tolist(), self.counts.support.tolist(), strict=True)
        ):
            left_out = k in self.ignored
            rows.append(
                {
                    "class": k,
                    "name": class_names[k] if class_names else None,
                    "support": support,
                    "predicted": predicted,
                    "hits": hits,
                    "recall": _ratio(hits, support),
                    "precision": None if left_out else _ratio(hits, predicted),
                    "iou": None if left_out else _ratio(hits, support + predicted - hits),
                    "f1": None if left_out else _ratio(2 * hits, support + predicted),
                    **({"ignored": left_out} if self.ignored else {}),
                }
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """n, n_ignored and the metrics."""
        values = {name: value if math.isfinite(value) else None for name, value in self.values.items()}
        return {"n": self.n, "n_ignored": self.n_ignored, **values}


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


@dataclass(frozen=True)
class EvaluateResult(Framed):
    """What `evaluate` counted. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    overall : Metrics
        Of the whole input.
    groups : dict of str to Metrics or None
        Of each group, with ``by="group"``.
    confusion : (K, K) int64 or None
        Rows = truth.
    lam, temperature : float
        What was applied; 0 and 1 when the scores were taken as they are.
    absent : str
        The rule for absent classes.
    metrics : tuple of str
        What tables show.
    before : Metrics or None
        Of the scores as they are, where something was applied.
    difference : Difference or None
        What that changes: gains with 95 % intervals, McNemar's test, and classes.
    clusters : str or None
        What intervals take for independent.
    before_by, difference_by : dict by group, or None
        The same of each group.
    images : Images or None
        Of each image, with ``by="image"``.
    reliability : dict or None
        Confidence against accuracy, where a metric of probabilities was asked for.
    met : tuple of Met
        What came of the requirements.
    warnings : list of dict
        What may do harm: code, text and figures.
    class_names : tuple of str or None
        (K,).
    details : dict
        Files, split and options.
    notes : tuple of str
        What was worth saying on the way.
    """

    overall: Metrics
    groups: dict[str, Metrics] | None
    confusion: NDArray[np.int64] | None
    lam: float
    temperature: float
    absent: Absent
    class_names: tuple[str, ...] | None
    details: dict[str, Any]
    notes: tuple[str, ...]
    metrics: tuple[str, ...] = NAMES
    before: Metrics | None = None
    difference: Difference | None = None
    clusters: str | None = None
    before_by: dict[str, Metrics] | None = None
    difference_by: dict[str, Difference] | None = None
    images: Images | None = None
    reliability: dict[str, Any] | None = None
    met: tuple[Met, ...] = ()
    warnings: list[dict[str, Any]] = field(default_factory=list)

    __repr__ = brief
    _repr_html_ = in_html

    def glance(self) -> dict[str, list[Any]]:
        """What notebooks show: metrics before and after, and of each group."""
        rows = {} if self.before is None else {"before": self.before}
        rows |= {"after" if rows else "all": self.overall, **(self.groups or {})}
        return {
            "": list(rows),
            "n": [one.n for one in rows.values()],
            **{name: [one.values.get(name) for one in rows.values()] for name in self.metrics},
        }

    def _columns(self) -> dict[str, Any]:
        """A row for each class: counts, recall, precision, IoU and F1."""
        names = self.class_names or tuple(map(str, range(self.overall.counts.hits.size)))
        rows = self.overall.per_class(names)
        return {name: [row[name] for row in rows] for name in rows[0] if name != "ignored"}

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        groups = None
        if self.groups is not None:
            groups = [
                {
                    "group": name,
                    **group.to_dict(),
                    **self._paired((self.before_by or {}).get(name), (self.difference_by or {}).get(name)),
                    "per_class": group.per_class(self.class_names),
                }
                for name, group in self.groups.items()
            ]
        return {
            **self.overall.to_dict(),
            "n_classes": self.overall.counts.hits.size,
            "lambda": self.lam,
            "temperature": self.temperature,
            "absent": self.absent,
            "absent_rule": ABSENT_RULES[self.absent],
            **self._paired(self.before, self.difference),
            "clusters": self.clusters,
            "counts": None if self.before is None else self.overall.counts.told(self.before.counts),
            "per_class": self.overall.per_class(self.class_names),
            "groups": groups,
            "images": None if self.images is None else self.images.to_dict(),
            "reliability": self.reliability,
            "required": [one.to_dict() for one in self.met],
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            **self.details,
            "notes": list(self.notes),
            "warnings": self.warnings,
        }

    def _paired(self, before: Metrics | None, difference: Difference | None) -> dict[str, Any]:
        """For JSON: what something that was applied changes."""
        if before is None or difference is None:
            return {"before": None, "gain": None, "mcnemar": None, "moved": None, "changes": None}
        return {"before": before.to_dict(), **difference.to_dict(self.class_names)}


class EvaluateOptions(MethodOptions, DataOptions, total=False):
    """Options of `evaluate`."""

    confusion: Annotated[bool, Option("--confusion", None, "Also the confusion matrix, rows = truth.")]
    by: Annotated[
        str | None,
        Option(
            "--by",
            "WHAT",
            "Also for each group (the files' group field), each file, or each image.",
            values=("group", "file", "image"),
        ),
    ]
    cluster: ClusterOption
    require: RequireOption
    metrics: MetricsOption
    shots: ShotsOption
    absent: AbsentOption
    strict: StrictOption
    page: PageOption
    force: ForceOption


def evaluate(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[EvaluateOptions],
) -> Steps[EvaluateResult]:
    """Count predictions against labels in one read.

    Parameters
    ----------
    inputs : path, sequence of paths, (N, K), (N, K, H, W) array, or mapping of these by modality
        Logits files (those that `calibrate` wrote included), or scores in memory; of several modalities
        ``NAME=FILE``, or a mapping.
    labels : (N,) or (N, H, W) integers, optional
        With scores in memory.
    **options : Unpack[EvaluateOptions]
        See `EvaluateOptions`.

    Returns
    -------
    EvaluateResult

    Raises
    ------
    UnoicError
        Bad input, or options that contradict each other.

    Examples
    --------
    >>> from unoic_cli import evaluate
    >>> import numpy as np
    >>> scores = 9 * np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 1, 1, 1, 2]]
    >>> result = evaluate(scores, [0, 0, 0, 0, 1, 1, 1, 1])
    >>> {name: round(value, 6) for name, value in result.overall.values.items()}
    {'acc': 0.625, 'macc': 0.625, 'miou': 0.366667, 'f1': 0.472222}
    """
    chosen = filled(EvaluateOptions, options)
    notes, by, absent = Notes(chosen["tell"]), chosen["by"], chosen["absent"]
    page_name(chosen["page"], "--page")
    data = yield from open_inputs(inputs, labels, chosen, notes, by=by)
    asked_for = ask(chosen["metrics"], data, absent, chosen["shots"], require=chosen["require"])
    data.require("labels", "to evaluate")
    page = yield from page_path(chosen, data)
    applied = bool(given_flags(MethodOptions, chosen))
    _check(chosen, applied, asked_for, data)
    alone = None if applied and data.modality is None else 0.0
    resolved = yield from resolve(chosen, data, chosen, notes, lam=alone)
    assert resolved is not None
    tables = None if by == IMAGE else (yield from make_tables(data, by, (IMAGE,)))
    ready = yield from make_decider(resolved.calibration, data, resolved.factors)
    if not applied and ready.plain is not None:
        ready = ready.plain
    asked_for = with_training(asked_for, data, resolved.calibration)
    check_countable(asked_for, data, ready)
    counted = Counting.of(ready, data, asked_for, applied, tables, chosen)
    seen, flattened = None, None
    if applied:
        seen = yield from margins_of(ready, resolved, data, clusters_of(chosen["cluster"], data))
        flattened = flattened_of(ready)
    yield from counted.count(data, ready, tables, [one for one in (seen, flattened) if one is not None])
    overall = counted.curves[-1].pooled().at(0)
    if not overall.counts.support.any():
        raise no_labels(data, counted.ignored.n_ignored)
    if applied:
        tell_before(ready, notes)
    used, counts = resolved.calibration, overall.counts
    tell_predictions(counts.predicted, counts.support, ready.slopes.masked, used.lam, data, notes)
    tell_labels(counted.curves[0].pooled().at(0).counts, data, notes)
    measured = counted.metrics(-1)
    tell_infinite(measured.values, notes)
    tell_averaged(counted.curves[0].pooled().at(0).counts, counts, asked_for, data, notes)
    if applied:
        _tell_tuned(used, data, chosen, notes)
    pairs = counted.pairs if applied else None
    clusters = clusters_of(chosen["cluster"], data) if applied else None
    if pairs is not None and clusters is not None:
        pairs.tell_few(clusters, notes)
    difference = None if pairs is None else pairs.difference(1)
    before = counted.metrics(0) if applied else None
    if difference is not None:
        tell_flips(used, difference.moved, measured.n, data, notes)
    tell_flattened(ready, flattened, data, notes)
    tell_margins(resolved, seen, counts.support.astype(np.float64), "the class mix of this data", notes)
    if before is not None and difference is not None and pairs is not None:
        high = difference.gain["acc"].high if pairs.n_clusters >= FEW else math.nan
        tell_loss(before.values, measured.values, measured.n, used.lam, notes, high)
    notes.settle(chosen["strict"], data.name)
    result = EvaluateResult(
        overall=measured,
        groups=None if tables is None else counted.by_table(tables, -1),
        confusion=counted.confusion(data.n_classes),
        lam=used.lam,
        temperature=used.temperature,
        absent=absent,
        class_names=data.class_names,
        details=_details(data, chosen, ready),
        notes=tuple(notes.texts),
        warnings=notes.told(),
        metrics=asked_for.names,
        before=before,
        difference=difference,
        clusters=clusters,
        before_by=None if tables is None or not applied else counted.by_table(tables, 0),
        difference_by=None if tables is None or pairs is None else counted.differences(tables, pairs),
        images=counted.images(data) if by == IMAGE else None,
        reliability=counted.reliability(),
        met=met_by(
            asked_for.required,
            measured.values,
            None if before is None else before.values,
            None if difference is None else difference.gain,
        ),
    )
    if page is not None:
        along = _shown(result, asked_for, data, used, pairs)
        tab = paged.of_evaluate(result.to_dict(), along, data.class_names, paged.shares_of(used))
        yield from write_bytes(page, paged.page([tab], paged.command_line(NAME, inputs, EvaluateOptions, chosen)))
    return result


def _shown(result: EvaluateResult, asked: Asked, data: DataSet, used: Calibration, pairs: Pairs | None) -> Along:
    """The one lambda, as a page has it."""
    before, groups = result.before, None
    if result.groups is not None:
        plain = result.before_by or result.groups
        groups = {name: (one.counts.alone(), plain[name].counts) for name, one in result.groups.items()}
    kept = None if pairs is None else pairs.kept()
    return Along.of_point(
        result.lam, result.overall.counts, None if before is None else before.counts, asked, result.overall.values,
        None if before is None else before.values, {} if result.difference is None else result.difference.gain,
        tables=groups, clusters=result.clusters or "unit", kept=0 if kept is None else kept.n,
        of=0 if kept is None else kept.seen, training=training_of(data, used),
        against=None if before is None else AS_IT_IS,
    )  # fmt: skip


def _check(chosen: EvaluateOptions, applied: bool, asked: Asked, data: DataSet) -> None:
    """Refuse options that have nothing to speak of."""
    if applied and data.sources[0].kind == "predictions":
        option = "--lambda" if chosen["lam"] is not None else "--calibration"
        raise UsageError(option, "a calibration for a file of predictions", "expected scores")
    if chosen["cluster"] is not None and not applied:
        expected = "expected --calibration or --lambda, whose gain has intervals"
        raise UsageError("--cluster", "--cluster where nothing is applied", expected)
    relative = [one for one in asked.required if one.of != "value" or one.constraint.relative]
    if relative and not applied:
        expected = "expected --calibration or --lambda, which may gain something"
        raise UsageError("--require", f"{relative[0]} where nothing is applied", expected)
    if chosen["by"] == IMAGE:
        check_images(data)


def _tell_tuned(used: Calibration, data: DataSet, chosen: EvaluateOptions, notes: Notes) -> None:
    """Say that a calibration was tuned on the very data that it is measured on."""
    origin = used.provenance
    files = [str(name) for name in origin.get("files") or ()] if isinstance(origin.get("files"), list) else []
    same = sorted(set(files) & set(files_of(data)))
    split = origin.get("split")
    splits = {split if isinstance(split, str) else None, chosen["split"]}
    if chosen["calibration"] is None or origin.get("given") is not None or not same:
        return
    if None in splits or len(splits) == 1:
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        notes.add(f"the calibration was made with {same[0]}{more}: gains on data that it was tuned on are too large")


@dataclass
class Counting:
    """One read: the method that is reported, and where something is applied, before it the scores as they are."""

    asked: Asked
    ways: tuple[Any, ...]
    ignored: UnitTally
    beside: tuple[Beside, ...]
    lams: tuple[float, ...]
    joint: WaysTally | None
    plain_view: Any = None

    @classmethod
    def of(
        cls, ready: Decider, data: DataSet, asked: Asked, applied: bool, tables: Tables | None, chosen: EvaluateOptions
    ) -> Counting:
        """Empty."""
        n_tables = len(tables.names) if tables else 1
        lam = ready.calibration.lam
        own = ready.tally([lam], n_tables, confusion=chosen["confusion"])
        beside = Beside.at(asked.recipes(), ready, [lam], n_tables)
        units, by_image = UnitTally(n_tables), places_before(data) if chosen["by"] == IMAGE else None
        if not applied:
            ways = Ways((Way(None, own.recipe()),), 0, data.n_classes, n_tables)
            joint = None if by_image is None else WaysTally(ways, None, by_image)
            tallies = (own,) if joint is None else tuple(joint.tallies)
            return cls(asked, tallies, units, (beside,), (lam,), joint)
        plain = ready.plain or ready
        view = None if ready.plain is None else plain.view
        members = Way(view, plain.tally([0.0], n_tables).recipe()), Way(None, own.recipe())
        clusters = clusters_of(chosen["cluster"], data)
        keep = DecidedKeeper(data.n_classes, 2, places_before(data), clusters).recipe()
        joint = WaysTally(Ways(members, 0, data.n_classes, n_tables), keep, by_image)
        stored = as_stored(ready)
        both = Beside.at(asked.recipes(), stored or ready, [0.0], n_tables), beside
        return cls(
            asked, tuple(joint.tallies), units, both, (0.0, lam), joint, None if stored is None else stored.view
        )  # fmt: skip

    def count(self, data: DataSet, ready: Decider, tables: Tables | None, more: Sequence[Any] = ()) -> Steps[None]:
        """Make the read; more tallies ride along."""
        first = self.beside[0].tallies.values() if len(self.beside) > 1 else ()
        before = first if self.plain_view is None else [ViewedTally(self.plain_view, tally) for tally in first]
        counting = self.ways if self.joint is None else (self.joint,)
        yield from count(
            data,
            [*counting, self.ignored, *before, *self.beside[-1].tallies.values(), *more],
            view=ready.view,
            **({} if tables is None else tables.arguments()),
        )

    @property
    def curves(self) -> list[Curve]:
        """Of each method: one point."""
        return [
            Curve(np.array([lam]), tally.counts(), beside.arrays())
            for lam, tally, beside in zip(self.lams, self.ways, self.beside, strict=True)
        ]

    @property
    def pairs(self) -> Pairs:
        """Both methods, side by side."""
        assert self.joint is not None
        return Pairs(self.joint, self.curves, self.asked)

    def metrics(self, way: int) -> Metrics:
        """Of all."""
        return Metrics.of(self.curves[way].pooled().at(0), self.ignored.n_ignored, self.asked)

    def _seen(self, tables: Tables) -> list[tuple[int, str]]:
        """The conditions that have labelled units in the evaluated split."""
        support, ignored = self.ways[-1].counts().support, self.ignored.ignored
        return [(i, name) for i, name in enumerate(tables.names) if support[i].any() or ignored[i]]

    def by_table(self, tables: Tables, way: int) -> dict[str, Metrics]:
        """Of each condition."""
        curve, ignored = self.curves[way], self.ignored.ignored
        return {
            name: Metrics.of(curve.pooled([i]).at(0), int(ignored[i]), self.asked) for i, name in self._seen(tables)
        }

    def differences(self, tables: Tables, pairs: Pairs) -> dict[str, Difference]:
        """What each condition gains."""
        return {name: pairs.difference(1, i) for i, name in self._seen(tables)}

    def confusion(self, n_classes: int) -> NDArray[np.int64] | None:
        """Rows = truth."""
        found = self.ways[-1].confusion
        return None if found is None else found[0].reshape(n_classes, n_classes)

    def images(self, data: DataSet) -> Images:
        """Of each image."""
        assert self.joint is not None
        return images_of(self.joint.images, data, self.asked, len(self.ways) - 1, len(self.ways) > 1)

    def reliability(self) -> dict[str, Any] | None:
        """Bins of confidence, where probabilities were counted."""
        recipe = next((one for one in self.asked.recipes() if isinstance(one, Probabilities)), None)
        if recipe is None:
            return None
        bins = [recipe.bins(curve.pooled().at(0)) for curve in self.curves]
        return {"population": OWN_MIX, "bins": bins[-1], "before": bins[0] if len(bins) > 1 else None}


def _details(data: DataSet, chosen: EvaluateOptions, decider: Decider) -> dict[str, Any]:
    given = chosen["calibration"]
    name = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    about = {k: v for k, v in provenance(data, chosen).items() if k != "unoic"}
    return {
        "calibration": name,
        "by": chosen["by"],
        **decider.masked_classes(),
        **describe_modalities(decider.calibration),
        **about,
    }
