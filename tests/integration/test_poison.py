"""Records that make the code itself fail, wherever it does: each is set aside alone, and the partition goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from stream_world import StreamWorld, eventually, pair
from verifier.core.engine import Engine, Slice
from verifier.core.events import Source
from verifier.stream.codec import Codec, CodecConfig, Record
from verifier.testing import MemoryJournal, edge

Place = tuple[Source, int]
REQUESTS = 1_200


class FailingCodec(Codec):
    """A codec with a mistake: it fails on some records."""

    def __init__(self, *places: Place) -> None:
        super().__init__(CodecConfig())
        self._places = frozenset(places)

    def decode(self, source: Source, partition: int, records: Sequence[Record], known: Any = ()) -> Any:
        if any((source, record.offset) in self._places for record in records):
            raise ZeroDivisionError("a mistake of the codec's")
        return super().decode(source, partition, records, known)


class FailingEngine(Engine):
    """An engine with a mistake: it fails on one record, fed for the first time or again."""

    place: Place = Source.SHADOW_RESPONSES, 500

    def feed(self, batch: Slice, now: float, **named: Any) -> None:
        self._fail_on(batch)
        super().feed(batch, now, **named)

    def refeed(self, batch: Slice) -> None:
        self._fail_on(batch)
        super().refeed(batch)

    def _fail_on(self, batch: Slice) -> None:
        if any((seen.source, seen.offset) == self.place for seen in batch.seen):
            raise ZeroDivisionError("a mistake of the engine's")


def set_aside(world: StreamWorld) -> set[tuple[str, int]]:
    letters = world.publisher.compacted("rej").values()
    return {(letter["topic"], letter["offset"]) for letter in letters if letter["reason"] == "internal_error"}


async def test_poison_in_three_topics_and_side_by_side_is_set_aside_record_by_record() -> None:
    world = StreamWorld(join_timeout_s=1.0)
    for n in range(REQUESTS):
        world.produce(*pair(f"r{n}", time.time()))
    poison = FailingCodec(
        (Source.EDGE, 7),
        (Source.MAIN_RESPONSES, 600),
        (Source.MAIN_RESPONSES, 601),
        (Source.SHADOW_RESPONSES, 0),
    )
    async with world.running(codec=poison) as worker:
        await world.hand_over(worker)
        summary = await world.settled(REQUESTS)
        assert worker.blocked is None
    assert summary["requests"]["incomplete"] == 4
    assert summary["requests"]["match"] == REQUESTS - 4
    assert summary["rejected"] == 4
    assert summary["records"] == {0: 2 * REQUESTS, 1: REQUESTS, 2: REQUESTS}
    assert set_aside(world) == {("edge", 7), ("main.r", 600), ("main.r", 601), ("shadow.r", 0)}


async def test_a_record_on_which_the_engine_fails_is_set_aside_alone() -> None:
    world = StreamWorld(join_timeout_s=1.0)
    for n in range(REQUESTS):
        world.produce(*pair(f"r{n}", time.time()))

    def make_engine(partition: int) -> Engine:
        engine = world.engine(partition)
        return FailingEngine(partition, world.join, world.judge, engine.watermark)

    async with world.running(make_engine=make_engine) as worker:
        await world.hand_over(worker)
        summary = await world.settled(REQUESTS)
    assert summary["requests"]["match"] == REQUESTS - 1
    assert (summary["requests"]["incomplete"], summary["rejected"]) == (1, 1)
    assert set_aside(world) == {("shadow.r", FailingEngine.place[1])}


async def test_poison_that_a_next_owner_has_to_read_again_does_not_stop_it() -> None:
    world = StreamWorld(join_timeout_s=30.0)
    waiting = edge(
        "waits", ts=time.time()
    )  # it stays open, so what follows it is read again by the next owner
    world.produce(waiting)
    for n in range(200):
        world.produce(*pair(f"r{n}", time.time()))
    poison = FailingCodec((Source.EDGE, 100))
    async with world.running("one", codec=poison) as one:
        await world.hand_over(one)
        await world.settled(199, pending=2)
    async with world.running("two", codec=poison) as two:
        await eventually("the next owner has recovered", lambda: two.recovered)
        world.produce(*pair("after", time.time()))
        await world.hand_over(two)
        summary = await world.settled(200, pending=2)
    assert summary["requests"]["match"] == 200
    assert summary["rejected"] == 1
    assert set_aside(world) == {("edge", 100)}


async def test_what_was_in_work_when_the_partition_was_lost_is_not_blamed_for_what_fails_later() -> None:
    class FailsOnce(MemoryJournal):
        failures = 1

        async def tail(self, partition: int) -> tuple[int, int]:
            if self.failures:
                self.failures -= 1
                raise ZeroDivisionError("a mistake that has nothing to do with any record")
            return await super().tail(partition)

    world = StreamWorld(join_timeout_s=1.0)
    journal = world.journal = FailsOnce()
    world.produce(*pair("r", time.time()))
    worker, _ = world.worker()
    worker._care.begin(Source.EDGE, world.topics.records(Source.EDGE, 0, 0)[:1])  # when another took over
    async with world.running() as other:
        await world.hand_over(other)
        await world.settled(1)
    journal.failures = 1
    running = asyncio.create_task(worker.run())
    await eventually("it has recovered", lambda: worker.recovered and not journal.failures)
    running.cancel()
    assert worker._care.aside == set()
