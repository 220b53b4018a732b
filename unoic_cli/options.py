"""Options, each said once: the command line, keywords, their documentation and stored runs follow from it.

The options of a command are the entries of a TypedDict, and what is to be said of one stands beside its type::

    class SearchOptions(MethodOptions, DataOptions, total=False):
        folds: Annotated[int | None, Option("--folds", "K", "Cross-validate too: ...")]

Types that are costly to import are quoted; nothing here looks at more than their text.
"""

import ast
import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

T = TypeVar("T")
Says = Literal["what", "where", "how"]
PANELS = ("Main", "Method", "Data", "Output", "Large runs")
"""Of the help, in their order."""


@dataclass(frozen=True)
class Option:
    """What is said of an option beside its name and its type.

    Attributes
    ----------
    flags : str
        On the command line, as ``"--output -o"``; empty where Python alone has it.
    metavar : str or None
        What stands for its value there; None of a switch.
    help : str
    default : object
        What it is when not given; False of a switch.
    says : {"what", "where", "how"}
        What is counted (a stored run keeps it), where a result is written, or how the work is done.
    many : bool
        Texts, as it may be given several times.
    takes : str
        What Python takes, where the type does not tell.
    panel : str
        Of the help, one of `PANELS`; by default that of the group it comes with.
    rare : bool
        Only ``--help-all`` shows it.
    values : tuple of str
        What the shell completes; a single ``<metric>``, ``<metrics>`` or ``<split>`` is looked up. By default what
        `takes` lists.
    """

    flags: str
    metavar: str | None
    help: str
    default: Any = None
    says: Says = "what"
    many: bool = False
    takes: str = ""
    panel: str = ""
    rare: bool = False
    values: tuple[str, ...] = ()

    @property
    def choices(self) -> tuple[str, ...]:
        """What the shell completes.

        Examples
        --------
        >>> Option("--kind", "KIND", "Of the scores.", takes='{"logits", "probs"}').choices
        ('logits', 'probs')
        """
        listed = self.takes if self.takes.startswith("{") else ""
        return self.values or tuple(re.findall(r'"([^"]*)"', listed))

    @property
    def flag(self) -> str:
        """What messages call it."""
        return self.flags.partition(" ")[0]


@dataclass(frozen=True)
class Keyword:
    """An option by its name and the text of its type."""

    name: str
    type: str
    option: Option

    @property
    def kinds(self) -> set[str]:
        """What it may be, besides None.

        Examples
        --------
        >>> sorted(Keyword("step", "str | float | None", Option("--step", "STEP", "Lattice step.")).kinds)
        ['float', 'str']
        """
        return {part.strip() for part in self.type.split(" | ")} - {"None"}

    @property
    def takes(self) -> str:
        """What it may be, in words.

        Examples
        --------
        >>> Keyword("output", "str | os.PathLike[str] | None", Option("--output", "FILE", "Write it.")).takes
        'str or path'
        """
        text = self.type.removesuffix(" | None").replace("os.PathLike[str]", "path")
        text = re.sub(r"Sequence\[(\w+)\]", r"sequence of \1", text)
        *others, last = re.sub(r"(Mapping|Callable)\[.*\]", lambda found: found[1].lower(), text).split(" | ")
        return self.option.takes or (f"{', '.join(others)} or {last}" if others else last)

    @property
    def default(self) -> Any:
        """What it is when not given."""
        return False if self.type == "bool" and self.option.default is None else self.option.default


@functools.cache
def options_of(kind: type) -> Mapping[str, Keyword]:
    """What a TypedDict says of its options, by their names.

    Examples
    --------
    >>> from typing import Annotated, TypedDict
    >>> class Both(TypedDict):
    ...     folds: Annotated["int | None", Option("--folds", "K", "Cross-validate too.")]
    ...     force: Annotated[bool, Option("--force", None, "Replace outputs that exist.", says="how")]
    >>> [(one.name, one.type, one.default, one.option.says) for one in options_of(Both).values()]
    [('folds', 'int | None', None, 'what'), ('force', 'bool', False, 'how')]
    """
    module = kind.__module__
    return {name: Keyword(name, *_read(annotation, module)) for name, annotation in kind.__annotations__.items()}


def _read(annotation: Any, module: str) -> tuple[str, Option]:
    """The text of a type, and what is said of it; of modules that put off their annotations, types stay text."""
    text = getattr(annotation, "__forward_arg__", annotation)
    if isinstance(text, str):
        names = vars(sys.modules[getattr(annotation, "__forward_module__", None) or module])
        node = ast.parse(text, mode="eval").body
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            type_, option = map(ast.unparse, node.slice.elts)
            return type_.strip("'"), eval(option, names)
        annotation = eval(text, names)
    type_, option = get_args(annotation)
    plain = type_.__name__ if isinstance(type_, type) else str(type_)
    return getattr(type_, "__forward_arg__", plain), option


def filled(kind: type[T], given: Mapping[str, Any]) -> T:
    """The options of a TypedDict, those that are not given by their defaults; what it does not know is left out.

    Examples
    --------
    >>> from typing import Annotated, TypedDict
    >>> class Both(TypedDict, total=False):
    ...     step: Annotated[float, Option("--step", "STEP", "Lattice step.", default=0.01)]
    ...     seed: Annotated[int | None, Option("--seed", "N", "Of the folds.")]
    >>> filled(Both, {"seed": 3, "threads": 2})
    {'step': 0.01, 'seed': 3}
    """
    return cast(T, {name: given.get(name, one.default) for name, one in options_of(cast(Any, kind)).items()})


def given_flags(kind: type, given: Mapping[str, Any], names: Iterable[str] | None = None) -> list[str]:
    """What messages call those of some options, or of all, that were given."""
    known = options_of(kind)
    said = [name for name in (known if names is None else names) if is_given(given.get(name))]
    return [known[name].option.flag for name in said]


def is_given(value: Any) -> bool:
    """Whether the value of an option asks for something: 0 does, None, False and nothing at all do not."""
    return not (value is None or value is False or (isinstance(value, tuple) and not value))


GROUPS: dict[type, str] = {}
"""TypedDicts that commands take as a whole, and the panels of their options."""


def group(panel: str) -> Callable[[type[T]], type[T]]:
    """Mark a TypedDict as one that commands take as a whole: what says their options names these last.

    Parameters
    ----------
    panel : str
        Of the help.
    """

    def mark(kind: type[T]) -> type[T]:
        GROUPS[kind] = panel
        return kind

    return mark


def own_first(kind: type) -> tuple[list[Keyword], list[Keyword]]:
    """The options that a TypedDict has by itself, and those that come with whole groups."""
    known = options_of(kind)
    whole = [options_of(one) for one in GROUPS if options_of(one).items() <= known.items()]
    inherited = {name for options in whole for name in options}
    own = [one for name, one in known.items() if name not in inherited]
    return own, [one for name, one in known.items() if name in inherited]


def panel_of(keyword: Keyword, kind: type | None = None) -> str:
    """The panel of the help that an option stands in.

    Parameters
    ----------
    keyword : Keyword
    kind : TypedDict, optional
        What a command takes, where the option comes with a group.

    Examples
    --------
    >>> panel_of(Keyword("output", "str | None", Option("--output -o", "FILE", "Write it.", says="where")))
    'Output'
    """
    if keyword.option.panel:
        return keyword.option.panel
    of = [panel for one, panel in GROUPS.items() if options_of(one).get(keyword.name) == keyword] if kind else []
    return of[0] if of else "Output" if keyword.option.says == "where" else "Main"
