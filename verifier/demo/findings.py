"""What the verifier says of a run, read over its REST API alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
from msgspec import Struct

Row = dict[str, Any]
PAGE = 1000
READS_AT_ONCE = 4


class Findings(Struct, frozen=True, kw_only=True):
    """Every request without a match, every conflict, and the requests that were read one by one."""

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

    def unverified(self) -> tuple[Row, ...]:
        """Why requests were not verified, most frequent first, as the report wants it."""
        why: Counter[tuple[str, str]] = Counter()
        example: dict[tuple[str, str], str] = {}
        for row in self.verdicts:
            if row["verdict"] == "divergence":
                continue
            for reason in row["missing"] or row["reasons"] or ["unknown"]:
                key = (row["verdict"], reason)
                why[key] += 1
                example.setdefault(key, row["request_id"])
        return tuple(
            {"verdict": verdict, "why": reason, "count": count, "example": example[verdict, reason]}
            for (verdict, reason), count in why.most_common()
        )

    def conflict_kinds(self) -> tuple[Row, ...]:
        """How many conflicts of each kind, as the report wants it."""
        kinds = Counter((row["scope"], row["kind"]) for row in self.conflicts)
        return tuple({"scope": scope, "kind": kind, "count": n} for (scope, kind), n in kinds.most_common())


class HttpReads:
    """The tables as the REST API gives them: what a report is made of."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def summary(self) -> Row:
        """As `GET /v1/summary`."""
        return await self._get("/v1/summary")

    async def routes(self) -> list[Row]:
        """All rows of `GET /v1/routes`."""
        return [row async for row in self.pages("/v1/routes")]

    async def fields(self, route: str | None = None) -> list[Row]:
        """All rows of `GET /v1/fields`."""
        return [row async for row in self.pages("/v1/fields", {"route": route} if route else {})]

    async def divergences(self, *, limit: int = 100) -> Row:
        """A page of `GET /v1/divergences`."""
        return await self._get("/v1/divergences", {"limit": limit})

    async def conflicts(self, *, limit: int = 100) -> Row:
        """A page of `GET /v1/conflicts`."""
        return await self._get("/v1/conflicts", {"limit": limit})

    async def request(self, request_id: str) -> Row | None:
        """`GET /v1/requests/{id}`, or None for one that is not known."""
        response = await self._client.get(f"/v1/requests/{request_id}")
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        response.raise_for_status()
        row: Row = response.json()
        return row

    async def pages(self, path: str, query: Mapping[str, Any] | None = None) -> AsyncIterator[Row]:
        """Every item of a paged list."""
        cursor: dict[str, Any] = {}
        while True:
            page = await self._get(path, {**(query or {}), **cursor, "limit": PAGE})
            for item in page["items"]:
                yield item
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    async def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Row:
        response = await self._client.get(path, params=query)
        response.raise_for_status()
        body: Row = response.json()
        return body


async def gather(reads: HttpReads, look_at: Sequence[str] = ()) -> Findings:
    """Read everything; `look_at` names requests to read one by one."""
    verdicts = [row async for row in reads.pages("/v1/divergences")]
    for verdict in ("incomplete", "incomparable"):
        verdicts += [row async for row in reads.pages("/v1/requests", {"verdict": verdict})]
    conflicts = [row async for row in reads.pages("/v1/conflicts")]
    places = asyncio.Semaphore(READS_AT_ONCE)

    async def one(request_id: str) -> tuple[str, Row | None]:
        async with places:
            return request_id, await reads.request(request_id)

    rows = await asyncio.gather(*map(one, look_at))
    details = {request_id: row for request_id, row in rows if row is not None}
    return Findings(verdicts=verdicts, conflicts=conflicts, details=details)
