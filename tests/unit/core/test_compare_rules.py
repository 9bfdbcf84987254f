"""Rules: which place they govern, what they excuse, and above all what they do not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from verifier.core.compare import compare_responses
from verifier.core.difference import Comparison
from verifier.core.events import Response
from verifier.core.policy import Policy, RuleError, rule_from_dict, unexpired


def compared(main: Any, other: Any, *rules: dict[str, Any], route: str = "GET /x") -> Comparison:
    sides = (
        Response(request_id="r", side="main", ts=1.0, method="GET", path="/x", status=200,
                 headers=Raw(b'{"content-type":"application/json"}'), body=Raw(json.dumps(body).encode()))
        for body in (main, other)
    )  # fmt: skip
    policy = Policy.default([rule_from_dict(rule) for rule in rules])
    return compare_responses(*sides, route=route, policy=policy)


def body_rule(field: str | None, action: str, /, **params: Any) -> dict[str, Any]:
    return {"kind": "body", "field": field, "action": action, "params": params}


@pytest.mark.parametrize(
    ("rule", "main", "other", "excused"),
    [
        (body_rule("/a", "ignore"), {"a": 1}, {}, True),
        (body_rule("/a", "ignore"), {"a": {"b": 1}}, {"a": {"b": 2}}, True),
        (body_rule("/a", "ignore"), {"ab": 1}, {"ab": 2}, False),
        (body_rule("/a/**", "ignore"), {"a": {"b": {"c": 1}}}, {"a": {}}, True),
        (body_rule("/a/**", "ignore"), {"a": {}}, {}, False),
        (body_rule("/*/b", "ignore"), {"a": {"b": 1}}, {"a": {"b": 2}}, True),
        (body_rule("/*/b", "ignore"), {"a": {"x": {"b": 1}}}, {"a": {"x": {"b": 2}}}, False),
        (body_rule("/**/b", "ignore"), {"a": {"x": {"b": 1}}}, {"a": {"x": {"b": 2}}}, True),
        (body_rule("/**/b", "ignore"), {"b": 1}, {"b": 2}, True),
        (body_rule("/x_*", "ignore"), {"x_1": 1}, {"x_1": 2}, True),
        (body_rule(None, "ignore"), [1], {"a": 2}, True),
        (body_rule("/a", "presence"), {"a": 1}, {"a": "x"}, True),
        (body_rule("/a", "presence"), {"a": 1}, {}, False),
        (body_rule("/a", "presence"), {"a": 1}, {"a": None}, False),
        (body_rule("/a", "presence"), {"a": {"b": 1}}, {"a": {}}, True),
        (body_rule("/a", "type"), {"a": 1}, {"a": 2}, True),
        (body_rule("/a", "type"), {"a": 1}, {"a": "2"}, False),
        (body_rule("/a", "type"), {"a": 1}, {"a": None}, False),
        (body_rule("/a", "tolerance", abs=0.1), {"a": 1.0}, {"a": 1.1}, True),
        (body_rule("/a", "tolerance", abs="0.1"), {"a": 1.0}, {"a": 1.1000001}, False),
        (body_rule("/a", "tolerance", rel=0.01), {"a": 100}, {"a": 101}, True),
        (body_rule("/a", "tolerance", rel=0.01), {"a": 100}, {"a": 102}, False),
        (body_rule("/a", "tolerance", abs=1), {"a": 0}, {"a": 10**70 + 1}, False),
        (body_rule("/a", "tolerance", abs=10**70), {"a": 0}, {"a": 10**70 + 1}, False),
        (body_rule("/a", "tolerance", abs=1000), {"a": 1}, {"a": "1"}, False),
        (body_rule("/a", "tolerance", abs=1000), {"a": 1}, {"a": True}, False),
        (body_rule("/a", "tolerance", abs=1000), {"a": 1}, {}, False),
        (body_rule("/a", "pattern", regex="[0-9]+"), {"a": "1"}, {"a": "22"}, True),
        (body_rule("/a", "pattern", pattern="[0-9]+"), {"a": "1"}, {"a": "2x"}, False),
        (body_rule("/a", "pattern", regex="[0-9]+"), {"a": "1"}, {"a": 2}, False),
        (body_rule("/a", "pattern", regex=".*"), {"a": "1"}, {"a": "2" * 5000}, False),
        (body_rule("/a", "unordered"), {"a": [1, 2, 2]}, {"a": [2, 1, 2]}, True),
        (body_rule("/a", "unordered"), {"a": [1, 2, 2]}, {"a": [1, 1, 2]}, False),
        (body_rule("/a", "unordered"), {"a": [1, 2]}, {"a": [2, 1, 3]}, False),
        (body_rule("/a", "unordered", key="/k"), {"a": [{"k": 1}, {"k": 2}]}, {"a": [{"k": 2}, {"k": 1}]}, True),
        (body_rule("/a", "unordered", key="/k"), {"a": [{"k": 1, "v": 1}, {"k": 2}]},
            {"a": [{"k": 2}, {"k": 1, "v": 2}]}, False),
        (body_rule("/b", "unordered"), {"a": [1, 2]}, {"a": [2, 1]}, False),
    ],
)  # fmt: skip
def test_a_rule_excuses_what_it_says_and_no_more(
    rule: dict[str, Any], main: Any, other: Any, excused: bool
) -> None:
    comparison = compared(main, other, rule)
    assert (comparison.differences == ()) is excused
    if excused:
        assert comparison.ignored
        assert {each.rule for each in comparison.ignored} == {rule_from_dict(rule).id}


@pytest.mark.parametrize(
    ("main", "other", "params", "excused"),
    [
        ("2026-11-22T10:00:00Z", "2026-11-22T11:00:00.5+01:00", {"seconds": 1}, True),
        ("2026-11-22T10:00:00Z", "2026-11-22T10:00:02Z", {"seconds": 1}, False),
        ("2026-11-22T10:00:00Z", 1795341600.25, {"seconds": 1}, True),
        ("2026-11-22T10:00:00Z", 1795341600250, {"seconds": 1, "unit": "ms"}, True),
        ("2026-11-22T10:00:00.123456789Z", "2026-11-22T10:00:00.123456788Z", {"seconds": 0}, False),
        ("2026-11-22T10:00:00", "2026-11-22T10:00:00Z", {"seconds": 1}, False),
        ("2026-11-22T10:00:00", "2026-11-22T10:00:00Z", {"seconds": 1, "naive": "utc"}, True),
        ("Sun, 22 Nov 2026 10:00:00 GMT", "2026-11-22T10:00:01Z", {"seconds": 1}, True),
        ("2026-13-22T10:00:00Z", "2026-13-22T10:00:01Z", {"seconds": 9}, False),
        ("now", "then", {"seconds": 9}, False),
    ],
)
def test_instants_are_compared_and_not_their_notation(
    main: Any, other: Any, params: Any, excused: bool
) -> None:
    rule = body_rule("/at", "time_tolerance", **params)
    assert (compared({"at": main}, {"at": other}, rule).differences == ()) is excused


@pytest.mark.parametrize(
    ("rules", "winner"),
    [
        ([body_rule("/a", "ignore") | {"id": "1"}, body_rule("/a", "type") | {"id": "2"}], "2"),
        (
            [body_rule("/a/b", "ignore") | {"id": "narrow"}, body_rule("/a/**", "type") | {"id": "broad"}],
            "narrow",
        ),
        (
            [
                body_rule("/a/b", "ignore") | {"id": "1", "route": "GET /x"},
                body_rule("/a/b", "type") | {"id": "2"},
            ],
            "1",
        ),
        (
            [
                body_rule("/a/b", "ignore") | {"id": "1", "route": "GET *"},
                body_rule("/a/b", "type") | {"id": "2"},
            ],
            "1",
        ),
        (
            [
                body_rule("/a/b", "ignore") | {"id": "1", "route": "POST *"},
                body_rule("/a/b", "type") | {"id": "2"},
            ],
            "2",
        ),
        ([body_rule("/a/*", "ignore") | {"id": "1"}, body_rule("/**", "type") | {"id": "2"}], "1"),
    ],
)
def test_the_most_specific_rule_wins_and_among_equals_the_later(
    rules: list[dict[str, Any]], winner: str
) -> None:
    comparison = compared({"a": {"b": 1}}, {"a": {"b": 2}}, *rules)
    assert [each.rule for each in comparison.ignored] == [winner]


def test_exact_takes_a_place_back_from_a_broader_rule() -> None:
    rules = body_rule("/meta", "ignore"), body_rule("/meta/version", "exact")
    comparison = compared({"meta": {"version": 1, "at": 1}}, {"meta": {"version": 2, "at": 2}}, *rules)
    assert [each.path for each in comparison.differences] == ["/meta/version"]
    assert [each.path for each in comparison.ignored] == ["/meta/at"]


def test_a_rule_replaces_an_earlier_one_of_the_same_id() -> None:
    exact = rule_from_dict({"id": "default:date", "kind": "header", "field": "date", "action": "exact"})
    rules = [rule for rule in Policy.default([exact]).describe() if rule["id"] == "default:date"]
    assert [(rule["action"], rule["origin"]) for rule in rules] == [("exact", "configured")]


def test_noise_in_elements_does_not_hide_an_insertion_or_an_order() -> None:
    rule = body_rule("/*/at", "ignore")
    main = [{"at": n, "v": n % 7, "w": n} for n in range(10)]
    other = [{"at": n + 100, "v": n % 7, "w": n} for n in range(10)]
    assert compared(main, other, rule).differences == ()
    removed = compared(main, other[:4] + other[5:], rule)
    assert [(each.path, each.change) for each in removed.differences] == [("/4", "missing")]
    swapped = compared(main, [other[1], other[0], *other[2:]], rule)
    assert [(each.path, each.change) for each in swapped.differences] == [("", "order")]


def test_elements_paired_without_their_noise_are_still_compared_with_it() -> None:
    rule = body_rule("/*/v", "tolerance", abs=1)
    main = [{"w": n, "v": 1} for n in range(4)]
    other = [{"w": n, "v": 2 if n else 100} for n in range(4)]
    comparison = compared(main, other[::-1], rule)
    assert sorted((each.path, each.change) for each in comparison.differences) == [
        ("", "order"),
        ("/0/v", "value"),
    ]
    assert len(comparison.ignored) == 3


def test_a_rule_for_every_kind_does_not_excuse_statuses_by_type() -> None:
    rule = {"kind": "*", "field": "**", "action": "type"}
    policy = Policy([rule_from_dict(rule)])
    assert policy.lookup("GET /x", "status", "") is None
    assert policy.lookup("GET /x", "body", "/a") is not None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"action": "ignore"}, "kind"),
        ({"kind": "body"}, "action"),
        ({"kind": "cookie", "action": "ignore"}, "kind"),
        ({"kind": "body", "action": "hide", "field": "/a"}, "action"),
        ({"kind": "body", "action": "ignore", "field": "a"}, "field"),
        ({"kind": "body", "action": "ignore", "field": "/a~2"}, "field"),
        ({"kind": "body", "action": "ignore", "field": "/**/**/**/a"}, "field"),
        ({"kind": "body", "action": "ignore", "field": "/" + "a" * 600}, "field"),
        ({"kind": "status", "action": "ignore", "field": "/a"}, "field"),
        ({"kind": "status", "action": "type"}, "action"),
        ({"kind": "header", "action": "ignore", "field": "/a"}, "field"),
        ({"kind": "body", "action": "ignore", "feild": "/a"}, "feild"),
        ({"kind": "body", "action": "ignore", "field": 7}, "field"),
        ({"kind": "body", "action": "tolerance", "field": "/a"}, "params.abs"),
        ({"kind": "body", "action": "tolerance", "field": "/a", "params": {"abs": -1}}, "params.abs"),
        ({"kind": "body", "action": "tolerance", "field": "/a", "params": {"abs": "NaN"}}, "params.abs"),
        ({"kind": "body", "action": "tolerance", "field": "/a", "params": {"by": 1}}, "params.by"),
        ({"kind": "body", "action": "time_tolerance", "field": "/a"}, "params.seconds"),
        ({"kind": "body", "action": "pattern", "field": "/a", "params": {"regex": "("}}, "params.regex"),
        ({"kind": "body", "action": "pattern", "field": "/a"}, "params.regex"),
        ({"kind": "body", "action": "unordered", "field": "/a", "params": {"key": "id"}}, "params.key"),
        ({"kind": "body", "action": "ignore", "field": "/a", "expires_at": "soon"}, "expires_at"),
        ({"kind": "body", "action": "ignore", "field": "/a", "params": [1]}, "params"),
    ],
)
def test_a_wrong_rule_says_which_part_is_wrong(given: dict[str, Any], field: str) -> None:
    with pytest.raises(RuleError) as caught:
        rule_from_dict(given)
    assert caught.value.field == field
    assert caught.value.expected in str(caught.value)


def test_an_expired_rule_is_left_out() -> None:
    rule = rule_from_dict(body_rule("/a", "ignore") | {"expires_at": "1970-01-01T00:01:40"})
    assert rule.expires_at == 100.0
    assert unexpired([rule], 99.0) == (rule,)
    assert unexpired([rule], 100.0) == ()


def test_every_default_rule_is_visible_with_its_reason() -> None:
    described = Policy.default().describe()
    assert {"default:date", "default:set-cookie", "default:content-length"} <= {
        each["id"] for each in described
    }
    assert all(
        each["reason"] and each["kind"] == "header" and each["origin"] == "default" for each in described
    )


def test_a_policy_finds_and_hides_secrets_in_json() -> None:
    policy = Policy(redact=["iban"])
    raw = b'{"user":{"IBAN":"DE1","name":"x"},"Set-Cookie":[1]}'
    assert policy.mentions_secret(raw)
    assert policy.redacted(raw) == {"user": {"IBAN": "[redacted]", "name": "x"}, "Set-Cookie": "[redacted]"}
    assert policy.redacted(b"no json") == "[redacted]"
    assert not policy.mentions_secret(b'{"name":"x"}')
