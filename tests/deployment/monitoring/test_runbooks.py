"""What a runbook tells a woken person to type works: calls the API has, queries Prometheus reads, names of ours."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deployment.monitoring.shipped import RUNBOOKS, metrics_in, recorded, recorded_in
from verifier.adapters.metrics import Metrics
from verifier.adapters.settings_model import Settings
from verifier.web.openapi import openapi_document

BOOKS = sorted(path for path in RUNBOOKS.glob("*.md") if path.stem != "README")
CALL = re.compile(r"(?:\$API|localhost:808\d)(/[a-z0-9/_$-]*)(?:\?([^\"\s]*))?", re.IGNORECASE)
PARAMETER = re.compile(r'(?:-d|--data-urlencode) "?([a-z]+)=')
SETTING = re.compile(r"\bVERIFIER_([A-Z_]+)\b")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def calls(text: str) -> list[tuple[str, set[str]]]:
    """Each call of the API: its path and the names of its parameters."""
    found = []
    for line in "".join(blocks("sh", text)).splitlines():
        for path, query in CALL.findall(line):
            names = {part.partition("=")[0] for part in query.split("&") if part}
            found.append((path, names | set(PARAMETER.findall(line))))
    return found


@pytest.mark.parametrize("book", BOOKS, ids=lambda path: str(path.stem))
def test_calls_are_those_of_the_api(book: Path) -> None:
    paths = openapi_document(with_token=True)["paths"]
    for path, names in calls(book.read_text(encoding="utf-8")):
        known = paths.get(path.replace("$REQUEST_ID", "{request_id}"))
        assert known is not None, f"the API has no {path}"
        takes = {each["name"] for each in known["get"].get("parameters", [])}
        assert names <= takes, f"{path} takes {takes}"


def test_calls_are_found() -> None:
    assert sum(len(calls(book.read_text(encoding="utf-8"))) for book in BOOKS) > 25


def test_every_query_is_one_that_prometheus_reads_of_metrics_that_there_are(tmp_path: Path) -> None:
    queries = [
        query
        for book in BOOKS
        for block in blocks("promql", book.read_text(encoding="utf-8"))
        for query in block.splitlines()
    ]
    assert len(queries) > 25
    path = tmp_path / "queries.yaml"
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    known = {sample for family in Metrics().families() for sample in family.sample_names}
    assert {name for query in queries for name in metrics_in(query)} <= known
    assert {name for query in queries for name in recorded_in(query)} <= recorded()


def test_settings_that_are_named_are_settings() -> None:
    named = {name for book in BOOKS for name in SETTING.findall(book.read_text(encoding="utf-8"))}
    assert named
    assert {name for name in named if name.lower() not in Settings.model_fields} == set()
