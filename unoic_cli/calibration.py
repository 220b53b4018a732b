"""A calibration: all that turns raw scores into the calibrated posterior, as a JSON file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from unoic_cli.errors import DataError, NoInputError, UsageError
from unoic_cli.lattice import LARGEST
from unoic_cli.priors import UNSEEN, Prior, Slopes, Unseen, make_slopes

VERSION = 1


def check_lambda(lam: float, where: str) -> None:
    """Refuse a lambda that is NaN, infinite, or so large that no score counts beside it."""
    if not (math.isfinite(lam) and abs(lam) <= LARGEST):
        raise UsageError(where, f"{lam}", f"expected a finite number between -{LARGEST} and {LARGEST}")


@dataclass(frozen=True)
class Calibration:
    """P_f(.|x) = softmax(delta / temperature * z + lambda * s), s = log P_t - log P_s (Eq. 7).

    Attributes
    ----------
    lam : float
        lambda. Any finite value is legitimate; 0 changes no prediction.
    source_prior, target_prior : Prior
        P_s and P_t over the K classes.
    temperature : float
        Divides the scores. It moves lambda: only lambda * temperature decides the prediction.
    unseen : str
        What happens to classes of prior zero.
    class_names : tuple of str or None
        (K,), checked against the data when both have them.
    provenance : dict
        Where it came from: files, split, metric, options.
    """

    lam: float
    source_prior: Prior
    target_prior: Prior
    temperature: float = 1.0
    unseen: Unseen = "mask"
    class_names: tuple[str, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_lambda(self.lam, "lambda")

    def slopes(self) -> Slopes:
        """s_k and the masked classes."""
        return make_slopes(self.source_prior, self.target_prior, self.unseen)

    def check_fits(self, n_classes: int, class_names: tuple[str, ...] | None, where: str) -> None:
        """Refuse data of other classes."""
        if len(self.source_prior.values) != n_classes:
            found = f"{n_classes} classes"
            raise DataError(where, found, f"expected {len(self.source_prior.values)}, as the calibration has")
        if self.class_names and class_names and self.class_names != class_names:
            raise DataError(f"{where}:class_names", "other class names", "expected those of the calibration")

    def to_dict(self) -> dict[str, Any]:
        """As it is stored: one modality, so that fused calibrations have the same form."""
        return {
            "format": "unoic calibration",
            "version": VERSION,
            "lambda": self.lam,
            "target_prior": _prior_to_dict(self.target_prior),
            "unseen": self.unseen,
            "class_names": list(self.class_names) if self.class_names else None,
            "modalities": [
                {"name": None, "source_prior": _prior_to_dict(self.source_prior), "temperature": self.temperature}
            ],
            "provenance": self.provenance,
        }

    @classmethod
    def from_dict(cls, content: Any, where: str) -> Calibration:
        """Read what `to_dict` wrote, or a result of `search-lambda` that holds it.

        Raises
        ------
        DataError
            Not a calibration, or one that does not make sense.
        """
        expected = "expected a calibration written by unoic search-lambda or unoic calibrate"
        if isinstance(content, dict) and isinstance(content.get("calibration"), dict):
            content = content["calibration"]
        if not isinstance(content, dict) or content.get("format") != "unoic calibration":
            raise DataError(where, "JSON of another kind", expected)
        if content.get("version") != VERSION:
            raise DataError(where, f"calibration version {content.get('version')}", f"expected version {VERSION}")
        try:
            (modality,) = content["modalities"]
            lam, temperature = float(content["lambda"]), float(modality.get("temperature", 1.0))
            source = _prior_from_dict(modality["source_prior"], where)
            target = _prior_from_dict(content["target_prior"], where)
            names = None if content.get("class_names") is None else _names(content["class_names"], len(source.values))
            unseen = content.get("unseen", "mask")
            provenance = dict(content.get("provenance") or {})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise DataError(where, "a damaged calibration (entries missing or of the wrong type)", expected) from None
        if not abs(lam) <= LARGEST or not (math.isfinite(temperature) and temperature > 0):
            raise DataError(
                where, f"lambda {lam}, temperature {temperature}", "expected finite numbers, the temperature positive"
            )
        if unseen not in UNSEEN or len(source.values) != len(target.values):
            raise DataError(
                where, "a damaged calibration (priors of different lengths, or an unknown policy)", expected
            )
        return cls(lam, source, target, temperature, unseen, names, provenance)

    @classmethod
    def load(cls, path: str) -> Calibration:
        """Read a calibration file.

        Raises
        ------
        NoInputError, DataError
            The file cannot be read, or is not a calibration.
        """
        expected = "expected a calibration (JSON)"
        try:
            with open(path, encoding="utf-8") as file:
                return cls.from_dict(json.load(file), path)
        except FileNotFoundError:
            raise NoInputError(path, "no such file", expected) from None
        except OSError as error:
            raise NoInputError(path, f"cannot be opened ({error.strerror})", expected) from None
        except (ValueError, RecursionError):  # not text, not JSON, or nested or numbered beyond reason
            raise DataError(path, "not JSON", expected) from None


def _prior_to_dict(prior: Prior) -> dict[str, Any]:
    counts = None if prior.counts is None else list(prior.counts)
    return {"values": list(prior.values), "counts": counts, "origin": prior.origin}


def _prior_from_dict(content: dict[str, Any], where: str) -> Prior:
    values = tuple(float(value) for value in content["values"])
    if not all(math.isfinite(value) and value >= 0 for value in values) or abs(math.fsum(values) - 1) > 1e-6:
        raise DataError(where, "a prior that is not a distribution", "expected values >= 0 that sum to 1")
    counts = content.get("counts")
    if counts is not None:
        counts = tuple(float(count) for count in counts)
        if len(counts) != len(values) or not all(math.isfinite(count) and count >= 0 for count in counts):
            raise DataError(where, "a prior with counts that are none", "expected one count >= 0 for each class")
    return Prior(values, str(content.get("origin", where)), counts)


def _names(content: Any, n_classes: int) -> tuple[str, ...]:
    if not isinstance(content, list) or len(content) != n_classes or not all(isinstance(name, str) for name in content):
        raise ValueError
    return tuple(content)
