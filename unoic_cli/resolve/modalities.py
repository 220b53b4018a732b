"""From options to a calibration: which modalities there are, and how each is flattened, rebalanced and fused."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unoic_cli.calibrations.calibration import ORDERS, Calibration, Modality, check_lambda
from unoic_cli.calibrations.delta import DeltaStatistics
from unoic_cli.calibrations.offsets import read_offsets
from unoic_cli.calibrations.prior import UNSEEN, Prior, PriorLike
from unoic_cli.calibrations.view import FactorSource, Look, View
from unoic_cli.calls import as_array
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.facts import Facts, head
from unoic_cli.data.steps import Steps, count
from unoic_cli.errors import DataError, UsageError
from unoic_cli.fusions import DEFAULT, divides, fusion, resolve_weights
from unoic_cli.options import given_flags, options_of
from unoic_cli.resolve.common import (
    Notes,
    check_calibration,
    check_names_agree,
    provenance,
    refuse_calibrated,
    resolve_prior,
    source_prior,
    tell_slopes,
)
from unoic_cli.resolve.factors import FactorFile
from unoic_cli.resolve.inputs import NAME, is_there
from unoic_cli.resolve.options import DataOptions, MethodOptions, ScoreOptions
from unoic_cli.tallies.entropy import EntropyTally
from unoic_cli.tallies.posterior import PosteriorTally
from unoic_cli.tallies.viewed import ViewedTally

COLDEST, HOTTEST = 1e-6, 1e6
"""Temperatures beyond leave nothing of the scores, or of lambda * s beside them."""


def names_of(data: DataSet) -> tuple[str | None, ...]:
    """The modalities, in order; (None,) for a data set without a name."""
    return tuple(member.modality for member in data.modalities)


def split_by_name(
    given: Any, names: Sequence[str | None], option: str, *, commas: bool = False
) -> Facts[dict[str | None, Any]]:
    """One value for each modality that was given one.

    Parameters
    ----------
    given : value, text, sequence of text, or mapping
        ``VALUE`` for all modalities, ``NAME=VALUE`` for one (repeated, or with `commas` in one text), or a mapping.
    names : sequence of str or None
        The modalities.
    option : str
        For messages.

    Raises
    ------
    UsageError
        An unknown modality, or two values for one.

    Examples
    --------
    >>> from unoic_cli.data.facts import find_out
    >>> find_out(split_by_name("rgb=0.3,depth=0.6", ["depth", "rgb"], "--lambda", commas=True))
    {'rgb': '0.3', 'depth': '0.6'}
    >>> find_out(split_by_name(0.4, ["depth", "rgb"], "--lambda"))
    {'depth': 0.4, 'rgb': 0.4}
    """
    if given is None:
        return {}
    known = {name for name in names if name is not None}
    if isinstance(given, Mapping):
        if not known or not set(given) <= known:
            if known and all(isinstance(key, str) for key in given) and set(given) & known:
                stranger = sorted(set(given) - known)[0]
                raise UsageError(option, f"the unknown modality {stranger}", f"expected {', '.join(sorted(known))}")
            return dict.fromkeys(names, given)
        return dict(given)
    items = [given] if isinstance(given, (str, os.PathLike)) or not _is_texts(given) else list(given)
    found: dict[str | None, Any] = {}
    for item in items:
        is_file = not isinstance(item, str) or (yield from is_there(item))
        match = None if is_file else NAME.fullmatch(item)
        if match is None:
            if found or len(items) > 1:
                raise UsageError(option, f"{item} beside other values", "expected one value, or NAME=VALUE for each")
            return dict.fromkeys(names, item)
        texts = item.split(",") if commas else [item]
        for text in texts:
            one = NAME.fullmatch(text.strip())
            if one is None:
                raise UsageError(option, f"{text!r}", "expected NAME=VALUE")
            name, value = one.groups()
            if name not in known:
                expected = f"expected {', '.join(sorted(known))}" if known else "expected inputs like NAME=FILE"
                raise UsageError(option, f"the unknown modality {name}", expected)
            if name in found:
                raise UsageError(option, f"{name} twice", "expected one value for each modality")
            found[name] = value
    return found


def _is_texts(given: Any) -> bool:
    return isinstance(given, (list, tuple)) and bool(given) and all(isinstance(item, str) for item in given)


def _number(value: Any, option: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UsageError(option, f"{value!r}", "expected a number (or NAME=NUMBER for each modality)") from None


@dataclass(frozen=True)
class Resolved:
    """What the options stand for.

    Attributes
    ----------
    calibration : Calibration
    factors : dict
        Factors that are no part of the calibration, by modality.
    tuned : Calibration or None
        What was tuned, where its target prior was replaced: only its decisions can be compared with what it remembers.
    """

    calibration: Calibration
    factors: dict[str | None, FactorSource] = field(default_factory=dict)
    tuned: Calibration | None = None


def resolve(
    wanted: MethodOptions, data: DataSet, options: DataOptions, notes: Notes, *, lam: float | None = None,
    tell: bool = True,
) -> Steps[Resolved | None]:  # fmt: skip
    """The calibration that the options stand for; None when they ask for nothing.

    Parameters
    ----------
    wanted : MethodOptions
    data : DataSet
    options, notes
    lam : float, optional
        Stands in where neither a calibration nor a lambda is wanted; 0 asks for no rebalancing, and no prior.
    tell : bool
        Whether it is said what the priors imply.

    Raises
    ------
    UsageError
        Options that contradict each other, or would have no effect.
    """
    used = _held(wanted)
    if wanted["calibration"] is not None:
        used = [option for option in used if option != "--target-prior"]
        found = yield from _resolve_calibration(wanted, data, used, notes)
        if wanted["target_prior"] is not None:
            found = yield from _with_target(found, wanted["target_prior"], data, options, notes)
        if tell:
            _tell(found.calibration, data, notes)
        return found
    if wanted["lam"] is None and lam is None:
        if used or wanted["delta"] is not None:
            option = (used or ["--delta"])[0]
            expected = "expected --lambda, which it belongs to (--lambda 0 rebalances nothing)"
            raise UsageError(option, f"{option} without --lambda", expected)
        return None
    unseen, order = wanted["unseen"], wanted["order"]
    if unseen is not None and unseen not in UNSEEN:
        raise UsageError("--unseen", f"{unseen!r}", f"expected one of {', '.join(UNSEEN)}")
    if order is not None and order not in ORDERS:
        raise UsageError("--order", f"{order!r}", f"expected one of {', '.join(ORDERS)}")
    names = names_of(data)
    name, weights = yield from _fusion(wanted, names, data.given)
    if wanted["lam"] is None and lam == 0.0:
        wanted = _without_priors(wanted, data, name is not None and divides(name))
    common, shares = yield from _lambdas(wanted["lam"] if wanted["lam"] is not None else lam, names)
    modalities, factors = yield from _modalities(wanted, data, shares, options, notes)
    flattened = any(m.delta is not None for m in modalities) or factors or _stores_delta(data, modalities)
    if order is not None and not flattened:
        raise UsageError(
            "--order", "--order without delta", "expected a delta (in the file, or --delta), which it is for"
        )
    target = yield from resolve_prior(
        "uniform" if wanted["target_prior"] is None else wanted["target_prior"],
        data.alone(),
        "--target-prior",
        options,
        notes,
        temperature=modalities[0].temperature,
    )
    named = [(one.source_prior.origin, one.source_prior.class_names) for one in modalities]
    check_names_agree(*named, (target.origin, target.class_names))
    made = Calibration(
        common,
        target,
        modalities,
        name,
        weights,
        order or ORDERS[0],
        unseen or "mask",
        data.class_names,
        provenance(data, options, **({"given": "--lambda"} if wanted["lam"] is not None else {})),
    )
    if tell and (wanted["lam"] is not None or lam):
        _tell(made, data, notes)
    return Resolved(made, factors)


def _held(wanted: MethodOptions) -> list[str]:
    """The options that a calibration would hold, as far as they were given; factors of samples it never holds."""
    return given_flags(ScoreOptions, wanted, [name for name in options_of(ScoreOptions) if name != "delta"])


def _without_priors(wanted: MethodOptions, data: DataSet, divided: bool) -> MethodOptions:
    """Uniform priors, which nothing is done with; asking for others would have no effect.

    But source priors that are `divided` out are needed.
    """
    given = {"--target-prior": wanted["target_prior"]}
    if not divided:
        given |= {"--source-prior": wanted["source_prior"], "--unseen": wanted["unseen"]}
    for option, value in given.items():
        if value is not None:
            raise UsageError(option, f"{option} without --lambda", "expected --lambda, which it belongs to")
    return wanted if divided else {**wanted, "source_prior": Prior.uniform(data.n_classes)}


def _tell(calibration: Calibration, data: DataSet, notes: Notes) -> None:
    for modality in calibration.modalities:
        tell_slopes(calibration, modality, data, notes)


def _stores_delta(data: DataSet, modalities: Sequence[Modality]) -> bool:
    return any(
        modality.stored_delta and any("delta" in source.fields for source in member.sources)
        for modality, member in zip(modalities, data.modalities, strict=True)
    )


def load_calibration(given: Any) -> Facts[Calibration]:
    """A calibration, from its file or as it is, with its modalities in the order of their names.

    Raises
    ------
    DataError
        It asks for what there is not: an unknown fusion, weights that are none, other statistics.
    """
    if not isinstance(given, (Calibration, Mapping, str, os.PathLike)):
        found = f"a {type(given).__name__}"
        raise UsageError("--calibration", found, "expected a calibration, a result that has one, or the name of a file")
    where = os.fspath(given) if isinstance(given, (str, os.PathLike)) else "--calibration"
    if isinstance(given, Mapping):
        loaded = Calibration.from_dict(dict(given), where)
    else:
        loaded = given if isinstance(given, Calibration) else (yield from Calibration.read(where))
    for modality in loaded.modalities:
        if modality.delta is not None:
            _check_measure(modality.delta, where)
    if loaded.fusion is None:
        return loaded
    n = len(loaded.modalities)
    try:
        fixed = fusion(loaded.fusion).default_weights(n) is None
        if loaded.weights is not None and not (fixed and set(loaded.weights) == {1.0}):
            resolve_weights(loaded.fusion, loaded.weights, n)
    except UsageError as error:
        raise DataError(where, error.found, error.expected) from None
    order = sorted(range(n), key=lambda i: loaded.modalities[i].name or "")
    weights = None if loaded.weights is None else tuple(loaded.weights[i] for i in order)
    return replace(loaded, modalities=tuple(loaded.modalities[i] for i in order), weights=weights)


def _check_measure(statistics: DeltaStatistics, where: str) -> None:
    if statistics.measure != "entropy":
        expected = "expected those of the softmax entropy, or factors (unoic fit-delta --write-delta)"
        raise DataError(where, f"statistics of the {statistics.measure} of stochastic passes", expected)


def match_modalities(calibration: Calibration, data: DataSet, where: str) -> Calibration:
    """Refuse data whose modalities are not those of the calibration."""
    names, known = names_of(data), tuple(modality.name for modality in calibration.modalities)
    if len(known) == len(names) == 1 and (known[0] is None or names[0] is None):
        return calibration
    missing, strange = [n for n in known if n not in names], [n for n in names if n not in known]
    if missing or strange:
        found = f"modalities {', '.join(str(name) for name in names)}" if names != (None,) else "inputs without names"
        listed = " ".join(f"{name}=FILE" for name in known if name is not None)
        raise UsageError(where, found, f"expected {listed or 'one modality'}, as the calibration has")
    return calibration


def _resolve_calibration(wanted: MethodOptions, data: DataSet, used: list[str], notes: Notes) -> Steps[Resolved]:
    if wanted["lam"] is not None:
        raise UsageError(
            "--lambda",
            "--lambda beside --calibration",
            "expected one of them: the calibration holds lambda (search-lambda -c FILE --lambda L -o NEW: another)",
        )
    if used:
        raise UsageError(used[0], f"{used[0]} beside --calibration", "expected one of them: the calibration holds it")
    given = wanted["calibration"]
    where = os.fspath(given) if isinstance(given, (str, os.PathLike)) else "--calibration"
    loaded = match_modalities((yield from load_calibration(wanted["calibration"])), data, where)
    for member in data.modalities:
        refuse_calibrated(member)
    check_calibration(loaded, data, where, notes)
    factors: dict[str | None, FactorSource] = {}
    for name, spec in (yield from split_by_name(wanted["delta"], names_of(data), "--delta")).items():
        modality = next(m for m in loaded.modalities if m.name == name or len(loaded.modalities) == 1)
        text = os.fspath(spec) if isinstance(spec, (str, os.PathLike)) else "fit"
        if modality.delta is not None or text in ("fit", "none") or (yield from _is_statistics(text)):
            raise UsageError(
                "--delta", "--delta beside --calibration", "expected one of them: the calibration holds it"
            )
        factors[name] = yield from FactorFile.named(text, _member(data, name))
    for modality, name in zip(loaded.modalities, names_of(data), strict=True):
        if modality.given_factors and name not in factors:
            of = "" if name is None else f" of {name}"
            option = "--delta FILE" if name is None else f"--delta {name}=FILE"
            expected = f"expected those of these samples: {option}"
            raise UsageError("--delta", f"a calibration made with a file of factors{of}, and none here", expected)
    return Resolved(loaded, factors)


def _with_target(
    found: Resolved, spec: PriorLike, data: DataSet, options: DataOptions, notes: Notes
) -> Steps[Resolved]:  # fmt: skip
    """The same for another target prior: lambda stays what it was."""
    loaded = found.calibration
    if loaded.lam == 0:
        expected = "expected none: at lambda 0 no prior plays a part"
        raise UsageError("--target-prior", "--target-prior beside a calibration of lambda 0", expected)
    temperature = loaded.modalities[0].temperature
    target = yield from resolve_prior(spec, data.alone(), "--target-prior", options, notes, temperature=temperature)
    notes.add(
        f"target prior: {target.origin}, in place of the calibration's ({loaded.target_prior.origin}); lambda "
        f"{loaded.lam:.7g} is kept, and was not chosen for it"
    )
    check_names_agree(("--calibration", loaded.class_names), (target.origin, target.class_names))
    made = replace(loaded, target_prior=target, tuning=None)
    return replace(found, calibration=made, tuned=None if loaded.tuning is None else loaded)


def _member(data: DataSet, name: str | None) -> DataSet:
    return next(member for member in data.modalities if member.modality == name)


def _fusion(
    wanted: MethodOptions, names: Sequence[str | None], order: Sequence[str]
) -> Facts[tuple[str | None, tuple[float, ...] | None]]:
    """The fusion's name, and weights in the order of `names`; those without names come in the order of the inputs."""
    if len(names) == 1:
        if wanted["fusion"] is not None:
            fusion(wanted["fusion"])
            if names == (None,):
                raise UsageError(
                    "--fusion", "one data set, and nothing to fuse", "expected inputs like rgb=FILE depth=FILE"
                )
        if wanted["weights"] is not None:
            raise UsageError("--weights", "weights for one modality", "expected two modalities or more")
        return None, None
    name = DEFAULT if wanted["fusion"] is None else wanted["fusion"]
    given, places = yield from _weights(wanted["weights"], names, order)
    weights = resolve_weights(name, given, len(names))
    return name, tuple(weights[place] for place in places)


def _weights(
    given: Any, names: Sequence[str | None], order: Sequence[str]
) -> Facts[tuple[list[float] | None, Sequence[int]]]:
    """Weights as they were given, and where among them stands that of each name."""
    as_named = range(len(names))
    if given is None:
        return None, as_named
    if isinstance(given, (int, float)):
        raise UsageError("--weights", f"{given}", "expected one for each modality")
    if _is_texts(given) and len(given) == 1:
        given = given[0]
    if isinstance(given, Mapping) or _is_texts(given) or (isinstance(given, str) and "=" in given):
        parts = yield from split_by_name(given, names, "--weights", commas=True)
        missing = [n for n in names if n not in parts]
        if missing:
            raise UsageError("--weights", f"no weight for {missing[0]}", "expected one for each modality")
        return [_number(parts[n], "--weights") for n in names], as_named
    listed = given.split(",") if isinstance(given, str) else given
    if not isinstance(listed, (list, tuple)):
        raise UsageError("--weights", f"a {type(given).__name__}", "expected one for each modality")
    values = [_number(value, "--weights") for value in listed]
    return values, [order.index(str(n)) for n in names]


def at_lambda(calibration: Calibration, given: Any, option: str) -> Facts[Calibration]:
    """The same calibration with a given lambda, which is that of every modality, whatever shares they had.

    Parameters
    ----------
    calibration : Calibration
    given : float, text or mapping
        As for ``--lambda``: ``0.4``, or ``rgb=0.3,depth=0.6``.
    option : str
        For messages.
    """
    common, shares = yield from _lambdas(given, [modality.name for modality in calibration.modalities], option)
    modalities = tuple(replace(modality, share=shares[modality.name]) for modality in calibration.modalities)
    return replace(calibration, lam=common, modalities=modalities, tuning=None)  # which is of another lambda


def _lambdas(
    given: Any, names: Sequence[str | None], option: str = "--lambda"
) -> Facts[tuple[float, dict[str | None, float]]]:
    """The common lambda and each modality's share of it."""
    parts = yield from split_by_name(given, names, option, commas=True)
    values = {name: _number(value, option) for name, value in parts.items()}
    missing = [name for name in names if name not in values]
    if missing:
        raise UsageError(option, f"no lambda for {missing[0]}", "expected one for each modality, or one for all")
    for value in values.values():
        check_lambda(value, option)
    if len(set(values.values())) == 1:
        return values[names[0]], dict.fromkeys(names, 1.0)
    return 1.0, values


def _modalities(
    wanted: MethodOptions, data: DataSet, shares: Mapping[str | None, float], options: DataOptions, notes: Notes
) -> Steps[tuple[tuple[Modality, ...], dict[str | None, FactorSource]]]:
    """Each modality's prior, temperature and delta."""
    names = names_of(data)
    given = yield from split_by_name(wanted["temperature"], names, "--temperature", commas=True)
    warm = {name: _number(value, "--temperature") for name, value in given.items()}
    for value in warm.values():
        if not COLDEST <= value <= HOTTEST:
            raise UsageError("--temperature", f"{value}", f"expected a positive number from {COLDEST:g} to {HOTTEST:g}")
    priors = yield from split_by_name(wanted["source_prior"], names, "--source-prior")
    deltas = yield from split_by_name(wanted["delta"], names, "--delta")
    biases = yield from split_by_name(wanted["offsets"], names, "--offsets")
    power = wanted["delta_power"]
    if power is not None and not (math.isfinite(power) and power >= 0):
        raise UsageError("--delta-power", f"{power}", "expected a number >= 0")
    powered = False
    modalities, factors = [], {}
    for name, member in zip(names, data.modalities, strict=True):
        temperature = warm.get(name, 1.0)
        statistics, stored = None, True
        spec = deltas.get(name)
        if spec is not None:
            statistics, stored, source = yield from _delta(spec, name, member, data, options)
            if source is not None:
                factors[name] = source
        if statistics is not None and power is not None:
            statistics, powered = statistics.with_power(power), True
        prior = yield from _source_prior(priors.get(name), member, data, options, notes, temperature)
        offsets = biases.get(name)
        if offsets is not None:
            offsets = yield from read_offsets(offsets, data.n_classes, data.class_names, "--offsets")
        made = Modality(name, prior, temperature, statistics, stored, shares[name], name in factors, offsets)
        modalities.append(made)
    if power is not None and not powered:
        raise UsageError(
            "--delta-power", "--delta-power without delta statistics", "expected --delta STATISTICS or --delta fit"
        )
    return tuple(modalities), factors


def _source_prior(
    spec: PriorLike, member: DataSet, data: DataSet, options: DataOptions, notes: Notes, temperature: float
) -> Steps[Prior]:
    """A modality's source prior: asked for, stored in its files, or the labels of whichever has them."""
    own = replace(member.alone(), names_beside=data.class_names)
    if spec is None and not own.has("labels") and not any(s.source_counts or s.source_prior for s in own.sources):
        refuse_calibrated(own)
        own = data.alone()
    if spec == "labels" and not own.has("labels"):
        own = data.alone()
    if spec == "mean-posterior" and member.split != data.split:
        tally = PosteriorTally(member.n_classes)
        yield from _count_one(tally, Look(temperature), member, data)
        return Prior.from_weights(tally.mean(), "mean-posterior", counts=False, estimated=True)
    return (yield from source_prior(spec, own, options, notes, temperature=temperature))


def _is_statistics(path: str) -> Facts[bool]:
    first = yield from head(path, 64)
    return first.lstrip().startswith(b"{") if first else path.endswith(".json")


def _delta(
    spec: Any, name: str | None, member: DataSet, data: DataSet, options: DataOptions
) -> Steps[tuple[DeltaStatistics | None, bool, FactorSource | None]]:
    """(statistics, whether a stored delta is applied, factors from elsewhere) of one ``--delta``."""
    if isinstance(spec, (str, os.PathLike)):
        text = os.fspath(spec)
        if text == "none":
            return None, False, None
        if text == "fit":
            return (yield from fit_statistics(member, data, options, name)), True, None
        if not (yield from _is_statistics(text)):
            return None, True, (yield from FactorFile.named(text, member))
        spec, where = (yield from DeltaStatistics.read(text)), text
    else:
        where = "--delta"
    if isinstance(spec, (int, float, list, tuple)) or hasattr(spec, "__array__"):
        return None, True, FactorFile.of_array(as_array(spec, where), member, where)
    if not isinstance(spec, DeltaStatistics):
        found = f"a {type(spec).__name__}"
        raise UsageError("--delta", found, "expected none, fit, delta statistics, an array, or a file of factors")
    if spec.modality is not None and name is not None and spec.modality != name:
        raise DataError(where, f"delta statistics of the modality {spec.modality}", f"expected those of {name}")
    _check_measure(spec, where)
    return spec, True, None


def fit_statistics(member: DataSet, data: DataSet, options: DataOptions, name: str | None) -> Steps[DeltaStatistics]:
    """Mean and spread of the softmax entropy of these very samples."""
    tally = EntropyTally(member.n_classes)
    yield from _count_one(tally, Look(stored_delta=False), member, data)
    fitted: DeltaStatistics = tally.statistics(1.0, name, "entropy", provenance(member.alone(), options))
    return fitted


def _count_one(tally: Any, look: Look, member: DataSet, data: DataSet) -> Steps[None]:
    """Stream one modality through a tally; by itself, unless another one knows the split."""
    if member.split == data.split:
        yield from count(member.alone(), [tally], view=View((look,)))
        return
    place = names_of(data).index(member.modality)
    yield from count(data, [ViewedTally(View((look,), chosen=(place,)), tally)], raw=True)


def _weights_by_name(calibration: Calibration) -> dict[str, float]:
    return {str(m.name): w for m, w in zip(calibration.modalities, calibration.weights or (), strict=True)}


def _offsets(modality: Modality) -> dict[str, list[float]]:
    return {} if modality.offsets is None else {"offsets": list(modality.offsets)}


def describe_modalities(calibration: Calibration) -> dict[str, Any]:
    """For reports: the fusion, and what is special to each modality."""
    if calibration.fusion is None and calibration.modalities[0].name is None:
        return _offsets(calibration.modalities[0])
    return {
        "fusion": calibration.fusion,
        "order": calibration.order,
        "weights": None if len(set(calibration.weights or ())) < 2 else _weights_by_name(calibration),
        "modalities": {
            str(m.name): {
                "lambda": m.share * calibration.lam,
                "temperature": m.temperature,
                "delta": None
                if m.delta is None
                else {"mu": m.delta.mu, "sigma": m.delta.sigma, "power": m.delta.power},
                **_offsets(m),
            }
            for m in calibration.modalities
        },
    }
