"""Kafka apart from the consumer group: writing outputs and journal, reading topics by offset, creating topics.

Errors of the client become `DependencyDown`; only its own timeouts bound a call. Reading by offset uses consumers
without a group, one for each read at most, so that reads never disturb one another's positions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, ProducerClosed

from verifier.adapters.kafka_calls import REQUEST_TIMEOUT_S, guarded, stopped
from verifier.adapters.kafka_places import PlacesReader
from verifier.core.errors import DependencyDown, VerifierError
from verifier.core.events import Source
from verifier.core.journal import Entry, Revisions, decode_entry, encode_entry, revisions_of
from verifier.stream.codec import Record
from verifier.stream.ports import EntryTooLarge, Message

_T = TypeVar("_T")
MESSAGE_BYTES_MAX = 32 * 1024 * 1024
FETCH_BYTES_MAX = 8 * 1024 * 1024
ENTRY_BYTES_MAX = 30 * 1024 * 1024
FAILURES_MAX = 3
SENT_TOGETHER_MAX = 100
"""Messages handed to the client under one time limit, which costs more than handing one over."""


class KafkaWriter:
    """Publishes messages and journal entries, each confirmed by the broker before the call returns."""

    def __init__(self, bootstrap: Sequence[str], journal_topic: str) -> None:
        self._bootstrap = list(bootstrap)
        self._journal_topic = journal_topic
        self._producer: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()
        self._failures = 0

    async def append(self, entry: Entry) -> int:
        """Append an entry to its partition's journal and return its offset.

        Raises `DependencyDown`, and `EntryTooLarge` where this client or the topic takes no record of that size.
        """
        encoded = encode_entry(entry)
        if len(encoded) > ENTRY_BYTES_MAX:
            raise EntryTooLarge(f"{len(encoded)} bytes, at most {ENTRY_BYTES_MAX}")
        try:
            return await self._counted(self._append(encoded, entry.partition))
        except DependencyDown as down:
            if isinstance(down.__cause__, MessageSizeTooLargeError):
                raise EntryTooLarge(f"{len(encoded)} bytes, more than {self._journal_topic} takes") from down
            raise

    async def _append(self, encoded: bytes, partition: int) -> int:
        producer = await self._started()
        future = await guarded(producer.send(self._journal_topic, encoded, partition=partition), "journal")
        done = await guarded(future, "journal")
        return int(done.offset)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Write all messages and wait until each is confirmed. Raises `DependencyDown`."""
        if messages:
            await self._counted(self._publish(messages))

    async def _publish(self, messages: Sequence[Message]) -> None:
        producer = await self._started()
        futures: list[asyncio.Future[Any]] = []

        async def send(some: Sequence[Message]) -> None:
            for message in some:
                futures.append(
                    await producer.send(
                        message.topic, message.value, key=message.key, partition=message.partition
                    )
                )

        for start in range(0, len(messages), SENT_TOGETHER_MAX):
            await guarded(send(messages[start : start + SENT_TOGETHER_MAX]), "publishing")
        await guarded(asyncio.gather(*futures), "publishing")

    async def stop(self) -> None:
        """Flush and close; gives up after a few seconds, as what was not confirmed is done again."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await stopped(producer)

    async def _counted(self, call: Awaitable[_T]) -> _T:
        """After some failures in a row, or a fatal one, the next call starts with a new producer."""
        try:
            result = await call
        except DependencyDown as down:
            self._failures += 1
            if self._failures >= FAILURES_MAX or isinstance(down.__cause__, ProducerClosed):
                self._failures = 0
                await self.stop()
            raise
        self._failures = 0
        return result

    async def _started(self) -> AIOKafkaProducer:
        async with self._lock:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    acks="all",
                    enable_idempotence=True,
                    compression_type="snappy",  # aiokafka's lz4 is the slow one: four times the CPU, a fifth smaller
                    max_request_size=MESSAGE_BYTES_MAX,
                    max_batch_size=256 * 1024,
                    request_timeout_ms=int(REQUEST_TIMEOUT_S * 500),
                )
                try:
                    await guarded(producer.start(), "connecting")
                except BaseException:
                    await stopped(producer)
                    raise
                self._producer = producer
            return self._producer


class KafkaReader:
    """Reads source topics and the journal by offset."""

    def __init__(self, bootstrap: Sequence[str], source_topics: Sequence[str], journal_topic: str) -> None:
        self._bootstrap = list(bootstrap)
        self._sources = tuple(source_topics)
        self._journal_topic = journal_topic
        self._offsets: AIOKafkaConsumer | None = None
        self._places = PlacesReader(bootstrap)
        self._entries = PlacesReader(bootstrap)  # a client that changes between topics asks for them anew
        self._lock = asyncio.Lock()

    # -- journal -------------------------------------------------------------------------------------------

    async def tail(self, partition: int) -> tuple[int, int]:
        """Return the journal's first offset kept and the next one to be written."""
        tp = TopicPartition(self._journal_topic, partition)
        consumer = await self._offsets_consumer()
        asked = asyncio.gather(consumer.beginning_offsets([tp]), consumer.end_offsets([tp]))
        first, end = await guarded(asked, "journal")
        return first[tp], end[tp]

    async def read_journal(self, partition: int, start: int, end: int | None) -> list[tuple[int, Entry]]:
        """Return the entries at offsets [start, end); what is no entry is passed over."""
        tp = TopicPartition(self._journal_topic, partition)
        consumer = await self._offsets_consumer()
        last = (await guarded(consumer.end_offsets([tp]), "journal"))[tp]
        stop = last if end is None else min(end, last)
        if stop <= start:  # as a rule, when somebody looks whether others have written
            return []
        if stop == start + 1:
            [value] = await self._entry_values(partition, [start])
            return [] if value is None else [(start, decode_entry(value))]
        first = (await guarded(consumer.beginning_offsets([tp]), "journal"))[tp]
        entries: list[tuple[int, Entry]] = []
        async for records in self._range(self._journal_topic, partition, max(start, first), stop):
            for record in records:
                if record.value:
                    entries.append((record.offset, decode_entry(record.value)))
                    await asyncio.sleep(0)  # an entry may be large: let others run in between
        return entries

    async def read_revisions(
        self, request_id: str, partition: int, offsets: Sequence[int]
    ) -> list[Revisions | None]:
        """Return what the entries say of a request, in the order asked; None where retention took one."""
        values = await self._entry_values(partition, offsets)
        return [None if value is None else revisions_of(value, request_id) for value in values]

    async def _entry_values(self, partition: int, offsets: Sequence[int]) -> list[bytes | None]:
        asked = sorted(set(offsets))
        records = await self._entries.fetch([(self._journal_topic, partition, offset) for offset in asked])
        found = {record.offset: record.value for record in records if record is not None and record.value}
        return [found.get(offset) for offset in offsets]

    # -- sources -------------------------------------------------------------------------------------------

    async def ends(self, partitions: Sequence[int]) -> dict[int, list[int]]:
        """Return for each partition index the next offset to be written in every source."""
        tps = [TopicPartition(topic, p) for p in partitions for topic in self._sources]
        consumer = await self._offsets_consumer()
        ends = await guarded(consumer.end_offsets(tps), "end offsets", 10.0)
        return {p: [ends[TopicPartition(topic, p)] for topic in self._sources] for p in partitions}

    async def beginnings(self, partition: int) -> list[int]:
        """Return the first offset kept of every source."""
        tps = [TopicPartition(topic, partition) for topic in self._sources]
        consumer = await self._offsets_consumer()
        beginnings = await guarded(consumer.beginning_offsets(tps), "beginning offsets", 10.0)
        return [beginnings[tp] for tp in tps]

    async def read(
        self, source: Source, partition: int, start: int, end: int
    ) -> AsyncGenerator[list[Record], None]:
        """Read the offsets [start, end) that are still there, batch by batch."""
        async with aclosing(self._range(self._sources[source], partition, start, end)) as batches:
            async for records in batches:
                yield records

    async def fetch(self, partition: int, refs: Sequence[tuple[Source, int]]) -> list[Record | None]:
        """Return single records in the order asked; None where retention took one."""
        return await self.fetch_places(
            [(self._sources[source], partition, offset) for source, offset in refs]
        )

    async def fetch_places(self, places: Sequence[tuple[str, int, int]]) -> list[Record | None]:
        """Return the records at (topic, partition, offset), in the order asked; None where retention took one."""
        return await self._places.fetch(places)

    # -- mechanics -----------------------------------------------------------------------------------------

    async def _range(
        self, topic: str, partition: int, start: int, end: int
    ) -> AsyncGenerator[list[Any], None]:
        if start < end:
            async with self._consumer() as consumer:
                async for records in self._range_of(consumer, topic, partition, start, end):
                    yield records

    async def _range_of(
        self, consumer: AIOKafkaConsumer, topic: str, partition: int, start: int, end: int
    ) -> AsyncIterator[list[Any]]:
        tp, what = TopicPartition(topic, partition), f"reading {topic}"
        if consumer.assignment() != {tp}:
            consumer.assign([tp])
        first = (await guarded(consumer.beginning_offsets([tp]), what))[tp]
        consumer.seek(tp, max(start, first))
        while await guarded(consumer.position(tp), what) < end:
            batches = await guarded(consumer.getmany(tp, timeout_ms=500), what)
            records = [record for record in batches.get(tp, ()) if record.offset < end]
            if records:
                yield records
            elif not batches:
                last = (await guarded(consumer.end_offsets([tp]), what))[tp]
                if last < end:
                    raise VerifierError(
                        f"{topic}/{partition} ends at offset {last}, but {end} was expected: "
                        "the topic has lost records or was made anew; see `verifier check`"
                    )

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            fetch_max_wait_ms=100,
        )
        try:
            await guarded(consumer.start(), "connecting")
            yield consumer
        finally:
            await stopped(consumer)

    async def _offsets_consumer(self) -> AIOKafkaConsumer:
        async with self._lock:
            if self._offsets is None:
                consumer = AIOKafkaConsumer(bootstrap_servers=self._bootstrap, enable_auto_commit=False)
                try:
                    await guarded(consumer.start(), "connecting")
                except BaseException:
                    await stopped(consumer)
                    raise
                self._offsets = consumer
            return self._offsets

    async def stop(self) -> None:
        """Close."""
        await self._places.stop()
        await self._entries.stop()
        if self._offsets is not None:
            consumer, self._offsets = self._offsets, None
            await stopped(consumer)


class KafkaJournal:
    """The journal topic, written by one client and read by another."""

    def __init__(self, writer: KafkaWriter, reader: KafkaReader) -> None:
        self.append = writer.append
        self.tail = reader.tail
        self._reader = reader

    async def read(self, partition: int, start: int, end: int | None = None) -> list[tuple[int, Entry]]:
        """Return the (offset, entry) pairs of offsets [start, end), by default up to the end as it is now."""
        return await self._reader.read_journal(partition, start, end)

    async def revisions(
        self, request_id: str, partition: int, offsets: Sequence[int]
    ) -> list[Revisions | None]:
        """Return what the entries say of a request, in the order asked; None where retention took one."""
        return await self._reader.read_revisions(request_id, partition, offsets)
