"""What the web layer asks of the rest: the tables, the raw records, the journal, metrics and readiness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from verifier.core.journal import Revisions

Row = dict[str, Any]
"""One object of an answer, already in the public contract's shape (section 6)."""

RecordRef = tuple[str, int, int]
"""Where a record lies: topic, partition, offset."""


class StoreReads(Protocol):
    """The tables, as people may read them. Every call may raise `DependencyDown`.

    `since` and `until` are event times in Unix seconds, `limit` is at least 1. Pages are
    `{"items": [...], "next_cursor": str | None}`, newest first; an unreadable cursor raises ValueError.
    """

    async def summary(self) -> Row:
        """The whole cluster's counts; `records` is keyed by source number."""
        ...

    async def routes(self) -> Sequence[Row]:
        """A row a route."""
        ...

    async def fields(self, route: str | None = None) -> Sequence[Row]:
        """A row a (route, kind, field, change)."""
        ...

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
    ) -> Row:
        """One page of divergent requests."""
        ...

    async def conflicts(
        self,
        *,
        entity: str | None = None,
        kind: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Row:
        """One page of conflicts."""
        ...

    async def requests(
        self,
        *,
        verdict: str | None = None,
        route: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Row:
        """One page of requests by verdict."""
        ...

    async def request(self, request_id: str) -> Row | None:
        """The stored row of one request, or None.

        It has `request_id, ts, route, verdict, rev, partition, journal_offsets`; it may have `user_id`,
        `reasons`, `missing`, `differences` and the `conflicts` the request takes part in.
        """
        ...


class Records(Protocol):
    """The original records in Kafka."""

    async def fetch(self, refs: Sequence[RecordRef]) -> list[bytes | None]:
        """The value of each record as asked; None where retention took it. May raise `DependencyDown`."""
        ...


class Journal(Protocol):
    """The journal topic, by offset."""

    async def revisions(
        self, request_id: str, partition: int, offsets: Sequence[int]
    ) -> list[Revisions | None]:
        """What the entries at these offsets say of a request, in the order asked; None where retention took one."""
        ...


class MetricsPage(Protocol):
    """This worker's metrics."""

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether this worker should be sent work and questions, and if not, why not (one sentence each)."""

    ok: bool
    reasons: tuple[str, ...] = ()


class Health(Protocol):
    """This worker's own view of its state; must answer at once, without asking any server."""

    def ready(self) -> Readiness: ...


class Rules(Protocol):
    """The rules in force."""

    def describe(self) -> list[Row]: ...


Redact = Callable[[Any], Any]
"""Takes a decoded JSON value and returns it without secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebDeps:
    """All the application needs. `topics` maps source numbers (`events.Source`) to topic names.

    `api_token` None leaves the API open: right only behind a gateway that authenticates. `read_timeout_s`
    bounds each request's reads from PostgreSQL and Kafka; `reads_max` at once, `reads_waiting_max` more wait,
    others are refused.
    """

    store: StoreReads
    records: Records
    journal: Journal
    metrics: MetricsPage
    health: Health
    topics: Mapping[int, str]
    policy: Rules
    redact: Redact
    api_token: str | None = None
    read_timeout_s: float = 10.0
    reads_max: int = 8
    reads_waiting_max: int = 64
    records_bytes_max: int = 16 * 1024 * 1024
