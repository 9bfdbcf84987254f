"""The API over real tables: every call fits its description, pages lose nothing, an outage is a 503."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.unit.web.test_openapi import ASKED, check, json_answer
from tests.unit.web.web_world import T0, World, divergence, populated
from verifier.adapters.migrations import migrate
from verifier.adapters.postgres import PostgresStore
from verifier.core.journal import Entry
from verifier.demo.stack.postgres import Postgres

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("web") / "data") as server:
        yield server


@pytest_asyncio.fixture
async def store(postgres: Postgres) -> AsyncIterator[PostgresStore]:
    name = f"web_{secrets.token_hex(6)}"  # a server given from outside keeps others'
    postgres.create_database(name)
    await migrate(postgres.dsn(name))
    connected = await PostgresStore.connect(postgres.dsn(name))
    yield connected
    with contextlib.suppress(OSError):
        await connected.close()


async def fill(store: PostgresStore, world: World) -> None:
    """Apply the world's journal to the real tables."""
    entries: list[tuple[int, Entry]] = [(offset, entry) for (_, offset), entry in world.journal.items()]
    await store.apply(0, entries, lag=7)


async def test_answers_over_real_tables_fit_their_description_and_equal_the_twins(
    store: PostgresStore,
) -> None:
    world = await populated()
    await fill(store, world)
    async with world.client(store=store) as real, world.client() as twin:
        for path, query in ASKED.items():
            address = path.replace("{request_id}", "req-1") + query
            answer = await real.get(address)
            assert answer.status_code == 200, answer.text
            check(json_answer(path, "200")["schema"], answer.json())
            assert answer.json() == (await twin.get(address)).json()


@pytest.mark.parametrize("path", ["/v1/divergences", "/v1/requests"])
async def test_pages_of_real_tables_lose_and_repeat_nothing_while_rows_are_added(
    store: PostgresStore, path: str
) -> None:
    world = World()
    for number in range(40):
        await world.add(divergence(f"r-{number:03}", T0 + number // 4, "GET /a"))
    await fill(store, world)
    seen: list[str] = []
    cursor, added = None, 40
    async with world.client(store=store) as client:
        while True:
            page = (
                await client.get(path, params={"limit": 7, **({"cursor": cursor} if cursor else {})})
            ).json()
            seen += [item["request_id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            await world.add(divergence(f"r-{added:03}", T0 + 100, "GET /a"))
            await store.apply(0, [(added, world.journal[0, added])], lag=0)
            added += 1
    assert seen == sorted(set(seen), reverse=True)
    assert {f"r-{number:03}" for number in range(40)} <= set(seen)


@pytest.mark.skipif("VERIFIER_POSTGRES" in os.environ, reason="stops the server, which is not ours then")
async def test_postgres_stopped_is_a_503_and_back_again_a_200(
    store: PostgresStore, postgres: Postgres
) -> None:
    world = await populated()
    await fill(store, world)
    async with world.client(store=store, read_timeout_s=3.0) as client:
        postgres.stop()
        for path in ("/v1/summary", "/v1/routes", "/v1/divergences", "/v1/requests/req-1"):
            answer = await client.get(path)
            assert answer.status_code == 503, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["dependency"] == "postgres"
        assert (await client.get("/healthz")).status_code == 200
        postgres.start()
        assert (await client.get("/v1/summary")).json()["requests"]["total"] == 4
