"""The public contract, point by point, of one deployment with two workers that is given every kind of record once."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from tests.acceptance.cluster import SOURCES, VERDICTS, Cluster, Produced
from tests.acceptance.conftest import NewCluster
from tests.acceptance.records import edge, mirrored, mutating, response, served_by_canary, write

SCHEMAS = Path(__file__).parents[2] / "schemas"
GARBAGE: dict[str, tuple[str, bytes]] = {
    "no JSON": ("edge.requests", b"GET / HTTP/1.1"),
    "no text": ("edge.requests", b"\xff\xfe\x00"),
    "no object": ("main.responses", b"[1, 2]"),
    "no id": ("main.responses", b"{}"),
    "a bottomless list": ("shadow.responses", b"[" * 20_000),
    "a half record": ("shadow.responses", b'{"request_id": "half", "side": "shadow", "ts": 17'),
    "an impossible id": ("main.writes", json.dumps(write("a b", "main", 1.8e9).value).encode()),
    "a side of another topic": ("main.responses", json.dumps(response("x", "shadow", 1.8e9).value).encode()),
    "no operation": ("shadow.writes", json.dumps(write("x", "shadow", 1.8e9, op="replace").value).encode()),
    "numbers that are none": (
        "edge.requests",
        json.dumps(edge("x", "main", 1.8e9, bytes_sent="inf").value).encode(),
    ),
    "an empty value": ("main.writes", b""),
}


class World(NamedTuple):
    cluster: Cluster
    garbage: dict[str, tuple[int, int]]
    misplaced: tuple[int, int]
    produced: list[Produced]
    requests: int


@pytest.fixture(scope="module")
def world(new_cluster: NewCluster) -> World:
    cluster = new_cluster(partitions=2)
    cluster.start(2)
    ts = time.time()
    records = [*plain(ts), *writing(ts), *canary_and_shed(ts)]
    requests = len({r.key_bytes for r in records})
    cluster.produce(records)
    garbage = [Produced(topic, value, key="garbage", partition=0) for topic, value in GARBAGE.values()]
    places = cluster.produce(garbage)
    [right] = cluster.produce([edge("misplaced", "main", ts)])
    [wrong] = cluster.produce([edge("misplaced", "shadow", ts)._replace(partition=1 - right[0])])
    repeated = mirrored("plain-match", ts)
    cluster.produce(repeated)
    total = len(records) + len(garbage) + 2 + len(repeated)
    cluster.settle(requests + 1, records=total)
    return World(cluster, dict(zip(GARBAGE, places, strict=True)), wrong, records, requests + 1)


def plain(ts: float) -> list[Produced]:
    """Requests without writes: each verdict, each kind of difference."""
    deep = {"id": 7, "tags": [1, 2, 3], "who": {"name": "a", "age": 5}, "only_main": 1, "kind": 1}
    other = {"id": 7, "tags": [1, 2], "who": {"name": "b", "age": 5}, "only_shadow": 1, "kind": "1"}
    full = [
        *mirrored("plain-match", ts),
        *mirrored(
            "plain-order-of-members", ts, main={"body": {"a": 1, "b": 2}}, shadow={"body": {"b": 2, "a": 1}}
        ),
        *mirrored("status", ts, shadow={"status": 500}),
        *mirrored("header", ts, main={"headers": {"x-total": "3"}}, shadow={"headers": {"x-total": "4"}}),
        *mirrored("body", ts, main={"body": deep}, shadow={"body": other}),
        *mirrored("text", ts, main=text("one"), shadow=text("two")),
        *mirrored("base64", ts, main=binary(b"\x00\x01"), shadow=binary(b"\x00\x01")),
        *mirrored("cut", ts, main={"body": "abc", "body_truncated": True}, shadow={"body": "abcd"}),
    ]
    lonely = [r for r in mirrored("no-shadow-response", ts) if r.topic != "shadow.responses"]
    odd = [
        edge("odd-numbers", "main", ts, status="200", upstream_status="502, 200", upstream_time_s="0.010, 0.020",
             request_time_s="-", bytes_sent=""),
        edge("odd-numbers", "shadow", ts, status=200, upstream_status="-", upstream_time_s="-", user_id="-"),
        response("odd-numbers", "main", ts), response("odd-numbers", "shadow", ts),
    ]  # fmt: skip
    more = {"v": 1, "trace": {"deep": [1]}}
    unknown = [r._replace(value={**fields_of(r), **more}) for r in mirrored("unknown-fields", ts)]
    return [*full, *lonely, *odd, *unknown]


def fields_of(record: Produced) -> dict[str, Any]:
    assert isinstance(record.value, dict)
    return record.value


def text(body: str) -> dict[str, Any]:
    return {"body": body, "body_encoding": "text", "headers": {"content-type": "text/plain"}}


def binary(body: bytes) -> dict[str, Any]:
    return {"body": base64.b64encode(body).decode(), "body_encoding": "base64", "headers": {}}


def writing(ts: float) -> list[Produced]:
    """Requests with writes: announced or not, equal or not, and those that conflict with each other."""
    same = {"key": 1, "data": {"v": 1}}
    records = [
        *mutating("write-match", ts),
        *mutating("write-unannounced", ts, announced=False),
        *mutating("write-differs", ts, main={"data": {"title": "t", "n": 1}}, shadow={"data": {"title": "u", "n": 1}}),
        *[r for r in mutating("write-missing", ts, announced=False) if r.topic != "shadow.writes"],
        *[r for r in mutating("write-not-come", ts) if r.topic != "shadow.writes"],
        *mutating("idem-1", ts, main=same, shadow=same, idempotency_key="u1:fetch:1"),
        *mutating("idem-2", ts + 0.1, main=same, shadow=same, idempotency_key="u1:fetch:1"),
        *mutating("idem-3", ts + 0.2, main={"data": {"v": 2}}, shadow={"data": {"v": 2}}, idempotency_key="u1:fetch:1"),
        *mutating("order-1", ts + 1, main={"entity": "feeds", "key": "f", "data": {"n": 1}},
                  shadow={"entity": "feeds", "key": "f", "data": {"n": 1}, "ts": ts + 1.9}),
        *mutating("order-2", ts + 1.2, main={"entity": "feeds", "key": "f", "data": {"n": 2}},
                  shadow={"entity": "feeds", "key": "f", "data": {"n": 2}}),
    ]  # fmt: skip
    for request_id in ("debezium-bare", "debezium-wrapped"):
        records += [r for r in mutating(request_id, ts) if not r.topic.endswith("writes")]
        records += [
            debezium(request_id, side, ts, wrapped="wrapped" in request_id) for side in ("main", "shadow")
        ]
    return records


def debezium(request_id: str, side: str, ts: float, *, wrapped: bool) -> Produced:
    """A Debezium event whose request id is in the row (bare) or in a record header (wrapped)."""
    row = {"id": 41, "title": "t"} | ({} if wrapped else {"request_id": request_id})
    source = {"table": "articles", "ts_ms": int(ts * 1000), "lsn": 77 if side == "main" else 78}
    envelope: dict[str, Any] = {
        "op": "c",
        "before": None,
        "after": row,
        "source": source,
        "ts_ms": int(ts * 1000),
    }
    headers = (("x-request-id", request_id.encode()),) if wrapped else ()
    return Produced(
        f"{side}.writes", {"payload": envelope} if wrapped else envelope, key=request_id, headers=headers
    )


def canary_and_shed(ts: float) -> list[Produced]:
    row = {"entity": "sources", "key": {"tenant": 1, "id": 9}}
    on_main = mutating(
        "meets-canary", ts, main={**row, "data": {"v": "main"}}, shadow={**row, "data": {"v": "main"}}
    )
    return [
        *on_main,
        *served_by_canary("canary-second", ts + 2, **row, data={"v": "canary"}),
        *served_by_canary("canary-quiet", ts),
        edge("shed", "main", ts), response("shed", "main", ts), edge("shed", "shadow", ts, status=429, shed=True),
        edge("unsampled", "main", ts, sampled=False), response("unsampled", "main", ts),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("request_id", "verdict", "why"),
    [
        ("plain-match", "match", ""),
        ("plain-order-of-members", "match", ""),
        ("odd-numbers", "match", ""),
        ("unknown-fields", "match", ""),
        ("base64", "match", ""),
        ("status", "divergence", ""),
        ("header", "divergence", ""),
        ("body", "divergence", ""),
        ("text", "divergence", ""),
        ("no-shadow-response", "incomplete", "shadow.responses"),
        ("cut", "incomparable", "truncated"),
        ("shed", "incomparable", "shed"),
        ("unsampled", "incomparable", "not_sampled"),
        ("canary-quiet", "incomparable", "served_by_canary"),
        ("canary-second", "incomparable", "served_by_canary"),
        ("write-match", "match", ""),
        ("write-unannounced", "match", ""),
        ("write-differs", "divergence", ""),
        ("write-missing", "divergence", ""),
        ("write-not-come", "incomplete", "shadow.writes"),
        ("debezium-bare", "match", ""),
        ("debezium-wrapped", "match", ""),
        ("misplaced", "incomplete", "shadow.edge"),
    ],
)
def test_each_request_has_the_verdict_it_deserves(
    world: World, request_id: str, verdict: str, why: str
) -> None:
    found = world.cluster.request(request_id)
    assert found["verdict"] == verdict
    assert why in " ".join((*found["reasons"], *found["missing"]))
    for event in found["events"]:
        assert {"topic", "partition", "offset"} <= event.keys()
        assert event["topic"].removeprefix(world.cluster.prefix) in SOURCES


def differences(world: World, request_id: str) -> set[tuple[str, str, str]]:
    [item] = [i for i in world.cluster.paged("/v1/divergences", 1000) if i["request_id"] == request_id]
    return {(d["kind"], d["path"], d["change"]) for d in item["differences"]}


def test_a_difference_says_its_kind_place_and_change(world: World) -> None:
    assert differences(world, "status") == {("status", "", "value")}
    assert differences(world, "header") == {("header", "x-total", "value")}
    assert differences(world, "body") == {
        ("body", "/tags/2", "missing"),
        ("body", "/who/name", "value"),
        ("body", "/only_main", "missing"),
        ("body", "/only_shadow", "extra"),
        ("body", "/kind", "type"),
    }
    [write_field] = differences(world, "write-differs")
    assert (
        write_field[0] == "write"
        and write_field[1].startswith("/articles/")
        and write_field[1].endswith("/title")
    )
    assert {(kind, change) for kind, _, change in differences(world, "write-missing")} == {
        ("write", "missing")
    }


def test_differences_add_up_by_field_with_indexes_and_keys_as_stars(world: World) -> None:
    fields = world.cluster.workers[0].json("/v1/fields")["items"]
    found = {(f["kind"], f["field"], f["change"]): f for f in fields}
    assert ("write", "/articles/*/title", "value") in found
    name = found["body", "/who/name", "value"]
    assert name["count"] == 1 and name["exemplars"] == ["body"]
    only = world.cluster.workers[0].json("/v1/fields?route=GET%20/api/v1/news")["items"]
    assert {f["route"] for f in only} == {"GET /api/v1/news"}


def test_a_record_that_cannot_be_read_is_kept_with_its_place_reason_and_bytes(world: World) -> None:
    schema = json.loads((SCHEMAS / "rejected.schema.json").read_text())
    prefix = world.cluster.prefix
    letters = [read.value for read in world.cluster.consume("verifier.rejected")]
    by_place = {(x["topic"].removeprefix(prefix), x["partition"], x["offset"]): x for x in letters}
    for what, (topic, value) in GARBAGE.items():
        letter = by_place.pop((topic, *world.garbage[what]))
        jsonschema.validate(letter, schema)
        assert base64.b64decode(letter["value"]) == value, what
        assert letter["reason"] not in ("", "internal_error"), what
    misplaced = by_place.pop(("edge.requests", *world.misplaced))
    assert misplaced["reason"] == "wrong_partition"
    assert by_place == {}


def test_repeats_are_counted_and_nothing_else(world: World) -> None:
    summary = world.cluster.summary()
    assert summary["duplicate"] == 4
    assert summary["late"] == 0
    assert summary["rejected"] == len(GARBAGE) + 1
    assert len(world.cluster.request("plain-match")["history"]) == 1


def conflicts(world: World, key_part: str) -> list[dict[str, Any]]:
    return [c for c in world.cluster.paged("/v1/conflicts", 2) if key_part in (c["key"], c["entity"])]


def test_the_same_idempotency_key_is_a_duplicate_or_a_conflict_within_each_side(world: World) -> None:
    found = conflicts(world, "u1:fetch:1")
    assert {(c["scope"], c["kind"], c["loser"]["side"], c["loser"]["request_id"]) for c in found} == {
        ("idempotency", kind, side, loser)
        for side in ("main", "shadow")
        for kind, loser in (("duplicate", "idem-2"), ("conflict", "idem-3"))
    }
    assert {c["winner"]["request_id"] for c in found} == {"idem-1"}
    assert {c["strategy"] for c in found} == {"first_write"}


def test_main_and_canary_writing_other_data_to_one_row_conflict(world: World) -> None:
    [conflict] = [c for c in conflicts(world, "sources") if c["scope"] == "main_canary"]
    assert conflict["kind"] == "conflict" and conflict["entity"] == "sources"
    assert (conflict["winner"]["side"], conflict["winner"]["request_id"]) == ("main", "meets-canary")
    assert (conflict["loser"]["side"], conflict["loser"]["request_id"]) == ("canary", "canary-second")
    assert conflict["winner"]["data"] == {"v": "main"} and conflict["loser"]["data"] == {"v": "canary"}


def test_the_same_writes_in_another_order_are_an_order_conflict(world: World) -> None:
    [conflict] = conflicts(world, "feeds")
    assert (conflict["scope"], conflict["kind"]) == ("main_shadow", "order")
    assert {conflict["winner"]["request_id"], conflict["loser"]["request_id"]} == {"order-1", "order-2"}


def test_conflicts_on_the_topic_in_the_tables_and_over_rest_are_the_same(world: World) -> None:
    schema = json.loads((SCHEMAS / "conflict.schema.json").read_text())
    published = world.cluster.compacted("verifier.conflicts")
    for conflict in published.values():
        jsonschema.validate(conflict, schema)
    over_rest = {c["id"]: c for c in world.cluster.paged("/v1/conflicts", 3)}
    assert published.keys() == over_rest.keys()
    assert {c: published[c]["loser"]["request_id"] for c in published} == {
        c: over_rest[c]["loser"]["request_id"] for c in over_rest
    }
    assert world.cluster.summary()["conflicts"] == len(published)


def test_pages_follow_one_another_without_gap_or_repeat(world: World) -> None:
    whole = [item["request_id"] for item in world.cluster.paged("/v1/divergences", 1000)]
    assert [item["request_id"] for item in world.cluster.paged("/v1/divergences", 1)] == whole
    assert len(set(whole)) == len(whole) == world.cluster.summary()["requests"]["divergence"]
    refused = world.cluster.workers[0].get("/v1/divergences?cursor=nonsense")
    assert refused is not None and refused.status_code == 400
    assert refused.headers["content-type"].startswith("application/problem+json")


def test_every_worker_answers_for_the_whole_cluster(world: World) -> None:
    one, other = world.cluster.workers
    for path in ("/v1/summary", "/v1/routes", "/v1/divergences", "/v1/conflicts", "/v1/requests/body"):
        first, second = one.json(path), other.json(path)
        if path == "/v1/summary":
            first.pop("verified_through"), second.pop("verified_through")
        assert first == second, path


def test_shadow_writes_and_idempotency_keys_have_rows(world: World) -> None:
    rows = {row["request_id"]: row for row in world.cluster.sql("SELECT * FROM shadow_writes")}
    differs = rows["write-differs"]
    assert differs["operation_type"] == "POST /api/v1/news/fetch"
    assert (differs["main_status"], differs["shadow_status"]) == (200, 200)
    assert json.loads(differs["main_data"])[0]["data"]["title"] == "t"
    assert json.loads(differs["shadow_data"])[0]["data"]["title"] == "u"
    [key] = world.cluster.sql("SELECT * FROM idempotency_keys WHERE key LIKE '%u1:fetch:1'")
    assert key["request_id"] == "idem-1"
    assert (key["expires_at"] - key["created_at"]).total_seconds() == 3600


def test_summary_tables_journal_topics_and_metrics_say_the_same(world: World) -> None:
    cluster, summary = world.cluster, world.cluster.summary()
    verdicts = {verdict: summary["requests"][verdict] for verdict in VERDICTS}
    assert summary["requests"]["total"] == sum(verdicts.values()) == world.requests
    rows = cluster.sql("SELECT verdict, count(*) AS n FROM requests GROUP BY verdict")
    assert {row["verdict"]: row["n"] for row in rows} == verdicts
    assert Counter(folded(cluster).values()) == verdicts
    diverged = {item["request_id"] for item in cluster.paged("/v1/divergences", 1000)}
    assert cluster.compacted("verifier.divergences").keys() == diverged
    metrics = cluster.metrics()
    counted: Counter[str] = Counter()
    for sample, value in metrics.items():
        for verdict in VERDICTS:
            if sample.startswith("verifier_requests_total{") and f'verdict="{verdict}"' in sample:
                counted[verdict] += int(value)
    assert counted == verdicts
    for topic in SOURCES:
        [n] = [n for name, n in summary["records"].items() if name.removeprefix(cluster.prefix) == topic]
        assert metrics[f'verifier_records_total{{topic="{topic}"}}'] == n
        assert metrics[f'verifier_consumer_lag{{topic="{topic}"}}'] == 0
    assert (
        sum(v for k, v in metrics.items() if k.startswith("verifier_rejected_total{")) == summary["rejected"]
    )
    told = {k: v for k, v in metrics.items() if k.startswith("verifier_conflicts_total{")}
    assert sum(told.values()) >= summary["conflicts"], told  # a winner that comes later counts again
    assert metrics["verifier_pending_requests"] == 0


def folded(cluster: Cluster) -> dict[str, str]:
    """Verdicts by request id, folded from the journal by its own rule: the first entry with the next number counts."""
    verdicts: dict[str, str] = {}
    next_n: Counter[int] = Counter()
    for read in cluster.consume("verifier.journal"):
        entry = read.value
        if entry["n"] == next_n[read.partition]:
            next_n[read.partition] += 1
            for resolved in entry.get("resolved", ()):
                verdicts[resolved["outcome"]["request_id"]] = resolved["outcome"]["verdict"]
    return verdicts


def test_what_is_published_keeps_to_its_schema(world: World) -> None:
    schema = json.loads((SCHEMAS / "divergence.schema.json").read_text())
    published = world.cluster.compacted("verifier.divergences")
    assert published
    for item in published.values():
        jsonschema.validate(item, schema)


def test_logs_are_json_lines_without_secrets(world: World) -> None:
    password = world.cluster.dsn.split(":")[2].split("@")[0]
    for worker in world.cluster.workers:
        lines = worker.log()
        assert {"listening", "worker_started", "partition_recovered"} - {line["event"] for line in lines} <= {
            "partition_recovered"
        }
        assert password not in worker.log_path.read_text()
        ours = [line for line in lines if line["logger"].startswith("verifier")]
        assert [line for line in ours if line["level"] in ("error", "critical")] == []
