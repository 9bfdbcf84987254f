"""What every publisher shares: the port, the counters, and the bounded queue behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from verifier.capture.capture_queue import CaptureQueue, Item
from verifier.capture.delivery import OutRecord
from verifier.capture.records import (
    GapNote,
    ResponseRecord,
    Side,
    WriteRecord,
    encode_gap,
    encode_response,
    gap_of,
    topic_family,
)

RESPONSE_REFUSED: Final = "response_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherStats:
    """Counts since the start, and what waits now.

    Every record offered is in exactly one of published, dropped, refused, lost at close, or held.
    """

    responses_published: int
    writes_published: int
    gaps_published: int
    responses_dropped: int  # at the bound of the queue (a gap was noted), or offered after close
    writes_dropped: int  # likewise; the response says so
    refused: int  # can never be taken (too large, no JSON form); a gap was noted
    gaps_lost: int  # notes pushed out of the full ring
    lost_at_close: int
    retries: int
    held: int
    held_bytes: int
    gaps_held: int
    connected: bool  # the last delivery went through
    last_error: str | None


class Publisher(Protocol):
    """Where captured records go. Publishing returns at once and does not raise."""

    @property
    def side(self) -> Side: ...

    def publish_response(self, record: ResponseRecord) -> bool: ...

    def publish_write(self, record: WriteRecord) -> bool: ...

    def publish_gap(self, note: GapNote) -> None: ...

    def stats(self) -> PublisherStats: ...

    async def close(self, timeout_s: float) -> int: ...


class QueuedPublisher(ABC):
    """The part both publishers share: the queue, the names of the topics, the counts."""

    def __init__(
        self,
        *,
        side: Side,
        topic_prefix: str,
        responses_topic: str | None,
        writes_topic: str | None,
        queue_max: int,
        queue_bytes_max: int,
        gaps_max: int,
    ) -> None:
        family = topic_family(side)
        self._side: Side = side
        self._responses_topic = topic_prefix + (responses_topic or f"{family}.responses")
        self._writes_topic = topic_prefix + (writes_topic or f"{family}.writes")
        self._queue = CaptureQueue(queue_max=queue_max, queue_bytes_max=queue_bytes_max, gaps_max=gaps_max)
        self._closed = False
        self._published = {ResponseRecord: 0, WriteRecord: 0, GapNote: 0}
        self._refused = 0
        self._lost_at_close = 0
        self._dropped_after_close = {ResponseRecord: 0, WriteRecord: 0}
        self._retries = 0
        self._connected = False
        self._last_error: str | None = None

    @property
    def side(self) -> Side:
        """The side this publisher's topics belong to."""
        return self._side

    def publish_response(self, record: ResponseRecord) -> bool:
        """Queue a response; False when there was no room and only a gap was noted."""
        if self._closed:
            self._dropped_after_close[ResponseRecord] += 1
            return False
        kept = self._queue.offer_response(record)
        self._wake()
        return kept

    def publish_write(self, record: WriteRecord) -> bool:
        """Queue a write; False when there was no room, which its response must then say."""
        if self._closed:
            self._dropped_after_close[WriteRecord] += 1
            return False
        kept = self._queue.offer_write(record)
        self._wake()
        return kept

    def publish_gap(self, note: GapNote) -> None:
        """Say that the capture of a request has a hole, after its response was published."""
        if not self._closed:
            self._queue.add_gap(note)
            self._wake()

    def stats(self) -> PublisherStats:
        """The counters as they are now."""
        queue = self._queue
        return PublisherStats(
            responses_published=self._published[ResponseRecord],
            writes_published=self._published[WriteRecord],
            gaps_published=self._published[GapNote],
            responses_dropped=queue.responses_dropped + self._dropped_after_close[ResponseRecord],
            writes_dropped=queue.writes_dropped + self._dropped_after_close[WriteRecord],
            refused=self._refused,
            gaps_lost=queue.gaps_lost,
            lost_at_close=self._lost_at_close,
            retries=self._retries,
            held=queue.held,
            held_bytes=queue.held_bytes,
            gaps_held=queue.gaps,
            connected=self._connected,
            last_error=self._last_error,
        )

    @abstractmethod
    def _wake(self) -> None:
        """Tell whoever delivers that there is something."""

    def _encoded(self, item: Item) -> OutRecord | None:
        """The item as Kafka gets it; one that has no JSON form is refused here and leaves a gap."""
        try:
            return self._encode(item)
        except (ValueError, TypeError) as exc:
            self._last_error = f"a record of request {item.request_id} cannot be encoded: {exc}"
            self._never([item])
            return None

    def _encode(self, item: Item) -> OutRecord:
        if isinstance(item, WriteRecord):
            topic, value = self._writes_topic, item.value
        elif isinstance(item, ResponseRecord):
            topic, value = self._responses_topic, encode_response(item)
        else:
            topic, value = self._responses_topic, encode_gap(item)
        return OutRecord(topic=topic, key=item.request_id.encode("utf-8"), value=value)

    def _delivered(self, items: Sequence[Item]) -> None:
        for item in items:
            self._published[type(item)] += 1
        self._queue.settle(items)

    def _never(self, items: Sequence[Item]) -> None:
        """These can never be delivered. What they were part of has a gap now."""
        self._refused += len(items)
        self._queue.settle(items)
        for item in items:
            if isinstance(item, ResponseRecord):
                self._queue.add_gap(gap_of(item, item.capture_gap or RESPONSE_REFUSED))
            elif isinstance(item, WriteRecord):
                note = item.on_refused()
                if note is not None:
                    self._queue.add_gap(note)
