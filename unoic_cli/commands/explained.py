"""Files that hold no scores, as `info` explains them: calibrations, statistics, priors, states, layers and models."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from unoic_cli import formats
from unoic_cli.brief import brief, in_html
from unoic_cli.calibrations.calibration import Calibration, Modality
from unoic_cli.calibrations.delta import FORMAT, DeltaStatistics
from unoic_cli.calibrations.prior import Prior, read_own_weights
from unoic_cli.commands import onnx_model
from unoic_cli.commands.onnx_outline import outline
from unoic_cli.data.facts import Facts, head, know, read_text
from unoic_cli.data.steps import Steps, state_of
from unoic_cli.errors import DataError, UnoicError
from unoic_cli.formats import boxes, storage
from unoic_cli.schemas import SCHEMAS, STATE, check_schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXPECTED = "expected a calibration, statistics of delta, a prior, a state, a layer of unoic export, or a logits file"
MOST_SHOWN = 3
"""Classes at each end that are named."""
MOST_WORDS = 200
"""Letters of what files say of themselves."""
WRITING = ("calibrate", "fuse", "pack", "convert")
"""Commands whose states are checkpoints, and nothing else."""

_HEAD = 64
_TEXTS = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Explained:
    """What `info` says of a file that holds no scores.

    Attributes
    ----------
    name : str
        As typed.
    what : {"calibration", "delta statistics", "prior", "state", "layer", "model"}
    n_bytes : int
    n_classes : int or None
        None where it does not say.
    class_names : tuple of str or None
    about : dict of str to str
        In words, as tables show it.
    says : dict
        The figures: of a calibration, statistics or a prior what is stored, and what follows.
    next : tuple of str
        Command lines that use it.
    """

    name: str
    what: str
    n_bytes: int
    n_classes: int | None
    class_names: tuple[str, ...] | None
    about: dict[str, str]
    says: dict[str, Any] = field(default_factory=dict, repr=False)
    next: tuple[str, ...] = ()

    __repr__ = brief
    _repr_html_ = in_html

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = None if self.class_names is None else list(self.class_names)
        return {**vars(self), "class_names": names, "next": list(self.next)}


def explain(name: str) -> Steps[Explained | None]:
    """What a file is that holds no scores; None where it may hold some.

    Raises
    ------
    UnoicError
        It is such a file, and damaged; or JSON of another kind.
    """
    path, group = formats.split_name(name)
    if group != "/" or formats.is_elsewhere(path) or not path:
        return None
    kind = yield from _kind(path)
    if kind is None:
        return None
    about = _EXPLAIN[kind]
    found: Explained = yield from about(path)
    return found


def explain_text(name: str) -> Steps[Explained | None]:
    """A table of text that holds no scores, where it is a prior; else None."""
    path, _ = formats.split_name(name)
    if not path.lower().endswith(_TEXTS) or formats.is_elsewhere(path):
        return None
    try:
        return (yield from _prior(path))
    except UnoicError:
        return None


def _kind(path: str) -> Facts[str | None]:
    """A key of `_EXPLAIN`, by what stands at the start."""
    start = yield from head(path, _HEAD)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = path.lower()
    if start.startswith(STATE):
        return "state"
    if lower.endswith(onnx_model.SUFFIX):
        return "model"
    if text[:1] in (b"{", b"[") and text and not lower.endswith(_TEXTS):
        return "json"
    may_be = start.startswith(b"PK") or lower.endswith(".safetensors")
    if may_be and (yield from know(f"layer in {path}", partial(_is_layer, path))):
        return "arrays"
    return None


def _is_layer(path: str) -> bool:
    """Whether a file of arrays holds a scale and a bias, and nothing else."""
    with contextlib.suppress(UnoicError):
        found = {name: entry.shape for name, entry in boxes.open_box(path).entries.items()}
        return set(found) == {"scale", "bias"} and found["scale"] == () and len(found["bias"]) == 1
    return False


def _size(path: str) -> Facts[int]:
    return (yield from know(f"size {path}", partial(os.path.getsize, path)))


def _json(path: str) -> Steps[Explained]:
    text = yield from read_text(path, EXPECTED, "utf-8-sig")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(path, "JSON that is damaged", EXPECTED) from None
    if isinstance(content, dict):
        check_schema(content, path)
        inside = content.get("calibration")
        if content.get("format") == "unoic calibration" or isinstance(inside, dict):
            return _calibration(path, Calibration.from_dict(content, path), _origin(content), (yield from _size(path)))
        inside = content.get("statistics")
        if content.get("format") == FORMAT or isinstance(inside, dict):
            return _statistics(path, DeltaStatistics.from_dict(content, path), content, (yield from _size(path)))
        if content.get("schema") == SCHEMAS["ExportResult"] or {"scale", "bias"} <= set(content):
            return _layer(path, content.get("scale"), content.get("bias"), content, (yield from _size(path)))
        command = _origin(content)
        if command and command != "unoic prior":
            raise DataError(path, f"a result of {command}", EXPECTED)
    try:
        return (yield from _prior(path, content))
    except DataError as error:
        raise DataError(path, f"JSON of another kind ({error.found})", EXPECTED) from None


def _origin(content: Mapping[str, Any]) -> str:
    """The command whose result JSON is, by its schema."""
    schema = content.get("schema")
    known = isinstance(schema, str) and schema in SCHEMAS.values()
    return f"unoic {str(schema).removeprefix('unoic.').partition('/')[0]}" if known else ""


# ------------------------------------------------------------------------------------------------
# calibrations


def meaning_of(lam: float) -> str:
    """What lambda does, in words.

    Examples
    --------
    >>> meaning_of(0), meaning_of(-1)
    ('nothing is rebalanced', 'away from the target prior')
    """
    way = "the way from the source prior to the target prior, in log-odds"
    if lam == 0:
        return "nothing is rebalanced"
    if lam < 0:
        return "away from the target prior"
    if lam == 1:
        return f"the whole of {way}"
    return f"this share of {way}" if lam < 1 else f"beyond the target prior: this many times {way}"


def _calibration(path: str, made: Calibration, origin: str, n_bytes: int) -> Explained:
    single = len(made.modalities) == 1
    about = {"what": "a calibration" + (f", in a result of {origin}" if origin else "")}
    about["lambda"] = f"{made.lam:g}: {meaning_of(made.lam)}"
    if made.fusion is not None:
        known = made.weights or ()
        weights = "" if len(set(known)) < 2 else f", weights {', '.join(f'{one:.4g}' for one in known)}"
        about["fusion"] = f"{made.fusion} of {', '.join(str(one.name) for one in made.modalities)}{weights}"
    about["target prior"] = _prior_in_words(made.target_prior)
    shifts = {}
    for one in made.modalities:
        values = _shifts(made, one)
        key = "" if one.name is None else str(one.name)
        shifts[key] = [None if value == -math.inf else value for value in values.tolist()]
        for name, text in _modality(made, one, values).items():
            about[name if single else f"{key}, {name}"] = text
    if made.unseen != "mask":
        about["classes of prior 0"] = made.unseen
    if made.order != "flatten-first":
        about["order"] = made.order
    about |= _from(made.provenance)
    if made.tuning is not None:
        share = made.tuning.flips / max(1, made.tuning.n)
        n = sum(made.tuning.counts)
        about["tuned"] = f"{n:,} labelled units; lambda decides {100 * share:.3g} % of them otherwise than lambda 0"
    says = {"lambda": made.lam, "meaning": meaning_of(made.lam), "shifts": shifts, "calibration": made.to_dict()}
    n_classes = len(made.target_prior.values)
    return Explained(path, "calibration", n_bytes, n_classes, made.class_names, about, says, _uses(path, made))


def _modality(made: Calibration, one: Modality, values: NDArray[np.float64]) -> dict[str, str]:
    """What belongs to one network."""
    found = {"source prior": _prior_in_words(one.source_prior)}
    if one.share != 1.0:
        found["lambda"] = f"{one.share * made.lam:g}"
    if one.temperature != 1.0:
        found["temperature"] = f"{one.temperature:g}"
    if one.delta is not None:
        found["delta"] = _delta_in_words(one.delta)
    elif one.given_factors:
        found["delta"] = "from a file of factors, which belongs to its samples: others need their own (--delta)"
    factor = "" if one.delta is None and not one.given_factors else "delta "
    raised = _raised(values.tolist(), made.class_names)
    found["added to scores"] = f"{raised} (softmax({factor}z{'' if one.temperature == 1 else ' / T'} + these))"
    if one.offsets is not None:
        found["offsets"] = f"from {min(one.offsets):.4g} to {max(one.offsets):.4g}, within these"
    return found


def _shifts(made: Calibration, one: Modality) -> NDArray[np.float64]:
    """What is added to the score of each class: lambda s + b; -inf where it is never predicted."""
    import numpy as np

    slopes = made.slopes_of(one)
    found = made.lam * slopes.values + (0.0 if one.offsets is None else np.array(one.offsets))
    return np.where(slopes.masked, -np.inf, found)


def _raised(values: Sequence[float], names: Sequence[str] | None) -> str:
    """What is added to the classes that are raised most, and to those that are lowered most."""
    order = sorted((k for k, value in enumerate(values) if value > -math.inf), key=lambda k: (-values[k], k))
    masked = len(values) - len(order)
    text = _both_ends([f"{_name(k, names)} {values[k]:+.3g}" for k in order])
    return text + (f"; {masked:,} {'class is' if masked == 1 else 'classes are'} never predicted" if masked else "")


def _both_ends(texts: Sequence[str]) -> str:
    """The first and the last of many."""
    if len(texts) <= 2 * MOST_SHOWN:
        return ", ".join(texts)
    return f"{', '.join(texts[:MOST_SHOWN])} ... {', '.join(texts[-MOST_SHOWN:])}"


def _names(given: Any, n_classes: int) -> tuple[str, ...] | None:
    """Names of classes, where they are some."""
    if isinstance(given, list) and len(given) == n_classes and all(isinstance(one, str) for one in given):
        return tuple(given)
    return None


def _name(k: int, names: Sequence[str] | None) -> str:
    return _cut(names[k], 40) if names else str(k)


def _prior_in_words(prior: Prior) -> str:
    positive = [value for value in prior.values if value > 0]
    ratio = max(positive) / min(positive)
    zeros = len(prior.values) - len(positive)
    text = f"{_cut(prior.origin)}, imbalance {ratio:,.4g} : 1" if ratio > 1 + 1e-9 else _cut(prior.origin)
    return text + (f", {zeros} of prior 0" if zeros else "")


def _from(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Where something was made, as far as it says so: it may say anything."""
    found = {}
    files = provenance.get("files")
    if isinstance(files, (list, tuple)) and files:
        listed = ", ".join(_cut(str(one)) for one in files[:MOST_SHOWN])
        more = f" and {len(files) - MOST_SHOWN} more" if len(files) > MOST_SHOWN else ""
        split = provenance.get("split")
        found["fitted on"] = f"{listed}{more}" + (f", split {_cut(str(split))}" if split is not None else "")
    metric = provenance.get("metric")
    if isinstance(metric, str):
        found["for the metric"] = _cut(metric)
    version = provenance.get("unoic")
    if isinstance(version, str):
        found["made by"] = f"unoic {_cut(version)}"
    return found


def _uses(path: str, made: Calibration) -> tuple[str, ...]:
    name, inputs = shlex.quote(path), "test.h5"
    if made.modalities[0].name is not None:
        inputs = " ".join(f"{one.name}={one.name}.h5" for one in made.modalities)
    lines = [f"unoic evaluate {inputs} -c {name}", f"unoic calibrate {inputs} -c {name} -o calibrated.h5"]
    plain = len(made.modalities) == 1 and made.modalities[0].delta is None
    return (*lines, *([f"unoic export {name} --bias layer.npz"] if plain else []))


# ------------------------------------------------------------------------------------------------
# statistics, priors


def _delta_in_words(made: DeltaStatistics) -> str:
    of = "each pixel" if made.per == "pixel" else "each sample"
    least = "" if made.least is None else f", {made.least:.4g} at the largest that it was fitted on"
    return f"of {of} by its {made.measure}: 1 up to {made.mu + made.sigma:.4g} nats{least}"


def _statistics(path: str, made: DeltaStatistics, content: Mapping[str, Any], n_bytes: int) -> Explained:
    origin = _origin(content)
    about = {"what": "statistics of delta, a factor of the scores" + (f", in a result of {origin}" if origin else "")}
    if made.modality is not None:
        about["modality"] = _cut(made.modality)
    about["delta"] = _delta_in_words(made)
    about["mu, sigma"] = f"{made.mu:.6g}, {made.sigma:.6g} nats, of {made.n:,} {made.per}s"
    about["formula"] = "(mu / (max(0, H - mu - sigma) + mu)) ^ p" + f", p = {made.power:g}"
    about |= _from(made.provenance)
    name, prefix = shlex.quote(path), "" if made.modality is None else f"{made.modality}="
    lines = [f"unoic search-lambda {prefix}val.h5 --delta {prefix}{name} -o calibration.json"]
    if made.measure == "entropy" and made.per == "sample":
        lines.append(f"unoic fit-delta {prefix}test.h5 --statistics {name} --write-delta delta.h5")
    says = {"statistics": made.to_dict(), "least": made.least}
    return Explained(path, "delta statistics", n_bytes, None, None, about, says, tuple(lines))


def _prior(path: str, content: Any = None) -> Steps[Explained]:
    weights, names = yield from read_own_weights(path)
    counted = all(math.isfinite(weight) and weight == int(weight) for weight in weights) and sum(weights) > 1.5
    prior = Prior.from_weights(weights, path, counts=counted)
    told = content if isinstance(content, dict) else {}
    names = names or _names(told.get("class_names"), len(weights))
    origin = _origin(told)
    about = {"what": "a prior" + (f", by {origin}" if origin else "")}
    estimated = "estimate" in told
    about["of"] = "class frequencies" if not counted else f"class counts, {sum(weights):,.15g} in all"
    if estimated:
        reason = f" ({_cut(str(told['reason']))})" if told.get("reason") else ""
        adopted = (
            "adopted" if told.get("adopted") is True else f"not adopted{reason}: it is the labelled data's own mix"
        )
        about["estimated"] = f"by {_cut(str(told.get('how')))}, {adopted}"
    about["shares"] = _shares(prior, names)
    positive = [value for value in prior.values if value > 0]
    about["imbalance"] = f"{max(positive) / min(positive):,.4g} : 1"
    zeros = len(prior.values) - len(positive)
    if zeros:
        about["of prior 0"] = f"{zeros:,} classes"
    made_from = _from(told).get("fitted on")
    if made_from is not None:
        about["of the units in" if estimated else "counted in"] = made_from
    says = {"prior": list(prior.values), "counts": list(prior.counts) if prior.counts else None}
    name = shlex.quote(path)
    option = "--target-prior" if estimated else "--source-prior"
    lines = (
        f"unoic search-lambda val.h5 {option} {name} -o calibration.json",
        f"unoic evaluate test.h5 -l 1 {option} {name}",
    )
    size = yield from _size(path)
    return Explained(path, "prior", size, len(prior.values), names, about, says, lines)


def _shares(prior: Prior, names: Sequence[str] | None) -> str:
    """The most and the least frequent classes."""
    order = sorted(range(len(prior.values)), key=lambda k: (-prior.values[k], k))
    return _both_ends([f"{_name(k, names)} {100 * prior.values[k]:.3g} %" for k in order])


# ------------------------------------------------------------------------------------------------
# states


def _state(path: str) -> Steps[Explained]:
    says = yield from state_of(path)
    command, shard, missing = says["command"], says["shard"], says["missing"]
    about = {"what": f"a state of unoic {_cut(str(command))}: what it has counted so far"}
    inputs = says["arguments"].get("inputs")
    texts = [inputs] if isinstance(inputs, str) else inputs
    if isinstance(texts, list) and texts:
        about["of"] = _from({"files": texts})["fitted on"]
    if shard is not None:
        about["shard"] = f"{shard[0]} of {shard[1]}"
    later = f", in pass {says['passes']}" if says["passes"] > 1 else ""
    about["rows"] = f"{says['counted']:,} of {says['total']:,}{later}"
    if missing is not None and shard is None:
        about["missing"] = str(missing)
    name = shlex.quote(path)
    if command in WRITING or (shard is None and missing is not None):
        lines = [f"unoic {command} ... --checkpoint {name} --resume"]
    elif shard is not None:
        lines = ["unoic merge *.unoic -o all.unoic", "unoic report all.unoic"]
    else:
        lines = [f"unoic report {name}"]
    return Explained(path, "state", (yield from _size(path)), None, None, about, says, tuple(lines))


# ------------------------------------------------------------------------------------------------
# layers


def _layer(path: str, scale: Any, bias: Any, content: Mapping[str, Any], n_bytes: int) -> Explained:
    given = [-math.inf if value is None else value for value in bias] if isinstance(bias, list) else []
    factor, values = _number(scale), [_number(value) for value in given]
    if not values or not 0 < factor < math.inf or not all(value < math.inf for value in values):
        raise DataError(path, "a damaged layer", "expected scale and bias as unoic export writes them")
    labels = _names(content.get("class_names"), len(values))
    about = {"what": "a layer of unoic export: softmax(scale z + bias) is the calibrated posterior"}
    about["scale"] = f"{factor:.9g}" + (f", temperature {1 / factor:.6g}" if factor != 1 else "")
    about["bias"] = _raised(values, labels)
    lam = _number(content.get("lambda"))
    if math.isfinite(lam):
        about["lambda"] = f"{lam:g}: {meaning_of(lam)}"
    about["use"] = "weight = scale * weight, then bias = scale * bias + these, in the network's last layer"
    says = {"scale": factor, "bias": [None if value == -math.inf else value for value in values]}
    return Explained(path, "layer", n_bytes, len(values), labels, about, says)


def _number(value: Any) -> float:
    """A number of JSON; NaN where it is none."""
    try:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return math.nan


def _arrays(path: str) -> Steps[Explained]:
    def find() -> list[Any]:
        box = boxes.open_box(path)
        expected = "expected scale and bias as unoic export writes them"
        if max(math.prod(box.entries[name].shape) for name in ("scale", "bias")) > formats.schema.MOST_CLASSES:
            raise DataError(path, "a damaged layer", expected)
        arrays = [box.read(name) for name in ("scale", "bias")]
        if any(array.dtype.kind not in "fiu" for array in arrays):
            raise DataError(path, "a damaged layer", expected)
        return [_finite(array.astype(float).tolist()) for array in arrays]

    scale, bias = yield from know(f"layer {path}", find)
    return _layer(path, scale, bias, {}, (yield from _size(path)))


def _finite(value: Any) -> Any:
    """Numbers as JSON has them: null for -inf."""
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if value == -math.inf else value


# ------------------------------------------------------------------------------------------------
# models


def _model(path: str) -> Steps[Explained]:
    says = dict((yield from know(f"model {path}", partial(outline, path))))
    about = {"what": "an ONNX model" + (f" by {_cut(says['producer'])}" if says["producer"] else "")}
    about["version"] = f"opset {says['opset'] or '?'}, format {says['ir_version']}"
    for key in ("inputs", "outputs"):
        about[key] = ", ".join(_tensor(one) for one in says[key][:8]) + (", ..." if len(says[key]) > 8 else "")
    about["size"] = f"{says['n_nodes']:,} nodes, {says['weight_bytes']:,} bytes of weights"
    if says["weight_files"]:
        listed = ", ".join(_cut(one) for one in says["weight_files"][:MOST_SHOWN])
        about["weights"] = f"in {listed}{', ...' if len(says['weight_files']) > MOST_SHOWN else ''}, too"
    made: Calibration | None = None
    names, n_classes = None, _classes_of(says)
    stored = says.pop("calibration")
    if stored is not None:
        try:
            made = Calibration.from_dict(json.loads(stored), path)
        except (ValueError, RecursionError):
            raise DataError(path, "a calibration that is damaged", "expected the metadata of unoic export") from None
        n_classes, names = len(made.target_prior.values), made.class_names
        about["calibrated"] = f"output {_cut(str(says['calibrated']))}, by unoic export"
        inside = _calibration(path, made, "", 0).about
        about |= {key: text for key, text in inside.items() if key != "what"}
    says["calibration"] = None if made is None else made.to_dict()
    size, name = (yield from _size(path)), shlex.quote(path)
    several = f" --output {shlex.quote(says['outputs'][0]['name'])}" if len(says["outputs"]) > 1 else ""
    lines = () if made else (f"unoic export calibration.json --onnx {name} -o {_beside(path)}{several}",)
    return Explained(path, "model", size, n_classes, names, about, says, tuple(lines))


def _beside(path: str) -> str:
    return shlex.quote(f"{os.path.splitext(path)[0]}.calibrated{onnx_model.SUFFIX}")


def _tensor(one: Mapping[str, Any]) -> str:
    made = f", by {_cut(one['from'], 40)}" if one.get("from") else ""
    shape = (
        None if one["shape"] is None else [_cut(axis, 40) if isinstance(axis, str) else axis for axis in one["shape"]]
    )
    return f"{_cut(one['name'], 60)} {onnx_model.in_words(shape)} {one['dtype'] or 'of an unknown type'}{made}"


def _classes_of(says: Mapping[str, Any]) -> int | None:
    """K, where the model has one output that tells it."""
    shapes = [one["shape"] for one in says["outputs"]]
    if len(shapes) == 1 and shapes[0] is not None and len(shapes[0]) in (2, 4) and isinstance(shapes[0][1], int):
        return int(shapes[0][1])
    return None


def _cut(text: str, most: int = MOST_WORDS) -> str:
    """What a file says, without what names may say of credentials, and not all of it."""
    text = storage.scrub(text)
    return text if len(text) <= most else f"{text[:most]} ..."


_EXPLAIN = {
    "json": _json,
    "state": _state,
    "arrays": _arrays,
    "model": _model,
}
