"""First write wins: who holds a key, who lost to whom, and why."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from verifier.core.conflict import (
    CLAIMANT_DATA_BYTES_MAX,
    IDEMPOTENCY,
    MAIN_CANARY,
    MAIN_SHADOW,
    bounded_claimant,
    conflict_id,
    conflicts_of,
    order_key,
    order_of,
)
from verifier.core.outcome import Claimant, Conflict


def _claimant(request_id: str, ts: float, *, side: str = "main", digest: int = 1, **more: Any) -> Claimant:
    return Claimant(side=side, request_id=request_id, ts=ts, digest=digest, **more)


def _found(scope: str, *claimants: Claimant, ttl_s: float = 10.0, timeout_s: float = 5.0) -> list[Conflict]:
    results = {
        tuple(conflicts_of(scope, "k", order, ttl_s=ttl_s, conflict_timeout_s=timeout_s, version=3))
        for order in itertools.islice(itertools.permutations(claimants), 24)
    }
    assert len(results) == 1, "the result depends on the order of arrival"
    return list(results.pop())


def _brief(conflicts: list[Conflict]) -> list[tuple[str, str, str]]:
    return [(c.kind, c.winner.request_id, c.loser.request_id) for c in conflicts]


def test_the_first_request_with_an_idempotency_key_holds_it() -> None:
    same, other = _claimant("b", 2.0), _claimant("c", 3.0, digest=2)
    found = _found(IDEMPOTENCY, _claimant("a", 1.0), same, other)
    assert _brief(found) == [("duplicate", "a", "b"), ("conflict", "a", "c")]
    first = found[0]
    assert (first.ts, first.version, first.strategy, first.key, first.scope) == (
        2.0,
        3,
        "first_write",
        "k",
        IDEMPOTENCY,
    )


def test_the_same_data_by_another_operation_is_a_conflict() -> None:
    found = _found(
        IDEMPOTENCY, _claimant("a", 1.0, operation="POST /x"), _claimant("b", 2.0, operation="PUT /x")
    )
    assert _brief(found) == [("conflict", "a", "b")]


def test_a_request_never_conflicts_with_itself() -> None:
    assert _found(IDEMPOTENCY, _claimant("a", 1.0), _claimant("a", 2.0, digest=2)) == []


def test_the_ttl_counts_from_the_holder_and_frees_the_key() -> None:
    at_the_end, after = _claimant("b", 11.0), _claimant("c", 11.5)
    assert _brief(_found(IDEMPOTENCY, _claimant("a", 1.0), at_the_end, after)) == [("duplicate", "a", "b")]
    # "c" holds the key from then on; "b" lost and can win nothing
    last = _claimant("d", 12.0)
    assert _brief(_found(IDEMPOTENCY, _claimant("a", 1.0), at_the_end, after, last)) == [
        ("duplicate", "a", "b"),
        ("duplicate", "c", "d"),
    ]


def test_an_earlier_write_that_comes_late_replaces_the_winner_and_keeps_the_record() -> None:
    before = _found(IDEMPOTENCY, _claimant("b", 2.0), _claimant("c", 3.0))
    after = _found(IDEMPOTENCY, _claimant("a", 1.0), _claimant("b", 2.0), _claimant("c", 3.0))
    assert _brief(after) == [("duplicate", "a", "b"), ("duplicate", "a", "c")]
    assert {c.id for c in before} < {c.id for c in after}


def test_equal_times_go_by_side_then_request_then_sequence() -> None:
    ordered = [
        _claimant("z", 0.5, side="shadow"),
        _claimant("b", 1.0, side="main", seq=0),
        _claimant("b", 1.0, side="main", seq=1),
        _claimant("c", 1.0, side="main"),
        _claimant("a", 1.0, side="canary"),
        _claimant("a", 1.0, side="shadow"),
    ]
    backwards = list(reversed(ordered))
    assert sorted(backwards, key=order_of) == ordered


def test_the_order_key_sorts_by_bytes_as_the_order_does() -> None:
    claimants = [
        _claimant(request_id, ts, side=side, seq=seq)
        for ts in (-1e300, -2.5, -1e-300, -0.0, 0.0, 1e-300, 1.0, 1.0000000000000002, 1.7e9, 1e300)
        for side in ("main", "canary", "shadow")
        for request_id in ("a", "a-", "aa", "A", "b")
        for seq in (-1, 0, 9, 10)
    ]
    by_key = sorted(claimants, key=lambda c: order_key(c).encode())
    assert [order_of(c) for c in by_key] == sorted(order_of(c) for c in claimants)
    assert len({order_key(c) for c in claimants}) == len({order_of(c) for c in claimants})


def test_main_and_canary_conflict_when_they_write_other_data_in_time() -> None:
    main = _claimant("a", 1.0, entity="news")
    assert _brief(_found(MAIN_CANARY, main, _claimant("b", 6.0, side="canary", digest=2))) == [
        ("conflict", "a", "b")
    ]
    assert _found(MAIN_CANARY, main, _claimant("b", 6.0, side="canary")) == []  # the same data
    assert _found(MAIN_CANARY, main, _claimant("b", 6.1, side="canary", digest=2)) == []  # too late to clash
    assert _found(MAIN_CANARY, main, _claimant("b", 2.0, digest=2)) == []  # the same side: a plain update
    (found,) = _found(MAIN_CANARY, _claimant("b", 0.5, side="canary", digest=2), main)
    assert (found.winner.side, found.loser.side, found.entity) == ("canary", "main", "news")


def test_a_loser_between_main_and_canary_wins_nothing() -> None:
    found = _found(
        MAIN_CANARY,
        _claimant("a", 1.0),
        _claimant("b", 2.0, side="canary", digest=2),
        _claimant("c", 3.0, digest=3),
    )
    assert _brief(found) == [("conflict", "a", "b")]


def _pair(request_id: str, main_ts: float, shadow_ts: float) -> list[Claimant]:
    return [_claimant(request_id, main_ts), _claimant(request_id, shadow_ts, side="shadow")]


def test_writes_the_shadow_applied_in_another_order_are_found_pair_by_pair() -> None:
    in_order = [*_pair("a", 1.0, 1.5), *_pair("b", 2.0, 2.5)]
    assert _found(MAIN_SHADOW, *in_order) == []
    (found,) = _found(MAIN_SHADOW, *_pair("a", 1.0, 9.0), *_pair("b", 2.0, 2.5))
    assert (found.kind, found.winner.request_id, found.winner.side) == ("order", "a", "main")
    assert (found.loser.request_id, found.loser.side, found.ts) == ("b", "shadow", 2.5)
    reversed_all = [*_pair("a", 1.0, 9.0), *_pair("b", 2.0, 8.0), *_pair("c", 3.0, 7.0)]
    found_all = _found(MAIN_SHADOW, *reversed_all)
    assert sorted(_brief(found_all)) == [("order", "a", "b"), ("order", "a", "c"), ("order", "b", "c")]
    assert len({c.id for c in found_all}) == 3


def test_a_request_the_shadow_has_not_written_yet_has_no_order() -> None:
    assert _found(MAIN_SHADOW, _claimant("a", 1.0), *_pair("b", 2.0, 2.5)) == []


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(ValueError, match="scope 'other'"):
        conflicts_of("other", "k", [], ttl_s=1.0, conflict_timeout_s=1.0, version=0)


def test_ids_tell_key_and_loser_apart_whatever_their_texts() -> None:
    winner, loser = _claimant("w", 1.0), _claimant("l", 2.0)
    one = conflict_id("s", "ab", "conflict", winner, loser)
    assert one == conflict_id("s", "ab", "duplicate", _claimant("other", 0.0), loser)
    assert one != conflict_id("sa", "b", "conflict", winner, loser)
    assert one != conflict_id("s", "ab", "order", winner, loser)
    assert len(one) == 32


def test_large_data_is_cut_to_an_excerpt_that_says_so() -> None:
    small = _claimant("a", 1.0, data={"text": "x" * 100})
    assert bounded_claimant(small) is small
    large = bounded_claimant(_claimant("a", 1.0, digest=7, data={"text": "é" * CLAIMANT_DATA_BYTES_MAX}))
    assert large.digest == 7
    assert large.data["$cut"]["bytes"] == 2 * CLAIMANT_DATA_BYTES_MAX + len('{"text":""}')
    assert large.data["$cut"]["begins"].startswith('{"text":"éé')
