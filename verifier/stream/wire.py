"""The fields of records as they are sent, and how each is read: leniently where its meaning is plain.

What a field may not be is refused with a reason code and a sentence that names the field. Texts that end up in tables
are bounded; a longer one keeps its beginning and ends in a hash of the whole, so that different texts stay different.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import UNSET, Raw, UnsetType
from xxhash import xxh3_64_hexdigest

from verifier.core.canonical import Json, NotJson, canonical, number, parse, plain_number
from verifier.core.events import Edge, Response, Write

TEXT_CHARS_MAX = 256
KEY_CHARS_MAX = 1024
ERROR_CHARS_MAX = 2000
DURATION_MAX_S = 1e6
BYTES_MAX = 2**53

_OPS = frozenset(("insert", "update", "upsert", "delete"))
_WRITE_STATUSES = frozenset(("applied", "failed"))
_ENCODINGS = frozenset(("json", "text", "base64", None))
_SHED_REASONS = {b'"rate"': "rate", b'"in_flight"': "in_flight", b'"hop_unreachable"': "hop_unreachable"}
_NOTHING_SAID = (b"null", b'""')
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?", re.ASCII).fullmatch
_PLAIN_KEY = re.compile(rb'"[^"\\]*"').fullmatch


class Refused(Exception):
    """A record that cannot be read; carries the reason code and the sentence for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class WireEdge(msgspec.Struct):
    """An edge record as it is sent."""

    request_id: str
    side: str
    ts: float
    method: str
    uri: str
    v: int | None = 1
    status: int | float | str | None = None
    upstream_status: int | float | str | None = None
    upstream_addr: str | None = None
    upstream_time_s: int | float | str | None = None
    request_time_s: int | float | str | None = None
    bytes_sent: int | float | str | None = None
    host: str | None = None
    user_id: str | int | None = None
    idempotency_key: str | int | None = None
    shed: bool | int | str | None = None
    sampled: bool | int | str | None = None
    shed_reason: Raw | UnsetType = UNSET
    route: str | None = None


class WireResponse(msgspec.Struct):
    """A response record as it is sent."""

    request_id: str
    side: str
    ts: float
    method: str
    path: str
    status: int
    v: int | None = 1
    headers: Raw | UnsetType = UNSET
    body: Raw | UnsetType = UNSET
    body_encoding: str | None = None
    body_truncated: bool | None = None
    duration_ms: float | None = None
    user_id: str | int | None = None
    idempotency_key: str | int | None = None
    writes: int | None = None
    error: Raw | UnsetType = UNSET
    capture_gap: str | bool | None = None
    route: str | None = None


class WireWrite(msgspec.Struct):
    """A write record as it is sent."""

    request_id: str
    side: str
    ts: float
    entity: str
    key: Raw
    op: str
    v: int | None = 1
    seq: int | None = None
    data: Raw | UnsetType = UNSET
    before: Raw | UnsetType = UNSET
    operation: str | None = None
    user_id: str | int | None = None
    idempotency_key: str | int | None = None
    status: str | None = None
    route: str | None = None


# -- records -----------------------------------------------------------------------------------------------------


def read_edge(wire: WireEdge) -> Edge:
    """Return the event of an edge record. Raises Refused."""
    _check_version(wire.v)
    sent = quantity("bytes_sent", wire.bytes_sent, BYTES_MAX)
    return Edge(
        request_id=wire.request_id,
        side=wire.side,
        ts=wire.ts,
        method=wire.method,
        uri=wire.uri,
        status=_status("status", wire.status),
        upstream_status=_status("upstream_status", wire.upstream_status),
        upstream_addr=said_text(wire.upstream_addr),
        upstream_time_s=quantity("upstream_time_s", wire.upstream_time_s, DURATION_MAX_S),
        request_time_s=quantity("request_time_s", wire.request_time_s, DURATION_MAX_S),
        bytes_sent=None if sent is None else int(sent),
        host=said_text(wire.host),
        user_id=said_text(wire.user_id),
        idempotency_key=said_text(wire.idempotency_key),
        shed=_flag("shed", wire.shed, default=False),
        sampled=_flag("sampled", wire.sampled, default=True),
        shed_reason=_shed_reason(wire.shed_reason),
        route=wire.route,
    )


def _shed_reason(raw: Raw | UnsetType) -> str | None:
    """Why a copy was shed: one of the edge's own words, or `other`, as it is a label of metrics."""
    if isinstance(raw, UnsetType) or bytes(raw) in _NOTHING_SAID:
        return None
    return _SHED_REASONS.get(bytes(raw), "other")


def read_response(wire: WireResponse) -> Response:
    """Return the event of a response record. Raises Refused."""
    _check_version(wire.v)
    if not 100 <= wire.status <= 999:
        raise Refused(
            "invalid_field", f"status: expected an HTTP status from 100 to 999, got {str(wire.status)[:40]}"
        )
    if wire.body_encoding not in _ENCODINGS:
        shown = wire.body_encoding[:40] if wire.body_encoding else None
        raise Refused("invalid_field", f"body_encoding: expected json, text or base64, got {shown!r}")
    if wire.body_encoding in ("text", "base64"):
        _raw("body", wire.body, b'"', f"a string, as body_encoding is {wire.body_encoding}")
    gap = "unspecified" if wire.capture_gap is True else wire.capture_gap or None
    body = wire.body
    if gap is not None and isinstance(body, Raw) and bytes(memoryview(body)[:5]) == b"null":
        body = UNSET  # what was dropped, not an answer of null
    if wire.writes is not None and wire.writes < 0:
        raise Refused("invalid_field", f"writes: expected a count from 0, got {str(wire.writes)[:40]}")
    return Response(
        request_id=wire.request_id,
        side=wire.side,
        ts=wire.ts,
        method=wire.method,
        path=wire.path,
        status=wire.status,
        headers=_raw("headers", wire.headers, b"{", "an object of name to string or list of strings"),
        body=body,
        body_encoding=wire.body_encoding,
        body_truncated=bool(wire.body_truncated),
        duration_ms=quantity("duration_ms", wire.duration_ms, DURATION_MAX_S * 1000),
        user_id=said_text(wire.user_id),
        idempotency_key=said_text(wire.idempotency_key),
        writes=wire.writes,
        error=None if isinstance(wire.error, UnsetType) else _error_text(wire.error),
        capture_gap=gap,
        route=wire.route,
    )


def read_write(wire: WireWrite) -> Write:
    """Return the event of a write record. Raises Refused."""
    _check_version(wire.v)
    if wire.op not in _OPS:
        raise Refused("invalid_field", f"op: expected insert, update, upsert or delete, got {wire.op[:40]!r}")
    status = wire.status or "applied"
    if status not in _WRITE_STATUSES:
        raise Refused("invalid_field", f"status: expected applied or failed, got {status[:40]!r}")
    if wire.seq is not None and not 0 <= wire.seq < BYTES_MAX:
        raise Refused("invalid_field", f"seq: expected a number from 0, got {str(wire.seq)[:40]}")
    return Write(
        request_id=wire.request_id,
        side=wire.side,
        ts=wire.ts,
        entity=bounded(wire.entity, TEXT_CHARS_MAX),
        key=bounded(_key_text(bytes(wire.key)), KEY_CHARS_MAX),
        op=wire.op,
        seq=wire.seq,
        data=_raw("data", wire.data, b"{", "an object"),
        before=_raw("before", wire.before, b"{", "an object"),
        operation=said_text(wire.operation),
        user_id=said_text(wire.user_id),
        idempotency_key=said_text(wire.idempotency_key),
        status=status,
        route=wire.route,
    )


# -- fields ------------------------------------------------------------------------------------------------------


def bounded(text: str, chars_max: int) -> str:
    """Return a text of at most `chars_max` characters; a longer one ends in a hash of the whole."""
    if len(text) <= chars_max:
        return text
    return f"{text[: chars_max - 17]}~{xxh3_64_hexdigest(text.encode())}"


def _check_version(version: int | None) -> None:
    if version not in (1, None):
        raise Refused("unsupported_version", f"v: expected 1, got {str(version)[:40]}")


def _number(name: str, value: float | str | None) -> float | None:
    """Read a number as NGINX writes it: absent as "" or "-", several upstream tries as "502, 200" (the last counts)."""
    if not isinstance(value, str):
        return value
    last = value.replace(" : ", ",").rsplit(",", 1)[-1].strip()
    if last in ("", "-"):
        return None
    if _NUMBER(last) is None:
        raise Refused("invalid_field", f'{name}: expected a number, "" or "-", got {value[:40]!r}')
    return float(last)


def quantity(name: str, value: float | str | None, most: float) -> float | None:
    """Read an amount of something.

    One that cannot be (negative, or beyond `most`) comes from a clock or counter gone wrong: then the amount is
    unknown, and the rest of the record is as good as ever.
    """
    number_of = _number(name, value)
    return number_of if number_of is not None and 0 <= number_of <= most else None


def _status(name: str, value: float | str | None) -> int | None:
    status = _number(name, value)
    if status is None or status == 0:
        return None
    if not 100 <= status <= 999 or status != int(status):
        raise Refused(
            "invalid_field", f"{name}: expected an HTTP status from 100 to 999, got {str(value)[:40]!r}"
        )
    return int(status)


def _flag(name: str, value: int | str | None, *, default: bool) -> bool:
    if value is None or value in ("", "-"):
        return default
    if value in (True, 1, "1", "true"):
        return True
    if value in (False, 0, "0", "false"):
        return False
    raise Refused("invalid_field", f"{name}: expected true or false, got {str(value)[:40]!r}")


def said_text(value: str | int | None) -> str | None:
    """Read a text as NGINX writes it: absent as "" or "-"; a longer one than tables take is cut."""
    return None if value is None or value in ("", "-") else bounded(str(value), TEXT_CHARS_MAX)


def _raw(name: str, value: Raw | UnsetType, first: bytes, expected: str) -> Raw | UnsetType:
    """Check by its first byte that a raw field is of the expected JSON type; null counts as absent."""
    if isinstance(value, UnsetType):
        return value
    start = bytes(memoryview(value)[:1])
    if start == first:
        return value
    if start == b"n":
        return UNSET
    raise Refused("invalid_field", f"{name}: expected {expected}")


def _error_text(error: Raw) -> str | None:
    raw = bytes(error)
    if raw == b"null":
        return None
    text = msgspec.json.decode(raw) if raw.startswith(b'"') else raw.decode()
    return str(text)[:ERROR_CHARS_MAX]


def _key_text(raw: bytes) -> str:
    if _PLAIN_KEY(raw):
        return raw[1:-1].decode()
    if raw.isdigit():
        return raw.decode()
    try:
        key = parse(raw)
    except NotJson:
        raise Refused("invalid_field", "key: expected one JSON value") from None
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        return _number_text(key)
    if not isinstance(key, dict) or not key:
        raise Refused("invalid_field", "key: expected a string, a number or an object of the primary key")
    return "{" + ",".join(f"{_quoted(name)}:{_member(key[name])}" for name in sorted(key)) + "}"


def _member(value: Json) -> str:
    if isinstance(value, bytes):
        return _number_text(value)
    return _quoted(value) if isinstance(value, str) else canonical(value).decode()


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _number_text(value: bytes) -> str:
    """A canonical number as people write it: `10`, `1.5`; only what no double holds keeps its exponent."""
    plain = plain_number(value)
    if plain.removeprefix("-").isdigit():
        return plain
    shortest = repr(float(plain))
    return shortest if shortest[-1].isdigit() and number(shortest) == value else plain
