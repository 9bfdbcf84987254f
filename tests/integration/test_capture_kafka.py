"""The publisher against a real Kafka."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.structs import TopicPartition

from verifier.capture import CaptureMiddleware, KafkaPublisher, record_write
from verifier.capture.asgi import Receive, Scope, Send
from verifier.demo.stack.kafka import Kafka

PARTITIONS = 4
REQUESTS = 2000


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    record_write("t", scope["path"], "insert", data={"path": scope["path"]})
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    )
    await send({"type": "http.response.body", "body": b'{"price": 1.50}'})


async def unused() -> dict[str, object]:
    return {"type": "http.disconnect"}


async def ignored(message: object) -> None:
    return


async def request(app: CaptureMiddleware, request_id: str) -> None:
    scope = {"type": "http", "method": "GET", "path": "/p", "query_string": b""}
    await app(scope | {"headers": [(b"x-request-id", request_id.encode())]}, unused, ignored)


async def make_topics(bootstrap: str, *names: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
    finally:
        await admin.close()


async def read(bootstrap: str, topic: str, count: int) -> list[tuple[bytes, int, bytes]]:
    """Every record of a topic as (key, partition, value), once `count` have come and no more do."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    found: list[tuple[bytes, int, bytes]] = []
    try:
        consumer.assign([TopicPartition(topic, p) for p in range(PARTITIONS)])
        async with asyncio.timeout(30):
            while True:
                batches = await consumer.getmany(timeout_ms=500)
                found += [(r.key, r.partition, r.value) for batch in batches.values() for r in batch]
                if len(found) >= count and not batches:
                    return found
    finally:
        await consumer.stop()


@pytest.mark.asyncio
async def test_every_record_arrives_once_on_the_partition_of_its_key(kafka: Kafka) -> None:
    prefix = f"capture-{uuid.uuid4().hex[:8]}."
    await make_topics(kafka.bootstrap, f"{prefix}main.responses", f"{prefix}main.writes")
    async with KafkaPublisher(
        kafka.bootstrap, side="main", topic_prefix=prefix, compression_type="lz4"
    ) as publisher:
        app = CaptureMiddleware(application, side="main", publisher=publisher)
        for n in range(REQUESTS):
            await request(app, f"r{n}")
        assert await publisher.close(20) == 0
    stats = publisher.stats()
    assert (stats.responses_published, stats.writes_published, stats.retries) == (REQUESTS, REQUESTS, 0)
    partitions = list(range(PARTITIONS))
    for topic in ("main.responses", "main.writes"):
        records = await read(kafka.bootstrap, prefix + topic, REQUESTS)
        assert sorted(key for key, _, _ in records) == sorted(b"r%d" % n for n in range(REQUESTS))
        for key, partition, value in records:
            assert partition == DefaultPartitioner()(key, partitions, partitions)
            assert json.loads(value)["request_id"].encode() == key


@pytest.mark.asyncio
async def test_topics_that_appear_late_get_all_that_waited(kafka: Kafka) -> None:
    prefix = f"capture-{uuid.uuid4().hex[:8]}."
    publisher = KafkaPublisher(kafka.bootstrap, side="main", topic_prefix=prefix, request_timeout_s=0.5)
    app = CaptureMiddleware(application, side="main", publisher=publisher)
    for n in range(20):
        await request(app, f"r{n}")
    async with asyncio.timeout(20):
        while publisher.stats().retries < 1:
            await asyncio.sleep(0.01)
    assert f"{prefix}main." in str(publisher.stats().last_error), "the error names the topic"
    await make_topics(kafka.bootstrap, f"{prefix}main.responses", f"{prefix}main.writes")
    async with asyncio.timeout(30):
        while publisher.stats().responses_published + publisher.stats().writes_published < 40:
            await asyncio.sleep(0.01)
    assert await publisher.close(5) == 0
    records = await read(kafka.bootstrap, f"{prefix}main.writes", 20)
    assert {key for key, _, _ in records} == {b"r%d" % n for n in range(20)}, "at least once, each of them"
