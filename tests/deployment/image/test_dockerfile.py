"""The image, as far as it can be looked at without an engine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.deployment.image.dockerfile import ROOT, Ignore, context, instructions, stages
from verifier.adapters.settings_model import Settings
from verifier.web.openapi import openapi_document

DOCKERFILE = ROOT / "Dockerfile"
HADOLINT = ROOT / ".venv" / "deployment" / "bin" / "hadolint"
# What hadolint says and is not followed, by file.
EXCUSED = {
    # Debian's mirrors keep the newest version of a package alone: a pinned one cannot be installed a month later.
    "k8s/edge-shipper/Dockerfile": ["DL3008"],
}
SECRETS = (
    ".env", ".git/config", "verifier/.env", "verifier/web/.env.local", "verifier/adapters/tls.key", "sql/server.pem",
    "verifier/id_rsa", "k8s/base/verifier/secret.yaml", "k8s/shadow-proxy/tls.key", "k8s/shadow-proxy/.netrc",
    "verifier.yaml", "verifier/kubeconfig", "verifier/credentials.json", "sql/.pgpass", "dump.sql", ".pypirc",
    ".ci/setup", ".venv/bin/python", "verifier/__pycache__/cli.cpython-311.pyc", "verifier/secrets/token",
)  # fmt: skip


@pytest.mark.parametrize(
    "path", sorted(path for path in ROOT.glob("**/Dockerfile") if ".venv" not in str(path)), ids=str
)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    ignored = [f"--ignore={rule}" for rule in EXCUSED.get(name, [])]
    assert HADOLINT.is_file(), "run .ci/setup"
    done = subprocess.run(
        [HADOLINT, "--no-color", *ignored, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_excuse_that_is_no_longer_needed_is_taken_back() -> None:
    for name, excused in EXCUSED.items():
        done = subprocess.run(
            [HADOLINT, "--no-color", ROOT / name], capture_output=True, text=True, check=False
        )
        assert set(re.findall(r"\bDL\d+\b", done.stdout)) == set(excused)


def test_every_stage_stands_on_one_pinned_base_that_runs_the_product() -> None:
    bases = [stage[0].text.split()[0] for stage in stages(DOCKERFILE)]
    assert len(set(bases)) == 1
    version = re.fullmatch(r"python:(\d+\.\d+)-slim-[a-z]+(?:@sha256:[0-9a-f]{64})?", bases[0])
    assert version is not None, "neither a version nor a release of Debian is left to the registry"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version[1] in SpecifierSet(project["requires-python"])


def test_the_process_is_the_program_itself_so_that_signals_reach_it() -> None:
    shipped = {each.name: each for each in stages(DOCKERFILE)[-1]}
    assert shipped["ENTRYPOINT"].words == ["verifier"]
    assert shipped["CMD"].words == ["worker"]
    assert shipped["STOPSIGNAL"].text == "SIGTERM"


def test_it_runs_as_nobody_special_and_kubernetes_agrees() -> None:
    users = [each.text for each in stages(DOCKERFILE)[-1] if each.name == "USER"]
    assert users == ["10001:10001"]
    document = yaml.safe_load((ROOT / "k8s/base/verifier/statefulset.yaml").read_text(encoding="utf-8"))
    pod = document["spec"]["template"]["spec"]["securityContext"]
    assert f"{pod['runAsUser']}:{pod['runAsGroup']}" == users[0]
    assert pod["runAsNonRoot"] is True


def test_the_port_and_the_health_check_are_those_of_the_api() -> None:
    shipped = {each.name: each for each in stages(DOCKERFILE)[-1]}
    port = Settings.model_fields["http_port"].default
    assert shipped["EXPOSE"].text == str(port)
    command = shipped["HEALTHCHECK"].words
    assert command[:2] == ["python", "-c"]
    [path] = re.findall(r"'(/[a-z]+)'", command[2])
    calls = openapi_document(with_token=True)["paths"]
    assert path == "/healthz"
    assert "security" not in calls[path]["get"] or calls[path]["get"]["security"] == []
    assert f"'{port}'" in command[2] and "VERIFIER_HTTP_PORT" in command[2]


def test_no_instruction_takes_or_holds_a_secret() -> None:
    for each in instructions(DOCKERFILE):
        assert each.name != "ARG", "an argument of a build stands in the image's history"
        if each.name in {"ENV", "LABEL"}:
            assert not re.search(r"token|password|secret|dsn|key", each.text, re.IGNORECASE), each
        if each.name in {"ADD", "COPY"}:
            assert each.name == "COPY" and each.text.split()[0] not in {".", "./", "*"}, each
        assert "://" not in each.text.replace("http://127.0.0.1", ""), each


def test_what_is_shipped_is_copied_from_nowhere_and_installed_from_the_wheels_alone() -> None:
    shipped = stages(DOCKERFILE)[-1]
    assert not [each for each in shipped if each.name in {"COPY", "ADD"}]
    [install] = [each.text for each in shipped if "pip install" in each.text]
    assert "--no-index" in install and "--no-deps" in install
    build = " ".join(each.text for each in stages(DOCKERFILE)[0])
    assert "--require-hashes" in build


@pytest.mark.parametrize("path", SECRETS)
def test_a_secret_that_lies_about_is_not_sent_to_the_engine(path: str) -> None:
    assert Ignore((ROOT / ".dockerignore").read_text(encoding="utf-8")).leaves_out(path)


def test_what_the_wheel_is_built_from_is_sent() -> None:
    sent = set(context())
    code = {".py", ".sql", ".lua", ".js", ".css", ".html", ".svg", ".template", ".sh"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for folder in ("verifier", "sql", "k8s/shadow-proxy")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in code
    }
    assert len(wanted) > 150
    assert wanted | {"pyproject.toml", "requirements.lock"} <= sent


@pytest.mark.parametrize(
    ("text", "path", "out"),
    [
        ("*\n!a/\n**/*.pyc", "a/b/c.pyc", True),
        ("*\n!a/\n**/*.pyc", "a/b/c.py", False),
        ("*\n!a/", "b/a", True),
        ("*\n!a/b/", "a/c", True),
        ("*\n!a/b/", "a/b/c", False),
        ("**/.env*\n", ".env.local", True),
        ("*.key", "a/x.key", False),
        ("", "anything", False),
    ],
)
def test_the_last_pattern_that_matches_decides(text: str, path: str, out: bool) -> None:
    assert Ignore(text).leaves_out(path) is out
