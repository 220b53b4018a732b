"""What results look like in Python: a few lines with the key figures in a session, a small table in a notebook."""

from __future__ import annotations

import dataclasses
import functools
import html
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from unoic_cli.errors import printable

T = TypeVar("T")

_WIDTH = 100
MOST_LINES = 5
_ROWS = 10
"""Of a table in a notebook."""
_ITEMS = 6
"""Entries of a sequence or mapping that are shown."""
_LETTERS = 60
_CELL = 1000
_ASIDE = ("details", "curve", "counts", "gained", "lost", "gain", "choice", "fitted")
"""What is there for those who look closer."""
_LAST = ("files", "split", "notes", "warnings")
"""What there is in every result."""


def detached(to_dict: Callable[[T], dict[str, Any]]) -> Callable[[T], dict[str, Any]]:
    """Let the dict of a result be the caller's own: whatever is done to it, the result stays as it is.

    Examples
    --------
    >>> class Found:
    ...     files = ["a.h5"]
    ...
    ...     @detached
    ...     def to_dict(self):
    ...         return {"files": self.files}
    >>> Found().to_dict()["files"].append("b.h5")
    >>> Found().to_dict()
    {'files': ['a.h5']}
    """

    @functools.wraps(to_dict)
    def own(result: T) -> dict[str, Any]:
        return {name: _own(value) for name, value in to_dict(result).items()}

    return own


def _own(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _own(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_own, value)) if type(value) in (list, tuple) else value
    return value


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
    parts = [f"{name}={text}" for name, text in _parts(thing)]
    return wrapped(f"{type(thing).__name__}({', '.join(parts)})")


def _parts(thing: Any) -> list[tuple[str, str]]:
    """What there is to say of a dataclass: names of fields, and their values in a few words."""
    fields = [(field.name, getattr(thing, field.name)) for field in dataclasses.fields(thing) if field.repr]
    fields.sort(key=lambda field: field[0] in _LAST)
    return [(name, short(value)) for name, value in fields if not (_is_aside(name, value) or _says_nothing(value))]


def wrapped(text: str) -> str:
    """A few lines of a width that sessions have; what is left over is cut."""
    lines = textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1][: _WIDTH - 5].rstrip(' ,')} ...)"]
    return "\n".join(lines)


def in_html(thing: Any) -> str:
    """What a notebook shows of a result: use as ``_repr_html_ = in_html`` in a dataclass.

    Below what `brief` says stand the first rows of ``thing.glance()``, where there is one: a mapping of columns.

    Examples
    --------
    >>> @dataclasses.dataclass
    ... class Found:
    ...     name: str
    >>> in_html(Found("<b>"))
    '<table><caption>Found</caption><tr><th>name</th><td>&#x27;&lt;b&gt;&#x27;</td></tr></table>'
    """
    facts = [f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in _parts(thing)]
    table = f"<table><caption>{_text(type(thing).__name__)}</caption>{''.join(facts)}</table>"
    glance = getattr(thing, "glance", None)
    return table if glance is None else table + table_html(glance())


def table_html(columns: Mapping[str, Sequence[Any]], caption: str = "") -> str:
    """The first rows of columns, as a notebook shows them.

    Examples
    --------
    >>> table_html({"class": ["<i>"], "recall": [None]})
    '<table><tr><th>class</th><th>recall</th></tr><tr><td>&lt;i&gt;</td><td></td></tr></table>'
    """
    if not columns:
        return ""
    above = f"<caption>{_text(caption)}</caption>" if caption else ""
    head = "".join(f"<th>{_text(name)}</th>" for name in columns)
    lines = list(zip(*columns.values(), strict=True))
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in line)}</tr>" for line in lines[:_ROWS])
    more = f"<tr><td>... {len(lines):,} in all</td></tr>" if len(lines) > _ROWS else ""
    return f"<table>{above}<tr>{head}</tr>{body}{more}</table>"


def _cell(value: Any) -> str:
    return "" if value is None else _text(value if isinstance(value, str) else short(value))


def _text(value: str) -> str:
    """Text as a notebook shows it, and nothing that it obeys."""
    cut = value if len(value) <= _CELL else f"{value[:_CELL]} ..."
    return html.escape(printable(cut))


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
    if hasattr(value, "_fields"):  # a named tuple
        return (
            f"{type(value).__name__}({', '.join(f'{name}={short(getattr(value, name), 2)}' for name in value._fields)})"
        )
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
