"""What a request may cost: its size on the way in, the time and number of reads on the way out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from verifier.web.problems import Problem, unavailable

QUERY_BYTES_MAX = 8 * 1024
PATH_BYTES_MAX = 2 * 1024
BODY_BYTES_MAX = 16 * 1024

T = TypeVar("T")


class RequestBounds:
    """Refuses an over-long address (414) or a body nothing here reads (413), before any work is done."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = _oversize(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem.response(scope["path"][:PATH_BYTES_MAX])(scope, receive, send)


def _oversize(scope: Scope) -> Problem | None:
    if len(scope["query_string"]) > QUERY_BYTES_MAX:
        return Problem(414, f"The query is longer than {QUERY_BYTES_MAX} bytes.")
    if len(scope["path"].encode("utf-8", "replace")) > PATH_BYTES_MAX:
        return Problem(414, f"The path is longer than {PATH_BYTES_MAX} bytes.")
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > BODY_BYTES_MAX:
            return Problem(
                413, f"The body is longer than {BODY_BYTES_MAX} bytes.", headers={"Connection": "close"}
            )
    return None


class Reads:
    """Runs reads of the tables and of Kafka: at most `at_once_max` together, each within `timeout_s`.

    `refused` and `timed_out` count what the bounds turned away, each as a 503 `Problem`.
    """

    def __init__(self, *, timeout_s: float, at_once_max: int, waiting_max: int) -> None:
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(at_once_max)
        self._inside_max = at_once_max + waiting_max
        self._inside = 0
        self.refused = 0
        self.timed_out = 0

    async def run(self, dependency: str, read: Callable[[], Awaitable[T]]) -> T:
        """Return what `read` returns; raises `Problem` (503) on a timeout or a full queue."""
        if self._inside >= self._inside_max:
            self.refused += 1
            raise unavailable("Too many requests are waiting for their answer: try again later.")
        self._inside += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._slots:
                    return await read()
        except TimeoutError as error:
            self.timed_out += 1
            detail = f"{dependency} did not answer within {self._timeout_s:g} s: try again later."
            raise unavailable(detail, dependency) from error
        except OSError as error:
            raise unavailable(f"{dependency} cannot be reached: try again later.", dependency) from error
        finally:
            self._inside -= 1
