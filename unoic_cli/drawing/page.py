"""What a picture may be: its forms, and how wide it is."""

from __future__ import annotations

import os

from unoic_cli.errors import UsageError

FORMS = ("pdf", "svg", "png")
SIZES = {"column": 3.3, "page": 6.9}
"""Widths in inches: a column of two, and both."""


def form_of(output: str) -> str:
    """The form of a picture, by the suffix of its name.

    Raises
    ------
    UsageError
        Another suffix, or none.

    Examples
    --------
    >>> form_of("figures/curve.PDF")
    'pdf'
    """
    suffix = os.path.splitext(output)[1].lower().removeprefix(".")
    if suffix not in FORMS:
        raise UsageError("--output", f"{output!r}", "expected a name that ends with .pdf, .svg or .png")
    return suffix


def check_size(size: str) -> None:
    """Refuse widths that are unknown.

    Raises
    ------
    UsageError
        It is none of `SIZES`.
    """
    if size not in SIZES:
        raise UsageError("--size", f"{size!r}", f"expected {' or '.join(SIZES)}")
