"""Built records as the core sees them: decoded, with their place in the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from verifier.core.events import Seen, Source
from verifier.core.policy import Limits, Policy
from verifier.core.routes import Router
from verifier.core.verdict import Judge, JudgeConfig
from verifier.stream.codec import Codec, CodecConfig
from verifier.testing import edge, record, response, source_of

_CODEC = Codec(CodecConfig())


def seen(made: Mapping[str, Any], offset: int = 0) -> Seen:
    """A built record, read from an offset of its topic."""
    events, rejections = _CODEC.decode(source_of(made), 0, [record(made, offset=offset)])
    if rejections:
        raise ValueError(f"not a record: {rejections[0].detail}")
    return events[0]


def all_seen(*made: Mapping[str, Any]) -> list[Seen]:
    """Built records, read one after the other from the beginnings of their topics."""
    ends: defaultdict[Source, int] = defaultdict(int)
    found = []
    for each in made:
        source = source_of(each)
        found.append(seen(each, ends[source]))
        ends[source] += 1
    return found


def pair(request_id: str, **of_response: Any) -> list[dict[str, Any]]:
    """Everything about a request that both sides answered alike."""
    return [
        edge(request_id),
        edge(request_id, "shadow"),
        response(request_id, **of_response),
        response(request_id, "shadow", **of_response),
    ]


def judge(
    *,
    policy: Policy | None = None,
    limits: Limits | None = None,
    expect_edge: bool = True,
    expect_responses: bool = True,
) -> Judge:
    """A judge under the default rules."""
    config = JudgeConfig(expect_edge=expect_edge, expect_responses=expect_responses)
    return Judge(policy or Policy.default(), Router([], routes_max=100), config, limits)
