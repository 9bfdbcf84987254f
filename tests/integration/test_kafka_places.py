"""Records by their places, from a real Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from verifier.adapters.kafka_places import CONSUMERS_MAX, GAP_READ_MAX, PlacesReader
from verifier.core.errors import VerifierError
from verifier.demo.stack.kafka import Kafka

pytestmark = pytest.mark.integration
TOPICS = ("places.one", "places.two")
RECORDS = 500


@pytest_asyncio.fixture(loop_scope="function")
async def brokers(kafka: Kafka) -> AsyncIterator[list[str]]:
    bootstrap = [kafka.bootstrap]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        await admin.create_topics(
            [NewTopic(topic, num_partitions=2, replication_factor=1) for topic in TOPICS]
        )
        for topic in TOPICS:
            for partition in (0, 1):
                for number in range(RECORDS):
                    value = f"{topic} {partition} {number}".encode()
                    await producer.send(topic, value, partition=partition)
        await producer.flush()
        yield bootstrap
        await admin.delete_topics(list(TOPICS))
    finally:
        await producer.stop()
        await admin.close()


@pytest_asyncio.fixture(loop_scope="function")
async def reader(brokers: list[str]) -> AsyncIterator[PlacesReader]:
    reader = PlacesReader(brokers)
    yield reader
    await reader.stop()


def text(topic: str, partition: int, offset: int) -> bytes:
    return f"{topic} {partition} {offset}".encode()


async def test_records_come_in_the_order_asked_for_however_far_apart(reader: PlacesReader) -> None:
    places = [
        ("places.two", 1, 499), ("places.one", 0, 0), ("places.one", 0, GAP_READ_MAX - 1),
        ("places.one", 0, 400), ("places.one", 1, 250), ("places.one", 0, 0), ("places.two", 1, 3),
    ]  # fmt: skip
    found = await reader.fetch(places)
    assert [record and record.value for record in found] == [text(*place) for place in places]


async def test_what_retention_took_is_none_and_the_rest_is_there(
    brokers: list[str], reader: PlacesReader
) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.delete_records({TopicPartition("places.one", 0): RecordsToDelete(before_offset=100)})
    await admin.close()
    places = [("places.one", 0, 5), ("places.one", 0, 99), ("places.one", 0, 100), ("places.two", 0, 5)]
    found = await reader.fetch(places)
    assert [record and record.value for record in found] == [None, None, *(text(*p) for p in places[2:])]


async def test_an_offset_that_is_not_there_yet_is_an_error_that_names_it(reader: PlacesReader) -> None:
    with pytest.raises(VerifierError, match="places.one/1 ends at offset 500, but 701 was expected"):
        await reader.fetch([("places.one", 1, 700)])
    assert await reader.fetch([("places.one", 1, 7)])


async def test_consumers_are_kept_and_their_number_is_bounded(
    reader: PlacesReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[AIOKafkaConsumer] = []
    start = AIOKafkaConsumer.start

    async def counted(self: AIOKafkaConsumer) -> None:
        started.append(self)
        await start(self)

    monkeypatch.setattr(AIOKafkaConsumer, "start", counted)
    calls = [reader.fetch([("places.one", 0, n), ("places.two", 1, n)]) for n in range(40)]
    for n, found in enumerate(await asyncio.gather(*calls)):
        assert [record and record.value for record in found] == [
            text("places.one", 0, n),
            text("places.two", 1, n),
        ]
    assert len(started) <= CONSUMERS_MAX


async def test_a_reader_that_is_stopped_keeps_no_consumer(reader: PlacesReader) -> None:
    reading = asyncio.create_task(reader.fetch([("places.one", 0, 1)]))
    await asyncio.sleep(0)  # it has begun
    await reader.stop()
    assert await reading
    assert not reader._free
