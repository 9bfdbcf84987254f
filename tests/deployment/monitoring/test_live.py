"""Rules and dashboard over real workers: a real Prometheus scrapes them, and everything named is there."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.cluster import Cluster, Produced, Servers, wait_for
from tests.acceptance.records import edge, mirrored, mutating, response, served_by_canary
from tests.deployment.monitoring.prometheus_server import Prometheus
from tests.deployment.monitoring.shipped import metrics_in, queries, rules
from verifier.demo.stack.kafka import Kafka
from verifier.demo.stack.postgres import Postgres
from verifier.demo.stack.redis import Redis

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]  # servers and a worker are started
REQUESTS = 40
SHOWN_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def cluster(
    kafka: Kafka, redis: Redis, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    name = f"monitoring_{os.getpid()}"
    made = Cluster(
        Servers(kafka, redis, postgres), name, tmp_path_factory.mktemp(name), VERIFIER_JOIN_TIMEOUT_S="2"
    )
    made.start(1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def prometheus(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    targets = [f"127.0.0.1:{worker.port}" for worker in cluster.workers]
    with Prometheus(tmp_path_factory.mktemp("prometheus"), targets) as server:
        wait_for("a first scrape", lambda: server.query("verifier_ready == 1"), SHOWN_WITHIN_S)
        yield server


@pytest.fixture(scope="module")
def watched(cluster: Cluster, prometheus: Prometheus) -> Prometheus:
    """After traffic with something of everything: agreement, differences, gaps, shed copies, the canary, a revision."""
    cluster.produce(something_of_everything())
    cluster.settle(REQUESTS)
    cluster.produce([mirrored("m-2", time.time())[3]])
    cluster.await_verdict("m-2", "match")
    return prometheus


def something_of_everything() -> list[Produced]:
    ts = time.time()
    made: list[Produced] = []
    for n in range(REQUESTS):
        at = ts + n / 100
        kind = n % 10
        if kind == 0:
            made += mirrored(f"m-{n}", at, shadow={"status": 500, "body": {"id": 8}})
        elif kind == 1:
            made += [edge(f"m-{n}", "main", at), response(f"m-{n}", "main", at)]
            made += [edge(f"m-{n}", "shadow", at, shed=True, shed_reason="in_flight")]
        elif kind == 2:
            made += mirrored(f"m-{n}", at)[:3]
        elif kind == 3:
            made += mirrored(f"m-{n}", at, shadow={"capture_gap": "queue_full"})
        elif kind == 4:
            made += served_by_canary(f"m-{n}", at)
        elif kind == 5:
            made += mutating(
                f"m-{n}", at, main={"data": {"n": n}}, shadow={"data": {"n": n}}, idempotency_key="u:fetch:1"
            )
        else:
            twice = mirrored(
                f"m-{n}", at, shadow={"headers": {"content-type": "application/json", "connection": "close"}}
            )
            made += [*twice, twice[0]]
    return [*made, Produced("edge.requests", b"no JSON", key="bad")]


def test_every_metric_that_a_rule_or_panel_names_is_given_by_a_worker(watched: Prometheus) -> None:
    named = {name for rule in rules() for name in metrics_in(rule["expr"])}
    named |= {name for _, expression in queries() for name in metrics_in(expression)}
    assert len(named) > 20
    wait_for("every metric that is named", lambda: named <= watched.names(), SHOWN_WITHIN_S)


def test_prometheus_evaluates_every_rule(watched: Prometheus) -> None:
    def all_evaluated() -> bool:
        found = [rule for group in watched.api("rules")["groups"] for rule in group["rules"]]
        assert len(found) == len(list(rules()))
        assert [(rule["name"], rule["lastError"]) for rule in found if rule["health"] == "err"] == []
        return all(rule["health"] == "ok" for rule in found)

    wait_for("every rule evaluated", all_evaluated, SHOWN_WITHIN_S)


def test_recorded_series_are_there(watched: Prometheus) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    wait_for("every recorded series", lambda: recorded <= watched.names(), SHOWN_WITHIN_S)


@pytest.mark.parametrize(("title", "expression"), queries(), ids=[title for title, _ in queries()])
def test_a_panel_shows_data(watched: Prometheus, title: str, expression: str) -> None:
    asked = expression.replace("$namespace", "market-intel-brain").replace("$route", ".*")
    asked = asked.replace("$__rate_interval", "2m")
    assert not re.search(r"\$", asked)
    wait_for(f"data for {title}: {asked}", lambda: watched.query(asked), SHOWN_WITHIN_S)


def test_what_happened_is_seen(watched: Prometheus) -> None:
    """The figures are those of the traffic, so panels show this system and not just numbers."""
    tenth = REQUESTS // 10

    def count(selector: str) -> float:
        return sum(float(sample["value"][1]) for sample in watched.query(f"sum({selector})"))

    expected = {
        'verifier_requests_total{verdict="divergence"}': tenth,
        'verifier_shed_total{reason="in_flight"}': tenth,
        'verifier_incomplete_total{missing="shadow.responses"}': tenth,
        'verifier_capture_gaps_total{side="shadow"}': tenth,
        'verifier_incomparable_total{reason="served_by_canary"}': tenth,
        "verifier_rejected_total": 1,
        "verifier_duplicates_total": 4 * tenth,
        'verifier_partitions{state="working"}': 2,
        "verifier_topic_partitions": 2,
    }
    give_up_at = time.monotonic() + SHOWN_WITHIN_S
    while (found := {selector: count(selector) for selector in expected}) != expected:
        assert time.monotonic() < give_up_at, found
        time.sleep(0.2)


OF_THE_VERIFIER = {
    "VerifierDown", "VerifierNotReady", "VerifierBehind", "WatermarkStuck", "PartitionsUnassigned", "PartitionBlocked",
    "DependencyDown", "PendingBoundReached", "VerifierDefect",
}  # fmt: skip


def test_an_idle_worker_goes_on_with_the_clock_and_raises_no_alarm_about_itself(watched: Prometheus) -> None:
    moved = "changes(verifier_verified_through_timestamp_seconds[10s]) > 2"
    wait_for("event time to go on without records", lambda: watched.query(moved), SHOWN_WITHIN_S)
    raised = {alert["labels"]["alertname"] for alert in watched.api("alerts")["alerts"]}
    assert raised & OF_THE_VERIFIER == set()


def test_a_worker_that_is_gone_raises_the_alarm(cluster: Cluster, watched: Prometheus) -> None:
    """Last: it stops the worker. Pending is as far as it comes: three minutes are Prometheus's business."""
    status, _ = cluster.workers[0].stop()
    assert status == 0

    def pending() -> bool:
        return any(
            alert["labels"]["alertname"] == "VerifierDown" for alert in watched.api("alerts")["alerts"]
        )

    wait_for("VerifierDown", pending, SHOWN_WITHIN_S)
