"""Between a simulated process and its servers: latency, outages, lost answers, and a crash between any two effects.

Each call waits, takes effect, and waits again. During either wait its process may crash or be stopped for a while; so
every call is cut before its effect in some runs and after it in others. What was on its way when its sender
died or was told to stop may still arrive, as with real servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, Protocol, TypeVar

from tests.simulation.virtual_loop import VirtualLoop
from verifier.adapters.postgres import Position, StoredAt
from verifier.core.errors import DependencyDown, StaleApply
from verifier.core.events import Source
from verifier.core.journal import Entry, decode_entry, encode_entry
from verifier.core.outcome import Claim
from verifier.stream.codec import Record
from verifier.stream.ports import Message, Status
from verifier.testing import (
    ClaimResult,
    MemoryClaims,
    MemoryJournal,
    MemoryPublisher,
    MemoryStore,
    MemoryTopics,
)

T = TypeVar("T")

IN_FLIGHT_S = 0.05
"""How long what a dead sender had sent may still be under way; a partition's next owner starts later than that."""


class Servers:
    """All servers, and which of them are down."""

    def __init__(self, rng: Random, loop: VirtualLoop, topics: MemoryTopics) -> None:
        self.rng = rng
        self.loop = loop
        self.topics = topics
        self.journal = MemoryJournal()
        self.publisher = MemoryPublisher()
        self.claims = MemoryClaims(monotonic=loop.time)
        self.store = MemoryStore()
        self.down: set[str] = set()
        self.slow: Source | None = None
        self.lost_acks_share = 0.0
        self.crash_share = 0.0
        self.stop_share = 0.0
        self.trace: list[str] = []
        self.on_append: Callable[[int, Entry], None] = lambda _offset, _entry: None

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace, by which two runs are known to be the same."""
        self.trace.append(f"{self.loop.time():.9f} {who} {what}")


class Sender(Protocol):
    """A process as its links see it."""

    name: str
    alive: bool
    stopped: bool

    async def going(self) -> None: ...
    def maybe_crash(self) -> None: ...
    def stop(self) -> None: ...


class Link:
    """One process's way to the servers."""

    def __init__(self, sender: Sender, servers: Servers, latency_s: float) -> None:
        self._sender = sender
        self._servers = servers
        self._rate = 1 / latency_s

    async def call(
        self, server: str, what: str, effect: Callable[[], Coroutine[Any, Any, T]], *, writes: bool
    ) -> T:
        """Reach a server: raises DependencyDown when it is away, or when its answer is lost after the effect."""
        servers = self._servers
        if what.startswith("publish") and servers.rng.random() < servers.stop_share:
            self._sender.stop()  # between its entry and its publishing: the worst moment
        try:
            await self._wait()
        except asyncio.CancelledError:
            if writes and servers.rng.random() < 0.5:
                delay_s = servers.rng.uniform(0, IN_FLIGHT_S)
                servers.loop.call_later(delay_s, self._arrive, server, what, effect)
            raise
        if server in servers.down:
            raise DependencyDown(server, "an outage of the simulation")
        servers.note(self._sender.name, what)
        result = run_now(effect())
        await self._wait()
        if server in servers.down or servers.rng.random() < servers.lost_acks_share:
            raise DependencyDown(server, "the answer was lost")
        return result

    async def _wait(self) -> None:
        sender, servers = self._sender, self._servers
        sender.maybe_crash()
        await servers.loop.after(servers.rng.expovariate(self._rate))
        if sender.stopped:
            await sender.going()
        sender.maybe_crash()

    def _arrive(self, server: str, what: str, effect: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        if server in self._servers.down:
            return
        self._servers.note(self._sender.name, f"arrives: {what}")
        try:
            run_now(effect())
        except StaleApply:
            self._servers.note(self._sender.name, "refused")


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, such as a twin's, to its end."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise AssertionError("a twin waited")


class JournalLink(Link):
    """The journal."""

    async def append(self, entry: Entry) -> int:
        async def effect() -> int:
            offset = await self._servers.journal.append(entry)
            self._servers.on_append(offset, decode_entry(encode_entry(entry)))
            return offset

        return await self.call("kafka", f"append {entry.partition}/{entry.n}", effect, writes=True)

    async def read(self, partition: int, start: int, end: int | None = None) -> list[tuple[int, Entry]]:
        journal = self._servers.journal
        return await self.call(
            "kafka",
            f"read {partition} {start}-{end}",
            lambda: journal.read(partition, start, end),
            writes=False,
        )

    async def tail(self, partition: int) -> tuple[int, int]:
        journal = self._servers.journal
        return await self.call("kafka", f"tail {partition}", lambda: journal.tail(partition), writes=False)


class RecordsLink(Link):
    """The source topics."""

    async def ends(self, partitions: Sequence[int]) -> dict[int, list[int]]:
        topics = self._servers.topics
        return await self.call("kafka", "ends", lambda: topics.ends(partitions), writes=False)

    async def beginnings(self, partition: int) -> list[int]:
        topics = self._servers.topics
        return await self.call("kafka", "beginnings", lambda: topics.beginnings(partition), writes=False)

    async def read(
        self, source: Source, partition: int, start: int, end: int
    ) -> AsyncGenerator[list[Record], None]:
        async def all_of_it() -> list[list[Record]]:
            return [batch async for batch in self._servers.topics.read(source, partition, start, end)]

        what = f"records {source.name} {partition} {start}-{end}"
        for batch in await self.call("kafka", what, all_of_it, writes=False):
            half = (len(batch) + 1) // 2
            for part in (batch[:half], batch[half:]):
                if part:
                    yield part

    async def fetch(self, partition: int, refs: Sequence[tuple[Source, int]]) -> list[Record | None]:
        topics = self._servers.topics
        return await self.call(
            "kafka", f"fetch {partition} {len(refs)}", lambda: topics.fetch(partition, refs), writes=False
        )


class PublisherLink(Link):
    """The output topics."""

    async def publish(self, messages: Sequence[Message]) -> None:
        publisher = self._servers.publisher
        what = "publish " + " ".join(f"{m.topic}:{m.key.decode()}" for m in messages)
        await self.call("kafka", what, lambda: publisher.publish(messages), writes=True)


class ClaimsLink(Link):
    """The claims."""

    async def apply(self, claims: Sequence[Claim]) -> ClaimResult:
        store = self._servers.claims
        return await self.call("redis", f"claims {len(claims)}", lambda: store.apply(claims), writes=True)

    async def versions(self, keys: Sequence[tuple[str, str]]) -> list[int]:
        store = self._servers.claims
        return await self.call("redis", f"versions {len(keys)}", lambda: store.versions(keys), writes=False)


class StoreLink(Link):
    """The tables."""

    async def apply(
        self, partition: int, entries: Sequence[tuple[int, Entry]], *, lag: int | None = None
    ) -> tuple[str, ...]:
        store = self._servers.store
        what = f"apply {partition}/{entries[0][1].n}-{entries[-1][1].n}"
        return await self.call(
            "postgres", what, lambda: store.apply(partition, entries, lag=lag), writes=True
        )

    async def position(self, partition: int) -> Position | None:
        store = self._servers.store
        return await self.call(
            "postgres", f"position {partition}", lambda: store.position(partition), writes=False
        )

    async def lookups(self, request_ids: Sequence[str]) -> Mapping[str, StoredAt]:
        store = self._servers.store
        return await self.call(
            "postgres", f"lookups {len(request_ids)}", lambda: store.lookups(request_ids), writes=False
        )

    async def status(self, partition: int, standing: Status) -> None:
        store = self._servers.store
        await self.call(
            "postgres", f"status {partition}", lambda: store.status(partition, standing), writes=True
        )
