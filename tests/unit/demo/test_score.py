"""The score says what was found, what was missed and what was made up."""

from __future__ import annotations

from typing import Any

import pytest

from verifier.demo.faults import BY_NAME, FAULTS, Fault
from verifier.demo.score import score

PLANTED, PARTNER, HEALTHY = "demo-planted", "demo-partner", "demo-healthy"


def truth_of(fault: Fault) -> dict[str, Any]:
    return {
        "request_id": PLANTED,
        "fault": fault.name,
        "touches": [PLANTED, PARTNER] if fault.pairing else [PLANTED],
        "expect": fault.expect.as_json(),
    }


def perfect_answer(fault: Fault) -> dict[str, Any]:
    expect = fault.expect
    finding: dict[str, Any] = {"request_id": PLANTED, "verdict": expect.verdict or "match", "differences": []}
    if expect.kind is not None:
        change = expect.changes[0] if expect.changes else "value"
        finding["differences"] = [{"kind": expect.kind, "field": expect.field, "change": change}]
    if expect.missing is not None:
        finding["missing"] = [f"{expect.missing}responses"]
    conflicts = []
    if expect.conflict is not None:
        scope, kind = expect.conflict
        conflicts.append(
            {
                "scope": scope,
                "kind": kind,
                "winner": {"request_id": PARTNER},
                "loser": {"request_id": PLANTED},
            }
        )
    latencies = {PLANTED: (0.01, 1.6)} if expect.latency_s is not None else None
    return {"findings": [finding], "conflicts": conflicts, "latencies": latencies}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_by_what_it_must_show_and_missed_without_it(fault: Fault) -> None:
    found = score([truth_of(fault)], **perfect_answer(fault))
    assert found.perfect
    assert found.found == (PLANTED,)
    assert found.kinds[fault.name].found == found.kinds[fault.name].planted == 1

    silent = score([truth_of(fault)], [])
    assert not silent.found
    assert [(each.request_id, each.fault) for each in silent.missed] == [(PLANTED, fault.name)]


@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.expect.kind is not None], ids=lambda fault: fault.name
)
def test_a_difference_of_another_kind_is_not_the_planted_one(fault: Fault) -> None:
    answer = perfect_answer(fault)
    other = next(kind for kind in ("status", "header") if kind != fault.expect.kind)
    answer["findings"][0]["differences"][0]["kind"] = other
    result = score([truth_of(fault)], **answer)
    assert not result.found
    assert other in result.missed[0].seen


@pytest.mark.parametrize("verdict", ["divergence", "incomplete", "incomparable"])
def test_anything_but_a_match_on_a_healthy_request_is_a_false_alarm(verdict: str) -> None:
    result = score([], [{"request_id": HEALTHY, "verdict": verdict, "differences": [], "missing": []}])
    assert [each.request_id for each in result.false_alarms] == [HEALTHY]
    assert not result.perfect


def test_a_match_on_a_healthy_request_is_none() -> None:
    assert score([], [{"request_id": HEALTHY, "verdict": "match"}]).perfect


def test_a_conflict_is_a_false_alarm_when_one_of_its_requests_is_healthy() -> None:
    truth = [truth_of(BY_NAME["order_inverted"])]
    answer = perfect_answer(BY_NAME["order_inverted"])
    answer["conflicts"].append(
        {
            "scope": "idempotency",
            "kind": "conflict",
            "winner": {"request_id": PLANTED},
            "loser": {"request_id": HEALTHY},
        }
    )
    result = score(truth, **answer)
    assert result.found == (PLANTED,)
    assert [each.request_id for each in result.false_alarms] == [HEALTHY]


def test_a_slow_answer_must_show_in_the_latencies_and_not_in_the_verdict() -> None:
    truth = [truth_of(BY_NAME["slow"])]
    assert score(truth, [], latencies={PLANTED: (0.01, 1.52)}).perfect
    assert not score(truth, [], latencies={PLANTED: (0.01, 0.02)}).found
    diverged = [{"request_id": PLANTED, "verdict": "divergence", "differences": []}]
    assert not score(truth, diverged, latencies={PLANTED: (0.01, 1.52)}).found


def test_a_partner_may_show_the_fault_too() -> None:
    fault = BY_NAME["key_reused"]
    answer = perfect_answer(fault)
    answer["findings"].append({"request_id": PARTNER, "verdict": "divergence", "differences": []})
    assert score([truth_of(fault)], **answer).perfect
