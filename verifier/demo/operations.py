"""What the sample API does: each operation turns a request into an answer and the rows to write.

Both sample systems offer these operations. They differ in framework, in how they write JSON, in the order of a
search, and in the ids and times they make up: what a faithful successor may do differently. Reads see seeded rows
alone, which no request changes, so an answer never depends on what else is under way.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from verifier.demo import market
from verifier.demo.database import RowWrite, Store, StoredAnswer

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
TEXT: Final = "text/plain; charset=utf-8"
BINARY: Final = "application/octet-stream"
REPLAYED: Final = "idempotent-replayed"

_EXCHANGE_RATES: Final = {"EUR": 1.0, "USD": 1.08, "CHF": 0.94, "GBP": 0.85}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, free of any framework. `params` are the path's."""

    operation: str
    request_id: str
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    user_id: str = ""
    idempotency_key: str | None = None

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises BadRequestError."""
        try:
            value = json.loads(self.body)
        except ValueError as exc:
            raise BadRequestError("the body is not JSON") from exc
        if not isinstance(value, dict):
            raise BadRequestError("the body is not a JSON object")
        return value


class BadRequestError(Exception):
    """The client's fault; answered with 400."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """An answer in the making. `payload` is a JSON value, a text, form fields, or bytes, as `media_type` says.

    `rendered`, when set, is the body as it stands, whatever the payload. `respects_retries` off: an idempotency key
    that is known does not stop the writes.
    """

    status: int = 200
    payload: Any = None
    media_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    writes: list[RowWrite] = field(default_factory=list)
    rendered: bytes | None = None
    respects_retries: bool = True


class Sample:
    """The operations over one side's database. `newest_first` is the order this side happens to search in."""

    def __init__(self, store: Store, *, newest_first: bool) -> None:
        self._store = store
        self._newest_first = newest_first
        self._operations: Final[dict[str, Callable[[Call], Awaitable[Draft]]]] = {
            "market_fetch": self._market_fetch,
            "news_fetch": self._news_fetch,
            "source_connect": self._source_connect,
            "market_buffer": self._market_buffer,
            "news_buffer": self._news_buffer,
            "source_delete": self._source_delete,
            "market_get": self._market_get,
            "market_report": self._market_report,
            "market_sparkline": self._market_sparkline,
            "market_convert": self._market_convert,
            "news_list": self._news_list,
            "news_item": self._news_item,
            "source_get": self._source_get,
            "search": self._search,
        }

    async def draft(self, call: Call) -> Draft:
        """The answer and the rows of this request; nothing is written yet."""
        try:
            draft = await self._operations[call.operation](call)
        except BadRequestError as exc:
            draft = Draft(status=400, payload={"error": "bad_request", "message": str(exc)})
        except (KeyError, ValueError, TypeError) as exc:
            message = f"a field is missing or of the wrong kind ({type(exc).__name__})"
            draft = Draft(status=400, payload={"error": "bad_request", "message": message})
        draft.headers |= {"cache-control": "private, max-age=5", "x-data-version": "2026-03"}
        return draft

    async def commit(self, call: Call, draft: Draft) -> None:
        """Write the draft's rows; a retry gets the first request's answer instead and writes nothing."""
        if not draft.writes:
            return
        key = None
        if call.idempotency_key is not None and draft.respects_retries:
            key = f"{call.user_id}:{call.operation}:{call.idempotency_key}"
        stored = await self._store.write(
            draft.writes,
            answer=StoredAnswer(status=draft.status, payload=draft.payload),
            request_id=call.request_id,
            idempotency_key=key,
        )
        if stored is not None:
            draft.status, draft.payload = stored.status, stored.payload
            draft.headers[REPLAYED] = "true"

    async def _market_fetch(self, call: Call) -> Draft:
        asked = call.json()
        batch, fetch_id = str(asked["batch"]), str(uuid.uuid4())
        found = await self._store.quotes([str(symbol) for symbol in asked["symbols"]])
        items = [_quote_view(quote) | {"fetch_id": fetch_id} for quote in found]
        writes = [
            RowWrite(
                entity="market_data_fetches",
                op="insert",
                row={
                    "fetch_key": f"{batch}:{quote['symbol']}",
                    "batch": batch,
                    "symbol": quote["symbol"],
                    "price": quote["price"],
                    "volume": quote["volume"],
                    "fetch_id": fetch_id,
                },
            )
            for quote in found
        ]
        payload = {"fetch_id": fetch_id, "generated_at": _now(), "count": len(items), "items": items}
        return Draft(payload=payload, writes=writes)

    async def _news_fetch(self, call: Call) -> Draft:
        asked = call.json()
        batch, fetch_id = str(asked["batch"]), str(uuid.uuid4())
        found = await self._store.news(str(asked["topic"]), limit=min(int(asked["limit"]), 10))
        writes = [
            RowWrite(
                entity="news_fetches",
                op="insert",
                row={
                    "fetch_key": f"{batch}:{item['news_id']}",
                    "batch": batch,
                    "news_id": item["news_id"],
                    "position": position,
                    "fetch_id": fetch_id,
                },
            )
            for position, item in enumerate(found)
        ]
        payload = {
            "fetch_id": fetch_id,
            "generated_at": _now(),
            "count": len(found),
            "items": [_news_view(item) for item in found],
        }
        return Draft(payload=payload, writes=writes)

    async def _source_connect(self, call: Call) -> Draft:
        asked = call.json()
        pending = {
            "source_id": str(asked["source"]),
            "name": str(asked["name"]),
            "kind": str(asked["kind"]),
            "url": str(asked["url"]),
            "status": "pending",
            "enabled": False,
            "connection_id": str(uuid.uuid4()),
        }
        active = {"source_id": pending["source_id"], "status": "active", "enabled": True}
        payload = {
            "source_id": pending["source_id"],
            "connection_id": pending["connection_id"],
            "status": "active",
            "generated_at": _now(),
        }
        return Draft(
            status=201,
            payload=payload,
            headers={"location": f"/api/v1/data-sources/{pending['source_id']}"},
            writes=[
                RowWrite(entity="data_sources", op="insert", row=pending),
                RowWrite(entity="data_sources", op="update", row=active),
            ],
        )

    async def _market_buffer(self, call: Call) -> Draft:
        asked = call.json()
        buffer_id, ticks = str(asked["buffer_id"]), list(asked["ticks"])
        writes = [
            RowWrite(
                entity="market_data_buffer",
                op="upsert",
                row={
                    "buffer_id": buffer_id,
                    "symbol": str(tick["symbol"]),
                    "price": float(tick["price"]),
                    "volume": int(tick["volume"]),
                },
            )
            for tick in ticks
        ]
        total = sum(row.row["volume"] for row in writes)
        return Draft(
            payload={"buffer_id": buffer_id, "accepted": len(ticks), "total_volume": total}, writes=writes
        )

    async def _news_buffer(self, call: Call) -> Draft:
        asked = call.json()
        headlines = [str(headline) for headline in asked["headlines"]]
        row = {
            "buffer_id": str(asked["buffer_id"]),
            "topic": str(asked["topic"]),
            "headlines": headlines,
            "item_count": len(headlines),
        }
        payload = {"buffer_id": row["buffer_id"], "accepted": len(headlines), "full": False}
        return Draft(payload=payload, writes=[RowWrite(entity="news_buffer", op="upsert", row=row)])

    async def _source_delete(self, call: Call) -> Draft:
        source_id = call.params["id"]
        if not source_id.startswith("tmp-") or await self._store.source(source_id) is None:
            return _not_found("data source", source_id)
        return Draft(
            payload={"source_id": source_id, "deleted": True},
            writes=[RowWrite(entity="data_sources", op="delete", row={"source_id": source_id})],
        )

    async def _market_get(self, call: Call) -> Draft:
        quote = await self._store.quote(call.params["symbol"])
        if quote is None:
            return _not_found("symbol", call.params["symbol"])
        return Draft(payload=_quote_view(quote) | {"generated_at": _now()})

    async def _market_report(self, call: Call) -> Draft:
        quote = await self._store.quote(call.params["symbol"])
        if quote is None:
            return _not_found("symbol", call.params["symbol"])
        items = await self._store.news(market.TOPICS[quote["volume"] % len(market.TOPICS)], limit=3)
        return Draft(payload=market.report(quote, items), media_type=TEXT)

    async def _market_sparkline(self, call: Call) -> Draft:
        quote = await self._store.quote(call.params["symbol"])
        if quote is None:
            return _not_found("symbol", call.params["symbol"])
        return Draft(payload=market.sparkline(quote), media_type=BINARY)

    async def _market_convert(self, call: Call) -> Draft:
        asked = dict(parse_qsl(call.body.decode("utf-8", "replace")))
        quote = await self._store.quote(asked["symbol"])
        if quote is None:
            return _not_found("symbol", asked["symbol"])
        total = quote["price"] * int(asked["units"])
        total *= _EXCHANGE_RATES[asked["currency"]] / _EXCHANGE_RATES[quote["currency"]]
        answer = {
            "symbol": quote["symbol"],
            "units": asked["units"],
            "currency": asked["currency"],
            "total": f"{total:.2f}",
        }
        return Draft(payload=answer, media_type=FORM)

    async def _news_list(self, call: Call) -> Draft:
        topic, page = call.query["topic"], int(call.query.get("page", "1"))
        offset = (page - 1) * market.NEWS_PER_PAGE
        found = await self._store.news(topic, limit=market.NEWS_PER_PAGE, offset=offset)
        payload = {
            "topic": topic,
            "count": len(found),
            "next_page": page + 1 if len(found) == market.NEWS_PER_PAGE else None,
            "items": [_news_view(item) for item in found],
            "generated_at": _now(),
        }
        return Draft(payload=payload)

    async def _news_item(self, call: Call) -> Draft:
        item = await self._store.news_item(call.params["id"])
        if item is None:
            return _not_found("news item", call.params["id"])
        return Draft(payload=_news_view(item) | {"summary": item["summary"], "generated_at": _now()})

    async def _source_get(self, call: Call) -> Draft:
        source = await self._store.source(call.params["id"])
        if source is None or source["source_id"].startswith("tmp-"):
            return _not_found("data source", call.params["id"])
        names = ("source_id", "name", "kind", "url", "status", "enabled")
        return Draft(payload={name: source[name] for name in names} | {"rate_limit": None})

    async def _search(self, call: Call) -> Draft:
        found = await self._store.search(call.query["q"], descending=self._newest_first)
        results = [{"symbol": q["symbol"], "name": q["name"], "price": q["price"]} for q in found]
        return Draft(payload={"query": call.query["q"], "count": len(results), "results": results})


def render(draft: Draft, dump_json: Callable[[Any], bytes]) -> bytes:
    """The body's bytes."""
    if draft.rendered is not None:
        return draft.rendered
    if draft.media_type == JSON:
        return dump_json(draft.payload)
    if draft.media_type == FORM:
        return urlencode(draft.payload).encode()
    if isinstance(draft.payload, bytes):
        return draft.payload
    return str(draft.payload).encode()


def server_headers(name: str) -> dict[str, str]:
    """What each side says about itself and the time: never the same on both."""
    date = dt.datetime.now(dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    return {"server": name, "date": date, "x-served-by": f"{name}-0"}


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quote_view(quote: Mapping[str, Any]) -> dict[str, Any]:
    names = ("symbol", "name", "currency", "price", "previous_close", "change_pct", "volume", "market_cap")
    view = {name: quote[name] for name in names}
    return view | {
        "active": quote["active"],
        "as_of": market.utc_text(quote["as_of"]),
        "trading_day": quote["trading_day"],
        "closed_at": quote["closed_at"],
    }


def _news_view(item: Mapping[str, Any]) -> dict[str, Any]:
    view = {name: item[name] for name in ("news_id", "topic", "headline", "sentiment")}
    return view | {"published_at": market.utc_text(item["published_at"])}


def _not_found(what: str, name: str) -> Draft:
    return Draft(status=404, payload={"error": "not_found", "message": f"there is no {what} {name}"})
