"""Records to events: any bytes become an event or a rejection, nothing else.

Records are decoded by schema (msgspec), bodies and row images stay raw. What msgspec does not look at inside raw JSON
is checked here: invalid UTF-8 and excessive nesting. Content that is read twice is known by its 64-bit XXH3 hash.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Raw, UnsetType
from xxhash import xxh3_64_intdigest

from verifier.core.debezium import position, read_envelope
from verifier.core.events import SIDES_OF_SOURCE, Edge, Event, Rejection, Response, Seen, Source, Write
from verifier.core.partitioner import murmur2_partition

TS_MIN = 946_684_800.0  # 2000-01-01: anything before is a wrong unit or an unset clock
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}").fullmatch
_OPS = frozenset(("insert", "update", "upsert", "delete"))
_WRITE_STATUSES = frozenset(("applied", "failed"))
_ENCODINGS = frozenset(("json", "text", "base64", None))
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


class Record(Protocol):
    """What a consumer hands over for each record; `timestamp` is the broker's, in milliseconds."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class CodecConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what is read. `future_max_s`: how far beyond the broker's time stamp an event time may lie."""

    partitions: int = 1
    record_bytes_max: int = 8 * 1024 * 1024
    depth_max: int = 512
    future_max_s: float = 86_400.0
    request_id_column: str = "request_id"


class _Refused(Exception):
    """A record that cannot be read; carries the reason code and the sentence for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class _WireEdge(msgspec.Struct):
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
    route: str | None = None


class _WireResponse(msgspec.Struct):
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


class _WireWrite(msgspec.Struct):
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


_decode_edge = msgspec.json.Decoder(_WireEdge).decode
_decode_response = msgspec.json.Decoder(_WireResponse).decode
_decode_write = msgspec.json.Decoder(_WireWrite).decode
_decode_any = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


class Codec:
    """Decodes the records of one partition index."""

    def __init__(self, config: CodecConfig) -> None:
        self._config = config
        self._partition_of = murmur2_partition(config.partitions)

    def decode(
        self, source: Source, partition: int, records: Sequence[Record], known: Any = ()
    ) -> tuple[list[Seen], list[Rejection]]:
        """Decode a batch. `known` holds request ids already met on this partition: those need no partition check."""
        events: list[Seen] = []
        rejections: list[Rejection] = []
        read = self._event
        for record in records:
            try:
                event, content = read(source, record, record.value)
                if event.request_id not in known:
                    self._check_partition(event.request_id, partition)
                digest = xxh3_64_intdigest(content)
                events.append(Seen(source=source, offset=record.offset, digest=digest, event=event))
            except _Refused as refused:
                rejections.append(
                    Rejection(
                        source=source, offset=record.offset, reason=refused.reason, detail=refused.detail[:500]
                    )
                )
        return events, rejections

    def _check_partition(self, request_id: str, partition: int) -> None:
        right = self._partition_of(request_id)
        if right != partition:
            raise _Refused(
                "wrong_partition",
                f"request_id hashes (murmur2) to partition {right} but was found on {partition}: set the producer's "
                "partitioner to murmur2 (librdkafka: partitioner=murmur2_random) and key records by request_id",
            )

    def _event(self, source: Source, record: Record, value: bytes | None) -> tuple[Event, bytes]:
        """Return the event and the bytes that are its content."""
        if not value:
            raise _Refused("empty", "value is empty; expected a JSON object")
        if len(value) > self._config.record_bytes_max:
            raise _Refused("too_large", f"{len(value)} bytes; at most {self._config.record_bytes_max} are read")
        content = value
        try:
            if not value.isascii():
                value.decode()
            if source is Source.EDGE:
                event: Event = _edge(_decode_edge(value))
            elif source in (Source.MAIN_RESPONSES, Source.SHADOW_RESPONSES):
                event = _response(_decode_response(value))
            else:
                event, content = self._write(source, record, value)
        except msgspec.ValidationError as error:
            raise _invalid(value, error) from None
        except UnicodeDecodeError as error:
            raise _Refused("invalid_utf8", f"invalid UTF-8 at byte {error.start}") from None
        except msgspec.DecodeError as error:
            raise _Refused("invalid_json", f"not JSON: {error}") from None
        except RecursionError:
            raise _Refused("too_deep", f"nested deeper than {self._config.depth_max} levels") from None
        self._check(source, record, value, event)
        return event, content

    def _check(self, source: Source, record: Record, value: bytes, event: Event) -> None:
        if _REQUEST_ID(event.request_id) is None:
            raise _Refused("invalid_request_id", "request_id: expected 1 to 128 of [A-Za-z0-9._:-]")
        if event.side not in SIDES_OF_SOURCE[source]:
            expected = " or ".join(SIDES_OF_SOURCE[source])
            raise _Refused("unknown_side", f"side: expected {expected} on this topic, got {event.side[:40]!r}")
        if not TS_MIN <= event.ts or (record.timestamp > 0 and event.ts > self._latest(record)):
            raise _Refused(
                "invalid_ts",
                f"ts: expected Unix seconds from {TS_MIN:.0f} to at most {self._config.future_max_s:.0f} s beyond the "
                f"broker's time stamp, got {event.ts!r}",
            )
        depth_max = self._config.depth_max
        if value.count(b"[") + value.count(b"{") > depth_max and _depth(value) > depth_max:
            raise _Refused("too_deep", f"nested deeper than {depth_max} levels")

    def _latest(self, record: Record) -> float:
        return record.timestamp / 1000 + self._config.future_max_s

    def _write(self, source: Source, record: Record, value: bytes) -> tuple[Write, bytes]:
        try:
            return _write(_decode_write(value)), value
        except msgspec.ValidationError as error:
            document = _decode_any(value)
            if not isinstance(document, dict):
                raise
            envelope = read_envelope(
                document,
                side=SIDES_OF_SOURCE[source][0],
                request_id_column=self._config.request_id_column,
                headers=getattr(record, "headers", ()),
            )
            if envelope is None:
                raise _invalid(value, error) from None
            if isinstance(envelope, str):
                raise _Refused("invalid_envelope", envelope) from None
            content = _encode_sorted([envelope, position(document)])
            return _write(msgspec.convert(_raw_fields(envelope), _WireWrite)), content


def _raw_fields(envelope: dict[str, Any]) -> dict[str, Any]:
    return {
        name: Raw(_encode_sorted(value)) if name in ("key", "data", "before") else value
        for name, value in envelope.items()
    }


def _invalid(value: bytes, error: msgspec.ValidationError) -> _Refused:
    """Turn msgspec's message into a reason code and a sentence that names the field."""
    message = str(error)
    if "missing required field" in message:
        return _Refused("missing_field", message)
    if message.startswith("Expected `object`") and " - at " not in message:
        return _Refused("not_an_object", f"{message}; expected a JSON object")
    return _Refused("invalid_field", message)


def _check_version(version: int | None) -> None:
    if version not in (1, None):
        raise _Refused("unsupported_version", f"v: expected 1, got {version}")


def _number(name: str, value: int | float | str | None) -> float | None:
    """Read a number as NGINX writes it: absent as "" or "-", several upstream tries as "502, 200" (the last counts)."""
    if value is None or not isinstance(value, str):
        return value
    last = value.replace(" : ", ",").rsplit(",", 1)[-1].strip()
    if last in ("", "-"):
        return None
    try:
        return float(last)
    except ValueError:
        raise _Refused("invalid_field", f'{name}: expected a number, "", or "-", got {value[:40]!r}') from None


def _status(name: str, value: int | float | str | None) -> int | None:
    number = _number(name, value)
    if number is None or number == 0:
        return None
    if not 100 <= number <= 999:
        raise _Refused("invalid_field", f"{name}: expected an HTTP status from 100 to 999, got {value!r}")
    return int(number)


def _flag(name: str, value: bool | int | str | None, default: bool) -> bool:
    if value is None or value in ("", "-"):
        return default
    if value in (True, 1, "1", "true"):
        return True
    if value in (False, 0, "0", "false"):
        return False
    raise _Refused("invalid_field", f"{name}: expected true or false, got {str(value)[:40]!r}")


def _text(value: str | int | None) -> str | None:
    return None if value is None or value in ("", "-") else str(value)[:256]


def _edge(wire: _WireEdge) -> Edge:
    _check_version(wire.v)
    sent = _number("bytes_sent", wire.bytes_sent)
    return Edge(
        request_id=wire.request_id,
        side=wire.side,
        ts=wire.ts,
        method=wire.method,
        uri=wire.uri,
        status=_status("status", wire.status),
        upstream_status=_status("upstream_status", wire.upstream_status),
        upstream_addr=_text(wire.upstream_addr),
        upstream_time_s=_number("upstream_time_s", wire.upstream_time_s),
        request_time_s=_number("request_time_s", wire.request_time_s),
        bytes_sent=None if sent is None else int(sent),
        host=wire.host,
        user_id=_text(wire.user_id),
        idempotency_key=_text(wire.idempotency_key),
        shed=_flag("shed", wire.shed, default=False),
        sampled=_flag("sampled", wire.sampled, default=True),
        route=wire.route,
    )


def _raw(name: str, value: Raw | UnsetType, first: bytes, expected: str) -> Raw | UnsetType:
    """Check by its first byte that a raw field is of the expected JSON type; null counts as absent."""
    if isinstance(value, UnsetType):
        return value
    start = bytes(memoryview(value)[:1])
    if start == first:
        return value
    if start == b"n":
        return UNSET
    raise _Refused("invalid_field", f"{name}: expected {expected}")


def _response(wire: _WireResponse) -> Response:
    _check_version(wire.v)
    if not 100 <= wire.status <= 999:
        raise _Refused("invalid_field", f"status: expected an HTTP status from 100 to 999, got {wire.status}")
    if wire.body_encoding not in _ENCODINGS:
        raise _Refused("invalid_field", f"body_encoding: expected json, text or base64, got {wire.body_encoding!r}")
    if wire.body_encoding in ("text", "base64") and not isinstance(wire.body, UnsetType):
        _raw("body", wire.body, b'"', f"a string, as body_encoding is {wire.body_encoding}")
    if wire.writes is not None and wire.writes < 0:
        raise _Refused("invalid_field", f"writes: expected a count from 0, got {wire.writes}")
    return Response(
        request_id=wire.request_id,
        side=wire.side,
        ts=wire.ts,
        method=wire.method,
        path=wire.path,
        status=wire.status,
        headers=_raw("headers", wire.headers, b"{", "an object of name to string or list of strings"),
        body=wire.body,
        body_encoding=wire.body_encoding,
        body_truncated=bool(wire.body_truncated),
        duration_ms=wire.duration_ms,
        user_id=_text(wire.user_id),
        idempotency_key=_text(wire.idempotency_key),
        writes=wire.writes,
        error=None if isinstance(wire.error, UnsetType) else _error_text(wire.error),
        capture_gap="unspecified" if wire.capture_gap is True else wire.capture_gap or None,
        route=wire.route,
    )


def _error_text(error: Raw) -> str | None:
    value = _decode_any(error)
    return value[:2000] if isinstance(value, str) else None if value is None else bytes(error)[:2000].decode(errors="replace")


def _key_text(raw: Raw) -> str:
    key = _decode_any(raw)
    if isinstance(key, str):
        return key[:1024]
    if isinstance(key, bool) or not isinstance(key, int | float | dict):
        raise _Refused("invalid_field", "key: expected a string, a number or an object of the primary key")
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    return str(_encode_sorted(key), "utf-8")[:1024]


def _write(wire: _WireWrite) -> Write:
    _check_version(wire.v)
    if wire.op not in _OPS:
        raise _Refused("invalid_field", f"op: expected insert, update, upsert or delete, got {wire.op[:40]!r}")
    status = wire.status or "applied"
    if status not in _WRITE_STATUSES:
        raise _Refused("invalid_field", f"status: expected applied or failed, got {status[:40]!r}")
    if wire.seq is not None and wire.seq < 0:
        raise _Refused("invalid_field", f"seq: expected a number from 0, got {wire.seq}")
    return Write(
        request_id=wire.request_id,
        side=wire.side,
        ts=wire.ts,
        entity=wire.entity[:256],
        key=_key_text(wire.key),
        op=wire.op,
        seq=wire.seq,
        data=_raw("data", wire.data, b"{", "an object"),
        before=_raw("before", wire.before, b"{", "an object"),
        operation=wire.operation,
        user_id=_text(wire.user_id),
        idempotency_key=_text(wire.idempotency_key),
        status=status,
        route=wire.route,
    )


def _depth(value: bytes) -> int:
    deepest = depth = 0
    for token in _TOKENS.findall(value):
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest
