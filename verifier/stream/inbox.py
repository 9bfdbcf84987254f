"""The fetch batches that wait for a partition worker: a bounded queue that is taken from in portions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from verifier.stream.codec import Record
from verifier.stream.partition_config import Incoming


class Inbox:
    """Batches in the order they came. What is not taken any more is dropped: it is in Kafka, to be read by offset."""

    def __init__(self, batches_max: int) -> None:
        self._batches_max = batches_max
        self._batches: deque[Incoming] = deque()
        self._room = asyncio.Event()
        self._there = asyncio.Event()
        self._closed = False
        self._dropping = False

    def qsize(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._batches

    async def put(self, batch: Incoming) -> None:
        """Add a batch; waits while the inbox is full. Drops the batch when told to, and once it is closed."""
        while self._full and not self._closed and not self._dropping:
            self._room.clear()
            await self._room.wait()
        if not self._closed and not self._full:
            self._batches.append(batch)
            self._there.set()

    @property
    def _full(self) -> bool:
        return len(self._batches) >= self._batches_max

    def drop_when_full(self, dropping: bool) -> None:
        """Drop what there is no room for, instead of letting it wait, from now on or no more."""
        self._dropping = dropping
        if dropping:
            self._room.set()

    async def take(self, records_max: int, bytes_max: int, wait_s: float) -> list[Incoming]:
        """Take what is there, up to so many records and about so many bytes; waits for a first batch, at most `wait_s`.

        A batch beyond the bounds is divided, and its rest stays in front.
        """
        if not self._batches:
            self._there.clear()
            try:
                await asyncio.wait_for(self._there.wait(), wait_s)
            except TimeoutError:
                return []
        taken: list[Incoming] = []
        while self._batches and records_max > 0 and bytes_max > 0:
            batch = self._batches.popleft()
            records = batch.records
            bytes_there = _bytes_of(records)
            fitting = min(len(records), records_max)
            if bytes_there > bytes_max:
                fitting = max(1, min(fitting, len(records) * bytes_max // bytes_there))
            if fitting < len(records):
                self._batches.appendleft(Incoming(batch.source, records[fitting:]))
                batch = Incoming(batch.source, records[:fitting])
            records_max -= fitting
            bytes_max -= bytes_there
            taken.append(batch)
        self._room.set()
        return taken

    def close(self) -> None:
        """Take nothing more, and let go of whoever waits to put something in."""
        self._closed = True
        self._batches.clear()
        self._room.set()


def _bytes_of(records: Sequence[Record]) -> int:
    return sum([len(record.value) for record in records if record.value is not None])
