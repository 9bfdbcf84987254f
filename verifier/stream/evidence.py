"""Fetching what a request was judged by, long after: its journal entries, and the records they name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from verifier.core.events import Seen, Source
from verifier.core.outcome import EventRef, Resolved
from verifier.core.requests import Reopening
from verifier.stream.codec import Codec
from verifier.stream.ports import Journal, Records


class _Ports(Protocol):
    @property
    def journal(self) -> Journal: ...
    @property
    def records(self) -> Records: ...


class Evidence:
    """The evidence of one partition's requests. `until_up` repeats a call until the server it needs answers."""

    def __init__(
        self,
        partition: int,
        codec: Codec,
        ports: _Ports,
        until_up: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]],
    ) -> None:
        self._partition = partition
        self._codec = codec
        self._ports = ports
        self._until_up = until_up

    async def resolved_at(self, request_id: str, journal_offset: int) -> Resolved | None:
        """What the entry at that offset says of the request; None when it is gone or says nothing."""
        resolved = await self._resolved_by(journal_offset)
        return next((item for item in resolved if item.outcome.request_id == request_id), None)

    async def resolved_in(self, journal_offsets: Mapping[str, int]) -> dict[str, Resolved]:
        """What the entries say of requests, by request id; `journal_offsets` says which entry to ask.

        Each entry is read once, whatever the number of its requests: after a long outage there are thousands.
        """
        wanted: dict[int, set[str]] = {}
        for request_id, offset in journal_offsets.items():
            wanted.setdefault(offset, set()).add(request_id)
        found: dict[str, Resolved] = {}
        for offset, request_ids in sorted(wanted.items()):
            for resolved in await self._resolved_by(offset):
                if resolved.outcome.request_id in request_ids:
                    found.setdefault(resolved.outcome.request_id, resolved)
        return found

    async def _resolved_by(self, journal_offset: int) -> list[Resolved]:
        """What the entry at an offset resolved; nothing when it is gone."""
        entries = await self._until_up(
            lambda: self._ports.journal.read(self._partition, journal_offset, journal_offset + 1)
        )
        return [resolved for _, entry in entries for resolved in entry.resolved]

    async def records(self, refs: Sequence[EventRef]) -> list[Seen] | None:
        """Read the records again; None when retention took one."""
        return (await self.records_of([refs]))[0]

    async def records_of(self, requests: Sequence[Sequence[EventRef]]) -> list[list[Seen] | None]:
        """Read the records of several requests again, all at once; None for one of which retention took any."""
        places = [(Source(ref.source), ref.offset) for refs in requests for ref in refs]
        records = iter(await self._until_up(lambda: self._ports.records.fetch(self._partition, places)))
        found: list[list[Seen] | None] = []
        for refs in requests:
            read = [(Source(ref.source), next(records)) for ref in refs]
            if any(record is None for _, record in read):
                found.append(None)
                continue
            decoded = [self._codec.decode(source, self._partition, [record])[0] for source, record in read]
            found.append([seen for each in decoded for seen in each])
        return found

    async def of_history(
        self, request_id: str, offsets: Sequence[int]
    ) -> tuple[Reopening | None, list[Seen] | None]:
        """All records that any of a request's entries names, with its newest verdict to be judged again.

        None when the newest verdict rests on all of them already, or one of them is gone.
        """
        refs: dict[int, EventRef] = {}
        newest: Resolved | None = None
        for offset in offsets:
            resolved = await self.resolved_at(request_id, offset)
            if resolved is None:
                return None, None
            newest = resolved
            for ref in resolved.events:
                refs.setdefault(ref.digest, ref)
        if newest is None or len(refs) == len(newest.events):
            return None, None
        former = await self.records(tuple(refs.values()))
        return Reopening(request_id=request_id, resolved=newest, seen=()), former
