"""What the tables promise, asked of PostgreSQL and of the in-memory twin alike."""

from __future__ import annotations

from typing import Any

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
from verifier.adapters.postgres import PostgresStore
from verifier.core.errors import StaleApply
from verifier.core.journal import SourceCount
from verifier.core.outcome import SideFacts, WriteSet
from verifier.stream.ports import Status
from verifier.testing_tables import MemoryStore

pytestmark = pytest.mark.asyncio
Store = PostgresStore | MemoryStore


async def _verdicts(store: Store) -> dict[str, int]:
    return {name: n for name, n in (await store.summary())["requests"].items() if n}


async def _ids(store: Store, **filters: Any) -> list[str]:
    return [item["request_id"] for item in (await store.divergences(**filters))["items"]]


async def test_an_empty_store_says_so(store: Store) -> None:
    assert await store.summary() == {
        "requests": {"total": 0, "match": 0, "divergence": 0, "incomplete": 0, "incomparable": 0},
        "records": {},
        "rejected": 0,
        "duplicate": 0,
        "late": 0,
        "conflicts": 0,
        "pending": 0,
        "lag": 0,
        "verified_through": None,
    }
    assert await store.routes() == []
    assert await store.fields() == []
    assert await store.divergences() == {"items": [], "next_cursor": None}
    assert await store.conflicts() == {"items": [], "next_cursor": None}
    assert await store.request("r1") is None
    assert await store.position(0) is None
    assert await store.lookups(["r1"]) == {}


async def test_the_summary_adds_up_over_partitions(store: Store) -> None:
    counts = (SourceCount(0, 0, 9, 9, {"json": 2, "schema": 1}, 1, 1), SourceCount(1, 0, 4, 4))
    first = entry(0, outcome("a"), diverged("b"), counts=counts, pending=3, verified_through=50.0)
    second = entry(0, outcome("c"), partition=1, counts=counts, pending=2, verified_through=40.0)
    await store.apply(0, at_offsets(first), lag=7)
    await store.apply(1, at_offsets(second), lag=5)
    await store.status(
        2, Status(pending=0, lag=0, watermark=0.0, verified_through=0.0)
    )  # has seen nothing: no vote
    assert await store.summary() == {
        "requests": {"total": 3, "match": 2, "divergence": 1, "incomplete": 0, "incomparable": 0},
        "records": {0: 18, 1: 8},
        "rejected": 6,
        "duplicate": 2,
        "late": 2,
        "conflicts": 0,
        "pending": 5,
        "lag": 12,
        "verified_through": 40.0,
    }


async def test_a_batch_counts_once_however_often_it_is_applied(store: Store) -> None:
    batch = at_offsets(entry(0, outcome("a")), entry(1, outcome("b")))
    await store.apply(0, batch)
    with pytest.raises(StaleApply) as stale:
        await store.apply(0, batch)
    assert (stale.value.partition, stale.value.expected_n, stale.value.actual_n) == (0, -1, 1)
    assert await _verdicts(store) == {"total": 2, "match": 2}


async def test_a_gap_is_refused_and_changes_nothing(store: Store) -> None:
    await store.apply(0, at_offsets(entry(0, outcome("a"))))
    with pytest.raises(StaleApply):
        await store.apply(0, at_offsets(entry(2, outcome("c"))))
    with pytest.raises(StaleApply):  # a partition nobody has begun
        await store.apply(1, at_offsets(entry(3, outcome("d"), partition=1)))
    assert await _verdicts(store) == {"total": 1, "match": 1}
    assert await store.position(1) is None


async def test_entries_must_be_a_run_of_the_partition(store: Store) -> None:
    for wrong in (
        [],
        at_offsets(entry(0), entry(2)),
        at_offsets(entry(0), entry(1, partition=1)),
        at_offsets(entry(0, partition=1)),
    ):
        with pytest.raises(ValueError, match="entries|entry"):
            await store.apply(0, wrong)


async def test_the_position_knows_the_oldest_entry_still_needed(store: Store) -> None:
    await store.apply(0, at_offsets(*(entry(n) for n in range(4))))
    at = await store.position(0)
    assert at is not None
    assert (at.n, at.journal_offset, at.keep_n, at.keep_offset) == (3, 30, 0, 0)
    await store.apply(0, at_offsets(entry(4, keep_n=2)))
    at = await store.position(0)
    assert at is not None
    assert (at.n, at.journal_offset, at.keep_n, at.keep_offset) == (4, 40, 2, 20)
    await store.apply(0, at_offsets(entry(5, keep_n=1), entry(6, keep_n=6)))
    at = await store.position(0)
    assert at is not None
    assert (at.n, at.journal_offset, at.keep_n, at.keep_offset) == (6, 60, 6, 60)
    await store.apply(0, at_offsets(entry(7, keep_n=8)))  # nothing is needed any more
    at = await store.position(0)
    assert at is not None
    assert (at.n, at.keep_n, at.keep_offset) == (7, 8, 70)


async def test_status_moves_times_forward_only(store: Store) -> None:
    await store.status(0, Status(pending=4, lag=9, watermark=10.0, verified_through=10.0))
    assert await store.position(0) is None
    await store.status(0, Status(pending=1, lag=2, watermark=5.0, verified_through=5.0))
    summary = await store.summary()
    assert (summary["pending"], summary["lag"], summary["verified_through"]) == (1, 2, 10.0)
    await store.apply(0, at_offsets(entry(0, pending=6, verified_through=3.0)))
    summary = await store.summary()
    assert (summary["pending"], summary["lag"], summary["verified_through"]) == (6, 2, 10.0)


async def test_what_was_so_before_the_last_entry_says_nothing_any_more(store: Store) -> None:
    await store.apply(0, at_offsets(entry(0, pending=6), entry(1, pending=2)), lag=3)
    for n, pending in ((0, 2), (1, 5), (2, 4), (None, 1)):
        standing = Status(pending=pending, lag=pending, watermark=0.0, verified_through=0.0, n=n)
        await store.status(0, standing)
        summary = await store.summary()
        told = (2, 3) if n == 0 else (pending, pending)
        assert (summary["pending"], summary["lag"]) == told, f"told at entry {n}"


async def test_a_revision_takes_the_old_verdict_back(store: Store) -> None:
    before = diverged("a", "/x", "/y", sides=(SideFacts("main", 200, 0.1), SideFacts("shadow", 500, 0.3)))
    after = outcome("a", "match", ts=99.0, route="GET /other")
    await store.apply(0, at_offsets(entry(0, before)))
    assert await _ids(store) == ["a"]
    assert await store.apply(0, at_offsets(entry(1, resolved(after, rev=1, was=before)))) == ()
    assert await _verdicts(store) == {"total": 1, "match": 1}
    assert await _ids(store) == []
    assert [row["route"] for row in await store.routes()] == ["GET /other"]
    assert [row["field"] for row in await store.fields()] == []
    row = await store.request("a")
    assert row is not None
    assert (row["verdict"], row["rev"], row["journal_offsets"]) == ("match", 1, [0, 10])
    back = resolved(before, rev=2, was=after)
    await store.apply(0, at_offsets(entry(2, back)))
    assert await _ids(store, field="/y") == ["a"]
    (route,) = await store.routes()
    assert route["sides"]["shadow"]["status"] == {"5xx": 1}
    assert route["sides"]["main"]["latency_s"]["mean"] == pytest.approx(0.1)


async def test_a_request_revised_within_one_batch_counts_once(store: Store) -> None:
    one, two, three = outcome("a", "incomplete"), diverged("a", "/x"), outcome("a")
    batch = [
        entry(0, one),
        entry(1, resolved(two, rev=1, was=one)),
        entry(2, resolved(three, rev=2, was=two)),
    ]
    await store.apply(0, at_offsets(*batch))
    assert await _verdicts(store) == {"total": 1, "match": 1}
    assert await _ids(store) == []
    found = await store.lookups(["a", "b"])
    assert [(i, at.partition, list(at.journal_offsets)) for i, at in found.items()] == [("a", 0, [0, 10, 20])]


async def test_a_request_that_comes_back_as_new_is_named_and_counts_once(store: Store) -> None:
    await store.apply(0, at_offsets(entry(0, diverged("a", "/x"), outcome("b"))))
    assert await store.apply(0, at_offsets(entry(1, outcome("a"), outcome("c")))) == ("a",)
    assert await _verdicts(store) == {"total": 3, "match": 3}
    assert await store.fields() == []
    assert await _ids(store) == []
    row = await store.request("a")
    assert row is not None
    assert row["journal_offsets"] == [0, 10]


async def test_a_request_that_comes_back_on_another_partition_counts_once(store: Store) -> None:
    await store.apply(0, at_offsets(entry(0, diverged("a", "/x"))))
    assert await store.apply(1, at_offsets(entry(0, outcome("a"), partition=1))) == ("a",)
    assert await _verdicts(store) == {"total": 1, "match": 1}
    assert await store.fields() == []


async def test_what_is_stored_is_taken_back_even_when_the_entry_says_otherwise(store: Store) -> None:
    await store.apply(0, at_offsets(entry(0, outcome("a", "incomplete"))))
    wrong = resolved(outcome("a"), rev=1, was=diverged("a", "/x"))
    await store.apply(0, at_offsets(entry(1, wrong)))
    assert await _verdicts(store) == {"total": 1, "match": 1}
    assert await store.fields() == []


async def test_a_revision_after_retention_takes_back_what_the_entry_says(store: Store) -> None:
    before = diverged("a", "/x")
    await store.apply(0, at_offsets(entry(0, before)))
    assert await store.purge(1.0, now_s=10 * 86_400.0) > 0
    assert await store.request("a") is None
    assert await _verdicts(store) == {"total": 1, "divergence": 1}
    await store.apply(0, at_offsets(entry(1, resolved(outcome("a"), rev=1, was=before))))
    assert await _verdicts(store) == {"total": 1, "match": 1}


async def test_routes_give_rates_statuses_and_latencies(store: Store) -> None:
    results = [outcome(f"m{i}") for i in range(8)]
    results += [
        diverged(f"d{i}", sides=(SideFacts("main", 200, 0.01), SideFacts("shadow", 503, None)))
        for i in range(2)
    ]
    results += [
        outcome("i", "incomplete", sides=(SideFacts("main", None, 0.5),), missing=("shadow.responses",))
    ]
    await store.apply(0, at_offsets(entry(0, *results)))
    (row,) = await store.routes()
    assert row["route"] == ROUTE
    assert [row[v] for v in ("total", "match", "divergence", "incomplete", "compared")] == [11, 8, 2, 1, 10]
    assert row["divergence_rate"] == 0.2
    low, high = row["divergence_rate_interval"]
    assert (low, high) == (
        pytest.approx(0.0567, abs=1e-4),
        pytest.approx(0.5098, abs=1e-4),
    )  # Wilson, 2 of 10
    assert row["sides"]["main"]["status"] == {"2xx": 10, "none": 1}
    assert row["sides"]["shadow"]["status"] == {"2xx": 8, "5xx": 2}
    assert row["sides"]["shadow"]["error_rate"] == 0.2
    assert row["sides"]["shadow"]["latency_s"]["count"] == 8
    assert row["sides"]["main"]["latency_s"]["p50"] == pytest.approx(0.010, rel=0.2)
    assert row["sides"]["main"]["latency_s"]["p99"] == pytest.approx(0.5, rel=0.3)


async def test_fields_give_counts_shares_and_newest_exemplars(store: Store) -> None:
    found = [diverged(f"d{i}", "/x", "/x", "/y", ts=100.0 + i) for i in range(7)]
    masked = [outcome(f"m{i}", ts=50.0, ignored=(difference("/y"), difference("/z"))) for i in range(3)]
    await store.apply(0, at_offsets(entry(0, *found, *masked)))
    rows = {row["field"]: row for row in await store.fields()}
    assert list(rows) == ["/y", "/x", "/z"]  # most frequent first, then most often ignored
    assert (rows["/x"]["count"], rows["/x"]["ignored"], rows["/x"]["share"]) == (7, 0, 0.7)
    assert (rows["/x"]["first_seen"], rows["/x"]["last_seen"]) == (100.0, 106.0)
    assert rows["/x"]["exemplars"] == ["d6", "d5", "d4", "d3", "d2"]
    assert [rows[field]["noise"] for field in ("/x", "/y", "/z")] == ["none", "partly", "ignored"]
    assert rows["/z"]["exemplars"] == []
    assert await store.fields("GET /none") == []


async def test_divergences_page_newest_first_without_loss_or_repeat(store: Store) -> None:
    # several with one time: the cursor must tell them apart
    await store.apply(0, at_offsets(entry(0, *(diverged(f"r{i:02}", ts=float(i // 4)) for i in range(23)))))
    seen: list[str] = []
    cursor = None
    while True:
        page = await store.divergences(limit=5, cursor=cursor)
        seen += [item["request_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"r{i:02}" for i in reversed(range(23))]


async def test_divergences_are_found_by_route_kind_field_and_time(store: Store) -> None:
    await store.apply(
        0,
        at_offsets(
            entry(
                0,
                diverged("a", "/x", ts=1.0),
                diverged("b", "/y", ts=2.0, route="POST /b"),
                outcome(
                    "c", "divergence", ts=3.0, differences=(difference("", kind="status"), difference("/x"))
                ),
            )
        ),
    )
    assert await _ids(store) == ["c", "b", "a"]
    assert await _ids(store, route="POST /b") == ["b"]
    assert await _ids(store, kind="status") == ["c"]
    assert await _ids(store, field="/x") == ["c", "a"]
    assert await _ids(store, kind="status", field="/x") == []  # one difference must have both
    assert await _ids(store, kind="status", field="") == ["c"]
    assert await _ids(store, since=2.0) == ["c", "b"]
    assert await _ids(store, until=2.0) == ["a"]


async def test_wrong_pages_are_refused(store: Store) -> None:
    for wrong in ("", "x", "AAAA", "é", "bm90IGpzb24", "W10", "WzEuMCwyXQ", "a" * 5000):
        with pytest.raises(ValueError, match="cursor"):
            await store.divergences(cursor=wrong)
        with pytest.raises(ValueError, match="cursor"):
            await store.conflicts(cursor=wrong)
    for limit in (0, -1, 1001):
        with pytest.raises(ValueError, match="limit"):
            await store.divergences(limit=limit)


async def test_conflicts_are_revised_filtered_and_retracted(store: Store) -> None:
    found = (
        conflict("c1", ts=1.0),
        conflict("c2", ts=2.0, kind="duplicate"),
        conflict("c3", ts=3.0, entity="users"),
    )
    await store.apply(0, at_offsets(entry(0, outcome("l-c1"), conflicts=found)))
    page = await store.conflicts(limit=2)
    assert [item["id"] for item in page["items"]] == ["c3", "c2"]
    rest = await store.conflicts(limit=2, cursor=page["next_cursor"])
    assert [item["id"] for item in rest["items"]] == ["c1"]
    item = rest["items"][0]
    assert item.keys() == {"id", "scope", "key", "entity", "kind", "winner", "loser", "strategy", "ts"}
    assert item["winner"].keys() >= {"side", "request_id", "ts", "data"}
    assert [i["id"] for i in (await store.conflicts(entity="users"))["items"]] == ["c3"]
    assert [i["id"] for i in (await store.conflicts(kind="duplicate"))["items"]] == ["c2"]
    row = await store.request("l-c1")
    assert row is not None
    assert [i["id"] for i in row["conflicts"]] == ["c1"]
    revised = conflict("c1", ts=1.0, kind="duplicate", version=2)
    await store.apply(0, at_offsets(entry(1, conflicts=(revised,), retracted=("c3", "unknown"))))
    assert [i["id"] for i in (await store.conflicts(kind="duplicate"))["items"]] == ["c2", "c1"]
    assert (await store.summary())["conflicts"] == 2


async def test_the_newest_finding_on_a_conflict_stays_whatever_order_partitions_write(store: Store) -> None:
    newer, older = conflict("c", kind="duplicate", version=5), conflict("c", kind="conflict", version=4)
    await store.apply(0, at_offsets(entry(0, conflicts=(newer,))))
    await store.apply(1, at_offsets(entry(0, partition=1, conflicts=(older,))))
    assert [i["kind"] for i in (await store.conflicts())["items"]] == ["duplicate"]
    await store.apply(0, at_offsets(entry(1, retracted=("c", "d"), retracted_versions=(7, 7))))
    late = (conflict("c", version=6), conflict("d", version=6))
    await store.apply(1, at_offsets(entry(1, partition=1, conflicts=late)))
    assert (await store.conflicts())["items"] == []
    await store.apply(1, at_offsets(entry(2, partition=1, conflicts=(conflict("d", version=8),))))
    assert [i["id"] for i in (await store.conflicts())["items"]] == ["d"]


async def test_purging_removes_rows_and_never_counts(store: Store) -> None:
    day = 86_400.0
    old, new = diverged("old", ts=day), diverged("new", ts=9 * day)
    found = (conflict("c-old", ts=day), conflict("c-new", ts=9 * day))
    await store.apply(0, at_offsets(entry(0, old, new, conflicts=found)))
    before = await store.summary(), await store.routes()
    await store.purge(7.0, batch=1, now_s=10 * day)
    assert (await store.summary(), await store.routes()) == before
    assert await _ids(store) == ["new"]
    assert [item["id"] for item in (await store.conflicts())["items"]] == ["c-new"]
    assert await store.purge(7.0, now_s=10 * day) == 0


async def test_a_request_has_its_writes(store: Store) -> None:
    row = {"entity": "news", "key": "1", "op": "insert", "data": {"t": "x"}, "status": "applied"}
    writes = WriteSet(
        operation="POST /n", user_id="u", main=[row], shadow=None, main_status=201, error="boom"
    )
    await store.apply(0, at_offsets(entry(0, outcome("a", writes=writes))))
    view = await store.request("a")
    assert view is not None
    assert view["writes"] == {
        "operation_type": "POST /n",
        "user_id": "u",
        "shadow_request_id": None,
        "main_request_id": "a",
        "shadow_data": None,
        "main_data": [row],
        "shadow_status": None,
        "main_status": 201,
        "error": "boom",
    }


async def test_no_text_from_the_traffic_stops_a_batch(store: Store) -> None:
    nasty = "\0\ud800" + "é" * 2000
    hostile = outcome(
        "a",
        "divergence",
        route="GET /" + nasty,
        user_id=nasty,
        reasons=(nasty, "plain"),
        differences=(difference(nasty, main={nasty: [nasty, float("inf"), 10**2000]}, shadow="\\u0000"),),
        writes=WriteSet(operation=nasty, user_id=nasty, main=[{nasty: nasty}], error=nasty),
    )
    claims = (claim("a", 1.0, key="main:" + nasty, data={nasty: nasty}, operation=nasty),)
    found = conflict("c", key=nasty, entity=nasty)
    await store.apply(0, at_offsets(entry(0, hostile, claims=claims, conflicts=(found,))))
    (row,) = await store.routes()
    assert await _ids(store, route=row["route"]) == ["a"]
    assert await _ids(store, route="GET /" + nasty) == ["a"]
    assert await _ids(store, field=nasty) == ["a"]
    await store.apply(0, at_offsets(entry(1, resolved(outcome("a"), rev=1, was=hostile))))
    assert await _verdicts(store) == {"total": 1, "match": 1}
