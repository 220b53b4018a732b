"""Class priors, their files, and the slopes s_k = log P_t(k) - log P_s(k) of Eq. 7."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.data.facts import Facts, read_text
from unoic_cli.errors import DataError, NoInputError, UsageError
from unoic_cli.schemas import check_schema
from unoic_cli.weights import weights_by_class, weights_by_name, weights_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Unseen = Literal["mask", "floor", "smooth", "error"]
UNSEEN: tuple[Unseen, ...] = get_args(Unseen)

_TOLD = 6
"""Values of a prior that are told in words."""
LEVEL = 1e-12
"""Slopes that differ by less are equal, up to the rounding of their logarithms."""
FAINT = 0.1
"""Slopes that differ by less (in nats) say nothing: the whole way to the target, lambda = 1, would change no odds by
more than 11 %, about what the counts of a class of a hundred are sure of (1 / sqrt(100)). A lambda that is found on
them is large, fits single samples, and has nothing to do with the priors."""


PriorLike: TypeAlias = "str | Prior | Sequence[float] | Mapping[Any, float] | None"


@dataclass(frozen=True)
class Prior:
    """A distribution over K classes and where it came from.

    Attributes
    ----------
    values : tuple of float
        (K,) probabilities. They sum to 1 up to rounding, and are never normalised again.
    origin : str
        For people: ``uniform``, ``labels``, ``source_counts of val.h5`` ...
    counts : tuple of float or None
        (K,) the counts behind the probabilities, where there are any.
    estimated : bool
        From a sample that stands in for what is not known (the input's own labels for training counts, some labels
        for a population): a class that is absent there may exist all the same, so a zero masks nothing.
    class_names : tuple of str or None
        (K,) names that its file has for the values; () where such a file has none. None where nothing is named:
        numbers in the order of the classes, or weights by name or index that are in that order already.
    """

    values: tuple[float, ...]
    origin: str
    counts: tuple[float, ...] | None = None
    estimated: bool = False
    class_names: tuple[str, ...] | None = field(default=None, repr=False, compare=False)

    @property
    def zeros(self) -> list[int]:
        """Classes of prior zero."""
        return [k for k, value in enumerate(self.values) if value == 0]

    @property
    def told(self) -> str:
        """For people: where it is from, and of one that was typed what it says.

        Examples
        --------
        >>> Prior.from_weights([1, 3], "--target-prior", counts=True).told, Prior((0.5, 0.5), "uniform").told
        ('0.25, 0.75 (--target-prior)', 'uniform')
        """
        if not self.origin.startswith("--"):
            return self.origin
        more = ", ..." if len(self.values) > _TOLD else ""
        return f"{', '.join(f'{value:.3g}' for value in self.values[:_TOLD])}{more} ({self.origin})"

    @detached
    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = None if self.counts is None else list(self.counts)
        found = {"values": list(self.values), "counts": counts, "origin": self.origin}
        return {**found, "estimated": True} if self.estimated else found

    __repr__ = brief
    _repr_html_ = in_html

    @classmethod
    def from_weights(cls, weights: Sequence[float], origin: str, *, counts: bool, estimated: bool = False) -> Prior:
        """Normalise counts or probabilities.

        Raises
        ------
        DataError
            A weight is negative, infinite or NaN, or all are zero.

        Examples
        --------
        >>> Prior.from_weights([3, 1], "labels", counts=True).values
        (0.75, 0.25)
        """
        for k, weight in enumerate(weights):
            if not math.isfinite(weight) or weight < 0:
                raise DataError(
                    origin, f"{weight:g} for class {k}", "expected finite counts or probabilities, none negative"
                )
        try:
            total = math.fsum(weights)
        except OverflowError:
            raise DataError(origin, "a sum that leaves float64's range", "expected counts or probabilities") from None
        if total <= 0:
            raise DataError(origin, "a prior that is zero for every class", "expected a positive count or probability")
        whole = tuple(float(weight) for weight in weights)
        return cls(tuple(weight / total for weight in whole), origin, whole if counts else None, estimated)

    @classmethod
    def uniform(cls, n_classes: int) -> Prior:
        """1 / K for every class."""
        return cls((1.0 / n_classes,) * n_classes, "uniform")

    def check_length(self, n_classes: int, option: str) -> None:
        """Refuse a prior of another number of classes."""
        if len(self.values) != n_classes:
            found = f"a prior of {len(self.values)} classes ({self.origin})"
            raise DataError(option, found, f"expected {n_classes}, as the scores have")


@dataclass(frozen=True)
class Slopes:
    """s_k and the classes that are never predicted.

    Attributes
    ----------
    values : (K,) float64
        log P_t(k) - log P_s(k); 0 at masked classes.
    masked : (K,) bool
        Classes without a prior, under ``unseen="mask"``.
    flat : bool
        All slopes are equal, so that lambda changes nothing.
    faint : bool
        They differ by `FAINT` at most (flat ones do): the priors hold no information that lambda could use.
    """

    values: NDArray[np.float64]
    masked: NDArray[np.bool_]
    flat: bool
    faint: bool = False

    @classmethod
    def of(cls, values: NDArray[np.float64], masked: NDArray[np.bool_]) -> Slopes:
        """From slopes, of which those of masked classes are not looked at."""
        import numpy as np

        values = np.where(masked, 0.0, values)
        spread = float(np.ptp(values[~masked]))
        return cls(values, masked, spread <= LEVEL, spread <= FAINT)

    __repr__ = brief
    _repr_html_ = in_html

    def scaled(self, factor: float) -> Slopes:
        """All slopes times a factor."""
        if factor == 1.0:
            return self
        nothing = factor == 0.0
        return Slopes(self.values * factor, self.masked, self.flat or nothing, self.faint or nothing)


def _filled(prior: Prior, unseen: Unseen, option: str) -> Prior:
    """Give classes of prior zero a positive one, as the policy says (``mask`` leaves the zeros)."""
    zeros = prior.zeros
    if prior.estimated and unseen == "mask":  # what was not met may exist
        unseen = "floor" if prior.counts is None else "smooth"
    if not zeros or unseen == "mask":
        return prior
    named = ", ".join(map(str, zeros[:8])) + (", ..." if len(zeros) > 8 else "")
    if unseen == "error":
        raise DataError(
            option, f"a prior of zero for class {named} ({prior.origin})", "expected positive priors (--unseen error)"
        )
    if unseen == "smooth":
        if prior.counts is None:
            found = f"--unseen smooth, but the prior ({prior.origin}) is not made of counts"
            raise UsageError(option, found, "expected counts, or --unseen floor")
        return Prior.from_weights([count + 1.0 for count in prior.counts], prior.origin + ", smoothed", counts=True)
    smallest = min(value for value in prior.values if value > 0)
    filled = [value if value > 0 else smallest for value in prior.values]
    return Prior.from_weights(filled, prior.origin + ", floored", counts=False)


def log_prior(source: Prior, unseen: Unseen = "mask") -> NDArray[np.float64]:
    """Log of what `make_slopes` takes for P_s, (K,); 0 for masked classes.

    Examples
    --------
    >>> log_prior(Prior((0.25, 0.75, 0.0), "")).round(6).tolist()
    [-1.386294, -0.287682, 0.0]
    """
    import numpy as np

    values = np.array(_filled(source, unseen, "--source-prior").values)
    return np.asarray(np.log(np.where(values > 0, values, 1.0)))


def make_slopes(source: Prior, target: Prior, unseen: Unseen = "mask") -> Slopes:
    """Slopes of Eq. 7, zeros handled by an explicit policy that is continuous in lambda at 0.

    Parameters
    ----------
    source, target : Prior
        P_s and P_t.
    unseen : {"mask", "floor", "smooth", "error"}
        A class with prior zero is never predicted, at any lambda (mask); takes the smallest positive
        prior (floor); every count is raised by one (smooth); or is refused (error). Estimated priors mask nothing:
        their counts are raised by one, or they take the smallest positive prior where they have no counts.

    Examples
    --------
    >>> make_slopes(Prior((0.75, 0.25), ""), Prior.uniform(2)).values.round(6).tolist()
    [-0.405465, 0.693147]
    """
    import numpy as np

    source = _filled(source, unseen, "--source-prior")
    target = _filled(target, unseen, "--target-prior")
    p_s, p_t = np.array(source.values), np.array(target.values)
    masked = (p_s == 0) | (p_t == 0)
    if masked.all():
        raise DataError(
            "--target-prior", "every class has a zero source or target prior", "expected a class to predict"
        )
    values = np.zeros(p_s.size)
    values[~masked] = np.log(p_t[~masked]) - np.log(p_s[~masked])
    return Slopes.of(values, masked)


def parse_list(text: str, option: str) -> Prior | None:
    """A comma list of weights, or None when the text is something else."""
    parts = text.split(",")
    if len(parts) < 2:
        return None
    try:
        weights = [float(part) for part in parts]
    except ValueError:
        return None
    counts = all(weight == int(weight) for weight in weights if math.isfinite(weight)) and sum(weights) > 1.5
    return Prior.from_weights(weights, option, counts=counts)


def prior_from_table(table: Mapping[Any, Any], class_names: Sequence[str] | None, where: str) -> Prior:
    """A prior from weights by class name or class index.

    Examples
    --------
    >>> prior_from_table({"cat": 1, "dog": 3}, ("dog", "cat"), "priors.json").values
    (0.75, 0.25)
    """
    weights = weights_by_class(table, class_names, where)
    return Prior.from_weights(weights, where, counts=_are_counts(weights))


def prior_from_numbers(values: Any, option: str) -> Prior:
    """A prior from one number for each class, in order.

    Raises
    ------
    UsageError
        Something else.

    Examples
    --------
    >>> prior_from_numbers([3, 1], "--source-prior").counts
    (3.0, 1.0)
    """
    if not isinstance(values, (list, tuple)):
        text = f"{values!r}"
        found = text if len(text) <= 40 else f"a {type(values).__name__}"
        raise UsageError(option, found, "expected one count or probability for each class, or what names a prior")
    if any(isinstance(value, (list, tuple)) for value in values):
        raise UsageError(option, "an array of more than one axis", "expected one count or probability for each class")
    weights = weights_of(values, option)
    return Prior.from_weights(weights, option, counts=_are_counts(weights))


def _are_counts(weights: Sequence[float]) -> bool:
    return all(math.isfinite(weight) and weight == int(weight) for weight in weights) and sum(weights) > 1.5


def read_prior_file(path: str, class_names: Sequence[str] | None = None) -> Facts[Prior]:
    """Read counts or probabilities from JSON, CSV or TSV: see `read_weights`.

    Raises
    ------
    NoInputError, DataError
        The file cannot be read, or does not hold a prior.
    """
    weights, names = yield from read_weights(path, class_names)
    return replace(Prior.from_weights(weights, path, counts=_are_counts(weights)), class_names=names)


def read_weights(
    path: str, class_names: Sequence[str] | None = None
) -> Facts[tuple[list[float], tuple[str, ...] | None]]:
    """Read a number for each class, in their order, and the names that the file has, as `Prior.class_names`.

    JSON holds a list, a table by class name, or an object with ``counts`` or ``prior``; CSV and TSV a class and a
    number a line, or numbers alone.

    Raises
    ------
    NoInputError, DataError
        The file cannot be read, or does not hold such numbers.
    """
    try:
        text = yield from read_text(path, "expected a JSON, CSV or TSV file of counts or probabilities", "utf-8-sig")
    except NoInputError as error:
        if error.found != "no such file":
            raise
        expected = "expected uniform, labels, mean-posterior, a comma list, or a file"
        raise NoInputError(path, "no such file", expected) from None
    if not text.strip():
        raise DataError(path, "an empty file", "expected counts or probabilities")
    if text.lstrip()[0] in "[{":
        return _from_json(text, class_names, path)
    return _from_table(text, class_names, path), None


def read_own_weights(path: str) -> Facts[tuple[list[float], tuple[str, ...] | None]]:
    """As `read_weights`, where no scores say which classes there are: those of the file, as it names and orders them.

    Raises
    ------
    NoInputError, DataError
        The file cannot be read, or does not hold such numbers.
    """
    try:
        return (yield from read_weights(path))
    except DataError as error:
        text = yield from read_text(path, error.expected, "utf-8-sig")
        for names in _own_names(text, path):
            with contextlib.suppress(DataError):
                weights, _ = yield from read_weights(path, names)
                return weights, tuple(names)
        raise


def _own_names(text: str, path: str) -> Iterator[list[str]]:
    """What may be the names of the classes of a file of weights by name."""
    if text.lstrip()[:1] == "{":
        with contextlib.suppress(ValueError, RecursionError):
            yield list(json.loads(text))
    elif text.strip():
        with contextlib.suppress(DataError):
            rows = _rows(text, path)
            for some in (rows, rows[1:]):
                yield from ([row[0] for row in some], [row[-1] for row in some])
            yield from (rows[0], rows[0][1:])


_NAME_KEYS = ("class_names", "classes", "names", "labels")
"""Keys of a JSON object under which the names of a list's classes stand."""


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written: a name may come twice."""


def _from_json(text: str, class_names: Sequence[str] | None, path: str) -> tuple[list[float], tuple[str, ...] | None]:
    """Weights in the order of the classes, and their names as `Prior.class_names` has them."""
    try:
        content = json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise DataError(
            path, f"broken JSON (line {error.lineno})", "expected a list of counts or probabilities"
        ) from None
    except (RecursionError, ValueError):  # nested too deeply; an integer of thousands of digits
        raise DataError(path, "JSON beyond any prior", "expected a list of counts or probabilities") from None
    named, may_name = None, False
    if isinstance(content, _Pairs):
        table = dict(content)
        check_schema(table, path)
        named = next((table[key] for key in _NAME_KEYS if _is_names(table.get(key))), None)
        may_name = "class_names" in table
        for key in ("counts", "source_counts", "prior", "values", "probabilities"):
            if isinstance(table.get(key), list):
                content = table[key]
                break
    if isinstance(content, _Pairs):
        return weights_by_name(content, class_names, path), None
    if named is None:
        return weights_of(content, path), () if may_name else None
    if len(named) != len(content):
        raise DataError(path, f"{len(content)} weights for {len(named)} names", "expected one for each")
    by_index = set(named) == {str(k) for k in range(len(named))}
    if by_index or (class_names and list(class_names) != named):
        return weights_by_name(list(zip(named, content, strict=True)), class_names, path), None
    return weights_of(content, path), tuple(named)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


_CLASS_HEADINGS = ("class", "class_name", "class_id", "label", "name", "category", "index", "id")


def _from_table(text: str, class_names: Sequence[str] | None, path: str) -> list[float]:
    """One weight a line; or a class and a weight a line; or all on one line, below the classes or alone."""
    rows = _rows(text, path)
    heading = rows[0] if _is_heading(rows) else None
    rows = rows if heading is None else rows[1:]
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise DataError(path, "lines of different lengths", "expected one weight a line, or a class and a weight")
    width = widths.pop()
    if width == 1 and (len(rows) > 1 or heading is None):
        return weights_of([row[0] for row in rows], path)
    if len(rows) == 1 and heading is not None and len(heading) == width > 2:
        skip = 0 if _is_number(rows[0][0]) else 1  # "count, 100, 600, 300" below "class, elk, cat, dog"
        return weights_by_name(list(zip(heading[skip:], rows[0][skip:], strict=True)), class_names, path)
    if width == 2 and (len(rows) > 1 or heading is not None):
        return _from_pairs(rows, heading, class_names, path)
    if len(rows) == 1 and heading is None:
        return weights_of(rows[0], path)
    raise DataError(path, f"{width} columns", "expected one weight a line, or a class and a weight")


def _from_pairs(
    rows: list[list[str]], heading: list[str] | None, class_names: Sequence[str] | None, path: str
) -> list[float]:
    """Two columns: a class and a weight, the other way round where the heading says so, or two classes side by side."""
    if heading is not None and len(rows) == 1 and len(heading) == 2:
        return weights_by_name(list(zip(heading, rows[0], strict=True)), class_names, path)
    last = -1 if heading is None or len(heading) != 2 else [cell.lower() in _CLASS_HEADINGS for cell in heading]
    if last == [False, True] or (not any(_is_number(row[1]) for row in rows) and _is_number(rows[0][0])):
        rows = [[row[1], row[0]] for row in rows]
    return weights_by_name([(row[0], row[1]) for row in rows], class_names, path)


def _rows(text: str, path: str) -> list[list[str]]:
    """Cells of the lines that have any."""
    delimiter = "\t" if "\t" in text else ","
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter)]
    except csv.Error as error:
        expected = "expected one weight a line, or a class and a weight"
        raise DataError(path, f"text that is not a table ({error})", expected) from None
    rows = [row for row in rows if any(row)]
    if not rows or (len(rows) == 1 and not _is_number(rows[0][-1])):
        raise DataError(path, "lines of different lengths", "expected one weight a line, or a class and a weight")
    return rows


def _is_heading(rows: list[list[str]]) -> bool:
    """Whether the first line holds no weights: words, or the indices of the classes above their weights."""
    first, rest = rows[0], rows[1:]
    if not _is_number(first[-1]):
        return not _is_number(first[0]) or any(_is_number(row[-1]) for row in rest)
    indices = {str(k) for k in range(len(first))}
    is_pairs = len(first) == 2 and {row[0] for row in rows} == indices
    return len(rest) == 1 and len(first) > 1 and set(first) == indices and not is_pairs


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
