"""Tables on a terminal, or where one is asked for: names from files never reach it as they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from unoic_cli.errors import printable


class _SafeConsole(Console):
    """A console that escapes all text which it is given; what it sends of its own, like colours, stays."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Cells that are strings, when they are measured and when they are drawn."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever else holds text."""
        if isinstance(renderable, Text) and not renderable.plain.isprintable():
            safe = printable(renderable.plain, keep="\n")
            if safe != renderable.plain:
                renderable = Text(safe, renderable.style, justify=renderable.justify, overflow=renderable.overflow)
        return super().render(renderable, options)


def print_table(table: RenderableType) -> None:
    """Print on stdout; a file gets lines of 160 characters, as it does not wrap."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    _SafeConsole(highlight=False, markup=False, emoji=False, width=width).print(table, crop=False)
