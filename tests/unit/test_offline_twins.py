"""The shipped twins behave as what they stand in for, and the virtual clock moves only when it may."""

from __future__ import annotations

import asyncio

import pytest

from verifier.core.errors import DependencyDown
from verifier.core.events import Source
from verifier.core.journal import Entry
from verifier.core.partitioner import murmur2_partition
from verifier.stream.codec import Codec, CodecConfig
from verifier.stream.ports import Message
from verifier.testing import (
    TS,
    MemoryJournal,
    MemoryPublisher,
    MemoryTopics,
    NothingToWaitFor,
    VirtualClock,
    edge,
    record,
    response,
    source_of,
    write,
)

# -- clock ---------------------------------------------------------------------------------------------------------


async def test_time_stands_still_until_it_is_moved() -> None:
    clock = VirtualClock(100.0)
    task = asyncio.create_task(clock.sleep(5.0))
    await asyncio.sleep(0)
    assert (clock.now(), clock.monotonic(), clock.sleeping) == (100.0, 0.0, 1)
    await clock.advance(4.9)
    assert not task.done()
    await clock.advance(0.2)
    assert task.done()
    assert clock.now() == pytest.approx(105.1)
    assert clock.sleeping == 0
    with pytest.raises(ValueError, match="does not go back"):
        await clock.advance(-1.0)


async def test_sleepers_wake_at_their_own_time_and_in_their_order() -> None:
    clock, woken = VirtualClock(), list[tuple[str, float]]()

    async def sleeper(name: str, *durations_s: float) -> None:
        for duration_s in durations_s:
            await clock.sleep(duration_s)
            woken.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(sleeper(*each)) for each in (("a", 3.0, 1.0), ("b", 1.0, 2.0), ("c", 3.0))]
    await clock.advance(10.0)
    await asyncio.gather(*tasks)
    assert woken == [("b", 1.0), ("a", 3.0), ("c", 3.0), ("b", 3.0), ("a", 4.0)]
    assert clock.monotonic() == 10.0


async def test_driven_work_jumps_from_sleep_to_sleep() -> None:
    clock = VirtualClock()

    async def work() -> str:
        helper = asyncio.create_task(clock.sleep(7200.0))
        for _ in range(50):
            await clock.sleep(60.0)
            await clock.sleep(0)
        await helper
        return "done"

    assert await clock.drive(work()) == "done"
    assert clock.monotonic() == 7200.0


async def test_work_that_waits_for_nobody_is_told_apart() -> None:
    clock = VirtualClock()

    async def for_ever() -> None:
        while True:
            await clock.sleep(1.0)

    with pytest.raises(NothingToWaitFor, match="no one sleeps"):
        await clock.drive(asyncio.Event().wait())
    with pytest.raises(NothingToWaitFor, match="after 10 sleeps"):
        await clock.drive(for_ever(), sleeps_max=10)


async def test_an_error_of_driven_work_comes_out() -> None:
    async def work() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await VirtualClock().drive(work())


# -- topics --------------------------------------------------------------------------------------------------------


async def test_topics_partition_by_key_and_read_by_offset() -> None:
    topics = MemoryTopics(4)
    places = [topics.produce(Source.EDGE, edge(f"r{n}")) for n in range(40)]
    assert all(partition == murmur2_partition(4)(f"r{n}") for n, (partition, _) in enumerate(places))
    ends = await topics.ends(range(4))
    assert sum(ends[partition][Source.EDGE] for partition in range(4)) == 40
    read = [found async for batch in topics.read(Source.EDGE, 1, 2, ends[1][0]) for found in batch]
    assert [found.offset for found in read] == list(range(2, ends[1][0]))
    assert (await topics.fetch(1, [(Source.EDGE, 0)]))[0] == topics.records(Source.EDGE, 1)[0]


async def test_gaps_and_retention_take_offsets_away() -> None:
    topics = MemoryTopics()
    topics.produce(Source.EDGE, edge("a"))
    topics.skip(Source.EDGE, 0, 5)
    assert topics.produce(Source.EDGE, b"raw", partition=0) == (0, 6)
    topics.produce(Source.EDGE, None)
    topics.expire(Source.EDGE, 0, 6)
    assert await topics.beginnings(0) == [6, 0, 0, 0, 0]
    assert [found.value for found in topics.records(Source.EDGE, 0)] == [b"raw", None]
    assert await topics.fetch(0, [(Source.EDGE, 0), (Source.EDGE, 3), (Source.EDGE, 7)]) == [
        None, None, topics.records(Source.EDGE, 0)[1],
    ]  # fmt: skip


def entry(n: int, worker: str = "w") -> Entry:
    return Entry(partition=0, n=n, worker=worker, at=1.5)


async def test_the_journal_takes_what_anyone_writes_and_reads_it_back() -> None:
    journal = MemoryJournal()
    assert [await journal.append(each) for each in (entry(0), entry(1), entry(1, "rival"))] == [0, 1, 2]
    assert await journal.read(0, 1) == [(1, entry(1)), (2, entry(1, "rival"))]
    assert await journal.read(0, 0, 0) == []
    assert await journal.read(0, 0, 1) == [(0, entry(0))]
    journal.expire(0, 2)
    assert await journal.tail(0) == (2, 3)
    assert await journal.read(0, 0) == [(2, entry(1, "rival"))]
    assert await journal.tail(7) == (0, 0)


async def test_an_append_can_succeed_without_its_writer_knowing() -> None:
    journal = MemoryJournal()
    journal.lose_acks = 1
    with pytest.raises(DependencyDown):
        await journal.append(entry(0))
    assert await journal.append(entry(0)) == 1
    assert await journal.tail(0) == (0, 2)


async def test_outputs_are_kept_in_order_and_as_compaction_would() -> None:
    publisher = MemoryPublisher()
    for key, value in ((b"a", b'{"n":1}'), (b"b", b'{"n":2}'), (b"a", b'{"n":3}'), (b"b", None)):
        await publisher.publish([Message(topic="t", key=key, value=value)])
    assert publisher.values("t") == [{"n": 1}, {"n": 2}, {"n": 3}, None]
    assert publisher.compacted("t") == {"a": {"n": 3}}
    assert publisher.values("other") == []


async def test_what_is_down_says_so_everywhere() -> None:
    topics, journal, publisher = MemoryTopics(), MemoryJournal(), MemoryPublisher()
    topics.produce(Source.EDGE, edge("a"))
    topics.down = journal.down = publisher.down = True
    reading = topics.read(Source.EDGE, 0, 0, 1)
    for call in (
        topics.ends([0]), topics.beginnings(0), topics.fetch(0, []), anext(reading), journal.append(entry(0)),
        journal.read(0, 0), journal.tail(0), publisher.publish([]),
    ):  # fmt: skip
        with pytest.raises(DependencyDown, match="kafka"):
            await call
    topics.down = journal.down = publisher.down = False
    assert await topics.beginnings(0) == [0, 0, 0, 0, 0]


# -- builders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["main", "shadow", "canary", "reference"])
def test_what_is_built_can_be_read(side: str) -> None:
    codec = Codec(CodecConfig())
    for made in (edge("r1", side), response("r1", side, writes=None), write("r1", side, key={"a": 1})):
        if side == "reference" and "uri" in made:
            continue
        seen, rejections = codec.decode(
            source_of(made), 0, [record(made, offset=3, timestamp=int(TS * 1000))]
        )
        assert rejections == []
        assert (seen[0].event.request_id, seen[0].event.side, seen[0].offset) == ("r1", side, 3)
