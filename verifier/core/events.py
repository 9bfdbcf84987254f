"""The records the verifier reads, as values (the public contract's section 2).

Every event is a frozen value decoded straight from a Kafka record. Bodies, headers and row images stay raw JSON
(`msgspec.Raw`): two equal raw texts are equal, so most of them are never parsed.

The tags tell the kinds of events apart in the text that waiting records are folded into (`folding`); a response's is
also the version that its record states.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum
from operator import attrgetter

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType


class Side(StrEnum):
    """Whose behaviour a record tells of; declaration order is the order of precedence for equal times."""

    MAIN = "main"
    CANARY = "canary"
    SHADOW = "shadow"
    REFERENCE = "reference"


SIDE_RANK: dict[str, int] = {side.value: rank for rank, side in enumerate(Side)}


class Source(IntEnum):
    """The five co-partitioned input topics. The number is stable: the journal stores it."""

    EDGE = 0
    MAIN_RESPONSES = 1
    SHADOW_RESPONSES = 2
    MAIN_WRITES = 3
    SHADOW_WRITES = 4


SIDES_OF_SOURCE: dict[Source, tuple[str, ...]] = {
    Source.EDGE: ("main", "shadow", "canary"),
    Source.MAIN_RESPONSES: ("main", "reference"),
    Source.SHADOW_RESPONSES: ("shadow", "canary"),
    Source.MAIN_WRITES: ("main", "reference"),
    Source.SHADOW_WRITES: ("shadow", "canary"),
}


class Edge(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=2, gc=False):
    """One NGINX log line about one side of a request; numbers already normalised (absent is None)."""

    request_id: str
    side: str
    ts: float
    method: str
    uri: str
    status: int | None = None
    upstream_status: int | None = None
    upstream_addr: str | None = None
    upstream_time_s: int | float | None = None
    request_time_s: int | float | None = None
    bytes_sent: int | None = None
    host: str | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    shed: bool = False
    sampled: bool = True
    shed_reason: str | None = None
    route: str | None = None


class Response(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=1, gc=False):
    """One response as a backend or a capturing proxy gave it; most are decoded straight into this.

    `headers` and `body` are raw JSON; `UNSET` means the record has no such field. `capture_gap` names what the
    capturing side had to drop, so that its absence is not taken for a difference.
    """

    request_id: str
    side: str
    ts: float
    method: str
    path: str
    status: int
    headers: Raw | UnsetType = UNSET
    body: Raw | UnsetType = UNSET
    body_encoding: str | None = None
    body_truncated: bool = False
    duration_ms: float | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    writes: int | None = None
    error: str | None = None
    capture_gap: str | None = None
    route: str | None = None


class Write(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=3, gc=False):
    """One row-level write a backend made.

    `key` is the canonical text of the row's primary key: a string as it is, a number in JSON form, an object as
    canonical JSON. `seq` is None when the record gives none; then writes are ordered by time and offset.
    """

    request_id: str
    side: str
    ts: float
    entity: str
    key: str
    op: str
    seq: int | None = None
    data: Raw | UnsetType = UNSET
    before: Raw | UnsetType = UNSET
    operation: str | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    status: str = "applied"
    route: str | None = None


Event = Edge | Response | Write


class Seen(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """An event with its place in the log and the hash of its content.

    `digest` is a 64-bit hash of the record's content: equal digests of one request are one event read twice.
    """

    source: Source
    offset: int
    digest: int
    event: Event


class InOrder(list[Seen]):
    """A request's records in their total order, which does not depend on when they were read."""

    __slots__ = ()


_order = attrgetter("event.ts", "source", "offset")


def in_order(seen: Iterable[Seen]) -> InOrder:
    """Return a request's records in their total order; what is in order already is returned as it is."""
    return seen if type(seen) is InOrder else InOrder(sorted(seen, key=_order))


class Rejection(Struct, frozen=True, kw_only=True, gc=False):
    """A record that could not be read: where it lies, a bounded reason code, and a sentence for a person."""

    source: Source
    offset: int
    reason: str
    detail: str


def raw_bytes(value: Raw | UnsetType) -> bytes | None:
    """Return the bytes of a raw JSON field, or None when the record has no such field."""
    return None if isinstance(value, UnsetType) else bytes(value)


decode_json = msgspec.json.decode
