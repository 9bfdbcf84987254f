"""Pages: to the end without losing or repeating an item, while rows come in."""

from __future__ import annotations

import pytest

from tests.unit.web.web_world import T0, World, conflict, divergence
from verifier.core.outcome import Claimant


async def diverge(world: World, number: int, ts: float) -> None:
    await world.add(divergence(f"r-{number:03}", ts, f"GET /{number:03}"))


async def collide(world: World, number: int, ts: float) -> None:
    claim = Claimant(side="main", request_id=f"r-{number}", ts=ts)
    await world.add_conflict(conflict(f"{number:03}", ts, claim, claim))


@pytest.mark.parametrize(
    ("path", "key"),
    [("/v1/divergences", "request_id"), ("/v1/requests", "request_id"), ("/v1/conflicts", "id")],
)
async def test_newest_first_lists_lose_and_repeat_nothing_while_rows_are_added(path: str, key: str) -> None:
    world = World()
    add = collide if path == "/v1/conflicts" else diverge
    for number in range(50):
        await add(world, number, T0 + number // 5)  # five items share each time
    before = {f"r-{number:03}" if add is diverge else f"{number:03}" for number in range(50)}
    seen: list[str] = []
    times: list[float] = []
    cursor, added = None, 50
    async with world.client() as client:
        while True:
            answer = await client.get(path, params={"limit": 7, **({"cursor": cursor} if cursor else {})})
            page = answer.json()
            assert 1 <= len(page["items"]) <= 7
            seen += [item[key] for item in page["items"]]
            times += [item["ts"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            await add(world, added, T0 + 100 + added)
            added += 1
    assert len(seen) == len(set(seen))
    assert before <= set(seen)
    assert times == sorted(times, reverse=True)


async def test_routes_page_by_name_while_routes_are_added() -> None:
    world = World()
    for number in range(0, 40, 2):
        await diverge(world, number, T0)
    seen: list[str] = []
    cursor, extra = None, 1
    async with world.client() as client:
        while True:
            answer = await client.get(
                "/v1/routes", params={"limit": 3, **({"cursor": cursor} if cursor else {})}
            )
            seen += [row["route"] for row in answer.json()["items"]]
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                break
            await diverge(world, extra, T0)
            extra += 6
    assert len(seen) == len(set(seen))
    assert {f"GET /{number:03}" for number in range(0, 40, 2)} <= set(seen)


async def test_fields_page_from_the_most_frequent_to_the_end() -> None:
    world = World()
    for number in range(12):
        for place in range(number % 4 + 1):
            await world.add(divergence(f"r-{number}-{place}", T0, f"GET /{number}"))
    counts: list[int] = []
    routes: list[str] = []
    cursor = None
    async with world.client() as client:
        while True:
            answer = await client.get(
                "/v1/fields", params={"limit": 5, **({"cursor": cursor} if cursor else {})}
            )
            counts += [row["count"] for row in answer.json()["items"]]
            routes += [row["route"] for row in answer.json()["items"]]
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                break
    assert counts == sorted(counts, reverse=True)
    assert sorted(routes) == sorted(f"GET /{number}" for number in range(12))


async def test_a_page_that_ends_exactly_has_no_next() -> None:
    world = World()
    for number in range(4):
        await diverge(world, number, T0)
    async with world.client() as client:
        for path in ("/v1/divergences", "/v1/routes", "/v1/fields"):
            assert (await client.get(path, params={"limit": 4})).json()["next_cursor"] is None
            assert (await client.get(path, params={"limit": 3})).json()["next_cursor"] is not None
