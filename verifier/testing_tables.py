"""The in-memory twin of the PostgreSQL tables, for tests and for runs without servers.

It passes the same contract tests as the real adapter, and shares the fold and the views with it. Everything
is kept until `purge`: it suits windows that fit in memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

from msgspec import Struct

from verifier.adapters.postgres import Position, StoredAt
from verifier.core.counts import Counts
from verifier.core.errors import StaleApply
from verifier.core.journal import Entry
from verifier.core.outcome import Verdict
from verifier.core.paging import decode_cursor, encode_cursor
from verifier.core.rollup import UNVERSIONED, Delta, Finding, KeyClaim, Stored, fold, precedes, settle
from verifier.core.storable import bounded_text
from verifier.core.views import (
    EXEMPLARS_MAX,
    ITEMS_MAX,
    Progress,
    View,
    conflict_view,
    field_views,
    key_result_view,
    route_views,
    summary_view,
)
from verifier.stream.ports import Status
from verifier.testing_views import StoredRequest, as_stored, divergence_view, request_view, writes_view

_S_PER_DAY = 86_400.0
_CONFLICTS_OF_REQUEST_MAX = 100


class _Partition(Struct):
    n: int = -1
    journal_offset: int = -1
    keep_n: int = 0
    pending: int = 0
    lag: int = 0
    watermark: float = 0.0
    verified_through: float = 0.0
    worker: str = ""


class MemoryStore:
    """Behaves as `adapters.postgres.PostgresStore`."""

    def __init__(self, *, idempotency_ttl_s: float = 3600.0) -> None:
        self._idempotency_ttl_s = idempotency_ttl_s
        self._partitions: dict[int, _Partition] = {}
        self._entries: dict[int, dict[int, int]] = {}
        self._counts = Counts()
        self._seen: set[int] = set()
        self._requests: dict[str, StoredRequest] = {}
        self._findings: dict[str, Finding] = {}
        self._keys: dict[str, KeyClaim] = {}
        self._purged_conflicts = 0

    async def close(self) -> None:
        """Nothing to close."""

    async def ping(self) -> None:
        """Always there."""

    # -- writing ---------------------------------------------------------------------------------------------

    async def apply(
        self, partition: int, entries: Sequence[tuple[int, Entry]], *, lag: int | None = None
    ) -> tuple[str, ...]:
        """As `PostgresStore.apply`. Raises StaleApply and ValueError."""
        delta = fold(entries)
        if delta.partition != partition:
            raise ValueError(f"entries of partition {delta.partition} cannot be applied to {partition}")
        self._advance(delta, lag)
        known = {i: self._requests[i].row for i in delta.rows if i in self._requests}
        resurfaced = settle(
            delta, {i: Stored(row.route, row.outcome.verdict, row.counted) for i, row in known.items()}
        )
        for request_id, row in delta.rows.items():
            before = self._requests.get(request_id)
            offsets = (before.journal_offsets if before else ()) + row.journal_offsets
            diverged = row.outcome.verdict == Verdict.DIVERGENCE
            self._requests[request_id] = StoredRequest(row, partition, offsets, diverged)
        self._counts.add(delta.counts)
        if any(count.records for count in delta.counts.records.values()):
            self._seen.add(partition)
        for conflict_id, finding in delta.findings.items():
            self._take_finding(conflict_id, finding)
        for key, claim in delta.key_claims.items():
            stored = self._keys.get(key)
            if stored is None or precedes(claim.claim, stored.claim):
                self._keys[key] = claim
        return resurfaced

    def _advance(self, delta: Delta, lag: int | None) -> None:
        at = self._partitions.get(delta.partition, _Partition())
        if at.n != delta.expected_n:
            raise StaleApply(delta.partition, delta.expected_n, at.n)
        at.n, at.journal_offset = delta.last_n, delta.entries[-1][1]
        at.keep_n = max(at.keep_n, delta.keep_n)
        at.pending, at.worker = delta.pending, delta.worker
        at.lag = at.lag if lag is None else lag
        at.watermark = max(at.watermark, delta.watermark)
        at.verified_through = max(at.verified_through, delta.verified_through)
        self._partitions[delta.partition] = at
        entries = self._entries.get(delta.partition, {}) | dict(delta.entries)
        self._entries[delta.partition] = {n: offset for n, offset in entries.items() if n >= at.keep_n}

    def _take_finding(self, conflict_id: str, finding: Finding) -> None:
        known = self._findings.get(conflict_id)
        if finding.version == UNVERSIONED:
            if known is not None:
                self._findings[conflict_id] = Finding(known.version, None, finding.at)
        elif known is None or finding.version >= known.version:
            self._findings[conflict_id] = finding

    async def position(self, partition: int) -> Position | None:
        """As `PostgresStore.position`."""
        at = self._partitions.get(partition)
        if at is None or at.n < 0:
            return None
        keep_offset = next(iter(self._entries[partition].values()), at.journal_offset)
        return Position(at.n, at.journal_offset, at.keep_n, keep_offset)

    async def status(self, partition: int, standing: Status) -> None:
        """As `PostgresStore.status`."""
        at = self._partitions.setdefault(partition, _Partition())
        if standing.n is not None and standing.n < at.n:
            return
        at.pending, at.lag = standing.pending, standing.lag
        at.watermark = max(at.watermark, standing.watermark)
        at.verified_through = max(at.verified_through, standing.verified_through)

    async def lookups(self, request_ids: Iterable[str]) -> Mapping[str, StoredAt]:
        """As `PostgresStore.lookups`."""
        found = ((i, self._requests.get(i)) for i in request_ids)
        return {i: StoredAt(row.partition, row.journal_offsets) for i, row in found if row is not None}

    async def purge(
        self,
        retention_days: float,
        batch: int = 10_000,  # noqa: ARG002 - nothing here needs batches
        *,
        now_s: float | None = None,
    ) -> int:
        """As `PostgresStore.purge`, but all at once; a request counts as one row."""
        now = time.time() if now_s is None else now_s
        before = now - retention_days * _S_PER_DAY
        old_requests = [i for i, request in self._requests.items() if request.ts < before]
        old_findings = [i for i, f in self._findings.items() if _finding_ts(f) < before]
        old_keys = [
            key
            for key, found in self._keys.items()
            if found.claim.claimant.ts + self._idempotency_ttl_s < now
        ]
        self._purged_conflicts += sum(self._findings[i].conflict is not None for i in old_findings)
        for request_id in old_requests:
            del self._requests[request_id]
        for conflict_id in old_findings:
            del self._findings[conflict_id]
        for key in old_keys:
            del self._keys[key]
        return len(old_requests) + len(old_findings) + len(old_keys)

    # -- reading ---------------------------------------------------------------------------------------------

    async def summary(self) -> View:
        """As `PostgresReads.summary`."""
        verdicts: dict[str, int] = {}
        for (_, verdict), n in self._counts.verdicts.items():
            verdicts[verdict] = verdicts.get(verdict, 0) + n
        held = sum(finding.conflict is not None for finding in self._findings.values())
        progress = [
            Progress(
                at.pending,
                at.lag,
                at.verified_through,
                at.pending > 0 or at.verified_through > 0 or partition in self._seen,
            )
            for partition, at in self._partitions.items()
        ]
        return summary_view(verdicts, self._counts.records, held + self._purged_conflicts, progress)

    async def routes(self) -> list[View]:
        """As `PostgresReads.routes`."""
        return route_views(self._counts.verdicts, self._counts.sides)

    async def fields(self, route: str | None = None) -> list[View]:
        """As `PostgresReads.fields`."""
        wanted = {
            key: stat
            for key, stat in self._counts.fields.items()
            if route is None or key[0] == bounded_text(route)
        }
        exemplars: dict[tuple[str, str, str, str], list[str]] = {}
        for request_id, request in self._newest_diverged():
            for kind, field, change, ignored in request.row.counted.fields:
                ids = exemplars.setdefault((request.row.route, kind, field, change), [])
                if not ignored and len(ids) < EXEMPLARS_MAX:
                    ids.append(request_id)
        return field_views(wanted, self._counts.verdicts, exemplars)

    def _newest_diverged(self) -> list[tuple[str, StoredRequest]]:
        diverged = [(i, request) for i, request in self._requests.items() if request.diverged]
        return sorted(diverged, key=lambda item: (item[1].ts, item[0]), reverse=True)

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
        wanted_field = None if field is None else bounded_text(field)
        wanted_route = None if route is None else bounded_text(route)

        def matches(request: StoredRequest) -> bool:
            return wanted_route in {None, request.row.route} and any(
                kind in {None, seen[0]} and wanted_field in {None, seen[1]} and not seen[3]
                for seen in request.row.counted.fields
            )

        items = [
            divergence_view(request)
            for _, request in self._newest_diverged()
            if (route is None and kind is None and field is None) or matches(request)
        ]
        return _page(items, "request_id", since, until, limit, cursor)

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
        items = [
            view
            for view in self._conflict_views()
            if entity in {None, view["entity"]} and kind in {None, view["kind"]}
        ]
        return _page(items, "id", since, until, limit, cursor)

    def _conflict_views(self) -> list[View]:
        views = [
            as_stored(conflict_view(f.conflict)) for f in self._findings.values() if f.conflict is not None
        ]
        return sorted(views, key=itemgetter("ts", "id"), reverse=True)

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
        """As `PostgresReads.requests`."""
        wanted = None if route is None else bounded_text(route)
        newest = sorted(self._requests.items(), key=lambda item: (item[1].ts, item[0]), reverse=True)
        items = [
            request_view(request)
            for _, request in newest
            if verdict in {None, request.row.outcome.verdict} and wanted in {None, request.row.route}
        ]
        return _page(items, "request_id", since, until, limit, cursor)

    async def request(self, request_id: str) -> View | None:
        """As `PostgresReads.request`."""
        found = self._requests.get(request_id)
        if found is None:
            return None
        outcome = found.row.outcome
        conflicts = [
            view
            for view in self._conflict_views()
            if request_id in {view["winner"]["request_id"], view["loser"]["request_id"]}
        ]
        return {
            "request_id": request_id,
            "ts": outcome.ts,
            "route": found.row.route,
            "verdict": outcome.verdict,
            "rev": found.row.rev,
            "reasons": list(outcome.reasons),
            "missing": list(outcome.missing),
            "partition": found.partition,
            "journal_offsets": list(found.journal_offsets),
            "user_id": outcome.user_id,
            "differences": divergence_view(found)["differences"] if found.diverged else None,
            "writes": None if outcome.writes is None else writes_view(request_id, outcome.writes),
            "conflicts": conflicts[:_CONFLICTS_OF_REQUEST_MAX],
        }

    def idempotency_key(self, key: str) -> View | None:
        """The row of an idempotency key, as the table has it: who holds it, and until when (Unix seconds)."""
        found = self._keys.get(bounded_text(key))
        if found is None:
            return None
        claimant = found.claim.claimant
        return {
            "key": bounded_text(key),
            "operation_type": claimant.operation,
            "user_id": found.user_id,
            "request_id": claimant.request_id,
            "created_at": claimant.ts,
            "expires_at": claimant.ts + self._idempotency_ttl_s,
            "processed_at": found.at,
            "result": as_stored(key_result_view(claimant, found.claim.rev)),
            "error": found.error,
        }


def _finding_ts(finding: Finding) -> float:
    return finding.at if finding.conflict is None else finding.conflict.ts


def _page(
    items: list[View], id_key: str, since: float | None, until: float | None, limit: int, cursor: str | None
) -> View:
    if not 1 <= limit <= ITEMS_MAX:
        raise ValueError(f"limit must be 1 to {ITEMS_MAX}, not {limit}")
    after = None if cursor is None else decode_cursor(cursor)
    wanted = [
        item
        for item in items
        if (since is None or item["ts"] >= since)
        and (until is None or item["ts"] < until)
        and (after is None or (item["ts"], item[id_key]) < after)
    ]
    page = wanted[:limit]
    more = len(wanted) > limit
    return {"items": page, "next_cursor": encode_cursor(page[-1]["ts"], page[-1][id_key]) if more else None}
