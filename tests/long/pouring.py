"""Producing traffic at a pace from a thread of its own, over outages of Kafka too."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Self

from aiokafka import AIOKafkaProducer

from tests.acceptance.cluster import Cluster, run
from tests.long.traffic import Traffic

CHUNK_REQUESTS = 50


class Pouring:
    """Produces `requests` requests of a traffic, `pace` a second, or with None as fast as it can."""

    def __init__(self, cluster: Cluster, traffic: Traffic, requests: int, *, pace: float | None) -> None:
        self._cluster, self._traffic, self._requests, self._pace = cluster, traffic, requests, pace
        self._thread = threading.Thread(target=lambda: run(self._produce()))
        self._giving_up = threading.Event()
        self.poured = 0
        self.complete = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is not None:
            self._giving_up.set()
        self._thread.join()
        assert failed is not None or self.complete, (
            f"only {self.poured} of {self._requests} requests were produced"
        )

    def join(self, timeout_s: float) -> None:
        """Wait for the end, at most so long."""
        self._thread.join(timeout_s)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    async def _produce(self) -> None:
        # idempotence, so that a broker's crash neither loses nor repeats a record
        producer = AIOKafkaProducer(
            bootstrap_servers=self._cluster.servers.kafka.bootstrap, linger_ms=20, acks="all",
            enable_idempotence=True, request_timeout_ms=120_000, compression_type="lz4", max_batch_size=256 * 1024,
        )  # fmt: skip
        await producer.start()
        began, prefix = time.monotonic(), self._cluster.prefix
        pending: list[asyncio.Future[object]] = []
        try:
            for first in range(0, self._requests, CHUNK_REQUESTS):
                if self._giving_up.is_set():
                    return
                for number in range(first, min(first + CHUNK_REQUESTS, self._requests)):
                    for topic, key, value in self._traffic.request(number):
                        pending.append(await producer.send(prefix + topic, value, key=key))
                self.poured = min(first + CHUNK_REQUESTS, self._requests)
                if len(pending) > 5_000:
                    await asyncio.gather(*pending)
                    pending.clear()
                if self._pace is not None:
                    await asyncio.sleep(max(0.0, began + self.poured / self._pace - time.monotonic()))
            await asyncio.gather(*pending)
            self.complete = True
        finally:
            await producer.stop()
