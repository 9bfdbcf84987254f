"""One idempotency key that hundreds of requests claim: every loser is found, and what the bound drops is counted."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from stream_world import StreamWorld
from verifier.core.conflict import CLAIMS_PER_KEY_MAX
from verifier.testing import edge, response, write

REQUESTS = CLAIMS_PER_KEY_MAX + 72


def writing(number: int, ts: float) -> list[dict[str, Any]]:
    """A request that writes a row of its own under the key that all use."""
    request_id, made = f"r{number:04}", []
    for side in ("main", "shadow"):
        made += [
            edge(request_id, side, ts=ts, method="POST"),
            write(request_id, side, ts=ts, key=number, data={"n": number}, idempotency_key="hot"),
            response(request_id, side, ts=ts, method="POST", writes=1, idempotency_key="hot"),
        ]
    return made


@pytest.mark.parametrize("at_once", [REQUESTS, 25])
async def test_every_loser_of_a_hot_key_is_found_beyond_the_bound_too(at_once: int) -> None:
    world = StreamWorld(join_timeout_s=2.0)
    ts = time.time()
    async with world.running() as worker:
        for first in range(0, REQUESTS, at_once):
            for number in range(first, min(first + at_once, REQUESTS)):
                world.produce(*writing(number, ts + number / 1000))
            await world.hand_over(worker)
            await world.settled(min(first + at_once, REQUESTS))
        async with asyncio.timeout(20):
            while (await world.summary())["conflicts"] < 2 * (REQUESTS - 1):
                await asyncio.sleep(0.02)
        found = [message for message in world.publisher.compacted("con").values() if message]
    losers = {(each["loser"]["side"], each["loser"]["request_id"]) for each in found}
    expected = {(side, f"r{n:04}") for side in ("main", "shadow") for n in range(1, REQUESTS)}
    assert losers == expected
    assert {each["winner"]["request_id"] for each in found} == {"r0000"}
    assert world.dropped >= 2 * (REQUESTS - CLAIMS_PER_KEY_MAX)
