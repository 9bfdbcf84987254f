"""Defects that the simulator has found where seeds find them again only now and then: each told by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
import structlog
from msgspec.structs import replace

from tests.simulation.cluster import TOPICS, NoMetrics
from verifier.core.errors import DependencyDown
from verifier.core.journal import Entry
from verifier.core.outcome import Claim, Claimant, Outcome, Resolved
from verifier.stream.appending import LOOK_EVERY_S, Appending
from verifier.stream.contests import EPOCH_EVERY_S, Contests, Said
from verifier.stream.metrics_port import MetricsPort
from verifier.stream.outputs import Outputs
from verifier.stream.partition_config import PartitionConfig, Ports
from verifier.stream.ports import Fenced, Message
from verifier.stream.publishing import Publishing
from verifier.testing import TS, MemoryClaims, MemoryJournal, MemoryPublisher, MemoryTopics, VirtualClock

Call = Callable[[], Awaitable[Any]]


def _entry(n: int, worker: str, *claims: Claim, epoch: str = "") -> Entry:
    return Entry(partition=0, n=n, worker=worker, at=TS + n, claims=claims, epoch=epoch)


def _claim(request_id: str, ts: float, *, side: str = "main") -> Claim:
    claimant = Claimant(
        side=side, request_id=request_id, ts=TS + ts, operation="POST /a", entity="e", digest=int(ts)
    )
    return Claim(scope="idempotency", key=f"{side}:k", claimant=claimant, rev=1)


async def _at_once(call: Call) -> Any:
    return await call()


class _World:
    """What contests need of the outside, in memory."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.journal = MemoryJournal()
        self.claims = MemoryClaims(monotonic=self.clock.monotonic)

    def contests(self, partition: int) -> Contests:
        ports = Ports(
            journal=self.journal,
            records=MemoryTopics(),
            publisher=MemoryPublisher(),
            claims=self.claims,
            tables=None,  # type: ignore[arg-type] # contests know no tables
            clock=self.clock,
        )
        config = PartitionConfig(worker=f"w{partition}")
        return Contests(partition, config, ports, _at_once, lambda _dropped: None, lambda _bound, _n: None)


def _told(entry: Entry) -> list[tuple[str, str]]:
    return [(found.winner.request_id, found.loser.request_id) for found in entry.conflicts]


async def test_what_a_rival_wrote_before_the_repeat_of_a_lost_acknowledgement_fences() -> None:
    journal = MemoryJournal()
    journal.lose_acks = 1

    async def until_up(call: Call) -> Any:
        try:
            return await call()
        except DependencyDown:
            await journal.append(_entry(1, "rival"))
            return await call()

    ours = Appending(0, journal, until_up)
    assert await ours.append(_entry(0, "ours")) == 0
    with pytest.raises(Fenced):
        await ours.append(_entry(1, "ours"))


async def test_who_has_nothing_to_write_still_notices_a_rival() -> None:
    journal = MemoryJournal()
    ours = Appending(0, journal, _at_once)
    await ours.append(_entry(0, "ours"))
    await ours.watch(0, LOOK_EVERY_S)
    await journal.append(_entry(0, "rival"))  # lost the race for this number: no rival's entry yet
    await ours.watch(0, 2 * LOOK_EVERY_S)
    await journal.append(_entry(1, "rival"))
    with pytest.raises(Fenced):
        await ours.watch(0, 3 * LOOK_EVERY_S)


async def test_a_conflict_that_another_has_found_otherwise_meanwhile_is_said_anew() -> None:
    world = _World()
    ours, theirs = world.contests(0), world.contests(1)
    await theirs.claim([_claim("b", 2.0)], TS)
    await ours.claim([_claim("c", 3.0)], TS)
    assert _told(ours.attach(_entry(0, "ours"))) == [("b", "c")]
    said = ours.said()
    assert await ours.overtaken(said) == Said({}, {})
    await theirs.claim([_claim("a", 1.0)], TS)
    assert sorted(_told(theirs.attach(_entry(0, "theirs")))) == [("a", "b"), ("a", "c")]
    again = await ours.overtaken(said)
    assert [found.winner.request_id for found, _ in again.findings.values() if found is not None] == ["a"]
    assert await ours.overtaken(again) == Said({}, {})


async def test_an_idle_partition_tells_a_store_that_forgot_again_and_looks_at_what_comes_of_it() -> None:
    world = _World()
    idle, busy = world.contests(0), world.contests(1)
    first = _claim("a", 1.0)
    await world.journal.append(_entry(0, "w0", first))
    await idle.claim([first], TS)
    world.claims.lose_memory()
    await busy.claim([_claim("b", 2.0)], TS)
    assert not busy.found
    await idle.watch(TS)
    assert not idle.found
    await world.clock.advance(EPOCH_EVERY_S)
    await idle.watch(TS)
    assert _told(idle.attach(_entry(1, "w0"))) == [("a", "b")]


async def test_what_a_store_that_forgot_twice_made_us_find_is_taken_back_by_whoever_claims_last() -> None:
    """The first loss leaves the holder out and we find that we lost to another; after the next we claim last."""
    world = _World()
    holder, other, ours = (world.contests(partition) for partition in range(3))

    def entity(request_id: str, ts: float, side: str) -> Claim:
        claimant = replace(_claim(request_id, ts, side=side).claimant, entity="e")
        return Claim(scope="entity", key="e/k", claimant=claimant, rev=1)

    told = {
        holder: entity("a", 1.0, "main"),
        other: entity("b", 2.0, "canary"),
        ours: entity("c", 3.0, "main"),
    }
    for partition, (who, claim) in enumerate(told.items()):
        await world.journal.append(replace(_entry(0, "w", claim), partition=partition))
        await who.claim([claim], TS)
    ours.attach(_entry(0, "w"))
    world.claims.lose_memory()
    await world.clock.advance(EPOCH_EVERY_S)
    for who in (other, ours):
        await who.watch(TS)
    [wrong] = ours.attach(_entry(1, "w")).conflicts
    assert (wrong.winner.request_id, wrong.loser.request_id) == ("b", "c")  # as far as the store knows
    world.claims.lose_memory()
    await world.clock.advance(EPOCH_EVERY_S)
    for who in (holder, other, ours):
        await who.watch(TS)
    entry = ours.attach(_entry(2, "w"))
    assert wrong.id in entry.retracted and _told(entry) == [("a", "b")]


async def test_a_crash_before_what_a_store_was_told_again_is_published_tells_it_again() -> None:
    world = _World()
    before = world.contests(0)
    first = _claim("a", 1.0)
    await world.journal.append(_entry(0, "w0", first))
    await before.claim([first], TS)
    before.published()
    known = before.epoch
    world.claims.lose_memory()
    await before.claim([_claim("b", 2.0)], TS)
    assert before.found
    assert before.attach(_entry(1, "w0")).epoch == known
    before.published()
    assert before.epoch != known


async def test_a_journal_that_names_no_life_of_the_store_is_told_in_full() -> None:
    world = _World()
    await world.journal.append(_entry(0, "gone", _claim("a", 1.0)))
    for n in (1, 2):
        await world.journal.append(_entry(n, "gone"))
    after = world.contests(0)
    after.restore(_entry(2, "gone"))
    await world.clock.advance(EPOCH_EVERY_S)
    with structlog.testing.capture_logs() as logs:
        await after.watch(TS)
    assert [log["event"] for log in logs] == ["claims_told_again"]  # which is no loss
    other = world.contests(1)
    await other.claim([_claim("b", 2.0)], TS)
    assert _told(other.attach(_entry(0, "w1"))) == [("a", "b")]


async def test_what_the_last_entry_says_of_conflicts_is_looked_at_again_after_a_crash() -> None:
    world = _World()
    before, theirs = world.contests(0), world.contests(1)
    await theirs.claim([_claim("b", 2.0)], TS)
    await before.claim([_claim("c", 3.0)], TS)
    last = before.attach(_entry(3, "ours"))
    await theirs.claim([_claim("a", 1.0)], TS)
    after = world.contests(0)
    after.restore(last)
    again = await after.overtaken(after.said())
    assert [found.winner.request_id for found, _ in again.findings.values() if found is not None] == ["a"]


async def test_a_conflict_taken_back_by_the_last_entry_and_found_again_since_is_not_taken_back_anew() -> None:
    world = _World()
    ours, theirs = world.contests(0), world.contests(1)
    await theirs.claim([_claim("b", 8000.0)], TS)
    await ours.claim([_claim("a", 1.0)], TS)
    last = ours.attach(_entry(3, "ours"))
    assert last.conflicts == () and len(last.retracted) == 2
    await theirs.claim([_claim("between", 5000.0)], TS)
    after = world.contests(0)
    after.restore(last)
    again = await after.overtaken(after.said())
    assert [
        (found.winner.request_id, found.loser.request_id)
        for found, _ in again.findings.values()
        if found is not None
    ] == [("between", "b")]


class _SlowPublisher(MemoryPublisher):
    """Stands still before the first publishing, while a successor goes on with the partition."""

    def __init__(self, meanwhile: Call) -> None:
        super().__init__()
        self._meanwhile: Call | None = meanwhile

    async def publish(self, messages: Sequence[Message]) -> None:
        if self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            await meanwhile()
        await super().publish(messages)


async def test_a_worker_that_published_late_says_again_what_its_successor_has_found_since() -> None:
    world = _World()
    outputs = Outputs(TOPICS, cast(MetricsPort, NoMetrics()))
    diverged = Outcome(request_id="r", ts=TS, route="GET /a", verdict="divergence")
    agreed = Outcome(request_id="r", ts=TS, route="GET /a", verdict="match")
    first = replace(_entry(0, "ours"), resolved=(Resolved(outcome=diverged, events=()),))
    second = replace(
        _entry(1, "theirs"), resolved=(Resolved(outcome=agreed, events=(), rev=1, was=diverged),)
    )

    async def succeed() -> None:
        await world.journal.append(second)
        await MemoryPublisher.publish(publisher, outputs.messages(second))

    publisher = _SlowPublisher(succeed)
    ours = Appending(0, world.journal, _at_once)
    await ours.append(first)
    await Publishing(outputs, publisher, ours, world.contests(0), _at_once).publish(first)
    assert publisher.compacted(TOPICS.divergences) == {}
    assert len(publisher.values(TOPICS.divergences)) == 3
