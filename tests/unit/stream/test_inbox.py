"""The inbox of a partition worker: bounded for each source, taken from in portions, and nobody's reason to wait."""

from __future__ import annotations

import asyncio

from verifier.core.events import Source
from verifier.stream.inbox import OVERFULL, Inbox
from verifier.stream.partition_config import Incoming
from verifier.testing import StubRecord

NO_BOUND = 1 << 40


def batch(first: int, records: int, *, source: Source = Source.EDGE, size: int = 1) -> Incoming:
    return Incoming(source, [StubRecord(offset=first + n, value=b"x" * size) for n in range(records)])


def offsets(batches: list[Incoming]) -> list[tuple[Source, list[int]]]:
    return [(each.source, [record.offset for record in each.records]) for each in batches]


async def test_it_hands_out_no_more_records_than_asked_for_and_keeps_the_rest_in_front() -> None:
    inbox = Inbox(100, NO_BOUND)
    inbox.put(batch(0, 3))
    inbox.put(batch(7, 4, source=Source.MAIN_WRITES))
    inbox.put(batch(3, 2))
    assert offsets(await inbox.take(5, NO_BOUND, 0.0)) == [
        (Source.EDGE, [0, 1, 2]),
        (Source.MAIN_WRITES, [7, 8]),
    ]
    assert offsets(await inbox.take(9, NO_BOUND, 0.0)) == [
        (Source.MAIN_WRITES, [9, 10]),
        (Source.EDGE, [3, 4]),
    ]
    assert not any(inbox.has(source) for source in Source)


async def test_large_records_are_handed_out_by_their_bytes_and_at_least_one() -> None:
    inbox = Inbox(100, NO_BOUND)
    inbox.put(batch(0, 10, size=1_000))
    assert offsets(await inbox.take(100, 4_000, 0.0)) == [(Source.EDGE, [0, 1, 2, 3])]
    assert offsets(await inbox.take(100, 10, 0.0)) == [(Source.EDGE, [4])]


async def test_nothing_there_is_an_empty_portion_after_the_wait() -> None:
    assert await Inbox(1, 1).take(10, 10, 0.001) == []


async def test_who_waits_gets_what_comes() -> None:
    inbox = Inbox(10, NO_BOUND)
    waiting = asyncio.create_task(inbox.take(10, NO_BOUND, 60.0))
    await asyncio.sleep(0)
    inbox.put(batch(0, 2))
    assert offsets(await asyncio.wait_for(waiting, 5.0)) == [(Source.EDGE, [0, 1])]


async def test_what_is_held_stays_while_the_others_are_taken() -> None:
    inbox = Inbox(100, NO_BOUND)
    inbox.put(batch(0, 2))
    inbox.put(batch(5, 1, source=Source.SHADOW_RESPONSES))
    held = {Source.EDGE}
    assert offsets(await inbox.take(9, NO_BOUND, 0.0, held)) == [(Source.SHADOW_RESPONSES, [5])]
    assert await inbox.take(9, NO_BOUND, 0.001, held) == []
    assert offsets(await inbox.take(9, NO_BOUND, 0.0)) == [(Source.EDGE, [0, 1])]


async def test_more_is_wanted_of_a_source_while_little_of_it_waits_by_records_and_by_bytes() -> None:
    by_records, by_bytes = Inbox(4, NO_BOUND), Inbox(100, 1_000)
    for inbox, record_bytes in ((by_records, 1), (by_bytes, 250)):
        inbox.put(batch(0, 3, size=record_bytes))
        assert inbox.wants(Source.EDGE)
        inbox.put(batch(3, 1, size=record_bytes))
        assert not inbox.wants(Source.EDGE)
        assert inbox.wants(Source.MAIN_WRITES)
        await inbox.take(1, NO_BOUND, 0.0)
        assert inbox.wants(Source.EDGE)


async def test_what_was_on_its_way_is_taken_up_to_a_bound_and_then_dropped() -> None:
    inbox = Inbox(10, NO_BOUND)
    assert all(inbox.put(batch(10 * n, 10)) for n in range(OVERFULL))
    assert not inbox.put(batch(10 * OVERFULL, 1))
    assert inbox.put(batch(0, 1, source=Source.MAIN_WRITES))
    taken = await inbox.take(1_000, NO_BOUND, 0.0)
    assert sum(len(each.records) for each in taken) == 10 * OVERFULL + 1


async def test_once_closed_it_wants_and_takes_nothing() -> None:
    inbox = Inbox(10, NO_BOUND)
    inbox.put(batch(0, 1))
    inbox.close()
    assert inbox.put(batch(2, 1)), "nothing is lost for want of room"
    assert not inbox.wants(Source.EDGE) and not inbox.has(Source.EDGE)
