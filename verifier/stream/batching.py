"""A Faust transport that hands on whole fetch batches of the source topics.

Faust costs its overhead for each *event*: asyncio tasks, a Message, an Event, an ack. So this transport yields one
super-message for each topic partition of a fetch: `value` is the list of the client's records, `offset` the last one's.
Other topics (table changelogs) go through Faust's own path. Which offset may be committed is not deduced from acks
either: the partition workers say it, from what the join still needs.

Private API of faust-streaming 0.15.3 is used here and nowhere else; `tests/contract/test_batching.py` holds it to that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, ClassVar, cast

from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.threads import ServiceThread, WorkerThread

Committable = Callable[[TP], int | None]
THREAD_STOP_S = 1.0


class BatchSchema(Schema[Any, Any]):
    """Leaves keys and values as the transport made them."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """A super-message has no key."""
        return None

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """The list of records."""
        return message.value


class EndingThread(WorkerThread):
    """The consumer's thread, ending with the process: Faust's outlives a stop cut short, and stays in the group."""

    def __init__(self, service: ServiceThread, **kwargs: Any) -> None:
        super().__init__(service, **kwargs)
        self.daemon = True

    def stop(self) -> None:
        """Wait for its end, not for ever: this blocks our event loop, and the thread may be waiting for just that."""
        self.is_stopped.wait(THREAD_STOP_S)


class BatchConsumer(driver.Consumer):
    """Yields one message for each partition of a fetch, and commits what the application says."""

    source_topics: ClassVar[frozenset[str]] = frozenset()
    committable: ClassVar[Committable] = staticmethod(lambda tp: None)

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        thread = super()._new_consumer_thread()
        thread.Worker = EndingThread
        return thread

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch, and yield each source partition's records as one message."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not records or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        for tp, batch in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if not batch or (active is not None and tp not in active and tp not in self._buffered_partitions):
                continue
            if tp.topic not in self.source_topics:
                for record in batch:
                    yield tp, self._to_message(tp, record)
                continue
            last = batch[-1]
            yield (
                tp,
                ConsumerMessage(
                    tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type, None, None,
                    cast(Any, batch), None, 0, len(batch), tp, generation_id=generation,
                ),
            )  # fmt: skip

    def ack(self, message: Any) -> bool:
        """Let go of a message; for source topics this says nothing about what may be committed."""
        if message.tp.topic not in self.source_topics:
            return bool(super().ack(message))
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if tp.topic not in self.source_topics:
            await super()._add_gap(tp, offset_from, offset_to)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        wanted: Iterable[TP] = (
            tp
            for tp in self.assignment()
            if tp.topic in self.source_topics and (topics is None or tp in topics or tp.topic in topics)
        )
        yield from super()._filter_tps_with_pending_acks(topics)
        yield from wanted

    def _new_offset(self, tp: TP) -> int | None:
        if tp.topic not in self.source_topics:
            return super()._new_offset(tp)
        return type(self).committable(tp)


def batch_transport(source_topics: Iterable[str], committable: Committable) -> type[Any]:
    """Return a transport class for one application: its source topics, and what of them may be committed."""
    topics = frozenset(source_topics)
    consumer = type(
        "SourceBatchConsumer",
        (BatchConsumer,),
        {"source_topics": topics, "committable": staticmethod(committable)},
    )
    return type("BatchTransport", (driver.Transport,), {"Consumer": consumer})
