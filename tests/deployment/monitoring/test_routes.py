"""Who is told of which alert, as Alertmanager's own amtool sees it."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from tests.deployment.monitoring.shipped import MONITORING, alerts

CONFIG = MONITORING / "alertmanager" / "alertmanager.example.yaml"
PAGED = {"release-manager-page", "on-call-page"}


def amtool(*arguments: str) -> str:
    done = subprocess.run(["amtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def receivers(labels: dict[str, str]) -> list[str]:
    return _receivers(tuple(sorted(labels.items())))


@cache
def _receivers(labels: tuple[tuple[str, str], ...]) -> list[str]:
    told = amtool("config", "routes", "test", f"--config.file={CONFIG}", *(f"{k}={v}" for k, v in labels))
    return told.strip().split(",")


def routed() -> list[dict[str, str]]:
    return [
        {"alertname": rule["alert"], "namespace": "market-intel-brain", **rule["labels"]} for rule in alerts()
    ]


def test_alertmanager_takes_the_configuration() -> None:
    assert "SUCCESS" in amtool("check-config", str(CONFIG))


@pytest.mark.parametrize(
    ("name", "severity", "told"),
    [
        ("CanaryErrors", "critical", ["release-manager-page", "on-call-page", "migration-chat"]),
        ("ConflictsFound", "critical", ["release-manager-page", "on-call-page", "migration-chat"]),
        ("ConflictsFound", "warning", ["migration-chat"]),
        ("VerifierDown", "critical", ["on-call-page", "migration-chat"]),
        ("DivergenceOverBudget", "warning", ["migration-engineers"]),
        ("CaptureGaps", "warning", ["migration-chat"]),
    ],
)
def test_an_alert_goes_where_somebody_can_act(name: str, severity: str, told: list[str]) -> None:
    assert receivers({"service": "shadow-verifier", "alertname": name, "severity": severity}) == told


def test_alerts_of_others_are_left_alone() -> None:
    assert receivers({"alertname": "CanaryErrors", "severity": "critical"}) == ["nobody"]


def test_a_person_is_woken_for_the_critical_and_for_nothing_else() -> None:
    woken = {(labels["alertname"], labels["severity"]): set(receivers(labels)) & PAGED for labels in routed()}
    assert {severity for (_, severity), paged in woken.items() if paged} == {"critical"}
    assert [name for (name, severity), paged in woken.items() if severity == "critical" and not paged] == []


def test_every_alert_of_the_rules_reaches_somebody() -> None:
    assert [labels for labels in routed() if receivers(labels) in ([], ["nobody"])] == []


def test_what_silences_another_is_an_alert_and_so_is_what_it_silences() -> None:
    names = {rule["alert"] for rule in alerts()}
    document: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    for rule in document["inhibit_rules"]:
        [source] = [each for each in rule["source_matchers"] if each.startswith("alertname=")]
        [target] = [each for each in rule["target_matchers"] if "alertname=" in each]
        assert source.split('"')[1] in names
        targets = set(target.rpartition("alertname")[2].split('"')[1].split("|"))
        assert targets <= names
        assert source.split('"')[1] not in targets, "an alert that silences itself is never heard"


def test_no_secret_stands_in_the_configuration() -> None:
    def keys(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [*value, *(key for each in value.values() for key in keys(each))]
        return [key for each in value for key in keys(each)] if isinstance(value, list) else []

    inline = {"routing_key", "service_key", "api_url", "password", "credentials", "bearer_token"}
    assert inline & set(keys(yaml.safe_load(CONFIG.read_text(encoding="utf-8")))) == set()
