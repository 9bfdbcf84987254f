"""Event time: never back, never held by what is idle, carried on by the clock."""

from __future__ import annotations

import random

import pytest

from verifier.core.watermark import NEVER, Watermark
from verifier.testing import TS


def watermark(sources: int = 2, *, lateness_s: float = 5.0, idle_s: float = 3.0) -> Watermark:
    return Watermark(sources, lateness_s=lateness_s, idle_s=idle_s, now=0.0)


def test_nothing_is_known_before_the_first_event() -> None:
    mark = watermark()
    assert mark.advance(1e9) == NEVER
    mark.note_end(0, at_end=True)
    mark.note_end(1, at_end=True)
    assert mark.advance(2e9) == NEVER


def test_it_is_the_least_of_the_highest_less_the_lateness() -> None:
    mark = watermark()
    mark.observe(0, TS + 10, 0.0)
    assert mark.advance(0.0) == NEVER
    mark.observe(1, TS + 7, 0.0)
    mark.observe(1, TS + 1, 0.0)
    assert mark.advance(0.0) == TS + 2
    assert mark.max_ts == (TS + 10, TS + 7)


def test_a_source_that_is_behind_holds_it_back_however_long_it_is_quiet() -> None:
    mark = watermark()
    mark.observe(0, TS + 100, 0.0)
    mark.observe(1, TS, 0.0)
    mark.note_end(0, at_end=True)
    assert mark.advance(1e6) == TS - 5


@pytest.mark.parametrize(("quiet_s", "held"), [(2.999, True), (3.0, False)])
def test_a_source_at_its_end_is_idle_after_the_idle_time(quiet_s: float, *, held: bool) -> None:
    mark = watermark()
    mark.observe(1, TS, 0.0)
    mark.observe(0, TS + 100, quiet_s)
    mark.note_end(1, at_end=True)
    assert mark.advance(quiet_s) == (TS - 5 if held else TS + 95)


def test_a_source_that_never_had_anything_is_idle_at_its_end() -> None:
    mark = watermark()
    mark.note_end(1, at_end=True)
    mark.observe(0, TS, 3.0)
    assert mark.advance(3.0) == TS - 5


def test_a_source_that_goes_on_holds_it_back_again() -> None:
    mark = watermark()
    mark.observe(0, TS, 0.0)
    mark.note_end(0, at_end=True)
    mark.observe(1, TS + 50, 4.0)
    assert mark.advance(4.0) == TS + 45
    mark.observe(0, TS + 60, 5.0)
    mark.observe(1, TS + 100, 5.0)
    assert mark.advance(5.0) == TS + 55


def test_when_all_is_idle_the_clock_carries_it_on_from_the_newest_event() -> None:
    mark = watermark()
    mark.observe(0, TS, 10.0)
    mark.observe(1, TS + 2, 11.0)
    for source in (0, 1):
        mark.note_end(source, at_end=True)
    assert mark.advance(13.9) == TS + 2 - 5
    assert mark.advance(14.0) == TS + 2 + 3 - 5
    assert mark.advance(111.0) == TS + 2 + 100 - 5


def test_the_past_keeps_its_own_pace() -> None:
    mark = watermark(1)
    mark.observe(0, 1_000_000_000.0, 0.0)
    mark.note_end(0, at_end=True)
    assert mark.advance(60.0) == 1_000_000_000.0 + 55


def test_it_takes_up_where_a_former_owner_stood_and_waits_for_the_idle_time_again() -> None:
    mark = Watermark(2, lateness_s=5.0, idle_s=3.0, now=1_000.0)
    mark.restore(TS, [TS + 9, TS + 6])
    assert mark.value == TS
    assert mark.max_ts == (TS + 9, TS + 6)
    assert mark.advance(1_000.0) == TS + 1
    for source in (0, 1):
        mark.note_end(source, at_end=True)
    assert mark.advance(1_002.0) == TS + 1
    assert mark.advance(1_003.0) == TS + 9 + 3 - 5


def test_restoring_never_moves_it_back() -> None:
    mark = watermark()
    mark.observe(0, TS, 0.0)
    mark.observe(1, TS, 0.0)
    mark.advance(0.0)
    mark.restore(TS - 100, [TS - 100, NEVER])
    assert (mark.value, mark.max_ts) == (TS - 5, (TS, TS))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_it_never_moves_back(seed: int) -> None:
    rng = random.Random(seed)
    mark, now, last = watermark(3), 0.0, NEVER
    for _ in range(300):
        now += rng.choice((0.0, 0.5, 5.0))
        match rng.randrange(4):
            case 0 | 1:
                mark.observe(rng.randrange(3), TS + rng.uniform(-100, 100) + now, now)
            case 2:
                mark.note_end(rng.randrange(3), at_end=rng.random() < 0.7)
            case 3:
                mark.restore(TS + rng.uniform(-500, 0), [TS + rng.uniform(-500, 0)] * 3)
        assert mark.advance(now) >= last
        last = mark.value
