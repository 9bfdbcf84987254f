"""Single records by their places (topic, partition, offset), wherever they lie.

People ask for the records of one request, and a late record asks for those of its request: a handful in five topics,
far apart. So a few consumers are kept for it, all topics are read at once, and little is fetched around each record.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from verifier.adapters.kafka_calls import REQUEST_TIMEOUT_S, guarded, stopped
from verifier.core.errors import DependencyDown, VerifierError
from verifier.stream.codec import Record

Place = tuple[str, int, int]
CONSUMERS_MAX = 4
FETCH_BYTES_MAX = 64 * 1024
GAP_READ_MAX = 64
FETCH_WAIT_MS = 10
"""What is asked for is there; but the client fetches on from it, at a topic's end too, and who asks next waits."""
_POLL_MS = 500


class PlacesReader:
    """Reads with at most `CONSUMERS_MAX` consumers at once, which are kept; further calls wait for one."""

    def __init__(self, bootstrap: Sequence[str]) -> None:
        self._bootstrap = list(bootstrap)
        self._free: list[AIOKafkaConsumer] = []
        self._room = asyncio.Semaphore(CONSUMERS_MAX)
        self._closed = False

    async def fetch(self, places: Sequence[Place]) -> list[Record | None]:
        """Return the records in the order asked; None where retention took one.

        Raises `DependencyDown`, and `VerifierError` for an offset that the topic does not have yet.
        """
        if not places:
            return []
        await guarded(self._room.acquire(), "waiting for a consumer to read records with")
        try:
            try:
                found = await self._read(places, looking=False)
            except _NotThere:
                found = await self._read(places, looking=True)
        finally:
            self._room.release()
        return [found.get(place) for place in places]

    async def stop(self) -> None:
        """Close the consumers that are kept, and keep none of those at work."""
        self._closed = True
        while self._free:
            await stopped(self._free.pop())

    async def _read(self, places: Sequence[Place], *, looking: bool) -> dict[Place, Record]:
        """Read with a consumer that is free; one that failed is not kept."""
        consumer = self._free.pop() if self._free else await self._started()
        try:
            found = await _read(consumer, places, looking=looking)
        except BaseException:
            await stopped(consumer)
            raise
        if self._closed:
            await stopped(consumer)
        else:
            self._free.append(consumer)
        return found

    async def _started(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
        try:
            await guarded(consumer.start(), "connecting")
        except BaseException:
            await stopped(consumer)
            raise
        return consumer


class _NotThere(Exception):
    """Some of what was asked for without looking is gone, or was not written yet."""


async def _read(consumer: AIOKafkaConsumer, places: Sequence[Place], *, looking: bool) -> dict[Place, Record]:
    """Read what is there of the places, either `looking` first what that is, or raising `_NotThere` if not all is.

    Nearly always it is all there, and whoever waits is spared the question.
    """
    wanted = set(places)
    runs = _runs(sorted(wanted))
    consumer.assign(list(runs))
    if looking:
        await _begin(consumer, runs)
    else:
        for tp, of_partition in runs.items():
            consumer.seek(tp, of_partition[0][0])
    found: dict[Place, Record] = {}
    waited_ms = 0
    while runs:
        try:
            batches = await guarded(consumer.getmany(*runs, timeout_ms=_POLL_MS), "reading records")
        except DependencyDown as down:
            if looking or not isinstance(down.__cause__, OffsetOutOfRangeError):
                raise
            raise _NotThere from down
        if not batches and not looking:
            raise _NotThere
        waited_ms = 0 if batches else waited_ms + _POLL_MS
        if waited_ms > REQUEST_TIMEOUT_S * 1000:
            raise DependencyDown("kafka", f"reading records: none came in {REQUEST_TIMEOUT_S:.0f} s")
        for tp, records in batches.items():
            for record in records:
                place = (tp.topic, tp.partition, record.offset)
                if place in wanted:
                    found[place] = record
        for tp in list(runs):
            _go_on(consumer, tp, runs, await guarded(consumer.position(tp), "reading records"))
    return found


async def _begin(consumer: AIOKafkaConsumer, runs: dict[TopicPartition, deque[tuple[int, int]]]) -> None:
    """Seek to the first run of each partition; what retention took is passed over."""
    what = "offsets of records to read"
    asked = asyncio.gather(consumer.beginning_offsets(list(runs)), consumer.end_offsets(list(runs)))
    first, last = await guarded(asked, what)
    for tp in list(runs):
        end = runs[tp][-1][1]
        if last[tp] < end:
            raise VerifierError(
                f"{tp.topic}/{tp.partition} ends at offset {last[tp]}, but {end} was expected: "
                "the topic has lost records or was made anew; see `verifier check`"
            )
        consumer.seek(tp, max(first[tp], runs[tp][0][0]))
        _go_on(consumer, tp, runs, first[tp])


def _go_on(
    consumer: AIOKafkaConsumer,
    tp: TopicPartition,
    runs: dict[TopicPartition, deque[tuple[int, int]]],
    position: int,
) -> None:
    """Turn to the next run of a partition that was read up to `position`; after the last, fetch no more of it."""
    left = runs[tp]
    while left and left[0][1] <= position:
        left.popleft()
    if not left:
        del runs[tp]
        consumer.pause(tp)
    elif left[0][0] > position:
        consumer.seek(tp, left[0][0])


def _runs(places: Sequence[Place]) -> dict[TopicPartition, deque[tuple[int, int]]]:
    """Sorted places as runs of offsets [first, end), joined where they lie close enough to be read at once."""
    runs: dict[TopicPartition, deque[tuple[int, int]]] = {}
    for topic, partition, offset in places:
        of_partition = runs.setdefault(TopicPartition(topic, partition), deque())
        if of_partition and offset - of_partition[-1][1] < GAP_READ_MAX:
            of_partition[-1] = (of_partition[-1][0], offset + 1)
        else:
            of_partition.append((offset, offset + 1))
    return runs
