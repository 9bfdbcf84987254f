"""Records as they nearly always are, read in one go.

A reader here takes what is exactly of the expected form and returns its event; of anything else it returns None or
raises, and `codec` reads that record with `wire`, which knows every lenient form and says what is wrong. So nothing is
decided here: an event that is returned is the one that `wire` would have returned (tests/property/test_codec.py).

Texts that are the same in record after record are kept once while any record holds them (`intern`): a request that
waits is mostly the texts of its records.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from sys import intern
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType
from msgspec.structs import force_setattr

from verifier.core.events import Edge, Response, Source, Write
from verifier.stream.wire import (
    BYTES_MAX,
    DURATION_MAX_S,
    ERROR_CHARS_MAX,
    KEY_CHARS_MAX,
    TEXT_CHARS_MAX,
    quantity,
    said_text,
)

_SHORT_CHARS = 16
_SHORT_TEXTS_MAX = 16_384
_DURATION_MAX_MS = DURATION_MAX_S * 1000
_OBJECT = ord("{")

ShortText = Annotated[str, Meta(max_length=_SHORT_CHARS)]
Side = Literal["main", "shadow", "canary", "reference"]
Event = Edge | Response | Write
Reader = Callable[[bytes], Event | None]


class QuickEdge(msgspec.Struct, tag_field="v", tag=1):
    """An edge record in its usual form: numbers, or texts of numbers."""

    request_id: str
    side: Side
    ts: float
    method: str
    uri: str
    status: int | str | None = None
    upstream_status: int | str | None = None
    upstream_addr: str | None = None
    upstream_time_s: int | float | ShortText | None = None
    request_time_s: int | float | ShortText | None = None
    bytes_sent: int | ShortText | None = None
    host: str | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    shed: bool | None = None
    sampled: bool | None = None
    shed_reason: str | None = None
    route: str | None = None


class QuickWrite(msgspec.Struct, tag_field="v", tag=1):
    """A write record in its usual form."""

    request_id: str
    side: Side
    ts: float
    entity: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
    key: Annotated[str, Meta(max_length=KEY_CHARS_MAX)] | Annotated[int, Meta(ge=0)]
    op: Literal["insert", "update", "upsert", "delete"]
    seq: Annotated[int, Meta(ge=0, lt=BYTES_MAX)] | None = None
    data: Raw | UnsetType = UNSET
    before: Raw | UnsetType = UNSET
    operation: str | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    status: Literal["applied", "failed"] | None = None
    route: str | None = None


_decode_edge = msgspec.json.Decoder(QuickEdge).decode
_decode_response = msgspec.json.Decoder(Response).decode
_decode_write = msgspec.json.Decoder(QuickWrite).decode

_STATUSES: dict[int | str | None, int | None] = {None: None, "": None, "-": None, 0: None, "0": None}
for _status in range(100, 1000):
    _STATUSES[_status] = _STATUSES[str(_status)] = _status


@lru_cache(_SHORT_TEXTS_MAX)
def _seconds_of(text: str) -> float | None:
    return quantity("seconds", text, DURATION_MAX_S)


@lru_cache(_SHORT_TEXTS_MAX)
def _count_of(text: str) -> int | None:
    found = quantity("count", text, BYTES_MAX)
    return None if found is None else int(found)


def _edge(value: bytes) -> Edge | None:
    wire = _decode_edge(value)
    if wire.shed or wire.sampled is False or wire.shed_reason:
        return None
    upstream_s, request_s, sent = wire.upstream_time_s, wire.request_time_s, wire.bytes_sent
    address, host, user_id, key = wire.upstream_addr, wire.host, wire.user_id, wire.idempotency_key
    # Each for itself and without a call: this is done twice for each request.
    if isinstance(upstream_s, str):
        upstream_s = _seconds_of(upstream_s)
    elif upstream_s is not None and not 0 <= upstream_s <= DURATION_MAX_S:
        upstream_s = None
    if isinstance(request_s, str):
        request_s = _seconds_of(request_s)
    elif request_s is not None and not 0 <= request_s <= DURATION_MAX_S:
        request_s = None
    if isinstance(sent, str):
        sent = _count_of(sent)
    elif sent is not None and not 0 <= sent <= BYTES_MAX:
        sent = None
    if address is not None and not 1 < len(address) <= TEXT_CHARS_MAX:
        address = said_text(address)
    if host is not None and not 1 < len(host) <= TEXT_CHARS_MAX:
        host = said_text(host)
    if user_id is not None and not 1 < len(user_id) <= TEXT_CHARS_MAX:
        user_id = said_text(user_id)
    if key is not None and not 1 < len(key) <= TEXT_CHARS_MAX:
        key = said_text(key)
    return Edge(
        request_id=wire.request_id,
        side=wire.side,
        ts=wire.ts,
        method=intern(wire.method),
        uri=wire.uri,
        status=_STATUSES[wire.status],
        upstream_status=_STATUSES[wire.upstream_status],
        upstream_addr=None if address is None else intern(address),
        upstream_time_s=upstream_s,
        request_time_s=request_s,
        bytes_sent=sent,
        host=None if host is None else intern(host),
        user_id=user_id,
        idempotency_key=key,
        route=wire.route,
    )


def _response(value: bytes) -> Response | None:
    response = _decode_response(value)
    headers, encoding = response.headers, response.body_encoding
    if (
        not 100 <= response.status <= 999
        or response.capture_gap is not None
        or (encoding is not None and encoding != "json")
        or (headers is not UNSET and memoryview(headers)[0] != _OBJECT)
        or (response.writes is not None and response.writes < 0)
        or (response.error is not None and len(response.error) > ERROR_CHARS_MAX)
    ):
        return None
    force_setattr(response, "side", intern(response.side))
    force_setattr(response, "method", intern(response.method))
    duration_ms, user_id, key = response.duration_ms, response.user_id, response.idempotency_key
    if duration_ms is not None and not 0 <= duration_ms <= _DURATION_MAX_MS:
        force_setattr(response, "duration_ms", None)
    if user_id is not None and not 1 < len(user_id) <= TEXT_CHARS_MAX:
        force_setattr(response, "user_id", said_text(user_id))
    if key is not None and not 1 < len(key) <= TEXT_CHARS_MAX:
        force_setattr(response, "idempotency_key", said_text(key))
    return response


def _write(value: bytes) -> Write | None:
    wire = _decode_write(value)
    data, before, key = wire.data, wire.before, wire.key
    if (data is not UNSET and memoryview(data)[0] != _OBJECT) or (
        before is not UNSET and memoryview(before)[0] != _OBJECT
    ):
        return None
    operation, user_id, idempotency_key = wire.operation, wire.user_id, wire.idempotency_key
    if operation is not None and not 1 < len(operation) <= TEXT_CHARS_MAX:
        operation = said_text(operation)
    if user_id is not None and not 1 < len(user_id) <= TEXT_CHARS_MAX:
        user_id = said_text(user_id)
    if idempotency_key is not None and not 1 < len(idempotency_key) <= TEXT_CHARS_MAX:
        idempotency_key = said_text(idempotency_key)
    return Write(
        request_id=wire.request_id,
        side=wire.side,
        ts=wire.ts,
        entity=wire.entity,
        key=key if isinstance(key, str) else str(key),
        op=wire.op,
        seq=wire.seq,
        data=data,
        before=before,
        operation=operation,
        user_id=user_id,
        idempotency_key=idempotency_key,
        status=wire.status or "applied",
        route=wire.route,
    )


READERS: dict[Source, Reader] = {
    Source.EDGE: _edge,
    Source.MAIN_RESPONSES: _response,
    Source.SHADOW_RESPONSES: _response,
    Source.MAIN_WRITES: _write,
    Source.SHADOW_WRITES: _write,
}
"""What reads a source's records. Each may raise anything at all, which means the same as None."""
