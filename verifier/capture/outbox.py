"""The transactional outbox: writes announced in the transaction that makes them, and the relay to Kafka.

`record_write` tells of a write after its commit; a process that dies in between leaves the write untold. With
the outbox the row and its announcement commit together:

    async with connection.transaction():
        await connection.execute("UPDATE news_items SET ...", ...)
        await outbox_write(connection, "news_items", item_id, "update", data=row)

and an `OutboxRelay`, in the service or beside it, publishes what has committed. Needs asyncpg, and the table of
`OUTBOX_SQL`. Delivery is at least once: a relay that dies between Kafka's word and its own commit publishes
again, and the verifier counts the second copy as a duplicate.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from verifier.capture.delivery import Delivery, OutRecord
from verifier.capture.records import REQUEST_ID, SIDES, Op, json_text, topic_family
from verifier.capture.writes import WRITE_BYTES_MAX, current_recorder

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
    Row = asyncpg.Record

_log = logging.getLogger("verifier.capture")

OUTBOX_SQL: Final = files("verifier.capture").joinpath("outbox.sql").read_text(encoding="utf-8")

_INSERT: Final = """
INSERT INTO verifier_outbox
       (request_id, side, entity, key, op, seq, data, before, operation, user_id, idempotency_key)
VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, $7::text::jsonb, $8::text::jsonb, $9, $10, $11)
"""
# Casting jsonb to text keeps each number as PostgreSQL holds it: no float in between.
_TAKE: Final = """
SELECT id, request_id, side, entity, key::text AS key, op, seq, data::text AS data, before::text AS before,
       extract(epoch FROM created_at)::float8 AS ts, operation, user_id, idempotency_key
  FROM verifier_outbox
 WHERE refused IS NULL
 ORDER BY id
 LIMIT $1
   FOR UPDATE SKIP LOCKED
"""
_DELETE: Final = "DELETE FROM verifier_outbox WHERE id = ANY($1::bigint[])"
_REFUSE: Final = "UPDATE verifier_outbox SET refused = $2 WHERE id = ANY($1::bigint[])"
_BACKOFF_MAX_S: Final = 5.0
_LOG_EVERY_S: Final = 30.0


async def outbox_write(
    connection: Connection,
    entity: str,
    key: object,
    op: Op,
    data: object = None,
    before: object = None,
    operation: str | None = None,
) -> bool:
    """Announce a write of the current request inside the caller's transaction; the arguments as record_write's.

    False outside a captured request. A request that uses the outbox announces no count of writes, since a
    transaction may still roll back. Raises what the INSERT raises (the caller's transaction is then broken
    anyway), and TypeError or ValueError for data that has no JSON form.
    """
    recorder = current_recorder()
    if recorder is None:
        return False
    slot = recorder.reserve(operation)
    await connection.execute(
        _INSERT,
        slot.request_id,
        slot.side,
        entity,
        json_text(key),
        op,
        slot.seq,
        None if data is None else json_text(data),
        None if before is None else json_text(before),
        slot.operation,
        slot.user_id,
        slot.idempotency_key,
    )
    return True


@dataclass(slots=True)
class RelayStats:
    """Counts since the start."""

    published: int = 0
    refused: int = 0  # kept in the table with the reason
    retries: int = 0
    last_error: str | None = None


class OutboxRelay:
    """Moves committed rows of `verifier_outbox` to the writes topics, in the order of their ids.

    Several relays may run: each takes rows the others have not locked. A transaction holds at most `batch_max`
    rows for as long as one delivery takes. An empty table is looked at again after `poll_s`.
    """

    def __init__(
        self,
        pool: Pool,
        delivery: Delivery,
        *,
        topic_prefix: str = "",
        batch_max: int = 500,
        poll_s: float = 0.2,
        record_bytes_max: int = WRITE_BYTES_MAX,
    ) -> None:
        if batch_max < 1 or poll_s <= 0:
            raise ValueError(f"batch_max is {batch_max} and poll_s {poll_s}; both must be above 0")
        self._pool = pool
        self._delivery = delivery
        self._topic_prefix = topic_prefix
        self._batch_max = batch_max
        self._poll_s = poll_s
        self._record_bytes_max = record_bytes_max
        self._stats = RelayStats()
        self._stopping = asyncio.Event()
        self._logged_at = float("-inf")

    def stats(self) -> RelayStats:
        """The live counters (read only)."""
        return self._stats

    def stop(self) -> None:
        """End `run` after the batch it is at."""
        self._stopping.set()

    async def run(self) -> None:
        """Relay until `stop`, through outages of the database and of Kafka."""
        backoff_s = self._poll_s
        while not self._stopping.is_set():
            wait_s = 0.0
            try:
                moved = await self.relay_once()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
                self._complain(f"the outbox cannot be relayed: {exc!r}")
                wait_s, backoff_s = backoff_s, min(2 * backoff_s, _BACKOFF_MAX_S)
            else:
                backoff_s = self._poll_s
                wait_s = 0.0 if moved == self._batch_max else self._poll_s
            if wait_s:
                await self._pause(wait_s)

    async def relay_once(self) -> int:
        """Move one batch; returns how many rows left the queue.

        Raises ConnectionError when Kafka did not take them all (those it did not take stay), and asyncpg's
        errors.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(_TAKE, self._batch_max)
            if not rows:
                return 0
            reasons = [self._unfit(row) for row in rows]
            fit = [row for row, reason in zip(rows, reasons, strict=True) if reason is None]
            report = await self._delivery.deliver([self._record(row) for row in fit])
            kept = set(report.undelivered)
            refused = set(report.refused)
            done = [row["id"] for i, row in enumerate(fit) if i not in kept and i not in refused]
            await connection.execute(_DELETE, done)
            for row, reason in zip(rows, reasons, strict=True):
                if reason is not None:
                    await self._refuse(connection, row, reason)
            for index in report.refused:
                await self._refuse(connection, fit[index], report.error or "Kafka refused it")
        self._stats.published += len(done)
        if report.undelivered:
            self._stats.retries += 1
            raise ConnectionError(report.error or "Kafka did not confirm every record")
        return len(rows)

    async def _refuse(self, connection: Any, row: Row, reason: str) -> None:
        # One unfit row must neither block the rows behind it nor vanish.
        await connection.execute(_REFUSE, [row["id"]], reason)
        self._stats.refused += 1
        self._complain(f"row {row['id']} of the outbox was refused: {reason}")

    def _unfit(self, row: Row) -> str | None:
        if REQUEST_ID.fullmatch(row["request_id"]) is None:
            return "request_id is not 1 to 128 of [A-Za-z0-9._:-]"
        if row["side"] not in SIDES:
            return f"side is {row['side']!r}"
        size = len(row["key"]) + len(row["data"] or "") + len(row["before"] or "")
        if size > self._record_bytes_max:
            return f"{size} bytes, {self._record_bytes_max} are allowed"
        return None

    def _record(self, row: Row) -> OutRecord:
        return OutRecord(
            topic=f"{self._topic_prefix}{topic_family(row['side'])}.writes",
            key=row["request_id"].encode("utf-8"),
            value=_value(row),
        )

    def _complain(self, error: str) -> None:
        self._stats.last_error = error
        now = time.monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            _log.warning("%s", error)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _value(row: Row) -> bytes:
    fields: dict[str, object] = {
        "v": 1,
        "request_id": row["request_id"],
        "side": row["side"],
        "ts": round(row["ts"], 6),
        "entity": row["entity"],
        "op": row["op"],
        "seq": row["seq"],
        "status": "applied",
    }
    for name in ("operation", "user_id", "idempotency_key"):
        if row[name] is not None:
            fields[name] = row[name]
    embedded = [f',"{name}":{row[name]}' for name in ("key", "data", "before") if row[name] is not None]
    return (json_text(fields)[:-1] + "".join(embedded) + "}").encode("utf-8")
