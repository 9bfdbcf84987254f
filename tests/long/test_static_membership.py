"""A worker with a lasting name: back within the session timeout, it takes its partitions up and nobody else notices."""

from __future__ import annotations

import pytest

from tests.acceptance.cluster import STOPPED_WITHIN_S, WorkerProcess, wait_for
from tests.acceptance.conftest import NewCluster


def rebalances(worker: WorkerProcess) -> int:
    return sum(line["event"] == "partitions_held" for line in worker.log())


def assigned(worker: WorkerProcess) -> list[list[int]]:
    return [line["partitions"] for line in worker.log() if line["event"] == "partitions_assigned"]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_worker_that_comes_back_in_time_causes_no_rebalance(new_cluster: NewCluster) -> None:
    cluster = new_cluster(partitions=4, VERIFIER_SESSION_TIMEOUT_S="30")
    cluster.init()
    first = cluster.add_worker(VERIFIER_INSTANCE_ID="one")
    cluster.wait_ready()
    second = cluster.add_worker(VERIFIER_INSTANCE_ID="two")
    wait_for("two partitions each", lambda: all(_has_two(each) for each in (first, second)), 120.0)
    wait_for("all started", lambda: all(_started(each) for each in (first, second)), 60.0)
    cluster.wait_ready()
    before, owned = rebalances(second), assigned(first)[-1]
    first.kill()
    first.start()
    wait_for("it is back with what it had", lambda: _has_again(first, owned), 60.0)
    cluster.wait_ready()
    status, took_s = first.stop()
    assert status == 0 and took_s < STOPPED_WITHIN_S
    first.start()
    cluster.wait_ready()
    assert assigned(first)[-1] == owned
    assert rebalances(second) == before, f"{first.log()}\n{second.log()}"


def _started(worker: WorkerProcess) -> bool:
    return any(line["event"] == "worker_started" for line in worker.log())


def _has_two(worker: WorkerProcess) -> bool:
    return bool(told := assigned(worker)) and len(told[-1]) == 2


def _has_again(worker: WorkerProcess, owned: list[int]) -> bool:
    events = [line["event"] for line in worker.log()]
    after_start = len(events) - events[::-1].index("listening") if "listening" in events else 0
    return "partitions_assigned" in events[after_start:] and assigned(worker)[-1] == owned
