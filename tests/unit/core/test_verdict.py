"""Every verdict and every reason for it, from the records of one request."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from tests.builders import all_seen, judge, pair, seen
from verifier.core.events import Seen, Source
from verifier.core.journal import Entry, decode_entry, encode_entry
from verifier.core.limits import Limits
from verifier.core.outcome import Claim, Outcome, Resolved
from verifier.core.policy import Policy
from verifier.core.rows import WRITE_ROWS_MAX
from verifier.core.verdict import Judge
from verifier.stream.codec import Codec, CodecConfig
from verifier.testing import TS, StubRecord, edge, response, write

JUDGE = judge()
BY_EDGE = judge(expect_responses=False)
BY_RESPONSES = judge(expect_edge=False)


def outcome_of(*made: Mapping[str, Any], by: Judge = JUDGE, bound_hit: bool = False) -> Outcome:
    """The outcome, which must not depend on the order of the records handed over."""
    records = all_seen(*made)
    outcome, _ = by.judge("r", records, bound_hit=bound_hit)
    assert by.judge("r", records[::-1], bound_hit=bound_hit)[0] == outcome
    return outcome


def claims_of(*made: Mapping[str, Any]) -> list[Claim]:
    return JUDGE.judge("r", all_seen(*made))[1]


def said(outcome: Outcome) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    return outcome.verdict, outcome.reasons, outcome.missing


def kinds(outcome: Outcome) -> list[tuple[str, str, str]]:
    return [(each.kind, each.path, each.change) for each in outcome.differences]


def both(main: dict[str, Any], shadow: dict[str, Any]) -> list[dict[str, Any]]:
    return [edge("r"), edge("r", "shadow"), response("r", **main), response("r", "shadow", **shadow)]


# -- match and divergence ------------------------------------------------------------------------------------------


def test_equal_answers_match() -> None:
    assert said(outcome_of(*pair("r"))) == ("match", (), ())


def test_equal_writes_match_announced_or_not() -> None:
    for count in (1, None):
        assert said(outcome_of(*pair("r", writes=count), write("r"), write("r", "shadow"))) == (
            "match",
            (),
            (),
        )


@pytest.mark.parametrize(
    ("main", "shadow", "found"),
    [
        ({"status": 200}, {"status": 201}, ("status", "", "value")),
        ({"body": {"a": 1}}, {"body": {"a": 2}}, ("body", "/a", "value")),
        ({"body": {"a": 1}}, {"body": {"a": "1"}}, ("body", "/a", "type")),
        ({"body": {"a": 1}}, {"body": {}}, ("body", "/a", "missing")),
        ({"body": {}}, {"body": {"a": 1}}, ("body", "/a", "extra")),
        ({"headers": {"x-kind": "a"}}, {"headers": {"x-kind": "b"}}, ("header", "x-kind", "value")),
        ({"headers": {"x-kind": "a"}}, {"headers": {}}, ("header", "x-kind", "missing")),
    ],
)
def test_each_kind_of_difference_is_a_divergence_with_its_witness(
    main: dict[str, Any], shadow: dict[str, Any], found: tuple[str, str, str]
) -> None:
    outcome = outcome_of(*both(main, shadow))
    assert said(outcome) == ("divergence", (), ())
    assert found in kinds(outcome)


@pytest.mark.parametrize(
    ("main", "shadow", "found"),
    [
        ([{}], [], ("write", "/news/1", "missing")),
        ([], [{}], ("write", "/news/1", "extra")),
        ([{"data": {"a": 1}}], [{"data": {"a": 2}}], ("write", "/news/1/a", "value")),
        ([{"op": "insert"}], [{"op": "update"}], ("write", "/news/1", "value")),
        ([{}], [{}, {"seq": 1}], ("write", "/news/1", "duplicate")),
        ([{}, {"key": 2, "seq": 1}], [{"key": 2}, {"seq": 1}], ("write", "/news/1", "order")),
    ],
)
@pytest.mark.parametrize("announced", [True, False])
def test_each_difference_of_writes_is_a_divergence(
    main: list[dict[str, Any]], shadow: list[dict[str, Any]], found: tuple[str, str, str], *, announced: bool
) -> None:
    counts = [len(writes) if announced else None for writes in (main, shadow)]
    records = [*both({"writes": counts[0]}, {"writes": counts[1]}), *(write("r", **each) for each in main)]
    outcome = outcome_of(*records, *(write("r", "shadow", **each) for each in shadow))
    assert said(outcome) == ("divergence", (), ())
    assert found in kinds(outcome)


def test_writes_beyond_the_announced_count_are_compared_too() -> None:
    outcome = outcome_of(
        *pair("r", writes=1), write("r"), write("r", "shadow"), write("r", "shadow", key=2, seq=1)
    )
    assert said(outcome) == ("divergence", (), ())


def test_more_differences_than_are_kept_still_make_a_divergence() -> None:
    few = judge(limits=Limits(differences_max=2))
    outcome = outcome_of(
        *both({"body": dict.fromkeys("abcde", 1)}, {"body": dict.fromkeys("abcde", 2)}), by=few
    )
    assert (outcome.verdict, len(outcome.differences), outcome.dropped) == ("divergence", 2, 3)


def test_what_was_dropped_is_not_taken_for_noise() -> None:
    """Of five differences two are kept, both noise: the other three remain, though nobody has seen them."""
    few = judge(limits=Limits(differences_max=2))
    sides = both({"body": dict.fromkeys("abcde", 1)}, {"body": dict.fromkeys("abcde", 2)})
    reference = response("r", "reference", body={**dict.fromkeys("abcde", 1), "a": 3, "b": 3})
    outcome = outcome_of(*sides, reference, by=few)
    assert (outcome.verdict, outcome.differences, outcome.dropped) == ("divergence", (), 3)


# -- incomplete ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", list(itertools.product((True, False), repeat=4))[1:-1])
def test_each_absent_part_is_named(there: tuple[bool, ...]) -> None:
    names = ("main.edge", "shadow.edge", "main.responses", "shadow.responses")
    outcome = outcome_of(*itertools.compress(pair("r"), there))
    assert outcome.verdict == "incomplete"
    assert set(outcome.missing) == {name for name, present in zip(names, there, strict=True) if not present}


@pytest.mark.parametrize("side", ["main", "shadow"])
def test_announced_writes_that_were_not_told_are_missing_and_never_a_difference(side: str) -> None:
    records = [*pair("r", writes=2), write("r", side, seq=0)]
    other = "shadow" if side == "main" else "main"
    records += [write("r", other, seq=n, key=n) for n in range(2)]
    outcome = outcome_of(*records)
    assert said(outcome) == ("incomplete", (), (f"{side}.writes",))
    assert outcome.differences == ()


def test_what_is_known_to_differ_is_listed_though_the_request_is_not_whole() -> None:
    outcome = outcome_of(*both({"status": 200, "writes": 1}, {"status": 500, "writes": 0}))
    assert said(outcome) == ("incomplete", (), ("main.writes",))
    assert ("status", "", "value") in kinds(outcome)


def test_a_response_of_one_side_is_compared_with_the_other_sides_edge() -> None:
    outcome = outcome_of(edge("r"), edge("r", "shadow", status=502), response("r"))
    assert said(outcome) == ("incomplete", (), ("shadow.responses",))
    assert kinds(outcome) == [("status", "", "value")]


def test_writes_alone_are_incomplete_without_a_verdict_on_them() -> None:
    outcome = outcome_of(write("r"), write("r", "shadow", data={"title": "other"}))
    assert outcome.verdict == "incomplete"
    assert outcome.missing == ("main.edge", "main.responses", "shadow.edge", "shadow.responses")


# -- what is expected ------------------------------------------------------------------------------------------------


def test_without_responses_the_statuses_of_the_edge_are_compared() -> None:
    assert said(outcome_of(edge("r"), edge("r", "shadow"), by=BY_EDGE)) == ("match", (), ())
    outcome = outcome_of(edge("r"), edge("r", "shadow", status=404), by=BY_EDGE)
    assert (outcome.verdict, kinds(outcome)) == ("divergence", [("status", "", "value")])
    (difference,) = outcome.differences
    assert (difference.main, difference.shadow) == (200, 404)


def test_the_backends_status_counts_rather_than_what_the_edge_made_of_it() -> None:
    records = edge("r", status=200, upstream_status=200), edge("r", "shadow", status=204, upstream_status=200)
    assert outcome_of(*records, by=BY_EDGE).verdict == "match"


def test_responses_that_come_though_not_expected_are_compared() -> None:
    assert outcome_of(*both({"body": 1}, {"body": 2}), by=BY_EDGE).verdict == "divergence"


def test_the_edge_is_not_missed_where_it_is_not_expected() -> None:
    assert said(outcome_of(*pair("r")[2:], by=BY_RESPONSES)) == ("match", (), ())


# -- incomparable ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mark", "reason"), [({"shed": True}, "shed"), ({"sampled": False}, "not_sampled")])
@pytest.mark.parametrize("side", ["main", "shadow"])
def test_what_the_edge_excuses_is_incomparable_whatever_else_is_there(
    side: str, mark: dict[str, bool], reason: str
) -> None:
    assert said(outcome_of(edge("r", side, **mark))) == ("incomparable", (reason,), ())
    excused = outcome_of(edge("r", side, **mark), *both({"body": 1}, {"body": 2})[2:])
    assert (said(excused), excused.differences) == (("incomparable", (reason,), ()), ())


def test_a_shed_copy_says_why_where_the_edge_does() -> None:
    line = edge("r", "shadow", shed=True, shed_reason="in_flight")
    assert said(outcome_of(edge("r"), line)) == ("incomparable", ("shed", "shed:in_flight"), ())


def test_an_excuse_on_a_second_line_of_a_side_counts() -> None:
    outcome = outcome_of(edge("r"), edge("r", "shadow"), edge("r", "shadow", ts=TS + 1, shed=True))
    assert outcome.reasons == ("shed",)


@pytest.mark.parametrize("record", [edge("r", "canary"), response("r", "canary"), write("r", "canary")])
def test_what_the_canary_served_has_no_pair(record: dict[str, Any]) -> None:
    assert said(outcome_of(record)) == ("incomparable", ("served_by_canary",), ())
    outcome = outcome_of(record, edge("r"), response("r", status=500))
    assert said(outcome) == ("incomparable", ("served_by_canary",), ())
    assert [facts.side for facts in outcome.sides] == ["main", "canary"]


def test_a_cut_body_is_incomparable_unless_what_was_kept_differs() -> None:
    plain = {"headers": {"content-type": "text/plain"}, "body_encoding": "text"}
    cut = {**plain, "body": "abc", "body_truncated": True}
    longer = {**plain, "body": "abcdef"}
    outcome = outcome_of(*both(cut, longer))
    assert (outcome.verdict, outcome.differences) == ("incomparable", ())
    assert "body_truncated" in outcome.reasons
    differs = outcome_of(*both(cut, {**plain, "body": "xbcdef"}))
    assert differs.verdict == "divergence"
    assert outcome_of(*both({**cut, "status": 500}, longer)).verdict == "divergence"


def test_a_gap_of_the_capture_is_incomparable_and_named() -> None:
    outcome = outcome_of(*both({"capture_gap": "response_refused"}, {}))
    assert said(outcome) == ("incomparable", ("capture_gap:main.response_refused",), ())


def test_writes_that_were_dropped_are_neither_missing_nor_different() -> None:
    records = both({"writes": 2, "capture_gap": "writes_dropped"}, {"writes": 2})
    writes = [write("r"), write("r", "shadow"), write("r", "shadow", key=2, seq=1)]
    assert said(outcome_of(*records, *writes)) == ("incomparable", ("capture_gap:main.writes_dropped",), ())
    records = both({"writes": None, "capture_gap": "writes_dropped"}, {"writes": None})
    assert said(outcome_of(*records, *writes)) == ("incomparable", ("capture_gap:main.writes_dropped",), ())


@pytest.mark.parametrize("first", ["gap", "ordinary"])
def test_a_record_that_only_owns_up_to_a_gap_adds_it_to_the_ordinary_one(first: str) -> None:
    times = (TS, TS + 1) if first == "gap" else (TS + 1, TS)
    gap = response("r", ts=times[0], capture_gap="response_dropped", body_truncated=True, body=None)
    ordinary = response("r", ts=times[1], body={"a": 1})
    outcome = outcome_of(*pair("r")[:2], gap, ordinary, response("r", "shadow", body={"a": 2}))
    assert (outcome.verdict, outcome.reasons) == ("divergence", ("capture_gap:main.response_dropped",))
    assert kinds(outcome) == [("body", "/a", "value")]
    same = outcome_of(*pair("r")[:2], gap, ordinary, response("r", "shadow", body={"a": 1}))
    assert said(same) == ("incomparable", ("capture_gap:main.response_dropped",), ())


def test_a_gap_alone_makes_no_difference_of_the_body_that_was_dropped() -> None:
    outcome = outcome_of(*both({"capture_gap": "response_dropped", "body": None}, {"body": {"a": 1}}))
    assert (outcome.verdict, outcome.differences) == ("incomparable", ())


def test_reasons_are_bounded() -> None:
    outcome = outcome_of(*both({"capture_gap": "x" * 500}, {}))
    assert max(len(reason) for reason in outcome.reasons) == 80


def test_a_row_that_had_diverged_before_is_not_blamed_on_this_request() -> None:
    def updates(*values: int) -> list[dict[str, Any]]:
        sides = zip(("main", "shadow"), values, strict=True)
        return [write("r", side, op="update", before={"n": n}, data={"n": n + 1}) for side, n in sides]

    outcome = outcome_of(*pair("r", writes=1), *updates(1, 5))
    assert said(outcome) == ("incomparable", ("state_diverged",), ())
    assert [each.rule for each in outcome.ignored] == ["state-diverged"]
    worse = outcome_of(*both({"writes": 1}, {"writes": 1, "status": 500}), *updates(1, 5))
    assert (worse.verdict, worse.reasons) == ("divergence", ("state_diverged",))


def test_a_request_closed_by_the_bound_is_not_blamed_on_a_side() -> None:
    outcome = outcome_of(edge("r"), bound_hit=True)
    assert (outcome.verdict, outcome.reasons) == ("incomparable", ("pending_bound",))
    assert outcome.missing == ("main.responses", "shadow.edge", "shadow.responses")
    assert outcome_of(*pair("r"), bound_hit=True).verdict == "match"
    assert outcome_of(*both({"body": 1}, {"body": 2}), bound_hit=True).verdict == "divergence"


# -- the second legacy instance ----------------------------------------------------------------------------------------


def test_what_differs_between_two_legacy_instances_is_noise() -> None:
    reference = response("r", "reference", body={"a": 9, "b": 1})
    outcome = outcome_of(*both({"body": {"a": 1, "b": 1}}, {"body": {"a": 2, "b": 1}}), reference)
    assert said(outcome) == ("match", (), ())
    assert [(each.field, each.rule) for each in outcome.ignored] == [("/a", "noise:reference")]
    outcome = outcome_of(*both({"body": {"a": 1, "b": 1}}, {"body": {"a": 2, "b": 2}}), reference)
    assert (outcome.verdict, kinds(outcome)) == ("divergence", [("body", "/b", "value")])


def test_noise_excuses_the_same_change_only() -> None:
    reference = response("r", "reference", body={"a": 9})
    outcome = outcome_of(*both({"body": {"a": 1}}, {"body": {}}), reference)
    assert (outcome.verdict, kinds(outcome)) == ("divergence", [("body", "/a", "missing")])
    absent = response("r", "reference", body={})
    assert outcome_of(*both({"body": {"a": 1}}, {"body": {}}), absent).verdict == "match"


def test_a_reference_that_fails_does_not_excuse_what_the_shadow_lost() -> None:
    reference = response("r", "reference", status=503, body={"error": "down"})
    outcome = outcome_of(*both({"body": {"a": 1, "b": 1}}, {"body": {"b": 1}}), reference)
    assert (outcome.verdict, kinds(outcome)) == ("divergence", [("body", "/a", "missing")])


def test_values_that_two_legacy_instances_write_differently_are_noise_but_lost_rows_are_not() -> None:
    def records(**shadow: Any) -> list[dict[str, Any]]:
        return [*pair("r", writes=1), write("r", data={"at": 1}), write("r", "shadow", **shadow)]

    reference = write("r", "reference", data={"at": 2})
    assert outcome_of(*records(data={"at": 3}), reference).verdict == "match"
    assert outcome_of(*records(data={"at": 3})).verdict == "divergence"
    lost = outcome_of(*both({"writes": 1}, {"writes": 0}), write("r"), write("r", "reference", key=2))
    assert lost.verdict == "divergence"


def test_the_reference_is_never_a_missing_side_nor_one_of_the_pair() -> None:
    assert outcome_of(response("r", "reference")).missing[0] == "main.edge"
    assert outcome_of(*pair("r"), response("r", "reference", status=500)).verdict == "match"


# -- which records count ---------------------------------------------------------------------------------------------


def test_of_two_responses_of_a_side_the_earliest_counts() -> None:
    early, late = response("r", ts=TS, status=200), response("r", ts=TS + 1, status=500)
    assert outcome_of(*pair("r")[:2], late, early, response("r", "shadow")).verdict == "match"
    early, late = response("r", ts=TS, status=500), response("r", ts=TS + 1, status=200)
    assert outcome_of(*pair("r")[:2], late, early, response("r", "shadow")).verdict == "divergence"


def test_of_two_responses_at_one_time_the_lower_offset_counts() -> None:
    records = [
        *all_seen(*pair("r")[:2], pair("r")[3]),
        seen(response("r"), 4),
        seen(response("r", status=500), 3),
    ]
    assert JUDGE.judge("r", records)[0].verdict == "divergence"


def test_a_request_is_as_old_as_its_first_record() -> None:
    assert (
        outcome_of(edge("r", ts=TS + 5), response("r", ts=TS + 2), edge("r", "shadow", ts=TS + 9)).ts
        == TS + 2
    )


def test_latency_is_the_edges_or_else_the_sides_own() -> None:
    outcome = outcome_of(
        edge("r", upstream_time_s="0.250"), edge("r", "shadow"), response("r", duration_ms=9),
        response("r", "shadow", duration_ms=120, status=201),
    )  # fmt: skip
    assert [(f.side, f.status, f.latency_s) for f in outcome.sides] == [
        ("main", 200, 0.25),
        ("shadow", 201, 0.12),
    ]


def test_the_route_is_known_from_whatever_is_there() -> None:
    assert outcome_of(*pair("r")).route == "GET /api/v1/news"
    assert outcome_of(edge("r", method="post", uri="/a/b?x=1")).route == "POST /a/b"
    assert outcome_of(write("r", operation="PUT /api/v1/news/buffer")).route == "PUT /api/v1/news/buffer"
    assert outcome_of(write("r")).route == "OTHER /"


# -- writes as stored, and claims --------------------------------------------------------------------------------------


def test_a_read_without_writes_stores_none_and_a_mutation_does() -> None:
    assert outcome_of(*pair("r")).writes is None
    stored = outcome_of(*pair("r", method="POST")).writes
    assert stored is not None and (stored.main, stored.shadow) == ([], [])
    half = outcome_of(edge("r"), response("r", method="POST"), write("r")).writes
    assert half is not None and half.shadow is None and half.main is not None
    assert [(row["entity"], row["key"], row["op"]) for row in half.main] == [("news", "1", "insert")]


POISON = [
    b'{"n": 1e999}',
    b'{"n": ' + b"9" * 5_000 + b"}",
    b'{"n": ' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"text": "\\u0000"}',
    b'{"a": 1, "a": 2}',
]


@pytest.mark.parametrize("image", POISON)
def test_whatever_a_row_holds_the_journal_can_be_read_again(image: bytes) -> None:
    record = json.dumps(write("r", data={"@": 1})).encode().replace(b'{"@": 1}', image)
    row = seen_raw(record)
    outcome, claims = JUDGE.judge("r", [row, *all_seen(*pair("r", writes=1))])
    entry = Entry(
        partition=0,
        n=0,
        worker="w",
        at=TS,
        resolved=(Resolved(outcome=outcome, events=()),),
        claims=tuple(claims),
    )
    assert encode_entry(decode_entry(encode_entry(entry)))


def seen_raw(value: bytes) -> Seen:
    events, rejections = Codec(CodecConfig()).decode(Source.MAIN_WRITES, 0, [StubRecord(value=value)])
    assert not rejections
    return events[0]


def test_secrets_in_rows_are_neither_stored_nor_claimed() -> None:
    strict = judge(policy=Policy.default(redact=["api_key"]))
    records = all_seen(
        *pair("r", writes=1), write("r", data={"api_key": "hunter2", "a": 1}), write("r", "shadow")
    )
    text = repr(msgspec.json.encode(strict.judge("r", records)))
    assert "hunter2" not in text


def test_stored_rows_are_bounded_and_say_how_many_more_there_were() -> None:
    many = [write("r", seq=n, key=n) for n in range(WRITE_ROWS_MAX + 5)]
    stored = outcome_of(*pair("r", writes=None), *many).writes
    assert stored is not None and stored.main is not None
    assert len(stored.main) == WRITE_ROWS_MAX + 1
    assert stored.main[-1]["key"] == "5 more rows"


def places(claims: list[Claim]) -> set[tuple[str, str]]:
    return {(claim.scope, claim.key) for claim in claims}


def test_a_write_claims_its_row_and_the_idempotency_key_of_its_side() -> None:
    claims = claims_of(edge("r", idempotency_key="k"), write("r"), write("r", "shadow", key=2))
    assert places(claims) == {
        ("idempotency", "main:k"), ("entity", "news/1"), ("idempotency", "shadow:k"), ("entity", "news/2"),
    }  # fmt: skip
    assert {claim.claimant.side for claim in claims} == {"main", "shadow"}


def test_what_was_not_applied_claims_nothing_nor_does_the_reference() -> None:
    assert (
        claims_of(edge("r", idempotency_key="k"), write("r", status="failed"), write("r", "reference")) == []
    )


@pytest.mark.parametrize("left_out", range(5))
def test_further_records_never_take_a_claim_back(left_out: int) -> None:
    records = [
        edge("r", idempotency_key="a"), response("r", idempotency_key="b"),
        response("r", ts=TS - 1, idempotency_key="c"),
        write("r", idempotency_key="d", seq=1), write("r", "shadow", idempotency_key="e"),
    ]  # fmt: skip
    fewer = claims_of(*(each for n, each in enumerate(records) if n != left_out))
    assert places(fewer) <= places(claims_of(*records))


def test_a_claim_is_as_old_as_the_first_of_its_writes() -> None:
    claims = claims_of(
        write("r", ts=TS + 3, seq=0), write("r", ts=TS + 1, seq=2), write("r", ts=TS + 1, seq=1)
    )
    assert [(claim.claimant.ts, claim.claimant.seq) for claim in claims] == [(TS + 1, 1)]


def test_claims_tell_equal_data_however_it_is_written_down() -> None:
    def digest(row: bytes) -> int:
        record = json.dumps(write("r", data={"@": 1})).encode().replace(b'{"@": 1}', row)
        return JUDGE.judge("r", [seen_raw(record)])[1][0].claimant.digest

    assert digest(b'{"a": 1, "b": 2.0}') == digest(b'{"b":2,"a":1.0}') != digest(b'{"a":1,"b":3}')


def test_an_idempotency_claim_is_of_the_operation_and_not_of_generated_keys() -> None:
    def digests(key: int, title: str) -> set[int]:
        made = claims_of(edge("r", idempotency_key="k"), write("r", key=key, data={"title": title}))
        return {claim.claimant.digest for claim in made if claim.scope == "idempotency"}

    assert digests(1, "t") == digests(2, "t") != digests(1, "u")
