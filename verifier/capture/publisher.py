"""Publishing what was captured to Kafka, without ever making the service wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from verifier.capture.capture_queue import Item
from verifier.capture.delivery import Delivery, KafkaDelivery, OutRecord
from verifier.capture.memory_publisher import MemoryPublisher
from verifier.capture.queued_publisher import Publisher, PublisherStats, QueuedPublisher
from verifier.capture.records import Side

__all__ = ["KafkaPublisher", "MemoryPublisher", "Publisher", "PublisherStats"]

_log = logging.getLogger("verifier.capture")

_ENCODE_SLICE_S: Final = 0.001
_BACKOFF_FIRST_S: Final = 0.25
_BACKOFF_MAX_S: Final = 5.0
_LOG_EVERY_S: Final = 30.0


class KafkaPublisher(QueuedPublisher):
    """Publishes to Kafka from a task on the service's own event loop.

    The task starts with the first record (so each forked worker has its own), keeps at most `queue_max`
    records and `queue_bytes_max` bytes, and tries for as long as Kafka is away. Publishing may be called from
    any thread once the loop is running. The defaults hold about 64 MiB at most.

    Raises ValueError for a side or a bound that cannot be.
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        side: Side,
        topic_prefix: str = "",
        responses_topic: str | None = None,
        writes_topic: str | None = None,
        queue_max: int = 20_000,
        queue_bytes_max: int = 64 * 1024 * 1024,
        gaps_max: int = 10_000,
        batch_max: int = 500,
        request_timeout_s: float = 10.0,
        compression_type: str | None = None,
        options: Mapping[str, Any] | None = None,
        delivery: Delivery | None = None,
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
        if batch_max < 1:
            raise ValueError(f"batch_max is {batch_max}; it must be at least 1")
        self._batch_max = batch_max
        self._delivery: Delivery = delivery or KafkaDelivery(
            bootstrap,
            client_id=f"capture-{side}",
            request_timeout_s=request_timeout_s,
            compression_type=compression_type,
            options=options,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._closing = asyncio.Event()
        self._logged_at = float("-inf")

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(timeout_s=5.0)

    def start(self) -> None:
        """Start the sending task on the running loop; the first record does so by itself."""
        if self._task is None and not self._closed:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._run(), name="capture-publisher")

    async def close(self, timeout_s: float) -> int:
        """Send what is queued, for at most `timeout_s`; then give up the rest.

        Returns how many records and notes were given up (0: everything arrived).
        """
        if self._closed:
            return self._lost_at_close
        deadline = time.monotonic() + timeout_s
        if self._task is None and (self._queue.held or self._queue.gaps):
            self.start()
        self._closed = True
        self._closing.set()
        self._work.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_s)
            if not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task])
            if not self._task.cancelled() and (failure := self._task.exception()) is not None:
                self._last_error = repr(failure)
        self._lost_at_close = self._queue.held + self._queue.gaps
        if self._lost_at_close:
            _log.warning(
                "capture of %s: gave up %d records at close: %s",
                self._side,
                self._lost_at_close,
                self._last_error or "no time left",
            )
        await self._delivery.close(max(0.1, deadline - time.monotonic()))
        return self._lost_at_close

    def _wake(self) -> None:
        if self._loop is None:
            try:
                self.start()
            except RuntimeError:
                return  # no loop in this thread: the next record published from the loop starts the task
        loop = self._loop
        assert loop is not None
        if self._work.is_set():
            return
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is loop:
            self._work.set()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._work.set)

    async def _run(self) -> None:
        while True:
            self._work.clear()
            items = self._queue.take(self._batch_max)
            if items:
                await self._send(items)
            elif self._closing.is_set():
                return
            else:
                await self._work.wait()

    async def _send(self, items: list[Item]) -> None:
        """Send one batch, again and again until each record is delivered or refused."""
        items, records = await self._encode_in_slices(items)
        backoff_s = _BACKOFF_FIRST_S
        while True:
            report = await self._delivery.deliver(records)
            again = set(report.undelivered)
            never = set(report.refused)
            self._never([items[i] for i in sorted(never)])
            self._delivered([item for i, item in enumerate(items) if i not in again and i not in never])
            self._connected = not again
            if report.error is not None:
                self._last_error = report.error
                self._complain(report.error, len(again))
            if not again:
                return
            items = [items[i] for i in report.undelivered]
            records = [records[i] for i in report.undelivered]
            self._retries += 1
            # A service that is shutting down has no time to wait for, but its last tries must not spin.
            await asyncio.sleep(_BACKOFF_FIRST_S if self._closing.is_set() else backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)

    async def _encode_in_slices(self, items: Sequence[Item]) -> tuple[list[Item], list[OutRecord]]:
        # The loop is the service's own: after each millisecond of encoding the requests have their turn.
        kept: list[Item] = []
        records: list[OutRecord] = []
        slice_end = time.perf_counter() + _ENCODE_SLICE_S
        for item in items:
            record = self._encoded(item)
            if record is not None:
                kept.append(item)
                records.append(record)
            if time.perf_counter() >= slice_end:
                await asyncio.sleep(0)
                slice_end = time.perf_counter() + _ENCODE_SLICE_S
        return kept, records

    def _complain(self, error: str, again: int) -> None:
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            _log.warning(
                "capture of %s: %s; %d records wait and are tried again, %d let go so far",
                self._side,
                error,
                max(again, self._queue.held),
                self._queue.responses_dropped + self._queue.writes_dropped,
            )
