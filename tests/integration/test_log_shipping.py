"""The shipped rsyslog configuration against a real Kafka: each line arrives, where Java would put it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import DefaultPartitioner

from verifier.demo.stack.errors import StackError
from verifier.demo.stack.kafka import Kafka
from verifier.demo.stack.rsyslog import Rsyslog

PARTITIONS = 4
Record = tuple[int, bytes | None, bytes]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture
def topic(kafka: Kafka, request: pytest.FixtureRequest) -> str:
    name = f"edge-test.{request.node.name}"

    async def create() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        topics = (name, *response_topics(name))
        await admin.create_topics([NewTopic(each, PARTITIONS, 1) for each in topics])
        await admin.close()

    asyncio.run(create())
    return name


def response_topics(topic: str) -> tuple[str, str]:
    return f"{topic}.main", f"{topic}.shadow"


def read(
    kafka: Kafka, topic: str, count: int, *, timeout_s: float = 30.0, settle_s: float = 1.0
) -> list[Record]:
    """What is in the topic once it holds `count` records; `settle_s` more are waited for one too many."""

    async def consume() -> list[Record]:
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        records: list[Record] = []
        try:
            partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += [
                        (record.partition, record.key, record.value.removesuffix(b"\n")) for record in batch
                    ]
                if len(records) >= count:
                    deadline = min(deadline, time.monotonic() + settle_s)
        finally:
            await consumer.stop()
        return records

    return asyncio.run(consume())


def line(number: int, **more: Any) -> bytes:
    record = {"v": 1, "request_id": f"ship-{number}", "side": "main", "ts": 1.5, "uri": f"/{number}"} | more
    return json.dumps(record, ensure_ascii=False).encode()


def append(log: Path, lines: list[bytes]) -> None:
    with log.open("ab", buffering=0) as file:
        for each in lines:
            file.write(each + b"\n")


def assert_keyed_as_java_does(records: list[Record]) -> None:
    every = list(range(PARTITIONS))
    for partition, key, value in records:
        assert key is not None and key.decode() == json.loads(value)["request_id"]
        assert partition == DefaultPartitioner()(key, every, every)


Ship = Callable[..., Rsyslog]


@pytest.fixture
def ship(kafka: Kafka, topic: str, tmp_path: Path) -> Iterator[Ship]:
    started: list[Rsyslog] = []

    def start() -> Rsyslog:
        log, topics = tmp_path / "edge.log.json", response_topics(topic)
        started.append(
            Rsyslog(
                tmp_path / "ship",
                log,
                kafka.bootstrap,
                topic,
                main_responses_topic=topics[0],
                shadow_responses_topic=topics[1],
            )
        )
        return started[-1].start()

    yield start
    for each in started:
        each.stop()


def test_each_line_arrives_once_and_where_java_would_put_it(
    ship: Ship, kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    log = tmp_path / "edge.log.json"
    before, after = [line(n) for n in range(1000)], [line(n) for n in range(1000, 2000)]
    append(log, before)
    ship()
    append(log, after)
    records = read(kafka, topic, 2000)
    assert Counter(value for _, _, value in records) == Counter(before + after)
    assert_keyed_as_java_does(records)
    assert len({partition for partition, _, _ in records}) == PARTITIONS


def test_what_a_line_holds_arrives_byte_for_byte(
    ship: Ship, kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    odd = [
        line(1, uri='/a?q="%$!x%\\\\n\\u0007\t#011', user_id="ключ 你好"),
        line(2, uri="/" + "x" * 100_000),
        b'{"request_id":"ship-3","ts":1.50,"b":1.0,"a":12345678901234567890}   ',
        b'{ "request_id" : "ship-4" }',
    ]
    log = tmp_path / "edge.log.json"
    append(log, odd)
    ship()
    records = read(kafka, topic, len(odd))
    assert sorted(value for _, _, value in records) == sorted(odd)
    assert_keyed_as_java_does(records)


def test_what_is_no_record_goes_unkeyed_to_be_rejected_in_sight(
    ship: Ship, kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    wrong = [b"not json", b'{"request_id":"cut', b'{"side":"main"}', b'{"request_id":""}', b"caf\xe9 {}"]
    append(tmp_path / "edge.log.json", [*wrong, line(1)])
    ship()
    records = read(kafka, topic, len(wrong) + 1)
    assert sorted(value for _, key, value in records if key is None) == sorted(wrong)
    assert [key for _, key, _ in records if key is not None] == [b"ship-1"]


def response(number: int, body: str) -> bytes:
    """As the edge writes it: the id at the beginning, the body at the end."""
    return f'{{"v":1,"request_id":"ship-{number}","status":200,"body":{body}}}'.encode()


def test_nothing_of_a_burst_stays_behind(ship: Ship, kafka: Kafka, topic: str, tmp_path: Path) -> None:
    """Bursts larger than its queue. When that overflowed to disk, some 2 of 100 bursts were not sent to the end."""
    bursts, size = 100, 400
    log = tmp_path / "shadow.responses.json"
    ship()

    async def send() -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
        await consumer.start()
        partitions = [TopicPartition(response_topics(topic)[1], number) for number in range(PARTITIONS)]
        try:
            for burst in range(bursts):
                first = burst * size
                append(log, [response(first + number, "1") for number in range(size)])
                deadline = time.monotonic() + 30.0
                while (sent := sum((await consumer.end_offsets(partitions)).values())) < first + size:
                    assert time.monotonic() < deadline, (
                        f"burst {burst}: {first + size - sent} lines stay behind"
                    )
                    await asyncio.sleep(0.02)
        finally:
            await consumer.stop()

    asyncio.run(send())


def test_responses_arrive_in_their_topics_however_large_or_deep(
    ship: Ship, kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    main = [
        response(1, "[" * 100 + "]" * 100),
        response(2, '"' + "x\\n" * 80_000 + '"'),
        response(3, "1e400"),
    ]
    shadow = [response(number, '"\\"é☃"') for number in range(300)]
    cut = b'{"v":1,"request'
    append(tmp_path / "main.responses.json", [*main, cut])
    append(tmp_path / "shadow.responses.json", shadow)
    ship()
    for name, sent in zip(response_topics(topic), (main, shadow), strict=True):
        records = read(kafka, name, len(sent))
        assert Counter(value for _, _, value in records) == Counter(sent)
        every = list(range(PARTITIONS))
        for partition, key, value in records:
            assert key is not None and value.startswith(b'{"v":1,"request_id":"' + key + b'"')
            assert partition == DefaultPartitioner()(key, every, every)
    assert [(key, value) for _, key, value in read(kafka, topic, 1)] == [(None, cut)]


def test_a_stop_and_a_start_neither_lose_nor_repeat(
    ship: Ship, kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    log = tmp_path / "edge.log.json"
    lines = [line(n) for n in range(900)]
    append(log, lines[:300])
    first = ship()
    assert len(read(kafka, topic, 300, settle_s=0)) == 300
    append(log, lines[300:600])
    first.stop()
    append(log, lines[600:])
    ship()
    assert Counter(value for _, _, value in read(kafka, topic, 900)) == Counter(lines)


def test_a_rotated_log_is_read_to_its_end(ship: Ship, kafka: Kafka, topic: str, tmp_path: Path) -> None:
    log = tmp_path / "edge.log.json"
    lines = [line(n) for n in range(600)]
    append(log, lines[:200])
    ship()
    assert len(read(kafka, topic, 200, settle_s=0)) == 200
    append(log, lines[200:400])
    log.rename(tmp_path / "edge.log.json.1")
    append(log, lines[400:])
    assert Counter(value for _, _, value in read(kafka, topic, 600)) == Counter(lines)


def test_lines_written_while_kafka_is_away_arrive_when_it_is_back(
    ship: Ship, kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    if kafka.external:
        pytest.skip("a Kafka from outside is not ours to stop")
    log = tmp_path / "edge.log.json"
    lines = [line(n) for n in range(3000)]
    append(log, lines[:1000])
    shipper = ship()
    assert len(read(kafka, topic, 1000, settle_s=0)) == 1000
    kafka.stop()
    append(log, lines[1000:2000])
    shipper.stop()  # with Kafka still away: what it holds goes to disk
    append(log, lines[2000:])
    ship()
    kafka.start()
    arrived = Counter(value for _, _, value in read(kafka, topic, 3000, timeout_s=60))
    assert set(arrived) == set(lines)
    assert sum(arrived.values()) - len(lines) <= 20, "more was repeated than was under way"


def test_an_outage_longer_than_its_queues_ends_by_itself(
    ship: Ship, kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    """Of each file more waits than rsyslog takes: it must come out of that without a restart."""
    if kafka.external:
        pytest.skip("a Kafka from outside is not ours to stop")
    logs = [tmp_path / name for name in ("edge.log.json", "main.responses.json", "shadow.responses.json")]
    topics = [topic, *response_topics(topic)]
    ship()
    for log, name in zip(logs, topics, strict=True):
        append(log, [response(number, "1") for number in range(300)])
        assert len(read(kafka, name, 300, settle_s=0)) == 300
    kafka.stop()
    for log in logs:
        append(log, [response(number, "1") for number in range(300, 5000)])
    kafka.start()
    for name in topics:
        arrived = Counter(value for _, _, value in read(kafka, name, 5000, timeout_s=60))
        assert set(arrived) == {response(number, "1") for number in range(5000)}
        assert sum(arrived.values()) - 5000 <= 20, "more was repeated than was under way"


def test_wrong_parameters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="topic cannot be"):
        Rsyslog(tmp_path, tmp_path / "log", "127.0.0.1:9092", 'x" action(type="omfile"')
