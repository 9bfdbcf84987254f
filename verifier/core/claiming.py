"""Which conflict keys a request claims with its writes (the public contract's section 4)."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw

from verifier.core.events import Write
from verifier.core.evidence import Evidence
from verifier.core.outcome import Claim, Claimant
from verifier.core.rows import WRITE_ROWS_MAX, RowTexts

CLAIM_DATA_BYTES_MAX = 4096
_SIDES = ("main", "canary", "shadow")
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode

Content = tuple[tuple[str, str | None, str, str | None], ...]
Digests = dict[tuple[str, Content], bytes]


def claims_of(evidence: Evidence, texts: RowTexts, route: str) -> list[Claim]:
    """The claims of what was applied: each side's on its idempotency keys, and on every row it wrote."""
    claims: list[Claim] = []
    digests: Digests = {}
    for side in _SIDES:
        applied = [write for write in evidence.writes.get(side, ()) if write.status == "applied"]
        if not applied:
            continue
        keys = evidence.idempotency_keys(side)
        if keys:
            claimant = _claimant(side, applied, texts, digests, route, with_key=False)
            claims += [Claim(scope="idempotency", key=f"{side}:{key}", claimant=claimant) for key in keys]
        rows: dict[tuple[str, str], list[Write]] = {}
        for write in applied:
            rows.setdefault((write.entity, write.key), []).append(write)
        for (entity, row_key), writes in rows.items():
            claimant = _claimant(side, writes, texts, digests, route, with_key=True)
            claims.append(Claim(scope="entity", key=f"{entity}/{row_key}", claimant=claimant))
    return claims


def _claimant(
    side: str, writes: list[Write], texts: RowTexts, digests: Digests, route: str, *, with_key: bool
) -> Claimant:
    first = writes[0] if len(writes) == 1 else min(writes, key=lambda write: (write.ts, write.seq or 0))
    operation = first.operation or route
    content = tuple(
        [
            (write.entity, write.key if with_key else None, write.op, texts.content(write.data))
            for write in writes
        ]
    )
    digest = digests.get((operation, content))
    if digest is None:
        digest = blake2b(_encode_sorted([operation, content]), digest_size=8).digest()
        digests[operation, content] = digest
    return Claimant(
        side=side,
        request_id=first.request_id,
        ts=first.ts,
        seq=first.seq or 0,
        operation=operation,
        entity=first.entity,
        data=_shown(writes, texts, digest),
        digest=int.from_bytes(digest, "big"),
    )


def _shown(writes: list[Write], texts: RowTexts, digest: bytes) -> Any:
    """The rows as a claim shows them: bounded."""
    images = [texts.image(write.data) for write in writes[:WRITE_ROWS_MAX]]
    data = images[0] if len(images) == 1 else images
    size = len(bytes(data)) if isinstance(data, Raw) else len(_encode_sorted(data))
    return {"$cut": True, "digest": digest.hex()} if size > CLAIM_DATA_BYTES_MAX else data
