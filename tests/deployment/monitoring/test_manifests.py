"""What the monitoring is applied with meets what the phases are applied with."""

from __future__ import annotations

import json
from functools import cache

import pytest

from tests.deployment.kubernetes.rendered import (
    K8S,
    NAMESPACE,
    PHASES,
    Document,
    containers,
    documents,
    kustomize,
    of_kind,
    one,
    selects,
)
from tests.deployment.monitoring.shipped import DASHBOARD, alerts, yaml_documents


@cache
def monitoring() -> dict[str, Document]:
    """The objects of k8s/monitoring by kind."""
    return {document["kind"]: document for document in yaml_documents(kustomize(K8S / "monitoring"))}


def test_it_is_one_of_each_in_the_namespace_of_the_workers() -> None:
    assert set(monitoring()) == {"ServiceMonitor", "PrometheusRule", "ConfigMap"}
    assert {document["metadata"]["namespace"] for document in monitoring().values()} == {NAMESPACE}


@pytest.mark.parametrize("phase", PHASES)
def test_the_service_monitor_finds_the_workers_once_each_and_ready_or_not(phase: str) -> None:
    spec = monitoring()["ServiceMonitor"]["spec"]
    [service] = [
        each for each in of_kind(phase, "Service") if selects(spec["selector"], each["metadata"]["labels"])
    ]
    assert service["spec"]["publishNotReadyAddresses"] is True
    worker = one(phase, "StatefulSet", "shadow-verifier")
    labels = worker["spec"]["template"]["metadata"]["labels"]
    assert selects({"matchLabels": service["spec"]["selector"]}, labels)
    [endpoint] = spec["endpoints"]
    [port] = [each for each in service["spec"]["ports"] if each["name"] == endpoint["port"]]
    [container] = containers(worker)
    assert port["targetPort"] in {each["name"] for each in container["ports"]}
    assert endpoint["path"] == "/metrics"


def test_prometheus_shows_the_token_that_the_workers_ask_for() -> None:
    [container] = containers(one("shadow", "StatefulSet", "shadow-verifier"))
    [asked] = [
        each["valueFrom"]["secretKeyRef"] for each in container["env"] if each["name"] == "VERIFIER_API_TOKEN"
    ]
    [endpoint] = monitoring()["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": asked["name"], "key": asked["key"]}


def test_the_rules_arrive_whole() -> None:
    rules = [rule for group in monitoring()["PrometheusRule"]["spec"]["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in rules if "alert" in rule] == [rule["alert"] for rule in alerts()]


def test_grafana_finds_the_dashboard() -> None:
    document = monitoring()["ConfigMap"]
    assert document["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(document["data"]["verifier.json"]) == json.loads(DASHBOARD.read_text(encoding="utf-8"))


def test_nothing_of_it_is_in_a_phase_by_itself() -> None:
    """A cluster without the operator could not apply the phase."""
    for phase in PHASES:
        assert not {each["kind"] for each in documents(phase)} & {"ServiceMonitor", "PrometheusRule"}
