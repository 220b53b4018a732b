"""What results look like in a Python session: a handful of lines with the key figures, never a dump of arrays."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from typing import Any

_WIDTH = 100
_ITEMS = 6
"""Entries of a sequence or mapping that are shown."""
_LETTERS = 60
_ASIDE = ("details", "curve", "counts", "gained", "lost", "gain", "choice")
"""What is there for those who look closer."""


def brief(thing: Any) -> str:
    """The `repr` of a result: use as ``__repr__ = brief`` in a dataclass.

    Examples
    --------
    >>> import numpy as np
    >>> @dataclasses.dataclass
    ... class Found:
    ...     lam: float
    ...     scores: object
    ...     groups: object = None
    ...     __repr__ = brief
    >>> Found(1.0299999999, np.zeros((201, 4)))
    Found(lam=1.03, scores=<(201, 4) float64>)
    """
    fields = [(field.name, getattr(thing, field.name)) for field in dataclasses.fields(thing) if field.repr]
    parts = [f"{name}={short(value)}" for name, value in fields if not (_is_aside(name, value) or _says_nothing(value))]
    text = f"{type(thing).__name__}({', '.join(parts)})"
    return wrapped(text)


def wrapped(text: str) -> str:
    """Lines of a width that sessions have."""
    lines = textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def _is_aside(name: str, value: Any) -> bool:
    inner = value[0] if isinstance(value, tuple) and value else value
    return name in _ASIDE and (isinstance(inner, Mapping) or dataclasses.is_dataclass(inner))


def _says_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, (str, tuple, list, dict, frozenset)) and not value)


def short(value: Any, depth: int = 0) -> str:
    """A value in a few words.

    Examples
    --------
    >>> short({"macc": 0.8313999, "n": 350}), short(tuple(range(1000)))
    ("{'macc': 0.8314, 'n': 350}", '(0, 1, 2, 3, 4, 5, ... 1,000 in all)')
    """
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, str):
        return repr(value if len(value) <= _LETTERS else value[: _LETTERS - 4] + " ...")
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{value.shape} {value.dtype}>"
    if dataclasses.is_dataclass(value):
        name = getattr(value, "name", "")
        return f"<{type(value).__name__}{f' {name}' if name else ''}>" if depth else _head(value)
    if depth and isinstance(value, Mapping) and "code" in value:  # a warning
        return repr(value["code"])
    if depth > 1 and isinstance(value, (Mapping, tuple, list)) and value:
        return f"<{len(value)} entries>"
    if isinstance(value, Mapping):
        return _listed([f"{key!r}: {short(item, depth + 1)}" for key, item in _first(value.items())], "{}", len(value))
    if isinstance(value, (tuple, list, frozenset)):
        items = sorted(value) if isinstance(value, frozenset) else value
        brackets = {tuple: "()", list: "[]"}.get(type(value), "{}")
        return _listed([short(item, depth + 1) for item in _first(items)], brackets, len(value))
    text = repr(value)
    return text if len(text) <= _LETTERS and "\n" not in text else f"<{type(value).__name__}>"


def _first(items: Any) -> list[Any]:
    return [item for _, item in zip(range(_ITEMS), items, strict=False)]


def _listed(parts: list[str], brackets: str, size: int) -> str:
    more = f", ... {size:,} in all" if size > len(parts) else ("," if brackets == "()" and size == 1 else "")
    return f"{brackets[0]}{', '.join(parts)}{more}{brackets[1]}"


def _head(value: Any) -> str:
    """A dataclass inside another: its name, and what of it are numbers and short text."""
    fields = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr]
    parts = [f"{name}={short(one)}" for name, one in fields if isinstance(one, (int, float, str))]
    parts += [f"{name}={short(one, 1)}" for name, one in fields if hasattr(one, "shape") or name == "values"]
    return f"{type(value).__name__}({', '.join(parts[:_ITEMS])})"
