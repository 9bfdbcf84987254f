"""A request's records, sorted out by side and kind."""

from __future__ import annotations

from collections.abc import Iterable

from verifier.core.events import Edge, Event, Response, Seen, Write, in_order
from verifier.core.outcome import SideFacts


class Evidence:
    """A request's records sorted out by side: the first edge line and response of each, and all writes in order.

    `route`, `user_id`, `idempotency_key` and `operation` are the first that any record gives, main's first.
    """

    __slots__ = (
        "edges", "gaps", "idempotency_key", "operation", "responses", "route", "seen", "user_id", "writes",
    )  # fmt: skip

    def __init__(self, seen: Iterable[Seen]) -> None:
        self.seen = in_order(seen)
        self.edges: dict[str, Edge] = {}
        self.responses: dict[str, Response] = {}
        self.writes: dict[str, list[Write]] = {}
        self.gaps: dict[str, str] = {}
        mains: list[Event] = []
        others: list[Event] = []
        for item in self.seen:
            event = item.event
            (mains if event.side == "main" else others).append(event)
            if isinstance(event, Response):
                self._add_response(event)
            elif isinstance(event, Edge):
                self._add_edge(event)
            else:
                self.writes.setdefault(event.side, []).append(event)
        for writes in self.writes.values():
            if len(writes) > 1 and all(write.seq is not None for write in writes):
                writes.sort(key=lambda write: (write.seq, write.ts))
        self._note_firsts(mains + others)

    def _note_firsts(self, events: list[Event]) -> None:
        route = user_id = idempotency_key = operation = None
        for event in events:
            if route is None:
                route = event.route
            if user_id is None:
                user_id = event.user_id
            if idempotency_key is None:
                idempotency_key = event.idempotency_key
            if operation is None and isinstance(event, Write):
                operation = event.operation
        self.route, self.user_id = route, user_id
        self.idempotency_key, self.operation = idempotency_key, operation

    def _add_response(self, response: Response) -> None:
        """A record that only owns up to a gap adds that to the response, whichever is first."""
        side = response.side
        known = self.responses.get(side)
        if response.capture_gap:
            self.gaps.setdefault(side, response.capture_gap)
        if known is None or (known.capture_gap and not response.capture_gap):
            self.responses[side] = response

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
