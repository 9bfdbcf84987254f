"""Writing the tables behind the journal: through outages, mistakes and rivals."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from stream_world import StreamWorld, eventually, pair
from verifier.core.errors import DependencyDown, VerifierError
from verifier.core.journal import Entry
from verifier.stream.ports import Status
from verifier.stream.tables import TablesWriter
from verifier.testing import MemoryJournal, MemoryStore, VirtualClock


class Fickle(MemoryStore):
    """Raises what it is told to, as long as it is told to."""

    raises: Exception | None = None
    told = 0

    async def apply(
        self, partition: int, entries: Sequence[tuple[int, Entry]], *, lag: int | None = 0
    ) -> tuple[str, ...]:
        if self.raises is not None:
            raise self.raises
        return await super().apply(partition, entries, lag=lag)

    async def status(self, partition: int, standing: Status) -> None:
        self.told += 1
        await super().status(partition, standing)


@asynccontextmanager
async def writing(world: StreamWorld) -> AsyncIterator[TablesWriter]:
    _, tables = world.worker()
    task = asyncio.create_task(tables.run())
    try:
        yield tables
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def entries_of(requests: int) -> list[tuple[int, Entry]]:
    """What a worker journals of so many requests, one entry or more each."""
    world = StreamWorld(join_timeout_s=0.5)
    async with world.running() as worker:
        for n in range(requests):
            world.produce(*pair(f"r{n}", time.time()))
            await world.hand_over(worker)
            await world.settled(n + 1)
    return await world.journal.read(0, 0)


async def test_whatever_the_store_raises_nothing_is_dropped_and_the_reason_is_known() -> None:
    entries = await entries_of(3)
    for error in (DependencyDown("postgres", "away"), VerifierError("no tables"), ZeroDivisionError()):
        world = StreamWorld()
        store = world.store = Fickle()
        store.raises = error
        async with writing(world) as tables:
            for offset, entry in entries[:3]:
                await tables.put(0, offset, entry)
            await eventually("it says so", lambda t=tables: t.waiting or t.blocked)  # type: ignore[misc]
            store.raises = None
            await eventually("all is written", lambda t=tables: t.queued == 0)  # type: ignore[misc]
            assert not tables.waiting and tables.blocked is None
        position = await store.position(0)
        assert position is not None and position.n == entries[:3][-1][1].n


async def test_a_full_queue_makes_its_partition_wait_and_no_other() -> None:
    world = StreamWorld()
    store = world.store = Fickle()
    store.raises = DependencyDown("postgres", "away")
    entries = await entries_of(5)
    async with writing(world) as tables:
        for offset, entry in entries[:4]:
            await tables.put(0, offset, entry)
        blocked = asyncio.create_task(tables.put(0, *entries[4]))
        await asyncio.wait_for(tables.put(1, *entries[0]), 5.0)
        assert not blocked.done()
        tables.forget(1)
        store.raises = None
        await asyncio.wait_for(blocked, 5.0)


async def test_entries_the_tables_lack_are_fetched_from_the_journal() -> None:
    entries = await entries_of(4)
    world = StreamWorld()
    for _, entry in entries:
        await world.journal.append(entry)
    async with writing(world) as tables:
        await tables.put(0, *entries[-1])
        await eventually("all is written", lambda: tables.queued == 0)
    assert (await world.summary())["requests"]["match"] == 4


async def test_entries_the_tables_have_are_passed_over() -> None:
    entries = await entries_of(4)
    world = StreamWorld()
    await world.store.apply(0, entries[:3])
    async with writing(world) as tables:
        for offset, entry in entries[:4]:
            await tables.put(0, offset, entry)
        await eventually("all is written", lambda: tables.queued == 0)
    position = await world.store.position(0)
    assert position is not None and position.n == entries[3][1].n


async def test_an_idle_partition_does_not_write_its_status_all_the_time() -> None:
    world = StreamWorld()
    store = world.store = Fickle()
    async with writing(world) as tables:
        for n in range(50):
            tables.note_status(0, Status(pending=0, lag=0, watermark=float(n), verified_through=float(n)))
            await eventually("it is looked at", lambda: not tables._changed.is_set())
    assert 1 <= store.told <= 2


async def test_a_status_is_told_again_now_and_then_for_another_may_have_had_the_last_word() -> None:
    store, clock = Fickle(), VirtualClock()
    tables = TablesWriter(store, MemoryJournal(), clock)
    standing = Status(pending=0, lag=0, watermark=1.0, verified_through=1.0, n=3)
    for expected in (1, 1, 1, 1, 2, 2):  # each half a second
        tables.note_status(0, standing)
        await tables.write_all()
        assert store.told == expected, f"after {clock.monotonic()} s"
        await clock.advance(0.5)
