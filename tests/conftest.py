"""Real servers for every kind of test, each started once for the whole run, and only when a test asks for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from verifier.demo.stack.kafka import Kafka
from verifier.demo.stack.postgres import Postgres
from verifier.demo.stack.redis import Redis


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    """A folder for the servers' data that PostgreSQL's own account can pass through."""
    with tempfile.TemporaryDirectory(prefix="verifier-tests-") as folder:
        path = Path(folder)
        path.chmod(0o711)
        yield path


@pytest.fixture(scope="session")
def kafka(server_dir: Path) -> Iterator[Kafka]:
    with Kafka(server_dir / "kafka") as server:
        yield server


@pytest.fixture(scope="session")
def redis(server_dir: Path) -> Iterator[Redis]:
    with Redis(server_dir / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def postgres(server_dir: Path) -> Iterator[Postgres]:
    with Postgres(server_dir / "postgres") as server:
        yield server
