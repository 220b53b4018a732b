"""The file: a frame, a style, a script, and the data, packed."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import sys
import zlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from unoic_cli.errors import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST = (1 << 31) - 1
"""Of a count that four bytes hold."""
_ALIGNED = 8


def document(title: str, content: dict[str, Any]) -> bytes:
    """A page; the same content gives the same bytes.

    Parameters
    ----------
    title : str
        Any text: it is shown as it is.
    content : dict
        What the script shows, as JSON has it; arrays in it become differences along their first axis, int32 where they
        are integers.

    Examples
    --------
    >>> made = document("a < b", {"tabs": []})
    >>> made.startswith(b"<!DOCTYPE html>"), b"<title>a &lt; b</title>" in made
    (True, True)
    """
    style, script = _part("page.css"), _part("page.js")
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    frame = _part("page.html")
    data = base64.b64encode(packed({"title": title, **content})).decode()
    filled = {"policy": policy, "title": html.escape(printable(title)), "style": style, "script": script, "data": data}
    for name, text in filled.items():
        frame = frame.replace(f"<!--{name}-->", text)
    return frame.encode()


def packed(content: dict[str, Any]) -> bytes:
    """JSON and arrays, compressed: four bytes that say how long the JSON is, the JSON, and the arrays.

    Examples
    --------
    >>> import numpy as np
    >>> raw = zlib.decompress(packed({"hits": np.array([[3, 4], [3, 5]])}), 31)
    >>> json.loads(raw[4 : 4 + int.from_bytes(raw[:4], "little")])
    {'hits': {'at': 0, 'shape': [2, 2], 'type': 'i4'}}
    >>> np.frombuffer(raw[-16:], "<i4").tolist()
    [3, 4, 0, 1]
    """
    arrays: list[bytes] = []
    text = json.dumps(_plain(content, arrays), separators=(",", ":")).encode()
    text += b" " * (-(4 + len(text)) % _ALIGNED)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)  # gzip without a date
    parts = [squeeze.compress(part) for part in (len(text).to_bytes(4, "little"), text, *arrays)]
    return b"".join([*parts, squeeze.flush()])


def _plain(value: Any, arrays: list[bytes]) -> Any:
    """Content for JSON, its arrays put aside."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _aside(value, arrays)
    if isinstance(value, dict):
        return {str(key): _plain(item, arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, arrays) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _aside(array: NDArray[Any], arrays: list[bytes]) -> dict[str, Any]:
    """Put an array aside, and say where it is."""
    import numpy as np

    kind = "f8"
    if array.dtype.kind in "iu":
        wide: NDArray[np.int64] = array.astype(np.int64)
        array = np.concatenate([wide[:1], wide[1:] - wide[:-1]])
        kind = "i4" if np.abs(wide).max(initial=0) <= LARGEST and np.abs(array).max(initial=0) <= LARGEST else "i8"
    content = np.ascontiguousarray(array).astype(f"<{kind}").tobytes()
    at = sum(map(len, arrays))
    arrays.append(content + bytes(-len(content) % _ALIGNED))
    return {"at": at, "shape": list(array.shape), "type": kind}


@cache
def _part(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
