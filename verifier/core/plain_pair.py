"""The plain pair: a request of which both sides tell by one edge line and one response, and nothing else.

Two requests of three are such, with answers that are the same to the byte. They need none of what evidence may come to,
so the judge takes them first. Whatever is not plain is None here, and judged as any request is; for what is plain
that leads to the same outcome (tests/property/test_verdict.py).
"""

from __future__ import annotations

from typing import NamedTuple

from verifier.core.events import Edge, InOrder, Response, Write
from verifier.core.outcome import SideFacts

_RECORDS = 4
_SIDES = ("main", "shadow")


class PlainPair(NamedTuple):
    """The records of a plain pair, main's before the shadow's; `firsts` are the same in their order on each side."""

    edge: Edge
    shadow_edge: Edge
    main: Response
    shadow: Response
    firsts: tuple[Edge | Response, ...]


def plain_pair(seen: InOrder) -> PlainPair | None:
    """The plain pair that the records are, with equal answers and no writes; None for anything else."""
    if len(seen) != _RECORDS:
        return None
    edge = shadow_edge = main = shadow = None
    mains: list[Edge | Response] = []
    shadows: list[Edge | Response] = []
    for item in seen:
        event = item.event
        side = event.side
        if side not in _SIDES or isinstance(event, Write):
            return None
        (mains if side == "main" else shadows).append(event)
        if isinstance(event, Response):
            if event.capture_gap or event.body_truncated or event.writes:
                return None
            if side == "main":
                main = event
            else:
                shadow = event
        else:
            if event.shed or not event.sampled:
                return None
            if side == "main":
                edge = event
            else:
                shadow_edge = event
    if edge is None or shadow_edge is None or main is None or shadow is None:
        return None
    if (
        main.status != shadow.status
        or main.body != shadow.body
        or main.headers != shadow.headers
        or main.body_encoding != shadow.body_encoding
    ):
        return None
    return PlainPair(edge, shadow_edge, main, shadow, (*mains, *shadows))


def facts_of(edge: Edge, response: Response) -> SideFacts:
    """A side's status as it says itself, and its latency as the edge measured it or else the side."""
    latency = edge.upstream_time_s
    if latency is None and response.duration_ms is not None:
        latency = response.duration_ms / 1000
    return SideFacts(response.side, response.status, latency)
