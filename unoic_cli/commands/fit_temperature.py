"""`fit-temperature`: the temperature, and the lambda, that serve the likelihood of labelled data best."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import numpy as np

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calibrations.calibration import Calibration, Modality
from unoic_cli.calibrations.prior import UNSEEN, PriorLike, Unseen
from unoic_cli.calibrations.view import Look, View
from unoic_cli.commands.together import Joint, Line, Measured, errors, joint, minimum
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.steps import Steps, count, write_json
from unoic_cli.errors import UsageError
from unoic_cli.options import Option, filled
from unoic_cli.resolve.common import (
    Inputs,
    Notes,
    check_calibration,
    check_output,
    files_among,
    no_labels,
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
from unoic_cli.searches.descent import is_done
from unoic_cli.searches.joint import LEAST
from unoic_cli.tallies.likelihood import Likelihood, LikelihoodTally

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

TOLERANCE = 1e-6
"""The minimum lies within this of T, as a share of T; and of lambda, as a share of it or of 1."""

OCTAVES = 7
RANGE = (2.0**-OCTAVES, 2.0**OCTAVES)
"""Temperatures that are looked at, of T alone."""
RANGE_TOGETHER = (0.0, 1.0 / LEAST)
"""Temperatures that are looked at, of T with lambda."""

OFFSETS = (-2e-2, -TOLERANCE / 2, 0.0, TOLERANCE / 2, 2e-2)
MOST_BINS = 1000
ALONE, TOGETHER, ALONG, HELD = "alone", "together", "along", "held"
OWN_MIX = "the labelled units' own mix (log pi - log Pt is added to the calibration's scores)"
SCORES_OWN = "the scores' own: no prior is divided out or multiplied in"


@dataclass(frozen=True)
class FitTemperatureResult:
    """What `fit_temperature` found. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    how : {"together", "along", "held", "alone"}
        (T, lambda) fitted together; T along the lambda * T of a given calibration; T with lambda at 0, as the priors
        say nothing of lambda; or T alone, without priors.
    temperature : float
        T.
    a : float
        1 / T.
    se_a, se_lam : float or None
        Standard errors of a and lambda, by the curvature; None where they are not fitted, or at a bound.
    tolerance : float
        The minimum lies within this share of T, unless T is at a bound.
    range : tuple of float
        Where T was looked for.
    at_bound : {"lower", "upper"} or None
        The end of the range that T is, when the likelihood still grows there.
    reads : int
        How often the scores were read.
    n, n_ignored, n_left_out, n_classes : int
        Labelled and ignored units, those of classes that are never predicted, and K.
    before : Measured
        NLL in nats, ECE and accuracy of softmax(delta * z), the scores as they are.
    given : Measured or None
        At the labelled units' own mix, before the fit: at T = 1 and lambda = 1, or as the given calibration has them.
    after : Measured
        After the fit.
    bins : int
        Bins of the calibration error.
    lam_before : float or None
        lambda of the calibration that was given; None where none was.
    calibration : Calibration
        With T, and the lambda that belongs to it.
    details : dict
        Files, split and options.
    notes : tuple of str
        What was worth saying on the way.
    """

    how: str
    temperature: float
    a: float
    se_a: float | None
    se_lam: float | None
    tolerance: float
    range: tuple[float, float]
    at_bound: str | None
    reads: int
    n: int
    n_ignored: int
    n_left_out: int
    n_classes: int
    before: Measured
    given: Measured | None
    after: Measured
    bins: int
    lam_before: float | None
    calibration: Calibration
    details: dict[str, Any]
    notes: tuple[str, ...]

    __repr__ = brief
    _repr_html_ = in_html

    @property
    def lam(self) -> float:
        """The lambda that belongs to T."""
        return self.calibration.lam

    @property
    def acc(self) -> float:
        """Accuracy at lambda = 0, which no temperature changes."""
        return self.before.acc

    @property
    def nll_before(self) -> float:
        """NLL of the scores as they are."""
        return self.before.nll

    @property
    def nll_after(self) -> float:
        """NLL after the fit."""
        return self.after.nll

    @property
    def ece_before(self) -> float:
        """ECE of the scores as they are."""
        return self.before.ece

    @property
    def ece_after(self) -> float:
        """ECE after the fit."""
        return self.after.ece

    @property
    def population(self) -> dict[str, str]:
        """Whose posterior the calibration gives, and whose the figures are of."""
        own = self.calibration.lam == 0
        return {
            "calibration": SCORES_OWN
            if own
            else f"posterior for the target prior {self.calibration.target_prior.told}",
            "before": SCORES_OWN,
            **({} if self.given is None else {"given": OWN_MIX}),
            "after": SCORES_OWN if self.how == ALONE else OWN_MIX,
        }

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command; `--calibration` reads it."""
        figures = {"before": self.before, "given": self.given, "after": self.after}
        shown = {name: one for name, one in figures.items() if one is not None}
        return {
            "how": self.how,
            "temperature": self.temperature,
            "a": self.a,
            "se": {"a": self.se_a, "lambda": self.se_lam},
            "tolerance": self.tolerance,
            "range": list(self.range),
            "at_bound": self.at_bound,
            "reads": self.reads,
            "n": self.n,
            "n_ignored": self.n_ignored,
            "n_left_out": self.n_left_out,
            "n_classes": self.n_classes,
            "population": self.population,
            "nll": {name: one.nll for name, one in shown.items()},
            "ece": {**{name: one.ece for name, one in shown.items()}, "bins": self.bins},
            "acc": self.acc,
            "acc_after": self.after.acc,
            "lambda": {"before": self.lam_before, "after": self.lam},
            "mu": self.lam * self.temperature,
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
    """What came of a fit, whichever it was."""

    how: str
    beta: float
    lam: float
    at_bound: str | None
    flat: bool
    reads: int
    n: int
    n_ignored: int
    n_left_out: int
    before: Measured
    given: Measured | None
    after: Measured
    se: tuple[float | None, float | None] = (None, None)
    done: bool = True


def _alone(data: DataSet, bins: int, view: View) -> Steps[_Fit]:
    """Find beta = 1 / T without priors.

    The first read takes every octave of the range. Each later one looks close around where the slope should be zero,
    and also measures there: that is the result as soon as the slopes around it prove it right.
    """
    octaves = [2.0**i for i in range(-OCTAVES, OCTAVES + 1)]
    first = LikelihoodTally(data.n_classes, octaves, n_bins=bins)
    yield from count(data, [first], view=view)
    if first.n == 0:
        raise no_labels(data, first.n_ignored)
    points, reads = first.curve(), 1

    def measure(beta: float, places: list[float]) -> Steps[tuple[LikelihoodTally, list[Likelihood]]]:
        tally = LikelihoodTally(data.n_classes, [1.0, beta, *places], n_bins=bins, n_measured=2)
        yield from count(data, [tally], view=view)
        return tally, [tally.at(2 + j) for j in range(len(places))]

    def found(beta: float, at_bound: str | None, flat: bool, reads: int, tally: LikelihoodTally) -> _Fit:
        before, after = (Measured(tally.at(j).nll, tally.ece(j), tally.accuracy(j)) for j in range(2))
        return _Fit(ALONE, beta, 0.0, at_bound, flat, reads, tally.n, tally.n_ignored, 0, before, None, after)

    flat = not any(point.slope or point.curvature for point in points)
    at_bound = None
    if points[0].slope > 0:
        at_bound, beta = "upper", points[0].beta
    elif points[-1].slope <= 0:
        at_bound, beta = (None, 1.0) if flat else ("lower", points[-1].beta)
    if flat or at_bound is not None:
        measured, _ = yield from measure(beta, [])
        return found(beta, at_bound, flat, 2, measured)
    lower, upper = _bracket(points)
    while True:
        beta = interpolate(lower, upper)
        measured, points = yield from measure(beta, _places(lower.beta, upper.beta, beta))
        reads += 1
        lower, upper = _bracket([lower, *points, upper])
        if max(upper.beta, beta) - min(lower.beta, beta) <= TOLERANCE * beta:
            return found(beta, None, False, reads, measured)


def _together(data: DataSet, bins: int, view: View, base: Calibration, line: Line | None) -> Steps[_Fit]:
    """Find a = 1 / T and lambda in one likelihood, or a along a line."""
    one = yield from joint(data, base, line)
    best = yield from minimum(one, data, view, bins, TOLERANCE)
    how = ALONG if line is not None else HELD if one.held else TOGETHER
    bounds = one.bounds(TOLERANCE)
    at_bound = "upper" if best.at[0] <= LEAST else None
    assert one.raw is not None
    return _Fit(
        how, best.at[0], one.lam(best.at), at_bound, one.flat, one.reads, one.n, one.n_ignored, one.n_left_out,
        one.raw, one.measured[one.start], one.measured[best.at], _se(one, errors(best, bounds)), is_done(best, bounds),
    )  # fmt: skip


def _se(one: Joint, found: tuple[float | None, ...]) -> tuple[float | None, float | None]:
    """Standard errors of a and lambda."""
    if len(found) == 2:
        return found[0], found[1]
    along = None if one.line is None or found[0] is None else abs(one.line.mu) * found[0]
    return found[0], along


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
            "same: T is fitted with lambda * T as it is. Default: both are fitted, with the priors below.",
        ),
    ]
    alone: Annotated[
        bool,
        Option(
            "--alone",
            None,
            "Fit T alone, to softmax(delta * z / T): right only where the labels have the mix that the network was "
            "trained for, as a prior mismatch is taken for overconfidence.",
            default=False,
        ),
    ]
    bins: Annotated[
        int, Option("--bins", "N", "Equal-width bins of the expected calibration error.", default=15, rare=True)
    ]
    floor: Annotated[
        float | None, Option("--floor", "P", "Take probabilities below P as P (of probs and log_probs).", rare=True)
    ]
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
    """Find the temperature T and the lambda of least negative log-likelihood, together.

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
    With a = 1 / T, s = log Pt - log Ps and the labels' own mix pi, (a, lambda) minimise the sum over labelled units of
    -log softmax(a * delta * z + lambda * s + log pi - log Pt)_y, plus (a - 1)**2 / 2 + (lambda - 1)**2 / 2. So a
    prior that differs from the labels' mix is not taken for overconfidence, as it is where T is fitted alone. The
    calibration, softmax(delta * z / T + lambda * s), is the posterior for the target prior; predictions depend on
    lambda * T only. Sums are integers: threads, chunks, files and layouts cannot change a bit of the result.

    Examples
    --------
    >>> from unoic_cli import fit_temperature
    >>> import numpy as np
    >>> scores = np.log(np.array([[9, 1]] * 4, dtype=np.float32))  # 90 % confident, right in 3 of 4 cases
    >>> result = fit_temperature(scores, [0, 0, 0, 1], alone=True)
    >>> round(result.temperature, 5), round(result.ece_before, 4), round(result.ece_after, 4)
    (2.0, 0.15, 0.0)
    >>> result = fit_temperature(scores, [0, 0, 0, 1], source_prior=[0.9, 0.1])
    >>> round(result.temperature, 3), round(result.lam, 3)
    (0.952, 0.95)
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
    alone = chosen["alone"]
    late = alone and any(isinstance(prior, str) and prior == "mean-posterior" for prior in (source_prior, target_prior))
    line = None
    if calibration is not None:
        given = {"--source-prior": source_prior, "--target-prior": target_prior, "--unseen": unseen}
        base = yield from _load(calibration, given, data, notes)
        look = replace(look, stored_delta=base.modalities[0].stored_delta)
        late = False
        line, look = _line(base, look)
    elif not late:
        base = yield from _start(data, source_prior, target_prior, unseen, 1.0, chosen, notes)
    if alone:
        fit = yield from _alone(data, bins, View((replace(look, offsets=None),)))
    else:
        fit = yield from _together(data, bins, View((look,), rebalance_first=look.offsets is not None), base, line)
    temperature = 1 / fit.beta
    if late:
        base = yield from _start(data, source_prior, target_prior, unseen, temperature, chosen, notes)
    tell_slopes(base, base.modalities[0], data, notes)
    _tell(fit, temperature, notes)
    made = _calibration(base, fit, calibration is not None, data, chosen, notes)
    floored = {} if floor is None else {"floor": floor}
    made = replace(made, provenance=made.provenance | floored)
    result = FitTemperatureResult(
        how=fit.how,
        temperature=temperature,
        a=fit.beta,
        se_a=fit.se[0],
        se_lam=fit.se[1],
        tolerance=TOLERANCE,
        range=RANGE if alone else RANGE_TOGETHER,
        at_bound=fit.at_bound,
        reads=fit.reads,
        n=fit.n,
        n_ignored=fit.n_ignored,
        n_left_out=fit.n_left_out,
        n_classes=data.n_classes,
        before=fit.before,
        given=fit.given,
        after=fit.after,
        bins=bins,
        lam_before=None if calibration is None else base.lam,
        calibration=made,
        details={k: v for k, v in provenance(data, chosen, **floored).items() if k != "unoic"},
        notes=tuple(notes.texts),
    )
    if output is not None:
        yield from write_json(output, made.to_dict())
    return result


def _line(base: Calibration, look: Look) -> tuple[Line, Look]:
    """Where a calibration's predictions stay the same: scores a * (delta * z + v), with its offsets and lambda in v.

    Rebalanced first, v is a part of the scores, as delta is its factor, too.
    """
    modality = base.modalities[0]
    temperature = modality.temperature
    slopes = base.slopes()
    offsets = np.zeros_like(slopes.values) if modality.offsets is None else np.array(modality.offsets)
    feature = temperature * (offsets + base.lam * slopes.values)
    line = Line(base.lam * temperature, feature, 1.0 / temperature)
    if base.order == "rebalance-first":
        return replace(line, feature=np.zeros_like(feature)), replace(look, offsets=tuple(feature.tolist()))
    return line, look


def _tell(fit: _Fit, temperature: float, notes: Notes) -> None:
    """Say what the fit rests on."""
    if fit.how == ALONE:
        notes.add(
            "--alone: where the labels' mix is not the one that the network was trained for, that is taken for "
            "overconfidence, and T is wrong; by default T and lambda are fitted together"
        )
    if fit.how == HELD:
        notes.add("lambda is held at 0, as nothing tells it; T is fitted at the labelled units' own mix")
    if fit.n_left_out:
        notes.add(
            f"{fit.n_left_out:,} labelled {'unit' if fit.n_left_out == 1 else 'units'} of classes that are never "
            "predicted left out of the fit (--unseen floor gives such classes a prior)"
        )
    if fit.flat:
        notes.add("the likelihood is the same at every temperature: T = 1")
    elif fit.at_bound is not None:
        way = "falls" if fit.at_bound == "lower" else "rises"
        why = "the classes are as good as separated" if way == "falls" else "the scores hardly tell the classes apart"
        notes.add(f"the likelihood still grows as T {way} beyond {temperature:g}, the end of the range: {why}")
    elif fit.how != ALONE and fit.after.acc == 1.0:
        notes.add(
            "the classes are as good as separated: every labelled unit is right, and what keeps T at "
            f"{temperature:.4g} is the penalty (1/T - 1)^2 / 2 alone; more units would tell"
        )
    if not fit.done:
        notes.add("the minimum was not found to the tolerance: the scores leave no digits for it")


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
    base: Calibration, fit: _Fit, converted: bool, data: DataSet, options: DataOptions, notes: Notes
) -> Calibration:
    """The calibration with the temperature, and the lambda of the fit; of a given one, lambda * T stays what it was."""
    modality = base.modalities[0]
    before, temperature = modality.temperature, 1 / fit.beta
    what = "temperature and lambda" if fit.how == TOGETHER else "temperature"
    more: dict[str, Any] = {"fitted": what, "tolerance": TOLERANCE, "n": fit.n}
    lam = fit.lam
    if converted:
        lam = base.lam * before / temperature
        if lam != 0:
            notes.add(
                f"lambda converted from {base.lam:.7g} (T = {before:.7g}) to {lam:.7g} (T = {temperature:.7g}): "
                "predictions depend on lambda * T only, and stay the same"
            )
        previous = {k: v for k, v in base.provenance.items() if k != "previous"}
        more |= {"converted": {"lambda": base.lam, "temperature": before}, "previous": previous}
    if lam == 0:
        notes.add(
            "lambda is 0 (no rebalancing yet): "
            f"unoic search-lambda --temperature {temperature:.7g} finds the lambda that belongs to this temperature"
        )
    offsets = modality.offsets
    if offsets is not None:
        offsets = tuple(offset * before / temperature for offset in offsets)
        notes.add("offsets converted as lambda is: predictions depend on offset * T only, and stay the same")
    return replace(
        base, lam=lam, modalities=(replace(modality, temperature=temperature, offsets=offsets),),
        provenance=provenance(data, options, **more),
    )  # fmt: skip
