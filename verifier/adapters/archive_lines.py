"""Which source a line of an archive belongs to, and what of it is the record.

A wrapper with a topic, as kcat and other tools dump records, says so itself; else the record's shape and side do; else
the file's name. The record is handed on as it stands: reading it is the codec's work, here as everywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from verifier.core.debezium import read_envelope
from verifier.core.events import Source

DEFAULT_TOPICS = ("edge.requests", "main.responses", "shadow.responses", "main.writes", "shadow.writes")
_SIDES_MAIN = frozenset(("main", "reference"))
_SIDES_OTHER = frozenset(("shadow", "canary"))
_RESPONSES = (Source.MAIN_RESPONSES, Source.SHADOW_RESPONSES)
_PARTS_OF_PATH = 4
_SEPARATORS = re.compile(r"[-_. =]+")
_FILE_WORDS: tuple[tuple[str, Source], ...] = (
    ("edge requests", Source.EDGE),
    ("main responses", Source.MAIN_RESPONSES),
    ("reference responses", Source.MAIN_RESPONSES),
    ("shadow responses", Source.SHADOW_RESPONSES),
    ("canary responses", Source.SHADOW_RESPONSES),
    ("main writes", Source.MAIN_WRITES),
    ("reference writes", Source.MAIN_WRITES),
    ("shadow writes", Source.SHADOW_WRITES),
    ("canary writes", Source.SHADOW_WRITES),
)
_TIMESTAMP_MAX = 1 << 53


class Placed(Struct, frozen=True, kw_only=True):
    """A record and where it belongs. `request_id` None and `ts` 0: the codec will say what is wrong with it."""

    source: Source
    value: bytes | None
    request_id: str | None = None
    ts: float = 0.0
    timestamp: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


class Refused(Struct, frozen=True, kw_only=True):
    """A line that belongs to no source: a bounded reason code and a sentence for a person."""

    reason: str
    detail: str


class _Probe(Struct):
    """What tells records apart; nothing else of a line is looked at."""

    request_id: Any = None
    side: Any = None
    ts: Any = None
    uri: Any = UNSET
    path: Any = UNSET
    status: Any = UNSET
    entity: Any = UNSET
    op: Any = UNSET
    source: Raw | UnsetType = UNSET
    topic: Any = UNSET
    value: Raw | UnsetType = UNSET
    payload: Raw | UnsetType = UNSET
    timestamp: Any = None
    headers: Any = None

    OPS: ClassVar[frozenset[str]] = frozenset("cudr")

    @property
    def wrapped(self) -> Raw | None:
        """The record inside, if this is a wrapper."""
        if not isinstance(self.topic, str) or self.request_id is not None:
            return None
        inside = self.value if not isinstance(self.value, UnsetType) else self.payload
        return None if isinstance(inside, UnsetType) else inside


_probe = msgspec.json.Decoder(_Probe).decode
_decode = msgspec.json.Decoder().decode
_NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)


def source_of_file(path: str) -> Source | None:
    """The source a file's name speaks of, or else its folder's name; None when neither names just one."""
    for part in reversed(PurePath(path).parts[-_PARTS_OF_PATH:]):
        words = f" {_SEPARATORS.sub(' ', part.lower())} "
        named = {source for name, source in _FILE_WORDS if f" {name} " in words}
        if named:
            return named.pop() if len(named) == 1 else None
    return None


class Sorter:
    """Sorts lines to their sources. `topics` are the names of the five topics by source number."""

    def __init__(self, topics: Sequence[str], *, request_id_column: str = "request_id") -> None:
        self._topics = {name: Source(number) for number, name in enumerate(DEFAULT_TOPICS)}
        self._topics |= {name: Source(number) for number, name in enumerate(topics)}
        self._request_id_column = request_id_column

    def sort(self, text: bytes, named: Source | None) -> Placed | Refused:
        """Say where a line belongs; `named` is what the file's name says."""
        try:
            probe = _probe(text)
        except _NOT_JSON as error:
            if named is not None:
                return Placed(source=named, value=text)
            return Refused(reason="not_json", detail=f"{error}; expected one JSON object a line"[:500])
        inside = probe.wrapped
        if inside is not None:
            return self._unwrap(probe, bytes(inside))
        source = _source_by_shape(probe, named)
        if source is None:
            source = named
        if source is None:
            return _no_source(probe)
        return self._placed(source, text, probe)

    def _unwrap(self, wrapper: _Probe, inside: bytes) -> Placed | Refused:
        source = self._topics.get(wrapper.topic)
        if source is None:
            known = ", ".join(sorted(self._topics))
            return Refused(
                reason="unknown_topic", detail=f"topic: expected one of {known}, got {wrapper.topic[:200]!r}"
            )
        value: bytes | None = inside
        if inside.startswith(b'"'):
            try:
                value = str(_decode(inside)).encode(errors="surrogatepass")
            except _NOT_JSON:
                value = inside
        elif inside == b"null":
            value = None
        try:
            probe = _probe(value or b"{}")
        except _NOT_JSON:
            probe = _Probe()
        stamp = wrapper.timestamp if wrapper.timestamp is not None else wrapper.ts
        headers = _headers(wrapper.headers)
        return self._placed(source, value, probe, timestamp=_milliseconds(stamp), headers=headers)

    def _placed(
        self,
        source: Source,
        value: bytes | None,
        probe: _Probe,
        *,
        timestamp: int = 0,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> Placed:
        request_id, ts = probe.request_id, probe.ts
        if value is not None and _is_envelope(probe):
            envelope = self._envelope(value, headers)
            request_id, ts = envelope.get("request_id"), envelope.get("ts")
        return Placed(
            source=source,
            value=value,
            request_id=request_id if isinstance(request_id, str) else None,
            ts=_seconds(ts),
            timestamp=timestamp,
            headers=headers,
        )

    def _envelope(self, value: bytes, headers: tuple[tuple[str, bytes], ...]) -> dict[str, Any]:
        try:
            document = _decode(value)
        except _NOT_JSON:
            return {}
        column = self._request_id_column
        read = read_envelope(document, side="main", request_id_column=column, headers=headers)
        return read if isinstance(read, dict) else {}


def _is_envelope(probe: _Probe) -> bool:
    """Whether this is a Debezium change event, with or without its `payload` wrapper."""
    if isinstance(probe.op, str) and probe.op in probe.OPS and not isinstance(probe.source, UnsetType):
        return True
    if isinstance(probe.payload, UnsetType):
        return False
    try:
        inner = _probe(probe.payload)
    except _NOT_JSON:
        return False
    return isinstance(inner.op, str) and inner.op in inner.OPS and not isinstance(inner.source, UnsetType)


def _names(side: object, sides: frozenset[str]) -> bool:
    return isinstance(side, str) and side in sides


def _source_by_shape(probe: _Probe, named: Source | None) -> Source | None:
    """What shape and side say; an unknown field may make it look like two kinds, then the file's name is asked."""
    response = not isinstance(probe.path, UnsetType) and not isinstance(probe.status, UnsetType)
    if not isinstance(probe.uri, UnsetType) and not (response and named in _RESPONSES):
        return Source.EDGE
    main = _names(probe.side, _SIDES_MAIN)
    if not main and not _names(probe.side, _SIDES_OTHER):
        return None
    if not isinstance(probe.entity, UnsetType):
        return Source.MAIN_WRITES if main else Source.SHADOW_WRITES
    if response:
        return Source.MAIN_RESPONSES if main else Source.SHADOW_RESPONSES
    return None


def _no_source(probe: _Probe) -> Refused:
    name = "and the file's name does not say it either: name it after a topic, such as main.writes.ndjson"
    if _is_envelope(probe):
        return Refused(reason="unknown_side", detail=f"a Debezium change does not say whose it is, {name}")
    shaped = not isinstance(probe.entity, UnsetType) or not isinstance(probe.path, UnsetType)
    if shaped and not _names(probe.side, _SIDES_MAIN | _SIDES_OTHER):
        detail = f"side: expected main, shadow, canary or reference, got {str(probe.side)[:40]!r}, {name}"
        return Refused(reason="unknown_side", detail=detail)
    detail = "neither an edge line (uri), nor a write (entity), nor a response (path and status), "
    return Refused(reason="unknown_shape", detail=detail + name)


def _seconds(ts: object) -> float:
    if isinstance(ts, bool) or not isinstance(ts, int | float):
        return 0.0
    try:
        seconds = float(ts)
    except OverflowError:
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0


def _milliseconds(stamp: object) -> int:
    if isinstance(stamp, bool) or not isinstance(stamp, int | float) or not 0 < stamp < _TIMESTAMP_MAX:
        return 0
    return int(stamp)


def _headers(given: object) -> tuple[tuple[str, bytes], ...]:
    """Headers as an object, as pairs, or one after the other as kcat writes them."""
    if isinstance(given, dict):
        pairs = list(given.items())
    elif isinstance(given, list) and all(isinstance(each, list) and len(each) == 2 for each in given):
        pairs = [(name, value) for name, value in given]
    elif isinstance(given, list):
        pairs = list(zip(given[::2], given[1::2], strict=False))
    else:
        return ()
    return tuple((str(n), str(v).encode(errors="replace")) for n, v in pairs if v is not None)
