"""Merging claims has no order: whatever comes first, twice, or by another way, the set ends the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.core.conflict import IDEMPOTENCY, MAIN_CANARY, MAIN_SHADOW, Held, Identity, conflicts_of, merge
from verifier.core.outcome import Claim, Claimant

BOUND = 4
SCOPES = st.sampled_from([IDEMPOTENCY, "entity"])
SIDES = st.sampled_from(["main", "canary", "shadow"])
Set = dict[Identity, Held]


def _claim(request: int, side: str, ts: float, rev: int, digest: int) -> Claim:
    claimant = Claimant(side=side, request_id=f"r{request}", ts=ts, digest=digest, data=digest)
    return Claim(scope="any", key="k", claimant=claimant, rev=rev)


# Revisions that keep their time: any order at all must do.
_steady = st.builds(
    lambda request, side, rev, digest: _claim(request, side, float(request * 7 % 5), rev, digest),
    st.integers(0, 9),
    SIDES,
    st.integers(0, 2),
    st.integers(0, 2),
)


@st.composite
def _histories(draw: st.DrawFn) -> list[list[Claim]]:
    """Each claimant's revisions in order; a revision only ever adds earlier records, so times do not grow."""
    histories = []
    for request in range(draw(st.integers(1, 9))):
        times = sorted(draw(st.lists(st.integers(0, 20), min_size=1, max_size=3)), reverse=True)
        histories.append(
            [_claim(request, "main", float(ts), rev, draw(st.integers(0, 2))) for rev, ts in enumerate(times)]
        )
    return histories


def _merged(scope: str, *batches: Iterable[Claim], bound: int = BOUND) -> Set:
    held: Set = {}
    for batch in batches:
        held, _, _ = merge(scope, held, batch, claims_per_key_max=bound)
    return held


def _as_claims(held: Set) -> list[Claim]:
    return [Claim(scope="any", key="k", claimant=h.claimant, rev=h.rev) for h in held.values()]


@given(SCOPES, st.lists(_steady, max_size=14), st.data())
def test_any_order_and_any_batches_give_one_set(scope: str, claims: list[Claim], data: st.DataObject) -> None:
    other = data.draw(st.permutations(claims))
    cut = data.draw(st.integers(0, len(claims)))
    expected = _merged(scope, claims)
    assert _merged(scope, other[:cut], other[cut:]) == expected
    assert _merged(scope, *([claim] for claim in other)) == expected
    assert len(expected) <= BOUND


@given(SCOPES, st.lists(_steady, max_size=10), st.lists(_steady, max_size=10))
def test_merging_sets_is_commutative_and_idempotent(scope: str, one: list[Claim], two: list[Claim]) -> None:
    a, b = _merged(scope, one), _merged(scope, two)
    assert _merged(scope, _as_claims(a), _as_claims(b)) == _merged(scope, _as_claims(b), _as_claims(a))
    both = _merged(scope, one, two)
    again, changed, _ = merge(scope, both, one, claims_per_key_max=BOUND)
    assert (again, changed) == (both, False)


@given(SCOPES, *[st.lists(_steady, max_size=8)] * 3)
def test_merging_sets_is_associative(
    scope: str, one: list[Claim], two: list[Claim], three: list[Claim]
) -> None:
    def union(*sets: Set) -> Set:
        return _merged(scope, *map(_as_claims, sets))

    a, b, c = (_merged(scope, claims) for claims in (one, two, three))
    assert union(union(a, b), c) == union(a, union(b, c)) == _merged(scope, one + two + three)
    assert union(a, a) == a


def test_the_claims_meet_bounds_revisions_and_ties() -> None:
    """The laws would be easy to keep by sets that never fill and claims that never meet."""
    met: set[str] = set()

    @settings(max_examples=200, derandomize=True)
    @given(st.lists(_steady, max_size=14))
    def look(claims: list[Claim]) -> None:
        _, _, dropped = merge(IDEMPOTENCY, {}, claims, claims_per_key_max=BOUND)
        met.update(["bound"] if dropped else [])
        for one, two in combinations(claims, 2):
            if (one.claimant.side, one.claimant.request_id) == (two.claimant.side, two.claimant.request_id):
                met.add("revision" if one.rev != two.rev else "again" if one == two else "contradiction")
            elif one.claimant.ts == two.claimant.ts:
                met.add("tie")

    look()
    assert met == {"bound", "revision", "again", "contradiction", "tie"}


@given(SCOPES, _histories(), st.data())
def test_revisions_told_in_order_and_again_give_one_set(
    scope: str, histories: list[list[Claim]], data: st.DataObject
) -> None:
    def interleaved() -> Sequence[Claim]:
        waiting = [list(history) for history in histories]
        told: list[Claim] = []
        while any(waiting):
            history = data.draw(st.sampled_from([h for h in waiting if h]))
            told.append(history.pop(0))
            if data.draw(st.booleans()):
                told.append(data.draw(st.sampled_from(told)))
        return told

    assert _merged(scope, *([c] for c in interleaved())) == _merged(scope, *([c] for c in interleaved()))


@given(SCOPES, st.lists(_steady, max_size=14))
def test_the_set_says_it_changed_exactly_when_its_claimants_did(scope: str, claims: list[Claim]) -> None:
    held: Set = {}
    for claim in claims:
        before = {identity: h.claimant for identity, h in held.items()}
        held, changed, dropped = merge(scope, held, [claim], claims_per_key_max=BOUND)
        assert changed == (before != {identity: h.claimant for identity, h in held.items()})
        assert dropped in {0, 1}


@given(st.sampled_from([IDEMPOTENCY, MAIN_CANARY, MAIN_SHADOW]), st.lists(_steady, max_size=14), st.data())
def test_conflicts_are_a_function_of_the_set(scope: str, claims: list[Claim], data: st.DataObject) -> None:
    members = [h.claimant for h in _merged(scope, claims).values()]
    shuffled = data.draw(st.permutations(members))
    found = conflicts_of(scope, "k", members, ttl_s=2.0, conflict_timeout_s=2.0, version=1)
    assert found == conflicts_of(scope, "k", shuffled, ttl_s=2.0, conflict_timeout_s=2.0, version=1)
    assert len({conflict.id for conflict in found}) == len(found)
    if scope != MAIN_SHADOW:
        losers = {(c.loser.side, c.loser.request_id) for c in found}
        assert len(losers) == len(found)
        assert all((c.winner.side, c.winner.request_id) not in losers for c in found)
