"""The one way to the wall clock. Core functions take time as an argument; only adapters ask for it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Tells the time and waits. `verifier.testing` ships a virtual one."""

    def now(self) -> float:
        """Unix time in seconds. May jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary point, never going back. For measuring how long something took."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Wait `duration_s` seconds; zero or less only gives way to other tasks."""
        ...


class SystemClock:
    """This machine's clock."""

    __slots__ = ()

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(max(0.0, duration_s))
