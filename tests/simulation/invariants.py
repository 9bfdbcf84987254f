"""What must hold at every step, checked from outside: from the records written and the journal alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tests.simulation.faults import Setup
from verifier.core.events import Source
from verifier.core.journal import Entry

_SOURCES = tuple(Source)
Place = tuple[Source, int]
LAGGING_S = 8.0
DUE_AT_ONCE = 100
"""Longer than what a worker knows of a topic's end may be old."""


class Written(NamedTuple):
    """A record as it lies in its topic; `truth` is None if nothing needs it."""

    offset: int
    at_s: float
    truth: Mapping[str, Any] | None


class Violated(AssertionError):
    """Something that must always hold does not."""


def must(holds: bool, sentence: str) -> None:
    """Raise Violated with the sentence unless it holds."""
    if not holds:
        raise Violated(sentence)


class Watch:
    """Follows the records written and the journal entries as they come, and checks each valid entry."""

    def __init__(self, setup: Setup, now: Callable[[], float]) -> None:
        self._setup = setup
        self._now = now
        self._records: dict[Place, list[Written]] = defaultdict(list)
        self._seen_values: set[tuple[int, Source, str]] = set()
        self._last: dict[int, Entry] = {}
        self._resolved: defaultdict[int, set[str]] = defaultdict(set)
        self._floors: dict[tuple[str, str], float] = {}
        self._recovering: set[tuple[int, str]] = set()
        self._watermarks: dict[str, float] = {}
        self.chains: dict[int, list[tuple[int, Entry]]] = {p: [] for p in range(setup.partitions)}

    def produced(self, source: Source, partition: int, offset: int, truth: Mapping[str, Any] | None) -> None:
        """Note a record. A repeat of one written before counts as a record, but no request needs it."""
        if truth is not None:
            content = (partition, source, repr(truth))
            if content in self._seen_values:
                truth = None
            self._seen_values.add(content)
        self._records[source, partition].append(Written(offset, self._now(), truth))

    def recovers(self, partition: int, worker: str) -> None:
        """Note that a worker begins to recover a partition: what is open there may get a new deadline."""
        self._recovering.add((partition, worker))

    def watermark(self, life: str, value: float) -> None:
        """Check that one life of a partition never moves its watermark back."""
        must(value >= self._watermarks.get(life, value), f"the watermark went back to {value}")
        self._watermarks[life] = value

    def journaled(self, offset: int, entry: Entry) -> None:
        """Check an entry if it is valid: the first with its number, where that number is the next."""
        partition = entry.partition
        last = self._last.get(partition)
        if entry.n != (0 if last is None else last.n + 1):
            return
        self.chains[partition].append((offset, entry))
        self._last[partition] = entry
        name = f"partition {partition} entry {entry.n}"
        if last is not None:
            must(entry.watermark >= last.watermark, f"{name}: the watermark went back")
            must(entry.keep_n >= last.keep_n, f"{name}: keep_n went back")
            for source in _SOURCES:
                must(entry.positions[source] >= last.positions[source], f"{name}: a position went back")
                must(entry.safe[source] >= last.safe[source], f"{name}: a safe offset went back")
        most = self._setup.pending_requests_max
        must(entry.pending <= most, f"{name}: {entry.pending} pending, at most {most}")
        resolved = self._resolved[partition]
        resolved.update(item.outcome.request_id for item in entry.resolved)
        first_ts = self._check_open(name, partition, entry, resolved)
        self._check_deadlines(name, entry, first_ts)
        self._check_watermark(name, entry, last)
        self._check_counts(name, entry, last)

    def _check_open(self, name: str, partition: int, entry: Entry, resolved: set[str]) -> dict[str, float]:
        """Return the open requests with the event time of their first record."""
        accepted: set[str] = set()
        first_ts: dict[str, float] = {}
        for source in _SOURCES:
            position, safe = entry.positions[source], entry.safe[source]
            for record in self._records[source, partition]:
                if record.truth is None or record.offset >= position:
                    continue
                request_id = record.truth["request_id"]
                accepted.add(request_id)
                if request_id in resolved:
                    continue
                ts = record.truth["ts"]
                first_ts[request_id] = min(ts, first_ts.get(request_id, ts))
                if record.offset < safe:
                    raise Violated(
                        f"{name}: safe offset {safe} of {source.name} passes {record.offset}, "
                        f"which open request {request_id} needs"
                    )
                if entry.verified_through > ts:
                    raise Violated(
                        f"{name}: verified through {entry.verified_through}, but {request_id} is open"
                    )
        must(resolved <= accepted, f"{name}: resolved {sorted(resolved - accepted)}, which was never read")
        must(
            entry.pending == len(accepted - resolved),
            f"{name}: {len(accepted)} accepted, {len(resolved)} resolved, but {entry.pending} pending",
        )
        return first_ts

    def _check_deadlines(self, name: str, entry: Entry, first_ts: Mapping[str, float]) -> None:
        """No request stays open at the watermark that its first record, or its being read, allows it."""
        life = entry.partition, entry.worker
        if life in self._recovering:
            self._recovering.discard(life)
            for request_id in first_ts:
                self._floors[entry.worker, request_id] = entry.watermark
        for request_id, ts in first_ts.items():
            floor = self._floors.setdefault((entry.worker, request_id), entry.watermark)
            deadline = max(ts, floor) + self._setup.join_timeout_s
            must(
                entry.watermark < deadline,
                f"{name}: {request_id} is open at watermark {entry.watermark}, it was due at {deadline}",
            )

    def _check_watermark(self, name: str, entry: Entry, last: Entry | None) -> None:
        """A source that has long had more to read holds the watermark back."""
        faults = self._setup.faults
        if last is None or entry.watermark <= last.watermark or faults.outage or faults.zombie:
            return  # what is journaled after a wait was concluded before it
        if self._setup.due_at_once_max < DUE_AT_ONCE:
            return  # it goes after the watermark step by step
        for source in _SOURCES:
            position = entry.positions[source]
            records = self._records[source, entry.partition]
            if any(r.offset >= position and r.at_s < self._now() - LAGGING_S for r in records):
                read = [r.truth["ts"] for r in records if r.truth is not None and r.offset < position]
                least = max(read, default=float("-inf")) - self._setup.lateness_s
                must(
                    entry.watermark <= least,
                    f"{name}: the watermark {entry.watermark} has left {source.name} behind, which is at {least}",
                )

    def _check_counts(self, name: str, entry: Entry, last: Entry | None) -> None:
        counted = {count.source for count in entry.counts}
        for source in _SOURCES:
            if source not in counted and last is not None:
                must(
                    entry.positions[source] == last.positions[source],
                    f"{name}: {source.name} moved uncounted",
                )
        for count in entry.counts:
            source = Source(count.source)
            start = 0 if last is None else last.positions[source]
            written = sum(start <= r.offset < count.end for r in self._records[source, entry.partition])
            must(count.start == start, f"{name}: counts {source.name} from {count.start}, not from {start}")
            must(
                count.end == entry.positions[source],
                f"{name}: counts {source.name} to elsewhere than it stands",
            )
            must(
                count.records == written,
                f"{name}: counted {count.records} records of {source.name}, written {written}",
            )
