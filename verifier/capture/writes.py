"""Recording the writes a request makes.

The middleware opens a recorder for each request and keeps it in a context variable, so it is found from any
task, and any worker thread, that the request starts. A handler or a repository then says what it wrote:

    record_write("news_items", item_id, "insert", data=row)

Say it after the write has committed; say `status="failed"` for one that the database refused.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from verifier.capture.capture_queue import WRITES_DROPPED
from verifier.capture.queued_publisher import Publisher
from verifier.capture.records import GapNote, Op, Side, WriteRecord, WriteStatus, encode_write

_log = logging.getLogger("verifier.capture")

WRITES_MAX: Final = 10_000
WRITE_BYTES_MAX: Final = 900_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSlot:
    """The place of one write in its request, for a write that is published by the outbox relay."""

    request_id: str
    side: Side
    seq: int
    operation: str
    user_id: str | None
    idempotency_key: str | None


class WriteRecorder:
    """Collects the writes of one request: gives each its `seq`, publishes it, and knows what was let go.

    At most `writes_max` writes of at most `write_bytes_max` bytes each; beyond, the request's capture has a
    gap. Callable from any thread.
    """

    __slots__ = (
        "_dropped",
        "_finished",
        "_lock",
        "_on_late",
        "_publisher",
        "_seq",
        "_status",
        "_unannounced",
        "_write_bytes_max",
        "_writes_max",
        "idempotency_key",
        "method",
        "path",
        "published",
        "request_id",
        "side",
        "user_id",
    )

    def __init__(
        self,
        publisher: Publisher,
        *,
        request_id: str,
        side: Side,
        method: str,
        path: str,
        user_id: str | None = None,
        idempotency_key: str | None = None,
        writes_max: int = WRITES_MAX,
        write_bytes_max: int = WRITE_BYTES_MAX,
        on_late: Callable[[], None] | None = None,
    ) -> None:
        self._publisher = publisher
        self._on_late = on_late
        self.request_id = request_id
        self.side: Side = side
        self.method = method
        self.path = path
        self.user_id = user_id
        self.idempotency_key = idempotency_key
        self._writes_max = writes_max
        self._write_bytes_max = write_bytes_max
        self._lock = threading.Lock()
        self._seq = 0
        self._dropped = 0
        self._unannounced = False
        self._finished = False
        self._status = 0
        self.published = 0

    @property
    def dropped(self) -> int:
        """Writes that happened and were not published."""
        return self._dropped

    @property
    def announced(self) -> int | None:
        """How many write records the response may announce; None when someone else publishes some of them."""
        return None if self._unannounced else self.published

    def record(
        self,
        entity: str,
        key: object,
        op: Op,
        *,
        data: object = None,
        before: object = None,
        status: WriteStatus = "applied",
        operation: str | None = None,
    ) -> bool:
        """Publish one write; False when it had to be let go, which the response record will say."""
        ts = time.time()
        with self._lock:
            seq = self._seq
            self._seq += 1
        if seq >= self._writes_max:
            return self._drop(f"more than {self._writes_max} writes in one request")
        try:
            value = encode_write(
                request_id=self.request_id,
                side=self.side,
                ts=ts,
                entity=entity,
                key=key,
                op=op,
                seq=seq,
                data=data,
                before=before,
                status=status,
                operation=operation or self._operation(),
                user_id=self.user_id,
                idempotency_key=self.idempotency_key,
            )
        except (ValueError, TypeError) as exc:
            return self._drop(f"a write to {entity} cannot be recorded: {exc}")
        if len(value) > self._write_bytes_max:
            return self._drop(
                f"a write to {entity} has {len(value)} bytes, {self._write_bytes_max} are allowed"
            )
        record = WriteRecord(request_id=self.request_id, value=value, on_refused=self._refused)
        if not self._publisher.publish_write(record):
            return self._drop(None)
        with self._lock:
            self.published += 1
            late = self._finished
        if late and self._on_late is not None:
            self._on_late()
        return True

    def reserve(self, operation: str | None = None) -> WriteSlot:
        """A place for a write that the outbox relay will publish.

        Whether its transaction commits is not known here, so the response announces no count from now on.
        """
        with self._lock:
            seq = self._seq
            self._seq += 1
            self._unannounced = True
        return WriteSlot(
            request_id=self.request_id,
            side=self.side,
            seq=seq,
            operation=operation or self._operation(),
            user_id=self.user_id,
            idempotency_key=self.idempotency_key,
        )

    def finish(self, status: int) -> None:
        """The response record is made: a write let go from now on needs a gap record of its own."""
        with self._lock:
            self._finished = True
            self._status = status

    def _operation(self) -> str:
        return f"{self.method} {self.path.partition('?')[0]}"

    def _drop(self, why: str | None) -> bool:
        if why is not None:
            _log.warning("capture of request %s: %s", self.request_id, why)
        with self._lock:
            self._dropped += 1
            finished = self._finished
        if finished:
            self._publisher.publish_gap(self._gap())
        return False

    def _refused(self) -> GapNote | None:
        with self._lock:
            self._dropped += 1
            self.published -= 1
            return self._gap() if self._finished else None

    def _gap(self) -> GapNote:
        return GapNote(
            request_id=self.request_id,
            side=self.side,
            ts=time.time(),
            method=self.method,
            path=self.path,
            status=self._status,
            reason=WRITES_DROPPED,
        )


_current: ContextVar[WriteRecorder | None] = ContextVar("verifier_capture_writes", default=None)


def current_recorder() -> WriteRecorder | None:
    """The recorder of the request this code runs in, if it runs in one that is captured."""
    return _current.get()


@contextmanager
def recording(recorder: WriteRecorder) -> Iterator[WriteRecorder]:
    """Make this the recorder of everything started inside."""
    token = _current.set(recorder)
    try:
        yield recorder
    finally:
        _current.reset(token)


def record_write(
    entity: str,
    key: object,
    op: Op,
    data: object = None,
    before: object = None,
    status: WriteStatus = "applied",
    operation: str | None = None,
) -> bool:
    """Say that the current request wrote a row; never raises.

    `entity` is the table or collection, `key` its primary key (a string, a number, or an object for one of
    several columns), `data` the row as it is afterwards, `before` as it was, `operation` ("POST /api/v1/news")
    if it is not the request's own method and path. Both sides must use the same names. False when nothing was
    published: outside a captured request, or because the write had to be let go (the response says so).
    """
    recorder = _current.get()
    if recorder is None:
        return False
    return recorder.record(entity, key, op, data=data, before=before, status=status, operation=operation)
