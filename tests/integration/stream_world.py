"""A partition worker over in-memory servers that can be away, lose things, or be written to by somebody else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from verifier.adapters.clock import SystemClock
from verifier.adapters.metrics import Metrics
from verifier.core.engine import Engine
from verifier.core.events import Source
from verifier.core.join import JoinConfig
from verifier.core.policy import Policy
from verifier.core.routes import Router
from verifier.core.verdict import Judge, JudgeConfig
from verifier.core.watermark import Watermark
from verifier.stream.codec import Codec, CodecConfig
from verifier.stream.outputs import Outputs, OutputTopics
from verifier.stream.partition import PartitionConfig, PartitionWorker, Ports
from verifier.stream.tables import TablesWriter
from verifier.testing import (
    MemoryClaims,
    MemoryJournal,
    MemoryPublisher,
    MemoryStore,
    MemoryTopics,
    edge,
    response,
    source_of,
)

TOPICS = OutputTopics(
    sources=("edge", "main.r", "shadow.r", "main.w", "shadow.w"),
    divergences="div",
    conflicts="con",
    rejected="rej",
)
WITHIN_S = 30.0


async def eventually(what: str, condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Poll until the condition holds."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.01)


class StreamWorld:
    """The servers of one partition, and as many workers over them as a test starts."""

    def __init__(self, *, join_timeout_s: float = 5.0) -> None:
        self.topics = MemoryTopics()
        self.journal = MemoryJournal()
        self.publisher = MemoryPublisher()
        self.claims = MemoryClaims()
        self.store = MemoryStore()
        self.clock = SystemClock()
        self.metrics = Metrics(routes_max=10, routes=())
        self.join = JoinConfig(
            join_timeout_s=join_timeout_s, write_settle_s=0.1, closed_hold_s=2 * join_timeout_s
        )
        self.judge = Judge(Policy.default(), Router((), routes_max=50), JudgeConfig())
        self.codec = Codec(CodecConfig())
        self._handed: list[int] = [0 for _ in Source]

    def engine(self, partition: int) -> Engine:
        watermark = Watermark(len(Source), lateness_s=0.0, idle_s=0.1, now=self.clock.monotonic())
        return Engine(partition, self.join, self.judge, watermark)

    def worker(self, name: str = "one", **changed: Any) -> tuple[PartitionWorker, TablesWriter]:
        journal = changed.pop("journal", self.journal)
        tables = TablesWriter(self.store, journal, self.clock, queue_max=4, retry_s=0.02)
        ports = Ports(
            journal=journal, records=self.topics, publisher=self.publisher, claims=self.claims, tables=tables,
            clock=self.clock,
        )  # fmt: skip
        worker = PartitionWorker(
            0,
            make_engine=changed.pop("make_engine", self.engine),
            codec=changed.pop("codec", self.codec),
            outputs=Outputs(TOPICS, self.metrics),
            ports=ports,
            config=PartitionConfig(worker=name, tick_s=0.01, retry_s=0.02, stall_s=0.2, **changed),
        )
        return worker, tables

    @asynccontextmanager
    async def running(self, name: str = "one", **changed: Any) -> AsyncIterator[PartitionWorker]:
        """A worker at work, told the ends of the topics as they are; every exit is a crash."""
        worker, tables = self.worker(name, **changed)
        tasks = [asyncio.create_task(worker.run()), asyncio.create_task(tables.run())]
        tasks.append(asyncio.create_task(self._tell_ends(worker)))
        try:
            yield worker
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _tell_ends(self, worker: PartitionWorker) -> None:
        while True:
            ends = [self.topics._ends[source, 0] for source in Source]
            worker.note_ends(ends)
            await asyncio.sleep(0.02)

    def produce(self, *made: Mapping[str, Any]) -> None:
        for each in made:
            self.topics.produce(source_of(each), each)

    async def hand_over(self, worker: PartitionWorker) -> None:
        """Give the worker everything produced since the last time, as the consumer would."""
        for source in Source:
            records = self.topics.records(source, 0, self._handed[source])
            if records:
                self._handed[source] = records[-1].offset + 1
                worker.intake.put(source, records)

    @property
    def dropped(self) -> int:
        """Claimants that were counted as dropped by the bound on a key."""
        return int(sum(self.metrics._dropped_claims._values.values()))

    async def summary(self) -> dict[str, Any]:
        return await self.store.summary()

    async def settled(self, requests: int, *, pending: int = 0) -> dict[str, Any]:
        """Wait until the tables have so many requests and only so many are pending; returns the summary."""
        give_up_at = time.monotonic() + WITHIN_S
        while True:
            summary = await self.summary()
            done = summary["requests"]["total"] >= requests and not summary["lag"]
            if done and summary["pending"] == pending:
                return summary
            assert time.monotonic() < give_up_at, f"not settled: {summary}"
            await asyncio.sleep(0.01)


def pair(request_id: str, ts: float, **shadow: Any) -> list[dict[str, Any]]:
    """A mirrored request; `shadow` is laid over the shadow's response."""
    return [
        edge(request_id, "main", ts=ts),
        edge(request_id, "shadow", ts=ts),
        response(request_id, "main", ts=ts),
        response(request_id, "shadow", ts=ts, **shadow),
    ]
