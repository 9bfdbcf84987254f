"""The records a service publishes, and their JSON form (schemas/response, schemas/write).

Encoding a response is kept apart from taking it: the request only collects references, and whoever
drains the queue pays for the JSON.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Side = Literal["main", "shadow", "canary", "reference"]
Op = Literal["insert", "update", "upsert", "delete"]
WriteStatus = Literal["applied", "failed"]

SIDES: Final[frozenset[str]] = frozenset({"main", "shadow", "canary", "reference"})
OPS: Final[frozenset[str]] = frozenset({"insert", "update", "upsert", "delete"})
WRITE_STATUSES: Final[frozenset[str]] = frozenset({"applied", "failed"})
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
REDACTED: Final = "[redacted]"

# Which pair of topics a side writes to. The new system's canary shares the shadow's topics, a reference
# instance shares main's: the record's own `side` tells them apart.
_FAMILY: Final[Mapping[str, str]] = {
    "main": "main",
    "reference": "main",
    "shadow": "shadow",
    "canary": "shadow",
}
# A lone surrogate can only enter a JSON text through an escape; most bodies have none, and skip the check.
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_ERROR_CHARS_MAX: Final = 500

RawHeaders = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRecord:
    """One response as this service gave it, not yet encoded.

    `ts` is Unix time in seconds when the response was finished. `body` is at most the capture cap;
    `body_bytes` is how many bytes the whole body had. `writes` is None when the count is not known.
    """

    request_id: str
    side: Side
    ts: float
    method: str
    path: str
    status: int
    headers: RawHeaders
    redact: frozenset[bytes]
    body: bytes
    body_bytes: int
    body_truncated: bool
    duration_ms: float
    user_id: str | None = None
    idempotency_key: str | None = None
    writes: int | None = None
    error: str | None = None
    capture_gap: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GapNote:
    """What is still known of a response that could not be kept: enough to call the pair incomparable."""

    request_id: str
    side: Side
    ts: float
    method: str
    path: str
    status: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRecord:
    """One encoded write. `on_refused` is called when the broker will never take it (too large)."""

    request_id: str
    value: bytes
    on_refused: Callable[[], GapNote | None]


def topic_family(side: str) -> str:
    """`main` or `shadow`: the topics that records of this side go to.

    Raises ValueError for a side that does not exist.
    """
    if side not in _FAMILY:
        raise ValueError(f"side is {side!r}; it must be one of {', '.join(sorted(SIDES))}")
    return _FAMILY[side]


def gap_of(record: ResponseRecord, reason: str) -> GapNote:
    """The note that stands for a response that had to be let go."""
    return GapNote(
        request_id=record.request_id,
        side=record.side,
        ts=record.ts,
        method=record.method,
        path=record.path,
        status=record.status,
        reason=reason,
    )


def encode_response(record: ResponseRecord) -> bytes:
    """The record's value: UTF-8 JSON, the body last and, where it is JSON, byte for byte as it was sent."""
    headers, content_type = _plain_headers(record.headers, record.redact)
    encoding, body = encode_body(record.body, content_type, truncated=record.body_truncated)
    fields: dict[str, object] = {
        "v": 1,
        "request_id": record.request_id,
        "side": record.side,
        "ts": round(record.ts, 6),
        "method": record.method,
        "path": record.path,
        "status": record.status,
        "duration_ms": round(record.duration_ms, 3),
    }
    if record.user_id is not None:
        fields["user_id"] = record.user_id
    if record.idempotency_key is not None:
        fields["idempotency_key"] = record.idempotency_key
    if record.writes is not None:
        fields["writes"] = record.writes
    if record.error is not None:
        fields["error"] = record.error
    if record.capture_gap is not None:
        fields["capture_gap"] = record.capture_gap
    fields["body_bytes"] = record.body_bytes
    fields["body_truncated"] = record.body_truncated
    fields["headers"] = headers
    fields["body_encoding"] = encoding
    return _dumps(fields)[:-1] + b',"body":' + body + b"}"


def encode_gap(note: GapNote) -> bytes:
    """A response record without a body, saying why there is none."""
    return _dumps(
        {
            "v": 1,
            "request_id": note.request_id,
            "side": note.side,
            "ts": round(note.ts, 6),
            "method": note.method,
            "path": note.path,
            "status": note.status,
            "body_truncated": True,
            "capture_gap": note.reason,
        }
    )


def encode_body(body: bytes, content_type: str, *, truncated: bool) -> tuple[str, bytes]:
    """`(body_encoding, JSON text of the body)` for a body of this media type.

    `json` embeds the very bytes that were sent, without the white space around the value, so no number is
    re-written; it needs a JSON media type and a body that every JSON reader understands alike. Anything else
    that is UTF-8 goes as `text`, the rest as `base64`: both give the bytes back exactly.
    """
    if not truncated and body and is_json_media_type(content_type) and _is_faithful_json(body):
        return "json", body.strip(b" \t\r\n")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        # The cap may have cut a character in two; the rest of a text body is still best read as text.
        if not (truncated and exc.start >= len(body) - 3 and exc.reason == "unexpected end of data"):
            return "base64", b'"' + base64.b64encode(body) + b'"'
        text = body[: exc.start].decode("utf-8")
    return "text", json.dumps(text, ensure_ascii=False).encode()


def encode_write(
    *,
    request_id: str,
    side: Side,
    ts: float,
    entity: str,
    key: object,
    op: Op,
    seq: int,
    data: object,
    before: object,
    status: WriteStatus,
    operation: str | None,
    user_id: str | None,
    idempotency_key: str | None,
) -> bytes:
    """The value of a write record.

    Raises ValueError or TypeError when a part is not of the contract or has no faithful JSON form (an unknown
    class, NaN, a lone surrogate, an endless or too deep structure).
    """
    if op not in OPS:
        raise ValueError(f"op is {op!r}; it must be one of {', '.join(sorted(OPS))}")
    if status not in WRITE_STATUSES:
        raise ValueError(f"status is {status!r}; it must be one of {', '.join(sorted(WRITE_STATUSES))}")
    if not entity or not isinstance(entity, str):
        raise ValueError("entity must be the name of a table or collection")
    if key is None or isinstance(key, bool):
        raise ValueError(f"key is {key!r}; it must be a string, a number or an object of the primary key")
    fields: dict[str, object] = {
        "v": 1,
        "request_id": request_id,
        "side": side,
        "ts": round(ts, 6),
        "entity": entity,
        "key": key,
        "op": op,
        "seq": seq,
        "status": status,
    }
    optional = {
        "operation": operation,
        "user_id": user_id,
        "idempotency_key": idempotency_key,
        "data": data,
        "before": before,
    }
    fields.update((name, value) for name, value in optional.items() if value is not None)
    try:
        return _dumps(fields)
    except RecursionError as exc:
        raise ValueError("the write's data is nested too deep for JSON") from exc


def error_text(exc: BaseException) -> str:
    """Class and message of an exception, cut to 500 characters and clean of what UTF-8 cannot carry."""
    text = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    return text[:_ERROR_CHARS_MAX].encode("utf-8", "replace").decode("utf-8")


def is_json_media_type(content_type: str) -> bool:
    """Whether a Content-Type names JSON: `application/json`, or a `+json` suffix (RFC 6839)."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _plain_headers(raw: RawHeaders, redact: frozenset[bytes]) -> tuple[dict[str, str | list[str]], str]:
    headers: dict[str, str | list[str]] = {}
    content_type = ""
    for raw_name, raw_value in raw:
        lower = raw_name.lower()
        name = lower.decode("latin-1")
        value = REDACTED if lower in redact else raw_value.decode("latin-1")
        if lower == b"content-type":
            content_type = raw_value.decode("latin-1")
        known = headers.get(name)
        if known is None:
            headers[name] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            headers[name] = [known, value]
    return headers, content_type


class _NotFaithfulError(ValueError):
    """The text is JSON to some readers only."""


def _no_constant(name: str) -> object:
    raise _NotFaithfulError(name)


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Readers differ on which of two equal names wins, so such a body is not embedded: as text it stays whole.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotFaithfulError("repeated name")
    return found


# Numbers are only looked at, never converted: `parse_int=str` has no limit of digits and loses nothing.
_FAITHFUL: Final = json.JSONDecoder(
    object_pairs_hook=_no_repeats, parse_constant=_no_constant, parse_float=str, parse_int=str
)


def _is_faithful_json(body: bytes) -> bool:
    try:
        text = body.decode("utf-8")
        value = _FAITHFUL.decode(text)
        if _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return False
    return True


def json_text(value: object) -> str:
    """Compact JSON of a row's values.

    Raises TypeError for a class without a JSON form, ValueError for NaN or an endless structure.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain_value)


def _dumps(value: object) -> bytes:
    return json_text(value).encode("utf-8")


def _plain_value(value: object) -> object:
    """JSON for the values rows are made of. A Decimal becomes its exact text, never a rounded float."""
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form; give a plain value instead")
