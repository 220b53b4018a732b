"""The driver: answers what a command asks for, and knows threads, ledgers and clusters so that no command has to."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from unoic_cli.data.facts import Fact, driven
from unoic_cli.data.steps import Bytes, Here, Pass, Rewrite, Situation, StateOf, Step, Steps, Text
from unoic_cli.runs import state
from unoic_cli.runs.ledger import Ledger, missing
from unoic_cli.runs.rewrite import rewrite
from unoic_cli.runs.sweep import count
from unoic_cli.storage import output

T = TypeVar("T")


class Ended(enum.Enum):
    """Why a command was not driven to its end."""

    PART_DONE = "a shard has counted its part of a pass, and needs the others' before it can go on"
    NOT_COUNTED = "a repeated run asks for a pass that its ledger does not have"


@dataclass
class Run:
    """One run of a command.

    Attributes
    ----------
    ledger : Ledger or None
        Of runs that are cut, kept, spread or repeated.
    threads : int or None
        By default, what the machine gives this process.
    progress : callable or None
        Called with bytes read and bytes in all.
    """

    ledger: Ledger | None = None
    threads: int | None = None
    progress: Callable[[int, int], None] | None = None

    def drive(self, steps: Steps[T]) -> T | Ended:
        """Answer step by step until the command returns; errors are raised where the command asked."""
        if self.ledger is not None:
            self.ledger.restart()
        return driven(steps, self._answer, (Ended,))

    def _answer(self, step: Step) -> Any:
        match step:
            case Fact():
                return step.find() if self.ledger is None else self.ledger.know(step)
            case Pass():
                done = count(step, ledger=self.ledger, n_threads=self.threads, progress=self.progress)
                return None if done else self._unfinished
            case tuple():
                answers = [self._answer(one) for one in step]
                return next((one for one in answers if one is not None), None)
            case Rewrite():
                return rewrite(step, ledger=self.ledger, n_threads=self.threads, progress=self.progress)
            case Text():
                return output.write_text(step.path, step.text)
            case Bytes():
                return output.write_bytes(step.path, step.content)
            case Here():
                return self._situation()
            case StateOf():
                return self._answer(Fact(f"state {step.path}", partial(state.about, step.path)))
        raise TypeError(f"{type(step).__name__} is no step")

    @property
    def _unfinished(self) -> Ended:
        return Ended.NOT_COUNTED if self.ledger is not None and self.ledger.replay else Ended.PART_DONE

    def _situation(self) -> Situation:
        ledger = self.ledger
        if ledger is None:
            return Situation()
        lacking = tuple(missing(entry) for entry in ledger.passes if not entry.complete) if ledger.replay else ()
        begun = {k.removeprefix("unfinished "): v for k, v in ledger.before.items() if k.startswith("unfinished ")}
        return Situation(ledger.shard, lacking, ledger.wrote, begun, stored=True)


def drive(steps: Steps[T], *, threads: int | None = None, progress: Any = None) -> T:
    """Run a command, or a part of one, from the files as they are.

    Examples
    --------
    >>> from unoic_cli.data.facts import exists
    >>> drive(exists("/nothing/of/this/name"))
    False
    """
    return cast(T, Run(threads=threads, progress=progress).drive(steps))
