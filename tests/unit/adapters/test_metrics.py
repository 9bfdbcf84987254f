"""Metrics as Prometheus reads them: the contract's names, batch counts, bounded labels."""

from __future__ import annotations

import math
import threading

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from verifier.adapters.metric_families import HistogramFamily, LabelBounds
from verifier.adapters.metrics import Metrics, status_class

CONTRACT = {
    "verifier_records_total": {"topic"},
    "verifier_rejected_total": {"topic", "reason"},
    "verifier_requests_total": {"route", "verdict"},
    "verifier_differences_total": {"route", "kind"},
    "verifier_conflicts_total": {"scope", "kind"},
    "verifier_pending_requests": set(),
    "verifier_join_seconds_bucket": {"le"},
    "verifier_join_seconds_count": set(),
    "verifier_join_seconds_sum": set(),
    "verifier_verified_through_timestamp_seconds": set(),
    "verifier_consumer_lag": {"topic"},
    "verifier_backend_latency_seconds_bucket": {"side", "route", "le"},
    "verifier_backend_latency_seconds_count": {"side", "route"},
    "verifier_backend_latency_seconds_sum": {"side", "route"},
    "verifier_backend_responses_total": {"side", "route", "status_class"},
    "verifier_gate_decision": {"phase", "decision"},
    "verifier_duplicates_total": set(),
    "verifier_late_total": set(),
    "verifier_misplaced_keys_total": {"topic"},
    "verifier_capture_gaps_total": {"side"},
    "verifier_dependency_up": {"dependency"},
    "verifier_ignored_differences_total": {"route", "kind"},
    "verifier_journal_entries_total": set(),
    "verifier_batch_seconds_bucket": {"le"},
    "verifier_batch_seconds_count": set(),
    "verifier_batch_seconds_sum": set(),
    "verifier_label_overflow_total": {"label"},
    "verifier_incomparable_total": {"reason"},
    "verifier_incomplete_total": {"missing"},
    "verifier_shed_total": {"reason"},
    "verifier_partitions": {"state"},
    "verifier_topic_partitions": set(),
    "verifier_ready": set(),
    "verifier_revisions_total": {"was", "verdict"},
    "verifier_conflicts_retracted_total": {"scope", "kind"},
    "verifier_claims_dropped_total": set(),
    "verifier_bounds_met_total": {"bound"},
    "verifier_partition_stuck_seconds": set(),
    "verifier_tables_queue_entries": set(),
}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(metrics: Metrics) -> Series:
    text = metrics.render()[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def fed() -> Metrics:
    metrics = Metrics(routes_max=1, routes=["GET /a"])
    metrics.add_records("edge.requests", 100)
    metrics.add_rejected("edge.requests", "no_request_id", 2)
    metrics.add_duplicates(3)
    metrics.add_late(4)
    metrics.add_misplaced_keys("main.writes", 5)
    metrics.add_capture_gaps("shadow", 6)
    metrics.add_journal_entries(7)
    metrics.add_requests({("GET /a", "match"): 8, ("GET /b", "match"): 1})
    metrics.add_differences({("GET /a", "body"): 9})
    metrics.add_ignored_differences({("GET /a", "header"): 10})
    metrics.add_conflicts({("idempotency", "duplicate"): 11})
    metrics.add_responses(
        {("main", "GET /a", 200): 12, ("main", "GET /a", 204): 1, ("main", "GET /a", 503): 2}
    )
    metrics.observe_latency("main", "GET /a", [0.001, 0.2, 40.0])
    metrics.observe_joins([0.5] * 10)
    metrics.observe_batch(0.02)
    metrics.set_pending(13)
    metrics.set_verified_through(1_800_000_000.5)
    metrics.set_lag({"edge.requests": 14})
    metrics.set_dependency_up("redis", up=False)
    metrics.set_gate("canary", "hold")
    metrics.add_incomparable({"shed": 14, "body_truncated": 1})
    metrics.add_incomplete({"shadow.responses": 15})
    metrics.add_shed({"in_flight": 16})
    metrics.set_partitions({"working": 3, "waiting": 1}, of_topic=8)
    metrics.set_ready(ready=True)
    metrics.add_revisions({("incomplete", "match"): 17})
    metrics.add_retracted_conflicts({("idempotency", "conflict"): 18})
    metrics.add_dropped_claims(19)
    metrics.set_stuck(20.5)
    metrics.set_tables_queue(21)
    return metrics


def test_every_name_and_label_of_the_contract_is_there_and_no_other() -> None:
    found: dict[str, set[str]] = {}
    for name, labels in scraped(fed()):
        if name.startswith("verifier_"):
            found.setdefault(name, set()).update(label for label, _ in labels)
    assert found == CONTRACT


def test_a_batch_is_counted_under_its_labels() -> None:
    series = scraped(fed())
    assert value(series, "verifier_records_total", topic="edge.requests") == 100
    assert value(series, "verifier_rejected_total", topic="edge.requests", reason="no_request_id") == 2
    assert value(series, "verifier_requests_total", route="GET /a", verdict="match") == 8
    assert value(series, "verifier_differences_total", route="GET /a", kind="body") == 9
    assert value(series, "verifier_ignored_differences_total", route="GET /a", kind="header") == 10
    assert value(series, "verifier_conflicts_total", scope="idempotency", kind="duplicate") == 11
    assert (
        value(series, "verifier_backend_responses_total", side="main", route="GET /a", status_class="2xx")
        == 13
    )
    assert (
        value(series, "verifier_backend_responses_total", side="main", route="GET /a", status_class="5xx")
        == 2
    )
    assert value(series, "verifier_consumer_lag", topic="edge.requests") == 14
    assert value(series, "verifier_dependency_up", dependency="redis") == 0
    assert value(series, "verifier_verified_through_timestamp_seconds") == 1_800_000_000.5
    assert value(series, "verifier_incomparable_total", reason="shed") == 14
    assert value(series, "verifier_incomplete_total", missing="shadow.responses") == 15
    assert value(series, "verifier_shed_total", reason="in_flight") == 16
    assert value(series, "verifier_partitions", state="waiting") == 1
    assert value(series, "verifier_partitions", state="blocked") == 0
    assert value(series, "verifier_topic_partitions") == 8
    assert value(series, "verifier_ready") == 1


def test_what_may_happen_is_counted_from_zero_so_that_its_first_time_is_an_increase() -> None:
    metrics = Metrics()
    metrics.start(["edge.requests"])
    metrics.add_requests({("GET /a", "match"): 1})
    metrics.add_responses({("shadow", "GET /a", 200): 1})
    series = scraped(metrics)
    assert value(series, "verifier_records_total", topic="edge.requests") == 0
    assert value(series, "verifier_requests_total", route="GET /a", verdict="divergence") == 0
    assert value(series, "verifier_capture_gaps_total", side="shadow") == 0
    assert value(series, "verifier_conflicts_total", scope="main_canary", kind="conflict") == 0
    assert (
        value(series, "verifier_backend_responses_total", side="shadow", route="GET /a", status_class="5xx")
        == 0
    )
    metrics.add_requests({("GET /a", "divergence"): 2})
    metrics.add_requests({("GET /a", "match"): 1})
    assert value(scraped(metrics), "verifier_requests_total", route="GET /a", verdict="divergence") == 2


def test_a_worker_without_partitions_claims_no_progress() -> None:
    metrics = Metrics()
    metrics.set_verified_through(1_800_000_000.0)
    metrics.set_verified_through(None)
    assert not [name for name, _ in scraped(metrics) if name.startswith("verifier_verified_through")]


def test_a_counter_without_labels_is_there_before_anything_happened() -> None:
    series = scraped(Metrics())
    assert value(series, "verifier_late_total") == 0
    assert value(series, "verifier_duplicates_total") == 0


def test_routes_beyond_the_bound_become_other_and_are_counted() -> None:
    metrics = Metrics(routes_max=2, routes=["GET /configured"])
    metrics.add_requests({("GET /first", "match"): 1})
    metrics.add_requests({(f"GET /{number}", "match"): 2 for number in range(1000)})
    metrics.add_requests({("GET /configured", "match"): 5})
    metrics.observe_latency("main", "GET /late", [0.1, 0.2, 0.3])
    series = scraped(metrics)
    routes = {dict(labels)["route"] for name, labels in series if name == "verifier_requests_total"}
    assert routes == {"GET /configured", "GET /first", "(other)"}
    assert value(series, "verifier_requests_total", route="(other)", verdict="match") == 2000
    assert value(series, "verifier_requests_total", route="GET /configured", verdict="match") == 5
    assert value(series, "verifier_label_overflow_total", label="route") == 2003


def test_every_label_is_bounded() -> None:
    metrics = Metrics(routes_max=3)
    for number in range(300):
        text = f"{number}" + "x" * 10_000
        metrics.add_records(text, 1)
        metrics.add_rejected("t", text)
        metrics.add_misplaced_keys(text, 1)
        metrics.add_capture_gaps(text, 1)
        metrics.add_conflicts({(text, text): 1})
        metrics.add_differences({(text, text): 1})
        metrics.set_dependency_up(text, up=True)
    body = metrics.render()[0]
    assert len(scraped(metrics)) < 1000
    assert max(len(line) for line in body.splitlines()) < 800


@pytest.mark.parametrize("seed", range(5))
def test_a_histogram_fed_in_bulk_equals_the_stock_one_fed_singly(seed: int) -> None:
    limits = (0.01, 0.1, 1.0, 10.0)
    values = [((seed * 7919 + number * 104_729) % 20_011) / 1000 for number in range(500)] + list(limits)
    bulk = HistogramFamily("h", "", (), LabelBounds({}), threading.Lock(), buckets_s=limits)
    bulk.observe_many((), values[:100])
    bulk.observe_many((), values[100:])
    stock_registry = CollectorRegistry()
    stock = Histogram("h", "", registry=stock_registry, buckets=limits)
    for single in values:
        stock.observe(single)
    ours = {(s.name, s.labels.get("le")): s.value for family in bulk.collect() for s in family.samples}
    theirs = {
        (s.name, s.labels.get("le")): s.value
        for family in stock_registry.collect()
        for s in family.samples
        if not s.name.endswith("_created")
    }
    assert ours == pytest.approx(theirs)


def test_a_histogram_takes_negative_durations_as_zero_and_leaves_out_what_is_no_number() -> None:
    metrics = Metrics()
    metrics.observe_joins([-5.0, 0.02, math.nan, math.inf])
    metrics.observe_joins([])
    series = scraped(metrics)
    assert value(series, "verifier_join_seconds_count") == 2
    assert value(series, "verifier_join_seconds_sum") == pytest.approx(0.02)
    assert value(series, "verifier_join_seconds_bucket", le="0.01") == 1


@pytest.mark.parametrize("buckets", [(), (1.0, 0.5), (1.0, 1.0), (1.0, math.inf)])
def test_buckets_that_are_none_are_refused(buckets: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="buckets"):
        HistogramFamily("h", "", (), LabelBounds({}), threading.Lock(), buckets_s=buckets)


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf])
def test_a_counter_refuses_what_would_spoil_it_and_adds_nothing_of_the_batch(amount: float) -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="counts upwards"):
        metrics.add_requests({("GET /a", "match"): 1, ("GET /b", "match"): amount})  # type: ignore[dict-item]
    assert not [name for name, _ in scraped(metrics) if name == "verifier_requests_total"]


def test_lag_of_a_topic_no_longer_read_is_forgotten() -> None:
    metrics = Metrics()
    metrics.set_lag({"a": 1, "b": 2})
    metrics.set_lag({"b": 3})
    lag = {
        labels: number
        for (name, labels), number in scraped(metrics).items()
        if name == "verifier_consumer_lag"
    }
    assert lag == {frozenset({("topic", "b")}): 3.0}


def test_the_gate_shows_exactly_one_decision() -> None:
    metrics = Metrics()
    metrics.set_gate("shadow", "hold")
    metrics.set_gate("canary", "promote")
    shown = {
        labels: number
        for (name, labels), number in scraped(metrics).items()
        if name == "verifier_gate_decision"
    }
    assert len(shown) == 12
    assert [dict(labels) for labels, number in shown.items() if number] == [
        {"phase": "canary", "decision": "promote"}
    ]
    with pytest.raises(ValueError, match="gate"):
        metrics.set_gate("canary", "maybe")


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, "2xx"), (204, "2xx"), (301, "3xx"), (599, "5xx"), (0, "other"), (999, "other")],
)
def test_statuses_are_put_into_classes(status: int, expected: str) -> None:
    assert status_class(status) == expected


def test_two_workers_metrics_are_apart() -> None:
    one, other = Metrics(), Metrics()
    one.add_late(1)
    assert value(scraped(other), "verifier_late_total") == 0


def test_the_form_follows_the_accept_header() -> None:
    metrics = fed()
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    assert b"_created" not in body
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert any(family.name == "verifier_join_seconds" for family in parse_openmetrics(body.decode()))  # type: ignore[no-untyped-call]


def test_counts_from_several_threads_are_not_lost() -> None:
    metrics = Metrics()

    def count() -> None:
        for _ in range(2000):
            metrics.add_requests({("GET /a", "match"): 1})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(scraped(metrics), "verifier_requests_total", route="GET /a", verdict="match") == 8000
