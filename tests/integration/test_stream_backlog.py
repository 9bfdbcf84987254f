"""A backlog whose sources are not fetched at one pace: what is ahead waits, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import time

import pytest

from stream_world import StreamWorld, eventually, pair
from verifier.core.events import Source
from verifier.stream.alignment import AlignmentConfig
from verifier.stream.partition import PartitionWorker
from verifier.testing import write

REQUESTS = 2_000
NO_ALIGNMENT = AlignmentConfig(open_min=1 << 40, open_max=1 << 40)


async def fetch(world: StreamWorld, worker: PartitionWorker, *, last: Source, records_max: int = 100) -> int:
    """Hand over what is wanted as long as there is any, one source after all others; returns the most open."""
    handed = dict.fromkeys(Source, 0)
    open_max = 0
    while worker._engine.positions[last] < world.topics._ends[last, 0]:
        for source in sorted(Source, key=lambda each: each is last):
            records = world.topics.records(source, 0, handed[source])[:records_max]
            if records and worker.intake.wants(source):
                worker.intake.put(source, records)
                handed[source] = records[-1].offset + 1
                if source is not last:
                    break  # the last gets its turn when nobody else wants any more
        await asyncio.sleep(0.001)
        open_max = max(open_max, worker.pending)
    return open_max


@pytest.mark.parametrize("last", [Source.EDGE, Source.SHADOW_RESPONSES])
@pytest.mark.parametrize("aligned", [True, False])
async def test_a_source_that_lags_behind_the_others_in_a_backlog_keeps_them_waiting(
    last: Source, aligned: bool
) -> None:
    world = StreamWorld(join_timeout_s=3_600.0)
    began = time.time() - 3_600.0
    for n in range(REQUESTS):
        world.produce(*pair(f"r{n}", began + n))
    alignment = AlignmentConfig(apart_s=2.0, open_min=50, open_max=1_000_000) if aligned else NO_ALIGNMENT
    async with world.running(step_records_max=100, inbox_records_max=100, alignment=alignment) as worker:
        open_max = await fetch(world, worker, last=last)
        summary = await world.settled(REQUESTS)
    assert summary["requests"]["match"] == REQUESTS
    if aligned:
        assert open_max < 50 + 5 * 100
    else:
        assert open_max > REQUESTS / 2  # what is told above is the alignment's doing


async def test_what_the_consumer_never_hands_over_of_one_source_is_read_although_the_others_go_on() -> None:
    world = StreamWorld(join_timeout_s=600.0)
    async with world.running() as worker:
        await eventually("it is there", lambda: worker.recovered)
        world.produce(*pair("a", time.time()))
        world._handed[Source.SHADOW_RESPONSES] = 1  # dropped by the consumer

        async def go_on() -> None:
            for n in range(10_000):
                world.produce(write(f"w{n}", "main", key=n, ts=time.time()))
                await world.hand_over(worker)
                await asyncio.sleep(0.01)

        going = asyncio.create_task(go_on())
        try:
            await eventually("it is judged", lambda: "a" in world.store._requests)
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
    assert world.store._requests["a"].row.outcome.verdict == "match"


async def test_a_batch_for_which_there_is_no_room_is_read_by_offset() -> None:
    world = StreamWorld(join_timeout_s=600.0)
    for n in range(100):
        world.produce(*pair(f"r{n}", time.time()))
    async with world.running(inbox_records_max=1) as worker:
        await eventually("it is there", lambda: worker.recovered)
        for source in Source:
            for record in world.topics.records(source, 0, 0):
                worker.intake.put(source, [record])
        summary = await world.settled(100)
    assert summary["requests"]["match"] == 100
    assert world.metrics._bounds_met._values[("inbox",)] > 0
    assert (summary["duplicate"], summary["late"]) == (0, 0)
