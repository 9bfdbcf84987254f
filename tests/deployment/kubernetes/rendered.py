"""What kustomize makes of k8s/, as an operator's `kubectl apply -k` would send it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
K8S = ROOT / "k8s"
TOOLS = ROOT / ".venv" / "deployment" / "bin"
NAMESPACE = "market-intel-brain"
PHASES = ("shadow", "canary-5", "ramp-10", "full", "rollback")
COMPONENTS = tuple(sorted(folder.name for folder in (K8S / "components").iterdir()))
# What an operator may add to a phase, as README.md says: each component alone, and two sites.
SITES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    **{f"canary-5 with {name}": ("canary-5", (name,), ()) for name in COMPONENTS},
    "shadow with gateway-api, keda and monitoring": ("shadow", ("gateway-api", "keda"), ("monitoring",)),
    "full with gateway-api, hpa-cpu and monitoring": ("full", ("gateway-api", "hpa-cpu"), ("monitoring",)),
}

Document = dict[str, Any]
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def tool(name: str) -> str:
    path = TOOLS / name
    assert path.is_file(), f"{path} is not there: run .ci/setup"
    return str(path)


def kustomize(folder: Path) -> str:
    """The output of `kubectl kustomize`; what it says on standard error, warnings too, is a failure."""
    done = subprocess.run(
        [tool("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


@cache
def text_of(name: str) -> str:
    """The YAML of a phase or a site."""
    if name in PHASES:
        return kustomize(K8S / "overlays" / name)
    phase, components, resources = SITES[name]
    with tempfile.TemporaryDirectory() as folder:
        up = os.path.relpath(K8S, Path(folder).resolve())
        content = {
            "namespace": NAMESPACE,
            "resources": [f"{up}/overlays/{phase}", *(f"{up}/{resource}" for resource in resources)],
            "components": [f"{up}/components/{component}" for component in components],
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return kustomize(Path(folder))


@cache
def documents(name: str) -> tuple[Document, ...]:
    """The objects of a phase or a site. Not to be changed."""
    return tuple(document for document in yaml.load_all(text_of(name), _Loader) if document is not None)


def everything() -> tuple[str, ...]:
    return (*PHASES, *SITES)


def of_kind(name: str, *kinds: str) -> list[Document]:
    return [document for document in documents(name) if document["kind"] in kinds]


def one(name: str, kind: str, called: str) -> Document:
    """The object of this kind and name; a generated name may go on with a hash."""
    found = [
        document
        for document in of_kind(name, kind)
        if document["metadata"]["name"] == called
        or (kind == "ConfigMap" and document["metadata"]["name"].rpartition("-")[0] == called)
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {called} in {name}"
    return found[0]


def workloads(name: str) -> list[Document]:
    return of_kind(name, "Deployment", "StatefulSet", "Job")


def pod_of(workload: Document) -> Document:
    """Labels and spec of a workload's pods."""
    template: Document = workload["spec"]["template"]
    return template


def containers(workload: Document) -> Iterator[Document]:
    spec = pod_of(workload)["spec"]
    yield from spec.get("initContainers", [])
    yield from spec["containers"]


def label(document: Document) -> str:
    """How a failure names an object."""
    return f"{document['kind']}/{document['metadata']['name']}"


def parameters(name: str) -> dict[str, str]:
    """The edge's parameters in a phase."""
    data: dict[str, str] = one(name, "ConfigMap", "shadow-proxy-parameters")["data"]
    return data


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A label selector of Kubernetes, as far as it is used here: matchLabels, and In of matchExpressions."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", expression
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    assert not set(selector) - {"matchLabels", "matchExpressions"}, selector
    return True
