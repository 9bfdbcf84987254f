"""Judging recorded files: the partition workers of a live system, over a spool instead of servers.

The spool gives the records in the order of event time, so at each step every source is read up to the same moment, as
in a live system that keeps up; the end of the input closes every request that is still open.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TextIO

from msgspec import Struct

from verifier.adapters.archive import KEPT_BYTES_MAX, Damage, read_lines, size_of
from verifier.adapters.archive_lines import Refused, Sorter, source_of_file
from verifier.adapters.metrics import Metrics
from verifier.adapters.settings import Settings
from verifier.adapters.spool import Spool
from verifier.adapters.sqlite import SqliteStore
from verifier.assembly import codec_of, engine_maker, judge_of, output_topics_of
from verifier.core.events import Source
from verifier.core.policy import Policy
from verifier.stream.codec import Record
from verifier.stream.outputs import Outputs
from verifier.stream.partition import Incoming, PartitionConfig, PartitionWorker, Ports
from verifier.stream.ports import Message, Status
from verifier.stream.tables import TablesWriter

WORKER = "offline"
LINE_PER_RECORD = 4
"""A record may stand escaped in a wrapper's string, and so take several times its bytes in a line."""

QUIET_S = 2.0
EVERY_S = 5.0
_KEPT_ROWS = 500
RejectedRow = tuple[str, int, str | None, str, str, bytes | None]


class Progress:
    """Tells on a stream how far a long run is: nothing in the first seconds, then a line now and then."""

    def __init__(self, stream: TextIO | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._monotonic = monotonic
        self._due = monotonic() + QUIET_S

    def tell(self, text: Callable[[], str]) -> None:
        """Write a line if it is time for one."""
        if self._stream is not None and self._monotonic() >= self._due:
            self._due = self._monotonic() + EVERY_S
            self._stream.write(text() + "\n")
            self._stream.flush()


class EventClock:
    """The clock of an offline run: it shows the event time that is being read, and no time passes while it works."""

    def __init__(self) -> None:
        self._now = 0.0

    def move_to(self, ts: float) -> None:
        """Go on to an event time; never back."""
        self._now = max(self._now, ts)

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, duration_s: float) -> None:  # noqa: ARG002 - no time passes
        await asyncio.sleep(0)


class Intake(Struct):
    """What was read: lines that are not blank, records by source, lines that belong to no source."""

    lines: int
    records: Counter[Source]
    refused: int


class _RejectedLines:
    """The rejected topic of an offline run: keeps what lands there with the file and line it came from."""

    def __init__(self, spool: Spool, store: SqliteStore, files: Sequence[str], settings: Settings) -> None:
        self._spool = spool
        self._store = store
        self._files = files
        self._topic = settings.topics.rejected
        self._sources = {name: Source(number) for number, name in enumerate(settings.topics.sources)}

    async def publish(self, messages: Sequence[Message]) -> None:
        """Keep the dead letters; what else is published stands in the tables."""
        rows: list[RejectedRow] = []
        for message in messages:
            if message.topic != self._topic or message.value is None:
                continue
            letter = json.loads(message.value)
            found = self._spool.line_of(self._sources[letter["topic"]], letter["partition"], letter["offset"])
            if found is not None:
                value = (
                    None if letter["value"] is None else base64.b64decode(letter["value"])[:KEPT_BYTES_MAX]
                )
                file, line = self._files[found[0]], found[1]
                rows.append((file, line, letter["topic"], letter["reason"], letter["detail"], value))
        self._store.reject_lines(rows)


def read_files(
    files: Sequence[str], settings: Settings, spool: Spool, store: SqliteStore, progress: Progress
) -> Intake:
    """Sort the lines of all files into the spool. Raises InputError when a file cannot be opened."""
    sorter = Sorter(settings.topics.sources, request_id_column=settings.request_id_column)
    intake = Intake(0, Counter(), 0)
    total, done = sum(size_of(file) for file in files), 0
    rejected: list[RejectedRow] = []

    def count_bytes(n: int) -> None:
        nonlocal done
        done += n

    def refuse(file: str, line: int, reason: str, detail: str, text: bytes) -> None:
        intake.refused += 1
        rejected.append((file, line, None, reason, detail, text[:KEPT_BYTES_MAX]))
        if len(rejected) >= _KEPT_ROWS:
            store.reject_lines(rejected)
            rejected.clear()

    for number, file in enumerate(files):
        named = source_of_file(file)
        for line in read_lines(
            file, line_bytes_max=LINE_PER_RECORD * settings.record_bytes_max, on_bytes=count_bytes
        ):
            intake.lines += 1
            if isinstance(line, Damage):
                refuse(file, line.number, line.reason, line.detail, line.text)
                continue
            placed = sorter.sort(line.text, named)
            if isinstance(placed, Refused):
                refuse(file, line.number, placed.reason, placed.detail, line.text)
                continue
            intake.records[placed.source] += 1
            spool.add(placed, number, line.number)
            if intake.lines % 1000 == 0:
                progress.tell(lambda: f"reading: {intake.lines:,} lines, {_bytes(done)} of {_bytes(total)}")
    store.reject_lines(rejected)
    progress.tell(lambda: f"sorting {intake.records.total():,} records by time")
    spool.seal()
    return intake


async def judge(
    files: Sequence[str],
    settings: Settings,
    policy: Policy,
    *,
    spool: Spool,
    store: SqliteStore,
    records: int,
    progress: Progress,
) -> None:
    """Judge everything in the spool, and fold it into the store."""
    clock = EventClock()
    settings = settings.model_copy(
        update={"idle_s": 0.0}
    )  # no source is waited for: all are read to the same moment
    journal = spool.journal()
    tables = TablesWriter(store, journal, clock)
    outputs = Outputs(output_topics_of(settings), Metrics(routes_max=settings.routes_max, routes=()))
    ports = Ports(
        journal=journal,
        records=spool,
        publisher=_RejectedLines(spool, store, files, settings),
        claims=spool.claims(),
        tables=tables,
        clock=clock,
    )
    judged, through = 0, 0.0

    async def after(records_of_step: int) -> None:
        nonlocal judged
        judged += records_of_step
        await tables.write_all()
        progress.tell(lambda: f"judging: {judged:,} of {records:,} records")

    for partition in range(spool.partitions):
        worker = PartitionWorker(
            partition,
            make_engine=engine_maker(settings, judge_of(settings, policy), clock.monotonic),
            codec=codec_of(settings, spool.partitions),
            outputs=outputs,
            ports=ports,
            config=PartitionConfig(
                worker=WORKER,
                idempotency_ttl_s=settings.idempotency_ttl_s,
                conflict_timeout_s=settings.conflict_timeout_s,
            ),
        )
        await worker.replay(_steps(spool, worker, clock, after))
        await tables.write_all()
        through = max(through, worker.verified_through)
    for partition in range(spool.partitions if through else 0):  # no partition holds anything back any more
        done = Status(pending=0, lag=0, watermark=through, verified_through=through)
        await store.status(partition, done)


async def _steps(
    spool: Spool, worker: PartitionWorker, clock: EventClock, after: Callable[[int], Awaitable[None]]
) -> AsyncIterator[list[Incoming]]:
    """Hand a worker its partition, and let the tables follow each step, so that nothing piles up."""
    for step in spool.steps(worker.partition):
        clock.move_to(step.until)
        worker.note_ends(step.ends)
        batches: list[Incoming] = []
        for source, taken in step.batches:
            handed: list[Record] = list(taken)
            batches.append(Incoming(source, handed))
        yield batches
        await after(sum(len(batch.records) for batch in batches))


def _bytes(n: int) -> str:
    return f"{n / 1e6:,.1f} MB"
