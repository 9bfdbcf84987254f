"""What the verifier says of a run, read over its REST API alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
from msgspec import Struct

Row = dict[str, Any]
PAGE = 1000
READS_AT_ONCE = 4


class Findings(Struct, frozen=True, kw_only=True):
    """The summary, every request without a match, every conflict, and requests read one by one."""

    summary: Row
    verdicts: list[Row]
    conflicts: list[Row]
    details: dict[str, Row]

    def latencies(self, truth: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
        """Main's and the shadow's seconds of the planted requests that were read."""
        found: dict[str, tuple[float, float]] = {}
        for row in truth:
            detail = self.details.get(row["request_id"])
            if detail is None:
                continue
            by_side = {side["side"]: side["latency_s"] for side in detail["sides"]}
            main, shadow = by_side.get("main"), by_side.get("shadow")
            if main is not None and shadow is not None:
                found[row["request_id"]] = (main, shadow)
        return found


async def gather(client: httpx.AsyncClient, read: Sequence[str] = ()) -> Findings:
    """Read everything; `read` names requests to look at one by one."""
    verdicts = [row async for row in pages(client, "/v1/divergences", {})]
    for verdict in ("incomplete", "incomparable"):
        verdicts += [row async for row in pages(client, "/v1/requests", {"verdict": verdict})]
    conflicts = [row async for row in pages(client, "/v1/conflicts", {})]
    places = asyncio.Semaphore(READS_AT_ONCE)

    async def one(request_id: str) -> tuple[str, Row | None]:
        async with places:
            response = await client.get(f"/v1/requests/{request_id}")
            return request_id, response.json() if response.status_code == 200 else None

    details = {name: row for name, row in await asyncio.gather(*map(one, read)) if row is not None}
    summary = await client.get("/v1/summary")
    summary.raise_for_status()
    return Findings(summary=summary.json(), verdicts=verdicts, conflicts=conflicts, details=details)


async def pages(client: httpx.AsyncClient, path: str, query: Mapping[str, Any]) -> AsyncIterator[Row]:
    """Every item of a paged list."""
    cursor = None
    while True:
        more: dict[str, Any] = {"cursor": cursor} if cursor else {}
        response = await client.get(path, params={**query, **more, "limit": PAGE})
        response.raise_for_status()
        page = response.json()
        for item in page["items"]:
            yield item
        cursor = page["next_cursor"]
        if cursor is None:
            return
