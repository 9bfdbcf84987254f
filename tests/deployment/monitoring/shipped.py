"""The files of k8s/monitoring as the tests read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "k8s" / "monitoring"
RUNBOOKS = ROOT / "docs" / "runbooks"
DASHBOARD = MONITORING / "dashboards" / "verifier.json"

# Names of the verifier's own metrics, with what a histogram's and a counter's samples are called.
_METRIC = re.compile(r"\bverifier_[a-z0-9_]+\b")
_RECORDED = re.compile(r"\bverifier:[a-z0-9_]+:[a-z0-9_]+\b")


def rule_groups() -> list[dict[str, Any]]:
    """The groups of the PrometheusRule, as Prometheus itself reads them."""
    groups: list[dict[str, Any]] = deepcopy(_prometheus_rule()["spec"]["groups"])
    return groups


@cache
def _prometheus_rule() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(
        (MONITORING / "prometheus-rule.yaml").read_text(encoding="utf-8")
    )
    return document


def rules() -> Iterator[dict[str, Any]]:
    for group in rule_groups():
        yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def metrics_in(expression: str) -> set[str]:
    """The verifier's metrics that an expression names."""
    return set(_METRIC.findall(expression))


def recorded_in(expression: str) -> set[str]:
    """The recorded series that an expression names."""
    return set(_RECORDED.findall(expression))


def rule_file(folder: Path, *, annotations: bool = True) -> Path:
    """The rules in Prometheus's own form."""
    groups = rule_groups()
    if not annotations:
        for group in groups:
            for rule in group["rules"]:
                rule.pop("annotations", None)
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups}, sort_keys=False), encoding="utf-8")
    return path


def panels() -> list[dict[str, Any]]:
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = document["panels"]
    return found


def queries() -> list[tuple[str, str]]:
    """Each query of the dashboard with its panel's title."""
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", ())]


def yaml_documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document is not None]
