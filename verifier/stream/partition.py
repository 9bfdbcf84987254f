"""The worker of one partition index: feeds the engine, persists what it finds, and says what may be committed.

The order of effects makes every crash harmless: claims (idempotent), rejected records (keyed by their place), the
journal entry (numbered: the first with a number wins), then everything that is derived from the journal. What the
journal does not have yet is read again; what it has is never counted twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from verifier.core.conflict_scan import claimed_by, scan
from verifier.core.engine import Engine, Findings, Slice
from verifier.core.errors import DependencyDown, VerifierError
from verifier.core.events import Rejection, Seen, Source
from verifier.core.journal import Entry, valid_entries
from verifier.core.outcome import Claim
from verifier.core.watermark import NEVER
from verifier.stream.care import Care
from verifier.stream.codec import Codec, Record
from verifier.stream.entries import halved, laid_bare
from verifier.stream.evidence import Evidence
from verifier.stream.outputs import Outputs
from verifier.stream.ports import (
    ClaimsStore,
    Clock,
    EntryTooLarge,
    Fenced,
    Journal,
    Publisher,
    Records,
    Status,
    Tables,
)
from verifier.stream.recovery import READ_ENTRIES_MAX, read_chain

RECHECK_MAX = 100_000
_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Ports(Struct, frozen=True, kw_only=True):
    """All that a partition worker reaches the outside through."""

    journal: Journal
    records: Records
    publisher: Publisher
    claims: ClaimsStore
    tables: Tables
    clock: Clock


class PartitionConfig(Struct, frozen=True, kw_only=True):
    """Pace and bounds of a partition worker.

    `inbox_max` counts fetch batches, `retry_s` is the pause between tries. A record's event time is believed up to
    `clock_skew_max_s` beyond our clock. What the consumer has not handed over for `stall_s`, though it is there, is
    read apart from it.
    """

    worker: str
    tick_s: float = 0.1
    inbox_max: int = 16
    retry_s: float = 0.5
    idempotency_ttl_s: float = 3600.0
    conflict_timeout_s: float = 30.0
    clock_skew_max_s: float = 60.0
    log_conflicts: bool = False
    stall_s: float = 2.0


class Incoming(Struct, frozen=True):
    """A fetch batch of one source."""

    source: Source
    records: Sequence[Record]


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
        self._journal_end = 0
        self._epoch = ""
        self._recheck: list[Claim] = []
        self._safe: tuple[int, ...] = ()
        self._beginnings: tuple[int, ...] = ()
        self._fed_at = 0.0
        self._ends: tuple[float, Sequence[int]] | None = None
        self._positions_at_ends: Sequence[int] = ()
        self._care = Care()
        self._evidence = Evidence(partition, codec, ports, self._until_up)
        self.recovered = False
        self.waiting_for: str | None = None
        self.blocked: str | None = None

    # -- for the application -------------------------------------------------------------------------------

    async def put(self, source: Source, records: Sequence[Record]) -> None:
        """Hand over a fetch batch; waits while the inbox is full."""
        await self._inbox.put(Incoming(source, records))

    def note_ends(self, ends: Sequence[int]) -> None:
        """Note the next offset to be written in every source, as the broker has just said."""
        before, self._positions_at_ends = self._positions_at_ends, tuple(self._engine.positions)
        self._ends = (self._ports.clock.monotonic(), ends)
        cut = [s.name.lower() for s, at, end in zip(Source, before, ends, strict=False) if self.recovered and end < at]
        if cut and self.blocked is None:
            self.blocked = f"{', '.join(cut)} ends before what was read of it: the topic was made anew or lost records"
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
        ends = self._ends[1] if self._ends is not None else self._engine.positions
        return {source: max(0, ends[source] - self._engine.positions[source]) for source in Source}

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
                tell = _log.warning if self._care.failures else _log.exception
                tell("partition_failed", partition=self.partition, batch=self._care.describe(), error=type(error).__name__)
                self.blocked = f"failed: {type(error).__name__}; the log has the details"
                self._care.failed()
                await self._ports.clock.sleep(self._config.retry_s * 2 ** min(self._care.failures, 4))
            self.recovered, first = False, False

    def _left_behind(self) -> bool:
        """Whether the sources have had more for a while, and nothing of it comes."""
        if self._ends is None or not self._inbox.empty():
            return False
        more = any(end > at for end, at in zip(self._ends[1], self._engine.positions, strict=True))
        return more and min(self._ports.clock.monotonic(), self._ends[0]) - self._fed_at > self._config.stall_s

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
        while self._recheck:
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
        self._engine.advance(self._ports.clock.monotonic(), self._at_end())
        await self._ask_for_strays()
        await self._rejudge()
        await self._join_resurfaced()
        findings = self._engine.conclude()
        if not findings.empty or self._recheck:
            await self._persist(findings)
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
        seen, rejections = self._decode(source, records)
        if rejections:
            by_offset = {record.offset: record for record in records}
            for rejection in rejections:
                self._outputs.reject(self.partition, by_offset[rejection.offset], rejection)
        self._raw.update(((source, record.offset), record) for record in records)
        batch = Slice(source=source, start=start, end=end, seen=seen, rejections=rejections)
        clock = self._ports.clock
        self._engine.feed(batch, clock.monotonic(), ceiling=clock.now() + self._config.clock_skew_max_s)

    def _decode(self, source: Source, records: Sequence[Record]) -> tuple[list[Seen], list[Rejection]]:
        """Decode, without the records that are known to make us fail."""
        aside = self._care.aside
        if not aside:
            return self._codec.decode(source, self.partition, records, self._engine.known)
        good = [record for record in records if (source, record.offset) not in aside]
        seen, rejections = self._codec.decode(source, self.partition, good, self._engine.known)
        detail = "a mistake of the verifier's: it cannot work with this record; please report it with the log"
        rejections += [
            Rejection(source=source, offset=record.offset, reason="internal_error", detail=detail)
            for record in records
            if (source, record.offset) in aside
        ]
        return seen, sorted(rejections, key=lambda rejection: rejection.offset)

    def _at_end(self) -> list[bool]:
        if self._ends is None or self._ports.clock.monotonic() - self._ends[0] > 5.0:
            return [False for _ in Source]
        return [end <= position for end, position in zip(self._ends[1], self._engine.positions, strict=True)]

    async def _ask_for_strays(self) -> None:
        """Records behind the watermark may belong to requests judged long ago: the tables know."""
        strays = self._engine.take_strays()
        if not strays:
            return
        request_ids = list({stray.event.request_id for stray in strays})
        found = await self._until_up(lambda: self._ports.tables.lookup(request_ids))
        for stray in strays:
            offset = found.get(stray.event.request_id)
            resolved = None if offset is None else await self._evidence.resolved_at(stray.event.request_id, offset)
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
            _log.error("judge_failed", request_id=failure.request_id, error=failure.error, place=failure.place)
        claims = [*self._recheck, *findings.claims]
        self._recheck = []
        entry = await self._with_conflicts(Entry(partition=self.partition, n=-1, worker="", at=0.0), claims)
        if findings.empty and not entry.conflicts and not entry.retracted:
            return
        for late in findings.late:
            record = self._raw.get((late.source, late.offset))
            if record is not None:
                self._outputs.late(self.partition, record, late)
        rejected = self._outputs.take_rejected()
        if rejected:
            await self._until_up(lambda: self._ports.publisher.publish(rejected))
        found = entry
        entry = self._engine.entry(
            findings,
            worker=config.worker,
            at=self._ports.clock.now(),
            published_n=self._engine.n,
            epoch=self._epoch,
        )
        entry = replace(
            entry,
            conflicts=found.conflicts,
            retracted=found.retracted,
            retracted_versions=found.retracted_versions,
        )
        await self._journal(entry)
        if config.log_conflicts:
            for conflict in entry.conflicts:
                _log.info(
                    "conflict", scope=conflict.scope, kind=conflict.kind, key=conflict.key,
                    winner=conflict.winner.request_id, loser=conflict.loser.request_id,
                )  # fmt: skip
        await self._check_versions(entry, claims)

    async def _with_conflicts(self, entry: Entry, claims: Sequence[Claim]) -> Entry:
        """Merge claims in, and note in the entry which conflicts that brings about or takes back."""
        if not claims:
            return entry
        config = self._config
        result = await self._until_up(lambda: self._ports.claims.apply(claims))
        await self._note_epoch(result.epoch)
        conflicts, retracted, versions = [], [], []
        touched = {(claim.scope, claim.key) for claim in claims}
        by_place: dict[tuple[str, str], list[Claim]] = {}
        contested = {(s.scope, s.key) for s in result.contested} & touched
        for claim in claims:
            if (claim.scope, claim.key) in contested:
                by_place.setdefault((claim.scope, claim.key), []).append(claim)
        for found in result.contested:
            one = (found.scope, found.key, found.version, found.claimants)
            made, gone = scan(
                [one],
                by_place.get((found.scope, found.key), ()),
                ttl_s=config.idempotency_ttl_s,
                conflict_timeout_s=config.conflict_timeout_s,
            )
            conflicts += made
            retracted += gone
            versions += [found.version] * len(gone)
        return replace(
            entry, conflicts=tuple(conflicts), retracted=tuple(retracted), retracted_versions=tuple(versions)
        )

    async def _journal(self, entry: Entry) -> None:
        """Journal an entry and derive everything from it; one beyond what the journal takes goes in several parts.

        All parts but the last say that nothing more is safe than before, so a crash between them reads the rest again.
        """
        parts = [entry]
        while parts:
            part = replace(parts.pop(), n=self._engine.n + 1)
            try:
                offset = await self._append(part)
            except EntryTooLarge as error:
                _log.warning("entry_too_large", partition=self.partition, requests=len(part.resolved), why=str(error))
                if len(part.resolved) > 1:
                    parts += reversed(halved(part, safe=self._safe or self._beginnings))
                else:
                    parts.append(laid_bare(part))
                continue
            self._engine.journaled(part)
            await self._derive(offset, part)

    async def _append(self, entry: Entry) -> int:
        """Append to the journal, and make sure that ours is the entry with this number."""
        offset = await self._until_up(lambda: self._ports.journal.append(entry))
        if offset != self._journal_end:
            between = await self._until_up(
                lambda: self._ports.journal.read(self.partition, self._journal_end, offset + 1)
            )
            numbered = next(((o, e) for o, e in valid_entries(between, after_n=entry.n - 1)), None)
            if numbered is None or numbered[1].worker != entry.worker or numbered[1].at != entry.at:
                raise Fenced(f"journal entry {entry.n} was written by another worker")
            self._journal_end = offset + 1
            return numbered[0]
        self._journal_end = offset + 1
        return offset

    async def _derive(self, offset: int, entry: Entry) -> None:
        """Bring an entry that is in the journal to everything derived from it."""
        messages = self._outputs.messages(entry)
        if messages:
            await self._until_up(lambda: self._ports.publisher.publish(messages))
        await self._ports.tables.put(self.partition, offset, entry)
        self._outputs.observe(entry, self._ports.clock.now())
        self._safe = entry.safe

    async def _check_versions(self, entry: Entry, claims: Sequence[Claim]) -> None:
        """Another worker may have found newer conflicts on a key while ours were on their way: then say ours again.

        Of two workers that publish about one key, the one that publishes last has thus seen all claims of both.
        """
        touched = {claimed_by(conflict): conflict.version for conflict in entry.conflicts}
        if not touched:
            return
        keys = list(touched)
        versions = await self._until_up(lambda: self._ports.claims.versions(keys))
        moved = {key for key, then, now in zip(keys, touched.values(), versions, strict=True) if now != then}
        self._recheck += [claim for claim in claims if (claim.scope, claim.key) in moved]

    async def _note_epoch(self, epoch: str) -> None:
        """Tell the claims' store this partition's claims of the last TTL again if it has lost its memory."""
        if epoch == self._epoch:
            return
        lost, self._epoch = self._epoch, epoch
        if not lost:
            return
        _log.warning("claims_lost_their_memory", partition=self.partition, telling_again=True)
        horizon = self._engine.watermark.value - self._config.idempotency_ttl_s
        first, end = await self._until_up(lambda: self._ports.journal.tail(self.partition))
        while end > first:
            start = max(first, end - READ_ENTRIES_MAX)
            entries = await self._until_up(
                lambda start=start, end=end: self._ports.journal.read(self.partition, start, end)  # type: ignore[misc]
            )
            claims = [c for _, entry in entries for c in entry.claims if c.claimant.ts >= horizon]
            if claims:
                await self._tell_again(claims)
            if entries and max(entry.at for _, entry in entries) + self._config.clock_skew_max_s < horizon:
                return
            end = start

    async def _tell_again(self, claims: Sequence[Claim]) -> None:
        """Merge old claims in; what they turn out to be in conflict with is looked into with the next step."""
        result = await self._until_up(lambda: self._ports.claims.apply(claims))
        contested = {(found.scope, found.key) for found in result.contested}
        again = [claim for claim in claims if (claim.scope, claim.key) in contested]
        room = max(0, RECHECK_MAX - len(self._recheck))
        if len(again) > room:
            _log.warning("conflicts_may_be_missed", partition=self.partition, claims=len(again) - room)
        self._recheck += again[:room]

    # -- recovery ------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Take up where the journal stands: what it resolved is known, what it left open is read again."""
        self._engine = self._make_engine(self.partition)
        self._raw.clear()
        self._recheck = []
        self._positions_at_ends = ()
        self._outputs.take_rejected()
        ports, partition = self._ports, self.partition
        position = await self._until_up(lambda: ports.tables.position(partition))

        async def take(offset: int, entry: Entry, lacking: bool) -> None:
            self._outputs.refold(entry)
            if lacking:
                await ports.tables.put(partition, offset, entry)

        chain = await self._until_up(lambda: read_chain(ports.journal, partition, position, take))
        self._journal_end = chain.end
        last = chain.last
        if last is None:
            self._engine.positions = list(await self._until_up(lambda: ports.records.beginnings(partition)))
            self._safe, self._beginnings = (), tuple(self._engine.positions)
            self.recovered, self.blocked = True, None
            return
        self._engine.restore(
            last, [(e.n, resolved) for _, e in chain.entries if e.n >= last.keep_n for resolved in e.resolved]
        )
        self._epoch = last.epoch
        await self._until_up(lambda: ports.publisher.publish(self._outputs.messages(last)))
        for source in Source:
            async for records in ports.records.read(source, partition, last.safe[source], last.positions[source]):
                seen, _ = self._codec.decode(source, partition, records, ())
                batch = Slice(source=source, start=records[0].offset, end=records[-1].offset + 1, seen=seen)
                self._engine.refeed(batch)
        self._safe = last.safe
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
