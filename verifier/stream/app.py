"""The Faust application: one agent over the five source topics, and tables with changelogs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import faust
from faust.types import TP
from msgspec import Struct

from verifier.core.events import Source
from verifier.stream.batching import BatchSchema, batch_transport
from verifier.stream.codec import Record
from verifier.stream.live_tables import LiveTables

CHANGES_WAITING_MAX = 10_000
"""Changelog messages that may wait to be sent; with Faust's 100 an entry with many divergences stopped the consumer."""


class AppConfig(Struct, frozen=True, kw_only=True):
    """What the application needs to know. `fetch_records_max` bounds a fetch batch.

    With an `instance_id` the worker is a static member of the group: one that comes back under the same name within the
    session timeout takes its partitions up again without a rebalance, and one that stops keeps them that long.
    """

    group: str
    brokers: tuple[str, ...]
    sources: tuple[str, ...]
    partitions: int
    data_dir: str
    fetch_records_max: int = 5000
    session_timeout_s: float = 10.0
    rebalance_timeout_s: float = 30.0
    instance_id: str | None = None


class Callbacks(Struct, frozen=True, kw_only=True):
    """What the application calls: with a batch, with the partitions it now owns, for what may be committed.

    `wanted`: whether more of a partition is to be fetched; it is asked from another thread, before each fetch.
    `revoking`: the group takes all partitions away for now; `assigned` follows, unless the group has lost us.
    """

    deliver: Callable[[Source, int, Sequence[Record]], Awaitable[None]]
    wanted: Callable[[Source, int], bool]
    revoking: Callable[[], None]
    assigned: Callable[[set[int]], Awaitable[None]]
    committable: Callable[[Source, int], int | None]


class NotCopartitioned(Exception):
    """The assignor gave this worker different partitions of the source topics."""


def build_app(config: AppConfig, callbacks: Callbacks) -> tuple[faust.App, LiveTables]:
    """Build the application; nothing is started."""
    source_of = {topic: Source(number) for number, topic in enumerate(config.sources)}
    app = faust.App(
        config.group,
        broker=[f"kafka://{broker}" for broker in config.brokers],
        web_enabled=False,
        store="memory://",
        datadir=config.data_dir,
        topic_partitions=config.partitions,
        topic_disable_leader=True,
        topic_replication_factor=1,
        stream_wait_empty=False,
        stream_buffer_maxsize=16,
        broker_max_poll_records=config.fetch_records_max,
        broker_session_timeout=config.session_timeout_s,
        broker_rebalance_timeout=config.rebalance_timeout_s,
        broker_request_timeout=max(90.0, config.session_timeout_s + 10.0),
        broker_heartbeat_interval=min(3.0, config.session_timeout_s / 4),
        broker_commit_interval=1.0,
        consumer_max_fetch_size=4 * 1024 * 1024,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=config.instance_id,
        producer_request_timeout=30.0,
        loghandlers=[],
    )

    def committable(tp: TP) -> int | None:
        return callbacks.committable(source_of[tp.topic], tp.partition)

    def wanted(tp: TP) -> bool:
        return callbacks.wanted(source_of[tp.topic], tp.partition)

    transport = batch_transport(config.sources, committable, callbacks.revoking, wanted)
    app.transport = transport(app.conf.broker_consumer, app)
    tables = LiveTables(app, partitions=config.partitions)
    app.producer.buffer.max_messages = CHANGES_WAITING_MAX
    topic = app.topic(*config.sources, schema=BatchSchema(value_type=None), partitions=config.partitions)

    async def join(stream: Any) -> None:
        async for event in stream.noack().events():
            for tp, records in event.message.value:
                await callbacks.deliver(source_of[tp.topic], tp.partition, records)
            event.ack()

    app.agent(topic, name="join")(join)

    @app.on_partitions_assigned.connect
    async def on_assigned(*args: Any, **kwargs: Any) -> None:
        assigned: set[TP] = args[1]
        by_topic = [{tp.partition for tp in assigned if tp.topic == name} for name in config.sources]
        if any(partitions != by_topic[0] for partitions in by_topic):
            apart = dict(zip(config.sources, by_topic, strict=True))
            raise NotCopartitioned(f"source topics are assigned apart: {apart}")
        await callbacks.assigned(by_topic[0])

    return app, tables
