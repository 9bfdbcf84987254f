"""The worker of one partition index: feeds the engine, persists what it finds, and says what may be committed.

The order of effects makes every crash harmless: rejected records (keyed by their place), the journal entry (numbered:
the first with a number wins), then all that is derived from it: topics, tables, and the entry's claims, whose conflicts
the next entry records. What the journal does not have yet is read again; what it has is never counted twice, and what
is derived from its last entries is derived again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from msgspec.structs import replace

from verifier.core.conflict import IDEMPOTENCY
from verifier.core.engine import Engine, Findings, Slice
from verifier.core.errors import DependencyDown, VerifierError
from verifier.core.events import Source
from verifier.core.journal import Entry
from verifier.core.watermark import NEVER
from verifier.stream.appending import Appending
from verifier.stream.care import Care
from verifier.stream.codec import Codec, Record
from verifier.stream.contests import Contests
from verifier.stream.ends import Ends
from verifier.stream.entries import halved, laid_bare
from verifier.stream.evidence import Evidence
from verifier.stream.outputs import Outputs
from verifier.stream.partition_config import Incoming, PartitionConfig, Ports
from verifier.stream.ports import EntryTooLarge, Fenced, Status
from verifier.stream.publishing import Publishing
from verifier.stream.recovery import read_chain

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)
__all__ = ["Incoming", "PartitionConfig", "PartitionWorker", "Ports"]


class PartitionWorker:
    """Runs one partition index until it is cancelled or fenced."""

    def __init__(
        self,
        partition: int,
        *,
        make_engine: Callable[[int], Engine],
        codec: Codec,
        outputs: Outputs,
        ports: Ports,
        config: PartitionConfig,
    ) -> None:
        self.partition = partition
        self._make_engine = make_engine
        self._codec = codec
        self._outputs = outputs
        self._ports = ports
        self._config = config
        self._inbox: asyncio.Queue[Incoming] = asyncio.Queue(config.inbox_max)
        self._engine = make_engine(partition)
        self._raw: dict[tuple[Source, int], Record] = {}
        self._safe: tuple[int, ...] = ()
        self._beginnings: tuple[int, ...] = ()
        self._fed_at = 0.0
        self._ends = Ends()
        self._care = Care()
        self._appending = Appending(partition, ports.journal, self._until_up)
        self._contests = Contests(partition, config, ports, self._until_up)
        held = (self._appending, self._contests, self._until_up)
        self._publishing = Publishing(outputs, ports.publisher, *held)
        self._evidence = Evidence(partition, codec, ports, self._until_up)
        self.recovered = False
        self.waiting_for: str | None = None
        self.blocked: str | None = None

    async def put(self, source: Source, records: Sequence[Record]) -> None:
        """Hand over a fetch batch; waits while the inbox is full."""
        await self._inbox.put(Incoming(source, records))

    def note_ends(self, ends: Sequence[int]) -> None:
        """Note the next offset to be written in every source, as the broker has just said."""
        cut = self._ends.note(ends, self._engine.positions, self._ports.clock.monotonic())
        if cut and self.recovered and self.blocked is None:
            self.blocked = f"{', '.join(cut)} ends before what was read of it: made anew, or records lost"
            _log.error("topic_went_back", partition=self.partition, sources=cut, detail=self.blocked)

    def committable(self, source: Source) -> int | None:
        """The offset below which nothing of a source is needed any more, once that is journaled."""
        return self._safe[source] if self._safe else None

    @property
    def pending(self) -> int:
        """Number of open requests."""
        return self._engine.join.pending

    @property
    def lag(self) -> int:
        """Number of records the sources hold beyond what is journaled or in work, as far as known."""
        return sum(self.lag_by_source().values())

    def lag_by_source(self) -> dict[Source, int]:
        """`lag` by source."""
        return self._ends.lag(self._engine.positions)

    @property
    def verified_through(self) -> float:
        """Event time up to which every request read has its verdict."""
        return self._engine.verified_through

    async def run(self) -> None:
        """Recover, then work for ever. Whatever goes wrong, the journal says where to take up again."""
        first = True
        while True:
            try:
                await self._recover()
                if not first:
                    await self._catch_up()
                first = False
                while True:
                    await self._step(await self._take())
                    if self._left_behind():
                        await self._catch_up()
            except Fenced as fenced:
                _log.warning("partition_fenced", partition=self.partition, detail=str(fenced))
            except DependencyDown as down:
                await self._wait_for(down)
            except VerifierError as error:
                self._block(str(error))
                await self._ports.clock.sleep(self._config.retry_s)
            except Exception as error:  # noqa: BLE001 - the journal says where to take up again
                name = type(error).__name__
                tell = _log.exception if self._care.is_new(name) else _log.warning
                tell("partition_failed", partition=self.partition, batch=self._care.describe(), error=name)
                self.blocked = f"failed: {name}; the log has the details"
                self._care.failed()
                await self._ports.clock.sleep(self._config.retry_s * 2 ** min(self._care.failures, 4))
            self.recovered, first = False, False

    def _left_behind(self) -> bool:
        """Whether the sources have had more for a while, and nothing of it comes."""
        quiet_s = min(self._ports.clock.monotonic(), self._ends.noted_at) - self._fed_at
        return self._inbox.empty() and self.lag > 0 and quiet_s > self._config.stall_s

    def _block(self, reason: str) -> None:
        if self.blocked != reason:
            _log.error("partition_blocked", partition=self.partition, detail=reason)
        self.blocked = reason

    async def _catch_up(self) -> None:
        """Read what the consumer will not hand over: lost with a failed step, or dropped by it over a rebalance."""
        ends = (await self._until_up(lambda: self._ports.records.ends([self.partition])))[self.partition]
        self._fed_at = self._ports.clock.monotonic()
        for source in Source:
            position = self._engine.positions[source]
            async for records in self._ports.records.read(source, self.partition, position, ends[source]):
                at = 0
                while at < len(records):
                    chunk = records[at : at + self._care.records_max]
                    self._care.begin(source, chunk)
                    await self._step([Incoming(source, chunk)])
                    self._care.passed()
                    at += len(chunk)

    async def replay(self, steps: AsyncIterable[Sequence[Incoming]]) -> None:
        """Recover, work through a bounded input step by step, then close everything: the end of a window of the past.

        Raises `Fenced` when another worker writes to the same journal.
        """
        await self._recover()
        async for batches in steps:
            await self._step(batches)
        self._engine.finish()
        await self._step(())
        while self._contests.found:
            await self._step(())

    # -- one step ------------------------------------------------------------------------------------------

    async def _take(self) -> list[Incoming]:
        """Wait for batches, at most for a tick; take all that are there."""
        batches: list[Incoming] = []
        try:
            batches.append(await asyncio.wait_for(self._inbox.get(), self._config.tick_s))
        except TimeoutError:
            return batches
        while not self._inbox.empty():
            batches.append(self._inbox.get_nowait())
        return batches

    async def _step(self, batches: Sequence[Incoming]) -> None:
        for batch in batches:
            await self._feed(batch)
            self._fed_at = self._ports.clock.monotonic()
        now = self._ports.clock.monotonic()
        self._engine.advance(now, self._ends.reached(self._engine.positions, now))
        await self._ask_for_strays()
        await self._rejudge()
        await self._join_resurfaced()
        findings = self._engine.conclude()
        if not findings.empty or self._contests.found:
            await self._persist(findings)
        if self._contests.found:  # what its claims have brought about
            await self._persist(self._engine.conclude())
        await self._contests.watch(self._engine.watermark.value)
        await self._appending.watch(self._engine.n, now)
        self._tables_status()
        self._raw.clear()

    def _tables_status(self) -> None:
        watermark = self._engine.watermark.value
        status = Status(
            pending=self.pending,
            lag=self.lag,
            watermark=watermark if watermark != NEVER else 0.0,
            verified_through=self.verified_through,
        )
        self._ports.tables.note_status(self.partition, status)

    async def _feed(self, batch: Incoming) -> None:
        """Feed a batch; what lies between it and what was read before is read first, what was read is passed over."""
        position = self._engine.positions[batch.source]
        records = batch.records
        first = records[0].offset
        if first > position:
            async for missed in self._ports.records.read(batch.source, self.partition, position, first):
                self._feed_records(batch.source, missed)
        elif first < position:
            records = [record for record in records if record.offset >= position]
        if records:
            self._feed_records(batch.source, records)

    def _feed_records(self, source: Source, records: Sequence[Record]) -> None:
        start, end = self._engine.positions[source], records[-1].offset + 1
        seen, rejections = self._care.decode(self._codec, source, self.partition, records, self._engine.known)
        if rejections:
            by_offset = {record.offset: record for record in records}
            for rejection in rejections:
                self._outputs.reject(self.partition, by_offset[rejection.offset], rejection)
        self._raw.update(((source, record.offset), record) for record in records)
        batch = Slice(source=source, start=start, end=end, seen=seen, rejections=rejections)
        clock = self._ports.clock
        self._engine.feed(batch, clock.monotonic(), ceiling=clock.now() + self._config.clock_skew_max_s)

    async def _ask_for_strays(self) -> None:
        """Records behind the watermark may belong to requests judged long ago: the tables know."""
        strays = self._engine.take_strays()
        if not strays:
            return
        request_ids = list({stray.event.request_id for stray in strays})
        found = await self._until_up(lambda: self._ports.tables.lookup(request_ids))
        verdicts = await self._evidence.resolved_in(found)
        for stray in strays:
            resolved = verdicts.get(stray.event.request_id)
            if resolved is None:
                self._engine.open(stray)
            else:
                self._engine.recall(resolved, stray)

    async def _rejudge(self) -> None:
        for reopening in self._engine.take_reopenings():
            former = await self._evidence.records(reopening.resolved.events)
            self._engine.rejudge(reopening, former)

    async def _join_resurfaced(self) -> None:
        """Judge requests again that got a second first verdict because the first was forgotten: with all records."""
        request_ids = self._ports.tables.take_resurfaced(self.partition)
        if not request_ids:
            return
        histories = await self._until_up(lambda: self._ports.tables.histories(self.partition, request_ids))
        for request_id, offsets in histories.items():
            reopening, former = await self._evidence.of_history(request_id, offsets)
            if reopening is not None:
                self._engine.rejudge(reopening, former)

    # -- persisting ----------------------------------------------------------------------------------------

    async def _persist(self, findings: Findings) -> None:
        config = self._config
        for failure in findings.failures:
            _log.error(
                "judge_failed", request_id=failure.request_id, error=failure.error, place=failure.place
            )
        if not config.claim_idempotency_keys:
            findings = replace(findings, claims=tuple(c for c in findings.claims if c.scope != IDEMPOTENCY))
        for late in findings.late:
            record = self._raw.get((late.source, late.offset))
            if record is not None:
                self._outputs.late(self.partition, record, late)
        rejected = self._outputs.take_rejected()
        if rejected:
            await self._until_up(lambda: self._ports.publisher.publish(rejected))
        entry = self._engine.entry(
            findings,
            worker=config.worker,
            at=self._ports.clock.now(),
            published_n=self._engine.n,
            epoch=self._contests.epoch,
        )
        await self._journal(entry)

    async def _journal(self, entry: Entry) -> None:
        """Journal an entry and derive everything from it; one beyond what the journal takes goes in several parts.

        All parts but the last say that nothing more is safe than before, so a crash between them reads the rest again.
        """
        parts = [entry]
        while parts:
            part = self._contests.attach(replace(parts.pop(), n=self._engine.n + 1))
            try:
                offset = await self._appending.append(part)
            except EntryTooLarge as error:
                _log.warning(
                    "entry_too_large", partition=self.partition, requests=len(part.resolved), why=str(error)
                )
                if len(part.resolved) > 1:
                    parts += reversed(halved(part, safe=self._safe or self._beginnings))
                else:
                    parts.append(laid_bare(part))
                continue
            self._engine.journaled(part)
            await self._derive(offset, part)
            await self._contests.claim(part.claims, self._engine.watermark.value)

    async def _derive(self, offset: int, entry: Entry) -> None:
        """Bring an entry that is in the journal to everything derived from it."""
        await self._publishing.publish(entry)
        await self._ports.tables.put(self.partition, offset, entry)
        self._outputs.observe(entry, self._ports.clock.now())
        self._safe = entry.safe
        if self._config.log_conflicts:
            for conflict in entry.conflicts:
                _log.info(
                    "conflict", scope=conflict.scope, kind=conflict.kind, key=conflict.key,
                    winner=conflict.winner.request_id, loser=conflict.loser.request_id,
                )  # fmt: skip

    # -- recovery ------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Take up where the journal stands: what it resolved is known, what it left open is read again."""
        self._engine = self._make_engine(self.partition)
        self._raw.clear()
        self._ends = Ends()
        self._outputs.take_rejected()
        ports, partition = self._ports, self.partition
        position = await self._until_up(lambda: ports.tables.position(partition))

        async def take(offset: int, entry: Entry, lacking: bool) -> None:
            self._outputs.refold(entry)
            if lacking:
                await ports.tables.put(partition, offset, entry)

        chain = await self._until_up(lambda: read_chain(ports.journal, partition, position, take))
        self._appending.end = chain.end
        last = chain.last
        if last is None:
            self._engine.positions = list(await self._until_up(lambda: ports.records.beginnings(partition)))
            self._safe, self._beginnings = (), tuple(self._engine.positions)
            self._contests.begin()
            self.recovered, self.blocked = True, None
            return
        self._engine.restore(
            last, [(e.n, resolved) for _, e in chain.entries if e.n >= last.keep_n for resolved in e.resolved]
        )
        self._contests.restore(last)
        await self._publishing.publish(last)
        for source in Source:
            async for records in ports.records.read(
                source, partition, last.safe[source], last.positions[source]
            ):
                seen, _ = self._codec.decode(source, partition, records, ())
                batch = Slice(source=source, start=records[0].offset, end=records[-1].offset + 1, seen=seen)
                self._engine.refeed(batch)
        self._safe = last.safe
        for _, entry in chain.entries[-2:]:
            await self._contests.claim(entry.claims, last.watermark)
        self.recovered, self.blocked = True, None
        _log.info("partition_recovered", partition=partition, entry=last.n, pending=self.pending)

    async def _until_up(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Repeat a call until the server it needs answers. Nothing is decided and nothing acked meanwhile."""
        while True:
            try:
                result = await call()
            except DependencyDown as down:
                await self._wait_for(down)
            else:
                if self.waiting_for is not None:
                    _log.info("going_on", dependency=self.waiting_for, partition=self.partition)
                    self.waiting_for = None
                return result

    async def _wait_for(self, down: DependencyDown) -> None:
        if self.waiting_for != down.dependency:
            _log.warning("waiting", dependency=down.dependency, detail=down.detail, partition=self.partition)
        self.waiting_for = down.dependency
        await self._ports.clock.sleep(self._config.retry_s)
