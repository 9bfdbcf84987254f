"""Reading the journal back: what a partition's entries resolved, from where its tables know the chain to be valid.

The journal may be ahead of the tables (they are written behind) and is then applied from where they stand. It may not
be behind them: then it is another journal than theirs, and going on would count everything a second time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from msgspec import Struct

from verifier.core.errors import VerifierError
from verifier.core.journal import Entry, valid_entries
from verifier.stream.ports import Journal, Position

READ_ENTRIES_MAX = 200


class JournalMismatch(VerifierError):
    """Journal and tables do not belong together, or one of them has lost what the other rests on."""


class Chain(Struct, frozen=True, kw_only=True):
    """The end of a partition's valid entries: the (offset, entry) pairs whose requests may still be revised.

    The last two are there in any case, as far as the tables lack them.
    """

    end: int
    entries: tuple[tuple[int, Entry], ...]

    @property
    def last(self) -> Entry | None:
        """The newest valid entry; None when there is none."""
        return self.entries[-1][1] if self.entries else None


async def read_chain(
    journal: Journal,
    partition: int,
    position: Position | None,
    on_entry: Callable[[int, Entry, bool], Awaitable[None]],
) -> Chain:
    """Read the valid entries from the oldest that may still be revised, in bounded pieces.

    `on_entry` is told each (offset, entry, whether the tables lack it), in order. Raises `JournalMismatch`, and
    `DependencyDown` as the journal does.
    """
    first, end = await journal.tail(partition)
    applied = -1 if position is None else position.n
    start = first
    if position is not None and position.n >= 0:
        if position.journal_offset >= end:
            raise JournalMismatch(
                f"partition {partition}: the tables stand at journal offset {position.journal_offset} (entry"
                f" {position.n}), but the journal ends at {end}: it was made anew or has lost entries. Restore it, or"
                " give this deployment a new database, and an empty journal to go with it"
            )
        start = max(first, position.keep_offset)
    kept: deque[tuple[int, Entry]] = deque()
    last_n: int | None = None
    for at in range(start, end, READ_ENTRIES_MAX):
        entries = await journal.read(partition, at, min(at + READ_ENTRIES_MAX, end))
        if last_n is None and entries:
            last_n = entries[0][1].n - 1
        for offset, entry in valid_entries(entries, after_n=last_n if last_n is not None else -1):
            last_n = entry.n
            if entry.n == applied and position is not None and offset != position.journal_offset:
                raise JournalMismatch(
                    f"partition {partition}: the tables know entry {entry.n} at journal offset"
                    f" {position.journal_offset}, but it lies at {offset}: this database belongs to another journal"
                )
            await on_entry(offset, entry, entry.n > applied)
            kept.append((offset, entry))
            while len(kept) > 2 and kept[0][1].n < entry.keep_n:
                kept.popleft()
    if applied >= 0 and (last_n is None or last_n < applied):
        raise JournalMismatch(
            f"partition {partition}: the tables stand at entry {applied}, but the journal's last is {last_n}"
        )
    return Chain(end=end, entries=tuple(kept))
