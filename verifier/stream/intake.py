"""What a partition takes in: the batches handed over by the consumer, and which source's turn it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from verifier.core.engine import Engine
from verifier.core.events import Seen, Source
from verifier.stream.alignment import Alignment
from verifier.stream.codec import Record
from verifier.stream.inbox import Inbox
from verifier.stream.partition_config import Incoming, PartitionConfig
from verifier.stream.ports import Clock
from verifier.stream.progress import Progress

_log = structlog.get_logger(__name__)


class Intake:
    """The inbox of a partition, with what tells of the sources who is ahead, and who has had nothing for long."""

    def __init__(
        self,
        partition: int,
        config: PartitionConfig,
        clock: Clock,
        progress: Progress,
        bound_met: Callable[[str, int], None],
    ) -> None:
        self._partition = partition
        self._config = config
        self._clock = clock
        self._progress = progress
        self._bound_met = bound_met
        self._inbox = Inbox(config.inbox_records_max, config.inbox_bytes_max)
        self._alignment = Alignment(config.alignment)
        self._fed_at = [0.0 for _ in Source]
        self.wants = self._inbox.wants
        self.has = self._inbox.has
        self.close = self._inbox.close

    def begin(self) -> None:
        """Note that from now on there is something to wait for."""
        self._fed_at = [self._clock.monotonic() for _ in Source]

    def put(self, source: Source, records: Sequence[Record]) -> None:
        """Take a fetch batch. One for which there is no room at all is dropped, and read by offset later."""
        if not self._inbox.put(Incoming(source, records)):
            self._bound_met("inbox", len(records))
            told = {"partition": self._partition, "source": source.name.lower(), "records": len(records)}
            _log.warning("batch_dropped", **told, detail="the inbox is full; it is read by offset later")

    async def take(self, engine: Engine) -> list[Incoming]:
        """Wait for batches, at most for a tick; take what is there, as far as one step goes."""
        config = self._config
        wait_s = 0.0 if engine.more_due else config.tick_s
        return await self._inbox.take(
            config.step_records_max, config.step_bytes_max, wait_s, self.held(engine)
        )

    def fed(self, source: Source) -> None:
        """Note that a batch of a source was worked on."""
        self._fed_at[source] = self._clock.monotonic()

    def note(self, source: Source, seen: Sequence[Seen]) -> None:
        """Note what was read of a source."""
        self._alignment.note(source, seen)

    def held(self, engine: Engine) -> frozenset[Source]:
        """The sources that wait for others."""
        at_end = self._progress.ends.reached(engine.positions, self._clock.monotonic())
        return self._alignment.held(at_end, engine.join.pending)

    def furthest_behind(self, sources: Iterable[Source]) -> Source:
        """The one of these sources that has told least of the story."""
        return min(sources, key=lambda source: (self._alignment.front(source), source))

    def left_behind(self, engine: Engine) -> list[Source]:
        """The sources that have had more for a while, of which nothing comes."""
        ends = self._progress.ends
        now = min(self._clock.monotonic(), ends.noted_at)
        return [
            source
            for source, lag in ends.lag(engine.positions).items()
            if lag and now - self._fed_at[source] > self._config.stall_s and not self.has(source)
        ]
