"""`evaluate`: streaming accuracy, mean class accuracy, mean IoU and F1, as they are or after a calibration."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from unoic_cli.brief import brief
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.steps import Steps, count
from unoic_cli.errors import DataError, UsageError
from unoic_cli.metrics import ABSENT_RULES, NAMES, Absent, Counted, Counts
from unoic_cli.options import Option, filled, given_flags
from unoic_cli.resolve.asked import Asked, Beside, ask, check_countable, tell_infinite, with_training
from unoic_cli.resolve.common import (
    Inputs,
    Notes,
    open_inputs,
    provenance,
    tell_predictions,
)
from unoic_cli.resolve.modalities import Method, describe_modalities, make_method, resolve
from unoic_cli.resolve.options import AbsentOption, DataOptions, MethodOptions, MetricsOption, ShotsOption
from unoic_cli.resolve.tables import Tables, make_tables
from unoic_cli.searches import Curve
from unoic_cli.tallies.units import UnitTally

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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
class EvaluateResult:
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

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        groups = None
        if self.groups is not None:
            groups = [
                {"group": name, **group.to_dict(), "per_class": group.per_class(self.class_names)}
                for name, group in self.groups.items()
            ]
        return {
            **self.overall.to_dict(),
            "n_classes": self.overall.counts.hits.size,
            "lambda": self.lam,
            "temperature": self.temperature,
            "absent": self.absent,
            "absent_rule": ABSENT_RULES[self.absent],
            "per_class": self.overall.per_class(self.class_names),
            "groups": groups,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
            **self.details,
            "notes": list(self.notes),
        }


class EvaluateOptions(MethodOptions, DataOptions, total=False):
    """Options of `evaluate`."""

    confusion: Annotated[bool, Option("--confusion", None, "Also the confusion matrix, rows = truth.")]
    by: Annotated[
        str | None,
        Option("--by", "WHAT", "Also for each group (the files' group field), or for each file."),
    ]
    metrics: MetricsOption
    shots: ShotsOption
    absent: AbsentOption


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
    data = yield from open_inputs(inputs, labels, chosen, notes, by=by)
    asked_for = ask(chosen["metrics"], data, absent, chosen["shots"])
    data.require("labels", "to evaluate")
    asked = bool(given_flags(MethodOptions, chosen))
    if asked and data.sources[0].kind == "predictions":
        option = "--lambda" if chosen["lam"] is not None else "--calibration"
        raise UsageError(option, "a calibration for a file of predictions", "expected scores")
    alone = None if asked and data.modality is None else 0.0
    resolved = yield from resolve(chosen, data, chosen, notes, lam=alone)
    assert resolved is not None
    tables = yield from make_tables(data, by)
    ready = yield from make_method(resolved.calibration, data, resolved.factors)
    if not asked and ready.plain is not None:
        ready = ready.plain
    asked_for = with_training(asked_for, data, resolved.calibration)
    check_countable(asked_for, data, ready)
    n_tables = len(tables.names) if tables else 1
    beside = Beside.at(asked_for.recipes(), ready, [resolved.calibration.lam], n_tables)
    tally = ready.tally([resolved.calibration.lam], n_tables, confusion=chosen["confusion"])
    ignored = UnitTally(n_tables)
    yield from count(
        data,
        [tally, ignored, *beside.tallies.values()],
        view=ready.view,
        **({} if tables is None else tables.arguments()),
    )
    curve = Curve(np.array([resolved.calibration.lam]), tally.counts(), beside.arrays())
    overall = curve.pooled().at(0)
    if not overall.counts.support.any():
        raise DataError(data.name, f"no labelled sample ({ignored.n_ignored} ignored)", "expected labels")
    matrix = None if tally.confusion is None else tally.confusion[0].reshape(data.n_classes, data.n_classes)
    used = resolved.calibration
    counts = overall.counts
    tell_predictions(counts.predicted, counts.support, ready.slopes.masked, used.lam, data, notes)
    measured = Metrics.of(overall, ignored.n_ignored, asked_for)
    tell_infinite(measured.values, notes)
    return EvaluateResult(
        overall=measured,
        groups=None if tables is None else _by_table(tables, curve, ignored.ignored, asked_for),
        confusion=matrix,
        lam=used.lam,
        temperature=used.temperature,
        absent=absent,
        class_names=data.class_names,
        details=_details(data, chosen, ready),
        notes=tuple(notes.texts),
        metrics=asked_for.names,
    )


def _details(data: DataSet, chosen: EvaluateOptions, method: Method) -> dict[str, Any]:
    given = chosen["calibration"]
    name = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    about = {k: v for k, v in provenance(data, chosen).items() if k != "unoic"}
    return {
        "calibration": name,
        "by": chosen["by"],
        **method.masked_classes(),
        **describe_modalities(method.calibration),
        **about,
    }


def _by_table(tables: Tables, curve: Curve, ignored: NDArray[np.int64], asked: Asked) -> dict[str, Metrics]:
    """Metrics of the conditions that have labelled units in the evaluated split."""
    result = {}
    for i, name in enumerate(tables.names):
        one = curve.pooled([i]).at(0)
        if one.counts.support.any() or ignored[i]:
            result[name] = Metrics.of(one, int(ignored[i]), asked)
    return result
