"""The market both sample systems know: instruments, news and catalogued sources, the same for every run.

Values are chosen so that a planted fault always shows: prices never end in a round number, each headline has an
accented letter, and each market capitalisation is odd and beyond 2^53.
"""

from __future__ import annotations

import datetime as dt
import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

SEED: Final = 20_260_302
QUOTES: Final = 48
NEWS: Final = 120
TOPICS: Final = ("energy", "metals", "banking", "retail")
NEWS_PER_PAGE: Final = 5
SOURCES: Final = 24
SOURCES_TO_DELETE_MAX: Final = 20_000
OPENED_AT: Final = dt.datetime(2026, 3, 2, 14, 30, tzinfo=dt.UTC)

_CURRENCIES: Final = ("EUR", "USD", "CHF", "GBP")
_CITIES: Final = ("Zürich", "Málaga", "Orléans", "Göteborg", "Łódź", "Besançon")
_VERBS: Final = (
    "raises its outlook",
    "cuts its dividend",
    "opens a plant",
    "names a new board",
    "sells a unit",
)
_SOURCE_KINDS: Final = ("websocket", "rest", "fix")
_ODD_BEYOND_DOUBLES: Final = (1 << 53) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One instrument and its last price. `volume` in units, `change_pct` in per cent."""

    symbol: str
    name: str
    currency: str
    price: float
    previous_close: float
    change_pct: float
    volume: int
    market_cap: int
    active: bool
    as_of: dt.datetime
    trading_day: dt.date
    closed_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsItem:
    """One piece of news; `rank` orders a topic's items, best first."""

    news_id: str
    topic: str
    rank: int
    headline: str
    summary: str
    sentiment: float
    published_at: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One data source of the catalogue."""

    source_id: str
    name: str
    kind: str
    url: str
    status: str
    enabled: bool


def quotes() -> tuple[Quote, ...]:
    """All instruments, by symbol."""
    rng = random.Random(f"{SEED}:quotes")
    letters = "ABCDEFGHKLMNPRSTVW"
    symbols = sorted("".join(pair) for pair in _pairs(rng, letters, QUOTES))
    return tuple(_quote(rng, symbol) for symbol in symbols)


def news() -> tuple[NewsItem, ...]:
    """All news, by id."""
    rng = random.Random(f"{SEED}:news")
    items = []
    for number in range(NEWS):
        city, verb = rng.choice(_CITIES), rng.choice(_VERBS)
        published = OPENED_AT + dt.timedelta(minutes=7 * number)
        items.append(
            NewsItem(
                news_id=f"news-{number:04d}",
                topic=TOPICS[number % len(TOPICS)],
                rank=number // len(TOPICS) + 1,
                headline=f"{city} group {verb} (no. {number})",
                summary=f"The company from {city} {verb}, as it said on {published:%d %B}. "
                f"Analysts had expected {rng.randint(2, 9)} per cent; they now see {rng.randint(10, 19)}.",
                sentiment=round(rng.uniform(-1, 1), 3),
                published_at=published,
            )
        )
    return tuple(items)


def sources() -> tuple[Source, ...]:
    """The catalogue that reads see; nothing changes or deletes it."""
    rng = random.Random(f"{SEED}:sources")
    return tuple(
        Source(
            source_id=f"ref-{number:03d}",
            name=f"Feed of {rng.choice(_CITIES)} {number}",
            kind=rng.choice(_SOURCE_KINDS),
            url=f"wss://feed-{number:03d}.example/stream",
            status="active",
            enabled=True,
        )
        for number in range(SOURCES)
    )


def columns(item: Quote | NewsItem | Source) -> dict[str, Any]:
    """The item as a row, for seeding."""
    return asdict(item)


def utc_text(moment: str) -> str:
    """A timestamp as PostgreSQL's JSON has it, in the API's form (`2026-03-02T14:30:00Z`)."""
    return dt.datetime.fromisoformat(moment).astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def sparkline(quote: Mapping[str, Any]) -> bytes:
    """The last 16 prices as big-endian doubles; made from the quote alone."""
    rng = random.Random(f"{SEED}:spark:{quote['symbol']}")
    prices = [round(quote["price"] * rng.uniform(0.97, 1.03), 2) for _ in range(16)]
    return struct.pack(">16d", *prices)


def report(quote: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> str:
    """A report for people, as plain text."""
    lines = [
        f"{quote['symbol']} {quote['name']}",
        f"price {quote['price']:.2f} {quote['currency']}",
        f"volume {quote['volume']}",
        *(f"- {item['headline']}" for item in items),
    ]
    return "\n".join(lines) + "\n"


def _pairs(rng: random.Random, letters: str, count: int) -> list[tuple[str, ...]]:
    found: dict[tuple[str, ...], None] = {}
    while len(found) < count:
        found[tuple(rng.choice(letters) for _ in range(4))] = None
    return list(found)


def _quote(rng: random.Random, symbol: str) -> Quote:
    return Quote(
        symbol=symbol,
        name=f"{rng.choice(_CITIES)} {symbol.title()} AG",
        currency=rng.choice(_CURRENCIES),
        price=rng.randint(20, 900) + rng.choice((0.13, 0.27, 0.37, 0.61, 0.83)),
        previous_close=float(rng.randint(20, 900)),
        change_pct=rng.choice((-1, 1)) * (rng.randint(100, 9_000) + rng.randint(1, 9) / 10) / 1000,
        volume=rng.randint(1_000, 9_000_000),
        market_cap=_ODD_BEYOND_DOUBLES + 2 * rng.randint(0, 1 << 40),
        active=True,
        as_of=OPENED_AT + dt.timedelta(seconds=rng.randint(0, 3_600)),
        trading_day=OPENED_AT.date(),
    )
