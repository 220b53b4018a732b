"""Runs: counting commands cut into shards, interrupted and resumed, spread over a cluster, merged and reported."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from types import FrameType
from typing import Annotated, Any, TypeAlias, TypedDict, Unpack

from unoic_cli import formats, signals
from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calls import (
    ArgumentError,
    annotations_of,
    check_names,
    documented,
    keywords_of,
    nearest,
    plain_arguments,
    public,
)
from unoic_cli.data.steps import Steps
from unoic_cli.errors import CannotCreateError, DataError, InterruptedRunError, UsageError
from unoic_cli.options import Keyword, Option, Says, filled, given_flags, is_given
from unoic_cli.resolve.common import files_among, part_name
from unoic_cli.resolve.inputs import expanded, is_standard
from unoic_cli.resolve.options import CheckpointOption, EveryOption, ForceOption, PageOption, ResumeOption, TellOption
from unoic_cli.runs import state
from unoic_cli.runs.driver import Ended, Run
from unoic_cli.runs.ledger import Ledger, missing
from unoic_cli.storage.output import Stamp, remove, remove_leftovers, stamp_of, together
from unoic_cli.urls import scrub_all

COUNTING = {
    "info": "info",
    "prior": "prior",
    "fit-delta": "fit_delta",
    "fit-temperature": "fit_temperature",
    "search-lambda": "search.search_lambda",
    "evaluate": "evaluate",
    "compare": "compare",
}
"""Commands whose results are sums over the data, and their functions in `unoic_cli.commands`."""

WRITING = {"calibrate": "calibrate", "fuse": "calibrate.fuse", "pack": "pack", "convert": "convert"}
"""Commands that write a file as large as the data: their shards are files of their own."""
EVERY = 60.0
ENGINES = ("threads", "dask")


@documented
@dataclass(frozen=True)
class Control:
    """How a run is cut, kept and spread.

    Attributes
    ----------
    **options
    """

    shard: Annotated[
        str | None,
        Option(
            "--shard",
            "I/N",
            "Count the I-th of N parts (equal numbers of rows, whole images) into --state, for unoic merge; auto: "
            "the place of this task in its SLURM array.",
            says="how",
            panel="Large runs",
        ),
    ] = None
    state: Annotated[
        str | None,
        Option(
            "--state",
            "FILE",
            "Write what was counted, for unoic merge and unoic report.",
            says="where",
            panel="Large runs",
        ),
    ] = None
    after: Annotated[
        str | None,
        Option(
            "--after",
            "FILE",
            "Go on from the merged state of the pass before (with --shard).",
            says="how",
            panel="Large runs",
            rare=True,
        ),
    ] = None
    checkpoint: CheckpointOption = None
    every: EveryOption = None
    resume: ResumeOption = False
    engine: Annotated[
        str | None,
        Option(
            "--engine",
            "NAME",
            "Who counts: threads (default), or dask (unoic[dask]).",
            says="how",
            panel="Large runs",
            values=("threads", "dask"),
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        Option("--scheduler", "ADDRESS", "Of a running Dask cluster.", says="how", panel="Large runs", rare=True),
    ] = None
    scheduler_file: Annotated[
        str | None,
        Option(
            "--scheduler-file",
            "FILE",
            "Written by the scheduler of a Dask cluster.",
            says="how",
            panel="Large runs",
            rare=True,
        ),
    ] = None
    workers: Annotated[
        int | None,
        Option(
            "--workers", "N", "Start a Dask cluster of N processes here.", says="how", panel="Large runs", rare=True
        ),
    ] = None
    replace: Annotated[bool, Option("", None, "State files may replace others.", says="how")] = False

    __repr__ = brief

    @property
    def plain(self) -> bool:
        """Whether nothing special is asked for."""
        return all(getattr(self, one.name) in (None, False) for one in fields(self) if one.name != "replace")


@dataclass(frozen=True)
class StateResult:
    """What a shard counted, or a merge joined. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    path : str
        The state file written.
    command : str
        Whose state it is.
    passes : int
        Streams over the data so far, the one it is in included.
    counted, total : int
        Rows of the input counted in that pass, and all.
    shard : tuple of int or None
        (i, n).
    missing : str or None
        Which rows a merge lacks, in words.
    """

    path: str
    command: str
    passes: int
    counted: int
    total: int
    shard: tuple[int, int] | None
    missing: str | None = None

    __repr__ = brief
    _repr_html_ = in_html

    @classmethod
    def of(cls, ledger: Ledger, path: str) -> StateResult:
        """From a ledger that was stored."""
        entry = ledger.passes[-1] if ledger.passes else None
        counted = 0 if entry is None else sum(b - a for a, b in entry.done)
        total = 0 if entry is None else entry.size
        return cls(path, ledger.command, len(ledger.passes), counted, total, ledger.shard)

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        return {
            "state": self.path,
            "command": self.command,
            "shard": None if self.shard is None else f"{self.shard[0]}/{self.shard[1]}",
            "passes": self.passes,
            "counted": self.counted,
            "total": self.total,
            "missing": self.missing,
        }


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """(i, n) of ``i/n``, i from 1; ``auto`` takes the place of this task in its SLURM array.

    Examples
    --------
    >>> parse_shard("3/8")
    (3, 8)
    >>> array = {"SLURM_ARRAY_TASK_ID": "14", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_MAX": "16"}
    >>> parse_shard("auto", {**array, "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_STEP": "2"})
    (3, 4)
    """
    if text == "auto":
        known = os.environ if environment is None else environment
        names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "COUNT")]
        try:
            place, low, high, n = (int(known[name]) for name in names)
            step = int(known.get("SLURM_ARRAY_TASK_STEP", "0")) or max(1, (high - low) // max(1, n - 1))
        except (KeyError, ValueError):
            found = "auto, and no SLURM array task"
            raise UsageError("--shard", found, f"expected {', '.join(names)}, or i/n") from None
        i, rest = divmod(place - low, step)
        if rest or not 0 <= i < n:
            raise UsageError("--shard", f"auto in an uneven array (task {place})", "expected i/n")
        return i + 1, n
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= 10**6:
        raise UsageError("--shard", f"{text!r}", "expected i/n with 1 <= i <= n <= 1,000,000, such as 3/8, or auto")
    return int(match[1]), int(match[2])


def parse_seconds(given: str | float) -> float:
    """Seconds of ``90``, ``90s``, ``5m`` or ``1h``.

    Examples
    --------
    >>> parse_seconds("5m"), parse_seconds(0.5)
    (300.0, 0.5)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)([smh]?)", str(given))
    seconds = 0.0 if match is None else float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    if seconds <= 0:
        raise UsageError("--every", f"{given!r}", "expected a time such as 60s or 5m")
    return seconds


def _steps(command: str) -> Callable[..., Steps[Any]]:
    """The generator of a command."""
    module, _, name = (COUNTING | WRITING)[command].rpartition(".")
    return getattr(importlib.import_module(f"unoic_cli.commands.{module or name}"), name)  # type: ignore[no-any-return]


def _configuration(inputs: Any, arguments: Mapping[str, Any], options: Mapping[str, Keyword]) -> dict[str, Any]:
    """What of the arguments changes a result, as JSON."""
    apart = {*_places(options), *_saying("how", options)}
    kept = {name: value for name, value in arguments.items() if name not in apart and is_given(value)}
    try:
        return dict(json.loads(json.dumps({"inputs": inputs, **kept}, default=os.fspath)))
    except TypeError:
        raise UsageError("inputs", "arrays or objects in a run that is stored", "expected names of files") from None


def _places(options: Mapping[str, Keyword]) -> dict[str, str]:
    """Arguments that say where results are written, and what messages call them."""
    return {"out": "--output", **_saying("where", options)}


def _saying(what: Says, options: Mapping[str, Keyword]) -> dict[str, str]:
    """Options that say what is counted, where results are written, or how: their flags by their names."""
    return {name: one.option.flag for name, one in options.items() if one.option.says == what}


def _texts(inputs: Any) -> list[str]:
    items = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    return [item for item in items if isinstance(item, str)]


def _check(
    command: str, control: Control, arguments: Mapping[str, Any], configuration: Mapping[str, Any],
    places: Mapping[str, str],
) -> None:  # fmt: skip
    """Refuse options that do not go together."""
    if command in WRITING:
        for name in ("state", "after", "engine"):
            if getattr(control, name) is not None:
                found, expected = f"--{name} of {command}", "expected --shard: its parts are files of their own"
                raise UsageError(f"--{name}", found, expected)
    elif control.shard is not None and control.state is None:
        raise UsageError("--shard", "--shard without --state", "expected a file for what the shard counts")
    if control.after is not None and control.shard is None:
        raise UsageError("--after", "--after without --shard", "expected the next pass of a run in shards")
    for name in ("every", "resume"):
        if getattr(control, name) not in (None, False) and control.checkpoint is None:
            raise UsageError(f"--{name}", f"--{name} without --checkpoint", "expected the file that it speaks of")
    if control.shard is not None and command in COUNTING:
        for name, option in places.items():
            if arguments.get(name) is not None:
                later = "fit-delta --statistics" if name == "write_delta" else "unoic report"
                raise UsageError(option, f"{option} beside --shard", f"expected it with {later}, after the merge")
    if arguments.get("write_delta") is not None:
        raise UsageError("--write-delta", "--write-delta in a run that is stored or spread", "expected it alone")
    if configuration.get("origin") == "mc-dropout":
        raise UsageError("--from", "mc-dropout in a run that is stored or spread", "expected it alone")
    for option in given_flags(Control, vars(control), ("scheduler", "scheduler_file", "workers")):
        if control.engine != "dask":
            raise UsageError(option, f"{option} without --engine dask", "expected both")
    if control.engine is not None and control.engine not in ENGINES:
        raise UsageError("--engine", f"{control.engine!r}", f"expected {' or '.join(ENGINES)}")


def _check_places(
    control: Control, arguments: Mapping[str, Any], inputs: Sequence[str], places: Mapping[str, str]
) -> None:
    """Refuse files of the run that are an input, or one another."""
    own: dict[str, Any] = {"--state": control.state, "--checkpoint": control.checkpoint}
    outputs = own | {option: arguments.get(name) for name, option in places.items()}
    if control.shard is not None and control.state is None and isinstance(outputs["--output"], (str, os.PathLike)):
        outputs["--output"] = part_name(os.fspath(outputs["--output"]), *parse_shard(control.shard))
    taken: dict[str, str] = {}
    for option, output in outputs.items():
        if not isinstance(output, (str, os.PathLike)):
            continue
        path = os.fspath(output)
        if not path:
            raise UsageError(option, "an empty name", "expected the name of a file")
        other = taken.setdefault(os.path.realpath(path), option)
        if other != option:
            raise UsageError(option, f"{path}, which is {other} too", "expected a name of its own")
        if option in own:
            _check_no_input(path, (*inputs, *([] if control.after is None else [control.after])))


def _check_no_input(path: str, inputs: Sequence[str]) -> None:
    for name in inputs:
        source = formats.split_name(name)[0]
        if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise CannotCreateError(path, "the file is an input", "expected another name")


def _named(shard: tuple[int, int] | None) -> str:
    return "no shard" if shard is None else f"shard {shard[0]}/{shard[1]}"


def _open_ledger(command: str, control: Control, configuration: dict[str, Any]) -> Ledger:
    """A new ledger, or the one to go on from."""
    shard = None if control.shard is None else parse_shard(control.shard)
    fresh = Ledger(command=command, arguments=configuration, shard=shard)
    kept = None
    if control.checkpoint is not None:
        if os.path.isdir(control.checkpoint):
            raise CannotCreateError(control.checkpoint, "a folder", "expected a file name")
        if control.resume and os.path.exists(control.checkpoint):
            kept = state.load(control.checkpoint)
            _check_run(kept, fresh)
            if kept.shard != shard:
                raise DataError(kept.name, f"a checkpoint of {_named(kept.shard)}", f"expected {_named(shard)}")
    if control.state is not None:
        own = kept is not None and kept.wrote(control.state)
        formats.check_output(control.state, force=control.replace or own, option="--state")
    if kept is not None:
        return kept
    if control.checkpoint is not None:
        if os.path.lexists(control.checkpoint) and not control.replace:
            expected = "expected --resume, to go on from it, or a new name"
            raise CannotCreateError(control.checkpoint, "the checkpoint exists", expected)
        formats.check_output(control.checkpoint, force=True, option="--checkpoint")
    if control.after is not None:
        before = state.load(control.after)
        _check_run(before, fresh)
        for entry in before.passes:
            if not entry.complete:
                raise DataError(before.name, f"{missing(entry)} missing", "expected the merged state of all shards")
        before.shard = shard
        return before
    return fresh


def _check_run(kept: Ledger, fresh: Ledger) -> None:
    """Refuse to go on from another run's ledger; its facts are compared as they are found anew."""
    state.check_alike(Ledger("this run", fresh.command, fresh.arguments, kept.facts), kept)


@contextlib.contextmanager
def _one_signal(active: bool) -> Iterator[None]:
    """Let the first signal to stop interrupt the run, and no further one: it is being saved."""
    if not active or threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if not stopped and not signals.postponed(stop, frame):
            stopped = True
            signals.stop()

    before = {number: signal.signal(number, stop) for number in signals.numbers()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _engine(control: Control, threads: int | None) -> Iterator[Any]:
    """Who counts: None for the threads of this process."""
    if control.engine != "dask":
        yield None
        return
    from unoic_cli.runs.dask import connect

    with connect(control.scheduler, control.scheduler_file, control.workers, threads) as engine:
        yield engine


@public
def run(command: str, inputs: Any, *, control: Control | None = None, **arguments: Any) -> Any:
    """Run a counting command, cut, kept or spread as `control` says.

    Parameters
    ----------
    command : str
        A key of `COUNTING`.
    inputs : path, or sequence of paths
    control : Control, optional
    **arguments
        Of the command's function; arrays in plain runs only.

    Returns
    -------
    Result of the command, or StateResult of a shard.

    Raises
    ------
    UnoicError
        As the command; `InterruptedRunError` when the run was interrupted and is saved.

    Examples
    --------
    >>> import os, tempfile, h5py, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path, states = os.path.join(folder, "x.h5"), [os.path.join(folder, f"{i}.unoic") for i in (1, 2)]
    ...     with h5py.File(path, "w") as file:
    ...         file["logits"], file["labels"] = np.eye(3, dtype="f4"), [0, 1, 1]
    ...     parts = [run("evaluate", path, control=Control(shard=f"{i}/2", state=states[i - 1])) for i in (1, 2)]
    ...     command, whole = report_states(states)
    >>> [part.counted for part in parts], command, round(whole.overall.values["acc"], 4)
    ([1, 2], 'evaluate', 0.6667)
    """
    if command not in COUNTING | WRITING:
        near = nearest(command, COUNTING | WRITING)
        expected = f"did you mean {near}?" if near else f"expected one of {', '.join(COUNTING | WRITING)}"
        raise ArgumentError("command", f"{command!r}", expected)
    if control is not None and not isinstance(control, Control):
        raise ArgumentError("control", f"a {type(control).__name__}", "expected unoic_cli.Control(...)")
    steps, control = _steps(command), control or Control()
    known, options = annotations_of(steps), keywords_of(steps)
    check_names(command, arguments, known)
    arguments = plain_arguments(arguments, known)
    tell, one = arguments.get("tell"), Run(threads=arguments.get("threads"), progress=arguments.get("progress"))
    if control.plain:
        with together(tell):
            return one.drive(steps(inputs, **arguments))
    if any(map(is_standard, _texts(inputs))):
        found = "standard input in a run that is cut, kept or spread"
        raise UsageError(formats.STANDARD, found, "expected a file, which can be read again")
    configuration, places = _configuration(inputs, arguments, options), _places(options)
    _check(command, control, arguments, configuration, places)
    _check_places(control, arguments, files_among(*configuration.values()), places)
    ledger = _open_ledger(command, control, scrub_all(configuration))  # a state shows no keys to anyone
    checkpoint = control.checkpoint
    if checkpoint is not None:
        ledger.every = EVERY if control.every is None else parse_seconds(control.every)
        ledger.save = lambda: state.save_checkpoint(ledger, checkpoint)
    one.ledger, finished = ledger, [path for path in ledger.outputs if ledger.wrote(path)]
    try:
        with (
            _one_signal(checkpoint is not None),
            _engine(control, arguments.get("threads")) as ledger.engine,
        ):
            try:
                with together(tell) as outputs:
                    outputs.ahead = partial(_note, ledger)
                    result = _work(command, one, steps(inputs, **arguments), control)
            except KeyboardInterrupt:
                if not signals.finished():
                    ledger.store()
                raise
            except Exception:
                begun = [place for name, place in ledger.facts.items() if name.startswith("unfinished ")]
                if checkpoint is not None and begun and not any(map(os.path.exists, begun)):
                    _forget(checkpoint)  # the output that it speaks of is removed
                raise
            if checkpoint is not None:
                _forget(checkpoint, tell)
            if tell is not None:
                for path in finished:
                    tell(f"{os.path.relpath(path)} was complete: the run that wrote it was stopped before it said so")
    except KeyboardInterrupt:
        if checkpoint is None or signals.finished():
            raise
        if not os.path.exists(checkpoint):  # interrupted before anything was known
            ledger.store()
        counted = any(one.done for one in ledger.passes)
        found = (
            "interrupted, and all that was counted is saved" if counted else "interrupted before anything was counted"
        )
        raise InterruptedRunError(checkpoint, found, "the same command with --resume goes on") from None
    if control.shard is not None and control.state is not None:
        return StateResult.of(ledger, control.state)
    return result


def _work(command: str, one: Run, steps: Steps[Any], control: Control) -> Any:
    """Drive the command, and write the state; the result is None where a shard has done its part."""
    assert one.ledger is not None
    result = one.drive(steps)
    if result is Ended.PART_DONE and command in WRITING:
        found = "a pass over all of the data (mean-posterior, or --delta fit) before a part is written"
        raise UsageError("--shard", found, "expected a file of priors, and of delta statistics")
    if control.after is not None and not isinstance(result, Ended):
        found = "the state of a run that needs no further pass"
        raise UsageError(control.after, found, "expected unoic report, which shows its result")
    if control.state is not None:
        state.save(one.ledger, control.state)
    return result


def _note(ledger: Ledger, outputs: Mapping[str, Stamp]) -> None:
    """Keep in the checkpoint which outputs are complete, before the first of them gets its name."""
    known = {path: [*_own_stamp(ledger, path), list(stamp)] for path, stamp in outputs.items()}
    ledger.outputs = {**ledger.outputs, **known}
    ledger.store()


def _own_stamp(ledger: Ledger, path: str) -> list[list[int]]:
    """The stamp of an output that a run before this one put into place, if it is there."""
    return [list(stamp_of(path) or ())] if ledger.wrote(path) else []


def _forget(checkpoint: str, tell: Callable[[str], None] | None = None) -> None:
    """Remove a checkpoint that nobody needs any more; before it, what is left of others that were being written."""
    remove_leftovers(checkpoint)
    reason = remove(checkpoint)
    if reason and tell is not None:
        tell(f"{checkpoint} is of no use any more, but could not be removed ({reason})")


def loaded(paths: Sequence[str], tell: Callable[[str], None] | None) -> list[Ledger]:
    """Ledgers of state files; tells of inputs that were not of the same age for all of them."""
    ledgers = [state.load(path) for path in paths]
    written: dict[str, set[str]] = {}
    for ledger in ledgers:
        for name, fact in ledger.facts.items():
            if isinstance(fact, dict) and isinstance(fact.get("fingerprint"), dict):
                age = json.dumps(fact["fingerprint"].get("modified"))
                written.setdefault(name.partition(" ")[2], set()).add(age)
    for name, times in written.items():
        if len(times) > 1 and tell is not None:
            what = "a copy, or a change that its size and samples do not show"
            tell(f"{name} was written at different times for different shards: {what}")
    return ledgers


PartialOption: TypeAlias = Annotated[
    bool, Option("--partial", None, "Go on without the rows that no state file has, and say which.", says="how")
]


class MergeOptions(TypedDict, total=False):
    """Options of `merge_states`."""

    partial: PartialOption
    force: ForceOption
    tell: TellOption


class ReportOptions(TypedDict, total=False):
    """Options of `report_states`."""

    output: Annotated[
        str | os.PathLike[str] | None,
        Option("--output -o", "FILE", "What the command writes: a calibration, statistics ...", says="where"),
    ]
    curve_output: Annotated[
        str | os.PathLike[str] | None,
        Option("--curve", "FILE", "Of search-lambda: write the curve as TSV.", says="where"),
    ]
    page: PageOption
    partial: PartialOption
    force: ForceOption
    tell: TellOption


@public
def merge_states(paths: Sequence[str], output: str, **options: Unpack[MergeOptions]) -> StateResult:
    """Join the state files of one run's shards.

    Parameters
    ----------
    paths : sequence of str
        State files, in any order.
    output : str
        Where the sum goes.
    **options : Unpack[MergeOptions]
        See `MergeOptions`.

    Returns
    -------
    StateResult

    Raises
    ------
    UnoicError
        A damaged file, files of different runs, rows counted twice or missing.

    Examples
    --------
    See `run`; ``merge_states(["1.unoic", "2.unoic"], "all.unoic")`` writes what `report_states` reads.
    """
    paths = expanded(list(paths))
    chosen = filled(MergeOptions, options)
    formats.check_output(output, force=chosen["force"], inputs=tuple(paths))
    total = state.merge(loaded(paths, chosen["tell"]), partial=chosen["partial"])
    lacking = [missing(entry) for entry in total.passes if not entry.complete]
    _check_no_input(output, files_among(*total.arguments.values()))
    with together(chosen["tell"]):
        state.save(total, output)
    return replace(StateResult.of(total, output), missing=lacking[0] if lacking else None)


@public
def report_states(paths: Sequence[str], **options: Unpack[ReportOptions]) -> tuple[str, Any]:
    """The result of a run from its state files, without its data.

    Parameters
    ----------
    paths : sequence of str
        The merged state, or those of all shards, in any order.
    **options : Unpack[ReportOptions]
        See `ReportOptions`.

    Returns
    -------
    (str, result)
        The command, and the very result of an unsharded run.

    Raises
    ------
    UnoicError
        As `merge_states`; or another pass over the data is needed.

    Examples
    --------
    See `run`.
    """
    paths = expanded(list(paths))
    chosen = filled(ReportOptions, options)
    total = state.merge(loaded(paths, chosen["tell"]), partial=chosen["partial"])
    if total.command not in COUNTING:
        raise DataError(total.name, f"a state of {total.command!r}", f"expected one of {', '.join(COUNTING)}")
    steps = _steps(total.command)
    known = keywords_of(steps)
    inputs, arguments = arguments_of(total, steps)
    total.replay, total.partial = True, chosen["partial"]
    given = {name: value for name, value in chosen.items() if name != "partial" and is_given(value)}
    for option in given_flags(ReportOptions, given, [name for name in given if name not in known]):
        raise UsageError(option, f"{option} of a state of {total.command}", "expected no such option")
    with together(chosen["tell"]), state.sensible(total.name):
        result = Run(total).drive(steps(inputs, **arguments, **given))
    if result is Ended.NOT_COUNTED:
        raise not_counted(total, paths)
    return total.command, result


def arguments_of(total: Ledger, steps: Callable[..., Steps[Any]]) -> tuple[Any, dict[str, Any]]:
    """The inputs and the options that a state says."""
    arguments = dict(total.arguments)
    # no state says where to write
    if "inputs" not in arguments or {*arguments} - {"inputs", *_saying("what", keywords_of(steps))}:
        raise state.nonsense(total.name)
    return arguments.pop("inputs"), plain_arguments(arguments, annotations_of(steps))


def not_counted(total: Ledger, paths: Sequence[str]) -> DataError:
    """The error for a state that does not have all that its command asks for."""
    found = f"pass {len(total.passes)} counted, and {total.command} needs another over the data"
    expected = f"expected the shards to be run again with --after {paths[0] if len(paths) == 1 else 'MERGED'}"
    return DataError(total.name, found, expected)
