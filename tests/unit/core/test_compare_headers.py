"""Header fields compared by what they mean."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from msgspec import UNSET, Raw

from verifier.core.compare import compare_responses
from verifier.core.difference import NOTHING, Comparison
from verifier.core.events import Response
from verifier.core.headers import read_headers
from verifier.core.policy import Policy, rule_from_dict


def answer(headers: Any) -> Response:
    raw = headers if isinstance(headers, bytes) else json.dumps(headers).encode()
    return Response(
        request_id="r", side="main", ts=1.0, method="GET", path="/x", status=200,
        headers=UNSET if headers is None else Raw(raw),
    )  # fmt: skip


def compared(main: Any, other: Any, *rules: dict[str, Any]) -> Comparison:
    policy = Policy.default([rule_from_dict({"kind": "header"} | rule) for rule in rules])
    return compare_responses(answer(main), answer(other), route="GET /x", policy=policy)


@pytest.mark.parametrize(
    ("main", "other"),
    [
        ({"X-A": "1"}, {"x-a": "1"}),
        ({"x-a": " 1"}, {"x-a": "1 "}),
        ({"vary": "a, b"}, {"vary": ["a", "b"]}),
        ({"vary": "a,b"}, {"vary": "a , b"}),
        ({"x-a": "a, b"}, {"x-a": ["a", "b"]}),
        ({"content-type": "application/json"}, {"content-type": "Application/JSON; charset=UTF-8"}),
        ({"content-type": "text/html; charset=utf-8"}, {"content-type": 'text/html;Charset="UTF-8"'}),
        ([["X-A", "1"], ["x-a", "2"]], {"x-a": ["1", "2"]}),
        ({"x-a": 1}, {"x-a": "1"}),
        (b'{"x-a":"1","x-a":"2"}', {"x-a": ["1", "2"]}),
    ],
)
def test_equal_headers_in_another_form(main: Any, other: Any) -> None:
    assert compared(main, other) is NOTHING
    assert compared(other, main) is NOTHING


@pytest.mark.parametrize(
    ("main", "other", "path", "change"),
    [
        ({"x-a": "1"}, {"x-a": "2"}, "x-a", "value"),
        ({"x-a": "a"}, {"x-a": "A"}, "x-a", "value"),
        ({"x-a": "1"}, {}, "x-a", "missing"),
        ({}, {"x-a": ""}, "x-a", "extra"),
        ({"vary": "a, b"}, {"vary": "b, a"}, "vary", "order"),
        ({"vary": "a, b"}, {"vary": "a, b, b"}, "vary", "value"),
        ({"link": '<a,b>; x="c,d"'}, {"link": '<a, b>; x="c,d"'}, "link", "value"),
        ({"content-type": "text/html"}, {"content-type": "text/html; charset=utf-8"}, "content-type", "value"),
        ({"content-type": "application/json; charset=latin1"}, {"content-type": "application/json"}, "content-type",
            "value"),
        ({"content-type": "application/json"}, {"content-type": "application/problem+json"}, "content-type", "value"),
        (b'{"x-a":"1","x-a":"2"}', {"x-a": "2"}, "x-a", "value"),
        (b'{"x-a" :"1","x-a":"2"}', {"x-a": "2"}, "x-a", "value"),
    ],
)  # fmt: skip
def test_a_header_that_differs(main: Any, other: Any, path: str, change: str) -> None:
    (difference,) = compared(main, other).differences
    assert (difference.kind, difference.path, difference.field, difference.change) == (
        "header",
        path,
        path,
        change,
    )


def test_headers_that_were_not_captured_are_not_compared() -> None:
    assert compared(None, {"x-a": "1"}) is NOTHING
    assert compared({"x-a": "1"}, None) is NOTHING


@pytest.mark.parametrize("raw", [b"[1]", b'"a"', b'{"a":null}', b'{"a":{"b":1}}', b"{", b'{"\xff":"1"}'])
def test_headers_that_cannot_be_read_are_a_doubt(raw: bytes) -> None:
    assert compared(raw, {"x-a": "1"}).doubts == ("headers_unreadable",)


def test_default_rules_excuse_what_belongs_to_the_connection() -> None:
    main = {
        "date": "a",
        "server": "uvicorn",
        "content-length": "1",
        "x-request-id": "1",
        "set-cookie": "sid=1",
    }
    other = {
        "date": "b",
        "server": "falcon",
        "transfer-encoding": "chunked",
        "proxy-status": "x",
        "x-request-id": "2",
        "set-cookie": "sid=2",
    }
    comparison = compared(main, other)
    assert comparison.differences == ()
    assert len(comparison.ignored) == 7
    cookie = next(each for each in comparison.ignored if each.path == "set-cookie")
    assert (cookie.main, cookie.shadow) == ("[redacted]", "[redacted]")
    for name in ("date", "server", "x-request-id", "traceparent", "x-response-time"):
        (absent,) = compared({name: "1"}, {}).differences
        assert (absent.path, absent.change) == (name, "missing")
    lost = compared({"set-cookie": "sid=1"}, {})
    assert [(each.path, each.change, each.main) for each in lost.differences] == [
        ("set-cookie", "missing", "[redacted]")
    ]


@pytest.mark.parametrize(
    ("rule", "main", "other", "excused"),
    [
        ({"field": "X-A", "action": "ignore"}, "1", "2", True),
        ({"field": "x-*", "action": "presence"}, "1", "2", True),
        ({"field": "x-a", "action": "tolerance", "params": {"abs": 1}}, "1", "2", True),
        ({"field": "x-a", "action": "tolerance", "params": {"abs": 1}}, "1", "3", False),
        ({"field": "x-a", "action": "tolerance", "params": {"abs": 1}}, "1", "2x", False),
        ({"field": "x-a", "action": "time_tolerance", "params": {"seconds": 1}}, "Sun, 22 Nov 2026 10:00:00 GMT",
            "Sun, 22 Nov 2026 10:00:01 GMT", True),
        ({"field": "x-a", "action": "pattern", "params": {"regex": "W/.*"}}, "W/1", "W/2", True),
        ({"field": "x-a", "action": "unordered"}, ["1", "2"], ["2", "1"], True),
        ({"field": "x-a", "action": "unordered"}, ["1", "2"], ["2", "2"], False),
        ({"field": "x-b", "action": "ignore"}, "1", "2", False),
    ],
)  # fmt: skip
def test_rules_for_headers(rule: dict[str, Any], main: Any, other: Any, excused: bool) -> None:
    assert (compared({"x-a": main}, {"x-a": other}, rule).differences == ()) is excused


@pytest.mark.parametrize(
    "value", ['"' * 100_000, "<" * 100_000, ";" * 100_000, ';a="' * 25_000, "\\" + '"\\' * 50_000]
)
def test_no_header_takes_long_to_compare(value: str) -> None:
    began = time.process_time()
    for name in ("vary", "link", "content-type", "x-a"):
        assert compared({name: value}, {name: value + "x"}).differences
    assert time.process_time() - began < 2.0


def test_names_are_read_in_lower_case() -> None:
    assert read_headers(Raw(b'{"X-A":"1","B":["2","3"]}')) == {"x-a": "1", "b": ["2", "3"]}
    assert read_headers(UNSET) is None
