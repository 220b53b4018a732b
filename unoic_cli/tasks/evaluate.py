"""`evaluate`: streaming accuracy, mean class accuracy, mean IoU and F1, as they are or after a calibration."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calibration import Calibration, Modality, check_lambda
from unoic_cli.dataset import DataSet, text_counts
from unoic_cli.errors import DataError, UsageError
from unoic_cli.metrics import ABSENT, ABSENT_RULES, Absent, Counts, compute_all
from unoic_cli.priors import UNSEEN, Prior, Unseen
from unoic_cli.sweep import sweep
from unoic_cli.tallies.points import PointTally
from unoic_cli.tallies.units import UnitTally
from unoic_cli.tasks.common import (
    Inputs,
    Notes,
    OptionArguments,
    Options,
    PriorLike,
    calibration_lines,
    open_inputs,
    provenance,
    refuse_calibrated,
    resolve_prior,
    tell_slopes,
)
from unoic_cli.tasks.common import source_prior as find_source_prior

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
        acc, macc, miou and f1; NaN where nothing can be averaged.
    counts : Counts
        (K,) hits, predicted and support.
    """

    n: int
    n_ignored: int
    values: dict[str, float]
    counts: Counts

    @classmethod
    def of(cls, counts: Counts, n_ignored: int, absent: Absent) -> Metrics:
        """From counts of shape (K,)."""
        values = {name: float(value) for name, value in compute_all(counts, absent).items()}
        return cls(int(counts.support.sum()), n_ignored, values, counts)

    def per_class(self, class_names: Sequence[str] | None) -> list[dict[str, Any]]:
        """A row for each class; ratios without a denominator are None."""
        rows = []
        for k, (hits, predicted, support) in enumerate(
            zip(self.counts.hits.tolist(), self.counts.predicted.tolist(), self.counts.support.tolist(), strict=True)
        ):
            rows.append(
                {
                    "class": k,
                    "name": class_names[k] if class_names else None,
                    "support": support,
                    "predicted": predicted,
                    "hits": hits,
                    "recall": _ratio(hits, support),
                    "precision": _ratio(hits, predicted),
                    "iou": _ratio(hits, support + predicted - hits),
                    "f1": _ratio(2 * hits, support + predicted),
                }
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """n, n_ignored and the metrics."""
        values = {name: None if math.isnan(value) else value for name, value in self.values.items()}
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


def resolve_calibration(
    data: DataSet,
    calibration: str | Calibration | None,
    lam: float | None,
    temperature: float | None,
    source_prior: PriorLike,
    target_prior: PriorLike,
    unseen: Unseen | None,
    options: Options,
    notes: Notes,
) -> Calibration | None:
    """The calibration that ``--calibration``, or ``--lambda`` with its priors, stands for; None for neither.

    Raises
    ------
    UsageError
        Both are given, or options that would have no effect.
    """
    given = {
        "--temperature": temperature,
        "--source-prior": source_prior,
        "--target-prior": target_prior,
        "--unseen": unseen,
    }
    used = [name for name, value in given.items() if value is not None]
    if calibration is not None:
        if lam is not None:
            raise UsageError(
                "--lambda", "--lambda beside --calibration", "expected one of them: the calibration holds lambda"
            )
        if used:
            raise UsageError(used[0], f"{used[0]} beside --calibration", "expected neither: the calibration holds it")
        loaded = calibration if isinstance(calibration, Calibration) else Calibration.load(os.fspath(calibration))
        refuse_calibrated(data)
        loaded.check_fits(data.n_classes, data.class_names, data.name)
        tell_slopes(loaded.slopes(), data, loaded.unseen, notes)
        return loaded
    if lam is None:
        if used:
            raise UsageError(used[0], f"{used[0]} without --lambda", "expected --lambda, which it belongs to")
        return None
    check_lambda(lam, "--lambda")
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise UsageError("--temperature", f"{temperature}", "expected a positive number")
    if unseen is not None and unseen not in UNSEEN:
        raise UsageError("--unseen", f"{unseen!r}", f"expected one of {', '.join(UNSEEN)}")
    warm = 1.0 if temperature is None else temperature
    source = find_source_prior(source_prior, data, options, notes, temperature=warm)
    target = resolve_prior(
        "uniform" if target_prior is None else target_prior, data, "--target-prior", options, temperature=warm
    )
    made = Calibration(
        lam,
        target,
        (Modality(None, source, warm),),
        unseen=unseen or "mask",
        class_names=data.class_names,
        provenance=provenance(data, options, given="--lambda"),
    )
    tell_slopes(made.slopes(), data, made.unseen, notes)
    return made


def plain_calibration(n_classes: int) -> Calibration:
    """Scores as they are: lambda = 0, no class masked."""
    uniform = Prior.uniform(n_classes)
    return Calibration(0.0, uniform, (Modality(None, uniform),))


def evaluate(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    *,
    calibration: str | Calibration | None = None,
    lam: float | None = None,
    temperature: float | None = None,
    source_prior: PriorLike = None,
    target_prior: PriorLike = None,
    unseen: Unseen | None = None,
    confusion: bool = False,
    by: str | None = None,
    absent: Absent = "reference",
    **options: Unpack[OptionArguments],
) -> EvaluateResult:
    """Count predictions against labels in one read.

    Parameters
    ----------
    inputs : path, sequence of paths, or (N, K), (N, K, H, W) array
        Logits files (those that `calibrate` wrote included), or scores in memory.
    labels : (N,) or (N, H, W) integers, optional
        With scores in memory.
    calibration : path or Calibration, optional
        Predict with it.
    lam : float, optional
        Predict with this lambda and the priors below.
    temperature, source_prior, target_prior, unseen
        As in `search_lambda`; only with `lam`.
    confusion : bool
        Also count the confusion matrix.
    by : {"group"}, optional
        Also per value of the files' ``group``.
    absent : {"reference", "truth-only", "zero"}
        Which classes miou and f1 average.
    **options
        Fields of `unoic_cli.tasks.common.Options`.

    Returns
    -------
    EvaluateResult

    Raises
    ------
    UnoicError
        Bad input, or options that contradict each other.

    Examples
    --------
    >>> import numpy as np
    >>> scores = 9 * np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 1, 1, 1, 2]]
    >>> result = evaluate(scores, [0, 0, 0, 0, 1, 1, 1, 1])
    >>> {name: round(value, 6) for name, value in result.overall.values.items()}
    {'acc': 0.625, 'macc': 0.625, 'miou': 0.366667, 'f1': 0.472222}
    """
    chosen, notes = Options(**options), Notes(options.get("tell"))
    data = open_inputs(inputs, labels, chosen, notes)
    if absent not in ABSENT:
        raise UsageError("--absent", f"{absent!r}", f"expected one of {', '.join(ABSENT)}")
    if by not in (None, "group"):
        raise UsageError("--by", f"{by!r}", "expected group")
    data.require("labels", "to evaluate")
    applied = resolve_calibration(
        data, calibration, lam, temperature, source_prior, target_prior, unseen, chosen, notes
    )
    if applied is not None and data.sources[0].kind == "predictions":
        raise UsageError(
            "--lambda" if lam is not None else "--calibration",
            "a calibration for a file of predictions",
            "expected scores",
        )
    groups = _groups(data) if by == "group" else None
    used = applied or plain_calibration(data.n_classes)
    tally = PointTally([calibration_lines(used)], len(groups) if groups else 1, confusion=confusion)
    ignored = UnitTally(len(groups) if groups else 1)
    sweep(
        data, [tally, ignored], temperature=used.temperature, groups=groups,
        n_threads=chosen.threads, progress=chosen.progress,
    )  # fmt: skip
    counts = tally.counts()
    overall = Counts(counts.hits.sum(0)[0], counts.predicted.sum(0)[0], counts.support.sum(0)[0])
    if not overall.support.any():
        raise DataError(data.name, f"no labelled sample ({ignored.n_ignored} ignored)", "expected labels")
    matrix = None if tally.confusion is None else tally.confusion[0].reshape(data.n_classes, data.n_classes)
    return EvaluateResult(
        overall=Metrics.of(overall, ignored.n_ignored, absent),
        groups=None if groups is None else _by_group(groups, counts, ignored.ignored, absent),
        confusion=matrix,
        lam=used.lam,
        temperature=used.temperature,
        absent=absent,
        class_names=data.class_names,
        details=_details(data, chosen, calibration, by),
        notes=tuple(notes.texts),
    )


def _details(data: DataSet, options: Options, calibration: str | Calibration | None, by: str | None) -> dict[str, Any]:
    name = None if calibration is None or isinstance(calibration, Calibration) else os.fspath(calibration)
    return {"calibration": name, "by": by, **{k: v for k, v in provenance(data, options).items() if k != "unoic"}}


def _groups(data: DataSet) -> dict[str, int]:
    """The groups of the input, numbered in order of appearance."""
    data.require("group", "for --by group")
    seen: Counter[str] = Counter()
    for source in data.sources:
        seen.update(text_counts(source, "group"))
    return {name: i for i, name in enumerate(seen)}


def _by_group(groups: dict[str, int], counts: Counts, ignored: NDArray[np.int64], absent: Absent) -> dict[str, Metrics]:
    """Metrics of the groups that have labelled units in the evaluated split."""
    result = {}
    for name, i in groups.items():
        one = Counts(counts.hits[i, 0], counts.predicted[i, 0], counts.support[i, 0])
        if one.support.any() or ignored[i]:
            result[name] = Metrics.of(one, int(ignored[i]), absent)
    return result
