"""How far the successor is behind: users slow down rather than let it fall further back.

The copies reach the successor without an order. If it lagged by more than the pause before a retry, a retry could
overtake its first request there, and the two systems would truly differ; on a slow machine that would be the machine's
doing. Each sample system therefore counts what it has served, at a place of its own that is not captured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from verifier.capture.asgi import App, Receive, Scope, Send

SERVED_PATH = "/demo/served"
BACKLOG_MAX = 24
POLL_S = 0.05

Served = Callable[[], Awaitable[int]]


class ServedCount:
    """ASGI middleware that counts the requests that have ended, however they ended."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and count."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == SERVED_PATH:
            body = str(self._served).encode()
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            try:
                await self._app(scope, receive, send)
            finally:
                self._served += 1


class Backlog:
    """Copies under way to the successor, by its own count. `served` None: not known, and never waited for."""

    def __init__(self, served: Served | None) -> None:
        self._ask = served
        self.started = 0
        self._served = 0

    def start(self) -> None:
        """Note that a request is sent."""
        self.started += 1

    async def room(self) -> None:
        """Wait until fewer than `BACKLOG_MAX` copies are under way."""
        await self.passed(self.started - BACKLOG_MAX)

    async def passed(self, count: int) -> None:
        """Wait until `count` copies have been served."""
        if self._ask is None:
            return
        while self._served < count:
            self._served = await self._ask()
            if self._served < count:
                await asyncio.sleep(POLL_S)


def served_at(session: aiohttp.ClientSession, base_url: str) -> Served:
    """Ask a sample system how many requests it has served."""

    async def ask() -> int:
        async with session.get(f"{base_url}{SERVED_PATH}") as response:
            return int(await response.text())

    return ask
