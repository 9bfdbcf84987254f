"""Which conflicts a partition's claims bring about, over a store of claims that others write to and that may forget.

Claims are made once the entry that holds them is in the journal: so whatever the store holds, the journal holds, and of
two claims of one request the one of the higher revision is right. What they turn out to be in conflict with goes
into the next entry. A crash between the two is mended by making the claims of the last entries again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from verifier.core.conflict import keeps_oldest
from verifier.core.conflict_scan import claimed_by, scan
from verifier.core.errors import DependencyDown
from verifier.core.journal import Entry
from verifier.core.outcome import Claim, Claimant, Conflict
from verifier.stream.partition_config import PartitionConfig, Ports
from verifier.stream.ports import ClaimResult, ClaimSet
from verifier.stream.recovery import READ_ENTRIES_MAX

FINDINGS_PER_ENTRY_MAX = 2_000
FINDINGS_MAX = (
    100_000  # found and not yet journaled: what a store that forgot everything may bring about at once
)
EPOCH_EVERY_S = 5.0
_UNKNOWN = "?"
_STALE = -1
Place = tuple[str, str]
_log = structlog.get_logger(__name__)


class _Finding(Struct, frozen=True):
    """The newest word on a conflict id, None when it is taken back, and one of the claims it is about."""

    conflict: Conflict | None
    version: int
    claim: Claim


class Said(Struct, frozen=True):
    """What was said of conflicts.

    `findings` by id: the conflict, or None, and its key where that is known. `keys`: a claim of each key, and the
    version of its set that was known then.
    """

    findings: dict[str, tuple[Conflict | None, Place | None]]
    keys: dict[Place, tuple[Claim, int]]


class Contests:
    """The claims of one partition.

    `epoch` is the life of the store in which all claims journaled so far have been made and looked into. `until_up`
    repeats a call until the server it needs answers. `dropped` is told of claimants that the bound on a set removed.
    """

    def __init__(
        self,
        partition: int,
        config: PartitionConfig,
        ports: Ports,
        until_up: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
        dropped: Callable[[int], None],
        bound_met: Callable[[str, int], None],
    ) -> None:
        self._partition = partition
        self._config = config
        self._ports = ports
        self._until_up = until_up
        self._dropped = dropped
        self._bound_met = bound_met
        self._known_epoch = ""
        self._asked_at = 0.0
        self._overflowed = False
        self._found: dict[str, _Finding] = {}
        self._said = Said({}, {})
        self.epoch = ""

    def begin(self) -> None:
        """Begin where nothing has been claimed yet."""
        self.epoch, self._known_epoch = "", ""
        self._found, self._said = {}, Said({}, {})

    def restore(self, last: Entry) -> None:
        """Take up where the journal stands: its claims were made in the life of the store that it names, if any.

        What the last entry says of conflicts may have been published or not, and may be true no more.
        """
        self.epoch, self._known_epoch = last.epoch, last.epoch or _UNKNOWN
        self._found, self._said = {}, Said({}, {})
        for claim in last.contested:
            self._said.keys[claim.scope, claim.key] = claim, _STALE
        for conflict in last.conflicts:
            self._said.findings[conflict.id] = conflict, claimed_by(conflict)
        for conflict_id in last.retracted:
            self._said.findings[conflict_id] = None, None

    @property
    def found(self) -> bool:
        """Whether there is something to be journaled."""
        return bool(self._found)

    def attach(self, entry: Entry) -> Entry:
        """Put what was found since the last entry into one about to be journaled, as far as there is room."""
        room = FINDINGS_PER_ENTRY_MAX - len(entry.conflicts) - len(entry.retracted)
        taken = dict(list(self._found.items())[: max(0, room)])
        for conflict_id in taken:
            del self._found[conflict_id]
        self._overflowed = False
        contested = {(claim.scope, claim.key): claim for claim in entry.contested}
        for conflict_id, finding in taken.items():
            place = finding.claim.scope, finding.claim.key
            contested[place] = finding.claim
            self._said.findings[conflict_id] = finding.conflict, place
            _, known = self._said.keys.get(place, (None, finding.version))
            self._said.keys[place] = finding.claim, min(known, finding.version)
        gone = {conflict_id: finding for conflict_id, finding in taken.items() if finding.conflict is None}
        return replace(
            entry,
            conflicts=(*entry.conflicts, *(f.conflict for f in taken.values() if f.conflict is not None)),
            retracted=(*entry.retracted, *gone),
            retracted_versions=(*entry.retracted_versions, *(finding.version for finding in gone.values())),
            contested=tuple(contested.values()),
            epoch=self.epoch,
        )

    def tell(self, entry: Entry) -> None:
        """Tell the log of an entry's conflicts, where that is wanted."""
        if self._config.log_conflicts:
            for conflict in entry.conflicts:
                _log.info(
                    "conflict", scope=conflict.scope, kind=conflict.kind, key=conflict.key,
                    winner=conflict.winner.request_id, loser=conflict.loser.request_id,
                )  # fmt: skip

    # -- claiming ------------------------------------------------------------------------------------------

    async def claim(self, claims: Sequence[Claim], watermark: float) -> None:
        """Make journaled claims, and note what they are in conflict with."""
        if not claims:
            return
        result = await self._apply(claims)
        while result.epoch != self._known_epoch:
            if self._known_epoch:
                await self._tell_again(result.epoch, watermark)
                result = await self._apply(claims)
            else:
                self._known_epoch = result.epoch
        self._look(result, claims)

    async def watch(self, watermark: float) -> None:
        """Ask now and then whether the store has lost its memory: it must be told again even if nothing new comes."""
        now = self._ports.clock.monotonic()
        if not self._known_epoch or now - self._asked_at < EPOCH_EVERY_S:
            return
        self._asked_at = now
        try:
            result = await self._ports.claims.apply(())
        except DependencyDown:
            return
        if result.epoch != self._known_epoch:
            await self._tell_again(result.epoch, watermark)

    async def _apply(self, claims: Sequence[Claim]) -> ClaimResult:
        result: ClaimResult = await self._until_up(lambda: self._ports.claims.apply(claims))
        self._asked_at = self._ports.clock.monotonic()
        if result.dropped:
            self._dropped(result.dropped)
        return result

    def _look(self, result: ClaimResult, claims: Sequence[Claim], *, again: bool = False) -> None:
        """Note the conflicts in the sets that claims were merged into; `again`: by a store that had lost its memory."""
        if not result.contested:
            return
        by_place: dict[Place, list[Claim]] = {}
        contested = {(found.scope, found.key) for found in result.contested}
        for claim in claims:
            if (claim.scope, claim.key) in contested:
                by_place.setdefault((claim.scope, claim.key), []).append(claim)
        for found in result.contested:
            mine = by_place.get((found.scope, found.key))
            if not mine:
                continue
            beyond = _beyond(found, mine) if result.dropped and keeps_oldest(found.scope) else ()
            conflicts, retracted = self._scan(found, mine, beyond, again=again)
            for conflict in conflicts:
                self._note(conflict.id, _Finding(conflict, found.version, mine[0]))
            for conflict_id in retracted:
                self._note(conflict_id, _Finding(None, found.version, mine[0]))

    def _note(self, conflict_id: str, finding: _Finding) -> None:
        if len(self._found) >= FINDINGS_MAX and conflict_id not in self._found:
            if not self._overflowed:
                _log.warning("conflicts_may_be_missed", partition=self._partition, findings=FINDINGS_MAX)
            self._overflowed = True
            self._bound_met("findings", 1)
            return
        self._found[conflict_id] = finding

    async def _tell_again(self, epoch: str, watermark: float) -> None:
        """The store has lost its memory: make this partition's claims of the last TTL again, in this life of it."""
        if (
            self._known_epoch == _UNKNOWN
        ):  # as a rule after a crash soon after the start: nothing need be lost
            _log.info(
                "claims_told_again", partition=self._partition, detail="the journal names no life of Redis"
            )
        else:
            _log.warning("claims_lost_their_memory", partition=self._partition, telling_again=True)
        self._known_epoch = epoch
        horizon = watermark - self._config.idempotency_ttl_s
        first, end = await self._until_up(lambda: self._ports.journal.tail(self._partition))
        while end > first:
            start = max(first, end - READ_ENTRIES_MAX)
            entries = await self._until_up(
                lambda start=start, end=end: self._ports.journal.read(self._partition, start, end)  # type: ignore[misc]
            )
            claims = [c for _, entry in entries for c in entry.claims if c.claimant.ts >= horizon]
            if claims:
                result = await self._apply(claims)
                self._look(result, claims, again=True)
                if result.epoch != epoch:
                    await self._tell_again(result.epoch, watermark)
                    return
            if entries and max(entry.at for _, entry in entries) + self._config.clock_skew_max_s < horizon:
                return
            end = start

    # -- publishing ----------------------------------------------------------------------------------------

    def published(self) -> None:
        """Note that all put into entries has been published: only then a crash need not tell the store again."""
        if not self._found and self._known_epoch != _UNKNOWN:
            self.epoch = self._known_epoch

    def said(self) -> Said:
        """Hand over what was put into entries since the last call."""
        said, self._said = self._said, Said({}, {})
        return said

    async def overtaken(self, said: Said) -> Said:
        """What is to be published instead, now that it was published: the keys' sets have changed meanwhile.

        Two workers may find different things about a key and publish in the other order; the one that publishes last
        has thus seen the claims of both. The tables need none of this: they go by the version.
        """
        places = list(said.keys)
        again = Said({}, {})
        if not places:
            return again
        versions = await self._until_up(lambda: self._ports.claims.versions(places))
        moved = [p for p, now in zip(places, versions, strict=True) if now not in (0, said.keys[p][1])]
        if not moved:
            return again
        claims = [replace(said.keys[place][0], revises=True) for place in moved]
        result: ClaimResult = await self._until_up(lambda: self._ports.claims.apply(claims))
        now: dict[str, Conflict] = {}
        for found in result.contested:
            again.keys[found.scope, found.key] = said.keys[found.scope, found.key][0], found.version
            conflicts, _ = self._scan(found, claims)
            now |= {conflict.id: conflict for conflict in conflicts}
        for conflict_id, (_, place) in said.findings.items():
            if conflict_id in now:
                again.findings[conflict_id] = now[conflict_id], claimed_by(now[conflict_id])
            elif place in again.keys:
                again.findings[conflict_id] = None, place
        return again

    def _scan(
        self,
        found: ClaimSet,
        claims: Sequence[Claim],
        beyond: Sequence[Claimant] = (),
        *,
        again: bool = False,
    ) -> tuple[list[Conflict], list[str]]:
        return scan(
            [(found.scope, found.key, found.version, (*found.claimants, *beyond))],
            claims,
            ttl_s=self._config.idempotency_ttl_s,
            conflict_timeout_s=self._config.conflict_timeout_s,
            again=again,
        )


def _beyond(found: ClaimSet, mine: Sequence[Claim]) -> list[Claimant]:
    """Our claimants that a full set of the oldest did not keep: later than all it holds, they have lost for certain.

    Who holds the key is known from the set. Should a still earlier claimant come, these are not looked at again.
    """
    there = {(claimant.side, claimant.request_id) for claimant in found.claimants}
    claimants = {(claim.claimant.side, claim.claimant.request_id): claim.claimant for claim in mine}
    return [claimant for identity, claimant in claimants.items() if identity not in there]
