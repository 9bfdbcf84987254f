"""The image's health check and its stop signal, on a real worker in the middle of its work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.acceptance.cluster import (
    STOPPED_WITHIN_S,
    Cluster,
    Produced,
    Servers,
    WorkerProcess,
    run,
    wait_for,
)
from tests.acceptance.records import mirrored
from tests.deployment.image.dockerfile import ROOT, stages
from verifier.demo.stack.kafka import Kafka
from verifier.demo.stack.ports import free_port
from verifier.demo.stack.postgres import Postgres
from verifier.demo.stack.redis import Redis

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]  # servers and a worker are started
REQUESTS = 2000
HALF = REQUESTS // 2


@pytest.fixture(scope="module")
def cluster(
    kafka: Kafka, redis: Redis, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    name = f"stopping_{os.getpid()}"
    made = Cluster(Servers(kafka, redis, postgres), name, tmp_path_factory.mktemp(name))
    made.start(1)
    yield made
    made.close()


def health_check(port: int) -> int:
    """The exit status of the Dockerfile's own command."""
    [command] = [each.words for each in stages(ROOT / "Dockerfile")[-1] if each.name == "HEALTHCHECK"]
    python, *rest = command
    assert python == "python"
    env = {**os.environ, "VERIFIER_HTTP_PORT": str(port)}
    return subprocess.run([sys.executable, *rest], env=env, capture_output=True, check=False).returncode


def members(cluster: Cluster) -> int:
    """How many members the consumer group has, as the broker says."""

    async def ask() -> int:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.servers.kafka.bootstrap)
        await admin.start()
        try:
            [answer] = await admin.describe_consumer_groups([cluster.name])
            [(_, _, _, _, _, found, *_)] = answer.groups
            return len(found)
        finally:
            await admin.close()

    return run(ask())


def half(number: int, ts: float) -> list[Produced]:
    """One half of the requests, the shadow's response still to come for each fourth."""
    made: list[Produced] = []
    for n in range(number * HALF, (number + 1) * HALF):
        made += mirrored(f"s-{n}", ts + n / 1000)[: 3 if n % 4 == 0 else 4]
    return made


def test_the_health_check_tells_a_live_worker_from_a_dead_one(cluster: Cluster) -> None:
    assert health_check(cluster.workers[0].port) == 0
    assert health_check(free_port()) != 0


def test_a_stop_in_the_middle_of_work_commits_leaves_the_group_and_is_quick(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    assert members(cluster) == 1
    ts = time.time()
    cluster.produce(half(0, ts))
    wait_for("some of the work to be done", lambda: total(worker) > 0, 30.0)
    cluster.produce(half(1, ts))
    status, took_s = worker.stop()
    assert status == 0, worker.log()[-10:]
    assert took_s < STOPPED_WITHIN_S
    assert [line["event"] for line in worker.log()][-1] == "stopped"
    assert members(cluster) == 0, "a member that does not leave keeps its partitions for the session timeout"
    assert any(offset > 0 for offset in cluster.committed().values())
    assert not Path(f"/proc/{worker.process.pid}").exists()


def test_what_was_in_work_is_neither_lost_nor_done_twice(cluster: Cluster) -> None:
    worker = cluster.workers[0]
    worker.start()
    cluster.wait_ready()
    late = [mirrored(f"s-{n}", time.time())[3] for n in range(0, REQUESTS, 4)]
    cluster.produce(late)
    summary = cluster.settle(REQUESTS, records=4 * REQUESTS)
    assert summary["requests"]["total"] == REQUESTS
    assert sum(summary["records"].values()) == 4 * REQUESTS
    assert (summary["duplicate"], summary["rejected"]) == (0, 0)
    assert worker.stop()[0] == 0


def total(worker: WorkerProcess) -> int:
    answer = worker.get("/v1/summary")
    return 0 if answer is None or answer.status_code != 200 else int(answer.json()["requests"]["total"])
