"""An asyncio event loop whose time is virtual: when nothing can run, it moves on to the next timer at once.

No sockets, no threads, no real clock: what runs on it depends on its input alone, and runs as fast as the machine.
A large part of the cost of a simulated run is the loop's, so this one keeps only what the simulator needs: handles
without debugging, timers as tuples, sleeps that wake their sleeper without a callback in between.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any


class Deadlock(Exception):
    """Nothing can run, and no timer is set: everyone waits for someone else."""


class Livelock(Exception):
    """Everyone is busy for ever at one moment."""


_ROUNDS_MAX = 200_000


class _Handle:
    """A callback that is to run: what asyncio.Handle and asyncio.TimerHandle offer, as far as it is used."""

    __slots__ = ("args", "callback", "context", "dropped")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None) -> None:
        self.callback = callback
        self.args = args
        self.context = copy_context() if context is None else context
        self.dropped = False

    def cancel(self) -> None:
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their times, and of their being scheduled."""

    def __init__(self) -> None:
        super().__init__()
        self._stopping = False
        self.elapsed_s = 0.0
        self._due: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle | asyncio.Future[None]]] = []
        self._order = 0
        self.rounds = 0

    get_debug = staticmethod(bool)  # False, from C: each future and each task asks

    def after(self, duration_s: float) -> asyncio.Future[None]:
        """Return what is done after so much virtual time: awaiting it is asyncio.sleep for less."""
        woken: asyncio.Future[None] = asyncio.Future(loop=self)
        self._order += 1
        heapq.heappush(self._timers, (self.elapsed_s + duration_s, self._order, woken))
        return woken

    def time(self) -> float:
        return self.elapsed_s

    # -- what asyncio calls --------------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, context)
        self._due.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        handle = _Handle(callback, args, context)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        return self.call_at(self.elapsed_s + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Run rounds until the loop is told to stop."""
        due, timers, pop = self._due, self._timers, heapq.heappop
        while not self._stopping:
            self.rounds += 1
            if self.rounds > _ROUNDS_MAX:
                raise Livelock(f"no end after {_ROUNDS_MAX} rounds, at {self.elapsed_s} s")
            while timers and timers[0][2].cancelled():
                pop(timers)
            if not due:
                if not timers:
                    raise Deadlock("nothing can run, and no timer is set")
                self.elapsed_s = max(self.elapsed_s, timers[0][0])
            while timers and timers[0][0] <= self.elapsed_s:
                waiting = pop(timers)[2]
                if isinstance(waiting, _Handle):
                    due.append(waiting)
                elif not waiting.done():
                    waiting.set_result(None)
            for _ in range(len(due)):
                handle = due.popleft()
                if handle.dropped:
                    continue
                try:
                    handle.context.run(handle.callback, *handle.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as every loop does
                    self.call_exception_handler({"message": "a callback failed", "exception": error})

    def _process_events(self, events: list[Any]) -> None:
        assert not events

    def _write_to_self(self) -> None:
        """Nobody else could wake this loop."""
