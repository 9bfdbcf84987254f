"""What the partition workers ask of the outside. Real adapters and in-memory twins pass the same contract tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from verifier.core.events import Source
from verifier.core.journal import Entry
from verifier.core.outcome import Claim, Claimant
from verifier.stream.codec import Record


class Fenced(Exception):
    """Another worker has written to this partition's journal: its owner is no longer us, or never was alone."""


class EntryTooLarge(Exception):
    """The journal does not take an entry of this size: it is to be given in parts."""


class Message(Struct, frozen=True, kw_only=True):
    """A record to publish. `value` None is a tombstone; `partition` None leaves the choice to the key."""

    topic: str
    key: bytes
    value: bytes | None
    partition: int | None = None


class Journal(Protocol):
    """The journal topic. Every call may raise `DependencyDown`."""

    async def append(self, entry: Entry) -> int:
        """Write an entry, wait until it is safe, and return its offset. Raises `EntryTooLarge`."""
        ...

    async def read(self, partition: int, start: int, end: int | None = None) -> list[tuple[int, Entry]]:
        """Return the (offset, entry) pairs of offsets [start, end), by default up to the end as it is now."""
        ...

    async def tail(self, partition: int) -> tuple[int, int]:
        """Return the first offset kept and the next offset to be written."""
        ...


class Records(Protocol):
    """The source topics, read by offset apart from the consumer group. Every call may raise `DependencyDown`."""

    async def ends(self, partitions: Sequence[int]) -> dict[int, list[int]]:
        """Return, for each partition index, the next offset to be written in every source."""
        ...

    async def beginnings(self, partition: int) -> list[int]:
        """Return the first offset kept of every source."""
        ...

    def read(
        self, source: Source, partition: int, start: int, end: int
    ) -> AsyncGenerator[list[Record], None]:
        """Read the offsets [start, end) that are still there, batch by batch."""
        ...

    async def fetch(self, partition: int, refs: Sequence[tuple[Source, int]]) -> list[Record | None]:
        """Return single records in the order asked; None where retention took one."""
        ...


class Publisher(Protocol):
    """The output topics."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Write all messages and wait until they are safe. May raise `DependencyDown`; a repeat is harmless."""
        ...


class ClaimSet(Protocol):
    """All live claimants of one conflict key."""

    @property
    def scope(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def claimants(self) -> Sequence[Claimant]: ...


class ClaimResult(Protocol):
    """The sets with claimants of several requests, and the life of the store (it changes when its memory is lost).

    `dropped`: claimants that the bound on a set has removed, be it from among those just claimed.
    """

    @property
    def contested(self) -> Sequence[ClaimSet]: ...
    @property
    def epoch(self) -> str: ...
    @property
    def dropped(self) -> int: ...


class ClaimsStore(Protocol):
    """The live claims, shared by all workers."""

    async def apply(self, claims: Sequence[Claim]) -> ClaimResult:
        """Merge claims in and return the sets that now have claimants of several requests."""
        ...

    async def versions(self, keys: Sequence[tuple[str, str]]) -> list[int]:
        """Return the version of each (scope, key); 0 for one that is not there."""
        ...


class Position(Protocol):
    """Where the tables stand for a partition."""

    @property
    def n(self) -> int: ...
    @property
    def journal_offset(self) -> int: ...
    @property
    def keep_n(self) -> int: ...
    @property
    def keep_offset(self) -> int: ...


class StoredAt(Protocol):
    """Where the journal entries of a request lie, oldest first."""

    @property
    def partition(self) -> int: ...
    @property
    def journal_offsets(self) -> Sequence[int]: ...


class Store(Protocol):
    """The tables, a fold of the journal. Every call may raise `DependencyDown`."""

    async def apply(
        self, partition: int, entries: Sequence[tuple[int, Entry]], *, lag: int = 0
    ) -> Sequence[str]:
        """Apply consecutive entries in one transaction; raise `StaleApply` when the tables stand elsewhere.

        Returns the requests said to be new that had a verdict already.
        """
        ...

    async def position(self, partition: int) -> Position | None:
        """Return where the tables stand."""
        ...

    async def lookups(self, request_ids: Sequence[str]) -> Mapping[str, StoredAt]:
        """Return where the entries lie of the requests that have a verdict."""
        ...

    async def status(self, partition: int, standing: Status) -> None:
        """Note where a partition stands between entries, unless that is older than what is applied."""
        ...


class Tables(Protocol):
    """The tables as a partition worker sees them: written behind, in order."""

    async def position(self, partition: int) -> Position | None:
        """Return where the tables stand, once everything handed over before is written or given up."""
        ...

    async def put(self, partition: int, offset: int, entry: Entry) -> None:
        """Hand over an entry; waits while the queue is full."""
        ...

    async def lookup(self, request_ids: Sequence[str]) -> Mapping[str, int]:
        """Return the newest journal offset of the requests that have a verdict, written or on its way."""
        ...

    async def histories(self, partition: int, request_ids: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return the journal offsets of all verdicts of the partition's requests, oldest first."""
        ...

    def take_resurfaced(self, partition: int) -> list[str]:
        """Hand over the requests of the partition that turned out to have had a verdict before their first."""
        ...

    def note_status(self, partition: int, status: Status) -> None:
        """Note where a partition stands between entries."""
        ...


class Status(Struct, frozen=True, kw_only=True):
    """Where a partition stands: open requests, unread records, watermark, event time with all verdicts given.

    `n` is the journal's last entry then; without it, whatever is journaled does not matter.
    """

    pending: int
    lag: int
    watermark: float
    verified_through: float
    n: int | None = None


class Clock(Protocol):
    """The time."""

    def now(self) -> float:
        """Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Wait."""
        ...
