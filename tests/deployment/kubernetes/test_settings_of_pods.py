"""What the pods are told: every reference is there, and the programs accept what they get."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deployment.kubernetes.rendered import (
    K8S,
    PHASES,
    Document,
    containers,
    documents,
    everything,
    label,
    of_kind,
    one,
    parameters,
    pod_of,
    workloads,
)
from verifier.adapters.settings import Settings, load_settings
from verifier.adapters.topics import wanted_topics
from verifier.assembly import policy_of
from verifier.commands import worker as worker_command

# What a Secret holds is not known here; these stand for it, in the form README.md asks for.
SECRETS = {
    ("shadow-verifier", "postgres-dsn"): "postgresql://verifier:pw@postgres-verifier:5432/verifier",
    ("shadow-verifier", "api-token"): "0123456789abcdef0123456789abcdef",
    ("market-intel-shadow-db", "user"): "shadow",
    ("market-intel-shadow-db", "password"): "pw",
    ("market-intel-canary-db", "user"): "canary",
    ("market-intel-canary-db", "password"): "pw",
}


def environment(name: str, container: Document) -> dict[str, str]:
    """The variables of a container, as the kubelet makes them."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        assert set(source) == {"configMapRef"}
        found |= one(name, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", []):
        origin = entry.get("valueFrom", {})
        if "secretKeyRef" in origin:
            value = SECRETS[origin["secretKeyRef"]["name"], origin["secretKeyRef"]["key"]]
        elif "configMapKeyRef" in origin:
            ref = origin["configMapKeyRef"]
            value = one(name, "ConfigMap", ref["name"])["data"][ref["key"]]
        elif "fieldRef" in origin:
            assert origin["fieldRef"]["fieldPath"] == "metadata.name"
            value = "pod-0"
        else:
            value = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], entry["value"])
        found[entry["name"]] = value
    return found


def settings_of(name: str, workload: Document, folder: Path) -> Settings:
    """What the verifier makes of a pod's environment and files."""
    [container] = containers(workload)
    env = environment(name, container)
    mounted = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
    if config := env.get("VERIFIER_CONFIG"):
        path = Path(config)
        [volume] = [v for v in pod_of(workload)["spec"]["volumes"] if v["name"] == mounted[str(path.parent)]]
        content = one(name, "ConfigMap", volume["configMap"]["name"])["data"][path.name]
        (folder / path.name).write_text(content, encoding="utf-8")
        env["VERIFIER_CONFIG"] = str(folder / path.name)
    return load_settings(env)


PHASE_OF = {"shadow": "shadow", "canary-5": "canary", "ramp-10": "ramp", "full": "full", "rollback": "shadow"}


@pytest.mark.parametrize("phase", PHASES)
def test_the_worker_accepts_its_settings_and_has_the_migrations_facts(phase: str, tmp_path: Path) -> None:
    settings = settings_of(phase, one(phase, "StatefulSet", "shadow-verifier"), tmp_path)
    assert settings.phase == PHASE_OF[phase]
    assert [w for w in settings.warnings if "waits 7 s for unannounced writes" not in w] == []
    assert settings.redis.get_secret_value() == "redis://redis:6379/1"
    assert settings.idempotency_prefix == "idempotency:"
    assert settings.idempotency_strategy == "user_id:operation_type:timestamp"
    assert (settings.idempotency_ttl_s, settings.conflict_timeout_s) == (3600, 30)
    assert settings.log_conflicts
    assert len(settings.idempotency_operations) == 6
    assert settings.write_behind_delay_s == 5
    databases = {
        side: getattr(settings, f"database_{side}").describe() for side in ("main", "shadow", "canary")
    }
    assert databases == {
        "main": "postgresql://postgres:5432/market_intel",
        "shadow": "postgresql://postgres-shadow:5432/market_intel_shadow",
        "canary": "postgresql://postgres-canary:5432/market_intel_canary",
    }
    assert settings.api_token is not None
    policy_of(settings)


def test_a_worker_that_is_restarted_keeps_its_place_in_the_group(tmp_path: Path) -> None:
    workload = one("shadow", "StatefulSet", "shadow-verifier")
    settings = settings_of("shadow", workload, tmp_path)
    assert settings.instance_id == "pod-0", "the pod's own name, which no other worker has"
    [container] = containers(workload)
    probe = container["startupProbe"]
    stop_s = worker_command.STOP_WITHIN_S + 0.5 + worker_command.CLOSE_WITHIN_S
    assert settings.session_timeout_s > stop_s + 5 * probe["periodSeconds"]
    assert settings.session_timeout_s <= settings.join_timeout_s, "else a lost worker is noticed late"


@pytest.mark.parametrize("name", everything())
def test_job_worker_and_shipper_agree_about_the_topics(name: str, tmp_path: Path) -> None:
    worker = settings_of(name, one(name, "StatefulSet", "shadow-verifier"), tmp_path)
    job = settings_of(name, one(name, "Job", "shadow-verifier-init"), tmp_path)
    assert job.kafka == worker.kafka
    assert job.partitions == worker.partitions
    assert job.topics == worker.topics
    assert set(wanted_topics(job)) == {*worker.topics.sources, *worker.topics.outputs}
    for workload in of_kind(name, "Deployment"):
        for container in containers(workload):
            if container["name"] == "shipper":
                env = environment(name, container)
                assert tuple(env["SHIP_KAFKA"].split(",")) == worker.kafka
                assert env["SHIP_TOPIC"] == worker.topics.edge_requests
                assert env["SHIP_MAIN_RESPONSES_TOPIC"] == worker.topics.main_responses
                assert env["SHIP_SHADOW_RESPONSES_TOPIC"] == worker.topics.shadow_responses


def test_a_prefix_of_the_topics_reaches_the_shipper_too() -> None:
    shipper = next(
        c for c in containers(one("shadow", "Deployment", "shadow-proxy")) if c["name"] == "shipper"
    )
    entries = [entry["name"] for entry in shipper["env"]]
    assert entries.index("TOPIC_PREFIX") < entries.index("SHIP_TOPIC"), (
        "Kubernetes expands what stands before"
    )
    topics = [entry["value"] for entry in shipper["env"] if entry["name"].endswith("_TOPIC")]
    assert all(topic.startswith("$(TOPIC_PREFIX)") for topic in topics)


def test_without_the_edge_its_lines_are_not_waited_for(tmp_path: Path) -> None:
    for name in ("canary-5 with gateway-native", "canary-5 with ingress-nginx-retired"):
        settings = settings_of(name, one(name, "StatefulSet", "shadow-verifier"), tmp_path)
        assert settings.expect == ("responses",)


@pytest.mark.parametrize("name", everything())
def test_every_config_map_is_there_and_used(name: str) -> None:
    there = {document["metadata"]["name"] for document in of_kind(name, "ConfigMap")}
    used: set[str] = set()
    for workload in workloads(name):
        used |= {
            v["configMap"]["name"] for v in pod_of(workload)["spec"].get("volumes", []) if "configMap" in v
        }
        for container in containers(workload):
            environment(name, container)  # fails for a key that is not there
            used |= {source["configMapRef"]["name"] for source in container.get("envFrom", [])}
            used |= {
                entry["valueFrom"]["configMapKeyRef"]["name"]
                for entry in container.get("env", [])
                if "configMapKeyRef" in entry.get("valueFrom", {})
            }
    dashboards = {
        document["metadata"]["name"]
        for document in of_kind(name, "ConfigMap")
        if "grafana_dashboard" in document["metadata"].get("labels", {})
    }
    assert used == there - dashboards


@pytest.mark.parametrize("name", everything())
def test_every_volume_is_mounted_and_every_mount_has_its_volume(name: str) -> None:
    for workload in workloads(name):
        volumes = {volume["name"] for volume in pod_of(workload)["spec"].get("volumes", [])}
        mounts = {mount["name"] for c in containers(workload) for mount in c.get("volumeMounts", [])}
        assert volumes == mounts, label(workload)


def test_secrets_are_referred_to_and_never_kept() -> None:
    referred: set[tuple[str, str]] = set()
    for name in everything():
        assert of_kind(name, "Secret") == []
        for workload in workloads(name):
            referred |= set(secret_refs(workload))
        for monitor in of_kind(name, "ServiceMonitor"):
            for endpoint in monitor["spec"]["endpoints"]:
                credentials = endpoint["authorization"]["credentials"]
                referred.add((credentials["name"], credentials["key"]))
    assert referred == set(SECRETS)
    text = (K8S / "README.md").read_text(encoding="utf-8")
    for secret, key in SECRETS:
        assert re.search(rf"^\s*\| `{secret}` \|.*`{key}`", text, re.MULTILINE), (secret, key)


def secret_refs(workload: Document) -> Iterator[tuple[str, str]]:
    for container in containers(workload):
        for entry in container.get("env", []):
            ref = entry.get("valueFrom", {}).get("secretKeyRef")
            if ref:
                yield ref["name"], ref["key"]


@pytest.mark.parametrize("phase", PHASES)
def test_every_parameter_of_the_edge_is_set_and_none_is_unknown(phase: str) -> None:
    template = (K8S / "shadow-proxy" / "nginx.conf.template").read_text(encoding="utf-8")
    code = "\n".join(line for line in template.splitlines() if not line.lstrip().startswith("#"))
    assert set(re.findall(r"\$\{(EDGE_[A-Z_]+)\}", code)) == set(parameters(phase))


def test_every_parameter_of_the_shipper_is_set_and_none_is_unknown() -> None:
    template = (K8S / "shadow-proxy" / "rsyslog.conf.template").read_text(encoding="utf-8")
    shipper = next(
        c for c in containers(one("shadow", "Deployment", "shadow-proxy")) if c["name"] == "shipper"
    )
    env = environment("shadow", shipper)
    assert set(re.findall(r"\$\{(SHIP_[A-Z_]+)\}", template)) == {k for k in env if k.startswith("SHIP_")}


def test_edge_and_shipper_mean_the_same_files() -> None:
    shipper = next(
        c for c in containers(one("shadow", "Deployment", "shadow-proxy")) if c["name"] == "shipper"
    )
    env, edge = environment("shadow", shipper), parameters("shadow")
    assert env["SHIP_LOG_PATH"] == edge["EDGE_ACCESS_LOG"]
    assert env["SHIP_MAIN_RESPONSES_LOG_PATH"] == edge["EDGE_MAIN_RESPONSES_LOG"]
    assert env["SHIP_SHADOW_RESPONSES_LOG_PATH"] == edge["EDGE_SHADOW_RESPONSES_LOG"]


def test_what_the_edge_writes_lies_on_volumes() -> None:
    edge = next(c for c in containers(one("shadow", "Deployment", "shadow-proxy")) if c["name"] == "nginx")
    writable = {m["mountPath"] for m in edge["volumeMounts"] if not m.get("readOnly")}
    read_only = {m["mountPath"] for m in edge["volumeMounts"] if m.get("readOnly")}
    values = parameters("shadow")
    assert values["EDGE_RUN_DIR"] in writable
    for key in ("EDGE_ACCESS_LOG", "EDGE_MAIN_RESPONSES_LOG", "EDGE_SHADOW_RESPONSES_LOG"):
        assert str(Path(values[key]).parent) in writable
    assert values["EDGE_JS_DIR"] in read_only
    files = one("shadow", "ConfigMap", "shadow-proxy-files")["data"]
    assert {"edge.js", "nginx.conf.template", "rsyslog.conf.template", "clear-stale-sockets.sh"} <= set(files)


def test_workers_that_scale_are_as_many_as_there_are_partitions(tmp_path: Path) -> None:
    for name in ("canary-5 with keda", "canary-5 with hpa-cpu"):
        settings = settings_of(name, one(name, "StatefulSet", "shadow-verifier"), tmp_path)
        for scaler in of_kind(name, "ScaledObject", "HorizontalPodAutoscaler"):
            if scaler["spec"]["scaleTargetRef"]["name"] != "shadow-verifier":
                continue
            spec = scaler["spec"]
            assert spec.get("maxReplicas", spec.get("maxReplicaCount")) == settings.partitions
            for trigger in spec.get("triggers", []):
                assert trigger["metadata"]["consumerGroup"] == settings.group


def test_the_memory_is_enough_for_what_the_settings_allow_to_be_held(tmp_path: Path) -> None:
    """One worker left alone with all partitions, by the costs measured in docs/bounds.md."""
    worker = one("shadow", "StatefulSet", "shadow-verifier")
    settings = settings_of("shadow", worker, tmp_path)
    held = settings.partitions * (settings.pending_requests_max * 4096 + settings.closed_requests_max * 2560)
    [container] = containers(worker)
    assert container["resources"]["limits"]["memory"] == "2Gi"
    assert held + 462 * 2**20 <= 2 * 2**30
    assert yaml.safe_load(one("shadow", "ConfigMap", "market-intel-migration")["data"]["migration.yaml"])


def test_only_the_parameters_change_without_a_new_pod() -> None:
    """A name with a hash for what pods must be restarted for, the same name for what is taken up by a reload."""
    for phase in PHASES:
        names = {
            document["metadata"]["name"] for document in documents(phase) if document["kind"] == "ConfigMap"
        }
        stay = {name for name in names if not re.search(r"-[gh2k456789mbcdtf]{10}$", name)}
        assert stay == {"shadow-proxy-parameters"}
