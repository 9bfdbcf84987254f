"""A small world to ask about: a journal, the records behind it, and the in-memory tables folded from it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from verifier.adapters.metrics import Metrics
from verifier.adapters.redaction import Redactor
from verifier.core.difference import Difference
from verifier.core.journal import Entry, Revisions, SourceCount, encode_entry, revisions_of
from verifier.core.outcome import Claimant, Conflict, EventRef, Outcome, Resolved, SideFacts, WriteSet
from verifier.core.policy import Policy
from verifier.testing_tables import MemoryStore
from verifier.web.api import create_app
from verifier.web.ports import Readiness, RecordRef, WebDeps
from verifier.web.records import RecordRedactor

TOPICS: Mapping[int, str] = {
    0: "edge.requests",
    1: "main.responses",
    2: "shadow.responses",
    3: "main.writes",
    4: "shadow.writes",
}
T0 = 1_795_291_200.0
ROUTE = "POST /api/v1/market-data/fetch"
HOSTILE = "<img src=x onerror=alert(1)>"

Record = tuple[int, Mapping[str, Any] | bytes]


class Failing:
    """Stands where a store or a journal should: every call raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def fail(*_: object, **__: object) -> Any:
            raise self._error

        return fail


@dataclass
class World:
    """Keeps what a worker would have journaled, and implements the journal, record and health ports."""

    store: MemoryStore = field(default_factory=MemoryStore)
    journal: dict[tuple[int, int], Entry] = field(default_factory=dict)
    records: dict[RecordRef, bytes] = field(default_factory=dict)
    readiness: Readiness = field(default_factory=lambda: Readiness(ok=True))

    async def add(self, outcome: Outcome, records: Sequence[Record] = (), **more: Any) -> Resolved:
        """Journal one verdict with its records; `more` goes into `Resolved`."""
        refs = []
        for source, value in records:
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            refs.append(EventRef(source, len(self.records), 1))
            self.records[TOPICS[source], 0, len(self.records)] = raw
        counts = tuple(SourceCount(source, 0, 1, 1) for source, _ in records)
        resolved = Resolved(outcome=outcome, events=(*more.pop("events", ()), *refs), **more)
        await self._journal(outcome.ts, counts=counts, resolved=(resolved,))
        return resolved

    async def add_conflict(self, conflict: Conflict) -> None:
        """Journal one conflict."""
        await self._journal(conflict.ts, conflicts=(conflict,))

    async def _journal(self, ts: float, **more: Any) -> None:
        n = len(self.journal)
        entry = Entry(partition=0, n=n, worker="worker-0", at=ts + 2, pending=3, verified_through=ts, **more)
        self.journal[0, n] = entry
        await self.store.apply(0, [(n, entry)], lag=7)

    async def revisions(
        self, request_id: str, partition: int, offsets: Sequence[int]
    ) -> list[Revisions | None]:
        entries = [self.journal.get((partition, offset)) for offset in offsets]
        return [None if each is None else revisions_of(encode_entry(each), request_id) for each in entries]

    async def fetch(self, refs: Sequence[RecordRef]) -> list[bytes | None]:
        return [self.records.get(ref) for ref in refs]

    def ready(self) -> Readiness:
        return self.readiness

    def deps(self, **more: Any) -> WebDeps:
        """Dependencies over this world; `more` replaces some."""
        given: dict[str, Any] = {
            "store": self.store,
            "records": self,
            "journal": self,
            "metrics": Metrics(),
            "health": self,
            "topics": TOPICS,
            "policy": Policy.default(),
            "redact": RecordRedactor(Redactor(["x-session"])),
        }
        return WebDeps(**{**given, **more})

    def client(self, **more: Any) -> httpx.AsyncClient:
        """A client of an application over this world; `more` replaces dependencies."""
        transport = httpx.ASGITransport(create_app(self.deps(**more)), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://verifier.test")


def price_difference(main: Any = 101.25, shadow: Any = "101.25", path: str = "/quotes/0/price") -> Difference:
    return Difference(
        kind="body", path=path, field="/quotes/*/price", change="type", main=main, shadow=shadow
    )


def divergence(request_id: str, ts: float, route: str) -> Outcome:
    return Outcome(
        request_id=request_id, ts=ts, route=route, verdict="divergence", differences=(price_difference(),)
    )


def conflict(conflict_id: str, ts: float, winner: Claimant, loser: Claimant) -> Conflict:
    return Conflict(
        id=conflict_id,
        scope="idempotency",
        key="main:k1",
        entity="quotes",
        kind="conflict",
        winner=winner,
        loser=loser,
        strategy="first_write",
        ts=ts,
    )


def cursor_of(value: Any) -> str:
    """A cursor that decodes, but was never given out."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def response(request_id: str, side: str, body: Any, **more: Any) -> dict[str, Any]:
    """A response record."""
    base = {"request_id": request_id, "side": side, "ts": T0, "method": "POST", "path": "/x", "status": 200}
    return {**base, "headers": {"content-type": "application/json"}, "body": body, **more}


async def populated() -> World:
    """One request of each verdict, one conflict, hostile texts and secrets where users can put them."""
    world = World()
    sides = (SideFacts("main", 200, 0.018), SideFacts("shadow", 200, 0.009))
    date = Difference(kind="header", path="date", field="date", change="value", main="a", rule="date")
    row = {"entity": "quotes", "key": "ACME", "op": "insert", "data": {"price": 1, "password": "hunter2"}}
    differs = Outcome(
        request_id="req-1",
        ts=T0,
        route=ROUTE,
        verdict="divergence",
        differences=(price_difference(),),
        ignored=(date,),
        sides=sides,
        user_id=HOSTILE,
        writes=WriteSet(operation=ROUTE, main=[row], shadow=[]),
    )
    await world.add(
        differs,
        [
            (
                0,
                {
                    "request_id": "req-1",
                    "side": "main",
                    "ts": T0,
                    "method": "POST",
                    "uri": "/x?token=t0psecret",
                },
            ),
            (1, response("req-1", "main", {"quotes": [{"price": 101.25}]}, ts=T0 + 0.1)),
            (2, response("req-1", "shadow", {"quotes": [{"price": "101.25"}], "note": HOSTILE}, ts=T0 + 0.2)),
        ],
    )
    await world.add(Outcome(request_id="req-2", ts=T0 + 1, route=ROUTE, verdict="match", sides=sides))
    await world.add(
        Outcome(
            request_id="req-3", ts=T0 + 2, route="GET /b", verdict="incomplete", missing=("shadow.responses",)
        )
    )
    await world.add(
        Outcome(request_id="req-4", ts=T0 + 3, route="GET /b", verdict="incomparable", reasons=("shed",))
    )
    secret = {"price": 1, "api_key": "k-123"}
    winner = Claimant(side="main", request_id="req-1", ts=T0, operation=ROUTE, data=secret)
    loser = Claimant(side="main", request_id="req-9", ts=T0 + 3, operation=ROUTE, data=HOSTILE)
    await world.add_conflict(conflict("c0ffee", T0 + 3, winner, loser))
    return world
