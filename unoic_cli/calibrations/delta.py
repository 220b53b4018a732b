"""delta(x), the likelihood flattening of UNO: a factor of the scores that falls as a sample's uncertainty rises."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.data.facts import Facts, find_out, read_text
from unoic_cli.errors import DataError
from unoic_cli.schemas import check_schema, typed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Measure = Literal["entropy", "predictive-entropy", "mutual-information"]
Per = Literal["sample", "pixel"]
FIXED_POINT = 2**40
"""Entropies are summed as integers in units of 1 / this (nats): any order of summation gives the same bits."""
FORMAT = "unoic delta statistics"
VERSION = 1
_EXPECTED = "expected delta statistics written by unoic fit-delta"


def mean_of_sums(sums: NDArray[np.int64], pixels: int) -> NDArray[np.int64]:
    """Sums over a sample's pixels divided by their number, rounded half up: the H of each sample in fixed point."""
    return (2 * sums + pixels) // (2 * pixels)


@dataclass(frozen=True)
class DeltaStatistics:
    """Mean and spread of a modality's uncertainty where it works well; they turn uncertainty into delta.

    Attributes
    ----------
    mu, sigma : float
        Mean and population standard deviation (ddof 0) over samples of the uncertainty H, in nats; H is the mean
        over a sample's pixels. Or over pixels, see `per`.
    power : float
        p of ``delta = (mu / (max(0, H - mu - sigma) + mu)) ** p``.
    measure : {"entropy", "predictive-entropy", "mutual-information"}
        What H is: entropy of the softmax, or of stochastic passes.
    n : int
        Samples (or pixels) behind mu and sigma.
    modality : str or None
        Which modality they belong to.
    provenance : dict
        Where they came from.
    per : {"sample", "pixel"}
        What has an H, and a delta, of its own.
    largest : float or None
        The largest H behind mu and sigma; None in files of old versions.
    """

    mu: float
    sigma: float
    power: float = 1.0
    measure: Measure = "entropy"
    n: int = 0
    modality: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)
    per: Per = "sample"
    largest: float | None = None

    __repr__ = brief
    _repr_html_ = in_html

    @property
    def least(self) -> float | None:
        """The smallest delta of the data that these statistics are of; None where that is not known.

        Examples
        --------
        >>> DeltaStatistics(0.4, 0.1, largest=0.6).least, DeltaStatistics(0.4, 0.1).least
        (0.8, None)
        """
        return None if self.largest is None else round(float(self.delta(self.largest)), 15)

    def delta(self, uncertainty: ArrayLike) -> NDArray[np.float64]:
        """The factor of samples of this uncertainty (nats), in [0, 1]; 1 where mu = 0 is not exceeded.

        Examples
        --------
        >>> DeltaStatistics(0.4, 0.1).delta([0.3, 0.5, 0.6, 0.9]).round(6).tolist()
        [1.0, 1.0, 0.8, 0.5]
        >>> DeltaStatistics(0.0, 0.0).delta([0.0]).tolist()
        [1.0]
        """
        import numpy as np

        excess = np.maximum(0.0, np.asarray(uncertainty, dtype=np.float64) - self.mu - self.sigma)
        ratio = np.divide(self.mu, excess + self.mu, out=np.ones_like(excess), where=excess > 0)
        return np.asarray(ratio**self.power)

    def with_power(self, power: float) -> DeltaStatistics:
        """The same statistics with another power."""
        return replace(self, power=power)

    @detached
    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "modality": self.modality,
            "measure": self.measure,
            "per": self.per,
            "mu": self.mu,
            "sigma": self.sigma,
            "power": self.power,
            "n": self.n,
            **({} if self.largest is None else {"largest": self.largest}),
            "provenance": self.provenance,
        }

    @classmethod
    def from_dict(cls, content: Any, where: str) -> DeltaStatistics:
        """Read what `to_dict` wrote, or a result of `fit-delta` that holds it.

        Raises
        ------
        DataError
            Not delta statistics, or ones that make no sense.
        """
        if isinstance(content, dict) and isinstance(content.get("statistics"), dict):
            check_schema(content, where)
            content = content["statistics"]
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DataError(where, "JSON of another kind", _EXPECTED)
        if content.get("version") != VERSION:
            raise DataError(where, f"delta statistics version {content.get('version')}", f"expected version {VERSION}")
        found = typed(content, cls, where, "damaged delta statistics", _EXPECTED)
        largest = 0.0 if found.largest is None else found.largest
        if not all(math.isfinite(value) and value >= 0 for value in (found.mu, found.sigma, found.power, largest)):
            numbers = f"mu {found.mu}, sigma {found.sigma}, power {found.power}, largest {largest}"
            raise DataError(where, numbers, "expected finite numbers, none negative")
        return found

    @classmethod
    def load(cls, path: str) -> DeltaStatistics:
        """Read a file of delta statistics.

        Raises
        ------
        NoInputError, DataError
            The file cannot be read, or holds something else.
        """
        return find_out(cls.read(path))

    @classmethod
    def read(cls, path: str) -> Facts[DeltaStatistics]:
        """As `load`, for commands."""
        try:
            return cls.from_dict(json.loads((yield from read_text(path, _EXPECTED))), path)
        except (ValueError, RecursionError):
            raise DataError(path, "not JSON", _EXPECTED) from None
