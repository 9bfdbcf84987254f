"""Writing a partition's journal, which others may write to as well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from verifier.core.journal import Entry, valid_entries
from verifier.stream.ports import Fenced, Journal

LOOK_EVERY_S = 5.0


class Appending:
    """Appends entries. `end` is the journal offset up to which we know what is there.

    `until_up` repeats a call until the server it needs answers.
    """

    def __init__(
        self,
        partition: int,
        journal: Journal,
        until_up: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
    ) -> None:
        self._partition = partition
        self._journal = journal
        self._until_up = until_up
        self._looked_at = 0.0
        self.end = 0

    async def append(self, entry: Entry) -> int:
        """Append to the journal, and make sure that ours is the entry with this number."""
        offset: int = await self._until_up(lambda: self._journal.append(entry))
        if offset != self.end:
            between = await self._until_up(lambda: self._journal.read(self._partition, self.end, offset + 1))
            numbered = next(((o, e) for o, e in valid_entries(between, after_n=entry.n - 1)), None)
            if numbered is None or numbered[1].worker != entry.worker or numbered[1].at != entry.at:
                raise Fenced(f"journal entry {entry.n} was written by another worker")
            offset = numbered[0]  # what lies behind it may be another's next entry: the next append looks
        self.end = offset + 1
        return offset

    async def watch(self, n: int, now: float) -> None:
        """Look now and then whether others have appended after entry `n`, ours: who writes nothing would not notice.

        `now` is the monotonic clock. Raises `Fenced`.
        """
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        if await self.newer(n):
            raise Fenced(f"another worker has written behind journal entry {n}")

    async def newer(self, n: int) -> list[Entry]:
        """The valid entries that others have appended after entry `n`, which is ours."""
        found = await self._until_up(lambda: self._journal.read(self._partition, self.end))
        return [entry for _, entry in valid_entries(found, after_n=n)]
