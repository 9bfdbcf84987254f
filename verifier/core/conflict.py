"""First write wins: who holds a conflict key, and who came too late (the public contract's section 4).

The claimants of a key are a set. Merging sets keeps, for each side and request, the claim drawn from the
most records (its `rev`), and is commutative, associative and idempotent; conflicts are a function of the
merged set alone. So any worker may apply claims in any order, twice, and all end with the same findings.

A set is bounded. Idempotency keys keep the oldest claimants (the winner is the oldest), entities the newest
(only recent writes can conflict). A revision only ever adds earlier records, so a claimant's time never grows
with its revision; the bound therefore orders a claimant by the extreme it has ever claimed, which keeps the
merge order-free.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from verifier.core.events import SIDE_RANK
from verifier.core.outcome import Claim, Claimant, Conflict
from verifier.core.storable import json_text

IDEMPOTENCY = "idempotency"
MAIN_CANARY = "main_canary"
MAIN_SHADOW = "main_shadow"

STRATEGY = "first_write"
CLAIMS_PER_KEY_MAX = 128
CLAIMANT_DATA_BYTES_MAX = 4096
_EXCERPT_CHARS = 512
_SIGN_BIT = 1 << 63
_pack_double = struct.Struct(">d").pack

Order = tuple[float, int, str, int]
Identity = tuple[str, str]


class Held(Struct, frozen=True):
    """A claimant in a key's set: its claim's revision, and the order by which the bound keeps or drops it."""

    claimant: Claimant
    rev: int
    kept_by: Order


def order_of(claimant: Claimant) -> Order:
    """The total order of writes: `(ts, main before canary before shadow, request id, seq)`."""
    return (claimant.ts, SIDE_RANK[claimant.side], claimant.request_id, claimant.seq)


def order_key(claimant: Claimant) -> str:
    """`order_of` as text whose byte order is the same order, for a store that compares bytes."""
    bits = int.from_bytes(_pack_double(claimant.ts + 0.0), "big")
    # IEEE 754: flipping the sign bit, or every bit of a negative number, makes the bits sort as the numbers
    # do
    sortable = bits + _SIGN_BIT if bits < _SIGN_BIT else 2 * _SIGN_BIT - 1 - bits
    rank = SIDE_RANK[claimant.side]
    return f"{sortable:016x}{rank} {claimant.request_id} {claimant.seq + _SIGN_BIT:020d}"


def keeps_oldest(scope: str) -> bool:
    """Whether a full set of this scope keeps its oldest claimants; the others keep the newest."""
    return scope == IDEMPOTENCY


def merge(
    scope: str,
    held: Mapping[Identity, Held],
    claims: Iterable[Claim],
    *,
    claims_per_key_max: int = CLAIMS_PER_KEY_MAX,
) -> tuple[dict[Identity, Held], bool, int]:
    """Merge claims on one key into its set.

    Returns the new set, whether any claimant in it changed, came or went, and how many the bound dropped.
    """
    oldest = keeps_oldest(scope)
    merged = dict(held)
    for claim in claims:
        identity = (claim.claimant.side, claim.claimant.request_id)
        merged[identity] = _higher(merged.get(identity), claim, oldest=oldest)
    dropped = len(merged) - claims_per_key_max
    if dropped > 0:
        by_order = sorted(merged, key=lambda identity: merged[identity].kept_by, reverse=not oldest)
        for identity in by_order[claims_per_key_max:]:
            del merged[identity]
    changed = merged.keys() != held.keys() or any(
        now is not held[identity] and claim_text(now.claimant) != claim_text(held[identity].claimant)
        for identity, now in merged.items()
    )
    return merged, changed, max(0, dropped)


def _higher(known: Held | None, claim: Claim, *, oldest: bool) -> Held:
    kept_by = order_of(claim.claimant)
    if known is None:
        return Held(claim.claimant, claim.rev, kept_by)
    extreme = min(known.kept_by, kept_by) if oldest else max(known.kept_by, kept_by)
    # equal revisions with other content cannot come from one journal; the larger text wins, whoever came
    # first
    if (claim.rev, claim_text(claim.claimant)) > (known.rev, claim_text(known.claimant)):
        return Held(claim.claimant, claim.rev, extreme)
    return Held(known.claimant, known.rev, extreme)


def claim_text(claimant: Claimant) -> bytes:
    """The claimant as JSON, as it is stored and compared."""
    return json_text(claimant).encode()


def bounded_claimant(claimant: Claimant, *, data_bytes_max: int = CLAIMANT_DATA_BYTES_MAX) -> Claimant:
    """Return the claimant with its data cut to an excerpt when its JSON is over `data_bytes_max` bytes.

    The digest still stands for the whole data, so the cut never decides whether two writes are equal.
    """
    if claimant.data is None:
        return claimant
    text = json_text(claimant.data)
    size = len(text.encode())
    if size <= data_bytes_max:
        return claimant
    return replace(claimant, data={"$cut": {"bytes": size, "begins": text[:_EXCERPT_CHARS]}})


def stored_claimant(claimant: Claimant, *, data_bytes_max: int = CLAIMANT_DATA_BYTES_MAX) -> str:
    """Return the text of `bounded_claimant`, which most claimants are already without looking at their data alone."""
    text = json_text(claimant)
    if len(text) <= data_bytes_max and text.isascii():
        return text
    return json_text(bounded_claimant(claimant, data_bytes_max=data_bytes_max))


def conflicts_of(
    scope: str,
    key: str,
    claimants: Iterable[Claimant],
    *,
    ttl_s: float,
    conflict_timeout_s: float,
    version: int,
) -> list[Conflict]:
    """Return every conflict among the claimants of one key, in the order of their losers.

    `idempotency`: within `ttl_s` of the holder another request is a `duplicate` (same operation and data) or
    a `conflict`. `main_canary`: other data by the other side within `conflict_timeout_s`. `main_shadow`: two
    requests whose writes the shadow applied in the other order. Raises ValueError for any other scope.
    """
    ordered = sorted(claimants, key=order_of)
    if scope == IDEMPOTENCY:
        pairs = _idempotency_pairs(ordered, ttl_s)
    elif scope == MAIN_CANARY:
        pairs = _main_canary_pairs(ordered, conflict_timeout_s)
    elif scope == MAIN_SHADOW:
        pairs = _order_pairs(ordered)
    else:
        raise ValueError(
            f"unknown conflict scope {scope!r}: use {IDEMPOTENCY}, {MAIN_CANARY} or {MAIN_SHADOW}"
        )
    found = [
        Conflict(
            id=conflict_id(scope, key, kind, winner, loser),
            scope=scope,
            key=key,
            entity=loser.entity if loser.entity is not None else winner.entity,
            kind=kind,
            winner=winner,
            loser=loser,
            strategy=STRATEGY,
            ts=loser.ts,
            version=version,
        )
        for kind, winner, loser in pairs
    ]
    return sorted(found, key=lambda conflict: (order_of(conflict.loser), conflict.id))


Pair = tuple[str, Claimant, Claimant]


def _idempotency_pairs(ordered: Sequence[Claimant], ttl_s: float) -> list[Pair]:
    pairs: list[Pair] = []
    holders: list[Claimant] = []
    for claimant in ordered:
        holder = next(
            (h for h in holders if h.request_id != claimant.request_id and claimant.ts - h.ts <= ttl_s), None
        )
        if holder is None:
            holders.append(claimant)
        else:
            same = (holder.operation, holder.digest) == (claimant.operation, claimant.digest)
            pairs.append(("duplicate" if same else "conflict", holder, claimant))
    return pairs


def _main_canary_pairs(ordered: Sequence[Claimant], conflict_timeout_s: float) -> list[Pair]:
    pairs: list[Pair] = []
    holders: list[Claimant] = []
    for claimant in ordered:
        holder = next(
            (
                h
                for h in holders
                if h.side != claimant.side
                and h.request_id != claimant.request_id
                and h.digest != claimant.digest
                and claimant.ts - h.ts <= conflict_timeout_s
            ),
            None,
        )
        if holder is None:
            holders.append(claimant)
        else:
            pairs.append(("conflict", holder, claimant))
    return pairs


def _order_pairs(ordered: Sequence[Claimant]) -> list[Pair]:
    """Inverted pairs; the bound on a key's set bounds them too (64 requests, 2,016 pairs)."""
    main = [claimant for claimant in ordered if claimant.side == "main"]
    shadow_place = {c.request_id: (place, c) for place, c in enumerate(ordered) if c.side == "shadow"}
    both = [claimant for claimant in main if claimant.request_id in shadow_place]
    pairs: list[Pair] = []
    for index, first in enumerate(both):
        place = shadow_place[first.request_id][0]
        for second in both[index + 1 :]:
            second_place, second_shadow = shadow_place[second.request_id]
            if second_place < place:
                pairs.append(("order", first, second_shadow))
    return pairs


def conflict_id(scope: str, key: str, kind: str, winner: Claimant, loser: Claimant) -> str:
    """The id of a conflict: of its key and loser, and for an `order` conflict of its winner, too."""
    parts = [scope, key, loser.side, loser.request_id]
    if kind == "order":
        parts.append(winner.request_id)
    text = b"".join(b"%d:%s" % (len(part), part) for part in (p.encode(errors="replace") for p in parts))
    return blake2b(text, digest_size=16).hexdigest()
