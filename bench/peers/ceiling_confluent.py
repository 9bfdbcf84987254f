"""The C ceiling: confluent-kafka's `consume(10000)`, nothing else.

`python -m bench.peers.ceiling_confluent BOOTSTRAP RESULT RECORDS TOPIC...`
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition


def main() -> None:
    """Read so many records, and write what was read and when."""
    bootstrap, result, wanted, *topics = sys.argv[1:]
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "ceiling",
        "enable.auto.commit": False,
        "fetch.message.max.bytes": 4 << 20,
        "queued.max.messages.kbytes": 256 * 1024,
    })  # fmt: skip
    known = consumer.list_topics(timeout=10).topics
    consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t in topics for p in known[t].partitions])
    counts = dict.fromkeys(topics, 0)
    total, first_at = 0, 0.0
    while total < int(wanted):
        messages = consumer.consume(10_000, timeout=0.5)
        first_at = first_at or time.monotonic()
        for message in messages:
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            counts[message.topic()] += 1
        total += len(messages)
    told = {"records": list(counts.values()), "first_at": first_at, "last_at": time.monotonic()}
    Path(result).write_text(json.dumps(told))
    consumer.close()


if __name__ == "__main__":
    main()
