"""In-memory twins of everything a partition worker reaches the outside through, a virtual clock, and event builders.

Shipped, so that whoever embeds the verifier can test without servers. All of it is deterministic: nothing here reads
the machine's clock or draws random numbers. A twin whose `down` is set raises `DependencyDown`, as its original does.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from verifier.adapters.claims import ClaimResult, ClaimSet
from verifier.core.errors import DependencyDown, VerifierError
from verifier.core.events import Source
from verifier.core.journal import Entry, decode_entry, encode_entry
from verifier.core.partitioner import murmur2_partition
from verifier.stream.codec import Record
from verifier.stream.ports import Message
from verifier.testing_claims import MemoryClaims
from verifier.testing_tables import MemoryStore

__all__ = [
    "ClaimResult",
    "ClaimSet",
    "MemoryClaims",
    "MemoryJournal",
    "MemoryPublisher",
    "MemoryStore",
    "MemoryTopics",
    "NothingToWaitFor",
    "StubRecord",
    "VirtualClock",
    "edge",
    "record",
    "response",
    "source_of",
    "write",
]

TS = 1_767_225_600.0
"""Event time of the builders' records unless another is given: 2026-01-01T00:00:00Z."""

READ_RECORDS_MAX = 500
_SETTLE_ROUNDS = 25
_T = TypeVar("_T")


# -- time --------------------------------------------------------------------------------------------------------


class NothingToWaitFor(VerifierError):
    """Work neither ends nor sleeps on the virtual clock: it waits for something that no one will bring."""


class VirtualClock:
    """A clock that stands still until it is moved: by `advance`, or by `drive` whenever everyone sleeps.

    `now` starts at `start` (Unix seconds), `monotonic` at 0. Sleepers wake in the order of their time, and of their
    going to sleep.
    """

    def __init__(self, start: float = TS) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = 0

    def now(self) -> float:
        return self._start + self._elapsed_s

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, duration_s: float) -> None:
        """Wait until the clock is moved that far; zero or less only gives way to other tasks."""
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._elapsed_s + duration_s, self._order, woken))
        await woken

    @property
    def sleeping(self) -> int:
        """Number of tasks that sleep."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, duration_s: float) -> None:
        """Move on by so many seconds, waking each sleeper at its own time and letting it work before the next."""
        if duration_s < 0:
            raise ValueError(f"time does not go back, and not by {duration_s} s")
        until = self._elapsed_s + duration_s
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            await self._wake_next()
        self._elapsed_s = until
        await _settle()

    async def drive(self, work: Coroutine[Any, Any, _T], *, sleeps_max: int = 100_000) -> _T:
        """Run `work` to its end, moving on to the next sleeper's time whenever nothing else is left to do.

        Raises NothingToWaitFor when no one sleeps and the work does not end, or after `sleeps_max` sleeps.
        """
        task = asyncio.ensure_future(work)
        try:
            for _ in range(sleeps_max):
                await _settle(task)
                if task.done():
                    return task.result()
                self._sleepers = [each for each in self._sleepers if not each[2].done()]
                heapq.heapify(self._sleepers)
                if not self._sleepers:
                    raise NothingToWaitFor("the work waits, but no one sleeps on the virtual clock")
                await self._wake_next()
            raise NothingToWaitFor(f"the work has not ended after {sleeps_max} sleeps")
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _wake_next(self) -> None:
        at, _, woken = heapq.heappop(self._sleepers)
        self._elapsed_s = max(self._elapsed_s, at)
        if not woken.done():
            woken.set_result(None)
        await _settle()


async def _settle(task: asyncio.Future[Any] | None = None) -> None:
    """Let every task that can go on do so."""
    for _ in range(_SETTLE_ROUNDS):
        if task is not None and task.done():
            return
        await asyncio.sleep(0)


# -- topics ------------------------------------------------------------------------------------------------------


class StubRecord(Struct, kw_only=True):
    """A record as a consumer hands it over; `timestamp` is the broker's in milliseconds, 0 for none."""

    offset: int = 0
    key: bytes | None = None
    value: bytes | None = None
    timestamp: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


class _Server:
    """Something that can be away."""

    def __init__(self, dependency: str) -> None:
        self._dependency = dependency
        self.down = False

    def _must_be_up(self) -> None:
        if self.down:
            raise DependencyDown(self._dependency, "taken down by the test")


class MemoryTopics(_Server):
    """The five source topics, with offsets, retention and gaps."""

    def __init__(self, partitions: int = 1) -> None:
        super().__init__("kafka")
        self.partitions = partitions
        self._partition_of = murmur2_partition(partitions)
        self._logs: defaultdict[tuple[Source, int], dict[int, StubRecord]] = defaultdict(dict)
        self._ends: defaultdict[tuple[Source, int], int] = defaultdict(int)
        self._begins: defaultdict[tuple[Source, int], int] = defaultdict(int)

    def produce(
        self,
        source: Source,
        value: Mapping[str, Any] | bytes | None,
        *,
        partition: int | None = None,
        timestamp: int = 0,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> tuple[int, int]:
        """Append a record, keyed by its request id, to the partition the key belongs on or to the one given.

        Returns its partition and offset.
        """
        request_id = value.get("request_id") if isinstance(value, Mapping) else None
        key = str(request_id).encode() if request_id is not None else None
        if partition is None:
            partition = 0 if key is None else self._partition_of(key.decode())
        place = source, partition
        offset = self._ends[place]
        self._logs[place][offset] = StubRecord(
            offset=offset, key=key, value=_bytes(value), timestamp=timestamp, headers=tuple(headers)
        )
        self._ends[place] = offset + 1
        return partition, offset

    def skip(self, source: Source, partition: int, offsets: int) -> None:
        """Leave a gap of so many offsets, as transactions and compaction do."""
        self._ends[source, partition] += offsets

    def expire(self, source: Source, partition: int, before: int) -> None:
        """Let retention take the records below an offset."""
        place = source, partition
        self._begins[place] = max(self._begins[place], before)
        for offset in [offset for offset in self._logs[place] if offset < before]:
            del self._logs[place][offset]

    def records(self, source: Source, partition: int, start: int = 0) -> list[StubRecord]:
        """The records from an offset on, as a consumer would be handed them."""
        return [kept for offset, kept in sorted(self._logs[source, partition].items()) if offset >= start]

    async def ends(self, partitions: Sequence[int]) -> dict[int, list[int]]:
        self._must_be_up()
        return {p: [self._ends[source, p] for source in Source] for p in partitions}

    async def beginnings(self, partition: int) -> list[int]:
        self._must_be_up()
        return [self._begins[source, partition] for source in Source]

    async def read(
        self, source: Source, partition: int, start: int, end: int
    ) -> AsyncGenerator[list[Record], None]:
        wanted: list[Record] = [kept for kept in self.records(source, partition, start) if kept.offset < end]
        for first in range(0, len(wanted), READ_RECORDS_MAX):
            self._must_be_up()
            yield wanted[first : first + READ_RECORDS_MAX]

    async def fetch(self, partition: int, refs: Sequence[tuple[Source, int]]) -> list[Record | None]:
        self._must_be_up()
        found: list[Record | None] = [self._logs[source, partition].get(offset) for source, offset in refs]
        return found


class MemoryJournal(_Server):
    """The journal topic: a plain log, open to several writers, that checks nothing.

    Entries are kept encoded, as in Kafka. `lose_acks` makes the next appends succeed without the writer learning of it.
    """

    def __init__(self) -> None:
        super().__init__("kafka")
        self._logs: defaultdict[int, list[bytes]] = defaultdict(list)
        self._begins: defaultdict[int, int] = defaultdict(int)
        self.lose_acks = 0

    async def append(self, entry: Entry) -> int:
        self._must_be_up()
        log = self._logs[entry.partition]
        log.append(encode_entry(entry))
        if self.lose_acks:
            self.lose_acks -= 1
            raise DependencyDown("kafka", "the acknowledgement was lost")
        return len(log) - 1

    async def read(self, partition: int, start: int, end: int | None = None) -> list[tuple[int, Entry]]:
        self._must_be_up()
        log = self._logs[partition]
        start = max(start, self._begins[partition])
        stop = len(log) if end is None else min(end, len(log))
        return [(offset, decode_entry(log[offset])) for offset in range(start, stop)]

    async def tail(self, partition: int) -> tuple[int, int]:
        self._must_be_up()
        return self._begins[partition], len(self._logs[partition])

    def expire(self, partition: int, before: int) -> None:
        """Let retention take the entries below an offset."""
        self._begins[partition] = max(self._begins[partition], min(before, len(self._logs[partition])))


class MemoryPublisher(_Server):
    """The output topics: every message in order, and what a compacted topic would hold."""

    def __init__(self) -> None:
        super().__init__("kafka")
        self.messages: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        self._must_be_up()
        self.messages += messages

    def values(self, topic: str) -> list[Any]:
        """The decoded values of a topic, in order, tombstones as None."""
        return [_value(message) for message in self.messages if message.topic == topic]

    def compacted(self, topic: str) -> dict[str, Any]:
        """The newest decoded value of each key of a topic; tombstones are gone."""
        newest = {m.key.decode(): _value(m) for m in self.messages if m.topic == topic}
        return {key: value for key, value in newest.items() if value is not None}


def _value(message: Message) -> Any:
    return None if message.value is None else json.loads(message.value)


# -- records -----------------------------------------------------------------------------------------------------


def edge(request_id: str, side: str = "main", *, ts: float = TS, **fields: Any) -> dict[str, Any]:
    """One NGINX log line about one side."""
    return {
        "request_id": request_id, "side": side, "ts": ts, "method": "GET", "uri": "/api/v1/news", "status": 200,
        **fields,
    }  # fmt: skip


def response(request_id: str, side: str = "main", *, ts: float = TS, **fields: Any) -> dict[str, Any]:
    """One response, announcing that no writes come with it; `writes=None` leaves that out."""
    made = {
        "request_id": request_id, "side": side, "ts": ts, "method": "GET", "path": "/api/v1/news", "status": 200,
        "headers": {"content-type": "application/json"}, "body": {"items": []}, "writes": 0, **fields,
    }  # fmt: skip
    return {name: value for name, value in made.items() if name != "writes" or value is not None}


def write(request_id: str, side: str = "main", *, ts: float = TS, **fields: Any) -> dict[str, Any]:
    """One row-level write."""
    return {
        "request_id": request_id, "side": side, "ts": ts, "entity": "news", "key": 1, "op": "insert", "seq": 0,
        "data": {"title": "t"}, **fields,
    }  # fmt: skip


def source_of(made: Mapping[str, Any]) -> Source:
    """The topic a built record belongs to. Raises KeyError for an unknown side."""
    mains = {"main": True, "reference": True, "shadow": False, "canary": False}[made["side"]]
    if "uri" in made:
        return Source.EDGE
    if "entity" in made:
        return Source.MAIN_WRITES if mains else Source.SHADOW_WRITES
    return Source.MAIN_RESPONSES if mains else Source.SHADOW_RESPONSES


def record(made: Mapping[str, Any] | bytes | None, *, offset: int = 0, timestamp: int = 0) -> StubRecord:
    """A built record (or any bytes) as a consumer hands it over."""
    key = str(made.get("request_id", "")).encode() if isinstance(made, Mapping) else None
    return StubRecord(offset=offset, key=key, value=_bytes(made), timestamp=timestamp)


def _bytes(value: Mapping[str, Any] | bytes | None) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
