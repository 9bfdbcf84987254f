"""Each phase sends users and copies where it says, and differs from the others only there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deployment.kubernetes.rendered import (
    PHASES,
    Document,
    documents,
    label,
    of_kind,
    one,
    parameters,
)

# phase: percent of the users served by the canary, of main's requests mirrored
SHARES = {
    "shadow": (0, 100),
    "canary-5": (5, 100),
    "ramp-10": (10, 100),
    "full": (100, 0),
    "rollback": (0, 100),
}
CANARY = {
    "Deployment/market-intel-go-api",
    "HorizontalPodAutoscaler/market-intel-go-api",
    "PodDisruptionBudget/market-intel-go-api",
    "ServiceAccount/market-intel-go-api",
    "NetworkPolicy/market-intel-go-api",
    "NetworkPolicy/shadow-proxy-to-canary",
}
_PARAMETERS = "ConfigMap/shadow-proxy-parameters data."
_SPLIT = {f"{_PARAMETERS}{key}" for key in ("EDGE_CANARY_WEIGHT", "EDGE_CANARY_SPLIT", "EDGE_CANARY_OPT_IN")}
_PHASE = {"ConfigMap/market-intel-phase data.VERIFIER_PHASE"}
_SCALING = "HorizontalPodAutoscaler/market-intel-go-api spec."
# Against the rollback, which has every object and the shadow phase's values.
CHANGES = {
    "canary-5": _PHASE | _SPLIT | {f"{_PARAMETERS}EDGE_CANARY"},
    "ramp-10": _PHASE | _SPLIT | {f"{_PARAMETERS}EDGE_CANARY", f"{_SCALING}minReplicas"},
    "full": _PHASE
    | _SPLIT
    | {
        f"{_PARAMETERS}EDGE_CANARY",
        f"{_PARAMETERS}EDGE_SAMPLE_SPLIT",
        f"{_PARAMETERS}EDGE_CANARY_RATE",
        f"{_PARAMETERS}EDGE_CANARY_BURST",
        f"{_SCALING}minReplicas",
        f"{_SCALING}maxReplicas",
        "Deployment/market-intel-go-api-mirror spec.replicas",
    },
    "shadow": {f"{_PARAMETERS}EDGE_CANARY"},
}


def percent(split: str, of: str) -> float:
    """The share that a line of split_clients gives; an empty one gives none."""
    if not split:
        return 0
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)% {of};", split)
    assert found, split
    return float(found[1])


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_serves_and_mirrors_the_shares_that_it_says(phase: str) -> None:
    values = parameters(phase)
    canary, mirrored = SHARES[phase]
    served = percent(values["EDGE_CANARY_SPLIT"], "canary") if values["EDGE_CANARY"] == "on" else 0
    assert served == canary
    assert percent(values["EDGE_SAMPLE_SPLIT"], "1") == mirrored
    # What the canary is told is what is done.
    assert float(values["EDGE_CANARY_WEIGHT"]) == percent(values["EDGE_CANARY_SPLIT"], "canary")
    by_choice = values["EDGE_CANARY"] == "on" and values["EDGE_CANARY_OPT_IN"] == "on"
    assert by_choice == (canary > 0), "header and cookie choose the canary only where there is one"


@pytest.mark.parametrize("phase", PHASES)
def test_whoever_is_sent_to_has_pods(phase: str) -> None:
    canary, mirrored = SHARES[phase]
    mirror = one(phase, "Deployment", "market-intel-go-api-mirror")
    assert (mirror["spec"]["replicas"] > 0) == (mirrored > 0)
    names = {document["metadata"]["name"] for document in of_kind(phase, "Deployment")}
    assert ("market-intel-go-api" in names) == (canary > 0 or phase == "rollback")


@pytest.mark.parametrize("phase", [phase for phase in PHASES if phase != "full"])
def test_the_rates_of_all_pods_together_are_the_migrations(phase: str) -> None:
    values = parameters(phase)
    pods = one(phase, "Deployment", "shadow-proxy")["spec"]["replicas"]
    assert pods * int(values["EDGE_SHADOW_RATE"]) == 100
    assert pods * int(values["EDGE_SHADOW_BURST"]) == 200
    assert pods * int(values["EDGE_CANARY_RATE"]) == 50
    assert pods * int(values["EDGE_CANARY_BURST"]) == 100
    # A copy under way takes four connections of a worker; users need room besides.
    assert int(values["EDGE_WORKER_CONNECTIONS"]) >= 4 * int(values["EDGE_SHADOW_IN_FLIGHT_MAX"]) + 1000
    assert int(values["EDGE_FILES_MAX"]) >= int(values["EDGE_WORKER_CONNECTIONS"])


def test_in_the_full_phase_no_user_is_turned_away_to_a_system_that_retires() -> None:
    values = parameters("full")
    assert int(values["EDGE_CANARY_RATE"]) >= 100 * int(parameters("canary-5")["EDGE_CANARY_RATE"])


def test_the_rollback_is_one_value() -> None:
    """From any phase: whatever else is set, this alone sends everyone to main (tested on NGINX in test_edge.py)."""
    base, back = parameters("shadow"), parameters("rollback")
    assert {key: value for key, value in back.items() if value != base[key]} == {"EDGE_CANARY": "off"}


@pytest.mark.parametrize("phase", sorted(CHANGES))
def test_phases_differ_only_where_they_should(phase: str) -> None:
    here, there = objects(phase), objects("rollback")
    assert set(there) - set(here) == (CANARY if phase == "shadow" else set())
    assert set(here) - set(there) == set()
    changed = {
        f"{name} {path}" for name in set(here) & set(there) for path in differences(here[name], there[name])
    }
    assert changed == CHANGES[phase]


def objects(phase: str) -> dict[str, Document]:
    """The objects by name, without the hashes of generated names, which tell only that a content changed."""
    found: dict[str, Document] = {}
    generated = re.compile(r"\b([a-z-]+)-[gh2k456789mbcdtf]{10}\b")
    for document in documents(phase):
        plain: Document = json.loads(
            re.sub(r'"name": "([a-z-]+)-[gh2k456789mbcdtf]{10}"', r'"name": "\1"', json.dumps(document))
        )
        found[generated.sub(r"\1", label(document))] = plain
    return found


def differences(left: Any, right: Any, path: str = "") -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(set(left) | set(right)):
            yield from differences(left.get(key), right.get(key), f"{path}.{key}" if path else key)
    elif left != right:
        yield path


def test_the_job_is_the_same_in_every_phase_for_it_cannot_be_changed() -> None:
    jobs = [json.dumps(one(phase, "Job", "shadow-verifier-init"), sort_keys=True) for phase in PHASES]
    assert len(set(jobs)) == 1


def test_selectors_which_cannot_be_changed_are_the_same_in_every_phase() -> None:
    for kind in ("Deployment", "StatefulSet"):
        selectors: dict[str, set[str]] = {}
        for phase in PHASES:
            for workload in of_kind(phase, kind):
                text = json.dumps(workload["spec"]["selector"], sort_keys=True)
                selectors.setdefault(workload["metadata"]["name"], set()).add(text)
        assert all(len(forms) == 1 for forms in selectors.values())


def test_the_gateways_own_mirror_and_weights_are_in_their_right_form() -> None:
    route = one("canary-5 with gateway-native", "HTTPRoute", "market-intel-api")
    by_header, rest = route["spec"]["rules"]
    assert by_header["matches"][0]["headers"] == [{"type": "Exact", "name": "X-Canary", "value": "true"}]
    assert [ref["name"] for ref in by_header["backendRefs"]] == ["market-intel-go-api"]
    assert "filters" not in by_header, "what the canary serves by choice is not mirrored"
    [mirror] = rest["filters"]
    assert (mirror["type"], mirror["requestMirror"]["percent"]) == ("RequestMirror", 100)
    weights = {ref["name"]: ref["weight"] for ref in rest["backendRefs"]}
    assert weights == {"market-intel-legacy-api": 95, "market-intel-go-api": 5}


def test_the_retired_ingress_has_what_ingress_nginx_heeds() -> None:
    name = "canary-5 with ingress-nginx-retired"
    prefix = "nginx.ingress.kubernetes.io/"
    main = one(name, "Ingress", "market-intel-api")
    canary = one(name, "Ingress", "market-intel-api-canary")
    for ingress in (main, canary):
        assert ingress["spec"]["ingressClassName"] == "nginx"
        assert "kubernetes.io/ingress.class" not in ingress["metadata"]["annotations"]
        assert not [key for key in ingress["metadata"]["annotations"] if "snippet" in key or "limit" in key]
    said = canary["metadata"]["annotations"]
    assert said[f"{prefix}canary"] == "true"
    assert said[f"{prefix}canary-weight"] == "5"
    assert (said[f"{prefix}canary-by-header"], said[f"{prefix}canary-by-header-value"]) == (
        "X-Canary",
        "true",
    )
    # Of a canary's annotations only these are heeded.
    assert all(key.startswith((f"{prefix}canary", f"{prefix}affinity", f"{prefix}session-")) for key in said)
    mirror = main["metadata"]["annotations"][f"{prefix}mirror-target"]
    assert mirror.startswith("http://market-intel-go-api-mirror.market-intel-brain.svc.cluster.local:8080$")
