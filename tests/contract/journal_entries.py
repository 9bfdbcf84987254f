"""Builders of journal entries with few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verifier.core.difference import Difference
from verifier.core.journal import Entry
from verifier.core.outcome import Claim, Claimant, Conflict, EventRef, Outcome, Resolved, SideFacts

ROUTE = "GET /api/v1/news/{id}"


def outcome(
    request_id: str, verdict: str = "match", *, ts: float = 100.0, route: str = ROUTE, **more: Any
) -> Outcome:
    more.setdefault("sides", (SideFacts("main", 200, 0.010), SideFacts("shadow", 200, 0.020)))
    return Outcome(request_id=request_id, ts=ts, route=route, verdict=verdict, **more)


def difference(
    field: str = "/items/*/title", *, kind: str = "body", change: str = "value", **more: Any
) -> Difference:
    return Difference(kind=kind, path=field.replace("*", "0"), field=field, change=change, **more)


def diverged(request_id: str, *fields: str, ts: float = 100.0, **more: Any) -> Outcome:
    found = tuple(difference(field, main=1, shadow=2) for field in fields or ("/items/*/title",))
    return outcome(request_id, "divergence", ts=ts, differences=found, **more)


def resolved(result: Outcome, *, rev: int = 0, was: Outcome | None = None) -> Resolved:
    return Resolved(outcome=result, events=(EventRef(0, 1, 2),), rev=rev, was=was)


def entry(n: int, *results: Resolved | Outcome, partition: int = 0, **more: Any) -> Entry:
    all_resolved = tuple(r if isinstance(r, Resolved) else resolved(r) for r in results)
    return Entry(partition=partition, n=n, worker="w1", at=1000.0 + n, resolved=all_resolved, **more)


def at_offsets(*entries: Entry, first: int = 0) -> Sequence[tuple[int, Entry]]:
    """Each entry with a journal offset: ten times its number, so that the two are not confused."""
    return [(first + 10 * each.n, each) for each in entries]


def claimant(request_id: str, ts: float, *, side: str = "main", digest: int = 1, **more: Any) -> Claimant:
    more.setdefault("data", {"digest": digest})
    return Claimant(side=side, request_id=request_id, ts=ts, digest=digest, **more)


def claim(
    request_id: str, ts: float, *, scope: str = "idempotency", key: str = "main:k", rev: int = 0, **more: Any
) -> Claim:
    return Claim(scope=scope, key=key, rev=rev, claimant=claimant(request_id, ts, **more))


def conflict(
    conflict_id: str, *, ts: float = 100.0, kind: str = "conflict", version: int = 1, **more: Any
) -> Conflict:
    values: dict[str, Any] = {
        "scope": "idempotency",
        "key": "main:k",
        "entity": "news",
        "winner": claimant("w-" + conflict_id, ts - 1),
        "loser": claimant("l-" + conflict_id, ts, digest=2),
        "strategy": "first_write",
    }
    return Conflict(id=conflict_id, kind=kind, ts=ts, version=version, **(values | more))
