"""Rules that expire: what decides is the request's own time."""

from __future__ import annotations

import pytest

from tests.builders import all_seen
from verifier.core.dated_judge import judge_by_date
from verifier.core.policy import Policy
from verifier.core.routes import Router
from verifier.core.rules import rule_from_dict
from verifier.core.verdict import Judge, JudgeConfig
from verifier.testing import TS, edge, response

END = TS + 100.0
STATUS = {"kind": "status", "action": "ignore", "owner": "me", "reason": "known"}


def judge_with(*rules: dict[str, object]) -> Judge:
    policy = Policy.default([rule_from_dict(rule) for rule in rules])
    return judge_by_date(
        policy, lambda dated: Judge(dated, Router((), routes_max=10), JudgeConfig(expect_edge=True))
    )


def verdict_at(judge: Judge, ts: float) -> str:
    records = [edge("r", side, ts=ts) for side in ("main", "shadow")]
    records += [response("r", ts=ts), response("r", "shadow", ts=ts, status=201)]
    return judge.judge("r", all_seen(*records))[0].verdict


@pytest.mark.parametrize(
    ("ts", "verdict"), [(TS, "match"), (END - 0.001, "match"), (END, "divergence"), (END + 1e6, "divergence")]
)
def test_a_rule_holds_for_the_requests_before_its_end(ts: float, verdict: str) -> None:
    assert verdict_at(judge_with({**STATUS, "id": "s", "expires_at": END}), ts) == verdict


def test_rules_end_one_after_the_other() -> None:
    headers = {**STATUS, "id": "h", "kind": "header", "field": "server", "expires_at": END + 50}
    judge = judge_with({**STATUS, "id": "s", "expires_at": END}, headers)
    assert [verdict_at(judge, END + after) for after in (-1, 1, 51)] == ["match", "divergence", "divergence"]


def test_without_an_end_there_is_one_judge_alone() -> None:
    assert type(judge_with({**STATUS, "id": "s"})) is Judge
