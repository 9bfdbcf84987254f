"""Both publishers under the same tests; and the Kafka one through outages."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from verifier.capture import KafkaPublisher, MemoryPublisher, PublisherStats
from verifier.capture.capture_queue import CaptureQueue
from verifier.capture.delivery import DeliveryReport, KafkaDelivery, OutRecord
from verifier.capture.records import GapNote, ResponseRecord, WriteRecord


class Broker:
    """A `Delivery` that can be away, can lose its topic, and refuses what is too large."""

    def __init__(self) -> None:
        self.log: list[OutRecord] = []
        self.away = False
        self.away_topics: set[str] = set()
        self.record_bytes_max = 1_048_576
        self.batches: list[int] = []
        self.attempted = asyncio.Event()
        self.closed = False

    async def deliver(self, records: Sequence[OutRecord]) -> DeliveryReport:
        await asyncio.sleep(0)
        self.attempted.set()
        self.batches.append(len(records))
        undelivered, refused = [], []
        for index, record in enumerate(records):
            if self.away or record.topic in self.away_topics:
                undelivered.append(index)
            elif len(record.value) > self.record_bytes_max:
                refused.append(index)
            else:
                self.log.append(record)
        return DeliveryReport(
            undelivered=tuple(undelivered),
            refused=tuple(refused),
            error="away" if undelivered else None,
        )

    async def close(self, timeout_s: float) -> None:
        self.closed = True


class Rig:
    """One publisher of either kind, and the hand on its Kafka."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.broker = Broker()
        self.publisher: KafkaPublisher | MemoryPublisher
        if kind == "memory":
            self.publisher = MemoryPublisher(side="main", **options)
        else:
            self.publisher = KafkaPublisher("unused:9092", side="main", delivery=self.broker, **options)

    def away(self, away: bool) -> None:
        self.broker.away = away
        if isinstance(self.publisher, MemoryPublisher):
            (self.publisher.hold if away else self.publisher.release)()

    def limit(self, record_bytes_max: int) -> None:
        self.broker.record_bytes_max = record_bytes_max
        if isinstance(self.publisher, MemoryPublisher):
            self.publisher._record_bytes_max = record_bytes_max

    @property
    def log(self) -> list[OutRecord]:
        return self.publisher.records if isinstance(self.publisher, MemoryPublisher) else self.broker.log

    def values(self) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in self.log]

    async def until(self, what: Callable[[PublisherStats], bool]) -> PublisherStats:
        async with asyncio.timeout(10):
            while not what(self.publisher.stats()):
                await asyncio.sleep(0.002)
        return self.publisher.stats()


both = pytest.mark.parametrize("kind", ["memory", "kafka"])


def response(request_id: str, body: bytes = b"{}", **changes: Any) -> ResponseRecord:
    fields: dict[str, Any] = {
        "request_id": request_id, "side": "main", "ts": 1.5, "method": "GET", "path": "/p", "status": 200,
        "headers": ((b"content-type", b"application/json"),), "redact": frozenset(), "body": body,
        "body_bytes": len(body), "body_truncated": False, "duration_ms": 1.0,
    }  # fmt: skip
    return ResponseRecord(**(fields | changes))


def write(request_id: str, value: bytes = b'{"w":1}', note: GapNote | None = None) -> WriteRecord:
    return WriteRecord(request_id=request_id, value=value, on_refused=lambda: note)


def gap(request_id: str, reason: str = "writes_dropped") -> GapNote:
    return GapNote(
        request_id=request_id, side="main", ts=1.0, method="GET", path="/p", status=200, reason=reason
    )


@both
@pytest.mark.asyncio
async def test_records_arrive_in_order_under_their_key_and_topic(kind: str) -> None:
    rig = Rig(kind, topic_prefix="eu.")
    for n in range(700):
        assert rig.publisher.publish_write(write(f"r{n}"))
        assert rig.publisher.publish_response(response(f"r{n}"))
    assert await rig.publisher.close(5) == 0
    assert [(r.topic, r.key) for r in rig.log] == [
        (topic, b"r%d" % n) for n in range(700) for topic in ("eu.main.writes", "eu.main.responses")
    ]
    stats = rig.publisher.stats()
    assert (stats.responses_published, stats.writes_published, stats.held, stats.held_bytes) == (
        700,
        700,
        0,
        0,
    )


@both
@pytest.mark.asyncio
async def test_at_the_bound_records_are_let_go_and_each_leaves_a_gap(kind: str) -> None:
    rig = Rig(kind, queue_max=4)
    rig.away(True)
    kept = [rig.publisher.publish_response(response(f"r{n}")) for n in range(10)]
    assert kept == [True] * 4 + [False] * 6
    assert rig.publisher.publish_write(write("r3")) is False
    stats = rig.publisher.stats()
    assert (stats.held, stats.responses_dropped, stats.writes_dropped, stats.gaps_held) == (4, 6, 1, 6)
    rig.away(False)
    await rig.until(lambda s: s.gaps_published == 6)
    assert {v["request_id"] for v in rig.values() if "capture_gap" in v} == {f"r{n}" for n in range(4, 10)}
    assert rig.publisher.publish_response(response("later")) is True, "there is room again"
    assert await rig.publisher.close(5) == 0


@both
@pytest.mark.asyncio
async def test_the_bound_counts_bytes_too(kind: str) -> None:
    rig = Rig(kind, queue_bytes_max=25_000)
    rig.away(True)
    assert [rig.publisher.publish_response(response(f"r{n}", b"x" * 10_000)) for n in range(3)] == [
        True, True, False,
    ]  # fmt: skip
    assert rig.publisher.stats().held_bytes <= 25_000
    rig.away(False)
    await rig.until(lambda s: s.gaps_published == 1 and s.held_bytes == 0)
    await rig.publisher.close(5)


@both
@pytest.mark.asyncio
async def test_a_full_ring_of_gaps_loses_the_oldest_and_counts_it(kind: str) -> None:
    rig = Rig(kind, queue_max=1, gaps_max=3)
    rig.away(True)
    for n in range(6):
        rig.publisher.publish_response(response(f"r{n}"))
    assert (rig.publisher.stats().gaps_held, rig.publisher.stats().gaps_lost) == (3, 2)
    rig.away(False)
    await rig.until(lambda s: s.gaps_published == 3)
    assert [v["request_id"] for v in rig.values() if "capture_gap" in v] == ["r3", "r4", "r5"]
    await rig.publisher.close(5)


@both
@pytest.mark.asyncio
async def test_what_the_broker_refuses_becomes_a_gap_and_holds_nothing_up(kind: str) -> None:
    rig = Rig(kind)
    rig.limit(2000)
    rig.publisher.publish_response(response("large", b"x" * 3000))
    rig.publisher.publish_write(write("wide", b"x" * 3000, gap("wide")))
    rig.publisher.publish_write(write("open", b"x" * 3000, None))
    rig.publisher.publish_response(response("small"))
    await rig.until(lambda s: s.gaps_published == 2 and s.responses_published == 1)
    assert rig.publisher.stats().refused == 3
    assert {(v["request_id"], v.get("capture_gap")) for v in rig.values()} == {
        ("large", "response_refused"), ("wide", "writes_dropped"), ("small", None),
    }  # fmt: skip
    assert await rig.publisher.close(5) == 0


@both
@pytest.mark.asyncio
async def test_a_record_without_a_json_form_does_not_stop_the_others(kind: str) -> None:
    rig = Rig(kind)
    rig.publisher.publish_response(response("bad", path="/\ud800"))
    rig.publisher.publish_response(response("good"))
    stats = await rig.until(lambda s: s.responses_published == 1)
    await rig.publisher.close(5)
    assert [v["request_id"] for v in rig.values()] == ["good"]
    assert stats.refused >= 1
    assert "bad" in str(rig.publisher.stats().last_error)


@both
@pytest.mark.asyncio
async def test_close_gives_up_what_kafka_does_not_take_and_says_how_much(kind: str) -> None:
    rig = Rig(kind, queue_max=3)
    rig.away(True)
    for n in range(5):
        rig.publisher.publish_response(response(f"r{n}"))
    started = time.monotonic()
    assert await rig.publisher.close(0.1) == 5
    assert time.monotonic() - started < 2
    assert rig.publisher.stats().lost_at_close == 5
    assert rig.publisher.publish_response(response("late")) is False
    assert rig.publisher.stats().responses_dropped == 3
    assert await rig.publisher.close(0.1) == 5, "closing twice is harmless"


@both
def test_impossible_bounds_are_refused(kind: str) -> None:
    for option in ("queue_max", "queue_bytes_max", "gaps_max"):
        bound: dict[str, Any] = {option: 0}
        with pytest.raises(ValueError, match=f"{option} is 0"):
            Rig(kind, **bound)
    with pytest.raises(ValueError, match="side is 'new'"):
        MemoryPublisher(side="new") if kind == "memory" else KafkaPublisher("k", side="new")  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_an_outage_is_ridden_out_and_nothing_is_lost_or_reordered() -> None:
    rig = Rig("kafka", batch_max=10)
    rig.away(True)
    for n in range(35):
        rig.publisher.publish_response(response(f"r{n}"))
    stats = await rig.until(lambda s: s.retries >= 1)
    assert not stats.connected
    assert stats.last_error == "away"
    rig.away(False)
    await rig.until(lambda s: s.responses_published == 35)
    assert [r.key for r in rig.log] == [b"r%d" % n for n in range(35)]
    assert max(rig.broker.batches) <= 10
    assert rig.publisher.stats().connected
    await rig.publisher.close(5)
    assert rig.broker.closed


@pytest.mark.asyncio
async def test_only_what_was_not_delivered_is_sent_again() -> None:
    rig = Rig("kafka")
    rig.broker.away_topics = {"main.writes"}
    for n in range(3):
        rig.publisher.publish_write(write(f"r{n}"))
        rig.publisher.publish_response(response(f"r{n}"))
    await rig.until(lambda s: s.responses_published == 3 and s.retries >= 1)
    rig.broker.away_topics = set()
    await rig.until(lambda s: s.writes_published == 3)
    assert len(rig.log) == 6
    await rig.publisher.close(5)


@pytest.mark.asyncio
async def test_publishing_from_a_thread_wakes_the_loop() -> None:
    rig = Rig("kafka")
    rig.publisher.publish_response(response("first"))
    await rig.until(lambda s: s.responses_published == 1)
    await asyncio.to_thread(rig.publisher.publish_response, response("second"))
    await rig.until(lambda s: s.responses_published == 2)
    await rig.publisher.close(5)


def test_records_published_before_there_is_a_loop_wait_for_it() -> None:
    broker: list[Broker] = []

    async def main() -> int:
        broker.append(Broker())
        publisher._delivery = broker[0]
        return await publisher.close(5)

    publisher = KafkaPublisher("unused:9092", side="main")
    assert publisher.publish_response(response("early"))
    assert asyncio.run(main()) == 0
    assert [r.key for r in broker[0].log] == [b"early"]


@pytest.mark.asyncio
async def test_with_no_kafka_at_all_publishing_neither_blocks_nor_raises() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = held.getsockname()[1]
        publisher = KafkaPublisher(f"127.0.0.1:{port}", side="main", queue_max=50, request_timeout_s=0.5)
        slowest_s = 0.0
        for n in range(200):
            started = time.perf_counter()
            publisher.publish_response(response(f"r{n}"))
            slowest_s = max(slowest_s, time.perf_counter() - started)
            if n % 20 == 0:
                await asyncio.sleep(0)
        assert slowest_s < 0.05
        async with asyncio.timeout(10):
            while publisher.stats().retries < 1:
                await asyncio.sleep(0.01)
        stats = publisher.stats()
        assert (stats.held, stats.responses_dropped, stats.connected) == (50, 150, False)
        assert "Kafka cannot be reached" in str(stats.last_error)
        started = time.perf_counter()
        assert await publisher.close(0.5) == 200
        assert time.perf_counter() - started < 5
    leftovers = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    assert leftovers == []


@pytest.mark.asyncio
async def test_a_wrong_option_is_told_and_not_raised() -> None:
    delivery = KafkaDelivery("127.0.0.1:1", client_id="t", options={"security_protocol": "TELEPATHY"})
    report = await delivery.deliver([OutRecord(topic="t", key=b"k", value=b"v")])
    assert report.undelivered == (0,)
    assert "TELEPATHY" in str(report.error) or "ecurity" in str(report.error)
    await delivery.close(1)


def test_the_queue_frees_exactly_what_it_held() -> None:
    queue = CaptureQueue(queue_max=10, queue_bytes_max=1_000_000, gaps_max=2)
    offered = [queue.offer_response(response(f"r{n}", b"x" * n)) for n in range(6)]
    offered += [queue.offer_write(write(f"r{n}", b"x" * n)) for n in range(6)]
    assert offered == [True] * 10 + [False] * 2
    taken = queue.take(100)
    assert queue.held == len(taken) == 10, "what is in flight still counts"
    queue.settle(taken)
    assert (queue.held, queue.held_bytes, queue.take(1)) == (0, 0, [])
