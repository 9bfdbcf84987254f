"""Reading one request's part of a journal entry."""

from __future__ import annotations

import pytest

from verifier.core.journal import Entry, encode_entry, revisions_of
from verifier.core.outcome import EventRef, Outcome, Resolved, Verdict


def outcome(request_id: str, route: str = "GET /a") -> Outcome:
    return Outcome(request_id=request_id, ts=1.0, route=route, verdict=Verdict.MATCH, sides=())


def resolved(request_id: str, rev: int = 0, route: str = "GET /a") -> Resolved:
    return Resolved(outcome=outcome(request_id, route), events=(EventRef(0, rev, 7),), rev=rev)


ALL = (
    resolved("a"),
    resolved("a1"),
    resolved("b", route="a"),
    resolved("a", rev=1),
    resolved('odd"\\é\u2028'),
    Resolved(outcome=outcome("c"), events=(), was=outcome("a")),
)
ENTRY = encode_entry(Entry(partition=3, n=5, worker="w-1", at=9.5, resolved=ALL))


@pytest.mark.parametrize(
    "request_id", ["a", "a1", "b", "c", 'odd"\\é\u2028', "", "nobody", "GET /a", "outcome"]
)
def test_of_an_entry_exactly_the_requests_own_revisions_are_read(request_id: str) -> None:
    found = revisions_of(ENTRY, request_id)
    assert found.resolved == tuple(each for each in ALL if each.outcome.request_id == request_id)
    assert (found.at, found.worker) == (9.5, "w-1")


def test_an_entry_without_requests_says_nothing_of_any() -> None:
    assert revisions_of(encode_entry(Entry(partition=0, n=0, worker="w", at=1.0)), "a").resolved == ()
