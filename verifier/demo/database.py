"""The sample systems' PostgreSQL: seeding, reads, and writes that are recorded once they have committed.

Statements name tables and columns, which come from this package alone; values always travel as parameters.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import asyncpg

from verifier.capture import record_write
from verifier.demo import market

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

WriteOp = Literal["insert", "update", "upsert", "delete"]

KEY_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "data_sources": ("source_id",),
    "market_data_fetches": ("fetch_key",),
    "news_fetches": ("fetch_key",),
    "market_data_buffer": ("buffer_id", "symbol"),
    "news_buffer": ("buffer_id",),
}
_OWN_SOURCE: Final = "tmp-{}"
_DECOY_SOURCE: Final = "tmp-{}-old"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWrite:
    """One row to write. `row` has the key's columns and, but for a delete, those to set."""

    entity: str
    op: WriteOp
    row: Mapping[str, Any]

    @property
    def key(self) -> str | dict[str, Any]:
        """The primary key: a string, or an object where it has several columns."""
        names = KEY_COLUMNS[self.entity]
        return self.row[names[0]] if len(names) == 1 else {name: self.row[name] for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a write did: the row before and after, as the database has them."""

    write: RowWrite
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """What a request with an idempotency key was answered, kept for its retries."""

    status: int
    payload: Any = field(default=None)


def source_to_delete(number: int) -> str:
    """The id of the source that request `number`, and nobody else, may delete."""
    return _OWN_SOURCE.format(number)


def decoy_of(source_id: str) -> str:
    """A source that no request asks to delete, beside the one that it does."""
    return f"{source_id}-old"


async def prepare(dsn: str, *, sources_to_delete: int = 6_000) -> None:
    """Make the schema `market` anew (an older one is dropped) and seed it, the same on every side.

    `sources_to_delete`: how many requests (by number, from 0) find a source of their own to delete.
    """
    if not 0 <= sources_to_delete <= market.SOURCES_TO_DELETE_MAX:
        raise ValueError(f"sources_to_delete is {sources_to_delete}; at most {market.SOURCES_TO_DELETE_MAX}")
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(
                importlib.resources.files("verifier.demo").joinpath("market.sql").read_text("utf-8")
            )
            await _copy(connection, "quotes", [market.columns(quote) for quote in market.quotes()])
            await _copy(connection, "news", [market.columns(item) for item in market.news()])
            await _copy(connection, "data_sources", _seeded_sources(sources_to_delete))
    finally:
        await connection.close()


def _seeded_sources(to_delete: int) -> Iterable[dict[str, Any]]:
    fixed = {"connection_id": "00000000-0000-4000-8000-000000000000", "updated_at": market.OPENED_AT}
    for source in market.sources():
        yield market.columns(source) | fixed
    for number in range(to_delete):
        for pattern in (_OWN_SOURCE, _DECOY_SOURCE):
            yield {
                "source_id": pattern.format(number),
                "name": f"Trial feed {number}",
                "kind": "rest",
                "url": f"https://trial-{number}.example/",
                "status": "active",
                "enabled": True,
            } | fixed


async def _copy(connection: Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    names = list(rows[0])
    await connection.copy_records_to_table(
        table,
        schema_name="market",
        columns=names,
        records=[tuple(row[name] for name in names) for row in rows],
    )


class Store:
    """One side's database. At most `connections_max` connections; who asks for one more waits."""

    def __init__(self, dsn: str, *, connections_max: int = 6) -> None:
        self._dsn = dsn
        self._connections_max = connections_max
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect; idempotent. Raises what asyncpg raises when the database cannot be reached."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=1,
                max_size=self._connections_max,
                command_timeout=15,
                server_settings={"search_path": "market", "timezone": "UTC"},
                init=_json_as_values,
            )

    async def close(self) -> None:
        """Give up the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def quote(self, symbol: str) -> dict[str, Any] | None:
        """The instrument, or None."""
        return await self._row("SELECT to_jsonb(t) FROM quotes t WHERE symbol = $1", symbol)

    async def quotes(self, symbols: Sequence[str]) -> list[dict[str, Any]]:
        """The instruments that exist of those asked for, in the order asked for."""
        return await self._rows(
            "SELECT to_jsonb(t) FROM quotes t WHERE symbol = ANY($1) ORDER BY array_position($1, symbol)",
            list(symbols),
        )

    async def search(self, prefix: str, *, descending: bool) -> list[dict[str, Any]]:
        """The instruments whose symbol begins so; which order they have is nobody's promise."""
        order = "DESC" if descending else "ASC"
        return await self._rows(
            f"SELECT to_jsonb(t) FROM quotes t WHERE starts_with(symbol, $1) ORDER BY symbol {order}", prefix
        )

    async def news(self, topic: str, *, limit: int, offset: int = 0) -> list[dict[str, Any]]:
        """A topic's news, best first."""
        return await self._rows(
            "SELECT to_jsonb(t) FROM news t WHERE topic = $1 ORDER BY rank LIMIT $2 OFFSET $3",
            topic,
            limit,
            offset,
        )

    async def news_item(self, news_id: str) -> dict[str, Any] | None:
        """The item, or None."""
        return await self._row("SELECT to_jsonb(t) FROM news t WHERE news_id = $1", news_id)

    async def source(self, source_id: str) -> dict[str, Any] | None:
        """The data source, or None."""
        return await self._row("SELECT to_jsonb(t) FROM data_sources t WHERE source_id = $1", source_id)

    async def write(
        self,
        writes: Sequence[RowWrite],
        *,
        answer: StoredAnswer,
        request_id: str,
        idempotency_key: str | None,
    ) -> StoredAnswer | None:
        """Write the rows in one transaction, then record each of them.

        With an idempotency key that is known already, nothing is written and the answer of the first request is
        returned; a concurrent first request is waited for.
        """
        async with self._connections().acquire() as connection, connection.transaction():
            if idempotency_key is not None:
                stored = await self._claim(connection, idempotency_key, request_id, answer)
                if stored is not None:
                    return stored
            written = [await _apply(connection, write) for write in writes]
        for item in written:
            _record(item)
        return None

    async def _claim(
        self, connection: Connection, key: str, request_id: str, answer: StoredAnswer
    ) -> StoredAnswer | None:
        mine = await connection.fetchval(
            "INSERT INTO idempotency_keys (key, request_id, answer) VALUES ($1, $2, $3)"
            " ON CONFLICT DO NOTHING RETURNING true",
            key,
            request_id,
            {"status": answer.status, "payload": answer.payload},
        )
        if mine:
            return None
        stored = await connection.fetchval("SELECT answer FROM idempotency_keys WHERE key = $1", key)
        return StoredAnswer(status=stored["status"], payload=stored["payload"])

    async def _row(self, query: str, *arguments: object) -> dict[str, Any] | None:
        row: dict[str, Any] | None = await self._connections().fetchval(query, *arguments)
        return row

    async def _rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        return [record[0] for record in await self._connections().fetch(query, *arguments)]

    def _connections(self) -> asyncpg.Pool[asyncpg.Record]:
        if self._pool is None:
            raise RuntimeError("the sample system's database is not open: call Store.open() first")
        return self._pool


async def _json_as_values(connection: Connection) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


async def _apply(connection: Connection, write: RowWrite) -> Written:
    """Write one row. A row the database refuses is `failed`; the rest of the transaction stands."""
    try:
        async with connection.transaction():
            before = None if write.op == "insert" else await _locked(connection, write)
            if write.op == "delete":
                after = None
                await connection.execute(
                    f"DELETE FROM {write.entity} t WHERE {_by_key(write)}", dict(write.row)
                )
            else:
                after = await connection.fetchval(_statement(write), dict(write.row))
    except asyncpg.IntegrityConstraintViolationError:
        return Written(write=write, failed=True)
    return Written(write=write, before=before, after=after)


async def _locked(connection: Connection, write: RowWrite) -> dict[str, Any] | None:
    row: dict[str, Any] | None = await connection.fetchval(
        f"SELECT to_jsonb(t) FROM {write.entity} t WHERE {_by_key(write)} FOR UPDATE", dict(write.row)
    )
    return row


def _by_key(write: RowWrite) -> str:
    return " AND ".join(f"t.{name} = $1::jsonb->>'{name}'" for name in KEY_COLUMNS[write.entity])


def _statement(write: RowWrite) -> str:
    """The row travels as one JSON document; PostgreSQL gives each column its type."""
    names = ", ".join(write.row)
    source = f"jsonb_populate_record(NULL::{write.entity}, $1::jsonb)"
    settable = [name for name in write.row if name not in KEY_COLUMNS[write.entity]]
    if write.op == "update":
        assignments = ", ".join(f"{name} = n.{name}" for name in settable)
        return f"UPDATE {write.entity} t SET {assignments} FROM {source} n WHERE {_by_key(write)} RETURNING to_jsonb(t)"
    insert = f"INSERT INTO {write.entity} AS t ({names}) SELECT {names} FROM {source}"
    if write.op == "upsert":
        assignments = ", ".join(f"{name} = EXCLUDED.{name}" for name in settable)
        insert += f" ON CONFLICT ({', '.join(KEY_COLUMNS[write.entity])}) DO UPDATE SET {assignments}"
    return f"{insert} RETURNING to_jsonb(t)"


def _record(written: Written) -> None:
    write = written.write
    record_write(
        write.entity,
        write.key,
        write.op,
        data=dict(write.row) if written.failed else written.after,
        before=written.before,
        status="failed" if written.failed else "applied",
    )
