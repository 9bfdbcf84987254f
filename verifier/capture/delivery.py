"""Getting encoded records to Kafka, with an answer for each: delivered, not yet, or never."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

_NEVER: Final = (MessageSizeTooLargeError, RecordListTooLargeError)
_FAILURES_BEFORE_NEW_PRODUCER: Final = 3
_DISCARD_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutRecord:
    """What goes to Kafka. The key decides the partition, by murmur2."""

    topic: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """Indexes into the records given: what has to be tried again, and what the broker will never take."""

    undelivered: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    error: str | None = None


class Delivery(Protocol):
    """The port to Kafka. Delivery is at least once: what is tried again may arrive twice."""

    async def deliver(self, records: Sequence[OutRecord]) -> DeliveryReport: ...

    async def close(self, timeout_s: float) -> None: ...


class _Producer(AIOKafkaProducer):  # type: ignore[misc,unused-ignore] # aiokafka ships no types
    async def stop_within(self, timeout_s: float) -> None:
        """Stop in bounded time. `stop` alone waits for batches that may never be delivered."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.stop()
        except Exception:  # noqa: BLE001 - it is being thrown away, whatever its state
            sender = self._sender.sender_task
            if sender is not None and not sender.done():
                sender.cancel()
                await asyncio.wait([sender], timeout=_DISCARD_TIMEOUT_S)
            await self.client.close()


def _retrieve(future: asyncio.Future[Any]) -> None:
    # A future nobody waits for any more must not be reported as an exception that was never retrieved.
    if not future.cancelled():
        future.exception()


class KafkaDelivery:
    """aiokafka behind `Delivery`: connects when first needed, and again after failures.

    Every record is confirmed by all in-sync replicas. `deliver` ends within about three times
    `request_timeout_s`, whatever Kafka does. `options` go to AIOKafkaProducer as they are (security).
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        client_id: str,
        request_timeout_s: float = 10.0,
        linger_ms: int = 5,
        record_bytes_max: int = 1_048_576,
        compression_type: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if request_timeout_s <= 0:
            raise ValueError(f"request_timeout_s is {request_timeout_s}; it must be above 0")
        self._request_timeout_s = request_timeout_s
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap if isinstance(bootstrap, str) else list(bootstrap),
            "client_id": client_id,
            "acks": "all",
            "request_timeout_ms": int(request_timeout_s * 1000),
            "linger_ms": linger_ms,
            "retry_backoff_ms": 1000,  # the client logs each try: an outage must not flood the service's log
            "max_batch_size": 131_072,
            "max_request_size": record_bytes_max,
            "compression_type": compression_type,
            **(options or {}),
        }
        self._producer: _Producer | None = None
        self._failures = 0

    async def deliver(self, records: Sequence[OutRecord]) -> DeliveryReport:
        """Send these and wait for the broker's word on each."""
        try:
            producer = await self._connected()
        except Exception as exc:  # noqa: BLE001 - a wrong option, too, must be told and not end the sending
            return DeliveryReport(undelivered=tuple(range(len(records))), error=_words(exc))
        report = await self._send(producer, records)
        if report.undelivered:
            self._failures += 1
            if self._failures >= _FAILURES_BEFORE_NEW_PRODUCER:
                # A producer whose sender task died, or that knows only brokers that moved, never recovers.
                await self._discard(_DISCARD_TIMEOUT_S)
        else:
            self._failures = 0
        return report

    async def close(self, timeout_s: float) -> None:
        """Close the connection, at the latest after `timeout_s`."""
        await self._discard(timeout_s)

    async def _connected(self) -> _Producer:
        if self._producer is None:
            producer = _Producer(**self._options)
            try:
                async with asyncio.timeout(self._request_timeout_s):
                    await producer.start()
            except BaseException:
                await producer.stop_within(_DISCARD_TIMEOUT_S)
                raise
            self._producer = producer
        return self._producer

    async def _send(self, producer: _Producer, records: Sequence[OutRecord]) -> DeliveryReport:
        undelivered: list[int] = []
        refused: list[int] = []
        futures: dict[asyncio.Future[Any], int] = {}
        failed_topics: set[str] = set()  # one wait for a topic that is not there, not one for each record
        error: str | None = None
        for index, record in enumerate(records):
            if record.topic in failed_topics:
                undelivered.append(index)
                continue
            try:
                future = await producer.send(record.topic, record.value, key=record.key)
            except _NEVER as exc:
                refused.append(index)
                error = _words(exc)
            except Exception as exc:  # noqa: BLE001 - the client's own defects count as "not delivered" too
                undelivered.append(index)
                failed_topics.add(record.topic)
                error = f"{record.topic}: {_words(exc)}"
            else:
                future.add_done_callback(_retrieve)
                futures[future] = index
        if futures:
            done, pending = await asyncio.wait(futures, timeout=2 * self._request_timeout_s)
            undelivered.extend(futures[future] for future in pending)
            for future in done:
                failure = future.exception()
                if isinstance(failure, _NEVER):
                    refused.append(futures[future])
                elif failure is not None:
                    undelivered.append(futures[future])
                if failure is not None:
                    error = f"{records[futures[future]].topic}: {_words(failure)}"
            if pending:
                error = _words(KafkaTimeoutError())
        return DeliveryReport(
            undelivered=tuple(sorted(undelivered)), refused=tuple(sorted(refused)), error=error
        )

    async def _discard(self, timeout_s: float) -> None:
        producer, self._producer, self._failures = self._producer, None, 0
        if producer is not None:
            await producer.stop_within(timeout_s)


def _words(exc: BaseException) -> str:
    if isinstance(exc, KafkaConnectionError | OSError | TimeoutError):
        return f"Kafka cannot be reached: {exc}" if str(exc) else "Kafka cannot be reached"
    return f"{type(exc).__name__}: {exc}"
