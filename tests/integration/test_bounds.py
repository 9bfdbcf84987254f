"""Every bound holds, is counted when it is met, and costs no request its verdict."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from flood import engine_of, run_flood
from stream_world import StreamWorld, pair
from verifier.adapters.claims import ClaimResult, RedisClaims
from verifier.adapters.metrics import Metrics
from verifier.core.events import Source
from verifier.core.join import JoinConfig
from verifier.core.journal import Entry
from verifier.core.outcome import Claim, Claimant
from verifier.demo.stack.redis import Redis
from verifier.stream.codec import Codec, CodecConfig
from verifier.stream.outputs import Outputs, OutputTopics
from verifier.stream.partition import Incoming, PartitionConfig, PartitionWorker, Ports
from verifier.stream.tables import TablesWriter
from verifier.testing import (
    TS,
    MemoryClaims,
    MemoryJournal,
    MemoryPublisher,
    MemoryStore,
    MemoryTopics,
    VirtualClock,
    edge,
    response,
    source_of,
    write,
)

TOPICS = OutputTopics(
    sources=tuple(source.name for source in Source), divergences="div", conflicts="con", rejected="rej"
)
REQUESTS = 8_000


# -- requests that nobody answers ------------------------------------------------------------------------------------


def test_unanswered_requests_beyond_the_bound_are_closed_early_and_say_so() -> None:
    join = JoinConfig(pending_requests_max=2_000, closed_requests_max=5_000, join_timeout_s=30.0)
    found, engine = run_flood(join, REQUESTS, requests_a_second=800.0)  # all within one join timeout
    assert found.verdicts == {"incomparable": REQUESTS - 2_000, "incomplete": 2_000}
    assert found.reasons == {"pending_bound": REQUESTS - 2_000}
    assert found.pending_max == 2_000
    assert found.closed_max <= 5_000 + 2_000  # what one step closes is noted before the oldest are forgotten
    assert found.stale_max <= 4 * 2_000 + 1_024 + 1_000
    assert engine.join.pending == 0


def test_unanswered_requests_within_the_bound_wait_for_the_watermark_though_three_sources_are_idle() -> None:
    join = JoinConfig(pending_requests_max=5_000, join_timeout_s=2.0, closed_hold_s=4.0)
    found, engine = run_flood(join, REQUESTS, requests_a_second=500.0)  # 16 s of traffic
    assert found.verdicts == {"incomplete": REQUESTS}
    assert found.pending_max <= 500 * (2 + 1) + 1_000
    assert found.closed_max <= 500 * (4 + 3) + 2_000
    assert engine.join.pending == 0
    assert engine.verified_through >= TS + REQUESTS / 500.0


def test_offsets_behind_a_closed_flood_may_be_committed() -> None:
    join = JoinConfig(pending_requests_max=1_000, join_timeout_s=5.0)
    _, engine = run_flood(join, 5_000, requests_a_second=5_000.0)
    assert engine.join.safe_offsets(engine.positions)[:2] == (5_000, 5_000)


def test_the_engine_of_a_partition_that_stays_empty_does_nothing() -> None:
    engine = engine_of(JoinConfig())
    for tick in range(100):
        engine.advance(float(tick), [True for _ in Source])
        assert engine.conclude().empty
    assert engine.verified_through == 0.0


# -- one hot key -----------------------------------------------------------------------------------------------------


def claim(scope: str, key: str, number: int, side: str = "main") -> Claim:
    claimant = Claimant(
        side=side,
        request_id=f"r-{number}",
        ts=TS + number / 100,
        operation="POST /n",
        entity="n",
        digest=number,
    )
    return Claim(scope=scope, key=key, claimant=claimant)


@pytest.mark.parametrize("scope", ["idempotency", "entity"])
async def test_one_hot_key_holds_a_bounded_set_and_says_what_it_dropped(redis: Redis, scope: str) -> None:
    claims = RedisClaims(redis.url(3), prefix=f"bounds-{scope}:")
    dropped, largest = 0, 0
    try:
        for first in range(0, 3_000, 500):
            result = await claims.apply([claim(scope, "hot", n) for n in range(first, first + 500)])
            dropped += result.dropped
            largest = max(largest, *(len(found.claimants) for found in result.contested))
    finally:
        await claims.close()
    assert largest == 128
    assert dropped == 3_000 - 128
    kept = {claimant.request_id for claimant in result.contested[0].claimants}
    oldest = scope == "idempotency"
    assert kept == {f"r-{n}" for n in (range(128) if oldest else range(3_000 - 128, 3_000))}


# -- slow servers ----------------------------------------------------------------------------------------------------


class SlowStore(MemoryStore):
    """A PostgreSQL that takes its time for each call."""

    def __init__(self, clock: VirtualClock, call_s: float) -> None:
        super().__init__()
        self._clock, self._call_s = clock, call_s
        self.calls = 0

    async def apply(
        self, partition: int, entries: Sequence[tuple[int, Entry]], *, lag: int | None = None
    ) -> tuple[str, ...]:
        self.calls += 1
        await self._clock.sleep(self._call_s)
        return await super().apply(partition, entries, lag=lag)


class SlowClaims(MemoryClaims):
    """A Redis that takes its time for each call."""

    def __init__(self, clock: VirtualClock, call_s: float) -> None:
        super().__init__(monotonic=clock.monotonic)
        self._waits, self._call_s = clock, call_s

    async def apply(self, claims: Sequence[Claim]) -> ClaimResult:
        await self._waits.sleep(self._call_s)
        return await super().apply(claims)


class SlowWorld:
    """A partition worker over a store and claims that are slow, fed by an input that goes on as fast as it is let."""

    def __init__(self, *, store_s: float, claims_s: float, queue_max: int) -> None:
        self.clock = VirtualClock(start=TS + 1_000)
        self.store = SlowStore(self.clock, store_s)
        journal, self.topics = MemoryJournal(), MemoryTopics()
        self.tables = TablesWriter(self.store, journal, self.clock, queue_max=queue_max)
        self.worker = PartitionWorker(
            0,
            make_engine=lambda _: engine_of(JoinConfig(join_timeout_s=5.0)),
            codec=Codec(CodecConfig()),
            outputs=Outputs(TOPICS, Metrics()),
            ports=Ports(
                journal=journal, records=self.topics, publisher=MemoryPublisher(),
                claims=SlowClaims(self.clock, claims_s), tables=self.tables, clock=self.clock,
            ),
            config=PartitionConfig(worker="w", inbox_records_max=4),
        )  # fmt: skip
        self.queued_max = 0
        self.ahead_max = 0
        self.steps = 0

    async def steps_of(self, batches: int) -> AsyncIterator[Sequence[Incoming]]:
        """Ten requests a step, each with its writes, complete at once."""
        numbers = itertools.count()
        for _ in range(batches):
            made = [record for number in itertools.islice(numbers, 10) for record in self._request(number)]
            for each in made:
                self.topics.produce(source_of(each), each)
            self.steps += 1
            yield [
                Incoming(source, self.topics.records(source, 0, start))
                for source, start in zip(Source, self.worker._engine.positions, strict=True)
            ]
            self.queued_max = max(self.queued_max, self.tables.queued)
            written = self.store._partitions[0].n + 1 if 0 in self.store._partitions else 0
            self.ahead_max = max(self.ahead_max, self.steps - written)

    def _request(self, number: int) -> list[dict[str, object]]:
        ts, made = TS + number / 100, []
        for side in ("main", "shadow"):
            made += [
                edge(f"r-{number}", side, ts=ts),
                response(f"r-{number}", side, ts=ts, writes=1),
                write(f"r-{number}", side, ts=ts, key=number),
            ]
        return made

    async def run(self, batches: int) -> None:
        writing = asyncio.create_task(self.tables.run())
        try:
            await self.worker.replay(self.steps_of(batches))
            while self.tables.queued:
                await self.clock.sleep(1.0)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)


async def test_a_slow_postgresql_holds_the_input_back_and_queues_no_more_than_its_bound() -> None:
    world = SlowWorld(store_s=1.0, claims_s=0.0, queue_max=8)
    await world.clock.drive(world.run(80))
    assert world.queued_max == 8  # it was met, and never passed
    assert world.ahead_max <= 8 + 2
    assert world.store.calls < 80  # what has queued up is written together
    assert (await world.store.summary())["requests"]["match"] == 800


async def test_a_slow_redis_holds_the_input_back_one_call_a_step() -> None:
    world = SlowWorld(store_s=0.0, claims_s=1.0, queue_max=8)
    await world.clock.drive(world.run(50))
    assert world.ahead_max <= 2
    assert 50.0 <= world.clock.monotonic() <= 60.0  # a call a step: batches cost, requests do not
    assert (await world.store.summary())["requests"]["match"] == 500


async def test_a_full_inbox_of_a_partition_keeps_the_consumer_from_fetching() -> None:
    world = SlowWorld(store_s=0.0, claims_s=0.0, queue_max=8)
    world.topics.produce(Source.EDGE, edge("r", "main", ts=TS))
    for _ in range(4):
        assert world.worker.intake.wants(Source.EDGE)
        world.worker.intake.put(Source.EDGE, world.topics.records(Source.EDGE, 0))
    assert not world.worker.intake.wants(Source.EDGE) and world.worker.intake.wants(Source.MAIN_WRITES)
    await world.worker.intake.take(world.worker._engine)
    assert world.worker.intake.wants(Source.EDGE)


# -- idle for good -------------------------------------------------------------------------------------------------


async def test_a_partition_that_gets_nothing_more_is_verified_further_and_further() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    ts = time.time() - 5.0
    async with world.running() as worker:
        world.produce(*pair("a", ts), edge("never-answered", ts=ts))
        await world.hand_over(worker)
        summary = await world.settled(2)
        assert summary["requests"]["incomplete"] == 1
        before = summary["verified_through"]
        assert before > ts
        # nothing comes any more: the clock carries it on, at its own pace
        while (await world.summary())["verified_through"] < before + 1.5:
            await asyncio.sleep(0.02)
        assert worker.pending == 0
