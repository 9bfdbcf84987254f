"""Operating it: late records, other expectations, the token, exit statuses, and how soon a verdict can be read."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.acceptance.cluster import SOURCES, Cluster, run, wait_for
from tests.acceptance.conftest import NewCluster
from tests.acceptance.records import edge, mirrored, mutating, response
from verifier.demo.stack.ports import free_port

TOKEN = "only-for-this-test"
READABLE_WITHIN_S = 1.5


@pytest.fixture(scope="module")
def cluster(new_cluster: NewCluster) -> Iterator[Cluster]:
    """One worker that gives up on a request after three seconds."""
    made = new_cluster(partitions=2, VERIFIER_JOIN_TIMEOUT_S="3")
    made.start(1)
    yield made
    made.close()


def test_a_late_record_revises_the_verdict_and_the_history_says_so(cluster: Cluster) -> None:
    ts = time.time()
    *early, last = mirrored("late", ts, shadow={"status": 500})
    before = cluster.summary()
    cluster.produce(early)
    first = cluster.await_verdict("late", "incomplete")
    assert first["missing"] == ["shadow.responses"]
    cluster.produce([last])
    revised = cluster.await_verdict("late", "divergence")
    assert [step["verdict"] for step in revised["history"]] == ["incomplete", "divergence"]
    after = cluster.summary()
    assert after["late"] == before["late"] + 1
    assert (after["rejected"], after["duplicate"]) == (before["rejected"], before["duplicate"])
    assert after["requests"]["total"] == before["requests"]["total"] + 1
    [letter] = [r.value for r in cluster.consume("verifier.rejected") if r.value["reason"] == "late"]
    assert letter["topic"].endswith("shadow.responses")
    assert "late" in cluster.compacted("verifier.divergences")


def test_an_earlier_write_that_comes_late_becomes_the_winner(cluster: Cluster) -> None:
    ts = time.time()
    for request_id, at, value in (("third", ts + 0.3, 3), ("second", ts + 0.2, 2), ("first", ts + 0.1, 1)):
        data = {"data": {"v": value}}
        cluster.produce(mutating(request_id, at, main=data, shadow=data, idempotency_key="u9:fetch:1"))
        cluster.await_verdict(request_id, "match")

    def settled() -> bool:
        found = [c for c in cluster.paged("/v1/conflicts", 10) if "u9:fetch:1" in c["key"]]
        pairs = {(c["loser"]["side"], c["winner"]["request_id"], c["loser"]["request_id"]) for c in found}
        wanted = {(side, "first", loser) for side in ("main", "shadow") for loser in ("second", "third")}
        return pairs == wanted and len(found) == len(wanted)

    wait_for("the first write to win over both", settled, 20.0)
    published = [c for c in cluster.compacted("verifier.conflicts").values() if "u9:fetch:1" in c["key"]]
    assert {c["winner"]["request_id"] for c in published} == {"first"}
    [row] = cluster.sql("SELECT request_id FROM idempotency_keys WHERE key LIKE '%u9:fetch:1'")
    assert row["request_id"] == "first"


def test_a_verdict_can_be_read_soon_after_its_last_record(cluster: Cluster) -> None:
    took_s = []
    for n in range(10):
        cluster.produce(mirrored(f"soon-{n}", time.time()))
        began = time.monotonic()
        cluster.await_verdict(f"soon-{n}", "match", within_s=10.0)
        took_s.append(time.monotonic() - began)
    assert statistics.median(took_s) < READABLE_WITHIN_S, took_s


def test_what_needs_no_waiting_is_settled_long_before_the_timeout(new_cluster: NewCluster) -> None:
    patient = new_cluster(
        partitions=1, VERIFIER_JOIN_TIMEOUT_S="600", VERIFIER_EXPECT="edge", VERIFIER_API_TOKEN=TOKEN
    )
    patient.start(1)
    worker, ts = patient.workers[0], time.time()
    patient.produce(
        [
            edge("shed", "main", ts), edge("shed", "shadow", ts, status=429, shed=True),
            edge("unsampled", "main", ts, sampled=False),
            edge("canary", "canary", ts),
            edge("edges-agree", "main", ts), edge("edges-agree", "shadow", ts),
            edge("edges-differ", "main", ts), edge("edges-differ", "shadow", ts, status=502),
            *mirrored("used-when-there", ts, shadow={"body": {"id": 8}}),
        ]
    )  # fmt: skip
    wanted = {
        "shed": "incomparable", "unsampled": "incomparable", "canary": "incomparable", "edges-agree": "match",
        "edges-differ": "divergence", "used-when-there": "divergence",
    }  # fmt: skip

    def found() -> dict[str, str]:
        answers = {r: worker.get(f"/v1/requests/{r}", authorization=f"Bearer {TOKEN}") for r in wanted}
        return {r: a.json()["verdict"] for r, a in answers.items() if a is not None and a.status_code == 200}

    try:
        wait_for("all to settle", lambda: found() == wanted, 15.0)
    except AssertionError as error:
        raise AssertionError(f"{error}: {found()}") from None
    refused = worker.get("/v1/summary")
    assert refused is not None and refused.status_code == 401
    assert refused.headers["content-type"].startswith("application/problem+json")
    wrong = worker.get("/v1/summary", authorization="Bearer nearly")
    assert wrong is not None and wrong.status_code == 401
    for public in ("/healthz", "/readyz"):
        answer = worker.get(public)
        assert answer is not None and answer.status_code == 200
    status, took_s = worker.stop()
    assert status == 0 and took_s < 10
    assert TOKEN not in worker.log_path.read_text()


def test_init_is_repeatable_and_says_what_it_did(cluster: Cluster) -> None:
    again = cluster.command("init")
    assert again.returncode == 0
    assert "all there" in again.stdout and "up to date" in again.stdout


def test_wrong_settings_are_all_named_at_once(cluster: Cluster) -> None:
    wrong = {"VERIFIER_PARTITIONS": "none", "VERIFIER_HTTP_PORT": "70000", "VERIFIER_JOIN_TIMEOUT_S": "-1"}
    for command in ("worker", "init"):
        done = cluster.command(command, env=wrong)
        assert done.returncode == 2, done.stderr
        assert all(name in done.stderr for name in wrong)
        assert "Traceback" not in done.stderr


def test_a_server_that_cannot_be_reached_is_exit_status_3(cluster: Cluster) -> None:
    for setting, value in (
        ("VERIFIER_POSTGRES", f"postgresql://v:s3cret@127.0.0.1:{free_port()}/v"),
        ("VERIFIER_KAFKA", f"127.0.0.1:{free_port()}"),
    ):
        done = cluster.command("init", "--wait-s", "2", env={setting: value})
        assert done.returncode == 3, (done.stdout, done.stderr)
        assert "s3cret" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_topics_of_unequal_partition_counts_are_refused(new_cluster: NewCluster) -> None:
    uneven = new_cluster(partitions=2)

    async def create() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=uneven.servers.kafka.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(uneven.prefix + SOURCES[1], 3, 1)])
        finally:
            await admin.close()

    run(create())
    done = uneven.command("init")
    assert done.returncode == 2
    assert f"{SOURCES[1]} has 3" in done.stderr and "same partition count" in done.stderr
    done = uneven.command("worker", env={"VERIFIER_HTTP_PORT": str(free_port())})
    assert done.returncode == 2
    assert "same partition count" in done.stderr and "Traceback" not in done.stderr


def test_a_burst_of_requests_is_worked_off_with_exact_counts(cluster: Cluster) -> None:
    requests, before = 5_000, cluster.summary()["requests"]["total"]
    ts = time.time()
    burst = [record for n in range(requests) for record in mirrored(f"burst-{n}", ts + n * 1e-4)]
    worker = cluster.workers[0]
    cpu_s = worker.cpu_s()
    began = time.monotonic()
    cluster.produce(burst)
    summary = cluster.settle(before + requests)
    took_s, cpu_s = time.monotonic() - began, worker.cpu_s() - cpu_s
    assert summary["requests"]["total"] == before + requests
    # generous for a busy machine; what it is really like is measured by bench/
    assert requests / took_s > 200, (took_s, cpu_s)
    assert worker.rss_mb() < 600


def test_a_response_alone_opens_a_request_that_ends_incomplete(cluster: Cluster) -> None:
    cluster.produce([response("alone", "main", time.time())])
    found = cluster.await_verdict("alone", "incomplete")
    assert set(found["missing"]) == {"main.edge", "shadow.edge", "shadow.responses"}


def test_two_may_initialise_at_once(new_cluster: NewCluster) -> None:
    pair = new_cluster(partitions=2)
    done = asyncio.run(_init_twice(pair))
    assert done == [0, 0]


async def _init_twice(cluster: Cluster) -> list[int]:
    both = await asyncio.gather(*(asyncio.to_thread(cluster.command, "init") for _ in range(2)))
    return [each.returncode for each in both]
