"""Going on after a failure of our own: which records to feed at once, and which to leave out."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import structlog

from verifier.core.events import Rejection, Seen, Source
from verifier.stream.codec import Codec, Record

CAREFUL_RECORDS_MAX = 512
ASIDE_MAX = 10_000
KINDS_MAX = 100
SET_ASIDE = "internal_error"
"""The reason of a rejection for want of a better one: the record is readable, as far as is known."""
_DETAIL = "a mistake of the verifier's: it cannot work with this record; please report it with the log"
_log = structlog.get_logger(__name__)


class Care:
    """How carefully to feed after a failure: in ever smaller pieces, until the record that makes us fail is alone.

    That one is set aside. A record that cannot even be decoded is found at once, by decoding each by itself; for others
    the partition is recovered each time, with less suspected than before. `aside` is bounded; beyond it nothing more is
    set aside, and the partition stays blocked for a person to look at.
    """

    def __init__(self, records_at_once_max: int) -> None:
        self._records_at_once_max = records_at_once_max
        self.records_max = records_at_once_max
        """How many records are read at once after a failure of which nothing is known, growing with what passes."""
        self.aside: set[tuple[Source, int]] = set()
        self.failures = 0
        self.feeding: tuple[Source, Sequence[Record]] | None = None
        """What is being fed right now: what failed, if something fails."""
        self._told: set[str] = set()
        self._chunk: tuple[Source, Sequence[Record]] | None = None
        self._suspects: dict[Source, tuple[int, int, int]] = {}

    def is_new(self, error: str) -> bool:
        """Whether this is the first failure of its kind: the one to be told in full."""
        known = error in self._told
        if len(self._told) < KINDS_MAX:
            self._told.add(error)
        return not known

    def begin_again(self) -> None:
        """Note that nothing is in work: what was, when the partition was lost or a server away, is not to blame."""
        self.feeding = self._chunk = None

    def begin(self, source: Source, chunk: Sequence[Record]) -> None:
        """Note what is in the next step, and nothing else."""
        self._chunk = (source, chunk)

    def passed(self) -> None:
        """Note that it did no harm."""
        self.failures = 0
        self._chunk = None
        self.records_max = min(self._records_at_once_max, self.records_max * 2)

    def failed(self, error: Exception) -> bool:
        """Note that something did; returns whether less is suspected now than before.

        That memory ran out is no record's fault.
        """
        self.failures += 1
        suspected = self.feeding or self._chunk
        self.feeding = self._chunk = None
        if suspected is None or isinstance(error, MemoryError):
            self.records_max = min(CAREFUL_RECORDS_MAX, self._records_at_once_max)
            return False
        source, chunk = suspected
        first = chunk[0].offset
        if len(chunk) > 1:
            self._suspects[source] = first, chunk[-1].offset + 1, max(1, len(chunk) // 16)
            return True
        self._suspects.pop(source, None)
        return self._set_aside(source, first)

    def _set_aside(self, source: Source, offset: int) -> bool:
        if (source, offset) in self.aside or len(self.aside) >= ASIDE_MAX:
            return False
        self.aside.add((source, offset))
        _log.error("record_set_aside", source=source.name.lower(), offset=offset)
        return True

    def describe(self) -> str | None:
        """What was being fed, for the log."""
        if (suspected := self.feeding or self._chunk) is None:
            return None
        source, chunk = suspected
        return f"{len(chunk)} records of {source.name.lower()} from offset {chunk[0].offset}"

    def pieces(self, source: Source, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """Divide what is read again: in small pieces where it failed before, elsewhere into `records_max`.

        A recovery begins at the same place each time, so pieces that only grow with what passes would never get small
        where it matters.
        """
        start, end, suspected_max = self._suspects.get(source, (0, 0, 0))
        at = 0
        while at < len(records):
            size = min(self.records_max, len(records) - at)
            if start <= records[at].offset < end:
                size = suspected_max
            elif records[at].offset < start:
                size = sum(record.offset < start for record in records[at : at + size])
            yield records[at : at + size]
            at += size

    def decode(
        self, codec: Codec, source: Source, partition: int, records: Sequence[Record], known: Container[str]
    ) -> tuple[list[Seen], list[Rejection]]:
        """Decode, without the records that are set aside, now or before."""
        good = records
        if self.aside:
            good = [record for record in records if (source, record.offset) not in self.aside]
        try:
            seen, rejections = codec.decode(source, partition, good, known)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - whose fault it is shows when each is by itself
            seen, rejections = self._decode_each(codec, source, partition, good, known)
        if not self.aside:
            return seen, rejections
        rejections += [
            Rejection(source=source, offset=record.offset, reason=SET_ASIDE, detail=_DETAIL)
            for record in records
            if (source, record.offset) in self.aside
        ]
        return seen, sorted(rejections, key=lambda rejection: rejection.offset)

    def _decode_each(
        self, codec: Codec, source: Source, partition: int, records: Sequence[Record], known: Container[str]
    ) -> tuple[list[Seen], list[Rejection]]:
        """Decode record by record, and set aside those that fail."""
        events: list[Seen] = []
        rejections: list[Rejection] = []
        for record in records:
            try:
                seen, rejected = codec.decode(source, partition, [record], known)
            except MemoryError:
                raise
            except Exception as error:
                if not self._set_aside(source, record.offset):
                    raise
                name = type(error).__name__
                if self.is_new(name):
                    _log.exception(
                        "decode_failed", source=source.name.lower(), offset=record.offset, error=name
                    )
                continue
            events += seen
            rejections += rejected
        return events, rejections
