"""Records to events: any bytes become an event or a rejection, nothing else.

Records are decoded by schema (msgspec), bodies and row images stay raw. What msgspec does not look at inside raw JSON
is checked here: invalid UTF-8 and excessive nesting. Content that is read twice is known by its 64-bit XXH3 hash.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Raw
from xxhash import xxh3_64_intdigest

from verifier.core.debezium import position, read_envelope
from verifier.core.events import SIDES_OF_SOURCE, Event, Rejection, Seen, Source, Write
from verifier.core.partitioner import murmur2_partition
from verifier.stream.quick import READERS
from verifier.stream.wire import (
    Refused,
    WireEdge,
    WireResponse,
    WireWrite,
    read_edge,
    read_response,
    read_write,
)

TS_MIN = 946_684_800.0  # 2000-01-01: anything before is a wrong unit or an unset clock
TS_MAX = 4_102_444_800.0  # 2100-01-01: anything after is a wrong unit, whatever the broker's time stamp says
DETAIL_CHARS_MAX = 500

REASONS = frozenset(
    (
        "empty",
        "too_large",
        "invalid_utf8",
        "invalid_json",
        "too_deep",
        "not_an_object",
        "missing_field",
        "invalid_field",
        "invalid_envelope",
        "invalid_request_id",
        "unknown_side",
        "invalid_ts",
        "unsupported_version",
        "wrong_partition",
        "reader_failed",
    )
)
"""Every reason a record can be rejected for: they are labels of metrics, so the set is closed."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}").fullmatch
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


_decode_edge = msgspec.json.Decoder(WireEdge).decode
_decode_response = msgspec.json.Decoder(WireResponse).decode
_decode_write = msgspec.json.Decoder(WireWrite).decode
_decode_any = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode


class Codec:
    """Decodes the records of one partition index."""

    def __init__(self, config: CodecConfig) -> None:
        self._config = config
        self._partition_of = murmur2_partition(config.partitions)

    def decode(
        self, source: Source, partition: int, records: Sequence[Record], known: Container[str] = ()
    ) -> tuple[list[Seen], list[Rejection]]:
        """Decode a batch. `known` holds request ids read before on this partition: they are right, and in place."""
        events: list[Seen] = []
        rejections: list[Rejection] = []
        read_quickly, sides = READERS[source], SIDES_OF_SOURCE[source]
        is_id, partition_of, digest_of = _REQUEST_ID, self._partition_of, xxh3_64_intdigest
        depth_max, future_max_s = self._config.depth_max, self._config.future_max_s
        bytes_max, flat_bytes_max = self._config.record_bytes_max, 2 * depth_max
        for record in records:
            value = record.value
            event = None
            try:
                if (
                    value
                    and len(value) <= bytes_max
                    and (value.isascii() or value.decode())
                    # what nests deeper than the bound has as many brackets, and as many again that close them
                    and (len(value) <= flat_bytes_max or value.count(b"{") + value.count(b"[") <= depth_max)
                ):
                    event = read_quickly(value)
            except Exception:  # noqa: BLE001, S110 - what it is about such a record is found out below
                pass
            if value and event is not None:
                request_id, ts, stamp_ms = event.request_id, event.ts, record.timestamp
                if (
                    event.side in sides
                    and TS_MIN <= ts <= TS_MAX
                    and (stamp_ms <= 0 or ts <= stamp_ms / 1000 + future_max_s)
                    and (request_id in known or (is_id(request_id) and partition_of(request_id) == partition))
                ):
                    digest = digest_of(value)
                    events.append(Seen(source=source, offset=record.offset, digest=digest, event=event))
                    continue
            found = self._read(source, partition, record, known)
            if isinstance(found, Seen):
                events.append(found)
            else:
                rejections.append(found)
        return events, rejections

    def _read(
        self, source: Source, partition: int, record: Record, known: Container[str]
    ) -> Seen | Rejection:
        """Read a record whatever its form, or say what is wrong with it."""
        try:
            event, content = self._event(source, record, record.value)
            if event.request_id not in known:
                self._check_partition(event.request_id, partition)
            digest = xxh3_64_intdigest(content)
            return Seen(source=source, offset=record.offset, digest=digest, event=event)
        except Refused as refused:
            return _rejection(source, record, refused.reason, refused.detail)
        except Exception as error:  # noqa: BLE001 - one record nobody foresaw must not stop the partition for ever
            detail = f"the reader failed with {type(error).__name__}: this is a defect of the verifier"
            return _rejection(source, record, "reader_failed", detail)

    def _check_partition(self, request_id: str, partition: int) -> None:
        right = self._partition_of(request_id)
        if right != partition:
            raise Refused(
                "wrong_partition",
                f"request_id hashes (murmur2) to partition {right} but was found on {partition}: set the producer's "
                "partitioner to murmur2 (librdkafka: partitioner=murmur2_random) and key records by request_id",
            )

    def _event(self, source: Source, record: Record, value: bytes | None) -> tuple[Event, bytes]:
        """Return the event and the bytes that are its content."""
        if not value:
            raise Refused("empty", "value is empty; expected a JSON object")
        if len(value) > self._config.record_bytes_max:
            raise Refused(
                "too_large", f"{len(value)} bytes; at most {self._config.record_bytes_max} are read"
            )
        content = value
        try:
            if not value.isascii():
                value.decode()
            if source is Source.EDGE:
                event: Event = read_edge(_decode_edge(value))
            elif source in (Source.MAIN_RESPONSES, Source.SHADOW_RESPONSES):
                event = read_response(_decode_response(value))
            else:
                event, content = self._write(source, record, value)
        except msgspec.ValidationError as error:
            raise _invalid(error) from None
        except UnicodeDecodeError as error:
            raise Refused("invalid_utf8", f"invalid UTF-8 at byte {error.start}") from None
        except msgspec.DecodeError as error:
            raise Refused("invalid_json", f"not JSON as UTF-8 can hold it: {error}") from None
        except RecursionError:
            raise Refused("too_deep", f"nested deeper than {self._config.depth_max} levels") from None
        self._check(source, record, value, event)
        return event, content

    def _check(self, source: Source, record: Record, value: bytes, event: Event) -> None:
        if _REQUEST_ID(event.request_id) is None:
            raise Refused("invalid_request_id", "request_id: expected 1 to 128 of [A-Za-z0-9._:-]")
        if event.side not in SIDES_OF_SOURCE[source]:
            expected = " or ".join(SIDES_OF_SOURCE[source])
            raise Refused("unknown_side", f"side: expected {expected} on this topic, got {event.side[:40]!r}")
        latest = self._latest(record)
        if not TS_MIN <= event.ts <= latest:
            raise Refused(
                "invalid_ts",
                f"ts: expected Unix seconds from {TS_MIN:.0f} to {latest:.0f} (at most "
                f"{self._config.future_max_s:.0f} s beyond the broker's time stamp), got {event.ts!r}",
            )
        depth_max = self._config.depth_max
        if value.count(b"[") + value.count(b"{") > depth_max and _depth(value) > depth_max:
            raise Refused("too_deep", f"nested deeper than {depth_max} levels")

    def _latest(self, record: Record) -> float:
        if record.timestamp <= 0:  # the broker gives none
            return TS_MAX
        return min(TS_MAX, record.timestamp / 1000 + self._config.future_max_s)

    def _write(self, source: Source, record: Record, value: bytes) -> tuple[Write, bytes]:
        try:
            return read_write(_decode_write(value)), value
        except msgspec.ValidationError as error:
            try:
                document = _decode_any(value)
            except (
                msgspec.ValidationError
            ):  # a number that no double holds: the error of the schema says where
                raise error from None
            if not isinstance(document, dict):
                raise
            envelope = read_envelope(
                document,
                side=SIDES_OF_SOURCE[source][0],
                request_id_column=self._config.request_id_column,
                headers=getattr(record, "headers", None) or (),
            )
            if envelope is None:
                raise _invalid(error) from None
            if isinstance(envelope, str):
                raise Refused("invalid_envelope", envelope) from None
            content = _encode_sorted([envelope, position(document)])
            return read_write(msgspec.convert(_raw_fields(envelope), WireWrite)), content


def _rejection(source: Source, record: Record, reason: str, detail: str) -> Rejection:
    return Rejection(source=source, offset=record.offset, reason=reason, detail=detail[:DETAIL_CHARS_MAX])


def _raw_fields(envelope: dict[str, Any]) -> dict[str, Any]:
    return {
        name: Raw(_encode_sorted(value)) if name in ("key", "data", "before") else value
        for name, value in envelope.items()
    }


def _invalid(error: msgspec.ValidationError) -> Refused:
    """Turn msgspec's message into a reason code and a sentence that names the field."""
    message = str(error)
    if "missing required field" in message:
        return Refused("missing_field", message)
    if message.startswith("Expected `object`") and " - at " not in message:
        return Refused("not_an_object", f"{message}; expected a JSON object")
    return Refused("invalid_field", message)


def _depth(value: bytes) -> int:
    """How deep the arrays and objects of a JSON text nest."""
    deepest = depth = 0
    for token in _TOKENS.findall(value):
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest
