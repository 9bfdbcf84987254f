"""The engine: counts, late records, strays, recovery, and judges that fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.builders import all_seen, judge, pair, seen
from verifier.core.engine import Engine, Findings, Slice
from verifier.core.events import Rejection, Seen, Source
from verifier.core.join import JoinConfig
from verifier.core.journal import Entry, decode_entry, encode_entry
from verifier.core.outcome import Claim, Outcome
from verifier.core.verdict import Judge
from verifier.core.watermark import NEVER, Watermark
from verifier.testing import TS, edge, response, source_of, write

AT_END = [True] * len(Source)


def engine(by: Judge | None = None, **config: Any) -> Engine:
    mark = Watermark(len(Source), lateness_s=5.0, idle_s=1.0, now=0.0)
    return Engine(0, JoinConfig(**config), by or judge(), mark)


def feed(to: Engine, *made: dict[str, Any], now: float = 0.0, ceiling: float = float("inf")) -> None:
    """Feed records, each as a slice of its own."""
    for each in made:
        source = source_of(each)
        start = to.positions[source]
        batch = Slice(source=source, start=start, end=start + 1, seen=[seen(each, start)])
        to.feed(batch, now, ceiling=ceiling)


def entry_of(of: Engine, findings: Findings) -> Entry:
    made = of.entry(findings, worker="w", at=0.0, published_n=of.n, epoch="e")
    made = decode_entry(encode_entry(made))
    of.journaled(made)
    return made


def conclude(of: Engine) -> Entry:
    return entry_of(of, of.conclude())


def counts(entry: Entry) -> dict[str, tuple[int, ...]]:
    return {
        Source(c.source).name: (c.start, c.end, c.records, sum(c.rejected.values()), c.duplicate, c.late)
        for c in entry.counts
    }


def verdicts(entry: Entry) -> dict[str, str]:
    return {resolved.outcome.request_id: resolved.outcome.verdict for resolved in entry.resolved}


# -- counts ----------------------------------------------------------------------------------------------------------


def test_an_entry_counts_every_record_by_its_fate() -> None:
    partition = engine()
    rejections = [
        Rejection(source=Source.EDGE, offset=n, reason=r, detail="")
        for n, r in ((1, "a"), (2, "b"), (3, "a"))
    ]
    partition.feed(
        Slice(source=Source.EDGE, start=0, end=5, seen=[seen(edge("r"), 0)], rejections=rejections), 0.0
    )
    feed(partition, edge("r"), *pair("r")[1:])
    entry = conclude(partition)
    assert counts(entry) == {
        "EDGE": (0, 7, 6, 3, 1, 0), "MAIN_RESPONSES": (0, 1, 1, 0, 0, 0), "SHADOW_RESPONSES": (0, 1, 1, 0, 0, 0),
    }  # fmt: skip
    assert entry.counts[0].rejected == {"a": 2, "b": 1}
    feed(partition, edge("r"), write("r"))
    later = conclude(partition)
    assert counts(later) == {"EDGE": (7, 8, 1, 0, 1, 0), "MAIN_WRITES": (0, 1, 1, 0, 0, 1)}
    assert later.positions == (8, 1, 1, 1, 0)


def test_counts_begin_where_the_last_entry_ended_though_offsets_are_missing_between() -> None:
    partition = engine()
    partition.feed(Slice(source=Source.EDGE, start=7, end=9, seen=[seen(edge("r"), 8)]), 0.0)
    entry = conclude(partition)
    assert counts(entry) == {"EDGE": (0, 9, 1, 0, 0, 0)}
    assert entry.safe == (7, 0, 0, 0, 0)


def test_a_slice_that_goes_back_is_refused() -> None:
    partition = engine()
    feed(partition, edge("r"))
    with pytest.raises(ValueError, match="EDGE: slice from 0, but 1 is next"):
        partition.feed(Slice(source=Source.EDGE, start=0, end=1, seen=[]), 0.0)


def test_nothing_new_makes_no_entry() -> None:
    partition = engine()
    assert partition.conclude().empty
    feed(partition, edge("r"))
    assert not partition.conclude().empty
    assert partition.conclude().empty


def test_entries_are_numbered_without_gaps() -> None:
    partition = engine()
    feed(partition, edge("r"))
    entry = partition.entry(partition.conclude(), worker="w", at=0.0, published_n=-1, epoch="")
    assert entry.n == 0
    partition.journaled(entry)
    with pytest.raises(ValueError, match="journal entry 0 of partition 0 follows 0"):
        partition.journaled(entry)


# -- verdicts and revisions --------------------------------------------------------------------------------------------


def test_verified_through_stays_at_the_oldest_open_request() -> None:
    partition = engine()
    assert partition.verified_through == 0.0
    feed(partition, edge("a", ts=TS), *pair("b"), write("b", ts=TS + 20), write("b", "shadow", ts=TS + 20))
    feed(partition, *(response("c", side, ts=TS + 20) for side in ("main", "shadow")), edge("c", ts=TS + 20))
    partition.advance(0.0, [False] * 5)
    assert partition.watermark.value == TS + 15
    assert conclude(partition).verified_through == TS
    feed(partition, edge("a", "shadow"), response("a"), response("a", "shadow"))
    assert conclude(partition).verified_through == TS + 15


def test_a_late_record_revises_the_verdict_with_the_former_records() -> None:
    partition = engine()
    feed(partition, *pair("r"))
    first = conclude(partition)
    assert verdicts(first) == {"r": "match"}
    feed(partition, write("r"))
    (reopening,) = partition.take_reopenings()
    partition.rejudge(reopening, [seen(each, at) for each, at in zip(pair("r"), (0, 1, 0, 0), strict=True)])
    findings = partition.conclude()
    second = entry_of(partition, findings)
    (revised,) = second.resolved
    assert (revised.outcome.verdict, revised.rev) == ("divergence", 1)
    assert revised.was is not None and revised.was.verdict == "match"
    assert len(revised.events) == 5
    assert [(claim.rev, claim.revises) for claim in second.claims] == [(5, True)]
    assert [late.event for late in findings.late] == [seen(write("r")).event]


def test_without_the_former_records_the_verdict_stands() -> None:
    partition = engine()
    feed(partition, *pair("r"))
    conclude(partition)
    feed(partition, write("r"))
    (reopening,) = partition.take_reopenings()
    partition.rejudge(reopening, None)
    entry = conclude(partition)
    assert (entry.resolved, counts(entry)["MAIN_WRITES"][-1]) == ((), 1)


def test_a_request_closed_by_the_bound_is_not_blamed_on_a_side_by_a_late_record() -> None:
    partition = engine(pending_requests_max=1)
    feed(partition, edge("a"), edge("b", ts=TS + 1))
    partition.advance(0.0, [False] * 5)
    (resolved,) = conclude(partition).resolved
    assert resolved.outcome.reasons == ("pending_bound",)
    feed(partition, response("a"))
    (reopening,) = partition.take_reopenings()
    partition.rejudge(reopening, [seen(edge("a"))])
    (revised,) = conclude(partition).resolved
    assert (revised.outcome.verdict, revised.outcome.reasons) == ("incomparable", ("pending_bound",))


# -- strays ------------------------------------------------------------------------------------------------------------


def test_a_stray_of_a_forgotten_request_revises_what_the_journal_says() -> None:
    partition = engine(closed_hold_s=1.0)
    feed(partition, *pair("r"))
    (resolved,) = conclude(partition).resolved
    feed(partition, *(each for n in range(3) for each in pair(f"s{n}")))
    partition.advance(100.0, AT_END)
    assert not partition.join.is_closed("r")
    feed(partition, edge("r"), write("r"))
    strays = partition.take_strays()
    assert [stray.event.request_id for stray in strays] == ["r", "r"]
    for stray in strays:
        partition.recall(resolved, stray)
    (reopening,) = partition.take_reopenings()
    assert [each.source for each in reopening.seen] == [Source.MAIN_WRITES]
    assert counts(conclude(partition))["EDGE"][4:] == (1, 0)


def test_a_stray_that_the_store_does_not_know_is_judged_like_any() -> None:
    partition = engine()
    feed(partition, *pair("a"))
    partition.advance(100.0, AT_END)
    conclude(partition)
    feed(partition, *pair("r", status=404))
    for stray in partition.take_strays():
        partition.open(stray)
    assert verdicts(conclude(partition)) == {"r": "match"}


# -- clocks that are ahead ---------------------------------------------------------------------------------------------


def test_one_record_from_the_future_moves_the_watermark_no_further_than_the_ceiling() -> None:
    partition = engine()
    feed(partition, edge("r"), ceiling=TS + 10)
    feed(partition, edge("future", ts=TS + 86_000), ceiling=TS + 10)
    partition.advance(1.0, AT_END)
    assert partition.watermark.value == TS + 10 + 1 - 5
    entry = conclude(partition)
    assert entry.max_ts[Source.EDGE] == TS + 10
    partition.advance(40.0, AT_END)
    assert verdicts(conclude(partition)) == {"r": "incomplete", "future": "incomplete"}
    feed(partition, edge("now", ts=TS + 46), ceiling=TS + 56)
    assert partition.take_strays() == []


# -- judges that fail --------------------------------------------------------------------------------------------------


class FailingJudge:
    """Fails on one request."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._judge = judge()

    def judge(
        self, request_id: str, records: Sequence[Seen], *, bound_hit: bool = False
    ) -> tuple[Outcome, list[Claim]]:
        if request_id == "bad":
            raise self._error
        return self._judge.judge(request_id, records, bound_hit=bound_hit)


def test_a_judge_that_fails_on_a_request_stops_nothing_and_is_no_agreement() -> None:
    partition = engine(FailingJudge(KeyError("hunter2")))  # type: ignore[arg-type]
    feed(partition, *pair("bad"), *pair("good"))
    findings = partition.conclude()
    (failure,) = findings.failures
    assert (failure.request_id, failure.error) == ("bad", "KeyError")
    assert failure.place.startswith("test_engine.py:")
    entry = entry_of(partition, findings)
    assert verdicts(entry) == {"bad": "incomparable", "good": "match"}
    bad = entry.resolved[0].outcome
    assert (bad.reasons, bad.ts, bad.route) == (("judge_failed:KeyError",), TS, "OTHER (other)")
    assert b"hunter2" not in encode_entry(entry)
    feed(partition, write("bad"))
    (reopening,) = partition.take_reopenings()
    partition.rejudge(reopening, [seen(each) for each in pair("bad")])
    revised = partition.conclude()
    assert [each.outcome.verdict for each in revised.resolved] == ["incomparable"]
    assert len(revised.failures) == 1


def test_running_out_of_memory_is_not_taken_for_a_verdict() -> None:
    partition = engine(FailingJudge(MemoryError()))  # type: ignore[arg-type]
    feed(partition, *pair("bad"))
    with pytest.raises(MemoryError):
        partition.conclude()


# -- recovery ----------------------------------------------------------------------------------------------------------


def test_a_restored_engine_stands_where_the_entry_says() -> None:
    partition = engine()
    feed(partition, *pair("a"), edge("b"))
    partition.advance(0.0, [False] * 5)
    last = conclude(partition)
    heir = engine()
    heir.restore(last, [(last.n, resolved) for resolved in last.resolved])
    assert (heir.n, tuple(heir.positions)) == (last.n, last.positions)
    assert heir.watermark.max_ts == (TS, TS, TS, NEVER, NEVER)
    feed(heir, edge("a"))
    entry = conclude(heir)
    assert (entry.n, counts(entry)["EDGE"]) == (1, (3, 4, 1, 0, 1, 0))
    assert entry.safe == (4, 1, 1, 0, 0)


def test_what_is_read_again_is_not_counted_again() -> None:
    partition = engine()
    feed(partition, edge("open"), edge("open"), *pair("done"))
    last = conclude(partition)
    assert last.safe == (0, 1, 1, 0, 0)
    heir = engine()
    heir.restore(last, [(last.n, resolved) for resolved in last.resolved])
    again = [seen(each, at) for at, each in enumerate((edge("open"), edge("open"), *pair("done")[:2]))]
    heir.refeed(Slice(source=Source.EDGE, start=0, end=4, seen=again))
    strays = heir.take_strays()
    assert [stray.event.request_id for stray in strays] == ["open", "open"]
    for stray in strays:
        heir.open(stray)
    assert heir.conclude().empty
    assert heir.join.pending == 1
    feed(heir, edge("open", "shadow"), response("open"), response("open", "shadow"))
    entry = conclude(heir)
    assert verdicts(entry) == {"open": "match"}
    assert entry.safe == (5, 2, 2, 0, 0)


def test_a_record_from_the_future_that_is_read_again_is_asked_for_like_any() -> None:
    partition = engine()
    feed(partition, edge("future", ts=TS + 86_000), edge("r"), ceiling=TS + 10)
    last = conclude(partition)
    heir = engine()
    heir.restore(last, [])
    again = all_seen(edge("future", ts=TS + 86_000), edge("r"))
    heir.refeed(Slice(source=Source.EDGE, start=0, end=2, seen=again))
    assert heir.join.pending == 0
    strays = heir.take_strays()
    assert [stray.event.request_id for stray in strays] == ["future", "r"]
    for stray in strays:
        heir.open(stray)
    heir.advance(0.0, AT_END)
    heir.advance(60.0, AT_END)
    assert verdicts(conclude(heir)) == {"r": "incomplete", "future": "incomplete"}


def test_a_request_that_was_judged_and_forgotten_is_not_judged_again_when_it_is_read_again() -> None:
    partition = engine()
    feed(partition, *pair("old"), edge("open"))
    (resolved,) = (last := conclude(partition)).resolved
    heir = engine()
    heir.restore(last, [])
    again = all_seen(*pair("old"), edge("open"))
    for source in Source:
        records = [each for each in again if each.source is source]
        heir.refeed(Slice(source=source, start=0, end=len(records), seen=records))
    for stray in heir.take_strays():
        if stray.event.request_id == "old":
            heir.recall(resolved, stray)
        else:
            heir.open(stray)
    assert heir.take_reopenings() == []
    assert heir.conclude().empty
    assert heir.join.pending == 1
