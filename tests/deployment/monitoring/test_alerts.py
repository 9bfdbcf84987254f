"""The alerts fire when they must and are quiet when they must, as Prometheus's own promtool sees it."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deployment.monitoring.shipped import (
    ROOT,
    RUNBOOKS,
    alerts,
    recorded,
    recorded_in,
    rule_file,
    rules,
)

CASES = Path(__file__).parent / "alerts"
NAMES = sorted({rule["alert"] for rule in alerts()})


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)


@cache
def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(CASES.glob("*.yaml")):
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            found += test["alert_rule_test"]
    return found


def test_promtool_takes_the_rules_without_a_word_against_them(tmp_path: Path) -> None:
    done = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", rule_file(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("cases_file", sorted(CASES.glob("*.yaml")), ids=lambda path: str(path.stem))
def test_the_alerts_of_a_file_of_cases_fire_and_are_quiet_as_it_says(
    cases_file: Path, tmp_path: Path
) -> None:
    rule_file(tmp_path, annotations=False)
    shutil.copy(cases_file, tmp_path)
    done = run("promtool", "test", "rules", tmp_path / cases_file.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_case_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    """What would be worth nothing if promtool passed whatever it is given."""
    rule_file(tmp_path, annotations=False)
    document = yaml.safe_load((CASES / "itself.yaml").read_text(encoding="utf-8"))
    [down] = [test for test in document["tests"] if test["name"] == "no worker can be scraped"]
    down["alert_rule_test"][1]["exp_alerts"] = []
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump({**document, "tests": [down]}), encoding="utf-8")
    assert run("promtool", "test", "rules", wrong).returncode != 0


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    of_it = [case for case in cases() if case["alertname"] == name]
    assert any(case["exp_alerts"] for case in of_it), "never fires in tests/deployment/monitoring/alerts"
    assert any(not case["exp_alerts"] for case in of_it), "never quiet in tests/deployment/monitoring/alerts"


def test_every_rule_of_an_alert_fires_in_some_case() -> None:
    """One name may stand for several rules: each is told from the others by its labels."""
    fired = [(case["alertname"], alert["exp_labels"]) for case in cases() for alert in case["exp_alerts"]]
    never = [
        (rule["alert"], rule["labels"])
        for rule in alerts()
        if not any(
            name == rule["alert"] and rule["labels"].items() <= labels.items() for name, labels in fired
        )
    ]
    assert never == []


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_runbook_that_answers_what_a_woken_person_asks(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["What it means", "How sure", "First look", "What to do", "When to roll back"]
    first_look = text.partition("## First look")[2].partition("## What to do")[0]
    assert "```" in first_look


def test_every_runbook_is_of_an_alert_and_named_by_it() -> None:
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md") if path.stem != "README") == NAMES
    listed = re.findall(r"\]\(([A-Za-z]+)\.md\)", (RUNBOOKS / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == NAMES
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{rule['alert']}.md"
        assert (ROOT / rule["annotations"]["runbook"]).exists()


def test_every_alert_says_what_and_how_bad() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule
        assert rule["annotations"]["summary"] and rule["annotations"]["description"], rule


def test_what_rules_take_from_recorded_series_is_recorded() -> None:
    named = {name for rule in rules() for name in recorded_in(rule["expr"])}
    assert named == recorded()
