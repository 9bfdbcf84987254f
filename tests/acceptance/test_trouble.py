"""Servers and workers that come late, crash, freeze and return in mid-stream: the counts stay exact."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

import pytest
from aiokafka import AIOKafkaProducer
from redis import Redis as Client

from tests.acceptance.cluster import (
    SOURCES,
    STOPPED_WITHIN_S,
    VERDICTS,
    Cluster,
    Produced,
    WorkerProcess,
    run,
    wait_for,
)
from tests.acceptance.conftest import NewCluster
from tests.acceptance.records import mirrored, mutating
from verifier.demo.stack.ports import free_port

REQUESTS = 3_000
REQUESTS_A_SECOND = 400.0


class Deployment(NamedTuple):
    """A deployment and what is true of all that it was given."""

    cluster: Cluster
    truth: Counter[str]
    records: Counter[str]


class Stream:
    """Requests with a known truth, produced at a pace in a thread of their own, over outages of Kafka too.

    `truth` and `records` add up over the streams of one deployment.
    """

    def __init__(self, deployment: Deployment, name: str, requests: int = REQUESTS, *, seed: int = 7) -> None:
        self._cluster = deployment.cluster
        self._name = name
        self._requests = requests
        self._random = random.Random(seed)
        self._thread = threading.Thread(target=lambda: run(self._produce()))
        self.truth, self.records = deployment.truth, deployment.records
        self._began_at = self.truth.total()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _request(self, number: int, ts: float) -> list[Produced]:
        drawn = self._random.random()
        request_id = f"{self._name}-{number}"
        if drawn < 0.02:
            verdict, records = "divergence", mirrored(request_id, ts, shadow={"status": 500})
        elif drawn < 0.03:
            verdict = "incomplete"
            records = [r for r in mirrored(request_id, ts) if r.topic != "shadow.responses"]
        elif drawn < 0.35:
            verdict, records = "match", mutating(request_id, ts)
        else:
            verdict, records = "match", mirrored(request_id, ts)
        self._random.shuffle(records)
        self.truth[verdict] += 1
        return records

    @property
    def produced(self) -> int:
        """Number of its requests so far."""
        return self.truth.total() - self._began_at

    async def _produce(self) -> None:
        # idempotence, so that a broker's crash neither loses nor repeats a record
        producer = AIOKafkaProducer(
            bootstrap_servers=self._cluster.servers.kafka.bootstrap, linger_ms=5, acks="all", enable_idempotence=True,
            request_timeout_ms=60_000,
        )  # fmt: skip
        await producer.start()
        began = time.time()
        try:
            for number in range(self._requests):
                for record in self._request(number, time.time()):
                    await producer.send(
                        self._cluster.prefix + record.topic, record.value_bytes, key=record.key_bytes
                    )
                    self.records[record.topic] += 1
                if number % 50 == 0:
                    await asyncio.sleep(max(0.0, began + number / REQUESTS_A_SECOND - time.time()))
        finally:
            await producer.stop()

    def check(self) -> None:
        """Wait for the end and compare everything that can be counted with the truth."""
        cluster = self._cluster
        summary = cluster.settle(self.truth.total(), records=self.records.total(), within_s=90.0)
        assert {v: n for v, n in summary["requests"].items() if n and v != "total"} == dict(self.truth)
        assert {name.removeprefix(cluster.prefix): n for name, n in summary["records"].items()} == {
            topic: self.records[topic] for topic in SOURCES
        }
        assert (summary["duplicate"], summary["rejected"]) == (0, 0)
        rows = cluster.sql("SELECT verdict, count(*) AS n FROM requests GROUP BY verdict")
        assert {row["verdict"]: row["n"] for row in rows} == dict(self.truth)
        assert len(cluster.compacted("verifier.divergences")) == self.truth["divergence"]
        assert set(self.truth) <= set(VERDICTS)


@pytest.fixture(scope="module")
def deployment(new_cluster: NewCluster) -> Deployment:
    made = new_cluster(partitions=2, VERIFIER_JOIN_TIMEOUT_S="8")
    made.start(2)
    return Deployment(made, Counter(), Counter())


@pytest.fixture
def cluster(deployment: Deployment) -> Cluster:
    deployment.cluster.wait_ready()
    return deployment.cluster


def past(stream: Stream, share: float) -> None:
    """Wait until that share of the usual number of requests is produced."""
    wait_for("the stream to flow", lambda: stream.produced > share * REQUESTS, 60.0)


def went_down_and_came_back(cluster: Cluster, dependency: str) -> None:
    events = [(line["event"], line.get("dependency")) for worker in cluster.workers for line in worker.log()]
    assert ("waiting", dependency) in events
    assert ("going_on", dependency) in events


@contextmanager
def gone(kill: Callable[[], None], start: Callable[[], object]) -> Iterator[None]:
    kill()
    try:
        yield
    finally:
        start()


def test_a_crash_of_redis_stops_and_loses_nothing(deployment: Deployment, cluster: Cluster) -> None:
    redis = cluster.servers.redis
    with Stream(deployment, "redis") as stream:
        past(stream, 0.2)
        with gone(redis.kill, redis.start):
            wait_for("readyz to say why", lambda: cluster.workers[0].not_ready_because("Redis"), 20.0)
        past(stream, 0.5)
    stream.check()
    cluster.wait_ready()
    went_down_and_came_back(cluster, "redis")


def test_a_crash_of_postgresql_stops_and_loses_nothing(deployment: Deployment, cluster: Cluster) -> None:
    postgres = cluster.servers.postgres
    with Stream(deployment, "postgresql") as stream:
        past(stream, 0.2)
        with gone(postgres.kill, postgres.start):
            wait_for("readyz to say why", lambda: cluster.workers[0].not_ready_because("PostgreSQL"), 20.0)
        past(stream, 0.5)
    stream.check()
    cluster.wait_ready()
    went_down_and_came_back(cluster, "postgres")


def test_a_crash_of_kafka_stops_and_loses_nothing(deployment: Deployment, cluster: Cluster) -> None:
    kafka = cluster.servers.kafka
    with Stream(deployment, "kafka") as stream:
        past(stream, 0.2)
        with gone(kafka.kill, kafka.start):
            wait_for("readyz to say why", lambda: cluster.workers[0].not_ready_because("Kafka"), 30.0)
            status, took_s = cluster.workers[1].stop()
            assert status == 0 and took_s < STOPPED_WITHIN_S
        cluster.workers[1].start()
    stream.check()
    cluster.wait_ready()
    went_down_and_came_back(cluster, "kafka")


def test_redis_losing_its_memory_is_noticed_and_later_conflicts_are_still_found(
    deployment: Deployment, cluster: Cluster
) -> None:
    ts, before = time.time(), deployment.truth.total()
    row = {"data": {"v": 1}}
    cluster.produce(mutating("before", ts, main=row, shadow=row, idempotency_key="u:op:1"))
    cluster.settle(before + 1)
    with Client.from_url(cluster.servers.redis.url(1)) as client:
        client.flushdb()
    changed = {"data": {"v": 2}}
    cluster.produce(mutating("after", ts + 1, main=changed, shadow=changed, idempotency_key="u:op:1"))
    # the claims are told again by the partition that made them, with its next batch at the latest
    cluster.produce(mutating("after-2", ts + 2, main=changed, shadow=changed, idempotency_key="u:op:1"))
    cluster.produce([record for number in range(20) for record in mutating(f"other-{number}", ts + 3)])
    cluster.settle(before + 23)
    deployment.truth["match"] += 23
    for made in mutating("any", ts):
        deployment.records[made.topic] += 23
    found = {(c["loser"]["side"], c["loser"]["request_id"]) for c in cluster.paged("/v1/conflicts", 100)}
    assert {("main", "after"), ("shadow", "after"), ("main", "after-2"), ("shadow", "after-2")} == found
    winners = {c["winner"]["request_id"] for c in cluster.paged("/v1/conflicts", 100)}
    assert winners == {"before"}


def test_killed_frozen_added_and_stopped_workers_change_no_count(
    deployment: Deployment, cluster: Cluster
) -> None:
    first, second = cluster.workers
    with Stream(deployment, "workers", REQUESTS * 2) as stream:
        past(stream, 0.2)
        first.kill()
        first.start()
        past(stream, 0.6)
        second.pause()
        try:
            # its partitions go to the other one after the session timeout of 10 s
            wait_for("the group to go on without it", lambda: owns(first, 2), 40.0)
        finally:
            second.resume()
        third = cluster.add_worker()
        wait_for("a third worker", third.ready, 60.0)
        status, took_s = third.stop()
        assert status == 0 and took_s < STOPPED_WITHIN_S
        cluster.workers.remove(third)
    stream.check()
    for worker in cluster.workers:
        status, took_s = worker.stop()
        assert status == 0, worker.state()
        assert took_s < STOPPED_WITHIN_S
    ends = Counter((topic, read.partition) for topic in SOURCES for read in cluster.consume(topic))
    assert {place: n for place, n in cluster.committed().items() if n} == dict(ends)


def owns(worker: WorkerProcess, partitions: int) -> bool:
    assigned = [line["partitions"] for line in worker.log() if line["event"] == "partitions_assigned"]
    return bool(assigned) and len(assigned[-1]) == partitions


@pytest.mark.parametrize(
    ("setting", "address", "name"),
    [
        ("VERIFIER_KAFKA", "127.0.0.1:{port}", "kafka"),
        ("VERIFIER_REDIS", "redis://127.0.0.1:{port}/1", "Redis"),
        ("VERIFIER_POSTGRES", "postgresql://v:s3cret@127.0.0.1:{port}/v", "PostgreSQL"),
    ],
)
def test_a_worker_starts_without_a_server_says_so_and_stops_in_time(
    new_cluster: NewCluster, setting: str, address: str, name: str
) -> None:
    cluster = new_cluster(partitions=1)
    cluster.init()
    worker = cluster.add_worker(**{setting: address.format(port=free_port())})
    said = wait_for("readyz to say why", lambda: worker.not_ready_because(name), 60.0)
    assert "s3cret" not in said
    alive = worker.get("/healthz")
    assert alive is not None and alive.status_code == 200
    status, took_s = worker.stop()
    assert status == 0 and took_s < STOPPED_WITHIN_S
    assert "s3cret" not in worker.log_path.read_text()
