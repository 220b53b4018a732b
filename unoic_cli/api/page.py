"""`page` as a function: of data, or of the state of a search."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

from unoic_cli.api.functions import command
from unoic_cli.api.stored import arguments_of, loaded, not_counted
from unoic_cli.calls import public
from unoic_cli.commands import page as steps
from unoic_cli.commands import paged, search
from unoic_cli.commands.along import Along
from unoic_cli.commands.page import PageOptions, PageResult
from unoic_cli.commands.search import SearchResult, about_lambda
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import check_output
from unoic_cli.options import filled, given_flags, options_of
from unoic_cli.resolve.common import Notes
from unoic_cli.runs import state
from unoic_cli.runs.driver import Ended, Run
from unoic_cli.storage.output import together, write_bytes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from unoic_cli.resolve.common import Inputs


@public
def page(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[PageOptions],
) -> PageResult:
    """Write one HTML file that shows what every lambda does: metrics, classes, groups, confusion, reliability.

    Parameters
    ----------
    inputs : path, sequence of paths, (N, K), (N, K, H, W) array, or mapping of these by modality
        Labelled logits files, or scores in memory; of several modalities ``NAME=FILE``, or a mapping. Or states of
        searches (``TITLE=STATE``), each a tab, which have nothing that needs another read of the data.
    labels : (N,) or (N, H, W) integers, optional
        With scores in memory.
    **options : Unpack[PageOptions]
        See `PageOptions`.

    Returns
    -------
    PageResult

    Raises
    ------
    UnoicError
        Bad input, options that contradict each other, or an output that cannot be written.

    Examples
    --------
    >>> from unoic_cli import page
    >>> import os, tempfile
    >>> scores = [[2.0, 1.5], [2.0, 0.0], [1.0, 0.0], [0.2, 1.0]]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = page(scores, [1, 0, 0, 1], source_prior=[3, 1], output=os.path.join(folder, "page.html"))
    ...     made.tabs[0]["n_lambdas"], round(made.tabs[0]["lambda"], 2), os.path.getsize(made.output) == made.n_bytes
    (601, 0.65, True)
    """
    stored = states(inputs)
    if stored is None:
        return command(steps.page)(inputs, labels, **options)
    chosen = filled(PageOptions, options)
    output = steps.checked_output(chosen)
    known, given = options_of(PageOptions), dict(chosen)
    others = [key for key, one in known.items() if one.option.says == "what" and given[key] != one.default]
    for option in given_flags(PageOptions, given, others):
        raise UsageError(option, f"{option} beside a state, which has counted", "expected it where the state is made")
    check_output(output, force=chosen["force"], inputs=tuple(path for _, path in stored))
    notes = Notes(chosen["tell"])
    with together(chosen["tell"]):
        tabs = paged.told_apart([_tab(name, path, notes) for name, path in stored])
        line = paged.command_line(steps.NAME, inputs, PageOptions, chosen)
        content = paged.page(tabs, line)
        write_bytes(output, content)
    return PageResult.of(output, content, tabs, line, notes)


def _tab(name: str, path: str, notes: Notes) -> dict[str, Any]:
    found, along = _searched(path, steps.hear(notes))
    return {**paged.of_search(found.to_dict(), along, found.calibration, about_lambda(found)), "name": name}


def states(inputs: Any) -> list[tuple[str, str]] | None:
    """The names of states, and what they are called; None where inputs are something else."""
    items = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    if not isinstance(items, (list, tuple)) or not all(isinstance(one, (str, os.PathLike)) for one in items):
        return None
    found = []
    for text in map(os.fspath, items):
        name, mark, path = ("", "", text) if os.path.exists(text) else text.partition("=")
        place = path if mark else text
        found.append((name or place, place))
    are = [_is_state(path) for _, path in found]
    if not any(are):
        return None
    if not all(are):
        wrong = found[are.index(False)][1]
        raise UsageError(wrong, "no state, beside some that are", "expected states alone, or logits files alone")
    return found


def _is_state(path: str) -> bool:
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            return file.read(len(state.MAGIC)) == state.MAGIC
    except (OSError, ValueError):  # what is wrong with it is said by what opens it
        return False


def _searched(path: str, tell: Callable[[str], None] | None = None) -> tuple[SearchResult, Along]:
    """A search from its state, and what it has counted at every lambda."""
    total = state.merge(loaded([path], tell))
    if total.command != search.NAME:
        raise DataError(path, f"a state of unoic {total.command}", f"expected one of unoic {search.NAME}")
    inputs, arguments = arguments_of(total, search.search_lambda)
    total.replay = True
    with state.sensible(total.name):
        found = Run(total).drive(search.searched(inputs, None, {**arguments, "tell": tell}, keep=True))
    if isinstance(found, Ended):
        raise not_counted(total, [path])
    result, along = found
    assert along is not None
    return result, along
