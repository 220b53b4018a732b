"""Signals to stop: they interrupt, but never in the middle of an import.

A module written in C whose import is cut short prints a traceback of its own, and what it says then is wrong.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
"""Sent by people and by batch systems."""

_RETRY = 0.01

Handler = Callable[[int, FrameType | None], object]


def numbers() -> list[int]:
    """Those of `NAMES` that this system has."""
    return [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


def postponed(handler: Handler, frame: FrameType | None) -> bool:
    """Whether something is being imported: then the handler is called again a little later."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame is None or not hasattr(signal, "setitimer"):
        return False
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, _RETRY)
    return True


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: KeyboardInterrupt, once nothing is being imported."""
    if not postponed(interrupt, frame):
        raise KeyboardInterrupt
