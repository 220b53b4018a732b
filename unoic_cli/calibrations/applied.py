"""A calibration applied to arrays by numpy alone: for services, where a call must cost no more than its arithmetic.

The same formulas and decisions as the commands that read files (float64, ties to the lowest class), without their
readers, kernels and counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from unoic_cli.calibrations.delta import FIXED_POINT, DeltaStatistics, mean_of_sums
from unoic_cli.calibrations.rule import Fusible, Rule, as_fused, joint_slopes, rule_of
from unoic_cli.calls import ArgumentError, as_array
from unoic_cli.errors import DataError
from unoic_cli.fusions import fusion
from unoic_cli.kernels import plain
from unoic_cli.kernels.constants import LANES
from unoic_cli.kernels.operator import Group, make_scratch
from unoic_cli.weights import are_probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

KINDS = ("logits", "log_probs", "probs")
_LEVEL = 1e-5
"""Scores that are nearer to the largest (nats) may be as large in float32."""
_PIECE = 1 << 16
"""Scores at a time: they stay in cache."""


@dataclass(frozen=True)
class Expert:
    """One modality, ready.

    Attributes
    ----------
    temperature : float
    statistics : DeltaStatistics or None
        What delta follows from.
    bias : (K,) float64 or None
        Offsets, and those that a fusion adds.
    tilt : (K,) float64
        lambda * s.
    """

    temperature: float
    statistics: DeltaStatistics | None
    bias: Floats | None
    tilt: Floats


@dataclass
class Applied:
    """A calibration, ready to be applied.

    Attributes
    ----------
    calibration : Calibration
    """

    calibration: Any
    experts: tuple[Expert, ...] = field(init=False)
    rule: Rule = field(init=False)
    linear: bool = field(init=False)

    def __post_init__(self) -> None:
        lines: Any = as_fused(cast(Fusible, self.calibration))
        lam = lines.lam
        self.experts = tuple(
            Expert(
                one.temperature,
                one.delta,
                None if one.offsets is None else np.array(one.offsets),
                lam * lines.slopes_of(one).values,
            )
            for one in lines.modalities
        )
        self.rule = rule_of(lines)
        self.names = [one.name for one in lines.modalities]
        self.linear = lines.fusion is None or bool(fusion(lines.fusion).LINEAR)
        self.weights = lines.weights or (1.0,) * len(self.experts)
        joint = joint_slopes(lines)
        self._tilt, self._masked = lam * joint.values, joint.masked if joint.masked.any() else None
        self._first = self.calibration.order == "rebalance-first"

    # --------------------------------------------------------------------------------------------

    def __call__(
        self, inputs: Any, kind: str, delta: Any, class_axis: int | None, out: str
    ) -> NDArray[Any]:  # log-probs, probs or predictions
        """What `Calibration.apply`, `predict_proba` and `predict` give."""
        given = self._taken(inputs, delta)
        arrays = [self._array(name, values, class_axis, kind) for name, values, _ in given]
        shape, row = arrays[0].shape, arrays[0].ndim == 1
        for (name, _, _), array in zip(given, arrays, strict=True):
            if array.shape != shape:
                raise ArgumentError(_called(name), f"shape {array.shape}", f"expected {shape}, as of {self.names[0]}")
        if kind not in KINDS:
            raise ArgumentError("kind", repr(kind), f"expected {', '.join(KINDS)}")
        if row:
            arrays = [array[None] for array in arrays]
        if kind == "logits":
            for (name, _, _), array in zip(given, arrays, strict=True):
                if are_probabilities(array):
                    found = "values in [0, 1] whose rows sum to 1"
                    raise ArgumentError(_called(name), found, 'expected logits, or kind="probs"')
        planes = [_as_planes(array) for array in arrays]
        factors = [
            self._factors(expert, name, plane, values, kind, arrays[0].ndim == 2)
            for expert, plane, (name, _, values) in zip(self.experts, planes, given, strict=True)
        ]
        double = any(array.dtype == np.float64 for array in arrays)
        n, n_classes, pixels = planes[0].shape
        predictions = out == "predictions"
        result = np.empty((n, pixels) if predictions else (n, n_classes, pixels), np.int64 if predictions else
                          np.float64 if double else np.float32)  # fmt: skip
        self._fill(planes, factors, kind, out, result)
        return _as_given(result, arrays[0], row, 1 if class_axis is None else class_axis, predictions)

    def _taken(self, inputs: Any, delta: Any) -> list[tuple[str | None, Any, Any]]:
        """Scores and factors of each modality, in order."""
        if not isinstance(inputs, Mapping):
            if len(self.experts) > 1:
                raise ArgumentError("logits", "one array", f"expected a mapping of {', '.join(map(str, self.names))}")
            return [(self.names[0], inputs, delta)]
        known = dict.fromkeys(self.names)
        if len(inputs) == 1 and len(known) == 1:
            return [(self.names[0], next(iter(inputs.values())), delta)]
        if set(inputs) != set(known):
            raise ArgumentError("logits", f"{', '.join(map(str, inputs))}", f"expected {', '.join(map(str, known))}")
        if delta is not None and not (isinstance(delta, Mapping) and set(delta) <= set(known)):
            raise ArgumentError("delta", f"{delta!r:.60}", f"expected a mapping of {', '.join(map(str, known))}")
        return [(name, inputs[name], None if delta is None else delta.get(name)) for name in self.names]

    def _array(self, name: str | None, values: Any, class_axis: Any, kind: str) -> NDArray[Any]:
        """Scores (N, K), (N, K, H, W) or (K,), of a float type."""
        if isinstance(values, np.ma.MaskedArray):
            raise ArgumentError(_called(name), "a masked array", "expected numbers everywhere: values.filled(...)")
        array = as_array(values, _called(name))
        if array.dtype.kind != "f":
            if array.dtype.kind not in "iu":
                raise ArgumentError(_called(name), f"{array.dtype} values", "expected numbers")
            array = array.astype(np.float64)
        n_classes = self._tilt.size
        if n_classes == 2 and kind == "logits" and ((array.ndim == 1 and array.size != 2) or array.shape[1:] == (1,)):
            one = array.reshape(-1)
            array = np.stack([np.zeros_like(one), one], axis=1)  # one score stands for two classes
        if array.ndim not in (1, 2, 4):
            expected = "expected (N, K), (N, K, H, W), or (K,) of one sample"
            raise ArgumentError(_called(name), f"shape {array.shape}", expected)
        if array.ndim == 4 and class_axis is None and array.shape[1] == array.shape[3] == n_classes:
            expected = "expected class_axis=1 for (N, K, H, W), or class_axis=-1 for (N, H, W, K)"
            raise ArgumentError(_called(name), f"shape {array.shape}, and {n_classes} classes", expected)
        if array.ndim == 4 and (1 if class_axis is None else class_axis) % 4 != 1:
            array = np.moveaxis(array, class_axis, 1)
        found = array.shape[0 if array.ndim == 1 else 1]
        if found != n_classes:
            raise ArgumentError(_called(name), f"{found} classes", f"expected {n_classes}, as the calibration has")
        return array

    def _factors(
        self, expert: Expert, name: str | None, plane: NDArray[Any], delta: Any, kind: str, rows: bool
    ) -> Floats | None:
        """Delta of each unit, (N, P), rows as one plane of N pixels; None where it is 1."""
        shape = plane.shape[0], plane.shape[2]
        if delta is not None:
            return _given(delta, shape, rows)
        statistics = expert.statistics
        if statistics is None:
            return None
        if statistics.measure != "entropy":
            expected = "expected delta=, as the calibration's statistics are of stochastic passes"
            raise ArgumentError(_called(name), "no delta", expected)
        units = _entropies(plane, kind)
        if rows or statistics.per == "pixel":
            return statistics.delta(units / FIXED_POINT)
        samples = mean_of_sums(units.sum(axis=1), max(1, shape[1]))
        return np.broadcast_to(statistics.delta(samples / FIXED_POINT)[:, None], shape)

    def _fill(
        self, planes: list[NDArray[Any]], factors: list[Floats | None], kind: str, out: str, result: NDArray[Any]
    ) -> None:
        """Piece by piece."""
        n, n_classes, pixels = planes[0].shape
        wide = max(1, min(pixels, _PIECE // n_classes))
        deep = max(1, _PIECE // (n_classes * pixels)) if wide == pixels else 1
        for i in range(0, n, deep):
            for j in range(0, pixels, wide):
                part = slice(i, i + deep), slice(j, j + wide)
                raw = [plane[part[0], :, part[1]] for plane in planes]
                own = [None if one is None else one[part] for one in factors]
                piece = self._posterior(raw, own, kind, out, result.dtype)
                if out == "predictions":
                    result[part] = piece
                else:
                    result[part[0], :, part[1]] = piece

    def _scores(self, expert: Expert, raw: NDArray[Any], factor: Floats | None, kind: str) -> Floats:
        """Delta / T * z + b, (n, K, p) float64."""
        z = raw.astype(np.float64)
        if kind == "probs":
            with np.errstate(divide="ignore", invalid="ignore"):
                np.log(z, out=z)
        _check(z, kind)
        temperature = expert.temperature
        if factor is not None:
            times = (factor / temperature if temperature != 1.0 else factor)[:, None]
            with np.errstate(invalid="ignore"):
                z = np.where(z > -np.inf, z * times, z)  # no factor makes an impossible class possible
        elif temperature != 1.0:
            z *= 1 / temperature
        if expert.bias is not None:
            bias = expert.bias[:, None]
            z += bias * factor[:, None] if self._first and factor is not None else bias
        return z

    def _posterior(
        self, raw: list[NDArray[Any]], factors: list[Floats | None], kind: str, out: str, dtype: Any
    ) -> NDArray[Any]:
        """Of a piece: log-probabilities, probabilities or decisions."""
        scores = [self._scores(*of, kind) for of in zip(self.experts, raw, factors, strict=True)]
        tilted = self._first and any(factor is not None for factor in factors)
        if len(scores) == 1 and not tilted:
            x = scores[0]
            x += self._tilt[:, None]
        elif self.linear and not tilted:
            x = np.zeros_like(scores[0])
            for weight, one in zip(self.weights, scores, strict=True):
                if weight:
                    x += weight * one
            x += self._tilt[:, None]
        elif self.linear:
            x = np.zeros_like(scores[0])
            for weight, one, expert, factor in zip(self.weights, scores, self.experts, factors, strict=True):
                tilt = expert.tilt[:, None]
                if weight:
                    x += weight * (one + (tilt if factor is None else tilt * factor[:, None]))
        else:
            return self._fused(scores, factors if tilted else [None] * len(scores), out, dtype)
        if self._masked is not None:
            x[:, self._masked] = -np.inf
        if not x.max(axis=1).min(initial=0.0) > -np.inf:
            expected = f"expected finite {kind}"
            raise DataError("logits", "no class of positive probability that may be predicted", expected)
        return _softmax(x, out, dtype)

    def _fused(self, scores: list[Floats], factors: list[Floats | None], out: str, dtype: Any) -> NDArray[Any]:
        """Of operators that are no lines in lambda: what the commands' plain numpy kernels do."""
        n, n_classes, pixels = scores[0].shape
        units = n * pixels
        groups = -(-units // LANES)
        laid = np.zeros((len(scores), n_classes, groups * LANES))
        for row, one, masked in zip(laid, scores, self.rule.masked, strict=True):
            row[:, :units] = one.transpose(1, 0, 2).reshape(n_classes, -1)
            row[masked] = -np.inf
        times = np.zeros(0)
        if any(factor is not None for factor in factors):
            times = np.ones((len(scores), groups * LANES))
            for m, factor in enumerate(factors):
                if factor is not None:
                    times[m, :units] = factor.reshape(-1)
        flat = laid.reshape(len(scores), n_classes, groups, LANES).transpose(0, 2, 1, 3).reshape(-1)
        experts = Group(
            flat, 0, groups * LANES * n_classes, times.reshape(-1), 0, groups * LANES, self.rule.slopes.reshape(-1),
            len(scores), n_classes,
        )  # fmt: skip
        lams, operator = np.array([self.calibration.lam]), self.rule.operator(self.rule.weights)
        winners, scratch = np.zeros(groups * LANES, dtype=np.int32), make_scratch(len(scores), n_classes)
        none = np.zeros(0)
        if plain.fused_winners(experts, groups, lams, none, operator, 0.0, winners, none, units, scratch) >= 0:
            raise DataError("logits", "a unit of no possible class", "expected a class that every modality allows")
        if out == "predictions":
            return winners[:units].reshape(n, pixels)
        made = np.empty((units, n_classes), dtype=dtype)
        plain.write_fused(
            experts, groups, units, lams[0], operator, winners, out == "log_probs", made.dtype.type(-np.inf),
            made.reshape(-1), 0, 0, scratch,
        )  # fmt: skip
        return made.T.reshape(n_classes, n, pixels).transpose(1, 0, 2)


def _called(name: str | None) -> str:
    return "logits" if name is None else f"logits[{name!r}]"


def _given(delta: Any, shape: tuple[int, int], rows: bool) -> Floats:
    """Factors that were given, (N, P)."""
    values = np.asarray(delta, dtype=np.float64)
    n = shape[1] if rows else shape[0]
    flat = values.reshape(n, -1) if values.ndim == 3 and values.shape[0] == n and n else values
    if flat.shape not in ((), (n,)) and (rows or flat.shape != shape):
        expected = f"expected a number, or one for each of {n} {'samples' if rows else 'images or their pixels'}"
        raise ArgumentError("delta", f"shape {values.shape}", expected)
    if not (np.isfinite(flat).all() and (flat >= 0).all()):
        raise ArgumentError("delta", "a negative, infinite or NaN factor", "expected finite factors >= 0")
    if flat.ndim == 1:
        flat = flat[None, :] if rows else flat[:, None]
    return np.broadcast_to(flat, shape)


def _as_planes(array: NDArray[Any]) -> NDArray[Any]:
    """(N, K, P); rows are one plane of N pixels."""
    if array.ndim == 2:
        return array.T[None]
    return array.reshape(*array.shape[:2], array.shape[2] * array.shape[3])


def _as_given(result: NDArray[Any], like: NDArray[Any], row: bool, class_axis: int, predictions: bool) -> NDArray[Any]:
    """The result in the layout of the input."""
    if like.ndim == 2:
        result = result[0] if predictions else np.ascontiguousarray(result[0].T)
        return result[0] if row else result
    result = result.reshape((like.shape[0], *like.shape[2:]) if predictions else like.shape)
    return result if predictions or class_axis % 4 == 1 else np.ascontiguousarray(np.moveaxis(result, 1, class_axis))


def _check(z: Floats, kind: str) -> None:
    """Refuse what is no score: as the commands do."""
    top = z.max(initial=-np.inf)
    if not top < np.inf:  # NaN, too
        found = "NaN, infinite or negative" if kind == "probs" else "NaN or infinite"
        raise DataError("logits", found, f"expected finite {kind}")
    if kind == "logits" and not z.min(initial=np.inf) > -np.inf and not z.max(axis=1).min(initial=np.inf) > -np.inf:
        raise DataError("logits", "-inf for every class", "expected a finite logit in each row")


def _entropies(plane: NDArray[Any], kind: str) -> NDArray[np.int64]:
    """Softmax entropy of each unit as it is, (N, P), in units of 2**-40 nats."""
    out = np.empty((plane.shape[0], plane.shape[2]), dtype=np.int64)
    deep = max(1, _PIECE // (plane.shape[1] * plane.shape[2]))
    for i in range(0, plane.shape[0], deep):
        z = plane[i : i + deep].astype(np.float64)
        if kind == "probs":
            with np.errstate(divide="ignore", invalid="ignore"):
                np.log(z, out=z)
        _check(z, kind)
        with np.errstate(invalid="ignore"):
            z -= z.max(axis=1, keepdims=True)
            e = np.exp(z)
            total = e.sum(axis=1)
            moment = np.where(e > 0, z * e, 0.0).sum(axis=1)
        out[i : i + deep] = np.rint(np.maximum(np.log(total) - moment / total, 0.0) * FIXED_POINT)
    return out


def _softmax(x: Floats, out: str, dtype: Any) -> NDArray[Any]:
    """Of scores (n, K, p), which are overwritten; the first largest entry of a unit is its decision."""
    if out == "predictions":
        return np.asarray(x.argmax(axis=1))
    x -= x.max(axis=1, keepdims=True)
    made = np.exp(x)
    total = made.sum(axis=1, keepdims=True)
    if out == "probs":
        made /= total
    else:
        np.subtract(x, np.log(total), out=made)
    made = made.astype(dtype, copy=False)
    near = total[:, 0] > 1.9  # elsewhere the second largest is far below
    if near.any():
        level = (x > -_LEVEL).view(np.int8)
        near = np.add.reduce(level, axis=1, dtype=np.int8 if x.shape[1] < 128 else np.int32) > 1
    if near.any():
        i, j = np.nonzero(near)
        made[i, :, j] = _first_wins(made[i, :, j], x[i, :, j])
    return made


def _first_wins(rows: NDArray[Any], exact: Floats) -> NDArray[Any]:
    """Rows (n, K) whose first largest entry is where `exact`, which they are rounded from, has its first 0."""
    winner = (exact == 0.0).argmax(axis=1)[:, None]
    best = np.take_along_axis(rows, winner, axis=1)
    before = (np.arange(rows.shape[1]) < winner) & (rows >= best)
    return np.where(before, np.nextafter(best, rows.dtype.type(-np.inf)), rows)
