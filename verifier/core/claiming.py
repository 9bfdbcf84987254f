"""Which conflict keys a request claims with its writes (the public contract's section 4)."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from verifier.core.events import Write
from verifier.core.evidence import Evidence
from verifier.core.outcome import Claim, Claimant
from verifier.core.rows import WRITE_ROWS_MAX, RowText, RowTexts

CLAIM_DATA_BYTES_MAX = 4096
_SIDES = ("main", "canary", "shadow")
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode

Content = tuple[tuple[str, str | None, str, str | None], ...]
Applied = list[tuple[Write, RowText]]


def claims_of(evidence: Evidence, texts: RowTexts, route: str) -> list[Claim]:
    """The claims of what was applied: each side's on its idempotency keys, and on every row it wrote."""
    claiming = _Claiming(route, len(evidence.seen))
    for side in _SIDES:
        writes = evidence.writes.get(side)
        if not writes:
            continue
        applied = [(write, texts.of(write.data)) for write in writes if write.status == "applied"]
        if not applied:
            continue
        keys = evidence.idempotency_keys(side)
        if keys:
            claimant = claiming.claimant(side, applied, with_key=False)
            for key in keys:
                claiming.add("idempotency", f"{side}:{key}", claimant)
        if len(applied) == 1:
            write = applied[0][0]
            claimant = claiming.claimant(side, applied, with_key=True)
            claiming.add("entity", f"{write.entity}/{write.key}", claimant)
            continue
        rows: dict[tuple[str, str], Applied] = {}
        for each in applied:
            rows.setdefault((each[0].entity, each[0].key), []).append(each)
        for (entity, row_key), of_row in rows.items():
            claimant = claiming.claimant(side, of_row, with_key=True)
            claiming.add("entity", f"{entity}/{row_key}", claimant)
    return claiming.claims


class _Claiming:
    """The claims of one request in the making. Both sides mostly write the same, so digests are remembered.

    `rev` is the number of records that the claims are concluded from.
    """

    __slots__ = ("_digests", "_rev", "_route", "claims")

    def __init__(self, route: str, rev: int) -> None:
        self._route = route
        self._rev = rev
        self._digests: dict[tuple[str, Content], bytes] = {}
        self.claims: list[Claim] = []

    def add(self, scope: str, key: str, claimant: Claimant) -> None:
        self.claims.append(Claim(scope=scope, key=key, claimant=claimant, rev=self._rev))

    def claimant(self, side: str, applied: Applied, *, with_key: bool) -> Claimant:
        first = applied[0][0]
        if len(applied) == 1:
            row = applied[0][1]
            content: Content = ((first.entity, first.key if with_key else None, first.op, row.content),)
            data, size = row.image, row.size
        else:
            first = min((write for write, _ in applied), key=lambda write: (write.ts, write.seq or 0))
            content = tuple(
                [
                    (write.entity, write.key if with_key else None, write.op, row.content)
                    for write, row in applied
                ]
            )
            data = [row.image for _, row in applied[:WRITE_ROWS_MAX]]
            size = len(_encode_sorted(data))
        operation = first.operation or self._route
        digest = self._digests.get((operation, content))
        if digest is None:
            digest = blake2b(_encode_sorted([operation, content]), digest_size=8).digest()
            self._digests[operation, content] = digest
        return Claimant(
            side=side,
            request_id=first.request_id,
            ts=first.ts,
            seq=first.seq or 0,
            operation=operation,
            entity=first.entity,
            data=data if size <= CLAIM_DATA_BYTES_MAX else {"$cut": True, "digest": digest.hex()},
            digest=int.from_bytes(digest, "big"),
        )
