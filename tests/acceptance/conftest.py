"""Deployments of the product for the acceptance tests, all on the same three servers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.cluster import Cluster, Servers
from verifier.demo.stack.kafka import Kafka
from verifier.demo.stack.postgres import Postgres
from verifier.demo.stack.redis import Redis

_numbers = itertools.count(1)

NewCluster = Callable[..., Cluster]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/acceptance/" in str(item.path):
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture(scope="session")
def servers(kafka: Kafka, redis: Redis, postgres: Postgres) -> Servers:
    return Servers(kafka, redis, postgres)


@pytest.fixture(scope="module")
def new_cluster(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewCluster]:
    """Makes deployments that end with the module."""
    made: list[Cluster] = []

    def make(**options: object) -> Cluster:
        name = f"acceptance_{os.getpid()}_{next(_numbers)}"
        made.append(Cluster(servers, name, tmp_path_factory.mktemp(name), **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()
