"""Folding entries into deltas: what is counted, taken back, and put right against what is stored."""

from __future__ import annotations

import pytest

from tests.contract.journal_entries import (
    ROUTE,
    at_offsets,
    claim,
    conflict,
    difference,
    diverged,
    entry,
    outcome,
    resolved,
)
from verifier.core.counts import LATENCY_BOUNDS_US, LATENCY_BUCKETS, Counted, Counts, counted_of, status_class
from verifier.core.journal import SourceCount
from verifier.core.outcome import SideFacts
from verifier.core.rollup import UNVERSIONED, Stored, fold, settle


def _nothing_left(counts: Counts) -> bool:
    return (
        not any(counts.verdicts.values())
        and not any(stat.n or stat.latency_sum_us or any(stat.buckets) for stat in counts.sides.values())
        and not any(stat.n or stat.ignored for stat in counts.fields.values())
    )


def test_a_delta_has_the_last_word_of_its_entries() -> None:
    entries = [
        entry(4, outcome("a"), keep_n=2, pending=5, watermark=9.0, verified_through=8.0),
        entry(5, outcome("b"), keep_n=1, pending=3, watermark=7.0, verified_through=9.0),
    ]
    delta = fold(at_offsets(*entries))
    assert (delta.expected_n, delta.last_n, delta.entries) == (3, 5, [(4, 40), (5, 50)])
    assert (delta.keep_n, delta.pending, delta.watermark, delta.verified_through) == (2, 3, 9.0, 9.0)
    assert delta.counts.verdicts == {(ROUTE, "match"): 2}


def test_only_a_run_of_one_partition_can_be_folded() -> None:
    for wrong in ([], at_offsets(entry(1), entry(3)), at_offsets(entry(1), entry(2, partition=1))):
        with pytest.raises(ValueError, match="fold"):
            fold(wrong)


def test_an_outcome_counts_each_field_once_and_keeps_ignored_ones_apart() -> None:
    one = diverged("a", "/x", "/x", "/y", ignored=(difference("/y"), difference("/z"), difference("/z")))
    assert counted_of(one).fields == (
        ("body", "/x", "value", False),
        ("body", "/y", "value", False),
        ("body", "/y", "value", True),
        ("body", "/z", "value", True),
    )


def test_latencies_fall_into_the_bucket_they_do_not_exceed() -> None:
    assert LATENCY_BOUNDS_US[0] == 1_000
    assert LATENCY_BOUNDS_US[-1] == 65_536_000
    for latency_s, bucket in (
        (0.0, 0),
        (0.001, 0),
        (0.001001, 1),
        (65.536, LATENCY_BUCKETS - 2),
        (1e5, LATENCY_BUCKETS - 1),
    ):
        delta = fold(at_offsets(entry(0, outcome("a", sides=(SideFacts("main", 200, latency_s),)))))
        stat = delta.counts.sides[ROUTE, "main", "2xx"]
        assert (stat.buckets.index(1), sum(stat.buckets)) == (bucket, 1)
        assert stat.latency_sum_us == round(latency_s * 1e6)


@pytest.mark.parametrize("latency_s", [None, -1.0, float("nan"), float("inf"), 1e9])
def test_a_latency_that_cannot_be_one_is_not_counted_as_one(latency_s: float | None) -> None:
    delta = fold(at_offsets(entry(0, outcome("a", sides=(SideFacts("main", 200, latency_s),)))))
    stat = delta.counts.sides[ROUTE, "main", "2xx"]
    assert (stat.n, stat.latency_sum_us, sum(stat.buckets)) == (1, 0, 0)


def test_status_classes_are_few() -> None:
    given = (100, 204, 302, 404, 599, None, 0, 600, -1)
    assert [status_class(status) for status in given] == [
        "1xx", "2xx", "3xx", "4xx", "5xx", "none", "other", "other", "other",
    ]  # fmt: skip


def test_a_revision_leaves_exactly_the_new_outcome_in_the_counts() -> None:
    before = diverged("a", "/x", ignored=(difference("/y"),), sides=(SideFacts("main", 500, 0.1234567),))
    after = outcome("a", route="GET /other")
    delta = fold(at_offsets(entry(0, before), entry(1, resolved(after, rev=1, was=before))))
    delta.counts.take_back("GET /other", "match", counted_of(after))
    assert _nothing_left(delta.counts)
    assert delta.rows["a"].journal_offsets == (0, 10)
    assert delta.rows["a"].rev == 1


def test_settling_replaces_what_the_entry_says_with_what_is_stored() -> None:
    before = diverged("a", "/x")
    stored = Stored("GET /stored", "incomplete", Counted((("main", "2xx", 70),), ()))
    delta = fold(at_offsets(entry(3, resolved(outcome("a"), rev=1, was=before))))
    assert settle(delta, {"a": stored}) == ()
    assert delta.counts.verdicts[ROUTE, "match"] == 1
    assert delta.counts.verdicts[ROUTE, "divergence"] == 0
    assert delta.counts.verdicts["GET /stored", "incomplete"] == -1
    assert delta.counts.sides["GET /stored", "main", "2xx"].latency_sum_us == -70


def test_settling_names_requests_that_should_have_been_new() -> None:
    delta = fold(at_offsets(entry(3, outcome("a"), outcome("b"))))
    stored = Stored(ROUTE, "match", counted_of(outcome("a")))
    assert settle(delta, {"a": stored}) == ("a",)
    assert delta.counts.verdicts == {(ROUTE, "match"): 1}


def test_adding_counts_is_counting_together() -> None:
    counts = (SourceCount(0, 0, 9, 9, {"json": 2}, 1, 1),)
    one, two = (
        entry(0, diverged("a", "/x", ts=5.0), counts=counts),
        entry(1, diverged("b", "/x", ts=3.0), counts=counts),
    )
    together, apart = fold(at_offsets(one, two)).counts, Counts()
    for each in (one, two):
        apart.add(fold(at_offsets(each)).counts)
    assert apart.verdicts == together.verdicts
    assert apart.sides == together.sides
    assert apart.fields == together.fields
    assert apart.records == together.records
    assert apart.rejected == together.rejected == {(0, "json"): 4}
    assert (together.fields[ROUTE, "body", "/x", "value"].first_ts, together.records[0].rejected) == (3.0, 4)


def test_the_newest_finding_of_a_batch_is_kept() -> None:
    delta = fold(
        at_offsets(
            entry(
                0, conflicts=(conflict("a", version=5), conflict("b", version=5), conflict("c", version=5))
            ),
            entry(1, conflicts=(conflict("a", version=4),), retracted=("b", "c"), retracted_versions=(4, 6)),
            entry(2, retracted=("d",)),
        )
    )
    versions = {i: (f.version, f.conflict is not None) for i, f in delta.findings.items()}
    assert versions == {"a": (5, True), "b": (5, True), "c": (6, False), "d": (UNVERSIONED, False)}


def test_the_oldest_claim_on_a_key_is_kept_whatever_its_side() -> None:
    late = claim("b", 2.0, key="main:k")
    early = claim("a", 1.0, key="shadow:k", side="shadow")
    delta = fold(
        at_offsets(entry(0, outcome("a", user_id="u"), claims=(late, early, claim("c", 0.0, scope="entity"))))
    )
    assert {key: (k.claim.claimant.request_id, k.user_id) for key, k in delta.key_claims.items()} == {
        "k": ("a", "u")
    }
