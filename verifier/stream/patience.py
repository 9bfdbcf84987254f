"""Repeating what fails because a server is away, and saying so once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from verifier.core.errors import DependencyDown
from verifier.stream.ports import Clock

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Patience:
    """Repeats the calls of one partition until the server they need answers; `waiting_for` names it meanwhile."""

    def __init__(self, partition: int, clock: Clock, retry_s: float) -> None:
        self._partition = partition
        self._clock = clock
        self._retry_s = retry_s
        self.waiting_for: str | None = None

    async def until_up(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Repeat a call until the server it needs answers. Nothing is decided and nothing acked meanwhile."""
        while True:
            try:
                result = await call()
            except DependencyDown as down:
                await self.wait_for(down)
            else:
                if self.waiting_for is not None:
                    _log.info("going_on", dependency=self.waiting_for, partition=self._partition)
                    self.waiting_for = None
                return result

    async def wait_for(self, down: DependencyDown) -> None:
        """Pause before the next try."""
        if self.waiting_for != down.dependency:
            _log.warning("waiting", dependency=down.dependency, detail=down.detail, partition=self._partition)
        self.waiting_for = down.dependency
        await self._clock.sleep(self._retry_s)
