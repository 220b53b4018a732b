"""Options, each said once: the command line, keywords, their documentation and stored runs follow from it.

The options of a command are the entries of a TypedDict, and what is to be said of one stands beside its type::

    class SearchOptions(MethodOptions, DataOptions, total=False):
        folds: Annotated[int | None, Option("--folds", "K", "Cross-validate too: ...")]

Types that are costly to import are quoted; nothing here looks at more than their text.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Says = Literal["what", "where", "how"]


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
    """

    flags: str
    metavar: str | None
    help: str
    default: Any = None
    says: Says = "what"
    many: bool = False

    @property
    def flag(self) -> str:
        """What messages call it."""
        return self.flags.split()[0]


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
    found = {}
    for name, annotation in kind.__annotations__.items():
        type_, option = get_args(annotation)
        found[name] = Keyword(name, text_of(type_), option)
    return found


def text_of(annotation: Any) -> str:
    """A type as it is written."""
    plain = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return str(getattr(annotation, "__forward_arg__", plain))


def own_first(kind: type, groups: Iterable[type]) -> tuple[list[Keyword], list[Keyword]]:
    """The options that a TypedDict has by itself, and those that come with whole groups, in the order of the groups."""
    known = options_of(kind)
    whole = [options_of(group) for group in groups if options_of(group).items() <= known.items()]
    inherited = {name for group in whole for name in group}
    own = [one for name, one in known.items() if name not in inherited]
    return own, [one for name, one in known.items() if name in inherited]
