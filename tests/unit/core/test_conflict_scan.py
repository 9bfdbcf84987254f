"""What a batch of claims brings about, revises or takes back."""

from __future__ import annotations

from collections.abc import Sequence

from verifier.core.conflict import IDEMPOTENCY, MAIN_CANARY, MAIN_SHADOW
from verifier.core.conflict_scan import ENTITY, claimed_by, scan
from verifier.core.outcome import Claim, Claimant, Conflict
from verifier.testing import TS

TTL_S, TIMEOUT_S = 3600.0, 30.0


def claimant(request_id: str, at: float, side: str = "main", digest: int = 0) -> Claimant:
    return Claimant(
        side=side, request_id=request_id, ts=TS + at, operation="POST /x", entity="news", digest=digest
    )


def scanned(
    scope: str, key: str, claimants: Sequence[Claimant], batch: Sequence[Claimant], *, revises: bool = False
) -> tuple[list[Conflict], list[str]]:
    claims = [Claim(scope=scope, key=key, claimant=each, revises=revises) for each in batch]
    return scan([(scope, key, 7, claimants)], claims, ttl_s=TTL_S, conflict_timeout_s=TIMEOUT_S)


def pairs(conflicts: Sequence[Conflict]) -> list[tuple[str, str, str, str]]:
    return [(c.scope, c.kind, c.winner.request_id, c.loser.request_id) for c in conflicts]


def test_the_second_request_with_a_key_is_a_duplicate_or_a_conflict() -> None:
    first = claimant("a", 0)
    for digest, kind in ((0, "duplicate"), (1, "conflict")):
        second = claimant("b", 5, digest=digest)
        found, gone = scanned(IDEMPOTENCY, "main:k", [first, second], [second])
        assert (pairs(found), gone) == ([(IDEMPOTENCY, kind, "a", "b")], [])
        assert (found[0].version, found[0].key) == (7, "k")


def test_a_claim_in_order_tells_only_of_itself() -> None:
    members = [claimant(request_id, at) for at, request_id in enumerate("abc")]
    found, gone = scanned(IDEMPOTENCY, "main:k", members, members[2:])
    assert (pairs(found), gone) == ([(IDEMPOTENCY, "duplicate", "a", "c")], [])


def test_an_earlier_write_that_comes_late_replaces_the_winner_and_revises_the_records() -> None:
    members = [claimant("late", -1), claimant("a", 0), claimant("b", 1)]
    before, _ = scanned(IDEMPOTENCY, "main:k", members[1:], members[2:])
    found, _ = scanned(IDEMPOTENCY, "main:k", members, members[:1])
    assert pairs(found) == [(IDEMPOTENCY, "duplicate", "late", "a"), (IDEMPOTENCY, "duplicate", "late", "b")]
    assert found[1].id == before[0].id


def test_what_no_longer_conflicts_is_taken_back() -> None:
    """The winner it was too late for has gone to another: beyond the time within which writes conflict."""
    a, b = claimant("a", 0), claimant("b", 25, "canary", digest=1)
    (old,), _ = scanned(ENTITY, "news/1", [a, b], [b])
    earlier = claimant("a", -10)
    found, gone = scanned(ENTITY, "news/1", [earlier, b], [earlier], revises=True)
    assert found == []
    assert old.id in gone


def test_the_claim_that_lost_is_no_loser_once_it_is_revised_to_be_the_first() -> None:
    a, b = claimant("a", 0), claimant("b", 5)
    (old,), _ = scanned(IDEMPOTENCY, "main:k", [a, b], [b])
    first = claimant("b", -5)
    found, gone = scanned(IDEMPOTENCY, "main:k", [first, a], [first], revises=True)
    assert pairs(found) == [(IDEMPOTENCY, "duplicate", "b", "a")]
    assert old.id in gone


def test_rows_conflict_between_main_and_canary_and_not_within_a_side() -> None:
    a, b, c = claimant("a", 0), claimant("b", 1, digest=1), claimant("c", 2, "canary", digest=2)
    assert scanned(ENTITY, "news/1", [a, b], [b]) == ([], [])
    found, _ = scanned(ENTITY, "news/1", [a, b, c], [c])
    assert pairs(found) == [(MAIN_CANARY, "conflict", "a", "c")]
    assert found[0].key == "1"


def order_of_two(revised_at: float) -> list[Claimant]:
    return [
        claimant("a", 0),
        claimant("b", 1),
        claimant("b", 2, "shadow"),
        claimant("a", revised_at, "shadow"),
    ]


def test_the_same_writes_in_another_order_are_one_conflict() -> None:
    members = order_of_two(3)
    for newest in members:
        found, gone = scanned(ENTITY, "news/1", members, [newest])
        assert (pairs(found), gone) == ([(MAIN_SHADOW, "order", "a", "b")], [])


def test_an_order_that_a_revision_puts_right_is_taken_back() -> None:
    (old,), _ = scanned(ENTITY, "news/1", order_of_two(3), order_of_two(3)[3:])
    members = order_of_two(1.5)
    found, gone = scanned(ENTITY, "news/1", members, members[3:], revises=True)
    assert found == []
    assert old.id in gone


def test_one_request_on_both_sides_is_no_conflict() -> None:
    members = [claimant("a", 0), claimant("a", 1, "canary", digest=1), claimant("a", 2, "shadow", digest=2)]
    assert scanned(ENTITY, "news/1", members, members) == ([], [])


def test_a_batch_that_is_done_twice_finds_the_same() -> None:
    members = [claimant("a", 0), claimant("b", 1), claimant("c", 2)]
    assert scanned(IDEMPOTENCY, "main:k", members, members[1:]) == scanned(
        IDEMPOTENCY, "main:k", members, members[1:]
    )


def test_a_conflict_says_which_claims_it_is_about() -> None:
    for scope, key, sides in (
        (IDEMPOTENCY, "main:k:with:colons", ("main", "main")),
        (ENTITY, "news/1/2", ("main", "canary")),
    ):
        members = [claimant("a", 0, sides[0]), claimant("b", 1, sides[1], digest=1)]
        ((found,), _) = scanned(scope, key, members, members[1:])
        assert claimed_by(found) == (scope, key)
