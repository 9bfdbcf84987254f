"""What must hold at every step, checked from outside: from the records written and the journal alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from verifier.core.events import Source
from verifier.core.journal import Entry

Place = tuple[Source, int]


class Violated(AssertionError):
    """Something that must always hold does not."""


def must(holds: bool, sentence: str) -> None:
    """Raise Violated with the sentence unless it holds."""
    if not holds:
        raise Violated(sentence)


class Watch:
    """Follows the records written and the journal entries as they come, and checks each valid entry."""

    def __init__(self, partitions: int, *, pending_requests_max: int) -> None:
        self._pending_max = pending_requests_max
        self._records: dict[Place, list[tuple[int, Mapping[str, Any] | None]]] = defaultdict(list)
        self._seen_values: set[tuple[int, Source, str]] = set()
        self._last: dict[int, Entry] = {}
        self._resolved: defaultdict[int, set[str]] = defaultdict(set)
        self._watermarks: dict[int, float] = {}
        self.chains: dict[int, list[tuple[int, Entry]]] = {p: [] for p in range(partitions)}

    def produced(self, source: Source, partition: int, offset: int, truth: Mapping[str, Any] | None) -> None:
        """Note a record. A repeat of one written before counts as a record, but no request needs it."""
        if truth is not None:
            content = (partition, source, repr(truth))
            if content in self._seen_values:
                truth = None
            self._seen_values.add(content)
        self._records[source, partition].append((offset, truth))

    def watermark(self, worker: int, value: float) -> None:
        """Check that one life of a partition never moves its watermark back."""
        must(value >= self._watermarks.get(worker, value), f"the watermark went back to {value}")
        self._watermarks[worker] = value

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
            for source in Source:
                must(entry.positions[source] >= last.positions[source], f"{name}: a position went back")
                must(entry.safe[source] >= last.safe[source], f"{name}: a safe offset went back")
        must(entry.pending <= self._pending_max, f"{name}: {entry.pending} pending, at most {self._pending_max}")
        resolved = self._resolved[partition]
        resolved.update(item.outcome.request_id for item in entry.resolved)
        self._check_open(name, partition, entry, resolved)
        self._check_counts(name, entry, last)

    def _check_open(self, name: str, partition: int, entry: Entry, resolved: set[str]) -> None:
        accepted: set[str] = set()
        for source in Source:
            for offset, truth in self._records[source, partition]:
                if truth is None or offset >= entry.positions[source]:
                    continue
                request_id = truth["request_id"]
                accepted.add(request_id)
                if request_id not in resolved:
                    must(
                        offset >= entry.safe[source],
                        f"{name}: safe offset {entry.safe[source]} of {source.name} passes {offset}, "
                        f"which open request {request_id} needs",
                    )
                    must(
                        entry.verified_through <= truth["ts"],
                        f"{name}: verified through {entry.verified_through}, but {request_id} is open",
                    )
        must(resolved <= accepted, f"{name}: resolved {sorted(resolved - accepted)}, which was never read")
        must(
            entry.pending == len(accepted - resolved),
            f"{name}: {len(accepted)} accepted, {len(resolved)} resolved, but {entry.pending} pending",
        )

    def _check_counts(self, name: str, entry: Entry, last: Entry | None) -> None:
        counted = {count.source for count in entry.counts}
        for source in Source:
            if source not in counted and last is not None:
                must(entry.positions[source] == last.positions[source], f"{name}: {source.name} moved uncounted")
        for count in entry.counts:
            source = Source(count.source)
            start = 0 if last is None else last.positions[source]
            written = sum(start <= o < count.end for o, _ in self._records[source, entry.partition])
            must(count.start == start, f"{name}: counts {source.name} from {count.start}, not from {start}")
            must(count.end == entry.positions[source], f"{name}: counts {source.name} to elsewhere than it stands")
            must(
                count.records == written,
                f"{name}: counted {count.records} records of {source.name}, written {written}",
            )
