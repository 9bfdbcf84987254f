"""Real servers for the contract tests, started once, and the two kinds of each store side by side."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest
import pytest_asyncio

from verifier.adapters.claims import RedisClaims
from verifier.adapters.migrations import migrate
from verifier.adapters.postgres import PostgresStore
from verifier.demo.stack.postgres import Postgres
from verifier.demo.stack.redis import Redis
from verifier.testing_claims import MemoryClaims
from verifier.testing_tables import MemoryStore

CLAIMS_PER_KEY_MAX = 4  # small, so that few claims meet the bound

_numbers = itertools.count(1)
_run = secrets.token_hex(
    4
)  # names this run's databases and keys: a server given from outside keeps others', too


def _now(work: Coroutine[object, object, object]) -> None:
    """Run it to its end in a loop and a thread of its own: the test's loop may be running here."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


async def _administer(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis"), appendonly=False) as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The DSN of an empty database."""
    name = f"contract_{_run}_{next(_numbers)}"
    yield postgres.create_database(name)
    _now(_administer(postgres.dsn(), f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> Iterator[str]:
    """The name of a database that has every migration, to be copied."""
    name = f"contract_{_run}_template"
    _now(migrate(postgres.create_database(name)))
    yield name
    _now(_administer(postgres.dsn(), f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def migrated(postgres: Postgres, template: str) -> Iterator[str]:
    """The DSN of a database with every table, all of them empty."""
    name = f"contract_{_run}_{next(_numbers)}"
    _now(_administer(postgres.dsn(), f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    yield postgres.dsn(name)
    _now(_administer(postgres.dsn(), f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest_asyncio.fixture(params=["postgres", "memory"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[PostgresStore | MemoryStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    opened = await PostgresStore.connect(request.getfixturevalue("migrated"))
    yield opened
    await opened.close()


@pytest_asyncio.fixture(params=["redis", "memory"])
async def claims(request: pytest.FixtureRequest) -> AsyncIterator[RedisClaims | MemoryClaims]:
    if request.param == "memory":
        yield MemoryClaims(claims_per_key_max=CLAIMS_PER_KEY_MAX)
        return
    url = request.getfixturevalue("redis").url(1)
    prefix = f"{_run}:{next(_numbers)}:"
    opened = RedisClaims(url, prefix=prefix, claims_per_key_max=CLAIMS_PER_KEY_MAX)
    yield opened
    await opened.close()
