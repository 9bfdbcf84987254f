"""Sends the planned requests through the edge, as many users at once would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import aiohttp

from verifier.demo.backlog import Backlog, served_at
from verifier.demo.plan import Plan, Planned
from verifier.demo.requests import HttpRequest, http_request

_SERVER_ERROR: Final = 500
_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request that was sent, and what the user got. `status` is None when there was no answer, and `error` why."""

    planned: Planned
    status: int | None
    duration_s: float
    answered_id: str | None = None
    error: str | None = None

    @property
    def served(self) -> bool:
        """Whether the user got the answer of the system that serves, to this very request."""
        return (
            self.status is not None
            and self.status < _SERVER_ERROR
            and self.answered_id in (None, self.planned.request_id)
        )


class TrafficError(Exception):
    """Users did not get main's answers. `failed` are the requests it happened to."""

    def __init__(self, failed: list[Sent]) -> None:
        first = failed[0]
        super().__init__(
            f"{len(failed)} requests were not served; the first: {first.planned.request_id}"
            f" ({first.planned.operation}), {first.error or f'status {first.status}'}"
        )
        self.failed = failed


async def send_all(
    base_url: str,
    plan: Plan,
    *,
    count: int = 5_000,
    rate_per_s: float = 120.0,
    in_flight_max: int = 64,
    retry_after_s: float = 2.0,
) -> list[Sent]:
    """Send the first `count` requests of the plan (to the end of a block) and return them in their order.

    Raises TrafficError when a user got no answer, or a server error.
    """
    sent = [
        each
        async for each in traffic(
            base_url,
            plan,
            count=count,
            rate_per_s=rate_per_s,
            in_flight_max=in_flight_max,
            retry_after_s=retry_after_s,
        )
    ]
    failed = [each for each in sent if not each.served]
    if failed:
        raise TrafficError(failed)
    return sorted(sent, key=lambda each: each.planned.number)


async def traffic(
    base_url: str,
    plan: Plan,
    *,
    count: int = 5_000,
    rate_per_s: float = 120.0,
    in_flight_max: int = 64,
    retry_after_s: float = 2.0,
    shadow_url: str | None = None,
) -> AsyncGenerator[Sent, None]:
    """Send the plan's requests at `rate_per_s`, at most `in_flight_max` at once; yields each as it is answered.

    A retry follows `retry_after_s` seconds after the answer to its first request: the copies of both reach the
    successor without an order, and a client that retried at once would race itself there. With `shadow_url` the rate
    falls when the successor falls behind (`backlog`).
    """
    free = asyncio.Semaphore(in_flight_max)
    answered: asyncio.Queue[Sent] = asyncio.Queue(in_flight_max)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=in_flight_max)
    async with aiohttp.ClientSession(base_url, timeout=timeout, connector=connector) as session:
        backlog = Backlog(None if shadow_url is None else served_at(session, shadow_url))
        sender = _Sender(session, plan.seed, free, answered, retry_after_s, backlog)
        planned = list(journeys(plan.requests(count)))
        # The group lives in a task of its own, so that whoever stops listening early leaves none behind.
        sending = asyncio.create_task(_send_at_rate(sender, planned, rate_per_s))
        try:
            for _ in range(sum(len(journey) for journey in planned)):
                yield await _next(answered, sending)
            await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _next(answered: asyncio.Queue[Sent], sending: asyncio.Task[None]) -> Sent:
    """The next answer; raises what ended the sending before there was one."""
    getting = asyncio.create_task(answered.get())
    await asyncio.wait((getting, sending), return_when=asyncio.FIRST_COMPLETED)
    if not getting.done() and answered.empty():
        getting.cancel()
        await sending
    return await getting


def journeys(requests: Iterable[Planned]) -> Iterator[list[Planned]]:
    """Requests that belong together: most are alone, some are followed by a partner."""
    journey: list[Planned] = []
    for planned in requests:
        if planned.role not in ("retry", "second") and journey:
            yield journey
            journey = []
        journey.append(planned)
    if journey:
        yield journey


async def _send_at_rate(sender: _Sender, planned: list[list[Planned]], rate_per_s: float) -> None:
    start, sent = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        for journey in planned:
            await asyncio.sleep(max(0.0, start + sent / rate_per_s - time.monotonic()))
            await sender.backlog.room()
            await sender.free.acquire()
            group.create_task(sender.journey(journey))
            sent += len(journey)


class _Sender:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        seed: int,
        free: asyncio.Semaphore,
        answered: asyncio.Queue[Sent],
        retry_after_s: float,
        backlog: Backlog,
    ) -> None:
        self.free = free
        self.backlog = backlog
        self._session = session
        self._seed = seed
        self._answered = answered
        self._retry_after_s = retry_after_s

    async def journey(self, requests: list[Planned]) -> None:
        """Send them one after the other; the first one's place has been taken already."""
        for index, planned in enumerate(requests):
            if index and planned.role == "retry":
                self.free.release()
                copies = self.backlog.started
                await asyncio.sleep(self._retry_after_s)
                await self.backlog.passed(copies)
                await self.free.acquire()
            self.backlog.start()
            await self._answered.put(await self._send(planned, http_request(self._seed, planned)))
        self.free.release()

    async def _send(self, planned: Planned, request: HttpRequest) -> Sent:
        start = time.perf_counter()
        try:
            async with self._session.request(
                request.method, request.path, headers=request.headers, data=request.body or None
            ) as response:
                await response.read()
                return Sent(
                    planned=planned,
                    status=response.status,
                    duration_s=time.perf_counter() - start,
                    answered_id=response.headers.get("x-request-id"),
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            duration_s = time.perf_counter() - start
            return Sent(
                planned=planned,
                status=None,
                duration_s=duration_s,
                error=f"{type(error).__name__}: {error}",
            )
