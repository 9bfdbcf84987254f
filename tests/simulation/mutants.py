"""Mistakes planted in the product, one at a time, that the simulator must find.

Each is what a plausible slip in the code would do. A mutant is a function that takes `pytest.MonkeyPatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from verifier.core import conflict, conflict_scan
from verifier.core.engine import Engine, Slice
from verifier.core.events import SIDE_RANK, Seen, Source
from verifier.core.join import Join
from verifier.core.journal import Entry
from verifier.core.requests import ClosedRequest, OpenRequest
from verifier.core.watermark import NEVER, Watermark
from verifier.stream import contests, partition, recovery
from verifier.stream.alignment import Alignment
from verifier.stream.appending import Appending
from verifier.stream.care import SET_ASIDE, Care
from verifier.stream.codec import Codec, Record
from verifier.stream.contests import Contests
from verifier.stream.outputs import Outputs
from verifier.stream.partition import PartitionWorker
from verifier.stream.partition_config import Incoming
from verifier.stream.rereading import Rereading
from verifier.testing_tables import MemoryStore

Mutant = Callable[[pytest.MonkeyPatch], None]
MUTANTS: dict[str, Mutant] = {}


def mutant(make: Mutant) -> Mutant:
    """Register a mutant under its name."""
    MUTANTS[make.__name__] = make
    return make


# -- duplicates and late records ---------------------------------------------------------------------------------


@mutant
def no_duplicate_check_while_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OpenRequest, "knows", lambda *_: False)


@mutant
def no_duplicate_check_after_closing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClosedRequest, "knows", lambda *_: False)


@mutant
def late_records_are_dropped(patch: pytest.MonkeyPatch) -> None:
    real = Join.take_reopening
    patch.setattr(Join, "take_reopening", lambda self: real(self)[:0])


@mutant
def strays_are_opened_unasked(patch: pytest.MonkeyPatch) -> None:
    async def open_all(self: PartitionWorker) -> None:
        for stray in self._engine.take_strays():
            self._engine.open(stray)

    patch.setattr(PartitionWorker, "_ask_for_strays", open_all)


# -- time --------------------------------------------------------------------------------------------------------


@mutant
def off_by_one_at_the_deadline(patch: pytest.MonkeyPatch) -> None:
    real = Join.advance
    patch.setattr(Join, "advance", lambda self, watermark: real(self, watermark - 1e-6))


@mutant
def watermark_is_the_maximum(patch: pytest.MonkeyPatch) -> None:
    def advance(self: Watermark, now: float) -> float:
        newest = max(self._max_ts)
        if newest == NEVER:
            return self.value
        idle = all(self._at_end) and now - max(self._busy_at) >= self._idle_s
        self.value = max(self.value, newest + (now - max(self._busy_at) if idle else 0.0) - self._lateness_s)
        return self.value

    patch.setattr(Watermark, "advance", advance)


@mutant
def watermark_is_not_restored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Watermark, "restore", lambda *_: None)


@mutant
def watermark_never_follows_the_clock(patch: pytest.MonkeyPatch) -> None:
    real = Watermark.note_end
    patch.setattr(Watermark, "note_end", lambda self, source, _ended: real(self, source, False))


# -- the journal -------------------------------------------------------------------------------------------------


@mutant
def acknowledged_before_the_journal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PartitionWorker, "committable", lambda self, source: self._engine.positions[source])


@mutant
def safe_offsets_are_the_positions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Join, "safe_offsets", lambda _self, positions: tuple(positions))


@mutant
def no_fencing(patch: pytest.MonkeyPatch) -> None:
    async def append(self: Appending, entry: Entry) -> int:
        offset: int = await self._until_up(lambda: self._journal.append(entry))
        self.end = offset + 1
        return offset

    patch.setattr(Appending, "append", append)


@mutant
def the_resolved_set_is_lost_at_assignment(patch: pytest.MonkeyPatch) -> None:
    real = Engine.restore
    patch.setattr(Engine, "restore", lambda self, last, _tail: real(self, last, ()))
    patch.setattr(Join, "forget_until", lambda *_: None)
    patch.setattr(
        Engine,
        "refeed",
        lambda self, batch: self.join.add(batch.source, batch.start, batch.seen, float("-inf")) and None,
    )


@mutant
def records_read_again_are_counted_again(patch: pytest.MonkeyPatch) -> None:
    real = Engine.restore

    def restore(self: Engine, last: Entry, tail: Any) -> None:
        real(self, last, tail)
        self.positions = list(last.safe)

    patch.setattr(Engine, "restore", restore)


@mutant
def a_gap_in_what_is_handed_over_is_not_read(patch: pytest.MonkeyPatch) -> None:
    async def work(self: PartitionWorker, batches: Sequence[Incoming]) -> None:
        for batch in batches:
            position = self._engine.positions[batch.source]
            self._engine.positions[batch.source] = max(position, batch.records[0].offset)
        await real(self, batches)

    real = PartitionWorker._work
    patch.setattr(PartitionWorker, "_work", work)


@mutant
def a_revision_without_what_it_replaces(patch: pytest.MonkeyPatch) -> None:
    real = Engine._conclude

    def conclude(self: Engine, resolved: Any, seen: Sequence[Seen], claims: Any) -> None:
        real(self, replace(resolved, was=None), seen, claims)

    patch.setattr(Engine, "_conclude", conclude)


@mutant
def a_revision_from_the_new_records_alone(patch: pytest.MonkeyPatch) -> None:
    real = Engine.rejudge
    patch.setattr(Engine, "rejudge", lambda self, reopening, _former: real(self, reopening, []))


# -- what is derived from it -------------------------------------------------------------------------------------


@mutant
def nothing_is_published_again_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    _while_recovering(patch, lambda self: (self._publishing, "publish"))


@mutant
def claims_not_made_before_a_crash_are_lost(patch: pytest.MonkeyPatch) -> None:
    _while_recovering(patch, lambda self: (self._contests, "claim"))


def _while_recovering(
    patch: pytest.MonkeyPatch, target: Callable[[PartitionWorker], tuple[Any, str]]
) -> None:
    real = PartitionWorker._recover

    async def nothing(*_: Any) -> None:
        return None

    async def recover(self: PartitionWorker) -> None:
        part, name = target(self)
        setattr(part, name, nothing)
        try:
            await real(self)
        finally:
            delattr(part, name)

    patch.setattr(PartitionWorker, "_recover", recover)


@mutant
def tables_are_applied_without_compare_and_set(patch: pytest.MonkeyPatch) -> None:
    real = MemoryStore._advance

    def advance(self: MemoryStore, delta: Any, lag: int | None) -> None:
        at = self._partitions.get(delta.partition)
        if at is not None:
            at.n = delta.expected_n
        real(self, delta, lag)

    patch.setattr(MemoryStore, "_advance", advance)


@mutant
def entries_the_tables_lack_are_not_applied_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    async def read_chain(journal: Any, number: int, position: Any, on_entry: Any) -> recovery.Chain:
        async def unlacked(offset: int, entry: Entry, _lacking: bool) -> None:
            await on_entry(offset, entry, False)

        return await recovery.read_chain(journal, number, position, unlacked)

    patch.setattr(partition, "read_chain", read_chain)


@mutant
def a_recovery_feeds_what_is_set_aside(patch: pytest.MonkeyPatch) -> None:
    def feed(self: Rereading, engine: Engine, source: Source, piece: Sequence[Record]) -> None:
        seen, _ = self._codec.decode(source, self._partition, piece, ())
        engine.refeed(Slice(source=source, start=piece[0].offset, end=piece[-1].offset + 1, seen=seen))

    patch.setattr(Rereading, "_feed", feed)


@mutant
def poison_is_dropped_unsaid(patch: pytest.MonkeyPatch) -> None:
    real = Care.decode

    def decode(self: Care, codec: Codec, source: Source, *more: Any) -> Any:
        seen, rejections = real(self, codec, source, *more)
        return seen, [each for each in rejections if each.reason != SET_ASIDE]

    patch.setattr(Care, "decode", decode)


@mutant
def a_divergence_is_never_taken_back(patch: pytest.MonkeyPatch) -> None:
    real = Outputs.messages

    def messages(self: Outputs, entry: Entry) -> list[Any]:
        return [m for m in real(self, entry) if m.value is not None or m.topic != self._topics.divergences]

    patch.setattr(Outputs, "messages", messages)


# -- first write wins --------------------------------------------------------------------------------------------


@mutant
def arrival_order_instead_of_event_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(conflict, "order_of", lambda _claimant: (0.0, 0, "", 0))


@mutant
def sides_rank_the_other_way(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(SIDE_RANK, "main", 2)
    patch.setitem(SIDE_RANK, "shadow", 0)


@mutant
def the_ttl_is_ignored(patch: pytest.MonkeyPatch) -> None:
    real = conflict._idempotency_pairs
    patch.setattr(conflict, "_idempotency_pairs", lambda ordered, _ttl_s: real(ordered, float("inf")))


@mutant
def the_conflict_timeout_is_ignored(patch: pytest.MonkeyPatch) -> None:
    real = conflict._main_canary_pairs
    patch.setattr(conflict, "_main_canary_pairs", lambda ordered, _timeout_s: real(ordered, float("inf")))


@mutant
def conflicts_are_never_taken_back(patch: pytest.MonkeyPatch) -> None:
    real = conflict_scan.scan
    patch.setattr(contests, "scan", lambda *args, **named: (real(*args, **named)[0], []))


@mutant
def a_store_that_forgot_is_not_told_again(patch: pytest.MonkeyPatch) -> None:
    async def tell_again(self: Contests, epoch: str, watermark: float) -> None:
        self._known_epoch = epoch

    patch.setattr(Contests, "_tell_again", tell_again)


@mutant
def a_store_that_forgot_is_only_noticed_by_new_claims(patch: pytest.MonkeyPatch) -> None:
    async def watch(self: Contests, watermark: float) -> None:
        return None

    patch.setattr(Contests, "watch", watch)


# -- bounds ------------------------------------------------------------------------------------------------------


@mutant
def open_requests_have_no_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Join, "keep_within_bound", lambda _self: None)


@mutant
def a_rejected_record_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    real = Engine.feed

    def feed(self: Engine, batch: Any, now: float, **named: Any) -> None:
        real(self, replace(batch, rejections=()), now, **named)

    patch.setattr(Engine, "feed", feed)


# -- what is read, and when --------------------------------------------------------------------------------------


@mutant
def what_the_consumer_dropped_is_passed_over(patch: pytest.MonkeyPatch) -> None:
    async def skip(self: PartitionWorker, source: Source, start: int, end: int) -> None:
        self._pass_over(source, end)

    patch.setattr(PartitionWorker, "_read_apart", skip)


@mutant
def nobody_looks_for_what_was_never_handed_over(patch: pytest.MonkeyPatch) -> None:
    async def leave_it(self: PartitionWorker, sources: Sequence[Source]) -> None:
        pass

    patch.setattr(PartitionWorker, "_make_up", leave_it)


@mutant
def sources_wait_for_one_that_is_at_its_end(patch: pytest.MonkeyPatch) -> None:
    real = Alignment.held
    patch.setattr(Alignment, "held", lambda self, _ends, pending: real(self, [False] * len(Source), pending))


@mutant
def more_is_due_than_event_time_tells(patch: pytest.MonkeyPatch) -> None:
    real = Join.advance

    def advance(self: Join, watermark: float, event_time: float = NEVER) -> float:
        real(self, watermark, event_time)
        return watermark

    patch.setattr(Join, "advance", advance)


@mutant
def what_fails_to_be_decoded_takes_its_neighbours_along(patch: pytest.MonkeyPatch) -> None:
    def decode_each(
        self: Care, _codec: Codec, source: Source, _partition: int, records: Sequence[Record], _known: Any
    ) -> tuple[list[Seen], list[Any]]:
        for record in records:
            self._set_aside(source, record.offset)
        return [], []

    patch.setattr(Care, "_decode_each", decode_each)
