"""The inbox of a partition worker: bounded, taken from in portions, and never a reason to wait for ever."""

from __future__ import annotations

import asyncio

from verifier.core.events import Source
from verifier.stream.inbox import Inbox
from verifier.stream.partition_config import Incoming
from verifier.testing import StubRecord

NO_BOUND = 1 << 40


def batch(first: int, records: int, *, source: Source = Source.EDGE, size: int = 1) -> Incoming:
    return Incoming(source, [StubRecord(offset=first + n, value=b"x" * size) for n in range(records)])


def offsets(batches: list[Incoming]) -> list[tuple[Source, list[int]]]:
    return [(each.source, [record.offset for record in each.records]) for each in batches]


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_hands_out_no_more_records_than_asked_for_and_keeps_the_rest_in_front() -> None:
    inbox = Inbox(4)
    await inbox.put(batch(0, 3))
    await inbox.put(batch(7, 4, source=Source.MAIN_WRITES))
    assert offsets(await inbox.take(5, NO_BOUND, 0.0)) == [
        (Source.EDGE, [0, 1, 2]),
        (Source.MAIN_WRITES, [7, 8]),
    ]
    assert offsets(await inbox.take(5, NO_BOUND, 0.0)) == [(Source.MAIN_WRITES, [9, 10])]
    assert inbox.empty()


async def test_large_records_are_handed_out_by_their_bytes_and_at_least_one() -> None:
    inbox = Inbox(4)
    await inbox.put(batch(0, 10, size=1_000))
    assert offsets(await inbox.take(100, 4_000, 0.0)) == [(Source.EDGE, [0, 1, 2, 3])]
    assert offsets(await inbox.take(100, 10, 0.0)) == [(Source.EDGE, [4])]


async def test_nothing_there_is_an_empty_portion_after_the_wait() -> None:
    assert await Inbox(1).take(10, 10, 0.001) == []


async def test_a_full_inbox_lets_wait_until_something_is_taken() -> None:
    inbox = Inbox(1)
    await inbox.put(batch(0, 2))
    waiting = asyncio.create_task(inbox.put(batch(2, 1)))
    await turn()
    assert not waiting.done()
    await inbox.take(1, NO_BOUND, 0.0)  # the rest of the batch is still there
    await turn()
    assert not waiting.done()
    await inbox.take(1, NO_BOUND, 0.0)
    await waiting
    assert offsets(await inbox.take(9, NO_BOUND, 0.0)) == [(Source.EDGE, [2])]


async def test_who_waits_is_let_go_when_it_closes_and_what_comes_later_is_dropped() -> None:
    inbox = Inbox(1)
    await inbox.put(batch(0, 1))
    waiting = asyncio.create_task(inbox.put(batch(1, 1)))
    await turn()
    inbox.close()
    await asyncio.wait_for(waiting, 1.0)
    await inbox.put(batch(2, 1))
    assert inbox.empty()


async def test_told_to_drop_it_makes_nobody_wait_and_takes_what_fits() -> None:
    inbox = Inbox(1)
    await inbox.put(batch(0, 1))
    waiting = asyncio.create_task(inbox.put(batch(1, 1)))
    await turn()
    inbox.drop_when_full(True)
    await asyncio.wait_for(waiting, 1.0)
    await inbox.put(batch(2, 1))
    assert offsets(await inbox.take(9, NO_BOUND, 0.0)) == [(Source.EDGE, [0])]
    await inbox.put(batch(3, 1))
    assert offsets(await inbox.take(9, NO_BOUND, 0.0)) == [(Source.EDGE, [3])]
