"""How pods are run: restricted, pinned, without rights they do not use, and stopped with the time they need."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from tests.deployment.kubernetes.rendered import (
    K8S,
    PHASES,
    Document,
    containers,
    everything,
    label,
    of_kind,
    one,
    parameters,
    pod_of,
    workloads,
)
from verifier.commands import worker
from verifier.demo.stack import rsyslog

# Pod Security "restricted": the volumes it lets in.
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def faults(workload: Document) -> Iterator[str]:
    """What of the Pod Security standard "restricted" (and what we ask beyond it) a workload does not keep."""
    spec = pod_of(workload)["spec"]
    context = spec.get("securityContext", {})
    yield from (f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
    for volume in spec.get("volumes", []):
        yield from (f"volume {kind}" for kind in set(volume) - {"name"} - VOLUMES)
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} has no bound"
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "may run as root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "seccomp profile"
    if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks") is not False:
        yield "gets a token or service links"
    for container in containers(workload):
        own = container["securityContext"]
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']}: privilege escalation"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']}: capabilities"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']}: root filesystem"
        if own.get("privileged") or any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{container['name']}: privileged or host port"
        for kind in ("requests", "limits"):
            if "memory" not in container["resources"][kind]:
                yield f"{container['name']}: memory {kind}"
        if "cpu" not in container["resources"]["requests"]:
            yield f"{container['name']}: cpu requests"


@pytest.mark.parametrize("name", everything())
def test_every_pod_is_restricted_and_bounded(name: str) -> None:
    assert [f"{label(w)}: {fault}" for w in workloads(name) for fault in faults(w)] == []


def test_the_namespace_refuses_pods_that_are_not_restricted() -> None:
    for phase in PHASES:
        labels = one(phase, "Namespace", "market-intel-brain")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", everything())
def test_images_are_pinned_and_named_in_one_place(name: str) -> None:
    base = yaml.safe_load((K8S / "base" / "kustomization.yaml").read_text(encoding="utf-8"))
    pinned = {f"{image['newName']}:{image['newTag']}" for image in base["images"]}
    used = {container["image"] for workload in workloads(name) for container in containers(workload)}
    assert used <= pinned
    for image in used:
        assert re.fullmatch(
            r"[a-z0-9.-]+\.[a-z]+(/[a-z0-9-]+)+:\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?", image
        ), image


@pytest.mark.parametrize("name", everything())
def test_each_workload_has_an_account_of_its_own_without_rights(name: str) -> None:
    accounts = [pod_of(workload)["spec"]["serviceAccountName"] for workload in workloads(name)]
    assert len(accounts) == len(set(accounts))
    there = {account["metadata"]["name"]: account for account in of_kind(name, "ServiceAccount")}
    assert set(accounts) == set(there)
    assert all(account["automountServiceAccountToken"] is False for account in there.values())
    assert of_kind(name, "ClusterRole", "ClusterRoleBinding") == []
    for binding in of_kind(name, "RoleBinding"):
        assert all(subject["kind"] != "ServiceAccount" for subject in binding["subjects"])


def test_who_may_roll_back_may_do_just_that() -> None:
    [role] = of_kind("shadow", "Role")
    verbs = {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert not {verb for _, verb in verbs} & {"*", "create", "delete", "escalate", "bind", "impersonate"}
    assert ("configmaps", "patch") in verbs
    [config_maps] = [rule for rule in role["rules"] if "configmaps" in rule["resources"]]
    assert config_maps["resourceNames"] == ["shadow-proxy-parameters"]
    [binding] = of_kind("shadow", "RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def grace_s(workload: Document) -> int:
    seconds: int = pod_of(workload)["spec"]["terminationGracePeriodSeconds"]
    return seconds


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text.removesuffix("s"))


def test_a_worker_has_the_time_that_its_stop_takes() -> None:
    longest_s = worker.STOP_WITHIN_S + 0.5 + worker.CLOSE_WITHIN_S
    assert longest_s < 10
    assert grace_s(one("shadow", "StatefulSet", "shadow-verifier")) >= 2 * longest_s


def test_the_edge_has_the_time_for_requests_under_way_and_then_for_its_shipper() -> None:
    edge = one("shadow", "Deployment", "shadow-proxy")
    script = (K8S / "base" / "edge" / "run-edge.sh").read_text(encoding="utf-8")
    drain = re.search(r"EDGE_DRAIN_S:-(\d+)", script)
    assert drain is not None
    drain_s = int(drain[1])
    nginx = next(c for c in containers(edge) if c["name"] == "nginx")
    pre_stop_s = nginx["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drain_s > seconds(parameters("shadow")["EDGE_MAIN_TIMEOUT"])
    assert grace_s(edge) >= pre_stop_s + drain_s + rsyslog.STOP_GRACE_S
    shipper = next(c for c in containers(edge) if c["name"] == "shipper")
    assert shipper["restartPolicy"] == "Always", (
        "a sidecar is stopped after NGINX, so that the last lines are sent"
    )


def test_the_successor_outlives_the_requests_that_the_edge_waits_for() -> None:
    values = parameters("canary-5")
    canary = one("canary-5", "Deployment", "market-intel-go-api")
    assert grace_s(canary) > 5 + seconds(values["EDGE_MAIN_TIMEOUT"])
    assert grace_s(one("shadow", "Deployment", "market-intel-go-api-mirror")) > seconds(
        values["EDGE_SHADOW_TIMEOUT"]
    )


def test_the_canary_is_as_the_migration_wants_it() -> None:
    canary = one("canary-5", "Deployment", "market-intel-go-api")
    [container] = containers(canary)
    assert container["resources"] == {
        "requests": {"cpu": "200m", "memory": "256Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi"},
    }
    timings = {
        kind: (container[kind]["initialDelaySeconds"], container[kind]["periodSeconds"])
        for kind in ("livenessProbe", "readinessProbe")
    }
    assert timings == {"livenessProbe": (30, 10), "readinessProbe": (5, 5)}
    [scaler] = of_kind("canary-5", "HorizontalPodAutoscaler")
    assert (scaler["apiVersion"], scaler["spec"]["minReplicas"]) == ("autoscaling/v2", 1)


def test_the_logs_fit_into_their_volumes() -> None:
    edge = one("shadow", "Deployment", "shadow-proxy")
    volumes = {
        v["name"]: v["emptyDir"]["sizeLimit"] for v in pod_of(edge)["spec"]["volumes"] if "emptyDir" in v
    }
    script = (K8S / "base" / "edge" / "run-edge.sh").read_text(encoding="utf-8")
    found = re.search(r"EDGE_LOG_BYTES_MAX:-(\d+)", script)
    assert found is not None
    logs = [key for key in parameters("shadow") if key.endswith("_LOG") and key != "EDGE_ERROR_LOG"]
    assert gib(volumes["log"]) > len(logs) * 2 * int(found[1]) / 2**30
    template = (K8S / "shadow-proxy" / "rsyslog.conf.template").read_text(encoding="utf-8")
    lines = sum(map(int, re.findall(r'queue\.size="(\d+)"', template)))
    assert gib(volumes["ship"]) > lines * 256 / 2**20
    nginx = next(c for c in containers(edge) if c["name"] == "nginx")
    assert gib(nginx["resources"]["limits"]["ephemeral-storage"]) >= sum(map(gib, volumes.values()))


def gib(text: str) -> int:
    assert text.endswith("Gi")
    return int(text.removesuffix("Gi"))
