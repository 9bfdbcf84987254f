"""Adding a delta's counts to PostgreSQL: one statement a table, inside the store's transaction."""

from __future__ import annotations

from verifier.adapters.sql_arrays import Connection, columns_of
from verifier.core.counts import LATENCY_BUCKETS, Counts


async def add_counts(connection: Connection, partition: int, counts: Counts) -> None:
    """Add counts to the partition's own."""
    await _add_verdicts(connection, partition, counts)
    await _add_sides(connection, partition, counts)
    await _add_fields(connection, partition, counts)
    if counts.records:
        await connection.execute(
            """
            INSERT INTO record_counts AS c (partition, source, records, rejected, duplicate, late)
            SELECT $1, * FROM unnest($2::int2[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])
            ON CONFLICT (partition, source) DO UPDATE SET
                records = c.records + excluded.records, rejected = c.rejected + excluded.rejected,
                duplicate = c.duplicate + excluded.duplicate, late = c.late + excluded.late
            """,
            partition,
            list(counts.records),
            [count.records for count in counts.records.values()],
            [count.rejected for count in counts.records.values()],
            [count.duplicate for count in counts.records.values()],
            [count.late for count in counts.records.values()],
        )
    if counts.rejected:
        await connection.execute(
            """
            INSERT INTO reject_counts AS c (partition, source, reason, n)
            SELECT $1, * FROM unnest($2::int2[], $3::text[], $4::int8[])
            ON CONFLICT (partition, source, reason) DO UPDATE SET n = c.n + excluded.n
            """,
            partition,
            [source for source, _ in counts.rejected],
            [reason for _, reason in counts.rejected],
            list(counts.rejected.values()),
        )


async def _add_verdicts(connection: Connection, partition: int, counts: Counts) -> None:
    changed = [(route, verdict, n) for (route, verdict), n in counts.verdicts.items() if n]
    if not changed:
        return
    await connection.execute(
        """
        INSERT INTO verdict_counts AS c (partition, route, verdict, n)
        SELECT $1, * FROM unnest($2::text[], $3::text[], $4::int8[])
        ON CONFLICT (partition, route, verdict) DO UPDATE SET n = c.n + excluded.n
        """,
        partition,
        *columns_of(changed, 3),
    )


async def _add_sides(connection: Connection, partition: int, counts: Counts) -> None:
    changed = [
        (*key, s.n, s.latency_sum_us, s.buckets) for key, s in counts.sides.items() if s.n or any(s.buckets)
    ]
    if not changed:
        return
    *columns, buckets = columns_of(changed, 6)
    await connection.execute(
        """
        INSERT INTO route_stats AS c (partition, route, side, status_class, n, latency_sum_us,
        latency_buckets) SELECT $1, route, side, status_class, n, latency_sum_us, ($7::int8[])[(i - 1) * $8 +
        1 : i * $8] FROM unnest($2::text[], $3::text[], $4::text[], $5::int8[], $6::int8[]) WITH ORDINALITY AS
        t(route, side, status_class, n, latency_sum_us, i) ON CONFLICT (partition, route, side, status_class)
        DO UPDATE SET n = c.n + excluded.n, latency_sum_us = c.latency_sum_us + excluded.latency_sum_us,
        latency_buckets = ARRAY( SELECT a + b FROM unnest(c.latency_buckets, excluded.latency_buckets) WITH
        ORDINALITY AS t(a, b, i) ORDER BY i ) """,
        partition,
        *columns,
        [n for histogram in buckets for n in histogram],
        LATENCY_BUCKETS,
    )


async def _add_fields(connection: Connection, partition: int, counts: Counts) -> None:
    changed = [
        (*key, seen.n, seen.ignored, seen.first_ts, seen.last_ts)
        for key, seen in counts.fields.items()
        if seen.n or seen.ignored or seen.first_ts <= seen.last_ts
    ]
    if not changed:
        return
    await connection.execute(
        """
        INSERT INTO field_counts AS c (partition, route, kind, field, change, n, ignored, first_ts, last_ts)
        SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::int8[],
                                 $8::float8[], $9::float8[])
        ON CONFLICT (partition, route, kind, field, change) DO UPDATE SET
            n = c.n + excluded.n, ignored = c.ignored + excluded.ignored,
            first_ts = LEAST(c.first_ts, excluded.first_ts), last_ts = GREATEST(c.last_ts, excluded.last_ts)
        """,
        partition,
        *columns_of(changed, 8),
    )
