"""Help in panels: examples first, then what a command does and its options; the rare ones by ``--help-all`` alone.

It is drawn by hand: the library that draws tables takes longer to load than all else that help needs.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from unoic_cli.options import PANELS

WIDEST = 120
"""Columns: longer lines are hard to read."""
_ALL = "--help-all"
_JOINT = "\ue000"
_BOLD, _NAME, _END = "\x1b[1m", "\x1b[36m", "\x1b[0m"


def coloured() -> bool:
    """Whether stdout is a terminal that colours are wanted on."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and sys.stdout is not None and sys.stdout.isatty()


def columns() -> int:
    """How wide help is."""
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, WIDEST))


def folded(text: str, width: int) -> list[str]:
    """Lines of at most `width`, where words stay whole, hyphens and all.

    Examples
    --------
    >>> folded("Written by fit-delta, or none.", 15)
    ['Written by', 'fit-delta, or', 'none.']
    """
    lines = textwrap.wrap(" ".join(text.split()), max(width, 12), break_on_hyphens=False, break_long_words=False)
    return lines or [""]


def copied(text: str, width: int) -> list[str]:
    r"""A command in lines that a shell takes as one; an option stays beside its value.

    Examples
    --------
    >>> copied("unoic compare a.h5 b.h5 -m average", 24)
    ['unoic compare a.h5 \\', '    b.h5 -m average']
    """
    paired = re.sub(r"( --?\w[\w-]*) (?=[^\s-])", rf"\1{_JOINT}", text)
    lines = [line.replace(_JOINT, " ") for line in folded(paired, width - 6)]
    ends = [" \\"] * (len(lines) - 1) + [""]
    return [("    " if i else "") + line + end for i, (line, end) in enumerate(zip(lines, ends, strict=True))]


class Page:
    """Help as it grows, line by line.

    Parameters
    ----------
    width : int
    colour : bool
    """

    def __init__(self, width: int, colour: bool) -> None:
        self.width, self.colour = width, colour
        self.lines: list[str] = []

    def styled(self, text: str, style: str) -> str:
        """Text in a colour, where there are any."""
        return f"{style}{text}{_END}" if self.colour and text else text

    def prose(self, text: str) -> None:
        """Examples, usage apart; other paragraphs."""
        for paragraph in text.split("\n\n"):
            if paragraph.strip():
                self.lines += ["", *("  " + line for line in folded(paragraph, self.width - 2))]

    def examples(self, commands: Sequence[str]) -> None:
        """What to copy; each begins on a line of its own."""
        for text in commands:
            first, *rest = copied(text, self.width - len("Example: "))
            self.lines += [f"{self.styled('Example:', _BOLD)} {first}", *rest]

    def panel(self, head: str, rows: Sequence[tuple[str, str]]) -> None:
        """Names, and what there is to say of each beside it."""
        if not rows:
            return
        self.lines += ["", self.styled(f"{head}:", _BOLD)]
        room = min(max(len(name) for name, _ in rows), max(16, self.width // 3))
        for name, said in rows:
            lines = folded(said, self.width - room - 4)
            shown = self.styled(name, _NAME) + " " * (room - len(name))
            if len(name) > room:
                self.lines.append(f"  {self.styled(name, _NAME)}")
                shown = " " * room
            self.lines.append(f"  {shown}  {lines[0]}".rstrip())
            self.lines += [f"{' ' * (room + 4)}{line}" for line in lines[1:]]

    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines).strip("\n") + "\n"


def parts_of(text: str) -> tuple[list[str], str]:
    r"""The examples within a text, and the rest.

    Examples
    --------
    >>> parts_of("What it does.\n\nExample: unoic info\na.h5\n\nMore.")
    (['unoic info a.h5'], 'What it does.\n\nMore.')
    """
    examples, rest = [], []
    for paragraph in text.split("\n\n"):
        head, colon, said = paragraph.strip().partition("Example: ")
        if colon and not head:
            examples.append(" ".join(said.split()))
        else:
            rest.append(paragraph)
    return examples, "\n\n".join(rest)


def _show_all(ctx: Any, _: Any, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta["unoic.all"] = True
        print(ctx.get_help())
        ctx.exit()


class _Helpful:
    """Help of a command, or of all."""

    params: list[Any]
    rare: frozenset[str] = frozenset()
    """Names of parameters that ``--help`` leaves out."""
    values: Mapping[str, tuple[str, ...]] = {}
    """Of parameters, what the shell completes."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Own parameters, ``--help-all`` and ``--help``."""
        *own, short = super().get_params(ctx)  # type: ignore[misc]
        if getattr(self, "_all", None) is None:
            about = copy.copy(short)
            about.name, about.opts, about.callback = "help_all", [_ALL], _show_all
            about.help = "Show every option, rarely used ones too, and exit."
            self._all = about
        return [*own, self._all, short]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Examples, usage, what it does, and a panel for each kind of option."""
        page, every = Page(columns(), coloured()), bool(ctx.meta.get("unoic.all"))
        examples, text = parts_of(self.help or "")  # type: ignore[attr-defined]
        page.examples(examples)
        usage = folded(f"{ctx.command_path} {' '.join(self._usage())}", page.width - len("Usage: "))
        page.lines += ["", f"{page.styled('Usage:', _BOLD)} {usage[0]}", *("    " + line for line in usage[1:])]
        page.prose(text)
        shown = {name: list(self._commands(name)) for name in PANELS}
        options: dict[str, list[tuple[str, str]]] = {name: [] for name in PANELS}
        hidden = []
        for one in self.get_params(ctx):
            record = one.get_help_record(ctx)
            if record is None:
                continue
            if one.param_type_name == "argument":
                options["Main"].append((one.metavar or one.name, one.help or ""))
            elif one.name in self.rare and not every:
                hidden.append(one.opts[-1])
            else:
                options[one.rich_help_panel or "Main"].append(record)
        for name in PANELS:
            page.panel(name, shown[name])
        for name in PANELS:
            page.panel("Options" if shown["Main"] else name, options[name])
        if hidden:
            more = f"Rarely used ({ctx.command_path} {_ALL} explains them): {', '.join(hidden)}"
            page.lines += ["", *folded(more, page.width)]
        formatter.write(page.text())

    def _usage(self) -> Iterator[str]:
        for one in self.params:
            if one.param_type_name == "argument":
                name = one.metavar or one.name
                whole = one.nargs != -1 or name.endswith(("...", "]"))
                yield name if whole else f"{name}..."
        yield "[OPTIONS]"

    def _commands(self, panel: str) -> Iterable[tuple[str, str]]:
        return ()


class HelpfulCommand(_Helpful, TyperCommand):
    """A command with help in panels."""


class HelpfulGroup(_Helpful, TyperGroup):
    """Commands in panels, each with all that is said of it."""

    panels: Mapping[str, str] = {}
    """Of commands, where that is not Main."""

    def _usage(self) -> Iterator[str]:
        yield "COMMAND ..."

    def _commands(self, panel: str) -> Iterable[tuple[str, str]]:
        return ((name, one.help or "") for name, one in self.commands.items() if self.panels.get(name, "Main") == panel)
