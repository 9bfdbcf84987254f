"""Which conflicts a partition's claims bring about, over a store of claims that others write to and that may forget."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from msgspec.structs import replace

from verifier.core.conflict_scan import claimed_by, scan
from verifier.core.journal import Entry
from verifier.core.outcome import Claim, Conflict
from verifier.stream.partition_config import PartitionConfig, Ports
from verifier.stream.recovery import READ_ENTRIES_MAX

RECHECK_MAX = 100_000
_log = structlog.get_logger(__name__)


class Contests:
    """The claims of one partition. `recheck` are claims to be made again with the next entry, `epoch` the store's life.

    `until_up` repeats a call until the server it needs answers.
    """

    def __init__(
        self,
        partition: int,
        config: PartitionConfig,
        ports: Ports,
        until_up: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
    ) -> None:
        self._partition = partition
        self._config = config
        self._ports = ports
        self._until_up = until_up
        self.epoch = ""
        self.recheck: list[Claim] = []

    def take(self, claims: Sequence[Claim]) -> list[Claim]:
        """The claims to be made now: those again, and the new ones."""
        again, self.recheck = self.recheck, []
        return [*again, *claims]

    async def find(self, entry: Entry, claims: Sequence[Claim], watermark: float) -> Entry:
        """Merge claims in, and note in the entry which conflicts that brings about or takes back."""
        if not claims:
            return entry
        config = self._config
        result = await self._until_up(lambda: self._ports.claims.apply(claims))
        await self._note_epoch(result.epoch, watermark)
        conflicts: list[Conflict] = []
        retracted: list[str] = []
        versions: list[int] = []
        touched = {(claim.scope, claim.key) for claim in claims}
        by_place: dict[tuple[str, str], list[Claim]] = {}
        contested = {(s.scope, s.key) for s in result.contested} & touched
        for claim in claims:
            if (claim.scope, claim.key) in contested:
                by_place.setdefault((claim.scope, claim.key), []).append(claim)
        for found in result.contested:
            one = (found.scope, found.key, found.version, found.claimants)
            made, gone = scan(
                [one],
                by_place.get((found.scope, found.key), ()),
                ttl_s=config.idempotency_ttl_s,
                conflict_timeout_s=config.conflict_timeout_s,
            )
            conflicts += made
            retracted += gone
            versions += [found.version] * len(gone)
        return replace(
            entry, conflicts=tuple(conflicts), retracted=tuple(retracted), retracted_versions=tuple(versions)
        )

    async def check_versions(self, entry: Entry, claims: Sequence[Claim]) -> None:
        """Another worker may have found newer conflicts on a key while ours were on their way: then say ours again.

        Of two workers that publish about one key, the one that publishes last has thus seen all claims of both.
        """
        touched = {claimed_by(conflict): conflict.version for conflict in entry.conflicts}
        if not touched:
            return
        keys = list(touched)
        versions = await self._until_up(lambda: self._ports.claims.versions(keys))
        moved = {key for key, then, now in zip(keys, touched.values(), versions, strict=True) if now != then}
        self.recheck += [claim for claim in claims if (claim.scope, claim.key) in moved]

    async def _note_epoch(self, epoch: str, watermark: float) -> None:
        """Tell the claims' store this partition's claims of the last TTL again if it has lost its memory."""
        if epoch == self.epoch:
            return
        lost, self.epoch = self.epoch, epoch
        if not lost:
            return
        _log.warning("claims_lost_their_memory", partition=self._partition, telling_again=True)
        horizon = watermark - self._config.idempotency_ttl_s
        first, end = await self._until_up(lambda: self._ports.journal.tail(self._partition))
        while end > first:
            start = max(first, end - READ_ENTRIES_MAX)
            entries = await self._until_up(
                lambda start=start, end=end: self._ports.journal.read(self._partition, start, end)  # type: ignore[misc]
            )
            claims = [c for _, entry in entries for c in entry.claims if c.claimant.ts >= horizon]
            if claims:
                await self._tell_again(claims)
            if entries and max(entry.at for _, entry in entries) + self._config.clock_skew_max_s < horizon:
                return
            end = start

    async def _tell_again(self, claims: Sequence[Claim]) -> None:
        """Merge old claims in; what they turn out to be in conflict with is looked into with the next step."""
        result = await self._until_up(lambda: self._ports.claims.apply(claims))
        contested = {(found.scope, found.key) for found in result.contested}
        again = [claim for claim in claims if (claim.scope, claim.key) in contested]
        room = max(0, RECHECK_MAX - len(self.recheck))
        if len(again) > room:
            _log.warning("conflicts_may_be_missed", partition=self._partition, claims=len(again) - room)
        self.recheck += again[:room]
