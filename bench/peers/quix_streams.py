"""Quix Streams: a dataframe for each topic, the verifier's core for each message.

`python -m bench.peers.quix_streams BOOTSTRAP RESULT RECORDS TOPIC...`
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from quixstreams import Application, message_context

from bench.peers.core_join import CoreJoin
from bench.workload import PARTITIONS, ROUTES
from verifier.core.events import Source


class Arrived(Struct):
    """A record as the core's codec wants it."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[()] = ()


class Joining:
    """What the dataframes of the five topics share."""

    def __init__(self) -> None:
        self.core = CoreJoin(PARTITIONS, ROUTES)
        self.first_at = self.start_cpu_s = 0.0

    def of(self, source: Source) -> Callable[[Any, Any, int, Any], None]:
        """The step of one topic's dataframe."""
        feed = self.core.feed

        def step(value: Any, key: Any, timestamp: int, _headers: Any) -> None:
            if not self.first_at:
                self.first_at, self.start_cpu_s = time.monotonic(), time.process_time()
            context = message_context()
            feed(source, context.partition, Arrived(context.offset, key, value, timestamp))

        return step


def main() -> None:
    """Run until so many messages were processed."""
    bootstrap, result, wanted, *topics = sys.argv[1:]
    app = Application(
        broker_address=bootstrap,
        consumer_group=f"quix-streams-{os.getpid()}",
        auto_offset_reset="earliest",
        auto_create_topics=False,
        state_dir=tempfile.gettempdir(),
        loglevel="WARNING",
        consumer_extra_config={"fetch.message.max.bytes": 4 << 20, "queued.max.messages.kbytes": 256 * 1024},
    )
    joining = Joining()
    for number, name in enumerate(topics):
        topic = app.topic(name, key_deserializer="bytes", value_deserializer="bytes")
        app.dataframe(topic).update(joining.of(Source(number)), metadata=True)
    app.run(count=int(wanted), collect=False)
    joining.core.tell(result, joining.first_at, joining.start_cpu_s)


if __name__ == "__main__":
    main()
