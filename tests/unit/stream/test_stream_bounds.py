"""Bounds of the stream's parts that no run of ordinary size meets."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import structlog

from tests.contract.journal_entries import entry
from verifier.core.events import Source
from verifier.core.journal import Entry
from verifier.core.outcome import Claim, Claimant, Conflict
from verifier.stream import care, contests, tables
from verifier.stream.care import Care
from verifier.stream.contests import Contests
from verifier.stream.live_tables import LiveTables
from verifier.stream.partition_config import PartitionConfig, Ports
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
    record,
)


async def at_once(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


def count_in(met: Counter[str]) -> Callable[[str, int], None]:
    """Counts what meets a bound, as the metrics do."""

    def count(bound: str, amount: int) -> None:
        met[bound] += amount

    return count


def claims_of_one_key(n: int) -> list[Claim]:
    return [
        Claim(
            scope="idempotency",
            key="main:k",
            claimant=Claimant(
                side="main", request_id=f"r{i}", ts=TS + i, operation="POST /a", entity="e", digest=i
            ),
        )
        for i in range(n)
    ]


async def test_findings_beyond_their_bound_are_dropped_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contests, "FINDINGS_MAX", 5)
    clock = VirtualClock()
    ports = Ports(
        journal=MemoryJournal(), records=MemoryTopics(), publisher=MemoryPublisher(),
        claims=MemoryClaims(monotonic=clock.monotonic), tables=cast(Any, None), clock=clock,
    )  # fmt: skip
    met: Counter[str] = Counter()
    some = Contests(0, PartitionConfig(worker="w"), ports, at_once, lambda _: None, count_in(met))
    with structlog.testing.capture_logs() as logs:
        await some.claim(claims_of_one_key(20), TS)
    assert [log["event"] for log in logs] == ["conflicts_may_be_missed"]
    entry = some.attach(Entry(partition=0, n=0, worker="w", at=TS))
    assert len(entry.conflicts) == 5
    assert met["findings"] > 0
    assert not some.found


def test_no_more_records_are_set_aside_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(care, "ASIDE_MAX", 2)
    careful = Care(100)
    for offset in range(5):
        careful.begin(Source.EDGE, [record(edge("a"), offset=offset)])
        careful.failed(ZeroDivisionError())
    assert careful.aside == {(Source.EDGE, 0), (Source.EDGE, 1)}
    assert careful.failures == 5


def test_requests_to_be_judged_again_beyond_their_bound_keep_their_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "RESURFACED_MAX", 3)
    met: Counter[str] = Counter()
    writer = TablesWriter(cast(Any, MemoryStore()), MemoryJournal(), VirtualClock(), bound_met=count_in(met))
    with structlog.testing.capture_logs() as logs:
        writer._note_resurfaced(0, [f"r{n}" for n in range(5)])
    assert writer.take_resurfaced(0) == ["r0", "r1", "r2"]
    assert [log["event"] for log in logs] == ["resurfaced_not_judged_again"]
    assert met == {"resurfaced": 2}


async def test_partitions_are_written_some_at_once_and_each_in_order() -> None:
    at_once: list[int] = []
    writing: list[tuple[int, int]] = []

    class Store(MemoryStore):
        now = 0

        async def apply(self, partition: int, entries: Any, *, lag: int | None = 0) -> tuple[str, ...]:
            self.now += 1
            at_once.append(self.now)
            writing.append((partition, entries[0][1].n))
            for _ in range(3):
                await asyncio.sleep(0)
            self.now -= 1
            return ()

    writer = TablesWriter(cast(Any, Store()), MemoryJournal(), VirtualClock())
    for n in (0, 2):  # not consecutive: two writes for each partition
        for partition in range(6):
            await writer.put(partition, n, entry(n, partition=partition))
    await writer.write_all()
    assert max(at_once) == tables.WRITING_AT_ONCE_MAX == 4
    assert sorted(writing) == [(partition, n) for partition in range(6) for n in (0, 2)]
    assert all(writing.index((partition, 0)) < writing.index((partition, 2)) for partition in range(6))
    assert writer.queued == 0


class FaustTable:
    """What of a Faust table the fold uses: its data and its changelog."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.changelog: list[tuple[str, Any]] = []

    def send_changelog(self, _partition: int, key: str, value: Any) -> None:
        self.changelog.append((key, value))


class Application:
    """Makes tables."""

    def __init__(self) -> None:
        self.tables: defaultdict[str, FaustTable] = defaultdict(FaustTable)

    def Table(self, name: str, **_: Any) -> FaustTable:  # noqa: N802 - Faust's name
        return self.tables[name]


def conflict(number: int) -> Conflict:
    first, second = (claim.claimant for claim in claims_of_one_key(2))
    return Conflict(
        id=f"c{number}", scope="idempotency", key="k", entity="e", kind="conflict", winner=first, loser=second,
        strategy="first_write", ts=TS, version=1,
    )  # fmt: skip


def test_live_tables_drop_their_oldest_row_with_a_tombstone() -> None:
    app = Application()
    live = LiveTables(cast(Any, app), partitions=1, rows_max=3)
    for number in range(5):
        live.fold(Entry(partition=0, n=number, worker="w", at=TS, conflicts=(conflict(number),)))
    table = app.tables["conflicts"]
    assert list(table.data) == ["c2", "c3", "c4"]
    assert [key for key, value in table.changelog if value is None] == ["c0", "c1"]
