"""Search results as pictures need them: read from what `search-lambda` printed, a state, or a result in memory."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli import formats
from unoic_cli.calibrations.lattice import LARGEST
from unoic_cli.errors import DataError, UnoicError, UsageError
from unoic_cli.metrics import find
from unoic_cli.plots.look import MOST_LINES, label_of
from unoic_cli.resolve import inputs as inputs_module
from unoic_cli.runs import state
from unoic_cli.schemas import SCHEMAS, check_schema
from unoic_cli.searches.choice import Constraint, parse_constraints
from unoic_cli.storage.whole import MOST_BYTES, read_whole

EXPECTED = "expected a result of unoic search-lambda (--format json), or a state of it"
_MAKE = "expected the result of a search on it: unoic search-lambda FILE --format json > run.json"
_IN_MEMORY = "result"
_STANDARD = formats.STANDARD
_MOST = 1e12
"""What no metric reaches."""


@dataclass(frozen=True)
class SearchRun:
    """One search for lambda.

    Attributes
    ----------
    name : str
        What the picture calls it; empty where nobody named a single one.
    where : str
        Where it came from, for messages.
    lam : float
        The chosen lambda.
    metric : str
        The goal.
    lams : (G,) float64
        Lambdas of the curve, rising.
    curve : dict of str to (G,) float64
        Metrics at every lambda; NaN where there is none.
    baseline : dict of str to float
        Metrics of the scores as they are.
    interval : tuple of float or None
        First and last lambda that are as good as the best within one standard error.
    constraints : tuple of Constraint
        What lambda is subject to.
    n_classes : int
        K; 0 where it is not said.
    class_names : tuple of str or None
    offsets : bool
        The calibration has fitted offsets, too; the curve has none.
    """

    name: str
    where: str
    lam: float
    metric: str
    lams: NDArray[np.float64]
    curve: dict[str, NDArray[np.float64]]
    baseline: dict[str, float]
    interval: tuple[float, float] | None = None
    constraints: tuple[Constraint, ...] = ()
    n_classes: int = 0
    class_names: tuple[str, ...] | None = field(default=None, repr=False)
    offsets: bool = False

    def named(self, name: str, option: str = "--metric") -> str:
        """The metric of the curve that a name stands for.

        Raises
        ------
        UsageError
            The curve has no such metric; the message lists those that it has.
        """
        if name in self.curve:
            return name
        try:
            found = find(name, option, self.n_classes, self.class_names).name
        except UnoicError:
            found = ""
        if found in self.curve:
            return found
        raise UsageError(option, f"{name!r}, which the curve of {self.where} lacks", f"expected {self._listed()}")

    def _listed(self) -> str:
        return (
            f"one of {', '.join(self.curve)} (search-lambda --metrics adds other metrics of decisions; those of "
            "probabilities have a curve as --metric alone)"
        )

    def at(self, metric: str, lam: float) -> float:
        """The value of a metric at a lambda, between its neighbours where it is no point of the curve."""
        known = np.isfinite(self.curve[metric])
        inside = known.any() and self.lams[known][0] <= lam <= self.lams[known][-1]
        return float(np.interp(lam, self.lams[known], self.curve[metric][known])) if inside else math.nan

    def bound(self, constraint: Constraint) -> float:
        """What a constraint compares its metric with; NaN where it is relative to a baseline that is not known."""
        return constraint.value + (self.baseline.get(constraint.metric.name, math.nan) if constraint.relative else 0.0)

    def forbidden(self, constraint: Constraint) -> NDArray[np.bool_]:
        """Lambdas of the curve, (G,), that a constraint rules out; none where its metric is not in the curve."""
        values, bound = self.curve.get(constraint.metric.name), self.bound(constraint)
        if values is None or not math.isfinite(bound):
            return np.zeros(self.lams.shape, dtype=np.bool_)
        base = Fraction(bound) - Fraction(repr(constraint.value)) if constraint.relative else None
        nowhere = np.full(self.lams.shape, -1.0)  # no value is told from the bound by fractions, which are not known
        return np.isfinite(values) & ~constraint.holds(values, base, nowhere, lambda i: None)


def runs_of(result: Any) -> tuple[SearchRun, ...]:
    """Search results in whatever form people have them.

    Parameters
    ----------
    result : SearchResult, its dict, path, or several of these
        As a list, or a mapping by the name of the run. A path is of printed JSON, or of a state; ``-`` is standard
        input, and ``NAME=FILE`` names a run.

    Raises
    ------
    UnoicError
        What is there is no search result, or two runs have one name.

    Examples
    --------
    >>> content = {"lambda": 0.5, "metric": "miou", "curve": {"lambda": [0, 1], "miou": [0.2, 0.3]}, "baseline": {}}
    >>> [run.name for run in runs_of({"CE": content, "focal": content})]
    ['CE', 'focal']
    """
    _check_standard(result)
    if isinstance(result, Mapping) and not _is_result(result):
        found = [_run(str(name), one) for name, one in result.items()]
    elif isinstance(result, (list, tuple)):
        found = [run for one in result for run in _unnamed(one)]
    else:
        found = list(_unnamed(result))
    if not found:
        raise UsageError("INPUTS", "no search result", EXPECTED)
    if len(found) > MOST_LINES:
        raise UsageError("INPUTS", f"{len(found)} runs", f"expected {MOST_LINES} at most, to be told apart")
    names = [run.name for run in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError("INPUTS", f"two runs called {twice!r}", "expected names that differ: NAME=FILE")
    return tuple(found)


def _check_standard(result: Any) -> None:
    """Refuse standard input twice."""
    texts = [one for one in result if isinstance(one, str)] if isinstance(result, (list, tuple)) else []
    if sum(text == _STANDARD or text.endswith(f"={_STANDARD}") for text in texts) > 1:
        raise UsageError(_STANDARD, "standard input twice", "expected it once: it can be read only once")


def _is_result(content: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a result, or what claims to be one, and not several by name."""
    return not {"schema", "curve", "lambda", "format"}.isdisjoint(content)


def _unnamed(one: Any) -> Iterable[SearchRun]:
    if isinstance(one, (str, os.PathLike)):
        return [_run(name, path) for name, path in named_files([os.fspath(one)])]
    return [_run("", one)]


def _run(name: str, one: Any) -> SearchRun:
    if isinstance(one, (str, os.PathLike)):
        return parsed(name, content_of(os.fspath(one)), os.fspath(one))
    content = one.to_dict() if hasattr(one, "to_dict") else one
    return parsed(name, content, name or _IN_MEMORY)


def named_files(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Names of runs and their files, of patterns and lists too.

    Raises
    ------
    UsageError
        A name for several files, or none.

    Examples
    --------
    >>> named_files(["UNO-IC (ours)=a.json", "runs/focal.json"])
    [('UNO-IC (ours)', 'a.json'), ('focal', 'runs/focal.json')]
    """
    found = []
    for text in texts:
        name, mark, path = ("", "", text) if os.path.exists(text) else text.rpartition("=")
        paths = inputs_module.expanded([path])
        if mark and (not name or len(paths) != 1):
            raise UsageError(text, f"{len(paths)} files called {name!r}", "expected one file for a name: NAME=FILE")
        found += [(name or _stem(one), one) for one in paths]
    return found


def _stem(path: str) -> str:
    return "stdin" if path == _STANDARD else PurePath(path).stem


def content_of(path: str, expected: str = EXPECTED) -> Any:
    """What a file (or standard input) holds: JSON, or the result of a search from its state.

    Raises
    ------
    UnoicError
        It cannot be read, or holds something else.
    """
    found = _content(path, expected, _MAKE, ("search-lambda",), EXPECTED)
    return found.to_dict() if hasattr(found, "to_dict") else found


def _content(path: str, expected: str, make: str, commands: Sequence[str], stated: str) -> Any:
    """JSON, or the result of a state."""
    content = _standard(expected) if path == _STANDARD else read_whole(path, expected, most=4 * MOST_BYTES)
    if content.startswith(state.MAGIC):
        return _of_state(path, stated, commands)
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _no_json(path, content, expected, make) from None


@dataclass(frozen=True)
class Result:
    """The one result that a picture is drawn from.

    Attributes
    ----------
    where : str
        Where it came from, for messages.
    content : mapping
        Its JSON.
    made : object or None
        The result itself, which may know more; None where its JSON is all there is.
    """

    where: str
    content: Mapping[str, Any]
    made: Any = field(default=None, repr=False)


def result_of(inputs: Any, kind: str, schemas: Mapping[str, str]) -> Result:
    """The one result that was given: in memory, its dict, or the path of printed JSON or of a state.

    Parameters
    ----------
    inputs : result, dict, path, or a sequence of one of these
    kind : str
        Of the plot, for messages.
    schemas : mapping of str to str
        Classes of results that will do, and how to make each, for messages.

    Raises
    ------
    UnoicError
        There is none, or several; or it is of another command.
    """
    commands = [SCHEMAS[name].removeprefix("unoic.").partition("/")[0] for name in schemas]
    make = "expected a result of " + " or of ".join(schemas.values())
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if len(given) == 1 and isinstance(given[0], (str, os.PathLike)):
        text = os.fspath(given[0])
        path = text if text == _STANDARD else inputs_module.single(text, inputs_module.expanded([text]))
        given, where = [_content(path, make, make, commands, make)], path
    else:
        where = _IN_MEMORY
    if len(given) != 1:
        raise UsageError("INPUTS", f"{len(given)} inputs of a plot of {kind}", make)
    made = given[0] if hasattr(given[0], "to_dict") else None
    content = given[0] if made is None else made.to_dict()
    if not isinstance(content, Mapping):
        raise DataError(where, f"JSON that is a {type(content).__name__}", make)
    stated = content.get("schema") if made is None else SCHEMAS.get(type(made).__name__)
    command = str(stated).removeprefix("unoic.").partition("/")[0]
    if made is None:
        check_schema(dict(content), where)
    if isinstance(stated, str) and stated in SCHEMAS.values() and command not in commands:
        raise DataError(where, f"a result of unoic {command}", make)
    return Result(where, content, made)


def _standard(expected: str) -> bytes:
    """Standard input, of a bounded size."""
    stream: Any = getattr(sys.stdin, "buffer", None)
    content: bytes = b"" if stream is None else stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DataError(_STANDARD, f"more than {MOST_BYTES:,} bytes", expected)
    return content


def _of_state(path: str, expected: str, commands: Sequence[str]) -> Any:
    from unoic_cli.api.stored import report_states

    if path == _STANDARD:
        raise DataError(path, "a state on standard input", "expected the name of its file")
    command, result = report_states([path])
    if command not in commands:
        raise DataError(path, f"a state of unoic {command}", expected)
    return result


def _no_json(path: str, content: bytes, expected: str, make: str) -> UnoicError:
    """The error for what is no JSON: a logits file is told from other things."""
    if path != _STANDARD:
        try:
            kind = formats.detect(path)
        except UnoicError:
            kind = "csv"
        if kind != "csv":
            return DataError(path, f"a logits file ({kind})", make)
    return DataError(path, "an empty file" if not content else "not JSON", expected)


# ------------------------------------------------------------------------------------------------
# what JSON must hold


def parsed(name: str, content: Any, where: str) -> SearchRun:
    """A run from the JSON of `search-lambda`.

    Raises
    ------
    DataError
        JSON of another kind, or entries that make no sense.
    """
    _check_kind(content, where)
    curve = content["curve"]
    lams = numbers_of(curve.get("lambda"), where, "curve.lambda")
    if not (np.isfinite(lams).all() and (np.diff(lams) > 0).all() and np.abs(lams).max(initial=0) <= LARGEST):
        expected = f"expected lambdas in order, none twice, between -{LARGEST} and {LARGEST}"
        raise DataError(where, "curve.lambda that does not rise", expected)
    if lams.size < 2:
        raise DataError(where, f"a curve of {lams.size} lambda", "expected a search over a range (without --lambda)")
    n_classes, names = _classes(content)
    found = SearchRun(
        name=label_of(name),
        where=where,
        lam=number_of(content.get("lambda"), where, "lambda"),
        metric=_text(content.get("metric"), where, "metric"),
        lams=lams,
        curve=_metrics(curve, lams.size, where),
        baseline=_values(content.get("baseline"), where),
        interval=_interval(content.get("choice"), where),
        constraints=_constraints(content.get("subject_to"), n_classes, names, where),
        n_classes=n_classes,
        class_names=names,
        offsets=content.get("offsets") is not None,
    )
    if found.metric not in found.curve:
        raise DataError(where, f"a curve without its metric {found.metric!r}", EXPECTED)
    return found


def _check_kind(content: Any, where: str) -> None:
    if not isinstance(content, Mapping):
        raise DataError(where, f"JSON that is a {type(content).__name__}", EXPECTED)
    check_schema(dict(content), where)
    stated = content.get("schema")
    if isinstance(stated, str) and stated in SCHEMAS.values() and stated != SCHEMAS["SearchResult"]:
        command = stated.removeprefix("unoic.").partition("/")[0]
        raise DataError(where, f"a result of unoic {command}", EXPECTED)
    if content.get("format") == "unoic calibration":
        raise DataError(where, "a calibration, which has no curve", EXPECTED)
    if not isinstance(content.get("curve"), Mapping):
        raise DataError(where, "JSON without a curve", EXPECTED)


def _metrics(curve: Mapping[Any, Any], size: int, where: str) -> dict[str, NDArray[np.float64]]:
    """The metrics of a curve that are known ones."""
    found = {}
    for name, values in curve.items():
        if name != "lambda" and _is_metric(name):
            found[name] = numbers_of(values, where, f"curve.{name}")
            if found[name].size != size:
                wrong = f"curve.{name} of {found[name].size} values"
                raise DataError(where, wrong, f"expected {size}, one for each lambda")
    return found


def _is_metric(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    try:
        return "[" in name or find(name, "").name == name
    except UnoicError:
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number_of(value: Any, where: str, what: str) -> float:
    """A finite number."""
    try:
        if _is_number(value) and abs(value) <= LARGEST:
            return float(value)
    except OverflowError:
        pass
    raise DataError(where, f"{what}: {_shown(value)}", f"expected a number between -{LARGEST} and {LARGEST}")


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value) if _is_number(value) else f"a {type(value).__name__}"


def numbers_of(values: Any, where: str, what: str) -> NDArray[np.float64]:
    """A list of numbers; NaN where there is none."""
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(plain, (list, tuple)):
        raise DataError(where, f"{what}: {_shown(plain)}", "expected a list of numbers")
    wrong = next((i for i, value in enumerate(plain) if not (value is None or _is_number(value))), None)
    if wrong is not None:
        raise DataError(where, f"{what}: {_shown(plain[wrong])} at entry {wrong}", "expected numbers, or null")
    try:
        found = np.array([math.nan if value is None else float(value) for value in plain])
    except OverflowError:
        raise DataError(where, f"{what}: a number beyond any float", "expected numbers, or null") from None
    if np.abs(found[np.isfinite(found)]).max(initial=0) > _MOST:
        raise DataError(where, f"{what}: a number beyond {_MOST:g}", "expected values of a metric")
    return np.where(np.isfinite(found), found, np.nan)


def integers(values: Any, where: str, what: str, n: int | None = None) -> NDArray[np.int64]:
    """A list of counts, none negative; of n entries.

    Raises
    ------
    DataError
        It is none.

    Examples
    --------
    >>> integers([1, 0], "x.json", "counts").tolist()
    [1, 0]
    """
    expected = f"expected a list of {'' if n is None else f'{n} '}counts"
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(plain, (list, tuple)) or (n is not None and len(plain) != n):
        found = f"{len(plain)} entries" if isinstance(plain, (list, tuple)) else _shown(plain)
        raise DataError(where, f"{what}: {found}", expected)
    for i, value in enumerate(plain):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
            raise DataError(where, f"{what}: {_shown(value)} at entry {i}", expected)
    return np.array(plain, dtype=np.int64)


def _text(value: Any, where: str, what: str) -> str:
    if not isinstance(value, str):
        raise DataError(where, f"{what}: {_shown(value)}", "expected text")
    return value


def _values(values: Any, where: str) -> dict[str, float]:
    """Metrics by name, those that have a value."""
    if not isinstance(values, Mapping):
        return {}
    there = {str(name): value for name, value in values.items() if name != "lambda" and value is not None}
    found = {name: numbers_of([value], where, f"baseline.{name}")[0] for name, value in there.items()}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _interval(choice: Any, where: str) -> tuple[float, float] | None:
    """The lambdas that are as good as the best."""
    found = choice.get("interval") if isinstance(choice, Mapping) else None
    if found is None:
        return None
    if not isinstance(found, (list, tuple)) or len(found) != 2:
        raise DataError(where, "choice.interval: no pair", "expected two numbers")
    first, last = (number_of(value, where, "choice.interval") for value in found)
    return first, last


def _classes(content: Mapping[str, Any]) -> tuple[int, tuple[str, ...] | None]:
    """K and the class names, as far as they are said and make sense."""
    n_classes, calibration = content.get("n_classes"), content.get("calibration")
    names = calibration.get("class_names") if isinstance(calibration, Mapping) else None
    told = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    known = isinstance(n_classes, int) and not isinstance(n_classes, bool)
    return (n_classes if known and n_classes is not None else 0), (tuple(names) if told and names else None)


def _constraints(
    text: Any, n_classes: int, names: tuple[str, ...] | None, where: str
) -> tuple[Constraint, ...]:  # fmt: skip
    if text is None:
        return ()
    try:
        return parse_constraints(_text(text, where, "subject_to"), n_classes, names)
    except UsageError as error:
        raise DataError(where, f"subject_to: {error.found}", error.expected) from None
