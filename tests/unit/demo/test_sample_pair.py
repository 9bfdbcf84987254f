"""Both sample systems over real databases, judged by the verifier's own core: a healthy pair is equal in whatever
order requests meet, and each planted fault shows as what it is.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import msgspec
import pytest
import uvicorn

from verifier.capture import MemoryPublisher
from verifier.capture.asgi import App
from verifier.core.conflict import conflicts_of
from verifier.core.events import Seen, Source
from verifier.core.policy import Policy, rule_from_dict
from verifier.core.routes import Router
from verifier.core.verdict import Judge, JudgeConfig
from verifier.demo import legacy, successor
from verifier.demo.database import Store, prepare
from verifier.demo.faults import FAULTS, demo_rules
from verifier.demo.plan import BLOCK, Plan, Planned
from verifier.demo.requests import http_request
from verifier.demo.score import score
from verifier.demo.stack.ports import free_port
from verifier.demo.stack.postgres import Postgres
from verifier.demo.traffic import TrafficError, journeys, send_all, traffic
from verifier.stream.codec import Codec, CodecConfig

pytestmark = pytest.mark.integration

EVERY_KIND = BLOCK * len(FAULTS)
HEALTHY = 20 * BLOCK
READY_S = 10.0


@dataclass(slots=True)
class LogRecord:
    """A record as a consumer hands it over."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 4_000_000_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Both systems, and what they publish."""

    plan: Plan
    main: MemoryPublisher
    shadow: MemoryPublisher
    main_app: App
    shadow_app: App


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    postgres = Postgres(Path(tmp_path_factory.mktemp("postgres")))
    postgres.start()
    try:
        yield postgres.create_database("market_intel"), postgres.create_database("market_intel_shadow")
    finally:
        postgres.close()


@asynccontextmanager
async def pair_of(databases: tuple[str, str], *, faults: bool) -> AsyncIterator[Pair]:
    for dsn in databases:
        await prepare(dsn, sources_to_delete=EVERY_KIND)
    plan = Plan()
    main, shadow = MemoryPublisher(side="main"), MemoryPublisher(side="shadow")
    async with Store(databases[0]) as main_store, Store(databases[1]) as shadow_store:
        shadow_app = successor.build_app(shadow_store, shadow, plan=plan if faults else None)
        yield Pair(plan, main, shadow, legacy.build_app(main_store, main), shadow_app)


async def send(client: httpx.AsyncClient, plan: Plan, planned: Planned) -> int | None:
    request = http_request(plan.seed, planned)
    try:
        answer = await client.request(
            request.method, request.path, headers=request.headers, content=request.body
        )
    except successor.CrashedError:
        return None
    return answer.status_code


def client_of(app: App) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sample")


async def drive(app: App, plan: Plan, trips: list[list[Planned]], *, at_once: int) -> None:
    """Send journeys, several at once; the writes on one row that are to be inverted start together, in order."""
    free = asyncio.Semaphore(at_once)
    async with client_of(app) as client, asyncio.TaskGroup() as group:

        async def travel(trip: list[Planned]) -> None:
            async with free:
                if trip[0].fault == "order_inverted" and app.__class__ is successor.CrashGate:
                    await asyncio.gather(*(send(client, plan, each) for each in trip))
                    return
                for each in trip:
                    await send(client, plan, each)

        for trip in trips:
            group.create_task(travel(trip))


def judged(pair: Pair) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, tuple[float, float]]]:
    """Findings, conflicts and latencies, as the verifier's core has them."""
    seen: dict[str, list[Seen]] = defaultdict(list)
    for source, publisher, topic in (
        (Source.MAIN_RESPONSES, pair.main, "main.responses"),
        (Source.MAIN_WRITES, pair.main, "main.writes"),
        (Source.SHADOW_RESPONSES, pair.shadow, "shadow.responses"),
        (Source.SHADOW_WRITES, pair.shadow, "shadow.writes"),
    ):
        records = [LogRecord(at, out.value) for at, out in enumerate(publisher.records) if out.topic == topic]
        events, rejections = Codec(CodecConfig()).decode(source, 0, records)
        assert not rejections
        for event in events:
            seen[event.event.request_id].append(event)
    policy = Policy.default([rule_from_dict(rule) for rule in demo_rules()])
    judge = Judge(policy, Router(legacy.ROUTE_TEMPLATES, routes_max=100), JudgeConfig(expect_edge=False))
    findings, latencies = [], {}
    claimants = defaultdict(list)
    for request_id, events in seen.items():
        outcome, claims = judge.judge(request_id, events)
        findings.append(json.loads(msgspec.json.encode(outcome)))
        if len(outcome.sides) == 2:
            latencies[request_id] = (outcome.sides[0].latency_s or 0.0, outcome.sides[1].latency_s or 0.0)
        for claim in claims:
            scope = "idempotency" if claim.scope == "idempotency" else "main_shadow"
            claimants[scope, claim.key].append(claim.claimant)
    conflicts = [
        json.loads(msgspec.json.encode(conflict))
        for (scope, key), group in claimants.items()
        for conflict in conflicts_of(scope, key, group, ttl_s=3_600, conflict_timeout_s=30, version=0)
    ]
    return findings, conflicts, latencies


async def test_a_healthy_pair_is_equal_in_whatever_order_requests_meet(databases: tuple[str, str]) -> None:
    async with pair_of(databases, faults=False) as pair:
        trips = list(journeys(pair.plan.requests(HEALTHY)))
        await drive(pair.main_app, pair.plan, trips, at_once=8)
        await drive(pair.shadow_app, pair.plan, random.Random(5).sample(trips, len(trips)), at_once=8)
        findings, conflicts, _ = judged(pair)
    assert len(findings) == HEALTHY
    result = score([], findings, conflicts)
    # A known key with other data is answered from the first request on both sides, so it is no conflict either.
    assert result.false_alarms == ()
    assert len(pair.main.writes) == len(pair.shadow.writes) > 0


async def test_each_planted_fault_shows_as_what_it_is_and_nothing_else_does(
    databases: tuple[str, str],
) -> None:
    async with pair_of(databases, faults=True) as pair:
        trips = list(journeys(pair.plan.requests(EVERY_KIND)))
        await drive(pair.main_app, pair.plan, trips, at_once=8)
        await drive(pair.shadow_app, pair.plan, trips, at_once=8)
        findings, conflicts, latencies = judged(pair)
    result = score(pair.plan.truth(EVERY_KIND), findings, conflicts, latencies=latencies)
    assert result.missed == ()
    assert result.false_alarms == ()
    assert len(result.kinds) == len(FAULTS)


async def test_a_retry_is_answered_as_before_and_writes_nothing(databases: tuple[str, str]) -> None:
    async with pair_of(databases, faults=False) as pair:
        first = next(each for each in pair.plan.requests(EVERY_KIND) if each.role == "first")
        retry = pair.plan.request(first.number + 1)
        for app, publisher in ((pair.main_app, pair.main), (pair.shadow_app, pair.shadow)):
            async with client_of(app) as client:
                await send(client, pair.plan, first)
                await send(client, pair.plan, retry)
            before, after = publisher.responses
            assert after["body"] == before["body"]
            assert (before["writes"], after["writes"]) == (len(publisher.writes), 0)
            assert after["headers"]["idempotent-replayed"] == "true"


async def test_health_is_answered_and_not_captured(databases: tuple[str, str]) -> None:
    async with pair_of(databases, faults=True) as pair:
        for app, publisher in ((pair.main_app, pair.main), (pair.shadow_app, pair.shadow)):
            async with client_of(app) as client:
                answer = await client.get("/api/v1/health", headers={"x-request-id": "probe-1"})
            assert answer.json() == {"status": "ok"}
            assert publisher.records == []


@asynccontextmanager
async def served(app: App) -> AsyncIterator[str]:
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, lifespan="off", log_level="error", access_log=False)
    )
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(READY_S):
            while not server.started:
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


async def test_a_crash_resets_that_connection_alone_and_publishes_nothing(databases: tuple[str, str]) -> None:
    async with pair_of(databases, faults=True) as pair, served(pair.shadow_app) as url:
        requests = list(pair.plan.requests(EVERY_KIND))
        crash = next(each for each in requests if each.fault == "crash")
        healthy = next(each for each in requests if each.operation == "news_list" and each.fault is None)
        async with aiohttp.ClientSession(url) as session:
            for planned, crashes in ((crash, True), (healthy, False)):
                request = http_request(pair.plan.seed, planned)
                get = session.get(request.path, headers=request.headers)
                if crashes:
                    with pytest.raises(aiohttp.ClientConnectionError):
                        await get
                else:
                    async with get as answer:
                        assert answer.status == 200
        assert [each["request_id"] for each in pair.shadow.responses] == [healthy.request_id]


async def test_traffic_sends_the_plan_and_returns_what_users_got(databases: tuple[str, str]) -> None:
    async with pair_of(databases, faults=False) as pair, served(pair.main_app) as url:
        sent = await send_all(
            url, pair.plan, count=100, rate_per_s=1_000, in_flight_max=8, retry_after_s=0.01
        )
        assert [each.planned for each in sent] == list(pair.plan.requests(100))
        assert all(each.status in (200, 201, 404) for each in sent)
        assert {each["request_id"] for each in pair.main.responses} == {
            each.planned.request_id for each in sent
        }


async def test_traffic_says_who_was_not_served_and_can_be_left_early(databases: tuple[str, str]) -> None:
    async with pair_of(databases, faults=True) as pair, served(pair.shadow_app) as url:
        failing = next(
            each for each in pair.plan.requests(EVERY_KIND) if each.fault in ("crash", "exception")
        )
        with pytest.raises(TrafficError) as caught:
            await send_all(url, pair.plan, count=failing.number + 1, rate_per_s=1_000, retry_after_s=0.01)
        faults = {each.planned.fault for each in caught.value.failed}
        assert faults <= {"crash", "exception"}
        answers = traffic(url, pair.plan, count=100, rate_per_s=1_000, retry_after_s=0.01)
        assert (await anext(answers)).served
        await answers.aclose()
        left = [
            task for task in asyncio.all_tasks() if "_Sender" in repr(task) or "_send_at_rate" in repr(task)
        ]
        assert left == []
