"""Stock Faust: one agent, `async for event in stream.events()`, the verifier's core for each event.

`python -m bench.peers.stock_faust BOOTSTRAP RESULT RECORDS TOPIC...`
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from typing import Any

import mode.loop
from msgspec import Struct

from bench.peers.core_join import CoreJoin
from bench.workload import PARTITIONS, ROUTES
from verifier.core.events import Source

mode.loop.use("uvloop")
import faust  # noqa: E402 - the loop is chosen before Faust is imported, as Faust's own worker does


class Arrived(Struct):
    """A record as the core's codec wants it."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[()] = ()


def build(bootstrap: str, result: str, wanted: int, topics: list[str]) -> faust.App:
    """Build the application; it ends the process when it has read so many records."""
    app = faust.App(
        f"stock-faust-{os.getpid()}",
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=tempfile.gettempdir(),
        web_enabled=False,
        topic_partitions=PARTITIONS,
        topic_disable_leader=True,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=5_000,
        cython_optimizations=True,
    )
    core = CoreJoin(PARTITIONS, ROUTES)
    sources = {topic: Source(number) for number, topic in enumerate(topics)}
    source_topic = app.topic(*topics, key_serializer="raw", value_serializer="raw")

    @app.agent(source_topic)
    async def join(stream: Any) -> None:
        first_at = start_cpu_s = 0.0
        async for event in stream.events():
            if not first_at:
                first_at, start_cpu_s = time.monotonic(), time.process_time()
            message = event.message
            record = Arrived(message.offset, message.key, message.value, int(message.timestamp * 1_000))
            core.feed(sources[message.topic], message.partition, record)
            if core.total == wanted:
                core.tell(result, first_at, start_cpu_s)
                os._exit(0)  # Faust takes seconds to stop, which is no part of the work

    return app


def main() -> None:
    """Run the worker."""
    bootstrap, result, wanted, *topics = sys.argv[1:]
    app = build(bootstrap, result, int(wanted), topics)
    faust.Worker(app, loglevel="WARNING").execute_from_commandline()


if __name__ == "__main__":
    main()
