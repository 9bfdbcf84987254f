"""Which conflicts a batch of claims brings about, revises or takes back, given the sets of the keys it touched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from verifier.core.conflict import (
    IDEMPOTENCY,
    MAIN_CANARY,
    MAIN_SHADOW,
    conflict_id,
    conflicts_of,
    order_of,
)
from verifier.core.outcome import Claim, Claimant, Conflict

ENTITY = "entity"
"""Scope of claims on rows: one set of claimants serves both scopes of conflicts about rows."""

_SIDES = {MAIN_CANARY: ("main", "canary"), MAIN_SHADOW: ("main", "shadow"), IDEMPOTENCY: None}


def scan(
    sets: Iterable[tuple[str, str, int, Sequence[Claimant]]],
    batch: Sequence[Claim],
    *,
    ttl_s: float,
    conflict_timeout_s: float,
    again: bool = False,
) -> tuple[list[Conflict], list[str]]:
    """Return the conflicts to record and the ids of those to take back.

    `sets` holds (scope, key, version, claimants) as they are with the batch's claims merged in. Recording the same
    conflict again is harmless, so a batch that is done twice comes to the same end.

    `again`: the claims are told to a store that has lost its memory. Who claimed when it knew less, after an earlier
    loss, may have found what does not hold: also the newest claim of a key is no news then.
    """
    fresh: dict[tuple[str, str], set[tuple[str, str]]] = {}
    revised: set[tuple[str, str]] = set()
    for claim in batch:
        place = (claim.scope, claim.key)
        fresh.setdefault(place, set()).add((claim.claimant.side, claim.claimant.request_id))
        if claim.revises:
            revised.add(place)
    conflicts: list[Conflict] = []
    retracted: list[str] = []
    for set_scope, key, version, claimants in sets:
        place = (set_scope, key)
        mine = fresh.get(place, set())
        for scope in (MAIN_CANARY, MAIN_SHADOW) if set_scope == ENTITY else (set_scope,):
            members = _members(scope, claimants)
            if len({claimant.request_id for claimant in members}) < 2:
                continue
            found = conflicts_of(
                scope, key, members, ttl_s=ttl_s, conflict_timeout_s=conflict_timeout_s, version=version
            )
            newest = max(order_of(claimant) for claimant in members)
            in_order = (
                not again
                and place not in revised
                and all(order_of(c) == newest for c in members if (c.side, c.request_id) in mine)
            )
            conflicts += [
                replace(conflict, key=_plain_key(conflict))
                for conflict in found
                if not (in_order and scope != MAIN_SHADOW) or _touches(conflict, mine)
            ]
            if not in_order:
                retracted += _taken_back(scope, key, members, found, place in revised)
    return conflicts, retracted


def _plain_key(conflict: Conflict) -> str:
    """The key as people know it: the idempotency key without its side, the row's key without its entity."""
    if conflict.scope == IDEMPOTENCY:
        return conflict.key.removeprefix(f"{conflict.winner.side}:")
    return conflict.key.removeprefix(f"{conflict.entity}/")


def claimed_by(conflict: Conflict) -> tuple[str, str]:
    """The (scope, key) of the claims that a conflict found by `scan` is about."""
    if conflict.scope == IDEMPOTENCY:
        return IDEMPOTENCY, f"{conflict.winner.side}:{conflict.key}"
    return ENTITY, f"{conflict.entity}/{conflict.key}"


def _members(scope: str, claimants: Sequence[Claimant]) -> list[Claimant]:
    sides = _SIDES[scope]
    members = [claimant for claimant in claimants if sides is None or claimant.side in sides]
    present = {claimant.side for claimant in members}
    return members if sides is None or present == set(sides) else []


def _touches(conflict: Conflict, identities: set[tuple[str, str]]) -> bool:
    return any((c.side, c.request_id) in identities for c in (conflict.winner, conflict.loser))


def _taken_back(
    scope: str, key: str, members: Sequence[Claimant], found: Sequence[Conflict], revised: bool
) -> list[str]:
    """Ids that may have been recorded of these claimants before, and hold no more."""
    now = {conflict.id for conflict in found}
    if scope == MAIN_SHADOW:
        if not revised:
            return []
        main = [claimant for claimant in members if claimant.side == "main"]
        shadow = [claimant for claimant in members if claimant.side == "shadow"]
        ids = {
            conflict_id(scope, key, "order", winner, loser)
            for winner in main
            for loser in shadow
            if winner.request_id != loser.request_id
        }
        return sorted(ids - now)
    # Every claimant may have lost before; even the first, if its claim was later then and has been revised.
    ids = {conflict_id(scope, key, "conflict", claimant, claimant) for claimant in members}
    return sorted(ids - now)
