"""The ceiling: aiokafka's `getmany` and a decode of every record by its schema, the body left raw; nothing else.

`python -m bench.peers.ceiling_aiokafka BOOTSTRAP RESULT RECORDS TOPIC...` (the five topics, as they are listed).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer

Number = int | float | str | None


class Edge(msgspec.Struct):
    """The fields of an edge line."""

    request_id: str
    side: str
    ts: float
    method: str
    uri: str
    status: Number = None
    upstream_status: Number = None
    upstream_addr: str | None = None
    upstream_time_s: Number = None
    request_time_s: Number = None
    bytes_sent: Number = None
    host: str | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    shed: bool = False
    sampled: bool = True


class Response(msgspec.Struct):
    """The fields of a response."""

    request_id: str
    side: str
    ts: float
    method: str
    path: str
    status: int
    headers: msgspec.Raw = msgspec.Raw(b"")
    body: msgspec.Raw = msgspec.Raw(b"")
    body_encoding: str | None = None
    body_truncated: bool = False
    duration_ms: float | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    writes: int | None = None
    error: str | None = None


class Write(msgspec.Struct):
    """The fields of a write."""

    request_id: str
    side: str
    ts: float
    entity: str
    key: msgspec.Raw
    op: str
    seq: int | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    before: msgspec.Raw = msgspec.Raw(b"")
    operation: str | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    status: str | None = None


async def read(bootstrap: str, wanted: int, topics: list[str]) -> dict[str, Any]:
    """Read and decode so many records; returns what was read and when."""
    schemas = (Edge, Response, Response, Write, Write)
    decoders = {
        topic: msgspec.json.Decoder(schema).decode for topic, schema in zip(topics, schemas, strict=True)
    }
    consumer = AIOKafkaConsumer(  # of no group: it gets every partition
        *topics,
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )  # fmt: skip
    await consumer.start()
    try:
        counts = dict.fromkeys(topics, 0)
        total, first_at = 0, 0.0
        while total < wanted:
            fetched = await consumer.getmany(timeout_ms=500, max_records=10_000)
            first_at = first_at or time.monotonic()
            for tp, records in fetched.items():
                decode = decoders[tp.topic]
                for record in records:
                    decode(record.value)
                counts[tp.topic] += len(records)
                total += len(records)
        return {"records": list(counts.values()), "first_at": first_at, "last_at": time.monotonic()}
    finally:
        await consumer.stop()


def main() -> None:
    """Read, and write the result."""
    bootstrap, result, wanted, *topics = sys.argv[1:]
    loop = asyncio.new_event_loop() if os.environ.get("PLAIN_ASYNCIO") else uvloop.new_event_loop()
    Path(result).write_text(json.dumps(loop.run_until_complete(read(bootstrap, int(wanted), topics))))


if __name__ == "__main__":
    main()
