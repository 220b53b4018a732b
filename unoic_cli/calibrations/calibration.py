"""A calibration: all that turns raw scores into the calibrated posterior, as a JSON file."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calibrations.delta import DeltaStatistics
from unoic_cli.calibrations.lattice import LARGEST
from unoic_cli.calibrations.offsets import Offsets, check_offsets
from unoic_cli.calibrations.prior import Prior, Slopes, Unseen, make_slopes
from unoic_cli.data.facts import Facts, find_out, read_text
from unoic_cli.errors import DataError, UsageError, other_names
from unoic_cli.schemas import check_schema, typed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
Order = Literal["flatten-first", "rebalance-first"]
ORDERS: tuple[Order, ...] = get_args(Order)


def check_lambda(lam: float, where: str) -> None:
    """Refuse a lambda that is NaN, infinite, or so large that no score counts beside it."""
    if not (math.isfinite(lam) and abs(lam) <= LARGEST):
        raise UsageError(where, f"{lam}", f"expected a finite number between -{LARGEST} and {LARGEST}")


@dataclass(frozen=True)
class Modality:
    """What belongs to one network (sensor) of a calibration.

    Attributes
    ----------
    name : str or None
        None where there is but one and nobody named it.
    source_prior : Prior
        P_s, (K,).
    temperature : float
        Divides the scores.
    delta : DeltaStatistics or None
        delta is computed from the scores with these, and a delta stored in the file is not looked at.
    stored_delta : bool
        Without statistics: whether a delta stored in the file is applied.
    share : float
        The modality's lambda is ``share * lambda``.
    given_factors : bool
        delta came from a file of factors, which belongs to the samples: other samples need their own.
    offsets : tuple of float or None
        b_k, (K,), added to each class's score.
    """

    name: str | None
    source_prior: Prior
    temperature: float = 1.0
    delta: DeltaStatistics | None = None
    stored_delta: bool = True
    share: float = 1.0
    given_factors: bool = False
    offsets: Offsets | None = None

    __repr__ = brief
    _repr_html_ = in_html

    def to_dict(self, lam: float) -> dict[str, Any]:
        """As it is stored; its own lambda is there for the reader."""
        return {
            "name": self.name,
            "source_prior": self.source_prior.to_dict(),
            "temperature": self.temperature,
            "delta": None if self.delta is None else self.delta.to_dict(),
            "stored_delta": self.stored_delta,
            "given_factors": self.given_factors,
            "share": self.share,
            "lambda": self.share * lam,
            **({} if self.offsets is None else {"offsets": list(self.offsets)}),
        }


N_BINS = 33
"""Of margins that are remembered."""


@dataclass(frozen=True)
class Tuning:
    """What a calibration remembers of the data that its lambda was tuned on, so that other data can be compared.

    Attributes
    ----------
    n, flips : int
        Units that were kept, and those of them that lambda decides otherwise than lambda 0 does.
    clusters : int
        Independent ones: units, images or groups.
    counts : tuple of int
        (K,) labelled units of each class, of all of the data.
    margins : tuple of tuple of int
        Of each class, the kept units by the margins of their decisions, see `unoic_cli.tallies.margins`: bins after
        the last that is not empty are left out.
    """

    n: int
    flips: int
    clusters: int
    counts: tuple[int, ...]
    margins: tuple[tuple[int, ...], ...] = ()

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "n": self.n,
            "flips": self.flips,
            "clusters": self.clusters,
            "counts": list(self.counts),
            "margins": [list(one) for one in self.margins],
        }

    def binned(self) -> NDArray[np.float64]:
        """The margins, (K, 33)."""
        import numpy as np

        found = np.zeros((len(self.margins), N_BINS))
        for row, counts in zip(found, self.margins, strict=True):
            row[: len(counts)] = counts
        return found


@dataclass(frozen=True)
class Calibration:
    """P_f(.|x) = softmax(delta / T * z + b + lambda * s), s = log P_t - log P_s (Eq. 7), for each modality; then fused.

    Attributes
    ----------
    lam : float
        lambda. Any finite value is legitimate; 0 changes no prediction.
    target_prior : Prior
        P_t over the K classes.
    modalities : tuple of Modality
        Each with its P_s, temperature, delta statistics and share of lambda; in the order of their names.
    fusion : str or None
        How several are fused; None for one.
    weights : tuple of float or None
        Of the modalities, where the fusion takes weights.
    order : {"flatten-first", "rebalance-first"}
        Algorithm 1 as printed, delta * z + b + lambda * s, or delta * (z + b + lambda * s).
    unseen : str
        What happens to classes of prior zero.
    class_names : tuple of str or None
        (K,), checked against the data when both have them.
    provenance : dict
        Where it came from: files, split, metric, options.
    tuning : Tuning or None
        Of the data that lambda was tuned on.
    """

    lam: float
    target_prior: Prior
    modalities: tuple[Modality, ...]
    fusion: str | None = None
    weights: tuple[float, ...] | None = None
    order: Order = "flatten-first"
    unseen: Unseen = "mask"
    class_names: tuple[str, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)
    tuning: Tuning | None = field(default=None, repr=False)

    __repr__ = brief
    _repr_html_ = in_html

    def __post_init__(self) -> None:
        for modality in self.modalities:
            check_lambda(self.lam * modality.share, "lambda")
        check_lambda(self.lam, "lambda")

    @property
    def source_prior(self) -> Prior:
        """P_s of the first modality."""
        return self.modalities[0].source_prior

    @property
    def temperature(self) -> float:
        """Temperature of the first modality; only lambda * temperature decides the prediction."""
        return self.modalities[0].temperature

    def slopes(self) -> Slopes:
        """s_k of the first modality and the masked classes."""
        return self.slopes_of(self.modalities[0])

    def slopes_of(self, modality: Modality) -> Slopes:
        """s_k of a modality times its share of lambda, and its masked classes."""
        return make_slopes(modality.source_prior, self.target_prior, self.unseen).scaled(modality.share)

    def apply(
        self, logits: Any, *, kind: str = "logits", delta: Any = None, class_axis: int | None = None
    ) -> NDArray[Any]:
        """Log-probabilities of the calibrated (and fused) posterior; numpy alone, no file.

        Parameters
        ----------
        logits : array (K,), (N, K) or (N, K, H, W), or mapping of these by modality
            Of one sample, of rows or of images. Anything that numpy takes; of floats of any size.
        kind : {"logits", "log_probs", "probs"}
            What they are.
        delta : number or array (N,) or (N, H, W), or mapping by modality, optional
            Factors of the scores. By default what the calibration's statistics say of them, or 1.
        class_axis : int, optional
            Where the classes of images are: 1 (by default), or -1 for (N, H, W, K); asked for where both would fit.

        Returns
        -------
        array
            Of the shape of `logits`: float64 of float64, else float32. A unit's first largest entry is its decision.

        Raises
        ------
        UnoicError
            Other classes, shapes or modalities than the calibration's, or values that are no scores.

        Examples
        --------
        >>> import numpy as np
        >>> import unoic_cli
        >>> scores = np.log([[0.8, 0.2], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
        >>> made = unoic_cli.search_lambda(scores, [0, 1, 0, 1], source_prior=[3, 1], lam=1).calibration
        >>> np.exp(made.apply([[0.0, -1.0]])).round(3).tolist()
        [[0.475, 0.525]]
        """
        return self._ready(logits, kind, delta, class_axis, "log_probs")

    def predict_proba(
        self, logits: Any, *, kind: str = "logits", delta: Any = None, class_axis: int | None = None
    ) -> NDArray[Any]:
        """Probabilities; see `apply`."""
        return self._ready(logits, kind, delta, class_axis, "probs")

    def predict(
        self, logits: Any, *, kind: str = "logits", delta: Any = None, class_axis: int | None = None
    ) -> NDArray[Any]:
        """Decisions (N,) or (N, H, W), int64: those of ``unoic calibrate``, to the last one; see `apply`."""
        return self._ready(logits, kind, delta, class_axis, "predictions")

    @functools.cached_property
    def _ready(self) -> Callable[..., NDArray[Any]]:
        from unoic_cli.calibrations.applied import Applied  # numpy, where it is needed

        return Applied(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the calibration as commands do; a file of that name is replaced, as a whole.

        Raises
        ------
        CannotCreateError
            It cannot be written.
        """
        from unoic_cli.storage.output import write_text

        write_text(os.fspath(path), json.dumps(self.to_dict(), indent=1) + "\n")

    def check_fits(self, n_classes: int, class_names: tuple[str, ...] | None, where: str) -> None:
        """Refuse data of other classes."""
        if len(self.target_prior.values) != n_classes:
            found = f"{n_classes} classes"
            raise DataError(where, found, f"expected {len(self.target_prior.values)}, as the calibration has")
        if self.class_names and class_names and self.class_names != class_names:
            found = other_names(class_names, self.class_names)
            raise DataError(f"{where}:class_names", found, "expected those of the calibration")

    @detached
    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "format": "unoic calibration",
            "version": VERSION,
            "lambda": self.lam,
            "target_prior": self.target_prior.to_dict(),
            "fusion": self.fusion,
            "weights": None if self.weights is None else list(self.weights),
            "order": self.order,
            "unseen": self.unseen,
            "class_names": list(self.class_names) if self.class_names else None,
            "modalities": [modality.to_dict(self.lam) for modality in self.modalities],
            **({} if self.tuning is None else {"tuning": self.tuning.to_dict()}),
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
            check_schema(content, where)
            content = content["calibration"]
        if not isinstance(content, dict) or content.get("format") != "unoic calibration":
            raise DataError(where, "JSON of another kind", expected)
        if content.get("version") != VERSION:
            raise DataError(where, f"calibration version {content.get('version')}", f"expected version {VERSION}")
        stored = typed({**content, "lam": content.get("lambda")}, _Stored, where, "a damaged calibration", expected)
        lam, target, modalities = stored.lam, stored.target_prior, stored.modalities
        fusion, weights, names = stored.fusion, stored.weights, stored.class_names
        for prior in (target, *(m.source_prior for m in modalities)):
            _check_prior(prior, where)
        for entry in content["modalities"]:
            if entry.get("delta") is not None:
                DeltaStatistics.from_dict(entry["delta"], where)
        for entry, modality in zip(content["modalities"], modalities, strict=True):
            _check_lambdas(entry, modality, lam, len(modalities), where)
            if modality.offsets is not None:
                check_offsets(modality.offsets, len(target.values), where)
        numbers = [lam, *(m.share for m in modalities), *(m.share * lam for m in modalities)]
        warm = all(math.isfinite(m.temperature) and m.temperature > 0 for m in modalities)
        if not all(abs(number) <= LARGEST for number in numbers) or not warm:
            found = f"lambda {lam}, temperature {', '.join(str(m.temperature) for m in modalities)}"
            raise DataError(where, found, "expected finite numbers, the temperature positive")
        lengths = {len(target.values), *(len(m.source_prior.values) for m in modalities)}
        if names is not None:
            lengths.add(len(names))
        if len(lengths) != 1 or not modalities:
            raise DataError(where, "a damaged calibration (priors or names of different lengths)", expected)
        known = [m.name for m in modalities]
        named = len(set(known)) == len(known) and None not in known
        weighted = weights is None or (len(weights) == len(known) and all(map(math.isfinite, weights)))
        fused = fusion is not None and named and weighted
        if not (fused or (len(known) == 1 and fusion is None and weights is None)):
            raise DataError(where, "a damaged calibration (modalities that do not go together)", expected)
        if stored.tuning is not None:
            _check_tuning(stored.tuning, len(target.values), where)
        return cls(**vars(stored))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read a calibration file.

        Raises
        ------
        NoInputError, DataError
            The file cannot be read, or is not a calibration.
        """
        return find_out(cls.read(os.fspath(path)))

    @classmethod
    def read(cls, path: str) -> Facts[Calibration]:
        """As `load`, for commands."""
        expected = "expected a calibration (JSON)"
        try:
            return cls.from_dict(json.loads((yield from read_text(path, expected))), path)
        except (ValueError, RecursionError):  # not JSON, or nested or numbered beyond reason
            raise DataError(path, "not JSON", expected) from None


@dataclass(frozen=True)
class _Stored:
    """The fields of a calibration as they are in its file, unchecked."""

    lam: float
    target_prior: Prior
    modalities: tuple[Modality, ...]
    fusion: str | None = None
    weights: tuple[float, ...] | None = None
    order: Order = "flatten-first"
    unseen: Unseen = "mask"
    class_names: tuple[str, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    tuning: Tuning | None = None


def _check_tuning(tuning: Tuning, n_classes: int, where: str) -> None:
    """Refuse numbers of the tuning data that cannot be."""
    numbers = (tuning.flips, *tuning.counts)
    if not (0 <= tuning.flips <= tuning.n and 0 < tuning.clusters <= tuning.n and min(numbers) >= 0):
        raise DataError(where, f"tuning: {tuning.flips} of {tuning.n} units", "expected shares of what was tuned on")
    if len(tuning.counts) != n_classes:
        raise DataError(where, f"tuning: counts of {len(tuning.counts)} classes", f"expected {n_classes}")
    lengths, total = {len(one) for one in tuning.margins}, sum(map(sum, tuning.margins))
    whole = len(tuning.margins) == n_classes and total == tuning.n and max(lengths) <= N_BINS
    if tuning.margins and (not whole or min(min(one, default=0) for one in tuning.margins) < 0):
        found = f"tuning: margins of {total} units in {len(tuning.margins)} classes"
        raise DataError(where, found, f"expected {tuning.n} units in {n_classes} classes, {N_BINS} bins or fewer")


def _close(found: float, expected: float) -> bool:
    """Equal up to the rounding of numbers that were written as text."""
    try:
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-15)
    except OverflowError:  # an integer beyond any float
        return False


def _check_lambdas(content: dict[str, Any], modality: Modality, lam: float, n_modalities: int, where: str) -> None:
    """Refuse a modality whose lambda is stated twice, and not the same."""
    of = "the modality" if modality.name is None else f"modality {modality.name}"
    if n_modalities == 1 and not _close(modality.share, 1.0):
        raise DataError(where, f"share {modality.share:g} for the only modality", "expected share 1")
    stated = content.get("lambda")
    if stated is None:
        return
    numeric = isinstance(stated, (int, float)) and not isinstance(stated, bool)
    if not numeric or not _close(stated, modality.share * lam):
        found = f"lambda {stated!r} of {of}, where lambda is {lam!r} and its share {modality.share!r}"
        raise DataError(where, found, f"expected {modality.share * lam!r} (share * lambda), or no lambda there")


def _check_prior(prior: Prior, where: str) -> None:
    values, counts = prior.values, prior.counts
    if not all(math.isfinite(value) and value >= 0 for value in values) or abs(math.fsum(values) - 1) > 1e-6:
        raise DataError(where, "a prior that is not a distribution", "expected values >= 0 that sum to 1")
    if counts is not None:
        if len(counts) != len(values) or not all(math.isfinite(count) and count >= 0 for count in counts):
            raise DataError(where, "a prior with counts that are none", "expected one count >= 0 for each class")
        total = math.fsum(counts)
        stated = next((k for k, count in enumerate(counts) if not _close(count, values[k] * total)), None)
        if total <= 0 or stated is not None:
            k = stated or 0
            found = f"a prior of {values[k]:g} for class {k}, with a count of {counts[k]:g} of {total:g}"
            raise DataError(where, found, "expected values that are counts over their sum (or no counts)")
