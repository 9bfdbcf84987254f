"""Writing the tables behind the journal: in order, in bulk, and never ahead of it.

Each partition has a bounded queue; when a slow or absent PostgreSQL fills it, the partition's worker waits, and with it
the consumer. Entries are applied by compare and set on the entry number, so a repeat or a rival does no harm.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

import structlog

from verifier.core.errors import DependencyDown, StaleApply, VerifierError
from verifier.core.journal import Entry, valid_entries
from verifier.stream.ports import Clock, Journal, Position, Status, Store

_log = structlog.get_logger(__name__)
GROUP_REQUESTS_MAX = 5_000
CATCH_UP_ENTRIES = 200
WRITING_AT_ONCE_MAX = 4
"""Partitions written at once; PostgreSQL's other connections are for who asks."""
RESURFACED_MAX = 10_000
STATUS_EVERY_S = 0.5
STATUS_AGAIN_S = 2.0


class TablesWriter:
    """Applies journal entries to the store, each partition's in their order."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        clock: Clock,
        *,
        queue_max: int = 64,
        retry_s: float = 0.5,
        bound_met: Callable[[str, int], None] = lambda _bound, _count: None,
    ) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._queue_max = queue_max
        self._retry_s = retry_s
        self._bound_met = bound_met
        self._queues: defaultdict[int, deque[tuple[int, Entry]]] = defaultdict(deque)
        self._statuses: dict[int, Status] = {}
        self._told: dict[int, tuple[float, Status]] = {}
        self._resurfaced: defaultdict[int, dict[str, None]] = defaultdict(dict)
        self._changed = asyncio.Event()
        self._room = asyncio.Condition()
        self._turns = asyncio.Semaphore(WRITING_AT_ONCE_MAX)
        self.waiting = False
        self.blocked: str | None = None

    # -- for the partition workers ---------------------------------------------------------------------------

    async def put(self, partition: int, offset: int, entry: Entry) -> None:
        """Hand over an entry; waits while the partition's queue is full."""
        queue = self._queues[partition]
        async with self._room:
            await self._room.wait_for(lambda: len(queue) < self._queue_max)
            queue.append((offset, entry))
        self._changed.set()

    async def position(self, partition: int) -> Position | None:
        """Give up what is queued for the partition (the journal has it), and return where the tables stand."""
        async with self._room:
            self._queues[partition].clear()
            self._room.notify_all()
        return await self._store.position(partition)

    async def lookup(self, request_ids: Sequence[str]) -> Mapping[str, int]:
        """Return the newest journal offset of the requests that have a verdict, written or on its way."""
        wanted = set(request_ids)
        rows = await self._store.lookups(request_ids)
        found = {
            request_id: row.journal_offsets[-1] for request_id, row in rows.items() if row.journal_offsets
        }
        for queue in self._queues.values():
            for offset, entry in queue:
                for resolved in entry.resolved:
                    if resolved.outcome.request_id in wanted:
                        found[resolved.outcome.request_id] = offset
        return found

    def note_status(self, partition: int, status: Status) -> None:
        """Note where a partition stands; written with the next round if it changed, twice a second at most.

        Now and then it is written though nothing changed: a former owner of the partition may have had the last word.
        """
        self._statuses[partition] = status
        if self._is_news(partition, status):
            self._changed.set()

    def _is_news(self, partition: int, status: Status) -> bool:
        """Whether something has come to an end or begun, or it was told a while ago."""
        at, told = self._told.get(partition, (0.0, None))
        if told is None or (not told.pending, not told.lag) != (not status.pending, not status.lag):
            return True
        return self._clock.monotonic() - at >= (STATUS_EVERY_S if told != status else STATUS_AGAIN_S)

    async def histories(self, partition: int, request_ids: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return the journal offsets of all verdicts of the partition's requests, oldest first."""
        rows = await self._store.lookups(request_ids)
        return {
            request_id: row.journal_offsets for request_id, row in rows.items() if row.partition == partition
        }

    def take_resurfaced(self, partition: int) -> list[str]:
        """Hand over the requests of the partition that turned out to have had a verdict before their first."""
        return list(self._resurfaced.pop(partition, ()))

    def _note_resurfaced(self, partition: int, request_ids: Sequence[str]) -> None:
        noted = self._resurfaced[partition]
        for number, request_id in enumerate(request_ids):
            if len(noted) >= RESURFACED_MAX:
                self._bound_met("resurfaced", len(request_ids) - number)
                _log.warning("resurfaced_not_judged_again", partition=partition, requests=len(request_ids))
                return
            noted[request_id] = None

    def forget(self, partition: int) -> None:
        """Drop what is queued for a partition that is ours no more."""
        self._queues.pop(partition, None)
        self._statuses.pop(partition, None)
        self._told.pop(partition, None)
        self._resurfaced.pop(partition, None)

    @property
    def queued(self) -> int:
        """Number of entries waiting to be written."""
        return sum(len(queue) for queue in self._queues.values())

    # -- the task --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write for ever. What cannot be written stays queued, and `blocked` says why."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.write_all()
            except VerifierError as error:
                await self._block(str(error))
            except Exception as error:  # noqa: BLE001 - nothing is dropped: it stays queued, and is tried again
                if self.blocked is None:
                    _log.exception("tables_failed")
                await self._block(f"failed: {type(error).__name__}; the log has the details")

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything queued is written, at most `timeout_s` seconds: the journal has the rest."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.queued:
                    await self.write_all()
        except TimeoutError:
            _log.warning("tables_not_drained", queued=self.queued)

    async def write_all(self) -> None:
        """Write everything queued now, some partitions at once: most of the time it takes is waiting for answers."""
        while filled := [partition for partition, queue in self._queues.items() if queue]:
            written = await asyncio.gather(*map(self._write_in_turn, filled), return_exceptions=True)
            for failure in written:
                if failure is not None:
                    raise failure
        for partition, status in list(self._statuses.items()):
            if self._is_news(partition, status):
                await self._tell(partition, status)

    async def _tell(self, partition: int, status: Status) -> None:
        try:
            await self._store.status(partition, status)
            self._told[partition] = self._clock.monotonic(), status
            self._answered()
        except DependencyDown as down:
            await self._wait(down)
            self._changed.set()

    async def _write_in_turn(self, partition: int) -> None:
        async with self._turns:
            if self._queues.get(partition):  # it may have been given up meanwhile
                await self._write(partition)

    async def _write(self, partition: int) -> None:
        queue = self._queues[partition]
        group: list[tuple[int, Entry]] = []
        requests = 0
        for offset, entry in queue:
            if group and (
                requests + len(entry.resolved) > GROUP_REQUESTS_MAX or entry.n != group[-1][1].n + 1
            ):
                break
            group.append((offset, entry))
            requests += len(entry.resolved)
        status = self._statuses.get(partition)
        try:
            resurfaced = await self._store.apply(partition, group, lag=status.lag if status else 0)
        except DependencyDown as down:
            await self._wait(down)
            return
        except StaleApply as stale:
            await self._catch_up(partition, stale)
            return
        self._answered()
        if resurfaced:
            self._note_resurfaced(partition, resurfaced)
        await self._done(partition, group[-1][1].n)

    async def _catch_up(self, partition: int, stale: StaleApply) -> None:
        """The tables stand elsewhere: drop what they have, and fetch from the journal what they lack."""
        _log.warning("tables_stand_elsewhere", partition=partition, detail=str(stale))
        queue = self._queues[partition]
        if stale.actual_n >= stale.expected_n:
            await self._done(partition, stale.actual_n)
            return
        try:
            position = await self._store.position(partition)
            start, after_n = (position.journal_offset + 1, position.n) if position else (0, -1)
            end = queue[0][0] if queue else (await self._journal.tail(partition))[1]
            entries = await self._journal.read(partition, start, min(end, start + CATCH_UP_ENTRIES))
            missing = list(valid_entries(entries, after_n=after_n))
            if missing:
                self._note_resurfaced(partition, await self._store.apply(partition, missing))
        except DependencyDown as down:
            await self._wait(down)
            return
        except StaleApply:
            return
        if not missing and queue:
            await self._block(
                f"the tables stand at entry {after_n} of partition {partition}, the next at hand is {queue[0][1].n},"
                " and the journal has none between"
            )

    async def _done(self, partition: int, n: int) -> None:
        queue = self._queues.get(partition)
        async with self._room:
            while queue and queue[0][1].n <= n:
                queue.popleft()
            self._room.notify_all()

    async def _wait(self, down: DependencyDown) -> None:
        if not self.waiting:
            _log.warning("waiting", dependency=down.dependency, detail=down.detail, queued=self.queued)
        self.waiting = True
        await self._clock.sleep(self._retry_s)
        self._changed.set()

    def _answered(self) -> None:
        if self.waiting or self.blocked is not None:
            _log.info("going_on", dependency="postgres", queued=self.queued)
        self.waiting, self.blocked = False, None

    async def _block(self, reason: str) -> None:
        """Say what keeps the tables from being written, once, and try again a little later."""
        if self.blocked != reason:
            _log.error("tables_blocked", detail=reason, queued=self.queued)
        self.blocked = reason
        await self._clock.sleep(self._retry_s)
        self._changed.set()
