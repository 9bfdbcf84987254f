"""What an entry adds to the metrics beside its verdicts: why a request was not compared, and what was missing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import all_seen, judge, pair
from verifier.adapters.metrics import Metrics
from verifier.core.journal import Entry
from verifier.core.outcome import Claimant, Conflict, Resolved
from verifier.stream.outputs import Outputs, OutputTopics
from verifier.testing import edge, response

TOPICS = OutputTopics(sources=("e", "mr", "sr", "mw", "sw"), divergences="d", conflicts="c", rejected="r")
Made = list[dict[str, Any]]


def counted(*requests: Made, name: str) -> dict[tuple[str, ...], float]:
    """The samples of a counter, by label values, after an entry that resolves these requests."""
    metrics = Metrics()
    resolved = [
        Resolved(outcome=judge().judge("r", all_seen(*records), bound_hit=False)[0], events=())
        for records in requests
    ]
    Outputs(TOPICS, metrics).observe(
        Entry(partition=0, n=0, worker="w", at=99.5, resolved=tuple(resolved)), 100.0
    )
    families = text_string_to_metric_families(metrics.render()[0].decode())
    return {
        tuple(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.parametrize(
    ("mark", "why", "shed"),
    [
        ({"shed": True, "shed_reason": "in_flight"}, {("shed",): 1}, {("in_flight",): 1}),
        ({"shed": True}, {("shed",): 1}, {("unspecified",): 1}),
        ({"sampled": False}, {("not_sampled",): 1}, {}),
    ],
)
def test_a_copy_that_was_not_made_counts_once_under_its_reason(
    mark: dict[str, Any], why: dict[tuple[str], int], shed: dict[tuple[str], int]
) -> None:
    request = [edge("r"), response("r"), edge("r", "shadow", **mark)]
    assert counted(request, name="verifier_incomparable_total") == why
    assert counted(request, name="verifier_shed_total") == shed


def test_a_gap_counts_for_its_side_and_as_a_reason_without_what_it_is_about() -> None:
    request = pair("r")
    request[3] = response("r", "shadow", capture_gap="response dropped")
    assert counted(request, name="verifier_capture_gaps_total") == {("shadow",): 1}
    assert counted(request, name="verifier_incomparable_total") == {("capture_gap",): 1}


def test_every_missing_part_is_counted_and_a_whole_request_counts_nowhere() -> None:
    lost, whole = pair("r")[:1], pair("r")
    missing = counted(lost, whole, name="verifier_incomplete_total")
    assert missing == {("main.responses",): 1, ("shadow.edge",): 1, ("shadow.responses",): 1}
    assert counted(lost, whole, name="verifier_incomparable_total") == {}


def test_the_time_from_entry_to_effects_is_observed() -> None:
    assert counted(pair("r"), name="verifier_batch_seconds_sum") == {(): 0.5}


def samples(metrics: Metrics, name: str) -> dict[frozenset[str], float]:
    """What is not 0, by the values of its labels."""
    families = text_string_to_metric_families(metrics.render()[0].decode())
    return {
        frozenset(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.value
    }


def test_a_revision_is_told_apart_from_a_first_verdict_and_counts_no_response_twice() -> None:
    metrics = Metrics()
    outputs = Outputs(TOPICS, metrics)
    records = pair("r")
    early, late = (
        judge().judge("r", all_seen(*part), bound_hit=False)[0] for part in (records[:-1], records)
    )
    assert (early.verdict, late.verdict) == ("incomplete", "match")
    for n, resolved in enumerate((
        Resolved(outcome=early, events=()), Resolved(outcome=late, events=(), rev=1, was=early)
    )):  # fmt: skip
        outputs.observe(Entry(partition=0, n=n, worker="w", at=99.5, resolved=(resolved,)), 100.0)
    verdicts = samples(metrics, "verifier_requests_total")
    assert {frozenset({early.route, name}): 1.0 for name in ("incomplete", "match")} == verdicts
    assert samples(metrics, "verifier_revisions_total") == {frozenset({"incomplete", "match"}): 1}
    assert samples(metrics, "verifier_join_seconds_count") == {frozenset(): 1}
    answered = samples(metrics, "verifier_backend_responses_total")
    assert max(answered.values()) == 1


def test_a_conflict_that_is_taken_back_is_counted_so_and_counts_anew_when_it_returns() -> None:
    metrics = Metrics()
    outputs = Outputs(TOPICS, metrics)
    winner, loser = (Claimant(side="main", request_id=name, ts=1.0) for name in "ab")
    conflict = Conflict(
        id="c1", scope="idempotency", key="k", entity=None, kind="conflict", winner=winner, loser=loser,
        strategy="first_write", ts=1.0,
    )  # fmt: skip
    entry = Entry(partition=0, n=0, worker="w", at=1.0)
    for more in (
        {"conflicts": (conflict,)}, {"conflicts": (conflict,)}, {"retracted": ("c1", "c2")},
        {"conflicts": (conflict,)},
    ):  # fmt: skip
        outputs.observe(msgspec.structs.replace(entry, **more), 1.0)
    of_kind = frozenset({"idempotency", "conflict"})
    assert samples(metrics, "verifier_conflicts_total") == {of_kind: 2}
    assert samples(metrics, "verifier_conflicts_retracted_total") == {of_kind: 1}
