"""Loads a workload into Kafka and writes its truth: a program of the bench's own environment (confluent-kafka).

`python -m bench.load --bootstrap HOST:PORT --truth FILE --began-at UNIX_S [--seed N] [--requests N] [--prefix P]`
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bench.truth import Truth
from bench.workload import REQUESTS, SOURCES, Line, Workload

QUEUE_MESSAGES = 200_000
FLUSH_S = 120.0


class Loader:
    """A producer that keeps its first error."""

    def __init__(self, bootstrap: str, *, linger_ms: int = 100) -> None:
        self._failed: KafkaError | None = None
        self._producer = Producer({
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": linger_ms,
            "batch.size": 512 * 1024,
            "queue.buffering.max.messages": QUEUE_MESSAGES,
            "queue.buffering.max.kbytes": 512 * 1024,
            "acks": "all",
            "enable.idempotence": True,
        })  # fmt: skip

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None and self._failed is None:
            self._failed = error

    def _telling(self, confirmed: Callable[[], None]) -> Callable[[KafkaError | None, Message], None]:
        def told(error: KafkaError | None, message: Message) -> None:
            self._on_delivery(error, message)
            confirmed()

        return told

    def produce(
        self, topic: str, key: bytes, value: bytes, ts_ms: int, confirmed: Callable[[], None] | None = None
    ) -> None:
        """Queue a record; waits while the queue is full. `confirmed` is called once the broker has it."""
        told = self._on_delivery if confirmed is None else self._telling(confirmed)
        while True:
            try:
                self._producer.produce(topic, value, key, timestamp=ts_ms, on_delivery=told)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def poll(self) -> None:
        """Take in what the broker has confirmed."""
        self._producer.poll(0)

    def finish(self) -> None:
        """Wait until everything is confirmed. Raises KafkaException or TimeoutError if a record was not taken."""
        left = self._producer.flush(FLUSH_S)
        if self._failed is not None:
            raise KafkaException(self._failed)
        if left:
            raise TimeoutError(f"Kafka did not confirm {left} records within {FLUSH_S:.0f} s")


def load(bootstrap: str, workload: Workload, prefix: str, *, standing: bool = False) -> Truth:
    """Produce every record of the workload, or only those that leave every request waiting; returns their truth."""
    loader = Loader(bootstrap)
    topics = [prefix + source for source in SOURCES]
    produced = Truth()
    for number, line in enumerate(workload):
        if not standing or is_standing(line):
            loader.produce(topics[line.source], line.key, line.value, line.ts_ms)
            if standing:
                produced.note([line])
        if number % 5_000 == 0:
            loader.poll()
    loader.finish()
    return produced if standing else workload.truth


def is_standing(line: Line) -> bool:
    """Whether a record is main's edge line or response: without its other half, a request waits."""
    return line.source == 1 or (line.source == 0 and b'"side":"main"' in line.value)


def main() -> None:
    """Load and write the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--began-at", type=float, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--prefix", default="")
    parser.add_argument("--dated", action="store_true")
    parser.add_argument("--whole", action="store_true", help="no request lacks anything")
    parser.add_argument("--standing", action="store_true", help="only what main told of the requests")
    given = parser.parse_args()
    workload = Workload(
        given.seed, given.requests, began_at=given.began_at, dated=given.dated, whole=given.whole
    )
    truth = load(given.bootstrap, workload, given.prefix, standing=given.standing)
    given.truth.write_text(truth.as_json())


if __name__ == "__main__":
    main()
