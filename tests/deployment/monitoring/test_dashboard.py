"""The dashboard's panels are what a person can read: named, explained, with a unit, laid out without overlap."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from tests.deployment.monitoring.shipped import DASHBOARD, metrics_in, panels, queries, recorded, recorded_in
from verifier.adapters.metrics import Metrics

PANELS = [panel for panel in panels() if panel["type"] != "row"]
UNITS = {"none", "short", "percentunit", "s", "reqps", "rps", "cps", "bytes", "bool_yes_no"}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_a_panel_says_what_it_shows_and_in_what_unit(panel: dict[str, Any]) -> None:
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"


def test_every_query_is_of_the_chosen_namespace_and_of_metrics_that_there_are() -> None:
    known = {sample for family in Metrics().families() for sample in family.sample_names}
    for title, expression in queries():
        assert metrics_in(expression) <= known, title
        assert recorded_in(expression) <= recorded(), title
        selectors = re.findall(r"verifier[_:][a-z0-9_:]+\{([^}]*)\}", expression)
        assert all("$namespace" in s for s in selectors if 'route="*"' not in s), title


def test_every_metric_of_the_verifier_is_on_a_panel_but_those_named_here() -> None:
    elsewhere = {"verifier_gate_decision"}  # told by the gate itself
    shown = {name for _, expression in queries() for name in metrics_in(expression) | recorded_in(expression)}
    rates = {"verifier_backend_latency_seconds", "verifier_ready"}
    missing = {
        family.name
        for family in Metrics().families()
        if not shown & set(family.sample_names) and family.name not in elsewhere | rates
    }
    assert missing == set()


def test_panels_do_not_overlap_and_stay_on_the_grid() -> None:
    boxes = [(panel["title"], panel["gridPos"]) for panel in panels()]
    for title, box in boxes:
        assert box["x"] >= 0 and box["x"] + box["w"] <= 24, title
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = (
            a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        )  # fmt: skip
        assert apart, (one, other)


def test_ids_and_titles_are_each_their_own() -> None:
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in document["panels"]]
    titles = [panel["title"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids) and len(set(titles)) == len(titles)
    assert {variable["name"] for variable in document["templating"]["list"]} == {
        "datasource", "namespace", "route",
    }  # fmt: skip


def test_the_dashboard_fits_into_a_config_map_as_kubectl_applies_it() -> None:
    """`kubectl apply` keeps the whole in an annotation, and annotations end at 256 KiB."""
    assert DASHBOARD.stat().st_size < 200 * 1024
