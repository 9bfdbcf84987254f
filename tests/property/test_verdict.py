"""The verdict is a function of the set of a request's records, and never calls agreement what it is not."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import all_seen, judge
from verifier.core.events import Seen, in_order
from verifier.core.journal import Entry, Revisions, decode_entry, encode_entry, revisions_of
from verifier.core.outcome import Claim, Outcome, Resolved
from verifier.core.policy import Policy
from verifier.core.rules import Rule
from verifier.testing import TS, edge, response, write

JUDGE = judge()
IDS = Rule(id="ids", kind="body", field="/id", action="generated_id")
TRACKING = judge(policy=Policy.default([IDS]))

numbers = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 1, 1.0, 10**30, 1e300])
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
sides = st.sampled_from(["main", "shadow", "main", "shadow", "reference", "canary"])
seconds = st.sampled_from([0.0, 0.5, 1.0, 7.0]).map(lambda s: TS + s)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    side, ts = draw(sides), draw(seconds)
    kind = draw(st.sampled_from(["edge", "response", "response", "write"]))
    if kind == "edge":
        side = "main" if side == "reference" else side
        marks = draw(st.sampled_from([{}, {}, {}, {"shed": True}, {"sampled": False}]))
        return edge("r", side, ts=ts, status=draw(st.sampled_from([200, 502, "-"])), **marks)
    key = draw(st.sampled_from([None, None, "k1", "k2"]))
    if kind == "response":
        return response(
            "r", side, ts=ts, body=draw(documents), status=draw(st.sampled_from([200, 200, 404])), idempotency_key=key,
            writes=draw(st.sampled_from([None, 0, 1, 2])), body_truncated=draw(st.sampled_from([False, False, True])),
            capture_gap=draw(st.sampled_from([None, None, None, "dropped"])),
        )  # fmt: skip
    return write(
        "r", side, ts=ts, key=draw(st.sampled_from([1, 2])), seq=draw(st.sampled_from([None, 0, 1])),
        idempotency_key=key,
        data=draw(st.none() | st.dictionaries(texts, documents, max_size=2)),
        op=draw(st.sampled_from(["insert", "update", "delete"])), status=draw(st.sampled_from(["applied", "failed"])),
    )  # fmt: skip


evidence = st.lists(records(), min_size=1, max_size=9).map(lambda made: all_seen(*made))


def text(outcome: Outcome, claims: list[Claim]) -> bytes:
    resolved = Resolved(outcome=outcome, events=())
    return encode_entry(
        Entry(partition=0, n=0, worker="", at=0.0, resolved=(resolved,), claims=tuple(claims))
    )


@settings(max_examples=200, deadline=None)
@given(seen=evidence, data=st.data())
def test_the_order_of_the_records_does_not_matter(seen: list[Seen], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(seen))
    assert text(*JUDGE.judge("r", seen)) == text(*JUDGE.judge("r", shuffled))


@st.composite
def near_pairs(draw: st.DrawFn) -> list[Seen]:
    """Four records as a plain pair has them, but for up to two changes."""
    body, headers = draw(documents), draw(st.sampled_from([{}, {"x": "1"}]))
    made: list[dict[str, Any]] = [
        edge("r", ts=draw(seconds), upstream_time_s=draw(st.sampled_from([None, "0.5", 2]))),
        edge("r", "shadow", ts=draw(seconds)),
        *(response("r", side, ts=draw(seconds), body=body, headers=headers) for side in ("main", "shadow")),
    ]
    changes: st.SearchStrategy[dict[str, Any]] = st.sampled_from([
        {"shed": True}, {"sampled": False}, {"route": "/a/{b}"}, {"route": "/c"}, {"user_id": "u1"}, {"user_id": "u2"},
        {"idempotency_key": "k1"}, {"side": "reference"}, {"side": "canary"}, {"side": "main"}, {"status": 404},
        {"method": "post"}, {"method": "HEAD"}, {"body": 7}, {"headers": {"x": "2"}}, {"writes": 1}, {"writes": None},
        {"body_truncated": True}, {"capture_gap": "dropped"}, {"duration_ms": 5}, {"body_encoding": "json"},
    ])  # fmt: skip
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, 3))
        change = draw(changes)
        if not (change.get("side") == "reference" and "uri" in made[at]):
            made[at] = {**made[at], **change}
    return all_seen(*made)


@settings(max_examples=400, deadline=None)
@given(seen=near_pairs())
def test_a_plain_pair_is_judged_as_any_request_is(seen: list[Seen]) -> None:
    for by in (JUDGE, TRACKING):
        assert text(*by.judge("r", seen)) == text(*by._judge_any("r", in_order(seen), bound_hit=False))


@settings(max_examples=300, deadline=None)
@given(seen=evidence)
def test_a_match_has_both_sides_whole_and_alike_and_nothing_to_doubt(seen: list[Seen]) -> None:
    outcome, _ = JUDGE.judge("r", seen)
    if outcome.verdict != "match":
        assert outcome.differences or outcome.dropped or outcome.missing or outcome.reasons
        return
    assert not (outcome.differences or outcome.dropped or outcome.missing or outcome.reasons)
    there = {(each.event.side, type(each.event).__name__) for each in seen}
    assert {(side, kind) for side in ("main", "shadow") for kind in ("Edge", "Response")} <= there
    assert not any(side == "canary" for side, _ in there)
    statuses = {facts.side: facts.status for facts in outcome.sides}
    reference = statuses.get("reference", statuses["main"])
    assert statuses["main"] == statuses["shadow"] or reference != statuses["main"]


@settings(max_examples=200, deadline=None)
@given(seen=evidence, data=st.data())
def test_further_records_never_take_a_claim_back_nor_make_it_later(
    seen: list[Seen], data: st.DataObject
) -> None:
    fewer = seen[: data.draw(st.integers(1, len(seen)))]
    before = {(c.scope, c.key, c.claimant.side): c.claimant.ts for c in JUDGE.judge("r", fewer)[1]}
    after = {(c.scope, c.key, c.claimant.side): c.claimant.ts for c in JUDGE.judge("r", seen)[1]}
    assert before.keys() <= after.keys()
    assert all(after[place] <= ts for place, ts in before.items())


@settings(max_examples=200, deadline=None)
@given(seen=evidence)
def test_whatever_was_read_the_journal_can_be_read_again(seen: list[Seen]) -> None:
    written = text(*JUDGE.judge("r", seen))
    assert encode_entry(decode_entry(written)) == encode_entry(
        decode_entry(encode_entry(decode_entry(written)))
    )
    entry = decode_entry(written)
    assert revisions_of(written, "r") == Revisions(at=entry.at, worker=entry.worker, resolved=entry.resolved)


@settings(max_examples=200, deadline=None)
@given(body=documents, other=documents)
def test_answers_match_exactly_when_their_bodies_are_equal(body: Any, other: Any) -> None:
    sides_of = [edge("r"), edge("r", "shadow")]
    outcome, _ = JUDGE.judge(
        "r", all_seen(*sides_of, response("r", body=body), response("r", "shadow", body=other))
    )
    same, _ = JUDGE.judge(
        "r", all_seen(*sides_of, response("r", body=body), response("r", "shadow", body=body))
    )
    assert same.verdict == "match"
    if msgspec.json.encode(body, order="deterministic") != msgspec.json.encode(other, order="deterministic"):
        assert outcome.verdict != "match" or is_close(body, other)


def is_close(one: Any, two: Any) -> bool:
    """Equal for JSON though written otherwise: `1` and `1.0`, but not `1` and `true`."""
    if isinstance(one, bool) or isinstance(two, bool) or type(one) is not type(two):
        numeric = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (one, two))
        return numeric and Decimal(str(one)) == Decimal(str(two))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(is_close(one[name], two[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(is_close, one, two))
    if isinstance(one, float):
        return Decimal(str(one)) == Decimal(str(two))
    return bool(one == two)
