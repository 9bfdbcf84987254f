"""What only PostgreSQL can get wrong: the audit tables' columns, rivals, outages, and agreement with the twin."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from tests.contract.journal_entries import (
    at_offsets,
    claim,
    conflict,
    difference,
    diverged,
    entry,
    outcome,
    resolved,
)
from verifier.adapters.migrations import migrate
from verifier.adapters.postgres import PostgresStore
from verifier.adapters.postgres_errors import SchemaMissing
from verifier.core.errors import DependencyDown, StaleApply
from verifier.core.journal import Entry, SourceCount
from verifier.core.outcome import Outcome, Resolved, SideFacts, WriteSet
from verifier.demo.stack.postgres import Postgres
from verifier.testing_tables import MemoryStore

pytestmark = pytest.mark.asyncio

IDEMPOTENCY_COLUMNS = [
    "key",
    "operation_type",
    "user_id",
    "request_id",
    "created_at",
    "expires_at",
    "processed_at",
    "result",
    "error",
]
SHADOW_WRITE_COLUMNS = [
    "operation_type",
    "user_id",
    "request_id",
    "shadow_request_id",
    "main_request_id",
    "shadow_data",
    "main_data",
    "shadow_status",
    "main_status",
    "created_at",
    "processed_at",
    "error",
]


async def _rows(dsn: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


async def test_the_audit_tables_have_the_agreed_columns_and_indexes(migrated: str) -> None:
    for table, columns in (
        ("idempotency_keys", IDEMPOTENCY_COLUMNS),
        ("shadow_writes", SHADOW_WRITE_COLUMNS),
    ):
        found = await _rows(
            migrated,
            "SELECT column_name FROM information_schema.columns"
            f" WHERE table_name = '{table}' ORDER BY ordinal_position",
        )
        assert [row["column_name"] for row in found] == columns
    indexes = await _rows(
        migrated,
        "SELECT indexdef FROM pg_indexes WHERE tablename IN ('idempotency_keys', 'shadow_writes')",
    )
    text = "\n".join(row["indexdef"] for row in indexes)
    for part in ("UNIQUE INDEX idempotency_keys_pkey", "UNIQUE INDEX shadow_writes_pkey"):
        assert part in text
    for indexed in ("(key)", "(user_id)", "(operation_type)", "(expires_at)", "(request_id)", "(created_at)"):
        assert indexed in text
    assert "(shadow_status, main_status)" in text


async def test_the_first_claim_holds_an_idempotency_key_in_whatever_order_claims_come(migrated: str) -> None:
    store = await PostgresStore.connect(migrated, idempotency_ttl_s=60.0)
    memory = MemoryStore(idempotency_ttl_s=60.0)
    first = claim("a", 10.0, key="main:k", operation="POST /n")
    shadow = claim("a", 10.0, key="shadow:k", side="shadow")
    second = claim("b", 20.0, key="main:k")
    entries = [
        entry(0, claims=(second, shadow)),
        entry(1, outcome("a", user_id="u"), claims=(first,)),
        entry(2, claims=(second, claim("c", 30.0, key="main:other"))),
    ]
    for each in entries:
        await store.apply(0, at_offsets(each))
        await memory.apply(0, at_offsets(each))
    rows = await _rows(migrated, "SELECT * FROM idempotency_keys ORDER BY key")
    assert [row["key"] for row in rows] == ["k", "other"]
    row = rows[0]
    assert (row["request_id"], row["user_id"], row["operation_type"]) == ("a", "u", "POST /n")
    assert row["created_at"] == datetime.fromtimestamp(10.0, UTC)
    assert row["expires_at"] == datetime.fromtimestamp(70.0, UTC)
    assert row["processed_at"] == datetime.fromtimestamp(1001.0, UTC)
    twin = memory.idempotency_key("k")
    assert twin is not None
    assert msgspec.json.decode(row["result"]) == twin["result"]
    assert (twin["request_id"], twin["user_id"], twin["expires_at"]) == ("a", "u", 70.0)
    revised = claim("a", 9.0, key="main:k", rev=1, digest=7)
    await store.apply(0, at_offsets(entry(3, claims=(revised,))))
    (row,) = await _rows(migrated, "SELECT result FROM idempotency_keys WHERE key = 'k'")
    assert msgspec.json.decode(row["result"])["digest"] == "0000000000000007"
    await store.purge(365_000.0, now_s=71.0)  # "k" has expired by then, "other" has not
    assert [row["key"] for row in await _rows(migrated, "SELECT key FROM idempotency_keys")] == ["other"]
    await store.close()


async def test_rivals_cannot_both_apply_the_same_entries(migrated: str) -> None:
    stores = [await PostgresStore.connect(migrated) for _ in range(3)]
    wins = 0
    for n in range(10):
        batch = at_offsets(entry(n, *(outcome(f"r{n}-{i}") for i in range(20))))
        ends = await asyncio.gather(*(store.apply(0, batch) for store in stores), return_exceptions=True)
        assert all(isinstance(end, StaleApply | tuple) for end in ends), ends
        wins += sum(isinstance(end, tuple) for end in ends)
    assert wins == 10
    assert (await stores[0].summary())["requests"]["match"] == 200
    for store in stores:
        await store.close()


async def test_partitions_that_share_conflict_keys_apply_at_once(migrated: str) -> None:
    store = await PostgresStore.connect(migrated)

    def batch(partition: int, n: int) -> Entry:
        shared = [f"c{i}" for i in range(30)]
        random.Random(partition).shuffle(shared)
        return entry(
            n,
            partition=partition,
            conflicts=tuple(conflict(i, version=n) for i in shared),
            claims=tuple(claim(f"p{partition}", float(partition), key=f"main:{i}") for i in shared),
        )

    async def owner(partition: int) -> None:
        for n in range(10):
            await store.apply(partition, at_offsets(batch(partition, n)))

    await asyncio.gather(*(owner(partition) for partition in range(4)))
    assert (await store.summary())["conflicts"] == 30
    holders = await _rows(migrated, "SELECT DISTINCT request_id FROM idempotency_keys")
    assert [row["request_id"] for row in holders] == ["p0"]
    await store.close()


async def test_an_outage_is_named_and_outlived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERIFIER_POSTGRES", raising=False)  # a server given from outside is not ours to kill
    with Postgres(tmp_path / "data", durable=True) as server:
        dsn = server.create_database("outage")
        await migrate(dsn)
        store = await PostgresStore.connect(dsn)
        await store.apply(0, at_offsets(entry(0, outcome("a"))))
        server.kill()
        for call in (store.summary, store.ping, lambda: store.position(0)):
            with pytest.raises(DependencyDown) as down:
                await call()
            assert down.value.dependency == "postgres"
        with pytest.raises(DependencyDown):
            await store.apply(0, at_offsets(entry(1, outcome("b"))))
        server.start()
        await store.apply(0, at_offsets(entry(1, outcome("b"))))
        assert (await store.summary())["requests"]["match"] == 2
        await store.close()


async def test_missing_tables_say_what_to_do(database: str) -> None:
    store = await PostgresStore.connect(database)
    with pytest.raises(SchemaMissing, match="verifier init"):
        await store.apply(0, at_offsets(entry(0)))
    with pytest.raises(SchemaMissing, match="verifier init"):
        await store.summary()
    await store.close()


class _Traffic:
    """A seeded journal: new requests, revisions, forgotten requests that come back, conflicts and retractions."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.current: dict[str, Outcome] = {}
        self._revs: dict[str, int] = {}
        self._version = 0

    def entry(self, n: int, partition: int) -> Entry:
        chance = self._random
        results = [self._result(partition) for _ in range(chance.randrange(12))]
        self._version += 1
        ids = [f"c{chance.randrange(12)}" for _ in range(chance.randrange(3))]
        found = {i: conflict(i, ts=float(chance.randrange(9)), version=self._version) for i in ids}
        gone = {f"c{chance.randrange(12)}" for _ in range(chance.randrange(2))} - found.keys()
        return entry(
            n,
            *results,
            partition=partition,
            keep_n=max(0, n - 3),
            pending=chance.randrange(9),
            verified_through=float(n),
            counts=(
                SourceCount(chance.randrange(5), 0, 9, chance.randrange(9), {"json": chance.randrange(3)}, 1),
            ),
            conflicts=tuple(found.values()),
            retracted=tuple(gone),
            retracted_versions=tuple(self._version for _ in gone),
        )

    def _result(self, partition: int) -> Resolved:
        chance = self._random
        request_id = f"r{partition}-{chance.randrange(60)}"
        now = self._outcome(request_id)
        was, rev = self.current.get(request_id), self._revs.get(request_id, -1) + 1
        forgotten = chance.random() < 0.2
        self.current[request_id], self._revs[request_id] = now, 0 if forgotten else rev
        return resolved(now) if forgotten or was is None else resolved(now, rev=rev, was=was)

    def _outcome(self, request_id: str) -> Outcome:
        chance = self._random
        fields = [f"/f{chance.randrange(4)}" for _ in range(chance.randrange(1, 4))]
        more: dict[str, Any] = {
            "ts": float(chance.randrange(50)),
            "route": f"GET /{chance.randrange(3)}",
            "ignored": tuple(difference(f"/f{i}") for i in range(chance.randrange(2))),
            "sides": tuple(
                SideFacts(side, chance.choice((200, 404, 500, None)), chance.choice((None, 0.001, 0.3, 99.0)))
                for side in ("main", "shadow")
            ),
            "writes": WriteSet(operation="POST", main=[], main_status=200) if chance.random() < 0.3 else None,
        }
        if chance.random() < 0.4:
            return diverged(request_id, *fields, **more)
        return outcome(request_id, chance.choice(("match", "incomplete", "incomparable")), **more)


@pytest.mark.parametrize("seed", range(6))
async def test_the_tables_and_their_twin_agree_and_hold_one_verdict_a_request(
    migrated: str, seed: int
) -> None:
    store, memory, traffic = await PostgresStore.connect(migrated), MemoryStore(), _Traffic(seed)
    numbers = {0: 0, 1: 0}
    chance = random.Random(seed)
    for _ in range(25):
        partition = chance.randrange(2)
        batch = [traffic.entry(numbers[partition] + i, partition) for i in range(chance.randrange(1, 4))]
        numbers[partition] += len(batch)
        lag = chance.randrange(5)
        first = await store.apply(partition, at_offsets(*batch), lag=lag)
        second = await memory.apply(partition, at_offsets(*batch), lag=lag)
        assert sorted(first) == sorted(second)
        assert await store.position(partition) == await memory.position(partition)
    fresh = MemoryStore()  # what one would have who met every request once, with its last verdict
    last = [resolved(traffic.current[i]) for i in sorted(traffic.current)]
    await fresh.apply(0, at_offsets(entry(0, *last)))
    assert (await store.summary())["requests"] == (await fresh.summary())["requests"]
    assert await store.routes() == await fresh.routes()
    for name in ("summary", "routes", "fields", "divergences", "conflicts"):
        assert await getattr(store, name)() == await getattr(memory, name)(), name
    for request_id in traffic.current:
        assert await store.request(request_id) == await memory.request(request_id)
    await store.close()
