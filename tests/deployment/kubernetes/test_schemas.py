"""Every object of every overlay has the form its API asks for: strictly, and no kind goes unchecked."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deployment.kubernetes.rendered import Document, documents, everything, label, tool

OLDEST, NEWEST = "1.30", "1.37"  # README.md says so
SCHEMAS = Path(__file__).parent / "schemas"
_UNKNOWN = re.compile(r"find schema for kind (\S+) with api version (\S+)")


@cache
def custom_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(SCHEMAS.glob("*.json")):
        vendored = json.loads(path.read_text(encoding="utf-8"))
        key = (f"{vendored['group']}/{vendored['apiVersion']}", vendored["kind"])
        found[key] = closed(vendored["schema"])
    return found


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A CRD's schema as a strict API server reads it: a field that it does not name is an error."""
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if "properties" in schema:
        result["properties"] = {name: closed(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    if isinstance(schema.get("items"), dict):
        result["items"] = closed(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = closed(schema["additionalProperties"])
    return result


def check_custom(document: Document) -> None:
    schema = custom_schemas()[document["apiVersion"], document["kind"]]
    jsonschema.Draft202012Validator(schema).validate(document)


def validate(files: list[Path], version: str) -> tuple[bool, set[tuple[str, str]], str]:
    """Whether the tool is content, the kinds it does not know, and what it said."""
    done = subprocess.run(
        [tool("kubernetes-validate"), "--strict", "--quiet", "-k", version, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    said = done.stdout + done.stderr
    unknown = {(api_version, kind) for kind, api_version in _UNKNOWN.findall(said)}
    return done.returncode == 0, unknown, said


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_of_kubernetes_has_its_form_strictly(version: str, tmp_path: Path) -> None:
    # Each object once, however many overlays have it; JSON is YAML, and read faster.
    objects = {json.dumps(document, sort_keys=True) for name in everything() for document in documents(name)}
    path = tmp_path / "objects.yaml"
    path.write_text("\n---\n".join(sorted(objects)), encoding="utf-8")
    fine, unknown, said = validate([path], version)
    assert fine, said
    assert unknown <= set(custom_schemas()), said


def test_every_custom_object_has_the_form_of_its_crd() -> None:
    seen: set[tuple[str, str]] = set()
    for name in everything():
        for document in documents(name):
            key = (document["apiVersion"], document["kind"])
            if key in custom_schemas():
                seen.add(key)
                check_custom(document)
    assert seen == set(custom_schemas()), "a schema that nothing needs, or a kind that is gone"


def test_no_object_is_there_twice() -> None:
    for name in everything():
        keys = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents(name)]
        assert len(keys) == len(set(keys)), name


def test_everything_but_the_namespace_lies_in_it() -> None:
    for name in everything():
        for document in documents(name):
            if document["kind"] != "Namespace":
                assert document["metadata"].get("namespace") == "market-intel-brain", (name, label(document))


def test_what_is_wrong_is_refused(tmp_path: Path) -> None:
    """The checks above can fail: a field that is not there, one of a wrong type, and a kind nobody knows."""
    deployment = next(d for d in documents("shadow") if d["kind"] == "Deployment")
    typo = json.loads(json.dumps(deployment))
    typo["spec"]["template"]["spec"]["terminationGracePeriod"] = 30
    wrong = json.loads(json.dumps(deployment))
    wrong["spec"]["replicas"] = "two"
    unheard = {"apiVersion": "example.org/v1", "kind": "Unheard", "metadata": {"name": "x"}}
    files = []
    for name, document in (("typo", typo), ("wrong", wrong), ("unheard", unheard)):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(document), encoding="utf-8")
    fine, unknown, said = validate(files, NEWEST)
    assert not fine
    assert "terminationGracePeriod" in said
    assert "two" in said
    assert unknown == {("example.org/v1", "Unheard")}
    route = next(d for d in documents("canary-5 with gateway-api") if d["kind"] == "HTTPRoute")
    route = json.loads(json.dumps(route))
    route["spec"]["rules"][0]["backendRefs"][0]["wieght"] = 5
    with pytest.raises(jsonschema.ValidationError, match="wieght"):
        check_custom(route)
