"""What is read from the tables in SQLite: the shapes of `adapters.queries`, and what only the report asks for."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from verifier.core.counts import LATENCY_BUCKETS, FieldStat, RecordCount, SideStat
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

CONFLICTS_OF_REQUEST_MAX = 100
REASONS_MAX = 100
_DIVERGENCE = ("request_id", "route", "ts", "verdict", "reasons", "differences", "ignored", "dropped")
_CONFLICT = ("id", "scope", "key", "entity", "kind", "winner", "loser", "strategy", "ts")
_REQUEST = (
    "request_id", "ts", "route", "verdict", "rev", "reasons", "missing", "partition", "journal_offsets", "user_id",
    "differences",
)  # fmt: skip
_WRITES = (
    "operation_type", "user_id", "shadow_request_id", "main_request_id", "shadow_data", "main_data", "shadow_status",
    "main_status", "error",
)  # fmt: skip
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1
_JSON = frozenset(
    ("reasons", "missing", "differences", "winner", "loser", "journal_offsets", "shadow_data", "main_data")
)


class SqliteReads:
    """Read-only views over the tables. Lists raise ValueError for a wrong limit or cursor."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def _all(self, sql: str, *args: object) -> list[Any]:
        return self._db.execute(sql, args).fetchall()

    async def summary(self) -> View:
        """As `PostgresReads.summary`."""
        verdicts = dict(self._all("SELECT verdict, sum(n) FROM verdict_counts GROUP BY verdict"))
        records = self._all(
            "SELECT source, sum(records), sum(rejected), sum(duplicate), sum(late) FROM record_counts GROUP BY source"
        )
        conflicts = self._all(
            "SELECT (SELECT count(*) FROM conflicts WHERE NOT retracted)"
            " + (SELECT coalesce(sum(n), 0) FROM purged_conflicts)"
        )[0][0]
        progress = self._all(
            "SELECT pending, lag, verified_through, pending > 0 OR verified_through > 0 OR EXISTS ("
            "  SELECT 1 FROM record_counts r WHERE r.partition = p.partition AND r.records > 0"
            ") FROM journal_positions p"
        )
        return summary_view(
            verdicts,
            {source: RecordCount(*counts) for source, *counts in records},
            conflicts,
            [Progress(pending, lag, through, bool(seen)) for pending, lag, through, seen in progress],
        )

    def _verdicts(self, route: str | None) -> dict[tuple[str, str], int]:
        rows = self._all(
            "SELECT route, verdict, sum(n) FROM verdict_counts WHERE ?1 IS NULL OR route = ?1 GROUP BY route, verdict",
            None if route is None else bounded_text(route),
        )
        return {(row_route, verdict): n for row_route, verdict, n in rows}

    async def routes(self) -> list[View]:
        """As `PostgresReads.routes`."""
        sides: dict[tuple[str, str, str], SideStat] = {}
        for route, side, status, n, sum_us, buckets in self._all(
            "SELECT route, side, status_class, n, latency_sum_us, latency_buckets FROM route_stats"
        ):
            stat = sides.setdefault((route, side, status), SideStat(0, 0, [0] * LATENCY_BUCKETS))
            stat.n += n
            stat.latency_sum_us += sum_us
            stat.buckets = [a + b for a, b in zip(stat.buckets, json.loads(buckets), strict=True)]
        return route_views(self._verdicts(None), sides)

    async def fields(self, route: str | None = None) -> list[View]:
        """As `PostgresReads.fields`."""
        rows = self._all(
            "SELECT route, kind, field, change, sum(n), sum(ignored), min(first_ts), max(last_ts) FROM field_counts"
            " WHERE ?1 IS NULL OR route = ?1 GROUP BY route, kind, field, change"
            " HAVING sum(n) <> 0 OR sum(ignored) <> 0 ORDER BY 5 DESC, 6 DESC, 1, 2, 3, 4 LIMIT ?2",
            None if route is None else bounded_text(route),
            FIELDS_MAX,
        )
        stats = {tuple(row[:4]): FieldStat(*row[4:]) for row in rows}
        exemplars = {
            key: [
                request_id
                for (request_id,) in self._all(
                    "SELECT request_id FROM divergence_fields WHERE route = ? AND kind = ? AND field = ?"
                    " AND change = ? ORDER BY ts DESC, request_id DESC LIMIT ?",
                    *key,
                    EXEMPLARS_MAX,
                )
            ]
            for key in stats
        }
        return field_views(stats, self._verdicts(route), exemplars)

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
        """As `PostgresReads.divergences`."""
        conditions: list[tuple[str, object]] = [("route = ?", route)]
        if kind is not None or field is not None:
            fields = "SELECT request_id FROM divergence_fields WHERE "
            wanted = [
                (name, value) for name, value in (("kind", kind), ("field", field)) if value is not None
            ]
            inner = " AND ".join(f"{name} = ?" for name, _ in wanted)
            conditions.append((f"request_id IN ({fields}{inner})", [value for _, value in wanted]))
        return self._page("divergences", _DIVERGENCE, "request_id", conditions, (since, until, limit, cursor))

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
        """As `PostgresReads.conflicts`."""
        conditions: list[tuple[str, object]] = [
            ("NOT retracted", []),
            ("entity = ?", entity),
            ("kind = ?", kind),
        ]
        return self._page("conflicts", _CONFLICT, "id", conditions, (since, until, limit, cursor))

    def _page(
        self,
        table: str,
        columns: tuple[str, ...],
        id_column: str,
        conditions: Iterable[tuple[str, object]],
        window: tuple[float | None, float | None, int, str | None],
    ) -> View:
        since, until, limit, cursor = window
        if not 1 <= limit <= ITEMS_MAX:
            raise ValueError(f"limit must be 1 to {ITEMS_MAX}, not {limit}")
        after = None if cursor is None else list(decode_cursor(cursor))
        given = [*conditions, ("ts >= ?", since), ("ts < ?", until), (f"(ts, {id_column}) < (?, ?)", after)]
        wanted = [(text, value) for text, value in given if value is not None]
        args = [each for _, value in wanted for each in (value if isinstance(value, list) else [value])]
        where = " AND ".join(text for text, _ in wanted) or "true"
        rows = self._all(
            f"SELECT {', '.join(columns)} FROM {table} WHERE {where}"
            f" ORDER BY ts DESC, {id_column} DESC LIMIT ?",
            *(bounded_text(each) if isinstance(each, str) else each for each in args),
            limit + 1,
        )
        items = [_view(columns, row) for row in rows[:limit]]
        more = len(rows) > limit
        last = items[-1] if more else {}
        return {"items": items, "next_cursor": encode_cursor(last["ts"], last[id_column]) if more else None}

    async def request(self, request_id: str) -> View | None:
        """As `PostgresReads.request`."""
        rows = self._all(
            "SELECT r.request_id, r.ts, r.route, r.verdict, r.rev, r.reasons, r.missing, r.partition,"
            " r.journal_offsets, r.user_id, d.differences"
            " FROM requests r LEFT JOIN divergences d USING (request_id) WHERE r.request_id = ?",
            bounded_text(request_id),
        )
        if not rows:
            return None
        wrote = self._all(
            f"SELECT {', '.join(_WRITES)} FROM shadow_writes WHERE request_id = ?",
            request_id,
        )
        conflicts = self._all(
            f"SELECT {', '.join(_CONFLICT)} FROM conflicts WHERE NOT retracted"
            " AND (winner_request_id = ?1 OR loser_request_id = ?1) ORDER BY ts DESC, id DESC LIMIT ?2",
            request_id,
            CONFLICTS_OF_REQUEST_MAX,
        )
        return {
            **_view(_REQUEST, rows[0]),
            "writes": _view(_WRITES, wrote[0]) if wrote else None,
            "conflicts": [_view(_CONFLICT, row) for row in conflicts],
        }

    # -- what only the report asks for ---------------------------------------------------------------------------

    def unverified(self) -> list[View]:
        """Requests that are no agreement and no divergence, by why: the missing parts, or the reasons."""
        rows = self._all(
            """
            SELECT verdict, value AS why, count(*) AS n, min(ts || ' ' || request_id) AS first
            FROM requests, json_each(CASE verdict WHEN 'incomplete' THEN missing ELSE reasons END)
            WHERE verdict IN ('incomplete', 'incomparable')
            GROUP BY verdict, why ORDER BY n DESC, verdict, why LIMIT ?
            """,
            REASONS_MAX,
        )
        return [
            {"verdict": verdict, "why": why, "count": n, "example": first.split(" ", 1)[1]}
            for verdict, why, n, first in rows
        ]

    def writes(self) -> View:
        """How many requests and rows were written on which side, failed writes among them."""
        requests = self._all(
            """
            SELECT count(*), coalesce(sum(main > 0), 0), coalesce(sum(shadow > 0), 0), coalesce(sum(main), 0),
                   coalesce(sum(shadow), 0), coalesce(sum(main_failed), 0), coalesce(sum(shadow_failed), 0)
            FROM (SELECT json_array_length(coalesce(main_data, '[]')) AS main,
                         json_array_length(coalesce(shadow_data, '[]')) AS shadow,
                         (SELECT count(*) FROM json_each(main_data) WHERE value ->> 'status' = 'failed') AS main_failed,
                         (SELECT count(*) FROM json_each(shadow_data) WHERE value ->> 'status' = 'failed')
                             AS shadow_failed
                  FROM shadow_writes)
            """
        )[0]
        names = ("requests", "main_requests", "shadow_requests", "main_rows", "shadow_rows", "main_failed")
        return dict(zip((*names, "shadow_failed"), requests, strict=True))

    def conflict_kinds(self) -> list[View]:
        """Conflicts that hold, by scope and kind."""
        rows = self._all(
            "SELECT scope, kind, count(*) FROM conflicts WHERE NOT retracted GROUP BY scope, kind ORDER BY 3 DESC, 1, 2"
        )
        return [{"scope": scope, "kind": kind, "count": n} for scope, kind, n in rows]

    def rejected_lines(self, limit: int) -> tuple[list[View], list[View]]:
        """Rejected lines by reason, and the first of them."""
        reasons = self._all(
            "SELECT reason, count(*) FROM rejected_lines WHERE reason <> 'late' GROUP BY reason ORDER BY 2 DESC, 1"
        )
        first = self._all(
            "SELECT file, line, topic, reason, detail FROM rejected_lines WHERE reason <> 'late'"
            " ORDER BY file, line, reason LIMIT ?",
            limit,
        )
        names = ("file", "line", "topic", "reason", "detail")
        return (
            [{"reason": reason, "count": n} for reason, n in reasons],
            [dict(zip(names, row, strict=True)) for row in first],
        )


def _view(columns: Iterable[str], row: Iterable[Any]) -> View:
    return {
        name: _decode_exactly(value) if name in _JSON and value is not None else value
        for name, value in zip(columns, row, strict=True)
    }


def _number(text: str) -> float | int | Decimal:
    """A number as it was written: what a double or 64 bits cannot hold stays decimal, so that examples show it."""
    exact = Decimal(text)
    if text.lstrip("-").isdecimal():
        return int(text) if _INT_MIN <= exact <= _INT_MAX else exact
    short = float(text)
    return short if math.isfinite(short) and Decimal(repr(short)) == exact else exact


_decode_exactly = json.JSONDecoder(parse_float=_number, parse_int=_number).decode
