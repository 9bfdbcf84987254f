"""What is counted: verdicts, statuses, latencies, fields, records. Whole numbers, so that nothing is lost.

An outcome's share in the counts is a value of its own (`Counted`), stored beside its verdict. Taking a
verdict back is adding the same share with the sign reversed, so revisions leave no trace; latencies are whole
microseconds for that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import TypeVar

from msgspec import Struct

from verifier.core.outcome import Outcome
from verifier.core.storable import bounded_text

# Upper bounds of the latency buckets in microseconds: 1 ms to 65.5 s, each the last one times the square root
# of two; one more bucket takes what is longer. Interpolating in such a bucket errs by a fifth at the very
# worst. Stored histograms follow these bounds, so changing them needs a migration.
LATENCY_BOUNDS_US: tuple[int, ...] = tuple(round(1000 * 2 ** (step / 2)) for step in range(33))
LATENCY_BUCKETS = len(LATENCY_BOUNDS_US) + 1
_LATENCY_MAX_S = 1e6
_CLASS_OF_STATUS: dict[int | None, str] = {status: f"{status // 100}xx" for status in range(100, 600)}
_CLASS_OF_STATUS[None] = "none"

SideCount = tuple[str, str, int | None]
FieldSeen = tuple[str, str, str, bool]
K = TypeVar("K")


class Counted(Struct, frozen=True, array_like=True, gc=False):
    """One outcome's share in the counts.

    `sides` are (side, status class, latency in microseconds or None), `fields` the distinct (kind, field,
    change, ignored) of its differences.
    """

    sides: tuple[SideCount, ...] = ()
    fields: tuple[FieldSeen, ...] = ()


class SideStat(Struct, gc=False):
    """How one side answered on one route with one class of status; `buckets` counts latencies."""

    n: int
    latency_sum_us: int
    buckets: list[int]


class FieldStat(Struct, gc=False):
    """Requests in which a field differed and decided (`n`), or was explained by a rule (`ignored`).

    `first_ts` and `last_ts` are the extremes of event times ever seen; taking a verdict back does not narrow
    them.
    """

    n: int
    ignored: int
    first_ts: float
    last_ts: float


class RecordCount(Struct, gc=False):
    """Records of one source by their fate."""

    records: int = 0
    rejected: int = 0
    duplicate: int = 0
    late: int = 0

    def add(self, other: RecordCount) -> None:
        """Add the other's numbers."""
        self.records += other.records
        self.rejected += other.rejected
        self.duplicate += other.duplicate
        self.late += other.late


def status_class(status: int | None) -> str:
    """`2xx` and so on; `none` without a status, `other` outside 100 to 599."""
    return _CLASS_OF_STATUS.get(status, "other")


def counted_of(outcome: Outcome) -> Counted:
    """The outcome's share in the counts."""
    fields: tuple[FieldSeen, ...] = ()
    if outcome.differences or outcome.ignored:
        seen = dict.fromkeys((d.kind, bounded_text(d.field), d.change, False) for d in outcome.differences)
        seen |= dict.fromkeys((d.kind, bounded_text(d.field), d.change, True) for d in outcome.ignored)
        fields = tuple(seen)
    of_status = _CLASS_OF_STATUS.get
    return Counted(
        tuple(
            [
                (
                    facts.side,
                    of_status(facts.status, "other"),
                    int(latency_s * 1e6 + 0.5)
                    if (latency_s := facts.latency_s) is not None and 0 <= latency_s < _LATENCY_MAX_S
                    else None,
                )
                for facts in outcome.sides
            ]
        ),
        fields,
    )


class Counts:
    """Counts by their keys; `add` and `count` are the only ways to change them."""

    __slots__ = ("fields", "records", "rejected", "sides", "verdicts")

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, str], int] = {}  # (route, verdict)
        self.sides: dict[tuple[str, str, str], SideStat] = {}  # (route, side, status class)
        self.fields: dict[tuple[str, str, str, str], FieldStat] = {}  # (route, kind, field, change)
        self.records: dict[int, RecordCount] = {}  # source number
        self.rejected: dict[tuple[int, str], int] = {}  # (source number, reason)

    def count(self, route: str, verdict: str, counted: Counted, ts: float) -> None:
        """Count an outcome of event time `ts`."""
        self._shift(route, verdict, counted, 1)
        for kind, field, change, _ in counted.fields:
            stat = self.fields[route, kind, field, change]
            stat.first_ts = min(stat.first_ts, ts)
            stat.last_ts = max(stat.last_ts, ts)

    def take_back(self, route: str, verdict: str, counted: Counted) -> None:
        """Undo a `count`, whether it was made here or in what these counts will be added to."""
        self._shift(route, verdict, counted, -1)

    def give_back(self, route: str, verdict: str, counted: Counted) -> None:
        """Undo a `take_back`."""
        self._shift(route, verdict, counted, 1)

    def _shift(self, route: str, verdict: str, counted: Counted, sign: int) -> None:
        verdicts, key = self.verdicts, (route, verdict)
        verdicts[key] = verdicts.get(key, 0) + sign
        for side, status, latency_us in counted.sides:
            answer = (route, side, status)
            stat = self.sides.get(answer)
            if stat is None:
                stat = self.sides[answer] = SideStat(0, 0, [0] * LATENCY_BUCKETS)
            stat.n += sign
            if latency_us is not None:
                stat.latency_sum_us += sign * latency_us
                stat.buckets[bisect_left(LATENCY_BOUNDS_US, latency_us)] += sign
        for kind, field, change, ignored in counted.fields:
            seen = self.fields.get((route, kind, field, change))
            if seen is None:
                seen = self.fields[route, kind, field, change] = FieldStat(0, 0, float("inf"), float("-inf"))
            if ignored:
                seen.ignored += sign
            else:
                seen.n += sign

    def add(self, other: Counts) -> None:
        """Add the other's counts; the other stays as it is."""
        _add_numbers(self.verdicts, other.verdicts)
        _add_numbers(self.rejected, other.rejected)
        for side_key, stat in other.sides.items():
            mine = self.sides.setdefault(side_key, SideStat(0, 0, [0] * LATENCY_BUCKETS))
            mine.n += stat.n
            mine.latency_sum_us += stat.latency_sum_us
            mine.buckets = [a + b for a, b in zip(mine.buckets, stat.buckets, strict=True)]
        for field_key, seen in other.fields.items():
            known = self.fields.setdefault(field_key, FieldStat(0, 0, float("inf"), float("-inf")))
            known.n += seen.n
            known.ignored += seen.ignored
            known.first_ts = min(known.first_ts, seen.first_ts)
            known.last_ts = max(known.last_ts, seen.last_ts)
        for source, records in other.records.items():
            self.records.setdefault(source, RecordCount()).add(records)


def _add_numbers(totals: dict[K, int], more: Mapping[K, int]) -> None:
    for key, n in more.items():
        totals[key] = totals.get(key, 0) + n
