"""What the REST API answers, call by call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.web.web_world import (
    HOSTILE,
    ROUTE,
    T0,
    Failing,
    World,
    cursor_of,
    populated,
    price_difference,
    response,
)
from verifier.core.errors import DependencyDown
from verifier.core.outcome import Outcome
from verifier.web.ports import Readiness

LISTS = ("/v1/routes", "/v1/fields", "/v1/divergences", "/v1/requests", "/v1/conflicts")
TABLES = ("/v1/summary", *LISTS, "/v1/requests/req-1")


async def get(world: World, path: str, status: int = 200, /, **more: str) -> Any:
    async with world.client() as client:
        answer = await client.get(path, params=more or None)
    assert answer.status_code == status, answer.text
    kind = "application/json" if status < 400 else "application/problem+json"
    assert answer.headers["content-type"] == kind
    return answer.json()


async def test_the_summary_counts_every_verdict_and_names_the_topics() -> None:
    summary = await get(await populated(), "/v1/summary")
    assert summary == {
        "requests": {"total": 4, "match": 1, "divergence": 1, "incomplete": 1, "incomparable": 1},
        "records": {
            "edge.requests": 1,
            "main.responses": 1,
            "shadow.responses": 1,
            "main.writes": 0,
            "shadow.writes": 0,
        },
        "rejected": 0,
        "duplicate": 0,
        "late": 0,
        "conflicts": 1,
        "pending": 3,
        "lag": 7,
        "verified_through": T0 + 3,
    }


async def test_an_empty_cluster_has_a_summary_and_empty_lists() -> None:
    summary = await get(World(), "/v1/summary")
    assert summary["requests"]["total"] == 0
    assert summary["verified_through"] is None
    for path in LISTS:
        assert await get(World(), path) == {"items": [], "next_cursor": None}


async def test_routes_carry_their_rate_its_interval_and_both_latencies() -> None:
    page = await get(await populated(), "/v1/routes")
    assert [row["route"] for row in page["items"]] == ["GET /b", ROUTE]
    row = page["items"][1]
    assert (row["compared"], row["divergence_rate"]) == (2, 0.5)
    low, high = row["divergence_rate_interval"]
    assert 0 < low < 0.5 < high < 1
    assert row["sides"]["main"]["latency_s"]["count"] == 2


async def test_fields_come_most_frequent_first_and_by_route() -> None:
    world = await populated()
    assert {row["field"] for row in (await get(world, "/v1/fields"))["items"]} == {"/quotes/*/price", "date"}
    assert (await get(world, "/v1/fields"))["items"][0]["exemplars"] == ["req-1"]
    assert (await get(world, "/v1/fields", route="GET /b"))["items"] == []


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"route": ROUTE}, 1),
        ({"route": "GET /b"}, 0),
        ({"kind": "body"}, 1),
        ({"kind": "status"}, 0),
        ({"field": "/quotes/*/price"}, 1),
        ({"field": '""'}, 0),
        ({"since": str(T0)}, 1),
        ({"since": "2026-11-21T08:00:00Z", "until": "2026-11-22 23:00+02:00"}, 1),
        ({"until": str(T0)}, 0),
        ({"route": "", "kind": "", "cursor": "", "limit": ""}, 1),
    ],
)
async def test_divergences_are_filtered(filters: dict[str, str], found: int) -> None:
    page = await get(await populated(), "/v1/divergences", **filters)
    assert len(page["items"]) == found
    for item in page["items"]:
        assert item["differences"][0] == {
            "kind": "body",
            "path": "/quotes/0/price",
            "field": "/quotes/*/price",
            "change": "type",
            "main": 101.25,
            "shadow": "101.25",
        }


async def test_an_unescaped_plus_in_a_time_zone_is_understood() -> None:
    world = await populated()
    async with world.client() as client:
        answer = await client.get(
            "/v1/divergences?since=2026-11-22T10:00:00+14:00&until=2026-11-23T00:00:00+00:00"
        )
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == 1


@pytest.mark.parametrize(
    ("path", "query", "names"),
    [
        ("/v1/divergences", "limit=0", ["limit"]),
        ("/v1/divergences", "limit=1001", ["limit"]),
        ("/v1/divergences", "limit=ten&kind=boddy", ["limit", "kind"]),
        ("/v1/divergences", "limit=%C2%B2", ["limit"]),
        ("/v1/divergences", "since=yesterday", ["since"]),
        ("/v1/divergences", "since=nan", ["since"]),
        ("/v1/divergences", "since=-1", ["since"]),
        ("/v1/divergences", "since=9e99", ["since"]),
        ("/v1/divergences", "since=20&until=10", ["until"]),
        ("/v1/divergences", "cursor=garbage", ["cursor"]),
        ("/v1/divergences", "cursor=%E2%82%AC", ["cursor"]),
        ("/v1/divergences", "kind=body&kind=status", ["kind"]),
        ("/v1/divergences", "route=%00", ["route"]),
        ("/v1/divergences", "sort=ts&colour=red", ["sort", "colour"]),
        ("/v1/requests", "verdict=maybe", ["verdict"]),
        ("/v1/requests", "cursor=garbage", ["cursor"]),
        ("/v1/conflicts", "kind=body", ["kind"]),
        ("/v1/conflicts", "cursor=AAAA", ["cursor"]),
        ("/v1/routes", "cursor=garbage", ["cursor"]),
        ("/v1/routes", f"cursor={cursor_of(17)}", ["cursor"]),
        ("/v1/fields", f"cursor={cursor_of(['a', 1])}", ["cursor"]),
        ("/v1/summary", "verbose=1", ["verbose"]),
        ("/v1/requests/req-1", "x=1", ["x"]),
        ("/v1/requests/a%20b", "", ["request_id"]),
        ("/v1/rules", "limit=1", ["limit"]),
    ],
)
async def test_every_wrong_parameter_is_named(path: str, query: str, names: list[str]) -> None:
    problem = await get(await populated(), f"{path}?{query}", 400)
    assert [error["parameter"] for error in problem["errors"]] == names
    assert all(error["expected"] for error in problem["errors"])
    assert problem["status"] == 400
    assert problem["title"]
    assert problem["detail"]
    assert problem["type"].endswith(":invalid-parameter")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["req-4", "req-3", "req-2", "req-1"]),
        ({"verdict": "incomplete"}, ["req-3"]),
        ({"route": "GET /b"}, ["req-4", "req-3"]),
        ({"since": str(T0 + 1), "until": str(T0 + 3)}, ["req-3", "req-2"]),
    ],
)
async def test_requests_are_listed_by_verdict_with_the_reason(
    filters: dict[str, str], found: list[str]
) -> None:
    page = await get(await populated(), "/v1/requests", **filters)
    assert [item["request_id"] for item in page["items"]] == found
    why = {item["request_id"]: (item["missing"], item["reasons"]) for item in page["items"]}
    assert why.get("req-3", (["shadow.responses"], [])) == (["shadow.responses"], [])
    assert why.get("req-4", ([], ["shed"])) == ([], ["shed"])


async def test_a_request_shows_all_its_evidence() -> None:
    found = await get(await populated(), "/v1/requests/req-1")
    assert found["verdict"] == "divergence"
    assert found["differences"][0]["main"] == 101.25
    assert found["ignored"][0]["rule"] == "date"
    assert found["sides"][1] == {"side": "shadow", "status": 200, "latency_s": 0.009}
    assert [(event["topic"], event["offset"], event["kind"], event["side"]) for event in found["events"]] == [
        ("edge.requests", 0, "edge", "main"),
        ("main.responses", 1, "response", "main"),
        ("shadow.responses", 2, "response", "shadow"),
    ]
    assert found["events"][1]["record"]["body"] == {"quotes": [{"price": 101.25}]}
    assert found["conflicts"][0]["id"] == "c0ffee"
    assert [(one["rev"], one["verdict"], one["at"]) for one in found["history"]] == [
        (0, "divergence", T0 + 2)
    ]


async def test_a_revised_request_keeps_its_history_and_every_event_once() -> None:
    world = World()
    first = Outcome(
        request_id="r", ts=T0, route="GET /a", verdict="incomplete", missing=("shadow.responses",)
    )
    before = await world.add(first, [(1, response("r", "main", 1))])
    match = Outcome(request_id="r", ts=T0, route="GET /a", verdict="match")
    await world.add(match, [(2, response("r", "shadow", 1))], rev=1, was=first, events=before.events)
    found = await get(world, "/v1/requests/r")
    assert found["verdict"] == "match"
    assert found["rev"] == 1
    assert found["missing"] == []
    assert [(one["rev"], one["verdict"]) for one in found["history"]] == [(0, "incomplete"), (1, "match")]
    assert [event["offset"] for event in found["events"]] == [0, 1]


async def test_what_retention_took_is_said_and_the_rest_is_shown() -> None:
    world = await populated()
    del world.records["main.responses", 0, 1]
    found = await get(world, "/v1/requests/req-1")
    (gone,) = [event for event in found["events"] if event["record_note"] == "gone"]
    assert gone["topic"] == "main.responses"
    assert gone["record"] is None
    del world.journal[0, 0]
    found = await get(world, "/v1/requests/req-1")
    assert found["history"] == []
    assert found["history_gone"] == 1
    assert found["events"] == []
    assert found["differences"][0]["main"] == 101.25
    assert found["writes"]["main"][0]["key"] == "ACME"


async def test_secrets_are_hidden_wherever_they_lie() -> None:
    world = await populated()
    secret = Outcome(
        request_id="req-s",
        ts=T0,
        route="GET /s",
        verdict="divergence",
        differences=(price_difference("s3cret-a", "s3cret-b", path="/user/password"),),
    )
    headers = {"cookie": "sid=s3cret-c", "X-Session": "s3cret-d", "accept": "*/*"}
    body = "login=1&password=s3cret-e"
    await world.add(secret, [(1, response("req-s", "main", body, headers=headers))])
    async with world.client() as client:
        paths = ("/v1/requests/req-s", "/v1/requests/req-1", "/v1/divergences", "/v1/conflicts")
        texts = [(await client.get(path)).text for path in paths]
    for text in texts:
        for word in ("s3cret", "hunter2", "k-123", "t0psecret"):
            assert word not in text
    assert '"accept":"*/*"' in texts[0]


async def test_records_keep_their_numbers_to_the_last_digit() -> None:
    world = World()
    raw = b'{"side":"main","ts":1.5,"body":[0.10000000000000001,1E+400,123456789012345678901234567890,-0.0]}'
    await world.add(Outcome(request_id="r", ts=T0, route="GET /n", verdict="match"), [(1, raw)])
    async with world.client() as client:
        answer = await client.get("/v1/requests/r")
    assert '"body":[0.10000000000000001,1E+400,123456789012345678901234567890,-0.0]' in answer.text


@pytest.mark.parametrize(
    ("raw", "note"),
    [
        (b"not json", "unreadable"),
        (b'{"a":NaN}', "unreadable"),
        (b"\xff\xfe", "unreadable"),
        (b"[" * 100_000, "unreadable"),
        (b'{"a":1,"a":2}', "repeated_keys"),
        (b'{"ts":"soon","side":5}', None),
        (b'"\\ud800"', None),
        (b"17", None),
        (b'{"n":' + b"9" * 6000 + b"}", None),
    ],
)
async def test_no_record_can_break_the_answer(raw: bytes, note: str | None) -> None:
    world = World()
    await world.add(Outcome(request_id="r", ts=T0, route="GET /n", verdict="match"), [(1, raw)])
    found = await get(world, "/v1/requests/r")
    assert found["events"][0]["record_note"] == note


async def test_records_beyond_the_size_of_an_answer_are_left_out_and_said() -> None:
    world = World()
    records = [(1, response("r", "main", "x" * 600)), (2, response("r", "shadow", "y" * 600))]
    await world.add(Outcome(request_id="r", ts=T0, route="GET /n", verdict="match"), records)
    async with world.client(records_bytes_max=1000) as client:
        events = (await client.get("/v1/requests/r")).json()["events"]
    assert {event["side"]: event["record_note"] for event in events} == {"main": None, None: "too_large"}


async def test_an_unknown_request_is_a_problem() -> None:
    problem = await get(await populated(), "/v1/requests/nobody", 404)
    assert problem["type"].endswith(":unknown-request")
    assert problem["instance"] == "/v1/requests/nobody"


@pytest.mark.parametrize(
    "path", ["/v1/gate", "/v1/replays/7", "/v1/summary/", "/v1", "/dashboard/../api.py", "/x"]
)
async def test_what_is_not_there_is_a_plain_404(path: str) -> None:
    problem = await get(await populated(), path, 404)
    assert problem["type"] == "about:blank"
    assert problem["title"] == "Not Found"


async def test_a_wrong_method_says_which_are_right() -> None:
    async with (await populated()).client() as client:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            answer = await client.request(method, "/v1/rules")
            assert answer.status_code == 405
            assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
            assert answer.json()["status"] == 405
        assert (await client.head("/v1/summary")).status_code == 200


async def test_oversized_requests_are_refused_unread() -> None:
    async with (await populated()).client() as client:
        assert (await client.get("/v1/divergences?route=" + "a" * 9000)).status_code == 414
        assert (await client.get("/v1/requests/" + "a" * 3000)).status_code == 414
        answer = await client.request("GET", "/v1/summary", content=b"x" * 20_000)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", TABLES)
async def test_postgres_away_is_a_503_that_tells_when_to_try_again(path: str) -> None:
    world = await populated()
    broken = Failing(DependencyDown("postgres", "connection to 10.0.0.7 refused for user verifier"))
    async with world.client(store=broken) as client:
        answer = await client.get(path)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["dependency"] == "postgres"
    assert "10.0.0.7" not in answer.text


@pytest.mark.parametrize("error", [DependencyDown("kafka", "no broker"), ConnectionResetError()])
async def test_kafka_away_is_a_503(error: Exception) -> None:
    world = await populated()
    for port in ("journal", "records"):
        async with world.client(**{port: Failing(error)}) as client:
            answer = await client.get("/v1/requests/req-1")
        assert answer.status_code == 503
        assert answer.json()["dependency"] == "kafka"


async def test_a_read_without_end_is_cut_and_others_are_refused_when_too_many_wait() -> None:
    world = await populated()
    started = asyncio.Event()

    async def forever() -> Any:
        started.set()
        await asyncio.Event().wait()

    world.store.summary = forever  # type: ignore[method-assign]
    async with world.client(read_timeout_s=0.2, reads_max=1, reads_waiting_max=0) as client:
        slow = asyncio.create_task(client.get("/v1/summary"))
        await started.wait()
        refused = await client.get("/v1/routes")
        cut = await slow
        assert (await client.get("/v1/routes")).status_code == 200
    assert refused.status_code == cut.status_code == 503
    assert "did not answer within 0.2 s" in cut.json()["detail"]
    assert "waiting" in refused.json()["detail"]


async def test_a_defect_is_a_500_without_a_traceback() -> None:
    world = await populated()
    async with world.client(store=Failing(RuntimeError("secret detail"))) as client:
        answer = await client.get("/v1/summary")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret detail" not in answer.text
    assert "Traceback" not in answer.text


async def test_probes_tell_alive_and_ready_apart() -> None:
    world = await populated()
    assert await get(world, "/healthz") == {"status": "alive"}
    assert await get(world, "/readyz") == {"ready": True, "reasons": []}
    world.readiness = Readiness(ok=False, reasons=("no partition assigned",))
    assert await get(world, "/healthz") == {"status": "alive"}
    problem = await get(world, "/readyz", 503)
    assert problem["ready"] is False
    assert problem["reasons"] == ["no partition assigned"]


async def test_metrics_come_as_prometheus_text_or_openmetrics() -> None:
    async with (await populated()).client() as client:
        text = await client.get("/metrics")
        openmetrics = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert text.headers["content-type"].startswith("text/plain")
    assert "verifier_pending_requests" in text.text
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_rules_are_listed_as_they_are_in_force() -> None:
    rules = (await get(await populated(), "/v1/rules"))["items"]
    assert {"id", "kind", "field", "action"} <= set(rules[0])


async def test_values_of_users_stay_values() -> None:
    found = await get(await populated(), "/v1/requests/req-1")
    assert found["user_id"] == HOSTILE
    async with (await populated()).client() as client:
        answer = await client.get("/v1/requests/req-1")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
