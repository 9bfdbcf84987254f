"""What operators are told of a lost database: a new one is filled from the journal, and says the same."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.cluster import Cluster, Produced, Servers, wait_for
from tests.acceptance.records import mirrored, mutating, served_by_canary
from verifier.demo.stack.kafka import Kafka
from verifier.demo.stack.postgres import Postgres
from verifier.demo.stack.redis import Redis

pytestmark = [pytest.mark.integration, pytest.mark.long]
REQUESTS = 300


@pytest.fixture
def cluster(
    kafka: Kafka, redis: Redis, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    name = f"rebuild_{os.getpid()}"
    made = Cluster(Servers(kafka, redis, postgres), name, tmp_path_factory.mktemp(name))
    made.start(1)
    yield made
    made.close()


def requests() -> list[Produced]:
    ts = time.time()
    made: list[Produced] = []
    for n in range(REQUESTS):
        at = ts + n / 100
        kind = n % 5
        if kind == 0:
            made += mirrored(f"b-{n}", at, shadow={"body": {"id": n}})
        elif kind == 1:
            made += served_by_canary(f"b-{n}", at, key=n)
        elif kind == 2:
            made += mutating(
                f"b-{n}", at, main={"data": {"n": n}}, shadow={"data": {"n": n}}, idempotency_key="one"
            )
        else:
            made += mirrored(f"b-{n}", at)[: 3 if kind == 3 else 4]
    return made


def told(cluster: Cluster) -> dict[str, object]:
    """All that REST says and that does not change with time."""
    worker = cluster.workers[0]
    summary = {k: v for k, v in cluster.summary().items() if k not in {"verified_through", "pending", "lag"}}
    return {
        "summary": summary,
        "routes": worker.json("/v1/routes")["items"],
        "conflicts": sorted(each["id"] for each in cluster.paged("/v1/conflicts", 100)),
        "divergences": sorted(each["request_id"] for each in cluster.paged("/v1/divergences", 100)),
    }


def test_a_lost_database_is_filled_again_from_the_journal(cluster: Cluster) -> None:
    cluster.produce(requests())
    cluster.settle(REQUESTS)
    wait_for("conflicts", lambda: len(cluster.paged("/v1/conflicts", 100)) > 50, 30.0)
    before = told(cluster)
    worker = cluster.workers[0]
    assert worker.stop()[0] == 0
    worker._env["VERIFIER_POSTGRES"] = cluster.env["VERIFIER_POSTGRES"] = (
        cluster.servers.postgres.create_database(f"{cluster.name}_again")
    )
    cluster.init()
    worker.start()
    cluster.wait_ready()
    cluster.settle(REQUESTS)
    wait_for("the new database to say what the old one said", lambda: told(cluster) == before, 60.0)
