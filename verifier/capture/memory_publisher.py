"""The in-memory twin of KafkaPublisher, for tests."""

from __future__ import annotations

import json
from typing import Any

from verifier.capture.delivery import OutRecord
from verifier.capture.queued_publisher import QueuedPublisher
from verifier.capture.records import Side


class MemoryPublisher(QueuedPublisher):
    """Keeps what Kafka would have got, with the same bounds.

    `records` holds (topic, key, value) in order; `responses` and `writes` the same decoded. `hold()` plays a
    Kafka that is away: records wait, and are let go at the bound, until `release()`.
    """

    def __init__(
        self,
        *,
        side: Side = "main",
        topic_prefix: str = "",
        responses_topic: str | None = None,
        writes_topic: str | None = None,
        queue_max: int = 100_000,
        queue_bytes_max: int = 256 * 1024 * 1024,
        gaps_max: int = 10_000,
        record_bytes_max: int = 1_048_576,
    ) -> None:
        super().__init__(
            side=side,
            topic_prefix=topic_prefix,
            responses_topic=responses_topic,
            writes_topic=writes_topic,
            queue_max=queue_max,
            queue_bytes_max=queue_bytes_max,
            gaps_max=gaps_max,
        )
        self._record_bytes_max = record_bytes_max
        self._away = False
        self._connected = True
        self.records: list[OutRecord] = []

    @property
    def responses(self) -> list[dict[str, Any]]:
        """The response records, decoded, gap records among them."""
        return [json.loads(r.value) for r in self.records if r.topic == self._responses_topic]

    @property
    def writes(self) -> list[dict[str, Any]]:
        """The write records, decoded."""
        return [json.loads(r.value) for r in self.records if r.topic == self._writes_topic]

    def hold(self) -> None:
        """From now on nothing gets through."""
        self._away, self._connected = True, False

    def release(self) -> None:
        """Everything that waits gets through, and all that follows."""
        self._away, self._connected = False, True
        self._wake()

    async def close(self, timeout_s: float) -> int:  # noqa: ARG002 - as KafkaPublisher's
        """As KafkaPublisher's: what still waits is given up."""
        if not self._closed:
            self._wake()
            self._closed = True
            self._lost_at_close = self._queue.held + self._queue.gaps
        return self._lost_at_close

    def _wake(self) -> None:
        while not self._away and (items := self._queue.take(1)):
            for item in items:
                record = self._encoded(item)
                if record is None:
                    continue
                if len(record.value) > self._record_bytes_max:
                    self._last_error = f"{len(record.value)} bytes are too many for one record"
                    self._never([item])
                else:
                    self.records.append(record)
                    self._delivered([item])
