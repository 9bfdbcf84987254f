"""Folding journal entries into what they change in the tables.

`fold` takes consecutive entries of one partition and gives one `Delta`: counts already summed, and one row
for each request, whatever its revisions. The live tables, their in-memory twin and an offline run all apply
the same deltas.

A revision takes the outcome it replaces out of the counts. Which outcome that is, the entry says (`was`), but
the stored row is what was really counted: `settle` puts the two right before the delta is applied, so that
counts stay exact even when a request comes back whose first verdict nobody remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from verifier.core.conflict import IDEMPOTENCY, order_of
from verifier.core.counts import Counted, Counts, RecordCount, counted_of
from verifier.core.journal import Entry, SourceCount
from verifier.core.outcome import Claim, Conflict, Outcome
from verifier.core.storable import bounded_text

UNVERSIONED = -1
"""Version of a retraction that has none: it takes back whatever is there."""


class Stored(Struct, frozen=True, gc=False):
    """What a request's stored row says it added to the counts."""

    route: str
    verdict: str
    counted: Counted


class Row(Struct, kw_only=True):
    """One request's row after the batch.

    `journal_offsets` are those of its entries in this batch, oldest first. `fresh`: it should have no row
    yet. `replaced` is what the batch took out of the counts for it (None: nothing). `at` is the entry's wall
    clock.
    """

    outcome: Outcome
    route: str
    counted: Counted
    rev: int
    journal_offsets: tuple[int, ...]
    at: float
    fresh: bool
    replaced: Stored | None = None


class Finding(Struct, frozen=True):
    """The newest word on a conflict id: the conflict, or None when it is retracted.

    `at` is the entry's wall clock.
    """

    version: int
    conflict: Conflict | None
    at: float


class KeyClaim(Struct, frozen=True):
    """The oldest claim on an idempotency key in the batch, with its request's user and error."""

    claim: Claim
    user_id: str | None
    error: str | None
    at: float


class Delta(Struct, kw_only=True):
    """What a run of entries changes: `entries` are their (number, journal offset), in order."""

    partition: int
    entries: list[tuple[int, int]]
    worker: str
    keep_n: int
    pending: int
    watermark: float
    verified_through: float
    counts: Counts
    rows: dict[str, Row]
    findings: dict[str, Finding]
    key_claims: dict[str, KeyClaim]

    @property
    def expected_n(self) -> int:
        """The entry number the tables must stand at before this."""
        return self.entries[0][0] - 1

    @property
    def last_n(self) -> int:
        """The entry number the tables stand at afterwards."""
        return self.entries[-1][0]


def fold(entries: Sequence[tuple[int, Entry]]) -> Delta:
    """Fold (journal offset, entry) pairs of one partition, numbered without a gap, into one delta.

    Raises ValueError when there are none, or when they are not a run of one partition's entries.
    """
    if not entries:
        raise ValueError("no entries to fold")
    first = entries[0][1]
    delta = Delta(
        partition=first.partition,
        entries=[],
        worker="",
        keep_n=0,
        pending=0,
        watermark=0.0,
        verified_through=0.0,
        counts=Counts(),
        rows={},
        findings={},
        key_claims={},
    )
    for place, (offset, entry) in enumerate(entries):
        if entry.partition != first.partition or entry.n != first.n + place:
            raise ValueError(
                f"entry {entry.n} of partition {entry.partition} does not follow entry {first.n + place - 1}"
                f" of partition {first.partition}: fold a run of one partition's valid entries"
            )
        _take(delta, offset, entry)
    return delta


def settle(delta: Delta, stored: Mapping[str, Stored]) -> tuple[str, ...]:
    """Correct the counts for requests that have a row already; return those that should have had none.

    `stored` must hold every row that exists for the delta's requests when the delta is applied.
    """
    resurfaced: list[str] = []
    for request_id, row in stored.items():
        mine = delta.rows[request_id]
        if mine.fresh:
            resurfaced.append(request_id)
            mine.fresh = False
        if mine.replaced == row:
            continue
        if mine.replaced is not None:
            delta.counts.give_back(mine.replaced.route, mine.replaced.verdict, mine.replaced.counted)
        delta.counts.take_back(row.route, row.verdict, row.counted)
        mine.replaced = row
    return tuple(resurfaced)


def _take(delta: Delta, offset: int, entry: Entry) -> None:
    delta.entries.append((entry.n, offset))
    delta.worker = entry.worker
    delta.pending = entry.pending
    delta.keep_n = max(delta.keep_n, entry.keep_n)
    delta.watermark = max(delta.watermark, entry.watermark)
    delta.verified_through = max(delta.verified_through, entry.verified_through)
    _take_records(delta.counts, entry.counts)
    _take_resolved(delta, offset, entry)
    _take_findings(delta.findings, entry)
    for claim in entry.claims:
        if claim.scope == IDEMPOTENCY:
            _take_key_claim(delta, claim, entry.at)


def _take_records(counts: Counts, taken: Iterable[SourceCount]) -> None:
    for source in taken:
        rejected = sum(source.rejected.values())
        more = RecordCount(source.records, rejected, source.duplicate, source.late)
        counts.records.setdefault(source.source, RecordCount()).add(more)
        for reason, n in source.rejected.items():
            key = (source.source, bounded_text(reason))
            counts.rejected[key] = counts.rejected.get(key, 0) + n


def _take_resolved(delta: Delta, offset: int, entry: Entry) -> None:
    counts, rows, at, offsets = delta.counts, delta.rows, entry.at, (offset,)
    routes: dict[str, str] = {}  # there are few: each is bounded once an entry
    for resolved in entry.resolved:
        outcome = resolved.outcome
        route = routes.get(outcome.route)
        if route is None:
            route = routes[outcome.route] = bounded_text(outcome.route)
        counted = counted_of(outcome)
        counts.count(route, outcome.verdict, counted, outcome.ts)
        known = rows.get(outcome.request_id)
        if known is not None:  # revised within the batch: what it replaces is what this batch counted
            counts.take_back(known.route, known.outcome.verdict, known.counted)
            known.outcome, known.route, known.counted = outcome, route, counted
            known.rev, known.at = max(known.rev, resolved.rev), at
            known.journal_offsets += offsets
            continue
        replaced = None
        if resolved.was is not None:
            was = resolved.was
            replaced = Stored(bounded_text(was.route), was.verdict, counted_of(was))
            counts.take_back(replaced.route, replaced.verdict, replaced.counted)
        rows[outcome.request_id] = Row(
            outcome=outcome,
            route=route,
            counted=counted,
            rev=resolved.rev,
            journal_offsets=offsets,
            at=at,
            fresh=resolved.rev == 0 and replaced is None,
            replaced=replaced,
        )


def _take_findings(findings: dict[str, Finding], entry: Entry) -> None:
    for conflict in entry.conflicts:
        known = findings.get(conflict.id)
        if known is None or conflict.version >= known.version:
            findings[conflict.id] = Finding(conflict.version, conflict, entry.at)
    for place, conflict_id in enumerate(entry.retracted):
        versions = entry.retracted_versions
        version = versions[place] if place < len(versions) else UNVERSIONED
        known = findings.get(conflict_id)
        if known is None or version == UNVERSIONED or version >= known.version:
            findings[conflict_id] = Finding(version, None, entry.at)


def _take_key_claim(delta: Delta, claim: Claim, at: float) -> None:
    """Keep the claim that comes first in the total order; of one request's claims the highest revision."""
    side_prefix = claim.claimant.side + ":"
    key = bounded_text(claim.key.removeprefix(side_prefix))
    known = delta.key_claims.get(key)
    if known is not None and not precedes(claim, known.claim):
        return
    row = delta.rows.get(claim.claimant.request_id)
    user_id = row.outcome.user_id if row is not None else None
    writes = row.outcome.writes if row is not None else None
    delta.key_claims[key] = KeyClaim(claim, user_id, writes.error if writes is not None else None, at)


def precedes(claim: Claim, known: Claim) -> bool:
    """Whether `claim` takes an idempotency key's row from `known`: it revises it, or was made before it."""
    ours, theirs = claim.claimant, known.claimant
    if (ours.side, ours.request_id) == (theirs.side, theirs.request_id):
        return claim.rev >= known.rev
    return order_of(ours) < order_of(theirs)
