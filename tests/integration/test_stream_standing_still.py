"""A partition that is slow, stuck, held or told to finish: seen from outside, and without harm to others."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from stream_world import StreamWorld, eventually, pair
from verifier.core.events import Source
from verifier.stream.app import AppConfig
from verifier.stream.inbox import Inbox
from verifier.stream.partition import PartitionWorker
from verifier.stream.partition_config import Incoming
from verifier.stream.worker import Worker, WorkerConfig
from verifier.testing import MemoryJournal, edge, record


class Stopped(MemoryJournal):
    """A journal whose answers do not come as long as it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.going = asyncio.Event()
        self.going.set()

    async def append(self, entry: Any) -> int:
        await self.going.wait()
        return await super().append(entry)


def worker_over(world: StreamWorld, partition: PartitionWorker) -> Worker:
    """What readyz asks, with one partition at work."""
    app = AppConfig(group="g", brokers=(), sources=(), partitions=1, data_dir="")
    worker = Worker(
        WorkerConfig(app=app, cancel_again_s=0.05),
        make_partition=lambda *_: partition,
        tables=cast(Any, partition._ports.tables),
        records=world.topics,
        clock=world.clock,
    )
    worker.kafka_up = worker._assigned_once = True
    worker._partitions[0] = partition, asyncio.current_task()  # type: ignore[assignment]
    return worker


async def test_what_is_in_work_counts_as_lag_and_a_partition_that_stands_still_says_so() -> None:
    world, journal = StreamWorld(join_timeout_s=0.5), Stopped()
    world.journal = journal
    async with world.running(stuck_s=0.2) as partition:
        worker = worker_over(world, partition)
        world.produce(*pair("a", time.time()))
        await world.hand_over(partition)
        await world.settled(1)
        assert worker.not_ready() == []
        journal.going.clear()
        world.produce(*pair("b", time.time()), *pair("c", time.time()))
        await world.hand_over(partition)
        await eventually("it is stuck", lambda: partition.progress.stuck_s)
        assert partition.progress.lag == 8
        assert worker.lag_by_source()[Source.EDGE] == 4
        [reason] = worker.not_ready()
        assert "partition 0 has got no further" in reason
        assert "8 records waiting" in reason and "writing the journal" in reason
        async with asyncio.timeout(5):  # the tables are told, although the step does not end
            while (await world.summary())["lag"] != 8:
                await asyncio.sleep(0.01)
        journal.going.set()
        await world.settled(3)
        assert worker.not_ready() == []


async def test_a_long_step_gives_way_to_others() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    for n in range(2_000):
        world.produce(*pair(f"r{n}", time.time()))
    partition, tables = world.worker(slice_records_max=100, step_records_max=1_000, counts_every_s=0.0)
    entries: list[int] = []
    tasks = [asyncio.create_task(partition.run()), asyncio.create_task(tables.run())]
    await world.hand_over(partition)
    ticks = 0
    try:
        while partition._engine.positions[Source.EDGE] < 4_000:
            await asyncio.sleep(0)
            ticks += 1
            entries.append(partition._engine.n)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert ticks >= 4_000 // 100  # once between two slices at least
    assert max(entries) >= 3  # in steps of a thousand, each journaled


async def test_a_held_partition_finishes_its_step_begins_no_other_and_goes_on() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    async with world.running() as partition:
        world.produce(*pair("a", time.time()))
        await world.hand_over(partition)
        await world.settled(1)
        partition.turns.hold()
        assert any("rebalanced" in reason for reason in worker_over(world, partition).not_ready())
        world.produce(*pair("b", time.time()))
        await world.hand_over(partition)
        await eventually("it is seen", lambda: partition.progress.lag == 4)
        await eventually("it waits", lambda: partition.progress.doing == "waiting for its turn")
        assert (await world.summary())["requests"]["total"] == 1
        partition.turns.go_on()
        await world.settled(2)


async def test_told_to_finish_it_ends_after_the_step_in_work() -> None:
    world, journal = StreamWorld(join_timeout_s=0.5), Stopped()
    world.journal = journal
    partition, tables = world.worker()
    tasks = [asyncio.create_task(partition.run()), asyncio.create_task(tables.run())]
    try:
        await eventually("it is there", lambda: partition.recovered)
        journal.going.clear()
        world.produce(*pair("a", time.time()))
        await world.hand_over(partition)
        await eventually("the step is at the journal", lambda: "journal" in partition.progress.doing)
        partition.turns.finish()
        journal.going.set()
        await asyncio.wait_for(tasks[0], 5.0)
        assert partition.committable(Source.EDGE) == 2
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_offsets_without_records_at_the_end_of_a_topic_are_no_lag_for_ever() -> None:
    """Markers of transactions take offsets: the end lies beyond the last record."""
    world = StreamWorld(join_timeout_s=0.3)
    async with world.running() as partition:
        world.produce(*pair("a", time.time()))
        await world.hand_over(partition)
        world.topics._ends[Source.EDGE, 0] += 1
        await world.settled(1)
        await eventually("it is passed over", lambda: partition._engine.positions[Source.EDGE] == 3)
        summary = await world.settled(1)
    assert summary["records"] == {0: 2, 1: 1, 2: 1}


async def test_a_partition_that_takes_a_cancellation_for_its_own_is_cancelled_again() -> None:
    """As `asyncio.wait_for` does up to Python 3.11 when what it waits for comes at that very moment."""
    world = StreamWorld()
    partition, _ = world.worker()
    deaf: list[int] = []

    async def run() -> None:
        while True:
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                deaf.append(1)
                if len(deaf) == 2:
                    raise

    partition.run = run  # type: ignore[method-assign]
    worker = worker_over(world, partition)
    task = asyncio.create_task(partition.run())
    worker._partitions[0] = (partition, task)
    await asyncio.sleep(0)
    await asyncio.wait_for(worker._assigned(set()), 10.0)
    assert task.cancelled() and len(deaf) == 2


async def test_a_cancellation_is_not_lost_when_something_comes_at_that_very_moment() -> None:
    inbox = Inbox(10, 10_000)
    taking = asyncio.create_task(inbox.take(10, 10_000, 60.0))
    await asyncio.sleep(0)
    inbox.put(Incoming(Source.EDGE, [record(edge("r"))]))
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking


async def test_nothing_is_said_to_be_pending_while_claims_are_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = StreamWorld(join_timeout_s=600.0)
    records = pair("a", time.time())
    async with world.running() as partition:
        world.produce(*records[:2])
        await world.hand_over(partition)
        await world.settled(0, pending=1)
        telling = asyncio.Event()

        async def watch(_watermark: float) -> None:
            if partition.pending == 0:
                await telling.wait()

        monkeypatch.setattr(partition._contests, "watch", watch)
        world.produce(*records[2:])
        await world.hand_over(partition)
        await eventually("it says so", lambda: (told := partition.progress._standing) and not told.pending)
        telling.set()
