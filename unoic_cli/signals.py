"""Signals to stop: they interrupt, but never in the middle of an import, nor while outputs get their names.

A module written in C whose import is cut short prints a traceback of its own, and what it says then is wrong.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
"""Sent by people and by batch systems."""

_RETRY = 0.01
_ours: list[int] = []
"""Signals that this process listens to from its start."""

Handler = Callable[[int, FrameType | None], object]


class _State:
    """How many blocks hold signals up, whether the work is done, and whether a signal came after that."""

    held = 0
    finished = False
    late = False


def numbers() -> list[int]:
    """Those of `NAMES` that this system has."""
    return [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


def postponed(handler: Handler, frame: FrameType | None) -> bool:
    """Whether something is being imported, or put into place: then the handler is called again a little later."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if (frame is None and not _State.held) or not hasattr(signal, "setitimer"):
        return False
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, _RETRY)
    return True


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let signals wait: what is done within is done whole."""
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1


def begin() -> None:
    """A command begins: there is work to be stopped."""
    _State.finished = _State.late = False


def finish() -> None:
    """All outputs are in place: it is too late for a signal to stop the work, and only a second one is heeded."""
    _State.finished = True


def finished() -> bool:
    """Whether all outputs of the command are in place."""
    return _State.finished


def stop() -> None:
    """Raise KeyboardInterrupt; in a process of our own, objects that it leaves half made say nothing of it.

    A destructor, or a callback of a library, in which it happens to be raised swallows it: then it comes again.
    """
    if _State.finished and not _State.late:
        _State.late = True
        return
    if _ours:
        sys.unraisablehook = _swallowed
    raise KeyboardInterrupt


def _swallowed(lost: sys.UnraisableHookArgs) -> None:
    if lost.exc_type is KeyboardInterrupt and hasattr(signal, "setitimer"):
        if signal.getsignal(signal.SIGALRM) == signal.SIG_IGN:  # all is said and done
            return
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, _RETRY)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: KeyboardInterrupt, once nothing is being imported."""
    if not postponed(interrupt, frame):
        stop()


def listen() -> None:
    """Let all signals to stop interrupt this process, unless they are ignored: it leaves as tidily as after Ctrl-C."""
    for number in numbers():
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, interrupt)
            _ours.append(number)


def ignore() -> None:
    """All is said and done."""
    for number in (*numbers(), *([signal.SIGALRM] if hasattr(signal, "SIGALRM") else [])):
        signal.signal(number, signal.SIG_IGN)
