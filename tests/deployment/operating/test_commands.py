"""Every command that operators are given names what there is: overlays, objects, keys, labels, containers, programs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tests.deployment.kubernetes.rendered import PHASES, documents
from verifier.cli import app

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [
    ROOT / "docs" / "operating.md",
    ROOT / "k8s" / "README.md",
    ROOT / "k8s" / "monitoring" / "README.md",
    *sorted((ROOT / "docs" / "runbooks").glob("*.md")),
]
KINDS = {
    "sts": "StatefulSet", "statefulset": "StatefulSet", "deploy": "Deployment", "deployment": "Deployment",
    "job": "Job", "svc": "Service", "service": "Service", "configmap": "ConfigMap", "secret": "Secret",
    "namespace": "Namespace",
}  # fmt: skip


def commands(program: str) -> Iterator[tuple[Path, list[str]]]:
    """Each call of a program in a block of shell or in backticks, as words."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        lines = [*"".join(blocks).splitlines(), *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)]
        for line in lines:
            within = re.findall(r"\$\(([^()]*)\)", line)
            for part in [re.sub(r"\$\([^()]*\)", "0", line), *within]:
                if program in part:
                    yield from ((path, words) for words in calls(part, program))


def calls(line: str, program: str) -> Iterator[list[str]]:
    """The calls of a program in one line, also those that another program makes after `--`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    call: list[str] = []
    for word in [*lexer, "|"]:
        if word[0] not in "|&;" and word != "--":
            call.append(word)
            continue
        if call and call[0] == program and len(call) > 1:
            yield call
        call = []


@cache
def everything() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """All objects of all phases by kind and name."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for phase in PHASES:
        for document in documents(phase):
            found.setdefault((document["kind"], document["metadata"]["name"]), []).append(document)
    return found


KUBECTL = list(commands("kubectl"))


def names(kind: str) -> set[str]:
    return {name for each, name in everything() if each == kind}


def test_commands_are_found() -> None:
    assert len(KUBECTL) > 40
    assert {path.name for path, _ in KUBECTL} >= {"operating.md", "README.md", "VerifierDown.md"}


@pytest.mark.parametrize(
    ("path", "words"), KUBECTL, ids=lambda value: value.name if isinstance(value, Path) else ""
)
def test_what_kubectl_is_given_is_there(path: Path, words: list[str]) -> None:
    for flag, value in pairwise(words):
        if flag == "-k" and not value.startswith("site"):
            assert (ROOT / value / "kustomization.yaml").is_file(), value
        if flag == "-l":
            key, _, wanted = value.partition("=")
            labels = [_pod_labels(each) for group in everything().values() for each in group]
            assert any(found.get(key) == wanted for found in labels), value
        if flag == "-c":
            containers = {
                each["name"] for group in everything().values() for doc in group for each in _containers(doc)
            }
            assert value in containers
    for word in words:
        kind, slash, name = word.partition("/")
        if slash and kind in KINDS and not name.startswith("$"):
            assert name in names(KINDS[kind]), word
        if re.fullmatch(r"shadow-verifier-\d+", word):
            assert ("StatefulSet", word.rpartition("-")[0]) in everything()
    for kind, name in pairwise(words):
        if kind in {"configmap", "job"} and not name.startswith(("-", "$")):
            assert name in names(KINDS[kind]), (kind, name)


def _pod_labels(document: dict[str, Any]) -> dict[str, str]:
    template = document.get("spec", {}).get("template", {}) if isinstance(document.get("spec"), dict) else {}
    found: dict[str, str] = template.get("metadata", {}).get("labels", {})
    return found


def _containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = document.get("spec", {}).get("template", {}).get("spec", {}) if document.get("spec") else {}
    return [*spec.get("containers", []), *spec.get("initContainers", [])]


def test_the_way_back_sets_values_that_the_edge_has() -> None:
    patches = [
        (words[words.index("configmap") + 1], json.loads(words[words.index("-p") + 1]))
        for _, words in KUBECTL
        if "patch" in words and "configmap" in words
    ]
    assert patches
    for name, patch in patches:
        for document in everything()["ConfigMap", name]:
            assert set(patch["data"]) <= set(document["data"])
        [rolled_back] = [each for each in documents("rollback") if each["metadata"]["name"] == name]
        assert {key: rolled_back["data"][key] for key in patch["data"]} == patch["data"], (
            "two ways back, two places"
        )


def test_a_secret_that_is_read_is_one_whose_making_is_told() -> None:
    told = (ROOT / "k8s" / "README.md").read_text(encoding="utf-8")
    for _, words in KUBECTL:
        if "secret" in words and "get" in words:
            name = words[words.index("secret") + 1]
            [key] = re.findall(r"\.data\.([a-z-]+)", " ".join(words))
            assert f"| `{name}` |" in told and f"`{key}`" in told


def test_commands_of_the_verifier_are_there_with_their_options() -> None:
    known = dict(get_command(app).commands)  # type: ignore[attr-defined]
    called = [words for _, words in commands("verifier")]
    assert {words[1] for words in called} >= {"init", "worker", "check"}
    for words in called:
        options = {option for parameter in known[words[1]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words


def test_each_phase_has_its_command() -> None:
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    for phase in PHASES:
        assert f"kubectl apply -k k8s/overlays/{phase}" in text
