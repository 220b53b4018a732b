"""Commands made of their options: what the parser is told follows from what a TypedDict says."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import typer

from unoic_cli.api.stored import Control, StateResult, run
from unoic_cli.cli.common import Told, check_format, is_stream, note, on_a_terminal, show
from unoic_cli.errors import UsageError
from unoic_cli.options import Keyword, Option, options_of, own_first, panel_of
from unoic_cli.resolve.options import ForceOption, PartOptions

Command = Callable[..., None]
Present = Callable[[Any, "str | None"], None]


@dataclass(frozen=True)
class Argument:
    """What a command is about.

    Attributes
    ----------
    name : str
        Of the parameter.
    metavar, help : str
    many : bool
        Several are one input.
    needed : bool
        There must be one.
    values : tuple of str
        What the shell completes.
    """

    name: str
    metavar: str
    help: str
    many: bool = True
    needed: bool = True
    values: tuple[str, ...] = ()

    def parameter(self) -> inspect.Parameter:
        """As the parser is told."""
        kind: Any = list[str] if self.many else str
        told = typer.Argument(metavar=self.metavar, help=self.help)
        if self.needed:
            return _parameter(self.name, Annotated[kind, told])
        return _parameter(self.name, Annotated[kind | None, told], None)


FILES = Argument(
    "files",
    "FILES",
    "Logits files of any format (in HDF5 also FILE::GROUP); several are one data set. Also s3://, gs://, abfs:// "
    "and https:// names, patterns ('val/*.h5'), @LIST (one a line), and - (an Arrow stream on stdin).",
)
MODALITIES = Argument(
    "files",
    "FILES",
    "Logits files of any format (in HDF5 also FILE::GROUP); several are one data set. NAME=FILE for each modality "
    "of the same samples, which are then fused. Also s3://, gs://, abfs:// and https:// names, patterns "
    "('val/*.h5'), @LIST (one a line), and - (an Arrow stream on stdin).",
)


class ShownOptions(TypedDict, total=False):
    """How a result is shown."""

    format: Annotated[
        str | None,
        Option(
            "--format",
            "FORMAT",
            "table, json, tsv, csv or latex. Default: table on a terminal, json in a pipe.",
            says="how",
            panel="Output",
            values=("table", "json", "tsv", "csv", "latex"),
        ),
    ]


class QuietOptions(TypedDict, total=False):
    """What is said beside a result."""

    quiet: Annotated[
        bool, Option("--quiet -q", None, "No progress and no notes on stderr.", says="how", panel="Output")
    ]


class StoredOptions(TypedDict, total=False):
    """What commands that write nothing but states may replace."""

    force: ForceOption


PRESENT: dict[str, Present] = {}
"""What shows the results of commands, as far as their modules are loaded."""
FORMS: dict[str, tuple[str, ...]] = {}
"""Forms of their results beside those of every command."""


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


_SINGLE = ({"bool"}, {"int"}, {"float"})
_TYPES: dict[str, Any] = {"bool": bool, "int": int, "float": float}


def parameter_of(keyword: Keyword, panel: str = "Main") -> inspect.Parameter:
    """An option as the parser is told: a switch, a number, or text that the command itself reads.

    Parameters
    ----------
    keyword : Keyword
    panel : str
        Of the help.

    Examples
    --------
    >>> str(parameter_of(Keyword("folds", "int | None", Option("--folds", "K", "Cross-validate too."))).default)
    'None'
    """
    option, default = keyword.option, keyword.default
    kind: Any = _TYPES[keyword.type.split(" | ")[0]] if keyword.kinds in _SINGLE else str
    if option.many or "Sequence[int]" in keyword.kinds:
        kind, default = list[str] if option.many else list[int], None
    if default is None:
        kind = kind | None
    told = typer.Option(*option.flags.split(), metavar=option.metavar, help=option.help, rich_help_panel=panel)
    return _parameter(keyword.name, Annotated[kind, told], default)


def _laid_out(options: type, before: Sequence[type], after: Sequence[type]) -> dict[str, Keyword]:
    """Options in the order of the help: a command's own, how it is shown, what it shares, how it is run."""
    own, inherited = own_first(options)
    first, last = ([one for kind in kinds for one in options_of(kind).values()] for kinds in (before, after))
    return {one.name: one for one in (*own, *first, *inherited, *last) if one.option.flags}


def command(
    options: type,
    *arguments: Argument,
    help: str,
    before: Sequence[type] = (ShownOptions,),
    after: Sequence[type] = (),
) -> Callable[[Command], Command]:
    """Make a command of a function that takes arguments and options by their names.

    Parameters
    ----------
    options : TypedDict
        Of the command.
    *arguments : Argument
    help : str
        What there is to say beside `unoic_cli.cli.COMMANDS`.
    before, after : sequence of TypedDict
        What else the command line has: before the options that commands share, and after them.
    """
    known = _laid_out(options, before, after)
    told_of = [parameter_of(one, panel_of(one, options)) for one in known.values()]
    parameters = [*(one.parameter() for one in arguments), *told_of]

    def decorate(function: Command) -> Command:
        def told(**given: Any) -> None:
            empty = [name for name, value in given.items() if value is None or value == []]
            unsaid = {name: known[name].default if name in known else () for name in empty}
            function(**{**given, **unsaid})

        told.__doc__ = help
        told.rare = frozenset(one.name for one in known.values() if one.option.rare)  # type: ignore[attr-defined]
        told.values = {one.name: one.values for one in arguments}  # type: ignore[attr-defined]
        told.values |= {one.name: one.option.choices for one in known.values()}  # type: ignore[attr-defined]
        told.__annotations__ = {one.name: one.annotation for one in parameters}
        told.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return told

    return decorate


def counting(
    options: type,
    argument: Argument,
    *,
    help: str,
    shown: type = ShownOptions,
    forms: tuple[str, ...] = (),
    check: Callable[[Mapping[str, Any], str], None] | None = None,
    then: Callable[[Sequence[str], Mapping[str, Any]], None] | None = None,
) -> Callable[[Present], Command]:
    """Make a counting command of the function that shows its result, and has its name.

    Parameters
    ----------
    options : TypedDict
        Of the command.
    argument : Argument
    help : str
        As of `command`.
    shown : TypedDict
        How the result is shown.
    forms : tuple of str
        Forms of the result beside those of every command.
    check : callable, optional
        Refuses options that do not go with a form of the result.
    then : callable, optional
        Says on a terminal what comes next, when a table was shown there.
    """
    before = (shown,) if "force" in options_of(options) else (StoredOptions, shown)

    def decorate(present: Present) -> Command:
        name = present.__name__.replace("_", "-")
        PRESENT[name], FORMS[name] = present, forms

        def work(files: list[str], format: str | None, **given: Any) -> None:
            chosen = check_format(format, forms)
            if check is not None:
                check(given, chosen)
            asked = dict(given)
            shown = _count(name, options, present, files, format, given) and chosen == "table"
            if shown and then is not None and not asked["quiet"] and on_a_terminal():
                then(files, asked)

        return command(options, argument, help=help, before=before, after=(QuietOptions, Control))(work)

    return decorate


def writing(name: str, options: type, argument: Argument, *, help: str) -> Command:
    """Make a command that writes a file as large as the data; see `command`."""

    def work(files: list[str], format: str | None, **given: Any) -> None:
        check_format(format)
        _write(name, files, format, given)

    return command(options, argument, help=help, after=(QuietOptions, PartOptions))(work)


def copy(
    name: str, inputs: str, out: str, format: str | None, given: dict[str, Any], render: Callable[[Any], Any]
) -> None:
    """Run a command that writes one file as another, say its notes, and show what it wrote, where stdout is free."""
    check_format(format)
    stream, quiet = is_stream(out, format), given.pop("quiet")
    control = Control(**_taken(PartOptions, given))
    with Told(quiet) as told:
        result = run(name, inputs, control=control, out=out, **given, **told.arguments())
    for text in [] if quiet else result.notes:
        note(text)
    if not stream:
        show(result, format, render)


def _taken(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """Take the options of a group out."""
    return {name: given.pop(name) for name in options_of(kind) if name in given}


def _count(
    name: str, options: type, present: Present, files: list[str], format: str | None, given: dict[str, Any]
) -> bool:
    """Run a counting command as its options say, and show the result (True), or the state that it wrote."""
    from unoic_cli.report.state import render_state

    control = Control(**_taken(Control, given), replace=given["force"])
    if control.shard is not None:  # the result is a state, which has no forms of its own
        check_format(format)
    _check_force(options, given, stored=control.state is not None or control.checkpoint is not None)
    with Told(given.pop("quiet")) as told:
        result = run(name, files, control=control, **given, **told.arguments())
    if isinstance(result, StateResult):
        show(result, format, render_state)
        return False
    present(result, format)
    return True


def _check_force(options: type, given: dict[str, Any], stored: bool) -> None:
    """Refuse ``--force`` where nothing is written; what it says of the files of the run alone is taken out."""
    outputs = [one.name for one in options_of(options).values() if one.option.says == "where"]
    if given["force"] and not outputs and not stored:
        raise UsageError("--force", "--force without --state or --checkpoint", "expected a file that it may replace")
    if not outputs or (stored and not any(given[name] for name in outputs)):
        del given["force"]


def _write(name: str, files: list[str], format: str | None, given: dict[str, Any]) -> None:
    """Run a command that writes logits as its options say, and show the result, where stdout is free for it."""
    from unoic_cli.report.calibrate import calibrate_sheet, render_calibrate

    stream = is_stream(given["output"], format)
    control = Control(**_taken(PartOptions, given))
    with Told(given.pop("quiet")) as told:
        result = run(name, files, control=control, **given, **told.arguments())
        if stream:
            rows = f"{result.n_units:,} rows written ({result.emit}), lambda = {result.calibration.lam:g}"
            told.texts.append(rows)
    if not stream:
        show(result, format, render_calibrate, sheet=calibrate_sheet)
