"""`fit-temperature`: the temperature that serves the likelihood of labelled data best."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from unoic_cli.brief import brief
from unoic_cli.calibrations.calibration import Calibration, Modality
from unoic_cli.calibrations.prior import UNSEEN, PriorLike, Unseen
from unoic_cli.calibrations.view import Look, View
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.steps import Steps, count, write_json
from unoic_cli.errors import DataError, UsageError
from unoic_cli.options import Option, filled
from unoic_cli.resolve.common import (
    Inputs,
    Notes,
    check_calibration,
    check_output,
    files_among,
    open_inputs,
    output_path,
    provenance,
    refuse_calibrated,
    resolve_prior,
    tell_slopes,
)
from unoic_cli.resolve.common import source_prior as find_source_prior
from unoic_cli.resolve.modalities import load_calibration
from unoic_cli.resolve.options import DataOptions, ForceOption, TargetPriorOption, UnseenOption
from unoic_cli.tallies.likelihood import ConfidenceTally, Likelihood, LikelihoodTally

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

TOLERANCE = 1e-6
"""The minimum lies within this of T, as a share of T."""

OCTAVES = 7
RANGE = (2.0**-OCTAVES, 2.0**OCTAVES)
"""Temperatures that are looked at."""

OFFSETS = (-2e-2, -TOLERANCE / 2, 0.0, TOLERANCE / 2, 2e-2)
MOST_BINS = 1000


@dataclass(frozen=True)
class FitTemperatureResult:
    """What `fit_temperature` found. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    temperature : float
        T.
    tolerance : float
        The minimum lies within this share of T, unless T is at a bound.
    at_bound : {"lower", "upper"} or None
        The end of `RANGE` that T is, when the likelihood still grows there.
    reads : int
        How often the data was read for T and the figures below.
    n, n_ignored, n_classes : int
        Labelled and ignored units, and K.
    nll_before, nll_after : float
        Mean negative log-likelihood of softmax(delta * z / T) in nats, at T = 1 and at T.
    ece_before, ece_after : float
        Expected calibration error of the largest probability, at T = 1 and at T.
    bins : int
        Bins of the calibration error.
    acc : float
        Accuracy at lambda = 0, which no temperature changes.
    lam_before : float or None
        lambda of the calibration that was given; None where none was.
    calibration : Calibration
        With T, and the lambda that belongs to it.
    details : dict
        Files, split and options.
    notes : tuple of str
        What was worth saying on the way.
    """

    temperature: float
    tolerance: float
    at_bound: str | None
    reads: int
    n: int
    n_ignored: int
    n_classes: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    bins: int
    acc: float
    lam_before: float | None
    calibration: Calibration
    details: dict[str, Any]
    notes: tuple[str, ...]

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command; `--calibration` reads it."""
        return {
            "temperature": self.temperature,
            "tolerance": self.tolerance,
            "range": list(RANGE),
            "at_bound": self.at_bound,
            "reads": self.reads,
            "n": self.n,
            "n_ignored": self.n_ignored,
            "n_classes": self.n_classes,
            "nll": {"before": self.nll_before, "after": self.nll_after},
            "ece": {"before": self.ece_before, "after": self.ece_after, "bins": self.bins},
            "acc": self.acc,
            "lambda": {"before": self.lam_before, "after": self.calibration.lam},
            **self.details,
            "calibration": self.calibration.to_dict(),
            "notes": list(self.notes),
        }


def interpolate(lower: Likelihood, upper: Likelihood) -> float:
    """The beta where the slope of the NLL, a cubic in log beta that fits both ends, is zero.

    Parameters
    ----------
    lower, upper : Likelihood
        Slopes <= 0 and > 0.

    Examples
    --------
    >>> ends = (Likelihood(beta, 0.0, math.log(beta / 1.5), 1 / beta) for beta in (1.0, 2.0))
    >>> round(interpolate(*ends), 12)
    1.5
    """
    width = math.log(upper.beta / lower.beta)
    rise0, rise1 = (width * end.beta * end.curvature for end in (lower, upper))
    low, high = 0.0, 1.0
    for _ in range(60):
        t = (low + high) / 2
        value = (1 - t) ** 2 * ((1 + 2 * t) * lower.slope + t * rise0) + t * t * (
            (3 - 2 * t) * upper.slope - (1 - t) * rise1
        )
        low, high = (t, high) if value <= 0 else (low, t)
    return min(max(lower.beta * math.exp(width * (low + high) / 2), lower.beta), upper.beta)


def _bracket(points: list[Likelihood]) -> tuple[Likelihood, Likelihood]:
    """Neighbours between which the slope becomes positive."""
    i = next(i for i, point in enumerate(points) if point.slope > 0)
    return points[i - 1], points[i]


def _places(lower: float, upper: float, candidate: float) -> list[float]:
    """Betas of the next read: close around the candidate, and all over the bracket in case it is far off."""
    spread = [lower * (upper / lower) ** (i / 3) for i in (1, 2)]
    around = [candidate * (1 + offset) for offset in OFFSETS]
    return sorted({beta for beta in (*spread, *around) if lower < beta < upper})


@dataclass(frozen=True)
class _Fit:
    beta: float
    at_bound: str | None
    flat: bool
    reads: int
    measured: ConfidenceTally


def _fit(data: DataSet, bins: int, view: View) -> Steps[_Fit]:
    """Find beta = 1 / T.

    The first read takes every octave of the range. Each later one looks close around where the slope should be zero,
    and also measures there: that is the result as soon as the slopes around it prove it right.
    """
    first = LikelihoodTally(data.n_classes, [1 / RANGE[1]], 2 * OCTAVES + 1)
    yield from count(data, [first], view=view)
    if first.n == 0:
        raise DataError(data.name, f"no labelled sample ({first.n_ignored} ignored)", "expected labels")
    points, reads = first.curve(), 1

    def measure(beta: float, places: list[float]) -> Steps[tuple[ConfidenceTally, list[Likelihood]]]:
        measured = ConfidenceTally(data.n_classes, [1.0, beta], bins)
        more = LikelihoodTally(data.n_classes, places)
        yield from count(data, [measured, *([more] if places else [])], view=view)
        return measured, more.curve() if places else []

    flat = not any(point.slope or point.curvature for point in points)
    at_bound = None
    if points[0].slope > 0:
        at_bound, beta = "upper", points[0].beta
    elif points[-1].slope <= 0:
        at_bound, beta = (None, 1.0) if flat else ("lower", points[-1].beta)
    if flat or at_bound is not None:
        measured, _ = yield from measure(beta, [])
        return _Fit(beta, at_bound, flat, 2, measured)
    lower, upper = _bracket(points)
    while True:
        beta = interpolate(lower, upper)
        measured, points = yield from measure(beta, _places(lower.beta, upper.beta, beta))
        reads += 1
        lower, upper = _bracket([lower, *points, upper])
        if max(upper.beta, beta) - min(lower.beta, beta) <= TOLERANCE * beta:
            return _Fit(beta, None, False, reads, measured)


class FitTemperatureOptions(DataOptions, total=False):
    """Options of `fit_temperature`."""

    output: Annotated[
        str | os.PathLike[str] | None, Option("--output -o", "FILE", "Write the calibration (JSON).", says="where")
    ]
    calibration: Annotated[
        str | os.PathLike[str] | Calibration | None,
        Option(
            "--calibration -c",
            "FILE",
            "Give this calibration (JSON) the temperature, and convert its lambda so that predictions stay the "
            "same. Default: lambda 0 with the priors below.",
        ),
    ]
    bins: Annotated[int, Option("--bins", "N", "Equal-width bins of the expected calibration error.", default=15)]
    floor: Annotated[float | None, Option("--floor", "P", "Take probabilities below P as P (of probs and log_probs).")]
    source_prior: Annotated[
        PriorLike,
        Option(
            "--source-prior",
            "PRIOR",
            "Class frequencies in training: uniform, labels, mean-posterior, a comma list, a JSON/CSV/TSV file, or a "
            "logits file whose labels are counted. Default: what the file stores, else its labels.",
            takes="str, path, Prior, (K,) array or mapping by class",
        ),
    ]
    target_prior: TargetPriorOption
    unseen: UnseenOption
    force: ForceOption


def fit_temperature(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[FitTemperatureOptions],
) -> Steps[FitTemperatureResult]:
    """Find the temperature T that minimises the mean negative log-likelihood of softmax(delta * z / T).

    Parameters
    ----------
    inputs : path, sequence of paths, or (N, K), (N, K, H, W) array
        Logits files, or scores in memory.
    labels : (N,) or (N, H, W) integers, optional
        With scores in memory.
    **options : Unpack[FitTemperatureOptions]
        See `FitTemperatureOptions`.

    Returns
    -------
    FitTemperatureResult

    Raises
    ------
    UnoicError
        Bad input, a true class of probability zero, or an output that cannot be written.

    Notes
    -----
    T is fitted to the scores as they are: lambda, offsets and the priors play no part in the likelihood.
    Predictions depend on ``lambda * T`` only, so a calibration that carries a temperature carries the lambda that
    belongs to it. Sums are integers: threads, chunks, files and layouts cannot change a bit of the result.

    Examples
    --------
    >>> from unoic_cli import fit_temperature
    >>> import numpy as np
    >>> scores = np.log(np.array([[9, 1]] * 4, dtype=np.float32))  # 90 % confident, right in 3 of 4 cases
    >>> result = fit_temperature(scores, [0, 0, 0, 1])
    >>> round(result.temperature, 5), round(result.ece_before, 4), round(result.ece_after, 4)
    (2.0, 0.15, 0.0)
    """
    chosen = filled(FitTemperatureOptions, options)
    notes, bins, floor, calibration = Notes(chosen["tell"]), chosen["bins"], chosen["floor"], chosen["calibration"]
    source_prior, target_prior, unseen = chosen["source_prior"], chosen["target_prior"], chosen["unseen"]
    data = yield from open_inputs(inputs, labels, chosen, notes)
    if data.beside:
        names = ", ".join(str(member.modality) for member in data.modalities)
        raise UsageError("FILES", f"the modalities {names}", "expected one: each has a temperature of its own")
    output, force = output_path(chosen["output"]), chosen["force"]
    if not (isinstance(bins, int) and 1 <= bins <= MOST_BINS):
        raise UsageError("--bins", f"{bins}", f"expected 1 to {MOST_BINS}")
    if unseen is not None and unseen not in UNSEEN:
        raise UsageError("--unseen", f"{unseen!r}", f"expected one of {', '.join(UNSEEN)}")
    if force and output is None:
        raise UsageError("--force", "--force without --output", "expected an output that it may replace")
    if output is not None:
        named = (*(s.name for s in data.sources), *files_among(calibration, source_prior, target_prior))
        yield from check_output(output, force=force, inputs=named)
    data.require_scores()
    data.require("labels", "to fit a temperature")
    look = Look(floor=_checked_floor(floor, data))
    late = any(isinstance(prior, str) and prior == "mean-posterior" for prior in (source_prior, target_prior))
    if calibration is not None:
        given = {"--source-prior": source_prior, "--target-prior": target_prior, "--unseen": unseen}
        base = yield from _load(calibration, given, data, notes)
        look = replace(look, stored_delta=base.modalities[0].stored_delta)
        late = False
    elif not late:
        base = yield from _start(data, source_prior, target_prior, unseen, 1.0, chosen, notes)
    fit = yield from _fit(data, bins, View((look,)))
    temperature = 1 / fit.beta
    if late:
        base = yield from _start(data, source_prior, target_prior, unseen, temperature, chosen, notes)
    tell_slopes(base, base.modalities[0], data, notes)
    if fit.flat:
        notes.add("the likelihood is the same at every temperature: T = 1")
    elif fit.at_bound is not None:
        way = "falls" if fit.at_bound == "lower" else "rises"
        why = "the classes are as good as separated" if way == "falls" else "the scores hardly tell the classes apart"
        notes.add(f"the likelihood still grows as T {way} beyond {temperature:g}, the end of the range: {why}")
    made = _calibration(base, temperature, calibration is not None, data, chosen, fit, notes)
    floored = {} if floor is None else {"floor": floor}
    made = replace(made, provenance=made.provenance | floored)
    result = FitTemperatureResult(
        temperature=temperature,
        tolerance=TOLERANCE,
        at_bound=fit.at_bound,
        reads=fit.reads,
        n=fit.measured.n,
        n_ignored=fit.measured.n_ignored,
        n_classes=data.n_classes,
        nll_before=fit.measured.nll(0),
        nll_after=fit.measured.nll(1),
        ece_before=fit.measured.ece(0),
        ece_after=fit.measured.ece(1),
        bins=bins,
        acc=fit.measured.accuracy(),
        lam_before=None if calibration is None else base.lam,
        calibration=made,
        details={k: v for k, v in provenance(data, chosen, **floored).items() if k != "unoic"},
        notes=tuple(notes.texts),
    )
    if output is not None:
        yield from write_json(output, made.to_dict())
    return result


def _checked_floor(floor: float | None, data: DataSet) -> float | None:
    """The floor of probabilities, where it is one and there are any."""
    if floor is None:
        return None
    if not 0 < floor < 1 / data.n_classes:
        raise UsageError("--floor", f"{floor!r}", f"expected a probability above 0 and below 1/{data.n_classes}")
    if any(source.kind == "logits" for source in data.sources):
        raise UsageError("--floor", f"given, but {data.name} holds logits", "expected probs or log_probs")
    return floor


def _load(
    calibration: str | os.PathLike[str] | Calibration, given: dict[str, Any], data: DataSet, notes: Notes
) -> Steps[Calibration]:
    """The calibration that gets a temperature."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(name, f"{name} beside --calibration", "expected neither: the calibration holds it")
    loaded = yield from load_calibration(calibration)
    where = os.fspath(calibration) if isinstance(calibration, (str, os.PathLike)) else "--calibration"
    if loaded.fusion is not None or len(loaded.modalities) != 1:
        found = f"a fused calibration ({len(loaded.modalities)} modalities)"
        raise UsageError(where, found, "expected one of a single modality: fit each one's temperature before fusing")
    if loaded.modalities[0].delta is not None:
        found = "a calibration with delta statistics"
        raise UsageError(where, found, "expected one without: fit the temperature first")
    refuse_calibrated(data)
    check_calibration(loaded, data, where, notes)
    return loaded


def _start(
    data: DataSet, source_prior: PriorLike, target_prior: PriorLike, unseen: Unseen | None, temperature: float,
    options: DataOptions, notes: Notes,
) -> Steps[Calibration]:  # fmt: skip
    """Priors as the other commands find them, and lambda = 0."""
    source = yield from find_source_prior(source_prior, data, options, notes, temperature=temperature)
    wanted: PriorLike = "uniform" if target_prior is None else target_prior
    target = yield from resolve_prior(wanted, data, "--target-prior", options, notes, temperature=temperature)
    made = Calibration(
        0.0, target, (Modality(data.modality, source),), unseen=unseen or "mask", class_names=data.class_names
    )  # fmt: skip
    made.slopes()  # refuses priors that do not go together, before the data is read
    return made


def _calibration(
    base: Calibration, temperature: float, converted: bool, data: DataSet, options: DataOptions, fit: _Fit, notes: Notes
) -> Calibration:
    """The calibration with the temperature; lambda (and offsets) converted so that lambda * T stays what it was."""
    modality = base.modalities[0]
    before = modality.temperature
    more: dict[str, Any] = {"fitted": "temperature", "tolerance": TOLERANCE, "n": fit.measured.n}
    lam = 0.0
    if base.lam != 0:
        lam = base.lam * before / temperature
        notes.add(
            f"lambda converted from {base.lam:.7g} (T = {before:.7g}) to {lam:.7g} (T = {temperature:.7g}): "
            "predictions depend on lambda * T only, and stay the same"
        )
    else:
        notes.add(
            "lambda is 0 (no rebalancing yet): "
            f"unoic search-lambda --temperature {temperature:.7g} finds the lambda that belongs to this temperature"
        )
    if converted:
        before_provenance = {k: v for k, v in base.provenance.items() if k != "previous"}
        more |= {"converted": {"lambda": base.lam, "temperature": before}, "previous": before_provenance}
    offsets = modality.offsets
    if offsets is not None:
        offsets = tuple(offset * before / temperature for offset in offsets)
        notes.add("offsets converted as lambda is: predictions depend on offset * T only, and stay the same")
    return replace(
        base, lam=lam, modalities=(replace(modality, temperature=temperature, offsets=offsets),),
        provenance=provenance(data, options, **more),
    )  # fmt: skip
