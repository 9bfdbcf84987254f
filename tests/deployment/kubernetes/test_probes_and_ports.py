"""Every probe asks for a path that the application has, and every port leads to one that is listened on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest

from tests.deployment.kubernetes.rendered import (
    K8S,
    Document,
    containers,
    documents,
    everything,
    label,
    of_kind,
    one,
    parameters,
    pod_of,
    selects,
    workloads,
)
from tests.unit.web.web_world import World
from verifier.capture.memory_publisher import MemoryPublisher
from verifier.demo.database import Store
from verifier.demo.successor import build_app
from verifier.web.api import create_app
from verifier.web.waiting import waiting_app

SERVICES_OF_OTHERS = {"market-intel-legacy-api"}


def probes() -> Iterator[tuple[str, str, str]]:
    """(image, kind of probe, path) of every probe of every overlay."""
    seen: set[tuple[str, str, str]] = set()
    for name in everything():
        for workload in workloads(name):
            for container in containers(workload):
                for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                    if kind in container:
                        image = container["image"].partition(":")[0].rpartition("/")[2]
                        seen.add((image, kind, container[kind]["httpGet"]["path"]))
    yield from sorted(seen)


async def status(app: Any, path: str) -> int:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        return (await client.get(path)).status_code


async def test_the_verifier_answers_its_probes_without_a_token() -> None:
    paths = {(kind, path) for image, kind, path in probes() if image == "shadow-verifier"}
    assert {kind for kind, _ in paths} == {"startupProbe", "livenessProbe", "readinessProbe"}
    app = create_app(World().deps(api_token="a-token-that-the-kubelet-does-not-have"))
    waiting = waiting_app(lambda: "Kafka does not answer")
    for kind, path in paths:
        assert await status(app, path) == 200, path
        # Alive while it waits for Kafka, and not ready.
        assert await status(waiting, path) == (503 if kind == "readinessProbe" else 200), path


async def test_the_successor_answers_its_probes() -> None:
    """The image is not ours; the demo's successor stands for it, which has the migration's paths."""
    app = build_app(cast(Store, None), MemoryPublisher(side="shadow"))
    paths = {path for image, _, path in probes() if image == "market-intel-go-api"}
    assert paths == {"/api/v1/health"}
    assert [await status(app, path) for path in paths] == [200]


def test_the_edge_answers_its_probes_itself() -> None:
    template = (K8S / "shadow-proxy" / "nginx.conf.template").read_text(encoding="utf-8")
    paths = {path for image, _, path in probes() if image == "nginx"}
    assert paths == {"/healthz"}
    for path in paths:
        block = template.partition(f"location = {path} {{")[2].partition("}")[0]
        assert "return 200" in block


def test_no_probe_is_for_an_image_that_no_test_asks() -> None:
    assert {image for image, _, _ in probes()} == {"shadow-verifier", "market-intel-go-api", "nginx"}


@pytest.mark.parametrize("name", everything())
def test_probes_and_services_lead_to_a_port_that_is_there(name: str) -> None:
    for workload in workloads(name):
        for container in containers(workload):
            ports = {port["name"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                if kind in container:
                    assert container[kind]["httpGet"]["port"] in ports, (label(workload), kind)
    for service in of_kind(name, "Service"):
        wanted = {port["targetPort"] for port in service["spec"]["ports"]}
        for workload in selected(name, service):
            ports = {p["name"] for c in containers(workload) for p in c.get("ports", [])}
            assert wanted <= ports, label(service)


def selected(name: str, service: Document) -> list[Document]:
    selector = {"matchLabels": service["spec"]["selector"]}
    return [w for w in workloads(name) if selects(selector, pod_of(w)["metadata"]["labels"])]


@pytest.mark.parametrize("name", everything())
def test_a_service_has_one_workload_behind_it(name: str) -> None:
    for service in of_kind(name, "Service"):
        # Before the canary its Service has none: it is there for NGINX, which must find the name.
        waits = service["metadata"]["name"] == "market-intel-go-api" and name.startswith("shadow")
        assert len(selected(name, service)) == (0 if waits else 1), label(service)


def test_the_ports_are_those_that_the_programs_listen_on() -> None:
    for name in everything():
        if one_or_none(name, "shadow-proxy"):
            assert parameters(name)["EDGE_LISTEN"] == port_of(name, "Deployment", "shadow-proxy")
        worker = one(name, "StatefulSet", "shadow-verifier")
        env = {e["name"]: e.get("value") for e in next(containers(worker))["env"]}
        assert env["VERIFIER_HTTP_PORT"] == port_of(name, "StatefulSet", "shadow-verifier")
        for deployment in of_kind(name, "Deployment"):
            assert port_of(name, "Deployment", deployment["metadata"]["name"]) == "8080"


def one_or_none(name: str, workload: str) -> Document | None:
    found = [w for w in workloads(name) if w["metadata"]["name"] == workload]
    return found[0] if found else None


def port_of(name: str, kind: str, workload: str) -> str:
    ports = [p for c in containers(one(name, kind, workload)) for p in c.get("ports", [])]
    assert [port["name"] for port in ports] == ["http"]
    return str(ports[0]["containerPort"])


@pytest.mark.parametrize("name", everything())
def test_whoever_is_called_by_name_has_a_service_with_that_port(name: str) -> None:
    services = {
        service["metadata"]["name"]: {port["port"] for port in service["spec"]["ports"]}
        for service in of_kind(name, "Service")
    }
    called: list[tuple[str, int]] = []
    if one_or_none(name, "shadow-proxy"):
        for key in ("EDGE_MAIN_ADDR", "EDGE_SHADOW_ADDR", "EDGE_CANARY_ADDR"):
            host, _, number = parameters(name)[key].partition(":")
            called.append((host, int(number)))
    for route in of_kind(name, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            mirrors = [f["requestMirror"]["backendRef"] for f in rule.get("filters", [])]
            called += [(ref["name"], ref["port"]) for ref in (*rule["backendRefs"], *mirrors)]
    for ingress in of_kind(name, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                called.append((backend["name"], backend["port"]["number"]))
    for host, port in called:
        assert host in SERVICES_OF_OTHERS or port in services.get(host, set()), f"{host}:{port}"


@pytest.mark.parametrize("name", everything())
def test_what_scales_budgets_and_spreads_finds_what_it_is_about(name: str) -> None:
    for scaler in of_kind(name, "HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        workload = one(name, target["kind"], target["name"])
        assert workload["apiVersion"] == target["apiVersion"]
        assert "replicas" not in workload["spec"], "an apply would put the number back"
        assert all("cpu" in c["resources"]["requests"] for c in containers(workload))
    for budget in of_kind(name, "PodDisruptionBudget"):
        matching = [w for w in workloads(name) if selects(budget["spec"]["selector"], labels_of(w))]
        assert len(matching) == 1, label(budget)
    for workload in workloads(name):
        for spread in pod_of(workload)["spec"].get("topologySpreadConstraints", []):
            assert selects(spread["labelSelector"], labels_of(workload)), label(workload)
    for stateful in of_kind(name, "StatefulSet"):
        governing = one(name, "Service", stateful["spec"]["serviceName"])
        assert governing["spec"]["clusterIP"] == "None"
        assert selected(name, governing) == [stateful]


def labels_of(workload: Document) -> dict[str, str]:
    labels: dict[str, str] = pod_of(workload)["metadata"]["labels"]
    return labels


def test_prometheus_finds_the_workers_service_port_and_path() -> None:
    name = "shadow with gateway-api, keda and monitoring"
    monitor = one(name, "ServiceMonitor", "shadow-verifier")
    matching = [
        service
        for service in of_kind(name, "Service")
        if selects(monitor["spec"]["selector"], service["metadata"]["labels"])
    ]
    assert len(matching) == 1, "twice would count everything twice"
    for endpoint in monitor["spec"]["endpoints"]:
        assert endpoint["port"] in {port["name"] for port in matching[0]["spec"]["ports"]}


def test_no_object_is_of_a_component_that_is_not_asked_for() -> None:
    kinds = {document["kind"] for name in ("shadow", "full") for document in documents(name)}
    assert not kinds & {"HTTPRoute", "Gateway", "Ingress", "ScaledObject", "ServiceMonitor", "PrometheusRule"}
