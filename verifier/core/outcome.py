"""What became of one request: the verdict with its witness, as it is journaled, published and stored."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct

from verifier.core.difference import Difference


class Verdict(StrEnum):
    """One current verdict for each request id. Only `match` is agreement."""

    MATCH = "match"
    DIVERGENCE = "divergence"
    INCOMPLETE = "incomplete"
    INCOMPARABLE = "incomparable"


class SideFacts(Struct, frozen=True, array_like=True, gc=False):
    """What one side answered: its status, and its latency in seconds (None when no record tells)."""

    side: str
    status: int | None
    latency_s: float | None


class EventRef(Struct, frozen=True, array_like=True, gc=False):
    """Where an event of a request lies: source number (`events.Source`), offset, content digest."""

    source: int
    offset: int
    digest: int


class WriteSet(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The rows a mutating request wrote on both sides, as stored in `shadow_writes`.

    `main` and `shadow` are lists of `{entity, key, op, data, status}` in the order of the writes; None when the side
    gave no response and no write. `shadow_side` is `shadow` or `canary`. Statuses are HTTP statuses, `error` what
    the new side reported.
    """

    operation: str
    user_id: str | None = None
    main: list[dict[str, Any]] | None = None
    shadow: list[dict[str, Any]] | None = None
    shadow_side: str = "shadow"
    main_status: int | None = None
    shadow_status: int | None = None
    error: str | None = None


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The verdict on one request and everything needed to explain, count and store it.

    `ts` is the event time of the request's first record (Unix seconds). `reasons` say why a request is incomparable
    or what else is to be known; `missing` names the absent parts of an incomplete one as `{side}.{kind}`
    (`shadow.responses`). `differences` decided the verdict; `ignored` were explained by a rule and only count.
    """

    request_id: str
    ts: float
    route: str
    verdict: str
    reasons: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    ignored: tuple[Difference, ...] = ()
    dropped: int = 0
    sides: tuple[SideFacts, ...] = ()
    user_id: str | None = None
    idempotency_key: str | None = None
    writes: WriteSet | None = None


class Claimant(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Who claims a conflict key: one request's writes to it on one side. `ts` and `seq` are its first write's."""

    side: str
    request_id: str
    ts: float
    seq: int = 0
    operation: str | None = None
    entity: str | None = None
    data: Any = None
    digest: int = 0


class Claim(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A claim on a conflict key: `scope` is `idempotency` or `entity`.

    `rev` orders what a request has claimed: the number of records it was concluded from. Evidence only grows, so this
    holds also where a crash has made a worker conclude twice. `revises` says that a verdict had been given before.
    """

    scope: str
    key: str
    claimant: Claimant
    rev: int = 0
    revises: bool = False


class Conflict(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Two writes to one conflict key; the first in the total order wins, whatever order they arrive in.

    `id` is a hash of scope, key and the claimants it is about, so that a later finding about the same loser
    revises the record instead of adding one. `version` grows with each finding on the same key.
    """

    id: str
    scope: str
    key: str
    entity: str | None
    kind: str
    winner: Claimant
    loser: Claimant
    strategy: str
    ts: float
    version: int = 0


class Resolved(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An outcome as one journal entry carries it.

    `rev` counts the revisions of the request's verdict from 0; `was` is the outcome it replaces, so that a fold
    of the journal can take the old one back; `events` say where the evidence lies.
    """

    outcome: Outcome
    events: tuple[EventRef, ...]
    rev: int = 0
    was: Outcome | None = None
