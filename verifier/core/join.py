"""When a request's evidence is complete: the state machine of the join.

Theory. A request is known by its id. Its records come from five sources in any order between the sources. What is
concluded from them (`verdict.judge`) is a pure function of the *set* of its records, so the join only decides
*when* to conclude; concluding early costs a revision, never a wrong final verdict.

Event time is not believed beyond a ceiling that the caller gives (the wall clock plus what clocks may be apart): a
deadline counts from there at most, so a record from a clock that is a day ahead does not stay open for a day.

A request is OPEN from its first record until it closes, then CLOSED for a while, then forgotten:

    state    input                                     next      effect
    ------   ---------------------------------------   -------   -----------------------------------------
    (none)   record of a time not yet forgotten        OPEN
    (none)   record behind the watermark, or as old    (none)    stray: the caller asks the store first; then
             as what the bound made us forget                    `open`, or `recall` if it had been judged
    OPEN     recalled: it had been judged before       CLOSED    its records count as records after the verdict
    OPEN     record with a digest already seen         OPEN      counted duplicate
    OPEN     record                                    OPEN      kept
    OPEN     all parts there, writes as announced      CLOSED    conclude
    OPEN     watermark >= settle deadline              CLOSED    conclude (writes unannounced, shed, unsampled)
    OPEN     watermark >= first event + join timeout   CLOSED    conclude (something is missing); for a stray the
                                                                 time runs from the watermark it was opened at
    OPEN     it is the oldest, and the bound is hit    CLOSED    conclude, marked `pending_bound`
    CLOSED   record, before the conclusion is drawn    CLOSED    as OPEN: kept, or counted duplicate
    CLOSED   record with a digest already seen         CLOSED    counted duplicate
    CLOSED   record                                    CLOSED    counted late; reopen: conclude again with it
    CLOSED   hold time passed, or the bound is hit     (none)    forgotten

Every input is possible in every state where the table names it; nothing else can reach the machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Sequence
from math import nextafter

from verifier.core.events import Seen, Source
from verifier.core.outcome import Resolved
from verifier.core.requests import (
    CANARY,
    EXCUSED,
    INFINITY,
    MAIN_PARTS,
    STALE_MIN,
    ClosedRequest,
    Closing,
    JoinConfig,
    OpenRequest,
    Reopening,
    Unfolded,
)
from verifier.core.runs import Run, Runs
from verifier.core.timeline import Timeline

__all__ = ["Closing", "Join", "JoinConfig", "Reopening"]


class Join:
    """The join of one partition index."""

    def __init__(self, config: JoinConfig) -> None:
        self._config = config
        self._needed = config.needed
        self._open: dict[str, OpenRequest] = {}
        self._closed: dict[str, ClosedRequest] = {}
        self._closed_order: deque[tuple[float, int, str]] = deque()
        self._forgotten_ts = float("-inf")
        self._stray_ids: set[str] = set()
        self._timers = Timeline()
        self._ages = Timeline()
        self._runs = Runs()
        self._unfolded = Unfolded(self._open, self._runs.run_of, config.unfolded_requests_max, config.packing)
        self._closing: dict[str, tuple[OpenRequest, bool]] = {}
        self._reopening: dict[str, dict[int, Seen]] = {}
        self.duplicates = [0 for _ in Source]
        self.late: list[Seen] = []

    # -- records -----------------------------------------------------------------------------------------

    def add(
        self,
        source: Source,
        first: int,
        records: Iterable[Seen],
        watermark: float,
        *,
        ceiling: float = float("inf"),
    ) -> list[Seen]:
        """Take the records of a source read at once, from offset `first` on; return the strays among them.

        A stray is the first record seen of its request and not newer than what may have been forgotten: its request
        may have been judged. Pass it to `open` once the store says that it was not, else to `recall`.
        """
        run = self._runs.begin(source, first)
        forgotten_ts = self._forgotten_ts
        strays: list[Seen] = []
        is_open, keep = self._open.get, self._keep
        for seen in records:
            request_id = seen.event.request_id
            request = is_open(request_id)
            if request is None:
                if request_id in self._closing or request_id in self._closed:
                    self._add_to_closed(request_id, seen)
                    continue
                if (
                    seen.event.ts < watermark
                    or seen.event.ts <= forgotten_ts
                    or request_id in self._stray_ids
                ):
                    strays.append(seen)
                    self._stray_ids.add(request_id)
                    continue
                request = self._new(seen, watermark, ceiling)
            else:
                if not request.in_line:
                    self._unfolded.add(request_id, request)
                if request.knows(seen.digest):
                    self.duplicates[source] += 1
                    continue
            keep(request, seen, run, ceiling)
        self._unfolded.shrink()
        return strays

    def open(self, seen: Seen, watermark: float, *, ceiling: float = float("inf")) -> None:
        """Open a request with a stray of which nothing is known, or add it where it has been opened since."""
        request_id = seen.event.request_id
        request = self._open.get(request_id)
        if request is None:
            if request_id in self._closing or request_id in self._closed:
                self._add_to_closed(request_id, seen)
                return
            request = self._new(seen, watermark, ceiling)
        else:
            if not request.in_line:
                self._unfolded.add(request_id, request)
            if request.knows(seen.digest):
                self.duplicates[seen.source] += 1
                return
        self._keep(request, seen, self._runs.run_of(seen), ceiling)
        self._unfolded.shrink()

    def recall(self, resolved: Resolved, n: int, closed_at: float) -> None:
        """Take a judged and forgotten request back; what was taken for its first records came after its verdict."""
        request_id = resolved.outcome.request_id
        if request_id in self._closed:
            return
        if request_id in self._open:
            self._close(request_id, self._open[request_id])
        closing = self._closing.pop(request_id, None)
        self.settle(resolved, n, closed_at)
        for seen in closing[0].seen if closing is not None else ():
            self._add_to_closed(request_id, seen)

    def forget_until(self, ts: float) -> None:
        """Note that requests with events up to `ts` may have been judged without our knowing."""
        self._forgotten_ts = max(self._forgotten_ts, ts)

    def strays_taken(self) -> None:
        """Note that the strays are being asked for: until then, further records of their requests join them."""
        self._stray_ids.clear()

    def _new(self, seen: Seen, watermark: float, ceiling: float) -> OpenRequest:
        request_id = seen.event.request_id
        request = self._open[request_id] = OpenRequest(seen.event.ts, watermark)
        self._set_deadline(request, request_id, ceiling)
        self._ages.push(seen.event.ts, request_id)
        self._unfolded.add(request_id, request)
        return request

    def _set_deadline(self, request: OpenRequest, request_id: str, ceiling: float) -> None:
        deadline = max(min(request.first_ts, ceiling), request.floor) + self._config.join_timeout_s
        if deadline < request.deadline:
            request.deadline = deadline
            self._timers.push(deadline, request_id)

    def _add_to_closed(self, request_id: str, seen: Seen) -> None:
        closing = self._closing.get(request_id)
        if closing is not None:
            if closing[0].knows(seen.digest):
                self.duplicates[seen.source] += 1
            else:
                closing[0].take(seen)
            return
        new = self._reopening.get(request_id, {})
        if self._closed[request_id].knows(seen.digest) or seen.digest in new:
            self.duplicates[seen.source] += 1
            return
        self.late.append(seen)
        self._reopening.setdefault(request_id, new)[seen.digest] = seen

    def _keep(self, request: OpenRequest, seen: Seen, run: Run, ceiling: float) -> None:
        event = seen.event
        ts = event.ts
        request.take(seen)
        request.runs.append(run)
        run.open += 1
        if ts > request.last_ts:
            request.last_ts = ts
        elif ts < request.first_ts:
            request.first_ts = ts
            self._set_deadline(request, event.request_id, ceiling)
            self._ages.push(ts, event.request_id)
        request.learn(event)
        self._consider(request, event.request_id)

    def _consider(self, request: OpenRequest, request_id: str) -> None:
        """Close the request if nothing more is to come, or set the time until which unannounced parts may come."""
        mask, needed = request.mask, self._needed
        main = other = True  # whose writes are waited for
        if mask & CANARY:
            both = self._config.expect_edge and self._config.expect_responses
            needed, main = CANARY if both else mask & CANARY, False
        elif mask & EXCUSED:
            needed, other = needed & MAIN_PARTS, False
        there = mask & needed == needed
        if there or mask & EXCUSED:
            told, told_other = request.announced_main, request.announced_other
            awaited = (main and told > request.writes_main) or (other and told_other > request.writes_other)
            if there and not awaited and (told >= 0 or not main) and (told_other >= 0 or not other):
                self._close(request_id, request)
                return
            if mask & EXCUSED or not awaited:
                settle_at = max(request.last_ts, request.floor) + self._config.write_settle_s
                if settle_at != request.settle_at:
                    request.settle_at = settle_at
                    self._timers.push(settle_at, request_id)
                return
        request.settle_at = INFINITY

    # -- time --------------------------------------------------------------------------------------------

    def advance(self, watermark: float, event_time: float = float("-inf")) -> float:
        """Move event time on from `event_time`, which was reached last, towards `watermark`.

        That closes what is due by it, forgets what was held long enough, and keeps within the bounds.

        Only so much is closed at once. Returns the event time that was reached: it is `watermark` unless more is due.
        """
        timers, is_open = self._timers, self._open.get
        timer = timers.first()
        due_left = self._config.due_at_once_max
        while timer is not None and timer[0] <= watermark:
            if due_left <= 0 and timer[0] > event_time:
                watermark = nextafter(timer[0], event_time)
                break
            due_left -= 1
            timers.pop()
            due, request_id = timer
            request = is_open(request_id)
            if request is not None and due == min(request.deadline, request.settle_at):
                self._close(request_id, request)
            timer = timers.first()
        self.keep_within_bound()
        self._forget(watermark)
        self._tidy()
        return watermark

    def keep_within_bound(self) -> None:
        """Close the oldest requests beyond the bound."""
        while len(self._open) > self._config.pending_requests_max:
            oldest = self._oldest()
            if oldest is None:
                raise AssertionError("every open request has its age")
            self._close(oldest, self._open[oldest], bound_hit=True)

    def finish(self) -> None:
        """Close every open request: the window's end in a replay."""
        for request_id in list(self._open):
            self._close(request_id, self._open[request_id])

    def _close(self, request_id: str, request: OpenRequest, *, bound_hit: bool = False) -> None:
        del self._open[request_id]
        self._unfolded.remove(request)
        for run in request.runs:
            run.open -= 1
        self._closing[request_id] = (request, bound_hit)

    def _forget(self, watermark: float) -> None:
        order = self._closed_order
        horizon = watermark - self._config.closed_hold_s
        while order and (order[0][0] < horizon or len(self._closed) > self._config.closed_requests_max):
            closed_at, n, request_id = order[0]
            if request_id in self._reopening:  # it is about to be judged again
                return
            order.popleft()
            held = self._closed.get(request_id)
            if held is not None and held.n == n:
                del self._closed[request_id]
                self._forgotten_ts = max(self._forgotten_ts, closed_at)

    def _tidy(self) -> None:
        """Drop what is stale in the heaps and runs once it is most of them: their size follows the open requests."""
        most = 4 * len(self._open) + STALE_MIN
        if len(self._timers) > most:
            self._timers.keep(self._is_due)
        if len(self._ages) > most:
            self._ages.replace((request.first_ts, request_id) for request_id, request in self._open.items())
        self._runs.tidy(most)

    def _is_due(self, timer: tuple[float, str]) -> bool:
        request = self._open.get(timer[1])
        return request is not None and timer[0] in (request.deadline, request.settle_at)

    # -- results -----------------------------------------------------------------------------------------

    def take_closing(self) -> list[Closing]:
        """Hand over the requests to be judged now. Each must come back through `settle`."""
        closing, self._closing = self._closing, {}
        return [Closing(request_id=i, seen=tuple(r.seen), bound_hit=hit) for i, (r, hit) in closing.items()]

    def take_reopening(self) -> list[Reopening]:
        """Hand over the closed requests that got new records. Each must come back through `settle`."""
        reopening, self._reopening = self._reopening, {}
        closed = self._closed
        return [
            Reopening(request_id=i, resolved=closed[i].resolved, seen=tuple(seen.values()))
            for i, seen in reopening.items()
        ]

    def settle(self, resolved: Resolved, n: int, closed_at: float) -> None:
        """Note what was concluded of a request in journal entry `n`.

        `closed_at` is the watermark then, or the request's newest event if that is ahead: a request is held until it is
        far enough behind the watermark for its records to be known as strays.
        """
        request_id = resolved.outcome.request_id
        self._closed[request_id] = ClosedRequest(resolved, n)
        self._closed_order.append((closed_at, n, request_id))

    def take_counts(self) -> tuple[list[int], list[Seen]]:
        """Hand over the number of duplicates by source, and the late records, since the last call."""
        counts = self.duplicates, self.late
        self.duplicates = [0 for _ in Source]
        self.late = []
        return counts

    # -- state -------------------------------------------------------------------------------------------

    @property
    def untouched(self) -> bool:
        """Whether nothing has closed since it was last taken, nor repeated itself or come late."""
        beyond = len(self._open) > self._config.pending_requests_max
        return not (self._closing or self._reopening or self.late or any(self.duplicates) or beyond)

    @property
    def pending(self) -> int:
        """Number of open requests."""
        return len(self._open)

    def oldest_open_ts(self) -> float | None:
        """Event time of the first record of the oldest open request, or None when none is open."""
        oldest = self._oldest()
        return None if oldest is None else self._open[oldest].first_ts

    def _oldest(self) -> str | None:
        ages = self._ages
        while (age := ages.first()) is not None:
            ts, request_id = age
            request = self._open.get(request_id)
            if request is not None and request.first_ts == ts:
                return request_id
            ages.pop()
        return None

    def safe_offsets(self, positions: Sequence[int]) -> tuple[int, ...]:
        """For each source the offset below which no open request needs a record; `positions` are read next."""
        return self._runs.safe_offsets(positions)

    def keep_n(self, current: int) -> int:
        """Number of the oldest journal entry whose requests are still held, at most `current`."""
        while self._closed_order:
            _, n, request_id = self._closed_order[0]
            held = self._closed.get(request_id)
            if held is not None and held.n == n:
                return min(n, current)
            self._closed_order.popleft()
        return current

    @property
    def known(self) -> Container[str]:
        """Request ids of open requests."""
        return self._open

    def is_closed(self, request_id: str) -> bool:
        """Whether a request is closed and still held."""
        return request_id in self._closed
