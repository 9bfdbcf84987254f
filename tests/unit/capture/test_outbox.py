"""The outbox on a real PostgreSQL: what commits is published, what does not is not."""

from __future__ import annotations

import asyncio
import decimal
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from verifier.capture import MemoryPublisher
from verifier.capture.delivery import DeliveryReport, OutRecord
from verifier.capture.outbox import OUTBOX_SQL, OutboxRelay, outbox_write
from verifier.capture.writes import WriteRecorder, recording
from verifier.demo.stack.postgres import Postgres


class Broker:
    """Keeps what it is given; can be away for some of it, or refuse it."""

    def __init__(self) -> None:
        self.log: list[OutRecord] = []
        self.away_after: int | None = None
        self.refuse: set[bytes] = set()

    async def deliver(self, records: Sequence[OutRecord]) -> DeliveryReport:
        undelivered, refused = [], []
        for index, record in enumerate(records):
            if self.away_after is not None and len(self.log) >= self.away_after:
                undelivered.append(index)
            elif record.key in self.refuse:
                refused.append(index)
            else:
                self.log.append(record)
        error = "away" if undelivered else ("too large" if refused else None)
        return DeliveryReport(undelivered=tuple(undelivered), refused=tuple(refused), error=error)

    async def close(self, timeout_s: float) -> None:
        return

    def values(self) -> list[dict[str, Any]]:
        return [json.loads(r.value, parse_float=decimal.Decimal) for r in self.log]


@pytest.fixture(scope="module")
def dsn(postgres: Postgres) -> str:
    return postgres.create_database("outbox")


@asynccontextmanager
async def table(dsn: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    async with asyncpg.create_pool(dsn, min_size=2, max_size=4) as pool:
        await pool.execute("DROP TABLE IF EXISTS verifier_outbox")
        await pool.execute(OUTBOX_SQL)
        await pool.execute(OUTBOX_SQL)  # repeatable
        yield pool


def recorder(request_id: str = "r-1") -> WriteRecorder:
    return WriteRecorder(
        MemoryPublisher(side="shadow"),
        request_id=request_id,
        side="shadow",
        method="PUT",
        path="/p?q",
        user_id="u",
    )


async def rows(pool: asyncpg.Pool[asyncpg.Record]) -> int:
    return int(await pool.fetchval("SELECT count(*) FROM verifier_outbox"))


async def put(pool: asyncpg.Pool[asyncpg.Record], count: int, request_id: str = "r-1") -> None:
    with recording(recorder(request_id)):
        async with pool.acquire() as connection, connection.transaction():
            for n in range(count):
                assert await outbox_write(connection, "t", n, "upsert", data={"n": n})


@pytest.mark.asyncio
async def test_a_committed_write_is_published_and_its_row_is_gone(dsn: str) -> None:
    async with table(dsn) as pool:
        broker = Broker()
        relay = OutboxRelay(pool, broker, topic_prefix="eu.")
        with recording(recorder()) as opened:
            async with pool.acquire() as connection, connection.transaction():
                await outbox_write(
                    connection,
                    "t",
                    {"a": 1},
                    "update",
                    data={"p": decimal.Decimal("0.10"), "x": 1.5},
                    before={"x": 1},
                )
                await outbox_write(connection, "t", "k", "delete", operation="job nightly")
        assert opened.announced is None
        assert await relay.relay_once() == 2
        assert await rows(pool) == 0
        assert [(r.topic, r.key) for r in broker.log] == [("eu.shadow.writes", b"r-1")] * 2
        first, second = broker.values()
        ts = first.pop("ts")
        assert 0 <= second["ts"] - ts < 60
        assert first == {
            "v": 1, "request_id": "r-1", "side": "shadow", "entity": "t", "key": {"a": 1}, "op": "update", "seq": 0,
            "status": "applied", "operation": "PUT /p", "user_id": "u", "before": {"x": 1},
            "data": {"p": "0.10", "x": decimal.Decimal("1.5")},
        }  # fmt: skip
        assert (second["key"], second["seq"], second["operation"]) == ("k", 1, "job nightly")


@pytest.mark.asyncio
async def test_a_write_that_was_rolled_back_is_never_told(dsn: str) -> None:
    async with table(dsn) as pool:
        broker = Broker()
        with recording(recorder()), pytest.raises(LookupError):  # noqa: PT012 - the rollback is what is tested
            async with pool.acquire() as connection, connection.transaction():
                await outbox_write(connection, "t", 1, "insert")
                raise LookupError
        assert await OutboxRelay(pool, broker).relay_once() == 0
        assert broker.log == []


@pytest.mark.asyncio
async def test_outside_a_request_nothing_is_inserted(dsn: str) -> None:
    async with table(dsn) as pool, pool.acquire() as connection:
        assert await outbox_write(connection, "t", 1, "insert") is False
        assert await rows(pool) == 0


@pytest.mark.asyncio
async def test_batches_are_bounded_and_in_order(dsn: str) -> None:
    async with table(dsn) as pool:
        await put(pool, 25)
        broker = Broker()
        relay = OutboxRelay(pool, broker, batch_max=10)
        assert [await relay.relay_once() for _ in range(4)] == [10, 10, 5, 0]
        assert [v["seq"] for v in broker.values()] == list(range(25))
        assert relay.stats().published == 25


@pytest.mark.asyncio
async def test_numbers_pass_as_postgresql_holds_them(dsn: str) -> None:
    async with table(dsn) as pool:
        await pool.execute(
            "INSERT INTO verifier_outbox (request_id, side, entity, key, op, seq, data) VALUES"
            """ ('r', 'main', 't', '12345678901234567890123', 'insert', 0, '{"p": 0.10, "q": 1e400}')"""
        )
        broker = Broker()
        await OutboxRelay(pool, broker).relay_once()
        assert b'"key":12345678901234567890123,"data":{"p": 0.10, "q": 1000' in broker.log[0].value
        assert broker.log[0].topic == "main.writes"


@pytest.mark.asyncio
async def test_what_kafka_did_not_take_stays_and_goes_later(dsn: str) -> None:
    async with table(dsn) as pool:
        await put(pool, 5)
        broker = Broker()
        broker.away_after = 2
        relay = OutboxRelay(pool, broker)
        with pytest.raises(ConnectionError, match="away"):
            await relay.relay_once()
        assert await rows(pool) == 3
        broker.away_after = None
        assert await relay.relay_once() == 3
        assert [v["seq"] for v in broker.values()] == list(range(5))


@pytest.mark.asyncio
async def test_an_unfit_row_stays_with_its_reason_and_blocks_nothing(dsn: str) -> None:
    async with table(dsn) as pool:
        await put(pool, 1, "refused-by-kafka")
        await pool.execute(
            "INSERT INTO verifier_outbox (request_id, side, entity, key, op, seq, data) VALUES"
            """ ('a b', 'main', 't', '1', 'insert', 0, NULL), ('r', 'new', 't', '1', 'insert', 0, NULL),"""
            """ ('r', 'main', 't', '1', 'insert', 0, to_jsonb(repeat('x', 5000)))"""
        )
        await put(pool, 1, "fit")
        broker = Broker()
        broker.refuse = {b"refused-by-kafka"}
        relay = OutboxRelay(pool, broker, record_bytes_max=2000)
        assert await relay.relay_once() == 5
        assert [r.key for r in broker.log] == [b"fit"]
        reasons = [r["refused"] for r in await pool.fetch("SELECT refused FROM verifier_outbox ORDER BY id")]
        assert reasons[0] == "too large"
        assert "request_id" in reasons[1]
        assert "side is 'new'" in reasons[2]
        assert "bytes" in reasons[3]
        assert relay.stats().refused == 4
        assert await relay.relay_once() == 0


@pytest.mark.asyncio
async def test_two_relays_share_the_work(dsn: str) -> None:
    async with table(dsn) as pool:
        for n in range(10):
            await put(pool, 20, f"r-{n}")
        broker = Broker()
        relays = [OutboxRelay(pool, broker, batch_max=15, poll_s=0.01) for _ in range(2)]
        tasks = [asyncio.create_task(relay.run()) for relay in relays]
        async with asyncio.timeout(20):
            while await rows(pool):
                await asyncio.sleep(0.01)
        for relay in relays:
            relay.stop()
        await asyncio.gather(*tasks)
        assert sorted((r.key, v["seq"]) for r, v in zip(broker.log, broker.values(), strict=True)) == sorted(
            (f"r-{n}".encode(), seq) for n in range(10) for seq in range(20)
        )


@pytest.mark.asyncio
async def test_the_running_relay_outlives_an_outage(dsn: str) -> None:
    async with table(dsn) as pool:
        await put(pool, 3)
        broker = Broker()
        broker.away_after = 0
        relay = OutboxRelay(pool, broker, poll_s=0.01)
        task = asyncio.create_task(relay.run())
        async with asyncio.timeout(20):
            while relay.stats().retries < 2:
                await asyncio.sleep(0.005)
            assert "away" in str(relay.stats().last_error)
            broker.away_after = None
            while relay.stats().published < 3:
                await asyncio.sleep(0.005)
        relay.stop()
        await task
