"""What the join waits for and keeps of a request: evidence while it is open, the conclusion once it is closed."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from verifier.core.events import Seen
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
_SCANNED_MAX = 16  # records of a request among which a digest is looked for one by one; beyond, by a set


class JoinConfig(Struct, frozen=True, kw_only=True):
    """How long and how much the join keeps. Durations in seconds of event time; bounds for each partition.

    `due_at_once_max`: how many requests are closed at once because of the time; judging them keeps all else waiting.
    """

    join_timeout_s: float = 30.0
    write_settle_s: float = 2.0
    expect_edge: bool = True
    expect_responses: bool = True
    closed_hold_s: float = 60.0
    closed_requests_max: int = 200_000
    pending_requests_max: int = 500_000
    due_at_once_max: int = 1_000

    @property
    def needed(self) -> int:
        """Bits of the parts that a mirrored request must show."""
        bits = EDGE_MAIN | EDGE_SHADOW if self.expect_edge else 0
        return bits | (RESPONSE_MAIN | RESPONSE_SHADOW if self.expect_responses else 0)


class OpenRequest:
    """An open request. What main's side announced and wrote is kept apart from the new system's (`other`).

    `floor` is the watermark at its opening: event time that had passed then does not count against it.
    """

    __slots__ = (
        "announced_main",
        "announced_other",
        "deadline",
        "digests",
        "first_ts",
        "floor",
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


class ClosedRequest:
    """A closed request, the number of the journal entry that says so, and what has come since."""

    __slots__ = ("digests", "n", "resolved")

    def __init__(self, resolved: Resolved, n: int) -> None:
        self.resolved = resolved
        self.n = n
        self.digests: set[int] | None = None

    def knows(self, digest: int) -> bool:
        """Whether a record of this content was part of the evidence."""
        events = self.resolved.events
        if len(events) <= _SCANNED_MAX:
            return any(ref.digest == digest for ref in events)
        if self.digests is None:
            self.digests = {ref.digest for ref in events}
        return digest in self.digests


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
