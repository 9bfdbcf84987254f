"""A Faust transport that hands on whole fetch batches of the source topics.

Faust costs its overhead for each *event*: asyncio tasks, a Message, an Event, an ack. So this transport yields one
super-message for a fetch: `value` is a list of (topic partition, the client's records).
Other topics (table changelogs) go through Faust's own path. Which offset may be committed is not deduced from acks
either: the partition workers say it, from what the join still needs.

Private API of faust-streaming 0.15.3 is used here and nowhere else; `tests/contract/test_batching.py` holds it to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, ClassVar, cast

import structlog
import uvloop
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.threads import QueueServiceThread, ServiceThread, WorkerThread

from verifier.stream.fetching import fetched

Committable = Callable[[TP], int | None]
THREAD_STOP_S = 1.0
FETCH_WAIT_MS = 100
COMMIT_WITHIN_S = 5.0
LEAVE_WITHIN_S = 2.0
ASK_AGAIN_S = 0.05
"""How long a fetch waits at most while some partitions are not wanted: soon they may be."""
_log = structlog.get_logger(__name__)


class BatchSchema(Schema[Any, Any]):
    """Leaves keys and values as the transport made them."""

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """A super-message has no key."""
        return None

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """The lists of records by topic partition."""
        return message.value


class EndingThread(WorkerThread):
    """The consumer's thread, ending with the process: Faust's outlives a stop cut short, and stays in the group."""

    def __init__(self, service: ServiceThread, **kwargs: Any) -> None:
        super().__init__(service, **kwargs)
        self.daemon = True

    def stop(self) -> None:
        """Wait for its end, not for ever: this blocks our event loop, and the thread may be waiting for just that."""
        self.is_stopped.wait(THREAD_STOP_S)


class PatientThread(driver.AIOKafkaConsumerThread):
    """The consumer's thread, for which a broker that is away is no reason to crash, nor to stand still at a stop."""

    Worker = EndingThread

    def _create_worker_consumer(self, transport: Any) -> Any:
        """As Faust's, but for how long the broker may hold an answer back while it has nothing.

        A fetch leaves out the partitions whose records are still being handed on: what comes for them meanwhile waits
        for that fetch to end, which is 1.5 s in Faust if the others are quiet.
        """
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001 - the driver fixes it
        return consumer

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: Any,
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> Any:
        """Hand out what was fetched, waiting for it at most `timeout` seconds; sources' records as they were read."""
        if not self.consumer.flow_active:
            return {}
        source_consumer, timeout_s = type(cast(BatchConsumer, self.consumer)), timeout or 0.0
        topics, partitions = source_consumer.source_topics, active_partitions
        if partitions:
            wanted = source_consumer.wanted
            partitions = {tp for tp in partitions if tp.topic not in topics or wanted(tp)}
            if len(partitions) < len(active_partitions):
                timeout_s = min(timeout_s, ASK_AGAIN_S)
            if not partitions:
                await asyncio.sleep(timeout_s)
                return {}
        return await fetched(consumer, partitions, timeout_s, max_records, topics)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit what is still ours, and say whether that was done: what was not will be with a later commit."""
        consumer, mine = self._ensure_consumer(), self.assignment()
        wanted = {tp: offset for tp, offset in offsets.items() if tp in mine}
        self.tp_last_committed_at.update(dict.fromkeys(wanted, monotonic()))
        made = {driver.ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "") for tp, offset in wanted.items()}
        try:
            async with asyncio.timeout(LEAVE_WITHIN_S if self.app.should_stop else COMMIT_WITHIN_S):
                await consumer.commit(made)
        except (KafkaError, TimeoutError) as error:
            _log.warning("commit_put_off", detail=f"{type(error).__name__} {error}".rstrip())
            return False
        return True

    async def on_thread_stop(self) -> None:
        """Leave the group; from a broker that is away, without its leave."""
        await QueueServiceThread.on_thread_stop(self)
        if self._consumer is None:
            return
        leaving = asyncio.ensure_future(self._consumer.stop())
        await asyncio.wait({leaving}, timeout=LEAVE_WITHIN_S)
        if not leaving.done():
            leaving.cancel()
            _log.warning("group_not_left", detail=f"not within {LEAVE_WITHIN_S} s")
        elif leaving.cancelled() or leaving.exception() is not None:  # it lets its own cancellations through
            _log.warning(
                "group_not_left", detail="cancelled" if leaving.cancelled() else repr(leaving.exception())
            )


class BatchConsumer(driver.Consumer):
    """Yields one message for each fetch, and commits what the application says.

    `revoking` is called as soon as the group takes our partitions away, be it to hand them back. A source partition
    that is not `wanted` is not fetched for now; what was fetched of it stays with the client.
    """

    source_topics: ClassVar[frozenset[str]] = frozenset()
    committable: ClassVar[Committable] = staticmethod(lambda tp: None)
    revoking: ClassVar[Callable[[], None]] = staticmethod(lambda: None)
    wanted: ClassVar[Callable[[TP], bool]] = staticmethod(lambda tp: True)

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        self._confirmed: dict[TP, int] = {}
        self._rebalancing = False
        return PatientThread(
            self, loop=self.loop, beacon=self.beacon, thread_loop=cast(Any, uvloop.new_event_loop())
        )

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Tell that what we own may be ours no more, and let no commit go on into the rebalance.

        One of the old generation that is answered after the group has made a new one makes aiokafka forget its
        membership: it joins anew, which is another rebalance for all, with commits in it, and so on.
        """
        self._rebalancing = True
        self._confirmed.clear()
        type(self).revoking()
        if self._commit_fut is not None:
            await asyncio.wait(
                {asyncio.ensure_future(self.maybe_wait_for_commit_to_finish())}, timeout=COMMIT_WITHIN_S
            )
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Take the partitions that the group gave us; from here on there are commits again."""
        await super().on_partitions_assigned(assigned, generation_id)
        self._rebalancing = False

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        if self._rebalancing:
            return False
        done = bool(await super()._commit(offsets))
        if done:
            self._confirmed.update(offsets)
        return done

    def _should_commit(self, tp: TP, offset: int) -> bool:
        if tp.topic not in self.source_topics:
            return bool(super()._should_commit(tp, offset))
        return self._confirmed.get(tp) != offset

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch, and yield all that it brings of the sources as one message."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not records or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        of_sources: list[tuple[TP, Sequence[Any]]] = []
        for tp, batch in records.items():
            if not batch or (active is not None and tp not in active and tp not in self._buffered_partitions):
                continue
            if tp.topic in self.source_topics:
                of_sources.append((tp, batch))
                continue
            for record in batch:
                if not self.flow_active or self.app.consumer_generation_id != generation:
                    return
                yield tp, self._to_message(tp, record)
        if of_sources and self.flow_active and self.app.consumer_generation_id == generation:
            yield self._super_message(of_sources, generation)

    def _super_message(self, batches: list[tuple[TP, Sequence[Any]]], generation: int) -> tuple[TP, Any]:
        """One message for all: each takes several turns of the event loop, with the work of others in between.

        It goes under the name of the first partition, and is never to be dropped as one that was read before: that is
        told apart record by record.
        """
        tp, batch = batches[0]
        last = batch[-1]
        offset = max(last.offset, self._read_offset[tp] or 0)
        message = ConsumerMessage(
            tp.topic, tp.partition, offset, last.timestamp / 1000, last.timestamp_type, None, None,
            cast(Any, batches), None, 0, len(batch), tp, generation_id=generation,
        )  # fmt: skip
        return tp, message

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look after the partitions whose messages Faust sees; whether a source stands still, its worker tells."""
        if tp.topic not in self.source_topics:
            super().verify_event_path(now, tp)

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


def batch_transport(
    source_topics: Iterable[str],
    committable: Committable,
    revoking: Callable[[], None] = lambda: None,
    wanted: Callable[[TP], bool] = lambda tp: True,
) -> type[Any]:
    """Return a transport class for one application: its source topics, what of them may be committed, or fetched."""
    told = {
        "source_topics": frozenset(source_topics),
        "committable": staticmethod(committable),
        "revoking": staticmethod(revoking),
        "wanted": staticmethod(wanted),
    }
    consumer = type("SourceBatchConsumer", (BatchConsumer,), told)
    return type("BatchTransport", (driver.Transport,), {"Consumer": consumer})
