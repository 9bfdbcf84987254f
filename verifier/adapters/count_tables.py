"""Adding a delta's counts to PostgreSQL: one statement for all tables, inside the store's transaction."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from verifier.adapters.sql_arrays import Connection
from verifier.core.counts import Counts

_encode = msgspec.json.encode
# A statement of its own for each table, with an array for each column, cost the client three times as much.
_ADD = """
WITH verdicts AS (
    INSERT INTO verdict_counts AS c (partition, route, verdict, n)
    SELECT $1, * FROM json_to_recordset($2::json) AS t(route text, verdict text, n int8)
    ON CONFLICT (partition, route, verdict) DO UPDATE SET n = c.n + excluded.n
), sides AS (
    INSERT INTO route_stats AS c (partition, route, side, status_class, n, latency_sum_us, latency_buckets)
    SELECT $1, *
    FROM json_to_recordset($3::json)
         AS t(route text, side text, status text, n int8, latency_sum_us int8, buckets int8[])
    ON CONFLICT (partition, route, side, status_class) DO UPDATE SET
        n = c.n + excluded.n, latency_sum_us = c.latency_sum_us + excluded.latency_sum_us,
        latency_buckets = ARRAY(
            SELECT a + b FROM unnest(c.latency_buckets, excluded.latency_buckets) WITH ORDINALITY AS t(a, b, i)
            ORDER BY i)
), fields AS (
    INSERT INTO field_counts AS c (partition, route, kind, field, change, n, ignored, first_ts, last_ts)
    SELECT $1, route, kind, field, change, n, ignored, COALESCE(first_ts, 'infinity'), COALESCE(last_ts, '-infinity')
    FROM json_to_recordset($4::json)
         AS t(route text, kind text, field text, change text, n int8, ignored int8, first_ts float8, last_ts float8)
    ON CONFLICT (partition, route, kind, field, change) DO UPDATE SET
        n = c.n + excluded.n, ignored = c.ignored + excluded.ignored,
        first_ts = LEAST(c.first_ts, excluded.first_ts), last_ts = GREATEST(c.last_ts, excluded.last_ts)
), records AS (
    INSERT INTO record_counts AS c (partition, source, records, rejected, duplicate, late)
    SELECT $1, *
    FROM json_to_recordset($5::json)
         AS t(source int2, records int8, rejected int8, duplicate int8, late int8)
    ON CONFLICT (partition, source) DO UPDATE SET
        records = c.records + excluded.records, rejected = c.rejected + excluded.rejected,
        duplicate = c.duplicate + excluded.duplicate, late = c.late + excluded.late
)
INSERT INTO reject_counts AS c (partition, source, reason, n)
SELECT $1, * FROM json_to_recordset($6::json) AS t(source int2, reason text, n int8)
ON CONFLICT (partition, source, reason) DO UPDATE SET n = c.n + excluded.n
"""


class _Verdicts(Struct):
    route: str
    verdict: str
    n: int


class _Side(Struct):
    route: str
    side: str
    status: str
    n: int
    latency_sum_us: int
    buckets: list[int]


class _Field(Struct):
    """The times of what is only taken back are infinite, which JSON says as null."""

    route: str
    kind: str
    field: str
    change: str
    n: int
    ignored: int
    first_ts: float
    last_ts: float


class _Records(Struct):
    source: int
    records: int
    rejected: int
    duplicate: int
    late: int


class _Rejected(Struct):
    source: int
    reason: str
    n: int


async def add_counts(connection: Connection, partition: int, counts: Counts) -> None:
    """Add counts to the partition's own."""
    await connection.execute(
        _ADD,
        partition,
        _text([_Verdicts(*key, n) for key, n in counts.verdicts.items() if n]),
        _text(
            [
                _Side(*key, stat.n, stat.latency_sum_us, stat.buckets)
                for key, stat in counts.sides.items()
                if stat.n or any(stat.buckets)
            ]
        ),
        _text(
            [
                _Field(*key, seen.n, seen.ignored, seen.first_ts, seen.last_ts)
                for key, seen in counts.fields.items()
                if seen.n or seen.ignored or seen.first_ts <= seen.last_ts
            ]
        ),
        _text(
            [
                _Records(source, count.records, count.rejected, count.duplicate, count.late)
                for source, count in counts.records.items()
            ]
        ),
        _text([_Rejected(*key, n) for key, n in counts.rejected.items()]),
    )


def _text(rows: Sequence[Struct]) -> str:
    return _encode(rows).decode()
