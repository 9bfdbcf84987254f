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
    """How carefully to feed after a failure: in ever smaller chunks, until the record that makes us fail is alone.

    That one is set aside, and the chunks grow again, up to `records_at_once_max`. `aside` is bounded; beyond it nothing
    more is set aside, and the partition stays blocked for a person to look at.
    """

    def __init__(self, records_at_once_max: int) -> None:
        self._records_at_once_max = records_at_once_max
        self.records_max = records_at_once_max
        self.aside: set[tuple[Source, int]] = set()
        self.failures = 0
        self._told: set[str] = set()
        self._chunk: tuple[Source, Sequence[Record]] | None = None
        self._suspect: tuple[Source, int, int] | None = None
        self._suspect_records_max = records_at_once_max

    def is_new(self, error: str) -> bool:
        """Whether this is the first failure of its kind: the one to be told in full."""
        known = error in self._told
        if len(self._told) < KINDS_MAX:
            self._told.add(error)
        return not known

    def begin(self, source: Source, chunk: Sequence[Record]) -> None:
        """Note what is fed next."""
        self._chunk = (source, chunk)

    def passed(self) -> None:
        """Note that it did no harm."""
        self.failures = 0
        self._chunk = None
        self.records_max = min(self._records_at_once_max, self.records_max * 2)

    def passed_again(self) -> None:
        """Note that it did no harm in a recovery, which says nothing about what comes after."""
        self._chunk = None

    def failed(self) -> None:
        """Note that it did."""
        self.failures += 1
        if self._chunk is None:
            self.records_max = min(CAREFUL_RECORDS_MAX, self._records_at_once_max)
            return
        source, chunk = self._chunk
        first = chunk[0].offset
        if len(chunk) > 1:
            self.records_max = max(1, len(chunk) // 16)
            self._suspect = source, first, chunk[-1].offset + 1
            self._suspect_records_max = self.records_max
        elif (source, first) not in self.aside and len(self.aside) < ASIDE_MAX:
            self.aside.add((source, first))
            self._suspect = None
            _log.error("record_set_aside", source=source.name.lower(), offset=first)
        self._chunk = None

    def describe(self) -> str | None:
        """What was being fed, for the log."""
        if self._chunk is None:
            return None
        source, chunk = self._chunk
        return f"{len(chunk)} records of {source.name.lower()} from offset {chunk[0].offset}"

    def pieces(self, source: Source, records: Sequence[Record]) -> Iterator[Sequence[Record]]:
        """Divide what a recovery reads again: where the last one failed in small pieces, everywhere else not at all.

        A recovery begins at the same place each time, so chunks that grow with what passes would never get small
        where it matters.
        """
        at = 0
        while at < len(records):
            size = len(records) - at
            if self._suspect is not None and self._suspect[0] == source:
                _, start, end = self._suspect
                if start <= records[at].offset < end:
                    size = self._suspect_records_max
                elif records[at].offset < start:
                    size = sum(record.offset < start for record in records[at:])
            yield records[at : at + size]
            at += size

    def decode(
        self, codec: Codec, source: Source, partition: int, records: Sequence[Record], known: Container[str]
    ) -> tuple[list[Seen], list[Rejection]]:
        """Decode, without the records that are set aside."""
        if not self.aside:
            return codec.decode(source, partition, records, known)
        good = [record for record in records if (source, record.offset) not in self.aside]
        seen, rejections = codec.decode(source, partition, good, known)
        rejections += [
            Rejection(source=source, offset=record.offset, reason=SET_ASIDE, detail=_DETAIL)
            for record in records
            if (source, record.offset) in self.aside
        ]
        return seen, sorted(rejections, key=lambda rejection: rejection.offset)
