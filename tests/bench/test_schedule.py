"""Traffic made beforehand: what is sent when it is due is what a live system would have sent then."""

from __future__ import annotations

import time
from itertools import chain, count

import pytest

from bench import schedule
from bench.exactness import wrong_verdicts
from tests.bench.naive import verdicts

RATE, REQUESTS = 500.0, 1_000


def test_it_is_made_before_it_is_due_and_comes_to_its_truth() -> None:
    due_at, truth, made = schedule.made_beforehand(RATE, REQUESTS)
    assert due_at > time.time()
    assert len(made) == REQUESTS
    counts, _ = verdicts(list(chain.from_iterable(made)))
    assert wrong_verdicts(truth, counts) == []


def test_no_event_lies_in_the_future_or_far_back_when_its_request_is_due() -> None:
    due_at, _, made = schedule.made_beforehand(RATE, REQUESTS)
    for number, lines in enumerate(made):
        ago_s = [due_at + number / RATE - line.ts_ms / 1000 for line in lines]
        assert min(ago_s) >= 0
        assert max(ago_s) <= schedule.LEAD_S + 0.001


def test_made_too_late_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = count(step=3_600.0)
    monkeypatch.setattr("bench.schedule.time.time", lambda: next(hours))
    with pytest.raises(RuntimeError, match=r"made \d+\.\d s too late"):
        schedule.made_beforehand(RATE, 10)
