"""What is the same costs nothing: which functions run is counted, for a clock would prove nothing on a busy machine."""

from __future__ import annotations

import json
import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest
from msgspec import Raw

from verifier.core.compare import compare_responses
from verifier.core.difference import NOTHING, Comparison
from verifier.core.events import Response
from verifier.core.policy import Policy

POLICY = Policy.default()
BODY = json.dumps({"items": [{"id": n, "title": "some words", "price": n / 4} for n in range(40)]}).encode()
HEADERS = {
    "content-type": "application/json", "date": "Mon, 02 Mar 2026 10:00:01 GMT", "server": "nginx",
    "x-request-id": "r1", "vary": "accept-encoding", "cache-control": "no-store",
}  # fmt: skip
READING = {"decode", "raw_decode", "loads", "parse", "read_plain", "read_content", "read_media", "a2b_base64"}
MATCHING = {"match", "fullmatch", "search", "findall", "finditer", "split", "sub"}


def answer(body: bytes = BODY, **headers: str) -> Response:
    # Each answer has bytes of its own, as if it came in its own record.
    return Response(
        request_id="r", side="main", ts=1.0, method="GET", path="/", status=200, body=Raw(bytes(bytearray(body))),
        headers=Raw(json.dumps(HEADERS | headers).encode()),
    )  # fmt: skip


def calls_of(main: Response, other: Response) -> tuple[Comparison, Counter[str]]:
    """Compare, and count the functions that ran, Python's and C's. Caches are warm: an earlier request filled them."""
    compare_responses(main, other, route="GET /", policy=POLICY)
    calls: Counter[str] = Counter()

    def note(frame: FrameType, what: str, argument: Any) -> None:
        if what == "call":
            calls[frame.f_code.co_name] += 1
        elif what == "c_call":
            calls[argument.__name__] += 1

    sys.setprofile(note)
    try:
        found = compare_responses(main, other, route="GET /", policy=POLICY)
    finally:
        sys.setprofile(None)
    del calls["setprofile"]
    return found, calls


def test_identical_answers_are_not_read() -> None:
    found, calls = calls_of(answer(), answer())
    assert found is NOTHING
    assert not calls.keys() & (READING | MATCHING)
    assert calls.total() <= 3, calls


@pytest.mark.parametrize("body", [BODY, b'"not JSON to anyone: \\x', b"", b"[" * 5000], ids=len)
def test_identical_bodies_are_not_read_when_headers_differ(body: bytes) -> None:
    found, calls = calls_of(answer(body), answer(body, date="Mon, 02 Mar 2026 10:00:02 GMT", server="envoy"))
    assert [each.path for each in found.ignored] == ["date", "server"]
    assert not found.differences and not found.doubts
    assert calls["decode"] == 2, "the headers of each side"
    assert not calls.keys() & (READING - {"decode"} | MATCHING), calls


def test_identical_headers_are_not_read_when_bodies_differ() -> None:
    other = BODY.replace(b'"price": 2.5', b'"price": 2.6')
    found, calls = calls_of(answer(), answer(other))
    assert [each.path for each in found.differences] == ["/items/10/price"]
    assert "read_headers" not in calls
    assert not calls.keys() & MATCHING, calls


def test_of_bodies_that_differ_only_what_differs_is_read() -> None:
    other = BODY.replace(b'"price": 2.5', b'"price": 2.6')
    _, calls = calls_of(answer(), answer(other))
    assert calls["read_plain"] == 2, "the two prices"
    assert not calls.keys() & {"parse", "raw_decode"}
    assert calls.total() < 150, calls


def test_rules_for_headers_are_looked_up_by_name_and_not_matched_again() -> None:
    other = answer(BODY, **{"x-request-id": "r2", "date": "Mon, 02 Mar 2026 10:00:09 GMT"})
    found, calls = calls_of(answer(), other)
    assert len(found.ignored) == 2
    assert not calls.keys() & {*MATCHING, "_find", "concerns", "_find_route"}, calls
