"""A request's records, sorted out by side and kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from verifier.core.events import Edge, Response, Seen, Write
from verifier.core.outcome import SideFacts


class Evidence:
    """A request's records sorted out by side: the first edge line and response of each, and all writes in order."""

    __slots__ = ("edges", "gaps", "responses", "seen", "writes")

    def __init__(self, seen: Iterable[Seen]) -> None:
        self.seen = sorted(seen, key=lambda item: item.order)
        self.edges: dict[str, Edge] = {}
        self.responses: dict[str, Response] = {}
        self.writes: dict[str, list[Write]] = {}
        self.gaps: dict[str, str] = {}
        for item in self.seen:
            event = item.event
            kind = type(event)
            if kind is Response:
                self._add_response(event)  # type: ignore[arg-type]
            elif kind is Edge:
                self._add_edge(event)  # type: ignore[arg-type]
            else:
                self.writes.setdefault(event.side, []).append(event)  # type: ignore[arg-type]
        for writes in self.writes.values():
            if len(writes) > 1 and all(write.seq is not None for write in writes):
                writes.sort(key=lambda write: (write.seq, write.ts))

    def _add_response(self, response: Response) -> None:
        """A record that only owns up to a gap adds that to the response, whichever is first."""
        known = self.responses.get(response.side)
        if response.capture_gap:
            self.gaps.setdefault(response.side, response.capture_gap)
        if known is None or (known.capture_gap and not response.capture_gap):
            self.responses[response.side] = response

    def _add_edge(self, edge: Edge) -> None:
        known = self.edges.get(edge.side)
        if known is None or (edge.shed and not known.shed) or (known.sampled and not edge.sampled):
            self.edges[edge.side] = edge

    def has(self, side: str) -> bool:
        """Whether any record is of this side."""
        return side in self.edges or side in self.responses or side in self.writes

    def status(self, side: str) -> int | None:
        """What the side answered, as its response says or else the edge."""
        response = self.responses.get(side)
        if response is not None:
            return response.status
        edge = self.edges.get(side)
        return None if edge is None else edge.upstream_status or edge.status

    def facts(self, side: str) -> SideFacts:
        """The side's status, and its latency as the edge measured it or else the side itself."""
        edge, response = self.edges.get(side), self.responses.get(side)
        latency = edge.upstream_time_s if edge is not None else None
        if latency is None and response is not None and response.duration_ms is not None:
            latency = response.duration_ms / 1000
        return SideFacts(side, self.status(side), latency)

    def idempotency_keys(self, side: str) -> list[str]:
        """Every idempotency key that a side's records name, or the edge's of the request that was sent.

        All of them, so that records that come later add claims and never take one back.
        """
        keys: dict[str, None] = {}
        for item in self.seen:
            event = item.event
            if event.idempotency_key and (
                event.side == side or (type(event) is Edge and event.side != "shadow")
            ):
                keys[event.idempotency_key] = None
        return list(keys)

    def first_of(self, name: str) -> Any:
        """The first value of an optional field that any record gives, main's first."""
        for wanted in (True, False):
            for item in self.seen:
                if (item.event.side == "main") is wanted and getattr(item.event, name, None) is not None:
                    return getattr(item.event, name)
        return None
