"""ASGI middleware that publishes one response record for each request that carries an X-Request-ID.

It stands between the server and the application and changes nothing: each message goes on before it is looked
at, at most `body_max_bytes` of a body are kept, and no failure of the capture reaches the request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from verifier.capture.announcement import Announcement
from verifier.capture.capture_queue import WRITES_DROPPED
from verifier.capture.queued_publisher import Publisher
from verifier.capture.records import (
    REQUEST_ID,
    RawHeaders,
    ResponseRecord,
    Side,
    error_text,
    topic_family,
)
from verifier.capture.writes import WRITE_BYTES_MAX, WRITES_MAX, WriteRecorder, recording

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
SideOf = Callable[[Scope], Side]

_log = logging.getLogger("verifier.capture")

CLIENT_DISCONNECTED: Final = "client_disconnected"
CANCELLED: Final = "cancelled"
BODY_NOT_VISIBLE: Final = "body_not_visible"
HEADERS_TOO_LARGE: Final = "headers_too_large"
_STATUS_CLIENT_CLOSED: Final = 499  # NGINX's code for a client that left before there was a response
_HEADER_CHARS_MAX: Final = 256
_REDACT_ALWAYS: Final = frozenset({b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureConfig:
    """What is captured, and how much of it.

    `after_response_s`: work that an application does after its response (background tasks) may still write.
    The record waits for it so long, then goes out without a count of writes. `announce_writes` off leaves the
    count out always: for a service whose writes come from Debezium. `responses` off: the edge captures those; the
    writes alone are published, and their count is told to the edge in `X-Verifier-Writes`.
    """

    body_max_bytes: int = 65_536
    headers_max_bytes: int = 65_536
    redact: frozenset[str] = frozenset()  # besides authorization, cookie, set-cookie, proxy-authorization
    request_id_header: str = "x-request-id"
    user_id_header: str = "x-user-id"
    idempotency_key_header: str = "idempotency-key"
    skip_paths: frozenset[str] = frozenset()
    after_response_s: float = 5.0
    announce_writes: bool = True
    responses: bool = True
    writes_max: int = WRITES_MAX
    write_bytes_max: int = WRITE_BYTES_MAX


@dataclass(slots=True)
class CaptureStats:
    """Counts since the start of this middleware."""

    captured: int = 0
    without_id: int = 0
    bad_id: int = 0
    skipped: int = 0
    truncated: int = 0
    gaps: int = 0
    writes_after_response: int = 0
    failures: int = 0  # of the capture itself; each is logged, none reaches the request


@dataclass(frozen=True, slots=True)
class _Names:
    request_id: bytes
    user_id: bytes
    idempotency_key: bytes
    redact: frozenset[bytes] = field(default=_REDACT_ALWAYS)


def side_of_mirror(*, mirrored: Side = "shadow", direct: Side = "canary") -> SideOf:
    """The side of a service that gets both mirrored and canary traffic.

    NGINX marks the mirror's copies with `X-Shadow-Request: true`, and removes that header from what users send.
    """

    def side_of(scope: Scope) -> Side:
        for name, value in scope["headers"]:
            if name.lower() == b"x-shadow-request":
                return mirrored if value.strip().lower() == b"true" else direct
        return direct

    return side_of


class CaptureMiddleware:
    """Wraps an ASGI application and publishes what it answers.

    `side` is fixed, or a function of the ASGI scope. Wrap the whole application with it
    (`app = CaptureMiddleware(app, ...)`): then the answers of the framework's own error pages are seen too.

    Raises ValueError when the publisher's topics do not belong to `side`, or a bound cannot be.
    """

    def __init__(
        self,
        app: App,
        *,
        side: Side | SideOf,
        publisher: Publisher,
        config: CaptureConfig | None = None,
    ) -> None:
        config = config or CaptureConfig()
        if config.body_max_bytes < 0:
            raise ValueError(f"body_max_bytes is {config.body_max_bytes}; it must be at least 0")
        if not callable(side) and topic_family(side) != topic_family(publisher.side):
            raise ValueError(
                f"side is {side!r} but the publisher is for {publisher.side!r}: its topics belong to another system"
            )
        self.app = app
        self._side = side
        self._publisher = publisher
        self._config = config
        self._names = _Names(
            request_id=config.request_id_header.lower().encode("latin-1"),
            user_id=config.user_id_header.lower().encode("latin-1"),
            idempotency_key=config.idempotency_key_header.lower().encode("latin-1"),
            redact=_REDACT_ALWAYS | {name.lower().encode("latin-1") for name in config.redact},
        )
        self._stats = CaptureStats()

    def stats(self) -> CaptureStats:
        """The live counters (read only)."""
        return self._stats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and publish what it sent."""
        exchange = self._open(scope, receive, send) if scope["type"] == "http" else None
        if exchange is None:
            await self.app(scope, receive, send)
            return
        with recording(exchange.writes):
            try:
                await self.app(scope, exchange.receive, exchange.send)
            except BaseException as exc:
                exchange.failed(exc)
                raise
            else:
                exchange.returned()

    def _open(self, scope: Scope, receive: Receive, send: Send) -> _Exchange | Announcement | None:
        config, names, stats = self._config, self._names, self._stats
        if scope["path"] in config.skip_paths:
            stats.skipped += 1
            return None
        request_id = user_id = idempotency_key = None
        for name, value in scope["headers"]:
            lower = name.lower()
            if lower == names.request_id:
                request_id = request_id or value.decode("latin-1").strip()
            elif lower == names.user_id:
                user_id = value.decode("latin-1")[:_HEADER_CHARS_MAX]
            elif lower == names.idempotency_key:
                idempotency_key = value.decode("latin-1")[:_HEADER_CHARS_MAX]
        if not request_id:
            stats.without_id += 1
            return None
        if REQUEST_ID.fullmatch(request_id) is None:
            stats.bad_id += 1
            return None
        stats.captured += 1
        writes = WriteRecorder(
            self._publisher,
            request_id=request_id,
            side=self._side(scope) if callable(self._side) else self._side,
            method=scope["method"],
            path=_path_as_sent(scope),
            user_id=user_id,
            idempotency_key=idempotency_key,
            writes_max=config.writes_max,
            write_bytes_max=config.write_bytes_max,
            on_late=self._count_late_write,
        )
        if not config.responses:
            return Announcement(receive, send, writes, self._publisher, announce=config.announce_writes)
        return _Exchange(receive, send, writes, self._publisher, config, names.redact, stats)

    def _count_late_write(self) -> None:
        self._stats.writes_after_response += 1


class _Exchange:
    """One request under way: passes its messages through and keeps what the record needs."""

    __slots__ = (
        "_body_bytes",
        "_chunks",
        "_complete",
        "_config",
        "_disconnected",
        "_finished_at",
        "_gap",
        "_headers",
        "_kept_bytes",
        "_monotonic_start",
        "_published",
        "_publisher",
        "_receive",
        "_redact",
        "_send",
        "_stats",
        "_status",
        "_timer",
        "writes",
    )

    def __init__(
        self,
        receive: Receive,
        send: Send,
        writes: WriteRecorder,
        publisher: Publisher,
        config: CaptureConfig,
        redact: frozenset[bytes],
        stats: CaptureStats,
    ) -> None:
        self._receive = receive
        self._send = send
        self._publisher = publisher
        self._config = config
        self._redact = redact
        self._stats = stats
        self.writes = writes
        self._monotonic_start = time.perf_counter()
        self._status: int | None = None
        self._headers: RawHeaders = ()
        self._chunks: list[bytes] = []
        self._kept_bytes = 0
        self._body_bytes = 0
        self._complete = False
        self._disconnected = False
        self._gap: str | None = None
        self._finished_at: tuple[float, float] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._published = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._complete:
            self._disconnected = True
        return message

    async def send(self, message: Message) -> None:
        try:
            await self._send(message)
        except (OSError, asyncio.CancelledError):
            self._disconnected = not self._complete
            raise
        try:
            self._see(message)
        except Exception:  # noqa: BLE001 - whatever an application sends, its request goes on
            self._failed_capture()

    def failed(self, exc: BaseException) -> None:
        """The application raised."""
        try:
            if not self._complete and self._disconnected:
                self._gap = CLIENT_DISCONNECTED
            elif not self._complete and not isinstance(exc, Exception):
                self._gap = CANCELLED  # a shutdown or a time-out: not this service's answer
            self._publish(error=error_text(exc), all_writes_known=True)
        except Exception:  # noqa: BLE001 - the application's own exception must be the one that is raised
            self._failed_capture()

    def returned(self) -> None:
        """The application returned."""
        try:
            error = None
            if not self._complete and self._disconnected:
                self._gap = CLIENT_DISCONNECTED
            elif self._status is None:
                error = "the application returned without a response"
            elif not self._complete:
                error = "the application returned before its response was complete"
            self._publish(error=error, all_writes_known=True)
        except Exception:  # noqa: BLE001 - the response is out and right; only its record is not
            self._failed_capture()

    def _see(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            body = message.get("body", b"")
            if body:
                self._keep(body)
            if not message.get("more_body", False):
                self._completed()
        elif kind == "http.response.start":
            self._status = message["status"]
            self._headers = tuple((bytes(n), bytes(v)) for n, v in message.get("headers", ()))
            if sum(len(n) + len(v) for n, v in self._headers) > self._config.headers_max_bytes:
                self._headers, self._gap = (), HEADERS_TOO_LARGE
        elif kind == "http.response.pathsend":
            self._gap = BODY_NOT_VISIBLE  # the server reads the file itself
            self._completed()
        elif kind == "http.response.zerocopysend":
            self._gap = BODY_NOT_VISIBLE
            if not message.get("more_body", False):
                self._completed()

    def _keep(self, body: bytes) -> None:
        self._body_bytes += len(body)
        room = self._config.body_max_bytes - self._kept_bytes
        if room > 0:
            chunk = bytes(body[:room]) if len(body) > room else bytes(body)
            self._chunks.append(chunk)
            self._kept_bytes += len(chunk)

    def _completed(self) -> None:
        self._complete = True
        self._finished_at = (time.time(), time.perf_counter())
        self._timer = asyncio.get_running_loop().call_later(self._config.after_response_s, self._publish_late)

    def _publish_late(self) -> None:
        try:
            self._publish(error=None, all_writes_known=False)
        except Exception:  # noqa: BLE001 - called by the loop, with nobody to raise to
            self._failed_capture()

    def _publish(self, *, error: str | None, all_writes_known: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        writes, stats = self.writes, self._stats
        if self._published:
            return
        self._published = True
        finished_at, finished_monotonic = self._finished_at or (time.time(), time.perf_counter())
        status = self._status
        if status is None:
            status = _STATUS_CLIENT_CLOSED if self._gap is not None else 500
        writes.finish(status)
        gap = self._gap or (WRITES_DROPPED if writes.dropped else None)
        truncated = self._body_bytes > self._kept_bytes or self._gap == BODY_NOT_VISIBLE
        announced = writes.announced if all_writes_known and self._config.announce_writes else None
        stats.truncated += truncated
        stats.gaps += gap is not None
        self._publisher.publish_response(
            ResponseRecord(
                request_id=writes.request_id,
                side=writes.side,
                ts=finished_at,
                method=writes.method,
                path=writes.path,
                status=status,
                headers=self._headers,
                redact=self._redact,
                body=self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks),
                body_bytes=self._body_bytes,
                body_truncated=truncated,
                duration_ms=(finished_monotonic - self._monotonic_start) * 1000,
                user_id=writes.user_id,
                idempotency_key=writes.idempotency_key,
                writes=announced,
                error=error,
                capture_gap=gap,
            )
        )

    def _failed_capture(self) -> None:
        self._stats.failures += 1
        _log.exception(
            "capture of request %s failed; the request itself is not affected", self.writes.request_id
        )


def _path_as_sent(scope: Scope) -> str:
    raw = scope.get("raw_path")
    query = scope.get("query_string", b"")
    if raw is None:
        raw = quote(scope["path"], safe="/:@!$&'()*+,;=~-._").encode("ascii")
    if query:
        raw = raw + b"?" + query
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        return str(raw, "latin-1")
