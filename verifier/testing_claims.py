"""The in-memory twin of the Redis claims: the same sets, merged by the pure merge the script follows."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from verifier.adapters.claims import ClaimResult, ClaimSet
from verifier.core.conflict import CLAIMS_PER_KEY_MAX, Held, Identity, bounded_claimant, claim_text, merge
from verifier.core.outcome import Claim, Claimant


class _Set(Struct):
    held: dict[Identity, Held]
    version: int
    expires_at_s: float


class MemoryClaims:
    """Behaves as `adapters.claims.RedisClaims`.

    `monotonic` gives the time by which sets are forgotten, in seconds.
    """

    def __init__(
        self,
        ttl_s: float = 3600.0,
        *,
        entity_ttl_s: float | None = None,
        claims_per_key_max: int = CLAIMS_PER_KEY_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl_s = ttl_s
        self._entity_ttl_s = ttl_s if entity_ttl_s is None else entity_ttl_s
        self._claims_per_key_max = claims_per_key_max
        self._monotonic = monotonic
        self._sets: dict[tuple[str, str], _Set] = {}
        self._clock = itertools.count(1)
        self._epochs = itertools.count(1)
        self._epoch = f"memory-{next(self._epochs)}"

    async def close(self) -> None:
        """Nothing to close."""

    async def ping(self) -> None:
        """Always there."""

    def lose_memory(self) -> None:
        """Forget everything, as Redis does when it is restarted without its data."""
        self._sets.clear()
        self._epoch = f"memory-{next(self._epochs)}"

    async def apply(self, claims: Sequence[Claim]) -> ClaimResult:
        """As `RedisClaims.apply`."""
        now = self._monotonic()
        by_key: dict[tuple[str, str], list[Claim]] = {}
        for claim in claims:
            by_key.setdefault((claim.scope, claim.key), []).append(claim)
        contested: list[ClaimSet] = []
        dropped_total = 0
        for (scope, key), mine in by_key.items():
            known = self._live(scope, key, now) or _Set({}, 0, 0.0)
            bounded = [
                msgspec.structs.replace(claim, claimant=_decoded(bounded_claimant(claim.claimant)))
                for claim in mine
            ]
            held, changed, dropped = merge(
                scope, known.held, bounded, claims_per_key_max=self._claims_per_key_max
            )
            dropped_total += dropped
            ttl_s = self._ttl_s if scope == "idempotency" else self._entity_ttl_s
            version = next(self._clock) if changed else known.version
            self._sets[scope, key] = _Set(held, version, now + ttl_s)
            if len({request_id for _, request_id in held}) > 1:
                contested.append(ClaimSet(scope, key, version, [h.claimant for h in held.values()]))
        return ClaimResult(contested, self._epoch, dropped_total)

    async def versions(self, keys: Sequence[tuple[str, str]]) -> list[int]:
        """As `RedisClaims.versions`."""
        now = self._monotonic()
        found = [self._live(scope, key, now) for scope, key in keys]
        return [0 if known is None else known.version for known in found]

    def _live(self, scope: str, key: str, now: float) -> _Set | None:
        known = self._sets.get((scope, key))
        return known if known is not None and now < known.expires_at_s else None


def _decoded(claimant: Claimant) -> Claimant:
    return msgspec.json.decode(claim_text(claimant), type=Claimant)
