"""Whether a partition worker may begin another step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from verifier.stream.codec import Record


class Finished(Exception):
    """The worker is to stop, and has done what it was at."""


class Turns:
    """Held while the partition may be ours no more; ended when the process stops. A step in work is always finished.

    Within a step, `slices` lets others run after `slice_records_max` records at the latest: the loop of this thread
    serves REST and the servers' answers, too.
    """

    def __init__(self, slice_records_max: int) -> None:
        self._slice_records_max = slice_records_max
        self._unbroken = 0
        self._going = asyncio.Event()
        self._going.set()
        self._finishing = False

    def hold(self) -> None:
        """Let no other step begin until `go_on`."""
        self._going.clear()

    def go_on(self) -> None:
        """Let steps begin again."""
        self._going.set()

    def finish(self) -> None:
        """Let no other step begin, ever."""
        self._finishing = True
        self._going.set()

    @property
    def held(self) -> bool:
        """Whether steps wait."""
        return not self._going.is_set()

    async def next(self) -> None:
        """Wait until the next step may begin. Raises `Finished` when none may."""
        if self.held:
            await self._going.wait()
        if self._finishing:
            raise Finished

    async def slices(self, records: Sequence[Record]) -> AsyncIterator[Sequence[Record]]:
        """Divide records, and give way to others before more than a slice has been worked through."""
        size = self._slice_records_max
        for at in range(0, len(records), size):
            piece = records[at : at + size]
            self._unbroken += len(piece)
            if self._unbroken > size:
                self._unbroken = len(piece)
                await asyncio.sleep(0)
            yield piece
