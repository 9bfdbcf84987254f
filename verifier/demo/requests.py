"""The planned requests as HTTP: method, path, headers and body, the same for every run of a seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

from verifier.demo import market
from verifier.demo.database import source_to_delete
from verifier.demo.operations import FORM, JSON
from verifier.demo.plan import Planned

_FIRST_TIMESTAMP: Final = 1_772_461_800  # 2026-03-02T14:30:00Z


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request to send."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def http_request(seed: int, planned: Planned) -> HttpRequest:
    """The HTTP form of a planned request."""
    rng = Random(f"{seed}:request:{planned.subject}")
    method, path, body = _FORMS[planned.operation](rng, planned)
    headers = {"x-request-id": planned.request_id, "x-user-id": planned.user_id}
    if planned.operation in MUTATING:
        keyed = planned.number if planned.role == "second" else planned.subject
        headers["idempotency-key"] = f"{planned.user_id}:{planned.operation}:{_FIRST_TIMESTAMP + keyed}"
    if isinstance(body, dict):
        headers["content-type"] = JSON
        return HttpRequest(method=method, path=path, headers=headers, body=json.dumps(body).encode())
    if body:
        headers["content-type"] = FORM
    return HttpRequest(method=method, path=path, headers=headers, body=body)


_Form = tuple[str, str, dict[str, Any] | bytes]


@cache
def _symbols() -> tuple[str, ...]:
    return tuple(quote.symbol for quote in market.quotes())


def _market_get(rng: Random, _: Planned) -> _Form:
    return "GET", f"/api/v1/market-data/{rng.choice(_symbols())}", b""


def _market_report(rng: Random, _: Planned) -> _Form:
    return "GET", f"/api/v1/market-data/{rng.choice(_symbols())}/report", b""


def _market_sparkline(rng: Random, _: Planned) -> _Form:
    return "GET", f"/api/v1/market-data/{rng.choice(_symbols())}/sparkline", b""


def _market_convert(rng: Random, _: Planned) -> _Form:
    fields = {
        "symbol": rng.choice(_symbols()),
        "units": rng.randint(1, 400),
        "currency": rng.choice(("EUR", "CHF")),
    }
    return "POST", "/api/v1/market-data/convert", urlencode(fields).encode()


def _news_list(rng: Random, _: Planned) -> _Form:
    return "GET", f"/api/v1/news?topic={rng.choice(market.TOPICS)}&page={rng.randint(1, 5)}", b""


def _news_item(rng: Random, _: Planned) -> _Form:
    return "GET", f"/api/v1/news/news-{rng.randrange(market.NEWS):04d}", b""


def _news_item_absent(rng: Random, _: Planned) -> _Form:
    return "GET", f"/api/v1/news/news-{rng.randrange(8_000, 9_000)}", b""


def _source_get(rng: Random, _: Planned) -> _Form:
    return "GET", f"/api/v1/data-sources/ref-{rng.randrange(market.SOURCES):03d}", b""


def _search(rng: Random, _: Planned) -> _Form:
    return "GET", f"/api/v1/search?q={rng.choice(_symbols())[0]}", b""


def _market_fetch(rng: Random, planned: Planned) -> _Form:
    symbols = rng.sample(_symbols(), rng.randint(2, 3))
    return "POST", "/api/v1/market-data/fetch", {"batch": f"batch-{planned.subject}", "symbols": symbols}


def _news_fetch(rng: Random, planned: Planned) -> _Form:
    body = {
        "batch": f"batch-{planned.subject}",
        "topic": rng.choice(market.TOPICS),
        "limit": rng.randint(1, 3),
    }
    return "POST", "/api/v1/news/fetch", body


def _source_connect(rng: Random, planned: Planned) -> _Form:
    source = f"src-{planned.subject}"
    body = {
        "source": source,
        "name": f"Börse feed {planned.subject}",
        "kind": rng.choice(("rest", "websocket")),
        "url": f"https://{source}.example/",
    }
    return "POST", "/api/v1/data-sources/connect", body


def _market_buffer(rng: Random, planned: Planned) -> _Form:
    ticks = [
        {
            "symbol": symbol,
            "price": rng.randint(20, 900) + 0.37 + planned.variant,
            "volume": rng.randint(1, 9_000),
        }
        for symbol in rng.sample(_symbols(), rng.randint(1, 2))
    ]
    return "PUT", "/api/v1/market-data/buffer", {"buffer_id": f"buffer-{planned.subject}", "ticks": ticks}


def _news_buffer(rng: Random, planned: Planned) -> _Form:
    headlines = [f"Nº {rng.randint(1, 999)}: Märkte öffnen" for _ in range(rng.randint(1, 3))]
    body = {
        "buffer_id": f"buffer-{planned.subject}",
        "topic": rng.choice(market.TOPICS),
        "headlines": headlines,
    }
    return "PUT", "/api/v1/news/buffer", body


def _source_delete(_: Random, planned: Planned) -> _Form:
    return "DELETE", f"/api/v1/data-sources/{source_to_delete(planned.subject)}", b""


_FORMS: Final[dict[str, Callable[[Random, Planned], _Form]]] = {
    "market_get": _market_get,
    "market_report": _market_report,
    "market_sparkline": _market_sparkline,
    "market_convert": _market_convert,
    "news_list": _news_list,
    "news_item": _news_item,
    "news_item_absent": _news_item_absent,
    "source_get": _source_get,
    "search": _search,
    "market_fetch": _market_fetch,
    "news_fetch": _news_fetch,
    "source_connect": _source_connect,
    "market_buffer": _market_buffer,
    "news_buffer": _news_buffer,
    "source_delete": _source_delete,
}
MUTATING: Final = frozenset(
    ("market_fetch", "news_fetch", "source_connect", "market_buffer", "news_buffer", "source_delete")
)
