"""What TAB completes: commands, options, and their values, from a table that is made ahead (``words.json``).

The table holds what commands say of their options, so a shell waits for no library; ``python docs/make_cli.py`` writes
it. Names of splits alone are looked up in the files that were typed.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unoic_cli.cli.helping import HelpfulCommand

VARIABLE = "_UNOIC_COMPLETE"
"""Of the environment: what a shell asks for."""
PATH = Path(__file__).with_name("words.json")
MOST_WORDS = 60
"""Characters of what a shell shows beside an option."""


@functools.cache
def table() -> dict[str, Any]:
    """The names of metrics, and of each command its arguments and options."""
    known: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return known


def made(commands: Mapping[str, Any]) -> str:
    """The table as it is written, from commands as the parser has them."""
    from unoic_cli.metrics import known

    words = {name: _words_of(command) for name, command in commands.items()}
    content = {"metrics": [one.NAME for one in known()], "commands": words}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _words_of(command: Any) -> dict[str, Any]:
    """What there is to complete after a command."""
    words: dict[str, Any] = {"values": [], "options": {}}
    for one in command.params:
        values = list(command.values.get(one.name, ()))
        if one.param_type_name == "argument":
            words["values"] += values
            continue
        about = {"values": None if one.is_flag else values, "help": _short(one.help or "")}
        words["options"] |= dict.fromkeys((*one.opts, *one.secondary_opts), about)
    for flag, said in (("--help", "Show what the command does."), ("--help-all", "Show every option.")):
        words["options"][flag] = {"values": None, "help": said}
    return words


def _short(text: str) -> str:
    """How a text begins."""
    text = text.partition(". ")[0].rstrip(".")
    return text if len(text) <= MOST_WORDS else text[:MOST_WORDS].rsplit(" ", 1)[0].rstrip(",:;") + " ..."


class Words(HelpfulCommand):
    """A command as far as completion knows it: whatever was typed is kept, and nothing is checked."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words."""
        ctx.meta["unoic.words"] = args
        ctx.args = []
        return []

    def get_params(self, ctx: Any) -> list[Any]:
        """None: the table knows them."""
        return []

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Options, or the values of one."""
        parser = next(
            one for one in type(self).__mro__ if one.__name__ == "Command"
        ).__module__  # typer's copy of click
        made: Any = importlib.import_module(parser.rpartition(".")[0] + ".shell_completion").CompletionItem
        found = completed(str(self.name), ctx.meta.get("unoic.words", []), incomplete)
        return [made(word, help=said or None) for word, said in found]


def completed(command: str, words: Sequence[str], incomplete: str) -> list[tuple[str, str]]:
    """What may stand where a word begins like that, and what there is to say of it.

    Parameters
    ----------
    command : str
    words : sequence of str
        Those between it and the word.
    incomplete : str

    Examples
    --------
    >>> [word for word, _ in completed("evaluate", ["val.h5", "--order"], "f")]
    ['flatten-first']
    >>> [word for word, _ in completed("evaluate", ["--metrics"], "acc,mi")]
    ['acc,miou']
    >>> [word for word, _ in completed("search-lambda", ["val.h5"], "--se")]
    ['--seed']
    """
    known = table()["commands"].get(command)
    if known is None:
        return []
    before = [word for word in words if word != "="]  # a shell may take --metric=miou for three words
    about = known["options"].get(before[-1]) if before else None
    if about is not None and about["values"] is not None:
        values = list(_looked_up(about["values"], before))
        head = incomplete.rpartition(",")[0] + "," if about["values"] == ["<metrics>"] and "," in incomplete else ""
        return [(head + one, "") for one in values if (head + one).startswith(incomplete)]
    if incomplete.startswith("-"):
        return [(flag, one["help"]) for flag, one in known["options"].items() if flag.startswith(incomplete)]
    return [(one, "") for one in known["values"] if one.startswith(incomplete)]


def _looked_up(values: Sequence[str], words: Sequence[str]) -> Iterator[str]:
    """Values, those that a name stands for included."""
    for one in values:
        if one in ("<metric>", "<metrics>"):
            yield from table()["metrics"]
        elif one == "<split>":
            yield from splits_of(words)
        else:
            yield one


def splits_of(words: Sequence[str]) -> list[str]:
    """The splits of the files among words; of what cannot be read, none. Streams and remote names are left alone."""
    files = [name for word in words for name in (word, word.partition("=")[2]) if name and _is_local(name)]
    if not files:
        return []
    from unoic_cli import formats
    from unoic_cli.data.dataset import text_counts
    from unoic_cli.runs.driver import drive

    found: dict[str, None] = {}
    for name in files:
        try:
            source = formats.describe(name)
            if "split" in source.fields:
                found |= dict.fromkeys(drive(text_counts(source, "split")))
        except Exception:  # a shell has no place for it, and the command itself will say it
            continue
    return list(found)


def _is_local(name: str) -> bool:
    return "://" not in name and os.path.isfile(name.partition("::")[0])
