"""Functions that people call from Python: keywords known by their annotations, values taken as people have them.

A command's function hears of numpy integers, arrays of class counts, pandas series, tensors and paths. `public` turns
them into what the tasks compare and store: plain numbers, text, tuples and mappings. Scores, labels and factors of
every sample (`KEPT`) are arrays and stay what they are.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from unoic_cli.errors import DataError, UsageError
from unoic_cli.options import Keyword, options_of, own_first

if TYPE_CHECKING:
    from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")

KEPT = ("inputs", "scores", "labels", "delta", "passes", "input_images")
"""Arguments that may hold one number for each sample."""
_TEXTS = {"str", "os.PathLike[str]", "Absent", "Emit", "Kind", "Order", "Unseen"}
_OTHERWISE = {
    "inputs": ("logits", "scores", "probs", "files", "path", "x"),
    "labels": ("y", "target", "targets", "y_true"),
    "lam": ("lambda", "lmbda", "lmbd"),
    "source_prior": ("prior", "priors", "train_prior", "train_counts", "source_counts", "counts"),
    "output": ("out", "o", "output_file"),
}
"""What else people call an argument."""
_NONE = {"None"}
_SINGLE = ({"bool"}, {"int"}, {"float"})
_OPTIONS = "Unpack["


class ArgumentError(UsageError, TypeError):
    """An argument of a function that it does not know, or of a type that it cannot use."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like another one, if one is.

    Examples
    --------
    >>> nearest("source_priors", ["source_prior", "target_prior"])
    'source_prior'
    """
    folded = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def public(function: Callable[P, R]) -> Callable[P, R]:
    """A function that knows its keywords and takes their values as people have them.

    Its signature is the same, and names the options of ``**options: Unpack[...]`` one by one, as its docstring does.

    Raises
    ------
    ArgumentError
        When called: an unknown keyword (the nearest one is named), or a value of another type.
    """
    signature, known = signature_of(function), annotations_of(function)
    taken = [name for name, one in signature.parameters.items() if one.kind is one.VAR_KEYWORD]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check_names(function.__name__, kwargs, known)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(f"{function.__name__}()", str(error), f"expected {_usage(function)}") from None
        given = {name: value for name, value in bound.arguments.items() if name not in taken}
        for options in taken:
            bound.arguments[options] = plain_arguments(bound.arguments.get(options, {}), known)
        bound.arguments.update(plain_arguments(given, known))
        return function(*bound.args, **bound.kwargs)

    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__doc__ = described(inspect.getdoc(function) or "", keywords_of(function))
    return call


def check_names(function: str, given: Iterable[str], known: Mapping[str, str]) -> None:
    """Refuse keywords that a function does not know.

    Raises
    ------
    ArgumentError
        It names the one that was probably meant.
    """
    for name in given:
        if name not in known and "**" not in known:
            near = _meant(name, known) or nearest(name, known)
            expected = f"did you mean {near}?" if near else f"expected some of {', '.join(known)}"
            raise ArgumentError(name, f"no argument of {function}", expected)


def _meant(name: str, known: Iterable[str]) -> str | None:
    folded = name.casefold().strip("_")
    return next((one for one in known if folded in _OTHERWISE.get(one, ())), None)


def _usage(function: Callable[..., Any]) -> str:
    parameters = signature_of(function).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    return f"{function.__name__}({', '.join(needed)}, ...), and all else by keyword"


def keywords_of(function: Callable[..., Any]) -> Mapping[str, Keyword]:
    """The options of a function with ``**options: Unpack[...]``, as its TypedDict says them."""
    function = inspect.unwrap(function)
    for parameter in inspect.signature(function).parameters.values():
        annotation = parameter.annotation
        if parameter.kind is parameter.VAR_KEYWORD and str(annotation).startswith(_OPTIONS):
            text = annotation.removeprefix(_OPTIONS).rstrip("]")
            own, inherited = own_first(function.__globals__[text])
            return {one.name: one for one in (*own, *inherited)}
    return {}


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function, with its options one by one."""
    signature, keywords = inspect.signature(function), keywords_of(function)
    kept = [one for one in signature.parameters.values() if not (keywords and one.kind is one.VAR_KEYWORD)]
    kind = inspect.Parameter.KEYWORD_ONLY
    more = [
        inspect.Parameter(one.name, kind, default=one.default, annotation=one.type)
        for one in keywords.values()
        if one.name not in signature.parameters
    ]
    return signature.replace(parameters=[*kept, *more])


def annotations_of(function: Callable[..., Any]) -> dict[str, str]:
    """The text of each keyword's annotation; ``**`` stands for any other."""
    parameters = signature_of(function).parameters.values()
    return {"**" if one.kind is one.VAR_KEYWORD else one.name: str(one.annotation) for one in parameters}


def described(text: str, keywords: Mapping[str, Keyword]) -> str:
    """A docstring that has an entry of its own for each of these options, where it speaks of ``**options``."""
    named = {one.option.flag: one.name for one in keywords.values() if one.option.flags}
    entries = "\n".join(_entry(one, named) for one in keywords.values())
    return re.sub(r"^\*\*options.*(\n    .*)*", lambda _: entries, text, flags=re.MULTILINE) if entries else text


def documented(kind: type[R]) -> type[R]:
    """A class whose docstring has its options one by one."""
    kind.__doc__ = described(inspect.getdoc(kind) or "", options_of(cast(Any, kind)))
    return kind


def _entry(keyword: Keyword, named: Mapping[str, str]) -> str:
    """An option as numpydoc has it; others are called by their keywords."""
    default = ", optional" if keyword.default in (None, ()) else f", default {keyword.default!r}"
    text = re.sub(r" \((repeatable|-o)\)", "", keyword.option.help)
    text = re.sub(r"--[a-z][a-z-]*", lambda flag: named.get(flag[0], flag[0][2:].replace("-", "_")), text)
    wrapped = textwrap.fill(text, 116, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    return f"{keyword.name} : {keyword.takes}{default}\n{wrapped}"


def plain_arguments(given: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """Values as tasks compare and store them, by the annotations of their keywords.

    Examples
    --------
    >>> import numpy as np
    >>> plain_arguments({"folds": np.int64(3), "source_prior": np.array([5, 1])}, {"folds": "int | None"})
    {'folds': 3, 'source_prior': [5, 1]}
    """
    return {name: _converted(name, value, known.get(name, "Any")) for name, value in given.items()}


def _converted(name: str, value: Any, annotation: str) -> Any:
    if name == "inputs" and isinstance(value, Iterator):
        return list(value)
    kinds = {part.strip() for part in annotation.split(" | ")} - _NONE
    if value is None and "None" not in annotation and (kinds <= _TEXTS or kinds in _SINGLE or "Sequence[str]" in kinds):
        raise _unfit(name, value, "a value")
    if value is None or "ArrayLike" in kinds or (name in KEPT and not kinds <= _TEXTS):
        return value
    value = plain(getattr(value, "calibration", value) if name == "calibration" else value, name)  # a result has one
    if kinds == {"bool"} and not isinstance(value, bool):
        raise _unfit(name, value, "True or False")
    if kinds == {"int"} and (isinstance(value, bool) or not isinstance(value, int)):
        raise _unfit(name, value, "a whole number")
    if kinds == {"float"} and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise _unfit(name, value, "a number")
    if kinds == {"Sequence[int]"}:
        values = [value] if isinstance(value, int) else value
        if not isinstance(values, (list, tuple)) or not all(isinstance(one, int) for one in values):
            raise _unfit(name, value, "whole numbers")
        return tuple(values)
    if "Sequence[str]" in kinds:
        return _texts(name, value, kinds)
    if kinds and kinds <= _TEXTS and not isinstance(value, str):
        raise _unfit(name, value, "text" if "os.PathLike[str]" not in kinds else "the name of a file")
    return value


def _texts(name: str, value: Any, kinds: set[str]) -> Any:
    """Several texts; one alone is a sequence of one, where it means nothing else."""
    if (isinstance(value, str) and "str" in kinds) or (isinstance(value, Mapping) and "Mapping[str, Any]" in kinds):
        return value
    if isinstance(value, (str, os.PathLike)):
        return (os.fspath(value),)
    texts = plain(list(value), name) if isinstance(value, (Iterator, KeysView)) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(one, str) for one in texts):
        raise _unfit(name, value, "text, or a list of texts")
    return texts


def _unfit(name: str, value: Any, expected: str) -> ArgumentError:
    text = repr(value)
    return ArgumentError(name, text if len(text) <= 60 else f"a {type(value).__name__}", f"expected {expected}")


def plain(value: Any, name: str) -> Any:
    """Numbers of numpy, arrays, series, tensors and paths as numbers, lists, mappings and text; all else as it is.

    Raises
    ------
    UnoicError
        An array that cannot be looked at.

    Examples
    --------
    >>> import numpy as np
    >>> plain({"rgb": np.array([3, 1]), "depth": (np.float64(0.5), 1)}, "source_prior")
    {'rgb': [3, 1], 'depth': (0.5, 1)}
    """
    if isinstance(value, (str, bool, int, float)) and type(value).__module__ == "builtins":
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {plain(key, name): plain(item, name) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(item, name) for item in value)
    if isinstance(value, (set, frozenset)):
        raise ArgumentError(name, "a set, which has no order", "expected a list")
    if hasattr(value, "to_dict") and hasattr(value, "index") and hasattr(value, "__array__") and value.ndim == 1:
        return plain(_by_index(value, name), name)
    if hasattr(value, "__array__"):
        return as_array(value, name).tolist()
    return value


def as_array(values: Any, where: str) -> NDArray[Any]:
    """An array of whatever can be one.

    Tensors that need a gradient or lie on a device are taken from there by their own methods (``detach``, ``cpu``),
    bfloat16 as float32; no framework is imported.

    Raises
    ------
    DataError
        It cannot: rows of different lengths, or a tensor that is not in the memory of the processor.
    """
    import numpy as np

    try:
        if not isinstance(values, np.ndarray):
            for name in ("detach", "cpu"):
                if callable(getattr(values, name, None)):
                    values = getattr(values, name)()
            if "bfloat16" in str(getattr(values, "dtype", "")) and callable(getattr(values, "float", None)):
                values = values.float()
        array = np.asarray(values)
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    except Exception as error:  # whatever a library's own arrays raise
        found = f"a {type(values).__name__} that cannot be read as an array ({error})"
        raise DataError(
            where,
            found,
            "expected an array in the memory of the processor, of one shape (images of several sizes: one by one)",
        ) from None


def _by_index(series: Any, name: str) -> dict[Any, Any]:
    """A series by its index: `value_counts` puts the most frequent class first, not class 0."""
    found = dict(series.to_dict())
    if len(found) != len(series):
        raise ArgumentError(name, "a series with an index twice", "expected one value for each class")
    return found
