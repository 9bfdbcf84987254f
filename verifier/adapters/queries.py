"""What REST reads from PostgreSQL, for the whole cluster, in the shapes of the contract's section 6."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from verifier.adapters.postgres_errors import postgres_errors
from verifier.adapters.sql_arrays import Connection
from verifier.core.counts import FieldStat, RecordCount, SideStat
from verifier.core.paging import decode_cursor, encode_cursor
from verifier.core.storable import bounded_text
from verifier.core.views import (
    EXEMPLARS_MAX,
    FIELDS_MAX,
    ITEMS_MAX,
    Progress,
    View,
    field_views,
    route_views,
    summary_view,
)

ACQUIRE_TIMEOUT_S = 10.0
CONFLICTS_OF_REQUEST_MAX = 100


class PostgresReads:
    """Read-only views over the tables. Every method raises DependencyDown while PostgreSQL is away.

    Times are Unix seconds, `since` inclusive, `until` exclusive. Lists are newest first and raise ValueError
    for a `limit` outside 1 to 1000 or a cursor that is none.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            yield connection

    async def _fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        with postgres_errors():
            async with self._connection() as connection:
                return await connection.fetch(sql, *args)

    async def _fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        with postgres_errors():
            async with self._connection() as connection:
                return await connection.fetchrow(sql, *args)

    async def _execute(self, sql: str, *args: object) -> None:
        with postgres_errors():
            async with self._connection() as connection:
                await connection.execute(sql, *args)

    async def ping(self) -> None:
        """Ask for a sign of life."""
        await self._fetchrow("SELECT 1")

    async def summary(self) -> View:
        """The cluster's counts; `records` is keyed by source number. All of one moment."""
        with postgres_errors():
            async with (
                self._connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                verdicts = await connection.fetch(
                    "SELECT verdict, sum(n)::int8 AS n FROM verdict_counts GROUP BY verdict"
                )
                records = await connection.fetch(
                    "SELECT source, sum(records)::int8, sum(rejected)::int8, sum(duplicate)::int8,"
                    " sum(late)::int8 FROM record_counts GROUP BY source"
                )
                conflicts = await connection.fetchval(
                    "SELECT (SELECT count(*) FROM conflicts WHERE NOT retracted)"
                    " + (SELECT COALESCE(sum(n), 0)::int8 FROM purged_conflicts)"
                )
                progress = await connection.fetch(
                    "SELECT pending, lag, verified_through, pending > 0 OR verified_through > 0 OR EXISTS ("
                    "  SELECT FROM record_counts r WHERE r.partition = p.partition AND r.records > 0"
                    ") AS seen FROM journal_positions p"
                )
        return summary_view(
            {row["verdict"]: row["n"] for row in verdicts},
            {row["source"]: RecordCount(*list(row.values())[1:]) for row in records},
            conflicts,
            [Progress(*row.values()) for row in progress],
        )

    async def routes(self) -> list[View]:
        """One row a route: verdicts, divergence rate with its interval, statuses and latencies by side."""
        verdicts = await self._verdicts(None)
        rows = await self._fetch(
            """
            SELECT route, side, status_class, n, latency_sum_us, buckets
            FROM (SELECT route, side, status_class, sum(n)::int8 AS n,
                         sum(latency_sum_us)::int8 AS latency_sum_us
                  FROM route_stats GROUP BY route, side, status_class) AS totals
            JOIN (SELECT route, side, status_class, array_agg(bucket ORDER BY i) AS buckets
                  FROM (SELECT route, side, status_class, i, sum(b)::int8 AS bucket
                        FROM route_stats, unnest(latency_buckets) WITH ORDINALITY AS u(b, i)
                        GROUP BY route, side, status_class, i) AS summed
                  GROUP BY route, side, status_class) AS histograms
            USING (route, side, status_class)
            """
        )
        sides = {
            (row["route"], row["side"], row["status_class"]): SideStat(
                row["n"], row["latency_sum_us"], list(row["buckets"])
            )
            for row in rows
        }
        return route_views(verdicts, sides)

    async def fields(self, route: str | None = None) -> list[View]:
        """One row a (route, kind, field, change), the 1000 most frequent, with the newest exemplars."""
        verdicts = await self._verdicts(route)
        rows = await self._fetch(
            """
            WITH top AS (
                SELECT route, kind, field, change, sum(n)::int8 AS n, sum(ignored)::int8 AS ignored,
                       min(first_ts) AS first_ts, max(last_ts) AS last_ts
                FROM field_counts WHERE $1::text IS NULL OR route = $1
                GROUP BY route, kind, field, change HAVING sum(n) <> 0 OR sum(ignored) <> 0
                ORDER BY 5 DESC, 6 DESC, 1, 2, 3, 4 LIMIT $2
            )
            SELECT top.*, ARRAY(
                SELECT f.request_id FROM divergence_fields f
                WHERE f.route = top.route AND f.kind = top.kind AND f.field = top.field
                  AND f.change = top.change
                ORDER BY f.ts DESC, f.request_id DESC LIMIT $3
            ) AS exemplars
            FROM top
            """,
            None if route is None else bounded_text(route),
            FIELDS_MAX,
            EXEMPLARS_MAX,
        )
        keyed = {(row["route"], row["kind"], row["field"], row["change"]): row for row in rows}
        stats = {
            key: FieldStat(row["n"], row["ignored"], row["first_ts"], row["last_ts"])
            for key, row in keyed.items()
        }
        exemplars = {key: list(row["exemplars"]) for key, row in keyed.items()}
        return field_views(stats, verdicts, exemplars)

    async def _verdicts(self, route: str | None) -> dict[tuple[str, str], int]:
        rows = await self._fetch(
            "SELECT route, verdict, sum(n)::int8 AS n FROM verdict_counts"
            " WHERE $1::text IS NULL OR route = $1 GROUP BY route, verdict",
            None if route is None else bounded_text(route),
        )
        return {(row["route"], row["verdict"]): row["n"] for row in rows}

    async def divergences(
        self,
        *,
        route: str | None = None,
        kind: str | None = None,
        field: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> View:
        """Diverged requests; `kind` and `field` ask for one difference that has both."""
        page = _Page("request_id", since, until, limit, cursor)
        page.where("route = {}", route)
        if kind is not None or field is not None:
            inner = "f.request_id = t.request_id"
            inner += f" AND f.kind = {page.bind(kind)}" if kind is not None else ""
            inner += f" AND f.field = {page.bind(field)}" if field is not None else ""
            page.conditions.append(f"EXISTS (SELECT FROM divergence_fields f WHERE {inner})")
        rows = await self._fetch(
            page.sql("request_id, route, ts, verdict, reasons, differences, ignored, dropped", "divergences"),
            *page.args,
        )
        return page.answer([_divergence_view(row) for row in rows])

    async def conflicts(
        self,
        *,
        entity: str | None = None,
        kind: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> View:
        """Conflicts that hold."""
        page = _Page("id", since, until, limit, cursor)
        page.conditions.append("NOT retracted")
        page.where("entity = {}", entity)
        page.where("kind = {}", kind)
        rows = await self._fetch(page.sql(_CONFLICT_COLUMNS, "conflicts"), *page.args)
        return page.answer([_conflict_view(row) for row in rows])

    async def requests(
        self,
        *,
        verdict: str | None = None,
        route: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> View:
        """Requests by verdict: what is not verified yet, and why."""
        page = _Page("request_id", since, until, limit, cursor)
        page.where("verdict = {}", verdict)
        page.where("route = {}", route)
        rows = await self._fetch(
            page.sql("request_id, route, ts, verdict, rev, reasons, missing, user_id", "requests"), *page.args
        )
        return page.answer([dict(row.items()) for row in rows])

    async def request(self, request_id: str) -> View | None:
        """A request's row, differences, writes and conflicts, and where its journal entries lie, or None."""
        row = await self._fetchrow(_ONE_REQUEST, bounded_text(request_id))
        if row is None:
            return None
        found = _decoded(row, "differences", "conflicts", "shadow_data", "main_data")
        writes = {column: found.pop(column) for column in _WRITES_COLUMNS}
        user_id, has_written, conflicts = (
            found.pop(name) for name in ("of_user", "has_written", "conflicts")
        )
        return {
            **found,
            "user_id": user_id,
            "writes": writes if has_written else None,
            "conflicts": conflicts or [],
        }


_CONFLICT_COLUMNS = "id, scope, key, entity, kind, winner, loser, strategy, ts"
_WRITES_COLUMNS = (
    "operation_type", "user_id", "shadow_request_id", "main_request_id", "shadow_data", "main_data",
    "shadow_status", "main_status", "error",
)  # fmt: skip
# In one statement: somebody waits for the answer, and each further one waits for its turn of the loop, too.
_ONE_REQUEST = f"""
SELECT r.request_id, r.ts, r.route, r.verdict, r.rev, r.reasons, r.missing, r.partition, r.journal_offsets,
       r.user_id AS of_user, d.differences, w.request_id IS NOT NULL AS has_written,
       {", ".join(f"w.{column}" for column in _WRITES_COLUMNS)},
       (SELECT jsonb_agg(to_jsonb(c) ORDER BY c.ts DESC, c.id DESC)
        FROM (SELECT {_CONFLICT_COLUMNS} FROM conflicts
              WHERE NOT retracted AND (winner_request_id = $1 OR loser_request_id = $1)
              ORDER BY ts DESC, id DESC LIMIT {CONFLICTS_OF_REQUEST_MAX}) c) AS conflicts
FROM requests r LEFT JOIN divergences d USING (request_id) LEFT JOIN shadow_writes w USING (request_id)
WHERE r.request_id = $1
"""


class _Page:
    """One page of a newest-first list over a table with `ts` and an id."""

    def __init__(
        self, id_column: str, since: float | None, until: float | None, limit: int, cursor: str | None
    ) -> None:
        if not 1 <= limit <= ITEMS_MAX:
            raise ValueError(f"limit must be 1 to {ITEMS_MAX}, not {limit}")
        self.id_column = id_column
        self.limit = limit
        self.args: list[object] = []
        self.conditions: list[str] = []
        self.where("ts >= {}", since)
        self.where("ts < {}", until)
        if cursor is not None:
            ts, item_id = decode_cursor(cursor)
            self.conditions.append(f"(ts, {id_column}) < ({self.bind(ts)}, {self.bind(item_id)})")

    def bind(self, value: object) -> str:
        """Add an argument and return its placeholder; a text is changed as it was when it was stored."""
        self.args.append(bounded_text(value) if isinstance(value, str) else value)
        return f"${len(self.args)}"

    def where(self, condition: str, value: object) -> None:
        """Add a condition unless its value is None."""
        if value is not None:
            self.conditions.append(condition.format(self.bind(value)))

    def sql(self, columns: str, table: str) -> str:
        where = f"WHERE {' AND '.join(self.conditions)}" if self.conditions else ""
        order = f"ORDER BY ts DESC, {self.id_column} DESC LIMIT {self.bind(self.limit + 1)}"
        return f"SELECT {columns} FROM {table} t {where} {order}"

    def answer(self, items: list[View]) -> View:
        """The page, from up to `limit` + 1 items: one more says that there is a next page."""
        page = items[: self.limit]
        more = len(items) > self.limit
        last = page[-1] if more else {}
        return {
            "items": page,
            "next_cursor": encode_cursor(last["ts"], last[self.id_column]) if more else None,
        }


def _decoded(row: asyncpg.Record, *json_columns: str) -> dict[str, Any]:
    values = dict(row.items())
    for column in json_columns:
        if values[column] is not None:
            values[column] = msgspec.json.decode(values[column])
    return values


def _divergence_view(row: asyncpg.Record) -> View:
    return _decoded(row, "differences")


def _conflict_view(row: asyncpg.Record) -> View:
    return _decoded(row, "winner", "loser")
