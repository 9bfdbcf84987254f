"""Response bodies that look real: JSON of 200 to 4,000 bytes, a pool of them for each route.

A body of the pool is a template with one place for what is of this very request, so that no two bodies of a workload
are the same and making one costs little.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

BODY_BYTES_MIN, BODY_BYTES_MAX = 200, 4_000
OF_THIS_REQUEST = "%REQUEST%"
POOL = 200

_WORDS = (
    "market", "rates", "bond", "yield", "growth", "quarter", "bank", "index", "supply", "demand", "export",
    "tariff", "energy", "metal", "grain", "output", "forecast", "earnings", "guidance", "margin",
    "dividend", "merger", "review", "policy", "central", "inflation", "labour", "survey", "orders",
    "inventory", "shipping", "freight", "currency", "reserve", "auction", "credit", "outlook",
)  # fmt: skip
_PLACES = (
    "Zürich",
    "São Paulo",
    "London",
    "Besançon",
    "Oslo",
    "Kraków",
    "Singapore",
    "Toronto",
    "Osaka",
    "Lagos",
)
_SOURCES = ("reuters", "ft", "bloomberg", "handelsblatt", "nikkei", "les-echos", "wsj", "economist")


def _sentence(rng: random.Random, words: int) -> str:
    text = " ".join(rng.choice(_WORDS) for _ in range(words))
    return text[0].upper() + text[1:] + "."


def _symbol(rng: random.Random) -> str:
    return "".join(rng.choice("ABCDEFGHIJKLMNOPRSTUVWXY") for _ in range(4))


def _quote(rng: random.Random) -> dict[str, Any]:
    price = rng.randrange(100, 200_000) / 100
    return {
        "symbol": _symbol(rng),
        "price": price,
        "change": rng.randrange(-500, 500) / 100,
        "volume": rng.randrange(1_000, 9_000_000),
        "currency": rng.choice(("USD", "EUR", "GBP", "JPY")),
        "open": price + 1.25,
        "venue": {"mic": rng.choice(("XNYS", "XLON", "XETR", "XTKS")), "delayed": rng.random() < 0.2},
    }


def _article(rng: random.Random, words: int) -> dict[str, Any]:
    return {
        "id": f"n-{rng.randrange(10**6):06d}",
        "headline": f"{rng.choice(_PLACES)}: {_sentence(rng, 6)}",
        "source": rng.choice(_SOURCES),
        "published_at": f"2026-{rng.randrange(1, 12):02d}-{rng.randrange(1, 28):02d}T{rng.randrange(24):02d}:15:00Z",
        "score": rng.randrange(1_000) / 1_000,
        "tags": rng.sample(_WORDS, 3),
        "summary": _sentence(rng, words),
    }


def quote(rng: random.Random) -> dict[str, Any]:
    """`GET /api/v1/market-data/{symbol}`."""
    return {**_quote(rng), "items": [rng.randrange(10_000) / 100 for _ in range(rng.randrange(4, 24))]}


def quotes(rng: random.Random) -> dict[str, Any]:
    """`GET /api/v1/market-data`."""
    return {"items": [_quote(rng) for _ in range(rng.randrange(5, 22))], "total": rng.randrange(50, 900)}


def article(rng: random.Random) -> dict[str, Any]:
    """`GET /api/v1/news/{id}`."""
    words = rng.randrange(60, 200)
    return {**_article(rng, words), "items": [f"n-{rng.randrange(10**6):06d}" for _ in range(5)]}


def articles(rng: random.Random) -> dict[str, Any]:
    """`GET /api/v1/news`."""
    return {
        "items": [_article(rng, 10) for _ in range(rng.randrange(4, 12))],
        "total": rng.randrange(200, 4_000),
    }


def sources(rng: random.Random) -> dict[str, Any]:
    """`GET /api/v1/data-sources`."""
    items = [
        {
            "id": f"ds-{rng.randrange(10**4):04d}",
            "name": rng.choice(_SOURCES),
            "enabled": rng.random() < 0.9,
            "interval_s": rng.choice((5, 15, 60, 300)),
            "last_seen": f"2026-11-{rng.randrange(1, 22):02d}T08:00:00Z",
        }
        for _ in range(rng.randrange(6, 20))
    ]
    return {"items": items, "total": len(items)}


def receipt(rng: random.Random) -> dict[str, Any]:
    """What a mutating operation answers."""
    return {
        "status": "accepted",
        "total": rng.randrange(1, 50),
        "items": [_symbol(rng) for _ in range(rng.randrange(3, 40))],
        "job": {"id": f"j-{rng.randrange(10**8):08d}", "queue": rng.choice(("fast", "bulk")), "attempt": 1},
        "note": _sentence(rng, rng.randrange(8, 40)),
    }


def dump(document: Any) -> str:
    """JSON as web frameworks write it: compact, UTF-8."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def pool(rng: random.Random, make: Callable[[random.Random], dict[str, Any]], size: int = POOL) -> list[str]:
    """Return `size` templates of bodies within the bounds; `OF_THIS_REQUEST` stands where the request's own goes."""
    bodies: list[str] = []
    while len(bodies) < size:
        body = dump({"meta": {"version": "1.14.2", "ref": OF_THIS_REQUEST}, **make(rng)})
        if BODY_BYTES_MIN <= len(body.encode()) <= BODY_BYTES_MAX - 40:
            bodies.append(body)
    return bodies
