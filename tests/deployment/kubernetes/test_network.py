"""The network policies let through exactly the flows of the table in k8s/README.md."""

from __future__ import annotations

import re
from itertools import product

import pytest

from tests.deployment.kubernetes.network_flows import Actor, Port, allowed
from tests.deployment.kubernetes.rendered import (
    K8S,
    NAMESPACE,
    PHASES,
    everything,
    label,
    of_kind,
    pod_of,
    selects,
    workloads,
)

PORTS = tuple(Port(number=number) for number in (53, 80, 443, 5432, 6379, 8080, 9092)) + (
    Port(number=53, protocol="UDP"),
)
_NAME = "app.kubernetes.io/name"
# Who is not ours, as README.md asks for them.
OTHERS = (
    Actor(name="legacy-api", labels={_NAME: "market-intel-legacy-api"}),
    *(Actor(name=name, labels={_NAME: name}) for name in ("kafka", "redis", "postgres", "postgres-shadow")),
    *(Actor(name=name, labels={_NAME: name}) for name in ("postgres-canary", "postgres-verifier")),
    Actor(name="gateway", namespace="gateways", namespace_labels={"market-intel-brain/gateway": "true"}),
    Actor(name="prometheus", namespace="monitoring"),
    Actor(name="dns", namespace="kube-system", labels={"k8s-app": "kube-dns"}),
    Actor(name="system pod", namespace="kube-system", labels={"k8s-app": "other"}),
    Actor(name="neighbour", labels={_NAME: "neighbour"}),
    Actor(name="stranger", namespace="elsewhere", labels={_NAME: "shadow-proxy"}),
    Actor(name="internet", address="93.184.216.34"),
    Actor(name="cloud metadata", address="169.254.169.254"),
    Actor(name="private network", address="10.1.2.3"),
)
OURS = {
    "shadow-proxy": "shadow-proxy",
    "market-intel-go-api": "go-api",
    "market-intel-go-api-mirror": "go-api-mirror",
    "shadow-verifier": "shadow-verifier",
    "shadow-verifier-init": "shadow-verifier-init",
}
Flow = tuple[str, str, Port]


def own_actors(name: str) -> list[Actor]:
    return [
        Actor(name=OURS[workload["metadata"]["name"]], labels=pod_of(workload)["metadata"]["labels"])
        for workload in workloads(name)
    ]


def table() -> list[tuple[str, str, Port, str]]:
    text = (K8S / "README.md").read_text(encoding="utf-8").partition("## Who may talk to whom")[2]
    rows = re.findall(
        r"^\| ([a-z-]+) \| ([a-z-]+) \| (\d+) \| ([a-z ]+) \|$", text.partition("\n## ")[0], re.MULTILINE
    )
    assert len(rows) > 10
    return [(source, target, Port(number=int(port)), when) for source, target, port, when in rows]


def expected(name: str) -> set[Flow]:
    ours = {actor.name for actor in own_actors(name)}
    flows = {
        (source, target, port)
        for source, target, port, when in table()
        if when == "always" or (when == "with the canary" and "go-api" in ours)
    }
    return flows | {(source, "dns", port) for source in ours for port in PORTS if port.number == 53}


def found(name: str) -> set[Flow]:
    """Every connection that one of ours can open or be sent."""
    policies = of_kind(name, "NetworkPolicy")
    ours = own_actors(name)
    actors = [*ours, *OTHERS]
    return {
        (source.name, target.name, port)
        for source, target, port in product(actors, actors, PORTS)
        if (source in ours or target in ours)
        and source is not target
        and allowed(policies, source, target, port)
    }


@pytest.mark.parametrize("name", PHASES)
def test_a_phase_lets_through_the_flows_of_the_table_and_no_other(name: str) -> None:
    assert found(name) == expected(name)


ADDED: dict[str, set[Flow]] = {
    "canary-5 with shadow-internet": {("go-api-mirror", "internet", Port(number=443))},
    "canary-5 with gateway-api": set(),
    "canary-5 with keda": set(),
    "canary-5 with hpa-cpu": set(),
    "shadow with gateway-api, keda and monitoring": set(),
    "full with gateway-api, hpa-cpu and monitoring": set(),
}
WITHOUT_EDGE = (
    "canary-5 with gateway-native",
    "canary-5 with ingress-nginx-retired",
    "canary-5 with without-edge",
)


@pytest.mark.parametrize("name", ADDED)
def test_a_component_opens_only_what_it_is_for(name: str) -> None:
    assert found(name) == expected(name) | ADDED[name]


def test_to_deny_for_the_namespace_takes_from_whoever_has_no_policy_of_its_own() -> None:
    name = "canary-5 with namespace-default-deny"
    beside_us = {actor.name for actor in OTHERS if actor.namespace == NAMESPACE and actor.address is None}
    assert found(name) == {flow for flow in expected(name) if flow[1] not in beside_us}


@pytest.mark.parametrize("name", WITHOUT_EDGE)
def test_without_the_edge_the_gateway_reaches_the_successor(name: str) -> None:
    edges = {flow for flow in expected(name) if "shadow-proxy" in flow[:2]}
    to_successor = {("gateway", target, Port(number=8080)) for target in ("go-api", "go-api-mirror")}
    assert found(name) == (expected(name) - edges) | to_successor


def test_every_policy_selects_someone_and_denies_both_ways_by_default() -> None:
    for name in everything():
        pods = [pod_of(workload)["metadata"]["labels"] for workload in workloads(name)]
        for policy in of_kind(name, "NetworkPolicy"):
            assert any(selects(policy["spec"]["podSelector"], labels) for labels in pods), (
                name,
                label(policy),
            )
        denied = [
            policy["spec"]["podSelector"]
            for policy in of_kind(name, "NetworkPolicy")
            if set(policy["spec"]) == {"podSelector", "policyTypes"}
            and set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        ]
        assert all(any(selects(selector, labels) for selector in denied) for labels in pods), name


def test_the_evaluator_can_say_no_and_yes() -> None:
    ours = {actor.name: actor for actor in own_actors("shadow")}
    internet = next(actor for actor in OTHERS if actor.name == "internet")
    port = Port(number=443)
    denied = of_kind("shadow", "NetworkPolicy")
    assert not allowed(denied, ours["shadow-proxy"], internet, port)
    assert allowed([], ours["shadow-proxy"], internet, port)
    without_deny = [policy for policy in denied if not policy["metadata"]["name"].endswith("-deny")]
    assert not allowed(without_deny, ours["shadow-proxy"], internet, port), "its own policy denies as well"
