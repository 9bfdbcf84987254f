"""However claims are batched, ordered among workers and repeated after crashes: the same conflicts stand at the end."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.core.conflict import IDEMPOTENCY, MAIN_CANARY, MAIN_SHADOW, Held, Identity, conflicts_of, merge
from verifier.core.conflict_scan import ENTITY, scan
from verifier.core.outcome import Claim, Claimant, Conflict
from verifier.testing import TS

TTL_S, TIMEOUT_S = 40.0, 15.0
Place = tuple[str, str]


def claims_of(requests: int, rng: Random) -> list[list[Claim]]:
    """For each request the batches of its claims, in the order its partition makes them: a verdict, then revisions."""
    histories = []
    for n in range(requests):
        served = rng.random() < 0.4
        sides = ["canary"] if served else rng.choice((["main"], ["main", "shadow"]))
        made = {
            (side, place): rng.uniform(0, 60)
            for side in sides
            for place in places(side)
            if rng.random() < 0.8
        }
        history = []
        for revision in range(rng.choice((1, 1, 1, 2, 3))):
            history += [
                Claim(
                    scope=scope,
                    key=key,
                    claimant=Claimant(
                        side=side, request_id=f"r{n}", ts=TS + round(ts, 1), operation="op", entity="e",
                        digest=rng.randint(0, 1),
                    ),
                    rev=revision + 1,
                    revises=revision > 0,
                )
                for (side, (scope, key)), ts in made.items()
            ]  # fmt: skip
            # further records only ever make a claim earlier
            made = {identity: ts - rng.choice((0, 0, 10)) for identity, ts in made.items()}
        histories.append(history)
    return histories


def places(side: str) -> tuple[Place, ...]:
    return ((IDEMPOTENCY, f"{side}:k"), (ENTITY, "e/1"))


class Workers:
    """The claims' store, and the conflicts as those who apply claims to it keep them."""

    def __init__(self) -> None:
        self.sets: dict[Place, dict[Identity, Held]] = {}
        self.versions: dict[Place, int] = {}
        self.conflicts: dict[str, Conflict] = {}

    def apply(self, batch: list[Claim]) -> list[tuple[str, str, int, list[Claimant]]]:
        touched: dict[Place, list[Claim]] = {}
        for claim in batch:
            touched.setdefault((claim.scope, claim.key), []).append(claim)
        for place, claims in touched.items():
            held: Mapping[Identity, Held] = self.sets.get(place, {})
            self.sets[place], changed, _ = merge(place[0], held, claims)
            self.versions[place] = self.versions.get(place, 0) + changed
        return [
            (*at, self.versions[at], [held.claimant for held in self.sets[at].values()]) for at in touched
        ]

    def record(self, sets: list[tuple[str, str, int, list[Claimant]]], batch: list[Claim]) -> None:
        found, gone = scan(sets, batch, ttl_s=TTL_S, conflict_timeout_s=TIMEOUT_S)
        assert not {conflict.id for conflict in found} & set(gone)
        for conflict_id in gone:
            self.conflicts.pop(conflict_id, None)
        for conflict in found:
            self.conflicts[conflict.id] = conflict


def batches_of(histories: list[list[Claim]], rng: Random) -> list[list[Claim]]:
    """Interleave the requests' claims at random, each request's own in their order, and cut them into batches."""
    left = [list(history) for history in histories if history]
    mixed: list[Claim] = []
    while left:
        history = rng.choice(left)
        mixed.append(history.pop(0))
        left = [each for each in left if each]
    batches: list[list[Claim]] = []
    while mixed:
        size = rng.randint(1, 4)
        batches.append(mixed[:size])
        mixed = mixed[size:]
    return batches


def standing(workers: Workers) -> set[tuple[str, str, Claimant, Claimant]]:
    return {(c.scope, c.kind, c.winner, c.loser) for c in workers.conflicts.values()}


def expected(workers: Workers) -> set[tuple[str, str, Claimant, Claimant]]:
    """The conflicts of the whole sets."""
    found = set()
    for (set_scope, key), held in workers.sets.items():
        for scope in (MAIN_CANARY, MAIN_SHADOW) if set_scope == ENTITY else (set_scope,):
            sides = {MAIN_CANARY: ("main", "canary"), MAIN_SHADOW: ("main", "shadow")}.get(scope)
            members = [
                each.claimant for each in held.values() if sides is None or each.claimant.side in sides
            ]
            for c in conflicts_of(scope, key, members, ttl_s=TTL_S, conflict_timeout_s=TIMEOUT_S, version=0):
                found.add((c.scope, c.kind, c.winner, c.loser))
    return found


@settings(max_examples=300, deadline=None)
@given(requests=st.integers(2, 7), traffic=st.integers(0, 2**32), order=st.integers(0, 2**32))
def test_in_whatever_batches_claims_come_the_conflicts_are_those_of_the_whole_sets(
    requests: int, traffic: int, order: int
) -> None:
    histories = claims_of(requests, Random(traffic))
    ends = []
    for seed in (order, order + 1):
        workers = Workers()
        for batch in batches_of(histories, Random(seed)):
            workers.record(workers.apply(batch), batch)
        assert standing(workers) == expected(workers)
        ends.append(standing(workers))
    assert ends[0] == ends[1]


@settings(max_examples=300, deadline=None)
@given(requests=st.integers(2, 7), traffic=st.integers(0, 2**32), order=st.integers(0, 2**32))
def test_a_worker_that_dies_between_claiming_and_recording_does_no_harm(
    requests: int, traffic: int, order: int
) -> None:
    """Its batches are done again later, cut otherwise; a batch that was done may be done again as well."""
    rng = Random(order)
    workers = Workers()
    again: list[list[Claim]] = []
    batches = batches_of(claims_of(requests, Random(traffic)), rng)
    while batches or again:
        if again and (not batches or rng.random() < 0.4):
            batch = again.pop(0)
            workers.record(workers.apply(batch), batch)
            continue
        batch = batches.pop(0)
        sets = workers.apply(batch)
        if rng.random() < 0.4:
            cut = rng.randint(0, len(batch))
            again += [part for part in (batch[:cut], batch[cut:]) if part]
            continue
        workers.record(sets, batch)
        if rng.random() < 0.2:
            again.append(batch)
    assert standing(workers) == expected(workers)
