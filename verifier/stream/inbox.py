"""The fetch batches that wait for a partition worker: bounded for each source, and taken from in portions.

Nobody waits to put something in: the consumer asks `wants` before it fetches. What it had fetched by then is still
taken, up to `OVERFULL` times the bounds; what comes beyond is dropped. It is in Kafka, to be read by offset.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Container, Sequence

from verifier.core.events import Source
from verifier.stream.codec import Record
from verifier.stream.partition_config import Incoming

OVERFULL = 8


class _Waiting:
    """What waits of one source: batches with their arrival number and bytes."""

    def __init__(self) -> None:
        self.batches: deque[tuple[int, int, Incoming]] = deque()
        self.records = 0
        self.bytes = 0


class Inbox:
    """Batches of the five sources, each source's in order."""

    def __init__(self, records_max: int, bytes_max: int) -> None:
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._waiting = [_Waiting() for _ in Source]
        self._there = asyncio.Event()
        self._arrivals = 0
        self._closed = False

    def wants(self, source: Source, times: int = 1) -> bool:
        """Whether there is room for more of a source. May be asked from another thread."""
        waiting = self._waiting[source]
        within = waiting.records < times * self._records_max and waiting.bytes < times * self._bytes_max
        return within and not self._closed

    def has(self, source: Source) -> bool:
        """Whether something of a source waits."""
        return bool(self._waiting[source].batches)

    def put(self, batch: Incoming) -> bool:
        """Add a batch; returns whether there was room. Once closed it takes nothing, and misses nothing."""
        if self._closed:
            return True
        if not self.wants(batch.source, OVERFULL):
            return False
        self._arrivals += 1
        self._add(batch, self._arrivals, _bytes_of(batch.records), front=False)
        self._there.set()
        return True

    def _add(self, batch: Incoming, arrival: int, bytes_there: int, *, front: bool) -> None:
        waiting = self._waiting[batch.source]
        (waiting.batches.appendleft if front else waiting.batches.append)((arrival, bytes_there, batch))
        waiting.records += len(batch.records)
        waiting.bytes += bytes_there

    async def take(
        self, records_max: int, bytes_max: int, wait_s: float, held: Container[Source] = ()
    ) -> list[Incoming]:
        """Take what is there, up to so many records and about so many bytes, first come, first taken.

        What is of a source in `held` stays. Waits at most `wait_s` for something to come if there is nothing to take. A
        batch beyond the bounds is divided, and its rest stays in front.
        """
        if self._first(held) is None:
            self._there.clear()
            try:
                # not `wait_for`: up to Python 3.11 it may lose a cancellation
                async with asyncio.timeout(wait_s):
                    await self._there.wait()
            except TimeoutError:
                return []
        taken: list[Incoming] = []
        while records_max > 0 and bytes_max > 0 and (source := self._first(held)) is not None:
            batch, bytes_there = self._take_first(source, records_max, bytes_max)
            records_max -= len(batch.records)
            bytes_max -= bytes_there
            taken.append(batch)
        return taken

    def _first(self, held: Container[Source]) -> Source | None:
        """The source whose turn it is."""
        heads = [
            (self._waiting[source].batches[0][0], source)
            for source in Source
            if self._waiting[source].batches and source not in held
        ]
        return min(heads)[1] if heads else None

    def _take_first(self, source: Source, records_max: int, bytes_max: int) -> tuple[Incoming, int]:
        waiting = self._waiting[source]
        arrival, bytes_there, batch = waiting.batches.popleft()
        records = batch.records
        waiting.records -= len(records)
        waiting.bytes -= bytes_there
        fitting = min(len(records), records_max)
        if bytes_there > bytes_max:
            fitting = max(1, min(fitting, len(records) * bytes_max // bytes_there))
        if fitting == len(records):
            return batch, bytes_there
        taken_bytes = _bytes_of(records[:fitting])
        self._add(Incoming(source, records[fitting:]), arrival, bytes_there - taken_bytes, front=True)
        return Incoming(source, records[:fitting]), taken_bytes

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True
        for waiting in self._waiting:
            waiting.batches.clear()
            waiting.records = waiting.bytes = 0


def _bytes_of(records: Sequence[Record]) -> int:
    return sum([len(record.value) for record in records if record.value is not None])
