"""The partition worker through crashes, rivals, poison and lost memory, over in-memory servers."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from stream_world import StreamWorld, eventually, pair
from verifier.core.errors import DependencyDown
from verifier.core.events import Source
from verifier.core.journal import Entry, encode_entry, valid_entries
from verifier.stream.codec import Codec, CodecConfig, Record
from verifier.stream.ports import EntryTooLarge
from verifier.testing import MemoryJournal, edge, response, write


class FailsOn(Codec):
    """A codec with a mistake: it fails on one record."""

    def __init__(self, place: tuple[Source, int]) -> None:
        super().__init__(CodecConfig())
        self._place = place

    def decode(self, source: Source, partition: int, records: Sequence[Record], known: Any = ()) -> Any:
        if any((source, record.offset) == self._place for record in records):
            raise ZeroDivisionError("a mistake")
        return super().decode(source, partition, records, known)


async def test_a_record_that_makes_the_code_fail_is_set_aside_alone() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    for n in range(200):
        world.produce(*pair(f"r{n}", time.time()))
    poison = Source.MAIN_RESPONSES, 77
    async with world.running(codec=FailsOn(poison)) as worker:
        await world.hand_over(worker)
        summary = await world.settled(200)
    assert summary["requests"] == {
        "total": 200,
        "match": 199,
        "divergence": 0,
        "incomplete": 1,
        "incomparable": 0,
    }
    assert summary["rejected"] == 1
    [letter] = world.publisher.compacted("rej").values()
    assert (letter["topic"], letter["offset"], letter["reason"]) == ("main.r", 77, "internal_error")
    assert b'"r77"' in base64.b64decode(letter["value"])
    assert summary["records"] == {0: 400, 1: 200, 2: 200}


async def test_what_was_handed_over_before_a_failure_is_read_again_though_the_topics_are_idle() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    world.produce(*pair("a", time.time()), *pair("b", time.time(), status=500))
    async with world.running("one") as one:
        await world.hand_over(one)
        await world.settled(2)
        # a rival takes the partition and journals more; the first worker does not know yet
        async with world.running("two"):
            world.produce(*pair("c", time.time()))
            await world.settled(3)
        world.produce(*pair("d", time.time()))
        await world.hand_over(one)
        summary = await world.settled(4)
    assert summary["requests"]["match"] == 3 and summary["requests"]["divergence"] == 1
    assert (summary["duplicate"], summary["late"]) == (0, 0)
    assert summary["records"] == {0: 8, 1: 4, 2: 4}


async def test_lost_acknowledgements_count_nothing_twice() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    async with world.running() as worker:
        for n in range(5):
            world.journal.lose_acks = 2
            world.produce(*pair(f"r{n}", time.time()))
            await world.hand_over(worker)
            summary = await world.settled(n + 1)
    assert summary["records"] == {0: 10, 1: 5, 2: 5}
    entries = await world.journal.read(0, 0)
    assert len(list(valid_entries(entries))) < len(entries)


async def test_tables_that_are_behind_the_journal_are_brought_up_from_it() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    async with world.running() as worker:
        world.produce(*pair("a", time.time(), status=500), *pair("b", time.time()))
        await world.hand_over(worker)
        before = await world.settled(2)
    fresh = StreamWorld()
    world.store = fresh.store
    async with world.running("two"):
        after = await world.settled(2)
    assert {k: v for k, v in after.items() if k != "verified_through"} == {
        k: v for k, v in before.items() if k != "verified_through"
    }


async def test_a_journal_that_is_behind_the_tables_is_refused_with_the_reason() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    async with world.running() as worker:
        world.produce(*pair("a", time.time()))
        await world.hand_over(worker)
        before = await world.settled(1)
    world.journal = MemoryJournal()
    async with world.running("two") as worker:
        await eventually("it says why", lambda: worker.blocked is not None)
        assert "made anew" in str(worker.blocked)
        assert not worker.recovered
        assert (await world.summary())["requests"] == before["requests"]
        assert await world.journal.read(0, 0) == []


async def test_a_topic_made_anew_is_noticed() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    async with world.running() as worker:
        world.produce(*pair("a", time.time()))
        await world.hand_over(worker)
        await world.settled(1)
        world.topics._ends[Source.EDGE, 0] = 0
        await eventually("it says why", lambda: worker.blocked is not None)
        assert "edge ends before what was read of it" in str(worker.blocked)


async def test_records_the_consumer_drops_are_read_apart() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    async with world.running() as worker:
        await eventually("it is there", lambda: worker.recovered)
        world.produce(*pair("a", time.time()))
        summary = await world.settled(1)
    assert summary["requests"]["match"] == 1


class SmallJournal(MemoryJournal):
    """A journal that takes no entry beyond a size."""

    bytes_max = 4_000

    async def append(self, entry: Entry) -> int:
        if len(encode_entry(entry)) > self.bytes_max:
            raise EntryTooLarge("too large")
        return await super().append(entry)


async def test_an_entry_the_journal_does_not_take_goes_in_parts() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    world.journal = SmallJournal()
    ts = time.time()
    for n in range(60):
        world.produce(*pair(f"r{n}", ts, **({"status": 500} if n % 10 == 0 else {})))
    world.produce(*pair("huge", ts, body={"rows": {f"k{i}": "x" * 500 for i in range(100)}}))
    async with world.running() as worker:
        await world.hand_over(worker)
        summary = await world.settled(61)
    assert summary["requests"]["match"] == 54 and summary["requests"]["divergence"] == 7
    assert summary["records"] == {0: 122, 1: 61, 2: 61}
    entries = list(valid_entries(await world.journal.read(0, 0)))
    assert len(entries) > 3
    assert world.metrics._bounds_met._values[("entry_size",)] > 0
    assert Counter(r.outcome.request_id for _, e in entries for r in e.resolved).most_common(1)[0][1] == 1


async def test_a_crash_between_the_parts_of_an_entry_loses_and_repeats_nothing() -> None:
    world = StreamWorld(join_timeout_s=0.5)
    journal = SmallJournal()
    world.journal = journal
    for n in range(60):
        world.produce(*pair(f"r{n}", time.time()))
    async with world.running() as worker:
        await world.hand_over(worker)
        await eventually("a first part", lambda: len(journal._logs[0]) >= 1)
    kept = next(o for o, e in valid_entries(await journal.read(0, 0)) if e.resolved) + 1
    del journal._logs[0][kept:]
    world.store = StreamWorld().store
    async with world.running("two"):
        summary = await world.settled(60)
    assert summary["requests"]["match"] == 60
    assert summary["records"] == {0: 120, 1: 60, 2: 60}
    assert (summary["duplicate"], summary["late"]) == (0, 0)


async def test_a_request_judged_twice_from_nothing_is_judged_again_from_all_its_records() -> None:
    world = StreamWorld(join_timeout_s=0.3)
    ts = time.time()
    whole = pair("a", ts)
    async with world.running() as worker:
        world.produce(*whole[:3])
        await world.hand_over(worker)
        summary = await world.settled(1)
        assert summary["requests"]["incomplete"] == 1
        # what is left of it comes when the worker has forgotten the request and the tables were not asked
        worker._engine.join._closed.clear()
        worker._engine.join._forgotten_ts = float("-inf")
        late = response("a", "shadow", ts=time.time() + 5)
        world.produce(late)
        await world.hand_over(worker)
        await eventually("both are joined", lambda: world.store._requests["a"].row.outcome.verdict == "match")
        summary = await world.settled(1)
    assert summary["requests"] == {
        "total": 1,
        "match": 1,
        "divergence": 0,
        "incomplete": 0,
        "incomparable": 0,
    }
    assert world.store._requests["a"].row.rev > 0


async def test_while_tables_are_away_work_piles_up_to_a_bound_only() -> None:
    world = StreamWorld(join_timeout_s=0.3)

    async def away(*_: object, **__: object) -> tuple[str, ...]:
        raise DependencyDown("postgres", "away")

    apply = world.store.apply
    world.store.apply = away  # type: ignore[method-assign]
    async with world.running(inbox_records_max=10, counts_every_s=0.0) as worker:
        for n in range(30):
            world.produce(*pair(f"r{n}", time.time()))
            if worker.intake.wants(Source.EDGE):
                await world.hand_over(worker)
            await eventually("a step", lambda: True)
        await eventually("the queue is full", lambda: len(worker._ports.tables._queues[0]) == 4)  # type: ignore[attr-defined]
        assert (await world.summary())["requests"]["total"] == 0
        world.store.apply = apply  # type: ignore[method-assign]
        await world.hand_over(worker)
        summary = await world.settled(30)
    assert summary["requests"]["match"] == 30


@pytest.mark.parametrize("claimed", [True, False])
async def test_idempotency_keys_are_claimed_unless_that_is_switched_off(claimed: bool) -> None:
    world = StreamWorld(join_timeout_s=0.5)
    ts = time.time()
    for number, request_id in enumerate(("a", "b")):
        for side in ("main", "shadow"):
            world.produce(
                edge(request_id, side, ts=ts, method="POST"),
                write(request_id, side, ts=ts + number, key=number, data={"n": number}, idempotency_key="k"),
                response(request_id, side, ts=ts, method="POST", writes=1, idempotency_key="k"),
            )
    async with world.running(claim_idempotency_keys=claimed) as worker:
        await world.hand_over(worker)
        summary = await world.settled(2)
        async with asyncio.timeout(20):
            while claimed and summary["conflicts"] < 2:  # found with the entry after the one that claims
                await asyncio.sleep(0.01)
                summary = await world.summary()
    assert summary["conflicts"] == (2 if claimed else 0)
    assert bool(world.store._keys) is claimed


async def test_an_entry_that_tells_of_counts_alone_is_put_off_but_not_for_long() -> None:
    world = StreamWorld(join_timeout_s=600.0)
    async with world.running(counts_every_s=0.3) as worker:
        for n in range(50):
            world.produce(edge(f"r{n}", ts=time.time()))
            await world.hand_over(worker)
            await eventually("it is read", lambda n=n: worker._engine.positions[Source.EDGE] == n + 1)  # type: ignore[misc]
        summary = await world.settled(0, pending=50)
        took_at_most = len(await world.journal.read(0, 0))
        assert summary["records"] == {0: 50}
        world.produce(*pair("whole", time.time()))
        await world.hand_over(worker)
        await world.settled(1, pending=50)
    assert took_at_most < 25  # 50 steps, each with something read


async def test_what_is_to_be_told_is_told_at_once() -> None:
    """Verdicts, rejected, late and repeated records wait for nothing."""
    world = StreamWorld(join_timeout_s=600.0)
    async with world.running(counts_every_s=3_600.0) as worker:
        ts = time.time()
        world.produce(*pair("a", ts))
        await world.hand_over(worker)
        await world.settled(1)
        entries = len(await world.journal.read(0, 0))
        for more in (
            pair("a", ts)[0],  # the same record again
            response("a", "shadow", ts=time.time() + 1, status=500),  # a late one
            edge("b" * 600),  # to be rejected: no such id
        ):
            world.produce(more)
            await world.hand_over(worker)
            entries += 1
            await eventually("it is journaled", lambda n=entries: len(world.journal._logs[0]) >= n)  # type: ignore[misc]
