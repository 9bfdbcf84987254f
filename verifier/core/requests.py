"""What the join waits for and keeps of a request: evidence while it is open, the conclusion once it is closed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from verifier.core.events import Edge, Event, Response, Seen
from verifier.core.folding import UNPACKED, Packing, events_of, fold, fold_resolved, unfold, unfold_resolved
from verifier.core.outcome import EventRef, Resolved
from verifier.core.runs import Run

# The parts of a request that have been seen, as bits of `OpenRequest.mask`.
EDGE_MAIN, EDGE_SHADOW, RESPONSE_MAIN, RESPONSE_SHADOW, EDGE_CANARY, RESPONSE_CANARY, EXCUSED = (
    1 << bit for bit in range(7)
)
EDGE_BIT = {"main": EDGE_MAIN, "shadow": EDGE_SHADOW, "canary": EDGE_CANARY}
RESPONSE_BIT = {"main": RESPONSE_MAIN, "shadow": RESPONSE_SHADOW, "canary": RESPONSE_CANARY, "reference": 0}
CANARY = EDGE_CANARY | RESPONSE_CANARY
MAIN_PARTS = EDGE_MAIN | RESPONSE_MAIN
UNANNOUNCED = -1
INFINITY = float("inf")
STALE_MIN = 1024  # stale items that are not worth tidying
_SCANNED_MAX = 16  # records of a request among which a digest is looked for one by one; beyond, by a set


class JoinConfig(Struct, frozen=True, kw_only=True):
    """How long and how much the join keeps. Durations in seconds of event time; bounds for each partition.

    `due_at_once_max`: how many requests are closed at once because of the time; judging them keeps all else waiting.
    Of the open requests about `unfolded_requests_max` hold their records as they were read, the older ones as
    text, packed by `packing`.
    """

    join_timeout_s: float = 30.0
    write_settle_s: float = 2.0
    expect_edge: bool = True
    expect_responses: bool = True
    closed_hold_s: float = 60.0
    closed_requests_max: int = 200_000
    pending_requests_max: int = 500_000
    due_at_once_max: int = 1_000
    unfolded_requests_max: int = 5_000
    packing: Packing = UNPACKED

    @property
    def needed(self) -> int:
        """Bits of the parts that a mirrored request must show."""
        bits = EDGE_MAIN | EDGE_SHADOW if self.expect_edge else 0
        return bits | (RESPONSE_MAIN | RESPONSE_SHADOW if self.expect_responses else 0)


class OpenRequest:
    """An open request. What main's side announced and wrote is kept apart from the new system's (`other`).

    `floor` is the watermark at its opening: event time that had passed then does not count against it.
    Once it has been `folded` into a text it has no `seen` and `runs`, until it is unfolded; see `Unfolded`.
    """

    __slots__ = (
        "announced_main",
        "announced_other",
        "deadline",
        "digests",
        "first_ts",
        "floor",
        "folded",
        "in_line",
        "last_ts",
        "mask",
        "runs",
        "seen",
        "settle_at",
        "writes_main",
        "writes_other",
    )

    def __init__(self, ts: float, floor: float) -> None:
        self.seen: list[Seen] = []
        self.folded: bytes | None = None
        self.in_line = False
        self.digests: set[int] | None = None
        self.runs: list[Run] = []
        self.mask = 0
        self.first_ts = ts
        self.last_ts = ts
        self.floor = floor
        self.deadline = INFINITY
        self.settle_at = INFINITY
        self.announced_main = UNANNOUNCED
        self.announced_other = UNANNOUNCED
        self.writes_main = 0
        self.writes_other = 0

    def knows(self, digest: int) -> bool:
        """Whether a record of this content has been read."""
        if self.digests is not None:
            return digest in self.digests
        for known in self.seen:  # noqa: SIM110 - `any` costs three times this, for every record
            if known.digest == digest:
                return True
        return False

    def take(self, seen: Seen) -> None:
        """Add a record to the evidence."""
        self.seen.append(seen)
        if self.digests is not None:
            self.digests.add(seen.digest)
        elif len(self.seen) > _SCANNED_MAX:
            self.digests = {known.digest for known in self.seen}

    def learn(self, event: Event) -> None:
        """Note which part of the request has been seen, and what it says of others."""
        side = event.side
        if isinstance(event, Response):
            self.mask |= RESPONSE_BIT[side]
            announced = UNANNOUNCED if event.writes is None else event.writes
            if side == "main":
                self.announced_main = max(self.announced_main, announced)
            elif side != "reference":
                self.announced_other = max(self.announced_other, announced)
        elif isinstance(event, Edge):
            self.mask |= EDGE_BIT[side]
            if event.shed or not event.sampled:
                self.mask |= EXCUSED
        elif side == "main":
            self.writes_main += 1
        elif side != "reference":
            self.writes_other += 1

    def fold(self, packing: Packing) -> None:
        """Hold the records as a text, unless they are many: unfolding has to be cheap whenever one is added."""
        if self.digests is None:
            self.folded = fold(self.seen, packing)
            del self.seen, self.runs

    def unfold(self, run_of: Callable[[Seen], Run], packing: Packing) -> None:
        """Hold the records as they were read."""
        if self.folded is not None:
            self.seen = unfold(self.folded, packing)
            self.runs = [run_of(seen) for seen in self.seen]
            self.folded = None


class Unfolded:
    """The open requests whose records are held as they were read; beyond `most` the oldest of them are folded.

    Those that wait for what will not come soon are many and get nothing new; the others are folded rarely, if ever.
    """

    __slots__ = ("_line", "_most", "_number", "_open", "_packing", "_run_of")

    def __init__(
        self, is_open: Mapping[str, OpenRequest], run_of: Callable[[Seen], Run], most: int, packing: Packing
    ) -> None:
        self._open = is_open
        self._run_of = run_of
        self._most = most
        self._packing = packing
        self._line: deque[str] = deque()
        self._number = 0

    def add(self, request_id: str, request: OpenRequest) -> None:
        """Put an open request at the end of the line, ready for another record."""
        request.unfold(self._run_of, self._packing)
        request.in_line = True
        self._line.append(request_id)
        self._number += 1

    def remove(self, request: OpenRequest) -> None:
        """Note that a request is open no more; it is left as it was read."""
        request.unfold(self._run_of, self._packing)
        if request.in_line:
            request.in_line = False
            self._number -= 1

    def shrink(self) -> None:
        """Keep within the bound."""
        line = self._line
        while self._number > self._most:
            request = self._open.get(line.popleft())
            if request is not None and request.in_line:
                request.in_line = False
                self._number -= 1
                request.fold(self._packing)
        if len(line) > 4 * self._number + STALE_MIN:  # most have been closed
            in_line = [i for i in line if (request := self._open.get(i)) is not None and request.in_line]
            self._line = deque(dict.fromkeys(in_line))

    def __len__(self) -> int:
        return len(self._line)


class ClosedRequest:
    """A closed request: what was concluded, as a text, and the number of the journal entry that says so."""

    __slots__ = ("_digests", "_text", "n")

    def __init__(self, resolved: Resolved, n: int) -> None:
        self._text = fold_resolved(resolved)
        self._digests: set[int] | None = None
        self.n = n

    @property
    def resolved(self) -> Resolved:
        """What was concluded."""
        return unfold_resolved(self._text)

    def knows(self, digest: int) -> bool:
        """Whether a record of this content was part of the evidence."""
        digests = self._digests
        if digests is None:
            digests = {ref.digest for ref in events_of(self._text)}
            if len(digests) > _SCANNED_MAX:
                self._digests = digests
        return digest in digests


class Closing(Struct, frozen=True, kw_only=True, gc=False):
    """A request whose evidence is to be judged now. `bound_hit`: closed early to keep within the bound."""

    request_id: str
    seen: tuple[Seen, ...]
    bound_hit: bool = False


class Reopening(Struct, frozen=True, kw_only=True, gc=False):
    """A closed request that got new records: its former records lie at `resolved.events`."""

    request_id: str
    resolved: Resolved
    seen: tuple[Seen, ...]


def event_refs(seen: Sequence[Seen]) -> tuple[EventRef, ...]:
    """The places of records."""
    return tuple([EventRef(int(item.source), item.offset, item.digest) for item in seen])
