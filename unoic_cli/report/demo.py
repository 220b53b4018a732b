"""What `demo` says between its commands, and in the end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unoic_cli.commands.demo import NEXT, WHAT
from unoic_cli.errors import printable

if TYPE_CHECKING:
    from unoic_cli.commands.demo import DemoResult


def heading(words: Sequence[str]) -> str:
    """What a command is for, and itself, to be copied.

    Examples
    --------
    >>> print(heading(["evaluate", "test.h5"]).strip())
    # measure what that changes: before, after, and what is beyond chance
    $ unoic evaluate test.h5
    """
    return f"\n# {WHAT[words[0]]}\n$ {shlex.join(['unoic', *words])}"


def ending(result: DemoResult) -> str:
    """Where all of it is, and what to read next."""
    width = max(len(name) for name, _ in NEXT)
    lines = [f"{name:<{width}}  {said}" for name, said in NEXT]
    return "\n".join(["", f"All of it is in {printable(result.folder)}. What to read next:", *lines, ""])
