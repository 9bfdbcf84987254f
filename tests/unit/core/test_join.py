"""The join's table of transitions, row by row, and its bounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.builders import pair, seen
from verifier.core.events import Seen, Source
from verifier.core.join import Closing, Join, JoinConfig
from verifier.core.outcome import Outcome, Resolved
from verifier.core.requests import event_refs
from verifier.core.watermark import NEVER
from verifier.testing import TS, edge, response, source_of, write

TIMEOUT_S, SETTLE_S = 30.0, 2.0


class Bench:
    """A join that is fed record by record, each its own run of offsets, at a watermark that the test moves."""

    def __init__(self, **config: Any) -> None:
        self.join = Join(JoinConfig(**config))
        self.watermark = NEVER
        self.positions = [0] * len(Source)
        self.strays: list[Seen] = []

    def add(self, *made: Mapping[str, Any], ceiling: float = float("inf")) -> Bench:
        for each in made:
            source = source_of(each)
            first = self.positions[source]
            record = seen(each, first)
            self.strays += self.join.add(source, first, [record], self.watermark, ceiling=ceiling)
            self.positions[source] += 1
        return self

    def at(self, watermark: float) -> Bench:
        self.watermark = watermark
        self.join.advance(watermark)
        return self

    def closing(self) -> list[Closing]:
        return self.join.take_closing()

    def closed(self) -> list[str]:
        """Close what is due, and settle it as the engine does."""
        closing = self.closing()
        for each in closing:
            self.settle(each.request_id, each.seen)
        return [each.request_id for each in closing]

    def settle(
        self, request_id: str, evidence: tuple[Seen, ...], n: int = 0, closed_at: float | None = None
    ) -> None:
        outcome = Outcome(request_id=request_id, ts=TS, route="GET /", verdict="match")
        at = self.watermark if closed_at is None else closed_at
        self.join.settle(Resolved(outcome=outcome, events=event_refs(evidence)), n, at)

    @property
    def safe(self) -> tuple[int, ...]:
        return self.join.safe_offsets(self.positions)


def by_source(**offsets: int) -> tuple[int, ...]:
    return tuple(offsets.get(source.name.lower(), 0) for source in Source)


# -- completeness --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_out", range(4))
def test_a_request_waits_for_every_expected_part(left_out: int) -> None:
    records = pair("r")
    bench = Bench().add(*(each for n, each in enumerate(records) if n != left_out)).at(TS + TIMEOUT_S - 0.001)
    assert bench.closed() == []
    bench.add(records[left_out])
    assert bench.closed() == ["r"]


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"expect_responses": False}, [edge("r"), edge("r", "shadow")]),
        ({"expect_edge": False}, [response("r", writes=None), response("r", "shadow", writes=None)]),
    ],
)
def test_only_the_expected_kinds_are_waited_for(config: dict[str, bool], parts: list[dict[str, Any]]) -> None:
    bench = Bench(**config).add(parts[0]).at(TS + SETTLE_S)
    assert bench.closed() == []
    bench.add(parts[1])
    assert bench.closed() == []
    assert bench.at(TS + SETTLE_S).closed() == ["r"]


def test_announced_writes_close_the_request_with_the_last_of_them() -> None:
    records = pair("r", writes=2)
    bench = (
        Bench().add(*records, write("r", seq=0), write("r", seq=1), write("r", "shadow", seq=0)).at(TS + 20)
    )
    assert bench.closed() == []
    assert bench.add(write("r", "shadow", seq=1)).closed() == ["r"]


def test_the_highest_announcement_of_a_side_counts_whichever_is_read_last() -> None:
    for counts in ((0, 1), (1, 0)):
        bench = Bench().add(*pair("r"), response("r2", writes=counts[0]), response("r2", writes=counts[1]))
        bench.add(edge("r2"), edge("r2", "shadow"), response("r2", "shadow", writes=0))
        assert bench.closed() == ["r"]
        assert bench.add(write("r2")).closed() == ["r2"]


def test_unannounced_writes_are_awaited_until_the_settle_time_after_the_last_event() -> None:
    bench = Bench().add(*pair("r", writes=None))
    assert bench.at(TS + SETTLE_S - 0.001).closed() == []
    bench.add(write("r", ts=TS + 1))
    assert bench.at(TS + SETTLE_S + 0.999).closed() == []
    assert bench.at(TS + SETTLE_S + 1).closed() == ["r"]


def test_announced_writes_that_do_not_come_are_awaited_until_the_timeout() -> None:
    bench = Bench().add(*pair("r", writes=1), write("r"))
    assert bench.at(TS + TIMEOUT_S - 0.001).closed() == []
    assert bench.at(TS + TIMEOUT_S).closed() == ["r"]


def test_a_later_part_takes_the_settle_time_back() -> None:
    """One side unannounced settles; a response that announces writes makes it wait for them instead."""
    bench = Bench(expect_responses=False).add(edge("r"), edge("r", "shadow"), response("r", writes=1))
    assert bench.at(TS + SETTLE_S).closed() == []
    assert bench.add(write("r", ts=TS + 5)).at(TS + SETTLE_S + 5).closed() == ["r"]


@pytest.mark.parametrize("mark", [{"shed": True}, {"sampled": False}])
@pytest.mark.parametrize("side", ["main", "shadow"])
def test_an_excused_request_waits_for_no_shadow(mark: dict[str, bool], side: str) -> None:
    bench = Bench().add(edge("r", side, **mark))
    assert bench.at(TS + SETTLE_S - 0.001).closed() == []
    assert bench.at(TS + SETTLE_S).closed() == ["r"]
    whole = Bench().add(edge("r", "main", **mark), response("r"))
    assert whole.closed() == ["r"]


def test_what_the_canary_served_waits_for_the_canary_alone() -> None:
    bench = Bench().add(edge("r", "canary"))
    assert bench.closed() == []
    assert bench.add(response("r", "canary", writes=1)).closed() == []
    assert bench.add(write("r", "canary")).closed() == ["r"]


def test_the_reference_is_never_waited_for_and_never_counts_as_main() -> None:
    bench = Bench().add(*pair("r")[:2], response("r", "shadow"), response("r", "reference", writes=3))
    bench.add(write("r", "reference")).at(TS + 10)
    assert bench.closed() == []
    assert bench.add(response("r")).closed() == ["r"]


# -- time ----------------------------------------------------------------------------------------------------------


def test_the_deadline_is_reached_exactly_at_the_timeout() -> None:
    bench = Bench().add(edge("r"))
    assert bench.at(TS + TIMEOUT_S - 0.001).closed() == []
    assert bench.at(TS + TIMEOUT_S).closed() == ["r"]


def test_the_deadline_counts_from_the_first_event_whichever_is_read_first() -> None:
    for order in ((0.0, 9.0), (9.0, 0.0)):
        bench = Bench().add(
            *(edge("r", side, ts=TS + s) for side, s in zip(("main", "shadow"), order, strict=True))
        )
        assert bench.at(TS + TIMEOUT_S - 0.001).closed() == []
        assert bench.at(TS + TIMEOUT_S).closed() == ["r"]


def test_an_event_from_a_clock_that_is_ahead_does_not_hold_its_request_open() -> None:
    bench = Bench().add(edge("r", ts=TS + 80_000), ceiling=TS + 5)
    assert bench.at(TS + TIMEOUT_S + 4.999).closed() == []
    assert bench.at(TS + TIMEOUT_S + 5).closed() == ["r"]


def test_requests_close_in_the_order_of_their_deadlines() -> None:
    bench = Bench().add(*(edge(f"r{n}", ts=TS + offset) for n, offset in enumerate((3.0, 1.0, 2.0))))
    assert bench.at(TS + 100).closed() == ["r1", "r2", "r0"]


def test_the_end_of_a_window_closes_everything() -> None:
    bench = Bench().add(edge("a"), response("b"))
    bench.join.finish()
    assert bench.closed() == ["a", "b"]
    assert bench.join.pending == 0


# -- repeats and late records ----------------------------------------------------------------------------------------


def test_a_repeat_is_counted_by_its_source_and_changes_nothing() -> None:
    bench = Bench().add(edge("r"), edge("r"), response("r"), response("r"), response("r"))
    duplicates, late = bench.join.take_counts()
    assert (duplicates[Source.EDGE], duplicates[Source.MAIN_RESPONSES], late) == (1, 2, [])
    assert bench.join.take_counts() == ([0] * 5, [])
    bench.join.finish()
    assert [len(each.seen) for each in bench.closing()] == [2]


def test_repeats_among_hundreds_of_records_are_found_quickly() -> None:
    writes = [write("r", seq=n) for n in range(3_000)]
    bench = Bench().add(*writes, *writes)
    assert bench.join.take_counts()[0][Source.MAIN_WRITES] == 3_000


def test_a_repeated_write_does_not_stand_for_another() -> None:
    bench = Bench().add(*pair("r", writes=2), write("r", seq=0), write("r", seq=0))
    bench.add(write("r", "shadow", seq=0), write("r", "shadow", seq=1))
    assert bench.closed() == []


def test_a_record_between_closing_and_the_conclusion_is_part_of_it() -> None:
    bench = Bench().add(*pair("r"), write("r"), edge("r"))
    (closing,) = bench.closing()
    assert len(closing.seen) == 5
    assert bench.join.take_counts() == ([1, 0, 0, 0, 0], [])


def test_a_record_after_the_verdict_is_late_and_reopens() -> None:
    bench = Bench().add(*pair("r"))
    assert bench.closed() == ["r"]
    bench.add(write("r"), write("r"), edge("r"))
    duplicates, late = bench.join.take_counts()
    assert [each.source for each in late] == [Source.MAIN_WRITES]
    assert (duplicates[Source.MAIN_WRITES], duplicates[Source.EDGE]) == (1, 1)
    (reopening,) = bench.join.take_reopening()
    assert reopening.request_id == "r"
    assert reopening.seen == tuple(late)
    assert len(reopening.resolved.events) == 4
    assert bench.join.take_reopening() == []
    assert bench.join.pending == 0


def test_a_closed_request_is_held_until_its_records_are_known_as_strays() -> None:
    bench = Bench(closed_hold_s=60.0).add(*pair("r")).at(TS)
    assert bench.closed() == ["r"]
    bench.at(TS + 60)
    assert bench.join.is_closed("r")
    bench.at(TS + 60.001)
    assert not bench.join.is_closed("r")
    bench.add(edge("r"))
    assert [stray.event.request_id for stray in bench.strays] == ["r"]
    assert bench.join.pending == 0


def test_a_request_that_is_about_to_be_judged_again_is_not_forgotten() -> None:
    bench = Bench(closed_hold_s=60.0).add(*pair("r")).at(TS)
    bench.closed()
    bench.add(write("r")).at(TS + 1000)
    assert [each.request_id for each in bench.join.take_reopening()] == ["r"]
    bench.at(TS + 1001)
    assert not bench.join.is_closed("r")


def test_a_record_as_old_as_what_the_bound_made_us_forget_is_a_stray() -> None:
    bench = Bench(closed_requests_max=1).at(TS - 1000)
    for request_id in ("a", "b"):
        bench.add(*pair(request_id))
        closing = bench.closing()
        bench.settle(request_id, closing[0].seen, closed_at=TS)
    bench.at(TS - 999)
    assert not bench.join.is_closed("a")
    bench.add(edge("a"), edge("c", ts=TS + 0.001))
    assert [stray.event.request_id for stray in bench.strays] == ["a"]
    assert bench.join.pending == 1


# -- strays ----------------------------------------------------------------------------------------------------------


def test_a_first_record_behind_the_watermark_is_a_stray_and_one_at_it_is_not() -> None:
    bench = Bench().at(TS)
    bench.add(edge("old", ts=TS - 0.001), edge("new", ts=TS))
    assert [stray.event.request_id for stray in bench.strays] == ["old"]
    assert bench.join.pending == 1


def test_an_unknown_stray_opens_and_has_the_whole_timeout_from_then_on() -> None:
    bench = Bench().at(TS + 500).add(edge("r"))
    bench.join.open(bench.strays[0], bench.watermark)
    assert bench.at(TS + 500 + TIMEOUT_S - 0.001).closed() == []
    assert bench.at(TS + 500 + TIMEOUT_S).closed() == ["r"]


def test_further_records_of_a_request_that_is_to_be_asked_for_wait_with_it() -> None:
    bench = Bench().at(TS + 500).add(edge("r"), response("r", ts=TS + 501), edge("other", ts=TS + 501))
    assert [stray.source for stray in bench.strays] == [Source.EDGE, Source.MAIN_RESPONSES]
    bench.join.strays_taken()
    bench.add(response("r", "shadow", ts=TS + 501))
    assert (len(bench.strays), bench.join.pending) == (2, 2)


def test_strays_of_one_request_come_together_and_repeats_among_them_count() -> None:
    bench = Bench().at(TS + 500).add(*pair("r"), edge("r"))
    assert len(bench.strays) == 5
    for stray in bench.strays:
        bench.join.open(stray, bench.watermark)
    assert bench.closed() == ["r"]
    assert bench.join.take_counts()[0][Source.EDGE] == 1


def test_unannounced_writes_of_strays_have_their_settle_time_too() -> None:
    bench = Bench().at(TS + 500).add(*pair("r", writes=None))
    for stray in bench.strays:
        bench.join.open(stray, bench.watermark)
    assert bench.at(TS + 500 + SETTLE_S - 0.001).closed() == []
    assert bench.at(TS + 500 + SETTLE_S).closed() == ["r"]


def test_a_recalled_request_takes_its_new_records_as_late_even_if_they_had_opened_it() -> None:
    bench = Bench().add(*pair("r"))
    former = bench.closing()[0].seen
    outcome = Outcome(request_id="r", ts=TS, route="GET /", verdict="match")
    resolved = Resolved(outcome=outcome, events=event_refs(former), rev=3)
    bench.at(TS + 500).add(write("r", ts=TS + 501), edge("r"))
    assert bench.join.pending == 1
    bench.join.recall(resolved, 8, bench.watermark)
    assert (bench.join.pending, bench.closing()) == (0, [])
    (reopening,) = bench.join.take_reopening()
    assert reopening.resolved == resolved
    duplicates, late = bench.join.take_counts()
    assert (duplicates[Source.EDGE], [each.source for each in late]) == (1, [Source.MAIN_WRITES])


def test_a_recalled_request_takes_back_what_had_closed_it() -> None:
    bench = Bench().add(*pair("r"))
    resolved = Resolved(outcome=Outcome(request_id="r", ts=TS, route="GET /", verdict="match"), events=())
    bench.join.recall(resolved, 0, TS)
    assert bench.closing() == []
    assert len(bench.join.take_reopening()[0].seen) == 4


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_beyond_the_bound_the_oldest_request_closes_and_says_so() -> None:
    bench = Bench(pending_requests_max=2)
    bench.add(edge("b", ts=TS + 2), edge("a", ts=TS + 1), edge("c", ts=TS + 3), edge("d", ts=TS + 4)).at(TS)
    closing = bench.closing()
    assert [(each.request_id, each.bound_hit) for each in closing] == [("a", True), ("b", True)]
    assert bench.join.pending == 2


def test_a_request_that_waits_to_settle_is_not_taken_for_the_oldest() -> None:
    bench = Bench(pending_requests_max=2, expect_responses=False)
    bench.add(edge("old", ts=TS), edge("young", ts=TS + 20), edge("young", "shadow", ts=TS + 20))
    bench.add(edge("new", ts=TS + 21)).at(TS)
    assert [each.request_id for each in bench.closing()] == ["old"]


def test_the_bound_on_closed_requests_forgets_the_oldest() -> None:
    bench = Bench(closed_requests_max=2).at(TS)
    for request_id in ("a", "b", "c"):
        bench.add(*pair(request_id))
        bench.closed()
    bench.at(TS)
    assert [not bench.join.is_closed(request_id) for request_id in ("a", "b", "c")] == [
        True,
        False,
        False,
    ]


def test_memory_follows_the_open_requests_though_the_watermark_stands_still() -> None:
    bench = Bench(closed_requests_max=10)
    bench.add(edge("open", ts=TS - 1))
    for n in range(4_000):
        bench.add(*pair(f"r{n}"))
        bench.closed()
        bench.at(TS - 100)
    join = bench.join
    assert len(join._unfolded) < 1_100
    assert max(len(join._timers), len(join._ages), *(len(runs) for runs in join._runs._of)) < 1_100
    assert bench.safe == by_source(main_responses=4_000, shadow_responses=4_000)
    assert bench.at(TS + TIMEOUT_S - 1).closed() == ["open"]


# -- what may be committed -------------------------------------------------------------------------------------------


def test_safe_offsets_stay_at_the_oldest_open_request_and_move_on_with_it() -> None:
    bench = Bench().add(edge("a"), edge("b"), edge("b", "shadow"), response("b"), response("b", "shadow"))
    assert bench.safe == by_source(main_responses=1, shadow_responses=1)
    bench.add(edge("c"), edge("a", "shadow"), response("a"), response("a", "shadow"))
    assert bench.closed() == ["b", "a"]
    assert bench.safe == by_source(edge=3, main_responses=2, shadow_responses=2)
    bench.at(TS + TIMEOUT_S)
    assert bench.safe == by_source(edge=5, main_responses=2, shadow_responses=2)


def test_a_run_of_offsets_is_needed_as_a_whole() -> None:
    join = Join(JoinConfig())
    join.add(Source.EDGE, 10, [seen(edge("a"), 10), seen(edge("b"), 14)], NEVER)
    join.add(Source.EDGE, 20, [seen(edge("b", "shadow"), 20)], NEVER)
    join.add(Source.MAIN_RESPONSES, 5, [seen(response("b"), 5)], NEVER)
    join.add(Source.SHADOW_RESPONSES, 5, [seen(response("b", "shadow"), 5)], NEVER)
    assert join.safe_offsets([21, 6, 6, 0, 0]) == (10, 6, 6, 0, 0)
    join.advance(TS + TIMEOUT_S)
    assert join.safe_offsets([21, 6, 6, 0, 0]) == (21, 6, 6, 0, 0)


def test_only_so_much_is_closed_at_once_in_the_order_of_time_and_event_time_says_how_far_that_was() -> None:
    bench = Bench(join_timeout_s=TIMEOUT_S, due_at_once_max=2)
    for n in (4, 2, 0, 3, 1):
        bench.add(edge(f"r{n}", ts=TS + n))
    watermark, reached, closed = TS + TIMEOUT_S + 3.5, NEVER, []
    times = []
    while reached < watermark:
        reached = bench.join.advance(watermark, reached)
        times.append(reached)
        closed.append(bench.closed())
    assert closed == [["r0", "r1"], ["r2", "r3"]]
    assert TS + TIMEOUT_S + 1 < times[0] < TS + TIMEOUT_S + 2 and times[1] == watermark
    assert bench.join.pending == 1


def test_of_requests_due_at_the_same_time_none_is_said_to_be_through_before_all_are() -> None:
    bench = Bench(join_timeout_s=TIMEOUT_S, due_at_once_max=2)
    for n in range(5):
        bench.add(edge(f"r{n}", ts=TS))
    assert bench.join.advance(TS + TIMEOUT_S, NEVER) < TS + TIMEOUT_S
    assert len(bench.closed()) == 2
    # what is due by the time already reached is not put off any more
    assert bench.join.advance(TS + TIMEOUT_S, TS + TIMEOUT_S) == TS + TIMEOUT_S
    assert len(bench.closed()) == 3


def test_a_source_without_open_records_is_safe_to_where_it_was_read() -> None:
    assert Join(JoinConfig()).safe_offsets([7, 8, 9, 10, 11]) == (7, 8, 9, 10, 11)


def test_an_opened_stray_keeps_its_record_needed() -> None:
    bench = Bench().at(TS + 500).add(edge("r"), edge("s"))
    bench.join.open(bench.strays[1], bench.watermark)
    assert bench.safe == by_source(edge=1)
    bench.join.finish()
    assert bench.safe == by_source(edge=2)


def test_the_journal_is_kept_from_the_oldest_entry_still_held() -> None:
    bench = Bench(closed_hold_s=10.0).add(*pair("a"), *pair("b"), *pair("c"))
    for n, closing in enumerate(bench.closing()):
        bench.settle(closing.request_id, closing.seen, n + 5, TS + 10 * n)
    assert bench.join.keep_n(9) == 5
    bench.at(TS + 10.001)
    assert bench.join.keep_n(9) == 6
    bench.settle("b", (), 8, TS + 20)  # revised: entry 6 is no longer needed for it
    assert bench.join.keep_n(9) == 7
    bench.at(TS + 1000)
    assert bench.join.keep_n(9) == 9


def test_the_age_of_the_oldest_request_follows_opening_and_closing() -> None:
    bench = Bench()
    assert bench.join.oldest_open_ts() is None
    bench.add(edge("a", ts=TS + 5), edge("b", ts=TS + 7))
    assert bench.join.oldest_open_ts() == TS + 5
    bench.add(response("b", ts=TS + 1))
    assert bench.join.oldest_open_ts() == TS + 1
    bench.at(TS + TIMEOUT_S + 1)
    assert bench.join.oldest_open_ts() == TS + 5
    bench.join.finish()
    assert bench.join.oldest_open_ts() is None


def test_adding_stays_near_linear() -> None:
    """100,000 requests of four records: twice as many take about twice as long, and a few seconds at the most."""

    def seconds(requests: int) -> float:
        bench = Join(JoinConfig())
        template: dict[Source, list[Seen]] = {source_of(each): [] for each in pair("r")}
        for n in range(requests):
            for at, each in enumerate(_SHAPES):
                event = _with_id(each.event, f"r{n}")
                template[each.source].append(Seen(source=each.source, offset=n, digest=at, event=event))
        gc.collect()
        gc.disable()  # it would look for cycles in all that the other tests have left, again and again
        try:
            started = time.process_time()
            for source, records in template.items():
                for first in range(0, len(records), 1_000):
                    bench.add(source, first, records[first : first + 1_000], NEVER)
                    bench.advance(TS - 1)
                    bench.safe_offsets([0] * 5)
            assert len(bench.take_closing()) == requests
            return time.process_time() - started
        finally:
            gc.enable()

    small, large = seconds(25_000), seconds(100_000)
    assert large < 8 * max(small, 0.05), (small, large)
    assert large < 10


_SHAPES = [seen(each) for each in pair("r")]


def _with_id(event: Any, request_id: str) -> Any:
    return type(event)(
        **{**{name: getattr(event, name) for name in event.__struct_fields__}, "request_id": request_id}
    )


# -- folding ---------------------------------------------------------------------------------------------------------


def unfolded(join: Join) -> list[str]:
    return [request_id for request_id, request in join._open.items() if request.folded is None]


def test_beyond_the_bound_the_oldest_requests_hold_their_records_as_text() -> None:
    bench = Bench(unfolded_requests_max=2).add(*(edge(f"r{n}") for n in range(5)))
    assert unfolded(bench.join) == ["r3", "r4"]
    bench.add(response("r1"))
    assert unfolded(bench.join) == ["r1", "r4"]


@pytest.mark.parametrize("unfolded_max", range(4))
def test_what_closes_has_the_records_that_were_read(unfolded_max: int) -> None:
    made = [(*pair(f"r{n}", writes=1), write(f"r{n}"), write(f"r{n}", "shadow")) for n in range(4)]
    read = [made[n][part] for part in range(6) for n in range(4)]
    bench, plain = Bench(unfolded_requests_max=unfolded_max), Bench()
    for record in read:
        bench.add(record, record)
        plain.add(record, record)
        assert bench.closing() == plain.closing()
    assert bench.join.take_counts() == plain.join.take_counts()
    assert bench.safe == plain.safe == bench.join.safe_offsets(bench.positions)


def test_a_folded_request_holds_its_offsets_back_and_lets_go_of_them() -> None:
    bench = Bench(unfolded_requests_max=0).add(edge("a"), edge("b"), *pair("c"), response("a"), response("b"))
    assert (bench.safe[Source.EDGE], bench.safe[Source.MAIN_RESPONSES]) == (0, 1)
    bench.add(edge("a", "shadow"), response("a", "shadow"))
    assert (bench.safe[Source.EDGE], bench.safe[Source.MAIN_RESPONSES]) == (1, 2)


def test_a_request_of_many_records_stays_as_it_was_read() -> None:
    """Each further record would have all of them unfolded."""
    bench = Bench(unfolded_requests_max=1).add(*(write("many", seq=n) for n in range(17)))
    bench.add(*(edge(f"r{n}") for n in range(3)))
    assert unfolded(bench.join) == ["many", "r2"]
