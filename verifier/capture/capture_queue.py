"""The bounded queue between a service and Kafka.

A service must never wait for its observer, so at the bound a record is let go. It is not forgotten: the
request id of a response that was let go is kept in a ring of its own, small and bounded too, from which a
record without a body is published later; the verifier then calls the pair incomparable, not different.
When the ring is full its oldest note makes room and is counted as lost.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from verifier.capture.records import GapNote, ResponseRecord, WriteRecord, gap_of

Item = ResponseRecord | WriteRecord | GapNote

RESPONSE_DROPPED: Final = "response_dropped"
WRITES_DROPPED: Final = "writes_dropped"
_RESPONSE_OVERHEAD_BYTES: Final = 1024
_WRITE_OVERHEAD_BYTES: Final = 256


class CaptureQueue:
    """Responses and writes waiting for Kafka, and notes of what had to be let go.

    `queue_max` counts records and `queue_bytes_max` bytes, both with what is in flight; `gaps_max` counts
    request ids. Callable from any thread.
    """

    def __init__(self, *, queue_max: int, queue_bytes_max: int, gaps_max: int) -> None:
        for name, value in (
            ("queue_max", queue_max),
            ("queue_bytes_max", queue_bytes_max),
            ("gaps_max", gaps_max),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        self._queue_max = queue_max
        self._queue_bytes_max = queue_bytes_max
        self._gaps_max = gaps_max
        self._lock = threading.Lock()
        self._waiting: deque[ResponseRecord | WriteRecord] = deque()
        self._gaps: OrderedDict[str, GapNote] = OrderedDict()
        self._held = 0  # waiting and in flight
        self._held_bytes = 0
        self._gaps_in_flight = 0
        self.responses_dropped = 0
        self.writes_dropped = 0
        self.gaps_lost = 0

    def offer_response(self, record: ResponseRecord) -> bool:
        """Take the response, or, at the bound, a note of it. False when the response was let go."""
        with self._lock:
            if self._hold(size_bytes(record)):
                self._waiting.append(record)
                return True
            self.responses_dropped += 1
            self._note(gap_of(record, record.capture_gap or RESPONSE_DROPPED))
            return False

    def offer_write(self, record: WriteRecord) -> bool:
        """Take the write; False at the bound. The caller then tells the response that its writes lack one."""
        with self._lock:
            if self._hold(size_bytes(record)):
                self._waiting.append(record)
                return True
            self.writes_dropped += 1
            return False

    def add_gap(self, note: GapNote) -> None:
        """Remember that this request's capture has a hole."""
        with self._lock:
            self._note(note)

    def take(self, records_max: int) -> list[Item]:
        """At most so many records, oldest first, then as many notes. They stay held until `settle`."""
        with self._lock:
            taken: list[Item] = []
            while self._waiting and len(taken) < records_max:
                taken.append(self._waiting.popleft())
            for _ in range(min(records_max, len(self._gaps))):
                taken.append(self._gaps.popitem(last=False)[1])
                self._gaps_in_flight += 1
            return taken

    def settle(self, items: Iterable[Item]) -> None:
        """These left for good: delivered, refused or given up. Their room is free again."""
        with self._lock:
            for item in items:
                if isinstance(item, GapNote):
                    self._gaps_in_flight -= 1
                else:
                    self._held -= 1
                    self._held_bytes -= size_bytes(item)

    @property
    def held(self) -> int:
        """Records waiting or in flight, notes of gaps not counted."""
        return self._held

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    @property
    def gaps(self) -> int:
        """Notes waiting or in flight."""
        return len(self._gaps) + self._gaps_in_flight

    def _hold(self, size: int) -> bool:
        if self._held >= self._queue_max or self._held_bytes + size > self._queue_bytes_max:
            return False
        self._held += 1
        self._held_bytes += size
        return True

    def _note(self, note: GapNote) -> None:
        if note.request_id not in self._gaps and len(self._gaps) >= self._gaps_max:
            self._gaps.popitem(last=False)
            self.gaps_lost += 1
        self._gaps[note.request_id] = note


def size_bytes(item: ResponseRecord | WriteRecord) -> int:
    """What an item is charged against the byte bound: its payload and a share for the rest."""
    if isinstance(item, ResponseRecord):
        return len(item.body) + _RESPONSE_OVERHEAD_BYTES
    return len(item.value) + _WRITE_OVERHEAD_BYTES
