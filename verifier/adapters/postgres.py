"""The tables of the whole cluster in PostgreSQL: a fold of the journal, applied by each partition's owner.

A batch of consecutive entries is one transaction, and its first statement moves the partition's position from
the entry before the batch to the last of it. When the position is not there, nothing of the batch is applied:
a repeat after a crash, or a worker that no longer owns the partition, cannot count twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import asyncpg
from msgspec import Struct

from verifier.adapters import conflict_tables, count_tables, tables
from verifier.adapters.postgres_errors import LOST_RACE, postgres_errors
from verifier.adapters.queries import PostgresReads
from verifier.adapters.sql_arrays import Connection
from verifier.core.errors import DependencyDown, StaleApply
from verifier.core.journal import Entry
from verifier.core.rollup import Delta, fold, settle
from verifier.core.storable import bounded_text
from verifier.stream.ports import Status

CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 30.0
RACE_RETRIES_MAX = 3
PURGE_BATCH = 10_000
_S_PER_DAY = 86_400.0


class Position(Struct):
    """How far a partition's journal has been applied: entry `n` at `journal_offset`.

    `keep_n` at `keep_offset` is the oldest entry whose requests may still be revised.
    """

    n: int
    journal_offset: int
    keep_n: int
    keep_offset: int


class StoredAt(NamedTuple):
    """Where the journal entries of a request with a row lie, oldest first."""

    partition: int
    journal_offsets: Sequence[int]


class PostgresStore(PostgresReads):
    """The tables, for writing and reading. `idempotency_ttl_s` sets when a key's row expires.

    Every method raises DependencyDown while PostgreSQL is away, and SchemaMissing when the migrations were
    not run.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, idempotency_ttl_s: float = 3600.0) -> None:
        super().__init__(pool)
        self._idempotency_ttl_s = idempotency_ttl_s

    @classmethod
    async def connect(cls, dsn: str, *, idempotency_ttl_s: float = 3600.0, connections_max: int = 4) -> Self:
        """Make a pool of at most `connections_max` connections; each is opened when it is first needed."""
        with postgres_errors():
            pool = await asyncpg.create_pool(
                dsn,
                min_size=0,
                max_size=connections_max,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings={"application_name": "shadow-verifier"},
                init=_prepare,
            )
        return cls(pool, idempotency_ttl_s=idempotency_ttl_s)

    async def close(self) -> None:
        """Close every connection."""
        with postgres_errors():
            await self._pool.close()

    async def apply(
        self, partition: int, entries: Sequence[tuple[int, Entry]], *, lag: int | None = None
    ) -> tuple[str, ...]:
        """Apply consecutive entries, each with its journal offset, in one transaction.

        `lag` is the partition's consumer lag in records (None: as it was). Returns the ids of requests said
        to be new that had a row already: counts are exact and their rows hold the new verdict, but its
        evidence may be only what came late. Raises StaleApply when the tables do not stand at the entry
        before the first, ValueError when the entries are not a run of this partition.
        """
        for attempt in range(1, RACE_RETRIES_MAX + 1):
            delta = fold(entries)
            if delta.partition != partition:
                raise ValueError(f"entries of partition {delta.partition} cannot be applied to {partition}")
            try:
                with postgres_errors():
                    async with self._connection() as connection, connection.transaction():
                        return await self._apply(connection, delta, lag)
            except DependencyDown as error:  # a lost race is over at once, an outage is not
                if attempt == RACE_RETRIES_MAX or not isinstance(error.__cause__, LOST_RACE):
                    raise
        raise AssertionError("unreachable")

    async def _apply(self, connection: Connection, delta: Delta, lag: int | None) -> tuple[str, ...]:
        await _advance(connection, delta, lag)
        single = [row for row in delta.rows.values() if row.fresh and len(row.journal_offsets) == 1]
        other_ids = [i for i, row in delta.rows.items() if not row.fresh or len(row.journal_offsets) > 1]
        stored = await tables.insert_fresh(connection, delta.partition, single)
        replaced_ids = [*stored, *other_ids]
        stored |= await tables.stored_rows(connection, other_ids)
        resurfaced = settle(delta, stored)
        await tables.replace_rows(connection, delta.partition, [delta.rows[i] for i in replaced_ids])
        await tables.write_divergences(connection, delta.rows.values())
        await tables.write_shadow_writes(connection, delta.rows.values())
        await count_tables.add_counts(connection, delta.partition, delta.counts)
        await conflict_tables.write_findings(connection, delta.findings)
        await conflict_tables.write_keys(connection, delta.key_claims, self._idempotency_ttl_s)
        return resurfaced

    async def position(self, partition: int) -> Position | None:
        """Where the partition stands; None before its first entry."""
        row = await self._fetchrow(
            "SELECT n, journal_offset, keep_n, keep_offset FROM journal_positions"
            " WHERE partition = $1 AND n >= 0",
            partition,
        )
        return None if row is None else Position(*row)

    async def status(self, partition: int, standing: Status) -> None:
        """Say how a partition is doing when there is no entry to apply. The two times never go back.

        What was so before the last entry applied says nothing any more: it comes of one who owned the partition before.
        """
        await self._execute(
            """
            INSERT INTO journal_positions AS p (partition, pending, lag, watermark, verified_through)
            VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (partition) DO UPDATE SET
                pending = excluded.pending, lag = excluded.lag, updated_at = now(),
                watermark = GREATEST(p.watermark, excluded.watermark),
                verified_through = GREATEST(p.verified_through, excluded.verified_through)
            WHERE p.n <= COALESCE($6, p.n)
            """,
            partition,
            standing.pending,
            standing.lag,
            standing.watermark,
            standing.verified_through,
            standing.n,
        )

    async def lookups(self, request_ids: Iterable[str]) -> Mapping[str, StoredAt]:
        """Where the entries of those requests lie that have a row."""
        rows = await self._fetch(
            "SELECT request_id, partition, journal_offsets FROM requests WHERE request_id = ANY($1::text[])",
            [bounded_text(request_id) for request_id in request_ids],
        )
        return {row["request_id"]: StoredAt(row["partition"], tuple(row["journal_offsets"])) for row in rows}

    async def purge(
        self, retention_days: float, batch: int = PURGE_BATCH, *, now_s: float | None = None
    ) -> int:
        """Remove rows older than the retention, and idempotency keys that have expired; never a count.

        At most `batch` rows a statement, each in a transaction of its own. `now_s` is Unix time (the wall
        clock by default). Returns how many rows went.
        """
        now = time.time() if now_s is None else now_s
        before = now - retention_days * _S_PER_DAY
        removed = 0
        for statement, cut in ((text, now if by_now else before) for text, by_now in _PURGES):
            while True:
                row = await self._fetchrow(statement, cut, batch)
                gone = 0 if row is None else int(row[0])
                removed += gone
                if gone < batch:
                    break
        return removed


async def _prepare(connection: Connection) -> None:
    """Make a new connection ready for `apply`."""
    await connection.execute(tables.CREATE_FRESH)


def _purge_of(table: str, key: str, when: str) -> str:
    return (
        f"WITH gone AS (DELETE FROM {table} WHERE ({key}) IN"
        f" (SELECT {key} FROM {table} WHERE {when} LIMIT $2) AND {when} RETURNING 1)"
        " SELECT count(*) FROM gone"
    )


_PURGE_CONFLICTS = """
WITH gone AS (
    DELETE FROM conflicts WHERE id IN (SELECT id FROM conflicts WHERE ts < $1 LIMIT $2) AND ts < $1
    RETURNING scope, kind, retracted
), counted AS (
    INSERT INTO purged_conflicts AS p (scope, kind, n)
    SELECT scope, kind, count(*) FROM gone WHERE NOT retracted GROUP BY scope, kind ORDER BY scope, kind
    ON CONFLICT (scope, kind) DO UPDATE SET n = p.n + excluded.n
)
SELECT count(*) FROM gone
"""
# (statement, whether its time is now instead of the end of the retention)
_PURGES: tuple[tuple[str, bool], ...] = (
    (_purge_of("requests", "request_id", "ts < $1"), False),
    (_purge_of("divergences", "request_id", "ts < $1"), False),
    (_purge_of("divergence_fields", "request_id, kind, field, change", "ts < $1"), False),
    (_purge_of("shadow_writes", "request_id", "created_at < to_timestamp($1)"), False),
    (_PURGE_CONFLICTS, False),
    (_purge_of("idempotency_keys", "key", "expires_at < to_timestamp($1)"), True),
)


async def _advance(connection: Connection, delta: Delta, lag: int | None) -> None:
    """Move the partition's position over the delta. Raises StaleApply when it is not where it should be."""
    partition, expected_n = delta.partition, delta.expected_n
    if expected_n == -1:
        await connection.execute(
            "INSERT INTO journal_positions (partition) VALUES ($1) ON CONFLICT DO NOTHING", partition
        )
    kept = [(n, offset) for n, offset in delta.entries if n >= delta.keep_n]
    moved = await connection.fetchval(
        """
        UPDATE journal_positions p SET
            n = $3, journal_offset = $4, keep_n = GREATEST(p.keep_n, $5),
            keep_offset = COALESCE(
                (SELECT e.journal_offset FROM journal_entries e
                 WHERE e.partition = $1 AND e.n >= GREATEST(p.keep_n, $5) ORDER BY e.n LIMIT 1), $6),
            pending = $7, lag = COALESCE($8, p.lag), watermark = GREATEST(p.watermark, $9),
            verified_through = GREATEST(p.verified_through, $10), worker = $11, updated_at = now()
        WHERE p.partition = $1 AND p.n = $2
        RETURNING p.keep_n
        """,
        partition,
        expected_n,
        delta.last_n,
        delta.entries[-1][1],
        delta.keep_n,
        kept[0][1] if kept else delta.entries[-1][1],
        delta.pending,
        lag,
        delta.watermark,
        delta.verified_through,
        delta.worker,
    )
    if moved is None:
        actual = await connection.fetchval("SELECT n FROM journal_positions WHERE partition = $1", partition)
        raise StaleApply(partition, expected_n, -1 if actual is None else actual)
    await connection.execute(
        "WITH old AS (DELETE FROM journal_entries WHERE partition = $1 AND n < $2)"
        " INSERT INTO journal_entries (partition, n, journal_offset)"
        " SELECT $1, * FROM unnest($3::int8[], $4::int8[])",
        partition,
        moved,
        [n for n, _ in kept],
        [offset for _, offset in kept],
    )
