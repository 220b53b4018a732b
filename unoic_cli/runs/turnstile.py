"""Threads that take turns, in the order of their spans."""

from __future__ import annotations

import threading


class Turnstile:
    """Lets spans through one after another, for writers that need their blocks in order."""

    def __init__(self) -> None:
        self.turn = 0
        self.open = True
        self.condition = threading.Condition()

    def wait(self, index: int) -> bool:
        """Wait for the turn of a span; False when another worker failed."""
        with self.condition:
            self.condition.wait_for(lambda: self.turn == index or not self.open)
            return self.open

    def advance(self) -> None:
        """Give the turn to the next span."""
        with self.condition:
            self.turn += 1
            self.condition.notify_all()

    def close(self) -> None:
        """Let nobody wait any more: a worker failed."""
        with self.condition:
            self.open = False
            self.condition.notify_all()
