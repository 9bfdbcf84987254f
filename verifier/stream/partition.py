"""The worker of one partition index: feeds the engine, persists what it finds, and says what may be committed.

The order of effects makes every crash harmless: rejected records (keyed by their place), the journal entry (numbered:
the first with a number wins), then all that is derived from it: topics, tables, and the entry's claims, whose conflicts
the next entry records. What the journal does not have yet is read again; what it has is never counted twice, and what
is derived from its last entries is derived again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing

import structlog
from msgspec.structs import replace

from verifier.core.conflict import IDEMPOTENCY
from verifier.core.engine import Engine, Findings, Slice
from verifier.core.errors import DependencyDown, VerifierError
from verifier.core.events import Source
from verifier.core.journal import Entry
from verifier.stream.appending import Appending
from verifier.stream.care import Care
from verifier.stream.codec import Codec, Record
from verifier.stream.contests import Contests
from verifier.stream.entries import made_smaller
from verifier.stream.evidence import Evidence
from verifier.stream.intake import Intake
from verifier.stream.outputs import Outputs
from verifier.stream.partition_config import Incoming, PartitionConfig, Ports
from verifier.stream.patience import Patience
from verifier.stream.ports import EntryTooLarge, Fenced
from verifier.stream.progress import Progress
from verifier.stream.publishing import Publishing
from verifier.stream.recovery import read_chain
from verifier.stream.rereading import Rereading
from verifier.stream.turns import Finished, Turns

_log = structlog.get_logger(__name__)
__all__ = ["Incoming", "PartitionConfig", "PartitionWorker", "Ports"]


class PartitionWorker:
    """Runs one partition index until it is told to finish, or cancelled."""

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
        self._engine = make_engine(partition)
        self._raw: list[tuple[Source, Sequence[Record]]] = []
        self._safe: tuple[int, ...] = ()
        self._beginnings: tuple[int, ...] = ()
        self._counts_due_at = 0.0
        self.progress = Progress(partition, tables=ports.tables, clock=ports.clock, stuck_s=config.stuck_s)
        self.intake = Intake(partition, config, ports.clock, self.progress, outputs.bound_met)
        self.turns = Turns(config.slice_records_max)
        self._care = Care(config.step_records_max)
        self.patience = Patience(partition, ports.clock, config.retry_s)
        self._until_up = self.patience.until_up
        self._appending = Appending(partition, ports.journal, self._until_up)
        self._contests = Contests(
            partition, config, ports, self._until_up, outputs.claims_dropped, outputs.bound_met
        )
        held = (self._appending, self._contests, self._until_up)
        self._publishing = Publishing(outputs, ports.publisher, *held)
        self._evidence = Evidence(partition, codec, ports, self._until_up)
        self._rereading = Rereading(partition, codec, outputs, ports.records, self._care, self.turns)
        self.blocked: str | None = None
        """What keeps the partition from going on, to be mended from outside."""
        self.recovered = False

    def note_ends(self, ends: Sequence[int]) -> None:
        """Note the next offset to be written in every source, as the broker has just said."""
        cut = self.progress.note_ends(ends, self._engine.positions)
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
    def verified_through(self) -> float:
        """Event time up to which every request read has its verdict."""
        return self.progress.verified_through

    async def run(self) -> None:
        """Recover, then work until told to finish. Whatever goes wrong, the journal says where to take up again."""
        lost = False
        while True:
            self._care.begin_again()
            try:
                await self._recover()
                self.intake.begin()
                if lost:
                    await self._make_up([source for source in Source if not self.intake.has(source)])
                while True:
                    self.progress.doing = "waiting for records"
                    await self._work(await self.intake.take(self._engine))
                    if left_behind := self.intake.left_behind(self._engine):
                        await self._make_up(left_behind)
            except Finished:
                return
            except Fenced as fenced:
                _log.warning("partition_fenced", partition=self.partition, detail=str(fenced))
            except DependencyDown as down:
                await self.patience.wait_for(down)
            except VerifierError as error:
                if self.blocked != str(error):
                    _log.error("partition_blocked", partition=self.partition, detail=str(error))
                self.blocked = str(error)
                await self._ports.clock.sleep(self._config.retry_s)
            except Exception as error:  # noqa: BLE001 - the journal says where to take up again
                name = type(error).__name__
                tell = _log.exception if self._care.is_new(name) else _log.warning
                tell("partition_failed", partition=self.partition, batch=self._care.describe(), error=name)
                self.blocked = f"failed: {name}; the log has the details"
                wait_s = self._config.retry_s
                if not self._care.failed(error):
                    wait_s *= 2 ** min(self._care.failures, 4)
                await self._ports.clock.sleep(wait_s)
            self.recovered, lost = False, True

    async def _make_up(self, sources: Iterable[Source]) -> None:
        """Read what the consumer will not hand over: lost with a failed step, or dropped by it over a rebalance.

        Of each source only until the consumer hands over something: what lies before that is read in any case.
        """
        ends = (await self._until_up(lambda: self._ports.records.ends([self.partition])))[self.partition]
        async with AsyncExitStack() as stack:
            left: dict[Source, AsyncGenerator[Sequence[Record], None]] = {}
            for source in sources:
                chunks = self._chunks(source, self._engine.positions[source], ends[source])
                left[source] = await stack.enter_async_context(aclosing(chunks))
            while waiting := left.keys() - self.intake.held(self._engine):
                source = self.intake.furthest_behind(waiting)
                chunk = await anext(left[source], None)
                if chunk is None:
                    self._pass_over(source, ends[source])
                if chunk is None or self.intake.has(source):
                    del left[source]
                else:
                    await self._step_with_care(source, chunk)

    async def _read_apart(self, source: Source, start: int, end: int) -> None:
        """Read the offsets [start, end) apart from the consumer, and work through them step by step."""
        async with aclosing(self._chunks(source, start, end)) as chunks:
            async for chunk in chunks:
                await self._step_with_care(source, chunk)
        self._pass_over(source, end)

    async def _chunks(self, source: Source, start: int, end: int) -> AsyncGenerator[Sequence[Record], None]:
        async with aclosing(self._ports.records.read(source, self.partition, start, end)) as batches:
            async for records in batches:
                for chunk in self._care.pieces(source, records):
                    yield chunk

    async def _step_with_care(self, source: Source, chunk: Sequence[Record]) -> None:
        self._care.begin(source, chunk)
        await self.turns.next()
        await self._step([Incoming(source, chunk)])
        self._care.passed()

    def _pass_over(self, source: Source, end: int) -> None:
        """Take what is left of a source up to `end` for read: it holds no record but markers of transactions."""
        if (position := self._engine.positions[source]) < end:
            self._feed_slice(Slice(source=source, start=position, end=end, seen=()))

    async def replay(self, steps: AsyncIterable[Sequence[Incoming]]) -> None:
        """Recover, work through a bounded input step by step, then close everything: the end of a window of the past.

        Raises `Fenced` when another worker writes to the same journal.
        """
        await self._recover()
        async for batches in steps:
            await self._step(batches)
        self._engine.finish()
        await self._step(())
        while self._contests.found or self._engine.more_due:
            await self._step(())

    # -- one step ------------------------------------------------------------------------------------------

    async def _work(self, batches: Sequence[Incoming]) -> None:
        """Do a step; what lies between a batch and what was read before it is read first, in steps of its own."""
        ready: list[Incoming] = []
        expected = list(self._engine.positions)
        for batch in batches:
            first = batch.records[0].offset
            if first > expected[batch.source]:
                if ready:
                    await self.turns.next()
                    await self._step(ready)
                    ready = []
                await self._read_apart(batch.source, expected[batch.source], first)
            ready.append(batch)
            expected[batch.source] = max(expected[batch.source], batch.records[-1].offset + 1)
        self.progress.doing = "waiting for its turn"
        await self.turns.next()
        await self._step(ready)

    async def _step(self, batches: Sequence[Incoming]) -> None:
        for batch in batches:
            await self._feed(batch)
            self.intake.fed(batch.source)
        self.progress.doing = "judging"
        now = self._ports.clock.monotonic()
        self._engine.advance(now, self.progress.ends.reached(self._engine.positions, now))
        await self._ask_for_strays()
        await self._rejudge()
        await self._join_resurfaced()
        if self._contests.found or not self._engine.only_counts or now >= self._counts_due_at:
            findings = self._engine.conclude()
            if not findings.empty or self._contests.found:
                await self._persist(findings)
        if self._contests.found:  # what its claims have brought about
            await self._persist(self._engine.conclude())
        self._raw.clear()
        self.progress.stands(self._engine)  # before what may take long: claims may have to be told again
        await self._contests.watch(self._engine.event_time)
        await self._appending.watch(self._engine.n, now)

    async def _feed(self, batch: Incoming) -> None:
        """Feed a batch, giving way to others in between; what was read before is passed over."""
        records, position = batch.records, self._engine.positions[batch.source]
        if records[0].offset < position:
            records = [record for record in records if record.offset >= position]
        self.progress.doing = "reading"
        async for piece in self.turns.slices(records):
            self._feed_records(batch.source, piece)

    def _feed_records(self, source: Source, records: Sequence[Record]) -> None:
        start, end = self._engine.positions[source], records[-1].offset + 1
        self._care.feeding = source, records
        seen, rejections = self._care.decode(self._codec, source, self.partition, records, self._engine.known)
        if rejections:
            by_offset = {record.offset: record for record in records}
            for rejection in rejections:
                self._outputs.reject(self.partition, by_offset[rejection.offset], rejection)
        self._raw.append((source, records))
        self.intake.note(source, seen)
        self._feed_slice(Slice(source=source, start=start, end=end, seen=seen, rejections=rejections))
        self._care.feeding = None

    def _feed_slice(self, batch: Slice) -> None:
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
        if reopenings := self._engine.take_reopenings():
            former = await self._evidence.records_of([each.resolved.events for each in reopenings])
            for reopening, records in zip(reopenings, former, strict=True):
                self._engine.rejudge(reopening, records)

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
            told = {"request_id": failure.request_id, "error": failure.error, "place": failure.place}
            _log.error("judge_failed", **told)
        if not config.claim_idempotency_keys:
            findings = replace(findings, claims=tuple(c for c in findings.claims if c.scope != IDEMPOTENCY))
        if findings.late:
            raw = {(source, record.offset): record for source, records in self._raw for record in records}
            for late in findings.late:
                record = raw.get((late.source, late.offset))
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
            self.progress.doing = "writing the journal"
            part = self._contests.attach(replace(parts.pop(), n=self._engine.n + 1))
            try:
                offset = await self._appending.append(part)
            except EntryTooLarge as error:
                self._outputs.bound_met("entry_size")
                parts += made_smaller(part, str(error), safe=self._safe or self._beginnings)
                continue
            self._engine.journaled(part)
            self.progress.journaled(part.positions)
            self._counts_due_at = self._ports.clock.monotonic() + self._config.counts_every_s
            await self._derive(offset, part)
            self.progress.doing = "making claims"
            await self._contests.claim(part.claims, self._engine.event_time)

    async def _derive(self, offset: int, entry: Entry) -> None:
        """Bring an entry that is in the journal to everything derived from it."""
        self.progress.doing = "handing over to the tables"
        await self._ports.tables.put(self.partition, offset, entry)  # first: they are written meanwhile
        self.progress.doing = "publishing"
        await self._publishing.publish(entry)
        self._outputs.observe(entry, self._ports.clock.now())
        self._safe = entry.safe
        self._contests.tell(entry)

    # -- recovery ------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Take up where the journal stands: what it resolved is known, what it left open is read again."""
        self.progress.begin_again()
        self._engine = self._make_engine(self.partition)
        self._raw.clear()
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
            self._recovered(self._engine.positions)
            return
        self._engine.restore(
            last, [(e.n, resolved) for _, e in chain.entries if e.n >= last.keep_n for resolved in e.resolved]
        )
        self._contests.restore(last)
        await self._publishing.publish(last)
        for source in Source:
            places = last.safe[source], last.positions[source]
            await self._rereading.feed(self._engine, source, *places)
        self._safe = last.safe
        for _, entry in chain.entries[-2:]:
            await self._contests.claim(entry.claims, last.watermark)
        self._recovered(last.positions)
        _log.info("partition_recovered", partition=partition, entry=last.n, pending=self.pending)

    def _recovered(self, positions: Sequence[int]) -> None:
        self.progress.journaled(positions)
        self.recovered, self.blocked = True, None
