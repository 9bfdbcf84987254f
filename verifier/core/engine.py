"""One partition index: from decoded records to journal entries. Pure: no clock, no I/O.

The engine is what live workers, replays, the offline command and the simulator all run. The caller feeds it slices of
the five sources in any order between them, tells it the time, fetches what it asks for, and journals what it concludes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence

import msgspec
from msgspec import Struct

from verifier.core.events import Rejection, Seen, Source
from verifier.core.join import Join, JoinConfig, Reopening, event_refs
from verifier.core.journal import Entry, SourceCount
from verifier.core.outcome import Claim, Resolved
from verifier.core.verdict import Judge
from verifier.core.watermark import NEVER, Watermark


class Slice(Struct, frozen=True, kw_only=True):
    """The decoded records of offsets [start, end) of one source."""

    source: Source
    start: int
    end: int
    seen: Sequence[Seen]
    rejections: Sequence[Rejection] = ()


class Findings(Struct, frozen=True, kw_only=True):
    """What a batch came to, before conflicts are known: the makings of a journal entry; `late` are the late records."""

    counts: tuple[SourceCount, ...]
    resolved: tuple[Resolved, ...]
    claims: tuple[Claim, ...]
    late: tuple[Seen, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to journal."""
        return not self.counts and not self.resolved


class Engine:
    """The state of one partition index, from which everything is concluded."""

    def __init__(
        self, partition: int, join: JoinConfig, judge: Judge, watermark: Watermark, *, start: Sequence[int] = ()
    ) -> None:
        self.partition = partition
        self.join = Join(join)
        self.watermark = watermark
        self._judge = judge
        self._strays: list[Seen] = []
        self._resolved: list[Resolved] = []
        self._claims: list[Claim] = []
        self._counts: dict[Source, list[int]] = {}
        self._rejected: dict[Source, dict[str, int]] = {}
        self._newest_ts = NEVER
        self.positions = list(start) if start else [0 for _ in Source]
        self.n = -1

    # -- input ---------------------------------------------------------------------------------------------

    @property
    def known(self) -> Container[str]:
        """Request ids whose partition has been checked."""
        return self.join.known

    def feed(self, batch: Slice, now: float) -> None:
        """Take a slice. Slices of one source must follow one another."""
        source = batch.source
        if batch.start < self.positions[source]:
            raise ValueError(f"{source.name}: slice from {batch.start}, but {self.positions[source]} is next")
        records = len(batch.seen) + len(batch.rejections)
        if source in self._counts:
            self._counts[source][1:] = [batch.end, self._counts[source][2] + records]
        else:
            self._counts[source] = [self.positions[source], batch.end, records]
        self.positions[source] = batch.end
        for rejection in batch.rejections:
            reasons = self._rejected.setdefault(source, {})
            reasons[rejection.reason] = reasons.get(rejection.reason, 0) + 1
        self._strays += self.join.add(source, batch.start, batch.end, batch.seen, self.watermark.value)
        newest = max((seen.event.ts for seen in batch.seen), default=NEVER)
        self.watermark.observe(source, newest, now)

    def refeed(self, batch: Slice) -> None:
        """Take a slice again that a former owner had journaled: nothing is counted, closed requests stay closed."""
        closed = self.join.is_closed
        records = [seen for seen in batch.seen if closed(seen.event.request_id) is None]
        self.join.add(batch.source, batch.start, batch.end, records, NEVER)
        self.join.take_counts()

    def advance(self, now: float, at_end: Sequence[bool]) -> None:
        """Move event time on: `at_end` tells of each source whether it is read to its end."""
        for source, ended in enumerate(at_end):
            self.watermark.note_end(source, ended)
        self.join.advance(self.watermark.advance(now))

    def finish(self) -> None:
        """Close everything: the end of a window of the past."""
        self.join.finish()

    # -- what needs the outside ----------------------------------------------------------------------------

    def take_strays(self) -> list[Seen]:
        """Hand over first records behind the watermark: ask the store whether their requests are known."""
        strays, self._strays = self._strays, []
        return strays

    def open(self, stray: Seen) -> None:
        """Take a stray of which the store knows nothing."""
        self.join.open(stray, self.watermark.value)

    def recall(self, resolved: Resolved, stray: Seen) -> None:
        """Take a stray whose request had been forgotten: `resolved` is what the journal says of it."""
        if self.join.is_closed(resolved.outcome.request_id) is None:
            self.join.settle(resolved, self.n + 1, self.watermark.value)
        self.join.open(stray, self.watermark.value)

    def take_reopenings(self) -> list[Reopening]:
        """Hand over requests to judge again: fetch their former records and call `rejudge`."""
        return self.join.take_reopening()

    def rejudge(self, reopening: Reopening, former: Sequence[Seen] | None) -> None:
        """Judge a reopened request again with its former records; None when they can be had no more."""
        if former is None:
            return
        old = reopening.resolved
        seen = [*former, *reopening.seen]
        outcome, claims = self._judge.judge(reopening.request_id, seen)
        rev = old.rev + 1
        resolved = Resolved(outcome=outcome, events=event_refs(seen), rev=rev, was=old.outcome)
        self._conclude(resolved, [msgspec.structs.replace(claim, rev=rev) for claim in claims])

    # -- output --------------------------------------------------------------------------------------------

    def conclude(self) -> Findings:
        """Judge what closed, and hand over everything found since the last call."""
        for closing in self.join.take_closing():
            outcome, claims = self._judge.judge(closing.request_id, closing.seen, bound_hit=closing.bound_hit)
            self._conclude(Resolved(outcome=outcome, events=event_refs(closing.seen)), claims)
        duplicate, late_seen = self.join.take_counts()
        late = Counter(seen.source for seen in late_seen)
        counts = tuple(
            self._source_count(source, duplicate[source], late[source])
            for source in Source
            if source in self._counts or duplicate[source] or late[source]
        )
        findings = Findings(counts=counts, resolved=tuple(self._resolved), claims=tuple(self._claims), late=tuple(late_seen))
        self._resolved, self._claims, self._counts, self._rejected = [], [], {}, {}
        return findings

    def _source_count(self, source: Source, duplicate: int, late: int) -> SourceCount:
        start, end, records = self._counts.get(source, (self.positions[source], self.positions[source], 0))
        return SourceCount(int(source), start, end, records, self._rejected.get(source, {}), duplicate, late)

    def _conclude(self, resolved: Resolved, claims: list[Claim]) -> None:
        self._resolved.append(resolved)
        self._claims += claims
        self.join.settle(resolved, self.n + 1, self.watermark.value)

    def entry(self, findings: Findings, *, worker: str, at: float, published_n: int, epoch: str) -> Entry:
        """Make the next journal entry of findings; its conflicts are still to be filled in."""
        return Entry(
            partition=self.partition,
            n=self.n + 1,
            worker=worker,
            at=at,
            counts=findings.counts,
            positions=tuple(self.positions),
            safe=self.join.safe_offsets(),
            keep_n=self.join.keep_n(self.n + 1),
            published_n=published_n,
            pending=self.join.pending,
            watermark=self.watermark.value if self.watermark.value != NEVER else 0.0,
            verified_through=self.verified_through,
            max_ts=tuple(ts if ts != NEVER else 0.0 for ts in self.watermark.max_ts),
            resolved=findings.resolved,
            claims=findings.claims,
            epoch=epoch,
        )

    def journaled(self, entry: Entry) -> None:
        """Note that `entry` is in the journal for good."""
        if entry.n != self.n + 1:
            raise ValueError(f"journal entry {entry.n} of partition {self.partition} follows {self.n}")
        self.n = entry.n

    @property
    def verified_through(self) -> float:
        """Event time up to which every request read has its verdict."""
        oldest = self.join.oldest_open_ts()
        watermark = 0.0 if self.watermark.value == NEVER else self.watermark.value
        return watermark if oldest is None else min(watermark, oldest)

    # -- recovery ------------------------------------------------------------------------------------------

    def restore(self, last: Entry, tail: Iterable[tuple[int, Resolved]]) -> None:
        """Take up where the journal stands: `last` valid entry, and what the entries from `last.keep_n` on resolved.

        Afterwards the records from `last.safe` to `last.positions` are to be given to `refeed`.
        """
        self.n = last.n
        self.positions = list(last.positions)
        watermark = last.watermark or NEVER
        self.watermark.restore(watermark, [ts or NEVER for ts in last.max_ts])
        for n, resolved in tail:
            self.join.settle(resolved, n, watermark)
