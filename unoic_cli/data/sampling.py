"""Which rows of a source are looked at: by the source alone, so that all who look agree."""

from __future__ import annotations

from unoic_cli.formats.block import Source

ALL_ROWS = 1 << 16
"""Sources of no more rows than this are looked at whole, and so many rows of one that is passing by: its first."""
LEAST_ROWS = 1 << 14
"""Of larger ones, at least so many rows are."""
_WIDE = 8192
"""Bytes of a row that is cheap to look at beside all that is done with it: of such sources every row is."""
_CLOSER = 1 << 16
"""Scores of a source that are looked at more closely, about."""
_ITEM = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
_FEWEST = 512


def steps(source: Source) -> tuple[int, int]:
    """Every how many rows of a source one is looked at, and one more closely: by the source alone, so all agree.

    Examples
    --------
    >>> rows = Source("x", "arrays", 10**6, 10, (), "logits", "float32", "rows", frozenset())
    >>> steps(rows)
    (61, 122)
    """
    if source.passing:
        return 1, 1
    wide = source.n_classes * _ITEM[source.encoding]
    every = 1 if source.n_units <= ALL_ROWS else max(1, min(source.n_units // LEAST_ROWS, _WIDE // wide))
    every += 1 - every % 2  # not in step with the width of images
    closest = max(_FEWEST, _CLOSER // source.n_classes)
    return every, every * max(1, source.n_units // every // closest)


def looks_at_all(source: Source) -> bool:
    """Whether every row of a source is looked at."""
    return steps(source)[0] == 1
