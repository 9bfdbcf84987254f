"""An asyncio event loop whose time is virtual: when nothing can run, it moves on to the next timer at once.

No sockets, no threads, no real clock: what runs on it depends on its input alone, and runs as fast as the machine.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Deadlock(Exception):
    """Nothing can run, and no timer is set: everyone waits for someone else."""


class Livelock(Exception):
    """Everyone is busy for ever at one moment."""


_ROUNDS_MAX = 200_000


class _NoSelector:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._rounds = 0

    def select(self, timeout_s: float | None) -> list[Any]:
        self._rounds += 1
        if self._rounds > _ROUNDS_MAX:
            raise Livelock(f"no end after {_ROUNDS_MAX} rounds, at {self._loop.elapsed_s} s")
        if timeout_s is None:
            raise Deadlock("nothing can run, and no timer is set")
        if timeout_s > 0:
            self._loop.elapsed_s += timeout_s
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their times, and of their being scheduled."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_s = 0.0
        self._selector = _NoSelector(self)
        self._clock_resolution = 1e-9
        self.set_debug(False)

    def time(self) -> float:
        return self.elapsed_s

    def _process_events(self, events: list[Any]) -> None:
        assert not events

    def _write_to_self(self) -> None:
        """Nobody else could wake this loop."""
