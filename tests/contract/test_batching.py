"""What the batch transport takes for granted of faust-streaming: its private API, held to the pinned version."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from faust.transport import consumer as stock
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from verifier.demo.stack.kafka import Kafka
from verifier.stream import batching
from verifier.stream.batching import ASK_AGAIN_S, FETCH_WAIT_MS, BatchConsumer, BatchSchema, batch_transport
from verifier.stream.fetching import fetched, lighten

SOURCE, CHANGELOG = TP("edge.requests", 0), TP("app-routes-changelog", 0)
OTHER = TP("edge.requests", 1)


def test_the_version_is_the_one_this_was_written_for() -> None:
    assert version("faust-streaming") == "0.15.3"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("getmany", ["self", "timeout"]),
        ("_wait_next_records", ["self", "timeout"]),
        ("_add_gap", ["self", "tp", "offset_from", "offset_to"]),
        ("_new_offset", ["self", "tp"]),
        ("_filter_tps_with_pending_acks", ["self", "topics"]),
        ("perform_seek", ["self"]),
        ("verify_event_path", ["self", "now", "tp"]),
        ("ack", ["self", "message"]),
    ],
)
def test_the_methods_overridden_and_called_are_still_there(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(stock.Consumer, name)).parameters) == parameters
    assert hasattr(driver.Consumer, name)


def test_draining_goes_through_getmany_gaps_and_the_callback_alone() -> None:
    source = inspect.getsource(stock.Consumer._drain_messages)
    assert "async for tp, message in ait" in source
    assert "self._add_gap(" in source
    assert "message.offset" in source


def test_committing_asks_new_offset_for_every_partition_with_pending_acks() -> None:
    text = inspect.getsource(stock.Consumer)
    assert "self._new_offset(tp)" in text
    assert "self._filter_tps_with_pending_acks(" in text


async def _never(*_: object) -> None:
    raise AssertionError("nothing is to be called back")


def record(offset: int) -> Any:
    timestamp = 1_700_000_000_000 + offset
    return SimpleNamespace(offset=offset, timestamp=timestamp, timestamp_type=1, topic="x", partition=0)


NewConsumer = Callable[[dict[TP, list[Any]], dict[TP, int]], BatchConsumer]


@pytest.fixture
async def consumer_with() -> AsyncIterator[NewConsumer]:
    """Makes consumers without a broker: what a fetch brings is given."""
    made: list[Any] = []

    def make(fetched: dict[TP, list[Any]], committable: dict[TP, int]) -> BatchConsumer:
        app = faust.App(
            "batching", broker="kafka://127.0.0.1:1", web_enabled=False, store="memory://", loghandlers=[]
        )
        transport = batch_transport([SOURCE.topic], committable.get)(app.conf.broker_consumer, app)
        consumer = transport.create_consumer(
            callback=_never, on_partitions_revoked=_never, on_partitions_assigned=_never
        )
        assert isinstance(consumer, BatchConsumer)
        made.append(consumer)

        async def fetch(_timeout: float) -> tuple[dict[TP, list[Any]], None]:
            return fetched, None

        consumer._wait_next_records = fetch  # type: ignore[method-assign, assignment]
        consumer.flow_active = True
        return consumer

    yield make
    for consumer in made:
        consumer._thread.thread_loop.close()


async def test_a_fetch_of_the_sources_is_one_message_and_of_a_changelog_one_each(
    consumer_with: NewConsumer,
) -> None:
    batch = [record(5), record(6), record(9)]
    changes = [SimpleNamespace(**vars(record(n)), key=b"k", value=b"v", headers=(), checksum=0, serialized_key_size=1,
                               serialized_value_size=1) for n in (1, 2)]  # fmt: skip
    more = [record(2)]
    consumer = consumer_with({SOURCE: batch, CHANGELOG: changes, OTHER: more}, {})
    got = [(tp, message) async for tp, message in consumer.getmany(1.0)]
    assert [(tp, message.offset) for tp, message in got] == [(CHANGELOG, 1), (CHANGELOG, 2), (SOURCE, 9)]
    value: Any = got[2][1].value
    assert value == [(SOURCE, batch), (OTHER, more)] and value[0][1] is batch


async def test_records_read_before_are_handed_on_again_for_faust_drops_messages_by_their_offset(
    consumer_with: NewConsumer,
) -> None:
    consumer = consumer_with({SOURCE: [record(5)], OTHER: [record(90)]}, {})
    consumer._read_offset[SOURCE] = 41
    [(tp, message)] = [each async for each in consumer.getmany(1.0)]
    assert (tp, message.offset) == (SOURCE, 41)


async def test_faust_does_not_watch_partitions_of_sources_whose_messages_it_does_not_see(
    consumer_with: NewConsumer,
) -> None:
    consumer = consumer_with({}, {})
    watched: list[TP] = []
    consumer._thread.verify_event_path = lambda _now, tp: watched.append(tp)  # type: ignore[method-assign, assignment]
    for tp in (SOURCE, OTHER, CHANGELOG):
        consumer.verify_event_path(0.0, tp)
    assert watched == [CHANGELOG]


async def test_nothing_is_handed_on_while_the_flow_is_stopped(consumer_with: NewConsumer) -> None:
    consumer = consumer_with({SOURCE: [record(5)]}, {})
    consumer.flow_active = False
    sought: list[bool] = []

    async def seek() -> None:
        sought.append(True)

    consumer.perform_seek = seek  # type: ignore[method-assign]
    assert [pair async for pair in consumer.getmany(1.0)] == []
    assert sought == [True]


async def test_what_may_be_committed_of_a_source_is_what_the_application_says(
    consumer_with: NewConsumer,
) -> None:
    committable: dict[TP, int] = {}
    consumer = consumer_with({}, committable)
    assert consumer._new_offset(SOURCE) is None
    committable[SOURCE] = 41
    assert consumer._new_offset(SOURCE) == 41
    assert consumer._new_offset(CHANGELOG) is None


async def test_a_gap_in_a_source_is_nothing_to_wait_for(consumer_with: NewConsumer) -> None:
    consumer = consumer_with({}, {})
    await consumer._add_gap(SOURCE, 3, 7)
    await consumer._add_gap(CHANGELOG, 3, 7)
    assert SOURCE not in consumer._gap
    assert CHANGELOG in consumer._gap


def test_the_schema_leaves_values_as_they_are() -> None:
    value = [object()]
    schema = BatchSchema()
    assert schema.loads_value(None, SimpleNamespace(value=value)) is value
    assert schema.loads_key(None, SimpleNamespace(value=value)) is None


# -- records as the client's parser made them ------------------------------------------------------------------------


class _Partition:
    """What a fetch result asks of the assignment: a position that must be the next offset to hand out."""

    def __init__(self, position: int) -> None:
        self.active, self.paused, self.position = True, False, position

    def state_value(self, _tp: object) -> _Partition:
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


def _fetched(offsets: Sequence[range], start: int, *, corrupt: bool = False) -> tuple[Any, _Partition]:
    """A fetcher with the batches of one partition, asked for from `start` on; the last byte may be wrong."""
    data = b""
    for batch in offsets:
        builder = DefaultRecordBatchBuilder(
            magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
            batch_size=1 << 20,
        )  # fmt: skip
        for n, _ in enumerate(batch):
            builder.append(n, timestamp=1_000 + n, key=b"k", value=b"v%d" % batch[n], headers=[("h", b"x")])
        encoded = builder.build()
        encoded[:8] = batch[0].to_bytes(8, "big")  # the base offset is no part of the checksum
        data += bytes(encoded)
    if corrupt:
        data = data[:-1] + bytes([data[-1] ^ 1])
    at = _Partition(start)
    records = PartitionRecords(SOURCE, MemoryRecords(data), [], start, None, None, True, READ_UNCOMMITTED)
    result = FetchResult(SOURCE, assignment=at, partition_records=records, backoff=0)
    return SimpleNamespace(_records={SOURCE: result}), at


@pytest.mark.parametrize("most", [None, 1, 2, 3, 4, 100])
@pytest.mark.parametrize("start", [10, 12, 13])
def test_records_are_handed_out_as_the_client_would_without_copying_them(
    most: int | None, start: int
) -> None:
    batches = [range(10, 14), range(14, 15), range(20, 26)]
    stock, stock_at = _fetched(batches, start)
    light, light_at = _fetched(batches, start)
    lighten(light, {SOURCE.topic})
    handed_out = 0
    while stock._records[SOURCE].has_more() and (expected := stock._records[SOURCE].getall(most)):
        got = light._records[SOURCE].getall(most)
        assert [(r.offset, r.key, r.value, r.timestamp, tuple(r.headers)) for r in got] == [
            (r.offset, r.key, r.value, r.timestamp, r.headers) for r in expected
        ]
        assert {type(record).__name__ for record in got} == {"DefaultRecord"}
        handed_out += len(got)
        assert light_at.position == expected[-1].offset + 1 or light_at.position in (20, 26)
    assert handed_out == 26 - 20 + 15 - start
    assert light_at.position == stock_at.position == 26
    assert not light._records[SOURCE].getall(most)


def test_other_topics_and_committed_reads_are_left_alone() -> None:
    fetcher, _ = _fetched([range(3)], 0)
    lighten(fetcher, {"another"})
    assert "getall" not in vars(fetcher._records[SOURCE])
    fetcher._records[SOURCE]._partition_records._isolation_level = READ_COMMITTED
    lighten(fetcher, {SOURCE.topic})
    assert "getall" not in vars(fetcher._records[SOURCE])


def test_a_batch_with_a_wrong_checksum_is_refused_and_fetched_again() -> None:
    fetcher, at = _fetched([range(3), range(3, 5)], 0, corrupt=True)
    result = fetcher._records[SOURCE]
    lighten(fetcher, {SOURCE.topic})
    assert len(result.getall(3)) == 3
    with pytest.raises(CorruptRecordException):
        result.getall(3)
    assert not result.has_more() and at.position == 3


def test_the_fetcher_still_has_what_is_used_of_it() -> None:
    assert version("aiokafka") == "0.14.0"
    source = inspect.getsource(Fetcher.fetched_records)
    assert "res_or_error.getall(max_records)" in source
    assert "if drained or not timeout:" in source
    assert "self._create_fetch_waiter()" in source
    assert list(inspect.signature(Fetcher._create_fetch_waiter).parameters) == ["self"]
    thread = inspect.getsource(driver.AIOKafkaConsumerThread._fetch_records)
    assert "fetcher._subscriptions.fetch_context()" in thread


async def test_the_client_has_the_wait_that_is_set_for_it() -> None:
    client = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1", fetch_max_wait_ms=1500)
    assert client._fetch_max_wait_ms == 1500
    client._fetch_max_wait_ms = FETCH_WAIT_MS
    assert client._fetcher is None  # made at the start, with the wait as it is then
    await client.stop()


@pytest.mark.parametrize(
    ("unwanted", "asked", "timeout_s"),
    [
        (set(), {SOURCE, OTHER, CHANGELOG}, 1.0),
        ({OTHER}, {SOURCE, CHANGELOG}, ASK_AGAIN_S),
        ({SOURCE, OTHER, CHANGELOG}, {CHANGELOG}, ASK_AGAIN_S),  # a changelog is wanted always
    ],
)
async def test_what_is_not_wanted_is_not_asked_for(
    consumer_with: NewConsumer,
    monkeypatch: pytest.MonkeyPatch,
    unwanted: set[TP],
    asked: set[TP],
    timeout_s: float,
) -> None:
    consumer = consumer_with({}, {})
    type(consumer).wanted = staticmethod(lambda tp: tp not in unwanted)
    calls: list[tuple[set[TP], float]] = []

    async def fetch(
        _client: object, partitions: set[TP], timeout_s: float, *_: object
    ) -> dict[TP, list[Any]]:
        calls.append((partitions, timeout_s))
        return {}

    monkeypatch.setattr(batching, "fetched", fetch)
    await consumer._thread._fetch_records(None, {SOURCE, OTHER, CHANGELOG}, 1.0)
    assert calls == [(asked, timeout_s)]


async def test_when_nothing_is_wanted_nothing_is_asked_for(
    consumer_with: NewConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = consumer_with({}, {})
    type(consumer).wanted = staticmethod(lambda tp: False)
    monkeypatch.setattr(batching, "fetched", _never)
    assert await consumer._thread._fetch_records(None, {SOURCE, OTHER}, 1.0) == {}


@pytest.mark.integration
async def test_what_was_fetched_and_not_asked_for_stays_and_comes_later(kafka: Kafka) -> None:
    """On a real broker: one partition is left out for a while, the other goes on, and nothing is lost."""
    topic, records = "batching.left.out", 300
    admin = AIOKafkaAdminClient(bootstrap_servers=[kafka.bootstrap])
    producer = AIOKafkaProducer(bootstrap_servers=[kafka.bootstrap])
    consumer = AIOKafkaConsumer(
        bootstrap_servers=[kafka.bootstrap], max_partition_fetch_bytes=4_000, fetch_max_wait_ms=100
    )
    held, going = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await admin.start()
    await producer.start()
    await consumer.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
        for number in range(records):
            for partition in (0, 1):
                await producer.send(topic, b"%d" % number + b" " * 100, partition=partition)
            if number % 20 == 0:
                await producer.flush()
        await producer.flush()
        consumer.assign([held, going])
        await consumer.seek_to_beginning(held, going)
        got: dict[TopicPartition, list[int]] = {held: [], going: []}
        for wanted, until in (({going}, going), ({held, going}, held)):
            async with asyncio.timeout(30):
                while len(got[until]) < records:
                    for tp, batch in (await fetched(consumer, wanted, 0.05, 50, {topic})).items():
                        got[tp] += [each.offset for each in batch]
            assert got[going] == list(range(records))
            assert got[held] == (list(range(records)) if until is held else [])
    finally:
        await consumer.stop()
        await producer.stop()
        await admin.delete_topics([topic])
        await admin.close()
