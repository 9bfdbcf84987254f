"""One partition index: from decoded records to journal entries. Pure: no clock, no I/O.

The engine is what live workers, replays, the offline command and the simulator all run. The caller feeds it slices of
the five sources in any order between them, tells it the time, fetches what it asks for, and journals what it concludes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from verifier.core.events import Rejection, Seen, Source, in_order
from verifier.core.join import Join, JoinConfig, Reopening
from verifier.core.journal import Entry, SourceCount
from verifier.core.outcome import Claim, Outcome, Resolved, Verdict
from verifier.core.requests import event_refs
from verifier.core.routes import OTHER
from verifier.core.verdict import PENDING_BOUND, Judge
from verifier.core.watermark import NEVER, Watermark


class Slice(Struct, frozen=True, kw_only=True):
    """The decoded records of offsets [start, end) of one source."""

    source: Source
    start: int
    end: int
    seen: Sequence[Seen]
    rejections: Sequence[Rejection] = ()


class Failure(Struct, frozen=True, kw_only=True):
    """A request that the judge could not judge: the error's type and the line it was raised at, without its text."""

    request_id: str
    error: str
    place: str


class Findings(Struct, frozen=True, kw_only=True):
    """What a batch came to, before conflicts are known: the makings of a journal entry.

    `late` are the late records, `failures` the requests to be logged because judging them failed.
    """

    counts: tuple[SourceCount, ...]
    resolved: tuple[Resolved, ...]
    claims: tuple[Claim, ...]
    late: tuple[Seen, ...]
    failures: tuple[Failure, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to journal."""
        return not self.counts and not self.resolved


class Engine:
    """The state of one partition index, from which everything is concluded."""

    def __init__(
        self,
        partition: int,
        join: JoinConfig,
        judge: Judge,
        watermark: Watermark,
        *,
        start: Sequence[int] = (),
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
        self._failures: list[Failure] = []
        self._finishing = False
        self._ceiling = float("inf")
        self._refed = [0 for _ in Source]
        self.positions = list(start) if start else [0 for _ in Source]
        self.n = -1
        self.event_time = NEVER
        """Everything due by this time is concluded: the watermark, unless more is due than is closed at once."""

    # -- input ---------------------------------------------------------------------------------------------

    @property
    def known(self) -> Container[str]:
        """Request ids whose partition has been checked."""
        return self.join.known

    def feed(self, batch: Slice, now: float, *, ceiling: float = float("inf")) -> None:
        """Take a slice. Slices of one source must follow one another.

        `now` is the monotonic clock. `ceiling` is the event time beyond which a record's time stamp is not believed to
        tell how far the source has come: the wall clock plus what clocks may be apart (Unix seconds).
        """
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
        self._ceiling = ceiling
        self._strays += self.join.add(source, batch.start, batch.seen, self.event_time, ceiling=ceiling)
        newest = max((seen.event.ts for seen in batch.seen), default=NEVER)
        self.watermark.observe(source, min(newest, ceiling), now)

    def refeed(self, batch: Slice) -> None:
        """Take a slice again that a former owner had journaled: nothing is counted, closed requests stay closed.

        What is of no request that `restore` knew is a stray: it was open then, or judged so long before that it was
        forgotten, which only the store can tell.
        """
        closed = self.join.is_closed
        records = [seen for seen in batch.seen if not closed(seen.event.request_id)]
        self._strays += self.join.add(batch.source, batch.start, records, float("inf"))

    def advance(self, now: float, at_end: Sequence[bool]) -> None:
        """Move event time on: `at_end` tells of each source whether it is read to its end."""
        for source, ended in enumerate(at_end):
            self.watermark.note_end(source, ended)
        self.event_time = self.join.advance(self.watermark.advance(now), self.event_time)

    @property
    def more_due(self) -> bool:
        """Whether requests are due that the last `advance` left open for being too many: `conclude`, and come again."""
        return self.event_time < self.watermark.value

    def finish(self) -> None:
        """Close everything, strays that are still to be asked for too: the end of a window of the past."""
        self._finishing = True

    # -- what needs the outside ----------------------------------------------------------------------------

    def take_strays(self) -> list[Seen]:
        """Hand over first records behind the watermark: ask the store whether their requests are known."""
        self.join.strays_taken()
        strays, self._strays = self._strays, []
        return strays

    def open(self, stray: Seen) -> None:
        """Take a stray of which the store knows nothing."""
        duplicates = self.join.duplicates[stray.source]
        self.join.open(stray, self.event_time, ceiling=self._ceiling)
        if self._is_refed(stray):
            self.join.duplicates[stray.source] = duplicates

    def recall(self, resolved: Resolved, stray: Seen) -> None:
        """Take a stray whose request had been forgotten: `resolved` is what the journal says of it."""
        self.join.recall(resolved, self.n + 1, max(self.event_time, resolved.outcome.ts))
        if not self._is_refed(stray):
            self.join.open(stray, self.event_time)

    def _is_refed(self, stray: Seen) -> bool:
        """Whether a former owner has read and journaled it: then what became of it is journaled, too."""
        return stray.offset < self._refed[stray.source]

    def take_reopenings(self) -> list[Reopening]:
        """Hand over requests to judge again: fetch their former records and call `rejudge`."""
        return self.join.take_reopening()

    def rejudge(self, reopening: Reopening, former: Sequence[Seen] | None) -> None:
        """Judge a reopened request again with its former records; None when they can be had no more."""
        if former is None:
            return
        old = reopening.resolved
        seen = in_order([*former, *reopening.seen])
        rev = old.rev + 1
        bound_hit = PENDING_BOUND in old.outcome.reasons
        outcome, claims = self._judged(reopening.request_id, seen, bound_hit=bound_hit)
        resolved = Resolved(outcome=outcome, events=event_refs(seen), rev=rev, was=old.outcome)
        self._conclude(resolved, seen, claims)

    def _judged(
        self, request_id: str, seen: Sequence[Seen], *, bound_hit: bool
    ) -> tuple[Outcome, Sequence[Claim]]:
        """Judge a request by its records, in order.

        A judge that fails on it must stop nothing, and must not be taken for agreement.
        """
        try:
            return self._judge.judge(request_id, seen, bound_hit=bound_hit)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the records are anybody's; the failure is kept, counted and told
            name = type(error).__name__
            self._failures.append(Failure(request_id=request_id, error=name, place=_place(error)))
            outcome = Outcome(
                request_id=request_id,
                ts=seen[0].event.ts,
                route=f"OTHER {OTHER}",
                verdict=Verdict.INCOMPARABLE.value,
                reasons=(f"judge_failed:{name}",),
            )
            return outcome, ()

    # -- output --------------------------------------------------------------------------------------------

    @property
    def only_counts(self) -> bool:
        """Whether there is nothing to conclude yet but how many records were read."""
        told = self._finishing or self._resolved or self._rejected or self._failures
        return not told and self.join.untouched

    def conclude(self) -> Findings:
        """Judge what closed, and hand over everything found since the last call."""
        if self._finishing:
            self._finishing = False
            self.join.finish()
        self.join.keep_within_bound()  # strays have been opened since `advance`
        for closing in self.join.take_closing():
            seen = in_order(closing.seen)
            outcome, claims = self._judged(closing.request_id, seen, bound_hit=closing.bound_hit)
            self._conclude(Resolved(outcome=outcome, events=event_refs(seen)), seen, claims)
        duplicate, late_seen = self.join.take_counts()
        late = Counter(seen.source for seen in late_seen)
        counts = tuple(
            self._source_count(source, duplicate[source], late[source])
            for source in Source
            if source in self._counts or duplicate[source] or late[source]
        )
        findings = Findings(
            counts=counts,
            resolved=tuple(self._resolved),
            claims=tuple(self._claims),
            late=tuple(late_seen),
            failures=tuple(self._failures),
        )
        self._resolved, self._claims, self._failures = [], [], []
        self._counts, self._rejected = {}, {}
        return findings

    def _source_count(self, source: Source, duplicate: int, late: int) -> SourceCount:
        start, end, records = self._counts.get(source, (self.positions[source], self.positions[source], 0))
        return SourceCount(int(source), start, end, records, self._rejected.get(source, {}), duplicate, late)

    def _conclude(self, resolved: Resolved, seen: Sequence[Seen], claims: Sequence[Claim]) -> None:
        """Keep what is concluded from records, which are given in order."""
        self._resolved.append(resolved)
        if resolved.rev > 0:
            claims = [replace(claim, revises=True) for claim in claims]
        self._claims += claims
        newest = min(seen[-1].event.ts, self._ceiling)
        self.join.settle(resolved, self.n + 1, max(self.event_time, newest))

    def entry(self, findings: Findings, *, worker: str, at: float, published_n: int, epoch: str) -> Entry:
        """Make the next journal entry of findings; its conflicts are still to be filled in."""
        return Entry(
            partition=self.partition,
            n=self.n + 1,
            worker=worker,
            at=at,
            counts=findings.counts,
            positions=tuple(self.positions),
            safe=self.join.safe_offsets(self.positions),
            keep_n=self.join.keep_n(self.n + 1),
            published_n=published_n,
            pending=self.join.pending,
            watermark=self.event_time if self.event_time != NEVER else 0.0,
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
        watermark = 0.0 if self.event_time == NEVER else self.event_time
        return watermark if oldest is None else min(watermark, oldest)

    # -- recovery ------------------------------------------------------------------------------------------

    def restore(self, last: Entry, tail: Iterable[tuple[int, Resolved]]) -> None:
        """Take up where the journal stands: `last` valid entry, and what the entries from `last.keep_n` on resolved.

        Afterwards the records from `last.safe` to `last.positions` are to be given to `refeed`.
        """
        self.n = last.n
        self.positions = list(last.positions)
        self._refed = list(last.positions)
        watermark = last.watermark or NEVER
        max_ts = [ts or NEVER for ts in last.max_ts]
        self.watermark.restore(watermark, max_ts)
        self.event_time = watermark
        newest = max(max_ts, default=NEVER)
        self.join.forget_until(newest)
        if newest != NEVER:
            self._ceiling = newest
        for n, resolved in tail:
            self.join.settle(resolved, n, max(watermark, resolved.outcome.ts))


def _place(error: Exception) -> str:
    """The file and line an error was raised at."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown"
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
