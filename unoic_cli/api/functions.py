"""Commands as functions that people call from Python: their keywords are checked, and a driver answers their steps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from unoic_cli.calls import public
from unoic_cli.data.steps import Steps
from unoic_cli.runs.driver import Run
from unoic_cli.storage.output import together

P = ParamSpec("P")
R = TypeVar("R")


def command(steps: Callable[P, Steps[R]]) -> Callable[P, R]:
    """A function that drives a command from the files as they are; its outputs come together, or none does.

    Parameters
    ----------
    steps : callable
        Makes the generator of the command.

    Raises
    ------
    ArgumentError
        When called: as `unoic_cli.calls.public` says.
    """

    @functools.wraps(steps)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        how: dict[str, Any] = {name: kwargs.get(name) for name in ("threads", "progress", "tell")}
        with together(how.pop("tell")):
            return cast(R, Run(**how).drive(steps(*args, **kwargs)))

    made = public(call)
    signature = inspect.signature(made)
    result = str(signature.return_annotation).removeprefix("Steps[").removesuffix("]")
    made.__signature__ = signature.replace(return_annotation=result)  # type: ignore[attr-defined]
    return made
