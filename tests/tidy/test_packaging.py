"""What is installed: what is imported is asked for, what is asked for is pinned, the image finds what it copies."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tidy.source_files import ROOT, imported_modules, place, python_files

# Used where it is there and done without where it is not.
OPTIONAL = {"testcontainers", "docker"}
PART_OF_ANOTHER = {"pydantic_core": "pydantic"}


def test_every_import_of_the_product_is_a_declared_dependency() -> None:
    declared = {canonicalize_name(Requirement(text).name) for text in requirements(["demo"], [])}
    brought_by = packages_distributions()
    found = [
        f"{place(path, node)} imports {module}"
        for path in python_files("verifier")
        for module, node in imported_modules(path)
        if (top := module.partition(".")[0]) not in sys.stdlib_module_names | OPTIONAL | {"verifier"}
        and not declared
        & {canonicalize_name(PART_OF_ANOTHER.get(top, name)) for name in brought_by.get(top, [])}
    ]
    assert found == []


def test_the_image_copies_what_is_there_and_not_left_out() -> None:
    kept = re.findall(r"^!(.+?)/?$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    copied = [
        source.strip("/")
        for line in re.findall(
            r"^COPY (.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
        )
        for source in line.split()[:-1]
    ]
    assert copied
    assert [source for source in copied if source not in kept or not (ROOT / source).exists()] == []


@pytest.mark.parametrize(
    ("lock", "extras", "groups"),
    [("requirements.lock", ["demo"], []), ("requirements-dev.lock", ["demo"], ["dev"])],
)
def test_what_is_pinned_is_what_is_asked_for(lock: str, extras: list[str], groups: list[str]) -> None:
    pinned = pins(ROOT / lock)
    asked = [Requirement(text) for text in requirements(extras, groups)]
    found = [
        str(need)
        for need in asked
        if not need.specifier.contains(pinned.get(canonicalize_name(need.name), "0"))
    ]
    assert found == []


def requirements(extras: list[str], groups: list[str]) -> list[str]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked: list[str] = list(project["project"]["dependencies"])
    for extra in extras:
        asked += project["project"]["optional-dependencies"][extra]
    for group in groups:
        asked += project["dependency-groups"][group]
    return asked


def pins(lock: Path) -> dict[str, str]:
    """Name to version of what a lock installs on this machine."""
    environment = {name: str(value) for name, value in default_environment().items()}
    found: dict[str, str] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line[:1].isalnum():
            need = Requirement(line.removesuffix("\\").strip())
            if need.marker is None or need.marker.evaluate(environment):
                found[canonicalize_name(need.name)] = str(need.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_says_what_and_never_where_from(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert re.findall(r"\S*(?:://|file:|--find-links|--index|--extra-index)\S*", text) == []
    named = re.findall(r"^[a-z0-9].*$(?:\n {4}.*$)*", text, re.MULTILINE)
    assert [block.split()[0] for block in named if "--hash=sha256:" not in block] == []
