"""Bounds at scale: a million unanswered requests, a consumer an hour behind, servers a second slow."""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flood import weigh_flood
from tests.acceptance.cluster import Cluster, WorkerProcess, wait_for
from tests.acceptance.conftest import NewCluster
from tests.long.conftest import Say
from tests.long.pouring import Pouring
from tests.long.slow_proxy import SlowProxy
from tests.long.traffic import Traffic
from tests.long.truth_check import check_postgres, check_summary
from verifier.core.join import JoinConfig

MILLION = 1_000_000
KIB = 1 / 1024
OPEN_KIB_MAX, CLOSED_KIB_MAX = 2.0, 1.5
WORKER_MB_MAX = 400.0
BEHIND_REQUESTS, HOUR_S = int(os.environ.get("LONG_BEHIND", "300000")), 3_600.0
SLOW_REQUESTS = 10_000

pytestmark = pytest.mark.long


def peak_mb(worker: WorkerProcess) -> float:
    """The most resident memory a worker has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def verdicts(cluster: Cluster) -> int:
    return int(cluster.sql("SELECT coalesce(sum(n), 0)::bigint AS n FROM verdict_counts")[0]["n"])


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    ("pending_max", "closed_max", "requests_a_second"),
    [(100_000, 50_000, 50_000.0), (500_000, 200_000, 2_000.0), (500_000, 200_000, 50_000.0)],
)
def test_a_million_unanswered_requests_stay_within_the_stated_memory(
    say: Say, pending_max: int, closed_max: int, requests_a_second: float
) -> None:
    join = JoinConfig(pending_requests_max=pending_max, closed_requests_max=closed_max)
    spawn = multiprocessing.get_context("spawn")
    began = time.monotonic()
    with ProcessPoolExecutor(1, mp_context=spawn) as child:
        found, rose_mb = child.submit(weigh_flood, join, MILLION, requests_a_second).result()
    say(
        f"{MILLION / (time.monotonic() - began):,.0f} requests/s; open at most {found.pending_max:,}, closed"
        f" {found.closed_max:,}; memory rose by {rose_mb:.0f} MB; {dict(found.verdicts)} {dict(found.reasons)}"
    )
    assert found.verdicts.total() == MILLION
    assert found.verdicts["incomparable"] == found.reasons["pending_bound"]
    assert set(found.verdicts) <= {"incomplete", "incomparable"}
    assert found.pending_max <= pending_max
    if requests_a_second > pending_max / join.join_timeout_s:
        assert found.verdicts["incomparable"] == MILLION - pending_max
    else:
        assert found.verdicts["incomplete"] == MILLION
    assert rose_mb < 50 + (found.pending_max * OPEN_KIB_MAX + found.closed_max * CLOSED_KIB_MAX) * KIB


@pytest.mark.timeout(2400)
def test_a_consumer_an_hour_behind_catches_up_in_bounded_memory(new_cluster: NewCluster, say: Say) -> None:
    cluster = new_cluster(partitions=2, VERIFIER_LOG_CONFLICTS="false", VERIFIER_JOIN_TIMEOUT_S="30")
    cluster.init()
    pace = BEHIND_REQUESTS / HOUR_S
    traffic = Traffic(3, time.time() - HOUR_S - 60.0, pace)
    with Pouring(cluster, traffic, BEHIND_REQUESTS, pace=None):
        pass
    truth = traffic.truth
    say(f"{truth.records.total():,} records of an hour are waiting")
    began = time.monotonic()
    worker = cluster.add_worker()
    told = [0]

    def caught_up() -> bool:
        done = verdicts(cluster)
        if done >= told[0] + BEHIND_REQUESTS // 20:
            told[0] = done
            say(f"{done:,} verdicts, {worker.rss_mb():.0f} MB")
        return done >= BEHIND_REQUESTS

    wait_for("the worker to catch up", caught_up, 900.0)
    took_s = time.monotonic() - began
    summary = cluster.settle(BEHIND_REQUESTS, records=truth.records.total(), within_s=120.0)
    say(
        f"caught up in {took_s:.0f} s: {truth.records.total() / took_s:,.0f} records/s, peak {peak_mb(worker):.0f} MB"
    )
    check_summary(summary, cluster, truth)
    check_postgres(cluster, truth)
    assert peak_mb(worker) < WORKER_MB_MAX
    assert worker.ready()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("slow", ["redis", "postgres"])
def test_a_second_for_each_call_is_backpressure_and_not_memory(
    new_cluster: NewCluster, say: Say, slow: str
) -> None:
    cluster = new_cluster(partitions=1, VERIFIER_LOG_CONFLICTS="false")
    cluster.init()
    url = cluster.dsn if slow == "postgres" else cluster.servers.redis.url(1)
    target_port = urlsplit(url).port
    assert target_port is not None
    with SlowProxy(target_port, 1.0) as proxy:
        through = url.replace(f":{target_port}", f":{proxy.port}")
        worker = cluster.add_worker(**{f"VERIFIER_{slow.upper()}": through})
        wait_for("the worker to be ready", worker.ready, 120.0)
        traffic = Traffic(5, time.time(), 500.0)
        with Pouring(cluster, traffic, SLOW_REQUESTS, pace=500.0):
            pass
        truth = traffic.truth
        wait_for("all verdicts", lambda: verdicts(cluster) >= SLOW_REQUESTS, 300.0)
        wait_for("all records", lambda: counted(cluster) >= truth.records.total(), 60.0)
        say(f"{proxy.calls} calls of a second to {slow}, peak {peak_mb(worker):.0f} MB")
        check_postgres(cluster, truth)
        assert peak_mb(worker) < WORKER_MB_MAX
        worker.kill()


def counted(cluster: Cluster) -> int:
    return int(cluster.sql("SELECT coalesce(sum(records), 0)::bigint AS n FROM record_counts")[0]["n"])
